//! What `/proc` says of a process (`proc(5)`).

use std::fs;
use std::time::{Duration, Instant};

use ipc_core::Wait;
use ipc_core::wait::poll;

/// The letter of its state: `S` asleep, `T` stopped, `Z` a zombie; `None` when it is gone.
pub(crate) fn state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may hold anything: the state follows the last one.
    text.rsplit_once(") ")?.1.chars().next()
}

/// Waits until every thread of the process is in this state.
pub(crate) fn until_all(pid: u32, wanted: char) {
    until(&format!("process {pid} to be in state {wanted}"), || {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return false;
        };
        tasks.flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with(wanted))
        })
    });
}

/// Waits for something that happens soon and tells nobody.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < patience, "waited in vain for {what}");
        pause(Duration::from_micros(200));
    }
}

pub(crate) fn pause(time: Duration) {
    let _ = poll([], Wait::at_most(time));
}

//! What `/proc` says of a process (`proc(5)`).

use std::fs;
use std::time::{Duration, Instant};

use ipc_core::Wait;
use ipc_core::wait::poll;

/// The letter of its state: `S` asleep, `T` stopped, `Z` a zombie; `None` when it is gone.
pub(crate) fn state(pid: u32) -> Option<char> {
    state_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command's name, in parentheses, may hold anything: the state follows the last one.
fn state_in(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether this thread is in this state.
pub(crate) fn thread_is(pid: u32, thread: i32, wanted: char) -> bool {
    fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat"))
        .is_ok_and(|stat| state_in(&stat) == Some(wanted))
}

/// Whether every thread of the process is in this state.
pub(crate) fn all_are(pid: u32, wanted: char) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let mut names = tasks.flatten().map(|task| task.file_name());
    names.all(|name| {
        let thread = name.to_str().and_then(|name| name.parse().ok());
        thread.is_some_and(|thread| thread_is(pid, thread, wanted))
    })
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

//! What happens to the children when the program returns from `main` or calls `exit`.

use std::sync::Once;
use std::time::Duration;

use ipc_core::Wait;
use rustix::process::Signal;

use crate::reap::Role;
use crate::spawn::sys;
use crate::supervisor;

/// How long daemons have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| sys::at_exit(end_children));
}

/// Daemons are ended, the others are waited for. Errors leave the rest to the kernel
/// (`PR_SET_PDEATHSIG`).
extern "C" fn end_children() {
    let children = supervisor::children();
    let of_role = |role| children.iter().filter(move |child| child.role() == role);
    let daemons = || of_role(Role::Daemon);
    for daemon in daemons() {
        let _ = daemon.signal(Signal::TERM);
    }
    for internal in of_role(Role::Internal) {
        let _ = internal.signal(Signal::KILL);
        let _ = internal.wait(Wait::at_most(GRACE));
    }
    let grace = Wait::at_most(GRACE);
    for daemon in daemons() {
        if matches!(daemon.wait(grace), Ok(None)) {
            let _ = daemon.signal(Signal::KILL);
            let _ = daemon.wait(Wait::at_most(GRACE));
        }
    }
    for child in of_role(Role::Plain) {
        let _ = child.wait(Wait::Forever);
    }
}

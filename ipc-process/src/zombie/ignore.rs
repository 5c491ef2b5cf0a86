use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::list::{reap, zombies};
use crate::spawn::signals::{self, ChildDisposition};

/// Has the kernel reap the children of this process by itself, until the guard is dropped, and
/// reaps the zombies that are there.
///
/// This concerns the whole process: every other part of it that waits for a child gets ECHILD,
/// `std::process` among them. [`Process`](crate::Process) goes on to tell how each process ended
/// (from Linux 6.15; before, only that it did).
///
/// It uses `SA_NOCLDWAIT` with the default disposition of SIGCHLD rather than `SIG_IGN`, which
/// every program that we execute would inherit. While several guards live, the first has acted
/// and the last restores.
///
/// # Errors
/// What `sigaction(2)` reports; when `/proc` cannot be read.
pub fn ignore_children() -> io::Result<IgnoreGuard> {
    let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
    let guard = match guards.previous {
        Some(_) => {
            guards.count += 1;
            IgnoreGuard(())
        }
        None => {
            *guards = Guards {
                count: 1,
                previous: Some(signals::discard_children()?),
            };
            IgnoreGuard(())
        }
    };
    // The guard's drop takes the lock too.
    drop(guards);
    // The kernel discards only what ends from now on.
    for zombie in zombies()? {
        match reap(zombie.pid) {
            Ok(_) => {}
            // Somebody was faster.
            Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(guard)
}

struct Guards {
    count: usize,
    previous: Option<ChildDisposition>,
}

static GUARDS: Mutex<Guards> = Mutex::new(Guards {
    count: 0,
    previous: None,
});

/// Restores, when dropped, what became of children before [`ignore_children`].
#[derive(Debug)]
#[must_use = "the children are ignored until this is dropped"]
pub struct IgnoreGuard(());

impl Drop for IgnoreGuard {
    fn drop(&mut self) {
        let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
        guards.count -= 1;
        if guards.count == 0
            && let Some(previous) = guards.previous.take()
        {
            signals::restore_children(&previous);
        }
    }
}

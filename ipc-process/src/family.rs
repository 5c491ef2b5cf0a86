//! Who else there is: the processes that this one started, and the one that started it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};

use crate::reap::Role;
use crate::supervisor;

/// A process that this one started and that has not ended, as [`active_children`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActiveChild {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Whether it ends with this program.
    pub daemon: bool,
}

/// The processes that this one started and that have not ended, whether their handles are kept
/// or dropped.
#[must_use]
pub fn active_children() -> Vec<ActiveChild> {
    supervisor::children()
        .iter()
        .filter(|child| child.role() != Role::Internal && !child.has_ended())
        .map(|child| ActiveChild {
            pid: child.pid,
            name: child.name().to_string(),
            daemon: child.is_daemon(),
        })
        .collect()
}

// Ordering: set before the function runs, in the process's first thread.
static PARENT: AtomicI32 = AtomicI32::new(0);

pub(crate) fn set_parent(pid: i32) {
    PARENT.store(pid, Ordering::Relaxed);
}

/// The process that started this one.
#[derive(Debug)]
pub struct ParentProcess {
    pid: u32,
    /// `None` if it had ended before it was asked for.
    pidfd: Option<OwnedFd>,
}

/// The process that started this one; `None` in a program that was started by other means, and in
/// a [detached](crate::zombie::spawn_detached) process.
///
/// # Errors
/// What `pidfd_open(2)` reports, such as EMFILE.
pub fn parent_process() -> io::Result<Option<ParentProcess>> {
    let parent = PARENT.load(Ordering::Relaxed);
    let Some(pid) = Pid::from_raw(parent).filter(|_| parent > 0) else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        // Still our parent, so it was when its descriptor was made, and nobody else by its pid.
        Ok(pidfd) if getppid() == Some(pid) => Some(pidfd),
        Ok(_) | Err(Errno::SRCH) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Some(ParentProcess {
        pid: parent.unsigned_abs(),
        pidfd,
    }))
}

impl ParentProcess {
    /// Its process id. For people and logs: once the process has ended, another may get it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.ends_within(Wait::Never)
    }

    /// Waits for its end at most this long; whether it has come.
    #[must_use]
    pub fn ends_within(&self, wait: Wait) -> bool {
        self.pidfd
            .as_ref()
            .is_none_or(|pidfd| poll([(pidfd.as_fd(), Interest::Read)], wait) == Ok(Polled::Ready))
    }
}

//! Whose word counts when an end goes: that of the process which holds it.

use std::cell::Cell;

use rustix::process::{Pid, getpid};

/// The right of an end, or of a name, to act for itself when it is dropped: to say farewell, to
/// close what is shared, to remove what it made. For those who write a mechanism.
///
/// There are copies that must do none of that. One has been handed off and lives on elsewhere. The
/// other is that of a child made by `fork(2)`: it has the memory and the descriptors of its parent,
/// and a child that exits runs the same destructors, while the parent goes on with its end. What
/// they do to a shared object (a byte in a socket, a flag in shared memory, `shutdown(2)`,
/// `epoll_ctl(2)`) they would do to the parent.
///
/// So an end keeps the id of the process that made it; a hand-off makes a new one. Asking costs one
/// system call, `getpid(2)`, once in the life of an end. Not told apart is a child that sees the
/// same id in a namespace of its own: the first process of a container that forks into another.
#[derive(Debug)]
pub struct Custody {
    process: Pid,
    released: Cell<bool>,
}

impl Custody {
    /// Custody of something that this process makes or takes over now.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "it is a statement about the calling process, not a value to fall back on"
    )]
    pub fn new() -> Self {
        Self {
            process: getpid(),
            released: Cell::new(false),
        }
    }

    /// Gives it up, because the end lives on elsewhere.
    pub fn release(&self) {
        self.released.set(true);
    }

    /// Whether a drop has to act: not after a release, and not in a forked child.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !self.released.get() && self.process == getpid()
    }
}

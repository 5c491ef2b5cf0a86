//! The one loop in which an end waits for its socket.

use std::os::fd::{AsFd, OwnedFd};

use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Wait, WaitStrategy, Waiter};
use rustix::io::Errno;

use crate::sys::Sleep;

/// Why a call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It would have had to wait.
    WouldWait,
    /// It waited until the deadline.
    TimedOut,
    /// The system call (or the poll before it) failed.
    Failed(Errno),
}

/// Makes `call` until it does something or the wait is over. A caller that may sleep for ever and
/// does not want to look first gets exactly one system call.
#[inline]
pub(crate) fn complete(
    socket: &OwnedFd,
    interest: Interest,
    waiter: &mut Waiter,
    wait: Wait,
    mut call: impl FnMut(Sleep) -> Result<usize, Errno>,
) -> Result<usize, Stop> {
    let mut attempt = |sleep| loop {
        match call(sleep) {
            Ok(done) => return Ok(Some(done)),
            // The same call again: a deadline is kept by poll, which counts from the clock.
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(Stop::Failed(error)),
        }
    };
    if !(wait == Wait::Forever && waiter.strategy() == WaitStrategy::Block) {
        if let Some(done) = attempt(Sleep::Never)? {
            return Ok(done);
        }
        if wait == Wait::Never {
            return Err(Stop::WouldWait);
        }
        if let Some(done) = waiter.look(wait, || attempt(Sleep::Never))? {
            return Ok(done);
        }
    }
    loop {
        let sleep = if wait == Wait::Forever {
            Sleep::Allowed
        } else {
            match poll([(socket.as_fd(), interest)], wait) {
                Ok(Polled::Ready) => Sleep::Never,
                Ok(Polled::TimedOut) => return Err(Stop::TimedOut),
                Err(error) => return Err(Stop::Failed(error)),
            }
        };
        // Ready and yet nothing done happens: another process may hold a copy of this end.
        if let Some(done) = attempt(sleep)? {
            return Ok(done);
        }
    }
}

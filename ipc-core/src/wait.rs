//! How long a call may wait, the one sleep that all mechanisms share, and the one loop of those whose
//! calls move bytes.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::{WaitStrategy, Waiter};

/// How long a call may wait.
///
/// Deadlines are points on the monotonic clock: a step of the wall clock moves none of them, and
/// a signal handler that interrupts the wait does not prolong it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Do it now or fail with `Full`, `Empty` or `NotFound`. Never sleeps.
    Never,
    /// As long as the peer lives.
    Forever,
    /// Until this moment, then fail with `TimedOut`; a moment that has passed still makes one
    /// attempt.
    Until(Instant),
}

impl Wait {
    /// Waits at most this long from now; a time beyond the clock's range is [`Wait::Forever`].
    #[must_use]
    pub fn at_most(timeout: Duration) -> Self {
        Instant::now()
            .checked_add(timeout)
            .map_or(Self::Forever, Self::Until)
    }

    /// What is left, `None` for no end.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        match self {
            Self::Never => Some(Duration::ZERO),
            Self::Forever => None,
            Self::Until(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
        }
    }

    /// Whether there is nothing left to wait for.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Never => true,
            Self::Forever => false,
            Self::Until(deadline) => Instant::now() >= deadline,
        }
    }
}

/// What [`poll`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// At least one descriptor is ready or hung up.
    Ready,
    /// The wait is over.
    TimedOut,
}

/// Sleeps until one of the descriptors is readable (writable where `Interest::Write`) or has hung
/// up, or the wait is over, whatever signals arrive meanwhile: `ppoll(2)` with the time that
/// remains, again after each EINTR.
///
/// # Errors
/// What `ppoll(2)` reports, without EINTR.
pub fn poll<const N: usize>(
    descriptors: [(BorrowedFd<'_>, Interest); N],
    wait: Wait,
) -> Result<Polled, Errno> {
    let mut polled = descriptors.map(|(fd, interest)| {
        let flags = match interest {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
            Interest::HangUp => PollFlags::empty(),
        };
        PollFd::from_borrowed_fd(fd, flags)
    });
    poll_all(&mut polled, wait)
}

/// [`poll`] of any number, which tells of each by its events.
pub(crate) fn poll_all(polled: &mut [PollFd<'_>], wait: Wait) -> Result<Polled, Errno> {
    loop {
        let remaining = wait.remaining();
        let timeout = remaining.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match rustix::event::poll(polled, timeout.as_ref()) {
            Ok(0) if wait.is_over() => return Ok(Polled::TimedOut),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(Polled::Ready),
            Err(error) => return Err(error),
        }
    }
}

/// What [`poll`] waits for on one descriptor; a hang-up ends every wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Nothing but the hang-up.
    HangUp,
}

/// Whether a call may sleep in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// EAGAIN instead.
    Never,
    /// Until something can be done.
    Allowed,
}

/// Why [`complete`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It would have had to wait.
    WouldWait,
    /// It waited until the deadline.
    TimedOut,
    /// The system call (or the poll before it) failed.
    Failed(Errno),
}

/// Makes `call` on a descriptor until it does something or the wait is over: how many bytes it moved.
/// A caller that may sleep for ever and does not want to look first gets exactly one system call.
///
/// # Errors
/// Why nothing was done. EINTR is none.
#[inline]
pub fn complete(
    fd: BorrowedFd<'_>,
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
            match poll([(fd, interest)], wait) {
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

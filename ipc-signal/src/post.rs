//! Where the signals of a receiver arrive.
//!
//! An unblocked real-time signal kills the process that it reaches, and one sent to a process
//! reaches any thread that does not block it. So there are two ways, chosen when a receiver
//! announces itself:
//!
//! * **direct**: every thread of the process blocks the signal, see
//!   [`Number::block_everywhere`]. It is sent to the process, and whichever thread calls `recv`
//!   takes it with `sigtimedwait(2)`: one system call, one wake.
//! * **[clerk](crate::clerk)**: other threads do not block it. A thread of our own, born with every signal
//!   blocked, is the addressee (`PIDFD_THREAD`); it passes the messages on through a pipe. The
//!   masks of the host's threads are left alone; the price is a second wake.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::{Limit, OpenError, RecvError, Wait, Waiter};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Resource, getrlimit};

use crate::clerk::Clerk;
use crate::notice;
use crate::number::Number;
use crate::sys::{self, Only};
use crate::word::Word;

/// A wait for signals looks at the lifeline this often, which bounds how late a death is learnt.
pub(crate) const SLICE: Duration = Duration::from_millis(40);
/// Signals of others that one call that must not wait skips before it says "nothing".
const NOISE: usize = 4096;
/// Late signals that a drop takes out of the queue: a queue is at most so long that this empties
/// it, a flood is not followed for ever.
const STRAYS: usize = 1 << 17;

/// What a look at the post found.
pub(crate) enum Found {
    Word(Word),
    End(Peer),
}

/// The place where signals with one nonce arrive.
#[derive(Debug)]
pub(crate) struct Post {
    way: Way,
    /// Messages taken out of the queue, modulo 2^32; of a clerk, it counts itself.
    arrived: u32,
    only: Only,
    pub(crate) nonce: u64,
    // Last: the number is free only when nobody waits for it any more.
    number: Number,
}

#[derive(Debug)]
enum Way {
    /// With the ticker that interrupts an endless wait for a look at the lifeline, if the kernel
    /// had one left; arming a timer for each wait costs a tenth of a round trip.
    Direct(Option<sys::Ticker>),
    Clerk(Clerk),
}

impl Post {
    /// Gets ready for signals in this process and tells the sender so.
    pub(crate) fn open(
        signal: Option<u8>,
        notices: &OwnedFd,
        lifeline: &Lifeline,
    ) -> Result<Self, OpenError> {
        let limit = getrlimit(Resource::Sigpending).current;
        if limit == Some(0) {
            return Err(OpenError::Limit(Limit {
                name: "RLIMIT_SIGPENDING",
                value: limit,
                advice: "no signal could ever arrive; raise the limit (ulimit -i)",
            }));
        }
        let mut nonce = [0; 8];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| OpenError::io("getrandom", e))?;
        let nonce = u64::from_ne_bytes(nonce);
        let number = Number::take(signal)?;

        let only = Only::new(number.get());
        let (way, pidfd) = if number.block_everywhere()? {
            drain(&only);
            let own = rustix::process::getpid();
            let pidfd = rustix::process::pidfd_open(own, PidfdFlags::empty())
                .map_err(|e| OpenError::io("pidfd_open", e))?;
            (
                Way::Direct(sys::Ticker::start(number.get(), SLICE).ok()),
                pidfd,
            )
        } else {
            let (clerk, pidfd) = Clerk::start(number.get(), nonce, lifeline)?;
            (Way::Clerk(clerk), pidfd)
        };
        let post = Self {
            way,
            arrived: 0,
            only,
            nonce,
            number,
        };
        match notice::announce(notices, &pidfd, post.number.get(), nonce) {
            // No sender is left to hear it; the next receive finds that out.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(post),
            Err(error) => Err(OpenError::io("sendmsg", error)),
        }
    }

    /// The next message, or the end after the last one, or `Empty` or `TimedOut`.
    pub(crate) fn next(
        &mut self,
        lifeline: &Lifeline,
        waiter: &mut Waiter,
        wait: Wait,
    ) -> Result<Found, RecvError> {
        match &self.way {
            Way::Direct(ticker) => {
                let slice = if ticker.is_some() { None } else { Some(SLICE) };
                let found = direct(&self.only, self.nonce, slice, lifeline, waiter, wait)?;
                if let Found::Word(_) = found {
                    self.arrived = self.arrived.wrapping_add(1);
                }
                Ok(found)
            }
            Way::Clerk(clerk) => clerk.next(waiter, wait),
        }
    }

    /// In a forked child: lets go of what only the parent has, its timer and its thread.
    pub(crate) fn forsake(&mut self) {
        match &mut self.way {
            // The number may be that of another timer here (`timer_create(2)`).
            Way::Direct(ticker) => std::mem::forget(ticker.take()),
            Way::Clerk(clerk) => clerk.forsake(),
        }
    }

    /// Takes what has arrived out of the queue and counts all that ever did, modulo 2^32: what
    /// comes later is the sender's to send again.
    pub(crate) fn close(&mut self) -> u32 {
        match &mut self.way {
            Way::Direct(ticker) => {
                *ticker = None;
                for _ in 0..STRAYS {
                    match self.only.take(Some(Duration::ZERO)) {
                        Ok(Some(info)) if Word::from_siginfo(&info, self.nonce).is_some() => {
                            self.arrived = self.arrived.wrapping_add(1);
                        }
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => break,
                    }
                }
                self.arrived
            }
            Way::Clerk(clerk) => {
                clerk.stop();
                clerk.arrived.load(Ordering::Acquire)
            }
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes late signals out of the queue, where they would count against the user's limit.
fn drain(only: &Only) {
    for _ in 0..STRAYS {
        if !matches!(only.take(Some(Duration::ZERO)), Ok(Some(_))) {
            return;
        }
    }
}

/// One attempt that does not wait.
fn attempt(only: &Only, nonce: u64) -> Result<Option<Word>, RecvError> {
    for _ in 0..NOISE {
        match only.take(Some(Duration::ZERO)) {
            Ok(Some(info)) => {
                if let Some(word) = Word::from_siginfo(&info, nonce) {
                    return Ok(Some(word));
                }
            }
            Ok(None) => return Ok(None),
            Err(error) => return Err(RecvError::io("rt_sigtimedwait", error)),
        }
    }
    Ok(None)
}

/// `slice` bounds each wait; without it the ticker does.
fn direct(
    only: &Only,
    nonce: u64,
    slice: Option<Duration>,
    lifeline: &Lifeline,
    waiter: &mut Waiter,
    wait: Wait,
) -> Result<Found, RecvError> {
    if let Some(word) = waiter.look(wait, || attempt(only, nonce))? {
        return Ok(Found::Word(word));
    }
    loop {
        let timeout = match (wait.remaining(), slice) {
            (Some(left), _) => Some(left.min(SLICE)),
            (None, slice) => slice,
        };
        match only.take(timeout) {
            Ok(Some(info)) => match Word::from_siginfo(&info, nonce) {
                Some(word) => return Ok(Found::Word(word)),
                // Noise must hide neither what stands behind it nor the deadline.
                None => {
                    if let Some(word) = attempt(only, nonce)? {
                        return Ok(Found::Word(word));
                    }
                }
            },
            Ok(None) => {}
            Err(error) => return Err(RecvError::io("rt_sigtimedwait", error)),
        }
        let peer = lifeline.peer();
        if peer != Peer::Alive {
            // A signal is in the queue before its send returns: what was sent before the end is
            // there now, and one more look finds the queue empty or not.
            return match attempt(only, nonce)? {
                Some(word) => Ok(Found::Word(word)),
                None => Ok(Found::End(peer)),
            };
        }
        match wait {
            Wait::Never => return Err(RecvError::Empty),
            Wait::Until(_) if wait.is_over() => return Err(RecvError::TimedOut),
            _ => {}
        }
    }
}

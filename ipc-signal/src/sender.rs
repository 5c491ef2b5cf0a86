use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Limits, SendError, Wait, WaitStrategy, Waiter};
use rustix::io::Errno;

use crate::notice::{self, Notice};
use crate::target::Target;
use crate::word::{MAX_MESSAGE, Word};

/// Notices that one send reads at most, so that a flood of them cannot hold it.
const NOTICES: usize = 64;
/// A process that dies closes its sockets one after the other; so long the lifeline may be behind.
const DYING: Duration = Duration::from_millis(50);
/// At the kernel's limit nothing tells of room: look again after so long, doubling to the most.
const RETRY_FIRST: Duration = Duration::from_micros(50);
const RETRY_MOST: Duration = Duration::from_millis(10);

/// The sending end. See the [crate documentation](crate).
#[derive(Debug)]
pub struct Sender {
    pub(crate) lifeline: Lifeline,
    pub(crate) notices: OwnedFd,
    /// Nobody before the first announcement and while the receiver moves.
    pub(crate) target: Option<Target>,
    pub(crate) window: u32,
    /// Messages sent to `target` whose receipt was not noticed yet, at most `window`.
    pub(crate) in_flight: u32,
    pub(crate) waiter: Waiter,
    pub(crate) released: Cell<bool>,
    end: Option<End>,
}

/// Why nothing can be sent any more.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Died,
    Corrupt(&'static str),
}

impl From<End> for SendError {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Died => Self::PeerDied,
            End::Corrupt(what) => Self::Corrupt { what },
        }
    }
}

/// What stands in the way of one message.
enum Obstacle {
    /// Nobody is ready, or the window is full: a notice will end it.
    Window,
    /// The user's queue of signals is full: nothing tells when that ends.
    Kernel,
}

impl Sender {
    pub(crate) fn new(
        lifeline: Lifeline,
        notices: OwnedFd,
        window: u32,
        strategy: WaitStrategy,
    ) -> Self {
        Self {
            lifeline,
            notices,
            target: None,
            window,
            in_flight: 0,
            waiter: Waiter::new(strategy),
            released: Cell::new(false),
            end: None,
        }
    }

    /// One attempt: read the notices, then send if that is allowed.
    fn attempt(&mut self, word: Word) -> Result<Option<Obstacle>, SendError> {
        self.read_notices()?;
        if self.in_flight >= self.window {
            return Ok(Some(Obstacle::Window));
        }
        let Some(target) = &self.target else {
            return Ok(Some(Obstacle::Window));
        };
        match target.send(word) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(None)
            }
            Err(Errno::AGAIN) => Ok(Some(Obstacle::Kernel)),
            // The process or the clerk has ended: a notice of what follows is on its way.
            Err(Errno::SRCH) => {
                self.target = None;
                Ok(Some(Obstacle::Window))
            }
            Err(error) => Err(SendError::io("pidfd_send_signal", error)),
        }
    }

    /// One system call when there is no news, which is what a send usually finds.
    fn read_notices(&mut self) -> Result<(), SendError> {
        if let Some(end) = self.end {
            return Err(end.into());
        }
        for _ in 0..NOTICES {
            match notice::next(&self.notices).map_err(|e| SendError::io("recvmsg", e))? {
                None => break,
                Some(Notice::Announce {
                    pidfd,
                    process,
                    number,
                    nonce,
                }) => {
                    let target = Target::announced(pidfd, process, number, nonce)
                        .map_err(|e| SendError::io("read /proc", e))?;
                    if target.is_none() {
                        return self.finish(End::Corrupt("the receiver announces a stranger"));
                    }
                    // What the former one had not received is gone with it.
                    self.in_flight = 0;
                    self.target = target;
                }
                Some(Notice::Withdraw { nonce }) => {
                    self.target.take_if(|target| target.nonce == nonce);
                }
                Some(Notice::Taken { count, nonce }) => {
                    let current = self.target.as_ref().is_some_and(|t| t.nonce == nonce);
                    match self.in_flight.checked_sub(count) {
                        Some(in_flight) if current => self.in_flight = in_flight,
                        _ if !current => {}
                        _ => return self.finish(End::Corrupt("received more than was sent")),
                    }
                }
                Some(Notice::End) => {
                    let lifeline = [(self.lifeline.as_fd(), Interest::Read)];
                    let _ = poll(lifeline, Wait::at_most(DYING));
                    return match self.lifeline.peer() {
                        Peer::Closed => self.finish(End::Closed),
                        Peer::Died => self.finish(End::Died),
                        Peer::Alive => self.finish(End::Corrupt("the receiver stopped speaking")),
                    };
                }
                Some(Notice::Nonsense) => return self.finish(End::Corrupt("a notice of no kind")),
            }
        }
        Ok(())
    }

    fn finish(&mut self, end: End) -> Result<(), SendError> {
        self.target = None;
        self.end = Some(end);
        Err(end.into())
    }

    /// Sleeps until it is worth another attempt.
    fn sleep(
        &self,
        obstacle: &Obstacle,
        retry: &mut Duration,
        wait: Wait,
    ) -> Result<(), SendError> {
        let until = match obstacle {
            Obstacle::Window => wait,
            Obstacle::Kernel => {
                let pause = wait.remaining().map_or(*retry, |left| left.min(*retry));
                *retry = (*retry * 2).min(RETRY_MOST);
                Wait::at_most(pause)
            }
        };
        match poll([(self.notices.as_fd(), Interest::Read)], until) {
            Ok(Polled::TimedOut) if wait.is_over() => Err(SendError::TimedOut),
            Ok(_) => Ok(()),
            Err(error) => Err(SendError::io("ppoll", error)),
        }
    }
}

impl ipc_core::Sender for Sender {
    /// Until the receiver has announced itself and after it has left for another process there
    /// is no room: `Full`, or a wait.
    ///
    /// `Corrupt` comes also for a receiver in a process namespace that this one cannot see: its
    /// announcement could name anybody.
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let Some(word) = Word::new(message) else {
            return Err(SendError::TooLong {
                len: message.len(),
                max: MAX_MESSAGE,
            });
        };
        let mut retry = RETRY_FIRST;
        loop {
            let Some(mut obstacle) = self.attempt(word)? else {
                return Ok(());
            };
            if wait == Wait::Never {
                return Err(SendError::Full);
            }
            let mut waiter = self.waiter.clone();
            let looked = waiter.look(wait, || {
                Ok::<_, SendError>(match self.attempt(word)? {
                    Some(again) => {
                        obstacle = again;
                        None
                    }
                    None => Some(()),
                })
            });
            self.waiter = waiter;
            if looked?.is_some() {
                return Ok(());
            }
            self.sleep(&obstacle, &mut retry, wait)?;
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: MAX_MESSAGE,
            depth_messages: usize::try_from(self.window).ok(),
            depth_bytes: None,
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.released.get() {
            self.lifeline.farewell();
        }
    }
}

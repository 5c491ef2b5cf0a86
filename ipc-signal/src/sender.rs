use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Custody, Limits, SendError, Wait, WaitStrategy, Waiter};
use rustix::io::Errno;

use crate::history::History;
use crate::notice::{self, Notice};
use crate::target::Target;
use crate::word::{MAX_MESSAGE, Word};

/// Notices that one look takes at most, so that a flood of them cannot hold a send.
const NOTICES: usize = 64;
/// A send looks for notices when the last look is this old: at each it would cost a tenth of a
/// round trip. So long a sender may go on sending to a receiver that is gone, or has moved: the kernel's
/// tick, which is cheaper to read, can be ten times as long, and a receiver move within it.
const LOOK: Duration = Duration::from_millis(1);
/// A process that dies closes its sockets one after the other; so long the lifeline may be behind.
const DYING: Duration = Duration::from_millis(50);
/// At the kernel's limit nothing tells of room: look again after so long, doubling to the most.
const RETRY_FIRST: Duration = Duration::from_micros(50);
const RETRY_MOST: Duration = Duration::from_millis(10);
/// A drop waits at most so long for the next receiver, if messages wait for it.
const PARTING: Duration = Duration::from_millis(100);

/// The sending end. See the [crate documentation](crate).
#[derive(Debug)]
pub struct Sender {
    pub(crate) lifeline: Lifeline,
    pub(crate) notices: OwnedFd,
    /// Who announced itself last and has not withdrawn.
    pub(crate) target: Option<Target>,
    /// Whether `target` answers ESRCH: what follows is in a notice.
    gone: bool,
    pub(crate) history: History,
    pub(crate) waiter: Waiter,
    pub(crate) custody: Custody,
    /// When notices were looked for last.
    looked: Instant,
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
        target: Option<Target>,
        history: History,
        strategy: WaitStrategy,
    ) -> Self {
        Self {
            lifeline,
            notices,
            target,
            gone: false,
            history,
            waiter: Waiter::new(strategy),
            custody: Custody::new(),
            looked: Instant::now(),
            end: None,
        }
    }

    /// Whether nothing stands in the way of the next message, as far as this end knows, and it has
    /// looked within [`LOOK`].
    #[inline]
    fn flows(&self) -> bool {
        self.history.flows() && !self.gone && self.looked.elapsed() < LOOK
    }

    /// One attempt to send this after all that waits.
    fn attempt(&mut self, word: Word) -> Result<Option<Obstacle>, SendError> {
        let ready = self.target.is_some() && !self.gone && self.history.has_room();
        if !ready || self.history.waiting() > 0 || self.looked.elapsed() >= LOOK {
            self.read_notices()?;
        }
        while let Some(waiting) = self.history.next() {
            if let Some(obstacle) = self.queue(waiting)? {
                return Ok(Some(obstacle));
            }
            self.history.next_sent();
        }
        if !self.history.has_room() {
            return Ok(Some(Obstacle::Window));
        }
        let obstacle = self.queue(word)?;
        if obstacle.is_none() {
            self.history.push(word);
        }
        Ok(obstacle)
    }

    fn queue(&mut self, word: Word) -> Result<Option<Obstacle>, SendError> {
        let target = match &mut self.target {
            Some(target) if !self.gone => target,
            _ => return Ok(Some(Obstacle::Window)),
        };
        match target.send(word) {
            Ok(()) => Ok(None),
            Err(Errno::AGAIN) => Ok(Some(Obstacle::Kernel)),
            // The process or the clerk has ended: a notice of what follows is on its way.
            Err(Errno::SRCH) => {
                self.gone = true;
                Ok(Some(Obstacle::Window))
            }
            Err(error) => Err(SendError::io("pidfd_send_signal", error)),
        }
    }

    /// One system call when there is no news.
    fn read_notices(&mut self) -> Result<(), SendError> {
        if let Some(end) = self.end {
            return Err(end.into());
        }
        self.looked = Instant::now();
        for _ in 0..NOTICES {
            let notice = notice::next(&self.notices).map_err(|e| SendError::io("recvmsg", e))?;
            let Some(notice) = notice else {
                break;
            };
            self.heed(notice)?;
        }
        Ok(())
    }

    fn heed(&mut self, notice: Notice) -> Result<(), SendError> {
        let current = |nonce| {
            self.target
                .as_ref()
                .is_some_and(|target| target.nonce == nonce)
        };
        match notice {
            Notice::Announce {
                pidfd,
                process,
                number,
                nonce,
            } => {
                let target = Target::announced(pidfd, process, number, nonce)
                    .map_err(|e| SendError::io("read /proc", e))?;
                if target.is_none() {
                    return self.finish(End::Corrupt("the receiver announces a stranger"));
                }
                self.history.announced();
                self.target = target;
                self.gone = false;
            }
            Notice::Withdraw { arrived, nonce } if current(nonce) => {
                self.target = None;
                if !self.history.withdrawn(arrived) {
                    return self.finish(End::Corrupt("more arrived than was sent"));
                }
            }
            Notice::Taken { count, nonce } if current(nonce) => {
                if !self.history.received(count) {
                    return self.finish(End::Corrupt("more was received than sent"));
                }
            }
            // Of a receiver that another has followed.
            Notice::Withdraw { .. } | Notice::Taken { .. } => {}
            Notice::End => {
                let lifeline = [(self.lifeline.as_fd(), Interest::Read)];
                let _ = poll(lifeline, Wait::at_most(DYING));
                return self.finish(match self.lifeline.peer() {
                    Peer::Closed => End::Closed,
                    Peer::Died => End::Died,
                    Peer::Alive => End::Corrupt("the receiver stopped speaking"),
                });
            }
            Notice::Nonsense => return self.finish(End::Corrupt("a notice of no kind")),
        }
        Ok(())
    }

    /// Before a farewell: what the receiver missed while it moved goes to where it is now.
    fn settle(&mut self) -> Result<(), SendError> {
        let wait = Wait::at_most(PARTING);
        let mut retry = RETRY_FIRST;
        loop {
            self.read_notices()?;
            let Some(waiting) = self.history.next() else {
                return Ok(());
            };
            match self.queue(waiting)? {
                None => self.history.next_sent(),
                Some(obstacle) => self.sleep(&obstacle, &mut retry, wait)?,
            }
        }
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
    #[inline]
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let Some(word) = Word::new(message) else {
            return Err(SendError::TooLong {
                len: message.len(),
                max: MAX_MESSAGE,
            });
        };
        if self.flows()
            && let Some(target) = &mut self.target
            && target.send(word).is_ok()
        {
            self.history.push(word);
            return Ok(());
        }
        self.send_slowly(word, wait)
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: MAX_MESSAGE,
            depth_messages: usize::try_from(self.history.window()).ok(),
            depth_bytes: None,
        }
    }
}

impl Sender {
    #[inline(never)]
    fn send_slowly(&mut self, word: Word, wait: Wait) -> Result<(), SendError> {
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
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.custody.is_ours() {
            // Whatever stands in the way, the receiver learns of the end.
            let _ = self.settle();
            self.lifeline.farewell();
        }
    }
}

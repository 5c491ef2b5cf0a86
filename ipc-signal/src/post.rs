//! Where the signals of a receiver arrive.
//!
//! An unblocked real-time signal kills the process that it reaches, and one sent to a process
//! reaches any thread that does not block it. So there are two ways, chosen when a receiver
//! announces itself:
//!
//! * **direct**: every thread of the process blocks the signal, see
//!   [`Number::block_everywhere`]. It is sent to the process, and whichever thread calls `recv`
//!   takes it with `sigtimedwait(2)`: one system call, one wake.
//! * **clerk**: other threads do not block it. A thread of our own, born with every signal
//!   blocked, is the addressee (`PIDFD_THREAD`); it passes the messages on through a pipe. The
//!   masks of the host's threads are left alone; the price is a second wake.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Limit, OpenError, RecvError, Wait, Waiter};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::PidfdFlags;

use crate::notice;
use crate::number::Number;
use crate::sys;
use crate::word::Word;

/// A wait for signals looks at the lifeline this often, which bounds how late a death is learnt.
const SLICE: Duration = Duration::from_millis(40);
/// Signals of others that one call that must not wait skips before it says "nothing".
const NOISE: usize = 4096;
/// Late signals that a drop takes out of the queue: a queue is at most so long that this empties
/// it, a flood is not followed for ever.
const STRAYS: usize = 1 << 17;

/// The record by which the clerk says that the sender is gone.
const CLOSED: [u8; 16] = [0xC0; 16];
const DIED: [u8; 16] = [0xD0; 16];
/// The first byte of the record by which the clerk says that its queue was empty after the request
/// whose number stands at the end of it.
const EMPTY: u8 = 0xE0;
/// So long a call that must not wait gives the clerk for that answer: a matter of microseconds,
/// unless the clerk gets no processor.
const ANSWER: Duration = Duration::from_millis(20);

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
        let mut nonce = [0; 8];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| OpenError::io("getrandom", e))?;
        let nonce = u64::from_ne_bytes(nonce);
        let number = Number::take(signal)?;

        let (way, pidfd) = if number.block_everywhere()? {
            drain(number.get());
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
                let found = direct(self.number.get(), self.nonce, slice, lifeline, waiter, wait)?;
                if let Found::Word(_) = found {
                    self.arrived = self.arrived.wrapping_add(1);
                }
                Ok(found)
            }
            Way::Clerk(clerk) => clerk.next(waiter, wait),
        }
    }

    /// Takes what has arrived out of the queue and counts all that ever did, modulo 2^32: what
    /// comes later is the sender's to send again.
    pub(crate) fn close(&mut self) -> u32 {
        match &mut self.way {
            Way::Direct(ticker) => {
                *ticker = None;
                for _ in 0..STRAYS {
                    match sys::take(self.number.get(), Some(Duration::ZERO)) {
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
fn drain(number: i32) {
    for _ in 0..STRAYS {
        if !matches!(sys::take(number, Some(Duration::ZERO)), Ok(Some(_))) {
            return;
        }
    }
}

/// One attempt that does not wait.
fn attempt(number: i32, nonce: u64) -> Result<Option<Word>, RecvError> {
    for _ in 0..NOISE {
        match sys::take(number, Some(Duration::ZERO)) {
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
    number: i32,
    nonce: u64,
    slice: Option<Duration>,
    lifeline: &Lifeline,
    waiter: &mut Waiter,
    wait: Wait,
) -> Result<Found, RecvError> {
    if let Some(word) = waiter.look(wait, || attempt(number, nonce))? {
        return Ok(Found::Word(word));
    }
    loop {
        let timeout = match (wait.remaining(), slice) {
            (Some(left), _) => Some(left.min(SLICE)),
            (None, slice) => slice,
        };
        match sys::take(number, timeout) {
            Ok(Some(info)) => match Word::from_siginfo(&info, nonce) {
                Some(word) => return Ok(Found::Word(word)),
                // Noise must hide neither what stands behind it nor the deadline.
                None => {
                    if let Some(word) = attempt(number, nonce)? {
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
            return match attempt(number, nonce)? {
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

/// The thread that takes the signals where the host's threads do not block them.
#[derive(Debug)]
struct Clerk {
    number: i32,
    /// Taken out to end the thread: a full pipe must not hold it.
    inbox: Option<OwnedFd>,
    thread: OwnedFd,
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU32>,
    /// Requests to say when the queue is empty.
    asked: Arc<AtomicU32>,
    handle: Option<JoinHandle<()>>,
}

impl Clerk {
    /// Starts it and gives the descriptor by which signals reach it.
    fn start(number: i32, nonce: u64, lifeline: &Lifeline) -> Result<(Self, OwnedFd), OpenError> {
        let (inbox, outbox) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| OpenError::io("pipe2", e))?;
        rustix::io::ioctl_fionbio(&inbox, true).map_err(|e| OpenError::io("ioctl", e))?;
        let lifeline = lifeline
            .try_clone()
            .map_err(|e| OpenError::io("fcntl", e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let arrived = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&arrived);
        let asked = Arc::new(AtomicU32::new(0));
        let requests = Arc::clone(&asked);
        let (ready, started) = mpsc::sync_channel(1);

        let mask = sys::block_all();
        let handle = Builder::new()
            .name(format!("signal {number}"))
            .spawn(move || {
                let thread = sys::this_thread();
                let well = thread.is_ok();
                let _ = ready.send(thread);
                drop(ready);
                if well {
                    work(
                        number, nonce, &lifeline, &outbox, &stopped, &counter, &requests,
                    );
                }
            });
        drop(mask);
        let handle = handle.map_err(|e| OpenError::io("clone", e))?;
        let thread = match started.recv() {
            Ok(Ok(thread)) => thread,
            Ok(Err(Errno::INVAL)) => {
                return Err(OpenError::Limit(Limit {
                    name: "PIDFD_THREAD",
                    value: None,
                    advice: "before Linux 6.9, receive in a process whose every thread blocks \
                             the signal",
                }));
            }
            Ok(Err(error)) => return Err(OpenError::io("pidfd_open", error)),
            Err(_) => return Err(OpenError::io("clone", std::io::ErrorKind::Other)),
        };
        let handle = Some(handle);
        let clerk = Self {
            number,
            inbox: Some(inbox),
            thread,
            stop,
            arrived,
            asked,
            handle,
        };
        let pidfd = clerk
            .thread
            .try_clone()
            .map_err(|e| OpenError::io("fcntl", e))?;
        Ok((clerk, pidfd))
    }

    fn next(&self, waiter: &mut Waiter, wait: Wait) -> Result<Found, RecvError> {
        let Some(inbox) = &self.inbox else {
            return Ok(Found::End(Peer::Died));
        };
        if let Some(found) = open_next(inbox)? {
            return Ok(found);
        }
        if let Some(found) = waiter.look(wait, || open_next(inbox))? {
            return Ok(found);
        }
        loop {
            match poll([(inbox.as_fd(), Interest::Read)], wait) {
                Ok(Polled::Ready) => {}
                Ok(Polled::TimedOut) => {
                    return match self.ask(inbox)? {
                        Some(found) => Ok(found),
                        None if wait == Wait::Never => Err(RecvError::Empty),
                        None => Err(RecvError::TimedOut),
                    };
                }
                Err(error) => return Err(RecvError::io("ppoll", error)),
            }
            if let Some(found) = open_next(inbox)? {
                return Ok(found);
            }
        }
    }

    /// Before saying that there is nothing: what was sent may still be on the clerk's desk.
    fn ask(&self, inbox: &OwnedFd) -> Result<Option<Found>, RecvError> {
        // Release, and Acquire in the clerk, which sees the request when the nudge wakes it.
        let number = self.asked.fetch_add(1, Ordering::Release).wrapping_add(1);
        sys::nudge(self.thread.as_fd(), self.number);
        let wait = Wait::at_most(ANSWER);
        loop {
            match open_record(inbox)? {
                Some(Record::Empty(answered)) if answered == number => return Ok(None),
                Some(Record::Empty(_)) => {}
                Some(Record::Found(found)) => return Ok(Some(found)),
                None => match poll([(inbox.as_fd(), Interest::Read)], wait) {
                    Ok(Polled::Ready) => {}
                    Ok(Polled::TimedOut) => return Ok(None),
                    Err(error) => return Err(RecvError::io("ppoll", error)),
                },
            }
        }
    }

    /// Ends the thread. From then on its pidfd answers ESRCH.
    fn stop(&mut self) {
        let Some(handle) = self.handle.take() else {
            return;
        };
        // Without its reader a full pipe gives EPIPE; the clerk blocks SIGPIPE like every signal.
        self.inbox = None;
        // Release, and Acquire in the clerk: needed for nothing but the flag itself.
        self.stop.store(true, Ordering::Release);
        sys::nudge(self.thread.as_fd(), self.number);
        // It takes no lock and calls no code of others, so it ends.
        let _ = handle.join();
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the clerk wrote.
enum Record {
    Found(Found),
    /// The queue was empty after this request.
    Empty(u32),
}

/// The next message or the end, if it is there.
fn open_next(inbox: &OwnedFd) -> Result<Option<Found>, RecvError> {
    loop {
        match open_record(inbox)? {
            Some(Record::Found(found)) => return Ok(Some(found)),
            // The answer to a request that was given up.
            Some(Record::Empty(_)) => {}
            None => return Ok(None),
        }
    }
}

/// The next record of the clerk, written whole: it is far shorter than `PIPE_BUF` (`pipe(7)`).
fn open_record(inbox: &OwnedFd) -> Result<Option<Record>, RecvError> {
    let mut record = [0; 16];
    loop {
        let found = match rustix::io::read(inbox, &mut record) {
            Ok(0) => Found::End(Peer::Died),
            Ok(_) if record == CLOSED => Found::End(Peer::Closed),
            Ok(_) if record == DIED => Found::End(Peer::Died),
            Ok(_) if record[0] == EMPTY => {
                let [.., a, b, c, d] = record;
                return Ok(Some(Record::Empty(u32::from_ne_bytes([a, b, c, d]))));
            }
            Ok(_) => match Word::from_record(record) {
                Some(word) => Found::Word(word),
                None => {
                    return Err(RecvError::Corrupt {
                        what: "a record of no kind",
                    });
                }
            },
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(RecvError::io("read", error)),
        };
        return Ok(Some(Record::Found(found)));
    }
}

/// The clerk's life.
fn work(
    number: i32,
    nonce: u64,
    lifeline: &Lifeline,
    outbox: &OwnedFd,
    stop: &AtomicBool,
    arrived: &AtomicU32,
    asked: &AtomicU32,
) {
    let mut answered = 0;
    let mut heard = true;
    let mut pass_on = |record: [u8; 16]| {
        while heard {
            match rustix::io::write(outbox, &record) {
                Err(Errno::INTR) => {}
                Ok(_) => return,
                Err(_) => heard = false,
            }
        }
    };
    let mut end = Peer::Alive;
    loop {
        // After the end, of the channel or of its receiver, only what is there already.
        let stopped = stop.load(Ordering::Acquire);
        let request = asked.load(Ordering::Acquire);
        let waits = end == Peer::Alive && !stopped && request == answered;
        match sys::take(number, Some(if waits { SLICE } else { Duration::ZERO })) {
            Ok(Some(info)) => {
                if let Some(word) = Word::from_siginfo(&info, nonce) {
                    arrived.fetch_add(1, Ordering::Release);
                    pass_on(word.into_record());
                }
            }
            Ok(None) if stopped => return,
            Ok(None) if request != answered => {
                let mut record = [EMPTY; 16];
                record[12..].copy_from_slice(&request.to_ne_bytes());
                pass_on(record);
                answered = request;
            }
            Ok(None) => match end {
                Peer::Alive => end = lifeline.peer(),
                Peer::Closed => return pass_on(CLOSED),
                Peer::Died => return pass_on(DIED),
            },
            Err(_) => return,
        }
    }
}

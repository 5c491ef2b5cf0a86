//! The thread that takes the signals where the host's threads do not block them, and passes them
//! on through a pipe.

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

use crate::post::{Found, SLICE};
use crate::sys::{self, Only};
use crate::word::Word;

/// The record by which the clerk says that the sender is gone.
const CLOSED: [u8; 16] = [0xC0; 16];
const DIED: [u8; 16] = [0xD0; 16];
/// The first byte of the record by which the clerk says that its queue was empty after the request
/// whose number stands at the end of it.
const EMPTY: u8 = 0xE0;
/// So long a call that must not wait gives the clerk for that answer: a matter of microseconds,
/// unless the clerk gets no processor.
const ANSWER: Duration = Duration::from_millis(20);

/// A running one.
#[derive(Debug)]
pub(crate) struct Clerk {
    number: i32,
    /// Taken out to end the thread: a full pipe must not hold it.
    inbox: Option<OwnedFd>,
    thread: OwnedFd,
    stop: Arc<AtomicBool>,
    /// Messages it took out of the queue, modulo 2^32.
    pub(crate) arrived: Arc<AtomicU32>,
    /// Requests to say when the queue is empty.
    asked: Arc<AtomicU32>,
    handle: Option<JoinHandle<()>>,
}

impl Clerk {
    /// Starts it and gives the descriptor by which signals reach it.
    pub(crate) fn start(
        number: i32,
        nonce: u64,
        lifeline: &Lifeline,
    ) -> Result<(Self, OwnedFd), OpenError> {
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

    pub(crate) fn next(&self, waiter: &mut Waiter, wait: Wait) -> Result<Found, RecvError> {
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

    /// In a forked child, where there is no such thread to wait for: a drop then leaves that of the
    /// parent alone.
    pub(crate) fn forsake(&mut self) {
        std::mem::forget(self.handle.take());
    }

    /// Ends the thread. From then on its pidfd answers ESRCH.
    pub(crate) fn stop(&mut self) {
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
    let only = Only::new(number);
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
        match only.take(Some(if waits { SLICE } else { Duration::ZERO })) {
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

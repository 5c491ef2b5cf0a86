use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

use ipc_core::lifeline::Peer;
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Custody, Limits, Pollable, SendError, Wait, Waiter};

use crate::control::{announce, wakes};
use crate::link::Link;
use crate::record::Kind;
use crate::sys;
use crate::watch::Watch;
use crate::writer::{Plan, Writer};

/// How often a sender that never has to wait looks whether its receiver still lives.
const CHECK_MILLIS: u64 = 10;

/// The writing end of a log and the one sender of its channel.
#[derive(Debug)]
pub struct Sender {
    pub(crate) writer: Writer,
    pub(crate) link: Link,
    file: OwnedFd,
    pub(crate) waiter: Waiter,
    /// The last known end of the free space: the receiver's progress plus the size of the log.
    free: u64,
    checked: u64,
    /// The receiver is known to be gone, and stays so.
    gone: bool,
    watch: Watch,
    pub(crate) custody: Custody,
}

impl Sender {
    pub(crate) fn new(file: OwnedFd, writer: Writer, link: Link, waiter: Waiter) -> Self {
        Self {
            writer,
            link,
            file,
            waiter,
            free: 0,
            checked: 0,
            gone: false,
            watch: Watch::default(),
            custody: Custody::new(),
        }
    }

    /// The type of the file system that holds the log, as `statfs(2)` numbers it, such as `0xEF53`
    /// for ext4 and `0x0102_1994` for tmpfs, where the "file" is memory.
    ///
    /// # Errors
    /// What `fstatfs(2)` reports.
    pub fn file_system(&self) -> io::Result<u64> {
        let fs = rustix::fs::fstatfs(&self.file)?;
        Ok(fs.f_type.cast_unsigned())
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Finds room for one message, waiting for it if need be.
    #[inline]
    fn reserve(&mut self, len: usize, wait: Wait) -> Result<Plan, SendError> {
        let max = self.writer.shape.max_message();
        if len > max {
            return Err(SendError::TooLong { len, max });
        }
        self.check_peer()?;
        let plan = self.writer.plan(len);
        if plan.end > self.free && !self.has_room(plan)? {
            self.wait_for_room(plan, wait)?;
        }
        Ok(plan)
    }

    /// An orderly end is in the control page, one load away. A death is learnt by a system call,
    /// which is made only so often; a sender that has to wait learns of it at once.
    #[inline]
    fn check_peer(&mut self) -> Result<(), SendError> {
        if self.link.control.reader_closed().load(Acquire) != 0 {
            return Err(SendError::Closed);
        }
        let now = sys::coarse_millis();
        if now.wrapping_sub(self.checked) < CHECK_MILLIS && !self.gone {
            return Ok(());
        }
        self.ask_lifeline()?;
        self.checked = now;
        Ok(())
    }

    #[cold]
    fn ask_lifeline(&mut self) -> Result<(), SendError> {
        let peer = self.link.lifeline.peer();
        self.gone = peer != Peer::Alive;
        match peer {
            Peer::Alive => Ok(()),
            Peer::Closed => Err(SendError::Closed),
            Peer::Died => Err(SendError::PeerDied),
        }
    }

    /// Takes note of the receiver's progress. A position that it cannot have reached is refused,
    /// lest records be written over that nobody has read.
    #[inline]
    fn has_room(&mut self, plan: Plan) -> Result<bool, SendError> {
        // Acquire: the receiver's copies out of the space come before the stores into it.
        let consumed = self.link.control.consumed().load(Acquire);
        let size = self.writer.shape.file();
        let free = consumed.wrapping_add(size);
        if consumed > self.writer.position || free < self.free {
            return Err(SendError::Corrupt {
                what: "the receiver's position is impossible",
            });
        }
        self.free = free;
        Ok(plan.end <= free)
    }

    #[cold]
    fn wait_for_room(&mut self, plan: Plan, wait: Wait) -> Result<(), SendError> {
        if wait != Wait::Never {
            let mut waiter = self.waiter.clone();
            let found = waiter.look(wait, || Ok(self.has_room(plan)?.then_some(())));
            self.waiter = waiter;
            if found.map_err(|error: SendError| error)?.is_some() {
                return Ok(());
            }
        }
        loop {
            if self.has_room(plan)? {
                return Ok(());
            }
            self.ask_lifeline()?;
            if wait == Wait::Never {
                let (room, sleeps) = (&self.link.room, self.link.control.writer_sleeps());
                if self.watch.rearm(room, sleeps) && self.has_room(plan)? {
                    return Ok(());
                }
                return Err(SendError::Full);
            }
            announce(self.link.control.writer_sleeps());
            if self.has_room(plan)? {
                return Ok(());
            }
            let polled = poll(
                [
                    (self.link.room.as_fd(), Interest::Read),
                    (self.link.lifeline.as_fd(), Interest::Read),
                ],
                wait,
            )
            .map_err(|error| SendError::io("ppoll", error))?;
            sys::quieten(self.link.room.as_fd());
            // The clock too: a hostile peer could keep the doorbell ringing for nothing.
            if polled == Polled::TimedOut || wait.is_over() {
                return if self.has_room(plan)? {
                    Ok(())
                } else {
                    Err(SendError::TimedOut)
                };
            }
        }
    }

    #[inline]
    fn append(&mut self, plan: Plan, message: &[u8]) {
        if plan.rotates {
            self.writer.turn();
        }
        self.writer.commit(Kind::Data, message);
    }

    /// Wakes the receiver if it sleeps.
    #[inline]
    fn publish(&self) {
        if wakes(self.link.control.reader_sleeps()) {
            sys::ring(self.link.news.as_fd());
        }
    }
}

impl ipc_core::Sender for Sender {
    #[inline]
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let plan = self.reserve(message.len(), wait)?;
        self.append(plan, message);
        self.publish();
        Ok(())
    }

    /// One wake-up for the whole batch.
    fn send_batch_with(&mut self, batch: &[IoSlice<'_>], wait: Wait) -> Result<usize, SendError> {
        let mut wait = wait;
        let mut sent = 0;
        for message in batch {
            match self.reserve(message.len(), wait) {
                Ok(plan) => self.append(plan, message),
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
            sent += 1;
            wait = Wait::Never;
        }
        if sent > 0 {
            self.publish();
        }
        Ok(sent)
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: self.writer.shape.max_message(),
            depth_messages: None,
            depth_bytes: usize::try_from(self.writer.shape.file()).ok(),
        }
    }
}

/// One descriptor for both the room in the log and the end of the receiver.
impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let sleeps = self.link.control.writer_sleeps();
        self.watch.fd(&self.link.room, sleeps, &self.link.lifeline)
    }
}

impl Pollable for Sender {
    fn interest(&self) -> Interest {
        // Of the `epoll(7)` instance, which is readable when one of its two has come to something.
        Interest::Read
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.custody.is_ours() {
            self.link.control.writer_closed().store(1, Release);
            self.link.lifeline.farewell();
        }
    }
}

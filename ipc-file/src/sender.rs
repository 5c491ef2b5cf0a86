use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Acquire, Release};

use ipc_core::lifeline::Peer;
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Limits, SendError, Wait, Waiter};

use crate::control::{announce, wakes};
use crate::link::Link;
use crate::options::Durability;
use crate::sys;
use crate::writer::{Plan, Writer};

/// How often a sender that never has to wait looks whether its receiver still lives.
const CHECK_MILLIS: u64 = 10;

/// The writing end of a log and the one sender of its channel.
#[derive(Debug)]
pub struct Sender {
    pub(crate) writer: Writer,
    pub(crate) link: Link,
    pub(crate) durability: Durability,
    pub(crate) waiter: Waiter,
    /// The last known end of the free space: the receiver's progress plus the size of the log.
    free: u64,
    checked: u64,
    /// The receiver is known to be gone, and stays so.
    gone: bool,
    /// A failed `fdatasync(2)` may have dropped data that a second one would not report.
    poisoned: bool,
    pub(crate) released: Cell<bool>,
}

impl Sender {
    pub(crate) fn new(writer: Writer, link: Link, durability: Durability, waiter: Waiter) -> Self {
        Self {
            writer,
            link,
            durability,
            waiter,
            free: 0,
            checked: 0,
            gone: false,
            poisoned: false,
            released: Cell::new(false),
        }
    }

    /// Waits until every record sent so far has reached the storage, whatever the
    /// [`Durability`].
    ///
    /// # Errors
    /// `Io` from `fdatasync(2)`, once and then at every later call: after a failure the kernel may
    /// have forgotten data that a second call would report as written, so this end is done for.
    pub fn sync(&mut self) -> Result<(), SendError> {
        if self.poisoned {
            return Err(SendError::io(
                "fdatasync",
                io::Error::other("an earlier one failed"),
            ));
        }
        self.writer.sync().map_err(|fault| {
            self.poisoned = true;
            fault.into()
        })
    }

    /// The type of the file system that holds the log, as `statfs(2)` numbers it, such as `0xEF53`
    /// for ext4 and `0x0102_1994` for tmpfs, where the "file" is memory.
    ///
    /// # Errors
    /// What `fstatfs(2)` reports.
    pub fn file_system(&self) -> io::Result<u64> {
        let fs = rustix::fs::fstatfs(self.writer.store.file())?;
        Ok(fs.f_type.cast_unsigned())
    }

    /// Finds room for one message, waiting for it if need be.
    #[inline]
    fn reserve(&mut self, len: usize, wait: Wait) -> Result<Plan, SendError> {
        let max = self.writer.shape.max_message();
        if len > max {
            return Err(SendError::TooLong { len, max });
        }
        if self.poisoned {
            return Err(SendError::io(
                "fdatasync",
                io::Error::other("an earlier one failed"),
            ));
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
            if polled == Polled::TimedOut {
                return if self.has_room(plan)? {
                    Ok(())
                } else {
                    Err(SendError::TimedOut)
                };
            }
        }
    }

    /// Makes what was appended durable, if that was asked for, and wakes the receiver if it sleeps.
    #[inline]
    fn publish(&mut self) -> Result<(), SendError> {
        let synced = match self.durability {
            Durability::Process => Ok(()),
            Durability::PowerLoss => self.sync(),
        };
        if wakes(self.link.control.reader_sleeps()) {
            sys::ring(self.link.news.as_fd());
        }
        synced
    }
}

impl ipc_core::Sender for Sender {
    #[inline]
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let plan = self.reserve(message.len(), wait)?;
        self.writer.append(plan, message)?;
        self.publish()
    }

    /// One wake-up and, with [`Durability::PowerLoss`], one `fdatasync(2)` for the whole batch.
    fn send_batch_with(&mut self, batch: &[IoSlice<'_>], wait: Wait) -> Result<usize, SendError> {
        let mut wait = wait;
        let mut sent = 0;
        for message in batch {
            let appended = self.reserve(message.len(), wait).and_then(|plan| {
                Ok(match self.durability {
                    Durability::Process => self.writer.append(plan, message),
                    Durability::PowerLoss => self.writer.stage(plan, message),
                }?)
            });
            match appended {
                Ok(()) => sent += 1,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
            wait = Wait::Never;
        }
        if sent > 0 {
            self.writer.flush()?;
            self.publish()?;
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

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.released.get() {
            self.link.control.writer_closed().store(1, Release);
            self.link.lifeline.farewell();
        }
    }
}

#[cfg(test)]
mod tests {
    use ipc_core::{Channel, Sender as _};

    use super::*;
    use crate::store::Store;
    use crate::{FileLog, Options};

    /// fdatasync(2) of an eventfd fails with EINVAL: a storage that refuses.
    #[test]
    fn a_failed_sync_is_never_tried_again() {
        let options = Options::default()
            .capacity(4096)
            .durability(Durability::PowerLoss);
        let (mut sender, _receiver) = FileLog::pair(&options).expect("a channel");
        sender.send(b"good").expect("a disk");
        let good = std::mem::replace(
            &mut sender.writer.store,
            Store::Ring(sys::doorbell().expect("an eventfd")),
        );
        assert!(matches!(
            sender.send(b"lost"),
            Err(SendError::Io {
                call: "fdatasync",
                ..
            })
        ));
        sender.writer.store = good;
        assert!(matches!(
            sender.send(b"more"),
            Err(SendError::Io {
                call: "fdatasync",
                ..
            })
        ));
        assert!(matches!(
            sender.sync(),
            Err(SendError::Io {
                call: "fdatasync",
                ..
            })
        ));
    }
}

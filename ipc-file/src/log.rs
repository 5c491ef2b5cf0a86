use std::io::{self, IoSlice};
use std::path::Path;

use ipc_core::{Limits, OpenError, SendError, Wait};

use crate::directory::{self, Directory};
use crate::meeting::Meeting;
use crate::options::{Durability, Options};
use crate::recovery::{self, Recovery};
use crate::shape::Shape;
use crate::store::Store;
use crate::writer::{Plan, Writer};

/// A named log, open for appending: records that outlive every process, for any number of
/// independent [`Follower`](crate::Follower)s.
///
/// One writer at a time; the lock is the kernel's and ends with its holder. Nothing is removed and
/// nothing written over until [`remove_before`](Self::remove_before) says so.
#[derive(Debug)]
pub struct Log {
    writer: Writer,
    meeting: Meeting,
    durability: Durability,
    recovery: Recovery,
    poisoned: bool,
}

/// The size of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Length {
    /// Bytes of its segments, as `ls -l` adds them up.
    pub apparent: u64,
    /// Bytes that the file system has set aside for them, as `du` adds them up.
    pub allocated: u64,
}

impl Log {
    /// Opens the log in `directory` for appending, or begins one there; the directory is made with
    /// mode 0700 if it is missing. A segment holds at least [`Options::capacity`] bytes of records;
    /// a log that exists keeps its own size.
    ///
    /// # Errors
    /// `NameInUse` if another writer lives, `Untrusted` if the directory or a file in it is not
    /// this user's alone, `Limit` if the storage is full, `Io` of kind `InvalidData` if a record
    /// that valid ones follow is damaged (see [`Options::salvage`]).
    pub fn open(directory: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let shape = Shape {
            slots: 1,
            ..Shape::ring(options.capacity)
        };
        if !shape.is_sound() {
            return Err(OpenError::Invalid {
                what: "a capacity of more than 1 TiB",
            });
        }
        let directory = Directory::open_at(directory.as_ref(), true)?;
        let meeting = Meeting::open(&directory, true)?;
        directory::lock(meeting.fd())?;
        let (writer, recovery) = recovery::open(directory, shape, options.salvage)?;
        let durability = options.durability;
        Ok(Self {
            writer,
            meeting,
            durability,
            recovery,
            poisoned: false,
        })
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The sequence number that the next record gets. The farewell of a writer takes one too, so
    /// the numbers of messages rise but are not without gaps.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.writer.seq
    }

    /// Appends one record and gives its sequence number.
    ///
    /// # Errors
    /// `TooLong`; `Limit` if the storage or `RLIMIT_FSIZE` has no room for the next segment, and
    /// then nothing was appended; `Io` if `fdatasync(2)` failed, now or earlier (see
    /// [`sync`](Self::sync)).
    #[inline]
    pub fn append(&mut self, record: &[u8]) -> Result<u64, SendError> {
        let seq = self.put(record)?;
        self.publish()?;
        Ok(seq)
    }

    /// Appends records from the front of `batch` and says how many: all, unless a limit came in
    /// between. With [`Durability::PowerLoss`] they share one `fdatasync(2)`.
    ///
    /// # Errors
    /// As [`append`](Self::append), when not even the first was appended.
    pub fn append_batch(&mut self, batch: &[IoSlice<'_>]) -> Result<usize, SendError> {
        let mut count = 0;
        for record in batch {
            let appended = match self.durability {
                Durability::Process => self.put(record).map(drop),
                Durability::PowerLoss => self.stage(record),
            };
            match appended {
                Ok(()) => count += 1,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if count > 0 {
            self.writer.flush()?;
            self.publish()?;
        }
        Ok(count)
    }

    /// Waits until every record so far has reached the storage, whatever the [`Durability`].
    ///
    /// # Errors
    /// `Io`, and then at every later call of any kind: after a failed `fdatasync(2)` the kernel may
    /// have forgotten data that a second one would report as written. Open the log anew.
    pub fn sync(&mut self) -> Result<(), SendError> {
        self.check()?;
        self.writer.sync().map_err(|fault| {
            self.poisoned = true;
            fault.into()
        })
    }

    /// Removes the segments that hold only records before `sequence`, and says how many. The one
    /// that is being written stays. A follower that is still in a removed segment reads it to its
    /// end.
    ///
    /// # Errors
    /// What reading the headers or `unlink(2)` reports.
    pub fn remove_before(&mut self, sequence: u64) -> Result<usize, SendError> {
        let Store::Files { directory, .. } = &self.writer.store else {
            return Ok(0);
        };
        let segments = directory.segments()?;
        let mut removed = 0;
        for pair in segments.windows(2) {
            if directory.header(pair[1])?.base > sequence {
                break;
            }
            directory.remove(pair[0])?;
            removed += 1;
        }
        Ok(removed)
    }

    /// The size of the log on the storage. Segments are allocated whole, so this tells what the
    /// log takes and not how much has been appended.
    ///
    /// # Errors
    /// What reading the directory reports.
    pub fn length(&self) -> io::Result<Length> {
        let Store::Files { directory, .. } = &self.writer.store else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (apparent, allocated) = directory.length().map_err(io::Error::from)?;
        Ok(Length {
            apparent,
            allocated,
        })
    }

    #[inline]
    fn put(&mut self, record: &[u8]) -> Result<u64, SendError> {
        let plan = self.plan(record)?;
        let seq = self.writer.seq;
        self.writer.append(plan, record)?;
        Ok(seq)
    }

    fn stage(&mut self, record: &[u8]) -> Result<(), SendError> {
        let plan = self.plan(record)?;
        Ok(self.writer.stage(plan, record)?)
    }

    #[inline]
    fn plan(&self, record: &[u8]) -> Result<Plan, SendError> {
        let max = self.writer.shape.max_message();
        if record.len() > max {
            return Err(SendError::TooLong {
                len: record.len(),
                max,
            });
        }
        self.check()?;
        Ok(self.writer.plan(record.len()))
    }

    #[inline]
    fn check(&self) -> Result<(), SendError> {
        if self.poisoned {
            return Err(SendError::io(
                "fdatasync",
                io::Error::other("an earlier one failed"),
            ));
        }
        Ok(())
    }

    #[inline]
    fn publish(&mut self) -> Result<(), SendError> {
        let synced = match self.durability {
            Durability::Process => Ok(()),
            Durability::PowerLoss => self.sync(),
        };
        self.meeting.wake();
        synced
    }
}

/// A log as a sender that never waits: its room is that of the storage.
impl ipc_core::Sender for Log {
    #[inline]
    fn send_with(&mut self, message: &[u8], _: Wait) -> Result<(), SendError> {
        self.append(message).map(drop)
    }

    fn send_batch_with(&mut self, batch: &[IoSlice<'_>], _: Wait) -> Result<usize, SendError> {
        self.append_batch(batch)
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: self.writer.shape.max_message(),
            depth_messages: None,
            depth_bytes: None,
        }
    }
}

impl Drop for Log {
    /// Says farewell to the followers, so that they see `Closed` and not `PeerDied`.
    fn drop(&mut self) {
        if !self.poisoned {
            self.writer.append_fin();
            if self.durability == Durability::PowerLoss {
                let _ = self.writer.sync();
            }
        }
        directory::unlock(self.meeting.fd());
        self.meeting.wake();
    }
}

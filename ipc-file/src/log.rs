use std::io::{self, IoSlice};
use std::path::Path;

use ipc_core::{Limits, OpenError, SendError, Wait};

use crate::directory::Directory;
use crate::journal::Journal;
use crate::meeting::Host;
use crate::options::{Durability, Options};
use crate::recovery::{self, Recovery};
use crate::shape::Shape;
use crate::sys;

/// A named log, open for appending: records that outlive every process, for any number of
/// independent [`Follower`](crate::Follower)s.
///
/// One writer at a time; the lock is the kernel's and ends with its holder. Nothing is removed and
/// nothing written over until [`remove_before`](Self::remove_before) says so.
#[derive(Debug)]
pub struct Log {
    journal: Journal,
    host: Host,
    durability: Durability,
    recovery: Recovery,
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
    /// that was safe is damaged, with its place (see [`Options::salvage`]).
    pub fn open(directory: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        Self::open_under(directory.as_ref(), options, sys::boot())
    }

    /// As [`open`](Self::open), under this boot of the kernel.
    pub(crate) fn open_under(
        directory: &Path,
        options: &Options,
        boot: u64,
    ) -> Result<Self, OpenError> {
        let shape = Shape {
            slots: 1,
            ..Shape::ring(options.capacity)
        };
        if !shape.is_sound() {
            return Err(OpenError::Invalid {
                what: "a capacity of more than 1 TiB",
            });
        }
        let directory = Directory::open_at(directory, true)?;
        let host = Host::new(&directory)?;
        let (journal, recovery) = recovery::open(directory, shape, options.salvage, boot)?;
        Ok(Self {
            journal,
            host,
            durability: options.durability,
            recovery,
        })
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The sequence number that the next record gets: how many the log has ever been given.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.journal.seq()
    }

    /// Appends one record and gives its sequence number.
    ///
    /// # Errors
    /// `TooLong`; `Limit` if the storage or `RLIMIT_FSIZE` has no room for the next segment, and
    /// then nothing was appended; `Io` if `fdatasync(2)` failed, now or earlier (see
    /// [`sync`](Self::sync)).
    #[inline]
    pub fn append(&mut self, record: &[u8]) -> Result<u64, SendError> {
        let seq = self.journal.seq();
        match self.durability {
            Durability::Nothing => self.gather(record)?,
            Durability::Process => {
                self.journal.append(record)?;
                self.host.wake();
            }
            Durability::PowerLoss => {
                self.journal.stage(record)?;
                self.sync()?;
            }
        }
        Ok(seq)
    }

    /// Appends records from the front of `batch` and says how many: all, unless a limit came in
    /// between. They become visible by one `pwrite(2)` a segment, and with
    /// [`Durability::PowerLoss`] they share one `fdatasync(2)`: this is group commit, whoever the
    /// records come from.
    ///
    /// # Errors
    /// As [`append`](Self::append), when not even the first was appended.
    pub fn append_batch(&mut self, batch: &[IoSlice<'_>]) -> Result<usize, SendError> {
        let before = self.journal.seq();
        let gathers = self.durability == Durability::Nothing;
        let staged = batch.iter().try_for_each(|record| {
            if gathers {
                self.gather(record)
            } else {
                self.journal.stage(record).map(drop)
            }
        });
        let flushed = match self.durability {
            Durability::Nothing => Ok(()),
            Durability::Process => self.flush(),
            Durability::PowerLoss => self.journal.flush_ahead().map_err(SendError::from),
        };
        // What could not be flushed is not in the log, and its numbers are free again.
        let count = self.journal.seq().saturating_sub(before) as usize;
        match staged.and(flushed) {
            Err(error) if count == 0 => return Err(error),
            _ if self.durability == Durability::PowerLoss => self.sync()?,
            _ => {}
        }
        Ok(count)
    }

    /// Puts what [`Durability::Nothing`] has gathered into the log, where followers see it and
    /// where it survives this process. At the other levels there is nothing to do.
    ///
    /// # Errors
    /// `Limit` or `Io` from `pwrite(2)`, and then what was gathered is lost.
    pub fn flush(&mut self) -> Result<(), SendError> {
        self.journal.check()?;
        self.journal.flush()?;
        self.host.wake();
        Ok(())
    }

    /// Waits until every record so far has reached the storage, whatever the [`Durability`].
    ///
    /// # Errors
    /// `Io`, and then at every later call of any kind: after a failed `fdatasync(2)` the kernel may
    /// have forgotten data that a second one would report as written. Open the log anew.
    pub fn sync(&mut self) -> Result<(), SendError> {
        let synced = self.journal.sync();
        self.host.wake();
        synced
    }

    fn gather(&mut self, record: &[u8]) -> Result<(), SendError> {
        let flushed = self.journal.stage(record)?;
        if flushed {
            self.host.wake();
        }
        Ok(())
    }

    /// Removes the segments that hold only records before `sequence`, and says how many. The one
    /// that is being written stays. A follower that is still in a removed segment reads it to its
    /// end.
    ///
    /// # Errors
    /// What reading the headers or `unlink(2)` reports.
    pub fn remove_before(&mut self, sequence: u64) -> Result<usize, SendError> {
        let directory = self.journal.directory();
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
        let (apparent, allocated) = self.journal.directory().length()?;
        Ok(Length {
            apparent,
            allocated,
        })
    }
}

/// A log as a sender that never waits: its room is that of the storage. With
/// [`Durability::Nothing`] `Ok` promises less than that of other senders.
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
            max_message: self.journal.max_message(),
            depth_messages: None,
            depth_bytes: None,
        }
    }
}

impl Drop for Log {
    /// Says farewell to the followers, so that they see `Closed` and not `PeerDied`.
    fn drop(&mut self) {
        if self.host.is_ours() {
            self.journal.close(self.durability == Durability::PowerLoss);
            self.host.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(outcome: &Result<T, SendError>) {
        let failed = matches!(
            outcome,
            Err(SendError::Io {
                call: "fdatasync",
                ..
            })
        );
        assert!(failed, "{outcome:?}");
    }

    /// fdatasync(2) of a pipe fails with EINVAL: a storage that refuses.
    #[test]
    fn a_failed_sync_is_never_tried_again() {
        let scratch = ipc_conformance::Scratch::new();
        let mut log = Log::open(scratch.path(), &Options::default().capacity(4096)).expect("a log");
        log.append(b"good").expect("room");
        let good = log.journal.replace_file(sys::doorbell().expect("a pipe"));
        refused(&log.sync());
        log.journal.replace_file(good);
        refused(&log.sync());
        refused(&log.append(b"more"));
        refused(&log.append_batch(&[IoSlice::new(b"more")]));
        refused(&log.flush());
        drop(log);
        let log = Log::open(scratch.path(), &Options::default()).expect("the log anew");
        assert!(!log.recovery().clean, "a farewell would claim too much");
        assert_eq!(log.next_sequence(), 1);
    }
}

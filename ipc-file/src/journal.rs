//! Appending to the files of a log: batches, segments, and what is known to have reached the
//! storage.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ipc_core::SendError;

use crate::directory::Directory;
use crate::fault::Fault;
use crate::record::{Kind, Mark};
use crate::sys;
use crate::writer::{Plan, Writer};

/// Staged records go to the file when they take this many bytes, if nothing else sends them there.
const STAGE: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Journal {
    writer: Writer,
    directory: Directory,
    /// The current segment.
    file: OwnedFd,
    /// The first segment whose records may not have reached the storage.
    unsynced: u64,
    /// The first segment whose name may not have.
    unnamed: u64,
    mark: Mark,
    /// Records that have their place and are not yet in the log, except the first one's word.
    staged: Vec<u8>,
    /// Where they begin, the sequence number and the word of the first.
    first: (u64, u64, u64),
    /// A failed `fdatasync(2)` may have dropped data that a second one would not report.
    poisoned: bool,
}

impl Journal {
    pub(crate) fn new(
        writer: Writer,
        directory: Directory,
        file: OwnedFd,
        unsynced: u64,
        mark: Mark,
    ) -> Self {
        Self {
            writer,
            directory,
            file,
            unsynced,
            unnamed: unsynced,
            mark,
            staged: Vec::new(),
            first: (0, 0, 0),
            poisoned: false,
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn max_message(&self) -> usize {
        self.writer.shape.max_message()
    }

    /// The sequence number of the next message.
    pub(crate) fn seq(&self) -> u64 {
        self.writer.seq
    }

    #[inline]
    pub(crate) fn check(&self) -> Result<(), SendError> {
        if self.poisoned {
            return Err(SendError::io(
                "fdatasync",
                io::Error::other("an earlier one failed"),
            ));
        }
        Ok(())
    }

    #[inline]
    fn plan(&self, message: &[u8]) -> Result<Plan, SendError> {
        let max = self.max_message();
        if message.len() > max {
            return Err(SendError::TooLong {
                len: message.len(),
                max,
            });
        }
        self.check()?;
        Ok(self.writer.plan(message.len()))
    }

    /// Appends a message by stores alone. On an error nothing was appended.
    #[inline]
    pub(crate) fn append(&mut self, message: &[u8]) -> Result<(), SendError> {
        if self.plan(message)?.rotates {
            self.rotate()?;
        }
        self.writer.commit(Kind::Data, message);
        Ok(())
    }

    /// As [`append`](Self::append), but the record waits for [`flush`](Self::flush), which this
    /// call makes for earlier ones when there are many: `true` says so.
    ///
    /// Records that go together are written by one pwrite(2): stores through the mapping would
    /// fault once a page, when it is new and again after each sync, which makes pages read-only.
    pub(crate) fn stage(&mut self, message: &[u8]) -> Result<bool, SendError> {
        let rotates = self.plan(message)?.rotates;
        let flushes = rotates || self.staged.len() >= STAGE;
        if flushes {
            self.flush()?;
        }
        if rotates {
            self.rotate()?;
        }
        let (position, seq) = (self.writer.position, self.writer.seq);
        let begins = self.staged.is_empty();
        let word = self.writer.put(&mut self.staged, message);
        if begins {
            self.first = (position, seq, word);
            self.staged[..8].fill(0);
        }
        Ok(flushes)
    }

    /// Puts the staged records into the log: all of them become visible at once, by the one store
    /// of the first one's word. On an error none does, and they are dropped.
    pub(crate) fn flush(&mut self) -> Result<(), Fault> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let (start, seq, word) = self.first;
        let at = self.writer.shape.offset(start) as u64;
        self.staged.extend_from_slice(&[0; 8]);
        let written = sys::write_at(self.file.as_fd(), &self.staged, at);
        self.staged.clear();
        if written.is_err() {
            (self.writer.position, self.writer.seq) = (start, seq);
            return written;
        }
        // pwrite(2) copies in whatever order it likes; until this store the log ends here.
        self.writer.expose(start, word);
        Ok(())
    }

    /// Begins the next segment and only then ends this one, so that a full disk leaves the log as
    /// it was.
    #[cold]
    fn rotate(&mut self) -> Result<(), Fault> {
        debug_assert!(self.staged.is_empty());
        let number = self.number() + 1;
        let file = self
            .directory
            .create(&self.writer.header(number, self.mark))?;
        self.writer.enter(file.as_fd())?;
        self.file = file;
        Ok(())
    }

    fn number(&self) -> u64 {
        self.writer.shape.number(self.writer.position)
    }

    /// Waits until all records so far have reached the storage, and then says so in the log.
    pub(crate) fn sync(&mut self) -> Result<(), SendError> {
        self.check()?;
        self.flush()?;
        self.write_out().inspect_err(|_| self.poisoned = true)?;
        self.mark.synced = self.writer.position;
        self.note();
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), Fault> {
        let number = self.number();
        for earlier in self.unsynced..number {
            if let Some(file) = self.directory.find(earlier)? {
                sys::sync_data(file.as_fd())?;
            }
        }
        sys::sync_data(self.file.as_fd())?;
        // A file is found after a power cut only if its name was written too.
        if self.unnamed <= number {
            sys::sync_all(self.directory.fd())?;
        }
        (self.unsynced, self.unnamed) = (number, number + 1);
        Ok(())
    }

    /// Appends what is known of lost power. It reaches the storage with the records after it;
    /// where the segment has no room for it, the header of the next one says the same.
    pub(crate) fn note(&mut self) {
        if !self.writer.plan(Mark::LEN).rotates {
            self.writer.commit(Kind::Mark, &self.mark.encode());
        }
    }

    /// The farewell. Without room for a new segment there is none, and followers take the end for
    /// a death.
    pub(crate) fn close(&mut self, durable: bool) {
        if self.poisoned || self.flush().is_err() {
            return;
        }
        let shape = self.writer.shape;
        let room = shape.within(self.writer.position) + 16 <= shape.segment - 8;
        if room || self.rotate().is_ok() {
            self.writer.commit(Kind::Fin, &[]);
        }
        if durable {
            let _ = self.write_out();
        }
    }

    /// Zeroes `len` bytes of a torn tail, for good.
    pub(crate) fn clear(&mut self, len: u64) -> Result<(), Fault> {
        self.writer.clear(len);
        self.write_out()
    }

    #[cfg(test)]
    pub(crate) fn replace_file(&mut self, file: OwnedFd) -> OwnedFd {
        std::mem::replace(&mut self.file, file)
    }
}

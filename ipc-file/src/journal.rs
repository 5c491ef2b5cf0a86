//! Appending to the files of a log: batches, segments, and what is known to have reached the
//! storage.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::fence;

use ipc_core::SendError;

use crate::directory::Directory;
use crate::fault::Fault;
use crate::record::{self, Kind, Mark};
use crate::sys;
use crate::writer::{Plan, Writer};

/// Staged records go to the file when they take this many bytes, if nothing else sends them there.
const STAGE: usize = 256 << 10;

/// How far beyond a batch that is to be synced the storage is made ready for the next ones.
///
/// fallocate(2) leaves extents that are not written to, and the first write to each block makes its
/// sync write metadata besides. A sync of blocks that have been written to writes nothing but them,
/// in about half the time. So a small batch takes a piece of zeros along; a large one has no need.
const AHEAD: u64 = 256 << 10;

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
    /// The log does not say yet what `mark` says.
    unmarked: bool,
    /// Records that have their place and are not yet in the log.
    staged: Vec<u8>,
    /// Where they begin, and the sequence number of the first.
    first: (u64, u64),
    /// The position up to which the current segment was written to, be it zeros.
    written: u64,
    /// The call that failed and must not be tried again. A failed `fdatasync(2)` may have dropped
    /// data that a second one would not report.
    poisoned: Option<&'static str>,
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
            unmarked: false,
            staged: Vec::new(),
            first: (0, 0),
            written: 0,
            poisoned: None,
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
        match self.poisoned {
            Some(call) => Err(SendError::io(
                call,
                io::Error::other("an earlier one failed"),
            )),
            None => Ok(()),
        }
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
        if self.unmarked {
            self.commit_mark();
        }
        if self.plan(message)?.rotates {
            self.rotate()?;
        }
        self.writer.commit(Kind::Data, message);
        Ok(())
    }

    /// As [`append`](Self::append), but the record waits for [`flush`](Self::flush), which this
    /// call makes for earlier ones when there are many: `true` says so.
    ///
    /// Records that go together are written by pwrite(2). Stores through the mapping would fault once
    /// a page, when it is new and again after each sync, which makes pages read-only; and such a
    /// fault makes the whole folio dirty, which after a follower's readahead is 128 KiB for the
    /// storage instead of the few blocks that were stored to.
    pub(crate) fn stage(&mut self, message: &[u8]) -> Result<bool, SendError> {
        self.plan(message)?;
        if self.unmarked && self.staged.is_empty() && !self.writer.plan(Mark::LEN).rotates {
            self.put(Kind::Mark, &self.mark.encode());
            self.unmarked = false;
        }
        let rotates = self.writer.plan(message.len()).rotates;
        let flushes = rotates || self.staged.len() >= STAGE;
        if flushes {
            self.flush()?;
        }
        if rotates {
            self.rotate()?;
        }
        self.put(Kind::Data, message);
        Ok(flushes)
    }

    #[inline]
    fn put(&mut self, kind: Kind, payload: &[u8]) {
        if self.staged.is_empty() {
            self.first = (self.writer.position, self.writer.seq);
        }
        self.writer.put(&mut self.staged, kind, payload);
    }

    /// Puts the staged records into the log: all of them become visible at once, by the one byte
    /// that commits the first. On an error none does, and they are dropped.
    pub(crate) fn flush(&mut self) -> Result<(), Fault> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.staged.extend_from_slice(&[0; 8]);
        let written = self.write_staged();
        self.staged.clear();
        if written.is_err() {
            (self.writer.position, self.writer.seq) = self.first;
            self.unmarked = true;
        }
        written
    }

    fn write_staged(&mut self) -> Result<(), Fault> {
        let file = self.file.as_fd();
        let at = self.writer.shape.offset(self.first.0) as u64;
        sys::check_file_size(at + self.staged.len() as u64)?;
        let commit = record::prepare(&mut self.staged);
        let outcome = sys::write_within(file, &self.staged, at).and_then(|()| {
            // pwrite(2) copies in whatever order it likes; until the next one the log ends here.
            fence(Release);
            sys::write_within(file, &[commit], at + record::COMMIT as u64)
        });
        outcome.inspect_err(|_| {
            // What was written of them must not stand behind the end of the log.
            if self.erase(self.first.0, self.staged.len() as u64).is_err() {
                self.poisoned = Some("pwrite");
            }
        })
    }

    /// Zeroes what stands behind the end of the log, from its end to its beginning.
    ///
    /// A process may die meanwhile, and a write within a page is not interrupted by that. So as long as
    /// a whole record is left of a batch that was not committed, the first one is, by which
    /// recovery knows the batch; a hole with good records behind it would be damage.
    fn erase(&self, position: u64, len: u64) -> Result<(), Fault> {
        const PAGE: u64 = 4096;
        let at = self.writer.shape.offset(position) as u64;
        let mut end = at + len;
        while end > at {
            let start = ((end - 1) / PAGE * PAGE).max(at);
            let zeros = &[0; PAGE as usize][..(end - start) as usize];
            sys::write_at(self.file.as_fd(), zeros, start)?;
            end = start;
        }
        Ok(())
    }

    /// As [`flush`](Self::flush) before a sync: a small batch takes zeros along, see [`AHEAD`].
    pub(crate) fn flush_ahead(&mut self) -> Result<(), Fault> {
        self.reach_ahead();
        self.flush()
    }

    fn reach_ahead(&mut self) {
        let Writer {
            position, shape, ..
        } = self.writer;
        if position + 8 <= self.written
            || self.staged.is_empty()
            || self.staged.len() as u64 > AHEAD / 2
        {
            return;
        }
        let ahead = (shape.segment - shape.within(position) - 8).min(AHEAD);
        self.staged.resize(self.staged.len() + ahead as usize, 0);
        self.written = position + ahead + 8;
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
        // The header says it.
        self.unmarked = false;
        Ok(())
    }

    fn number(&self) -> u64 {
        self.writer.shape.number(self.writer.position)
    }

    /// Waits until all records so far have reached the storage, and then says so in the log.
    pub(crate) fn sync(&mut self) -> Result<(), SendError> {
        self.check()?;
        self.flush_ahead()?;
        self.write_out()
            .inspect_err(|_| self.poisoned = Some("fdatasync"))?;
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

    /// Lets the next record be preceded by what is known of lost power. On the storage it is worth as
    /// much as one that was written now, since it would come there with the next sync only. Where the
    /// segment has no room for it, the header of the next one says the same.
    pub(crate) fn note(&mut self) {
        self.unmarked = true;
    }

    #[cold]
    fn commit_mark(&mut self) {
        if !self.writer.plan(Mark::LEN).rotates {
            self.writer.commit(Kind::Mark, &self.mark.encode());
            self.unmarked = false;
        }
    }

    /// The farewell. Without room for a new segment there is none, and followers take the end for
    /// a death.
    pub(crate) fn close(&mut self, durable: bool) {
        if self.poisoned.is_some() || self.flush().is_err() {
            return;
        }
        if self.unmarked {
            self.commit_mark();
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
        self.erase(self.writer.position, len)?;
        self.write_out()
    }

    #[cfg(test)]
    pub(crate) fn replace_file(&mut self, file: OwnedFd) -> OwnedFd {
        std::mem::replace(&mut self.file, file)
    }
}

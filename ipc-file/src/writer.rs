//! Appending: the only code that stores into a log.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::record::{self, Kind};
use crate::segment::Header;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::store::Store;
use crate::sys::{self, Access, Fault, Map};

/// Where a record will go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    rotates: bool,
    /// The position behind the record and the zero word that follows it.
    pub(crate) end: u64,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) shape: Shape,
    pub(crate) epoch: u64,
    /// Where the next record goes; the word there is zero.
    pub(crate) position: u64,
    /// The sequence number of the next record.
    pub(crate) seq: u64,
    seed: u32,
    map: Map,
    /// Records that have their place and are not yet in the log, except the first one's word.
    staged: Vec<u8>,
    /// Where they begin, the sequence number and the word of the first.
    first: (u64, u64, u64),
}

impl Writer {
    /// Begins a log in an empty ring.
    pub(crate) fn create(file: OwnedFd, shape: Shape, epoch: u64) -> Result<Self, Fault> {
        let writer = Self::attach(Store::Ring(file), shape, epoch, SEGMENT_HEADER, 0)?;
        writer.map.write(0, &writer.header(0).encode());
        Ok(writer)
    }

    /// Goes on at `position`, which the caller has found to be the end of the log.
    pub(crate) fn attach(
        store: Store,
        shape: Shape,
        epoch: u64,
        position: u64,
        seq: u64,
    ) -> Result<Self, Fault> {
        let map = store.map(shape, Access::Write)?;
        Ok(Self {
            store,
            shape,
            epoch,
            position,
            seq,
            seed: record::seed(epoch),
            map,
            staged: Vec::new(),
            first: (position, seq, 0),
        })
    }

    /// Where a record of this payload would go.
    #[inline]
    pub(crate) fn plan(&self, payload: usize) -> Plan {
        let size = record::size(payload) as u64;
        // Three words stay free at the end of a segment: a farewell and a skip fit.
        let rotates = self.shape.within(self.position) + size > self.shape.segment - 24;
        let start = if rotates {
            self.shape.next_segment(self.position)
        } else {
            self.position
        };
        Plan {
            rotates,
            end: start + size + 8,
        }
    }

    /// Appends a message; the caller has made sure that the space up to `plan.end` is free. On an
    /// error nothing was appended.
    #[inline]
    pub(crate) fn append(&mut self, plan: Plan, payload: &[u8]) -> Result<(), Fault> {
        if plan.rotates {
            self.rotate()?;
        }
        self.commit(Kind::Data, payload);
        Ok(())
    }

    /// As [`append`](Self::append), but the record waits for [`flush`](Self::flush).
    ///
    /// Records that are to be synced together go to the file by one pwrite(2): stores through the
    /// mapping would fault once a page, since each sync makes its pages read-only again.
    pub(crate) fn stage(&mut self, plan: Plan, payload: &[u8]) -> Result<(), Fault> {
        if plan.rotates {
            self.flush()?;
            self.rotate()?;
        }
        let mut word = record::seal(self.seed, self.seq, Kind::Data, payload);
        if self.staged.is_empty() {
            self.first = (self.position, self.seq, word);
            word = 0;
        }
        let end = self.staged.len() + record::size(payload.len());
        self.staged.extend_from_slice(&word.to_le_bytes());
        self.staged.extend_from_slice(&self.seq.to_le_bytes());
        self.staged.extend_from_slice(payload);
        self.staged.resize(end, 0);
        self.position += record::size(payload.len()) as u64;
        self.seq += 1;
        Ok(())
    }

    /// Puts the staged records into the log: all of them become visible at once, by the one store
    /// of the first one's word. On an error none does.
    pub(crate) fn flush(&mut self) -> Result<(), Fault> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let (start, seq, word) = self.first;
        let at = self.shape.offset(start);
        self.staged.extend_from_slice(&[0; 8]);
        let written = sys::write_at(self.store.file(), &self.staged, at as u64);
        self.staged.clear();
        if written.is_err() {
            self.position = start;
            self.seq = seq;
            return written;
        }
        // pwrite(2) copies in whatever order it likes; until this store the log ends here.
        self.map.word(at).store(word.to_le(), Release);
        Ok(())
    }

    /// The farewell, for readers that have nothing but the log. Without room for a new segment
    /// there is none, and they take the end for a death.
    pub(crate) fn append_fin(&mut self) {
        let room = self.shape.within(self.position) + 16 <= self.shape.segment - 8;
        if room || self.rotate().is_ok() {
            self.commit(Kind::Fin, &[]);
        }
    }

    #[inline]
    fn commit(&mut self, kind: Kind, payload: &[u8]) {
        let word = record::seal(self.seed, self.seq, kind, payload);
        let at = self.shape.offset(self.position);
        let size = record::size(payload.len());
        self.map.word(at + 8).store(self.seq.to_le(), Relaxed);
        self.map.write(at + record::HEADER, payload);
        // The word behind the record must say "end" before the record can be seen: the space may
        // hold what an earlier use left in it.
        let end = self.position + size as u64;
        self.map.word(at + size).store(0, Relaxed);
        // Release: whoever sees this word sees the record and the zero word behind it.
        self.map.word(at).store(word.to_le(), Release);
        self.position = end;
        self.seq += 1;
    }

    /// Begins the next segment and only then ends this one, so that a full disk leaves the log as
    /// it was.
    #[cold]
    fn rotate(&mut self) -> Result<(), Fault> {
        let next = self.shape.next_segment(self.position);
        let header = self.header(self.shape.number(next));
        let other = self.store.begin(&header)?;
        if other.is_none() {
            let start = self.shape.offset(next - SEGMENT_HEADER);
            self.map.write(start, &header.encode());
            self.map.word(self.shape.offset(next)).store(0, Relaxed);
        }
        let skip = record::seal(self.seed, self.seq, Kind::Skip, &[]);
        self.map
            .word(self.shape.offset(self.position))
            .store(skip.to_le(), Release);
        if let Some(map) = other {
            self.map = map;
            self.store.rotated(self.shape.number(self.position));
        }
        self.position = next;
        Ok(())
    }

    fn header(&self, number: u64) -> Header {
        Header {
            epoch: self.epoch,
            shape: self.shape,
            number,
            base: self.seq,
        }
    }

    /// Zeroes what lies between the end of the log and the end of the segment.
    pub(crate) fn clear_tail(&self) {
        let zeros = [0u8; 4096];
        let mut at = self.shape.offset(self.position);
        let end = at + (self.shape.segment - self.shape.within(self.position)) as usize;
        while at < end {
            let len = zeros.len().min(end - at);
            self.map.write(at, &zeros[..len]);
            at += len;
        }
    }

    /// Waits until all that was appended has reached the storage.
    pub(crate) fn sync(&mut self) -> Result<(), Fault> {
        self.store
            .sync(self.shape, self.shape.number(self.position))
    }
}

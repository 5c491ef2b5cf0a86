//! Appending: the only code that stores into a log.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::record::{self, Kind};
use crate::segment;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::store::Store;
use crate::sys::{Access, Fault, Map};

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
}

impl Writer {
    /// Begins a log in an empty store.
    pub(crate) fn create(store: Store, shape: Shape, epoch: u64) -> Result<Self, Fault> {
        store.add(shape, 0)?;
        let writer = Self::attach(store, shape, epoch, SEGMENT_HEADER, 0)?;
        writer.write_header(0);
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
        let map = store.map(shape, shape.number(position), Access::Write)?;
        Ok(Self {
            store,
            shape,
            epoch,
            position,
            seq,
            seed: record::seed(epoch),
            map,
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

    /// The farewell, for readers that have nothing but the log. There is always room for it.
    pub(crate) fn append_fin(&mut self) {
        if self.shape.within(self.position) + 16 <= self.shape.segment - 8 {
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
        let number = self.shape.number(next);
        let map = self.store.next(self.shape, number)?;
        let previous = map.map(|map| std::mem::replace(&mut self.map, map));
        self.write_header(number);
        self.map.word(self.shape.offset(next)).store(0, Relaxed);
        let skip = record::seal(self.seed, self.seq, Kind::Skip, &[]);
        let map = previous.as_ref().unwrap_or(&self.map);
        map.word(self.shape.offset(self.position))
            .store(skip.to_le(), Release);
        self.position = next;
        Ok(())
    }

    fn write_header(&self, number: u64) {
        let header = segment::Header {
            epoch: self.epoch,
            shape: self.shape,
            number,
            base: self.seq,
        };
        let start = number * self.shape.segment;
        self.map.write(self.shape.offset(start), &header.encode());
    }

    /// Waits until all that was appended has reached the storage.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        rustix::fs::fdatasync(self.store.file().as_fd()).map_err(Fault::io("fdatasync"))
    }
}

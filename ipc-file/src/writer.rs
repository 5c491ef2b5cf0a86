//! Appending through a mapping: the only code that stores into it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::fault::Fault;
use crate::record::{self, Kind, Mark};
use crate::segment::Header;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::sys::{Access, Map};

/// Where a record will go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The next segment has to be begun first.
    pub(crate) rotates: bool,
    /// The position behind the record and the zero word that follows it.
    pub(crate) end: u64,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shape: Shape,
    pub(crate) epoch: u64,
    /// Where the next record goes; the word there is zero.
    pub(crate) position: u64,
    /// The sequence number of the next message.
    pub(crate) seq: u64,
    seed: u32,
    map: Map,
}

impl Writer {
    /// Begins a log in an empty ring.
    pub(crate) fn create(file: BorrowedFd<'_>, shape: Shape, epoch: u64) -> Result<Self, Fault> {
        let writer = Self::attach(file, shape, epoch, SEGMENT_HEADER, 0)?;
        let header = writer.header(0, Mark::default());
        writer.map.write(0, &header.encode());
        Ok(writer)
    }

    /// Goes on at `position`, which the caller has found to be the end of the log.
    pub(crate) fn attach(
        file: BorrowedFd<'_>,
        shape: Shape,
        epoch: u64,
        position: u64,
        seq: u64,
    ) -> Result<Self, Fault> {
        Ok(Self {
            shape,
            epoch,
            position,
            seq,
            seed: record::seed(epoch),
            map: Map::new(file, shape.file() as usize, Access::Write).map_err(Fault::map)?,
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

    /// The word that commits the next record.
    #[inline]
    fn seal(&self, kind: Kind, payload: &[u8]) -> u64 {
        record::seal(self.seed, self.seq, kind, payload)
    }

    /// Puts the next record behind `bytes` instead of into the log.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
        record::put(bytes, self.seed, self.seq, kind, payload);
        self.advance(kind, record::size(payload.len()));
    }

    /// Appends a record to the current segment, in which the caller has found room for it.
    #[inline]
    pub(crate) fn commit(&mut self, kind: Kind, payload: &[u8]) {
        let word = self.seal(kind, payload);
        let at = self.shape.offset(self.position);
        let size = record::size(payload.len());
        self.map.word(at + 8).store(self.seq.to_le(), Relaxed);
        self.map.write(at + record::HEADER, payload);
        // The word behind the record must say "end" before the record can be seen: the space may
        // hold what an earlier use left in it.
        self.map.word(at + size).store(0, Relaxed);
        self.expose(self.position, word);
        self.advance(kind, size);
    }

    /// Release: whoever sees this word sees the record and the zero word behind it.
    #[inline]
    fn expose(&self, position: u64, word: u64) {
        self.map
            .word(self.shape.offset(position))
            .store(word.to_le(), Release);
    }

    #[inline]
    fn advance(&mut self, kind: Kind, size: usize) {
        self.position += size as u64;
        self.seq += u64::from(kind == Kind::Data);
    }

    /// Goes on in the other half of a ring.
    #[cold]
    pub(crate) fn turn(&mut self) {
        let next = self.shape.next_segment(self.position);
        let header = self.header(self.shape.number(next), Mark::default());
        let start = self.shape.offset(next - SEGMENT_HEADER);
        self.map.write(start, &header.encode());
        self.map.word(self.shape.offset(next)).store(0, Relaxed);
        self.leave(next);
    }

    /// Goes on in the next segment, which is whole in `file`.
    pub(crate) fn enter(&mut self, file: BorrowedFd<'_>) -> Result<(), Fault> {
        let len = self.shape.file() as usize;
        let map = Map::new(file, len, Access::Write).map_err(Fault::map)?;
        self.leave(self.shape.next_segment(self.position));
        self.map = map;
        Ok(())
    }

    fn leave(&mut self, next: u64) {
        self.expose(self.position, self.seal(Kind::Skip, &[]));
        self.position = next;
    }

    pub(crate) fn header(&self, number: u64, mark: Mark) -> Header {
        Header {
            epoch: self.epoch,
            shape: self.shape,
            number,
            base: self.seq,
            mark,
        }
    }
}

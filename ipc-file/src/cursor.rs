//! Reading a channel's ring through a mapping: one position and how it moves.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Acquire;

use crate::fault::Fault;
use crate::record::{self, Kind};
use crate::shape::Shape;
use crate::sys::{Access, Map};

/// What a look at the log found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing yet.
    Nothing,
    /// A message of this length, now in the buffer.
    Message(usize),
    /// A message of this length, which the buffer cannot hold and which stays where it is.
    Larger(usize),
}

#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) shape: Shape,
    pub(crate) epoch: u64,
    pub(crate) position: u64,
    /// The sequence number of the next message.
    pub(crate) seq: u64,
    seed: u32,
    file: OwnedFd,
    map: Map,
}

impl Cursor {
    /// A cursor at a position where a record begins or will begin.
    pub(crate) fn attach(
        file: OwnedFd,
        shape: Shape,
        epoch: u64,
        position: u64,
        seq: u64,
    ) -> Result<Self, Fault> {
        let len = shape.file() as usize;
        Ok(Self {
            shape,
            epoch,
            position,
            seq,
            seed: record::seed(epoch),
            map: Map::new(file.as_fd(), len, Access::Read).map_err(Fault::map)?,
            file,
        })
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether no record waits, with a look at one word only.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.map
            .word(self.shape.offset(self.position))
            .load(Acquire)
            == 0
    }

    /// Takes the next message.
    ///
    /// The word is loaded once and with Acquire, so all that was stored before it is seen. What it
    /// says is input all the same: bounds are checked before the copy, the checksum on the copy.
    #[inline]
    pub(crate) fn next(&mut self, buffer: &mut [u8]) -> Result<Found, Fault> {
        loop {
            let at = self.shape.offset(self.position);
            let word = u64::from_le(self.map.word(at).load(Acquire));
            if word == 0 {
                return Ok(Found::Nothing);
            }
            match record::split(word) {
                Some((Kind::Data, len)) => return self.take(at, word, len, buffer),
                Some((Kind::Skip, len)) => self.skip(word, len)?,
                _ => return Err(Fault::Corrupt("a record of an unknown kind")),
            }
        }
    }

    #[inline]
    fn take(
        &mut self,
        at: usize,
        word: u64,
        len: usize,
        buffer: &mut [u8],
    ) -> Result<Found, Fault> {
        let size = record::size(len) as u64;
        if self.shape.within(self.position) + size > self.shape.segment {
            return Err(Fault::Corrupt("a record longer than its segment"));
        }
        if u64::from_le(self.map.word(at + 8).load(Acquire)) != self.seq {
            return Err(Fault::Corrupt("a record out of sequence"));
        }
        let Some(payload) = buffer.get_mut(..len) else {
            return Ok(Found::Larger(len));
        };
        self.map.read(at + record::HEADER, payload);
        if !record::verify(self.seed, self.seq, word, payload) {
            return Err(Fault::Corrupt("a record that does not match its checksum"));
        }
        self.position += size;
        self.seq += 1;
        Ok(Found::Message(len))
    }

    #[cold]
    fn skip(&mut self, word: u64, len: usize) -> Result<(), Fault> {
        if len != 0 || !record::verify(self.seed, self.seq, word, &[]) {
            return Err(Fault::Corrupt("a skip that does not match its checksum"));
        }
        self.position = self.shape.next_segment(self.position);
        Ok(())
    }
}

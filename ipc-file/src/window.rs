//! A piece of a segment in memory, and the records in it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::fence;

use crate::fault::Fault;
use crate::record::{self, Kind, Mark};
use crate::segment::Header;
use crate::sys;

/// Bytes that are read in at once: few for a reader that keeps up, many for one that is behind.
const LEAST: usize = 4 << 10;
pub(crate) const MOST: usize = 64 << 10;

pub(crate) const WORD: usize = 8;

/// What stands at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A record that verifies, its payload right behind its header.
    Whole(Kind, usize),
    /// The end of the log.
    End,
    /// The window does not hold so many bytes.
    Short(usize),
    Bad(&'static str),
}

/// A piece of a segment, as it was when it was read.
#[derive(Debug)]
pub(crate) struct Window {
    /// Bytes of a segment.
    segment: usize,
    seed: u32,
    bytes: Vec<u8>,
    /// Where in the file it begins.
    start: usize,
    filled: usize,
    /// How much to read in next.
    want: usize,
}

impl Window {
    /// Of segments of the log that this header is of; empty.
    pub(crate) fn new(header: &Header) -> Self {
        Self {
            segment: header.shape.segment as usize,
            seed: record::seed(header.epoch),
            bytes: Vec::new(),
            start: 0,
            filled: 0,
            want: LEAST,
        }
    }

    /// Forgets what was read: another file is next.
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Lets the next read bring as little as it may.
    pub(crate) fn shrink(&mut self) {
        self.want = LEAST;
    }

    /// Lets the next read bring more: this reader is behind.
    pub(crate) fn grow(&mut self) {
        self.want *= 2;
    }

    /// What was read in last.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    #[inline]
    pub(crate) fn get(&self, at: usize, len: usize) -> Option<&[u8]> {
        let from = at.checked_sub(self.start)?;
        self.filled().get(from..from.checked_add(len)?)
    }

    #[inline]
    pub(crate) fn word(&self, at: usize) -> Option<u64> {
        let bytes = self.get(at, WORD)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// What stands at `at`; a record of a number from `seq` on and less than `spread` beyond it.
    #[inline]
    pub(crate) fn examine(&self, at: usize, seq: u64, spread: u64) -> Seen {
        let Some(word) = self.word(at) else {
            return Seen::Short(WORD);
        };
        if record::is_end(word) {
            return Seen::End;
        }
        let Some((kind, len)) = record::split(word) else {
            return Seen::Bad("a record of an unknown kind");
        };
        let proper = match kind {
            Kind::Data => true,
            Kind::Fin => len == 0,
            Kind::Mark => len == Mark::LEN,
            // A skip is its first word alone and says nothing without what it follows.
            Kind::Skip if len == 0 && spread == 0 && record::verify(self.seed, seq, word, &[]) => {
                return Seen::Whole(kind, len);
            }
            Kind::Skip => return Seen::Bad("a skip that does not match its checksum"),
        };
        let size = record::size(len);
        if !proper || at + size > self.segment {
            return Seen::Bad("a record longer than its segment");
        }
        let Some(bytes) = self.get(at, size) else {
            return Seen::Short(size);
        };
        let found = self.word(at + 8).unwrap_or_default();
        if found.wrapping_sub(seq) > spread {
            return Seen::Bad("a record out of sequence");
        }
        let (record, padding) = bytes.split_at(record::HEADER + len);
        if !record::verify_whole(self.seed, word, record) || padding.iter().any(|&b| b != 0) {
            return Seen::Bad("a record that does not match its checksum");
        }
        Seen::Whole(kind, len)
    }

    /// Whether a record of number `seq` stands at `at` that is whole but for its kind, which would
    /// have committed it; or how many bytes the window lacks to tell.
    pub(crate) fn is_prepared(&self, at: usize, seq: u64) -> Result<bool, usize> {
        let word = self.word(at).ok_or(WORD)?;
        let holds = |kind| -> Result<bool, usize> {
            let word = record::committed(word, kind);
            let Some((_, len)) = record::split(word) else {
                return Ok(false);
            };
            let size = record::size(len);
            if at + size > self.segment {
                return Ok(false);
            }
            let record = self.get(at, size).ok_or(size)?;
            let payload = &record[record::HEADER..record::HEADER + len];
            Ok(self.word(at + WORD) == Some(seq) && record::verify(self.seed, seq, word, payload))
        };
        Ok(word != 0 && (holds(Kind::Data)? || holds(Kind::Mark)?))
    }

    /// Reads in `need` bytes at `at`, and more if there are so many; how many there are.
    pub(crate) fn fill(
        &mut self,
        file: BorrowedFd<'_>,
        at: usize,
        need: usize,
    ) -> Result<usize, Fault> {
        self.want = self.want.clamp(LEAST, MOST);
        let len = self.want.max(need).min(self.segment - at);
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self.start = at;
        self.filled = 0;
        self.filled = sys::read_at(file, &mut self.bytes[..len], at as u64)?;
        // After the loads of the kernel's copy, before those of the next one.
        fence(Acquire);
        Ok(self.filled)
    }
}

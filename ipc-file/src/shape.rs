//! Where in which file a position of the log lies.
//!
//! Positions count bytes from the first segment on and never go back. A segment begins with a
//! header; records never cross from one segment into the next.

use crate::record;

/// Bytes before the first record of a segment.
pub(crate) const SEGMENT_HEADER: u64 = 64;

/// How a log is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of a segment, header included.
    pub(crate) segment: u64,
    /// Segments that one file holds, one after the other and over and over again.
    pub(crate) slots: u64,
}

impl Shape {
    /// A shape in which `capacity` bytes of records wait, and one message of that length fits.
    pub(crate) fn ring(capacity: usize) -> Self {
        let segment = (capacity as u64 + 1024).next_multiple_of(4096);
        Self { segment, slots: 2 }
    }

    /// Bytes of the file.
    pub(crate) fn file(self) -> u64 {
        self.segment * self.slots
    }

    /// Longest payload. The margin makes sure that such a record fits into a drained ring wherever
    /// the last one ended: see `Writer::plan`.
    pub(crate) fn max_message(self) -> usize {
        let most = self.segment - 2 * SEGMENT_HEADER - record::HEADER as u64;
        usize::try_from(most)
            .unwrap_or(usize::MAX)
            .min(record::MAX_LEN & !7)
    }

    #[inline]
    pub(crate) fn number(self, position: u64) -> u64 {
        position / self.segment
    }

    /// Bytes between the beginning of its segment and the position.
    #[inline]
    pub(crate) fn within(self, position: u64) -> u64 {
        position % self.segment
    }

    /// The first record of the segment after the one that holds the position.
    #[inline]
    pub(crate) fn next_segment(self, position: u64) -> u64 {
        position - self.within(position) + self.segment + SEGMENT_HEADER
    }

    /// Offset in the file.
    #[inline]
    pub(crate) fn offset(self, position: u64) -> usize {
        (position % self.file()) as usize
    }
}

impl Shape {
    /// Whether a shape that was read from somewhere can be worked with.
    pub(crate) fn is_sound(self) -> bool {
        (4096..=crate::segment::MAX_SEGMENT).contains(&self.segment)
            && self.segment.is_multiple_of(4096)
            && (1..=1 << 10).contains(&self.slots)
    }
}

//! The record: one word that commits, a sequence number, the payload.
//!
//! ```text
//!  0        28  32               64
//!  +---------+---+----------------+----------------+---------------+-----+
//!  | length  |knd|     CRC-32C    |   sequence     | payload       | pad |
//!  +---------+---+----------------+----------------+---------------+-----+
//!   one little-endian word, last    8 bytes          length bytes    to 8
//! ```
//!
//! The first word is stored last, in one piece: a process that dies at any instruction leaves
//! either a whole record or a zero word, which is the end of the log. The checksum runs over the
//! log's epoch, the sequence number, length, kind and payload, so that a record of another log,
//! another place or an earlier use of the same space is not taken for a good one.
//!
//! Only messages are counted: a farewell, a skip or a mark carries the number of the message after
//! it. A skip is its first word alone, so that it fits where nothing else does.

use crc32c::crc32c_append;

/// Bytes before the payload.
pub(crate) const HEADER: usize = 16;
/// What the length field can say.
pub(crate) const MAX_LEN: usize = (1 << 28) - 1;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message.
    Data = 1,
    /// The writer closed the log in good order.
    Fin = 2,
    /// The log goes on at the beginning of the next segment.
    Skip = 3,
    /// All records before a position have reached the storage; see [`Mark`].
    Mark = 4,
}

/// What a writer knows about lost power, and tells whoever recovers the log after it: the payload
/// of a mark, and part of every segment's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The position up to which the log had reached the storage.
    pub(crate) synced: u64,
    /// The boot of the kernel under which the following records were written.
    pub(crate) boot: u64,
}

impl Mark {
    pub(crate) const LEN: usize = 16;

    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        (u128::from(self.synced) | u128::from(self.boot) << 64).to_le_bytes()
    }

    pub(crate) fn decode(bytes: [u8; Self::LEN]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self {
            synced: both as u64,
            boot: (both >> 64) as u64,
        }
    }
}

/// The bytes that a record of this payload takes.
#[inline]
pub(crate) fn size(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(8)
}

/// The part of every checksum that is the same for a whole log.
pub(crate) fn seed(epoch: u64) -> u32 {
    crc32c::crc32c(&epoch.to_le_bytes())
}

/// The word that commits a record.
#[inline]
pub(crate) fn seal(seed: u32, seq: u64, kind: Kind, payload: &[u8]) -> u64 {
    debug_assert!(payload.len() <= MAX_LEN);
    let low = payload.len() as u32 | (kind as u32) << 28;
    u64::from(checksum(seed, seq, low, payload)) << 32 | u64::from(low)
}

/// Kind and length of a word that is not zero, neither of them checked against the checksum yet.
#[inline]
pub(crate) fn split(word: u64) -> Option<(Kind, usize)> {
    let low = word as u32;
    let kind = match low >> 28 {
        1 => Kind::Data,
        2 => Kind::Fin,
        3 => Kind::Skip,
        4 => Kind::Mark,
        _ => return None,
    };
    Some((kind, low as usize & MAX_LEN))
}

/// Whether the word is the one that commits this record.
#[inline]
pub(crate) fn verify(seed: u32, seq: u64, word: u64, payload: &[u8]) -> bool {
    checksum(seed, seq, word as u32, payload) == (word >> 32) as u32
}

#[inline]
fn checksum(seed: u32, seq: u64, low: u32, payload: &[u8]) -> u32 {
    let mut head = [0u8; 12];
    head[..8].copy_from_slice(&seq.to_le_bytes());
    head[8..].copy_from_slice(&low.to_le_bytes());
    crc32c_append(crc32c_append(seed, &head), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts() {
        let seed = seed(7);
        let payload = *b"twelve bytes";
        let word = seal(seed, 42, Kind::Data, &payload);
        assert!(verify(seed, 42, word, &payload));
        for bit in 0..64 {
            assert!(
                !verify(seed, 42, word ^ 1 << bit, &payload),
                "bit {bit} of the word"
            );
            assert!(
                !verify(seed, 42 ^ 1 << bit, word, &payload),
                "bit {bit} of the sequence"
            );
        }
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !verify(seed, 42, word, &flipped),
                "bit {bit} of the payload"
            );
        }
    }
}

//! The record: one word that commits, a sequence number, the payload.
//!
//! ```text
//!  0         4         8                16
//!  +---------+---------+----------------+----------------+-----+
//!  | CRC-32C | length, | sequence       | payload        | pad |
//!  |         | kind    | number         |                |     |
//!  +---------+---------+----------------+----------------+-----+
//!   one little-endian   8 bytes          length bytes     to 8, zero
//!   word, stored last
//! ```
//!
//! Of the length's word the low 28 bits are the length and the high 4 the kind; kind 0 is the end
//! of the log.
//!
//! The kind comes last: the first word is stored in one piece behind all else, or, where it was
//! written by pwrite(2) without its kind, the one byte that has the kind is. So a process that dies
//! at any instruction leaves whole records and then the end. The checksum runs over the
//! log's epoch, length and kind, sequence number and payload, so that a record of another log,
//! another place or an earlier use of the same space is not taken for a good one.
//!
//! Only messages are counted: a farewell, a skip or a mark carries the number of the message after
//! it. A skip is its first word alone, so that it fits where nothing else does.

use crc32c::crc32c_append;

/// Bytes before the payload.
pub(crate) const HEADER: usize = 16;
/// What the length field can say.
pub(crate) const MAX_LEN: usize = (1 << 28) - 1;

/// Bits of a word that are the kind.
const KIND: u64 = 0xF << 60;

/// What a record is. No two kinds, nor a kind and 0, differ by one bit only: a flipped bit is damage
/// and never the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message.
    Data = 3,
    /// The writer closed the log in good order.
    Fin = 5,
    /// The log goes on at the beginning of the next segment.
    Skip = 6,
    /// All records before a position have reached the storage; see [`Mark`].
    Mark = 9,
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
    let info = info(kind, payload.len());
    u64::from(info) << 32 | u64::from(checksum(seed, seq, info, payload))
}

/// Puts a record behind `bytes`.
#[inline]
pub(crate) fn put(bytes: &mut Vec<u8>, seed: u32, seq: u64, kind: Kind, payload: &[u8]) {
    let start = bytes.len();
    let info = info(kind, payload.len());
    let mut head = [0u8; HEADER];
    head[4..8].copy_from_slice(&info.to_le_bytes());
    head[8..].copy_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(payload);
    let crc = crc32c_append(seed, &bytes[start + 4..]);
    bytes[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    let padding = size(payload.len()) - HEADER - payload.len();
    bytes.extend_from_slice(&[0; 8][..padding]);
}

fn info(kind: Kind, len: usize) -> u32 {
    debug_assert!(len <= MAX_LEN);
    len as u32 | (kind as u32) << 28
}

/// Whether the log ends at this word.
#[inline]
pub(crate) fn is_end(word: u64) -> bool {
    word & KIND == 0
}

/// Which byte of a record has the kind, and so commits it.
pub(crate) const COMMIT: usize = 7;

/// Takes the kind out of a record, which is then not committed; the byte that commits it.
#[inline]
pub(crate) fn prepare(record: &mut [u8]) -> u8 {
    let byte = record[COMMIT];
    record[COMMIT] &= !(KIND >> (8 * COMMIT)) as u8;
    byte
}

/// The word that commits a prepared record, if it is of this kind.
pub(crate) fn committed(word: u64, kind: Kind) -> u64 {
    word & !KIND | (kind as u64) << 60
}

/// Kind and length of a word that is not the end, neither of them checked against the checksum yet.
#[inline]
pub(crate) fn split(word: u64) -> Option<(Kind, usize)> {
    let info = (word >> 32) as u32;
    let kind = match info >> 28 {
        3 => Kind::Data,
        5 => Kind::Fin,
        6 => Kind::Skip,
        9 => Kind::Mark,
        _ => return None,
    };
    Some((kind, info as usize & MAX_LEN))
}

/// Whether the word is the one that commits this record.
#[inline]
pub(crate) fn verify(seed: u32, seq: u64, word: u64, payload: &[u8]) -> bool {
    checksum(seed, seq, (word >> 32) as u32, payload) == word as u32
}

/// As [`verify`] of a record that lies in one piece, without its padding.
#[inline]
pub(crate) fn verify_whole(seed: u32, word: u64, record: &[u8]) -> bool {
    crc32c_append(seed, &record[4..]) == word as u32
}

#[inline]
fn checksum(seed: u32, seq: u64, info: u32, payload: &[u8]) -> u32 {
    let mut head = [0u8; 12];
    head[..4].copy_from_slice(&info.to_le_bytes());
    head[4..].copy_from_slice(&seq.to_le_bytes());
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
    #[test]
    fn a_record_in_one_piece_is_the_same() {
        let seed = seed(7);
        for len in 0..40 {
            let payload: Vec<_> = (1..=len).collect();
            let mut bytes = vec![0xAB; 8];
            let word = seal(seed, 42, Kind::Data, &payload);
            put(&mut bytes, seed, 42, Kind::Data, &payload);
            assert_eq!(bytes.len(), 8 + size(payload.len()));
            assert_eq!(bytes[8..16], word.to_le_bytes());
            let whole = &bytes[8..8 + HEADER + payload.len()];
            assert!(verify_whole(seed, word, whole));
            assert_eq!(split(word), Some((Kind::Data, payload.len())));
        }
    }
}

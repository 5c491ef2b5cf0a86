//! The header of a segment.
//!
//! ```text
//!  0  magic "IPC-FLOG"   8  version u16  10  slots u16  12  CRC-32C of bytes 0 to 11 and 16 to 63
//! 16  epoch u64         24  bytes of a segment u64
//! 32  number u64        40  sequence number of its first message u64
//! 48  synced up to u64  56  boot u64                     all little-endian
//! ```

use crate::record::Mark;
use crate::shape::{SEGMENT_HEADER, Shape};

const MAGIC: [u8; 8] = *b"IPC-FLOG";
const VERSION: u16 = 3;
/// Largest segment that is believed: a bound on what a reader maps.
pub(crate) const MAX_SEGMENT: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What sets this log apart from all others.
    pub(crate) epoch: u64,
    pub(crate) shape: Shape,
    pub(crate) number: u64,
    /// The sequence number of the first message.
    pub(crate) base: u64,
    /// What its writer knew of lost power; zero in a ring, which has no name to be found by.
    pub(crate) mark: Mark,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0u8; SEGMENT_HEADER as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&(self.shape.slots as u16).to_le_bytes());
        let words = [self.epoch, self.shape.segment, self.number, self.base];
        for (to, word) in bytes[16..48].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[48..].copy_from_slice(&self.mark.encode());
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What a header says, or what is wrong with it.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER as usize]) -> Result<Self, &'static str> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| {
            (0..4)
                .rev()
                .fold(0, |w, i| w << 16 | u64::from(half(at + 2 * i)))
        };
        if bytes[..8] != MAGIC {
            return Err("a segment does not begin as one");
        }
        if bytes[12..16] != checksum(bytes).to_le_bytes() {
            return Err("the header of a segment does not match its checksum");
        }
        if half(8) != VERSION {
            return Err("a segment has another version");
        }
        let shape = Shape {
            segment: word(24),
            slots: u64::from(half(10)),
        };
        if !shape.is_sound() {
            return Err("a segment has an impossible size");
        }
        Ok(Self {
            epoch: word(16),
            shape,
            number: word(32),
            base: word(40),
            mark: Mark {
                synced: word(48),
                boot: word(56),
            },
        })
    }
}

fn checksum(bytes: &[u8; SEGMENT_HEADER as usize]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

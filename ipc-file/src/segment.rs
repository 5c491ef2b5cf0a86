//! The header of a segment.
//!
//! ```text
//!  0  magic "IPC-FLOG"   8  version u32   12  slots u32
//! 16  epoch u64         24  bytes of a segment u64
//! 32  number u64        40  sequence number of its first record u64
//! 48  zero              60  CRC-32C of bytes 0 to 59        all little-endian
//! ```

use crate::shape::{SEGMENT_HEADER, Shape};

const MAGIC: [u8; 8] = *b"IPC-FLOG";
const VERSION: u32 = 1;
/// Largest segment that is believed: a bound on what a reader maps.
pub(crate) const MAX_SEGMENT: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What sets this log apart from all others.
    pub(crate) epoch: u64,
    pub(crate) shape: Shape,
    pub(crate) number: u64,
    /// The sequence number of the first record.
    pub(crate) base: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0u8; SEGMENT_HEADER as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.shape.slots as u32).to_le_bytes());
        let words = [self.epoch, self.shape.segment, self.number, self.base];
        for (to, word) in bytes[16..48].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What a header says, or what is wrong with it.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER as usize]) -> Result<Self, &'static str> {
        let half = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
        if bytes[..8] != MAGIC {
            return Err("a segment does not begin as one");
        }
        if half(60) != crc32c::crc32c(&bytes[..60]) {
            return Err("the header of a segment does not match its checksum");
        }
        if half(8) != VERSION {
            return Err("a segment has another version");
        }
        let shape = Shape {
            segment: word(24),
            slots: u64::from(half(12)),
        };
        if !shape.is_sound() {
            return Err("a segment has an impossible size");
        }
        Ok(Self {
            epoch: word(16),
            shape,
            number: word(32),
            base: word(40),
        })
    }
}

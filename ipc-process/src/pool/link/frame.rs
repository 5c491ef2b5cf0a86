//! What pool and worker say to each other, and how it looks on the wire.

use std::io;

use ipc_core::Parts;

use crate::control::MAX_INLINE;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::pool) enum Kind {
    /// Worker: the initializer has run.
    Ready = 1,
    /// Pool: run the function at the place in `word`.
    Run = 2,
    /// Either: descriptors that belong to the next frame.
    Descriptors = 3,
    /// Worker: what the task returned. `word` of each answer: nanoseconds that the task took.
    Returned = 4,
    /// Worker: the task panicked.
    Panicked = 5,
    /// Worker: the arguments could not be read.
    BadArguments = 6,
    /// Worker: the result could not be written.
    BadResult = 7,
}

impl Kind {
    pub(in crate::pool) fn is_answer(self) -> bool {
        use Kind::{BadArguments, BadResult, Panicked, Returned};
        matches!(self, Returned | Panicked | BadArguments | BadResult)
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Ready,
            2 => Self::Run,
            3 => Self::Descriptors,
            4 => Self::Returned,
            5 => Self::Panicked,
            6 => Self::BadArguments,
            7 => Self::BadResult,
            _ => return None,
        })
    }
}

#[derive(Debug)]
pub(in crate::pool) struct Frame {
    pub(in crate::pool) kind: Kind,
    pub(in crate::pool) id: u64,
    pub(in crate::pool) word: u64,
    /// `Err`: why the body or a descriptor of it did not arrive.
    pub(in crate::pool) body: Result<Parts, String>,
}

/// What stands before the body, as four little-endian words: length of the body (32 bits), kind,
/// whether the body is in a memfd (8 each), number of descriptors (16); id; word; taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) len: u32,
    pub(super) kind: Kind,
    pub(super) long: bool,
    pub(super) descriptors: u16,
    pub(super) id: u64,
    pub(super) word: u64,
    /// The id of the last frame that the sender has taken, long body and all.
    pub(super) taken: u64,
}

impl Header {
    pub(super) const LEN: usize = 32;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let first = u64::from(self.len)
            | (self.kind as u64) << 32
            | u64::from(self.long) << 40
            | u64::from(self.descriptors) << 48;
        let mut bytes = [0; Self::LEN];
        let words = [first, self.id, self.word, self.taken];
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// What is no header is an error: nothing that follows can be understood.
    pub(super) fn from_bytes(bytes: &[u8; Self::LEN]) -> io::Result<Self> {
        let (&[first, id, word, taken], []) = bytes.as_chunks::<8>() else {
            return Err(malformed());
        };
        let &[l0, l1, l2, l3, kind, long, d0, d1] = &first;
        let header = Self {
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: Kind::from_byte(kind).ok_or_else(malformed)?,
            long: long != 0,
            descriptors: u16::from_le_bytes([d0, d1]),
            id: u64::from_le_bytes(id),
            word: u64::from_le_bytes(word),
            taken: u64::from_le_bytes(taken),
        };
        match header.inline() <= MAX_INLINE {
            true => Ok(header),
            false => Err(malformed()),
        }
    }

    /// How much of the body follows.
    pub(super) fn inline(&self) -> usize {
        if self.long { 0 } else { self.len as usize }
    }
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a malformed frame of a pool")
}

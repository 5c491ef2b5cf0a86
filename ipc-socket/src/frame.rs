//! What stands in the byte stream: frames, each with a header of four bytes.
//!
//! ```text
//!   byte 0   1   2     3
//!       +---+---+---+------+----------------+
//!       | length LE | kind | length bytes   |
//!       +---+---+---+------+----------------+
//!
//!   WHOLE  n  one message, at most 32 KiB with its header
//!   PART   n  a piece of a message, appended to the pieces before it
//!   END    0  the pieces so far are a message
//!   VOID   0  the pieces so far are none: their sender gave up
//!   RIGHTS n  one message, after a byte that counts the descriptors that came with it
//!   FIN    0  the sender was closed
//! ```
//!
//! END and VOID differ in their last byte only, and the last byte of a message in pieces decides
//! whether it is one. So a sender whose deadline passes in the midst of a message can still take
//! it back, and a message is committed by exactly one byte.

/// Bytes of a header.
pub(crate) const HEADER: usize = 4;

/// Longest message in one WHOLE frame: with its header it is one buffer of the kernel
/// (`unix_stream_sendmsg` takes up to 36 KiB in one), hence accepted or refused as one.
pub(crate) const WHOLE_MAX: usize = (32 << 10) - HEADER;

/// Longest message in one RIGHTS frame.
pub(crate) const RIGHTS_MAX: usize = WHOLE_MAX - 1;

/// Longest piece. It bounds the filler that an abandoned message still owes to the stream, which
/// has to fit into the room kept for the farewell.
pub(crate) const PART_MAX: usize = 64 << 10;

const WHOLE: u8 = 0;
const PART: u8 = 1;
const END_KIND: u8 = 2;
const VOID_KIND: u8 = 3;
const RIGHTS: u8 = 4;
const FIN_KIND: u8 = 5;

/// Ends a message in pieces.
pub(crate) const END: [u8; HEADER] = [0, 0, 0, END_KIND];
/// Takes a message in pieces back.
pub(crate) const VOID: [u8; HEADER] = [0, 0, 0, VOID_KIND];
/// Ends the stream in good order.
pub(crate) const FIN: [u8; HEADER] = [0, 0, 0, FIN_KIND];

/// A header that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Whole(usize),
    Part(usize),
    End,
    Void,
    Rights(usize),
    Fin,
}

/// Reads a header; `None` for bytes that no sender of ours writes.
pub(crate) fn decode(bytes: [u8; HEADER]) -> Option<Header> {
    let [a, b, c, kind] = bytes;
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    match kind {
        WHOLE if length <= WHOLE_MAX => Some(Header::Whole(length)),
        PART if (1..=PART_MAX).contains(&length) => Some(Header::Part(length)),
        END_KIND if length == 0 => Some(Header::End),
        VOID_KIND if length == 0 => Some(Header::Void),
        RIGHTS if length <= RIGHTS_MAX => Some(Header::Rights(length)),
        FIN_KIND if length == 0 => Some(Header::Fin),
        _ => None,
    }
}

/// The header of a message of at most [`WHOLE_MAX`] bytes.
pub(crate) fn whole(length: usize) -> [u8; HEADER] {
    header(WHOLE, length)
}

/// The header of a message of at most [`RIGHTS_MAX`] bytes with descriptors.
pub(crate) fn rights(length: usize) -> [u8; HEADER] {
    header(RIGHTS, length)
}

fn header(kind: u8, length: usize) -> [u8; HEADER] {
    debug_assert!(length < 1 << 24, "lengths have three bytes");
    let [a, b, c, _] = (length as u32).to_le_bytes();
    [a, b, c, kind]
}

/// A message in pieces as a run of bytes: where each header stands follows from the length alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    length: usize,
}

/// One run of bytes of a message in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// The rest of the header of a piece of so many bytes, from this byte of it.
    Header { piece: usize, from: usize },
    /// Bytes of the message.
    Payload { from: usize, to: usize },
    /// The rest of END or VOID, from this byte of it.
    Verdict { from: usize },
}

impl Pieces {
    pub(crate) fn of(length: usize) -> Self {
        Self { length }
    }

    /// Bytes in the stream, all headers included.
    pub(crate) fn total(self) -> usize {
        self.length + self.length.div_ceil(PART_MAX) * HEADER + HEADER
    }

    /// What stands at `offset` of the run of bytes; `None` after its end.
    pub(crate) fn at(self, offset: usize) -> Option<Run> {
        if offset >= self.total() {
            return None;
        }
        let verdict = self.total() - HEADER;
        if offset >= verdict {
            return Some(Run::Verdict {
                from: offset - verdict,
            });
        }
        let begin = offset / (HEADER + PART_MAX) * PART_MAX;
        let within = offset % (HEADER + PART_MAX);
        let piece = (self.length - begin).min(PART_MAX);
        Some(if within < HEADER {
            Run::Header {
                piece,
                from: within,
            }
        } else {
            Run::Payload {
                from: begin + within - HEADER,
                to: begin + piece,
            }
        })
    }
}

/// The header of a piece.
pub(crate) fn part(length: usize) -> [u8; HEADER] {
    header(PART, length)
}

impl Run {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Header { from, .. } | Self::Verdict { from } => HEADER - from,
            Self::Payload { from, to } => to - from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_that_is_written_is_read_back() {
        for length in [0, 1, 255, 256, 65535, WHOLE_MAX] {
            if length <= WHOLE_MAX {
                assert_eq!(decode(whole(length)), Some(Header::Whole(length)));
            }
            if length <= RIGHTS_MAX {
                assert_eq!(decode(rights(length)), Some(Header::Rights(length)));
            }
        }
        assert_eq!(decode(part(PART_MAX)), Some(Header::Part(PART_MAX)));
        assert_eq!(decode(END), Some(Header::End));
        assert_eq!(decode(VOID), Some(Header::Void));
        assert_eq!(decode(FIN), Some(Header::Fin));
    }

    #[test]
    fn lengths_beyond_the_limits_and_unknown_kinds_are_refused() {
        for kind in 0..=255u8 {
            for length in [0u32, 1, 0x7fff, 0x8000, 0x1_0000, 0x1_0001, 0xff_ffff] {
                let [a, b, c, _] = length.to_le_bytes();
                match decode([a, b, c, kind]) {
                    Some(Header::Whole(n)) => assert!(kind == WHOLE && n <= WHOLE_MAX),
                    Some(Header::Part(n)) => assert!(kind == PART && n > 0 && n <= PART_MAX),
                    Some(Header::Rights(n)) => assert!(kind == RIGHTS && n <= RIGHTS_MAX),
                    Some(_) => assert_eq!(length, 0),
                    None => {}
                }
            }
        }
        assert_eq!(decode([255; 4]), None);
    }

    #[test]
    fn the_runs_of_a_message_cover_it_from_every_offset() {
        for length in [0, 1, PART_MAX - 1, PART_MAX, PART_MAX + 1, 3 * PART_MAX + 7] {
            let pieces = Pieces::of(length);
            let near = [0, 3, 4, 5, PART_MAX, PART_MAX + 4, PART_MAX + 6];
            for start in near.into_iter().filter(|&start| start < pieces.total()) {
                let (mut offset, mut payload) = (start, None);
                while let Some(run) = pieces.at(offset) {
                    assert!(run.len() > 0);
                    if let Run::Payload { from, to } = run {
                        assert!(payload.is_none_or(|end| end == from));
                        payload = Some(to);
                    }
                    offset += run.len();
                }
                assert_eq!(offset, pieces.total());
                assert!(payload.is_none_or(|end| end == length));
            }
        }
    }
}

//! How messages lie in the byte stream.
//!
//! ```text
//! short frame, one atomic write          long frame, several writes
//! +-----------+------------------+       +-----------+------------------+---------+
//! | length    | payload          |       | length    | payload          | verdict |
//! | u32 LE    | 0..=4092 B       |       | u32 LE    | 4093.. B         | u8      |
//! +-----------+------------------+       +-----------+------------------+---------+
//! ```
//!
//! A short frame is at most `PIPE_BUF` bytes, which `pipe(7)` writes whole or not at all. A long
//! one may stop half-way at a deadline: its sender later fills it up with zeros and the verdict
//! [`ABANDONED`], and the receiver drops it.

/// The length field.
pub(crate) const HEADER: usize = 4;
/// Bytes that one `write(2)` to a pipe moves whole or not at all; 4096 on Linux (`pipe(7)`).
pub(crate) const PIPE_BUF: usize = rustix::pipe::PIPE_BUF;
/// Longest payload of a short frame.
pub(crate) const SHORT: usize = PIPE_BUF - HEADER;
/// Longest payload at all; the length above it is [`HELLO`].
pub(crate) const LONGEST: usize = u32::MAX as usize - 1;
/// What a sender says first to a listener. As a length it is none, lest it be taken for a message.
pub(crate) const HELLO: [u8; HEADER] = u32::MAX.to_le_bytes();

/// Verdict: the payload is complete.
pub(crate) const COMPLETE: u8 = 1;
/// Verdict: the payload is filling.
pub(crate) const ABANDONED: u8 = 0;

/// Whether a long frame may end so.
pub(crate) fn is_verdict(byte: u8) -> bool {
    matches!(byte, COMPLETE | ABANDONED)
}

pub(crate) fn header(len: usize) -> [u8; HEADER] {
    debug_assert!(len <= LONGEST, "checked against max_message before");
    (len as u32).to_le_bytes()
}

/// What stands at the front of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Not yet a whole frame; at least this many bytes make one.
    Partial { needed: usize },
    /// A message at `HEADER..HEADER + len`; the frame has `whole` bytes.
    Message { len: usize, whole: usize },
    /// `whole` bytes that say nothing.
    Skip { whole: usize },
    /// No frame at all.
    Corrupt { what: &'static str },
}

/// Reads the front of `bytes`, which another process wrote.
#[inline]
pub(crate) fn front(bytes: &[u8], max_message: usize) -> Front {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Front::Partial { needed: HEADER };
    };
    let len = u32::from_le_bytes(*header) as usize;
    if len > max_message {
        return Front::Corrupt {
            what: "a frame is longer than max_message",
        };
    }
    let whole = HEADER + len + usize::from(len > SHORT);
    if bytes.len() < whole {
        return Front::Partial { needed: whole };
    }
    match (len > SHORT).then(|| bytes[whole - 1]) {
        None | Some(COMPLETE) => Front::Message { len, whole },
        Some(ABANDONED) => Front::Skip { whole },
        Some(_) => Front::Corrupt {
            what: "a frame ends with no verdict",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 10_000;

    fn long(verdict: u8) -> Vec<u8> {
        let mut frame = header(SHORT + 1).to_vec();
        frame.resize(HEADER + SHORT + 1, 7);
        frame.push(verdict);
        frame
    }

    #[test]
    fn every_truncation_is_partial() {
        let frame = long(COMPLETE);
        for cut in 0..frame.len() {
            assert!(matches!(front(&frame[..cut], MAX), Front::Partial { needed } if needed > cut));
        }
        assert_eq!(
            front(&frame, MAX),
            Front::Message {
                len: SHORT + 1,
                whole: frame.len()
            }
        );
    }

    #[test]
    fn verdicts_and_lengths_are_checked() {
        assert_eq!(
            front(&long(ABANDONED), MAX),
            Front::Skip {
                whole: HEADER + SHORT + 2
            }
        );
        assert!(matches!(front(&long(9), MAX), Front::Corrupt { .. }));
        assert!(matches!(
            front(&header(MAX + 1), MAX),
            Front::Corrupt { .. }
        ));
        assert!(matches!(front(&HELLO, MAX), Front::Corrupt { .. }));
        assert_eq!(
            front(&header(0), MAX),
            Front::Message {
                len: 0,
                whole: HEADER
            }
        );
    }

    #[test]
    fn any_header_gives_an_answer_within_bounds() {
        let bytes = [0xA5; 64];
        for length in (0..=u32::MAX).step_by(65_537) {
            let mut bytes = bytes;
            bytes[..HEADER].copy_from_slice(&length.to_le_bytes());
            if let Front::Message { len, whole } = front(&bytes, MAX) {
                assert!(HEADER + len <= whole && whole <= bytes.len());
            }
        }
    }
}

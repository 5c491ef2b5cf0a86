//! What stands in the byte stream: frames, each with a header of four bytes.
//!
//! ```text
//!   byte 0   1   2    3                       byte 0   1   2   3
//!       +---+---+---+------+---------+            +---+---+---+----+---------+---------+--
//!       | length LE | kind | payload |            | length LE  | 1 | payload | verdict | ..
//!       +---+---+---+------+---------+            +---+---+---+----+---------+---------+--
//!
//!   WHOLE   one message, at most 32 KiB with its header
//!   RIGHTS  one message, after a byte that counts the descriptors that came with it
//!   FIN     nothing: the sender was closed
//!   LONG    one message in chunks of 64 KiB and a last one of the rest, each with a verdict behind
//!           it; the top bit of the header is set, the other 31 are the length
//! ```
//!
//! A LONG message may stop half-way at a deadline: its sender later fills the chunk up with zeros and
//! the verdict [`ABANDONED`], which ends the frame, and the receiver drops it. So a message is
//! committed by exactly one byte, its last, and one that is taken back owes at most a chunk.

/// Bytes of a header.
pub(crate) const HEADER: usize = 4;

/// Longest message in one WHOLE frame: with its header it is one buffer of the kernel
/// (`unix_stream_sendmsg` takes up to 36 KiB in one), hence accepted or refused as one.
pub(crate) const WHOLE_MAX: usize = (32 << 10) - HEADER;

/// Longest message in one RIGHTS frame.
pub(crate) const RIGHTS_MAX: usize = WHOLE_MAX - 1;

/// Payload of a chunk. It bounds the filler that an abandoned message still owes to the stream,
/// which has to fit into the room kept for the farewell.
pub(crate) const CHUNK: usize = 64 << 10;

/// Verdict: the payload so far is complete.
pub(crate) const COMPLETE: u8 = 1;
/// Verdict: the chunk is filling, and the message was never sent.
pub(crate) const ABANDONED: u8 = 0;

const WHOLE: u8 = 0;
const RIGHTS: u8 = 1;
const FIN_KIND: u8 = 2;
const LONG: u32 = 1 << 31;

/// Ends the stream in good order.
pub(crate) const FIN: [u8; HEADER] = [0, 0, 0, FIN_KIND];

/// A header that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Whole(usize),
    Rights(usize),
    Long(usize),
    Fin,
}

fn header(kind: u8, length: usize) -> [u8; HEADER] {
    debug_assert!(length < 1 << 24, "lengths have three bytes");
    let [a, b, c, _] = (length as u32).to_le_bytes();
    [a, b, c, kind]
}

/// One run of bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// The rest of the header, from this byte of it.
    Header { from: usize },
    /// Bytes of the message.
    Payload { from: usize, to: usize },
    /// The byte behind a chunk.
    Verdict,
}

impl Run {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Header { from } => HEADER - from,
            Self::Payload { from, to } => to - from,
            Self::Verdict => 1,
        }
    }
}

impl Header {
    /// Reads a header; `None` for bytes that no sender of ours writes.
    pub(crate) fn decode(bytes: [u8; HEADER]) -> Option<Self> {
        let [a, b, c, kind] = bytes;
        let word = u32::from_le_bytes(bytes);
        if word & LONG != 0 {
            return Some(Self::Long((word & !LONG) as usize));
        }
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        match kind {
            WHOLE if length <= WHOLE_MAX => Some(Self::Whole(length)),
            RIGHTS if length <= RIGHTS_MAX => Some(Self::Rights(length)),
            FIN_KIND if length == 0 => Some(Self::Fin),
            _ => None,
        }
    }

    /// As it stands in the stream.
    pub(crate) fn encode(self) -> [u8; HEADER] {
        match self {
            Self::Whole(length) => header(WHOLE, length),
            Self::Rights(length) => header(RIGHTS, length),
            Self::Long(length) => {
                debug_assert!(length < LONG as usize, "checked against max_message before");
                (LONG | length as u32).to_le_bytes()
            }
            Self::Fin => FIN,
        }
    }

    /// Writes the whole frame of a message of at most a chunk, without descriptors, to the front of `to`,
    /// and gives its length.
    #[inline]
    pub(crate) fn put(self, message: &[u8], to: &mut [u8]) -> usize {
        let payload = HEADER + message.len();
        to[..HEADER].copy_from_slice(&self.encode());
        to[HEADER..payload].copy_from_slice(message);
        if let Self::Long(_) = self {
            to[payload] = COMPLETE;
            return payload + 1;
        }
        payload
    }

    /// Bytes of the message.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Whole(length) | Self::Rights(length) | Self::Long(length) => length,
            Self::Fin => 0,
        }
    }

    /// Bytes of the frame, if it is not abandoned.
    pub(crate) fn total(self) -> usize {
        HEADER
            + match self {
                Self::Whole(length) => length,
                Self::Rights(length) => 1 + length,
                // An empty message has a verdict too: it needs a byte that commits it.
                Self::Long(length) => length + length.div_ceil(CHUNK).max(1),
                Self::Fin => 0,
            }
    }

    /// Where in the frame the verdict of its `number`th chunk stands.
    fn verdict(self, number: usize) -> usize {
        (HEADER + (number + 1) * (CHUNK + 1)).min(self.total()) - 1
    }

    /// Where the chunk that holds the byte at `offset` ends, its verdict included.
    pub(crate) fn end_of_chunk(self, offset: usize) -> usize {
        self.verdict(offset.saturating_sub(HEADER) / (CHUNK + 1)) + 1
    }

    /// What stands at `offset` of a LONG or WHOLE frame and after it.
    pub(crate) fn runs(self, offset: usize) -> impl Iterator<Item = Run> {
        let mut offset = offset;
        std::iter::from_fn(move || {
            let run = self.at(offset)?;
            offset += run.len();
            Some(run)
        })
    }

    fn at(self, offset: usize) -> Option<Run> {
        if offset < HEADER {
            return Some(Run::Header { from: offset });
        }
        if offset >= self.total() {
            return None;
        }
        let at = offset - HEADER;
        Some(match self {
            Self::Long(_) if offset + 1 == self.end_of_chunk(offset) => Run::Verdict,
            Self::Long(length) => {
                let chunk = at / (CHUNK + 1);
                Run::Payload {
                    from: at - chunk,
                    to: length.min((chunk + 1) * CHUNK),
                }
            }
            Self::Whole(_) | Self::Rights(_) | Self::Fin => Run::Payload {
                from: at,
                to: self.total() - HEADER,
            },
        })
    }
}

/// What stands at the front of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Not yet a whole frame, perhaps not even its header.
    Partial(Option<Header>),
    /// A message, whole.
    Message(Header),
    /// `total` bytes that say nothing.
    Skip { total: usize },
    /// The end of the stream.
    Fin,
    /// No frame at all.
    Corrupt { what: &'static str },
}

/// Reads the front of `bytes`, which another process wrote. Of a LONG frame `checked` chunks were found
/// complete before, and are not looked at again.
#[inline]
pub(crate) fn front(bytes: &[u8], max_message: usize, checked: &mut usize) -> Front {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Front::Partial(None);
    };
    let Some(header) = Header::decode(*header) else {
        return Front::Corrupt {
            what: "a header that is none",
        };
    };
    if header.length() > max_message {
        return Front::Corrupt {
            what: "a message exceeds the maximum",
        };
    }
    match header {
        Header::Fin => Front::Fin,
        Header::Long(_) => judge(header, bytes, checked),
        Header::Whole(_) | Header::Rights(_) if bytes.len() < header.total() => {
            Front::Partial(Some(header))
        }
        Header::Whole(_) | Header::Rights(_) => Front::Message(header),
    }
}

/// Goes from verdict to verdict of a LONG frame.
fn judge(header: Header, bytes: &[u8], checked: &mut usize) -> Front {
    loop {
        let at = header.verdict(*checked);
        match bytes.get(at) {
            None => return Front::Partial(Some(header)),
            Some(&COMPLETE) if at + 1 == header.total() => return Front::Message(header),
            Some(&COMPLETE) => *checked += 1,
            Some(&ABANDONED) => return Front::Skip { total: at + 1 },
            Some(_) => {
                return Front::Corrupt {
                    what: "a chunk ends with no verdict",
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4 * CHUNK;

    fn read(bytes: &[u8]) -> Front {
        front(bytes, MAX, &mut 0)
    }

    /// As a sender writes it, with these verdicts.
    fn frame(length: usize, verdicts: &[u8]) -> Vec<u8> {
        let mut verdicts = verdicts.iter();
        let mut frame = Vec::new();
        for run in Header::Long(length).runs(0) {
            match run {
                Run::Header { .. } => frame.extend(Header::Long(length).encode()),
                Run::Payload { from, to } => frame.resize(frame.len() + to - from, 7),
                Run::Verdict => frame.push(*verdicts.next().unwrap()),
            }
        }
        assert_eq!(frame.len(), Header::Long(length).total());
        frame
    }

    #[test]
    fn every_header_that_is_written_is_read_back() {
        for length in [0, 1, 255, 256, RIGHTS_MAX, WHOLE_MAX] {
            for header in [Header::Whole(length), Header::Long(length)] {
                assert_eq!(Header::decode(header.encode()), Some(header));
            }
            let rights = Header::Rights(length);
            let read = Header::decode(rights.encode());
            assert_eq!(read, (length <= RIGHTS_MAX).then_some(rights));
        }
        for header in [Header::Long(1 << 24), Header::Long(1 << 30), Header::Fin] {
            assert_eq!(Header::decode(header.encode()), Some(header));
        }
    }

    #[test]
    fn lengths_beyond_the_limits_and_unknown_kinds_are_refused() {
        for kind in 0..=255u8 {
            for length in [0u32, 1, 0x7ffb, 0x7ffc, 0x7ffd, 0x1_0000, 0xff_ffff] {
                let [a, b, c, _] = length.to_le_bytes();
                match Header::decode([a, b, c, kind]) {
                    Some(Header::Whole(n)) => assert!(kind == WHOLE && n <= WHOLE_MAX),
                    Some(Header::Rights(n)) => assert!(kind == RIGHTS && n <= RIGHTS_MAX),
                    Some(Header::Long(_)) => assert!(kind & 0x80 != 0),
                    Some(Header::Fin) => assert!(kind == FIN_KIND && length == 0),
                    None => assert!(kind > FIN_KIND || length > 0),
                }
            }
        }
        assert!(matches!(read(&[255; 4]), Front::Corrupt { .. }));
        assert!(matches!(
            read(&Header::Long(MAX + 1).encode()),
            Front::Corrupt { .. }
        ));
        assert!(matches!(
            read(&Header::Long(MAX).encode()),
            Front::Partial(Some(_))
        ));
    }

    #[test]
    fn the_runs_of_a_message_cover_it_from_every_offset() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            for header in [Header::Long(length), Header::Whole(length)] {
                let near = [0, 3, 4, 5, CHUNK + 3, CHUNK + 4, CHUNK + 5, CHUNK + 6];
                for start in near.into_iter().filter(|&start| start < header.total()) {
                    let (mut offset, mut payload) = (start, None);
                    for run in header.runs(start) {
                        assert!(run.len() > 0);
                        if let Run::Payload { from, to } = run {
                            assert!(payload.is_none_or(|end| end == from));
                            payload = Some(to);
                        }
                        offset += run.len();
                        assert_eq!(run == Run::Verdict, {
                            let end = header.end_of_chunk(offset - 1);
                            offset == end && matches!(header, Header::Long(_))
                        });
                    }
                    assert_eq!(offset, header.total());
                    assert!(payload.is_none_or(|end| end == length));
                }
            }
        }
    }

    #[test]
    fn every_truncation_is_partial_and_the_last_verdict_makes_it_a_message() {
        let frame = frame(CHUNK + 3, &[COMPLETE; 2]);
        let near_a_chunk = |cut: &usize| cut % CHUNK < 20 || cut % CHUNK > CHUNK - 20;
        for cut in (0..frame.len()).filter(near_a_chunk) {
            assert!(matches!(read(&frame[..cut]), Front::Partial(_)), "{cut}");
        }
        assert_eq!(read(&frame), Front::Message(Header::Long(CHUNK + 3)));
    }

    #[test]
    fn each_verdict_is_checked() {
        let first = HEADER + CHUNK + 1;
        let whole = Header::Long(CHUNK + 3).total();
        for (verdicts, expected) in [
            ([ABANDONED, 9], Some(first)),
            ([COMPLETE, ABANDONED], Some(whole)),
            ([9, COMPLETE], None),
            ([COMPLETE, 9], None),
        ] {
            match (read(&frame(CHUNK + 3, &verdicts)), expected) {
                (Front::Skip { total }, Some(expected)) => assert_eq!(total, expected),
                (Front::Corrupt { .. }, None) => {}
                (other, _) => panic!("{verdicts:?}: {other:?}"),
            }
        }
        // A chunk that was checked before is not looked at again.
        let frame = frame(CHUNK + 3, &[9, COMPLETE]);
        assert!(matches!(front(&frame, MAX, &mut 1), Front::Message(_)));
    }
}

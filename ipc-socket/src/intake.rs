//! What was read in and not yet handed out.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;

use ipc_core::{Limit, RecvError};

use crate::farewell::Gone;
use crate::frame::{self, COMPLETE, Front, HEADER, Header, Run, WHOLE_MAX};
use crate::sys::MAX_DESCRIPTORS;

/// What one call reads in at most while frames are short; room for two of them, so that one that is
/// cut off at the end can be moved to the front and completed.
pub(crate) const INTAKE: usize = 64 << 10;

/// Of what follows a message that is read straight to its place, this much is read in with it: the
/// next header at least, and little that would have to be copied again.
pub(crate) const BESIDE: usize = 4 << 10;

const _: () = assert!(
    INTAKE / 2 >= HEADER + WHOLE_MAX,
    "half of the intake holds a frame"
);

/// The bytes and descriptors that a receiver holds, all of which another process wrote.
pub(crate) struct Intake {
    pub(crate) max_message: usize,
    pub(crate) descriptors: bool,
    /// Bytes that were read in and not yet handed out, in `buffer[start..end]`.
    pub(crate) buffer: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Chunks of the frame at the front that were found complete.
    checked: usize,
    /// Descriptors of messages in `buffer`, in their order.
    pub(crate) rights: VecDeque<OwnedFd>,
    /// Where `recvmsg(2)` puts them; empty between calls.
    pub(crate) arrived: Vec<OwnedFd>,
    /// Why there is nothing more to come.
    pub(crate) over: Option<Over>,
}

/// Why a receiver has nothing more to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Gone(Gone),
    Corrupt(&'static str),
    DescriptorsLost,
}

/// Where a frame of this kind was read to, but for its verdicts.
pub(crate) struct Scattered<'a> {
    pub(crate) header: Header,
    pub(crate) head: &'a [u8; HEADER],
    pub(crate) payload: &'a [u8],
}

/// What [`Intake::take`] found.
#[derive(Clone, Copy)]
pub(crate) enum Taken {
    /// A message of this length, and how many of the first `rights` are its own.
    Message { length: usize, rights: usize },
    /// The beginning of one, or not even of its header.
    Partial(Option<Header>),
}

impl Intake {
    pub(crate) fn new(max_message: usize, descriptors: bool) -> Self {
        Self {
            max_message,
            descriptors,
            buffer: vec![0; INTAKE + BESIDE],
            start: 0,
            end: 0,
            checked: 0,
            rights: VecDeque::new(),
            arrived: Vec::with_capacity(if descriptors { MAX_DESCRIPTORS } else { 0 }),
            over: None,
        }
    }

    /// Bytes of the frame at the front that have come.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The message at the front, if it is whole. Why there is nothing more to come is told after the
    /// last one.
    #[inline]
    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> Result<Taken, RecvError> {
        loop {
            let bytes = &self.buffer[self.start..self.end];
            match frame::front(bytes, self.max_message, &mut self.checked) {
                Front::Message(header) => {
                    let rights = match header {
                        Header::Rights(_) => self.announced(bytes[HEADER])?,
                        _ => 0,
                    };
                    let length = header.length();
                    let target = buffer
                        .get_mut(..length)
                        .ok_or(RecvError::BufferTooSmall { needed: length })?;
                    match header {
                        Header::Long(_) => copy_payload(header, bytes, target),
                        // The payload is what the frame ends with.
                        _ => target.copy_from_slice(&bytes[header.total() - length..][..length]),
                    }
                    self.skip(header.total());
                    return Ok(Taken::Message { length, rights });
                }
                Front::Partial(header) => {
                    return match self.over {
                        None => Ok(Taken::Partial(header)),
                        Some(over) => Err(over.to_error()),
                    };
                }
                Front::Skip { total } => self.skip(total),
                // Both stay at the front, so every later call finds them again.
                Front::Fin => return Err(RecvError::Closed),
                Front::Corrupt { what } => return Err(RecvError::Corrupt { what }),
            }
        }
    }

    /// Checks that the descriptors which a message announces have come.
    fn announced(&self, rights: u8) -> Result<usize, RecvError> {
        let rights = usize::from(rights);
        if self.descriptors && rights <= self.rights.len() {
            return Ok(rights);
        }
        let missing = Over::Corrupt("descriptors that a message announced did not come");
        Err(self.over.unwrap_or(missing).to_error())
    }

    /// Goes on to the next frame.
    #[inline]
    fn skip(&mut self, total: usize) {
        self.start += total;
        self.checked = 0;
    }

    /// Makes room for so many bytes behind `end`. Grows by doubling as bytes arrive, so that a
    /// length which a hostile sender claims makes nobody allocate.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start > 0 && self.end + bytes > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end + bytes > self.buffer.len() {
            let longest = Header::Long(self.max_message).total();
            let len = (2 * self.end).min(longest).max(self.end + bytes);
            self.buffer.resize(len, 0);
        }
    }

    /// Adds bytes to those that were read in.
    pub(crate) fn put_in(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        let end = self.end + bytes.len();
        self.buffer[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Puts in these bytes of a frame that were read to other places. Where a verdict is not among
    /// `verdicts` it is one that was found complete.
    pub(crate) fn put_back(&mut self, read: &Scattered<'_>, range: Range<usize>, verdicts: &[u8]) {
        let mut verdicts = verdicts.iter();
        let mut missing = range.len();
        for run in read.header.runs(range.start) {
            let length = run.len().min(missing);
            match run {
                _ if missing == 0 => break,
                Run::Header { from } => self.put_in(&read.head[from..from + length]),
                Run::Payload { from, .. } => self.put_in(&read.payload[from..from + length]),
                Run::Verdict => self.put_in(&[*verdicts.next().unwrap_or(&COMPLETE)]),
            }
            missing -= length;
        }
    }

    /// The frame at the front was read to its place, but for its first bytes, which are here: copies
    /// their payload there too. Behind them lie so many bytes of what follows the frame.
    pub(crate) fn complete(&mut self, header: Header, payload: &mut [u8], beside: usize) {
        copy_payload(header, self.bytes(), payload);
        (self.start, self.end) = (self.end, self.end + beside);
        self.checked = 0;
    }

    /// One read never brings the descriptors of two messages (`unix_stream_read_generic` stops
    /// after a buffer that carries some), and at most one message is cut off before it.
    pub(crate) fn keep_rights(&mut self, truncated: bool) {
        if truncated {
            self.over = Some(Over::DescriptorsLost);
        } else if self.rights.len() + self.arrived.len() > 2 * MAX_DESCRIPTORS {
            self.over = Some(Over::Corrupt("descriptors that no message announced"));
            self.rights.clear();
        } else {
            self.rights.extend(self.arrived.drain(..));
        }
        self.arrived.clear();
    }
}

/// Copies what `bytes`, the first of a frame, hold of its payload.
fn copy_payload(header: Header, bytes: &[u8], payload: &mut [u8]) {
    let mut rest = bytes;
    for run in header.runs(0) {
        let (here, behind) = rest.split_at(run.len().min(rest.len()));
        if let Run::Payload { from, .. } = run {
            payload[from..from + here.len()].copy_from_slice(here);
        }
        if behind.is_empty() {
            break;
        }
        rest = behind;
    }
}

impl Over {
    fn to_error(self) -> RecvError {
        match self {
            Self::Gone(gone) => gone.to_recv(),
            Self::Corrupt(what) => RecvError::Corrupt { what },
            Self::DescriptorsLost => RecvError::Limit(Limit {
                name: "RLIMIT_NOFILE",
                value: None,
                advice: "close descriptors or raise the limit, and open a new channel",
            }),
        }
    }
}

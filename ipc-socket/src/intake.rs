//! What was read in and not yet handed out.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use ipc_core::{Limit, RecvError};

use crate::farewell::Gone;
use crate::frame::{self, HEADER, Header, WHOLE_MAX};
use crate::sys::MAX_DESCRIPTORS;

/// As much as one call reads in; room for two WHOLE frames, so that one that is cut off at the end
/// can be moved to the front and completed.
pub(crate) const BUFFER: usize = 64 << 10;

const _: () = assert!(
    BUFFER / 2 >= HEADER + WHOLE_MAX,
    "half of the buffer holds a frame"
);

/// The bytes and descriptors that a receiver holds, all of which another process wrote.
pub(crate) struct Intake {
    pub(crate) max_message: usize,
    pub(crate) descriptors: bool,
    /// Bytes that were read in and not yet handed out, in `buffer[start..end]`.
    pub(crate) buffer: Box<[u8]>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The pieces of a message so far, in `pieces[..gathered]`.
    pub(crate) pieces: Vec<u8>,
    pub(crate) gathered: usize,
    /// Bytes of the present piece that have not arrived.
    pub(crate) missing: usize,
    /// Whether END has come: the pieces are a message that waits to be taken.
    pub(crate) complete: bool,
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

/// What stands at the front of the bytes that were read in.
#[derive(Clone, Copy)]
enum Front {
    /// A message in `buffer`, from here to there.
    Whole {
        from: usize,
        to: usize,
        rights: usize,
    },
    /// A message in `pieces`.
    Pieces,
    /// Not yet a message.
    Nothing,
}

impl Intake {
    pub(crate) fn new(max_message: usize, descriptors: bool) -> Self {
        Self {
            max_message,
            descriptors,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            pieces: Vec::new(),
            gathered: 0,
            missing: 0,
            complete: false,
            rights: VecDeque::new(),
            arrived: Vec::with_capacity(if descriptors { MAX_DESCRIPTORS } else { 0 }),
            over: None,
        }
    }

    /// The message at the front, if it is whole: its length, and how many of the first `rights`
    /// are its own.
    #[inline]
    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> Result<Option<(usize, usize)>, RecvError> {
        match self.front() {
            Front::Whole { from, to, rights } => {
                let needed = to - from;
                let target = buffer
                    .get_mut(..needed)
                    .ok_or(RecvError::BufferTooSmall { needed })?;
                target.copy_from_slice(&self.buffer[from..to]);
                self.start = to;
                Ok(Some((needed, rights)))
            }
            Front::Pieces => {
                let needed = self.gathered;
                let target = buffer
                    .get_mut(..needed)
                    .ok_or(RecvError::BufferTooSmall { needed })?;
                target.copy_from_slice(&self.pieces[..needed]);
                (self.gathered, self.complete) = (0, false);
                Ok(Some((needed, 0)))
            }
            Front::Nothing => self.over.map_or(Ok(None), |over| Err(over.to_error())),
        }
    }

    /// Takes what is no message off the front of the bytes that were read in, and says what is
    /// there then.
    #[inline]
    fn front(&mut self) -> Front {
        loop {
            if self.complete {
                return Front::Pieces;
            }
            if self.missing > 0 {
                self.move_piece();
                if self.missing > 0 {
                    return Front::Nothing;
                }
            }
            let available = &self.buffer[self.start..self.end];
            let Some((header, rest)) = available.split_first_chunk::<HEADER>() else {
                return Front::Nothing;
            };
            if self.over.is_some() {
                return Front::Nothing;
            }
            let from = self.start + HEADER;
            match frame::decode(*header) {
                Some(Header::Whole(length)) if self.gathered == 0 && length <= self.max_message => {
                    if rest.len() < length {
                        return Front::Nothing;
                    }
                    return Front::Whole {
                        from,
                        to: from + length,
                        rights: 0,
                    };
                }
                Some(Header::Rights(length))
                    if self.gathered == 0 && self.descriptors && length <= self.max_message =>
                {
                    if rest.len() < length + 1 {
                        return Front::Nothing;
                    }
                    let rights = usize::from(rest[0]);
                    if rights > self.rights.len() {
                        return self.corrupt("descriptors that a message announced did not come");
                    }
                    return Front::Whole {
                        from: from + 1,
                        to: from + 1 + length,
                        rights,
                    };
                }
                Some(Header::Part(length)) if self.gathered + length <= self.max_message => {
                    self.start = from;
                    self.missing = length;
                    // One piece ahead of what has arrived: a peer that only announces makes
                    // nobody allocate more than 64 KiB.
                    if self.pieces.len() < self.gathered + length {
                        self.pieces.resize(self.gathered + length, 0);
                    }
                }
                Some(Header::End) => {
                    self.start = from;
                    self.complete = true;
                }
                Some(Header::Void) => {
                    self.start = from;
                    self.gathered = 0;
                }
                Some(Header::Fin) if self.gathered == 0 => {
                    self.start = from;
                    self.over = Some(Over::Gone(Gone::Closed));
                }
                Some(Header::Part(_)) => return self.corrupt("a message exceeds the maximum"),
                Some(_) => return self.corrupt("a frame where none may stand"),
                None => return self.corrupt("a header that is none"),
            }
        }
    }

    #[cold]
    fn corrupt(&mut self, what: &'static str) -> Front {
        self.over = Some(Over::Corrupt(what));
        self.rights.clear();
        Front::Nothing
    }

    fn move_piece(&mut self) {
        let length = self.missing.min(self.end - self.start);
        let to = self.gathered + length;
        self.pieces[self.gathered..to]
            .copy_from_slice(&self.buffer[self.start..self.start + length]);
        self.start += length;
        self.gathered = to;
        self.missing -= length;
    }

    /// Makes room behind `end`.
    pub(crate) fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && BUFFER - self.end < BUFFER / 2 {
            // Less than one frame is left here, or it would have been handed out.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// So many bytes have come, first those that the present piece is missing.
    pub(crate) fn came(&mut self, bytes: usize) {
        let piece = bytes.min(self.missing);
        self.gathered += piece;
        self.missing -= piece;
        self.end += bytes - piece;
    }

    /// One read never brings the descriptors of two messages (`unix_stream_read_generic` stops
    /// after a buffer that carries some), and at most one message is cut off before it.
    pub(crate) fn keep_rights(&mut self, truncated: bool) {
        if truncated {
            self.over = Some(Over::DescriptorsLost);
            self.rights.clear();
        } else if self.rights.len() + self.arrived.len() > 2 * MAX_DESCRIPTORS {
            self.over = Some(Over::Corrupt("descriptors that no message announced"));
            self.rights.clear();
        } else {
            self.rights.extend(self.arrived.drain(..));
        }
        self.arrived.clear();
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

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::wait::Interest;
use ipc_core::{Limit, Limits, Pacer, Pollable, RecvError, Wait, Waiter};
use rustix::io::Errno;

use crate::farewell::{self, Gone};
use crate::frame::{self, HEADER, Header, WHOLE_MAX};
use crate::sys::{self, MAX_DESCRIPTORS, Transport};
use crate::wait::{Stop, complete};
use crate::{Credentials, Options};

/// The receiving end of a socket channel. Dropping it closes the channel in good order; messages
/// that nobody received are lost with it.
pub struct Receiver {
    pub(crate) socket: OwnedFd,
    pub(crate) transport: Transport,
    pub(crate) max_message: usize,
    pub(crate) descriptors: bool,
    pub(crate) waiter: Waiter,
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
    pub(crate) released: Cell<bool>,
    pacer: Pacer,
    /// Messages of the last intake that were handed out.
    handed_out: usize,
}

/// Why a receiver has nothing more to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Gone(Gone),
    Corrupt(&'static str),
    DescriptorsLost,
}

/// As much as one call reads in; room for two WHOLE frames, so that one that is cut off at the end
/// can be moved to the front and completed.
pub(crate) const BUFFER: usize = 64 << 10;

/// Of what follows a piece that is read straight to its place, this much is read in with it: the
/// next header at least, and little that would have to be copied again.
const BESIDE_PIECE: usize = 4 << 10;

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

impl Receiver {
    pub(crate) fn new(socket: OwnedFd, transport: Transport, options: &Options) -> Self {
        Self {
            socket,
            transport,
            max_message: options.max_message,
            descriptors: options.descriptors,
            waiter: Waiter::new(options.wait_strategy),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            pieces: Vec::new(),
            gathered: 0,
            missing: 0,
            complete: false,
            rights: VecDeque::new(),
            arrived: Vec::with_capacity(if options.descriptors {
                MAX_DESCRIPTORS
            } else {
                0
            }),
            over: None,
            released: Cell::new(false),
            pacer: Pacer::default(),
            handed_out: 0,
        }
    }

    /// Receives a message and appends the descriptors that came with it to `descriptors`. By
    /// [`recv_with`](ipc_core::Receiver::recv_with) the same message comes alone, and its
    /// descriptors are closed.
    ///
    /// # Errors
    /// As `recv_with`. `Limit` with `RLIMIT_NOFILE` if the kernel could not install all of the
    /// descriptors of a message: those that came are closed, and the channel is unusable.
    pub fn recv_with_descriptors(
        &mut self,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
        wait: Wait,
    ) -> Result<usize, RecvError> {
        let (length, rights) = self.take(buffer, wait)?;
        descriptors.extend(self.rights.drain(..rights));
        Ok(length)
    }

    /// Who made the other end; see [`Sender::peer_credentials`](crate::Sender::peer_credentials).
    #[must_use]
    pub fn peer_credentials(&self) -> Option<Credentials> {
        Credentials::of(self.socket.as_fd(), self.transport)
    }

    /// The next message, and how many of the first `rights` are its own.
    #[inline]
    fn take(&mut self, buffer: &mut [u8], wait: Wait) -> Result<(usize, usize), RecvError> {
        let mut fills = 0;
        loop {
            match self.front() {
                Front::Whole { from, to, rights } => {
                    let needed = to - from;
                    let target = buffer
                        .get_mut(..needed)
                        .ok_or(RecvError::BufferTooSmall { needed })?;
                    target.copy_from_slice(&self.buffer[from..to]);
                    self.start = to;
                    self.handed_out += 1;
                    return Ok((needed, rights));
                }
                Front::Pieces => {
                    let needed = self.gathered;
                    let target = buffer
                        .get_mut(..needed)
                        .ok_or(RecvError::BufferTooSmall { needed })?;
                    target.copy_from_slice(&self.pieces[..needed]);
                    (self.gathered, self.complete) = (0, false);
                    return Ok((needed, 0));
                }
                Front::Nothing => {}
            }
            if let Some(over) = self.over {
                return Err(over.to_error());
            }
            if fills > 0 {
                self.check_patience(fills, wait)?;
            }
            self.fill(wait)?;
            fills += 1;
        }
    }

    /// A peer that keeps sending what never becomes a message must not keep a caller beyond its
    /// deadline, nor one who would not wait at all.
    fn check_patience(&self, fills: usize, wait: Wait) -> Result<(), RecvError> {
        match wait {
            Wait::Until(_) if wait.is_over() => Err(RecvError::TimedOut),
            Wait::Never if fills > 64 + self.max_message / 1024 => Err(RecvError::Empty),
            _ => Ok(()),
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

    /// Reads in as much as there is, waiting for the first byte.
    fn fill(&mut self, wait: Wait) -> Result<(), RecvError> {
        // Two messages a call have room for the call that gathering costs: never more than one
        // call a message.
        if std::mem::take(&mut self.handed_out) > 1 && wait != Wait::Never {
            self.pacer.gather();
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && BUFFER - self.end < BUFFER / 2 {
            // Less than one frame is left here, or it would have been handed out.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let socket = self.socket.as_fd();
        let free = &mut self.buffer[self.end..];
        let mut truncated = false;
        let piece = &mut self.pieces[self.gathered..self.gathered + self.missing];
        let outcome = if self.descriptors {
            let arrived = &mut self.arrived;
            let slices = &mut [IoSliceMut::new(piece), IoSliceMut::new(free)];
            complete(
                &self.socket,
                Interest::Read,
                &mut self.waiter,
                wait,
                |sleep| {
                    let arrival = sys::recv_rights(socket, slices, arrived, sleep)?;
                    truncated |= arrival.truncated;
                    Ok(arrival.bytes)
                },
            )
        } else if piece.is_empty() {
            complete(
                &self.socket,
                Interest::Read,
                &mut self.waiter,
                wait,
                |sleep| sys::recv(socket, free, sleep),
            )
        } else {
            let beside = &mut free[..BESIDE_PIECE];
            let slices = &mut [IoSliceMut::new(piece), IoSliceMut::new(beside)];
            complete(
                &self.socket,
                Interest::Read,
                &mut self.waiter,
                wait,
                |sleep| sys::recv_slices(socket, slices, sleep),
            )
        };
        match outcome {
            Ok(0) => self.over = Some(Over::Gone(Gone::Died)),
            Ok(bytes) => {
                let piece = bytes.min(self.missing);
                self.gathered += piece;
                self.missing -= piece;
                self.end += bytes - piece;
                self.keep_rights(truncated);
            }
            // The peer left something unread: after this comes what it had sent, then the end.
            Err(Stop::Failed(Errno::CONNRESET)) => {}
            // The peer's machine stopped answering (`tcp(7)`).
            Err(Stop::Failed(Errno::TIMEDOUT)) => self.over = Some(Over::Gone(Gone::Died)),
            Err(Stop::WouldWait) => return Err(RecvError::Empty),
            Err(Stop::TimedOut) => return Err(RecvError::TimedOut),
            Err(Stop::Failed(error)) => return Err(RecvError::io("recvmsg", error)),
        }
        Ok(())
    }

    /// One read never brings the descriptors of two messages (`unix_stream_read_generic` stops
    /// after a buffer that carries some), and at most one message is cut off before it.
    fn keep_rights(&mut self, truncated: bool) {
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

impl ipc_core::Receiver for Receiver {
    #[inline]
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        let (length, rights) = self.take(buffer, wait)?;
        if rights > 0 {
            self.rights.drain(..rights);
        }
        Ok(length)
    }

    fn limits(&self) -> Limits {
        let buffer = rustix::net::sockopt::socket_send_buffer_size(&self.socket).unwrap_or(0);
        Limits {
            max_message: self.max_message,
            depth_messages: None,
            depth_bytes: Some(sys::uncharge(buffer)),
        }
    }
}

impl Pollable for Receiver {
    fn interest(&self) -> Interest {
        Interest::Read
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.released.get() {
            farewell::tell(self.socket.as_fd());
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("socket", &self.socket)
            .field("transport", &self.transport)
            .field("max_message", &self.max_message)
            .finish_non_exhaustive()
    }
}

const _: () = assert!(
    BUFFER / 2 >= HEADER + WHOLE_MAX,
    "half of the buffer holds a frame"
);

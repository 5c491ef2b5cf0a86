use std::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::wait::{Interest, Stop, complete};
use ipc_core::{Custody, Flood, Limits, Pacer, Pollable, RecvError, Wait, Waiter};
use rustix::io::Errno;

use crate::farewell::{self, Gone};
use crate::frame::{COMPLETE, HEADER, Header, Run};
use crate::intake::{BESIDE, INTAKE, Intake, Over, Scattered, Taken};
use crate::long::SLICES;
use crate::sys::{self, Arrival, Transport};
use crate::{Credentials, Options, credentials};

/// The receiving end of a socket channel. Dropping it closes the channel in good order; messages
/// that nobody received are lost with it.
pub struct Receiver {
    pub(crate) socket: OwnedFd,
    pub(crate) transport: Transport,
    pub(crate) waiter: Waiter,
    pub(crate) intake: Intake,
    pub(crate) custody: Custody,
    pacer: Pacer,
    /// Messages of the last call that were handed out.
    handed_out: usize,
    /// What the next frame begins with if it is like the last one, which was read straight to its place.
    expected: Option<Header>,
}

/// From here on, in bytes, a frame is read straight to where the caller wants it: a copy of so much
/// costs more than a call.
const BULK: usize = INTAKE / 4;

impl Receiver {
    pub(crate) fn new(socket: OwnedFd, transport: Transport, options: &Options) -> Self {
        Self {
            socket,
            transport,
            waiter: Waiter::new(options.wait_strategy),
            intake: Intake::new(options.max_message, options.descriptors),
            custody: Custody::new(),
            pacer: Pacer::default(),
            handed_out: 0,
            expected: None,
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
        descriptors.extend(self.intake.rights.drain(..rights));
        Ok(length)
    }

    /// Who made the other end; see [`Sender::peer_credentials`](crate::Sender::peer_credentials).
    #[must_use]
    pub fn peer_credentials(&self) -> Option<Credentials> {
        Credentials::of(self.socket.as_fd(), self.transport)
    }

    /// A descriptor of the process that [`peer_credentials`](Self::peer_credentials) names: readable
    /// once that process has ended, and good for signals to it and nobody else (`pidfd_open(2)`).
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 6.5, ESRCH or EINVAL when an older kernel has forgotten that process,
    /// EMFILE; `Unsupported` over TCP.
    pub fn peer_pidfd(&self) -> std::io::Result<OwnedFd> {
        credentials::pidfd(self.socket.as_fd(), self.transport)
    }

    /// The next message, and how many of the first rights are its own.
    #[inline]
    fn take(&mut self, buffer: &mut [u8], wait: Wait) -> Result<(usize, usize), RecvError> {
        let mut flood = Flood::default();
        loop {
            let header = match self.intake.take(buffer)? {
                Taken::Message { length, rights } => {
                    self.handed_out += 1;
                    self.expected = None;
                    return Ok((length, rights));
                }
                Taken::Partial(header) => header,
            };
            flood.check(wait)?;
            // Before anything of a frame has come, it is taken for one like the last.
            let likely = self.expected.filter(|_| self.intake.bytes().is_empty());
            let bulk = header.or(likely).filter(|header| {
                let straight = matches!(header, Header::Whole(_) | Header::Long(_));
                straight && header.total() >= BULK && header.length() <= buffer.len()
            });
            match bulk {
                None => self.read_in(header, wait)?,
                Some(header) => {
                    let length = header.length();
                    if self.read_bulk(header, &mut buffer[..length], &mut flood, wait)? {
                        self.handed_out += 1;
                        self.expected = Some(header);
                        return Ok((length, 0));
                    }
                }
            }
        }
    }

    fn gather(&mut self, wait: Wait) {
        let came = std::mem::take(&mut self.handed_out);
        if wait != Wait::Never {
            self.pacer.gather(came, self.waiter.strategy());
        }
    }

    /// Reads something in, of the frame with this header if it has come.
    fn read_in(&mut self, header: Option<Header>, wait: Wait) -> Result<(), RecvError> {
        self.gather(wait);
        let intake = &mut self.intake;
        // What is beyond the room of a bulk read would have to be moved before it.
        intake.make_room(2 * BESIDE);
        let room = if self.expected.is_some() && header.is_none() {
            intake.end + BESIDE
        } else {
            intake.buffer.len() - BESIDE
        };
        let room = &mut [IoSliceMut::new(&mut intake.buffer[intake.end..room])];
        let arrived = intake.descriptors.then_some(&mut intake.arrived);
        let outcome = read_some(&self.socket, &mut self.waiter, arrived, room, wait);
        self.intake.end += self.came(outcome)?;
        Ok(())
    }

    /// Reads the rest of the frame at the front straight into `payload`, and says whether it is a
    /// message. Until the frame is whole, what came of it earlier stays in front of `end`; so when
    /// the wait is over first, or a chunk of it was no end of a message, or its header is another than
    /// was expected, what came now is put behind it, and the next call may bring any other buffer.
    fn read_bulk(
        &mut self,
        header: Header,
        payload: &mut [u8],
        flood: &mut Flood,
        wait: Wait,
    ) -> Result<bool, RecvError> {
        self.gather(wait);
        self.intake.make_room(BESIDE);
        let earlier = self.intake.bytes().len();
        let mut head = header.encode();
        let mut done = earlier;
        loop {
            let mut verdicts = [COMPLETE; SLICES];
            let intake = &mut self.intake;
            let beside = &mut intake.buffer[intake.end..intake.end + BESIDE];
            let mut places = Places::of(header, done, &mut head, payload, &mut verdicts, beside);
            let (room, reach) = (&mut places.slices[..places.count], places.reach);
            let arrived = intake.descriptors.then_some(&mut intake.arrived);
            let outcome = read_some(&self.socket, &mut self.waiter, arrived, room, wait);
            let came = self.came(outcome);
            let bytes = *came.as_ref().unwrap_or(&0);
            let (from, beside) = (done, bytes.saturating_sub(reach));
            done += bytes.min(reach);
            // Bytes of the header and verdicts that have not come are as they were.
            let as_expected = head == header.encode() && verdicts == [COMPLETE; SLICES];
            if as_expected && done == header.total() {
                self.intake.complete(header, payload, beside);
                return Ok(true);
            }
            let outcome = match came.and_then(|_| flood.check(wait)) {
                Ok(()) if as_expected && self.intake.over.is_none() => continue,
                outcome => outcome,
            };
            let end = self.intake.end;
            let beside = self.intake.buffer[end..end + beside].to_vec();
            let read = Scattered {
                header,
                head: &head,
                payload,
            };
            self.intake.put_back(&read, earlier..from, &[]);
            self.intake.put_back(&read, from..done, &verdicts);
            self.intake.put_in(&beside);
            // What is wrong is found at the front.
            return outcome.map(|()| false);
        }
    }

    /// Takes note of what a read brought: how many bytes.
    fn came(&mut self, outcome: Result<Arrival, Stop>) -> Result<usize, RecvError> {
        match outcome {
            Ok(Arrival { bytes: 0, .. }) => self.intake.over = Some(Over::Gone(Gone::Died)),
            Ok(Arrival { bytes, truncated }) => {
                self.intake.keep_rights(truncated);
                return Ok(bytes);
            }
            // The peer left something unread: after this comes what it had sent, then the end.
            Err(Stop::Failed(Errno::CONNRESET)) => {}
            // The peer's machine stopped answering (`tcp(7)`).
            Err(Stop::Failed(Errno::TIMEDOUT)) => {
                self.intake.over = Some(Over::Gone(Gone::Died));
            }
            Err(Stop::WouldWait) => return Err(RecvError::Empty),
            Err(Stop::TimedOut) => return Err(RecvError::TimedOut),
            Err(Stop::Failed(error)) => return Err(RecvError::io("recvmsg", error)),
        }
        Ok(0)
    }
}

/// Reads something into `room`, and descriptors to those that `arrived`, waiting for the first byte.
fn read_some(
    socket: &OwnedFd,
    waiter: &mut Waiter,
    mut arrived: Option<&mut Vec<OwnedFd>>,
    room: &mut [IoSliceMut<'_>],
    wait: Wait,
) -> Result<Arrival, Stop> {
    let mut truncated = false;
    let bytes = complete(
        socket.as_fd(),
        Interest::Read,
        waiter,
        wait,
        |sleep| match (&mut arrived, &mut *room) {
            (Some(arrived), room) => {
                let arrival = sys::recv_rights(socket.as_fd(), room, arrived, sleep)?;
                truncated |= arrival.truncated;
                Ok(arrival.bytes)
            }
            (None, [room]) => sys::recv(socket.as_fd(), room, sleep),
            (None, room) => sys::recv_slices(socket.as_fd(), room, sleep),
        },
    )?;
    Ok(Arrival { bytes, truncated })
}

/// Where one call puts the rest of a frame and what follows it.
struct Places<'a> {
    slices: [IoSliceMut<'a>; SLICES + 1],
    count: usize,
    /// Bytes of the frame that there is a place for.
    reach: usize,
}

impl<'a> Places<'a> {
    /// For a frame of which `done` bytes have come.
    fn of(
        header: Header,
        done: usize,
        head: &'a mut [u8; HEADER],
        payload: &'a mut [u8],
        verdicts: &'a mut [u8; SLICES],
        beside: &'a mut [u8],
    ) -> Self {
        let mut slices = [(); SLICES + 1].map(|()| IoSliceMut::new(&mut []));
        let (mut count, mut reach) = (0, 0);
        let (mut payload, mut passed) = (payload, 0);
        let mut head = &mut head[..];
        let mut verdicts = verdicts.iter_mut();
        for run in header.runs(done).take(SLICES) {
            let place = match run {
                Run::Payload { from, to } => {
                    let (_, rest) = std::mem::take(&mut payload).split_at_mut(from - passed);
                    let (place, rest) = rest.split_at_mut(to - from);
                    (payload, passed) = (rest, to);
                    place
                }
                Run::Verdict => verdicts
                    .next()
                    .map(std::slice::from_mut)
                    .unwrap_or_default(),
                Run::Header { from } => &mut std::mem::take(&mut head)[from..],
            };
            reach += place.len();
            slices[count] = IoSliceMut::new(place);
            count += 1;
        }
        if done + reach == header.total() {
            slices[count] = IoSliceMut::new(beside);
            count += 1;
        }
        Self {
            slices,
            count,
            reach,
        }
    }
}

impl ipc_core::Receiver for Receiver {
    #[inline]
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        let (length, rights) = self.take(buffer, wait)?;
        if rights > 0 {
            self.intake.rights.drain(..rights);
        }
        Ok(length)
    }

    fn limits(&self) -> Limits {
        let buffer = rustix::net::sockopt::socket_send_buffer_size(&self.socket).unwrap_or(0);
        Limits {
            max_message: self.intake.max_message,
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
        if self.custody.is_ours() {
            farewell::tell(self.socket.as_fd());
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("socket", &self.socket)
            .field("transport", &self.transport)
            .field("max_message", &self.intake.max_message)
            .finish_non_exhaustive()
    }
}

use std::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::wait::Interest;
use ipc_core::{Custody, Limits, Pacer, Pollable, RecvError, Wait, Waiter};
use rustix::io::Errno;

use crate::farewell::{self, Gone};
use crate::intake::{Intake, Over};
use crate::sys::{self, Transport};
use crate::wait::{Stop, complete};
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
}

/// Of what follows a piece that is read straight to its place, this much is read in with it: the
/// next header at least, and little that would have to be copied again.
const BESIDE_PIECE: usize = 4 << 10;

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
        let mut fills = 0;
        loop {
            if let Some(taken) = self.intake.take(buffer)? {
                self.handed_out += 1;
                return Ok(taken);
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
            Wait::Never if fills > 64 + self.intake.max_message / 1024 => Err(RecvError::Empty),
            _ => Ok(()),
        }
    }

    /// Reads in as much as there is, waiting for the first byte.
    fn fill(&mut self, wait: Wait) -> Result<(), RecvError> {
        // Two messages a call have room for the call that gathering costs: never more than one
        // call a message.
        if std::mem::take(&mut self.handed_out) > 1 && wait != Wait::Never {
            self.pacer.gather();
        }
        let intake = &mut self.intake;
        intake.make_room();
        let socket = self.socket.as_fd();
        let free = &mut intake.buffer[intake.end..];
        let mut truncated = false;
        let piece = &mut intake.pieces[intake.gathered..intake.gathered + intake.missing];
        let outcome = if intake.descriptors {
            let arrived = &mut intake.arrived;
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
            Ok(0) => intake.over = Some(Over::Gone(Gone::Died)),
            Ok(bytes) => {
                intake.came(bytes);
                intake.keep_rights(truncated);
            }
            // The peer left something unread: after this comes what it had sent, then the end.
            Err(Stop::Failed(Errno::CONNRESET)) => {}
            // The peer's machine stopped answering (`tcp(7)`).
            Err(Stop::Failed(Errno::TIMEDOUT)) => intake.over = Some(Over::Gone(Gone::Died)),
            Err(Stop::WouldWait) => return Err(RecvError::Empty),
            Err(Stop::TimedOut) => return Err(RecvError::TimedOut),
            Err(Stop::Failed(error)) => return Err(RecvError::io("recvmsg", error)),
        }
        Ok(())
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

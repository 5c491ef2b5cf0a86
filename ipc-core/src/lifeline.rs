//! A connected socket beside an object that knows nothing of its holders.
//!
//! A message queue, a piece of shared memory, a signal or a file does not say when the process at
//! its other end dies. The kernel closes that process's sockets, however it ends, and a closed
//! socket wakes a `poll(2)`: 150 to 230 us after SIGKILL on an idle machine.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::wait::{Interest, Polled, poll};
use crate::{OpenError, Parts, Wait};

/// Most descriptors that one hand-off carries; the kernel's own limit is 253 (`unix(7)`).
pub const MAX_DESCRIPTORS: usize = 32;

/// Most bytes that one hand-off carries beside its descriptors.
pub const MAX_DATA: usize = 64 << 20;

const FAREWELL: u8 = b'F';
const MAGIC: [u8; 4] = *b"IPC1";
/// Magic, number of descriptors (u32 LE), number of bytes (u64 LE).
const HEADER: usize = 16;

/// What a [`Lifeline`] knows of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It is open in some process; a stopped process is alive.
    Alive,
    /// It said farewell.
    Closed,
    /// Every process that held it ended, or lost it, without a farewell.
    Died,
}

/// One end of the socket. Watch it with [`Interest::Read`]: it becomes readable with the farewell
/// or the hang-up.
#[derive(Debug)]
pub struct Lifeline {
    socket: OwnedFd,
}

impl Lifeline {
    /// Two connected ends. A stream, not seqpacket: of a peer that died with something unread, a
    /// stream still gives its last bytes first and the ECONNRESET after them.
    ///
    /// # Errors
    /// What `socketpair(2)` reports, such as EMFILE.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Takes over a descriptor that came from another process.
    ///
    /// # Errors
    /// `Untrusted` if it is anything but a Unix stream socket.
    pub fn from_fd(socket: OwnedFd) -> Result<Self, OpenError> {
        let genuine = rustix::net::sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && rustix::net::sockopt::socket_type(&socket) == Ok(SocketType::STREAM);
        if genuine {
            Ok(Self { socket })
        } else {
            Err(OpenError::Untrusted {
                what: "the lifeline is not a Unix stream socket",
            })
        }
    }

    /// The same end once more, for a hand-off.
    ///
    /// # Errors
    /// What `fcntl(2)` reports, such as EMFILE.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
        })
    }

    /// Tells the other end that this one is closed in good order. Never blocks, never fails: there
    /// is room for the one byte of a socket's life, and nobody left to tell is no error.
    pub fn farewell(&self) {
        let _ = rustix::net::send(
            &self.socket,
            &[FAREWELL],
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        );
    }

    /// Looks at the other end: one system call that neither waits nor takes anything away, so the
    /// answer stays the same for the next who asks.
    #[must_use]
    pub fn peer(&self) -> Peer {
        let mut note = [0u8; 1];
        loop {
            match rustix::net::recv(
                &self.socket,
                &mut note[..],
                RecvFlags::PEEK | RecvFlags::DONTWAIT,
            ) {
                Ok((1, _)) => return Peer::Closed,
                Err(Errno::AGAIN) => return Peer::Alive,
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return Peer::Died,
            }
        }
    }

    /// Sends parts to the process at the other end, which takes them by
    /// [`recv_parts`](Self::recv_parts).
    ///
    /// # Errors
    /// `TimedOut` (and the stream is then unusable), `Invalid` for more than [`MAX_DESCRIPTORS`]
    /// or [`MAX_DATA`], `Io` when the other end is gone.
    pub fn send_parts(&self, parts: &Parts, wait: Wait) -> Result<(), OpenError> {
        if parts.descriptors.len() > MAX_DESCRIPTORS || parts.data.len() > MAX_DATA {
            return Err(OpenError::Invalid {
                what: "more parts than one hand-off carries",
            });
        }
        let mut header = [0u8; HEADER];
        header[..4].copy_from_slice(&MAGIC);
        let count = u32::try_from(parts.descriptors.len()).unwrap_or(u32::MAX);
        header[4..8].copy_from_slice(&count.to_le_bytes());
        header[8..].copy_from_slice(&(parts.data.len() as u64).to_le_bytes());

        let descriptors: Vec<BorrowedFd<'_>> = parts.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        // The descriptors travel with the first byte of the header.
        let mut sent = self.write(wait, |flags| {
            rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(&header)],
                &mut ancillary,
                flags,
            )
        })?;
        while sent < HEADER {
            sent += self.write(wait, |flags| {
                rustix::net::send(&self.socket, &header[sent..], flags)
            })?;
        }
        let mut sent = 0;
        while sent < parts.data.len() {
            sent += self.write(wait, |flags| {
                rustix::net::send(&self.socket, &parts.data[sent..], flags)
            })?;
        }
        Ok(())
    }

    fn write(
        &self,
        wait: Wait,
        mut call: impl FnMut(SendFlags) -> Result<usize, Errno>,
    ) -> Result<usize, OpenError> {
        loop {
            match call(SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.sleep(Interest::Write, wait)?,
                Err(error) => return Err(OpenError::io("sendmsg", error)),
            }
        }
    }

    /// Receives parts. Everything is checked: a header that is none, too many descriptors, a
    /// length beyond [`MAX_DATA`], truncated control data. What came is closed on every error.
    ///
    /// # Errors
    /// `TimedOut`, `Untrusted`, `Incompatible`, `Limit` where this process may have no more
    /// descriptors, or `Io` when the other end is gone.
    pub fn recv_parts(&self, wait: Wait) -> Result<Parts, OpenError> {
        let mut parts = Parts::default();
        let mut header = [0u8; HEADER];
        let mut filled = 0;
        while filled < HEADER {
            filled += self.read(wait, &mut header[filled..], &mut parts.descriptors)?;
        }
        if header[..4] != MAGIC {
            return Err(OpenError::Incompatible {
                what: "the hand-off does not begin as ours",
            });
        }
        let [count, length] = [
            u64::from(u32::from_le_bytes([
                header[4], header[5], header[6], header[7],
            ])),
            u64::from_le_bytes([
                header[8], header[9], header[10], header[11], header[12], header[13], header[14],
                header[15],
            ]),
        ];
        if count != parts.descriptors.len() as u64 {
            return Err(OpenError::Untrusted {
                what: "the hand-off lost or gained descriptors",
            });
        }
        if length > MAX_DATA as u64 {
            return Err(OpenError::Untrusted {
                what: "the hand-off claims too many bytes",
            });
        }
        // Grown as bytes arrive, so that a length alone makes nobody allocate.
        let mut block = [0u8; 16 << 10];
        let length = usize::try_from(length).unwrap_or(MAX_DATA);
        while parts.data.len() < length {
            let want = block.len().min(length - parts.data.len());
            let mut strays = Vec::new();
            let got = self.read(wait, &mut block[..want], &mut strays)?;
            if !strays.is_empty() {
                return Err(OpenError::Untrusted {
                    what: "descriptors in the midst of data",
                });
            }
            parts.data.extend_from_slice(&block[..got]);
        }
        Ok(parts)
    }

    fn read(
        &self,
        wait: Wait,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<usize, OpenError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        loop {
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let got = rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(buffer)],
                &mut ancillary,
                flags,
            );
            // Drained in any case: what is dropped is closed (RecvAncillaryBuffer).
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(arrived) = message {
                    descriptors.extend(arrived);
                }
            }
            match got {
                Ok(got) if got.flags.contains(ReturnFlags::CTRUNC) => return Err(self.cut_off()),
                Ok(got) if got.bytes == 0 => {
                    return Err(OpenError::io("recvmsg", io::ErrorKind::UnexpectedEof));
                }
                Ok(got) => return Ok(got.bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.sleep(Interest::Read, wait)?,
                Err(error) => return Err(OpenError::io("recvmsg", error)),
            }
        }
    }

    /// Why descriptors were cut off, asked while those that came are still open: this process may
    /// have no more (`unix(7)` says so of `MSG_CTRUNC`), or the other side sent too many.
    fn cut_off(&self) -> OpenError {
        match rustix::io::fcntl_dupfd_cloexec(&self.socket, 0) {
            Err(error) => OpenError::io("recvmsg", error),
            Ok(_) => OpenError::Untrusted {
                what: "descriptors were cut off",
            },
        }
    }

    fn sleep(&self, interest: Interest, wait: Wait) -> Result<(), OpenError> {
        match poll([(self.socket.as_fd(), interest)], wait) {
            Ok(Polled::Ready) => Ok(()),
            Ok(Polled::TimedOut) if wait == Wait::Never => Err(OpenError::NotFound),
            Ok(Polled::TimedOut) => Err(OpenError::TimedOut),
            Err(error) => Err(OpenError::io("ppoll", error)),
        }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Lifeline> for OwnedFd {
    fn from(lifeline: Lifeline) -> Self {
        lifeline.socket
    }
}

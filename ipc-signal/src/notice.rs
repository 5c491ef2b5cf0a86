//! What a receiver tells its sender beside the signals, over a socket that keeps order.
//!
//! A notice is 16 bytes: kind (1), signal number (1), zeros (2), count (4), nonce (8), in native
//! byte order, since both processes run on one machine. `Announce` carries the pidfd of whoever
//! is ready for the signals.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use ipc_core::OpenError;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sockopt,
};

use crate::sys;

const SIZE: usize = 16;
const ANNOUNCE: u8 = 1;
const WITHDRAW: u8 = 2;
const TAKEN: u8 = 3;

/// One notice, as the sender reads it: input.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Signals may be sent. `process` is who says so, by the kernel's word.
    Announce {
        pidfd: OwnedFd,
        process: i32,
        number: i32,
        nonce: u64,
    },
    /// No more signals with this nonce: the receiver moves to another process, and so many (modulo
    /// 2^32) arrived before it left.
    Withdraw { arrived: u32, nonce: u64 },
    /// So many messages have been received.
    Taken { count: u32, nonce: u64 },
    /// The receiver is gone.
    End,
    /// Not ours.
    Nonsense,
}

/// The sender's and the receiver's end. Seqpacket, so that a notice is read whole and its
/// descriptor with it.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (sender, receiver) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Before the first notice is sent, else it arrives with the credentials of nobody.
    sockopt::set_socket_passcred(&sender, true)?;
    Ok((sender, receiver))
}

/// Takes over a socket that came from another process.
pub(crate) fn checked(socket: OwnedFd) -> Result<OwnedFd, OpenError> {
    let genuine = sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(&socket) == Ok(SocketType::SEQPACKET);
    genuine.then_some(socket).ok_or(OpenError::Untrusted {
        what: "the socket for notices is not a Unix seqpacket one",
    })
}

pub(crate) fn announce(
    socket: &OwnedFd,
    pidfd: &OwnedFd,
    number: i32,
    nonce: u64,
) -> Result<(), Errno> {
    let descriptors = [pidfd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    send(socket, &encode(ANNOUNCE, number, 0, nonce), &mut ancillary)
}

pub(crate) fn withdraw(socket: &OwnedFd, arrived: u32, nonce: u64) -> Result<(), Errno> {
    send(
        socket,
        &encode(WITHDRAW, 0, arrived, nonce),
        &mut SendAncillaryBuffer::default(),
    )
}

/// EAGAIN: the sender has not read its notices for long; add the count to the next.
pub(crate) fn taken(socket: &OwnedFd, count: u32, nonce: u64) -> Result<(), Errno> {
    send(
        socket,
        &encode(TAKEN, 0, count, nonce),
        &mut SendAncillaryBuffer::default(),
    )
}

fn encode(kind: u8, number: i32, count: u32, nonce: u64) -> [u8; SIZE] {
    let mut notice = [0; SIZE];
    notice[0] = kind;
    notice[1] = u8::try_from(number).unwrap_or(0);
    notice[4..8].copy_from_slice(&count.to_ne_bytes());
    notice[8..].copy_from_slice(&nonce.to_ne_bytes());
    notice
}

fn send(
    socket: &OwnedFd,
    notice: &[u8],
    ancillary: &mut SendAncillaryBuffer<'_, '_, '_>,
) -> Result<(), Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(notice)], ancillary, flags) {
            Err(Errno::INTR) => {}
            done => return done.map(drop),
        }
    }
}

/// The next notice, if there is one now: one system call.
pub(crate) fn next(socket: &OwnedFd) -> Result<Option<Notice>, Errno> {
    let mut notice = [0u8; SIZE + 1];
    let received = match sys::receive(socket.as_fd(), &mut notice) {
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(None),
        Err(Errno::CONNRESET) => return Ok(Some(Notice::End)),
        Err(error) => return Err(error),
    };
    Ok(Some(match (received.bytes, notice.first_chunk::<SIZE>()) {
        (0, _) => Notice::End,
        (SIZE, Some(notice)) => decode(notice, received.descriptor, received.process),
        _ => Notice::Nonsense,
    }))
}

fn decode(notice: &[u8; SIZE], pidfd: Option<OwnedFd>, process: i32) -> Notice {
    let [kind, number, _, _, c0, c1, c2, c3, nonce @ ..] = *notice;
    let (count, nonce) = (
        u32::from_ne_bytes([c0, c1, c2, c3]),
        u64::from_ne_bytes(nonce),
    );
    match (kind, pidfd) {
        (ANNOUNCE, Some(pidfd)) => Notice::Announce {
            pidfd,
            process,
            number: number.into(),
            nonce,
        },
        (WITHDRAW, None) => Notice::Withdraw {
            arrived: count,
            nonce,
        },
        (TAKEN, None) => Notice::Taken { count, nonce },
        _ => Notice::Nonsense,
    }
}

//! Every system call of this crate: `socketpair(2)`, `send(2)`, `sendmsg(2)`, `recv(2)`,
//! `recvmsg(2)`, `setsockopt(2)`, `getsockopt(2)`, `ioctl(2)`; see `unix(7)`, `tcp(7)`, `socket(7)`.
#![expect(unsafe_code, reason = "SIOCOUTQ and SO_PEERPIDFD have no safe wrapper")]

use std::ffi::c_int;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use ipc_core::wait::Sleep;
use ipc_core::{Limit, OpenError};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

use crate::frame::CHUNK;

/// What the stream runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix,
    Tcp,
}

/// Most descriptors that one message carries (`SCM_MAX_FD`, `unix(7)`).
pub(crate) const MAX_DESCRIPTORS: usize = 253;

/// Kept free below the largest send buffer that the kernel allows, so that growing the buffer by
/// this always makes room for a farewell: what an abandoned message owes, FIN, and the 37 KiB by
/// which the kernel lets the last buffer overshoot.
const HEADROOM: usize = 2 * CHUNK;

/// Least send buffer: half of it, less 64 B, has to hold one WHOLE frame, since the kernel cuts
/// longer ones (`unix_stream_sendmsg`).
const LEAST: usize = 96 << 10;

pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), OpenError> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| OpenError::io("socketpair", error))
}

/// Which transport a descriptor from elsewhere is; everything but a stream socket is refused.
pub(crate) fn transport(socket: BorrowedFd<'_>) -> Result<Transport, OpenError> {
    let untrusted = OpenError::Untrusted {
        what: "the descriptor is not a stream socket",
    };
    if sockopt::socket_type(socket) != Ok(SocketType::STREAM) {
        return Err(untrusted);
    }
    match sockopt::socket_domain(socket) {
        Ok(AddressFamily::UNIX) => Ok(Transport::Unix),
        Ok(AddressFamily::INET | AddressFamily::INET6) => Ok(Transport::Tcp),
        _ => Err(untrusted),
    }
}

/// Clears O_NONBLOCK: calls say themselves whether they may sleep.
pub(crate) fn make_blocking(socket: BorrowedFd<'_>) -> Result<(), OpenError> {
    rustix::fs::fcntl_getfl(socket)
        .and_then(|flags| rustix::fs::fcntl_setfl(socket, flags - OFlags::NONBLOCK))
        .map_err(|error| OpenError::io("fcntl", error))
}

/// Bytes of send buffer that `bytes` of messages are charged for at most: each 32 KiB comes with
/// a buffer head and a rounding to pages.
pub(crate) fn charge(bytes: usize) -> usize {
    bytes + (bytes / (32 << 10) + 1) * (5 << 10)
}

/// The inverse of [`charge`], rounded down.
pub(crate) fn uncharge(buffer: usize) -> usize {
    buffer.saturating_sub(5 << 10) / 37 * 32
}

/// Sets the send buffer to hold `capacity` bytes, or as much of `wish` as the kernel allows, and
/// gives its size as the kernel counts.
pub(crate) fn size_buffer(
    socket: BorrowedFd<'_>,
    capacity: Option<usize>,
    wish: usize,
) -> Result<usize, OpenError> {
    let failed = |error| OpenError::io("setsockopt", error);
    let largest = grow_buffer(socket).map_err(failed)?;
    let usable = largest.saturating_sub(HEADROOM);
    let wanted = charge(capacity.unwrap_or(wish)).max(LEAST);
    if usable < LEAST || (capacity.is_some() && wanted > usable) {
        return Err(OpenError::Limit(Limit {
            name: "net.core.wmem_max",
            value: Some(largest as u64 / 2),
            advice: "ask for less capacity or raise it",
        }));
    }
    // The kernel doubles what it is given (`socket(7)`, SO_SNDBUF).
    sockopt::set_socket_send_buffer_size(socket, wanted.min(usable) / 2).map_err(failed)?;
    sockopt::socket_send_buffer_size(socket).map_err(failed)
}

/// Makes the send buffer as large as the kernel allows: it clamps to `net.core.wmem_max`, silently.
pub(crate) fn grow_buffer(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    sockopt::set_socket_send_buffer_size(socket, 1 << 30)?;
    sockopt::socket_send_buffer_size(socket)
}

/// `linux/sockios.h`; the same request as the terminal's TIOCOUTQ.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

/// Bytes of send buffer in use: of a Unix socket with everything the kernel charges (`unix_ioctl`),
/// of a TCP socket the bytes that were not acknowledged (`tcp(7)`).
pub(crate) fn in_use(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    // SAFETY: SIOCOUTQ on a socket writes one int, and nothing else, to its argument.
    let request = unsafe { rustix::ioctl::Getter::<SIOCOUTQ, c_int>::new() };
    // SAFETY: the request is the getter for this opcode, and the descriptor is a socket.
    let used = unsafe { rustix::ioctl::ioctl(socket, request) }?;
    Ok(usize::try_from(used).unwrap_or(0))
}

/// Whether the other end is closed: it takes nothing and sends nothing more.
pub(crate) fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let gone = PollFlags::HUP | PollFlags::ERR;
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents().intersects(gone)
}

pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], sleep: Sleep) -> Result<usize, Errno> {
    rustix::net::send(socket, bytes, send_flags(sleep))
}

pub(crate) fn send_slices(
    socket: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    sleep: Sleep,
) -> Result<usize, Errno> {
    rustix::net::sendmsg(
        socket,
        slices,
        &mut SendAncillaryBuffer::default(),
        send_flags(sleep),
    )
}

pub(crate) fn send_rights(
    socket: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
    sleep: Sleep,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    rustix::net::sendmsg(socket, slices, &mut ancillary, send_flags(sleep))
}

pub(crate) fn recv(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    sleep: Sleep,
) -> Result<usize, Errno> {
    rustix::net::recv(socket, buffer, recv_flags(sleep)).map(|(bytes, _)| bytes)
}

pub(crate) fn recv_slices(
    socket: BorrowedFd<'_>,
    slices: &mut [IoSliceMut<'_>],
    sleep: Sleep,
) -> Result<usize, Errno> {
    let mut none = RecvAncillaryBuffer::default();
    rustix::net::recvmsg(socket, slices, &mut none, recv_flags(sleep)).map(|got| got.bytes)
}

/// What [`recv_rights`] received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) bytes: usize,
    /// Whether descriptors were lost on the way. Those that came are closed.
    pub(crate) truncated: bool,
}

/// Receives bytes and whatever descriptors came with them, close-on-exec.
pub(crate) fn recv_rights(
    socket: BorrowedFd<'_>,
    slices: &mut [IoSliceMut<'_>],
    arrived: &mut Vec<OwnedFd>,
    sleep: Sleep,
) -> Result<Arrival, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = recv_flags(sleep) | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, slices, &mut ancillary, flags)?;
    let truncated = got.flags.contains(ReturnFlags::CTRUNC);
    for message in ancillary.drain() {
        // After MSG_CTRUNC some descriptors are installed all the same: dropping closes them.
        if let RecvAncillaryMessage::ScmRights(descriptors) = message
            && !truncated
        {
            arrived.extend(descriptors);
        }
    }
    Ok(Arrival {
        bytes: got.bytes,
        truncated,
    })
}

fn send_flags(sleep: Sleep) -> SendFlags {
    match sleep {
        Sleep::Never => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        Sleep::Allowed => SendFlags::NOSIGNAL,
    }
}

fn recv_flags(sleep: Sleep) -> RecvFlags {
    match sleep {
        Sleep::Never => RecvFlags::DONTWAIT,
        Sleep::Allowed => RecvFlags::empty(),
    }
}

pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> Result<rustix::net::UCred, Errno> {
    sockopt::socket_peercred(socket.as_fd())
}

/// A descriptor of the process that [`peer_credentials`] names, close-on-exec like every pidfd:
/// Linux 6.5, ENOPROTOOPT before.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut fd: c_int = -1;
    let mut size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the option writes one int, for which there is room, and the size says so.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut size,
        )
    };
    if done != 0 || fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

//! What TCP needs to carry a channel.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ipc_core::{OpenError, Wait};
use rustix::io::Errno;

/// How long one address of a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn bind(host: &str) -> Result<(OwnedFd, SocketAddr), OpenError> {
    let listener = match TcpListener::bind(host) {
        Ok(listener) => listener,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            return Err(OpenError::NameInUse);
        }
        Err(error) => return Err(OpenError::io("bind", error)),
    };
    let address = listener
        .local_addr()
        .map_err(|error| OpenError::io("getsockname", error))?;
    listener
        .set_nonblocking(true)
        .map_err(|error| OpenError::io("fcntl", error))?;
    Ok((listener.into(), address))
}

pub(crate) fn connect(host: &str, wait: Wait) -> Result<OwnedFd, OpenError> {
    let addresses = host
        .to_socket_addrs()
        .map_err(|error| OpenError::io("getaddrinfo", error))?;
    let mut failure = OpenError::NotFound;
    for address in addresses {
        // At least a millisecond: connecting takes a round trip, also when nobody is to wait.
        let limit = wait.remaining().map_or(PATIENCE, |left| left.min(PATIENCE));
        match TcpStream::connect_timeout(&address, limit.max(Duration::from_millis(1))) {
            // A port that nobody listens on may connect to itself (simultaneous open).
            Ok(stream) if stream.local_addr().ok() == Some(address) => {}
            Ok(stream) => {
                let ours = stream.local_addr();
                let here =
                    address.ip().is_loopback() || ours.is_ok_and(|ours| ours.ip() == address.ip());
                let socket = OwnedFd::from(stream);
                no_delay(socket.as_fd())?;
                if here {
                    do_not_pace(socket.as_fd());
                }
                return Ok(socket);
            }
            Err(error) if is_ours(&error) => failure = OpenError::io("connect", error),
            // Nobody is there, or not yet.
            Err(_) => {}
        }
    }
    Err(failure)
}

/// Within this machine there is no line that could be congested, and an algorithm that measures one and
/// holds segments back for it (BBR) was seen to take three quarters of the rate of 64 KiB messages. Reno
/// is in every kernel, and does not. Where this user may not choose it, the connection is as good as any.
fn do_not_pace(socket: BorrowedFd<'_>) {
    let _ = rustix::net::sockopt::set_tcp_congestion(socket, "reno");
}

/// Whether a connection failed for a reason on this side, which waiting for a listener does not mend
/// (`socket(2)`, `connect(2)`).
fn is_ours(error: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::NOBUFS
                | Errno::ACCESS
                | Errno::PERM
        )
    )
}

/// Messages leave at once instead of waiting for the acknowledgement of those before (`tcp(7)`). To let
/// them wait fills the segments of a stream within this machine, at two to four times the rate, but
/// such a stream was also seen to stall at 11,000 messages a second, as if each acknowledgement was
/// kept back.
pub(crate) fn no_delay(socket: BorrowedFd<'_>) -> Result<(), OpenError> {
    rustix::net::sockopt::set_tcp_nodelay(socket, true)
        .map_err(|error| OpenError::io("setsockopt", error))
}

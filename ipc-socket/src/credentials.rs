use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sys::{self, Transport};

/// Who is at the other side of a Unix socket, as the kernel recorded it (SO_PEERCRED, `unix(7)`)
/// when the sockets were connected: for a name the two processes that connected, for a pair the
/// process that made both ends.
///
/// A process may since have handed its end to another or changed its user: the record stays. A
/// process number may since belong to somebody else: do not signal by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// Process number; 0 if the peer lives in a process namespace that this one cannot see.
    pub process: u32,
    /// Effective user.
    pub user: u32,
    /// Effective group.
    pub group: u32,
}

impl Credentials {
    pub(crate) fn of(socket: BorrowedFd<'_>, transport: Transport) -> Option<Self> {
        if transport == Transport::Tcp {
            return None;
        }
        let found = sys::peer_credentials(socket).ok()?;
        Some(Self {
            process: found.pid.as_raw_pid().cast_unsigned(),
            user: found.uid.as_raw(),
            group: found.gid.as_raw(),
        })
    }
}

/// A pidfd of the process that [`Credentials`] name.
pub(crate) fn pidfd(socket: BorrowedFd<'_>, transport: Transport) -> io::Result<OwnedFd> {
    if transport == Transport::Tcp {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(sys::peer_pidfd(socket)?)
}

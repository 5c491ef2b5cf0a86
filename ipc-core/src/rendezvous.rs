//! Names for every mechanism whose receiver can be handed off, written once.
//!
//! The listener waits at a Unix socket of mode 0600. The connector makes a nameless channel, keeps
//! the sender and ships the parts of the receiver. So no kernel object ever carries a name that
//! could survive its makers; only the socket does, and the next listener reclaims it.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect as connect_to, listen, socket_with,
};

use crate::lifeline::Lifeline;
use crate::wait::{Interest, Polled, poll};
use crate::{Custody, Handoff, Listener, Name, OpenError, Parts, Wait};

/// How long a connector may take to say what it brings, lest a silent one holds up the others.
const PATIENCE: Duration = Duration::from_secs(1);
/// So long a visitor may speak at least, also to a listener that would not wait: it has connected
/// and is about to.
const GRACE: Duration = Duration::from_millis(40);
/// How long a connector sleeps between two looks for its listener.
const RETRY: Duration = Duration::from_millis(2);
const BACKLOG: i32 = 64;

/// A bound name; see [`Listener`].
pub struct RendezvousListener<R> {
    socket: OwnedFd,
    kind: &'static str,
    name: Name,
    /// Device and inode of the socket file, so that a drop removes only what this listener made.
    identity: (u64, u64),
    custody: Custody,
    receiver: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for RendezvousListener<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RendezvousListener")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<R: Handoff> RendezvousListener<R> {
    /// Takes a name for channels of this kind, reclaiming it from a dead process.
    ///
    /// # Errors
    /// As [`Channel::listen`](crate::Channel::listen).
    pub fn bind(name: &Name, kind: &'static str) -> Result<Self, OpenError> {
        let (socket, identity) = bind_socket(name)?;
        Ok(Self {
            socket,
            kind,
            name: name.clone(),
            identity,
            custody: Custody::new(),
            receiver: PhantomData,
        })
    }

    /// One visitor: its receiver, or why it was turned away.
    fn admit(&self, visitor: OwnedFd, wait: Wait) -> Result<R, OpenError> {
        let credentials = rustix::net::sockopt::socket_peercred(&visitor)
            .map_err(|e| OpenError::io("getsockopt", e))?;
        trust(credentials.uid.as_raw())?;
        let line = Lifeline::from_fd(visitor)?;
        let greeting = line.recv_parts(wait)?;
        if greeting.data != self.kind.as_bytes() || !greeting.descriptors.is_empty() {
            return Err(OpenError::Incompatible {
                what: "it brings another kind of channel",
            });
        }
        R::from_parts(line.recv_parts(wait)?)
    }
}

impl<R: Handoff> Listener for RendezvousListener<R> {
    type Receiver = R;

    fn accept(&mut self, wait: Wait) -> Result<R, OpenError> {
        accept_one(self.socket.as_fd(), wait, |visitor, patience| {
            self.admit(visitor, patience)
        })
    }
}

impl<R> Drop for RendezvousListener<R> {
    fn drop(&mut self) {
        if self.custody.is_ours() {
            release_socket(&self.name, self.identity);
        }
    }
}

/// Waits for a visitor that `admit` lets in. Those that it turns away end no wait, and neither they
/// nor silent ones prolong it by more than a few tens of milliseconds: `admit` is told how long it
/// may listen to one.
///
/// # Errors
/// As [`Listener::accept`].
pub fn accept_one<R>(
    socket: BorrowedFd<'_>,
    wait: Wait,
    mut admit: impl FnMut(OwnedFd, Wait) -> Result<R, OpenError>,
) -> Result<R, OpenError> {
    let over = || match wait {
        Wait::Never => OpenError::NotFound,
        _ => OpenError::TimedOut,
    };
    let grace = Instant::now() + GRACE;
    let last = match wait {
        Wait::Never => Some(grace),
        Wait::Until(deadline) => Some(deadline.max(grace)),
        Wait::Forever => None,
    };
    loop {
        match accept_with(socket, SocketFlags::CLOEXEC) {
            Ok(visitor) => {
                let patience = Instant::now() + PATIENCE;
                let patience = last.map_or(patience, |last| last.min(patience));
                if let Ok(admitted) = admit(visitor, Wait::Until(patience)) {
                    return Ok(admitted);
                }
                if last.is_some_and(|last| Instant::now() >= last) {
                    return Err(over());
                }
                continue;
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => return Err(OpenError::io("accept4", error)),
        }
        match poll([(socket, Interest::Read)], wait) {
            Ok(Polled::Ready) => {}
            Ok(Polled::TimedOut) => return Err(over()),
            Err(error) => return Err(OpenError::io("ppoll", error)),
        }
    }
}

/// Binds and listens at the name: mode 0600 whatever the umask, since `fchmod(2)` on the unbound
/// socket decides the mode of the file (`unix(7)`).
///
/// # Errors
/// As [`Channel::listen`](crate::Channel::listen).
pub fn bind_socket(name: &Name) -> Result<(OwnedFd, (u64, u64)), OpenError> {
    let lock = name.lock()?;
    if lock.holds(FileType::Socket)? {
        match open_socket(lock.path()) {
            Ok(_) | Err(Errno::AGAIN) => return Err(OpenError::NameInUse),
            Err(Errno::CONNREFUSED) => lock.unlink()?,
            Err(error) => return Err(OpenError::io("connect", error)),
        }
    }
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| OpenError::io("socket", e))?;
    let address = SocketAddrUnix::new(lock.path()).map_err(|e| OpenError::io("bind", e))?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|e| OpenError::io("fchmod", e))?;
    bind(&socket, &address).map_err(|e| OpenError::io("bind", e))?;
    let made = rustix::fs::chmod(lock.path(), Mode::RUSR | Mode::WUSR)
        .and_then(|()| listen(&socket, BACKLOG))
        .and_then(|()| rustix::fs::lstat(lock.path()));
    match made {
        Ok(stat) => Ok((socket, (stat.st_dev, stat.st_ino))),
        Err(error) => {
            let _ = lock.unlink();
            Err(OpenError::io("listen", error))
        }
    }
}

/// Frees the name if it still is the socket that [`bind_socket`] made.
pub fn release_socket(name: &Name, identity: (u64, u64)) {
    if let Ok(lock) = name.lock()
        && let Ok(stat) = rustix::fs::lstat(lock.path())
        && (stat.st_dev, stat.st_ino) == identity
    {
        let _ = lock.unlink();
    }
}

/// Ships `receiver` to whoever listens at the name, waiting for a listener.
///
/// # Errors
/// As [`Channel::connect`](crate::Channel::connect).
pub fn connect<R: Handoff>(
    name: &Name,
    kind: &'static str,
    receiver: R,
    wait: Wait,
) -> Result<(), OpenError> {
    let line = Lifeline::from_fd(connect_socket(name, wait)?)?;
    let greeting = Parts {
        descriptors: Vec::new(),
        data: kind.as_bytes().to_vec(),
    };
    line.send_parts(&greeting, wait_or(wait, PATIENCE))?;
    let parts = receiver
        .into_parts()
        .map_err(|e| OpenError::io("fcntl", e))?;
    line.send_parts(&parts, wait_or(wait, PATIENCE))
}

/// Connects a Unix stream to the listener at the name, waiting for one to appear.
///
/// # Errors
/// As [`Channel::connect`](crate::Channel::connect).
pub fn connect_socket(name: &Name, wait: Wait) -> Result<OwnedFd, OpenError> {
    loop {
        match try_connect(name) {
            Err(OpenError::NotFound) if wait == Wait::Never => return Err(OpenError::NotFound),
            Err(OpenError::NotFound) if wait.is_over() => return Err(OpenError::TimedOut),
            Err(OpenError::NotFound) => {}
            outcome => return outcome,
        }
        let pause = wait.remaining().map_or(RETRY, |left| left.min(RETRY));
        let _ = poll([], Wait::at_most(pause));
    }
}

fn try_connect(name: &Name) -> Result<OwnedFd, OpenError> {
    let path: PathBuf = name.path()?;
    match rustix::fs::lstat(&path) {
        // Its listener is just removing it: the name led here a moment ago.
        Ok(stat) if stat.st_nlink == 0 => return Err(OpenError::NotFound),
        Ok(stat) => crate::name::check(&stat, FileType::Socket)?,
        Err(Errno::NOENT) => return Err(OpenError::NotFound),
        Err(error) => return Err(OpenError::io("lstat", error)),
    }
    let socket = match open_socket(&path) {
        Ok(socket) => socket,
        // EAGAIN: the listener's backlog is full; to a connector that is a listener not yet there.
        Err(Errno::CONNREFUSED | Errno::NOENT | Errno::AGAIN) => return Err(OpenError::NotFound),
        Err(error) => return Err(OpenError::io("connect", error)),
    };
    let credentials = rustix::net::sockopt::socket_peercred(&socket)
        .map_err(|e| OpenError::io("getsockopt", e))?;
    trust(credentials.uid.as_raw())?;
    Ok(socket)
}

/// This user, or root, who can read everything anyway.
fn trust(uid: u32) -> Result<(), OpenError> {
    if uid == rustix::process::geteuid().as_raw() || uid == 0 {
        Ok(())
    } else {
        Err(OpenError::Untrusted {
            what: "the process at the other side is another user's",
        })
    }
}

fn open_socket(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect_to(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// A caller that would not wait for a listener still has to let the bytes through.
fn wait_or(wait: Wait, patience: Duration) -> Wait {
    if wait == Wait::Never {
        Wait::at_most(patience)
    } else {
        wait
    }
}

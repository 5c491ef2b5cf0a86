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

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect as connect_to, listen, socket_with,
};

use crate::lifeline::Lifeline;
use crate::wait::{Polled, poll, poll_all};
use crate::{Custody, Handoff, Listener, Name, OpenError, Parts, Wait};

/// How long a connector may take to say its first word. Meanwhile others are served.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one that has begun may take to say the rest: an honest one says it in one breath.
const BREATH: Duration = Duration::from_millis(200);
/// So long a visitor may speak at least, also to a listener that would not wait: it has connected
/// and is about to.
const GRACE: Duration = Duration::from_millis(40);
/// How long a connector sleeps between two looks for its listener.
const RETRY: Duration = Duration::from_millis(2);
const BACKLOG: i32 = 64;
/// Most silent visitors at a time.
const SILENT_MOST: usize = 16;
/// How often a connector begins anew after its listener hung up on it.
const ATTEMPTS: u32 = 16;

/// A bound name; see [`Listener`].
pub struct RendezvousListener<R> {
    socket: OwnedFd,
    kind: &'static str,
    name: Name,
    /// Device and inode of the socket file, so that a drop removes only what this listener made.
    identity: (u64, u64),
    hall: Hall,
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
            hall: Hall::default(),
            custody: Custody::new(),
            receiver: PhantomData,
        })
    }
}

/// One visitor: its receiver, or why it was turned away.
fn admit<R: Handoff>(kind: &str, visitor: OwnedFd, wait: Wait) -> Result<R, OpenError> {
    trust(visitor.as_fd())?;
    let line = Lifeline::from_fd(visitor)?;
    let greeting = line.recv_parts(wait)?;
    if greeting.data != kind.as_bytes() || !greeting.descriptors.is_empty() {
        return Err(OpenError::Incompatible {
            what: "it brings another kind of channel",
        });
    }
    R::from_parts(line.recv_parts(wait)?)
}

impl<R: Handoff> Listener for RendezvousListener<R> {
    type Receiver = R;

    fn accept(&mut self, wait: Wait) -> Result<R, OpenError> {
        let kind = self.kind;
        accept_one(
            self.socket.as_fd(),
            &mut self.hall,
            wait,
            |visitor, patience| admit(kind, visitor.socket, patience).map(Admission::Admitted),
        )
    }
}

impl<R> Drop for RendezvousListener<R> {
    fn drop(&mut self) {
        if self.custody.is_ours() {
            release_socket(&self.name, self.identity);
        }
    }
}

/// Where visitors stand who have connected and not yet said who they are, so that none is in another's
/// way. It belongs to a listener and lasts from one [`accept_one`] to the next.
#[derive(Debug, Default)]
pub struct Hall(Vec<Visitor>);

/// One who has connected.
#[derive(Debug)]
pub struct Visitor {
    /// Close-on-exec.
    pub socket: OwnedFd,
    /// What it has said so far, if its listener keeps that here.
    pub said: Vec<u8>,
    since: Instant,
}

/// What becomes of a visitor that has spoken.
#[derive(Debug)]
pub enum Admission<R> {
    /// It is let in.
    Admitted(R),
    /// It has not said all: back to the hall.
    NotYet(Visitor),
}

impl Hall {
    /// The eldest stand in front, and the first of them goes when there are too many.
    fn enter(&mut self, visitor: Visitor) {
        if self.0.len() == SILENT_MOST {
            self.0.remove(0);
        }
        let place = self.0.partition_point(|it| it.since <= visitor.since);
        self.0.insert(place, visitor);
    }

    /// Sleeps until one of the visitors speaks, who then leaves the hall, or one knocks at `door`, or
    /// the wait is over. Sends away who has been silent for too long.
    fn listen(&mut self, door: BorrowedFd<'_>, wait: Wait) -> Result<Heard, Errno> {
        let wait = match (self.0.first(), wait) {
            (None, wait) => wait,
            (Some(eldest), Wait::Until(end)) => Wait::Until(end.min(eldest.since + PATIENCE)),
            (Some(eldest), _) => Wait::Until(eldest.since + PATIENCE),
        };
        let visitors = self.0.iter().map(|visitor| visitor.socket.as_fd());
        let mut polled: Vec<PollFd<'_>> = std::iter::once(door)
            .chain(visitors)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let outcome = poll_all(&mut polled, wait)?;
        let events: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        if let Some(speaker) = events[1..].iter().position(|&speaks| speaks) {
            return Ok(Heard::Voice(self.0.remove(speaker)));
        }
        let now = Instant::now();
        self.0.retain(|visitor| now < visitor.since + PATIENCE);
        Ok(match outcome {
            Polled::Ready => Heard::Knock,
            Polled::TimedOut => Heard::Nothing,
        })
    }
}

/// What [`Hall::listen`] heard.
enum Heard {
    Voice(Visitor),
    Knock,
    Nothing,
}

/// Waits for a visitor that `admit` lets in. Those that it turns away end no wait, and neither they
/// nor silent ones prolong it by more than a few tens of milliseconds. Silent ones are waited for
/// side by side, in `hall`: none delays another. `admit` is told how long it may listen to one who has
/// begun to speak, or gives it back for others to be heard meanwhile.
///
/// # Errors
/// As [`Listener::accept`].
pub fn accept_one<R>(
    door: BorrowedFd<'_>,
    hall: &mut Hall,
    wait: Wait,
    mut admit: impl FnMut(Visitor, Wait) -> Result<Admission<R>, OpenError>,
) -> Result<R, OpenError> {
    let grace = Instant::now() + GRACE;
    // So long visitors are heard who have come; for new ones `wait` counts.
    let last = match wait {
        Wait::Never => Some(grace),
        Wait::Until(deadline) => Some(deadline.max(grace)),
        Wait::Forever => None,
    };
    loop {
        let patience = match last {
            _ if hall.0.is_empty() => wait,
            Some(last) => Wait::Until(last),
            None => Wait::Forever,
        };
        let mut nobody = false;
        match hall.listen(door, patience) {
            Ok(Heard::Voice(visitor)) => {
                let patience = Instant::now() + BREATH;
                let patience = last.map_or(patience, |last| last.min(patience));
                match admit(visitor, Wait::Until(patience)) {
                    Ok(Admission::Admitted(admitted)) => return Ok(admitted),
                    Ok(Admission::NotYet(visitor)) => hall.enter(visitor),
                    // It is not the visitor's fault, and the next would fare no better.
                    Err(error) if error.is_lack_of_descriptors() => return Err(error),
                    Err(_) => {}
                }
            }
            Ok(Heard::Knock) => match accept_with(door, SocketFlags::CLOEXEC) {
                Ok(socket) => hall.enter(Visitor {
                    socket,
                    said: Vec::new(),
                    since: Instant::now(),
                }),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(OpenError::io("accept4", error)),
            },
            Ok(Heard::Nothing) => nobody = hall.0.is_empty(),
            Err(error) => return Err(OpenError::io("ppoll", error)),
        }
        if (nobody && wait.is_over()) || last.is_some_and(|last| Instant::now() >= last) {
            if wait == Wait::Never {
                // Its next call may be long in coming; they can knock again.
                hall.0.clear();
                return Err(OpenError::NotFound);
            }
            return Err(OpenError::TimedOut);
        }
    }
}

/// Binds and listens at the name: mode 0600 whatever the umask, since `fchmod(2)` on the unbound
/// socket decides the mode of the file (`unix(7)`).
///
/// # Errors
/// As [`Channel::listen`](crate::Channel::listen).
pub fn bind_socket(name: &Name) -> Result<(OwnedFd, (u64, u64)), OpenError> {
    let lock = name.lock(Wait::Forever)?;
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
    if let Ok(lock) = name.lock(Wait::Forever)
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
    persist(wait, || {
        let line = Lifeline::from_fd(connect_socket(name, wait)?)?;
        let greeting = Parts {
            descriptors: Vec::new(),
            data: kind.as_bytes().to_vec(),
        };
        line.send_parts(&greeting, wait_or(wait, PATIENCE))?;
        let parts = receiver.to_parts().map_err(|e| OpenError::io("fcntl", e))?;
        line.send_parts(&parts, wait_or(wait, PATIENCE))
    })?;
    receiver.release();
    Ok(())
}

/// Connects by `attempt`, and anew when the listener hangs up in its midst. One that ends, or is
/// restarted, does that to whoever is still in its queue: it was as good as not there. One that turns
/// a connector away does the same every time, so the number of attempts has an end, and that is an
/// `Io` error.
///
/// # Errors
/// Those of `attempt`.
pub fn persist<T>(
    wait: Wait,
    mut attempt: impl FnMut() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(OpenError::Io { source, .. }) if is_hang_up(&source) => pause(wait),
            outcome => return outcome,
        }
    }
    attempt()
}

fn is_hang_up(error: &std::io::Error) -> bool {
    let error = Errno::from_io_error(error);
    matches!(error, Some(Errno::PIPE | Errno::CONNRESET))
}

/// Before the next look for a listener.
fn pause(wait: Wait) {
    let pause = wait.remaining().map_or(RETRY, |left| left.min(RETRY));
    let _ = poll([], Wait::at_most(pause));
}

/// Connects by `attempt`, which says `NotFound` until a listener is there.
///
/// # Errors
/// `TimedOut` at the deadline; `NotFound` if `wait` is [`Wait::Never`]; other errors of `attempt`.
pub fn find<T>(
    wait: Wait,
    mut attempt: impl FnMut() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    loop {
        match attempt() {
            Err(OpenError::NotFound) if wait == Wait::Never => return Err(OpenError::NotFound),
            Err(OpenError::NotFound) if wait.is_over() => return Err(OpenError::TimedOut),
            Err(OpenError::NotFound) => pause(wait),
            outcome => return outcome,
        }
    }
}

/// Connects a Unix stream to the listener at the name, waiting for one to appear.
///
/// # Errors
/// As [`Channel::connect`](crate::Channel::connect).
pub fn connect_socket(name: &Name, wait: Wait) -> Result<OwnedFd, OpenError> {
    find(wait, || try_connect(name))
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
    trust(socket.as_fd())?;
    Ok(socket)
}

/// Refuses a Unix socket whose other side is another user's (SO_PEERCRED, `unix(7)`), unless that is root,
/// who can read everything anyway.
///
/// # Errors
/// `Untrusted`.
pub fn trust(socket: BorrowedFd<'_>) -> Result<(), OpenError> {
    let peer = rustix::net::sockopt::socket_peercred(socket)
        .map_err(|e| OpenError::io("getsockopt", e))?;
    if peer.uid == rustix::process::geteuid() || peer.uid.is_root() {
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

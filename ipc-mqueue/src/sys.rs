//! Every system call on a queue: `mq_open(3)`, `mq_unlink(3)`, `mq_getattr(3)` through `posixmq`;
//! `mq_timedsend(2)` and `mq_timedreceive(2)` without the C library, whose calls are points where a
//! thread may be cancelled, at a price that a process with two threads feels; `open(2)` of
//! `/proc/thread-self/fd/N`; and `pthread_sigmask(3)` and `close_range(2)` for a thread of our own.

#![expect(
    unsafe_code,
    reason = "posixmq speaks of raw descriptors only, and nobody else of queues, signal masks or \
              tables of descriptors"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use ipc_core::OpenError;
use posixmq::{OpenOptions, PosixMq};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::limit;
use crate::queue::Access;

/// How long a call on the queue may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// As long as it takes. A deadline would be one of the wall clock, the only one these calls
    /// know: whoever has one sleeps in `poll(2)`.
    Endless,
}

/// A queue descriptor. It is close-on-exec and closed on drop.
#[derive(Debug)]
pub(crate) struct Mqd(PosixMq);

impl Mqd {
    /// A queue without a name.
    ///
    /// `mq_open(3)` knows no nameless queues, so this one bears a name between two system calls.
    /// The name is the same for every process of this user and means nothing: nobody ever opens
    /// it. Whoever finds it taken removes it and tries again: either its maker was about to, or
    /// was killed between the two calls, and then this is what cleans up behind it.
    pub(crate) fn create_nameless(size: usize, depth: usize) -> Result<Self, OpenError> {
        const ATTEMPTS: u32 = 1000;
        let usual = format!("/ipc-mqueue-{}", rustix::process::geteuid().as_raw());
        for _ in 0..ATTEMPTS {
            match Self::create_unlinked(&usual, size, depth) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map_err(|error| limit::of_create(error, size, depth)),
            }
            match posixmq::remove_queue(&usual) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Another user squats the name.
                Err(_) => break,
            }
        }
        let name = format!("/ipc-mqueue-{:032x}", u128::from_ne_bytes(random()?));
        Self::create_unlinked(&name, size, depth)
            .map_err(|error| limit::of_create(error, size, depth))
    }

    fn create_unlinked(name: &str, size: usize, depth: usize) -> io::Result<Self> {
        let made = Self::create(name, Access::Both, size, depth)?;
        // Somebody else may have removed it already; only the removal counts.
        let _ = posixmq::remove_queue(name);
        Ok(made)
    }

    /// A new queue of this name, mode 0600, or `AlreadyExists`.
    pub(crate) fn create(
        name: &str,
        access: Access,
        size: usize,
        depth: usize,
    ) -> io::Result<Self> {
        if size == 0 || depth == 0 {
            // `posixmq` would take two zeros for "as the system likes".
            return Err(Errno::INVAL.into());
        }
        let mut options = access.open_options();
        options
            .max_msg_len(size)
            .capacity(depth)
            .mode(0o600)
            .create_new()
            .open(name)
            .map(Self)
    }

    /// A queue that exists.
    pub(crate) fn open(name: &str, access: Access) -> io::Result<Self> {
        access.open_options().open(name).map(Self)
    }

    pub(crate) fn unlink(name: &str) -> io::Result<()> {
        posixmq::remove_queue(name)
    }

    /// Takes over a descriptor that came from elsewhere, if it is a queue.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self, OpenError> {
        // SAFETY: an `OwnedFd` is open, and `into_raw_fd` leaves its closing to the new owner;
        // whether it is a queue is no matter of memory safety, the kernel checks it at each call.
        let mq = unsafe { PosixMq::from_raw_fd(fd.into_raw_fd()) };
        // EBADF for everything that is not a message queue (mq_getattr(3)).
        match mq.attributes() {
            Ok(_) => Ok(Self(mq)),
            Err(_) => Err(OpenError::Untrusted {
                what: "the descriptor is not a message queue",
            }),
        }
    }

    /// The same queue by a descriptor with flags of its own, which can only send or only receive.
    /// Where `/proc` is not mounted, a duplicate.
    pub(crate) fn narrow(&self, access: Access) -> Result<Self, OpenError> {
        // Of the thread: it may have a table of descriptors of its own.
        let path = format!("/proc/thread-self/fd/{}", self.0.as_raw_fd());
        match rustix::fs::open(path, access.flags() | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Self::from_fd(fd),
            Err(Errno::MFILE) => Err(limit::of_descriptors("open", Errno::MFILE.into())),
            Err(_) => self
                .try_clone()
                .map_err(|error| limit::of_descriptors("fcntl", error)),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Whether this descriptor was opened for it.
    pub(crate) fn allows(&self, access: Access) -> bool {
        let mode = rustix::fs::fcntl_getfl(self).map(|flags| flags & OFlags::ACCMODE);
        mode.is_ok_and(|mode| mode == OFlags::RDWR || mode == access.flags())
    }

    pub(crate) fn attributes(&self) -> Result<posixmq::Attributes, OpenError> {
        self.0
            .attributes()
            .map_err(|error| OpenError::io("mq_getattr", error))
    }

    /// How many messages are in the queue now; none if it cannot be told.
    pub(crate) fn waiting(&self) -> usize {
        self.attributes()
            .map_or(0, |attributes| attributes.current_messages)
    }

    /// Whether there is no room for another message.
    pub(crate) fn is_full(&self) -> bool {
        self.attributes()
            .is_ok_and(|attributes| attributes.current_messages >= attributes.capacity)
    }

    /// Sends; `false` says that there was no room. EINTR is retried within.
    #[inline]
    pub(crate) fn send(
        &self,
        message: &[u8],
        priority: u32,
        patience: Patience,
    ) -> io::Result<bool> {
        loop {
            // SAFETY: the kernel reads as many bytes as the slice has, and a timespec or none.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_mq_timedsend,
                    self.0.as_raw_fd(),
                    message.as_ptr(),
                    message.len(),
                    priority,
                    patience.deadline(),
                )
            };
            if done >= 0 {
                return Ok(true);
            }
            if !is_interrupted()? {
                return Ok(false);
            }
        }
    }

    /// Receives a message and gives its length; `None` says that there was none. Its priority too, if
    /// there is a place for it, which costs the kernel a twentieth of the message. The buffer must
    /// hold the longest message of the queue. EINTR is retried within.
    #[inline]
    pub(crate) fn recv(
        &self,
        buffer: &mut [u8],
        priority: Option<&mut u32>,
        patience: Patience,
    ) -> io::Result<Option<usize>> {
        let priority = priority.map_or(std::ptr::null_mut(), std::ptr::from_mut);
        loop {
            // SAFETY: the kernel writes at most as many bytes as the slice has, and one u32 or none,
            // and reads a timespec or none.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_mq_timedreceive,
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr(),
                    buffer.len(),
                    priority,
                    patience.deadline(),
                )
            };
            if let Ok(len) = usize::try_from(done) {
                return Ok(Some(len));
            }
            if !is_interrupted()? {
                return Ok(None);
            }
        }
    }
}

/// A deadline that has always passed: ETIMEDOUT at once instead of sleeping, whatever O_NONBLOCK
/// says. That flag belongs to all who hold the description, this to one call.
static LONG_AGO: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

impl Patience {
    fn deadline(self) -> *const libc::timespec {
        match self {
            Self::None => &raw const LONG_AGO,
            Self::Endless => std::ptr::null(),
        }
    }
}

/// Why a call failed: `true` for a signal, `false` for "not now". EAGAIN comes where some holder of
/// the description has set O_NONBLOCK.
#[cold]
fn is_interrupted() -> io::Result<bool> {
    let error = io::Error::last_os_error();
    match Errno::from_io_error(&error) {
        Some(Errno::INTR) => Ok(true),
        Some(Errno::TIMEDOUT | Errno::AGAIN) => Ok(false),
        _ => Err(error),
    }
}

/// Enough for 16 KiB of buffers in a program that is not optimised, with room for what thread-local
/// data takes from a stack. What is not touched costs nothing.
const STACK: usize = 256 << 10;

/// Starts a thread that receives no signals, so that those of the host go where it expects them.
pub(crate) fn spawn_deaf(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set that it is given room for.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` is initialised and `before` has room for the old mask of this thread, which
    // the new thread inherits meanwhile.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(body);
    // SAFETY: the first call succeeded, so it has initialised `before`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    spawned.map(drop)
}

/// Gives the calling thread a table of descriptors of its own with nothing in it but this one, of
/// which it returns the owner there; in the table that it leaves nothing changes. Where that cannot
/// be had (ENOSYS before Linux 5.9, EPERM in a sandbox) the thread stays, and owns a duplicate.
///
/// The copies that are closed are closed by this process, which a queue takes for the end of what
/// `mq_notify(3)` has registered in it.
pub(crate) fn own_table(number: RawFd) -> io::Result<OwnedFd> {
    let first = libc::c_uint::try_from(number).map_err(|_| Errno::BADF)?;
    // What lies above is not even copied (`close_range(2)`).
    // SAFETY: integers only, and what is closed is in a table of which nobody else knows.
    let parted = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first + 1,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE,
        )
    };
    if parted != 0 {
        // SAFETY: the caller's, and open for the time of this call.
        let number = unsafe { BorrowedFd::borrow_raw(number) };
        return Ok(rustix::io::fcntl_dupfd_cloexec(
            number,
            libc::STDERR_FILENO + 1,
        )?);
    }
    if let Some(last) = first.checked_sub(1) {
        // SAFETY: as above, in the thread's own table.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, 0, last, 0) };
        if closed != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: open, and in this table nobody else knows of it.
    let kept = unsafe { OwnedFd::from_raw_fd(number) };
    // Nothing of value becomes a standard stream, where a panic would write.
    while rustix::io::dup(&kept)?.into_raw_fd() < libc::STDERR_FILENO {}
    Ok(kept)
}

fn random() -> Result<[u8; 16], OpenError> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| OpenError::io("getrandom", error))?;
    Ok(bytes)
}

impl Access {
    fn open_options(self) -> OpenOptions {
        match self {
            Self::Send => OpenOptions::writeonly(),
            Self::Receive => OpenOptions::readonly(),
            Self::Both => OpenOptions::readwrite(),
        }
    }

    fn flags(self) -> OFlags {
        match self {
            Self::Send => OFlags::WRONLY,
            Self::Receive => OFlags::RDONLY,
            Self::Both => OFlags::RDWR,
        }
    }
}

impl AsFd for Mqd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self.0` is, which the borrow keeps alive.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl From<Mqd> for OwnedFd {
    fn from(mqd: Mqd) -> Self {
        // SAFETY: `into_raw_fd` gives the descriptor away open and forgets it.
        unsafe { Self::from_raw_fd(mqd.0.into_raw_fd()) }
    }
}

//! Every system call that `rustix` does not have: the signals, and credentials whose process may
//! be 0, which its types cannot hold.
#![expect(
    unsafe_code,
    reason = "signal masks, queued signals and their waiting have no safe API"
)]

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use rustix::io::Errno;

use crate::word::Siginfo;

/// The real-time signals that the C library leaves to programs.
pub(crate) fn range() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

fn errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Queues a signal to the process or thread behind a pidfd: EAGAIN at the limit, ESRCH when it is
/// gone (`pidfd_send_signal(2)`).
#[inline]
pub(crate) fn queue(pidfd: BorrowedFd<'_>, info: &Siginfo) -> Result<(), Errno> {
    let (fd, signo) = (pidfd.as_raw_fd(), info.signo);
    // SAFETY: `info` points to as many initialised bytes as a siginfo_t has; the kernel reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signo,
            ptr::from_ref(info),
            0,
        )
    };
    if done == 0 { Ok(()) } else { Err(errno()) }
}

/// A wait for signals of one number.
#[derive(Clone, Copy)]
pub(crate) struct Only {
    signo: i32,
    set: libc::sigset_t,
}

impl Only {
    pub(crate) fn new(signo: i32) -> Self {
        Self {
            signo,
            set: only(signo),
        }
    }

    /// Takes one pending signal, which the calling thread must have blocked, waiting at most this
    /// long, or for ever: `None` when none came, or another one interrupted the wait.
    #[inline]
    pub(crate) fn take(&self, timeout: Option<Duration>) -> Result<Option<Siginfo>, Errno> {
        let timeout = timeout.map(timespec);
        let limit = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut info = MaybeUninit::<Siginfo>::uninit();
        let place = info.as_mut_ptr().cast::<libc::siginfo_t>();
        // SAFETY: `place` has the size and alignment of a siginfo_t (asserted in `word`); the other
        // two outlive the call.
        let taken = unsafe { libc::sigtimedwait(&raw const self.set, place, limit) };
        match taken {
            // SAFETY: the kernel has filled in all of a siginfo_t, and any bytes are a valid `Siginfo`.
            taken if taken == self.signo => Ok(Some(unsafe { info.assume_init() })),
            _ => match errno() {
                Errno::AGAIN | Errno::INTR => Ok(None),
                error => Err(error),
            },
        }
    }
}

impl fmt::Debug for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Only").field(&self.signo).finish()
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// A timer that sends this process a signal, marked SI_TIMER, at every period. The kernel holds
/// the one signal ready from the start, so the limit of the queue cannot swallow it, and does not
/// count on before it is taken (`timer_create(2)`).
#[derive(Debug)]
pub(crate) struct Ticker(libc::timer_t);

// SAFETY: the handle is a number of the process, good in every thread of it.
unsafe impl Send for Ticker {}

impl Ticker {
    pub(crate) fn start(signo: i32, period: Duration) -> Result<Self, Errno> {
        // SAFETY: zeros are a valid sigevent.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signo;
        let mut timer = ptr::null_mut();
        // SAFETY: both point to valid places for the call.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if made != 0 {
            return Err(errno());
        }
        let ticker = Self(timer);
        let every = timespec(period);
        let times = libc::itimerspec {
            it_interval: every,
            it_value: every,
        };
        // SAFETY: a timer of ours, and a valid setting; the old one is not asked for.
        let set = unsafe { libc::timer_settime(timer, 0, &raw const times, ptr::null_mut()) };
        if set == 0 { Ok(ticker) } else { Err(errno()) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // SAFETY: made by timer_create and deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// A descriptor of the calling thread, by which signals reach it alone: Linux 6.9, EINVAL before.
pub(crate) fn this_thread() -> Result<OwnedFd, Errno> {
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    // SAFETY: two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, libc::PIDFD_THREAD) };
    if fd < 0 {
        return Err(errno());
    }
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Wakes a thread of this process that waits in [`Only::take`]. Unlike [`queue`] it cannot meet the
/// limit: at the limit the siginfo is lost, the signal is not.
pub(crate) fn nudge(thread: BorrowedFd<'_>, signo: i32) {
    let info = ptr::null::<Siginfo>();
    // SAFETY: without a siginfo the call takes integers only.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            thread.as_raw_fd(),
            signo,
            info,
            0,
        )
    };
}

/// The mask of a thread as it was, put back when dropped.
pub(crate) struct AllBlocked {
    before: libc::sigset_t,
}

/// Blocks every signal in the calling thread, so that a thread started meanwhile is born so.
pub(crate) fn block_all() -> AllBlocked {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set that it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: initialised by the line above.
    let all = unsafe { all.assume_init() };
    AllBlocked {
        before: change(libc::SIG_SETMASK, &all),
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        change(libc::SIG_SETMASK, &self.before);
    }
}

/// Blocks one signal in the calling thread.
pub(crate) fn block(signo: i32) {
    change(libc::SIG_BLOCK, &only(signo));
}

/// Installs the handler of last resort for a number of ours: a thread that has unblocked it puts
/// the signal back into the queue and blocks it again. Without it the default action would end the
/// process (`signal(7)`).
pub(crate) fn guard(signo: i32) -> Result<(), Errno> {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = put_back;
    // SAFETY: zeros are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe and lives as long as the program.
    let done = unsafe { libc::sigaction(signo, &raw const action, ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(errno()) }
}

extern "C" fn put_back(signo: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: with SA_SIGINFO the kernel passes the context; its mask is in force on return.
    let mask = unsafe { &raw mut (*context).uc_sigmask };
    // SAFETY: a valid set, by the line above.
    unsafe { libc::sigaddset(mask, signo) };
    // SAFETY: takes no argument.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the calling thread's own errno, which the interrupted code may be about to read.
    let errno = unsafe { &mut *errno };
    let before = *errno;
    // SAFETY: takes no argument.
    let own = unsafe { libc::getpid() };
    // SAFETY: `info` is the siginfo that the kernel passes to the handler.
    unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, own, signo, info) };
    *errno = before;
}

fn change(how: i32, set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = only(libc::SIGRTMIN());
    // SAFETY: both sets are valid for the call. It fails only for an unknown `how`.
    unsafe { libc::pthread_sigmask(how, ptr::from_ref(set), &raw mut before) };
    before
}

fn only(signo: i32) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the line above.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: a valid set; a number that is none changes nothing.
    unsafe { libc::sigaddset(&raw mut set, signo) };
    set
}

/// What one packet brought beside its bytes.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: usize,
    /// The first descriptor; others are closed.
    pub(crate) descriptor: Option<OwnedFd>,
    /// Who sent it, by the kernel's word; 0 for a process that ours cannot see.
    pub(crate) process: i32,
}

/// Receives one packet of a socket with SO_PASSCRED, if there is one: EAGAIN if not.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut place = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // Room for the credentials and one descriptor, as aligned as a cmsghdr; the kernel closes what
    // does not fit (unix(7)).
    let mut control = [0u64; 8];
    // SAFETY: a msghdr of zeros is one without name, data and control.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut place;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let bytes = loop {
        // SAFETY: the header points to a buffer and a control area that live through the call.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match usize::try_from(got) {
            Ok(bytes) => break bytes,
            Err(_) if errno() == Errno::INTR => {}
            Err(_) => return Err(errno()),
        }
    };
    let mut received = Received {
        bytes,
        descriptor: None,
        process: 0,
    };
    // SAFETY: the header is as recvmsg left it, so the macros find whole messages in `control`.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give a pointer into `control` or null.
        let head = unsafe { message.read_unaligned() };
        // SAFETY: as above; the data stand behind the head.
        let data = unsafe { libc::CMSG_DATA(message) };
        match (head.cmsg_level, head.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                // SAFETY: the kernel writes a whole ucred.
                received.process = unsafe { data.cast::<libc::ucred>().read_unaligned() }.pid;
            }
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                let length = data as usize - message as usize;
                let count = (head.cmsg_len as usize).saturating_sub(length) / size_of::<i32>();
                for index in 0..count {
                    let place = data.cast::<i32>().wrapping_add(index);
                    // SAFETY: `cmsg_len` counts so many descriptors.
                    let fd = unsafe { place.read_unaligned() };
                    // SAFETY: the kernel has just given this descriptor to us alone.
                    let descriptor = unsafe { OwnedFd::from_raw_fd(fd) };
                    received.descriptor.get_or_insert(descriptor);
                }
            }
            _ => {}
        }
        // SAFETY: `message` came from these macros and this header.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(received)
}

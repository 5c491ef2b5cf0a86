#![expect(
    unsafe_code,
    reason = "system calls that neither rustix nor the standard library has"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;

use posixmq::PosixMq;

/// A second descriptor of a queue, to travel to another process.
pub(crate) fn queue_descriptor(queue: &PosixMq) -> io::Result<OwnedFd> {
    // SAFETY: the queue keeps its descriptor open for as long as it is borrowed here.
    let fd = unsafe { BorrowedFd::borrow_raw(queue.as_raw_fd()) };
    fd.try_clone_to_owned()
}

/// A queue from a descriptor that travelled.
pub(crate) fn adopt_queue(fd: OwnedFd) -> PosixMq {
    // SAFETY: the descriptor is owned, and ownership passes to the queue.
    unsafe { PosixMq::from_raw_fd(fd.into_raw_fd()) }
}

/// `mq_send(3)` at priority 0.
#[inline]
pub(crate) fn mq_send(queue: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length are those of a live slice, which the kernel only reads.
    let sent =
        unsafe { libc::mq_send(queue.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `mq_receive(3)`; the buffer must have the queue's message size.
#[inline]
pub(crate) fn mq_receive(queue: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a live, exclusively borrowed slice.
    let received = unsafe {
        libc::mq_receive(
            queue.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            ptr::null_mut(),
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// The signal of the signal floor: the second real-time one, out of the way of the first.
pub(crate) fn floor_signal() -> i32 {
    libc::SIGRTMIN() + 1
}

/// Blocks the floor's signal in the calling thread, as `sigwaitinfo(2)` demands.
pub(crate) fn block_floor_signal() -> io::Result<()> {
    let set = floor_set();
    // SAFETY: the set is initialised; the old mask is not asked for.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(failed))
    }
}

fn floor_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises what it is given, and cannot fail for a valid pointer.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the call above.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: the set is initialised and the signal number is a valid one.
    unsafe { libc::sigaddset(&raw mut set, floor_signal()) };
    set
}

/// The set that [`WordWaiter`] waits for, built once.
pub(crate) struct WordWaiter(libc::sigset_t);

impl WordWaiter {
    pub(crate) fn new() -> Self {
        Self(floor_set())
    }

    /// `sigwaitinfo(2)`: sleeps until a word arrives.
    #[inline]
    pub(crate) fn wait(&self) -> io::Result<u64> {
        let mut info = MaybeUninit::uninit();
        // SAFETY: the set is initialised and `info` has room for a siginfo_t.
        let signal = unsafe { libc::sigwaitinfo(&raw const self.0, info.as_mut_ptr()) };
        Self::word(signal, &info)
    }

    /// `sigtimedwait(2)` without time: EAGAIN when no word is there.
    #[inline]
    pub(crate) fn look(&self) -> io::Result<u64> {
        let mut info = MaybeUninit::uninit();
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the set and the time are initialised and `info` has room for a siginfo_t.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, info.as_mut_ptr(), &raw const now) };
        Self::word(signal, &info)
    }

    #[inline]
    fn word(signal: i32, info: &MaybeUninit<libc::siginfo_t>) -> io::Result<u64> {
        if signal < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel filled it in, since the call gave a signal number.
        let info = unsafe { info.assume_init_ref() };
        // SAFETY: the only senders of this signal use sigqueue, whose siginfo has a value.
        let value = unsafe { info.si_value() };
        Ok(value.sival_ptr.addr() as u64)
    }
}

/// Signals with one word each, to one process: `rt_sigqueueinfo(2)`. glibc's `sigqueue(3)` asks for
/// the sender's pid and uid at each call, which a floor must not pay for.
#[derive(Debug)]
pub(crate) struct WordSender {
    to: libc::pid_t,
    info: SigInfo,
}

/// The part of `siginfo_t` that a queued signal has, as 64-bit Linux lays it out, and room for the
/// rest.
#[derive(Debug)]
#[repr(C)]
struct SigInfo {
    signo: i32,
    errno: i32,
    code: i32,
    gap: i32,
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<SigInfo>() == size_of::<libc::siginfo_t>());

impl WordSender {
    pub(crate) fn new(to: libc::pid_t) -> Self {
        let info = SigInfo {
            signo: floor_signal(),
            errno: 0,
            code: libc::SI_QUEUE,
            gap: 0,
            pid: std::process::id().cast_signed(),
            uid: rustix::process::getuid().as_raw(),
            value: 0,
            rest: [0; 12],
        };
        Self { to, info }
    }

    #[inline]
    pub(crate) fn send(&mut self, word: u64) -> io::Result<()> {
        self.info.value = word;
        let info = ptr::from_ref(&self.info);
        // SAFETY: `info` points to as many initialised bytes as a siginfo_t has; the kernel reads
        // them.
        let sent =
            unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, self.to, self.info.signo, info) };
        if sent == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// Processor time of the children that this process has waited for (`getrusage(2)`).
pub(crate) fn waited_for_cpu_ns() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to room for the structure. It fails for a bad pointer or target only.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    // SAFETY: filled in above, and zeroes are a valid value too.
    let usage = unsafe { usage.assume_init() };
    [usage.ru_utime, usage.ru_stime]
        .map(|time| time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1000)
        .into_iter()
        .sum()
}

#![expect(unsafe_code, reason = "sigaction and tgkill have no safe wrapper")]
//! Signals that interrupt whatever a thread waits in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::procfs::pause;

static CAUGHT: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    // Relaxed: a statistic, read after the storm's thread was joined.
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

/// Interrupts the thread that made it every fifth of a millisecond, until dropped.
#[derive(Debug)]
pub struct Storm {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    /// Installs a handler of SIGUSR1 without SA_RESTART, which stays: use it in a process of its own.
    ///
    /// # Panics
    /// When the kernel refuses the handler.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a storm is no value")]
    pub fn new() -> Self {
        // SAFETY: all zeros is a valid sigaction: no flags, so no SA_RESTART, and an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler only adds to an atomic, which is safe in a signal handler.
        let installed =
            unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
        assert_eq!(installed, 0, "sigaction");
        let process = std::process::id();
        let target = rustix::thread::gettid().as_raw_nonzero().get();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            block_all();
            while !ended.load(Ordering::Relaxed) {
                // SAFETY: tgkill takes numbers only; the thread outlives the storm it made.
                unsafe { libc::syscall(libc::SYS_tgkill, process, target, libc::SIGUSR1) };
                pause(Duration::from_micros(200));
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }

    /// How many signals this process has caught.
    #[must_use]
    pub fn caught() -> u64 {
        CAUGHT.load(Ordering::Relaxed)
    }
}

/// The storm's own thread takes no signals, those of channels neither.
fn block_all() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is filled in; the mask is this thread's own.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: a set that was filled in, and nowhere to put the old one.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! Whom a sender sends its signals to: a process or thread that has announced itself.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::{fs, io};

use rustix::io::Errno;

use crate::sys;
use crate::threads;
use crate::word::{Siginfo, Word};

/// The receiver as it announced itself.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) pidfd: OwnedFd,
    pub(crate) number: i32,
    pub(crate) nonce: u64,
    /// What every signal says, with pid and uid as the kernel would write them for `sigqueue(3)`.
    info: Siginfo,
}

impl Target {
    pub(crate) fn new(pidfd: OwnedFd, number: i32, nonce: u64) -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let uid = rustix::process::getuid().as_raw();
        Self {
            pidfd,
            number,
            nonce,
            info: Siginfo::new(number, nonce, pid, uid),
        }
    }

    /// Believes an announcement of this process only if the pidfd is its own or that of a thread
    /// of it, so that whom our signals may harm is the announcer alone: a hostile receiver could
    /// otherwise name a stranger, whom our first signal would kill. `None` says that it does not
    /// deserve belief.
    ///
    /// The mask of the thread would prove less: while it waits in `sigtimedwait(2)` its
    /// `SigBlk` shows the signal unblocked.
    pub(crate) fn announced(
        pidfd: OwnedFd,
        process: i32,
        number: i32,
        nonce: u64,
    ) -> io::Result<Option<Self>> {
        let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", pidfd.as_raw_fd()))?;
        let thread = info
            .lines()
            .find_map(|line| line.strip_prefix("Pid:"))
            .and_then(|pid| pid.trim().parse::<i32>().ok());
        let own = match thread {
            // Ended since, and whoever has its number now is not reached by the pidfd.
            Some(-1) => true,
            Some(thread) if thread > 0 && thread == process => true,
            Some(thread) if thread > 0 => {
                match threads::of(Path::new(&format!("/proc/{thread}/status"))) {
                    Ok(signals) => signals.process == process,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => true,
                    Err(error) => return Err(error),
                }
            }
            _ => false,
        };
        let sound = own && sys::range().contains(&number);
        Ok(sound.then(|| Self::new(pidfd, number, nonce)))
    }

    /// Queues one signal: EAGAIN at the limit of the queue, ESRCH when nobody is there.
    #[inline]
    pub(crate) fn send(&mut self, word: Word) -> Result<(), Errno> {
        self.info.put(word);
        sys::queue(self.pidfd.as_fd(), &self.info)
    }
}

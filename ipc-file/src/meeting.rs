//! The page of a named log: the writer's lock and the futex on which followers sleep.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use ipc_core::{OpenError, Wait};
use rustix::io::Errno;
use rustix::thread::futex;

use crate::control::wakes;
use crate::directory::Directory;
use crate::sys::{Access, Fault, Map};

const LEN: u64 = 4096;
const SLEEPERS: usize = 0;
const NEWS: usize = 128;

/// How long a follower sleeps before it looks whether its writer still lives: nothing wakes it
/// when a lock is freed, and it is to learn of that within 100 ms.
const SLICE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Meeting {
    page: OwnedFd,
    map: Map,
}

impl Meeting {
    pub(crate) fn open(directory: &Directory, create: bool) -> Result<Self, OpenError> {
        let page = directory.control(create, LEN)?;
        let map = Map::new(page.as_fd(), LEN as usize, Access::Write)
            .map_err(|error| Fault::Io("mmap", error))?;
        Ok(Self { page, map })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.page.as_fd()
    }

    pub(crate) fn sleepers(&self) -> &AtomicU32 {
        self.map.flag(SLEEPERS)
    }

    fn news(&self) -> &AtomicU32 {
        self.map.flag(NEWS)
    }

    /// Wakes all followers that sleep; one load if none does.
    #[inline]
    pub(crate) fn wake(&self) {
        if wakes(self.sleepers()) {
            self.news().fetch_add(1, SeqCst);
            // Not private: the futex lies in a file that other processes map.
            let _ = futex::wake(self.news(), futex::Flags::empty(), i32::MAX as u32);
        }
    }

    /// What [`sleep`](Self::sleep) has to be given; taken before the last look at the log.
    pub(crate) fn ticket(&self) -> u32 {
        self.news().load(Relaxed)
    }

    /// Sleeps until the writer appends, for a slice of time at most.
    pub(crate) fn sleep(&self, ticket: u32, wait: Wait) -> Result<(), Errno> {
        let slice = wait.remaining().map_or(SLICE, |left| left.min(SLICE));
        let timeout = futex::Timespec {
            tv_sec: 0,
            tv_nsec: slice.subsec_nanos().into(),
        };
        match futex::wait(self.news(), futex::Flags::empty(), ticket, Some(&timeout)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

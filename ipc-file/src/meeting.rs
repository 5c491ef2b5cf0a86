//! Where the writer of a log and its followers meet: who sleeps, news, and the writer's life.
//!
//! A follower that is about to sleep says so by pwrite(2) in the control page. The writer, which
//! has the page mapped, looks there after each record, and touches the page's times if somebody
//! sleeps: inotify(7) reports that to every follower. The writer holds the writing end of a FIFO,
//! so its death is a hang-up there. No follower maps anything, so nothing can fault under it.

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

use ipc_core::wait::{Interest, poll};
use ipc_core::{Custody, Limit, OpenError, Wait};
use rustix::event::epoll;
use rustix::fs::{Timestamps, UTIME_NOW, inotify};
use rustix::io::Errno;

use crate::control::wakes;
use crate::directory::{self, Directory};
use crate::fault::Fault;
use crate::sys::{self, Access, Map};

const LEN: u64 = 4096;
const SLEEPERS: usize = 0;

/// The writer's side.
#[derive(Debug)]
pub(crate) struct Host {
    page: OwnedFd,
    map: Map,
    /// Its lock keeps other writers away, its end is what followers learn of.
    life: OwnedFd,
    custody: Custody,
}

impl Host {
    /// Becomes the one writer.
    pub(crate) fn new(directory: &Directory) -> Result<Self, OpenError> {
        let life = directory.life(true)?;
        directory::lock(life.as_fd())?;
        let page = directory.control(true, LEN)?;
        let map = Map::new(page.as_fd(), LEN as usize, Access::Write).map_err(Fault::map)?;
        Ok(Self {
            page,
            map,
            life,
            custody: Custody::new(),
        })
    }

    /// Whether this process is the writer, rather than a child that was forked off it.
    pub(crate) fn is_ours(&self) -> bool {
        self.custody.is_ours()
    }

    /// Wakes all followers that sleep; one load if none does.
    #[inline]
    pub(crate) fn wake(&self) {
        if wakes(self.map.flag(SLEEPERS)) {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        ring(self.page.as_fd());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Of the open file description, so a forked child's copy would free it for the parent.
        if self.is_ours() {
            directory::unlock(self.life.as_fd());
        }
    }
}

/// Setting both times is what inotify(7) calls IN_ATTRIB; a write of a follower is not.
fn ring(page: BorrowedFd<'_>) {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    let _ = rustix::fs::futimens(page, &times);
}

/// A follower's side.
#[derive(Debug)]
pub(crate) struct Guest {
    page: OwnedFd,
    life: OwnedFd,
    watch: OnceCell<Watch>,
}

/// One descriptor for news and for the writer's death. Made when first needed: a user has 128
/// inotify instances by default.
#[derive(Debug)]
struct Watch {
    news: OwnedFd,
    both: OwnedFd,
}

impl Guest {
    pub(crate) fn new(directory: &Directory) -> Result<Self, OpenError> {
        Ok(Self {
            life: directory.life(false)?,
            page: directory.control(false, LEN)?,
            watch: OnceCell::new(),
        })
    }

    /// Whether a writer lives. A FIFO without one is at its end (fifo(7)).
    pub(crate) fn has_writer(&self) -> bool {
        loop {
            match rustix::io::read(&self.life, &mut [0u8; 64]) {
                Ok(0) => return false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Whether somebody may be sleeping on [`watch`](Self::watch).
    pub(crate) fn is_watched(&self) -> bool {
        self.watch.get().is_some()
    }

    /// The descriptor to sleep on, readable after an [`announce`](Self::announce)d follower was
    /// rung for, and when the writer has died.
    pub(crate) fn watch(&self) -> Result<BorrowedFd<'_>, Fault> {
        if self.watch.get().is_none() {
            let _ = self.watch.set(watch(&self.page, &self.life)?);
            // What came before the watch: let whoever sleeps on it first look for that.
            ring(self.page.as_fd());
        }
        Ok(self
            .watch
            .get()
            .map_or(self.life.as_fd(), |watch| watch.both.as_fd()))
    }

    /// Stands in for [`watch`](Self::watch) when there is no descriptor left for it: it tells of
    /// the writer's death only.
    pub(crate) fn life(&self) -> BorrowedFd<'_> {
        self.life.as_fd()
    }

    /// Says that this follower is about to sleep, and forgets past news. Who then still finds
    /// nothing may sleep: see [`announce`](crate::control::announce).
    pub(crate) fn announce(&self) -> Result<(), Fault> {
        if let Some(watch) = self.watch.get() {
            let mut events = [0u8; 1024];
            while rustix::io::read(&watch.news, &mut events).is_ok_and(|count| count > 0) {}
        }
        sys::write_at(self.page.as_fd(), &1u32.to_ne_bytes(), SLEEPERS as u64)?;
        fence(SeqCst);
        Ok(())
    }

    /// Sleeps until rung for, or until the writer has died, or the wait is over.
    pub(crate) fn sleep(&self, wait: Wait) -> Result<(), Fault> {
        poll([(self.watch()?, Interest::Read)], wait)
            .map(drop)
            .map_err(Fault::io("ppoll"))
    }
}

fn watch(page: &OwnedFd, life: &OwnedFd) -> Result<Watch, Fault> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let news = match inotify::init(flags) {
        Ok(news) => news,
        Err(Errno::MFILE) => {
            return Err(Fault::Limit(Limit {
                name: "fs.inotify.max_user_instances or RLIMIT_NOFILE",
                value: None,
                advice: "raise it, or receive without waiting",
            }));
        }
        Err(error) => return Err(Fault::Io("inotify_init1", error.into())),
    };
    let path = format!("/proc/thread-self/fd/{}", page.as_raw_fd());
    inotify::add_watch(&news, path, inotify::WatchFlags::ATTRIB)
        .map_err(Fault::io("inotify_add_watch"))?;
    let both = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Fault::io("epoll_create1"))?;
    let add = |fd: &OwnedFd, event| {
        epoll::add(&both, fd, epoll::EventData::new_u64(0), event).map_err(Fault::io("epoll_ctl"))
    };
    add(&news, epoll::EventFlags::IN)?;
    // EPOLLHUP needs not be asked for (epoll_ctl(2)).
    add(life, epoll::EventFlags::empty())?;
    Ok(Watch { news, both })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_log() {
        let scratch = ipc_conformance::Scratch::new();
        let open = || Directory::open_at(scratch.path(), true).and_then(|it| Host::new(&it));
        let host = open().expect("the one writer");
        let copy = host.life.try_clone().expect("a copy");
        assert!(matches!(open(), Err(OpenError::NameInUse)));
        drop(host);
        open().expect("the next writer");
        drop(copy);
    }
}

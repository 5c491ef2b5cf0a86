//! One descriptor for `poll(2)` where there are two things to watch.

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::lifeline::Lifeline;
use rustix::event::epoll;

use crate::sys::Mqd;

/// An `epoll(7)` instance over the queue and the lifeline, made when first asked for: a queue with
/// one more watcher costs its peer time at every message.
#[derive(Debug, Default)]
pub(crate) struct Watch(OnceCell<OwnedFd>);

impl Watch {
    /// The descriptor, readable when the queue has come to `event` or the peer is gone. If there
    /// is no descriptor left for it, the queue alone.
    pub(crate) fn fd<'a>(
        &'a self,
        mqd: &'a Mqd,
        lifeline: &Lifeline,
        event: epoll::EventFlags,
    ) -> BorrowedFd<'a> {
        if self.0.get().is_none()
            && let Ok(both) = watch(mqd, lifeline, event)
        {
            let _ = self.0.set(both);
        }
        self.0.get().map_or_else(|| mqd.as_fd(), AsFd::as_fd)
    }
}

fn watch(mqd: &Mqd, lifeline: &Lifeline, event: epoll::EventFlags) -> io::Result<OwnedFd> {
    let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&both, mqd, epoll::EventData::new_u64(0), event)?;
    epoll::add(
        &both,
        lifeline,
        epoll::EventData::new_u64(1),
        epoll::EventFlags::IN,
    )?;
    Ok(both)
}

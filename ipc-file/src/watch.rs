//! One descriptor for `poll(2)` where there are two things to watch.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use ipc_core::lifeline::Lifeline;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::control::announce;
use crate::sys;

/// An `epoll(7)` instance over a doorbell and the lifeline, made when first asked for.
///
/// Once it exists, an end that found nothing leaves with the bell silent and its flag set, so that
/// the peer rings it for the next news.
#[derive(Debug, Default)]
pub(crate) struct Watch(OnceCell<OwnedFd>);

impl Watch {
    /// The descriptor, readable when the end has something to do or the peer is gone. If there is
    /// no descriptor left for it, the bell alone.
    pub(crate) fn fd<'a>(
        &'a self,
        bell: &'a OwnedFd,
        sleeps: &AtomicU32,
        lifeline: &Lifeline,
    ) -> BorrowedFd<'a> {
        if self.0.get().is_none()
            && let Ok(both) = watch(bell, lifeline)
        {
            let _ = self.0.set(both);
            announce(sleeps);
            // What came before: let whoever sleeps on the descriptor first look for that.
            sys::ring(bell.as_fd());
        }
        self.0.get().map_or_else(|| bell.as_fd(), AsFd::as_fd)
    }

    /// Called by an end that found nothing: `true` says that it has to look once more, for what
    /// came before the bell was made ready to ring again.
    pub(crate) fn rearm(&self, bell: &OwnedFd, sleeps: &AtomicU32) -> bool {
        let watched = self.0.get().is_some();
        if watched {
            sys::quieten(bell.as_fd());
            announce(sleeps);
        }
        watched
    }
}

fn watch(bell: &OwnedFd, lifeline: &Lifeline) -> Result<OwnedFd, Errno> {
    let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let (first, second) = (epoll::EventData::new_u64(0), epoll::EventData::new_u64(1));
    epoll::add(&both, bell, first, epoll::EventFlags::IN)?;
    epoll::add(&both, lifeline, second, epoll::EventFlags::IN)?;
    Ok(both)
}

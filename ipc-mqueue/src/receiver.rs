use std::os::fd::{AsFd, BorrowedFd};

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Custody, Limits, Pollable, RecvError, Wait, WaitStrategy, Waiter};
use rustix::event::epoll;

use crate::flow::Flow;
use crate::inbox::{Asked, Inbox, Received};
use crate::queue::Access;
use crate::sentinel::{Bell, Guard};
use crate::sys::Patience;
use crate::watch::Watch;

/// The receiving end of a queue.
#[derive(Debug)]
pub struct Receiver {
    inbox: Inbox,
    lifeline: Lifeline,
    waiter: Waiter,
    flow: Flow,
    watch: Watch,
    /// Once the sender is gone no call needs to sleep: what is in the queue is all there is.
    gone: Option<Peer>,
    /// `None` until the first sleep inside the queue, `Some(None)` where there can be none.
    guard: Option<Option<Guard>>,
    custody: Custody,
}

impl Receiver {
    pub(crate) fn new(inbox: Inbox, lifeline: Lifeline, strategy: WaitStrategy) -> Self {
        Self {
            flow: Flow::new(inbox.limits().depth_messages.unwrap_or(1)),
            inbox,
            lifeline,
            waiter: Waiter::new(strategy),
            watch: Watch::default(),
            gone: None,
            guard: None,
            custody: Custody::new(),
        }
    }

    /// Receives the oldest of the waiting messages of the highest priority, and says which that
    /// is. A message that was kept for a larger buffer comes before all others.
    ///
    /// # Errors
    /// As [`ipc_core::Receiver::recv_with`].
    #[inline]
    pub fn recv_with_priority(
        &mut self,
        buffer: &mut [u8],
        wait: Wait,
    ) -> Result<Received, RecvError> {
        self.recv_asked(buffer, Asked::Priority, wait)
    }

    #[inline]
    fn recv_asked(
        &mut self,
        buffer: &mut [u8],
        asked: Asked,
        wait: Wait,
    ) -> Result<Received, RecvError> {
        if wait == Wait::Forever
            && self.waiter.strategy() == WaitStrategy::Block
            && let Some(received) = self.recv_blocking(buffer, asked)?
        {
            return Ok(received);
        }
        self.recv_looking(buffer, asked, wait)
    }

    /// One system call, which sleeps if need be, under the eyes of the sentinel; in the midst of a
    /// stream one more for each queue of messages, see [`Flow`].
    #[inline]
    fn recv_blocking(
        &mut self,
        buffer: &mut [u8],
        asked: Asked,
    ) -> Result<Option<Received>, RecvError> {
        let guard = self
            .guard
            .get_or_insert_with(|| guard(&self.inbox, &self.lifeline));
        // Once the sender has gone there is no more to come than is in the queue.
        let patience = match guard {
            Some(guard) if !guard.gone() => Patience::Endless,
            _ => Patience::None,
        };
        if patience == Patience::Endless && self.flow.is_due() {
            self.flow.turn_of_receiver(|| self.inbox.mqd().waiting());
        }
        self.fetch(buffer, asked, patience)
    }

    /// Without sleeping inside the queue.
    #[inline(never)]
    fn recv_looking(
        &mut self,
        buffer: &mut [u8],
        asked: Asked,
        wait: Wait,
    ) -> Result<Received, RecvError> {
        if let Some(received) = self.fetch(buffer, asked, Patience::None)? {
            return Ok(received);
        }
        let Self {
            inbox,
            waiter,
            guard,
            ..
        } = self;
        if self.gone.is_none()
            && let Some(received) = waiter.look(wait, || {
                inbox.fetch(&mut *buffer, asked, Patience::None, || rang(guard))
            })?
        {
            return Ok(received);
        }
        self.recv_slowly(buffer, asked, wait)
    }

    #[inline]
    fn fetch(
        &mut self,
        buffer: &mut [u8],
        asked: Asked,
        patience: Patience,
    ) -> Result<Option<Received>, RecvError> {
        let Self { inbox, guard, .. } = self;
        inbox.fetch(buffer, asked, patience, || rang(guard))
    }

    /// The queue is empty.
    #[cold]
    fn recv_slowly(
        &mut self,
        buffer: &mut [u8],
        asked: Asked,
        wait: Wait,
    ) -> Result<Received, RecvError> {
        let mut polled = Polled::Ready;
        loop {
            if self.gone.is_none() && wait != Wait::Never {
                let watched = [
                    (self.inbox.mqd().as_fd(), Interest::Read),
                    (self.lifeline.as_fd(), Interest::Read),
                ];
                polled = poll(watched, wait).map_err(|error| RecvError::io("ppoll", error))?;
                if let Some(received) = self.fetch(buffer, asked, Patience::None)? {
                    return Ok(received);
                }
            }
            if self.gone.is_none() {
                self.gone = Some(self.lifeline.peer()).filter(|peer| *peer != Peer::Alive);
            }
            // Once more after the look at the lifeline: the sender may have sent its last message
            // and gone between the attempt before and that look. After it nothing can come.
            if self.gone.is_some()
                && let Some(received) = self.fetch(buffer, asked, Patience::None)?
            {
                return Ok(received);
            }
            match self.gone {
                Some(Peer::Died) => return Err(RecvError::PeerDied),
                Some(_) => return Err(RecvError::Closed),
                None if wait == Wait::Never => return Err(RecvError::Empty),
                // The clock too: a hostile peer could keep the queue readable without a message.
                None if polled == Polled::TimedOut || wait.is_over() => {
                    return Err(RecvError::TimedOut);
                }
                None => {}
            }
        }
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub(crate) fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    /// Whether what is no message may be in the queue, or come yet, after this end has left it.
    pub(crate) fn is_suspect(&self) -> bool {
        self.inbox.is_suspect() || matches!(self.guard, Some(Some(_)))
    }

    pub(crate) fn strategy(&self) -> WaitStrategy {
        self.waiter.strategy()
    }

    pub(crate) fn release(&self) {
        self.custody.release();
    }
}

impl ipc_core::Receiver for Receiver {
    #[inline]
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        self.recv_asked(buffer, Asked::Message, wait)
            .map(|received| received.len)
    }

    fn limits(&self) -> Limits {
        self.inbox.limits()
    }
}

/// One descriptor for both the messages in the queue and the end of the sender.
impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch
            .fd(self.inbox.mqd(), &self.lifeline, epoll::EventFlags::IN)
    }
}

impl Pollable for Receiver {
    fn interest(&self) -> Interest {
        Interest::Read
    }

    fn arm(&mut self) -> bool {
        // A message that is kept here makes no descriptor readable.
        self.inbox.held().is_some()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take().flatten() {
            guard.dismiss();
        }
        if self.custody.is_ours() {
            self.lifeline.farewell();
        }
    }
}

/// Whether the sentinel has put into the queue what is no message.
#[inline]
fn rang(guard: &Option<Option<Guard>>) -> bool {
    matches!(guard, Some(Some(guard)) if guard.gone() && guard.rang())
}

/// The sentinel of a sleep for a message.
#[cold]
fn guard(inbox: &Inbox, lifeline: &Lifeline) -> Option<Guard> {
    let inlet = inbox.mqd().narrow(Access::Send).ok()?;
    inlet
        .allows(Access::Send)
        .then(|| Guard::watch(lifeline, inlet, Bell::Message))?
}

use std::os::fd::{AsFd, BorrowedFd};

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{
    Custody, Limit, Limits, OpenError, Pollable, SendError, Wait, WaitStrategy, Waiter,
};
use rustix::event::epoll;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::flow::Flow;
use crate::inbox;
use crate::queue::Access;
use crate::sentinel::{Bell, Guard, WAKE};
use crate::sys::{Mqd, Patience};
use crate::watch::Watch;

/// The highest priority of a message in a channel, the least being 0. Linux has one more
/// (`MQ_PRIO_MAX` is 32,768), which this crate keeps to itself.
pub const MAX_PRIORITY: u32 = 32_766;

/// The kernel's priority of messages that are sent with priority 0.
pub(crate) const BASE: u32 = WAKE + 1;

/// The sending end of a queue.
#[derive(Debug)]
pub struct Sender {
    mqd: Mqd,
    lifeline: Lifeline,
    limits: Limits,
    waiter: Waiter,
    flow: Flow,
    watch: Watch,
    /// Once the receiver is gone it stays gone, whatever room the queue has.
    gone: Option<Peer>,
    checked: Option<Timespec>,
    /// `None` until the first sleep inside the queue, `Some(None)` where there can be none.
    guard: Option<Option<Guard>>,
    custody: Custody,
}

/// A queue takes messages for a dead receiver as long as there is room. So the lifeline is looked
/// at once in a while also when nothing is amiss.
const CHECK_EVERY_NS: i64 = 20_000_000;

impl Sender {
    pub(crate) fn new(
        mqd: Mqd,
        lifeline: Lifeline,
        strategy: WaitStrategy,
    ) -> Result<Self, OpenError> {
        let limits = inbox::limits(&mqd)?;
        Ok(Self {
            mqd,
            lifeline,
            limits,
            waiter: Waiter::new(strategy),
            flow: Flow::new(limits.depth_messages.unwrap_or(1)),
            watch: Watch::default(),
            gone: None,
            checked: None,
            guard: None,
            custody: Custody::new(),
        })
    }

    /// Sends one message that overtakes all waiting ones of lower priority; see
    /// [`MAX_PRIORITY`]. [`send`](ipc_core::Sender::send) uses priority 0.
    ///
    /// # Errors
    /// As [`ipc_core::Sender::send_with`], and `Limit` for a priority that is too high.
    #[inline]
    pub fn send_with_priority(
        &mut self,
        message: &[u8],
        priority: u32,
        wait: Wait,
    ) -> Result<(), SendError> {
        check_message(message, priority, MAX_PRIORITY, self.limits)?;
        let priority = priority + BASE;
        if wait == Wait::Forever && self.waiter.strategy() == WaitStrategy::Block {
            return self.send_blocking(message, priority);
        }
        self.send_looking(message, priority, wait)
    }

    /// One system call, which sleeps if need be, under the eyes of the sentinel; in the midst of a
    /// stream one more for each queue of messages, see [`Flow`].
    #[inline]
    fn send_blocking(&mut self, message: &[u8], priority: u32) -> Result<(), SendError> {
        let guard = self
            .guard
            .get_or_insert_with(|| guard(&self.mqd, &self.lifeline));
        match guard {
            Some(guard) if !guard.gone() => {}
            watched => {
                if watched.is_some() {
                    self.check()?;
                }
                return self.send_looking(message, priority, Wait::Forever);
            }
        }
        if self.flow.is_due() {
            self.flow.turn_of_sender(|| self.mqd.waiting());
        }
        if !self.attempt(message, priority, Patience::Endless)? {
            // Somebody set O_NONBLOCK.
            return self.send_slowly(message, priority, Wait::Forever);
        }
        // Where the sentinel has made room the queue was full after the receiver had gone, so nobody
        // has received this message, or will. Otherwise the receiver may have, before it went.
        match &self.guard {
            Some(Some(guard)) if guard.gone() && guard.rang() => self.check(),
            _ => Ok(()),
        }
    }

    /// Without sleeping inside the queue.
    #[inline(never)]
    fn send_looking(&mut self, message: &[u8], priority: u32, wait: Wait) -> Result<(), SendError> {
        self.check_now_and_then()?;
        if self.attempt(message, priority, Patience::None)? || self.look(message, priority, wait)? {
            return Ok(());
        }
        self.send_slowly(message, priority, wait)
    }

    #[inline]
    fn attempt(
        &self,
        message: &[u8],
        priority: u32,
        patience: Patience,
    ) -> Result<bool, SendError> {
        self.mqd
            .send(message, priority, patience)
            .map_err(|error| SendError::io("mq_timedsend", error))
    }

    fn look(&mut self, message: &[u8], priority: u32, wait: Wait) -> Result<bool, SendError> {
        let Self { mqd, waiter, .. } = self;
        let sent = waiter.look(wait, || {
            mqd.send(message, priority, Patience::None)
                .map(|sent| sent.then_some(()))
        });
        sent.map(|sent| sent.is_some())
            .map_err(|error| SendError::io("mq_timedsend", error))
    }

    /// The queue is full.
    #[cold]
    fn send_slowly(&mut self, message: &[u8], priority: u32, wait: Wait) -> Result<(), SendError> {
        if wait == Wait::Never {
            return self.check().and(Err(SendError::Full));
        }
        loop {
            let watched = [
                (self.mqd.as_fd(), Interest::Write),
                (self.lifeline.as_fd(), Interest::Read),
            ];
            let polled = poll(watched, wait).map_err(|error| SendError::io("ppoll", error))?;
            if self.attempt(message, priority, Patience::None)? {
                return Ok(());
            }
            self.check()?;
            if polled == Polled::TimedOut || wait.is_over() {
                return Err(SendError::TimedOut);
            }
        }
    }

    #[inline]
    fn check_now_and_then(&mut self) -> Result<(), SendError> {
        // A few nanoseconds, by the vDSO, and some milliseconds coarse.
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let due = self.checked.is_none_or(|last| {
            (now.tv_sec - last.tv_sec) * 1_000_000_000 + (now.tv_nsec - last.tv_nsec)
                >= CHECK_EVERY_NS
        });
        if due || self.gone.is_some() {
            self.checked = Some(now);
            return self.check();
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), SendError> {
        match *self.gone.get_or_insert_with(|| self.lifeline.peer()) {
            Peer::Alive => {
                self.gone = None;
                Ok(())
            }
            Peer::Closed => Err(SendError::Closed),
            Peer::Died => Err(SendError::PeerDied),
        }
    }

    pub(crate) fn mqd(&self) -> &Mqd {
        &self.mqd
    }

    pub(crate) fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    pub(crate) fn strategy(&self) -> WaitStrategy {
        self.waiter.strategy()
    }

    pub(crate) fn release(&self) {
        self.custody.release();
    }
}

impl ipc_core::Sender for Sender {
    #[inline]
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        self.send_with_priority(message, 0, wait)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// One descriptor for both the room in the queue and the end of the receiver.
impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch
            .fd(&self.mqd, &self.lifeline, epoll::EventFlags::OUT)
    }
}

impl Pollable for Sender {
    fn interest(&self) -> Interest {
        // Of the `epoll(7)` instance, which is readable when one of its two has come to something.
        Interest::Read
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take().flatten() {
            guard.dismiss();
        }
        if self.custody.is_ours() {
            self.lifeline.farewell();
        }
    }
}

/// The sentinel of a sleep for room.
#[cold]
fn guard(mqd: &Mqd, lifeline: &Lifeline) -> Option<Guard> {
    let outlet = mqd.narrow(Access::Receive).ok()?;
    if !outlet.allows(Access::Receive) {
        return None;
    }
    let space = vec![0; outlet.attributes().ok()?.max_msg_len].into_boxed_slice();
    Guard::watch(lifeline, outlet, Bell::Room(space))
}

pub(crate) fn check_message(
    message: &[u8],
    priority: u32,
    max_priority: u32,
    limits: Limits,
) -> Result<(), SendError> {
    if message.len() > limits.max_message {
        return Err(SendError::TooLong {
            len: message.len(),
            max: limits.max_message,
        });
    }
    if priority > max_priority {
        return Err(SendError::Limit(Limit {
            name: "MQ_PRIO_MAX",
            value: Some(u64::from(max_priority) + 1),
            advice: "use a priority below it",
        }));
    }
    Ok(())
}

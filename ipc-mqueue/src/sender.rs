use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Limit, Limits, OpenError, Pollable, SendError, Wait, WaitStrategy, Waiter};
use rustix::event::epoll;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::inbox;
use crate::sys::{Mqd, Patience};
use crate::watch::Watch;

/// The highest priority, the least being 0: `MQ_PRIO_MAX` of Linux less one.
pub const MAX_PRIORITY: u32 = 32_767;

/// The sending end of a queue.
#[derive(Debug)]
pub struct Sender {
    mqd: Mqd,
    lifeline: Lifeline,
    limits: Limits,
    waiter: Waiter,
    watch: Watch,
    /// Once the receiver is gone it stays gone, whatever room the queue has.
    gone: Option<Peer>,
    checked: Option<Timespec>,
    released: Cell<bool>,
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
            watch: Watch::default(),
            gone: None,
            checked: None,
            released: Cell::new(false),
        })
    }

    /// Sends one message that overtakes all waiting ones of lower priority; see
    /// [`MAX_PRIORITY`]. [`send`](ipc_core::Sender::send) uses priority 0.
    ///
    /// # Errors
    /// As [`ipc_core::Sender::send_with`], and `Limit` for a priority that is too high.
    pub fn send_with_priority(
        &mut self,
        message: &[u8],
        priority: u32,
        wait: Wait,
    ) -> Result<(), SendError> {
        check_message(message, priority, self.limits)?;
        self.check_now_and_then()?;
        let sleeps_at_once = wait == Wait::Forever && self.waiter.strategy() == WaitStrategy::Block;
        let first = if sleeps_at_once {
            Patience::Slice
        } else {
            Patience::None
        };
        if self.attempt(message, priority, first)? || self.look(message, priority, wait)? {
            return Ok(());
        }
        self.send_slowly(message, priority, wait, sleeps_at_once)
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
    fn send_slowly(
        &mut self,
        message: &[u8],
        priority: u32,
        wait: Wait,
        mut slept: bool,
    ) -> Result<(), SendError> {
        loop {
            self.check()?;
            match wait {
                Wait::Never => return Err(SendError::Full),
                Wait::Forever if !slept => {
                    slept = true;
                    if self.attempt(message, priority, Patience::Slice)? {
                        return Ok(());
                    }
                    continue;
                }
                Wait::Forever | Wait::Until(_) => {}
            }
            let watched = [
                (self.mqd.as_fd(), Interest::Write),
                (self.lifeline.as_fd(), Interest::Read),
            ];
            let polled = poll(watched, wait).map_err(|error| SendError::io("ppoll", error))?;
            self.check()?;
            if self.attempt(message, priority, Patience::None)? {
                return Ok(());
            }
            if polled == Polled::TimedOut {
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
        self.released.set(true);
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
        if !self.released.get() {
            self.lifeline.farewell();
        }
    }
}

pub(crate) fn check_message(
    message: &[u8],
    priority: u32,
    limits: Limits,
) -> Result<(), SendError> {
    if message.len() > limits.max_message {
        return Err(SendError::TooLong {
            len: message.len(),
            max: limits.max_message,
        });
    }
    if priority > MAX_PRIORITY {
        return Err(SendError::Limit(Limit {
            name: "MQ_PRIO_MAX",
            value: Some(u64::from(MAX_PRIORITY) + 1),
            advice: "use a priority below it",
        }));
    }
    Ok(())
}

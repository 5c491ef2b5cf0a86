//! What both ends have beside the ring: the doorbells, the lifeline, and how they wait.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::{Wait, WaitStrategy};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::parking::{Sleeper, Waker, is_closed};
use crate::patience::Patience;
use crate::ring::Corrupt;
use crate::sys::{self, Mapping};

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Sender,
    Receiver,
}

/// How the peer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Closed,
    Died,
}

/// Why there is nothing.
#[derive(Debug)]
pub(crate) enum Stop {
    NotNow,
    TimedOut,
    Gone(Gone),
    Corrupt(&'static str),
    Io(&'static str, Errno),
}

impl From<Corrupt> for Stop {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(corrupt.0)
    }
}

/// A call that never sleeps asks the lifeline this often, in milliseconds: with the coarse clock's
/// tick of at most 10 ms, a death is known well within 100 ms.
const ASK_EVERY_MS: i64 = 20;

/// A ring, as far as waiting needs to know.
pub(crate) trait Mapped {
    /// Whether what the peer left is still worth having once it is gone: messages are, room is
    /// not.
    const OUTLIVES_PEER: bool;

    fn mapping(&self) -> &Mapping;

    /// Whether what stands in the memory can be true, before this end takes it for "nothing yet".
    fn check(&self) -> Result<(), Corrupt>;
}

#[derive(Debug)]
pub(crate) struct Link {
    role: Role,
    /// The memory, kept for a hand-off.
    pub(crate) memory: OwnedFd,
    /// I sleep on this one.
    pub(crate) my_bell: OwnedFd,
    pub(crate) peer_bell: OwnedFd,
    pub(crate) lifeline: Lifeline,
    patience: Patience,
    sleeper: Sleeper,
    waker: Waker,
    /// The peer's end, once known; it does not come back.
    gone: Option<Gone>,
    /// When the lifeline was asked last, in milliseconds of the coarse clock.
    asked: i64,
    cpu: u32,
    pub(crate) released: Cell<bool>,
}

impl Link {
    pub(crate) fn new(
        role: Role,
        mapping: &Mapping,
        memory: OwnedFd,
        [my_bell, peer_bell]: [OwnedFd; 2],
        lifeline: Lifeline,
        strategy: WaitStrategy,
    ) -> Self {
        let (mine, _) = mapping.statuses(role);
        Self {
            role,
            memory,
            my_bell,
            peer_bell,
            lifeline,
            patience: Patience::new(strategy),
            sleeper: Sleeper::attach(&mine.state),
            waker: Waker::default(),
            gone: None,
            asked: coarse_ms(),
            cpu: u32::MAX,
            released: Cell::new(false),
        }
    }

    pub(crate) fn strategy(&self) -> WaitStrategy {
        self.patience.strategy()
    }

    /// Rings if the peer sleeps. Call it after publishing a position.
    #[inline]
    pub(crate) fn wake_peer(&mut self, mapping: &Mapping) {
        let (_, peer) = mapping.statuses(self.role);
        if self.waker.must_ring(&peer.state) {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        sys::ring(&self.peer_bell);
    }

    /// Whether the peer is known to be gone already, or says so: one look at a cache line.
    #[inline]
    pub(crate) fn known_gone(&self, mapping: &Mapping) -> Option<Gone> {
        self.gone
            .or_else(|| self.peer_closed(mapping).then_some(Gone::Closed))
    }

    #[inline]
    fn peer_closed(&self, mapping: &Mapping) -> bool {
        is_closed(&mapping.statuses(self.role).1.state)
    }

    /// Whether the peer is known to be gone, asking the lifeline when the last time is a while
    /// ago.
    #[inline]
    pub(crate) fn peer_gone(&mut self, mapping: &Mapping) -> Option<Gone> {
        self.gone = self.known_gone(mapping);
        if self.gone.is_none() {
            let now = coarse_ms();
            if now - self.asked >= ASK_EVERY_MS {
                self.asked = now;
                self.ask_lifeline();
            }
        }
        self.gone
    }

    #[cold]
    fn ask_lifeline(&mut self) {
        self.gone = match self.lifeline.peer() {
            Peer::Alive => None,
            Peer::Closed => Some(Gone::Closed),
            Peer::Died => Some(Gone::Died),
        };
    }

    /// Repeats `attempt` until it gives something, the peer is gone or the wait is over. The
    /// caller has made one attempt before.
    #[cold]
    pub(crate) fn wait_for<R: Mapped, T>(
        &mut self,
        ring: &mut R,
        wait: Wait,
        mut attempt: impl FnMut(&mut R) -> Result<Option<T>, Corrupt>,
    ) -> Result<T, Stop> {
        if let Some(found) = self.patience.glance(wait, || attempt(ring))? {
            return Ok(found);
        }
        loop {
            if let Some(gone) = self.peer_gone(ring.mapping()) {
                // What it published before it went is visible now: once more, then the end.
                let left = if R::OUTLIVES_PEER {
                    attempt(ring)?
                } else {
                    None
                };
                return left.ok_or(Stop::Gone(gone));
            }
            ring.check()?;
            if wait == Wait::Never {
                return Err(Stop::NotNow);
            }
            if let Some(found) = self.look(ring, wait, &mut attempt)? {
                return Ok(found);
            }
            let role = self.role;
            let heard = self
                .sleeper
                .announce(&ring.mapping().statuses(role).0.state);
            let result = match attempt(ring) {
                Ok(None) if !self.peer_closed(ring.mapping()) => {
                    self.sleep(if heard { wait } else { shorter(wait) })
                }
                Ok(None) => Ok(Woken::Rung),
                Ok(Some(found)) => {
                    self.sleeper.retract(&ring.mapping().statuses(role).0.state);
                    return Ok(found);
                }
                Err(corrupt) => {
                    self.sleeper.retract(&ring.mapping().statuses(role).0.state);
                    return Err(corrupt.into());
                }
            };
            self.sleeper.retract(&ring.mapping().statuses(role).0.state);
            match result.map_err(|error| Stop::Io("ppoll", error))? {
                Woken::Rung => {}
                Woken::Lifeline => self.ask_lifeline(),
                Woken::TimedOut if wait.is_over() => {
                    return attempt(ring)?.ok_or(Stop::TimedOut);
                }
                Woken::TimedOut => {}
            }
            if let Some(found) = attempt(ring)? {
                return Ok(found);
            }
            if wait.is_over() && self.gone.is_none() {
                return Err(Stop::TimedOut);
            }
        }
    }

    /// Looks for a while without sleeping, where that can pay.
    fn look<R: Mapped, T>(
        &mut self,
        ring: &mut R,
        wait: Wait,
        attempt: &mut impl FnMut(&mut R) -> Result<Option<T>, Corrupt>,
    ) -> Result<Option<T>, Corrupt> {
        if !self.peer_runs_elsewhere(ring.mapping()) {
            return Ok(None);
        }
        let role = self.role;
        let found = self.patience.look(wait, || {
            if let Some(found) = attempt(ring)? {
                return Ok(Some(Some(found)));
            }
            // A peer that closed ends the look.
            Ok(is_closed(&ring.mapping().statuses(role).1.state).then_some(None))
        })?;
        Ok(found.flatten())
    }

    /// Publishes the processor that this end runs on, and says whether the peer last ran on
    /// another: looking for a peer that waits for this very processor keeps it from running.
    fn peer_runs_elsewhere(&mut self, mapping: &Mapping) -> bool {
        let (mine, peer) = mapping.statuses(self.role);
        let cpu = sys::current_cpu();
        if cpu != self.cpu {
            self.cpu = cpu;
            mine.cpu.store(cpu, std::sync::atomic::Ordering::Relaxed);
        }
        peer.cpu.load(std::sync::atomic::Ordering::Relaxed) != cpu
    }

    /// Sleeps until the bell rings, the lifeline stirs or the wait is over, again after each EINTR
    /// with the time that is left.
    fn sleep(&self, wait: Wait) -> Result<Woken, Errno> {
        let mut polled = [
            PollFd::new(&self.my_bell, PollFlags::IN),
            PollFd::from_borrowed_fd(self.lifeline.as_fd(), PollFlags::IN),
        ];
        loop {
            let timeout = wait.remaining().map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            match rustix::event::poll(&mut polled, timeout.as_ref()) {
                Ok(0) if wait.is_over() => return Ok(Woken::TimedOut),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error),
            }
        }
        if !polled[0].revents().is_empty() {
            sys::silence(&self.my_bell);
        }
        Ok(if polled[1].revents().is_empty() {
            Woken::Rung
        } else {
            Woken::Lifeline
        })
    }

    /// Closes this end in good order, unless it lives on elsewhere.
    pub(crate) fn close(&mut self, mapping: &Mapping) {
        if !self.released.get() {
            self.sleeper.close(&mapping.statuses(self.role).0.state);
            // Also wakes a peer that sleeps.
            self.lifeline.farewell();
        }
    }
}

/// How long an end sleeps that may not be rung for: a store leaves its processor within
/// microseconds, so a second look finds what the first one missed.
const SHORT: Duration = Duration::from_millis(10);

fn shorter(wait: Wait) -> Wait {
    match (wait, Wait::at_most(SHORT)) {
        (Wait::Until(deadline), Wait::Until(soon)) => Wait::Until(deadline.min(soon)),
        (_, soon) => soon,
    }
}

enum Woken {
    Rung,
    Lifeline,
    TimedOut,
}

/// Milliseconds of a clock that costs no more than two loads.
fn coarse_ms() -> i64 {
    let now = rustix::time::clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

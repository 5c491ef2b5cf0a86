//! What both ends have beside the ring: the doorbells, and how they wait.

use std::os::fd::OwnedFd;
use std::sync::atomic::fence;
use std::time::Duration;

use ipc_core::{Custody, Pacer, Wait, WaitStrategy, Waiter};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::doorbell::{Bell, Heard, Ringer};
use crate::layout::Status;
use crate::parking::{ASLEEP, CLOSED, Sleeper, Waker, is_closed};
use crate::ring::Corrupt;
use crate::sync::Ordering;
use crate::sys;

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

/// A call that never sleeps asks for the peer's life this often, in milliseconds: with the coarse
/// clock's tick of at most 10 ms, a death is known well within 100 ms.
const ASK_EVERY_MS: i64 = 20;

/// After so many looks at a clock that did not move, messages are said to flow.
const STILL: u8 = 4;

/// How long an end sleeps that may not be rung for: a store leaves its processor within
/// microseconds, so a second look finds what the first one missed.
const SHORT: Duration = Duration::from_millis(10);

/// The processor of an end that has not said where it runs.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// One end's side of the ring, as far as waiting needs to know.
pub(crate) trait Side {
    /// Whether what the peer left is still worth having once it is gone: messages are, room is
    /// not.
    const OUTLIVES_PEER: bool;

    /// What this end says of itself.
    fn mine(&self) -> &Status;

    /// What the peer says of itself.
    fn peer(&self) -> &Status;

    /// Whether what stands in the memory can be true, before this end takes it for "nothing yet".
    fn check(&self) -> Result<(), Corrupt>;
}

#[derive(Debug)]
pub(crate) struct Link {
    /// The memory, kept for a hand-off.
    pub(crate) memory: OwnedFd,
    /// I sleep on this one.
    pub(crate) bell: Bell,
    /// The peer sleeps on the other side of this one.
    pub(crate) ringer: Ringer,
    waiter: Waiter,
    pacer: Pacer,
    sleeper: Sleeper,
    waker: Waker,
    /// The peer's end, once known; it does not come back.
    gone: Option<Gone>,
    /// When the peer's life was asked for last, in milliseconds of the coarse clock.
    asked: i64,
    /// When that clock was looked at last.
    looked: i64,
    /// How many looks in a row found it where it was.
    still: u8,
    /// The processor that this end was last seen to run on.
    cpu: u32,
    pub(crate) custody: Custody,
}

impl Link {
    pub(crate) fn new(
        side: &impl Side,
        memory: OwnedFd,
        bell: Bell,
        ringer: Ringer,
        strategy: WaitStrategy,
    ) -> Self {
        let now = coarse_ms();
        Self {
            memory,
            bell,
            ringer,
            waiter: Waiter::new(strategy),
            pacer: Pacer::default(),
            sleeper: Sleeper::attach(&side.mine().state),
            waker: Waker::default(),
            gone: None,
            asked: now,
            looked: now,
            still: 0,
            cpu: NOWHERE,
            custody: Custody::new(),
        }
    }

    pub(crate) fn strategy(&self) -> WaitStrategy {
        self.waiter.strategy()
    }

    /// Rings if the peer sleeps. Call it after publishing a position.
    #[inline]
    pub(crate) fn wake_peer(&mut self, side: &impl Side) {
        if self.waker.must_ring(&side.peer().state) {
            self.ring(side);
        }
    }

    #[cold]
    fn ring(&mut self, side: &impl Side) {
        self.say_where(side);
        self.ringer.ring();
    }

    /// Whether the peer is known to be gone already, or says so.
    #[inline]
    fn known_gone(&self, side: &impl Side) -> Option<Gone> {
        self.gone
            .or_else(|| is_closed(&side.peer().state).then_some(Gone::Closed))
    }

    /// Whether the peer is known to be gone, asking the kernel when the last time is a while ago.
    #[inline]
    pub(crate) fn peer_gone(&mut self, side: &impl Side) -> Option<Gone> {
        self.gone = self.known_gone(side);
        if self.gone.is_none() {
            let now = coarse_ms();
            self.still = if now == self.looked {
                self.still.saturating_add(1)
            } else {
                0
            };
            self.looked = now;
            if now - self.asked >= ASK_EVERY_MS {
                self.asked = now;
                self.ask(side);
            }
        }
        self.gone
    }

    /// Whether messages flow, so that an end may ask for the peer's life less often: between its last
    /// looks at the clock there was no time to speak of, and the peer neither closed nor sleeps, as it
    /// does when this end is slow. One look at a cache line.
    #[inline]
    pub(crate) fn flows(&self, side: &impl Side) -> bool {
        let state = side.peer().state.load(Ordering::Relaxed);
        self.still >= STILL && self.gone.is_none() && state & (ASLEEP | CLOSED) == 0
    }

    #[cold]
    fn ask(&mut self, side: &impl Side) {
        if let Ok(Heard::HangUp) = self.bell.hear(Wait::Never) {
            self.hung_up(side);
        }
    }

    /// The peer is gone. If it closed, it said so before.
    fn hung_up(&mut self, side: &impl Side) {
        self.gone = self.known_gone(side).or(Some(Gone::Died));
    }

    /// Repeats `attempt` until it gives something, the peer is gone or the wait is over. The
    /// caller has made one attempt before.
    #[cold]
    pub(crate) fn wait_for<S: Side, T>(
        &mut self,
        side: &mut S,
        wait: Wait,
        mut attempt: impl FnMut(&mut S) -> Result<Option<T>, Corrupt>,
    ) -> Result<T, Stop> {
        loop {
            if let Some(found) = self.look(side, wait, &mut attempt)? {
                return Ok(found);
            }
            if let Some(gone) = self.peer_gone(side) {
                // What it published before it went is visible now: once more, then the end.
                let left = if S::OUTLIVES_PEER {
                    attempt(side)?
                } else {
                    None
                };
                return left.ok_or(Stop::Gone(gone));
            }
            side.check()?;
            if wait == Wait::Never {
                return Err(Stop::NotNow);
            }
            self.say_where(side);
            if let Some(found) = self.give_way(side, &mut attempt)? {
                return Ok(found);
            }
            let rung_for = self.sleeper.announce(&side.mine().state);
            let outcome = match attempt(side) {
                Ok(None) if !is_closed(&side.peer().state) => {
                    let heard = self.bell.hear(if rung_for { wait } else { shorter(wait) });
                    Ok(Err(heard))
                }
                Ok(None) => Ok(Err(Ok(Heard::Ring))),
                Ok(Some(found)) => Ok(Ok(found)),
                Err(corrupt) => Err(corrupt),
            };
            self.sleeper.retract(&side.mine().state);
            let heard = match outcome? {
                Ok(found) => return Ok(found),
                Err(heard) => heard.map_err(|error| Stop::Io("ppoll", error))?,
            };
            if heard == Heard::HangUp {
                self.hung_up(side);
            }
            if let Some(found) = attempt(side)? {
                return Ok(found);
            }
            if self.gone.is_none() && wait.is_over() {
                return Err(Stop::TimedOut);
            }
        }
    }

    /// Says that this end is about to sleep on its bell by other means than ours, as an event loop
    /// does. `true` says that `attempt` gave something meanwhile, or the peer is gone.
    pub(crate) fn arm<S: Side, T>(
        &mut self,
        side: &mut S,
        mut attempt: impl FnMut(&mut S) -> Result<Option<T>, Corrupt>,
    ) -> bool {
        // Silences the rings of the past; what they rang for is found below.
        self.ask(side);
        self.say_where(side);
        let rung_for = self.sleeper.announce(&side.mine().state);
        let mut ready = |side: &mut S| !matches!(attempt(side), Ok(None));
        if ready(side) || self.known_gone(side).is_some() {
            return true;
        }
        if rung_for {
            return false;
        }
        // Nobody puts a barrier into the peer: give its store the time to come out.
        let heard = self.bell.hear(Wait::at_most(SHORT));
        heard != Ok(Heard::Nothing) || ready(side)
    }

    /// Lets a peer run that waits for this very processor: if it does what this end waits for, neither
    /// has to sleep and to be woken.
    fn give_way<S: Side, T>(
        &mut self,
        side: &mut S,
        attempt: &mut impl FnMut(&mut S) -> Result<Option<T>, Corrupt>,
    ) -> Result<Option<T>, Corrupt> {
        let state = side.peer().state.load(Ordering::Relaxed);
        let sleeps_on = state & ASLEEP != 0 && state != self.waker.rung;
        if sleeps_on || !self.is_beside(side) {
            return Ok(None);
        }
        self.pacer.give_way();
        attempt(side)
    }

    /// Whether the peer was last seen on the processor that this end was last seen on.
    fn is_beside(&self, side: &impl Side) -> bool {
        let theirs = side.peer().cpu.load(Ordering::Relaxed);
        theirs == self.cpu && theirs != NOWHERE
    }

    /// Looks for a while without sleeping, where that can pay.
    fn look<S: Side, T>(
        &mut self,
        side: &mut S,
        wait: Wait,
        attempt: &mut impl FnMut(&mut S) -> Result<Option<T>, Corrupt>,
    ) -> Result<Option<T>, Corrupt> {
        // A peer that waits for this very processor does not get it while this end looks.
        if self.is_beside(side) {
            return Ok(None);
        }
        let found = self.waiter.look(wait, || {
            if let Some(found) = attempt(side)? {
                return Ok(Some(Some(found)));
            }
            // A peer that closed ends the look.
            Ok(is_closed(&side.peer().state).then_some(None))
        })?;
        Ok(found.flatten())
    }

    /// Publishes the processor that this end runs on.
    fn say_where(&mut self, side: &impl Side) {
        let cpu = sys::current_cpu();
        if cpu != self.cpu {
            self.cpu = cpu;
            side.mine().cpu.store(cpu, Ordering::Relaxed);
        }
    }

    /// Closes this end in good order, unless it lives on elsewhere; see [`Custody`]. A peer that sleeps is rung for:
    /// the doorbell's hang-up may not follow, because a process that was forked off meanwhile
    /// holds the descriptors too.
    pub(crate) fn close(&mut self, side: &impl Side) {
        if self.custody.is_ours() {
            self.sleeper.close(&side.mine().state);
            // Between saying and looking, as after publishing.
            fence(Ordering::SeqCst);
            self.wake_peer(side);
        }
    }
}

fn shorter(wait: Wait) -> Wait {
    match (wait, Wait::at_most(SHORT)) {
        (Wait::Until(deadline), Wait::Until(soon)) => Wait::Until(deadline.min(soon)),
        (_, soon) => soon,
    }
}

/// Milliseconds of a clock that costs no more than two loads.
fn coarse_ms() -> i64 {
    let now = rustix::time::clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

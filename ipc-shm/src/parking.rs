//! Who sleeps and who rings: the protocol that loses no wake-up and rings nobody who is awake.
//!
//! The sleeper sets its bit, then looks at the ring once more, then sleeps. The waker publishes
//! its position, then looks at the bit. Full barriers between the two steps of each make it
//! impossible that both look too early. The sleeper alone clears its bit: a waker that cleared it
//! after publishing could wipe out the announcement of the *next* sleep, and nobody would ring.

use crate::sync::{AtomicU32, Ordering};

pub(crate) const ASLEEP: u32 = 1;
pub(crate) const CLOSED: u32 = 2;
/// One more sleep, in the number above the bits.
const SLEEP: u32 = 4;

/// The side that writes a state.
#[derive(Debug)]
pub(crate) struct Sleeper {
    state: u32,
}

impl Sleeper {
    /// Goes on with the number of the last sleep, awake.
    pub(crate) fn attach(cell: &AtomicU32) -> Self {
        let state = cell.load(Ordering::Relaxed) & !(ASLEEP | CLOSED);
        cell.store(state, Ordering::Relaxed);
        Self { state }
    }

    /// Says that this side is about to sleep. Then look at the ring, and only then sleep. `false`
    /// says that the sleep must be short, because nobody may ring.
    #[must_use]
    pub(crate) fn announce(&mut self, cell: &AtomicU32) -> bool {
        self.state = self.state.wrapping_add(SLEEP) | ASLEEP;
        cell.store(self.state, Ordering::Relaxed);
        crate::sync::announced()
    }

    /// Says that this side is awake.
    pub(crate) fn retract(&mut self, cell: &AtomicU32) {
        self.state &= !ASLEEP;
        cell.store(self.state, Ordering::Relaxed);
    }

    /// Says that this side is closed, after everything that it has published.
    pub(crate) fn close(&mut self, cell: &AtomicU32) {
        self.state |= CLOSED;
        cell.store(self.state, Ordering::Release);
    }
}

/// The side that reads it.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    /// The state for which the bell was rung last.
    pub(crate) rung: u32,
}

impl Waker {
    /// Whether the bell must be rung, after `publish`. Once for each sleep: what is published
    /// while the sleeper wakes up costs no system call.
    #[inline]
    pub(crate) fn must_ring(&mut self, cell: &AtomicU32) -> bool {
        let state = cell.load(Ordering::Relaxed);
        if state & ASLEEP == 0 || state == self.rung {
            return false;
        }
        self.rung = state;
        true
    }
}

/// Whether the other side was closed; what it published before is then visible.
#[inline]
pub(crate) fn is_closed(cell: &AtomicU32) -> bool {
    cell.load(Ordering::Acquire) & CLOSED != 0
}

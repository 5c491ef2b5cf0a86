//! Which signal number a receiver uses: one that nobody else in its process does.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipc_core::wait::poll;
use ipc_core::{Limit, OpenError, Wait};

use crate::sys;
use crate::threads::{self, Others, bit};

/// Looks at the other threads until they have settled, and the pause between two.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_micros(200);

/// Numbers that a receiver of this process uses now.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Numbers that every thread of this process blocks on behalf of a receiver. They stay blocked for
/// good: a late signal of a sender that has not yet seen the end would kill the process otherwise.
static BLOCKED: AtomicU64 = AtomicU64::new(0);

/// A number of our own until it is dropped.
#[derive(Debug)]
pub(crate) struct Number(i32);

impl Number {
    /// Takes the number at this offset from SIGRTMIN, or the first that is free.
    pub(crate) fn take(offset: Option<u8>) -> Result<Self, OpenError> {
        let used = used()?;
        let range = sys::range();
        if let Some(offset) = offset {
            let number = range.start() + i32::from(offset);
            if !range.contains(&number) {
                return Err(OpenError::Invalid {
                    what: "no such signal; see SIGRTMIN + n",
                });
            }
            return claim(number, used).ok_or(OpenError::Limit(Limit {
                name: "Options::signal",
                value: Some(offset.into()),
                advice: "the signal is in use in this process; choose another number",
            }));
        }
        range
            .clone()
            .find_map(|number| claim(number, used))
            .ok_or(OpenError::Limit(Limit {
                name: "SIGRTMAX - SIGRTMIN",
                value: u64::try_from(range.end() - range.start() + 1).ok(),
                advice: "every real-time signal is in use in this process; close a receiver",
            }))
    }

    pub(crate) fn get(&self) -> i32 {
        self.0
    }

    /// Whether every thread of this process blocks it, now and from now on: the others are none,
    /// or are asleep with every signal blocked, as threads are that want to have nothing to do
    /// with signals; the calling one blocks it now; and whom they start inherits that.
    ///
    /// Should a thread unblock it all the same, a handler of ours blocks it again there.
    pub(crate) fn block_everywhere(&self) -> Result<bool, OpenError> {
        let bit = bit(self.0);
        // Relaxed: threads that see the bit late look for themselves; nothing else hangs on it.
        if BLOCKED.load(Ordering::Relaxed) & bit != 0 {
            // Usually it is already; a thread of the host may have emptied its mask since.
            sys::block(self.0);
            return Ok(true);
        }
        // Twice in a row, for a thread that the first look missed.
        let mut settled = 0;
        for _ in 0..LOOKS {
            let own = TAKEN.load(Ordering::Relaxed);
            match threads::others(own).map_err(|e| OpenError::io("read /proc/self/task", e))? {
                Others::Block => settled += 1,
                Others::Differ => return Ok(false),
                Others::Unsettled => {
                    settled = 0;
                    let _ = poll([], Wait::at_most(PAUSE));
                }
            }
            if settled == 2 {
                break;
            }
        }
        if settled < 2 {
            return Ok(false);
        }
        sys::guard(self.0).map_err(|e| OpenError::io("sigaction", e))?;
        sys::block(self.0);
        BLOCKED.fetch_or(bit, Ordering::Relaxed);
        Ok(true)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // Release: the next taker finds the signals of the former use drained.
        TAKEN.fetch_and(!bit(self.0), Ordering::Release);
    }
}

fn claim(number: i32, used: u64) -> Option<Number> {
    let bit = bit(number);
    let free = used & bit == 0 && TAKEN.fetch_or(bit, Ordering::Acquire) & bit == 0;
    // Made only if it is free: the drop of another would free the one in use.
    free.then(|| Number(number))
}

/// The numbers that the host catches, ignores or blocks for purposes of its own.
fn used() -> Result<u64, OpenError> {
    let all = sys::range().map(bit).fold(0, |all, bit| all | bit);
    let mut used = 0;
    for status in ["/proc/self/status", "/proc/thread-self/status"] {
        let signals = threads::of(Path::new(status)).map_err(|e| OpenError::io("read /proc", e))?;
        used |= signals.caught | signals.ignored;
        // A thread that blocks all of them has a purpose with none.
        if signals.blocked & all != all {
            used |= signals.blocked;
        }
    }
    Ok(used & !BLOCKED.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_once() {
        let first = Number::take(Some(20)).unwrap();
        // A refusal frees nothing.
        for _ in 0..2 {
            assert!(matches!(Number::take(Some(20)), Err(OpenError::Limit(_))));
        }
        let other = Number::take(None).unwrap();
        assert_ne!(first.get(), other.get());
        drop(first);
        Number::take(Some(20)).unwrap();
        assert!(matches!(
            Number::take(Some(200)),
            Err(OpenError::Invalid { .. })
        ));
    }
}

//! How long to look before sleeping.

use std::time::{Duration, Instant};

use ipc_core::{ADAPTIVE_LIMIT, SPIN_LIMIT, Wait, WaitStrategy};

/// Attempts without even a pause, in front of every wait: a few tenths of a microsecond, where the
/// answer of a peer that is running is mostly found.
const FIRST_ATTEMPTS: u32 = 200;

/// Looks at the clock (about 28 ns) at every so many attempts.
const ATTEMPTS_PER_CLOCK: u32 = 32;

/// After this many waits without a look, [`WaitStrategy::Adaptive`] tries once whether looking
/// pays again.
const PROBE_EVERY: u32 = 32;

/// One end's patience: its strategy and what looking has brought lately.
///
/// It differs from [`ipc_core::Waiter`] in two things. An attempt here costs nanoseconds, so the
/// first ones come without a pause. And the peers tell each other which processor they run on, so
/// a process that is bound to one processor may look all the same when its peer has another.
#[derive(Debug)]
pub(crate) struct Patience {
    strategy: WaitStrategy,
    /// Adaptive only: how long the next look may take, from zero to [`ADAPTIVE_LIMIT`].
    budget: Duration,
    /// Adaptive only: waits since the last look.
    skipped: u32,
}

impl Patience {
    pub(crate) fn new(strategy: WaitStrategy) -> Self {
        Self {
            strategy,
            budget: ADAPTIVE_LIMIT,
            skipped: 0,
        }
    }

    pub(crate) fn strategy(&self) -> WaitStrategy {
        self.strategy
    }

    /// The first attempts of a wait, before anything else is done that takes time.
    #[inline]
    pub(crate) fn glance<T, E>(
        &self,
        wait: Wait,
        mut attempt: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        if self.strategy != WaitStrategy::Block && wait != Wait::Never {
            for _ in 0..FIRST_ATTEMPTS {
                std::hint::spin_loop();
                if let Some(found) = attempt()? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Repeats `attempt` until it gives something or patience is at its end.
    pub(crate) fn look<T, E>(
        &mut self,
        wait: Wait,
        mut attempt: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let budget = self.budget(wait);
        if budget.is_zero() {
            return Ok(None);
        }
        let started = Instant::now();
        loop {
            for _ in 0..ATTEMPTS_PER_CLOCK {
                std::hint::spin_loop();
                if let Some(found) = attempt()? {
                    self.budget = ADAPTIVE_LIMIT;
                    return Ok(Some(found));
                }
            }
            if started.elapsed() >= budget {
                self.failed();
                return Ok(None);
            }
        }
    }

    fn budget(&mut self, wait: Wait) -> Duration {
        let budget = match self.strategy {
            WaitStrategy::Block => Duration::ZERO,
            WaitStrategy::Spin => SPIN_LIMIT,
            WaitStrategy::Adaptive if self.budget.is_zero() => {
                self.skipped += 1;
                if self.skipped < PROBE_EVERY {
                    return Duration::ZERO;
                }
                self.skipped = 0;
                ADAPTIVE_LIMIT
            }
            WaitStrategy::Adaptive => self.budget,
        };
        wait.remaining().map_or(budget, |left| budget.min(left))
    }

    /// Four failures in a row end the looking: 50, 25, 12, 6 us.
    fn failed(&mut self) {
        self.budget /= 2;
        if self.budget < ADAPTIVE_LIMIT / 8 {
            self.budget = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts that find nothing: how many were made before giving up.
    fn attempts(patience: &mut Patience, wait: Wait) -> u32 {
        let mut made = 0;
        let found: Result<Option<()>, ()> = patience.look(wait, || {
            made += 1;
            Ok(None)
        });
        assert_eq!(found, Ok(None));
        made
    }

    #[test]
    fn blocking_does_not_look() {
        assert_eq!(
            attempts(&mut Patience::new(WaitStrategy::Block), Wait::Forever),
            0
        );
    }

    #[test]
    fn looking_that_does_not_pay_ends_after_four_times_and_is_tried_again_later() {
        let mut patience = Patience::new(WaitStrategy::Adaptive);
        for _ in 0..4 {
            assert!(attempts(&mut patience, Wait::Forever) > 0);
        }
        for _ in 1..PROBE_EVERY {
            assert_eq!(attempts(&mut patience, Wait::Forever), 0);
        }
        assert!(attempts(&mut patience, Wait::Forever) > 0);
    }

    #[test]
    fn looking_ends_with_the_wait() {
        let started = Instant::now();
        attempts(&mut Patience::new(WaitStrategy::Spin), Wait::Until(started));
        assert!(started.elapsed() < SPIN_LIMIT);
    }

    #[test]
    fn looking_that_paid_is_given_its_full_time_again() {
        let mut patience = Patience::new(WaitStrategy::Adaptive);
        attempts(&mut patience, Wait::Forever);
        let mut left = 2;
        let found: Result<_, ()> = patience.look(Wait::Forever, || {
            left -= 1;
            Ok((left == 0).then_some(()))
        });
        assert_eq!(found, Ok(Some(())));
        assert_eq!(patience.budget, ADAPTIVE_LIMIT);
    }
}

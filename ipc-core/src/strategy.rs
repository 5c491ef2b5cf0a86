use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::Wait;

/// How an end waits for its peer.
///
/// A wake between two cores costs tens of microseconds on a virtual machine; a look at a cache
/// line costs a tenth of one, a polling system call about one. So it pays to look for a while
/// before sleeping, if the peer is about to answer, and it costs the peer its processor if not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitStrategy {
    /// Sleep in the kernel at once. The least processor time.
    Block,
    /// Look without sleeping for [`SPIN_LIMIT`], then sleep; on a machine with a single processor,
    /// sleep at once. The least latency while messages keep coming, at the price of a busy
    /// processor, and the worst choice for two processes bound to the same one.
    Spin,
    /// Look for as long as that has paid lately, at most [`ADAPTIVE_LIMIT`], then sleep.
    #[default]
    Adaptive,
}

/// How long [`WaitStrategy::Spin`] looks before it sleeps all the same: long enough that a peer
/// which is running answers within it, short enough that a peer which needs this processor gets it.
pub const SPIN_LIMIT: Duration = Duration::from_millis(2);

/// How long [`WaitStrategy::Adaptive`] looks at most: about the price of one wake.
pub const ADAPTIVE_LIMIT: Duration = Duration::from_micros(50);

/// After this many waits without a look, [`WaitStrategy::Adaptive`] tries once whether looking
/// pays again; after twice as many the next time, and so on to [`PROBE_SELDOM`].
const PROBE_FIRST: u32 = 32;
const PROBE_SELDOM: u32 = 1024;

/// Attempts between two looks at the clock (about 28 ns, and it waits for all that is under way):
/// at first, and at most. They become as many as take about [`BATCH_TIME`].
const BATCH_FIRST: u32 = 32;
const BATCH_MOST: u32 = 256;
const BATCH_TIME: Duration = Duration::from_micros(2);

/// The memory of one end's waiting: its strategy and what looking has brought lately.
#[derive(Clone, Debug)]
pub struct Waiter {
    strategy: WaitStrategy,
    /// Adaptive only: how long the next look may take, from zero to [`ADAPTIVE_LIMIT`].
    budget: Duration,
    /// Adaptive only: waits since the last look.
    skipped: u32,
    /// Adaptive only: how many of them there will be before the next.
    patience: u32,
    /// Attempts between two looks at the clock.
    batch: u32,
}

impl Waiter {
    /// A waiter that has learnt nothing yet.
    #[must_use]
    pub fn new(strategy: WaitStrategy) -> Self {
        // Here, because reading it allocates, which no message may.
        LazyLock::force(&SINGLE_PROCESSOR);
        Self {
            strategy,
            budget: ADAPTIVE_LIMIT,
            skipped: 0,
            patience: PROBE_FIRST,
            batch: BATCH_FIRST,
        }
    }

    /// The strategy it was made with.
    #[must_use]
    pub fn strategy(&self) -> WaitStrategy {
        self.strategy
    }

    /// Looks for something without sleeping, as long as the strategy and `wait` allow: calls
    /// `attempt` until it gives a value or the time is up. `None` says: now sleep.
    ///
    /// The caller has made one attempt of its own before. `attempt` should take well under
    /// [`ADAPTIVE_LIMIT`]; a pause instruction goes before it. No clock is read before the first
    /// few dozen attempts, so the answer of a peer that is running costs nothing but the attempts.
    ///
    /// # Errors
    /// The first error of `attempt`.
    #[inline]
    pub fn look<T, E>(
        &mut self,
        wait: Wait,
        mut attempt: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let budget = self.start(wait);
        if budget.is_zero() {
            return Ok(None);
        }
        let mut end = None;
        let mut last = None;
        loop {
            for _ in 0..self.batch {
                std::hint::spin_loop();
                if let Some(found) = attempt()? {
                    self.paid();
                    return Ok(Some(found));
                }
            }
            let now = Instant::now();
            let end = *end.get_or_insert_with(|| match wait {
                Wait::Until(deadline) => deadline.min(now + budget),
                Wait::Never | Wait::Forever => now + budget,
            });
            if now >= end {
                self.failed();
                return Ok(None);
            }
            if let Some(last) = last.replace(now) {
                self.tune(now - last);
            }
        }
    }

    /// How long the next look may take.
    fn start(&mut self, wait: Wait) -> Duration {
        if wait == Wait::Never || *SINGLE_PROCESSOR {
            return Duration::ZERO;
        }
        match self.strategy {
            WaitStrategy::Block => Duration::ZERO,
            WaitStrategy::Spin => SPIN_LIMIT,
            WaitStrategy::Adaptive if self.budget.is_zero() => {
                self.skipped += 1;
                if self.skipped < self.patience {
                    return Duration::ZERO;
                }
                self.skipped = 0;
                self.patience = (2 * self.patience).min(PROBE_SELDOM);
                ADAPTIVE_LIMIT
            }
            WaitStrategy::Adaptive => self.budget,
        }
    }

    fn tune(&mut self, took: Duration) {
        if took < BATCH_TIME / 2 {
            self.batch = (2 * self.batch).min(BATCH_MOST);
        } else if took > 2 * BATCH_TIME {
            self.batch = (self.batch / 2).max(1);
        }
    }

    fn paid(&mut self) {
        self.budget = ADAPTIVE_LIMIT;
        self.patience = PROBE_FIRST;
    }

    /// Four failures in a row end the looking: 50, 25, 12, 6 us.
    fn failed(&mut self) {
        self.budget /= 2;
        if self.budget < ADAPTIVE_LIMIT / 8 {
            self.budget = Duration::ZERO;
        }
    }
}

/// Whether the machine has one processor, on which looking keeps the peer from running. It is not
/// this process's affinity that counts: one that is bound to a processor may well have its peer on
/// another, and [`WaitStrategy::Adaptive`] finds out.
static SINGLE_PROCESSOR: LazyLock<bool> = LazyLock::new(|| {
    // A list such as "0-3,8" (Documentation/ABI/stable/sysfs-devices-system-cpu).
    std::fs::read_to_string("/sys/devices/system/cpu/online")
        .is_ok_and(|online| !online.contains(['-', ',']))
});

//! When a worker that has ended is replaced, and when no longer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pause after the first failed start; doubled after each in a row, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// After so many failed starts in a row, with no worker left, the pool gives up.
const HOPELESS: u32 = 8;

pub(super) struct Restarts {
    /// More ends than this in a period are too many.
    limit: u32,
    period: Duration,
    ends: VecDeque<Instant>,
    failed_in_a_row: u32,
}

impl Restarts {
    pub(super) fn new(limit: u32, period: Duration) -> Self {
        Self {
            limit,
            period,
            ends: VecDeque::new(),
            failed_in_a_row: 0,
        }
    }

    /// A worker ended that was not asked to. Whether that is too much.
    pub(super) fn ended(&mut self, now: Instant) -> bool {
        let recent = |end: &Instant| now.duration_since(*end) < self.period;
        self.ends.retain(recent);
        self.ends.push_back(now);
        self.ends.len() > self.limit as usize
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "more than {} workers ended within {:?}; see Builder::restart_intensity",
            self.limit, self.period
        )
    }

    pub(super) fn started(&mut self) {
        self.failed_in_a_row = 0;
    }

    /// A worker did not get as far as its first task. When to try again; `None` for never, if
    /// there is no other worker.
    pub(super) fn failed(&mut self, now: Instant, others: bool) -> Option<Instant> {
        let doublings = self.failed_in_a_row.min(10);
        self.failed_in_a_row += 1;
        if self.failed_in_a_row >= HOPELESS && !others {
            return None;
        }
        Some(now + (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ends_of_one_period_count() {
        let mut restarts = Restarts::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!restarts.ended(at(0)));
        assert!(!restarts.ended(at(500)));
        assert!(!restarts.ended(at(1100)));
        assert!(restarts.ended(at(1200)));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_hope_ends() {
        let mut restarts = Restarts::new(2, Duration::from_secs(1));
        let now = Instant::now();
        let pauses: Vec<_> = (0..20)
            .map(|_| restarts.failed(now, true).map(|at| (at - now).as_millis()))
            .collect();
        assert_eq!(pauses[..3], [Some(10), Some(20), Some(40)]);
        assert_eq!(pauses[19], Some(1000));
        assert_eq!(restarts.failed(now, false), None);
        restarts.started();
        assert_eq!(
            restarts.failed(now, false),
            Some(now + Duration::from_millis(10))
        );
    }
}

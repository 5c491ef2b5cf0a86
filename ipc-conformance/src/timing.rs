use std::time::{Duration, Instant};

use ipc_core::Wait;

/// Promise 4: no call overruns its deadline by more.
const OVERRUN: Duration = Duration::from_millis(50);
/// Promise 4: a death is known after this time.
pub(crate) const NOTICE: Duration = Duration::from_millis(100);

/// Lets `attempt` run into a deadline. Early fails at once; late fails only if it is late five
/// times, since the machine may be busy with others.
pub(crate) fn punctual(what: &str, timeout: Duration, mut attempt: impl FnMut(Wait)) {
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let deadline = Instant::now() + timeout;
        attempt(Wait::Until(deadline));
        let now = Instant::now();
        assert!(
            now >= deadline,
            "{what} came back {:?} before its deadline",
            deadline - now
        );
        least = least.min(now - deadline);
        if least <= OVERRUN {
            return;
        }
    }
    panic!("{what} overran a deadline of {timeout:?} by {least:?} and more, five times");
}

/// Whether one of five attempts takes no longer than `limit`; fails if none does.
pub(crate) fn prompt(what: &str, limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut least = Duration::MAX;
    for _ in 0..5 {
        least = least.min(attempt());
        if least <= limit {
            return;
        }
    }
    panic!("{what} took {least:?} and more, five times; {limit:?} is promised");
}

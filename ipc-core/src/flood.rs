use std::time::{Duration, Instant};

use crate::{RecvError, Wait};

/// Reads of one call that are above suspicion: several times what the longest message takes that a
/// kernel's buffer holds whole, since the receiver's own doubles.
const READS: usize = 64;
/// So long a call whose wait is over goes on with a stream that never runs dry.
const GRACE: Duration = Duration::from_millis(20);

/// The patience of one call with a stream that brings bytes but no message. For those who write a
/// mechanism.
///
/// A peer that keeps sending what never becomes a message must not keep a caller beyond its
/// deadline, nor one who would not wait at all.
#[derive(Debug, Default)]
pub struct Flood {
    reads: usize,
    since: Option<Instant>,
}

impl Flood {
    /// Called before each read.
    ///
    /// # Errors
    /// `Empty` or `TimedOut`, as a stream that had run dry would make the call end, once the wait has
    /// been over for a while.
    #[inline]
    pub fn check(&mut self, wait: Wait) -> Result<(), RecvError> {
        self.reads += 1;
        if self.reads <= READS || !wait.is_over() {
            return Ok(());
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() < GRACE {
            return Ok(());
        }
        Err(match wait {
            Wait::Never => RecvError::Empty,
            _ => RecvError::TimedOut,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a stream that never runs dry makes a call do.
    fn reads_until_given_up(wait: Wait) -> (Duration, RecvError) {
        let (start, mut flood) = (Instant::now(), Flood::default());
        loop {
            if let Err(given_up) = flood.check(wait) {
                return (start.elapsed(), given_up);
            }
            assert!(start.elapsed() < 50 * GRACE, "{wait:?} goes on for ever");
        }
    }

    #[test]
    fn a_flood_that_is_no_message_ends_with_the_wait() {
        let (took, given_up) = reads_until_given_up(Wait::Never);
        assert!(took >= GRACE && matches!(given_up, RecvError::Empty));
        // Its clock began to run before ours.
        let (took, given_up) = reads_until_given_up(Wait::at_most(Duration::from_millis(5)));
        assert!(took >= GRACE && matches!(given_up, RecvError::TimedOut));
    }

    #[test]
    fn a_long_message_is_no_flood() {
        let mut flood = Flood::default();
        assert!((0..READS).all(|_| flood.check(Wait::Never).is_ok()));
        assert!(
            flood.check(Wait::Never).is_ok(),
            "a first look at the clock"
        );
    }
}

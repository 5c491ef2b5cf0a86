use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// How long [`Pacer::gather`] waits: a score of small messages, and a tenth of one wake.
const GATHER: Duration = Duration::from_micros(5);

/// A yield that takes this long went to somebody else: a peer that fills or empties a channel of
/// the usual size is done sooner, a slice of the scheduler is longer.
const DEAR: Duration = Duration::from_millis(1);

/// So many yields are left out after a dear one; four times as many after the next, and so on to
/// the most.
const SKIP_FIRST: u32 = 16;
const SKIP_MOST: u32 = 4096;

/// Keeps the two ends of a stream from meeting at every message.
///
/// An end that has done all there was to do, a receiver that emptied the channel or a sender that
/// filled it, is about to sleep, and its peer to wake it with the very next message: a switch for
/// each message if they share a processor, and some microseconds of the waker's time if not. In
/// the midst of a stream it is cheaper to give the peer a moment first.
///
/// Where others want the processor too, `sched_yield(2)` gives it to them for a whole slice. A
/// yield that took so long is remembered, and the next ones are left out.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Yields to leave out.
    skip: u32,
    /// How many it will be after the next dear one.
    patience: u32,
}

impl Default for Pacer {
    fn default() -> Self {
        Self {
            skip: 0,
            patience: SKIP_FIRST,
        }
    }
}

impl Pacer {
    /// Gives the processor to a peer that waits for it: at most one system call.
    pub fn give_way(&mut self) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let started = Instant::now();
        yield_now();
        self.learn(started.elapsed());
    }

    /// Lets messages gather: gives way, and waits some microseconds if that took none. At most one
    /// system call.
    pub fn gather(&mut self) {
        let started = Instant::now();
        self.give_way();
        while started.elapsed() < GATHER {
            spin_loop();
        }
    }

    fn learn(&mut self, took: Duration) {
        if took < DEAR {
            self.patience = (self.patience / 2).max(SKIP_FIRST);
        } else {
            self.skip = self.patience;
            self.patience = (4 * self.patience).min(SKIP_MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(pacer: &Pacer) -> u32 {
        pacer.skip
    }

    #[test]
    fn dear_yields_become_rare_and_cheap_ones_bring_them_back() {
        let mut pacer = Pacer::default();
        for expected in [16, 64, 256, 1024, 4096, 4096] {
            pacer.learn(DEAR);
            assert_eq!(skipped(&pacer), expected);
        }
        pacer.skip = 0;
        for _ in 0..8 {
            pacer.learn(Duration::ZERO);
        }
        pacer.learn(DEAR);
        assert_eq!(skipped(&pacer), 16);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let mut pacer = Pacer::default();
        pacer.learn(DEAR);
        pacer.give_way();
        pacer.gather();
        assert_eq!(skipped(&pacer), 14);
    }
}

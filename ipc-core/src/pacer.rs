use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use crate::WaitStrategy;

/// How long [`Pacer::gather`] waits at most: a score of small messages, and a tenth of one wake.
const GATHER: Duration = Duration::from_micros(5);

/// A yield that takes this long went to somebody else: a peer that fills or empties a channel of
/// the usual size is done sooner, a slice of the scheduler is longer.
const DEAR: Duration = Duration::from_millis(1);

/// So many yields are left out after a dear one; four times as many after the next, and so on to
/// the most.
const SKIP_FIRST: u32 = 16;
const SKIP_MOST: u32 = 4096;

/// After so many cheap yields in a row only every eighth is timed. The clock costs a tenth of a yield,
/// and as much again in what it leaves of the caches to an end that has them for ten messages.
const SURE: u32 = 8;
const UNTIMED: u32 = 7;

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
    /// Timed yields in a row that were cheap, at most [`SURE`].
    cheap: u32,
    /// Yields until the next that is timed.
    untimed: u32,
    gathering: Gathering,
}

impl Default for Pacer {
    fn default() -> Self {
        Self {
            skip: 0,
            patience: SKIP_FIRST,
            cheap: 0,
            untimed: 0,
            gathering: Gathering::default(),
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
        if self.untimed > 0 {
            self.untimed -= 1;
            yield_now();
            return;
        }
        let started = Instant::now();
        yield_now();
        self.learn(started.elapsed());
    }

    /// Called by a receiver before a read, with the number of messages that the last one brought. Two of
    /// them have room for the call that gathering costs, so then it lets more gather: gives way, and waits
    /// some microseconds if that took none. That is never more than one call a message.
    ///
    /// One that blocks waits for all of that time, since it would sleep otherwise and have to be
    /// woken. One that looks would look again at once, and waits as long as that brings more.
    pub fn gather(&mut self, came: usize, strategy: WaitStrategy) {
        if came < 2 {
            return;
        }
        let time = match strategy {
            WaitStrategy::Block => GATHER,
            WaitStrategy::Spin | WaitStrategy::Adaptive => self.gathering.learn(came),
        };
        self.gather_for(time);
    }

    fn gather_for(&mut self, time: Duration) {
        let started = Instant::now();
        self.give_way();
        while started.elapsed() < time {
            spin_loop();
        }
    }

    fn learn(&mut self, took: Duration) {
        if took < DEAR {
            self.patience = (self.patience / 2).max(SKIP_FIRST);
            self.cheap = (self.cheap + 1).min(SURE);
            if self.cheap == SURE {
                self.untimed = UNTIMED;
            }
        } else {
            self.cheap = 0;
            self.skip = self.patience;
            self.patience = (4 * self.patience).min(SKIP_MOST);
        }
    }
}

/// Calls whose messages are counted together.
const EPOCH: u32 = 16;
/// Epochs between two trials of another time.
const TRUST: u32 = 16;
/// The shortest time is that of this many halvings.
const HALVINGS_MOST: u32 = 3;

/// How long gathering takes. A peer that streams sends twice as much in twice the time; one that has a
/// few messages under way and waits for answers sends those and no more, and the time is lost. So now
/// and then an epoch is spent with half or twice the time, and that is kept if it brought as many, or
/// more.
#[derive(Clone, Debug, Default)]
struct Gathering {
    /// How often [`GATHER`] is halved.
    halvings: u32,
    /// The halvings that are on trial in this epoch.
    trial: Option<u32>,
    /// What the last epoch without a trial brought.
    usual: usize,
    /// Whether the next trial is of a longer time.
    longer: bool,
    /// Epochs since the last trial.
    trusted: u32,
    /// Calls of this epoch, and what they brought.
    calls: u32,
    came: usize,
}

impl Gathering {
    fn time(&self) -> Duration {
        GATHER / (1 << self.trial.unwrap_or(self.halvings))
    }

    /// So many have come; how long the next ones may take.
    fn learn(&mut self, came: usize) -> Duration {
        self.calls += 1;
        self.came += came;
        if self.calls == EPOCH {
            self.calls = 0;
            let came = std::mem::take(&mut self.came);
            self.judge(came);
        }
        self.time()
    }

    /// An epoch is over that brought so many.
    fn judge(&mut self, came: usize) {
        match self.trial.take() {
            None => {
                self.usual = came;
                self.trusted += 1;
                if self.trusted == TRUST {
                    self.trusted = 0;
                    self.trial = self.next();
                }
            }
            Some(halvings) => {
                let kept = if halvings > self.halvings {
                    came >= self.usual - self.usual / 8
                } else {
                    came >= self.usual + self.usual / 4
                };
                if kept {
                    (self.halvings, self.usual) = (halvings, came);
                    self.trial = self.next();
                } else {
                    self.longer = !self.longer;
                }
            }
        }
    }

    /// The next time to be tried. At the end of the scale it is the other direction's turn.
    fn next(&mut self) -> Option<u32> {
        let next = if self.longer {
            self.halvings.checked_sub(1)
        } else {
            Some(self.halvings + 1).filter(|&next| next <= HALVINGS_MOST)
        };
        if next.is_none() {
            self.longer = !self.longer;
        }
        next
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
        pacer.gather(1, WaitStrategy::Block);
        pacer.gather(2, WaitStrategy::Block);
        assert_eq!(skipped(&pacer), 14);
    }

    #[test]
    fn the_clock_is_read_less_often_while_yields_are_cheap() {
        let mut pacer = Pacer::default();
        for _ in 1..SURE {
            pacer.learn(Duration::ZERO);
            assert_eq!(pacer.untimed, 0);
        }
        pacer.learn(Duration::ZERO);
        for left in (0..UNTIMED).rev() {
            pacer.give_way();
            assert_eq!(pacer.untimed, left);
        }
        pacer.learn(DEAR);
        assert_eq!((pacer.cheap, pacer.untimed), (0, 0));
    }

    /// Plays many epochs with a peer that sends this much in each time, and gives what was settled on.
    fn settled(mut gathering: Gathering, sends: impl Fn(Duration) -> usize) -> Duration {
        for _ in 0..20 * EPOCH * TRUST {
            let came = sends(gathering.time());
            gathering.learn(came);
        }
        gathering.trial = None;
        gathering.time()
    }

    #[test]
    fn gathering_takes_as_long_as_it_brings_more() {
        let shortest = GATHER / (1 << HALVINGS_MOST);
        let stream = |time: Duration| time.as_nanos() as usize / 200;
        let window = |_: Duration| 8;
        let saturated = |time: Duration| stream(time).min(8);
        let start = Gathering::default;
        assert_eq!(settled(start(), stream), GATHER);
        assert_eq!(settled(start(), window), shortest);
        // Eight messages take 1.6 us; a shorter time would not bring them.
        assert_eq!(settled(start(), saturated), GATHER / 2);
        let short = Gathering {
            halvings: HALVINGS_MOST,
            ..start()
        };
        assert_eq!(settled(short, stream), GATHER, "from the other end too");
    }
}

use std::cell::RefCell;
use std::cmp::Ordering;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};

use crate::channel::BATCH_MESSAGES;
use crate::failure::{Failure, Outcome};
use crate::implementation::Implementation;
use crate::neighbours::Neighbours;
use crate::pair::{Pair, Slice};
use crate::placement::Placement;
use crate::plan::{Group, floors_of, is_durable};
use crate::row::{Row, Status, figure, median};
use crate::settings::Settings;
use crate::spec::{Spec, Strategy, WINDOW, Workload};
use crate::syscalls;
use crate::workload::Run;

/// A row in the making.
struct Contestant {
    implementation: &'static Implementation,
    spec: Spec,
    state: State,
    /// From the first runs.
    ns_per_message: f64,
    wanted: bool,
    slices: Vec<Slice>,
}

enum State {
    Running(Pair),
    Over(Failure),
}

/// Time for one row: a part for criterion's means, a part for percentiles.
#[derive(Clone, Copy, Debug)]
struct Share {
    warm_up: Duration,
    criterion: Duration,
    slice: Duration,
    /// Too little is left for anything but one short turn of each row.
    lean: bool,
}

/// Turns of each row of a group, one after another, so that a row and its floor see the same
/// minutes of the machine.
const ROUNDS: usize = 5;

/// Turns in a round of rows that wait for a disk, of half the length: from one tenth of a second to
/// the next a disk may become ten times slower.
const DISK_TURNS: usize = 3;

/// What a row costs besides on an idle machine: starting, connecting, calibration, analysis, the
/// count of calls. The run corrects it by what it meets.
const OVERHEAD: Duration = Duration::from_millis(90);

impl Share {
    fn of(left: Duration, rows: usize, overhead: Duration) -> Self {
        let rows = u32::try_from(rows.max(1)).unwrap_or(u32::MAX);
        let row = (left / rows).saturating_sub(overhead);
        let within = |share: Duration, min: u64, max: u64| {
            share.clamp(Duration::from_millis(min), Duration::from_millis(max))
        };
        Self {
            warm_up: within(row / 8, 5, 200),
            criterion: within(row * 3 / 8, 15, 1000),
            slice: within(row / 2 / ROUNDS as u32, 10, 300),
            lean: row.is_zero(),
        }
    }

    /// What it grants a row.
    fn row(self) -> Duration {
        // Criterion warms up by doubling, so for up to twice the time.
        let means = if self.lean {
            Duration::ZERO
        } else {
            2 * self.warm_up + self.criterion
        };
        let turns = if self.lean { 1 } else { ROUNDS };
        means + self.slice * turns as u32
    }
}

/// Measures everything that was planned, one group after another.
pub(crate) fn all(criterion: &mut Criterion, groups: Vec<Group>, settings: &Settings) -> Vec<Row> {
    let start = Instant::now();
    let mut left: usize = groups.iter().map(|group| group.contestants.len()).sum();
    let total = left;
    let mut overhead = OVERHEAD;
    let mut rows = Vec::with_capacity(total);
    for group in groups {
        let remaining = settings.budget.saturating_sub(start.elapsed());
        let share = Share::of(remaining, left, overhead);
        let (begun, measured) = (Instant::now(), group.contestants.len());
        left -= measured;
        eprintln!(
            "[{:3} %, {:3} s] {} {}",
            (total - left) * 100 / total.max(1),
            start.elapsed().as_secs(),
            group.name,
            group.contestants[0].1.mechanism
        );
        rows.extend(measure(criterion, group, share, settings));
        let row = begun.elapsed() / u32::try_from(measured).unwrap_or(u32::MAX);
        // Half of what is new, so that one odd group does not starve the rest.
        overhead = (overhead + row.saturating_sub(share.row()))
            .div_f64(2.0)
            .max(OVERHEAD / 2);
    }
    rows
}

fn measure(criterion: &mut Criterion, group: Group, share: Share, settings: &Settings) -> Vec<Row> {
    let placement = group.contestants[0].1.placement;
    let _neighbours = match neighbours(placement) {
        Ok(neighbours) => neighbours,
        Err(failure) => return Contestant::none_of(group, &failure),
    };
    let mut contestants: Vec<_> = group
        .contestants
        .into_iter()
        .map(|(implementation, spec)| Contestant::start(implementation, spec))
        .collect();
    // A busy machine makes everything late. The run ends in time all the same, and says how.
    let lean = share.lean && settings.measuring;
    if lean {
        eprintln!(
            "late: {} is left to one turn a row, without criterion",
            group.name
        );
    }
    for contestant in &mut contestants {
        if lean {
            contestant.wanted = settings.wants(&contestant.spec.id());
        } else {
            contestant.means(criterion, &group.name, share);
        }
    }
    if !settings.measuring {
        return Vec::new();
    }
    let wanted = contestants
        .iter()
        .any(|c| c.wanted && !c.implementation.is_floor());
    let only_floors = contestants.iter().all(|c| c.implementation.is_floor());
    contestants.retain(|c| c.wanted || (wanted && c.implementation.is_floor()) || only_floors);
    let rounds = if lean { 1 } else { ROUNDS };
    for turn in 0..rounds * DISK_TURNS {
        // Every other time the other way round: what drifts during a round cancels out.
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let contestant = &mut contestants[at];
            if is_durable(&contestant.spec) {
                contestant.turn(share.slice / 2);
            } else if turn % DISK_TURNS == 0 {
                contestant.turn(share.slice);
            }
        }
    }
    finish(contestants, lean)
}

/// Those of the placement that has some.
fn neighbours(placement: Placement) -> Outcome<Option<Neighbours>> {
    match placement {
        Placement::Busy => Neighbours::move_in().map(Some),
        _ => Ok(None),
    }
}

impl Contestant {
    /// Rows that say why there is nothing to say.
    fn none_of(group: Group, failure: &Failure) -> Vec<Row> {
        let contestants = group.contestants.into_iter();
        let over = |(implementation, spec)| Self {
            implementation,
            spec,
            state: State::Over(failure.clone()),
            ns_per_message: 0.0,
            wanted: true,
            slices: Vec::new(),
        };
        contestants.map(|c| over(c).row(&[])).collect()
    }

    fn start(implementation: &'static Implementation, spec: Spec) -> Self {
        let state = match Pair::start(implementation, &spec) {
            Ok(pair) => State::Running(pair),
            Err(failure) => State::Over(failure),
        };
        let mut contestant = Self {
            implementation,
            spec,
            state,
            ns_per_message: 0.0,
            wanted: false,
            slices: Vec::new(),
        };
        contestant.calibrate();
        contestant
    }

    /// Doubles a run until it takes long enough to tell how long a message takes.
    fn calibrate(&mut self) {
        const ENOUGH: Duration = Duration::from_millis(2);
        const ATTEMPT: Duration = Duration::from_secs(3);
        let mut messages = 8;
        while let State::Running(pair) = &mut self.state {
            match pair.run(
                Run {
                    messages,
                    sample: false,
                },
                ATTEMPT,
            ) {
                Ok(slice) => {
                    self.ns_per_message = slice.elapsed.as_nanos() as f64 / messages as f64;
                    if slice.elapsed >= ENOUGH {
                        return;
                    }
                    messages *= 2;
                }
                Err(failure) => self.state = State::Over(failure),
            }
        }
    }

    fn messages_in(&self, time: Duration) -> u64 {
        let messages = time.as_nanos() as f64 / self.ns_per_message.max(1.0);
        let messages = (messages as u64).clamp(8, self.most_messages());
        // Half a batch takes a disk as long as a whole one.
        let whole = if self.spec.implementation.ends_with(":batch") {
            BATCH_MESSAGES as u64
        } else {
            1
        };
        messages.next_multiple_of(whole)
    }

    /// What one run may carry: what is appended to a file must not fill the storage.
    fn most_messages(&self) -> u64 {
        const STORED: usize = 64 << 20;
        if self.spec.mechanism == "file" {
            (STORED / self.spec.size).max(8) as u64
        } else {
            u64::MAX
        }
    }

    fn run(&mut self, messages: u64, sample: bool) -> Outcome<Slice> {
        let expected = Duration::from_nanos((messages as f64 * self.ns_per_message) as u64);
        let limit = Duration::from_secs(4) + 8 * expected;
        match &mut self.state {
            State::Running(pair) => match pair.run(Run { messages, sample }, limit) {
                Ok(slice) => Ok(slice),
                Err(failure) => {
                    self.state = State::Over(failure.clone());
                    Err(failure)
                }
            },
            State::Over(failure) => Err(failure.clone()),
        }
    }

    /// Criterion's pass: whole runs, no clock per message.
    fn means(&mut self, criterion: &mut Criterion, group: &str, share: Share) {
        if let State::Over(_) = self.state {
            // Nothing to time; the row says why.
            self.wanted = true;
            return;
        }
        let id = self.spec.id_in_group();
        let mut group = criterion.benchmark_group(group);
        group
            .sample_size(10)
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(share.warm_up)
            .measurement_time(share.criterion)
            .throughput(Throughput::Bytes(self.spec.size as u64));
        let contestant = RefCell::new(self);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut contestant = contestant.borrow_mut();
                contestant.wanted = true;
                contestant.timed(iterations)
            });
        });
        group.finish();
    }

    fn timed(&mut self, messages: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        let mut left = messages;
        while left > 0 {
            let now = left.min(self.most_messages());
            match self.run(now, false) {
                Ok(slice) => elapsed += slice.elapsed,
                // The row is marked failed; criterion only has to come to an end.
                Err(_) => return Duration::from_secs(1),
            }
            left -= now;
        }
        elapsed
    }

    /// The pass for percentiles, processor time and ratios.
    fn turn(&mut self, time: Duration) {
        let messages = self.messages_in(time);
        let sample = self.spec.workload.is_timed_each();
        if let Ok(slice) = self.run(messages, sample) {
            self.slices.push(slice);
        }
    }

    fn row(&self, all: &[Self]) -> Row {
        let mut row = Row::new(&self.spec, self.implementation.note);
        row.depth = self.depth();
        match &self.state {
            State::Over(Failure::Unsupported(reason)) => {
                row.status = Status::Unsupported;
                row.reason = Some(reason.clone());
            }
            State::Over(Failure::Failed(reason)) => {
                row.status = Status::Failed;
                row.reason = Some(reason.clone());
            }
            State::Running(_) => {
                row.digest(&self.slices);
                if let Some((floor, ratios)) = self.ratios(all) {
                    row.floor = Some(floor);
                    row.ratio_low = ratios.iter().copied().reduce(f64::min);
                    row.ratio_high = ratios.iter().copied().reduce(f64::max);
                    row.ratio_to_floor = median(ratios);
                }
            }
        }
        row
    }

    /// What fits before a sender waits, or is let through before it does.
    fn depth(&self) -> Option<u64> {
        match self.spec.workload {
            Workload::Start | Workload::Task | Workload::Map => None,
            Workload::Rtt | Workload::Throughput => self.implementation.depth(&self.spec),
            Workload::Window => Some(WINDOW),
        }
    }

    /// The ratio within each round, to the floor that did best.
    fn ratios(&self, all: &[Self]) -> Option<(String, Vec<f64>)> {
        let figure = |slice: &Slice| figure(slice, &self.spec).max(f64::MIN_POSITIVE);
        let middle = |floor: &&Self| median(floor.slices.iter().map(figure).collect());
        let floors = all.iter().filter(|other| self.is_compared_with(other));
        let best = floors.max_by(|a, b| {
            let order = middle(a).partial_cmp(&middle(b)).unwrap_or(Ordering::Equal);
            if self.spec.workload.is_timed_each() {
                order.reverse()
            } else {
                order
            }
        })?;
        let turns = self.slices.iter().zip(&best.slices);
        let ratios = turns.map(|(own, floor)| figure(own) / figure(floor));
        Some((best.spec.implementation.clone(), ratios.collect()))
    }

    /// Among busy neighbours a row is compared with itself asleep.
    fn is_compared_with(&self, other: &Self) -> bool {
        if self.spec.placement == Placement::Busy {
            return other.spec.implementation == self.spec.implementation
                && other.spec.wait == Some(Strategy::Block);
        }
        floors_of(&self.spec).contains(&other.implementation.id)
    }

    /// The last pass, which uses up the pair: system calls per message.
    fn count(self, row: &mut Row) {
        let State::Running(pair) = self.state else {
            return;
        };
        if !self.implementation.is_countable() {
            row.syscalls_reason = Some("not two single-threaded processes of this program".into());
            return;
        }
        match syscalls::per_message(pair) {
            Ok(count) => row.syscalls_per_message = Some(count),
            Err(Failure::Unsupported(reason) | Failure::Failed(reason)) => {
                row.syscalls_reason = Some(reason);
            }
        }
    }
}

fn finish(contestants: Vec<Contestant>, lean: bool) -> Vec<Row> {
    let mut rows: Vec<_> = contestants.iter().map(|c| c.row(&contestants)).collect();
    for (contestant, row) in contestants.into_iter().zip(&mut rows) {
        if lean {
            row.syscalls_reason = Some("the time of the run was up".into());
        } else {
            contestant.count(row);
        }
    }
    rows
}

use std::hint::black_box;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::failure::{Failure, Outcome};
use crate::spec::{Side, Spec, WINDOW, Workload};

/// One side of a two-way exchange.
pub trait Port {
    /// Sends one message whole.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn send(&mut self, message: &[u8]) -> Outcome<()>;

    /// Receives one message whole and gives its length in bytes.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize>;

    /// Sends numbered messages one way.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn stream(&mut self, message: &mut [u8], messages: u64) -> Outcome<()> {
        for number in 0..messages {
            stamp(message, number);
            self.send(message)?;
        }
        Ok(())
    }

    /// Takes in what [`stream`](Self::stream) sent and checks it.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn drain(&mut self, buffer: &mut [u8], size: usize, messages: u64) -> Outcome<()> {
        for number in 0..messages {
            let len = self.recv(buffer)?;
            check(&buffer[..len], size, number)?;
        }
        Ok(())
    }

    /// Tidies up after a run, when no clock runs.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }
}

/// A run of messages on an open exchange.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    /// How many: round trips, messages, processes or tasks.
    pub messages: u64,
    /// Whether each round trip is timed on its own.
    pub sample: bool,
}

/// What one side saw of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SideReport {
    /// CLOCK_MONOTONIC, which all processes share.
    pub start_ns: u64,
    /// The same clock.
    pub end_ns: u64,
    /// Processor time of the whole process, user and system.
    pub cpu_ns: u64,
    /// Pairs of value (ns) and count.
    pub histogram: Vec<(u64, u64)>,
}

/// An empty histogram of times up to a minute at three significant digits: a tenth of a percent,
/// and a report that fits one packet.
pub(crate) fn histogram() -> Histogram<u64> {
    const MINUTE_NS: u64 = 60_000_000_000;
    Histogram::new_with_bounds(1, MINUTE_NS, 3).expect("the bounds are in order")
}

/// Round trips before the clock starts: the first one meets a peer that is still asleep.
const WARM_UP: u64 = 8;

/// Runs one side of a workload on its port.
pub(crate) fn run<P: Port>(port: &mut P, spec: &Spec, side: Side, run: Run) -> Outcome<SideReport> {
    let mut message = vec![0xA5; spec.size];
    let mut buffer = vec![0; spec.size];
    let mut samples = histogram();
    match (spec.workload, side) {
        (Workload::Rtt | Workload::Window, Side::Initiator) => {
            ping::<P, false>(port, &mut message, &mut buffer, WARM_UP, &mut samples)?;
        }
        (Workload::Rtt | Workload::Window, _) => pong(port, &mut buffer, WARM_UP)?,
        _ => {}
    }
    let cpu = clock::process_cpu_ns();
    let start_ns = clock::monotonic_ns();
    match (spec.workload, side) {
        (Workload::Rtt, Side::Initiator) if run.sample => {
            ping::<P, true>(port, &mut message, &mut buffer, run.messages, &mut samples)?;
        }
        (Workload::Rtt, Side::Initiator) => {
            ping::<P, false>(port, &mut message, &mut buffer, run.messages, &mut samples)?;
        }
        (Workload::Window, Side::Initiator) => {
            window(port, &mut message, &mut buffer, run.messages)?;
        }
        (Workload::Rtt | Workload::Window, _) => pong(port, &mut buffer, run.messages)?,
        (Workload::Throughput, Side::Initiator) => port.stream(&mut message, run.messages)?,
        (Workload::Throughput, _) => port.drain(&mut buffer, spec.size, run.messages)?,
        (Workload::Start | Workload::Task | Workload::Map, _) => {
            return Err(Failure::Failed("a channel starts no process".into()));
        }
    }
    let end_ns = clock::monotonic_ns();
    let cpu_ns = clock::process_cpu_ns() - cpu;
    port.settle()?;
    black_box(&buffer);
    Ok(SideReport {
        start_ns,
        end_ns,
        cpu_ns,
        histogram: pairs(&samples),
    })
}

/// Does something over and over, the whole of it timed, and with `run.sample` each time.
///
/// # Errors
/// The first of `once`.
pub fn each(run: Run, mut once: impl FnMut(u64) -> Outcome<()>) -> Outcome<SideReport> {
    let mut samples = histogram();
    let reading = clock::reading_cost_ns();
    let cpu = clock::family_cpu_ns();
    let start_ns = clock::monotonic_ns();
    let mut before = start_ns;
    for number in 0..run.messages {
        once(number)?;
        if run.sample {
            let now = clock::monotonic_ns();
            samples.saturating_record((now - before).saturating_sub(reading).max(1));
            before = now;
        }
    }
    let end_ns = clock::monotonic_ns();
    Ok(SideReport {
        start_ns,
        end_ns,
        cpu_ns: clock::family_cpu_ns().saturating_sub(cpu),
        histogram: pairs(&samples),
    })
}

fn ping<P: Port, const SAMPLE: bool>(
    port: &mut P,
    message: &mut [u8],
    buffer: &mut [u8],
    messages: u64,
    histogram: &mut Histogram<u64>,
) -> Outcome<()> {
    let reading = clock::reading_cost_ns();
    let mut before = clock::monotonic_ns();
    for number in 0..messages {
        stamp(message, number);
        port.send(message)?;
        let len = port.recv(buffer)?;
        check(&buffer[..len], message.len(), number)?;
        if SAMPLE {
            let now = clock::monotonic_ns();
            histogram.saturating_record((now - before).saturating_sub(reading).max(1));
            before = now;
        }
    }
    Ok(())
}

/// Keeps [`WINDOW`] messages on their way.
fn window<P: Port>(
    port: &mut P,
    message: &mut [u8],
    buffer: &mut [u8],
    messages: u64,
) -> Outcome<()> {
    for number in 0..messages + WINDOW {
        if let Some(oldest) = number.checked_sub(WINDOW) {
            let len = port.recv(buffer)?;
            check(&buffer[..len], message.len(), oldest)?;
        }
        if number < messages {
            stamp(message, number);
            port.send(message)?;
        }
    }
    Ok(())
}

fn pong<P: Port>(port: &mut P, buffer: &mut [u8], messages: u64) -> Outcome<()> {
    for _ in 0..messages {
        let len = port.recv(buffer)?;
        port.send(&buffer[..len])?;
    }
    Ok(())
}

/// Numbers a message in its first eight bytes.
#[inline]
pub fn stamp(message: &mut [u8], number: u64) {
    message[..8].copy_from_slice(&number.to_ne_bytes());
}

/// Nothing lost, doubled, reordered or cut: a fast channel that errs must not get a row.
///
/// # Errors
/// If it is not this message.
#[inline]
pub fn check(message: &[u8], size: usize, number: u64) -> Outcome<()> {
    if message.len() == size && message[..8] == number.to_ne_bytes() {
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "message {number} of {size} B arrived as {} B that begin with {:?}",
            message.len(),
            &message[..message.len().min(8)]
        )))
    }
}

/// The part of a histogram that travels.
pub(crate) fn pairs(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
        .collect()
}

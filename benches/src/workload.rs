use std::hint::black_box;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::failure::{Failure, Outcome};
use crate::spec::{Side, Spec, Workload};

/// One side of a two-way exchange.
pub(crate) trait Port {
    /// Sends one message whole.
    fn send(&mut self, message: &[u8]) -> Outcome<()>;

    /// Receives one message whole and gives its length in bytes.
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize>;

    /// Sends numbered messages one way.
    fn stream(&mut self, message: &mut [u8], messages: u64) -> Outcome<()> {
        for number in 0..messages {
            stamp(message, number);
            self.send(message)?;
        }
        Ok(())
    }

    /// Takes in what [`stream`](Self::stream) sent and checks it.
    fn drain(&mut self, buffer: &mut [u8], size: usize, messages: u64) -> Outcome<()> {
        for number in 0..messages {
            let len = self.recv(buffer)?;
            check(&buffer[..len], size, number)?;
        }
        Ok(())
    }

    /// Tidies up after a slice, when no clock runs.
    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }

    /// Messages of this size that fit before a sender waits.
    fn depth(&self) -> Option<u64> {
        None
    }
}

/// A run of messages on an open exchange.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) messages: u64,
    /// Whether each round trip is timed on its own.
    pub(crate) sample: bool,
}

/// What one side saw of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SideReport {
    /// CLOCK_MONOTONIC, which all processes share.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// Processor time of the whole process, user and system.
    pub(crate) cpu_ns: u64,
    /// Pairs of value (ns) and count.
    pub(crate) histogram: Vec<(u64, u64)>,
}

/// An empty histogram of times up to a minute at three significant digits: a tenth of a percent,
/// and a report that fits one packet.
pub(crate) fn histogram() -> Histogram<u64> {
    const MINUTE_NS: u64 = 60_000_000_000;
    Histogram::new_with_bounds(1, MINUTE_NS, 3).expect("the bounds are in order")
}

/// Runs one side of a workload on its port.
pub(crate) fn run<P: Port>(port: &mut P, spec: &Spec, side: Side, run: Run) -> Outcome<SideReport> {
    let mut message = vec![0xA5; spec.size];
    let mut buffer = vec![0; spec.size];
    let mut samples = histogram();
    let cpu = clock::process_cpu_ns();
    let start_ns = clock::monotonic_ns();
    match (spec.workload, side) {
        (Workload::Rtt, Side::Initiator) if run.sample => {
            ping::<P, true>(port, &mut message, &mut buffer, run.messages, &mut samples)?;
        }
        (Workload::Rtt, Side::Initiator) => {
            ping::<P, false>(port, &mut message, &mut buffer, run.messages, &mut samples)?;
        }
        (Workload::Rtt, _) => pong(port, &mut buffer, run.messages)?,
        (Workload::Throughput, Side::Initiator) => port.stream(&mut message, run.messages)?,
        (Workload::Throughput, _) => port.drain(&mut buffer, spec.size, run.messages)?,
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

fn pong<P: Port>(port: &mut P, buffer: &mut [u8], messages: u64) -> Outcome<()> {
    for _ in 0..messages {
        let len = port.recv(buffer)?;
        port.send(&buffer[..len])?;
    }
    Ok(())
}

/// Numbers a message in its first eight bytes.
#[inline]
pub(crate) fn stamp(message: &mut [u8], number: u64) {
    message[..8].copy_from_slice(&number.to_ne_bytes());
}

/// Nothing lost, doubled, reordered or cut: a fast channel that errs must not get a row.
#[inline]
pub(crate) fn check(message: &[u8], size: usize, number: u64) -> Outcome<()> {
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

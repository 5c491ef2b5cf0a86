use std::fmt::Write as _;

use crate::machine::Machine;
use crate::placement::Placement;
use crate::row::{Row, Status};
use crate::spec::Workload;

/// Everything as plain text: one block per workload, placement and size, the best row first.
pub(super) fn render(machine: &Machine, rows: &[Row]) -> String {
    let mut text = String::new();
    for block in blocks(rows) {
        let first = block[0];
        let _ = writeln!(text, "\n{}", caption(machine, first));
        let width = block.iter().map(|row| row.label().len()).max().unwrap_or(0);
        let _ = writeln!(text, "{:width$}  {}", "", heading(first.workload));
        for row in block {
            let _ = writeln!(text, "{:width$}  {}", row.label(), cells(row));
        }
    }
    text
}

/// Rows of one workload, placement and size, sorted.
pub(super) fn blocks(rows: &[Row]) -> Vec<Vec<&Row>> {
    let mut keys: Vec<_> = rows.iter().map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|wanted| {
            let mut block: Vec<_> = rows.iter().filter(|row| key(row) == wanted).collect();
            block.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
            block
        })
        .collect()
}

fn key(row: &Row) -> (Workload, Placement, usize) {
    (row.workload, row.placement, row.size)
}

/// The least first: time of a round trip, or of a message; rows without figures last.
fn rank(row: &Row) -> f64 {
    let figure = match row.workload {
        Workload::Rtt => row.p50_ns.map(|ns| ns as f64),
        Workload::Throughput => row.messages_per_s.map(|rate| 1e9 / rate),
    };
    match row.status {
        Status::Ok => figure.unwrap_or(f64::MAX / 4.0),
        Status::Unsupported => f64::MAX / 2.0,
        Status::Failed => f64::MAX,
    }
}

pub(super) fn caption(machine: &Machine, row: &Row) -> String {
    let what = match row.workload {
        Workload::Rtt => "IPC round trip",
        Workload::Throughput => "IPC one way",
    };
    let cpus = match (row.placement, machine.pinned_to) {
        (Placement::TwoCores, [a, b]) => format!("two cores, CPUs {a} and {b}"),
        (Placement::OneCore, [a, ..]) => format!("one core, CPU {a}"),
        (placement, _) => placement.to_string(),
    };
    let clock = machine.clock_reading_ns;
    let size = bytes(row.size);
    format!("{what} · {size} · two processes · closed loop · {cpus} · clock {clock} ns taken off")
}

fn heading(workload: Workload) -> &'static str {
    match workload {
        Workload::Rtt => {
            "     p50      p90      p99    p99.9     RTT/s  CPU/msg  calls/msg  x floor  depth  note"
        }
        Workload::Throughput => "  msgs/s      B/s  CPU/msg  calls/msg  x floor  depth  note",
    }
}

fn cells(row: &Row) -> String {
    if row.status != Status::Ok {
        let status = if row.status == Status::Unsupported {
            "n/a"
        } else {
            "FAILED"
        };
        return format!(
            "     {status} ({})",
            row.reason.as_deref().unwrap_or("no reason given")
        );
    }
    let ns = |value: Option<u64>| value.map_or("-".into(), |ns| time(ns as f64));
    let calls = row
        .syscalls_per_message
        .map_or("-".into(), |count| format!("{count:.2}"));
    let ratio = row
        .ratio_to_floor
        .map_or("-".into(), |ratio| format!("{ratio:.2}"));
    let depth = row.depth.map_or("-".into(), |depth| depth.to_string());
    let rate = row.messages_per_s.map_or("-".into(), count);
    let cpu = ns(row.cpu_ns_per_message);
    let note = row.note.as_deref().unwrap_or("");
    match row.workload {
        Workload::Rtt => format!(
            "{:>8} {:>8} {:>8} {:>8} {rate:>9} {cpu:>8} {calls:>10} {ratio:>8} {depth:>6}  {note}",
            ns(row.p50_ns),
            ns(row.p90_ns),
            ns(row.p99_ns),
            ns(row.p999_ns),
        ),
        Workload::Throughput => format!(
            "{rate:>8} {:>8} {cpu:>8} {calls:>10} {ratio:>8} {depth:>6}  {note}",
            row.bytes_per_s.map_or("-".into(), count),
        ),
    }
}

/// Who is first, and what it costs.
pub(super) fn ranking(rows: &[Row]) -> String {
    let mut sentences = Vec::new();
    for block in blocks(rows) {
        let first = block[0];
        if first.workload != Workload::Rtt || first.size != 64 {
            continue;
        }
        let ours: Vec<_> = block
            .iter()
            .filter(|row| row.status == Status::Ok && row.implementation.starts_with("ipc-"))
            .collect();
        let mut best: Vec<&&&Row> = Vec::new();
        for row in &ours {
            if !best.iter().any(|other| other.mechanism == row.mechanism) {
                best.push(row);
            }
        }
        if let [first, .., last] = best[..] {
            sentences.push(format!(
                "Round trip of 64 B, {}: {}. {} ran {} than {}, at {:.2} x its processor time.",
                first.placement,
                best.iter()
                    .map(|row| row.label())
                    .collect::<Vec<_>>()
                    .join(" before "),
                first.label(),
                times(last.p50_ns, first.p50_ns),
                last.label(),
                quotient(first.cpu_ns_per_message, last.cpu_ns_per_message),
            ));
        }
    }
    if sentences.is_empty() {
        return "No two channels with a 64 B round trip were measured: nothing to rank.".into();
    }
    sentences.join("\n")
}

fn times(slow: Option<u64>, fast: Option<u64>) -> String {
    format!("{:.1} times faster", quotient(slow, fast))
}

fn quotient(a: Option<u64>, b: Option<u64>) -> f64 {
    a.unwrap_or(0) as f64 / b.unwrap_or(0).max(1) as f64
}

/// A time of at most three digits and a unit.
pub(super) fn time(ns: f64) -> String {
    match ns {
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 999_500.0 => format!("{} us", digits(ns / 1e3)),
        ns => format!("{} ms", digits(ns / 1e6)),
    }
}

/// A number of about three digits and a prefix.
pub(super) fn count(number: f64) -> String {
    match number {
        n if n < 999.5 => digits(n),
        n if n < 999_500.0 => format!("{} k", digits(n / 1e3)),
        n if n < 999_500_000.0 => format!("{} M", digits(n / 1e6)),
        n => format!("{} G", digits(n / 1e9)),
    }
}

fn digits(number: f64) -> String {
    match number {
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

pub(super) fn bytes(size: usize) -> String {
    match size {
        size if size < 1024 => format!("{size} B"),
        size if size < 1 << 20 => format!("{} KiB", size >> 10),
        size => format!("{} MiB", size >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, time};

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(time(131.0), "131 ns");
        assert_eq!(time(5_912.0), "5.91 us");
        assert_eq!(time(72_400_000.0), "72.4 ms");
        assert_eq!(count(2_100_000.0), "2.10 M");
        assert_eq!(bytes(65536), "64 KiB");
    }
}

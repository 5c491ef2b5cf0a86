use crate::placement::Placement;
use crate::report::units::{count, time};
use crate::row::{Row, Status};
use crate::spec::{Strategy, Workload};

/// One column of a table, on the terminal and on the page.
pub(super) struct Column {
    pub(super) heading: &'static str,
    /// Characters on the terminal, with the space before it.
    pub(super) width: usize,
    pub(super) cell: fn(&Row) -> Option<String>,
}

const fn column(heading: &'static str, width: usize, cell: fn(&Row) -> Option<String>) -> Column {
    Column {
        heading,
        width,
        cell,
    }
}

/// The columns of a block of rows.
pub(super) fn of(workload: Workload, placement: Placement) -> Vec<Column> {
    let mut columns = Vec::new();
    if workload.is_timed_each() {
        columns.extend([
            column("p50", 9, |row| ns(row.p50_ns)),
            column("p90", 9, |row| ns(row.p90_ns)),
            column("p99", 9, |row| ns(row.p99_ns)),
            column("p99.9", 9, |row| ns(row.p999_ns)),
            column("max", 9, |row| ns(row.max_ns)),
        ]);
    }
    columns.push(column(rate(workload), 9, |row| {
        row.messages_per_s.map(count)
    }));
    if workload == Workload::Throughput {
        columns.push(column("B/s", 8, |row| row.bytes_per_s.map(count)));
    }
    columns.push(column(cpu(workload), 9, |row| ns(row.cpu_ns_per_message)));
    if !workload.is_of_processes() {
        columns.push(column("calls/msg", 10, calls));
    }
    let ratio = match (placement, workload) {
        (_, Workload::Task | Workload::Map) => "x Python",
        (Placement::Busy, _) => "x block",
        _ => "x floor",
    };
    columns.push(column(ratio, 9, |row| row.ratio_to_floor.map(ratio_of)));
    if matches!(workload, Workload::Throughput | Workload::Window) {
        columns.push(column("depth", 8, |row| {
            row.depth.map(|depth| depth.to_string())
        }));
    }
    columns
}

fn rate(workload: Workload) -> &'static str {
    match workload {
        Workload::Rtt | Workload::Window => "RTT/s",
        Workload::Throughput => "msgs/s",
        Workload::Start => "starts/s",
        Workload::Task | Workload::Map => "tasks/s",
    }
}

fn cpu(workload: Workload) -> &'static str {
    match workload {
        Workload::Rtt | Workload::Window | Workload::Throughput => "CPU/msg",
        Workload::Start => "CPU",
        Workload::Task | Workload::Map => "CPU/task",
    }
}

/// Who polls calls as often as a run slowed down by a tracer leaves time for.
fn calls(row: &Row) -> Option<String> {
    let count = format!("{:.2}", row.syscalls_per_message?);
    let polls = matches!(row.wait, Some(Strategy::Spin | Strategy::Adaptive));
    Some(if polls && count != "0.00" {
        format!("~{count}")
    } else {
        count
    })
}

fn ns(value: Option<u64>) -> Option<String> {
    value.map(|ns| time(ns as f64))
}

fn ratio_of(ratio: f64) -> String {
    if ratio < 0.0995 {
        format!("{ratio:.3}")
    } else if ratio < 99.5 {
        format!("{ratio:.2}")
    } else {
        format!("{ratio:.0}")
    }
}

/// The least and the greatest of the ratios whose median is in the table.
pub(super) fn ratio_of_turns(row: &Row) -> Option<String> {
    let (low, high) = (row.ratio_low?, row.ratio_high?);
    Some(format!("{} to {}", ratio_of(low), ratio_of(high)))
}

/// What is said about a row besides its figures.
pub(super) fn remark(row: &Row) -> Option<String> {
    let reason = row.reason.as_deref().unwrap_or("no reason given");
    match row.status {
        Status::Ok => row.note.clone(),
        Status::Unsupported => Some(format!("n/a ({reason})")),
        Status::Failed => Some(format!("FAILED ({reason})")),
    }
}

use std::fmt::Write as _;

use crate::machine::Machine;
use crate::placement::Placement;
use crate::report::units::{bytes, count, time};
use crate::row::{Row, Status};
use crate::spec::{Strategy, Workload};

const CHANNELS: &[&str] = &[
    "ipc-shm",
    "ipc-pipe",
    "ipc-socket",
    "ipc-mqueue",
    "ipc-signal",
    "ipc-file",
];

/// The figures of the workspace's README, as Markdown to be copied from: adaptive waiting, a core
/// each.
pub(super) fn render(machine: &Machine, rows: &[Row]) -> String {
    let mut text = String::from("| crate | round trip 64 B | one way 64 B |\n|---|---|---|\n");
    for channel in CHANNELS {
        let trip = cell(rows, channel, Workload::Rtt, |row| {
            row.p50_ns.map(|ns| time(ns as f64))
        });
        let rate = cell(rows, channel, Workload::Throughput, |row| {
            row.messages_per_s.map(|rate| count(rate) + "/s")
        });
        let _ = writeln!(text, "| `{channel}` | {trip} | {rate} |");
    }
    let _ = writeln!(
        text,
        "\nMedians of `cargo bench` with adaptive waiting, one process pinned to each of two cores: {}.",
        machine.summary()
    );
    text
}

/// At 64 B, or at the size below it for what cannot carry that.
fn cell(
    rows: &[Row],
    channel: &str,
    workload: Workload,
    figure: fn(&Row) -> Option<String>,
) -> String {
    let mut rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.implementation == channel && row.workload == workload)
        .filter(|row| row.placement == Placement::TwoCores && row.size <= 64)
        .filter(|row| row.wait == Some(Strategy::Adaptive) && row.status == Status::Ok)
        .collect();
    rows.sort_by_key(|row| row.size);
    let Some(row) = rows.last() else {
        return "not measured".into();
    };
    let figure = figure(row).unwrap_or_else(|| "not measured".into());
    if row.size == 64 {
        figure
    } else {
        format!("{figure} ({})", bytes(row.size))
    }
}

use std::fmt::Write as _;
use std::ops::Range;

use crate::machine::Machine;
use crate::placement::Placement;
use crate::report::columns::{self, remark};
use crate::report::svg::{Axis, Series, escape, plot};
use crate::report::table::{blocks, caption, ranking, where_at};
use crate::report::units::{bytes, count, time};
use crate::row::{Row, Status};
use crate::spec::{Strategy, Workload};

/// One file, no network, no script.
pub(super) fn render(machine: &Machine, rows: &[Row]) -> String {
    let mut page = String::from(HEAD);
    let _ = write!(
        page,
        "<p>{}</p>",
        escape(&ranking(rows)).replace('\n', "<br>")
    );
    for placement in Placement::ALL {
        let here: Vec<&Row> = rows
            .iter()
            .filter(|r| r.placement == placement && r.status == Status::Ok)
            .filter(|r| !r.workload.is_of_processes())
            .collect();
        if !here.is_empty() {
            let _ = write!(
                page,
                "<h2>Two processes, {}</h2>",
                escape(&where_at(placement, machine))
            );
            plots(&mut page, &here);
        }
    }
    let blocks = blocks(rows);
    let (processes, messages): (Vec<_>, Vec<_>) = blocks
        .iter()
        .partition(|block| block[0].workload.is_of_processes());
    for (heading, blocks, open) in [
        ("Processes and pools", processes, " open"),
        ("All rows of messages", messages, ""),
    ] {
        if !blocks.is_empty() {
            let _ = write!(page, "<h2>{heading}</h2>");
        }
        for block in blocks {
            table(&mut page, machine, block, open);
        }
    }
    about(&mut page, machine);
    page.push_str("</main></body></html>\n");
    page
}

const HEAD: &str = include_str!("head.html");

/// Which rows share a plot: few enough to be told apart.
struct View {
    title: &'static str,
    shows: fn(&Row) -> bool,
}

const VIEWS: &[View] = &[
    View {
        title: "The six, looking before they sleep, and their polled floors (dotted); long dashes: over TCP",
        shows: |row| match row.implementation.starts_with("floor:") {
            true => row.wait == Some(Strategy::Spin),
            false => is_channel(row) && row.wait == Some(Strategy::Adaptive),
        },
    },
    View {
        title: "The six, asleep at once, and their blocking floors (dotted); long dashes: over TCP",
        shows: |row| match row.implementation.starts_with("floor:") {
            true => row.wait == Some(Strategy::Block) || row.implementation == "floor:ring",
            false => is_channel(row) && row.wait == Some(Strategy::Block),
        },
    },
    View {
        title: "The six, adaptive, and their rivals (dashed); long dashes: in batches, over TCP, or without a copy",
        shows: |row| {
            row.implementation.starts_with("rival:")
                || (row.wait == Some(Strategy::Adaptive) && row.implementation.starts_with("ipc-"))
        },
    },
];

/// A channel as it is, over whatever it runs; not in batches and not in loans.
fn is_channel(row: &Row) -> bool {
    match row.implementation.split_once(':') {
        Some(("ipc-socket", "tcp")) => true,
        Some(_) => false,
        None => row.implementation.starts_with("ipc-"),
    }
}

fn plots(page: &mut String, rows: &[&Row]) {
    for view in VIEWS {
        let shown: Vec<&Row> = rows
            .iter()
            .filter(|row| (view.shows)(row))
            .copied()
            .collect();
        if shown.is_empty() {
            continue;
        }
        let _ = write!(page, "<h3>{}</h3>", escape(view.title));
        plots_of(page, &shown);
    }
}

fn plots_of(page: &mut String, rows: &[&Row]) {
    let latency = by_size(rows, Workload::Rtt, |row| row.p50_ns.map(|ns| ns as f64));
    figure(
        page,
        "Median round trip against size",
        &size_axis(),
        &time_axis("median round trip"),
        &latency,
    );
    let curves: Vec<_> = rows
        .iter()
        .filter(|row| row.workload == Workload::Rtt && row.curve.len() > 1)
        .filter(|row| row.size == 64 || (row.size == 8 && row.mechanism == "signal"))
        .map(|row| Series {
            points: row
                .curve
                .iter()
                .map(|&(share, ns)| (share as f64, ns as f64))
                .collect(),
            ..style(row)
        })
        .collect();
    figure(
        page,
        "Percentiles of the round trip, 64 B (signals: 8 B)",
        &nines_axis(),
        &time_axis("round trip"),
        &curves,
    );
    let rate = by_size(rows, Workload::Throughput, |row| row.messages_per_s);
    figure(
        page,
        "Messages a second, one way, against size",
        &size_axis(),
        &rate_axis("messages/s"),
        &rate,
    );
    let bandwidth = by_size(rows, Workload::Throughput, |row| row.bytes_per_s);
    figure(
        page,
        "Bytes a second, one way, against size",
        &size_axis(),
        &rate_axis("B/s"),
        &bandwidth,
    );
}

fn figure(page: &mut String, title: &str, x: &Axis, y: &Axis, series: &[Series]) {
    if series.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<figure><figcaption>{}</figcaption><div class=\"wide\">{}</div></figure>",
        escape(title),
        plot(title, x, y, series)
    );
}

fn by_size(rows: &[&Row], workload: Workload, figure: fn(&Row) -> Option<f64>) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for row in rows.iter().filter(|row| row.workload == workload) {
        let Some(value) = figure(row) else { continue };
        let point = (row.size as f64, value);
        let new = style(row);
        match series.iter_mut().find(|line| line.label == new.label) {
            Some(line) => line.points.push(point),
            None => series.push(Series {
                points: vec![point],
                ..new
            }),
        }
    }
    for line in &mut series {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    series
}

/// A colour a mechanism, told apart by the eye that sees no red or no green, on white and on black;
/// a pattern for each kind of row, and for each rival where a mechanism has several.
fn style(row: &Row) -> Series {
    let colour = match &*row.mechanism {
        "shm" => "#d55e00",
        "pipe" => "#2a85c8",
        "socket" => "#009e73",
        "mqueue" => "#cc79a7",
        "signal" => "#b8860b",
        "file" => "#9467bd",
        "python" => "#8c7a5b",
        _ => "#888888",
    };
    let dash = match row.implementation.split_once(':') {
        Some(("floor", _)) => "2 4",
        Some(("rival", "ipc-channel" | "python-Queue" | "iceoryx2:loan")) => "8 3 2 3",
        Some(("rival", _)) => "7 4",
        Some(_) => "16 4",
        None => "none",
    };
    let place = if row.mechanism == "threads" {
        " (in-process)"
    } else {
        ""
    };
    Series {
        label: row.label() + place,
        points: Vec::new(),
        dash,
        colour,
    }
}

fn size_axis() -> Axis {
    let sizes = [8, 64, 1024, 4096, 65536, 1 << 20];
    Axis {
        title: "message size (log)",
        ticks: sizes.map(|size| (size as f64, bytes(size))).into(),
        place: f64::log10,
    }
}

fn time_axis(title: &'static str) -> Axis {
    Axis {
        title,
        ticks: decades(1..10, time),
        place: f64::log10,
    }
}

fn rate_axis(title: &'static str) -> Axis {
    Axis {
        title,
        ticks: decades(1..13, count),
        place: f64::log10,
    }
}

/// The nine round values of each power of ten.
fn decades(powers: Range<i32>, label: fn(f64) -> String) -> Vec<(f64, String)> {
    powers
        .flat_map(|power| (1..10).map(move |digit| f64::from(digit) * 10_f64.powi(power)))
        .map(|value| (value, label(value)))
        .collect()
}

fn nines_axis() -> Axis {
    let ticks = [
        (5e5, "50 %"),
        (9e5, "90 %"),
        (9.9e5, "99 %"),
        (9.99e5, "99.9 %"),
        (999_900.0, "99.99 %"),
    ];
    Axis {
        title: "share of round trips (log of nines)",
        ticks: ticks.map(|(share, label)| (share, label.to_owned())).into(),
        place: |share| -(1.0 - share / 1e6).max(1e-7).log10(),
    }
}

fn table(page: &mut String, machine: &Machine, block: &[&Row], open: &str) {
    let first = block[0];
    let columns = columns::of(first.workload, first.placement);
    let _ = write!(
        page,
        "<details{open}><summary>{}</summary><div class=\"wide\"><table><tr><th>row",
        escape(&caption(machine, first))
    );
    for column in &columns {
        let _ = write!(page, "<th>{}", column.heading);
    }
    page.push_str("<th>of the turns<th class=\"note\">note");
    for row in block {
        let _ = write!(page, "<tr><td>{}", escape(&row.label()));
        for column in &columns {
            let _ = write!(page, "<td>{}", (column.cell)(row).unwrap_or_default());
        }
        let turns = columns::ratio_of_turns(row).unwrap_or_default();
        let note = remark(row).unwrap_or_default();
        let _ = write!(page, "<td>{turns}<td class=\"note\">{}", escape(&note));
    }
    page.push_str("</table></div></details>");
}

fn about(page: &mut String, machine: &Machine) {
    page.push_str("<h2>Machine and limits</h2><div class=\"wide\"><table class=\"machine\">");
    let fields = serde_json::to_value(machine).unwrap_or_default();
    for (name, value) in fields.as_object().into_iter().flatten() {
        if name == "limits" || value.is_null() {
            continue;
        }
        let value = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(items) => items
                .iter()
                .map(|item| {
                    item.as_str()
                        .map_or_else(|| item.to_string(), str::to_owned)
                })
                .collect::<Vec<_>>()
                .join("; "),
            value => value.to_string(),
        };
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"note\">{}",
            name.replace('_', " "),
            escape(&value)
        );
    }
    for limit in &machine.limits {
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"note\">{}",
            escape(&limit.name),
            escape(&limit.value)
        );
    }
    page.push_str("</table></div>");
}

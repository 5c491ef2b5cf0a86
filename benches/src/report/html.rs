use std::fmt::Write as _;

use crate::machine::Machine;
use crate::placement::Placement;
use crate::report::svg::{Axis, Series, escape, legend, plot};
use crate::report::table::{blocks, bytes, caption, count, ranking, time};
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
    for placement in [Placement::TwoCores, Placement::OneCore, Placement::Unpinned] {
        let here: Vec<&Row> = rows
            .iter()
            .filter(|r| r.placement == placement && r.status == Status::Ok)
            .collect();
        if !here.is_empty() {
            let _ = write!(page, "<h2>{}</h2>", heading(placement, machine));
            plots(&mut page, &here);
        }
    }
    page.push_str("<h2>All rows</h2>");
    for block in blocks(rows) {
        table(&mut page, machine, &block);
    }
    about(&mut page, machine);
    page.push_str("</main></body></html>\n");
    page
}

const HEAD: &str = include_str!("head.html");

fn heading(placement: Placement, machine: &Machine) -> String {
    match (placement, machine.pinned_to) {
        (Placement::TwoCores, [a, b]) => format!("One process a core (CPUs {a} and {b})"),
        (Placement::OneCore, [a, ..]) => format!("Both processes on one core (CPU {a})"),
        _ => "Wherever the scheduler puts them".into(),
    }
}

fn plots(page: &mut String, rows: &[&Row]) {
    let latency = by_size(rows, Workload::Rtt, |row| row.p50_ns.map(|ns| ns as f64));
    figure(
        page,
        "Median round trip against size",
        &size_axis(),
        &time_axis("p50"),
        &latency,
    );
    let rate = by_size(rows, Workload::Throughput, |row| row.messages_per_s);
    figure(
        page,
        "Messages a second against size",
        &size_axis(),
        &rate_axis("messages/s"),
        &rate,
    );
    let bandwidth = by_size(rows, Workload::Throughput, |row| row.bytes_per_s);
    figure(
        page,
        "Bytes a second against size",
        &size_axis(),
        &rate_axis("B/s"),
        &bandwidth,
    );
    let curves: Vec<_> = rows
        .iter()
        .filter(|row| row.workload == Workload::Rtt && matches!(row.size, 8 | 64))
        .filter(|row| row.curve.len() > 1)
        .filter(|row| row.size == 64 || row.mechanism == "signal")
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
}

fn figure(page: &mut String, title: &str, x: &Axis, y: &Axis, series: &[Series]) {
    if series.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<figure><figcaption>{}</figcaption>{}{}</figure>",
        escape(title),
        plot(title, x, y, series),
        legend(series)
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
        // A single size is still a visible mark.
        if let [only] = line.points[..] {
            line.points.push((only.0 * 1.15, only.1));
        }
    }
    series
}

/// A colour a mechanism, told apart by the eye that sees no red or no green; a dash for each way
/// of waiting and for what is not one of the six.
fn style(row: &Row) -> Series {
    let colour = match &*row.mechanism {
        "shm" => "#d55e00",
        "pipe" => "#0072b2",
        "socket" => "#009e73",
        "mqueue" => "#cc79a7",
        "signal" => "#b8860b",
        "file" => "#56b4e9",
        _ => "#888888",
    };
    let dash = match (row.implementation.split(':').next(), row.wait) {
        (Some("floor"), _) => "2 3",
        (Some("rival"), _) => "8 3 2 3",
        (_, Some(Strategy::Block)) => "9 4",
        (_, Some(Strategy::Adaptive)) => "15 3",
        _ => "none",
    };
    Series {
        label: row.label(),
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
    let ticks = (1..10)
        .map(|power| 10_f64.powi(power))
        .map(|ns| (ns, time(ns)))
        .collect();
    Axis {
        title,
        ticks,
        place: f64::log10,
    }
}

fn rate_axis(title: &'static str) -> Axis {
    let ticks = (1..13)
        .map(|power| 10_f64.powi(power))
        .map(|n| (n, count(n)))
        .collect();
    Axis {
        title,
        ticks,
        place: f64::log10,
    }
}

fn nines_axis() -> Axis {
    let ticks = [
        (0.0, "min"),
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

fn table(page: &mut String, machine: &Machine, block: &[&Row]) {
    let rtt = block[0].workload == Workload::Rtt;
    let _ = write!(
        page,
        "<details><summary>{}</summary><table>",
        escape(&caption(machine, block[0]))
    );
    page.push_str(if rtt {
        "<tr><th>row<th>p50<th>p90<th>p99<th>p99.9<th>CPU/msg<th>calls/msg<th>x floor<th>depth<th>note"
    } else {
        "<tr><th>row<th>messages/s<th>B/s<th>CPU/msg<th>calls/msg<th>x floor<th>depth<th>note"
    });
    for row in block {
        let ns = |value: Option<u64>| value.map_or(String::new(), |ns| time(ns as f64));
        let number = |value: Option<f64>| value.map_or(String::new(), |n| format!("{n:.2}"));
        let rate = |value: Option<f64>| value.map_or(String::new(), count);
        let figures = if rtt {
            vec![
                ns(row.p50_ns),
                ns(row.p90_ns),
                ns(row.p99_ns),
                ns(row.p999_ns),
            ]
        } else {
            vec![rate(row.messages_per_s), rate(row.bytes_per_s)]
        };
        let _ = write!(page, "<tr><td>{}", escape(&row.label()));
        for figure in figures {
            let _ = write!(page, "<td>{figure}");
        }
        let note = match row.status {
            Status::Ok => row.note.clone().unwrap_or_default(),
            Status::Unsupported => format!("n/a ({})", row.reason.as_deref().unwrap_or("")),
            Status::Failed => format!("FAILED ({})", row.reason.as_deref().unwrap_or("")),
        };
        let _ = write!(
            page,
            "<td>{}<td>{}<td>{}<td>{}<td class=\"note\">{}",
            ns(row.cpu_ns_per_message),
            number(row.syscalls_per_message),
            number(row.ratio_to_floor),
            row.depth.map_or(String::new(), |depth| depth.to_string()),
            escape(&note)
        );
    }
    page.push_str("</table></details>");
}

fn about(page: &mut String, machine: &Machine) {
    page.push_str("<h2>Machine and limits</h2><table class=\"machine\">");
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
    page.push_str("</table>");
}

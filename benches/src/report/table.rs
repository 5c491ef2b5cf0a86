use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::machine::Machine;
use crate::placement::{Placement, share_a_core};
use crate::report::columns::{self, remark};
use crate::report::units::{bytes, time, wrap};
use crate::row::{Row, Status};
use crate::spec::{WINDOW, Workload};

/// No line is longer, so that a terminal or a mail does not break it.
const WIDTH: usize = 118;

/// What the columns mean, for someone who sees them for the first time.
const LEGEND: &str = "\
One table for each exchange, size and placement, the best row first. A row is a channel and how its ends wait:
`block` sleeps in the kernel at once, `spin` looks without sleeping, `adaptive` (the default) looks as long as
that pays and then sleeps. `:batch` offers the sender 64 messages a call, `:loan` copies none, `:tcp` is within
this machine.
`floor:` rows are the same exchange in bare system calls or bare memory, `rival:` rows are other libraries.
  p50 ... max  time of one round trip, as its sender sees it: half took at most p50, 999 of 1000 at most p99.9
  CPU/msg      processor time of both processes for one message (for one round trip, where there is one)
  calls/msg    system calls of both processes, counted while a tracer slows them down; ~: somebody polled
  x floor      times: how many times the floor's (less is better). msgs/s: share of the floor's (more is better)
  x Python     the same, to what `multiprocessing.Pool` takes for the same tasks, or does in a second
  depth        messages that fit before a sender has to wait; 0: not even one fits whole
";

/// Everything as plain text: one block per workload, placement and size, the best row first.
pub(super) fn render(machine: &Machine, rows: &[Row]) -> String {
    let mut text = format!("\n{LEGEND}");
    for block in blocks(rows) {
        text.push('\n');
        text.push_str(&render_block(machine, &block));
    }
    text
}

fn render_block(machine: &Machine, block: &[&Row]) -> String {
    let first = block[0];
    let caption = wrap(&caption(machine, first), WIDTH, 2);
    let mut text = format!("{caption}\n{}\n", machine.summary());
    let columns = columns::of(first.workload, first.placement);
    let label = block.iter().map(|row| row.label().len()).max().unwrap_or(0);
    let _ = write!(text, "{:label$}", "");
    for column in &columns {
        let _ = write!(text, "{:>1$}", column.heading, column.width);
    }
    text.push('\n');
    let mut remarks: Vec<String> = Vec::new();
    let mut missing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in block {
        if row.status == Status::Unsupported {
            let reason = row.reason.as_deref().unwrap_or_default();
            missing.entry(reason).or_default().push(row.label());
            continue;
        }
        let mut line = format!("{:label$}", row.label());
        if row.status == Status::Ok {
            for column in &columns {
                let cell = (column.cell)(row).unwrap_or_else(|| "-".into());
                let _ = write!(line, "{cell:>0$}", column.width);
            }
        }
        if let Some(remark) = remark(row) {
            line.push_str(&note(&mut remarks, remark, &line));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for (reason, rows) in missing {
        let line = format!("n/a ({reason}): {}", rows.join(", "));
        let _ = writeln!(text, "{}", wrap(&line, WIDTH, 4));
    }
    for (number, remark) in remarks.iter().enumerate() {
        let line = format!("[{}] {remark}", number + 1);
        let _ = writeln!(text, "{}", wrap(&line, WIDTH, 4));
    }
    text
}

/// A remark where it fits behind its line, or the number of its line below the table.
fn note(remarks: &mut Vec<String>, remark: String, line: &str) -> String {
    if line.chars().count() + 2 + remark.chars().count() <= WIDTH {
        return format!("  {remark}");
    }
    let number = remarks.iter().position(|known| *known == remark);
    let number = number.unwrap_or_else(|| {
        remarks.push(remark);
        remarks.len() - 1
    });
    format!("  [{}]", number + 1)
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

/// Processes after messages.
fn key(row: &Row) -> (bool, Placement, Workload, Option<u64>, usize) {
    let of_processes = row.workload.is_of_processes();
    (
        of_processes,
        row.placement,
        row.workload,
        row.task_ns,
        row.size,
    )
}

/// The least first: time of an exchange, or of a message; rows without figures last.
fn rank(row: &Row) -> f64 {
    let figure = if row.workload.is_timed_each() {
        row.p50_ns.map(|ns| ns as f64)
    } else {
        row.messages_per_s.map(|rate| 1e9 / rate)
    };
    match row.status {
        Status::Ok => figure.unwrap_or(f64::MAX / 4.0),
        Status::Unsupported => f64::MAX / 2.0,
        Status::Failed => f64::MAX,
    }
}

/// What a block is about, complete enough to be pasted elsewhere.
pub(super) fn caption(machine: &Machine, row: &Row) -> String {
    let size = bytes(row.size);
    let task = match row.task_ns {
        None | Some(0) => "an empty task".to_owned(),
        Some(ns) => format!("a task of {}", time(ns as f64)),
    };
    let what = match row.workload {
        Workload::Rtt => {
            format!("IPC round trip · {size} · two processes · one message on its way")
        }
        Workload::Window => {
            format!("IPC round trips · {size} · two processes · {WINDOW} messages on their way")
        }
        Workload::Throughput => {
            format!("IPC one way · {size} · two processes · as fast as it goes")
        }
        Workload::Start if row.size == 0 => {
            "A process that does nothing, start to join · small parent".into()
        }
        Workload::Start => {
            format!("A process that does nothing, start to join · parent that holds {size}")
        }
        Workload::Task => {
            format!("Pool of two processes · {task}, {size} of argument · one at a time")
        }
        Workload::Map => {
            format!("Pool of two processes · {task}, {size} of argument · all at once")
        }
    };
    let clock = if row.workload.is_timed_each() {
        format!(" · clock {} ns taken off", machine.clock_reading_ns)
    } else {
        String::new()
    };
    format!("{what} · {}{clock}", where_at(row.placement, machine))
}

/// A placement in words, with its processors.
pub(super) fn where_at(placement: Placement, machine: &Machine) -> String {
    match (placement, machine.pinned_to) {
        (Placement::TwoCores, [a, b]) if share_a_core(*a, *b) => {
            format!("two hardware threads of ONE core, CPUs {a} and {b}")
        }
        (Placement::TwoCores, [a, b]) => format!("a core each, CPUs {a} and {b}"),
        (Placement::OneCore, [a, ..]) => format!("both on one core, CPU {a}"),
        (Placement::Busy, [a, b]) => format!("CPUs {a} and {b}, a busy neighbour on each"),
        (Placement::Unpinned, _) => "unpinned".into(),
        (placement, _) => placement.to_string(),
    }
}

/// Who is first, and what it costs: a line for each placement.
pub(super) fn ranking(rows: &[Row]) -> String {
    if rows.iter().all(|row| row.workload.is_of_processes()) {
        return String::new();
    }
    let sentences: Vec<_> = blocks(rows)
        .iter()
        .filter(|block| block[0].workload == Workload::Rtt && block[0].size == 64)
        .filter_map(|block| sentence(block))
        .collect();
    if sentences.is_empty() {
        return "No two channels with a 64 B round trip were measured: nothing to rank.".into();
    }
    sentences.join("\n")
}

/// [`ranking`] for the terminal.
pub(super) fn wrapped_ranking(rows: &[Row]) -> String {
    let ranking = ranking(rows);
    let lines: Vec<_> = ranking.lines().map(|line| wrap(line, WIDTH, 2)).collect();
    lines.join("\n")
}

/// The best row of each mechanism, first to last.
fn sentence(block: &[&Row]) -> Option<String> {
    let mut best: Vec<&Row> = Vec::new();
    for row in block {
        let ours = row.status == Status::Ok
            && row.implementation.starts_with("ipc-")
            && !row.implementation.contains(':');
        if ours && !best.iter().any(|other| other.mechanism == row.mechanism) {
            best.push(row);
        }
    }
    let [first, .., last] = best[..] else {
        return None;
    };
    let names: Vec<_> = best.iter().map(|row| row.label()).collect();
    Some(format!(
        "Round trip of 64 B, {}: {}. {} ran {:.1} times faster than {}, at {:.2} x its processor time.",
        first.placement,
        names.join(" before "),
        first.label(),
        quotient(last.p50_ns, first.p50_ns),
        last.label(),
        quotient(first.cpu_ns_per_message, last.cpu_ns_per_message),
    ))
}

fn quotient(a: Option<u64>, b: Option<u64>) -> f64 {
    a.unwrap_or(0) as f64 / b.unwrap_or(0).max(1) as f64
}

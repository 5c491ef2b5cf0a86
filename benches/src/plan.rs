use crate::catalog;
use crate::implementation::Implementation;
use crate::placement::Placement;
use crate::rivals::python;
use crate::settings::Settings;
use crate::spec::{Spec, Strategy, Workload, is_bulk};

/// Rows that are measured side by side, turn by turn: one mechanism, one workload, one size, one
/// placement.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) contestants: Vec<(&'static Implementation, Spec)>,
}

/// What all rows of a table have in common, besides their mechanism.
#[derive(Clone, Copy)]
struct Shape {
    placement: Placement,
    workload: Workload,
    size: usize,
    task_ns: u64,
}

/// What a signal carries; only its own round trips are this short.
const WORD: usize = 8;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const MILLISECOND: u64 = 1_000_000;

/// Everything that these settings ask for.
pub(crate) fn groups(settings: &Settings) -> Vec<Group> {
    let python = python::is_installed();
    if !python {
        eprintln!("there is no python3: its rows are left out");
    }
    let mut groups = Vec::new();
    for shape in shapes(settings) {
        for mechanism in mechanisms() {
            groups.extend(group(settings, shape, mechanism, python));
        }
    }
    groups
}

fn shapes(settings: &Settings) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for &placement in &settings.placements {
        let messages: [(Workload, &[usize]); 3] = match placement {
            Placement::Busy => [
                (Workload::Rtt, &[WORD, 64]),
                (Workload::Window, &[]),
                (Workload::Throughput, &[64]),
            ],
            _ if settings.quick => [
                (Workload::Rtt, &[WORD, 64, 4 * KIB]),
                (Workload::Window, &[]),
                (Workload::Throughput, &[64, 64 * KIB]),
            ],
            Placement::TwoCores => [
                (Workload::Rtt, &[WORD, 64, KIB, 4 * KIB, 64 * KIB]),
                (Workload::Window, &[WORD, 64]),
                (Workload::Throughput, &[WORD, 64, KIB, 64 * KIB, MIB]),
            ],
            Placement::OneCore | Placement::Unpinned => [
                (Workload::Rtt, &[WORD, 64, KIB, 4 * KIB, 64 * KIB]),
                (Workload::Window, &[]),
                (Workload::Throughput, &[WORD, 64, KIB, 64 * KIB, MIB]),
            ],
        };
        for (workload, sizes) in messages {
            shapes.extend(sizes.iter().map(|&size| Shape {
                placement,
                workload,
                size,
                task_ns: 0,
            }));
        }
    }
    if settings.processes {
        shapes.extend(shapes_of_processes(settings.quick));
    }
    shapes
}

/// Processes and pools run wherever the scheduler puts them.
fn shapes_of_processes(quick: bool) -> Vec<Shape> {
    let all = [
        (Workload::Start, 0, 0),
        (Workload::Start, 256 * MIB, 0),
        (Workload::Task, WORD, 0),
        (Workload::Task, WORD, MILLISECOND),
        (Workload::Task, MIB, 0),
        (Workload::Map, WORD, 0),
        (Workload::Map, WORD, MILLISECOND),
        (Workload::Map, MIB, 0),
    ];
    all.into_iter()
        .filter(|&(_, size, task_ns)| !quick || (size <= WORD && task_ns == 0))
        .map(|(workload, size, task_ns)| Shape {
            placement: Placement::Unpinned,
            workload,
            size,
            task_ns,
        })
        .collect()
}

fn mechanisms() -> Vec<&'static str> {
    let mut mechanisms: Vec<&str> = Vec::new();
    for implementation in catalog::all() {
        if !mechanisms.contains(&implementation.mechanism) {
            mechanisms.push(implementation.mechanism);
        }
    }
    mechanisms
}

fn group(
    settings: &Settings,
    shape: Shape,
    mechanism: &'static str,
    python: bool,
) -> Option<Group> {
    let contestants: Vec<_> = catalog::all()
        .filter(|i| i.mechanism == mechanism && has_a_row(i, shape))
        .filter(|i| python || !i.id.contains("python"))
        .flat_map(|i| i.waits.iter().map(move |&wait| (i, wait)))
        .filter(|&(_, wait)| says_something(shape, wait))
        .map(|(implementation, wait)| {
            let spec = Spec {
                implementation: implementation.id.into(),
                mechanism: mechanism.into(),
                wait,
                workload: shape.workload,
                size: shape.size,
                task_ns: shape.task_ns,
                placement: shape.placement,
            };
            (implementation, spec)
        })
        .collect();
    // A floor alone is no comparison, but a row without its floor is none either.
    let wanted = contestants
        .iter()
        .any(|(_, spec)| settings.wants(&spec.id()));
    let contestants: Vec<_> = contestants
        .into_iter()
        .filter(|(i, spec)| wanted && (i.is_floor() || settings.wants(&spec.id())))
        .collect();
    let name = contestants.first()?.1.group();
    Some(Group { name, contestants })
}

fn has_a_row(implementation: &Implementation, shape: Shape) -> bool {
    let Shape {
        placement,
        workload,
        size,
        ..
    } = shape;
    let Implementation {
        id,
        mechanism,
        sizes,
        workloads,
        ..
    } = implementation;
    // Round trips of a word are those of signals, which carry no more.
    let as_short_as_it_gets = workload == Workload::Throughput
        || workload.is_of_processes()
        || (size == WORD) == (*mechanism == "signal");
    workloads.contains(&workload)
        && (sizes.is_empty() || sizes.contains(&size))
        && as_short_as_it_gets
        // A batch spares the price of a call, which bulk does not feel.
        && !(id.ends_with(":batch") && is_bulk(size))
        && (*id != "floor:memcpy" || is_bulk(size))
        // The disk does not care which core asks.
        && !(id.contains(":durable") && placement != Placement::TwoCores)
        // How a channel waits among busy neighbours is compared with how it blocks there.
        && !(placement == Placement::Busy && (!id.starts_with("ipc-") || id.contains(':')))
}

/// On one core a spinning process keeps its peer from running: a round trip then takes two slices
/// of the scheduler, which says nothing about the channel. Among busy neighbours the question is
/// whether to look or to sleep.
fn says_something(shape: Shape, wait: Option<Strategy>) -> bool {
    match (shape.placement, wait) {
        (Placement::OneCore, Some(Strategy::Spin)) => false,
        (Placement::OneCore, Some(Strategy::Adaptive)) => shape.workload == Workload::Rtt,
        (Placement::Busy, wait) => wait != Some(Strategy::Spin),
        _ => true,
    }
}

/// The implementations that a row may be compared with: the same exchange, waited for in the same
/// way, in bare calls or bare memory. Of two, with the one that was better.
pub(crate) fn floors_of(spec: &Spec) -> &'static [&'static str] {
    let asleep =
        spec.placement == Placement::OneCore || matches!(spec.wait, Some(Strategy::Block) | None);
    let stream = spec.workload == Workload::Throughput;
    // A sender and a receiver that both have something to do do not wait.
    let either = |floors: &'static [&'static str; 2]| match (asleep, stream) {
        (true, _) => &floors[..1],
        (false, true) => &floors[..],
        (false, false) => &floors[1..],
    };
    match (&*spec.mechanism, spec.workload) {
        // Nothing bare does without a copy as a loan does.
        _ if spec.implementation.ends_with(":loan") => &[],
        ("pipe", _) => either(&["floor:pipe", "floor:pipe-polled"]),
        ("socket", _) if spec.implementation.contains(":tcp") => {
            either(&["floor:tcp", "floor:tcp-polled"])
        }
        ("socket", _) => either(&["floor:unix-stream", "floor:unix-stream-polled"]),
        ("mqueue", _) => either(&["floor:mqueue", "floor:mqueue-polled"]),
        ("signal", _) => either(&["floor:signal", "floor:signal-polled"]),
        ("shm", Workload::Rtt) => either(&["floor:futex", "floor:cache-line"]),
        ("shm", Workload::Throughput) if is_bulk(spec.size) => &["floor:memcpy", "floor:ring"],
        // The ring cannot sleep; a stream need not.
        ("shm", _) if stream || !asleep => &["floor:ring"],
        ("file", _) if is_durable(spec) && spec.implementation.ends_with(":batch") => {
            &["floor:file:durable:batch"]
        }
        ("file", _) if is_durable(spec) => &["floor:file:durable"],
        // A file has no blocking floor; a stream is compared with the polling one.
        ("file", _) if stream || !asleep => &["floor:file"],
        ("process", Workload::Start) => match &*spec.implementation {
            "floor:fork" | "ipc-process:zygote" | "rival:python-Process" => &["floor:fork"],
            _ => &["floor:posix_spawn"],
        },
        // No bare call runs a task: pools are compared with the one that everybody knows.
        ("process", _) if spec.implementation.ends_with(":chunk=1") => {
            &["rival:python-Pool:chunk=1"]
        }
        ("process", _) => &["rival:python-Pool"],
        _ => &[],
    }
}

/// Whether a row's messages must outlive a loss of power.
pub(crate) fn is_durable(spec: &Spec) -> bool {
    spec.implementation.contains(":durable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(implementation: &str, mechanism: &str, wait: Strategy, workload: Workload) -> Spec {
        Spec {
            implementation: implementation.into(),
            mechanism: mechanism.into(),
            wait: Some(wait),
            workload,
            size: 64,
            task_ns: 0,
            placement: Placement::TwoCores,
        }
    }

    #[test]
    fn a_floor_waits_as_its_row_does() {
        let floors = |wait, workload| floors_of(&spec("ipc-pipe", "pipe", wait, workload));
        assert_eq!(floors(Strategy::Block, Workload::Rtt), ["floor:pipe"]);
        assert_eq!(
            floors(Strategy::Block, Workload::Throughput),
            ["floor:pipe"]
        );
        let polled = ["floor:pipe-polled"];
        assert_eq!(floors(Strategy::Adaptive, Workload::Rtt), polled);
        assert_eq!(floors(Strategy::Spin, Workload::Window), polled);
        let both = ["floor:pipe", "floor:pipe-polled"];
        assert_eq!(floors(Strategy::Adaptive, Workload::Throughput), both);
    }

    #[test]
    fn every_floor_that_is_named_is_in_the_catalog() {
        for implementation in catalog::all() {
            for &wait in implementation.waits {
                for &workload in implementation.workloads {
                    let Some(wait) = wait else { continue };
                    let spec = spec(implementation.id, implementation.mechanism, wait, workload);
                    for floor in floors_of(&spec) {
                        assert!(catalog::find(floor).is_some(), "{floor} is not measured");
                    }
                }
            }
        }
    }
}

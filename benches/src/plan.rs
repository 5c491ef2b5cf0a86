use crate::catalog::{CATALOG, Implementation};
use crate::placement::Placement;
use crate::rivals::python;
use crate::settings::Settings;
use crate::spec::{Spec, Strategy, Workload};

/// Rows that are measured side by side, turn by turn: one mechanism, one workload, one size, one
/// placement.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) contestants: Vec<(&'static Implementation, Spec)>,
}

const RTT: &[usize] = &[64, 1024, 4096, 65536];
const THROUGHPUT: &[usize] = &[8, 64, 1024, 65536, 1 << 20];
/// What a signal carries; only its own rows are this short.
const WORD: usize = 8;

/// Everything that these settings ask for.
pub(crate) fn groups(settings: &Settings) -> Vec<Group> {
    let mut groups = Vec::new();
    let python = settings.might_want("python") && python::is_installed();
    for &placement in &settings.placements {
        for workload in [Workload::Rtt, Workload::Throughput] {
            for size in sizes(workload, settings.quick) {
                for mechanism in mechanisms() {
                    let skipped = mechanism == "python" && !python;
                    if !skipped
                        && (workload, size == WORD) != (Workload::Rtt, mechanism != "signal")
                    {
                        groups.extend(group(settings, placement, workload, size, mechanism));
                    }
                }
            }
        }
    }
    groups
}

fn sizes(workload: Workload, quick: bool) -> Vec<usize> {
    match (workload, quick) {
        (Workload::Rtt, false) => [&[WORD], RTT].concat(),
        (Workload::Rtt, true) => vec![WORD, 64, 4096],
        (Workload::Throughput, false) => THROUGHPUT.into(),
        (Workload::Throughput, true) => vec![64, 65536],
    }
}

fn mechanisms() -> Vec<&'static str> {
    let mut mechanisms: Vec<&str> = Vec::new();
    for implementation in CATALOG {
        if !mechanisms.contains(&implementation.mechanism) {
            mechanisms.push(implementation.mechanism);
        }
    }
    mechanisms
}

fn group(
    settings: &Settings,
    placement: Placement,
    workload: Workload,
    size: usize,
    mechanism: &'static str,
) -> Option<Group> {
    let contestants: Vec<_> = CATALOG
        .iter()
        .filter(|i| i.mechanism == mechanism && i.workloads.contains(&workload))
        .flat_map(|i| i.waits.iter().map(move |&wait| (i, wait)))
        .filter(|(_, wait)| belongs(placement, workload, *wait))
        .filter(|(i, _)| match i.id {
            "floor:memcpy" => is_bulk(size),
            // A batch spares the price of a call, which bulk does not feel.
            id => !id.ends_with(":batch") || !is_bulk(size),
        })
        .map(|(implementation, wait)| {
            let spec = Spec {
                implementation: implementation.id.into(),
                mechanism: mechanism.into(),
                wait,
                workload,
                size,
                placement,
            };
            (implementation, spec)
        })
        .collect();
    // A floor alone is no comparison, but a row without its floor is none either.
    let wanted = contestants
        .iter()
        .any(|(_, spec)| settings.might_want(&spec.id()));
    let contestants: Vec<_> = contestants
        .into_iter()
        .filter(|(i, spec)| wanted && (i.is_floor() || settings.might_want(&spec.id())))
        .collect();
    let name = format!("{workload}/{placement}/{size}");
    (!contestants.is_empty()).then_some(Group { name, contestants })
}

/// Where bandwidth counts and no longer the price of a message.
fn is_bulk(size: usize) -> bool {
    size >= 64 * 1024
}

/// On one core a spinning process keeps its peer from running: a round trip then takes two slices
/// of the scheduler, which says nothing about the channel.
fn belongs(placement: Placement, workload: Workload, wait: Option<Strategy>) -> bool {
    placement != Placement::OneCore
        || match wait {
            Some(Strategy::Spin) => false,
            Some(Strategy::Adaptive) => workload == Workload::Rtt,
            Some(Strategy::Block) | None => true,
        }
}

/// The floor of a row among the rows of its group: the same way of waiting, in bare calls.
pub(crate) fn floor_of<'a>(
    spec: &Spec,
    floors: impl Iterator<Item = &'a Spec> + Clone,
) -> Option<&'a Spec> {
    if spec.mechanism == "shm" && spec.workload == Workload::Throughput {
        let name = if is_bulk(spec.size) {
            "floor:memcpy"
        } else {
            "floor:ring"
        };
        return floors.clone().find(|floor| floor.implementation == name);
    }
    let sleeps = spec.workload == Workload::Throughput
        || spec.placement == Placement::OneCore
        || matches!(spec.wait, Some(Strategy::Block) | None);
    let wait = if sleeps {
        Strategy::Block
    } else {
        Strategy::Spin
    };
    let same = floors.clone().find(|floor| floor.wait == Some(wait));
    // A file has no blocking floor; its stream is compared with the polling one.
    same.or_else(|| {
        floors
            .clone()
            .next()
            .filter(|_| spec.workload == Workload::Throughput)
    })
}

use std::fmt;
use std::fs;
use std::sync::LazyLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::spec::Side;

/// Where the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Placement {
    /// Each pinned to a core of its own.
    TwoCores,
    /// Both pinned to the same core.
    OneCore,
    /// Wherever the scheduler puts them.
    Unpinned,
    /// Each pinned to a core of its own, where a neighbour already keeps that core busy.
    Busy,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoCores => "two-cores",
            Self::OneCore => "one-core",
            Self::Unpinned => "unpinned",
            Self::Busy => "busy",
        })
    }
}

/// The processors that pinned rows use, of those that this process might run on before it pinned
/// itself: the first, and the next one that is not a thread of the same core, if there is any.
pub(crate) fn processors() -> &'static [usize] {
    static PROCESSORS: LazyLock<Vec<usize>> = LazyLock::new(|| {
        let Ok(allowed) = sched_getaffinity(None) else {
            return Vec::new();
        };
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
        let Some(first) = allowed.next() else {
            return Vec::new();
        };
        let rest: Vec<usize> = allowed.collect();
        let elsewhere = rest.iter().find(|&&cpu| !share_a_core(first, cpu));
        let second = elsewhere.or(rest.first()).copied();
        [Some(first), second].into_iter().flatten().collect()
    });
    &PROCESSORS
}

/// Whether two processors are threads of one core; where the kernel does not say, they are not.
pub(crate) fn share_a_core(a: usize, b: usize) -> bool {
    siblings(a).is_some_and(|of_a| siblings(b).is_some_and(|of_b| of_a == of_b))
}

/// The processors that are threads of the same core as this one, itself among them.
pub(crate) fn siblings(cpu: usize) -> Option<String> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

impl Placement {
    pub(crate) const ALL: [Self; 4] = [Self::TwoCores, Self::OneCore, Self::Unpinned, Self::Busy];

    /// The processor for one side; `None` leaves it to the scheduler.
    ///
    /// # Errors
    /// `Unsupported` where there are too few processors.
    pub fn processor(self, side: Side) -> Outcome<Option<usize>> {
        match (self, side, processors()) {
            (Self::Unpinned, ..) => Ok(None),
            (Self::OneCore, _, [first, ..])
            | (Self::TwoCores | Self::Busy, Side::Initiator | Side::Solo, [first, _]) => {
                Ok(Some(*first))
            }
            (Self::TwoCores | Self::Busy, Side::Responder, [_, second]) => Ok(Some(*second)),
            _ => Err(Failure::Unsupported("needs two processors".into())),
        }
    }

    /// Pins the calling thread for its side.
    pub(crate) fn apply(self, side: Side) -> Outcome<()> {
        let Some(cpu) = self.processor(side)? else {
            return Ok(());
        };
        pin(cpu)
    }
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ipc_core::{Wait, WaitStrategy, Waiter};
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

/// The processors that pinned rows use: the first two that this process might run on before it
/// pinned itself.
pub(crate) fn processors() -> &'static [usize] {
    static PROCESSORS: LazyLock<Vec<usize>> = LazyLock::new(|| {
        let Ok(allowed) = sched_getaffinity(None) else {
            return Vec::new();
        };
        (0..CpuSet::MAX_CPU)
            .filter(|&cpu| allowed.is_set(cpu))
            .take(2)
            .collect()
    });
    &PROCESSORS
}

impl Placement {
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
        if matches!(self, Self::TwoCores | Self::Busy) {
            know_the_processors();
        }
        pin(cpu)
    }
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// `ipc-core` reads once how many processors the process may run on and does not spin on a single
/// one. A process pinned to its own core beside a peer on another is not alone, so it must look
/// before it is pinned.
fn know_the_processors() {
    let soon = Wait::Until(Instant::now() + Duration::from_nanos(1));
    let _: Result<Option<()>, ()> = Waiter::new(WaitStrategy::Spin).look(soon, || Ok(None));
}

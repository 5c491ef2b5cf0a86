use std::fmt;

use ipc_core::WaitStrategy;
use serde::{Deserialize, Serialize};

use crate::placement::Placement;

/// One row: what runs, what it carries, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spec {
    /// Which implementation, such as `"ipc-shm"` or `"rival:iceoryx2"`.
    pub implementation: String,
    /// What it is built on.
    pub mechanism: String,
    /// How both ends wait, where that can be chosen.
    pub wait: Option<Strategy>,
    /// What is done.
    pub workload: Workload,
    /// Bytes of a message or of a task's argument; for [`Workload::Start`], bytes of memory that
    /// the starting process holds.
    pub size: usize,
    /// How long a task works, in nanoseconds; 0 but for tasks.
    #[serde(default)]
    pub task_ns: u64,
    /// Where the processes run.
    pub placement: Placement,
}

impl Spec {
    /// The bytes of messages that fit before a sender waits, where one may choose: what is usual
    /// for small messages, at least four messages of the large ones, and for streams of bulk in
    /// shared memory as much as `ipc-shm` advises.
    #[must_use]
    pub fn capacity(&self) -> usize {
        let stream = self.mechanism == "shm" && self.workload == Workload::Throughput;
        let least = if stream && is_bulk(self.size) {
            BULK_CAPACITY
        } else {
            DEFAULT_CAPACITY
        };
        (4 * self.size).max(least)
    }

    /// The messages that fit into [`capacity`](Self::capacity), for what counts messages.
    #[must_use]
    pub fn depth(&self) -> usize {
        (self.capacity() / self.size.max(1)).max(4)
    }

    /// Workload, placement and size: what rows share that are compared with each other.
    pub(crate) fn group(&self) -> String {
        let Self {
            workload,
            placement,
            size,
            task_ns,
            ..
        } = self;
        match task_ns / 1000 {
            0 => format!("{workload}/{placement}/{size}"),
            us => format!("{workload}/{placement}/{size}+{us}us"),
        }
    }

    /// The name that criterion keeps its baselines under, and that a filter is matched against.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.group(), self.id_in_group())
    }

    pub(crate) fn id_in_group(&self) -> String {
        let wait = self.wait.map_or(String::new(), |wait| format!("/{wait}"));
        format!("{}/{}{wait}", self.mechanism, self.implementation)
    }
}

/// What a pipe holds unasked (`pipe(7)`); every row gets the same where it can be chosen.
const DEFAULT_CAPACITY: usize = 64 * 1024;

/// More than a core's own cache holds (`ipc_shm::Options::capacity`).
const BULK_CAPACITY: usize = 4 << 20;

/// Where bandwidth counts and no longer the price of a message.
pub(crate) fn is_bulk(size: usize) -> bool {
    size >= 64 * 1024
}

/// What is done, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// One message there, the same message back, closed loop.
    Rtt,
    /// As [`Rtt`](Self::Rtt) with [`WINDOW`] messages on their way at a time.
    Window,
    /// Messages one way, as fast as they go.
    Throughput,
    /// A process that does nothing, from its start until it has been waited for.
    Start,
    /// One task at a time, given to a pool of two processes.
    Task,
    /// Many tasks at once, given to a pool of two processes.
    Map,
}

/// Messages on their way in [`Workload::Window`], whatever the channel could hold.
pub const WINDOW: u64 = 8;

impl Workload {
    /// Whether each exchange is timed on its own, which gives percentiles.
    pub(crate) fn is_timed_each(self) -> bool {
        matches!(self, Self::Rtt | Self::Start | Self::Task)
    }

    /// Whether it is about processes and not about messages.
    pub(crate) fn is_of_processes(self) -> bool {
        matches!(self, Self::Start | Self::Task | Self::Map)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rtt => "rtt",
            Self::Window => "window",
            Self::Throughput => "throughput",
            Self::Start => "start",
            Self::Task => "task",
            Self::Map => "map",
        })
    }
}

/// How both ends wait; [`WaitStrategy`] with a name in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Asleep in the kernel.
    Block,
    /// Looking without sleeping.
    Spin,
    /// Looking for a while, then asleep.
    Adaptive,
}

impl From<Strategy> for WaitStrategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Block => Self::Block,
            Strategy::Spin => Self::Spin,
            Strategy::Adaptive => Self::Adaptive,
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
        })
    }
}

/// Which part of the exchange a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Sends first, holds the clock of round trips.
    Initiator,
    /// Answers, or takes in.
    Responder,
    /// Both, in one process: marked so in every report.
    Solo,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
            Self::Solo => "process",
        })
    }
}

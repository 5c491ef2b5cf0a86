use std::fmt;

use ipc_core::WaitStrategy;
use serde::{Deserialize, Serialize};

use crate::placement::Placement;

/// One row: what runs, what it carries, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) implementation: String,
    pub(crate) mechanism: String,
    pub(crate) wait: Option<Strategy>,
    pub(crate) workload: Workload,
    pub(crate) size: usize,
    pub(crate) placement: Placement,
}

impl Spec {
    /// The bytes of messages that fit before a sender waits, where one may choose: what is usual
    /// for small messages, at least four messages of the large ones.
    pub(crate) fn capacity(&self) -> usize {
        (4 * self.size).max(DEFAULT_CAPACITY)
    }

    /// The name that criterion keeps its baselines under, and that a filter is matched against.
    pub(crate) fn id(&self) -> String {
        let wait = self.wait.map_or(String::new(), |wait| format!("/{wait}"));
        let Self {
            workload,
            placement,
            size,
            mechanism,
            implementation,
            ..
        } = self;
        format!("{workload}/{placement}/{size}/{mechanism}/{implementation}{wait}")
    }
}

/// What a pipe holds unasked (`pipe(7)`); every row gets the same where it can be chosen.
const DEFAULT_CAPACITY: usize = 64 * 1024;

/// What two processes do with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// One message there, the same message back, closed loop.
    Rtt,
    /// Messages one way, as fast as they go.
    Throughput,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rtt => "rtt",
            Self::Throughput => "throughput",
        })
    }
}

/// How both ends wait; [`WaitStrategy`] with a name in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Strategy {
    Block,
    Spin,
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
pub(crate) enum Side {
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

use std::fmt;
use std::io;
use std::process::Command;

use crate::channel::{ChannelLink, Measured};
use crate::control::{Bundle, Control};
use crate::failure::Outcome;
use crate::peer::{Link, Solo, serve_link, serve_solo};
use crate::spec::{Side, Spec, Strategy, Workload};

/// Something that can be measured: a floor, a channel of this workspace, or a rival.
#[derive(Clone, Copy)]
pub struct Implementation {
    /// As reports print it; `floor:` and `rival:` say what it is there for.
    pub(crate) id: &'static str,
    /// What it is built on, which is also what it is compared within.
    pub(crate) mechanism: &'static str,
    /// One row each.
    pub(crate) waits: &'static [Option<Strategy>],
    pub(crate) workloads: &'static [Workload],
    /// The only sizes it is measured at; empty for all.
    pub(crate) sizes: &'static [usize],
    /// What a reader of the table must know.
    pub(crate) note: &'static str,
    open: fn(&Spec, [u32; 2]) -> Outcome<[Bundle; 2]>,
    serve: fn(&Spec, Side, Bundle, &Control) -> io::Result<()>,
    depth: fn(&Spec) -> Option<u64>,
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Shape {
    /// Two processes of this program.
    Pair,
    /// One process of this program that is both sides.
    Solo,
    /// Another program that sees to both sides itself.
    Foreign(fn(&Spec) -> Command),
}

const MESSAGES: &[Workload] = &[Workload::Rtt, Workload::Window, Workload::Throughput];
const EACH: &[Option<Strategy>] = &[
    Some(Strategy::Block),
    Some(Strategy::Spin),
    Some(Strategy::Adaptive),
];
const BATCHED: &[Option<Strategy>] = &[Some(Strategy::Block), Some(Strategy::Adaptive)];
const BLOCK: &[Option<Strategy>] = &[Some(Strategy::Block)];

impl Implementation {
    /// Two processes and what connects them: messages of every workload and size, one row for each
    /// way of waiting.
    #[must_use]
    pub const fn pair<L: Link>(id: &'static str, mechanism: &'static str) -> Self {
        Self {
            id,
            mechanism,
            waits: EACH,
            workloads: MESSAGES,
            sizes: &[],
            note: "",
            open: L::open,
            serve: serve_link::<L>,
            depth: L::depth,
            shape: Shape::Pair,
        }
    }

    pub(crate) const fn channel<M: Measured>(id: &'static str, mechanism: &'static str) -> Self {
        Self::pair::<ChannelLink<M, false>>(id, mechanism)
    }

    /// The sender is offered several messages at a time; the receiver takes one a call.
    pub(crate) const fn batched<M: Measured>(id: &'static str, mechanism: &'static str) -> Self {
        Self::pair::<ChannelLink<M, true>>(id, mechanism)
            .workloads(&[Workload::Throughput])
            .waits(BATCHED)
    }

    /// One process that does everything, or starts what it needs by itself.
    #[must_use]
    pub const fn solo<S: Solo>(id: &'static str, mechanism: &'static str) -> Self {
        Self {
            id,
            mechanism,
            waits: &[None],
            workloads: MESSAGES,
            sizes: &[],
            note: "in one process",
            open: nothing,
            serve: serve_solo::<S>,
            depth: S::depth,
            shape: Shape::Solo,
        }
    }

    pub(crate) const fn foreign(
        id: &'static str,
        mechanism: &'static str,
        command: fn(&Spec) -> Command,
    ) -> Self {
        Self {
            id,
            mechanism,
            waits: BLOCK,
            workloads: MESSAGES,
            sizes: &[],
            note: "",
            open: nothing,
            serve: serve_nothing,
            depth: unknown,
            shape: Shape::Foreign(command),
        }
    }

    /// Only these ways of waiting.
    #[must_use]
    pub const fn waits(self, waits: &'static [Option<Strategy>]) -> Self {
        Self { waits, ..self }
    }

    /// Only these workloads.
    #[must_use]
    pub const fn workloads(self, workloads: &'static [Workload]) -> Self {
        Self { workloads, ..self }
    }

    /// Only these sizes.
    #[must_use]
    pub const fn sizes(self, sizes: &'static [usize]) -> Self {
        Self { sizes, ..self }
    }

    /// What a reader of its rows must know.
    #[must_use]
    pub const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    pub(crate) fn is_floor(&self) -> bool {
        self.id.starts_with("floor:")
    }

    /// Whether it is one process of its own kind, so that there is one control socket.
    pub(crate) fn is_alone(&self) -> bool {
        !matches!(self.shape, Shape::Pair)
    }

    /// Whether its system calls can be counted from outside: both sides are this program's own
    /// single-threaded processes.
    pub(crate) fn is_countable(&self) -> bool {
        matches!(self.shape, Shape::Pair)
    }

    /// The program to run instead of this one.
    pub(crate) fn foreign_command(&self, spec: &Spec) -> Option<Command> {
        match self.shape {
            Shape::Foreign(command) => Some(command(spec)),
            Shape::Pair | Shape::Solo => None,
        }
    }

    pub(crate) fn open(&self, spec: &Spec, peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        (self.open)(spec, peers)
    }

    pub(crate) fn serve(
        &self,
        spec: &Spec,
        side: Side,
        bundle: Bundle,
        control: &Control,
    ) -> io::Result<()> {
        (self.serve)(spec, side, bundle, control)
    }

    pub(crate) fn depth(&self, spec: &Spec) -> Option<u64> {
        (self.depth)(spec)
    }
}

impl fmt::Debug for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Implementation")
            .field("id", &self.id)
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

fn nothing(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
    Ok(Default::default())
}

fn serve_nothing(_: &Spec, _: Side, _: Bundle, _: &Control) -> io::Result<()> {
    Err(io::Error::other("not a side of this program"))
}

fn unknown(_: &Spec) -> Option<u64> {
    None
}

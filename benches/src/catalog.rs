use std::io;
use std::process::Command;

use ipc_core::Channel;

use crate::channel::ChannelLink;
use crate::control::{Bundle, Control};
use crate::failure::Outcome;
use crate::floors::{bytes, copy, file, line, queue, ring, signal};
use crate::peer::{Link, Solo, serve_link, serve_solo};
use crate::rivals::{crossbeam, ipc_channel, python, queue as crate_queue, segment, std_streams};
use crate::spec::{Side, Spec, Strategy, Workload};

/// Something that can be measured.
#[derive(Clone, Copy)]
pub(crate) struct Implementation {
    /// As reports print it; `floor:` and `rival:` say what it is there for.
    pub(crate) id: &'static str,
    /// What it is built on, which is also what it is compared within.
    pub(crate) mechanism: &'static str,
    /// One row each.
    pub(crate) waits: &'static [Option<Strategy>],
    pub(crate) workloads: &'static [Workload],
    /// What a reader of the table must know.
    pub(crate) note: &'static str,
    open: fn(&Spec, [u32; 2]) -> Outcome<[Bundle; 2]>,
    serve: fn(&Spec, Side, Bundle, &Control) -> io::Result<()>,
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

const BOTH: &[Workload] = &[Workload::Rtt, Workload::Throughput];
const RTT: &[Workload] = &[Workload::Rtt];
const THROUGHPUT: &[Workload] = &[Workload::Throughput];
const EACH: &[Option<Strategy>] = &[
    Some(Strategy::Block),
    Some(Strategy::Spin),
    Some(Strategy::Adaptive),
];
const BLOCK: &[Option<Strategy>] = &[Some(Strategy::Block)];
const BATCHED: &[Option<Strategy>] = &[Some(Strategy::Block), Some(Strategy::Adaptive)];
const SPIN: &[Option<Strategy>] = &[Some(Strategy::Spin)];

impl Implementation {
    const fn pair<L: Link>(id: &'static str, mechanism: &'static str) -> Self {
        Self {
            id,
            mechanism,
            waits: EACH,
            workloads: BOTH,
            note: "",
            open: L::open,
            serve: serve_link::<L>,
            shape: Shape::Pair,
        }
    }

    const fn channel<C: Channel>(id: &'static str, mechanism: &'static str) -> Self {
        Self::pair::<ChannelLink<C, false>>(id, mechanism)
    }

    /// The sender is offered several messages at a time; the receiver takes one a call.
    const fn batched<C: Channel>(id: &'static str, mechanism: &'static str) -> Self {
        Self::pair::<ChannelLink<C, true>>(id, mechanism)
            .workloads(THROUGHPUT)
            .waits(BATCHED)
    }

    const fn solo<S: Solo>(id: &'static str, mechanism: &'static str) -> Self {
        Self {
            id,
            mechanism,
            waits: &[None],
            workloads: BOTH,
            note: "in one process",
            open: nothing,
            serve: serve_solo::<S>,
            shape: Shape::Solo,
        }
    }

    const fn foreign(
        id: &'static str,
        mechanism: &'static str,
        command: fn(&Spec) -> Command,
    ) -> Self {
        Self {
            id,
            mechanism,
            waits: BLOCK,
            workloads: BOTH,
            note: "",
            open: nothing,
            serve: serve_nothing,
            shape: Shape::Foreign(command),
        }
    }

    const fn waits(self, waits: &'static [Option<Strategy>]) -> Self {
        Self { waits, ..self }
    }

    const fn workloads(self, workloads: &'static [Workload]) -> Self {
        Self { workloads, ..self }
    }

    const fn note(self, note: &'static str) -> Self {
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
}

fn nothing(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
    Ok(Default::default())
}

fn serve_nothing(_: &Spec, _: Side, _: Bundle, _: &Control) -> io::Result<()> {
    Err(io::Error::other("not a side of this program"))
}

/// Everything, floors first within a mechanism.
pub(crate) const CATALOG: &[Implementation] = &[
    Implementation::pair::<bytes::PipeLink<false>>("floor:pipe", "pipe").waits(BLOCK),
    Implementation::pair::<bytes::PipeLink<true>>("floor:pipe-polled", "pipe").waits(SPIN),
    Implementation::channel::<ipc_pipe::Pipe>("ipc-pipe", "pipe"),
    Implementation::batched::<ipc_pipe::Pipe>("ipc-pipe:batch", "pipe"),
    Implementation::pair::<std_streams::StdPipe>("rival:std-pipe", "pipe").waits(BLOCK),
    Implementation::pair::<bytes::UnixLink<false>>("floor:unix-stream", "socket").waits(BLOCK),
    Implementation::pair::<bytes::UnixLink<true>>("floor:unix-stream-polled", "socket").waits(SPIN),
    Implementation::channel::<ipc_socket::Socket>("ipc-socket", "socket"),
    Implementation::batched::<ipc_socket::Socket>("ipc-socket:batch", "socket"),
    Implementation::pair::<std_streams::StdUnix>("rival:UnixStream", "socket").waits(BLOCK),
    Implementation::pair::<ipc_channel::IpcChannelLink>("rival:ipc-channel", "socket").waits(BLOCK),
    Implementation::pair::<queue::QueueLink<false>>("floor:mqueue", "mqueue").waits(BLOCK),
    Implementation::pair::<queue::QueueLink<true>>("floor:mqueue-polled", "mqueue").waits(SPIN),
    Implementation::channel::<ipc_mqueue::MessageQueue>("ipc-mqueue", "mqueue"),
    Implementation::pair::<crate_queue::CrateQueueLink>("rival:posixmq", "mqueue").waits(BLOCK),
    Implementation::pair::<line::LineLink<true>>("floor:futex", "shm")
        .waits(BLOCK)
        .workloads(RTT),
    Implementation::pair::<line::LineLink<false>>("floor:cache-line", "shm")
        .waits(SPIN)
        .workloads(RTT),
    Implementation::pair::<ring::RingLink>("floor:ring", "shm")
        .waits(SPIN)
        .workloads(THROUGHPUT),
    Implementation::solo::<copy::Copy>("floor:memcpy", "shm").workloads(THROUGHPUT),
    Implementation::channel::<ipc_shm::SharedMemory>("ipc-shm", "shm"),
    Implementation::batched::<ipc_shm::SharedMemory>("ipc-shm:batch", "shm"),
    Implementation::pair::<segment::SegmentLink>("rival:shared_memory", "shm")
        .waits(SPIN)
        .note("one message in flight"),
    Implementation::pair::<signal::SignalLink<false>>("floor:signal", "signal").waits(BLOCK),
    Implementation::pair::<signal::SignalLink<true>>("floor:signal-polled", "signal").waits(SPIN),
    Implementation::channel::<ipc_signal::SignalQueue>("ipc-signal", "signal"),
    Implementation::pair::<file::FileLink>("floor:file", "file").waits(SPIN),
    Implementation::channel::<ipc_file::FileLog>("ipc-file", "file"),
    Implementation::batched::<ipc_file::FileLog>("ipc-file:batch", "file"),
    Implementation::solo::<crossbeam::Threads>("rival:crossbeam-channel", "threads")
        .note("IN ONE PROCESS: two threads"),
    Implementation::foreign("rival:python-Pipe", "python", python::command),
    Implementation::foreign("rival:python-Queue", "python", python::command),
];

pub(crate) fn find(id: &str) -> Option<&'static Implementation> {
    CATALOG
        .iter()
        .find(|implementation| implementation.id == id)
}

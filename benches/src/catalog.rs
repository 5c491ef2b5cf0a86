use std::sync::OnceLock;

use crate::channel;
use crate::durable::LogLink;
use crate::floors::bytes::{self, SocketLink, Tcp, Unix};
use crate::floors::{copy, durable, file, line, queue, ring, signal};
use crate::implementation::Implementation;
use crate::loan::LoanLink;
use crate::processes::bare::{Fork, PosixSpawn, StdCommand};
use crate::processes::own::{Own, OwnPool};
use crate::processes::starts::Starts;
use crate::processes::tasks::Pools;
use crate::processes::{python as python_processes, threads};
use crate::rivals::{crossbeam, ipc_channel, python, queue as crate_queue, segment, std_streams};
use crate::spec::{Strategy, Workload};

const BLOCK: &[Option<Strategy>] = &[Some(Strategy::Block)];
const SPIN: &[Option<Strategy>] = &[Some(Strategy::Spin)];
const BLOCK_OR_ADAPTIVE: &[Option<Strategy>] = &[Some(Strategy::Block), Some(Strategy::Adaptive)];
const ADAPTIVE: &[Option<Strategy>] = &[Some(Strategy::Adaptive)];

const RTT: &[Workload] = &[Workload::Rtt];
const THROUGHPUT: &[Workload] = &[Workload::Throughput];
/// For what holds a single message, so that eight cannot be on their way.
const NO_WINDOW: &[Workload] = &[Workload::Rtt, Workload::Throughput];
const STREAMS: &[Workload] = &[Workload::Window, Workload::Throughput];

const NO_WAIT: &[Option<Strategy>] = &[None];
const START: &[Workload] = &[Workload::Start];
const TASKS: &[Workload] = &[Workload::Task, Workload::Map];
const MAP: &[Workload] = &[Workload::Map];

/// Each message, or each batch, costs the disk a turn: two sizes show it.
const DURABLE_SIZES: &[usize] = &[64, 1024];
/// Another road for what sockets carry: two sizes show what it costs.
const TCP_SIZES: &[usize] = &[64, 64 << 10];
const DURABLE: &str = "a log that outlives a loss of power";

/// Everything of this package, floors first within a mechanism.
const CATALOG: &[Implementation] = &[
    Implementation::pair::<bytes::PipeLink<false>>("floor:pipe", "pipe").waits(BLOCK),
    Implementation::pair::<bytes::PipeLink<true>>("floor:pipe-polled", "pipe").waits(SPIN),
    Implementation::channel::<ipc_pipe::Pipe>("ipc-pipe", "pipe"),
    Implementation::batched::<ipc_pipe::Pipe>("ipc-pipe:batch", "pipe"),
    Implementation::pair::<std_streams::StdPipe>("rival:std-pipe", "pipe").waits(BLOCK),
    Implementation::pair::<SocketLink<Unix, false>>("floor:unix-stream", "socket").waits(BLOCK),
    Implementation::pair::<SocketLink<Unix, true>>("floor:unix-stream-polled", "socket")
        .waits(SPIN),
    Implementation::pair::<SocketLink<Tcp, false>>("floor:tcp", "socket")
        .waits(BLOCK)
        .workloads(NO_WINDOW)
        .sizes(TCP_SIZES),
    Implementation::pair::<SocketLink<Tcp, true>>("floor:tcp-polled", "socket")
        .waits(SPIN)
        .workloads(NO_WINDOW)
        .sizes(TCP_SIZES),
    Implementation::channel::<ipc_socket::Socket>("ipc-socket", "socket"),
    Implementation::batched::<ipc_socket::Socket>("ipc-socket:batch", "socket"),
    Implementation::channel::<channel::Tcp>("ipc-socket:tcp", "socket")
        .waits(BLOCK_OR_ADAPTIVE)
        .workloads(NO_WINDOW)
        .sizes(TCP_SIZES)
        .note("127.0.0.1"),
    Implementation::batched::<channel::Tcp>("ipc-socket:tcp:batch", "socket")
        .workloads(THROUGHPUT)
        .sizes(TCP_SIZES)
        .note("127.0.0.1"),
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
        .workloads(STREAMS),
    Implementation::solo::<copy::Copy>("floor:memcpy", "shm").workloads(THROUGHPUT),
    Implementation::channel::<ipc_shm::SharedMemory>("ipc-shm", "shm"),
    Implementation::batched::<ipc_shm::SharedMemory>("ipc-shm:batch", "shm"),
    Implementation::pair::<LoanLink>("ipc-shm:loan", "shm")
        .waits(ADAPTIVE)
        .workloads(NO_WINDOW)
        .note("written and read in place; touched: the first and the last 8 B"),
    Implementation::pair::<segment::SegmentLink>("rival:shared_memory", "shm")
        .waits(SPIN)
        .workloads(NO_WINDOW)
        .note("one message in flight"),
    Implementation::pair::<signal::SignalLink<false>>("floor:signal", "signal").waits(BLOCK),
    Implementation::pair::<signal::SignalLink<true>>("floor:signal-polled", "signal").waits(SPIN),
    Implementation::channel::<ipc_signal::SignalQueue>("ipc-signal", "signal"),
    Implementation::pair::<file::FileLink>("floor:file", "file").waits(SPIN),
    Implementation::solo::<durable::Synced<false>>("floor:file:durable", "file")
        .workloads(THROUGHPUT)
        .sizes(DURABLE_SIZES)
        .note("in one process: written and synced, read by nobody"),
    Implementation::solo::<durable::Synced<true>>("floor:file:durable:batch", "file")
        .workloads(THROUGHPUT)
        .sizes(DURABLE_SIZES)
        .note("in one process: one write and one sync for 64 messages, read by nobody"),
    Implementation::channel::<ipc_file::FileLog>("ipc-file", "file"),
    Implementation::batched::<ipc_file::FileLog>("ipc-file:batch", "file"),
    Implementation::pair::<LogLink<false>>("ipc-file:durable", "file")
        .workloads(THROUGHPUT)
        .waits(BLOCK)
        .sizes(DURABLE_SIZES)
        .note(DURABLE),
    Implementation::pair::<LogLink<true>>("ipc-file:durable:batch", "file")
        .workloads(THROUGHPUT)
        .waits(BLOCK)
        .sizes(DURABLE_SIZES)
        .note(DURABLE),
    Implementation::solo::<crossbeam::Threads<false>>("rival:crossbeam-channel", "threads")
        .waits(BLOCK)
        .note("IN ONE PROCESS: two threads"),
    Implementation::solo::<crossbeam::Threads<true>>("rival:crossbeam-channel:polled", "threads")
        .waits(SPIN)
        .note("IN ONE PROCESS: two threads"),
    Implementation::foreign("rival:python-Pipe", "python", python::command),
    Implementation::foreign("rival:python-Queue", "python", python::command),
    Implementation::solo::<Starts<Fork>>("floor:fork", "process")
        .workloads(START)
        .note(""),
    Implementation::solo::<Starts<PosixSpawn>>("floor:posix_spawn", "process")
        .workloads(START)
        .note("this very program"),
    Implementation::solo::<Starts<Own<false>>>("ipc-process:spawn", "process")
        .workloads(START)
        .note(""),
    Implementation::solo::<Starts<Own<true>>>("ipc-process:zygote", "process")
        .workloads(START)
        .note(""),
    Implementation::solo::<Starts<StdCommand>>("rival:Command", "process")
        .workloads(START)
        .note("this very program"),
    Implementation::foreign("rival:python-Process", "process", python_processes::command)
        .waits(NO_WAIT)
        .workloads(START)
        .note("by fork"),
    Implementation::solo::<Pools<OwnPool<false>>>("ipc-process:pool", "process")
        .workloads(TASKS)
        .note(""),
    Implementation::solo::<Pools<OwnPool<true>>>("ipc-process:pool:chunk=1", "process")
        .workloads(MAP)
        .note("one task a message"),
    Implementation::foreign("rival:python-Pool", "process", python_processes::command)
        .waits(NO_WAIT)
        .workloads(TASKS)
        .note("by fork"),
    Implementation::foreign(
        "rival:python-Pool:chunk=1",
        "process",
        python_processes::command,
    )
    .waits(NO_WAIT)
    .workloads(MAP)
    .note("by fork; one task a message"),
    Implementation::foreign(
        "rival:python-ProcessPoolExecutor",
        "process",
        python_processes::command,
    )
    .waits(NO_WAIT)
    .workloads(TASKS)
    .note("by fork"),
    Implementation::solo::<Pools<threads::Rayon>>("rival:rayon", "process")
        .workloads(TASKS)
        .note("IN ONE PROCESS: two threads"),
];

static RIVALS: OnceLock<&[Implementation]> = OnceLock::new();

/// Measures these too. Without them everything is measured; with them, only the mechanisms that
/// they are built on. To be called once, before anything is looked up.
pub(crate) fn add(rivals: &'static [Implementation]) {
    // A second call would be a second `main`; the first one's rivals then stay.
    let _ = RIVALS.set(rivals);
}

fn rivals() -> &'static [Implementation] {
    RIVALS.get().copied().unwrap_or_default()
}

/// What is to be measured, floors first within a mechanism.
pub(crate) fn all() -> impl Iterator<Item = &'static Implementation> {
    let rivals = rivals();
    let own = CATALOG.iter().filter(|implementation| {
        rivals.is_empty()
            || rivals
                .iter()
                .any(|r| r.mechanism == implementation.mechanism)
    });
    own.chain(rivals)
}

pub(crate) fn find(id: &str) -> Option<&'static Implementation> {
    all().find(|implementation| implementation.id == id)
}

//! Rivals in a workspace of their own: `iceoryx2`, `interprocess` and `procspawn`, measured like
//! everything else and beside the channels that use the same mechanism.
//!
//! `cargo bench --manifest-path benches/peers/Cargo.toml`; `iceoryx2` needs libclang to build.

mod iceoryx;
mod interprocess;
mod processes;

use std::process::ExitCode;

use ipc_benches::{Implementation, Pools, Starts, Strategy, Workload};

use crate::iceoryx::Iceoryx;
use crate::interprocess::{LocalSocket, UnnamedPipe};
use crate::processes::{ProcSpawn, ProcSpawnPool};

const BLOCK: &[Option<Strategy>] = &[Some(Strategy::Block)];
const SPIN: &[Option<Strategy>] = &[Some(Strategy::Spin)];
const NO_WINDOW: &[Workload] = &[Workload::Rtt, Workload::Throughput];

const RIVALS: &[Implementation] = &[
    Implementation::pair::<Iceoryx<false, false>>("rival:iceoryx2", "shm")
        .waits(SPIN)
        .note("polled, copied in and out"),
    Implementation::pair::<Iceoryx<true, false>>("rival:iceoryx2:event", "shm")
        .waits(BLOCK)
        .note("an event a message; copied in and out"),
    Implementation::pair::<Iceoryx<false, true>>("rival:iceoryx2:loan", "shm")
        .waits(SPIN)
        .workloads(NO_WINDOW)
        .note("polled, in place; touched: the first and the last 8 B"),
    Implementation::pair::<LocalSocket>("rival:interprocess-local_socket", "socket").waits(BLOCK),
    Implementation::pair::<UnnamedPipe>("rival:interprocess-unnamed_pipe", "pipe").waits(BLOCK),
    Implementation::solo::<Starts<ProcSpawn>>("rival:procspawn", "process")
        .workloads(&[Workload::Start])
        .note(""),
    Implementation::solo::<Pools<ProcSpawnPool>>("rival:procspawn-pool", "process")
        .workloads(&[Workload::Task, Workload::Map])
        .note(""),
];

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    // A process that `procspawn` started goes no further.
    procspawn::init();
    ipc_benches::main_with(RIVALS, iceoryx::remove_files)
}

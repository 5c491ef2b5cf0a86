//! How a case runs: in a process of its own, with its peers in others, watched from the test.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc_core::{Channel, Tunable, WaitStrategy};
use ipc_process::{Process, Target};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::board::Board;
use crate::scratch::Scratch;

thread_local! {
    static PATIENCE: Cell<Duration> = const { Cell::new(Duration::from_secs(60)) };
}

/// Runs cases with a watchdog that barks after this time instead of 60 s; for channels that are
/// known to hang.
pub fn with_patience<T>(patience: Duration, run: impl FnOnce() -> T) -> T {
    let usual = PATIENCE.replace(patience);
    let value = run();
    PATIENCE.set(usual);
    value
}

/// What one side of a running case knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    side: String,
    board: Board,
    directory: PathBuf,
}

/// Runs a case. The test itself only watches: so whatever the case does to its process, its
/// descriptors, its signals or its umask touches no other case, and a side that hangs can be
/// killed with all its peers.
pub(crate) fn run<F>(channel: &str, name: &str, home: F)
where
    F: Target<(Case,), Output = ()>,
{
    let scratch = Scratch::new();
    let board = Board::new();
    let case = Case {
        side: "home".to_owned(),
        board: board.another(),
        directory: scratch.path().to_owned(),
    };
    board.note("home", "being started");
    let process = Process::new(home, (case,))
        .name(name)
        .daemon(true)
        .start()
        .unwrap_or_else(|error| panic!("{channel}: {name}: not started: {error}"));
    let patience = PATIENCE.get();
    let ended = process
        .wait_timeout(patience)
        .expect("waiting for the case");
    if ended.is_none() {
        let steps = board.summary();
        // Its peers are daemons and die with it.
        let _ = process.kill();
        let _ = process.join();
        panic!("{channel}: {name}: hung for {patience:?}; the last step of each side:\n{steps}");
    }
    if let Err(error) = process.join() {
        let steps = board.summary();
        panic!("{channel}: {name}: {error}\nthe last step of each side:\n{steps}");
    }
}

impl Case {
    /// Says what this side does next, for the watchdog.
    pub(crate) fn step(&self, step: &str) {
        self.board.note(&self.side, step);
    }

    /// Starts another side in its own process, which ends with this one.
    pub(crate) fn start<F, A>(&self, side: &str, run: F, arguments: A) -> Process<F::Output>
    where
        F: Target<(Self, A)>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let case = Self {
            side: side.to_owned(),
            board: self.board.another(),
            directory: self.directory.clone(),
        };
        case.step("being started");
        Process::new(run, (case, arguments))
            .name(side)
            .daemon(true)
            .start()
            .unwrap_or_else(|error| panic!("{side} was not started: {error}"))
    }

    /// Waits for the end of another side.
    pub(crate) fn join<R>(&self, side: &str, process: Process<R>) -> R
    where
        R: Serialize + DeserializeOwned + 'static,
    {
        self.step(&format!("waiting for the end of {side}"));
        process
            .join()
            .unwrap_or_else(|error| panic!("{side}: {error}"))
    }

    /// A directory of this case, mode 0700.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A nameless channel with the default options.
pub(crate) fn pair<C: Channel>() -> (C::Sender, C::Receiver) {
    pair_with::<C>(&C::Options::default())
}

pub(crate) fn pair_with<C: Channel>(options: &C::Options) -> (C::Sender, C::Receiver) {
    C::pair(options).unwrap_or_else(|error| panic!("no channel: {error}"))
}

/// A small channel, which is soon full where it can be.
pub(crate) fn small<C: Channel>(strategy: WaitStrategy) -> (C::Sender, C::Receiver) {
    pair_with::<C>(
        &C::Options::default()
            .capacity(16 << 10)
            .wait_strategy(strategy),
    )
}

/// No test carries longer messages than this, whatever the channel could.
pub(crate) const LONGEST: usize = 1 << 20;

/// The longest message to test with.
pub(crate) fn longest(limits: ipc_core::Limits) -> usize {
    limits.max_message.min(LONGEST)
}

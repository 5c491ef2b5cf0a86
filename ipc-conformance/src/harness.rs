//! How a case runs: in a process of its own, with its peers in others, watched from the test.

use std::any::Any;
use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use ipc_core::{Channel, DeathNotice, End, Handoff, Tunable, WaitStrategy};
use ipc_process::{Process, Target};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::board::{Board, Gate};
use crate::content::Random;
use crate::procfs;
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
    /// Whether the other sides run in processes of their own, rather than in threads of this one.
    crosses: bool,
}

/// Whether the ends of this channel can be in different processes.
pub(crate) fn crosses<C: Channel>() -> bool {
    C::CAPABILITIES.death != DeathNotice::SameProcess
}

/// Runs a case. The test itself only watches: so whatever the case does to its process, its
/// descriptors, its signals or its umask touches no other case, and a side that hangs can be
/// killed with all its peers.
pub(crate) fn run<C, F>(name: &str, home: F)
where
    C: Channel,
    F: Target<(Case,), Output = ()>,
{
    let channel = C::NAME;
    let scratch = Scratch::new();
    let board = Board::new();
    let case = Case {
        side: "home".to_owned(),
        board: board.another(),
        directory: scratch.path().to_owned(),
        crosses: crosses::<C>(),
    };
    board.note("home", STARTING);
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

    /// Numbers for this run alone. Their seed stands among the steps when the case fails, and
    /// `IPC_CONFORMANCE_SEED` brings them back.
    pub(crate) fn random(&self) -> Random {
        let given = std::env::var("IPC_CONFORMANCE_SEED").ok();
        let seed = given
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| RandomState::new().build_hasher().finish());
        self.board
            .note("seed", &format!("IPC_CONFORMANCE_SEED={seed}"));
        Random::new(seed)
    }

    /// Starts another side in its own process, or thread, which ends with this process.
    pub(crate) fn start<F, A>(&self, side: &str, run: F, arguments: A) -> Peer<F::Output>
    where
        F: Target<(Self, A)> + Send,
        F::Output: Send,
        A: Serialize + DeserializeOwned + Send + 'static,
    {
        let case = Self {
            side: side.to_owned(),
            board: self.board.another(),
            directory: self.directory.clone(),
            crosses: self.crosses,
        };
        case.step(STARTING);
        let board = self.board.another();
        let work = if self.crosses {
            let process = Process::new(run, (case, arguments))
                .name(side)
                .daemon(true)
                .start()
                .unwrap_or_else(|error| panic!("{side} was not started: {error}"));
            Work::Process(process)
        } else {
            let (tell, told) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                let _ = tell.send(rustix::thread::gettid().as_raw_pid());
                run.call((case, arguments))
            });
            let id = told.recv().expect("a thread starts");
            Work::Thread(id, thread)
        };
        Peer {
            side: side.to_owned(),
            board,
            work,
        }
    }

    /// Waits for the end of another side.
    pub(crate) fn join<R>(&self, peer: Peer<R>) -> R
    where
        R: Serialize + DeserializeOwned + 'static,
    {
        let side = peer.side;
        self.step(&format!("waiting for the end of {side}"));
        match peer.work {
            Work::Process(process) => process
                .join()
                .unwrap_or_else(|error| panic!("{side}: {error}")),
            Work::Thread(_, thread) => thread
                .join()
                .unwrap_or_else(|panic| panic!("{side}: {}", text_of(&*panic))),
        }
    }

    /// A directory of this case, mode 0700.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Another side of a case, at work.
#[derive(Debug)]
pub(crate) struct Peer<R> {
    side: String,
    board: Board,
    work: Work<R>,
}

#[derive(Debug)]
enum Work<R> {
    Process(Process<R>),
    Thread(i32, JoinHandle<R>),
}

impl<R> Peer<R> {
    /// Waits until it has begun its first step and all of it sleeps in the kernel.
    pub(crate) fn until_asleep(&self) {
        procfs::until(&format!("{} to begin and fall asleep", self.side), || {
            self.board
                .last_step(&self.side)
                .is_some_and(|step| step != STARTING)
                && match &self.work {
                    Work::Process(process) => procfs::all_are(process.pid(), 'S'),
                    Work::Thread(id, _) => procfs::thread_is(std::process::id(), *id, 'S'),
                }
        });
    }

    /// Its process, in a case of what happens to processes.
    pub(crate) fn process(&self) -> &Process<R> {
        match &self.work {
            Work::Process(process) => process,
            Work::Thread(..) => panic!("{} is a thread, which has no death of its own", self.side),
        }
    }

    /// Kills it and takes it away.
    pub(crate) fn kill(self)
    where
        R: Serialize + DeserializeOwned + 'static,
    {
        self.process().kill().expect("kill");
        if let Work::Process(process) = self.work {
            let _ = process.join();
        }
    }
}

const STARTING: &str = "being started";

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

/// An end that another side holds, and does nothing with.
#[derive(Debug)]
pub(crate) struct Held {
    peer: Peer<()>,
    gate: Gate,
}

impl Case {
    /// Gives an end away to be held, and waits until it has arrived: a channel may have no room
    /// while its receiver is on its way.
    pub(crate) fn hold<E: Handoff + Send + 'static>(&self, side: &str, end: E) -> Held {
        let gate = Gate::new();
        let peer = self.start(side, hold::<E>, (End::new(end), gate.another()));
        peer.until_asleep();
        Held { peer, gate }
    }
}

impl Held {
    /// Lets it be closed in good order.
    pub(crate) fn close(self, case: &Case) {
        self.gate.open();
        case.join(self.peer);
    }

    /// The side that holds it.
    pub(crate) fn peer(&self) -> &Peer<()> {
        &self.peer
    }

    /// Kills the side that holds it.
    pub(crate) fn kill(self) {
        self.peer.kill();
    }
}

fn hold<E: Handoff>(case: Case, (end, gate): (End<E>, Gate)) {
    let _end = end.into_inner();
    case.step("holding an end");
    gate.pass();
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

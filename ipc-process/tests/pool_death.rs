//! Workers that end when they should not. Every task ends once, with the right result or error.

mod common;
mod watchdog;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use common::{Fd, eventually, forever, lacks_own_proc, state_of};
use ipc_process::pool::{Retry, TaskError};
use ipc_process::{JoinError, Pool, Process, StartMethod};
use rustix::process::{Pid, Signal, getpid, kill_process};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use watchdog::{watch, watch_for};

ipc_process::test_support!();

fn double(n: u32) -> u32 {
    2 * n
}

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    // It may have been replaced meanwhile.
    let _ = kill_process(pid, signal);
}

fn kill_self() {
    kill_process(getpid(), Signal::KILL).unwrap();
    forever()
}

/// Says that it runs, then waits to be ended.
fn hang(says: Fd) {
    File::from(says.0).write_all(b"!").unwrap();
    forever()
}

fn signal_of<T: std::fmt::Debug>(result: Result<T, TaskError>) -> Option<i32> {
    match result {
        Err(TaskError::Lost {
            status: Some(status),
            ..
        }) => status.signal(),
        other => panic!("not lost to a signal: {other:?}"),
    }
}

fn pipe() -> (std::io::PipeReader, Fd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, Fd(OwnedFd::from(writer)))
}

/// Whether no thread of it runs.
fn is_asleep(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let sleeps = |stat: String| {
        let state = stat.rsplit_once(')').map(|(_, fields)| fields.trim_start());
        state.is_some_and(|state| state.starts_with('S'))
    };
    threads
        .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")))
        .all(|stat| stat.is_ok_and(sleeps))
}

#[test]
fn a_worker_killed_while_idle_is_replaced_and_costs_no_task() {
    if lacks_own_proc() {
        return;
    }
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    for _ in 0..20 {
        let old = pool.pids();
        for &pid in &old {
            // One that still looks for a task may take one at the very moment of its death.
            assert!(eventually(|| is_asleep(pid)));
            kill(pid, Signal::KILL);
        }
        // One at a time to each: of several, the first may count as begun.
        let jobs: Vec<_> = (0..10).map(|n| pool.apply_async(double, (n,))).collect();
        for (n, job) in (0..).zip(jobs) {
            assert_eq!(job.get().unwrap(), 2 * n);
        }
        assert!(eventually(|| {
            let now = pool.pids();
            now.len() == 2 && now.iter().all(|pid| !old.contains(pid))
        }));
    }
}

#[test]
fn a_task_that_its_worker_never_read_goes_to_another() {
    if lacks_own_proc() {
        return;
    }
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    for large in [false, true] {
        let [pid] = pool.pids()[..] else { panic!() };
        kill(pid, Signal::STOP);
        assert!(eventually(
            || state_of(pid).is_some_and(|(state, _)| state == 'T')
        ));
        let text = "x".repeat(if large { 1 << 20 } else { 10 });
        let job = pool.apply_async(|text: String| text.len(), (text.clone(),));
        kill(pid, Signal::KILL);
        assert_eq!(job.get().unwrap(), text.len());
    }
}

#[test]
fn a_worker_killed_in_a_task_costs_that_task_alone() {
    if lacks_own_proc() {
        return;
    }
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    let (mut running, says) = pipe();
    let before = pool.pids();
    let job = pool.apply_async(hang, (says,));
    running.read_exact(&mut [0]).unwrap();
    let others: Vec<_> = (0..100).map(|n| pool.apply_async(double, (n,))).collect();
    for pid in before {
        let Some((_, _)) = state_of(pid) else {
            continue;
        };
        if std::fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok() && !job.ready() {
            kill(pid, Signal::KILL);
        }
    }
    assert_eq!(signal_of(job.get()), Some(9));
    for (n, other) in (0..).zip(others) {
        match other.get() {
            Ok(result) => assert_eq!(result, 2 * n),
            Err(error) => assert_eq!(signal_of(Err::<(), _>(error)), Some(9)),
        }
    }
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
}

#[test]
fn a_caller_that_waits_learns_of_the_death() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    for _ in 0..20 {
        assert_eq!(signal_of(pool.apply(kill_self, ())), Some(9));
    }
    let (mut running, says) = pipe();
    // Once it is replaced.
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
    let pid = pool.pids()[0];
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.apply(hang, (says,)));
        running.read_exact(&mut [0]).unwrap();
        kill(pid, Signal::KILL);
        assert_eq!(signal_of(waiting.join().unwrap()), Some(9));
    });
}

#[test]
fn every_way_of_ending_in_a_task_is_told() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let lost = |result: Result<(), TaskError>| match result {
        Err(TaskError::Lost {
            status: Some(status),
            ..
        }) => status,
        other => panic!("not lost: {other:?}"),
    };
    let exit = |code: i32| -> () { std::process::exit(code) };
    assert_eq!(lost(pool.apply(exit, (0,))).code(), Some(0));
    assert_eq!(lost(pool.apply(exit, (3,))).code(), Some(3));
    let exit_at_once = |code: i32| -> () {
        #[expect(unsafe_code, reason = "_exit has no safe form")]
        // SAFETY: ends the process.
        unsafe {
            libc::_exit(code)
        }
    };
    assert_eq!(lost(pool.apply(exit_at_once, (4,))).code(), Some(4));
    let abort = || -> () { std::process::abort() };
    assert_eq!(lost(pool.apply(abort, ())).signal(), Some(libc::SIGABRT));
    fn deeper(n: u64) -> u64 {
        let array = std::hint::black_box([n; 128]);
        if n == u64::MAX {
            return 0;
        }
        deeper(n + 1) + array[(n % 128) as usize]
    }
    let overflow = |n: u64| -> () {
        std::hint::black_box(deeper(n));
    };
    // SIGABRT where Rust's start-up has placed its guard, which runs after what runs before main.
    let signal = lost(pool.apply(overflow, (0,))).signal();
    assert!(
        matches!(signal, Some(libc::SIGABRT | libc::SIGSEGV)),
        "{signal:?}"
    );
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
}

#[test]
fn panics_are_answers_and_the_worker_lives_on() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let before = pool.pids();
    let Err(TaskError::Panicked(panic)) = pool.apply(|n: u32| assert!(n != 7, "seven: {n}"), (7,))
    else {
        panic!("it did not panic")
    };
    assert_eq!(panic.message, "seven: 7");
    assert!(panic.location.contains("pool_death.rs"));
    let unprintable = || -> () { std::panic::panic_any(7_u8) };
    let error = pool.apply(unprintable, ()).unwrap_err();
    assert!(matches!(error, TaskError::Panicked(_)), "{error:?}");
    // In the midst of a chunk: the index is right, and the others have their results.
    let odd = |n: u32| {
        assert!(n % 10 != 7, "refused");
        n
    };
    let error = pool.map(odd, 0..100).unwrap_err();
    assert_eq!(error.index, 7);
    assert!(matches!(error.error, TaskError::Panicked(_)));
    let all = pool.batch().chunk_size(25).imap(odd, 0..100);
    for (n, result) in (0..).zip(all) {
        match result {
            Ok(result) => assert_eq!(result, n),
            Err(TaskError::Panicked(_)) => assert_eq!(n % 10, 7),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(pool.pids(), before);
}

/// Can be written, and read only in its beginning.
#[derive(Debug)]
struct Unreadable;

impl Serialize for Unreadable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("never"))
    }
}

/// Cannot be written.
#[derive(Debug, Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never"))
    }
}

#[test]
fn what_cannot_be_carried_over_is_an_error_of_that_task() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let before = pool.pids();
    let error = pool.apply(|| Unreadable, ()).unwrap_err();
    assert!(matches!(error, TaskError::Decode { .. }), "{error:?}");
    let error = pool.apply(|_: Unreadable| (), (Unreadable,)).unwrap_err();
    assert!(matches!(error, TaskError::Decode { .. }), "{error:?}");
    let error = pool.apply(|| Unwritable, ()).unwrap_err();
    assert!(matches!(error, TaskError::Encode { .. }), "{error:?}");
    let error = pool.apply(|_: Unwritable| (), (Unwritable,)).unwrap_err();
    assert!(matches!(error, TaskError::Encode { .. }), "{error:?}");
    // As an error that the function returns.
    let fails = || -> Result<u8, Unreadable> { Err(Unreadable) };
    let error = pool.apply(fails, ()).unwrap_err();
    assert!(matches!(error, TaskError::Decode { .. }), "{error:?}");

    /// Some can be written.
    #[derive(Debug, Deserialize)]
    struct Odd(u32);
    impl Serialize for Odd {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 % 2 {
                0 => serializer.serialize_u32(self.0),
                _ => Err(serde::ser::Error::custom("odd")),
            }
        }
    }
    // Of a chunk, only those that cannot be written: as results, then as arguments.
    let results = pool.batch().chunk_size(10).imap(Odd, 0..20_u32);
    for (n, result) in (0..).zip(results) {
        assert_eq!(result.map(|odd| odd.0).ok(), (n % 2 == 0).then_some(n));
    }
    let results = pool
        .batch()
        .chunk_size(10)
        .imap(|odd: Odd| odd.0, (0..20).map(Odd));
    for (n, result) in (0..).zip(results) {
        assert_eq!(result.ok(), (n % 2 == 0).then_some(n));
    }
    assert_eq!(pool.pids(), before);
}

/// Its journey kills the worker: on arrival there, or when it leaves.
#[derive(Debug)]
struct Deadly {
    pool: u32,
    padding: String,
}

impl Deadly {
    fn new() -> Self {
        Self {
            pool: std::process::id(),
            padding: "x".repeat(1 << 20),
        }
    }
}

impl Serialize for Deadly {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.pool != std::process::id() {
            kill_self();
        }
        (self.pool, &self.padding).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Deadly {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (pool, padding) = Deserialize::deserialize(deserializer)?;
        if pool != std::process::id() {
            kill_self();
        }
        Ok(Self { pool, padding })
    }
}

#[test]
fn a_worker_killed_while_it_takes_or_gives_is_told() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let takes = pool.apply(|_: Deadly| (), (Deadly::new(),));
    assert_eq!(signal_of(takes), Some(9));
    let gives = |pool: u32| Deadly {
        pool,
        padding: String::new(),
    };
    let gives = pool.apply(gives, (std::process::id(),));
    assert_eq!(signal_of(gives), Some(9));
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
}

#[test]
fn a_task_that_kills_is_tried_so_often_and_others_finish() {
    let _watchdog = watch();
    let pool = Pool::builder()
        .processes(2)
        .retry(Retry::on_lost(2))
        .build()
        .unwrap();
    let deadly = |n: u32| {
        if n == 57 {
            kill_self();
        }
        n
    };
    for chunk in [1, 10, 100] {
        let results = pool.batch().chunk_size(chunk).imap(deadly, 0..100);
        for (n, result) in (0..).zip(results) {
            match result {
                Ok(result) => assert_eq!(result, n),
                Err(TaskError::Aborted { attempts, last }) => {
                    assert_eq!((n, attempts), (57, 3), "chunks of {chunk}");
                    assert_eq!(signal_of(Err::<(), _>(*last)), Some(9));
                }
                Err(error) => panic!("chunks of {chunk}, item {n}: {error}"),
            }
        }
    }
    let error = pool.apply(deadly, (57,)).unwrap_err();
    assert!(
        matches!(error, TaskError::Aborted { attempts: 3, .. }),
        "{error:?}"
    );
}

#[test]
fn a_pool_whose_workers_always_die_gives_up() {
    let _watchdog = watch();
    let pool = Pool::builder()
        .processes(2)
        .retry(Retry::on_lost(1000))
        .restart_intensity(10, Duration::from_secs(60))
        .build()
        .unwrap();
    let jobs: Vec<_> = (0..10)
        .map(|_| pool.apply_async(kill_self, ()))
        .collect::<Vec<ipc_process::pool::JobHandle<()>>>();
    for job in jobs {
        let error = job.get().unwrap_err();
        assert!(matches!(error, TaskError::Broken { .. }), "{error:?}");
    }
    let error = pool.apply(double, (1,)).unwrap_err();
    assert!(matches!(error, TaskError::Broken { .. }), "{error:?}");
    assert!(eventually(|| pool.pids().is_empty()));
    pool.close().join();
}

/// A generator of pseudo-random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[test]
fn ten_thousand_tasks_survive_a_killer() {
    let _watchdog = watch_for(Duration::from_secs(120));
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = fds();
    let pool = Pool::builder()
        .processes(2)
        .retry(Retry::on_lost(100))
        .build()
        .unwrap();
    // About half a millisecond each, and now and then a large result.
    let work = |n: u64| {
        let mut sum = n;
        for i in 0..1_000_000_u64 {
            sum = std::hint::black_box(sum ^ i);
        }
        std::hint::black_box(sum);
        "x".repeat(if n.is_multiple_of(500) {
            100_000
        } else {
            (n % 100) as usize
        })
    };
    let expected = |n: u64| {
        if n.is_multiple_of(500) {
            100_000
        } else {
            (n % 100) as usize
        }
    };
    let kills = std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let pool = &pool;
        let killer = scope.spawn(move || {
            let mut random = Random(0x2545_f491_4f6c_dd1d);
            let mut kills = 0;
            let pause = Duration::from_millis(50);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let pids = pool.pids();
                if !pids.is_empty() {
                    kill(pids[random.below(pids.len())], Signal::KILL);
                    kills += 1;
                }
            }
            kills
        });
        let mut count = 0;
        for (n, result) in (0..).zip(pool.imap(work, 0..5000)) {
            assert_eq!(result.unwrap().len(), expected(n));
            count += 1;
        }
        let singles: Vec<_> = (0..4000).map(|n| pool.apply_async(work, (n,))).collect();
        for (n, job) in (0..).zip(singles) {
            assert_eq!(job.get().unwrap().len(), expected(n));
            count += 1;
        }
        for n in 0..1000 {
            assert_eq!(pool.apply(work, (n,)).unwrap().len(), expected(n));
            count += 1;
        }
        assert_eq!(count, 10_000);
        stop.send(()).unwrap();
        killer.join().unwrap()
    });
    assert!(kills > 20, "the killer got to kill {kills} times only");
    let progress = pool.progress();
    assert_eq!((progress.completed, progress.total), (10_000, 10_000));
    pool.close().join();
    assert!(eventually(|| common::zombies().is_empty()));
    assert!(eventually(|| fds() <= before + 1), "{} of {before}", fds());
}

#[test]
fn statuses_are_told_in_words() {
    let error = TaskError::Lost {
        pid: 7,
        status: Some(ExitStatus::from_raw(9)),
    };
    assert_eq!(
        error.to_string(),
        "worker 7 ended while it ran the task: signal: 9 (SIGKILL)"
    );
}

/// Panics once more when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload")
    }
}

#[test]
fn a_panic_is_told_whatever_its_payload_and_whoever_has_the_hook() {
    let _watchdog = watch();
    let bomb = |_: u32| -> u32 { std::panic::panic_any(Bomb) };
    let own_hook = |n: u32| -> u32 {
        std::panic::set_hook(Box::new(|_| {}));
        panic!("number {n}")
    };
    let pool = Pool::new(1).unwrap();
    let pids = pool.pids();
    for _ in 0..3 {
        let error = pool.apply(bomb, (1,)).unwrap_err();
        assert!(matches!(error, TaskError::Panicked(_)), "{error}");
        assert!(pool.map(bomb, 0..3).is_err());
    }
    let error = pool.apply(own_hook, (7,)).unwrap_err().to_string();
    assert!(error.contains("number 7"), "{error}");
    assert_eq!(pool.pids(), pids, "no worker was lost");
    for method in [StartMethod::Spawn, StartMethod::Zygote] {
        let process = Process::new(bomb, (1,)).start_method(method).start();
        let error = process.unwrap().join().unwrap_err();
        assert!(matches!(error, JoinError::Panicked(_)), "{error}");
    }
}

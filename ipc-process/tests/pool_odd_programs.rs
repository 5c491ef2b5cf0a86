//! Pools in programs that do what few do: wakers that use the pool, a debugger that holds a worker,
//! tasks that close what is not theirs, small limits of file sizes.

mod common;
mod watchdog;

use std::fs::File;
use std::future::Future as _;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::{Fd, close_everything, debug, eventually, forever, limit_file_size, zombies};
use ipc_process::pool::{JobHandle, TaskError};
use ipc_process::{Limits, Pool, Process};
use rustix::process::{Pid, Signal, kill_process};
use watchdog::watch;

ipc_process::test_support!();

fn double(n: u32) -> u32 {
    2 * n
}

/// Calls this when it is woken, in the thread that wakes it.
struct Inline(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        if let Some(act) = self.0.lock().unwrap().take() {
            act();
        }
    }
}

fn inline(act: impl FnOnce() + Send + 'static) -> Waker {
    Waker::from(Arc::new(Inline(Mutex::new(Some(Box::new(act))))))
}

/// Ends once told, with or without an answer.
fn end_when_told(told: Fd, answers: bool) -> u32 {
    File::from(told.0).read_exact(&mut [0]).unwrap();
    match answers {
        true => 42,
        false => std::process::exit(0),
    }
}

/// A job that runs until told.
fn job(pool: &Pool, answers: bool) -> (JobHandle<u32>, std::io::PipeWriter) {
    let (told, tell) = std::io::pipe().unwrap();
    let told = Fd(OwnedFd::from(told));
    (pool.apply_async(end_when_told, (told, answers)), tell)
}

/// What this gives in the thread that learns of the end of the job.
fn in_the_manager<T: Send + 'static>(
    (job, mut tell): (JobHandle<u32>, std::io::PipeWriter),
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (say, said) = mpsc::channel();
    let act = move || {
        let thread = std::thread::current();
        assert_eq!(thread.name(), Some("pool-manager"));
        say.send(act()).unwrap();
    };
    let waker = inline(act);
    let mut job = pin!(job);
    let pending = job.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(pending.is_pending());
    tell.write_all(b"!").unwrap();
    said.recv().unwrap()
}

#[test]
fn a_waker_may_wait_for_its_pool() {
    let _watchdog = watch();
    // The only worker: it has to be served, and replaced, while the waker waits.
    let pool = Arc::new(Pool::new(1).unwrap());
    for answers in [true, false] {
        let own = Arc::clone(&pool);
        let act = move || {
            assert_eq!(own.apply(double, (4,)).unwrap(), 8);
            assert_eq!(own.apply_async(double, (5,)).get().unwrap(), 10);
            assert_eq!(own.map(double, 0..100).unwrap().len(), 100);
            assert!(own.apply(|| -> u8 { std::process::exit(3) }, ()).is_err());
            let results = own.imap(double, 0..100).map(Result::unwrap);
            assert_eq!(results.sum::<u32>(), 99 * 100);
            let waits = own.apply_async(|| -> () { forever() }, ());
            let waits = waits.get_timeout(Duration::from_millis(20)).unwrap_err();
            waits.cancel();
            assert!(matches!(waits.get(), Err(TaskError::Cancelled)));
        };
        in_the_manager(job(&pool, answers), act);
    }
    // One waker in the midst of another's wait.
    let (outer, inner) = (Arc::clone(&pool), Arc::clone(&pool));
    let nested = in_the_manager(job(&pool, true), move || {
        let (job, mut tell) = job(&outer, true);
        let (say, said) = mpsc::channel();
        let act = move || say.send(inner.apply(double, (6,)).unwrap()).unwrap();
        let waker = inline(act);
        let mut job = pin!(job);
        let pending = job.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(pending.is_pending());
        tell.write_all(b"!").unwrap();
        // The inner waker runs while this one waits for something else.
        assert_eq!(outer.apply(double, (7,)).unwrap(), 14);
        said.recv().unwrap()
    });
    assert_eq!(nested, 12);
}

#[test]
fn a_waker_may_end_its_pool() {
    let _watchdog = watch();
    for how in ["join", "terminate", "drop"] {
        let pool = Pool::new(2).unwrap();
        let ending = job(&pool, true);
        let ends = in_the_manager(ending, move || {
            let job = pool.map_async(double, 0..100);
            match how {
                "join" => pool.close().join(),
                "terminate" => pool.terminate(),
                _ => drop(pool),
            }
            assert!(job.ready());
            job.get().is_ok()
        });
        assert_eq!(ends, how == "join", "{how}");
    }
    assert!(eventually(|| zombies().is_empty()));
}

#[test]
fn a_debugger_that_holds_a_dead_worker_holds_nobody_else() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    let [pid, _] = pool.pids()[..] else {
        panic!("two workers")
    };
    let debugger = debug(pid);
    let jobs: Vec<_> = (0..20).map(|n| pool.apply_async(double, (n,))).collect();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    for (n, job) in (0..).zip(jobs) {
        match job.get() {
            Ok(result) => assert_eq!(result, 2 * n),
            Err(TaskError::Lost { pid: lost, .. }) => assert_eq!(lost, pid),
            Err(error) => panic!("{error}"),
        }
    }
    // Nothing is known of how it ended while it is held, but that it ended and is replaced.
    assert!(eventually(|| !pool.pids().contains(&pid)));
    assert_eq!(pool.map(double, 0..3).unwrap(), [0, 2, 4]);
    pool.close().join();
    let held = debugger.let_go();
    assert!(eventually(|| zombies().is_empty()), "was held: {held}");
}

#[test]
fn a_task_that_closes_every_descriptor_is_told_by_its_exit_code() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let error = pool.apply(close_everything, ()).unwrap_err();
    let TaskError::Lost {
        status: Some(status),
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(status.code(), Some(103));
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
}

/// In a process of its own, whose limit it lowers. What it is told of long arguments.
fn with_small_files() -> String {
    let pool = Pool::new(1).unwrap();
    let roomy = Pool::new(1).unwrap();
    limit_file_size(100_000);
    let long = |len: usize| "x".repeat(len);
    let told = pool.apply(|text: String| text.len(), (long(200_000),));
    let told = told.unwrap_err().to_string();
    // Short ones, and what fits.
    assert_eq!(
        pool.apply(|text: String| text.len(), (long(90_000),))
            .unwrap(),
        90_000
    );
    assert_eq!(roomy.apply(long, (200_000,)).unwrap().len(), 200_000);
    told
}

#[test]
fn bodies_beyond_the_limit_of_file_sizes_are_errors_and_no_signal() {
    let _watchdog = watch();
    let program = Process::new(with_small_files, ()).daemon(true).start();
    let told = program.unwrap().join().unwrap();
    assert!(told.contains("RLIMIT_FSIZE"), "{told}");
    let pool = Pool::builder()
        .processes(1)
        .limits(Limits::new().file_size(100_000))
        .build()
        .unwrap();
    let pids = pool.pids();
    let long = |len: usize| "x".repeat(len);
    let error = pool.apply(long, (200_000,)).unwrap_err();
    assert!(matches!(error, TaskError::Encode { .. }), "{error:?}");
    assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
    assert_eq!(pool.apply(long, (90_000,)).unwrap().len(), 90_000);
    assert_eq!(pool.pids(), pids, "no worker was lost");
}

//! How pools and jobs end, in every order and from every side.

mod common;
mod watchdog;

use std::fs::File;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use common::{
    Fd, ends, eventually, forever, lacks_own_proc, need_descriptors, watch as hold, zombies,
};
use ipc_process::pool::{JobHandle, TaskError};
use ipc_process::{Pool, Process};
use watchdog::watch;

ipc_process::test_support!();

fn double(n: u32) -> u32 {
    2 * n
}

/// Says that it runs, then waits to be ended.
fn hang(says: Fd) {
    File::from(says.0).write_all(b"!").unwrap();
    forever()
}

fn pipe() -> (std::io::PipeReader, Fd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, Fd(OwnedFd::from(writer)))
}

#[test]
fn jobs_are_joined_in_any_order_also_backwards() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    let submit = || (0..20).map(|n| pool.apply_async(double, (n,)));
    let in_order: Vec<_> = submit().collect();
    for (n, job) in (0..).zip(in_order) {
        assert_eq!(job.get().unwrap(), 2 * n);
    }
    let backwards: Vec<_> = submit().collect();
    for (n, job) in (0..20).zip(backwards).rev() {
        assert_eq!(job.get().unwrap(), 2 * n);
    }
    // Unread ones hold nothing up, whatever their number: the pool closes around them.
    let unread: Vec<_> = submit().collect();
    pool.close().join();
    for (n, job) in (0..20).zip(unread).rev() {
        assert!(job.ready());
        assert_eq!(job.get().unwrap(), 2 * n);
    }
}

#[test]
fn a_closed_pool_does_what_it_was_given() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    let one = pool.batch().chunk_size(1);
    let jobs = one.map_async(double, 0..1000);
    let closed = pool.close();
    let pending = closed.progress();
    assert_eq!(pending.total, 1000);
    closed.join();
    assert_eq!(jobs.get().unwrap().len(), 1000);
    Pool::new(2).unwrap().close().join();
}

#[test]
fn terminating_ends_what_runs_and_what_waits() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    let held: Vec<_> = pool.pids().into_iter().map(hold).collect();
    let (mut running, says) = pipe();
    let runs = pool.apply_async(hang, (says,));
    running.read_exact(&mut [0]).unwrap();
    let (mut running, says) = pipe();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.apply(hang, (says,)));
        running.read_exact(&mut [0]).unwrap();
        let waits: Vec<_> = (0..10).map(|n| pool.apply_async(double, (n,))).collect();
        pool.terminate();
        assert!(matches!(runs.get(), Err(TaskError::Terminated)));
        let waiting = waiting.join().unwrap();
        assert!(matches!(waiting, Err(TaskError::Terminated)), "{waiting:?}");
        for job in waits {
            assert!(matches!(job.get(), Err(TaskError::Terminated)));
        }
    });
    assert!(held.iter().all(ends));
    pool.terminate();
    assert!(matches!(
        pool.apply(double, (1,)),
        Err(TaskError::Terminated)
    ));
    let error = pool.map(double, 0..10).unwrap_err();
    assert_eq!(error.index, 0);
    assert!(matches!(
        pool.imap(double, 0..10).next(),
        Some(Err(TaskError::Terminated))
    ));
    drop(pool);
    assert!(eventually(|| zombies().is_empty()));
}

#[test]
fn terminating_while_workers_are_replaced_leaves_none() {
    let _watchdog = watch();
    for round in 0..50 {
        let pool = Pool::builder()
            .processes(3)
            .max_tasks_per_child(1)
            .build()
            .unwrap();
        let jobs: Vec<_> = (0..30).map(|n| pool.apply_async(double, (n,))).collect();
        // Some way into it, another way each time.
        let mut done = 0;
        for (n, job) in (0..round % 30).zip(jobs) {
            assert_eq!(job.get().unwrap(), 2 * n);
            done += 1;
        }
        pool.terminate();
        assert_eq!(pool.pids(), [], "after {done} tasks");
    }
    assert!(eventually(|| zombies().is_empty()));
}

#[test]
fn callbacks_run_once_and_their_panics_harm_nothing() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    let sum = Arc::new(AtomicU32::new(0));
    for n in 0..100 {
        let sum = Arc::clone(&sum);
        pool.apply_async(double, (n,)).then(move |result| {
            sum.fetch_add(result.unwrap(), Ordering::Relaxed);
            assert!(n % 10 != 7, "a panic in a callback");
        });
    }
    let (said, says) = mpsc::channel();
    let failing = pool.apply_async(|| -> u8 { panic!("in the task") }, ());
    failing.then(move |result| said.send(result).unwrap());
    // One that is done already.
    let done = pool.apply_async(double, (1,));
    assert!(eventually(|| done.ready()));
    let late = Arc::clone(&sum);
    done.then(move |result| {
        late.fetch_add(result.unwrap(), Ordering::Relaxed);
    });
    pool.close().join();
    assert_eq!(sum.load(Ordering::Relaxed), 99 * 100 + 2);
    assert!(matches!(says.recv().unwrap(), Err(TaskError::Panicked(_))));
}

#[test]
fn a_callback_may_use_and_end_the_pool() {
    let _watchdog = watch();
    let pool = Arc::new(Pool::new(2).unwrap());
    let (said, says) = mpsc::channel();
    let (own, said_too) = (Arc::clone(&pool), said.clone());
    pool.apply_async(double, (1,)).then(move |result| {
        said.send(own.apply(double, (result.unwrap(),))).unwrap();
        own.terminate();
        said.send(own.apply(double, (1,))).unwrap();
    });
    assert_eq!(says.recv().unwrap().unwrap(), 4);
    assert!(matches!(says.recv().unwrap(), Err(TaskError::Terminated)));
    // The last handle may go in a callback, too.
    let pool = Mutex::new(Some(Pool::new(2).unwrap()));
    let pool = Arc::new(pool);
    let own = Arc::clone(&pool);
    let job = pool
        .lock()
        .unwrap()
        .as_ref()
        .unwrap()
        .apply_async(double, (1,));
    job.then(move |_| {
        drop(own.lock().unwrap().take());
        said_too.send(Ok(0)).unwrap();
    });
    assert_eq!(says.recv().unwrap().unwrap(), 0);
}

#[test]
fn a_pool_is_dropped_in_any_state() {
    let _watchdog = watch();
    need_descriptors(1000);
    drop(Pool::new(2).unwrap());
    let threads: Vec<_> = (0..4)
        .map(|n| {
            std::thread::spawn(move || {
                let pool = Pool::new(2).unwrap();
                let (mut running, says) = pipe();
                let runs = pool.apply_async(hang, (says,));
                running.read_exact(&mut [0]).unwrap();
                let waits = pool.map_async(double, 0..n * 100);
                let mut results = pool.imap(double, 0..1000);
                assert_eq!(results.next().unwrap().unwrap(), 0);
                std::mem::forget(results);
                drop(pool);
                assert!(matches!(runs.get(), Err(TaskError::Terminated)));
                if let Err(error) = waits.get() {
                    assert!(matches!(error.error, TaskError::Terminated));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(Pool::new(1).unwrap().close());
    assert!(eventually(|| zombies().is_empty()));
}

/// Runs a future on this thread, and counts how often it was woken.
fn block_on<F: Future>(future: F) -> (F::Output, u32) {
    struct Unpark(Thread, AtomicU32);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let unpark = Arc::new(Unpark(std::thread::current(), AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return (output, unpark.1.load(Ordering::SeqCst)),
            Poll::Pending => std::thread::park(),
        }
    }
}

fn answer_when_told(told: Fd) -> u32 {
    File::from(told.0).read_exact(&mut [0]).unwrap();
    42
}

#[test]
fn a_job_is_a_future_of_no_runtime() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    assert_eq!(block_on(pool.apply_async(double, (4,))).0.unwrap(), 8);
    let (told, mut tell) = std::io::pipe().unwrap();
    let job = pool.apply_async(answer_when_told, (Fd(OwnedFd::from(told)),));
    let mut job = pin!(job);
    let nobody = &mut Context::from_waker(Waker::noop());
    assert!(job.as_mut().poll(nobody).is_pending());
    tell.write_all(b"!").unwrap();
    let (result, wakes) = block_on(job);
    assert_eq!(result.unwrap(), 42);
    assert!(wakes <= 1, "{wakes} wakes");
    assert_eq!(block_on(pool.map_async(double, 0..3)).0.unwrap(), [0, 2, 4]);
    let error = block_on(pool.apply_async(|| -> u8 { std::process::exit(3) }, ())).0;
    assert!(matches!(error, Err(TaskError::Lost { .. })));
}

#[test]
fn jobs_are_awaited_by_tokio() {
    let _watchdog = watch();
    let pool = Arc::new(Pool::new(2).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let pool = Arc::clone(&pool);
            runtime.spawn(async move { pool.apply_async(double, (n,)).await })
        })
        .collect();
    for (n, task) in (0..).zip(tasks) {
        assert_eq!(runtime.block_on(task).unwrap().unwrap(), 2 * n);
    }
    let never = pool.apply_async(|| -> () { forever() }, ());
    let timeout = Duration::from_millis(20);
    let elapsed = runtime.block_on(async { tokio::time::timeout(timeout, never).await });
    assert!(elapsed.is_err());
    pool.terminate();
}

#[test]
fn waiting_for_a_result_ends_in_time() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let (told, mut tell) = std::io::pipe().unwrap();
    let mut job = pool.apply_async(answer_when_told, (Fd(OwnedFd::from(told)),));
    for ms in [0, 1, 20] {
        let (limit, start) = (Duration::from_millis(ms), std::time::Instant::now());
        job = job.get_timeout(limit).expect_err("nothing was told yet");
        assert!(start.elapsed() >= limit);
        assert!(!job.ready());
        assert_eq!(job.progress().completed, 0);
    }
    tell.write_all(b"!").unwrap();
    let result = job
        .get_timeout(Duration::from_secs(30))
        .expect("it was told");
    assert_eq!(result.unwrap(), 42);
    assert_eq!((pool.progress().completed, pool.progress().total), (1, 1));
}

/// Uses the pool of the process that it was forked of, and says what came of it. In a process of
/// its own: a fork of a program with threads may do little.
fn fork_with_a_pool(says: Fd) {
    let pool = Pool::new(1).unwrap();
    let waiting = pool.apply_async(|| -> u32 { forever() }, ());
    #[expect(unsafe_code, reason = "fork has no safe form")]
    // SAFETY: no other thread holds a lock that the child needs: the pool's are idle.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let inert = [
            matches!(pool.apply(double, (1,)), Err(TaskError::Forked)),
            matches!(pool.apply_async(double, (1,)).get(), Err(TaskError::Forked)),
            pool.map(double, 0..3).is_err(),
            pool.imap(double, 0..3).all(|result| result.is_err()),
            matches!(waiting.get(), Err(TaskError::Forked)),
            pool.pids().is_empty(),
        ];
        pool.terminate();
        drop(pool);
        let code = if inert.contains(&false) { 1 } else { 0 };
        #[expect(unsafe_code, reason = "exit hooks are those of the parent")]
        // SAFETY: ends the process.
        unsafe {
            libc::_exit(code)
        }
    }
    assert_ne!(child, -1, "no fork");
    let mut status = 0;
    #[expect(unsafe_code, reason = "waits for a child of fork")]
    // SAFETY: the status is valid for the call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    // What the child did, it did not do to us.
    waiting.cancel();
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
    File::from(says.0).write_all(b"fine").unwrap();
}

#[test]
fn a_pool_is_inert_in_a_forked_child() {
    let _watchdog = watch();
    let (mut said, says) = pipe();
    let process = Process::new(fork_with_a_pool, (says,))
        .daemon(true)
        .start()
        .unwrap();
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    process.join().unwrap();
    assert_eq!(text, "fine");
}

fn have_a_pool(says: Fd) {
    let pool = Pool::new(3).unwrap();
    let (mut running, one) = pipe();
    let _runs: JobHandle<()> = pool.apply_async(hang, (one,));
    running.read_exact(&mut [0]).unwrap();
    let pids: Vec<u8> = pool
        .pids()
        .iter()
        .flat_map(|pid| pid.to_le_bytes())
        .collect();
    File::from(says.0).write_all(&pids).unwrap();
    forever()
}

#[test]
fn no_worker_outlives_a_killed_program() {
    let _watchdog = watch();
    let (mut said, says) = pipe();
    let program = Process::new(have_a_pool, (says,))
        .daemon(true)
        .start()
        .unwrap();
    let mut pids = [[0; 4]; 3];
    said.read_exact(pids.as_flattened_mut()).unwrap();
    let held = pids.map(|pid| hold(u32::from_le_bytes(pid)));
    program.kill().unwrap();
    assert!(held.iter().all(ends));
}

#[test]
fn many_threads_share_a_pool() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..200 {
                    assert_eq!(pool.apply(double, (n,)).unwrap(), 2 * n);
                    let job = pool.apply_async(double, (n + thread,));
                    if n % 20 == 0 {
                        assert_eq!(pool.map(double, 0..3).unwrap(), [0, 2, 4]);
                    }
                    assert_eq!(job.get().unwrap(), 2 * (n + thread));
                }
            });
        }
    });
    assert_eq!(pool.progress().completed, pool.progress().total);
    pool.close().join();
}

/// Polls a job to its end without taking it.
fn poll_to_the_end<T, E>(job: &mut JobHandle<T, E>) -> Result<T, E> {
    block_on(std::future::poll_fn(|context| {
        Pin::new(&mut *job).poll(context)
    }))
    .0
}

#[test]
fn a_result_is_given_once() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let mut job = pool.apply_async(double, (1,));
    assert_eq!(poll_to_the_end(&mut job).unwrap(), 2);
    assert!(matches!(
        poll_to_the_end(&mut job),
        Err(TaskError::Cancelled)
    ));
    assert!(job.ready());
    assert!(matches!(job.get(), Err(TaskError::Cancelled)));

    let mut jobs = pool.map_async(double, 0..3);
    assert_eq!(poll_to_the_end(&mut jobs).unwrap(), [0, 2, 4]);
    assert!(poll_to_the_end(&mut jobs).is_err());
    let (tell, told) = mpsc::channel();
    jobs.then(move |result| tell.send(result.is_err()).unwrap());
    assert!(told.recv().unwrap());
    assert!(
        pool.map(double, std::iter::empty::<u32>())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_pool_with_no_end_of_patience_cancels_all_the_same() {
    let _watchdog = watch();
    let pool = Pool::builder()
        .processes(1)
        .name("a\0b")
        .grace(Duration::MAX)
        .build()
        .unwrap();
    let (mut said, says) = pipe();
    let job = pool.apply_async(hang, (says,));
    said.read_exact(&mut [0]).unwrap();
    job.cancel();
    assert!(matches!(job.get(), Err(TaskError::Cancelled)));
    assert_eq!(pool.apply(double, (1,)).unwrap(), 2);
}

#[test]
fn an_iterator_that_panics_leaves_nothing_to_wait_for() {
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let items = (0..20_u32).inspect(|&n| assert_ne!(n, 7, "no more"));
    let mut results = pool.batch().window(4).imap(double, items);
    let mut doubled = Vec::new();
    let mut panics = 0;
    loop {
        let next = std::panic::AssertUnwindSafe(|| results.next());
        match std::panic::catch_unwind(next) {
            Ok(Some(result)) => doubled.push(result.unwrap()),
            Ok(None) => break,
            Err(_) => panics += 1,
        }
    }
    assert_eq!(panics, 1);
    assert_eq!(doubled.last(), Some(&38));
    assert!(doubled.is_sorted());
}

/// In a process of its own, as [`fork_with_a_pool`].
fn fork_with_a_daemon() {
    let daemon = Process::new(|| -> () { forever() }, ())
        .daemon(true)
        .start()
        .unwrap();
    let reaper = ipc_process::zombie::Reaper::start().unwrap();
    let other = reaper
        .run(Process::new(|| -> () { forever() }, ()))
        .unwrap();
    #[expect(unsafe_code, reason = "fork has no safe form")]
    // SAFETY: no other thread holds a lock that the child needs.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((reaper, daemon));
        assert!(ipc_process::active_children().is_empty());
        // With the exit hooks: none of them is this process's.
        std::process::exit(0)
    }
    assert_ne!(child, -1, "no fork");
    let mut status = 0;
    #[expect(unsafe_code, reason = "waits for a child of fork")]
    // SAFETY: the status is valid for the call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    assert!(daemon.is_alive() && other.is_alive());
}

#[test]
fn handles_are_inert_in_a_forked_child() {
    if lacks_own_proc() {
        return;
    }
    let _watchdog = watch();
    let process = Process::new(fork_with_a_daemon, ()).daemon(true).start();
    process.unwrap().join().unwrap();
}

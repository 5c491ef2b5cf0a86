//! What a pool bounds: time, memory, sizes, tasks of a worker, items ahead; and what it does when
//! the system's limits are reached.

mod common;
mod watchdog;

use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use common::{Fd, eventually, forever, lacks_own_proc, state_of, zombies};
use ipc_process::pool::{BuildError, Retry, TaskError};
use ipc_process::{Pool, Process};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
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

/// As [`hang`], and does not heed SIGTERM.
fn hang_stubbornly(says: Fd) {
    #[expect(unsafe_code, reason = "dispositions have no safe form")]
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN)
    };
    hang(says);
}

fn pipe() -> (std::io::PipeReader, Fd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, Fd(OwnedFd::from(writer)))
}

#[test]
fn a_task_that_never_ends_is_ended_at_its_deadline() {
    let _watchdog = watch();
    let limit = Duration::from_millis(100);
    let pool = Pool::builder()
        .processes(1)
        .task_deadline(limit)
        .grace(Duration::from_millis(50))
        .build()
        .unwrap();
    let start = Instant::now();
    let never = || -> () { forever() };
    for _ in 0..2 {
        let error = pool.apply(never, ()).unwrap_err();
        assert!(matches!(error, TaskError::Deadline { limit: l } if l == limit));
    }
    let jobs: Vec<_> = (0..4).map(|_| pool.apply_async(never, ())).collect();
    for job in jobs {
        let error = job.get().unwrap_err();
        assert!(matches!(error, TaskError::Deadline { .. }), "{error:?}");
    }
    assert!(start.elapsed() >= 6 * limit, "early: {:?}", start.elapsed());
    let (_running, says) = pipe();
    let error = pool.apply(hang_stubbornly, (says,)).unwrap_err();
    assert!(matches!(error, TaskError::Deadline { .. }), "{error:?}");
    // A chunk may take as long as its items together.
    let error = pool
        .batch()
        .chunk_size(3)
        .map(|_: u8| -> () { forever() }, 0..3);
    let error = error.unwrap_err().error;
    assert!(matches!(error, TaskError::Deadline { limit: l } if l == 3 * limit));
    assert_eq!(pool.map(double, 0..3).unwrap(), [0, 2, 4]);
}

#[test]
fn jobs_are_cancelled_whether_they_wait_or_run() {
    let _watchdog = watch();
    let pool = Pool::builder()
        .processes(1)
        .grace(Duration::from_millis(50))
        .build()
        .unwrap();
    for stubborn in [false, true] {
        let (mut running, says) = pipe();
        let runs = match stubborn {
            false => pool.apply_async(hang, (says,)),
            true => pool.apply_async(hang_stubbornly, (says,)),
        };
        running.read_exact(&mut [0]).unwrap();
        let (mut never_ran, says) = pipe();
        let waits = pool.apply_async(hang, (says,));
        let many = pool.map_async(double, 0..100);
        let survives = pool.apply_async(double, (4,));
        waits.cancel();
        assert!(waits.ready() && !runs.ready() && !many.ready());
        many.cancel();
        runs.cancel();
        assert!(matches!(waits.get(), Err(TaskError::Cancelled)));
        assert!(matches!(runs.get(), Err(TaskError::Cancelled)));
        assert!(matches!(
            many.get().unwrap_err().error,
            TaskError::Cancelled
        ));
        assert_eq!(survives.get().unwrap(), 8);
        // Its end is that of the pipe, which a task would have written to first.
        assert_eq!(never_ran.read(&mut [0]).unwrap(), 0);
        let done = pool.apply_async(double, (5,));
        assert!(eventually(|| done.ready()));
        done.cancel();
        assert_eq!(done.get().unwrap(), 10);
    }
}

/// With swap.
fn memory_in_kib() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let of = |name| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.map_or(0, |number| number.parse::<u64>().unwrap())
    };
    of("MemTotal:") + of("SwapTotal:")
}

#[test]
fn an_argument_of_four_gib_is_refused() {
    if getrlimit(Resource::As)
        .current
        .is_some_and(|most| most < 8 << 30)
    {
        eprintln!("skipped: RLIMIT_AS has no room for such an argument");
        return;
    }
    // Of more than all memory the kernel lets nobody have even the addresses: proc_sys_vm(5),
    // overcommit_memory.
    if memory_in_kib() < 5 << 20 {
        eprintln!("skipped: this machine has too little memory for such an argument");
        return;
    }
    let _watchdog = watch();
    let pool = Pool::new(1).unwrap();
    let before = pool.pids();
    // Never touched, so that it takes no memory.
    let huge = vec![0_u8; 4 << 30];
    let error = pool
        .apply(|bytes: Vec<u8>| bytes.len(), (huge,))
        .unwrap_err();
    let TaskError::TooLarge { max } = error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains(&max.to_string()));
    let text = "x".repeat(max);
    let refused = pool.apply_async(|text: String| text.len(), (text,));
    assert!(matches!(refused.get(), Err(TaskError::TooLarge { .. })));
    // A result as well, in the worker.
    let error = pool
        .apply(|len: usize| "x".repeat(len), (max,))
        .unwrap_err();
    assert!(matches!(error, TaskError::Encode { .. }), "{error:?}");
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
    assert_eq!(pool.pids(), before);
}

#[test]
fn memory_beyond_the_limit_costs_the_task_that_wants_it() {
    let _watchdog = watch();
    let pool = Pool::builder()
        .processes(1)
        .memory_limit(1 << 30)
        .build()
        .unwrap();
    let wants = |bytes: usize| std::hint::black_box(vec![1_u8; bytes]).len();
    assert_eq!(pool.apply(wants, (1 << 20,)).unwrap(), 1 << 20);
    let error = pool.apply(wants, (2 << 30,)).unwrap_err();
    assert!(matches!(error, TaskError::Lost { .. }), "{error:?}");
    assert_eq!(pool.apply(wants, (1 << 20,)).unwrap(), 1 << 20);
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// In a process of its own, since other tests open descriptors and use memory.
fn recycle(workers: u32) {
    // What the first start leaves for good.
    Process::new(double, (1,)).start().unwrap().join().unwrap();
    let before = open_descriptors();
    let pool = Pool::builder()
        .processes(2)
        .max_tasks_per_child(1)
        .build()
        .unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut baseline = 0;
    for n in 0..workers / 2 {
        if n == 50 {
            baseline = resident();
        }
        assert_eq!(pool.apply(double, (n,)).unwrap(), 2 * n);
        let jobs = [
            pool.apply_async(double, (n,)),
            pool.apply_async(double, (n,)),
        ];
        for job in jobs {
            assert_eq!(job.get().unwrap(), 2 * n);
        }
        seen.extend(pool.pids());
    }
    assert!(seen.len() > workers as usize / 2, "{} workers", seen.len());
    let grown = resident().saturating_sub(baseline);
    assert!(grown < 4096, "{grown} KiB more");
    pool.close().join();
    assert!(
        eventually(|| open_descriptors() == before),
        "{before} before"
    );
    assert!(eventually(|| zombies().is_empty()));
}

#[test]
fn workers_are_replaced_after_their_tasks_without_a_trace() {
    let _watchdog = watch();
    Process::new(recycle, (1000,))
        .daemon(true)
        .start()
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_slow_consumer_holds_no_more_than_the_window() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    for (chunk, window) in [(1, 10), (1, 1), (4, 16), (7, 10), (100, 10)] {
        for ordered in [true, false] {
            let taken = Cell::new(0);
            let items = (0..1000_u32).inspect(|_| taken.set(taken.get() + 1));
            let batch = pool.batch().chunk_size(chunk).window(window);
            let results = match ordered {
                true => batch.imap(double, items),
                false => batch.imap_unordered(double, items),
            };
            let mut fetched = 0;
            for result in results {
                result.unwrap();
                fetched += 1;
                assert!(taken.get() <= fetched + window, "{chunk} {window}");
            }
            assert_eq!(fetched, 1000);
        }
    }
    // Dropped in the midst: what was not taken never is, and the pool goes on.
    let taken = Cell::new(0);
    let mut results = pool.imap(double, (0..).inspect(|_| taken.set(taken.get() + 1)));
    assert_eq!(results.next().unwrap().unwrap(), 0);
    drop(results);
    assert!(taken.get() <= 129);
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
}

#[test]
fn an_initializer_that_fails_fails_the_pool() {
    let _watchdog = watch();
    let build = || Pool::builder().processes(2);
    let refuses = |text: String| -> Result<(), String> { Err(text) };
    let error = build()
        .initializer(refuses, ("no database".to_owned(),))
        .build();
    let Err(BuildError::Initializer { reason }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(reason, "no database");
    let error = build()
        .initializer(|| -> () { panic!("no luck") }, ())
        .build();
    let Err(BuildError::Panicked(panic)) = error else {
        panic!("{error:?}")
    };
    assert_eq!(panic.message, "no luck");
    let error = build()
        .initializer(|| -> () { std::process::exit(3) }, ())
        .build();
    let Err(BuildError::Died {
        status: Some(status),
    }) = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(status.code(), Some(3));
    let (_reader, says) = pipe();
    let error = build().initializer(|_: Fd| (), (says,)).build();
    assert!(
        matches!(error, Err(BuildError::Arguments { .. })),
        "{error:?}"
    );
    assert!(eventually(|| zombies().is_empty()));
}

thread_local! {
    static READY: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn an_initializer_runs_in_each_worker_also_in_its_successors() {
    let _watchdog = watch();
    let pool = Pool::builder()
        .processes(2)
        .initializer(|n: u32| READY.set(n), (7,))
        .build()
        .unwrap();
    let both = |_: u32| READY.get();
    assert!(
        pool.batch()
            .chunk_size(1)
            .map(both, 0..100)
            .unwrap()
            .iter()
            .all(|&n| n == 7)
    );
    let exit = |_: u32| -> u32 { std::process::exit(0) };
    for _ in 0..5 {
        assert!(pool.apply(exit, (0,)).is_err());
        assert_eq!(pool.apply(both, (0,)).unwrap(), 7);
    }
}

#[test]
fn an_initializer_that_fails_later_breaks_the_pool() {
    let _watchdog = watch();
    let flag = std::env::temp_dir().join(format!("ipc-pool-{}", std::process::id()));
    let name = flag.to_str().unwrap().to_owned();
    let fails_when_told = |flag: String| match std::fs::exists(flag) {
        Ok(false) => Ok(()),
        _ => Err("now it fails".to_owned()),
    };
    let pool = Pool::builder()
        .processes(1)
        .retry(Retry::on_lost(3))
        .initializer(fails_when_told, (name,))
        .build()
        .unwrap();
    File::create(&flag).unwrap();
    let error = pool
        .apply(|| -> () { std::process::exit(0) }, ())
        .unwrap_err();
    std::fs::remove_file(&flag).unwrap();
    let TaskError::Broken { reason } = error else {
        panic!("{error:?}")
    };
    assert!(reason.contains("now it fails"), "{reason}");
}

fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

fn kill_all(pool: &Pool) {
    for pid in pool.pids() {
        // It may have gone.
        let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
    }
}

/// In a process of its own.
fn without_descriptors() {
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.apply(double, (1,)).unwrap(), 2);
    let many = getrlimit(Resource::Nofile).current;
    // Nothing can be opened from now on.
    limit(Resource::Nofile, Some(3));
    let error = Pool::new(2).unwrap_err();
    assert!(
        matches!(error, BuildError::Io { .. } | BuildError::Start(_)),
        "{error:?}"
    );
    let pids = pool.pids();
    let job = pool.apply_async(|| -> u32 { std::process::exit(0) }, ());
    assert!(matches!(job.get(), Err(TaskError::Lost { .. })));
    let waits = pool.apply_async(double, (2,));
    assert!(eventually(|| state_of(pids[0]).is_none()));
    // It has been tried, and is tried again.
    limit(Resource::Nofile, many);
    assert_eq!(waits.get().unwrap(), 4);
    limit(Resource::Nofile, Some(3));
    kill_all(&pool);
    let error = pool.apply(double, (2,)).unwrap_err();
    assert!(matches!(error, TaskError::Broken { .. }), "{error:?}");
}

#[test]
fn a_pool_without_descriptors_tries_again_and_gives_up_in_the_end() {
    if lacks_own_proc() {
        return;
    }
    let _watchdog = watch();
    let process = Process::new(without_descriptors, ()).daemon(true).start();
    process.unwrap().join().unwrap();
}

/// In a process of its own, and of another user where that is root, whom the limit leaves alone.
fn without_processes() {
    if rustix::process::geteuid().is_root() {
        #[expect(unsafe_code, reason = "rustix changes the user of one thread only")]
        // SAFETY: changes the user of the whole process.
        let changed = unsafe { libc::setuid(54_321) };
        if changed == -1 {
            return eprintln!("skipped: there is no other user in this namespace");
        }
    }
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.apply(double, (1,)).unwrap(), 2);
    limit(Resource::Nproc, Some(1));
    let error = Pool::new(2).unwrap_err();
    assert!(error.to_string().contains("os error 11"), "{error}");
    kill_all(&pool);
    let error = pool.apply(double, (2,)).unwrap_err();
    assert!(matches!(error, TaskError::Broken { .. }), "{error:?}");
    assert!(error.to_string().contains("os error 11"), "{error}");
}

#[test]
fn a_pool_without_processes_gives_up_and_does_not_hang() {
    let _watchdog = watch();
    let process = Process::new(without_processes, ()).daemon(true).start();
    process.unwrap().join().unwrap();
}

//! Everything at once: signals at random to all children, starts from many threads, other starts
//! beside ours. Each in a process of its own, so that what is left can be counted.

mod common;
mod watchdog;

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use common::{
    BOTH, eventually, lacks_own_proc, method_of, need_descriptors, number_of, state_of, zombies,
};
use ipc_process::pool::Retry;
use ipc_process::{Pool, Process, StartMethod};
use rustix::process::{Pid, Signal, kill_process};
use watchdog::watch;

ipc_process::test_support!();

/// A zygote keeps a few forks ready, two descriptors each, and how many changes by the moment.
const READY: usize = 12;

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn send(pid: u32, signal: Signal) {
    // It may have gone.
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}

fn children() -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| state_of(pid).is_some_and(|(_, parent)| parent == std::process::id()))
        .collect()
}

fn in_both_ways(program: fn(StartMethod)) {
    // What a process runs captures nothing; which of them it is travels as a number.
    const PROGRAMS: [fn(StartMethod); 3] = [signals, threads, commands];
    let _watchdog = watch();
    let run = |program: usize, method: u8| PROGRAMS[program](method_of(method));
    let known = |known: &fn(StartMethod)| std::ptr::fn_addr_eq(*known, program);
    let program = PROGRAMS.iter().position(known).unwrap();
    for method in BOTH {
        let process = Process::new(run, (program, number_of(method))).daemon(true);
        process.start().unwrap().join().unwrap();
    }
}

/// About 40 us.
fn work(n: u64) -> u64 {
    let sum = (0..100_000).fold(n, |sum, i| std::hint::black_box(sum ^ i));
    std::hint::black_box(sum);
    2 * n
}

/// Kills and stops children until told: workers, a zygote's server, those that wait. Not the last
/// ones: of a pool whose workers are all killed before they are ready, nothing is left to hope for,
/// and it says so.
fn send_signals(stopped: &mpsc::Receiver<()>) -> usize {
    let mut held = VecDeque::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut sent = 0;
    while stopped.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
        if held.len() > 4 {
            held.pop_front()
                .into_iter()
                .for_each(|pid| send(pid, Signal::CONT));
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let children = children();
        if children.len() < 3 {
            held.drain(..).for_each(|pid| send(pid, Signal::CONT));
            continue;
        }
        let pid = children[(random >> 8) as usize % children.len()];
        sent += 1;
        if random.is_multiple_of(3) {
            send(pid, Signal::STOP);
            held.push_back(pid);
        } else {
            send(pid, Signal::KILL);
        }
    }
    held.into_iter().for_each(|pid| send(pid, Signal::CONT));
    sent
}

fn signals(method: StartMethod) {
    let before = open_descriptors();
    let pool = Pool::builder()
        .processes(3)
        .start_method(method)
        .retry(Retry::on_lost(1000))
        .restart_intensity(100_000, Duration::from_secs(1))
        .build()
        .unwrap();
    let sent = std::thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel();
        let sender = scope.spawn(move || send_signals(&stopped));
        for (n, result) in (0..).zip(pool.imap(work, 0..5000)) {
            assert_eq!(result.unwrap(), 2 * n);
        }
        let jobs: Vec<_> = (0..2000).map(|n| pool.apply_async(work, (n,))).collect();
        for (n, job) in (0..).zip(jobs) {
            assert_eq!(job.get().unwrap(), 2 * n);
        }
        for n in 0..1000 {
            assert_eq!(pool.apply(work, (n,)).unwrap(), 2 * n);
        }
        let doubled = pool.map(work, 0..2000).unwrap();
        assert!((0..).zip(doubled).all(|(n, result)| result == 2 * n));
        stop.send(()).unwrap();
        sender.join().unwrap()
    });
    assert!(sent > 5, "only {sent} signals");
    assert_eq!(pool.progress().completed, 10_000);
    pool.close().join();
    // A fork that was killed before the program heard of it is found at one of the next starts.
    let nothing_left = || {
        start_and_join(method, 1);
        zombies().is_empty()
    };
    assert!(eventually(nothing_left), "{:?}", zombies());
    let after = || open_descriptors() <= before + READY;
    assert!(eventually(after), "{} of {before}", open_descriptors());
}

#[test]
fn ten_thousand_tasks_survive_signals_at_random_to_every_child() {
    if !lacks_own_proc() {
        in_both_ways(signals);
    }
}

fn start_and_join(method: StartMethod, n: u64) {
    let process = Process::new(|n: u64| n + 1, (n,)).daemon(n.is_multiple_of(2));
    let process = process.start_method(method).start().unwrap();
    assert_eq!(process.join().unwrap(), n + 1);
}

fn threads(method: StartMethod) {
    need_descriptors(2000);
    start_and_join(method, 0);
    let before = open_descriptors();
    let barrier = Barrier::new(200);
    std::thread::scope(|scope| {
        for n in 0..200 {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                start_and_join(method, n);
            });
        }
    });
    assert!(eventually(|| zombies().is_empty()));
    let after = || open_descriptors() <= before + READY;
    assert!(eventually(after), "{} of {before}", open_descriptors());
}

#[test]
fn two_hundred_threads_start_at_once() {
    in_both_ways(threads);
}

fn commands(method: StartMethod) {
    start_and_join(method, 0);
    let before = open_descriptors();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Ordering: nothing else is passed on.
                while !stop.load(Ordering::Relaxed) {
                    assert!(Command::new("true").status().unwrap().success());
                }
            });
        }
        (0..200).for_each(|n| start_and_join(method, n));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(eventually(|| zombies().is_empty()));
    let after = || open_descriptors() <= before + READY;
    assert!(eventually(after), "{} of {before}", open_descriptors());
}

#[test]
fn starts_beside_those_of_std_disturb_neither() {
    in_both_ways(commands);
}

//! Deadlines of the one sleep, and the learning of the one spin.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Wait, WaitStrategy, Waiter};

#[test]
fn a_deadline_is_never_early() {
    let (reader, _writer) = std::io::pipe().unwrap();
    for micros in [0, 1, 999, 1_000, 20_500] {
        let timeout = Duration::from_micros(micros);
        let started = Instant::now();
        let polled = poll([(reader.as_fd(), Interest::Read)], Wait::at_most(timeout));
        assert_eq!(polled, Ok(Polled::TimedOut));
        assert!(
            started.elapsed() >= timeout,
            "{micros} us: {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn a_time_beyond_the_clock_is_for_ever() {
    assert_eq!(Wait::at_most(Duration::MAX), Wait::Forever);
    assert!(!Wait::Forever.is_over());
    assert!(Wait::Never.is_over());
    assert!(Wait::Until(Instant::now()).is_over());
}

fn looks(waiter: &mut Waiter) -> usize {
    let mut attempts = 0;
    let found = waiter.look(Wait::Forever, || {
        attempts += 1;
        Ok::<Option<()>, Infallible>(None)
    });
    assert_eq!(found, Ok(None));
    attempts
}

fn single_processor() -> bool {
    std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1)
}

#[test]
fn block_never_looks() {
    assert_eq!(looks(&mut Waiter::new(WaitStrategy::Block)), 0);
}

#[test]
fn adaptive_gives_up_looking_where_it_never_pays_and_tries_again_at_times() {
    if single_processor() {
        return;
    }
    let mut waiter = Waiter::new(WaitStrategy::Adaptive);
    let first: Vec<usize> = (0..4).map(|_| looks(&mut waiter)).collect();
    assert!(first.iter().all(|&attempts| attempts > 0), "{first:?}");
    let later: Vec<usize> = (0..32 + 64).map(|_| looks(&mut waiter)).collect();
    let looked: Vec<usize> = (0..later.len()).filter(|&wait| later[wait] > 0).collect();
    assert_eq!(looked, [31, 31 + 64], "less and less often: {later:?}");
}

#[test]
fn adaptive_looks_again_once_it_has_paid() {
    if single_processor() {
        return;
    }
    let mut waiter = Waiter::new(WaitStrategy::Adaptive);
    while looks(&mut waiter) > 0 {}
    let mut found = None;
    while found.is_none() {
        found = waiter
            .look(Wait::Forever, || Ok::<_, Infallible>(Some(())))
            .unwrap();
    }
    assert!(looks(&mut waiter) > 0);
}

#[test]
fn a_look_ends_with_the_deadline() {
    let mut waiter = Waiter::new(WaitStrategy::Spin);
    let wait = Wait::Until(Instant::now());
    let found = waiter.look(wait, || Ok::<Option<()>, Infallible>(None));
    assert_eq!(found, Ok(None));
    assert!(wait.is_over());
}

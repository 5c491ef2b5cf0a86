//! A peer that writes anything anywhere into the memory: it gets an error or a message, and
//! nobody is hurt.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipc_core::{Channel, Handoff, Receiver as _, RecvError, SendError, Sender as _, Wait};
use ipc_shm::{Options, SharedMemory};
use proptest::prelude::*;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

const CAPACITY: usize = 4096;
const RING: u64 = 4096;
const TAIL: u64 = 128;
const HEAD: u64 = 256;
const MESSAGE: u64 = 1 << 32;
const FILLER: u64 = 2 << 32;

/// Values at the edges of what is valid.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0..=2 * CAPACITY as u64),
        (0..=64u64).prop_map(|eighth| eighth * 8),
        (0..=64u64).prop_map(|back| u64::MAX - back),
        (0..=CAPACITY as u64).prop_map(|len| MESSAGE | len),
        (0..=CAPACITY as u64).prop_map(|len| FILLER | len),
        (0..=16u64).prop_map(|back| MESSAGE | (u64::from(u32::MAX) - back)),
        (0..=16u64).prop_map(|back| FILLER | (u64::from(u32::MAX) - back)),
    ]
}

/// Where it hurts most: positions, states, the beginnings of frames.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(TAIL),
        Just(HEAD),
        Just(384),
        Just(512),
        0..64u64,
        (0..CAPACITY as u64 / 8).prop_map(|word| RING + word * 8),
        (0..8u64).prop_map(|word| RING + word * 72),
        0..RING + CAPACITY as u64 - 8,
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Overwrite(u64, u64),
    Send(usize),
    Receive(usize),
    Loan(usize),
    Borrow,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (place(), value()).prop_map(|(place, value)| Step::Overwrite(place, value)),
        2 => (0..2100usize).prop_map(Step::Send),
        2 => prop_oneof![Just(2040usize), 0..100usize].prop_map(Step::Receive),
        1 => (0..2041usize).prop_map(Step::Loan),
        1 => Just(Step::Borrow),
    ]
}

fn pair() -> (ipc_shm::Sender, ipc_shm::Receiver, OwnedFd) {
    let (sender, receiver) = SharedMemory::pair(&Options::new().capacity(CAPACITY)).unwrap();
    let memory = sender.to_parts().unwrap().descriptors.remove(0);
    (sender, receiver, memory)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_stands_in_the_memory_a_call_gives_a_message_or_an_error(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (mut sender, mut receiver, memory) = pair();
        let mut buffer = [0; 2040];
        for step in steps {
            match step {
                Step::Overwrite(place, value) => {
                    rustix::io::pwrite(&memory, &value.to_ne_bytes(), place).unwrap();
                }
                Step::Send(len) => {
                    match sender.try_send(&vec![7; len]) {
                        Ok(()) => prop_assert!(len <= 2040),
                        Err(SendError::TooLong { max, .. }) => prop_assert!(len > max),
                        Err(SendError::Full | SendError::Corrupt { .. } | SendError::Closed) => {}
                        Err(error) => return Err(TestCaseError::fail(error.to_string())),
                    }
                }
                Step::Receive(room) => match receiver.try_recv(&mut buffer[..room]) {
                    Ok(len) => prop_assert!(len <= room),
                    Err(RecvError::BufferTooSmall { needed }) => {
                        prop_assert!(room < needed && needed <= 2040);
                    }
                    Err(RecvError::Empty | RecvError::Corrupt { .. } | RecvError::Closed) => {}
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                },
                Step::Loan(len) => {
                    if let Ok(mut loan) = sender.loan(len, Wait::Never) {
                        loan.write(len / 2, &vec![3; len - len / 2]);
                        loan.commit_first(len / 3);
                    }
                }
                Step::Borrow => {
                    if let Ok(borrowed) = receiver.borrow(Wait::Never) {
                        prop_assert!(borrowed.len() <= 2040);
                        borrowed.copy_to(0, &mut buffer[..borrowed.len()]);
                    }
                }
            }
        }
    }

    #[test]
    fn an_end_takes_over_any_memory_or_refuses_it(
        writes in prop::collection::vec((place(), value()), 1..6),
    ) {
        let (sender, receiver, memory) = pair();
        for (place, value) in writes {
            rustix::io::pwrite(&memory, &value.to_ne_bytes(), place).unwrap();
        }
        if let Ok(mut receiver) = ipc_shm::Receiver::from_parts(receiver.to_parts().unwrap()) {
            for _ in 0..3 {
                let _ = receiver.try_recv(&mut [0; 2040]);
            }
        }
        if let Ok(mut sender) = ipc_shm::Sender::from_parts(sender.to_parts().unwrap()) {
            for _ in 0..3 {
                let _ = sender.try_send(&[0; 2040]);
            }
        }
    }

    /// With an honest peer: what is sent arrives, whatever the lengths and however full the ring.
    #[test]
    fn messages_of_any_lengths_arrive_in_order(
        lengths in prop::collection::vec(prop_oneof![0..40usize, 0..2041usize], 1..200),
    ) {
        let (mut sender, mut receiver, _memory) = pair();
        let mut expected = std::collections::VecDeque::new();
        let mut buffer = [0; 2040];
        for (number, len) in lengths.into_iter().enumerate() {
            let message: Vec<u8> = (0..len).map(|at| (at + number) as u8).collect();
            loop {
                match sender.try_send(&message) {
                    Ok(()) => break,
                    Err(SendError::Full) => {
                        let len = receiver.try_recv(&mut buffer).unwrap();
                        let oldest: Vec<u8> = expected.pop_front().unwrap();
                        prop_assert_eq!(&buffer[..len], &oldest[..]);
                    }
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
            expected.push_back(message);
        }
        for message in expected {
            let len = receiver.try_recv(&mut buffer).unwrap();
            prop_assert_eq!(&buffer[..len], &message[..]);
        }
        prop_assert!(matches!(receiver.try_recv(&mut buffer), Err(RecvError::Empty)));
    }
}

/// Random numbers for the tests that race with the peer.
fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 16
}

/// The longest that a call may stay beyond its deadline.
const LATE: Duration = Duration::from_millis(50);
const SHORT: Duration = Duration::from_millis(5);

/// Runs `victim` while `peer` does its worst again and again, and fails if the victim hangs.
fn against(peer: impl Fn(&mut u64) + Send + 'static, victim: impl FnOnce() + Send + 'static) {
    let stop = Arc::new(AtomicBool::new(false));
    let (done, ended) = std::sync::mpsc::channel();
    let attack = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut state = 0x9E37_79B9_7F4A_7C15;
            while !stop.load(Ordering::Relaxed) {
                peer(&mut state);
            }
        }
    });
    let work = std::thread::spawn(move || {
        victim();
        done.send(()).unwrap();
    });
    let outcome = ended.recv_timeout(Duration::from_secs(30));
    stop.store(true, Ordering::Relaxed);
    if outcome == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        panic!("the victim hangs");
    }
    work.join().unwrap();
    attack.join().unwrap();
}

/// Whether calls on pipes can say that they must not wait: from Linux 6.4.
fn pipes_know_nowait() -> bool {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let nothing = &mut [IoSliceMut::new(&mut [])];
    let read = rustix::io::preadv2(&reader, nothing, u64::MAX, ReadWriteFlags::NOWAIT);
    read != Err(Errno::OPNOTSUPP)
}

/// A peer that makes the sender's side of the doorbell blocking, fills it, and claims again and
/// again to sleep.
#[test]
fn a_full_doorbell_in_blocking_mode_keeps_no_sender() {
    if !pipes_know_nowait() {
        return;
    }
    let (mut sender, mut receiver, memory) = pair();
    let writer = sender.to_parts().unwrap().descriptors.remove(2);
    against(
        move |state| {
            rustix::fs::fcntl_setfl(&writer, OFlags::empty()).unwrap();
            let rings = [IoSlice::new(&[1; 4096])];
            let _ = rustix::io::pwritev2(&writer, &rings, u64::MAX, ReadWriteFlags::NOWAIT);
            let asleep = (random(state) as u32) << 2 | 1;
            rustix::io::pwrite(&memory, &asleep.to_ne_bytes(), 512).unwrap();
        },
        move || {
            for _ in 0..50_000 {
                sender.try_send(b"rings").unwrap();
                receiver.try_recv(&mut [0; 8]).unwrap();
            }
        },
    );
}

/// A peer that rings without end, and takes its rings back before they are heard.
#[test]
fn a_doorbell_that_never_rests_overruns_no_deadline() {
    if !pipes_know_nowait() {
        return;
    }
    let (sender, mut receiver, _memory) = pair();
    let writer = sender.to_parts().unwrap().descriptors.remove(2);
    let reader = receiver.to_parts().unwrap().descriptors.remove(1);
    against(
        move |state| {
            rustix::fs::fcntl_setfl(&reader, OFlags::empty()).unwrap();
            let ring = [IoSlice::new(&[1])];
            let _ = rustix::io::pwritev2(&writer, &ring, u64::MAX, ReadWriteFlags::NOWAIT);
            if random(state).is_multiple_of(2) {
                let mut rings = [0; 64];
                let back = &mut [IoSliceMut::new(&mut rings)];
                let _ = rustix::io::preadv2(&reader, back, u64::MAX, ReadWriteFlags::NOWAIT);
            }
        },
        move || {
            for _ in 0..50 {
                let started = Instant::now();
                let waited = receiver.recv_timeout(&mut [0; 8], SHORT);
                assert!(matches!(waited, Err(RecvError::TimedOut)), "{waited:?}");
                assert!(started.elapsed() >= SHORT);
                assert!(started.elapsed() < SHORT + LATE, "{:?}", started.elapsed());
            }
            drop(sender);
        },
    );
}

/// A peer that writes to all words of the header and to the ring while both ends wait.
#[test]
fn words_that_change_during_a_wait_overrun_no_deadline() {
    let (mut sender, mut receiver, memory) = pair();
    against(
        move |state| {
            let places = [0, TAIL, HEAD, 384, 388, 512, 516, RING, RING + 8];
            let place = places[random(state) as usize % places.len()];
            let value = match random(state) % 3 {
                0 => random(state),
                1 => random(state) % 1024 * 8,
                _ => MESSAGE | (random(state) % 4096),
            };
            rustix::io::pwrite(&memory, &value.to_ne_bytes(), place).unwrap();
        },
        move || {
            for _ in 0..200 {
                let started = Instant::now();
                let _ = receiver.recv_timeout(&mut [0; 2040], SHORT);
                let _ = sender.send_timeout(&[0; 2040], SHORT);
                assert!(
                    started.elapsed() < 2 * (SHORT + LATE),
                    "{:?}",
                    started.elapsed()
                );
            }
        },
    );
}

/// Whatever the memory says, the doorbell's hang-up tells of the end.
#[test]
fn a_death_is_learnt_whatever_stands_in_the_memory() {
    for state in [0u32, 1, 5, !2] {
        for (place, forget_sender) in [(384, true), (512, false)] {
            let (sender, receiver, memory) = pair();
            rustix::io::pwrite(&memory, &state.to_ne_bytes(), place).unwrap();
            let started = Instant::now();
            if forget_sender {
                // Parts that are dropped are a process that ended.
                drop(sender.into_parts().unwrap());
                let mut receiver = receiver;
                let end = receiver.recv(&mut [0; 8]);
                assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
            } else {
                drop(receiver.into_parts().unwrap());
                let mut sender = sender;
                let end = loop {
                    if let Err(error) = sender.send(&[0; 2040]) {
                        break error;
                    }
                };
                assert!(matches!(end, SendError::PeerDied), "{end:?}");
            }
            assert!(started.elapsed() < Duration::from_millis(100));
        }
    }
}

/// Without an empty word the ring would give the same messages for ever.
#[test]
fn a_ring_that_a_dead_sender_laid_out_as_messages_has_an_end() {
    let tails = [0, 8, CAPACITY as u64, u64::MAX / 2, u64::MAX - 7];
    for (tail, len) in tails.into_iter().zip([0, 1, 24, 100, 2040]) {
        let (sender, mut receiver, memory) = pair();
        let word = MESSAGE | len;
        for place in (RING..RING + CAPACITY as u64).step_by(8) {
            rustix::io::pwrite(&memory, &word.to_ne_bytes(), place).unwrap();
        }
        rustix::io::pwrite(&memory, &tail.to_ne_bytes(), TAIL).unwrap();
        drop(sender.into_parts().unwrap());
        // What a lap holds, and what was found before the first beginning of a lap.
        let most = 2 * CAPACITY / 8;
        let end = (0..=most).find_map(|_| receiver.recv(&mut [0; 2040]).err());
        assert!(matches!(end, Some(RecvError::Corrupt { .. })), "{end:?}");
    }
}

/// A peer that overwrites the header in a loop while the other end works.
#[test]
fn memory_that_changes_under_the_call_hurts_nobody() {
    let (mut sender, mut receiver, memory) = pair();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 0x9E37_79B9_7F4A_7C15u64;
            while !stop.load(Ordering::Relaxed) {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let place = match state >> 60 {
                    0..4 => TAIL,
                    4..6 => HEAD,
                    _ => RING + (state >> 40) % (CAPACITY as u64 / 8) * 8,
                };
                let value = match state >> 58 & 3 {
                    0 => state >> 20,
                    1 => (state >> 30) % 1024 * 8,
                    2 => MESSAGE | ((state >> 30) % 4096),
                    _ => FILLER | ((state >> 30) % 4096),
                };
                rustix::io::pwrite(&memory, &value.to_ne_bytes(), place).unwrap();
            }
        });
        let mut buffer = [0; 2040];
        for round in 0..200_000usize {
            let _ = sender.try_send(&buffer[..round % 2040]);
            if let Ok(len) = receiver.try_recv(&mut buffer) {
                assert!(len <= 2040);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

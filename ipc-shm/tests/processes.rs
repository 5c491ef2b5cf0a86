//! What only two processes can show: deaths, stops and hand-offs.

use std::time::{Duration, Instant};

use ipc_core::{
    Channel, Handoff, OpenError, Pollable, Receiver as _, RecvError, SendError, Sender as _, Wait,
    WaitStrategy,
};
use ipc_process::Process;
use ipc_shm::{Options, Receiver, Sender, SharedMemory};

ipc_process::test_support!();

/// Death is known within this time.
const NOTICE: Duration = Duration::from_millis(100);
const STRATEGIES: [WaitStrategy; 3] = [
    WaitStrategy::Block,
    WaitStrategy::Spin,
    WaitStrategy::Adaptive,
];

fn pair(strategy: WaitStrategy) -> (Sender, Receiver) {
    SharedMemory::pair(&Options::new().capacity(1 << 16).wait_strategy(strategy)).unwrap()
}

fn send_then_wait(mut sender: Sender, count: u32, mut ready: Sender) {
    for number in 0..count {
        sender.send(&number.to_le_bytes()).unwrap();
    }
    ready.send(b"sent").unwrap();
    wait_to_be_killed();
}

fn hold(_end: Receiver, mut ready: Sender) {
    ready.send(b"here").unwrap();
    wait_to_be_killed();
}

fn wait_to_be_killed() {
    loop {
        std::thread::park();
    }
}

#[test]
fn all_that_a_killed_sender_sent_arrives_before_its_death_is_reported() {
    for strategy in STRATEGIES {
        let (sender, mut receiver) = pair(strategy);
        let (ready_tx, mut ready) = pair(WaitStrategy::Block);
        let child = Process::new(send_then_wait, (sender, 1000u32, ready_tx))
            .start()
            .unwrap();
        ready.recv(&mut [0; 8]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut buffer = [0; 4];
        for number in 0..1000u32 {
            assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
            assert_eq!(u32::from_le_bytes(buffer), number);
        }
        for _ in 0..2 {
            let end = receiver.recv(&mut buffer);
            assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
        }
    }
}

/// A call that never sleeps learns it as well.
#[test]
fn trying_in_a_loop_learns_of_a_death() {
    let (sender, mut receiver) = pair(WaitStrategy::Adaptive);
    let (mut flow, flow_rx) = pair(WaitStrategy::Adaptive);
    let (ready_tx, mut ready) = pair(WaitStrategy::Block);
    let (ready_tx2, mut ready2) = pair(WaitStrategy::Block);
    let holder = Process::new(send_then_wait, (sender, 0u32, ready_tx))
        .start()
        .unwrap();
    let reader = Process::new(hold, (flow_rx, ready_tx2)).start().unwrap();
    ready.recv(&mut [0; 8]).unwrap();
    ready2.recv(&mut [0; 8]).unwrap();
    assert!(matches!(
        receiver.try_recv(&mut [0; 4]),
        Err(RecvError::Empty)
    ));
    flow.try_send(b"1").unwrap();
    holder.kill().unwrap();
    reader.kill().unwrap();
    holder.wait().unwrap();
    reader.wait().unwrap();

    let since = Instant::now();
    let end = loop {
        match receiver.try_recv(&mut [0; 4]) {
            Err(RecvError::Empty) if since.elapsed() < 5 * NOTICE => {}
            other => break other,
        }
    };
    assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
    assert!(since.elapsed() < NOTICE, "{:?}", since.elapsed());

    let since = Instant::now();
    let end = loop {
        match flow.try_send(b"") {
            Ok(()) | Err(SendError::Full) if since.elapsed() < 5 * NOTICE => {}
            other => break other,
        }
    };
    assert!(matches!(end, Err(SendError::PeerDied)), "{end:?}");
    assert!(since.elapsed() < NOTICE, "{:?}", since.elapsed());
}

#[test]
fn a_sender_that_waits_for_room_learns_that_the_receiver_was_killed() {
    for strategy in STRATEGIES {
        let (mut sender, receiver) = pair(strategy);
        let (ready_tx, mut ready) = pair(WaitStrategy::Block);
        let child = Process::new(hold, (receiver, ready_tx)).start().unwrap();
        ready.recv(&mut [0; 8]).unwrap();
        while sender.try_send(&[0; 1000]).is_ok() {}
        let waiting = std::thread::spawn(move || {
            let end = sender.send(&[0; 1000]);
            (Instant::now(), end)
        });
        child.kill().unwrap();
        let killed = Instant::now();
        let (when, end) = waiting.join().unwrap();
        assert!(matches!(end, Err(SendError::PeerDied)), "{end:?}");
        assert!(when.saturating_duration_since(killed) < NOTICE);
    }
}

/// Lets time pass.
fn pause(time: Duration) {
    let (_sender, mut receiver) = pair(WaitStrategy::Block);
    let waited = receiver.recv_timeout(&mut [0; 4], time);
    assert!(matches!(waited, Err(RecvError::TimedOut)), "{waited:?}");
}

/// Parts that are dropped are a process that ended.
fn die(end: impl Handoff) {
    drop(end.into_parts().unwrap());
}

#[test]
fn a_slow_sender_learns_of_a_death_by_its_first_send_thereafter() {
    for sent in 0..8 {
        let (mut sender, receiver) = pair(WaitStrategy::Adaptive);
        for _ in 0..sent {
            sender.send(b"in time").unwrap();
            pause(NOTICE / 8);
        }
        die(receiver);
        pause(NOTICE / 2);
        let end = sender.send(b"too late");
        assert!(matches!(end, Err(SendError::PeerDied)), "{sent}: {end:?}");
    }
}

#[test]
fn a_sender_learns_at_once_of_the_death_of_a_receiver_that_slept() {
    for sent in 1..8 {
        let (mut sender, mut receiver) = pair(WaitStrategy::Adaptive);
        for _ in 0..100 + sent {
            sender.send(b"in time").unwrap();
            receiver.recv(&mut [0; 8]).unwrap();
        }
        assert!(!receiver.arm(), "nothing is there");
        die(receiver);
        pause(NOTICE / 2);
        let end = sender.send(b"too late");
        assert!(matches!(end, Err(SendError::PeerDied)), "{sent}: {end:?}");
    }
}

#[test]
fn a_stopped_peer_is_alive() {
    let (sender, mut receiver) = pair(WaitStrategy::Adaptive);
    let (ready_tx, mut ready) = pair(WaitStrategy::Block);
    let child = Process::new(send_then_wait, (sender, 0u32, ready_tx))
        .start()
        .unwrap();
    ready.recv(&mut [0; 8]).unwrap();
    child.signal(19).unwrap(); // SIGSTOP
    let waited = receiver.recv_timeout(&mut [0; 4], 2 * NOTICE);
    assert!(matches!(waited, Err(RecvError::TimedOut)), "{waited:?}");
    child.kill().unwrap();
    let end = receiver.recv(&mut [0; 4]);
    assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
}

/// Writes numbers for as long as it lives.
fn count_up(mut sender: Sender) {
    for number in 0u64.. {
        let len = 8 + (number.wrapping_mul(0x9E37_79B9) >> 16) as usize % 300;
        let mut message = vec![number as u8; len];
        message[..8].copy_from_slice(&number.to_le_bytes());
        if sender.send(&message).is_err() {
            return;
        }
    }
}

#[test]
fn a_sender_killed_at_any_moment_leaves_no_torn_message() {
    for round in 0..100u32 {
        let strategy = STRATEGIES[round as usize % 3];
        let (sender, mut receiver) = pair(strategy);
        let child = Process::new(count_up, (sender,)).start().unwrap();
        let mut buffer = [0; 512];
        let mut next = 0u64;
        loop {
            match receiver.recv(&mut buffer) {
                Ok(len) => {
                    let (number, rest) = buffer[..len].split_at(8);
                    assert_eq!(u64::from_le_bytes(number.try_into().unwrap()), next);
                    assert!(rest.iter().all(|&byte| byte == next as u8));
                    next += 1;
                }
                Err(RecvError::PeerDied) => break,
                Err(error) => panic!("round {round}: {error}"),
            }
            if next == u64::from(round * round) + 1 {
                child.kill().unwrap();
            }
        }
        assert!(next > u64::from(round * round));
    }
}

fn drain(mut receiver: Receiver) {
    let mut buffer = [0; 512];
    while receiver.recv(&mut buffer).is_ok() {}
}

#[test]
fn a_receiver_killed_at_any_moment_ends_the_sender() {
    for round in 0..100u32 {
        let (mut sender, receiver) = pair(STRATEGIES[round as usize % 3]);
        let child = Process::new(drain, (receiver,)).start().unwrap();
        let mut sent = 0u32;
        let end = loop {
            match sender.send(&[7; 300]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            if sent == round * round + 1 {
                child.kill().unwrap();
            }
        };
        assert!(matches!(end, SendError::PeerDied), "round {round}: {end}");
    }
}

/// What the receiver has not read moves with it, from process to process.
fn pass_on(mut receiver: Receiver, mut back: Sender) -> Receiver {
    let mut buffer = [0; 16];
    let len = receiver.recv(&mut buffer).unwrap();
    back.send(&buffer[..len]).unwrap();
    receiver
}

#[test]
fn a_receiver_goes_to_another_process_and_comes_back() {
    let (mut sender, receiver) = pair(WaitStrategy::Adaptive);
    let (back_tx, mut back) = pair(WaitStrategy::Adaptive);
    sender.send(b"first").unwrap();
    sender.send(b"second").unwrap();
    let child = Process::new(pass_on, (receiver, back_tx)).start().unwrap();
    let mut buffer = [0; 16];
    assert_eq!(back.recv(&mut buffer).unwrap(), 5);
    let mut receiver = child.join().unwrap();
    sender.send(b"third").unwrap();
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 6);
    assert_eq!(&buffer[..6], b"second");
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
    assert_eq!(&buffer[..5], b"third");
    drop(sender);
    assert!(matches!(receiver.recv(&mut buffer), Err(RecvError::Closed)));
}

#[test]
fn a_message_written_and_read_in_place_is_the_same_message() {
    let (mut sender, mut receiver) = pair(WaitStrategy::Adaptive);
    let mut loan = sender.loan(100, Wait::Never).unwrap();
    assert_eq!(loan.capacity(), 100);
    loan.write(0, b"in place");
    loan.commit_first(8);
    drop(sender.loan(50, Wait::Never).unwrap());

    let borrowed = receiver.borrow(Wait::Never).unwrap();
    assert_eq!(borrowed.len(), 8);
    borrowed.keep();
    let borrowed = receiver.borrow(Wait::Never).unwrap();
    let mut copy = [0; 5];
    borrowed.copy_to(3, &mut copy);
    assert_eq!(&copy, b"place");
    // SAFETY: the peer is this test, which does not write now.
    #[expect(unsafe_code, reason = "the caller's word is what is tested")]
    let slice = unsafe { borrowed.as_slice() };
    assert_eq!(slice, b"in place");
    drop(borrowed);
    assert!(
        matches!(receiver.borrow(Wait::Never), Err(RecvError::Empty)),
        "a loan was dropped"
    );
}

#[test]
fn a_released_copy_closes_nothing() {
    let (sender, mut receiver) = pair(WaitStrategy::Adaptive);
    let parts = sender.into_parts().unwrap();
    assert!(matches!(
        receiver.try_recv(&mut [0; 4]),
        Err(RecvError::Empty)
    ));
    let mut sender = Sender::from_parts(parts).unwrap();
    sender.send(b"here").unwrap();
    assert_eq!(receiver.recv(&mut [0; 4]).unwrap(), 4);
}

/// Memory counts as a file: growing it beyond the limit would be a SIGXFSZ.
fn pair_beyond_the_limit_of_files() {
    let low = rustix::process::Rlimit {
        current: Some(8192),
        maximum: Some(8192),
    };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, low).expect("a lower limit");
    SharedMemory::pair(&Options::new().capacity(4096)).expect("a ring that just fits");
    let refused = SharedMemory::pair(&Options::new().capacity(8192));
    let Err(OpenError::Limit(limit)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((limit.name, limit.value), ("RLIMIT_FSIZE", Some(8192)));
    let refused = ipc_shm::Segment::create(&format!("/ipc-shm-{}", std::process::id()), 8193);
    assert!(matches!(refused, Err(OpenError::Limit(_))), "{refused:?}");
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_signal() {
    let process = Process::new(pair_beyond_the_limit_of_files, ())
        .start()
        .expect("a process");
    process.join().expect("no SIGXFSZ");
}

/// As a forked child holds them, without knowing.
#[test]
fn a_sleeping_peer_learns_of_the_close_while_copies_of_the_descriptors_live_on() {
    for strategy in STRATEGIES {
        let (sender, mut receiver) = pair(strategy);
        let copies = sender.to_parts().unwrap();
        let (before, after) = (Instant::now(), Duration::from_secs(5));
        let sleeper = std::thread::spawn(move || receiver.recv_timeout(&mut [0; 8], after));
        // Until it has announced that it sleeps, in its state.
        let asleep = || {
            let mut state = [0; 4];
            rustix::io::pread(&copies.descriptors[0], &mut state, 512).unwrap();
            u32::from_ne_bytes(state) & 1 == 1
        };
        while !asleep() {
            std::thread::yield_now();
        }
        drop(sender);
        let end = sleeper.join().unwrap();
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
        assert!(before.elapsed() < after, "{strategy:?}");
    }
}

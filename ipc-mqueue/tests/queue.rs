//! What a queue adds to the common contract, within one process: priorities, the message kept for
//! a larger buffer, hand-off parts as hostile input, readiness, and the native `Queue` beside bare
//! `posixmq`.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipc_core::wait::{Polled, poll};
use ipc_core::{
    Channel, Handoff, OpenError, Parts, Pollable, Receiver as _, RecvError, SendError, Sender as _,
    Tunable, Wait, WaitStrategy,
};
use ipc_mqueue::{Access, MAX_PRIORITY, MessageQueue, Options, Queue, Receiver, Sender};

fn small() -> Options {
    Options::default().message_size(64).depth(3)
}

fn pair() -> (Sender, Receiver) {
    MessageQueue::pair(&small()).expect("a small queue fits every limit")
}

/// A queue with a name that goes with the test.
struct Named(String);

impl Named {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("/ipc-test-{}-{number}", std::process::id()))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Queue::unlink(&self.0);
    }
}

#[test]
fn a_higher_priority_overtakes_and_send_keeps_its_order() {
    let (mut tx, mut rx) = pair();
    tx.send(b"first").unwrap();
    tx.send(b"second").unwrap();
    tx.send_with_priority(b"urgent", MAX_PRIORITY, Wait::Never)
        .unwrap();
    let mut buffer = [0; 64];
    let got = rx.recv_with_priority(&mut buffer, Wait::Never).unwrap();
    assert_eq!(
        (&buffer[..got.len], got.priority),
        (&b"urgent"[..], MAX_PRIORITY)
    );
    for expected in [&b"first"[..], b"second"] {
        let got = rx.recv_with_priority(&mut buffer, Wait::Never).unwrap();
        assert_eq!((&buffer[..got.len], got.priority), (expected, 0));
    }
}

#[test]
fn a_priority_that_is_too_high_is_a_limit_and_sends_nothing() {
    let (mut tx, mut rx) = pair();
    let refused = tx.send_with_priority(b"x", MAX_PRIORITY + 1, Wait::Never);
    assert!(matches!(refused, Err(SendError::Limit(limit)) if limit.name == "MQ_PRIO_MAX"));
    assert!(matches!(rx.try_recv(&mut [0; 64]), Err(RecvError::Empty)));
}

#[test]
fn a_small_buffer_keeps_the_message_and_its_place() {
    for strategy in [
        WaitStrategy::Block,
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
    ] {
        let (mut tx, mut rx) = MessageQueue::pair(&small().wait_strategy(strategy)).unwrap();
        tx.send(b"0123456789").unwrap();
        let mut buffer = [0; 64];
        for len in [0, 9] {
            let refused = rx.recv(&mut buffer[..len]);
            assert!(matches!(
                refused,
                Err(RecvError::BufferTooSmall { needed: 10 })
            ));
        }
        assert!(rx.arm(), "a message is kept: the caller must not sleep");
        tx.send_with_priority(b"overtakes only what is in the queue", 1, Wait::Never)
            .unwrap();
        assert_eq!(rx.recv(&mut buffer[..10]).unwrap(), 10);
        assert_eq!(&buffer[..10], b"0123456789");
        assert!(!rx.arm());
        drop(tx);
        assert_eq!(rx.recv(&mut buffer).unwrap(), 35);
        assert!(matches!(rx.recv(&mut buffer), Err(RecvError::Closed)));
    }
}

#[test]
fn a_kept_message_travels_with_the_receiver() {
    let (mut tx, mut rx) = pair();
    tx.send_with_priority(b"kept", 7, Wait::Never).unwrap();
    tx.send(b"queued").unwrap();
    assert!(matches!(
        rx.try_recv(&mut [0; 1]),
        Err(RecvError::BufferTooSmall { needed: 4 })
    ));
    let mut rx = Receiver::from_parts(rx.into_parts().unwrap()).unwrap();
    tx.send(b"after").unwrap();
    let mut buffer = [0; 64];
    for (expected, priority) in [(&b"kept"[..], 7), (b"queued", 0), (b"after", 0)] {
        let got = rx.recv_with_priority(&mut buffer, Wait::Never).unwrap();
        assert_eq!((&buffer[..got.len], got.priority), (expected, priority));
    }
    drop(rx);
    assert!(matches!(end_of(&mut tx), SendError::Closed));
}

/// What a sender that goes on trying is told in the end.
fn end_of(tx: &mut Sender) -> SendError {
    loop {
        match tx.try_send(b"x") {
            Ok(()) | Err(SendError::Full) => {}
            Err(error) => return error,
        }
    }
}

#[test]
fn a_handed_off_sender_is_the_same_sender() {
    let (mut tx, mut rx) = pair();
    tx.send(b"before").unwrap();
    let mut tx = Sender::from_parts(tx.into_parts().unwrap()).unwrap();
    tx.send(b"after").unwrap();
    drop(tx);
    let mut message = Vec::new();
    for expected in [&b"before"[..], b"after"] {
        rx.recv_vec(&mut message, Wait::Forever).unwrap();
        assert_eq!(message, expected);
    }
    for _ in 0..2 {
        assert!(matches!(rx.recv(&mut [0; 64]), Err(RecvError::Closed)));
    }
}

#[test]
fn an_end_dropped_without_farewell_has_died() {
    let (mut tx, rx) = pair();
    rx.release();
    drop(rx);
    assert!(matches!(tx.send(b"x"), Err(SendError::PeerDied)));
    let (mut tx, mut rx) = pair();
    tx.send(b"last").unwrap();
    tx.release();
    drop(tx);
    assert_eq!(rx.recv(&mut [0; 64]).unwrap(), 4);
    for wait in [Wait::Forever, Wait::Never, Wait::Until(Instant::now())] {
        assert!(matches!(
            rx.recv_with(&mut [0; 64], wait),
            Err(RecvError::PeerDied)
        ));
    }
}

#[test]
fn hostile_parts_are_refused() {
    let refused = |parts: Parts| {
        assert!(matches!(
            Receiver::from_parts(parts),
            Err(OpenError::Untrusted { .. } | OpenError::Incompatible { .. })
        ));
    };
    let good = || pair().1.into_parts().unwrap();
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    Receiver::from_parts(good()).unwrap();

    refused(Parts::default());
    refused(pair().0.into_parts().unwrap());
    refused(Parts {
        data: good().data,
        descriptors: Vec::new(),
    });
    for length in 0..3 {
        let mut parts = good();
        parts.data.truncate(length);
        refused(parts);
    }
    for byte in 0..3 {
        let mut parts = good();
        parts.data[byte] ^= 0x80;
        refused(parts);
    }
    for descriptor in 0..2 {
        let mut parts = good();
        parts.descriptors[descriptor] = null();
        refused(parts);
    }
    let mut parts = good();
    parts.descriptors.push(null());
    refused(parts);
    // A kept message without its priority, and one longer than the queue's messages.
    for extra in [1, 3, 4 + 65] {
        let mut parts = good();
        parts.data.extend(std::iter::repeat_n(0, extra));
        refused(parts);
    }
    // The other end's queue descriptor, which cannot receive.
    let mut parts = good();
    parts.descriptors[0] = pair().0.into_parts().unwrap().descriptors.swap_remove(0);
    refused(parts);
    let mut parts = pair().0.into_parts().unwrap();
    parts.data.push(0);
    assert!(matches!(
        Sender::from_parts(parts),
        Err(OpenError::Untrusted { .. })
    ));
}

#[test]
fn both_ends_become_ready_for_work_and_for_the_end() {
    let (mut tx, mut rx) = pair();
    let ready =
        |end: &dyn PollEnd| poll([(end.fd(), end.event())], Wait::Never).unwrap() == Polled::Ready;
    assert!(ready(&tx) && !ready(&rx));
    for _ in 0..3 {
        tx.try_send(b"x").unwrap();
    }
    assert!(matches!(tx.try_send(b"x"), Err(SendError::Full)));
    assert!(!ready(&tx) && ready(&rx));
    rx.try_recv(&mut [0; 64]).unwrap();
    assert!(ready(&tx) && ready(&rx));
    tx.try_send(b"x").unwrap();
    drop(rx);
    assert!(ready(&tx), "full, but there is an end to report");
    assert!(matches!(tx.try_send(b"x"), Err(SendError::Closed)));
    let (tx, rx) = pair();
    assert!(!ready(&rx));
    drop(tx);
    assert!(ready(&rx));
}

trait PollEnd {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
    fn event(&self) -> ipc_core::wait::Interest;
}

impl<E: Pollable> PollEnd for E {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
    fn event(&self) -> ipc_core::wait::Interest {
        self.interest()
    }
}

#[test]
fn a_sender_that_only_tries_learns_of_the_end_though_there_is_room() {
    let (mut tx, mut rx) = MessageQueue::pair(&Options::default().message_size(64)).unwrap();
    tx.try_send(b"x").unwrap();
    rx.try_recv(&mut [0; 64]).unwrap();
    drop(rx);
    let closed = Instant::now();
    // One message each 15 ms: the queue of 10 would fill only after the time allowed.
    let outcome = loop {
        match tx.try_send(b"x") {
            Ok(()) => poll([], Wait::at_most(Duration::from_millis(15))).unwrap(),
            Err(error) => break error,
        };
    };
    assert!(matches!(outcome, SendError::Closed));
    assert!(closed.elapsed() < Duration::from_millis(100));
}

#[test]
fn closing_ends_the_sleep_of_the_other_side() {
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        let options = small().wait_strategy(strategy);
        // Before the other side sleeps, and while it does.
        for delay in [Duration::ZERO, Duration::from_millis(30)] {
            let (tx, mut rx) = MessageQueue::pair(&options).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    poll([], Wait::at_most(delay)).unwrap();
                    drop(tx);
                });
                let started = Instant::now();
                assert!(matches!(rx.recv(&mut [0; 64]), Err(RecvError::Closed)));
                assert!(started.elapsed() < delay + Duration::from_millis(100));
            });
            let (mut tx, rx) = MessageQueue::pair(&options).unwrap();
            for _ in 0..3 {
                tx.try_send(b"x").unwrap();
            }
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    poll([], Wait::at_most(delay)).unwrap();
                    drop(rx);
                });
                let started = Instant::now();
                assert!(matches!(tx.send(b"x"), Err(SendError::Closed)));
                assert!(started.elapsed() < delay + Duration::from_millis(100));
            });
        }
    }
}

#[test]
fn a_queue_that_someone_made_non_blocking_still_waits() {
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        let (mut tx, rx) = MessageQueue::pair(&small().wait_strategy(strategy)).unwrap();
        let parts = rx.into_parts().unwrap();
        let flags = rustix::fs::fcntl_getfl(&parts.descriptors[0]).unwrap();
        rustix::fs::fcntl_setfl(&parts.descriptors[0], flags | rustix::fs::OFlags::NONBLOCK)
            .unwrap();
        let mut rx = Receiver::from_parts(parts).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                poll([], Wait::at_most(Duration::from_millis(20))).unwrap();
                tx.send(b"late").unwrap();
            });
            assert_eq!(rx.recv(&mut [0; 64]).unwrap(), 4);
        });
        let short = rx.recv_timeout(&mut [0; 64], Duration::from_millis(5));
        assert!(matches!(short, Err(RecvError::TimedOut)));
    }
}

#[test]
fn nameless_queues_leave_no_name_and_overcome_one_that_was_left() {
    // As if a process of this user had been killed between making and unlinking.
    let usual = format!("/ipc-mqueue-{}", rustix::process::geteuid().as_raw());
    let _ = Queue::create_named(&usual, Access::Both, &small());
    let (mut tx, mut rx) = pair();
    tx.send(b"x").unwrap();
    assert_eq!(rx.recv(&mut [0; 64]).unwrap(), 1);
    // Queues that other tests make at this moment have the name for a moment; one that was left has it
    // for good.
    let patience = Instant::now() + Duration::from_secs(10);
    while !matches!(
        Queue::open_named(&usual, Access::Receive),
        Err(OpenError::NotFound)
    ) {
        assert!(Instant::now() < patience, "the name was left");
        std::thread::yield_now();
    }
}

#[test]
fn two_threads_that_make_queues_at_once_get_two_queues() {
    std::thread::scope(|scope| {
        for thread in 0..3u8 {
            scope.spawn(move || {
                for round in 0..200u8 {
                    let (mut tx, mut rx) = pair();
                    tx.try_send(&[thread, round]).unwrap();
                    let mut buffer = [0; 64];
                    assert_eq!(rx.try_recv(&mut buffer).unwrap(), 2);
                    assert_eq!(buffer[..2], [thread, round]);
                    assert!(matches!(rx.try_recv(&mut buffer), Err(RecvError::Empty)));
                }
            });
        }
    });
}

#[test]
fn a_named_queue_speaks_with_a_bare_one() {
    let name = Named::new();
    let mut ours = Queue::create_named(&name.0, Access::Both, &small()).unwrap();
    assert!(matches!(
        Queue::create_named(&name.0, Access::Both, &small()),
        Err(OpenError::NameInUse)
    ));
    let theirs = posixmq::PosixMq::open(&name.0).unwrap();
    assert_eq!(theirs.attributes().unwrap().max_msg_len, 64);
    theirs.send(5, b"from them").unwrap();
    let mut buffer = [0; 64];
    let got = ours.recv_with(&mut buffer, Wait::Forever).unwrap();
    assert_eq!((&buffer[..got.len], got.priority), (&b"from them"[..], 5));
    ours.send_with(b"from us", 6, Wait::Forever).unwrap();
    assert_eq!(ours.waiting().unwrap(), 1);
    assert_eq!(theirs.recv(&mut buffer).unwrap(), (6, 7));

    let mut receiver = Queue::open_named(&name.0, Access::Receive).unwrap();
    let refused = receiver.send_with(b"x", 0, Wait::Never);
    assert!(matches!(refused, Err(SendError::Io { .. })));
    Queue::unlink(&name.0).unwrap();
    assert!(matches!(
        Queue::open_named(&name.0, Access::Both),
        Err(OpenError::NotFound)
    ));
    assert!(matches!(Queue::unlink(&name.0), Err(OpenError::NotFound)));
}

#[test]
fn a_named_queue_keeps_its_deadlines() {
    let name = Named::new();
    let mut queue = Queue::create_named(&name.0, Access::Both, &small()).unwrap();
    let timeout = Duration::from_millis(20);
    let started = Instant::now();
    let empty = queue.recv_with(&mut [0; 64], Wait::at_most(timeout));
    assert!(matches!(empty, Err(RecvError::TimedOut)));
    assert!(started.elapsed() >= timeout && started.elapsed() < timeout * 3);
    for _ in 0..3 {
        queue.send_with(b"", 0, Wait::Never).unwrap();
    }
    let started = Instant::now();
    let full = queue.send_with(b"", 0, Wait::at_most(timeout));
    assert!(matches!(full, Err(SendError::TimedOut)));
    assert!(started.elapsed() >= timeout && started.elapsed() < timeout * 3);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let long = format!("/{}", "x".repeat(255));
    for name in ["", "/", "word", "/a/b", "/..", "/.", "/a\0b", &long] {
        assert!(matches!(
            Queue::open_named(name, Access::Both),
            Err(OpenError::Invalid { .. })
        ));
        assert!(matches!(
            Queue::unlink(name),
            Err(OpenError::Invalid { .. })
        ));
    }
}

/// The same random commands, to a `Queue` and to bare `posixmq`: the same answers.
#[test]
fn a_queue_answers_as_bare_posixmq_does() {
    let (left, right) = (Named::new(), Named::new());
    let mut ours = Queue::create_named(&left.0, Access::Both, &small()).unwrap();
    let bare = posixmq::OpenOptions::readwrite()
        .max_msg_len(64)
        .capacity(3)
        .nonblocking()
        .create_new()
        .open(&right.0)
        .unwrap();
    posixmq::remove_queue(&right.0).unwrap();

    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut seen = HashSet::new();
    for step in 0..20_000u32 {
        let answers = if random(2) == 0 {
            let message = [step as u8; 70];
            let message = &message[..usize::try_from(random(70)).unwrap()];
            let priority = [0, 1, 32_767, 32_768][usize::try_from(random(4)).unwrap()];
            let ours = match ours.send_with(message, priority, Wait::Never) {
                Ok(()) => "sent",
                Err(SendError::Full) => "full",
                Err(SendError::TooLong { .. }) => "too long",
                Err(SendError::Limit(_)) => "bad priority",
                Err(other) => panic!("{other}"),
            };
            let bare = match bare.send(priority, message) {
                Ok(()) => "sent",
                // The kernel looks at the priority first, we at the length.
                Err(error) => match (error.kind(), message.len() > 64) {
                    (io::ErrorKind::InvalidInput, true) => "too long",
                    (io::ErrorKind::InvalidInput, false) => "bad priority",
                    (io::ErrorKind::WouldBlock, _) => "full",
                    (_, true) => "too long",
                    _ => panic!("{error}"),
                },
            };
            (ours.to_owned(), bare.to_owned())
        } else {
            let (mut one, mut two) = ([0; 64], [0; 64]);
            // Now and then through a buffer that is too small first.
            if random(3) == 0 {
                let _ = ours.recv_with(&mut [], Wait::Never).map(|got| {
                    assert_eq!(got.len, 0);
                    let (priority, len) = bare.recv(&mut two).unwrap();
                    assert_eq!((priority, len), (got.priority, 0));
                });
            }
            let ours = match ours.recv_with(&mut one, Wait::Never) {
                Ok(got) => format!("{} {:?}", got.priority, &one[..got.len]),
                Err(RecvError::Empty) => "empty".to_owned(),
                Err(other) => panic!("{other}"),
            };
            let bare = match bare.recv(&mut two) {
                Ok((priority, len)) => format!("{priority} {:?}", &two[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => "empty".to_owned(),
                Err(error) => panic!("{error}"),
            };
            (ours, bare)
        };
        assert_eq!(answers.0, answers.1, "at step {step}");
        seen.insert(answers.0.split(' ').next().unwrap().to_owned());
    }
    for case in ["sent", "full", "too", "bad", "empty", "0", "1", "32767"] {
        assert!(seen.contains(case), "{case} never happened");
    }
}

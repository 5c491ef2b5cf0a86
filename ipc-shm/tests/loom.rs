//! Every interleaving that the memory model allows, of the ring and of its sleeping.
//!
//! The sources are compiled into this test with loom's atomics in the place of the real ones. Loom
//! explores no more than a handful of steps, so the rings are tiny: two or three messages in a
//! ring of four words, which wraps, fills up and runs empty.
//!
//! Each of these mistakes, made by hand, was seen to fail: a relaxed publication, search, position or
//! closing, on either side; no barrier at the sleeper or at who publishes; one number for all sleeps; no
//! empty word behind a frame, none kept room for, or one that comes after its frame. What is not here: the
//! kernel's bells, time, and the death of a process.

#[path = "../src/parking.rs"]
mod parking;
#[path = "../src/ring.rs"]
mod ring;

/// Loom's atomics under the names that `src/sync.rs` gives to the real ones. What membarrier does
/// to whoever publishes, at the moment of the sleeper's call, is here a barrier of its own at
/// every publishing, in models where somebody sleeps. It would also stand in for an acquire or a release
/// that is missing elsewhere: where nobody sleeps there is none.
mod sync {
    use std::cell::Cell;

    use loom::sync::atomic::fence;
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    std::thread_local! {
        /// Loom runs all threads of a model in the thread of the test.
        pub(crate) static SOMEBODY_SLEEPS: Cell<bool> = const { Cell::new(true) };
    }

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Publisher;

    impl Publisher {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn publish(self, position: &AtomicU64, value: u64) {
            position.store(value, Ordering::Release);
            if SOMEBODY_SLEEPS.get() {
                fence(Ordering::SeqCst);
            }
        }
    }

    pub(crate) fn announced() -> bool {
        fence(Ordering::SeqCst);
        true
    }
}

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;
use loom::sync::{Arc, Condvar, Mutex};
use parking::{Sleeper, Waker, is_closed};
use ring::{Consumer, Memory, Producer};
use sync::{AtomicU32, AtomicU64, Ordering};

/// A word is the first of a frame in one lap and bytes of a message in the next, so all are atomics.
/// Messages are copied without any order of their own: what the protocol does not order, loom shows
/// out of order, or reports as a data race of the cell beside the word.
struct Model {
    tail: AtomicU64,
    head: AtomicU64,
    words: Vec<AtomicU64>,
    copied: Vec<UnsafeCell<()>>,
    sender_state: AtomicU32,
    receiver_state: AtomicU32,
    receiver_bell: Bell,
    sender_bell: Bell,
}

/// A doorbell with its `poll`.
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn new() -> Self {
        Self {
            rung: Mutex::new(false),
            heard: Condvar::new(),
        }
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.heard.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Model {
    fn new(words: usize) -> Arc<Self> {
        Arc::new(Self {
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            copied: (0..words).map(|_| UnsafeCell::new(())).collect(),
            sender_state: AtomicU32::new(0),
            receiver_state: AtomicU32::new(0),
            receiver_bell: Bell::new(),
            sender_bell: Bell::new(),
        })
    }
}

impl Memory for Arc<Model> {
    fn tail(&self) -> &AtomicU64 {
        &self.tail
    }

    fn head(&self) -> &AtomicU64 {
        &self.head
    }

    fn capacity(&self) -> usize {
        self.words.len() * 8
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        &self.words[position as usize / 8 % self.words.len()]
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        for (at, chunk) in (offset / 8..).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.copied[at].with_mut(|_| ());
            self.words[at].store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        for (at, chunk) in (offset / 8..).zip(bytes.chunks_mut(8)) {
            self.copied[at].with(|_| ());
            let word = self.words[at].load(Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Eight bytes that would be the first word of a frame if they were taken for one.
fn message(number: u64) -> Vec<u8> {
    (1 << 32 | number).to_le_bytes().to_vec()
}

fn try_send(ring: &mut Producer<Arc<Model>>, message: &[u8]) -> bool {
    let room = ring.reserve(message.len()).unwrap();
    room.map(|room| ring.send(room, message)).is_some()
}

/// Sends as a loan does: the room first, its end last.
fn try_lend(ring: &mut Producer<Arc<Model>>, message: &[u8]) -> bool {
    let Some(room) = ring.reserve(8).unwrap() else {
        return false;
    };
    ring.fill(room, 0, message);
    ring.commit(room, message.len());
    true
}

fn try_recv(ring: &mut Consumer<Arc<Model>>) -> Option<Vec<u8>> {
    let found = ring.peek().unwrap()?;
    let mut message = vec![0; found.len];
    ring.copy(found, 0, &mut message);
    ring.consume(found);
    Some(message)
}

/// Sends, sleeping while there is no room, as `link.rs` does.
fn send(ring: &mut Producer<Arc<Model>>, sleeper: &mut Sleeper, waker: &mut Waker, message: &[u8]) {
    let model = ring.memory().clone();
    while !try_send(ring, message) {
        assert!(sleeper.announce(&model.sender_state));
        let sent = try_send(ring, message);
        if !sent {
            model.sender_bell.sleep();
        }
        sleeper.retract(&model.sender_state);
        if sent {
            break;
        }
    }
    if waker.must_ring(&model.receiver_state) {
        model.receiver_bell.ring();
    }
}

/// Receives, sleeping while there is nothing, as `link.rs` does; `None` once the sender closed.
fn recv(
    ring: &mut Consumer<Arc<Model>>,
    sleeper: &mut Sleeper,
    waker: &mut Waker,
) -> Option<Vec<u8>> {
    let model = ring.memory().clone();
    let message = loop {
        if let Some(message) = try_recv(ring) {
            break message;
        }
        assert!(sleeper.announce(&model.receiver_state));
        let message = try_recv(ring);
        let closed = is_closed(&model.sender_state);
        if message.is_none() && !closed {
            ring.check_tail().unwrap();
            model.receiver_bell.sleep();
        }
        sleeper.retract(&model.receiver_state);
        if let Some(message) = message {
            break message;
        }
        if closed {
            // Once more: what was published before the closing is visible now.
            break try_recv(ring)?;
        }
    };
    if waker.must_ring(&model.sender_state) {
        model.sender_bell.ring();
    }
    Some(message)
}

/// Three preemptions find the races of two threads; without a bound the larger models would take
/// hours.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// As [`explore`], where nobody sleeps.
fn explore_awake(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    sync::SOMEBODY_SLEEPS.set(false);
    explore(preemptions, model);
}

#[test]
fn messages_arrive_whole_and_in_order_without_a_data_race() {
    fn expected() -> [Vec<u8>; 3] {
        [message(1), Vec::new(), message(3)]
    }
    explore_awake(4, || {
        let model = Model::new(4);
        let mut producer = Producer::attach(model.clone()).unwrap();
        let mut consumer = Consumer::attach(model).unwrap();
        let sender = loom::thread::spawn(move || {
            let mut sent = 0u8;
            for message in expected() {
                if !try_lend(&mut producer, &message) {
                    break;
                }
                sent += 1;
            }
            sent
        });
        let mut received = Vec::new();
        for _ in 0..2 {
            received.extend(try_recv(&mut consumer));
            consumer.check_tail().unwrap();
        }
        let sent = sender.join().unwrap();
        while let Some(message) = try_recv(&mut consumer) {
            received.push(message);
        }
        assert_eq!(received, expected()[..usize::from(sent)]);
    });
}

#[test]
fn no_wake_up_of_a_receiver_is_lost() {
    explore(3, || {
        let model = Model::new(4);
        let mut consumer = Consumer::attach(model.clone()).unwrap();
        let sender = loom::thread::spawn({
            let model = model.clone();
            move || {
                let mut producer = Producer::attach(model.clone()).unwrap();
                let mut sleeper = Sleeper::attach(&model.sender_state);
                let mut waker = Waker::default();
                send(&mut producer, &mut sleeper, &mut waker, b"1");
                send(&mut producer, &mut sleeper, &mut waker, b"2");
            }
        });
        let mut sleeper = Sleeper::attach(&model.receiver_state);
        let mut waker = Waker::default();
        assert_eq!(
            recv(&mut consumer, &mut sleeper, &mut waker),
            Some(b"1".to_vec())
        );
        assert_eq!(
            recv(&mut consumer, &mut sleeper, &mut waker),
            Some(b"2".to_vec())
        );
        sender.join().unwrap();
    });
}

#[test]
fn no_wake_up_of_a_sender_is_lost_and_the_ring_wraps() {
    explore(3, || {
        // Room for one message of two words at a time: the second waits, the third wraps.
        let model = Model::new(4);
        let mut consumer = Consumer::attach(model.clone()).unwrap();
        let sender = loom::thread::spawn({
            let model = model.clone();
            move || {
                let mut producer = Producer::attach(model.clone()).unwrap();
                let mut sleeper = Sleeper::attach(&model.sender_state);
                let mut waker = Waker::default();
                for number in 1..=3 {
                    send(&mut producer, &mut sleeper, &mut waker, &message(number));
                }
            }
        });
        let mut sleeper = Sleeper::attach(&model.receiver_state);
        let mut waker = Waker::default();
        for number in 1..=3 {
            assert_eq!(
                recv(&mut consumer, &mut sleeper, &mut waker),
                Some(message(number))
            );
        }
        sender.join().unwrap();
    });
}

#[test]
fn the_end_comes_after_the_last_message() {
    explore(3, || {
        let model = Model::new(4);
        let mut consumer = Consumer::attach(model.clone()).unwrap();
        let sender = loom::thread::spawn({
            let model = model.clone();
            move || {
                let mut producer = Producer::attach(model.clone()).unwrap();
                let mut sleeper = Sleeper::attach(&model.sender_state);
                let mut waker = Waker::default();
                send(&mut producer, &mut sleeper, &mut waker, b"1");
                sleeper.close(&model.sender_state);
                // The farewell on the lifeline, which wakes whoever sleeps.
                model.receiver_bell.ring();
            }
        });
        let mut sleeper = Sleeper::attach(&model.receiver_state);
        let mut waker = Waker::default();
        assert_eq!(
            recv(&mut consumer, &mut sleeper, &mut waker),
            Some(b"1".to_vec())
        );
        assert_eq!(recv(&mut consumer, &mut sleeper, &mut waker), None);
        sender.join().unwrap();
    });
}

#[test]
fn who_sees_the_end_sees_the_last_message_too() {
    explore_awake(4, || {
        let model = Model::new(4);
        let receiver = loom::thread::spawn({
            let model = model.clone();
            move || {
                let mut consumer = Consumer::attach(model.clone()).unwrap();
                let mut received = try_recv(&mut consumer);
                if received.is_none() && is_closed(&model.sender_state) {
                    received = try_recv(&mut consumer);
                    assert!(received.is_some());
                }
            }
        });
        let mut producer = Producer::attach(model.clone()).unwrap();
        let mut sleeper = Sleeper::attach(&model.sender_state);
        assert!(try_send(&mut producer, b"1"));
        sleeper.close(&model.sender_state);
        receiver.join().unwrap();
    });
}

/// The model must be able to see the mistake that it is there to exclude: a waker that clears the
/// sleeper's bit itself, after publishing, wipes out the announcement of the next sleep.
#[test]
#[should_panic(expected = "deadlock")]
fn a_waker_that_clears_the_bit_loses_a_wake_up() {
    explore(4, || {
        let asleep = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let bell = Arc::new(Bell::new());
        let waker = loom::thread::spawn({
            let (asleep, count, bell) = (asleep.clone(), count.clone(), bell.clone());
            move || {
                for value in 1..=2 {
                    sync::Publisher.publish(&count, value);
                    if asleep.load(Ordering::Relaxed) {
                        bell.ring();
                        asleep.store(false, Ordering::Relaxed);
                    }
                }
            }
        });
        for value in 1..=2 {
            while count.load(Ordering::Acquire) < value {
                asleep.store(true, Ordering::Relaxed);
                loom::sync::atomic::fence(Ordering::SeqCst);
                if count.load(Ordering::Acquire) < value {
                    bell.sleep();
                }
            }
        }
        waker.join().unwrap();
    });
}

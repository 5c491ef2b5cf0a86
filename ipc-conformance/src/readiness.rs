//! Ends that `poll(2)` and event loops watch: `Readiness::Pollable`.
//!
//! Two ways to watch, since each loses wake-ups of its own: `poll(2)` tells a state, an edge of
//! `epoll(7)`, on which event loops build, tells a change once.

use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipc_core::wait::{Polled, poll};
use ipc_core::{
    Channel, End, Pollable, Receiver, RecvError, SendError, Sender, Wait, WaitStrategy,
};
use rustix::event::epoll;

use crate::content;
use crate::harness::{Case, Held, crosses, longest, pair, small};
use crate::list::cases;
use crate::order;
use crate::procfs::pause;
use crate::timing::{NOTICE, prompt};
use crate::waiting::{fill, fills};

const MESSAGES: u64 = 5000;

/// Something that sleeps until an end may be ready.
trait Watch<E>: Sized {
    fn new(end: &E) -> Self;
    fn sleep(&self, end: &E);
}

/// `poll(2)`: for as long as there is something.
struct Level;

impl<E: Pollable> Watch<E> for Level {
    fn new(_: &E) -> Self {
        Self
    }

    fn sleep(&self, end: &E) {
        poll([(end.as_fd(), end.interest())], Wait::Forever).expect("ppoll");
    }
}

/// An edge-triggered `epoll(7)`: once for each thing that happens.
struct Edge(std::os::fd::OwnedFd);

impl<E: Pollable> Watch<E> for Edge {
    fn new(end: &E) -> Self {
        let reactor = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll_create1");
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&reactor, end.as_fd(), data, flags).expect("epoll_ctl");
        Self(reactor)
    }

    fn sleep(&self, _: &E) {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        while epoll::wait(&self.0, &mut events[..], None) == Err(rustix::io::Errno::INTR) {}
    }
}

/// Tries, arms and sleeps, as [`Pollable`] says, until `attempt` gives something.
fn when_ready<E: Pollable, W: Watch<E>, T>(
    end: &mut E,
    watch: &W,
    mut attempt: impl FnMut(&mut E) -> Option<T>,
) -> T {
    loop {
        if let Some(value) = attempt(end) {
            return value;
        }
        if !end.arm() {
            watch.sleep(end);
        }
    }
}

fn recv<R: Receiver>(rx: &mut R, buffer: &mut [u8]) -> Option<Result<usize, RecvError>> {
    match rx.try_recv(buffer) {
        Err(RecvError::Empty) => None,
        outcome => Some(outcome),
    }
}

fn send<S: Sender>(tx: &mut S, message: &[u8]) -> Option<Result<(), SendError>> {
    match tx.try_send(message) {
        Err(SendError::Full) => None,
        outcome => Some(outcome),
    }
}

/// The longest message to send by readiness.
fn longest_ready<C>(tx: &C::Sender) -> usize
where
    C: Channel<Sender: Pollable>,
{
    longest(tx.limits()).min(tx.longest_ready())
}

/// Sends when there is room, with and without pauses in which the receiver falls asleep.
fn send_when_ready<C, W>(case: Case, (tx, seed): (End<C::Sender>, u64))
where
    C: Channel<Sender: Pollable>,
    W: Watch<C::Sender>,
{
    let mut tx = tx.into_inner();
    let longest = longest_ready::<C>(&tx);
    let watch = W::new(&tx);
    let mut random = content::Random::new(seed);
    case.step("sending when there is room");
    for number in 0..MESSAGES {
        let message = content::message(number, content::length(number, longest));
        when_ready(&mut tx, &watch, |tx| send(tx, &message))
            .unwrap_or_else(|e| panic!("message {number}: {e}"));
        if number % 64 == 0 {
            pause(Duration::from_micros(random.next() % 300));
        }
    }
    case.step("closing");
}

fn receive_when_ready<C, W>(case: &Case, rx: &mut C::Receiver, longest: usize, seed: u64)
where
    C: Channel<Receiver: Pollable>,
    W: Watch<C::Receiver>,
{
    let watch = W::new(rx);
    let mut random = content::Random::new(!seed);
    let mut buffer = vec![0; longest];
    case.step("receiving when there is something");
    for number in 0..MESSAGES {
        let got = when_ready(rx, &watch, |rx| recv(rx, &mut buffer))
            .unwrap_or_else(|e| panic!("instead of message {number}: {e}"));
        content::check(number, content::length(number, longest), &buffer[..got])
            .unwrap_or_else(|wrong| panic!("{wrong}"));
        if number % 97 == 0 {
            pause(Duration::from_micros(random.next() % 300));
        }
    }
    case.step("receiving the end when it is there");
    let end = when_ready(rx, &watch, |rx| recv(rx, &mut buffer));
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
}

fn exchange<C, W>(case: &Case)
where
    C: Channel<Sender: Pollable, Receiver: Pollable>,
    W: Watch<C::Sender> + Watch<C::Receiver> + 'static,
{
    let seed = case.random().next();
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        let (tx, mut rx) = small::<C>(strategy);
        let longest = longest_ready::<C>(&tx);
        let peer = case.start("sender", send_when_ready::<C, W>, (End::new(tx), seed));
        receive_when_ready::<C, W>(case, &mut rx, longest, seed);
        case.join(peer);
    }
}

/// Answers each message when it is there.
fn answer_when_ready<C>(case: Case, (rx, tx): (End<C::Receiver>, End<C::Sender>))
where
    C: Channel<Sender: Pollable, Receiver: Pollable>,
{
    let (mut rx, mut tx) = (rx.into_inner(), tx.into_inner());
    let (in_watch, out_watch) = (Edge::new(&rx), Edge::new(&tx));
    let mut buffer = [0; 8];
    case.step("answering");
    while let Ok(got) = when_ready(&mut rx, &in_watch, |rx| recv(rx, &mut buffer)) {
        when_ready(&mut tx, &out_watch, |tx| send(tx, &buffer[..got])).expect("the asker listens");
    }
}

/// How often an end on which nothing happens wakes its watcher within a moment.
fn wakes<E: Pollable>(end: &mut E, mut attempt: impl FnMut(&mut E) -> bool) -> u32 {
    let wait = Wait::at_most(Duration::from_millis(60));
    let mut wakes = 0;
    loop {
        assert!(!attempt(end), "something came of nothing");
        if end.arm() {
            wakes += 1;
        } else {
            match poll([(end.as_fd(), end.interest())], wait).expect("ppoll") {
                Polled::Ready => wakes += 1,
                Polled::TimedOut => return wakes,
            }
        }
        if wakes > 1000 || wait.is_over() {
            return wakes;
        }
    }
}

/// Kills the side that holds an end when this thread has fallen asleep; says when.
fn kill_soon(held: Held) -> JoinHandle<Instant> {
    std::thread::spawn(move || {
        pause(Duration::from_millis(10));
        let at = Instant::now();
        held.kill();
        at
    })
}

cases! { [C::Sender: Pollable, C::Receiver: Pollable]
    /// Every message, every bit of room and the end, by `poll(2)` without a time limit.
    fn poll_tells_of_messages_room_and_the_end(case) {
        exchange::<C, Level>(&case);
    }

    /// The same by the edges that event loops build on.
    fn edges_of_epoll_tell_of_messages_room_and_the_end(case) {
        exchange::<C, Edge>(&case);
    }

    /// Five thousand times a single message, and the watcher on its way to sleep.
    fn no_wake_up_is_lost_between_request_and_reply(case) {
        let (ask, request) = pair::<C>();
        let (reply, hear) = pair::<C>();
        let (mut ask, mut hear) = (ask, hear);
        let peer =
            case.start("answerer", answer_when_ready::<C>, (End::new(request), End::new(reply)));
        let (out_watch, in_watch) = (Level::new(&ask), Level::new(&hear));
        let mut buffer = [0; 8];
        for number in 0..MESSAGES {
            if number % 1000 == 0 {
                case.step(&format!("asking from {number} on"));
            }
            when_ready(&mut ask, &out_watch, |tx| send(tx, &number.to_le_bytes()))
                .expect("the answerer listens");
            let got = when_ready(&mut hear, &in_watch, |rx| recv(rx, &mut buffer))
                .expect("the answerer answers");
            assert_eq!((got, u64::from_le_bytes(buffer)), (8, number));
        }
        drop(ask);
        case.join(peer);
    }

    /// Spurious readiness is allowed, but not a watcher that never sleeps: an empty channel, and
    /// a full one.
    fn a_watcher_sleeps_while_nothing_happens(case) {
        let (tx, mut rx) = pair::<C>();
        let held = case.hold("sender", tx);
        case.step("watching an empty channel");
        let woken = wakes(&mut rx, |rx| recv(rx, &mut [0; 64]).is_some());
        assert!(woken < 10, "an empty channel woke its watcher {woken} times");
        held.close(&case);

        if fills::<C>() {
            let (mut tx, rx) = small::<C>(WaitStrategy::default());
            let held = case.hold("receiver", rx);
            fill::<C>(&mut tx);
            let message = content::message(0, longest(tx.limits()).min(64));
            case.step("watching a full channel");
            let woken = wakes(&mut tx, |tx| send(tx, &message).is_some());
            assert!(woken < 10, "a full channel woke its watcher {woken} times");
            held.close(&case);
        }
    }

    /// Within 100 ms: a receiver of an empty channel, a sender of a full one.
    fn a_death_wakes_those_who_watch(case) {
        if !crosses::<C>() {
            return;
        }
        prompt("the news of a sender's death", NOTICE, || {
            let (tx, mut rx) = pair::<C>();
            let killer = kill_soon(case.hold("sender", tx));
            case.step("watching a receiver while the sender is killed");
            let watch = Level::new(&rx);
            let end = when_ready(&mut rx, &watch, |rx| recv(rx, &mut [0; 64]));
            let known = Instant::now();
            assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
            known.saturating_duration_since(killer.join().expect("the killer"))
        });
        if !fills::<C>() {
            return;
        }
        prompt("the news of a receiver's death", NOTICE, || {
            let (mut tx, rx) = small::<C>(WaitStrategy::default());
            let held = case.hold("receiver", rx);
            fill::<C>(&mut tx);
            let killer = kill_soon(held);
            case.step("watching a sender while the receiver is killed");
            let message = content::message(0, longest(tx.limits()).min(64));
            let watch = Level::new(&tx);
            let end = when_ready(&mut tx, &watch, |tx| send(tx, &message));
            let known = Instant::now();
            assert!(matches!(end, Err(SendError::PeerDied)), "{end:?}");
            known.saturating_duration_since(killer.join().expect("the killer"))
        });
    }

    /// One end watched, the other blocking: each may wait in its own way.
    fn a_watcher_and_a_sleeper_understand_each_other(case) {
        let (tx, mut rx) = small::<C>(WaitStrategy::Block);
        let peer = case.start("sender", order::send_many::<C>, (End::new(tx), MESSAGES));
        let longest = longest(rx.limits());
        receive_when_ready::<C, Level>(&case, &mut rx, longest, 0);
        case.join(peer);

        let (tx, mut rx) = small::<C>(WaitStrategy::Block);
        let longest = longest_ready::<C>(&tx);
        let peer = case.start("sender", send_when_ready::<C, Level>, (End::new(tx), 0));
        order::receive_many::<C>(&case, &mut rx, MESSAGES, longest);
        case.join(peer);
    }
}

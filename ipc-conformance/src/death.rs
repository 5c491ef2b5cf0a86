//! Promises 2, 3 and 4: what a death leaves, and how soon it is known.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipc_core::{
    Channel, End, Receiver as _, RecvError, SendError, Sender as _, Wait, WaitStrategy,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::board::{Gate, Ledger};
use crate::content::{self, Random};
use crate::harness::{Case, Peer, crosses, longest, pair, small};
use crate::list::cases;
use crate::procfs::{all_are, pause, until};
use crate::timing::{NOTICE, prompt};
use crate::waiting::{drain, fill, fills};

/// Often enough to meet every moment of a send and of a receive.
const KILLS: u64 = 100;

/// Until a killer strikes: long enough that its victim's peer has fallen asleep by then.
const SOON: Duration = Duration::from_millis(20);

/// Lines of the ledger.
const COMMITTED: u64 = 0;
const RECEIVED: u64 = 1;
const WRONG: u64 = 2;

/// In most rounds short messages, in some long ones, which are longest in flight.
fn bound(round: u64, longest: usize) -> usize {
    if round % 4 == 3 {
        longest.min(128 << 10)
    } else {
        longest.min(200)
    }
}

fn size(number: u64, bound: usize) -> usize {
    1 + Random::new(!number).below(bound)
}

fn send_until_killed<C: Channel>(case: Case, (tx, ledger, bound): (End<C::Sender>, Ledger, usize)) {
    let mut tx = tx.into_inner();
    case.step("sending until killed");
    let mut message = vec![0; bound];
    for number in 0.. {
        let message = &mut message[..size(number, bound)];
        content::fill(number, message);
        tx.send(message)
            .unwrap_or_else(|e| panic!("message {number}: {e}"));
        // Only now is it committed: noted before, a kill in between would look like a loss.
        ledger.set(COMMITTED, number + 1);
    }
}

fn receive_until_killed<C: Channel>(
    case: Case,
    (rx, ledger, bound): (End<C::Receiver>, Ledger, usize),
) {
    let mut rx = rx.into_inner();
    case.step("receiving until killed");
    let mut buffer = vec![0; bound];
    for number in 0.. {
        let got = rx
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("message {number}: {e}"));
        if content::check(number, size(number, bound), &buffer[..got]).is_err() {
            ledger.set(WRONG, number + 1);
        }
        ledger.set(RECEIVED, number + 1);
    }
}

/// From nothing to 2 ms, each doubling as likely as the next.
fn moment(random: &mut Random) -> Duration {
    match random.below(12) {
        0 => Duration::ZERO,
        octave => {
            let least = 512 << octave;
            Duration::from_nanos(least + random.next() % least)
        }
    }
}

/// Kills a side that much later, whatever this thread does meanwhile; says when.
fn kill_after<R>(delay: Duration, victim: &Peer<R>) -> JoinHandle<Instant> {
    let pid = Pid::from_raw(victim.process().pid().cast_signed()).expect("a process id");
    let from = Instant::now();
    std::thread::spawn(move || {
        // A sleep is good to some 50 us: for the last of it, look at the clock.
        pause(delay.saturating_sub(from.elapsed() + Duration::from_micros(100)));
        while from.elapsed() < delay {
            std::hint::spin_loop();
        }
        let at = Instant::now();
        // Not reaped before this thread is joined, so the number is still its own.
        kill_process(pid, Signal::KILL).expect("kill");
        at
    })
}

/// When a death that was asked for took place, and how long it took to be known.
fn notice(killer: Option<JoinHandle<Instant>>) -> Duration {
    let known = Instant::now();
    let killed = killer.expect("the end came before the kill");
    let killed = killed.join().expect("the killer");
    assert!(
        known >= killed,
        "a death was told {:?} before it",
        killed - known
    );
    known - killed
}

/// Until every thread of it has stopped.
fn stop<R>(side: &Peer<R>) {
    side.process().signal(libc::SIGSTOP).expect("stop");
    until("a side to stop", || all_are(side.process().pid(), 'T'));
}

/// Most of the kills must be noticed in time; the others may have met a busy machine.
fn judge(notices: &mut [Duration]) {
    notices.sort_unstable();
    let median = notices[notices.len() / 2];
    assert!(
        median <= NOTICE,
        "half of the deaths became known only after {median:?} and more"
    );
}

cases! {
    /// Committed, then received, then attempted: none lost, none torn, none twice, and
    /// `PeerDied` after the last. A hundred kills, every other while this side rests.
    fn what_a_killed_sender_committed_arrives_before_its_death_is_told(case) {
        if !crosses::<C>() {
            return;
        }
        let mut random = case.random();
        let mut notices = Vec::new();
        for round in 0..KILLS {
            let (tx, mut rx) = pair::<C>();
            let bound = bound(round, longest(rx.limits()));
            let ledger = Ledger::new();
            let arguments = (End::new(tx), ledger.another(), bound);
            let sender = case.start("sender", send_until_killed::<C>, arguments);
            let mut buffer = vec![0; bound];
            let mut received = 0u64;
            let kill_at = random.next() % 100;
            let mut killer = None;
            let end = loop {
                if kill_at == received && killer.is_none() {
                    let delay = moment(&mut random);
                    case.step(&format!("round {round}: killing {delay:?} after {received}"));
                    killer = Some(kill_after(delay, &sender));
                    if round % 2 == 0 {
                        pause(delay);
                    }
                }
                match rx.recv(&mut buffer) {
                    Ok(got) => {
                        content::check(received, size(received, bound), &buffer[..got])
                            .unwrap_or_else(|wrong| panic!("round {round}: {wrong}"));
                        received += 1;
                    }
                    Err(error) => break error,
                }
            };
            notices.push(notice(killer));
            assert!(matches!(end, RecvError::PeerDied), "round {round}: {end:?}");
            let again = rx.try_recv(&mut buffer);
            assert!(matches!(again, Err(RecvError::PeerDied)), "asked again: {again:?}");
            let committed = ledger.get(COMMITTED);
            assert!(
                received == committed || received == committed + 1,
                "round {round}: {committed} committed, {received} received"
            );
            sender.kill();
        }
        judge(&mut notices);
    }

    /// The sender learns of it, and nothing wrong was received before. A hundred kills, every
    /// other while this side rests.
    fn a_sender_survives_the_kill_of_its_receiver_and_learns_of_it(case) {
        if !crosses::<C>() {
            return;
        }
        let mut random = case.random();
        let mut notices = Vec::new();
        for round in 0..KILLS {
            let (mut tx, rx) = pair::<C>();
            let bound = bound(round, longest(tx.limits()));
            let ledger = Ledger::new();
            let arguments = (End::new(rx), ledger.another(), bound);
            let receiver = case.start("receiver", receive_until_killed::<C>, arguments);
            let mut message = vec![0; bound];
            let kill_at = random.next() % 100;
            let mut killer = None;
            let mut number = 0;
            let end = loop {
                if kill_at == number && killer.is_none() {
                    let delay = moment(&mut random);
                    case.step(&format!("round {round}: killing {delay:?} before {number}"));
                    killer = Some(kill_after(delay, &receiver));
                    if round % 2 == 0 {
                        pause(delay);
                    }
                }
                let message = &mut message[..size(number, bound)];
                content::fill(number, message);
                match tx.send_timeout(message, Duration::from_secs(10)) {
                    Ok(()) => number += 1,
                    Err(error) => break error,
                }
            };
            notices.push(notice(killer));
            assert!(matches!(end, SendError::PeerDied), "round {round}: {end:?}");
            let again = tx.send(b"again");
            assert!(matches!(again, Err(SendError::PeerDied)), "asked again: {again:?}");
            let received = ledger.get(RECEIVED);
            assert!(received <= number + 1, "round {round}: {number} sent, {received} received");
            assert_eq!(ledger.get(WRONG), 0, "round {round}: a message was wrong");
            receiver.kill();
        }
        judge(&mut notices);
    }

    /// Within 100 ms, and by no deadline of its own.
    fn a_receiver_that_waits_learns_of_the_death_in_time(case) {
        if !crosses::<C>() {
            return;
        }
        for strategy in [WaitStrategy::Block, WaitStrategy::Spin, WaitStrategy::Adaptive] {
            prompt("the news of a sender's death", NOTICE, || {
                let (tx, mut rx) = small::<C>(strategy);
                let sender = case.hold("sender", tx);
                let killer = kill_after(SOON, sender.peer());
                case.step(&format!("{strategy:?}: receiving while the sender is killed"));
                let end = rx.recv(&mut [0; 64]);
                let notice = notice(Some(killer));
                assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
                sender.kill();
                notice
            });
        }
    }

    /// It waits for room in a full channel, or sends into one that is never full.
    fn a_sender_that_waits_learns_of_the_death_in_time(case) {
        if !crosses::<C>() {
            return;
        }
        for strategy in [WaitStrategy::Block, WaitStrategy::Spin, WaitStrategy::Adaptive] {
            prompt("the news of a receiver's death", NOTICE, || {
                let (mut tx, rx) = small::<C>(strategy);
                let receiver = case.hold("receiver", rx);
                if fills::<C>() {
                    fill::<C>(&mut tx);
                }
                let killer = kill_after(SOON, receiver.peer());
                case.step(&format!("{strategy:?}: sending while the receiver is killed"));
                let message = content::message(0, longest(tx.limits()).min(64));
                let end = loop {
                    match tx.send(&message) {
                        Ok(()) => pause(Duration::from_micros(100)),
                        Err(error) => break error,
                    }
                };
                let notice = notice(Some(killer));
                assert!(matches!(end, SendError::PeerDied), "{end:?}");
                receiver.kill();
                notice
            });
        }
    }

    /// `TimedOut` while it is stopped, and its message when it goes on.
    fn a_stopped_sender_is_not_dead(case) {
        if !crosses::<C>() {
            return;
        }
        let (tx, mut rx) = pair::<C>();
        let gate = Gate::new();
        let sender = case.start("sender", send_at_the_gate::<C>, (End::new(tx), gate.another()));
        sender.until_asleep();
        stop(&sender);
        // It would send now, if it ran.
        gate.open();
        case.step("receiving from a stopped sender");
        for _ in 0..3 {
            let got = rx.recv_timeout(&mut [0; 64], Duration::from_millis(150));
            assert!(matches!(got, Err(RecvError::TimedOut)), "{got:?}");
        }
        assert!(matches!(rx.try_recv(&mut [0; 64]), Err(RecvError::Empty)));
        sender.process().signal(libc::SIGCONT).expect("go on");
        case.step("receiving from a sender that goes on");
        drain::<C>(&mut rx, 0..1, Wait::Forever);
        case.join(sender);
    }

    /// Room is missing while it is stopped, and comes when it goes on.
    fn a_stopped_receiver_is_not_dead(case) {
        if !crosses::<C>() {
            return;
        }
        let (mut tx, rx) = small::<C>(WaitStrategy::default());
        let gate = Gate::new();
        let receiver = case.start("receiver", receive_at_the_gate::<C>, (End::new(rx), gate.another()));
        receiver.until_asleep();
        stop(&receiver);
        // It would receive now, if it ran.
        gate.open();
        let message = content::message(0, longest(tx.limits()).min(64));
        if fills::<C>() {
            fill::<C>(&mut tx);
            case.step("sending to a stopped receiver");
            for _ in 0..3 {
                let sent = tx.send_timeout(&message, Duration::from_millis(150));
                assert!(matches!(sent, Err(SendError::TimedOut)), "{sent:?}");
            }
        }
        receiver.process().signal(libc::SIGCONT).expect("go on");
        case.step("sending to a receiver that goes on");
        tx.send(&message).expect("it takes messages again");
        drop(tx);
        case.join(receiver);
    }
}

fn send_at_the_gate<C: Channel>(case: Case, (tx, gate): (End<C::Sender>, Gate)) {
    let mut tx = tx.into_inner();
    case.step("waiting to send");
    gate.pass();
    case.step("sending after the stop");
    let length = longest(tx.limits()).min(64);
    tx.send(&content::message(0, length))
        .expect("the receiver waits");
}

fn receive_at_the_gate<C: Channel>(case: Case, (rx, gate): (End<C::Receiver>, Gate)) {
    let mut rx = rx.into_inner();
    case.step("waiting to receive");
    gate.pass();
    case.step("receiving after the stop");
    let mut buffer = [0; 64];
    let end = loop {
        match rx.recv(&mut buffer) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end, RecvError::Closed), "{end:?}");
}

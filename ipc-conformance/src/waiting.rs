//! Never, forever, until: promise 4's second half, and promise 8 on signals.

use std::time::{Duration, Instant};

use ipc_core::{
    BackPressure, Channel, End, Limits, Receiver as _, RecvError, SendError, Sender as _,
    Tunable as _, Wait, WaitStrategy,
};

use crate::board::{Gate, Ledger};
use crate::content;
use crate::harness::{Case, longest, pair, pair_with, small};
use crate::list::cases;
use crate::order;
use crate::storm::Storm;
use crate::timing::{prompt, punctual};

const STRATEGIES: [WaitStrategy; 3] = [
    WaitStrategy::Block,
    WaitStrategy::Spin,
    WaitStrategy::Adaptive,
];
/// A call that never waits is done long before.
const AT_ONCE: Duration = Duration::from_millis(5);
const TIMEOUTS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(20),
    Duration::from_millis(120),
];

/// Whether a sender of this channel ever meets a full one.
pub(crate) fn fills<C: Channel>() -> bool {
    C::CAPABILITIES.back_pressure == BackPressure::Waits
}

/// Sends numbered messages until there is no room, and says how many.
pub(crate) fn fill<C: Channel>(tx: &mut C::Sender) -> u64 {
    let length = longest(tx.limits()).min(64);
    for number in 0..4_000_000 {
        match tx.try_send(&content::message(number, length)) {
            Ok(()) => {}
            Err(SendError::Full) => return number,
            Err(error) => panic!("message {number} on the way to a full channel: {error}"),
        }
    }
    panic!("four million messages and never full: back-pressure is declared");
}

/// Receives what [`fill`] sent.
pub(crate) fn drain<C: Channel>(rx: &mut C::Receiver, numbers: std::ops::Range<u64>, wait: Wait) {
    let length = longest(rx.limits()).min(64);
    let mut buffer = [0; 64];
    for number in numbers {
        let got = rx
            .recv_with(&mut buffer, wait)
            .unwrap_or_else(|e| panic!("instead of message {number}: {e}"));
        content::check(number, length, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

fn receive_deadlines<C: Channel>(case: &Case, strategy: WaitStrategy) {
    let (tx, mut rx) = small::<C>(strategy);
    let held = case.hold("sender", tx);
    for timeout in TIMEOUTS {
        case.step(&format!(
            "{strategy:?}: receiving with a deadline in {timeout:?}"
        ));
        punctual("a receive", timeout, |wait| {
            let got = rx.recv_with(&mut [0; 64], wait);
            assert!(matches!(got, Err(RecvError::TimedOut)), "{got:?}");
        });
    }
    held.close(case);
}

fn send_deadlines<C: Channel>(case: &Case, strategy: WaitStrategy) {
    if !fills::<C>() {
        return;
    }
    let (mut tx, rx) = small::<C>(strategy);
    let (gate, ledger) = (Gate::new(), Ledger::new());
    let arguments = (End::new(rx), gate.another(), ledger.another());
    let receiver = case.start("receiver", receive_filled::<C>, arguments);
    // Arrived: a channel may have no room while its receiver is on its way.
    receiver.until_asleep();
    let length = longest(tx.limits()).min(64);
    let count = fill::<C>(&mut tx);
    ledger.set(0, count);
    for timeout in TIMEOUTS {
        case.step(&format!(
            "{strategy:?}: sending with a deadline in {timeout:?}"
        ));
        punctual("a send", timeout, |wait| {
            let sent = tx.send_with(&content::message(count + 1, length), wait);
            assert!(matches!(sent, Err(SendError::TimedOut)), "{sent:?}");
        });
    }
    gate.open();
    case.step("sending what comes after sends that timed out");
    tx.send(&content::message(count, length))
        .expect("room comes");
    drop(tx);
    case.join(receiver);
}

/// Receives, when the gate opens, as many messages as the ledger says, one more and the end.
fn receive_filled<C: Channel>(case: Case, (rx, gate, ledger): (End<C::Receiver>, Gate, Ledger)) {
    let mut rx = rx.into_inner();
    case.step("waiting for the sends to time out");
    gate.pass();
    case.step("receiving what was sent before and after the sends that timed out");
    drain::<C>(&mut rx, 0..ledger.get(0) + 1, Wait::Forever);
    let end = rx.recv(&mut [0; 64]);
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
}

/// With a deadline that nobody waits for, or with none.
fn patiently(deadline: bool) -> Wait {
    if deadline {
        Wait::at_most(Duration::from_secs(3600))
    } else {
        Wait::Forever
    }
}

fn receive_one<C: Channel>(case: Case, (rx, deadline): (End<C::Receiver>, bool)) {
    let mut rx = rx.into_inner();
    case.step("receiving");
    let mut buffer = [0; 64];
    let got = rx
        .recv_with(&mut buffer, patiently(deadline))
        .expect("a message");
    content::check(7, 8, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
}

fn send_one_more<C: Channel>(case: Case, (tx, number, deadline): (End<C::Sender>, u64, bool)) {
    let mut tx = tx.into_inner();
    let length = longest(tx.limits()).min(64);
    case.step("sending into a full channel");
    tx.send_with(&content::message(number, length), patiently(deadline))
        .expect("room comes");
}

/// No channel and no kernel charges more for a message than its bytes and this.
const OVERHEAD_MOST: usize = 1 << 10;

/// Messages of this length were the most that the channel took.
fn is_the_stated_depth(limits: Limits, count: u64, length: usize) {
    if let Some(depth) = limits.depth_messages {
        assert_eq!(count, depth as u64, "the depth that the limits state");
    }
    if let Some(depth) = limits.depth_bytes {
        let count = count as usize;
        assert!(
            count * length <= depth && depth < 2 * (count + 1) * (length + OVERHEAD_MOST),
            "{count} messages of {length} B fit where the limits state a depth of {depth} B"
        );
    }
}

const ROUNDS: u64 = 3;

/// Receives in each round what was sent in it, without waiting, and finds nothing else.
fn drain_each_round<C: Channel>(
    case: Case,
    (rx, filled, drained, counts): (End<C::Receiver>, Gate, Gate, Ledger),
) {
    let mut rx = rx.into_inner();
    for round in 0..ROUNDS {
        case.step(&format!("waiting for round {round} to be sent"));
        filled.pass();
        case.step(&format!("receiving round {round}"));
        drain::<C>(&mut rx, 0..counts.get(round), Wait::Never);
        let got = rx.try_recv(&mut [0; 64]);
        assert!(
            matches!(got, Err(RecvError::Empty)),
            "after the last: {got:?}"
        );
        drained.open();
    }
}

/// Receives a message with a deadline that has passed, and then finds none.
fn receive_late<C: Channel>(case: Case, (rx, gate): (End<C::Receiver>, Gate)) {
    let mut rx = rx.into_inner();
    case.step("waiting for a message to be sent");
    gate.pass();
    case.step("receiving with a deadline that has passed");
    let past = Wait::Until(Instant::now());
    drain::<C>(&mut rx, 0..1, past);
    let got = rx.recv_with(&mut [0; 64], past);
    assert!(matches!(got, Err(RecvError::TimedOut)), "{got:?}");
}

cases! {
    /// `Empty`, from a call that does not sleep; a sender is open all the time.
    fn an_empty_channel_says_so_at_once(case) {
        let (tx, mut rx) = pair::<C>();
        let held = case.hold("sender", tx);
        case.step("receiving from an empty channel");
        prompt("an empty channel's answer", AT_ONCE, || {
            let start = Instant::now();
            let got = rx.try_recv(&mut [0; 64]);
            let taken = start.elapsed();
            assert!(matches!(got, Err(RecvError::Empty)), "{got:?}");
            taken
        });
        held.close(&case);
    }

    /// `Full` where the channel can be full; then every message is there, and room again.
    fn a_full_channel_says_so_at_once_and_loses_nothing(case) {
        let (mut tx, rx) = small::<C>(WaitStrategy::default());
        let length = longest(tx.limits()).min(64);
        let (filled, drained) = (Gate::new(), Gate::new());
        let counts = Ledger::new();
        let arguments = (End::new(rx), filled.another(), drained.another(), counts.another());
        let receiver = case.start("receiver", drain_each_round::<C>, arguments);
        // Arrived: a channel may have no room while its receiver is on its way.
        receiver.until_asleep();
        for round in 0..ROUNDS {
            case.step(&format!("filling, round {round}"));
            let count = if fills::<C>() {
                fill::<C>(&mut tx)
            } else {
                for number in 0..10_000 {
                    tx.try_send(&content::message(number, length)).expect("there is always room");
                }
                10_000
            };
            assert!(count > 0, "full before the first message");
            if fills::<C>() {
                is_the_stated_depth(tx.limits(), count, length);
                prompt("a full channel's answer", AT_ONCE, || {
                    let start = Instant::now();
                    let sent = tx.try_send(&content::message(count, length));
                    let taken = start.elapsed();
                    assert!(matches!(sent, Err(SendError::Full)), "{sent:?}");
                    taken
                });
            }
            counts.set(round, count);
            filled.open();
            case.step(&format!("waiting for {count} messages to be received, round {round}"));
            drained.pass();
        }
        case.join(receiver);
    }

    /// With each strategy; `TimedOut`, never before, at most 50 ms after.
    fn a_receive_deadline_is_neither_early_nor_late(case) {
        for strategy in STRATEGIES {
            receive_deadlines::<C>(&case, strategy);
        }
    }

    /// On a full channel, where there is such a thing; what timed out never arrives.
    fn a_send_deadline_is_neither_early_nor_late(case) {
        for strategy in STRATEGIES {
            send_deadlines::<C>(&case, strategy);
        }
    }

    /// It finds what is there, and times out if nothing is.
    fn a_moment_that_has_passed_still_makes_one_attempt(case) {
        let (mut tx, rx) = pair::<C>();
        let gate = Gate::new();
        let receiver = case.start("receiver", receive_late::<C>, (End::new(rx), gate.another()));
        receiver.until_asleep();
        case.step("sending with a deadline that has passed");
        let length = longest(tx.limits()).min(64);
        let past = Wait::Until(Instant::now());
        tx.send_with(&content::message(0, length), past).expect("there is room");
        gate.open();
        case.join(receiver);
    }

    /// The message comes when the receiver is asleep in the kernel, with a deadline an hour off or
    /// with none.
    fn a_sleeping_receiver_wakes_for_a_message(case) {
        for (strategy, deadline) in STRATEGIES.into_iter().flat_map(|s| [(s, false), (s, true)]) {
            let options = C::Options::default().wait_strategy(strategy);
            let (mut tx, rx) = pair_with::<C>(&options);
            let peer = case.start("receiver", receive_one::<C>, (End::new(rx), deadline));
            case.step("waiting for the receiver to fall asleep");
            peer.until_asleep();
            case.step("sending to the sleeping receiver");
            tx.send(&content::message(7, 8)).expect("the receiver waits");
            case.join(peer);
        }
    }

    /// Room comes when the sender is asleep in the kernel, with a deadline an hour off or with none.
    fn a_sleeping_sender_wakes_for_room(case) {
        if !fills::<C>() {
            return;
        }
        for (strategy, deadline) in STRATEGIES.into_iter().flat_map(|s| [(s, false), (s, true)]) {
            let (mut tx, mut rx) = small::<C>(strategy);
            let count = fill::<C>(&mut tx);
            let arguments = (End::new(tx), count, deadline);
            let peer = case.start("sender", send_one_more::<C>, arguments);
            case.step("waiting for the sender to fall asleep");
            peer.until_asleep();
            case.step("making room for the sleeping sender");
            drain::<C>(&mut rx, 0..count + 1, Wait::Forever);
            case.join(peer);
        }
    }

    /// A handler without SA_RESTART interrupts the wait five thousand times a second.
    fn deadlines_hold_in_a_storm_of_signals(case) {
        let storm = Storm::new();
        for strategy in STRATEGIES {
            receive_deadlines::<C>(&case, strategy);
            send_deadlines::<C>(&case, strategy);
        }
        drop(storm);
        assert!(Storm::caught() > 100, "only {} signals arrived", Storm::caught());
    }

    /// EINTR surfaces from no call and breaks no message, on either side.
    fn messages_arrive_in_a_storm_of_signals(case) {
        for strategy in STRATEGIES {
            let options = C::Options::default().wait_strategy(strategy).capacity(16 << 10);
            let (tx, mut rx) = pair_with::<C>(&options);
            let sender = case.start("sender", send_in_a_storm::<C>, (End::new(tx), 5000));
            let storm = Storm::new();
            let longest = longest(rx.limits());
            order::receive_many::<C>(&case, &mut rx, 5000, longest);
            drop(storm);
            case.join(sender);
        }
    }
}

fn send_in_a_storm<C: Channel>(case: Case, (tx, count): (End<C::Sender>, u64)) {
    let storm = Storm::new();
    order::send_many::<C>(case, (tx, count));
    drop(storm);
}

//! Ends that move: to another process, from there to a third, and to another thread.

use ipc_core::{
    Channel, End, Handoff as _, Receiver as _, RecvError, Retention, Sender as _, WaitStrategy,
};

use crate::board::Gate;
use crate::content;
use crate::fork::dropped_in_a_child;
use crate::harness::{Case, crosses, longest, pair, small};
use crate::list::cases;

/// Sends its message, hands the sender on, and so on until the last.
fn send_and_pass_on<C: Channel>(case: Case, (tx, number, last): (End<C::Sender>, u64, u64)) {
    let mut tx = tx.into_inner();
    case.step(&format!("sending message {number}"));
    tx.send(&content::message(number, 8))
        .unwrap_or_else(|e| panic!("message {number}: {e}"));
    if number < last {
        let arguments = (End::new(tx), number + 1, last);
        let next = case.start("next sender", send_and_pass_on::<C>, arguments);
        case.join(next);
    }
}

/// Receives one message, hands the receiver on, and so on; the last receives the end.
fn receive_and_pass_on<C: Channel>(
    case: Case,
    (rx, gate, number, last): (End<C::Receiver>, Gate, u64, u64),
) {
    let mut rx = rx.into_inner();
    gate.open();
    let mut buffer = vec![0; longest(rx.limits())];
    case.step(&format!("receiving message {number}"));
    let got = rx
        .recv(&mut buffer)
        .unwrap_or_else(|e| panic!("instead of {number}: {e}"));
    content::check(number, 8, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
    if number < last {
        let arguments = (End::new(rx), gate, number + 1, last);
        let next = case.start("next receiver", receive_and_pass_on::<C>, arguments);
        case.join(next);
    } else {
        case.step("receiving the end");
        let end = rx.recv(&mut buffer);
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    }
}

fn returns_both_ends<C: Channel>(_case: Case, (): ()) -> (End<C::Sender>, End<C::Receiver>) {
    let (tx, rx) = pair::<C>();
    (End::new(tx), End::new(rx))
}

cases! {
    /// Each of four holders sends one message: the receiver sees them in order, then one end.
    fn a_sender_moves_to_another_process_and_on_to_a_third(case) {
        let (mut tx, mut rx) = pair::<C>();
        tx.send(&content::message(0, 8)).expect("the first holder sends");
        let peer = case.start("sender", send_and_pass_on::<C>, (End::new(tx), 1, 3));
        let mut buffer = [0; 64];
        for number in 0..4 {
            case.step(&format!("receiving message {number}"));
            let got = rx.recv(&mut buffer).unwrap_or_else(|e| panic!("instead of {number}: {e}"));
            content::check(number, 8, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        case.step("receiving the end");
        let end = rx.recv(&mut buffer);
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
        case.join(peer);
    }

    /// Each of three holders receives one message, sent when it has the end.
    fn a_receiver_moves_to_another_process_and_on_to_a_third(case) {
        let (mut tx, rx) = pair::<C>();
        let gate = Gate::new();
        let arguments = (End::new(rx), gate.another(), 0, 2);
        let peer = case.start("receiver", receive_and_pass_on::<C>, arguments);
        for number in 0..3 {
            gate.pass();
            case.step(&format!("sending message {number}"));
            tx.send(&content::message(number, 8)).unwrap_or_else(|e| panic!("{number}: {e}"));
        }
        drop(tx);
        case.join(peer);
    }

    /// What was sent before the receiver moved arrives where it moved to, unless it is declared
    /// that messages stay with the process.
    fn messages_on_their_way_move_with_the_receiver(case) {
        if C::CAPABILITIES.retention == Retention::Receiver {
            return;
        }
        let (mut tx, rx) = pair::<C>();
        for number in 0..3 {
            tx.send(&content::message(number, 8)).expect("there is room");
        }
        drop(tx);
        let arguments = (End::new(rx), Gate::new(), 0, 2);
        let peer = case.start("receiver", receive_and_pass_on::<C>, arguments);
        case.join(peer);
    }

    /// A process makes a channel, returns both ends and is gone: they work here.
    fn ends_come_back_as_the_result_of_a_process(case) {
        if !crosses::<C>() {
            return;
        }
        let peer = case.start("maker", returns_both_ends::<C>, ());
        let (tx, rx) = case.join(peer);
        let (mut tx, mut rx) = (tx.into_inner(), rx.into_inner());
        let mut buffer = vec![0; longest(rx.limits())];
        for number in 0..4 {
            case.step(&format!("message {number} through ends that came back"));
            tx.send(&content::message(number, 8)).unwrap_or_else(|e| panic!("{number}: {e}"));
            let got = rx.recv(&mut buffer).unwrap_or_else(|e| panic!("{number}: {e}"));
            content::check(number, 8, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        drop(tx);
        case.step("receiving the end");
        let end = rx.recv(&mut buffer);
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    }

    /// Parts without descriptors, and parts of the other end, are refused.
    fn parts_that_are_no_end_are_refused(_case) {
        assert!(C::Sender::from_parts(ipc_core::Parts::default()).is_err());
        assert!(C::Receiver::from_parts(ipc_core::Parts::default()).is_err());
        let file = std::fs::File::open("/dev/null").expect("open");
        let null = || ipc_core::Parts {
            descriptors: (0..3).map(|_| file.try_clone().expect("dup").into()).collect(),
            data: vec![0xff; 64],
        };
        assert!(C::Sender::from_parts(null()).is_err());
        assert!(C::Receiver::from_parts(null()).is_err());
    }

    /// `Unsupported` where both ends stay in one process, rather than an end that works nowhere.
    fn ends_that_cannot_leave_their_process_say_so(_case) {
        if crosses::<C>() {
            return;
        }
        let (tx, rx) = pair::<C>();
        let refused = [tx.to_parts(), rx.to_parts()].map(|parts| parts.map_err(|e| e.kind()));
        for parts in refused {
            assert!(matches!(parts, Err(std::io::ErrorKind::Unsupported)), "{parts:?}");
        }
    }

    /// Made in one thread, used in two others.
    fn ends_work_from_other_threads(case) {
        let (mut tx, mut rx) = pair::<C>();
        case.step("sending and receiving in two threads");
        let sender = std::thread::spawn(move || {
            for number in 0..2000 {
                tx.send(&content::message(number, 8)).expect("the receiver is there");
            }
        });
        let receiver = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            for number in 0..2000 {
                let got = rx.recv(&mut buffer).expect("the sender is there");
                content::check(number, 8, &buffer[..got]).unwrap_or_else(|e| panic!("{e}"));
            }
            assert!(matches!(rx.recv(&mut buffer), Err(RecvError::Closed)));
        });
        sender.join().expect("the sender");
        receiver.join().expect("the receiver");
    }

    /// A child made by a bare `fork(2)` that ends runs the destructors of its parent's ends. They
    /// go on, and the death of the process that then has the sender is told as what it is.
    fn a_forked_copy_that_is_dropped_closes_nothing(case) {
        for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
            let mut ends = small::<C>(strategy);
            let mut buffer = [0; 64];
            for number in 0..3 {
                case.step(&format!("sending message {number}"));
                let (tx, rx) = &mut ends;
                tx.send(&content::message(number, 8)).unwrap_or_else(|e| panic!("{number}: {e}"));
                case.step(&format!("receiving message {number}"));
                let got = rx.recv(&mut buffer).unwrap_or_else(|e| panic!("not {number}: {e}"));
                content::check(number, 8, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
                case.step("forking");
                ends = dropped_in_a_child(ends);
            }
            let (tx, mut rx) = ends;
            let nothing = rx.try_recv(&mut buffer);
            assert!(matches!(nothing, Err(RecvError::Empty)), "{nothing:?}");
            if crosses::<C>() {
                case.hold("holder", tx).kill();
                case.step("receiving the death");
                let end = rx.recv(&mut buffer);
                assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
            }
        }
    }
}

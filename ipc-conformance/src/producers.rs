//! Several senders of one channel: `Arity::Many`.

use ipc_core::{
    Channel, End, Receiver as _, RecvError, SendError, Sender as _, TryClone, Wait, WaitStrategy,
};

use crate::board::{Gate, Ledger};
use crate::content::{self, Random};
use crate::harness::{Case, Peer, crosses, longest, pair, small};
use crate::list::cases;
use crate::procfs::pause;

const SENDERS: u64 = 6;
const MESSAGES: u64 = 3000;
/// Kills among several senders.
const KILLS: u64 = 20;

/// What message `number` of a sender is filled by.
fn content_of(sender: u64, number: u64) -> u64 {
    sender << 32 | number
}

fn length(content: u64, longest: usize) -> usize {
    8 + Random::new(!content).below(longest.min(300) - 7)
}

/// One more sender, and a process that has it.
fn start_one<C>(case: &Case, tx: &mut C::Sender, id: u64, ledger: &Ledger) -> Peer<()>
where
    C: Channel<Sender: TryClone>,
{
    let clone = tx.try_clone().expect("one more sender");
    let arguments = (End::new(clone), id, ledger.another());
    case.start(&format!("sender {id}"), send_numbered::<C>, arguments)
}

/// Sends messages that begin with who sent them and the how manieth it is.
fn send_numbered<C: Channel>(case: Case, (tx, id, ledger): (End<C::Sender>, u64, Ledger)) {
    let mut tx = tx.into_inner();
    let longest = longest(tx.limits());
    case.step("sending");
    for number in 0..MESSAGES {
        let content = content_of(id, number);
        let mut message = content::message(content, length(content, longest));
        message[..8].copy_from_slice(&content.to_le_bytes());
        tx.send(&message)
            .unwrap_or_else(|e| panic!("message {number} of {id}: {e}"));
        ledger.set(id, number + 1);
    }
    case.step("closing");
}

/// Receives until the end; how many of each sender came, in its own order and whole.
fn receive_all<C: Channel>(rx: &mut C::Receiver, senders: u64) -> (Vec<u64>, RecvError) {
    let mut came = vec![0; senders as usize];
    let longest = longest(rx.limits());
    let mut buffer = vec![0; longest];
    loop {
        let got = match rx.recv(&mut buffer) {
            Ok(got) => got,
            Err(end) => return (came, end),
        };
        let content = u64::from_le_bytes(buffer[..8].try_into().expect("eight bytes"));
        let (sender, number) = (content >> 32, content & 0xffff_ffff);
        let expected = came
            .get_mut(sender as usize)
            .expect("a sender that there is");
        assert_eq!(number, *expected, "the next message of sender {sender}");
        *expected += 1;
        let mut whole = content::message(content, length(content, longest));
        whole[..8].copy_from_slice(&content.to_le_bytes());
        assert!(
            buffer[..got] == whole,
            "message {number} of sender {sender} is mixed up"
        );
    }
}

fn close_when_told<C: Channel>(case: Case, (tx, gate): (End<C::Sender>, Gate)) {
    let mut tx = tx.into_inner();
    tx.send(&content::message(0, 8))
        .expect("the receiver is there");
    case.step("waiting to close the sender");
    gate.pass();
}

cases! { [C::Sender: TryClone]
    /// Six senders at once, and one receiver.
    fn what_several_senders_send_arrives_once_whole_and_in_the_order_of_each(case) {
        for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
            let (mut tx, mut rx) = small::<C>(strategy);
            let ledger = Ledger::new();
            let peers: Vec<_> =
                (0..SENDERS).map(|id| start_one::<C>(&case, &mut tx, id, &ledger)).collect();
            drop(tx);
            case.step("receiving from all");
            let (came, end) = receive_all::<C>(&mut rx, SENDERS);
            assert_eq!(came, vec![MESSAGES; SENDERS as usize]);
            assert!(matches!(end, RecvError::Closed), "{end:?}");
            for peer in peers {
                case.join(peer);
            }
        }
    }

    /// As long as one sender is open, the channel has not ended.
    fn the_end_comes_with_the_last_of_several_senders(case) {
        let (mut tx, mut rx) = pair::<C>();
        let gates = [Gate::new(), Gate::new()];
        let peers = gates.each_ref().map(|gate| {
            let clone = tx.try_clone().expect("one more sender");
            case.start("sender", close_when_told::<C>, (End::new(clone), gate.another()))
        });
        drop(tx);
        for _ in &gates {
            case.step("receiving one message of each");
            rx.recv(&mut [0; 64]).expect("a message");
        }
        for (gate, peer) in gates.iter().zip(peers) {
            let got = rx.try_recv(&mut [0; 64]);
            assert!(matches!(got, Err(RecvError::Empty)), "a sender is open: {got:?}");
            gate.open();
            case.join(peer);
        }
        for wait in [Wait::Never, Wait::Forever] {
            let end = rx.recv_with(&mut [0; 64], wait);
            assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
        }
    }

    /// What it had committed arrives, the others go on, and then `PeerDied`.
    fn a_killed_sender_takes_nothing_from_the_others(case) {
        if !crosses::<C>() {
            return;
        }
        let mut random = case.random();
        for round in 0..KILLS {
            let (mut tx, mut rx) = small::<C>(WaitStrategy::default());
            let ledger = Ledger::new();
            let victim = start_one::<C>(&case, &mut tx, 0, &ledger);
            let other = start_one::<C>(&case, &mut tx, 1, &ledger);
            drop(tx);
            case.step(&format!("round {round}: killing one of two senders"));
            let killer = {
                let delay = std::time::Duration::from_micros(random.next() % 3000);
                std::thread::spawn(move || {
                    pause(delay);
                    victim.kill();
                })
            };
            let (came, end) = receive_all::<C>(&mut rx, 2);
            killer.join().expect("the killer");
            case.join(other);
            let committed = ledger.get(0);
            assert!(
                came[0] == committed || came[0] == committed + 1,
                "round {round}: {committed} committed, {} received", came[0]
            );
            assert_eq!(came[1], MESSAGES, "round {round}: of the sender that lives");
            // It may have come to its end before the kill.
            let died = committed < MESSAGES;
            assert!(
                matches!(end, RecvError::PeerDied) || !died && matches!(end, RecvError::Closed),
                "round {round}: {end:?}"
            );
        }
    }

    /// The first and the second alike; what is too long for both is refused by both.
    fn every_one_of_several_senders_states_and_keeps_its_limits(_case) {
        let (mut tx, mut rx) = pair::<C>();
        let mut clone = tx.try_clone().expect("one more sender");
        let max = tx.limits().max_message;
        assert_eq!(clone.limits().max_message, max);
        for sender in [&mut tx, &mut clone] {
            if max < 64 << 20 {
                let refused = sender.try_send(&vec![0; max + 1]);
                assert!(
                    matches!(refused, Err(SendError::TooLong { len, max: m }) if len == max + 1 && m == max),
                    "{refused:?}"
                );
            }
            let length = longest(sender.limits()).min(4 << 10);
            sender.try_send(&content::message(1, length)).expect("there is room");
            let mut buffer = vec![0; length];
            let got = rx.try_recv(&mut buffer).expect("nothing of the refused one came before");
            content::check(1, length, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
}

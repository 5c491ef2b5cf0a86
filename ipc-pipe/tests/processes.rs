//! What is peculiar to pipes, between real processes.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::time::Duration;

use ipc_core::Tunable;
use ipc_core::{
    Channel, Handoff, Parts, Receiver as _, RecvError, SendError, Sender as _, Wait, WaitStrategy,
};
use ipc_pipe::{Options, Pipe, Receiver, Sender};
use ipc_process::Process;

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: usize = rustix::pipe::PIPE_BUF - 4;

/// A receiver whose pipe is written by hand, as a hostile sender would.
fn hostile(options: &Options) -> (File, Receiver) {
    let (sender, receiver) = Pipe::pair(options).unwrap();
    let Parts {
        mut descriptors, ..
    } = sender.into_parts().unwrap();
    (File::from(descriptors.swap_remove(0)), receiver)
}

fn recv(receiver: &mut Receiver, buffer: &mut [u8]) -> Result<usize, RecvError> {
    receiver.recv_timeout(buffer, PATIENCE)
}

#[test]
fn a_hostile_length_is_corrupt_and_stays_so() {
    let (mut raw, mut receiver) = hostile(&Options::default().max_message(1000));
    raw.write_all(&1001u32.to_le_bytes()).unwrap();
    let mut buffer = [0; 64];
    for _ in 0..2 {
        assert!(matches!(
            recv(&mut receiver, &mut buffer),
            Err(RecvError::Corrupt { .. })
        ));
    }
}

#[test]
fn half_a_frame_is_not_a_message() {
    let (mut raw, mut receiver) = hostile(&Options::default());
    raw.write_all(&[3, 0, 0, 0, 1, 2, 3, 9, 0, 0, 0, 1])
        .unwrap();
    drop(raw);
    let mut buffer = [0; 64];
    assert_eq!(recv(&mut receiver, &mut buffer).unwrap(), 3);
    assert!(matches!(
        recv(&mut receiver, &mut buffer),
        Err(RecvError::PeerDied)
    ));
}

/// A frame whose bytes tell where they belong.
fn long_frame(len: usize, verdict: u8) -> Vec<u8> {
    let mut frame = u32::try_from(len).unwrap().to_le_bytes().to_vec();
    frame.extend((0..len).map(|at| (at % 251) as u8));
    frame.push(verdict);
    frame
}

#[test]
fn a_long_message_in_pieces_survives_deadlines_changing_buffers_and_moves() {
    const LEN: usize = 100_000;
    let frame = long_frame(LEN, 1);
    // In the header, behind it, in mid-payload, before the verdict.
    let cuts = [0, 2, 4, 5, 20_000, 50_003, LEN + 3, LEN + 4, LEN + 5];
    for patience in [Duration::ZERO, Duration::from_millis(1)] {
        let (mut raw, mut receiver) = hostile(&Options::default());
        let mut buffers = [vec![0; 10], vec![0; LEN], vec![0; LEN + 7]];
        // At each piece another buffer than before, in each of the three orders.
        for first in 0..buffers.len() {
            for (number, cut) in cuts.windows(2).enumerate() {
                raw.write_all(&frame[cut[0]..cut[1]]).unwrap();
                if cut[1] == frame.len() {
                    raw.write_all(&[5, 0, 0, 0]).unwrap();
                    break;
                }
                let buffer = &mut buffers[(first + number) % 3];
                let none = receiver.recv_timeout(buffer, patience);
                assert!(matches!(none, Err(RecvError::TimedOut)), "{none:?}");
                buffer.fill(0xEE);
                assert!(matches!(receiver.try_recv(buffer), Err(RecvError::Empty)));
                if number % 2 == 1 {
                    receiver = Receiver::from_parts(receiver.into_parts().unwrap()).unwrap();
                }
            }
            if first == 0 {
                let small = receiver.try_recv(&mut buffers[0]);
                assert!(
                    matches!(small, Err(RecvError::BufferTooSmall { needed: LEN })),
                    "{small:?}"
                );
            }
            let buffer = &mut buffers[1 + first % 2];
            assert_eq!(receiver.try_recv(buffer).unwrap(), LEN);
            assert!(buffer[..LEN] == frame[4..LEN + 4]);
            // What was read in beside it is the front of the next.
            raw.write_all(b"hello").unwrap();
            assert_eq!(receiver.try_recv(buffer).unwrap(), 5);
            assert_eq!(&buffer[..5], b"hello");
        }
    }
}

#[test]
fn the_verdict_decides_over_a_long_message() {
    let (mut raw, mut receiver) = hostile(&Options::default());
    let mut buffer = vec![0; 80_000];
    raw.write_all(&long_frame(80_000, 0)).unwrap();
    raw.write_all(&long_frame(70_000, 1)).unwrap();
    assert_eq!(receiver.try_recv(&mut buffer).unwrap(), 70_000);
    // So that the next is read straight to its place from its first byte.
    raw.write_all(&long_frame(80_000, 9)).unwrap();
    raw.write_all(&long_frame(1, 1)).unwrap();
    for _ in 0..2 {
        assert!(matches!(
            receiver.try_recv(&mut buffer),
            Err(RecvError::Corrupt { .. })
        ));
    }
}

#[test]
fn a_claimed_length_alone_costs_no_memory() {
    let (mut raw, mut receiver) = hostile(&Options::default().max_message(1 << 30));
    let before = resident();
    raw.write_all(&(1u32 << 30).to_le_bytes()).unwrap();
    let mut buffer = [0; 64];
    assert!(matches!(
        receiver.try_recv(&mut buffer),
        Err(RecvError::Empty)
    ));
    assert!(resident() < before + (64 << 20));
}

/// Resident memory in bytes, by `/proc/self/statm` (`proc_pid_statm(5)`).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn drain(mut receiver: Receiver) -> Vec<usize> {
    let mut message = Vec::new();
    let mut lengths = Vec::new();
    while receiver
        .recv_vec(&mut message, Wait::at_most(PATIENCE))
        .is_ok()
    {
        assert!(message.iter().all(|&byte| byte == message.len() as u8));
        lengths.push(message.len());
    }
    lengths
}

#[test]
fn a_long_message_that_misses_its_deadline_is_dropped_and_the_next_arrives() {
    let (mut sender, receiver) = Pipe::pair(&Options::default().capacity(4096)).unwrap();
    let late = vec![1u8; 500_000];
    let missed = sender.send_timeout(&late, Duration::from_millis(30));
    assert!(matches!(missed, Err(SendError::TimedOut)), "{missed:?}");
    let child = Process::new(drain, (receiver,)).start().unwrap();
    for len in [7usize, 300_001, 0] {
        sender
            .send_timeout(&vec![len as u8; len], PATIENCE)
            .unwrap();
    }
    drop(sender);
    assert_eq!(child.join().unwrap(), [7, 300_001, 0]);
}

#[test]
fn a_sender_with_a_long_message_half_way_can_move() {
    let (mut sender, receiver) = Pipe::pair(&Options::default().capacity(4096)).unwrap();
    let missed = sender.send_timeout(&vec![1u8; 500_000], Duration::from_millis(30));
    assert!(matches!(missed, Err(SendError::TimedOut)));
    let mut sender = Sender::from_parts(sender.into_parts().unwrap()).unwrap();
    let child = Process::new(drain, (receiver,)).start().unwrap();
    sender.send_timeout(&[5; 5], PATIENCE).unwrap();
    drop(sender);
    assert_eq!(child.join().unwrap(), [5]);
}

#[test]
fn try_send_of_a_long_message_takes_all_or_nothing() {
    let (mut sender, mut receiver) = Pipe::pair(&Options::default().capacity(65_536)).unwrap();
    let long = vec![3u8; 40_000];
    sender.try_send(&long).unwrap();
    assert!(matches!(sender.try_send(&long), Err(SendError::Full)));
    let mut buffer = vec![0; 40_000];
    assert_eq!(receiver.try_recv(&mut buffer).unwrap(), long.len());
    assert!(
        matches!(receiver.try_recv(&mut buffer), Err(RecvError::Empty)),
        "nothing half-way"
    );
    sender.try_send(&long).unwrap();
}

fn produce(mut sender: Sender, who: u8, messages: u32) {
    for number in 0..messages {
        let mut message = vec![who; 5 + (number as usize * 37) % (SHORT - 5)];
        message[1..5].copy_from_slice(&number.to_le_bytes());
        sender.send(&message).unwrap();
    }
}

#[test]
fn eight_senders_keep_their_messages_apart_and_in_order() {
    const SENDERS: u8 = 8;
    const MESSAGES: u32 = 2_000;
    let (mut sender, mut receiver) = Pipe::pair(&Options::default()).unwrap();
    let children: Vec<_> = (0..SENDERS)
        .map(|who| {
            let clone = sender.try_clone().unwrap();
            Process::new(produce, (clone, who, MESSAGES))
                .start()
                .unwrap()
        })
        .collect();
    let too_long = sender.try_send(&[0; SHORT + 1]);
    assert!(
        matches!(too_long, Err(SendError::TooLong { max: SHORT, .. })),
        "{too_long:?}"
    );
    drop(sender);
    let mut next = [0u32; SENDERS as usize];
    let mut buffer = [0; SHORT];
    loop {
        match recv(&mut receiver, &mut buffer) {
            Ok(len) => {
                let who = usize::from(buffer[0]);
                let number = u32::from_le_bytes(buffer[1..5].try_into().unwrap());
                assert_eq!(number, next[who]);
                assert!(buffer[5..len].iter().all(|&byte| byte == buffer[0]));
                next[who] += 1;
            }
            Err(RecvError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(next, [MESSAGES; SENDERS as usize]);
    for child in children {
        child.join().unwrap();
    }
}

#[test]
fn one_death_among_closed_senders_is_told() {
    let (mut sender, mut receiver) = Pipe::pair(&Options::default()).unwrap();
    let clone = sender.try_clone().unwrap();
    let doomed = Process::new(produce, (clone, 1u8, u32::MAX))
        .start()
        .unwrap();
    drop(sender);
    let mut buffer = [0; SHORT];
    recv(&mut receiver, &mut buffer).unwrap();
    doomed.kill().unwrap();
    let end = loop {
        if let Err(error) = recv(&mut receiver, &mut buffer) {
            break error;
        }
    };
    assert!(matches!(end, RecvError::PeerDied), "{end}");
}

#[test]
fn a_whole_batch_arrives_under_each_strategy() {
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        let options = Options::default().wait_strategy(strategy);
        let (mut sender, receiver) = Pipe::pair(&options).unwrap();
        let messages = vec![[9u8; 9]; 1000];
        let batch: Vec<_> = messages
            .iter()
            .map(|message| IoSlice::new(message))
            .collect();
        assert_eq!(sender.send_batch(&batch).unwrap(), 1000);
        drop(sender);
        let lengths = drain(receiver);
        assert_eq!(lengths, [9; 1000]);
    }
}

#[test]
fn a_batch_into_a_pipe_with_little_room_says_how_far_it_came() {
    let (mut sender, mut receiver) = Pipe::pair(&Options::default().capacity(4096)).unwrap();
    let message = [8u8; 8];
    let batch = vec![IoSlice::new(&message); 5000];
    let sent = sender.send_batch(&batch).unwrap();
    assert!(sent > 0 && sent < batch.len(), "{sent}");
    assert!(matches!(
        sender.send_batch_with(&batch, Wait::Never),
        Err(SendError::Full)
    ));
    let mut buffer = [0; 8];
    for _ in 0..sent {
        receiver.try_recv(&mut buffer).unwrap();
    }
    assert!(matches!(
        receiver.try_recv(&mut buffer),
        Err(RecvError::Empty)
    ));
}

#[test]
fn foreign_parts_are_refused() {
    let (sender, receiver) = Pipe::pair(&Options::default()).unwrap();
    let mut parts = sender.to_parts().unwrap();
    parts.data.push(0);
    assert!(Sender::from_parts(parts).is_err(), "a longer record");
    assert!(
        Sender::from_parts(receiver.to_parts().unwrap()).is_err(),
        "the other end"
    );
    let mut parts = receiver.to_parts().unwrap();
    parts.descriptors[0] = File::open("/dev/null").unwrap().into();
    assert!(Receiver::from_parts(parts).is_err(), "not a pipe");
    let mut parts = receiver.to_parts().unwrap();
    parts.descriptors.truncate(1);
    assert!(Receiver::from_parts(parts).is_err(), "notes missing");
}

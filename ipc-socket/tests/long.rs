//! Long messages byte by byte: cut anywhere, taken back, with verdicts that are none.

mod common;

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use common::receiver_of;
use ipc_core::{
    Channel, Handoff, Parts, Receiver as _, RecvError, SendError, Sender as _, Tunable, Wait,
};
use ipc_socket::{Options, Receiver, Sender, Socket};

/// Payload of a chunk; see the crate's page.
const CHUNK: usize = 64 << 10;
const COMPLETE: u8 = 1;
const ABANDONED: u8 = 0;

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// A frame of a long message with these verdicts, as far as they go.
fn frame(len: usize, verdicts: &[u8]) -> Vec<u8> {
    let payload = payload(len);
    let mut frame = (len as u32 | 1 << 31).to_le_bytes().to_vec();
    for (chunk, &verdict) in payload.chunks(CHUNK).zip(verdicts) {
        frame.extend_from_slice(chunk);
        frame.push(verdict);
    }
    frame
}

/// `hello`, as a short message.
const SHORT: [u8; 9] = *b"\x05\0\0\0hello";

#[test]
fn a_long_message_in_pieces_survives_deadlines_changing_buffers_and_moves() {
    const LEN: usize = CHUNK + 30_000;
    let frame = frame(LEN, &[COMPLETE; 2]);
    let whole = frame.len();
    // In the header, behind it, in both chunks, before and after both verdicts.
    let cuts = [
        0,
        2,
        4,
        5,
        20_000,
        CHUNK + 4,
        CHUNK + 5,
        CHUNK + 1000,
        whole - 1,
        whole,
    ];
    for descriptors in [false, true] {
        let options = Options::default().descriptors(descriptors);
        for patience in [Duration::ZERO, Duration::from_millis(1)] {
            let (mut raw, mut rx) = receiver_of(&options);
            let mut buffers = [vec![0; 10], vec![0; LEN], vec![0; LEN + 7]];
            // At each piece another buffer than before, in each of the three orders.
            for first in 0..buffers.len() {
                for (number, cut) in cuts.windows(2).enumerate() {
                    raw.write_all(&frame[cut[0]..cut[1]]).unwrap();
                    if cut[1] == whole {
                        raw.write_all(&SHORT[..4]).unwrap();
                        break;
                    }
                    let buffer = &mut buffers[(first + number) % 3];
                    let none = rx.recv_timeout(buffer, patience);
                    assert!(matches!(none, Err(RecvError::TimedOut)), "{none:?}");
                    buffer.fill(0xEE);
                    assert!(matches!(rx.try_recv(buffer), Err(RecvError::Empty)));
                    if number % 2 == 1 {
                        rx = Receiver::from_parts(rx.into_parts().unwrap()).unwrap();
                    }
                }
                if first == 0 {
                    let small = rx.try_recv(&mut buffers[0]);
                    assert!(
                        matches!(small, Err(RecvError::BufferTooSmall { needed: LEN })),
                        "{small:?}"
                    );
                }
                let buffer = &mut buffers[1 + first % 2];
                assert_eq!(rx.try_recv(buffer).unwrap(), LEN);
                assert!(buffer[..LEN] == payload(LEN));
                // What was read in beside it is the front of the next.
                raw.write_all(&SHORT[4..]).unwrap();
                assert_eq!(rx.try_recv(buffer).unwrap(), 5);
                assert_eq!(&buffer[..5], b"hello");
            }
        }
    }
}

#[test]
fn a_message_that_was_taken_back_is_followed_by_what_was_sent_after_it() {
    // More than a chunk, so that what follows was read to where the second one belonged.
    let long = 2 * CHUNK + 5;
    for verdicts in [
        &[ABANDONED][..],
        &[COMPLETE, ABANDONED],
        &[COMPLETE, COMPLETE, ABANDONED],
    ] {
        for buffer in [CHUNK + 9, long] {
            let (mut raw, mut rx) = receiver_of(&Options::default());
            let mut buffer = vec![0; buffer];
            let writer = std::thread::spawn({
                let frames = [
                    frame(long, verdicts),
                    SHORT.to_vec(),
                    frame(CHUNK + 9, &[COMPLETE; 2]),
                    frame(long, verdicts),
                    SHORT.to_vec(),
                ];
                move || {
                    raw.write_all(&frames.concat()).unwrap();
                    raw
                }
            });
            for expected in [5, CHUNK + 9, 5] {
                assert_eq!(rx.recv(&mut buffer).unwrap(), expected);
                if expected > 5 {
                    assert!(buffer[..expected] == payload(expected));
                }
            }
            drop(writer.join().unwrap());
            assert!(matches!(rx.recv(&mut buffer), Err(RecvError::PeerDied)));
        }
    }
}

#[test]
fn whatever_follows_a_long_message_is_told_from_one_like_it() {
    let like = frame(CHUNK + 9, &[COMPLETE; 2]);
    let other = frame(CHUNK + 8, &[COMPLETE; 2]);
    let mut whole = 30_000u32.to_le_bytes().to_vec();
    whole.extend(payload(30_000));
    for (following, expected) in [
        (&like, CHUNK + 9),
        (&other, CHUNK + 8),
        (&whole, 30_000),
        (&SHORT.to_vec(), 5),
    ] {
        // After the first of its kind the receiver expects the next to be like it. Cut in the
        // header, behind it, in the payload, in the message after it.
        for cut in [1, 3, 4, 7, following.len() - 1, following.len() + 2] {
            let (mut raw, mut rx) = receiver_of(&Options::default());
            let mut buffer = vec![0; CHUNK + 9];
            raw.write_all(&like).unwrap();
            assert_eq!(rx.recv(&mut buffer).unwrap(), CHUNK + 9);
            let rest = [&following[..], &SHORT, &like].concat();
            raw.write_all(&rest[..cut]).unwrap();
            if cut < following.len() {
                let none = rx.recv_timeout(&mut buffer, Duration::from_millis(1));
                assert!(matches!(none, Err(RecvError::TimedOut)), "{none:?}");
                buffer.fill(0xEE);
            }
            raw.write_all(&rest[cut..]).unwrap();
            for expected in [expected, 5, CHUNK + 9] {
                assert_eq!(rx.try_recv(&mut buffer).unwrap(), expected, "{cut}");
                if expected > 5 {
                    assert!(buffer[..expected] == payload(expected));
                } else {
                    assert_eq!(&buffer[..5], b"hello");
                }
            }
        }
    }
}

/// Where a message like the last one would have its verdicts, these have the same byte.
#[test]
fn messages_that_look_like_verdicts_are_told_from_one_like_the_last() {
    let mut one = 30_000u32.to_le_bytes().to_vec();
    one.resize(4 + 30_000, COMPLETE);
    let (mut raw, mut rx) = receiver_of(&Options::default());
    let mut buffer = vec![0; CHUNK + 9];
    raw.write_all(&frame(CHUNK + 9, &[COMPLETE; 2])).unwrap();
    assert_eq!(rx.try_recv(&mut buffer).unwrap(), CHUNK + 9);
    raw.write_all(&one.repeat(3)).unwrap();
    for _ in 0..3 {
        assert_eq!(rx.try_recv(&mut buffer).unwrap(), 30_000);
        assert!(buffer[..30_000].iter().all(|&byte| byte == COMPLETE));
    }
}

#[test]
fn a_verdict_that_is_none_is_corrupt_now_and_later() {
    let long = CHUNK + 5;
    for verdicts in [[9, COMPLETE], [COMPLETE, 9]] {
        for buffer in [10, long] {
            let (mut raw, mut rx) = receiver_of(&Options::default());
            raw.write_all(&frame(long, &verdicts)).unwrap();
            raw.write_all(&SHORT).unwrap();
            let mut buffer = vec![0; buffer];
            for _ in 0..2 {
                let corrupt = rx.try_recv(&mut buffer);
                assert!(
                    matches!(corrupt, Err(RecvError::Corrupt { .. })),
                    "{corrupt:?}"
                );
                rx = Receiver::from_parts(rx.into_parts().unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn of_a_message_whose_sender_died_half_way_nothing_arrives() {
    let frame = frame(3 * CHUNK, &[COMPLETE; 3]);
    for cut in [3, 4, 5, CHUNK + 4, CHUNK + 5, 2 * CHUNK, frame.len() - 1] {
        for buffer in [10, 3 * CHUNK] {
            let (mut raw, mut rx) = receiver_of(&Options::default());
            raw.write_all(&SHORT).unwrap();
            let writer = std::thread::spawn({
                let half = frame[..cut].to_vec();
                move || raw.write_all(&half).unwrap()
            });
            let mut buffer = vec![0; buffer];
            assert_eq!(rx.recv(&mut buffer).unwrap(), 5);
            for _ in 0..2 {
                let end = rx.recv(&mut buffer);
                assert!(matches!(end, Err(RecvError::PeerDied)), "{cut}: {end:?}");
            }
            writer.join().unwrap();
        }
    }
}

#[test]
fn descriptors_that_come_beside_a_long_message_stay_with_their_own() {
    let (mut tx, mut rx) = Socket::pair(&Options::default().descriptors(true)).unwrap();
    let file = rustix::fs::memfd_create("f", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut buffer = vec![0; 50_000];
    for _ in 0..3 {
        tx.send(&payload(50_000)).unwrap();
        tx.send_with_descriptors(b"one", &[file.as_fd()], Wait::Never)
            .unwrap();
        tx.send(&payload(50_000)).unwrap();
        for (expected, rights) in [(50_000, 0), (3, 1), (50_000, 0)] {
            let mut files = Vec::new();
            let len = rx.recv_with_descriptors(&mut buffer, &mut files, Wait::Never);
            assert_eq!((len.unwrap(), files.len()), (expected, rights));
        }
    }
}

#[test]
fn a_claimed_length_alone_costs_no_memory() {
    let (mut raw, mut rx) = receiver_of(&Options::default().max_message(1 << 30));
    let before = resident();
    raw.write_all(&(1u32 << 31 | 1 << 30).to_le_bytes())
        .unwrap();
    let mut buffer = [0; 64];
    assert!(matches!(rx.try_recv(&mut buffer), Err(RecvError::Empty)));
    assert!(resident() < before + (64 << 20));
}

/// Resident memory in bytes, by `/proc/self/statm` (`proc_pid_statm(5)`).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_sender_with_a_long_message_half_way_can_move() {
    let options = Options::default().capacity(128 << 10);
    let (mut tx, mut rx) = Socket::pair(&options).unwrap();
    let missed = tx.send_timeout(&vec![1; 1 << 20], Duration::from_millis(30));
    assert!(matches!(missed, Err(SendError::TimedOut)), "{missed:?}");
    let mut tx = Sender::from_parts(tx.into_parts().unwrap()).unwrap();
    let reader = std::thread::spawn(move || {
        let mut message = Vec::new();
        rx.recv_vec(&mut message, Wait::Forever).unwrap();
        assert!(matches!(rx.recv(&mut []), Err(RecvError::Closed)));
        message
    });
    tx.send(b"moved").unwrap();
    drop(tx);
    assert_eq!(reader.join().unwrap(), b"moved");
}

#[test]
fn what_a_moved_sender_claims_to_owe_is_checked() {
    let (tx, _rx) = Socket::pair(&Options::default()).unwrap();
    let Parts {
        descriptors,
        mut data,
    } = tx.into_parts().unwrap();
    // Version, role, strategy, descriptors, longest message; then length and progress.
    let progress = 20..28;
    data[progress].copy_from_slice(&5u64.to_le_bytes());
    let refused = Sender::from_parts(Parts { descriptors, data });
    assert!(refused.is_err(), "five of five bytes leave nothing to owe");
}

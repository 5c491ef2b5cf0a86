//! A process that has one end of a channel and scribbles over the memory, at the speed of stores,
//! where it hurts: the other end, in every way of using it, gets messages and errors and goes on.
#![expect(unsafe_code, reason = "the peer writes to the memory as it pleases")]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use ipc_core::{
    Channel, Handoff, Pollable, Receiver as _, RecvError, SendError, Sender as _, Wait,
    WaitStrategy,
};
use ipc_process::Process;
use ipc_shm::{Options, Receiver, Sender, SharedMemory};
use memmap2::MmapRaw;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FallocateFlags;
use rustix::io::ReadWriteFlags;

ipc_process::test_support!();

const CAPACITY: usize = 4096;
const LONGEST: usize = 2040;
/// Places of `src/layout.rs`, in words of eight bytes.
const TAIL: usize = 128 / 8;
const HEAD: usize = 256 / 8;
const SENDER: usize = 384 / 8;
const RECEIVER: usize = 512 / 8;
const FIELDS: [usize; 7] = [0, 1, 2, TAIL, HEAD, SENDER, RECEIVER];
const RING: usize = 4096 / 8;
const WORDS: usize = RING + CAPACITY / 8;
const MESSAGE: u64 = 1 << 32;
const FILLER: u64 = 2 << 32;

const ROUNDS: usize = 30_000;
const PATIENCE: Duration = Duration::from_secs(60);
const STRATEGIES: [WaitStrategy; 3] = [
    WaitStrategy::Block,
    WaitStrategy::Spin,
    WaitStrategy::Adaptive,
];

struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.word() >> 8) as usize % end
    }

    /// A value at the edges of what is valid.
    fn value(&mut self) -> u64 {
        let near = self.below(2 * CAPACITY) as u64;
        match self.below(8) {
            0 => self.word(),
            1 => u64::MAX - near,
            2 => near * 8,
            3 => MESSAGE | near,
            4 => FILLER | near,
            5 => MESSAGE | (u64::from(u32::MAX) - near),
            6 => u64::MAX / 2 - 4096 + near,
            _ => 0,
        }
    }
}

/// The hostile end.
struct Scribbler {
    memory: OwnedFd,
    map: MmapRaw,
    /// The side of the victim's doorbell that rings, and the one that takes rings back.
    bell: [OwnedFd; 2],
    random: Random,
    /// Whether the victim receives.
    sends: bool,
    /// The header as it was.
    header: [u64; 3],
}

impl Scribbler {
    fn new(end: &impl Handoff, sends: bool, seed: u64) -> Self {
        let [memory, _, writer, reader] =
            <[OwnedFd; 4]>::try_from(end.to_parts().unwrap().descriptors).unwrap();
        let mut scribbler = Self {
            map: MmapRaw::map_raw(&memory).unwrap(),
            memory,
            bell: [writer, reader],
            random: Random(seed),
            sends,
            header: [0; 3],
        };
        scribbler.header = [0, 1, 2].map(|at| scribbler.word(at).load(Ordering::Acquire));
        scribbler
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < WORDS);
        let word = self.map.as_mut_ptr().cast::<u64>().wrapping_add(at);
        // SAFETY: within the mapping and aligned, as just checked; all others that reach these
        // bytes are in another process.
        unsafe { AtomicU64::from_ptr(word) }
    }

    fn put(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Release);
    }

    /// The word of the ring at a position.
    fn place(position: u64) -> usize {
        RING + position as usize % CAPACITY / 8
    }

    /// Now harm, now a state that an honest peer could have left, in which the victim gets on.
    fn step(&mut self) {
        if self.random.below(4) == 0 {
            self.mend();
            for _ in 0..self.random.below(500) {
                std::hint::spin_loop();
            }
        } else {
            self.harm();
        }
    }

    fn harm(&mut self) {
        let [head, tail] = [HEAD, TAIL].map(|at| self.word(at).load(Ordering::Acquire));
        let (value, any) = (self.random.value(), self.random.below(WORDS));
        match self.random.below(64) {
            0..16 => self.put(any, value),
            16..32 => self.put(FIELDS[any % FIELDS.len()], value),
            32..44 => self.put(Self::place(head), value),
            44..48 => self.put(Self::place(tail), value),
            48..52 => self.put(HEAD, tail.wrapping_add(value % 64)),
            52..56 => self.put(TAIL, head.wrapping_sub(value % 64)),
            56..58 => self.punch(),
            58..61 => self.ring(),
            _ => self.take_rings_back(),
        }
    }

    /// Positions that agree, states of ends that are open, asleep or awake, and a ring full of
    /// nothing or of the same word, most often of a message: wherever the victim is, it finds that.
    fn mend(&mut self) {
        let (word, end) = (
            self.random.word(),
            self.random.below(2 * CAPACITY) as u64 * 8,
        );
        for (at, value) in self.header.into_iter().enumerate() {
            self.put(at, value);
        }
        self.put(SENDER, word & !2);
        self.put(RECEIVER, word >> 16 & !2);
        self.put(TAIL, end);
        self.put(HEAD, end);
        let found = match (self.sends, word % 8) {
            (true, 0) => self.random.value(),
            (true, _) => MESSAGE | (word >> 32 & 31),
            (false, _) => 0,
        };
        for at in RING..WORDS {
            self.put(at, found);
        }
    }

    fn punch(&mut self) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let page = self.random.below(2) as u64 * 4096;
        rustix::fs::fallocate(&self.memory, flags, page, 4096).unwrap();
    }

    fn ring(&self) {
        let rings = [IoSlice::new(&[1; 100])];
        let _ = rustix::io::pwritev2(&self.bell[0], &rings, u64::MAX, ReadWriteFlags::NOWAIT);
    }

    fn take_rings_back(&self) {
        let mut rings = [0; 64];
        let rings = &mut [IoSliceMut::new(&mut rings)];
        let _ = rustix::io::preadv2(&self.bell[1], rings, u64::MAX, ReadWriteFlags::NOWAIT);
    }
}

fn scribble_as_sender(end: Sender, seed: u64) {
    let mut scribbler = Scribbler::new(&end, true, seed);
    loop {
        scribbler.step();
    }
}

fn scribble_as_receiver(end: Receiver, seed: u64) {
    let mut scribbler = Scribbler::new(&end, false, seed);
    loop {
        scribbler.step();
    }
}

/// What the victim saw.
#[derive(Debug, Default)]
struct Seen {
    messages: u64,
    corrupt: u64,
    closed: u64,
}

/// A deadline, a look, and now and then a wait for as long as it takes to look.
fn some_wait(random: &mut Random) -> Wait {
    match random.below(16) {
        0 => Wait::at_most(Duration::from_micros(200)),
        1 => Wait::at_most(Duration::ZERO),
        _ => Wait::Never,
    }
}

/// Sleeps as an event loop does.
fn doze(end: &mut impl Pollable) {
    if !end.arm() {
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000,
        };
        let mut polled = [PollFd::new(end, PollFlags::IN)];
        let _ = rustix::event::poll(&mut polled, Some(&time));
    }
}

/// A fresh end over what stands in the memory, if it can be taken over; else the old one.
fn renew<T: Handoff>(end: T) -> T {
    match T::from_parts(end.to_parts().unwrap()) {
        Ok(new) => {
            end.release();
            new
        }
        Err(_) => end,
    }
}

fn receive(seen: &mut Seen, end: &mut Receiver, random: &mut Random) -> Result<(), RecvError> {
    let mut buffer = [0; LONGEST];
    let room = if random.below(4) == 0 { 20 } else { LONGEST };
    let wait = some_wait(random);
    if random.below(2) == 0 {
        let len = end.recv_with(&mut buffer[..room], wait)?;
        assert!(len <= room);
    } else {
        let message = end.borrow(wait)?;
        assert!(message.len() <= LONGEST);
        let from = random.below(message.len() + 1);
        message.copy_to(from, &mut buffer[from..message.len()]);
        if random.below(4) == 0 {
            message.keep();
        }
    }
    seen.messages += 1;
    Ok(())
}

fn receive_on(mut end: Receiver, random: &mut Random, seen: &mut Seen) -> Receiver {
    for _ in 0..ROUNDS {
        match receive(seen, &mut end, random) {
            Ok(()) | Err(RecvError::Empty | RecvError::TimedOut) => {}
            Err(RecvError::BufferTooSmall { needed }) => assert!((21..=LONGEST).contains(&needed)),
            Err(RecvError::Corrupt { .. }) => {
                seen.corrupt += 1;
                end = renew(end);
            }
            Err(RecvError::Closed) => {
                seen.closed += 1;
                end = renew(end);
            }
            Err(error) => panic!("{error}"),
        }
        match random.below(128) {
            0 => doze(&mut end),
            1 => end = renew(end),
            _ => {}
        }
    }
    end
}

fn send(seen: &mut Seen, end: &mut Sender, random: &mut Random) -> Result<(), SendError> {
    let bytes = [7; LONGEST + 1];
    let len = random.below(LONGEST + 2);
    let wait = some_wait(random);
    if random.below(2) == 0 {
        end.send_with(&bytes[..len], wait)?;
    } else {
        let mut loan = end.loan(len, wait)?;
        assert_eq!(loan.capacity(), len);
        let from = random.below(len + 1);
        loan.write(from, &bytes[from..len]);
        if random.below(4) > 0 {
            loan.commit_first(from);
        }
    }
    assert!(len <= LONGEST);
    seen.messages += 1;
    Ok(())
}

fn send_on(mut end: Sender, random: &mut Random, seen: &mut Seen) -> Sender {
    for _ in 0..ROUNDS {
        match send(seen, &mut end, random) {
            Ok(()) | Err(SendError::Full | SendError::TimedOut) => {}
            Err(SendError::TooLong { len, max }) => assert_eq!((len, max), (LONGEST + 1, LONGEST)),
            Err(SendError::Corrupt { .. }) => {
                seen.corrupt += 1;
                end = renew(end);
            }
            Err(SendError::Closed) => {
                seen.closed += 1;
                end = renew(end);
            }
            Err(error) => panic!("{error}"),
        }
        match random.below(128) {
            0 => doze(&mut end),
            1 => end = renew(end),
            _ => {}
        }
    }
    end
}

/// Runs the victim, and fails if it hangs.
fn watch(victim: impl FnOnce() -> Seen + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    let work = std::thread::spawn(move || {
        let seen = victim();
        done.send(()).unwrap();
        seen
    });
    let outcome = ended.recv_timeout(PATIENCE);
    assert_ne!(outcome, Err(RecvTimeoutError::Timeout), "the victim hangs");
    let seen = work.join().unwrap();

    assert!(seen.messages > 0 && seen.corrupt > 0, "{seen:?}");
}

fn pair(strategy: WaitStrategy) -> (Sender, Receiver) {
    SharedMemory::pair(&Options::new().capacity(CAPACITY).wait_strategy(strategy)).unwrap()
}

#[test]
fn a_receiver_outlives_a_sender_that_scribbles() {
    for (strategy, seed) in STRATEGIES.into_iter().zip(1..) {
        watch(move || {
            let (hostile, end) = pair(strategy);
            let peer = Process::new(scribble_as_sender, (hostile, seed))
                .daemon(true)
                .start()
                .unwrap();
            let (mut random, mut seen) = (Random(seed + 100), Seen::default());
            let mut end = receive_on(end, &mut random, &mut seen);
            peer.kill().unwrap();
            peer.wait().unwrap();
            // However it left the memory, there is an end to what it can have sent.
            let last = loop {
                match end.recv(&mut [0; LONGEST]) {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            let told = matches!(
                last,
                RecvError::PeerDied | RecvError::Closed | RecvError::Corrupt { .. }
            );
            assert!(told, "{last}");
            seen
        });
    }
}

#[test]
fn a_sender_outlives_a_receiver_that_scribbles() {
    for (strategy, seed) in STRATEGIES.into_iter().zip(1..) {
        watch(move || {
            let (end, hostile) = pair(strategy);
            let peer = Process::new(scribble_as_receiver, (hostile, seed))
                .daemon(true)
                .start()
                .unwrap();
            let (mut random, mut seen) = (Random(seed + 200), Seen::default());
            let mut end = send_on(end, &mut random, &mut seen);
            peer.kill().unwrap();
            peer.wait().unwrap();
            let last = loop {
                match end.send(&[7; LONGEST]) {
                    Ok(()) => {}
                    Err(error) => break error,
                }
            };
            let told = matches!(
                last,
                SendError::PeerDied | SendError::Closed | SendError::Corrupt { .. }
            );
            assert!(told, "{last}");
            seen
        });
    }
}

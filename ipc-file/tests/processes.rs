//! What is peculiar to logs, between real processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipc_conformance::Scratch;
use ipc_core::{
    Channel, Handoff, OpenError, Parts, Receiver as _, RecvError, SendError, Sender as _, Wait,
};
use ipc_file::{FileLog, Follower, Log, Options, Receiver, Sender, Start};
use ipc_process::Process;
use rustix::process::{Resource, Rlimit};

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(20);

fn log_in(scratch: &Scratch) -> PathBuf {
    scratch.path().join("log")
}

fn small() -> Options {
    Options::default().capacity(2048)
}

/// A message whose length and content follow from its number.
fn message(number: u64) -> Vec<u8> {
    let len = (number.wrapping_mul(0x9E37_79B9) >> 7) as usize % 90;
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|at| (number as usize * 31 + at) as u8));
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    let number = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    assert!(
        bytes == message(number),
        "message {number} is not what was sent"
    );
    number
}

/// Appends until it is killed, and tells what it has committed.
fn append_for_ever(log: PathBuf, from: u64, mut committed: Sender) {
    let mut log = Log::open(log, &small()).expect("the log");
    for next in from.. {
        log.append(&message(next)).expect("room");
        if committed.send(&next.to_le_bytes()).is_err() {
            return;
        }
    }
}

/// Kills a writer at whatever instruction it is at, again and again, on one and the same log. Every
/// record that it had committed is there, whole and in order, and at most one more.
#[test]
fn a_killed_writer_leaves_whole_records() {
    let scratch = Scratch::new();
    let mut written = 0;
    let mut live = None;
    for round in 0..120u64 {
        let (tx, mut rx) = FileLog::pair(&Options::default()).expect("a channel");
        let writer = Process::new(append_for_ever, (log_in(&scratch), written, tx))
            .start()
            .expect("a writer");
        let mut buffer = [0; 128];
        let mut last = None;
        // Between one and some hundreds of records; where in the next one is left to chance.
        for _ in 0..=(round * 7919) % 300 {
            assert_eq!(rx.recv_timeout(&mut buffer, PATIENCE).expect("a commit"), 8);
            last = Some(u64::from_le_bytes(buffer[..8].try_into().expect("8 bytes")));
        }
        writer.kill().expect("SIGKILL");
        let ended = loop {
            match rx.recv_timeout(&mut buffer, PATIENCE) {
                Ok(_) => last = Some(u64::from_le_bytes(buffer[..8].try_into().expect("8 bytes"))),
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, RecvError::PeerDied), "{ended:?}");
        let _ = writer.wait();

        let follower = live.get_or_insert_with(|| {
            Follower::open(log_in(&scratch), Start::Oldest, &small()).expect("a follower")
        });
        let begun = Instant::now();
        let ended = loop {
            match follower.recv_timeout(&mut buffer, PATIENCE) {
                Ok(len) => {
                    assert_eq!(number(&buffer[..len]), written);
                    written += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, RecvError::PeerDied), "{ended:?}");
        assert!(begun.elapsed() < PATIENCE);
        let committed = last.expect("at least one") + 1;
        assert!(
            (committed..=committed + 1).contains(&written),
            "{written} of {committed}"
        );
    }
    let log = Log::open(log_in(&scratch), &small()).expect("the log");
    assert!(!log.recovery().clean && log.recovery().cut < 128);
    assert_eq!(log.next_sequence(), written);
}

/// Reads the log from the start on until the writer ends, and gives how many records there were.
fn follow(log: PathBuf, from: u64) -> u64 {
    let mut follower = Follower::open(log, Start::Sequence(from), &small()).expect("the log");
    let mut buffer = [0; 128];
    let mut count = 0;
    loop {
        match follower.recv_timeout(&mut buffer, PATIENCE) {
            Ok(len) => assert_eq!(number(&buffer[..len]), from + count),
            Err(RecvError::Closed) => return count,
            Err(error) => panic!("{error}"),
        }
        count += 1;
    }
}

/// Reads on from a record until it is killed, and tells which it has read.
fn read_for_ever(log: PathBuf, from: u64, mut done: Sender) {
    let mut follower = Follower::open(log, Start::Sequence(from), &small()).expect("the log");
    let mut buffer = [0; 128];
    loop {
        let len = follower
            .recv_timeout(&mut buffer, PATIENCE)
            .expect("a record");
        assert_eq!(Some(number(&buffer[..len])), follower.last_sequence());
        if done.send(&buffer[..8]).is_err() {
            return;
        }
    }
}

/// A reader that kept the number of its last record goes on with the next one, in whatever process,
/// while the writer appends.
#[test]
fn a_killed_reader_resumes_where_it_was() {
    let scratch = Scratch::new();
    let mut log = Log::open(log_in(&scratch), &small()).expect("a new log");
    let mut next = 0;
    for round in 0..100 {
        for _ in 0..100 {
            let number = log.next_sequence();
            log.append(&message(number)).expect("room");
        }
        let (tx, mut rx) = FileLog::pair(&Options::default()).expect("a channel");
        let reader = Process::new(read_for_ever, (log_in(&scratch), next, tx))
            .start()
            .expect("a reader");
        let mut buffer = [0; 8];
        let mut take = |rx: &mut Receiver| {
            rx.recv_timeout(&mut buffer, PATIENCE).map(|_| {
                assert_eq!(u64::from_le_bytes(buffer), next);
                next += 1;
            })
        };
        for _ in 0..=(round * 31) % 90 {
            take(&mut rx).expect("a record");
        }
        reader.kill().expect("SIGKILL");
        while take(&mut rx).is_ok() {}
        let _ = reader.wait();
    }
    assert!(next > 4000, "{next}");
}

#[test]
fn followers_in_other_processes_are_independent() {
    const COUNT: u64 = 20_000;
    let scratch = Scratch::new();
    let mut log = Log::open(log_in(&scratch), &small()).expect("a new log");
    for next in 0..1000 {
        log.append(&message(next)).expect("room");
    }
    let followers: Vec<_> = [0, 1, 500, 1000]
        .map(|from| {
            let process = Process::new(follow, (log_in(&scratch), from))
                .start()
                .expect("a follower");
            (from, process)
        })
        .into();
    for next in 1000..COUNT {
        log.append(&message(next)).expect("room");
    }
    // The farewell waits until all of them had a chance to be in the middle of the log.
    drop(log);
    for (from, process) in followers {
        assert_eq!(process.join().expect("a count"), COUNT - from);
    }
}

/// Opens the log, says so and stays until it is killed.
fn hold(log: PathBuf, mut ready: Sender) {
    let _log = Log::open(log, &small()).expect("the log");
    ready.send(b"").expect("a parent");
    let (_tx, mut rx) = FileLog::pair(&Options::default()).expect("a channel");
    let _ = rx.recv(&mut []);
}

#[test]
fn a_live_writer_keeps_the_log_and_a_dead_one_frees_it() {
    let scratch = Scratch::new();
    let (tx, mut rx) = FileLog::pair(&Options::default()).expect("a channel");
    let writer = Process::new(hold, (log_in(&scratch), tx))
        .start()
        .expect("a writer");
    rx.recv_timeout(&mut [], PATIENCE)
        .expect("the writer is there");
    let second = Log::open(log_in(&scratch), &small());
    assert!(matches!(second, Err(OpenError::NameInUse)), "{second:?}");

    let mut follower =
        Follower::open(log_in(&scratch), Start::Oldest, &small()).expect("a follower");
    assert!(matches!(follower.try_recv(&mut []), Err(RecvError::Empty)));
    writer.kill().expect("SIGKILL");
    let killed = Instant::now();
    let ended = follower.recv_timeout(&mut [], PATIENCE);
    assert!(matches!(ended, Err(RecvError::PeerDied)), "{ended:?}");
    assert!(
        killed.elapsed() < Duration::from_millis(500),
        "{:?}",
        killed.elapsed()
    );
    Log::open(log_in(&scratch), &small()).expect("the lock is free");
}

/// Appends under a limit on the size of files until it is met; what the limit was called.
fn append_to_the_limit(log: PathBuf) -> (u64, String) {
    let soft = Rlimit {
        current: Some(8192),
        maximum: Some(8192),
    };
    rustix::process::setrlimit(Resource::Fsize, soft).expect("a lower limit");
    let too_large = Log::open(log.join("x"), &small().capacity(1 << 20));
    assert!(
        matches!(too_large, Err(OpenError::NotFound)),
        "{too_large:?}"
    );
    let too_large = Log::open(&log, &small().capacity(1 << 20));
    let Err(OpenError::Limit(limit)) = too_large else {
        panic!("{too_large:?}");
    };
    let mut log = Log::open(&log, &small()).expect("small segments");
    let mut count = 0;
    while count < 500 {
        log.append(&message(count)).expect("each segment is small");
        count += 1;
    }
    (count, limit.name.to_owned())
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_no_signal() {
    let scratch = Scratch::new();
    let process = Process::new(append_to_the_limit, (log_in(&scratch),))
        .start()
        .expect("a writer");
    assert_eq!(
        process.join().expect("no SIGXFSZ"),
        (500, "RLIMIT_FSIZE".to_owned())
    );
    assert_eq!(follow(log_in(&scratch), 0), 500);
}

/// Fills a log on a small file system of its own: what the error was, and how many records there
/// were before it.
fn append_until_full(log: PathBuf) -> u64 {
    let mut log = Log::open(log, &small()).expect("a new log");
    for next in 0.. {
        match log.append(&message(next)) {
            Ok(seq) => assert_eq!(seq, next),
            Err(SendError::Limit(_)) => {
                // Again: nothing of the attempt was appended, and nothing broke.
                let again = log.append(&message(next));
                assert!(matches!(again, Err(SendError::Limit(_))), "{again:?}");
                return next;
            }
            Err(error) => panic!("{error}"),
        }
    }
    0
}

#[test]
fn a_full_disk_in_the_middle_of_a_log_tears_nothing() {
    let scratch = Scratch::new();
    fs::create_dir(log_in(&scratch)).expect("a mount point");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "none"])
        .arg(log_in(&scratch))
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        // Mounting takes CAP_SYS_ADMIN; without it only /dev/shm's refusal is shown, in log.rs.
        return;
    }
    let count = append_until_full(log_in(&scratch));
    assert!(count > 100, "{count}");
    let all = read_numbers(&log_in(&scratch));
    assert!(
        all.iter().copied().eq(0..count),
        "{count} records, {} read",
        all.len()
    );
}

fn read_numbers(log: &Path) -> Vec<u64> {
    let mut follower = Follower::open(log, Start::Oldest, &small()).expect("a follower");
    let mut buffer = [0; 128];
    let mut all = Vec::new();
    while let Ok(len) = follower.recv_with(&mut buffer, Wait::Never) {
        all.push(number(&buffer[..len]));
    }
    all
}

#[test]
fn parts_of_something_else_are_refused() {
    let refuse = |change: &dyn Fn(&mut Parts)| {
        let (sender, receiver) = FileLog::pair(&small()).expect("a channel");
        let mut parts = receiver.into_parts().expect("parts");
        change(&mut parts);
        let outcome = Receiver::from_parts(parts);
        let refused = matches!(
            outcome,
            Err(OpenError::Untrusted { .. } | OpenError::Incompatible { .. })
        );
        assert!(refused, "{outcome:?}");
        drop(sender);
    };
    refuse(&|parts| parts.data[0] ^= 3);
    refuse(&|parts| parts.data.truncate(41));
    refuse(&|parts| parts.data.push(0));
    refuse(&|parts| drop(parts.descriptors.pop()));
    // Another segment size than the file's, a position within the header, one that could wrap.
    refuse(&|parts| parts.data[2] ^= 0x10);
    refuse(&|parts| parts.data[25..33].fill(0));
    refuse(&|parts| parts.data[25..33].fill(0xF8));
    for at in 0..5 {
        refuse(&|parts| {
            let null = fs::File::open("/dev/null").expect("/dev/null");
            parts.descriptors[at] = null.into();
        });
        refuse(&|parts| parts.descriptors.rotate_left(1 + at % 4));
    }
}

#[test]
fn a_log_that_a_hostile_sender_writes_is_corrupt_and_no_more() {
    use std::os::unix::fs::FileExt;
    // Words that would be a skip, a farewell with a payload, a record beyond the segment, another
    // kind, a good length with a wrong checksum.
    for word in [
        6 << 60,
        5 << 60 | 8 << 32,
        3 << 60 | 0xFFF_FFFF << 32,
        9 << 60,
        3 << 60 | 4 << 32,
        u64::MAX,
        1,
    ] {
        let (sender, mut receiver) = FileLog::pair(&small()).expect("a channel");
        let parts = sender.to_parts().expect("parts");
        let log = fs::File::from(parts.descriptors.into_iter().next().expect("the log"));
        log.write_all_at(&word.to_le_bytes(), 64)
            .expect("a hostile word");
        let mut buffer = [0; 128];
        for _ in 0..2 {
            let outcome = receiver.recv_timeout(&mut buffer, PATIENCE);
            assert!(
                matches!(outcome, Err(RecvError::Corrupt { .. })),
                "{word:#x}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_receiver_that_claims_too_much_is_corrupt() {
    use std::os::unix::fs::FileExt;
    let (mut sender, receiver) = FileLog::pair(&small()).expect("a channel");
    let parts = receiver.to_parts().expect("parts");
    let control = fs::File::from(parts.descriptors.into_iter().nth(1).expect("the page"));
    control
        .write_all_at(&(1u64 << 40).to_le_bytes(), 0)
        .expect("a hostile position");
    let outcome = loop {
        if let Err(error) = sender.try_send(&[0; 100]) {
            break error;
        }
    };
    assert!(matches!(outcome, SendError::Corrupt { .. }), "{outcome:?}");
}

/// Doorbells that a hostile peer fills to the brim, keeps full or keeps empty, after having taken from
/// its descriptors the mode in which no call waits: neither who listens to one nor who rings one is
/// held beyond its deadline.
#[test]
fn no_doorbell_holds_an_end_beyond_its_deadline() {
    use rustix::fs::{OFlags, fcntl_setfl};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;
    use std::sync::mpsc;
    const PAGE: usize = 1;
    const NEWS: usize = 2;
    const ROOM: usize = 3;
    // In the control page: who sleeps, the receiver and the sender.
    const SLEEPERS: [u64; 2] = [256, 384];
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Hostility {
        Filled,
        Refilled,
        Drained,
    }
    fn fill(bell: &OwnedFd) {
        let most = (u64::MAX - 1).to_ne_bytes();
        while rustix::io::write(bell, &most).is_ok() {}
    }
    fn block(bell: &OwnedFd, blocks: bool) {
        let mode = if blocks {
            OFlags::empty()
        } else {
            OFlags::NONBLOCK
        };
        fcntl_setfl(bell, mode).expect("a mode");
    }
    fn kept(parts: &Parts) -> [OwnedFd; 3] {
        [PAGE, NEWS, ROOM].map(|at| parts.descriptors[at].try_clone().expect("a copy"))
    }
    for hostility in [Hostility::Filled, Hostility::Refilled, Hostility::Drained] {
        let (sender, receiver) = FileLog::pair(&small()).expect("a channel");
        // What was in the hands of whoever handed the ends over stays there.
        let parts = receiver.into_parts().expect("parts");
        let [page, bells @ ..] = kept(&parts);
        let mut receiver = Receiver::from_parts(parts).expect("an end");
        let parts = sender.into_parts().expect("parts");
        let [_, others @ ..] = kept(&parts);
        let mut sender = Sender::from_parts(parts).expect("an end");
        let page = fs::File::from(page);
        let spoil = move || {
            for at in SLEEPERS {
                page.write_all_at(&1u32.to_ne_bytes(), at).expect("a lie");
            }
            for bell in bells.iter().chain(&others) {
                block(bell, false);
                match hostility {
                    Hostility::Filled | Hostility::Refilled => fill(bell),
                    Hostility::Drained => drop(rustix::io::read(bell, &mut [0; 1 << 16])),
                }
                block(bell, true);
            }
        };
        spoil();
        let (turn, turns) = mpsc::channel::<()>();
        let (told, calls) = mpsc::channel();
        // Threads that are not joined: should one hang, it ends with the process.
        std::thread::spawn(move || {
            let soon = Duration::from_millis(10);
            let mut buffer = [0; 128];
            let call = |done: bool| told.send(done).is_ok() && turns.recv().is_ok();
            let received = receiver.recv_timeout(&mut buffer, soon);
            call(matches!(received, Err(RecvError::TimedOut)));
            call(sender.try_send(&[0; 100]).is_ok());
            while sender.try_send(&[0; 100]).is_ok() {}
            let sent = sender.send_timeout(&[0; 100], soon);
            call(matches!(sent, Err(SendError::TimedOut)));
            let mut read = 0;
            while receiver.try_recv(&mut buffer).is_ok() {
                read += 1;
            }
            call(read > 0);
        });
        for call in [
            "listening for news",
            "ringing for news",
            "listening for room",
            "ringing for room",
        ] {
            let end = Instant::now() + PATIENCE / 4;
            let outcome = loop {
                match calls.recv_timeout(Duration::from_millis(1)) {
                    Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < end => {
                        if hostility != Hostility::Filled {
                            spoil();
                        }
                    }
                    outcome => break outcome,
                }
            };
            assert_eq!(outcome, Ok(true), "{call}, {hostility:?}");
            spoil();
            turn.send(()).expect("the ends");
        }
    }
}

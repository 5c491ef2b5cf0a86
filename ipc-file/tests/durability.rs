//! What each level of durability survives, with real processes; lost power itself is in
//! `src/crash.rs`.

use std::fs;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc_conformance::Scratch;
use ipc_core::{
    Channel, Handoff, OpenError, Receiver as _, RecvError, SendError, Sender as _, Wait,
};
use ipc_file::{Durability, FileLog, Follower, Log, Options, Receiver, Sender, Start};
use ipc_process::Process;
use rustix::process::{Resource, Rlimit};

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(20);

fn small() -> Options {
    Options::default().capacity(2048)
}

fn all(log: &Path) -> Vec<Vec<u8>> {
    let mut follower = Follower::open(log, Start::Oldest, &small()).expect("a follower");
    let (mut found, mut buffer) = (Vec::new(), Vec::new());
    while follower.recv_vec(&mut buffer, Wait::Never).is_ok() {
        found.push(buffer.clone());
    }
    found
}

/// Appends three records, says so, and waits to be killed.
fn append_three(log: PathBuf, level: u8, flushes: bool, mut done: Sender) {
    let durability = [
        Durability::Nothing,
        Durability::Process,
        Durability::PowerLoss,
    ][usize::from(level)];
    let mut log = Log::open(log, &small().durability(durability)).expect("a log");
    for record in [b"one", b"two", b"six"] {
        log.append(record).expect("room");
    }
    if flushes {
        log.flush().expect("room");
    }
    done.send(b"").expect("a parent");
    let (_tx, mut rx) = FileLog::pair(&Options::default()).expect("a channel");
    let _ = rx.recv(&mut []);
}

#[test]
fn a_killed_writer_loses_what_it_has_gathered_and_nothing_else() {
    for (level, flushes, left) in [(0, false, 0), (0, true, 3), (1, false, 3), (2, false, 3)] {
        let scratch = Scratch::new();
        let (tx, mut rx) = FileLog::pair(&Options::default()).expect("a channel");
        let arguments = (scratch.path().to_owned(), level, flushes, tx);
        let writer = Process::new(append_three, arguments)
            .start()
            .expect("a writer");
        rx.recv_timeout(&mut [], PATIENCE).expect("three records");
        writer.kill().expect("SIGKILL");
        let _ = writer.wait();
        assert_eq!(all(scratch.path()).len(), left, "level {level}, {flushes}");
        let log = Log::open(scratch.path(), &small()).expect("the log");
        assert_eq!(log.next_sequence(), left as u64);
        assert_eq!(log.recovery().cut, 0);
    }
}

#[test]
fn what_was_gathered_appears_in_order_when_it_is_much_or_flushed_or_closed() {
    let scratch = Scratch::new();
    let options = small().durability(Durability::Nothing);
    let mut log = Log::open(scratch.path(), &options).expect("a log");
    let mut follower = Follower::open(scratch.path(), Start::Oldest, &small()).expect("a follower");
    let mut buffer = [0; 64];
    log.append(b"first").expect("room");
    let mine = log.append_batch(&[IoSlice::new(b"second"), IoSlice::new(b"third")]);
    assert_eq!(mine.expect("room"), 2);
    let nothing = follower.try_recv(&mut buffer);
    assert!(matches!(nothing, Err(RecvError::Empty)), "{nothing:?}");
    log.flush().expect("room");
    for expected in [&b"first"[..], b"second", b"third"] {
        let len = follower.try_recv(&mut buffer).expect("flushed");
        assert_eq!(&buffer[..len], expected);
    }
    // More than one segment holds: the full ones come by themselves.
    for number in 0..1000u32 {
        assert_eq!(
            log.append(&number.to_le_bytes()).expect("room"),
            u64::from(number) + 3
        );
    }
    let mut next = 0;
    while follower.try_recv(&mut buffer).is_ok() {
        assert_eq!(buffer[..4], u32::to_le_bytes(next));
        next += 1;
    }
    assert!((100..1000).contains(&next), "{next}");
    drop(log);
    while follower.try_recv(&mut buffer).is_ok() {
        assert_eq!(buffer[..4], u32::to_le_bytes(next));
        next += 1;
    }
    assert_eq!(next, 1000);
}

#[test]
fn a_channel_refuses_the_durability_that_it_could_not_keep() {
    let outcome = FileLog::pair(&small().durability(Durability::PowerLoss));
    assert!(
        matches!(outcome, Err(OpenError::Invalid { .. })),
        "{outcome:?}"
    );
}

/// Whoever holds an end may try to cut the file off under the other: with sealed memory it cannot,
/// and with a file a receiver's descriptor does not allow it.
#[test]
fn a_peer_cannot_truncate_the_channel_under_the_other() {
    let (mut sender, mut receiver) =
        FileLog::pair(&small().durability(Durability::Nothing)).expect("a channel");
    for parts in [sender.to_parts(), receiver.to_parts()] {
        let log = &parts.expect("parts").descriptors[0];
        assert!(rustix::fs::ftruncate(log, 0).is_err());
        assert!(rustix::fs::ftruncate(log, 1 << 20).is_err());
    }
    sender.send(b"still").expect("room");
    assert_eq!(receiver.recv(&mut [0; 8]).expect("a message"), 5);

    let (mut sender, mut receiver) = FileLog::pair(&small()).expect("a channel");
    let parts = receiver.to_parts().expect("parts");
    assert!(rustix::fs::ftruncate(&parts.descriptors[0], 0).is_err());
    sender.send(b"still").expect("room");
    assert_eq!(receiver.recv(&mut [0; 8]).expect("a message"), 5);
}

#[test]
fn a_log_that_its_sender_could_cut_off_is_not_taken_over() {
    let refuse = |file: fs::File| {
        let (_sender, receiver) = FileLog::pair(&small()).expect("a channel");
        let mut parts = receiver.into_parts().expect("parts");
        let log = fs::File::from(parts.descriptors.remove(0));
        let len = log.metadata().expect("its size").len();
        file.set_len(len).expect("the same size");
        parts.descriptors.insert(0, file.into());
        let outcome = Receiver::from_parts(parts);
        assert!(
            matches!(outcome, Err(OpenError::Untrusted { .. })),
            "{outcome:?}"
        );
    };
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    refuse(
        rustix::fs::memfd_create("unsealed", flags)
            .expect("a memfd")
            .into(),
    );
    let scratch = Scratch::new();
    refuse(fs::File::create(scratch.path().join("file")).expect("a file with a name"));
}

/// Both ends of a channel in sealed memory move like those of any other.
fn echo(mut requests: Receiver, mut replies: Sender) {
    let mut buffer = [0; 64];
    while let Ok(len) = requests.recv(&mut buffer) {
        replies.send(&buffer[..len]).expect("a parent");
    }
}

#[test]
fn a_channel_in_memory_connects_processes() {
    let options = small().durability(Durability::Nothing);
    let (mut requests, theirs) = FileLog::pair(&options).expect("a channel");
    let (mine, mut replies) = FileLog::pair(&options).expect("a channel");
    assert_eq!(requests.file_system().expect("statfs"), 0x0102_1994);
    let process = Process::new(echo, (theirs, mine)).start().expect("a peer");
    let mut buffer = [0; 64];
    for number in 0..1000u64 {
        requests.send(&number.to_le_bytes()).expect("room");
        replies
            .recv_timeout(&mut buffer, PATIENCE)
            .expect("a reply");
        assert_eq!(buffer[..8], number.to_le_bytes());
    }
    drop(requests);
    process.join().expect("a good end");
}

/// Lowers the limit below what an open log takes already; pwrite(2) would raise SIGXFSZ.
fn append_below_the_limit(log: PathBuf) {
    let mut log = Log::open(log, &small().durability(Durability::PowerLoss)).expect("a log");
    log.append(b"before").expect("room");
    let low = Rlimit {
        current: Some(100),
        maximum: Some(100),
    };
    rustix::process::setrlimit(Resource::Fsize, low).expect("a lower limit");
    for _ in 0..2 {
        let refused = log.append(b"beyond");
        let Err(SendError::Limit(limit)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(limit.name, "RLIMIT_FSIZE");
    }
}

#[test]
fn a_limit_that_was_lowered_meanwhile_is_an_error_and_no_signal() {
    let scratch = Scratch::new();
    let process = Process::new(append_below_the_limit, (scratch.path().to_owned(),))
        .start()
        .expect("a writer");
    process.join().expect("no SIGXFSZ");
    assert_eq!(all(scratch.path()), [b"before"]);
    let log = Log::open(scratch.path(), &small()).expect("the log");
    assert_eq!((log.recovery().cut, log.next_sequence()), (0, 1));
}

/// A batch of several segments, whose first part cannot be written: the next attempt can.
fn append_a_batch_below_the_limit(log: PathBuf, power_loss: bool) {
    let durability = if power_loss {
        Durability::PowerLoss
    } else {
        Durability::Process
    };
    let mut log = Log::open(log, &small().durability(durability)).expect("a log");
    log.append(b"before").expect("room");
    let usual = rustix::process::getrlimit(Resource::Fsize);
    let low = Rlimit {
        current: Some(100),
        ..usual
    };
    rustix::process::setrlimit(Resource::Fsize, low).expect("a lower limit");
    let batch = [IoSlice::new(&[7; 200]); 30];
    let refused = log.append_batch(&batch);
    assert!(matches!(refused, Err(SendError::Limit(_))), "{refused:?}");
    rustix::process::setrlimit(Resource::Fsize, usual).expect("the usual limit");
    assert_eq!(log.append_batch(&batch).expect("room"), 30);
}

#[test]
fn a_batch_counts_what_is_in_the_log_and_nothing_that_could_not_be_written() {
    for power_loss in [false, true] {
        let scratch = Scratch::new();
        let arguments = (scratch.path().to_owned(), power_loss);
        let process = Process::new(append_a_batch_below_the_limit, arguments);
        process.start().expect("a writer").join().expect("no fault");
        let found = all(scratch.path());
        assert_eq!(found[0], b"before");
        assert!(found[1..].iter().all(|record| record == &[7; 200]));
        assert_eq!(found.len(), 31, "of the log");
    }
}

#[test]
fn bytes_on_the_storage_are_what_a_reader_gets() {
    // Whatever the level, the file is the same.
    let mut seen = Vec::new();
    for level in [
        Durability::Nothing,
        Durability::Process,
        Durability::PowerLoss,
    ] {
        let scratch = Scratch::new();
        let mut log = Log::open(scratch.path(), &small().durability(level)).expect("a log");
        log.append(b"the same").expect("room");
        log.flush().expect("room");
        let file = fs::File::open(scratch.path().join(format!("{:016x}", 0))).expect("a segment");
        let mut record = [0; 24];
        file.read_exact_at(&mut record, 64).expect("a record");
        // All but the checksum, which depends on the log.
        seen.push(record[4..].to_vec());
    }
    assert!(seen.iter().all(|record| *record == seen[0]), "{seen:?}");
}

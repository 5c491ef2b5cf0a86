//! The named log in one process: replay, rotation, recovery from every truncation and every
//! flipped bit.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipc_conformance::Scratch;
use ipc_core::{OpenError, Receiver as _, RecvError, SendError, Wait};
use ipc_file::{Durability, Follower, Log, Options, Start};

ipc_process::test_support!();

fn log_in(scratch: &Scratch) -> PathBuf {
    scratch.path().join("log")
}

fn small() -> Options {
    Options::default().capacity(2048)
}

fn message(number: usize) -> Vec<u8> {
    (0..number % 40).map(|at| (number * 7 + at) as u8).collect()
}

/// Everything from the start on, and how it ended.
fn read_all(log: &Path, start: Start) -> (Vec<Vec<u8>>, RecvError) {
    let mut follower = Follower::open(log, start, &small()).expect("a log to follow");
    let mut found = Vec::new();
    let mut buffer = Vec::new();
    loop {
        match follower.recv_vec(&mut buffer, Wait::Never) {
            Ok(()) => found.push(buffer.clone()),
            Err(error) => return (found, error),
        }
    }
}

fn segment(log: &Path, number: u64) -> PathBuf {
    log.join(format!("{number:016x}"))
}

#[test]
fn several_followers_replay_from_different_places() {
    let scratch = Scratch::new();
    let mut log = Log::open(log_in(&scratch), &small()).expect("a new log");
    let written: Vec<_> = (0..500).map(message).collect();
    let seqs: Vec<_> = written
        .iter()
        .map(|m| log.append(m).expect("room"))
        .collect();
    assert_eq!(seqs, (0..500).collect::<Vec<_>>());

    for from in [0, 1, 77, 250, 499, 500] {
        let (found, end) = read_all(&log_in(&scratch), Start::Sequence(from));
        assert!(found == written[from as usize..], "from {from}");
        assert!(matches!(end, RecvError::Empty), "{end:?}");
    }
    let mut late = Follower::open(log_in(&scratch), Start::End, &small()).expect("a follower");
    assert!(matches!(late.try_recv(&mut [0; 64]), Err(RecvError::Empty)));
    log.append(b"news").expect("room");
    let mut buffer = [0; 64];
    assert_eq!(late.try_recv(&mut buffer).expect("news"), 4);
    assert_eq!(late.last_sequence(), Some(500));
    drop(log);
    assert!(matches!(late.recv(&mut buffer), Err(RecvError::Closed)));
    assert!(
        matches!(late.recv(&mut buffer), Err(RecvError::Closed)),
        "and it stays so"
    );

    let beyond = Follower::open(log_in(&scratch), Start::Sequence(9999), &small());
    assert!(
        matches!(beyond, Err(OpenError::Invalid { .. })),
        "{beyond:?}"
    );
}

#[test]
fn the_log_goes_on_where_it_ended() {
    let scratch = Scratch::new();
    for round in 0..20u8 {
        let mut log = Log::open(log_in(&scratch), &small()).expect("the log again");
        assert!(
            log.recovery().clean && log.recovery().cut == 0,
            "{:?}",
            log.recovery()
        );
        for _ in 0..17 {
            log.append(&[round; 33]).expect("room");
        }
    }
    let (found, end) = read_all(&log_in(&scratch), Start::Oldest);
    let expected: Vec<_> = (0..20u8)
        .flat_map(|round| vec![vec![round; 33]; 17])
        .collect();
    assert!(found == expected);
    assert!(matches!(end, RecvError::Closed), "{end:?}");
}

#[test]
fn consumed_segments_can_be_removed() {
    let scratch = Scratch::new();
    let mut log = Log::open(log_in(&scratch), &small()).expect("a new log");
    for number in 0..1000u64 {
        log.append(&number.to_le_bytes()).expect("room");
    }
    let before = log.length().expect("its length");
    assert!(
        before.apparent > 4096 && before.allocated >= before.apparent,
        "{before:?}"
    );
    let mut slow = Follower::open(log_in(&scratch), Start::Oldest, &small()).expect("a follower");

    let removed = log.remove_before(700).expect("removal");
    assert!(removed > 0);
    let after = log.length().expect("its length");
    assert_eq!(before.apparent - after.apparent, 4096 * removed as u64);

    let (found, _) = read_all(&log_in(&scratch), Start::Sequence(700));
    assert_eq!(found.len(), 300);
    let gone = Follower::open(log_in(&scratch), Start::Sequence(0), &small());
    assert!(matches!(gone, Err(OpenError::Invalid { .. })), "{gone:?}");
    // Whoever was in a removed segment reads it to its end and then learns of the gap.
    let mut buffer = [0; 64];
    let mut read = 0u64;
    let end = loop {
        match slow.try_recv(&mut buffer) {
            Ok(8) => assert_eq!(
                u64::from_le_bytes(buffer[..8].try_into().expect("8 bytes")),
                read
            ),
            Ok(len) => panic!("a message of {len} B"),
            Err(error) => break error,
        }
        read += 1;
    };
    assert!(
        read > 0 && matches!(end, RecvError::Corrupt { .. }),
        "{read} {end:?}"
    );
    drop(log);
    let log = Log::open(log_in(&scratch), &small()).expect("a log that begins late");
    assert!(log.recovery().clean);
}

#[test]
fn a_log_has_one_writer() {
    let scratch = Scratch::new();
    let log = Log::open(log_in(&scratch), &small()).expect("a new log");
    let second = Log::open(log_in(&scratch), &small());
    assert!(matches!(second, Err(OpenError::NameInUse)), "{second:?}");
    drop(log);
    Log::open(log_in(&scratch), &small()).expect("the lock is free again");
}

#[test]
fn what_is_not_ours_is_refused() {
    let scratch = Scratch::new();
    let refused = |what: &str| {
        for outcome in [
            Log::open(log_in(&scratch), &small()).map(drop),
            Follower::open(log_in(&scratch), Start::Oldest, &small()).map(drop),
        ] {
            assert!(
                matches!(outcome, Err(OpenError::Untrusted { .. })),
                "{what}: {outcome:?}"
            );
        }
    };
    fs::write(log_in(&scratch), b"a file").expect("a file");
    refused("a file");
    fs::remove_file(log_in(&scratch)).expect("removal");

    fs::create_dir(scratch.path().join("elsewhere")).expect("a directory");
    std::os::unix::fs::symlink("elsewhere", log_in(&scratch)).expect("a link");
    refused("a link");
    fs::remove_file(log_in(&scratch)).expect("removal");

    fs::create_dir(log_in(&scratch)).expect("a directory");
    fs::set_permissions(log_in(&scratch), fs::Permissions::from_mode(0o755)).expect("chmod");
    refused("a directory that others can read");
    fs::set_permissions(log_in(&scratch), fs::Permissions::from_mode(0o700)).expect("chmod");

    fs::write(log_in(&scratch).join("control"), [0; 4096]).expect("a file");
    let open = fs::Permissions::from_mode(0o666);
    fs::set_permissions(log_in(&scratch).join("control"), open).expect("chmod");
    refused("a control page that others can write");
    fs::remove_file(log_in(&scratch).join("control")).expect("removal");

    // Whatever else stands at the names of a log that was whole before.
    drop(Log::open(log_in(&scratch), &small()).expect("a log"));
    for name in ["control", "writer"] {
        let path = log_in(&scratch).join(name);
        let kept = scratch.path().join("kept");
        fs::rename(&path, &kept).expect("removal");
        std::os::unix::fs::symlink(&kept, &path).expect("a link");
        refused("a link to the right file");
        fs::remove_file(&path).expect("removal");
        std::os::unix::fs::symlink("/dev/null", &path).expect("a link");
        refused("a link to a device");
        fs::remove_file(&path).expect("removal");
        fs::create_dir(&path).expect("a directory");
        refused("a directory");
        fs::remove_dir(&path).expect("removal");
        std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        refused("a socket");
        fs::remove_file(&path).expect("removal");
        let other = if name == "control" {
            rustix::fs::FileType::Fifo
        } else {
            rustix::fs::FileType::RegularFile
        };
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, other, mode, 0).expect("a file");
        refused("a file of the other kind");
        fs::remove_file(&path).expect("removal");
        fs::hard_link(&kept, &path).expect("a second name");
        refused("a file with a second name");
        fs::remove_file(&path).expect("removal");
        fs::rename(&kept, &path).expect("the file again");
    }
    drop(Log::open(log_in(&scratch), &small()).expect("the log again"));
    let first = segment(&log_in(&scratch), 0);
    for target in ["/dev/zero", "../elsewhere"] {
        fs::remove_file(&first).expect("removal");
        std::os::unix::fs::symlink(target, &first).expect("a link");
        let outcome = Log::open(log_in(&scratch), &small());
        assert!(outcome.is_err(), "{target}: {outcome:?}");
        let outcome = Follower::open(log_in(&scratch), Start::Oldest, &small());
        assert!(outcome.is_err(), "{target}: {outcome:?}");
    }
}

#[test]
fn a_batch_is_one_call_for_many() {
    let scratch = Scratch::new();
    let options = small().durability(Durability::PowerLoss);
    let mut log = Log::open(log_in(&scratch), &options).expect("a new log");
    let written: Vec<_> = (0..300).map(message).collect();
    let batch: Vec<_> = written.iter().map(|m| IoSlice::new(m)).collect();
    assert_eq!(log.append_batch(&batch).expect("room"), 300);
    let (found, _) = read_all(&log_in(&scratch), Start::Oldest);
    assert!(found == written);
    log.sync().expect("a disk");
}

#[test]
fn too_long_is_refused_whole() {
    let scratch = Scratch::new();
    let mut log = Log::open(log_in(&scratch), &small()).expect("a new log");
    let max = ipc_core::Sender::limits(&log).max_message;
    log.append(&vec![1; max]).expect("the longest");
    log.append(&vec![2; max]).expect("the longest again");
    let refused = log.append(&vec![3; max + 1]);
    assert!(
        matches!(refused, Err(SendError::TooLong { .. })),
        "{refused:?}"
    );
    log.append(b"after").expect("room");
    let (found, _) = read_all(&log_in(&scratch), Start::Oldest);
    assert_eq!(
        found.iter().map(Vec::len).collect::<Vec<_>>(),
        [max, max, 5]
    );
}

#[test]
fn deadlines_hold_and_a_small_buffer_loses_nothing() {
    let scratch = Scratch::new();
    let mut log = Log::open(log_in(&scratch), &small()).expect("a new log");
    let mut follower =
        Follower::open(log_in(&scratch), Start::Oldest, &small()).expect("a follower");
    let begun = Instant::now();
    let timeout = Duration::from_millis(70);
    let outcome = follower.recv_timeout(&mut [0; 64], timeout);
    assert!(matches!(outcome, Err(RecvError::TimedOut)), "{outcome:?}");
    assert!(begun.elapsed() >= timeout, "{:?}", begun.elapsed());

    log.append(&[5; 40]).expect("room");
    let small = follower.try_recv(&mut [0; 39]);
    assert!(
        matches!(small, Err(RecvError::BufferTooSmall { needed: 40 })),
        "{small:?}"
    );
    assert_eq!(
        follower.try_recv(&mut [0; 40]).expect("the same message"),
        40
    );
}

/// A log of ten records in one segment, 1 KiB in all, closed without a farewell as far as `bytes`
/// goes.
fn ten_records(scratch: &Scratch) -> (Vec<Vec<u8>>, Vec<u8>, usize) {
    let mut log = Log::open(log_in(scratch), &small()).expect("a new log");
    let written: Vec<_> = (1..=10).map(|n| vec![n as u8; n * 15]).collect();
    for message in &written {
        log.append(message).expect("room");
    }
    // Read while the writer lives: there is no farewell yet.
    let bytes = fs::read(segment(&log_in(scratch), 0)).expect("the segment");
    let used = bytes.iter().rposition(|&byte| byte != 0).expect("records") + 1;
    assert!(used > 1024, "{used}");
    drop(log);
    (written, bytes, used)
}

#[test]
fn every_truncation_leaves_a_prefix() {
    let scratch = Scratch::in_memory();
    let (written, bytes, used) = ten_records(&scratch);
    let path = segment(&log_in(&scratch), 0);
    let mut lengths = Vec::new();
    for len in (64..=used).chain([bytes.len() - 1]) {
        fs::write(&path, &bytes[..len]).expect("a truncated segment");
        let log = Log::open(log_in(&scratch), &small()).expect("a torn tail is cut");
        let (found, _) = read_all(&log_in(&scratch), Start::Oldest);
        assert!(
            written.starts_with(&found),
            "{len} bytes gave something else"
        );
        assert!(!log.recovery().clean);
        drop(log);
        lengths.push(found.len());
    }
    assert!(lengths.is_sorted(), "{lengths:?}");
    assert_eq!((lengths[0], lengths[lengths.len() - 1]), (0, 10));
    for len in 0..64 {
        fs::write(&path, &bytes[..len]).expect("a truncated header");
        let log = Log::open(log_in(&scratch), &small()).map_err(io_kind);
        assert_eq!(
            log.err(),
            Some(Some(io::ErrorKind::InvalidData)),
            "{len} bytes"
        );
    }
}

fn io_kind(error: OpenError) -> Option<io::ErrorKind> {
    match error {
        OpenError::Io { source, .. } => Some(source.kind()),
        _ => None,
    }
}

#[test]
fn no_flipped_bit_is_silent() {
    let scratch = Scratch::in_memory();
    let (written, bytes, used) = ten_records(&scratch);
    let path = segment(&log_in(&scratch), 0);
    let (mut refused, mut cut) = (0, 0);
    // Padding too: the last record is 16 + 150 bytes and 2 of padding.
    for bit in 0..used.next_multiple_of(8) * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).expect("a damaged segment");
        // A follower has no lock and repairs nothing: it reads up to the damage and says so.
        match Follower::open(log_in(&scratch), Start::Oldest, &small()) {
            Err(error) => assert_eq!(io_kind(error), Some(io::ErrorKind::InvalidData)),
            Ok(_) => {
                let (found, end) = read_all(&log_in(&scratch), Start::Oldest);
                assert!(
                    written.starts_with(&found) && found.len() < written.len(),
                    "bit {bit} went unnoticed by a follower"
                );
                assert!(matches!(end, RecvError::Corrupt { .. }), "{bit}: {end:?}");
            }
        }
        match Log::open(log_in(&scratch), &small()) {
            Err(error) => {
                assert_eq!(
                    io_kind(error),
                    Some(io::ErrorKind::InvalidData),
                    "bit {bit}"
                );
                refused += 1;
            }
            Ok(log) => {
                assert!(log.recovery().cut > 0, "bit {bit} went unnoticed");
                let (found, _) = read_all(&log_in(&scratch), Start::Oldest);
                assert!(
                    found == written[..9],
                    "bit {bit} cost more than the last record"
                );
                cut += 1;
            }
        }
    }
    // Whatever is wrong with the last record, nothing valid follows.
    assert_eq!(cut, 168 * 8);
    assert!(refused > 5 * cut, "{refused}");
}

#[test]
fn damage_in_the_middle_is_reported_to_followers_and_salvaged_on_demand() {
    let scratch = Scratch::new();
    let (written, _, _) = ten_records(&scratch);
    let path = segment(&log_in(&scratch), 0);
    let file = OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("the segment");
    // The third record: header 64, then 16 + 15 and 16 + 30 bytes rounded up, then its own 16.
    let third = 64 + 32 + 48;
    file.write_all_at(b"?", third + 16).expect("damage");
    let (found, end) = read_all(&log_in(&scratch), Start::Oldest);
    assert!(
        found == written[..2] && matches!(end, RecvError::Corrupt { .. }),
        "{end:?}"
    );

    let strict = Log::open(log_in(&scratch), &small()).expect_err("damage");
    let place = format!("byte {third} of segment {:016x}", 0);
    let OpenError::Io { source, .. } = &strict else {
        panic!("{strict:?}");
    };
    assert_eq!(source.kind(), io::ErrorKind::InvalidData);
    assert!(source.to_string().contains(&place), "{source}");

    let mut log = Log::open(log_in(&scratch), &small().salvage(true)).expect("what is left");
    assert_eq!((log.recovery().damaged, log.recovery().cut), (1, 0));
    assert_eq!(log.append(b"new").expect("room"), 10);

    let mut follower =
        Follower::open(log_in(&scratch), Start::Oldest, &small()).expect("a follower");
    let mut buffer = [0; 256];
    for _ in 0..2 {
        follower.try_recv(&mut buffer).expect("before the damage");
    }
    for _ in 0..2 {
        let damaged = follower.try_recv(&mut buffer);
        assert!(
            matches!(damaged, Err(RecvError::Corrupt { .. })),
            "{damaged:?}"
        );
        assert_eq!(follower.position(), (0, third));
    }
    assert_eq!(follower.resynchronize().expect("a log"), Some(1));
    for message in written[3..].iter().map(Vec::as_slice).chain([&b"new"[..]]) {
        let len = follower.try_recv(&mut buffer).expect("behind the damage");
        assert!(buffer[..len] == *message);
    }
    assert_eq!(follower.last_sequence(), Some(10));
    assert!(matches!(
        follower.try_recv(&mut buffer),
        Err(RecvError::Empty)
    ));
    assert_eq!(follower.resynchronize().expect("a log"), None);
    log.append(b"newer").expect("room");
    assert_eq!(follower.try_recv(&mut buffer).expect("the next"), 5);
}

/// A mapping would raise SIGBUS here, and this process would be gone.
#[test]
fn a_segment_truncated_under_a_follower_is_corrupt() {
    for len in [1000, 200, 64, 3, 0] {
        let scratch = Scratch::new();
        ten_records(&scratch);
        let mut follower =
            Follower::open(log_in(&scratch), Start::Oldest, &small()).expect("a follower");
        let file = OpenOptions::new()
            .write(true)
            .open(segment(&log_in(&scratch), 0))
            .expect("the segment");
        file.set_len(len).expect("a shorter file");
        let mut buffer = [0; 256];
        let ended = loop {
            if let Err(error) = follower.try_recv(&mut buffer) {
                break error;
            }
        };
        assert!(
            matches!(ended, RecvError::Corrupt { .. }),
            "{len}: {ended:?}"
        );
        assert_eq!(follower.resynchronize().expect("a log"), None);
    }
}

#[test]
fn a_full_file_system_is_a_limit() {
    // A tmpfs refuses at once what exceeds it; elsewhere nothing is shown.
    let scratch = Scratch::in_memory();
    if rustix::fs::statfs(scratch.path()).is_ok_and(|fs| fs.f_type == 0x0102_1994) {
        let log = Log::open(log_in(&scratch), &Options::default().capacity(1 << 39));
        assert!(matches!(log, Err(OpenError::Limit(_))), "{log:?}");
        // Nothing of the attempt is in the way of the next.
        Log::open(log_in(&scratch), &small()).expect("a smaller log");
    }
}

/// A writer that is killed between writing a batch and committing it leaves the first record without
/// its kind and the others whole.
#[test]
fn a_batch_that_was_not_committed_is_cut() {
    for salvage in [false, true] {
        let scratch = Scratch::in_memory();
        let path = segment(&log_in(&scratch), 0);
        let options = small().durability(Durability::PowerLoss);
        let mut log = Log::open(log_in(&scratch), &options).expect("a new log");
        log.append(b"committed").expect("room");
        let used = |bytes: &[u8]| {
            bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |at| at + 1)
        };
        let before = fs::read(&path).expect("the segment");
        let end = used(&before).next_multiple_of(8);
        let batch = [&b"one"[..], b"two", b"six"].map(IoSlice::new);
        assert_eq!(log.append_batch(&batch).expect("room"), 3);
        let mut bytes = fs::read(&path).expect("the segment");
        drop(log);
        // The batch begins with a mark.
        bytes[end + 7] &= 0x0F;
        fs::write(&path, &bytes).expect("a segment");

        let (found, _) = read_all(&log_in(&scratch), Start::Oldest);
        assert_eq!(found, [b"committed"]);
        let mut log = Log::open(log_in(&scratch), &options.clone().salvage(salvage))
            .expect("nothing is damaged");
        assert_eq!((log.recovery().damaged, log.next_sequence()), (0, 1));
        assert_eq!(log.recovery().cut, (used(&bytes) - end) as u64);
        log.append(b"next").expect("room");
        let (found, _) = read_all(&log_in(&scratch), Start::Oldest);
        assert_eq!(found, [&b"committed"[..], b"next"]);
    }
}

//! The death of a process, at every system call: what it had committed is
//! there, of what it was about all or nothing, and the next writer needs no hand.

use std::collections::BTreeSet;
use std::fs;
use std::io::IoSlice;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc_conformance::syscalls::{Probe, step};
use ipc_core::{Channel, OpenError, Receiver as _, RecvError, Sender as _, Wait};

use crate::images::{Place, image, read};
use crate::{Durability, FileLog, Follower, Log, Options, Sender, Start};

const PATIENCE: Duration = Duration::from_secs(20);
const THIS_BOOT: u64 = 7;

/// What a writer does, one after the other.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// One record of this many bytes.
    Append(usize),
    /// So many records of so many bytes.
    Batch(usize, usize),
    Sync,
    /// Removes what is not needed for the last so many records.
    Keep(u64),
    Reopen,
}

/// Segments have 4032 bytes for records.
const SCRIPT: [Step; 13] = [
    Step::Append(90),
    Step::Append(300),
    Step::Batch(12, 111),
    // In the next segment, and the batch across two more.
    Step::Append(2100),
    Step::Batch(70, 111),
    Step::Sync,
    // Behind a mark.
    Step::Append(90),
    Step::Keep(20),
    Step::Reopen,
    Step::Batch(3, 50),
    Step::Sync,
    Step::Batch(3, 50),
    Step::Append(3500),
];

impl Step {
    fn records(self) -> u64 {
        match self {
            Self::Append(_) => 1,
            Self::Batch(count, _) => count as u64,
            Self::Sync | Self::Keep(_) | Self::Reopen => 0,
        }
    }
}

fn record(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8 | 1; len];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// The record of this number in [`SCRIPT`].
fn expected(number: u64) -> Vec<u8> {
    let mut first = 0;
    for step in SCRIPT {
        first += step.records();
        if let (true, Step::Append(len) | Step::Batch(_, len)) = (number < first, step) {
            return record(number, len);
        }
    }
    panic!("there is no record {number}");
}

fn options(level: Durability) -> Options {
    Options::default().capacity(2048).durability(level)
}

const LEVELS: [Durability; 3] = [
    Durability::Nothing,
    Durability::Process,
    Durability::PowerLoss,
];

/// Plays [`SCRIPT`], and tells after each step how many records are committed.
fn write(probe: Probe, (path, level, mut done): (PathBuf, u8, Sender)) {
    let level = LEVELS[usize::from(level)];
    let counted = probe.start();
    play(&path, level, &SCRIPT, |committed| {
        done.send(&committed.to_le_bytes()).expect("a parent");
    });
    counted.stop();
}

fn play(path: &Path, level: Durability, script: &[Step], mut done: impl FnMut(u64)) {
    let open = || Log::open_under(path, &options(level), THIS_BOOT).expect("the log");
    let mut log = open();
    for &step in script {
        let next = log.next_sequence();
        let mut commits = level != Durability::Nothing;
        match step {
            Step::Append(len) => drop(log.append(&record(next, len)).expect("room")),
            Step::Batch(count, len) => {
                let records: Vec<_> = (next..).map(|n| record(n, len)).take(count).collect();
                let batch: Vec<_> = records.iter().map(|r| IoSlice::new(r)).collect();
                assert_eq!(log.append_batch(&batch).expect("room"), count);
            }
            Step::Sync => {
                log.sync().expect("a disk");
                commits = true;
            }
            Step::Keep(count) => drop(log.remove_before(next - count).expect("a directory")),
            Step::Reopen => {
                drop(log);
                log = open();
                commits = true;
            }
        }
        if commits {
            done(log.next_sequence());
        }
    }
}

/// The first record of each segment, where a batch may be cut in two.
fn bases(place: &Place, level: Durability) -> BTreeSet<u64> {
    let removes = |step: &Step| matches!(step, Step::Keep(_));
    let script: Vec<_> = SCRIPT.into_iter().filter(|step| !removes(step)).collect();
    place.clear();
    play(&place.log, level, &script, |_| {});
    let base = |bytes: &Vec<u8>| u64::from_le_bytes(bytes[40..48].try_into().expect("8 bytes"));
    image(&place.log).values().map(base).collect()
}

/// What a follower finds of a log whose writer was killed: the number of the first record and that of
/// the one that comes next.
fn follow(log: &Path, what: &str) -> (u64, u64) {
    let mut follower = match Follower::open(log, Start::Oldest, &Options::default()) {
        Ok(follower) => follower,
        Err(OpenError::NotFound) => return (0, 0),
        Err(error) => panic!("{what}: {error}"),
    };
    let (mut found, mut buffer) = (None, Vec::new());
    loop {
        match follower.recv_vec(&mut buffer, Wait::at_most(PATIENCE)) {
            Ok(()) => {
                let number = follower.last_sequence().expect("a record");
                let (_, end) = found.get_or_insert((number, number));
                assert_eq!(number, *end, "{what}: a gap");
                assert!(buffer == expected(number), "{what}: record {number}");
                *end += 1;
            }
            Err(RecvError::PeerDied | RecvError::Closed) => return found.unwrap_or((0, 0)),
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// The files of a log: its two meeting points and segments without a gap, the first and the last of
/// which are given.
fn segments(log: &Path, what: &str) -> (u64, u64) {
    let mut names: BTreeSet<String> = fs::read_dir(log)
        .expect("the log")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    assert!(names.remove("control") && names.remove("writer"), "{what}");
    let number = |name: &String| u64::from_str_radix(name, 16).expect("a segment");
    let numbers: Vec<_> = names.iter().map(number).collect();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    assert!(
        numbers.iter().copied().eq(first..=last),
        "{what}: {names:?}"
    );
    (first, last)
}

/// Opens the log as the next writer, goes on with it, and gives how many records there were.
fn go_on(log: &Path, what: &str) -> u64 {
    let open = || Log::open_under(log, &options(Durability::Process), THIS_BOOT);
    let mut writer = open().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(writer.recovery().damaged, 0, "{what}");
    let end = writer.next_sequence();
    segments(log, what);
    let (mut found, _) = read(log);
    for len in [1500, 77] {
        writer.append(&record(1, len)).expect("room");
        found.push(record(1, len));
    }
    drop(writer);
    let writer = open().unwrap_or_else(|error| panic!("{what}, then: {error}"));
    let recovery = writer.recovery();
    assert!(recovery.clean && recovery.cut == 0, "{what}: {recovery:?}");
    assert!(read(log).0 == found, "{what}: not as it was left");
    end
}

/// After a SIGKILL with so many records committed.
fn check(log: &Path, bases: Option<&BTreeSet<u64>>, committed: u64, what: &str) {
    let (first, end) = follow(log, what);
    let total: u64 = SCRIPT.map(Step::records).iter().sum();
    assert!(
        (committed..=total).contains(&end),
        "{what}: {end} of {committed}"
    );
    assert!(
        first == 0 || first + 20 <= committed,
        "{what}: {first} is the first"
    );
    if let Some(bases) = bases {
        let mut sum = 0;
        let next = SCRIPT.iter().find_map(|step| {
            sum += step.records();
            (sum > committed).then_some(sum)
        });
        let next = next.unwrap_or(committed);
        let whole = end == committed || end == next || end < next && bases.contains(&end);
        assert!(whole, "{what}: {end} of {committed} and {next}");
    }
    assert_eq!(go_on(log, what), end, "{what}");
}

/// Kills the writer at its first system call, at its second, and so on until it comes to its end.
fn kill_at_every_call(level: u8) {
    let place = Place::new();
    let durability = LEVELS[usize::from(level)];
    // Gathered records go to the file whenever there are enough.
    let bases = (durability != Durability::Nothing).then(|| bases(&place, durability));
    for call in 0.. {
        place.clear();
        let (tx, mut rx) = FileLog::pair(&options(Durability::Nothing)).expect("a channel");
        let ended = step(write, (place.log.clone(), level, tx), |before| {
            if before == call {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let (mut committed, mut buffer) = (0, [0; 8]);
        while rx.try_recv(&mut buffer).is_ok() {
            committed = u64::from_le_bytes(buffer);
        }
        let what = format!("{durability:?}, call {call}");
        if place.log.exists() {
            check(&place.log, bases.as_ref(), committed, &what);
        }
        if ended.is_some() {
            assert!(call > 40, "{what}");
            return;
        }
    }
}

#[test]
fn a_writer_killed_at_any_call_loses_nothing_that_it_gathered_and_flushed() {
    kill_at_every_call(0);
}

#[test]
fn a_writer_killed_at_any_call_loses_nothing_that_it_appended() {
    kill_at_every_call(1);
}

#[test]
fn a_writer_killed_at_any_call_loses_nothing_that_it_synced() {
    kill_at_every_call(2);
}

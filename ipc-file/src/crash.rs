//! Lost power, by all that it may leave: the files as the last sync left them, with any choice of
//! what was written to each sector and each name since.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ipc_core::{OpenError, RecvError};

use crate::images::{Image, Place, image, read};
use crate::sys::synced;
use crate::{Log, Options};

const NOW: u64 = 7;
const LATER: u64 = 8;
const LATER_STILL: u64 = 9;

#[derive(Clone, Copy, Debug)]
enum Op {
    Small,
    Large,
    Batch,
    Sync,
    Reopen,
}

const OPS: [Op; 5] = [Op::Small, Op::Large, Op::Batch, Op::Sync, Op::Reopen];

/// What a script of operations did to a log: all records, how many of them were synced, and the
/// files at the last sync and after each operation since.
struct Past {
    records: Vec<Vec<u8>>,
    synced: usize,
    images: Vec<Image>,
}

fn options() -> Options {
    Options::default().capacity(2048)
}

/// Of the files as they are now, what the storage holds for certain after the syncs that were made:
/// the bytes of each file that was synced itself, under names that were there when the directory
/// was.
fn settle(directory: &Path, before: &Image, now: &Image) -> Image {
    let inodes = synced::take();
    let inode = |path: &Path| fs::metadata(path).map(|file| file.ino()).unwrap_or(0);
    let names = if inodes.contains(&inode(directory)) {
        now
    } else {
        before
    };
    let bytes = |name: &String| {
        let fresh = inodes.contains(&inode(&directory.join(name)));
        let bytes = if fresh {
            now.get(name)
        } else {
            before.get(name)
        };
        bytes.map_or_else(|| vec![0; now[name].len()], Vec::clone)
    };
    names
        .keys()
        .map(|name| (name.clone(), bytes(name)))
        .collect()
}

fn play(place: &Place, script: &[Op]) -> Past {
    place.clear();
    let open = || Log::open_under(&place.log, &options(), NOW).expect("the log");
    synced::take();
    let mut log = open();
    let mut past = Past {
        records: Vec::new(),
        synced: 0,
        images: vec![settle(&place.log, &Image::new(), &image(&place.log))],
    };
    for op in script {
        let next = past.records.len();
        let record = |at: usize, len: usize| vec![(next + at + 1) as u8; len];
        match op {
            Op::Small | Op::Large => {
                let len = if matches!(op, Op::Small) { 90 } else { 2100 };
                log.append(&record(0, len)).expect("room");
                past.records.push(record(0, len));
            }
            Op::Batch => {
                let records: Vec<_> = (0..12).map(|at| record(at, 111)).collect();
                let batch: Vec<_> = records.iter().map(|r| IoSlice::new(r)).collect();
                assert_eq!(log.append_batch(&batch).expect("room"), batch.len());
                past.records.extend(records);
            }
            Op::Sync => {
                let now = image(&place.log);
                log.sync().expect("a disk");
                past.images = vec![settle(&place.log, &past.images[0], &now)];
                past.synced = past.records.len();
            }
            Op::Reopen => {
                drop(log);
                log = open();
            }
        }
        past.images.push(image(&place.log));
    }
    past
}

fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 20) as usize
}

/// One of the images that the storage may hold: each sector, and each name, of any time since the
/// last sync.
fn durable(past: &Past, sector: usize, chance: &mut u64) -> Image {
    let names: BTreeSet<&String> = past.images.iter().flat_map(Image::keys).collect();
    let mut result = Image::new();
    for name in names {
        if !past.images[random(chance) % past.images.len()].contains_key(name) {
            continue;
        }
        let len = past
            .images
            .iter()
            .filter_map(|image| image.get(name))
            .map(Vec::len)
            .max();
        let mut bytes = vec![0; len.unwrap_or(0)];
        for (at, to) in bytes.chunks_mut(sector).enumerate() {
            let of = &past.images[random(chance) % past.images.len()];
            if let Some(from) = of.get(name) {
                to.copy_from_slice(&from[at * sector..][..to.len()]);
            }
        }
        result.insert(name.clone(), bytes);
    }
    result
}

/// Opens what the storage holds after the next boot, and goes on with it.
fn check(place: &Place, past: &Past, image: &Image, what: &str) {
    place.restore(image);
    let mut log = Log::open_under(&place.log, &options(), LATER)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let (mut found, end) = read(&place.log);
    assert!(matches!(end, RecvError::Empty), "{what}: {end:?}");
    assert!(past.records.starts_with(&found), "{what}: another record");
    assert!(
        found.len() >= past.synced,
        "{what}: {} of {} synced records",
        found.len(),
        past.synced
    );
    assert_eq!(log.next_sequence(), found.len() as u64, "{what}");
    for len in [1500, 77] {
        let record = vec![0xEE; len];
        log.append(&record).expect("room");
        found.push(record);
    }
    drop(log);
    let log = Log::open_under(&place.log, &options(), LATER_STILL)
        .unwrap_or_else(|error| panic!("{what}, then: {error}"));
    assert!(log.recovery().clean && log.recovery().cut == 0, "{what}");
    assert!(read(&place.log).0 == found, "{what}: not as it was left");
}

/// Every script of up to four operations, and some images of each.
#[test]
fn lost_power_costs_no_synced_record_and_needs_no_hand() {
    let place = Place::new();
    let mut chance = 0x9E37_79B9_7F4A_7C15;
    for length in 1..=4u32 {
        for number in 0..OPS.len().pow(length) {
            let script: Vec<_> = (0..length)
                .map(|at| OPS[number / OPS.len().pow(at) % OPS.len()])
                .collect();
            let past = play(&place, &script);
            for round in 0..16 {
                let sector = [512, 4096, 64, 8][round % 4];
                let image = durable(&past, sector, &mut chance);
                check(&place, &past, &image, &format!("{script:?}, image {round}"));
            }
        }
    }
}

/// Longer histories, with more segments than one between two syncs.
#[test]
fn lost_power_after_a_long_run_costs_no_synced_record() {
    let place = Place::new();
    let mut chance = 0x2545_F491_4F6C_DD1D;
    for round in 0..150 {
        let script: Vec<_> = (0..30)
            .map(|_| match random(&mut chance) % 12 {
                0 => Op::Sync,
                1 => Op::Reopen,
                2..5 => Op::Large,
                5..8 => Op::Batch,
                _ => Op::Small,
            })
            .collect();
        let past = play(&place, &script);
        for sector in [512, 4096] {
            let image = durable(&past, sector, &mut chance);
            check(&place, &past, &image, &format!("{round}: {script:?}"));
        }
    }
}

/// What a later record says was synced is not taken for torn, though power was lost since.
#[test]
fn damage_in_what_was_synced_is_refused_after_a_boot_too() {
    let place = Place::new();
    let script = [
        Op::Batch,
        Op::Large,
        Op::Sync,
        Op::Small,
        Op::Sync,
        Op::Small,
    ];
    let past = play(&place, &script);
    let last = past.images.last().expect("an image").clone();
    let mut seen = 0;
    for (name, bytes) in &last {
        let used = bytes
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1);
        for at in (0..used).step_by(8) {
            let mut image = last.clone();
            let damaged = image.get_mut(name).expect("a segment");
            damaged[at] ^= 0x40;
            place.restore(&image);
            match Log::open_under(&place.log, &options(), LATER) {
                Err(OpenError::Io { source, .. }) => {
                    assert_eq!(source.kind(), io::ErrorKind::InvalidData);
                    seen += 1;
                }
                Err(error) => panic!("{error}"),
                // Behind the last mark nothing says that it was synced.
                Ok(log) => {
                    let found = read(&place.log).0;
                    assert!(log.recovery().cut > 0, "byte {at} of {name}");
                    assert!(past.records.starts_with(&found) && found.len() >= past.synced - 1);
                }
            }
        }
    }
    assert!(seen > 400, "{seen}");
}

//! What a pool computes, and what travels.

mod common;
mod watchdog;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use common::{Fd, need_descriptors};
use ipc_process::{Limits, Pool, StartMethod};
use serde::Serialize;
use serde::de::DeserializeOwned;
use watchdog::watch;

ipc_process::test_support!();

fn square(n: u64) -> u64 {
    n * n
}

#[test]
fn results_come_in_every_way() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.apply(square, (7,)).unwrap(), 49);
    let job = pool.apply_async(square, (8,));
    assert_eq!(job.get().unwrap(), 64);
    let expected: Vec<u64> = (0..1000).map(|n| n * n).collect();
    assert_eq!(pool.map(square, 0..1000).unwrap(), expected);
    assert_eq!(pool.map_async(square, 0..1000).get().unwrap(), expected);
    for chunk in [1, 7, 1000, usize::MAX] {
        let batch = pool.batch().chunk_size(chunk);
        assert_eq!(batch.map(square, 0..1000).unwrap(), expected, "{chunk}");
        let ordered: Result<Vec<u64>, _> = batch.imap(square, 0..1000).collect();
        assert_eq!(ordered.unwrap(), expected, "{chunk}");
        let any: Result<Vec<u64>, _> = batch.imap_unordered(square, 0..1000).collect();
        let mut any = any.unwrap();
        any.sort_unstable();
        assert_eq!(any, expected, "{chunk}");
    }
    let sums = pool.starmap(|a: u32, b: u32| a + b, (0..3).zip(4..7));
    assert_eq!(sums.unwrap(), [4, 6, 8]);
    // Of a length that is known only at the end, and of none.
    let odd = (0..100_u64).filter(|n| n % 2 == 1);
    assert_eq!(pool.map(square, odd).unwrap().len(), 50);
    assert_eq!(pool.map(square, []).unwrap(), []);
    assert_eq!(pool.imap(square, []).count(), 0);
    let progress = pool.progress();
    assert_eq!(progress.completed, progress.total);
    pool.close().join();
}

#[test]
fn long_items_are_taken_no_faster_than_workers_take_them() {
    let _watchdog = watch();
    const ITEMS: u64 = 40;
    // Slower than items can be made, or there would be nothing to see.
    let len = |item: Vec<u8>| {
        let end = Instant::now() + Duration::from_millis(5);
        while Instant::now() < end {}
        item.len()
    };
    let pool = Pool::new(1).unwrap();
    let mut most_ahead = 0;
    let items = (0..ITEMS).map(|taken| {
        most_ahead = most_ahead.max(taken - pool.progress().completed);
        vec![1; 1 << 20]
    });
    let lens = pool.map(len, items).unwrap();
    assert_eq!(lens.iter().sum::<usize>(), 40 << 20);
    assert!(most_ahead < ITEMS / 2, "{most_ahead} items wait in memory");
    // Who does not wait for results does not wait for workers either.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let waits = |end: Fd| File::from(end.0).read(&mut [0]).is_ok();
    let busy = pool.apply_async(waits, (Fd(reader.into()),));
    let job = pool.map_async(len, (0..ITEMS).map(|_| vec![1; 1 << 20]));
    writer.write_all(b"!").unwrap();
    assert!(busy.get().unwrap());
    assert_eq!(job.get().unwrap().len(), 40);
}

#[test]
fn functions_of_every_kind_run() {
    let _watchdog = watch();
    fn largest<T: Ord + Copy>(values: Vec<T>) -> Option<T> {
        values.iter().max().copied()
    }
    fn typed<T: Serialize + DeserializeOwned + 'static>(_: T) -> String {
        std::any::type_name::<T>().to_owned()
    }
    let pool = Pool::new(1).unwrap();
    assert_eq!(
        pool.apply(largest::<u8>, (vec![3, 9, 4],)).unwrap(),
        Some(9)
    );
    assert_eq!(pool.apply(largest::<i64>, (vec![-3],)).unwrap(), Some(-3));
    assert_eq!(pool.map(typed::<u8>, [1]).unwrap(), ["u8"]);
    assert_eq!(pool.map(typed::<u16>, [1]).unwrap(), ["u16"]);
    let sum = |a: u8, b: u8, c: u8, d: u8| a + b + c + d;
    assert_eq!(pool.apply(sum, (1, 2, 3, 4)).unwrap(), 10);
    // Without content: arguments, results, items.
    pool.apply(|| (), ()).unwrap();
    assert_eq!(pool.map(|()| (), [(); 1000]).unwrap().len(), 1000);
}

#[test]
fn sizes_around_every_limit_arrive_whole() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    let reversed = |mut bytes: Vec<u8>| {
        bytes.reverse();
        bytes
    };
    let text = |text: String| text.to_uppercase();
    for len in [
        0,
        1,
        65_535 - 8,
        65_535,
        65_536,
        65_537,
        131_072,
        3 << 20,
        5 << 20,
    ] {
        let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let expected: Vec<u8> = bytes.iter().rev().copied().collect();
        // Again and again, with pages that were used before.
        for _ in 0..3 {
            let back = pool.apply(reversed, (bytes.clone(),)).unwrap();
            assert!(back == expected, "{len}");
        }
        let many = pool
            .batch()
            .chunk_size(2)
            .map(reversed, vec![bytes.clone(); 8]);
        assert!(many.unwrap().iter().all(|back| *back == expected), "{len}");
        assert!(pool.apply(text, ("x".repeat(len),)).unwrap() == "X".repeat(len));
        let later = pool.apply_async(text, ("x".repeat(len),));
        assert!(later.get().unwrap() == "X".repeat(len));
    }
}

/// Reads from one pipe, writes to another, and gives both back.
fn echo(from: Fd, to: Fd) -> (Fd, Fd) {
    let (mut from, mut to) = (File::from(from.0), File::from(to.0));
    let mut byte = [0];
    from.read_exact(&mut byte).unwrap();
    to.write_all(&byte).unwrap();
    (Fd(from.into()), Fd(to.into()))
}

#[test]
fn channel_ends_travel_as_arguments_and_results() {
    let _watchdog = watch();
    need_descriptors(2000);
    let pool = Pool::new(2).unwrap();
    let (from, mut tell) = std::io::pipe().unwrap();
    let (mut said, to) = std::io::pipe().unwrap();
    let (mut from, mut to) = (Fd(OwnedFd::from(from)), Fd(OwnedFd::from(to)));
    for byte in 0..5_u8 {
        tell.write_all(&[byte]).unwrap();
        (from, to) = pool.apply(echo, (from, to)).unwrap();
        let mut back = [0];
        said.read_exact(&mut back).unwrap();
        assert_eq!(back, [byte]);
    }
    drop(to);
    // Nobody else has kept it.
    assert_eq!(said.read(&mut [0]).unwrap(), 0);
    // Many of them, more than one message of the kernel carries, and as items.
    let null = || Fd(File::open("/dev/null").unwrap().into());
    let many = |fds: Vec<Fd>| (fds.len(), fds);
    let (count, back) = pool
        .apply(many, ((0..600).map(|_| null()).collect::<Vec<_>>(),))
        .unwrap();
    assert_eq!((count, back.len()), (600, 600));
    let read = |fd: Fd| File::from(fd.0).read(&mut [0]).unwrap();
    for chunk in [1, 10] {
        let batch = pool.batch().chunk_size(chunk);
        let ends = batch.map(read, (0..40).map(|_| null())).unwrap();
        assert_eq!(ends, [0; 40]);
        let ends: Result<Vec<usize>, _> = batch.imap(read, (0..40).map(|_| null())).collect();
        assert_eq!(ends.unwrap(), [0; 40]);
    }
}

fn with_a_pool_of_its_own(n: u64) -> u64 {
    let pool = Pool::new(2).unwrap();
    pool.map(square, 0..n).unwrap().iter().sum()
}

#[test]
fn a_task_may_have_a_pool() {
    let _watchdog = watch();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(with_a_pool_of_its_own, [3, 4]).unwrap(), [5, 14]);
}

#[test]
fn workers_come_from_the_fork_server_too() {
    let _watchdog = watch();
    let pool = Pool::builder()
        .processes(2)
        .start_method(StartMethod::Zygote)
        .limits(Limits::new().descriptors(100))
        .build()
        .unwrap();
    assert_eq!(pool.map(square, 0..5).unwrap(), [0, 1, 4, 9, 16]);
    let limit = || rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    assert_eq!(pool.apply(limit, ()).unwrap(), Some(100));
    let exit = |code: i32| -> u64 { std::process::exit(code) };
    for code in 0..10 {
        assert!(pool.apply(exit, (code,)).is_err());
        assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    }
    pool.close().join();
}

//! What `poll(2)` and an event loop see of the ends of channels and of followers.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ipc_conformance::Scratch;
use ipc_core::tokio::Async;
use ipc_core::wait::{Polled, poll};
use ipc_core::{
    Channel, Pollable, Receiver as _, RecvError, SendError, Sender as _, Wait, WaitStrategy,
};
use ipc_file::{Durability, FileLog, Follower, Log, Options, Start};

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(20);

fn small() -> Options {
    Options::default()
        .capacity(2048)
        .durability(Durability::Nothing)
}

fn ready(end: &impl Pollable) -> bool {
    poll([(end.as_fd(), end.interest())], Wait::Never).expect("poll") == Polled::Ready
}

fn wait(end: &impl Pollable) {
    let polled = poll([(end.as_fd(), end.interest())], Wait::at_most(PATIENCE));
    assert_eq!(polled.expect("poll"), Polled::Ready, "nothing woke it");
}

#[test]
fn both_ends_become_ready_for_work_and_for_the_end() {
    let (mut tx, mut rx) = FileLog::pair(&small()).expect("a channel");
    assert!(ready(&tx), "there is room");
    assert!(matches!(rx.try_recv(&mut [0; 64]), Err(RecvError::Empty)));
    assert!(!ready(&rx) || matches!(rx.try_recv(&mut [0; 64]), Err(RecvError::Empty)));
    assert!(!ready(&rx), "nothing is there");
    while tx.try_send(&[1; 64]).is_ok() {}
    assert!(!ready(&tx), "it is full");
    assert!(ready(&rx));
    assert!(ready(&rx), "and still, since nothing was taken");
    // A record is longer than one that was taken when the segment ends in between.
    for _ in 0..30 {
        rx.try_recv(&mut [0; 64]).expect("a message");
    }
    assert!(ready(&tx), "there is room again");
    tx.try_send(&[1; 64]).expect("room");
    while rx.try_recv(&mut [0; 64]).is_ok() {}
    assert!(!ready(&rx));

    drop(tx);
    assert!(ready(&rx), "there is an end to report");
    assert!(matches!(rx.try_recv(&mut [0; 64]), Err(RecvError::Closed)));

    let (mut tx, rx) = FileLog::pair(&small()).expect("a channel");
    while tx.try_send(&[1; 64]).is_ok() {}
    ready(&tx);
    assert!(matches!(tx.try_send(&[1; 64]), Err(SendError::Full)));
    assert!(!ready(&tx));
    drop(rx);
    wait(&tx);
    assert!(matches!(tx.try_send(&[1; 64]), Err(SendError::Closed)));
}

/// What came before anybody asked for the descriptor is seen by it too.
#[test]
fn a_message_that_was_there_first_makes_the_descriptor_ready() {
    let (mut tx, rx) = FileLog::pair(&small()).expect("a channel");
    tx.send(b"early").expect("room");
    assert!(ready(&rx));
}

/// One thread polls and takes, the other sends as fast as it can: no wake-up is lost.
#[test]
fn a_polling_receiver_misses_no_message() {
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        let options = small().wait_strategy(strategy);
        let (mut tx, mut rx) = FileLog::pair(&options).expect("a channel");
        let sending = std::thread::spawn(move || {
            for number in 0..100_000u32 {
                while let Err(error) = tx.try_send(&number.to_le_bytes()) {
                    assert!(matches!(error, SendError::Full), "{error:?}");
                    wait(&tx);
                }
            }
        });
        let (mut next, mut buffer) = (0u32, [0; 4]);
        loop {
            match rx.try_recv(&mut buffer) {
                Ok(_) => {
                    assert_eq!(u32::from_le_bytes(buffer), next);
                    next += 1;
                }
                Err(RecvError::Empty) => wait(&rx),
                Err(RecvError::Closed) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(next, 100_000);
        sending.join().expect("the sender");
    }
}

#[test]
fn a_follower_becomes_ready_for_news_and_for_the_end() {
    let scratch = Scratch::new();
    let options = Options::default().capacity(2048);
    let mut log = Log::open(scratch.path(), &options).expect("a log");
    let mut follower = Follower::open(scratch.path(), Start::Oldest, &options).expect("a follower");
    let mut buffer = [0; 64];
    let mut drain = |follower: &mut Follower| loop {
        match follower.try_recv(&mut buffer) {
            Ok(_) => {}
            Err(end) => return end,
        }
    };
    ready(&follower);
    assert!(matches!(drain(&mut follower), RecvError::Empty));
    assert!(!ready(&follower));
    log.append(b"news").expect("room");
    assert!(ready(&follower));
    assert!(matches!(drain(&mut follower), RecvError::Empty));
    assert!(!ready(&follower));
    drop(log);
    assert!(ready(&follower), "the writer is gone");
    assert!(matches!(drain(&mut follower), RecvError::Closed));

    // Another writer comes.
    let mut log = Log::open(scratch.path(), &options).expect("the log");
    assert!(matches!(drain(&mut follower), RecvError::Empty));
    log.append(b"more").expect("room");
    wait(&follower);
    follower.try_recv(&mut [0; 64]).expect("more");
}

#[test]
fn several_polling_followers_miss_no_record() {
    const COUNT: u32 = 30_000;
    fn follow(log: &Path) {
        let mut follower =
            Follower::open(log, Start::Oldest, &Options::default()).expect("a follower");
        let (mut next, mut buffer) = (0u32, [0; 4]);
        loop {
            match follower.try_recv(&mut buffer) {
                Ok(_) => {
                    assert_eq!(u32::from_le_bytes(buffer), next);
                    next += 1;
                }
                Err(RecvError::Empty) => wait(&follower),
                Err(RecvError::Closed) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(next, COUNT);
    }
    let scratch = Scratch::new();
    let options = Options::default().capacity(2048);
    let mut log = Log::open(scratch.path(), &options).expect("a log");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| follow(scratch.path()));
        }
        for number in 0..COUNT {
            log.append(&number.to_le_bytes()).expect("room");
            if number % 64 == 0 {
                std::thread::yield_now();
            }
        }
        drop(log);
    });
}

/// A follower that sleeps is woken by the first record and by the end: there is no slice of time
/// after which it would look by itself.
#[test]
fn a_sleeping_follower_wakes_for_news_and_for_the_end() {
    let scratch = Scratch::new();
    let options = Options::default()
        .capacity(2048)
        .wait_strategy(WaitStrategy::Block);
    let mut log = Log::open(scratch.path(), &options).expect("a log");
    let mut follower = Follower::open(scratch.path(), Start::End, &options).expect("a follower");
    let control = std::fs::File::options()
        .read(true)
        .write(true)
        .open(scratch.path().join("control"))
        .expect("the page");
    let announced = || {
        let patience = Wait::at_most(PATIENCE);
        let mut flag = [0; 4];
        while flag == [0; 4] {
            control.read_exact_at(&mut flag, 0).expect("the page");
            assert!(!patience.is_over(), "the follower does not sleep");
        }
    };
    std::thread::scope(|scope| {
        let (go, gone) = std::sync::mpsc::channel();
        let waiting = scope.spawn(move || {
            while let Ok(()) = gone.recv() {
                let news = follower.recv_timeout(&mut [0; 8], PATIENCE);
                assert_eq!(news.expect("it was not woken"), 4);
            }
            let begun = Instant::now();
            let ended = follower.recv_timeout(&mut [0; 8], PATIENCE);
            assert!(begun.elapsed() < PATIENCE, "the end did not wake it");
            ended
        });
        for _ in 0..200 {
            // Only the follower says that it sleeps, and it does so anew.
            control.write_all_at(&[0; 4], 0).expect("the page");
            go.send(()).expect("a follower");
            announced();
            log.append(b"news").expect("room");
        }
        drop(go);
        announced();
        drop(log);
        let ended = waiting.join().expect("a follower");
        assert!(matches!(ended, Err(RecvError::Closed)), "{ended:?}");
    });
}

/// Under a watchdog, which names the side that hangs.
async fn soon<T>(side: &str, step: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{side} hangs"),
    }
}

#[tokio::test]
async fn tasks_wait_for_messages_and_for_room() {
    let (sender, receiver) = FileLog::pair(&small()).expect("a channel");
    let mut sender = Async::new(sender).expect("a reactor");
    let mut receiver = Async::new(receiver).expect("a reactor");
    let sending = tokio::spawn(async move {
        for number in 0..50_000u32 {
            let sent = soon("the sender", sender.send(&number.to_le_bytes())).await;
            sent.expect("room");
        }
    });
    let mut buffer = [0; 4];
    for number in 0..50_000u32 {
        let received = soon("the receiver", receiver.recv(&mut buffer)).await;
        assert_eq!(received.expect("a message"), 4);
        assert_eq!(u32::from_le_bytes(buffer), number);
    }
    sending.await.expect("the sender");
    let end = soon("the receiver", receiver.recv(&mut buffer)).await;
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
}

#[tokio::test]
async fn a_task_follows_a_log() {
    let scratch = Scratch::new();
    let options = Options::default().capacity(2048);
    let mut log = Log::open(scratch.path(), &options).expect("a log");
    let follower = Follower::open(scratch.path(), Start::Oldest, &options).expect("a follower");
    let mut follower = Async::new(follower).expect("a reactor");
    let writing = tokio::spawn(async move {
        for number in 0..5_000u32 {
            log.append(&number.to_le_bytes()).expect("room");
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let mut buffer = [0; 4];
    for number in 0..5_000u32 {
        let read = soon("the follower", follower.recv(&mut buffer)).await;
        assert_eq!(read.expect("a record"), 4);
        assert_eq!(u32::from_le_bytes(buffer), number);
    }
    writing.await.expect("the writer");
    let end = soon("the follower", follower.recv(&mut buffer)).await;
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
}

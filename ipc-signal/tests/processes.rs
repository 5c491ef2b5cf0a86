//! What is peculiar to signals, between real processes.

mod common;

use std::time::Duration;

use common::{alone, this_thread};

use ipc_core::{
    Channel, Handoff, OpenError, Receiver as _, RecvError, SendError, Sender as _, Wait,
};
use ipc_process::Process;
use ipc_signal::{Options, Receiver, Sender, SignalQueue};
use rustix::process::{Resource, Rlimit, setrlimit};

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(20);

fn number(receiver: &mut Receiver) -> Result<u64, RecvError> {
    let mut message = [0; 8];
    assert_eq!(receiver.recv_timeout(&mut message, PATIENCE)?, 8);
    Ok(u64::from_ne_bytes(message))
}

/// Receives numbers until the end and gives how many; they count up from `first`.
fn count(mut receiver: Receiver, first: u64) -> u64 {
    let mut next = first;
    loop {
        match number(&mut receiver) {
            Ok(got) => assert_eq!(got, next),
            Err(RecvError::Closed) => return next - first,
            Err(error) => panic!("{error}"),
        }
        next += 1;
    }
}

#[test]
fn several_channels_at_once_keep_apart() {
    alone(|| {
        let mut ends = Vec::new();
        for offset in 0..6u8 {
            // In the test program others may use any of these: their numbers are taken in the child.
            let (sender, receiver) = SignalQueue::pair(&Options::default()).unwrap();
            let child = Process::new(count, (receiver, u64::from(offset) << 32))
                .start()
                .unwrap();
            ends.push((sender, child, u64::from(offset) << 32));
        }
        for round in 0..3000 {
            for (sender, _, first) in &mut ends {
                sender.send(&(*first + round).to_ne_bytes()).unwrap();
            }
        }
        for (sender, child, _) in ends {
            drop(sender);
            assert_eq!(child.join().unwrap(), 3000);
        }
    });
}

fn several_receivers(receivers: (Receiver, Receiver), rounds: u64) {
    let (mut a, mut b) = receivers;
    for round in 0..rounds {
        assert_eq!(number(&mut a).unwrap(), round);
        assert_eq!(number(&mut b).unwrap(), round + 1_000_000);
    }
}

#[test]
fn one_process_receives_from_several_numbers() {
    alone(|| {
        let (mut a, receiver_a) = SignalQueue::pair(&Options::default()).unwrap();
        let (mut b, receiver_b) = SignalQueue::pair(&Options::default()).unwrap();
        let receivers = (receiver_a, receiver_b);
        let child = Process::new(several_receivers, (receivers, 2000))
            .start()
            .unwrap();
        for round in 0..2000u64 {
            b.send(&(round + 1_000_000).to_ne_bytes()).unwrap();
            a.send(&round.to_ne_bytes()).unwrap();
        }
        child.join().unwrap();
    });
}

/// At a limit of eight signals: the kernel says EAGAIN before the window is full.
fn with_room_for_eight(receiver: Receiver) -> u64 {
    count(receiver, 0)
}

fn send_at_the_limit(mut sender: Sender) -> (u64, u64) {
    let mut refused = 0;
    for round in 0..2000u64 {
        if let Err(error) = sender.try_send(&round.to_ne_bytes()) {
            assert!(matches!(error, SendError::Full), "{error}");
            refused += 1;
            sender.send_timeout(&round.to_ne_bytes(), PATIENCE).unwrap();
        }
    }
    (2000, refused)
}

fn limited() -> (u64, u64) {
    let (sender, receiver) = SignalQueue::pair(&Options::default()).unwrap();
    // After the pair, whose window is made by the limit: other signals of the user stand for the
    // rest. The limit that counts is that of the receiving process.
    let eight = Rlimit {
        current: Some(8),
        maximum: Some(8),
    };
    setrlimit(Resource::Sigpending, eight).unwrap();
    let receiving = Process::new(with_room_for_eight, (receiver,))
        .start()
        .unwrap();
    let outcome = send_at_the_limit(sender);
    assert_eq!(receiving.join().unwrap(), 2000);
    outcome
}

#[test]
fn the_limit_of_the_kernel_is_back_pressure_and_loses_nothing() {
    let (sent, refused) = Process::new(limited, ()).start().unwrap().join().unwrap();
    assert_eq!(sent, 2000);
    assert!(
        refused > 0,
        "the first is sent before the receiver is ready"
    );
}

fn without_any() -> String {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Sigpending, none).unwrap();
    match SignalQueue::pair(&Options::default()) {
        Err(OpenError::Limit(limit)) => limit.name.into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn where_no_signal_may_be_queued_there_is_no_channel() {
    let refused = Process::new(without_any, ()).start().unwrap().join();
    assert_eq!(refused.unwrap(), "RLIMIT_SIGPENDING");
}

/// Sends its own process noise on the signal that the receiver has blocked here. (Where the clerk
/// receives none is blocked, and none is sent: it would be the end, whatever this library did.)
fn survive_noise(mut receiver: Receiver) -> u64 {
    let mut next = 0;
    let own = rustix::process::getpid();
    while let Ok(got) = number(&mut receiver) {
        assert_eq!(got, next);
        next += 1;
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigBlk:"))
            .unwrap();
        let blocked = u64::from_str_radix(mask.trim(), 16).unwrap();
        for raw in (34..=64).filter(|raw| blocked & (1u64 << (raw - 1)) != 0) {
            let kill = format!("kill -{raw} {}", own.as_raw_nonzero());
            let status = std::process::Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap();
            assert!(status.success());
        }
    }
    next
}

#[test]
fn signals_of_strangers_are_noise() {
    alone(|| {
        let (mut sender, receiver) = SignalQueue::pair(&Options::default()).unwrap();
        let child = Process::new(survive_noise, (receiver,)).start().unwrap();
        for round in 0..20u64 {
            sender.send(&round.to_ne_bytes()).unwrap();
        }
        drop(sender);
        assert_eq!(child.join().unwrap(), 20);
    });
}

/// In a process with a thread that blocks nothing; the receiver is opened in another such thread
/// and used here.
fn among_threads(receiver: Receiver, mut ready: Sender) -> u64 {
    let parts = receiver.into_parts().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let idle = std::thread::spawn(move || stopped.recv().is_err());
    let opened = std::thread::spawn(move || Receiver::from_parts(parts).unwrap())
        .join()
        .unwrap();
    ready.send(b"").unwrap();
    let counted = count(opened, 0);
    drop(stop);
    assert!(idle.join().unwrap());
    counted
}

#[test]
fn threads_that_do_not_block_the_signal_are_safe() {
    if this_thread().is_none() {
        return;
    }
    let (mut sender, receiver) = SignalQueue::pair(&Options::default()).unwrap();
    let (ready, mut waits) = SignalQueue::pair(&Options::default()).unwrap();
    let child = Process::new(among_threads, (receiver, ready))
        .start()
        .unwrap();
    assert_eq!(waits.recv_timeout(&mut [0; 8], PATIENCE).unwrap(), 0);
    for round in 0..5000u64 {
        sender.send(&round.to_ne_bytes()).unwrap();
    }
    drop(sender);
    assert_eq!(child.join().unwrap(), 5000);
}

#[test]
fn a_number_in_use_is_refused() {
    alone(|| {
        let options = Options::default().signal(12);
        let first = SignalQueue::pair(&options).unwrap();
        assert!(matches!(
            SignalQueue::pair(&options),
            Err(OpenError::Limit(_))
        ));
        drop(first);
        SignalQueue::pair(&options).unwrap();
        let none = Options::default().signal(200);
        assert!(matches!(
            SignalQueue::pair(&none),
            Err(OpenError::Invalid { .. })
        ));
    });
}

#[test]
fn the_window_is_what_the_options_say() {
    alone(|| {
        let (mut sender, mut receiver) = SignalQueue::pair(&Options::default().depth(8)).unwrap();
        for round in 0..8u64 {
            sender.try_send(&round.to_ne_bytes()).unwrap();
        }
        assert!(matches!(sender.try_send(b"x"), Err(SendError::Full)));
        assert_eq!(number(&mut receiver).unwrap(), 0);
        sender.send_with(b"x", Wait::at_most(PATIENCE)).unwrap();
        assert_eq!(sender.limits().depth_messages, Some(8));
    });
}

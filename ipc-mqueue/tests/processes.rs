//! Two processes and a queue: deaths at any moment, a peer that is only stopped, priorities and
//! named queues across processes.

use std::os::fd::AsRawFd as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use ipc_core::wait::poll;
use ipc_core::{
    Channel, Handoff as _, Listener as _, Name, Receiver as _, RecvError, SendError, Sender as _,
    Tunable, Wait, WaitStrategy,
};
use ipc_mqueue::{Access, MessageQueue, Options, Queue, Receiver, Sender};
use ipc_process::Process;

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(10);
/// What the contract allows between a death and its notice.
const NOTICE: Duration = Duration::from_millis(100);

fn small(strategy: WaitStrategy) -> Options {
    Options::default()
        .message_size(64)
        .depth(4)
        .wait_strategy(strategy)
}

fn pause(duration: Duration) {
    poll([], Wait::at_most(duration)).unwrap();
}

/// The number `n` in every word of a message of a length that depends on it.
fn message(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(1 + usize::try_from(n % 8).unwrap())
}

fn send_for_ever(mut tx: Sender) {
    for n in 0.. {
        tx.send(&message(n)).unwrap();
    }
}

fn receive_for_ever(mut rx: Receiver, mut ready: Sender) {
    ready.send(b"").unwrap();
    let mut buffer = [0; 64];
    while rx.recv(&mut buffer).is_ok() {}
}

/// Holds an end until it is killed.
fn hold<E>(end: E, mut ready: Sender) {
    ready.send(b"").unwrap();
    poll([], Wait::Forever).unwrap();
    drop(end);
}

#[test]
fn what_a_killed_sender_sent_arrives_whole_and_in_order_before_its_death_is_told() {
    for round in 0..60u32 {
        let strategy = [
            WaitStrategy::Block,
            WaitStrategy::Spin,
            WaitStrategy::Adaptive,
        ][round as usize % 3];
        let (tx, mut rx) = MessageQueue::pair(&small(strategy)).unwrap();
        let sender = Process::new(send_for_ever, (tx,)).start().unwrap();
        let mut buffer = [0; 64];
        let mut next = 0;
        let quota = u64::from(round * 7);
        let end = loop {
            if next == quota {
                sender.kill().unwrap();
            }
            match rx.recv_timeout(&mut buffer, PATIENCE) {
                Ok(len) => assert_eq!(buffer[..len], message(next)),
                Err(error) => break error,
            }
            next += 1;
        };
        assert!(matches!(end, RecvError::PeerDied), "{end}");
        assert!(next >= quota);
        assert!(matches!(rx.recv(&mut buffer), Err(RecvError::PeerDied)));
    }
}

#[test]
fn a_sleeping_receiver_learns_of_the_death_in_time() {
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        for delay in [0, 2, 30] {
            let (ready_tx, mut ready) = MessageQueue::pair(&small(strategy)).unwrap();
            let (tx, mut rx) = MessageQueue::pair(&small(strategy)).unwrap();
            let holder = Process::new(hold::<Sender>, (tx, ready_tx))
                .start()
                .unwrap();
            ready.recv_timeout(&mut [0; 64], PATIENCE).unwrap();
            std::thread::scope(|scope| {
                let killed = scope.spawn(|| {
                    pause(Duration::from_millis(delay));
                    holder.kill().unwrap();
                    Instant::now()
                });
                assert!(matches!(rx.recv(&mut [0; 64]), Err(RecvError::PeerDied)));
                let told = Instant::now();
                assert!(told.saturating_duration_since(killed.join().unwrap()) < NOTICE);
            });
        }
    }
}

#[test]
fn a_sender_learns_of_the_death_whether_it_sleeps_or_tries() {
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        for wait in [Wait::Forever, Wait::Never] {
            let (ready_tx, mut ready) = MessageQueue::pair(&small(strategy)).unwrap();
            let (mut tx, rx) = MessageQueue::pair(&small(strategy)).unwrap();
            let receiver = Process::new(receive_for_ever, (rx, ready_tx))
                .start()
                .unwrap();
            ready.recv_timeout(&mut [0; 64], PATIENCE).unwrap();
            for n in 0..100 {
                tx.send(&message(n)).unwrap();
            }
            receiver.kill().unwrap();
            let killed = Instant::now();
            let end = loop {
                match tx.send_with(&message(0), wait) {
                    Ok(()) | Err(SendError::Full) => assert!(killed.elapsed() < NOTICE),
                    Err(error) => break error,
                }
            };
            assert!(matches!(end, SendError::PeerDied), "{end}");
            assert!(killed.elapsed() < NOTICE);
            assert!(matches!(tx.try_send(b""), Err(SendError::PeerDied)));
        }
    }
}

#[test]
fn a_stopped_sender_is_alive() {
    let (tx, mut rx) = MessageQueue::pair(&small(WaitStrategy::Adaptive)).unwrap();
    let sender = Process::new(send_for_ever, (tx,)).start().unwrap();
    let mut buffer = [0; 64];
    rx.recv_timeout(&mut buffer, PATIENCE).unwrap();
    sender
        .signal(rustix::process::Signal::STOP.as_raw())
        .unwrap();
    // What it had committed, and then nothing.
    let end = loop {
        match rx.recv_timeout(&mut buffer, Duration::from_millis(50)) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end, RecvError::TimedOut), "{end}");
    sender
        .signal(rustix::process::Signal::CONT.as_raw())
        .unwrap();
    rx.recv_timeout(&mut buffer, PATIENCE).unwrap();
    sender.kill().unwrap();
}

#[test]
fn a_kept_message_and_priorities_reach_the_next_process() {
    fn take_over(mut rx: Receiver) -> Vec<(Vec<u8>, u32)> {
        let mut buffer = [0; 64];
        let mut taken = Vec::new();
        while let Ok(got) = rx.recv_with_priority(&mut buffer, Wait::Forever) {
            taken.push((buffer[..got.len].to_vec(), got.priority));
        }
        taken
    }
    let (mut tx, mut rx) = MessageQueue::pair(&small(WaitStrategy::Block)).unwrap();
    tx.send_with_priority(b"kept", 2, Wait::Never).unwrap();
    assert!(matches!(
        rx.try_recv(&mut []),
        Err(RecvError::BufferTooSmall { needed: 4 })
    ));
    tx.send_with_priority(b"", 0, Wait::Never).unwrap();
    tx.send_with_priority(b"first in the queue", 3, Wait::Never)
        .unwrap();
    drop(tx);
    let process = Process::new(take_over, (rx,)).start().unwrap();
    let expected = [(&b"kept"[..], 2), (b"first in the queue", 3), (b"", 0)];
    assert_eq!(
        process.join().unwrap(),
        expected.map(|(bytes, prio)| (bytes.to_vec(), prio))
    );
}

#[test]
fn a_name_is_free_again_after_a_listener_was_killed() {
    fn listen(name: String, mut ready: Sender) {
        let name: Name = name.parse().unwrap();
        let mut listener = MessageQueue::listen(&name, &Options::default()).unwrap();
        ready.send(b"").unwrap();
        let mut rx = listener.accept(Wait::at_most(PATIENCE)).unwrap();
        let mut buffer = [0; 64];
        while rx.recv(&mut buffer).is_ok() {}
        poll([], Wait::Forever).unwrap();
    }
    let word = format!("mqueue-test-{}", std::process::id());
    let name: Name = word.parse().unwrap();
    for _ in 0..5 {
        let options = small(WaitStrategy::Adaptive);
        let (ready_tx, mut ready) = MessageQueue::pair(&options).unwrap();
        let listener = Process::new(listen, (word.clone(), ready_tx))
            .start()
            .unwrap();
        ready.recv_timeout(&mut [0; 64], PATIENCE).unwrap();
        let mut tx = MessageQueue::connect(&name, &options, Wait::at_most(PATIENCE)).unwrap();
        tx.send(b"hello").unwrap();
        listener.kill().unwrap();
        let killed: Option<ExitStatus> = listener.wait_timeout(PATIENCE).unwrap();
        assert!(killed.is_some());
        let end = loop {
            if let Err(error) = tx.send(b"are you there") {
                break error;
            }
        };
        assert!(matches!(end, SendError::PeerDied), "{end}");
    }
    // The last one's socket file stands until somebody listens again.
    drop(MessageQueue::listen(&name, &Options::default()).unwrap());
}

#[test]
fn a_named_queue_is_shared_by_processes_that_know_only_its_name() {
    fn double(name: String) {
        let mut queue = Queue::open_named(&name, Access::Receive).unwrap();
        let mut back = Queue::open_named(&format!("{name}-back"), Access::Send).unwrap();
        let mut buffer = [0; 64];
        for _ in 0..20 {
            let got = queue.recv_with(&mut buffer, Wait::Forever).unwrap();
            let answer = buffer[..got.len].repeat(2);
            back.send_with(&answer, got.priority, Wait::Forever)
                .unwrap();
        }
    }
    struct Unlink(String);
    impl Drop for Unlink {
        fn drop(&mut self) {
            let _ = Queue::unlink(&self.0);
        }
    }
    let name = format!("/ipc-processes-{}", std::process::id());
    let names = [Unlink(name.clone()), Unlink(format!("{name}-back"))];
    let options = small(WaitStrategy::Block);
    let mut there = Queue::create_named(&names[0].0, Access::Send, &options).unwrap();
    let mut back = Queue::create_named(&names[1].0, Access::Receive, &options).unwrap();
    let process = Process::new(double, (name,)).start().unwrap();
    let mut buffer = [0; 64];
    for n in 0..20u8 {
        there
            .send_with(&[n], n.into(), Wait::at_most(PATIENCE))
            .unwrap();
        let got = back
            .recv_with(&mut buffer, Wait::at_most(PATIENCE))
            .unwrap();
        assert_eq!((&buffer[..got.len], got.priority), (&[n, n][..], n.into()));
    }
    process.join().unwrap();
}

/// There the number of the new queue is that of another in the process's table.
#[test]
fn a_thread_with_a_table_of_descriptors_of_its_own_makes_queues_of_its_own() {
    fn body() {
        let options = small(WaitStrategy::Block);
        let (mut tx, other) = MessageQueue::pair(&options).unwrap();
        tx.try_send(b"for the other").unwrap();
        let taken = other.to_parts().unwrap();
        let number = taken.descriptors[0].as_raw_fd();
        std::thread::spawn(move || {
            if let Err(error) = own_table_up_to(number) {
                eprintln!("not tried: {error}");
                return;
            }
            // The lowest number that is free is given next.
            while let file = std::fs::File::open("/dev/null").unwrap()
                && file.as_raw_fd() != number
            {
                std::mem::forget(file);
            }
            let (mut tx, mut rx) = MessageQueue::pair(&options).unwrap();
            let mut buffer = [0; 64];
            tx.try_send(b"mine").unwrap();
            let len = rx.try_recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"mine");
        })
        .join()
        .unwrap();
    }
    Process::new(body, ()).start().unwrap().join().unwrap();
}

/// Gives the calling thread a table with the descriptors below `number`.
fn own_table_up_to(number: i32) -> std::io::Result<()> {
    let first = libc::c_uint::try_from(number).unwrap();
    let (last, flag) = (libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE);
    #[expect(unsafe_code, reason = "rustix has no close_range")]
    // SAFETY: nothing in this thread refers to what is closed in its table.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flag) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

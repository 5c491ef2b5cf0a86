//! The thread that ends a sleep inside the queue: no sleeper is forgotten, no message is lost to it
//! or made up by it, and it keeps to itself.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use ipc_core::lifeline::Lifeline;
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{
    Channel, Handoff, Receiver as _, RecvError, SendError, Sender as _, Tunable, Wait, WaitStrategy,
};
use ipc_mqueue::{MessageQueue, Options, Receiver, Sender};
use ipc_process::Process;

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(10);
const DEPTH: usize = 4;

fn blocking() -> (Sender, Receiver) {
    let options = Options::default()
        .message_size(64)
        .depth(DEPTH)
        .wait_strategy(WaitStrategy::Block);
    MessageQueue::pair(&options).unwrap()
}

/// The number `n` in every word of a message of a length that depends on it; now and then empty.
fn message(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(usize::try_from(n % 8).unwrap())
}

/// What `/proc` has of a thread of this process by the name of the sentinel's.
fn of_sentinel(what: &str) -> std::path::PathBuf {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap() == "ipc-mqueue\n")
        .expect("it was started")
        .join(what)
}

/// What the descriptors of a table are of, such as `socket:[4711]`.
fn table(directory: impl AsRef<Path>) -> Vec<(i32, String)> {
    let number = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    std::fs::read_dir(directory)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let target = std::fs::read_link(&path).ok()?.display().to_string();
            Some((number(&path)?, target))
        })
        // That of this very listing.
        .filter(|(_, target)| !target.starts_with("/proc/"))
        .collect()
}

/// The sleep inside the queue is deaf to the lifeline: the sentinel must end it whenever the peer
/// goes, before the sleep, at its beginning, or with the queue full or empty.
#[test]
fn no_end_sleeps_on_when_its_peer_goes_at_any_moment() {
    for round in 0..400u32 {
        let (mut tx, mut rx) = blocking();
        let committed = u64::from(round % 5);
        for n in 0..committed.min(4) {
            tx.try_send(&message(n)).unwrap();
        }
        let spin = move || (0..round * 50).for_each(|_| std::hint::spin_loop());
        std::thread::scope(|scope| {
            if round % 2 == 0 {
                scope.spawn(move || {
                    spin();
                    drop(tx);
                });
                let mut buffer = [0; 64];
                let mut received = 0;
                let end = loop {
                    match rx.recv(&mut buffer) {
                        Ok(len) => assert_eq!(buffer[..len], message(received)),
                        Err(error) => break error,
                    }
                    received += 1;
                };
                assert!(matches!(end, RecvError::Closed), "{end}");
                assert_eq!(received, committed.min(4));
            } else {
                scope.spawn(move || {
                    spin();
                    drop(rx);
                });
                let end = loop {
                    if let Err(error) = tx.send(b"x") {
                        break error;
                    }
                };
                assert!(matches!(end, SendError::Closed), "{end}");
            }
        });
    }
}

#[test]
fn the_sentinel_receives_no_signals_and_leaves_with_no_descriptor_of_an_end() {
    fn body(round_trips: u32) {
        for _ in 0..round_trips {
            let (tx, mut rx) = blocking();
            std::thread::scope(|scope| {
                scope.spawn(move || drop(tx));
                assert!(matches!(rx.recv(&mut [0; 64]), Err(RecvError::Closed)));
            });
        }
    }
    fn blocked() -> u64 {
        let status = std::fs::read_to_string(of_sentinel("status")).unwrap();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigBlk:"))
            .unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }
    fn alone() -> (u64, bool) {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        body(1);
        let before = open();
        body(200);
        (blocked(), open() == before)
    }
    let (mask, steady) = Process::new(alone, ()).start().unwrap().join().unwrap();
    assert!(steady, "a descriptor is left");
    // All but SIGKILL, SIGSTOP and the two that the C library keeps to itself.
    let blockable = !(1 << 8) & !(1 << 18) & !(0b11 << 31);
    assert_eq!(mask & blockable, blockable);
}

/// Of its own it has what it watches and a few more; of the process's not one. While two threads
/// share a table every call on a queue costs the kernel two atomic operations more.
#[test]
fn the_sentinel_has_a_table_of_descriptors_of_its_own() {
    fn body() -> Result<(), String> {
        let (mut tx, mut rx) = blocking();
        let before = table("/proc/self/fd").len();
        tx.send(b"starts it").unwrap();
        rx.recv(&mut [0; 64]).unwrap();
        let added = table("/proc/self/fd").len() - before;
        if added != 1 {
            return Err(format!("{added} descriptors more in the process"));
        }
        let theirs = table(of_sentinel("fd"));
        // Two ends by their lifelines and the other sides of their queue, the socket by which they
        // came and what keeps the standard streams' numbers, and the epoll instance.
        if theirs.len() > 9 {
            return Err(format!("too much: {theirs:?}"));
        }
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        let ours = std::fs::read_link(format!("/proc/self/fd/{}", number(&pipe))).unwrap();
        let shared = table(of_sentinel("fd"))
            .into_iter()
            .find(|(_, target)| Path::new(target) == ours);
        shared.map_or(Ok(()), |shared| Err(format!("{shared:?} is the process's")))
    }
    let outcome = Process::new(body, ()).start().unwrap().join().unwrap();
    outcome.unwrap();
}

fn number(descriptor: &impl AsFd) -> i32 {
    use std::os::fd::AsRawFd;
    descriptor.as_fd().as_raw_fd()
}

/// As programs do that close all that they do not know of: what was watched before is so after. The
/// numbers that become free go to sockets, which take anything and answer nothing.
#[test]
fn closing_what_the_sentinel_has_in_the_process_leaves_no_sleeper_alone() {
    fn body() {
        let before = table("/proc/self/fd").len();
        let (mut tx, mut rx) = blocking();
        let ends: BTreeSet<_> = table("/proc/self/fd").into_iter().collect();
        tx.send(b"watched from now on").unwrap();
        rx.recv(&mut [0; 64]).unwrap();
        let added: Vec<_> = table("/proc/self/fd")
            .into_iter()
            .filter(|descriptor| !ends.contains(descriptor))
            .collect();
        assert!(ends.len() > before && !added.is_empty());
        for _ in 0..DEPTH {
            tx.try_send(b"x").unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(move || {
                pause(Duration::from_millis(20));
                for (number, _) in added {
                    #[expect(unsafe_code, reason = "to close what belongs to another")]
                    // SAFETY: the library is to survive just that, and no memory hangs on it.
                    unsafe {
                        libc::close(number)
                    };
                }
                let sockets: Vec<_> = (0..4).map(|_| Lifeline::pair().unwrap()).collect();
                pause(Duration::from_millis(20));
                drop(rx);
                drop(sockets);
            });
            let sent = tx.send(b"there is no room");
            assert!(matches!(sent, Err(SendError::Closed)), "{sent:?}");
            drop(tx);
        });
    }
    let process = Process::new(body, ()).start().unwrap();
    let ended = process.wait_timeout(PATIENCE).unwrap();
    assert!(ended.is_some(), "a sleeper was forgotten");
    process.join().unwrap();
}

fn pause(duration: Duration) {
    poll([], Wait::at_most(duration)).unwrap();
}

/// ENOSYS is what kernels before Linux 5.9 say, EPERM what a sandbox may. The sentinel then shares the
/// process's table.
#[test]
fn where_no_table_of_its_own_is_to_be_had_the_sentinel_wakes_all_the_same() {
    fn body(errno: i32) -> bool {
        refuse_close_range(errno);
        let (mut tx, mut rx) = blocking();
        tx.send(b"watched from now on").unwrap();
        rx.recv(&mut [0; 64]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                pause(Duration::from_millis(20));
                drop(tx);
            });
            assert!(matches!(rx.recv(&mut [0; 64]), Err(RecvError::Closed)));
        });
        let shared: BTreeSet<_> = table("/proc/self/fd").into_iter().collect();
        shared == table(of_sentinel("fd")).into_iter().collect()
    }
    for errno in [libc::ENOSYS, libc::EPERM] {
        let process = Process::new(body, (errno,)).start().unwrap();
        assert!(process.join().unwrap(), "there was one to be had");
    }
}

/// From now on `close_range(2)` fails in this process.
fn refuse_close_range(errno: i32) {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let number = u32::try_from(libc::SYS_close_range).unwrap();
    let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap();
    let mut steps = [
        // The number of the call is the first word of `seccomp_data` (seccomp(2)).
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, refused, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    rustix::thread::set_no_new_privs(true).unwrap();
    #[expect(unsafe_code, reason = "rustix has no seccomp")]
    // SAFETY: the kernel copies the program, which is there until the call returns.
    let refused = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(refused, 0, "{}", std::io::Error::last_os_error());
}

/// The sender's thread runs only when no other wants to, on the one processor that all have. So the
/// receiver has the message, says farewell, and the sentinel has seen it, before `send` returns.
#[test]
fn a_message_that_its_receiver_took_was_sent_though_the_receiver_is_gone_by_then() {
    fn body() -> Result<(), String> {
        on_one_processor();
        let (give, take) = mpsc::channel::<Sender>();
        let (say, hear) = mpsc::channel();
        std::thread::spawn(move || {
            run_when_nobody_else_does();
            for mut tx in take {
                say.send(tx.send(b"taken")).unwrap();
            }
        });
        for _ in 0..50 {
            let (tx, mut rx) = blocking();
            let receiver = std::thread::spawn(move || rx.recv(&mut [0; 64]).unwrap());
            give.send(tx).unwrap();
            let sent = hear.recv().unwrap();
            sent.map_err(|error: SendError| error.to_string())?;
            receiver.join().unwrap();
        }
        Ok(())
    }
    let outcome = Process::new(body, ()).start().unwrap().join().unwrap();
    outcome.unwrap();
}

fn on_one_processor() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu));
    let mut one = CpuSet::new();
    one.set(first.unwrap());
    sched_setaffinity(None, &one).unwrap();
}

fn run_when_nobody_else_does() {
    let parameters = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "rustix has no scheduling policies")]
    // SAFETY: of the calling thread, and the parameters are read during the call.
    let refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    assert_eq!(refused, 0, "{}", std::io::Error::last_os_error());
}

/// What the sentinel puts into a receiver's queue is an empty message, and the sender's own last may
/// be empty too.
#[test]
fn empty_messages_are_counted_exactly_when_the_sender_goes_at_any_moment() {
    // A buffer for the longest message is filled without a look at priorities.
    for len in [64, 8] {
        for round in 0..300u32 {
            let (mut tx, mut rx) = blocking();
            let count = u64::from(round % 3);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    for _ in 0..count {
                        tx.send(b"").unwrap();
                        (0..round * 20).for_each(|_| std::hint::spin_loop());
                    }
                });
                let mut buffer = vec![0; len];
                let mut received = 0;
                let end = loop {
                    match rx.recv(&mut buffer) {
                        Ok(len) => assert_eq!(len, 0),
                        Err(error) => break error,
                    }
                    received += 1;
                };
                assert!(matches!(end, RecvError::Closed), "{end}");
                assert_eq!(received, count);
            });
        }
    }
}

#[test]
fn what_the_sentinel_put_into_a_queue_is_no_message_to_who_takes_the_receiver_over() {
    for last in [None, Some(&b""[..]), Some(b"last")] {
        let (mut tx, mut rx) = blocking();
        tx.send(b"x").unwrap();
        rx.recv(&mut [0; 64]).unwrap();
        if let Some(last) = last {
            tx.send(last).unwrap();
        }
        drop(tx);
        let parts = rx.to_parts().unwrap();
        rx.release();
        let rung = poll(
            [(parts.descriptors[0].as_fd(), Interest::Read)],
            Wait::at_most(PATIENCE),
        );
        assert_eq!(rung, Ok(Polled::Ready));
        drop(rx);
        let mut rx = Receiver::from_parts(parts).unwrap();
        let mut buffer = [0; 64];
        if let Some(last) = last {
            let len = rx.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], last);
        }
        for _ in 0..2 {
            assert!(matches!(rx.recv(&mut buffer), Err(RecvError::Closed)));
        }
    }
}

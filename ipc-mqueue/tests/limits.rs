//! The kernel's limits, each reported by name with its value. Where a test lowers a limit, it does
//! so in a process of its own.

use ipc_core::{Channel, Limit, OpenError, Receiver as _, SendError, Sender as _, Wait};
use ipc_mqueue::{MessageQueue, Options, Queue};
use ipc_process::Process;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

ipc_process::test_support!();

fn small() -> Options {
    Options::default().message_size(16).depth(1)
}

fn limit(outcome: Result<impl Sized, OpenError>) -> Limit {
    match outcome {
        Err(OpenError::Limit(limit)) => limit,
        Err(other) => panic!("not a limit: {other}"),
        Ok(_) => panic!("no limit"),
    }
}

fn sysctl(name: &str) -> u64 {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(path)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn lower(resource: Resource, to: u64) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(
        resource,
        Rlimit {
            current: Some(to),
            maximum,
        },
    )
    .unwrap();
}

#[test]
fn the_defaults_are_within_the_limits_of_this_system() {
    let (mut tx, mut rx) = MessageQueue::pair(&Options::default()).unwrap();
    let limits = tx.limits();
    assert_eq!(limits, rx.limits());
    let expected = usize::try_from(sysctl("fs.mqueue.msgsize_max").min(4096)).unwrap();
    assert_eq!(limits.max_message, expected);
    let depth = usize::try_from(sysctl("fs.mqueue.msg_max").min(10)).unwrap();
    assert_eq!(limits.depth_messages, Some(depth));

    let longest = vec![7; limits.max_message];
    for _ in 0..depth {
        tx.try_send(&longest).unwrap();
    }
    assert!(matches!(tx.try_send(&longest), Err(SendError::Full)));
    let mut message = Vec::new();
    rx.recv_vec(&mut message, Wait::Never).unwrap();
    assert!(message == longest);
}

#[test]
fn what_is_asked_for_is_had_and_never_clamped() {
    let (tx, _rx) = MessageQueue::pair(&Options::default().message_size(33).depth(3)).unwrap();
    assert_eq!(
        (tx.limits().max_message, tx.limits().depth_messages),
        (33, Some(3))
    );
}

/// Beyond what even CAP_SYS_RESOURCE opens: 65,536 messages and 16 MiB (`mq_overview(7)`).
#[test]
fn a_queue_too_deep_or_too_wide_is_a_limit_with_the_name_of_the_setting() {
    let deep = limit(MessageQueue::pair(&small().depth(65_537)));
    assert_eq!(deep.name, "fs.mqueue.msg_max");
    assert_eq!(deep.value, Some(sysctl(deep.name)));
    let wide = limit(MessageQueue::pair(&small().message_size((16 << 20) + 1)));
    assert_eq!(wide.name, "fs.mqueue.msgsize_max");
    assert_eq!(wide.value, Some(sysctl(wide.name)));
    assert!(wide.to_string().contains("fs.mqueue.msgsize_max"));

    let huge = small().depth(usize::MAX >> 1).message_size(usize::MAX >> 1);
    assert!(matches!(
        MessageQueue::pair(&huge),
        Err(OpenError::Limit(_))
    ));
    for nothing in [
        small().depth(0),
        small().message_size(0),
        small().depth(0).message_size(0),
    ] {
        assert!(matches!(
            MessageQueue::pair(&nothing),
            Err(OpenError::Invalid { .. })
        ));
        let named = Queue::create_named("/ipc-never", ipc_mqueue::Access::Both, &nothing);
        assert!(matches!(named, Err(OpenError::Invalid { .. })));
    }
}

/// Whether this process is above the settings, mq_overview(7).
fn is_privileged() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & CAP_SYS_RESOURCE != 0
}

#[test]
fn one_more_than_the_setting_allows_is_refused_unless_privileged() {
    let max = sysctl("fs.mqueue.msg_max");
    let outcome = MessageQueue::pair(&small().depth(usize::try_from(max).unwrap() + 1));
    if is_privileged() {
        outcome.unwrap();
    } else {
        assert_eq!(limit(outcome).name, "fs.mqueue.msg_max");
    }
}

#[test]
fn a_user_without_bytes_for_queues_is_told_so() {
    fn body() {
        lower(Resource::Msgqueue, 0);
        let limit = limit(MessageQueue::pair(&small()));
        assert_eq!((limit.name, limit.value), ("RLIMIT_MSGQUEUE", Some(0)));
    }
    Process::new(body, ()).start().unwrap().join().unwrap();
}

#[test]
fn the_bytes_of_closed_queues_can_be_used_again() {
    const BYTES: u64 = 60_000;
    /// As many queues of 16 KiB and a little as fit beside those of this user's other processes.
    fn fill() -> usize {
        let mut queues = Vec::new();
        loop {
            match MessageQueue::pair(&Options::default().message_size(4096).depth(4)) {
                Ok(pair) => queues.push(pair),
                refused => {
                    let limit = limit(refused);
                    assert_eq!((limit.name, limit.value), ("RLIMIT_MSGQUEUE", Some(BYTES)));
                    return queues.len();
                }
            }
        }
    }
    fn body() {
        lower(Resource::Msgqueue, BYTES);
        for _ in 0..20 {
            assert!(fill() <= 3);
        }
    }
    Process::new(body, ()).start().unwrap().join().unwrap();
}

#[test]
fn a_process_without_descriptors_is_told_so_and_loses_none() {
    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }
    fn body() {
        let before = open_descriptors();
        let usual = getrlimit(Resource::Nofile).current.unwrap();
        let mut refusals = 0;
        for allowed in 0..40 {
            lower(Resource::Nofile, allowed);
            let outcome = MessageQueue::pair(&small());
            lower(Resource::Nofile, usual);
            match outcome {
                Ok(ends) => drop(ends),
                refused => {
                    let limit = limit(refused);
                    assert_eq!((limit.name, limit.value), ("RLIMIT_NOFILE", Some(allowed)));
                    refusals += 1;
                }
            }
            assert_eq!(open_descriptors(), before);
        }
        assert!((1..40).contains(&refusals), "{refusals} refusals");
    }
    Process::new(body, ()).start().unwrap().join().unwrap();
}

/// In an IPC namespace of its own, lest others on this machine feel it.
#[test]
fn one_queue_too_many_is_a_limit_with_the_name_of_the_setting() {
    #[expect(unsafe_code, reason = "rustix marks every use of unshare unsafe")]
    fn own_namespace() -> Result<(), Errno> {
        use rustix::thread::{UnshareFlags, unshare_unsafe};
        // Root of a user namespace is not above the setting.
        // SAFETY: neither flag touches the table of descriptors, which is what the warning is of.
        unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWIPC) }.or_else(|error| {
            if is_privileged() {
                return Err(error);
            }
            // SAFETY: as above.
            unsafe { unshare_unsafe(UnshareFlags::NEWIPC) }
        })
    }
    fn body() {
        if let Err(error) = own_namespace() {
            eprintln!("not tried: no IPC namespace whose setting binds is to be had ({error})");
            return;
        }
        // The soft limit of descriptors is often 1024: three a queue.
        lower(
            Resource::Nofile,
            getrlimit(Resource::Nofile).maximum.unwrap_or(4096),
        );
        let queues_max = sysctl("fs.mqueue.queues_max");
        let mut queues = Vec::new();
        let options = Options::default().message_size(1).depth(1);
        let refused = loop {
            match MessageQueue::pair(&options) {
                Ok(pair) => queues.push(pair),
                refused => break limit(refused),
            }
        };
        // Beside other work of this user the bytes may run out first.
        if refused.name != "RLIMIT_MSGQUEUE" {
            assert_eq!(
                (refused.name, refused.value),
                ("fs.mqueue.queues_max", Some(queues_max))
            );
            assert_eq!(queues.len() as u64, queues_max);
        }
    }
    Process::new(body, ()).start().unwrap().join().unwrap();
}

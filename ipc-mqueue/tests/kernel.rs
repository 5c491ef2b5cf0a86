//! What this crate relies on in the kernel's message queues, asked of bare `posixmq`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use ipc_core::Wait;
use ipc_core::lifeline::Lifeline;
use posixmq::{OpenOptions, PosixMq};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

const SIZE: usize = 32;
const DEPTH: usize = 2;

/// A queue whose name is gone already, and the name.
fn queue(case: &str) -> (PosixMq, String) {
    let name = format!("/ipc-kernel-{}-{case}", std::process::id());
    let mut options = OpenOptions::readwrite();
    let mq = options
        .max_msg_len(SIZE)
        .capacity(DEPTH)
        .create_new()
        .open(&name);
    let mq = mq.expect("a small queue fits every limit");
    posixmq::remove_queue(&name).expect("it was just made");
    (mq, name)
}

fn errno<T>(outcome: io::Result<T>) -> Option<Errno> {
    outcome.err().and_then(|error| Errno::from_io_error(&error))
}

#[expect(unsafe_code, reason = "posixmq lends no BorrowedFd")]
fn events(mq: &PosixMq) -> PollFlags {
    // SAFETY: `mq` keeps the descriptor open during this call.
    let fd = unsafe { BorrowedFd::borrow_raw(mq.as_raw_fd()) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN | PollFlags::OUT)];
    rustix::event::poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .expect("poll");
    fds[0].revents()
}

#[expect(unsafe_code, reason = "posixmq takes no OwnedFd")]
fn from_owned(fd: OwnedFd) -> PosixMq {
    // SAFETY: the descriptor is open and gets exactly one new owner.
    unsafe { PosixMq::from_raw_fd(fd.into_raw_fd()) }
}

#[test]
fn a_buffer_below_the_queues_message_size_is_refused_whatever_the_message() {
    let (mq, _) = queue("emsgsize");
    mq.send(0, b"x").unwrap();
    assert_eq!(errno(mq.recv(&mut [0; SIZE - 1])), Some(Errno::MSGSIZE));
    assert_eq!(mq.recv(&mut [0; SIZE]).unwrap(), (0, 1));
}

#[test]
fn a_message_of_no_bytes_is_a_message() {
    let (mq, _) = queue("empty");
    mq.send(0, b"").unwrap();
    assert_eq!(mq.attributes().unwrap().current_messages, 1);
    assert_eq!(mq.recv(&mut [0; SIZE]).unwrap(), (0, 0));
}

#[test]
fn a_higher_priority_overtakes_and_equal_ones_keep_their_order() {
    let (mq, _) = queue("priority");
    mq.send(1, b"a").unwrap();
    mq.send(32_767, b"b").unwrap();
    let mut buffer = [0; SIZE];
    assert_eq!(mq.recv(&mut buffer).unwrap(), (32_767, 1));
    mq.send(1, b"c").unwrap();
    assert_eq!((mq.recv(&mut buffer).unwrap(), buffer[0]), ((1, 1), b'a'));
    assert_eq!((mq.recv(&mut buffer).unwrap(), buffer[0]), ((1, 1), b'c'));
    assert_eq!(errno(mq.send(32_768, b"d")), Some(Errno::INVAL));
}

#[test]
fn a_deadline_at_the_epoch_never_sleeps_but_takes_what_is_there() {
    let (mq, _) = queue("epoch");
    let long_ago = SystemTime::UNIX_EPOCH;
    let started = Instant::now();
    assert_eq!(
        errno(mq.recv_deadline(&mut [0; SIZE], long_ago)),
        Some(Errno::TIMEDOUT)
    );
    for _ in 0..DEPTH {
        mq.send_deadline(0, b"x", long_ago).unwrap();
    }
    assert_eq!(
        errno(mq.send_deadline(0, b"x", long_ago)),
        Some(Errno::TIMEDOUT)
    );
    assert_eq!(mq.recv_deadline(&mut [0; SIZE], long_ago).unwrap(), (0, 1));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn no_hang_up_ever_comes_from_a_queue() {
    let (mq, name) = queue("hangup");
    let other = mq.try_clone().unwrap();
    drop(other);
    assert_eq!(events(&mq), PollFlags::OUT);
    assert_eq!(errno(PosixMq::open(&name)), Some(Errno::NOENT));
    for _ in 0..DEPTH {
        mq.send(0, b"x").unwrap();
    }
    assert_eq!(events(&mq), PollFlags::IN);
}

#[test]
fn an_unlinked_queue_lives_on_for_its_holders_alone() {
    let (mq, name) = queue("unlinked");
    mq.send(0, b"x").unwrap();
    assert_eq!(errno(PosixMq::open(&name)), Some(Errno::NOENT));
    assert_eq!(mq.recv(&mut [0; SIZE]).unwrap(), (0, 1));
}

#[test]
fn a_queue_is_close_on_exec_from_the_start() {
    let (mq, _) = queue("cloexec");
    assert!(mq.is_cloexec().unwrap());
}

#[test]
fn proc_gives_the_same_queue_with_less_access_though_no_name_is_left() {
    let (mq, _) = queue("reopen");
    let path = format!("/proc/self/fd/{}", mq.as_raw_fd());
    let reader = from_owned(File::open(path).unwrap().into());
    mq.send(0, b"x").unwrap();
    assert_eq!(reader.recv(&mut [0; SIZE]).unwrap(), (0, 1));
    assert_eq!(errno(reader.send(0, b"x")), Some(Errno::BADF));
}

#[test]
fn attributes_tell_a_queue_from_everything_else() {
    let file = from_owned(File::open("/dev/null").unwrap().into());
    assert_eq!(errno(file.attributes()), Some(Errno::BADF));
}

#[test]
fn a_queue_travels_through_a_unix_socket() {
    let (mq, _) = queue("rights");
    let (near, far) = Lifeline::pair().unwrap();
    mq.send(3, b"through").unwrap();
    #[expect(unsafe_code, reason = "posixmq gives no OwnedFd")]
    // SAFETY: `into_raw_fd` gives the descriptor away open.
    let fd = unsafe { OwnedFd::from_raw_fd(mq.into_raw_fd()) };
    let parts = ipc_core::Parts {
        descriptors: vec![fd],
        data: Vec::new(),
    };
    near.send_parts(&parts, Wait::Never).unwrap();
    drop(parts);
    let mut arrived = far.recv_parts(Wait::Never).unwrap().descriptors;
    let mq = from_owned(arrived.pop().unwrap());
    assert_eq!(mq.recv(&mut [0; SIZE]).unwrap(), (3, 7));
}

#[test]
fn a_registration_for_notice_ends_with_any_duplicate_of_the_descriptor() {
    let (mq, _) = queue("notify");
    let register = || {
        #[expect(unsafe_code, reason = "neither posixmq nor rustix has mq_notify")]
        // SAFETY: a `sigevent` is plain data, of integers and a pointer that nobody follows.
        let mut event = unsafe { std::mem::zeroed::<libc::sigevent>() };
        event.sigev_notify = libc::SIGEV_NONE;
        #[expect(unsafe_code, reason = "as above")]
        // SAFETY: the event is read during the call, and no pointer to it is kept.
        let refused = unsafe { libc::mq_notify(mq.as_raw_fd(), &raw const event) };
        match refused {
            0 => None,
            _ => errno::<()>(Err(io::Error::last_os_error())),
        }
    };
    assert_eq!(register(), None);
    assert_eq!(register(), Some(Errno::BUSY));
    drop(mq.try_clone().unwrap());
    assert_eq!(register(), None);
}

//! Descriptors that travel with messages, and none that stays behind.

mod common;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::receiver_of;
use ipc_core::{
    Channel, Handoff, Receiver as _, RecvError, SendError, Sender as _, Tunable, Wait, WaitStrategy,
};
use ipc_process::Process;
use ipc_socket::{Options, Receiver, Socket};

ipc_process::test_support!();

/// Long enough that only a hang exceeds it.
const PATIENCE: Duration = Duration::from_secs(10);

fn patience() -> Wait {
    Wait::at_most(PATIENCE)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn write_into(mut rx: Receiver) {
    let mut files = Vec::new();
    let len = rx
        .recv_with_descriptors(&mut [0; 64], &mut files, patience())
        .unwrap();
    assert_eq!((len, files.len()), (10, 2));
    for (number, file) in files.into_iter().enumerate() {
        assert!(
            rustix::io::fcntl_getfd(&file)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        write!(File::from(file), "file {number}").unwrap();
    }
}

#[test]
fn descriptors_travel_with_their_message() {
    let options = Options::default().descriptors(true);
    let (mut tx, rx) = Socket::pair(&options).unwrap();
    let files = [0; 2].map(|_| File::from(rustix::fs::memfd_create("f", MEMFD).unwrap()));
    let child = Process::new(write_into, (rx,)).start().unwrap();
    let rights = files.each_ref().map(AsFd::as_fd);
    tx.send_with_descriptors(b"two files.", &rights, patience())
        .unwrap();
    child.join().unwrap();
    for (number, mut file) in files.into_iter().enumerate() {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("file {number}"));
    }
}

const MEMFD: rustix::fs::MemfdFlags = rustix::fs::MemfdFlags::CLOEXEC;

/// In a process of its own, because it counts and limits the descriptors of the whole process.
fn no_descriptor_leaks() {
    let options = Options::default()
        .descriptors(true)
        .wait_strategy(WaitStrategy::Block);
    let (mut tx, mut rx) = Socket::pair(&options).unwrap();
    let file = rustix::fs::memfd_create("f", MEMFD).unwrap();
    let rights = [file.as_fd(); 253];
    let before = open_descriptors();
    let mut received = Vec::new();
    let mut buffer = vec![0; 32 << 10];

    // Mixed with messages before and after; taken, not taken, handed off while they wait.
    for count in [0, 1, 7, 253] {
        tx.send(b"before").unwrap();
        tx.send_with_descriptors(&[1; 32_763], &rights[..count], patience())
            .unwrap();
        tx.send_with_descriptors(b"", &rights[..1], patience())
            .unwrap();
        tx.send(b"after").unwrap();
        assert_eq!(rx.recv(&mut buffer).unwrap(), 6);
        assert!(matches!(
            rx.recv(&mut []),
            Err(RecvError::BufferTooSmall { needed: 32_763 })
        ));
        rx = Receiver::from_parts(rx.into_parts().unwrap()).unwrap();
        let len = rx
            .recv_with_descriptors(&mut buffer, &mut received, patience())
            .unwrap();
        assert_eq!((len, received.len()), (32_763, count));
        received.clear();
        assert_eq!(rx.recv(&mut buffer).unwrap(), 0);
        assert_eq!(rx.recv(&mut buffer).unwrap(), 5);
        assert_eq!(open_descriptors(), before, "{count}");
    }
    assert!(matches!(
        tx.send_with_descriptors(b"", &[file.as_fd(); 254], patience()),
        Err(SendError::Limit(limit)) if limit.name == "SCM_MAX_FD"
    ));

    // No room for them: an error that says so, at every later call, and none stays.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let tight = rustix::process::Rlimit {
        current: Some(before as u64 + 3),
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, tight).unwrap();
    tx.send_with_descriptors(b"too many", &rights[..20], patience())
        .unwrap();
    for _ in 0..2 {
        let lost = rx.recv_with_descriptors(&mut buffer, &mut received, patience());
        assert!(
            matches!(&lost, Err(RecvError::Limit(limit)) if limit.name == "RLIMIT_NOFILE"),
            "{lost:?}"
        );
    }
    assert!(received.is_empty());
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    assert_eq!(open_descriptors(), before);

    // More than any message announced.
    let (peer, mut rx) = receiver_of(&options);
    let before = open_descriptors();
    let frame = [1, 0, 0, 0, b'x'];
    // More are not let under way where RLIMIT_NOFILE is 1024.
    for _ in 0..4 {
        send_raw(&peer, &frame, &rights);
    }
    let end = loop {
        match rx.recv_with(&mut buffer, Wait::Never) {
            Ok(1) => {}
            other => break other,
        }
    };
    assert!(matches!(end, Err(RecvError::Corrupt { .. })), "{end:?}");
    assert_eq!(open_descriptors(), before);

    // To a channel that takes none, they never come.
    let (peer, mut rx) = receiver_of(&Options::default());
    let before = open_descriptors();
    send_raw(&peer, &frame, &rights);
    assert_eq!(rx.recv(&mut buffer).unwrap(), 1);
    assert_eq!(open_descriptors(), before);
}

fn send_raw(peer: &UnixStream, bytes: &[u8], rights: &[BorrowedFd<'_>]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(rights)));
    let slices = [std::io::IoSlice::new(bytes)];
    rustix::net::sendmsg(peer, &slices, &mut ancillary, SendFlags::empty()).unwrap();
}

#[test]
fn no_descriptor_leaks_on_any_path() {
    Process::new(no_descriptor_leaks, ())
        .start()
        .unwrap()
        .join()
        .unwrap();
}

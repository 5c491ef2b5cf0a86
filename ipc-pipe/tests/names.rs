//! Who opens a FIFO, and what this crate takes for granted of the kernel's names. A process is started here, and it may hold
//! copies of descriptors until its execve(2): in `kernel.rs` they would be in the way.

use std::fs::File;
use std::io::{IoSliceMut, Write as _};
use std::time::Duration;

use ipc_conformance::Scratch;
use ipc_core::{Channel, Listener as _, OpenError, Receiver as _, RecvError, Sender as _, Wait};
use ipc_pipe::{Options, Pipe};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

ipc_process::test_support!();

const HERE: u64 = u64::MAX;
const NOWAIT: ReadWriteFlags = ReadWriteFlags::NOWAIT;

#[test]
fn a_fifo_without_a_reader_refuses_a_non_blocking_writer() {
    let scratch = Scratch::new();
    let path = scratch.path().join("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let refused = open(&path, flags, Mode::empty()).map(drop);
    let reader = open(
        &path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let writer = open(&path, flags, Mode::empty());
    // Where a nameless pipe answers EAGAIN: why a FIFO's descriptors are non-blocking instead.
    let nowait = reader
        .as_ref()
        .map(|reader| preadv2(reader, &mut [IoSliceMut::new(&mut [0; 1])], HERE, NOWAIT));
    let plain = reader
        .as_ref()
        .map(|reader| rustix::io::read(reader, &mut [0; 1]));
    assert_eq!(refused, Err(Errno::NXIO));
    assert!(writer.is_ok());
    assert!(
        matches!(nowait, Ok(Err(Errno::OPNOTSUPP | Errno::AGAIN))),
        "{nowait:?}"
    );
    assert_eq!(plain, Ok(Err(Errno::AGAIN)));
}

#[test]
fn who_opens_the_fifo_and_is_no_sender_is_not_accepted() {
    let scratch = Scratch::new();
    let path = scratch.path().join("fifo");
    let name = path.to_str().unwrap().parse().unwrap();
    let options = Options::default();
    let mut listener = Pipe::listen(&name, &options).unwrap();
    let open = || File::options().write(true).open(&path).unwrap();
    let soon = Wait::at_most(Duration::from_millis(10));
    let later = Wait::at_most(Duration::from_secs(20));

    drop(open());
    let nobody = listener.accept(Wait::Never);
    assert!(matches!(nobody, Err(OpenError::NotFound)), "{nobody:?}");
    let mut talker = open();
    talker.write_all(b"what is this?").unwrap();
    let nobody = listener.accept(soon);
    assert!(matches!(nobody, Err(OpenError::TimedOut)), "{nobody:?}");
    let mut terse = open();
    terse.write_all(b"\xff").unwrap();
    let nobody = listener.accept(Wait::Never);
    assert!(matches!(nobody, Err(OpenError::NotFound)), "{nobody:?}");
    assert!(talker.write_all(b"?").is_err(), "nobody listens to it");

    let mut sender = Pipe::connect(&name, &options, later).unwrap();
    sender.send(b"hello").unwrap();
    let mut receiver = listener.accept(later).unwrap();
    assert_eq!(receiver.recv_with(&mut [0; 8], later).unwrap(), 5);
    drop(sender);
    let end = receiver.recv_with(&mut [0; 8], later);
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
}

#[test]
fn a_lock_that_somebody_holds_makes_nobody_wait_who_would_not() {
    let scratch = Scratch::new();
    let path = scratch.path().join("fifo");
    let name: ipc_core::Name = path.to_str().unwrap().parse().unwrap();
    let options = Options::default();
    let mut listener = Pipe::listen(&name, &options).unwrap();
    let held = name.lock(Wait::Forever).unwrap();
    let nobody = Pipe::connect(&name, &options, Wait::Never);
    assert!(matches!(nobody, Err(OpenError::NotFound)), "{nobody:?}");
    drop(held);

    let mut sender = Pipe::connect(&name, &options, Wait::Never).unwrap();
    let held = name.lock(Wait::Forever).unwrap();
    let nobody = listener.accept(Wait::Never);
    assert!(matches!(nobody, Err(OpenError::NotFound)), "{nobody:?}");
    drop(held);
    let mut receiver = listener.accept(Wait::Never).unwrap();
    sender.send(b"hello").unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5);
}

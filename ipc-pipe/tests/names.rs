//! What this crate takes for granted of the kernel's names. A process is started here, and it may hold
//! copies of descriptors until its execve(2): in `kernel.rs` they would be in the way.

use std::io::IoSliceMut;

use ipc_conformance::Scratch;
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

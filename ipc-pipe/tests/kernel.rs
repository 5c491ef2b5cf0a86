//! The facts of `pipe(7)` and `fifo(7)` that this crate relies on, asked of the running kernel.

use std::io::{IoSlice, IoSliceMut};

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2, write};
use rustix::pipe::{PIPE_BUF, PipeFlags, pipe_with};

const HERE: u64 = u64::MAX;
const NOWAIT: ReadWriteFlags = ReadWriteFlags::NOWAIT;

/// A pipe whose writer never waits.
fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    (reader, writer)
}

fn fill(writer: impl AsFd) -> usize {
    let page = [1u8; PIPE_BUF];
    std::iter::from_fn(|| write(&writer, &page).ok()).sum()
}

#[test]
fn nowait_makes_one_call_non_blocking_on_a_blocking_descriptor() {
    let (reader, writer) = pipe();
    let mut byte = [0u8; 1];
    let empty = preadv2(&reader, &mut [IoSliceMut::new(&mut byte)], HERE, NOWAIT);
    let write_now = |byte: u8| pwritev2(&writer, &[IoSlice::new(&[byte])], HERE, NOWAIT);
    if empty == Err(Errno::OPNOTSUPP) {
        eprintln!("not here: pipes know RWF_NOWAIT from Linux 6.4");
        assert_eq!(write_now(1), Err(Errno::OPNOTSUPP));
        return;
    }
    assert_eq!(empty, Err(Errno::AGAIN));
    assert!(fill(&writer) > 0);
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    assert_eq!(write_now(1), Err(Errno::AGAIN));
    drop(reader);
    assert_eq!(write_now(1), Err(Errno::PIPE));
}

#[test]
fn a_write_up_to_pipe_buf_is_whole_or_nothing() {
    let (reader, writer) = pipe();
    // One page is taken by 100 bytes, so that the last page never fits beside the others.
    write(&writer, &[0; 100]).unwrap();
    let filled = fill(&writer);
    assert_eq!(filled % PIPE_BUF, 0, "no write was cut");
    let mut page = vec![0; 100];
    rustix::io::read(&reader, &mut page).unwrap();
    assert_eq!(fill(&writer) % PIPE_BUF, 0, "no write was cut");
}

#[test]
fn a_larger_write_may_be_cut() {
    let (_reader, writer) = pipe();
    let capacity = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    let large = vec![1u8; 2 * capacity];
    let written = write(&writer, &large).unwrap();
    assert!(
        written > 0 && written <= capacity,
        "{written} of {}",
        large.len()
    );
}

#[test]
fn data_comes_before_the_hang_up() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    write(&writer, b"last words").unwrap();
    drop(writer);
    assert_eq!(
        poll([(reader.as_fd(), Interest::Read)], Wait::Never),
        Ok(Polled::Ready)
    );
    let mut buffer = [0; 64];
    assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(10));
    assert_eq!(
        rustix::io::read(&reader, &mut buffer),
        Ok(0),
        "then the end"
    );
    assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(0), "and again");
}

#[test]
fn a_write_without_a_reader_is_epipe() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    assert_eq!(write(&writer, b"x"), Err(Errno::PIPE));
}

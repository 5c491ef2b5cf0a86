//! What this crate takes for granted of the kernel's names. A process is started here, and it may hold
//! copies of descriptors until its execve(2): in `kernel.rs` they would be in the way.

use ipc_conformance::Scratch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

ipc_process::test_support!();

/// fifo(7): opened for both, it needs no peer; a reader sees the end when the last writer is gone,
/// as a hang-up and as a read of nothing.
#[test]
fn a_fifo_tells_its_readers_of_the_writers_end() {
    let scratch = Scratch::new();
    let path = scratch.path().join("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO");
    let open = |access| {
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).expect("the FIFO")
    };
    let reader = open(OFlags::RDONLY);
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "no writer");
    let writer = open(OFlags::RDWR);
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Err(Errno::AGAIN));
    let hung_up = || {
        let mut set = [PollFd::new(&reader, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut set, Some(&now)).expect("poll") == 1 && set[0].revents().contains(PollFlags::HUP)
    };
    assert!(!hung_up());
    drop(writer);
    assert!(hung_up());
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
}

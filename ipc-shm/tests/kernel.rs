//! The facts of memfds, seals, pipes and `shm_open(3)` that this crate relies on, asked of the
//! running kernel.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use ipc_core::{Channel, Handoff, OpenError, Parts, Receiver as _, RecvError, Sender as _};
use ipc_shm::{Options, Receiver, Segment, SharedMemory};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::{Errno, ReadWriteFlags};

const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let memory =
        rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::fallocate(&memory, FallocateFlags::empty(), 0, len).unwrap();
    rustix::fs::fcntl_add_seals(&memory, seals).unwrap();
    memory
}

/// The memory of a channel, as a peer has it.
fn memory_of(end: &impl Handoff) -> OwnedFd {
    end.to_parts().unwrap().descriptors.remove(0)
}

/// The same object, opened in another way.
fn reopen(fd: &OwnedFd, flags: OFlags) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

#[test]
fn sealed_memory_neither_shrinks_nor_grows_nor_loses_its_seals() {
    let memory = memfd(8192, SEALS);
    assert_eq!(rustix::fs::ftruncate(&memory, 4096), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&memory, 16384), Err(Errno::PERM));
    assert_eq!(
        rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE),
        Err(Errno::PERM)
    );
    assert_eq!(rustix::fs::fcntl_get_seals(&memory), Ok(SEALS));
}

#[test]
fn the_memory_of_a_channel_is_sealed_and_not_executable() {
    let (sender, _receiver) = SharedMemory::pair(&Options::default()).unwrap();
    let memory = memory_of(&sender);
    let seals = rustix::fs::fcntl_get_seals(&memory).unwrap();
    assert!(seals.contains(SEALS), "{seals:?}");
    let mode = rustix::fs::fstat(&memory).unwrap().st_mode;
    // MFD_NOEXEC_SEAL came with Linux 6.3, and brings F_SEAL_EXEC.
    assert_eq!(seals.contains(SealFlags::EXEC), mode & 0o111 == 0);
}

#[test]
fn holes_can_be_punched_into_sealed_memory_and_read_as_zeros() {
    let memory = memfd(8192, SEALS);
    rustix::io::pwrite(&memory, b"here", 4096).unwrap();
    rustix::fs::fallocate(&memory, PUNCH, 4096, 4096).unwrap();
    let mut bytes = [1; 4];
    rustix::io::pread(&memory, &mut bytes, 4096).unwrap();
    assert_eq!(bytes, [0; 4]);
}

#[test]
fn a_hole_in_the_header_is_corruption_to_both_ends() {
    // Before anything was sent, and in the midst.
    for messages in [0, 3] {
        let (mut sender, mut receiver) = SharedMemory::pair(&Options::default()).unwrap();
        for _ in 0..messages {
            sender.send(b"in time").unwrap();
            receiver.recv(&mut [0; 16]).unwrap();
        }
        rustix::fs::fallocate(memory_of(&sender), PUNCH, 0, 4096).unwrap();
        let received = receiver.try_recv(&mut [0; 16]);
        assert!(
            matches!(received, Err(RecvError::Corrupt { .. })),
            "{received:?}"
        );
        let sent = loop {
            match sender.try_send(&[7; 1000]) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(
            matches!(sent, ipc_core::SendError::Corrupt { .. }),
            "{sent:?}"
        );
    }
}

#[test]
fn a_hole_in_the_ring_is_corruption_to_the_receiver() {
    let (mut sender, mut receiver) = SharedMemory::pair(&Options::default()).unwrap();
    sender.send(b"lost").unwrap();
    rustix::fs::fallocate(memory_of(&sender), PUNCH, 4096, 4096).unwrap();
    let received = receiver.try_recv(&mut [0; 16]);
    assert!(
        matches!(received, Err(RecvError::Corrupt { .. })),
        "{received:?}"
    );
}

#[test]
fn memory_without_seals_or_of_another_size_is_refused() {
    let (_sender, receiver) = SharedMemory::pair(&Options::default()).unwrap();
    let with_memory = |memory: OwnedFd| {
        let mut parts = receiver.to_parts().unwrap();
        parts.descriptors[0] = memory;
        Receiver::from_parts(parts)
    };
    let unsealed = with_memory(memfd(4096 + (1 << 20), SealFlags::GROW));
    assert!(
        matches!(unsealed, Err(OpenError::Untrusted { .. })),
        "{unsealed:?}"
    );
    for len in [1, 4095, 4096, 4097, 8191, 8192 + 4096, 4096 + (1 << 20) + 8] {
        let odd = with_memory(memfd(len, SEALS));
        assert!(
            matches!(odd, Err(OpenError::Incompatible { .. })),
            "{len}: {odd:?}"
        );
    }
    // Of the right size, but empty.
    let blank = with_memory(memfd(4096 + (1 << 20), SEALS));
    assert!(
        matches!(blank, Err(OpenError::Incompatible { .. })),
        "{blank:?}"
    );
    // A header, and for the ring a promise that whoever touches it first is to keep.
    let sparse = memfd(4096, SealFlags::empty());
    let mut header = [0; 4096];
    let genuine = &receiver.to_parts().unwrap().descriptors[0];
    rustix::io::pread(genuine, &mut header, 0).unwrap();
    rustix::io::pwrite(&sparse, &header, 0).unwrap();
    rustix::fs::ftruncate(&sparse, 4096 + (1 << 20)).unwrap();
    rustix::fs::fcntl_add_seals(&sparse, SEALS).unwrap();
    let sparse = with_memory(sparse);
    assert!(
        matches!(sparse, Err(OpenError::Untrusted { .. })),
        "{sparse:?}"
    );
    // Genuine, but to be read only, or only known by its place.
    for flags in [OFlags::RDONLY, OFlags::PATH] {
        let refused = with_memory(reopen(&memory_of(&receiver), flags));
        assert!(refused.is_err(), "{flags:?}: {refused:?}");
    }
    // No memory at all.
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let pipe = with_memory(reader);
    assert!(matches!(pipe, Err(OpenError::Untrusted { .. })), "{pipe:?}");
}

#[test]
fn parts_of_the_other_end_or_cut_short_are_refused() {
    let (sender, _receiver) = SharedMemory::pair(&Options::default()).unwrap();
    let swapped = Receiver::from_parts(sender.to_parts().unwrap());
    assert!(
        matches!(swapped, Err(OpenError::Incompatible { .. })),
        "{swapped:?}"
    );
    let mut short = sender.to_parts().unwrap();
    short.descriptors.pop();
    assert!(ipc_shm::Sender::from_parts(short).is_err());
    assert!(ipc_shm::Sender::from_parts(Parts::default()).is_err());
    let mut odd = sender.to_parts().unwrap();
    odd.data[1] = 9;
    assert!(ipc_shm::Sender::from_parts(odd).is_err());
}

/// The doorbell hangs on it: no call may wait, however the peer has set the pipe that it shares.
#[test]
fn a_call_on_a_nameless_pipe_says_for_itself_that_it_must_not_wait() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let read = |into: &mut [u8]| {
        let into = &mut [IoSliceMut::new(into)];
        rustix::io::preadv2(&reader, into, u64::MAX, ReadWriteFlags::NOWAIT)
    };
    let mut ring = [0; 8];
    let empty = read(&mut ring);
    if empty == Err(Errno::OPNOTSUPP) {
        return; // Linux before 6.4: the descriptor's own mode is all there is.
    }
    assert_eq!(empty, Err(Errno::AGAIN), "in blocking mode");
    let filled = loop {
        let page = [IoSlice::new(&[1; 4096])];
        match rustix::io::pwritev2(&writer, &page, u64::MAX, ReadWriteFlags::NOWAIT) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(filled, Errno::AGAIN, "in blocking mode");
    assert_eq!(read(&mut ring), Ok(8));
}

#[test]
fn a_pipe_hangs_up_once_nobody_can_write_and_keeps_what_was_written() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let again = writer.try_clone().unwrap();
    rustix::io::write(&writer, &[1]).unwrap();
    let events = || {
        let mut polled = [PollFd::new(&reader, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&Timespec::default())).unwrap();
        polled[0].revents()
    };
    drop(writer);
    assert_eq!(events(), PollFlags::IN);
    drop(again);
    assert_eq!(events(), PollFlags::IN | PollFlags::HUP);
}

#[test]
fn a_doorbell_is_a_side_of_a_nameless_pipe_and_nothing_else() {
    let (_sender, receiver) = SharedMemory::pair(&Options::default()).unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let counter = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let file = rustix::fs::memfd_create("bell", MemfdFlags::CLOEXEC).unwrap();
    // The genuine bell, reopened: a descriptor that nobody can poll, one that never hangs up.
    let bell = &receiver.to_parts().unwrap().descriptors[1];
    let odd: [(usize, OwnedFd); 8] = [
        (1, reopen(bell, OFlags::PATH)),
        (1, reopen(bell, OFlags::RDWR)),
        (1, writer),
        (2, reader),
        (1, socket.into()),
        (2, counter.try_clone().unwrap()),
        (3, counter),
        (2, file),
    ];
    for (place, fd) in odd {
        let mut parts = receiver.to_parts().unwrap();
        parts.descriptors[place] = fd;
        let refused = Receiver::from_parts(parts);
        assert!(
            matches!(refused, Err(OpenError::Untrusted { .. })),
            "{place}: {refused:?}"
        );
    }
}

/// Whoever rings a pipe that nobody can read any more gets a SIGPIPE.
#[test]
fn the_sides_of_a_doorbell_are_of_one_pipe() {
    let (_sender, receiver) = SharedMemory::pair(&Options::default()).unwrap();
    let mut parts = receiver.to_parts().unwrap();
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    parts.descriptors[2] = writer;
    let refused = Receiver::from_parts(parts);
    assert!(
        matches!(refused, Err(OpenError::Untrusted { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_named_segment_cannot_be_sealed() {
    let name = format!("/ipc-shm-kernel-{}", std::process::id());
    let segment = rustix::shm::open(
        name.as_str(),
        rustix::shm::OFlags::CREATE | rustix::shm::OFlags::EXCL | rustix::shm::OFlags::RDWR,
        Mode::RUSR | Mode::WUSR,
    )
    .unwrap();
    Segment::unlink(&name).unwrap();
    assert_eq!(
        rustix::fs::fcntl_add_seals(&segment, SealFlags::SHRINK),
        Err(Errno::PERM)
    );
    assert!(
        rustix::io::fcntl_getfd(&segment)
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
}

#[test]
fn more_memory_than_there_is_is_refused_when_it_is_asked_for() {
    let shm = rustix::fs::statvfs("/dev/shm").unwrap();
    let all = shm.f_blocks * shm.f_frsize;
    if all == 0 {
        return; // Mounted without a limit: there is nothing to run into.
    }
    let name = format!("/ipc-shm-large-{}", std::process::id());
    let large = Segment::create(&name, usize::try_from(all).unwrap() + 4096);
    assert!(matches!(large, Err(OpenError::Limit(_))), "{large:?}");
    assert!(
        matches!(Segment::open(&name), Err(OpenError::NotFound)),
        "nothing is left"
    );
}

#[test]
fn options_that_cannot_work_are_refused() {
    let huge = SharedMemory::pair(&Options::new().capacity(usize::MAX));
    assert!(matches!(huge, Err(OpenError::Invalid { .. })), "{huge:?}");
    let (sender, _receiver) = SharedMemory::pair(&Options::new().capacity(1)).unwrap();
    assert_eq!(sender.limits().depth_bytes, Some(4096));
    assert_eq!(sender.limits().max_message, 2040);
}

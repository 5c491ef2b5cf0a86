//! The layout byte by byte, as a program in another language would use it: by numbers, from the
//! table in `src/layout.rs` alone.

use std::os::fd::OwnedFd;

use ipc_core::{Channel, Handoff, Receiver as _, RecvError, Sender as _};
use ipc_shm::{Options, SharedMemory};

const CAPACITY: u64 = 4096;
const RING: u64 = 4096;

struct Bytes(OwnedFd);

impl Bytes {
    fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert_eq!(rustix::io::pread(&self.0, &mut bytes, offset), Ok(N));
        bytes
    }

    fn u32(&self, offset: u64) -> u32 {
        u32::from_ne_bytes(self.get(offset))
    }

    fn u64(&self, offset: u64) -> u64 {
        u64::from_ne_bytes(self.get(offset))
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        assert_eq!(rustix::io::pwrite(&self.0, bytes, offset), Ok(bytes.len()));
    }

    fn put_u64(&self, offset: u64, value: u64) {
        self.put(offset, &value.to_ne_bytes());
    }
}

fn pair() -> (ipc_shm::Sender, ipc_shm::Receiver, Bytes) {
    let (sender, receiver) = SharedMemory::pair(&Options::new().capacity(4096)).unwrap();
    let memory = sender.to_parts().unwrap().descriptors.remove(0);
    (sender, receiver, Bytes(memory))
}

#[test]
fn fresh_memory_says_what_it_is() {
    let (_sender, _receiver, memory) = pair();
    assert_eq!(&memory.get(0), b"IPCSHM\0\0");
    assert_eq!(memory.u32(8), 2, "version");
    assert_eq!(memory.u32(12), 0x0102_0304);
    assert_eq!(memory.u64(16), CAPACITY);
    assert_eq!((memory.u64(128), memory.u64(256)), (0, 0), "tail, head");
    assert_eq!((memory.u32(384), memory.u32(512)), (0, 0), "states");
    assert_eq!((memory.u32(388), memory.u32(516)), (u32::MAX, u32::MAX));
    assert_eq!(memory.get::<4096>(RING), [0; 4096]);
}

#[test]
fn frames_lie_where_the_table_says() {
    let (mut sender, mut receiver, memory) = pair();
    sender.send(b"12345678 9").unwrap();
    sender.send(b"").unwrap();
    assert_eq!(memory.u64(RING), 1 << 32 | 10);
    assert_eq!(&memory.get(RING + 8), b"12345678 9");
    assert_eq!(memory.u64(RING + 24), 1 << 32, "a message of no bytes");
    assert_eq!(memory.u64(RING + 32), 0, "nothing yet");
    assert_eq!((memory.u64(128), memory.u64(256)), (32, 0));
    receiver.recv(&mut [0; 16]).unwrap();
    assert_eq!((memory.u64(128), memory.u64(256)), (32, 24));

    // On to 16 bytes before the end of the ring, where the next one does not fit.
    receiver.recv(&mut []).unwrap();
    for len in [2032, 1992] {
        sender.send(&vec![0xFF; len]).unwrap();
        receiver.recv(&mut [0; 2040]).unwrap();
    }
    let tail = memory.u64(128);
    assert_eq!(tail, 4072);
    sender.send(b"does not fit here").unwrap();
    assert_eq!(memory.u64(RING + tail), 2 << 32 | 16, "filler to the end");
    assert_eq!(memory.u64(RING), 1 << 32 | 17);
    assert_eq!(&memory.get(RING + 8), b"does not fit here");
    assert_eq!(
        memory.u64(RING + 32),
        0,
        "over the leavings of the first lap"
    );
    assert_eq!(memory.u64(128), 4096 + 32);
}

#[test]
fn a_sender_that_knows_only_the_table_is_understood() {
    let (_sender, mut receiver, memory) = pair();
    let mut buffer = [0; 32];
    memory.put(RING + 8, b"by hand");
    memory.put_u64(RING + 16, 0);
    let early = receiver.try_recv(&mut buffer);
    assert!(matches!(early, Err(RecvError::Empty)), "not committed yet");
    memory.put_u64(RING, 1 << 32 | 7);
    assert_eq!(receiver.try_recv(&mut buffer).unwrap(), 7, "committed");
    assert_eq!(&buffer[..7], b"by hand");
    memory.put_u64(128, 16);
    assert_eq!(memory.u64(256), 16);
}

/// A sender that died between the commit and its position: whoever comes after it goes on behind
/// what was committed.
#[test]
fn a_successor_goes_on_behind_the_last_committed_frame() {
    let (mut sender, mut receiver, memory) = pair();
    for number in 0..3 {
        sender.send(&[number]).unwrap();
    }
    let parts = sender.into_parts().unwrap();
    memory.put_u64(128, 16);
    let mut sender = ipc_shm::Sender::from_parts(parts).unwrap();
    assert_eq!(memory.u64(128), 48);
    sender.send(&[3]).unwrap();
    for number in 0..4 {
        let mut byte = [9];
        assert_eq!(receiver.try_recv(&mut byte).unwrap(), 1);
        assert_eq!(byte, [number]);
    }
    assert_eq!(memory.u64(128), 64);
}

#[test]
fn another_version_or_byte_order_is_refused() {
    for (offset, value) in [(8, 1u32), (8, 3), (12, 0x0403_0201), (0, 0), (16, 8192)] {
        let (_sender, receiver, memory) = pair();
        memory.put(offset, &value.to_ne_bytes());
        let refused = ipc_shm::Receiver::from_parts(receiver.to_parts().unwrap());
        assert!(refused.is_err(), "{offset}: {value}");
    }
}

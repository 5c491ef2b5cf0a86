//! Parts as a stranger may send them: any descriptors in any order, any bytes. They are refused, or an
//! end that keeps its deadlines.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ipc_core::{Channel, Handoff, Parts, Receiver as _, Sender as _};
use ipc_shm::{Options, Receiver, Sender, SharedMemory};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags};

const SHORT: Duration = Duration::from_millis(1);
/// The longest that a call may stay beyond its deadline.
const LATE: Duration = Duration::from_millis(50);

/// Sealed as ours, of this size, with not a page of it allocated.
fn sealed(len: u64) -> OwnedFd {
    let memory =
        rustix::fs::memfd_create("odd", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&memory, len).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals).unwrap();
    memory
}

/// What a stranger may have at hand: two channels' own descriptors first.
fn bag() -> (Vec<OwnedFd>, Vec<Box<dyn std::any::Any>>) {
    let mut descriptors = Vec::new();
    let mut alive: Vec<Box<dyn std::any::Any>> = Vec::new();
    for capacity in [4096, 8192] {
        let (sender, receiver) = SharedMemory::pair(&Options::new().capacity(capacity)).unwrap();
        descriptors.extend(receiver.to_parts().unwrap().descriptors);
        descriptors.extend(sender.to_parts().unwrap().descriptors);
        alive.push(Box::new((sender, receiver)));
    }
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    descriptors.extend([one.into(), other.into()]);
    descriptors.extend([0, 4096, 8192, 12_288, (1 << 32) + 4096, 1 << 40].map(sealed));
    for path in ["/dev/null", "/dev/zero", "/proc/self/stat", "/"] {
        descriptors.push(File::open(path).unwrap().into());
    }
    (descriptors, alive)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_parts_are_refused_or_make_an_end_that_keeps_its_deadlines(
        strays in prop::collection::vec((0..4usize, any::<prop::sample::Index>()), 0..4),
        count in prop_oneof![8 => Just(4usize), 1 => 0..6usize],
        data in prop_oneof![
            4 => (prop_oneof![Just(b'R'), Just(b'S')], 0..3u8).prop_map(|(end, wait)| vec![end, wait]),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ],
    ) {
        let (bag, _alive) = bag();
        let first = if data.first() == Some(&b'S') { 4 } else { 0 };
        let mut chosen: Vec<usize> = (first..first + count).collect();
        for (at, stray) in strays {
            if let Some(place) = chosen.get_mut(at) {
                *place = stray.index(bag.len());
            }
        }
        let descriptors = chosen.iter().map(|&at| bag[at].try_clone().unwrap()).collect();
        let sends = data.first() == Some(&b'S');
        let parts = Parts { descriptors, data };
        let started = Instant::now();
        if sends {
            if let Ok(mut sender) = Sender::from_parts(parts) {
                for _ in 0..3 {
                    let _ = sender.send_timeout(&[7; 2040], SHORT);
                }
                sender.release();
            }
        } else if let Ok(mut receiver) = Receiver::from_parts(parts) {
            let _ = receiver.recv_timeout(&mut [0; 2040], SHORT);
            receiver.release();
        }
        prop_assert!(started.elapsed() < 3 * (SHORT + LATE), "{:?}", started.elapsed());
    }
}

//! Memory that other programs made, by the crate that most of them use.

use ipc_core::OpenError;
use ipc_shm::Segment;
use shared_memory::ShmemConf;

fn name(case: &str) -> String {
    format!("/ipc-shm-{case}-{}", std::process::id())
}

fn bytes(segment: &shared_memory::Shmem, offset: usize, len: usize) -> Vec<u8> {
    assert!(offset + len <= segment.len());
    let mut copy = vec![0; len];
    #[expect(unsafe_code, reason = "their interface is a raw pointer")]
    // SAFETY: within the segment, as just checked.
    let from = unsafe { segment.as_ptr().add(offset) };
    #[expect(unsafe_code, reason = "their interface is a raw pointer")]
    // SAFETY: within the segment, and no other process writes meanwhile.
    unsafe {
        from.copy_to_nonoverlapping(copy.as_mut_ptr(), len);
    }
    copy
}

#[test]
fn a_segment_of_shared_memory_can_be_read_and_written() {
    let name = name("theirs");
    let theirs = ShmemConf::new().size(4096).os_id(&name).create().unwrap();
    let ours = Segment::open(&name).unwrap();
    assert_eq!(ours.len().unwrap(), 4096);
    assert!(!ours.is_empty().unwrap());

    ours.write(100, b"from us").unwrap();
    assert_eq!(bytes(&theirs, 100, 7), b"from us");

    #[expect(unsafe_code, reason = "their interface is a raw pointer")]
    // SAFETY: byte 4095 of 4096.
    let at = unsafe { theirs.as_ptr().add(4095) };
    #[expect(unsafe_code, reason = "their interface is a raw pointer")]
    // SAFETY: in the segment, and nobody else reads it meanwhile.
    unsafe {
        at.write(42);
    }
    let mut last = [0];
    ours.read(4095, &mut last).unwrap();
    assert_eq!(last, [42]);
}

#[test]
fn shared_memory_opens_a_segment_of_ours() {
    let name = name("ours");
    let ours = Segment::create(&name, 4096).unwrap();
    let theirs = ShmemConf::new().os_id(&name).open();
    Segment::unlink(&name).unwrap();
    let theirs = theirs.unwrap();
    ours.write(0, b"hello").unwrap();
    assert_eq!(bytes(&theirs, 0, 5), b"hello");
}

#[test]
fn a_name_in_use_is_refused_and_a_missing_one_not_found() {
    let name = name("twice");
    let _first = Segment::create(&name, 1).unwrap();
    let second = Segment::create(&name, 1);
    Segment::unlink(&name).unwrap();
    assert!(matches!(second, Err(OpenError::NameInUse)), "{second:?}");
    assert!(matches!(Segment::open(&name), Err(OpenError::NotFound)));
    assert!(matches!(Segment::unlink(&name), Err(OpenError::NotFound)));
    assert!(matches!(
        Segment::open("/a/b"),
        Err(OpenError::Invalid { .. })
    ));
}

#[test]
fn bytes_beyond_the_end_are_refused_whole() {
    let name = name("short");
    let segment = Segment::create(&name, 10).unwrap();
    Segment::unlink(&name).unwrap();
    for offset in [3, 10, 11, usize::MAX] {
        let written = segment.write(offset, &[1; 8]);
        assert!(
            matches!(written, Err(OpenError::Invalid { .. })),
            "{offset}: {written:?}"
        );
        let read = segment.read(offset, &mut [0; 8]);
        assert!(
            matches!(read, Err(OpenError::Invalid { .. })),
            "{offset}: {read:?}"
        );
    }
    let mut all = [9; 10];
    segment.read(0, &mut all).unwrap();
    assert_eq!(all, [0; 10], "nothing of a refused write was written");
}

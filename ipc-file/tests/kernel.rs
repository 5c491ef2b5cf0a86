//! What this crate takes for granted of the kernel.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FlockOperation, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

fn unnamed() -> File {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    File::from(rustix::fs::open(std::env::temp_dir(), flags, mode).expect("O_TMPFILE"))
}

fn map(file: &File, len: usize) -> MmapRaw {
    MmapOptions::new()
        .len(len)
        .map_raw(file)
        .expect("a mapping")
}

/// open(2): a file made with O_TMPFILE has no name, so nothing can be left of it.
#[test]
fn a_temporary_file_has_no_link() {
    assert_eq!(unnamed().metadata().expect("its metadata").nlink(), 0);
}

/// fallocate(2): the storage is there before the first store, and reads as zeros.
#[test]
fn an_allocated_file_has_blocks_and_zeros() {
    let file = unnamed();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).expect("fallocate");
    let metadata = file.metadata().expect("its metadata");
    assert_eq!(metadata.len(), 1 << 20);
    assert!(metadata.blocks() * 512 >= 1 << 20);
    let mut bytes = [1; 4096];
    file.read_exact_at(&mut bytes, 4096 * 3).expect("a read");
    assert_eq!(bytes, [0; 4096]);
}

/// mmap(2): MAP_SHARED mappings and read(2) see one page cache.
#[test]
fn mappings_and_reads_see_the_same_bytes() {
    let mut file = unnamed();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4096).expect("fallocate");
    let (one, other) = (map(&file, 4096), map(&file, 4096));
    file.write_all(b"seen").expect("a write");
    for raw in [&one, &other] {
        // A read through /proc needs no unsafe code: the kernel copies out of the mapping.
        let memory = File::open("/proc/self/mem").expect("/proc");
        let mut bytes = [0; 4];
        memory
            .read_exact_at(&mut bytes, raw.as_ptr() as u64)
            .expect("the mapping");
        assert_eq!(&bytes, b"seen");
    }
    let memory = File::options()
        .write(true)
        .open("/proc/self/mem")
        .expect("/proc");
    memory
        .write_all_at(b"also", one.as_mut_ptr() as u64)
        .expect("the mapping");
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).expect("a read");
    assert_eq!(&bytes, b"also");
}

/// flock(2): the lock belongs to the open file description. A duplicate keeps it, another open of
/// the same file is a stranger even in the same process, and the last close frees it.
#[test]
fn a_lock_belongs_to_the_open_file_description() {
    let file = unnamed();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let other = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("another description");
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).expect("the lock");
    let duplicate = file.try_clone().expect("a duplicate");
    drop(file);
    let shared = rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared);
    assert_eq!(shared, Err(Errno::WOULDBLOCK));
    drop(duplicate);
    rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared).expect("a free lock");
}

/// memfd_create(2): a sealed page keeps its size, so no access to it can raise SIGBUS.
#[test]
fn a_sealed_page_cannot_shrink() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let page: OwnedFd = rustix::fs::memfd_create("test", flags).expect("a memfd");
    rustix::fs::ftruncate(&page, 4096).expect("its size");
    rustix::fs::fcntl_add_seals(&page, SealFlags::SHRINK).expect("seals");
    assert_eq!(rustix::fs::ftruncate(&page, 0), Err(Errno::PERM));
}

/// A pipe without a name, opened anew through /proc for both directions (fifo(7)): a ring stays until
/// it is read, nothing hangs up or waits or raises SIGPIPE, and nobody else's descriptor changes that.
#[test]
fn a_doorbell_stays_rung_and_never_waits() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::fd::AsRawFd;
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let bell = rustix::fs::open(path, flags, Mode::empty()).expect("the same pipe");
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let ready = |bell: &OwnedFd| {
        let mut set = [PollFd::new(bell, PollFlags::IN)];
        poll(&mut set, Some(&now)).expect("poll")
    };
    rustix::fs::fcntl_setfl(&reader, OFlags::empty()).expect("a mode");
    rustix::fs::fcntl_setfl(&writer, OFlags::empty()).expect("a mode");
    assert_eq!(rustix::io::read(&bell, &mut [0]), Err(Errno::AGAIN));
    drop((reader, writer));
    assert_eq!(ready(&bell), 0);
    rustix::io::write(&bell, &[1]).expect("a ring");
    assert_eq!((ready(&bell), ready(&bell)), (1, 1));
    rustix::io::read(&bell, &mut [0; 8]).expect("quiet");
    assert_eq!(ready(&bell), 0);
    while rustix::io::write(&bell, &[1; 4096]).is_ok() {}
    assert_eq!(rustix::io::write(&bell, &[1]), Err(Errno::AGAIN));
}

/// inotify(7): setting both times of a file is IN_ATTRIB, a write to it is not. So a follower that
/// writes wakes nobody, and a writer that sets the times wakes all who watch.
#[test]
fn setting_times_is_news_and_writing_is_not() {
    use rustix::fs::{Timespec, Timestamps, UTIME_NOW, inotify};
    use std::os::fd::AsRawFd;
    let file = unnamed();
    let watch = || {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).expect("inotify");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        inotify::add_watch(&watch, path, inotify::WatchFlags::ATTRIB).expect("a watch");
        watch
    };
    let watches = [watch(), watch()];
    let news = |watch: &OwnedFd| rustix::io::read(watch, &mut [0; 256]).is_ok();
    file.write_all_at(b"quiet", 0).expect("a write");
    assert!(!watches.iter().any(news));
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    for _ in 0..3 {
        rustix::fs::futimens(&file, &times).expect("futimens");
        assert!(watches.iter().all(news));
        assert!(!watches.iter().any(news), "and it is taken away by a read");
    }
}

/// proc_pid_fd(5): a file without a name can be opened anew, and what is opened for reading cannot
/// be truncated.
#[test]
fn a_descriptor_for_reading_cannot_truncate() {
    use std::os::fd::AsRawFd;
    let file = unnamed();
    file.set_len(100).expect("its size");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let reading = File::open(path).expect("the same file");
    assert_eq!(reading.metadata().expect("its metadata").len(), 100);
    assert_eq!(rustix::fs::ftruncate(&reading, 0), Err(Errno::INVAL));
}

//! Power is cut, as far as a program can do that: an ext4 file system on a loop device is shut down
//! without a flush of its journal, and mounted again.
#![expect(unsafe_code, reason = "the shutdown is an ioctl(2)")]

use std::fs::{self, File};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ipc_conformance::Scratch;
use ipc_core::{Channel, Receiver as _, Sender as _, Wait};
use ipc_file::{Durability, FileLog, Follower, Log, Options, Sender, Start};
use ipc_process::Process;

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(20);

/// A file system of its own, which is unmounted with the directory however the test ends.
struct Disk(Scratch);

impl Disk {
    /// `None` without CAP_SYS_ADMIN, mkfs.ext4 or loop devices; `src/crash.rs` needs none of them.
    fn new() -> Option<Self> {
        let disk = Self(Scratch::new());
        fs::create_dir(disk.root()).expect("a mount point");
        let image = File::create(disk.image()).expect("an image");
        image.set_len(16 << 20).expect("its size");
        let made = run(Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(disk.image()));
        (made && disk.mount()).then_some(disk)
    }

    fn image(&self) -> PathBuf {
        self.0.path().join("image")
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn log(&self) -> PathBuf {
        self.root().join("log")
    }

    fn mount(&self) -> bool {
        let (image, root) = (self.image(), self.root());
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(root))
    }

    /// A process that another test is just starting may hold a copy of a descriptor until its
    /// execve(2), and then umount(2) says EBUSY.
    fn unmount(&self) -> bool {
        let patience = Wait::at_most(PATIENCE);
        while !run(Command::new("umount").arg(self.root())) {
            if patience.is_over() {
                return false;
            }
            ipc_core::wait::poll([], Wait::at_most(Duration::from_millis(1))).expect("poll");
        }
        true
    }

    /// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (fs/ext4/ext4.h): nothing reaches the
    /// image from now on.
    fn cut_power(&self) -> rustix::io::Result<()> {
        const SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
        let root = File::open(self.root()).expect("the root");
        // SAFETY: this opcode reads one u32 and nothing else, whatever its direction says.
        let request = unsafe { rustix::ioctl::Setter::<SHUTDOWN, u32>::new(2) };
        // SAFETY: as above.
        unsafe { rustix::ioctl::ioctl(&root, request) }
    }
}

fn run(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn options() -> Options {
    Options::default()
        .capacity(8192)
        .durability(Durability::PowerLoss)
}

fn record(number: u8) -> Vec<u8> {
    vec![number; 100 + usize::from(number)]
}

/// Commits batches until it is killed, and tells how many records that makes.
fn append(log: PathBuf, mut committed: Sender) {
    let mut log = Log::open(log, &options()).expect("a log");
    for first in (0..240).step_by(8) {
        let records: Vec<_> = (first..first + 8).map(record).collect();
        let batch: Vec<_> = records.iter().map(|r| IoSlice::new(r)).collect();
        assert_eq!(log.append_batch(&batch).expect("room"), 8);
        committed.send(&[first + 8]).expect("a parent");
    }
    // What is not synced may go or stay.
    let mut buffer = [0; 1];
    let (_tx, mut rx) = FileLog::pair(&Options::default()).expect("a channel");
    let _ = rx.recv(&mut buffer);
}

fn read(log: &Path) -> Vec<Vec<u8>> {
    let mut follower = Follower::open(log, Start::Oldest, &options()).expect("a follower");
    let (mut found, mut buffer) = (Vec::new(), Vec::new());
    while follower.recv_vec(&mut buffer, Wait::Never).is_ok() {
        found.push(buffer.clone());
    }
    found
}

#[test]
fn what_was_synced_is_there_after_the_power_was_cut() {
    for commits in [1, 2, 7, 30] {
        let Some(disk) = Disk::new() else {
            return;
        };
        let (tx, mut rx) = FileLog::pair(&Options::default()).expect("a channel");
        let writer = Process::new(append, (disk.log(), tx))
            .start()
            .expect("a writer");
        let mut committed = [0];
        for _ in 0..commits {
            rx.recv_timeout(&mut committed, PATIENCE).expect("a commit");
        }
        let cut = disk.cut_power();
        writer.kill().expect("SIGKILL");
        let _ = writer.wait();
        assert!(disk.unmount(), "the disk stays busy");
        cut.expect("EXT4_IOC_SHUTDOWN");
        assert!(disk.mount(), "the journal is replayed");
        let log = Log::open(disk.log(), &options()).expect("the log needs no hand");
        let found = read(&disk.log());
        assert!(found.len() >= usize::from(committed[0]), "{}", found.len());
        let whole = found
            .iter()
            .zip(0..)
            .all(|(found, number)| *found == record(number));
        assert!(whole, "a record with other bytes");
        drop(log);
        assert!(disk.unmount());
    }
}

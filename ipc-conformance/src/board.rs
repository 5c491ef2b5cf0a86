//! What the sides of a case tell each other and the watchdog, by means that are not the mechanism
//! under test: files in memory and pipes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ipc_core::{Handoff, OpenError, Parts};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::pipe::PipeFlags;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A descriptor as an argument of a process.
#[derive(Debug)]
pub(crate) struct Fd(OwnedFd);

impl Handoff for Fd {
    fn to_parts(&self) -> io::Result<Parts> {
        Ok(Parts {
            descriptors: vec![self.0.try_clone()?],
            data: Vec::new(),
        })
    }

    fn release(&self) {}

    fn from_parts(mut parts: Parts) -> Result<Self, OpenError> {
        let none = OpenError::Incompatible {
            what: "no descriptor",
        };
        parts.descriptors.pop().map(Self).ok_or(none)
    }
}

ipc_core::impl_serde_handoff!(Fd);

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where every side writes the step it begins. It outlives a killed side.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Board(Fd);

impl Board {
    pub(crate) fn new() -> Self {
        let file = rustix::fs::memfd_create("steps", MemfdFlags::CLOEXEC).expect("memfd_create");
        // One write at the end of the file is atomic, so sides do not overwrite each other.
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND).expect("fcntl");
        Self(Fd(file))
    }

    pub(crate) fn another(&self) -> Self {
        Self(Fd(self.0.0.try_clone().expect("fcntl")))
    }

    pub(crate) fn note(&self, side: &str, step: &str) {
        let line = format!("{}\t{side}\t{step}\n", now().as_millis());
        let _ = rustix::io::write(&self.0, line.as_bytes());
    }

    /// The last step of each side and its age, one side a line.
    pub(crate) fn summary(&self) -> String {
        let mut text = vec![0; rustix::fs::fstat(&self.0).map_or(0, |s| s.st_size as usize)];
        let length = rustix::io::pread(&self.0, &mut text, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]);
        let mut last: Vec<(&str, &str, &str)> = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, '\t');
            let (Some(at), Some(side), Some(step)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            last.retain(|(_, known, _)| *known != side);
            last.push((at, side, step));
        }
        let now = now().as_millis();
        let line = |(at, side, step): &(&str, &str, &str)| {
            let age = now.saturating_sub(at.parse().unwrap_or(now));
            format!("  {side}: {step} (since {age} ms)\n")
        };
        last.iter().map(line).collect()
    }
}

/// The monotonic clock, which all processes share.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Numbers that outlive the process that wrote them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ledger(Fd);

impl Ledger {
    pub(crate) fn new() -> Self {
        let file = rustix::fs::memfd_create("ledger", MemfdFlags::CLOEXEC).expect("memfd_create");
        Self(Fd(file))
    }

    pub(crate) fn another(&self) -> Self {
        Self(Fd(self.0.0.try_clone().expect("fcntl")))
    }

    pub(crate) fn set(&self, line: u64, value: u64) {
        let written = rustix::io::pwrite(&self.0, &value.to_ne_bytes(), line * 8);
        assert_eq!(written, Ok(8), "the ledger");
    }

    /// Zero for what nobody wrote.
    pub(crate) fn get(&self, line: u64) -> u64 {
        let mut value = [0; 8];
        let _ = rustix::io::pread(&self.0, &mut value, line * 8).expect("the ledger");
        u64::from_ne_bytes(value)
    }
}

/// "I am there": one side opens, the other waits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Gate {
    reader: Fd,
    writer: Fd,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("pipe2");
        Self {
            reader: Fd(reader),
            writer: Fd(writer),
        }
    }

    pub(crate) fn another(&self) -> Self {
        let copy = |fd: &Fd| Fd(fd.0.try_clone().expect("fcntl"));
        Self {
            reader: copy(&self.reader),
            writer: copy(&self.writer),
        }
    }

    pub(crate) fn open(&self) {
        rustix::io::write(&self.writer, b"!").expect("the gate");
    }

    pub(crate) fn pass(&self) {
        while rustix::io::read(&self.reader, &mut [0; 1]) == Err(rustix::io::Errno::INTR) {}
    }
}

/// The end of a pipe that tells, by its end of file, when a process is gone.
pub(crate) fn leash() -> (Fd, Fd) {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("pipe2");
    (Fd(reader), Fd(writer))
}

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

use crate::procfs;

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
        let thread = rustix::thread::gettid().as_raw_pid();
        let line = format!("{}\t{thread}\t{side}\t{step}\n", now().as_millis());
        let _ = rustix::io::write(&self.0, line.as_bytes());
    }

    fn text(&self) -> String {
        let mut text = vec![0; rustix::fs::fstat(&self.0).map_or(0, |s| s.st_size as usize)];
        let length = rustix::io::pread(&self.0, &mut text, 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    /// The last step of one side.
    pub(crate) fn last_step(&self, side: &str) -> Option<String> {
        let text = self.text();
        let mut notes = text.lines().rev().filter_map(Note::parse);
        notes
            .find(|note| note.side == side)
            .map(|note| note.step.to_owned())
    }

    /// One side a line: its last step, whether it still runs, and since when.
    pub(crate) fn summary(&self) -> String {
        let text = self.text();
        let mut last: Vec<Note<'_>> = Vec::new();
        for note in text.lines().filter_map(Note::parse) {
            last.retain(|known| known.side != note.side);
            last.push(note);
        }
        last.iter().map(Note::line).collect()
    }
}

/// A line of the board.
struct Note<'a> {
    at: u128,
    thread: u32,
    side: &'a str,
    step: &'a str,
}

impl<'a> Note<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(4, '\t');
        Some(Self {
            at: fields.next()?.parse().ok()?,
            thread: fields.next()?.parse().ok()?,
            side: fields.next()?,
            step: fields.next()?,
        })
    }

    fn line(&self) -> String {
        // A thread's number stands for it in /proc as a process's does (proc(5)).
        let state = match procfs::state(self.thread) {
            None | Some('Z' | 'X') => "ended",
            Some('S') => "asleep",
            Some('T' | 't') => "stopped",
            Some(_) => "running",
        };
        let age = now().as_millis().saturating_sub(self.at);
        format!("  {}: {} ({state}, since {age} ms)\n", self.side, self.step)
    }
}

/// The monotonic clock, which all processes share.
pub(crate) fn now() -> Duration {
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

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::process::{Pid, Resource, getrlimit};

use crate::proc;
use crate::spawn::sys;

/// What a process inherits by fork(2) and execve(2) and a program may change meanwhile, beyond its
/// environment, directory and streams, which travel with each start. Privileges above all: a
/// server with those that the program has given up must not be used any more.
#[derive(Debug)]
pub(super) struct Alike {
    owner: u32,
    status: File,
    then: Snapshot,
}

#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    status: Vec<u8>,
    limits: [(Option<u64>, Option<u64>); LIMITS.len()],
    session: Option<Pid>,
}

/// proc_pid_status(5).
const INHERITED: [&[u8]; 12] = [
    b"Umask:",
    b"Uid:",
    b"Gid:",
    b"Groups:",
    b"SigIgn:",
    b"CapInh:",
    b"CapPrm:",
    b"CapEff:",
    b"CapBnd:",
    b"CapAmb:",
    b"NoNewPrivs:",
    b"Seccomp:",
];

/// All that there are: getrlimit(2).
const LIMITS: [Resource; 16] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

impl Alike {
    pub(super) fn now() -> io::Result<Self> {
        const STATUS: &str = "/proc/self/status";
        let status = File::open(STATUS).map_err(|error| proc::error(STATUS, &error))?;
        let then = Snapshot::take(&status)?;
        Ok(Self {
            owner: std::process::id(),
            status,
            then,
        })
    }

    /// The process that this is about.
    pub(super) fn owner(&self) -> u32 {
        self.owner
    }

    /// Whether nothing has changed.
    pub(super) fn still(&self) -> io::Result<bool> {
        Ok(Snapshot::take(&self.status)? == self.then)
    }
}

impl Snapshot {
    fn take(status: &File) -> io::Result<Self> {
        let mut lines = Vec::new();
        for line in read(status)?.split_inclusive(|&byte| byte == b'\n') {
            if INHERITED.iter().any(|key| line.starts_with(key)) {
                lines.extend_from_slice(line);
            }
        }
        Ok(Self {
            status: lines,
            limits: LIMITS.map(|resource| {
                let limit = getrlimit(resource);
                (limit.current, limit.maximum)
            }),
            session: sys::own_session(),
        })
    }
}

/// Such a file is made anew by a read at its start, which gives all of it if there is room.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut text = vec![0; 4096];
    loop {
        let length = file.read_at(&mut text, 0)?;
        if length < text.len() {
            text.truncate(length);
            return Ok(text);
        }
        text.resize(2 * length, 0);
    }
}

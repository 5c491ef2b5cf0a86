use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::process::Pid;

use crate::proc;
use crate::spawn::sys;

/// What a process inherits by fork(2) and execve(2) and a program may change meanwhile, beyond its
/// environment, directory and streams, which travel with each start. Privileges above all: a
/// server with those that the program has given up must not be used any more.
#[derive(Debug)]
pub(super) struct Alike {
    owner: u32,
    status: File,
    limits: File,
    then: Snapshot,
}

#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    status: Vec<u8>,
    limits: Vec<u8>,
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

impl Alike {
    pub(super) fn now() -> io::Result<Self> {
        let open = |path| File::open(path).map_err(|error| proc::error(path, &error));
        let status = open("/proc/self/status")?;
        let limits = open("/proc/self/limits")?;
        let then = Snapshot::take(&status, &limits)?;
        Ok(Self {
            owner: std::process::id(),
            status,
            limits,
            then,
        })
    }

    /// The process that this is about.
    pub(super) fn owner(&self) -> u32 {
        self.owner
    }

    /// Whether nothing has changed.
    pub(super) fn still(&self) -> io::Result<bool> {
        Ok(Snapshot::take(&self.status, &self.limits)? == self.then)
    }
}

impl Snapshot {
    fn take(status: &File, limits: &File) -> io::Result<Self> {
        let mut lines = Vec::new();
        for line in read(status)?.split_inclusive(|&byte| byte == b'\n') {
            if INHERITED.iter().any(|key| line.starts_with(key)) {
                lines.extend_from_slice(line);
            }
        }
        Ok(Self {
            status: lines,
            limits: read(limits)?,
            session: sys::own_session(),
        })
    }
}

/// Such a file is made anew by a read at its start, and given a page at a time.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut text = vec![0; 4096];
    let mut length = 0;
    loop {
        let room = text.get_mut(length..).unwrap_or_default();
        match file.read_at(room, length as u64)? {
            0 => break,
            n => length += n,
        }
        if length == text.len() {
            text.resize(2 * length, 0);
        }
    }
    text.truncate(length);
    Ok(text)
}

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ipc_core::{Receiver as _, Wait};
use ipc_file::{Durability, Follower, Log, Options, Start};

use crate::channel::{in_batches, receiving, sending};
use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::floors::bytes::ends;
use crate::peer::Link;
use crate::report;
use crate::spec::{Side, Spec};
use crate::workload::{self, Port};

/// An `ipc-file` log that outlives a loss of power: one process appends, one `fdatasync(2)` a
/// message or with `BATCH` a batch, and another one follows. One way only.
#[derive(Debug)]
pub(crate) struct LogLink<const BATCH: bool>;

#[derive(Debug)]
pub(crate) enum LogEnd<const BATCH: bool> {
    Writer(Log),
    Reader(Follower),
}

/// Bytes of a segment: a run begins few of them.
const SEGMENT: usize = 16 << 20;

impl<const BATCH: bool> Link for LogLink<BATCH> {
    type Port = LogEnd<BATCH>;

    /// A directory, and a stream over which the writer says that the log is there.
    fn open(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let directory = new_directory();
        let (a, b) = UnixStream::pair()?;
        Ok([a, b].map(|stream| Bundle {
            descriptors: vec![stream.into()],
            data: directory.as_os_str().as_bytes().to_vec(),
        }))
    }

    fn port(spec: &Spec, side: Side, mut bundle: Bundle) -> Outcome<Self::Port> {
        let directory = PathBuf::from(std::ffi::OsString::from_vec(std::mem::take(
            &mut bundle.data,
        )));
        let [meeting] = ends(bundle)?;
        let mut meeting = UnixStream::from(meeting);
        let mut options = Options::default()
            .durability(Durability::PowerLoss)
            .capacity(SEGMENT);
        if let Some(wait) = spec.wait {
            options = options.wait_strategy(wait.into());
        }
        if side == Side::Initiator {
            let log = Log::open(directory, &options)?;
            meeting.write_all(b"!")?;
            // The reader hangs up when it has opened the log.
            meeting.read_to_end(&mut Vec::new())?;
            Ok(LogEnd::Writer(log))
        } else {
            meeting.read_exact(&mut [0])?;
            let follower = Follower::open(directory, Start::Oldest, &options)?;
            Ok(LogEnd::Reader(follower))
        }
    }
}

impl<const BATCH: bool> Port for LogEnd<BATCH> {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.log()?.append(message).map_err(sending)?;
        Ok(())
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        match self {
            Self::Reader(follower) => follower.recv_with(buffer, Wait::Forever).map_err(receiving),
            Self::Writer(_) => Err(one_way()),
        }
    }

    fn stream(&mut self, message: &mut [u8], messages: u64) -> Outcome<()> {
        let log = self.log()?;
        if BATCH {
            return in_batches(message, messages, |batch| {
                log.append_batch(batch).map_err(sending)
            });
        }
        for number in 0..messages {
            workload::stamp(message, number);
            log.append(message).map_err(sending)?;
        }
        Ok(())
    }

    /// Gives back what the run has written, so that it does not fill the storage.
    fn settle(&mut self) -> Outcome<()> {
        if let Self::Writer(log) = self {
            let next = log.next_sequence();
            log.remove_before(next).map_err(sending)?;
        }
        Ok(())
    }
}

impl<const BATCH: bool> LogEnd<BATCH> {
    fn log(&mut self) -> Outcome<&mut Log> {
        match self {
            Self::Writer(log) => Ok(log),
            Self::Reader(_) => Err(one_way()),
        }
    }
}

fn one_way() -> Failure {
    Failure::Failed("a log goes one way".into())
}

const PREFIX: &str = "log-";

fn new_directory() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    report::directory().join(format!("{PREFIX}{}-{number}", std::process::id()))
}

/// Removes the logs of this process and of those that are dead: a log has a name as long as its
/// writer appends, so that a bench that is killed leaves it.
pub(crate) fn remove_logs() {
    let Ok(entries) = fs::read_dir(report::directory()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            name.strip_prefix(PREFIX)?
                .split('-')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if let Some(owner) = owner
            && (owner == std::process::id() || !Path::new("/proc").join(owner.to_string()).exists())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

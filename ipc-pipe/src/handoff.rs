//! An end travels as two descriptors, the pipe and its notes, and a record:
//!
//! | bytes | sender | receiver |
//! |---|---|---|
//! | 0 | version, 1 | version, 1 |
//! | 1 | wait strategy | wait strategy |
//! | 2..10 | longest message, u64 LE | longest message, u64 LE |
//! | 10.. | shared (u8), length and progress of an abandoned frame (2 u64 LE) | what was read in and not yet handed out |

use std::io;
use std::os::fd::OwnedFd;

use ipc_core::{Handoff, OpenError, Parts, WaitStrategy};
use rustix::fs::{FileType, OFlags};

use crate::frame::HEADER;
use crate::notes::Notes;
use crate::sender::Abandoned;
use crate::sys::Descriptor;
use crate::{Options, Receiver, Sender, frame};

const VERSION: u8 = 1;
const RECORD: usize = 10;

#[cfg(feature = "serde")]
ipc_core::impl_serde_handoff!(Sender, Receiver);

fn record(strategy: WaitStrategy, max_message: usize) -> Vec<u8> {
    let strategy = match strategy {
        WaitStrategy::Block => 0,
        WaitStrategy::Spin => 1,
        WaitStrategy::Adaptive => 2,
    };
    let mut data = vec![VERSION, strategy];
    data.extend_from_slice(&(max_message as u64).to_le_bytes());
    data
}

/// Checks what came and gives the pipe, its notes, the options and the rest of the record.
fn open(parts: Parts, access: OFlags) -> Result<(Descriptor, Notes, Options, Vec<u8>), OpenError> {
    let foreign = || OpenError::Incompatible {
        what: "these are not the parts of a pipe's end",
    };
    let Ok([pipe, notes]) = <[OwnedFd; 2]>::try_from(parts.descriptors) else {
        return Err(foreign());
    };
    let (head, rest) = parts
        .data
        .split_first_chunk::<RECORD>()
        .ok_or_else(foreign)?;
    let strategy = match head[..2] {
        [VERSION, 0] => WaitStrategy::Block,
        [VERSION, 1] => WaitStrategy::Spin,
        [VERSION, 2] => WaitStrategy::Adaptive,
        _ => return Err(foreign()),
    };
    let max_message = head[2..]
        .try_into()
        .ok()
        .and_then(|bytes| usize::try_from(u64::from_le_bytes(bytes)).ok())
        .filter(|max| (1..=frame::LONGEST).contains(max))
        .ok_or_else(foreign)?;

    let stat = rustix::fs::fstat(&pipe).map_err(|e| OpenError::io("fstat", e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(OpenError::Untrusted {
            what: "the descriptor is not a pipe",
        });
    }
    let flags = rustix::fs::fcntl_getfl(&pipe).map_err(|e| OpenError::io("fcntl", e))?;
    if flags & OFlags::ACCMODE != access {
        return Err(OpenError::Untrusted {
            what: "the descriptor is the pipe's other end",
        });
    }
    let options = Options {
        max_message,
        strategy,
        ..Options::default()
    };
    let pipe = if access == OFlags::WRONLY {
        Descriptor::writer(pipe)?
    } else {
        Descriptor::reader(pipe)?
    };
    Ok((pipe, Notes::from_fd(notes)?, options, rest.to_vec()))
}

impl Handoff for Sender {
    fn to_parts(&self) -> io::Result<Parts> {
        let mut data = record(self.waiter.strategy(), self.max_message);
        data.push(u8::from(self.shared));
        let Abandoned { len, done } = self.abandoned.unwrap_or(Abandoned { len: 0, done: 0 });
        data.extend_from_slice(&(len as u64).to_le_bytes());
        data.extend_from_slice(&(done as u64).to_le_bytes());
        Ok(Parts {
            descriptors: vec![self.pipe.duplicate()?, duplicate(&self.notes)?],
            data,
        })
    }

    fn release(&self) {
        self.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (pipe, notes, options, rest) = open(parts, OFlags::WRONLY)?;
        let foreign = OpenError::Incompatible {
            what: "these are not the parts of a pipe's sender",
        };
        let Ok([shared, abandoned @ ..]) = <[u8; 17]>::try_from(rest) else {
            return Err(foreign);
        };
        let number = |at: usize| {
            let bytes = abandoned[at..at + 8].try_into().unwrap_or_default();
            usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        };
        let (len, done) = (number(0), number(8));
        if shared > 1 || len > options.max_message || done > HEADER + len {
            return Err(foreign);
        }
        let mut sender = Self::new(pipe, notes, &options);
        sender.shared = shared == 1;
        sender.abandoned = (done > 0).then_some(Abandoned { len, done });
        Ok(sender)
    }
}

impl Handoff for Receiver {
    fn to_parts(&self) -> io::Result<Parts> {
        let mut data = record(self.waiter.strategy(), self.max_message);
        data.extend_from_slice(&self.buffer[self.start..self.end]);
        Ok(Parts {
            descriptors: vec![self.pipe.duplicate()?, duplicate(&self.notes)?],
            data,
        })
    }

    fn release(&self) {
        self.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (pipe, notes, options, rest) = open(parts, OFlags::RDONLY)?;
        let mut receiver = Self::new(pipe, notes, &options);
        receiver.end = rest.len();
        if rest.len() > receiver.buffer.len() {
            receiver.buffer = rest;
        } else {
            receiver.buffer[..rest.len()].copy_from_slice(&rest);
        }
        Ok(receiver)
    }
}

fn duplicate(notes: &Notes) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    notes.as_fd().try_clone_to_owned()
}

use std::io;

use ipc_core::{Limit, OpenError, RecvError, SendError};
use rustix::io::Errno;

/// What went wrong below the contract; becomes the error of whichever operation met it.
#[derive(Debug)]
pub(crate) enum Fault {
    Limit(Limit),
    Corrupt(&'static str),
    /// Damage in a log that its opener has to decide about.
    Damaged {
        what: &'static str,
        segment: u64,
        offset: u64,
    },
    Io(&'static str, io::Error),
}

impl Fault {
    pub(crate) fn map(error: io::Error) -> Self {
        Self::Io("mmap", error)
    }

    pub(crate) fn io(call: &'static str) -> impl Fn(Errno) -> Self {
        move |error| Self::Io(call, error.into())
    }

    /// The fault of a call that needs storage: a full disk has a name.
    pub(crate) fn storage(call: &'static str) -> impl Fn(Errno) -> Self {
        move |error| {
            let name = match error {
                Errno::NOSPC => "free space of the file system",
                Errno::DQUOT => "disk quota",
                _ => return Self::Io(call, error.into()),
            };
            let advice = "free some, ask for a smaller capacity or choose another directory";
            Self::Limit(Limit {
                name,
                value: None,
                advice,
            })
        }
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Limit(limit) => Self::Limit(limit),
            Fault::Corrupt(what) => Self::Io {
                call: "recovery",
                source: io::Error::new(io::ErrorKind::InvalidData, what),
            },
            Fault::Damaged {
                what,
                segment,
                offset,
            } => Self::Io {
                call: "recovery",
                source: io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{what} at byte {offset} of segment {segment:016x}; restore it or open \
                         the log with `salvage`"
                    ),
                ),
            },
            Fault::Io(call, source) => Self::io(call, source),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Limit(limit) => Self::other(limit.to_string()),
            Fault::Corrupt(what) | Fault::Damaged { what, .. } => {
                Self::new(io::ErrorKind::InvalidData, what)
            }
            Fault::Io(_, source) => source,
        }
    }
}

impl From<Fault> for SendError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Limit(limit) => Self::Limit(limit),
            Fault::Corrupt(what) | Fault::Damaged { what, .. } => Self::Corrupt { what },
            Fault::Io(call, source) => Self::io(call, source),
        }
    }
}

impl From<Fault> for RecvError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Limit(limit) => Self::Limit(limit),
            Fault::Corrupt(what) | Fault::Damaged { what, .. } => Self::Corrupt { what },
            Fault::Io(call, source) => Self::io(call, source),
        }
    }
}

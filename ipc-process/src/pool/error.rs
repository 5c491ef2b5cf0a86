use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crate::{RemotePanic, StartError};

/// Why a task gave no result. Every task ends exactly once, with a result or with one of these.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// The function panicked. The worker lives on.
    Panicked(Box<RemotePanic>),
    /// The worker ended while it ran the task: it was killed, or the task called `exit` or
    /// `abort`, overflowed its stack, used more memory than it may, or closed descriptors that were
    /// not its own (exit code 103). The worker is replaced.
    Lost {
        /// The worker's pid; another process may own it by now.
        pid: u32,
        /// How it ended; `None` where somebody else took the status and the kernel does not keep
        /// it, or while a debugger holds the process.
        status: Option<ExitStatus>,
    },
    /// The task lost its worker as often as [`Retry`](super::Retry) admits.
    Aborted {
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        last: Box<Self>,
    },
    /// The task took longer than it may, and its worker was ended.
    Deadline {
        /// How long it might take.
        limit: Duration,
    },
    /// It was cancelled.
    Cancelled,
    /// The arguments take more than one message carries.
    TooLarge {
        /// The most that it carries, in bytes.
        max: usize,
    },
    /// Arguments or result could not be written.
    Encode {
        /// Which of them, and what the serialiser said.
        reason: String,
    },
    /// Arguments or result could not be read on the other side.
    Decode {
        /// Which of them, and what the deserialiser said.
        reason: String,
    },
    /// The function is not code of the main program but of a library loaded into it.
    NotInMainProgram,
    /// The pool was terminated.
    Terminated,
    /// The pool gave up replacing its workers.
    Broken {
        /// Why.
        reason: String,
    },
    /// This process is a fork of the one that made the pool, which alone can use it.
    Forked,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(panic) => panic.fmt(f),
            Self::Lost {
                pid,
                status: Some(status),
            } => write!(f, "worker {pid} ended while it ran the task: {status}"),
            Self::Lost { pid, status: None } => {
                write!(f, "worker {pid} ended while it ran the task")
            }
            Self::Aborted { attempts, last } => {
                write!(f, "given up after {attempts} attempts: {last}")
            }
            Self::Deadline { limit } => write!(f, "the task took longer than {limit:?}"),
            Self::Cancelled => f.write_str("the task was cancelled"),
            Self::TooLarge { max } => write!(
                f,
                "the arguments take more than {max} bytes, the most that one message carries; pass \
                 a file or a channel end instead"
            ),
            Self::Encode { reason } | Self::Decode { reason } => {
                write!(f, "could not be carried over: {reason}")
            }
            Self::NotInMainProgram => f.write_str(
                "the function belongs to a loaded library; wrap it in one of the main program",
            ),
            Self::Terminated => f.write_str("the pool was terminated"),
            Self::Broken { reason } => write!(f, "the pool gave up: {reason}"),
            Self::Forked => {
                f.write_str("a forked process cannot use the pool of the one that it was forked of")
            }
        }
    }
}

impl Error for TaskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Aborted { last, .. } => Some(last),
            _ => None,
        }
    }
}

/// The first of many tasks that gave no result.
#[derive(Clone, Debug)]
pub struct MapError {
    /// Which of the items, counted from zero.
    pub index: usize,
    /// Why.
    pub error: TaskError,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "item {}: {}", self.index, self.error)
    }
}

impl Error for MapError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// Why a pool was not made. No process of it is left.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A worker could not be started.
    Start(StartError),
    /// The initializer returned an error.
    Initializer {
        /// Its text.
        reason: String,
    },
    /// The initializer panicked.
    Panicked(Box<RemotePanic>),
    /// A worker ended while it ran the initializer.
    Died {
        /// How; `None` as in [`TaskError::Lost`].
        status: Option<ExitStatus>,
    },
    /// The initializer's arguments cannot be sent to the workers.
    Arguments {
        /// What stands against it.
        reason: String,
    },
    /// A system call failed.
    Io {
        /// Its name.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl BuildError {
    pub(super) fn io(call: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io {
            call,
            source: source.into(),
        }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "a worker could not be started: {error}"),
            Self::Initializer { reason } => write!(f, "the initializer failed: {reason}"),
            Self::Panicked(panic) => write!(f, "the initializer failed: {panic}"),
            Self::Died {
                status: Some(status),
            } => write!(f, "a worker ended while it ran the initializer: {status}"),
            Self::Died { status: None } => {
                f.write_str("a worker ended while it ran the initializer")
            }
            Self::Arguments { reason } => {
                write!(f, "the initializer's arguments cannot be sent: {reason}")
            }
            Self::Io { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Start(error) => Some(error),
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// A limit of the kernel, of the storage or of this library that a call ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The setting as its documentation calls it, such as `fs.mqueue.msg_max` or `RLIMIT_NOFILE`.
    pub name: &'static str,
    /// Its value now, where it can be read.
    pub value: Option<u64>,
    /// What to do about it, as an imperative without a full stop.
    pub advice: &'static str,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} reached", self.name)?;
        if let Some(value) = self.value {
            write!(f, " (now {value})")?;
        }
        write!(f, "; {}", self.advice)
    }
}

const OF_PROCESS: &str = "RLIMIT_NOFILE";
const OF_SYSTEM: &str = "fs.file-max";

impl OpenError {
    /// Whether this process, or the whole system, may have no more descriptors.
    pub(crate) fn is_lack_of_descriptors(&self) -> bool {
        matches!(self, Self::Limit(limit) if [OF_PROCESS, OF_SYSTEM].contains(&limit.name))
    }
}

impl Limit {
    /// The limit that every call which makes a descriptor may run into, if it is the reason.
    fn of_descriptors(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE => Some(Self {
                name: OF_PROCESS,
                value: getrlimit(Resource::Nofile).current,
                advice: "close descriptors, or raise the limit (ulimit -n)",
            }),
            Errno::NFILE => Some(Self {
                name: OF_SYSTEM,
                value: std::fs::read_to_string("/proc/sys/fs/file-max")
                    .ok()
                    .and_then(|text| text.trim().parse().ok()),
                advice: "close descriptors in any process, or raise the setting as root",
            }),
            _ => None,
        }
    }
}

macro_rules! from_io {
    ($error:ident) => {
        impl $error {
            /// An error of the system call `call`: `Limit` for EMFILE and ENFILE, `Io` for what
            /// has no name of its own here.
            pub fn io(call: &'static str, source: impl Into<io::Error>) -> Self {
                let source = source.into();
                match Limit::of_descriptors(&source) {
                    Some(limit) => Self::Limit(limit),
                    None => Self::Io { call, source },
                }
            }
        }

        impl Error for $error {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                match self {
                    Self::Io { source, .. } => Some(source),
                    _ => None,
                }
            }
        }
    };
}

/// Why a message was not sent. In every case nothing of it was sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// There is no room now and the caller would not wait.
    Full,
    /// There was no room until the deadline.
    TimedOut,
    /// The receiver was closed.
    Closed,
    /// The receiver's process died without closing it.
    PeerDied,
    /// The message is longer than [`Limits::max_message`](crate::Limits::max_message).
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest that this channel carries.
        max: usize,
    },
    /// The peer broke the protocol; the channel is unusable.
    Corrupt {
        /// What was found.
        what: &'static str,
    },
    /// A limit stands in the way.
    Limit(Limit),
    /// A system call failed.
    Io {
        /// Its name.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

from_io!(SendError);

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the channel is full; wait for the receiver or send later"),
            Self::TimedOut => f.write_str("the channel stayed full until the deadline"),
            Self::Closed => f.write_str("the receiver was closed; nobody will read this message"),
            Self::PeerDied => {
                f.write_str("the receiving process died; open a new channel to its successor")
            }
            Self::TooLong { len, max } => write!(
                f,
                "message of {len} B exceeds this channel's {max} B; split it or raise the \
                 channel's limit"
            ),
            Self::Corrupt { what } => corrupt(f, what),
            Self::Limit(limit) => limit.fmt(f),
            Self::Io { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

/// Why no message was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// There is no message now and the caller would not wait.
    Empty,
    /// There was no message until the deadline.
    TimedOut,
    /// Every sender was closed and every message has been received.
    Closed,
    /// A sender's process died without closing it; every committed message has been received.
    PeerDied,
    /// The next message is longer than the buffer. It stays where it is.
    BufferTooSmall {
        /// Its length in bytes.
        needed: usize,
    },
    /// The peer broke the protocol; the channel is unusable.
    Corrupt {
        /// What was found.
        what: &'static str,
    },
    /// A limit stands in the way.
    Limit(Limit),
    /// A system call failed.
    Io {
        /// Its name.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

from_io!(RecvError);

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the channel is empty; wait for the sender"),
            Self::TimedOut => f.write_str("no message arrived until the deadline"),
            Self::Closed => f.write_str("the sender was closed; there are no more messages"),
            Self::PeerDied => f.write_str(
                "the sending process died; every message it had committed was delivered",
            ),
            Self::BufferTooSmall { needed } => {
                write!(
                    f,
                    "the next message has {needed} B; receive it with a buffer that large"
                )
            }
            Self::Corrupt { what } => corrupt(f, what),
            Self::Limit(limit) => limit.fmt(f),
            Self::Io { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

/// Why a channel could not be made, found, accepted or taken over. Nothing is left behind.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Nobody listens under this name and the caller would not wait.
    NotFound,
    /// Nobody came until the deadline.
    TimedOut,
    /// A live process listens under this name.
    NameInUse,
    /// Something at this name, or a descriptor that was received, does not deserve trust.
    Untrusted {
        /// What was found.
        what: &'static str,
    },
    /// An option or an address that cannot work.
    Invalid {
        /// What is wrong and what would do.
        what: &'static str,
    },
    /// The other side speaks another version or mechanism.
    Incompatible {
        /// What was found.
        what: &'static str,
    },
    /// A limit stands in the way.
    Limit(Limit),
    /// A system call failed.
    Io {
        /// Its name.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

from_io!(OpenError);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("nobody listens under this name; start the listener"),
            Self::TimedOut => f.write_str("the other side did not come until the deadline"),
            Self::NameInUse => {
                f.write_str("a live process listens under this name; choose another or end it")
            }
            Self::Untrusted { what } => write!(f, "refused as untrusted: {what}"),
            Self::Invalid { what } => f.write_str(what),
            Self::Incompatible { what } => write!(f, "the other side is incompatible: {what}"),
            Self::Limit(limit) => limit.fmt(f),
            Self::Io { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

fn corrupt(f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
    write!(f, "the peer broke the protocol ({what}); drop this end")
}

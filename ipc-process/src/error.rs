use std::error::Error;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::RemotePanic;
use crate::child::EXIT_UNTOLD;

/// Why a process was not started. No process is left behind.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The program does not call [`init`](crate::init) first thing in `main`, so that a process
    /// started from it would run `main` again instead of the function.
    InitMissing,
    /// This process was itself started to run a function and has not reached
    /// [`init`](crate::init) yet: starting more here would multiply without end.
    BeforeInit,
    /// Processes have started processes this many levels deep.
    TooDeep {
        /// The deepest level that is allowed.
        max: u32,
    },
    /// The function is not code of the main program but of a library loaded into it, which the
    /// new process would not have at the same place.
    NotInMainProgram,
    /// The process ended before it had taken its arguments.
    Died(ExitStatus),
    /// The arguments cannot be sent to another process.
    Arguments {
        /// What the serialiser said.
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

impl StartError {
    pub(crate) fn io(call: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io {
            call,
            source: source.into(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InitMissing => f.write_str(
                "the program did not enter ipc_process::init(); call it first thing in main, or \
                 put ipc_process::test_support!() at the root of a test target",
            ),
            Self::BeforeInit => f.write_str(
                "this process was started to run a function and has not reached \
                 ipc_process::init() yet; move init() to the first line of main",
            ),
            Self::TooDeep { max } => {
                write!(
                    f,
                    "processes have started processes {max} levels deep; that looks endless"
                )
            }
            Self::NotInMainProgram => f.write_str(
                "the function belongs to a loaded library; wrap it in one of the main program",
            ),
            Self::Died(status) => write!(f, "the process ended while it was starting: {status}"),
            Self::Arguments { reason } => write!(f, "the arguments cannot be sent: {reason}"),
            Self::Io { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a process gave no result. It has ended and is reaped.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// The function panicked.
    Panicked(Box<RemotePanic>),
    /// The process called `exit` instead of returning from the function. With code 103 it may have
    /// returned: so ends a process whose function closed the socket by which the result should have
    /// come, as by closing every descriptor that there is.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended the process.
    Killed {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core_dumped: bool,
    },
    /// The new process could not read its arguments, and did not call the function.
    Arguments {
        /// What the deserialiser said.
        reason: String,
    },
    /// The function returned but its result could not be carried over.
    Result {
        /// What the serialiser or deserialiser said.
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

impl JoinError {
    pub(crate) fn io(call: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io {
            call,
            source: source.into(),
        }
    }

    pub(crate) fn from_status(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Self::Killed {
                signal,
                core_dumped: status.core_dumped(),
            },
            None => Self::Exited {
                code: status.code().unwrap_or(-1),
            },
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(panic) => panic.fmt(f),
            Self::Exited { code: EXIT_UNTOLD } => write!(
                f,
                "the process exited with code {EXIT_UNTOLD} and without a result; so it does when \
                 its function has closed descriptors that were not its own"
            ),
            Self::Exited { code } => {
                write!(
                    f,
                    "the process exited with code {code} before its function returned"
                )
            }
            Self::Killed {
                signal,
                core_dumped,
            } => {
                write!(f, "the process was ended by signal {signal}")?;
                f.write_str(if *core_dumped { " (core dumped)" } else { "" })
            }
            Self::Arguments { reason } => {
                write!(f, "the process could not read its arguments: {reason}")
            }
            Self::Result { reason } => write!(f, "the result could not be carried over: {reason}"),
            Self::Io { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

//! What a new process is told to be and to do.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Limits;

/// What the starter sends first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start<'a> {
    /// That of the starter's [`executable`](crate::spawn::executable), where this process was made
    /// by executing it.
    #[serde(borrow)]
    pub(crate) identity: Option<&'a [u8]>,
    /// Where the function's trampoline lies in the image.
    pub(crate) place: u64,
    /// Pid of the starter; 0 for a process that is not to be its child.
    pub(crate) parent: i32,
    pub(crate) daemon: bool,
    /// SIGTERM is a question, not the end.
    pub(crate) stoppable: bool,
    pub(crate) name: &'a str,
    /// What a process gets by fork and execve, where this one was forked earlier and elsewhere.
    pub(crate) inherit: Option<Inherit>,
    pub(crate) settings: Settings,
    pub(crate) arguments: &'a [u8],
}

impl Start<'_> {
    /// Whether the starter waits for the process to say that it is as it was to be.
    pub(crate) fn wants_hello(&self) -> bool {
        self.identity.is_some() || self.settings != Settings::default()
    }
}

/// The descriptors before those of the arguments, and after the lifeline of a daemon, are the
/// working directory and the standard streams, those of the latter that there are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Inherit {
    pub(crate) streams: [bool; 3],
    /// The whole environment if it is not that of the fork server any more.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
    /// Variables on top of it.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// What may be asked of a process and may fail.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) limits: Limits,
    pub(crate) own_group: bool,
    pub(crate) own_session: bool,
}

/// A call that failed while a process became what it was to be: its index here, and errno.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    call: u8,
    errno: i32,
}

const CALLS: [&str; 10] = [
    "socketpair",
    "fcntl",
    "chdir",
    "setrlimit",
    "setpgid",
    "setsid",
    "dup2",
    "fchdir",
    "prctl",
    "clone",
];

impl Refusal {
    pub(crate) fn new(call: &'static str, error: Errno) -> Self {
        let call = CALLS
            .iter()
            .position(|&known| known == call)
            .unwrap_or(usize::MAX);
        Self {
            call: u8::try_from(call).unwrap_or(u8::MAX),
            errno: error.raw_os_error(),
        }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        postcard::to_stdvec(&self).unwrap_or_default()
    }

    /// Call and error out of a frame.
    pub(crate) fn read(bytes: &[u8]) -> (&'static str, io::Error) {
        let unknown = (
            "setting up",
            io::Error::new(io::ErrorKind::InvalidData, "a malformed control frame"),
        );
        postcard::from_bytes::<Self>(bytes).map_or(unknown, |refusal| {
            let call = CALLS.get(usize::from(refusal.call)).copied();
            let error = io::Error::from_raw_os_error(refusal.errno);
            (call.unwrap_or("setting up"), error)
        })
    }
}

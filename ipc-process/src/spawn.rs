//! From a request to a running child that is held by a process descriptor.

mod clone;
mod executable;
mod fork;
pub(crate) mod image;
pub(crate) mod signals;
pub(crate) mod sys;
pub(crate) mod trampoline;

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use rustix::io::Errno;

pub(crate) use clone::spawn;
pub(crate) use executable::{Executable, executable};
pub(crate) use fork::{Forked, Forker};

/// Names the control socket to a process that has to run a function: descriptor, depth, and the
/// process's own pid in [`PID_DIGITS`] digits.
pub(crate) const MARKER: &str = "IPC_PROCESS_CONTROL";

/// Room for any pid; it is filled in by the child itself, which alone knows it before execve.
const PID_DIGITS: usize = 10;

/// What the new process gets, in a form that needs no allocation once it is being made.
#[derive(Debug)]
pub(crate) struct Spawn {
    program: &'static CStr,
    argv: Vec<CString>,
    envp: Vec<CString>,
    /// `MARKER=control.depth.` without the digits of the pid.
    marker: String,
    /// Never below 3, so that placing the standard streams cannot overwrite it.
    control: OwnedFd,
    /// Standard input, output and error where they are not inherited; never below 3.
    streams: [Option<OwnedFd>; 3],
    pub(crate) dies_with_parent: bool,
}

impl Spawn {
    /// `environment` without the marker; the marker is added here.
    pub(crate) fn new(
        control: OwnedFd,
        environment: impl Iterator<Item = (OsString, OsString)>,
        depth: u32,
        streams: [Option<OwnedFd>; 3],
        dies_with_parent: bool,
    ) -> Result<Self, Errno> {
        let control = above_standard(control)?;
        let [stdin, stdout, stderr] = streams;
        let streams = [
            stdin.map(above_standard).transpose()?,
            stdout.map(above_standard).transpose()?,
            stderr.map(above_standard).transpose()?,
        ];
        let envp = environment
            .filter(|(name, _)| name != MARKER)
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                c_string(name)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let program = std::env::args_os().next().unwrap_or_default();
        let executable = executable().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        Ok(Self {
            program: &executable.path,
            argv: vec![c_string(program)?],
            envp,
            marker: format!("{MARKER}={}.{depth}.", control.as_raw_fd()),
            control,
            streams,
            dies_with_parent,
        })
    }
}

fn c_string(string: OsString) -> Result<CString, Errno> {
    CString::new(string.into_vec()).map_err(|_| Errno::INVAL)
}

/// The same descriptor with a number that no standard stream has, should this process run with
/// some of those closed.
fn above_standard(descriptor: OwnedFd) -> Result<OwnedFd, Errno> {
    match descriptor.as_raw_fd() {
        ..=2 => rustix::io::fcntl_dupfd_cloexec(&descriptor, 3),
        _ => Ok(descriptor),
    }
}

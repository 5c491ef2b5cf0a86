//! How a process becomes what its starter wants it to be, before it runs the function.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::orders::{Inherit, Refusal, Settings, Start};
use crate::spawn::sys;

/// Takes the descriptors that are not the arguments'.
pub(super) fn settle(start: &Start<'_>, descriptors: &mut Vec<OwnedFd>) -> Result<(), Refusal> {
    if start.daemon {
        die_with_starter(descriptors)?;
    }
    if let Some(inherit) = &start.inherit {
        if start.daemon {
            die_with_parent(start.parent)?;
        }
        inherit_now(inherit, descriptors)?;
    }
    let Settings {
        directory,
        limits,
        own_group,
        own_session,
    } = &start.settings;
    if let Some(directory) = directory {
        rustix::process::chdir(directory.as_path()).map_err(refused("chdir"))?;
    }
    if *own_group {
        rustix::process::setpgid(None, None).map_err(refused("setpgid"))?;
    }
    if *own_session {
        rustix::process::setsid().map_err(refused("setsid"))?;
    }
    limits.apply().map_err(refused("setrlimit"))
}

fn refused(call: &'static str) -> impl Fn(Errno) -> Refusal {
    move |error| Refusal::new(call, error)
}

/// Where `PR_SET_PDEATHSIG` is lost, as when this process changes its user, and where the starter
/// lets go of a daemon that it has no right to kill any more.
fn die_with_starter(descriptors: &mut Vec<OwnedFd>) -> Result<(), Refusal> {
    static LIFELINE: OnceLock<OwnedFd> = OnceLock::new();
    if descriptors.is_empty() {
        return Err(Refusal::new("fcntl", Errno::BADF));
    }
    let lifeline = LIFELINE.get_or_init(|| descriptors.remove(0));
    sys::die_at_hang_up(lifeline.as_fd()).map_err(refused("fcntl"))?;
    if poll([(lifeline.as_fd(), Interest::HangUp)], Wait::Never) == Ok(Polled::Ready) {
        std::process::exit(super::run::EXIT_UNUSED);
    }
    Ok(())
}

fn die_with_parent(parent: i32) -> Result<(), Refusal> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused("prctl"))?;
    if getppid().is_none_or(|now| now.as_raw_pid() != parent) {
        // The program died before the attribute was set: nobody would send the signal.
        std::process::exit(super::run::EXIT_UNUSED);
    }
    Ok(())
}

/// What [`spawn`](crate::spawn) gives a process before it executes the image.
fn inherit_now(inherit: &Inherit, descriptors: &mut Vec<OwnedFd>) -> Result<(), Refusal> {
    let count = 1 + inherit.streams.iter().filter(|&&there| there).count();
    if descriptors.len() < count {
        return Err(Refusal::new("fchdir", Errno::BADF));
    }
    let mut inherited = descriptors.drain(..count);
    if let Some(directory) = inherited.next() {
        rustix::process::fchdir(directory).map_err(refused("fchdir"))?;
    }
    let place = [
        rustix::stdio::dup2_stdin::<OwnedFd> as fn(OwnedFd) -> _,
        rustix::stdio::dup2_stdout,
        rustix::stdio::dup2_stderr,
    ];
    for (place, _) in place
        .iter()
        .zip(inherit.streams)
        .filter(|(_, there)| *there)
    {
        if let Some(stream) = inherited.next() {
            place(stream).map_err(refused("dup2"))?;
        }
    }
    drop(inherited);
    if let Some(environment) = &inherit.environment {
        for (name, _) in std::env::vars_os() {
            sys::set_variable(&name, None);
        }
        for (name, value) in environment {
            sys::set_variable(name, Some(value));
        }
    }
    for (name, value) in &inherit.variables {
        sys::set_variable(name, Some(value));
    }
    Ok(())
}

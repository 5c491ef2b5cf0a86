//! From a child that exists to one that has its arguments. Every wait watches the child too.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::process::Signal;

use crate::StartError;
use crate::child::{self, Start};
use crate::control::{Control, Frame, Kind};
use crate::reap::Child;

/// A child says hello first thing in `init`, a few milliseconds after execve. One that has not
/// by then runs something else.
const PATIENCE: Duration = Duration::from_millis(900);

/// How long a child that has not got to run on a busy machine is waited for all the same.
const PATIENCE_WITH_STARVED: Duration = Duration::from_secs(20);

/// Processor time in which any program has reached its first line.
const STARVED_TICKS: u64 = 20;

pub(crate) fn run(
    child: &Child,
    control: &Control,
    start: &Start<'_>,
    descriptors: Vec<OwnedFd>,
) -> Result<(), StartError> {
    let hello = wait_for_hello(child, control)?;
    let own = child::identity().map_err(|error| StartError::io("stat", error))?;
    if hello.kind != Kind::Hello || hello.body != own {
        let other = io::Error::other("/proc/self/exe led to another program than this one");
        return Err(StartError::io("execve", other));
    }
    let body = postcard::to_stdvec(start).map_err(|error| StartError::Arguments {
        reason: error.to_string(),
    })?;
    let sent = control.send(
        Frame {
            kind: Kind::Start,
            body,
            descriptors,
        },
        || {
            poll(
                [
                    (control.as_fd(), Interest::Write),
                    (child.as_fd(), Interest::Read),
                ],
                Wait::Forever,
            )?;
            if child.has_ended() {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                Ok(())
            }
        },
    );
    match sent {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(died(child)),
        Err(error) => Err(StartError::io("sendmsg", error)),
    }
}

fn wait_for_hello(child: &Child, control: &Control) -> Result<Frame, StartError> {
    let mut pending = Vec::new();
    let mut patience = Wait::at_most(PATIENCE);
    let last = Wait::at_most(PATIENCE_WITH_STARVED);
    loop {
        // Asked before the socket is read: what it sent before its end is there by then.
        let ended = child.has_ended();
        match control.try_recv(&mut pending) {
            Ok(Some(frame)) => return Ok(frame),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ended => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(StartError::io("recvmsg", error));
            }
            Ok(None) | Err(_) => return Err(died(child)),
        }
        let both = [
            (control.as_fd(), Interest::Read),
            (child.as_fd(), Interest::Read),
        ];
        match poll(both, patience).map_err(|error| StartError::io("ppoll", error))? {
            Polled::Ready => {}
            Polled::TimedOut if !last.is_over() && is_starved(child.pid) => {
                patience = Wait::at_most(Duration::from_millis(100));
            }
            Polled::TimedOut => return Err(StartError::InitMissing),
        }
    }
}

/// A child that ended of its own accord before hello ran its own `main`; one that a signal ended
/// did not get there.
fn died(child: &Child) -> StartError {
    match child.wait(Wait::at_most(PATIENCE)) {
        Ok(Some(status)) if status.code().is_none() => StartError::Died(status),
        Ok(_) => StartError::InitMissing,
        Err(error) => StartError::io("waitid", error),
    }
}

/// Whether the child wants to run (or is stopped) and has hardly been let to, from
/// `/proc/<pid>/stat` (proc_pid_stat(5)): state, then user and system time in ticks.
fn is_starved(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The name before may itself contain parentheses and spaces.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let [state, ..] = *fields.as_slice() else {
        return false;
    };
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok());
    let used = ticks(11)
        .zip(ticks(12))
        .map_or(u64::MAX, |(user, system)| user + system);
    matches!(state, "R" | "D" | "T" | "t") && used < STARVED_TICKS
}

/// Leaves nothing of a child that did not get as far as its arguments.
pub(crate) fn end(child: &Child) {
    // It may have ended; if it resists for longer, the supervisor reaps it.
    let _ = child.signal(Signal::KILL);
    let _ = child.wait(Wait::at_most(Duration::from_secs(1)));
}

//! From a child that exists to one that has its arguments. Every wait watches the child too.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::process::Signal;

use crate::StartError;
use crate::control::{Control, Frame, Kind};
use crate::orders::Refusal;
use crate::reap::Child;
use crate::spawn::executable;

/// A child says hello first thing in `init`, a few milliseconds after execve. One that has not
/// by then runs something else.
const PATIENCE: Duration = Duration::from_millis(900);

/// How long a child that has not got to run on a busy machine, or that valgrind interprets, is
/// waited for all the same.
const PATIENCE_WITH_STARVED: Duration = Duration::from_secs(20);

/// Processor time in which any program has reached its first line.
const STARVED_TICKS: u64 = 20;

/// Gives a child its orders; `hello`: and waits until it has said that it is as it was to be.
pub(crate) fn run(
    child: &Child,
    control: &Control,
    orders: Frame,
    hello: bool,
) -> Result<(), StartError> {
    let patience = Patience::new(child, control);
    // Sent ahead of hello: they are there when the child asks for them.
    let sent = control.send(orders, || match patience.wait(Interest::Write) {
        Ok(()) if child.has_ended() => Err(io::ErrorKind::BrokenPipe.into()),
        Ok(()) => Ok(()),
        Err(StartError::Io { source, .. }) => Err(source),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    });
    match sent {
        Ok(()) if hello => {
            let frame = wait_for_hello(&patience)?;
            match frame.kind {
                Kind::Hello => Ok(()),
                Kind::Refused => {
                    let (call, error) = Refusal::read(&frame.body);
                    Err(StartError::io(call, error))
                }
                Kind::BadArguments => Err(StartError::Arguments {
                    reason: String::from_utf8_lossy(&frame.body).into_owned(),
                }),
                _ => Err(StartError::InitMissing),
            }
        }
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(died(child)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(StartError::InitMissing),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(StartError::Arguments {
            reason: error.to_string(),
        }),
        Err(error) => Err(StartError::io("sendmsg", error)),
    }
}

/// How long a child is waited for.
struct Patience<'a> {
    child: &'a Child,
    control: &'a Control,
    first: Wait,
    last: Wait,
}

impl<'a> Patience<'a> {
    fn new(child: &'a Child, control: &'a Control) -> Self {
        Self {
            child,
            control,
            first: Wait::at_most(match executable() {
                Ok(executable) if executable.is_interpreted => PATIENCE_WITH_STARVED,
                _ => PATIENCE,
            }),
            last: Wait::at_most(PATIENCE_WITH_STARVED),
        }
    }

    /// Sleeps until there is something to read, or room to write, or the child has ended.
    fn wait(&self, interest: Interest) -> Result<(), StartError> {
        let mut wait = self.first;
        loop {
            let both = [
                (self.control.as_fd(), interest),
                (self.child.as_fd(), Interest::Read),
            ];
            match poll(both, wait).map_err(|error| StartError::io("ppoll", error))? {
                Polled::Ready => return Ok(()),
                Polled::TimedOut if !self.last.is_over() && is_starved(self.child.pid) => {
                    wait = Wait::at_most(Duration::from_millis(100));
                }
                Polled::TimedOut => return Err(StartError::InitMissing),
            }
        }
    }
}

fn wait_for_hello(patience: &Patience<'_>) -> Result<Frame, StartError> {
    let mut pending = Vec::new();
    loop {
        // Asked before the socket is read: what it sent before its end is there by then.
        let ended = patience.child.has_ended();
        match patience.control.try_recv(&mut pending) {
            Ok(Some(frame)) => return Ok(frame),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ended => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(StartError::io("recvmsg", error));
            }
            Ok(None) | Err(_) => return Err(died(patience.child)),
        }
        patience.wait(Interest::Read)?;
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

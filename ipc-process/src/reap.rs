//! A child from birth to reaping, held by its process descriptor, which no other process can
//! come to own however pids are reused.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, pidfd_send_signal, waitid,
};

use crate::spawn::sys;
use crate::supervisor;

/// What a child is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The program waits for it.
    Plain,
    /// It ends with the program.
    Daemon,
    /// A daemon that nobody started: a zygote, a process that it keeps ready.
    Internal,
}

impl Role {
    pub(crate) fn of_daemon(daemon: bool) -> Self {
        if daemon { Self::Daemon } else { Self::Plain }
    }
}

#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) key: u64,
    /// The process that made it, of which this one may be a fork(2).
    starter: u32,
    pidfd: OwnedFd,
    known_as: Mutex<(Role, Arc<str>)>,
    /// How it ended, once it is reaped; the outer lock keeps two reapers apart.
    ended: Mutex<Option<Ended>>,
    /// How many threads wait for it, and so relieve the supervisor of it.
    pub(crate) waiting: Mutex<u32>,
}

/// `Err`: it ended, but somebody else took the status and the kernel does not keep it.
type Ended = Result<ExitStatus, ()>;

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl From<Child> for OwnedFd {
    fn from(child: Child) -> Self {
        child.pidfd
    }
}

impl Child {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, role: Role) -> Self {
        Self {
            pid: pid.unsigned_abs(),
            key: supervisor::next_key(),
            starter: std::process::id(),
            pidfd,
            known_as: Mutex::new((role, Arc::from(""))),
            ended: Mutex::new(None),
            waiting: Mutex::new(0),
        }
    }

    pub(crate) fn become_known_as(&self, role: Role, name: &str) {
        *lock(&self.known_as) = (role, Arc::from(name));
    }

    pub(crate) fn role(&self) -> Role {
        lock(&self.known_as).0
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&lock(&self.known_as).1)
    }

    /// Whether it is to end with the program.
    pub(crate) fn is_daemon(&self) -> bool {
        self.role() != Role::Plain
    }

    /// Whether it belongs to this process, and not to one that this is a fork(2) of.
    pub(crate) fn is_own(&self) -> bool {
        self.starter == std::process::id()
    }

    /// Whether it has ended, reaped or not: it runs no more code and sends nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        poll([(self.pidfd.as_fd(), Interest::Read)], Wait::Never) == Ok(Polled::Ready)
    }

    /// Whether it is reaped, or there is nothing to be reaped any more.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.ended).is_some()
    }

    /// Reaps the child if it has ended. `Ok(None)` while it lives, and for a moment while a
    /// tracer or another wait holds it.
    pub(crate) fn try_reap(&self) -> io::Result<Option<ExitStatus>> {
        let mut ended = lock(&self.ended);
        if ended.is_none() {
            *ended = look(self.pidfd.as_fd())?;
        }
        match *ended {
            None => Ok(None),
            Some(Ok(status)) => Ok(Some(status)),
            Some(Err(())) => Err(io::Error::other(
                "the process ended, but SIGCHLD is ignored or its status was taken by another \
                 wait, and this kernel (before Linux 6.15) does not keep it",
            )),
        }
    }

    /// Waits for the end and reaps. `Ok(None)` when the wait is over first.
    pub(crate) fn wait(&self, wait: Wait) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.try_reap()? {
            return Ok(Some(status));
        }
        // While somebody waits here the supervisor need not be woken.
        let _here = supervisor::leave_to_caller(self);
        loop {
            if let Some(status) = self.try_reap()? {
                return Ok(Some(status));
            }
            if poll([(self.pidfd.as_fd(), Interest::Read)], wait)? == Polled::TimedOut {
                return Ok(None);
            }
            if let Some(status) = self.try_reap()? {
                return Ok(Some(status));
            }
            // Ended but not to be reaped yet: a tracer holds it (ptrace(2)), or another wait is
            // just taking it. No event tells when that is over, so look again at intervals.
            if poll::<0>([], Wait::at_most(std::time::Duration::from_millis(10))).is_err()
                || wait.is_over()
            {
                return Ok(None);
            }
        }
    }

    /// Sends a signal; to a process that has ended already it is as good as delivered.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            // Linux has had the call since before all else that we need; valgrind may not.
            Err(Errno::NOSYS) => self.signal_by_pid(signal),
            Err(error) => Err(error.into()),
        }
    }

    fn signal_by_pid(&self, signal: Signal) -> io::Result<()> {
        let ended = lock(&self.ended);
        match Pid::from_raw(self.pid.cast_signed()) {
            // Not reaped, and not to be as long as we hold the lock: the pid is its own.
            Some(pid) if ended.is_none() => Ok(kill_process(pid, signal)?),
            _ => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        return match waitid(WaitId::PidFd(pidfd), options) {
            Ok(None) => Ok(None),
            Ok(Some(status)) => Ok(Some(Ok(to_exit_status(&status)))),
            Err(Errno::INTR) => continue,
            Err(Errno::CHILD) => reaped_by_others(pidfd),
            Err(error) => Err(error.into()),
        };
    }
}

/// ECHILD: the kernel discards our children (SIGCHLD is ignored), or somebody's waitpid(-1) took
/// this one. With SIGCHLD ignored it may still be alive.
fn reaped_by_others(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    if poll([(pidfd, Interest::Read)], Wait::Never)? == Polled::TimedOut {
        return Ok(None);
    }
    let asked = match sys::exit_status_after_reaping(pidfd) {
        // The kernel looks for the status first and for the process then: one that was reaped
        // between the two seems to have neither. By now it has left its status.
        Err(Errno::SRCH) => sys::exit_status_after_reaping(pidfd),
        other => other,
    };
    match asked {
        Ok(Some(status)) => Ok(Some(Ok(ExitStatus::from_raw(status)))),
        // The other one has claimed it (hence ECHILD) and is still at it.
        Ok(None) => Ok(None),
        Err(_) => Ok(Some(Err(()))),
    }
}

/// The wait status as waitpid(2) would have given it.
fn to_exit_status(status: &WaitIdStatus) -> ExitStatus {
    const CORE_FLAG: i32 = 0x80;
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if status.dumped() => signal | CORE_FLAG,
        (None, signal) => signal.unwrap_or(0),
    };
    ExitStatus::from_raw(raw)
}

/// Reaps a child whose end is certain and of no interest.
pub(crate) fn forget(pidfd: &OwnedFd) {
    let wait = || waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    while matches!(wait(), Err(Errno::INTR)) {}
}

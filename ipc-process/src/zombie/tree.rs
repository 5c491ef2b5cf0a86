//! The descendants of a process, and the end of all of them.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use ipc_core::Wait;
use ipc_core::wait::{Interest, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::stat::Stat;

/// A process that descends from another, as [`Reaper::list`](super::Reaper::list) gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descendant {
    /// Its process id.
    pub pid: u32,
    /// The process id of its parent.
    pub parent: u32,
    /// The name of its program, up to 15 bytes of it.
    pub name: String,
    /// Whether it has ended and is not reaped yet.
    pub is_zombie: bool,
}

/// Parents before their children; none of a process that has ended, whose pid another may own by
/// now. `lives` tells whether it has not.
pub(super) fn descendants(root: u32, lives: impl Fn() -> bool) -> io::Result<Vec<Stat>> {
    let mut others = Stat::of_all()?;
    // Asked afterwards: then the pid was its own all the time.
    if !lives() {
        return Ok(Vec::new());
    }
    let mut found: Vec<Stat> = Vec::new();
    let mut parents = vec![root];
    while !parents.is_empty() {
        let (children, rest) = others
            .into_iter()
            .partition(|stat: &Stat| parents.contains(&stat.parent));
        others = rest;
        parents = children.iter().map(|child: &Stat| child.pid).collect();
        found.extend(children);
    }
    Ok(found)
}

/// Ends all descendants of a process, those among them that are being made included: stops first
/// whatever runs, since what is stopped forks no more, and looks again until there is nothing.
/// How many it ended.
pub(super) fn kill_descendants(root: u32, lives: impl Fn() -> bool) -> io::Result<usize> {
    let mut ended = 0;
    loop {
        let mut living = Vec::new();
        loop {
            let found = descendants(root, &lives)?;
            let mut new = Vec::new();
            for stat in found {
                if stat.state == 'Z' || living.iter().any(|(known, _)| is_same(known, &stat)) {
                    continue;
                }
                match hold(&stat) {
                    Ok(pidfd) => new.extend(pidfd.map(|pidfd| (stat, pidfd))),
                    // No more descriptors: the next round is for the rest.
                    Err(_) if !(living.is_empty() && new.is_empty()) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if new.is_empty() {
                break;
            }
            for (_, pidfd) in &new {
                // One that has ended meanwhile, or that is not ours to stop, is none the worse.
                let _ = pidfd_send_signal(pidfd, Signal::STOP);
            }
            living.extend(new);
        }
        if living.is_empty() {
            return Ok(ended);
        }
        for (_, pidfd) in &living {
            match pidfd_send_signal(pidfd, Signal::KILL) {
                Ok(()) => ended += 1,
                Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let soon = Wait::at_most(Duration::from_secs(1));
        for (_, pidfd) in &living {
            poll([(pidfd.as_fd(), Interest::Read)], soon)?;
        }
    }
}

fn is_same(a: &Stat, b: &Stat) -> bool {
    (a.pid, a.start) == (b.pid, b.start)
}

/// A hold on this very process, not on one that came by its pid since; `None` if it is gone.
fn hold(stat: &Stat) -> Result<Option<OwnedFd>, Errno> {
    let Some(pid) = Pid::from_raw(stat.pid.cast_signed()) else {
        return Ok(None);
    };
    // Before its entry is looked at once more, which takes a descriptor, too.
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let same = Stat::of(stat.pid).is_some_and(|now| is_same(&now, stat));
    Ok(same.then_some(pidfd))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_has_ended_has_no_descendants() {
        if crate::proc::check_pids().is_err() {
            return;
        }
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let own = std::process::id();
        let is_child = |stat: &Stat| stat.pid == child.id();
        assert!(descendants(own, || true).unwrap().iter().any(is_child));
        // As if this pid had come to another process since.
        assert!(descendants(own, || false).unwrap().is_empty());
        assert_eq!(kill_descendants(own, || false).unwrap(), 0);
        drop(child.stdin.take());
        // No status where SIGCHLD is ignored.
        let _ = child.wait();
    }
}

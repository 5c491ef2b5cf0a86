use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::stat::Stat;

/// A child of this process that has ended and has not been waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Zombie {
    /// Its process id, which no other process gets while it is a zombie.
    pub pid: u32,
    /// The name of its program, up to 15 bytes of it.
    pub name: String,
}

/// The zombies among the children of this process, from `/proc/<pid>/stat` of every process that
/// we may see. One that `std::process` or another part of the program is about to wait for is
/// among them.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn zombies() -> io::Result<Vec<Zombie>> {
    let own = std::process::id();
    let zombies = Stat::of_all()?
        .into_iter()
        .filter(|stat| stat.state == 'Z' && stat.parent == own);
    Ok(zombies
        .map(|stat| Zombie {
            pid: stat.pid,
            name: stat.name,
        })
        .collect())
}

/// Reaps this child if it has ended; `None` if it lives. Whoever else holds it, such as a
/// `std::process::Child`, cannot learn its status any more.
///
/// # Errors
/// ECHILD if there is no such child, or if it has been reaped.
pub fn reap(pid: u32) -> io::Result<Option<ExitStatus>> {
    let pid = pid
        .try_into()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::CHILD)?;
    loop {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(ended) => {
                return Ok(ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw())));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

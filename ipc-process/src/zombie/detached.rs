use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::descriptor::Descriptor;
use crate::spawn;
use crate::start::{SpawnElsewhere, spawn_for_another, start_elsewhere};
use crate::{Process, StartError, Stdio, Target};

/// Runs a function in a process that is nobody's here: a child of a child that has ended, in a
/// session of its own, its standard streams `/dev/null`. It becomes a child of `init` or of the
/// nearest [`Reaper`](super::Reaper), which reap it; it goes on when this program ends. Its result
/// is dropped.
///
/// Nothing of it stays here but the returned descriptor, by which it can be waited for and sent
/// signals, whoever its parent is.
///
/// ```no_run
/// use ipc_process::zombie::spawn_detached;
///
/// # fn main() -> Result<(), ipc_process::StartError> {
/// # ipc_process::init();
/// let indexer = spawn_detached(|path: String| { /* hours */ }, ("/srv/books".to_owned(),))?;
/// println!("indexing as {}", indexer.pid());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Unstarted::start`](crate::Unstarted::start).
pub fn spawn_detached<F, A>(function: F, arguments: A) -> Result<Detached, StartError>
where
    F: Target<A>,
    A: Serialize + DeserializeOwned + 'static,
{
    let mut description = Process::new(function, arguments)
        .stdin(Stdio::Null)
        .stdout(Stdio::Null)
        .stderr(Stdio::Null);
    description.settings.own_session = true;
    let process = start_elsewhere(description, 0, |order, descriptors| {
        let descriptors: Vec<_> = descriptors.into_iter().map(Descriptor).collect();
        let between = Process::new(make_another, (order, descriptors)).name("ipc-detach");
        let (pid, pidfd) = between
            .start()?
            .join()
            .map_err(|error| StartError::io("clone", io::Error::other(error)))?
            .map_err(|errno| StartError::io("clone", io::Error::from_raw_os_error(errno)))?;
        Ok((pid, pidfd.0))
    })?;
    let child = process.into_child();
    let pidfd = child.as_fd().try_clone_to_owned();
    Ok(Detached {
        pid: child.pid,
        pidfd: pidfd.map_err(|error| StartError::io("fcntl", error))?,
    })
}

/// Runs in the child, which makes its own and ends: not one that it would wait for.
fn make_another(
    order: SpawnElsewhere,
    descriptors: Vec<Descriptor>,
) -> Result<(i32, Descriptor), i32> {
    let descriptors = descriptors.into_iter().map(|Descriptor(fd)| fd).collect();
    spawn_for_another(order, descriptors, |spawn, _| Ok(spawn::spawn(&spawn)?))
        .map(|(pid, pidfd)| (pid, Descriptor(pidfd)))
        .map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))
}

/// A process that is not a child of this one.
#[derive(Debug)]
pub struct Detached {
    pid: u32,
    pidfd: OwnedFd,
}

impl Detached {
    /// Its process id. For people and logs: once the process has ended, another may get it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// The process descriptor: readable once the process has ended.
impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl From<Detached> for OwnedFd {
    fn from(detached: Detached) -> Self {
        detached.pidfd
    }
}

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::start::start_detached;
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
    A: Serialize + DeserializeOwned,
{
    let description = Process::new(function, arguments)
        .stdin(Stdio::Null)
        .stdout(Stdio::Null)
        .stderr(Stdio::Null);
    let (pid, pidfd) = start_detached(description)?;
    Ok(Detached { pid, pidfd })
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

use std::io;
use std::time::Duration;

use ipc_core::Limit;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// How much of the machine a process may use: `setrlimit(2)`. What is not named stays as it is
/// in this process, and nothing is raised above the hard limits of this process.
///
/// ```
/// use std::time::Duration;
/// use ipc_process::Limits;
///
/// let limits = Limits::new().memory(512 << 20).cpu(Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    memory: Option<u64>,
    cpu: Option<u64>,
    descriptors: Option<u64>,
    file_size: Option<u64>,
    processes: Option<u64>,
    core: Option<u64>,
}

impl Limits {
    /// No limits of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Address space in bytes (`RLIMIT_AS`). Beyond it an allocation fails, which aborts a Rust
    /// program: [`Killed`](crate::JoinError::Killed) by signal 6. Stacks of threads and the program
    /// itself count.
    #[must_use]
    pub fn memory(self, bytes: u64) -> Self {
        Self {
            memory: Some(bytes),
            ..self
        }
    }

    /// Processor time of all its threads together, rounded up to seconds (`RLIMIT_CPU`). The
    /// kernel ends the process by SIGXCPU (24) then, and by SIGKILL a second later.
    #[must_use]
    pub fn cpu(self, time: Duration) -> Self {
        let rounded_up = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        Self {
            cpu: Some(rounded_up),
            ..self
        }
    }

    /// Open descriptors (`RLIMIT_NOFILE`); those that arrive with the arguments do not count.
    #[must_use]
    pub fn descriptors(self, count: u64) -> Self {
        Self {
            descriptors: Some(count),
            ..self
        }
    }

    /// Size in bytes of a file that it writes (`RLIMIT_FSIZE`). Beyond it the kernel sends SIGXFSZ.
    #[must_use]
    pub fn file_size(self, bytes: u64) -> Self {
        Self {
            file_size: Some(bytes),
            ..self
        }
    }

    /// Processes and threads of its user, all of them (`RLIMIT_NPROC`); not for root.
    #[must_use]
    pub fn processes(self, count: u64) -> Self {
        Self {
            processes: Some(count),
            ..self
        }
    }

    /// Size in bytes of a core file (`RLIMIT_CORE`); 0 for none.
    #[must_use]
    pub fn core(self, bytes: u64) -> Self {
        Self {
            core: Some(bytes),
            ..self
        }
    }

    /// Applies them to this process.
    pub(crate) fn apply(&self) -> rustix::io::Result<()> {
        let one_more_second = |seconds: u64| seconds.saturating_add(1);
        let all = [
            (Resource::As, self.memory, self.memory),
            // Soft before hard, or SIGKILL would come first and SIGXCPU never.
            (Resource::Cpu, self.cpu, self.cpu.map(one_more_second)),
            (Resource::Nofile, self.descriptors, self.descriptors),
            (Resource::Fsize, self.file_size, self.file_size),
            (Resource::Nproc, self.processes, self.processes),
            (Resource::Core, self.core, self.core),
        ];
        for (resource, current, maximum) in all {
            if current.is_some() {
                let hard = getrlimit(resource).maximum;
                let at_most = |value: Option<u64>| match (value, hard) {
                    (Some(value), Some(hard)) => Some(value.min(hard)),
                    (value, _) => value,
                };
                setrlimit(
                    resource,
                    Rlimit {
                        current: at_most(current),
                        maximum: at_most(maximum),
                    },
                )?;
            }
        }
        Ok(())
    }
}

/// Whether this process may make a memfd so long. Beyond `RLIMIT_FSIZE` the write to it, as to any
/// file, would be a SIGXFSZ, which ends the process (setrlimit(2)): ask first.
pub(crate) fn check_memfd(len: usize) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(most) if len as u64 > most => {
            let limit = Limit {
                name: "RLIMIT_FSIZE",
                value: Some(most),
                advice: "raise it (ulimit -f): more than 64 KiB travel in memory that counts as a \
                         file",
            };
            Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{len} bytes: {limit}"),
            ))
        }
        _ => Ok(()),
    }
}

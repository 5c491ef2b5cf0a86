use std::path::{Path, PathBuf};

use ipc_core::{Tunable, WaitStrategy};

/// What a committed message survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The death of every process, not that of the kernel: committed records lie in the page
    /// cache, and a `send` costs no system call.
    #[default]
    Process,
    /// Power loss too, as far as the disk keeps its word: each `send` ends with one `fdatasync(2)`,
    /// and so does each *batch*, so that a batch of a thousand messages costs as much as one.
    PowerLoss,
}

/// How a log is made and waited for.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) capacity: usize,
    pub(crate) wait_strategy: WaitStrategy,
    pub(crate) durability: Durability,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) salvage: bool,
}

impl Default for Options {
    /// 1 MiB, [`WaitStrategy::Adaptive`], [`Durability::Process`], in the directory for temporary
    /// files.
    fn default() -> Self {
        Self {
            capacity: 1 << 20,
            wait_strategy: WaitStrategy::default(),
            durability: Durability::default(),
            directory: None,
            salvage: false,
        }
    }
}

impl Options {
    /// At least this many bytes of records, 16 bytes of header each, wait before a sender does,
    /// and one message of this length fits. The file takes somewhat more than twice as much.
    #[must_use]
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// How both ends wait.
    #[must_use]
    pub fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.wait_strategy = strategy;
        self
    }

    /// What a committed message survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Where the file without a name lives: its file system decides what an exchange costs, and
    /// what [`Durability::PowerLoss`] is worth. The default is [`std::env::temp_dir`].
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }
}

impl Options {
    /// What [`Log::open`](crate::Log::open) does with a log that is damaged where valid records
    /// follow: `true` cuts it off at the damage, and these records are lost; `false`, the default,
    /// refuses to open it. Lost power can leave such a hole among records that were not yet synced.
    #[must_use]
    pub fn salvage(mut self, salvage: bool) -> Self {
        self.salvage = salvage;
        self
    }
}

impl Tunable for Options {
    fn wait_strategy(self, strategy: WaitStrategy) -> Self {
        Self::wait_strategy(self, strategy)
    }

    fn capacity(self, bytes: usize) -> Self {
        Self::capacity(self, bytes)
    }
}

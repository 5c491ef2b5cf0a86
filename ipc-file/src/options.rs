use std::path::{Path, PathBuf};

use ipc_core::{Tunable, WaitStrategy};

/// What a record survives once the call that appended it has returned.
///
/// A channel's file has no name, so whatever its level it ends with the last end; what was sent
/// survives its sender. [`FileLog`](crate::FileLog) refuses `PowerLoss`, which it could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing. A [`Log`](crate::Log) gathers records in this process, 256 KiB or a segment at a time,
    /// and loses them with it; [`flush`](crate::Log::flush), [`sync`](crate::Log::sync) and closing put them
    /// into the log. A channel lies in sealed memory, where no storage is touched.
    Nothing,
    /// The death of every process, not that of the kernel: records lie in the page cache, and
    /// appending one costs no system call.
    #[default]
    Process,
    /// Power loss too, as far as the disk keeps its word: each call ends with one `fdatasync(2)`,
    /// whether it appended one record or a batch of a thousand. A segment that has become full takes
    /// another, and the new one's name an `fsync(2)` of the directory.
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

    /// What an appended record survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Where a channel's file without a name lives. The default is [`std::env::temp_dir`].
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }
}

impl Options {
    /// What [`Log::open`](crate::Log::open) does with a log that is damaged where records were
    /// safe: `false`, the default, refuses to open it; `true` appends behind the last good record
    /// and leaves the damage in place, where followers meet it and can
    /// [step over it](crate::Follower::resynchronize).
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

use ipc_core::{Tunable, WaitStrategy};

/// How a pipe is made. The default: 256 KiB of capacity, messages up to 16 MiB, adaptive waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) capacity: usize,
    pub(crate) max_message: usize,
    pub(crate) strategy: WaitStrategy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity: 256 << 10,
            max_message: 16 << 20,
            strategy: WaitStrategy::default(),
        }
    }
}

impl Options {
    /// The longest message in bytes that the receiver takes in: what a hostile sender can make it
    /// allocate. At most `u32::MAX - 1`.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }
}

impl Tunable for Options {
    fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Bytes in the kernel's buffer, rounded up to a power of two of at least a page. It is a
    /// wish: beyond `fs.pipe-max-size` (1 MiB), or `fs.pipe-user-pages-soft` for all pipes of a
    /// user, the kernel refuses, and the pipe gets the half or quarter or less that it grants, which
    /// is slower and nothing else.
    fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }
}

use ipc_core::{OpenError, Tunable, WaitStrategy};

use crate::layout::{MAX_CAPACITY, MIN_CAPACITY};

/// What can be chosen for a channel.
///
/// The default: a ring of 1 MiB, which carries messages up to 512 KiB less 8 bytes and stays
/// within a usual second-level cache; adaptive waiting.
#[derive(Clone, Debug)]
pub struct Options {
    capacity: usize,
    strategy: WaitStrategy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity: 1 << 20,
            strategy: WaitStrategy::default(),
        }
    }
}

impl Options {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the ring, rounded up to a power of two from 4096 to 2^32. The longest message has
    /// half of it less 8 bytes; each message takes 8 bytes more than its length, rounded up to a
    /// multiple of 8.
    ///
    /// What is in use goes to and fro between the caches of two processors. Streams of short messages
    /// are fastest in a ring of 64 KiB to 1 MiB. Those of messages of 64 KiB and more are in one of
    /// 4 MiB, or of the longest four if that is more: larger than a core's own cache, so that what the
    /// receiver reads has left the sender's by then, and with as many messages under way as keep
    /// both ends busy.
    #[must_use]
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// How both ends wait.
    #[must_use]
    pub fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    pub(crate) fn strategy(&self) -> WaitStrategy {
        self.strategy
    }

    pub(crate) fn ring_len(&self) -> Result<usize, OpenError> {
        self.capacity
            .max(MIN_CAPACITY)
            .checked_next_power_of_two()
            .filter(|&len| len <= MAX_CAPACITY)
            .ok_or(OpenError::Invalid {
                what: "a ring has at most 4 GiB; choose a smaller capacity",
            })
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

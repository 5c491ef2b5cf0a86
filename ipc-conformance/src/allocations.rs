#![expect(
    unsafe_code,
    reason = "implementing GlobalAlloc is unsafe; it only forwards to System"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting the calls of each thread. Every test target of the suite
/// installs it.
#[derive(Debug)]
pub struct Counting;

/// Allocations that this thread has made.
pub(crate) fn count() -> u64 {
    COUNT.get()
}

/// Allocations that this thread makes in `run`, in a program with [`Counting`] as its allocator.
pub fn allocations_of(run: impl FnOnce()) -> u64 {
    let before = count();
    run();
    count() - before
}

fn note() {
    // A thread that is just ending has no count any more, and nobody asks for it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to `System` unchanged, and counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's obligations are those of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's obligations are those of `System::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: `memory` came from `System`, the rest are the caller's obligations.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

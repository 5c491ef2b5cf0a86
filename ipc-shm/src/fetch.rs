//! Cache lines: asked for before they are needed.
#![expect(
    unsafe_code,
    reason = "the processor is asked for lines by instructions that no safe code has"
)]

use std::ptr;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// How much of a long message is under way at a time from another core's cache or the last level.
const FAR: usize = 128 * LINE;

/// Bytes copied between two looks ahead.
const STRIDE: usize = 16 * LINE;

/// Fills `to` from lines that another core wrote. The processor fetches ahead of a `memcpy` too, but
/// by far not enough lines at a time for what is so far away. Nothing is fetched from beyond the
/// message: there the peer may be writing.
///
/// # Safety
/// `from` has as many bytes as `to`, and the two do not overlap.
#[inline]
pub(crate) unsafe fn copy_from_afar(from: *const u8, to: &mut [u8]) {
    let len = to.len();
    for (at, stride) in (0..).step_by(STRIDE).zip(to.chunks_mut(STRIDE)) {
        for ahead in (at + FAR..len.min(at + FAR + STRIDE)).step_by(LINE) {
            fetch_from_afar(from.wrapping_add(ahead));
        }
        // SAFETY: `at` is where this stride begins in `to`, so `from` has its bytes too.
        let from = unsafe { from.add(at) };
        // SAFETY: the caller's word.
        unsafe { ptr::copy_nonoverlapping(from, stride.as_mut_ptr(), stride.len()) };
    }
}

/// Asks for a line with the right to write it. A hint: any address will do.
#[inline]
pub(crate) fn fetch_for_writing(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `prefetchw` changes nothing but the caches and never faults; every processor of
    // this architecture takes it, at worst as an instruction that does nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for a line. A hint: any address will do.
#[inline]
pub(crate) fn fetch_for_reading(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing but the caches and never faults.
    unsafe {
        std::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for a line into the second-level cache. A hint: any address will do.
#[inline]
fn fetch_from_afar(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing but the caches and never faults.
    unsafe {
        std::arch::asm!("prefetcht1 [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

//! Hints to the caches.

/// Size of a cache line in bytes.
pub(crate) const LINE: usize = 64;

/// Prefetches the line at an address, which need not be valid memory, into the first-level cache.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch_line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which never faults; SSE is part of every x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

/// Prefetches the line at an address, which need not be valid memory, into the second-level cache.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch_line_early(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint, which never faults; SSE is part of every x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
}

/// Prefetches elements that will be read soon into the second-level cache: worthwhile if memory is idle during one
/// computation and the next would wait for it.
#[inline(always)]
pub(crate) fn prefetch<T>(numbers: &[T]) {
    for line in numbers.iter().step_by(LINE / size_of::<T>()) {
        let at: *const T = line;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which never faults; SSE is part of every x86-64.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a hint, which never faults and changes no register.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly));
        }
        let _ = at;
    }
}

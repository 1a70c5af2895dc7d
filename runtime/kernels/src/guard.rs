//! Buffers with an unreadable page directly before or after them, for tests.
//!
//! A kernel that accesses one element outside its slice crashes the test process immediately instead of reading other
//! memory of the allocator.

use std::ffi::{c_int, c_long, c_void};
use std::ops::{Deref, DerefMut};

unsafe extern "C" {
    fn mmap(addr: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: c_long) -> *mut c_void;
    fn mprotect(addr: *mut c_void, len: usize, prot: c_int) -> c_int;
    fn munmap(addr: *mut c_void, len: usize) -> c_int;
}

const PROT_NONE: c_int = 0;
const PROT_READ_WRITE: c_int = 1 | 2;
const MAP_PRIVATE_ANONYMOUS: c_int = 0x02 | 0x20;
/// A multiple of the page size on every Linux system that tests run on.
const PAGE: usize = 64 * 1024;

/// Which end of the buffer the unreadable page touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Edge {
    /// The page ends right before the first element.
    Start,
    /// The page starts right after the last element.
    End,
}

impl Edge {
    /// Both ends.
    pub(crate) const BOTH: [Edge; 2] = [Edge::Start, Edge::End];
}

/// A slice of plain elements at the edge of accessible memory.
pub(crate) struct Guarded<T> {
    pages: *mut c_void,
    pages_len: usize,
    start: *mut T,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    /// A copy of `values` with an unreadable page at `edge`.
    pub(crate) fn new(values: &[T], edge: Edge) -> Self {
        let bytes = size_of_val(values);
        let inner = bytes.next_multiple_of(PAGE).max(PAGE);
        let pages_len = inner + 2 * PAGE;
        // SAFETY: a fresh private mapping, whose middle is made accessible.
        let pages = unsafe {
            let pages = mmap(std::ptr::null_mut(), pages_len, PROT_NONE, MAP_PRIVATE_ANONYMOUS, -1, 0);
            assert_ne!(pages.addr(), usize::MAX, "mmap failed");
            assert_eq!(mprotect(pages.byte_add(PAGE), inner, PROT_READ_WRITE), 0, "mprotect failed");
            pages
        };
        let offset = match edge {
            Edge::Start => PAGE,
            Edge::End => PAGE + inner - bytes,
        };
        // SAFETY: `offset..offset + bytes` lies in the accessible middle and is page-aligned at one end; the size of an
        // element is a multiple of its alignment, so the start is aligned too.
        let start = unsafe {
            let start = pages.byte_add(offset).cast::<T>();
            std::ptr::copy_nonoverlapping(values.as_ptr(), start, values.len());
            start
        };
        Guarded { pages, pages_len, start, len: values.len() }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` has initialized `len` elements that live as long as the mapping.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`, no longer borrowed.
        unsafe { munmap(self.pages, self.pages_len) };
    }
}

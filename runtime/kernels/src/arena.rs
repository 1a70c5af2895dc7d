//! Aligned memory, and disjoint mutable borrows of it, checked at run time.
//!
//! The planner places every tensor of a model in one block of memory. A step reads some ranges of the block while it
//! writes others, which the borrow checker cannot verify on a plain slice. [`Arena::views`] checks once per step that
//! no write range overlaps another range and then hands out ordinary slices, so the runtime above needs no unsafe code.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::num::NonZero;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

/// Alignment in bytes of every allocation: one cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Start of an empty block: aligned like every other block.
const NOWHERE: NonZero<usize> = NonZero::new(ALIGNMENT).unwrap();

/// The most write ranges that one [`Views`] may hold.
pub const MAX_WRITES: usize = 64;

/// Element types for which every bit pattern, including all zeros, is a valid value.
///
/// # Safety
/// The type has no padding, no invalid bit pattern and no destructor.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

macro_rules! plain {
    ($($number:ty),*) => {$(
        // SAFETY: a primitive numeric type; every bit pattern is a value.
        unsafe impl Plain for $number {}
    )*};
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, f32);

// SAFETY: transparent wrappers of `u16`.
unsafe impl Plain for half::f16 {}
// SAFETY: as above.
unsafe impl Plain for half::bf16 {}

/// Blocks of at least this many bytes are mapped: their pages are zero without being written, they return to the system
/// when the block is dropped, and on systems with huge pages, reading a block in order causes fewer TLB misses.
const MAPPED: usize = 256 * 1024;

/// An owned slice that starts on an [`ALIGNMENT`]-byte boundary: packed weights, arenas, scratch.
pub struct AlignedVec<T: Plain> {
    start: NonNull<T>,
    len: usize,
    /// Owns the elements of a large block and of a block cut from a [`Slab`]; `None` for elements on the heap.
    map: Option<Arc<MmapMut>>,
}

// SAFETY: it owns its elements, which are `Send` and `Sync`.
unsafe impl<T: Plain> Send for AlignedVec<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for AlignedVec<T> {}

impl<T: Plain> AlignedVec<T> {
    /// `len` zeros, or `None` if the system has no memory for them.
    pub fn try_zeroed(len: usize) -> Option<AlignedVec<T>> {
        let layout = Self::layout(len)?;
        if layout.size() == 0 {
            return Some(AlignedVec { start: NonNull::without_provenance(NOWHERE), len, map: None });
        }
        if layout.size() >= MAPPED {
            let mut map = MmapMut::map_anon(layout.size()).ok()?;
            prefer_huge_pages(&map);
            let start = NonNull::new(map.as_mut_ptr())?;
            return Some(AlignedVec { start: start.cast(), len, map: Some(Arc::new(map)) });
        }
        // SAFETY: the size of the layout is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(AlignedVec { start: start.cast(), len, map: None })
    }

    /// `len` zeros. Aborts, as `Vec` does, when there is no memory, and panics when `len` overflows.
    pub fn zeroed(len: usize) -> AlignedVec<T> {
        match Self::try_zeroed(len) {
            Some(vec) => vec,
            None => handle_alloc_error(Self::layout(len).expect("size overflow")),
        }
    }

    /// A copy of `values`, or `None` if the system has no memory for it.
    pub fn try_from_slice(values: &[T]) -> Option<AlignedVec<T>> {
        let mut vec = Self::try_zeroed(values.len())?;
        vec.copy_from_slice(values);
        Some(vec)
    }

    /// A copy of `values`. Aborts when there is no memory.
    pub fn from_slice(values: &[T]) -> AlignedVec<T> {
        let mut vec = Self::zeroed(values.len());
        vec.copy_from_slice(values);
        vec
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_mul(size_of::<T>())?, ALIGNMENT).ok()
    }
}

/// Size in bytes of a huge page on most systems that have them.
const HUGE_PAGE: usize = 2 * 1024 * 1024;

/// A multiple of the size of an ordinary page on every system.
#[cfg(target_os = "linux")]
const PAGE: usize = 64 * 1024;

/// Asks for huge pages if the block fills a few of them. It is not an error if the system has none.
fn prefer_huge_pages(map: &MmapMut) {
    #[cfg(target_os = "linux")]
    {
        if map.len() >= 2 * HUGE_PAGE {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

impl<T: Plain> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len)
            && layout.size() > 0
            && self.map.is_none()
        {
            // SAFETY: no map owns it, so it was allocated in `try_zeroed` with this same layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) }
        }
    }
}

impl<T: Plain> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `len` initialized elements (or dangles, aligned, when there are none).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> Clone for AlignedVec<T> {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl<T: Plain + std::fmt::Debug> std::fmt::Debug for AlignedVec<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.deref().fmt(f)
    }
}

/// Allocates blocks side by side, in the order of the calls.
///
/// A run reads the weights of a model from first to last, and the weights of most steps are smaller than a huge page.
/// Side by side they fill huge pages, so reading them causes fewer TLB misses.
pub struct Slab {
    chunk: Option<Chunk>,
    /// Size of a chunk in bytes; 0 if every block is allocated on its own.
    chunk_len: usize,
}

/// A large mapping that blocks are cut from.
struct Chunk {
    map: Arc<MmapMut>,
    start: NonNull<u8>,
    /// Bytes from the start that already belong to blocks.
    used: usize,
}

impl Slab {
    /// Bytes of a chunk.
    const CHUNK: usize = 8 * HUGE_PAGE;

    /// A slab for about `expected` bytes in all. If these would not fill huge pages, every block is allocated on its
    /// own.
    pub fn new(expected: usize) -> Slab {
        let is_large = cfg!(target_os = "linux") && expected >= 2 * HUGE_PAGE;
        Slab { chunk: None, chunk_len: if is_large { Self::CHUNK } else { 0 } }
    }

    /// A block of `len` zeros, or `None` if the system has no memory for it.
    pub fn try_zeroed(&mut self, len: usize) -> Option<AlignedVec<u8>> {
        self.cut(len).or_else(|| AlignedVec::try_zeroed(len))
    }

    /// Cuts a block from a chunk. `None` if there is no memory for a chunk, or if the block is too large to share one.
    fn cut(&mut self, len: usize) -> Option<AlignedVec<u8>> {
        if len == 0 || len > self.chunk_len / 4 {
            return None;
        }
        if self.chunk.as_ref().is_none_or(|chunk| self.chunk_len - chunk.used < len) {
            self.trim();
            let mut map = MmapMut::map_anon(self.chunk_len).ok()?;
            prefer_huge_pages(&map);
            let start = NonNull::new(map.as_mut_ptr())?;
            self.chunk = Some(Chunk { map: Arc::new(map), start, used: 0 });
        }
        let chunk = self.chunk.as_mut()?;
        // SAFETY: `used + len` is at most the chunk's length.
        let start = unsafe { chunk.start.add(chunk.used) };
        // The chunk's length is a multiple of the alignment, so this stays inside.
        chunk.used = (chunk.used + len).next_multiple_of(ALIGNMENT);
        // These bytes are not shared: bytes in use are never cut again, and the map is not read through the `Arc`.
        Some(AlignedVec { start, len, map: Some(chunk.map.clone()) })
    }

    /// Returns the unused rest of the chunk to the system: otherwise its first huge page, partly in use, would occupy
    /// memory as a whole.
    fn trim(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(Chunk { map, used, .. }) = self.chunk.take()
            && let used = used.next_multiple_of(PAGE)
            && used < map.len()
        {
            // SAFETY: no block has these bytes, and none will get them.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, used, map.len() - used) };
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.trim();
    }
}

/// One zero-initialized, 64-byte aligned block of memory, borrowed range by range.
pub struct Arena {
    memory: AlignedVec<u8>,
}

impl Arena {
    /// A block of `bytes` zeros. Aborts when the system has no memory; see [`Arena::try_new`].
    pub fn new(bytes: usize) -> Arena {
        Arena { memory: AlignedVec::zeroed(bytes) }
    }

    /// A block of `bytes` zeros, or `None` if the system has no memory for it.
    pub fn try_new(bytes: usize) -> Option<Arena> {
        Some(Arena { memory: AlignedVec::try_zeroed(bytes)? })
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether the size is zero.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// All of the memory, to read.
    pub fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// All of the memory, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Borrows the ranges in `writes` exclusively and everything else shared. `None` if a range is out of bounds or
    /// overlaps another, or if there are more than [`MAX_WRITES`]. Allocates nothing.
    pub fn views<'a>(&'a mut self, writes: &[Range<usize>]) -> Option<Views<'a>> {
        if writes.len() > MAX_WRITES {
            return None;
        }
        let mut held = [const { 0..0 }; MAX_WRITES];
        for (i, range) in writes.iter().enumerate() {
            if range.start > range.end || range.end > self.len() {
                return None;
            }
            if held[..i].iter().any(|earlier| overlap(earlier, range)) {
                return None;
            }
            held[i] = range.clone();
        }
        Some(Views {
            base: NonNull::from(&mut *self.memory).cast(),
            len: self.memory.len(),
            writes: held,
            count: writes.len(),
            taken: 0,
            arena: PhantomData,
        })
    }
}

/// Disjoint borrows of an [`Arena`]: some ranges to write, the rest to read.
pub struct Views<'a> {
    base: NonNull<u8>,
    len: usize,
    writes: [Range<usize>; MAX_WRITES],
    count: usize,
    /// Bit `i` is set once `write(i)` has been handed out.
    taken: u64,
    arena: PhantomData<&'a mut [u8]>,
}

impl<'a> Views<'a> {
    /// The bytes of `range`; `None` if it is out of bounds or overlaps a write range.
    pub fn read(&self, range: Range<usize>) -> Option<&'a [u8]> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        if self.writes[..self.count].iter().any(|write| overlap(write, &range)) {
            return None;
        }
        // SAFETY: in bounds of the arena, which stays exclusively borrowed for 'a; no write range reaches into it,
        // and only write ranges are ever handed out as exclusive slices.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(range.start), range.len()) })
    }

    /// The bytes of write range `index`. `None` the second time, or if there is no such range.
    pub fn write(&mut self, index: usize) -> Option<&'a mut [u8]> {
        if index >= self.count || self.taken & (1 << index) != 0 {
            return None;
        }
        self.taken |= 1 << index;
        let range = self.writes[index].clone();
        // SAFETY: in bounds; disjoint from every other write range and from every range that `read` gives; handed
        // out once.
        Some(unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(range.start), range.len()) })
    }
}

/// Whether two ranges share a byte; an empty range shares none.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_zero() {
        for len in [0, 1, 63, 64, 1000, MAPPED / 4, MAPPED / 4 + 1] {
            let vec = AlignedVec::<f32>::zeroed(len);
            assert_eq!(vec.len(), len);
            assert!(vec.iter().all(|&x| x == 0.0));
            assert!((vec.as_ptr() as usize).is_multiple_of(ALIGNMENT));
        }
        assert!(AlignedVec::<f32>::try_zeroed(usize::MAX / 2).is_none());
    }

    #[test]
    fn blocks_of_a_slab_are_apart_and_outlive_it() {
        for expected in [0, Slab::CHUNK] {
            let mut slab = Slab::new(expected);
            let sizes = [1, 63, 64, 65, 0, Slab::CHUNK / 4, Slab::CHUNK / 4 + 1];
            let mut blocks: Vec<_> = sizes.iter().cycle().take(30).map(|&len| slab.try_zeroed(len).unwrap()).collect();
            drop(slab);
            for (index, block) in blocks.iter_mut().enumerate() {
                assert_eq!(block.len(), sizes[index % sizes.len()]);
                assert!(block.is_empty() || (block.as_ptr() as usize).is_multiple_of(ALIGNMENT));
                assert!(block.iter().all(|&byte| byte == 0));
                block.fill(index as u8 + 1);
            }
            for (index, block) in blocks.iter().enumerate() {
                assert!(block.iter().all(|&byte| byte == index as u8 + 1));
            }
        }
    }

    #[test]
    fn views_are_disjoint() {
        let mut arena = Arena::new(100);
        let mut views = arena.views(&[0..10, 20..30, 30..30]).unwrap();
        let first = views.write(0).unwrap();
        let second = views.write(1).unwrap();
        assert!(views.write(1).is_none() && views.write(3).is_none());
        assert_eq!(views.write(2).unwrap().len(), 0);
        let between = views.read(10..20).unwrap();
        assert!(views.read(5..15).is_none() && views.read(29..31).is_none() && views.read(25..26).is_none());
        assert!(views.read(90..101).is_none());
        first.fill(1);
        second.fill(2);
        assert!(between.iter().all(|&b| b == 0));
        assert_eq!(arena.bytes()[..10], [1; 10]);
        assert_eq!(arena.bytes()[20..30], [2; 10]);
    }

    #[test]
    fn overlapping_or_outlying_writes_are_refused() {
        let mut arena = Arena::new(100);
        assert!(arena.views(&[0..10, 9..12]).is_none());
        assert!(arena.views(std::slice::from_ref(&(95..101))).is_none());
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 5..2;
        assert!(arena.views(&[reversed]).is_none());
        assert!(arena.views(&vec![0..0; MAX_WRITES + 1]).is_none());
        assert!(arena.views(&vec![0..0; MAX_WRITES]).is_some());
    }
}

//! A global allocator that keeps some memory aside, so that running out of memory is an error and not the end of the
//! process.
//!
//! Where a file decides how large an allocation is, no memory for it is an error (`skipstone_reserve`). Everything else
//! is small: a name, a message. Such an allocation cannot fail in Rust, so that the process would end. With this
//! allocator it gets a block of the spare memory when the system has none. As soon as a part of that is in use, lists
//! refuse to grow, so that whatever is being loaded ends with an error, which returns its blocks.
//!
//! Foreign code may need more than that. A thread in which it runs can be given up: see [`giving_up`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes of a block: allocations above that can fail everywhere.
const BLOCK: usize = 1024;
/// Number of blocks.
const BLOCKS: usize = 1024;
/// So many blocks in use, and memory is low.
const LOW: usize = BLOCKS / 4;
/// Alignment of a block.
const ALIGNMENT: usize = 128;

const WORD: usize = u64::BITS as usize;

/// An allocator with a mebibyte of spare memory behind another one:
///
/// ```
/// # use skipstone_kernels::spare::WithSpare;
/// #[global_allocator]
/// static ALLOCATOR: WithSpare = WithSpare::new(std::alloc::System);
/// ```
///
/// There is one in a process: the lists of all crates follow what it says. Pages of the spare memory that were never
/// in use take no memory.
pub struct WithSpare<A = System> {
    allocator: A,
    spare: Spare,
}

impl<A> WithSpare<A> {
    /// With spare memory behind `allocator`.
    pub const fn new(allocator: A) -> Self {
        Self { allocator, spare: Spare::new() }
    }

    /// What is left when `allocator` has no memory; null if that is nothing.
    #[cold]
    fn refused(&self, layout: Layout) -> *mut u8 {
        let is_small = layout.size() <= BLOCK && layout.align() <= ALIGNMENT;
        let block = if is_small { self.spare.take() } else { null_mut() };
        if block.is_null() {
            give_up(layout.size());
        }
        block
    }
}

// SAFETY: every call goes to the other allocator, or is answered by a block of the spare memory, which is as large and
// as aligned as any layout that `refused` accepts, is in use only once, and returns to where it came from.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WithSpare<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let block = unsafe { self.allocator.alloc(layout) };
        if block.is_null() { self.refused(layout) } else { block }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let block = unsafe { self.allocator.alloc_zeroed(layout) };
        if !block.is_null() {
            return block;
        }
        let block = self.refused(layout);
        if !block.is_null() {
            // SAFETY: the block has at least this size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let held = self.spare.index(block);
        if held.is_some() && size <= BLOCK {
            return block;
        }
        // SAFETY: the caller promises that `size` does not overflow with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let moved = if held.is_some() {
            // SAFETY: as the caller promises; its size is not zero.
            unsafe { self.allocator.alloc(wanted) }
        } else {
            // SAFETY: as the caller promises; the block is the other allocator's.
            let grown = unsafe { self.allocator.realloc(block, layout, size) };
            if !grown.is_null() {
                return grown;
            }
            null_mut()
        };
        let moved = if moved.is_null() { self.refused(wanted) } else { moved };
        if !moved.is_null() {
            // SAFETY: both blocks have at least these bytes, and are different; the first one is not used again.
            unsafe {
                moved.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.spare.index(block) {
            Some(index) => self.spare.give_back(index),
            // SAFETY: as the caller promises; the block is the other allocator's.
            None => unsafe { self.allocator.dealloc(block, layout) },
        }
    }
}

#[repr(C, align(128))]
struct Memory(UnsafeCell<[u8; BLOCKS * BLOCK]>);

// SAFETY: only pointers to it are made here; whoever is given a block alone reads and writes it.
unsafe impl Sync for Memory {}

struct Spare {
    memory: Memory,
    /// A bit for each block: whether it is in use.
    in_use: [AtomicU64; BLOCKS / WORD],
    /// Number of blocks in use.
    count: AtomicUsize,
}

impl Spare {
    const fn new() -> Self {
        Self {
            memory: Memory(UnsafeCell::new([0; BLOCKS * BLOCK])),
            in_use: [const { AtomicU64::new(0) }; BLOCKS / WORD],
            count: AtomicUsize::new(0),
        }
    }

    /// A block that was not in use; null if all are.
    fn take(&self) -> *mut u8 {
        for (at, word) in self.in_use.iter().enumerate() {
            loop {
                let bit = word.load(Ordering::Relaxed).trailing_ones();
                if bit == u64::BITS {
                    break;
                }
                // Whoever gave it back has written its last byte before.
                if word.fetch_or(1 << bit, Ordering::Acquire) & 1 << bit == 0 {
                    self.counted(self.count.fetch_add(1, Ordering::Relaxed) + 1);
                    return self.memory.0.get().cast::<u8>().wrapping_add((at * WORD + bit as usize) * BLOCK);
                }
            }
        }
        null_mut()
    }

    fn give_back(&self, index: usize) {
        self.in_use[index / WORD].fetch_and(!(1 << (index % WORD)), Ordering::Release);
        self.counted(self.count.fetch_sub(1, Ordering::Relaxed) - 1);
    }

    /// The position of a block, if it is one of the spare memory.
    fn index(&self, block: *mut u8) -> Option<usize> {
        let offset = block.addr().wrapping_sub(self.memory.0.get().addr());
        (offset < BLOCKS * BLOCK).then_some(offset / BLOCK)
    }

    fn counted(&self, count: usize) {
        skipstone_reserve::set_low(count >= LOW);
    }
}

thread_local! {
    /// Where this thread says that it gives up; null if it does not.
    static GIVES_UP: Cell<*const AtomicUsize> = const { Cell::new(null()) };
}

/// Calls `body`. If an allocation in it cannot be met in any way, its size is stored in `refused`, which must be 0, and
/// this call never returns: its thread sleeps, with all that it holds, so that whoever waits for it must wait for
/// `refused` as well. That is the way out for foreign code, which would end the process.
pub fn giving_up<T>(refused: &AtomicUsize, body: impl FnOnce() -> T) -> T {
    struct Restored(*const AtomicUsize);
    impl Drop for Restored {
        fn drop(&mut self) {
            GIVES_UP.set(self.0);
        }
    }
    let _restored = Restored(GIVES_UP.replace(refused));
    body()
}

/// Lets this thread sleep for ever, at an allocation of `bytes`, if it was agreed.
fn give_up(bytes: usize) {
    let refused = GIVES_UP.get();
    if refused.is_null() {
        return;
    }
    // SAFETY: `giving_up` borrows it while the pointer is set, and does not return before that is undone.
    unsafe { (*refused).store(bytes, Ordering::Release) };
    loop {
        thread::sleep(Duration::from_secs(1 << 20));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// An allocator without memory.
    struct Nothing;

    // SAFETY: it gives no memory away.
    unsafe impl GlobalAlloc for Nothing {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            null_mut()
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {
            unreachable!("it gave nothing away");
        }
    }

    static EMPTY: WithSpare<Nothing> = WithSpare::new(Nothing);

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).unwrap()
    }

    /// One test, because memory is low for all of the process.
    #[test]
    fn spare_blocks_are_used_once_and_come_back() {
        // SAFETY: every block is used with its layout, by one thread, and until it is given back.
        unsafe {
            let first = EMPTY.alloc_zeroed(layout(100));
            assert_eq!(std::slice::from_raw_parts(first, 100), [0; 100]);
            first.write_bytes(7, 100);
            assert_eq!(EMPTY.realloc(first, layout(100), BLOCK), first, "it has room");
            assert!(EMPTY.realloc(first, layout(BLOCK), BLOCK + 1).is_null());
            assert!(EMPTY.alloc(layout(BLOCK + 1)).is_null(), "that is not small");
            assert!(EMPTY.alloc(Layout::from_size_align(8, 2 * ALIGNMENT).unwrap()).is_null());
            EMPTY.dealloc(first, layout(BLOCK));

            let take = || (0..BLOCKS / 4).map(|_| EMPTY.alloc(layout(BLOCK)).addr()).collect::<Vec<_>>();
            let taken: Vec<usize> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            assert!(taken.iter().all(|&block| block != 0 && block % ALIGNMENT == 0));
            assert_eq!(taken.iter().collect::<HashSet<_>>().len(), BLOCKS);
            assert!(EMPTY.alloc(layout(1)).is_null(), "all are in use");
            assert!(skipstone_reserve::is_low());
            assert!(skipstone_reserve::text("a name").is_err() && skipstone_reserve::list([1]).is_ok());
            let start = EMPTY.spare.memory.0.get().cast::<u8>();
            for (given, index) in (0..BLOCKS).rev().enumerate() {
                EMPTY.dealloc(start.add(index * BLOCK), layout(BLOCK));
                assert_eq!(skipstone_reserve::is_low(), BLOCKS - given > LOW);
            }
            assert!(skipstone_reserve::text("a name").is_ok());
        }
    }

    /// Has memory for one block.
    struct One(AtomicBool);

    // SAFETY: the system's allocator, or no memory.
    unsafe impl GlobalAlloc for One {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as the caller promises.
            if self.0.swap(true, Ordering::Relaxed) { null_mut() } else { unsafe { System.alloc(layout) } }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn a_block_that_cannot_grow_moves_to_spare_memory() {
        static LITTLE: WithSpare<One> = WithSpare::new(One(AtomicBool::new(false)));
        // SAFETY: every block is used with its layout, and until it is given back.
        unsafe {
            let block = LITTLE.alloc(layout(100));
            block.write_bytes(9, 100);
            assert_eq!(LITTLE.spare.index(block), None);
            assert!(LITTLE.realloc(block, layout(100), BLOCK + 1).is_null(), "and it is still there");
            let moved = LITTLE.realloc(block, layout(100), 200);
            assert!(LITTLE.spare.index(moved).is_some());
            assert_eq!(std::slice::from_raw_parts(moved, 100), [9; 100]);
            LITTLE.allocator.0.store(false, Ordering::Relaxed);
            let back = LITTLE.realloc(moved, layout(200), 2 * BLOCK);
            assert_eq!(LITTLE.spare.index(back), None);
            assert_eq!(std::slice::from_raw_parts(back, 100), [9; 100]);
            assert_eq!(LITTLE.spare.count.load(Ordering::Relaxed), 0);
            LITTLE.dealloc(back, layout(2 * BLOCK));
        }
    }

    #[test]
    fn a_thread_gives_up_where_it_agreed_to() {
        let refused = Arc::new(AtomicUsize::new(0));
        assert_eq!(giving_up(&refused, || 7), 7);
        let given = refused.clone();
        // SAFETY: nothing is allocated.
        let ask = || unsafe { EMPTY.alloc(layout(BLOCK + 1)) };
        assert!(ask().is_null(), "nothing was agreed");
        thread::spawn(move || giving_up(&given, || ask().addr()));
        while refused.load(Ordering::Acquire) != BLOCK + 1 {
            thread::yield_now();
        }
    }
}

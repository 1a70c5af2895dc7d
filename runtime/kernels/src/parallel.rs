//! Shares the output of a kernel among the threads of a pool.
//!
//! The memory-bound families all parallelize in the same way ([`split`]): the output is cut into consecutive pieces,
//! and one task computes each piece from shared inputs. Another thread is used only if its share takes longer than the
//! handover. Depthwise and first convolutions share the output rows ([`share_rows`]). The other compute-bound families
//! write tiles of the output ([`Output`]) and have scratch per thread ([`share_units`]).

use std::ops::Range;

use crate::pace::PIECE;
use crate::threads::Pool;

/// One thread is used per this many elements moved.
///
/// 32k elements of f32 take about 10 microseconds at 12 GB/s: several times the cost of handing work to a thread that
/// is awake and of fetching what it wrote from its core's cache.
pub(crate) const WORTH_SPLITTING: usize = 32 * 1024;
/// Multiply-adds of a convolution over windows below which a second thread does not pay off: about 10 microseconds, as
/// above. In tests, everything is shared.
pub(crate) const WINDOWS_WORTH_SHARING: usize = if cfg!(test) { 1 } else { 50_000 };
/// The same for a matrix product, which computes more of them at a time.
pub(crate) const PRODUCTS_WORTH_SHARING: usize = 100_000;
/// The same for products of bytes.
pub(crate) const BYTES_WORTH_SHARING: usize = 400_000;

/// Units per thread if a unit is a part of a product or convolution: several, so that a slow thread delays the others
/// only a little.
pub(crate) const UNITS_PER_THREAD: usize = 4;

/// Pieces per thread: several, so that a slow thread, or one that is still waking up, delays the others only a little.
const PIECES_PER_THREAD: usize = 4;

/// Calls `f(offset, piece)` for consecutive pieces that together are `y`.
///
/// The length of each piece except the last is a multiple of `unit`. `work`, the count of elements that the whole call
/// moves, determines how many threads are used, and that a piece moves at most [`PIECE`], unless it is a single unit: a
/// canceled run stops between pieces.
///
/// # Panics
/// If `unit` is 0.
pub(crate) fn split<T: Send>(pool: &Pool, y: &mut [T], unit: usize, work: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let shared = Shared { start: y.as_mut_ptr(), len: y.len() };
    split_range(pool, y.len(), unit, work, &|offset, len| f(offset, shared.piece(offset, len)));
}

/// Calls `f(offset, len)` for the pieces of `split`. Compiled once, for every type and loop.
#[inline(never)]
fn split_range(pool: &Pool, len: usize, unit: usize, work: usize, f: &(dyn Fn(usize, usize) + Sync)) {
    let units = len.div_ceil(unit);
    let threads = pool.threads().min(work / WORTH_SPLITTING);
    let pieces = work.div_ceil(PIECE).max(if threads > 1 { threads * PIECES_PER_THREAD } else { 1 });
    if pieces <= 1 || units <= 1 {
        if len > 0 {
            f(0, len);
        }
        return;
    }
    let piece_len = units.div_ceil(pieces) * unit;
    pool.run(len.div_ceil(piece_len), threads, &|task, _| {
        let offset = task * piece_len;
        f(offset, piece_len.min(len.saturating_sub(offset)));
    });
}

/// Calls `f(row, pixel, part)` for consecutive parts of the rows of `y`, which have `row_len` elements, with the first
/// pixel of the part in its row. A part is a whole row or, if rows are long, fewer pixels of `pixel_len` elements each.
///
/// # Panics
/// If a row has no pixels, or a pixel no elements.
pub(crate) fn split_rows<T: Send>(
    pool: &Pool,
    y: &mut [T],
    [row_len, pixel_len]: [usize; 2],
    work: usize,
    f: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    let shared = Shared { start: y.as_mut_ptr(), len: y.len() };
    split_row_ranges(pool, y.len(), [row_len, pixel_len], work, &|offset, len| {
        f(offset / row_len, offset % row_len / pixel_len, shared.piece(offset, len));
    });
}

/// Calls `f(offset, len)` for the parts of `split_rows`. Compiled once, like `split_range`.
#[inline(never)]
fn split_row_ranges(
    pool: &Pool,
    len: usize,
    [row_len, pixel_len]: [usize; 2],
    work: usize,
    f: &(dyn Fn(usize, usize) + Sync),
) {
    let of_row = work / (len / row_len).max(1);
    let unit = if of_row > PIECE { pixel_len } else { row_len };
    split_range(pool, len, unit, work, &|offset, len| {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let part = (row_len - at % row_len).min(end - at);
            f(at, part);
            at += part;
        }
    });
}

/// Calls `f(range, part)` for consecutive ranges of the output rows of a convolution, `rows` in all, with the part of
/// `out` that holds them.
///
/// The convolution has `work` multiply-adds; a task has at most about `task_work` of them, unless it is a single row. A
/// canceled run stops between tasks.
///
/// # Panics
/// If there are no rows.
pub(crate) fn share_rows(
    pool: &Pool,
    out: &mut [f32],
    rows: usize,
    work: usize,
    task_work: usize,
    f: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let row_len = out.len() / rows;
    let threads = if work >= WINDOWS_WORTH_SHARING { pool.threads() } else { 1 };
    let tasks = rows.min((work / task_work).max(if threads > 1 { threads * UNITS_PER_THREAD } else { 1 }));
    let shared = Shared { start: out.as_mut_ptr(), len: out.len() };
    pool.run(tasks, pool.threads(), &|task, _| {
        let range = rows * task / tasks..rows * (task + 1) / tasks;
        let part = shared.piece(range.start * row_len, range.len() * row_len);
        f(range, part);
    });
}

/// Calls `f(unit, slot)` once for each unit of `0..units`, on up to `slots` threads. Each thread has its own slot of
/// `slot_len` elements of `scratch`.
///
/// # Panics
/// If the scratch is too short for the slots.
pub(crate) fn share_units<T: Send>(
    pool: &Pool,
    units: usize,
    slots: usize,
    slot_len: usize,
    scratch: &mut [T],
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let shared = Shared { start: scratch.as_mut_ptr(), len: scratch.len() };
    pool.run(units, slots, &|unit, slot| f(unit, shared.piece(slot * slot_len, slot_len)));
}

/// Pointer to the first element of an output in which every task writes only its own parts.
pub(crate) struct Output(*mut f32);

// SAFETY: only a pointer; the code that writes through it guarantees that the parts are disjoint.
unsafe impl Sync for Output {}

impl Output {
    pub(crate) fn new(out: &mut [f32]) -> Self {
        Self(out.as_mut_ptr())
    }

    pub(crate) fn start(&self) -> *mut f32 {
        self.0
    }
}

/// A slice whose disjoint pieces are accessed by tasks.
struct Shared<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: the tasks of `split`, `split_rows`, `share_rows` and `share_units`, the only users, access disjoint pieces of a slice that
// these functions borrow mutably while they run; `T: Send` lets another thread write them.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The piece of `len` elements at `offset`. Each piece is requested by one task, or by one thread for one task at a
    /// time.
    #[allow(clippy::mut_from_ref)]
    fn piece(&self, offset: usize, len: usize) -> &mut [T] {
        assert!(offset <= self.len && len <= self.len - offset);
        // SAFETY: the piece lies inside the slice, by the check above, and is not shared: the pool runs every task
        // once and has one thread per index, and the pieces of different tasks, or threads, do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_unit_is_done_once_in_a_slot_of_its_thread() {
        for (slots, units) in [(1, 0), (1, 5), (3, 2), (3, 100)] {
            let pool = Pool::new(slots);
            let mut scratch = vec![0u32; slots * 4 + 1];
            let done: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
            share_units(&pool, units, slots, 4, &mut scratch, |unit, slot| {
                assert_eq!(slot.len(), 4);
                slot.iter_mut().for_each(|count| *count += 1);
                done[unit].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            assert_eq!(scratch.iter().sum::<u32>() as usize, units * 4);
            assert_eq!(scratch.last(), Some(&0));
        }
    }

    #[test]
    fn every_element_is_visited_once_and_pieces_keep_their_unit() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for len in [0, 1, 7, 64, 1000] {
                for unit in [1, 3, 64, 2000] {
                    let mut y = vec![0u32; len];
                    split(&pool, &mut y, unit, 10 * WORTH_SPLITTING, |offset, piece| {
                        assert_eq!(offset % unit, 0);
                        for (i, y) in piece.iter_mut().enumerate() {
                            *y += (offset + i) as u32 + 1;
                        }
                    });
                    assert!(y.iter().enumerate().all(|(i, &y)| y == i as u32 + 1));
                }
            }
        }
    }
}

//! One tile of the product: its arguments, and the inner loops that the instruction sets share.

use crate::epilogue::Bounds;
use crate::lanes::Lanes;
#[cfg(target_arch = "x86_64")]
use crate::lanes::Stored;
use crate::prefetch::LINE;
#[cfg(target_arch = "x86_64")]
use crate::prefetch::{prefetch_line, prefetch_line_early};

/// What a microkernel computes:
/// `out[r, c] = bounds(bias[c] + from[r, c] + sum over tap, d of rows[tap][r][d] * panel[tap * depth + d][c])`.
pub(crate) struct GemmTile {
    /// For each tap, one pointer per row of the tile, to `depth` elements.
    pub rows: *const *const f32,
    pub taps: usize,
    pub depth: usize,
    /// `taps * depth` rows, each as wide as the tile's registers, in the kernel's weight dtype.
    pub panel: *const u8,
    pub out: *mut f32,
    /// Elements from one row of `out` to the next.
    pub ldc: usize,
    /// Bytes from the panel to what is read after this tile. Kernels that load whole lines prefetch it into the
    /// second-level cache, one line per row of the panel; 0 for nothing.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub ahead: usize,
    /// Columns to store: all registers but the last are full, and the last is not empty.
    pub columns: usize,
    /// What the sums are added to, in rows as far apart as those of `out`: the sums of another tile, or a residual. Null
    /// for nothing.
    pub from: *const f32,
    /// One element per column, or null for zeros.
    pub bias: *const f32,
    pub bounds: Bounds,
}

/// [`GemmTile::ahead`] for a tile of a panel of `bytes` bytes in `rows` rows, if the next panel follows it: the first tile
/// prefetches the first line of each of its rows, the second tile the second line, until all are.
pub(crate) fn ahead(bytes: usize, rows: usize, tile: usize) -> usize {
    let line = tile * LINE;
    if line * rows < bytes { bytes + line } else { 0 }
}

/// How far ahead, in bytes, a panel and the memory after it are prefetched: one page, because the hardware prefetcher
/// stops at the end of a page.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;

/// Computes a tile with a fixed number of rows and registers.
///
/// # Safety
/// The CPU has the instruction set of the kernel's table. The pointers of the tile are valid as documented on its
/// fields, for the rows and registers of the kernel; the output overlaps nothing else.
pub(crate) type TileFn = unsafe fn(&GemmTile);

/// The microkernel for instruction sets that broadcast an element of A from memory. `M x V` sums stay in registers
/// while each step loads V registers of B and M elements of A, followed by `M x W` sums in narrower registers.
///
/// # Safety
/// As for [`TileFn`], and the caller enables the instruction sets of `L` and of `N`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn broadcast<L, N, B, const M: usize, const V: usize, const W: usize>(tile: &GemmTile)
where
    L: Lanes,
    N: Lanes,
    B: Stored,
{
    // SAFETY: the caller has the instruction sets; every tap has M pointers to `depth` elements, and the panel has
    // `taps * depth` rows of V registers and W narrower ones; there is a bias for every column.
    unsafe {
        let mut sums: [[L; V]; M] = start(tile, 0, M);
        let mut narrow_sums: [[N; W]; M] = start(tile, V * L::WIDTH, M);
        let mut b: *const B = tile.panel.cast();
        for tap in 0..tile.taps {
            let rows: [*const f32; M] = *tile.rows.add(tap * M).cast();
            for d in 0..tile.depth {
                // Prefetch only where measurements show that it helps: for loads of whole lines, the next panel while
                // this one is used; for shorter loads, the next lines. A single row has no load slot to spare.
                if M > 1 && L::WIDTH * size_of::<f32>() < LINE {
                    for line in 0..(V * L::WIDTH * size_of::<B>()).div_ceil(LINE) {
                        prefetch_line(b.cast::<u8>().wrapping_add(AHEAD + line * LINE));
                    }
                } else if M > 1 {
                    prefetch_line_early(b.cast::<u8>().wrapping_add(tile.ahead));
                }
                let mut columns = [L::splat(0.0); V];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = B::load(b.add(v * L::WIDTH));
                }
                let mut narrow = [N::splat(0.0); W];
                for (w, column) in narrow.iter_mut().enumerate() {
                    *column = B::load(b.add(V * L::WIDTH + w * N::WIDTH));
                }
                for r in 0..M {
                    let a = *rows[r].add(d);
                    for v in 0..V {
                        sums[r][v] = columns[v].mul_add(L::splat(a), sums[r][v]);
                    }
                    for w in 0..W {
                        narrow_sums[r][w] = narrow[w].mul_add(N::splat(a), narrow_sums[r][w]);
                    }
                }
                b = b.add(V * L::WIDTH + W * N::WIDTH);
            }
        }
        store(tile, 0, M, &sums);
        store(tile, V * L::WIDTH, M, &narrow_sums);
    }
}

/// Start values of the sums of the tile's columns starting at `first`, for its `rows <= M` rows.
///
/// # Safety
/// As for [`TileFn`], and the caller enables the instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn start<L: Lanes, const M: usize, const V: usize>(
    tile: &GemmTile,
    first: usize,
    rows: usize,
) -> [[L; V]; M] {
    // Loops instead of closures over arrays: a closure that is not inlined is compiled without the instruction set.
    // SAFETY: there is a bias for every column of the tile, and an element to start from in each of the rows.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; M];
        for v in 0..V {
            let at = first + v * L::WIDTH;
            let count = (tile.columns - at).min(L::WIDTH);
            if !tile.bias.is_null() {
                let bias: L = load(tile.bias.add(at), count);
                for sums in &mut sums {
                    sums[v] = bias;
                }
            }
            if !tile.from.is_null() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    if r < rows {
                        let from: L = load(tile.from.add(r * tile.ldc + at), count);
                        sums[v] = sums[v].add(from);
                    }
                }
            }
        }
        sums
    }
}

/// Clamps and stores the sums of the tile's columns starting at `first`, for its `rows` rows.
///
/// # Safety
/// As for [`TileFn`], and the caller enables the instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn store<L: Lanes, const M: usize, const V: usize>(
    tile: &GemmTile,
    first: usize,
    rows: usize,
    sums: &[[L; V]; M],
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match tile.bounds {
            Bounds::None => store_by(tile, (first, rows), sums, |x| x),
            Bounds::Least(min) => store_by(tile, (first, rows), sums, |x| x.at_least(x.like(min))),
            Bounds::Both(min, max) => {
                store_by(tile, (first, rows), sums, |x| x.at_least(x.like(min)).at_most(x.like(max)))
            }
        }
    }
}

/// Stores `f` of the sums. Written so that the loops are unrolled: sums indexed by a variable would be kept in memory,
/// which the inner loop of the tile would have to update.
///
/// # Safety
/// As for [`store`].
#[inline(always)]
unsafe fn store_by<L: Lanes, const M: usize, const V: usize>(
    tile: &GemmTile,
    (first, rows): (usize, usize),
    sums: &[[L; V]; M],
    f: impl Fn(L) -> L,
) {
    let mut out = tile.out.wrapping_add(first);
    for (r, row) in sums.iter().enumerate() {
        if r >= rows {
            return;
        }
        for (v, &sum) in row.iter().enumerate() {
            let width = tile.columns - first - v * L::WIDTH;
            // SAFETY: the output has the tile's columns in each of the rows.
            unsafe {
                let to = out.add(v * L::WIDTH);
                if v + 1 < V || width >= L::WIDTH {
                    f(sum).store(to);
                } else {
                    f(sum).store_first(to, width);
                }
            }
        }
        out = out.wrapping_add(tile.ldc);
    }
}

/// Loads `count` elements into the first lanes; the other lanes are zero.
///
/// # Safety
/// The caller has the instruction set; `from` is readable for `count <= WIDTH` elements.
#[inline(always)]
unsafe fn load<L: Lanes>(from: *const f32, count: usize) -> L {
    // SAFETY: guaranteed by the caller.
    unsafe { if count == L::WIDTH { L::load(from) } else { L::load_first(from, count) } }
}

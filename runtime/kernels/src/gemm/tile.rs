//! One tile of the product: its arguments, and the bodies that the instruction sets share.

use crate::epilogue::Tail;
use crate::lanes::Lanes;

/// What a microkernel computes: `out[r, c] = tail(sum over tap, d of rows[tap][r][d] * panel[tap * depth + d][c])`.
pub(crate) struct Tile {
    /// For each tap, one pointer for each row of the tile, to `depth` numbers.
    pub rows: *const *const f32,
    pub taps: usize,
    pub depth: usize,
    /// `taps * depth` rows of as many numbers as the tile's registers hold.
    pub panel: *const f32,
    pub out: *mut f32,
    /// Distance of the rows of `out` (and of the residual).
    pub ldc: usize,
    /// Columns to store: all registers but the last are full, and the last is not empty.
    pub columns: usize,
    pub tail: Tail,
}

/// Computes a tile of a fixed number of rows and registers.
///
/// # Safety
/// The CPU has the instruction set of the kernel's table. The pointers of the tile are valid as its fields say, for
/// the rows and registers of the kernel; the output overlaps nothing else.
pub(crate) type Kernel = unsafe fn(&Tile);

/// The microkernel of instruction sets that broadcast an element of A from memory. `M x V` sums stay in registers while
/// each step loads V registers of B and M elements of A; behind them stand `M x W` sums in narrower registers.
///
/// # Safety
/// As for [`Kernel`], and the caller enables the instruction sets of `L` and of `N`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn broadcast<L: Lanes, N: Lanes, const M: usize, const V: usize, const W: usize>(tile: &Tile) {
    // SAFETY: the caller has the instruction sets; every tap has M pointers to `depth` numbers, and the panel has
    // `taps * depth` rows of V registers and W narrower ones.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; M];
        let mut narrow_sums = [[N::splat(0.0); W]; M];
        let mut b = tile.panel;
        for tap in 0..tile.taps {
            let rows: [*const f32; M] = *tile.rows.add(tap * M).cast();
            for d in 0..tile.depth {
                let columns: [L; V] = std::array::from_fn(|v| L::load(b.add(v * L::WIDTH)));
                let narrow: [N; W] = std::array::from_fn(|w| N::load(b.add(V * L::WIDTH + w * N::WIDTH)));
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
        if V > 0 {
            store(tile, 0, &sums);
        }
        if W > 0 {
            store(tile, V * L::WIDTH, &narrow_sums);
        }
    }
}

/// Adds the bias to the sums of the tile's columns from `first` on, applies the tail and stores them.
///
/// The biased sums are an array of their own: the loop over the tail is too long to be unrolled, so it indexes memory,
/// and if that were the array of the sums, the inner loop would keep that memory up to date.
///
/// # Safety
/// As for [`Kernel`], and the caller enables the instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn store<L: Lanes, const M: usize, const V: usize>(tile: &Tile, first: usize, sums: &[[L; V]; M]) {
    let Tile { out, ldc, columns, tail, .. } = *tile;
    let last = (columns - first - (V - 1) * L::WIDTH).min(L::WIDTH);
    // SAFETY: all registers but the last cover WIDTH columns of the tile, the last covers `last` of them; bias,
    // residual and output have these columns in each of the M rows.
    unsafe {
        let mut biased = [[L::splat(0.0); V]; M];
        for v in 0..V {
            let width = if v + 1 == V { last } else { L::WIDTH };
            let at = first + v * L::WIDTH;
            let bias = if tail.bias.is_null() { L::splat(0.0) } else { load(tail.bias.add(at), width) };
            for r in 0..M {
                biased[r][v] = sums[r][v].add(bias);
            }
        }
        for (r, sums) in biased.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let width = if v + 1 == V { last } else { L::WIDTH };
                let at = r * ldc + first + v * L::WIDTH;
                let x = tail.apply(*sum, || load::<L>(tail.residual.add(at), width));
                if width == L::WIDTH {
                    x.store(out.add(at));
                } else {
                    x.store_first(out.add(at), width);
                }
            }
        }
    }
}

/// The first `count` lanes from memory, the others zero.
///
/// # Safety
/// The caller has the instruction set; `from` is readable for `count <= WIDTH` numbers.
#[inline(always)]
unsafe fn load<L: Lanes>(from: *const f32, count: usize) -> L {
    // SAFETY: as the caller promises.
    unsafe { if count == L::WIDTH { L::load(from) } else { L::load_first(from, count) } }
}

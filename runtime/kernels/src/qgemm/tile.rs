//! One tile of the product: its arguments, and the inner loop that the instruction sets share.

use crate::requantize::{Form, Requantize};

/// What a microkernel computes: for every row `r` and column `c`
/// `(offsets[c] + sum over tap, k of rows[tap][r][k] * panel[tap, k, c]) * scales[c]`, as a byte or a float, or the sum
/// before it is scaled.
pub(crate) struct QgemmTile {
    /// For each tap, one pointer per row of the tile, to `steps` groups of activations.
    pub rows: *const *const u8,
    pub taps: usize,
    /// Groups per tap.
    pub steps: usize,
    /// `taps * steps` rows, each with a group of weights for every column of the tile's registers.
    pub panel: *const i8,
    /// One for each column of the registers.
    pub offsets: *const i32,
    /// One for each column of the registers; not read if the output is sums.
    pub scales: *const f32,
    /// Elements of the type given by `to`.
    pub out: *mut u8,
    /// Elements from one row of `out` to the next.
    pub ldc: usize,
    /// Columns to store: all registers but the last are full, and the last is not empty.
    pub columns: usize,
    pub to: Form,
}

/// Computes a tile with a fixed number of rows and registers.
///
/// # Safety
/// The CPU has the instructions of the kernel's table. The pointers of the tile are valid as documented on its fields,
/// for the rows and registers of the kernel; the output overlaps nothing else.
pub(crate) type TileFn = unsafe fn(&QgemmTile);

/// A register of 32-bit sums, and the addition of products to it.
pub(crate) trait Sums: Copy {
    /// Columns.
    const LANES: usize;
    /// Products summed by one instruction.
    const GROUP: usize;
    /// Bytes of an activation.
    const ELEMENT: usize;
    /// A group of activations, broadcast to all lanes.
    type Activations: Copy;
    /// A group of weights for each lane.
    type Weights: Copy;

    /// # Safety
    /// The CPU has the instructions.
    unsafe fn zero() -> Self;
    /// # Safety
    /// The CPU has the instructions; a group of activations is readable.
    unsafe fn activations(from: *const u8) -> Self::Activations;
    /// # Safety
    /// The CPU has the instructions; a group of weights for each lane is readable.
    unsafe fn weights(from: *const i8) -> Self::Weights;
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn add_products(self, a: Self::Activations, w: Self::Weights) -> Self;
    /// `self + offset` for each lane.
    ///
    /// # Safety
    /// The CPU has the instructions; offsets have every lane.
    unsafe fn offset(self, offsets: *const i32) -> Self;
    /// Stores `self * scale` for the first `count` lanes, as bytes.
    ///
    /// # Safety
    /// The CPU has the instructions; scales have every lane, `to` is writable for `count` of them.
    unsafe fn store_bytes(self, scales: *const f32, by: &Requantize, to: *mut u8, count: usize);
    /// Like `store_bytes`, but stores floats.
    ///
    /// # Safety
    /// As for `store_bytes`.
    unsafe fn store_floats(self, scales: *const f32, to: *mut f32, count: usize);
    /// Stores the sums of the first `count` lanes.
    ///
    /// # Safety
    /// The CPU has the instructions; `to` is writable for `count` sums.
    unsafe fn store_sums(self, to: *mut i32, count: usize);
}

/// The microkernel: `M x V` sums stay in registers while each step loads V registers of weights and M groups of
/// activations.
///
/// # Safety
/// As for [`TileFn`], and the caller enables the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn broadcast<S: Sums, const M: usize, const V: usize>(tile: &QgemmTile) {
    // SAFETY: the caller has the instructions; every tap has M pointers to `steps` groups, and the panel has `taps *
    // steps` rows of V registers; the rest is guaranteed by the fields of the tile.
    unsafe {
        let mut sums = [[S::zero(); V]; M];
        let mut panel = tile.panel;
        for tap in 0..tile.taps {
            let rows: [*const u8; M] = *tile.rows.add(tap * M).cast();
            for step in 0..tile.steps {
                let mut weights = [S::weights(panel); V];
                for (v, column) in weights.iter_mut().enumerate().skip(1) {
                    *column = S::weights(panel.add(v * S::LANES * S::GROUP));
                }
                for r in 0..M {
                    let a = S::activations(rows[r].add(step * S::GROUP * S::ELEMENT));
                    for v in 0..V {
                        sums[r][v] = sums[r][v].add_products(a, weights[v]);
                    }
                }
                panel = panel.add(V * S::LANES * S::GROUP);
            }
        }
        store(tile, &sums);
    }
}

/// Finishes the sums and stores them.
///
/// The sums with their offsets are in a separate array. The loop that stores them is too long to be unrolled, so it
/// indexes memory; if it indexed the array of the running sums, the inner loop would have to update that memory.
///
/// # Safety
/// As for [`TileFn`], and the caller enables the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn store<S: Sums, const M: usize, const V: usize>(tile: &QgemmTile, sums: &[[S; V]; M]) {
    let last = tile.columns - (V - 1) * S::LANES;
    // SAFETY: all registers but the last cover LANES columns, the last covers `last` of them; the output has these
    // columns in each of the M rows, offsets and scales, where they are read, have whole registers.
    unsafe {
        let mut whole = [[S::zero(); V]; M];
        for r in 0..M {
            for v in 0..V {
                whole[r][v] = sums[r][v].offset(tile.offsets.add(v * S::LANES));
            }
        }
        for (r, sums) in whole.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let count = if v + 1 == V { last } else { S::LANES };
                let (scales, at) = (tile.scales.wrapping_add(v * S::LANES), r * tile.ldc + v * S::LANES);
                match &tile.to {
                    Form::Bytes(by) => sum.store_bytes(scales, by, tile.out.add(at), count),
                    Form::Floats => sum.store_floats(scales, tile.out.cast::<f32>().add(at), count),
                    Form::Sums => sum.store_sums(tile.out.cast::<i32>().add(at), count),
                }
            }
        }
    }
}

//! One tile of the product, generic over the registers.
//!
//! The sums of `MR` rows by `NV` registers stay in registers over the whole K loop; every step loads `NV` registers
//! of B and broadcasts one number of each row of A.

use crate::activation::{self, Activation};
use crate::lanes::Lanes;

/// Arguments of a microkernel, checked by the driver.
pub(super) struct Tile {
    /// Rows to compute: 1 to `mr`.
    pub rows: usize,
    /// Columns to store: 1 to `nr`. The panel holds this many, rounded up to registers.
    pub cols: usize,
    /// Taps; 1 for a matrix product.
    pub taps: usize,
    /// Numbers per tap and row.
    pub k: usize,
    /// `taps` groups of `pitch` pointers, each to `k` numbers.
    pub a: *const *const f32,
    /// Pointers from one tap to the next.
    pub pitch: usize,
    /// The panel: `taps * k` rows.
    pub b: *const f32,
    /// First output of the tile.
    pub out: *mut f32,
    /// Numbers from one output row to the next.
    pub ldc: usize,
    /// Bias of the tile's columns, or null.
    pub bias: *const f32,
    /// Residual under the tile's first output, same row stride; or null.
    pub residual: *const f32,
    /// Whether the residual is added before the activation.
    pub residual_first: bool,
    /// Activation.
    pub activation: Activation,
}

/// Computes `MR` rows by `NV` registers of columns.
///
/// # Safety
/// The pointers of `t` are valid for what its fields say, with `rows == MR` and `cols` in the last of `NV`
/// registers; the CPU has the instructions of `L`, and the caller is compiled for them.
#[inline(always)]
pub(super) unsafe fn compute<L: Lanes, const MR: usize, const NV: usize>(t: &Tile) {
    // SAFETY: value instructions; the caller has them.
    let mut sums = unsafe { [[L::splat(0.0); NV]; MR] };
    let mut b = t.b;
    for tap in 0..t.taps {
        // SAFETY: `a` holds `taps` groups of `pitch >= MR` pointers.
        let rows: [*const f32; MR] = std::array::from_fn(|r| unsafe { *t.a.add(tap * t.pitch + r) });
        for k in 0..t.k {
            // SAFETY: the panel holds `taps * k` rows of `NV` registers; each row pointer is good for `k` numbers.
            unsafe {
                let panel: [L; NV] = std::array::from_fn(|v| L::load(b.add(v * L::WIDTH)));
                for r in 0..MR {
                    let x = L::splat(*rows[r].add(k));
                    for v in 0..NV {
                        sums[r][v] = x.mul_add(panel[v], sums[r][v]);
                    }
                }
                b = b.add(NV * L::WIDTH);
            }
        }
    }
    // SAFETY: as the caller promises.
    unsafe { finish(t, sums) }
}

/// Adds bias and residual, activates and stores.
///
/// # Safety
/// As for [`compute`].
#[inline(always)]
unsafe fn finish<L: Lanes, const MR: usize, const NV: usize>(t: &Tile, mut sums: [[L; NV]; MR]) {
    let last = t.cols - (NV - 1) * L::WIDTH;
    // SAFETY: registers before the last are full; of the last, `last` columns exist.
    let load = |from: *const f32, v: usize| unsafe {
        let from = from.add(v * L::WIDTH);
        if v + 1 < NV || last == L::WIDTH { L::load(from) } else { L::load_first(from, last) }
    };
    if !t.bias.is_null() {
        for v in 0..NV {
            let bias = load(t.bias, v);
            for row in &mut sums {
                row[v] = row[v].add(bias);
            }
        }
    }
    let add_residual = |sums: &mut [[L; NV]; MR]| {
        for (r, row) in sums.iter_mut().enumerate() {
            for (v, sum) in row.iter_mut().enumerate() {
                // SAFETY: the residual has the output's rows.
                *sum = sum.add(load(unsafe { t.residual.add(r * t.ldc) }, v));
            }
        }
    };
    if !t.residual.is_null() && t.residual_first {
        add_residual(&mut sums);
    }
    match t.activation {
        Activation::None => {}
        Activation::Relu => each(&mut sums, |x| x.at_least(x.like(0.0))),
        Activation::Clip { min, max } => each(&mut sums, |x| x.at_least(x.like(min)).at_most(x.like(max))),
        Activation::HardSwish => each(&mut sums, activation::vector::hard_swish),
        other => each(&mut sums, |x| activation::vector::apply(other, x)),
    }
    if !t.residual.is_null() && !t.residual_first {
        add_residual(&mut sums);
    }
    for (r, row) in sums.iter().enumerate() {
        for (v, sum) in row.iter().enumerate() {
            // SAFETY: output row `r` has `cols` columns at `r * ldc`; the last register may be partial.
            unsafe {
                let to = t.out.add(r * t.ldc + v * L::WIDTH);
                if v + 1 < NV || last == L::WIDTH { sum.store(to) } else { sum.store_first(to, last) }
            }
        }
    }
}

#[inline(always)]
fn each<L: Lanes, const MR: usize, const NV: usize>(sums: &mut [[L; NV]; MR], f: impl Fn(L) -> L) {
    for row in sums {
        for x in row {
            *x = f(*x);
        }
    }
}

/// A microkernel for every count of rows and registers up to the variant's tile: the entry that the table names.
macro_rules! tiles {
    ($entry:ident, $lanes:ty, $feature:literal, rows: [$($mr:literal)*], registers: $nvs:tt) => {
        #[doc = concat!("The tile with ", $feature, ".")]
        ///
        /// # Safety
        /// As for [`compute`](super::tile::compute), for any `rows` and `cols` of the variant.
        pub(super) unsafe fn $entry(t: &super::tile::Tile) {
            #[target_feature(enable = $feature)]
            unsafe fn one<const MR: usize, const NV: usize>(t: &super::tile::Tile) {
                // SAFETY: the caller's promise, and the features are enabled here.
                unsafe { super::tile::compute::<$lanes, MR, NV>(t) }
            }
            let registers = t.cols.div_ceil(<$lanes as crate::lanes::Lanes>::WIDTH);
            // SAFETY: the caller's promise; rows and registers are those of the tile.
            unsafe {
                match t.rows {
                    $($mr => super::tile::tiles!(@registers registers, t, $mr, $nvs),)*
                    _ => unreachable!("a tile of {} rows", t.rows),
                }
            }
        }
    };
    (@registers $registers:ident, $t:ident, $mr:literal, [$($nv:literal)*]) => {
        match $registers {
            $($nv => one::<$mr, $nv>($t),)*
            n => unreachable!("a tile of {n} registers"),
        }
    };
}
pub(super) use tiles;

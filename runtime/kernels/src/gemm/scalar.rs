//! The tile in plain Rust: the reference that every other variant is tested against.

use super::tile::Tile;
use crate::activation;

/// The tile, number by number.
///
/// # Safety
/// The pointers of `t` are valid for what its fields say.
pub(super) unsafe fn tile_4x4(t: &Tile) {
    for row in 0..t.rows {
        for col in 0..t.cols {
            let mut sum = 0.0f32;
            for tap in 0..t.taps {
                for k in 0..t.k {
                    // SAFETY: `pitch >= rows` pointers per tap, each good for `k` numbers; the panel has `cols`
                    // columns, since a register holds one.
                    unsafe {
                        let a = *(*t.a.add(tap * t.pitch + row)).add(k);
                        sum += a * *t.b.add((tap * t.k + k) * t.cols + col);
                    }
                }
            }
            // SAFETY: bias has `cols` numbers; residual and output have this row and column.
            unsafe {
                if !t.bias.is_null() {
                    sum += *t.bias.add(col);
                }
                let at = row * t.ldc + col;
                let residual = if t.residual.is_null() { 0.0 } else { *t.residual.add(at) };
                *t.out.add(at) = match t.residual_first {
                    true => activation::scalar::apply(t.activation, sum + residual),
                    false => activation::scalar::apply(t.activation, sum) + residual,
                };
            }
        }
    }
}

//! The kernel in plain Rust: the reference for all others.

use super::tile::Tile;
use crate::activation::{Activation, scalar::apply};
use crate::epilogue::InRegisters;

/// # Safety
/// As for [`Kernel`](super::tile::Kernel).
pub(super) unsafe fn rows(tile: &Tile<'_>, _registers: usize) {
    for pixel in 0..tile.pixels {
        let products = tile.values.iter().zip(tile.channels);
        let sum: f32 = products.map(|(w, &channel)| w * tile.input[usize::from(channel) * tile.plane + pixel]).sum();
        let activation = match tile.in_registers {
            InRegisters::Clamp(min, max) => Activation::Clip { min, max },
            InRegisters::HardSwish => Activation::HardSwish,
            InRegisters::Later => Activation::None,
        };
        // SAFETY: the output has the tile's pixels.
        unsafe { *tile.out.add(pixel) = apply(activation, sum + tile.bias) };
    }
}

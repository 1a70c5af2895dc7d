//! The kernel in plain Rust: the reference for all others.

use std::ops::Range;

use super::gather::RowBands;
use super::tile::SparseTile;
use crate::activation::{Activation, scalar::apply};
use crate::conv::ConvShape;
use crate::epilogue::InRegisters;

/// # Safety
/// As for [`TileFn`](super::tile::TileFn).
pub(super) unsafe fn rows(tile: &SparseTile<'_>, _registers: usize) {
    let activation = match tile.in_registers {
        InRegisters::Clamp(min, max) => Activation::Clip { min, max },
        InRegisters::HardSwish => Activation::HardSwish,
        InRegisters::Later => Activation::None,
    };
    for group in tile.weights.groups.clone() {
        let (values, channels, filters) = tile.weights.of(group);
        for (at, filter) in filters.enumerate() {
            let bias = tile.bias.map_or(0.0, |bias| bias[filter]);
            for pixel in 0..tile.pixels {
                let products = values.iter().skip(at).step_by(tile.weights.all.block).zip(channels);
                let sum: f32 =
                    products.map(|(w, &channel)| w * tile.input[usize::from(channel) * tile.plane + pixel]).sum();
                // SAFETY: the output has the tile's pixels of every filter.
                unsafe { *tile.out.add(filter * tile.out_plane + pixel) = apply(activation, sum + bias) };
            }
        }
    }
}

/// # Safety
/// None; unsafe only because [`Gather`](super::gather::Gather) is.
pub(super) unsafe fn gather<'a>(
    _bands: &RowBands,
    s: &ConvShape,
    image: &[f32],
    rows: Range<usize>,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    let mut len = 0;
    for channel in 0..s.in_c {
        for (ky, kx) in (0..s.taps()).map(|tap| (tap / s.kernel[1], tap % s.kernel[1])) {
            for (y, x) in rows.clone().flat_map(|y| (0..s.out_w).map(move |x| (y, x))) {
                let inside = s.valid_taps(0, y).contains(&ky) && s.valid_taps(1, x).contains(&kx);
                scratch[len] = if inside {
                    let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                    image[(channel * s.in_h + in_y) * s.in_w + x * s.stride[1] + kx * s.dilation[1] - s.pad_left]
                } else {
                    0.0
                };
                len += 1;
            }
        }
    }
    &scratch[..len]
}

//! Scaled input channels: `x * s` times the weights is `x` times the weights with their rows scaled.
//!
//! A squeeze-and-excite gate scales the input of a convolution with one factor per image and channel. Scaling the
//! weights instead touches `channels x filters` elements, while scaling the pixels touches `channels x pixels` and
//! prevents reading them in place. So for a single image with more pixels than filters, the weights are scaled into
//! scratch; otherwise the rows of a tile are gathered and scaled (`blocks`). On one thread of a Zen 4, in microseconds:
//!
//! | image, filters   | product, then convolution | scaled rows | scaled weights |
//! |------------------|---------------------------|-------------|----------------|
//! | 28x28x240, 40    | 179                       | 181         | 164            |
//! | 14x14x672, 112   | 268                       | 267         | 265            |
//! | 7x7x960, 160     | 137                       | 137         | 154            |

use super::{Variant, Weights, packed_conv_len, packed_len};
use crate::conv::{ConvShape, product};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::pace::Pace;
use crate::simd::{Simd, Vectorized, dispatch};

/// Whether the weights of a convolution are scaled instead of its pixels.
pub(super) fn by_weights(v: &Variant, shape: &ConvShape) -> bool {
    let gathered = product(&[shape.pixels(), shape.taps(), shape.in_c]);
    v.weights == Weights::F32 && shape.batch == 1 && packed_conv_len(v, shape) < gathered
}

/// Writes the packed weights of a convolution to `to`, with every row multiplied by the factor of its channel.
///
/// # Panics
/// If `packed` and `to` are not [`packed_conv_len`] long, or `scale` does not have a factor per channel.
pub(super) fn scale_weights(
    v: &Variant,
    shape: &ConvShape,
    packed: &[f32],
    scale: &[f32],
    to: &mut [f32],
    pace: &Pace<'_>,
) {
    let (depth, filters) = (shape.group_in(), shape.group_out());
    let rows = product(&[shape.taps(), depth]);
    assert_eq!(packed.len(), packed_conv_len(v, shape), "the packed weights");
    assert_eq!(to.len(), packed.len(), "scaled weight length");
    assert_eq!(scale.len(), shape.in_c, "one factor per channel");
    let group_len = packed_len(v, rows, filters);
    if group_len == 0 {
        return;
    }
    let groups = packed.chunks_exact(group_len).zip(to.chunks_exact_mut(group_len)).zip(scale.chunks_exact(depth));
    for ((mut packed, mut to), scale) in groups {
        for registers in v.panels(filters) {
            let width = registers * v.lanes;
            let (panel, panel_to);
            (panel, packed) = packed.split_at(width * rows);
            (panel_to, to) = to.split_at_mut(width * rows);
            if pace.stops(panel.len()) {
                return;
            }
            let panel = ScaleRows { panel, width, scale, to: panel_to };
            if v.isa == Isa::Scalar { panel.one_by_one() } else { dispatch(v.isa, panel) }
        }
    }
}

/// Rows of a panel, `width` elements each; the factors repeat with every tap.
struct ScaleRows<'a> {
    panel: &'a [f32],
    width: usize,
    scale: &'a [f32],
    to: &'a mut [f32],
}

impl ScaleRows<'_> {
    fn one_by_one(self) {
        let rows = self.panel.chunks_exact(self.width).zip(self.to.chunks_exact_mut(self.width));
        for ((row, to), s) in rows.zip(self.scale.iter().cycle()) {
            for (to, x) in to.iter_mut().zip(row) {
                *to = x * s;
            }
        }
    }
}

impl Vectorized for ScaleRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.panel.chunks_exact(self.width).zip(self.to.chunks_exact_mut(self.width));
        for ((row, to), &s) in rows.zip(self.scale.iter().cycle()) {
            let s = simd.splat(s);
            let mut to = to.chunks_exact_mut(S::LANES);
            let row = row.chunks_exact(S::LANES);
            let rest = row.remainder();
            for (to, x) in to.by_ref().zip(row) {
                simd.store(simd.load(x).mul(s), to);
            }
            // At most half a register.
            if !rest.is_empty() {
                simd.store_partial(simd.load_partial(rest).mul(s), to.into_remainder());
            }
        }
    }
}

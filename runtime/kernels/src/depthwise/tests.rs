//! Every variant of this CPU against the definition of the convolution.

use proptest::prelude::*;

use super::*;
use crate::activation::Activation;
use crate::epilogue::Affine;
use crate::gemm::tests::{assert_close, definition, numbers};
use crate::guard::{Edge, Guarded};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn depthwise_follows_the_definition(
        (batch, in_h, in_w, channels) in (1usize..3, 1usize..14, 1usize..24, 1usize..40),
        kernel in prop::array::uniform2(1usize..6), stride in prop::array::uniform2(1usize..3),
        dilation in prop::array::uniform2(1usize..3), pad in prop::array::uniform4(0usize..4),
        flags in 0u32..64, threads in 1usize..3,
    ) {
        let edge = Edge::BOTH[usize::from(flags & 8 > 0)];
        let guarded = |seed, len| Guarded::new(&numbers(seed, len), edge);
        let out = |len: usize, axis: usize, pads: usize| {
            (len + pads).checked_sub((kernel[axis] - 1) * dilation[axis] + 1).map(|free| free / stride[axis] + 1)
        };
        let (Some(out_h), Some(out_w)) = (out(in_h, 0, pad[0] + pad[1]), out(in_w, 1, pad[2] + pad[3])) else {
            return Ok(());
        };
        let shape = ConvShape {
            batch, in_h, in_w, in_c: channels, out_h, out_w, out_c: channels,
            kernel, stride, dilation, pad_top: pad[0], pad_left: pad[2], groups: channels,
        };
        let (x, w) = (guarded(1, shape.input_len()), numbers(2, channels * shape.taps()));
        let (bias, residual) = (guarded(3, channels), guarded(4, shape.output_len()));
        let (scale, shift) = (guarded(5, channels), guarded(6, channels));
        let epilogue = Epilogue {
            bias: (flags & 1 > 0).then_some(&bias),
            activation: match flags {
                _ if flags & 16 > 0 => Activation::Silu,
                _ if flags & 2 > 0 => Activation::HardSwish,
                _ => Activation::None,
            },
            residual: (flags & 4 > 0).then_some(&residual),
            residual_first: flags & 1 > 0,
            affine: (flags & 32 > 0).then_some(Affine { scale: &scale, shift: &shift }),
        };
        follows_the_definition(&shape, &x, &w, epilogue, edge, threads);
    }
}

/// Two rows are computed at a time, even if the windows of one or both lie entirely in the padding.
#[test]
fn rows_in_the_padding_follow_the_definition() {
    for kernel in [3, 5] {
        for (in_h, pad) in [(1, 3), (1, 4), (2, 4), (5, 3)] {
            let out = in_h + 2 * pad - kernel + 1;
            let shape = ConvShape {
                batch: 1,
                in_h,
                in_w: in_h,
                in_c: 17,
                out_h: out,
                out_w: out,
                out_c: 17,
                kernel: [kernel; 2],
                stride: [1; 2],
                dilation: [1; 2],
                pad_top: pad,
                pad_left: pad,
                groups: 17,
            };
            let (x, w) = (numbers(1, shape.input_len()), numbers(2, 17 * shape.taps()));
            follows_the_definition(&shape, &x, &w, Epilogue::NONE, Edge::BOTH[0], 1);
        }
    }
}

/// Every variant of this CPU.
fn follows_the_definition(shape: &ConvShape, x: &[f32], w: &[f32], epilogue: Epilogue<'_>, edge: Edge, threads: usize) {
    let want = definition(shape, x, w, None, &epilogue);
    let mut packed = Guarded::new(&vec![f32::NAN; w.len()], edge);
    pack(shape, w, &mut packed, &Pace::free());
    let pool = Pool::new(threads);
    for v in VARIANTS.iter().filter(|v| v.isa.is_available()) {
        let mut got = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
        depthwise(v, Depthwise { shape, input: x, packed: &packed, out: &mut got, epilogue }, &pool);
        assert_close(&got, &want, v.name);
    }
}

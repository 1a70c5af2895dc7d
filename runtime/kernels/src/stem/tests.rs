//! Every variant of this CPU against the definition of the convolution.

use proptest::prelude::*;

use super::*;
use crate::activation::Activation;
use crate::gemm::tests::{assert_close, definition, numbers};
use crate::guard::{Edge, Guarded};

/// Converts NCHW to NHWC.
fn nhwc(shape: &ConvShape, nchw: &[f32]) -> Vec<f32> {
    let (pixels, channels) = (shape.in_h * shape.in_w, shape.in_c);
    let at = |i: usize| {
        let (image, pixel, c) = (i / channels / pixels, i / channels % pixels, i % channels);
        nchw[(image * channels + c) * pixels + pixel]
    };
    (0..nchw.len()).map(at).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn stems_follow_the_definition(
        (batch, in_h, in_w) in (1usize..3, 1usize..14, 1usize..60),
        (channels, filters) in (1usize..5, 1usize..70),
        kernel in prop::array::uniform2(1usize..8), stride in prop::array::uniform2(1usize..3),
        dilation in prop::array::uniform2(1usize..4), pad in prop::array::uniform4(0usize..4),
        flags in 0u32..16, threads in 1usize..3,
    ) {
        let edge = Edge::BOTH[usize::from(flags & 8 > 0)];
        let guarded = |seed, len| Guarded::new(&numbers(seed, len), edge);
        let out = |len: usize, kernel: usize, dilation: usize, stride: usize, pads: usize| {
            (len + pads).checked_sub((kernel - 1) * dilation + 1).map(|free| free / stride + 1)
        };
        let (Some(out_h), Some(out_w)) = (
            out(in_h, kernel[0], dilation[0], stride[0], pad[0] + pad[1]),
            out(in_w, kernel[1], dilation[1], stride[1], pad[2] + pad[3]),
        ) else {
            return Ok(());
        };
        let shape = ConvShape {
            batch, in_h, in_w, in_c: channels, out_h, out_w, out_c: filters,
            kernel, stride, dilation, pad_top: pad[0], pad_left: pad[2], groups: 1,
        };
        prop_assume!(takes(&shape));
        let (x, w) = (guarded(1, shape.input_len()), numbers(2, filters * channels * shape.taps()));
        let bias = guarded(3, filters);
        let activation = [Activation::None, Activation::Relu, Activation::HardSwish, Activation::Silu];
        let epilogue = Epilogue {
            bias: (flags & 4 > 0).then_some(&bias),
            activation: activation[flags as usize % 4],
            ..Epilogue::NONE
        };
        let want = definition(&shape, &nhwc(&shape, &x), &w, None, &epilogue);
        let pool = Pool::new(threads);
        for v in VARIANTS.iter().filter(|v| v.isa.is_available()) {
            let mut packed = Guarded::new(&vec![f32::NAN; packed_len(v, &shape)], edge);
            pack(v, &shape, &w, &mut packed);
            let mut got = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
            stem(v, Stem { shape: &shape, input: &x, packed: &packed, out: &mut got, epilogue }, &pool);
            assert_close(&got, &want, v.name);
        }
    }
}

//! Every instruction set of this CPU against the definition of the three convolutions.

use proptest::prelude::*;

use super::*;
use crate::activation::Activation;
use crate::gemm::tests::{assert_close, definition, numbers};
use crate::gemm::{Weights, pack_conv, packed_conv_len};
use crate::guard::{Edge, Guarded};
use crate::isa::Isa;
use crate::pace::Pace;

/// The shape of a 1x1 convolution.
fn pointwise(batch: usize, in_h: usize, in_w: usize, in_c: usize, out_c: usize) -> ConvShape {
    ConvShape {
        batch,
        in_h,
        in_w,
        in_c,
        out_h: in_h,
        out_w: in_w,
        out_c,
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: 0,
        pad_left: 0,
        groups: 1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bottlenecks_follow_the_definition(
        (batch, in_h, in_w) in (1usize..3, 1usize..40, 1usize..24),
        (channels, middle, filters) in (1usize..20, 1usize..40, 1usize..20),
        kernel in prop::array::uniform2(1usize..6), stride in prop::array::uniform2(1usize..3),
        dilation in 1usize..3, pad in prop::array::uniform4(0usize..4),
        ends in 0usize..3, flags in 0u32..32, threads in 1usize..4,
    ) {
        let edge = Edge::BOTH[usize::from(flags & 8 > 0)];
        let guarded = |seed, len| Guarded::new(&numbers(seed, len), edge);
        let out = |len: usize, axis: usize, pads: usize| {
            (len + pads).checked_sub((kernel[axis] - 1) * dilation + 1).map(|free| free / stride[axis] + 1)
        };
        let (Some(out_h), Some(out_w)) = (out(in_h, 0, pad[0] + pad[1]), out(in_w, 1, pad[2] + pad[3])) else {
            return Ok(());
        };
        let (expands, projects) = (ends != 1, ends != 2);
        let shape = ConvShape {
            batch, in_h, in_w, in_c: middle, out_h, out_w, out_c: middle,
            kernel, stride, dilation: [dilation; 2], pad_top: pad[0], pad_left: pad[2], groups: middle,
        };
        let first = pointwise(batch, in_h, in_w, channels, middle);
        let last = pointwise(batch, out_h, out_w, middle, filters);
        let input = guarded(1, if expands { first.input_len() } else { shape.input_len() });
        let weights = [numbers(2, channels * middle), numbers(3, middle * shape.taps()), numbers(4, middle * filters)];
        let bias = [guarded(5, middle), guarded(6, middle), guarded(7, filters)];
        let out_len = if projects { last.output_len() } else { shape.output_len() };
        let residual = guarded(8, out_len);
        let residual = (flags & 1 > 0).then_some(&*residual);
        let activation = if flags & 2 > 0 { Activation::HardSwish } else { Activation::Silu };
        let epilogue = |at: usize, last: bool| Epilogue {
            bias: (flags & 4 > 0 || at > 0).then_some(&*bias[at]),
            activation: if last && flags & 16 == 0 { Activation::None } else { activation },
            residual: if last { residual } else { None },
            ..Epilogue::NONE
        };
        let tails = [epilogue(0, false), epilogue(1, !projects), epilogue(2, true)];

        let mut want = input.to_vec();
        if expands {
            want = definition(&first, &want, &weights[0], None, &tails[0]);
        }
        want = definition(&shape, &want, &weights[1], None, &tails[1]);
        if projects {
            want = definition(&last, &want, &weights[2], None, &tails[2]);
        }

        let pool = Pool::new(threads);
        for isa in Isa::available() {
            let mut packed = Guarded::new(&vec![f32::NAN; weights[1].len()], edge);
            depthwise::pack(&shape, &weights[1], &mut packed, &Pace::free());
            let (expand_rows, project_rows) = product_rows(&shape);
            let ends = [(&first, expand_rows, &weights[0]), (&last, project_rows, &weights[2])].map(|(s, rows, w)| {
                let v = gemm::choose(isa, Weights::F32, rows, s.in_c, s.out_c);
                let mut packed = Guarded::new(&vec![f32::NAN; packed_conv_len(v, s)], edge);
                pack_conv(v, s, w, &mut packed, &Pace::free());
                (v, packed)
            });
            let end = |at: usize, channels, epilogue| {
                Pointwise { variant: ends[at].0, channels, packed: Packed::F32(&ends[at].1), epilogue }
            };
            let mut got = Guarded::new(&vec![f32::NAN; out_len], edge);
            let expand = expands.then_some(ends[0].0);
            let scratch_len = scratch_len(&shape, expand, projects, threads);
            let mut scratch = Guarded::new(&vec![f32::NAN; scratch_len], edge);
            let args = Bottleneck {
                shape: &shape,
                input: &input,
                expand: expands.then(|| end(0, channels, tails[0])),
                depthwise: depthwise::choose(isa, middle),
                packed: &packed,
                epilogue: tails[1],
                project: projects.then(|| end(1, filters, tails[2])),
                out: &mut got,
            };
            bottleneck(args, &mut scratch, &pool);
            assert_close(&got, &want, isa.name());
        }
    }
}

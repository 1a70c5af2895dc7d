//! Every variant of this CPU against the definition of the convolution.

use proptest::prelude::*;

use super::*;
use crate::activation::Activation;
use crate::epilogue::Affine;
use crate::gemm::tests::{definition, halved, halves, numbers};
use crate::guard::{Edge, Guarded};

/// The transforms reduce accuracy: allows a tenth of the design's error limit, relative to `size`.
fn assert_close(got: &[f32], want: &[f32], size: f32, name: &str) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= 1e-5 * size, "{name}: {g} instead of {w} at {i}, of a layer of outputs up to {size}");
    }
}

/// The scale of a layer's errors: its largest output, or the standard deviation of an output (the root of the sum of
/// its products' squares) if the few outputs of a small layer all happen to be near 0.
fn output_size(shape: &ConvShape, x: &[f32], w: &[f32], outputs: &[f32]) -> f32 {
    let squares = |values: &[f32]| values.iter().map(|v| v * v).collect::<Vec<_>>();
    let deviations = definition(shape, &squares(x), &squares(w), None, &Epilogue::default());
    let largest = |values: &[f32]| values.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    largest(outputs).max(largest(&deviations).sqrt())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn winograd_follows_the_definition(
        (batch, in_h, in_w) in (1usize..3, 1usize..14, 1usize..14), in_c in 1usize..40, out_c in 1usize..70,
        pad in prop::array::uniform4(0usize..3), stride in 1usize..3, flags in 0u32..64, threads in 1usize..4,
    ) {
        let edge = Edge::BOTH[usize::from(flags & 8 > 0)];
        let guarded = |seed, len| Guarded::new(&numbers(seed, len), edge);
        let out = |len: usize| Some(len.checked_sub(3)? / stride + 1);
        let (Some(out_h), Some(out_w)) = (out(in_h + pad[0] + pad[1]), out(in_w + pad[2] + pad[3])) else {
            return Ok(());
        };
        let shape = ConvShape {
            batch, in_h, in_w, in_c, out_h, out_w, out_c,
            kernel: [3, 3], stride: [stride; 2], dilation: [1, 1], pad_top: pad[0], pad_left: pad[2], groups: 1,
        };
        let (x, w) = (guarded(1, shape.input_len()), halves(2, out_c * in_c * 9));
        let (bias, residual) = (guarded(3, out_c), guarded(4, shape.output_len()));
        let (scale, shift) = (guarded(5, out_c), guarded(6, out_c));
        let epilogue = Epilogue {
            bias: (flags & 1 > 0).then_some(&bias),
            activation: match flags {
                _ if flags & 16 > 0 => Activation::Silu,
                _ if flags & 2 > 0 => Activation::Relu,
                _ => Activation::None,
            },
            residual: (flags & 4 > 0).then_some(&residual),
            residual_first: flags & 1 > 0,
            affine: (flags & 32 > 0).then_some(Affine { scale: &scale, shift: &shift }),
        };
        let want = definition(&shape, &x, &w, None, &epilogue);
        let size = output_size(&shape, &x, &w, &want);
        let pool = Pool::new(threads);
        for v in VARIANTS.iter().filter(|v| v.isa.is_available() && v.takes(&shape)) {
            let mut packed = Guarded::new(&vec![f32::NAN; packed_len(v, &shape)], edge);
            pack(v, &shape, &w, &mut packed).unwrap();
            let halved = halved(v.storage == Storage::Kernels(Weights::F16), &packed, edge);
            let packed = halved.as_ref().map_or(Packed::F32(&packed), |halved| Packed::F16(halved));
            let mut got = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
            let mut scratch = Guarded::new(&vec![f32::NAN; scratch_len(v, &shape, threads)], edge);
            let args = Winograd { shape: &shape, input: &x, packed, out: &mut got, epilogue };
            winograd(v, args, &mut scratch, &pool);
            assert_close(&got, &want, size, v.name);
        }
    }
}

/// Panels of products are padded to eight filters, also where the transforms have registers of sixteen.
#[test]
fn no_weights_are_read_past_the_last_eight_filters() {
    for (out_c, stride) in [(8, 1), (24, 2), (40, 1)] {
        let out = 4 / stride + 1;
        let shape = ConvShape { out_h: out, out_w: out, stride: [stride; 2], ..square(5, 3, out_c) };
        let (x, w) = (numbers(1, shape.input_len()), halves(2, out_c * 3 * 9));
        let want = definition(&shape, &x, &w, None, &Epilogue::default());
        for v in VARIANTS.iter().filter(|v| v.isa.is_available() && v.takes(&shape)) {
            let mut packed = Guarded::new(&vec![f32::NAN; packed_len(v, &shape)], Edge::End);
            pack(v, &shape, &w, &mut packed).unwrap();
            let halved = halved(v.storage == Storage::Kernels(Weights::F16), &packed, Edge::End);
            let packed = halved.as_ref().map_or(Packed::F32(&packed), |halved| Packed::F16(halved));
            let (mut got, mut scratch) = (vec![f32::NAN; want.len()], vec![0.0; scratch_len(v, &shape, 1)]);
            let args = Winograd { shape: &shape, input: &x, packed, out: &mut got, epilogue: Epilogue::default() };
            winograd(v, args, &mut scratch, &Pool::new(1));
            assert_close(&got, &want, output_size(&shape, &x, &w, &want), v.name);
        }
    }
}

/// A 3x3 convolution that keeps the size.
fn square(side: usize, in_c: usize, out_c: usize) -> ConvShape {
    ConvShape {
        batch: 1,
        in_h: side,
        in_w: side,
        in_c,
        out_h: side,
        out_w: side,
        out_c,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: 1,
        pad_left: 1,
        groups: 1,
    }
}

#[test]
fn layers_of_many_channels_are_chosen_and_small_ones_are_not() {
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::Neon32] {
        if VARIANTS.iter().all(|v| v.isa != isa) {
            continue;
        }
        let chosen = |shape: &ConvShape| {
            let k = shape.taps() * shape.in_c;
            choose(isa, shape, Storage::Transformed, gemm::choose(isa, Weights::F32, shape.pixels(), k, shape.out_c))
                .map(Variant::outputs)
        };
        assert_eq!(chosen(&square(56, 64, 64)), Some(4));
        assert_eq!(chosen(&square(32, 128, 128)), Some(4));
        // On AVX-512 the transforms cost more than the smaller tiles' products; on 32-bit ARM a block has fewer tiles.
        let smaller = matches!(isa, Isa::Avx512 | Isa::Neon32);
        assert_eq!(chosen(&square(14, 256, 256)), Some(if smaller { 4 } else { 5 }));
        assert_eq!(chosen(&square(32, 3, 64)), None);
        assert_eq!(chosen(&ConvShape { stride: [3, 3], ..square(33, 64, 64) }), None);
    }
}

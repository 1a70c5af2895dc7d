//! Every variant of this CPU against the definition, at every density, on planes of all sizes.

use proptest::prelude::*;

use super::*;
use crate::activation::Activation;
use crate::conv::{Conv, FloatKernel};
use crate::gemm::tests::{assert_close, definition, numbers};
use crate::guard::{Edge, Guarded};

/// A 1x1 convolution.
fn pointwise([batch, height, width]: [usize; 3], in_c: usize, out_c: usize) -> ConvShape {
    ConvShape { batch, in_h: height, out_h: height, in_w: width, out_w: width, ..ConvShape::matrix(1, in_c, out_c) }
}

/// `len` weights, of which about `density` in 256 are nonzero. Half precision represents them exactly, so that the kernels
/// of both weight dtypes have the same weights.
fn weights(seed: u32, len: usize, density: usize) -> Vec<f32> {
    let keep = numbers(seed + 7, len).into_iter().map(|x| ((x + 1.0) * 128.0) as usize >= density);
    let halves = numbers(seed, len).into_iter().map(|w| f16::from_f32(w).to_f32());
    halves.zip(keep).map(|(w, zero)| if zero { 0.0 } else { w }).collect()
}

/// Converts images from NCHW to NHWC.
fn innermost(planes: &[f32], pixels: usize, channels: usize) -> Vec<f32> {
    let at = |i: usize| {
        let (image, pixel, channel) = (i / channels / pixels, i / channels % pixels, i % channels);
        planes[(image * channels + channel) * pixels + pixel]
    };
    (0..planes.len()).map(at).collect()
}

/// Weights that a variant stores.
fn stored(v: &Variant, shape: &ConvShape, filters: Filters<'_>) -> usize {
    let (depth, count) = (depth(shape), shape.out_c);
    let weight = |filter: usize, channel: usize| match filters {
        Filters::Oihw(w) => w[filter * depth + channel],
        Filters::Io(w) => w[channel * count + filter],
    };
    let any = |group: usize, channel: usize| (group..count.min(group + v.block)).any(|f| weight(f, channel) != 0.0);
    let groups = (0..count).step_by(v.block);
    v.block * groups.map(|group| (0..depth).filter(|&channel| any(group, channel)).count()).sum::<usize>()
}

fn packed(v: &Variant, shape: &ConvShape, filters: Filters<'_>, edge: Edge) -> Guarded<f32> {
    let len = v.packed_len(shape, stored(v, shape, filters));
    let mut packed = Guarded::new(&vec![f32::NAN; len / 4], edge);
    pack(v, shape, filters, cast_slice_mut(&mut packed));
    packed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sparse_convolutions_follow_the_definition(
        (batch, height, width) in (1usize..3, 1usize..20, 1usize..20), (in_c, out_c) in (1usize..40, 1usize..24),
        density in 0usize..257, act in 0usize..4, flags in 0u32..16, threads in 1usize..4,
    ) {
        let edge = Edge::BOTH[usize::from(flags & 1 > 0)];
        let shape = pointwise([batch, height, width], in_c, out_c);
        let plane = height * width;
        let x = Guarded::new(&numbers(1, shape.input_len()), edge);
        // The first filter has only zero weights, the last one none.
        let mut w = weights(2, in_c * out_c, density);
        w[..in_c].fill(0.0);
        w[(out_c - 1) * in_c..].iter_mut().for_each(|w| *w = if *w == 0.0 { 0.5 } else { *w });
        let bias = numbers(3, out_c);
        let residual = Guarded::new(&numbers(4, shape.output_len()), edge);
        let turned = innermost(&residual, plane, out_c);
        let activation = [Activation::None, Activation::Relu, Activation::HardSwish, Activation::Silu][act];
        let epilogue = |residual| Epilogue {
            bias: (flags & 2 > 0).then_some(&*bias),
            activation,
            residual: (flags & 4 > 0).then_some(residual),
            residual_first: flags & 8 > 0,
            affine: None,
        };
        let want = definition(&shape, &innermost(&x, plane, in_c), &w, None, &epilogue(&turned));
        let pool = Pool::new(threads);
        for v in VARIANTS.iter().filter(|v| v.isa.is_available()) {
            let packed = packed(v, &shape, Filters::Oihw(&w), edge);
            let mut out = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
            let (input, packed): (&[f32], &[u8]) = (&x, cast_slice(&packed));
            let args = Conv { shape: &shape, input, packed, out: &mut out, epilogue: epilogue(&residual), scale: None };
            let mut scratch = Guarded::new(&vec![f32::NAN; v.scratch_len(&shape, false, threads)], edge);
            v.run(args, &mut scratch, &pool);
            assert_close(&innermost(&out, plane, out_c), &want, v.name);
        }
    }
}

/// Plane sizes of real networks, which the tile sizes were chosen for.
#[test]
fn whole_planes_follow_the_definition() {
    for (side, in_c, out_c) in [(1, 960, 128), (7, 160, 33), (14, 80, 20), (28, 40, 12), (56, 24, 7), (112, 16, 4)] {
        let shape = pointwise([1, side, side], in_c, out_c);
        let (x, w) = (numbers(1, shape.input_len()), weights(2, in_c * out_c, 26));
        let want = definition(&shape, &innermost(&x, side * side, in_c), &w, None, &Epilogue::NONE);
        for v in VARIANTS.iter().filter(|v| v.isa.is_available()) {
            let packed = packed(v, &shape, Filters::Oihw(&w), Edge::End);
            let mut out = Guarded::new(&vec![f32::NAN; shape.output_len()], Edge::End);
            let packed: &[u8] = cast_slice(&packed);
            let args = Conv { shape: &shape, input: &x, packed, out: &mut out, epilogue: Epilogue::NONE, scale: None };
            let mut scratch = Guarded::new(&vec![f32::NAN; v.scratch_len(&shape, false, 1)], Edge::End);
            v.run(args, &mut scratch, &Pool::new(1));
            assert_close(&innermost(&out, side * side, out_c), &want, v.name);
        }
    }
}

/// Weights pruned in blocks are stored with one channel for four, and the last filters may be fewer than a block.
#[test]
fn blocks_share_their_channels() {
    for (out_c, blocks) in [(8, 2), (10, 3), (3, 1)] {
        let shape = ConvShape::matrix(1, 20, out_c);
        let w: Vec<f32> = (0..20 * out_c).map(|i| if i % 20 == 7 { 0.5 } else { 0.0 }).collect();
        for v in VARIANTS.iter().filter(|v| v.block == BLOCK) {
            let bytes = 4 * (blocks + 1) + (blocks * (BLOCK * v.weights.size() + 2)).next_multiple_of(4);
            assert_eq!(size_of_val(&*packed(v, &shape, Filters::Oihw(&w), Edge::End)), bytes, "{}", v.name);
            let task = Task { nonzeros: out_c, blocks, ..Task::new(&shape) };
            assert_eq!(v.packed_len(&shape, v.stored(&task)), bytes);
        }
    }
}

#[test]
fn both_weight_layouts_pack_to_the_same_bytes() {
    let shape = ConvShape::matrix(1, 19, 23);
    let oihw = weights(5, 19 * 23, 100);
    let io: Vec<f32> = (0..19 * 23).map(|i| oihw[i % 23 * 19 + i / 23]).collect();
    for v in VARIANTS {
        let bytes = |filters| -> Vec<u8> { cast_slice(&packed(v, &shape, filters, Edge::End)).to_vec() };
        assert_eq!(bytes(Filters::Oihw(&oihw)), bytes(Filters::Io(&io)), "{}", v.name);
    }
}

/// Packed weights from a file may contain anything: those that do not match the shape are detected, and none make a
/// kernel access memory out of bounds.
#[test]
fn inconsistent_packed_weights_are_detected() {
    let shape = ConvShape::matrix(1, 10, 3);
    let w = weights(1, 30, 128);
    let aligned = |bytes: &[u8]| crate::arena::AlignedVec::from_slice(bytes);
    for v in VARIANTS.iter().filter(|v| v.isa.is_available()) {
        let whole: Vec<u8> = cast_slice(&packed(v, &shape, Filters::Oihw(&w), Edge::End)).to_vec();
        assert!(v.reads(&shape, &aligned(&whole)));
        let with = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            aligned(&bytes)
        };
        // A channel past the last, decreasing ends, a first end that is not 0, a last end past the weights, and too few
        // bytes.
        let ends = 4 * (v.groups(&shape) + 1);
        let channel = ends + stored(v, &shape, Filters::Oihw(&w)) * v.weights.size();
        let few = aligned(&whole[..whole.len() - 4]);
        for bytes in [with(channel, 10), with(4, 200), with(0, 1), with(ends - 4, 200), few] {
            assert!(!v.reads(&shape, &bytes));
            let run = || {
                let (out, epilogue) = (&mut [0.0; 3], Epilogue::NONE);
                let args = Conv { shape: &shape, input: &[1.0; 10], packed: &bytes, out, epilogue, scale: None };
                v.run(args, &mut vec![0.0; v.scratch_len(&shape, false, 1)], &Pool::new(1));
            };
            let _ = std::panic::catch_unwind(run);
        }
        assert!(!v.reads(&shape, &[]));
    }
}

/// Every count of weights around the widths of registers, in both dtypes.
#[test]
fn any_number_of_weights_is_widened() {
    for v in VARIANTS.iter().filter(|v| v.isa.is_available()) {
        for count in 0..70 {
            let halves: Vec<f16> = (0..count).map(|at| f16::from_f32(at as f32 - 20.5)).collect();
            let (halves, mut to) = (Guarded::new(&halves, Edge::End), Guarded::new(&vec![f32::NAN; count], Edge::End));
            // SAFETY: this CPU has the instructions.
            unsafe { (v.widen)(&halves, &mut to) };
            assert!(to.iter().enumerate().all(|(at, &w)| w == at as f32 - 20.5), "{} of {count}", v.name);
        }
    }
}

#[test]
fn tiles_cover_the_plane() {
    for v in VARIANTS {
        for plane in 1..2000 {
            for (depth, weights) in [(16, 3), (64, 60), (4000, 40)] {
                let Tiles { registers, count, .. } = v.tiles(plane, depth, 100, weights, false);
                let pixels = (registers * v.width).min(plane);
                assert!(count * registers * v.width >= plane && (count - 1) * registers * v.width < plane, "{plane}");
                assert!(pixels > (registers - 1) * v.width && (registers == 1 || pixels >= v.width), "{plane}");
            }
        }
    }
}

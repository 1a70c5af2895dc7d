//! Every variant of this CPU against the definition of the convolution.

use proptest::prelude::*;

use super::*;
use crate::activation::Activation;
use crate::epilogue::Affine;
use crate::gemm::tests::{assert_close, definition, numbers};
use crate::guard::{Edge, Guarded};

/// The shape of a convolution with padding above, below, left and right; `None` if it has no output.
fn shape(
    [batch, in_h, in_w]: [usize; 3],
    [groups, depth, filters]: [usize; 3],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pad: [usize; 4],
) -> Option<ConvShape> {
    let out = |len: usize, axis: usize, pads: usize| {
        (len + pads).checked_sub((kernel[axis] - 1) * dilation[axis] + 1).map(|free| free / stride[axis] + 1)
    };
    let (out_h, out_w) = (out(in_h, 0, pad[0] + pad[1])?, out(in_w, 1, pad[2] + pad[3])?);
    let (in_c, out_c, pad_top, pad_left) = (groups * depth, groups * filters, pad[0], pad[2]);
    Some(ConvShape {
        batch,
        in_h,
        in_w,
        in_c,
        out_h,
        out_w,
        out_c,
        kernel,
        stride,
        dilation,
        pad_top,
        pad_left,
        groups,
    })
}

/// Every variant of this CPU with up to three threads, whose outputs are bit-equal.
fn follows_the_definition(shape: &ConvShape, epilogue: Epilogue<'_>, edge: Edge) {
    let (x, w) = (numbers(1, shape.input_len()), numbers(2, shape.out_c * shape.group_in() * shape.taps()));
    let want = definition(shape, &x, &w, None, &epilogue);
    let x = Guarded::new(&x, edge);
    for v in VARIANTS.iter().filter(|v| v.isa.is_available() && Split::new(v.width, shape, 1).is_some()) {
        let mut packed = Guarded::new(&vec![f32::NAN; packed_len(v, shape)], edge);
        pack(v, shape, &w, &mut packed, &Pace::free());
        let mut first: Option<Vec<f32>> = None;
        for threads in 1..=3 {
            let split = Split::new(v.width, shape, threads).unwrap();
            let mut scratch = Guarded::new(&vec![f32::NAN; split.scratch_len()], edge);
            let mut got = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
            let args = Grouped { shape, input: &x, packed: &packed, out: &mut got, epilogue };
            grouped(v, args, &mut scratch, &Pool::new(threads));
            match &first {
                None => assert_close(&got, &want, v.name),
                Some(first) => assert!(first[..] == got[..], "{}: other bits with {threads} threads", v.name),
            }
            first = Some(got.to_vec());
        }
    }
}

const ACTIVATIONS: [Activation; 11] = [
    Activation::None,
    Activation::Relu,
    Activation::Clip { min: -0.5, max: 0.75 },
    Activation::LeakyRelu(0.1),
    Activation::HardSwish,
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn small_groups_follow_the_definition(
        (batch, in_h, in_w) in (1usize..3, 1usize..12, 1usize..40),
        (groups, depth, filters) in (2usize..25, 1usize..8, 1usize..20), single in 0usize..4,
        kernel in prop::array::uniform2(1usize..8), stride in prop::array::uniform2(1usize..4),
        dilation in prop::array::uniform2(1usize..4), pad in prop::array::uniform4(0usize..5),
        activation in 0..ACTIVATIONS.len(), flags in 0u32..32,
    ) {
        // One filter per channel, several, or any group.
        let (groups, depth, filters) = match single {
            0 => (groups * depth, 1, 1),
            1 => (groups, 1, filters),
            2 => (groups, depth, depth),
            _ => (groups, depth, filters),
        };
        let shape = shape([batch, in_h, in_w], [groups, depth, filters], kernel, stride, dilation, pad);
        let Some(shape) = shape else { return Ok(()) };
        let edge = Edge::BOTH[usize::from(flags & 8 > 0)];
        let guarded = |seed, len| Guarded::new(&numbers(seed, len), edge);
        let (bias, residual) = (guarded(3, shape.out_c), guarded(4, shape.output_len()));
        let (scale, shift) = (guarded(5, shape.out_c), guarded(6, shape.out_c));
        let epilogue = Epilogue {
            bias: (flags & 1 > 0).then_some(&bias),
            activation: ACTIVATIONS[activation],
            residual: (flags & 4 > 0).then_some(&residual),
            residual_first: flags & 2 > 0,
            affine: (flags & 16 > 0).then_some(Affine { scale: &scale, shift: &shift }),
        };
        follows_the_definition(&shape, epilogue, edge);
    }
}

/// The layers that the family is for, on small images.
#[test]
fn usual_layers_follow_the_definition() {
    let layers = [
        ([40, 1, 1], [7, 7], 1),
        ([24, 1, 1], [9, 9], 1),
        ([20, 1, 2], [7, 7], 2),
        ([16, 1, 1], [1, 11], 1),
        ([16, 1, 1], [11, 1], 1),
        ([8, 4, 4], [3, 3], 1),
        ([8, 4, 4], [3, 3], 2),
        ([4, 8, 8], [3, 3], 1),
        ([3, 16, 16], [3, 3], 1),
        ([2, 24, 24], [3, 3], 2),
        ([2, 64, 64], [1, 1], 1),
    ];
    for (groups, kernel, stride) in layers {
        for side in [1, 7, 14, 16, 23, 29] {
            let [rows, columns] = kernel.map(|k: usize| k / 2);
            let pad = [rows, rows, columns, columns];
            let shape = shape([1, side, side], groups, kernel, [stride; 2], [1; 2], pad).unwrap();
            let bias = numbers(3, shape.out_c);
            let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::NONE };
            follows_the_definition(&shape, epilogue, Edge::End);
        }
    }
}

/// Windows that lie entirely in the padding, and images without pixels, give the bias.
#[test]
fn windows_in_the_padding_follow_the_definition() {
    let sizes = [([1, 1, 3], [7, 5], [3, 1]), ([2, 2, 1], [3, 3], [1, 2]), ([1, 0, 4], [2, 2], [1, 1])];
    for (size, kernel, dilation) in sizes {
        let shape = shape(size, [17, 1, 1], kernel, [2, 1], dilation, [9, 12, 8, 9]).unwrap();
        let bias = numbers(3, shape.out_c);
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::NONE };
        follows_the_definition(&shape, epilogue, Edge::Start);
    }
}

/// A convolution whose buffers or steps would be too large is left to other families, whatever its sizes.
#[test]
fn extreme_sizes_are_not_taken() {
    let usual = shape([1, 9, 9], [16, 1, 1], [7, 7], [1; 2], [1; 2], [3; 4]).unwrap();
    // The product of two is a size too.
    let large = 1 << (usize::BITS / 2 - 2);
    let others = [
        ConvShape { kernel: [large, large], ..usual.clone() },
        ConvShape { kernel: [3, large], ..usual.clone() },
        ConvShape { dilation: [large, 1], in_h: large, ..usual.clone() },
        ConvShape { dilation: [1, large], ..usual.clone() },
        ConvShape { stride: [1, large], ..usual.clone() },
        ConvShape { groups: 1, ..usual.clone() },
        ConvShape { in_c: 0, out_c: 0, ..usual.clone() },
    ];
    for width in [4, 8, 16] {
        assert!(Split::new(width, &usual, 2).is_some());
        for shape in &others {
            assert!(Split::new(width, shape, 2).is_none(), "{shape:?}");
        }
    }
}

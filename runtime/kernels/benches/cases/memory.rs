//! The memory-bound families, with one kernel for each instruction set. The sizes are those of small classifiers: 112 x
//! 112 x 16 and 56 x 56 x 72 activations, 224 x 224 images, 197 tokens.

use half::f16;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::arena::{AlignedVec, Plain};
use skipstone_kernels::binary::{BinaryFn, Broadcast, binary};
use skipstone_kernels::cast::{CastTo, cast};
use skipstone_kernels::isa::Isa;
use skipstone_kernels::layernorm::{LayerNorm, Norm, layernorm};
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::pool::{ImageShape, PoolFn, PoolShape};
use skipstone_kernels::resize::{LinearAxis, resize_linear};
use skipstone_kernels::softmax::{SoftmaxFn, softmax};
use skipstone_kernels::threads::Pool;
use skipstone_kernels::transpose::{Permutation, transpose};
use skipstone_kernels::unary::activation;

use super::convolution::pooling;
use super::{Case, Work, numbers};

/// The cases of an instruction set.
pub fn cases(isa: Isa) -> Vec<Case> {
    vec![
        pooling(isa, PoolFn::Max, square_pool(112, 64, 56, 3, 2, 1)),
        pooling(isa, PoolFn::Max, square_pool(32, 32, 16, 2, 2, 0)),
        pooling(isa, PoolFn::Average { count_padding: false }, square_pool(28, 72, 1, 28, 1, 0)),
        pooling(isa, PoolFn::Average { count_padding: false }, square_pool(7, 960, 1, 7, 1, 0)),
        softmax_of(isa, 1, 1000),
        softmax_of(isa, 6 * 197, 197),
        layernorm_of(isa, 197, 384),
        transposition(isa, [3, 224 * 224]),
        transposition(isa, [7 * 7, 960]),
        activation_of(isa, "relu", Activation::Relu, [112 * 112, 16]),
        activation_of(isa, "hard_swish", Activation::HardSwish, [112 * 112, 16]),
        activation_of(isa, "hard_sigmoid", Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, [1, 960]),
        activation_of(isa, "sigmoid", Activation::Sigmoid, [56 * 56, 72]),
        activation_of(isa, "gelu", Activation::Gelu, [197, 1536]),
        binary_of(isa, "add", BinaryFn::Add, &[56, 56, 72], &[56, 56, 72]),
        binary_of(isa, "mul", BinaryFn::Mul, &[28, 28, 120], &[1, 1, 120]),
        bilinear(isa, 18, 1024),
        conversion::<f16, f32>(isa, "f16_to_f32"),
        conversion::<f32, f16>(isa, "f32_to_f16"),
    ]
}

/// A case of a kernel with the given lengths of input and output, in elements.
fn floats(
    name: &str,
    isa: Isa,
    layer: String,
    [input, output]: [usize; 2],
    kernel: impl Fn(&[f32], &mut [f32], &Pool) + Clone + Send + Sync + 'static,
) -> Case {
    let work = Work::Elements(input.max(output));
    Case::new(format!("{name}_{isa}"), layer, work, (input + output) * 4, move || {
        let (x, mut y, pool, kernel) = (numbers(input), AlignedVec::zeroed(output), Pool::new(1), kernel.clone());
        Box::new(move || kernel(&x, &mut y, &pool))
    })
}

/// Pooling of square images.
fn square_pool(size: usize, channels: usize, out: usize, kernel: usize, stride: usize, pad: usize) -> PoolShape {
    PoolShape {
        batch: 1,
        in_h: size,
        in_w: size,
        channels,
        out_h: out,
        out_w: out,
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pad_top: pad,
        pad_left: pad,
        pad_bottom: pad,
        pad_right: pad,
    }
}

fn softmax_of(isa: Isa, rows: usize, len: usize) -> Case {
    let view = MiddleAxis { outer: rows, axis: len, inner: 1 };
    floats("softmax", isa, format!("{rows}x{len}"), [rows * len; 2], move |x, y, pool| {
        softmax(isa, SoftmaxFn::Softmax, view, x, y, pool);
    })
}

fn layernorm_of(isa: Isa, rows: usize, len: usize) -> Case {
    floats("layernorm", isa, format!("{rows}x{len}"), [rows * len; 2], move |x, y, pool| {
        // Any values will do, so the input's are used.
        let params = LayerNorm { norm: Norm::Standard, scale: &x[..len], bias: Some(&x[..len]), epsilon: 1e-5 };
        layernorm(isa, &params, x, y, pool);
    })
}

/// Transposes a matrix of 4-byte elements.
fn transposition(isa: Isa, [rows, columns]: [usize; 2]) -> Case {
    let len = rows * columns;
    let layer = format!("{rows}x{columns}");
    Case::new(format!("transpose_{isa}"), layer, Work::Elements(len), len * 8, move || {
        let p = Permutation::new(&[rows, columns], &[1, 0]).expect("two axes");
        let (x, mut y, pool) = (super::bytes(len * 4), AlignedVec::zeroed(len * 4), Pool::new(1));
        Box::new(move || transpose(isa, 4, &p, &x, &mut y, &pool))
    })
}

fn activation_of(isa: Isa, name: &str, act: Activation, [rows, len]: [usize; 2]) -> Case {
    floats(name, isa, format!("{rows}x{len}"), [rows * len; 2], move |x, y, pool| {
        activation(isa, act, x, y, pool);
    })
}

fn binary_of(isa: Isa, name: &str, f: BinaryFn, a: &[usize], b: &[usize]) -> Case {
    let broadcast = Broadcast::of_shapes(a, b).expect("shapes that fit");
    let by = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let (len, other) = (a.iter().product(), b.iter().product());
    floats(name, isa, format!("{} with {}", by(a), by(b)), [len; 2], move |x, y, pool| {
        // Both operands are taken from the input.
        binary(isa, f, &broadcast, x, &x[..other], y, Activation::None, pool);
    })
}

/// Square images, enlarged to twice the size.
fn bilinear(isa: Isa, size: usize, channels: usize) -> Case {
    let image = ImageShape { batch: 1, height: size, width: size, channels };
    let last = size as u32 - 1;
    let axis = LinearAxis {
        lo: (0..=last).flat_map(|at| [at; 2]).collect(),
        hi: (0..=last).flat_map(|at| [(at + 1).min(last); 2]).collect(),
        frac: vec![0.25; 2 * size],
    };
    let pixels = size * size * channels;
    let layer = format!("{size}x{size} to {0}x{0}, {channels}", 2 * size);
    floats("bilinear", isa, layer, [pixels, 4 * pixels], move |x, y, pool| {
        resize_linear(isa, image, &axis, &axis, x, y, pool);
    })
}

/// Converts a million elements to another type.
fn conversion<From: CastTo<To> + Plain, To: Plain>(isa: Isa, name: &str) -> Case {
    let len = 1 << 20;
    let bytes = len * (size_of::<From>() + size_of::<To>());
    Case::new(format!("{name}_{isa}"), len.to_string(), Work::Elements(len), bytes, move || {
        let (x, mut y, pool) = (AlignedVec::<From>::zeroed(len), AlignedVec::<To>::zeroed(len), Pool::new(1));
        Box::new(move || cast(isa, &x, &mut y, &pool))
    })
}

//! Speed of the memory-bound kernels, in bytes read and written per second, next to a plain copy.
//!
//! The shapes are those of small classifiers: 112 x 112 x 16 and 56 x 56 x 72 activations, 224 x 224 images.

use divan::Bencher;
use divan::counter::BytesCount;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::binary::{BinaryFn, Broadcast, binary};
use skipstone_kernels::cast::cast;
use skipstone_kernels::isa::Isa;
use skipstone_kernels::layernorm::{LayerNorm, Norm, layernorm};
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::pool::{ImageShape, PoolFn, PoolShape, global_pool, pool};
use skipstone_kernels::resize::{LinearAxis, resize_linear};
use skipstone_kernels::softmax::{SoftmaxFn, softmax};
use skipstone_kernels::threads::Pool;
use skipstone_kernels::transpose::{Permutation, transpose};
use skipstone_kernels::unary::activation;

fn main() {
    divan::main();
}

/// The instruction sets of this CPU.
fn isas() -> Vec<Isa> {
    Isa::available().collect()
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 1013) as f32 * 0.01 - 5.0).collect()
}

/// Runs `kernel` on an input and an output, on one thread.
fn measure(bencher: Bencher, input: usize, output: usize, kernel: impl Fn(&[f32], &mut [f32], &Pool)) {
    let (x, mut y, threads) = (numbers(input), vec![0.0; output], Pool::new(1));
    bencher.counter(BytesCount::new((input + output) * 4)).bench_local(|| kernel(&x, &mut y, &threads));
}

#[divan::bench]
fn copy_112x112x16(bencher: Bencher) {
    measure(bencher, 112 * 112 * 16, 112 * 112 * 16, |x, y, _| y.copy_from_slice(x));
}

#[divan::bench(args = isas())]
fn relu_112x112x16(bencher: Bencher, isa: Isa) {
    let len = 112 * 112 * 16;
    measure(bencher, len, len, |x, y, pool| activation(isa, Activation::Relu, x, y, pool));
}

#[divan::bench(args = isas())]
fn hard_swish_112x112x16(bencher: Bencher, isa: Isa) {
    let len = 112 * 112 * 16;
    measure(bencher, len, len, |x, y, pool| activation(isa, Activation::HardSwish, x, y, pool));
}

#[divan::bench(args = isas())]
fn gelu_197x1536(bencher: Bencher, isa: Isa) {
    let len = 197 * 1536;
    measure(bencher, len, len, |x, y, pool| activation(isa, Activation::Gelu, x, y, pool));
}

#[divan::bench(args = isas())]
fn add_56x56x72(bencher: Bencher, isa: Isa) {
    let len = 56 * 56 * 72;
    let (b, broadcast) = (numbers(len), Broadcast::of_shapes(&[len], &[len]).unwrap());
    measure(bencher, len, len, |x, y, pool| {
        binary(isa, BinaryFn::Add, &broadcast, x, &b, y, Activation::None, pool);
    });
}

#[divan::bench(args = isas())]
fn channel_scale_112x112x16(bencher: Bencher, isa: Isa) {
    let shape = [1, 112, 112, 16];
    let (b, broadcast) = (numbers(16), Broadcast::of_shapes(&shape, &[1, 1, 1, 16]).unwrap());
    let len = shape.iter().product();
    measure(bencher, len, len, |x, y, pool| {
        binary(isa, BinaryFn::Mul, &broadcast, x, &b, y, Activation::None, pool);
    });
}

#[divan::bench(args = isas())]
fn max_pool_3x3s2_56x56x72(bencher: Bencher, isa: Isa) {
    let shape = PoolShape {
        batch: 1,
        in_h: 56,
        in_w: 56,
        channels: 72,
        out_h: 28,
        out_w: 28,
        kernel: [3, 3],
        stride: [2, 2],
        dilation: [1, 1],
        pad_top: 1,
        pad_left: 1,
        pad_bottom: 1,
        pad_right: 1,
    };
    measure(bencher, 56 * 56 * 72, 28 * 28 * 72, |x, y, threads| pool(isa, PoolFn::Max, &shape, x, y, threads));
}

#[divan::bench(args = isas())]
fn global_average_56x56x72(bencher: Bencher, isa: Isa) {
    let image = ImageShape { batch: 1, height: 56, width: 56, channels: 72 };
    let mean = PoolFn::Average { count_padding: false };
    measure(bencher, 56 * 56 * 72, 72, |x, y, pool| global_pool(isa, mean, image, x, y, pool));
}

/// Rows and columns of 4 bytes exchanged.
fn measure_transpose(bencher: Bencher, isa: Isa, shape: [usize; 2]) {
    let p = Permutation::new(&shape, &[1, 0]).unwrap();
    let (x, mut y, threads) = (vec![1u8; p.len() * 4], vec![0u8; p.len() * 4], Pool::new(1));
    bencher.counter(BytesCount::new(p.len() * 8)).bench_local(|| transpose(isa, 4, &p, &x, &mut y, &threads));
}

#[divan::bench(args = isas())]
fn chw_to_hwc_3x224x224(bencher: Bencher, isa: Isa) {
    measure_transpose(bencher, isa, [3, 224 * 224]);
}

#[divan::bench(args = isas())]
fn chw_to_hwc_72x56x56(bencher: Bencher, isa: Isa) {
    measure_transpose(bencher, isa, [72, 56 * 56]);
}

#[divan::bench(args = isas())]
fn hwc_to_chw_56x56x72(bencher: Bencher, isa: Isa) {
    measure_transpose(bencher, isa, [56 * 56, 72]);
}

#[divan::bench(args = isas())]
fn hwc_to_chw_112x112x16(bencher: Bencher, isa: Isa) {
    measure_transpose(bencher, isa, [112 * 112, 16]);
}

#[divan::bench(args = isas())]
fn softmax_6x197x197(bencher: Bencher, isa: Isa) {
    let view = MiddleAxis { outer: 6 * 197, axis: 197, inner: 1 };
    let len = 6 * 197 * 197;
    measure(bencher, len, len, |x, y, pool| softmax(isa, SoftmaxFn::Softmax, view, x, y, pool));
}

#[divan::bench(args = isas())]
fn layernorm_197x384(bencher: Bencher, isa: Isa) {
    let (scale, bias) = (numbers(384), numbers(384));
    let params = LayerNorm { norm: Norm::Standard, scale: &scale, bias: Some(&bias), epsilon: 1e-5 };
    measure(bencher, 197 * 384, 197 * 384, |x, y, pool| layernorm(isa, &params, x, y, pool));
}

#[divan::bench(args = isas())]
fn bilinear_18x18x1024_to_36x36(bencher: Bencher, isa: Isa) {
    let axis = LinearAxis {
        lo: (0..36).map(|o| o / 2).collect(),
        hi: (0..36).map(|o| (o / 2 + 1).min(17)).collect(),
        frac: vec![0.25; 36],
    };
    let image = ImageShape { batch: 1, height: 18, width: 18, channels: 1024 };
    measure(bencher, 18 * 18 * 1024, 36 * 36 * 1024, |x, y, pool| {
        resize_linear(isa, image, &axis, &axis, x, y, pool);
    });
}

#[divan::bench(args = isas())]
fn f16_to_f32_1m(bencher: Bencher, isa: Isa) {
    let x = vec![half::f16::from_f32(1.5); 1 << 20];
    let (mut y, threads) = (vec![0.0f32; 1 << 20], Pool::new(1));
    bencher.counter(BytesCount::new(6usize << 20)).bench_local(|| cast(isa, &x, &mut y, &threads));
}

#[divan::bench(args = isas())]
fn f32_to_f16_1m(bencher: Bencher, isa: Isa) {
    let (x, threads) = (numbers(1 << 20), Pool::new(1));
    let mut y = vec![half::f16::ZERO; 1 << 20];
    bencher.counter(BytesCount::new(6usize << 20)).bench_local(|| cast(isa, &x, &mut y, &threads));
}

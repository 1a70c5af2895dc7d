//! Every variant of this CPU against loops that follow the definition, on shapes with remainders everywhere.

use proptest::prelude::*;

use super::*;
use crate::activation::{Activation, scalar::apply};
use crate::conv::ConvShape;
use crate::epilogue::{Affine, Epilogue};
use crate::guard::{Edge, Guarded};
use crate::pace::Pace;
use crate::threads::Pool;

pub(crate) fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The variants that compute in f32.
fn available() -> impl Iterator<Item = &'static Variant> {
    VARIANTS.iter().filter(|v| v.is_available() && v.extension != Extension::Fp16)
}

/// Most products that are summed in half precision.
const TERMS: usize = 64;

/// The variants that compute in half precision.
fn in_half_precision() -> impl Iterator<Item = &'static Variant> {
    VARIANTS.iter().filter(|v| v.is_available() && v.extension == Extension::Fp16)
}

pub(crate) fn assert_close(got: &[f32], want: &[f32], what: &str) {
    let scale = want.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= 2e-5 * scale, "{what}: [{i}] is {g}, not {w}");
    }
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Relu,
    Activation::Clip { min: -0.5, max: 0.75 },
    Activation::HardSwish,
    Activation::Silu,
    Activation::LeakyRelu(0.1),
];

/// Values that half precision represents exactly, so that both weight dtypes give the same result.
pub(crate) fn halves(seed: u32, len: usize) -> Vec<f32> {
    numbers(seed, len).into_iter().map(|x| f16::from_f32(x).to_f32()).collect()
}

/// Packed elements in half precision, if the variant reads half precision.
pub(crate) fn halved(wanted: bool, packed: &[f32], edge: Edge) -> Option<Guarded<f16>> {
    wanted.then(|| {
        let mut halved = Guarded::new(&vec![f16::NAN; packed.len()], edge);
        halve(packed, &mut halved);
        halved
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn products_follow_the_definition(
        m in 1usize..30, k in 0usize..40, n in 1usize..70, act in 0usize..6, flags in 0u32..64, threads in 1usize..3,
    ) {
        let edge = Edge::BOTH[usize::from(flags & 16 > 0)];
        let guarded = |seed, len| Guarded::new(&numbers(seed, len), edge);
        // The last row ends where the matrix ends, without the gap up to its stride.
        let (a, b, bias, scale) = (guarded(1, (m - 1) * (k + 3) + k), halves(2, k * n), guarded(3, n), guarded(4, k));
        let out_len = (m - 1) * (n + 2) + n;
        let residual = guarded(5, out_len);
        let (factors, shift) = (guarded(6, n), guarded(7, n));
        let epilogue = Epilogue {
            bias: (flags & 1 > 0).then_some(&bias),
            activation: ACTIVATIONS[act],
            residual: (flags & 2 > 0).then_some(&residual),
            residual_first: flags & 4 > 0,
            affine: (flags & 32 > 0).then_some(Affine { scale: &factors, shift: &shift }),
        };
        let scaled = flags & 8 > 0;
        let pool = Pool::new(threads);
        let mut want = vec![7.0; out_len];
        for i in 0..m {
            for j in 0..n {
                let product = |x: usize| f64::from(a[i * (k + 3) + x]) * f64::from(b[x * n + j]);
                let sum: f64 = (0..k).map(|x| product(x) * if scaled { f64::from(scale[x]) } else { 1.0 }).sum();
                want[i * (n + 2) + j] = finish(sum as f32, j, residual[i * (n + 2) + j], &epilogue);
            }
        }
        for v in available() {
            let mut packed = Guarded::new(&vec![f32::NAN; packed_len(v, k, n)], edge);
            pack(v, k, n, (&b, n, 1), &mut packed, &Pace::free());
            let halved = halved(v.weights == Weights::F16, &packed, edge);
            let packed = halved.as_ref().map_or(Packed::F32(&packed), |halved| Packed::F16(halved));
            let mut out = Guarded::new(&vec![7.0; out_len], edge);
            let mut scratch = Guarded::new(&vec![f32::NAN; gemm_scratch(v, m, k, n, scaled, threads)], edge);
            let a_scale = scaled.then_some(&*scale);
            let args = Gemm { m, k, n, a: &a, lda: k + 3, packed, out: &mut out, ldc: n + 2, epilogue, a_scale };
            gemm(v, args, &mut scratch, &pool);
            assert_close(&out, &want, v.name);
        }
    }

    #[test]
    fn a_matrix_is_packed_alike_from_any_layout(k in 0usize..600, n in 0usize..70, at_end in any::<bool>()) {
        let b = numbers(8, k * n);
        let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        let spaced: Vec<f32> = b.iter().flat_map(|&x| [x, f32::NAN]).collect();
        for v in available() {
            let packed = |b: &[f32], strides: [usize; 2]| {
                let mut packed = Guarded::new(&vec![f32::NAN; packed_len(v, k, n)], Edge::BOTH[usize::from(at_end)]);
                pack(v, k, n, (&Guarded::new(b, Edge::End), strides[0], strides[1]), &mut packed, &Pace::free());
                packed.to_vec()
            };
            let want = packed(&b, [n, 1]);
            assert_eq!(packed(&transposed, [1, k]), want, "{}", v.name);
            assert_eq!(packed(&spaced, [2 * n, 2]), want, "{}", v.name);
        }
    }

    #[test]
    fn convolutions_follow_the_definition(
        (batch, in_h, in_w) in (1usize..3, 1usize..12, 1usize..12),
        (groups, group_in, group_out) in (1usize..4, 1usize..20, 1usize..20),
        kernel in prop::array::uniform2(1usize..5), stride in prop::array::uniform2(1usize..3),
        dilation in prop::array::uniform2(1usize..3), pad in prop::array::uniform4(0usize..3),
        flags in 0u32..16, threads in 1usize..3,
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
            batch, in_h, in_w, in_c: groups * group_in, out_h, out_w, out_c: groups * group_out,
            kernel, stride, dilation, pad_top: pad[0], pad_left: pad[2], groups,
        };
        let (x, w) = (guarded(1, shape.input_len()), halves(2, shape.out_c * group_in * shape.taps()));
        let (bias, residual) = (guarded(3, shape.out_c), guarded(4, shape.output_len()));
        let scale = guarded(5, batch * shape.in_c);
        let epilogue = Epilogue {
            bias: Some(&bias),
            activation: if flags & 1 > 0 { Activation::Relu } else { Activation::None },
            residual: (flags & 2 > 0).then_some(&residual),
            residual_first: true,
            affine: None,
        };
        let a_scale = (flags & 4 > 0).then_some(&*scale);
        let want = definition(&shape, &x, &w, a_scale, &epilogue);
        let pool = Pool::new(threads);
        for v in available() {
            let mut packed = Guarded::new(&vec![f32::NAN; packed_conv_len(v, &shape)], edge);
            pack_conv(v, &shape, &w, &mut packed, &Pace::free());
            let halved = halved(v.weights == Weights::F16, &packed, edge);
            let packed = halved.as_ref().map_or(Packed::F32(&packed), |halved| Packed::F16(halved));
            let mut got = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
            let scratch_len = conv_scratch(v, &shape, a_scale.is_some(), threads);
            let mut scratch = Guarded::new(&vec![f32::NAN; scratch_len], edge);
            conv(v, GemmConv { shape: &shape, input: &x, packed, out: &mut got, epilogue, a_scale }, &mut scratch, &pool);
            assert_close(&got, &want, v.name);
        }
    }
}

/// Shapes that include products long enough to be summed in several parts.
fn shapes() -> impl Strategy<Value = ConvShape> {
    let sizes = (1usize..3, 1usize..9, 1usize..9, 1usize..3, 1usize..170, 1usize..40);
    (sizes, prop::array::uniform2(1usize..4), 0usize..2).prop_map(|(sizes, kernel, pad)| {
        let (batch, in_h, in_w, groups, group_in, group_out) = sizes;
        let out = |len: usize, axis: usize| (len + 2 * pad + 1).saturating_sub(kernel[axis]);
        ConvShape {
            batch,
            in_h,
            in_w,
            in_c: groups * group_in,
            out_h: out(in_h, 0),
            out_w: out(in_w, 1),
            out_c: groups * group_out,
            kernel,
            stride: [1; 2],
            dilation: [1; 2],
            pad_top: pad,
            pad_left: pad,
            groups,
        }
    })
}

/// The convolution computed by a variant, with its buffers at the edge of readable memory.
fn convolve(v: &Variant, shape: &ConvShape, x: &[f32], w: &[f32], epilogue: Epilogue<'_>, edge: Edge) -> Guarded<f32> {
    let mut packed = Guarded::new(&vec![f32::NAN; packed_conv_len(v, shape)], edge);
    pack_conv(v, shape, w, &mut packed, &Pace::free());
    let halved = halved(v.weights == Weights::F16, &packed, edge);
    let packed = halved.as_ref().map_or(Packed::F32(&packed), |halved| Packed::F16(halved));
    let mut out = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
    let mut scratch = Guarded::new(&vec![f32::NAN; conv_scratch(v, shape, false, 1)], edge);
    let input = Guarded::new(x, edge);
    let args = GemmConv { shape, input: &input, packed, out: &mut out, epilogue, a_scale: None };
    conv(v, args, &mut scratch, &Pool::new(1));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Half precision represents every integer up to 2048 exactly, and every partial sum here is below that, so results
    /// must be exact.
    #[test]
    fn sums_of_small_whole_numbers_are_exact(shape in shapes(), relu in any::<bool>(), edge in 0usize..2) {
        let whole = |seed, len| -> Vec<f32> { numbers(seed, len).into_iter().map(|x| (x * 3.0).trunc()).collect() };
        let (x, w) = (whole(1, shape.input_len()), whole(2, shape.out_c * shape.group_in() * shape.taps()));
        let bias = whole(3, shape.out_c);
        let activation = if relu { Activation::Relu } else { Activation::None };
        let epilogue = Epilogue { bias: Some(&bias), activation, ..Epilogue::NONE };
        let want = definition(&shape, &x, &w, None, &epilogue);
        for v in in_half_precision() {
            let got = convolve(v, &shape, &x, &w, epilogue, Edge::BOTH[edge]);
            prop_assert_eq!(&got[..], &want[..], "{}", v.name);
        }
    }

    /// With `u = 2^-11` and `e = 2^-25`, the largest relative and absolute errors of rounding to half precision: an
    /// element of A is off by `u |a| + e`. Each of the at most n products of a sum is added with one rounding, whose
    /// error is `u` times the sum, or `e`. So the error of a sum is at most `(1 + u)^(n + 1) - 1` times the sum of the
    /// products' magnitudes, plus `e (1 + |w|) (1 + u)^n` for each product; each part adds one rounding in f32.
    #[test]
    fn sums_in_half_precision_are_within_their_bound(shape in shapes(), edge in 0usize..2) {
        let k = shape.taps() * shape.group_in();
        let (x, w) = (numbers(1, shape.input_len()), halves(2, shape.out_c * k));
        let bias = numbers(3, shape.out_c);
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::NONE };
        let want = definition(&shape, &x, &w, None, &epilogue);
        let magnitudes = |values: &[f32]| -> Vec<f32> { values.iter().map(|x| x.abs()).collect() };
        let magnitude_of_bias = magnitudes(&bias);
        let sizes = Epilogue { bias: Some(&magnitude_of_bias), ..Epilogue::NONE };
        let sizes = definition(&shape, &magnitudes(&x), &magnitudes(&w), None, &sizes);
        let growth = (1.0 + (-11f64).exp2()).powi(k.min(TERMS) as i32 + 1);
        for v in in_half_precision() {
            let got = convolve(v, &shape, &x, &w, epilogue, Edge::BOTH[edge]);
            for (i, ((got, want), size)) in got.iter().zip(&want).zip(&sizes).enumerate() {
                let in_halves = (growth - 1.0) * f64::from(*size) + 2.0 * k as f64 * (-25f64).exp2() * growth;
                let bound = in_halves + (k + 2) as f64 * (-24f64).exp2() * f64::from(*size);
                let error = (f64::from(*got) - f64::from(*want)).abs();
                prop_assert!(error <= bound, "{}: [{i}] is {got}, not {want}, by more than {bound}", v.name);
            }
        }
    }

    /// Activations and sums beyond 65504, the largest value in half precision.
    #[test]
    fn values_beyond_half_precision_are_computed_in_f32(shape in shapes(), large in 1e3f32..1e30, edge in 0usize..2) {
        let mut x = numbers(1, shape.input_len());
        // Only in a few rows.
        x.iter_mut().skip(5).step_by(1000).for_each(|x| *x = large);
        let w: Vec<f32> = halves(2, shape.out_c * shape.group_in() * shape.taps()).iter().map(|w| w * 64.0).collect();
        let bias = numbers(3, shape.out_c);
        let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::NONE };
        let want = definition(&shape, &x, &w, None, &epilogue);
        for v in in_half_precision() {
            let got = convolve(v, &shape, &x, &w, epilogue, Edge::BOTH[edge]);
            let by_f32 = convolve(v.form(), &shape, &x, &w, epilogue, Edge::BOTH[edge]);
            prop_assert!(got.iter().all(|x| x.is_finite()), "{}", v.name);
            // A sum this large has a part of 64 products beyond the limit.
            for ((got, by_f32), want) in got.iter().zip(&by_f32[..]).zip(&want) {
                prop_assert!(got == by_f32 || want.abs() < 65504.0 * 64.0, "{}: {got}, not {by_f32}", v.name);
            }
        }
    }
}

#[test]
fn tall_windows_of_few_channels_follow_the_definition() {
    // 23 rows of 23: the position embeddings of a lambda layer. 33 rows are more than are read in place.
    for (rows, in_c) in [(23, 1), (33, 2)] {
        let shape = ConvShape {
            batch: 2,
            in_h: 9,
            in_w: 14,
            in_c,
            out_h: 9,
            out_w: 14,
            out_c: 16,
            kernel: [rows; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pad_top: rows / 2,
            pad_left: rows / 2,
            groups: 1,
        };
        let (x, w) = (numbers(1, shape.input_len()), halves(2, shape.out_c * in_c * shape.taps()));
        let want = definition(&shape, &x, &w, None, &Epilogue::NONE);
        for v in available() {
            for edge in Edge::BOTH {
                assert_close(&convolve(v, &shape, &x, &w, Epilogue::NONE, edge), &want, v.name);
            }
        }
    }
}

#[test]
fn long_sums_do_not_stall() {
    // In half precision, 2048 + 1 is 2048.
    let shape = ConvShape {
        batch: 1,
        in_h: 1,
        in_w: 9,
        in_c: 5003,
        out_h: 1,
        out_w: 9,
        out_c: 37,
        kernel: [1; 2],
        stride: [1; 2],
        dilation: [1; 2],
        pad_top: 0,
        pad_left: 0,
        groups: 1,
    };
    let (x, w) = (vec![1.0; shape.input_len()], vec![1.0; shape.out_c * shape.in_c]);
    for v in in_half_precision() {
        let got = convolve(v, &shape, &x, &w, Epilogue::NONE, Edge::End);
        assert!(got.iter().all(|&sum| sum == 5003.0), "{}", v.name);
    }
}

fn finish(sum: f32, col: usize, residual: f32, epilogue: &Epilogue<'_>) -> f32 {
    let sum = sum + epilogue.bias.map_or(0.0, |b| b[col]);
    let residual = if epilogue.residual.is_some() { residual } else { 0.0 };
    let affine = |x| epilogue.affine.map_or(x, |it| x * it.scale[col] + it.shift[col]);
    match epilogue.residual_first {
        true => affine(apply(epilogue.activation, sum + residual)),
        false => affine(apply(epilogue.activation, sum)) + residual,
    }
}

/// The convolution by its definition, sum by sum.
pub(crate) fn definition(
    s: &ConvShape,
    x: &[f32],
    w: &[f32],
    scale: Option<&[f32]>,
    epilogue: &Epilogue<'_>,
) -> Vec<f32> {
    let (channels, filters) = (s.group_in(), s.group_out());
    let mut out = Vec::new();
    for pixel in 0..s.pixels() {
        let (image, y, column) = (pixel / (s.out_h * s.out_w), pixel / s.out_w % s.out_h, pixel % s.out_w);
        for o in 0..s.out_c {
            let mut sum = 0.0f64;
            for c in 0..channels {
                let channel = o / filters * channels + c;
                let factor = scale.map_or(1.0, |f| f64::from(f[image * s.in_c + channel]));
                for ky in 0..s.kernel[0] {
                    for kx in 0..s.kernel[1] {
                        let (iy, ix) =
                            (y * s.stride[0] + ky * s.dilation[0], column * s.stride[1] + kx * s.dilation[1]);
                        if iy < s.pad_top || ix < s.pad_left || iy - s.pad_top >= s.in_h || ix - s.pad_left >= s.in_w {
                            continue;
                        }
                        let at = (image * s.in_h + iy - s.pad_top) * s.in_w + ix - s.pad_left;
                        let weight = w[((o * channels + c) * s.kernel[0] + ky) * s.kernel[1] + kx];
                        sum += f64::from(x[at * s.in_c + channel]) * f64::from(weight) * factor;
                    }
                }
            }
            let residual = epilogue.residual.map_or(0.0, |r| r[pixel * s.out_c + o]);
            out.push(finish(sum as f32, o, residual, epilogue));
        }
    }
    out
}

//! Every variant of this CPU against loops that follow the definition, on shapes with remainders everywhere.

use proptest::prelude::*;

use super::*;
use crate::activation::{Activation, scalar::apply};
use crate::conv::ConvShape;
use crate::epilogue::Epilogue;
use crate::guard::{Edge, Guarded};
use crate::threads::Pool;

pub(crate) fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn available() -> impl Iterator<Item = &'static Variant> {
    VARIANTS.iter().filter(|v| v.isa.is_available())
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

/// Numbers that half precision holds: then both kinds of weights give the same answer.
pub(crate) fn halves(seed: u32, len: usize) -> Vec<f32> {
    numbers(seed, len).into_iter().map(|x| f16::from_f32(x).to_f32()).collect()
}

/// Packed numbers in half precision, if a variant wants them so.
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
        m in 1usize..30, k in 0usize..40, n in 1usize..70, act in 0usize..6, flags in 0u32..32, threads in 1usize..3,
    ) {
        let edge = Edge::BOTH[usize::from(flags & 16 > 0)];
        let guarded = |seed, len| Guarded::new(&numbers(seed, len), edge);
        // The last row ends where the matrix ends, short of its stride.
        let (a, b, bias, scale) = (guarded(1, (m - 1) * (k + 3) + k), halves(2, k * n), guarded(3, n), guarded(4, k));
        let out_len = (m - 1) * (n + 2) + n;
        let residual = guarded(5, out_len);
        let epilogue = Epilogue {
            bias: (flags & 1 > 0).then_some(&bias),
            activation: ACTIVATIONS[act],
            residual: (flags & 2 > 0).then_some(&residual),
            residual_first: flags & 4 > 0,
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
            pack(v, k, n, &b, n, 1, &mut packed);
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
        };
        let a_scale = (flags & 4 > 0).then_some(&*scale);
        let want = definition(&shape, &x, &w, a_scale, &epilogue);
        let pool = Pool::new(threads);
        for v in available() {
            let mut packed = Guarded::new(&vec![f32::NAN; packed_conv_len(v, &shape)], edge);
            pack_conv(v, &shape, &w, &mut packed);
            let halved = halved(v.weights == Weights::F16, &packed, edge);
            let packed = halved.as_ref().map_or(Packed::F32(&packed), |halved| Packed::F16(halved));
            let mut got = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
            let scratch_len = conv_scratch(v, &shape, a_scale.is_some(), threads);
            let mut scratch = Guarded::new(&vec![f32::NAN; scratch_len], edge);
            conv(v, Conv { shape: &shape, input: &x, packed, out: &mut got, epilogue, a_scale }, &mut scratch, &pool);
            assert_close(&got, &want, v.name);
        }
    }
}

fn finish(sum: f32, col: usize, residual: f32, epilogue: &Epilogue<'_>) -> f32 {
    let sum = sum + epilogue.bias.map_or(0.0, |b| b[col]);
    let residual = if epilogue.residual.is_some() { residual } else { 0.0 };
    match epilogue.residual_first {
        true => apply(epilogue.activation, sum + residual),
        false => apply(epilogue.activation, sum) + residual,
    }
}

/// The convolution, sum by sum.
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

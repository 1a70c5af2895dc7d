//! Spectra of signals: window functions, mel filters and Fourier transforms. Transforms of known length are products
//! with a Fourier matrix, so that the matrix kernels compute them.

use std::f64::consts::PI;

use super::build::{Halt, Imported};
use super::call::Call;
use super::elementwise::cast_to;
use super::product::{Order, of_operands};
use super::table::{Entry, standard};
use super::tensor::known_dtype;
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::gather::Gather;
use crate::ops::slice::Slice;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["HannWindow", "HammingWindow", "BlackmanWindow"], window),
    standard(&["MelWeightMatrix"], mel_weights),
    standard(&["DFT"], dft),
    standard(&["STFT"], stft),
];

/// Most elements of a Fourier matrix: 16 MB of f32.
const MAX_WAVES: usize = 1 << 22;
/// Most multiply-adds of transforms that are summed in f64.
const MAX_EXACT: usize = 1 << 17;
/// Most elements of a window or of mel filters.
const MAX_MADE: usize = 1 << 23;

/// The positive size in the constant operand `index`.
fn size_at(cx: &Call<'_, '_>, index: usize) -> Result<usize, Halt> {
    let size = cx.integer(index)?.and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or_else(|| cx.at(OpError::Value(format!("input {index} is not a valid size"))))?;
    if size > MAX_MADE { Err(cx.at(OpError::TooLarge(format!("{size} elements")))) } else { Ok(size) }
}

/// A constant in the type of the attribute `output_datatype`.
fn made(cx: &mut Call<'_, '_>, dims: &[usize], values: impl IntoIterator<Item = f64>) -> Imported {
    let to = known_dtype(cx.int("output_datatype", 1)?, cx.name())?;
    let wide = cx.collected(dims, values)?;
    cx.inputs = vec![Some(wide)];
    cast_to(cx, to)
}

/// HannWindow, HammingWindow and BlackmanWindow of a constant size: cosines of one turn and two.
fn window(cx: &mut Call<'_, '_>) -> Imported {
    let size = size_at(cx, 0)?;
    let turn = if cx.flag("periodic", true)? { size as f64 } else { size as f64 - 1.0 };
    let [mean, once, twice] = match cx.node.op_type {
        "HannWindow" => [0.5, -0.5, 0.0],
        "HammingWindow" => [25.0 / 46.0, -21.0 / 46.0, 0.0],
        _ => [0.42, -0.5, 0.08],
    };
    let at = |i: usize| {
        let angle = 2.0 * PI * i as f64 / turn;
        mean + once * angle.cos() + twice * (2.0 * angle).cos()
    };
    made(cx, &[size], (0..size).map(at))
}

/// Triangles over the frequencies of a transform, evenly spaced on the mel scale.
fn mel_weights(cx: &mut Call<'_, '_>) -> Imported {
    let (bins, length) = (size_at(cx, 0)?, size_at(cx, 1)?);
    let rate = cx.integer(2)?.filter(|&rate| rate > 0);
    let rate = rate.ok_or_else(|| cx.at(OpError::Value("the sample rate must be positive".into())))?;
    let mut edges = [0f64; 2];
    for (edge, index) in edges.iter_mut().zip([3, 4]) {
        let id = cx.input(index)?;
        let id = cx.cast(id, DType::F64)?;
        let Some(tensor) = cx.constant_of(id) else { return Err(cx.dynamic(&format!("input {index}"))) };
        *edge = match tensor.elements::<f64>() {
            Some(&[edge]) => edge,
            _ => return Err(cx.at(OpError::Value(format!("input {index} is not a single element")))),
        };
    }
    let frequencies = length / 2 + 1;
    if frequencies.saturating_mul(bins) > MAX_MADE {
        return Err(cx.at(OpError::TooLarge(format!("{frequencies}x{bins}"))));
    }
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let (low, high) = (mel(edges[0]), mel(edges[1]));
    let step = (high - low) / (bins + 2) as f64;
    let place = |i: usize| {
        let hertz = 700.0 * (10f64.powf((i as f64 * step + low) / 2595.0) - 1.0);
        ((length as f64 + 1.0) * hertz / rate as f64).floor()
    };
    let places = cx.list((0..bins + 2).map(place))?;
    if places.iter().any(|place| !(0.0..=frequencies as f64).contains(place)) {
        return Err(cx.at(OpError::Value("the edges of the filters are outside of the spectrum".into())));
    }
    let mut weights = cx.copies(0f64, frequencies * bins)?;
    for bin in 0..bins {
        let [lower, center, upper] = [0, 1, 2].map(|i| places[bin + i] as usize);
        let mut set = |row: usize, value: f64| {
            if let Some(weight) = weights.get_mut(row * bins + bin) {
                *weight = value;
            }
        };
        if lower == center {
            set(center, 1.0);
        }
        for row in lower..=center {
            if lower < center {
                set(row, (row - lower) as f64 / (center - lower) as f64);
            }
        }
        for row in center..upper {
            set(row, (upper - row) as f64 / (upper - center) as f64);
        }
    }
    made(cx, &[frequencies, bins], weights)
}

/// A transform of `length` samples of which the first `given` may be nonzero.
struct FourierTransform {
    given: usize,
    length: usize,
    complex: bool,
    inverse: bool,
    results: usize,
}

impl FourierTransform {
    /// The matrix that computes the spectrum of a row: `[given, 1 or 2] -> [results, 2]`, real and imaginary parts
    /// last.
    fn matrix(&self, cx: &mut Call<'_, '_>, dtype: DType) -> Result<ValueId, Halt> {
        let parts = if self.complex { 2 } else { 1 };
        let dims = [self.given * parts, self.results * 2];
        if dims[0].saturating_mul(dims[1]) > MAX_WAVES {
            return Err(Halt::Foreign);
        }
        let (sign, unit) = if self.inverse { (1.0, 1.0 / self.length as f64) } else { (-1.0, 1.0) };
        let mut waves = cx.reserve(dims[0] * dims[1])?;
        for sample in 0..self.given {
            for part in 0..parts {
                for result in 0..self.results {
                    // The angle, reduced to less than a turn.
                    let turn = (sample as u128 * result as u128 % self.length as u128) as f64 / self.length as f64;
                    let (sin, cos) = (sign * 2.0 * PI * turn).sin_cos();
                    let wave = if part == 0 { [cos, sin] } else { [-sin, cos] };
                    waves.extend(wave.map(|wave| wave * unit));
                }
            }
        }
        match dtype {
            DType::F64 => cx.collected(&dims, waves),
            _ => cx.collected(&dims, waves.into_iter().map(|wave| wave as f32)),
        }
    }

    /// The spectra `[rows, results, 2]` of `[rows, given, parts]`.
    fn of(&self, cx: &mut Call<'_, '_>, x: ValueId, rows: usize) -> Result<ValueId, Halt> {
        let parts = if self.complex { 2 } else { 1 };
        let dtype = cx.dtype(x);
        let mut flat = cx.reshape(x, &[rows, self.given * parts])?;
        // Cancellation leaves smaller errors in f64, which is affordable for little work.
        if rows.saturating_mul(self.given * parts).saturating_mul(self.results * 2) <= MAX_EXACT {
            flat = cx.cast(flat, DType::F64)?;
        }
        let waves = self.matrix(cx, cx.dtype(flat))?;
        let product = of_operands(cx, flat, waves)?;
        let y = product.multiply(cx, flat, waves)?;
        let y = product.result(cx, y, Order::Plain)?;
        let y = cx.cast(y, dtype)?;
        cx.reshape(y, &[rows, self.results, 2])
    }
}

/// Whether the last axis holds real and imaginary parts, or only real parts.
fn is_complex(cx: &Call<'_, '_>, x: ValueId) -> Result<bool, Halt> {
    match cx.shape(x).last() {
        Some(1) if cx.rank(x) >= 2 => Ok(false),
        Some(2) if cx.rank(x) >= 2 => Ok(true),
        _ => Err(cx.shape_error("the last axis must have one (real) or two (real and imaginary) elements", &[x])),
    }
}

/// The transform along an axis: an attribute before opset 20, the third operand since.
fn dft(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let complex = is_complex(cx, x)?;
    let rank = cx.rank(x);
    let axis = if cx.opset >= 20 { cx.integer(2)?.unwrap_or(-2) } else { cx.int("axis", 1)? };
    let axis = cx.axis_of(axis, rank)?;
    if axis + 1 == rank {
        return Err(cx.attribute_error("axis", "must not be the axis of real and imaginary parts"));
    }
    let (inverse, onesided) = (cx.flag("inverse", false)?, cx.flag("onesided", false)?);
    let of_half = onesided && inverse && complex;
    let samples = cx.shape(x)[axis];
    let length = match cx.optional(1) {
        Some(_) => size_at(cx, 1)?,
        None if of_half => samples.saturating_sub(1).saturating_mul(2),
        None => samples,
    };
    if (onesided && !of_half && (inverse || complex)) || length == 0 || (of_half && samples <= length / 2) {
        return Err(Halt::Foreign);
    }
    let (x, samples, onesided) =
        if of_half { (mirrored(cx, x, axis, length)?, length, false) } else { (x, samples, onesided) };
    let given = samples.min(length);
    let x = if given == samples { x } else { cx.add(Slice { axis, start: 0, len: given, step: 1 }, &[x])? };
    let transform =
        FourierTransform { given, length, complex, inverse, results: if onesided { length / 2 + 1 } else { length } };
    // Moves the axis next to the parts.
    let order: Vec<usize> = (0..rank - 1).filter(|&other| other != axis).chain([axis, rank - 1]).collect();
    let x = cx.transpose(x, &order)?;
    let mut dims = cx.shape(x).to_vec();
    let rows = dims[..rank - 2].iter().product();
    let y = transform.of(cx, x, rows)?;
    dims[rank - 2..].copy_from_slice(&[transform.results, 2]);
    let y = cx.reshape(y, &dims)?;
    let back: Vec<usize> =
        (0..rank).map(|axis| order.iter().position(|&other| other == axis).unwrap_or(axis)).collect();
    let y = cx.transpose(y, &back)?;
    // The signal of half a spectrum is real.
    let real = Slice { axis: rank - 1, start: 0, len: 1, step: 1 };
    Ok(vec![if of_half { cx.add(real, &[y])? } else { y }])
}

/// The whole spectrum of a real signal of `length` samples, of which the first half is given: the others are the
/// conjugates, in reverse.
fn mirrored(cx: &mut Call<'_, '_>, x: ValueId, axis: usize, length: usize) -> Result<ValueId, Halt> {
    let rank = cx.rank(x);
    let is_given = |at: usize| at <= length / 2;
    let places = (0..length).map(|at| (if is_given(at) { at } else { length - at }) as i64);
    let places = cx.collected(&[length], places)?;
    let whole = cx.add(Gather { axis }, &[x, places])?;
    let mut dims = vec![1; rank];
    (dims[axis], dims[rank - 1]) = (length, 2);
    let signs = (0..length).flat_map(|at| [1f32, if is_given(at) { 1.0 } else { -1.0 }]);
    let signs = cx.collected(&dims, signs)?;
    let signs = cx.cast(signs, cx.dtype(x))?;
    cx.binary(BinaryKind::Mul, whole, signs)
}

/// Transforms of frames of a signal `[batch, samples, parts]`, each multiplied by a window.
fn stft(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let complex = is_complex(cx, x)?;
    let &[batch, samples, parts] = cx.shape(x).dims() else {
        return Err(cx.shape_error("a signal must have a batch, samples and parts", &[x]));
    };
    let step = size_at(cx, 1)?;
    let window = cx.optional(2);
    let length = match (cx.optional(3), window) {
        (Some(_), _) => size_at(cx, 3)?,
        (None, Some(window)) => cx.shape(window).elements(),
        (None, None) => return Err(cx.at(OpError::Value("a window or the length of frames is needed".into()))),
    };
    if window.is_some_and(|window| cx.shape(window).dims() != [length]) || length == 0 || step == 0 || length > samples
    {
        return Err(cx.at(OpError::Value(format!("frames of {length} every {step} in {samples} samples"))));
    }
    let onesided = cx.flag("onesided", true)?;
    if onesided && complex {
        return Err(cx.attribute_error("onesided", "is 1 for a complex signal"));
    }
    let frames = (samples - length) / step + 1;
    if frames.saturating_mul(length) > MAX_MADE {
        return Err(cx.at(OpError::TooLarge(format!("{frames} frames of {length}"))));
    }
    let places = (0..frames).flat_map(|frame| (0..length).map(move |i| (frame * step + i) as i64));
    let places = cx.collected(&[frames, length], places)?;
    let mut y = cx.add(Gather { axis: 1 }, &[x, places])?;
    if let Some(window) = window {
        let window = cx.reshape(window, &[length, 1])?;
        y = cx.binary(BinaryKind::Mul, y, window)?;
    }
    debug_assert_eq!(cx.shape(y).dims(), [batch, frames, length, parts]);
    let results = if onesided { length / 2 + 1 } else { length };
    let transform = FourierTransform { given: length, length, complex, inverse: false, results };
    let y = transform.of(cx, y, batch * frames)?;
    Ok(vec![cx.reshape(y, &[batch, frames, results, 2])?])
}

//! Convolution, transposed convolution and pooling of any element type: the elements of every window are gathered from
//! flattened images (im2col), by positions that are known before the run.

use super::super::build::{Halt, Imported};
use super::super::call::Call;
use super::super::convolution::groups;
use super::super::window::Window;
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::argmax::ArgMax;
use crate::ops::binary::BinaryKind;
use crate::ops::broadcast::Expand;
use crate::ops::contract::Contract;
use crate::ops::gather::Gather;
use crate::ops::gather_elements::GatherElements;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::reduce::ReduceKind;
use crate::ops::unary::UnaryKind;
use crate::ops::window_pool::Of;
use crate::tensor::{DType, Shape, Tensor};

/// Index of a place among `sizes`, the last axis innermost.
fn joined(places: &[usize], sizes: &[usize]) -> usize {
    places.iter().zip(sizes).fold(0, |index, (&place, &size)| index * size + place)
}

/// Adds one to a place among `sizes`, the last axis first.
fn advance(places: &mut [usize], sizes: &[usize]) {
    for (place, &size) in places.iter_mut().zip(sizes).rev() {
        *place += 1;
        if *place < size {
            return;
        }
        *place = 0;
    }
}

/// For every tap of every window, `[taps, windows]`, the index of its element in an image of `lengths`: `at` says it for
/// an axis, a tap and a window, `None` outside of the image, which is the index after the last.
fn places(
    cx: &mut Call<'_, '_>,
    window: &Window,
    lengths: &[usize],
    at: impl Fn(usize, usize, usize) -> Option<usize>,
) -> Result<ValueId, Halt> {
    let (taps, windows) = (count(cx, &window.kernel)?, count(cx, &window.out)?);
    let outside = count(cx, lengths)?;
    let (mut tap, mut out) = (cx.copies(0, lengths.len())?, cx.copies(0, lengths.len())?);
    let mut inside = cx.copies(0, lengths.len())?;
    let all = Shape::new(&[taps, windows]).map_err(|e| cx.at(e))?.elements();
    let mut made = 0;
    let indices = std::iter::from_fn(|| {
        if made == all {
            return None;
        }
        let found = (0..lengths.len()).all(|axis| match at(axis, tap[axis], out[axis]) {
            Some(place) => {
                inside[axis] = place;
                true
            }
            None => false,
        });
        made += 1;
        advance(&mut out, &window.out);
        if made % windows.max(1) == 0 {
            advance(&mut tap, &window.kernel);
        }
        Some(if found { joined(&inside, lengths) } else { outside } as i64)
    });
    cx.collected(&[taps, windows], indices)
}

fn count(cx: &Call<'_, '_>, sizes: &[usize]) -> Result<usize, Halt> {
    let shape = Shape::new(sizes).map_err(|e| cx.at(e))?;
    Ok(shape.elements())
}

/// The elements of all windows, `[n, c, taps, windows]`, where `outside` is what images are padded with.
fn gathered(cx: &mut Call<'_, '_>, x: ValueId, places: ValueId, outside: f64) -> Result<ValueId, Halt> {
    let dims = cx.shape(x).to_vec();
    let pixels = count(cx, &dims[2..])?;
    let flat = cx.reshape(x, &[dims[0], dims[1], pixels])?;
    let value = Tensor::scalar(outside);
    let value = if cx.dtype(x) == DType::F64 { value } else { cast_scalar(cx, outside, cx.dtype(x))? };
    let padded = cx.add(Pad { pads: vec![(0, 0), (0, 0), (0, 1)], mode: PadMode::Constant(value) }, &[flat])?;
    cx.add(Gather { axis: 2 }, &[padded, places])
}

/// A number in an element type.
fn cast_scalar(cx: &mut Call<'_, '_>, number: f64, to: DType) -> Result<Tensor, Halt> {
    let id = cx.scalar_of(to, number)?;
    let tensor = cx.constant_of(id).cloned();
    tensor.ok_or_else(|| cx.at(OpError::Value("a constant is not known".into())))
}

/// Windows of a plain operator: tap and window to the place along an axis.
fn forward<'a>(window: &'a Window, lengths: &'a [usize]) -> impl Fn(usize, usize, usize) -> Option<usize> + 'a {
    |axis, tap, out| {
        let place = tap.checked_mul(window.dilations[axis])?.checked_add(out.checked_mul(window.strides[axis])?)?;
        place.checked_sub(window.pads[axis].0).filter(|&place| place < lengths[axis])
    }
}

/// The convolution of images with weights; if `transposed`, `before` are the elements cut off at the result's start.
pub(in super::super) fn convolve(cx: &mut Call<'_, '_>, window: &Window, transposed: Option<&[usize]>) -> Imported {
    let (x, weights, groups) = (cx.input(0)?, cx.input(1)?, groups(cx)?);
    let (from, kernel) = (cx.shape(x).to_vec(), cx.shape(weights).to_vec());
    let lengths = &from[2..];
    let (depth, filters) = match transposed {
        None => (kernel[1], kernel[0]),
        Some(_) => (kernel[0] / groups, kernel[1].saturating_mul(groups)),
    };
    if depth.checked_mul(groups) != Some(from[1]) || filters % groups != 0 {
        return Err(cx.shape_error("groups must divide channels and filters", &[x, weights]));
    }
    let places = match transposed {
        None => places(cx, window, lengths, forward(window, lengths))?,
        Some(before) => places(cx, window, lengths, |axis, tap, out| {
            let moved = out.checked_add(before[axis])?.checked_sub(tap.checked_mul(window.dilations[axis])?)?;
            let stride = window.strides[axis];
            moved.is_multiple_of(stride).then_some(moved / stride).filter(|&place| place < lengths[axis])
        })?,
    };
    let read = gathered(cx, x, places, 0.0)?;
    let &[n, _, taps, windows] = cx.shape(read).dims() else { return Err(Halt::Foreign) };
    let read = cx.reshape(read, &[n, groups, depth, taps, windows])?;
    // Labels: image 0, group 1, channel 2, filter 3, tap 4, window 5.
    let (dims, b) = match transposed {
        None => ([groups, filters / groups, depth, taps], vec![1, 3, 2, 4]),
        Some(_) => ([groups, depth, filters / groups, taps], vec![1, 2, 3, 4]),
    };
    let weights = cx.reshape(weights, &dims)?;
    let y = cx.add(Contract { a: vec![0, 1, 2, 4, 5], b, y: vec![0, 1, 3, 5] }, &[read, weights])?;
    let mut out = vec![n, filters];
    out.extend(&window.out);
    let y = cx.reshape(y, &out)?;
    let Some(bias) = cx.optional(2) else { return Ok(vec![y]) };
    let mut dims = vec![filters];
    dims.resize(1 + window.out.len(), 1);
    let bias = cx.reshape(bias, &dims)?;
    Ok(vec![cx.binary(BinaryKind::Add, y, bias)?])
}

/// Pooling of f64.
pub(in super::super) fn pool(cx: &mut Call<'_, '_>, x: ValueId, of: Of, window: &Window) -> Imported {
    let from = cx.shape(x).to_vec();
    let (lengths, mut out) = (&from[2..], from[..2].to_vec());
    out.extend(&window.out);
    let places = places(cx, window, lengths, forward(window, lengths))?;
    let is_max = matches!(of, Of::Max | Of::MaxIndex { .. });
    let read = gathered(cx, x, places, if is_max { f64::NEG_INFINITY } else { 0.0 })?;
    let y = match of {
        Of::Max | Of::MaxIndex { .. } => cx.reduce(ReduceKind::Max, read, &[2], false)?,
        Of::Average { count_padding } => {
            let sum = cx.reduce(ReduceKind::Sum, read, &[2], false)?;
            let counts = counts(cx, window, lengths, count_padding)?;
            cx.binary(BinaryKind::Div, sum, counts)?
        }
        Of::Lp(1) => cx.reduce(ReduceKind::L1, read, &[2], false)?,
        Of::Lp(2) => cx.reduce(ReduceKind::L2, read, &[2], false)?,
        Of::Lp(p) => {
            let size = cx.unary(UnaryKind::Abs, read)?;
            let power = cx.with_number(BinaryKind::Pow, size, f64::from(p))?;
            let sum = cx.reduce(ReduceKind::Sum, power, &[2], false)?;
            cx.with_number(BinaryKind::Pow, sum, f64::from(p).recip())?
        }
    };
    let mut results = vec![cx.reshape(y, &out)?];
    if let Of::MaxIndex { columns_first } = of {
        let found = indices(cx, read, places, lengths, columns_first)?;
        results.push(cx.reshape(found, &out)?);
    }
    Ok(results)
}

/// How many elements every window has, `[windows]`.
fn counts(cx: &mut Call<'_, '_>, window: &Window, lengths: &[usize], padding: bool) -> Result<ValueId, Halt> {
    let along = |axis: usize, out: usize| {
        let (before, behind) = window.pads[axis];
        let range = if padding { 0..before + lengths[axis] + behind } else { before..before + lengths[axis] };
        let places = (0..window.kernel[axis]).map(|tap| out * window.strides[axis] + tap * window.dilations[axis]);
        places.filter(|place| range.contains(place)).count()
    };
    let mut of_axes = cx.reserve(lengths.len())?;
    for axis in 0..lengths.len() {
        of_axes.push(cx.list((0..window.out[axis]).map(|out| along(axis, out) as f64))?);
    }
    let windows = count(cx, &window.out)?;
    let mut out = cx.copies(0, lengths.len())?;
    let all = (0..windows).map(|_| {
        let product = out.iter().zip(&of_axes).map(|(&at, of): (&usize, &Vec<f64>)| of[at]).product::<f64>();
        advance(&mut out, &window.out);
        product
    });
    cx.collected(&[windows], all)
}

/// The index of the largest element of every window in the whole input.
fn indices(
    cx: &mut Call<'_, '_>,
    read: ValueId,
    places: ValueId,
    lengths: &[usize],
    columns_first: bool,
) -> Result<ValueId, Halt> {
    let &[n, c, taps, windows] = cx.shape(read).dims() else { return Err(Halt::Foreign) };
    let pixels = count(cx, lengths)?;
    let mut places = places;
    if columns_first {
        // The index with the last axis outermost.
        let turned: Vec<usize> = lengths.iter().rev().copied().collect();
        let mut at = cx.copies(0, lengths.len())?;
        let all = (0..=pixels).map(|_| {
            let back: Vec<usize> = at.iter().rev().copied().collect();
            advance(&mut at, lengths);
            joined(&back, &turned) as i64
        });
        let table = cx.collected(&[pixels + 1], all)?;
        places = cx.add(Gather { axis: 0 }, &[table, places])?;
    }
    let best = cx.add(ArgMax { axis: 2, largest: true, last: false }, &[read])?;
    let best = cx.reshape(best, &[n, c, 1, windows])?;
    let shape = Shape::new(&[n, c, taps, windows]).map_err(|e| cx.at(e))?;
    let places = cx.reshape(places, &[1, 1, taps, windows])?;
    let places = cx.add(Expand { shape }, &[places])?;
    let inside = cx.add(GatherElements { axis: 2 }, &[places, best])?;
    let planes = count(cx, &[n, c])?;
    let firsts = cx.collected(&[n, c, 1, 1], (0..planes).map(|plane| (plane * pixels) as i64))?;
    cx.binary(BinaryKind::Add, inside, firsts)
}

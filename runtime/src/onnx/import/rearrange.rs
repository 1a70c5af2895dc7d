//! Operators that move elements by rules on shapes: columns back to images, center crops, reversed sequences, growing
//! caches.

use super::build::{Halt, Imported};
use super::call::Call;
use super::table::{Entry, standard};
use crate::error::{OpError, list};
use crate::ops::binary::BinaryKind;
use crate::ops::broadcast::Expand;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::gather::Gather;
use crate::ops::indexed::{GatherNd, ScatterNd};
use crate::ops::pad::{Pad, PadMode};
use crate::ops::reduce::ReduceKind;
use crate::ops::slice::Slice;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Col2Im"], col2im),
    standard(&["CenterCropPad"], center_crop_pad),
    standard(&["ReverseSequence"], reverse_sequence),
    standard(&["TensorScatter"], tensor_scatter),
];

/// Most entries of a table of indices: 64 MB.
const MAX_PLACES: usize = 1 << 23;

/// Sizes from integers, all above zero.
fn sizes(cx: &Call<'_, '_>, name: &'static str, values: Vec<i64>, axes: usize) -> Result<Vec<usize>, Halt> {
    let sizes: Option<Vec<usize>> =
        values.iter().map(|&v| usize::try_from(v).ok().filter(|v| (1..1 << 24).contains(v))).collect();
    let sizes = sizes.filter(|sizes| sizes.len() == axes);
    sizes.ok_or_else(|| cx.attribute_error(name, format!("is {} for {axes} axes", list(&values))))
}

/// Along one axis: for every pixel, the taps of a window that cover it and their windows.
fn taps_by_pixel(
    image: usize,
    block: usize,
    windows: usize,
    [stride, dilation, pad]: [usize; 3],
) -> Result<Vec<Vec<(usize, usize)>>, OpError> {
    let mut pixels = reserve::copies(Vec::new(), image)?;
    for window in 0..windows {
        for tap in 0..block {
            let pixel = (window * stride + tap * dilation).checked_sub(pad);
            if let Some(pixel) = pixel.and_then(|pixel| pixels.get_mut(pixel)) {
                reserve::push(pixel, (tap, window))?;
            }
        }
    }
    Ok(pixels)
}

/// Sums the columns `[n, c * taps, windows]` into the pixels that they came from. Every pixel gathers its summands: the
/// same number for each, where missing ones refer to a zero.
fn col2im(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let image = cx.required_integers(1)?;
    let axes = image.len();
    let image = sizes(cx, "image_shape", image, axes)?;
    let block = cx.required_integers(2)?;
    let block = sizes(cx, "block_shape", block, axes)?;
    let list = |name: &'static str| -> Result<Vec<usize>, Halt> {
        let values = cx.ints(name)?;
        values.map_or_else(|| Ok(vec![1; axes]), |values| sizes(cx, name, values, axes))
    };
    let (strides, dilations) = (list("strides")?, list("dilations")?);
    let pads = cx.ints("pads")?.unwrap_or_else(|| vec![0; 2 * axes]);
    let pads: Option<Vec<usize>> =
        pads.iter().map(|&pad| usize::try_from(pad).ok().filter(|&pad| pad < 1 << 24)).collect();
    let Some(pads) = pads.filter(|pads| pads.len() == 2 * axes) else {
        return Err(cx.attribute_error("pads", format!("must be two for each of {axes} axes, at least 0")));
    };
    let &[n, columns, length] = cx.shape(x).dims() else {
        return Err(cx.shape_error("columns must have 3 dimensions", &[x]));
    };
    let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
    let Some(pixels) = product(&image).filter(|&pixels| pixels <= MAX_PLACES && axes > 0) else {
        return Err(cx.attribute_error("image_shape", "is too large"));
    };
    let mut windows = Vec::with_capacity(axes);
    for axis in 0..axes {
        let spread = (block[axis] - 1).saturating_mul(dilations[axis]).saturating_add(1);
        let room = (image[axis] + pads[axis] + pads[axes + axis]).checked_sub(spread);
        let room = room.ok_or_else(|| cx.attribute_error("block_shape", "is larger than the image"))?;
        windows.push(room / strides[axis] + 1);
    }
    let taps = product(&block).filter(|&taps| columns % taps == 0 && product(&windows) == Some(length));
    let Some(taps) = taps.filter(|&taps| columns > 0 && taps.saturating_mul(length) <= MAX_PLACES) else {
        return Err(cx.shape_error("there must be a column for every window and a row for every tap", &[x]));
    };
    let geometry = |axis: usize| [strides[axis], dilations[axis], pads[axis]];
    let along = (0..axes).map(|axis| taps_by_pixel(image[axis], block[axis], windows[axis], geometry(axis)));
    let along = along.collect::<Result<Vec<_>, _>>().map_err(|e| cx.at(e))?;
    let most: usize = along.iter().map(|pixels| pixels.iter().map(Vec::len).max().unwrap_or(0)).product();
    if most.saturating_mul(pixels) > MAX_PLACES {
        return Err(cx.at(OpError::TooLarge(format!("{most} x {pixels} places"))));
    }
    let channels = columns / taps;
    let nothing = (taps * length) as i64;
    let mut places = cx.copies(nothing, most * pixels)?;
    for pixel in 0..pixels {
        // (tap, window) over all axes together, one axis after the other.
        let mut met = vec![(0, 0)];
        let mut behind = pixels;
        for axis in 0..axes {
            behind /= image[axis];
            let here = &along[axis][pixel / behind % image[axis]];
            let (taps, windows) = (block[axis], windows[axis]);
            let with = |(tap, window)| here.iter().map(move |&(t, w)| (tap * taps + t, window * windows + w));
            met = met.into_iter().flat_map(with).collect();
        }
        for (slot, (tap, window)) in met.into_iter().enumerate() {
            places[slot * pixels + pixel] = (tap * length + window) as i64;
        }
    }
    let flat = cx.reshape(x, &[n * channels, taps * length])?;
    let zero = Tensor::zeros(Fact::new(cx.dtype(x), Shape::default()));
    let flat = cx.add(Pad { pads: vec![(0, 0), (0, 1)], mode: PadMode::Constant(zero) }, &[flat])?;
    let places = cx.elements(&[most, pixels], &places)?;
    let met = cx.add(Gather { axis: 1 }, &[flat, places])?;
    let sum = cx.reduce(ReduceKind::Sum, met, &[1], false)?;
    Ok(vec![cx.reshape(sum, &[&[n, channels], image.as_slice()].concat())?])
}

/// Crops or pads around the center, to a constant shape.
fn center_crop_pad(cx: &mut Call<'_, '_>) -> Imported {
    let mut y = cx.input(0)?;
    let rank = cx.rank(y);
    let target = cx.required_integers(1)?;
    let axes = match cx.ints("axes")? {
        Some(axes) => cx.each_axis(&axes, rank)?,
        None => (0..rank).collect(),
    };
    if axes.len() != target.len() {
        return Err(cx.attribute_error("axes", format!("are {} for {} sizes", axes.len(), target.len())));
    }
    let mut pads = vec![(0, 0); rank];
    for (&axis, &size) in axes.iter().zip(&target) {
        let size = usize::try_from(size).map_err(|_| cx.attribute_error("shape", format!("has the size {size}")))?;
        let dim = cx.shape(y)[axis];
        if size < dim {
            let start = if size == 0 { 0 } else { (dim - size) / 2 };
            y = cx.add(Slice { axis, start, len: size, step: 1 }, &[y])?;
        } else {
            pads[axis] = ((size - dim) / 2, (size - dim).div_ceil(2));
        }
    }
    if pads.iter().all(|&pads| pads == (0, 0)) {
        return Ok(vec![y]);
    }
    let zero = Tensor::zeros(Fact::new(cx.dtype(y), Shape::default()));
    cx.add_all(Pad { pads, mode: PadMode::Constant(zero) }, &[y])
}

/// Reverses the first steps of each sequence in a batch, as many as its length.
fn reverse_sequence(cx: &mut Call<'_, '_>) -> Imported {
    let (x, lengths) = (cx.input(0)?, cx.input(1)?);
    let time = cx.int("time_axis", 0)?;
    let batch = cx.int("batch_axis", 1)?;
    if cx.rank(x) < 2 || !matches!((batch, time), (0, 1) | (1, 0)) {
        return Err(
            cx.attribute_error("batch_axis", format!("is {batch}, and time_axis is {time}: they must be 0 and 1"))
        );
    }
    let mut order: Vec<usize> = (0..cx.rank(x)).collect();
    if time == 0 {
        order.swap(0, 1);
    }
    let x = cx.transpose(x, &order)?;
    let (count, steps) = (cx.shape(x)[0], cx.shape(x)[1]);
    if cx.shape(lengths).dims() != [count] {
        return Err(cx.shape_error("there must be a length for every sequence", &[x, lengths]));
    }
    let lengths = cx.cast(lengths, DType::I64)?;
    let lengths = cx.reshape(lengths, &[count, 1])?;
    let step = cx.collected(&[1, steps], 0..steps as i64)?;
    let last = cx.with_number(BinaryKind::Sub, lengths, 1.0)?;
    let back = cx.binary(BinaryKind::Sub, last, step)?;
    let inside = cx.compare(CompareKind::Less, step, lengths)?;
    let from = cx.select(inside, back, step)?;
    let from = cx.reshape(from, &[count, steps, 1])?;
    let y = cx.add(GatherNd { batch_dims: 1 }, &[x, from])?;
    Ok(vec![cx.transpose(y, &order)?])
}

/// Writes new steps into a cache, from the position that each sequence has reached.
fn tensor_scatter(cx: &mut Call<'_, '_>) -> Imported {
    let (cache, update) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(cache);
    let axis = cx.axis(-2, rank)?;
    let circular = match cx.text("mode")? {
        None | Some("linear") => false,
        Some("circular") => true,
        Some(other) => return Err(cx.attribute_error("mode", format!("is '{other}'"))),
    };
    if axis == 0 || cx.rank(update) != rank {
        return Err(cx.attribute_error("axis", "must be an axis of the update other than the batch"));
    }
    // [batch, steps, ...]
    let order: Vec<usize> = [0, axis].into_iter().chain((1..rank).filter(|&other| other != axis)).collect();
    let back: Vec<usize> =
        (0..rank).map(|axis| order.iter().position(|&other| other == axis).unwrap_or(axis)).collect();
    let (cache, update) = (cx.transpose(cache, &order)?, cx.transpose(update, &order)?);
    let (count, steps, room) = (cx.shape(update)[0], cx.shape(update)[1], cx.shape(cache)[1]);
    let ids = (0..count * steps).map(|i| (i / steps.max(1)) as i64);
    let ids = cx.collected(&[count, steps, 1], ids)?;
    let step = cx.collected(&[1, steps, 1], 0..steps as i64)?;
    let place = match cx.optional(2) {
        Some(first) => {
            let first = cx.cast(first, DType::I64)?;
            let first = cx.reshape(first, &[count, 1, 1])?;
            cx.binary(BinaryKind::Add, first, step)?
        }
        None => {
            let shape = Shape::new(&[count, steps, 1]).map_err(|e| cx.at(e))?;
            cx.add(Expand { shape }, &[step])?
        }
    };
    let place = if circular { cx.with_number(BinaryKind::Rem, place, room as f64)? } else { place };
    let tuples = cx.add(Concat { axis: 2 }, &[ids, place])?;
    let y = cx.add(ScatterNd, &[cache, tuples, update])?;
    Ok(vec![cx.transpose(y, &back)?])
}

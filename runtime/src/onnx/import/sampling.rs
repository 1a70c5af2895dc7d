//! Images sampled at points computed at run time: grids, deformable convolutions and regions of interest.

use super::build::{Halt, Imported};
use super::call::Call;
use super::convolution::{groups, window};
use super::double;
use super::product::{Order, ProductAxes, of_operands};
use super::table::{Entry, microsoft, standard};
use crate::error::{OpError, list};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::gather::Gather;
use crate::ops::regions::{RegionKind, Regions};
use crate::ops::sample::{Outside, Sample, SampleMode};
use crate::ops::slice::Slice;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["GridSample"], grid_sample),
    standard(&["AffineGrid"], affine_grid),
    standard(&["DeformConv"], deform_conv),
    standard(&["RoiAlign"], roi_align),
    standard(&["MaxRoiPool"], max_roi_pool),
    microsoft(&["GridSample"], grid_sample),
];

/// Most entries of a grid computed while importing.
const MAX_MADE: usize = 1 << 23;

/// Names of modes changed in opset 20.
fn grid_sample(cx: &mut Call<'_, '_>) -> Imported {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let mode = match cx.text("mode")?.unwrap_or("linear") {
        "linear" | "bilinear" => SampleMode::Linear,
        "nearest" => SampleMode::Nearest,
        "cubic" | "bicubic" => SampleMode::Cubic,
        other => return Err(cx.attribute_error("mode", format!("is '{other}'"))),
    };
    let outside = match cx.text("padding_mode")?.unwrap_or("zeros") {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        other => return Err(cx.attribute_error("padding_mode", format!("is '{other}'"))),
    };
    let (&[n, c, ref axes @ ..], &[batch, ref out @ .., coordinates]) = (cx.shape(x).dims(), cx.shape(grid).dims())
    else {
        return Err(cx.shape_error("there must be an image and a grid", &[x, grid]));
    };
    if batch != n || coordinates != axes.len() || out.len() != axes.len() {
        return Err(cx.shape_error("a grid must have as many axes as the image, and a coordinate for each", &[x, grid]));
    }
    if mode == SampleMode::Cubic && axes.len() != 2 {
        return Err(cx.attribute_error("mode", "is cubic, which is only supported for 2-D images"));
    }
    let dims = [&[n, c], out].concat();
    let points = [n, out.iter().product(), coordinates];
    let points = cx.reshape(grid, &points)?;
    let align_corners = cx.flag("align_corners", false)?;
    let y = sampled(cx, Sample { mode, outside, align_corners, normalized: true }, x, points)?;
    Ok(vec![cx.reshape(y, &dims)?])
}

/// The pixels of images at points.
fn sampled(cx: &mut Call<'_, '_>, op: Sample, x: ValueId, points: ValueId) -> Result<ValueId, Halt> {
    if cx.dtype(x) == DType::F64 {
        let points = cx.cast(points, DType::F64)?;
        return double::sample(cx, op, x, points);
    }
    cx.add(op, &[x, points])
}

/// The points to which an affine map takes the pixels of an image of constant size.
fn affine_grid(cx: &mut Call<'_, '_>) -> Imported {
    let theta = cx.input(0)?;
    let size = cx.required_integers(1)?;
    let size: Option<Vec<usize>> = size.iter().map(|&dim| usize::try_from(dim).ok().filter(|&dim| dim > 0)).collect();
    let Some([n, _, axes @ ..]) = size.as_deref() else {
        return Err(cx.attribute_error("size", "is not a shape of images"));
    };
    let rank = axes.len();
    if cx.shape(theta).dims() != [*n, rank, rank + 1] || !matches!(rank, 2 | 3) {
        return Err(cx.shape_error("theta must be a map of 2 or 3 coordinates for every image", &[theta]));
    }
    let points = axes.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim));
    let points = points.filter(|&points| points <= MAX_MADE / 4);
    let points = points.ok_or_else(|| cx.at(OpError::TooLarge(format!("a grid of {}", list(axes)))))?;
    let align = cx.flag("align_corners", false)?;
    let coordinate = |i: usize, dim: usize| match align {
        true if dim == 1 => -1.0,
        true => 2.0 * i as f64 / (dim - 1) as f64 - 1.0,
        false => (2.0 * i as f64 + 1.0) / dim as f64 - 1.0,
    };
    let mut base = cx.reserve(points * (rank + 1))?;
    for point in 0..points {
        let mut rest = point;
        // The last axis first, then 1 for the map's offset.
        for &dim in axes.iter().rev() {
            base.push(coordinate(rest % dim, dim));
            rest /= dim;
        }
        base.push(1.0);
    }
    let dims = [&[*n], axes, &[rank]].concat();
    let base = cx.elements(&[points, rank + 1], &base)?;
    let base = cx.cast(base, cx.dtype(theta))?;
    let map = cx.transpose(theta, &[0, 2, 1])?;
    let product = of_operands(cx, base, map)?;
    let y = product.multiply(cx, base, map)?;
    let y = product.result(cx, y, Order::Plain)?;
    Ok(vec![cx.reshape(y, &dims)?])
}

/// A convolution with moved taps: every tap of every window is sampled at its position plus the offset in the second
/// operand, then weighted as in any convolution.
fn deform_conv(cx: &mut Call<'_, '_>) -> Imported {
    let (x, weights, offset) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (&[n, channels, height, width], &[filters, depth, kernel_h, kernel_w]) =
        (cx.shape(x).dims(), cx.shape(weights).dims())
    else {
        return Err(Halt::Foreign);
    };
    let window = window(cx, x, weights)?;
    let groups = groups(cx)?;
    let offset_groups = usize::try_from(cx.int("offset_group", 1)?).ok().filter(|&groups| groups > 0);
    let offset_groups = offset_groups.filter(|&groups| channels % groups == 0);
    let offset_groups =
        offset_groups.ok_or_else(|| cx.attribute_error("offset_group", "does not divide the channels"))?;
    let (taps, [rows, columns]) = (kernel_h * kernel_w, [window.out[0], window.out[1]]);
    let points = rows * columns;
    if cx.shape(offset).dims() != [n, offset_groups * taps * 2, rows, columns] {
        return Err(cx.shape_error("there must be an offset for every tap of every window", &[x, weights, offset]));
    }
    if depth * groups != channels || filters % groups != 0 || taps.saturating_mul(points) > MAX_MADE / 2 {
        return Err(cx.shape_error("groups must divide channels and filters", &[x, weights]));
    }
    // Positions of the taps without an offset, column first, in the order of points.
    let mut base = cx.reserve(taps * points * 2)?;
    for tap in 0..taps {
        for point in 0..points {
            let place = |axis: usize, tap: usize, step: usize| {
                (step * window.strides[axis] + tap * window.dilations[axis]) as f32 - window.pads[axis].0 as f32
            };
            base.push(place(1, tap % kernel_w, point % columns));
            base.push(place(0, tap / kernel_w, point / columns));
        }
    }
    let base = cx.elements(&[1, taps * points, 2], &base)?;
    let base = cx.cast(base, cx.dtype(offset))?;
    let images = n * offset_groups;
    let moved = cx.reshape(offset, &[images, taps, 2, points])?;
    let column_first = cx.elements(&[2], &[1i64, 0])?;
    let moved = cx.add(Gather { axis: 2 }, &[moved, column_first])?;
    let moved = cx.transpose(moved, &[0, 1, 3, 2])?;
    let moved = cx.reshape(moved, &[images, taps * points, 2])?;
    let places = cx.binary(BinaryKind::Add, moved, base)?;

    let x = cx.reshape(x, &[images, channels / offset_groups, height, width])?;
    let read = Sample { mode: SampleMode::Linear, outside: Outside::Zeros, align_corners: false, normalized: false };
    let mut read = sampled(cx, read, x, places)?;
    if let Some(mask) = cx.optional(4) {
        if cx.shape(mask).dims() != [n, offset_groups * taps, rows, columns] {
            return Err(
                cx.shape_error("there must be a factor for every tap of every window", &[weights, offset, mask])
            );
        }
        let mask = cx.reshape(mask, &[images, 1, taps * points])?;
        read = cx.binary(BinaryKind::Mul, read, mask)?;
    }
    let read = cx.reshape(read, &[n, groups, depth * taps, points])?;
    let weights = cx.reshape(weights, &[groups, filters / groups, depth * taps])?;
    let product = ProductAxes::of(
        (cx.shape(weights), &['g', 'm', 'k']),
        (cx.shape(read), &['n', 'g', 'k', 'p']),
        &['n', 'g', 'm', 'p'],
    );
    let product = product.map_err(|e| cx.at(e))?.ok_or(Halt::Foreign)?;
    let y = product.multiply(cx, weights, read)?;
    let y = product.result(cx, y, Order::Plain)?;
    let mut y = cx.reshape(y, &[n, filters, rows, columns])?;
    if let Some(bias) = cx.optional(3) {
        let bias = cx.reshape(bias, &[filters, 1, 1])?;
        y = cx.binary(BinaryKind::Add, y, bias)?;
    }
    Ok(vec![y])
}

/// A size, which must be positive.
fn size(cx: &Call<'_, '_>, name: &'static str, value: i64) -> Result<usize, Halt> {
    let size = usize::try_from(value).ok().filter(|size| (1..1 << 16).contains(size));
    size.ok_or_else(|| cx.attribute_error(name, format!("is {value}")))
}

/// Since opset 16, coordinates are relative to the edge of a pixel unless the node says otherwise.
fn roi_align(cx: &mut Call<'_, '_>) -> Imported {
    let [x, regions, of] = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let largest = match cx.text("mode")?.unwrap_or("avg") {
        "avg" => false,
        "max" => true,
        other => return Err(cx.attribute_error("mode", format!("is '{other}'"))),
    };
    let half_pixel = match cx.text("coordinate_transformation_mode")? {
        None => cx.opset >= 16,
        Some("half_pixel") => true,
        Some("output_half_pixel") => false,
        Some(other) => return Err(cx.attribute_error("coordinate_transformation_mode", format!("is '{other}'"))),
    };
    let samples = u32::try_from(cx.int("sampling_ratio", 0)?).ok().filter(|&samples| samples <= 256);
    let samples = samples.ok_or_else(|| cx.attribute_error("sampling_ratio", "is negative, or above 256"))?;
    let sides = [cx.int("output_height", 1)?, cx.int("output_width", 1)?];
    let sides = [size(cx, "output_height", sides[0])?, size(cx, "output_width", sides[1])?];
    let op = Regions {
        kind: RegionKind::Align { largest, half_pixel, samples },
        size: sides,
        scale: cx.float("spatial_scale", 1.0)?,
    };
    let (of, dtype) = (cx.cast(of, DType::I64)?, cx.dtype(x));
    if dtype != DType::F64 {
        return cx.add_all(op, &[x, regions, of]);
    }
    // How many points a region has follows from its size in the run, so that f64 has no other form.
    let (x, regions) = (cx.cast(x, DType::F32)?, cx.cast(regions, DType::F32)?);
    let y = cx.add(op, &[x, regions, of])?;
    Ok(vec![cx.cast(y, dtype)?])
}

/// The first of a region's five elements is the index of its image.
fn max_roi_pool(cx: &mut Call<'_, '_>) -> Imported {
    let (x, regions) = (cx.input(0)?, cx.input(1)?);
    let &[count, 5] = cx.shape(regions).dims() else {
        return Err(cx.shape_error("a region must have its image and four sides", &[regions]));
    };
    let sides = cx.ints("pooled_shape")?.unwrap_or_default();
    let &[rows, columns] = sides.as_slice() else {
        return Err(cx.attribute_error("pooled_shape", "must have two sizes"));
    };
    let sides = [size(cx, "pooled_shape", rows)?, size(cx, "pooled_shape", columns)?];
    let mut part = |start: usize, len: usize| -> Result<ValueId, Halt> {
        cx.add(Slice { axis: 1, start, len, step: 1 }, &[regions])
    };
    let (of, corners) = (part(0, 1)?, part(1, 4)?);
    let of = cx.reshape(of, &[count])?;
    let of = cx.cast(of, DType::I64)?;
    let op = Regions { kind: RegionKind::MaxPool, size: sides, scale: cx.float("spatial_scale", 1.0)? };
    cx.add_all(op, &[x, corners, of])
}

//! Resize and its predecessor Upsample.

use super::build::{Halt, Imported};
use super::call::Call;
use super::double;
use super::table::{Entry, standard};
use crate::error::{OpError, list};
use crate::graph::ValueId;
use crate::ops::gather::Gather;
use crate::ops::image::Layout;
use crate::ops::resize::{Coordinates, Resize, ResizeMode, Rounding};
use crate::ops::resize_axis::{Crop, Filter, ResizeAxis};
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[standard(&["Resize"], resize), standard(&["Upsample"], upsample)];

/// The target of a resize.
struct ResizeTarget {
    /// For each axis, the scale from the input to the result.
    scales: Vec<f32>,
    /// Dimensions of the result.
    dims: Vec<usize>,
}

/// Before opset 11, positions were relative to the first pixel, rounded down.
fn upsample(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let scales = match cx.floats("scales")? {
        Some(scales) => scales,
        None => scales_at(cx, 1)?.ok_or_else(|| cx.attribute_error("scales", "is missing"))?,
    };
    let target = by_scales(cx, x, (0..cx.rank(x)).collect(), &scales)?;
    let filter = match cx.text("mode")?.unwrap_or("nearest") {
        "nearest" => Filter::Nearest(Rounding::Floor),
        "linear" | "bilinear" => Filter::Linear,
        _ => return Err(Halt::Foreign),
    };
    let (coordinates, crops, antialias, exclude_outside) = (Coordinates::Asymmetric, None, false, false);
    resized(cx, x, &target, &Sampling { filter, coordinates, crops, antialias, exclude_outside })
}

fn resize(cx: &mut Call<'_, '_>) -> Imported {
    if cx.opset < 11 {
        return upsample(cx);
    }
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let axes = match cx.ints("axes")? {
        Some(axes) => cx.each_axis(&axes, rank)?,
        None => (0..rank).collect::<Vec<_>>(),
    };
    let target = match scales_at(cx, 2)?.filter(|scales| !scales.is_empty()) {
        Some(scales) => by_scales(cx, x, axes.clone(), &scales)?,
        None => {
            let sizes = cx.integers(3)?.filter(|sizes| !sizes.is_empty());
            let sizes = sizes.ok_or_else(|| cx.at(OpError::Value("neither scales nor sizes are given".into())))?;
            by_sizes(cx, x, &axes, &sizes)?
        }
    };
    let coordinates = match cx.text("coordinate_transformation_mode")?.unwrap_or("half_pixel") {
        // Another operand selects the part.
        "half_pixel" | "tf_crop_and_resize" => Coordinates::HalfPixel,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" => Coordinates::TfHalfPixel,
        other => return Err(cx.attribute_error("coordinate_transformation_mode", format!("is '{other}'"))),
    };
    let rounding = match cx.text("nearest_mode")?.unwrap_or("round_prefer_floor") {
        "round_prefer_floor" => Rounding::PreferFloor,
        "round_prefer_ceil" => Rounding::PreferCeil,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        other => return Err(cx.attribute_error("nearest_mode", format!("is '{other}'"))),
    };
    let filter = match cx.text("mode")?.unwrap_or("nearest") {
        "nearest" => Filter::Nearest(rounding),
        "linear" => Filter::Linear,
        "cubic" => Filter::Cubic(cx.float("cubic_coeff_a", -0.75)?),
        other => return Err(cx.attribute_error("mode", format!("is '{other}'"))),
    };
    let cropped = cx.text("coordinate_transformation_mode")? == Some("tf_crop_and_resize");
    let plain = Sampling {
        filter,
        coordinates,
        crops: if cropped { Some(crops(cx, &axes)?) } else { None },
        antialias: cx.flag("antialias", false)? && !matches!(filter, Filter::Nearest(_)),
        exclude_outside: cx.flag("exclude_outside", false)? && matches!(filter, Filter::Cubic(_)),
    };
    resized(cx, x, &target, &plain)
}

/// The part of each axis that is resized: starts, then ends, in the second operand.
fn crops(cx: &Call<'_, '_>, axes: &[usize]) -> Result<Vec<(usize, Crop)>, Halt> {
    let given = cx.constant_floats(1).ok_or_else(|| cx.dynamic("the region to resize"))?;
    if given.len() != 2 * axes.len() {
        return Err(cx.attribute_error("roi", format!("has {} elements for {} axes", given.len(), axes.len())));
    }
    let outside = cx.float("extrapolation_value", 0.0)?;
    let (starts, ends) = given.split_at(axes.len());
    let parts = axes.iter().zip(starts.iter().zip(ends));
    Ok(parts.map(|(&axis, (&start, &end))| (axis, Crop { start, end, outside })).collect())
}

/// The constant scales in operand `index`.
fn scales_at(cx: &Call<'_, '_>, index: usize) -> Result<Option<Vec<f32>>, Halt> {
    let Some(id) = cx.optional(index) else { return Ok(None) };
    if cx.shape(id).elements() == 0 {
        return Ok(None);
    }
    let scales = cx.constant_floats(index);
    scales.map(Some).ok_or_else(|| cx.dynamic("the scales"))
}

fn by_scales(cx: &Call<'_, '_>, x: ValueId, axes: Vec<usize>, given: &[f32]) -> Result<ResizeTarget, Halt> {
    if given.len() != axes.len() {
        return Err(cx.attribute_error("scales", format!("has {} entries for {} axes", given.len(), axes.len())));
    }
    let mut target = ResizeTarget { scales: vec![1.0; cx.rank(x)], dims: cx.shape(x).to_vec() };
    for (&axis, &scale) in axes.iter().zip(given) {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(cx.attribute_error("scales", format!("holds {scale}")));
        }
        target.scales[axis] = scale;
        target.dims[axis] = (target.dims[axis] as f32 * scale) as usize;
    }
    Ok(target)
}

fn by_sizes(cx: &Call<'_, '_>, x: ValueId, axes: &[usize], given: &[i64]) -> Result<ResizeTarget, Halt> {
    let sizes: Option<Vec<usize>> = given.iter().map(|&size| usize::try_from(size).ok()).collect();
    let Some(sizes) = sizes.filter(|sizes| sizes.len() == axes.len()) else {
        return Err(cx.attribute_error("sizes", format!("is {} for {} axes", list(given), axes.len())));
    };
    let mut target = ResizeTarget { scales: vec![1.0; cx.rank(x)], dims: cx.shape(x).to_vec() };
    let ratio = |axis: usize, size: usize| size as f32 / cx.shape(x)[axis] as f32;
    let ratios = axes.iter().zip(&sizes).map(|(&axis, &size)| ratio(axis, size));
    let common = match cx.text("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
        "stretch" => None,
        "not_larger" => ratios.reduce(f32::min),
        "not_smaller" => ratios.reduce(f32::max),
        other => return Err(cx.attribute_error("keep_aspect_ratio_policy", format!("is '{other}'"))),
    };
    for (&axis, &size) in axes.iter().zip(&sizes) {
        let dim = &mut target.dims[axis];
        match common {
            Some(scale) => {
                // Halves round up.
                target.scales[axis] = scale;
                *dim = (*dim as f32 * scale + 0.5).floor() as usize;
            }
            None if *dim != size => {
                target.scales[axis] = ratio(axis, size);
                *dim = size;
            }
            None => {}
        }
    }
    Ok(target)
}

/// The axes of a tensor that are the rows and the columns of images.
struct ImageAxes {
    /// `None` if the images have one row.
    rows: Option<usize>,
    columns: Option<usize>,
    layout: Layout,
}

impl ImageAxes {
    /// Images of which only rows and columns are resized; `None` if three axes are resized, or two that are not
    /// adjacent.
    fn of(rank: usize, resized: &[usize]) -> Option<Self> {
        if rank == 4 && resized.iter().all(|&axis| axis >= 2) {
            return Some(Self { rows: Some(2), columns: Some(3), layout: Layout::Nchw });
        }
        let (rows, columns) = match *resized {
            [axis] => (None, Some(axis)),
            [rows, columns] if columns == rows + 1 => (Some(rows), Some(columns)),
            _ => return None,
        };
        Some(Self { rows, columns, layout: Layout::Nhwc })
    }

    /// A tensor's dimensions as those of images.
    fn dims(&self, dims: &[usize]) -> Vec<usize> {
        if self.layout == Layout::Nchw {
            return dims.to_vec();
        }
        let count = |dims: &[usize]| dims.iter().product::<usize>();
        let first = self.rows.or(self.columns).unwrap_or(dims.len());
        let behind = self.columns.map_or(dims.len(), |axis| axis + 1);
        let dim = |axis: Option<usize>| axis.map_or(1, |axis| dims[axis]);
        vec![count(&dims[..first]), dim(self.rows), dim(self.columns), count(&dims[behind..])]
    }
}

/// How elements are interpolated along every axis.
struct Sampling {
    filter: Filter,
    coordinates: Coordinates,
    crops: Option<Vec<(usize, Crop)>>,
    antialias: bool,
    exclude_outside: bool,
}

fn resized(cx: &mut Call<'_, '_>, x: ValueId, target: &ResizeTarget, sampling: &Sampling) -> Imported {
    let from = cx.shape(x).to_vec();
    let ResizeTarget { scales, dims } = target;
    let axes: Vec<usize> = (0..from.len()).filter(|&axis| scales[axis] != 1.0 || from[axis] != dims[axis]).collect();
    // Equal sizes are a copy, whatever the scales, as in ONNX Runtime.
    if axes.is_empty() || from == *dims {
        return Ok(vec![x]);
    }
    let dtype = cx.dtype(x);
    // 8-bit elements are only moved, or interpolated as floats and truncated, as in ONNX Runtime. Wider integers have
    // elements that an f32 cannot represent, so that those are moved as they are.
    let moves = matches!(sampling.filter, Filter::Nearest(_));
    let by_floats = match dtype {
        DType::F32 | DType::U8 | DType::I8 => true,
        DType::I16 | DType::U16 | DType::I32 => !moves,
        DType::F64 if !moves => return doubles(cx, x, target, sampling, &axes),
        _ => false,
    };
    if !by_floats {
        return gathered(cx, x, target, sampling, &axes);
    }
    let x = cx.cast(x, DType::F32)?;
    let mode = match sampling.filter {
        Filter::Nearest(rounding) => Some(ResizeMode::Nearest(rounding)),
        Filter::Linear => Some(ResizeMode::Linear),
        Filter::Cubic(_) => None,
    };
    let plain = sampling.crops.is_none() && !sampling.antialias;
    let image = ImageAxes::of(from.len(), &axes).zip(mode).filter(|_| plain);
    let y = match image {
        Some((image, mode)) => {
            let op = Resize {
                mode,
                coordinates: sampling.coordinates,
                scales: [image.rows, image.columns].map(|axis| axis.map_or(1.0, |axis| scales[axis])),
                out: [image.rows, image.columns].map(|axis| axis.map_or(1, |axis| dims[axis])),
                layout: image.layout,
            };
            let images = cx.reshape(x, &image.dims(&from))?;
            let y = cx.add(op, &[images])?;
            cx.reshape(y, dims)?
        }
        None => {
            // A crop may keep the size.
            let cropped = |axis: usize| sampling.crops.as_ref()?.iter().find(|crop| crop.0 == axis).map(|crop| crop.1);
            let mut y = x;
            for axis in (0..from.len()).filter(|&axis| axes.contains(&axis) || cropped(axis).is_some()) {
                let &Sampling { filter, coordinates, antialias, exclude_outside, .. } = sampling;
                let (out, scale, crop) = (dims[axis], scales[axis], cropped(axis));
                let op = ResizeAxis { axis, out, scale, filter, coordinates, crop, antialias, exclude_outside };
                y = cx.add(op, &[y])?;
            }
            y
        }
    };
    Ok(vec![cx.cast(y, dtype)?])
}

/// Interpolated elements of f64.
fn doubles(cx: &mut Call<'_, '_>, x: ValueId, target: &ResizeTarget, sampling: &Sampling, axes: &[usize]) -> Imported {
    let &Sampling { filter, coordinates, antialias, exclude_outside, .. } = sampling;
    if sampling.crops.is_some() {
        return Err(Halt::Foreign);
    }
    let mut y = x;
    for &axis in axes {
        let (out, scale) = (target.dims[axis], target.scales[axis]);
        let op = ResizeAxis { axis, out, scale, filter, coordinates, crop: None, antialias, exclude_outside };
        y = double::along_axis(cx, y, op)?;
    }
    Ok(vec![y])
}

/// The nearest elements of a type that the kernels do not have: the resized indices of each axis.
fn gathered(cx: &mut Call<'_, '_>, x: ValueId, target: &ResizeTarget, sampling: &Sampling, axes: &[usize]) -> Imported {
    let &Sampling { filter, coordinates, antialias, exclude_outside, .. } = sampling;
    if !matches!(filter, Filter::Nearest(_)) || sampling.crops.is_some() {
        return Err(Halt::Foreign);
    }
    let mut y = x;
    for &axis in axes {
        let (out, scale) = (target.dims[axis], target.scales[axis]);
        let len = cx.shape(x)[axis];
        let places = cx.collected(&[len], (0..len).map(|place| place as f32))?;
        let op = ResizeAxis { axis: 0, out, scale, filter, coordinates, crop: None, antialias, exclude_outside };
        let places = cx.add(op, &[places])?;
        let places = cx.cast(places, DType::I64)?;
        y = cx.add(Gather { axis }, &[y, places])?;
    }
    Ok(vec![y])
}

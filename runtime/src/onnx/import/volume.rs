//! Convolutions and transposed convolutions of volumes; pooling of volumes, with indices, and by Lp norms.

use super::build::{Halt, Imported};
use super::call::Call;
use super::convolution::groups;
use super::double;
use super::table::{Entry, standard};
use super::window::Window;
use crate::error::list;
use crate::ops::binary::BinaryKind;
use crate::ops::pool::Pool;
use crate::ops::scatter_elements::ScatterElements;
use crate::ops::volume::VolumeConv;
use crate::ops::window_pool::{Of, WindowPool};
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["ConvTranspose"], conv_transpose),
    standard(&["LpPool", "GlobalLpPool"], lp_pool),
    standard(&["MaxUnpool"], max_unpool),
    standard(&["LRN"], local_response),
];

/// Up to three sizes, padded with `filler` in front to three; `None` for more.
fn three(sizes: &[usize], filler: usize) -> Option<[usize; 3]> {
    match *sizes {
        [a] => Some([filler, filler, a]),
        [a, b] => Some([filler, a, b]),
        [a, b, c] => Some([a, b, c]),
        _ => None,
    }
}

/// The dimensions with axes of length 1 inserted after the first two, up to five.
fn volume(dims: &[usize]) -> Option<Vec<usize>> {
    Some([&dims[..2], &three(&dims[2..], 1)?].concat())
}

/// A convolution of volumes.
pub(super) fn conv(cx: &mut Call<'_, '_>, window: &Window) -> Imported {
    let (before, _): (Vec<usize>, Vec<usize>) = window.pads.iter().copied().unzip();
    convolve(cx, false, window, (&before, &window.out))
}

fn convolve(cx: &mut Call<'_, '_>, transposed: bool, window: &Window, (before, out): (&[usize], &[usize])) -> Imported {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let groups = groups(cx)?;
    let sizes = [(&window.kernel[..], 1), (&window.strides, 1), (&window.dilations, 1), (before, 0), (out, 1)];
    let [Some(kernel), Some(stride), Some(dilation), Some(pads), Some(size)] =
        sizes.map(|(sizes, filler)| three(sizes, filler))
    else {
        return Err(Halt::Foreign);
    };
    if cx.dtype(x) != DType::F32 {
        return double::convolve(cx, window, transposed.then_some(before));
    }
    let held = cx.shape(weights);
    let channels = if transposed { held[1].saturating_mul(groups) } else { held[0] };
    let bias = match cx.optional(2) {
        Some(bias) => bias,
        None => cx.collected(&[channels], std::iter::repeat_n(0f32, channels))?,
    };
    let result = [&[cx.shape(x)[0], channels], out].concat();
    let (Some(from), Some(kernels)) = (volume(cx.shape(x)), volume(cx.shape(weights))) else {
        return Err(Halt::Foreign);
    };
    let x = cx.reshape(x, &from)?;
    let x = cx.transpose(x, &[0, 2, 3, 4, 1])?;
    let weights = cx.reshape(weights, &kernels)?;
    let op = VolumeConv { transposed, kernel, stride, dilation, pads, out: size, groups };
    let y = cx.add(op, &[x, weights, bias])?;
    let y = cx.transpose(y, &[0, 4, 1, 2, 3])?;
    Ok(vec![cx.reshape(y, &result)?])
}

/// Given sizes determine what is cut off. The odd element is cut off at the end with `SAME_UPPER` and at the start
/// otherwise, as in ONNX Runtime.
fn conv_transpose(cx: &mut Call<'_, '_>) -> Imported {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let (from, kernel) = (cx.shape(x).to_vec(), cx.shape(weights).to_vec());
    if from.len() < 3 || kernel.len() != from.len() || kernel[2..].contains(&0) {
        return Err(
            cx.shape_error("images and weights must have the same number of dimensions, at least 3", &[x, weights])
        );
    }
    let axes = from.len() - 2;
    let sizes_of = |name: &'static str, default: usize| -> Result<Vec<usize>, Halt> {
        let Some(values) = cx.ints(name)? else { return Ok(vec![default; axes]) };
        let sizes: Option<Vec<usize>> = values.iter().map(|&v| usize::try_from(v).ok()).collect();
        let sizes = sizes.filter(|sizes| sizes.len() == axes && sizes.iter().all(|&size| size >= default.min(1)));
        sizes.ok_or_else(|| cx.attribute_error(name, format!("is {} for {axes} axes", list(&values))))
    };
    let (strides, dilations, extra) =
        (sizes_of("strides", 1)?, sizes_of("dilations", 1)?, sizes_of("output_padding", 0)?);
    if cx.ints("kernel_shape")?.is_some_and(|said| !said.iter().copied().eq(kernel[2..].iter().map(|&k| k as i64))) {
        return Err(cx.attribute_error("kernel_shape", format!("is not that of the weights, {}", list(&kernel[2..]))));
    }
    let given = match cx.ints("output_shape")? {
        Some(sizes) if sizes.len() == axes || sizes.len() == axes + 2 => Some(sizes[sizes.len() - axes..].to_vec()),
        Some(sizes) => return Err(cx.attribute_error("output_shape", format!("is {} for {axes} axes", list(&sizes)))),
        None => None,
    };
    let auto = cx.text("auto_pad")?.unwrap_or("NOTSET");
    let pads = match cx.ints("pads")?.filter(|_| auto == "NOTSET") {
        Some(pads) if pads.len() == 2 * axes => pads,
        Some(pads) => return Err(cx.attribute_error("pads", format!("is {} for {axes} axes", list(&pads)))),
        None => vec![0; 2 * axes],
    };
    let (mut before, mut out) = (Vec::with_capacity(axes), Vec::with_capacity(axes));
    for axis in 0..axes {
        let wide = |size: usize| i128::try_from(size).unwrap_or(i128::MAX >> 2);
        let (stride, reach) = (wide(strides[axis]), (wide(kernel[axis + 2]) - 1) * wide(dilations[axis]) + 1);
        let whole = (wide(from[axis + 2]) - 1) * stride + wide(extra[axis]) + reach;
        let wanted = match (&given, auto) {
            (Some(sizes), _) => Some(i128::from(sizes[axis])),
            (None, "SAME_UPPER" | "SAME_LOWER") => Some(wide(from[axis + 2]) * stride),
            (None, "NOTSET" | "VALID") => None,
            (None, other) => return Err(cx.attribute_error("auto_pad", format!("is '{other}'"))),
        };
        let (front, size) = match wanted {
            Some(size) => {
                let total = (whole - size).max(0);
                (if auto == "SAME_UPPER" { total / 2 } else { total - total / 2 }, size)
            }
            None => {
                let (front, behind) = (i128::from(pads[axis]), i128::from(pads[axes + axis]));
                (front, whole - front - behind)
            }
        };
        // Without given sizes, what auto_pad cuts off determines how many elements are left.
        let size = if given.is_none() && wanted.is_some() { whole - (whole - size).max(0) } else { size };
        let (Ok(front), Ok(size)) = (usize::try_from(front), usize::try_from(size)) else {
            return Err(cx.attribute_error("pads", format!("leave {size} elements of axis {}", axis + 2)));
        };
        before.push(front);
        out.push(size);
    }
    let window =
        Window { kernel: kernel[2..].to_vec(), strides, dilations, pads: vec![(0, 0); axes], out: out.clone() };
    convolve(cx, true, &window, (&before, &out))
}

/// Pooling that the image kernels do not support.
pub(super) fn pool(cx: &mut Call<'_, '_>, of: Of, window: &Window) -> Imported {
    let x = cx.input(0)?;
    let dtype = cx.dtype(x);
    // Bytes have the same order as floats of the same value.
    let bytes = matches!(dtype, DType::U8 | DType::I8) && matches!(of, Of::Max | Of::MaxIndex { .. });
    let (before, behind): (Vec<usize>, Vec<usize>) = window.pads.iter().copied().unzip();
    let sizes = [
        (&window.kernel, 1),
        (&window.strides, 1),
        (&window.dilations, 1),
        (&before, 0),
        (&behind, 0),
        (&window.out, 1),
    ];
    let [Some(kernel), Some(stride), Some(dilation), Some(before), Some(behind), Some(out)] =
        sizes.map(|(sizes, filler)| three(sizes, filler))
    else {
        return Err(Halt::Foreign);
    };
    if dtype == DType::F64 {
        return double::pool(cx, x, of, window);
    }
    if dtype != DType::F32 && !bytes {
        return Err(Halt::Foreign);
    }
    let from = cx.shape(x).to_vec();
    let result = [&from[..2], &window.out].concat();
    let Some(dims) = volume(&from) else { return Err(Halt::Foreign) };
    let x = cx.cast(x, DType::F32)?;
    let x = cx.reshape(x, &dims)?;
    let results = cx.add_all(WindowPool { of, kernel, stride, dilation, before, behind, out }, &[x])?;
    let mut shaped = results.into_iter().map(|id| cx.reshape(id, &result)).collect::<Result<Vec<_>, _>>()?;
    shaped[0] = cx.cast(shaped[0], dtype)?;
    Ok(shaped)
}

fn lp_pool(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let from = cx.shape(x).to_vec();
    if from.len() < 3 {
        return Err(cx.shape_error("images must have at least 3 dimensions", &[x]));
    }
    let of = lp(cx)?;
    let window = match cx.node.op_type {
        "GlobalLpPool" => Window {
            kernel: from[2..].iter().map(|&len| len.max(1)).collect(),
            strides: vec![1; from.len() - 2],
            dilations: vec![1; from.len() - 2],
            pads: vec![(0, 0); from.len() - 2],
            out: vec![1; from.len() - 2],
        },
        _ => Window::of(cx, &from[2..], None)?,
    };
    pool(cx, of, &window)
}

/// The attribute `p`, a float in opset 1.
fn lp(cx: &Call<'_, '_>) -> Result<Of, Halt> {
    let p = if cx.opset < 2 { cx.float("p", 2.0)? as i64 } else { cx.int("p", 2)? };
    i32::try_from(p).map(Of::Lp).map_err(|_| cx.attribute_error("p", format!("is {p}")))
}

/// The elements at their indices, zeros elsewhere. Indices refer to the result, as in ONNX Runtime.
fn max_unpool(cx: &mut Call<'_, '_>) -> Imported {
    let (x, places) = (cx.input(0)?, cx.input(1)?);
    let from = cx.shape(x).to_vec();
    let axes = from.len().saturating_sub(2);
    let (Some(kernel), Some(2..)) = (cx.ints("kernel_shape")?, Some(from.len())) else {
        return Err(cx.attribute_error("kernel_shape", "is missing"));
    };
    let (strides, pads) = (cx.ints("strides")?, cx.ints("pads")?);
    let (strides, pads) = (strides.unwrap_or_else(|| vec![1; axes]), pads.unwrap_or_else(|| vec![0; 2 * axes]));
    if kernel.len() != axes || strides.len() != axes || pads.len() != 2 * axes || cx.shape(places).dims() != from {
        return Err(cx.attribute_error("kernel_shape", format!("or strides or pads are not for {axes} axes")));
    }
    let dims: Option<Vec<usize>> = match cx.integers(2)? {
        Some(dims) => dims.iter().map(|&dim| usize::try_from(dim).ok()).collect(),
        None => {
            let front = from[..2].iter().map(|&dim| Some(dim));
            let spatial = (0..axes).map(|axis| {
                let last = i64::try_from(from[axis + 2]).ok()?.checked_sub(1)?.checked_mul(strides[axis])?;
                let size = last.checked_add(kernel[axis])?.checked_sub(pads[axis])?.checked_sub(pads[axes + axis])?;
                usize::try_from(size).ok()
            });
            front.chain(spatial).collect()
        }
    };
    let dims = dims.ok_or_else(|| cx.attribute_error("pads", "leave nothing"))?;
    let shape = Shape::new(&dims).map_err(|e| cx.at(e))?;
    let (whole, count) = (shape.elements(), from.iter().product());
    let flat = Shape::new(&[whole]).map_err(|e| cx.at(e))?;
    let zeros = Tensor::try_zeros(Fact::new(cx.dtype(x), flat)).map_err(|e| cx.at(e))?;
    let zeros = cx.constant(zeros)?;
    let (x, places) = (cx.reshape(x, &[count])?, cx.reshape(places, &[count])?);
    let y = cx.add(ScatterElements { axis: 0 }, &[zeros, places, x])?;
    Ok(vec![cx.reshape(y, &dims)?])
}

/// Divides each element by a power of the mean square of the neighboring channels.
fn local_response(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    let size = usize::try_from(cx.int("size", 0)?).ok().filter(|&size| size > 0 && size <= 1 << 20);
    let size = size.ok_or_else(|| cx.attribute_error("size", "must be above 0"))?;
    let (&[batch, channels, ref pixels @ ..], dtype @ (DType::F32 | DType::F64)) = (dims.as_slice(), cx.dtype(x))
    else {
        return Err(Halt::Foreign);
    };
    let (alpha, beta, bias) = (cx.float("alpha", 1e-4)?, cx.float("beta", 0.75)?, cx.float("bias", 1.0)?);
    let inner: usize = pixels.iter().product();
    let before = (size - 1) / 2;
    let square = cx.unary(crate::ops::unary::UnaryKind::Square, x)?;
    let planes = cx.reshape(square, &[batch, 1, channels, inner])?;
    let mean = if dtype == DType::F64 {
        let window = Window {
            kernel: vec![size, 1],
            strides: vec![1; 2],
            dilations: vec![1; 2],
            pads: vec![(before, size - 1 - before), (0, 0)],
            out: vec![channels, inner],
        };
        double::pool(cx, planes, Of::Average { count_padding: true }, &window)?[0]
    } else {
        let function = skipstone_kernels::pool::PoolFn::Average { count_padding: true };
        let op = Pool {
            kernel: [size, 1],
            pads: [before, 0, size - 1 - before, 0],
            out: [channels, inner],
            ..Pool::global(function, 1, 1)
        };
        cx.add(op, &[planes])?
    };
    let mean = cx.reshape(mean, &dims)?;
    let scaled = cx.with_number(BinaryKind::Mul, mean, f64::from(alpha))?;
    let moved = cx.with_number(BinaryKind::Add, scaled, f64::from(bias))?;
    let power = cx.with_number(BinaryKind::Pow, moved, f64::from(beta))?;
    Ok(vec![cx.binary(BinaryKind::Div, x, power)?])
}

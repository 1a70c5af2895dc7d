//! Windows that slide over lines, images or volumes: the kernel, strides, dilations and padding that convolution and
//! pooling share.

use super::build::Halt;
use super::call::Call;
use crate::error::list;

/// A window's attributes, with one entry per spatial axis.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    /// Padding before and after each axis.
    pub pads: Vec<(usize, usize)>,
    /// Lengths of the result.
    pub out: Vec<usize>,
}

impl Window {
    /// The window of a node over axes of these `lengths`; `kernel` is used if the node does not specify one.
    pub fn of(cx: &Call<'_, '_>, lengths: &[usize], kernel: Option<&[usize]>) -> Result<Self, Halt> {
        let axes = lengths.len();
        let sizes_of = |name: &'static str| -> Result<Option<Vec<usize>>, Halt> {
            let Some(values) = cx.ints(name)? else { return Ok(None) };
            let sizes: Option<Vec<usize>> =
                values.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v > 0)).collect();
            match sizes.filter(|sizes| sizes.len() == axes) {
                Some(sizes) => Ok(Some(sizes)),
                None => Err(cx.attribute_error(name, format!("is {} for {axes} axes", list(&values)))),
            }
        };
        let kernel = match (sizes_of("kernel_shape")?, kernel) {
            (Some(said), Some(held)) if said != held => {
                return Err(
                    cx.attribute_error("kernel_shape", format!("is {}, the weights have {}", list(&said), list(held)))
                );
            }
            (Some(kernel), _) => kernel,
            (None, Some(kernel)) => kernel.to_vec(),
            (None, None) => return Err(cx.attribute_error("kernel_shape", "is missing")),
        };
        let strides = sizes_of("strides")?.unwrap_or_else(|| vec![1; axes]);
        let dilations = sizes_of("dilations")?.unwrap_or_else(|| vec![1; axes]);
        let auto = cx.text("auto_pad")?.unwrap_or("NOTSET");
        let ceil = cx.flag("ceil_mode", false)?;
        let mut window = Self { kernel, strides, dilations, pads: vec![(0, 0); axes], out: vec![0; axes] };
        let pads = match cx.ints("pads")? {
            Some(pads) if auto == "NOTSET" => pads,
            _ => vec![0; 2 * axes],
        };
        let sides: Option<Vec<usize>> = pads.iter().map(|&pad| usize::try_from(pad).ok()).collect();
        let Some(sides) = sides.filter(|sides| sides.len() == 2 * axes) else {
            return Err(cx.attribute_error("pads", format!("is {} for {axes} axes", list(&pads))));
        };
        for axis in 0..axes {
            let (len, stride) = (lengths[axis], window.strides[axis]);
            let too_large = || cx.attribute_error("kernel_shape", "reaches past the address space");
            let reach = (window.kernel[axis] - 1).checked_mul(window.dilations[axis]).ok_or_else(too_large)?;
            let reach =
                reach.checked_add(1).filter(|&reach| reach < isize::MAX.unsigned_abs()).ok_or_else(too_large)?;
            let (before, after, out) = match auto {
                "NOTSET" | "VALID" => {
                    let (before, after) = (sides[axis], sides[axes + axis]);
                    let padded =
                        len.checked_add(before).and_then(|len| len.checked_add(after)).ok_or_else(too_large)?;
                    if padded < reach {
                        let what = format!("of {reach} pixels does not fit {len} and padding of {before} and {after}");
                        return Err(cx.attribute_error("kernel_shape", what));
                    }
                    let steps = padded - reach;
                    let mut out = if ceil { steps.div_ceil(stride) } else { steps / stride } + 1;
                    // A window that would begin in the trailing padding is left out.
                    if ceil && (out - 1).saturating_mul(stride) >= len.saturating_add(before) {
                        out -= 1;
                    }
                    (before, after, out)
                }
                "SAME_UPPER" | "SAME_LOWER" => {
                    let out = len.div_ceil(stride);
                    let wanted = out.saturating_sub(1).saturating_mul(stride).saturating_add(reach);
                    let missing = wanted.saturating_sub(len);
                    let less = missing / 2;
                    if auto == "SAME_UPPER" { (less, missing - less, out) } else { (missing - less, less, out) }
                }
                other => return Err(cx.attribute_error("auto_pad", format!("is '{other}'"))),
            };
            window.pads[axis] = (before, after);
            window.out[axis] = out;
        }
        Ok(window)
    }

    /// The window over volumes of these `lengths` with two neighboring axes joined: of the inner one it has a single tap
    /// and takes every element, so that the taps of the outer one are as far apart as the inner one is long. Also returns
    /// which axis is joined with the next.
    pub fn joined(&self, lengths: &[usize]) -> Option<(Self, usize)> {
        let joins = |axis: usize| {
            let inner = axis + 1;
            let all = self.kernel[inner] == 1 && self.pads[inner] == (0, 0) && self.strides[inner] == 1;
            all && self.strides[axis] == 1
        };
        if lengths.len() != 3 {
            return None;
        }
        let axis = (0..2).rev().find(|&axis| joins(axis))?;
        let times = lengths[axis + 1];
        let (before, after) = self.pads[axis];
        let mut window = self.clone();
        window.dilations[axis] = self.dilations[axis].checked_mul(times.max(1))?;
        window.pads[axis] = (before.checked_mul(times)?, after.checked_mul(times)?);
        window.out[axis] = self.out[axis].checked_mul(times)?;
        for values in [&mut window.kernel, &mut window.strides, &mut window.dilations, &mut window.out] {
            values.remove(axis + 1);
        }
        window.pads.remove(axis + 1);
        Some((window, axis))
    }

    /// The window as an image window: a line is an image with one row. `None` for volumes.
    pub fn as_image(&self) -> Option<ImageWindow> {
        let pair = |values: &[usize], row: usize| match *values {
            [column] => Some([row, column]),
            [row, column] => Some([row, column]),
            _ => None,
        };
        let (before, after): (Vec<usize>, Vec<usize>) = self.pads.iter().copied().unzip();
        let ([top, left], [bottom, right]) = (pair(&before, 0)?, pair(&after, 0)?);
        Some(ImageWindow {
            kernel: pair(&self.kernel, 1)?,
            stride: pair(&self.strides, 1)?,
            dilation: pair(&self.dilations, 1)?,
            pads: [top, left, bottom, right],
            out: pair(&self.out, 1)?,
        })
    }
}

/// An image window.
#[derive(Clone, Copy, Debug)]
pub(super) struct ImageWindow {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    pub out: [usize; 2],
}

/// Dimensions with a row axis inserted for lines: `[N, C, L]` becomes `[N, C, 1, L]`.
pub(super) fn image_dims(dims: &[usize]) -> Vec<usize> {
    match *dims {
        [batch, channels, length] => vec![batch, channels, 1, length],
        _ => dims.to_vec(),
    }
}

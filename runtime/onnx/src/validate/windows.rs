//! Convolution and pooling, which slide a window over their input.
//!
//! A stride of zero would divide by zero, huge pads would allocate too much, and weights of the
//! wrong shape would be read past their end. The rules are those of the ONNX operator pages Conv,
//! ConvTranspose, DeformConv, the pools, MaxUnpool, MaxRoiPool and RoiAlign.

use super::call::Call;
use super::operators::MAX_SIZE;
use super::scope::PartialShape;
use crate::invalid::{Invalid, Rule};

/// The attributes of a window, and the count of its spatial dimensions, if known.
struct Window {
    kernel: Option<Vec<i64>>,
    strides: Option<Vec<i64>>,
    dilations: Option<Vec<i64>>,
    pads: Option<Vec<i64>>,
    spatial: Option<usize>,
    pads_itself: bool,
}

impl Window {
    /// Reads the attributes. `ranks` are the known ranks of the operands, which must be equal and
    /// at least 3: batch, channels and a spatial dimension.
    fn read(call: &Call<'_, '_>, ranks: [Option<usize>; 2]) -> Result<Self, Invalid> {
        let kernel = call.ints_in("kernel_shape", 1..=MAX_SIZE)?;
        let strides = call.ints_in("strides", 1..=MAX_SIZE)?;
        let dilations = call.ints_in("dilations", 1..=MAX_SIZE)?;
        let pads = call.ints_in("pads", 0..=MAX_SIZE)?;
        let mut spatial = kernel.as_ref().map(Vec::len);
        for rank in ranks.into_iter().flatten() {
            let Some(dims) = rank.checked_sub(2).filter(|dims| *dims >= 1) else {
                return Err(call.invalid(Rule::Shape, format!("an operand has {rank} dimensions, expected at least 3")));
            };
            if spatial.is_some_and(|spatial| spatial != dims) {
                return Err(
                    call.invalid(Rule::Shape, "input, weights and kernel_shape differ in their spatial dimensions")
                );
            }
            spatial = Some(dims);
        }
        if spatial == Some(0) {
            return call.bad_attribute("kernel_shape", "is empty");
        }
        let pads_itself = match call.text("auto_pad")? {
            None | Some("" | "NOTSET") => false,
            Some("VALID") => false,
            Some("SAME_UPPER" | "SAME_LOWER") => true,
            Some(_) => return call.bad_attribute("auto_pad", "has an unknown value"),
        };
        if let Some(spatial) = spatial {
            call.must_have("strides", strides.as_ref(), spatial)?;
            call.must_have("dilations", dilations.as_ref(), spatial)?;
            call.must_have("pads", pads.as_ref(), 2 * spatial)?;
        }
        Ok(Self { kernel, strides, dilations, pads, spatial, pads_itself })
    }

    /// Checks that the window fits its padded input, as far as their sizes are known.
    fn check_fit(&self, call: &Call<'_, '_>, input: Option<&PartialShape>, kernel: &[u64]) -> Result<(), Invalid> {
        let Some(input) = input.filter(|_| !self.pads_itself) else {
            return Ok(());
        };
        let kernels = kernel.len();
        let rounds_up = call.int("ceil_mode")?.unwrap_or(0) != 0;
        for (i, (size, kernel)) in input.iter().skip(2).zip(kernel).enumerate() {
            let Some(size) = size else {
                continue;
            };
            let at = |values: &Option<Vec<i64>>, i: usize, default: u64| {
                values.as_ref().and_then(|values| values.get(i)).map_or(default, |value| value.unsigned_abs())
            };
            let extent = kernel.saturating_sub(1).saturating_mul(at(&self.dilations, i, 1)).saturating_add(1);
            let padded = size.saturating_add(at(&self.pads, i, 0)).saturating_add(at(&self.pads, i + kernels, 0));
            let slack = if rounds_up { at(&self.strides, i, 1) - 1 } else { 0 };
            if extent > padded.saturating_add(slack) {
                let what = format!("a window of {extent} does not fit an input of {size}, padded to {padded}");
                return Err(call.invalid(Rule::Shape, what));
            }
        }
        Ok(())
    }
}

/// Weights `[M, C / group, k...]`, bias `[M]`.
pub(super) fn convolution(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let (weights_at, bias_at) = if call.node.op_type == "QLinearConv" { (3, Some(8)) } else { (1, Some(2)) };
    let bias_at = bias_at.filter(|_| call.node.op_type != "ConvInteger");
    let (input, weights) = (call.shape(0), call.shape(weights_at));
    let window = Window::read(call, [input.as_ref().map(Vec::len), weights.as_ref().map(Vec::len)])?;
    let group = call.int_in("group", 1..=MAX_SIZE)?.unwrap_or(1).unsigned_abs();
    let Some(weights) = weights else {
        return Ok(());
    };
    let kernel = kernel(call, &window, &weights)?;
    let (out_channels, group_channels) = (dim(&weights, 0), dim(&weights, 1));
    divides(call, group, out_channels, "output channels")?;
    let channels = group_channels.and_then(|channels| channels.checked_mul(group));
    agree(call, channels, input.as_ref().and_then(|shape| dim(shape, 1)))?;
    bias(call, bias_at, out_channels)?;
    window.check_fit(call, input.as_ref(), &kernel)
}

/// Weights `[C, M / group, k...]`, bias `[M]`.
pub(super) fn transposed_convolution(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let (input, weights) = (call.shape(0), call.shape(1));
    let window = Window::read(call, [input.as_ref().map(Vec::len), weights.as_ref().map(Vec::len)])?;
    let group = call.int_in("group", 1..=MAX_SIZE)?.unwrap_or(1).unsigned_abs();
    let padding = call.ints_in("output_padding", 0..=MAX_SIZE)?;
    let sizes = call.ints_in("output_shape", 1..=i64::from(i32::MAX))?;
    if let Some(spatial) = window.spatial {
        call.must_have("output_padding", padding.as_ref(), spatial)?;
        // Exporters write `output_shape` with or without batch and channels.
        if sizes.as_ref().is_some_and(|sizes| sizes.len() != spatial && sizes.len() != spatial + 2) {
            return call.bad_attribute("output_shape", "does not match the spatial dimensions of the kernel");
        }
    }
    let Some(weights) = weights else {
        return Ok(());
    };
    kernel(call, &window, &weights)?;
    let channels = dim(&weights, 0);
    divides(call, group, channels, "input channels")?;
    agree(call, channels, input.as_ref().and_then(|shape| dim(shape, 1)))?;
    let out_channels = dim(&weights, 1).and_then(|channels| channels.checked_mul(group));
    bias(call, Some(2), out_channels)
}

/// DeformConv: weights `[M, C / group, k...]`, bias `[M]`. The offsets are not checked here.
pub(super) fn deformable_convolution(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let weights = call.shape(1);
    let window = Window::read(call, [call.shape(0).map(|shape| shape.len()), weights.as_ref().map(Vec::len)])?;
    let group = call.int_in("group", 1..=MAX_SIZE)?.unwrap_or(1).unsigned_abs();
    call.int_in("offset_group", 1..=MAX_SIZE)?;
    let Some(weights) = weights else {
        return Ok(());
    };
    kernel(call, &window, &weights)?;
    divides(call, group, dim(&weights, 0), "output channels")?;
    bias(call, Some(3), dim(&weights, 0))
}

/// MaxPool, AveragePool, LpPool and MaxUnpool.
pub(super) fn pool(call: &Call<'_, '_>) -> Result<(), Invalid> {
    if !call.has("kernel_shape") {
        return call.bad_attribute("kernel_shape", "is missing");
    }
    let input = call.shape(0);
    let window = Window::read(call, [input.as_ref().map(Vec::len), None])?;
    if call.node.op_type == "LpPool" {
        call.int_in("p", 1..=MAX_SIZE)?;
    }
    call.int_in("storage_order", 0..=1)?;
    let kernel: Vec<u64> = window.kernel.iter().flatten().map(|size| size.unsigned_abs()).collect();
    if call.node.op_type == "MaxUnpool" {
        return Ok(());
    }
    window.check_fit(call, input.as_ref(), &kernel)
}

/// MaxRoiPool and RoiAlign, which pool over regions of interest.
pub(super) fn regions(call: &Call<'_, '_>) -> Result<(), Invalid> {
    if call.node.op_type == "MaxRoiPool" {
        let sizes = call.ints_in("pooled_shape", 1..=MAX_SIZE)?;
        return call.must_have("pooled_shape", sizes.as_ref(), 2);
    }
    call.int_in("output_height", 1..=MAX_SIZE)?;
    call.int_in("output_width", 1..=MAX_SIZE)?;
    call.int_in("sampling_ratio", 0..=MAX_SIZE).map(drop)
}

/// Spatial sizes of the kernel, from the weights. They must be above zero and match
/// `kernel_shape`.
fn kernel(call: &Call<'_, '_>, window: &Window, weights: &PartialShape) -> Result<Vec<u64>, Invalid> {
    if weights.contains(&Some(0)) {
        return Err(call.invalid(Rule::Shape, "the weights have a dimension of zero"));
    }
    let declared = window.kernel.as_ref();
    let mut sizes = Vec::new();
    for (i, size) in weights.iter().skip(2).enumerate() {
        let declared = declared.and_then(|kernel| kernel.get(i)).map(|size| size.unsigned_abs());
        if let (Some(size), Some(declared)) = (size, declared)
            && *size != declared
        {
            return call.bad_attribute("kernel_shape", format!("contains {declared} where the weights have {size}"));
        }
        sizes.push(size.or(declared).unwrap_or(1));
    }
    Ok(sizes)
}

fn dim(shape: &PartialShape, index: usize) -> Option<u64> {
    shape.get(index).copied().flatten()
}

fn divides(call: &Call<'_, '_>, group: u64, channels: Option<u64>, what: &str) -> Result<(), Invalid> {
    match channels {
        Some(channels) if channels % group.max(1) != 0 => {
            call.bad_attribute("group", format!("is {group}, which does not divide {channels} {what}"))
        }
        _ => Ok(()),
    }
}

fn agree(call: &Call<'_, '_>, weights: Option<u64>, input: Option<u64>) -> Result<(), Invalid> {
    match (weights, input) {
        (Some(weights), Some(input)) if weights != input => {
            Err(call
                .invalid(Rule::Shape, format!("the weights are for {weights} input channels, the input has {input}")))
        }
        _ => Ok(()),
    }
}

fn bias(call: &Call<'_, '_>, index: Option<usize>, channels: Option<u64>) -> Result<(), Invalid> {
    let Some(shape) = index.and_then(|index| call.shape(index)) else {
        return Ok(());
    };
    match (&shape[..], channels) {
        ([None], _) | ([Some(_)], None) => Ok(()),
        ([Some(length)], Some(channels)) if *length == channels => Ok(()),
        ([Some(length)], Some(channels)) => {
            Err(call.invalid(Rule::Shape, format!("the bias has {length} entries for {channels} channels")))
        }
        _ => Err(call.invalid(Rule::Shape, "the bias must have one dimension")),
    }
}

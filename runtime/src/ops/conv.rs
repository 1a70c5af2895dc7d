//! Conv: two-dimensional convolution with its fused epilogue ([ONNX
//! Conv](https://onnx.ai/onnx/operators/onnx__Conv.html)).
//!
//! Operands: the images, the weights `[out, in / groups, rows, columns]`, the bias `[out]`, then, as selected by the
//! [roles](Roles), a residual of the result's shape, a squeeze-and-excite scale with one factor per image and input
//! channel, masks for the channels of images and result (`masked_conv`), and an affine map `[2, out]` of the result's
//! channels, `x * map[0] + map[1]`:
//!
//! ```text
//! affine(act(conv(x * scale, weights) + bias + residual))      residual before the activation
//! affine(act(conv(x * scale, weights) + bias)) + residual      residual after it
//! ```
//!
//! One-dimensional convolutions are lowered to images of one row.

use serde::{Deserialize, Serialize};
use skipstone_kernels::activation::{Activation, scalar::apply};
use skipstone_kernels::conv::{Conv as Operands, ConvShape, Filters, Images, Task};
use skipstone_kernels::epilogue::{Affine, Epilogue};

use super::float_conv::{self, Bound};
use super::image::{ImageDims, Layout, taps};
use super::masked;
use super::masked_conv;
use super::roles::{Role, Roles};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, How, Left, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// A convolution and what is fused into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Distance between neighboring windows, vertical and horizontal.
    pub stride: [usize; 2],
    /// Distance between neighboring taps, vertical and horizontal.
    pub dilation: [usize; 2],
    /// Zero padding above, left, below and right of the image.
    pub pads: [usize; 4],
    /// Channel groups.
    pub groups: usize,
    /// Order of the axes of images, residual and scale.
    pub layout: Layout,
    /// Applied to the result.
    pub activation: Activation,
    /// The roles of the operands after the bias.
    pub roles: Roles,
}

impl Conv {
    /// A 1x1 convolution on NCHW images, with nothing fused.
    pub const POINTWISE: Self = Self {
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [0; 4],
        groups: 1,
        layout: Layout::Nchw,
        activation: Activation::None,
        roles: Roles::NONE,
    };
    /// Position of the images among the operands.
    pub const X: usize = 0;
    /// Position of the weights.
    pub const WEIGHTS: usize = 1;
    /// Position of the bias.
    pub const BIAS: usize = 2;

    /// Whether every output pixel is computed from one input pixel.
    #[must_use]
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pads == [0; 4]
    }

    fn refuse(name: &'static str, reason: impl Into<String>) -> OpError {
        OpError::Attribute { name, reason: reason.into() }
    }

    /// Length of the result along an axis (0 rows, 1 columns).
    fn out_len(&self, axis: usize, len: usize) -> Result<usize, OpError> {
        let (kernel, stride, dilation) = (self.kernel[axis], self.stride[axis], self.dilation[axis]);
        if kernel == 0 || stride == 0 || dilation == 0 {
            return Err(Self::refuse("kernel_shape", "kernel, strides and dilations are at least 1"));
        }
        let too_large = || Self::refuse("pads", "the padded image is too large");
        let reach = (kernel - 1).checked_mul(dilation).ok_or_else(too_large)?;
        let padded = len.checked_add(self.pads[axis]).and_then(|l| l.checked_add(self.pads[axis + 2]));
        let padded = padded.filter(|&l| l < isize::MAX.unsigned_abs()).ok_or_else(too_large)?;
        Ok(padded.saturating_sub(reach).div_ceil(stride))
    }

    /// The result's dimensions, after checking every operand.
    fn check(&self, inputs: &[&Fact]) -> Result<ImageDims, OpError> {
        if !self.roles.is_sound() {
            return Err(Self::refuse("roles", "an operand of unknown role, or two residuals"));
        }
        if inputs.len() != self.roles.arity() {
            return Err(OpError::Arity { want: "3, and one for each role", got: inputs.len() });
        }
        let is_mask =
            |at: usize| [Role::MaskIn, Role::MaskOut].iter().any(|&role| self.roles.position(role) == Some(at));
        let others = inputs.iter().enumerate().filter(|&(at, _)| !is_mask(at));
        if let Some((index, fact)) = others.into_iter().find(|(_, f)| f.dtype != DType::F32) {
            return Err(OpError::Type { index, got: fact.dtype, want: "f32" });
        }
        let (x, weights, bias) = (inputs[Self::X], inputs[Self::WEIGHTS], inputs[Self::BIAS]);
        let image = ImageDims::new(self.layout, &x.shape)?;
        let &[filters, depth, rows, columns] = weights.shape.dims() else {
            return Err(OpError::shapes("weights have 4 dimensions", &[&weights.shape]));
        };
        if self.groups == 0 || !filters.is_multiple_of(self.groups) {
            return Err(Self::refuse("group", format!("{} groups do not divide {filters} filters", self.groups)));
        }
        if depth.checked_mul(self.groups) != Some(image.channels) || [rows, columns] != self.kernel {
            return Err(OpError::shapes("weights are [out, in / groups, rows, columns]", &[&x.shape, &weights.shape]));
        }
        if bias.shape.dims() != [filters] {
            return Err(OpError::shapes("one bias per filter", &[&weights.shape, &bias.shape]));
        }
        let out = ImageDims {
            channels: filters,
            height: self.out_len(0, image.height)?,
            width: self.out_len(1, image.width)?,
            ..image
        };
        if let Some(residual) = self.roles.residual().and_then(|at| inputs.get(at))
            && residual.shape != out.shape(self.layout)?
        {
            return Err(OpError::shapes("the residual has the result's shape", &[&residual.shape]));
        }
        if let Some(scale) = self.roles.position(Role::Scale).and_then(|at| inputs.get(at))
            && scale.shape != (ImageDims { height: 1, width: 1, ..image }).shape(self.layout)?
        {
            return Err(OpError::shapes("one factor per image and channel", &[&x.shape, &scale.shape]));
        }
        if let Some(affine) = self.roles.position(Role::Affine).and_then(|at| inputs.get(at))
            && affine.shape.dims() != [2, filters]
        {
            return Err(OpError::shapes("a factor and a summand per filter", &[&weights.shape, &affine.shape]));
        }
        if self.roles.are_masked() {
            if self.layout != Layout::Nhwc || self.groups != 1 || u32::try_from(image.channels.max(filters)).is_err() {
                return Err(Self::refuse("roles", "masks are for one group in NHWC"));
            }
            masked_conv::masks(self, inputs, out)?;
        }
        Ok(out)
    }

    /// For masked images: computes all channels and drops the inactive ones.
    fn evaluate_masked(&self, inputs: &[&Tensor], out: ImageDims) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let masks = masked_conv::masks(self, &facts, out)?;
        let of = |role| self.roles.position(role).and_then(|at| inputs.get(at).copied());
        let mut operands: Vec<Tensor> = inputs[..3].iter().map(|&t| t.clone()).collect();
        operands.extend(self.roles.residual().and_then(|at| inputs.get(at)).map(|&residual| residual.clone()));
        if let (Some(read), Some(mask)) = (masks[0], of(Role::MaskIn)) {
            operands[Self::X] = masked::moved(&operands[Self::X], mask, read, masked::spread)?;
        }
        let plain = Self { roles: self.roles.unmasked(), ..self.clone() };
        let (Some(read), Some(mask)) = (masks[1], of(Role::MaskOut)) else {
            return plain.evaluate(&operands.iter().collect::<Vec<_>>());
        };
        if let Some(residual) = operands.get_mut(3) {
            *residual = masked::moved(residual, mask, read, masked::spread)?;
        }
        let all = plain.evaluate(&operands.iter().collect::<Vec<_>>())?;
        Ok(vec![masked::moved(all.first().ok_or(OpError::Operand(0))?, mask, read, masked::gather)?])
    }

    /// The kernels' description of the geometry.
    pub(crate) fn shape(&self, inputs: &[&Fact]) -> Result<ConvShape, OpError> {
        let out = self.check(inputs)?;
        let image = ImageDims::new(self.layout, &inputs[Self::X].shape)?;
        let shape = ConvShape {
            batch: image.batch,
            in_h: image.height,
            in_w: image.width,
            in_c: image.channels,
            out_h: out.height,
            out_w: out.width,
            out_c: out.channels,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad_top: self.pads[0],
            pad_left: self.pads[1],
            groups: self.groups,
        };
        if !shape.is_sound() {
            return Err(Self::refuse("strides", "a stride, dilation, padding or length is too large"));
        }
        Ok(shape)
    }
}

impl Operator for Conv {
    fn name(&self) -> &str {
        "Conv"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let out = self.check(inputs)?;
        Ok(vec![Fact::new(DType::F32, out.shape(self.layout)?)])
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let ([_, weights, ..], [out]) = (inputs, outputs) else { return 0 };
        let per_result: usize = weights.shape.iter().skip(1).product();
        (out.shape.elements() as u64).saturating_mul(per_result as u64)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let shape = self.shape(&cx.inputs)?;
        if self.roles.are_masked() {
            return masked_conv::plan(cx, self, &shape);
        }
        let images = match self.layout {
            Layout::Nchw => Images::Nchw,
            Layout::Nhwc => Images::Nhwc,
        };
        let task = float_conv::task(cx, &shape, cx.is_constant(Self::WEIGHTS), |w| Filters::Oihw(w));
        let (scaled, affine) = (self.roles.has(Role::Scale), self.roles.has(Role::Affine));
        let task = Task { images, scaled, affine, ..task };
        float_conv::plan(cx, self, &task, |w| Filters::Oihw(w))
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let shape = self.shape(&cx.inputs)?;
        if self.roles.are_masked() {
            let out = self.check(&cx.inputs)?;
            return masked_conv::bind(cx, self, shape, out);
        }
        let bound = Bound::new(cx, &shape, |w| Filters::Oihw(w))?;
        let (activation, residual_first) = (self.activation, self.roles.has(Role::Residual));
        let (residual_at, scale_at) = (self.roles.residual(), self.roles.position(Role::Scale));
        let affine_at = self.roles.position(Role::Affine);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (packed, scratch) = bound.weights(io, &shape)?;
            let epilogue = Epilogue {
                bias: Some(io.input(Self::BIAS)?),
                activation,
                residual: residual_at.map(|at| io.input(at)).transpose()?,
                residual_first,
                affine: affine_at.map(|at| affine(io, at)).transpose()?,
            };
            let scale = scale_at.map(|at| io.input(at)).transpose()?;
            let (input, out) = (io.input(Self::X)?, io.output(0)?);
            let args = Operands { shape: &shape, input, packed, out, epilogue, scale };
            bound.kernel.run(args, scratch, io.pool());
            Ok(())
        }))
    }
}

/// The affine map in an operand.
pub(super) fn affine<'a>(io: &Io<'a, '_>, at: usize) -> Result<Affine<'a>, OpError> {
    let map: &[f32] = io.input(at)?;
    let (scale, shift) = map.split_at(map.len() / 2);
    Ok(Affine { scale, shift })
}

impl Semantics for Conv {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let out = self.check(&facts)?;
        if self.roles.are_masked() {
            return self.evaluate_masked(inputs, out);
        }
        let image = ImageDims::new(self.layout, &facts[Self::X].shape)?;
        let numbers = |at: usize| inputs.get(at).and_then(|t| t.elements::<f32>()).ok_or(OpError::Operand(at));
        let (x, weights, bias) = (numbers(Self::X)?, numbers(Self::WEIGHTS)?, numbers(Self::BIAS)?);
        let residual = self.roles.residual().map(numbers).transpose()?;
        let scale = self.roles.position(Role::Scale).map(numbers).transpose()?;
        let affine = self.roles.position(Role::Affine).map(numbers).transpose()?;
        let (depth, filters) = (image.channels / self.groups, out.channels / self.groups);
        let ([rows, columns], step) = (self.kernel, image.channel_step(self.layout));

        let mut tensor = Tensor::try_zeros(Fact::new(DType::F32, out.shape(self.layout)?))?;
        let y = tensor.elements_mut::<f32>().ok_or(OpError::Operand(0))?;
        for (index, [n, filter, oy, ox]) in out.positions(self.layout).enumerate() {
            let first = filter / filters * depth;
            let mut sum = 0.0f64;
            for (ky, iy) in taps(oy, self.stride[0], self.dilation[0], self.pads[0], rows, image.height) {
                for (kx, ix) in taps(ox, self.stride[1], self.dilation[1], self.pads[1], columns, image.width) {
                    let pixel = image.offset(self.layout, [n, first, iy, ix]);
                    let weight = (filter * depth * rows + ky) * columns + kx;
                    for c in 0..depth {
                        let mut value = x[pixel + c * step];
                        if let Some(scale) = scale {
                            value *= scale[n * image.channels + first + c];
                        }
                        sum += value as f64 * weights[weight + c * rows * columns] as f64;
                    }
                }
            }
            let sum = sum as f32 + bias[filter];
            let residual = residual.map_or(0.0, |r| r[index]);
            let affine = |x| affine.map_or(x, |map| x * map[filter] + map[out.channels + filter]);
            y[index] = match self.roles.has(Role::Residual) {
                true => affine(apply(self.activation, sum + residual)),
                false => affine(apply(self.activation, sum)) + residual,
            };
        }
        Ok(vec![tensor])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        if self.roles.are_masked() {
            return Axes::unknown();
        }
        let (batch, channels) = (0, self.layout.channels_axis());
        let weights = inputs.get(Self::WEIGHTS).map_or(&[][..], |weights| weights.shape.dims());
        let &[filters, depth, ..] = weights else { return Axes::unknown() };
        let mut links = vec![
            Link::same(Self::X, batch, batch),
            Link::same(Self::WEIGHTS, 0, channels),
            Link::same(Self::BIAS, 0, channels),
        ];
        if self.groups > 1 {
            let how = How::Parts { count: self.groups, inner: [depth, filters / self.groups] };
            links.push(Link { operand: Self::X, from: channels, to: channels, how });
        }
        links.extend(self.roles.position(Role::Scale).map(|at| Link::same(at, batch, batch)));
        links.extend(self.roles.position(Role::Affine).map(|at| Link::same(at, 1, channels)));
        if let Some(at) = self.roles.residual() {
            links.extend((0..4).map(|axis| Link::same(at, axis, axis)));
        }
        Axes::new(Elements::Mixed, links)
    }

    fn nhwc(&self) -> Nhwc {
        match self.layout {
            Layout::Nchw => Nhwc::Must,
            Layout::Nhwc => Nhwc::Never,
        }
    }

    fn turn_to_nhwc(&mut self) {
        self.layout = Layout::Nhwc;
    }

    fn narrow(&mut self, _from: Left<'_>, to: Left<'_>) {
        if to.axis == self.layout.channels_axis() && self.groups > 1 {
            self.groups = self.groups * to.indices.len() / to.of;
        }
    }
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::Isa;

    use super::*;
    use crate::ops::check::{Random, assert_close, check, planned, single};
    use crate::tensor::Shape;

    fn conv(kernel: [usize; 2]) -> Conv {
        Conv { kernel, layout: Layout::Nhwc, ..Conv::POINTWISE }
    }

    #[test]
    fn a_hand_computed_window() {
        let x = Tensor::from_slice(&[1, 1, 2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
        let w = Tensor::from_slice(&[1, 1, 2, 2], &[1f32, 10., 100., 1000.]).unwrap();
        let b = Tensor::from_slice(&[1], &[0.5f32]).unwrap();
        let op = Conv { layout: Layout::Nchw, pads: [0, 1, 0, 0], ..conv([2, 2]) };
        let y = op.evaluate(&[&x, &w, &b]).unwrap().remove(0);
        assert_eq!(y.elements::<f32>().unwrap(), [4010.5, 5421.5, 6532.5]);
    }

    #[test]
    fn bad_operands_are_errors() {
        let facts = |w: &[usize], b: usize| {
            [vec![1, 4, 4, 6], w.to_vec(), vec![b]].map(|d| Fact::new(DType::F32, Shape::new(&d).unwrap()))
        };
        let infer = |op: &Conv, f: &[Fact; 3]| op.infer(&f.each_ref());
        assert!(infer(&conv([3, 3]), &facts(&[8, 6, 3, 3], 8)).is_ok());
        assert!(infer(&conv([3, 3]), &facts(&[8, 6, 3, 3], 7)).is_err());
        assert!(infer(&conv([3, 3]), &facts(&[8, 5, 3, 3], 8)).is_err());
        assert!(infer(&conv([3, 2]), &facts(&[8, 6, 3, 3], 8)).is_err());
        assert!(infer(&Conv { groups: 0, ..conv([3, 3]) }, &facts(&[8, 6, 3, 3], 8)).is_err());
        assert!(infer(&Conv { stride: [0, 1], ..conv([3, 3]) }, &facts(&[8, 6, 3, 3], 8)).is_err());
        assert!(infer(&Conv { pads: [usize::MAX; 4], ..conv([3, 3]) }, &facts(&[8, 6, 3, 3], 8)).is_err());
        assert!(infer(&Conv { dilation: [usize::MAX; 2], ..conv([3, 3]) }, &facts(&[8, 6, 3, 3], 8)).is_err());
    }

    #[test]
    fn kernels_agree_with_the_definition() {
        let mut random = Random(7);
        for _ in 0..60 {
            let kernel = [random.pick(&[1, 2, 3]), random.pick(&[1, 3, 5])];
            let groups = random.pick(&[1, 1, 2, 3]);
            let roles = random.pick(&[Roles::NONE, Roles::NONE, Roles::NONE.with(Role::Scale)]);
            let roles = random.pick(&[roles, roles.with(Role::Residual), roles.with(Role::LateResidual)]);
            let roles = random.pick(&[roles, roles.with(Role::Affine)]);
            let op = Conv {
                stride: [random.pick(&[1, 2]), random.pick(&[1, 2, 3])],
                dilation: [random.pick(&[1, 2]), 1],
                pads: std::array::from_fn(|_| random.below(3)),
                groups,
                layout: random.pick(&[Layout::Nchw, Layout::Nhwc]),
                activation: random.pick(&[Activation::None, Activation::Relu, Activation::HardSwish, Activation::Silu]),
                roles,
                ..conv(kernel)
            };
            let (depth, filters) = (groups * random.pick(&[1, 3, 9]), groups * random.pick(&[1, 4, 17]));
            let image = ImageDims {
                batch: random.pick(&[1, 2]),
                channels: depth,
                height: 5 + random.below(8),
                width: 5 + random.below(8),
            };
            let inputs = operands(&mut random, &op, image, filters);
            check(op, &inputs, 1e-4);
        }
    }

    #[test]
    fn depthwise_and_square_kernels_agree_with_the_definition() {
        let mut random = Random(8);
        for _ in 0..40 {
            let k = random.pick(&[3, 5]);
            let channels = random.pick(&[1, 4, 8, 19, 32]);
            let groups = random.pick(&[1, channels]);
            let stride = random.pick(&[1, 2]);
            let op =
                Conv { stride: [stride; 2], pads: [k / 2; 4], groups, activation: Activation::Relu, ..conv([k, k]) };
            let image = ImageDims { batch: 1, channels, height: k + random.below(12), width: k + random.below(12) };
            let inputs = operands(&mut random, &op, image, channels);
            let graph = single(op, &inputs, &[Conv::WEIGHTS, Conv::BIAS]);
            let want = graph.evaluate(&inputs[..1]).unwrap();
            for isa in Isa::available() {
                let got = planned(&graph, isa, &inputs[..1]).unwrap();
                assert_close(&got[0], &want[0], 1e-3, "a convolution with constant weights");
            }
        }
    }

    /// Regression: a package could request a stride that made the kernels' own check abort the run.
    #[test]
    fn strides_and_dilations_beyond_the_kernels_range_are_errors() {
        let (far, image) = (1 << 31, ImageDims { batch: 1, channels: 2, height: 3, width: 3 });
        for op in [Conv { stride: [far, 1], ..conv([1, 1]) }, Conv { dilation: [1, far], ..conv([1, 1]) }] {
            let inputs = operands(&mut Random(2), &op, image, 2);
            assert!(planned(&single(op, &inputs, &[Conv::WEIGHTS]), Isa::detect(), &inputs[..1]).is_err());
        }
    }

    fn operands(random: &mut Random, op: &Conv, image: ImageDims, filters: usize) -> Vec<Tensor> {
        let [rows, columns] = op.kernel;
        let dims = |image: ImageDims| image.shape(op.layout).unwrap().to_vec();
        let (height, width) = (op.out_len(0, image.height).unwrap(), op.out_len(1, image.width).unwrap());
        let mut operands = vec![
            random.floats(&dims(image)),
            random.floats(&[filters, image.channels / op.groups, rows, columns]),
            random.floats(&[filters]),
        ];
        if op.roles.residual().is_some() {
            operands.push(random.floats(&dims(ImageDims { channels: filters, height, width, ..image })));
        }
        if op.roles.has(Role::Scale) {
            operands.push(random.floats(&dims(ImageDims { height: 1, width: 1, ..image })));
        }
        if op.roles.has(Role::Affine) {
            operands.push(random.floats(&[2, filters]));
        }
        operands
    }
}

//! Max and average pooling ([ONNX MaxPool](https://onnx.ai/onnx/operators/onnx__MaxPool.html),
//! [AveragePool](https://onnx.ai/onnx/operators/onnx__AveragePool.html)), one- and two-dimensional. The importer
//! computes the result's size, so that ceil and floor modes make no difference here.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pool::{PoolFn, PoolShape, pool};
use skipstone_kernels::qpool;

use super::arity::exactly;
use super::cast::Cast;
use super::image::{ImageDims, Layout};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, saturating_product};
use crate::tensor::{DType, Fact, Tensor};

/// A pooling with windows of equal size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// How the elements of a window are combined.
    pub function: PoolFn,
    /// Rows and columns of a window.
    pub kernel: [usize; 2],
    /// Stride: rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Dilation: rows and columns from one tap of a window to the next.
    pub dilation: [usize; 2],
    /// Padding above, left, below and right.
    pub pads: [usize; 4],
    /// Rows and columns of the result.
    pub out: [usize; 2],
    /// Order of the axes.
    pub layout: Layout,
}

impl Pool {
    /// Pooling over whole images.
    pub(crate) fn global(function: PoolFn, height: usize, width: usize) -> Self {
        let (kernel, one) = ([height.max(1), width.max(1)], [1, 1]);
        Self { function, kernel, stride: one, dilation: one, pads: [0; 4], out: one, layout: Layout::Nchw }
    }

    pub(crate) fn geometry(&self, x: &Fact) -> Result<PoolShape, OpError> {
        let bytes = matches!(x.dtype, DType::U8 | DType::I8) && self.function == PoolFn::Max;
        if x.dtype != DType::F32 && !bytes {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32, or the largest of u8 or i8" });
        }
        let ImageDims { batch, channels, height: in_h, width: in_w } = ImageDims::new(self.layout, &x.shape)?;
        let positive = |v: &[usize]| v.iter().all(|&v| v > 0);
        if !positive(&self.kernel) || !positive(&self.stride) || !positive(&self.dilation) {
            return Err(OpError::Attribute { name: "kernel_shape", reason: "sizes must not be 0".into() });
        }
        // Every window begins inside the image or its padding.
        let starts = |axis: usize, len: usize, before: usize, after: usize| {
            let last = self.out[axis].saturating_sub(1).checked_mul(self.stride[axis]);
            let room = len.checked_add(before).and_then(|l| l.checked_add(after));
            last.zip(room).is_some_and(|(last, room)| self.out[axis] == 0 || last < room)
        };
        let [top, left, bottom, right] = self.pads;
        if !starts(0, in_h, top, bottom) || !starts(1, in_w, left, right) {
            return Err(OpError::shapes("a window begins outside the padded image", &[&x.shape]));
        }
        Ok(PoolShape {
            batch,
            in_h,
            in_w,
            channels,
            out_h: self.out[0],
            out_w: self.out[1],
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad_top: top,
            pad_left: left,
            pad_bottom: bottom,
            pad_right: right,
        })
    }
}

impl Operator for Pool {
    fn name(&self) -> &str {
        match self.function {
            PoolFn::Max => "MaxPool",
            PoolFn::Average { .. } => "AveragePool",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let s = self.geometry(x)?;
        Ok(vec![Fact::new(
            x.dtype,
            ImageDims { batch: s.batch, channels: s.channels, height: s.out_h, width: s.out_w }.shape(self.layout)?,
        )])
    }

    fn work(&self, _inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let [rows, columns] = self.kernel;
        outputs.first().map_or(0, |y| saturating_product(&[rows, columns, y.shape.elements()]))
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        if self.layout != Layout::Nhwc {
            return Err(OpError::Attribute {
                name: "layout",
                reason: "kernels take NHWC, the layout pass was left out".into(),
            });
        }
        match cx.inputs.first().map(|x| x.dtype) {
            Some(DType::I8) => {
                Err(OpError::Type { index: 0, got: DType::I8, want: "u8; the pass for quantized models was left out" })
            }
            Some(DType::U8) => Ok(Choice { kernel: format!("qpool_u8_{}", cx.isa), ..Choice::default() }),
            _ => Ok(Choice { kernel: format!("pool_f32_{}", cx.isa), ..Choice::default() }),
        }
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (shape, function, isa) = (self.geometry(x)?, self.function, cx.isa);
        if x.dtype == DType::U8 {
            return Ok(Box::new(move |io: &mut Io<'_, '_>| {
                qpool::largest(isa, &shape, io.input(0)?, io.output(0)?, io.pool());
                Ok(())
            }));
        }
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            pool(isa, function, &shape, io.input(0)?, io.output(0)?, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for Pool {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let s = self.geometry(x.fact())?;
        let from = ImageDims { batch: s.batch, channels: s.channels, height: s.in_h, width: s.in_w };
        let to = ImageDims { height: s.out_h, width: s.out_w, ..from };
        let mut result = Tensor::try_zeros(self.infer(&[x.fact()])?.remove(0))?;
        if x.dtype() != DType::F32 {
            // The bytes have the same order as the floats that they represent.
            let to = |to: DType, x: &Tensor| Cast { to }.evaluate(&[x]).map(|mut results| results.remove(0));
            return Ok(vec![to(x.dtype(), &self.evaluate(&[&to(DType::F32, x)?])?.remove(0))?]);
        }
        let x = x.elements::<f32>().ok_or(OpError::Operand(0))?;
        let y = result.elements_mut::<f32>().ok_or(OpError::Operand(0))?;
        for (index, [n, c, row, col]) in to.positions(self.layout).enumerate() {
            let (mut largest, mut sum, mut inside, mut counted) = (f32::NEG_INFINITY, 0.0f64, 0usize, 0usize);
            for ky in 0..s.kernel[0] {
                for kx in 0..s.kernel[1] {
                    let at_y = row * s.stride[0] + ky * s.dilation[0];
                    let at_x = col * s.stride[1] + kx * s.dilation[1];
                    if at_y < s.in_h + s.pad_top + s.pad_bottom && at_x < s.in_w + s.pad_left + s.pad_right {
                        counted += 1;
                    }
                    let (Some(in_y), Some(in_x)) = (at_y.checked_sub(s.pad_top), at_x.checked_sub(s.pad_left)) else {
                        continue;
                    };
                    if in_y < s.in_h && in_x < s.in_w {
                        let value = x[from.offset(self.layout, [n, c, in_y, in_x])];
                        largest = if value > largest || value.is_nan() { value } else { largest };
                        sum += f64::from(value);
                        inside += 1;
                    }
                }
            }
            y[index] = match self.function {
                PoolFn::Max => largest,
                // The mean over no elements, in a window of only padding.
                PoolFn::Average { count_padding: false } if inside == 0 => 0.0,
                PoolFn::Average { count_padding } => (sum / if count_padding { counted } else { inside } as f64) as f32,
            };
        }
        Ok(vec![result])
    }

    fn axes(&self, _inputs: &[&Fact]) -> Axes {
        let channels = self.layout.channels_axis();
        Axes::new(Elements::Mixed, [0, channels].map(|axis| Link::same(0, axis, axis)))
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn pools_agree_with_the_definition() {
        let mut random = Random(9);
        for _ in 0..40 {
            let kernel = [random.pick(&[1, 2, 3, 5]), random.pick(&[1, 2, 3])];
            let pads: [usize; 4] = std::array::from_fn(|i| random.below(kernel[i % 2]));
            let stride = [random.pick(&[1, 2]), random.pick(&[1, 2, 3])];
            let (h, w) = (kernel[0] + random.below(9), kernel[1] + random.below(9));
            let out = [
                (h + pads[0] + pads[2] - kernel[0]) / stride[0] + 1,
                (w + pads[1] + pads[3] - kernel[1]) / stride[1] + 1,
            ];
            let function = random.pick(&[
                PoolFn::Max,
                PoolFn::Average { count_padding: true },
                PoolFn::Average { count_padding: false },
            ]);
            let channels = random.pick(&[1, 3, 8, 17]);
            let x = random.floats(&[2, channels, h, w]);
            check(Pool { function, kernel, stride, dilation: [1, 1], pads, out, layout: Layout::Nchw }, &[x], 1e-5);
        }
    }
}

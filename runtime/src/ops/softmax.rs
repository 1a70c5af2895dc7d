//! Softmax and its logarithm along some axes
//! ([ONNX Softmax](https://onnx.ai/onnx/operators/onnx__Softmax.html), LogSoftmax).

pub use skipstone_kernels::softmax::SoftmaxFn as SoftmaxKind;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::pace::Pace;
use skipstone_kernels::softmax;

use super::arity::exactly;
use super::image::NHWC_AXIS;
use crate::error::{OpError, list};
use crate::operator::axes::{Axes, Elements, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Softmax of f32 or f64 over adjacent axes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softmax {
    /// The axes, ascending and without gaps: usually one; before opset 13 all from some axis on.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub axes: Vec<usize>,
    /// Probabilities or their logarithms.
    pub kind: SoftmaxKind,
}

impl Softmax {
    fn range(&self, shape: &Shape) -> Result<Range<usize>, OpError> {
        let together = self.axes.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        match (self.axes.first(), self.axes.last()) {
            (Some(&first), Some(&last)) if together && last < shape.rank() => Ok(first..last + 1),
            _ => Err(OpError::Attribute { name: "axes", reason: format!("{} of {shape}", list(&self.axes)) }),
        }
    }

    fn view(&self, x: &Fact) -> Result<MiddleAxis, OpError> {
        MiddleAxis::new(&x.shape, self.range(&x.shape)?).ok_or_else(|| OpError::TooLarge(x.shape.to_string()))
    }
}

/// The plain loop, computed in f64.
fn plain<T: Copy + Into<f64>>(
    kind: SoftmaxKind,
    MiddleAxis { axis, inner, .. }: MiddleAxis,
    x: &[T],
    y: &mut [T],
    rounded: fn(f64) -> T,
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let plane = (axis * inner).max(1);
    for (x, y) in x.chunks_exact(plane).zip(y.chunks_exact_mut(plane)) {
        for column in 0..inner {
            // Two exponentials of each element.
            pace.spend(32 * axis)?;
            let along = || x.iter().skip(column).step_by(inner).map(|&v| v.into());
            let largest = along().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = along().map(|v| (v - largest).exp()).sum();
            for (y, v) in y.iter_mut().skip(column).step_by(inner).zip(along()) {
                *y = rounded(match kind {
                    SoftmaxKind::Softmax => (v - largest).exp() / sum,
                    SoftmaxKind::LogSoftmax => v - largest - sum.ln(),
                });
            }
        }
    }
    Ok(())
}

impl Operator for Softmax {
    fn name(&self) -> &str {
        match self.kind {
            SoftmaxKind::Softmax => "Softmax",
            SoftmaxKind::LogSoftmax => "LogSoftmax",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if !matches!(x.dtype, DType::F32 | DType::F64) {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32 or f64" });
        }
        self.range(&x.shape)?;
        Ok(vec![(*x).clone()])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let kernel = match x.dtype {
            DType::F64 => "softmax_f64".to_owned(),
            _ => format!("softmax_f32_{}", cx.isa),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (view, kind, isa) = (self.view(x)?, self.kind, cx.isa);
        if x.dtype == DType::F64 {
            return Ok(Box::new(move |io: &mut Io<'_, '_>| {
                let pace = io.pace();
                plain(kind, view, io.input::<f64>(0)?, io.output::<f64>(0)?, |v| v, &pace)
            }));
        }
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            softmax::softmax(isa, kind, view, io.input(0)?, io.output(0)?, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for Softmax {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let (view, wrong) = (self.view(x.fact())?, OpError::Type { index: 0, got: x.dtype(), want: "f32 or f64" });
        let (mut result, pace) = (Tensor::try_zeros(x.fact().clone())?, Pace::free());
        if let (Some(x), Some(y)) = (x.elements::<f32>(), result.elements_mut::<f32>()) {
            plain(self.kind, view, x, y, |v| v as f32, &pace)?;
        } else if let (Some(x), Some(y)) = (x.elements::<f64>(), result.elements_mut::<f64>()) {
            plain(self.kind, view, x, y, |v| v, &pace)?;
        } else {
            return Err(wrong);
        }
        Ok(vec![result])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::except(Elements::Mixed, inputs, &self.axes)
    }

    fn nhwc(&self) -> Nhwc {
        match self.axes.as_slice() {
            [0..4] => Nhwc::Can,
            _ => Nhwc::Never,
        }
    }

    fn turn_to_nhwc(&mut self) {
        self.axes.iter_mut().for_each(|axis| *axis = NHWC_AXIS[*axis]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn every_run_of_axes_agrees() {
        let mut random = Random(17);
        for kind in [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax] {
            for axes in [vec![0], vec![1], vec![2], vec![1, 2], vec![0, 1, 2]] {
                for _ in 0..3 {
                    let dims = random.dims(3).iter().map(|&d| d.min(17)).collect::<Vec<_>>();
                    check(Softmax { axes: axes.clone(), kind }, &[random.floats(&dims)], 3e-6);
                }
            }
        }
    }

    #[test]
    fn probabilities_sum_to_one_and_axes_are_checked() {
        let x = Random(18).floats(&[2, 10]);
        let y = check(Softmax { axes: vec![1], kind: SoftmaxKind::Softmax }, std::slice::from_ref(&x), 3e-6);
        for row in y[0].elements::<f32>().unwrap().chunks(10) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        for axes in [vec![], vec![2], vec![1, 0]] {
            assert!(Softmax { axes, kind: SoftmaxKind::Softmax }.infer(&[x.fact()]).is_err());
        }
    }
}

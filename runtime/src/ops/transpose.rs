//! Transpose: permutes the axes ([ONNX Transpose](https://onnx.ai/onnx/operators/onnx__Transpose.html)), and converts
//! explicitly between NCHW and NHWC.
//!
//! If only axes of length 1 change places, memory stays the same and the plan has no step for it.

use serde::{Deserialize, Serialize};
use skipstone_kernels::transpose::{Permutation, transpose};

use super::arity::exactly;
use super::walk::Walk;
use crate::error::{OpError, list};
use crate::operator::axes::{Axes, Elements, Link};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{Fact, MAX_RANK, Shape, Tensor};

/// Axis `i` of the result is axis `axes[i]` of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transpose {
    /// A permutation of the axes.
    pub axes: heapless::Vec<usize, MAX_RANK>,
}

impl Transpose {
    /// The permutation `axes`; `None` above the rank limit.
    #[must_use]
    pub fn new(axes: &[usize]) -> Option<Self> {
        heapless::Vec::from_slice(axes).ok().map(|axes| Self { axes })
    }

    /// From `[N, C, H, W]` to `[N, H, W, C]`.
    #[must_use]
    pub fn to_nhwc() -> Self {
        Self { axes: [0, 2, 3, 1].into_iter().collect() }
    }

    /// From `[N, H, W, C]` to `[N, C, H, W]`.
    #[must_use]
    pub fn to_nchw() -> Self {
        Self { axes: [0, 3, 1, 2].into_iter().collect() }
    }

    /// The dimensions in their new order.
    ///
    /// # Errors
    /// [`OpError::Attribute`] if the axes are not a permutation of the shape's.
    pub fn shape(&self, from: &Shape) -> Result<Shape, OpError> {
        let mut seen = [false; MAX_RANK];
        let valid = self.axes.len() == from.rank()
            && self.axes.iter().all(|&a| a < from.rank() && !std::mem::replace(&mut seen[a], true));
        if !valid {
            return Err(OpError::Attribute { name: "perm", reason: format!("{} of {from}", list(&self.axes)) });
        }
        Shape::new(&self.axes.iter().map(|&a| from[a]).collect::<heapless::Vec<usize, MAX_RANK>>())
    }
}

impl Operator for Transpose {
    fn name(&self) -> &str {
        "Transpose"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        Ok(vec![Fact::new(x.dtype, self.shape(&x.shape)?)])
    }

    fn alias(&self, inputs: &[&Fact]) -> Option<usize> {
        let shape = &inputs.first()?.shape;
        let moved = self.axes.iter().filter(|&&a| shape.get(a).is_some_and(|&d| d != 1));
        moved.is_sorted().then_some(0)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: format!("transpose_{}", cx.isa), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let refused = |e| OpError::Attribute { name: "perm", reason: format!("{e}") };
        let permutation = Permutation::new(&x.shape, &self.axes).map_err(refused)?;
        let (isa, size) = (cx.isa, x.dtype.size());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            transpose(isa, size, &permutation, io.input_bytes(0)?, io.output_bytes(0)?, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for Transpose {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let shape = self.shape(x.shape())?;
        let from = x.shape().strides();
        let strides = self.axes.iter().map(|&a| from[a]).collect();
        let size = x.dtype().size();
        let mut bytes = reserve::empty(x.bytes().len())?;
        Walk::new(&shape, [strides]).each(|[at]| bytes.extend_from_slice(&x.bytes()[at * size..(at + 1) * size]));
        Ok(vec![Tensor::from_bytes(Fact::new(x.dtype(), shape), &bytes)?])
    }

    fn axes(&self, _inputs: &[&Fact]) -> Axes {
        Axes::new(Elements::Moved, self.axes.iter().enumerate().map(|(to, &from)| Link::same(0, from, to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};
    use crate::tensor::DType;

    #[test]
    fn transposes_agree_with_the_definition() {
        let mut random = Random(3);
        for axes in [&[0usize, 2, 3, 1][..], &[0, 3, 1, 2], &[1, 0], &[2, 0, 1], &[3, 2, 1, 0]] {
            for dtype in [DType::F32, DType::U8, DType::I64] {
                let dims = random.dims(axes.len());
                let x = random.tensor(dtype, &dims);
                check(Transpose::new(axes).unwrap(), &[x], 0.0);
            }
        }
    }

    #[test]
    fn moving_an_axis_of_one_is_free() {
        let fact = |dims: &[usize]| Fact::new(DType::F32, Shape::new(dims).unwrap());
        assert_eq!(Transpose::to_nhwc().alias(&[&fact(&[1, 960, 1, 1])]), Some(0));
        assert_eq!(Transpose::to_nhwc().alias(&[&fact(&[1, 3, 2, 2])]), None);
    }
}

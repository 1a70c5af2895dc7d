//! Expand: repeats a tensor along axes of length 1 ([ONNX Expand](https://onnx.ai/onnx/operators/onnx__Expand.html)).
//! Tile: repeats it along any axis ([ONNX Tile](https://onnx.ai/onnx/operators/onnx__Tile.html)).

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::number::{by_width, filled, words};
use super::strided::{BoxCopy, signed};
use super::walk::{Walk, broadcast_strides};
use crate::error::{OpError, list};
use crate::operator::axes::{Axes, Elements, Left, Link};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A tensor broadcast to a fixed shape by NumPy's rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expand {
    /// Dimensions of the result.
    pub shape: Shape,
}

/// A tensor repeated whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tile {
    /// How many times, for every axis.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub repeats: Vec<usize>,
}

impl Operator for Expand {
    fn name(&self) -> &str {
        "Expand"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if Shape::broadcast(&[&x.shape, &self.shape])? != self.shape {
            return Err(OpError::shapes("the input must broadcast to the target", &[&x.shape, &self.shape]));
        }
        Ok(vec![Fact::new(x.dtype, self.shape.clone())])
    }

    fn alias(&self, inputs: &[&Fact]) -> Option<usize> {
        inputs.first().is_some_and(|x| x.shape.elements() == self.shape.elements()).then_some(0)
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "copy_strided".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let from = broadcast_strides(&x.shape, &self.shape);
        let mut copy = BoxCopy::new(0, 0);
        for ((&dim, &from), &to) in self.shape.iter().zip(&from).zip(&self.shape.strides()) {
            copy.push(dim, signed(from), signed(to))?;
        }
        let size = x.dtype.size();
        Ok(Box::new(move |io: &mut Io<'_, '_>| copy.run(size, io.input_bytes(0)?, io.output_bytes(0)?, &io.pace())))
    }
}

impl Semantics for Expand {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let walk = Walk::broadcast(&self.shape, [x.shape()]);
        let y = by_width!(fact.dtype, T => filled::<T>(fact, |y| {
            let (x, mut results) = (words::<T>(x)?, y.iter_mut());
            walk.try_each(&Pace::free(), |[i]| {
                *results.next().ok_or(OpError::Operand(0))? = *x.get(i).ok_or(OpError::Operand(0))?;
                Ok(())
            })
        }))?;
        Ok(vec![y])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let target = Fact::new(DType::F32, self.shape.clone());
        let Axes { links, .. } = Axes::elementwise(&[&target, inputs.first().copied().unwrap_or(&target)]);
        let own = links.into_iter().filter(|link| link.operand == 1).map(|link| Link { operand: 0, ..link });
        Axes::new(Elements::Moved, own)
    }

    fn narrow(&mut self, _from: Left<'_>, to: Left<'_>) {
        if let Some(shape) = to.shape(&self.shape) {
            self.shape = shape;
        }
    }
}

impl Operator for Tile {
    fn name(&self) -> &str {
        "Tile"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if self.repeats.len() != x.shape.rank() {
            let reason = format!("{} axes of {}", self.repeats.len(), x.shape);
            return Err(OpError::Attribute { name: "repeats", reason });
        }
        let dims = x.shape.iter().zip(&self.repeats).map(|(&dim, &times)| dim.checked_mul(times));
        let dims: Option<Vec<usize>> = dims.collect();
        let dims = dims.ok_or_else(|| OpError::TooLarge(format!("{} times {}", x.shape, list(&self.repeats))))?;
        Ok(vec![Fact::new(x.dtype, Shape::new(&dims)?)])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "copy_strided".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let [y] = exactly::<1, _>(&cx.outputs)?;
        let (from, to) = (x.shape.strides(), y.shape.strides());
        let mut copy = BoxCopy::new(0, 0);
        for (axis, &times) in self.repeats.iter().enumerate() {
            let dim = x.shape[axis];
            copy.push(times, 0, signed(to[axis] * dim))?;
            copy.push(dim, signed(from[axis]), signed(to[axis]))?;
        }
        let size = x.dtype.size();
        Ok(Box::new(move |io: &mut Io<'_, '_>| copy.run(size, io.input_bytes(0)?, io.output_bytes(0)?, &io.pace())))
    }
}

impl Semantics for Tile {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let (to, from) = (fact.shape.clone(), x.shape().strides());
        let to_strides = to.strides();
        let y = by_width!(fact.dtype, T => filled::<T>(fact, |y| {
            let words = words::<T>(x)?;
            for (i, y) in y.iter_mut().enumerate() {
                let at = (0..to.rank()).map(|axis| i / to_strides[axis] % x.shape()[axis] * from[axis]).sum::<usize>();
                *y = *words.get(at).ok_or(OpError::Operand(0))?;
            }
            Ok(())
        }))?;
        Ok(vec![y])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let repeated: Vec<usize> = (0..self.repeats.len()).filter(|&axis| self.repeats[axis] != 1).collect();
        Axes::except(Elements::Moved, inputs, &repeated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};
    use crate::tensor::DType;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    #[test]
    fn expansion_agrees_for_every_width() {
        let mut random = Random(12);
        for dtype in [DType::F32, DType::F16, DType::I64, DType::Bool] {
            for (from, to) in [(vec![3, 1], vec![2, 3, 4]), (vec![1, 1, 5], vec![7, 3, 5]), (vec![], vec![2, 2])] {
                check(Expand { shape: shape(&to) }, &[random.tensor(dtype, &from)], 0.0);
            }
        }
        let x = random.floats(&[4]);
        assert!(Expand { shape: shape(&[3]) }.infer(&[x.fact()]).is_err());
        assert!(Expand { shape: shape(&[1]) }.infer(&[x.fact()]).is_err());
    }

    #[test]
    fn tile_repeats_the_whole_tensor() {
        let x = Tensor::from_slice(&[2], &[1i32, 2]).unwrap();
        let y = check(Tile { repeats: vec![3] }, std::slice::from_ref(&x), 0.0);
        assert_eq!(y[0].elements::<i32>(), Some(&[1, 2, 1, 2, 1, 2][..]));
        let mut random = Random(13);
        for dtype in [DType::F32, DType::U8] {
            check(Tile { repeats: vec![2, 1, 3] }, &[random.tensor(dtype, &[3, 2, 5])], 0.0);
            check(Tile { repeats: vec![0, 1, 3] }, &[random.tensor(dtype, &[3, 2, 5])], 0.0);
        }
        assert!(Tile { repeats: vec![usize::MAX] }.infer(&[x.fact()]).is_err());
    }
}

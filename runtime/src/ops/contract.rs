//! Contract: the product of two tensors, summed over the axes that are not in the result ([ONNX
//! Einsum](https://onnx.ai/onnx/operators/onnx__Einsum.html)), for cases that the matrix kernels do not support:
//! integers and f64, and axes that occur twice in one operand, which selects its diagonal.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::walk::{Strides, Walk};
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::{OpError, list};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, elements_of};
use crate::reserve;
use crate::tensor::{DType, Fact, MAX_RANK, Shape, Tensor};

/// `y[...] = sum of a[...] * b[...]`, where axes with the same label have the same index. An axis of length 1 is
/// broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// The label of every axis of the first operand.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub a: Vec<u8>,
    /// The label of every axis of the second operand.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub b: Vec<u8>,
    /// The label of every axis of the result, each once.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub y: Vec<u8>,
}

/// The two nested loops: over the results and, for each, over the summed terms.
struct Walks {
    outer: Walk<2>,
    inner: Walk<2>,
    dims: Vec<usize>,
    /// Number of terms per result.
    terms: usize,
}

impl Contract {
    fn walks(&self, a: &Shape, b: &Shape) -> Result<Walks, OpError> {
        let wrong = |rule| OpError::shapes(rule, &[a, b]);
        if self.a.len() != a.rank() || self.b.len() != b.rank() || self.y.len() > MAX_RANK {
            return Err(wrong("every axis needs a label, also in the result"));
        }
        let mut inner: Vec<u8> = Vec::new();
        for label in self.a.iter().chain(&self.b) {
            if !self.y.contains(label) && !inner.contains(label) {
                inner.push(*label);
            }
        }
        let twice = (0..self.y.len()).any(|at| self.y[..at].contains(&self.y[at]));
        if twice || inner.len() > MAX_RANK {
            return Err(wrong("the result must have every label once, and only few labels are summed over"));
        }
        let axes = || self.a.iter().zip(a.iter()).chain(self.b.iter().zip(b.iter()));
        let length = |label: u8| -> Result<usize, OpError> {
            let mut lengths = axes().filter(|&(other, _)| *other == label).map(|(_, &dim)| dim);
            let mut joint = lengths.next().ok_or_else(|| wrong("every label of the result must be in an operand"))?;
            for dim in lengths {
                if joint != dim && joint != 1 && dim != 1 {
                    return Err(wrong("axes with the same label must have the same length"));
                }
                joint = if joint == 1 { dim } else { joint };
            }
            Ok(joint)
        };
        // When a label's index increases, all of an operand's axes with that label advance.
        let strides = |labels: &[u8], held: &[u8], shape: &Shape| -> Strides {
            let dense = shape.strides();
            let axes = |label| (0..held.len()).filter(move |&axis| held[axis] == label && shape[axis] != 1);
            labels.iter().map(|&label| axes(label).map(|axis| dense[axis]).sum()).collect()
        };
        let walk = |labels: &[u8]| -> Result<(Walk<2>, Vec<usize>), OpError> {
            let dims = labels.iter().map(|&label| length(label)).collect::<Result<Vec<_>, _>>()?;
            Ok((Walk::new(&dims, [strides(labels, &self.a, a), strides(labels, &self.b, b)]), dims))
        };
        let ((outer, dims), (inner, summed)) = (walk(&self.y)?, walk(&inner)?);
        let terms = summed.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim));
        Ok(Walks { outer, inner, dims, terms: terms.ok_or_else(|| OpError::TooLarge(list(&summed)))? })
    }
}

/// The plain loop over elements of type `dtype`, computed in `W`.
fn multiply<W: Wide>(
    dtype: DType,
    walks: &Walks,
    [a, b]: [&[u8]; 2],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let (mut left, mut right) = ([W::ZERO; CHUNK], [W::ZERO; CHUNK]);
    let mut results = y.chunks_exact_mut(dtype.size());
    walks.outer.try_each(pace, |[i, j]| {
        // Out of range for an operand without elements, which then reads nothing.
        let a = a.get(i * dtype.size()..).unwrap_or_default();
        let b = b.get(j * dtype.size()..).unwrap_or_default();
        let mut sum = W::ZERO;
        walks.inner.try_chunks(pace, &mut |[i, j]| {
            W::load(dtype, a, i, &mut left)?;
            W::load(dtype, b, j, &mut right)?;
            for (&a, &b) in left[..i.len()].iter().zip(&right) {
                sum = sum.add(a.mul(b));
            }
            Ok(())
        })?;
        W::store(dtype, &[sum], results.next().ok_or(OpError::Operand(0))?)?;
        Ok(())
    })
}

fn multiply_any(
    dtype: DType,
    walks: &Walks,
    operands: [&[u8]; 2],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    by_wide!(dtype, W => multiply::<W>(dtype, walks, operands, y, pace), else Err(not_a_number()))
}

fn not_a_number() -> OpError {
    OpError::Type { index: 0, got: DType::Bool, want: "a number" }
}

impl Operator for Contract {
    fn name(&self) -> &str {
        "Contract"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [a, b] = exactly::<2, _>(inputs)?;
        if a.dtype != b.dtype {
            return Err(OpError::Type { index: 1, got: b.dtype, want: "the type of the first input" });
        }
        if a.dtype == DType::Bool {
            return Err(not_a_number());
        }
        Ok(vec![Fact::new(a.dtype, Shape::new(&self.walks(&a.shape, &b.shape)?.dims)?)])
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let (&[a, b], &[y]) = (inputs, outputs) else { return 0 };
        let terms = self.walks(&a.shape, &b.shape).map_or(0, |walks| walks.terms);
        (terms as u64).saturating_mul(y.shape.elements() as u64)
    }

    /// A plain loop over the terms of each result.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.macs(inputs, outputs).saturating_mul(4).saturating_add(elements_of(outputs).saturating_mul(32))
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [a, _] = exactly::<2, _>(&cx.inputs)?;
        Ok(Choice { kernel: format!("contract_{}", a.dtype), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [a, b] = exactly::<2, _>(&cx.inputs)?;
        let (dtype, walks) = (a.dtype, self.walks(&a.shape, &b.shape)?);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let operands = [io.input_bytes(0)?, io.input_bytes(1)?];
            multiply_any(dtype, &walks, operands, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for Contract {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [a, b] = exactly::<2, _>(inputs)?;
        let fact = self.infer(&[a.fact(), b.fact()])?.remove(0);
        let dtype = fact.dtype;
        Ok(vec![Tensor::written(fact, |y| {
            multiply_any(dtype, &self.walks(a.shape(), b.shape())?, [a.bytes(), b.bytes()], y, &Pace::free())
        })?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    fn contract(a: &[u8], b: &[u8], y: &[u8]) -> Contract {
        Contract { a: a.to_vec(), b: b.to_vec(), y: y.to_vec() }
    }

    #[test]
    fn known_results() {
        let a = Tensor::from_slice(&[2, 2], &[1i64, 2, 3, 4]).unwrap();
        let b = Tensor::from_slice(&[2, 2], &[5i64, 6, 7, 8]).unwrap();
        let one = Tensor::scalar(1i64);
        let of = |op: Contract, operands: &[Tensor]| check(op, operands, 0.0)[0].elements::<i64>().unwrap().to_vec();
        assert_eq!(of(contract(&[0, 1], &[1, 2], &[0, 2]), &[a.clone(), b.clone()]), [19, 22, 43, 50]);
        assert_eq!(of(contract(&[0, 1], &[0, 1], &[]), &[a.clone(), b]), [70]);
        assert_eq!(of(contract(&[0, 0], &[], &[0]), &[a.clone(), one.clone()]), [1, 4]);
        assert_eq!(of(contract(&[0, 0], &[], &[]), &[a.clone(), one.clone()]), [5]);
        assert_eq!(of(contract(&[0, 1], &[], &[1, 0]), &[a, one]), [1, 3, 2, 4]);
    }

    #[test]
    fn every_type_and_axes_of_length_zero() {
        let mut random = Random(81);
        for dtype in [DType::F32, DType::F64, DType::F16, DType::I32, DType::I8, DType::U8] {
            for depth in [0, 1, 3, 300] {
                let (a, b) = (random.tensor(dtype, &[2, depth]), random.tensor(dtype, &[depth, 3]));
                check(contract(&[0, 1], &[1, 2], &[0, 2]), &[a, b], 0.0);
            }
        }
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let mut random = Random(82);
        let (a, b) = (random.floats(&[2, 3]), random.floats(&[3, 2]));
        for (of_a, of_b, of_y) in [
            ([0, 1], [0, 2], vec![1]),
            ([0, 1], [1, 2], vec![3]),
            ([0, 1], [1, 2], vec![0, 0]),
            ([0, 1], [1, 0], vec![2]),
        ] {
            assert!(contract(&of_a, &of_b, &of_y).infer(&[a.fact(), b.fact()]).is_err(), "{of_a:?},{of_b:?}->{of_y:?}");
        }
        assert!(contract(&[0], &[1, 2], &[0]).infer(&[a.fact(), b.fact()]).is_err());
    }
}

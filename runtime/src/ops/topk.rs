//! TopK: the largest or smallest elements along an axis, and their indices ([ONNX
//! TopK](https://onnx.ai/onnx/operators/onnx__TopK.html)). Best first; of equal elements the one with the lower index;
//! NaN counts as the largest.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::number::Number;
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, elements_of};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor, elements};

/// The `k` best along an axis: values, and indices as i64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopK {
    /// The axis.
    pub axis: usize,
    /// The number of elements.
    pub k: usize,
    /// The largest, rather than the smallest.
    pub largest: bool,
}

fn order<T: Number>(a: T, b: T) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Elements from which a sort can be stopped: fewer are sorted within a millisecond or two.
const LONG: usize = 1 << 15;

/// Sorts the `k` best of all indices to the front. Not generic: a sort for every element type would be a tenth of a
/// small library.
pub(crate) fn rank(
    ranked: &mut [u64],
    k: usize,
    best_first: &dyn Fn(u64, u64) -> Ordering,
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    if k < ranked.len() || ranked.len() > LONG {
        return select(ranked, k, best_first, pace);
    }
    pace.spend(16 * ranked.len())?;
    for (i, index) in ranked.iter_mut().enumerate() {
        *index = i as u64;
    }
    ranked.sort_unstable_by(|a, b| best_first(*a, *b));
    Ok(())
}

/// Like `rank`, by a heap of the best with the worst of them on top: of many, few are among the best, and unlike a sort it
/// can stop.
fn select(
    ranked: &mut [u64],
    k: usize,
    best_first: &dyn Fn(u64, u64) -> Ordering,
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let count = ranked.len() as u64;
    let heap = &mut ranked[..k];
    // Moves the index at a place down until none below it is worse.
    let sink = |heap: &mut [u64], mut at: usize| -> Result<(), OpError> {
        pace.spend(16 * heap.len().max(1).ilog2() as usize)?;
        loop {
            let mut worst = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < heap.len() && best_first(heap[child], heap[worst]).is_gt() {
                    worst = child;
                }
            }
            if worst == at {
                return Ok(());
            }
            heap.swap(at, worst);
            at = worst;
        }
    };
    for (index, place) in (0..).zip(&mut *heap) {
        *place = index;
    }
    for at in (0..k / 2).rev() {
        sink(heap, at)?;
    }
    for index in k as u64..count {
        pace.spend(8)?;
        if best_first(index, heap[0]).is_lt() {
            heap[0] = index;
            sink(heap, 0)?;
        }
    }
    for end in (1..k).rev() {
        heap.swap(0, end);
        sink(&mut heap[..end], 0)?;
    }
    Ok(())
}

impl TopK {
    /// `at` reads an element in a type that preserves the order; values are copied as bytes. `scratch` has room for one
    /// index per element of the axis.
    fn search<T: Number>(
        &self,
        (shape, size): (&Shape, usize),
        (x, at): (&[u8], &dyn Fn(usize) -> Result<T, OpError>),
        (values, indices): (&mut [u8], &mut [i64]),
        scratch: &mut [u64],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        let (axis, k) = (shape[self.axis], self.k);
        let inner: usize = shape[self.axis + 1..].iter().product();
        let ranked = scratch.get_mut(..axis).ok_or(OpError::Operand(0))?;
        if k == 0 || inner == 0 {
            return Ok(());
        }
        let planes = values.chunks_exact_mut(k * inner * size).zip(indices.chunks_exact_mut(k * inner));
        for (plane, (values, indices)) in planes.enumerate() {
            for column in 0..inner {
                let place_of = |index: u64| plane * axis * inner + index as usize * inner + column;
                let value = |index: u64| at(place_of(index)).unwrap_or(T::ZERO);
                let best_first = |a: u64, b: u64| {
                    let by_value = order(value(a), value(b));
                    let by_value = if self.largest { by_value.reverse() } else { by_value };
                    by_value.then(a.cmp(&b))
                };
                rank(ranked, k, &best_first, pace)?;
                for (place, &index) in ranked[..k].iter().enumerate() {
                    pace.spend(8)?;
                    let from = place_of(index) * size;
                    let to = (place * inner + column) * size;
                    let bytes = x.get(from..from + size).ok_or(OpError::Operand(0))?;
                    values.get_mut(to..to + size).ok_or(OpError::Operand(0))?.copy_from_slice(bytes);
                    indices[place * inner + column] = index as i64;
                }
            }
        }
        Ok(())
    }

    /// The search for elements of any type: f32 directly, others in a wide type.
    fn search_all(
        &self,
        x: &Fact,
        bytes: &[u8],
        results: (&mut [u8], &mut [i64]),
        scratch: &mut [u64],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        let shape = (&x.shape, x.dtype.size());
        if x.dtype == DType::F32 {
            let floats: &[f32] = elements(bytes).ok_or(OpError::Operand(0))?;
            let at = |index: usize| floats.get(index).copied().ok_or(OpError::Operand(0));
            return self.search::<f32>(shape, (bytes, &at), results, scratch, pace);
        }
        by_wide!(x.dtype, T => {
            let at = |index: usize| {
                let mut read = [T::ZERO; CHUNK];
                T::load(x.dtype, bytes, &[index], &mut read)?;
                Ok(read[0])
            };
            self.search::<T>(shape, (bytes, &at), results, scratch, pace)
        }, else Err(OpError::Operand(0)))
    }
}

impl Operator for TopK {
    fn name(&self) -> &str {
        "TopK"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if x.dtype == DType::Bool {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "a number" });
        }
        let mut dims = x.shape.to_vec();
        match dims.get_mut(self.axis) {
            Some(dim) if self.k <= *dim => *dim = self.k,
            _ => {
                let reason = format!("{} of axis {} of {}", self.k, self.axis, x.shape);
                return Err(OpError::Attribute { name: "k", reason });
            }
        }
        let shape = Shape::new(&dims)?;
        Ok(vec![Fact::new(x.dtype, shape.clone()), Fact::new(DType::I64, shape)])
    }

    /// A selection along the axis, and a sort of the best.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let levels = u64::from(self.k.max(1).ilog2()) + 1;
        let (all, best) = (elements_of(inputs), elements_of(outputs));
        all.saturating_mul(8).saturating_add(best.saturating_mul(4 * levels))
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let axis = x.shape.get(self.axis).copied().unwrap_or(0);
        let scratch = axis.checked_mul(size_of::<u64>()).ok_or_else(|| OpError::TooLarge(x.shape.to_string()))?;
        Ok(Choice { kernel: format!("topk_{}", x.dtype), scratch, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (this, fact) = (*self, (*x).clone());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (indices, scratch) = (io.output(1)?, io.scratch()?);
            this.search_all(&fact, io.input_bytes(0)?, (io.output_bytes(0)?, indices), scratch, &io.pace())
        }))
    }
}

impl Semantics for TopK {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let facts = self.infer(&[x.fact()])?;
        let mut scratch = reserve::copies(0, x.shape()[self.axis])?;
        let [values_fact, indices_fact] = exactly::<2, _>(&facts)?.clone();
        let mut indices = Tensor::try_zeros(indices_fact)?;
        let positions = indices.elements_mut().ok_or(OpError::Operand(1))?;
        let values = Tensor::written(values_fact, |values| {
            self.search_all(x.fact(), x.bytes(), (values, positions), &mut scratch, &Pace::free())
        });
        Ok(vec![values?, indices])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn top_k_agrees_on_every_axis() {
        let mut random = Random(21);
        for axis in 0..3 {
            for dtype in [DType::F32, DType::F16, DType::I64, DType::U8] {
                for k in [0, 1, 3, 5] {
                    for largest in [true, false] {
                        check(TopK { axis, k, largest }, &[random.tensor(dtype, &[5, 7, 6])], 0.0);
                    }
                }
            }
        }
    }

    #[test]
    fn results_are_sorted_and_ties_ordered_by_index() {
        let x = Tensor::from_slice(&[6], &[2f32, 7.0, f32::NAN, 7.0, -1.0, 3.0]).unwrap();
        let indices = |k, largest| {
            check(TopK { axis: 0, k, largest }, std::slice::from_ref(&x), 0.0)[1].elements::<i64>().unwrap().to_vec()
        };
        assert_eq!(indices(4, true), [2, 1, 3, 5]);
        assert_eq!(indices(6, false), [4, 0, 5, 1, 3, 2]);
        assert!(TopK { axis: 0, k: 7, largest: true }.infer(&[x.fact()]).is_err());
    }
}

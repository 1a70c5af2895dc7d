//! Suppress: the best boxes of every image and class, without those that overlap a better one too much ([ONNX
//! NonMaxSuppression](https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html)). Of equal scores the box with the
//! lower index is the better one, as in ONNX Runtime. How many boxes are selected is the second result.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::number::words;
use super::topk::rank;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Non-maximum suppression. Inputs: boxes `[images, count, 4]` and scores `[images, classes, count]` in f32; the largest
/// number of boxes for each class (one i64); the share of overlap above which a box is left out (one f32); if
/// `threshold`, the score that a box must exceed (one f32). Results: rows `(image, class, box)` of i64, `[images *
/// classes * most, 3]`, with zeros after the last, and their number, an i64 of rank 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppress {
    /// Boxes are a center and sizes `(x, y, width, height)`, rather than two corners `(y, x, y, x)`.
    pub centers: bool,
    /// Most boxes for each class, whatever the operand says; at most `count`.
    pub most: usize,
    /// Whether there is a score that boxes must exceed.
    pub threshold: bool,
}

/// Images, classes, and boxes of each image.
struct Sizes {
    images: usize,
    classes: usize,
    count: usize,
}

/// The operands that are numbers.
struct Limits {
    most: usize,
    share: f32,
    least: Option<f32>,
}

/// A box by its ends along both axes.
pub(crate) struct Ends {
    first: [f32; 2],
    last: [f32; 2],
}

impl Ends {
    /// Of a box of four numbers, a center and sizes or two corners.
    pub(crate) fn new(centers: bool, numbers: &[f32]) -> Self {
        let &[a, b, c, d] = numbers else { return Self { first: [0.0; 2], last: [0.0; 2] } };
        if centers {
            return Self { first: [a - c / 2.0, b - d / 2.0], last: [a + c / 2.0, b + d / 2.0] };
        }
        Self { first: [a.min(c), b.min(d)], last: [a.max(c), b.max(d)] }
    }

    fn area(&self) -> f32 {
        (self.last[0] - self.first[0]) * (self.last[1] - self.first[1])
    }

    /// Whether the intersection with another box is more than a share of their union.
    pub(crate) fn overlaps(&self, other: &Self, share: f32) -> bool {
        let side = |axis: usize| self.last[axis].min(other.last[axis]) - self.first[axis].max(other.first[axis]);
        let (width, height) = (side(0), side(1));
        let areas = [self.area(), other.area()];
        if width <= 0.0 || height <= 0.0 || areas.iter().any(|&area| area <= 0.0) {
            return false;
        }
        let both = width * height;
        both / (areas[0] + areas[1] - both) > share
    }
}

impl Suppress {
    fn sizes(&self, inputs: &[&Fact]) -> Result<Sizes, OpError> {
        let want = if self.threshold { 5 } else { 4 };
        if inputs.len() != want {
            return Err(OpError::Arity { want: if self.threshold { "5" } else { "4" }, got: inputs.len() });
        }
        for (index, fact) in inputs.iter().enumerate() {
            let dtype = if index == 2 { DType::I64 } else { DType::F32 };
            if fact.dtype != dtype {
                return Err(OpError::Type { index, got: fact.dtype, want: dtype.name() });
            }
            if index > 1 && fact.shape.elements() != 1 {
                return Err(OpError::shapes("a limit is one number", &[&fact.shape]));
            }
        }
        match (inputs[0].shape.dims(), inputs[1].shape.dims()) {
            (&[images, count, 4], &[of, classes, scored]) if (images, count) == (of, scored) && self.most <= count => {
                Ok(Sizes { images, classes, count })
            }
            _ => Err(OpError::shapes(
                "there must be boxes of 4 numbers and, for each class, a score for every box",
                &[&inputs[0].shape, &inputs[1].shape],
            )),
        }
    }

    /// Writes the selected rows; `scratch` has room for twice as many indices as an image has boxes.
    fn select(
        &self,
        Sizes { images, classes, count }: Sizes,
        (boxes, scores): (&[f32], &[f32]),
        limits: &Limits,
        (rows, number): (&mut [i64], &mut [i64]),
        scratch: &mut [u64],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        let most = limits.most.min(self.most);
        let (order, kept) = scratch.split_at_mut_checked(count).ok_or(OpError::Operand(0))?;
        let ends = |image: usize, at: u64| {
            let first = (image * count + at as usize) * 4;
            Ends::new(self.centers, boxes.get(first..first + 4).unwrap_or_default())
        };
        let mut selected = 0;
        for (image, class) in (0..images).flat_map(|image| (0..classes).map(move |class| (image, class))) {
            let first = (image * classes + class) * count;
            let scores = scores.get(first..first + count).ok_or(OpError::Operand(1))?;
            let score = |at: u64| scores.get(at as usize).copied().unwrap_or(0.0);
            let best_first =
                |a: u64, b: u64| score(b).partial_cmp(&score(a)).unwrap_or(Ordering::Equal).then(a.cmp(&b));
            rank(order, count, &best_first, pace)?;
            let mut found = 0;
            for &at in order.iter() {
                if found >= most {
                    break;
                }
                if limits.least.is_some_and(|least| score(at) <= least || score(at).is_nan()) {
                    continue;
                }
                let candidate = ends(image, at);
                let better = kept.get(..found).ok_or(OpError::Operand(0))?;
                pace.spend(16 * (found + 1))?;
                if better.iter().any(|&better| candidate.overlaps(&ends(image, better), limits.share)) {
                    continue;
                }
                *kept.get_mut(found).ok_or(OpError::Operand(0))? = at;
                found += 1;
                let row = rows.get_mut(3 * selected..3 * selected + 3).ok_or(OpError::Operand(0))?;
                row.copy_from_slice(&[image as i64, class as i64, at as i64]);
                selected += 1;
            }
        }
        for rest in rows.get_mut(3 * selected..).ok_or(OpError::Operand(0))?.chunks_mut(1 << 12) {
            pace.spend(rest.len())?;
            rest.fill(0);
        }
        *number.first_mut().ok_or(OpError::Operand(1))? = selected as i64;
        Ok(())
    }
}

/// The operands that are numbers: a negative number of boxes is none, and a share must be in 0 to 1.
fn limits(most: &[i64], share: &[f32], least: Option<&[f32]>) -> Result<Limits, OpError> {
    let (&[most], &[share]) = (most, share) else { return Err(OpError::Operand(2)) };
    if !(0.0..=1.0).contains(&share) {
        return Err(OpError::Value(format!("the threshold of overlap is {share}, but must be in 0..=1")));
    }
    let least = least.map(|least| least.first().copied().ok_or(OpError::Operand(4))).transpose()?;
    Ok(Limits { most: usize::try_from(most).unwrap_or(0), share, least })
}

fn scratch_len(count: usize) -> Result<usize, OpError> {
    count.checked_mul(2).ok_or_else(|| OpError::TooLarge(format!("{count} boxes")))
}

impl Operator for Suppress {
    fn name(&self) -> &str {
        "Suppress"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let Sizes { images, classes, .. } = self.sizes(inputs)?;
        let rows = images.checked_mul(classes).and_then(|rows| rows.checked_mul(self.most));
        let rows = rows.ok_or_else(|| OpError::TooLarge("the selected boxes".into()))?;
        Ok(vec![Fact::new(DType::I64, Shape::new(&[rows, 3])?), Fact::new(DType::I64, Shape::default())])
    }

    /// A sort for each class, and each box compared with those that were selected.
    fn work(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        let boxes = inputs.get(1).map_or(0, |scores| scores.shape.elements() as u64);
        boxes.saturating_mul(4 * self.most as u64 + 64)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let count = self.sizes(&cx.inputs)?.count;
        let scratch = scratch_len(count)?.checked_mul(size_of::<u64>());
        let scratch = scratch.ok_or_else(|| OpError::TooLarge(format!("{count} boxes")))?;
        Ok(Choice { kernel: "suppress".into(), scratch, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let this = *self;
        let Sizes { images, classes, count } = self.sizes(&cx.inputs)?;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let least = if this.threshold { Some(io.input(4)?) } else { None };
            let limits = limits(io.input(2)?, io.input(3)?, least)?;
            let (results, scratch) = ((io.output(0)?, io.output(1)?), io.scratch()?);
            let sizes = Sizes { images, classes, count };
            this.select(sizes, (io.input(0)?, io.input(1)?), &limits, results, scratch, &io.pace())
        }))
    }
}

impl Semantics for Suppress {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = reserve::list(inputs.iter().map(|tensor| tensor.fact()))?;
        let [rows, number] = <[Fact; 2]>::try_from(self.infer(&facts)?).map_err(|_| OpError::Operand(0))?;
        let sizes = self.sizes(&facts)?;
        let least = if self.threshold { Some(words(inputs[4])?) } else { None };
        let limits = limits(words(inputs[2])?, words(inputs[3])?, least)?;
        let mut scratch = reserve::copies(0, scratch_len(sizes.count)?)?;
        let (mut rows, mut number) = (Tensor::try_zeros(rows)?, Tensor::try_zeros(number)?);
        let results =
            (rows.elements_mut().ok_or(OpError::Operand(0))?, number.elements_mut().ok_or(OpError::Operand(1))?);
        let given = (words(inputs[0])?, words(inputs[1])?);
        self.select(sizes, given, &limits, results, &mut scratch, &Pace::free())?;
        Ok(vec![rows, number])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    const CORNERS: [f32; 16] = [0.0, 0.0, 1.0, 1.0, 1.1, 1.0, 0.1, 0.0, 0.0, 10.0, 1.0, 11.0, 0.0, 20.0, 1.0, 21.0];
    const CENTERS: [f32; 16] = [0.5, 0.5, 1.0, 1.0, 0.6, 0.5, 1.0, 1.0, 0.5, 10.5, 1.0, 1.0, 0.5, 20.5, 1.0, 1.0];

    fn selected(op: Suppress, boxes: &[f32], most: i64) -> Vec<i64> {
        let inputs = [
            Tensor::from_slice(&[1, 4, 4], boxes).unwrap(),
            Tensor::from_slice(&[1, 2, 4], &[0.5, 0.9, 0.3, 0.1, 0.9, 0.5, 0.95, 0.2f32]).unwrap(),
            Tensor::from_slice(&[1], &[most]).unwrap(),
            Tensor::scalar(0.5f32),
            Tensor::from_slice(&[1], &[0.25f32]).unwrap(),
        ];
        let y = check(op, &inputs, 0.0);
        let count = y[1].elements::<i64>().unwrap()[0] as usize;
        let rows = y[0].elements::<i64>().unwrap();
        assert!(rows[3 * count..].iter().all(|&at| at == 0));
        rows[..3 * count].to_vec()
    }

    #[test]
    fn boxes_that_overlap_a_better_one_are_left_out() {
        for (centers, boxes) in [(false, CORNERS), (true, CENTERS)] {
            let op = |most| Suppress { centers, most, threshold: true };
            assert_eq!(selected(op(4), &boxes, 9), [0, 0, 1, 0, 0, 2, 0, 1, 2, 0, 1, 0]);
            assert_eq!(selected(op(4), &boxes, 1), [0, 0, 1, 0, 1, 2]);
            assert_eq!(selected(op(1), &boxes, 9), [0, 0, 1, 0, 1, 2]);
            assert_eq!(selected(op(4), &boxes, 0), [0; 0]);
            assert_eq!(selected(op(4), &boxes, -3), [0; 0]);
        }
    }

    #[test]
    fn equal_scores_are_in_order() {
        let boxes: Vec<f32> = (0..5).flat_map(|at| [0.0, 2.0 * at as f32, 1.0, 2.0 * at as f32 + 1.0]).collect();
        let inputs = [
            Tensor::from_slice(&[1, 5, 4], &boxes).unwrap(),
            Tensor::from_slice(&[1, 1, 5], &[1.0f32; 5]).unwrap(),
            Tensor::scalar(3i64),
            Tensor::scalar(0.0f32),
        ];
        let y = check(Suppress { centers: false, most: 5, threshold: false }, &inputs, 0.0);
        assert_eq!(y[0].elements::<i64>().unwrap()[..9], [0, 0, 0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(y[1].elements::<i64>(), Some(&[3][..]));
    }

    #[test]
    fn random_boxes_agree() {
        let mut random = Random(9);
        for (images, classes, count) in [(1, 1, 1), (2, 3, 17), (1, 2, 0), (3, 1, 33)] {
            let inputs = [
                random.floats(&[images, count, 4]),
                random.floats(&[images, classes, count]),
                Tensor::scalar(7i64),
                Tensor::scalar(0.3f32),
                Tensor::scalar(-1.0f32),
            ];
            check(Suppress { centers: false, most: count, threshold: true }, &inputs, 0.0);
        }
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        for share in [-0.1f32, 1.5, f32::NAN] {
            let inputs = [
                Tensor::zeros(Fact::new(DType::F32, Shape::new(&[1, 2, 4]).unwrap())),
                Tensor::zeros(Fact::new(DType::F32, Shape::new(&[1, 1, 2]).unwrap())),
                Tensor::scalar(7i64),
                Tensor::scalar(share),
            ];
            check_fails(Suppress { centers: false, most: 2, threshold: false }, &inputs);
        }
    }
}

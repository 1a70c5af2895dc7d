//! Pooling that the image kernels do not support: 3-D, with indices of the largest elements, and Lp pooling ([ONNX
//! MaxPool](https://onnx.ai/onnx/operators/onnx__MaxPool.html), AveragePool, LpPool).
//!
//! Rows and images are volumes of depth 1, or depth and height 1. The importer computes the result's size, so that ceil
//! and floor modes make no difference here. One plain loop serves as evaluation and as kernel.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, saturating_product};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// How the elements of a window are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Of {
    /// The largest element.
    Max,
    /// The largest element, and as a second result, i64, the index of its first occurrence in the whole input; with
    /// `columns_first`, as if the last axis of a volume were its outermost (`storage_order`).
    MaxIndex {
        /// `storage_order` 1.
        columns_first: bool,
    },
    /// The mean of the elements; padding counts as zeros if `count_padding` is set.
    Average {
        /// `count_include_pad`
        count_padding: bool,
    },
    /// The p-th root of the sum of the p-th powers of the absolute elements.
    Lp(i32),
}

/// A pooling of `[batch, channels, depth, height, width]`, f32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowPool {
    /// How the elements of a window are combined.
    pub of: Of,
    /// Taps along each axis.
    pub kernel: [usize; 3],
    /// Distance between neighboring windows.
    pub stride: [usize; 3],
    /// Distance between neighboring taps.
    pub dilation: [usize; 3],
    /// Padding before the volume.
    pub before: [usize; 3],
    /// Padding after it, which an average may count.
    pub behind: [usize; 3],
    /// Depth, height and width of the result.
    pub out: [usize; 3],
}

/// Taps of a line of a window that are read at once.
const LINE: usize = 1 << 12;

impl WindowPool {
    fn sizes(&self, x: &Fact) -> Result<[usize; 5], OpError> {
        if x.dtype != DType::F32 {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32" });
        }
        let &[batch, channels, depth, height, width] = x.shape.dims() else {
            return Err(OpError::shapes("a batch of volumes has 5 dimensions", &[&x.shape]));
        };
        let refuse = |reason| Err(OpError::Attribute { name: "kernel_shape", reason: String::from(reason) });
        if [self.kernel, self.stride, self.dilation].iter().flatten().any(|&size| size == 0) {
            return refuse("sizes must not be 0");
        }
        if matches!(self.of, Of::Lp(p) if p < 1) {
            return Err(OpError::Attribute { name: "p", reason: "must be at least 1".into() });
        }
        for axis in 0..3 {
            let sum = |a: usize, b: usize| a.checked_add(b).filter(|&sum| sum < isize::MAX.unsigned_abs());
            let padded = sum(self.before[axis], self.behind[axis]).and_then(|pads| sum(pads, x.shape[axis + 2]));
            let last = self.out[axis].saturating_sub(1).checked_mul(self.stride[axis]);
            let reach = self.kernel[axis].checked_mul(self.dilation[axis]);
            let far = last.zip(reach).and_then(|(last, reach)| sum(last, reach));
            let (Some(padded), Some(last), Some(_)) = (padded, last, far) else {
                return refuse("strides, dilations or pads are too large");
            };
            // Every window begins inside the volume or its padding; its taps are not many more than those elements.
            if self.out[axis] > 0 && (last >= padded || self.kernel[axis] > padded.saturating_mul(2)) {
                return Err(OpError::shapes("a window begins outside the padded volume", &[&x.shape]));
            }
        }
        Ok([batch, channels, depth, height, width])
    }

    /// The taps of a window along an axis that are inside, and the count of those including padding.
    fn taps(&self, axis: usize, at: usize, len: usize) -> (impl ExactSizeIterator<Item = usize> + Clone, usize) {
        let (start, step, before) = (at * self.stride[axis], self.dilation[axis], self.before[axis]);
        let end = len + before + self.behind[axis];
        // The first tap at or after `from`.
        let first = |from: usize| from.saturating_sub(start).div_ceil(step).min(self.kernel[axis]);
        let inside = first(before)..first(before + len);
        (inside.map(move |tap| start + tap * step - before), first(end))
    }

    fn run(
        &self,
        sizes: [usize; 5],
        x: &[f32],
        y: &mut [f32],
        mut indices: Option<&mut [i64]>,
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        let [_, _, depth, height, width] = sizes;
        let (volume, windows) = (depth * height * width, self.out.iter().product::<usize>());
        if y.is_empty() {
            return Ok(());
        }
        // A power takes long.
        let of_tap = if matches!(self.of, Of::Lp(_)) { 32 } else { 8 };
        for (index, result) in y.iter_mut().enumerate() {
            let (plane, window) = (index / windows, index % windows);
            let x = &x[plane * volume..(plane + 1) * volume];
            let [_, rows, columns] = self.out;
            let (planes, counted_d) = self.taps(0, window / columns / rows, depth);
            let (lines, counted_h) = self.taps(1, window / columns % rows, height);
            let (pixels, counted_w) = self.taps(2, window % columns, width);
            let (mut largest, mut at, mut sum, mut count) = (f32::NEG_INFINITY, None, 0f64, 0usize);
            for (d, h) in planes.flat_map(|d| lines.clone().map(move |h| (d, h))) {
                pace.spend(8)?;
                let mut left = pixels.clone();
                while left.len() > 0 {
                    let some = left.len().min(LINE);
                    pace.spend(of_tap * some)?;
                    for w in left.by_ref().take(some) {
                        let value = x[(d * height + h) * width + w];
                        if at.is_none() || value > largest || (value.is_nan() && !largest.is_nan()) {
                            (largest, at) = (value, Some([d, h, w]));
                        }
                        sum += match self.of {
                            Of::Lp(1) => f64::from(value.abs()),
                            Of::Lp(2) => f64::from(value) * f64::from(value),
                            Of::Lp(p) => f64::from(value.abs()).powi(p),
                            _ => f64::from(value),
                        };
                        count += 1;
                    }
                }
            }
            pace.spend(64)?;
            *result = match self.of {
                Of::Max | Of::MaxIndex { .. } => largest,
                Of::Average { count_padding: true } => (sum / (counted_d * counted_h * counted_w) as f64) as f32,
                Of::Average { count_padding: false } => (sum / count as f64) as f32,
                Of::Lp(1) => sum as f32,
                Of::Lp(2) => sum.sqrt() as f32,
                Of::Lp(p) => sum.powf(f64::from(p).recip()) as f32,
            };
            if let (Some(indices), Of::MaxIndex { columns_first }) = (indices.as_deref_mut(), self.of) {
                let [d, h, w] = at.unwrap_or([0; 3]);
                let inner = match columns_first {
                    false => (d * height + h) * width + w,
                    true => (w * height + h) * depth + d,
                };
                indices[index] = (plane * volume + inner) as i64;
            }
        }
        Ok(())
    }
}

impl Operator for WindowPool {
    fn name(&self) -> &str {
        match self.of {
            Of::Max | Of::MaxIndex { .. } => "MaxPool",
            Of::Average { .. } => "AveragePool",
            Of::Lp(_) => "LpPool",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let [batch, channels, ..] = self.sizes(x)?;
        let [depth, height, width] = self.out;
        let shape = Shape::new(&[batch, channels, depth, height, width])?;
        let indices = matches!(self.of, Of::MaxIndex { .. }).then(|| Fact::new(DType::I64, shape.clone()));
        Ok([Fact::new(DType::F32, shape)].into_iter().chain(indices).collect())
    }

    /// Taps are read one by one, and a power costs as much as many of them.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let ([x], [y, ..]) = (inputs, outputs) else { return 0 };
        let inside = |axis: usize| self.kernel[axis].min(x.shape.get(axis + 2).copied().unwrap_or(0)).max(1);
        let of_tap = if matches!(self.of, Of::Lp(_)) { 16 } else { 4 };
        saturating_product(&[of_tap, y.shape.elements(), inside(0), inside(1), inside(2)])
    }

    fn plan(&self, _: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "window_pool_f32".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (op, sizes) = (self.clone(), self.sizes(x)?);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let indices = if let Of::MaxIndex { .. } = op.of { Some(io.output(1)?) } else { None };
            op.run(sizes, io.input(0)?, io.output(0)?, indices, &io.pace())
        }))
    }
}

impl Semantics for WindowPool {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let sizes = self.sizes(x.fact())?;
        let facts = self.infer(&[x.fact()])?;
        let mut results = facts.into_iter().map(Tensor::try_zeros).collect::<Result<Vec<_>, _>>()?;
        let (y, indices) = results.split_at_mut(1);
        let y = y.first_mut().and_then(Tensor::elements_mut).ok_or(OpError::Operand(0))?;
        let indices = indices.first_mut().and_then(Tensor::elements_mut);
        self.run(sizes, x.elements().ok_or(OpError::Operand(0))?, y, indices, &Pace::free())?;
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    fn plain(of: Of, kernel: [usize; 3], out: [usize; 3]) -> WindowPool {
        let (one, zero) = ([1; 3], [0; 3]);
        WindowPool { of, kernel, stride: one, dilation: one, before: zero, behind: zero, out }
    }

    /// Every window by its definition: all taps, one after the other.
    fn by_hand(op: &WindowPool, x: &Tensor) -> Vec<f64> {
        let (dims, elements) = (x.shape().dims(), x.elements::<f32>().unwrap());
        let mut results = Vec::new();
        let grid = |size: [usize; 3]| {
            (0..size[0]).flat_map(move |a| (0..size[1]).flat_map(move |b| (0..size[2]).map(move |c| [a, b, c])))
        };
        for plane in 0..dims[0] * dims[1] {
            for at in grid(op.out) {
                let (mut held, mut counted) = (Vec::new(), 0u32);
                for tap in grid(op.kernel) {
                    let moved: [usize; 3] = std::array::from_fn(|i| at[i] * op.stride[i] + tap[i] * op.dilation[i]);
                    counted += u32::from((0..3).all(|i| moved[i] < dims[i + 2] + op.before[i] + op.behind[i]));
                    if (0..3).all(|i| (op.before[i]..op.before[i] + dims[i + 2]).contains(&moved[i])) {
                        let [d, h, w] = std::array::from_fn(|i| moved[i] - op.before[i]);
                        held.push(f64::from(elements[((plane * dims[2] + d) * dims[3] + h) * dims[4] + w]));
                    }
                }
                results.push(match op.of {
                    Of::Max | Of::MaxIndex { .. } => held.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    Of::Average { count_padding: true } => held.iter().sum::<f64>() / f64::from(counted),
                    Of::Average { count_padding: false } => held.iter().sum::<f64>() / held.len() as f64,
                    Of::Lp(p) => held.iter().map(|v| v.abs().powi(p)).sum::<f64>().powf(1.0 / f64::from(p)),
                });
            }
        }
        results
    }

    #[test]
    fn every_form_agrees_with_the_definition() {
        let mut random = Random(71);
        for _ in 0..40 {
            let of = random.pick(&[
                Of::Max,
                Of::MaxIndex { columns_first: false },
                Of::Average { count_padding: true },
                Of::Average { count_padding: false },
                Of::Lp(1),
                Of::Lp(2),
                Of::Lp(3),
            ]);
            let mut axis = || {
                let (len, kernel, stride) = (3 + random.below(5), 1 + random.below(3), 1 + random.below(2));
                let dilation = 1 + random.below(2);
                let (before, behind) = (random.below(kernel), random.below(kernel));
                let room = (len + before + behind).saturating_sub((kernel - 1) * dilation + 1);
                [len, kernel, stride, dilation, before, behind, room.div_ceil(stride).max(1)]
            };
            let axes = [axis(), axis(), axis()];
            let op = WindowPool {
                of,
                kernel: axes.map(|axis| axis[1]),
                stride: axes.map(|axis| axis[2]),
                dilation: axes.map(|axis| axis[3]),
                before: axes.map(|axis| axis[4]),
                behind: axes.map(|axis| axis[5]),
                out: axes.map(|axis| axis[6]),
            };
            let x = random.floats(&[2, 3, axes[0][0], axes[1][0], axes[2][0]]);
            let got = check(op.clone(), std::slice::from_ref(&x), 1e-6);
            let elements = x.elements::<f32>().unwrap();
            for (index, (got, want)) in got[0].elements::<f32>().unwrap().iter().zip(by_hand(&op, &x)).enumerate() {
                let close = f64::from(*got) == want || (f64::from(*got) - want).abs() < 1e-5 * want.abs().max(1.0);
                assert!(close || (got.is_nan() && want.is_nan()), "{op:?}: {index} is {got}, not {want}");
                if let (Some(places), true) = (got_indices(&got_all(&op, &x)), want.is_finite()) {
                    assert_eq!(f64::from(elements[places[index] as usize]), want, "{op:?}: the place");
                }
            }
        }
    }

    fn got_all(op: &WindowPool, x: &Tensor) -> Vec<Tensor> {
        op.evaluate(&[x]).unwrap()
    }

    fn got_indices(results: &[Tensor]) -> Option<Vec<i64>> {
        results.get(1).map(|t| t.elements::<i64>().unwrap().to_vec())
    }

    #[test]
    fn indices_are_counted_along_rows_or_columns() {
        let x = Tensor::from_slice(&[1, 2, 1, 2, 3], &[1f32, 5.0, 2.0, 5.0, 0.0, 3.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0])
            .unwrap();
        let places = |columns_first| {
            let op = plain(Of::MaxIndex { columns_first }, [1, 2, 3], [1, 1, 1]);
            check(op, std::slice::from_ref(&x), 0.0)[1].elements::<i64>().unwrap().to_vec()
        };
        assert_eq!((places(false), places(true)), (vec![1, 6], vec![2, 6]));
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let x = Random(72).floats(&[1, 1, 2, 3, 4]);
        let refused = |op: WindowPool| op.infer(&[x.fact()]).is_err();
        let op = plain(Of::Max, [1, 2, 2], [2, 2, 3]);
        assert!(!refused(op.clone()));
        assert!(refused(WindowPool { of: Of::Lp(0), ..op.clone() }));
        assert!(refused(WindowPool { kernel: [0, 1, 1], ..op.clone() }));
        assert!(refused(WindowPool { out: [3, 2, 3], ..op.clone() }));
        assert!(refused(WindowPool { kernel: [1, 1, 1 << 40], ..op.clone() }));
        assert!(refused(WindowPool { before: [usize::MAX, 0, 0], ..op.clone() }));
        assert!(refused(WindowPool { dilation: [usize::MAX, 1, 1], ..op }));
    }
}

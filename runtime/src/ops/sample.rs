//! Sample: reads an image or a volume at points between its pixels ([ONNX
//! GridSample](https://onnx.ai/onnx/operators/onnx__GridSample.html); DeformConv reads its taps the same way).
//!
//! Points are known only at run time: every index is checked against the image, and a NaN coordinate gives NaN or zero,
//! never a read out of bounds.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, elements_of};
use crate::tensor::Tensor;
use crate::tensor::{DType, Fact, Shape};

/// Most spatial axes.
const MAX_AXES: usize = 3;
/// Most pixels per point: four along each axis.
const MAX_TAPS: usize = 64;

/// How the pixels around a point are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SampleMode {
    /// The nearest one, ties to even.
    Nearest,
    /// Two along each axis, by distance.
    Linear,
    /// Four along each axis, by the cubic with a = -0.75.
    Cubic,
}

/// The values outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// The pixel at the border.
    Border,
    /// The image, mirrored.
    Reflection,
}

/// Reads `x [n, c, d1 .. dr]` (f32) at points `[n, p, r]`, whose last coordinate is for the first axis; the result is
/// `[n, c, p]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// How pixels are combined.
    pub mode: SampleMode,
    /// The values outside the image.
    pub outside: Outside,
    /// Whether the ends of the image are the centers of its outermost pixels, not their outer edges.
    pub align_corners: bool,
    /// Whether coordinates go from -1 to 1 over the image; otherwise they are in pixels.
    pub normalized: bool,
}

/// The pixels along one axis for a coordinate: index and weight; no index means the value zero.
type Taps = heapless::Vec<(Option<usize>, f32), 4>;

/// `x` mirrored at both ends until it is between them.
fn reflect(x: f32, low: f32, high: f32) -> f32 {
    let range = high - low;
    let past = if x < low { low - x } else { x - high };
    if past.is_nan() || past <= 0.0 {
        return x;
    }
    if range <= 0.0 {
        return low;
    }
    let turns = (past / range).floor();
    let rest = past - turns * range;
    if (turns % 2.0 == 0.0) == (x < low) { low + rest } else { high - rest }
}

impl Sample {
    /// The pixels of an axis of length `len` for one coordinate.
    fn taps(&self, coordinate: f32, len: usize) -> Taps {
        let length = len as f32;
        let mut x = match (self.normalized, self.align_corners) {
            (false, _) => coordinate,
            (true, true) => (coordinate + 1.0) / 2.0 * (length - 1.0),
            (true, false) => ((coordinate + 1.0) * length - 1.0) / 2.0,
        };
        if self.mode == SampleMode::Nearest {
            x = x.round_ties_even();
        }
        let (low, high) = if self.align_corners { (0.0, length - 1.0) } else { (-0.5, length - 0.5) };
        match self.outside {
            Outside::Zeros => {}
            Outside::Border if x < low || x > high => x = x.clamp(0.0, (length - 1.0).max(0.0)),
            Outside::Border => {}
            Outside::Reflection => x = reflect(x, low, high),
        }
        let index = |at: f32| -> Option<usize> {
            let at = match self.outside {
                Outside::Zeros => at,
                Outside::Border => at.clamp(0.0, (length - 1.0).max(0.0)),
                Outside::Reflection => reflect(at, low, high),
            };
            Some(at as i64).and_then(|at| usize::try_from(at).ok()).filter(|&at| at < len)
        };
        let first = x.floor();
        let t = x - first;
        let mut taps = Taps::new();
        // Never full: there are at most four.
        let mut push = |at: f32, weight: f32| {
            let _ = taps.push((index(at), weight));
        };
        match self.mode {
            SampleMode::Nearest => push(x, 1.0),
            SampleMode::Linear => {
                push(first, first + 1.0 - x);
                push(first + 1.0, t);
            }
            SampleMode::Cubic => {
                const A: f32 = -0.75;
                let near = |d: f32| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
                let far = |d: f32| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
                for (at, weight) in [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)].into_iter().enumerate() {
                    push(first - 1.0 + at as f32, weight);
                }
            }
        }
        taps
    }

    /// Reads all points of all images.
    fn run(&self, x_shape: &[usize], points: &[f32], x: &[f32], y: &mut [f32], pace: &Pace<'_>) -> Result<(), OpError> {
        let &[n, c, ref axes @ ..] = x_shape else { return Err(OpError::Operand(0)) };
        let pixels: usize = axes.iter().product();
        let count = points.len() / n.max(1) / axes.len().max(1);
        if count == 0 || c == 0 {
            return Ok(());
        }
        for (image, points) in points.chunks_exact(count * axes.len()).enumerate() {
            let from = x.get(image * c * pixels..(image + 1) * c * pixels).ok_or(OpError::Operand(0))?;
            let to = y.get_mut(image * c * count..(image + 1) * c * count).ok_or(OpError::Operand(0))?;
            for (at, point) in points.chunks_exact(axes.len()).enumerate() {
                pace.spend(128)?;
                let mut all = heapless::Vec::<(Option<usize>, f32), MAX_TAPS>::new();
                let _ = all.push((Some(0), 1.0));
                for (&len, &coordinate) in axes.iter().zip(point.iter().rev()) {
                    let taps = self.taps(coordinate, len);
                    let held = std::mem::take(&mut all);
                    for (offset, weight) in held {
                        for &(index, along) in &taps {
                            let offset = offset.zip(index).map(|(offset, index)| offset * len + index);
                            all.push((offset, weight * along)).map_err(|_| OpError::Operand(1))?;
                        }
                    }
                }
                for channel in 0..c {
                    pace.spend(8 * all.len())?;
                    let from = from.get(channel * pixels..).ok_or(OpError::Operand(0))?;
                    let pixel = |offset: Option<usize>| offset.and_then(|at| from.get(at)).copied().unwrap_or(0.0);
                    let sum = all.iter().map(|&(offset, weight)| weight * pixel(offset)).sum();
                    *to.get_mut(channel * count + at).ok_or(OpError::Operand(0))? = sum;
                }
            }
        }
        Ok(())
    }
}

impl Operator for Sample {
    fn name(&self) -> &str {
        "Sample"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, points] = exactly::<2, _>(inputs)?;
        for (index, fact) in [x, points].into_iter().enumerate() {
            if fact.dtype != DType::F32 {
                return Err(OpError::Type { index, got: fact.dtype, want: "f32" });
            }
        }
        let wrong =
            || OpError::shapes("every image needs points with a coordinate for each axis", &[&x.shape, &points.shape]);
        let (&[n, c, ref axes @ ..], &[batch, count, coordinates]) = (&*x.shape, &*points.shape) else {
            return Err(wrong());
        };
        if batch != n || coordinates != axes.len() || !(1..=MAX_AXES).contains(&axes.len()) {
            return Err(wrong());
        }
        Ok(vec![Fact::new(DType::F32, Shape::new(&[n, c, count])?)])
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let (&[x, _], &[y]) = (inputs, outputs) else { return 0 };
        let taps = match self.mode {
            SampleMode::Nearest => 1u64,
            SampleMode::Linear => 1 << x.shape.rank().saturating_sub(2),
            SampleMode::Cubic => 1 << (2 * x.shape.rank().saturating_sub(2)),
        };
        taps.saturating_mul(y.shape.elements() as u64)
    }

    /// Computing the position and weight of a tap takes longer than its product.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.macs(inputs, outputs).saturating_mul(4).saturating_add(elements_of(inputs))
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "sample".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, _] = exactly::<2, _>(&cx.inputs)?;
        let (this, shape) = (*self, x.shape.clone());
        Ok(Box::new(move |io: &mut Io<'_, '_>| this.run(&shape, io.input(1)?, io.input(0)?, io.output(0)?, &io.pace())))
    }
}

impl Semantics for Sample {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, points] = exactly::<2, _>(inputs)?;
        let fact = self.infer(&[x.fact(), points.fact()])?.remove(0);
        let (points, elements) = (super::number::words(points)?, super::number::words(x)?);
        Ok(vec![super::number::filled(fact, |y| self.run(x.shape(), points, elements, y, &Pace::free()))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    const LINEAR: Sample =
        Sample { mode: SampleMode::Linear, outside: Outside::Zeros, align_corners: true, normalized: true };

    #[test]
    fn known_results() {
        let x = Tensor::from_slice(&[1, 1, 2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        let points = Tensor::from_slice(&[1, 3, 2], &[0f32, 0.0, 1.0, -1.0, 3.0, 3.0]).unwrap();
        let of = |op| check(op, &[x.clone(), points.clone()], 0.0)[0].elements::<f32>().unwrap().to_vec();
        assert_eq!(of(LINEAR), [2.5, 2.0, 0.0]);
        assert_eq!(of(Sample { outside: Outside::Border, ..LINEAR }), [2.5, 2.0, 4.0]);
        assert_eq!(of(Sample { outside: Outside::Reflection, ..LINEAR }), [2.5, 2.0, 1.0]);
    }

    #[test]
    fn every_mode_and_border_over_one_to_three_axes() {
        let mut random = Random(91);
        for mode in [SampleMode::Nearest, SampleMode::Linear, SampleMode::Cubic] {
            for outside in [Outside::Zeros, Outside::Border, Outside::Reflection] {
                for axes in 1..=3 {
                    let dims = [vec![2, 3], random.dims(axes)].concat();
                    let op = Sample { mode, outside, align_corners: axes == 2, normalized: true };
                    check(op, &[random.floats(&dims), random.floats(&[2, 5, axes])], 0.0);
                }
            }
        }
    }

    #[test]
    fn points_that_are_no_numbers_or_far_away_read_nothing_outside() {
        let x = Tensor::from_slice(&[1, 1, 3], &[1f32, 2.0, 3.0]).unwrap();
        let far = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e9];
        let points = Tensor::from_slice(&[1, 6, 1], &far).unwrap();
        for mode in [SampleMode::Nearest, SampleMode::Linear, SampleMode::Cubic] {
            for outside in [Outside::Zeros, Outside::Border, Outside::Reflection] {
                for normalized in [false, true] {
                    check(
                        Sample { mode, outside, align_corners: false, normalized },
                        &[x.clone(), points.clone()],
                        0.0,
                    );
                }
            }
        }
    }
}

//! Resize along one axis of any tensor ([ONNX Resize](https://onnx.ai/onnx/operators/onnx__Resize.html)): cubic
//! interpolation, filters that widen when the axis shrinks (`antialias`), crops, and axes that are not an image's.
//!
//! Every variant of Resize is separable: an element of the result is a weighted sum of some elements of the input, axis
//! by axis. The weights are computed when the step is bound, in f32 as in ONNX Runtime.

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::fill;

use super::arity::exactly;
use super::image::NHWC_AXIS;
use super::resize::{Coordinates, Rounding, check_axis, nearest, place};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, elements_of};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// How a position between elements is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Filter {
    /// One of the two adjacent elements.
    Nearest(Rounding),
    /// Both, weighted by distance.
    Linear,
    /// Two on either side, weighted by a cubic with this coefficient (-0.75 in ONNX, -0.5 in Pillow).
    Cubic(f32),
}

/// A part of an axis that is resized to the whole result (`tf_crop_and_resize`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crop {
    /// Its start; 0 is the first element, 1 the last.
    pub start: f32,
    /// Its end.
    pub end: f32,
    /// The value outside the input.
    pub outside: f32,
}

/// A resize along an axis, in f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResizeAxis {
    /// The axis.
    pub axis: usize,
    /// Elements of the result along it.
    pub out: usize,
    /// Elements of the result per element of the input, above 0; as given, not rounded to the size.
    pub scale: f32,
    /// How a position between elements is evaluated.
    pub filter: Filter,
    /// How elements of the result map to positions in the input.
    pub coordinates: Coordinates,
    /// The part of the input to use, instead of `coordinates`.
    pub crop: Option<Crop>,
    /// Whether the filter widens in proportion when the axis shrinks.
    pub antialias: bool,
    /// Whether elements outside the input have no weight; otherwise the outermost ones are repeated.
    pub exclude_outside: bool,
}

/// Elements, and terms, that are added at once.
const PART: usize = 1 << 12;

/// The weights of an axis.
struct Table {
    /// For every element of the result, the end of its terms; `None` if it is outside the input.
    ends: Vec<Option<usize>>,
    /// Index in the input, and weight.
    terms: Vec<(u32, f32)>,
}

impl ResizeAxis {
    /// The number of elements before the axis, along it and after it.
    fn view(&self, x: &Fact) -> Result<[usize; 3], OpError> {
        if x.dtype != DType::F32 {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32" });
        }
        let Some(&len) = x.shape.get(self.axis) else {
            return Err(OpError::Attribute { name: "axes", reason: format!("{} of {}", self.axis, x.shape) });
        };
        [len, self.out].into_iter().try_for_each(check_axis)?;
        let finite = self.crop.is_none_or(|crop| crop.start.is_finite() && crop.end.is_finite());
        let coefficient = if let Filter::Cubic(a) = self.filter { a } else { 0.0 };
        if !(self.scale > 0.0 && self.scale.is_finite() && finite && coefficient.is_finite()) {
            return Err(OpError::Attribute {
                name: "scales",
                reason: "the scale, crop or coefficient is invalid".into(),
            });
        }
        // A filter is as wide as an element of the result.
        let fits = self.out as f32 <= self.scale * len as f32 + 1.0 && self.scale * len as f32 >= 0.5;
        if self.antialias && (self.crop.is_some() || !fits) {
            return Err(OpError::Attribute { name: "antialias", reason: "the scale does not match the sizes".into() });
        }
        if len == 0 && self.out > 0 {
            return Err(OpError::shapes("an axis without elements cannot be resized", &[&x.shape]));
        }
        let count =
            |axes: std::ops::Range<usize>| if x.shape.elements() == 0 { 0 } else { x.shape[axes].iter().product() };
        Ok([count(0..self.axis), len, count(self.axis + 1..x.shape.rank())])
    }

    fn table(&self, len: usize) -> Result<Table, OpError> {
        let mut table = Table { ends: reserve::empty(self.out)?, terms: Vec::new() };
        let last = len as f32 - 1.0;
        for o in 0..self.out {
            let at = match self.crop {
                None => place(self.coordinates, self.scale, (self.out, len), o),
                Some(Crop { start, end, .. }) if self.out <= 1 => 0.5 * (start + end) * last,
                Some(Crop { start, end, .. }) => {
                    start * last + o as f32 * (end - start) * last / (self.out as f32 - 1.0)
                }
            };
            if self.crop.is_some() && !(0.0..=last).contains(&at) {
                table.ends.push(None);
                continue;
            }
            self.terms(at, len, &mut table.terms)?;
            table.ends.push(Some(table.terms.len()));
        }
        Ok(table)
    }

    /// Adds the terms of an element at position `at`.
    fn terms(&self, at: f32, len: usize, terms: &mut Vec<(u32, f32)>) -> Result<(), OpError> {
        let inside = |index: f32| index.clamp(0.0, len as f32 - 1.0) as u32;
        let (radius, of): (f32, fn(f32, f32) -> f32) = match self.filter {
            Filter::Nearest(rounding) => {
                let nearest = nearest(rounding, at.clamp(0.0, len as f32 - 1.0)).min(len - 1);
                return Ok(reserve::push(terms, (nearest as u32, 1.0))?);
            }
            Filter::Linear => (1.0, |x, _| (1.0 - x.abs()).max(0.0)),
            Filter::Cubic(_) => (2.0, cubic),
        };
        let a = if let Filter::Cubic(a) = self.filter { a } else { 0.0 };
        let shrink = if self.antialias { self.scale.min(1.0) } else { 1.0 };
        let reach = radius / shrink;
        let begin = terms.len();
        let (mut index, mut sum) = ((at - reach).floor() + 1.0, 0.0);
        // Incrementing a large float may not change it, so the number of iterations is bounded.
        for _ in 0..(2.0 * reach).ceil() as usize + 1 {
            if index >= at + reach {
                break;
            }
            let weight = of((index - at) * shrink, a);
            let outside = index < 0.0 || index > len as f32 - 1.0;
            if weight != 0.0 && !(self.exclude_outside && outside) {
                sum += weight;
                let element = inside(index);
                match terms[begin..].last_mut() {
                    Some((known, held)) if *known == element => *held += weight,
                    _ => reserve::push(terms, (element, weight))?,
                }
            }
            index += 1.0;
        }
        // Without antialias the weights already sum to 1, unless some were excluded.
        if (self.antialias || self.exclude_outside) && sum != 0.0 {
            terms[begin..].iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        Ok(())
    }

    /// The value outside the input.
    fn outside(&self) -> f32 {
        self.crop.map_or(0.0, |crop| crop.outside)
    }
}

/// R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.
fn cubic(x: f32, a: f32) -> f32 {
    let x = x.abs();
    match x {
        _ if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

impl Operator for ResizeAxis {
    fn name(&self) -> &str {
        "Resize"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        self.view(x)?;
        let mut dims = x.shape.to_vec();
        dims[self.axis] = self.out;
        Ok(vec![Fact::new(DType::F32, Shape::new(&dims)?)])
    }

    /// At most four terms per element, of the input if an antialiasing filter widens.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        elements_of(inputs).saturating_add(elements_of(outputs)).saturating_mul(4)
    }

    fn plan(&self, _: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "resize_axis_f32".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let [_, len, inner] = self.view(x)?;
        if self.infer(&cx.inputs)?.iter().any(|fact| fact.shape.elements() == 0) {
            return Ok(Box::new(|_: &mut Io<'_, '_>| Ok(())));
        }
        let (table, outside, out) = (self.table(len)?, self.outside(), self.out);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (x, y): (&[f32], &mut [f32]) = (io.input(0)?, io.output(0)?);
            let pace = io.pace();
            for (x, y) in x.chunks_exact(len * inner).zip(y.chunks_exact_mut(out * inner)) {
                let mut begin = 0;
                for (y, &end) in y.chunks_exact_mut(inner).zip(&table.ends) {
                    let Some(end) = end else {
                        fill(bytemuck::bytes_of(&outside), bytemuck::cast_slice_mut(y), &pace)?;
                        continue;
                    };
                    let terms = &table.terms[begin..end];
                    begin = end;
                    pace.spend(8)?;
                    for (first, y) in (0..).step_by(PART).zip(y.chunks_mut(PART)) {
                        match y {
                            [y] => {
                                let read = |&(index, weight): &(u32, f32)| x[index as usize * inner + first] * weight;
                                let parts = terms.chunks(PART).take_while(|terms| !pace.stops(4 * terms.len()));
                                *y = parts.flatten().map(read).sum();
                            }
                            y => {
                                y.fill(0.0);
                                for &(index, weight) in terms {
                                    pace.spend(8 + y.len())?;
                                    let x = &x[index as usize * inner + first..][..y.len()];
                                    y.iter_mut().zip(x).for_each(|(y, x)| *y += x * weight);
                                }
                            }
                        }
                    }
                }
            }
            Ok(())
        }))
    }
}

impl Semantics for ResizeAxis {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let [outer, len, inner] = self.view(x.fact())?;
        let x = x.elements::<f32>().ok_or(OpError::Operand(0))?;
        let mut y = reserve::empty(fact.shape.elements())?;
        if fact.shape.elements() > 0 {
            let table = self.table(len)?;
            for outer in 0..outer {
                let mut begin = 0;
                for &end in &table.ends {
                    let terms = &table.terms[begin..end.unwrap_or(begin)];
                    for inner_at in 0..inner {
                        let element = |index: usize| f64::from(x[(outer * len + index) * inner + inner_at]);
                        let sum: f64 = terms.iter().map(|&(index, w)| element(index as usize) * f64::from(w)).sum();
                        y.push(if end.is_some() { sum as f32 } else { self.outside() });
                    }
                    begin = end.unwrap_or(begin);
                }
            }
        }
        Ok(vec![Tensor::from_slice(&fact.shape, &y)?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::except(Elements::Mixed, inputs, &[self.axis])
    }

    fn nhwc(&self) -> Nhwc {
        if self.axis < NHWC_AXIS.len() { Nhwc::Can } else { Nhwc::Never }
    }

    fn turn_to_nhwc(&mut self) {
        self.axis = NHWC_AXIS[self.axis];
    }
}

#[cfg(test)]
#[path = "resize_axis/tests.rs"]
mod tests;

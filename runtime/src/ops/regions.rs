//! Regions: resamples regions of feature maps to images of one size ([ONNX
//! RoiAlign](https://onnx.ai/onnx/operators/onnx__RoiAlign.html),
//! [MaxRoiPool](https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html)).
//!
//! Regions are known only at run time: one that refers to an image that does not exist, or that would take too long to
//! read, is an error.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, saturating_product};
use crate::tensor::Tensor;
use crate::tensor::{DType, Fact, Shape};

/// Most samples per pixel, if the region's size determines their number.
const MAX_SAMPLES: usize = 1 << 16;
/// Regions may reach outside of the image. They may read up to this many times the pixels of all images.
const MAX_IMAGES: usize = 16;

/// How a pixel of the result is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegionKind {
    /// The largest of the pixels in its part of the region.
    MaxPool,
    /// From samples between pixels.
    Align {
        /// Whether it is the largest weighted pixel, not the mean of the samples.
        largest: bool,
        /// Whether coordinates are relative to the edge of the first pixel, not to its center.
        half_pixel: bool,
        /// Samples along each axis; 0 for one per pixel of the region.
        samples: u32,
    },
}

/// The regions (f32 `[r, 4]`: left, top, right, bottom) of the images selected by the indices (i64 `[r]`) in `x [n, c,
/// h, w]`, as `[r, c, size]`; inputs are x, regions and indices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regions {
    /// How pixels are computed.
    pub kind: RegionKind,
    /// Height and width of the result.
    pub size: [usize; 2],
    /// Pixels of x per unit of the regions' coordinates.
    pub scale: f32,
}

/// A channel of a feature map.
struct Map<'a> {
    pixels: &'a [f32],
    sides: [usize; 2],
}

impl Map<'_> {
    fn at(&self, row: usize, column: usize) -> f32 {
        self.pixels.get(row * self.sides[1] + column).copied().unwrap_or(0.0)
    }

    /// The four pixels around a point, multiplied by their weights; `None` if it is outside.
    fn around(&self, point: [f32; 2]) -> Option<[f32; 4]> {
        let [y, x] = [0, 1].map(|axis| {
            let (len, at) = (self.sides[axis], point[axis]);
            if len == 0 || at.is_nan() || at < -1.0 || at > len as f32 {
                return None;
            }
            let at = at.max(0.0);
            let low = (at as usize).min(len - 1);
            let share = if low + 1 >= len { 0.0 } else { at - low as f32 };
            Some((low, (low + 1).min(len - 1), share))
        });
        let ((top, bottom, down), (left, right, along)) = y.zip(x)?;
        Some([
            (1.0 - down) * (1.0 - along) * self.at(top, left),
            (1.0 - down) * along * self.at(top, right),
            down * (1.0 - along) * self.at(bottom, left),
            down * along * self.at(bottom, right),
        ])
    }
}

/// The start of a region along an axis, the length of a pixel of the result, and its samples.
#[derive(Clone, Copy)]
struct Span {
    start: f32,
    step: f32,
    samples: usize,
}

impl Regions {
    fn span(&self, from: f32, to: f32, size: usize) -> Result<Span, OpError> {
        let RegionKind::Align { half_pixel, samples, .. } = self.kind else {
            // Whole pixels, both ends included.
            let (from, to) = ((from * self.scale).round(), (to * self.scale).round());
            return Ok(Span { start: from, step: (to - from + 1.0).max(1.0) / size as f32, samples: 0 });
        };
        let middle = if half_pixel { 0.5 } else { 0.0 };
        let (from, to) = (from * self.scale - middle, to * self.scale - middle);
        let length = if half_pixel { to - from } else { (to - from).max(1.0) };
        let step = length / size as f32;
        let samples = if samples > 0 { samples as usize } else { step.ceil().max(0.0) as usize };
        if samples > MAX_SAMPLES {
            return Err(OpError::Value(format!(
                "a region takes {samples} samples for a pixel of the result, more than {MAX_SAMPLES}"
            )));
        }
        Ok(Span { start: from, step, samples })
    }

    fn pixel(&self, map: &Map<'_>, spans: [Span; 2], place: [usize; 2], pace: &Pace<'_>) -> Result<f32, OpError> {
        let RegionKind::Align { largest, .. } = self.kind else {
            let [rows, columns] = [0, 1].map(|axis| {
                let Span { start, step, .. } = spans[axis];
                let end = |at: usize| at as f32 * step;
                let clip = |at: f32| (at.max(0.0) as usize).min(map.sides[axis]);
                clip(start + end(place[axis]).floor())..clip(start + end(place[axis] + 1).ceil())
            });
            let all = rows.flat_map(|row| columns.clone().map(move |column| (row, column)));
            let all = all.take_while(|_| !pace.stops(8));
            return Ok(all.map(|(row, column)| map.at(row, column)).reduce(f32::max).unwrap_or(0.0));
        };
        let point = |axis: usize, sample: usize| {
            let Span { start, step, samples } = spans[axis];
            start + place[axis] as f32 * step + (sample as f32 + 0.5) * step / samples as f32
        };
        let (mut sum, mut most) = (0.0, None);
        for row in 0..spans[0].samples {
            for column in 0..spans[1].samples {
                pace.spend(32)?;
                let four = map.around([point(0, row), point(1, column)]).unwrap_or([0.0; 4]);
                sum += four.iter().sum::<f32>();
                most = four.into_iter().chain(most).reduce(f32::max);
            }
        }
        Ok(match largest {
            true => most.unwrap_or(0.0),
            false => sum / (spans[0].samples * spans[1].samples).max(1) as f32,
        })
    }

    /// An upper bound on the samples, or pixels, read for so many regions of one channel.
    fn reads(&self, [height, width]: [usize; 2], regions: usize) -> u64 {
        let [rows, columns] = self.size;
        let along = |len: usize, size: usize, ends: usize| len.saturating_add(size.saturating_mul(ends));
        match self.kind {
            // Parts of a region overlap by the pixels at their ends.
            RegionKind::MaxPool => saturating_product(&[regions, along(height, rows, 2), along(width, columns, 2)]),
            RegionKind::Align { samples: 0, .. } => {
                saturating_product(&[regions.max(MAX_IMAGES), along(height, rows, 1), along(width, columns, 1)])
            }
            RegionKind::Align { samples, .. } => {
                saturating_product(&[regions, rows, columns, samples as usize, samples as usize])
            }
        }
    }

    /// Stops early once `stops` returns true, since the results are then discarded.
    fn run(
        &self,
        (x_shape, x): (&[usize], &[f32]),
        (regions, of): (&[f32], &[i64]),
        y: &mut [f32],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        let &[images, channels, height, width] = x_shape else { return Err(OpError::Operand(0)) };
        let (pixels, [rows, columns]) = (height * width, self.size);
        let mut results = y.iter_mut();
        let mut left = self.reads([height, width], of.len());
        for (region, &image) in regions.chunks_exact(4).zip(of) {
            let image = usize::try_from(image).ok().filter(|&image| image < images);
            let image =
                image.ok_or_else(|| OpError::Value(format!("a region refers to none of the {images} images")))?;
            let spans = [self.span(region[1], region[3], rows)?, self.span(region[0], region[2], columns)?];
            let samples = [spans[0].samples, spans[1].samples];
            let reads = saturating_product(&[rows, columns, samples[0], samples[1]]);
            left = left.checked_sub(reads).ok_or_else(|| OpError::Value("the regions are too large".into()))?;
            if samples[0].saturating_mul(samples[1]) > MAX_SAMPLES {
                return Err(OpError::Value("a region is too large".into()));
            }
            for channel in 0..channels {
                let from = (image * channels + channel) * pixels;
                let held = x.get(from..from + pixels).ok_or(OpError::Operand(0))?;
                let map = Map { pixels: held, sides: [height, width] };
                for row in 0..rows {
                    for column in 0..columns {
                        pace.spend(64)?;
                        *results.next().ok_or(OpError::Operand(0))? = self.pixel(&map, spans, [row, column], pace)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Operator for Regions {
    fn name(&self) -> &str {
        if self.kind == RegionKind::MaxPool { "MaxRoiPool" } else { "RoiAlign" }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, regions, of] = exactly::<3, _>(inputs)?;
        for (index, (fact, dtype, want)) in
            [(x, DType::F32, "f32"), (regions, DType::F32, "f32"), (of, DType::I64, "i64")].into_iter().enumerate()
        {
            if fact.dtype != dtype {
                return Err(OpError::Type { index, got: fact.dtype, want });
            }
        }
        let (&[_, channels, _, _], &[count, 4], &[indices]) = (&*x.shape, &*regions.shape, &*of.shape) else {
            return Err(OpError::shapes("regions must be [r, 4]", &[&x.shape, &regions.shape, &of.shape]));
        };
        if indices != count || self.size.contains(&0) {
            return Err(OpError::shapes("one image index per region", &[&regions.shape, &of.shape]));
        }
        Ok(vec![Fact::new(DType::F32, Shape::new(&[count, channels, self.size[0], self.size[1]])?)])
    }

    /// A sample is computed from four pixels.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let ([x, regions, _], [y]) = (inputs, outputs) else { return 0 };
        let (&[_, channels, height, width], Some(&regions)) = (&*x.shape, regions.shape.first()) else { return 0 };
        let reads = self.reads([height, width], regions).saturating_mul(channels as u64);
        reads.saturating_mul(4).saturating_add(y.shape.elements() as u64)
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "regions".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, _, _] = exactly::<3, _>(&cx.inputs)?;
        let (this, shape) = (*self, x.shape.clone());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let regions = (io.input(1)?, io.input(2)?);
            this.run((&shape, io.input(0)?), regions, io.output(0)?, &io.pace())
        }))
    }
}

impl Semantics for Regions {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        use super::number::{filled, words};
        let [x, regions, of] = exactly::<3, _>(inputs)?;
        let fact = self.infer(&[x.fact(), regions.fact(), of.fact()])?.remove(0);
        let regions = (words(regions)?, words(of)?);
        Ok(vec![filled(fact, |y| self.run((x.shape(), words(x)?), regions, y, &Pace::free()))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    fn align(largest: bool, half_pixel: bool, samples: u32) -> RegionKind {
        RegionKind::Align { largest, half_pixel, samples }
    }

    fn boxes(corners: &[[f32; 4]]) -> Tensor {
        Tensor::from_slice(&[corners.len(), 4], corners.as_flattened()).unwrap()
    }

    #[test]
    fn a_region_of_whole_pixels() {
        let x = Tensor::from_slice(&[1, 1, 2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        let operands = [x, boxes(&[[0.0, 0.0, 2.0, 2.0]]), Tensor::from_slice(&[1], &[0i64]).unwrap()];
        let of =
            |kind| check(Regions { kind, size: [1, 1], scale: 1.0 }, &operands, 0.0)[0].elements::<f32>().unwrap()[0];
        assert_eq!(of(align(false, true, 2)), 2.5);
        assert_eq!(of(RegionKind::MaxPool), 4.0);
    }

    #[test]
    fn regions_of_every_kind_inside_and_outside() {
        let mut random = Random(101);
        let regions =
            [[0.0, 0.0, 6.0, 5.0], [-3.0, 2.0, 1.0, 20.0], [4.0, 4.0, 1.0, 1.0], [f32::NAN, 0.0, 1.0, f32::NAN]];
        let of = Tensor::from_slice(&[4], &[1i64, 0, 1, 0]).unwrap();
        for kind in [RegionKind::MaxPool, align(false, true, 0), align(true, false, 2), align(true, true, 0)] {
            let operands = [random.floats(&[2, 3, 5, 7]), boxes(&regions), of.clone()];
            check(Regions { kind, size: [2, 3], scale: 0.5 }, &operands, 0.0);
        }
    }

    #[test]
    fn missing_images_and_infinite_regions_are_errors() {
        let mut random = Random(102);
        let x = random.floats(&[1, 1, 3, 3]);
        let op = Regions { kind: align(false, true, 0), size: [1, 1], scale: 1.0 };
        let of = |index: i64| Tensor::from_slice(&[1], &[index]).unwrap();
        for bad in [-1, 1, i64::MIN] {
            check_fails(op, &[x.clone(), boxes(&[[0.0, 0.0, 1.0, 1.0]]), of(bad)]);
        }
        for far in [1e4, 1e30, f32::INFINITY] {
            check_fails(op, &[x.clone(), boxes(&[[0.0, 0.0, far, far]]), of(0)]);
        }
    }
}

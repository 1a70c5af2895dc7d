//! Resize: an image with another height and width ([ONNX Resize](https://onnx.ai/onnx/operators/onnx__Resize.html)), by
//! the nearest pixel or by linear interpolation, in f32.
//!
//! The source position of a pixel is computed separately for each axis, and known before the run: [`Resize::source`]
//! computes it, and binding turns it into the kernels' tables. Coordinates are computed in f32, as in ONNX Runtime: if
//! two pixels are about equally near, the choice depends on the last bit.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pool::ImageShape;
use skipstone_kernels::resize::{LinearAxis, NearestAxis, resize_linear, resize_nearest};

use super::arity::exactly;
use super::image::{ImageDims, Layout};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{DType, Fact, Tensor};

/// How a position between pixels is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResizeMode {
    /// One of the two adjacent pixels.
    Nearest(Rounding),
    /// Both pixels, weighted by distance; in both directions, so four in total.
    Linear,
}

/// Which of two pixels is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rounding {
    /// The lower one.
    Floor,
    /// The upper one.
    Ceil,
    /// The nearer one, or the lower one if both are equally near.
    PreferFloor,
    /// The nearer one, or the upper one if both are equally near.
    PreferCeil,
}

/// How pixels of the result map to positions in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coordinates {
    /// The borders of both images coincide: `(o + 0.5) / scale - 0.5`.
    HalfPixel,
    /// As `HalfPixel`, but the only pixel of an axis maps to 0.
    PytorchHalfPixel,
    /// As `HalfPixel`, but symmetric about the center of the image if the scale does not match the size exactly.
    HalfPixelSymmetric,
    /// The first and the last pixels coincide: `o * (in - 1) / (out - 1)`.
    AlignCorners,
    /// The first pixels coincide: `o / scale`.
    Asymmetric,
    /// `(o + 0.5) / scale`, for the nearest pixel (`tf_half_pixel_for_nn`).
    TfHalfPixel,
}

/// A change of height and width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// How a position between pixels is evaluated.
    pub mode: ResizeMode,
    /// How pixels of the result map to positions in the input.
    pub coordinates: Coordinates,
    /// Rows and columns of the result per row and column of the input, above 0. The size need not be exactly their
    /// product, because it is rounded down.
    pub scales: [f32; 2],
    /// Rows and columns of the result.
    pub out: [usize; 2],
    /// Order of the axes.
    pub layout: Layout,
}

impl Resize {
    /// The position of pixel `o` of axis `axis` (0 for rows, 1 for columns) in an input of `len` pixels, within
    /// `0..=len - 1`. `len` is not 0.
    fn source(&self, axis: usize, len: usize, o: usize) -> f32 {
        place(self.coordinates, self.scales[axis], (self.out[axis], len), o).clamp(0.0, len as f32 - 1.0)
    }

    /// The nearest input pixel for every pixel of the result along an axis.
    fn nearest(&self, rounding: Rounding, axis: usize, len: usize) -> Result<NearestAxis, OpError> {
        let pixel = |o| {
            let place = self.source(axis, len, o);
            index(nearest(rounding, place).min(len - 1))
        };
        let mut pixels = reserve::empty(self.out[axis])?;
        for o in 0..self.out[axis] {
            pixels.push(pixel(o)?);
        }
        Ok(NearestAxis(pixels))
    }

    /// The two input pixels for every pixel of the result along an axis.
    fn linear(&self, axis: usize, len: usize) -> Result<LinearAxis, OpError> {
        let len_out = self.out[axis];
        let (mut lo, mut hi, mut frac) = (reserve::empty(len_out)?, reserve::empty(len_out)?, reserve::empty(len_out)?);
        for o in 0..len_out {
            let place = self.source(axis, len, o);
            let before = (place as usize).min(len - 1);
            lo.push(index(before)?);
            hi.push(index((before + 1).min(len - 1))?);
            frac.push(place - before as f32);
        }
        Ok(LinearAxis { lo, hi, frac })
    }

    fn images(&self, x: &Fact) -> Result<(ImageDims, ImageDims), OpError> {
        if x.dtype != DType::F32 {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32" });
        }
        let from = ImageDims::new(self.layout, &x.shape)?;
        if !self.scales.iter().all(|&scale| scale > 0.0 && scale.is_finite()) {
            return Err(OpError::Attribute { name: "scales", reason: "must be positive".into() });
        }
        let to = ImageDims { height: self.out[0], width: self.out[1], ..from };
        [from.height, from.width, to.height, to.width].into_iter().try_for_each(check_axis)?;
        if (from.height == 0 && to.height > 0) || (from.width == 0 && to.width > 0) {
            return Err(OpError::shapes("an image without pixels cannot be resized", &[&x.shape]));
        }
        Ok((from, to))
    }
}

/// Longest axis before and after a resize: the positions of its elements are computed beforehand.
const MAX_AXIS: usize = 1 << 21;

/// Refuses an axis that is too long.
pub(super) fn check_axis(len: usize) -> Result<(), OpError> {
    if len > MAX_AXIS { Err(OpError::TooLarge(format!("an axis of {len}, at most {MAX_AXIS}"))) } else { Ok(()) }
}

/// The position of element `o` of `out` among `len` elements (not 0), with `scale` elements of the result for each; it
/// may be before the first or after the last.
pub(super) fn place(coordinates: Coordinates, scale: f32, (out, len): (usize, usize), o: usize) -> f32 {
    let (elements, resized, at) = (len as f32, out as f32, o as f32);
    let half_pixel = (at + 0.5) / scale - 0.5;
    match coordinates {
        Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if out <= 1 => 0.0,
        Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => half_pixel,
        Coordinates::HalfPixelSymmetric => elements / 2.0 * (1.0 - resized / (scale * elements)) + half_pixel,
        Coordinates::AlignCorners => at * (elements - 1.0) / (resized - 1.0),
        Coordinates::Asymmetric => at / scale,
        Coordinates::TfHalfPixel => (at + 0.5) / scale,
    }
}

/// The element nearest to a position, which is not negative.
pub(super) fn nearest(rounding: Rounding, place: f32) -> usize {
    let whole = match rounding {
        Rounding::Floor => place.floor(),
        Rounding::Ceil => place.ceil(),
        Rounding::PreferFloor if is_half(place) => place.floor(),
        Rounding::PreferCeil if is_half(place) => place.ceil(),
        Rounding::PreferFloor | Rounding::PreferCeil => place.round(),
    };
    whole as usize
}

/// Whether a position is halfway between two pixels, within the rounding error of dividing by the scale: without the
/// margin, `7 / (14 / 3)` would not be 1.5. ONNX Runtime does this since version 1.32, with the same 1e-6.
fn is_half(place: f32) -> bool {
    (place.fract() - 0.5).abs() < 1e-6
}

/// A pixel's index in the kernels' type.
fn index(pixel: usize) -> Result<u32, OpError> {
    u32::try_from(pixel).map_err(|_| OpError::TooLarge(format!("pixel {pixel} of an axis")))
}

impl Operator for Resize {
    fn name(&self) -> &str {
        "Resize"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let (_, to) = self.images(x)?;
        Ok(vec![Fact::new(DType::F32, to.shape(self.layout)?)])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let kernel = match self.mode {
            ResizeMode::Nearest(_) => "resize_nearest_f32".to_owned(),
            ResizeMode::Linear => format!("resize_linear_f32_{}", cx.isa),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (from, to) = self.images(x)?;
        let (height, width) = (from.height, from.width);
        // In NCHW, every channel is treated as a separate image.
        let image = match self.layout {
            Layout::Nhwc => ImageShape { batch: from.batch, height, width, channels: from.channels },
            Layout::Nchw => ImageShape { batch: from.batch * from.channels, height, width, channels: 1 },
        };
        if to.shape(self.layout)?.elements() == 0 {
            return Ok(Box::new(|_: &mut Io<'_, '_>| Ok(())));
        }
        let isa = cx.isa;
        Ok(match self.mode {
            ResizeMode::Nearest(rounding) => {
                let (rows, columns) = (self.nearest(rounding, 0, height)?, self.nearest(rounding, 1, width)?);
                Box::new(move |io: &mut Io<'_, '_>| {
                    resize_nearest(image, &rows, &columns, io.input(0)?, io.output(0)?, io.pool());
                    Ok(())
                })
            }
            ResizeMode::Linear => {
                let (rows, columns) = (self.linear(0, height)?, self.linear(1, width)?);
                Box::new(move |io: &mut Io<'_, '_>| {
                    resize_linear(isa, image, &rows, &columns, io.input(0)?, io.output(0)?, io.pool());
                    Ok(())
                })
            }
        })
    }
}

impl Semantics for Resize {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let (from, to) = self.images(x.fact())?;
        let mut result = Tensor::try_zeros(self.infer(&[x.fact()])?.remove(0))?;
        let x = x.elements::<f32>().ok_or(OpError::Operand(0))?;
        let y = result.elements_mut::<f32>().ok_or(OpError::Operand(0))?;
        let pixel =
            |n, c, row: u32, column: u32| f64::from(x[from.offset(self.layout, [n, c, row as usize, column as usize])]);
        match self.mode {
            ResizeMode::Nearest(rounding) => {
                let rows = self.nearest(rounding, 0, from.height)?.0;
                let columns = self.nearest(rounding, 1, from.width)?.0;
                for (y, [n, c, row, column]) in y.iter_mut().zip(to.positions(self.layout)) {
                    *y = pixel(n, c, rows[row], columns[column]) as f32;
                }
            }
            ResizeMode::Linear => {
                let (rows, columns) = (self.linear(0, from.height)?, self.linear(1, from.width)?);
                for (y, [n, c, row, column]) in y.iter_mut().zip(to.positions(self.layout)) {
                    let (down, across) = (f64::from(rows.frac[row]), f64::from(columns.frac[column]));
                    let blend = |row| {
                        (1.0 - across) * pixel(n, c, row, columns.lo[column])
                            + across * pixel(n, c, row, columns.hi[column])
                    };
                    *y = ((1.0 - down) * blend(rows.lo[row]) + down * blend(rows.hi[row])) as f32;
                }
            }
        }
        Ok(vec![result])
    }

    fn axes(&self, _inputs: &[&Fact]) -> Axes {
        let channels = self.layout.channels_axis();
        Axes::new(Elements::Mixed, [0, channels].map(|axis| Link::same(0, axis, axis)))
    }

    fn nhwc(&self) -> Nhwc {
        match self.layout {
            Layout::Nchw => Nhwc::Can,
            Layout::Nhwc => Nhwc::Never,
        }
    }

    fn turn_to_nhwc(&mut self) {
        self.layout = Layout::Nhwc;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    const COORDINATES: [Coordinates; 5] = [
        Coordinates::HalfPixel,
        Coordinates::PytorchHalfPixel,
        Coordinates::HalfPixelSymmetric,
        Coordinates::AlignCorners,
        Coordinates::Asymmetric,
    ];
    const MODES: [ResizeMode; 5] = [
        ResizeMode::Linear,
        ResizeMode::Nearest(Rounding::Floor),
        ResizeMode::Nearest(Rounding::Ceil),
        ResizeMode::Nearest(Rounding::PreferFloor),
        ResizeMode::Nearest(Rounding::PreferCeil),
    ];

    #[test]
    fn every_mode_agrees_in_both_layouts() {
        let mut random = Random(21);
        for mode in MODES {
            for coordinates in COORDINATES {
                for layout in [Layout::Nchw, Layout::Nhwc] {
                    let [height, width] = [1 + random.below(6), 1 + random.below(6)];
                    let out = [1 + random.below(12), 1 + random.below(12)];
                    let image = ImageDims { batch: 2, channels: random.pick(&[1, 3, 8, 17]), height, width };
                    let scales = [out[0] as f32 / height as f32, out[1] as f32 / width as f32];
                    let x = random.floats(&image.shape(layout).unwrap());
                    check(Resize { mode, coordinates, scales, out, layout }, &[x], 1e-6);
                }
            }
        }
    }

    /// One row of 1, 2, 3, 4 resized to `out` pixels.
    fn row(mode: ResizeMode, coordinates: Coordinates, scale: f32, out: usize) -> Vec<f32> {
        let x = Tensor::from_slice(&[1, 1, 1, 4], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        let op = Resize { mode, coordinates, scales: [1.0, scale], out: [1, out], layout: Layout::Nchw };
        check(op, &[x], 1e-6)[0].elements::<f32>().unwrap().to_vec()
    }

    #[test]
    fn coordinates_mean_what_onnx_says() {
        let linear = |coordinates, scale, out| row(ResizeMode::Linear, coordinates, scale, out);
        assert_eq!(linear(Coordinates::HalfPixel, 2.0, 8), [1.0, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.0]);
        assert_eq!(linear(Coordinates::Asymmetric, 2.0, 8), [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0]);
        assert_eq!(linear(Coordinates::AlignCorners, 1.75, 7), [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]);
        assert_eq!(linear(Coordinates::HalfPixel, 0.25, 1), [2.5]);
        assert_eq!(linear(Coordinates::PytorchHalfPixel, 0.25, 1), [1.0]);
        assert_eq!(linear(Coordinates::AlignCorners, 0.25, 1), [1.0]);
        // 4 * 0.6 is 2.4: the two pixels are placed symmetrically about the center.
        for (got, want) in linear(Coordinates::HalfPixelSymmetric, 0.6, 2).iter().zip([5.0 / 3.0, 10.0 / 3.0]) {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
    }

    #[test]
    fn rounding_decides_between_equally_near_pixels() {
        let nearest = |rounding| row(ResizeMode::Nearest(rounding), Coordinates::Asymmetric, 2.0, 8);
        assert_eq!(nearest(Rounding::Floor), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        assert_eq!(nearest(Rounding::PreferFloor), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        assert_eq!(nearest(Rounding::Ceil), [1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0]);
        assert_eq!(nearest(Rounding::PreferCeil), [1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0]);
    }

    #[test]
    fn inexact_halves_round_like_halves() {
        let nearest = |rounding| row(ResizeMode::Nearest(rounding), Coordinates::Asymmetric, 4.0 / 7.0, 2)[1];
        assert!(1.0 / (4f32 / 7.0) < 1.75 && nearest(Rounding::PreferCeil) == 3.0);
        let row = |rounding| row(ResizeMode::Nearest(rounding), Coordinates::Asymmetric, 14.0 / 3.0, 18)[7];
        assert_eq!((row(Rounding::PreferFloor), row(Rounding::PreferCeil)), (2.0, 3.0));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let refused = |dims: &[usize], scales, out| {
            let (mode, coordinates) = (ResizeMode::Linear, Coordinates::HalfPixel);
            let op = Resize { mode, coordinates, scales, out, layout: Layout::Nchw };
            op.infer(&[Random(1).floats(dims).fact()]).is_err()
        };
        assert!(refused(&[1, 1, 0, 4], [1.0, 1.0], [2, 4]));
        assert!(refused(&[1, 1, 4, 4], [0.0, 1.0], [4, 4]));
        assert!(refused(&[1, 1, 4, 4], [f32::NAN, 1.0], [4, 4]));
        assert!(refused(&[1, 1, 4, 4], [1.0, 1.0], [usize::MAX, 2]));
        assert!(refused(&[1, 4, 4], [1.0, 1.0], [4, 4]));
        assert!(!refused(&[0, 1, 4, 4], [2.0, 2.0], [8, 8]));
    }
}

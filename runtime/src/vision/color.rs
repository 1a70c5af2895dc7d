//! From luma and chroma to RGB, and from RGB to the model's input, as one affine map.

use skipstone_kernels::frame::{Color, SampleWidth};

/// The luma weights with which the frame was made from RGB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum YuvMatrix {
    /// ITU-R BT.601: JPEG, and cameras by default.
    #[default]
    Bt601,
    /// ITU-R BT.709: high-definition video.
    Bt709,
    /// ITU-R BT.2020, without constant luminance: ultra-high-definition and HDR video.
    Bt2020,
}

/// How luma and chroma are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum YuvFormat {
    /// One byte per sample, and chroma for blocks of 2x2 pixels (4:2:0).
    #[default]
    Yuv420,
    /// One byte per sample, and chroma for pairs of pixels of a row (4:2:2).
    Yuv422,
    /// Like [`Yuv420`](Self::Yuv420) with 10 bits per sample: the upper ones of two bytes, the lower byte first.
    P010,
    /// Like [`Yuv422`](Self::Yuv422) with 10 bits per sample, stored as in [`P010`](Self::P010).
    P210,
}

impl YuvFormat {
    /// Whether a row of chroma stands for two rows of pixels.
    pub(super) fn halves_rows(self) -> bool {
        matches!(self, Self::Yuv420 | Self::P010)
    }

    /// The bytes of a sample.
    pub(super) fn sample(self) -> SampleWidth {
        match self {
            Self::Yuv420 | Self::Yuv422 => SampleWidth::Byte,
            Self::P010 | Self::P210 => SampleWidth::Word,
        }
    }

    /// The level of the largest code, in units of the first byte.
    fn largest(self) -> f64 {
        match self.sample() {
            SampleWidth::Byte => 255.0,
            SampleWidth::Word => 1023.0 / 4.0,
        }
    }
}

/// The values of black and white.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum YuvRange {
    /// 0 and 255, as in JPEG; chroma 0 to 255 around 128. Of 10 bits, 0 and 1023; chroma 0 to 1023 around 512.
    #[default]
    Full,
    /// 16 and 235, as in video; chroma 16 to 240 around 128. Of 10 bits, four times that.
    Video,
}

/// Luma weights of red, green and blue, by ITU-R BT.601.
pub(crate) const BRIGHTNESS: [f64; 3] = [0.299, 0.587, 0.114];

/// The kind of samples in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SampleKind {
    /// Luma, blue and red chroma.
    Yuv(YuvFormat, YuvMatrix, YuvRange),
    /// Red, green and blue.
    Rgb,
    /// Luma only.
    Gray,
}

/// `rgb[c] = sum over j of matrix[c][j] * sample[j] + offset[c]`, both sides 0 to 255. A sample of 10 bits is a quarter of
/// its code, 0 to 255.75.
struct Rgb {
    matrix: [[f64; 3]; 3],
    offset: [f64; 3],
}

impl SampleKind {
    fn to_rgb(self) -> Rgb {
        match self {
            Self::Rgb => Rgb { matrix: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], offset: [0.0; 3] },
            Self::Gray => Rgb { matrix: [[1.0, 0.0, 0.0]; 3], offset: [0.0; 3] },
            Self::Yuv(format, matrix, range) => yuv_to_rgb(format, matrix, range),
        }
    }
}

impl Rgb {
    /// The map to channels of these colors.
    fn to(mut self, colors: Colors) -> Self {
        match colors {
            Colors::Rgb => {}
            Colors::Bgr => {
                self.matrix.swap(0, 2);
                self.offset.swap(0, 2);
            }
            Colors::Gray => {
                let luma = |of: [f64; 3]| of.iter().zip(BRIGHTNESS).map(|(it, weight)| it * weight).sum();
                self.matrix = [std::array::from_fn(|j| luma(self.matrix.map(|row| row[j]))); 3];
                self.offset = [luma(self.offset); 3];
            }
        }
        self
    }
}

/// Luma is `kr R + kg G + kb B`; chroma is `(B - luma) / (2 - 2 kb)` and `(R - luma) / (2 - 2 kr)`, around 128. This is
/// the inverse (ITU-T H.273).
fn yuv_to_rgb(format: YuvFormat, matrix: YuvMatrix, range: YuvRange) -> Rgb {
    let (kr, kb) = match matrix {
        YuvMatrix::Bt601 => (0.299, 0.114),
        YuvMatrix::Bt709 => (0.2126, 0.0722),
        YuvMatrix::Bt2020 => (0.2627, 0.0593),
    };
    let kg = 1.0 - kr - kb;
    let (black, luma, chroma) = match range {
        YuvRange::Full => (0.0, 255.0 / format.largest(), 255.0 / format.largest()),
        YuvRange::Video => (16.0, 255.0 / 219.0, 255.0 / 224.0),
    };
    let (blue, red) = ((2.0 - 2.0 * kb) * chroma, (2.0 - 2.0 * kr) * chroma);
    let matrix = [[luma, 0.0, red], [luma, -blue * kb / kg, -red * kr / kg], [luma, blue, 0.0]];
    Rgb { matrix, offset: matrix.map(|[y, u, v]| -black * y - 128.0 * (u + v)) }
}

/// The colors that a model's channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colors {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as OpenCV and Caffe have them.
    Bgr,
    /// Brightness, in one channel or the same in three.
    Gray,
}

impl Colors {
    /// All of them, in the order of their names.
    pub(crate) const ALL: [Self; 3] = [Self::Rgb, Self::Bgr, Self::Gray];
    pub(crate) const NAMES: [&'static str; 3] = ["rgb", "bgr", "gray"];

    /// Its name on the command line and in metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The normalization of colors between 0 and 1: subtract the mean, divide by the standard deviation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Normal {
    /// The mean of each channel.
    pub mean: [f32; 3],
    /// The standard deviation of each channel, never 0.
    pub std: [f32; 3],
    /// The model's channels.
    pub colors: Colors,
    /// Whether it has one channel, which is gray; the first mean and standard deviation apply.
    pub single: bool,
}

/// The whole map, from sums in which one level of sample j is `unit[j]`.
pub(super) fn map(kind: SampleKind, normal: &Normal, unit: [f32; 3]) -> Color {
    let rgb = if normal.single { kind.to_rgb() } else { kind.to_rgb().to(normal.colors) };
    // `level * factor + constant` is the model's input for a level, 0 to 255.
    let seen = |c: usize| {
        let (mean, std) = (f64::from(normal.mean[c]), f64::from(normal.std[c]));
        (1.0 / (255.0 * std), -mean / std)
    };
    // A grayscale model needs the luma of clamped colors, so they stay levels until then.
    let of_levels: [(f64, f64); 3] = std::array::from_fn(|c| if normal.single { (1.0, 0.0) } else { seen(c) });
    let per_channel = |f: &dyn Fn(usize, (f64, f64)) -> f64| std::array::from_fn(|c| f(c, of_levels[c]) as f32);
    let ends = |(factor, constant): (f64, f64)| (constant, 255.0f64.mul_add(factor, constant));
    Color {
        matrix: std::array::from_fn(|c| {
            std::array::from_fn(|j| (rgb.matrix[c][j] * of_levels[c].0 / f64::from(unit[j])) as f32)
        }),
        bias: per_channel(&|c, (factor, constant)| rgb.offset[c].mul_add(factor, constant)),
        low: per_channel(&|_, map| ends(map).0.min(ends(map).1)),
        high: per_channel(&|_, map| ends(map).0.max(ends(map).1)),
        gray: normal.single.then(|| {
            let (factor, constant) = seen(0);
            let [r, g, b] = BRIGHTNESS.map(|weight| (weight * factor) as f32);
            [r, g, b, constant as f32]
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(matrix: YuvMatrix, range: YuvRange, yuv: [f64; 3]) -> [f64; 3] {
        let map = yuv_to_rgb(YuvFormat::Yuv420, matrix, range);
        std::array::from_fn(|c| map.offset[c] + (0..3).map(|j| map.matrix[c][j] * yuv[j]).sum::<f64>())
    }

    #[test]
    fn white_black_and_red_follow_the_standards() {
        // The codes are integers: half a step of blue chroma is a level.
        let near =
            |a: [f64; 3], b: [f64; 3]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1.0), "{a:?} {b:?}");
        for matrix in [YuvMatrix::Bt601, YuvMatrix::Bt709, YuvMatrix::Bt2020] {
            near(rgb(matrix, YuvRange::Full, [255.0, 128.0, 128.0]), [255.0; 3]);
            near(rgb(matrix, YuvRange::Full, [0.0, 128.0, 128.0]), [0.0; 3]);
            near(rgb(matrix, YuvRange::Video, [235.0, 128.0, 128.0]), [255.0; 3]);
            near(rgb(matrix, YuvRange::Video, [16.0, 128.0, 128.0]), [0.0; 3]);
        }
        let red = [255.0, 0.0, 0.0];
        near(rgb(YuvMatrix::Bt601, YuvRange::Full, [76.245, 84.97, 255.5]), red);
        near(rgb(YuvMatrix::Bt601, YuvRange::Video, [81.0, 90.0, 240.0]), red);
        near(rgb(YuvMatrix::Bt709, YuvRange::Video, [63.0, 102.0, 240.0]), red);
        near(rgb(YuvMatrix::Bt601, YuvRange::Full, [100.0, 128.0, 228.0]), [240.2, 28.6, 100.0]);
    }

    #[test]
    fn ten_bits_reach_from_black_to_white() {
        let gray = |range, code: f64, chroma: f64| {
            let map = yuv_to_rgb(YuvFormat::P010, YuvMatrix::Bt2020, range);
            let [y, c] = [code, chroma].map(|code| code / 4.0);
            [0, 1, 2].map(|at| {
                (map.offset[at] + map.matrix[at][0] * y + (map.matrix[at][1] + map.matrix[at][2]) * c).round()
            })
        };
        assert_eq!(gray(YuvRange::Full, 0.0, 512.0), [0.0; 3]);
        assert_eq!(gray(YuvRange::Full, 1023.0, 512.0), [255.0; 3]);
        assert_eq!(gray(YuvRange::Video, 64.0, 512.0), [0.0; 3]);
        assert_eq!(gray(YuvRange::Video, 940.0, 512.0), [255.0; 3]);
    }
}

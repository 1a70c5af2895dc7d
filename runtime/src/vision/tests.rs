//! Frames compared with the definition, pixel by pixel in floating point; and refused frames.

use proptest::prelude::*;

use super::frame::Orientation;
use super::*;
use skipstone_kernels::Isa;

/// Memory layout of the samples.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// Three planes; what lies between samples of the luma and of the chroma, in bytes.
    Planar(YuvFormat, usize, usize),
    /// Chroma interleaved, blue first or red first.
    SemiPlanar {
        yuv: YuvFormat,
        blue_first: bool,
    },
    Color(ColorOrder),
}

const YUV: [YuvFormat; 4] = [YuvFormat::Yuv420, YuvFormat::Yuv422, YuvFormat::P010, YuvFormat::P210];

/// The bits of a sample, and the rows that share a row of chroma.
fn storage(yuv: YuvFormat) -> (u32, usize) {
    match yuv {
        YuvFormat::Yuv420 => (8, 2),
        YuvFormat::Yuv422 => (8, 1),
        YuvFormat::P010 => (10, 2),
        YuvFormat::P210 => (10, 1),
    }
}

#[derive(Clone, Debug)]
struct Case {
    size: (usize, usize),
    format: Format,
    /// Extra bytes after the pixels of a row, and after each pixel if the format allows it.
    slack: (usize, usize),
    matrix: YuvMatrix,
    range: YuvRange,
    rotation: Rotation,
    mirrored: bool,
    /// In percent of the upright frame: left, top, width, height.
    crop: Option<[usize; 4]>,
    /// Size after resizing, and the margins in percent of it.
    scaled: (usize, usize),
    outside: [usize; 4],
    layout: ChannelOrder,
    gray: bool,
    seed: u32,
}

fn side() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), 2..6usize, 6..60usize]
}

fn case() -> impl Strategy<Value = Case> {
    let orders = [ColorOrder::Rgba, ColorOrder::Bgra, ColorOrder::Rgb, ColorOrder::Gray];
    let yuv = proptest::sample::select(YUV.to_vec());
    let format = prop_oneof![
        (yuv.clone(), 0..3usize, 0..3usize).prop_map(|(yuv, luma, chroma)| Format::Planar(yuv, luma, chroma)),
        (yuv, any::<bool>()).prop_map(|(yuv, blue_first)| Format::SemiPlanar { yuv, blue_first }),
        proptest::sample::select(orders.to_vec()).prop_map(Format::Color),
    ];
    let rotation =
        proptest::sample::select(vec![Rotation::None, Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters]);
    let colors = (
        proptest::sample::select(vec![YuvMatrix::Bt601, YuvMatrix::Bt709, YuvMatrix::Bt2020]),
        proptest::sample::select(vec![YuvRange::Full, YuvRange::Video]),
    );
    let source = ((side(), side()), format, (0..20usize, 0..3usize), colors, any::<u32>());
    let turn = (rotation, proptest::option::of(proptest::array::uniform4(0..100usize)));
    let target = ((side(), side()), proptest::array::uniform4(0..60usize), any::<[bool; 3]>());
    (source, turn, target).prop_map(
        |((size, format, slack, (matrix, range), seed), (rotation, crop), (scaled, outside, flags))| Case {
            size,
            format,
            slack,
            matrix,
            range,
            mirrored: flags[0],
            layout: if flags[1] { ChannelOrder::Planar } else { ChannelOrder::Interleaved },
            rotation,
            crop,
            scaled,
            outside,
            gray: flags[2],
            seed,
        },
    )
}

/// A plane's bytes, ending with its last sample.
struct Buffer {
    bytes: Vec<u8>,
    row_stride: usize,
    pixel_stride: usize,
}

impl Buffer {
    fn new(seed: &mut u32, (width, height): (usize, usize), pixel: usize, pixel_stride: usize, slack: usize) -> Self {
        let row = (width - 1) * pixel_stride + pixel;
        let row_stride = row + slack;
        let mut next = || {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*seed >> 24) as u8
        };
        let bytes = (0..(height - 1) * row_stride + row).map(|_| next()).collect();
        Self { bytes, row_stride, pixel_stride }
    }

    /// Clears the lower six bits of every second byte, as 10 bits are stored in words.
    fn of_words(mut self, step: usize) -> Self {
        for row in self.bytes.chunks_mut(self.row_stride) {
            row.chunks_mut(step).for_each(|sample| sample[0] &= 0xc0);
        }
        self
    }

    /// The plane whose samples begin at `offset`, truncated by `short` bytes.
    fn plane(&self, offset: usize, short: usize) -> Plane<'_> {
        let bytes = &self.bytes[offset..self.bytes.len() - short];
        Plane { bytes, row_stride: self.row_stride, pixel_stride: self.pixel_stride }
    }
}

/// A code of 8 bits, or of 10 in the upper bits of a word.
fn sample(plane: &Plane<'_>, bits: u32, x: usize, y: usize) -> f64 {
    let at = &plane.bytes[y * plane.row_stride + x * plane.pixel_stride..];
    if bits == 8 { f64::from(at[0]) } else { f64::from(u16::from_le_bytes([at[0], at[1]]) >> 6) }
}

/// RGB of a sensor pixel, 0 to 255 and beyond: the formulas of the standards.
fn rgb(pixels: &Pixels<'_>, x: usize, y: usize) -> [f64; 3] {
    match pixels {
        Pixels::Yuv { format, y: luma, u, v, matrix, range } => {
            let (kr, kb) = match matrix {
                YuvMatrix::Bt601 => (0.299, 0.114),
                YuvMatrix::Bt709 => (0.2126, 0.0722),
                YuvMatrix::Bt2020 => (0.2627, 0.0593),
            };
            let (bits, rows) = storage(*format);
            let unit = f64::from(1 << (bits - 8));
            let chroma = |plane| sample(plane, bits, x / 2, y / rows) - 128.0 * unit;
            let (mut l, mut cb, mut cr) = (sample(luma, bits, x, y), chroma(u), chroma(v));
            // Equations 20 to 31 of ITU-T H.273, for any number of bits.
            let (black, luma_range, chroma_range) = match range {
                YuvRange::Video => (16.0 * unit, 219.0 * unit, 224.0 * unit),
                YuvRange::Full => (0.0, 256.0 * unit - 1.0, 256.0 * unit - 1.0),
            };
            (l, cb, cr) = ((l - black) * 255.0 / luma_range, cb * 255.0 / chroma_range, cr * 255.0 / chroma_range);
            let red = l + 2.0 * (1.0 - kr) * cr;
            let blue = l + 2.0 * (1.0 - kb) * cb;
            [red, (l - kr * red - kb * blue) / (1.0 - kr - kb), blue]
        }
        Pixels::Color { plane, order } => {
            let at = |byte: usize| f64::from(plane.bytes[y * plane.row_stride + x * plane.pixel_stride + byte]);
            match order {
                ColorOrder::Rgba | ColorOrder::Rgb => [at(0), at(1), at(2)],
                ColorOrder::Bgra => [at(2), at(1), at(0)],
                ColorOrder::Gray => [at(0); 3],
            }
        }
    }
}

/// An image, row by row.
struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<[f64; 3]>,
}

impl Picture {
    fn new(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [f64; 3]) -> Self {
        let rgb = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect();
        Self { width, height, rgb }
    }

    fn at(&self, x: usize, y: usize) -> [f64; 3] {
        self.rgb[y * self.width + x]
    }

    /// Rotated clockwise by 90 degrees: the left column, upwards, becomes the top row.
    fn turned(&self) -> Self {
        Self::new(self.height, self.width, |x, y| self.at(y, self.height - 1 - x))
    }

    fn upright(self, rotation: Rotation, mirrored: bool) -> Self {
        let turns = [Rotation::None, Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters];
        let turns = turns.iter().position(|&r| r == rotation).unwrap();
        let upright = (0..turns).fold(self, |picture, _| picture.turned());
        let width = upright.width;
        Self::new(width, upright.height, |x, y| upright.at(if mirrored { width - 1 - x } else { x }, y))
    }

    fn cropped(&self, region: Region) -> Self {
        Self::new(region.width, region.height, |x, y| self.at(region.x + x, region.y + y))
    }

    /// One pixel of the resized image, by the weights of its column and of its row.
    fn resized(&self, column: &[(usize, f64)], row: &[(usize, f64)]) -> [f64; 3] {
        let mut sum = [0.0; 3];
        for &(y, v) in row {
            for &(x, w) in column {
                sum.iter_mut().zip(self.at(x, y)).for_each(|(sum, channel)| *sum += v * w * channel);
            }
        }
        sum
    }
}

/// The source pixels of pixel `at` of the resized axis, and their weights: the triangle filter by its definition.
fn triangle(source: usize, scaled: usize, at: usize) -> Vec<(usize, f64)> {
    let scale = source as f64 / scaled as f64;
    let reach = scale.max(1.0);
    let center = (at as f64 + 0.5) * scale;
    let weight = |i: usize| (1.0 - (i as f64 + 0.5 - center).abs() / reach).max(0.0);
    let total: f64 = (0..source).map(weight).sum();
    (0..source).map(|i| (i, weight(i) / total)).filter(|(_, weight)| *weight > 0.0).collect()
}

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// One is negative, which reverses the limits.
const STD: [f32; 3] = [0.229, -0.5, 1.0];

/// Calls `f` with the frame of a case.
fn with_frame(case: &Case, f: impl FnOnce(Frame<'_>)) {
    let (width, height) = case.size;
    let half = |rows| (width.div_ceil(2), height.div_ceil(rows));
    let mut seed = case.seed;
    let mut buffer = |size, pixel, stride| Buffer::new(&mut seed, size, pixel, stride, case.slack.0);
    let (matrix, range) = (case.matrix, case.range);
    match case.format {
        Format::Planar(format, luma, chroma) => {
            let (bits, rows) = storage(format);
            let bytes = bits.div_ceil(8) as usize;
            let mut plane = |size, between| {
                let made = buffer(size, bytes, bytes + between);
                if bits > 8 { made.of_words(bytes + between) } else { made }
            };
            let (y, u, v) = (plane(case.size, luma), plane(half(rows), chroma), plane(half(rows), chroma));
            let (y, u, v) = (y.plane(0, 0), u.plane(0, 0), v.plane(0, 0));
            f(Frame::new(width, height, Pixels::Yuv { format, y, u, v, matrix, range }).unwrap());
        }
        Format::SemiPlanar { yuv: format, blue_first } => {
            let (bits, rows) = storage(format);
            let bytes = bits.div_ceil(8) as usize;
            // Distances between pairs of words are even.
            let between = case.slack.1 / bytes * bytes;
            let (mut y, mut pairs) =
                (buffer(case.size, bytes, bytes), buffer(half(rows), 2 * bytes, 2 * bytes + between));
            if bits > 8 {
                (y, pairs) = (y.of_words(2), pairs.of_words(2));
            }
            // As Android cuts them: neither has the last sample of the other.
            let (first, second) = (pairs.plane(0, bytes), pairs.plane(bytes, 0));
            let (u, v) = if blue_first { (first, second) } else { (second, first) };
            f(Frame::new(width, height, Pixels::Yuv { format, y: y.plane(0, 0), u, v, matrix, range }).unwrap());
        }
        Format::Color(order) => {
            let bytes = match order {
                ColorOrder::Rgba | ColorOrder::Bgra => 4,
                ColorOrder::Rgb => 3,
                ColorOrder::Gray => 1,
            };
            let plane = buffer(case.size, bytes, bytes + case.slack.1);
            f(Frame::new(width, height, Pixels::Color { plane: plane.plane(0, 0), order }).unwrap());
        }
    }
}

/// A part of `len`: the rest of it, at least 1.
fn part(len: usize, before: usize, share: usize) -> (usize, usize) {
    let start = len * before / 100;
    (start, (len * share / 100).clamp(1, len - start))
}

fn check(case: &Case) {
    with_frame(case, |frame| {
        let pixels = *frame.pixels();
        let sensor = Picture::new(case.size.0, case.size.1, |x, y| rgb(&pixels, x, y));
        let mut picture = sensor.upright(case.rotation, case.mirrored);
        let mut frame = frame.rotated(case.rotation).mirrored(case.mirrored);
        assert_eq!((frame.width(), frame.height()), (picture.width, picture.height));
        if let Some([left, top, width, height]) = case.crop {
            let ((x, width), (y, height)) = (part(picture.width, left, width), part(picture.height, top, height));
            let region = Region { x, y, width, height };
            frame = frame.cropped(region).unwrap();
            picture = picture.cropped(region);
        }
        let window = |scaled: usize, before, behind: usize| {
            let (start, len) = part(scaled, before, 100 - before - behind.min(40));
            PixelWindow { scaled, start, len }
        };
        let across = window(case.scaled.0, case.outside[0] / 2, case.outside[1]);
        let down = window(case.scaled.1, case.outside[2] / 2, case.outside[3]);
        let normal = Normal { mean: MEAN, std: STD, colors: Colors::Rgb, single: case.gray };
        let target = TensorSpec { across, down, by: Interpolation::Bilinear, layout: case.layout, normal };
        let channels = if case.gray { 1 } else { 3 };
        let size = across.len * down.len;
        let columns: Vec<_> =
            (0..across.len).map(|x| triangle(picture.width, across.scaled, across.start + x)).collect();
        let rows: Vec<_> = (0..down.len).map(|y| triangle(picture.height, down.scaled, down.start + y)).collect();
        let pixels = (0..down.len).flat_map(|y| (0..across.len).map(move |x| (x, y)));
        let expected: Vec<_> = pixels.map(|(x, y)| (x, y, picture.resized(&columns[x], &rows[y]))).collect();
        for isa in Isa::available() {
            let mut converter = Converter::new(isa);
            let mut out = vec![f32::NAN; size * channels];
            converter.convert(&frame, &target, &mut out);
            for &(x, y, want) in &expected {
                let want = want.map(|level| level.clamp(0.0, 255.0) / 255.0);
                let brightness = 0.299 * want[0] + 0.587 * want[1] + 0.114 * want[2];
                for (c, want) in want.into_iter().enumerate().take(channels) {
                    let want = if case.gray { brightness } else { want };
                    let at = match case.layout {
                        ChannelOrder::Planar => c * size + y * across.len + x,
                        ChannelOrder::Interleaved => (y * across.len + x) * channels + c,
                    };
                    let got = f64::from(out[at]) * f64::from(STD[c]) + f64::from(MEAN[c]);
                    // A fifth of a level.
                    assert!((got - want).abs() <= 0.2 / 255.0, "{isa} at {x},{y},{c}: {got} instead of {want}");
                }
            }
            let before = out.clone();
            out.fill(f32::NAN);
            converter.convert(&frame, &target, &mut out);
            assert_eq!(out, before, "{isa}, the second time");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_frame_is_resized_and_normalized_like_its_image(case in case()) {
        check(&case);
    }
}

/// Every format, matrix and range against the formulas, whatever the random cases hit.
#[test]
fn every_matrix_and_range_follows_the_standards() {
    for (matrix, yuv) in
        [YuvMatrix::Bt601, YuvMatrix::Bt709, YuvMatrix::Bt2020].into_iter().flat_map(|it| YUV.map(|yuv| (it, yuv)))
    {
        for range in [YuvRange::Full, YuvRange::Video] {
            for gray in [false, true] {
                check(&Case {
                    size: (45, 27),
                    format: Format::SemiPlanar { yuv, blue_first: gray },
                    slack: (3, 0),
                    matrix,
                    range,
                    rotation: Rotation::None,
                    mirrored: false,
                    crop: None,
                    scaled: (19, 13),
                    outside: [0; 4],
                    layout: ChannelOrder::Planar,
                    gray,
                    seed: 5,
                });
            }
        }
    }
}

/// Sizes that take every path: whole vectors, many taps, groups of eight lines and remainders.
#[test]
fn large_frames_follow_the_definition() {
    let rotations = [Rotation::None, Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters];
    let formats = [
        Format::SemiPlanar { yuv: YuvFormat::Yuv420, blue_first: false },
        Format::Planar(YuvFormat::Yuv420, 0, 1),
        Format::SemiPlanar { yuv: YuvFormat::P010, blue_first: true },
        Format::SemiPlanar { yuv: YuvFormat::P210, blue_first: false },
        Format::Color(ColorOrder::Bgra),
        Format::Color(ColorOrder::Rgb),
    ];
    for (i, &format) in formats.iter().enumerate() {
        for (j, &rotation) in rotations.iter().enumerate() {
            check(&Case {
                size: [(321, 243), (640, 97)][(i + j) % 2],
                format,
                slack: (31, 0),
                matrix: YuvMatrix::Bt709,
                range: YuvRange::Video,
                rotation,
                mirrored: i % 2 == 0,
                crop: (j % 2 == 0).then_some([10, 7, 71, 83]),
                scaled: [(41, 37), (19, 90)][j % 2],
                outside: [3, 5, 0, 10],
                layout: [ChannelOrder::Planar, ChannelOrder::Interleaved][i % 2],
                gray: false,
                seed: 5,
            });
        }
    }
}

/// The colors 1 to 6 of a frame of three columns and two rows, brought upright.
fn turned(rotation: Rotation, mirrored: bool, region: Option<Region>) -> Vec<u8> {
    let bytes = [1, 2, 3, 4, 5, 6];
    let mut frame = Frame::gray(3, 2, &bytes).unwrap().rotated(rotation).mirrored(mirrored);
    if let Some(region) = region {
        frame = frame.cropped(region).unwrap();
    }
    let whole = |len| PixelWindow { scaled: len, start: 0, len };
    let normal = Normal { mean: [0.0; 3], std: [1.0; 3], colors: Colors::Gray, single: true };
    let target = TensorSpec {
        across: whole(frame.width()),
        down: whole(frame.height()),
        by: Interpolation::Bilinear,
        layout: ChannelOrder::Planar,
        normal,
    };
    let mut out = vec![0.0; frame.width() * frame.height()];
    Converter::new(Isa::detect()).convert(&frame, &target, &mut out);
    out.iter().map(|level| (level * 255.0).round() as u8).collect()
}

#[test]
fn turns_are_clockwise_and_mirrors_come_after() {
    assert_eq!(turned(Rotation::None, false, None), [1, 2, 3, 4, 5, 6]);
    assert_eq!(turned(Rotation::Quarter, false, None), [4, 1, 5, 2, 6, 3]);
    assert_eq!(turned(Rotation::Half, false, None), [6, 5, 4, 3, 2, 1]);
    assert_eq!(turned(Rotation::ThreeQuarters, false, None), [3, 6, 2, 5, 1, 4]);
    assert_eq!(turned(Rotation::None, true, None), [3, 2, 1, 6, 5, 4]);
    assert_eq!(turned(Rotation::Quarter, true, None), [1, 4, 2, 5, 3, 6]);
    assert_eq!(turned(Rotation::Half, true, None), [4, 5, 6, 1, 2, 3]);
    assert_eq!(turned(Rotation::ThreeQuarters, true, None), [6, 3, 5, 2, 4, 1]);
    let last_row = |width, y| Some(Region { x: 0, y, width, height: 1 });
    assert_eq!(turned(Rotation::None, false, last_row(3, 1)), [4, 5, 6]);
    assert_eq!(turned(Rotation::Quarter, false, last_row(2, 2)), [6, 3]);
    assert_eq!(turned(Rotation::ThreeQuarters, true, last_row(2, 0)), [6, 3]);
}

#[test]
fn a_crop_of_a_crop_counts_from_it_and_stays_when_the_frame_turns() {
    let bytes = [0; 100 * 50];
    let frame = Frame::gray(100, 50, &bytes).unwrap().rotated(Rotation::Quarter);
    let once = frame.cropped(Region { x: 10, y: 20, width: 30, height: 40 }).unwrap();
    assert_eq!(once.region(), Region { x: 20, y: 10, width: 40, height: 30 });
    let twice = once.cropped(Region { x: 1, y: 2, width: 3, height: 4 }).unwrap();
    assert_eq!(twice.region(), Region { x: 22, y: 36, width: 4, height: 3 });
    assert_eq!((twice.width(), twice.height()), (3, 4));
    let back = twice.rotated(Rotation::None);
    assert_eq!((back.width(), back.height()), (4, 3));
    let upright = Orientation { turned: false, columns_reversed: false, rows_reversed: false };
    assert_eq!(back.orientation(), upright);
}

#[test]
fn degrees_are_multiples_of_90() {
    for (degrees, rotation) in [
        (0, Rotation::None),
        (90, Rotation::Quarter),
        (180, Rotation::Half),
        (270, Rotation::ThreeQuarters),
        (360, Rotation::None),
        (-90, Rotation::ThreeQuarters),
        (-720, Rotation::None),
    ] {
        assert_eq!(Rotation::from_degrees(degrees).unwrap(), rotation);
    }
    for degrees in [1, 45, 89, -91, i32::MAX, i32::MIN] {
        let error = Rotation::from_degrees(degrees).unwrap_err();
        assert_eq!(error.code(), "frame");
        assert!(error.to_string().contains(&degrees.to_string()), "{error}");
    }
}

fn refused(result: crate::Result<Frame<'_>>, reason: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "frame");
    assert!(error.to_string().contains(reason), "{error} does not say: {reason}");
}

#[test]
fn impossible_planes_are_refused_with_the_reason() {
    let bytes = [0u8; 4096];
    let plane = |len, row_stride, pixel_stride| Plane { bytes: &bytes[..len], row_stride, pixel_stride };
    let (matrix, range) = (YuvMatrix::Bt601, YuvRange::Full);
    let stored = |format, y, u, v| Frame::new(5, 3, Pixels::Yuv { format, y, u, v, matrix, range });
    let frame = |y, u, v| stored(YuvFormat::Yuv420, y, u, v);
    // Five by three: chroma is three by two.
    let (y, c) = (plane(15, 5, 1), plane(6, 3, 1));
    assert!(frame(y, c, c).is_ok());
    assert!(frame(plane(2 * 9 + 5, 9, 1), plane(7 + 5, 7, 2), plane(7 + 5, 7, 2)).is_ok());
    refused(frame(plane(14, 5, 1), c, c), "the luma plane of 5x3 samples has 14 bytes, but its last");
    refused(frame(plane(15, 4, 1), c, c), "a row stride of 4 bytes, but a row has 5");
    refused(frame(plane(15, 0, 1), c, c), "a row stride of 0 bytes");
    refused(frame(plane(15, 5, 0), c, c), "a pixel stride of 0");
    refused(frame(y, plane(5, 3, 1), c), "the u plane of 3x2 samples has 5 bytes, but its last sample ends at 6");
    refused(frame(y, c, plane(11, 7, 2)), "the v plane");
    refused(frame(y, c, plane(4096, 4, 2)), "a row stride of 4 bytes, but a row has 5");
    refused(frame(y, c, plane(4096, 300, 100)), "a pixel stride of 100");
    refused(frame(plane(0, 5, 1), c, c), "has 0 bytes");
    refused(frame(plane(4096, usize::MAX, 1), c, c), "which exceeds the address space");
    // With a row of chroma for each row of pixels, and with two bytes for each sample.
    let whole = plane(9, 3, 1);
    assert!(stored(YuvFormat::Yuv422, y, whole, whole).is_ok());
    refused(stored(YuvFormat::Yuv422, y, whole, c), "the v plane of 3x3 samples has 6 bytes");
    let (words, pairs) = (plane(30, 10, 2), plane(12 + 10, 12, 4));
    assert!(stored(YuvFormat::P010, words, pairs, pairs).is_ok());
    refused(stored(YuvFormat::P010, plane(29, 10, 2), pairs, pairs), "has 29 bytes, but its last sample ends at 30");
    refused(stored(YuvFormat::P010, plane(30, 10, 1), pairs, pairs), "a pixel stride of 1, expected 2");
    refused(stored(YuvFormat::P210, words, pairs, pairs), "the u plane of 3x3 samples has 22 bytes");
    let color = |plane, order| Frame::new(2, 2, Pixels::Color { plane, order });
    // The last pixel of RGB needs no fourth byte.
    assert!(color(plane(15, 8, 4), ColorOrder::Rgb).is_ok());
    refused(color(plane(15, 8, 4), ColorOrder::Rgba), "has 15 bytes, but its last sample ends at 16");
    refused(color(plane(16, 8, 3), ColorOrder::Bgra), "a pixel stride of 3, expected 4");
}

#[test]
fn impossible_sizes_are_refused_with_the_reason() {
    let bytes = [0u8; 64];
    type Make = fn(usize, usize, &[u8]) -> crate::Result<Frame<'_>>;
    let all: [Make; 8] = [
        |w, h, b| Frame::p010(w, h, b),
        |w, h, b| Frame::nv21(w, h, b),
        |w, h, b| Frame::nv12(w, h, b),
        |w, h, b| Frame::i420(w, h, b),
        |w, h, b| Frame::rgb(w, h, b),
        |w, h, b| Frame::rgba(w, h, b),
        |w, h, b| Frame::bgra(w, h, b),
        |w, h, b| Frame::gray(w, h, b),
    ];
    for make in all {
        for (width, height) in
            [(0, 4), (4, 0), (0, 0), (usize::MAX, 2), (2, usize::MAX), (usize::MAX, usize::MAX), (1 << 20, 1 << 20)]
        {
            assert_eq!(make(width, height, &bytes).unwrap_err().code(), "frame", "{width}x{height}");
            assert_eq!(make(width, height, &[]).unwrap_err().code(), "frame", "{width}x{height}");
        }
        refused(make(4, 5, &bytes[..33]), "but 33 were given");
    }
    refused(Frame::gray(65_537, 0, &[]), "a width of 65537");
    refused(Frame::gray(0, 7, &[]), "a width of 0, expected 1 to 65536 pixels");
    assert!(Frame::p010(5, 3, &[0; 54]).is_ok());
    refused(Frame::p010(5, 3, &bytes[..53]), "has 54 bytes in this format, but 53 were given");
    // Odd sides round chroma up: 15 + 2 * 6.
    assert!(Frame::nv21(5, 3, &bytes[..27]).is_ok() && Frame::i420(5, 3, &bytes[..27]).is_ok());
    refused(Frame::nv21(5, 3, &bytes[..22]), "has 27 bytes in this format, but 22 were given");
    assert!(Frame::nv21(1, 1, &bytes[..3]).is_ok() && Frame::rgba(4, 4, &bytes).is_ok());
}

#[test]
fn crops_outside_are_refused() {
    let bytes = [0u8; 12];
    let frame = Frame::gray(4, 3, &bytes).unwrap().rotated(Rotation::Quarter);
    for (x, y, width, height) in [
        (0, 0, 4, 3),
        (0, 0, 0, 1),
        (0, 0, 1, 0),
        (3, 0, 1, 1),
        (2, 0, 2, 1),
        (0, 4, 1, 1),
        (usize::MAX, 0, 1, 1),
        (1, 1, usize::MAX, 1),
    ] {
        refused(frame.cropped(Region { x, y, width, height }), "outside of a frame of 3x4");
    }
    assert!(frame.cropped(Region { x: 0, y: 0, width: 3, height: 4 }).is_ok());
}

#[test]
fn channels_have_the_models_colors() {
    let frame = Frame::rgb(1, 1, &[200, 100, 50]).unwrap();
    let one = PixelWindow { scaled: 1, start: 0, len: 1 };
    for (colors, want) in [
        (Colors::Rgb, [200.0, 100.0, 50.0]),
        (Colors::Bgr, [50.0, 100.0, 200.0]),
        // 0.299 R + 0.587 G + 0.114 B
        (Colors::Gray, [124.2; 3]),
    ] {
        let normal = Normal { mean: [0.0, 0.1, 0.2], std: [1.0, 2.0, 4.0], colors, single: false };
        let by = Interpolation::Bilinear;
        let mut out = [0.0f32; 3];
        let target = TensorSpec { across: one, down: one, by, layout: ChannelOrder::Planar, normal };
        Converter::new(Isa::detect()).convert(&frame, &target, &mut out);
        for c in 0..3 {
            let level = (out[c] * normal.std[c] + normal.mean[c]) * 255.0;
            assert!((level - want[c]).abs() < 0.05, "{colors:?} {c}: {level}");
        }
    }
}

#[test]
fn constructors_make_the_formats_in_their_names() {
    // One pixel of luma 100, blue chroma 128, red chroma 228: see the matrices' own test.
    let want = [240.2, 28.5864, 100.0];
    let pixel = |frame: Frame<'_>| {
        let one = PixelWindow { scaled: 1, start: 0, len: 1 };
        let normal = Normal { mean: [0.0; 3], std: [1.0; 3], colors: Colors::Rgb, single: false };
        let mut out = [0.0f32; 3];
        let target =
            TensorSpec { across: one, down: one, by: Interpolation::Bilinear, layout: ChannelOrder::Planar, normal };
        Converter::new(Isa::detect()).convert(&frame, &target, &mut out);
        out.map(|x| f64::from(x) * 255.0)
    };
    let near = |got: [f64; 3], want: [f64; 3]| {
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 0.01), "{got:?} {want:?}");
    };
    near(pixel(Frame::nv21(1, 1, &[100, 228, 128]).unwrap()), want);
    near(pixel(Frame::nv12(1, 1, &[100, 128, 228]).unwrap()), want);
    near(pixel(Frame::i420(1, 1, &[100, 128, 228]).unwrap()), want);
    // 10 bits: 400, 512 and 912 of 1023.
    let words = [400u16, 512, 912].map(|code| (code << 6).to_le_bytes()).concat();
    near(pixel(Frame::p010(1, 1, &words).unwrap().with_range(YuvRange::Video)), [255.0, 16.5115, 97.8082]);
    near(pixel(Frame::rgb(1, 1, &[1, 2, 3]).unwrap()), [1.0, 2.0, 3.0]);
    near(pixel(Frame::rgba(1, 1, &[1, 2, 3, 4]).unwrap()), [1.0, 2.0, 3.0]);
    near(pixel(Frame::bgra(1, 1, &[1, 2, 3, 4]).unwrap()), [3.0, 2.0, 1.0]);
    near(pixel(Frame::gray(1, 1, &[7]).unwrap()), [7.0; 3]);
    // Black in video range, and red in BT.709.
    let black = Frame::nv21(1, 1, &[16, 128, 128]).unwrap().with_range(YuvRange::Video);
    near(pixel(black), [0.0; 3]);
    let red = Frame::nv21(1, 1, &[100, 228, 128]).unwrap().with_matrix(YuvMatrix::Bt709);
    near(pixel(red), [255.0, 53.188, 100.0]);
}

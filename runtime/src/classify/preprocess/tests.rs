//! Images and frames prepared by metadata and settings, compared with formulas.

use super::super::settings::parse_number;
use super::*;
use crate::tensor::Shape;

fn input(dims: &[usize]) -> Fact {
    Fact::new(DType::F32, Shape::new(dims).unwrap())
}

fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (format!("skipstone.{k}"), (*v).to_owned())).collect()
}

fn prepare(dims: &[usize], pairs: &[(&str, &str)]) -> Result<Preprocess> {
    Preprocess::new(&input(dims), &metadata(pairs), &Settings::default())
}

fn gradient(width: usize, height: usize) -> Vec<u8> {
    (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect()
}

#[test]
fn normalizations_that_are_not_finite_are_refused() {
    for (key, text) in [("std", "1e-40"), ("std", "1e-38,1,1"), ("mean", "3e38"), ("mean", "-3.4e38")] {
        let other = if key == "std" { ("mean", "9") } else { ("std", "0.1") };
        assert!(prepare(&[1, 3, 4, 4], &[(key, text), other]).is_err(), "{key} {text}");
    }
    assert!(prepare(&[1, 3, 4, 4], &[("mean", "1e10"), ("std", "1e-10")]).is_ok());
}

/// A photo of the shorter side that is reported is not enlarged, and one pixel less is, if the image must fill the input.
#[test]
fn photos_may_be_shrunk_until_they_would_be_enlarged() {
    for (dims, resize, fit) in [
        ([1, 3, 224, 224], "256", "shortest"),
        ([1, 3, 32, 32], "32", "shortest"),
        ([1, 3, 48, 96], "56", "shortest"),
        ([1, 3, 96, 48], "48", "shortest"),
        ([1, 3, 64, 64], "64", "stretch"),
        ([1, 3, 64, 64], "64", "letterbox"),
    ] {
        let it = prepare(&dims, &[("resize", resize), ("fit", fit)]).unwrap();
        let side = it.photo_side();
        let enlarges = |width, height| {
            let (across, down) = it.windows(width, height);
            across.scaled > width || down.scaled > height
        };
        for longer in [side, side + 1, 3 * side] {
            assert!(!enlarges(longer, side) && !enlarges(side, longer), "{dims:?} {longer}");
        }
        assert!(enlarges(side - 1, side - 1), "{dims:?}");
    }
}

#[test]
fn numbers_are_read_as_the_standard_library_reads_them() {
    let odd = ["0", "-0", "+.5", "5.", "1e3", "1E-3", "-12.5e+2", "0.00000000000000000000000000000001e30", "1e-45"];
    let odd = odd.into_iter().map(str::to_owned);
    let short = (0..20_000u32).map(|n| format!("{}.{:04}", n / 1000, n * 7919 % 10_000));
    let written = (0..20_000u32).map(|n| f32::from_bits(0x3000_0000 + n * 16_807).to_string());
    for text in odd.chain(short).chain(written) {
        assert_eq!(parse_number(&text), text.parse().ok(), "{text}");
    }
    assert_eq!(parse_number("1e400"), Some(f32::INFINITY));
    for text in ["", ".", "-", "e3", "1e", "1e1.5", "0x1", "1 2", "--1", "1_0", "٣"] {
        assert_eq!(parse_number(text), None, "{text}");
    }
}

#[test]
fn an_image_of_the_input_size_is_only_normalized() {
    let (w, h) = (4, 4);
    let rgb = gradient(w, h);
    let image = Image::new(w, h, &rgb).unwrap();
    let told = [("mean", "0.1, 0.2,0.3"), ("std", "0.5,0.25,2")];
    let (mean, std) = ([0.1, 0.2, 0.3], [0.5, 0.25, 2.0]);
    let nchw = prepare(&[1, 3, h, w], &told).unwrap().apply(image);
    let nhwc = prepare(&[1, h, w, 3], &told).unwrap().apply(image);
    for y in 0..h {
        for x in 0..w {
            for c in 0..3 {
                let want = (f32::from(rgb[(y * w + x) * 3 + c]) / 255.0 - mean[c]) / std[c];
                assert_eq!(nchw[(c * h + y) * w + x], want);
                assert_eq!(nhwc[(y * w + x) * 3 + c], want);
            }
        }
    }
}

#[test]
fn the_middle_is_cut_where_torchvision_cuts_it() {
    // torchvision: int(round((scaled - crop) / 2)), which rounds halves to even.
    for (scaled, crop, start) in
        [(32, 32, 0), (33, 32, 0), (34, 32, 1), (35, 32, 2), (256, 224, 16), (341, 224, 58), (37, 32, 2), (39, 32, 4)]
    {
        assert_eq!(middle(scaled, crop).start, start, "{scaled} to {crop}");
    }
}

#[test]
fn the_shorter_side_is_resized_and_the_longer_follows() {
    let p = prepare(&[1, 3, 224, 224], &[("resize", "256"), ("crop", "224")]).unwrap();
    let sizes = |w, h| {
        let (across, down) = p.windows(w, h);
        (across.scaled, down.scaled)
    };
    assert_eq!(sizes(500, 375), (341, 256));
    assert_eq!(sizes(375, 500), (256, 341));
    assert_eq!(sizes(64, 64), (256, 256));
    assert_eq!(sizes(1, 60_000), (256, 15_360_000));
}

#[test]
fn images_cover_an_input_that_is_not_square() {
    let p = prepare(&[1, 3, 120, 160], &[]).unwrap();
    for (w, h) in [(160, 120), (1000, 1000), (3000, 100), (7, 5000), (161, 121)] {
        let (across, down) = p.windows(w, h);
        assert!(across.scaled >= 160 && down.scaled >= 120, "{w}x{h}: {across:?} {down:?}");
        assert!(across.scaled == 160 || down.scaled == 120, "{w}x{h}: {across:?} {down:?}");
        assert!(across.start + 160 <= across.scaled && down.start + 120 <= down.scaled);
    }
}

#[test]
fn a_gray_model_sees_brightness() {
    let rgb = [255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255, 0];
    let got = prepare(&[1, 1, 2, 2], &[]).unwrap().apply(Image::new(2, 2, &rgb).unwrap());
    for (got, want) in got.iter().zip([1.0, 0.0, 0.299, 0.587]) {
        assert!((got - want).abs() < 0.5 / 255.0, "{got} {want}");
    }
}

/// A synthetic camera image: colors that change slowly, none near the limits.
fn scene(width: usize, height: usize) -> Vec<u8> {
    let level = |x: usize, y: usize, c: usize| {
        let (x, y) = (x as f64 / width as f64, y as f64 / height as f64);
        128.0 + 90.0 * (5.0 * x + 3.0 * y + c as f64).sin() * (2.0 * y - 4.0 * x).cos()
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    pixels.flat_map(|(x, y)| (0..3).map(move |c| level(x, y, c).round() as u8)).collect()
}

/// The image as a camera's NV21 (BT.601, full range), with each block's mean chroma.
fn nv21(width: usize, height: usize, rgb: &[u8]) -> Vec<u8> {
    let pixel = |x: usize, y: usize| -> [f64; 3] {
        let at = (y.min(height - 1) * width + x.min(width - 1)) * 3;
        [0, 1, 2].map(|c| f64::from(rgb[at + c]))
    };
    let luma = |[r, g, b]: [f64; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let mut bytes: Vec<u8> = (0..width * height).map(|i| luma(pixel(i % width, i / width)).round() as u8).collect();
    for (x, y) in (0..height).step_by(2).flat_map(|y| (0..width).step_by(2).map(move |x| (x, y))) {
        let block = [pixel(x, y), pixel(x + 1, y), pixel(x, y + 1), pixel(x + 1, y + 1)];
        let mean: [f64; 3] = std::array::from_fn(|c| block.iter().map(|p| p[c]).sum::<f64>() / 4.0);
        let chroma = |channel: f64, weight: f64| 128.0 + (channel - luma(mean)) / (2.0 - 2.0 * weight);
        bytes.push(chroma(mean[0], 0.299).round() as u8);
        bytes.push(chroma(mean[2], 0.114).round() as u8);
    }
    bytes
}

#[test]
fn a_frame_gives_the_same_tensor_as_its_image() {
    let models = [
        (&[1, 3, 224, 224][..], &[("resize", "256"), ("crop", "224")][..]),
        (&[1, 32, 48, 3], &[]),
        (&[1, 1, 40, 40], &[]),
        (&[1, 3, 61, 61], &[("mean", "0"), ("std", "1")]),
        (&[1, 3, 30, 50], &[("fit", "letterbox")]),
        (&[1, 50, 30, 3], &[("fit", "letterbox"), ("colors", "bgr")]),
        (&[1, 1, 33, 33], &[("fit", "letterbox"), ("interpolation", "linear")]),
        (
            &[1, 3, 24, 24],
            &[("fit", "stretch"), ("resize", "30"), ("colors", "gray"), ("scale", "1"), ("mean", "9,8,7")],
        ),
        (&[1, 3, 24, 32], &[("interpolation", "box"), ("colors", "bgr"), ("scale", "2"), ("std", "3,4,5")]),
        (&[1, 20, 20, 3], &[("interpolation", "nearest")]),
    ];
    for (w, h) in [(321, 243), (40, 61), (160, 240), (7, 300)] {
        let rgb = scene(w, h);
        let bgra: Vec<u8> = rgb.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0], 77]).collect();
        let nv21 = nv21(w, h, &rgb);
        for (dims, told) in models {
            let p = prepare(dims, told).unwrap();
            let mut converter = Converter::new(skipstone_kernels::Isa::detect());
            let want = p.apply(Image::new(w, h, &rgb).unwrap());
            let mut got = vec![0.0; p.elements()];
            // Levels by which the two may differ: the image's two roundings to bytes, and a third for grayscale;
            // for chroma also the frame's own roundings, of three samples, and the detail lost in its blocks.
            let rounding = if p.normal.colors == Colors::Gray { 1.6 } else { 1.1 };
            let mut near = |frame: &Frame<'_>, levels: f32| {
                p.apply_frame(frame, &mut converter, &mut got).unwrap();
                let level = levels / 255.0 / p.normal.std.iter().fold(1.0f32, |a, &b| a.min(b));
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    assert!((got - want).abs() <= level, "{dims:?} of {w}x{h} at {i}: {got} {want}");
                }
            };
            near(&Frame::rgb(w, h, &rgb).unwrap(), rounding);
            near(&Frame::bgra(w, h, &bgra).unwrap(), rounding);
            if w > 100 && h > 100 {
                near(&Frame::nv21(w, h, &nv21).unwrap(), 4.0);
            }
        }
    }
}

#[test]
fn a_frame_of_the_input_size_is_only_normalized() {
    let (w, h) = (5, 4);
    let rgb = gradient(w, h);
    for dims in [[1, 3, h, w], [1, h, w, 3]] {
        let p = prepare(&dims, &[("mean", "0.1, 0.2,0.3"), ("std", "0.5,0.25,2")]).unwrap();
        let want = p.apply(Image::new(w, h, &rgb).unwrap());
        let mut got = vec![0.0; p.elements()];
        p.apply_frame(
            &Frame::rgb(w, h, &rgb).unwrap(),
            &mut Converter::new(skipstone_kernels::Isa::detect()),
            &mut got,
        )
        .unwrap();
        assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-5), "{got:?} {want:?}");
    }
}

/// A frame with another filter than the image would be another input.
#[test]
fn frames_are_not_resized_by_filters_with_negative_weights() {
    for by in ["bicubic", "lanczos"] {
        let p = prepare(&[1, 3, 4, 4], &[("interpolation", by)]).unwrap();
        let frame = Frame::gray(2, 2, &[1, 2, 3, 4]).unwrap();
        let error =
            p.apply_frame(&frame, &mut Converter::new(skipstone_kernels::Isa::Scalar), &mut [0.0; 48]).unwrap_err();
        assert!(error.code() == "frame" && error.to_string().contains(by), "{error}");
    }
}

#[test]
fn a_frame_needs_a_buffer_of_the_inputs_size() {
    let p = prepare(&[1, 3, 4, 4], &[]).unwrap();
    let frame = Frame::gray(2, 2, &[1, 2, 3, 4]).unwrap();
    let mut converter = Converter::new(skipstone_kernels::Isa::Scalar);
    for len in [0, 47, 49] {
        let error = p.apply_frame(&frame, &mut converter, &mut vec![0.0; len]).unwrap_err();
        assert_eq!(error.code(), "frame");
        assert!(error.to_string().contains("48"), "{error}");
    }
}

#[test]
fn channels_have_the_models_colors() {
    let rgb = [10, 20, 30, 200, 100, 50];
    let image = Image::new(2, 1, &rgb).unwrap();
    let own = |pairs: &[(&str, &str)]| prepare(&[1, 3, 1, 2], pairs).unwrap().apply(image);
    let plain = [("mean", "0"), ("std", "1"), ("scale", "1")];
    let with = |colors| own(&[&plain[..], &[("colors", colors)]].concat());
    assert_eq!(own(&plain), [10.0, 200.0, 20.0, 100.0, 30.0, 50.0]);
    assert_eq!(with("rgb"), own(&plain));
    assert_eq!(with("bgr"), [30.0, 50.0, 20.0, 100.0, 10.0, 200.0]);
    // 0.299 R + 0.587 G + 0.114 B is 18.15 and 124.2.
    assert_eq!(with("gray"), [18.0, 124.0, 18.0, 124.0, 18.0, 124.0]);
    // The mean of a BGR model begins with blue, also ImageNet's.
    let caffe = own(&[("colors", "bgr"), ("scale", "1"), ("mean", "1,2,3")]);
    assert_eq!(caffe, [29.0, 49.0, 18.0, 98.0, 7.0, 197.0]);
    let (bgr, rgb) = (own(&[("colors", "bgr")]), own(&[]));
    assert_eq!([&bgr[4..], &bgr[2..4], &bgr[..2]].concat(), rgb);
    assert!(prepare(&[1, 3, 1, 2], &[("colors", "bgr")]).unwrap().normalization().to_string().contains("ImageNet"));
}

#[test]
fn a_scale_comes_before_the_mean() {
    let rgb = [0, 51, 255];
    let image = Image::new(1, 1, &rgb).unwrap();
    let own = |pairs: &[(&str, &str)]| prepare(&[1, 3, 1, 1], pairs).unwrap();
    // Keras: x / 127.5 - 1.
    let keras = own(&[("scale", "0.007843138"), ("mean", "1")]);
    for (got, want) in keras.apply(image).into_iter().zip([-1.0, -0.6, 1.0]) {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
    assert_eq!(keras.normalization().to_string(), "mean 1,1,1, std 1,1,1, scale 0.007843138, by the model's metadata");
    assert_eq!(own(&[("scale", "1")]).apply(image), [0.0, 51.0, 255.0]);
    // The default, given as a number, is the default.
    let given = own(&[("scale", &UNIT.to_string()), ("mean", "0.5"), ("std", "0.25")]);
    assert_eq!(given.apply(image), own(&[("mean", "0.5"), ("std", "0.25")]).apply(image));
    for bad in ["0", "nan", "inf", "1,2", "x", "1e-40"] {
        assert!(prepare(&[1, 3, 1, 1], &[("scale", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn a_model_of_bytes_gets_bytes() {
    let bytes = |dims: &[usize], pairs: &[(&str, &str)]| {
        let fact = Fact::new(DType::U8, Shape::new(dims).unwrap());
        Preprocess::new(&fact, &metadata(pairs), &Settings::default())
    };
    let rgb = gradient(3, 2);
    let p = bytes(&[1, 2, 3, 3], &[("crop", "2")]).err().unwrap();
    assert!(p.to_string().contains("skipstone.crop"), "{p}");
    let p = bytes(&[1, 2, 3, 3], &[]).unwrap();
    assert_eq!(p.apply(Image::new(3, 2, &rgb).unwrap()), rgb.iter().map(|&byte| f32::from(byte)).collect::<Vec<_>>());
    assert_eq!(p.normalization().origin, Origin::Input);
    for key in ["mean", "std", "scale"] {
        assert_eq!(bytes(&[1, 2, 3, 3], &[(key, "1")]).unwrap_err().code(), "model.metadata");
    }
}

#[test]
fn a_digit_may_be_a_vector() {
    let rgb: Vec<u8> = (0..28 * 28).flat_map(|i| [(i % 251) as u8; 3]).collect();
    let image = Image::new(28, 28, &rgb).unwrap();
    let square = prepare(&[1, 1, 28, 28], &[]).unwrap().apply(image);
    assert_eq!(square[250], 250.0 / 255.0);
    for dims in [&[1, 784][..], &[1, 28, 28], &[1, 28, 28, 1]] {
        assert_eq!(prepare(dims, &[]).unwrap().apply(image), square, "{dims:?}");
    }
}

/// Pillow's `ImageOps.pad` and `ImageOps.contain`, in Python's own formulas.
#[test]
fn bars_are_where_pillow_puts_them() {
    let even = |x: f64| x.round_ties_even() as usize;
    for (width, height) in [(32, 32), (48, 20), (21, 64), (7, 9)] {
        let p = prepare(&[1, 3, height, width], &[("fit", "letterbox"), ("mean", "0"), ("std", "1")]).unwrap();
        for (w, h) in [(10, 10), (100, 50), (33, 77), (640, 480), (5, 1000), (999, 3), (width, height), (64, 21)] {
            let (own, want) = (w as f64 / h as f64, width as f64 / height as f64);
            let (scaled_width, scaled_height) = if own > want {
                (width, even(h as f64 / w as f64 * width as f64).max(1))
            } else {
                (even(w as f64 / h as f64 * height as f64).max(1), height)
            };
            let left = even((width - scaled_width) as f64 * 0.5);
            let top = even((height - scaled_height) as f64 * 0.5);
            let got = p.apply(Image::new(w, h, &vec![255; w * h * 3]).unwrap());
            for (at, got) in got.into_iter().enumerate() {
                let (x, y) = (at % width, at / width % height);
                let inside = (left..left + scaled_width).contains(&x) && (top..top + scaled_height).contains(&y);
                assert_eq!(got, if inside { 1.0 } else { 0.0 }, "{w}x{h} in {width}x{height} at {x},{y}");
            }
        }
    }
}

#[test]
fn a_stretched_image_fills_the_input() {
    let sizes = |pairs: &[(&str, &str)], w, h| {
        let (across, down) = prepare(&[1, 3, 20, 30], pairs).unwrap().windows(w, h);
        [across, down].map(|window| (window.scaled, window.start, window.len))
    };
    assert_eq!(sizes(&[("fit", "stretch")], 1000, 10), [(30, 0, 30), (20, 0, 20)]);
    assert_eq!(sizes(&[("fit", "stretch"), ("resize", "24")], 10, 1000), [(36, 3, 30), (24, 2, 20)]);
}

#[test]
fn the_preparation_says_what_it_does() {
    let said = |pairs: &[(&str, &str)]| prepare(&[1, 3, 224, 224], pairs).unwrap().to_string();
    assert_eq!(said(&[("resize", "256")]), "shorter side to 256, middle 224x224, bilinear, rgb");
    assert_eq!(said(&[("fit", "stretch"), ("interpolation", "bicubic")]), "stretched to 224x224, bicubic, rgb");
    assert_eq!(said(&[("fit", "letterbox"), ("colors", "bgr")]), "whole with bars in 224x224, bilinear, bgr");
}

#[test]
fn unknown_choices_are_refused_with_the_known_ones() {
    for (key, known) in [("fit", "shortest"), ("colors", "rgb"), ("interpolation", "nearest")] {
        let error = prepare(&[1, 3, 8, 8], &[(key, "best")]).unwrap_err();
        assert_eq!(error.code(), "model.metadata");
        assert!(error.to_string().contains(known), "{error}");
    }
    assert!(prepare(&[1, 1, 8, 8], &[("colors", "rgb")]).is_err());
    assert!(prepare(&[1, 1, 8, 8], &[("colors", "gray")]).is_ok());
}

#[test]
fn defaults_are_those_of_imagenet() {
    let got = prepare(&[1, 3, 1, 1], &[]).unwrap().apply(Image::new(1, 1, &[255, 0, 51]).unwrap());
    let want = [(1.0 - 0.485) / 0.229, (0.0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225];
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < 1e-6);
    }
}

/// Regression: ImageNet's normalization was applied silently.
#[test]
fn a_normalization_names_its_origin() {
    let origin = |pairs: &[(&str, &str)], settings: &Settings| {
        let p = Preprocess::new(&input(&[1, 3, 8, 8]), &metadata(pairs), settings).unwrap();
        p.normalization().origin.clone()
    };
    let asked = |mean: Option<f32>, std: Option<f32>| Settings {
        mean: mean.map(|m| vec![m]),
        std: std.map(|s| vec![s]),
        ..Settings::default()
    };
    let told = [("mean", "0"), ("std", "1")];
    assert_eq!(origin(&[], &asked(None, None)), Origin::Assumed);
    assert_eq!(origin(&told[..1], &asked(None, None)), Origin::Assumed);
    assert_eq!(origin(&told, &asked(None, None)), Origin::Metadata);
    assert_eq!(origin(&told, &asked(Some(0.5), None)), Origin::Metadata);
    assert_eq!(origin(&told, &asked(Some(0.5), Some(0.5))), Origin::Caller);
    assert_eq!(origin(&[], &asked(Some(0.5), None)), Origin::Assumed);
    let p = prepare(&[1, 3, 8, 8], &[]).unwrap();
    assert!(p.normalization().to_string().contains("ImageNet"), "{}", p.normalization());
}

#[test]
fn settings_come_before_metadata() {
    let settings = Settings { mean: Some(vec![0.0]), std: Some(vec![1.0]), ..Settings::default() };
    let told = metadata(&[("mean", "9,9,9"), ("std", "9,9,9")]);
    let p = Preprocess::new(&input(&[1, 3, 1, 1]), &told, &settings).unwrap();
    assert_eq!(p.apply(Image::new(1, 1, &[255, 0, 51]).unwrap()), [1.0, 0.0, 0.2]);
}

#[test]
fn impossible_metadata_is_refused_with_its_key() {
    let square = [1, 3, 8, 8];
    for (pair, dims) in [
        (("mean", "a,b,c"), square),
        (("mean", "1,2"), square),
        (("mean", "nan"), square),
        (("std", "1,0,1"), square),
        (("std", ""), square),
        (("crop", "7"), square),
        (("crop", "-1"), square),
        (("resize", "7"), square),
        (("resize", "99999999999999999999"), square),
        (("resize", "1000000"), square),
        (("crop", "8"), [1, 3, 8, 16]),
    ] {
        let error = prepare(&dims, &[pair]).unwrap_err();
        assert_eq!(error.code(), "model.metadata", "{pair:?}");
        assert!(error.to_string().contains(&format!("skipstone.{}", pair.0)), "{error}");
    }
    for dims in [&[3, 8, 8][..], &[1, 5, 8, 8], &[2, 3, 8, 8], &[1, 3, 0, 8], &[1, 1000], &[]] {
        assert_eq!(prepare(dims, &[]).unwrap_err().code(), "model.image-input", "{dims:?}");
    }
}

//! Tests of `skipstone classify` with models and files as people have them.
//!
//! The scores of most models here are the elements of their input, so that a test can compare how an image was prepared
//! with the formulas of Pillow and NumPy.

mod support;

use std::path::{Path, PathBuf};

use skipstone_onnx::write::{self, Message};
use support::{Outcome, path, picture, skipstone, skipstone_on};

/// `DataType` codes.
const F32: i64 = 1;
const U8: i64 = 2;
const F16: i64 = 10;

/// A model file of these nodes, from an input `x` to an output `y`.
fn save(directory: &Path, name: &str, nodes: &[Message], x: (i64, &[i64]), y: &[(&str, i64, &[i64])]) -> String {
    let outputs: Vec<Message> = y.iter().map(|&(name, element, dims)| write::value(name, element, dims)).collect();
    let graph = write::graph(nodes, &[], &[write::value("x", x.0, x.1)], &outputs);
    let file = directory.join(name);
    std::fs::write(&file, write::model(&graph)).unwrap();
    path(&file)
}

/// A model whose scores are the elements of its input.
fn echo(directory: &Path, element: i64, dims: &[i64]) -> String {
    let count = dims.iter().product();
    let nodes = [
        write::node("Cast", &["x"], &["f"], &[write::int("to", F32)]),
        write::node("Flatten", &["f"], &["y"], &[write::int("axis", 1)]),
    ];
    save(directory, &format!("echo-{element}-{count}.onnx"), &nodes, (element, dims), &[("y", F32, &[1, count])])
}

/// The scores of an image, in the order of the classes.
fn scores(outcome: &Outcome) -> Vec<f64> {
    let json = outcome.json();
    let top = json["images"][0]["top"].as_array().unwrap();
    let mut pairs: Vec<_> =
        top.iter().map(|it| (it["index"].as_u64().unwrap(), it["score"].as_f64().unwrap())).collect();
    pairs.sort_by_key(|&(index, _)| index);
    pairs.into_iter().map(|(_, score)| score).collect()
}

/// All elements that an image becomes.
fn prepared(model: &str, image: &Path, more: &[&str]) -> Vec<f64> {
    let fixed = ["classify", model, image.to_str().unwrap(), "--json", "--top", "1000000", "--activation", "none"];
    let outcome = skipstone(fixed.iter().chain(more));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    scores(&outcome)
}

/// An image of noise with these sides.
fn noise(directory: &Path, width: u32, height: u32) -> (PathBuf, image::RgbImage) {
    let mut state = width * 31 + height;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let image = image::RgbImage::from_fn(width, height, |_, _| image::Rgb([byte(), byte(), byte()]));
    let file = directory.join(format!("noise-{width}x{height}.png"));
    image.save(&file).unwrap();
    (file, image)
}

fn near(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "{at}: {got} is not {want}");
    }
}

/// Regression: the table said `NaN %`, and the exit status was 0.
#[test]
fn scores_that_are_not_numbers_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = [
        write::node("Sqrt", &["x"], &["root"], &[]),
        write::node("Flatten", &["root"], &["y"], &[write::int("axis", 1)]),
    ];
    let model = save(directory.path(), "root.onnx", &nodes, (F32, &[1, 3, 1, 1]), &[("y", F32, &[1, 3])]);
    let dark = path(&picture(directory.path(), "dark.png", [10, 10, 10]));
    let light = path(&picture(directory.path(), "light.png", [250, 250, 250]));
    for activation in ["none", "softmax", "sigmoid"] {
        let outcome =
            skipstone(["classify", &model, &dark, &light, "--activation", activation, "--mean", "0.5", "--std", "1"]);
        assert_eq!((outcome.status, outcome.stderr.lines().count()), (1, 1), "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("error[model.output]: ") && outcome.stderr.contains("dark.png"));
        assert!(!outcome.stdout.contains("NaN") && outcome.stdout.contains("light.png"), "{}", outcome.stdout);
    }
}

#[test]
fn labels_are_read_as_people_have_them() {
    let directory = tempfile::tempdir().unwrap();
    let model = echo(directory.path(), F32, &[1, 3, 1, 1]);
    let green = path(&picture(directory.path(), "green.png", [0, 255, 0]));
    let plain = ["--mean", "0", "--std", "1"];
    for (name, text) in [
        ("lines.txt", "cat\ndog\nbird\n"),
        ("windows.txt", "\u{feff}cat\r\ndog\r\nbird\r\n"),
        ("macintosh.txt", "cat\rdog\rbird\r"),
        ("list.json", r#"["cat", "dog", "bird"]"#),
        ("list.txt", r#"["cat", "dog", "bird"]"#),
        ("indices.json", r#"{"2": "bird", "1": "dog", "0": "cat"}"#),
        ("class_indices.json", r#"{"bird": 2, "cat": 0, "dog": 1}"#),
        ("titles.csv", "index,name\n0,cat\n1,dog\n2,bird\n"),
        ("rows.csv", "2,bird\n1,dog\n0,cat\n"),
    ] {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        let labels = ["--labels", file.to_str().unwrap()];
        let json = skipstone(["classify", &model, &green, "--json"].iter().chain(&plain).chain(&labels)).json();
        assert_eq!(json["images"][0]["top"][0]["label"], "dog", "{name}: {json}");
        let package = path(&directory.path().join("model.skip"));
        skipstone(["compile", &model, "-o", &package].iter().chain(&labels)).success();
        let json = skipstone(["inspect", &package, "--json"]).json();
        let stored = json["package"]["metadata"]["skipstone.labels"].as_str().unwrap().to_owned();
        let stored: Vec<&str> = stored.split(['\r', '\n']).filter(|it| !it.is_empty()).collect();
        assert_eq!(
            stored.iter().map(|it| it.trim_start_matches('\u{feff}')).collect::<Vec<_>>(),
            ["cat", "dog", "bird"]
        );
        let json = skipstone(["classify", &package, &green, "--json"].iter().chain(&plain)).json();
        assert_eq!(json["images"][0]["top"][0]["label"], "dog", "{name}: {json}");
    }
    let gap = directory.path().join("gap.json");
    std::fs::write(&gap, r#"{"0": "cat", "2": "dog", "3": "bird"}"#).unwrap();
    skipstone(["classify", &model, &green, "--labels", &path(&gap)]).fault("labels");
}

/// Regression: labels were used by index, however many there were.
#[test]
fn labels_for_other_classes_are_refused_with_both_counts() {
    let directory = tempfile::tempdir().unwrap();
    let model = echo(directory.path(), F32, &[1, 3, 1, 1]);
    let green = path(&picture(directory.path(), "green.png", [0, 255, 0]));
    let package = path(&directory.path().join("model.skip"));
    for (count, text) in [(2, "cat\ndog\n"), (5, "a\nb\nc\nd\ne\n")] {
        let file = path(&directory.path().join("labels.txt"));
        std::fs::write(&file, text).unwrap();
        let localized = format!("de={file}");
        for arguments in [
            vec!["classify", &model, &green, "--labels", &file],
            vec!["compile", &model, "-o", &package, "--labels", &file],
            vec!["compile", &model, "-o", &package, "--labels-for", &localized],
        ] {
            let outcome = skipstone(&arguments);
            outcome.fault("input.label");
            assert!(outcome.stderr.contains(&format!("{count} labels")) && outcome.stderr.contains("3 classes"));
        }
    }
    assert!(!Path::new(&package).exists());
}

#[test]
fn other_formats_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let model = support::model("color.onnx");
    for (name, bytes, want) in [
        ("photo.heic", &b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "a HEIC picture"),
        // A phone's picture with the name of another format.
        ("photo.jpg", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC picture"),
        ("photo.avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "an AVIF picture"),
        ("anim.gif", b"GIF89a\x01\0\x01\0\0\0\0;", "a GIF picture"),
        ("scan.tif", b"II*\0\x08\0\0\0", "a TIFF picture"),
        ("page.jpg", b"<!DOCTYPE html><html></html>", "an HTML page"),
    ] {
        let file = directory.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let outcome = skipstone(["classify", &model, &path(&file)]);
        assert_eq!((outcome.status, outcome.stderr.lines().count()), (1, 1), "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("error[image]: ") && outcome.stderr.contains(name), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains(want) && outcome.stderr.contains("png, jpg, bmp and webp"),
            "{}",
            outcome.stderr
        );
        std::fs::remove_file(file).unwrap();
    }
}

/// Regression: photos of a phone in a directory were left out without a word.
#[test]
fn pictures_that_a_directory_leaves_out_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let model = support::model("color.onnx");
    for name in ["a.heic", "b.HEIC", "c.gif", "notes.txt"] {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    let outcome = skipstone(["classify", &model, &path(directory.path())]);
    outcome.fault("image");
    assert!(outcome.stderr.contains("3 of other formats"), "{}", outcome.stderr);
    picture(directory.path(), "d.png", [255, 0, 0]);
    let outcome = skipstone(["classify", &model, &path(directory.path())]);
    assert_eq!(outcome.status, 0);
    assert!(outcome.stderr.starts_with("note: ") && outcome.stderr.contains("3 pictures"), "{}", outcome.stderr);
}

/// scikit-learn's converter puts the label first, and the probabilities second.
#[test]
fn scores_may_come_after_a_label() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = [
        write::node("GlobalAveragePool", &["x"], &["mean"], &[]),
        write::node("Flatten", &["mean"], &["logits"], &[write::int("axis", 1)]),
        write::node("Softmax", &["logits"], &["scores"], &[write::int("axis", 1)]),
        write::node("ArgMax", &["logits"], &["label"], &[write::int("axis", 1), write::int("keepdims", 0)]),
    ];
    let outputs: [(&str, i64, &[i64]); 2] = [("label", 7, &[1]), ("scores", F32, &[1, 3])];
    let model = save(directory.path(), "label.onnx", &nodes, (F32, &[1, 3, 4, 4]), &outputs);
    let blue = path(&picture(directory.path(), "blue.png", [0, 0, 255]));
    let outcome = skipstone(["classify", &model, &blue, "--json", "--mean", "0", "--std", "1"]);
    let json = outcome.json();
    assert!(json["scores"].as_str().unwrap().starts_with("softmax inside the model"), "{json}");
    let e = std::f64::consts::E;
    near(&scores(&outcome), &[1.0 / (e + 2.0), 1.0 / (e + 2.0), e / (e + 2.0)], 1e-6);

    let model = save(directory.path(), "only.onnx", &nodes, (F32, &[1, 3, 4, 4]), &outputs[..1]);
    let outcome = skipstone(["classify", &model, &blue]);
    assert!(
        outcome.stderr.starts_with("error[model.output]: ") && outcome.stderr.contains("i64"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn inputs_may_be_bytes_or_half_precision() {
    let directory = tempfile::tempdir().unwrap();
    let (file, image) = noise(directory.path(), 6, 4);
    let bytes = |c: usize| image.pixels().map(move |pixel| f64::from(pixel.0[c]));
    let interleaved: Vec<f64> = image.as_raw().iter().map(|&byte| f64::from(byte)).collect();
    let model = echo(directory.path(), U8, &[1, 4, 6, 3]);
    assert_eq!(prepared(&model, &file, &[]), interleaved);
    let told = skipstone(["classify", &model, &path(&file)]).success();
    assert!(told.contains("scale 1, by the model's input"), "{told}");
    skipstone(["classify", &model, &path(&file), "--mean", "0.5"]).fault("model.metadata");

    let model = echo(directory.path(), F16, &[1, 3, 4, 6]);
    let planar: Vec<f64> = (0..3).flat_map(|c| bytes(c).map(|byte| byte / 255.0)).collect();
    // Ten fraction bits.
    near(&prepared(&model, &file, &["--mean", "0", "--std", "1"]), &planar, 0.5f64.powi(11));
}

#[test]
fn a_digit_may_be_a_vector() {
    let directory = tempfile::tempdir().unwrap();
    let (file, image) = noise(directory.path(), 28, 28);
    let luma = |[r, g, b]: [u8; 3]| 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b);
    let want: Vec<f64> = image.pixels().map(|pixel| luma(pixel.0) / 255.0).collect();
    let nodes = [write::node("Mul", &["x", "one"], &["y"], &[])];
    let one = [write::f32s("one", &[1], &[1.0])];
    for dims in [&[1, 784][..], &[-1, 784]] {
        let (x, y) = (write::value("x", F32, dims), write::value("y", F32, dims));
        let model = directory.path().join("vector.onnx");
        std::fs::write(&model, write::model(&write::graph(&nodes, &one, &[x], &[y]))).unwrap();
        let fixed = ["classify", model.to_str().unwrap(), file.to_str().unwrap(), "--json", "--top", "784"];
        let outcome = skipstone(fixed.iter().chain(&["--activation", "none"]));
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        near(&scores(&outcome), &want, 0.51 / 255.0);
    }
}

#[test]
fn colors_and_scale_follow_the_options() {
    let directory = tempfile::tempdir().unwrap();
    let model = echo(directory.path(), F32, &[1, 3, 1, 1]);
    let file = picture(directory.path(), "color.png", [200, 100, 50]);
    let own = |more: &[&str]| prepared(&model, &file, more);
    near(&own(&["--scale", "1"]), &[200.0, 100.0, 50.0], 0.0);
    near(&own(&["--scale", "1", "--colors", "bgr"]), &[50.0, 100.0, 200.0], 0.0);
    // Pillow's convert("L"): (200 * 19595 + 100 * 38470 + 50 * 7471 + 0x8000) >> 16.
    near(&own(&["--scale", "1", "--colors", "gray"]), &[124.0; 3], 0.0);
    // Keras: "tf" is x / 127.5 - 1, "caffe" is BGR minus a mean.
    near(&own(&["--scale", "1/127.5", "--mean", "1"]), &[200.0, 100.0, 50.0].map(|x| x / 127.5 - 1.0), 1e-6);
    let caffe = own(&["--scale", "1", "--colors", "bgr", "--mean", "103.939,116.779,123.68"]);
    near(&caffe, &[50.0 - 103.939, 100.0 - 116.779, 200.0 - 123.68], 1e-5);
    let torch = own(&[]);
    near(
        &torch,
        &[(200.0 / 255.0 - 0.485) / 0.229, (100.0 / 255.0 - 0.456) / 0.224, (50.0 / 255.0 - 0.406) / 0.225],
        1e-6,
    );
    let reversed: Vec<f64> = own(&["--colors", "bgr"]).into_iter().rev().collect();
    near(&reversed, &torch, 0.0);
    let all = |option, value| skipstone(["classify", &model, &path(&file), option, value]);
    all("--colors", "cmyk").usage("rgb, bgr or gray");
    all("--scale", "1/0").usage("--scale");
    all("--interpolation", "cubic").usage("bicubic");
    all("--resize", "crop").usage("letterbox");
    let gray = echo(directory.path(), F32, &[1, 1, 1, 1]);
    skipstone(["classify", &gray, &path(&file), "--colors", "bgr"]).fault("model.metadata");
}

/// One axis of Pillow's `Image.resize`: weights of the source pixels.
fn weights(by: &str, source: usize, scaled: usize, at: usize) -> Vec<f64> {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
    let scale = source as f64 / scaled as f64;
    let unit = if matches!(by, "nearest" | "linear") { 1.0 } else { scale.max(1.0) };
    let weight = |x: f64| match (by, x.abs()) {
        ("bilinear" | "linear", x) => (1.0 - x).max(0.0),
        ("bicubic", x) if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
        ("bicubic", x) if x < 2.0 => -0.5 * (x.powi(3) - 5.0 * x.powi(2) + 8.0 * x - 4.0),
        ("lanczos", x) if x < 3.0 => sinc(x) * sinc(x / 3.0),
        ("box" | "nearest", _) if -0.5 < x && x <= 0.5 => 1.0,
        _ => 0.0,
    };
    let raw: Vec<f64> = (0..source).map(|i| weight((i as f64 + 0.5 - (at as f64 + 0.5) * scale) / unit)).collect();
    let total: f64 = raw.iter().sum();
    raw.into_iter().map(|weight| weight / total).collect()
}

/// Pillow's `Image.resize`: across, rounded to bytes, then down.
fn resized(image: &image::RgbImage, by: &str, width: usize, height: usize) -> Vec<[f64; 3]> {
    let (columns, rows) = (image.width() as usize, image.height() as usize);
    let across: Vec<Vec<f64>> = (0..width).map(|x| weights(by, columns, width, x)).collect();
    let byte = |level: f64| level.round().clamp(0.0, 255.0);
    let sum =
        |weights: &[f64], of: &dyn Fn(usize) -> f64| byte(weights.iter().enumerate().map(|(i, w)| w * of(i)).sum());
    let pixel = |x: usize, y: usize, c: usize| f64::from(image.get_pixel(x as u32, y as u32).0[c]);
    let narrow: Vec<Vec<[f64; 3]>> = (0..rows)
        .map(|y| across.iter().map(|taps| std::array::from_fn(|c| sum(taps, &|x| pixel(x, y, c)))).collect())
        .collect();
    let down = (0..height).map(|y| weights(by, rows, height, y));
    down.flat_map(|taps| {
        (0..width).map(|x| std::array::from_fn(|c| sum(&taps, &|y| narrow[y][x][c]))).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn images_are_resized_like_pillows() {
    let directory = tempfile::tempdir().unwrap();
    let (height, width) = (12, 16);
    let model = echo(directory.path(), F32, &[1, height as i64, width as i64, 3]);
    for (file, image) in [noise(directory.path(), 37, 21), noise(directory.path(), 9, 30)] {
        let (w, h) = (image.width() as usize, image.height() as usize);
        for by in ["bilinear", "bicubic", "lanczos", "box", "nearest", "linear"] {
            let own = |how| prepared(&model, &file, &["--scale", "1", "--interpolation", by, "--resize", how]);
            // A level more or less where floating point rounds the other way.
            let flat = |pixels: &[[f64; 3]]| pixels.as_flattened().to_vec();
            near(&own("stretch"), &flat(&resized(&image, by, width, height)), 1.0);

            // torchvision.transforms.Resize of the shorter side, and CenterCrop.
            let short = if w * height <= h * width { (width, width * h / w) } else { (height * w / h, height) };
            let whole = resized(&image, by, short.0, short.1);
            let (left, top) = (
                ((short.0 - width) as f64 / 2.0).round_ties_even() as usize,
                ((short.1 - height) as f64 / 2.0).round_ties_even() as usize,
            );
            let crop: Vec<_> = (0..height)
                .flat_map(|y| (0..width).map(move |x| (x, y)))
                .map(|(x, y)| whole[(top + y) * short.0 + left + x])
                .collect();
            near(&own("shortest"), &flat(&crop), 1.0);

            // PIL.ImageOps.pad.
            let ratio = w as f64 / h as f64;
            let long = if ratio > width as f64 / height as f64 {
                (width, (h as f64 / w as f64 * width as f64).round_ties_even() as usize)
            } else {
                ((ratio * height as f64).round_ties_even() as usize, height)
            };
            let whole = resized(&image, by, long.0, long.1);
            let (left, top) = (
                ((width - long.0) as f64 * 0.5).round_ties_even() as usize,
                ((height - long.1) as f64 * 0.5).round_ties_even() as usize,
            );
            let inside = |x: usize, y: usize| (left..left + long.0).contains(&x) && (top..top + long.1).contains(&y);
            let padded: Vec<_> = (0..height)
                .flat_map(|y| (0..width).map(move |x| (x, y)))
                .map(|(x, y)| if inside(x, y) { whole[(y - top) * long.0 + x - left] } else { [0.0; 3] })
                .collect();
            near(&own("letterbox"), &flat(&padded), 1.0);
        }
    }
}

/// A package gives what the model gives with the options that it was compiled with.
#[test]
fn image_options_are_stored_in_packages() {
    let directory = tempfile::tempdir().unwrap();
    let model = echo(directory.path(), F32, &[1, 3, 8, 8]);
    let package = path(&directory.path().join("model.skip"));
    let (file, _) = noise(directory.path(), 23, 17);
    for options in [
        &[
            "--resize",
            "letterbox",
            "--colors",
            "bgr",
            "--scale",
            "1/127.5",
            "--mean",
            "1",
            "--interpolation",
            "bicubic",
        ][..],
        &["--resize", "stretch:10", "--colors", "gray", "--interpolation", "nearest"],
        &["--resize", "9", "--mean", "0.1,0.2,0.3", "--std", "0.5"],
    ] {
        let said = skipstone(["compile", &model, "-o", &package, "--activation", "none"].iter().chain(options));
        assert_eq!(said.stderr.contains("camera frames"), options.contains(&"bicubic"), "{}", said.stderr);
        let said = said.stdout;
        let shown = skipstone(["classify", &package, &path(&file), "--top", "1"]).success();
        let line = said.lines().find(|line| line.starts_with("image: ")).unwrap();
        assert!(shown.contains(&format!("{line}\n")), "{said}{shown}");
        let json = skipstone(["inspect", &package, "--json"]).json();
        assert_eq!(json["classifier"]["image"], line.trim_start_matches("image: "));
        assert_eq!(prepared(&package, &file, &[]), prepared(&model, &file, options), "{options:?}");
    }
}

#[test]
fn standard_input_is_a_model_or_an_image_and_standard_output_a_package() {
    let directory = tempfile::tempdir().unwrap();
    let color = support::model("color.onnx");
    let model = std::fs::read(&color).unwrap();
    let green = picture(directory.path(), "green.png", [0, 255, 0]);
    let image = std::fs::read(&green).unwrap();
    let best = |json: &serde_json::Value| json["images"][0]["top"][0]["label"].clone();
    let outcome = skipstone_on(["classify", &color, "-", "--json"], &image);
    assert_eq!(best(&serde_json::from_slice(&outcome.stdout).unwrap()), "green", "{}", outcome.stderr);
    let outcome = skipstone_on(["classify", "-", &path(&green), "--json"], &model);
    assert_eq!(best(&serde_json::from_slice(&outcome.stdout).unwrap()), "green", "{}", outcome.stderr);

    let package = skipstone_on(["compile", "-", "-o", "-"], &model);
    assert_eq!(package.status, 0, "{}", package.stderr);
    assert!(package.stderr.contains("normalization: "), "{}", package.stderr);
    let file = path(&directory.path().join("color.skip"));
    skipstone(["compile", &color, "-o", &file]).success();
    assert!(package.stdout == std::fs::read(&file).unwrap(), "another package than in a file");

    for twice in [["classify", "-", "-"], ["classify", &color, "-"]] {
        let outcome = skipstone_on(twice.iter().chain(&["-"]), &image);
        assert_eq!(outcome.status, 2, "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("error[usage]: - is given twice"), "{}", outcome.stderr);
    }
    let outcome = skipstone_on(["classify", &color, "-"], b"");
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.starts_with("error[image]: ") && outcome.stderr.contains("empty"), "{}", outcome.stderr);
}

#[test]
fn arrays_come_and_go_by_standard_input_and_output() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = [write::node("Relu", &["x"], &["y"], &[])];
    let model = save(directory.path(), "relu.onnx", &nodes, (F32, &[2, 2]), &[("y", F32, &[2, 2])]);
    let array = support::npy(directory.path(), "x.npy", "(2, 2)", &[1.0, -2.0, 0.5, -0.0]);
    let outcome = skipstone_on(["run", &model, "--input", "x=-", "--output-dir", "-"], &std::fs::read(&array).unwrap());
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let file = directory.path().join("y.npy");
    std::fs::write(&file, outcome.stdout).unwrap();
    assert_eq!(support::read_npy(&file).1, [1.0, 0.0, 0.5, 0.0]);
    let (a, sums) = (format!("a={}", path(&array)), support::model("sums.onnx"));
    let b = a.replace("a=", "b=");
    skipstone(["run", &sums, "--input", &a, "--input", &b, "--output-dir", "-"]).usage("2 outputs");
    skipstone(["run", &sums, "--input", "a=-", "--input", "b=-", "--output-dir", "-"]).usage("- is given twice");
}

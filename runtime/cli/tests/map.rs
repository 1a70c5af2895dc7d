//! Tests of `skipstone classify --map`: the drawn picture, pixel by pixel, against formulas in a few plain lines.

mod support;

use std::path::Path;

use image::RgbImage;
use skipstone_onnx::write::{self, Message};
use support::{path, picture, skipstone, skipstone_on};

/// `DataType` codes.
const F32: i64 = 1;
const I64: i64 = 7;
const F16: i64 = 10;
/// Side of the input of these models.
const SIDE: i64 = 4;

/// A model of 4x4 images whose `score` is the mean of the channels; `nodes` compute the outputs `more` from `zero`,
/// which is 0 and has the shape 1x1x1x1.
fn save(directory: &Path, nodes: &[Message], weights: &[Message], more: &[Message]) -> String {
    let fixed = [
        write::node("GlobalAveragePool", &["x"], &["mean"], &[]),
        write::node("Flatten", &["mean"], &["score"], &[write::int("axis", 1)]),
        write::node("Conv", &["mean", "nothing"], &["zero"], &[]),
    ];
    let nothing = write::f32s("nothing", &[1, 3, 1, 1], &[0.0; 3]);
    let score = [write::value("score", F32, &[1, 3])];
    let graph = write::graph(
        &[&fixed[..], nodes].concat(),
        &[&[nothing][..], weights].concat(),
        &[write::value("x", F32, &[1, 3, SIDE, SIDE])],
        &[&score[..], more].concat(),
    );
    let file = directory.join("model.onnx");
    std::fs::write(&file, write::model(&graph)).unwrap();
    path(&file)
}

/// The node and the weight of a map with these values, whatever the image.
fn map(name: &str, dims: &[i64], values: &[f32]) -> (Message, Message) {
    let constant = format!("{name} values");
    (write::node("Add", &["zero", &constant], &[name], &[]), write::f32s(&constant, dims, values))
}

/// A model with one map.
fn with_map(directory: &Path, dims: &[i64], values: &[f32]) -> String {
    let (node, weight) = map("heat", dims, values);
    save(directory, &[node], &[weight], &[write::value("heat", F32, dims)])
}

/// Numbers from 0 to 1.
fn noise(count: usize, mut state: u32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| next()).collect()
}

fn noisy_picture(directory: &Path, width: u32, height: u32) -> (String, RgbImage) {
    let bytes = noise((width * height * 3) as usize, width * 31 + height).iter().map(|it| (it * 256.0) as u8).collect();
    let image = RgbImage::from_raw(width, height, bytes).unwrap();
    let file = directory.join(format!("noise-{width}x{height}.png"));
    image.save(&file).unwrap();
    (path(&file), image)
}

/// The value of a map at a point of the input, both coordinates from 0 to 1: bilinear between the centers of its
/// elements, and constant beyond the outermost.
fn value_at(values: &[f32], (height, width): (usize, usize), u: f64, v: f64) -> f64 {
    let mut sum = 0.0;
    for row in 0..height {
        for column in 0..width {
            let near = |point: f64, index: usize, count: usize| {
                let point = (point * count as f64 - 0.5).clamp(0.0, count as f64 - 1.0);
                (1.0 - (point - index as f64).abs()).max(0.0)
            };
            sum += near(u, column, width) * near(v, row, height) * f64::from(values[row * width + column]);
        }
    }
    sum
}

/// Red where the heat is 1, nothing where it is 0; six tenths of a pixel at most.
fn tinted(pixel: [u8; 3], heat: f64) -> [f64; 3] {
    let color = [255.0, 255.0 - 255.0 * heat, 0.0];
    std::array::from_fn(|c| f64::from(pixel[c]) * (1.0 - 0.6 * heat) + color[c] * 0.6 * heat)
}

/// Compares a drawn picture with the formulas; `region` is left, top, width and height of what the model saw.
#[track_caller]
fn check(
    drawn: &RgbImage,
    source: &RgbImage,
    values: &[f32],
    sides: (usize, usize),
    region: [f64; 4],
    range: [f64; 2],
) {
    assert_eq!(drawn.dimensions(), source.dimensions());
    let mut tinted_pixels = 0;
    for (x, y, pixel) in drawn.enumerate_pixels() {
        let u = (f64::from(x) + 0.5 - region[0]) / region[2];
        let v = (f64::from(y) + 0.5 - region[1]) / region[3];
        let seen = (0.0..1.0).contains(&u) && (0.0..1.0).contains(&v);
        let heat = (value_at(values, sides, u, v) - range[0]) / (range[1] - range[0]);
        let before = source.get_pixel(x, y).0;
        let want = tinted(before, if seen { heat.clamp(0.0, 1.0) } else { 0.0 });
        for (c, (have, want)) in pixel.0.into_iter().zip(want).enumerate() {
            assert!((f64::from(have) - want).abs() <= 0.51, "{x},{y},{c}: {have} is not {want}");
        }
        tinted_pixels += usize::from(pixel.0 != before);
    }
    assert!(tinted_pixels > 0);
}

fn range(values: &[f32]) -> [f64; 2] {
    let fold = |least: fn(f32, f32) -> f32| f64::from(values.iter().copied().reduce(least).unwrap());
    [fold(f32::min), fold(f32::max)]
}

#[test]
fn the_map_covers_what_the_model_saw() {
    let directory = tempfile::tempdir().unwrap();
    let out = path(&directory.path().join("out.png"));
    for ((width, height), resize, region) in [
        ((4, 4), "4", [0.0, 0.0, 4.0, 4.0]),
        ((12, 8), "4", [2.0, 0.0, 8.0, 8.0]),
        ((8, 20), "shortest", [0.0, 6.0, 8.0, 8.0]),
        // Resized to 16x8, of which the middle 4x4 are cut out.
        ((16, 8), "8", [6.0, 2.0, 4.0, 4.0]),
        ((16, 24), "stretch:8", [4.0, 6.0, 8.0, 12.0]),
        ((5, 3), "stretch", [0.0, 0.0, 5.0, 3.0]),
        ((1, 1), "stretch", [0.0, 0.0, 1.0, 1.0]),
        ((37, 1), "stretch", [0.0, 0.0, 37.0, 1.0]),
        ((12, 6), "letterbox", [0.0, -3.0, 12.0, 12.0]),
        ((6, 12), "letterbox", [-3.0, 0.0, 12.0, 12.0]),
        // Two columns of bars on the left and one on the right.
        ((3, 12), "letterbox", [-6.0, 0.0, 12.0, 12.0]),
    ] {
        let (file, source) = noisy_picture(directory.path(), width, height);
        for (rows, columns) in [(4, 4), (2, 3), (7, 5), (16, 2)] {
            let values = noise(rows * columns, width * 7 + rows as u32);
            let model = with_map(directory.path(), &[1, 1, rows as i64, columns as i64], &values);
            let told = skipstone(["classify", &model, &file, "--map", &out, "--resize", resize]).success();
            assert!(told.contains("map: output heat, from ") && told.contains("out.png"), "{told}");
            check(&image::open(&out).unwrap().into_rgb8(), &source, &values, (rows, columns), region, range(&values));
        }
    }
}

#[test]
fn a_package_draws_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = noisy_picture(directory.path(), 9, 7);
    let values = noise(6, 5);
    let model = with_map(directory.path(), &[1, 1, 2, 3], &values);
    let [package, one, two] = ["model.skip", "one.png", "two.png"].map(|name| path(&directory.path().join(name)));
    skipstone(["compile", &model, "-o", &package]).success();
    skipstone(["classify", &model, &file, "--map", &one]).success();
    skipstone(["classify", &package, &file, "--map", &two]).success();
    assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
}

#[test]
fn maps_have_other_shapes_and_types() {
    let directory = tempfile::tempdir().unwrap();
    let out = path(&directory.path().join("out.png"));
    let (file, source) = noisy_picture(directory.path(), 6, 6);
    let values = noise(15, 3);
    let whole = [0.0, 0.0, 6.0, 6.0];
    let draw = |model: &str, more: &[&str]| {
        skipstone(["classify", model, &file, "--map", &out].iter().chain(more)).success();
        image::open(&out).unwrap().into_rgb8()
    };
    let drawn = draw(&with_map(directory.path(), &[1, 5, 3, 1], &values), &[]);
    check(&drawn, &source, &values, (5, 3), whole, range(&values));

    // Without the axis of channels it could be anything, so it is named.
    let shaped = [
        write::node("Add", &["zero", "values"], &["sum"], &[]),
        write::node("Reshape", &["sum", "dims"], &["heat"], &[]),
    ];
    for dims in [&[1, 5, 3][..], &[5, 3]] {
        let weights = [write::f32s("values", &[1, 1, 5, 3], &values), write::i64s("dims", &[dims.len() as i64], dims)];
        let model = save(directory.path(), &shaped, &weights, &[write::value("heat", F32, dims)]);
        skipstone(["classify", &model, &file, "--map", &out]).fault("model.output");
        let drawn = draw(&model, &["--map-output", "heat"]);
        check(&drawn, &source, &values, (5, 3), whole, range(&values));
    }

    let halves = [
        write::node("Add", &["zero", "values"], &["sum"], &[]),
        write::node("Cast", &["sum"], &["heat"], &[write::int("to", F16)]),
    ];
    // Exact in half precision.
    let values: Vec<f32> = values.iter().map(|value| (value * 64.0).round()).collect();
    let weight = write::f32s("values", &[1, 1, 5, 3], &values);
    let model = save(directory.path(), &halves, &[weight], &[write::value("heat", F16, &[1, 1, 5, 3])]);
    check(&draw(&model, &[]), &source, &values, (5, 3), whole, range(&values));
}

#[test]
fn the_range_may_be_fixed() {
    let directory = tempfile::tempdir().unwrap();
    let out = path(&directory.path().join("out.png"));
    let (file, source) = noisy_picture(directory.path(), 8, 8);
    let values = noise(16, 9);
    let model = with_map(directory.path(), &[1, 1, 4, 4], &values);
    for (text, range) in [("0.25,0.5", [0.25, 0.5]), ("-1,3", [-1.0, 3.0])] {
        let outcome = skipstone(["classify", &model, &file, "--map", &out, "--map-range", text, "--json"]);
        let map = &outcome.json()["images"][0]["map"];
        assert_eq!((map["low"].as_f64().unwrap(), map["high"].as_f64().unwrap()), (range[0], range[1]));
        assert_eq!((map["output"].as_str().unwrap(), map["file"].as_str().unwrap()), ("heat", out.as_str()));
        let drawn = image::open(&out).unwrap().into_rgb8();
        check(&drawn, &source, &values, (4, 4), [0.0, 0.0, 8.0, 8.0], range);
    }
    for bad in ["1", "1,0", "0,0", "0,nan", "a,b", "0,inf"] {
        skipstone(["classify", &model, &file, "--map", &out, "--map-range", bad]).usage("--map-range");
    }
}

/// One value everywhere shows no place, so nothing is tinted.
#[test]
fn a_flat_map_leaves_the_picture() {
    let directory = tempfile::tempdir().unwrap();
    let out = path(&directory.path().join("out.png"));
    let (file, source) = noisy_picture(directory.path(), 5, 6);
    let model = with_map(directory.path(), &[1, 1, 2, 2], &[0.5; 4]);
    skipstone(["classify", &model, &file, "--map", &out]).success();
    assert_eq!(image::open(&out).unwrap().into_rgb8(), source);
}

#[test]
fn the_picture_may_be_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let out = path(&directory.path().join("out.png"));
    let (file, _) = noisy_picture(directory.path(), 5, 6);
    let model = with_map(directory.path(), &[1, 1, 3, 2], &noise(6, 2));
    skipstone(["classify", &model, &file, "--map", &out]).success();
    for more in [&["--top", "1"][..], &["--json"]] {
        let piped = skipstone_on(["classify", &model, &file, "--map", "-"].iter().chain(more), &[]);
        assert_eq!((piped.status, piped.stdout), (0, std::fs::read(&out).unwrap()));
        assert!(piped.stderr.contains("class "), "{}", piped.stderr);
    }
}

#[test]
fn what_is_no_map_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.png");
    let target = path(&out);
    let dark = path(&picture(directory.path(), "dark.png", [10, 20, 30]));
    let refused = |model: &str, more: &[&str], reasons: &[&str]| {
        let outcome = skipstone(["classify", model, &dark, "--map", &target].iter().chain(more));
        outcome.fault("model.output");
        for reason in reasons {
            assert!(outcome.stderr.contains(reason), "{}", outcome.stderr);
        }
    };
    let plain = support::model("color.onnx");
    refused(&plain, &[], &["no output is a map"]);

    // Three channels, one row, and an integer for every place.
    let (several, weight) = map("several", &[1, 3, 2, 2], &[0.5; 12]);
    let (row, other) = map("row", &[1, 1, 1, 4], &[0.5; 4]);
    let (third, last) = map("third", &[1, 1, 2, 2], &[0.5; 4]);
    let whole = write::node("Cast", &["third"], &["whole"], &[write::int("to", I64)]);
    let outputs = [
        write::value("several", F32, &[1, 3, 2, 2]),
        write::value("row", F32, &[1, 1, 1, 4]),
        write::value("whole", I64, &[1, 1, 2, 2]),
    ];
    let model = save(directory.path(), &[several, row, third, whole], &[weight, other, last], &outputs);
    refused(&model, &[], &["no output is a map", "several", "row", "whole"]);
    for name in ["several", "row", "whole", "score"] {
        refused(&model, &["--map-output", name], &[name, "one float for every place"]);
    }
    refused(&model, &["--map-output", "heat"], &["no output is named 'heat'", "several"]);

    let (one, weight) = map("one", &[1, 1, 2, 2], &[0.1, 0.2, 0.3, 0.4]);
    let (two, other) = map("two", &[1, 1, 3, 3], &noise(9, 4));
    let outputs = [write::value("one", F32, &[1, 1, 2, 2]), write::value("two", F32, &[1, 1, 3, 3])];
    let model = save(directory.path(), &[one, two], &[weight, other], &outputs);
    refused(&model, &[], &["--map-output", "one", "two"]);
    assert!(!out.exists());
    skipstone(["classify", &model, &dark, "--map", &target, "--map-output", "two"]).success();
    std::fs::remove_file(&out).unwrap();

    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let model = with_map(directory.path(), &[1, 1, 2, 2], &[0.1, value, 0.3, 0.4]);
        let outcome = skipstone(["classify", &model, &dark, "--map", &target]);
        assert_eq!((outcome.status, outcome.stderr.lines().count()), (1, 1), "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("error[model.output]: ") && outcome.stderr.contains("not finite"));
        assert!(!out.exists());
    }
}

#[test]
fn the_options_fit_together() {
    let directory = tempfile::tempdir().unwrap();
    let dark = path(&picture(directory.path(), "dark.png", [10, 20, 30]));
    let model = with_map(directory.path(), &[1, 1, 2, 2], &[0.1, 0.2, 0.3, 0.4]);
    let out = path(&directory.path().join("out.png"));
    skipstone(["classify", &model, &dark, &dark, "--map", &out]).usage("one image, but 2 are given");
    skipstone(["classify", &model, &dark, "--map", "out.jpg"]).usage("png");
    skipstone(["classify", &model, &dark, "--map-output", "heat"]).usage("--map");
    skipstone(["classify", &model, &dark, "--map-range", "0,1"]).usage("--map");
    let missing = directory.path().join("missing").join("out.png");
    let outcome = skipstone(["classify", &model, &dark, "--map", &path(&missing)]);
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.starts_with("error[io]: ") && outcome.stderr.contains("missing"), "{}", outcome.stderr);
}

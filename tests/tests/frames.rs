//! A camera frame is classified like the image that it shows, in any orientation of the camera.

use image::RgbImage;
use skipstone::classify::{Classifier, Image, Prediction, Settings};
use skipstone::vision::{Frame, Rotation};
use skipstone::{Model, Options};

/// The samples are smaller than a camera's frame: each pixel becomes a block.
const ENLARGE: u32 = 4;

/// The image as NV21: BT.601, full range, each block with the chroma of its first pixel.
fn nv21(picture: &RgbImage) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let levels = |x, y| picture.get_pixel(x, y).0.map(f32::from);
    let luma = |[r, g, b]: [f32; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let mut bytes: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| luma(levels(x, y)).round() as u8)
        .collect();
    for (x, y) in (0..height).step_by(2).flat_map(|y| (0..width).step_by(2).map(move |x| (x, y))) {
        let rgb = levels(x, y);
        let chroma = |level: f32, weight: f32| ((level - luma(rgb)) / (2.0 - 2.0 * weight) + 128.0).round() as u8;
        bytes.extend([chroma(rgb[0], 0.299), chroma(rgb[2], 0.114)]);
    }
    bytes
}

/// The image that NV21 shows, rounded to bytes.
fn shown(width: u32, height: u32, nv21: &[u8]) -> RgbImage {
    let pairs = &nv21[(width * height) as usize..];
    RgbImage::from_fn(width, height, |x, y| {
        let luma = f32::from(nv21[(y * width + x) as usize]);
        let pair = (y / 2 * width + x / 2 * 2) as usize;
        let (red, blue) = (f32::from(pairs[pair]) - 128.0, f32::from(pairs[pair + 1]) - 128.0);
        let rgb = [luma + 1.402 * red, luma - 0.714_136 * red - 0.344_136 * blue, luma + 1.772 * blue];
        image::Rgb(rgb.map(|level| level.round() as u8))
    })
}

/// What the sensor stores if `rotation` makes the image upright.
fn on_sensor(picture: &RgbImage, rotation: Rotation) -> RgbImage {
    match rotation {
        Rotation::None => picture.clone(),
        Rotation::Quarter => image::imageops::rotate270(picture),
        Rotation::Half => image::imageops::rotate180(picture),
        Rotation::ThreeQuarters => image::imageops::rotate90(picture),
    }
}

fn classify(classifier: &mut Classifier, picture: &RgbImage) -> Prediction {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let image = Image::new(width, height, picture).expect("as many bytes as pixels");
    classifier.classify(image, 1).expect("scores").remove(0)
}

/// If the model is unsure, one level may decide: the two paths round at different places.
const SURE: f32 = 0.7;

fn assert_same(got: &[Prediction], want: &Prediction, what: &str) {
    if want.score >= SURE {
        assert_eq!(got[0].label, want.label, "{what}");
        assert!((got[0].score - want.score).abs() <= 0.05, "{what}: {got:?} instead of {want:?}");
    }
}

#[test]
fn frames_are_classified_as_their_pictures() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");
    let model =
        Model::open(format!("{root}/pretrained/simplenet-310k-cifar10.onnx"), &Options::default()).expect("a model");
    let mut classifier = Classifier::new(&model, &Settings::default(), None).expect("a classifier");
    let mut seen = 0;
    for file in std::fs::read_dir(format!("{root}/samples")).expect("samples") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|ending| ending != "png") {
            continue;
        }
        let small = image::open(&path).expect("a picture").to_rgb8();
        let (width, height) = (small.width() * ENLARGE, small.height() * ENLARGE);
        let picture = RgbImage::from_fn(width, height, |x, y| *small.get_pixel(x / ENLARGE, y / ENLARGE));
        let of_picture = classify(&mut classifier, &picture);
        let of_nv21 = classify(&mut classifier, &shown(width, height, &nv21(&picture)));
        for rotation in [Rotation::None, Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters] {
            let sensor = on_sensor(&picture, rotation);
            let (width, height) = (sensor.width() as usize, sensor.height() as usize);
            let what = format!("{} {rotation:?}", path.display());
            let rgb = Frame::rgb(width, height, &sensor).expect("a frame").rotated(rotation);
            assert_same(&classifier.classify_frame(&rgb, 1).expect("scores"), &of_picture, &what);
            let bytes = nv21(&sensor);
            let nv21 = Frame::nv21(width, height, &bytes).expect("a frame").rotated(rotation);
            assert_same(&classifier.classify_frame(&nv21, 1).expect("scores"), &of_nv21, &what);
        }
        seen += usize::from(of_picture.score >= SURE && of_nv21.score >= SURE);
    }
    assert!(seen >= 12, "{seen} samples with a confident prediction");
}

//! Camera frames to the input of a 224x224 network: `cargo bench -p skipstone --no-default-features --bench frame`.
//!
//! Prints the median time of each case in microseconds for every instruction set of this CPU, or for the one named by
//! `SKIPSTONE_ISA`; beside it, the time to copy as many bytes as the case reads. Arguments that are not flags select
//! cases by name. `warm` repeats one frame, like benchmarks of other libraries; `cold` cycles through more frames than
//! caches hold, like a camera.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use skipstone::classify::{Preprocess, Settings};
use skipstone::vision::{Converter, Frame, Rotation};
use skipstone::{DType, Fact, Isa, Shape};

const SIZE: (usize, usize) = (1920, 1080);

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    frame: fn(&[u8]) -> Frame<'_>,
    rotation: Rotation,
    dims: [usize; 4],
    resize: usize,
}

fn cases() -> Vec<Case> {
    let (width, height) = SIZE;
    let noise = |len: usize| {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect::<Vec<u8>>()
    };
    let (yuv, rgba) = (noise(width * height * 3 / 2), noise(width * height * 4));
    let case = |name, bytes: &[u8], frame| Case {
        name,
        bytes: bytes.to_vec(),
        frame,
        rotation: Rotation::None,
        dims: [1, 3, 224, 224],
        resize: 224,
    };
    vec![
        case("nv21", &yuv, |bytes| Frame::nv21(SIZE.0, SIZE.1, bytes).unwrap()),
        Case { resize: 256, ..case("nv21_crop", &yuv, |bytes| Frame::nv21(SIZE.0, SIZE.1, bytes).unwrap()) },
        Case {
            rotation: Rotation::Quarter,
            ..case("nv21_rotated", &yuv, |bytes| Frame::nv21(SIZE.0, SIZE.1, bytes).unwrap())
        },
        Case { dims: [1, 224, 224, 3], ..case("nv21_nhwc", &yuv, |bytes| Frame::nv21(SIZE.0, SIZE.1, bytes).unwrap()) },
        case("i420", &yuv, |bytes| Frame::i420(SIZE.0, SIZE.1, bytes).unwrap()),
        case("bgra", &rgba, |bytes| Frame::bgra(SIZE.0, SIZE.1, bytes).unwrap()),
        case("rgb", &rgba[..width * height * 3], |bytes| Frame::rgb(SIZE.0, SIZE.1, bytes).unwrap()),
        case("gray", &yuv[..width * height], |bytes| Frame::gray(SIZE.0, SIZE.1, bytes).unwrap()),
    ]
}

/// Frames that together exceed the caches.
const COLD: usize = 48;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let isas: Vec<Isa> = match std::env::var("SKIPSTONE_ISA") {
        Ok(name) => vec![name.parse().expect("the name of an instruction set")],
        Err(_) => Isa::available().collect(),
    };
    println!("{:<8} {:<13} {:>9} {:>9} {:>9}", "isa", "case", "warm us", "cold us", "copy us");
    for case in cases().into_iter().filter(|case| wanted.is_empty() || wanted.iter().any(|name| name == case.name)) {
        let frames: Vec<Vec<u8>> = (0..COLD).map(|_| case.bytes.clone()).collect();
        let mut copy = vec![0u8; case.bytes.len()];
        // The center square: 1080 columns of 1920.
        let read = case.bytes.len() * SIZE.1 / SIZE.0 * case.dims[2] / case.resize * case.dims[2] / case.resize;
        for &isa in &isas {
            let fact = Fact::new(DType::F32, Shape::new(&case.dims).expect("four dimensions"));
            let settings = Settings { resize: Some(case.resize), ..Settings::default() };
            let preprocess = Preprocess::new(&fact, &BTreeMap::new(), &settings).expect("an image input");
            let mut converter = Converter::new(isa);
            let mut out = vec![0.0; preprocess.elements()];
            let mut convert = |bytes: &[u8]| {
                let frame = (case.frame)(bytes).rotated(case.rotation);
                preprocess.apply_frame(&frame, &mut converter, &mut out).expect("as long as the input");
                black_box(&mut out);
            };
            let warm = median(|_| convert(&frames[0]));
            let cold = median(|i| convert(&frames[i % COLD]));
            let copied = median(|i| copy[..read].copy_from_slice(black_box(&frames[i % COLD][..read])));
            println!("{:<8} {:<13} {warm:>9.1} {cold:>9.1} {copied:>9.1}", isa.name(), case.name);
        }
    }
}

/// Median time of a call in microseconds.
fn median(mut call: impl FnMut(usize)) -> f64 {
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < Duration::from_millis(300) || times.len() < 5 {
        let start = Instant::now();
        call(times.len());
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

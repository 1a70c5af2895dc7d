//! The facade as foreign code uses it: many threads, late calls, impossible arguments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skipstone::graph::Graph;
use skipstone::ops::reduce::{Reduce, ReduceKind};
use skipstone::ops::unary::{Unary, UnaryKind};
use skipstone::{DType, Fact, Options, Shape, Tensor};

use super::*;
use crate::live::{Live, Owner};

/// Height and width of the frames, and of most test images.
const SIDE: usize = 16;

/// A model that finds the brightest channel of a small image: class 0 is red.
fn brightest_channel() -> Arc<Model> {
    brightest_channel_after(1, SIDE)
}

/// The same after `waves` steps that change little, on an image of `side` x `side`.
fn brightest_channel_after(waves: usize, side: usize) -> Arc<Model> {
    let mut graph = Graph::new();
    let image = Fact::new(DType::F32, Shape::new(&[1, 3, side, side]).unwrap());
    let mut value = graph.add_input("image", image).unwrap();
    for wave in 0..waves {
        // The sine is monotonic on -1..1, so applying it repeatedly keeps the order.
        value = graph.add_node(format!("wave {wave}"), Unary { kind: UnaryKind::Sin }, &[value]).unwrap()[0];
    }
    let mean = Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: false };
    let scores = graph.add_node("mean", mean, &[value]).unwrap()[0];
    graph.outputs.push(("scores".into(), scores));
    Model::from_runtime(skipstone::Model::from_graph(graph, &Options::default()).unwrap(), "brightest")
}

/// A model that takes long enough to be caught running.
fn slow() -> Arc<Model> {
    brightest_channel_after(100, 128)
}

/// A frame of one color, with `channel` brightest.
struct Picture(Vec<u8>);

impl Picture {
    fn of(channel: usize) -> Self {
        let pixel = |i| if i % 3 == channel { 200 } else { 90 };
        Self((0..SIDE * SIDE * 3).map(pixel).collect())
    }

    fn frame(&self) -> FrameAddress {
        let plane = PlaneAddress {
            address: self.0.as_ptr() as u64,
            length: self.0.len() as u64,
            row_stride: SIDE as u32 * 3,
            pixel_stride: 3,
        };
        FrameAddress {
            format: FrameFormat::Rgb,
            width: SIDE as u32,
            height: SIDE as u32,
            planes: vec![plane],
            part: None,
            rotation_degrees: 0,
            mirrored: false,
            crop: None,
            matrix: FrameMatrix::Bt601,
            range: FrameRange::Full,
        }
    }
}

fn best(classification: &Classification) -> u32 {
    classification.predictions[0].index
}

#[test]
fn a_frame_is_classified_from_its_address() {
    let model = brightest_channel();
    let classifier = Classifier::new(model.clone()).unwrap();
    for channel in 0..3 {
        let picture = Picture::of(channel);
        let found = classifier.classify_frame_at(picture.frame(), 2).unwrap();
        assert_eq!(best(&found), channel as u32);
        assert_eq!(found.predictions.len(), 2);
        assert_eq!(found.predictions[0].label, format!("class {channel}"));
        assert!(found.predictions[0].score >= found.predictions[1].score);
    }
    let latency = classifier.latency();
    assert_eq!(latency.runs, 3);
    assert!(latency.min <= latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max);
    assert!(classifier.memory().arena_bytes > 0);
    let info = model.info();
    assert_eq!((info.name.as_str(), info.inputs[0].name.as_str()), ("brightest", "image"));
    assert_eq!(info.inputs[0].shape, [1, 3, SIDE as u64, SIDE as u64]);
    assert!(info.labels.is_empty());
}

/// Regression: a softmax was applied to every model's output.
#[test]
fn scores_follow_the_requested_activation() {
    let scores = |options: ClassifierOptions| {
        let classifier = Classifier::with(brightest_channel(), options).unwrap();
        let found = classifier.classify_frame_at(Picture::of(1).frame(), 3).unwrap().predictions;
        found.into_iter().map(|it| (it.label, it.score)).collect::<Vec<_>>()
    };
    let asked = |activation| ClassifierOptions { activation: Some(activation), ..ClassifierOptions::default() };
    let total = |scores: &[(String, f32)]| scores.iter().map(|(_, score)| score).sum::<f32>();
    assert!((total(&scores(ClassifierOptions::default())) - 1.0).abs() < 1e-6);
    let plain = scores(asked(Activation::None));
    for ((_, raw), (_, sigmoid)) in plain.iter().zip(scores(asked(Activation::Sigmoid))) {
        assert!((1.0 / (1.0 + (-raw).exp()) - sigmoid).abs() < 1e-6, "{raw} {sigmoid}");
    }
    let named = ClassifierOptions { labels: Some("red\ngreen\nblue".into()), ..ClassifierOptions::default() };
    let names = |options| scores(options).into_iter().map(|(label, _)| label).collect::<Vec<_>>();
    assert_eq!(names(ClassifierOptions { threshold: Some(0.4), ..named.clone() }), ["green"]);
    assert_eq!(names(ClassifierOptions { deny: vec!["green".into()], ..named.clone() }).len(), 2);
    assert_eq!(names(ClassifierOptions { allow: vec!["blue".into()], ..named.clone() }), ["blue"]);
    let unknown = Classifier::with(brightest_channel(), ClassifierOptions { allow: vec!["pink".into()], ..named });
    assert_eq!(unknown.map(drop).unwrap_err().code(), "input.label");
    let info = Classifier::new(brightest_channel()).unwrap().info();
    assert!(info.scores.starts_with("softmax, assumed"), "{info:?}");
    assert_eq!(info.normalization.mean, [0.485, 0.456, 0.406]);
    assert!(info.normalization.origin.starts_with("assumed"), "{info:?}");
}

/// The scores of a frame of one color are those of the color that the standards define.
#[test]
fn colors_of_every_matrix_and_range_are_those_of_the_standards() {
    let raw = ClassifierOptions { activation: Some(Activation::None), ..ClassifierOptions::default() };
    let classifier = Classifier::with(brightest_channel(), raw).unwrap();
    let normalization = classifier.info().normalization;
    let yuv = [120u8, 110, 150];
    let plane = |bytes: &Vec<u8>, pixel_stride| PlaneAddress {
        address: bytes.as_ptr() as u64,
        length: bytes.len() as u64,
        row_stride: SIDE as u32 * pixel_stride,
        pixel_stride,
    };
    // The same values of 8 bits, and of 10 in the upper bits of two bytes.
    let formats = [
        (FrameFormat::Yuv420, yuv.map(|value| vec![value; SIDE * SIDE]), 1, 255.0),
        (FrameFormat::Yuv422, yuv.map(|value| vec![value; SIDE * SIDE]), 1, 255.0),
        (FrameFormat::P010, yuv.map(|value| [0, value].repeat(SIDE * SIDE)), 2, 1023.0 / 4.0),
        (FrameFormat::P210, yuv.map(|value| [0, value].repeat(SIDE * SIDE)), 2, 1023.0 / 4.0),
    ];
    for (matrix, kr, kb) in [
        (FrameMatrix::Bt601, 0.299, 0.114),
        (FrameMatrix::Bt709, 0.2126, 0.0722),
        (FrameMatrix::Bt2020, 0.2627, 0.0593),
    ] {
        for (range, (format, samples, stride, white)) in
            [FrameRange::Full, FrameRange::Video].into_iter().flat_map(|range| formats.each_ref().map(|it| (range, it)))
        {
            let (black, luma, chroma) = match range {
                FrameRange::Full => (0.0, 255.0 / white, 255.0 / white),
                FrameRange::Video => (16.0, 255.0 / 219.0, 255.0 / 224.0),
            };
            let [y, u, v] = yuv.map(f64::from);
            let (y, u, v) = ((y - black) * luma, (u - 128.0) * chroma, (v - 128.0) * chroma);
            let (red, blue) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
            let want = [red, (y - kr * red - kb * blue) / (1.0 - kr - kb), blue];
            let planes = samples.iter().map(|bytes| plane(bytes, *stride)).collect();
            let frame = FrameAddress { format: *format, planes, matrix, range, ..Picture(Vec::new()).frame() };
            for found in classifier.classify_frame_at(frame, 3).unwrap().predictions {
                let channel = found.index as usize;
                let (mean, std) = (f64::from(normalization.mean[channel]), f64::from(normalization.std[channel]));
                let want = ((want[channel] / 255.0 - mean) / std).sin();
                // A fifth of a level.
                let error = (f64::from(found.score) - want).abs();
                let which = format!("{format:?} {matrix:?} {range:?} {channel}");
                assert!(error <= 0.2 / 255.0 / std, "{which}: {} {want}", found.score);
            }
        }
    }
}

#[test]
fn inconsistent_frames_are_errors() {
    let classifier = Classifier::new(brightest_channel()).unwrap();
    let picture = Picture::of(0);
    type Breaking = fn(&mut FrameAddress);
    let broken: [(&str, Breaking); 13] = [
        ("input.address", |f| f.planes[0].address = 0),
        ("input.address", |f| f.planes[0].length = u64::MAX),
        ("input.address", |f| f.planes[0].address = u64::MAX - 3),
        ("frame", |f| f.planes[0].length -= 1),
        ("frame", |f| f.planes[0].row_stride = 5),
        ("frame", |f| f.planes[0].row_stride = u32::MAX),
        ("frame", |f| f.width = 0),
        ("frame", |f| f.height = u32::MAX),
        ("frame", |f| f.rotation_degrees = 45),
        ("frame", |f| f.planes.clear()),
        ("frame", |f| f.format = FrameFormat::Yuv420),
        ("frame", |f| f.part = Some(Region { x: 1, y: 0, width: SIDE as u32, height: 1 })),
        ("frame", |f| f.crop = Some(Region { x: u32::MAX, y: 0, width: u32::MAX, height: 1 })),
    ];
    for (index, (code, breaking)) in broken.into_iter().enumerate() {
        let mut frame = picture.frame();
        breaking(&mut frame);
        let error = classifier.classify_frame_at(frame, 1).unwrap_err();
        assert!(error.code().starts_with(code), "{index}: {error:?}");
    }
    assert_eq!(best(&classifier.classify_frame_at(picture.frame(), 1).unwrap()), 0);
    assert_eq!(classifier.latency().runs, 1, "only runs that succeed are counted");
}

#[test]
fn eight_threads_may_call_one_classifier() {
    let classifier = Classifier::new(brightest_channel()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let classifier = &classifier;
            scope.spawn(move || {
                let picture = Picture::of(thread % 3);
                for _ in 0..100 {
                    let found = classifier.classify_frame_at(picture.frame(), 3).unwrap();
                    assert_eq!(best(&found), (thread % 3) as u32);
                }
            });
        }
    });
    assert_eq!(classifier.latency().runs, 800);
}

#[test]
fn closed_objects_refuse_every_call() {
    let model = brightest_channel();
    let (classifier, session) = (Classifier::new(model.clone()).unwrap(), Session::new(model).unwrap());
    let closed = |error: SkipstoneError| assert!(matches!(error, SkipstoneError::Closed { .. }), "{error:?}");
    classifier.close();
    classifier.close();
    classifier.cancel();
    closed(classifier.classify_frame_at(Picture::of(0).frame(), 1).unwrap_err());
    closed(classifier.start_profile().unwrap_err());
    closed(classifier.profile().unwrap_err());
    closed(classifier.set_deadline_ms(None).unwrap_err());
    closed(classifier.set_variable(None, Vec::new()).unwrap_err());
    session.close();
    closed(session.start_profile().unwrap_err());
}

/// A session alone.
struct Plain(skipstone::Session);

impl Owner for Plain {
    const WHAT: &'static str = "session";

    fn session(&mut self) -> &mut skipstone::Session {
        &mut self.0
    }
}

/// Whatever the order, a run that is closed ends in success or in a named error.
#[test]
fn closing_while_eight_threads_run_is_safe() {
    for _ in 0..10 {
        let classifier = Classifier::new(brightest_channel_after(200, SIDE)).unwrap();
        let begun = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let picture = Picture::of(1);
                    loop {
                        match classifier.classify_frame_at(picture.frame(), 1) {
                            Ok(found) => assert_eq!(best(&found), 1),
                            Err(SkipstoneError::Cancelled { .. }) => {}
                            Err(SkipstoneError::Closed { .. }) => break,
                            Err(other) => panic!("{other:?}"),
                        }
                        begun.store(true, Ordering::SeqCst);
                    }
                });
            }
            while !begun.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            classifier.close();
        });
    }
}

#[test]
fn another_thread_cancels() {
    let classifier = Classifier::new(slow()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                classifier.cancel();
                std::thread::yield_now();
            }
        });
        let answer = classifier.classify_frame_at(Picture::of(2).frame(), 1);
        done.store(true, Ordering::SeqCst);
        assert!(matches!(answer, Err(SkipstoneError::Cancelled { .. })), "{answer:?}");
    });
    classifier.forget_cancel();
    assert_eq!(best(&classifier.classify_frame_at(Picture::of(2).frame(), 1).unwrap()), 2);
}

/// Regression: a cancel was lost if it came before the run had the lock of its object.
#[test]
fn a_cancel_before_the_run_begins_stops_it_unless_it_is_forgotten() {
    let classifier = Classifier::new(brightest_channel()).unwrap();
    let run = || classifier.classify_frame_at(Picture::of(2).frame(), 1);
    classifier.cancel();
    // What a caller does before the run, in the same turn.
    classifier.set_deadline_ms(None).unwrap();
    classifier.set_variable(None, Vec::new()).unwrap();
    assert!(matches!(run(), Err(SkipstoneError::Cancelled { .. })));
    assert_eq!(best(&run().unwrap()), 2, "it stops one run");
    classifier.cancel();
    classifier.forget_cancel();
    assert_eq!(best(&run().unwrap()), 2);
    classifier.cancel();
    classifier.close();
    classifier.forget_cancel();
    assert!(matches!(run(), Err(SkipstoneError::Closed { .. })), "forgetting does not open it again");
}

/// Regression: a cancel was lost if it came while the frame was prepared.
#[test]
fn a_cancel_before_the_first_step_stops_the_run() {
    let model = brightest_channel();
    let live = Live::new(Plain(model.runtime().session().unwrap()));
    let image = Tensor::zeros(model.runtime().inputs()[0].fact.clone());
    let cancelled = live.run(|Plain(session)| {
        live.cancel();
        Ok(session.run(&[image.view()])?)
    });
    assert!(matches!(cancelled, Err(SkipstoneError::Cancelled { .. })), "{cancelled:?}");
    live.run(|Plain(session)| Ok(session.run(&[image.view()])?)).unwrap();
}

#[test]
fn a_deadline_ends_a_run_that_is_late() {
    let classifier = Classifier::new(slow()).unwrap();
    classifier.set_deadline_ms(Some(0.001)).unwrap();
    let late = classifier.classify_frame_at(Picture::of(2).frame(), 1).unwrap_err();
    assert!(matches!(late, SkipstoneError::Deadline { .. }), "{late:?}");
    for wrong in [-1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(classifier.set_deadline_ms(Some(wrong)).unwrap_err().code(), "input.deadline");
    }
    classifier.set_deadline_ms(None).unwrap();
    classifier.classify_frame_at(Picture::of(2).frame(), 1).unwrap();
}

#[test]
fn a_profile_names_every_step() {
    let classifier = Classifier::new(brightest_channel()).unwrap();
    assert_eq!(classifier.profile().unwrap(), []);
    classifier.start_profile().unwrap();
    let picture = Picture::of(0);
    for _ in 0..5 {
        classifier.classify_frame_at(picture.frame(), 1).unwrap();
    }
    let steps = classifier.profile().unwrap();
    assert_eq!(steps.last().map(|step| step.name.as_str()), Some("mean"));
    assert!((steps.iter().map(|step| step.share).sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn a_session_reads_and_writes_tensors_where_they_lie() {
    let session = Session::new(brightest_channel()).unwrap();
    let image: Vec<f32> = (0..3 * SIDE * SIDE).map(|i| (i / (SIDE * SIDE)) as f32 / 4.0).collect();
    let mut scores = [0.0f32; 3];
    let at = |address: *const f32, elements: usize| TensorAddress {
        address: address as u64,
        length_bytes: elements as u64 * 4,
    };
    let (input, output) = (at(image.as_ptr(), image.len()), at(scores.as_mut_ptr(), 3));
    session.run_at(vec![input], vec![output]).unwrap();
    for (channel, score) in scores.iter().enumerate() {
        assert!((score - (channel as f32 / 4.0).sin()).abs() < 1e-6, "{scores:?}");
    }
    let short = TensorAddress { length_bytes: 8, ..output };
    let crooked = TensorAddress { address: input.address + 1, ..input };
    let nowhere = TensorAddress { address: 0, ..output };
    for (code, inputs, outputs) in [
        ("input.missing", vec![], vec![output]),
        ("input.missing", vec![input], vec![output, output]),
        ("input.size", vec![output], vec![output]),
        ("input.size", vec![input], vec![short]),
        ("input.address", vec![crooked], vec![output]),
        ("input.address", vec![input], vec![nowhere]),
    ] {
        assert_eq!(session.run_at(inputs, outputs).unwrap_err().code(), code);
    }
    assert_eq!(session.latency().runs, 1);
}

/// A model that returns `gain` times the image's mean plus its previous output.
fn with_gain() -> Arc<Model> {
    use skipstone::graph::Variable;
    use skipstone::ops::binary::{Binary, BinaryKind};
    let mut graph = Graph::new();
    let fact = |dims: &[usize]| Fact::new(DType::F32, Shape::new(dims).unwrap());
    let x = graph.add_input("x", fact(&[2])).unwrap();
    let gain = graph.add_input("gain", fact(&[])).unwrap();
    let last = graph.add_input("last", fact(&[2])).unwrap();
    let y = graph.add_node("mul", Binary::new(BinaryKind::Mul), &[x, gain]).unwrap()[0];
    let y = graph.add_node("add", Binary::new(BinaryKind::Add), &[y, last]).unwrap()[0];
    graph.outputs.push(("y".into(), y));
    let initial = Some(Arc::new(Tensor::scalar(2f32)));
    graph.variables = vec![Variable { initial, next: None }, Variable { initial: None, next: Some(0) }];
    Model::from_runtime(skipstone::Model::from_graph(graph, &Options::default()).unwrap(), "gain")
}

#[test]
fn settings_are_set_between_runs_and_state_is_carried() {
    let session = Session::new(with_gain()).unwrap();
    let run = || {
        let (x, mut y) = ([1.0f32, 2.0], [0.0f32; 2]);
        let at = |address: *const f32| TensorAddress { address: address as u64, length_bytes: 8 };
        session.run_at(vec![at(x.as_ptr())], vec![at(y.as_mut_ptr())]).unwrap();
        y
    };
    assert_eq!((run(), run()), ([2.0, 4.0], [4.0, 8.0]));
    session.set_variable(None, Vec::new()).unwrap();
    let set = |name: &str, values: &[f64]| session.set_variable(Some(name.into()), values.to_vec());
    set("gain", &[0.5]).unwrap();
    assert_eq!((run(), run()), ([0.5, 1.0], [1.0, 2.0]));
    set("gain", &[0.0]).unwrap();
    set("last", &[3.0, 4.0]).unwrap();
    assert_eq!(run(), [3.0, 4.0]);
    for (code, name, value) in [
        ("setting.unknown", "x", &[1.0, 2.0][..]),
        ("setting.value", "gain", &[1e300]),
        ("setting.value", "last", &[1.0]),
    ] {
        let error = set(name, value).unwrap_err();
        assert!(matches!(error, SkipstoneError::Input { .. }) && error.code() == code, "{error:?}");
    }
    session.close();
    assert_eq!(set("gain", &[1.0]).unwrap_err().code(), "closed");
}

/// A session sees the frame that a classifier of the same model sees.
#[test]
fn a_session_prepares_frames_as_a_classifier_does() {
    let model = brightest_channel();
    let raw = ClassifierOptions { activation: Some(Activation::None), ..ClassifierOptions::default() };
    let (classifier, session) = (Classifier::with(model.clone(), raw).unwrap(), Session::new(model).unwrap());
    let mut picture = Picture(Vec::new());
    picture.0.extend((0..SIDE * SIDE * 3).map(|i| (i * 37 % 251) as u8));
    let turned = FrameAddress {
        rotation_degrees: 90,
        mirrored: true,
        part: Some(Region { x: 1, y: 2, width: 11, height: 13 }),
        ..picture.frame()
    };
    let (mut image, mut scores) = (vec![0.0f32; 3 * SIDE * SIDE], [0.0f32; 3]);
    let at = |address: *const f32, elements: usize| TensorAddress {
        address: address as u64,
        length_bytes: elements as u64 * 4,
    };
    let (input, output) = (at(image.as_mut_ptr(), 3 * SIDE * SIDE), at(scores.as_mut_ptr(), 3));
    for frame in [picture.frame(), turned, picture.frame()] {
        session.prepare_frame_at(frame.clone(), 0, input).unwrap();
        session.run_at(vec![input], vec![output]).unwrap();
        for found in classifier.classify_frame_at(frame, 3).unwrap().predictions {
            assert_eq!(scores[found.index as usize], found.score);
        }
    }
    let code = |frame, index, output| session.prepare_frame_at(frame, index, output).unwrap_err().code().to_owned();
    assert_eq!(code(picture.frame(), 1, input), "input.unknown");
    assert_eq!(code(picture.frame(), u32::MAX, input), "input.unknown");
    assert_eq!(code(picture.frame(), 0, output), "input.size");
    assert_eq!(code(picture.frame(), 0, TensorAddress { address: 0, ..input }), "input.address");
    assert_eq!(code(FrameAddress { width: 0, ..picture.frame() }, 0, input), "frame");
    assert_eq!(session.latency().runs, 3);
    session.close();
    assert_eq!(code(picture.frame(), 0, input), "closed");
    let vector = Session::new(with_gain()).unwrap();
    let refused = vector.prepare_frame_at(picture.frame(), 0, input).unwrap_err();
    assert!(matches!(refused, SkipstoneError::Model { .. }), "{refused:?}");
}

#[test]
fn a_panic_is_an_error_and_closes_its_object() {
    let live = Live::new(Plain(brightest_channel().runtime().session().unwrap()));
    let error = live.run::<()>(|_| panic!("broken")).unwrap_err();
    assert!(matches!(error, SkipstoneError::Internal { .. }), "{error:?}");
    assert!(matches!(live.run(|_| Ok(())).unwrap_err(), SkipstoneError::Closed { .. }));
    live.close();
}

#[test]
fn a_file_that_is_not_a_package_is_an_error() {
    let config = Config::default;
    let code = |result: Result<Arc<Model>>| result.map(drop).unwrap_err().code().to_owned();
    for bytes in [&[][..], &[0], b"PK\x03\x04 and so on", &[0xff; 4096]] {
        let code = code(Model::from_bytes(bytes, config()));
        // When the whole workspace is tested, the importer is built in and reports these errors.
        assert!(code.starts_with("package.") || code.starts_with("model."), "{bytes:?}: {code}");
    }
    assert_eq!(code(Model::open("/nowhere/model.skip".into(), config())), "io");
    assert_eq!(code(Model::open(String::new(), config())), "io");
    assert_eq!(code(Model::open("a\0b".into(), config())), "io");
    assert_eq!(code(Model::open_descriptor(-1, 0, 10, config())), "io");
    let bad_key = Config { public_key: Some(vec![1]), ..Config::default() };
    assert_eq!(code(Model::from_bytes(&[], bad_key)), "input.key");
}

#[test]
fn open_objects_are_counted() {
    // Other tests open objects at the same time, so only this test's growth is checked.
    let model = brightest_channel();
    let held: Vec<_> = (0..50).map(|_| Session::new(model.clone()).unwrap()).collect();
    assert!(open_objects() >= 50);
    // A closed session is counted once, however often it is closed, and when it is freed.
    for session in held {
        session.close();
        session.close();
    }
    assert!(open_objects() < 1_000_000);
}

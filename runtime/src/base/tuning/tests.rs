use std::sync::Arc;

use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;

use super::*;
use crate::graph::Graph;
use crate::ops::bottleneck::Bottleneck;
use crate::ops::check::{Random, assert_close, single};
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::matmul::MatMul;
use crate::options::{Memory, Options, Precision, Tune};
use crate::plan::{Plan, Step};
use crate::tensor::Tensor;
use crate::{Model, package};

fn conv(kernel: usize, groups: usize) -> Conv {
    Conv {
        kernel: [kernel; 2],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [kernel / 2; 4],
        groups,
        layout: Layout::Nhwc,
        activation: Activation::Relu,
        ..Conv::POINTWISE
    }
}

fn target() -> Target {
    Target { isa: Isa::detect(), threads: 1, memory: Memory::Fast, precision: Precision::F32 }
}

/// Graphs of one step each that several kernels could run, with an input.
fn graphs() -> Vec<(Graph, Tensor)> {
    let mut random = Random(5);
    let mut graphs = Vec::new();
    let mut add = |op: crate::ops::Op, inputs: &[&[usize]]| {
        let inputs: Vec<Tensor> = inputs.iter().map(|dims| random.floats(dims)).collect();
        let constant: Vec<usize> = (1..inputs.len()).collect();
        graphs.push((single(op, &inputs, &constant), inputs[0].clone()));
    };
    add(conv(3, 1).into(), &[&[1, 9, 11, 7], &[33, 7, 3, 3], &[33]]);
    add(Conv { stride: [2, 2], ..conv(3, 1) }.into(), &[&[2, 9, 9, 16], &[5, 16, 3, 3], &[5]]);
    add(conv(1, 1).into(), &[&[1, 7, 7, 40], &[49, 40, 1, 1], &[49]]);
    add(MatMul { transposed: true, activation: Activation::None }.into(), &[&[1, 13, 50], &[1, 70, 50], &[70]]);
    let bottleneck = Bottleneck { expand: Some(conv(1, 1)), depthwise: conv(3, 19), project: Some(conv(1, 1)) };
    let operands: &[&[usize]] = &[&[1, 12, 9, 5], &[19, 5, 1, 1], &[19], &[19, 1, 3, 3], &[19], &[33, 19, 1, 1], &[33]];
    add(bottleneck.into(), operands);
    graphs
}

/// The one step of a graph's plan.
fn step(graph: &Graph, tuning: Option<&Tuning>) -> Step {
    Plan::with(graph.copy().unwrap(), target(), &[], tuning).unwrap().steps.remove(0)
}

/// The names of the kernels for the one step of a graph, and a tuning that chooses the one at `at`.
fn tuned(graph: &Graph, at: usize) -> (Vec<String>, Tuning) {
    let mut tuning = Tuning::new(target());
    let candidates = step(graph, Some(&tuning)).choice.candidates;
    let names: Vec<String> = candidates.kernels.into_iter().map(|candidate| candidate.kernel).collect();
    insert(&mut tuning, candidates.task, &names[at]);
    (names, tuning)
}

fn insert(tuning: &mut Tuning, task: Task, kernel: &str) {
    let kernels = vec![Timed { kernel: kernel.to_owned(), nanos: 1000 }];
    tuning.insert(task, Measured { kernels, chosen: 0 });
}

fn code<T>(result: Result<T>) -> &'static str {
    match result {
        Ok(_) => "fine",
        Err(error) => error.code(),
    }
}

fn output(model: &Model, x: &Tensor) -> Tensor {
    let mut session = model.session().unwrap();
    session.run(&[x.view()]).unwrap();
    session.output(0).unwrap().to_tensor()
}

#[test]
fn every_candidate_computes_the_step_and_a_package_keeps_it() {
    let mut most = 0;
    for (graph, x) in graphs() {
        let want = graph.evaluate(std::slice::from_ref(&x)).unwrap();
        let (names, _) = tuned(&graph, 0);
        most = most.max(names.len());
        for (at, name) in names.iter().enumerate() {
            let tuning = tuned(&graph, at).1;
            let options = Options::default().isa(target().isa).tune(Tune::Stored(Arc::new(tuning.clone())));
            let model = Model::from_graph(graph.copy().unwrap(), &options).unwrap();
            assert_eq!(model.plan().unwrap().steps[0].choice.kernel, *name);
            let got = output(&model, &x);
            assert_close(&got, &want[0], 1e-3, name);
            // The device uses the choice that was made for it.
            let target = Some((target(), Some(&tuning)));
            let bytes =
                package::write_tuned(std::slice::from_ref(&graph), &crate::Info::default(), target, None).unwrap();
            let packed = Model::from_bytes(&bytes, &Options::default()).unwrap();
            assert_eq!(packed.plan().unwrap().steps[0].choice.kernel, *name);
            assert_eq!(output(&packed, &x).bytes(), got.bytes(), "{name}");
        }
    }
    assert!(most > 1 || target().isa == Isa::Scalar);
}

#[test]
fn tuning_round_trips_through_a_file() {
    let mut tuning = Tuning::new(Target { threads: 3, memory: Memory::Small, ..target() });
    assert_eq!(Tuning::from_bytes(&tuning.to_bytes().unwrap()).unwrap(), tuning);
    for (graph, _) in graphs() {
        let task = step(&graph, Some(&tuning)).choice.candidates.task;
        let kernels =
            [("a", 500), ("b", 480), ("c", 499)].map(|(kernel, nanos)| Timed { kernel: kernel.into(), nanos });
        tuning.insert(task, Measured::new(kernels.to_vec(), 0.02));
    }
    assert_eq!(tuning.len(), graphs().len());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.tune");
    tuning.save(&path).unwrap();
    assert_eq!(Tuning::open(&path).unwrap(), tuning);
    let measured = tuning.task(&step(&graphs()[0].0, Some(&tuning)).choice.candidates.task).unwrap().clone();
    assert_eq!((measured.by_model().unwrap().nanos, measured.chosen().unwrap().nanos), (500, 480));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(tuning.save(folder.path()).is_err());
    assert_eq!(code(Tuning::open(folder.path().join("none"))), "io");
}

#[test]
fn a_kernel_must_save_more_than_the_measurement_error() {
    let chosen = |nanos: &[u64]| {
        let timed = nanos.iter().map(|&nanos| Timed { kernel: String::new(), nanos }).collect();
        Measured::new(timed, 0.02).chosen().map(|timed| timed.nanos)
    };
    assert_eq!(chosen(&[100, 99, 120]), Some(100));
    assert_eq!(chosen(&[100, 97, 98]), Some(97));
    assert_eq!(chosen(&[100]), Some(100));
    assert_eq!(chosen(&[0, 0]), Some(0));
    assert_eq!(chosen(&[]), None);
}

#[test]
fn equal_steps_are_one_task_and_others_are_not() {
    let task = |graph: &Graph| step(graph, Some(&Tuning::new(target()))).choice.candidates.task;
    let mut random = Random(6);
    let mut of = |op: Conv, image: &[usize], filters: usize, constant: &[usize]| {
        let [rows, columns] = op.kernel;
        let channels = image[3] / op.groups;
        let mut inputs = vec![random.floats(image), random.floats(&[filters, channels, rows, columns])];
        inputs.push(random.floats(&[filters]));
        task(&single(op, &inputs, constant))
    };
    let first = of(conv(3, 1), &[1, 9, 9, 8], 16, &[1, 2]);
    assert_eq!(of(conv(3, 1), &[1, 9, 9, 8], 16, &[1, 2]), first, "other weights take the same time");
    let others = [
        of(conv(3, 1), &[1, 9, 8, 8], 16, &[1, 2]),
        of(conv(3, 1), &[1, 9, 9, 8], 24, &[1, 2]),
        of(conv(3, 1), &[1, 9, 9, 8], 16, &[]),
        of(conv(3, 2), &[1, 9, 9, 8], 16, &[1, 2]),
        of(Conv { stride: [2, 2], ..conv(3, 1) }, &[1, 9, 9, 8], 16, &[1, 2]),
        of(Conv { activation: Activation::None, ..conv(3, 1) }, &[1, 9, 9, 8], 16, &[1, 2]),
        of(Conv { pads: [1, 0, 1, 2], ..conv(3, 1) }, &[1, 9, 9, 8], 16, &[1, 2]),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(*other, first, "{at}");
        assert!(!others[..at].contains(other), "{at}");
    }
    // Without a tuning, no candidates are listed.
    let plain = step(&graphs()[0].0, None).choice.candidates;
    assert_eq!((plain.task, plain.kernels.len()), (Task::default(), 0));
}

#[test]
fn kernels_that_are_not_candidates_are_ignored() {
    let (graph, x) = graphs().remove(0);
    let by_model = step(&graph, None).choice.kernel;
    let mut names = vec!["", "nonsense", "depthwise_f32_scalar", "gemm_f32_4x8_scalar", "gemm_f16_4x8_scalar"];
    names.extend(["gemm_f32_6x16_avx2", "gemm_f32_12x32_avx512", "gemm_f32_8x8_neon", "winograd_f4s2_avx2"]);
    let (own, _) = tuned(&graph, 0);
    for name in names.into_iter().filter(|name| own.iter().all(|own| own != name)) {
        let mut tuning = Tuning::new(target());
        let task = step(&graph, Some(&tuning)).choice.candidates.task;
        insert(&mut tuning, task, name);
        let tuning = Tuning::from_bytes(&tuning.to_bytes().unwrap()).unwrap();
        assert_eq!(step(&graph, Some(&tuning)).choice.kernel, by_model, "{name}");
        let options = Options::default().isa(target().isa).tune(Tune::Stored(Arc::new(tuning)));
        output(&Model::from_graph(graph.copy().unwrap(), &options).unwrap(), &x);
    }
}

#[test]
fn another_machine_or_target_is_refused() {
    let open = |tuning: Tuning, options: Options| {
        code(Model::from_graph(graphs().remove(0).0, &options.tune(Tune::Stored(Arc::new(tuning)))))
    };
    let here = Options::default().isa(target().isa);
    let tuning = Tuning::new(target());
    assert_eq!(open(tuning.clone(), here.clone()), "fine");
    assert_eq!(open(Tuning { cpu: "another".into(), ..tuning.clone() }, here.clone()), "tuning.cpu");
    for other in [here.clone().threads(2), here.clone().memory(Memory::Small), here.clone().precision(Precision::F16)] {
        assert_eq!(open(tuning.clone(), other), "tuning.target");
    }
    if target().isa != Isa::Scalar {
        assert_eq!(open(tuning.clone(), here.isa(Isa::Scalar)), "tuning.target");
    }
    let other = Tuning { release: "0.0.1".into(), ..tuning };
    assert_eq!(code(Tuning::from_bytes(&other.to_bytes().unwrap())), "tuning.version");
}

#[test]
fn a_file_that_is_not_tuning_is_an_error() {
    let whole = tuned(&graphs()[0].0, 0).1.to_bytes().unwrap();
    for len in 0..whole.len() {
        assert_eq!(code(Tuning::from_bytes(&whole[..len])), "tuning.format", "{len} bytes");
    }
    for bit in 0..8 * whole.len() {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let want = if (8..12).contains(&(bit / 8)) { "tuning.version" } else { "tuning.format" };
        assert_eq!(code(Tuning::from_bytes(&flipped)), want, "bit {bit}");
    }
    assert_eq!(code(Tuning::from_bytes(&[&whole[..], &[0]].concat())), "tuning.format");
    assert_eq!(code(Tuning::from_bytes(&vec![0; MAX_BYTES as usize + 1])), "tuning.format");
}

/// Forged content with a correct hash.
#[test]
fn mutated_tuning_files_are_checked() {
    let (graph, x) = graphs().remove(0);
    let whole = tuned(&graph, 0).1.to_bytes().unwrap();
    let mut random = Random(9);
    let mut read = 0;
    for _ in 0..2000 {
        let mut content = whole[HEADER..].to_vec();
        for _ in 0..1 + random.below(3) {
            let at = random.below(content.len());
            content[at] = random.next() as u8;
        }
        let hash = XxHash3_128::oneshot(&content).to_le_bytes();
        let file = [&whole[..12], &hash, &content].concat();
        let Ok(tuning) = Tuning::from_bytes(&file) else { continue };
        read += 1;
        let options = Options::default().isa(target().isa).tune(Tune::Stored(Arc::new(tuning)));
        if let Ok(model) = Model::from_graph(graph.copy().unwrap(), &options) {
            output(&model, &x);
        }
    }
    assert!(read > 100, "{read}");
    // An index past the kernels is not a choice.
    let mut tuning = tuned(&graph, 0).1;
    tuning.tasks.values_mut().for_each(|measured| measured.chosen = usize::MAX);
    assert_eq!(step(&graph, Some(&tuning)).choice.kernel, step(&graph, None).choice.kernel);
}

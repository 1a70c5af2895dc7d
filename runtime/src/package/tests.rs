use std::sync::Arc;

use proptest::prelude::*;
use skipstone_kernels::activation::Activation;

use super::attack::{Sections, attacks, edit, opens_without_panic};
use super::container::{ALIGNMENT, Kind};
use super::*;
use crate::classify::{Classifier, Image, Settings};
use crate::model::Model;
use crate::ops::compare::{Compare, CompareKind};
use crate::ops::control::Control;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::matmul::MatMul;
use crate::ops::reshape::Reshape;
use crate::ops::unary::{Unary, UnaryKind};
use crate::options::{Memory, Options, Precision};
use crate::tensor::{DType, Fact, Shape, Tensor, TensorView};
use crate::{Isa, graph};

/// Deterministic values between -1 and 1.
fn numbers(dims: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let count = dims.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_slice(dims, &values).unwrap()
}

/// A classifier of 8x8 images with a convolution of every kind (plain, depthwise, 1x1) and a matrix product.
fn given() -> Graph {
    let mut graph = Graph::new();
    let fact = |dims: &[usize]| Fact::new(DType::F32, Shape::new(dims).unwrap());
    let mut x = graph.add_input("image", fact(&[1, 3, 8, 8])).unwrap();
    let convolutions = [(16, 3, 1, 3), (16, 16, 16, 3), (24, 16, 1, 1), (24, 24, 1, 3)];
    for (index, (filters, channels, groups, kernel)) in convolutions.into_iter().enumerate() {
        let seed = index as u32;
        let weights = graph
            .add_constant(format!("w{index}"), numbers(&[filters, channels / groups, kernel, kernel], seed))
            .unwrap();
        let bias = graph.add_constant(format!("b{index}"), numbers(&[filters], seed + 10)).unwrap();
        let conv = Conv {
            kernel: [kernel; 2],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [kernel / 2; 4],
            groups,
            layout: Layout::Nchw,
            activation: Activation::Relu,
            ..Conv::POINTWISE
        };
        x = graph.add_node(format!("conv{index}"), conv, &[x, weights, bias]).unwrap()[0];
    }
    let row = graph.add_node("row", Reshape { shape: Shape::new(&[1, 1, 24 * 64]).unwrap() }, &[x]).unwrap()[0];
    let weights = graph.add_constant("classes", numbers(&[1, 24 * 64, 10], 20)).unwrap();
    let product = MatMul { transposed: false, activation: Activation::None };
    let y = graph.add_node("product", product, &[row, weights]).unwrap()[0];
    graph.outputs.push(("scores".into(), y));
    graph
}

/// The same after the passes.
fn network() -> Graph {
    let mut graph = given();
    graph::optimize(&mut graph).unwrap();
    graph
}

fn info() -> Info {
    let metadata = [
        ("skipstone.labels", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj"),
        ("skipstone.mean", "0.5"),
        ("skipstone.card", "What it is for."),
    ];
    Info {
        metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        parameters: 20_000,
        weight_bytes: 80_000,
        ..Info::default()
    }
}

fn target(isa: Isa, memory: Memory, precision: Precision) -> Target {
    Target { isa, threads: 1, memory, precision }
}

fn run(model: &Model) -> Vec<f32> {
    let mut session = model.session().unwrap();
    let image = numbers(&[1, 3, 8, 8], 99);
    session.run(&[image.view()]).unwrap();
    session.output(0).unwrap().elements::<f32>().unwrap().to_vec()
}

pub(super) fn host_package(key: Option<&SigningKey>) -> Vec<u8> {
    write(&network(), &info(), Some(target(Isa::detect(), Memory::Fast, Precision::F32)), key).unwrap()
}

pub(super) fn code(result: Result<Model>) -> &'static str {
    match result {
        Ok(_) => "opened",
        Err(error) => error.code(),
    }
}

pub(super) fn open(bytes: &[u8]) -> Result<Model> {
    Model::from_bytes(bytes, &Options::default())
}

#[test]
fn a_package_gives_the_very_answer_of_its_graph() {
    let graph = network();
    for isa in Isa::available() {
        for (memory, precision) in
            [(Memory::Fast, Precision::F32), (Memory::Small, Precision::F32), (Memory::Fast, Precision::F16)]
        {
            let options = Options::default().isa(isa).memory(memory).precision(precision);
            let want = run(&Model::from_graph(given(), &options).unwrap());
            let packed = write(&graph, &info(), Some(target(isa, memory, precision)), None).unwrap();
            // For a packed package, the caller can only choose the instruction set.
            assert_eq!(run(&Model::from_bytes(&packed, &Options::default().isa(isa)).unwrap()), want);
            let generic = write(&graph, &info(), None, None).unwrap();
            assert_eq!(run(&Model::from_bytes(&generic, &options).unwrap()), want);
        }
    }
}

#[test]
fn metadata_round_trips() {
    let model = open(&host_package(None)).unwrap();
    let read = model.info();
    assert_eq!((&read.metadata, read.parameters, read.weight_bytes), (&info().metadata, 20_000, 80_000));
    let package = read.package.as_ref().unwrap();
    assert_eq!((package.packed_for.unwrap().isa, package.signer), (Isa::detect(), None));
    let mut classifier = Classifier::new(&model, &Settings::default(), None).unwrap();
    let rgb = [100; 8 * 8 * 3];
    let best = classifier.classify(Image::new(8, 8, &rgb).unwrap(), 1).unwrap();
    assert!(best[0].score > 0.0 && best[0].score <= 1.0);
}

#[test]
fn weights_are_read_in_place() {
    let bytes = host_package(None);
    let path = std::env::temp_dir().join(format!("skipstone-package-{}.skip", std::process::id()));
    // As in an app's archive: somewhere in a larger file.
    for offset in [0, 64, 4, 4096 + 4, 1, 7] {
        let mut archive = vec![7; offset];
        archive.extend(&bytes);
        archive.extend([9; 100]);
        std::fs::write(&path, &archive).unwrap();
        let file = File::open(&path).unwrap();
        let (offset, len) = (offset as u64, bytes.len() as u64);
        let model = Model::open_part(&file, offset, len, &Options::default()).unwrap();
        assert_eq!(run(&model), run(&open(&bytes).unwrap()));
        let part = |offset, len| code(Model::open_part(&file, offset, len, &Options::default()));
        assert_eq!(part(offset, len + 1), "package.format");
        assert_eq!(part(offset, len + 101), "package.truncated");
        assert_eq!(part(offset, len - 1), "package.truncated");
        assert_eq!(part(offset + 1, len), "package.magic");
        assert_eq!(part(u64::MAX - 3, len), "io");
        assert_eq!(part(1 << 40, 0), "package.magic");
    }
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(run(&Model::open(&path, &Options::default()).unwrap()), run(&open(&bytes).unwrap()));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    for bytes in signature::tests::packages() {
        // Every byte of the header and the table, and a sample of the rest.
        for at in (0..400).chain((400..bytes.len()).step_by(97)).chain(bytes.len() - 3..bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let Err(error) = open(&damaged) else { panic!("byte {at} may be anything") };
            let code = error.code();
            // Without the magic it is not a package, and the importer, if built in, reports its own error.
            assert!(code.starts_with("package.") || at < 8 && code.starts_with("model."), "byte {at}: {error}");
            assert!(error.to_string().len() > 20, "byte {at}: a reason");
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let bytes = host_package(None);
    for len in (0..400).chain((400..bytes.len()).step_by(61)) {
        let want = if len < 8 { "package.magic" } else { "package.truncated" };
        // Without the magic, the importer, if built in, reports its own error.
        assert!(code(open(&bytes[..len])) == want || len < 8, "{len} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(code(open(&longer)), "package.format");
}

#[test]
fn another_version_is_refused() {
    let mut newer = host_package(None);
    newer[8] += 1;
    assert_eq!(code(open(&newer)), "package.version");
    assert!(open(&newer).err().unwrap().to_string().contains("a newer Skipstone"));
}

#[test]
fn another_instruction_set_is_refused() {
    let missing = Isa::ALL.into_iter().find(|isa| !isa.is_available()).unwrap();
    let packed = host_package(None);
    let asked = Options::default().isa(Isa::Scalar);
    if Isa::detect() != Isa::Scalar {
        assert_eq!(code(Model::from_bytes(&packed, &asked)), "package.target");
    }
    let foreign = write(&network(), &info(), Some(target(missing, Memory::Fast, Precision::F32)), None).unwrap();
    assert_eq!(code(open(&foreign)), "package.target");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(attacks(10_000)))]

    #[test]
    fn mutated_packages_never_panic(
        edits in prop::collection::vec((0usize..1 << 20, any::<u8>(), 0u8..4), 1..6),
        in_info in prop::bool::weighted(0.1),
    ) {
        thread_local!(static SECTIONS: Sections = Sections::of(&host_package(None)));
        let mut sections = SECTIONS.with(Clone::clone);
        edit(if in_info { &mut sections.info } else { &mut sections.graph }, &edits);
        prop_assert!(opens_without_panic(&sections.package()), "a panic");
    }
}

#[test]
fn sections_are_aligned() {
    let bytes = Bytes::copy_of(&host_package(None)).unwrap();
    let container = Container::read(&bytes, None).unwrap();
    for kind in [Kind::Graph, Kind::Info, Kind::Weights] {
        assert!(container.section(kind).unwrap().as_ptr().addr().is_multiple_of(ALIGNMENT));
    }
}

#[test]
fn a_section_longer_or_shorter_than_its_content_is_refused() {
    let sections = Sections::of(&host_package(None));
    let changed = |change: fn(&mut Sections)| {
        let mut sections = sections.clone();
        change(&mut sections);
        code(open(&sections.package()))
    };
    assert_eq!(changed(|s| s.graph.push(0)), "package.format");
    assert_eq!(changed(|s| s.info.push(0)), "package.format");
    assert_eq!(changed(|s| s.graph.truncate(s.graph.len() - 1)), "package.format");
    assert_eq!(changed(|s| s.weights.truncate(s.weights.len() - 1)), "package.format");
}

/// Regression: unaligned packed weights were taken for weights computed at run time, and a product read nothing.
#[test]
fn packed_weights_must_be_aligned() {
    let graph = network();
    let (mut weights, target) = (WeightBytes::at(0), target(Isa::detect(), Memory::Fast, Precision::F32));
    let steps = Plan::new(graph.copy().unwrap(), target).unwrap().steps;
    // The first node and step is the layout conversion, the second the first convolution.
    let mut choices = vec![None; graph.nodes.len()];
    choices[1] = Some(steps[1].choice.clone());
    let packed_for = PackedFor::new(target.isa, target.memory, target.precision);
    let content = content::encode(&Content::store(&graph, Some(packed_for), &choices, &mut weights).unwrap()).unwrap();
    let whole = Sections { graph: content, info: Sections::of(&host_package(None)).info, weights: weights.bytes };
    assert_eq!(code(open(&whole.package())), "opened");
    let length = steps[1].choice.packed[0].len();
    let mut place = Vec::new();
    place.extend(content::encode(&(0usize, length)).unwrap());
    let at = whole.graph.windows(place.len()).position(|bytes| bytes == place).unwrap();
    let mut askew = whole.clone();
    askew.graph[at] = 1;
    assert_eq!(code(open(&askew.package())), "package.format");
}

/// Regression: weights listed under many names would be packed and kept once for each.
#[test]
fn weights_listed_twice_are_refused() {
    let graph = network();
    let mut weights = WeightBytes::at(0);
    let content = content::encode(&Content::store(&graph, None, &[], &mut weights).unwrap()).unwrap();
    let info = Sections::of(&host_package(None)).info;
    let whole = Sections { graph: content, info, weights: weights.bytes };
    assert_eq!(code(open(&whole.package())), "opened");
    let content: Content = content::decode(&whole.graph).unwrap();
    let short = Bytes::copy_of(&whole.weights[..whole.weights.len() / 2]).unwrap();
    let restored = content.restore(&short, &StoredVariables::default(), &StoredLengths::default());
    assert!(restored.is_err_and(|error| error.to_string().contains("listed twice")));
}

/// Exclusive branches with the same weights, which a package for a CPU holds once, like memory.
#[test]
fn branches_share_packed_weights() {
    let fact = |dims: &[usize]| Fact::new(DType::F32, Shape::new(dims).unwrap());
    let mut graph = Graph::new();
    let x = graph.add_input("x", fact(&[1, 6, 6, 40])).unwrap();
    let sign = graph.add_input("sign", fact(&[])).unwrap();
    let zero = graph.add_constant("zero", Tensor::from_slice(&[], &[0.0f32]).unwrap()).unwrap();
    let condition = graph.add_node("condition", Compare { kind: CompareKind::Greater }, &[sign, zero]).unwrap()[0];
    let weights = graph.add_constant("w", numbers(&[40, 40, 3, 3], 1)).unwrap();
    let bias = graph.add_constant("b", numbers(&[40], 2)).unwrap();
    let conv = Conv { kernel: [3; 2], pads: [1; 4], layout: Layout::Nhwc, ..Conv::POINTWISE };
    let mut branch = |count: usize| {
        graph.begin_block().unwrap();
        let mut y = x;
        for index in 0..count {
            y = graph.add_node(format!("conv{count}_{index}"), conv.clone(), &[y, weights, bias]).unwrap()[0];
        }
        graph.end_block(&[y]).unwrap()
    };
    let blocks = vec![branch(1), branch(3)];
    let y = graph.add_control("if", Control::If, &[condition], blocks).unwrap()[0];
    graph.outputs.push(("y".into(), y));

    let target = target(Isa::detect(), Memory::Fast, Precision::F32);
    let package = write(&graph, &info(), Some(target), None).unwrap();
    let packaged = Model::from_bytes(&package, &Options::default()).unwrap();
    let model = Model::of_optimized(graph, &Options::default()).unwrap();
    let bytes = model.plan().unwrap().packed_bytes();
    assert!(package.len() < bytes + bytes / 2, "{} bytes for {bytes} of weights", package.len());
    for model in [&packaged, &model] {
        let plan = model.plan().unwrap();
        let packed: Vec<_> = plan.steps.iter().flat_map(|step| &step.choice.packed).map(|part| part.as_ptr()).collect();
        assert!(packed.len() >= 4 && packed.iter().all(|&part| part == packed[0]));
        assert_eq!(plan.packed_bytes(), bytes);
        // The longer branch alone.
        assert_eq!(plan.macs(), 3 * 36 * 9 * 40 * 40);
    }
    let x = numbers(&[1, 6, 6, 40], 3);
    for sign in [1.0f32, -1.0] {
        let sign = Tensor::from_slice(&[], &[sign]).unwrap();
        let [packaged, direct] = [&packaged, &model].map(|model| {
            let mut session = model.session().unwrap();
            session.run(&[x.view(), sign.view()]).unwrap();
            session.output(0).unwrap().bytes().to_vec()
        });
        assert_eq!(packaged, direct);
    }
}

#[test]
fn a_graph_with_steps_of_the_front_end_is_refused() {
    #[derive(Debug)]
    struct Elsewhere(Vec<Fact>);
    impl crate::ops::Foreign for Elsewhere {
        fn name(&self) -> &str {
            "Elsewhere"
        }
        fn outputs(&self) -> &[Fact] {
            &self.0
        }
        fn work(&self) -> u64 {
            0
        }
        fn is_quick(&self) -> bool {
            true
        }
        fn evaluate(
            &self,
            _: &[TensorView<'_>],
            _: &crate::ops::Budget<'_>,
        ) -> std::result::Result<Vec<Tensor>, crate::OpError> {
            Ok(Vec::new())
        }
    }
    let mut graph = network();
    let fact = graph.fact(graph.outputs[0].1).clone();
    let foreign = crate::ops::ForeignOp(Arc::new(Elsewhere(vec![fact])));
    let y = graph.add_node("the odd one", foreign, &[graph.outputs[0].1]).unwrap()[0];
    graph.outputs[0].1 = y;
    let error = write(&graph, &info(), None, None).unwrap_err();
    assert!(error.to_string().contains("'the odd one'"), "{error}");
}

/// Lengths that are none of an output's axis, and an input that nothing checks, are refused.
#[test]
fn invalid_lengths_are_refused() {
    let fact = |dtype, dims: &[usize]| Fact::new(dtype, Shape::new(dims).unwrap());
    let mut graph = Graph::new();
    let x = graph.add_input("x", fact(DType::F32, &[3, 2])).unwrap();
    let len = graph.add_input("len", fact(DType::I64, &[])).unwrap();
    let y = graph.add_node("y", Unary { kind: UnaryKind::Neg }, &[x]).unwrap()[0];
    graph.outputs = vec![("y".into(), y), (String::new(), len)];
    let opened = |lengths: &[(usize, usize)]| {
        let mut weights = WeightBytes::at(0);
        let content = Content::store(&graph, None, &[], &mut weights).unwrap();
        let bytes = Bytes::copy_of(&weights.bytes).unwrap();
        let lengths = content::decode(&content::encode(&lengths).unwrap()).unwrap();
        content.restore(&bytes, &StoredVariables::default(), &lengths).map(|(graph, _)| graph)
    };
    for wrong in [[(1, 0)], [(0, 2)], [(7, 0)]] {
        let error = opened(&wrong).unwrap_err();
        assert_eq!(error.code(), "package.format", "{wrong:?}: {error}");
    }
    assert_eq!(opened(&[(0, 0), (0, 1), (0, 0)]).unwrap_err().code(), "package.format");
    let target = target(Isa::detect(), Memory::Fast, Precision::F32);
    let error = Plan::new(opened(&[(0, 0)]).unwrap(), target).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("the length of an output is an input"), "{error}");
}

#[test]
fn the_list_for_a_smaller_build_has_the_families_that_a_phone_would_choose() {
    let folder = tempfile::tempdir().unwrap();
    let listed = |target| {
        let path = folder.path().join("network.skip");
        std::fs::write(&path, write(&network(), &info(), target, None).unwrap()).unwrap();
        operators(&path).unwrap()
    };
    let any = listed(None);
    assert!(["MatMul", "gemm", "depthwise"].iter().all(|name| any.contains(name)), "{any:?}");
    assert!(["Softmax", "sparse", "depthwise_chw"].iter().all(|name| !any.contains(name)), "{any:?}");
    // Packed weights have one layout, which one of the families reads.
    let packed = listed(Some(target(Isa::Scalar, Memory::Small, Precision::F32)));
    assert!(packed.contains("gemm") && packed.is_subset(&any), "{packed:?}, {any:?}");
}

//! Fuzzing bodies: each takes arbitrary bytes, and must neither panic nor take long. Errors are fine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use skipstone::classify::{Preprocess, Settings};
use skipstone::vision::{Converter, Frame, Region, Rotation};
use skipstone::{DType, Fact, Isa, Limits, Model, Options, Recipe, Shape, Tensor, TensorView, compile};
use skipstone_onnx::write;
use twox_hash::XxHash3_128;

/// The operators to attack, with the positional attributes that they may have.
const OPERATORS: [&str; 64] = [
    "Add",
    "ArgMax",
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "ConstantOfShape",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "CumSum",
    "DFT",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Einsum",
    "Expand",
    "EyeLike",
    "Flatten",
    "GRU",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gemm",
    "GridSample",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LSTM",
    "LayerNormalization",
    "LpPool",
    "MatMul",
    "MatMulInteger",
    "MaxPool",
    "MelWeightMatrix",
    "Mod",
    "NonMaxSuppression",
    "NonZero",
    "OneHot",
    "PRelu",
    "Pad",
    "Pow",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "RNN",
    "Range",
    "ReduceMean",
    "Reshape",
    "Resize",
    "RotaryEmbedding",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "Softmax",
    "Split",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
];

const ATTRIBUTES: [&str; 20] = [
    "axis",
    "axes",
    "kernel_shape",
    "strides",
    "dilations",
    "pads",
    "group",
    "hidden_size",
    "perm",
    "keepdims",
    "num_heads",
    "q_num_heads",
    "kv_num_heads",
    "blocksize",
    "num_groups",
    "size",
    "ceil_mode",
    "to",
    "num_outputs",
    "batch_dims",
];

/// Bytes that make the choices.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// Mostly small; sometimes at, below or far above a limit.
    fn size(&mut self) -> i64 {
        const LARGE: [i64; 8] = [255, 1 << 12, 1 << 16, 1 << 24, (1 << 28) + 1, 1 << 31, 1 << 40, i64::MAX];
        match self.byte() {
            choice @ 0..=239 => i64::from(choice % 8) + 1,
            240..=247 => -1,
            choice => LARGE[usize::from(choice % 8)],
        }
    }

    fn dims(&mut self) -> Vec<i64> {
        let rank = self.below(6);
        (0..rank).map(|_| self.size()).collect()
    }
}

/// An ONNX file of one node: the bytes choose operator, operands, constants and attributes.
#[must_use]
pub fn one_node(bytes: &[u8]) -> Vec<u8> {
    let mut choices = Choices(bytes);
    let op = OPERATORS[choices.below(OPERATORS.len())];
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let operands = &names[..choices.below(names.len() + 1)];
    let (mut inputs, mut constants) = (Vec::new(), Vec::new());
    for name in operands {
        let dims = choices.dims();
        let elements = dims.iter().try_fold(1i64, |all, &dim| all.checked_mul(dim)).filter(|all| (0..64).contains(all));
        match (choices.byte() % 4, elements) {
            (0, Some(elements)) => {
                let values: Vec<i64> = (0..elements).map(|_| choices.size()).collect();
                constants.push(write::i64s(name, &dims, &values));
            }
            (1, Some(elements)) => {
                let values: Vec<f32> = (0..elements).map(|_| f32::from(choices.byte()) / 16.0 - 4.0).collect();
                constants.push(write::f32s(name, &dims, &values));
            }
            (kind, _) => {
                let element = [1, 1, 7, 2][usize::from(kind)];
                inputs.push(write::value(name, element, &dims));
            }
        }
    }
    let mut attributes = Vec::new();
    for _ in 0..choices.below(4) {
        let name = ATTRIBUTES[choices.below(ATTRIBUTES.len())];
        attributes.push(if choices.byte() % 2 == 0 {
            write::int(name, choices.size())
        } else {
            let count = choices.below(5);
            write::ints(name, &(0..count).map(|_| choices.size()).collect::<Vec<_>>())
        });
    }
    let node = write::node(op, operands, &["y"], &attributes);
    let graph = write::graph(&[node], &constants, &inputs, &[write::named("y")]);
    write::model_with(&graph, &[write::opset("", [13, 17, 18, 23][choices.below(4)])])
}

/// Small limits, so that no input takes long.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.memory_bytes = 64 << 20;
    limits.run_work = 1 << 24;
    limits
}

/// Opens a model and runs it on zeros.
pub fn model(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes, &Options::default().limits(limits())) else { return };
    let Ok(mut session) = model.session() else { return };
    session.set_deadline(Some(Duration::from_secs(1)));
    let facts = model.inputs().iter().map(|port| port.fact.clone());
    // A model that tract runs as a whole has no plan, and so no bound on its inputs.
    let inputs: Vec<Tensor> = facts.filter(|fact| fact.bytes() < 64 << 20).map(Tensor::zeros).collect();
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let _ = session.run(&views);
}

/// Changes the content of a small package, corrects its hashes as an attacker would, opens it and runs it. The first
/// byte chooses the package; then come changes of six bytes each: section, position (3), kind, new byte.
pub fn package(bytes: &[u8]) {
    let packages = packages();
    let mut choices = Choices(bytes);
    let mut sections = packages[choices.below(packages.len())].clone();
    while !choices.0.is_empty() {
        let index = choices.below(sections.len());
        let position = (0..3).fold(0, |position, _| position << 8 | usize::from(choices.byte()));
        let (kind, new) = (choices.byte(), choices.byte());
        let content = &mut sections[index].content;
        let Some(at) = position.checked_rem(content.len()) else { return };
        match kind % 4 {
            0 => content[at] = new,
            1 => content[at] ^= 1 << (new % 8),
            2 => drop(content.remove(at)),
            _ => content.insert(at, new),
        }
    }
    model(&container(&sections));
}

/// A section of a package.
#[derive(Clone)]
struct Section {
    kind: [u8; 4],
    content: Vec<u8>,
}

/// Bytes of a container's header before the table, and of each entry of the table; see docs/package-format.md.
const HEADER: usize = 152;
const ENTRY: usize = 56;

/// The packages to change: those that every version must open, and one for each of many nodes.
fn packages() -> &'static [Vec<Section>] {
    static PACKAGES: OnceLock<Vec<Vec<Section>>> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let golden = [
            &include_bytes!("../golden/v4/classifier-generic.skip")[..],
            include_bytes!("../golden/v4/classifier-scalar.skip"),
            include_bytes!("../golden/v4/control-generic.skip"),
            include_bytes!("../golden/v4/operators-generic.skip"),
        ];
        let file = std::env::temp_dir().join(format!("skipstone-attack-{}.onnx", std::process::id()));
        let nodes = (0..1000).filter_map(|seed| compiled(&one_node(&random(seed, 96)), &file));
        let packages = golden.into_iter().map(<[u8]>::to_vec).chain(nodes);
        let packages = packages.map(|package| sections(&package)).collect();
        // Only a later run would overwrite it.
        let _ = std::fs::remove_file(&file);
        packages
    })
}

/// The package of an ONNX file, if it can be one; `file` is where it is read from.
fn compiled(model: &[u8], file: &Path) -> Option<Vec<u8>> {
    std::fs::write(file, model).ok()?;
    let recipe = Recipe { limits: limits(), ..Recipe::default() };
    compile(file, &recipe, None).ok().map(|(package, _)| package)
}

/// The sections of a valid package.
fn sections(package: &[u8]) -> Vec<Section> {
    let number = |at: usize| package[at..at + 8].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let count = number(8) >> 32;
    let entries = (0..count).map(|index| HEADER + index * ENTRY);
    let section = |at: usize| {
        let (offset, length) = (number(at + 8), number(at + 16));
        let kind = [package[at], package[at + 1], package[at + 2], package[at + 3]];
        Section { kind, content: package[offset..offset + length].to_vec() }
    };
    entries.map(section).collect()
}

/// An unsigned package of these sections with correct hashes.
fn container(sections: &[Section]) -> Vec<u8> {
    let hash = |bytes: &[u8]| {
        let mut padded = [0; 32];
        padded[..16].copy_from_slice(&XxHash3_128::oneshot(bytes).to_le_bytes());
        padded
    };
    let (mut table, mut data) = (Vec::new(), Vec::new());
    let begin = HEADER + sections.len() * ENTRY;
    for Section { kind, content } in sections {
        data.resize((begin + data.len()).next_multiple_of(64) - begin, 0);
        table.extend(kind);
        table.extend([0; 4]);
        table.extend(((begin + data.len()) as u64).to_le_bytes());
        table.extend((content.len() as u64).to_le_bytes());
        table.extend(hash(content));
        data.extend(content);
    }
    let mut file = b"SKIPSTON".to_vec();
    file.extend(4u32.to_le_bytes());
    file.extend((sections.len() as u32).to_le_bytes());
    file.extend(((begin + data.len()) as u64).to_le_bytes());
    file.extend(hash(&[&file[..], &table].concat()));
    file.resize(HEADER, 0);
    [file, table, data].concat()
}

/// `count` bytes from a linear congruential generator.
#[must_use]
pub fn random(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Makes a camera frame from the bytes, and a tensor from the frame.
pub fn frame(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let mut side = || usize::from(choices.byte() % 64) + usize::from(choices.byte() == 255) * (usize::MAX / 2);
    let (width, height) = (side(), side());
    let region = Region { x: side(), y: side(), width: side(), height: side() };
    let (kind, degrees) = (choices.byte(), i32::from(choices.byte()) * 45);
    let pixels = choices.0;
    let made = match kind % 7 {
        0 => Frame::nv21(width, height, pixels),
        1 => Frame::nv12(width, height, pixels),
        2 => Frame::i420(width, height, pixels),
        3 => Frame::rgb(width, height, pixels),
        4 => Frame::rgba(width, height, pixels),
        5 => Frame::bgra(width, height, pixels),
        _ => Frame::gray(width, height, pixels),
    };
    let (Ok(frame), Ok(rotation)) = (made, Rotation::from_degrees(degrees)) else { return };
    let frame = frame.rotated(rotation).mirrored(kind > 127);
    let Ok(frame) = (if kind % 2 == 0 { frame.cropped(region) } else { Ok(frame) }) else { return };
    let Ok(shape) = Shape::new(&[1, 3, 9, 7]) else { return };
    let fact = Fact::new(DType::F32, shape);
    let Ok(preprocess) = Preprocess::new(&fact, &BTreeMap::new(), &Settings::default()) else { return };
    let mut out = vec![0.0; preprocess.elements()];
    for isa in Isa::available() {
        let _ = preprocess.apply_frame(&frame, &mut Converter::new(isa), &mut out);
    }
}

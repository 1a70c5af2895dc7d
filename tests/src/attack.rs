//! Fuzzing bodies: each takes arbitrary bytes, and must neither panic nor take long. Errors are fine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use skipstone::classify::{Preprocess, Settings};
use skipstone::vision::{Converter, Frame, Pixels, Plane, Region, Rotation, YuvFormat, YuvMatrix, YuvRange};
use skipstone::{DType, Fact, Isa, Limits, Model, Options, Recipe, Shape, Tensor, TensorView, compile};
use skipstone_onnx::write;
use twox_hash::XxHash3_128;

/// The operators to attack, their operands and attributes.
///
/// An operand is a letter: `s` floats of a shape that operands share, a digit floats of that rank, `b` booleans and `n`
/// integers of the shared shape, `q` bytes of rank 4. Constants are `i`, a vector of integers, `k`, an integer, `f`, a
/// float, and `z`, a byte; `-` is left out. Those after a comma are optional. An attribute with an exclamation mark is
/// required; one with a digit is a list of that many integers, another is one integer.
const OPERATORS: [(&str, &str, &str); 64] = [
    ("Add", "s s", ""),
    ("ArgMax", "s", "axis keepdims"),
    ("Attention", "4 4 4", "q_num_heads kv_num_heads"),
    ("AveragePool", "4", "kernel_shape!2 strides2 pads4 ceil_mode"),
    ("BatchNormalization", "4 1 1 1 1", ""),
    ("Cast", "s", "to!"),
    ("Clip", "s,f f", ""),
    ("Concat", "s s,s", "axis!"),
    ("ConstantOfShape", "i", ""),
    ("Conv", "4 4,1", "kernel_shape2 strides2 pads4 dilations2 group"),
    ("ConvInteger", "q q,z z", "strides2 pads4 group"),
    ("ConvTranspose", "4 4,1", "strides2 pads4 dilations2 group output_padding2"),
    ("CumSum", "s k", "exclusive reverse"),
    ("DFT", "4,k", "axis inverse onesided"),
    ("DepthToSpace", "4", "blocksize!"),
    ("DequantizeLinear", "q f,z", ""),
    ("Div", "s s", ""),
    ("Einsum", "2 2", ""),
    ("Expand", "s i", ""),
    ("EyeLike", "2", "k"),
    ("Flatten", "s", "axis"),
    ("GRU", "3 3 3,2", "hidden_size! layout"),
    ("Gather", "s n", "axis"),
    ("GatherElements", "s n", "axis"),
    ("GatherND", "s n", "batch_dims"),
    ("Gemm", "2 2,1", "transA transB"),
    ("GridSample", "4 4", "align_corners"),
    ("GroupNormalization", "4 1 1", "num_groups!"),
    ("InstanceNormalization", "4 1 1", ""),
    ("LRN", "4", "size!"),
    ("LSTM", "3 3 3,2", "hidden_size! layout"),
    ("LayerNormalization", "s 1,1", "axis"),
    ("LpPool", "4", "kernel_shape!2 strides2 pads4 p"),
    ("MatMul", "s s", ""),
    ("MatMulInteger", "q q,z z", ""),
    ("MaxPool", "4", "kernel_shape!2 strides2 pads4 dilations2 ceil_mode storage_order"),
    ("MelWeightMatrix", "k k k f f", ""),
    ("Mod", "s s", "fmod"),
    ("NonMaxSuppression", "3 3,k f f", "center_point_box"),
    ("NonZero", "s", ""),
    ("OneHot", "n k 1", "axis"),
    ("PRelu", "s s", ""),
    ("Pad", "s i,f i", ""),
    ("Pow", "s s", ""),
    ("QLinearConv", "q f z q f z f z", "strides2 pads4 group"),
    ("QLinearMatMul", "q f z q f z f z", ""),
    ("QuantizeLinear", "s f,z", "axis"),
    ("RNN", "3 3 3,2", "hidden_size! layout"),
    ("Range", "k k k", ""),
    ("ReduceMean", "s,i", "keepdims"),
    ("Reshape", "s i", "allowzero"),
    ("Resize", "4 - - i", "antialias"),
    ("RotaryEmbedding", "4 2 2", "interleaved num_heads"),
    ("ScatterElements", "s n s", "axis"),
    ("ScatterND", "s n s", ""),
    ("Slice", "s i i,i i", ""),
    ("Softmax", "s", "axis"),
    ("Split", "s,i", "axis num_outputs"),
    ("Tile", "s i", ""),
    ("TopK", "s i", "axis largest"),
    ("Transpose", "s", "perm4"),
    ("Trilu", "s,k", "upper"),
    ("Unsqueeze", "s i", ""),
    ("Where", "b s s", ""),
];

/// Letters of operands that take another's place now and then.
const LETTERS: &[u8] = b"s01234bnqikfz-";

/// Bytes that make the choices.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Those that are left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next, and 0 after the last.
    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// Mostly small; sometimes at, below or far above a limit.
    fn size(&mut self) -> i64 {
        const LARGE: [i64; 8] = [255, 1 << 12, 1 << 16, 1 << 24, (1 << 28) + 1, 1 << 31, 1 << 40, i64::MAX];
        match self.byte() {
            choice @ 0..=239 => i64::from(choice % 4) + 1,
            240..=247 => -1,
            choice => LARGE[usize::from(choice % 8)],
        }
    }

    fn dims(&mut self, rank: usize) -> Vec<i64> {
        (0..rank).map(|_| self.size()).collect()
    }

    /// True once in `count` times.
    fn once_in(&mut self, count: u8) -> bool {
        self.byte() % count == count - 1
    }
}

/// An ONNX file of one node: the bytes choose operator, operands, constants and attributes. Most fit each other.
#[must_use]
pub fn one_node(bytes: &[u8]) -> Vec<u8> {
    let mut choices = Choices(bytes);
    let (op, operands, attributes) = OPERATORS[choices.below(OPERATORS.len())];
    let rank = choices.below(5);
    let shared = choices.dims(rank);
    let (required, optional) = operands.split_once(',').unwrap_or((operands, ""));
    let optional: Vec<&str> = optional.split_whitespace().collect();
    let given = &optional[..choices.below(optional.len() + 1)];
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (mut used, mut inputs, mut constants) = (Vec::new(), Vec::new(), Vec::new());
    for (operand, name) in required.split_whitespace().chain(given.iter().copied()).zip(names) {
        let usual = operand.as_bytes()[0];
        let letter = if choices.once_in(16) { LETTERS[choices.below(LETTERS.len())] } else { usual };
        used.push(if letter == b'-' { "" } else { name });
        match letter {
            b'-' => {}
            b'i' | b'k' => {
                let count = if letter == b'k' { 1 } else { 1 + choices.below(4) };
                let values: Vec<i64> = (0..count).map(|_| choices.size()).collect();
                let dims: &[i64] = if letter == b'k' { &[] } else { &[values.len() as i64] };
                constants.push(write::i64s(name, dims, &values));
            }
            b'f' => constants.push(write::f32s(name, &[], &[f32::from(choices.byte()) / 16.0 - 4.0])),
            b'z' => constants.push(write::tensor(name, 2, &[], &[choices.byte()])),
            _ => {
                let (element, dims) = match letter {
                    b'q' => (2, choices.dims(4)),
                    b'b' => (9, shared.clone()),
                    b'n' => (7, shared.clone()),
                    b's' => (1, shared.clone()),
                    rank => (1, choices.dims(usize::from(rank - b'0'))),
                };
                // Small tensors may be constants, which are folded and packed.
                match dims.iter().try_fold(1i64, |all, &dim| all.checked_mul(dim)).filter(|all| (0..64).contains(all)) {
                    Some(elements) if element == 1 && choices.once_in(3) => {
                        let values: Vec<f32> = (0..elements).map(|_| f32::from(choices.byte()) / 16.0 - 4.0).collect();
                        constants.push(write::f32s(name, &dims, &values));
                    }
                    _ => inputs.push(write::value(name, element, &dims)),
                }
            }
        }
    }
    let mut given = Vec::new();
    for attribute in attributes.split_whitespace() {
        let (name, required) = attribute.split_once('!').map_or((attribute, false), |(name, _)| (name, true));
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let count = attribute.bytes().last().filter(u8::is_ascii_digit).map(|digit| usize::from(digit - b'0'));
        if required || choices.once_in(2) {
            given.push(match count {
                Some(count) => write::ints(name, &(0..count).map(|_| choices.size()).collect::<Vec<_>>()),
                None => write::int(name, choices.size() - i64::from(!required)),
            });
        }
    }
    let node = write::node(op, &used, &["y"], &given);
    let graph = write::graph(&[node], &constants, &inputs, &[write::named("y")]);
    write::model_with(&graph, &[write::opset("", [13, 17, 18, 23][choices.below(4)])])
}

/// Small limits, so that no input takes long: thousands are to be tried in a second.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.memory_bytes = 4 << 20;
    limits.run_work = 1 << 20;
    limits.file.max_folded_elements = 1 << 16;
    limits.file.max_folded_work = 1 << 20;
    limits
}

/// Opens a model and runs it on zeros.
pub fn model(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes, &Options::default().limits(limits())) else { return };
    let Ok(mut session) = model.session() else { return };
    session.set_deadline(Some(Duration::from_secs(1)));
    let facts = model.inputs().iter().map(|port| port.fact.clone());
    // A model that tract runs as a whole has no plan, and so no bound on its inputs.
    let inputs: Vec<Tensor> = facts.filter(|fact| fact.bytes() < 4 << 20).map(Tensor::zeros).collect();
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
    let (Some(frame), Ok(shape)) = (drawn_frame(bytes), Shape::new(&[1, 3, 9, 7])) else { return };
    let fact = Fact::new(DType::F32, shape);
    let Ok(preprocess) = Preprocess::new(&fact, &BTreeMap::new(), &Settings::default()) else { return };
    let mut out = vec![0.0; preprocess.elements()];
    for isa in Isa::available() {
        let _ = preprocess.apply_frame(&frame, &mut Converter::new(isa), &mut out);
    }
}

/// A frame of any format, rotation and crop; none if what the bytes say is refused.
fn drawn_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let mut choices = Choices(bytes);
    let mut side = || usize::from(choices.byte() % 64) + usize::from(choices.byte() == 255) * (usize::MAX / 2);
    let (width, height) = (side(), side());
    let region = Region { x: side(), y: side(), width: side(), height: side() };
    let (degrees, is_mirrored) = (i32::from(choices.byte() % 10) * 45, choices.byte() % 2 == 0);
    let frame = if choices.byte() % 2 == 0 {
        dense_frame(choices.byte(), width, height, choices.rest())
    } else {
        frame_of_planes(&mut choices, width, height)
    };
    let frame = frame.ok()?.rotated(Rotation::from_degrees(degrees).ok()?).mirrored(is_mirrored);
    if region.width.is_multiple_of(2) { frame.cropped(region).ok() } else { Some(frame) }
}

/// A frame whose planes follow each other without gaps, of one of eight formats; refused if there are not enough bytes.
fn dense_frame(kind: u8, width: usize, height: usize, bytes: &[u8]) -> skipstone::Result<Frame<'_>> {
    let (pixels, chroma) =
        (width.saturating_mul(height), width.div_ceil(2).saturating_mul(height.div_ceil(2)).saturating_mul(2));
    let samples = |bytes_of_pixel: usize| pixels.saturating_mul(bytes_of_pixel);
    let first = |count: usize| bytes.get(..count).unwrap_or(bytes);
    match kind % 8 {
        0 => Frame::nv21(width, height, first(pixels.saturating_add(chroma))),
        1 => Frame::nv12(width, height, first(pixels.saturating_add(chroma))),
        2 => Frame::i420(width, height, first(pixels.saturating_add(chroma))),
        3 => Frame::p010(width, height, first(pixels.saturating_add(chroma).saturating_mul(2))),
        4 => Frame::rgb(width, height, first(samples(3))),
        5 => Frame::rgba(width, height, first(samples(4))),
        6 => Frame::bgra(width, height, first(samples(4))),
        _ => Frame::gray(width, height, first(samples(1))),
    }
}

/// A frame of YUV whose planes begin anywhere, overlap, and have any strides; refused if they are too short.
fn frame_of_planes<'a>(choices: &mut Choices<'a>, width: usize, height: usize) -> skipstone::Result<Frame<'a>> {
    let formats = [YuvFormat::Yuv420, YuvFormat::Yuv422, YuvFormat::P010, YuvFormat::P210];
    let (format, matrix, range) = (
        formats[choices.below(formats.len())],
        [YuvMatrix::Bt601, YuvMatrix::Bt709, YuvMatrix::Bt2020][choices.below(3)],
        [YuvRange::Full, YuvRange::Video][choices.below(2)],
    );
    let layouts = [(); 3].map(|()| (choices.below(256), choices.below(256), choices.below(8)));
    let bytes = choices.rest();
    let [y, u, v] = layouts.map(|(start, row_stride, pixel_stride)| Plane {
        bytes: bytes.get(start..).unwrap_or_default(),
        row_stride,
        pixel_stride,
    });
    Frame::new(width, height, Pixels::Yuv { format, y, u, v, matrix, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_packages_open() {
        let packages = packages();
        assert!(packages.len() > 100, "{} packages", packages.len());
        for sections in packages {
            Model::from_bytes(&container(sections), &Options::default().limits(limits())).unwrap();
        }
    }

    #[test]
    fn nodes_fit_often_enough() {
        let opens =
            |seed| Model::from_bytes(&one_node(&random(seed, 96)), &Options::default().limits(limits())).is_ok();
        let opened = (0..1000).filter(|&seed| opens(seed)).count();
        assert!(opened > 200, "{opened} of 1000");
    }
    /// Regression: dense frames were given all bytes and never the right number of them, so that hardly one was made.
    #[test]
    fn frames_are_made_often_enough() {
        let often = |is_made: &dyn Fn(&[u8]) -> bool| (0..1000).filter(|&seed| is_made(&random(seed, 8192))).count();
        let dense = often(&|bytes| dense_frame(bytes[0], 33, 17, bytes).is_ok());
        let of_planes = often(&|bytes| frame_of_planes(&mut Choices(bytes), 33, 17).is_ok());
        let drawn = often(&|bytes| drawn_frame(bytes).is_some());
        assert!(dense == 1000 && of_planes > 100 && drawn > 100, "of 1000: {dense}, {of_planes}, {drawn}");
    }
}

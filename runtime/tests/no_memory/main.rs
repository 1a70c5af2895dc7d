//! Memory that runs out while a model is loaded, packaged and given a session: an error each time, never the end of the
//! process.
//!
//! The allocator of this test can refuse any allocation of at least some bytes: [`LARGE`] for models of a few nodes with
//! large tensors, [`SMALL`] for one of many small parts, which is also loaded with any allocation refused. Every model is
//! loaded once to count these allocations, and then for each of them: with that one refused, and with all later ones
//! refused too. Spare memory, as the command and the libraries for phones have it, is behind this allocator. An
//! allocation without an error ends the process, and so the test.
#![cfg(feature = "onnx")]

mod lists;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex};

use skipstone::graph::optimize;
use skipstone::plan::Target;
use skipstone::{
    DType, Info, Isa, Memory, Model, Options, Precision, Recipe, Result, Shapes, Tensor, WithSpare, compile, onnx,
    package,
};
use skipstone_onnx::write::{
    FLOAT, INT64, Message, body, f32s, floats, graph, head, i64s, int, ints, model_with, named, node, opset, tensor,
    text, value,
};

/// Bytes of the smallest allocation that may be refused of models of a few nodes: larger than their lists.
const LARGE: usize = 16 * 1024;
/// The same of a model of some hundred nodes: larger than what a node of a few operands takes by itself.
const SMALL: usize = 1024;

/// Of a list that grows by doubling, and of a pass over many blocks, not every allocation has to be refused.
const STEP: usize = 127;
/// The same for allocations of any size, of which there are tens of thousands.
const WIDE_STEP: usize = 30011;

/// Codes of element types in a file.
const UINT8: i64 = 2;
const INT8: i64 = 3;
const INT32: i64 = 6;
const BOOL: i64 = 9;
const FLOAT16: i64 = 10;
const INT4: i64 = 22;

/// The system's allocator, which refuses large allocations on demand.
struct Refusing;

/// Bytes of the smallest allocation that is counted.
static SMALLEST: AtomicUsize = AtomicUsize::new(LARGE);
/// Such allocations so far.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// The first of them to refuse, and the first after it that is not refused.
static FIRST: AtomicUsize = AtomicUsize::new(usize::MAX);
static END: AtomicUsize = AtomicUsize::new(usize::MAX);

impl Refusing {
    /// Counts an allocation; returns whether to refuse it.
    fn refuses(size: usize) -> bool {
        size >= SMALLEST.load(Relaxed)
            && (FIRST.load(Relaxed)..END.load(Relaxed)).contains(&COUNT.fetch_add(1, Relaxed))
    }
}

// SAFETY: every call goes to the system's allocator, or returns null, which means that there is no memory.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        if Self::refuses(layout.size()) { null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        if Self::refuses(layout.size()) { null_mut() } else { unsafe { System.alloc_zeroed(layout) } }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        if Self::refuses(size) { null_mut() } else { unsafe { System.realloc(block, layout, size) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: WithSpare<Refusing> = WithSpare::new(Refusing);

/// Runs `attempt` with some of its large allocations refused; also returns how many there were.
fn refusing<T>(which: Range<usize>, attempt: impl FnOnce() -> T) -> (T, usize) {
    COUNT.store(0, Relaxed);
    END.store(which.end, Relaxed);
    FIRST.store(which.start, Relaxed);
    let result = attempt();
    FIRST.store(usize::MAX, Relaxed);
    (result, COUNT.load(Relaxed))
}

#[test]
fn no_allocation_of_loading_ends_the_process() {
    LazyLock::force(&INFO);
    let _alone = ALONE.lock();
    let mut tried = 0;
    let mut names = HashSet::new();
    for (name, file) in files() {
        // Only the importer sees where the weights are in a file.
        let ways = if names.insert(name) { &WAYS[..] } else { &WAYS[..1] };
        for (way, open) in ways {
            tried += survives(&format!("{name}, {way}"), &|| open(&file));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = external(folder.path());
    tried += survives("external data", &|| Model::open(&path, &Options::default()));
    tried += survives("external data, compiled", &|| {
        let (package, _) = compile(&path, &Recipe::default(), None)?;
        Model::from_bytes(&package, &Options::default())
    });
    println!("{tried} failures");
    assert!(tried > 1000, "only {tried} allocations were refused");
}

/// Opens a model again and again, with ever later allocations refused; returns how often that was tried.
fn survives(name: &str, open: &dyn Fn() -> Result<Model>) -> usize {
    survives_some(name, (0, 1), open)
}

/// Like [`survives`], from an allocation on one of `step` refused.
fn survives_some(name: &str, (from, step): (usize, usize), open: &dyn Fn() -> Result<Model>) -> usize {
    let load = || {
        let model = open()?;
        let session = model.session()?;
        Ok::<_, skipstone::Error>((model, session))
    };
    let (loaded, count) = refusing(0..0, load);
    let (model, mut session) = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
    let want = answers(&model, &mut session);
    let mut tried = 0;
    for first in (from..count).step_by(step) {
        for (end, what) in [(first + 1, ""), (usize::MAX, "no memory")] {
            tried += 1;
            match refusing(first..end, load).0 {
                // What is not needed, such as a folded constant, may be left out.
                Ok((model, mut session)) => close(&answers(&model, &mut session), &want, name),
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains(what), "{name}, allocation {first}: {error}");
                }
            }
        }
    }
    tried
}

/// Lists of nodes, values and steps are smaller than tensors; there are many of them.
#[test]
fn no_list_of_a_model_ends_the_process() {
    LazyLock::force(&INFO);
    let file = lists::file();
    let _alone = ALONE.lock();
    for (smallest, step) in [(SMALL, STEP), (1, WIDE_STEP)] {
        SMALLEST.store(smallest, Relaxed);
        let mut tried = 0;
        for (at, (way, open)) in WAYS.iter().enumerate() {
            tried += survives_some(&format!("lists, {way}"), (at, step), &|| open(&file));
        }
        SMALLEST.store(LARGE, Relaxed);
        println!("{tried} failures");
        assert!(tried > 50, "only {tried} allocations of {smallest} bytes or more were refused");
    }
}

/// The allocator is one for all tests.
static ALONE: Mutex<()> = Mutex::new(());

/// The information in every package: a long text.
static INFO: LazyLock<Info> = LazyLock::new(|| {
    let mut info = Info::default();
    info.metadata.insert("labels".into(), "label ".repeat(5000));
    info
});

/// A way from the bytes of an ONNX file to a model.
type Way = fn(&[u8]) -> Result<Model>;

/// From the file itself, with every choice of weights, and by way of packages.
const WAYS: [(&str, Way); 5] = [
    ("as it is", |file| Model::from_bytes(file, &Options::default())),
    ("small", |file| Model::from_bytes(file, &Options::default().memory(Memory::Small))),
    ("half precision", |file| Model::from_bytes(file, &Options::default().precision(Precision::F16))),
    ("package", |file| packaged(file, None)),
    ("package for this CPU", |file| {
        let (memory, precision) = (Memory::Fast, Precision::F32);
        packaged(file, Some(Target { isa: Isa::detect(), threads: 1, memory, precision }))
    }),
];

fn packaged(file: &[u8], target: Option<Target>) -> Result<Model> {
    let mut graph = onnx::imported(file, &onnx::Limits::default(), &Shapes::default())?.graph;
    optimize(&mut graph)?;
    let package = package::write(&graph, &INFO, target, None)?;
    drop(graph);
    Model::from_bytes(&package, &Options::default())
}

/// The outputs of a run on inputs that depend only on the model.
fn answers(model: &Model, session: &mut skipstone::Session) -> Vec<Tensor> {
    let input = |port: &skipstone::plan::Port| {
        let elements = port.fact.shape.elements();
        let mut tensor = Tensor::zeros(port.fact.clone());
        if port.fact.dtype == DType::F32 {
            let values = tensor.elements_mut::<f32>().unwrap();
            (0..elements).for_each(|at| values[at] = (at % 17) as f32 / 17.0 - 0.5);
        }
        tensor
    };
    let inputs: Vec<Tensor> = model.inputs().iter().map(input).collect();
    let views: Vec<_> = inputs.iter().map(Tensor::view).collect();
    session.run(&views).unwrap();
    (0..model.outputs().len()).map(|index| session.output(index).unwrap().to_tensor()).collect()
}

/// Asserts that the answers differ by no more than a hundredth of the largest: a quantized network may be computed in
/// floats instead.
#[track_caller]
fn close(got: &[Tensor], want: &[Tensor], name: &str) {
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.fact(), want.fact(), "{name}");
        let (Some(got), Some(want)) = (floats_of(got), floats_of(want)) else {
            assert_eq!(got.bytes(), want.bytes(), "{name}");
            continue;
        };
        let tolerance = 0.01 * want.iter().fold(0f32, |largest, number| largest.max(number.abs()));
        let near = |(got, want): (&f32, &f32)| (got - want).abs() <= tolerance;
        let far = got.iter().zip(&want).find(|&pair| !near(pair));
        assert!(far.is_none(), "{name}: {far:?}, more than {tolerance} apart");
    }
}

fn floats_of(tensor: &Tensor) -> Option<Vec<f32>> {
    let halves = || tensor.elements::<half::f16>().map(|halves| halves.iter().map(|half| half.to_f32()).collect());
    tensor.elements::<f32>().map(<[f32]>::to_vec).or_else(halves)
}

/// Small numbers that differ.
fn numbers(count: i64) -> Vec<f32> {
    (0..count).map(|at| (at * 37 % 101) as f32 / 1000.0 - 0.05).collect()
}

/// A tensor of floats named `name`.
fn weights(name: &str, dims: &[i64]) -> Message {
    f32s(name, dims, &numbers(dims.iter().product()))
}

/// A tensor of bytes.
fn bytes(name: &str, element: i64, dims: &[i64]) -> Message {
    let raw: Vec<u8> = (0..dims.iter().product::<i64>()).map(|at| (at * 37 % 101) as u8).collect();
    tensor(name, element, dims, &raw)
}

/// A tensor of half-precision floats.
fn halves(name: &str, dims: &[i64]) -> Message {
    let raw: Vec<u8> =
        numbers(dims.iter().product()).iter().flat_map(|&number| half::f16::from_f32(number).to_le_bytes()).collect();
    tensor(name, FLOAT16, dims, &raw)
}

/// A model of nodes from an input `x` of floats with these dimensions to an output `y`.
fn file(dims: &[i64], nodes: &[Message], initializers: &[Message]) -> Vec<u8> {
    file_of(FLOAT, dims, nodes, initializers)
}

/// Like [`file`], for an input of any element type.
fn file_of(element: i64, dims: &[i64], nodes: &[Message], initializers: &[Message]) -> Vec<u8> {
    let graph = graph(nodes, initializers, &[value("x", element, dims)], &[named("y")]);
    model_with(&graph, &[opset("", 18), opset("ai.onnx.ml", 3), opset("com.microsoft", 1)])
}

fn constant(name: &str, held: &Message) -> Message {
    node("Constant", &[], &[name], &[Message::new().text(1, "value").nested(5, held).int(20, 4)])
}

/// The models, by name.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut files = Vec::new();
    // Longer names move the weights in the file: aligned and not.
    for name in ["w", "we", "wei", "weig"] {
        let conv = node("Conv", &["x", name], &["y"], &[ints("pads", &[1; 4])]);
        files.push(("3x3", file(&[1, 32, 12, 12], &[conv], &[weights(name, &[48, 32, 3, 3])])));
    }
    for name in ["w", "we"] {
        let conv = node("Conv", &["x", name], &["y"], &[]);
        files.push(("1x1", file(&[1, 64, 4, 4], &[conv], &[weights(name, &[96, 64, 1, 1])])));
        let gemm = node("Gemm", &["x", name, "b"], &["y"], &[int("transB", 1)]);
        let initializers = [weights(name, &[80, 96]), weights("b", &[80])];
        files.push(("Gemm", file(&[2, 96], &[gemm], &initializers)));
        let product = node("MatMul", &["x", name], &["y"], &[]);
        files.push(("MatMul", file(&[3, 96], &[product], &[weights(name, &[96, 80])])));
        let attributes = [ints("pads", &[1; 4]), int("group", 512)];
        let conv = node("Conv", &["x", name, "b"], &["y"], &attributes);
        let initializers = [weights(name, &[512, 1, 3, 3]), weights("b", &[512])];
        files.push(("depthwise", file(&[1, 512, 4, 4], &[conv], &initializers)));
        let conv = node("Conv", &["x", name], &["y"], &[ints("pads", &[1; 4])]);
        files.push(("halves", file_of(FLOAT16, &[1, 32, 6, 6], &[conv], &[halves(name, &[48, 32, 3, 3])])));
        let grouped = node("Conv", &["x", name], &["y"], &[int("group", 2), ints("strides", &[2; 2])]);
        files.push(("grouped", file(&[1, 64, 6, 6], &[grouped], &[weights(name, &[64, 32, 3, 3])])));
        let turned = node("ConvTranspose", &["x", name], &["y"], &[ints("strides", &[2; 2])]);
        files.push(("ConvTranspose", file(&[1, 32, 4, 4], &[turned], &[weights(name, &[32, 24, 3, 3])])));
        let wide = node("Conv", &["x", name], &["c"], &[]);
        let narrow = node("Conv", &["c", "n"], &["y"], &[]);
        let initializers = [weights(name, &[2100, 2, 1, 1]), weights("n", &[1, 2100, 1, 1])];
        files.push(("wide", file(&[1, 2, 2, 2], &[wide, narrow], &initializers)));
        let volume = node("Conv", &["x", name], &["y"], &[]);
        files.push(("3d", file(&[1, 16, 4, 4, 4], &[volume], &[weights(name, &[16, 16, 3, 3, 3])])));
        for (op, gates) in [("RNN", 1), ("GRU", 3), ("LSTM", 4)] {
            let cell = node(op, &["x", name, "r", "b"], &["y"], &[int("hidden_size", 72)]);
            let initializers = [
                weights(name, &[1, gates * 72, 64]),
                weights("r", &[1, gates * 72, 72]),
                weights("b", &[1, 2 * gates * 72]),
            ];
            files.push((op, file(&[3, 1, 64], &[cell], &initializers)));
        }
    }
    files.push(("residual", residual()));
    files.push(("quantized", quantized()));
    files.push(("dynamic", dynamic()));
    files.push(("folded", folded()));
    files.push(("sparse", sparse()));
    files.push(("blocks", blocks()));
    files.push(("normalized", normalized()));
    files.push(("trees", trees()));
    files.push(("metadata", metadata()));
    files
}

/// Convolutions with everything that is fused into them, some of whose channels are zero.
fn residual() -> Vec<u8> {
    let mut first = numbers(32 * 32 * 9);
    first[..8 * 32 * 9].fill(0.0);
    let each =
        [weights("scale", &[32]), weights("bias", &[32]), weights("mean", &[32]), f32s("var", &[32], &[1.0; 32])];
    let [scale, bias, mean, variance] = each;
    let initializers = [
        f32s("w", &[32, 32, 3, 3], &first),
        scale,
        bias,
        mean,
        variance,
        weights("v", &[128, 32, 1, 1]),
        weights("u", &[32, 128, 1, 1]),
    ];
    let nodes = [
        node("Conv", &["x", "w"], &["a"], &[ints("pads", &[1; 4])]),
        node("BatchNormalization", &["a", "scale", "bias", "mean", "var"], &["b"], &[]),
        node("Relu", &["b"], &["c"], &[]),
        node("Conv", &["c", "v"], &["d"], &[]),
        node("Clip", &["d"], &["e"], &[]),
        node("Conv", &["e", "u"], &["f"], &[]),
        node("Add", &["f", "x"], &["g"], &[]),
        node("AveragePool", &["g"], &["y"], &[ints("kernel_shape", &[3; 2]), ints("strides", &[2; 2])]),
    ];
    file(&[1, 32, 8, 8], &nodes, &initializers)
}

/// Products of bytes, quantized before and after.
fn quantized() -> Vec<u8> {
    let scale = |name: &str, value: f32| f32s(name, &[], &[value]);
    let initializers = [
        scale("s", 0.01),
        tensor("z", UINT8, &[], &[128]),
        bytes("w", INT8, &[64, 32, 3, 3]),
        f32s("ws", &[64], &[0.01; 64]),
        tensor("wz", INT8, &[64], &[0; 64]),
        bytes("v", INT8, &[1024, 64]),
        tensor("vz", INT8, &[], &[0]),
        tensor("b", INT32, &[64], &[1; 256]),
        scale("bs", 1e-4),
        tensor("bz", INT32, &[], &[0; 4]),
    ];
    let nodes = [
        node("QuantizeLinear", &["x", "s", "z"], &["xq"], &[]),
        node("DequantizeLinear", &["xq", "s", "z"], &["xd"], &[]),
        node("DequantizeLinear", &["w", "ws", "wz"], &["wd"], &[int("axis", 0)]),
        node("DequantizeLinear", &["b", "bs", "bz"], &["bd"], &[]),
        node("Conv", &["xd", "wd", "bd"], &["c"], &[ints("pads", &[1; 4])]),
        node("QuantizeLinear", &["c", "s", "z"], &["cq"], &[]),
        node("DequantizeLinear", &["cq", "s", "z"], &["cd"], &[]),
        node("Flatten", &["cd"], &["f"], &[]),
        node("DequantizeLinear", &["v", "s", "vz"], &["vd"], &[]),
        node("MatMul", &["f", "vd"], &["y"], &[]),
    ];
    file(&[1, 32, 4, 4], &nodes, &initializers)
}

/// Products of bytes quantized at run time.
fn dynamic() -> Vec<u8> {
    let initializers = [bytes("w", INT8, &[256, 128]), bytes("c", INT8, &[64, 32, 3, 3]), f32s("s", &[], &[0.01])];
    let nodes = [
        node("DynamicQuantizeLinear", &["x"], &["q", "qs", "qz"], &[]),
        node("ConvInteger", &["q", "c", "qz"], &["i"], &[ints("pads", &[1; 4])]),
        node("Cast", &["i"], &["f"], &[int("to", FLOAT)]),
        node("Mul", &["f", "s"], &["m"], &[]),
        node("Flatten", &["m"], &["g"], &[]),
        node("DynamicQuantizeLinear", &["g"], &["h", "hs", "hz"], &[]),
        node("MatMulInteger", &["h", "w", "hz"], &["p"], &[]),
        node("Cast", &["p"], &["y"], &[int("to", FLOAT)]),
    ];
    file(&[1, 32, 2, 2], &nodes, &initializers)
}

/// Operators over constants, computed while loading.
fn folded() -> Vec<u8> {
    let initializers = [
        i64s("start", &[], &[0]),
        i64s("limit", &[], &[5000]),
        i64s("step", &[], &[1]),
        i64s("twice", &[1], &[2]),
        i64s("shape", &[2], &[100, 100]),
        i64s("image", &[4], &[1, 1, 100, 100]),
        i64s("few", &[1, 2500], &(0..2500).map(|at| at % 100).collect::<Vec<_>>()),
        i64s("column", &[], &[1]),
        i64s("halved", &[4], &[1, 1, 64, 64]),
        i64s("flat", &[1], &[-1]),
        i64s("back", &[1], &[-1]),
        i64s("end", &[1], &[-10_000]),
        i64s("first", &[1], &[0]),
        i64s("pads", &[4], &[0, 1, 0, 1]),
        i64s("count", &[1], &[60]),
        i64s("where", &[100, 1], &(0..100).collect::<Vec<_>>()),
        weights("row", &[100]),
    ];
    let nodes = [
        node("Range", &["start", "limit", "step"], &["r"], &[]),
        node("Cast", &["r"], &["f"], &[int("to", FLOAT)]),
        node("Tile", &["f", "twice"], &["t"], &[]),
        node("Reshape", &["t", "shape"], &["m"], &[]),
        node("Transpose", &["m"], &["n"], &[ints("perm", &[1, 0])]),
        node("Add", &["n", "row"], &["a"], &[]),
        node("Abs", &["a"], &["q"], &[]),
        node("Relu", &["q"], &["l"], &[]),
        node("Sigmoid", &["l"], &["g"], &[]),
        node("Softmax", &["g"], &["o"], &[]),
        node("MatMul", &["o", "m"], &["p"], &[]),
        node("CumSum", &["p", "column"], &["c"], &[]),
        node("Greater", &["c", "o"], &["b"], &[]),
        node("Where", &["b", "c", "o"], &["h"], &[]),
        node("Gather", &["h", "few"], &["k"], &[int("axis", 0)]),
        node("ReduceSum", &["k"], &["ks"], &[]),
        node("Reshape", &["h", "image"], &["i"], &[]),
        node("Resize", &["i", "", "", "halved"], &["j"], &[text("mode", "linear")]),
        node("MaxPool", &["i"], &["mp"], &[ints("kernel_shape", &[3; 2])]),
        node("AveragePool", &["i"], &["ap"], &[ints("kernel_shape", &[3; 2])]),
        node("Slice", &["h", "flat", "end", "first", "back"], &["s"], &[]),
        node("Pad", &["s", "pads"], &["d"], &[]),
        node("TopK", &["d", "count"], &["tk", "ti"], &[]),
        node("ScatterND", &["h", "where", "h"], &["sn"], &[]),
        node("ArgMax", &["h"], &["am"], &[]),
        node("OneHot", &["few", "count", "ends"], &["oh"], &[]),
        node("LayerNormalization", &["h", "row"], &["ln"], &[]),
        node("Concat", &["h", "sn", "ln"], &["cc"], &[int("axis", 0)]),
        node("ReduceMean", &["cc"], &["rm"], &[]),
        node("ReduceMean", &["j"], &["jm"], &[]),
        node("ReduceMean", &["mp"], &["mm"], &[]),
        node("ReduceMean", &["ap"], &["an"], &[]),
        node("ReduceMean", &["tk"], &["tm"], &[]),
        node("Cast", &["ti"], &["tf"], &[int("to", FLOAT)]),
        node("ReduceMean", &["tf"], &["te"], &[]),
        node("Cast", &["am"], &["af"], &[int("to", FLOAT)]),
        node("ReduceMean", &["af"], &["ae"], &[]),
        node("ReduceMean", &["oh"], &["oe"], &[]),
        node("Sum", &["ks", "rm", "jm", "mm", "an", "tm", "te", "ae", "oe"], &["sum"], &[]),
        node("Mul", &["x", "cc"], &["z"], &[]),
        node("Add", &["z", "sum"], &["y"], &[]),
    ];
    let mut initializers = initializers.to_vec();
    initializers.push(f32s("ends", &[2], &[0.0, 1.0]));
    file(&[300, 100], &nodes, &initializers)
}

/// Tensors in every form that a file has: sparse, typed fields, four bits, inside nodes.
fn sparse() -> Vec<u8> {
    let count = 3000;
    let places: Vec<i64> = (0..count).map(|at| 3 * at).collect();
    let held = Message::new().nested(1, &weights("s", &[count])).nested(2, &i64s("", &[count], &places));
    let held = [100, 100].iter().fold(held, |held, &dim| held.int(3, dim));
    let typed = numbers(10_000)
        .iter()
        .fold(Message::new().int(1, 100).int(1, 100).int(2, FLOAT), |held, &number| held.float(4, number));
    let nodes = [
        constant("c", &weights("", &[100, 100])),
        constant("t", &typed),
        node("Constant", &[], &["l"], &[floats("value_floats", &numbers(10_000))]),
        node("Constant", &[], &["i"], &[ints("value_ints", &(0..10_000).collect::<Vec<_>>())]),
        node("Reshape", &["l", "shape"], &["m"], &[]),
        node("DequantizeLinear", &["n", "scale"], &["d"], &[]),
        node("Gather", &["l", "i"], &["g"], &[]),
        node("Reshape", &["g", "shape"], &["h"], &[]),
        node("Sum", &["x", "s", "c", "t", "m", "d", "h"], &["y"], &[]),
    ];
    let nibbles = tensor("n", INT4, &[100, 100], &vec![0x21; 5000]);
    let initializers = [i64s("shape", &[2], &[100, 100]), f32s("scale", &[], &[0.1]), nibbles];
    let graph = graph(&nodes, &initializers, &[value("x", FLOAT, &[100, 100])], &[named("y")]).nested(15, &held);
    model_with(&graph, &[opset("", 21)])
}

/// Branches and loops that read large constants.
fn blocks() -> Vec<u8> {
    let branch = |w: &str| {
        let nodes = [node("MatMul", &["x", w], &["r"], &[])];
        graph(&nodes, &[weights(w, &[96, 96])], &[], &[value("r", FLOAT, &[2, 96])])
    };
    let nodes = [node("MatMul", &["state", "u"], &["next"], &[]), node("Identity", &["go"], &["on"], &[])];
    let inputs = [value("at", INT64, &[]), value("go", BOOL, &[]), value("state", FLOAT, &[2, 96])];
    let outputs = [value("on", BOOL, &[]), value("next", FLOAT, &[2, 96])];
    let repeated = graph(&nodes, &[], &inputs, &outputs);
    let nodes = [
        node("ReduceSum", &["x"], &["sum"], &[int("keepdims", 0)]),
        node("Greater", &["sum", "zero"], &["positive"], &[]),
        node("If", &["positive"], &["taken"], &[body("then_branch", &branch("v")), body("else_branch", &branch("w"))]),
        node("Loop", &["three", "true", "taken"], &["y"], &[body("body", &repeated)]),
    ];
    let initializers =
        [f32s("zero", &[], &[0.0]), i64s("three", &[], &[3]), tensor("true", BOOL, &[], &[1]), weights("u", &[96, 96])];
    file(&[2, 96], &nodes, &initializers)
}

/// Normalizations with parameters of a few thousand channels.
fn normalized() -> Vec<u8> {
    let initializers = [weights("s", &[5000]), weights("b", &[5000]), weights("w", &[5000, 16])];
    let nodes = [
        node("LayerNormalization", &["x", "s", "b"], &["n"], &[]),
        node("Mul", &["n", "s"], &["m"], &[]),
        node("MatMul", &["m", "w"], &["y"], &[]),
    ];
    file(&[2, 5000], &nodes, &initializers)
}

/// Many small trees, in lists.
fn trees() -> Vec<u8> {
    let count = 700;
    let each = |of: [i64; 3]| (0..3 * count).map(|at| of[at as usize % 3]).collect::<Vec<_>>();
    let of_trees = |nodes: i64| (0..nodes * count).map(|at| at / nodes).collect::<Vec<_>>();
    let modes = Message::new().text(1, "nodes_modes").int(20, 8);
    let modes = (0..3 * count).fold(modes, |list, at| list.text(9, if at % 3 == 0 { "BRANCH_LEQ" } else { "LEAF" }));
    let attributes = [
        ints("nodes_treeids", &of_trees(3)),
        ints("nodes_nodeids", &each([0, 1, 2])),
        ints("nodes_featureids", &each([1, 0, 0])),
        ints("nodes_truenodeids", &each([1, 0, 0])),
        ints("nodes_falsenodeids", &each([2, 0, 0])),
        floats("nodes_values", &numbers(3 * count)),
        modes,
        ints("target_treeids", &of_trees(2)),
        ints("target_nodeids", &(0..2 * count).map(|at| 1 + at % 2).collect::<Vec<_>>()),
        ints("target_ids", &vec![0; 2 * count as usize]),
        floats("target_weights", &numbers(2 * count)),
        int("n_targets", 1),
    ];
    let node = node("TreeEnsembleRegressor", &["x"], &["y"], &attributes).text(7, "ai.onnx.ml");
    file(&[2, 3], &[node], &[])
}

/// A long text beside the graph.
fn metadata() -> Vec<u8> {
    let pair = Message::new().text(1, "labels").text(2, &"label ".repeat(5000));
    Message::of(&file(&[4], &[node("Relu", &["x"], &["y"], &[])], &[])).nested(14, &pair).into_bytes()
}

/// The path of a model with its weights in another file of the folder.
fn external(folder: &Path) -> PathBuf {
    let raw: Vec<u8> = numbers(96 * 80).iter().flat_map(|number| number.to_le_bytes()).collect();
    std::fs::write(folder.join("weights.bin"), &raw).unwrap();
    let entry = |key: &str, value: &str| Message::new().text(1, key).text(2, value);
    let entries = [entry("location", "weights.bin"), entry("length", &raw.len().to_string())];
    let weights = head("w", FLOAT, &[96, 80]).all(13, &entries).int(14, 1);
    let path = folder.join("model.onnx");
    std::fs::write(&path, file(&[3, 96], &[node("MatMul", &["x", "w"], &["y"], &[])], &[weights])).unwrap();
    path
}

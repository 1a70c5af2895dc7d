//! Pruning of small models, against their plain definitions.

use skipstone::{Model, Options, TensorView};
use skipstone_onnx::write::{f32s, graph, i64s, int, ints, model, node, value};

use super::*;
use crate::tensor::Tensor;

/// Distinct values, some of them negative.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Two convolutions with normalization, a depthwise one, a shortcut around them, and a classifier.
fn network() -> Vec<u8> {
    let convolution =
        |name: &str, dims: &[i64], seed| f32s(name, dims, &numbers(dims.iter().product::<i64>() as usize, seed));
    let vector = |name: &str, len: i64, seed| f32s(name, &[len], &numbers(len as usize, seed));
    let positive = |name: &str, len: i64| {
        f32s(name, &[len], &numbers(len as usize, 3).iter().map(|v| v.abs() + 0.5).collect::<Vec<_>>())
    };
    let padded = [ints("pads", &[1, 1, 1, 1])];
    let nodes = [
        node("Conv", &["x", "w1", "b1"], &["c1"], &padded),
        node("BatchNormalization", &["c1", "scale", "shift", "mean", "variance"], &["n1"], &[]),
        node("Relu", &["n1"], &["r1"], &[]),
        node("Conv", &["r1", "w2"], &["d1"], &[ints("pads", &[1, 1, 1, 1]), int("group", 12)]),
        node("Conv", &["d1", "w3", "b3"], &["c2"], &[]),
        node("Add", &["c2", "r1"], &["s"], &[]),
        node("GlobalAveragePool", &["s"], &["p"], &[]),
        node("Flatten", &["p"], &["f"], &[]),
        node("Gemm", &["f", "w4", "b4"], &["y"], &[int("transB", 1)]),
    ];
    let weights = [
        convolution("w1", &[12, 5, 3, 3], 7),
        vector("b1", 12, 8),
        positive("scale", 12),
        vector("shift", 12, 9),
        vector("mean", 12, 10),
        positive("variance", 12),
        convolution("w2", &[12, 1, 3, 3], 11),
        convolution("w3", &[12, 12, 1, 1], 12),
        vector("b3", 12, 13),
        convolution("w4", &[3, 12], 14),
        vector("b4", 3, 15),
    ];
    model(&graph(&nodes, &weights, &[value("x", 1, &[1, 5, 6, 6])], &[value("y", 1, &[1, 3])]))
}

struct Numbers(usize);

impl Samples for Numbers {
    fn len(&self) -> usize {
        self.0
    }

    fn sample(&mut self, index: usize) -> Result<Vec<f32>> {
        Ok(numbers(180, index as u32 + 40))
    }
}

fn answer(bytes: &[u8]) -> Vec<f32> {
    let model = Model::from_bytes(bytes, &Options::default()).unwrap();
    let mut session = model.session().unwrap();
    session.run(&[TensorView::new(&[1, 5, 6, 6], &numbers(180, 99)).unwrap()]).unwrap();
    session.output(0).unwrap().elements::<f32>().unwrap().to_vec()
}

fn tensor(bytes: &[u8], name: &str) -> Tensor {
    Editor::open(bytes).unwrap().graph.initializer(name).unwrap().clone()
}

fn recipe(method: Method) -> Recipe {
    Recipe { method, pattern: Pattern::Weights, scope: PruneScope::Layer, zeros: 0.5, layers: Choice::default() }
}

#[test]
fn the_smallest_weights_become_zeros() {
    let pruned = weights(&network(), &recipe(Method::Magnitude), None, &Options::default()).unwrap();
    let names: Vec<(usize, [usize; 2])> = pruned.layers.iter().map(|layer| (layer.weights[0], layer.zeros)).collect();
    // The depthwise convolution is not pruned.
    assert_eq!(names, [(540, [0, 270]), (144, [0, 72]), (36, [0, 18])]);
    let (before, after) = (tensor(&network(), "w1").floats().unwrap(), tensor(&pruned.bytes, "w1").floats().unwrap());
    let mut sorted: Vec<f32> = before.iter().map(|w| w.abs()).collect();
    sorted.sort_by(f32::total_cmp);
    for (before, after) in before.iter().zip(after) {
        assert_eq!(after, if before.abs() < sorted[270] { 0.0 } else { *before });
    }
}

#[test]
fn wanda_weighs_by_the_norm_of_the_input() {
    let options = Options::default();
    let recipe = Recipe { scope: PruneScope::Row, zeros: 0.4, ..recipe(Method::Wanda) };
    assert!(matches!(weights(&network(), &recipe, None, &options), Err(Error::Calibration(_))));
    let pruned = weights(&network(), &recipe, Some(&mut Numbers(3)), &options).unwrap();
    let mut norms = [0f64; 5];
    for index in 0..3 {
        for (i, value) in Numbers(3).sample(index).unwrap().iter().enumerate() {
            norms[i / 36] += f64::from(*value).powi(2);
        }
    }
    let (before, after) = (tensor(&network(), "w1").floats().unwrap(), tensor(&pruned.bytes, "w1").floats().unwrap());
    for (before, after) in before.chunks(45).zip(after.chunks(45)) {
        let scores: Vec<f64> =
            before.iter().enumerate().map(|(i, w)| f64::from(w.abs()) * norms[i / 9].sqrt()).collect();
        let mut order: Vec<usize> = (0..45).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        assert!(order[..18].iter().all(|&i| after[i] == 0.0) && order[18..].iter().all(|&i| after[i] == before[i]));
    }
}

#[test]
fn pruned_channels_are_removed_from_the_operators_between_layers() {
    let options = Options::default();
    for method in [ChannelMethod::Magnitude, ChannelMethod::Random(3), ChannelMethod::BetaRank] {
        let recipe = |form| ChannelRecipe { method, less: 0.5, form, skip: Vec::new() };
        let removed = channels(&network(), &recipe(Form::Removal), Some(&mut Numbers(4)), &options).unwrap();
        let zeros = channels(&network(), &recipe(Form::Zeros), Some(&mut Numbers(4)), &options).unwrap();
        let filters: Vec<[usize; 2]> = removed.layers.iter().map(|layer| layer.filters).collect();
        let [_, kept] = filters[0];
        assert!(kept < 12 && kept % 4 == 0, "{filters:?}");
        // The shortcut makes the channels of both convolutions one family.
        assert_eq!(filters, [[12, kept], [12, kept], [12, kept], [3, 3]], "{method:?}");
        assert_eq!(tensor(&removed.bytes, "mean").dims, [kept as i64]);
        assert_eq!(tensor(&removed.bytes, "w2").dims, [kept as i64, 1, 3, 3]);
        for (a, b) in answer(&removed.bytes).iter().zip(answer(&zeros.bytes)) {
            assert!((a - b).abs() < 1e-5, "{method:?}: {a} {b}");
        }
    }
}

#[test]
fn models_that_cannot_be_pruned_are_refused() {
    let relu = graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[value("x", 1, &[1, 4])], &[value("y", 1, &[1, 4])]);
    let options = Options::default();
    let nothing = weights(&model(&relu), &recipe(Method::Magnitude), None, &options);
    assert!(nothing.unwrap_err().to_string().contains("no layer to prune"));
    let of = |less| ChannelRecipe { method: ChannelMethod::Magnitude, less, form: Form::Removal, skip: Vec::new() };
    assert!(channels(&model(&relu), &of(0.5), None, &options).unwrap_err().to_string().contains("no channels"));
    assert!(channels(&network(), &of(1.0), None, &options).is_err());
    let beta = ChannelRecipe { method: ChannelMethod::BetaRank, ..of(0.5) };
    assert!(
        channels(&network(), &beta, Some(&mut Numbers(1)), &options).unwrap_err().to_string().contains("two samples")
    );
    let block = Recipe { pattern: Pattern::Block(4), scope: PruneScope::Row, ..recipe(Method::Dsnot) };
    assert!(weights(&network(), &block, Some(&mut Numbers(1)), &options).unwrap_err().to_string().contains("blocks"));
    let skip =
        Recipe { layers: Choice { skip: vec!["nobody".into()], ..Choice::default() }, ..recipe(Method::Magnitude) };
    assert!(weights(&network(), &skip, None, &options).unwrap_err().to_string().contains("nobody"));
}

/// Attention with four heads and a feed-forward block, on six tokens of eight features. Heads 1 and 2 and every odd neuron
/// add nothing to the next value.
fn transformer() -> Vec<u8> {
    let heads = [ints("perm", &[0, 2, 1, 3])];
    let nodes = [
        node("MatMul", &["x", "wq"], &["q"], &[]),
        node("MatMul", &["x", "wk"], &["k"], &[]),
        node("MatMul", &["x", "wv"], &["v"], &[]),
        node("Reshape", &["q", "split"], &["q1"], &[]),
        node("Reshape", &["k", "split"], &["k1"], &[]),
        node("Reshape", &["v", "split"], &["v1"], &[]),
        node("Transpose", &["q1"], &["q2"], &heads),
        node("Transpose", &["k1"], &["k2"], &[ints("perm", &[0, 2, 3, 1])]),
        node("Transpose", &["v1"], &["v2"], &heads),
        node("MatMul", &["q2", "k2"], &["s"], &[]),
        node("Softmax", &["s"], &["p"], &[int("axis", -1)]),
        node("MatMul", &["p", "v2"], &["a"], &[]),
        node("Transpose", &["a"], &["a1"], &heads),
        node("Reshape", &["a1", "join"], &["a2"], &[]),
        node("MatMul", &["a2", "wo"], &["o"], &[]),
        node("Add", &["o", "x"], &["r"], &[]),
        node("MatMul", &["r", "up"], &["u"], &[]),
        node("Relu", &["u"], &["h"], &[]),
        node("MatMul", &["h", "down"], &["d"], &[]),
        node("Add", &["d", "r"], &["t"], &[]),
        node("ReduceMean", &["t"], &["m"], &[ints("axes", &[1]), int("keepdims", 0)]),
        node("MatMul", &["m", "head"], &["y"], &[]),
    ];
    let (mut out, mut down) = (numbers(64, 24), numbers(16 * 8, 26));
    out[16..48].fill(0.0);
    down.chunks_exact_mut(8).skip(1).step_by(2).for_each(|row| row.fill(0.0));
    let weights = [
        f32s("wq", &[8, 8], &numbers(64, 21)),
        f32s("wk", &[8, 8], &numbers(64, 22)),
        f32s("wv", &[8, 8], &numbers(64, 23)),
        i64s("split", &[4], &[0, 0, 4, 2]),
        i64s("join", &[3], &[0, 0, 8]),
        f32s("wo", &[8, 8], &out),
        f32s("up", &[8, 16], &numbers(128, 25)),
        f32s("down", &[16, 8], &down),
        f32s("head", &[8, 5], &numbers(40, 27)),
    ];
    model(&graph(&nodes, &weights, &[value("x", 1, &[1, 6, 8])], &[value("y", 1, &[1, 5])]))
}

struct Tokens;

impl Samples for Tokens {
    fn len(&self) -> usize {
        3
    }

    fn sample(&mut self, index: usize) -> Result<Vec<f32>> {
        Ok(numbers(48, index as u32 + 60))
    }
}

#[test]
fn heads_and_neurons_that_change_nothing_go_first() {
    let recipe = |less| ChannelRecipe { method: ChannelMethod::Optin, less, form: Form::Removal, skip: Vec::new() };
    let bytes = transformer();
    let pruned = channels(&bytes, &recipe(0.45), Some(&mut Tokens), &Options::default()).unwrap();
    let filters: Vec<[usize; 2]> = pruned.layers.iter().map(|layer| layer.filters).collect();
    assert_eq!(filters, [[8, 4], [8, 4], [8, 4], [8, 8], [16, 8], [8, 8], [5, 5]]);
    let answer = |bytes: &[u8]| {
        let model = Model::from_bytes(bytes, &Options::default()).unwrap();
        let mut session = model.session().unwrap();
        session.run(&[TensorView::new(&[1, 6, 8], &numbers(48, 7)).unwrap()]).unwrap();
        session.output(0).unwrap().elements::<f32>().unwrap().to_vec()
    };
    let apart = answer(&bytes).iter().zip(answer(&pruned.bytes)).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(apart < 1e-5, "{apart}");
    let error = channels(&bytes, &recipe(0.99), Some(&mut Tokens), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("ask for less"), "{error}");
    let error = channels(&network(), &recipe(0.3), Some(&mut Numbers(2)), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("no attention heads"), "{error}");
    let error = channels(&bytes, &recipe(0.3), None, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("needs samples"), "{error}");
}

//! Small models with experts, against their plain definitions.

mod fewer;

use skipstone::operator::Operator;
use skipstone::{Model, Options, TensorView};
use skipstone_onnx::write::{f32s, graph, int, model, node, value};

use super::*;
use crate::random::Random;

const TOKENS_OF_SAMPLE: usize = 20;

/// Samples of tokens, in each of which one of four groups of features is large.
struct Kinds {
    width: usize,
    samples: usize,
}

impl Samples for Kinds {
    fn len(&self) -> usize {
        self.samples
    }

    fn sample(&mut self, index: usize) -> Result<Vec<f32>> {
        let mut random = Random::new(index as u64, "kinds");
        let mut tokens = Vec::new();
        for _ in 0..TOKENS_OF_SAMPLE {
            let kind = random.below(4);
            let mut feature = |at: usize| {
                let noise = random.below(2000) as f32 / 10000.0 - 0.1;
                if at % 4 == kind { 1.0 + noise } else { noise }
            };
            tokens.extend((0..self.width).map(&mut feature));
        }
        Ok(tokens)
    }
}

fn numbers(count: usize, name: &str) -> Vec<f32> {
    let mut random = Random::new(3, name);
    (0..count).map(|_| random.below(2000) as f32 / 1000.0 - 1.0).collect()
}

/// A block of 8 features, 16 neurons and `outputs` outputs: neuron j is active where features of kind j % 4 are large.
fn network(dims: &[i64], outputs: usize) -> Vec<u8> {
    let mut up = vec![0.0; 8 * 16];
    for (at, weight) in up.iter_mut().enumerate() {
        let (feature, neuron) = (at / 16, at % 16);
        *weight = if feature % 4 == neuron % 4 { 1.0 + neuron as f32 / 16.0 } else { -0.1 };
    }
    let nodes = [
        node("MatMul", &["x", "up"], &["product"], &[]),
        node("Add", &["product", "bias"], &["sum"], &[]),
        node("Relu", &["sum"], &["hidden"], &[]),
        node("MatMul", &["hidden", "down"], &["out"], &[]),
        node("Add", &["out", "out_bias"], &["y"], &[]),
    ];
    let weights = [
        f32s("up", &[8, 16], &up),
        f32s("bias", &[16], &[-0.3; 16]),
        f32s("down", &[16, outputs as i64], &numbers(16 * outputs, "down")),
        f32s("out_bias", &[outputs as i64], &numbers(outputs, "out bias")),
    ];
    let mut after = dims.to_vec();
    *after.last_mut().unwrap() = outputs as i64;
    model(&graph(&nodes, &weights, &[value("x", 1, dims)], &[value("y", 1, &after)]))
}

fn into(experts: usize, top: usize) -> Split {
    Split { experts, top, shared: 0.0, one_router: false, skip: Vec::new() }
}

fn answer(bytes: &[u8], dims: &[usize]) -> Vec<f32> {
    let model = Model::from_bytes(bytes, &Options::default()).unwrap();
    let mut session = model.session().unwrap();
    let input = Kinds { width: 8, samples: 1 }.sample(77).unwrap();
    session.run(&[TensorView::new(dims, &input).unwrap()]).unwrap();
    session.output(0).unwrap().elements::<f32>().unwrap().to_vec()
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b).abs()))
}

/// Number of products with the matrices of chosen experts.
fn routed(bytes: &[u8]) -> usize {
    let model = Model::from_bytes(bytes, &Options::default()).unwrap();
    model.plan().unwrap().steps.iter().filter(|step| step.op.name() == "Routed").count()
}

#[test]
fn all_experts_together_are_the_block() {
    for (dims, outputs) in [(vec![20, 8], 8), (vec![1, 20, 8], 8), (vec![2, 10, 8], 5), (vec![1, 4, 5, 8], 3)] {
        let given = network(&dims, outputs);
        let shape: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
        for (experts, shared) in [(2, 0.0), (3, 0.0), (4, 0.3), (16, 0.0)] {
            let wanted = Split { shared, ..into(experts, experts) };
            let divided = split(&given, &wanted, &mut Kinds { width: 8, samples: 8 }, &Options::default()).unwrap();
            let difference = apart(&answer(&divided.bytes, &shape), &answer(&given, &shape));
            assert!(difference < 1e-5, "{dims:?} in {experts}: {difference}");
            let Outcome { neurons, shared, each, ref usage, lost, .. } = divided.blocks[0];
            assert_eq!((neurons, shared + each * experts, lost), (16, 16, 0.0));
            assert!(usage.iter().all(|&share| share == 1.0));
        }
    }
}

#[test]
fn neurons_of_one_kind_become_an_expert_and_tokens_of_that_kind_choose_it() {
    let given = network(&[1, 20, 8], 8);
    let divided = split(&given, &into(4, 1), &mut Kinds { width: 8, samples: 20 }, &Options::default()).unwrap();
    let editor = Editor::open(&divided.bytes).unwrap();
    let up = editor.graph.initializers.iter().find(|tensor| tensor.dims == [4, 8, 4]).unwrap().numbers().unwrap();
    for expert in up.chunks_exact(32) {
        // The rows of features: one kind's weights are positive.
        let positive: Vec<bool> = expert.iter().map(|&weight| weight > 0.0).collect();
        let kind = positive.chunks_exact(4).position(|row| row[0]).unwrap();
        assert!((0..32).all(|at| positive[at] == (at / 4 % 4 == kind)), "{expert:?}");
    }
    let outcome = &divided.blocks[0];
    assert!(outcome.lost < 1e-3 && outcome.usage.iter().all(|&share| (0.15..0.35).contains(&share)), "{outcome:?}");
    assert!(apart(&answer(&divided.bytes, &[1, 20, 8]), &answer(&given, &[1, 20, 8])) < 0.05);
    assert_eq!(routed(&divided.bytes), 2);
}

#[test]
fn pixels_of_images_are_tokens_too() {
    let mut weights = numbers(16 * 8, "up");
    weights.iter_mut().for_each(|weight| *weight += 0.2);
    let nodes = [
        node("Conv", &["x", "up", "bias"], &["a"], &[]),
        node("LeakyRelu", &["a"], &["h"], &[]),
        node("Conv", &["h", "down", "out_bias"], &["y"], &[]),
    ];
    let weights = [
        f32s("up", &[16, 8, 1, 1], &weights),
        f32s("bias", &[16], &numbers(16, "bias")),
        f32s("down", &[6, 16, 1, 1], &numbers(96, "down")),
        f32s("out_bias", &[6], &numbers(6, "out bias")),
    ];
    let ports = [value("x", 1, &[1, 8, 4, 5])];
    let given = model(&graph(&nodes, &weights, &ports, &[value("y", 1, &[1, 6, 4, 5])]));
    let divided = split(&given, &into(4, 4), &mut Kinds { width: 8, samples: 9 }, &Options::default()).unwrap();
    assert!(apart(&answer(&divided.bytes, &[1, 8, 4, 5]), &answer(&given, &[1, 8, 4, 5])) < 1e-5);
}

/// Two gated blocks with residual sums.
fn gated() -> Vec<u8> {
    let mut nodes = Vec::new();
    let mut weights = Vec::new();
    let mut before = "x".to_owned();
    for layer in ["0", "1"] {
        let name = |part: &str| format!("{part}{layer}");
        let add = |op: &str, inputs: &[&str], output: &str| node(op, inputs, &[&name(output)], &[]);
        nodes.extend([
            add("MatMul", &[&before, &name("gate")], "g"),
            add("MatMul", &[&before, &name("linear")], "l"),
            add("Sigmoid", &[&name("g")], "s"),
            add("Mul", &[&name("g"), &name("s")], "a"),
            add("Mul", &[&name("a"), &name("scale")], "c"),
            add("Mul", &[&name("c"), &name("l")], "h"),
            add("MatMul", &[&name("h"), &name("down")], "o"),
            add("Add", &[&name("o"), &before], "y"),
        ]);
        for (part, dims) in [("gate", [8, 12]), ("linear", [8, 12]), ("down", [12, 8])] {
            weights.push(f32s(&name(part), &dims, &numbers(96, &name(part))));
        }
        weights.push(f32s(&name("scale"), &[12], &numbers(12, &name("scale"))));
        before = name("y");
    }
    model(&graph(&nodes, &weights, &[value("x", 1, &[1, 20, 8])], &[value("y1", 1, &[1, 20, 8])]))
}

#[test]
fn gated_blocks_share_a_router() {
    let given = gated();
    for one_router in [false, true] {
        let wanted = Split { one_router, ..into(3, 3) };
        let divided = split(&given, &wanted, &mut Kinds { width: 8, samples: 9 }, &Options::default()).unwrap();
        assert!(apart(&answer(&divided.bytes, &[1, 20, 8]), &answer(&given, &[1, 20, 8])) < 1e-4);
        let editor = Editor::open(&divided.bytes).unwrap();
        let routers = editor.graph.nodes.iter().filter(|node| node.is("TopK")).count();
        assert_eq!((divided.blocks.len(), routers), (2, if one_router { 1 } else { 2 }));
    }
    let fewer = Split { one_router: true, ..into(3, 1) };
    let divided = split(&given, &fewer, &mut Kinds { width: 8, samples: 9 }, &Options::default()).unwrap();
    let share: f64 = divided.blocks[1].usage.iter().sum();
    assert!((share - 1.0).abs() < 1e-9);
}

#[test]
fn what_cannot_be_split_is_refused_with_a_reason() {
    let error = |bytes: &[u8], wanted: &Split, samples: usize| {
        split(bytes, wanted, &mut Kinds { width: 8, samples }, &Options::default()).unwrap_err().to_string()
    };
    let given = network(&[1, 20, 8], 8);
    assert!(error(&given, &into(17, 2), 8).contains("too few for 17 experts"));
    assert!(error(&given, &into(4, 5), 8).contains("at most all"));
    assert!(error(&given, &into(1, 1), 8).contains("at least two"));
    let skipped = Split { skip: vec!["nobody".into()], ..into(4, 1) };
    assert!(error(&given, &skipped, 8).contains("nobody"));
    let skipped = Split { skip: vec!["MatMul of 'out'".into()], ..into(4, 1) };
    assert!(error(&given, &skipped, 8).contains("no feed-forward block"));
    assert!(error(&given, &into(4, 1), 0).contains("no samples"));
    let wide = |width: i64| {
        let nodes = [
            node("Gemm", &["x", "up"], &["a"], &[int("transB", 1)]),
            node("Relu", &["a"], &["h"], &[]),
            node("Gemm", &["h", "down"], &["y"], &[]),
        ];
        let up = f32s("up", &[16, width], &numbers(16 * width as usize, "up"));
        let weights = [up, f32s("down", &[16, 4], &numbers(64, "down"))];
        model(&graph(&nodes, &weights, &[value("x", 1, &[1, width])], &[value("y", 1, &[1, 4])]))
    };
    assert!(error(&wide(160), &into(4, 1), 8).contains("8 tokens do not determine a router of 160 inputs"));
    assert!(error(&wide(5000), &into(4, 1), 8).contains("too large"));
    let linear = model(&graph(
        &[node("MatMul", &["x", "up"], &["a"], &[]), node("MatMul", &["a", "down"], &["y"], &[])],
        &[f32s("up", &[8, 16], &numbers(128, "up")), f32s("down", &[16, 4], &numbers(64, "down"))],
        &[value("x", 1, &[1, 20, 8])],
        &[value("y", 1, &[1, 20, 4])],
    ));
    assert!(error(&linear, &into(4, 1), 8).contains("no feed-forward block"));
}

#[test]
fn a_constant_for_each_token_is_none_for_each_neuron() {
    let nodes = [
        node("MatMul", &["x", "up"], &["a"], &[]),
        node("Add", &["a", "of_tokens"], &["s"], &[]),
        node("Relu", &["s"], &["h"], &[]),
        node("MatMul", &["h", "down"], &["y"], &[]),
    ];
    let weights = [
        f32s("up", &[8, 20], &numbers(160, "up")),
        f32s("of_tokens", &[20, 1], &numbers(20, "tokens")),
        f32s("down", &[20, 8], &numbers(160, "down")),
    ];
    let ports = [value("x", 1, &[1, 20, 8])];
    let given = model(&graph(&nodes, &weights, &ports, &[value("y", 1, &[1, 20, 8])]));
    let error = split(&given, &into(4, 4), &mut Kinds { width: 8, samples: 9 }, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("no feed-forward block"), "{error}");
}

//! The forms of a mixture on small graphs, against the graph before all passes.

use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;

use super::super::super::{Block, Graph, ValueId};
use crate::ops::Op;
use crate::ops::accumulate::Accumulate;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::broadcast::Tile;
use crate::ops::cast::Cast;
use crate::ops::check::{Random, assert_close, planned};
use crate::ops::compare::{Compare, CompareKind};
use crate::ops::control::Control;
use crate::ops::gather::Gather;
use crate::ops::matmul::MatMul;
use crate::ops::one_hot::OneHot;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::reshape::Reshape;
use crate::ops::scatter_elements::ScatterElements;
use crate::ops::select::Select;
use crate::ops::slice::Slice;
use crate::ops::topk::TopK;
use crate::ops::transpose::Transpose;
use crate::tensor::{DType, Fact, Shape, Tensor};

const EXPERTS: usize = 4;
const WIDTH: usize = 5;
const HIDDEN: usize = 7;

/// A graph with tokens, logits, and the best `k` experts of each token.
struct Build {
    graph: Graph,
    random: Random,
    tokens: usize,
    x: ValueId,
    shares: ValueId,
    numbers: ValueId,
}

impl Build {
    fn new(tokens: usize, k: usize) -> Self {
        let mut graph = Graph::new();
        let input = |dims: &[usize]| Fact::new(DType::F32, Shape::new(dims).unwrap());
        let x = graph.add_input("x", input(&[tokens, WIDTH])).unwrap();
        let logits = graph.add_input("logits", input(&[tokens, EXPERTS])).unwrap();
        let best = graph.add_node("best", TopK { axis: 1, k, largest: true }, &[logits]).unwrap();
        Self { graph, random: Random(7), tokens, x, shares: best[0], numbers: best[1] }
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        let name = format!("n{}", self.graph.values().len());
        self.graph.add_node(name, op, inputs).unwrap()[0]
    }

    fn binary(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> ValueId {
        self.add(Binary::new(kind), &[a, b])
    }

    fn reshape(&mut self, x: ValueId, dims: &[usize]) -> ValueId {
        self.add(Reshape { shape: Shape::new(dims).unwrap() }, &[x])
    }

    fn floats(&mut self, dims: &[usize]) -> ValueId {
        let floats = self.random.floats(dims);
        self.graph.add_constant("c", floats).unwrap()
    }

    fn number(&mut self, number: i64) -> ValueId {
        self.graph.add_constant("i", Tensor::scalar(number)).unwrap()
    }

    fn zero(&mut self) -> ValueId {
        self.graph.add_constant("zero", Tensor::scalar(0f32)).unwrap()
    }

    /// Linear, activation, linear, of rows `[rows, WIDTH]`.
    fn expert(&mut self, x: ValueId) -> ValueId {
        let rows = self.graph.fact(x).shape.elements() / WIDTH;
        let (up, bias, down) =
            (self.floats(&[1, HIDDEN, WIDTH]), self.floats(&[HIDDEN]), self.floats(&[1, HIDDEN, WIDTH]));
        let x = self.reshape(x, &[1, rows, WIDTH]);
        let y = self.add(MatMul { transposed: true, activation: Activation::None }, &[x, up]);
        let y = self.binary(BinaryKind::Add, y, bias);
        let y = self.add(Activate { activation: Activation::Silu }, &[y]);
        let y = self.add(MatMul { transposed: false, activation: Activation::None }, &[y, down]);
        self.reshape(y, &[rows, WIDTH])
    }

    fn is(&mut self, numbers: ValueId, expert: usize) -> ValueId {
        let expert = self.number(expert as i64);
        self.add(Compare { kind: CompareKind::Equal }, &[numbers, expert])
    }

    /// Checks that the result stays the same, for any and for equal logits, and returns the operators that are left.
    fn optimized(mut self, y: ValueId) -> Vec<String> {
        self.graph.outputs.push(("y".into(), y));
        let before = self.graph.copy().unwrap();
        super::super::optimize(&mut self.graph).unwrap();
        for case in 0..3 {
            let x = self.random.floats(&[self.tokens, WIDTH]);
            let mut logits = self.random.floats(&[self.tokens, EXPERTS]);
            if case == 1 {
                let one: Vec<f32> = (0..self.tokens * EXPERTS).map(|i| (i % EXPERTS) as f32).collect();
                logits = Tensor::from_slice(&[self.tokens, EXPERTS], &one).unwrap();
            }
            let inputs = [x, logits];
            let want = before.evaluate(&inputs).unwrap();
            let got = planned(&self.graph, Isa::detect(), &inputs).unwrap();
            assert_close(&got[0], &want[0], 1e-4, &format!("case {case}"));
        }
        let mut left: Vec<String> = self.graph.walk().map(|node| node.op.entry().to_owned()).collect();
        left.retain(|op| op != "Reshape");
        left
    }
}

fn assert_routed(left: &[String]) {
    let count = |name: &str| left.iter().filter(|op| *op == name).count();
    assert_eq!((count("Routed"), count("MatMul"), count("Control")), (2, 0, 0), "{left:?}");
}

#[test]
fn all_experts_times_their_shares() {
    for (tokens, k) in [(1, 1), (6, 1), (6, 2), (3, EXPERTS)] {
        let mut build = Build::new(tokens, k);
        let mut sum = build.expert(build.x);
        for expert in 0..EXPERTS {
            let mask = build.is(build.numbers, expert);
            let mask = build.add(Cast { to: DType::F32 }, &[mask]);
            let shares = build.binary(BinaryKind::Mul, mask, build.shares);
            let gate = build.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: true }, &[shares]);
            let y = build.expert(build.x);
            let y = build.binary(BinaryKind::Mul, y, gate);
            sum = build.binary(BinaryKind::Add, sum, y);
        }
        // The first is a shared expert.
        let left = build.optimized(sum);
        assert_eq!(left.iter().filter(|op| *op == "Routed").count(), 2, "{left:?}");
        assert_eq!(left.iter().filter(|op| *op == "MatMul").count(), 2, "{left:?}");
    }
}

#[test]
fn columns_of_scattered_shares() {
    let mut build = Build::new(5, 2);
    let zeros = build.graph.add_constant("zeros", Tensor::from_slice(&[5, EXPERTS], &[0f32; 20]).unwrap()).unwrap();
    let matrix = build.add(ScatterElements { axis: 1 }, &[zeros, build.numbers, build.shares]);
    let mut sum = None;
    for expert in 0..EXPERTS {
        let gate = build.add(Slice { axis: 1, start: expert, len: 1, step: 1 }, &[matrix]);
        let y = build.expert(build.x);
        let y = build.binary(BinaryKind::Mul, gate, y);
        sum = Some(sum.map_or(y, |sum| build.binary(BinaryKind::Add, sum, y)));
    }
    assert_routed(&build.optimized(sum.unwrap()));
}

#[test]
fn rows_scattered_where_a_one_hot_mask_is_set() {
    for k in [1, 3] {
        let mut build = Build::new(4, k);
        let rows = 4 * k;
        let hot = OneHot { axis: 2, depth: EXPERTS, off: Tensor::scalar(0i64), on: Tensor::scalar(1i64) };
        let hot = build.add(hot, &[build.numbers]);
        let hot = build.add(Transpose::new(&[2, 1, 0]).unwrap(), &[hot]);
        let tokens: Vec<i64> = (0..rows as i64).map(|row| row % 4).collect();
        let tokens = build.graph.add_constant("tokens", Tensor::from_slice(&[rows], &tokens).unwrap()).unwrap();
        let indices = build.reshape(tokens, &[rows, 1]);
        let shares = build.add(Transpose::new(&[1, 0]).unwrap(), &[build.shares]);
        let shares = build.reshape(shares, &[rows, 1]);
        let mut sum =
            build.graph.add_constant("zeros", Tensor::from_slice(&[4, WIDTH], &[0f32; 4 * WIDTH]).unwrap()).unwrap();
        for expert in 0..EXPERTS {
            let mask = build.add(Slice { axis: 0, start: expert, len: 1, step: 1 }, &[hot]);
            let mask = build.add(Cast { to: DType::Bool }, &[mask]);
            let mask = build.reshape(mask, &[rows, 1]);
            let x = build.add(Gather { axis: 0 }, &[build.x, tokens]);
            let y = build.expert(x);
            let y = build.binary(BinaryKind::Mul, y, shares);
            let zero = build.zero();
            let y = build.add(Select, &[mask, y, zero]);
            sum = build.add(Accumulate { axis: None, kind: BinaryKind::Add }, &[sum, indices, y]);
        }
        assert_routed(&build.optimized(sum));
    }
}

#[test]
fn tiled_tokens() {
    let mut build = Build::new(6, 2);
    let zeros = build.graph.add_constant("zeros", Tensor::from_slice(&[6, EXPERTS], &[0f32; 24]).unwrap()).unwrap();
    let matrix = build.add(ScatterElements { axis: 1 }, &[zeros, build.numbers, build.shares]);
    let gates = build.add(Transpose::new(&[1, 0]).unwrap(), &[matrix]);
    let gates = build.reshape(gates, &[EXPERTS, 6, 1]);
    let x = build.add(Tile { repeats: vec![EXPERTS, 1] }, &[build.x]);
    let x = build.reshape(x, &[EXPERTS, 6, WIDTH]);
    let (up, bias) = (build.floats(&[EXPERTS, WIDTH, 2 * HIDDEN]), build.floats(&[EXPERTS, 1, 2 * HIDDEN]));
    let down = build.floats(&[EXPERTS, HIDDEN, WIDTH]);
    let y = build.add(MatMul { transposed: false, activation: Activation::None }, &[x, up]);
    let y = build.binary(BinaryKind::Add, y, bias);
    let gate = build.add(Slice { axis: 2, start: 0, len: HIDDEN, step: 2 }, &[y]);
    let linear = build.add(Slice { axis: 2, start: 1, len: HIDDEN, step: 2 }, &[y]);
    let gate = build.add(Activate { activation: Activation::Sigmoid }, &[gate]);
    let y = build.binary(BinaryKind::Mul, gate, linear);
    let y = build.add(MatMul { transposed: false, activation: Activation::None }, &[y, down]);
    let y = build.binary(BinaryKind::Mul, y, gates);
    let y = build.add(Reduce { axes: vec![0], kind: ReduceKind::Sum, keep_dims: false }, &[y]);
    assert_routed(&build.optimized(y));
}

/// An If with the results of two blocks.
fn branch(
    build: &mut Build,
    condition: ValueId,
    then: impl FnOnce(&mut Build) -> ValueId,
    otherwise: impl FnOnce(&mut Build) -> ValueId,
) -> ValueId {
    build.graph.begin_block().unwrap();
    let y = then(build);
    let then: Block = build.graph.end_block(&[y]).unwrap();
    build.graph.begin_block().unwrap();
    let y = otherwise(build);
    let otherwise = build.graph.end_block(&[y]).unwrap();
    build.graph.add_control("if", Control::If, &[condition], vec![then, otherwise]).unwrap()[0]
}

#[test]
fn branches_that_are_taken_if_a_token_needs_them() {
    let mut build = Build::new(3, 1);
    let mut sum =
        build.graph.add_constant("zeros", Tensor::from_slice(&[3, WIDTH], &[0f32; 3 * WIDTH]).unwrap()).unwrap();
    for expert in 0..EXPERTS {
        let mask = build.is(build.numbers, expert);
        let mask = build.add(Cast { to: DType::F32 }, &[mask]);
        let any = build.add(Reduce { axes: vec![0, 1], kind: ReduceKind::Max, keep_dims: false }, &[mask]);
        let any = build.add(Cast { to: DType::Bool }, &[any]);
        let before = sum;
        sum = branch(
            &mut build,
            any,
            |build| {
                let y = build.expert(build.x);
                let gate = build.binary(BinaryKind::Mul, mask, build.shares);
                let y = build.binary(BinaryKind::Mul, y, gate);
                build.binary(BinaryKind::Add, before, y)
            },
            |_| before,
        );
    }
    assert_routed(&build.optimized(sum));
}

#[test]
fn one_number_for_all_rows_chooses_a_branch() {
    let mut build = Build::new(3, 1);
    let number = build.add(Slice { axis: 0, start: 0, len: 1, step: 1 }, &[build.numbers]);
    let number = build.reshape(number, &[]);
    let mut chosen =
        build.graph.add_constant("zeros", Tensor::from_slice(&[3, WIDTH], &[0f32; 3 * WIDTH]).unwrap()).unwrap();
    for expert in 0..EXPERTS {
        let is = build.is(number, expert);
        let before = chosen;
        chosen = branch(&mut build, is, |build| build.expert(build.x), |_| before);
    }
    assert_routed(&build.optimized(chosen));
}

#[test]
fn a_choice_for_every_row() {
    let mut build = Build::new(5, 1);
    let mut chosen = build.zero();
    chosen = build.add(crate::ops::broadcast::Expand { shape: Shape::new(&[5, WIDTH]).unwrap() }, &[chosen]);
    for expert in 0..EXPERTS {
        let is = build.is(build.numbers, expert);
        let y = build.expert(build.x);
        chosen = build.add(Select, &[is, y, chosen]);
    }
    assert_routed(&build.optimized(chosen));
}

#[test]
fn near_misses_stay() {
    // One expert is missing, is computed from other rows, or counted twice.
    for miss in 0..3 {
        let mut build = Build::new(6, 2);
        let other = build.floats(&[6, WIDTH]);
        let other = build.binary(BinaryKind::Add, build.x, other);
        let mut sum = None;
        for expert in 0..EXPERTS {
            let number = match miss {
                0 => expert + usize::from(expert > 1),
                1 => expert,
                _ => expert.min(2),
            };
            let mask = build.is(build.numbers, number);
            let mask = build.add(Cast { to: DType::F32 }, &[mask]);
            let shares = build.binary(BinaryKind::Mul, mask, build.shares);
            let gate = build.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: true }, &[shares]);
            let y = build.expert(if miss == 1 && expert == 2 { other } else { build.x });
            let y = build.binary(BinaryKind::Mul, y, gate);
            sum = Some(sum.map_or(y, |sum| build.binary(BinaryKind::Add, sum, y)));
        }
        let left = build.optimized(sum.unwrap());
        let routed = left.iter().filter(|op| *op == "Routed").count();
        assert_eq!(routed, 0, "{left:?}");
    }
}

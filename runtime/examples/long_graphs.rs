//! How the time to load a graph grows with its size: every doubling should take about twice as long.
//!
//! ```text
//! cargo run --release -p skipstone --no-default-features --features passes --example long_graphs
//! ```

use std::time::Instant;

use skipstone::graph::{Graph, ValueId};
use skipstone::operator::Operator;
use skipstone::ops::Op;
use skipstone::ops::activate::Activate;
use skipstone::ops::binary::{Binary, BinaryKind};
use skipstone::ops::conv::Conv;
use skipstone::ops::reduce::{Reduce, ReduceKind};
use skipstone::ops::unary::{Unary, UnaryKind};
use skipstone::{DType, Fact, Model, Options, Shape, Tensor};
use skipstone_kernels::activation::Activation;

/// A graph with this many nodes.
type Network = fn(usize) -> skipstone::Result<Graph>;

const NETWORKS: [(&str, Network); 6] = [
    ("1x1 convolutions", convolutions),
    ("residual blocks", residuals),
    ("small nodes", small),
    ("products with a number", |nodes| numbers(nodes, BinaryKind::Mul)),
    ("sums with a number", |nodes| numbers(nodes, BinaryKind::Add)),
    ("results that live to the end", long_lives),
];

fn main() -> skipstone::Result<()> {
    println!("{:<30} {:>8} {:>10} {:>8}", "", "nodes", "load ms", "ratio");
    for (name, network) in NETWORKS {
        let mut before = None;
        for nodes in [2_000, 4_000, 8_000, 16_000, 32_000, 64_000] {
            let graph = network(nodes)?;
            let began = Instant::now();
            let model = Model::from_graph(graph, &Options::default())?;
            let took = began.elapsed().as_secs_f64() * 1e3;
            drop(model);
            let ratio = before.replace(took).map_or(String::new(), |before| format!("{:.2}", took / before));
            println!("{name:<30} {nodes:>8} {took:>10.1} {ratio:>8}");
        }
    }
    Ok(())
}

/// A graph with one input.
struct Build(Graph);

impl Build {
    fn new(dims: &[usize]) -> skipstone::Result<(Self, ValueId)> {
        let mut graph = Graph::new();
        let shape = Shape::new(dims).map_err(|e| skipstone::Error::Internal(e.to_string()))?;
        let x = graph.add_input("x", Fact::new(DType::F32, shape))?;
        Ok((Self(graph), x))
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> skipstone::Result<ValueId> {
        let op = op.into();
        let name = format!("{}{}", op.name(), self.0.nodes.len());
        Ok(self.0.add_node(name, op, inputs)?[0])
    }

    fn constant(&mut self, dims: &[usize], number: f32) -> skipstone::Result<ValueId> {
        let elements = vec![number; dims.iter().product()];
        let tensor = Tensor::from_slice(dims, &elements).map_err(|e| skipstone::Error::Internal(e.to_string()))?;
        Ok(self.0.add_constant("c", tensor)?)
    }

    fn conv(&mut self, x: ValueId) -> skipstone::Result<ValueId> {
        let (weights, bias) = (self.constant(&[8, 8, 1, 1], 0.125)?, self.constant(&[8], 0.5)?);
        self.add(Conv::POINTWISE, &[x, weights, bias])
    }

    fn end(mut self, y: ValueId) -> Graph {
        self.0.outputs.push(("y".into(), y));
        self.0
    }
}

fn convolutions(nodes: usize) -> skipstone::Result<Graph> {
    let (mut build, mut x) = Build::new(&[1, 8, 2, 2])?;
    for _ in 0..nodes {
        x = build.conv(x)?;
    }
    Ok(build.end(x))
}

fn residuals(nodes: usize) -> skipstone::Result<Graph> {
    let (mut build, mut x) = Build::new(&[1, 8, 2, 2])?;
    for _ in 0..nodes / 4 {
        let y = build.conv(x)?;
        let y = build.add(Activate { activation: Activation::Relu }, &[y])?;
        let y = build.conv(y)?;
        x = build.add(Binary::new(BinaryKind::Add), &[x, y])?;
    }
    Ok(build.end(x))
}

fn small(nodes: usize) -> skipstone::Result<Graph> {
    let (mut build, mut x) = Build::new(&[1, 8])?;
    for _ in 0..nodes / 5 {
        let a = build.add(Unary { kind: UnaryKind::Abs }, &[x])?;
        let b = build.add(Unary { kind: UnaryKind::Square }, &[x])?;
        let c = build.add(Binary::new(BinaryKind::Sub), &[a, b])?;
        let d = build.add(Activate { activation: Activation::Sigmoid }, &[c])?;
        x = build.add(Binary::new(BinaryKind::Mul), &[d, x])?;
    }
    Ok(build.end(x))
}

fn numbers(nodes: usize, kind: BinaryKind) -> skipstone::Result<Graph> {
    let (mut build, mut x) = Build::new(&[1, 8])?;
    for _ in 0..nodes {
        let number = build.constant(&[], 1.25)?;
        x = build.add(Binary::new(kind), &[x, number])?;
    }
    Ok(build.end(x))
}

/// Every result is read once more at the end, the first one last.
fn long_lives(nodes: usize) -> skipstone::Result<Graph> {
    let (mut build, mut x) = Build::new(&[1, 8])?;
    let mut results = Vec::new();
    for _ in 0..nodes / 2 {
        x = build.add(Unary { kind: UnaryKind::Exp }, &[x])?;
        results.push(x);
    }
    while let Some(result) = results.pop() {
        x = build.add(Binary::new(BinaryKind::Sub), &[x, result])?;
    }
    let y = build.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: true }, &[x])?;
    Ok(build.end(y))
}

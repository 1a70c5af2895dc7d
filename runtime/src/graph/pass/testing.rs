//! Shared by the passes' tests: a builder for small graphs, and the comparison of the optimized graph with the
//! original.

use skipstone_kernels::activation::Activation;

use super::super::{Graph, ValueId};
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::check::{Random, assert_close};
use crate::ops::unary::{Unary, UnaryKind};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A graph under construction, with one f32 input.
pub(in crate::graph) struct Build {
    pub graph: Graph,
    pub x: ValueId,
}

impl Build {
    pub fn new(dims: &[usize]) -> Self {
        let mut graph = Graph::new();
        let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(dims).unwrap())).unwrap();
        Self { graph, x }
    }

    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        let name = format!("n{}", self.graph.nodes.len());
        self.graph.add_node(name, op, inputs).unwrap()[0]
    }

    pub fn constant(&mut self, dims: &[usize], elements: &[f32]) -> ValueId {
        self.graph.add_constant("c", Tensor::from_slice(dims, elements).unwrap()).unwrap()
    }

    pub fn binary(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> ValueId {
        self.add(Binary::new(kind), &[a, b])
    }

    /// `kind(x, number)`
    pub fn with(&mut self, kind: BinaryKind, x: ValueId, number: f32) -> ValueId {
        let number = self.constant(&[], &[number]);
        self.binary(kind, x, number)
    }

    pub fn unary(&mut self, kind: UnaryKind, x: ValueId) -> ValueId {
        self.add(Unary { kind }, &[x])
    }

    pub fn activate(&mut self, activation: Activation, x: ValueId) -> ValueId {
        self.add(Activate { activation }, &[x])
    }

    pub fn output(&mut self, id: ValueId) {
        let name = format!("y{}", self.graph.outputs.len());
        self.graph.outputs.push((name, id));
    }

    /// The graph with the output `y` after every pass; checks that its results stay the same.
    pub fn optimized(mut self, y: ValueId, tolerance: f64) -> Graph {
        self.output(y);
        let inputs = [Random(7).floats(&self.graph.fact(self.x).shape.clone())];
        let want = self.graph.evaluate(&inputs).unwrap();
        super::optimize(&mut self.graph).unwrap();
        self.graph.check().unwrap();
        let got = self.graph.evaluate(&inputs).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert_close(got, want, tolerance, "optimized");
        }
        self.graph
    }
}

/// The activation, if it is the only node.
pub(in crate::graph) fn only_activation(graph: &Graph) -> Option<Activation> {
    match graph.nodes.as_slice() {
        [node] => match node.op {
            Op::Activate(Activate { activation }) => Some(activation),
            _ => None,
        },
        _ => None,
    }
}

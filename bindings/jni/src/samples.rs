//! A small model for tests.

use std::sync::Arc;

use skipstone::graph::Graph;
use skipstone::ops::reduce::{Reduce, ReduceKind};
use skipstone::{DType, Fact, Options, Shape};
use skipstone_ffi::Model;

/// A classifier of three classes, the mean of each channel of an 8x8 image, named `sample`.
pub(crate) fn model() -> Arc<Model> {
    let mut graph = Graph::new();
    let image = graph.add_input("image", Fact::new(DType::F32, Shape::new(&[1, 3, 8, 8]).unwrap())).unwrap();
    let mean = Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: false };
    let scores = graph.add_node("mean", mean, &[image]).unwrap()[0];
    graph.outputs.push(("scores".into(), scores));
    Model::from_runtime(skipstone::Model::from_graph(graph, &Options::default()).unwrap(), "sample")
}

//! Checks the resources of a graph and of its plan against the limits.

use super::{Plan, Port};
use crate::error::Result;
use crate::graph::{Graph, Node};
use crate::limits::{Limits, check};
use crate::operator::{Operator, Place};
use crate::ops::Op;
use crate::ops::control::Control;

impl Limits {
    /// Checks a graph before it is planned.
    ///
    /// # Errors
    /// `model.limit`, naming the exceeded limit.
    pub(crate) fn check_graph(&self, graph: &Graph) -> Result<()> {
        check("steps of work", work(graph), self.run_work, "work")?;
        check("iterations of loops", iterations(graph, &graph.nodes), self.iterations, "iterations")?;
        let edge = graph.inputs.iter().chain(graph.outputs.iter().map(|(_, id)| id));
        let bytes = edge.map(|&id| graph.fact(id).bytes() as u64);
        check("bytes of inputs and outputs", bytes.fold(0, u64::saturating_add), self.memory_bytes, "memory")
    }

    /// Checks the memory of a session of `plan`.
    ///
    /// # Errors
    /// `model.limit`, naming the exceeded limit.
    pub(crate) fn check_plan(&self, plan: &Plan) -> Result<()> {
        // An output that is an unchanged input is copied, and so is the next value of state.
        let copies = plan.outputs.iter().filter(|port| matches!(port.place, Place::Input(_)));
        let held = plan.variables.iter().map(|variable| &variable.port);
        let next = plan.variables.iter().filter(|variable| variable.next.is_some()).map(|variable| &variable.port);
        self.check_ports(plan.inputs.iter().chain(copies).chain(held).chain(next), plan.arena_bytes)
    }

    /// Checks the bytes of ports, plus `beside` other bytes.
    ///
    /// # Errors
    /// `model.limit`.
    pub(crate) fn check_ports<'a>(&self, ports: impl Iterator<Item = &'a Port>, beside: usize) -> Result<()> {
        let bytes = ports.fold(beside as u64, |sum, port| sum.saturating_add(port.fact.bytes() as u64));
        check("bytes of tensors", bytes, self.memory_bytes, "memory")
    }
}

/// Work of one run of a graph. A loop whose trip count is only known at run time counts once.
pub(crate) fn work(graph: &Graph) -> u64 {
    work_of(graph, &graph.nodes)
}

/// Work of nodes and of their blocks.
fn work_of(graph: &Graph, nodes: &[Node]) -> u64 {
    nodes.iter().fold(0, |sum: u64, node| {
        let own = node.op.work(&graph.facts(&node.inputs), &graph.facts(&node.outputs));
        let inner = node.blocks.iter().fold(0, |sum: u64, block| sum.saturating_add(work_of(graph, &block.nodes)));
        sum.saturating_add(own).saturating_add(inner.saturating_mul(times(graph, node).unwrap_or(1)))
    })
}

/// Largest number of iterations of all loops with a known end.
fn iterations(graph: &Graph, nodes: &[Node]) -> u64 {
    nodes.iter().fold(0, |sum: u64, node| {
        let inner = node.blocks.iter().fold(0, |sum: u64, block| sum.saturating_add(iterations(graph, &block.nodes)));
        let own = times(graph, node).map_or(inner, |times| times.saturating_mul(inner.saturating_add(1)));
        sum.saturating_add(own)
    })
}

/// Trip count of a node that is a loop with a known end: its body computes no condition. If only the condition ends a
/// loop, exporters write the largest count.
fn times(graph: &Graph, node: &Node) -> Option<u64> {
    let Op::Control(Control::Loop(op)) = &node.op else { return None };
    let condition = *node.blocks.first()?.results.first()?;
    graph.constant(condition)?;
    op.iterations.map(|count| count as u64)
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::activation::Activation;
    use skipstone_kernels::pool::PoolFn;

    use super::*;
    use crate::ops::activate::Activate;
    use crate::ops::matmul::MatMul;
    use crate::ops::pool::Pool;
    use crate::tensor::{DType, Fact, Shape, Tensor};
    use crate::{Model, Options};

    fn floats(dims: &[usize]) -> Fact {
        Fact::new(DType::F32, Shape::new(dims).unwrap())
    }

    #[track_caller]
    fn refused(graph: Graph, limits: Limits) -> String {
        match Model::from_graph(graph, &Options::default().limits(limits)) {
            Ok(_) => panic!("accepted"),
            Err(error) => {
                assert_eq!(error.code(), "model.limit", "{error}");
                error.to_string()
            }
        }
    }

    /// An image under windows of this size.
    fn pooled(side: usize) -> Graph {
        let mut graph = Graph::new();
        let x = graph.add_input("x", floats(&[1, 1, 2048, 2048])).unwrap();
        let pads = [side / 2; 4];
        let out = [2048 + 2 * (side / 2) - side + 1; 2];
        let pool = Pool { kernel: [side; 2], pads, out, ..Pool::global(PoolFn::Max, 1, 1) };
        let y = graph.add_node("pool", pool, &[x]).unwrap()[0];
        graph.outputs.push(("y".into(), y));
        graph
    }

    #[test]
    fn a_few_bytes_cannot_ask_for_any_amount_of_work() {
        assert!(Model::from_graph(pooled(3), &Options::default()).is_ok());
        let text = refused(pooled(1024), Limits::default());
        assert!(text.contains("steps of work"), "{text}");
        refused(pooled(3), Limits { run_work: 1 << 20, ..Limits::default() });
    }

    #[test]
    fn a_few_bytes_cannot_ask_for_any_amount_of_memory() {
        let copied = || {
            let mut graph = Graph::new();
            let x = graph.add_input("x", floats(&[1 << 16])).unwrap();
            graph.outputs = (0..100).map(|index| (format!("y{index}"), x)).collect();
            graph
        };
        assert!(Model::from_graph(copied(), &Options::default()).is_ok());
        refused(copied(), Limits { memory_bytes: 20 << 20, ..Limits::default() });
        let mut graph = Graph::new();
        let x = graph.add_input("x", floats(&[1 << 29])).unwrap();
        let y = graph.add_node("relu", Activate { activation: Activation::Relu }, &[x]);
        graph.outputs.push(("y".into(), y.unwrap()[0]));
        refused(graph, Limits::default());
    }

    /// A tensor without elements has no particular address, but is valid.
    #[test]
    fn tensors_without_elements_are_run() {
        let mut graph = Graph::new();
        let x = graph.add_input("x", floats(&[2, 0, 3])).unwrap();
        let y = graph.add_node("relu", Activate { activation: Activation::Relu }, &[x]).unwrap()[0];
        graph.outputs.push(("y".into(), y));
        let model = Model::from_graph(graph, &Options::default()).unwrap();
        let mut session = model.session().unwrap();
        let unaligned = crate::TensorView::from_bytes(floats(&[2, 0, 3]), &[]).unwrap();
        session.run(&[unaligned]).unwrap();
        assert_eq!(session.output(0).unwrap().elements::<f32>(), Some(&[][..]));
        assert_eq!(Tensor::zeros(floats(&[0])).elements::<f32>(), Some(&[][..]));
    }

    /// As many products of one constant.
    fn products(count: usize) -> Graph {
        let mut graph = Graph::new();
        let mut x = graph.add_input("x", floats(&[1, 1, 512])).unwrap();
        let w = graph.add_constant("w", Tensor::from_slice(&[1, 512, 512], &[0.5f32; 512 * 512]).unwrap()).unwrap();
        for index in 0..count {
            let product = MatMul { transposed: false, activation: Activation::None };
            x = graph.add_node(format!("product{index}"), product, &[x, w]).unwrap()[0];
        }
        graph.outputs.push(("y".into(), x));
        graph
    }

    #[test]
    fn nodes_that_read_one_constant_share_its_packed_form() {
        let model = Model::from_graph(products(20), &Options::default()).unwrap();
        let packed = &model.plan().unwrap().steps;
        let first = packed[0].choice.packed[0].as_ptr();
        assert!(packed.iter().all(|step| step.choice.packed[0].as_ptr() == first));
    }

    #[test]
    fn packed_forms_of_a_constant_are_bounded() {
        let text = refused(products(4000), Limits::default());
        assert!(text.contains("bytes to pack"), "{text}");
    }
}

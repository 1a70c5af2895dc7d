//! Bounds as activations: `Max(x, 0)` is Relu, `Min(Max(x, a), b)` is Clip.
//!
//! ```text
//! x -> Max(0)             =>    x -> Relu
//! x -> Max(a) -> Min(b)   =>    x -> Clip(a, b)
//! ```

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    for index in 0..graph.nodes.len() {
        if let Some((x, activation)) = bound(graph, &graph.nodes[index]) {
            let node = &mut graph.nodes[index];
            node.op = Activate { activation }.into();
            node.inputs = vec![x];
        }
    }
    // Two consecutive bounds become one interval.
    let uses = graph.uses()?;
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let Op::Activate(Activate { activation: second }) = node.op else { continue };
        let Some(writer) = uses.writer(node.inputs[0]).filter(|_| uses.only_reader(node.inputs[0]).is_some()) else {
            continue;
        };
        let Op::Activate(Activate { activation: first }) = graph.nodes[writer].op else { continue };
        let (Some((low, high)), Some((min, max))) = (interval(first), interval(second)) else { continue };
        // min(max(x, low), high) clipped again; the second bounds win if they conflict.
        let both = Activation::Clip { min: low.max(min).min(max), max: high.min(max).max(min) };
        let x = graph.nodes[writer].inputs.clone();
        let node = &mut graph.nodes[index];
        node.op = Activate { activation: both }.into();
        node.inputs = x;
    }
    for node in &mut graph.nodes {
        if let Op::Activate(Activate { activation }) = &mut node.op
            && *activation == (Activation::Clip { min: 0.0, max: f32::INFINITY })
        {
            *activation = Activation::Relu;
        }
    }
    Ok(())
}

/// `x` and the bound, if the node is a maximum or minimum with a constant.
fn bound(graph: &Graph, node: &Node) -> Option<(ValueId, Activation)> {
    let Op::Binary(Binary { kind, activation: Activation::None }) = node.op else { return None };
    let &[a, b] = node.inputs.as_slice() else { return None };
    let number = |id: ValueId| match graph.constant(id)?.elements::<f32>()? {
        &[number] if !number.is_nan() => Some(number),
        _ => None,
    };
    let (x, number) = number(b).map(|n| (a, n)).or_else(|| number(a).map(|n| (b, n)))?;
    let result = node.outputs.first()?;
    if graph.fact(x) != graph.fact(*result) {
        return None;
    }
    match kind {
        BinaryKind::Max => Some((x, Activation::Clip { min: number, max: f32::INFINITY })),
        BinaryKind::Min => Some((x, Activation::Clip { min: f32::NEG_INFINITY, max: number })),
        _ => None,
    }
}

fn interval(activation: Activation) -> Option<(f32, f32)> {
    match activation {
        Activation::Relu => Some((0.0, f32::INFINITY)),
        Activation::Clip { min, max } => Some((min, max)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, Fact, Shape, Tensor};

    fn chain(bounds: &[(BinaryKind, f32)]) -> Graph {
        let mut graph = Graph::new();
        let mut x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[2, 3]).unwrap())).unwrap();
        for (i, &(kind, number)) in bounds.iter().enumerate() {
            let c = graph.add_constant("c", Tensor::from_slice(&[1, 1], &[number]).unwrap()).unwrap();
            x = graph.add_node(format!("n{i}"), Binary { kind, activation: Activation::None }, &[x, c]).unwrap()[0];
        }
        graph.outputs.push(("y".into(), x));
        run(&mut graph).unwrap();
        super::super::dead::run(&mut graph).unwrap();
        graph.check().unwrap();
        graph
    }

    fn only(graph: &Graph) -> Activation {
        match graph.nodes.as_slice() {
            [Node { op: Op::Activate(a), .. }] => a.activation,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bounds_become_activations() {
        assert_eq!(only(&chain(&[(BinaryKind::Max, 0.0)])), Activation::Relu);
        let clip = Activation::Clip { min: 0.0, max: 6.0 };
        assert_eq!(only(&chain(&[(BinaryKind::Max, 0.0), (BinaryKind::Min, 6.0)])), clip);
        assert_eq!(only(&chain(&[(BinaryKind::Min, 6.0), (BinaryKind::Max, 0.0)])), clip);
    }
}

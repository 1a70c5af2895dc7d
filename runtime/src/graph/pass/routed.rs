//! Products with gathered matrices, which is how exporters write a mixture of experts.
//!
//! ```text
//! Gather(matrices, i) -> MatMul(x, .)                          =>    Routed(x, i, matrices)
//! Gather(matrices, i) -> MatMul(., x) of one column            =>    Routed(x, i, matrices)
//! Routed(x, i, matrices) -> Add(Gather(biases, i))             =>    Routed(x, i, matrices, biases)
//! Routed -> activation                                         =>    Routed
//! ```
//!
//! When: the matrices are a constant of rank 3 within the operator's limit on their number, gathered along the first
//! axis; reshapes may be anywhere between, and a transposition of the matrices. Values between product, bias and
//! activation are not read elsewhere.

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use super::pattern::Pattern;
use crate::error::Result;
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::ops::gather::Gather;
use crate::ops::reshape::Reshape;
use crate::ops::routed::Routed;
use crate::reserve;
use crate::tensor::{DType, Shape};

/// Most nodes between the matrices and a product: many products may read one chain.
const DEPTH: usize = 16;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let found = reserve::list(graph.nodes.iter().map(|node| product(&pattern, node)))?;
    if found.iter().all(Option::is_none) && !graph.nodes.iter().any(|node| matches!(node.op, Op::Routed(_))) {
        return Ok(());
    }
    let nodes = std::mem::take(&mut graph.nodes);
    for (node, found) in nodes.into_iter().zip(found) {
        match found {
            Some(found) => replace(graph, &node, found)?,
            None => reserve::push(&mut graph.nodes, node)?,
        }
    }
    fuse(graph, bias)?;
    fuse(graph, activation)
}

/// A product of rows `[groups, m, k]` with gathered matrices.
struct Found {
    rows: ValueId,
    /// Dimensions of the rows.
    dims: [usize; 3],
    indices: ValueId,
    matrices: ValueId,
    transposed: bool,
}

/// A constant gathered along its first axis.
struct Gathered {
    indices: ValueId,
    constant: ValueId,
    /// Whether its last two axes were transposed afterwards.
    turned: bool,
}

fn gathered(pattern: &Pattern<'_>, id: ValueId, rank: usize) -> Option<Gathered> {
    let (mut id, mut turned) = (id, false);
    for _ in 0..DEPTH {
        let node = pattern.writer(id)?;
        match &node.op {
            // Axes may be joined or split before the gathered matrices, but not inside them.
            Op::Reshape(_) => {
                let [from, to] = [node.inputs.first()?, &id].map(|&id| pattern.graph.fact(id).shape.dims());
                let inner = rank - 1;
                if from.len() < inner || to.len() < inner || from[from.len() - inner..] != to[to.len() - inner..] {
                    return None;
                }
            }
            Op::Transpose(op) => {
                let rank = op.axes.len();
                let exchanged = (0..rank.checked_sub(2)?).chain([rank - 1, rank - 2]);
                if !op.axes.iter().copied().eq(exchanged) {
                    return None;
                }
                turned = !turned;
            }
            Op::Gather(Gather { axis: 0 }) => {
                let &[constant, indices] = node.inputs.as_slice() else { return None };
                let fact = pattern.graph.fact(constant);
                let fits =
                    fact.dtype == DType::F32 && fact.shape.rank() == rank && pattern.graph.constant(constant).is_some();
                return fits.then_some(Gathered { indices, constant, turned });
            }
            _ => return None,
        }
        id = *node.inputs.first()?;
    }
    None
}

fn product(pattern: &Pattern<'_>, node: &Node) -> Option<Found> {
    let (Op::MatMul(op), &[a, b]) = (&node.op, node.inputs.as_slice()) else { return None };
    if op.activation != Activation::None {
        return None;
    }
    let (&[groups, m, k], &[batch, _, columns]) =
        (pattern.graph.fact(a).shape.dims(), pattern.graph.fact(b).shape.dims())
    else {
        return None;
    };
    if batch != groups {
        return None;
    }
    let found = |rows, dims, from: Gathered, transposed| {
        if !Routed::supports(&pattern.graph.fact(from.constant).shape) {
            return None;
        }
        let indices = pattern.graph.fact(from.indices).shape.elements() == groups;
        let Gathered { indices: id, constant: matrices, turned } = from;
        indices.then_some(Found { rows, dims, indices: id, matrices, transposed: transposed != turned })
    };
    if let Some(from) = gathered(pattern, b, 3) {
        return found(a, [groups, m, k], from, op.transposed);
    }
    let columns = if op.transposed { pattern.graph.fact(b).shape[1] } else { columns };
    let from = gathered(pattern, a, 3).filter(|_| columns == 1)?;
    found(b, [groups, 1, k], from, true)
}

fn replace(graph: &mut Graph, node: &Node, found: Found) -> Result<()> {
    let Found { rows, dims, indices, matrices, transposed } = found;
    let rows = reshaped(graph, &format!("{}.rows", node.name), rows, &dims)?;
    let indices = reshaped(graph, &format!("{}.indices", node.name), indices, &dims[..1])?;
    let op = Routed { transposed, has_bias: false, activation: Activation::None };
    let mut routed = graph.make_node(node.name.clone(), op, &[rows, indices, matrices])?;
    let shape = graph.fact(node.outputs[0]).shape.clone();
    if graph.fact(routed.outputs[0]).shape == shape {
        routed.outputs.clone_from(&node.outputs);
        reserve::push(&mut graph.nodes, routed)?;
        return Ok(());
    }
    let mut back = graph.make_node(format!("{}.back", node.name), Reshape { shape }, &routed.outputs)?;
    back.outputs.clone_from(&node.outputs);
    Ok(reserve::extend(&mut graph.nodes, [routed, back])?)
}

/// The value reshaped to these dimensions.
fn reshaped(graph: &mut Graph, name: &str, id: ValueId, dims: &[usize]) -> Result<ValueId> {
    if graph.fact(id).shape.dims() == dims {
        return Ok(id);
    }
    let shape = Shape::new(dims).map_err(|e| e.at(name))?;
    Ok(graph.add_node(name, Reshape { shape }, &[id])?[0])
}

/// A node after a product to fuse into it.
struct Taken {
    /// The product's position among the nodes.
    at: usize,
    routed: Routed,
    bias: Option<ValueId>,
    /// The product's result, which is replaced by the node's.
    result: ValueId,
}

/// Fuses the nodes found by `find` into the products before them.
fn fuse(graph: &mut Graph, find: fn(&Pattern<'_>, &Node) -> Option<Taken>) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let found = reserve::list(graph.nodes.iter().map(|node| find(&pattern, node)))?;
    for (index, found) in found.into_iter().enumerate() {
        let Some(Taken { at, routed, bias, result }) = found else { continue };
        graph.nodes[at].op = routed.into();
        graph.nodes[at].inputs.extend(bias);
        let shape = graph.fact(graph.nodes[index].outputs[0]).shape.clone();
        let node = &mut graph.nodes[index];
        (node.op, node.inputs) = (Reshape { shape }.into(), vec![result]);
    }
    Ok(())
}

/// The product that computes `id`, looking through reshapes, if the intermediate values are not read elsewhere.
fn product_of<'a>(pattern: &Pattern<'a>, id: ValueId) -> Option<(usize, &'a Node, &'a Routed)> {
    let mut node = pattern.inner(id)?;
    while let (Op::Reshape(_), &[x]) = (&node.op, node.inputs.as_slice()) {
        node = pattern.inner(x)?;
    }
    let Op::Routed(op) = &node.op else { return None };
    Some((pattern.position(*node.outputs.first()?)?, node, op))
}

/// The value that this is a reshape of.
fn source(pattern: &Pattern<'_>, mut id: ValueId) -> ValueId {
    while let Some(Node { op: Op::Reshape(_), inputs, .. }) = pattern.writer(id) {
        let Some(&x) = inputs.first() else { break };
        id = x;
    }
    id
}

fn bias(pattern: &Pattern<'_>, node: &Node) -> Option<Taken> {
    let [a, b] = Pattern::operands(node, BinaryKind::Add)?;
    let of = |product: ValueId, bias: ValueId| {
        let (at, routed, op) = product_of(pattern, product)?;
        let from = gathered(pattern, bias, 2)?;
        let &[_, m, n] = pattern.graph.fact(routed.outputs[0]).shape.dims() else { return None };
        let &[count, _, _] = pattern.graph.fact(*routed.inputs.get(2)?).shape.dims() else { return None };
        let [sum, product, bias] = [node.outputs[0], product, bias].map(|id| &pattern.graph.fact(id).shape);
        // One bias for all rows of a group; nothing else may be broadcast.
        let along =
            product == sum && (bias == sum || bias.last() == Some(&n)) && (m == 1 || is_per_group(product, bias));
        let same = source(pattern, from.indices) == source(pattern, routed.inputs[1]);
        let fits = pattern.graph.fact(from.constant).shape.dims() == [count, n] && product.last() == Some(&n);
        let taken = along && same && fits && !op.has_bias && op.activation == Activation::None && !from.turned;
        let elements = bias.elements() * m == product.elements();
        let routed_op = Routed { has_bias: true, ..op.clone() };
        (taken && elements).then_some(Taken {
            at,
            routed: routed_op,
            bias: Some(from.constant),
            result: routed.outputs[0],
        })
    };
    of(a, b).or_else(|| of(b, a))
}

/// Whether biases `[groups, 1, n]` are added to rows `[groups, m, n]`.
fn is_per_group(product: &Shape, bias: &Shape) -> bool {
    matches!((product.dims(), bias.dims()), (&[groups, _, n], &[count, 1, width]) if groups == count && n == width)
}

fn activation(pattern: &Pattern<'_>, node: &Node) -> Option<Taken> {
    let (activation, x) = Pattern::activation(node)?;
    let (at, routed, op) = product_of(pattern, x)?;
    let fused = Routed { activation, ..op.clone() };
    let taken = op.activation == Activation::None;
    taken.then_some(Taken { at, routed: fused, bias: None, result: routed.outputs[0] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::binary::Binary;
    use crate::ops::check::{Random, assert_close, planned};
    use crate::ops::matmul::MatMul;
    use crate::ops::transpose::Transpose;
    use crate::tensor::{Fact, Tensor};
    use skipstone_kernels::Isa;

    /// A graph under construction, with rows and indices.
    struct Build {
        graph: Graph,
        rows: ValueId,
        indices: ValueId,
        random: Random,
    }

    impl Build {
        fn new(rows: &[usize], indices: &[usize]) -> Self {
            let mut graph = Graph::new();
            let fact = |dtype, dims: &[usize]| Fact::new(dtype, Shape::new(dims).unwrap());
            let rows = graph.add_input("x", fact(DType::F32, rows)).unwrap();
            let indices = graph.add_input("i", fact(DType::I64, indices)).unwrap();
            Self { graph, rows, indices, random: Random(23) }
        }

        fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
            let name = format!("n{}", self.graph.nodes.len());
            self.graph.add_node(name, op, inputs).unwrap()[0]
        }

        fn reshape(&mut self, x: ValueId, dims: &[usize]) -> ValueId {
            self.add(Reshape { shape: Shape::new(dims).unwrap() }, &[x])
        }

        fn gather(&mut self, dims: &[usize]) -> ValueId {
            let constant = self.random.floats(dims);
            let constant = self.graph.add_constant("c", constant).unwrap();
            self.add(Gather { axis: 0 }, &[constant, self.indices])
        }

        fn multiply(&mut self, a: ValueId, b: ValueId, transposed: bool) -> ValueId {
            self.add(MatMul { transposed, activation: Activation::None }, &[a, b])
        }

        /// Optimizes the graph, checks that the result stays the same, and returns its only product.
        fn routed(mut self, y: ValueId) -> Routed {
            self.graph.outputs.push(("y".into(), y));
            let [rows, indices] = [self.rows, self.indices].map(|id| self.graph.fact(id).shape.clone());
            let count = 4 * indices.elements();
            let all: Vec<i64> = (0..count).map(|i| (i * 7 % 4) as i64).take(count / 4).collect();
            let inputs = [self.random.floats(&rows), Tensor::from_slice(&indices, &all).unwrap()];
            let want = self.graph.evaluate(&inputs).unwrap();
            super::super::optimize(&mut self.graph).unwrap();
            let got = planned(&self.graph, Isa::detect(), &inputs).unwrap();
            assert_close(&got[0], &want[0], 1e-4, "optimized");
            let ops: Vec<&Op> =
                self.graph.nodes.iter().map(|node| &node.op).filter(|op| !matches!(op, Op::Reshape(_))).collect();
            match ops.as_slice() {
                [Op::Routed(op)] => op.clone(),
                _ => panic!("{ops:?}"),
            }
        }
    }

    #[test]
    fn a_layer_of_experts_as_torch_exports_it() {
        let mut build = Build::new(&[6, 5], &[6]);
        let (w, b) = (build.gather(&[4, 5, 7]), build.gather(&[4, 7]));
        let x = build.reshape(build.rows, &[6, 1, 5]);
        let y = build.multiply(x, w, false);
        let b = build.reshape(b, &[6, 1, 7]);
        let y = build.add(Binary::new(BinaryKind::Add), &[b, y]);
        let y = build.add(crate::ops::activate::Activate { activation: Activation::Relu }, &[y]);
        let op = build.routed(y);
        assert_eq!(op, Routed { transposed: false, has_bias: true, activation: Activation::Relu });
    }

    #[test]
    fn matrices_on_the_left_and_biases_after_a_squeeze() {
        let mut build = Build::new(&[6, 5], &[3, 2]);
        let (w, b) = (build.gather(&[4, 7, 5]), build.gather(&[4, 7]));
        let (w, b) = (build.reshape(w, &[6, 7, 5]), build.reshape(b, &[6, 7]));
        let x = build.reshape(build.rows, &[6, 5, 1]);
        let y = build.multiply(w, x, false);
        let y = build.reshape(y, &[6, 7]);
        let y = build.add(Binary::new(BinaryKind::Add), &[y, b]);
        assert_eq!(build.routed(y), Routed { transposed: true, has_bias: true, activation: Activation::None });
    }

    #[test]
    fn transposed_matrices_and_groups_of_rows() {
        for (rows, turned) in [(1, true), (3, false), (3, true)] {
            let mut build = Build::new(&[6, rows, 5], &[6]);
            let mut w = build.gather(&[4, 7, 5]);
            if turned {
                w = build.add(Transpose::new(&[0, 2, 1]).unwrap(), &[w]);
            }
            let b = build.gather(&[4, 7]);
            let b = build.reshape(b, &[6, 1, 7]);
            let y = build.multiply(build.rows, w, !turned);
            let y = build.add(Binary::new(BinaryKind::Add), &[y, b]);
            assert_eq!(build.routed(y), Routed { transposed: true, has_bias: true, activation: Activation::None });
        }
    }
}

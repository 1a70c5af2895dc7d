//! Layout: dense regions use NHWC, where the channels of a pixel are contiguous; [sparse ones](regions) stay in NCHW.
//!
//! ```text
//! x -> Conv -> Add -> Conv -> output
//!   =>
//! x -> Transpose -> Conv' -> Add -> Conv' -> Transpose -> output
//! ```
//!
//! Walking forward, every spatial operator gets its image in NHWC and returns NHWC; the NCHW form of a result is only
//! made if a reader needs it. Elementwise operators follow their operands, and so do those that can renumber their
//! axes. So conversions are only at the edges of a region, and if they move nothing (one pixel) the plan leaves them
//! out. The model's own transpositions between channels second and channels last count as such conversions too, also
//! after a reshape of only the pixels: an image that becomes a row of tokens stays in place. A whole image that is
//! flattened, normalized and restored may be in any order. The usual edge is a
//! network's first convolution, on an image of three channels: it becomes a [`Stem`], which reads NCHW and writes NHWC.

mod regions;

use std::collections::{HashMap, HashSet};

use super::super::{Graph, Node, ValueId};
use crate::error::{Error, Result, list};
use crate::operator::axes::{Elements, Link, Nhwc};
use crate::operator::{Operator, Semantics};
use crate::ops::Op;
use crate::ops::conv::Conv;
use crate::ops::image::NHWC_AXIS;
use crate::ops::reshape::Reshape;
use crate::ops::stem::Stem;
use crate::ops::transpose::Transpose;
use crate::reserve;
use crate::tensor::Shape;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let planar = regions::planar(graph)?;
    let normalized = normalized_whole(graph)?;
    let nodes = std::mem::take(&mut graph.nodes);
    let gotten = reserve::set(graph.outputs.iter().map(|&(_, id)| id))?;
    let twins = outer_twins(graph)?;
    let outer = reserve::set(twins.keys().copied())?;
    let (missing, equals, mixed) = Default::default();
    let mut pass = LayoutPass { graph, twins, outer, missing, equals, gotten, normalized, mixed };
    for (mut node, planar) in nodes.into_iter().zip(planar) {
        node.for_each_read_mut(&mut |id| *id = pass.equals.get(id).copied().unwrap_or(*id));
        if pass.convert(&node)? {
            continue;
        }
        match planar {
            Some((op, constants)) => {
                for constant in constants {
                    node.inputs.push(pass.graph.add_constant(node.name.clone(), constant)?);
                }
                pass.leave(Node { op, ..node })?;
            }
            None => pass.rewrite(node)?,
        }
    }
    for index in 0..pass.graph.outputs.len() {
        let id = pass.graph.outputs[index].1;
        pass.materialise(id)?;
    }
    Ok(())
}

struct LayoutPass<'a> {
    graph: &'a mut Graph,
    /// The NHWC form of a value.
    twins: HashMap<ValueId, ValueId>,
    /// Of a block, the values of the graph around it that also exist in NHWC there.
    outer: HashSet<ValueId>,
    /// Values that so far exist only in NHWC, with the name of their node.
    missing: HashMap<ValueId, String>,
    /// Values that the model transposes to a form that already exists.
    equals: HashMap<ValueId, ValueId>,
    /// The graph's outputs.
    gotten: HashSet<ValueId>,
    /// For an image that is flattened only to be normalized as a whole, the result, which is restored to an image.
    normalized: HashMap<ValueId, ValueId>,
    /// Those of these results that hold pixels in the order of NHWC.
    mixed: HashSet<ValueId>,
}

impl LayoutPass<'_> {
    fn rewrite(&mut self, mut node: Node) -> Result<()> {
        if let Some(stem) = self.stem(&node) {
            node.op = stem.into();
            return self.place(node);
        }
        let facts = self.graph.facts(&node.inputs);
        let (axes, nhwc) = (node.op.axes(&facts), node.op.nhwc());
        if axes.elements == Elements::Each && self.follows(&node) {
            for input in &mut node.inputs {
                *input = self.twin(*input)?;
            }
            return self.place(node);
        }
        // Images share their batch axis with the result; a single operand is always the image.
        let batch = |at: usize| axes.links.contains(&Link::same(at, 0, 0));
        let images: Vec<usize> = (0..node.inputs.len())
            .filter(|&at| self.graph.fact(node.inputs[at]).shape.rank() == 4 && (batch(at) || node.inputs.len() == 1))
            .collect();
        let there = images.iter().any(|&at| self.is_there(node.inputs[at]));
        match nhwc {
            Nhwc::Must => node.op.turn_to_nhwc(),
            Nhwc::Can if there => node.op.turn_to_nhwc(),
            _ => return self.leave(node),
        }
        for (at, input) in node.inputs.iter_mut().enumerate() {
            match images.contains(&at) {
                true => *input = self.twin(*input)?,
                false => self.materialise(*input)?,
            }
        }
        self.place(node)
    }

    /// Replaces the model's own conversion of the layout; returns false if the node is something else.
    fn convert(&mut self, node: &Node) -> Result<bool> {
        let (&[x], &[y]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return Ok(false) };
        let rank = self.graph.fact(x).shape.rank();
        let twin = self.twins.get(&x).copied();
        let there = !self.missing.contains_key(&x);
        match &node.op {
            Op::Transpose(op) if is_image(rank) => {
                // For tokens, both are the same transposition.
                let (last, second) = (channels_last(rank), channels_second(rank));
                match twin {
                    Some(twin) if Some(op) == last.as_ref() && !self.gotten.contains(&y) => {
                        reserve::insert(&mut self.equals, y, twin)?;
                    }
                    _ if Some(op) == second.as_ref() && there => {
                        reserve::insert(&mut self.twins, y, x)?;
                        reserve::insert(&mut self.missing, y, node.name.clone())?;
                    }
                    _ => return Ok(false),
                }
            }
            Op::Reshape(_) if self.normalized.contains_key(&y) && !there => {
                let (Some(twin), Some(&result)) = (twin, self.normalized.get(&y)) else { return Ok(false) };
                reserve::push(&mut self.graph.nodes, Node { inputs: vec![twin], ..node.copy()? })?;
                reserve::add(&mut self.mixed, result)?;
            }
            Op::Reshape(_) if self.mixed.contains(&x) => {
                let shape = Transpose::to_nhwc().shape(&self.graph.fact(y).shape).map_err(|e| e.at(&node.name))?;
                let reshape = self.graph.make_node(format!("{}.nhwc", node.name), Reshape { shape }, &[x])?;
                reserve::insert(&mut self.twins, y, reshape.outputs[0])?;
                reserve::insert(&mut self.missing, y, node.name.clone())?;
                reserve::push(&mut self.graph.nodes, reshape)?;
            }
            Op::Reshape(Reshape { shape }) if is_image(rank) && is_image(shape.rank()) => {
                let held = &self.graph.fact(x).shape;
                let (Some(twin), false) = (twin, there) else { return Ok(false) };
                if held.dims()[..2] != shape.dims()[..2] {
                    return Ok(false);
                }
                let dims = [&shape.dims()[..1], &shape.dims()[2..], &shape.dims()[1..2]].concat();
                let shape = Shape::new(&dims).map_err(|e| e.at(&node.name))?;
                let reshape = self.graph.make_node(format!("{}.nhwc", node.name), Reshape { shape }, &[twin])?;
                reserve::insert(&mut self.twins, y, reshape.outputs[0])?;
                reserve::insert(&mut self.missing, y, node.name.clone())?;
                reserve::push(&mut self.graph.nodes, reshape)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The stem for a convolution that reads few channels, if its image does not exist in NHWC.
    fn stem(&self, node: &Node) -> Option<Stem> {
        let Op::Conv(conv) = &node.op else { return None };
        let constant = self.graph.constant(*node.inputs.get(Conv::WEIGHTS)?).is_some();
        let planar = !self.twins.contains_key(node.inputs.get(Conv::X)?);
        if constant && planar { Stem::of(conv, &self.graph.facts(&node.inputs)) } else { None }
    }

    /// Adds a node unchanged, with operands in NCHW.
    fn leave(&mut self, node: Node) -> Result<()> {
        let mut done = Ok(());
        node.for_each_read(&mut |id| {
            if done.is_ok() {
                done = self.materialise(id);
            }
        });
        done?;
        Ok(reserve::push(&mut self.graph.nodes, node)?)
    }

    /// Whether a node is elementwise on images of which one is in NHWC.
    fn follows(&self, node: &Node) -> bool {
        let image = |id: &ValueId| self.graph.fact(*id).shape.rank() == 4;
        let small = |id: &ValueId| self.graph.constant(*id).is_some_and(|c| c.shape().rank() <= 4);
        node.outputs.iter().all(image)
            && node.inputs.iter().all(|id| image(id) || small(id))
            && node.inputs.iter().any(|&id| self.is_there(id))
    }

    /// Whether a value is in NHWC, and would have to be converted for a reader of NCHW.
    fn is_there(&self, id: ValueId) -> bool {
        self.missing.contains_key(&id) || self.outer.contains(&id)
    }

    /// The NHWC form of a value, made if it does not exist yet.
    fn twin(&mut self, id: ValueId) -> Result<ValueId> {
        if let Some(&twin) = self.twins.get(&id) {
            return Ok(twin);
        }
        let value = self.graph.value(id).clone();
        let twin = match value.constant {
            Some(constant) => {
                // Aligned at the last axis, like broadcasting.
                let mut dims = vec![1; 4usize.saturating_sub(constant.shape().rank())];
                dims.extend_from_slice(constant.shape());
                let at = |e: crate::OpError| e.at(&value.name);
                let shape = Shape::new(&dims).map_err(at)?;
                let image = constant.as_ref().clone().reshaped(shape).map_err(at)?;
                let moved = Transpose::to_nhwc().evaluate(&[&image]).map_err(at)?.remove(0);
                self.graph.add_constant(value.name, moved)?
            }
            None => {
                let node = self.graph.make_node(format!("{}.nhwc", value.name), Transpose::to_nhwc(), &[id])?;
                let twin = node.outputs[0];
                reserve::push(&mut self.graph.nodes, node)?;
                twin
            }
        };
        reserve::insert(&mut self.twins, id, twin)?;
        Ok(twin)
    }

    /// Adds a node whose inputs are in NHWC: its image results are in NHWC too.
    fn place(&mut self, mut node: Node) -> Result<()> {
        let facts = node.op.infer(&self.graph.facts(&node.inputs)).map_err(|e| e.at(&node.name))?;
        for (output, fact) in node.outputs.iter_mut().zip(facts) {
            let held = &self.graph.fact(*output).shape;
            if held.rank() != 4 {
                continue;
            }
            let moved: Vec<usize> =
                (0..4).filter_map(|axis| NHWC_AXIS.iter().position(|&a| a == axis)).map(|a| held[a]).collect();
            if fact.shape.dims() != moved {
                return Err(Error::Internal(format!("'{}' is {fact} in NHWC, not {}", node.name, list(&moved))));
            }
            let twin = self.graph.add_value(format!("{}.nhwc", node.name), fact, None)?;
            reserve::insert(&mut self.twins, *output, twin)?;
            reserve::insert(&mut self.missing, *output, node.name.clone())?;
            *output = twin;
        }
        Ok(reserve::push(&mut self.graph.nodes, node)?)
    }

    /// Makes sure that a value exists in NCHW.
    fn materialise(&mut self, id: ValueId) -> Result<()> {
        if let (Some(name), Some(&twin)) = (self.missing.remove(&id), self.twins.get(&id)) {
            let op = channels_second(self.graph.fact(id).shape.rank());
            let op = op.ok_or_else(|| Error::Internal(format!("'{name}' has too many axes")))?.into();
            let (name, inputs, outputs) = (format!("{name}.nchw"), vec![twin], vec![id]);
            reserve::push(&mut self.graph.nodes, Node { name, op, inputs, outputs, blocks: Vec::new() })?;
        }
        Ok(())
    }
}

/// The values around a block that were converted from NHWC for it, and the form that they were converted from: if the
/// block reads that one, nothing has to be converted.
fn outer_twins(graph: &Graph) -> Result<HashMap<ValueId, ValueId>> {
    let converted = graph.outer_nodes().filter_map(|node| match (&node.op, &*node.inputs, &*node.outputs) {
        (Op::Transpose(op), &[x], &[y]) if Some(op) == channels_second(graph.fact(x).shape.rank()).as_ref() => {
            Some((y, x))
        }
        _ => None,
    });
    Ok(reserve::map(converted)?)
}

/// For every image `[batch, channels, rows, columns]` that is flattened to `[batch, 1, elements]`, normalized as a single
/// channel and restored, with no other readers: the flat value and the normalized one.
fn normalized_whole(graph: &Graph) -> Result<HashMap<ValueId, ValueId>> {
    let uses = graph.uses()?;
    let reader = |id: ValueId| uses.only_reader(id).and_then(|at| graph.nodes.get(at));
    let whole = |node: &Node| {
        let (Op::Reshape(_), &[x], &[flat]) = (&node.op, node.inputs.as_slice(), node.outputs.as_slice()) else {
            return None;
        };
        let image = &graph.fact(x).shape;
        let (&[batch, 1, _], 4) = (graph.fact(flat).shape.dims(), image.rank()) else { return None };
        let norm = reader(flat).filter(|norm| matches!(norm.op, Op::GroupNorm(_)))?;
        let result = *norm.outputs.first()?;
        let restored = matches!(&reader(result)?.op, Op::Reshape(restored) if restored.shape == *image);
        (batch == image[0] && restored).then_some((flat, result))
    };
    Ok(reserve::map(graph.nodes.iter().filter_map(whole))?)
}

/// Whether values of this rank are images `[batch, channels, ..]`, with one or two pixel axes.
fn is_image(rank: usize) -> bool {
    matches!(rank, 3 | 4)
}

/// From `[batch, channels, ..]` to `[batch, .., channels]`.
fn channels_last(rank: usize) -> Option<Transpose> {
    let axes: Vec<usize> = std::iter::once(0).chain(2..rank).chain([1]).collect();
    Transpose::new(&axes)
}

/// From `[batch, .., channels]` to `[batch, channels, ..]`.
fn channels_second(rank: usize) -> Option<Transpose> {
    let axes: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    Transpose::new(&axes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::activate::Activate;
    use crate::ops::check::{Random, assert_close};
    use crate::ops::control::Control;
    use crate::ops::group_norm::GroupNorm;
    use crate::ops::image::Layout;
    use crate::ops::pool::Pool;
    use crate::ops::reduce::{Reduce, ReduceKind};
    use crate::tensor::{DType, Fact, Shape, Tensor};
    use skipstone_kernels::activation::Activation;
    use skipstone_kernels::pool::PoolFn;

    #[test]
    fn reductions_read_nhwc_without_a_conversion() {
        for (axes, keep_dims, want) in [
            (vec![2, 3], true, vec!["Transpose", "MaxPool", "ReduceMean", "Transpose"]),
            (vec![1], true, vec!["Transpose", "MaxPool", "ReduceMean", "Transpose"]),
            (vec![2, 3], false, vec!["Transpose", "MaxPool", "ReduceMean"]),
            (vec![3], false, vec!["Transpose", "MaxPool", "Transpose", "ReduceMean"]),
        ] {
            let mut graph = Graph::new();
            let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[2, 3, 8, 6]).unwrap())).unwrap();
            let pool = Pool {
                function: PoolFn::Max,
                kernel: [2, 2],
                stride: [2, 2],
                dilation: [1, 1],
                pads: [0; 4],
                out: [4, 3],
                layout: Layout::Nchw,
            };
            let x = graph.add_node("pool", pool, &[x]).unwrap()[0];
            let reduce = Reduce { axes: axes.clone(), kind: ReduceKind::Mean, keep_dims };
            let y = graph.add_node("mean", reduce, &[x]).unwrap()[0];
            graph.outputs.push(("y".into(), y));
            let plain = graph.copy().unwrap();
            run(&mut graph).unwrap();
            graph.check().unwrap();
            let names: Vec<String> = graph.nodes.iter().map(|n| format!("{:?}", n.op)).collect();
            assert_eq!(names, want, "{axes:?}");
            let inputs = [Random(3).floats(&plain.fact(plain.inputs[0]).shape)];
            let (got, want) = (graph.evaluate(&inputs).unwrap(), plain.evaluate(&inputs).unwrap());
            assert_close(&got[0], &want[0], 1e-6, "in another layout");
        }
    }

    #[test]
    fn a_region_is_converted_at_its_edges_only() {
        let mut graph = Graph::new();
        let mut x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[1, 3, 8, 8]).unwrap())).unwrap();
        for out in [4, 2] {
            let pool = Pool {
                function: PoolFn::Max,
                kernel: [2, 2],
                stride: [2, 2],
                dilation: [1, 1],
                pads: [0; 4],
                out: [out, out],
                layout: Layout::Nchw,
            };
            x = graph.add_node(format!("pool{out}"), pool, &[x]).unwrap()[0];
            x = graph.add_node(format!("act{out}"), Activate { activation: Activation::Relu }, &[x]).unwrap()[0];
        }
        graph.outputs.push(("y".into(), x));
        run(&mut graph).unwrap();
        graph.check().unwrap();
        let names: Vec<String> = graph.nodes.iter().map(|n| format!("{:?}", n.op)).collect();
        assert_eq!(names, ["Transpose", "MaxPool", "Relu", "MaxPool", "Relu", "Transpose"]);
    }

    /// A 2x2 pool that keeps the size of an image of eight by six.
    fn pool() -> Pool {
        let function = PoolFn::Max;
        let (stride, dilation) = ([1, 1], [1, 1]);
        Pool { function, kernel: [2, 2], stride, dilation, pads: [0, 0, 1, 1], out: [8, 6], layout: Layout::Nchw }
    }

    /// The operators of a graph after the pass, which must not change its results.
    fn moved(mut graph: Graph, y: ValueId) -> Vec<String> {
        graph.outputs.push(("y".into(), y));
        let plain = graph.copy().unwrap();
        run(&mut graph).unwrap();
        graph.check().unwrap();
        let inputs = [Random(9).floats(&plain.fact(plain.inputs[0]).shape)];
        let (got, want) = (graph.evaluate(&inputs).unwrap(), plain.evaluate(&inputs).unwrap());
        assert_close(&got[0], &want[0], 1e-6, "in another layout");
        graph.nodes.iter().map(|n| format!("{:?}", n.op)).collect()
    }

    #[test]
    fn explicit_transpositions_become_part_of_the_layout() {
        let mut graph = Graph::new();
        let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[2, 3, 8, 6]).unwrap())).unwrap();
        let x = graph.add_node("before", pool(), &[x]).unwrap()[0];
        let x = graph.add_node("last", channels_last(4).unwrap(), &[x]).unwrap()[0];
        let sum = Reduce { axes: vec![3], kind: ReduceKind::Sum, keep_dims: true };
        let sums = graph.add_node("sum", sum, &[x]).unwrap()[0];
        let add = crate::ops::binary::Binary::new(crate::ops::binary::BinaryKind::Add);
        let x = graph.add_node("add", add, &[x, sums]).unwrap()[0];
        let x = graph.add_node("second", channels_second(4).unwrap(), &[x]).unwrap()[0];
        let y = graph.add_node("behind", pool(), &[x]).unwrap()[0];
        assert_eq!(moved(graph, y), ["Transpose", "MaxPool", "ReduceSum", "Add", "MaxPool", "Transpose"]);
    }

    #[test]
    fn images_become_tokens_and_back_without_a_copy() {
        let mut graph = Graph::new();
        let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[2, 3, 8, 6]).unwrap())).unwrap();
        let x = graph.add_node("before", pool(), &[x]).unwrap()[0];
        let reshape = |dims: &[usize]| Reshape { shape: Shape::new(dims).unwrap() };
        let x = graph.add_node("row", reshape(&[2, 3, 48]), &[x]).unwrap()[0];
        let tokens = graph.add_node("tokens", channels_last(3).unwrap(), &[x]).unwrap()[0];
        let x = graph.add_node("act", Activate { activation: Activation::Tanh }, &[tokens]).unwrap()[0];
        let x = graph.add_node("channels", channels_second(3).unwrap(), &[x]).unwrap()[0];
        let x = graph.add_node("image", reshape(&[2, 3, 8, 6]), &[x]).unwrap()[0];
        let y = graph.add_node("behind", pool(), &[x]).unwrap()[0];
        assert_eq!(moved(graph, y), ["Transpose", "MaxPool", "Reshape", "Tanh", "Reshape", "MaxPool", "Transpose"]);
    }

    #[test]
    fn a_normalization_of_the_whole_image_needs_no_conversion() {
        for (flat, transposes) in [([2, 1, 144], 2), ([1, 1, 288], 4), ([2, 3, 48], 4)] {
            let mut graph = Graph::new();
            let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[2, 3, 8, 6]).unwrap())).unwrap();
            let image = graph.add_node("before", pool(), &[x]).unwrap()[0];
            let reshape = |dims: &[usize]| Reshape { shape: Shape::new(dims).unwrap() };
            let x = graph.add_node("flat", reshape(&flat), &[image]).unwrap()[0];
            let ones = graph.add_constant("ones", Random(1).floats(&[flat[1]])).unwrap();
            let norm = GroupNorm { groups: flat[1], epsilon: 1e-5 };
            let x = graph.add_node("norm", norm, &[x, ones, ones]).unwrap()[0];
            let x = graph.add_node("image", reshape(&[2, 3, 8, 6]), &[x]).unwrap()[0];
            let y = graph.add_node("behind", pool(), &[x]).unwrap()[0];
            let names = moved(graph, y);
            assert_eq!(names.iter().filter(|name| *name == "Transpose").count(), transposes, "{names:?}");
        }
    }

    #[test]
    fn a_block_reads_images_around_it_without_a_conversion() {
        let mut graph = Graph::new();
        let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[2, 3, 8, 6]).unwrap())).unwrap();
        let go = graph.add_input("go", Fact::new(DType::Bool, Shape::default())).unwrap();
        let x = graph.add_node("before", pool(), &[x]).unwrap()[0];
        let mean = Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: false };
        graph.begin_block().unwrap();
        let y = graph.add_node("behind", pool(), &[x]).unwrap()[0];
        let y = graph.add_node("mean", mean.clone(), &[y]).unwrap()[0];
        let then = graph.end_block(&[y]).unwrap();
        graph.begin_block().unwrap();
        let y = graph.add_node("act", Activate { activation: Activation::Tanh }, &[x]).unwrap()[0];
        let y = graph.add_node("mean", mean, &[y]).unwrap()[0];
        let otherwise = graph.end_block(&[y]).unwrap();
        let y = graph.add_control("if", Control::If, &[go], vec![then, otherwise]).unwrap()[0];
        graph.outputs.push(("y".into(), y));
        let plain = graph.copy().unwrap();
        super::super::in_every_block(&mut graph, run).unwrap();
        super::super::dead::run(&mut graph).unwrap();
        graph.check().unwrap();
        for go in [false, true] {
            let inputs = [
                Random(9).floats(&[2, 3, 8, 6]),
                Tensor::from_bytes(plain.fact(plain.inputs[1]).clone(), &[u8::from(go)]).unwrap(),
            ];
            let (got, want) = (graph.evaluate(&inputs).unwrap(), plain.evaluate(&inputs).unwrap());
            assert_close(&got[0], &want[0], 1e-6, "in another layout");
        }
        let names = |nodes: &[Node]| nodes.iter().map(|n| format!("{:?}", n.op)).collect::<Vec<_>>();
        assert_eq!(names(&graph.nodes), ["Transpose", "MaxPool", "If"]);
        let blocks: Vec<_> = graph.nodes[2].blocks.iter().map(|block| names(&block.nodes)).collect();
        assert_eq!(blocks, [["MaxPool", "ReduceMean"], ["Tanh", "ReduceMean"]]);
    }

    #[test]
    fn outputs_are_written_in_the_models_layout() {
        let mut graph = Graph::new();
        let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[2, 3, 8, 6]).unwrap())).unwrap();
        let x = graph.add_node("before", pool(), &[x]).unwrap()[0];
        let y = graph.add_node("last", channels_last(4).unwrap(), &[x]).unwrap()[0];
        assert_eq!(moved(graph, y), ["Transpose", "MaxPool", "Transpose", "Transpose"]);
    }
}

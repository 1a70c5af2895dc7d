//! Layout: dense regions in NHWC, where the channels of a pixel lie side by side.
//!
//! ```text
//! x -> Conv -> Add -> Conv -> output
//!   =>
//! x -> Transpose -> Conv' -> Add -> Conv' -> Transpose -> output
//! ```
//!
//! Walking forward, every spatial operator gets its image in NHWC and answers in NHWC; the
//! result's NCHW form comes to be only if a reader cannot do without it. Operators that work
//! element by element follow their operands, and so do those that can name their axes anew. So
//! conversions stand at the edges of a region and nowhere else, and where they move nothing (one
//! pixel) the plan leaves them out. The usual edge is a network's first convolution, on an image of
//! three channels: it becomes a [`Stem`], which reads NCHW and answers in NHWC.

use std::collections::HashMap;

use super::super::{Graph, Node, ValueId};
use crate::error::{Error, Result};
use crate::ops::axes::{Elements, Link, Nhwc};
use crate::ops::conv::Conv;
use crate::ops::image::NHWC_AXIS;
use crate::ops::stem::Stem;
use crate::ops::transpose::Transpose;
use crate::ops::{Op, Operator};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let nodes = std::mem::take(&mut graph.nodes);
    let mut pass = Pass { graph, twins: HashMap::new(), missing: HashMap::new() };
    for node in nodes {
        pass.rewrite(node)?;
    }
    for index in 0..pass.graph.outputs.len() {
        let id = pass.graph.outputs[index].1;
        pass.materialise(id)?;
    }
    Ok(())
}

struct Pass<'a> {
    graph: &'a mut Graph,
    /// The NHWC form of a value.
    twins: HashMap<ValueId, ValueId>,
    /// Values that exist in NHWC only so far, with the name of their node.
    missing: HashMap<ValueId, String>,
}

impl Pass<'_> {
    fn rewrite(&mut self, mut node: Node) -> Result<()> {
        if let Some(stem) = self.stem(&node) {
            node.op = stem.into();
            return self.place(node);
        }
        let facts = self.graph.facts(&node.inputs);
        let (axes, nhwc) = (node.op.axes(&facts), node.op.nhwc(&facts));
        if axes.elements == Elements::Each && self.follows(&node) {
            for input in &mut node.inputs {
                *input = self.twin(*input)?;
            }
            return self.place(node);
        }
        // Images share their batch with the result; of a single operand there is no doubt.
        let batch = |at: usize| axes.links.contains(&Link::same(at, 0, 0));
        let images: Vec<usize> = (0..node.inputs.len())
            .filter(|&at| self.graph.fact(node.inputs[at]).shape.rank() == 4 && (batch(at) || node.inputs.len() == 1))
            .collect();
        let there = images.iter().any(|&at| self.missing.contains_key(&node.inputs[at]));
        match nhwc {
            Nhwc::Must(op) => node.op = op,
            Nhwc::Can(op) if there => node.op = op,
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

    /// What a convolution becomes that reads few channels, of an image that is not there in NHWC.
    fn stem(&self, node: &Node) -> Option<Stem> {
        let Op::Conv(conv) = &node.op else { return None };
        let constant = self.graph.constant(*node.inputs.get(Conv::WEIGHTS)?).is_some();
        let planar = !self.twins.contains_key(node.inputs.get(Conv::X)?);
        if constant && planar { Stem::of(conv, &self.graph.facts(&node.inputs)) } else { None }
    }

    /// Places a node as it is, on operands in NCHW.
    fn leave(&mut self, node: Node) -> Result<()> {
        let mut read = Vec::new();
        node.for_each_read(&mut |id| read.push(id));
        for id in read {
            self.materialise(id)?;
        }
        self.graph.nodes.push(node);
        Ok(())
    }

    /// Whether a node that works element by element does so on images of which one is in NHWC.
    fn follows(&self, node: &Node) -> bool {
        let image = |id: &ValueId| self.graph.fact(*id).shape.rank() == 4;
        let small = |id: &ValueId| self.graph.constant(*id).is_some_and(|c| c.shape().rank() <= 4);
        node.outputs.iter().all(image)
            && node.inputs.iter().all(|id| image(id) || small(id))
            && node.inputs.iter().any(|id| self.missing.contains_key(id))
    }

    /// The NHWC form of a value, made where there is none yet.
    fn twin(&mut self, id: ValueId) -> Result<ValueId> {
        if let Some(&twin) = self.twins.get(&id) {
            return Ok(twin);
        }
        let value = self.graph.value(id).clone();
        let twin = match value.constant {
            Some(constant) => {
                // Aligned at the last axis, as broadcasting has it.
                let mut dims = vec![1; 4usize.saturating_sub(constant.shape().rank())];
                dims.extend_from_slice(constant.shape());
                let at = |e: crate::OpError| e.at(&value.name);
                let shape = crate::Shape::new(&dims).map_err(at)?;
                let image = constant.as_ref().clone().reshaped(shape).map_err(at)?;
                let moved = Transpose::to_nhwc().evaluate(&[&image]).map_err(at)?.remove(0);
                self.graph.add_constant(value.name, moved)
            }
            None => {
                let node = self.graph.make_node(format!("{}.nhwc", value.name), Transpose::to_nhwc(), &[id])?;
                let twin = node.outputs[0];
                self.graph.nodes.push(node);
                twin
            }
        };
        self.twins.insert(id, twin);
        Ok(twin)
    }

    /// Places a node whose inputs are in NHWC: of its results, the images are too.
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
                return Err(Error::Internal(format!("'{}' is {fact} in NHWC, not {moved:?}", node.name)));
            }
            let twin = self.graph.add_value(format!("{}.nhwc", node.name), fact, None);
            self.twins.insert(*output, twin);
            self.missing.insert(*output, node.name.clone());
            *output = twin;
        }
        self.graph.nodes.push(node);
        Ok(())
    }

    /// Makes sure that a value exists in NCHW.
    fn materialise(&mut self, id: ValueId) -> Result<()> {
        if let (Some(name), Some(&twin)) = (self.missing.remove(&id), self.twins.get(&id)) {
            let op = Transpose::to_nchw().into();
            self.graph.nodes.push(Node {
                name: format!("{name}.nchw"),
                op,
                inputs: vec![twin],
                outputs: vec![id],
                blocks: Vec::new(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::activate::Activate;
    use crate::ops::check::{Random, assert_close};
    use crate::ops::image::Layout;
    use crate::ops::pool::Pool;
    use crate::ops::reduce::{Reduce, ReduceKind};
    use crate::tensor::{DType, Fact, Shape};
    use skipstone_kernels::activation::Activation;
    use skipstone_kernels::pool::PoolFn;

    #[test]
    fn reductions_read_the_image_as_it_lies() {
        for (axes, keep_dims, want) in [
            (vec![2, 3], true, vec!["Transpose", "MaxPool", "ReduceMean", "Transpose"]),
            (vec![1], true, vec!["Transpose", "MaxPool", "ReduceMean", "Transpose"]),
            (vec![2, 3], false, vec!["Transpose", "MaxPool", "ReduceMean"]),
            (vec![3], false, vec!["Transpose", "MaxPool", "Transpose", "ReduceMean"]),
        ] {
            let mut graph = Graph::new();
            let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[2, 3, 8, 6]).unwrap()));
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
            let plain = graph.clone();
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
        let mut x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[1, 3, 8, 8]).unwrap()));
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
}

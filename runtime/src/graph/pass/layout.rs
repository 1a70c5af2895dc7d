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
//! element by element follow their operands, and reductions the image that they reduce. So
//! conversions stand at the edges of a region and nowhere else, and where they move nothing (one
//! pixel) the plan leaves them out. The usual edge is a network's first convolution, on an image of
//! three channels: it becomes a [`Stem`], which reads NCHW and answers in NHWC.

use std::collections::HashMap;

use super::super::{Graph, Node, ValueId};
use crate::error::{Error, Result};
use crate::ops::Op;
use crate::ops::conv::Conv;
use crate::ops::conv_integer::ConvInteger;
use crate::ops::image::Layout;
use crate::ops::pool::Pool;
use crate::ops::qconv::QConv;
use crate::ops::qpool::QPool;
use crate::ops::roles::Role;
use crate::ops::stem::Stem;
use crate::ops::transpose::Transpose;

/// Where each axis of NCHW stands in NHWC.
const NHWC_AXIS: [usize; 4] = [0, 3, 1, 2];

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
        let follows = self.follows(&node);
        match &mut node.op {
            Op::Conv(conv) if conv.layout == Layout::Nchw => {
                conv.layout = Layout::Nhwc;
                let images = [Some(0), conv.roles.residual(), conv.roles.position(Role::Scale)];
                for (index, input) in node.inputs.iter_mut().enumerate() {
                    match images.contains(&Some(index)) {
                        true => *input = self.twin(*input)?,
                        false => self.materialise(*input)?,
                    }
                }
                self.place(node)
            }
            Op::QConv(QConv { conv: Conv { layout, .. }, .. })
            | Op::ConvInteger(ConvInteger { conv: Conv { layout, .. }, .. })
            | Op::Pool(Pool { layout, .. })
            | Op::QPool(QPool { pool: Pool { layout, .. }, .. })
                if *layout == Layout::Nchw =>
            {
                *layout = Layout::Nhwc;
                node.inputs[0] = self.twin(node.inputs[0])?;
                self.place(node)
            }
            Op::Reduce(reduce) if self.missing.contains_key(&node.inputs[0]) => {
                // Without its pixels an image is the same in both layouts.
                let pixels_gone = !reduce.keep_dims && reduce.axes == [2, 3];
                if !reduce.keep_dims && !pixels_gone {
                    return self.leave(node);
                }
                for axis in &mut reduce.axes {
                    *axis = NHWC_AXIS[*axis];
                }
                reduce.axes.sort_unstable();
                node.inputs[0] = self.twin(node.inputs[0])?;
                if pixels_gone {
                    self.graph.nodes.push(node);
                    return Ok(());
                }
                self.place(node)
            }
            Op::DynamicQuantize(_) if self.missing.contains_key(&node.inputs[0]) => {
                node.inputs[0] = self.twin(node.inputs[0])?;
                self.place(node)
            }
            _ if follows => {
                for input in &mut node.inputs {
                    *input = self.twin(*input)?;
                }
                self.place(node)
            }
            _ => self.leave(node),
        }
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

    /// Whether a node works element by element on images of which one is in NHWC.
    fn follows(&self, node: &Node) -> bool {
        let elementwise = match node.op {
            Op::Activate(_) | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select(_) | Op::Cast(_) => true,
            Op::QBinary(_) | Op::LookUp(_) => true,
            // Scales of an axis would have to move with it.
            Op::Quantize(_) | Op::Dequantize(_) => {
                node.inputs.get(1).is_some_and(|&scale| self.graph.fact(scale).shape.elements() == 1)
            }
            _ => false,
        };
        let image = |id: &ValueId| self.graph.fact(*id).shape.rank() == 4;
        let small = |id: &ValueId| self.graph.constant(*id).is_some_and(|c| c.shape().rank() <= 4);
        elementwise
            && node.outputs.iter().all(image)
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
                let moved = crate::ops::Operator::evaluate(&Transpose::to_nhwc(), &[&image]).map_err(at)?.remove(0);
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
        let facts =
            crate::ops::Operator::infer(&node.op, &self.graph.facts(&node.inputs)).map_err(|e| e.at(&node.name))?;
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

//! Quantized inference: replaces float computation between dequantize and quantize by 8-bit computation.
//!
//! ```text
//! Dequantize -> Conv [-> Relu] -> Quantize          =>    QConv
//! Dequantize -> MatMul [-> Add(bias)] -> Quantize   =>    QConv over images of one pixel
//! Dequantize -> Conv                                =>    QConv with a float result
//! Dequantize, Dequantize -> Add | Mul -> Quantize   =>    QBinary
//! Dequantize -> mean of windows -> Quantize         =>    QPool
//! Dequantize -> functions of one element -> Quantize =>    LookUp
//! Dequantize -> MaxPool, or moved elements          =>    the same -> Dequantize
//! ```
//!
//! Kernels take uint8. int8 is uint8 minus 128, including its zero point, so every int8 tensor gets a uint8 twin; a
//! table converts between them if a reader needs int8.
//!
//! When: one scale per quantized tensor, weights with zero point 0 (as int8), and no other reader of the intermediate
//! floats. Everything else in a quantized model stays, and is computed in floats.

mod constants;
mod products;

use std::collections::HashMap;

use skipstone_kernels::activation::Activation;
use skipstone_kernels::pool::PoolFn;
use skipstone_kernels::qmap::QBinaryFn;
use skipstone_kernels::qpool::Mean;
use skipstone_kernels::requantize::Requantize;

use super::super::{Graph, Node, ValueId};
use crate::error::Result;
use crate::operator::axes::Elements;
use crate::operator::{Operator, Semantics};
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::look_up::LookUp;
use crate::ops::pool::Pool;
use crate::ops::qbinary::QBinary;
use crate::ops::qconv::{QConv, QResult};
use crate::ops::qpool::QPool;
use crate::ops::quantize::Quantize;
use crate::ops::quantized::{ByteTable, Scheme, flip, quantize};
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::reshape::Reshape;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let quantized = |node: &Node| matches!(node.op, Op::Quantize(_) | Op::Dequantize(_) | Op::Pool(_));
    if !graph.nodes.iter().any(quantized) {
        return Ok(());
    }
    QuantizePass::over(graph, |pass, node| pass.rewrite(node))?;
    super::dead::run(graph)?;
    QuantizePass::over(graph, |pass, node| pass.rewrite_product(node))?;
    super::dead::run(graph)?;
    super::fold::dequantized(graph)
}

/// A walk through the nodes that adds each of them again, unchanged or replaced.
struct QuantizePass<'a> {
    graph: &'a mut Graph,
    /// How many times each value of the graph is read.
    readers: Vec<usize>,
    /// The nodes added so far, by their results.
    writers: HashMap<ValueId, usize>,
    /// uint8 forms of int8 values.
    twins: HashMap<ValueId, ValueId>,
    /// Values that equal others.
    same: HashMap<ValueId, ValueId>,
}

/// A uint8 tensor.
#[derive(Clone, Copy)]
struct QuantizedValue {
    bytes: ValueId,
    scheme: Scheme,
}

/// The replacement for a node: an operator on uint8.
type Fused = (Op, Vec<ValueId>);

impl QuantizePass<'_> {
    fn over(graph: &mut Graph, rewrite: fn(&mut QuantizePass<'_>, Node) -> Result<()>) -> Result<()> {
        let uses = graph.uses()?;
        let readers = reserve::list((0..graph.values().len()).map(|id| uses.readers(ValueId(id)).len()))?;
        let nodes = std::mem::take(&mut graph.nodes);
        let (writers, twins, same) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut pass = QuantizePass { graph, readers, writers, twins, same };
        for mut node in nodes {
            node.for_each_read_mut(&mut |id| *id = pass.same.get(id).copied().unwrap_or(*id));
            rewrite(&mut pass, node)?;
        }
        for (_, id) in &mut pass.graph.outputs {
            *id = pass.same.get(id).copied().unwrap_or(*id);
        }
        Ok(())
    }

    fn rewrite(&mut self, node: Node) -> Result<()> {
        match &node.op {
            Op::Quantize(_) => self.rewrite_quantize(node),
            Op::Dequantize(_) => self.rewrite_dequantize(node),
            _ => self.rewrite_movement(node),
        }
    }

    fn place(&mut self, node: Node) -> Result<()> {
        for &id in &node.outputs {
            reserve::insert(&mut self.writers, id, self.graph.nodes.len())?;
        }
        Ok(reserve::push(&mut self.graph.nodes, node)?)
    }

    /// Adds an operator, and returns its result.
    fn add(&mut self, name: String, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        let node = self.graph.make_node(name, op, inputs)?;
        let result = node.outputs[0];
        self.place(node)?;
        Ok(result)
    }

    fn writer(&self, id: ValueId) -> Option<&Node> {
        self.graph.nodes.get(*self.writers.get(&id)?)
    }

    /// The node that writes `id`, if only one node reads it.
    fn inner(&self, id: ValueId) -> Option<&Node> {
        self.readers.get(id.0).filter(|&&readers| readers == 1).and_then(|_| self.writer(id))
    }

    /// The quantized tensor that `id` is dequantized from.
    fn dequantized(&mut self, id: ValueId) -> Result<Option<QuantizedValue>> {
        let Some(&[x, scale, zero]) =
            self.writer(id).filter(|n| matches!(n.op, Op::Dequantize(_))).map(|n| n.inputs.as_slice())
        else {
            return Ok(None);
        };
        match self.scheme(scale, zero) {
            Some(scheme) => Ok(Some(QuantizedValue { bytes: self.unsigned(x)?, scheme })),
            None => Ok(None),
        }
    }

    fn scheme(&self, scale: ValueId, zero: ValueId) -> Option<Scheme> {
        Scheme::new(self.graph.constant(scale)?, self.graph.constant(zero)?)
    }

    /// The uint8 form of `id`, made if it does not exist yet.
    fn unsigned(&mut self, id: ValueId) -> Result<ValueId> {
        if self.graph.fact(id).dtype == DType::U8 {
            return Ok(id);
        }
        if let Some(&twin) = self.twins.get(&id) {
            return Ok(twin);
        }
        let name = format!("{}.unsigned", self.graph.value(id).name);
        let twin = match self.graph.constant(id).cloned() {
            Some(constant) => {
                let bytes = constant.bytes().iter().map(|&byte| flip(byte));
                let fact = Fact::new(DType::U8, constant.shape().clone());
                let tensor = Tensor::collected(fact, bytes).map_err(|e| e.at(&name))?;
                self.graph.add_constant(name, tensor)?
            }
            None => self.add(name, LookUp::flip(DType::U8), &[id])?,
        };
        reserve::insert(&mut self.twins, id, twin)?;
        Ok(twin)
    }

    /// Adds a node that writes `result`, quantized or not, in uint8 form.
    fn place_unsigned(&mut self, name: &str, (op, inputs): Fused, result: ValueId) -> Result<()> {
        let wanted = self.graph.fact(result).clone();
        let unchanged = matches!(&op, Op::Reshape(reshape) if reshape.shape == self.graph.fact(inputs[0]).shape);
        let made = if unchanged {
            inputs[0]
        } else {
            let mut node = self.graph.make_node(name, op, &inputs)?;
            if self.graph.fact(node.outputs[0]).dtype == wanted.dtype {
                node.outputs = vec![result];
            }
            let made = node.outputs[0];
            self.place(node)?;
            made
        };
        if made == result {
            return Ok(());
        }
        self.inherit_readers(made, result)?;
        if self.graph.fact(made).dtype == wanted.dtype {
            reserve::insert(&mut self.same, result, made)?;
            return Ok(());
        }
        reserve::insert(&mut self.twins, result, made)?;
        let signed = Node {
            name: format!("{name}.signed"),
            op: LookUp::flip(wanted.dtype).into(),
            inputs: vec![made],
            outputs: vec![result],
            blocks: Vec::new(),
        };
        self.place(signed)
    }

    /// Readers of `result` now read `made`, and a reader that led from `made` to `result` is gone.
    fn inherit_readers(&mut self, made: ValueId, result: ValueId) -> Result<()> {
        let gained = self.readers.get(result.0).copied().unwrap_or(0);
        while self.readers.len() <= made.0 {
            reserve::push(&mut self.readers, 0)?;
        }
        self.readers[made.0] = self.readers[made.0].saturating_sub(1) + gained;
        Ok(())
    }

    /// Reads the uint8 twin if there is one.
    fn rewrite_dequantize(&mut self, mut node: Node) -> Result<()> {
        if let &[x, scale, zero] = node.inputs.as_slice()
            && let (Some(&twin), Some(scheme)) = (self.twins.get(&x), self.scheme(scale, zero))
        {
            let zero = self.graph.add_constant(format!("{}.zero", node.name), Tensor::scalar(scheme.zero))?;
            let scale = self.graph.add_constant(format!("{}.scale", node.name), Tensor::scalar(scheme.scale))?;
            node.inputs = vec![twin, scale, zero];
        }
        self.place(node)
    }

    fn rewrite_quantize(&mut self, node: Node) -> Result<()> {
        let &[x, scale, zero] = node.inputs.as_slice() else {
            return self.place(node);
        };
        let result = node.outputs[0];
        let Some(to) = self.scheme(scale, zero) else {
            return self.place(node);
        };
        let fused = match self.fused(&node, x, to)? {
            Some(fused) => fused,
            // As it is, in uint8.
            None => {
                let tensor = Tensor::scalar(to.zero);
                let zero = self.graph.add_constant(format!("{}.zero", node.name), tensor)?;
                let scale = self.graph.add_constant(format!("{}.scale", node.name), Tensor::scalar(to.scale))?;
                (Quantize { axis: 0, to: DType::U8 }.into(), vec![x, scale, zero])
            }
        };
        self.place_unsigned(&node.name, fused, result)
    }

    /// The operator that computes the quantized result from `x` without intermediate floats.
    fn fused(&mut self, node: &Node, x: ValueId, to: Scheme) -> Result<Option<Fused>> {
        if let Some(fused) = self.function(node, x, to)? {
            return Ok(Some(fused));
        }
        // An activation that only bounds the result becomes a bound on the quantized result.
        let (mut x, mut by) = (x, Requantize::all(to.zero));
        while let Some((inner, bounds)) = self.inner(x).and_then(|node| bounds(node, to)) {
            (x, by) = (inner, Requantize { min: by.min.max(bounds.0), max: by.max.min(bounds.1), ..by });
        }
        if by.min > by.max {
            return Ok(None);
        }
        let Some(root) = self.inner(x).map(Node::copy).transpose()? else { return Ok(None) };
        let shape = self.graph.fact(x).shape.clone();
        match &root.op {
            Op::Binary(binary) => {
                let signed = self.graph.fact(node.outputs[0]).dtype == DType::I8;
                if let Some(fused) = self.pair(&root, *binary, by, to, signed)? {
                    return Ok(Some(fused));
                }
                self.product(&root, Some((by, to)), &shape)
            }
            Op::Pool(Pool { function: PoolFn::Average { .. }, .. }) | Op::Reduce(_) => self.mean(&root, by, to, &shape),
            Op::Conv(_) | Op::MatMul(_) | Op::Reshape(_) => self.product(&root, Some((by, to)), &shape),
            _ => Ok(None),
        }
    }

    /// Elementwise functions between quantized tensors, as a table.
    fn function(&mut self, node: &Node, x: ValueId, to: Scheme) -> Result<Option<Fused>> {
        let mut chain = Vec::new();
        let mut at = x;
        while let Some((inner, step)) = self.inner(at).and_then(|node| self.step(node)) {
            reserve::push(&mut chain, step)?;
            at = inner;
        }
        let Some(source) = self.dequantized(at)? else { return Ok(None) };
        if chain.is_empty() && source.scheme == to {
            let shape = self.graph.fact(source.bytes).shape.clone();
            return Ok(Some((Reshape { shape }.into(), vec![source.bytes])));
        }
        let scheme = source.scheme;
        let number = |byte: u8| f32::from(i16::from(byte) - i16::from(scheme.zero)) * scheme.scale;
        let numbers = reserve::list((0..=255).map(number))?;
        let mut values = Tensor::from_slice(&[256], &numbers).map_err(|e| e.at(&node.name))?;
        for (op, operands, position) in chain.iter().rev() {
            let mut inputs: Vec<&Tensor> = operands.iter().collect();
            inputs.insert(*position, &values);
            match op.evaluate(&inputs) {
                Ok(mut results) if results.len() == 1 => values = results.remove(0),
                _ => return Ok(None),
            }
        }
        let Some(values) = values.elements::<f32>().filter(|values| values.len() == 256) else { return Ok(None) };
        let table = ByteTable::of(|byte| quantize::<u8>(values[usize::from(byte)], to.scale, to.zero));
        if self.is_only_read_by(at, source.bytes) && self.look_up_behind(source.bytes, &table) {
            let shape = self.graph.fact(source.bytes).shape.clone();
            return Ok(Some((Reshape { shape }.into(), vec![source.bytes])));
        }
        Ok(Some((LookUp { table, to: DType::U8 }.into(), vec![source.bytes])))
    }

    /// Whether the dequantized floats, read once, are the only use of the quantized tensor.
    fn is_only_read_by(&self, dequantized: ValueId, bytes: ValueId) -> bool {
        let read = |id: ValueId| self.readers.get(id.0).copied().unwrap_or(0);
        let held = self.writer(dequantized).and_then(|node| node.inputs.first().copied());
        held == Some(bytes) && read(dequantized) == 1 && read(bytes) == 1
    }

    /// Makes the convolution that writes `bytes` apply the table; returns false if it is another node, or already has a
    /// table.
    fn look_up_behind(&mut self, bytes: ValueId, by: &ByteTable) -> bool {
        let Some(&writer) = self.writers.get(&bytes) else { return false };
        let op = self.graph.nodes.get_mut(writer).map(|node| &mut node.op);
        let Some(Op::QConv(QConv { result: QResult::Bytes { table: table @ None, .. }, .. })) = op else {
            return false;
        };
        *table = Some(by.clone());
        true
    }

    /// A node as a function of one element: its operand, the operator, its other (constant) operands, and the position
    /// of the operand among them.
    #[allow(clippy::type_complexity)]
    fn step(&self, node: &Node) -> Option<(ValueId, (Op, Vec<Tensor>, usize))> {
        if node.op.axes(&self.graph.facts(&node.inputs)).elements != Elements::Each {
            return None;
        }
        let number = |id: &ValueId| {
            let &[number] = self.graph.constant(*id)?.elements::<f32>()? else { return None };
            Some(Tensor::scalar(number))
        };
        let operands: Vec<Option<Tensor>> = node.inputs.iter().map(number).collect();
        let position = operands.iter().position(Option::is_none)?;
        let numbers: Vec<Tensor> = operands.into_iter().flatten().collect();
        // A constant of higher rank gives the result more dimensions.
        let (x, fact) = (node.inputs[position], self.graph.fact(*node.outputs.first()?));
        let same = self.graph.fact(x) == fact && fact.dtype == DType::F32 && numbers.len() + 1 == node.inputs.len();
        same.then(|| (x, (node.op.clone(), numbers, position)))
    }

    /// A sum or product of two quantized tensors.
    fn pair(&mut self, root: &Node, binary: Binary, by: Requantize, to: Scheme, signed: bool) -> Result<Option<Fused>> {
        let &[a, b] = root.inputs.as_slice() else { return Ok(None) };
        if binary.activation != Activation::None || !matches!(binary.kind, BinaryKind::Add | BinaryKind::Mul) {
            return Ok(None);
        }
        // The repeated operand comes second.
        let repeated = |x: ValueId| self.graph.fact(x).shape != self.graph.fact(root.outputs[0]).shape;
        let (a, b) = if repeated(a) { (b, a) } else { (a, b) };
        if repeated(a) || QBinary::dims(&self.graph.fact(a).shape, &self.graph.fact(b).shape).is_none() {
            return Ok(None);
        }
        let (Some(a), Some(b)) = (self.dequantized(a)?, self.dequantized(b)?) else { return Ok(None) };
        let function = match binary.kind {
            BinaryKind::Add => QBinaryFn::Add { a: a.scheme.scale / to.scale, b: b.scheme.scale / to.scale },
            _ => QBinaryFn::Multiply { scale: a.scheme.scale * b.scheme.scale / to.scale },
        };
        let origin = if signed { 128 } else { 0 };
        let op = QBinary { function, zeros: [a.scheme.zero, b.scheme.zero], by, origin };
        Ok(Some((op.into(), vec![a.bytes, b.bytes])))
    }

    /// The mean over windows, or over whole images.
    fn mean(&mut self, root: &Node, by: Requantize, to: Scheme, shape: &Shape) -> Result<Option<Fused>> {
        let x = root.inputs[0];
        let image = self.graph.fact(x).shape.clone();
        let whole = matches!(&root.op, Op::Reduce(reduce) if is_over_pixels(reduce, ReduceKind::Mean, &image));
        let windows = match &root.op {
            Op::Pool(pool) => Some(pool.clone()),
            _ => None,
        };
        if !whole && windows.is_none() {
            return Ok(None);
        }
        let Some(source) = self.dequantized(x)? else { return Ok(None) };
        let mean = Mean { zero: source.scheme.zero, scales: [source.scheme.scale, to.scale], by };
        let op = match windows {
            Some(pool) => QPool { pool, mean },
            None => QPool::global(&image, mean).map_err(|e| e.at(&root.name))?,
        };
        if windows_shape(self.graph, &op, source.bytes) == Some(shape.clone()) {
            return Ok(Some((op.into(), vec![source.bytes])));
        }
        let pooled = self.add(format!("{}.pooled", root.name), op, &[source.bytes])?;
        Ok(Some((Reshape { shape: shape.clone() }.into(), vec![pooled])))
    }

    /// Operators that only move elements can move quantized ones; dequantizing comes after them.
    fn rewrite_movement(&mut self, node: Node) -> Result<()> {
        let (Some((&x, rest)), [y]) = (node.inputs.split_first(), node.outputs.as_slice()) else {
            return self.place(node);
        };
        let (fact, shape) = (self.graph.fact(x).clone(), self.graph.fact(*y).shape.clone());
        let axes = node.op.axes(&self.graph.facts(&node.inputs));
        // Other operands are indices.
        let moves = axes.elements == Elements::Moved
            && axes.links.iter().all(|link| link.operand == 0)
            && shape.elements() <= fact.shape.elements();
        let rest = rest.to_vec();
        let op: Option<Op> = match &node.op {
            _ if moves => Some(node.op.clone()),
            Op::Pool(Pool { function: PoolFn::Max, .. }) => Some(node.op.clone()),
            Op::Reduce(reduce) if is_over_pixels(reduce, ReduceKind::Max, &fact.shape) => {
                Some(Pool::global(PoolFn::Max, fact.shape[2], fact.shape[3]).into())
            }
            _ => None,
        };
        let inputs = |bytes: ValueId| [vec![bytes], rest].concat();
        let signed = fact.dtype == DType::I8 && (self.twins.contains_key(&x) || matches!(node.op, Op::Pool(_)));
        match op {
            // Quantized constants of the model.
            Some(op) if signed && self.graph.constant(x).is_none() => {
                let bytes = self.unsigned(x)?;
                self.place_unsigned(&node.name, (op, inputs(bytes)), node.outputs[0])
            }
            Some(op)
                if fact.dtype == DType::F32 && self.writer(x).is_some_and(|n| matches!(n.op, Op::Dequantize(_))) =>
            {
                let Some((dequantize, scheme)) = self.writer(x).map(|n| (n.op.clone(), n.inputs.clone())) else {
                    return Ok(());
                };
                let moved = self.graph.constant(scheme[0]).is_none() && self.scheme(scheme[1], scheme[2]).is_some();
                let is_byte = matches!(self.graph.fact(scheme[0]).dtype, DType::U8 | DType::I8);
                if !moved || !is_byte {
                    return self.place(node);
                }
                let (bytes, dtype) = (self.unsigned(scheme[0])?, self.graph.fact(scheme[0]).dtype);
                let mut bytes = self.add(format!("{}.bytes", node.name), op, &inputs(bytes))?;
                if self.graph.fact(bytes).shape != shape {
                    bytes = self.add(format!("{}.shape", node.name), Reshape { shape: shape.clone() }, &[bytes])?;
                }
                if dtype == DType::I8 {
                    let signed = self.graph.add_value(&node.name, Fact::new(dtype, shape), None)?;
                    reserve::insert(&mut self.twins, signed, bytes)?;
                    self.place(Node {
                        name: format!("{}.signed", node.name),
                        op: LookUp::flip(dtype).into(),
                        inputs: vec![bytes],
                        outputs: vec![signed],
                        blocks: Vec::new(),
                    })?;
                    bytes = signed;
                }
                self.place(Node { op: dequantize, inputs: vec![bytes, scheme[1], scheme[2]], ..node })
            }
            _ => self.place(node),
        }
    }
}

/// Whether a reduction leaves one element per channel and image.
fn is_over_pixels(reduce: &Reduce, kind: ReduceKind, image: &Shape) -> bool {
    reduce.kind == kind && reduce.axes == [2, 3] && image.rank() == 4
}

fn windows_shape(graph: &Graph, op: &QPool, bytes: ValueId) -> Option<Shape> {
    Some(op.infer(&[graph.fact(bytes)]).ok()?.first()?.shape.clone())
}

/// An activation as the quantized bounds of its operand.
fn bounds(node: &Node, to: Scheme) -> Option<(ValueId, (u8, u8))> {
    let Op::Activate(Activate { activation }) = node.op else { return None };
    let byte = |bound: f32| crate::ops::quantized::quantize::<u8>(bound, to.scale, to.zero);
    let (min, max) = match activation {
        Activation::Relu => (to.zero, 255),
        Activation::Clip { min, max } if min <= max => (byte(min), byte(max)),
        _ => return None,
    };
    Some((*node.inputs.first()?, (min, max)))
}

#[cfg(test)]
mod tests;

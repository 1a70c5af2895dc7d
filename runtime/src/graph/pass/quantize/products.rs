//! 8-bit convolutions and matrix products.

use skipstone_kernels::activation::Activation;
use skipstone_kernels::qgemm::MAX_DEPTH;
use skipstone_kernels::requantize::Requantize;

use super::super::super::{Node, ValueId};
use super::constants::ByteWeights;
use super::{Fused, QuantizePass, QuantizedValue};
use crate::error::Result;
use crate::operator::Semantics;
use crate::ops::Op;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::matmul::MatMul;
use crate::ops::qconv::{QConv, QResult};
use crate::ops::quantized::Scheme;
use crate::ops::reshape::Reshape;
use crate::ops::roles::Roles;
use crate::ops::transpose::Transpose;
use crate::reserve;
use crate::tensor::{Shape, Tensor};

/// Bounds and scheme of a quantized result; `None` for floats.
type ResultScheme = Option<(Requantize, Scheme)>;

/// The operands of a product that can be computed in 8 bits.
struct ByteProduct {
    source: QuantizedValue,
    /// `[out, in / groups, rows, columns]`
    weights: Tensor,
    bias: Vec<i32>,
    /// The unit of each filter's sums.
    units: Vec<f32>,
}

impl QuantizePass<'_> {
    /// In the second walk: products whose floats are read directly.
    pub(super) fn rewrite_product(&mut self, node: Node) -> Result<()> {
        if matches!(node.op, Op::Conv(_) | Op::MatMul(_)) {
            let shape = self.graph.fact(node.outputs[0]).shape.clone();
            if let Some((op, inputs)) = self.product(&node, None, &shape)? {
                return self.place_unsigned(&node.name, (op, inputs), node.outputs[0]);
            }
        }
        self.place(node)
    }

    /// The product that ends in `root`, perhaps with a bias added and reshaped, in 8 bits.
    pub(super) fn product(&mut self, root: &Node, to: ResultScheme, shape: &Shape) -> Result<Option<Fused>> {
        match &root.op {
            Op::Conv(conv) => self.convolution(root, conv.clone(), to),
            _ => self.matmul(root, to, shape),
        }
    }

    fn convolution(&mut self, root: &Node, conv: Conv, to: ResultScheme) -> Result<Option<Fused>> {
        let &[x, weights, bias] = root.inputs.as_slice() else { return Ok(None) };
        if conv.activation != Activation::None || conv.roles != Roles::NONE {
            return Ok(None);
        }
        let Some(source) = self.dequantized(x)? else { return Ok(None) };
        let Some(weights) = self.weights(weights) else { return Ok(None) };
        let filters = weights.bytes.shape().first().copied().unwrap_or(0);
        let depth = weights.bytes.shape().iter().skip(1).product::<usize>();
        let Some(product) = self.operands(source, weights, Some(bias), filters, |at| at / depth.max(1)) else {
            return Ok(None);
        };
        self.fuse(&root.name, conv, product, to).map(Some)
    }

    /// `MatMul [-> Reshape] [-> Add(bias)] [-> Reshape]`
    fn matmul(&mut self, root: &Node, to: ResultScheme, shape: &Shape) -> Result<Option<Fused>> {
        let mut node = self.skip_reshapes(root);
        let mut bias = None;
        if let Op::Binary(Binary { kind: BinaryKind::Add, activation: Activation::None }) = node.op {
            let &[a, b] = node.inputs.as_slice() else { return Ok(None) };
            let behind = |id: ValueId| {
                let inner = self.skip_reshapes(self.inner(id)?);
                matches!(inner.op, Op::MatMul(_)).then_some(inner)
            };
            let found = behind(a).map(|node| (node, b)).or_else(|| behind(b).map(|node| (node, a)));
            let Some((product, other)) = found else { return Ok(None) };
            // One value per column: the bias has no other axis.
            let columns = self.graph.fact(node.outputs[0]).shape.last().copied();
            let own = &self.graph.fact(other).shape;
            if own.elements() != 1 && (own.last().copied() != columns || Some(own.elements()) != columns) {
                return Ok(None);
            }
            (node, bias) = (product, Some(other));
        }
        let Op::MatMul(MatMul { transposed, activation: Activation::None }) = node.op else { return Ok(None) };
        let &[x, weights] = node.inputs.as_slice() else { return Ok(None) };
        let name = node.name.clone();
        let Some(source) = self.dequantized(x)? else { return Ok(None) };
        let Some(mut weights) = self.weights(weights) else { return Ok(None) };
        let &[1, rows, columns] = weights.bytes.shape().dims() else { return Ok(None) };
        let (depth, filters) = if transposed { (columns, rows) } else { (rows, columns) };
        let filter = move |at: usize| if transposed { at / depth.max(1) } else { at % filters.max(1) };
        let at = |e: crate::OpError| e.at(&name);
        // As the kernels of a 1x1 convolution.
        let kernel = Shape::new(&[filters, depth, 1, 1]).map_err(at)?;
        if !transposed {
            let Some(transpose) = Transpose::new(&[0, 2, 1]) else { return Ok(None) };
            let turned = transpose.evaluate(&[&weights.bytes]).map_err(at)?.remove(0);
            let Some(scales) = weights.scales(filters, filter) else { return Ok(None) };
            weights = ByteWeights::of_filters(turned, &scales, depth).map_err(at)?;
        }
        weights.bytes = weights.bytes.reshaped(kernel).map_err(at)?;
        let Some(product) = self.operands(source, weights, bias, filters, |at| at / depth.max(1)) else {
            return Ok(None);
        };
        let rows = self.graph.fact(source.bytes).shape.elements() / depth.max(1);
        let image = Shape::new(&[1, rows, 1, depth]).map_err(at)?;
        let bytes = self.add(format!("{name}.rows"), Reshape { shape: image }, &[source.bytes])?;
        let product = ByteProduct { source: QuantizedValue { bytes, ..source }, ..product };
        let (op, inputs) = self.fuse(&name, Conv { layout: Layout::Nhwc, ..Conv::POINTWISE }, product, to)?;
        let rows = self.add(format!("{name}.product"), op, &inputs)?;
        Ok(Some((Reshape { shape: shape.clone() }.into(), vec![rows])))
    }

    /// The node itself, or the one before reshapes that have no other reader.
    fn skip_reshapes<'n>(&'n self, mut node: &'n Node) -> &'n Node {
        while let (Op::Reshape(_), Some(inner)) = (&node.op, node.inputs.first().and_then(|&x| self.inner(x))) {
            node = inner;
        }
        node
    }

    /// Checks that the weights and the bias are usable.
    fn operands(
        &self,
        source: QuantizedValue,
        weights: ByteWeights,
        bias: Option<ValueId>,
        filters: usize,
        filter: impl Fn(usize) -> usize,
    ) -> Option<ByteProduct> {
        let depth = weights.bytes.shape().iter().skip(1).product::<usize>();
        if depth > MAX_DEPTH {
            return None;
        }
        let scales = weights.scales(filters, filter)?;
        let units = reserve::list(scales.iter().map(|scale| source.scheme.scale * scale)).ok()?;
        let bias = match bias {
            Some(id) => self.bias(id, &units)?,
            None => reserve::copies(0, filters).ok()?,
        };
        Some(ByteProduct { source, weights: weights.bytes, bias, units })
    }

    fn fuse(&mut self, name: &str, conv: Conv, product: ByteProduct, to: ResultScheme) -> Result<Fused> {
        let ByteProduct { source, weights, bias, units } = product;
        let at = |e: crate::OpError| e.at(name);
        let (scales, result) = match to {
            Some((by, to)) => {
                let scales = reserve::list(units.iter().map(|unit| unit / to.scale))?;
                (scales, QResult::Bytes { by, table: None })
            }
            None => (units, QResult::Floats),
        };
        let count = [bias.len()];
        let bias = Tensor::from_slice(&count, &bias).map_err(at)?;
        let scales = Tensor::from_slice(&count, &scales).map_err(at)?;
        let inputs = vec![
            source.bytes,
            self.graph.add_constant(format!("{name}.weights"), weights)?,
            self.graph.add_constant(format!("{name}.bias"), bias)?,
            self.graph.add_constant(format!("{name}.scales"), scales)?,
        ];
        Ok((QConv { conv, zero: source.scheme.zero, result }.into(), inputs))
    }
}

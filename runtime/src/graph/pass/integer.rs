//! Integer products with a float result, as quantizers without calibration data write them.
//!
//! ```text
//! ConvInteger -> Cast(f32) -> Mul(scales) [-> Add(bias)]    =>    ConvInteger with a float result
//! ```
//!
//! The scales are the activations' times the weights'; they are computed at run time, as one value or one per filter.
//! When: the sums and the intermediate floats have no other reader, and scales and bias have no axis other than that of
//! the filters.

use std::collections::BTreeMap;

use super::super::{Graph, Node, Uses, ValueId};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::ops::cast::Cast;
use crate::ops::conv_integer::ConvInteger;
use crate::ops::image::Layout;
use crate::ops::reshape::Reshape;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses()?;
    let sums = |node: &Node| matches!(node.op, Op::ConvInteger(ConvInteger { floats: false, .. }));
    // For the last node of each tail, the product that replaces it: of two that meet there, the first.
    let mut fused: BTreeMap<usize, (usize, Tail)> = BTreeMap::new();
    for product in (0..graph.nodes.len()).filter(|&at| sums(&graph.nodes[at])) {
        if let Some(tail) = Tail::of(graph, &uses, product) {
            fused.entry(tail.last).or_insert((product, tail));
        }
    }
    let mut fusions = reserve::empty(fused.len())?;
    for (last, (product, tail)) in fused {
        fusions.push((last, fuse(graph, product, &tail)?));
    }
    let mut fusions = fusions.into_iter().peekable();
    for (index, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        match fusions.next_if(|(last, _)| *last == index) {
            Some((_, nodes)) => reserve::extend(&mut graph.nodes, nodes)?,
            None => reserve::push(&mut graph.nodes, node)?,
        }
    }
    super::dead::run(graph)
}

/// The operators after the sums of a product.
struct Tail {
    scales: ValueId,
    bias: Option<ValueId>,
    /// The last node.
    last: usize,
}

impl Tail {
    fn of(graph: &Graph, uses: &Uses, product: usize) -> Option<Self> {
        let node = graph.nodes.get(product)?;
        let cast = follow(graph, uses, node.outputs[0])?;
        if !matches!(graph.nodes[cast].op, Op::Cast(Cast { to: DType::F32 })) {
            return None;
        }
        let (scaled, scales) = with_operand(graph, uses, product, cast, BinaryKind::Mul)?;
        let biased = with_operand(graph, uses, product, scaled, BinaryKind::Add);
        Some(match biased {
            Some((last, bias)) => Self { scales, bias: Some(bias), last },
            None => Self { scales, bias: None, last: scaled },
        })
    }
}

/// The only reader of a value, looking through reshapes.
fn follow(graph: &Graph, uses: &Uses, mut id: ValueId) -> Option<usize> {
    loop {
        let reader = uses.only_reader(id)?;
        match graph.nodes.get(reader)? {
            Node { op: Op::Reshape(_), outputs, .. } => id = outputs[0],
            _ => return Some(reader),
        }
    }
}

/// The arithmetic after `node`, and its other operand, if it is one value or one per filter.
fn with_operand(graph: &Graph, uses: &Uses, product: usize, node: usize, kind: BinaryKind) -> Option<(usize, ValueId)> {
    let reader = follow(graph, uses, graph.nodes[node].outputs[0])?;
    let [a, b] = super::pattern::Pattern::operands(&graph.nodes[reader], kind)?;
    // The operand from the product is the one without another reader; the other has to match.
    let from_product = |id: ValueId| leads_to(graph, uses, id, node);
    let other = if from_product(a) { b } else { a };
    let result = graph.fact(graph.nodes[reader].outputs[0]);
    let fits = per_filter(graph, product, graph.fact(other), &result.shape);
    (fits && graph.fact(other).dtype == DType::F32).then_some((reader, other))
}

/// Whether `id` is the result of `node`, perhaps reshaped.
fn leads_to(graph: &Graph, uses: &Uses, mut id: ValueId, node: usize) -> bool {
    while let Some(writer) = uses.writer(id) {
        if writer == node {
            return true;
        }
        match &graph.nodes[writer] {
            Node { op: Op::Reshape(_), inputs, .. } => id = inputs[0],
            _ => return false,
        }
    }
    false
}

/// Whether an operand that is broadcast to `result`, the sums of `product` in some shape, has one value or one per
/// filter.
fn per_filter(graph: &Graph, product: usize, operand: &Fact, result: &Shape) -> bool {
    let node = &graph.nodes[product];
    let (Op::ConvInteger(op), sums) = (&node.op, &graph.fact(node.outputs[0]).shape) else { return false };
    let filters = graph.fact(node.inputs[1]).shape[0];
    if result.elements() != sums.elements() {
        return false;
    }
    let axis = match op.conv.layout {
        Layout::Nhwc => result.rank().checked_sub(1),
        // The axis after the batch axis, whose length must be unchanged.
        Layout::Nchw => (result.first() == sums.first()).then_some(1),
    };
    let Some(axis) = axis.filter(|&axis| result.get(axis) == Some(&filters)) else { return false };
    if operand.shape.elements() == 1 {
        return true;
    }
    // Broadcasting aligns the last axes.
    let own = (axis + operand.shape.rank()).checked_sub(result.rank());
    own.is_some_and(|own| operand.shape.iter().enumerate().all(|(i, &dim)| dim == if i == own { filters } else { 1 }))
}

/// The product with a float result, to replace the last node of its tail, where every operand is known.
fn fuse(graph: &mut Graph, product: usize, tail: &Tail) -> Result<Vec<Node>> {
    let Node { name, op, mut inputs, .. } = graph.nodes[product].copy()?;
    let Op::ConvInteger(ConvInteger { conv, .. }) = op else { return Ok(vec![graph.nodes[tail.last].copy()?]) };
    let result = graph.nodes[tail.last].outputs.clone();
    let shape = graph.fact(result[0]).shape.clone();
    inputs.push(tail.scales);
    inputs.push(match tail.bias {
        Some(bias) => bias,
        None => graph.add_constant(format!("{name}.bias"), Tensor::scalar(0f32))?,
    });
    let mut fused = graph.make_node(name.as_str(), ConvInteger { conv, floats: true }, &inputs)?;
    if graph.fact(fused.outputs[0]).shape == shape {
        fused.outputs = result;
        return Ok(vec![fused]);
    }
    let reshape = Node {
        name: format!("{name}.shape"),
        op: Reshape { shape }.into(),
        inputs: fused.outputs.clone(),
        outputs: result,
        blocks: Vec::new(),
    };
    Ok(vec![fused, reshape])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::operator::Operator;
    use crate::ops::binary::Binary;
    use crate::ops::check::{Random, assert_close, planned};
    use crate::ops::conv::Conv;
    use crate::ops::dynamic_quantize::DynamicQuantize;
    use skipstone_kernels::activation::Activation;

    /// A graph as a quantizer writes it; returns its operators after the passes.
    fn check(layout: Layout, image: [usize; 4], operand: &[usize], bias: bool) -> Vec<String> {
        let mut random = Random(31);
        let mut graph = Graph::new();
        let x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&image).unwrap())).unwrap();
        let channels = if layout == Layout::Nchw { image[1] } else { image[3] };
        let bytes = graph.add_node("dynamic", DynamicQuantize, &[x]).unwrap();
        let weights = graph.add_constant("weights", random.tensor(DType::I8, &[5, channels, 1, 1])).unwrap();
        let zeros = graph.add_constant("zeros", random.tensor(DType::I8, &[1])).unwrap();
        let op = ConvInteger { conv: Conv { layout, ..Conv::POINTWISE }, floats: false };
        let sums = graph.add_node("product", op, &[bytes[0], weights, bytes[2], zeros]).unwrap()[0];
        let floats = graph.add_node("cast", Cast { to: DType::F32 }, &[sums]).unwrap()[0];
        let kind = |kind| Binary { kind, activation: Activation::None };
        let scales = graph.add_constant("scales", random.floats(operand)).unwrap();
        let scales = graph.add_node("scales", kind(BinaryKind::Mul), &[bytes[1], scales]).unwrap()[0];
        let mut y = graph.add_node("scaled", kind(BinaryKind::Mul), &[floats, scales]).unwrap()[0];
        if bias {
            let bias = graph.add_constant("bias", random.floats(operand)).unwrap();
            y = graph.add_node("biased", kind(BinaryKind::Add), &[bias, y]).unwrap()[0];
        }
        graph.outputs.push(("y".into(), y));
        let inputs = [random.floats(&image)];
        let want = graph.evaluate(&inputs).unwrap();
        let mut fast = graph.copy().unwrap();
        crate::graph::optimize(&mut fast).unwrap();
        fast.check().unwrap();
        for isa in Isa::available() {
            assert_close(&planned(&graph, isa, &inputs).unwrap()[0], &want[0], 0.0, "fused");
        }
        let names = fast.nodes.iter().map(|node| node.op.name().to_owned());
        names.filter(|name| !["Reshape", "Transpose", "DynamicQuantize"].contains(&name.as_str())).collect()
    }

    #[test]
    fn scales_and_bias_belong_to_the_product() {
        for bias in [false, true] {
            for operand in [&[][..], &[1], &[5], &[1, 1, 1, 5]] {
                assert_eq!(check(Layout::Nhwc, [1, 7, 1, 6], operand, bias), ["Mul", "ConvInteger"], "{operand:?}");
            }
            for operand in [&[][..], &[5, 1, 1], &[1, 5, 1, 1]] {
                assert_eq!(check(Layout::Nchw, [2, 6, 4, 5], operand, bias), ["Mul", "ConvInteger"], "{operand:?}");
            }
        }
    }

    #[test]
    fn scales_of_another_axis_stay() {
        let stays = ["ConvInteger", "Cast", "Mul", "Mul"];
        let mut found = check(Layout::Nchw, [2, 6, 4, 5], &[5], false);
        found.sort_unstable();
        let mut stays = stays.to_vec();
        stays.sort_unstable();
        assert_eq!(found, stays);
    }
}

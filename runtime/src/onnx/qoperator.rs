//! Operators on quantised tensors, spelled out in ordinary ones.
//!
//! ```text
//! QLinearConv(x, .., w, .., y, .., b)
//!   =>
//! DequantizeLinear(x) \
//! DequantizeLinear(w)  > Conv -> QuantizeLinear(y)
//! DequantizeLinear(b) /
//! ```
//!
//! That is what they mean. ONNX Runtime's quantiser writes models in either form; after this, there is one, in which
//! the [passes](crate::graph) look for what can be computed in integers.

use std::collections::HashSet;

use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

/// Rewrites the graph of `model`, and the graphs inside it.
pub(super) fn spell_out(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    if !has_any(graph) {
        return;
    }
    let mut names = HashSet::new();
    collect_names(graph, &mut names);
    let mut fresh = Fresh { names, next: 0 };
    rewrite(graph, &mut fresh);
    if !model.opset_import.iter().any(|import| import.domain.is_empty() || import.domain == "ai.onnx") {
        model.opset_import.push(OperatorSetIdProto { domain: String::new(), version: 13 });
    }
}

/// Adds the nodes that a quantised operator stands for; `None` where it lacks an operand.
type Spell = fn(&mut Spelling<'_>) -> Option<()>;

/// The quantised operator, and how it is spelled out.
const OPERATORS: &[(&str, Spell)] = &[
    ("QLinearConv", convolution),
    ("QLinearMatMul", matmul),
    ("QGemm", gemm),
    ("QLinearAdd", |s| binary(s, "Add")),
    ("QLinearMul", |s| binary(s, "Mul")),
    ("QLinearAveragePool", |s| unary(s, "AveragePool")),
    ("QLinearGlobalAveragePool", |s| unary(s, "GlobalAveragePool")),
    ("QLinearSigmoid", |s| unary(s, "Sigmoid")),
    ("QLinearLeakyRelu", |s| unary(s, "LeakyRelu")),
    ("QLinearConcat", concat),
];

fn spelling(node: &NodeProto) -> Option<Spell> {
    OPERATORS.iter().find(|(name, _)| *name == node.op_type).map(|(_, spell)| *spell)
}

fn subgraphs(graph: &GraphProto) -> impl Iterator<Item = &GraphProto> {
    graph.node.iter().flat_map(|n| &n.attribute).flat_map(|a| a.g.iter().chain(&a.graphs))
}

fn has_any(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| spelling(node).is_some()) || subgraphs(graph).any(has_any)
}

fn collect_names(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.input.iter().chain(&graph.output).map(|value| value.name.clone()));
    names.extend(graph.initializer.iter().map(|tensor| tensor.name.clone()));
    names.extend(graph.node.iter().flat_map(|node| node.output.iter().chain([&node.name]).cloned()));
    subgraphs(graph).for_each(|inner| collect_names(inner, names));
}

fn rewrite(graph: &mut GraphProto, fresh: &mut Fresh) {
    for node in std::mem::take(&mut graph.node) {
        let mut spelled = Spelling { node: &node, nodes: Vec::new(), fresh };
        // An operator without the operands that it must have stays, and is refused as unknown.
        if spelling(&node).and_then(|spell| spell(&mut spelled)).is_some() {
            graph.node.append(&mut spelled.nodes);
            continue;
        }
        graph.node.push(node);
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(|inner| rewrite(inner, fresh));
    }
}

/// Names that the model does not have.
struct Fresh {
    names: HashSet<String>,
    next: usize,
}

impl Fresh {
    fn name(&mut self, base: &str) -> String {
        loop {
            let name = format!("{base}.q{}", self.next);
            self.next += 1;
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// A node that is being spelled out.
struct Spelling<'a> {
    node: &'a NodeProto,
    nodes: Vec<NodeProto>,
    fresh: &'a mut Fresh,
}

impl Spelling<'_> {
    /// Input `index`; none where it is left out.
    fn input(&self, index: usize) -> Option<&str> {
        self.node.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Adds a node with one result of its own, and answers its name.
    fn add(&mut self, op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh.name(self.node.output.first().map_or("", String::as_str));
        self.push(op_type, inputs, attributes, output.clone(), output.clone());
        output
    }

    fn push(&mut self, op_type: &str, inputs: &[&str], attribute: Vec<AttributeProto>, output: String, name: String) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output],
            name,
            op_type: op_type.to_owned(),
            attribute,
            ..NodeProto::default()
        });
    }

    /// The floats of the operand whose bytes, scale and zero point are the inputs from `first` on.
    fn dequantized(&mut self, first: usize, axis: i64) -> Option<String> {
        let (x, scale) = (self.input(first)?.to_owned(), self.input(first + 1)?.to_owned());
        let zero = self.input(first + 2).unwrap_or("").to_owned();
        Some(self.add("DequantizeLinear", &[&x, &scale, &zero], vec![int("axis", axis)]))
    }

    /// The floats of a bias in units of two scales.
    fn bias(&mut self, index: usize, scales: [usize; 2], alpha: Option<f32>, axis: i64) -> Option<String> {
        let bias = self.input(index)?.to_owned();
        let (a, b) = (self.input(scales[0])?.to_owned(), self.input(scales[1])?.to_owned());
        let mut scale = self.add("Mul", &[&a, &b], vec![]);
        if let Some(alpha) = alpha.filter(|&alpha| alpha != 1.0) {
            let alpha = self.add("Constant", &[], vec![float("value_float", alpha)]);
            scale = self.add("Mul", &[&scale, &alpha], vec![]);
        }
        Some(self.add("DequantizeLinear", &[&bias, &scale], vec![int("axis", axis)]))
    }

    /// Quantises `y`, by the scale and zero point in the inputs from `first` on, to the node's result.
    fn quantized(&mut self, y: &str, first: usize) -> Option<()> {
        let scale = self.input(first)?.to_owned();
        let zero = self.input(first + 1).unwrap_or("").to_owned();
        let output = self.node.output.first()?.clone();
        self.push("QuantizeLinear", &[y, &scale, &zero], vec![int("axis", 1)], output, self.node.name.clone());
        Some(())
    }

    /// The node's attributes but for those named.
    fn attributes(&self, without: &[&str]) -> Vec<AttributeProto> {
        self.node.attribute.iter().filter(|a| !without.contains(&a.name.as_str())).cloned().collect()
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == name)
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    let r#type = tract_onnx::pb::attribute_proto::AttributeType::Int as i32;
    AttributeProto { name: name.to_owned(), i: value, r#type, ..AttributeProto::default() }
}

fn float(name: &str, value: f32) -> AttributeProto {
    let r#type = tract_onnx::pb::attribute_proto::AttributeType::Float as i32;
    AttributeProto { name: name.to_owned(), f: value, r#type, ..AttributeProto::default() }
}

/// `x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias`
fn convolution(s: &mut Spelling<'_>) -> Option<()> {
    let (x, w) = (s.dequantized(0, 1)?, s.dequantized(3, 0)?);
    let bias = s.bias(8, [1, 4], None, 0);
    let inputs: Vec<&str> = [Some(&x), Some(&w), bias.as_ref()].into_iter().flatten().map(String::as_str).collect();
    let y = s.add("Conv", &inputs, s.attributes(&[]));
    s.quantized(&y, 6)
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero`
fn matmul(s: &mut Spelling<'_>) -> Option<()> {
    let (a, b) = (s.dequantized(0, -2)?, s.dequantized(3, -1)?);
    let y = s.add("MatMul", &[&a, &b], vec![]);
    s.quantized(&y, 6)
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero`: bias and the result's scale can be left out.
fn gemm(s: &mut Spelling<'_>) -> Option<()> {
    let transposed = s.attribute("transB").is_some_and(|a| a.i != 0);
    let alpha = s.attribute("alpha").map(|a| a.f);
    let (a, b) = (s.dequantized(0, 1)?, s.dequantized(3, if transposed { 0 } else { 1 })?);
    let bias = s.bias(6, [1, 4], alpha, -1);
    let inputs: Vec<&str> = [Some(&a), Some(&b), bias.as_ref()].into_iter().flatten().map(String::as_str).collect();
    if s.input(7).is_none() {
        let output = s.node.output.first()?.clone();
        s.push("Gemm", &inputs, s.attributes(&[]), output, s.node.name.clone());
        return Some(());
    }
    let y = s.add("Gemm", &inputs, s.attributes(&[]));
    s.quantized(&y, 7)
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero`
fn binary(s: &mut Spelling<'_>, op: &str) -> Option<()> {
    let (a, b) = (s.dequantized(0, 1)?, s.dequantized(3, 1)?);
    let y = s.add(op, &[&a, &b], vec![]);
    s.quantized(&y, 6)
}

/// `x, x_scale, x_zero, y_scale, y_zero`; channels lie before pixels.
fn unary(s: &mut Spelling<'_>, op: &str) -> Option<()> {
    if s.attribute("channels_last").is_some_and(|a| a.i != 0) {
        return None;
    }
    let x = s.dequantized(0, 1)?;
    let y = s.add(op, &[&x], s.attributes(&["channels_last"]));
    s.quantized(&y, 3)
}

/// `y_scale, y_zero`, then three inputs for each operand.
fn concat(s: &mut Spelling<'_>) -> Option<()> {
    let operands: Vec<String> =
        (2..s.node.input.len()).step_by(3).map(|first| s.dequantized(first, 1)).collect::<Option<_>>()?;
    let y = s.add("Concat", &operands.iter().map(String::as_str).collect::<Vec<_>>(), s.attributes(&[]));
    s.quantized(&y, 0)
}

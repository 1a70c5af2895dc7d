//! The quantised model: pairs of QuantizeLinear and DequantizeLinear behind tensors, weights as bytes.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::range::Scheme;
use super::select::{Selection, has_weights};
use crate::onnx::{attribute, float_tensor, floats, int, is, tensor};

/// Largest magnitude of a bias in units of its scale.
const MAX_BIAS: f32 = (1u32 << 30) as f32;

/// Rewrites the graph, and answers how many weights are bytes now.
pub(super) fn run(graph: &mut GraphProto, selection: &Selection, schemes: &[Scheme]) -> usize {
    let mut insert = Insert { selection, schemes, names: names(graph), made: HashMap::new(), tensors: Vec::new() };
    let mut nodes = Vec::with_capacity(graph.node.len() * 3);
    for name in graph.input.iter().map(|input| input.name.clone()).collect::<Vec<_>>() {
        insert.activation(&name, &mut nodes);
    }
    let held: HashMap<String, TensorProto> =
        std::mem::take(&mut graph.initializer).into_iter().map(|t| (t.name.clone(), t)).collect();
    let order: Vec<String> = held.keys().cloned().collect();
    let mut weights = 0;
    for mut node in std::mem::take(&mut graph.node) {
        let operand = node.input.first().and_then(|name| selection.root(name));
        if let Some(root) = operand.filter(|_| has_weights(&node)) {
            weights += usize::from(insert.weights(&mut node, schemes[root], &held, &mut nodes).is_some());
        }
        let outputs = node.output.clone();
        nodes.push(node);
        outputs.iter().for_each(|name| insert.activation(name, &mut nodes));
    }
    // Readers take the dequantised tensor; the pairs themselves read what they quantise.
    for node in nodes.iter_mut().filter(|node| !is(node, "QuantizeLinear")) {
        for input in &mut node.input {
            if let Some(dequantized) = insert.made.get(input) {
                input.clone_from(dequantized);
            }
        }
    }
    graph.node = nodes;
    let read: HashSet<&str> = graph.node.iter().flat_map(|n| &n.input).map(String::as_str).collect();
    let outputs: HashSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    let mut kept: Vec<TensorProto> = order
        .into_iter()
        .filter(|name| read.contains(name.as_str()) || outputs.contains(name.as_str()))
        .filter_map(|name| held.get(&name).cloned())
        .collect();
    kept.sort_by(|a, b| a.name.cmp(&b.name));
    graph.initializer = kept;
    graph.initializer.append(&mut insert.tensors);
    graph.value_info.clear();
    weights
}

fn names(graph: &GraphProto) -> HashSet<String> {
    let values = graph.input.iter().chain(&graph.output).map(|value| value.name.clone());
    let results = graph.node.iter().flat_map(|node| node.output.iter().cloned());
    values.chain(results).chain(graph.initializer.iter().map(|t| t.name.clone())).collect()
}

struct Insert<'a> {
    selection: &'a Selection,
    schemes: &'a [Scheme],
    names: HashSet<String>,
    /// Tensors with their dequantised form.
    made: HashMap<String, String>,
    /// New constants.
    tensors: Vec<TensorProto>,
}

impl Insert<'_> {
    /// A name that the model does not have.
    fn fresh(&mut self, base: &str, suffix: &str) -> String {
        let mut name = format!("{base}_{suffix}");
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    /// Quantises and dequantises the tensor `name`, if it becomes bytes.
    fn activation(&mut self, name: &str, nodes: &mut Vec<NodeProto>) {
        let Some(scheme) = self.selection.root(name).map(|root| self.schemes[root]) else { return };
        let (scale, zero) = (self.fresh(name, "scale"), self.fresh(name, "zero_point"));
        let (bytes, floats) = (self.fresh(name, "quantized"), self.fresh(name, "dequantized"));
        self.tensors.push(float_tensor(&scale, &[], &[scheme.scale]));
        self.tensors.push(tensor(&zero, &[], DataType::Uint8, vec![scheme.zero]));
        nodes.push(node("QuantizeLinear", [name, &scale, &zero], &bytes, None));
        nodes.push(node("DequantizeLinear", [&bytes, &scale, &zero], &floats, None));
        self.made.insert(name.to_owned(), floats);
    }

    /// Makes the weights and the bias of a node bytes and integers.
    fn weights(
        &mut self,
        target: &mut NodeProto,
        x: Scheme,
        held: &HashMap<String, TensorProto>,
        nodes: &mut Vec<NodeProto>,
    ) -> Option<()> {
        let weights = held.get(target.input.get(1)?)?;
        let values = floats(weights)?;
        let dims: Vec<usize> = weights.dims.iter().map(|&d| d as usize).collect();
        let transposed = attribute(target, "transB").is_some_and(|a| a.i != 0);
        let axis = if is(target, "Conv") || transposed { 0 } else { 1 };
        let (channels, inner) = (*dims.get(axis)?, dims[axis + 1..].iter().product::<usize>().max(1));
        let bias = match target.input.get(2).filter(|name| !name.is_empty()) {
            Some(name) => Some((name.clone(), floats(held.get(name)?)?)),
            None => None,
        };
        // One bias for each channel, or none that could be an integer.
        let bias = bias.filter(|(_, values)| values.len() == channels);

        let mut scales = vec![0f32; channels];
        for (i, value) in values.iter().enumerate() {
            let scale = &mut scales[i / inner % channels];
            *scale = scale.max(value.abs() / 127.0);
        }
        for (channel, scale) in scales.iter_mut().enumerate() {
            // So large that the bias is in the range of its integer.
            let least = bias.as_ref().map_or(0.0, |(_, bias)| bias[channel].abs() / (x.scale * MAX_BIAS));
            *scale = scale.max(least);
            if !scale.is_normal() || !(*scale * x.scale).is_normal() {
                *scale = 1.0;
            }
        }
        let byte = |(i, value): (usize, &f32)| {
            let scaled = (value / scales[i / inner % channels]).round_ties_even();
            (scaled.clamp(-127.0, 127.0) as i8).cast_unsigned()
        };
        let bytes: Vec<u8> = values.iter().enumerate().map(byte).collect();
        let name = target.input[1].clone();
        target.input[1] =
            self.constant(&name, &dims, DataType::Int8, bytes, &scales, vec![0; channels], axis as i64, nodes);
        if let Some((name, bias)) = bias {
            let units: Vec<f32> = scales.iter().map(|scale| scale * x.scale).collect();
            let integers = bias.iter().zip(&units).map(|(b, unit)| (b / unit).round_ties_even() as i32);
            let bytes = integers.flat_map(i32::to_le_bytes).collect();
            let zeros = vec![0; channels * size_of::<i32>()];
            target.input[2] = self.constant(&name, &[channels], DataType::Int32, bytes, &units, zeros, 0, nodes);
        }
        Some(())
    }

    /// A constant of integers with scales along an axis, and the node that dequantises it, whose result it answers.
    #[allow(clippy::too_many_arguments)]
    fn constant(
        &mut self,
        name: &str,
        dims: &[usize],
        data_type: DataType,
        bytes: Vec<u8>,
        scales: &[f32],
        zeros: Vec<u8>,
        axis: i64,
        nodes: &mut Vec<NodeProto>,
    ) -> String {
        let [bytes_name, scale, zero, floats] =
            ["quantized", "scale", "zero_point", "dequantized"].map(|suffix| self.fresh(name, suffix));
        self.tensors.push(tensor(&bytes_name, dims, data_type, bytes));
        self.tensors.push(float_tensor(&scale, &[scales.len()], scales));
        self.tensors.push(tensor(&zero, &[scales.len()], data_type, zeros));
        nodes.push(node("DequantizeLinear", [&bytes_name, &scale, &zero], &floats, Some(axis)));
        floats
    }
}

fn node(op_type: &str, inputs: [&str; 3], output: &str, axis: Option<i64>) -> NodeProto {
    NodeProto {
        name: output.to_owned(),
        op_type: op_type.to_owned(),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute: axis.map(|axis| int("axis", axis)).into_iter().collect(),
        ..NodeProto::default()
    }
}

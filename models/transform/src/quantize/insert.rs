//! Writes the quantized model: pairs of QuantizeLinear and DequantizeLinear after tensors, weights as int8.

use std::collections::{HashMap, HashSet};

use super::range::Scheme;
use super::select::{Selection, has_weights};
use crate::editor::{Attribute, Editor, INT8, INT32, Node, Tensor, UINT8};

/// Largest magnitude of a bias in units of its scale.
const MAX_BIAS: f32 = (1u32 << 30) as f32;

/// Rewrites the graph; returns the number of quantized weights.
pub(super) fn run(editor: &mut Editor, selection: &Selection, schemes: &[Scheme]) -> usize {
    let mut graph = std::mem::take(&mut editor.graph);
    let mut insert = Insert { editor, selection, schemes, made: HashMap::new(), tensors: Vec::new() };
    let mut nodes = Vec::with_capacity(graph.nodes.len() * 3);
    for input in &graph.inputs {
        insert.activation(&input.name, &mut nodes);
    }
    let held: HashMap<String, Tensor> =
        std::mem::take(&mut graph.initializers).into_iter().map(|t| (t.name.clone(), t)).collect();
    let order: Vec<String> = held.keys().cloned().collect();
    let mut weights = 0;
    for mut node in std::mem::take(&mut graph.nodes) {
        let operand = node.inputs.first().and_then(|name| selection.root(name));
        if let Some(root) = operand.filter(|_| has_weights(&node)) {
            weights += usize::from(insert.weights(&mut node, schemes[root], &held, &mut nodes).is_some());
        }
        let outputs = node.outputs.clone();
        nodes.push(node);
        outputs.iter().for_each(|name| insert.activation(name, &mut nodes));
    }
    // Readers take the dequantized tensor, except the pairs themselves.
    for node in nodes.iter_mut().filter(|node| !node.is("QuantizeLinear")) {
        for input in &mut node.inputs {
            if let Some(dequantized) = insert.made.get(input) {
                input.clone_from(dequantized);
            }
        }
    }
    graph.nodes = nodes;
    let read: HashSet<&str> = graph.nodes.iter().flat_map(|n| &n.inputs).map(String::as_str).collect();
    let outputs: HashSet<&str> = graph.outputs.iter().map(|o| o.name.as_str()).collect();
    let mut kept: Vec<Tensor> = order
        .into_iter()
        .filter(|name| read.contains(name.as_str()) || outputs.contains(name.as_str()))
        .filter_map(|name| held.get(&name).cloned())
        .collect();
    kept.sort_by(|a, b| a.name.cmp(&b.name));
    graph.initializers = kept;
    graph.initializers.append(&mut insert.tensors);
    graph.value_infos.clear();
    insert.editor.graph = graph;
    weights
}

struct Insert<'a> {
    editor: &'a mut Editor,
    selection: &'a Selection,
    schemes: &'a [Scheme],
    /// The dequantized version of each tensor.
    made: HashMap<String, String>,
    /// New constants.
    tensors: Vec<Tensor>,
}

impl Insert<'_> {
    /// Quantizes and dequantizes the tensor `name`, if it was selected.
    fn activation(&mut self, name: &str, nodes: &mut Vec<Node>) {
        let Some(scheme) = self.selection.root(name).map(|root| self.schemes[root]) else { return };
        let (scale, zero) = (self.editor.fresh(name, "scale"), self.editor.fresh(name, "zero_point"));
        let (bytes, floats) = (self.editor.fresh(name, "quantized"), self.editor.fresh(name, "dequantized"));
        self.tensors.push(Tensor::of_floats(&scale, &[], &[scheme.scale]));
        self.tensors.push(Tensor::new(&zero, &[], UINT8, &[scheme.zero]));
        nodes.push(Node::new("QuantizeLinear", &[name, &scale, &zero], &bytes, Vec::new()));
        nodes.push(Node::new("DequantizeLinear", &[&bytes, &scale, &zero], &floats, Vec::new()));
        self.made.insert(name.to_owned(), floats);
    }

    /// Quantizes the weights and the bias of a node.
    fn weights(
        &mut self,
        target: &mut Node,
        x: Scheme,
        held: &HashMap<String, Tensor>,
        nodes: &mut Vec<Node>,
    ) -> Option<()> {
        let weights = held.get(target.inputs.get(1)?)?;
        let values = weights.floats()?;
        let dims = weights.lengths();
        let transposed = target.attribute("transB").is_some_and(|a| a.int != 0);
        let axis = if target.is("Conv") || transposed { 0 } else { 1 };
        let (channels, inner) = (*dims.get(axis)?, dims[axis + 1..].iter().product::<usize>().max(1));
        let bias = match target.inputs.get(2).filter(|name| !name.is_empty()) {
            Some(name) => Some((name.clone(), held.get(name)?.floats()?)),
            None => None,
        };
        // One bias per channel; otherwise it stays float.
        let bias = bias.filter(|(_, values)| values.len() == channels);

        let mut scales = vec![0f32; channels];
        for (i, value) in values.iter().enumerate() {
            let scale = &mut scales[i / inner % channels];
            *scale = scale.max(value.abs() / 127.0);
        }
        for (channel, scale) in scales.iter_mut().enumerate() {
            // Large enough for the bias to fit its integer.
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
        let name = target.inputs[1].clone();
        target.inputs[1] = self.constant(&name, &dims, INT8, bytes, &scales, vec![0; channels], axis as i64, nodes);
        if let Some((name, bias)) = bias {
            let units: Vec<f32> = scales.iter().map(|scale| scale * x.scale).collect();
            let integers = bias.iter().zip(&units).map(|(b, unit)| (b / unit).round_ties_even() as i32);
            let bytes = integers.flat_map(i32::to_le_bytes).collect();
            let zeros = vec![0; channels * size_of::<i32>()];
            target.inputs[2] = self.constant(&name, &[channels], INT32, bytes, &units, zeros, 0, nodes);
        }
        Some(())
    }

    /// Adds an integer constant with scales along an axis, and the node that dequantizes it; returns that node's
    /// output.
    #[allow(clippy::too_many_arguments)]
    fn constant(
        &mut self,
        name: &str,
        dims: &[usize],
        data_type: i64,
        bytes: Vec<u8>,
        scales: &[f32],
        zeros: Vec<u8>,
        axis: i64,
        nodes: &mut Vec<Node>,
    ) -> String {
        let [bytes_name, scale, zero, floats] =
            ["quantized", "scale", "zero_point", "dequantized"].map(|suffix| self.editor.fresh(name, suffix));
        self.tensors.push(Tensor::new(&bytes_name, dims, data_type, &bytes));
        self.tensors.push(Tensor::of_floats(&scale, &[scales.len()], scales));
        self.tensors.push(Tensor::new(&zero, &[scales.len()], data_type, &zeros));
        let axis = vec![Attribute::of_int("axis", axis)];
        nodes.push(Node::new("DequantizeLinear", &[&bytes_name, &scale, &zero], &floats, axis));
        floats
    }
}

//! The model as quantisation wants it: constants in one place, normalisation in the weights.
//!
//! ```text
//! Constant -> w                    =>    initializer w
//! Conv(w, b) -> BatchNormalization =>    Conv(w', b')
//! ```

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use crate::onnx::{attribute, float_tensor, floats, is};

pub(super) fn run(graph: &mut GraphProto) {
    constants(graph);
    let mut index = 0;
    while index < graph.node.len() {
        if is(&graph.node[index], "BatchNormalization") && fold(graph, index).is_some() {
            continue;
        }
        index += 1;
    }
}

/// Constant nodes become initializers.
fn constants(graph: &mut GraphProto) {
    let nodes = std::mem::take(&mut graph.node);
    for node in nodes {
        let value = attribute(&node, "value").and_then(|a| a.t.clone()).filter(|_| is(&node, "Constant"));
        match (value, node.output.first()) {
            (Some(value), Some(name)) => graph.initializer.push(TensorProto { name: name.clone(), ..value }),
            _ => graph.node.push(node),
        }
    }
}

/// Folds the BatchNormalization at `index` into the convolution before it, and removes it.
fn fold(graph: &mut GraphProto, index: usize) -> Option<()> {
    let node = &graph.node[index];
    let [x, scale, shift, mean, variance] = node.input.as_slice() else { return None };
    let only_output = node.output.iter().filter(|name| !name.is_empty()).count() == 1;
    let readers = graph.node.iter().flat_map(|n| &n.input).filter(|name| *name == x).count();
    let is_output = graph.output.iter().any(|output| output.name == *x);
    let conv = graph.node.iter().position(|n| is(n, "Conv") && n.output.first() == Some(x))?;
    if !only_output || readers != 1 || is_output {
        return None;
    }
    let held: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let numbers = |name: &String| floats(held.get(name.as_str())?);
    let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(numbers);
    let (scale, shift, mean, variance) = (scale?, shift?, mean?, variance?);
    let epsilon = attribute(node, "epsilon").map_or(1e-5, |a| a.f);
    let weights = *held.get(graph.node[conv].input.get(1)?.as_str())?;
    let bias = match graph.node[conv].input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => numbers(name)?,
        None => vec![0.0; scale.len()],
    };
    let filters = scale.len();
    if [shift.len(), mean.len(), variance.len(), bias.len()] != [filters; 4]
        || weights.dims.first() != Some(&(filters as i64))
    {
        return None;
    }
    let factors: Vec<f32> = scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let mut numbers = floats(weights)?;
    let per_filter = numbers.len().checked_div(filters)?.max(1);
    numbers.iter_mut().enumerate().for_each(|(i, w)| *w *= factors[i / per_filter]);
    let bias: Vec<f32> = (0..filters).map(|f| (bias[f] - mean[f]) * factors[f] + shift[f]).collect();
    let dims: Vec<usize> = weights.dims.iter().map(|&d| d as usize).collect();

    let node: NodeProto = graph.node.remove(index);
    let conv = graph.node.iter_mut().find(|n| n.output.first() == Some(&node.input[0]))?;
    let name = node.output[0].clone();
    conv.output[0].clone_from(&name);
    let (weights, biases) = (format!("{name}.weights"), format!("{name}.bias"));
    conv.input.truncate(1);
    conv.input.extend([weights.clone(), biases.clone()]);
    graph.initializer.push(float_tensor(weights, &dims, &numbers));
    graph.initializer.push(float_tensor(biases, &[filters], &bias));
    Some(())
}

//! Normalizes a model for transformations: constants become initializers, BatchNormalization is folded into weights, and
//! what nothing reads is removed.
//!
//! ```text
//! Constant -> w                    =>    initializer w
//! Conv(w, b) -> BatchNormalization =>    Conv(w', b')
//! ```

use std::collections::HashSet;

use crate::editor::{Editor, Graph, Tensor};

/// Folds every BatchNormalization after a convolution into its weights, if they are stored as f32.
pub(crate) fn fold_normalization(editor: &mut Editor) {
    let mut index = 0;
    while index < editor.graph.nodes.len() {
        if editor.graph.nodes[index].is("BatchNormalization") && fold(editor, index).is_some() {
            continue;
        }
        index += 1;
    }
}

/// Constant nodes become initializers.
pub(crate) fn constants(graph: &mut Graph) {
    for node in std::mem::take(&mut graph.nodes) {
        let value = node.attribute("value").and_then(|a| a.tensor.clone()).filter(|_| node.is("Constant"));
        match (value, node.outputs.first()) {
            (Some(mut value), Some(name)) => {
                value.name.clone_from(name);
                graph.initializers.push(value);
            }
            _ => graph.nodes.push(node),
        }
    }
}

/// Removes nodes and constants that nothing reads.
pub(crate) fn remove_dead(graph: &mut Graph) {
    let mut live: HashSet<String> = graph.outputs.iter().map(|port| port.name.clone()).collect();
    let mut keep = vec![false; graph.nodes.len()];
    for (node, keep) in graph.nodes.iter().zip(&mut keep).rev() {
        *keep = node.outputs.iter().any(|name| live.contains(name));
        if *keep {
            node.for_each_read(&mut |name| {
                live.insert(name.to_owned());
            });
        }
    }
    let mut keep = keep.into_iter();
    graph.nodes.retain(|_| keep.next().unwrap_or(true));
    graph.initializers.retain(|tensor| live.contains(&tensor.name));
}

/// Folds the BatchNormalization at `index` into the convolution before it, and removes it.
fn fold(editor: &mut Editor, index: usize) -> Option<()> {
    let graph = &editor.graph;
    let node = &graph.nodes[index];
    let [x, scale, shift, mean, variance] = node.inputs.as_slice() else { return None };
    let only_output = node.outputs.iter().filter(|name| !name.is_empty()).count() == 1;
    let conv = graph.writer(x).filter(|&at| graph.nodes[at].is("Conv"))?;
    if !only_output || graph.readers(x) != 1 {
        return None;
    }
    let numbers = |name: &String| graph.initializer(name)?.floats();
    let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(numbers);
    let (scale, shift, mean, variance) = (scale?, shift?, mean?, variance?);
    let epsilon = node.attribute("epsilon").map_or(1e-5, |a| a.float);
    let weights = graph.initializer(graph.nodes[conv].inputs.get(1)?)?;
    let bias = match graph.nodes[conv].inputs.get(2).filter(|name| !name.is_empty()) {
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
    let mut numbers = weights.floats()?;
    let per_filter = numbers.len().checked_div(filters)?.max(1);
    numbers.iter_mut().enumerate().for_each(|(i, w)| *w *= factors[i / per_filter]);
    let bias: Vec<f32> = (0..filters).map(|f| (bias[f] - mean[f]) * factors[f] + shift[f]).collect();
    let dims = weights.lengths();

    let node = editor.graph.nodes.remove(index);
    let name = node.outputs[0].clone();
    let (weights, biases) = (editor.fresh(&name, "weights"), editor.fresh(&name, "bias"));
    let graph = &mut editor.graph;
    let conv = graph.writer(&node.inputs[0]).map(|at| &mut graph.nodes[at])?;
    conv.outputs[0].clone_from(&name);
    conv.inputs.truncate(1);
    conv.inputs.extend([weights.clone(), biases.clone()]);
    graph.initializers.push(Tensor::of_floats(weights, &dims, &numbers));
    graph.initializers.push(Tensor::of_floats(biases, &[filters], &bias));
    Some(())
}

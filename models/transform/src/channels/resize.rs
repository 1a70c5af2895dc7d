//! Removes channels from a file, or copies them: in the weights that write and read them, and in everything between.
//!
//! ```text
//! Conv [64, 3, 3, 3] -> BatchNormalization [64] -> Relu -> Conv [32, 64, 3, 3]
//!   =>
//! Conv [40, 3, 3, 3] -> BatchNormalization [40] -> Relu -> Conv [32, 40, 3, 3]
//! ```
//!
//! A removed channel may hold anything, because no layer has weights for it: a network without it gives the same
//! outputs as the whole one with zeros in the weights that read it. The copies of a channel hold what it holds, and the
//! layers that read them share its weights out among them. Whether the outputs are the same is tested on random inputs
//! before a model is returned.

use std::collections::HashSet;

use skipstone::measure::RandomInputs;
use skipstone::onnx::imported;
use skipstone::{Model, Options};

use super::network::{Copies, Kept, Network};
use crate::editor::{Attribute, Editor, Node, Tensor};
use crate::error::{Error, Result};

/// Largest difference between the outputs of the network and those that are wanted, as a share of the largest.
const TOLERANCE: f32 = 1e-3;
/// Seed of the random inputs.
const SEED: u64 = 11;

/// The model with zeros for the removed channels, in the weights that write them and in those that read them.
pub(crate) fn zeroed(network: &Network, copies: &Copies) -> Editor {
    let mut editor = network.editor.clone();
    for layer in &network.layers {
        let mut matrix = layer.matrix(&editor.graph);
        let written = network.elements(&layer.output);
        let read = network.elements(&layer.input);
        for (at, weight) in matrix.iter_mut().enumerate() {
            let (filter, depth) = (at / layer.width(), at % layer.width() / layer.taps);
            let of = |channels: &[usize], at: usize| channels.get(at).is_some_and(|&channel| copies.removes(channel));
            if of(&written, filter) || of(&read, layer.channel(filter, depth)) {
                *weight = 0.0;
            }
        }
        layer.set_matrix(&mut editor.graph, &matrix);
        let bias = layer.bias.and_then(|at| Some((at, editor.graph.initializers[at].numbers()?)));
        if let Some((at, mut bias)) = bias.filter(|(_, bias)| bias.len() == layer.filters)
            && editor.graph.readers(&editor.graph.initializers[at].name) == 1
        {
            bias.iter_mut()
                .zip(&written)
                .filter(|(_, channel)| copies.removes(**channel))
                .for_each(|(bias, _)| *bias = 0.0);
            editor.graph.initializers[at].set_numbers(&bias);
        }
    }
    editor
}

/// The model with channels removed or copied, which has to give the same outputs as `same`.
///
/// # Errors
/// A node whose channels cannot be removed or copied.
pub(crate) fn resized(network: &Network, copies: &Copies, same: &Editor, options: &Options) -> Result<Editor> {
    let mut cut = Cut { network, copies, editor: network.editor.clone(), casts: Vec::new() };
    for at in 0..cut.editor.graph.nodes.len() {
        cut.node(at)?;
    }
    let Cut { mut editor, casts, .. } = cut;
    let graph = &mut editor.graph;
    graph.nodes.splice(0..0, casts);
    graph.value_infos.clear();
    let read: HashSet<&str> = graph.nodes.iter().flat_map(|node| &node.inputs).map(String::as_str).collect();
    let outputs: HashSet<&str> = graph.outputs.iter().map(|port| port.name.as_str()).collect();
    let needed = |name: &str| read.contains(name) || outputs.contains(name);
    let needed: Vec<bool> = graph.initializers.iter().map(|tensor| needed(&tensor.name)).collect();
    let mut needed = needed.into_iter();
    graph.initializers.retain(|_| needed.next().unwrap_or(true));
    check_shapes(network, copies, &editor, options)?;
    check_answer(same, &editor, options)?;
    Ok(editor)
}

/// Checks that every tensor has exactly the channels that it should have.
fn check_shapes(network: &Network, copies: &Copies, editor: &Editor, options: &Options) -> Result<()> {
    let unlike =
        |why: String| Error::Unsupported(format!("the channels of this model cannot be removed or copied: {why}"));
    let after = imported(&editor.write(), &options.limits.file, &options.shapes).map_err(|e| unlike(e.to_string()))?;
    for name in network.tensors() {
        let Some(mut want) = network.shape(name) else { continue };
        if let Some(kept) = network.kept(name, copies) {
            want[kept.axis] = kept.indices.len();
        }
        let got = after.values.get(name).map(|id| after.graph.fact(*id).shape.dims());
        if got != Some(&want) {
            let node = network.editor.graph.writer(name).map(|at| network.editor.graph.nodes[at].label());
            let node = node.unwrap_or_default();
            return Err(unlike(format!("{node} ({name}) would have the shape {got:?} instead of {want:?}")));
        }
    }
    Ok(())
}

/// Checks that the outputs are those of `same`.
fn check_answer(same: &Editor, editor: &Editor, options: &Options) -> Result<()> {
    let answers = |editor: &Editor| -> Result<Vec<f32>> {
        let model = Model::from_bytes(&editor.write(), options)?;
        let mut session = model.session()?;
        session.run(&RandomInputs::new(model.inputs(), SEED)?.views())?;
        let outputs =
            (0..model.outputs().len()).filter_map(|at| session.output(at)?.elements::<f32>().map(<[f32]>::to_vec));
        Ok(outputs.flatten().collect())
    };
    let (want, got) = (answers(same)?, answers(editor)?);
    let largest = want.iter().fold(0f32, |most, value| most.max(value.abs()));
    let apart = want.iter().zip(&got).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    if want.len() != got.len() || apart.is_nan() || apart > TOLERANCE * largest + f32::MIN_POSITIVE {
        let reason = format!(
            "the outputs would differ by {apart} of at most {largest}: the channels of this model are not understood"
        );
        return Err(Error::Unsupported(reason));
    }
    Ok(())
}

/// A model whose channels are removed or copied, node by node.
struct Cut<'a> {
    network: &'a Network,
    copies: &'a Copies,
    editor: Editor,
    /// New casts of constants that are stored as f16.
    casts: Vec<Node>,
}

impl Cut<'_> {
    fn kept(&self, name: &str) -> Option<Kept> {
        self.network.kept(name, self.copies)
    }

    /// Removes or copies channels in the constants of a node.
    fn node(&mut self, at: usize) -> Result<()> {
        let node = self.editor.graph.nodes[at].clone();
        let read = node.inputs.first().and_then(|name| self.kept(name));
        if let Some(layer) = self.network.layers.iter().find(|layer| layer.node == at) {
            let written = self.kept(&layer.output);
            if let (Some(read), 1) = (&read, layer.groups) {
                self.operand(at, 1, layer.axes[1], &read.indices)?;
                self.share_out(at, layer.axes[1], &read.shares);
            }
            if let Some(written) = &written {
                self.operand(at, 1, layer.axes[0], &written.indices)?;
                if let Some(bias) = layer.bias.map(|bias| self.editor.graph.initializers[bias].dims.len()) {
                    self.operand(at, 2, bias.saturating_sub(1), &written.indices)?;
                }
            }
            if let (Some(read), true) = (&read, layer.groups > 1) {
                let group = Attribute::of_int("group", (read.indices.len() / layer.depth) as i64);
                self.editor.graph.nodes[at].set_attribute(group);
            }
            return Ok(());
        }
        let written = node.outputs.first().and_then(|name| self.kept(name));
        match node.op_type.as_str() {
            "BatchNormalization" | "InstanceNormalization" => {
                let Some(kept) = written else { return Ok(()) };
                (1..node.inputs.len()).try_for_each(|operand| self.operand(at, operand, 0, &kept.indices))
            }
            "Reshape" | "Expand" => match written {
                Some(kept) => self.length(at, 1, &node.outputs[0], &kept),
                None => Ok(()),
            },
            "Resize" => match written {
                Some(kept) => self.length(at, 3, &node.outputs[0], &kept),
                None => Ok(()),
            },
            "Split" => self.split(at, &node),
            "Slice" => match (read, written) {
                (Some(read), written) => self.slice(at, &node, &read, written.as_ref()),
                (None, _) => Ok(()),
            },
            _ => match written {
                Some(kept) => self.broadcast(at, &node, &kept),
                None => Ok(()),
            },
        }
    }

    /// Constants that are broadcast to the result.
    fn broadcast(&mut self, at: usize, node: &Node, kept: &Kept) -> Result<()> {
        let Some(rank) = self.network.shape(&node.outputs[0]).map(|shape| shape.len()) else { return Ok(()) };
        for (operand, name) in node.inputs.iter().enumerate() {
            let Some(stored) = self.editor.graph.stored(name) else { continue };
            let lengths = self.editor.graph.initializers[stored].lengths();
            let axis = (kept.axis + lengths.len()).checked_sub(rank);
            if let Some(axis) = axis.filter(|&axis| lengths.get(axis) == Some(&kept.of) && kept.of > 1) {
                self.operand(at, operand, axis, &kept.indices)?;
            }
        }
        Ok(())
    }

    /// The length of the axis in a constant shape operand.
    fn length(&mut self, at: usize, operand: usize, output: &str, kept: &Kept) -> Result<()> {
        let Some(mut shape) = self.ints(at, operand) else { return Ok(()) };
        let rank = self.network.shape(output).map_or(shape.len(), |shape| shape.len());
        let Some(axis) = (kept.axis + shape.len()).checked_sub(rank) else { return Ok(()) };
        match shape.get_mut(axis) {
            Some(length) if *length == kept.of as i64 => *length = kept.indices.len() as i64,
            _ => return Ok(()),
        }
        self.set_ints(at, operand, &shape);
        Ok(())
    }

    /// The lengths of a Split's parts.
    fn split(&mut self, at: usize, node: &Node) -> Result<()> {
        let all: Vec<Option<Kept>> = node.outputs.iter().map(|name| self.kept(name)).collect();
        let axis = node.attribute("axis").map_or(0, |a| a.int);
        let shape = |name: &String| self.network.shape(name).unwrap_or_default();
        let along = |kept: &Kept, name: &String| {
            let rank = shape(name).len() as i64;
            kept.axis as i64 == if axis < 0 { axis + rank } else { axis }
        };
        if !all.iter().zip(&node.outputs).any(|(kept, name)| kept.as_ref().is_some_and(|kept| along(kept, name))) {
            return Ok(());
        }
        let length = |(kept, name): (&Option<Kept>, &String)| match kept {
            Some(kept) => kept.indices.len() as i64,
            None => {
                let shape = shape(name);
                let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
                usize::try_from(axis).ok().and_then(|axis| shape.get(axis).copied()).unwrap_or(0) as i64
            }
        };
        let lengths: Vec<i64> = all.iter().zip(&node.outputs).map(length).collect();
        if self.editor.opset >= 13 {
            self.editor.graph.nodes[at].attributes.retain(|attribute| attribute.name != "num_outputs");
            self.set_ints(at, 1, &lengths);
        } else {
            self.editor.graph.nodes[at].set_attribute(Attribute::of_ints("split", &lengths));
        }
        Ok(())
    }

    /// Start and end of a Slice along the followed axis.
    fn slice(&mut self, at: usize, node: &Node, read: &Kept, written: Option<&Kept>) -> Result<()> {
        let rank = self.network.shape(&node.inputs[0]).map_or(0, |shape| shape.len()) as i64;
        let (Some(mut starts), Some(mut ends)) = (self.ints(at, 1), self.ints(at, 2)) else { return Ok(()) };
        let axes = self.ints(at, 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
        let whole = |axis: &i64| if *axis < 0 { axis + rank } else { *axis };
        let Some(place) = axes.iter().position(|axis| whole(axis) == read.axis as i64) else { return Ok(()) };
        if self.ints(at, 4).is_some_and(|steps| steps[place] != 1) {
            return Err(Error::Unsupported(format!(
                "{}: a Slice with steps over channels is not supported",
                node.label()
            )));
        }
        let of = read.of as i64;
        let start = if starts[place] < 0 { starts[place] + of } else { starts[place] }.clamp(0, of);
        let first = read.indices.iter().filter(|&&index| (index as i64) < start).count();
        let count = match written {
            Some(written) => written.indices.len(),
            None => self.network.shape(&node.outputs[0]).and_then(|shape| shape.get(read.axis).copied()).unwrap_or(0),
        };
        (starts[place], ends[place]) = (first as i64, (first + count) as i64);
        self.set_ints(at, 1, &starts);
        self.set_ints(at, 2, &ends);
        Ok(())
    }

    /// The integers of a constant operand.
    fn ints(&self, at: usize, operand: usize) -> Option<Vec<i64>> {
        let graph = &self.editor.graph;
        graph.initializer(graph.nodes[at].inputs.get(operand)?)?.ints()
    }

    /// Gives a node its own constant operand.
    fn set_ints(&mut self, at: usize, operand: usize, values: &[i64]) {
        let output = self.editor.graph.nodes[at].outputs[0].clone();
        let name = self.editor.fresh(&output, "lengths");
        self.editor.graph.initializers.push(Tensor::of_ints(&name, &[values.len()], values));
        let inputs = &mut self.editor.graph.nodes[at].inputs;
        inputs.resize(inputs.len().max(operand + 1), String::new());
        inputs[operand] = name;
    }

    /// Multiplies a layer's own weights by the share of each element that they read.
    fn share_out(&mut self, at: usize, axis: usize, shares: &[f32]) {
        let graph = &mut self.editor.graph;
        if shares.iter().any(|&share| share != 1.0)
            && let Some(stored) = graph.stored(&graph.nodes[at].inputs[1])
        {
            graph.initializers[stored].scale(axis, shares);
        }
    }

    /// Takes these indices of an axis of a constant operand, in this order. Other readers of the constant keep the original.
    fn operand(&mut self, at: usize, operand: usize, axis: usize, indices: &[usize]) -> Result<()> {
        let graph = &self.editor.graph;
        let label = graph.nodes[at].label();
        let unlike =
            || Error::Unsupported(format!("{label}: the channels of its constants cannot be removed or copied"));
        let Some(name) = graph.nodes[at].inputs.get(operand).cloned().filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        let stored = graph.stored(&name).ok_or_else(unlike)?;
        let tensor = &graph.initializers[stored];
        let mut cut = tensor.take(axis, indices).ok_or_else(unlike)?;
        if graph.readers(&name) == 1 && graph.readers(&tensor.name) == 1 {
            self.editor.graph.initializers[stored] = cut;
            return Ok(());
        }
        let cast = graph.writer(&name).map(|at| graph.nodes[at].clone());
        let own = self.editor.fresh(&name, "cut");
        cut.name.clone_from(&own);
        let read = match cast {
            Some(mut cast) => {
                let result = self.editor.fresh(&name, "cut_cast");
                (cast.inputs, cast.outputs, cast.name) = (vec![own], vec![result.clone()], result.clone());
                self.casts.push(cast);
                result
            }
            None => own,
        };
        self.editor.graph.initializers.push(cut);
        self.editor.graph.nodes[at].inputs[operand] = read;
        Ok(())
    }
}

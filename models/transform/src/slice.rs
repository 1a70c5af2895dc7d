//! A part of a network as a network of its own: the child of a supernet, or a model without some of its layers.
//!
//! | part | what is left | source |
//! |---|---|---|
//! | width | the first channels of every family | J. Yu et al., "Slimmable Neural Networks", 2019 |
//! | kernel | the middle of larger kernels | H. Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", 2020 |
//! | depth | everything but named residual blocks or layers | A. Ashok et al., "N2N Learning: Network to Network Compression via Policy Gradient Reinforcement Learning", 2018 |
//! | resolution | the network for smaller images | "Once-for-All" |
//!
//! Supernets are trained so that their parts work as they are; other networks have to be trained further.

use std::collections::HashSet;

use skipstone::onnx::{Imported, imported};
use skipstone::{Model, Options};

use crate::channels::{Network, resized, zeroed};
use crate::editor::{Attribute, Editor, Graph};
use crate::error::{Error, Result};
use crate::layers::Layer;
use crate::prepare;

/// The part to take; everything else stays.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// The share of the channels to keep, from 0 to 1.
    pub width: Option<f64>,
    /// Largest number of rows and columns of a kernel.
    pub kernel: Option<usize>,
    /// Names of nodes to leave out: a sum, whose shorter operand then stands for it, or a node that keeps the shape of its
    /// input.
    pub drop: Vec<String>,
    /// Rows and columns of the input image.
    pub size: Option<[usize; 2]>,
    /// Names of layers that keep their channels and kernels.
    pub skip: Vec<String>,
}

/// Channels are kept in multiples of this where there are at least twice as many, since kernels take four or more at once.
const MULTIPLE: usize = 4;

/// Takes a part of the model in `bytes`, an ONNX file.
///
/// # Errors
/// A model that is malformed; a part that it does not have; a result that cannot be loaded.
pub fn slice(bytes: &[u8], part: &Slice, options: &Options) -> Result<Vec<u8>> {
    if part.kernel == Some(0) {
        return Err(Error::Unsupported("a kernel has at least one row and column".into()));
    }
    let mut editor = Editor::open(bytes)?;
    prepare::constants(&mut editor.graph);
    if let Some(size) = part.size {
        resize_input(&mut editor, size, options)?;
    }
    if !part.drop.is_empty() {
        let known = known(&editor, options)?;
        part.drop.iter().try_for_each(|name| drop_node(&mut editor.graph, name, &known))?;
        prepare::remove_dead(&mut editor.graph);
    }
    if let Some(side) = part.kernel {
        crop_kernels(&mut editor.graph, side, &part.skip)?;
    }
    // What was known of shapes may be wrong now.
    editor.graph.value_infos.clear();
    if let Some(share) = part.width {
        editor = narrow(editor, share, &part.skip, options)?;
    }
    if part.size.is_some() {
        let known = known(&editor, options)?;
        for port in &mut editor.graph.outputs {
            port.set_dims(&shape(&known, &port.name).unwrap_or_default())?;
        }
    }
    let sliced = editor.write();
    Model::from_bytes(&sliced, options)?;
    Ok(sliced)
}

fn known(editor: &Editor, options: &Options) -> Result<Imported> {
    Ok(imported(&editor.write(), &options.limits.file, &options.shapes)?)
}

fn shape(known: &Imported, name: &str) -> Option<Vec<usize>> {
    known.values.get(name).map(|&id| known.graph.fact(id).shape.dims().to_vec())
}

/// Declares images of this size, and how pictures are resized and cropped to it.
fn resize_input(editor: &mut Editor, [rows, columns]: [usize; 2], options: &Options) -> Result<()> {
    let known = known(editor, options)?;
    // The share of a picture that is cropped stays; a crop is a square.
    let mut metadata = editor.take_metadata()?;
    let side = |key: &str| metadata.iter().find(|(held, _)| held == key).and_then(|(_, side)| side.parse::<f64>().ok());
    let share = side("skipstone.resize").zip(side("skipstone.crop")).map(|(resize, crop)| resize / crop);
    metadata.retain_mut(|(key, value)| match key.as_str() {
        "skipstone.crop" => {
            *value = rows.to_string();
            rows == columns
        }
        "skipstone.resize" => {
            *value = (rows as f64 * share.unwrap_or(1.0)).round().to_string();
            rows == columns && share.is_some()
        }
        _ => true,
    });
    editor.add_metadata(&metadata);
    let graph = &mut editor.graph;
    let held: HashSet<&str> = graph.initializers.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut inputs: Vec<_> = graph.inputs.iter_mut().filter(|port| !held.contains(port.name.as_str())).collect();
    let [input] = inputs.as_mut_slice() else {
        return Err(Error::Unsupported(format!(
            "the model has {} inputs; a size needs a model with one",
            inputs.len()
        )));
    };
    match shape(&known, &input.name).as_deref() {
        Some(&[batch, channels, _, _]) => input.set_dims(&[batch, channels, rows, columns])?,
        other => {
            let reason = format!("input '{}' of shape {} is no image", input.name, listed(other.unwrap_or_default()));
            return Err(Error::Unsupported(reason));
        }
    }
    graph.value_infos.clear();
    graph.outputs.iter_mut().try_for_each(|port| port.clear_dims())
}

/// Lets what a node reads stand for what it writes.
fn drop_node(graph: &mut Graph, name: &str, known: &Imported) -> Result<()> {
    let at = graph.nodes.iter().position(|node| node.label() == name);
    let at = at.ok_or_else(|| Error::Unsupported(format!("the model has no node '{name}' to leave out")))?;
    let node = graph.nodes[at].clone();
    let unlike = |reason: &str| Err(Error::Unsupported(format!("{name} cannot be left out: {reason}")));
    let [output] = node.outputs.as_slice() else { return unlike("it has several results") };
    let reads: Vec<&String> = node.inputs.iter().filter(|input| graph.stored(input).is_none()).collect();
    let kept = match reads.as_slice() {
        [one] => (*one).clone(),
        // Of a residual sum, the operand that the other is computed from.
        [a, b] if node.is("Add") && depends(graph, b, a) => (*a).clone(),
        [a, b] if node.is("Add") && depends(graph, a, b) => (*b).clone(),
        _ => return unlike("it is neither a residual sum nor a node with one input"),
    };
    if shape(known, &kept) != shape(known, output) {
        return unlike("its result has another shape than what it reads");
    }
    if graph.outputs.iter().any(|port| port.name == *output) {
        return unlike("it writes an output of the model");
    }
    graph.nodes.remove(at);
    for input in graph.nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|input| *input == output) {
        input.clone_from(&kept);
    }
    Ok(())
}

/// Whether value `of` is computed from value `on`.
fn depends(graph: &Graph, of: &str, on: &str) -> bool {
    let (mut open, mut seen) = (vec![of.to_owned()], HashSet::new());
    while let Some(name) = open.pop() {
        if name == on {
            return true;
        }
        if seen.insert(name.clone())
            && let Some(at) = graph.writer(&name)
        {
            open.extend(graph.nodes[at].inputs.iter().cloned());
        }
    }
    false
}

/// Crops the kernels of convolutions to their middle, at most `side` rows and columns.
fn crop_kernels(graph: &mut Graph, side: usize, skip: &[String]) -> Result<()> {
    let mut layers = Layer::all(graph);
    layers.retain(|layer| layer.is_convolution(graph) && !skip.contains(&layer.name));
    for layer in layers {
        let lengths = graph.initializers[layer.weights].lengths();
        let cuts: Vec<usize> = lengths[2..].iter().map(|&length| length.saturating_sub(side)).collect();
        if cuts.iter().all(|&cut| cut == 0) {
            continue;
        }
        let unlike =
            |reason: &str| Error::Unsupported(format!("{}: its kernel cannot be cropped: {reason}", layer.name));
        if cuts.iter().any(|cut| cut % 2 == 1) {
            return Err(unlike("its middle does not lie between whole rows and columns"));
        }
        let node = &mut graph.nodes[layer.node];
        let ints = |name: &str, default: i64, len: usize| {
            node.attribute(name).map_or(vec![default; len], |attribute| attribute.ints.clone())
        };
        let (mut pads, dilations) = (ints("pads", 0, 2 * cuts.len()), ints("dilations", 1, cuts.len()));
        let automatic = node.attribute("auto_pad").is_some_and(|attribute| attribute.text.starts_with(b"SAME"));
        for (axis, &cut) in cuts.iter().enumerate() {
            for at in [axis, axis + cuts.len()] {
                pads[at] -= (cut / 2) as i64 * dilations[axis];
            }
        }
        if !automatic && pads.iter().any(|&pad| pad < 0) {
            return Err(unlike("it is padded by less than would be cut"));
        }
        let kernel: Vec<i64> = lengths[2..].iter().zip(&cuts).map(|(&length, &cut)| (length - cut) as i64).collect();
        if !automatic {
            node.set_attribute(Attribute::of_ints("pads", &pads));
        }
        node.set_attribute(Attribute::of_ints("kernel_shape", &kernel));
        for (axis, &cut) in cuts.iter().enumerate() {
            let middle: Vec<usize> = (cut / 2..lengths[2 + axis] - cut / 2).collect();
            let tensor = &mut graph.initializers[layer.weights];
            *tensor = tensor.take(2 + axis, &middle).ok_or_else(|| unlike("its weights have another type"))?;
        }
    }
    Ok(())
}

/// Keeps the first channels of every family.
fn narrow(editor: Editor, share: f64, skip: &[String], options: &Options) -> Result<Editor> {
    if !(share > 0.0 && share <= 1.0) {
        return Err(Error::Unsupported("the share of the channels to keep must be above 0 and at most 1".into()));
    }
    let network = Network::new(editor, skip, options)?;
    let mut copies = network.all_stay();
    for family in &network.families {
        let held = family.channels.len();
        let multiple = if family.wide || held < 2 * MULTIPLE { 1 } else { MULTIPLE };
        let kept = ((held as f64 * share / multiple as f64).round() as usize).max(1) * multiple;
        family.channels.iter().skip(kept).for_each(|&channel| copies.0[channel].clear());
    }
    resized(&network, &copies, &zeroed(&network, &copies), options)
}

/// `1x3x32x32`
fn listed(dims: &[usize]) -> String {
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

//! Families of channels in a model, and the layers that write and read them.
//!
//! Families follow from the runtime's operators: the model is imported, and its [`Channels`] say which elements of
//! which tensors are one channel, through normalization, depthwise convolutions, sums, concatenations, gates and
//! reshapes. The channels of a residual stage form one family; an attention head is one channel.

use std::collections::{BTreeMap, BTreeSet};

use skipstone::Options;
use skipstone::graph::{Channels, Track};
use skipstone::onnx::{Imported, imported};

use crate::blocks::Block;
use crate::cuts::{Cut, cuts};
use crate::editor::{Editor, Node};
use crate::error::{Error, Result};
use crate::layers::Layer;

/// A model with its channels.
pub(crate) struct Network {
    pub editor: Editor,
    pub layers: Vec<Layer>,
    imported: Imported,
    channels: Channels,
    /// For each layer: the channel of every element that it reads and writes along the followed axis, and the number of
    /// elements that it writes per filter.
    sides: Vec<([Vec<usize>; 2], usize)>,
    pub families: Vec<Family>,
}

/// Channels written by the same layers: the choice of which to remove, or to copy, is among them.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    /// Positions of the layers that write them.
    pub writers: Vec<usize>,
    /// The channels, in the order of the first writer.
    pub channels: Vec<usize>,
    /// Whether a channel is more than one filter of a layer, such as an attention head.
    pub wide: bool,
}

/// What becomes of every channel, by number: the shares of its weights that its copies get in the layers that read it. Without
/// a share the channel is removed, with the single share 1 it stays as it is; shares add up to 1.
#[derive(Clone, Debug)]
pub(crate) struct Copies(pub Vec<Vec<f32>>);

impl Copies {
    /// Whether a channel is removed.
    pub fn removes(&self, channel: usize) -> bool {
        self.0[channel].is_empty()
    }
}

/// A tensor's elements along an axis after some channels are removed or copied.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub axis: usize,
    /// Length of the axis before.
    pub of: usize,
    /// Indices before, one for each element after.
    pub indices: Vec<usize>,
    /// The share of each element after.
    pub shares: Vec<f32>,
}

impl Network {
    /// Analyzes a model whose constants are initializers.
    pub fn new(editor: Editor, skip: &[String], options: &Options) -> Result<Self> {
        let imported = imported(&editor.write(), &options.limits.file, &options.shapes)?;
        let channels = Channels::new(&imported.graph, 0)?;
        let layers = Layer::all(&editor.graph);
        if let Some(name) = skip.iter().find(|name| !layers.iter().any(|layer| layer.name == **name)) {
            return Err(Error::Unsupported(format!("the model has no layer '{name}' to skip")));
        }
        let mut network = Self { editor, layers, imported, channels, sides: Vec::new(), families: Vec::new() };
        let side = |layer: &Layer| {
            let elements: usize = network.shape(&layer.output).map_or(0, |shape| shape.iter().product());
            ([network.elements(&layer.output), network.elements(&layer.input)], elements / layer.filters)
        };
        network.sides = network.layers.iter().map(side).collect();
        network.families = network.find_families(skip);
        if network.families.is_empty() {
            let reason =
                "the model has no channels to remove or to copy: those that a layer writes and only layers read";
            return Err(Error::Unsupported(reason.into()));
        }
        Ok(network)
    }

    fn find_families(&self, skip: &[String]) -> Vec<Family> {
        // Layers that share their weights, or store them in another type, are not pruned.
        let graph = &self.editor.graph;
        let known: BTreeSet<usize> = self.layers.iter().map(|layer| layer.node).collect();
        let mut fixed = BTreeSet::new();
        for (at, node) in graph.nodes.iter().enumerate() {
            let has_weights = node.inputs.get(1).is_some_and(|name| graph.stored(name).is_some());
            let multiplies = ["Conv", "Gemm", "MatMul", "ConvTranspose"].iter().any(|op| node.is(op));
            if multiplies && has_weights && !known.contains(&at) {
                let tensors = node.inputs.iter().take(1).chain(&node.outputs);
                tensors.for_each(|name| fixed.extend(self.elements(name)));
            }
        }
        for layer in self.layers.iter().filter(|layer| skip.contains(&layer.name)) {
            fixed.extend(self.elements(&layer.output));
        }
        let mut read = BTreeSet::new();
        for layer in self.layers.iter().filter(|layer| layer.groups == 1) {
            read.extend(self.elements(&layer.input));
        }
        // Writers by channel, in order, with the number of filters of each.
        let mut written: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
        for (at, layer) in self.layers.iter().enumerate().filter(|(_, layer)| layer.groups == 1) {
            for channel in self.elements(&layer.output) {
                *written.entry(channel).or_default().entry(at).or_default() += 1;
            }
        }
        let mut families: BTreeMap<Vec<usize>, Family> = BTreeMap::new();
        for (at, layer) in self.layers.iter().enumerate() {
            for channel in self.elements(&layer.output) {
                let Some(writers) = written.get(&channel).filter(|writers| writers.keys().next() == Some(&at)) else {
                    continue;
                };
                if fixed.contains(&channel) || !read.contains(&channel) || self.channels.is_bound(channel) {
                    continue;
                }
                let key: Vec<usize> = writers.keys().copied().collect();
                let empty = || Family { writers: key.clone(), channels: Vec::new(), wide: false };
                let family = families.entry(key.clone()).or_insert_with(empty);
                family.wide |= writers.values().any(|&count| count > 1);
                if !family.channels.contains(&channel) {
                    family.channels.push(channel);
                }
            }
        }
        families.into_values().filter(|family| family.channels.len() > 1).collect()
    }

    /// The axis of a tensor that channels are followed along.
    fn track(&self, name: &str) -> Option<Track> {
        self.channels.track(*self.imported.values.get(name)?)
    }

    /// The channel of every element along that axis.
    pub fn elements(&self, name: &str) -> Vec<usize> {
        let Some(track) = self.track(name) else { return Vec::new() };
        (0..track.len).map(|i| self.channels.channel(track, i)).collect()
    }

    /// The elements of a tensor afterwards; `None` if none of its channels is removed or copied.
    pub(super) fn kept(&self, name: &str, copies: &Copies) -> Option<Kept> {
        let track = self.track(name)?;
        let (mut indices, mut shares) = (Vec::new(), Vec::new());
        for i in 0..track.len {
            let of = &copies.0[self.channels.channel(track, i)];
            indices.extend(of.iter().map(|_| i));
            shares.extend(of);
        }
        let changes = indices.len() != track.len || indices.iter().enumerate().any(|(at, &i)| at != i);
        changes.then_some(Kept { axis: track.axis, of: track.len, indices, shares })
    }

    /// How many filters a layer has afterwards.
    pub fn filters(&self, layer: &Layer, copies: &Copies) -> usize {
        self.kept(&layer.output, copies).map_or(layer.filters, |kept| kept.indices.len())
    }

    /// The shape of a tensor; `None` for a name that the imported model does not have.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let id = self.imported.values.get(name)?;
        Some(self.imported.graph.fact(*id).shape.dims().to_vec())
    }

    /// Names of the tensors that nodes write.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.editor.graph.nodes.iter().flat_map(|node| node.outputs.iter().map(String::as_str))
    }

    /// The feed-forward blocks.
    pub fn blocks(&self) -> Vec<Block> {
        Block::all(&self.editor.graph, &self.imported)
    }

    /// The places where it can be cut between every two layers, given the nodes that depend on its input.
    pub fn cuts(&self, nodes: &[Node], input: &str) -> Vec<Vec<Cut>> {
        cuts(nodes, input, &self.layers.iter().map(|layer| layer.output.clone()).collect(), &self.imported)
    }

    /// The axis of a tensor along which its channels are, if that is the one that a layer multiplies.
    pub fn multiplied_axis(&self, layer: &Layer) -> Option<usize> {
        let rank = self.shape(&layer.input)?.len();
        let axis = layer.input_axis(&self.editor.graph, rank);
        self.track(&layer.input).filter(|track| track.axis == axis).map(|track| track.axis)
    }

    /// Every channel once, as it is.
    pub fn all_stay(&self) -> Copies {
        Copies(vec![vec![1.0]; self.channels.elements()])
    }

    /// Multiply-adds of the layers afterwards.
    pub fn multiply_adds(&self, copies: &Copies) -> u64 {
        let left = |channels: &[usize], whole: usize| match channels.len() {
            0 => whole,
            _ => channels.iter().map(|&channel| copies.0[channel].len()).sum(),
        };
        let of = |(layer, ([written, read], positions)): (&Layer, &([Vec<usize>; 2], usize))| {
            let depth = if layer.groups == 1 { left(read, layer.depth) } else { layer.depth };
            (positions * left(written, layer.filters) * depth * layer.taps) as u64
        };
        self.layers.iter().zip(&self.sides).map(of).sum()
    }
}

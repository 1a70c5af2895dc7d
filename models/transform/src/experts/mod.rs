//! Experts: a feed-forward block of which every token computes a part only.
//!
//! [`split`] makes experts out of a block, training-free: its neurons are grouped by the tokens that they are active for, and
//! a router that least squares finds gives each token its experts (R. Cai et al., "Read-ME: Refactorizing LLMs as
//! Router-Decoupled Mixture of Experts with System Co-Design", 2024). Every neuron is in one expert only, or is always
//! computed, so that all experts together are the block. What an expert adds on average where it is left out is added
//! instead of it.
//!
//! [`reduce`] makes experts fewer, those of a split model or of one that was trained with them: it merges those that are
//! alike, or drops the least used.

mod align;
mod find;
mod group;
mod plan;
mod reduce;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use skipstone::onnx::imported;
use skipstone::{Model, Options};

use crate::blocks::Block;
use crate::editor::{Editor, Node};
use crate::error::{Error, Result};
use crate::observe::{Observer, Samples, rows};
use crate::prepare;
use plan::Seen;
pub use reduce::{Fewer, Reduced, Reduction, reduce};

/// Most tokens that a block is shown.
const TOKENS: usize = 4096;
/// Most elements of all tokens' inputs and neurons together, of all blocks.
const ELEMENTS: usize = 1 << 27;
/// Most features of a token: least squares takes the square of that in memory.
const WIDEST: usize = 4096;
/// Oldest version of the operators in which axes are inputs.
const OPSET: i64 = 13;

/// How feed-forward blocks are split.
#[derive(Clone, Debug)]
pub struct Split {
    /// Number of experts.
    pub experts: usize,
    /// Experts of a token.
    pub top: usize,
    /// The least share of the neurons that every token computes, from 0 to 1.
    pub shared: f64,
    /// Whether the first block's router gives each token its experts for all blocks, so that they are known before the others
    /// run.
    pub one_router: bool,
    /// Names of layers whose blocks stay as they are.
    pub skip: Vec<String>,
}

/// A model with experts.
#[derive(Clone, Debug)]
pub struct Divided {
    /// The model, as a file.
    pub bytes: Vec<u8>,
    /// Its blocks, in order.
    pub blocks: Vec<Outcome>,
}

/// What became of a block.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of its last layer.
    pub name: String,
    /// Number of neurons.
    pub neurons: usize,
    /// Number of those that every token computes.
    pub shared: usize,
    /// Neurons of an expert.
    pub each: usize,
    /// The share of the samples' tokens that chose each expert.
    pub usage: Vec<f64>,
    /// The share of the variance of the block's outputs that is lost, on the samples.
    pub lost: f64,
}

/// Splits the feed-forward blocks of the model in `bytes`, an ONNX file, into experts.
///
/// # Errors
/// A malformed model, or one without a feed-forward block; a block with fewer neurons than experts; samples that do not
/// determine a router; errors of running the model.
pub fn split(bytes: &[u8], split: &Split, samples: &mut dyn Samples, options: &Options) -> Result<Divided> {
    split.check()?;
    let mut editor = Editor::open(bytes)?;
    if editor.opset < OPSET {
        let reason = format!("the model has operators of version {}; export it with {OPSET} or later", editor.opset);
        return Err(Error::Unsupported(reason));
    }
    prepare::constants(&mut editor.graph);
    prepare::fold_normalization(&mut editor);
    let known = imported(&editor.write(), &options.limits.file, &options.shapes)?;
    let blocks = chosen(Block::all(&editor.graph, &known), split)?;
    let seen = observe(&editor, &blocks, samples, options)?;
    let mut outcomes = Vec::new();
    let mut written: BTreeMap<usize, Vec<Node>> = BTreeMap::new();
    // The blocks of each router.
    let all: Vec<usize> = (0..blocks.len()).collect();
    let together = if split.one_router { blocks.len() } else { 1 };
    for group in all.chunks(together) {
        let of_group: Vec<&Block> = group.iter().map(|&at| &blocks[at]).collect();
        let tokens: Vec<&Seen> = group.iter().map(|&at| &seen[at]).collect();
        check_tokens(&of_group, &tokens)?;
        let (plans, router) = plan::plans(&editor.graph, &of_group, &tokens, [split.experts, split.top], split.shared)?;
        let mut routing = None;
        for (block, plan) in of_group.into_iter().zip(plans) {
            let (nodes, used) = write::write(&mut editor, block, &plan, &router, routing.take())?;
            written.insert(block.down.node, nodes);
            routing = Some(used);
            outcomes.push(Outcome {
                name: block.name.clone(),
                neurons: block.neurons,
                shared: plan.shared.len(),
                each: plan.experts[0].len(),
                usage: plan.usage,
                lost: plan.lost,
            });
        }
    }
    replace(&mut editor, &blocks, written);
    let bytes = editor.write();
    Model::from_bytes(&bytes, options)?;
    Ok(Divided { bytes, blocks: outcomes })
}

impl Split {
    fn check(&self) -> Result<()> {
        let wrong = if self.experts < 2 {
            "a block is split into at least two experts"
        } else if !(1..=self.experts).contains(&self.top) {
            "a token has at least one expert, and at most all"
        } else if !(0.0..1.0).contains(&self.shared) {
            "the share of the neurons that every token computes must be at least 0 and below 1"
        } else {
            return Ok(());
        };
        Err(Error::Unsupported(wrong.into()))
    }
}

/// The blocks to split.
fn chosen(all: Vec<Block>, split: &Split) -> Result<Vec<Block>> {
    let has = |block: &Block, name: &String| block.ups.iter().chain([&block.down]).any(|layer| layer.name == *name);
    if let Some(name) = split.skip.iter().find(|name| !all.iter().any(|block| has(block, name))) {
        let reason = format!("no feed-forward block of the model has a layer '{name}' to skip");
        return Err(Error::Unsupported(reason));
    }
    let blocks: Vec<Block> = all.into_iter().filter(|block| !split.skip.iter().any(|name| has(block, name))).collect();
    if blocks.is_empty() {
        let reason = "the model has no feed-forward block: a matrix product or 1x1 convolution, an activation, and another one, \
                      with constant f32 or f16 weights, whose values between nothing else reads";
        return Err(Error::Unsupported(reason.into()));
    }
    if let Some(block) = blocks.iter().find(|block| block.width > WIDEST) {
        let reason = format!("{}: a router of {} inputs is too large, of at most {WIDEST}", block.name, block.width);
        return Err(Error::Unsupported(format!("{reason}; exclude it with --skip")));
    }
    let least = |block: &Block| (block.neurons as f64 * split.shared).round() as usize + split.experts;
    match blocks.iter().find(|block| block.neurons < least(block)) {
        Some(block) => Err(Error::Unsupported(format!(
            "{}: {} neurons are too few for {} experts; ask for fewer, or exclude it with --skip",
            block.name, block.neurons, split.experts
        ))),
        None => Ok(blocks),
    }
}

/// Runs the model on the samples, and notes tokens of every block.
fn observe(editor: &Editor, blocks: &[Block], samples: &mut dyn Samples, options: &Options) -> Result<Vec<Seen>> {
    let names: Vec<String> = blocks.iter().flat_map(|block| [block.input.clone(), block.down.input.clone()]).collect();
    let width: usize = blocks.iter().map(|block| block.width + block.neurons).sum();
    let each = (TOKENS.min(ELEMENTS / width) / samples.len().max(1)).max(1);
    let mut seen: Vec<Seen> = blocks.iter().map(|_| Seen { input: Vec::new(), hidden: Vec::new() }).collect();
    Observer::new(editor, &names, options)?.run(samples, &mut |tensor| {
        let at = tensor.tensor / 2;
        let rows = rows(tensor.dims, tensor.values, blocks[at].axis, each);
        match tensor.tensor % 2 {
            0 => seen[at].input.extend(rows),
            _ => seen[at].hidden.extend(rows),
        }
        Ok(())
    })?;
    for (block, seen) in blocks.iter().zip(&seen) {
        if seen.input.iter().chain(&seen.hidden).any(|value| !value.is_finite()) {
            return Err(Error::Calibration(format!("{}: a value is not finite on the samples", block.name)));
        }
    }
    Ok(seen)
}

/// Checks that one router can serve these blocks.
fn check_tokens(blocks: &[&Block], seen: &[&Seen]) -> Result<()> {
    let tokens = |at: usize| seen[at].input.len() / blocks[at].width.max(1);
    for at in 0..blocks.len() {
        if tokens(at) != tokens(0) || seen[at].hidden.len() != tokens(at) * blocks[at].neurons {
            let reason = format!(
                "{} and {} have different tokens; give each its own router, or exclude one with --skip",
                blocks[0].name, blocks[at].name
            );
            return Err(Error::Unsupported(reason));
        }
    }
    Ok(())
}

/// Puts nodes in the place of blocks, by the position of their last layers.
fn replace(editor: &mut Editor, blocks: &[Block], mut written: BTreeMap<usize, Vec<Node>>) {
    let ups = blocks.iter().flat_map(|block| block.ups.iter().map(|layer| layer.node));
    let gone: BTreeSet<usize> = ups.chain(blocks.iter().flat_map(|block| block.between.iter().copied())).collect();
    let graph = &mut editor.graph;
    let nodes = std::mem::take(&mut graph.nodes).into_iter().enumerate();
    graph.nodes = nodes
        .filter(|(at, _)| !gone.contains(at))
        .flat_map(|(at, node)| written.remove(&at).unwrap_or_else(|| vec![node]))
        .collect();
    graph.value_infos.clear();
    prepare::remove_dead(graph);
}

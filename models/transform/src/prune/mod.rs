//! Pruning: a method scores, a pattern selects the lowest scores, and these weights or channels become zeros or are
//! removed.
//!
//! | method | score | data |
//! |---|---|---|
//! | magnitude | the weight's absolute value | no |
//! | random | random, from a seed: a baseline for the other methods | no |
//! | Wanda | the absolute value times the norm of the input it is multiplied by (M. Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2024) | yes |
//! | DSnoT | Wanda's mask, then weights are exchanged until the mean output of a filter is restored (Y. Zhang et al., "Dynamic Sparse No Training", 2024) | yes |
//!
//! [`weights`] sets weights to zero, one by one or in small blocks: shapes stay the same, and sparse kernels skip the
//! zeros. [`channels`] removes whole channels from the network, by magnitude, at random, by
//! Beta-Rank or by OPTIN.

mod beta_rank;
mod channels;
mod dsnot;
mod optin;
mod pattern;
mod score;
#[cfg(test)]
mod tests;

use skipstone::Options;

pub use channels::{ChannelMethod, ChannelRecipe, Form, channels};
pub use pattern::{Pattern, PruneScope};

use crate::editor::{Editor, Graph};
use crate::error::{Error, Result};
use crate::layers::Layer;
use crate::observe::{Moments, Observer, Samples};
use crate::prepare;

/// How weights are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Absolute value.
    Magnitude,
    /// Random, from this seed.
    Random(u64),
    /// Absolute value times the norm of the input.
    Wanda,
    /// Like Wanda, then exchanged so that mean outputs are restored.
    Dsnot,
}

impl Method {
    /// Whether it needs samples.
    #[must_use]
    pub fn needs_samples(self) -> bool {
        matches!(self, Self::Wanda | Self::Dsnot)
    }
}

/// The layers to prune.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only 1x1 convolutions and matrix products.
    pub pointwise: bool,
    /// Depthwise and grouped convolutions too, and those that read few channels, such as an image.
    pub small: bool,
    /// Names of nodes to leave unchanged.
    pub skip: Vec<String>,
}

/// Filters that read at most this many channels are not pruned, unless [`Choice::small`] is set: they have few weights,
/// and each of them matters.
const FEW: usize = 4;

/// How weights are pruned.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How they are scored.
    pub method: Method,
    /// Which of them become zeros together.
    pub pattern: Pattern,
    /// Within which group they are ranked.
    pub scope: PruneScope,
    /// The share to set to zero, from 0 to 1; ignored for [`Pattern::OfEvery`], which defines it.
    pub zeros: f64,
    /// The layers to prune.
    pub layers: Choice,
}

/// The result of pruning.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// The model, as a file.
    pub bytes: Vec<u8>,
    /// The layers that were pruned.
    pub layers: Vec<Outcome>,
}

/// The result for a layer: each field before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Name of the node.
    pub name: String,
    /// Number of filters.
    pub filters: [usize; 2],
    /// Number of weights.
    pub weights: [usize; 2],
    /// Number of weights that are zero.
    pub zeros: [usize; 2],
}

/// Sets weights of the model in `bytes`, an ONNX file, to zero. Samples are for the methods that need them, and are run
/// with `options`.
///
/// # Errors
/// A malformed model, or one without a layer to prune; a method without the samples that it needs, or with an
/// unsupported pattern; errors of running the model.
pub fn weights(bytes: &[u8], recipe: &Recipe, samples: Option<&mut dyn Samples>, options: &Options) -> Result<Pruned> {
    recipe.check()?;
    let mut editor = Editor::open(bytes)?;
    prepare::constants(&mut editor.graph);
    let layers = chosen(&editor.graph, &recipe.layers)?;
    let matrices: Vec<Vec<f32>> = layers.iter().map(|layer| layer.matrix(&editor.graph)).collect();
    let moments = match samples {
        Some(samples) if recipe.method.needs_samples() => inputs(&editor, &layers, samples, options)?,
        _ if recipe.method.needs_samples() => {
            return Err(Error::Calibration("this method needs samples to run the model on".into()));
        }
        _ => Vec::new(),
    };
    let scores: Vec<Vec<f32>> = match recipe.method {
        Method::Magnitude => matrices.iter().map(|matrix| score::magnitude(matrix)).collect(),
        Method::Random(seed) => {
            layers.iter().zip(&matrices).map(|(layer, matrix)| score::random(matrix, &layer.name, seed)).collect()
        }
        Method::Wanda | Method::Dsnot => {
            let all = layers.iter().zip(&matrices).zip(&moments);
            all.map(|((layer, matrix), moments)| score::wanda(layer, matrix, moments)).collect()
        }
    };
    let mut keeps = pattern::select(&layers, &scores, recipe.pattern, recipe.scope, recipe.zeros);
    if recipe.method == Method::Dsnot {
        let exchange = recipe.pattern.exchange();
        for (((layer, matrix), (moments, scores)), keep) in
            layers.iter().zip(&matrices).zip(moments.iter().zip(&scores)).zip(&mut keeps)
        {
            dsnot::refine(layer, matrix, moments, scores, exchange, keep);
        }
    }
    let mut outcomes = Vec::with_capacity(layers.len());
    for ((layer, mut matrix), keep) in layers.iter().zip(matrices).zip(keeps) {
        let zeros = |matrix: &[f32]| matrix.iter().filter(|&&weight| weight == 0.0).count();
        let before = zeros(&matrix);
        matrix.iter_mut().zip(keep).filter(|(_, keep)| !keep).for_each(|(weight, _)| *weight = 0.0);
        outcomes.push(Outcome {
            name: layer.name.clone(),
            filters: [layer.filters; 2],
            weights: [matrix.len(); 2],
            zeros: [before, zeros(&matrix)],
        });
        layer.set_matrix(&mut editor.graph, &matrix);
    }
    Ok(Pruned { bytes: editor.write(), layers: outcomes })
}

impl Recipe {
    fn check(&self) -> Result<()> {
        let wrong = if !(0.0..=1.0).contains(&self.zeros) {
            "the share of zeros must be between 0 and 1"
        } else if self.method == Method::Dsnot && matches!(self.pattern, Pattern::Block(_)) {
            "DSnoT exchanges single weights, so it does not support blocks"
        } else if self.method == Method::Dsnot && self.scope != PruneScope::Row {
            "DSnoT exchanges weights within a filter, so it needs --scope row"
        } else {
            return self.pattern.check();
        };
        Err(Error::Unsupported(wrong.into()))
    }
}

/// The layers to prune.
fn chosen(graph: &Graph, choice: &Choice) -> Result<Vec<Layer>> {
    let all = Layer::all(graph);
    if let Some(name) = choice.skip.iter().find(|name| !all.iter().any(|layer| layer.name == **name)) {
        return Err(Error::Unsupported(format!("the model has no layer '{name}' to skip")));
    }
    let wanted = |layer: &Layer| {
        (choice.small || layer.groups == 1 && layer.depth > FEW)
            && (!choice.pointwise || layer.taps == 1)
            && !choice.skip.contains(&layer.name)
    };
    let layers: Vec<Layer> = all.into_iter().filter(wanted).collect();
    if layers.is_empty() {
        let reason = "the model has no layer to prune: a convolution or matrix product whose weights are constant f32 or \
                      f16 that no other node reads, and that the options do not exclude";
        return Err(Error::Unsupported(reason.into()));
    }
    Ok(layers)
}

/// Statistics of every layer's input, by channel.
fn inputs(editor: &Editor, layers: &[Layer], samples: &mut dyn Samples, options: &Options) -> Result<Vec<Moments>> {
    let names: Vec<String> = layers.iter().map(|layer| layer.input.clone()).collect();
    let mut moments = vec![Moments::default(); layers.len()];
    Observer::new(editor, &names, options)?.run(samples, &mut |seen| {
        let layer = &layers[seen.tensor];
        let moments = &mut moments[seen.tensor];
        moments.add(&seen, layer.input_axis(&editor.graph, seen.dims.len()));
        if moments.len() == layer.depth * layer.groups {
            return Ok(());
        }
        let reason = format!("{}: reads {} channels where its weights have {}", layer.name, moments.len(), layer.depth);
        Err(Error::Unsupported(reason))
    })?;
    Ok(moments)
}

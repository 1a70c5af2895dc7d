//! Selects the channels to remove: the same share of every family, those with the lowest scores, so that the requested
//! share of the multiply-adds is removed.

use skipstone::Options;

use super::{Outcome, Pruned, beta_rank, optin, score};
use crate::channels::{Copies, Family, Network, resized, zeroed};
use crate::editor::Editor;
use crate::error::{Error, Result};
use crate::layers::Layer;
use crate::observe::Samples;
use crate::prepare;

/// How channels are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelMethod {
    /// Mean absolute value of the filter.
    Magnitude,
    /// Random, from this seed.
    Random(u64),
    /// How much a filter amplifies its input, on a batch of samples.
    BetaRank,
    /// For attention heads and neurons of feed-forward blocks: how much the features of all later layers change without
    /// them, on a batch of samples.
    Optin,
}

impl ChannelMethod {
    /// Whether it needs samples.
    #[must_use]
    pub fn needs_samples(self) -> bool {
        matches!(self, Self::BetaRank | Self::Optin)
    }
}

/// What happens to pruned channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The weights that write and read them become zeros: every tensor keeps its shape.
    Zeros,
    /// They are removed from the file.
    Removal,
}

/// How channels are pruned.
#[derive(Clone, Debug)]
pub struct ChannelRecipe {
    /// How they are scored.
    pub method: ChannelMethod,
    /// The share of the multiply-adds of all layers to remove, from 0 to 1.
    pub less: f64,
    /// What happens to them.
    pub form: Form,
    /// Names of layers whose channels are kept.
    pub skip: Vec<String>,
}

/// Channels are kept in multiples of this, since kernels compute four or more at once.
pub(super) const MULTIPLE: usize = 4;

/// Prunes channels of the model in `bytes`, an ONNX file. Samples are only needed for Beta-Rank, at least two, and for OPTIN.
///
/// # Errors
/// A malformed model, or one without removable channels; a method without the samples that it needs; a node that channels cannot be
/// removed from; errors of running the model.
pub fn channels(
    bytes: &[u8],
    recipe: &ChannelRecipe,
    samples: Option<&mut dyn Samples>,
    options: &Options,
) -> Result<Pruned> {
    if !(0.0..1.0).contains(&recipe.less) {
        return Err(Error::Unsupported("the share of multiply-adds to remove must be between 0 and 1".into()));
    }
    let mut editor = Editor::open(bytes)?;
    prepare::constants(&mut editor.graph);
    let network = Network::new(editor, &recipe.skip, options)?;
    let copies = match (recipe.method, samples) {
        (ChannelMethod::Optin, Some(samples)) => optin::choose(&network, recipe.less, samples, options)?,
        (ChannelMethod::BetaRank, Some(samples)) => {
            choose(&network, &beta_rank::scores(&network, samples, options)?, recipe.less)
        }
        (method, _) if method.needs_samples() => {
            return Err(Error::Calibration("this method needs samples to run the model on".into()));
        }
        (method, _) => choose(&network, &plain(&network, method), recipe.less),
    };
    let zeroed = zeroed(&network, &copies);
    let pruned = match recipe.form {
        Form::Zeros => zeroed,
        Form::Removal => resized(&network, &copies, &zeroed, options)?,
    };
    Ok(Pruned { layers: outcomes(&network, &copies, &pruned, recipe.form), bytes: pruned.write() })
}

/// Scores of the filters of every layer, for methods that need no samples.
fn plain(network: &Network, method: ChannelMethod) -> Vec<Vec<f32>> {
    let of = |layer: &Layer| {
        let matrix = layer.matrix(&network.editor.graph);
        let means = matrix.chunks(layer.width()).map(|row| row.iter().map(|w| w.abs()).sum::<f32>() / row.len() as f32);
        let means: Vec<f32> = means.collect();
        match method {
            ChannelMethod::Random(seed) => scaled(&score::random(&means, &layer.name, seed)),
            _ => scaled(&means),
        }
    };
    network.layers.iter().map(of).collect()
}

/// Scales scores to 0..1 within a layer.
pub(super) fn scaled(scores: &[f32]) -> Vec<f32> {
    let (min, max) = scores.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &s| (a.min(s), b.max(s)));
    scores.iter().map(|score| (score - min) / (max - min).max(1e-12)).collect()
}

/// The score of every channel of a family: the mean over the filters that write it.
fn of_family(network: &Network, family: &Family, of_layers: &[Vec<f32>]) -> Vec<f32> {
    let mut sums = vec![(0f32, 0usize); network.all_stay().0.len()];
    for &writer in &family.writers {
        let channels = network.elements(&network.layers[writer].output);
        for (channel, score) in channels.into_iter().zip(&of_layers[writer]) {
            sums[channel].0 += score;
            sums[channel].1 += 1;
        }
    }
    family.channels.iter().map(|&channel| sums[channel].0 / sums[channel].1.max(1) as f32).collect()
}

/// Which channels to remove, by the scores of every layer's filters.
fn choose(network: &Network, of_layers: &[Vec<f32>], less: f64) -> Copies {
    let scores: Vec<Vec<f32>> = network.families.iter().map(|family| of_family(network, family, of_layers)).collect();
    let dense = network.multiply_adds(&network.all_stay()) as f64;
    // The channels of each family, in the order in which they are kept.
    let orders: Vec<Vec<usize>> = scores
        .iter()
        .map(|scores| {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            order
        })
        .collect();
    let candidate = |share: f64, rounding: f64| {
        let mut copies = network.all_stay();
        for (family, order) in network.families.iter().zip(&orders) {
            let multiple = if family.wide || family.channels.len() < 2 * MULTIPLE { 1 } else { MULTIPLE };
            let whole = (order.len() as f64 * share / multiple as f64 + 1.0 - rounding).floor();
            let kept = order.len().min((whole as usize).max(1) * multiple);
            order[kept..].iter().for_each(|&at| copies.0[family.channels[at]].clear());
        }
        copies
    };
    let shares = (5..=50).flat_map(|i| (1..4).map(move |j| (f64::from(i) / 50.0, f64::from(j) / 4.0)));
    let off = |copies: &Copies| (network.multiply_adds(copies) as f64 / dense - (1.0 - less)).abs();
    let all = shares.map(|(share, rounding)| candidate(share, rounding)).map(|copies| (off(&copies), copies));
    // Of equal ones, the first.
    let best = all.reduce(|best, next| if next.0 < best.0 { next } else { best });
    best.map_or_else(|| network.all_stay(), |(_, copies)| copies)
}

fn outcomes(network: &Network, copies: &Copies, pruned: &Editor, form: Form) -> Vec<Outcome> {
    let graph = &network.editor.graph;
    let pruned_layers = Layer::all(&pruned.graph);
    let outcome = |layer: &Layer| {
        let zeros = |matrix: &[f32]| matrix.iter().filter(|&&weight| weight == 0.0).count();
        let before = layer.matrix(graph);
        let left = network.filters(layer, copies);
        let after = pruned_layers.iter().find(|other| other.output == layer.output);
        let after = after.map(|layer| layer.matrix(&pruned.graph)).unwrap_or_default();
        Outcome {
            name: layer.name.clone(),
            filters: [layer.filters, if form == Form::Removal { left } else { layer.filters }],
            weights: [before.len(), after.len()],
            zeros: [zeros(&before), zeros(&after)],
        }
    };
    network.layers.iter().map(outcome).collect()
}

//! Selects the weights to set to zero: the units of a pattern with the lowest scores in a scope.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::layers::Layer;

/// Weights that are kept or pruned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Single weights.
    Weights,
    /// Of every `of` consecutive input channels of a filter, `keep` are kept, such as 2 of every 4.
    OfEvery {
        /// How many are kept.
        keep: usize,
        /// Group size.
        of: usize,
    },
    /// The weights of this many consecutive filters for one element of their input.
    Block(usize),
}

/// The group in which weights are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneScope {
    /// The weights of a filter, or of a row of blocks.
    Row,
    /// The weights of a layer.
    Layer,
    /// The weights of all pruned layers.
    Network,
}

impl Pattern {
    /// The error for an impossible pattern.
    pub(super) fn check(self) -> Result<()> {
        let wrong = match self {
            Self::OfEvery { keep, of } if keep == 0 || keep >= of => format!("{keep} of every {of} cannot stay"),
            Self::Block(0) => "a block has at least one row".into(),
            _ => return Ok(()),
        };
        Err(Error::Unsupported(wrong))
    }

    /// The group size along a filter's depth within which weights may be exchanged; `None` for the whole depth.
    pub(super) fn exchange(self) -> Option<usize> {
        match self {
            Self::OfEvery { of, .. } => Some(of),
            Self::Weights | Self::Block(_) => None,
        }
    }
}

/// Weights that are kept or pruned together.
struct Unit {
    score: f32,
    layer: usize,
    /// The first of its filters.
    first: usize,
    /// Position of its weights within their filters.
    within: usize,
}

/// Which weights of every layer are kept, as `[filters, depth, taps]`.
pub(super) fn select(
    layers: &[Layer],
    scores: &[Vec<f32>],
    pattern: Pattern,
    scope: PruneScope,
    zeros: f64,
) -> Vec<Vec<bool>> {
    let mut keeps: Vec<Vec<bool>> = scores.iter().map(|scores| vec![true; scores.len()]).collect();
    if let Pattern::OfEvery { keep, of } = pattern {
        for ((layer, scores), keeps) in layers.iter().zip(scores).zip(&mut keeps) {
            of_every(layer, scores, keep, of, keeps);
        }
        return keeps;
    }
    let rows = if let Pattern::Block(rows) = pattern { rows } else { 1 };
    let mut units: BTreeMap<[usize; 2], Vec<Unit>> = BTreeMap::new();
    for (at, (layer, scores)) in layers.iter().zip(scores).enumerate() {
        for first in (0..layer.filters).step_by(rows) {
            let members = first..(first + rows).min(layer.filters);
            let key = match scope {
                PruneScope::Row => [at, first],
                PruneScope::Layer => [at, 0],
                PruneScope::Network => [0, 0],
            };
            let units = units.entry(key).or_default();
            for within in 0..layer.width() {
                let sum: f32 = members.clone().map(|filter| scores[filter * layer.width() + within]).sum();
                units.push(Unit { score: sum / members.len() as f32, layer: at, first, within });
            }
        }
    }
    for units in units.values_mut() {
        let count = (zeros * units.len() as f64).round_ties_even() as usize;
        units.sort_by(|a, b| a.score.total_cmp(&b.score));
        for unit in units.iter().take(count) {
            let layer = &layers[unit.layer];
            for filter in unit.first..(unit.first + rows).min(layer.filters) {
                keeps[unit.layer][filter * layer.width() + unit.within] = false;
            }
        }
    }
    keeps
}

/// Keeps the best `keep` of every `of` consecutive elements along the depth, tap by tap; a shorter last group keeps up
/// to the same number.
fn of_every(layer: &Layer, scores: &[f32], keep: usize, of: usize, keeps: &mut [bool]) {
    for filter in 0..layer.filters {
        for tap in 0..layer.taps {
            for first in (0..layer.depth).step_by(of) {
                let at = |depth: usize| (filter * layer.depth + depth) * layer.taps + tap;
                let mut places: Vec<usize> = (first..(first + of).min(layer.depth)).map(at).collect();
                places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                places.iter().skip(keep).for_each(|&place| keeps[place] = false);
            }
        }
    }
}

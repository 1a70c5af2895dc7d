//! Groups of neurons that are active for the same tokens.
//!
//! A neuron's profile is its absolute value for every token, without the mean and of length 1, so that the product of two
//! profiles is their correlation. Groups are found as by k-means, with all groups of a layer equally large: the neurons
//! that fit a group best are assigned to it first (a balanced k-means, as in Z. Zhang et al., "MoEfication: Transformer
//! Feed-forward Layers are Mixtures of Experts", 2022).

use crate::fit::dot;

/// A neuron whose deviation is less than this share of its mean is constant but for rounding.
const CONSTANT: f64 = 1e-5;
/// Most rounds of assignment.
const ROUNDS: usize = 30;

/// The profiles of a layer's neurons.
pub(super) struct Profiles {
    /// Neurons by tokens.
    rows: Vec<f32>,
    tokens: usize,
}

impl Profiles {
    /// Of some neurons of a hidden value, given as tokens by neurons.
    pub fn of(hidden: &[f32], neurons: usize, chosen: &[usize]) -> Self {
        let tokens = hidden.len() / neurons.max(1);
        let mut rows = Vec::with_capacity(chosen.len() * tokens);
        for &neuron in chosen {
            let start = rows.len();
            rows.extend(hidden.iter().skip(neuron).step_by(neurons).map(|value| value.abs()));
            let row = &mut rows[start..];
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / tokens.max(1) as f64;
            row.iter_mut().for_each(|value| *value -= mean as f32);
            if f64::from(dot(row, row)) < (CONSTANT * mean).powi(2) * tokens as f64 {
                row.fill(0.0);
            }
            normalize(row);
        }
        Self { rows, tokens }
    }

    fn len(&self) -> usize {
        self.rows.len() / self.tokens.max(1)
    }

    fn row(&self, neuron: usize) -> &[f32] {
        &self.rows[neuron * self.tokens..(neuron + 1) * self.tokens]
    }
}

/// The group of every neuron of every layer, the number of groups being a divisor of each layer's neurons. Layers were shown
/// the same tokens: a group of one layer is for the tokens that it is for in the others.
pub(super) fn groups(layers: &[Profiles], count: usize) -> Vec<Vec<usize>> {
    let mut centers = first_centers(layers, count);
    let mut assigned: Vec<Vec<usize>> = Vec::new();
    for _ in 0..ROUNDS {
        let next: Vec<Vec<usize>> = layers.iter().map(|layer| assign(layer, &centers)).collect();
        if next == assigned {
            break;
        }
        for (group, center) in centers.iter_mut().enumerate() {
            center.fill(0.0);
            for (layer, groups) in layers.iter().zip(&next) {
                for neuron in (0..layer.len()).filter(|&neuron| groups[neuron] == group) {
                    center.iter_mut().zip(layer.row(neuron)).for_each(|(sum, value)| *sum += value);
                }
            }
            normalize(center);
        }
        assigned = next;
    }
    assigned
}

/// Profiles that are as unlike each other as possible: each is the one least like those before it, the first the one least
/// like the mean.
fn first_centers(layers: &[Profiles], count: usize) -> Vec<Vec<f32>> {
    let all: Vec<&[f32]> = layers.iter().flat_map(|layer| (0..layer.len()).map(|neuron| layer.row(neuron))).collect();
    let mut mean = vec![0.0; layers.first().map_or(0, |layer| layer.tokens)];
    all.iter().for_each(|row| mean.iter_mut().zip(*row).for_each(|(sum, value)| *sum += value));
    normalize(&mut mean);
    // A constant neuron is like nothing, and makes no group.
    let varies: Vec<&[f32]> = all.iter().copied().filter(|row| dot(row, row) > 0.5).collect();
    let mut centers: Vec<Vec<f32>> = Vec::new();
    let mut nearest: Vec<f32> = varies.iter().map(|row| dot(row, &mean)).collect();
    for at in 0..count {
        let least = (0..varies.len()).min_by(|&a, &b| nearest[a].total_cmp(&nearest[b]));
        let center = least.map_or_else(|| mean.clone(), |row| varies[row].to_vec());
        for (row, nearest) in varies.iter().zip(&mut nearest) {
            let like = dot(row, &center);
            *nearest = if at == 0 { like } else { nearest.max(like) };
        }
        centers.push(center);
    }
    centers
}

/// The group of every neuron: the best pairs of neuron and group first, until a group has its share.
fn assign(layer: &Profiles, centers: &[Vec<f32>]) -> Vec<usize> {
    let neurons = layer.len();
    let like = |neuron: usize, group: usize| (dot(layer.row(neuron), &centers[group]), neuron, group);
    let mut pairs: Vec<(f32, usize, usize)> =
        (0..neurons).flat_map(|neuron| (0..centers.len()).map(move |group| like(neuron, group))).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut room = vec![neurons / centers.len().max(1); centers.len()];
    let mut groups = vec![usize::MAX; neurons];
    for (_, neuron, group) in pairs {
        if groups[neuron] == usize::MAX && room[group] > 0 {
            groups[neuron] = group;
            room[group] -= 1;
        }
    }
    groups
}

/// Scales a vector to length 1, unless it is zero but for rounding.
fn normalize(row: &mut [f32]) {
    let length = dot(row, row).sqrt();
    let factor = if length > 1e-12 { 1.0 / length } else { 0.0 };
    row.iter_mut().for_each(|value| *value *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Neurons of two layers; each is active for the tokens of its kind, with noise.
    #[test]
    fn neurons_that_are_active_together_are_found_in_every_layer() {
        let (kinds, tokens) = (4, 203);
        let mut random = Random::new(5, "groups");
        let kind_of_token: Vec<usize> = (0..tokens).map(|_| random.below(kinds)).collect();
        let kinds_of: Vec<Vec<usize>> = [12, 20].map(|neurons| (0..neurons).map(|i| i * 7 % kinds).collect()).into();
        let layers: Vec<Profiles> = kinds_of
            .iter()
            .map(|of| {
                let mut value = |token: usize, neuron: usize| {
                    let size = (1.0 + neuron as f32) * (1.0 + random.below(100) as f32 / 100.0);
                    let noise = random.below(100) as f32 / 200.0;
                    let sign = if neuron.is_multiple_of(2) { 1.0 } else { -1.0 };
                    if kind_of_token[token] == of[neuron] { sign * size } else { sign * noise }
                };
                let hidden: Vec<f32> = (0..tokens * of.len()).map(|i| value(i / of.len(), i % of.len())).collect();
                Profiles::of(&hidden, of.len(), &(0..of.len()).collect::<Vec<_>>())
            })
            .collect();
        let found = groups(&layers, kinds);
        for layer in 0..2 {
            for (of, group) in kinds_of[layer].iter().zip(&found[layer]) {
                let same = kinds_of[0].iter().position(|other| other == of).unwrap();
                assert_eq!(*group, found[0][same], "one group for a kind, in both layers");
            }
        }
    }

    #[test]
    fn groups_are_equally_large_whatever_the_neurons_do() {
        let hidden: Vec<f32> = (0..6 * 9).map(|i| if i % 6 < 4 { 1.0 } else { (i * i % 7) as f32 }).collect();
        let found = groups(&[Profiles::of(&hidden, 6, &[0, 1, 2, 3, 4, 5])], 3);
        for group in 0..3 {
            assert_eq!(found[0].iter().filter(|&&of| of == group).count(), 2, "{found:?}");
        }
    }
}

//! How a block is split: its experts' neurons, the router, and what stands for the experts that are left out.

use super::group::{Profiles, groups};
use crate::blocks::Block;
use crate::editor::Graph;
use crate::error::{Error, Result};
use crate::fit::{Fit, Stitch, dot};

/// Tokens on which the loss is measured.
const JUDGED: usize = 256;

/// What was seen of a block, a row per token.
pub(super) struct Seen {
    pub input: Vec<f32>,
    /// The neurons' values, which the last layer reads.
    pub hidden: Vec<f32>,
}

/// How a block is split.
pub(super) struct Plan {
    /// The neurons that are always computed.
    pub shared: Vec<usize>,
    /// The neurons of each expert.
    pub experts: Vec<Vec<usize>>,
    /// Experts of a token.
    pub top: usize,
    /// Subtracted from each expert's outputs: what it adds on average where it is left out. Empty if none is.
    pub means: Vec<Vec<f32>>,
    /// Added to the outputs: the sum of the means.
    pub constant: Vec<f32>,
    /// The share of the tokens that chose each expert.
    pub usage: Vec<f64>,
    /// The share of the variance of the block's outputs that is lost.
    pub lost: f64,
}

/// Plans for blocks that one router serves.
///
/// # Errors
/// Fewer tokens than the router needs, or values that it cannot be found from.
pub(super) fn plans(
    graph: &Graph,
    blocks: &[&Block],
    seen: &[&Seen],
    sizes: [usize; 2],
    share: f64,
) -> Result<(Vec<Plan>, Stitch)> {
    let [count, top] = sizes;
    let outs: Vec<Vec<f32>> = blocks.iter().map(|block| block.down.matrix(graph)).collect();
    let weights: Vec<Vec<f32>> = blocks.iter().zip(&outs).map(|(block, out)| lengths(out, block.neurons)).collect();
    let parts: Vec<[Vec<usize>; 2]> = (0..blocks.len())
        .map(|at| shared_and_rest(&seen[at].hidden, &weights[at], shared_neurons(blocks[at].neurons, count, share)))
        .collect();
    let profiles: Vec<Profiles> =
        (0..blocks.len()).map(|at| Profiles::of(&seen[at].hidden, blocks[at].neurons, &parts[at][1])).collect();
    let members: Vec<Vec<Vec<usize>>> = groups(&profiles, count)
        .iter()
        .zip(&parts)
        .map(|(groups, [_, rest])| {
            let of =
                |group: usize| rest.iter().zip(groups).filter(|(_, of)| **of == group).map(|(&at, _)| at).collect();
            (0..count).map(of).collect()
        })
        .collect();
    drop(profiles);
    let router = router(blocks, seen, &members, &weights)?;
    let chosen = choices(&router, &seen[0].input, [count, top]);
    let plans = parts.into_iter().zip(members).enumerate().map(|(at, ([shared, _], experts))| {
        let neurons = blocks[at].neurons;
        let means = left_out(&seen[at].hidden, neurons, &experts, &chosen);
        let lost = lost(&seen[at].hidden, &outs[at], neurons, &experts, &chosen, &means);
        let left_out = top < count;
        let means: Vec<Vec<f32>> = if left_out { outputs(&outs[at], neurons, &experts, &means) } else { Vec::new() };
        let mut constant = vec![0.0; blocks[at].down.filters];
        means.iter().for_each(|mean| constant.iter_mut().zip(mean).for_each(|(sum, value)| *sum += value));
        let usage = |expert: usize| {
            chosen.iter().filter(|best| best.contains(&expert)).count() as f64 / chosen.len().max(1) as f64
        };
        let usage = (0..count).map(usage).collect();
        Plan { shared, experts, top, means, constant, usage, lost }
    });
    Ok((plans.collect(), router))
}

/// How many neurons are always computed: at least this share, and what remains is divided evenly among the experts.
fn shared_neurons(neurons: usize, count: usize, share: f64) -> usize {
    let least = ((neurons as f64 * share).round() as usize).min(neurons);
    neurons - (neurons - least) / count * count
}

/// The Euclidean length of each neuron's weights in the last layer, `[outputs, neurons]`.
fn lengths(out: &[f32], neurons: usize) -> Vec<f32> {
    let mut squares = vec![0f32; neurons];
    out.chunks_exact(neurons).for_each(|row| squares.iter_mut().zip(row).for_each(|(sum, w)| *sum += w * w));
    squares.iter().map(|sum| sum.sqrt()).collect()
}

/// The neurons that add most on average over all tokens, and the others.
fn shared_and_rest(hidden: &[f32], weights: &[f32], shared: usize) -> [Vec<usize>; 2] {
    let neurons = weights.len();
    let mut sums = vec![0f64; neurons];
    hidden
        .chunks_exact(neurons)
        .for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(value.abs())));
    let size = |neuron: usize| sums[neuron] * f64::from(weights[neuron]);
    let mut order: Vec<usize> = (0..neurons).collect();
    order.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
    let (first, rest) = order.split_at(shared);
    [first, rest].map(|part| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part
    })
}

/// The least-squares map from a token to how much each expert adds: the sum of its neurons' absolute values, each times the
/// length of its weights in the last layer, as a share of the mean over all tokens and experts.
fn router(blocks: &[&Block], seen: &[&Seen], members: &[Vec<Vec<usize>>], weights: &[Vec<f32>]) -> Result<Stitch> {
    let (width, count) = (blocks[0].width, members[0].len());
    let tokens = seen[0].input.len() / width;
    let mut targets = vec![0f32; tokens * count];
    for at in 0..blocks.len() {
        let rows = seen[at].hidden.chunks_exact(blocks[at].neurons);
        let adds = |row: &[f32], expert: usize| -> f32 {
            members[at][expert].iter().map(|&neuron| row[neuron].abs() * weights[at][neuron]).sum()
        };
        let sizes: Vec<f32> = rows.flat_map(|row| (0..count).map(move |expert| adds(row, expert))).collect();
        let mean = sizes.iter().map(|&v| f64::from(v)).sum::<f64>() / sizes.len().max(1) as f64;
        targets.iter_mut().zip(&sizes).for_each(|(sum, size)| *sum += size / (mean as f32).max(f32::MIN_POSITIVE));
    }
    let mut fit = Fit::new([width, count]);
    fit.add_rows(&seen[0].input, &targets);
    fit.solve().ok_or_else(|| {
        let reason = format!(
            "{}: {tokens} tokens do not determine a router of {width} inputs; give more images, or exclude it with --skip",
            blocks[0].name
        );
        Error::Calibration(reason)
    })
}

/// The experts of every token.
fn choices(router: &Stitch, input: &[f32], [count, top]: [usize; 2]) -> Vec<Vec<usize>> {
    let width = router.weights.len() / count;
    let logits = |row: &[f32]| {
        let mut logits = router.bias.clone();
        for (x, weights) in row.iter().zip(router.weights.chunks_exact(count)) {
            logits.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += x * weight);
        }
        logits
    };
    input.chunks_exact(width).map(|row| best(&logits(row), top)).collect()
}

/// The positions of the largest values, the first of equal ones, as TopK finds them.
pub(super) fn best(values: &[f32], top: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(top);
    order
}

/// The mean of every neuron over the tokens that left its expert out.
fn left_out(hidden: &[f32], neurons: usize, experts: &[Vec<usize>], chosen: &[Vec<usize>]) -> Vec<f32> {
    let mut means = vec![0f32; neurons];
    for (expert, members) in experts.iter().enumerate() {
        let mut sums = vec![0f64; members.len()];
        let mut count = 0usize;
        for (row, _) in hidden.chunks_exact(neurons).zip(chosen).filter(|(_, best)| !best.contains(&expert)) {
            sums.iter_mut().zip(members).for_each(|(sum, &neuron)| *sum += f64::from(row[neuron]));
            count += 1;
        }
        members.iter().zip(sums).for_each(|(&neuron, sum)| means[neuron] = (sum / count.max(1) as f64) as f32);
    }
    means
}

/// What each expert adds if its neurons have these values.
fn outputs(out: &[f32], neurons: usize, experts: &[Vec<usize>], values: &[f32]) -> Vec<Vec<f32>> {
    let row = |row: &[f32], members: &[usize]| -> f32 {
        members.iter().map(|&neuron| f64::from(row[neuron]) * f64::from(values[neuron])).sum::<f64>() as f32
    };
    experts.iter().map(|members| out.chunks_exact(neurons).map(|weights| row(weights, members)).collect()).collect()
}

/// The share of the variance of the outputs that is lost with the experts that are left out, replaced by their means.
fn lost(
    hidden: &[f32],
    out: &[f32],
    neurons: usize,
    experts: &[Vec<usize>],
    chosen: &[Vec<usize>],
    means: &[f32],
) -> f64 {
    let judged = chosen.len().min(JUDGED);
    let outputs = out.len() / neurons;
    let (mut gone, mut squares, mut sums) = (0f64, 0f64, vec![0f64; outputs]);
    for token in (0..judged).map(|at| at * chosen.len() / judged) {
        let row = &hidden[token * neurons..(token + 1) * neurons];
        let mut error = vec![0f32; neurons];
        for (_, members) in experts.iter().enumerate().filter(|(expert, _)| !chosen[token].contains(expert)) {
            members.iter().for_each(|&neuron| error[neuron] = row[neuron] - means[neuron]);
        }
        for (sum, weights) in sums.iter_mut().zip(out.chunks_exact(neurons)) {
            let output = f64::from(dot(weights, row));
            *sum += output;
            squares += output * output;
            gone += f64::from(dot(weights, &error)).powi(2);
        }
    }
    let around = squares - sums.iter().map(|sum| sum * sum).sum::<f64>() / judged.max(1) as f64;
    gone / around.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_have_equal_sizes_and_the_rest_is_shared() {
        assert_eq!(shared_neurons(64, 8, 0.0), 0);
        assert_eq!(shared_neurons(67, 8, 0.0), 3);
        assert_eq!(shared_neurons(64, 8, 0.25), 16);
        assert_eq!(shared_neurons(64, 6, 0.25), 16);
        assert_eq!(shared_neurons(64, 6, 0.3), 22);
        assert_eq!(shared_neurons(10, 4, 1.0), 10);
    }

    #[test]
    fn the_best_of_equal_ones_is_the_first() {
        assert_eq!(best(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
    }

    #[test]
    fn shared_neurons_are_those_that_add_most() {
        let hidden = [1.0, -4.0, 0.5, 1.0, 4.0, 0.5];
        assert_eq!(shared_and_rest(&hidden, &[1.0, 1.0, 9.0], 2), [vec![1, 2], vec![0]]);
        assert_eq!(lengths(&[3.0, 1.0, 4.0, 0.0], 2), [5.0, 1.0]);
    }

    #[test]
    fn what_is_left_out_is_replaced_by_its_mean() {
        // Two experts of one neuron, two outputs; each token leaves one out.
        let (hidden, chosen) = ([1.0, 10.0, 3.0, 20.0, 5.0, 30.0], [vec![0], vec![1], vec![1]]);
        let experts = [vec![0], vec![1]];
        let means = left_out(&hidden, 2, &experts, &chosen);
        assert_eq!(means, [4.0, 10.0]);
        let out = [1.0, 0.0, 0.0, 2.0];
        assert_eq!(outputs(&out, 2, &experts, &means), [vec![4.0, 0.0], vec![0.0, 20.0]]);
        // Errors 0, -1 and 1 of outputs (1, 20), (3, 40), (5, 60), whose variance is 8 + 800.
        let share = lost(&hidden, &out, 2, &experts, &chosen, &means);
        assert!((share - 2.0 / 808.0).abs() < 1e-9, "{share}");
    }
}

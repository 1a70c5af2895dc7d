//! Fewer experts: the least used are left out, or experts that are alike are merged.
//!
//! Merged are experts whose scores rise and fall together on the samples. Their neurons are brought into the order of the most
//! used one, by the assignment with the highest sum of products of their weights; then weights are averaged, each expert's as
//! often as it was chosen, in the router too. (S. Sarkar et al., "Revisiting SMoE Language Models by Evaluating
//! Inefficiencies with Task Specific Expert Pruning" (UNCURL), 2024; the alignment is that of P. Li et al., "Merge, Then
//! Compress: Demystify Efficient SMoE with Hints from Its Routing Policy", 2024.)

use skipstone::onnx::imported;
use skipstone::{Model, Options};

use super::align::{assignment, clusters};
use super::find::{Network, Router, routers};
use super::plan::best;
use super::{ELEMENTS, TOKENS};
use crate::editor::{Editor, Graph, Tensor};
use crate::error::{Error, Result};
use crate::fit::dot;
use crate::observe::{Observer, Samples, rows};
use crate::prepare;

/// Most work of an alignment: some minutes, since most assignments are found much sooner.
const ALIGNMENT: u128 = 1 << 42;

/// How experts become fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Those that are alike are averaged, until this many are left.
    Merge(usize),
    /// The least used are left out, until this many are left.
    Drop(usize),
}

/// A model with fewer experts.
#[derive(Clone, Debug)]
pub struct Reduced {
    /// The model, as a file.
    pub bytes: Vec<u8>,
    /// Its routers, in order.
    pub routers: Vec<Fewer>,
}

/// What became of the experts of a router.
#[derive(Clone, Debug)]
pub struct Fewer {
    /// Name of the router's layer.
    pub name: String,
    /// The share of the samples' tokens that chose each expert before.
    pub usage: Vec<f64>,
    /// The experts that each one was made of.
    pub members: Vec<Vec<usize>>,
}

/// Reduces the experts of the model in `bytes`, an ONNX file.
///
/// # Errors
/// A malformed model, or one without experts that are understood; fewer experts than a token chooses, or not fewer than there
/// are; errors of running the model.
pub fn reduce(bytes: &[u8], how: Reduction, samples: &mut dyn Samples, options: &Options) -> Result<Reduced> {
    let mut editor = Editor::open(bytes)?;
    prepare::constants(&mut editor.graph);
    let known = imported(&editor.write(), &options.limits.file, &options.shapes)?;
    let routers = routers(&editor.graph, &known)?;
    if routers.is_empty() {
        let reason = "the model has no experts: a router whose best scores choose parts of constants by Gather, or \
                      com.microsoft MoE";
        return Err(Error::Unsupported(reason.into()));
    }
    routers.iter().try_for_each(|router| check(&editor.graph, router, how))?;
    let scores = observe(&editor, &routers, samples, options)?;
    let mut fewer = Vec::new();
    for (router, [plain, scores]) in routers.iter().zip(&scores) {
        let mut counts = vec![0f64; router.count];
        let rows = scores.chunks_exact(router.count);
        let tokens = rows.len().max(1) as f64;
        rows.for_each(|row| best(row, router.top).into_iter().for_each(|expert| counts[expert] += 1.0));
        let usage: Vec<f64> = counts.iter().map(|count| count / tokens).collect();
        let members = match how {
            Reduction::Drop(left) => {
                let used: Vec<f32> = usage.iter().map(|&share| share as f32).collect();
                let mut kept = best(&used, left);
                kept.sort_unstable();
                kept.into_iter().map(|expert| vec![expert]).collect()
            }
            Reduction::Merge(left) => clusters(plain, router.count, left),
        };
        rewrite(&mut editor, router, &members, &usage)?;
        fewer.push(Fewer { name: router.name.clone(), usage, members });
    }
    editor.graph.value_infos.clear();
    let bytes = editor.write();
    let model = Model::from_bytes(&bytes, options)?;
    let before = |name: &str| known.values.get(name).map(|&id| &known.graph.fact(id).shape);
    if let Some(port) = model.outputs().iter().find(|port| before(&port.name) != Some(&port.fact.shape)) {
        let reason = format!("the output '{}' would have another shape: its experts are read elsewhere too", port.name);
        return Err(Error::Unsupported(reason));
    }
    Ok(Reduced { bytes, routers: fewer })
}

fn check(graph: &Graph, router: &Router, how: Reduction) -> Result<()> {
    let (Reduction::Merge(left) | Reduction::Drop(left)) = how;
    let Router { name, count, top, .. } = router;
    let part = |stack: &usize| router.networks.iter().any(|network| network.parts.iter().any(|(at, _)| at == stack));
    let is_matrix = |stack: &usize| graph.initializers[*stack].dims.len() > 2;
    let reason = if left >= *count {
        format!("{name}: it chooses among {count} experts; ask for fewer")
    } else if left < (*top).max(1) {
        format!("{name}: each token has {top} experts, so at least that many have to be left")
    } else if matches!(how, Reduction::Merge(_)) && !router.stacks.iter().filter(|at| is_matrix(at)).all(part) {
        format!(
            "{name}: the neurons of its experts are not found between two products, so they cannot be merged; drop some"
        )
    } else if matches!(how, Reduction::Merge(_)) && alignment(router, left) > ALIGNMENT {
        format!("{name}: {count} experts are too large to be merged in reasonable time; drop some")
    } else {
        return Ok(());
    };
    Err(Error::Unsupported(reason))
}

/// The work of bringing the neurons of merged experts into one order: at most the cube of their number for each.
fn alignment(router: &Router, left: usize) -> u128 {
    let of_one = router.networks.iter().map(|network| (network.neurons as u128).pow(3)).sum::<u128>();
    let clusters = (router.count as u128).pow(2);
    (router.count - left) as u128 * of_one + clusters
}

/// The scores of every router on the samples, before and after what keeps their order: tokens by experts.
fn observe(
    editor: &Editor,
    routers: &[Router],
    samples: &mut dyn Samples,
    options: &Options,
) -> Result<Vec<[Vec<f32>; 2]>> {
    let names: Vec<String> = routers.iter().flat_map(|router| router.scores.clone()).collect();
    let all: usize = routers.iter().map(|router| 2 * router.count).sum();
    let each = (TOKENS.min(ELEMENTS / all) / samples.len().max(1)).max(1);
    let mut scores = vec![[Vec::new(), Vec::new()]; routers.len()];
    Observer::new(editor, &names, options)?.run(samples, &mut |seen| {
        let router = &routers[seen.tensor / 2];
        if seen.dims.last() != Some(&router.count) {
            return Err(Error::Unsupported(format!("{}: its scores are not along the last axis", router.name)));
        }
        scores[seen.tensor / 2][seen.tensor % 2].extend(rows(seen.dims, seen.values, seen.dims.len() - 1, each));
        Ok(())
    })?;
    Ok(scores)
}

/// Puts clusters of a router's experts in their place.
fn rewrite(editor: &mut Editor, router: &Router, members: &[Vec<usize>], usage: &[f64]) -> Result<()> {
    let mut parts = Vec::new();
    for &(at, axis) in router.own.iter().chain(router.stacks.iter().map(|&at| (at, 0)).collect::<Vec<_>>().iter()) {
        let tensor = &editor.graph.initializers[at];
        let unlike = || Error::Unsupported(format!("{}: '{}' is neither f32 nor f16", router.name, tensor.name));
        parts.push(Part { at, axis, dims: tensor.lengths(), values: tensor.numbers().ok_or_else(unlike)? });
    }
    for cluster in members.iter().filter(|cluster| cluster.len() > 1) {
        // The first of the most used ones.
        let most = cluster.iter().copied().reduce(|best, next| if usage[next] > usage[best] { next } else { best });
        let Some(first) = most else { continue };
        for network in &router.networks {
            cluster.iter().filter(|&&other| other != first).for_each(|&other| align(&mut parts, network, first, other));
        }
    }
    for part in parts {
        let tensor = &mut editor.graph.initializers[part.at];
        let (dims, values) = part.averaged(members, usage);
        *tensor = Tensor::new(tensor.name.clone(), &dims, tensor.data_type, &[]);
        tensor.set_numbers(&values);
    }
    Ok(())
}

/// A constant with a part for each expert.
struct Part {
    /// Its position in the graph.
    at: usize,
    /// The axis of the experts.
    axis: usize,
    dims: Vec<usize>,
    values: Vec<f32>,
}

impl Part {
    /// The mean of every cluster, each expert's part as often as it was used.
    fn averaged(&self, members: &[Vec<usize>], usage: &[f64]) -> (Vec<usize>, Vec<f32>) {
        let inner: usize = self.dims[self.axis + 1..].iter().product();
        let whole = self.dims[self.axis] * inner;
        let mut values = Vec::with_capacity(self.values.len() / self.dims[self.axis] * members.len());
        for outer in self.values.chunks_exact(whole.max(1)) {
            for cluster in members {
                let all: f64 = cluster.iter().map(|&expert| usage[expert]).sum();
                let share = |expert: usize| if all > 0.0 { usage[expert] / all } else { 1.0 / cluster.len() as f64 };
                let at = |expert: usize, i: usize| share(expert) * f64::from(outer[expert * inner + i]);
                values.extend((0..inner).map(|i| cluster.iter().map(|&expert| at(expert, i)).sum::<f64>() as f32));
            }
        }
        let mut dims = self.dims.clone();
        dims[self.axis] = members.len();
        (dims, values)
    }

    /// The positions of a neuron's numbers in an expert's part of a stack, neurons being along `axis`.
    fn of_neuron(&self, expert: usize, neuron: usize, axis: usize) -> impl Iterator<Item = usize> + use<> {
        let inner: usize = self.dims[axis + 1..].iter().product();
        let outer: usize = self.dims[1..axis].iter().product();
        let step = self.dims[axis] * inner;
        let start = expert * outer * step + neuron * inner;
        (0..outer).flat_map(move |at| (0..inner).map(move |i| start + at * step + i))
    }
}

/// Brings the neurons of an expert into the order of those of another one that are most like them.
fn align(parts: &mut [Part], network: &Network, first: usize, other: usize) {
    let held: Vec<(usize, usize)> = network
        .parts
        .iter()
        .filter_map(|&(stack, axis)| Some((parts.iter().position(|part| part.at == stack)?, axis)))
        .collect();
    let size = network.neurons;
    let features = |expert: usize| -> Vec<Vec<f32>> {
        let of = |neuron: usize| {
            let positions = held
                .iter()
                .flat_map(|&(at, axis)| parts[at].of_neuron(expert, neuron, axis).map(move |position| (at, position)));
            positions.map(|(at, position)| parts[at].values[position]).collect()
        };
        (0..size).map(of).collect()
    };
    let [a, b] = [first, other].map(features);
    let gains: Vec<f32> = a.iter().flat_map(|a| b.iter().map(move |b| dot(a, b))).collect();
    let order = assignment(&gains, size);
    for &(at, axis) in &held {
        let part = &mut parts[at];
        let before = part.values.clone();
        for (neuron, &source) in order.iter().enumerate() {
            let places = part.of_neuron(other, neuron, axis).zip(part.of_neuron(other, source, axis));
            for (to, from) in places {
                part.values[to] = before[from];
            }
        }
    }
}

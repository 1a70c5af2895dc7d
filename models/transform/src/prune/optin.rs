//! OPTIN: which attention heads and neurons of feed-forward blocks the features of all later layers depend on.
//!
//! Each head and each neuron is masked in turn. Its score is the change of the network's trajectory and of its answer:
//!
//! ```text
//! trajectory   sum over the places behind it of the mean of (F F^T - F' F'^T)^2, a row of F for each token, of length 1
//! answer       T^2 KL(softmax(y / T) || softmax(y' / T)), T = 4, mean over the samples
//! score        both, each divided by its mean over all heads and neurons
//! ```
//!
//! Places are values that everything behind them is computed from. For every number of heads, the best ones are kept, and
//! the best neurons for which there are multiply-adds left; of all these choices that with the highest sum of scores is taken.
//! (S. Khaki and K. Plataniotis, "The Need for Speed: Pruning Transformers with One Recipe", ICLR 2024.)

use skipstone::{Model, Options, Session, TensorView};

use super::channels::MULTIPLE;
use crate::channels::{Copies, Family, Network};
use crate::cuts::{Cut, parted};
use crate::editor::{Editor, FLOAT, Node, Port};
use crate::error::{Error, Result};
use crate::fit::dot;
use crate::observe::{Observer, Samples, rows};
use crate::prepare;

/// Most samples: the network runs on each of them once for every head and neuron.
const SAMPLES: usize = 16;
/// Most tokens that the features of a place are compared on.
const TOKENS: usize = 64;
/// Temperature of the answers.
const TEMPERATURE: f64 = 4.0;

/// Which heads and neurons to remove.
pub(super) fn choose(network: &Network, less: f64, samples: &mut dyn Samples, options: &Options) -> Result<Copies> {
    let blocks = network.blocks();
    let nodes_of =
        |family: &Family| -> Vec<usize> { family.writers.iter().map(|&writer| network.layers[writer].node).collect() };
    let is_of_block = |family: &Family| {
        let nodes = nodes_of(family);
        blocks.iter().any(|block| block.ups.iter().map(|up| up.node).eq(nodes.iter().copied()))
    };
    let families: Vec<&Family> = network.families.iter().filter(|family| family.wide || is_of_block(family)).collect();
    if families.is_empty() {
        let reason =
            "the model has no attention heads and no feed-forward blocks; for its channels take --method beta-rank";
        return Err(Error::Unsupported(reason.into()));
    }
    let scores = Trajectory::new(network, samples, options)?.scores(&families, options)?;
    select(network, &families, &scores, less)
}

/// The network as it is, on the samples.
struct Trajectory<'a> {
    network: &'a Network,
    /// Nodes that compute constants, and the others.
    parts: [Vec<Node>; 2],
    input: (String, Vec<usize>),
    output: String,
    /// Whether the output is one of probabilities.
    is_softmax: bool,
    cuts: Vec<Cut>,
    samples: usize,
    /// Tokens of a sample whose features are compared.
    each: usize,
    /// The values at the input and at each place, of every sample.
    values: Vec<Vec<Vec<f32>>>,
    /// The products of all tokens' features at each place.
    grams: Vec<Vec<f32>>,
    answers: Vec<Vec<f64>>,
}

impl<'a> Trajectory<'a> {
    fn new(network: &'a Network, samples: &mut dyn Samples, options: &Options) -> Result<Self> {
        let graph = &network.editor.graph;
        let held = |port: &&Port| graph.initializer(&port.name).is_none();
        let inputs: Vec<&Port> = graph.inputs.iter().filter(held).collect();
        let ([input], Some(output)) = (inputs.as_slice(), graph.outputs.first()) else {
            let reason = format!("the model has {} inputs; samples need a model with one", inputs.len());
            return Err(Error::Unsupported(reason));
        };
        let parts = parted(graph, &input.name);
        // Between two layers, the last place with all tokens: behind it there may be a pooling.
        let largest = |between: Vec<Cut>| between.into_iter().max_by_key(|cut| cut.dims.iter().product::<usize>());
        let cuts: Vec<Cut> = network.cuts(&parts[1], &input.name).into_iter().filter_map(largest).collect();
        let writer = graph.writer(&output.name).map(|at| &graph.nodes[at]);
        let mut all = Self {
            network,
            input: (input.name.clone(), network.shape(&input.name).unwrap_or_default()),
            output: output.name.clone(),
            is_softmax: writer.is_some_and(|node| node.is("Softmax")),
            samples: samples.len().min(SAMPLES),
            each: (TOKENS / samples.len().clamp(1, SAMPLES)).max(1),
            values: vec![Vec::new(); cuts.len() + 1],
            grams: Vec::new(),
            answers: Vec::new(),
            parts,
            cuts,
        };
        let names = [&all.input.0].into_iter().chain(all.cuts.iter().map(|cut| &cut.value)).chain([&all.output]);
        let names: Vec<String> = names.cloned().collect();
        let mut observer = Observer::new(&network.editor, &names, options)?;
        observer.run(&mut Spread { of: samples, count: all.samples }, &mut |seen| {
            match all.values.get_mut(seen.tensor) {
                Some(values) => values.push(seen.values.to_vec()),
                None => all.answers.push(all.logits(seen.values)),
            }
            Ok(())
        })?;
        all.grams = (0..all.cuts.len())
            .map(|at| gram(&all.features(at, &all.values[at + 1]), all.cuts[at].channels()))
            .collect();
        Ok(all)
    }

    /// Features of the compared tokens of all samples, of length 1.
    fn features(&self, cut: usize, values: &[Vec<f32>]) -> Vec<f32> {
        let &Cut { ref dims, axis, .. } = &self.cuts[cut];
        let mut features: Vec<f32> = values.iter().flat_map(|values| rows(dims, values, axis, self.each)).collect();
        for row in features.chunks_exact_mut(self.cuts[cut].channels()) {
            let length = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt().max(1e-12);
            row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
        features
    }

    /// Logits up to a constant.
    fn logits(&self, output: &[f32]) -> Vec<f64> {
        let of = |value: f64| if self.is_softmax { value.max(1e-30).ln() } else { value };
        output.iter().map(|&value| of(f64::from(value))).collect()
    }

    /// The score of every channel of these families.
    fn scores(&self, families: &[&Family], options: &Options) -> Result<Vec<Vec<f64>>> {
        let mut changes: Vec<Vec<[f64; 2]>> = Vec::new();
        for family in families {
            let masks = self.masks(family)?;
            let mut tail = Tail::new(self, self.start(&masks), masks, options)?;
            changes.push(family.channels.iter().map(|&channel| tail.without(self, channel)).collect::<Result<_>>()?);
        }
        let count = changes.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let mean = |part: usize| changes.iter().flatten().map(|change| change[part]).sum::<f64>() / count;
        let means = [0, 1].map(mean).map(|mean| mean.max(f64::MIN_POSITIVE));
        let score = |change: &[f64; 2]| change[0] / means[0] + change[1] / means[1];
        Ok(changes.iter().map(|family| family.iter().map(score).collect()).collect())
    }

    /// What has to be masked: for each value that a layer multiplies, the channel of every element along its axis.
    fn masks(&self, family: &Family) -> Result<Vec<Mask>> {
        let mut masks: Vec<Mask> = Vec::new();
        for layer in self.network.layers.iter().filter(|layer| layer.groups == 1) {
            let elements = self.network.elements(&layer.input);
            if !elements.iter().any(|element| family.channels.contains(element)) {
                continue;
            }
            if self.network.multiplied_axis(layer).is_none() {
                let reason = format!(
                    "{}: it does not read heads or neurons one by one; name the layers that write \
                                      them in --skip",
                    layer.name
                );
                return Err(Error::Unsupported(reason));
            }
            let images = layer.is_convolution(&self.network.editor.graph);
            match masks.iter_mut().find(|mask| mask.value == layer.input && mask.images == images) {
                Some(mask) => mask.readers.push(layer.output.clone()),
                None => masks.push(Mask {
                    value: layer.input.clone(),
                    readers: vec![layer.output.clone()],
                    channels: elements,
                    images,
                }),
            }
        }
        Ok(masks)
    }

    /// The last place that all these values are computed from, counted from 1; 0 is the input.
    fn start(&self, masks: &[Mask]) -> usize {
        let position = |name: &str| self.parts[1].iter().position(|node| node.outputs.iter().any(|o| o == name));
        let first = masks.iter().map(|mask| position(&mask.value).map_or(0, |at| at + 1)).min().unwrap_or(0);
        self.cuts.iter().take_while(|cut| cut.at <= first).count()
    }
}

/// A value that channels are masked in.
struct Mask {
    value: String,
    /// The outputs of the layers that read it.
    readers: Vec<String>,
    /// The channel of every element.
    channels: Vec<usize>,
    /// Whether the channels are those of images.
    images: bool,
}

impl Mask {
    fn dims(&self) -> Vec<usize> {
        if self.images { vec![self.channels.len(), 1, 1] } else { vec![self.channels.len()] }
    }

    /// Zeros for a channel.
    fn without(&self, channel: usize) -> Vec<f32> {
        self.channels.iter().map(|&of| f32::from(u8::from(of != channel))).collect()
    }
}

/// The network behind a place, with masks as inputs.
struct Tail {
    session: Session,
    start: usize,
    masks: Vec<Mask>,
    dims: Vec<Vec<usize>>,
    /// The input that holds the values at the place, then each mask.
    inputs: Vec<usize>,
    /// The outputs: places behind, with the number of each, and the answer.
    places: Vec<(usize, usize)>,
    answer: usize,
}

impl Tail {
    fn new(all: &Trajectory<'_>, start: usize, masks: Vec<Mask>, options: &Options) -> Result<Self> {
        let mut editor: Editor = all.network.editor.clone();
        let (from, value, dims) = match start.checked_sub(1).map(|at| &all.cuts[at]) {
            Some(cut) => (cut.at, cut.value.clone(), cut.dims.clone()),
            None => (0, all.input.0.clone(), all.input.1.clone()),
        };
        let mut nodes: Vec<Node> = all.parts[0].iter().chain(&all.parts[1][from..]).cloned().collect();
        let port = |name: &str, dims: &[usize]| -> Result<Port> {
            let mut port = Port::of(name, FLOAT);
            port.set_dims(dims)?;
            Ok(port)
        };
        let mut inputs = vec![port(&value, &dims)?];
        let mut names = vec![value.clone()];
        let mut all_dims = vec![dims];
        for mask in &masks {
            let [name, masked] = ["mask", "masked"].map(|suffix| editor.fresh(&mask.value, suffix));
            inputs.push(port(&name, &mask.dims())?);
            let reader = |node: &Node| node.outputs.first().is_some_and(|output| mask.readers.contains(output));
            let first = nodes.iter().position(reader).ok_or_else(crate::editor::damaged)?;
            for node in nodes.iter_mut().filter(|node| reader(node)) {
                node.inputs[0].clone_from(&masked);
            }
            nodes.insert(first, Node::new("Mul", &[&mask.value, &name], &masked, Vec::new()));
            names.push(name);
            all_dims.push(mask.dims());
        }
        let graph = &mut editor.graph;
        graph.nodes = nodes;
        graph.inputs = inputs;
        graph.outputs = all.cuts[start..].iter().map(|cut| Port::of(&cut.value, FLOAT)).collect();
        graph.outputs.push(Port::of(&all.output, FLOAT));
        graph.value_infos.clear();
        prepare::remove_dead(graph);
        let model = Model::from_bytes(&editor.write(), options)?;
        let session = model.session()?;
        let of_input = |name: &String| model.inputs().iter().position(|port| port.name == *name);
        let inputs = names.iter().map(of_input).collect::<Option<_>>().ok_or_else(crate::editor::damaged)?;
        let of_output = |name: &str| session.output_names().position(|output| output == name);
        let places = (start..all.cuts.len()).map(|at| Some((of_output(&all.cuts[at].value)?, at)));
        let places = places.collect::<Option<_>>().ok_or_else(crate::editor::damaged)?;
        let answer = of_output(&all.output).ok_or_else(crate::editor::damaged)?;
        Ok(Self { session, start, masks, dims: all_dims, inputs, places, answer })
    }

    /// The change of the trajectory, and of the answer, without a channel.
    fn without(&mut self, all: &Trajectory<'_>, channel: usize) -> Result<[f64; 2]> {
        let masks: Vec<Vec<f32>> = self.masks.iter().map(|mask| mask.without(channel)).collect();
        let mut values: Vec<Vec<Vec<f32>>> = vec![Vec::new(); self.places.len()];
        let mut answer = 0.0;
        let unseen = || Error::Calibration("a value behind heads or neurons is not of floats".into());
        for sample in 0..all.samples {
            let held = [&all.values[self.start][sample]].into_iter().chain(&masks);
            let mut views = Vec::with_capacity(self.inputs.len());
            for ((values, dims), &at) in held.zip(&self.dims).zip(&self.inputs) {
                let view = TensorView::new(dims, values).map_err(|error| Error::Calibration(error.to_string()))?;
                views.push((at, view));
            }
            views.sort_by_key(|(at, _)| *at);
            let views: Vec<TensorView<'_>> = views.into_iter().map(|(_, view)| view).collect();
            self.session.run(&views)?;
            let output = |at: usize| self.session.output(at).and_then(|view| view.elements::<f32>());
            for ((at, _), values) in self.places.iter().zip(&mut values) {
                values.push(output(*at).ok_or_else(unseen)?.to_vec());
            }
            answer += divergence(&all.answers[sample], &all.logits(output(self.answer).ok_or_else(unseen)?));
        }
        let mut trajectory = 0.0;
        for ((_, cut), values) in self.places.iter().zip(&values) {
            let changed = gram(&all.features(*cut, values), all.cuts[*cut].channels());
            let squares = changed.iter().zip(&all.grams[*cut]).map(|(a, b)| f64::from(a - b).powi(2));
            trajectory += squares.sum::<f64>() / changed.len().max(1) as f64;
        }
        Ok([trajectory, answer / all.samples as f64])
    }
}

/// Products of every two rows.
fn gram(rows: &[f32], width: usize) -> Vec<f32> {
    let each = || rows.chunks_exact(width);
    each().flat_map(|a| each().map(move |b| dot(a, b))).collect()
}

/// The Kullback-Leibler divergence of answers at a temperature, times its square.
fn divergence(before: &[f64], after: &[f64]) -> f64 {
    let logs = |logits: &[f64]| -> Vec<f64> {
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| ((logit - most) / TEMPERATURE).exp()).sum();
        logits.iter().map(|logit| (logit - most) / TEMPERATURE - sum.ln()).collect()
    };
    let [before, after] = [before, after].map(logs);
    let sum: f64 = before.iter().zip(&after).map(|(p, q)| p.exp() * (p - q)).sum();
    TEMPERATURE * TEMPERATURE * sum.max(0.0)
}

/// Some of the samples, evenly spaced.
struct Spread<'a> {
    of: &'a mut dyn Samples,
    count: usize,
}

impl Samples for Spread<'_> {
    fn len(&self) -> usize {
        self.count
    }

    fn sample(&mut self, index: usize) -> Result<Vec<f32>> {
        self.of.sample(index * self.of.len() / self.count)
    }
}

/// Channels of a family that are kept or removed together: a head, or as many neurons as kernels compute at once.
struct Unit {
    family: usize,
    channels: Vec<usize>,
    score: f64,
    cost: f64,
}

/// Keeps the heads and neurons with the highest sum of scores for which there are multiply-adds.
fn select(network: &Network, families: &[&Family], scores: &[Vec<f64>], less: f64) -> Result<Copies> {
    let dense = network.multiply_adds(&network.all_stay()) as f64;
    let mut kinds: [Vec<Unit>; 2] = [Vec::new(), Vec::new()];
    let mut least = network.all_stay();
    for (at, (family, scores)) in families.iter().zip(scores).enumerate() {
        let mut order: Vec<usize> = (0..family.channels.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut without = network.all_stay();
        without.0[family.channels[0]].clear();
        let cost = dense - network.multiply_adds(&without) as f64;
        let together = if family.wide || order.len() < 2 * MULTIPLE { 1 } else { MULTIPLE };
        let units = order.chunks(together).map(|unit| Unit {
            family: at,
            channels: unit.iter().map(|&channel| family.channels[channel]).collect(),
            score: unit.iter().map(|&channel| scores[channel]).sum(),
            cost: cost * unit.len() as f64,
        });
        // The best of a family always stays: a layer without channels is none.
        for unit in units.skip(1) {
            unit.channels.iter().for_each(|&channel| least.0[channel].clear());
            kinds[usize::from(!family.wide)].push(unit);
        }
    }
    let budget = dense * (1.0 - less) - network.multiply_adds(&least) as f64;
    if budget < 0.0 {
        let most = 1.0 - network.multiply_adds(&least) as f64 / dense;
        let reason = format!(
            "without all but a few heads and neurons, there are {:.0} % fewer multiply-adds; ask for less",
            100.0 * most
        );
        return Err(Error::Unsupported(reason));
    }
    let worth = |unit: &Unit| unit.score / unit.cost.max(1.0);
    kinds
        .iter_mut()
        .for_each(|units| units.sort_by(|a, b| worth(b).total_cmp(&worth(a)).then(a.family.cmp(&b.family))));
    let [heads, neurons] = &kinds;
    let (mut best, mut kept) = (f64::NEG_INFINITY, [0, 0]);
    let (mut head_score, mut head_cost) = (0.0, 0.0);
    for count in 0..=heads.len() {
        if let Some(unit) = count.checked_sub(1).map(|at| &heads[at]) {
            head_score += unit.score;
            head_cost += unit.cost;
        }
        if head_cost > budget {
            break;
        }
        let (mut score, mut cost, mut fitting) = (head_score, head_cost, 0);
        for unit in neurons {
            if cost + unit.cost > budget {
                break;
            }
            score += unit.score;
            cost += unit.cost;
            fitting += 1;
        }
        if score > best {
            (best, kept) = (score, [count, fitting]);
        }
    }
    let mut copies = network.all_stay();
    for (units, kept) in kinds.iter().zip(kept) {
        units[kept..].iter().flat_map(|unit| &unit.channels).for_each(|&channel| copies.0[channel].clear());
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_equal_up_to_a_constant_do_not_diverge() {
        assert!(divergence(&[1.0, 2.0, -3.0], &[11.0, 12.0, 7.0]) < 1e-12);
        // Softmax of (0, 4 ln 3) at temperature 4 is (1/4, 3/4), of (0, 0) (1/2, 1/2).
        let want = 16.0 * (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln());
        assert!((divergence(&[0.0, 4.0 * 3f64.ln()], &[0.0, 0.0]) - want).abs() < 1e-12);
    }

    #[test]
    fn the_products_of_all_rows() {
        assert_eq!(gram(&[1.0, 0.0, 0.6, 0.8], 2), [1.0, 0.6, 0.6, 1.0]);
    }
}

//! Soups: the mean of models of one architecture, which often beats each of them.
//!
//! A uniform soup is the mean of all models. A greedy one starts with the best and adds those that raise its score on
//! held-out data (M. Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
//! increasing inference time", 2022). Sparse models are averaged if their zeros are in the same places, where they stay (M. Zimmer,
//! C. Spiegel and S. Pokutta, "Sparse Model Soups", 2024).
//!
//! Averaged weights do not give averaged activations, so [`recalibrate`] measures the statistics of BatchNorm again on
//! samples. Where an exporter has folded a BatchNorm into its convolution, the convolution is rescaled until each of its
//! channels has the mean and standard deviation that it has in the parts on average (K. Jordan et al., "REPAIR:
//! REnormalizing Permuted Activations for Interpolation Repair", 2023).

use std::collections::HashMap;

use skipstone::Options;

use crate::editor::{Editor, FLOAT, HALF};
use crate::error::{Error, Result};
use crate::layers::Layer;
use crate::observe::{Moments, Observer, Samples};
use crate::prepare;

/// Layers with at least this share of zeros are sparse: their zeros must be shared.
const SPARSE: f64 = 0.1;
/// This share of them, since a weight may be zero by chance.
const SHARED: f64 = 0.95;

/// A soup.
#[derive(Clone, Debug)]
pub struct Soup {
    /// The model, as a file.
    pub bytes: Vec<u8>,
    /// Positions of the models that are in it.
    pub parts: Vec<usize>,
}

/// The mean of all models, each an ONNX file.
///
/// # Errors
/// Models that are malformed or not of one architecture, or whose zeros are in different places.
pub fn uniform(models: &[Vec<u8>]) -> Result<Soup> {
    Ok(Soup { bytes: mean(&opened(models)?)?.write(), parts: (0..models.len()).collect() })
}

/// The mean of the best model and of those that raise the score of the soup, in the order of their own scores.
///
/// # Errors
/// As for [`uniform`], and those of `score`.
pub fn greedy(models: &[Vec<u8>], score: &mut dyn FnMut(&[u8]) -> Result<f64>) -> Result<Soup> {
    let editors = opened(models)?;
    let mut order = Vec::with_capacity(models.len());
    for (at, model) in models.iter().enumerate() {
        order.push((score(model)?, at));
    }
    // The first of equals first.
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut order = order.into_iter();
    let Some((mut best, first)) = order.next() else {
        return Err(Error::Unsupported("a soup takes at least one model".into()));
    };
    let mut soup = Soup { bytes: models[first].clone(), parts: vec![first] };
    for (_, next) in order {
        let parts: Vec<usize> = soup.parts.iter().copied().chain([next]).collect();
        let candidate = mean(&parts.iter().map(|&part| editors[part].clone()).collect::<Vec<_>>())?.write();
        let scored = score(&candidate)?;
        if scored > best {
            best = scored;
            soup = Soup { bytes: candidate, parts };
        }
    }
    Ok(soup)
}

/// How often [`recalibrate`] takes every sample.
///
/// # Errors
/// Models that are malformed.
pub fn passes(soup: &[u8], parts: usize) -> Result<usize> {
    let editor = opened(&[soup.to_vec()])?.remove(0);
    let folded = Layer::all(&editor.graph).iter().filter(|layer| is_folded(&editor, layer)).count();
    let normalizations = editor.graph.nodes.iter().filter(|node| node.is("BatchNormalization")).count();
    Ok(folded + normalizations + if folded > 0 { parts } else { 0 })
}

/// Measures the statistics of BatchNorm again, or rescales the convolutions that hold them, on samples that the soup and its
/// parts are run on. `parts` are the models that are in the soup.
///
/// # Errors
/// As for [`uniform`], and those of running the models.
pub fn recalibrate(soup: &[u8], parts: &[Vec<u8>], samples: &mut dyn Samples, options: &Options) -> Result<Vec<u8>> {
    let mut editor = opened(&[soup.to_vec()])?.remove(0);
    let layers: Vec<Layer> = Layer::all(&editor.graph).into_iter().filter(|layer| is_folded(&editor, layer)).collect();
    let names: Vec<String> = layers.iter().map(|layer| layer.output.clone()).collect();
    // Mean and deviation of every channel, over the parts.
    let mut wanted: Vec<Vec<[f64; 2]>> = layers.iter().map(|layer| vec![[0.0; 2]; layer.filters]).collect();
    let parts = if layers.is_empty() { Vec::new() } else { opened(parts)? };
    for (at, part) in parts.iter().enumerate() {
        counterparts(&editor, part, at)?;
        // A part may call its tensors otherwise.
        let of_part: Vec<String> = layers.iter().map(|layer| part.graph.nodes[layer.node].outputs[0].clone()).collect();
        for (wanted, moments) in wanted.iter_mut().zip(moments(part, &of_part, samples, options)?) {
            for (channel, [mean, deviation]) in wanted.iter_mut().enumerate() {
                *mean += moments.mean(channel) / parts.len() as f64;
                *deviation += moments.variance(channel).sqrt() / parts.len() as f64;
            }
        }
    }
    for at in 0..editor.graph.nodes.len() {
        if let Some(layer) = layers.iter().position(|layer| layer.node == at) {
            let seen = moments(&editor, &names[layer..=layer], samples, options)?.remove(0);
            rescale(&mut editor, &layers[layer], &seen, &wanted[layer]);
        } else if editor.graph.nodes[at].is("BatchNormalization") {
            let inputs = editor.graph.nodes[at].inputs.clone();
            let seen = moments(&editor, &inputs[..1], samples, options)?.remove(0);
            let measured: [fn(&Moments, usize) -> f64; 2] = [Moments::mean, Moments::variance];
            for (name, of) in inputs[3..].iter().zip(measured) {
                let stored =
                    editor.graph.stored(name).filter(|_| editor.graph.readers(name) == 1).ok_or_else(|| {
                        Error::Unsupported(format!(
                            "{}: its statistics are not constants that it alone reads",
                            editor.graph.nodes[at].label()
                        ))
                    })?;
                let numbers: Vec<f32> = (0..seen.len()).map(|channel| of(&seen, channel) as f32).collect();
                editor.graph.initializers[stored].set_numbers(&numbers);
            }
        }
    }
    Ok(editor.write())
}

/// Whether a layer is a convolution with its own bias and no BatchNorm after it.
fn is_folded(editor: &Editor, layer: &Layer) -> bool {
    let graph = &editor.graph;
    let normalized = graph.nodes.iter().any(|node| node.is("BatchNormalization") && node.inputs[0] == layer.output);
    let own = layer.bias.is_some_and(|bias| graph.readers(&graph.initializers[bias].name) == 1);
    layer.is_convolution(graph) && own && !normalized
}

/// Scales a layer's filters and biases so that its channels have the wanted mean and deviation; a channel that does not vary
/// only gets the mean.
fn rescale(editor: &mut Editor, layer: &Layer, seen: &Moments, wanted: &[[f64; 2]]) {
    let Some(bias) = layer.bias else { return };
    let mut matrix = layer.matrix(&editor.graph);
    let Some(mut offsets) = editor.graph.initializers[bias].numbers() else { return };
    for (channel, [mean, deviation]) in wanted.iter().enumerate() {
        let now = seen.variance(channel).sqrt();
        let scale = if now > 1e-6 { deviation / now } else { 1.0 };
        matrix[channel * layer.width()..(channel + 1) * layer.width()].iter_mut().for_each(|w| *w *= scale as f32);
        offsets[channel] = (scale * (f64::from(offsets[channel]) - seen.mean(channel)) + mean) as f32;
    }
    layer.set_matrix(&mut editor.graph, &matrix);
    editor.graph.initializers[bias].set_numbers(&offsets);
}

/// Moments of tensors along their channels.
fn moments(editor: &Editor, names: &[String], samples: &mut dyn Samples, options: &Options) -> Result<Vec<Moments>> {
    let mut moments = vec![Moments::default(); names.len()];
    Observer::new(editor, names, options)?.run(samples, &mut |seen| {
        moments[seen.tensor].add(&seen, 1);
        Ok(())
    })?;
    Ok(moments)
}

fn opened(models: &[Vec<u8>]) -> Result<Vec<Editor>> {
    let open = |bytes: &Vec<u8>| {
        let mut editor = Editor::open(bytes)?;
        prepare::constants(&mut editor.graph);
        Ok(editor)
    };
    models.iter().map(open).collect()
}

/// The first model, with the mean over all models in each of its constants.
fn mean(models: &[Editor]) -> Result<Editor> {
    let Some(first) = models.first() else {
        return Err(Error::Unsupported("a soup takes at least one model".into()));
    };
    let mut soup = first.clone();
    let others: Vec<HashMap<&str, &str>> =
        models.iter().enumerate().map(|(at, model)| counterparts(first, model, at)).collect::<Result<_>>()?;
    for tensor in &mut soup.graph.initializers {
        let of = |(model, names): (&Editor, &HashMap<&str, &str>)| -> Option<crate::editor::Tensor> {
            model.graph.initializer(names.get(tensor.name.as_str())?).cloned()
        };
        // A constant that no node reads has no counterpart.
        let Some(parts) = models.iter().zip(&others).map(of).collect::<Option<Vec<_>>>() else { continue };
        let unlike = |what: &str| Error::Unsupported(format!("the models differ in the {what} of '{}'", tensor.name));
        if parts.iter().any(|part| part.dims != tensor.dims || part.data_type != tensor.data_type) {
            return Err(unlike("type or shape"));
        }
        if [FLOAT, HALF].contains(&tensor.data_type) {
            let parts: Option<Vec<Vec<f32>>> = parts.iter().map(|part| part.numbers()).collect();
            let parts = parts.ok_or_else(|| unlike("storage"))?;
            let mean = |i: usize| parts.iter().map(|part| f64::from(part[i])).sum::<f64>() / parts.len() as f64;
            let mean: Vec<f32> = (0..parts[0].len()).map(|i| mean(i) as f32).collect();
            let zeros = |numbers: &[f32]| numbers.iter().filter(|&&number| number == 0.0).count();
            let most = parts.iter().map(|part| zeros(part)).max().unwrap_or(0) as f64;
            let is_sparse = most >= SPARSE * mean.len() as f64 && tensor.dims.len() > 1;
            if is_sparse && (zeros(&mean) as f64) < SHARED * most {
                return Err(unlike("places of zeros, and would lose them,"));
            }
            tensor.set_numbers(&mean);
        } else if parts.iter().any(|part| part.ints() != tensor.ints()) {
            return Err(unlike("value"));
        }
    }
    Ok(soup)
}

/// From the names in `first` to those in `other`, matched by position in the graph.
fn counterparts<'a>(first: &'a Editor, other: &'a Editor, at: usize) -> Result<HashMap<&'a str, &'a str>> {
    let unlike = |what: String| Error::Unsupported(format!("model {} is no sibling of the first: {what}", at + 1));
    if first.graph.nodes.len() != other.graph.nodes.len() {
        return Err(unlike(format!("{} nodes instead of {}", other.graph.nodes.len(), first.graph.nodes.len())));
    }
    let mut names = HashMap::new();
    let ports = |editor: &'a Editor| editor.graph.inputs.iter().map(|port| port.name.as_str());
    names.extend(ports(first).zip(ports(other)));
    for (a, b) in first.graph.nodes.iter().zip(&other.graph.nodes) {
        let same = a.op_type == b.op_type
            && a.domain == b.domain
            && (a.inputs.len(), a.outputs.len()) == (b.inputs.len(), b.outputs.len())
            && a.attributes.len() == b.attributes.len()
            && a.attributes.iter().all(|one| b.attribute(&one.name).is_some_and(|other| one.is_same(other)));
        if !same {
            return Err(unlike(format!("{} is not {}", b.label(), a.label())));
        }
        for (one, other) in a.inputs.iter().chain(&a.outputs).zip(b.inputs.iter().chain(&b.outputs)) {
            if *names.entry(one.as_str()).or_insert(other) != other {
                return Err(unlike(format!("{} reads another tensor", b.label())));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use skipstone_onnx::write::{f32s, graph, ints, model, node, value};

    use super::*;

    /// A convolution, a BatchNorm and a convolution, with weights of these values.
    fn network(weights: &[f32; 8], normalized: bool) -> Vec<u8> {
        let last = if normalized { "n" } else { "c" };
        let mut nodes = vec![node("Conv", &["x", "w", "b"], &["c"], &[ints("pads", &[0, 0, 0, 0])])];
        if normalized {
            nodes.push(node("BatchNormalization", &["c", "scale", "shift", "mean", "variance"], &["n"], &[]));
        }
        nodes.push(node("Relu", &[last], &["y"], &[]));
        let constants = [
            f32s("w", &[2, 4, 1, 1], weights),
            f32s("b", &[2], &[weights[0], 1.0]),
            f32s("scale", &[2], &[1.0, 2.0]),
            f32s("shift", &[2], &[0.0, 0.5]),
            f32s("mean", &[2], &[9.0, 9.0]),
            f32s("variance", &[2], &[9.0, 9.0]),
        ];
        let constants = if normalized { &constants[..] } else { &constants[..2] };
        model(&graph(&nodes, constants, &[value("x", 1, &[1, 4, 3, 3])], &[value("y", 1, &[1, 2, 3, 3])]))
    }

    struct Waves;

    impl Samples for Waves {
        fn len(&self) -> usize {
            5
        }

        fn sample(&mut self, index: usize) -> Result<Vec<f32>> {
            Ok((0..36).map(|i| ((i * 7 + index * 13) as f32).sin() + 0.3).collect())
        }
    }

    fn numbers(bytes: &[u8], name: &str) -> Vec<f32> {
        Editor::open(bytes).unwrap().graph.initializer(name).unwrap().floats().unwrap()
    }

    const A: [f32; 8] = [1.0, 0.0, 3.0, 0.0, -1.0, 2.0, 0.0, 0.0];
    const B: [f32; 8] = [2.0, 0.0, -1.0, 0.0, 3.0, 4.0, 0.0, 0.0];

    #[test]
    fn a_uniform_soup_is_the_mean_of_the_weights() {
        let soup = uniform(&[network(&A, false), network(&B, false)]).unwrap();
        assert_eq!(numbers(&soup.bytes, "w"), [1.5, 0.0, 1.0, 0.0, 1.0, 3.0, 0.0, 0.0]);
        assert_eq!(numbers(&soup.bytes, "b"), [1.5, 1.0]);
        let dense = [1.0; 8];
        assert!(
            uniform(&[network(&A, false), network(&dense, false)]).is_err(),
            "a soup of a sparse and a dense model"
        );
        let elsewhere = [0.0, 1.0, 0.0, 3.0, 0.0, 0.0, 1.0, 2.0];
        let refused = uniform(&[network(&A, false), network(&elsewhere, false)]);
        assert!(refused.unwrap_err().to_string().contains("places of zeros"));
        assert!(uniform(&[network(&A, false), network(&A, true)]).unwrap_err().to_string().contains("no sibling"));
    }

    #[test]
    fn a_greedy_soup_keeps_only_models_that_help() {
        let models = [network(&A, false), network(&B, false), network(&A, false)];
        // The nearer the first weight to 1.75, the better: B has the best score alone, A makes it worse.
        let mut score = |bytes: &[u8]| Ok(-f64::from((numbers(bytes, "w")[0] - 1.75).abs()));
        assert_eq!(greedy(&models, &mut score).unwrap().parts, [1]);
        let mut score = |bytes: &[u8]| Ok(-f64::from((numbers(bytes, "w")[0] - 1.6).abs()));
        assert_eq!(greedy(&models, &mut score).unwrap().parts, [1, 0]);
    }

    #[test]
    fn batch_statistics_are_measured_again() {
        let options = Options::default();
        let of = |bytes: &[u8], name: &str| {
            let editor = opened(&[bytes.to_vec()]).unwrap().remove(0);
            moments(&editor, &[name.to_owned()], &mut Waves, &options).unwrap().remove(0)
        };
        let parts = [network(&A, true), network(&B, true)];
        let soup = recalibrate(&uniform(&parts).unwrap().bytes, &parts, &mut Waves, &options).unwrap();
        let normalized = of(&soup, "n");
        for (channel, [mean, deviation]) in [[0.0, 1.0], [0.5, 2.0]].iter().enumerate() {
            assert!((normalized.mean(channel) - mean).abs() < 1e-4, "{}", normalized.mean(channel));
            assert!((normalized.variance(channel).sqrt() - deviation).abs() < 1e-3);
        }
        assert!(recalibrate(&network(&A, false), &[network(&A, true)], &mut Waves, &options).is_err(), "no sibling");
        let parts = [network(&A, false), network(&B, false)];
        let soup = recalibrate(&uniform(&parts).unwrap().bytes, &parts, &mut Waves, &options).unwrap();
        let (a, b, soup) = (of(&parts[0], "c"), of(&parts[1], "c"), of(&soup, "c"));
        for channel in 0..2 {
            assert!((soup.mean(channel) - (a.mean(channel) + b.mean(channel)) / 2.0).abs() < 1e-4);
            let deviation = |moments: &Moments| moments.variance(channel).sqrt();
            assert!((deviation(&soup) - (deviation(&a) + deviation(&b)) / 2.0).abs() < 1e-4);
        }
    }
}

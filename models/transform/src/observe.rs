//! Runs a model on samples and observes tensors between its layers.
//!
//! All measurements for transformations are made here: the ranges of [`quantize`](crate::quantize), norms of inputs,
//! means of outputs, tokens.

use std::collections::HashSet;

use skipstone::{Model, Options, Session, TensorView};

use crate::editor::{Editor, FLOAT, Port};
use crate::error::{Error, Result};

/// The samples that a model is run on: prepared inputs, which can be read repeatedly.
pub trait Samples {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of the model's input for the sample at `index`.
    ///
    /// # Errors
    /// Errors of reading a sample.
    fn sample(&mut self, index: usize) -> Result<Vec<f32>>;
}

/// A tensor in a run.
pub(crate) struct Seen<'a> {
    /// Its position among the observed tensors.
    pub tensor: usize,
    pub dims: &'a [usize],
    pub values: &'a [f32],
}

/// A model whose tensors are observed.
pub(crate) struct Observer {
    session: Session,
    /// The output that holds each tensor; `None` for the input.
    outputs: Vec<Option<usize>>,
    names: Vec<String>,
    dims: Vec<usize>,
}

impl Observer {
    /// Prepares a model with one input, with the tensors `names` as additional outputs.
    pub fn new(editor: &Editor, names: &[String], options: &Options) -> Result<Self> {
        let mut editor = editor.clone();
        let graph = &mut editor.graph;
        let known: Vec<&str> = graph.outputs.iter().chain(&graph.inputs).map(|port| port.name.as_str()).collect();
        let mut asked: HashSet<&str> = known.into_iter().collect();
        let wanted = names.iter().filter(|name| asked.insert(name));
        let outputs: Vec<Port> = wanted.map(|name| Port::of(name, FLOAT)).collect();
        graph.outputs.extend(outputs);
        graph.value_infos.clear();
        let model = Model::from_bytes(&editor.write(), options)?;
        let [input] = model.inputs() else {
            let reason = format!("the model has {} inputs; samples need a model with one", model.inputs().len());
            return Err(Error::Unsupported(reason));
        };
        let dims = input.fact.shape.dims().to_vec();
        let session = model.session()?;
        let position = |name: &String| {
            let found = session.output_names().position(|output| output == name);
            match found {
                None if *name != input.name => Err(unseen(name)),
                found => Ok(found),
            }
        };
        let outputs = names.iter().map(position).collect::<Result<_>>()?;
        Ok(Self { session, outputs, names: names.to_vec(), dims })
    }

    /// Runs the model on every sample and shows each observed tensor.
    pub fn run(&mut self, samples: &mut dyn Samples, visit: &mut dyn FnMut(Seen<'_>) -> Result<()>) -> Result<()> {
        if samples.is_empty() {
            return Err(Error::Calibration("there are no samples".into()));
        }
        for sample in 0..samples.len() {
            let values = samples.sample(sample)?;
            let input = TensorView::new(&self.dims, &values).map_err(|e| Error::Calibration(e.to_string()))?;
            self.session.run(&[input])?;
            for (tensor, (at, name)) in self.outputs.iter().zip(&self.names).enumerate() {
                let Some(at) = at else {
                    visit(Seen { tensor, dims: &self.dims, values: &values })?;
                    continue;
                };
                let view = self.session.output(*at).ok_or_else(|| unseen(name))?;
                let values = view.elements::<f32>().ok_or_else(|| unseen(name))?;
                visit(Seen { tensor, dims: view.fact().shape.dims(), values })?;
            }
        }
        Ok(())
    }
}

fn unseen(name: &str) -> Error {
    Error::Calibration(format!("the tensor '{name}' cannot be observed as floats"))
}

/// The channels of at most `most` positions of a tensor, evenly spaced, one row each; channels are along `axis`.
pub(crate) fn rows(dims: &[usize], values: &[f32], axis: usize, most: usize) -> Vec<f32> {
    let channels = dims.get(axis).copied().unwrap_or(1).max(1);
    let inner = dims.iter().skip(axis + 1).product::<usize>().max(1);
    let places = values.len() / channels;
    let taken = (0..places.min(most)).map(|k| k * places / places.min(most));
    let element = |place: usize, channel: usize| (place / inner * channels + channel) * inner + place % inner;
    taken.flat_map(|place| (0..channels).map(move |channel| values[element(place, channel)])).collect()
}

/// Mean, variance and norm of each channel of a tensor, over everything observed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moments {
    sums: Vec<f64>,
    squares: Vec<f64>,
    /// Elements of each channel so far.
    count: f64,
}

impl Moments {
    /// Adds a tensor whose channels are along `axis`.
    pub fn add(&mut self, seen: &Seen<'_>, axis: usize) {
        let channels = seen.dims.get(axis).copied().unwrap_or(1).max(1);
        let inner = seen.dims.iter().skip(axis + 1).product::<usize>().max(1);
        self.sums.resize(channels, 0.0);
        self.squares.resize(channels, 0.0);
        for (at, run) in seen.values.chunks_exact(inner).enumerate() {
            let channel = at % channels;
            self.sums[channel] += run.iter().map(|&v| f64::from(v)).sum::<f64>();
            self.squares[channel] += run.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        }
        self.count += (seen.values.len() / channels) as f64;
    }

    /// Number of channels.
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Euclidean norm of all elements of a channel.
    pub fn norm(&self, channel: usize) -> f64 {
        self.squares[channel].sqrt()
    }

    /// The mean of a channel.
    pub fn mean(&self, channel: usize) -> f64 {
        self.sums[channel] / self.count
    }

    /// The variance of a channel around its mean.
    pub fn variance(&self, channel: usize) -> f64 {
        (self.squares[channel] / self.count - self.mean(channel).powi(2)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_evenly_along_any_axis() {
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        assert_eq!(rows(&[1, 2, 2, 3], &values, 1, 9), [0., 6., 1., 7., 2., 8., 3., 9., 4., 10., 5., 11.]);
        assert_eq!(rows(&[1, 2, 2, 3], &values, 1, 2), [0., 6., 3., 9.]);
        assert_eq!(rows(&[2, 2, 3], &values, 2, 2), [0., 1., 2., 6., 7., 8.]);
    }

    #[test]
    fn moments_are_computed_per_channel() {
        let mut moments = Moments::default();
        for sample in [[1.0, 2.0, -1.0, 0.0, 3.0, 4.0, 5.0, 5.0], [0.0; 8]] {
            moments.add(&Seen { tensor: 0, dims: &[2, 2, 2], values: &sample }, 1);
        }
        assert_eq!(moments.len(), 2);
        assert!((moments.norm(0) - 30f64.sqrt()).abs() < 1e-12);
        assert!((moments.mean(0) - 10.0 / 8.0).abs() < 1e-12);
        assert!((moments.variance(0) - (30.0 / 8.0 - 1.5625)).abs() < 1e-12);
        assert!((moments.norm(1) - 51f64.sqrt()).abs() < 1e-12);
    }
}

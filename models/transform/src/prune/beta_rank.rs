//! Beta-Rank: how much a filter amplifies its input.
//!
//! The score of a filter is its mean absolute weight, times the sum over output positions of the standard deviation of
//! the output over the samples, divided by the standard deviation of the input patch at that position, over all
//! channels and samples. Scores are scaled to 0..1 within a layer. BatchNorm counts as part of the convolution before
//! it. (M. Homayounfar et al., "Beta-Rank: A Robust Convolutional Filter Pruning Method for Imbalanced Medical Image
//! Analysis", 2023.)

use skipstone::Options;

use super::channels::scaled;
use crate::channels::Network;
use crate::editor::Graph;
use crate::error::{Error, Result};
use crate::layers::Layer;
use crate::observe::{Observer, Samples, Seen};
use crate::prepare;

/// The smallest divisor.
const LEAST: f64 = 1e-6;

/// Scores of the filters of every layer; none for grouped convolutions, which cannot lose filters.
pub(super) fn scores(network: &Network, samples: &mut dyn Samples, options: &Options) -> Result<Vec<Vec<f32>>> {
    if samples.len() < 2 {
        return Err(Error::Calibration("a standard deviation takes at least two samples".into()));
    }
    let mut folded = network.editor.clone();
    prepare::fold_normalization(&mut folded);
    let layers = Layer::all(&folded.graph);
    if layers.len() != network.layers.len() {
        return Err(Error::Unsupported("normalization after layers that share their weights".into()));
    }
    let ranked: Vec<&Layer> = layers.iter().filter(|layer| layer.groups == 1).collect();
    let names: Vec<String> = ranked.iter().flat_map(|layer| [layer.input.clone(), layer.output.clone()]).collect();
    let windows = ranked.iter().map(|layer| ConvWindow::of(layer, &folded.graph));
    let windows: Vec<Option<ConvWindow>> = windows.collect::<Result<_>>()?;
    let mut spreads: Vec<[PositionSums; 2]> = vec![Default::default(); ranked.len()];
    Observer::new(&folded, &names, options)?.run(samples, &mut |seen| {
        let at = seen.tensor / 2;
        let [read, written] = &mut spreads[at];
        match (seen.tensor % 2, &windows[at]) {
            (0, Some(window)) => window.patches(&seen, read),
            (0, None) => rows(&seen, ranked[at].depth, read),
            (_, Some(_)) => written.add(seen.values),
            // As for a convolution: channels first, then positions.
            (_, None) => written.add(&transposed(seen.values, ranked[at].filters)),
        }
        Ok(())
    })?;
    let scores = ranked.iter().zip(&spreads).map(|(layer, [read, written])| {
        let positions = read.sums.len();
        if positions == 0 || written.sums.len() != positions * layer.filters {
            let reason = format!("{}: its patches and outputs do not match; exclude it with --skip", layer.name);
            return Err(Error::Unsupported(reason));
        }
        let matrix = layer.matrix(&folded.graph);
        let score = |filter: usize| {
            let weights = &matrix[filter * layer.width()..(filter + 1) * layer.width()];
            let mean = weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weights.len() as f64;
            let of_position = |at: usize| written.deviation(filter * positions + at) / read.deviation(at).max(LEAST);
            (mean * (0..positions).map(of_position).sum::<f64>()) as f32
        };
        Ok(scaled(&(0..layer.filters).map(score).collect::<Vec<_>>()))
    });
    let mut scores = scores.collect::<Result<Vec<_>>>()?.into_iter();
    Ok(layers
        .iter()
        .map(|layer| if layer.groups == 1 { scores.next().unwrap_or_default() } else { Vec::new() })
        .collect())
}

/// Sums of elements and of their squares at every position.
#[derive(Clone, Debug, Default)]
struct PositionSums {
    sums: Vec<f64>,
    squares: Vec<f64>,
    /// Number of elements in each sum.
    count: f64,
}

impl PositionSums {
    fn add(&mut self, values: &[f32]) {
        self.sums.resize(values.len(), 0.0);
        self.squares.resize(values.len(), 0.0);
        for (i, &value) in values.iter().enumerate() {
            self.sums[i] += f64::from(value);
            self.squares[i] += f64::from(value).powi(2);
        }
        self.count += 1.0;
    }

    /// The unbiased standard deviation at a position.
    fn deviation(&self, at: usize) -> f64 {
        let around = self.squares[at] - self.sums[at].powi(2) / self.count;
        (around.max(0.0) / (self.count - 1.0)).sqrt()
    }
}

/// Adds the rows that a matrix product reads, one patch each.
fn rows(seen: &Seen<'_>, depth: usize, into: &mut PositionSums) {
    let rows = seen.values.len() / depth;
    into.sums.resize(rows, 0.0);
    into.squares.resize(rows, 0.0);
    for (row, values) in seen.values.chunks_exact(depth).enumerate() {
        into.sums[row] += values.iter().map(|&v| f64::from(v)).sum::<f64>();
        into.squares[row] += values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
    }
    into.count += depth as f64;
}

/// Transposes rows of `columns` elements.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}

/// The windows of a 2-D convolution without groups.
#[derive(Clone, Debug)]
struct ConvWindow {
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Begin of rows and columns, then end of rows and columns.
    pads: [usize; 4],
}

impl ConvWindow {
    /// `None` for a matrix product.
    fn of(layer: &Layer, graph: &Graph) -> Result<Option<Self>> {
        let node = &graph.nodes[layer.node];
        if !node.is("Conv") {
            return Ok(None);
        }
        let list = |name: &str| {
            node.attribute(name).map(|a| a.ints.iter().map(|&i| usize::try_from(i).unwrap_or(0)).collect())
        };
        let list = |name: &str| -> Option<Vec<usize>> { list(name).filter(|list: &Vec<usize>| !list.is_empty()) };
        let weights = graph.initializers[layer.weights].lengths();
        let automatic = node.attribute("auto_pad").is_some_and(|a| a.text != b"NOTSET" && !a.text.is_empty());
        let unlike =
            || Error::Unsupported(format!("{}: only 2-D convolutions with explicit pads are supported", layer.name));
        let (&[_, _, rows, columns], false) = (weights.as_slice(), automatic) else { return Err(unlike()) };
        let two = |name: &str| list(name).map_or(Ok([1, 1]), |list| list.try_into().map_err(|_| unlike()));
        let pads = list("pads").map_or(Ok([0; 4]), |list| list.try_into().map_err(|_| unlike()))?;
        Ok(Some(Self { kernel: [rows, columns], strides: two("strides")?, dilations: two("dilations")?, pads }))
    }

    /// Adds the patch at every position; padding is 0.
    fn patches(&self, seen: &Seen<'_>, into: &mut PositionSums) {
        let &[batch, channels, rows, columns] = seen.dims else { return };
        // Sum over channels first, since a patch contains all of them.
        let (mut sums, mut squares) = (vec![0f64; rows * columns], vec![0f64; rows * columns]);
        let size = |side: usize, axis: usize| {
            let reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1;
            (side + self.pads[axis] + self.pads[axis + 2])
                .checked_sub(reach)
                .map_or(0, |left| left / self.strides[axis] + 1)
        };
        let (high, wide) = (size(rows, 0), size(columns, 1));
        into.sums.resize(high * wide, 0.0);
        into.squares.resize(high * wide, 0.0);
        for plane in seen.values.chunks_exact(rows * columns) {
            for (at, &value) in plane.iter().enumerate() {
                sums[at] += f64::from(value);
                squares[at] += f64::from(value).powi(2);
            }
        }
        for y in 0..high {
            for x in 0..wide {
                for (dy, dx) in (0..self.kernel[0]).flat_map(|dy| (0..self.kernel[1]).map(move |dx| (dy, dx))) {
                    let row = (y * self.strides[0] + dy * self.dilations[0]).checked_sub(self.pads[0]);
                    let column = (x * self.strides[1] + dx * self.dilations[1]).checked_sub(self.pads[1]);
                    let (Some(row), Some(column)) = (row, column) else { continue };
                    if row < rows && column < columns {
                        into.sums[y * wide + x] += sums[row * columns + column];
                        into.squares[y * wide + x] += squares[row * columns + column];
                    }
                }
            }
        }
        into.count += (batch * channels * self.kernel[0] * self.kernel[1]) as f64;
    }
}

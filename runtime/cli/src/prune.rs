//! `skipstone prune`: removes weights or channels from a model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use skipstone::Model;
use skipstone_transform::Samples;
use skipstone_transform::prune::{
    ChannelMethod, ChannelRecipe, Choice, Form, Method, Outcome, Pattern, PruneScope, Recipe, channels, weights,
};

use crate::args::ModelArgs;
use crate::calibration::CalibrationArgs;
use crate::effect::{self, Effect};
use crate::failure::Failure;
use crate::files;
use crate::output::{json, print};
use crate::table::{Align, Table};

/// Prune a model: remove the weights or channels that matter least
#[derive(Args, Debug)]
#[command(after_help = "\
The result is a standard ONNX file. With zeros, shapes stay the same, and enough zeros make a layer faster here:
`skipstone inspect` shows the kernel of every layer and the reason. Channels are removed from the file if they only
go from layer to layer. Without further training a network loses accuracy: measure it with `skipstone evaluate`.

Wanda, DSnoT, Beta-Rank and OPTIN run the model on the images in FOLDER; a few dozen like those that it will see are enough.
OPTIN takes 16 of them at most, and runs what is behind each attention head and each neuron once without it: that can take long.
Images are prepared as for `skipstone classify`.

Examples:
  skipstone prune model.onnx --zeros 80 -o sparse.onnx
  skipstone prune model.onnx --zeros 60 --method wanda --calibrate photos/ -o sparse.onnx
  skipstone prune model.onnx --pattern 2:4 -o half.onnx
  skipstone prune model.onnx --zeros 80 --pattern 4x1 --scope network -o blocks.onnx
  skipstone prune model.onnx --less 50 --method beta-rank --calibrate photos/ -o narrow.onnx
  skipstone prune model.onnx --less 30 --pattern channels -o narrow.onnx
  skipstone prune transformer.onnx --less 40 --method optin --calibrate photos/ -o narrow.onnx")]
pub struct Prune {
    #[command(flatten)]
    model: ModelArgs,

    /// File to write
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,

    /// How to score weights
    #[arg(long, value_enum, default_value_t = MethodArg::Magnitude)]
    method: MethodArg,

    /// Percentage of the weights to set to zero
    #[arg(long, value_name = "PERCENT", conflicts_with = "less")]
    zeros: Option<f64>,

    /// Percentage of the multiply-adds to remove with channels
    #[arg(long, value_name = "PERCENT")]
    less: Option<f64>,

    /// What to prune together: `weights`, one by one; N:M, of every M consecutive input channels keep N; 4x1 or 16x1,
    /// this many output channels at once; `channels` [default: channels with --less, otherwise weights]
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    pattern: Option<PatternArg>,

    /// What to do with pruned channels
    #[arg(long, value_enum, default_value_t = FormArg::Remove)]
    form: FormArg,

    /// Within which group weights are ranked [default: row with Wanda and DSnoT, otherwise layer]
    #[arg(long, value_enum)]
    scope: Option<ScopeArg>,

    /// Seed of `--method random`
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Prune matrix products and 1x1 convolutions only
    #[arg(long)]
    pointwise: bool,

    /// Prune depthwise and grouped convolutions too, and those that read at most 4 channels
    #[arg(long)]
    small: bool,

    /// Name of a node to leave unchanged; give it once for each
    #[arg(long, value_name = "NODE")]
    skip: Vec<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    calibration: CalibrationArgs,
}

/// The values of `--method`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum MethodArg {
    /// Absolute value
    Magnitude,
    /// At random, from --seed: a baseline for the other methods
    Random,
    /// Absolute value times the norm of the input
    Wanda,
    /// Like Wanda, then exchanges weights until the mean outputs are restored
    Dsnot,
    /// For channels: how much a filter amplifies its input
    BetaRank,
    /// For attention heads and neurons of feed-forward blocks: how much the features of later layers change without them
    Optin,
}

/// The values of `--pattern`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatternArg {
    Of(Pattern),
    Channels,
}

/// The values of `--form`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum FormArg {
    /// Remove them from the file
    Remove,
    /// Set their weights to zero
    Zeros,
}

/// What to prune.
enum Work {
    Weights(Recipe),
    Channels(ChannelRecipe),
}

/// The values of `--scope`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum ScopeArg {
    /// The weights of one filter
    Row,
    /// The weights of one layer
    Layer,
    /// All weights
    Network,
}

#[derive(Serialize)]
struct Report {
    model: String,
    output: String,
    /// Number of images that the model was run on.
    samples: usize,
    layers: Vec<LayerReport>,
    #[serde(flatten)]
    effect: Effect,
}

#[derive(Serialize)]
struct LayerReport {
    name: String,
    /// Before and after, like the fields below.
    filters: [usize; 2],
    weights: [usize; 2],
    zeros: [usize; 2],
}

impl Prune {
    /// Writes the pruned model.
    pub fn execute(self) -> Result<(), Failure> {
        let work = self.work()?;
        let needs_samples = match &work {
            Work::Weights(recipe) => recipe.method.needs_samples(),
            Work::Channels(recipe) => recipe.method.needs_samples(),
        };
        if needs_samples && self.calibration.calibrate.is_none() {
            return Err(usage("this method runs the model on images: give their folder with --calibrate"));
        }
        let bytes = files::read(&self.model.path)?;
        let options = self.model.options();
        let model = Model::from_bytes(&bytes, &options)?;
        let mut pictures = if needs_samples { self.calibration.pictures(&model, 1)? } else { None };
        drop(model);
        let count = pictures.as_ref().map_or(0, Samples::len);
        let samples = pictures.as_mut().map(|pictures| pictures as &mut dyn Samples);
        let pruned = match &work {
            Work::Weights(recipe) => weights(&bytes, recipe, samples, &options)?,
            Work::Channels(recipe) => channels(&bytes, recipe, samples, &options)?,
        };
        drop(pictures);
        let report = Report {
            model: self.model.name(),
            output: self.output.display().to_string(),
            samples: count,
            layers: pruned.layers.into_iter().map(LayerReport::from).collect(),
            effect: Effect::measure(&bytes, &pruned.bytes, &options)?,
        };
        files::write(&self.output, &pruned.bytes)?;
        print(&if self.json { json(&report)? } else { text(&report) })
    }

    fn work(&self) -> Result<Work, Failure> {
        let of_channels = self.less.is_some() || matches!(self.method, MethodArg::BetaRank | MethodArg::Optin);
        let pattern = match self.pattern {
            Some(pattern) => pattern,
            None if of_channels => PatternArg::Channels,
            None => PatternArg::Of(Pattern::Weights),
        };
        match pattern {
            PatternArg::Channels => self.of_channels().map(Work::Channels),
            PatternArg::Of(_) if of_channels => Err(usage("--less, Beta-Rank and OPTIN are for --pattern channels")),
            PatternArg::Of(pattern) => self.of_weights(pattern).map(Work::Weights),
        }
    }

    fn of_channels(&self) -> Result<ChannelRecipe, Failure> {
        let less = self
            .less
            .ok_or_else(|| usage("--less is missing: the percentage of multiply-adds to remove with channels"))?;
        if !(0.0..100.0).contains(&less) {
            return Err(usage("--less must be at least 0 and below 100"));
        }
        if self.pointwise || self.small || self.scope.is_some() || self.zeros.is_some() {
            return Err(usage("--pointwise, --small, --scope and --zeros are for weights, not for channels"));
        }
        let method = match self.method {
            MethodArg::Magnitude => ChannelMethod::Magnitude,
            MethodArg::Random => ChannelMethod::Random(self.seed),
            MethodArg::BetaRank => ChannelMethod::BetaRank,
            MethodArg::Optin => ChannelMethod::Optin,
            MethodArg::Wanda | MethodArg::Dsnot => return Err(usage("Wanda and DSnoT score weights, not channels")),
        };
        let form = if self.form == FormArg::Zeros { Form::Zeros } else { Form::Removal };
        Ok(ChannelRecipe { method, less: less / 100.0, form, skip: self.skip.clone() })
    }

    fn of_weights(&self, pattern: Pattern) -> Result<Recipe, Failure> {
        let zeros = match (self.zeros, pattern) {
            (Some(_), Pattern::OfEvery { .. }) => {
                return Err(usage("--zeros does not go with N:M, which already defines how many weights stay"));
            }
            (None, Pattern::OfEvery { .. }) => 0.0,
            (None, _) => {
                return Err(usage(
                    "--zeros (percentage of weights) or, for channels, --less (percentage of multiply-adds) is missing",
                ));
            }
            (Some(zeros), _) if (0.0..=100.0).contains(&zeros) => zeros / 100.0,
            (Some(_), _) => return Err(usage("--zeros must be between 0 and 100")),
        };
        let method = match self.method {
            MethodArg::Magnitude => Method::Magnitude,
            MethodArg::Random => Method::Random(self.seed),
            MethodArg::Wanda => Method::Wanda,
            MethodArg::Dsnot => Method::Dsnot,
            MethodArg::BetaRank | MethodArg::Optin => return Err(usage("Beta-Rank and OPTIN score channels")),
        };
        let scope = match self.scope {
            Some(ScopeArg::Row) => PruneScope::Row,
            Some(ScopeArg::Layer) => PruneScope::Layer,
            Some(ScopeArg::Network) => PruneScope::Network,
            None if method.needs_samples() => PruneScope::Row,
            None => PruneScope::Layer,
        };
        let layers = Choice { pointwise: self.pointwise, small: self.small, skip: self.skip.clone() };
        Ok(Recipe { method, pattern, scope, zeros, layers })
    }
}

fn usage(reason: &str) -> Failure {
    Failure::Usage(reason.into())
}

impl From<Outcome> for LayerReport {
    fn from(outcome: Outcome) -> Self {
        let Outcome { name, filters, weights, zeros } = outcome;
        Self { name, filters, weights, zeros }
    }
}

/// The report as text.
fn text(report: &Report) -> String {
    let mut layers = Table::new([
        ("layer", Align::Left),
        ("filters", Align::Right),
        ("", Align::Right),
        ("weights", Align::Right),
        ("", Align::Right),
        ("zeros", Align::Right),
        ("", Align::Right),
    ]);
    let mut row = |name: &str, [a, b]: [String; 2], weights: [usize; 2], zeros: [usize; 2]| {
        let share = |at: usize| effect::zeros(zeros[at], weights[at]);
        layers.row([name.into(), a, b, weights[0].to_string(), weights[1].to_string(), share(0), share(1)]);
    };
    let (mut weights, mut zeros) = ([0; 2], [0; 2]);
    for layer in &report.layers {
        for at in 0..2 {
            weights[at] += layer.weights[at];
            zeros[at] += layer.zeros[at];
        }
        row(&layer.name, layer.filters.map(|filters| filters.to_string()), layer.weights, layer.zeros);
    }
    row("all", [String::new(), String::new()], weights, zeros);
    let from = if report.samples > 0 { format!(" ({} images)", report.samples) } else { String::new() };
    format!("{}{from}, before and after\n\n{}\n{}", report.output, layers.render(""), report.effect.table())
}

/// `weights`, `2:4`, `4x1` or `channels`
fn parse_pattern(text: &str) -> Result<PatternArg, String> {
    if text == "channels" {
        return Ok(PatternArg::Channels);
    }
    let number = |text: &str| text.parse::<usize>().ok();
    let pattern = match (text, text.split_once(':'), text.split_once('x')) {
        ("weights", ..) => Some(Pattern::Weights),
        (_, Some((keep, of)), _) => {
            let pattern = number(keep).zip(number(of)).filter(|(keep, of)| *keep > 0 && keep < of);
            pattern.map(|(keep, of)| Pattern::OfEvery { keep, of })
        }
        (_, _, Some((rows, "1"))) => number(rows).filter(|rows| *rows > 0).map(Pattern::Block),
        _ => None,
    };
    pattern.map(PatternArg::Of).ok_or_else(|| "expected weights, channels, N:M such as 2:4, or 4x1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read() {
        assert_eq!(parse_pattern("weights"), Ok(PatternArg::Of(Pattern::Weights)));
        assert_eq!(parse_pattern("2:4"), Ok(PatternArg::Of(Pattern::OfEvery { keep: 2, of: 4 })));
        assert_eq!(parse_pattern("16x1"), Ok(PatternArg::Of(Pattern::Block(16))));
        assert_eq!(parse_pattern("channels"), Ok(PatternArg::Channels));
        for bad in ["", "4", "4:4", "0:4", "1x4", "0x1", "x1", "a:b", "-1:4"] {
            assert!(parse_pattern(bad).is_err(), "{bad}");
        }
    }
}

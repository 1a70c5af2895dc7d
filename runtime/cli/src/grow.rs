//! `skipstone widen` and `skipstone deepen`: larger networks with the same outputs.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use skipstone_transform::deepen::{Deepening, deepen};
use skipstone_transform::widen::{Widening, widen};

use crate::args::ModelArgs;
use crate::effect::Effect;
use crate::failure::Failure;
use crate::files;
use crate::output::{json, print};
use crate::table::{Align, Table};

/// Widen a model: more channels, the same outputs
#[derive(Args, Debug)]
#[command(after_help = "\
The result is a standard ONNX file that computes the same, at a higher cost: the start of a training that does not begin
anew. New channels are copies, whose weights in the next layer are shared out unevenly, so that they become different.

Examples:
  skipstone widen model.onnx --by 50 -o wide.onnx
  skipstone widen model.onnx --by 100 --skip head -o wide.onnx")]
pub struct Widen {
    #[command(flatten)]
    model: ModelArgs,

    /// New channels, as a percentage of those that a layer has
    #[arg(long, value_name = "PERCENT")]
    by: f64,

    /// Name of a layer that keeps its channels; give it once for each
    #[arg(long, value_name = "NODE")]
    skip: Vec<String>,

    /// Seed of the choice of channels
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    result: ResultArgs,
}

/// Deepen a model: more layers, the same outputs
#[derive(Args, Debug)]
#[command(after_help = "\
The result is a standard ONNX file that computes the same, at a higher cost: the start of a training that does not begin
anew. Behind each NODE, a Relu or a Clip, comes a convolution that gives back what it reads, or a product where there is no
image, and the activation again.

Examples:
  skipstone deepen model.onnx --after Relu_3 -o deep.onnx
  skipstone deepen model.onnx --after Relu_3 --after Relu_7 --kernel 1 -o deep.onnx")]
pub struct Deepen {
    #[command(flatten)]
    model: ModelArgs,

    /// Name of an activation that a layer is put behind; give it once for each
    #[arg(long, value_name = "NODE", required = true)]
    after: Vec<String>,

    /// Rows and columns of a new convolution
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse_kernel)]
    kernel: usize,

    #[command(flatten)]
    result: ResultArgs,
}

/// Where the model goes.
#[derive(Args, Debug)]
struct ResultArgs {
    /// File to write
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    output: String,
    /// Layers whose filters are more than before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<Layer>,
    #[serde(flatten)]
    effect: Effect,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    /// Before and after.
    filters: [usize; 2],
}

impl Widen {
    /// Writes the wider model.
    pub fn execute(self) -> Result<(), Failure> {
        if !(self.by > 0.0 && self.by <= 700.0) {
            return Err(Failure::Usage("--by must be above 0 and at most 700".into()));
        }
        let bytes = files::read(&self.model.path)?;
        let widening = Widening { by: self.by / 100.0, seed: self.seed, skip: self.skip };
        let widened = widen(&bytes, &widening, &self.model.options())?;
        let layers = widened.layers.into_iter().filter(|(_, [before, after])| before != after);
        let layers = layers.map(|(name, filters)| Layer { name, filters }).collect();
        self.result.write(&self.model, layers, &bytes, &widened.bytes)
    }
}

impl Deepen {
    /// Writes the deeper model.
    pub fn execute(self) -> Result<(), Failure> {
        let bytes = files::read(&self.model.path)?;
        let deepening = Deepening { after: self.after, kernel: self.kernel };
        let deep = deepen(&bytes, &deepening, &self.model.options())?;
        self.result.write(&self.model, Vec::new(), &bytes, &deep)
    }
}

impl ResultArgs {
    fn write(&self, model: &ModelArgs, layers: Vec<Layer>, before: &[u8], after: &[u8]) -> Result<(), Failure> {
        let report = Report {
            model: model.name(),
            output: self.output.display().to_string(),
            layers,
            effect: Effect::measure(before, after, &model.options())?,
        };
        files::write(&self.output, after)?;
        print(&if self.json { json(&report)? } else { text(&report) })
    }
}

/// The report for a person.
fn text(report: &Report) -> String {
    let mut layers = Table::new([("layer", Align::Left), ("filters", Align::Right), ("", Align::Right)]);
    for Layer { name, filters: [before, after] } in &report.layers {
        layers.row([name.clone(), before.to_string(), after.to_string()]);
    }
    let layers = if report.layers.is_empty() { String::new() } else { format!("{}\n", layers.render("")) };
    format!("{}, before and after\n\n{layers}{}", report.output, report.effect.table())
}

/// An odd number.
fn parse_kernel(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|side: &usize| side % 2 == 1).ok_or_else(|| "expected an odd number".into())
}

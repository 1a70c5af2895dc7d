//! `skipstone experts`: splits feed-forward blocks into experts, or makes experts fewer.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde::Serialize;
use skipstone::Model;
use skipstone_transform::experts::{Fewer, Outcome, Reduction, Split, reduce, split};

use crate::args::ModelArgs;
use crate::calibration::{CalibrationArgs, as_sample};
use crate::effect::Effect;
use crate::failure::Failure;
use crate::files;
use crate::numbers::percent;
use crate::output::{json, print};
use crate::table::{Align, Table};

/// Most experts whose numbers are listed in a line of the report.
const LISTED: usize = 16;

/// Split layers into experts, of which each token computes a few; or merge or drop experts
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("how").required(true).args(["split", "merge", "drop"]),
    after_help = "\
A feed-forward block is a matrix product or 1x1 convolution, an activation, and another one; gated ones are too. --split groups
its neurons by the tokens (or pixels) that they are active for, and finds a router by least squares that gives each token its
experts. With --top equal to --split the answer is the one before. --merge and --drop are for models with experts: those that
--split made, or trained ones whose weights are gathered, or com.microsoft MoE.

All run the model on the images in FOLDER; a few hundred like those that it will see. The result is a standard ONNX file. Without
further training a network loses accuracy: measure it with `skipstone evaluate`.

Examples:
  skipstone experts model.onnx --split 8 --top 4 --calibrate photos/ -o experts.onnx
  skipstone experts model.onnx --split 16 --top 2 --shared 25 --one-router --calibrate photos/ -o experts.onnx
  skipstone experts experts.onnx --drop 6 --calibrate photos/ -o fewer.onnx"
)]
pub struct ExpertsOf {
    #[command(flatten)]
    model: ModelArgs,

    /// File to write
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,

    /// Split every feed-forward block into N experts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=1024))]
    split: Option<u16>,

    /// Merge experts that are scored alike until N are left
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    merge: Option<u16>,

    /// Drop the least used experts until N are left
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    drop: Option<u16>,

    /// Experts of a token, with --split [default: half of them]
    #[arg(long, value_name = "N", requires = "split", value_parser = clap::value_parser!(u16).range(1..))]
    top: Option<u16>,

    /// Percentage of the neurons that every token computes, with --split: those that add most on average
    #[arg(long, value_name = "PERCENT", requires = "split")]
    shared: Option<f64>,

    /// Let the router of the first block choose for all, so that a run's experts are known early, with --split
    #[arg(long, requires = "split")]
    one_router: bool,

    /// Name of a layer whose block stays as it is, with --split; give it once for each
    #[arg(long, value_name = "NODE", requires = "split")]
    skip: Vec<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    calibration: CalibrationArgs,
}

#[derive(Serialize)]
struct Report {
    model: String,
    output: String,
    /// Number of images that the model was run on.
    samples: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<Block>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routers: Vec<Router>,
    #[serde(flatten)]
    effect: Effect,
}

/// A block that was split.
#[derive(Serialize)]
struct Block {
    name: String,
    neurons: usize,
    /// Neurons that every token computes.
    shared: usize,
    /// Neurons of an expert.
    each: usize,
    /// The share of the tokens that chose each expert.
    usage: Vec<f64>,
    /// The share of the variance of the outputs that is lost.
    lost: f64,
}

/// A router with fewer experts.
#[derive(Serialize)]
struct Router {
    name: String,
    /// The share of the tokens that chose each expert before.
    usage: Vec<f64>,
    /// The experts that each one was made of.
    members: Vec<Vec<usize>>,
}

impl ExpertsOf {
    /// Writes the model with experts, or with fewer.
    pub fn execute(self) -> Result<(), Failure> {
        let usage = |reason: &str| Failure::Usage(reason.into());
        if self.calibration.calibrate.is_none() {
            return Err(usage("experts are found on images: give their folder with --calibrate"));
        }
        let share = self.shared.unwrap_or(0.0);
        if !(0.0..100.0).contains(&share) {
            return Err(usage("--shared must be at least 0 and below 100"));
        }
        if self.top > self.split {
            return Err(usage("--top must be at most --split"));
        }
        let options = self.model.options();
        let bytes = files::read(&self.model.path)?;
        let model = Model::from_bytes(&bytes, &options)?;
        let none = || as_sample(usage("there are no images"));
        let mut pictures = self.calibration.pictures(&model, 1)?.ok_or_else(none)?;
        drop(model);
        let samples = skipstone_transform::Samples::len(&pictures);
        let (written, blocks, routers) = match (self.split, self.merge, self.drop) {
            (Some(experts), ..) => {
                let wanted = Split {
                    experts: usize::from(experts),
                    top: usize::from(self.top.unwrap_or(experts.div_ceil(2))),
                    shared: share / 100.0,
                    one_router: self.one_router,
                    skip: self.skip,
                };
                let divided = split(&bytes, &wanted, &mut pictures, &options)?;
                (divided.bytes, divided.blocks, Vec::new())
            }
            (_, Some(left), _) => {
                let merged = reduce(&bytes, Reduction::Merge(usize::from(left)), &mut pictures, &options)?;
                (merged.bytes, Vec::new(), merged.routers)
            }
            (.., left) => {
                let left = usize::from(left.unwrap_or(1));
                let fewer = reduce(&bytes, Reduction::Drop(left), &mut pictures, &options)?;
                (fewer.bytes, Vec::new(), fewer.routers)
            }
        };
        std::mem::drop(pictures);
        let report = Report {
            model: self.model.name(),
            output: self.output.display().to_string(),
            samples,
            blocks: blocks.into_iter().map(Block::from).collect(),
            routers: routers.into_iter().map(Router::from).collect(),
            effect: Effect::measure(&bytes, &written, &options)?,
        };
        files::write(&self.output, &written)?;
        print(&if self.json { json(&report)? } else { text(&report) })
    }
}

impl From<Outcome> for Block {
    fn from(outcome: Outcome) -> Self {
        let Outcome { name, neurons, shared, each, usage, lost } = outcome;
        Self { name, neurons, shared, each, usage, lost }
    }
}

impl From<Fewer> for Router {
    fn from(fewer: Fewer) -> Self {
        let Fewer { name, usage, members } = fewer;
        Self { name, usage, members }
    }
}

/// The report as text.
fn text(report: &Report) -> String {
    let (table, note) = if report.routers.is_empty() { blocks(&report.blocks) } else { routers(&report.routers) };
    let head = format!("{} ({} images), before and after", report.output, report.samples);
    format!("{head}\n\n{}\n{note}\n\n{}", table.render(""), report.effect.table())
}

fn blocks(blocks: &[Block]) -> (Table, &'static str) {
    let mut table = Table::new([
        ("block", Align::Left),
        ("neurons", Align::Right),
        ("shared", Align::Right),
        ("experts", Align::Right),
        ("lost", Align::Right),
        ("tokens of each expert, %", Align::Left),
    ]);
    for Block { name, neurons, shared, each, usage, lost } in blocks {
        table.row([
            name.clone(),
            neurons.to_string(),
            shared.to_string(),
            format!("{} x {each}", usage.len()),
            percent(*lost),
            shares(usage),
        ]);
    }
    (
        table,
        "lost: share of the variance of the block's outputs on the images, of which the experts left out are the cause",
    )
}

fn routers(routers: &[Router]) -> (Table, &'static str) {
    let mut table = Table::new([
        ("router", Align::Left),
        ("experts", Align::Right),
        ("", Align::Right),
        ("tokens of each before, %", Align::Left),
        ("made of", Align::Left),
    ]);
    for Router { name, usage, members } in routers {
        let of = |cluster: &Vec<usize>| cluster.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
        table.row([
            name.clone(),
            usage.len().to_string(),
            members.len().to_string(),
            shares(usage),
            listed(members.iter().map(of)),
        ]);
    }
    (table, "made of: the experts before, counted from 0, that each one stands for")
}

fn shares(usage: &[f64]) -> String {
    listed(usage.iter().map(|share| format!("{:.0}", 100.0 * share)))
}

/// The first items, separated by spaces.
fn listed(mut items: impl Iterator<Item = String>) -> String {
    let first: Vec<String> = items.by_ref().take(LISTED).collect();
    let rest = items.count();
    format!("{}{}", first.join(" "), if rest > 0 { format!(" and {rest} more") } else { String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(shares(&[0.5, 0.256, 0.0]), "50 26 0");
        assert!(listed((0..20).map(|i| i.to_string())).ends_with(" 15 and 4 more"));
    }
}

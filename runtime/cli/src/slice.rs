//! `skipstone slice`: a part of a network as a network of its own.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use skipstone_transform::slice::{Slice, slice};

use crate::args::ModelArgs;
use crate::effect::Effect;
use crate::failure::Failure;
use crate::files;
use crate::output::{json, print};

/// Slice a model: take a narrower, shallower or smaller network out of it
#[derive(Args, Debug)]
#[command(after_help = "\
The result is a standard ONNX file. A supernet is trained so that its parts work as they are; other networks lose accuracy
and have to be trained further: measure it with `skipstone evaluate`.

Examples:
  skipstone slice supernet.onnx --width 50 --kernel 3 --size 160x160 -o child.onnx
  skipstone slice model.onnx --drop Add_7 --drop Add_12 -o shallow.onnx")]
pub struct SliceOf {
    #[command(flatten)]
    model: ModelArgs,

    /// File to write
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,

    /// Percentage of the channels to keep: the first ones of every layer
    #[arg(long, value_name = "PERCENT")]
    width: Option<f64>,

    /// Crop larger kernels to their middle rows and columns
    #[arg(long, value_name = "N")]
    kernel: Option<usize>,

    /// Name of a node to leave out, the sum of a residual block or one that keeps the shape of its input; give it once for
    /// each
    #[arg(long, value_name = "NODE")]
    drop: Vec<String>,

    /// Rows and columns of the input image
    #[arg(long, value_name = "ROWSxCOLUMNS", value_parser = parse_size)]
    size: Option<[usize; 2]>,

    /// Name of a layer that keeps its channels and its kernel; give it once for each
    #[arg(long, value_name = "NODE")]
    skip: Vec<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    output: String,
    #[serde(flatten)]
    effect: Effect,
}

impl SliceOf {
    /// Writes the part.
    pub fn execute(self) -> Result<(), Failure> {
        let usage = |reason: &str| Err(Failure::Usage(reason.into()));
        if self.width.is_none() && self.kernel.is_none() && self.drop.is_empty() && self.size.is_none() {
            return usage("say which part: --width, --kernel, --drop or --size");
        }
        if self.width.is_some_and(|width| !(width > 0.0 && width <= 100.0)) {
            return usage("--width must be above 0 and at most 100");
        }
        if self.kernel == Some(0) {
            return usage("--kernel must be at least 1");
        }
        let options = self.model.options();
        let bytes = files::read(&self.model.path)?;
        let part = Slice {
            width: self.width.map(|width| width / 100.0),
            kernel: self.kernel,
            drop: self.drop,
            size: self.size,
            skip: self.skip,
        };
        let sliced = slice(&bytes, &part, &options)?;
        let report = Report {
            model: self.model.name(),
            output: self.output.display().to_string(),
            effect: Effect::measure(&bytes, &sliced, &options)?,
        };
        files::write(&self.output, &sliced)?;
        let text = || format!("{}, before and after\n\n{}", report.output, report.effect.table());
        print(&if self.json { json(&report)? } else { text() })
    }
}

/// `160x160`
fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let side = |text: &str| text.parse().ok().filter(|&side: &usize| side > 0);
    let sides = text.split_once('x').and_then(|(rows, columns)| Some([side(rows)?, side(columns)?]));
    sides.ok_or_else(|| "expected ROWSxCOLUMNS, such as 160x160".into())
}

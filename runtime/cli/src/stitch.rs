//! `skipstone stitch`: two models of one family in one file, with a switch.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use skipstone::measure::Latency;
use skipstone::plan::Plan;
use skipstone::{Model, Options};
use skipstone_transform::stitch::{Configuration, SETTING, Stitched, stitch};

use crate::args::ModelArgs;
use crate::calibration::{CalibrationArgs, as_sample};
use crate::effect::Pairs;
use crate::failure::Failure;
use crate::files;
use crate::numbers::{bytes, count, ms, percent};
use crate::output::{json, print};
use crate::table::{Align, Table};

/// No further run of a configuration starts after this time.
const ENOUGH: Duration = Duration::from_millis(500);

/// Stitch a small and a large model into one that switches between them, and mixtures, without loading
#[derive(Args, Debug)]
#[command(after_help = "\
The models are of one family: ONNX files with the same inputs, outputs and preprocessing, such as two widths of a network. The
result is a standard ONNX file with one more input, `configuration`: 0 is the small model, the largest number the large one,
which is the default. Those between run the front of the small model and the back of the large one, joined by a layer that
least squares finds on the images in FOLDER: a few hundred. Further training makes them better.

Examples:
  skipstone stitch small.onnx large.onnx --calibrate photos/ -o both.onnx
  skipstone evaluate both.onnx validation/ --set configuration=2")]
pub struct StitchOf {
    /// The small model
    #[command(flatten)]
    model: ModelArgs,

    /// The large model
    #[arg(value_name = "LARGE")]
    large: PathBuf,

    /// File to write
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,

    /// Most places to stitch at, evenly over the depth
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    points: u16,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    calibration: CalibrationArgs,
}

#[derive(Serialize)]
struct Report {
    output: String,
    file_bytes: u64,
    /// Sizes of the two models' files.
    parts_bytes: [u64; 2],
    /// Number of images that the stitches were found on.
    samples: usize,
    configurations: Vec<Row>,
}

/// A configuration.
#[derive(Serialize)]
struct Row {
    /// The value of the setting.
    number: usize,
    /// The last value of the small model that is computed.
    small: Option<String>,
    /// The value of the large model that is computed from it.
    large: Option<String>,
    /// The share of its variance that the stitch does not explain.
    unexplained: Option<f64>,
    /// Multiply-adds; absent if tract runs the whole model.
    macs: Option<u64>,
    /// Median time of a run.
    ms: f64,
    /// Median of the ratios to a file with this configuration alone.
    ratio: f64,
}

impl StitchOf {
    /// Writes the file with both.
    pub fn execute(self) -> Result<(), Failure> {
        if self.calibration.calibrate.is_none() {
            return Err(Failure::Usage("stitches are found on images: give their folder with --calibrate".into()));
        }
        let options = self.model.options();
        let parts = [files::read(&self.model.path)?, files::read(&self.large)?];
        let model = Model::from_bytes(&parts[0], &options)?;
        let none = || as_sample(Failure::Usage("there are no images".into()));
        let mut pictures = self.calibration.pictures(&model, 1)?.ok_or_else(none)?;
        let samples = skipstone_transform::Samples::len(&pictures);
        let stitched = stitch(&parts[0], &parts[1], usize::from(self.points), &mut pictures, &options)?;
        drop(pictures);
        let report = Report {
            output: self.output.display().to_string(),
            file_bytes: stitched.bytes.len() as u64,
            parts_bytes: parts.map(|part| part.len() as u64),
            samples,
            configurations: measured(&stitched, &options)?,
        };
        files::write(&self.output, &stitched.bytes)?;
        print(&if self.json { json(&report)? } else { text(&report) })
    }
}

/// Runs every configuration in turns with a file of its own.
fn measured(stitched: &Stitched, options: &Options) -> Result<Vec<Row>, Failure> {
    let switched = Model::from_bytes(&stitched.bytes, options)?;
    let row = |(number, configuration): (usize, &Configuration)| {
        let alone = Model::from_bytes(&configuration.alone, options)?;
        let mut sessions = [alone.session()?, switched.session()?];
        sessions[1].set(SETTING, number as f64)?;
        let Pairs { times, ratio } = Pairs::run(&mut sessions, ENOUGH)?;
        let Configuration { small, large, unexplained, .. } = configuration.clone();
        let macs = alone.plan().map(Plan::macs);
        let ms = Latency::of(&times[1]).map_or(0.0, |latency| latency.p50);
        Ok(Row { number, small, large, unexplained, macs, ms, ratio })
    };
    stitched.configurations.iter().enumerate().map(row).collect()
}

/// The report as text.
fn text(report: &Report) -> String {
    let mut table = Table::new([
        ("", Align::Right),
        ("small model up to", Align::Left),
        ("large model from", Align::Left),
        ("unexplained", Align::Right),
        ("multiply-adds", Align::Right),
        ("latency, ms", Align::Right),
        ("alone", Align::Right),
    ]);
    for row in &report.configurations {
        table.row([
            row.number.to_string(),
            row.small.clone().unwrap_or_default(),
            row.large.clone().unwrap_or_else(|| if row.small.is_none() { "its input".into() } else { String::new() }),
            row.unexplained.map_or_else(String::new, percent),
            row.macs.map_or_else(String::new, count),
            ms(row.ms),
            format!("{:.2}", row.ratio),
        ]);
    }
    let [small, large] = report.parts_bytes.map(bytes);
    let sizes = format!("{}: {}, of {small} and {large}", report.output, bytes(report.file_bytes));
    let notes = "unexplained: share of the variance of the large model's value, on the images; alone: latency divided by that of\n\
                 a file with this configuration alone. The default is the last; choose with --set configuration=N.";
    format!("{sizes} ({} images)\n\n{}\n{notes}\n", report.samples, table.render(""))
}

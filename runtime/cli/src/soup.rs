//! `skipstone soup`: averages models of one architecture.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use skipstone::Model;
use skipstone_transform::soup::{Soup, greedy, passes, recalibrate, uniform};

use crate::args::ModelArgs;
use crate::calibration::{CalibrationArgs, as_sample};
use crate::effect::Effect;
use crate::evaluate;
use crate::failure::Failure;
use crate::files;
use crate::numbers::percent;
use crate::output::{json, print};
use crate::table::{Align, Table};

/// Average several models of one architecture into one
#[derive(Args, Debug)]
#[command(after_help = "\
The models are ONNX files of one network, trained or fine-tuned from the same start with other seeds, data or rates. Their
mean is often better than each of them and costs no more than one. Of pruned models, the zeros must be in the same places;
there they stay.

With --evaluate the soup is greedy: it starts with the model that is right most often on the images in FOLDER, which has a
directory for each class as for `skipstone evaluate`, and adds those that make it better. With --calibrate the statistics of
BatchNorm are measured again, which a soup of networks that use it needs; a few hundred images are enough.

Examples:
  skipstone soup seed1.onnx seed2.onnx seed3.onnx -o soup.onnx
  skipstone soup seed*.onnx --evaluate validation/ --calibrate photos/ -o soup.onnx")]
pub struct SoupOf {
    #[command(flatten)]
    model: ModelArgs,

    /// The other models
    #[arg(value_name = "MODELS", required = true)]
    others: Vec<PathBuf>,

    /// File to write
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,

    /// Add only models that make the soup better on these images
    #[arg(long, value_name = "FOLDER")]
    evaluate: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    calibration: CalibrationArgs,
}

#[derive(Serialize)]
struct Report {
    output: String,
    models: Vec<Part>,
    /// Share of the images of --evaluate that the soup names right.
    top1: Option<f64>,
    /// The first model and the soup.
    #[serde(flatten)]
    effect: Effect,
}

#[derive(Serialize)]
struct Part {
    model: String,
    /// Share of the images of --evaluate that it names right.
    top1: Option<f64>,
    /// Whether it is in the soup.
    used: bool,
}

impl SoupOf {
    /// Writes the soup.
    pub fn execute(self) -> Result<(), Failure> {
        let paths: Vec<&PathBuf> = std::iter::once(&self.model.path).chain(&self.others).collect();
        let models: Vec<Vec<u8>> = paths.iter().map(|path| files::read(path)).collect::<Result<_, _>>()?;
        let mut top1 = vec![None; models.len()];
        let mut soup = match &self.evaluate {
            None => uniform(&models)?,
            Some(_) => {
                for (model, top1) in models.iter().zip(&mut top1) {
                    *top1 = self.top1(model)?;
                }
                self.greedy(&models, &top1)?
            }
        };
        if self.calibration.calibrate.is_some() {
            soup.bytes = self.recalibrated(&soup, &models)?;
        }
        let part = |(at, path): (usize, &&PathBuf)| Part {
            model: path.display().to_string(),
            top1: top1[at],
            used: soup.parts.contains(&at),
        };
        let report = Report {
            output: self.output.display().to_string(),
            models: paths.iter().enumerate().map(part).collect(),
            top1: self.top1(&soup.bytes)?,
            effect: Effect::measure(&models[0], &soup.bytes, &self.model.options())?,
        };
        files::write(&self.output, &soup.bytes)?;
        print(&if self.json { json(&report)? } else { text(&report) })
    }

    /// Share of the images of `--evaluate` that a model names right.
    fn top1(&self, model: &[u8]) -> Result<Option<f64>, Failure> {
        let folder = self.evaluate.as_deref();
        folder.map(|folder| evaluate::accuracy(model, &self.model, &self.calibration.image, folder)).transpose()
    }

    fn greedy(&self, models: &[Vec<u8>], known: &[Option<f64>]) -> Result<Soup, Failure> {
        let mut score = |bytes: &[u8]| {
            // The models themselves have been judged.
            let known = models.iter().zip(known).find(|(model, _)| model.as_slice() == bytes);
            let score = known.map_or_else(|| self.top1(bytes), |(_, known)| Ok(*known)).map_err(as_sample)?;
            Ok(score.unwrap_or(0.0))
        };
        Ok(greedy(models, &mut score)?)
    }

    fn recalibrated(&self, soup: &Soup, models: &[Vec<u8>]) -> Result<Vec<u8>, Failure> {
        let options = self.model.options();
        let model = Model::from_bytes(&soup.bytes, &options)?;
        let parts: Vec<Vec<u8>> = soup.parts.iter().map(|&part| models[part].clone()).collect();
        let rounds = passes(&soup.bytes, parts.len())?;
        match self.calibration.pictures(&model, rounds)? {
            Some(mut pictures) => Ok(recalibrate(&soup.bytes, &parts, &mut pictures, &options)?),
            None => Ok(soup.bytes.clone()),
        }
    }
}

/// The report for a person.
fn text(report: &Report) -> String {
    let mut models = Table::new([("model", Align::Left), ("in the soup", Align::Left), ("top-1", Align::Right)]);
    let top1 = |top1: Option<f64>| top1.map_or_else(String::new, percent);
    for part in &report.models {
        let used = if part.used { "yes" } else { "no" };
        models.row([part.model.clone(), used.into(), top1(part.top1)]);
    }
    models.row([report.output.clone(), String::new(), top1(report.top1)]);
    format!("{}\nthe first model and the soup\n\n{}", models.render(""), report.effect.table())
}

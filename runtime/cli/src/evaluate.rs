//! `skipstone evaluate`: measures the accuracy of a classifier.
//!
//! Images are independent, so threads share the model and each thread processes whole images.
//! That scales better than several threads per image, and also spreads the decoding.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use skipstone::classify::{Classifier, Labels, Settings, top_k};
use skipstone::measure::Latency;
use skipstone::{Model, Options};

use crate::args::{ImageArgs, ModelArgs, RuleArgs};
use crate::classify::Failed;
use crate::failure::Failure;
use crate::output::{json, print};
use crate::progress::Progress;
use crate::table::{Align, Table};
use crate::{images, numbers};

/// The k of top-k accuracy.
const BEST: usize = 5;

/// Measure a classifier's accuracy on a folder of images
#[derive(Args, Debug)]
#[command(after_help = "\
DATASET_DIR holds a folder for each class, named by its label or by its index:
  dataset/cat/1.png  dataset/cat/2.png  dataset/dog/1.png  ...
Images are prepared as for `skipstone classify`. --threads distributes the images over threads.

An image that cannot be read is reported and not counted, and the exit status is 1.

Examples:
  skipstone evaluate model.onnx dataset/
  skipstone evaluate model.onnx dataset/ --threads 8 --json
  skipstone evaluate imagenet.onnx val/ --labels synsets.txt --resize 256")]
pub struct Evaluate {
    #[command(flatten)]
    model: ModelArgs,

    /// Directory with a folder for each class
    #[arg(value_name = "DATASET_DIR")]
    dataset: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    rule: RuleArgs,
}

/// An image and its true class.
struct Sample {
    file: PathBuf,
    class: usize,
}

/// The model's prediction for a sample.
struct Verdict {
    /// The class with the highest score.
    best: usize,
    /// Rank of the true class, if it is among the best.
    rank: Option<usize>,
    /// Time of inference, without decoding.
    time: Duration,
}

/// Counts of one class.
#[derive(Clone, Default)]
struct Tally {
    images: usize,
    top1: usize,
    top5: usize,
    /// Count of misclassified images, by predicted class.
    mistaken: BTreeMap<usize, usize>,
}

#[derive(Serialize)]
struct Report {
    model: String,
    dataset: String,
    images: usize,
    top1: f64,
    top5: f64,
    images_per_second: f64,
    /// Median time of inference, without decoding.
    ms: f64,
    classes: Vec<ClassReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct ClassReport {
    index: usize,
    label: String,
    images: usize,
    top1: f64,
    top5: f64,
    /// The class that its images are most often mistaken for.
    mistaken_for: Option<String>,
}

impl Evaluate {
    /// Classifies the data set and reports the accuracy.
    pub fn execute(self) -> Result<(), Failure> {
        let model = self.model.open_with(&options(&self.model))?;
        let settings = Settings { rule: self.rule.rule()?, ..self.image.settings() };
        let names = self.image.labels()?;
        let Judged { labels, outcome, wall } = judged(&model, &self.model, &settings, names, &self.dataset)?;
        let report = self.report(&labels, outcome, wall);
        print(&if self.json { json(&report)? } else { text(&report) })?;
        if report.failed.is_empty() { Ok(()) } else { Err(Failure::Reported) }
    }

    fn report(&self, labels: &Labels, outcome: Outcome, wall: Duration) -> Report {
        let part = |count: usize, images: usize| if images > 0 { count as f64 / images as f64 } else { 0.0 };
        let sum = |of: fn(&Tally) -> usize| outcome.tallies.values().map(of).sum::<usize>();
        let images = sum(|tally| tally.images);
        let class = |(&index, tally): (&usize, &Tally)| {
            // The first class of a tie.
            let mistaken = tally.mistaken.iter().max_by_key(|&(&index, &count)| (count, std::cmp::Reverse(index)));
            ClassReport {
                index,
                label: labels.name(index),
                images: tally.images,
                top1: part(tally.top1, tally.images),
                top5: part(tally.top5, tally.images),
                mistaken_for: mistaken.map(|(&index, _)| labels.name(index)),
            }
        };
        Report {
            model: self.model.name(),
            dataset: self.dataset.display().to_string(),
            images,
            top1: part(sum(|tally| tally.top1), images),
            top5: part(sum(|tally| tally.top5), images),
            images_per_second: images as f64 / wall.as_secs_f64().max(1e-9),
            ms: Latency::of(&outcome.times).map_or(0.0, |latency| latency.p50),
            classes: outcome.tallies.iter().map(class).collect(),
            failed: outcome.failed,
        }
    }
}

/// Share of the images in a data set that a model, a file as bytes, names right.
///
/// # Errors
/// Those of the model and the data set; an image that cannot be read.
pub fn accuracy(bytes: &[u8], args: &ModelArgs, image: &ImageArgs, dataset: &Path) -> Result<f64, Failure> {
    let model = Model::from_bytes(bytes, &options(args))?;
    let Judged { outcome, .. } = judged(&model, args, &image.settings(), image.labels()?, dataset)?;
    if let Some(Failed { file, error }) = outcome.failed.first() {
        return Err(Failure::new("dataset", format!("{file}: {error}")));
    }
    let right: usize = outcome.tallies.values().map(|tally| tally.top1).sum();
    Ok(right as f64 / outcome.times.len().max(1) as f64)
}

/// One thread per session, as the sessions run in parallel.
fn options(args: &ModelArgs) -> Options {
    Options { threads: 1, ..args.options() }
}

/// A model's results on a data set.
struct Judged {
    labels: Labels,
    outcome: Outcome,
    wall: Duration,
}

fn judged(
    model: &Model,
    args: &ModelArgs,
    settings: &Settings,
    names: Option<Labels>,
    dataset: &Path,
) -> Result<Judged, Failure> {
    let classifier = || Classifier::new(model, settings, names.clone());
    let mut first = classifier()?;
    args.prepare(first.session())?;
    let labels = first.labels().clone();
    let samples = samples(dataset, &labels, first.classes())?;
    let mut sessions = vec![first];
    while sessions.len() < args.threads.min(samples.len()) {
        sessions.push(classifier()?);
    }
    let began = Instant::now();
    let outcome = judge(sessions, args, &samples);
    Ok(Judged { labels, outcome, wall: began.elapsed() })
}

/// Results over all samples.
#[derive(Default)]
struct Outcome {
    tallies: BTreeMap<usize, Tally>,
    times: Vec<Duration>,
    failed: Vec<Failed>,
}

/// Runs all sessions in parallel; each takes samples until none are left.
fn judge(sessions: Vec<Classifier>, model: &ModelArgs, samples: &[Sample]) -> Outcome {
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for mut session in sessions {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                while let Some(sample) = samples.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if send.send((sample, verdict(&mut session, model, sample))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut outcome = Outcome::default();
        let mut progress = Progress::new(samples.len());
        for (sample, verdict) in receive {
            match verdict {
                Ok(verdict) => outcome.count(sample.class, &verdict),
                Err(failure) => {
                    progress.report(&failure);
                    let file = sample.file.display().to_string();
                    outcome.failed.push(Failed { file, error: failure.to_string() });
                }
            }
            progress.step();
        }
        outcome.failed.sort_by(|a, b| a.file.cmp(&b.file));
        outcome
    })
}

impl Outcome {
    fn count(&mut self, class: usize, verdict: &Verdict) {
        let tally = self.tallies.entry(class).or_default();
        tally.images += 1;
        tally.top1 += usize::from(verdict.rank == Some(0));
        tally.top5 += usize::from(verdict.rank.is_some());
        if verdict.best != class {
            *tally.mistaken.entry(verdict.best).or_default() += 1;
        }
        self.times.push(verdict.time);
    }
}

fn verdict(session: &mut Classifier, model: &ModelArgs, sample: &Sample) -> Result<Verdict, Failure> {
    let image = images::decode(&sample.file)?;
    let prepared = session.prepare(images::view(&image)?);
    model.prepare(session.session())?;
    let began = Instant::now();
    let scores = session.scores(&prepared).map_err(|error| Failure::from(error).of(&sample.file))?;
    let time = began.elapsed();
    let best = top_k(&scores, BEST);
    let rank = best.iter().position(|scored| scored.index == sample.class);
    let best = best.first().ok_or_else(|| Failure::new("model.output", "the model returns no scores"))?;
    Ok(Verdict { best: best.index, rank, time })
}

/// All images of the data set, in the order of folders and files.
fn samples(dataset: &Path, labels: &Labels, classes: usize) -> Result<Vec<Sample>, Failure> {
    let refused = |error: std::io::Error| Failure::io(dataset, &error);
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dataset).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            folders.push((name, entry.path()));
        }
    }
    folders.sort_unstable();
    let mut samples = Vec::new();
    for (name, folder) in folders {
        let class = class_of(&name, labels, classes)?;
        let mut files = Vec::new();
        images::walk(&folder, &mut files)?;
        samples.extend(files.into_iter().map(|file| Sample { file, class }));
    }
    if samples.is_empty() {
        return Err(Failure::new("dataset", format!("{}: no class folders with images", dataset.display())));
    }
    Ok(samples)
}

/// The class of a folder, whose name is a label or else an index.
fn class_of(folder: &str, labels: &Labels, classes: usize) -> Result<usize, Failure> {
    if let Some(index) = labels.index_of(folder) {
        return Ok(index);
    }
    folder.parse().ok().filter(|&index| index < classes).ok_or_else(|| {
        let hint = if labels.is_empty() { "the model has no labels: give them with --labels" } else { "see --labels" };
        Failure::new("dataset", format!("folder '{folder}' is neither a label nor an index below {classes}; {hint}"))
    })
}

fn text(report: &Report) -> String {
    let mut classes = Table::new([
        ("class", Align::Left),
        ("images", Align::Right),
        ("top-1", Align::Right),
        ("top-5", Align::Right),
        ("mostly mistaken for", Align::Left),
    ]);
    for class in &report.classes {
        classes.row([
            class.label.clone(),
            class.images.to_string(),
            numbers::percent(class.top1),
            numbers::percent(class.top5),
            class.mistaken_for.clone().unwrap_or_default(),
        ]);
    }
    format!(
        "{}\n{} images: top-1 {:.2} %, top-5 {:.2} %\n{} ms median, {:.0} images a second\n",
        classes.render(""),
        report.images,
        report.top1 * 100.0,
        report.top5 * 100.0,
        numbers::ms(report.ms),
        report.images_per_second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_labels_or_indices() {
        let labels = Labels::parse("cat\ndog\n7");
        assert_eq!(class_of("dog", &labels, 3).unwrap(), 1);
        assert_eq!(class_of("7", &labels, 3).unwrap(), 2);
        assert_eq!(class_of("0", &labels, 3).unwrap(), 0);
        assert_eq!(class_of("007", &Labels::default(), 10).unwrap(), 7);
        for unknown in ["bird", "3", "-1"] {
            assert!(class_of(unknown, &labels, 3).unwrap_err().to_string().contains(unknown));
        }
    }

    #[test]
    fn verdicts_are_counted() {
        let mut outcome = Outcome::default();
        for (class, best, rank) in [(0, 0, Some(0)), (0, 2, Some(1)), (0, 2, None), (1, 1, Some(0))] {
            outcome.count(class, &Verdict { best, rank, time: Duration::ZERO });
        }
        let tally = &outcome.tallies[&0];
        assert_eq!((tally.images, tally.top1, tally.top5, tally.mistaken[&2]), (3, 1, 2, 2));
        assert_eq!(outcome.tallies[&1].top1, 1);
    }
}

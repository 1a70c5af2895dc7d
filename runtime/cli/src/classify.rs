//! `skipstone classify`: classifies images.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use skipstone::classify::{Activation, Classifier, Normalization, Prediction, Settings};
use skipstone::measure::Latency;

use crate::args::{ImageArgs, ModelArgs};
use crate::failure::Failure;
use crate::heat::{Drawn, HeatArgs, HeatMap};
use crate::output::{json, print};
use crate::printable::printable;
use crate::progress::Progress;
use crate::table::{Align, Columns};
use crate::{files, images, numbers, output};

/// Classify images
#[derive(Args, Debug)]
#[command(after_help = "\
An image is resized so that its shorter side has the right length, the middle is cut out, and
its channels are normalized, as the model's metadata says (keys skipstone.labels, .fit, .resize, .crop,
.interpolation, .colors, .scale, .mean, .std, .activation); the image options override it. If the metadata is missing,
the size is that of the model's input and the normalization is ImageNet's. A model whose input is u8 gets the bytes. The
output ends with what was done to the images, their normalization and the kind of scores, and where each was specified.
The scores are the first output of floats; labels that are more or fewer than its classes are refused. The time is that
of the model alone, without reading the image.

An image that cannot be read, or whose scores are not numbers, is reported in one line on stderr, the others are
classified, and the exit status is 1. `-` is standard input, as the model or as an image.

--map draws an output that has a value for every place of the image, such as the heat map of a detector of defects, over
the image: nothing at the least value, yellow and then red towards the greatest. What the model did not see stays as it
is.

Examples:
  skipstone classify model.onnx cat.jpg
  skipstone classify model.onnx photos/ --top 1 --threads 2
  skipstone classify imagenet.onnx cat.jpg --labels classes.txt --resize 256
  skipstone classify keras.onnx cat.jpg --labels class_indices.json --resize stretch --scale 1/127.5 --mean 1
  skipstone classify caffe.onnx cat.jpg --colors bgr --scale 1 --mean 103.939,116.779,123.68
  skipstone classify defects.onnx part.jpg --map part-map.png
  curl -s https://example.org/cat.jpg | skipstone classify model.onnx -
  skipstone classify model.onnx photos/ --json > results.json")]
pub struct Classify {
    #[command(flatten)]
    model: ModelArgs,

    /// Images (png, jpg, bmp, webp), or directories with images; - is standard input
    #[arg(value_name = "IMAGE|DIR", required = true)]
    images: Vec<PathBuf>,

    /// Number of classes to show for each image
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    /// Show only classes with at least this score
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    threshold: Option<f32>,

    /// Show only these classes, by label or as 'class 7'
    #[arg(long, value_name = "LABEL,...", value_delimiter = ',')]
    allow: Vec<String>,

    /// Do not show these classes
    #[arg(long, value_name = "LABEL,...", value_delimiter = ',', conflicts_with = "allow")]
    deny: Vec<String>,

    /// Show names in this language, if the model has them (such as `skipstone.labels.de`)
    #[arg(long, value_name = "LOCALE")]
    locale: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    heat: HeatArgs,

    #[command(flatten)]
    image: ImageArgs,
}

#[derive(Serialize)]
struct Report {
    model: String,
    /// What the scores are, and where that was specified.
    scores: String,
    /// What is done to an image before its normalization.
    image: String,
    normalization: NormalizationReport,
    images: Vec<Classified>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct NormalizationReport {
    mean: Vec<f32>,
    std: Vec<f32>,
    /// The factor of a byte, before.
    scale: f32,
    /// Where it was specified.
    from: String,
}

#[derive(Serialize)]
struct Classified {
    file: String,
    ms: f64,
    top: Vec<Top>,
    /// The heat map, if it was drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<Drawn>,
}

#[derive(Serialize)]
struct Top {
    index: usize,
    label: String,
    /// The name in the requested language, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    score: f32,
}

/// An image that could not be classified.
#[derive(Serialize)]
pub struct Failed {
    pub file: String,
    pub error: String,
}

impl Classify {
    /// Classifies every image.
    pub fn execute(self) -> Result<(), Failure> {
        let labels = self.image.labels.as_deref();
        let streams = self.images.iter().map(PathBuf::as_path).chain([self.model.path.as_path()]).chain(labels);
        files::only_one_stream(streams)?;
        let labels = self.image.labels()?;
        let model = self.model.open()?;
        let settings = Settings {
            threshold: self.threshold,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            locale: self.locale.clone(),
            ..self.image.settings()
        };
        let mut classifier = Classifier::new(&model, &settings, labels)?;
        self.model.prepare(classifier.session())?;
        let files = images::find(&self.images)?;
        let heat = self.heat.map(&model)?;
        if heat.is_some() && files.len() != 1 {
            return Err(Failure::Usage(format!("--map draws over one image, but {} are given", files.len())));
        }
        if heat.as_ref().is_some_and(HeatMap::is_stream) {
            output::reserve();
        }

        let rows = (!self.json).then(|| TableRows::new(&files, &classifier));
        let Normalization { mean, std, scale, origin } = classifier.normalization().clone();
        let mut report = Report {
            model: self.model.name(),
            scores: classifier.head().to_string(),
            image: classifier.preprocess().to_string(),
            normalization: NormalizationReport { mean, std, scale, from: origin.to_string() },
            images: Vec::new(),
            failed: Vec::new(),
        };
        let (mut times, mut drawn) = (Vec::new(), None);
        let mut progress = Progress::beside_rows(files.len());
        if let Some(rows) = &rows {
            print(&rows.title())?;
        }
        for file in &files {
            match classify(&mut classifier, &self.model, file, self.top, heat.as_ref()) {
                Ok((classified, time)) => {
                    times.push(time);
                    match &rows {
                        Some(rows) => {
                            print(&rows.row(&classified))?;
                            drawn = classified.map;
                        }
                        None => report.images.push(classified),
                    }
                }
                Err(failure) => {
                    progress.report(&failure);
                    report.failed.push(Failed { file: file.display().to_string(), error: failure.to_string() });
                }
            }
            progress.step();
        }
        drop(progress);

        if self.json {
            print(&json(&report)?)?;
        } else {
            print(&format!("\nimage: {}\n", report.image))?;
            print(&format!("normalization: {}\n", printable(&classifier.normalization().to_string())))?;
            print(&format!("scores: {}\n", printable(&report.scores)))?;
            if let Some(drawn) = drawn {
                print(&format!("{}\n", printable(&drawn.to_string())))?;
            }
            if let (true, Some(latency)) = (files.len() > 1, Latency::of(&times)) {
                print(&format!("{} images, {} ms median\n", times.len(), numbers::ms(latency.p50)))?;
            }
        }
        if report.failed.is_empty() { Ok(()) } else { Err(Failure::Reported) }
    }
}

fn classify(
    classifier: &mut Classifier,
    model: &ModelArgs,
    file: &Path,
    top: usize,
    heat: Option<&HeatMap>,
) -> Result<(Classified, Duration), Failure> {
    let image = images::decode(file)?;
    let prepared = classifier.prepare(images::view(&image)?);
    model.prepare(classifier.session())?;
    let began = Instant::now();
    let scores = classifier.scores(&prepared).map_err(|error| Failure::from(error).of(file))?;
    let time = began.elapsed();
    let top = classifier.rank(&scores, top);
    let top = top.into_iter().map(|Prediction { index, label, score }| {
        let shown = classifier.display_names().name(index);
        let display_name = (shown != label).then_some(shown);
        Top { index, label, display_name, score }
    });
    let top = top.collect();
    let map = heat.map(|heat| heat.draw(classifier, image)).transpose().map_err(|failure| failure.of(file))?;
    Ok((Classified { file: file.display().to_string(), ms: time.as_secs_f64() * 1e3, top, map }, time))
}

/// The table, printed row by row: its column widths are known before its rows.
struct TableRows {
    columns: Columns,
    /// Whether scores are shares of one, and not numbers of any size.
    shares: bool,
}

impl TableRows {
    fn new(files: &[PathBuf], classifier: &Classifier) -> Self {
        let length = |text: &str| text.chars().count();
        let file = files.iter().map(|f| length(&f.display().to_string())).max().unwrap_or(0);
        let names = classifier.display_names();
        let label = (0..names.len()).map(|i| length(&names.name(i))).max().unwrap_or(10);
        let columns = Columns::new([
            (Align::Left, file.max(4)),
            (Align::Left, label.max(5)),
            (Align::Right, 7),
            (Align::Right, 8),
        ]);
        Self { columns, shares: classifier.head().activation != Activation::None }
    }

    fn title(&self) -> String {
        self.columns.line(&["file", "label", "score", "ms"])
    }

    /// One line per class; the first also has the file and the time.
    fn row(&self, image: &Classified) -> String {
        let ms = numbers::ms(image.ms);
        let first = [image.file.as_str(), "", "", &ms];
        if image.top.is_empty() {
            return self.columns.line(&first);
        }
        let line = |(i, top): (usize, &Top)| {
            let (file, ms) = if i == 0 { (first[0], first[3]) } else { ("", "") };
            self.columns.line(&[
                file,
                top.display_name.as_ref().unwrap_or(&top.label),
                &if self.shares { numbers::percent(f64::from(top.score)) } else { numbers::short(top.score) },
                ms,
            ])
        };
        image.top.iter().enumerate().map(line).collect()
    }
}

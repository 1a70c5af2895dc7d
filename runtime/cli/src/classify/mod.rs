//! `skipstone classify`: classifies images or texts.

mod pictures;
mod texts;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use skipstone::classify::{Labels, Prediction, Settings};
use skipstone::{Error, Model};

use crate::args::{ImageArgs, ModelArgs, RuleArgs};
use crate::failure::Failure;
use crate::heat::HeatArgs;
use crate::table::{Align, Columns};
use crate::text_model::TextModel;
use crate::{files, numbers};

/// Classify images or texts
#[derive(Args, Debug)]
#[command(after_help = "\
An image is resized so that its shorter side has the right length, the middle is cut out, and
its channels are normalized, as the model's metadata says (keys skipstone.labels, .fit, .resize, .crop,
.interpolation, .colors, .scale, .mean, .std, .activation); the image options override it. If the metadata is missing,
the size is that of the model's input and the normalization is ImageNet's. A model whose input is u8 gets the bytes. The
output ends with what was done to the images, their normalization and the kind of scores, and where each was specified.
The scores are the first output of floats; labels that are more or fewer than its classes are refused. The time is that
of the model alone, without reading the image.

A model whose inputs are tokens (input_ids, attention_mask, token_type_ids, position_ids, of i64 or i32) gets texts: with
--text, or as files with one on each line. They become tokens as the tokenizer.json beside the model says, with the
padding token and the greatest length of tokenizer_config.json where it leaves them open. A text is cut to the number of
tokens that the model takes, and padded where that number is fixed; where it is open, the model is planned for the length
of each text.

--rule decides by a table in a .npy file instead of by the model's own classes; --labels then names its rows. The scores
are cosines, minus the expected squared distance or minus the number of different bits, the best first; with an
--activation, cosines become probabilities: CLIP's are --activation softmax --temperature 0.01.

--map draws an output that has a value for every place of the image, such as the heat map of a detector of defects, over
the image: nothing at the least value, yellow and then red towards the greatest. What the model did not see stays as it
is.

An image that cannot be read, or whose scores are not numbers, is reported in one line on stderr, the others are
classified, and the exit status is 1. `-` is standard input, as the model, as an image or as a file of texts.

Examples:
  skipstone classify model.onnx cat.jpg
  skipstone classify model.onnx photos/ --top 1 --threads 2
  skipstone classify imagenet.onnx cat.jpg --labels classes.txt --resize 256
  skipstone classify keras.onnx cat.jpg --labels class_indices.json --resize stretch --scale 1/127.5 --mean 1
  skipstone classify caffe.onnx cat.jpg --colors bgr --scale 1 --mean 103.939,116.779,123.68
  skipstone classify defects.onnx part.jpg --map part-map.png
  curl -s https://example.org/cat.jpg | skipstone classify model.onnx -
  skipstone classify model.onnx photos/ --json > results.json
  skipstone classify sentiment/model.onnx --text 'What a day!' --labels sentiment/config.json
  skipstone classify sentiment/model.onnx reviews.txt --top 1
  skipstone classify clip-image.onnx cat.jpg --rule cosine=texts.npy --labels texts.txt
  skipstone classify model.onnx cat.jpg --rule frechet=embeddings.npy --temperature 1.5")]
pub struct Classify {
    #[command(flatten)]
    model: ModelArgs,

    /// Images (png, jpg, bmp, webp), or directories with images; for a model of texts, files with a text on each line;
    /// - is standard input
    #[arg(value_name = "IMAGE|DIR|FILE", required_unless_present = "texts")]
    files: Vec<PathBuf>,

    /// A text, for a model that takes tokens; give it once for each
    #[arg(long = "text", value_name = "TEXT", allow_hyphen_values = true)]
    texts: Vec<String>,

    /// How text becomes tokens, a Hugging Face tokenizer [default: tokenizer.json beside the model]
    #[arg(long, value_name = "FILE.json")]
    tokenizer: Option<PathBuf>,

    /// Number of classes to show for each
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    /// Show only classes with at least this score: one for all, or one for each [default: `skipstone.threshold`]
    #[arg(long, value_name = "SCORE,...", value_delimiter = ',', allow_hyphen_values = true)]
    threshold: Option<Vec<f32>>,

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

    #[command(flatten)]
    rule: RuleArgs,
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

/// An image or text that could not be classified.
#[derive(Serialize)]
pub struct Failed {
    pub file: String,
    pub error: String,
}

impl Classify {
    /// Classifies every image or text.
    pub fn execute(self) -> Result<(), Failure> {
        let others = self.image.labels.iter().chain(&self.tokenizer).chain(self.rule.file());
        let streams = self.files.iter().chain([&self.model.path]).chain(others).map(PathBuf::as_path);
        files::only_one_stream(streams)?;
        let labels = self.image.labels()?;
        let settings = self.settings()?;
        let options = self.model.options();
        let text = match self.model.open_with(&options) {
            Ok(model) => match TextModel::of(&model) {
                Some(text) => text,
                None if self.texts.is_empty() => return self.pictures(&model, &settings, labels),
                None => return Err(no_text(&model)),
            },
            Err(open @ Error::UnboundShape { .. }) => {
                TextModel::declared(&self.model.path, &options)?.ok_or_else(|| Failure::from(open))?
            }
            Err(error) => return Err(error.into()),
        };
        self.classify_texts(&text, &settings, labels)
    }

    /// The library's settings.
    fn settings(&self) -> Result<Settings, Failure> {
        Ok(Settings {
            threshold: self.threshold.clone(),
            rule: self.rule.rule()?,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            locale: self.locale.clone(),
            ..self.image.settings()
        })
    }
}

/// The classes that are shown.
fn tops(best: Vec<Prediction>, display: &Labels) -> Vec<Top> {
    let top = |Prediction { index, label, score }| {
        let shown = display.name(index);
        let display_name = (shown != label).then_some(shown);
        Top { index, label, display_name, score }
    };
    best.into_iter().map(top).collect()
}

fn no_text(model: &Model) -> Failure {
    let inputs: Vec<String> = model.inputs().iter().map(|input| format!("'{}', {}", input.name, input.fact)).collect();
    let reason = "the model takes no text, which needs input_ids of i64 or i32";
    Failure::new("model.text-input", format!("{reason}: its inputs are {}", inputs.join("; ")))
}

/// The table, printed row by row: its column widths are known before its rows.
struct Rows {
    columns: Columns,
    /// Whether scores are shown as they are, not in percent.
    plain: bool,
}

impl Rows {
    /// The table of things with names of such lengths, in classes with such names.
    fn new(names: impl Iterator<Item = usize>, classes: &Labels, plain: bool) -> Self {
        let label = (0..classes.len()).map(|i| classes.name(i).chars().count()).max().unwrap_or(10);
        let columns = Columns::new([
            (Align::Left, names.max().unwrap_or(0).max(4)),
            (Align::Left, label.max(5)),
            (Align::Right, 7),
            (Align::Right, 8),
        ]);
        Self { columns, plain }
    }

    fn title(&self, of: &str) -> String {
        self.columns.line(&[of, "label", "score", "ms"])
    }

    /// One line per class; the first also has the name and the time.
    fn row(&self, name: &str, time: Duration, top: &[Top]) -> String {
        let ms = numbers::ms(milliseconds(time));
        if top.is_empty() {
            return self.columns.line(&[name, "", "", &ms]);
        }
        let line = |(i, top): (usize, &Top)| {
            let (name, ms) = if i == 0 { (name, ms.as_str()) } else { ("", "") };
            let label = top.display_name.as_ref().unwrap_or(&top.label);
            let score = if self.plain { top.score.to_string() } else { numbers::percent(f64::from(top.score)) };
            self.columns.line(&[name, label, &score, ms])
        };
        top.iter().enumerate().map(line).collect()
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

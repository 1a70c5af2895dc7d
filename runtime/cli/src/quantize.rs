//! `skipstone quantize`: a model of floats becomes one of bytes.
//!
//! The samples are run twice: first to see how far every tensor reaches, then how its numbers are spread.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use skipstone::classify::Preprocess;
use skipstone::{Model, Session, TensorView};
use skipstone_transform::quantize::{Method, Quantizer};

use crate::args::{ImageArgs, ModelArgs};
use crate::failure::Failure;
use crate::files;
use crate::images;
use crate::output::print;
use crate::progress::Progress;

/// Make a model of bytes out of one of floats
#[derive(Args, Debug)]
#[command(after_help = "\
The result is a standard ONNX file with QuantizeLinear and DequantizeLinear (opset 13 or later): weights are signed
bytes with a scale for each output channel, activations unsigned bytes whose ranges are observed on the images of
FOLDER. A few dozen images like those that the model will see are enough. Images are prepared as for
`skipstone classify`.

Examples:
  skipstone quantize model.onnx --calibrate photos/ -o model-int8.onnx
  skipstone quantize model.onnx --calibrate photos/ -o model-int8.onnx --method percentile --percentile 99.9")]
pub struct Quantize {
    #[command(flatten)]
    model: ModelArgs,

    /// Directory with sample images
    #[arg(long, value_name = "FOLDER")]
    calibrate: PathBuf,

    /// File to write
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,

    /// How the range of a tensor is chosen
    #[arg(long, value_enum, default_value_t = MethodArg::Mse)]
    method: MethodArg,

    /// Percentage of the numbers that lie inside the range, for `--method percentile`
    #[arg(long, value_name = "PERCENT", default_value_t = 99.99)]
    percentile: f64,

    /// Most images to look at, spread over all in the folder
    #[arg(long, value_name = "N", default_value_t = 256)]
    images: usize,

    #[command(flatten)]
    image: ImageArgs,
}

/// The values of `--method`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum MethodArg {
    /// From the smallest number to the largest
    Minmax,
    /// Without the outermost numbers
    Percentile,
    /// The least mean square error
    Mse,
}

impl Quantize {
    /// Writes the quantised model.
    pub fn execute(self) -> Result<(), Failure> {
        let method = match self.method {
            MethodArg::Minmax => Method::MinMax,
            MethodArg::Percentile if (50.0..=100.0).contains(&self.percentile) => Method::Percentile(self.percentile),
            MethodArg::Percentile => return Err(Failure::Usage("--percentile lies between 50 and 100".into())),
            MethodArg::Mse => Method::Mse,
        };
        let bytes = std::fs::read(&self.model.path).map_err(|error| Failure::io(&self.model.path, &error))?;
        let mut quantizer = Quantizer::new(&bytes)?;
        let model = quantizer.observed(&self.model.options())?;
        let files = self.samples()?;
        let mut samples = Samples::new(&model, &self.image)?;
        let mut progress = Progress::new(files.len() * 2);
        for round in 0..2 {
            if round == 1 {
                quantizer.next_round();
            }
            for file in &files {
                samples.show(file, &mut quantizer)?;
                progress.step();
            }
        }
        drop(progress);
        let quantized = quantizer.finish(method)?;
        files::write(&self.output, &quantized.bytes)?;
        print(&format!(
            "{}: {} activations and {} weights are bytes, {:.2} MB instead of {:.2} MB ({} images)\n",
            self.output.display(),
            quantized.activations,
            quantized.weights,
            quantized.bytes.len() as f64 / 1e6,
            bytes.len() as f64 / 1e6,
            files.len(),
        ))
    }

    /// Images of the folder, at even distances.
    fn samples(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut files = Vec::new();
        images::walk(&self.calibrate, &mut files)?;
        if files.is_empty() || self.images == 0 {
            let reason = format!("{}: no images to calibrate with", self.calibrate.display());
            return Err(Failure::new("calibration", reason));
        }
        let count = self.images.min(files.len());
        Ok((0..count).map(|i| files[i * files.len() / count].clone()).collect())
    }
}

/// The observed model and how images become its input.
struct Samples {
    session: Session,
    preprocess: Preprocess,
    input: String,
    dims: Vec<usize>,
}

impl Samples {
    fn new(model: &Model, image: &ImageArgs) -> Result<Self, Failure> {
        let [input] = model.inputs() else {
            let reason = format!("the model has {} inputs; images can be given for one", model.inputs().len());
            return Err(Failure::new("model.image-input", reason));
        };
        Ok(Self {
            session: model.session()?,
            preprocess: Preprocess::new(&input.fact, &model.info().metadata, &image.settings())?,
            input: input.name.clone(),
            dims: input.fact.shape.dims().to_vec(),
        })
    }

    /// Runs the model on an image and shows what it made of it.
    fn show(&mut self, file: &Path, quantizer: &mut Quantizer) -> Result<(), Failure> {
        let image = images::decode(file)?;
        let prepared = self.preprocess.apply(images::view(&image)?);
        let view = TensorView::new(&self.dims, &prepared).map_err(|e| Failure::new("image", e.to_string()))?;
        self.session.run(&[view])?;
        Ok(quantizer.observe(&self.session, &[(&self.input, &prepared)])?)
    }
}

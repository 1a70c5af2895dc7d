//! `skipstone quantize`: quantizes a float model to 8-bit integers.
//!
//! The sample images are run twice: first to find the range of every tensor, then its distribution within the range.

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

/// Quantize a float model to 8-bit integers
#[derive(Args, Debug)]
#[command(after_help = "\
The result is a standard ONNX file with QuantizeLinear and DequantizeLinear (opset 13 or later). Weights are int8 with
a scale per output channel. Activations are uint8, and their ranges are measured on the images in FOLDER; a few dozen
images like those that the model will see are enough. Images are prepared as for `skipstone classify`.

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

    /// Percentage of the elements that lie inside the range, for `--method percentile`
    #[arg(long, value_name = "PERCENT", default_value_t = 99.99)]
    percentile: f64,

    /// Most images to use, spread evenly over the folder
    #[arg(long, value_name = "N", default_value_t = 256)]
    images: usize,

    #[command(flatten)]
    image: ImageArgs,
}

/// The values of `--method`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum MethodArg {
    /// From the minimum to the maximum
    Minmax,
    /// Without outliers, see --percentile
    Percentile,
    /// The range with the least mean squared error
    Mse,
}

impl Quantize {
    /// Writes the quantized model.
    pub fn execute(self) -> Result<(), Failure> {
        let method = match self.method {
            MethodArg::Minmax => Method::MinMax,
            MethodArg::Percentile if (50.0..=100.0).contains(&self.percentile) => Method::Percentile(self.percentile),
            MethodArg::Percentile => return Err(Failure::Usage("--percentile must be between 50 and 100".into())),
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
            "{}: {} activations and {} weights quantized, {:.2} MB instead of {:.2} MB ({} images)\n",
            self.output.display(),
            quantized.activations,
            quantized.weights,
            quantized.bytes.len() as f64 / 1e6,
            bytes.len() as f64 / 1e6,
            files.len(),
        ))
    }

    /// Images of the folder, evenly spaced.
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

/// The model that is observed, and how images are prepared for it.
struct Samples {
    session: Session,
    preprocess: Preprocess,
    input: String,
    dims: Vec<usize>,
}

impl Samples {
    fn new(model: &Model, image: &ImageArgs) -> Result<Self, Failure> {
        let [input] = model.inputs() else {
            let reason = format!("the model has {} inputs; images need a model with one", model.inputs().len());
            return Err(Failure::new("model.image-input", reason));
        };
        Ok(Self {
            session: model.session()?,
            preprocess: Preprocess::new(&input.fact, &model.info().metadata, &image.settings())?,
            input: input.name.clone(),
            dims: input.fact.shape.dims().to_vec(),
        })
    }

    /// Runs the model on an image and passes on the tensors that it computed.
    fn show(&mut self, file: &Path, quantizer: &mut Quantizer) -> Result<(), Failure> {
        let image = images::decode(file)?;
        let prepared = self.preprocess.apply(images::view(&image)?);
        let view = TensorView::new(&self.dims, &prepared).map_err(|e| Failure::new("image", e.to_string()))?;
        self.session.run(&[view])?;
        Ok(quantizer.observe(&self.session, &[(&self.input, &prepared)])?)
    }
}

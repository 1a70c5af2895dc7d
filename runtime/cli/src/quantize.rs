//! `skipstone quantize`: quantizes a float model to 8-bit integers.
//!
//! The sample images are run twice: first to find the range of every tensor, then its distribution within the range.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use skipstone::Model;
use skipstone_transform::Samples;
use skipstone_transform::quantize::{Method, Quantizer};

use crate::args::{ImageArgs, ModelArgs};
use crate::calibration::Pictures;
use crate::failure::Failure;
use crate::files;
use crate::output::print;

/// How many times the images are read.
const ROUNDS: usize = 2;

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

    /// Percentage of the elements inside the range, for `--method percentile`
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
        let bytes = files::read(&self.model.path)?;
        let mut quantizer = Quantizer::new(&bytes)?;
        let options = self.model.options();
        let model = Model::from_bytes(&bytes, &options)?;
        let mut pictures = Pictures::new(&self.calibrate, self.images, &model, &self.image, ROUNDS)?;
        quantizer.calibrate(&options, &mut pictures)?;
        let count = pictures.len();
        drop(pictures);
        let quantized = quantizer.finish(method)?;
        files::write(&self.output, &quantized.bytes)?;
        print(&format!(
            "{}: {} activations and {} weights quantized, {:.2} MB instead of {:.2} MB ({} images)\n",
            self.output.display(),
            quantized.activations,
            quantized.weights,
            quantized.bytes.len() as f64 / 1e6,
            bytes.len() as f64 / 1e6,
            count,
        ))
    }
}

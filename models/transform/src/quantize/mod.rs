//! Post-training quantization: turns a float model into an 8-bit one.
//!
//! ```text
//! x -> Conv(w, b) -> Relu -> y
//!   =>
//! x -> Q -> DQ -> Conv(DQ(w), DQ(b)) -> Relu -> Q -> DQ -> y
//! ```
//!
//! The result is standard ONNX in QDQ form: tensors are quantized and dequantized again wherever a runtime may keep
//! them in 8 bits. Activations are uint8 with a zero point; weights are int8 with a scale per output channel, biases
//! int32 (B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference", 2018).
//!
//! [`Quantizer::calibrate`] runs the model on samples twice, first to find the range of each selected tensor, then the
//! distribution of its elements within. [`Quantizer::finish`] chooses ranges and writes the model.

mod insert;
mod range;
mod select;

use skipstone::Options;

pub use range::Method;
use range::Observed;
use select::Selection;

use crate::editor::Editor;
use crate::error::{Error, Result};
use crate::observe::{Observer, Samples};
use crate::prepare;

/// Lowest opset with a scale per channel.
const LEAST_OPSET: i64 = 13;

/// A model being quantized.
pub struct Quantizer {
    model: Editor,
    selection: Selection,
    /// Indexed by a tensor's position in the selection.
    observed: Vec<Observed>,
}

/// The result of quantization.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The model, as a file.
    pub bytes: Vec<u8>,
    /// Number of quantized activations.
    pub activations: usize,
    /// Number of quantized weights.
    pub weights: usize,
}

impl Quantizer {
    /// Prepares the model in `bytes`, an ONNX file.
    ///
    /// # Errors
    /// A model that is malformed, already quantized, older than opset 13, or has nothing to quantize.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut model = Editor::open(bytes)?;
        let opset = model.opset;
        if opset < LEAST_OPSET {
            let hint = format!("export it with {LEAST_OPSET} or later");
            return Err(Error::Unsupported(format!("the model has opset {opset}; {hint}")));
        }
        if model
            .graph
            .nodes
            .iter()
            .any(|node| node.op_type.contains("QuantizeLinear") || node.op_type.starts_with("QLinear"))
        {
            return Err(Error::Unsupported("the model is already quantized".into()));
        }
        prepare::constants(&mut model.graph);
        prepare::fold_normalization(&mut model);
        let selection = Selection::of(&model.graph);
        if selection.is_empty() {
            return Err(Error::Unsupported(
                "the model has no convolution or matrix product with constant weights".into(),
            ));
        }
        let observed = vec![Observed::default(); selection.roots().len()];
        Ok(Self { model, selection, observed })
    }

    /// Runs the model on the samples, twice, and observes its tensors. The runs use `options`.
    ///
    /// # Errors
    /// Errors of loading and running; a tensor with elements that are not finite; no samples.
    pub fn calibrate(&mut self, options: &Options, samples: &mut dyn Samples) -> Result<()> {
        let names = self.selection.roots();
        let mut observer = Observer::new(&self.model, names, options)?;
        let observed = &mut self.observed;
        for round in 0..2 {
            if round == 1 {
                observed.iter_mut().for_each(Observed::begin_histogram);
            }
            observer.run(samples, &mut |seen| {
                let found = observed[seen.tensor].add(seen.values);
                found.map_err(|value| Error::Calibration(format!("the tensor '{}' holds {value}", names[seen.tensor])))
            })?;
        }
        Ok(())
    }

    /// The quantized model.
    ///
    /// # Errors
    /// [`Error::Calibration`] if nothing was observed.
    pub fn finish(self, method: Method) -> Result<Quantized> {
        let Self { mut model, selection, observed } = self;
        let schemes = observed.iter().map(|observed| observed.scheme(method)).collect::<Option<Vec<_>>>();
        let schemes = schemes.ok_or_else(|| Error::Calibration("no samples were observed".into()))?;
        let weights = insert::run(&mut model, &selection, &schemes);
        Ok(Quantized { bytes: model.write(), activations: selection.len(), weights })
    }
}

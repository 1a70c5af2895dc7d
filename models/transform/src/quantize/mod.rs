//! Post-training quantization: a model of floats becomes one of bytes.
//!
//! ```text
//! x -> Conv(w, b) -> Relu -> y
//!   =>
//! x -> Q -> DQ -> Conv(DQ(w), DQ(b)) -> Relu -> Q -> DQ -> y
//! ```
//!
//! The result is standard ONNX in the QDQ form: floats that are quantized and dequantized again wherever a runtime may
//! keep bytes. Activations are unsigned bytes with a zero point; weights are signed bytes with a scale for each output
//! channel, biases 32-bit integers (B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018).
//!
//! In steps: a [`Quantizer`] gives a model whose outputs are all the tensors that will be bytes
//! ([`observed`](Quantizer::observed)). That is run on samples twice, and shown each time:
//! [`observe`](Quantizer::observe) first finds how far each tensor reaches, then, after
//! [`next_round`](Quantizer::next_round), how its numbers are spread. [`finish`](Quantizer::finish) chooses ranges and
//! writes the model.

mod insert;
mod prepare;
mod range;
mod select;

use skipstone::{Model, Options, Session};

pub use range::Method;
use range::Observed;
use select::Selection;

use crate::editor::{Editor, Port};
use crate::error::{Error, Result};

/// Least version of the operator set with a scale for each channel.
const LEAST_OPSET: i64 = 13;

/// A model on its way to bytes.
pub struct Quantizer {
    model: Editor,
    selection: Selection,
    /// By the position of a tensor in the selection.
    observed: Vec<Observed>,
}

/// What became of a model.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The model, as a file.
    pub bytes: Vec<u8>,
    /// Activations that are bytes now.
    pub activations: usize,
    /// Weights that are bytes now.
    pub weights: usize,
}

impl Quantizer {
    /// Prepares the model in `bytes`, an ONNX file.
    ///
    /// # Errors
    /// A model that is malformed, quantized already, older than opset 13, or has nothing to quantize.
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
            return Err(Error::Unsupported("the model is quantized already".into()));
        }
        prepare::run(&mut model);
        let selection = Selection::of(&model.graph);
        if selection.is_empty() {
            return Err(Error::Unsupported(
                "the model has no convolution or matrix product with weights of its own".into(),
            ));
        }
        let observed = vec![Observed::default(); selection.roots().len()];
        Ok(Self { model, selection, observed })
    }

    /// The model with every tensor that has a range of its own as an output, behind those that it has.
    ///
    /// # Errors
    /// What loading objects to.
    pub fn observed(&self, options: &Options) -> Result<Model> {
        let mut model = self.model.clone();
        let graph = &mut model.graph;
        // Inputs are seen as they are given.
        let known: Vec<&str> = graph.outputs.iter().chain(&graph.inputs).map(|port| port.name.as_str()).collect();
        let wanted = self.selection.roots().iter().filter(|name| !known.contains(&name.as_str()));
        let outputs: Vec<Port> = wanted.map(|name| Port::of_floats(name)).collect();
        graph.outputs.extend(outputs);
        graph.value_infos.clear();
        Ok(Model::from_bytes(&model.write(), options)?)
    }

    /// Takes in the outputs of `session`, of the [observed](Self::observed) model, after a run on `inputs`: pairs of
    /// an input's name and its elements.
    ///
    /// # Errors
    /// A tensor that is not there, or that holds numbers that are not finite.
    pub fn observe(&mut self, session: &Session, inputs: &[(&str, &[f32])]) -> Result<()> {
        let outputs: Vec<String> = session.output_names().map(str::to_owned).collect();
        for (name, observed) in self.selection.roots().iter().zip(&mut self.observed) {
            let missing = || Error::Calibration(format!("the tensor '{name}' cannot be observed as floats"));
            match inputs.iter().find(|(input, _)| input == name) {
                Some((_, values)) => observed.add(values),
                None => {
                    let index = outputs.iter().position(|output| output == name).ok_or_else(missing)?;
                    let view = session.output(index).ok_or_else(missing)?;
                    observed.add(view.elements::<f32>().ok_or_else(missing)?)
                }
            }
            .map_err(|value| Error::Calibration(format!("the tensor '{name}' holds {value}")))?;
        }
        Ok(())
    }

    /// The samples come again: from now on, the spread inside the ranges found so far is observed.
    pub fn next_round(&mut self) {
        self.observed.iter_mut().for_each(Observed::begin_histogram);
    }

    /// The quantized model.
    ///
    /// # Errors
    /// [`Error::Calibration`] where nothing was observed.
    pub fn finish(self, method: Method) -> Result<Quantized> {
        let Self { mut model, selection, observed } = self;
        let schemes = observed.iter().map(|observed| observed.scheme(method)).collect::<Option<Vec<_>>>();
        let schemes = schemes.ok_or_else(|| Error::Calibration("no samples were observed".into()))?;
        let weights = insert::run(&mut model, &selection, &schemes);
        Ok(Quantized { bytes: model.write(), activations: selection.len(), weights })
    }
}

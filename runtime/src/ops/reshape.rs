//! Reshape: the same elements, in the same order, with other dimensions ([ONNX
//! Reshape](https://onnx.ai/onnx/operators/onnx__Reshape.html); Flatten, Squeeze and Unsqueeze are reshapes whose
//! target follows from their attributes).
//!
//! The plan has no step for it: the result shares its input's bytes.

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::copy;

use crate::error::OpError;
use crate::operator::axes::{Axes, Left};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{Fact, Shape, Tensor};

/// A reshape to fixed dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshape {
    /// Dimensions of the result.
    pub shape: Shape,
}

impl Operator for Reshape {
    fn name(&self) -> &str {
        "Reshape"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [input] = inputs else { return Err(OpError::Arity { want: "1", got: inputs.len() }) };
        if input.shape.elements() != self.shape.elements() {
            return Err(OpError::shapes("a reshape keeps the element count", &[&input.shape, &self.shape]));
        }
        Ok(vec![Fact::new(input.dtype, self.shape.clone())])
    }

    fn alias(&self, _inputs: &[&Fact]) -> Option<usize> {
        Some(0)
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "copy".into(), ..Choice::default() })
    }

    fn bind(&self, _cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        Ok(Box::new(|io: &mut Io<'_, '_>| Ok(copy(io.input_bytes(0)?, io.output_bytes(0)?, &io.pace())?)))
    }
}

impl Semantics for Reshape {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [input] = inputs else { return Err(OpError::Arity { want: "1", got: inputs.len() }) };
        Ok(vec![(*input).clone().reshaped(self.shape.clone())?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        inputs.first().map_or_else(Axes::unknown, |x| Axes::reshaped(&x.shape, &self.shape))
    }

    fn narrow(&mut self, _from: Left<'_>, to: Left<'_>) {
        if let Some(shape) = to.shape(&self.shape) {
            self.shape = shape;
        }
    }
}

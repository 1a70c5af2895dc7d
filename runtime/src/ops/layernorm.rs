//! Layer normalization over the last axes
//! ([ONNX LayerNormalization](https://onnx.ai/onnx/operators/onnx__LayerNormalization.html),
//! RMSNormalization).

pub use skipstone_kernels::layernorm::Norm;

use serde::{Deserialize, Serialize};
use skipstone_kernels::layernorm;

use crate::error::OpError;
use crate::operator::axes::{Axes, Elements};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// `y = (x - mean) / sqrt(var + epsilon) * scale + bias` over rows that span the axes from `axis`.
///
/// Inputs are x, the scale and, optionally, the bias; those have as many elements as a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerNorm {
    /// First of the normalized axes.
    pub axis: usize,
    /// Added under the square root.
    pub epsilon: f32,
    /// Whether the mean is subtracted.
    pub norm: Norm,
}

impl Operator for LayerNorm {
    fn name(&self) -> &str {
        match self.norm {
            Norm::Standard => "LayerNorm",
            Norm::RootMeanSquare => "RmsNorm",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, parameters @ ..] = inputs else { return Err(OpError::Arity { want: "2 or 3", got: 0 }) };
        if !(1..=2).contains(&parameters.len()) {
            return Err(OpError::Arity { want: "2 or 3", got: inputs.len() });
        }
        if let Some(index) = inputs.iter().position(|f| f.dtype != DType::F32) {
            return Err(OpError::Type { index, got: inputs[index].dtype, want: "f32" });
        }
        let Some(row) = x.shape.get(self.axis..).map(|dims| dims.iter().product::<usize>()).filter(|&n| n > 0) else {
            return Err(OpError::Attribute { name: "axis", reason: format!("{} of {}", self.axis, x.shape) });
        };
        match parameters.iter().find(|f| f.shape.elements() != row) {
            Some(odd) => Err(OpError::shapes("one parameter for each element of a row", &[&x.shape, &odd.shape])),
            None => Ok(vec![(*x).clone()]),
        }
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: format!("layernorm_f32_{}", cx.isa), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (this, isa, biased) = (*self, cx.isa, cx.inputs.len() == 3);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let bias = if biased { Some(io.input(2)?) } else { None };
            let parameters = layernorm::LayerNorm { norm: this.norm, scale: io.input(1)?, bias, epsilon: this.epsilon };
            layernorm::layernorm(isa, &parameters, io.input(0)?, io.output(0)?, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for LayerNorm {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let mut result = Tensor::try_zeros(self.infer(&facts)?.remove(0))?;
        let values = |index: usize| inputs.get(index).and_then(|t| t.elements::<f32>());
        let (Some(x), Some(scale), Some(y)) = (values(0), values(1), result.elements_mut::<f32>()) else {
            return Err(OpError::Operand(0));
        };
        let bias = values(2);
        let count = scale.len() as f64;
        for (x, y) in x.chunks_exact(scale.len()).zip(y.chunks_exact_mut(scale.len())) {
            let mean = match self.norm {
                Norm::Standard => x.iter().map(|&v| f64::from(v)).sum::<f64>() / count,
                Norm::RootMeanSquare => 0.0,
            };
            let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
            let root = (variance + f64::from(self.epsilon)).sqrt();
            for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
                let bias = bias.and_then(|b| b.get(i)).map_or(0.0, |&b| f64::from(b));
                *y = ((f64::from(x) - mean) / root * f64::from(scale[i]) + bias) as f32;
            }
        }
        Ok(vec![result])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let rank = inputs.first().map_or(0, |x| x.shape.rank());
        Axes::except(Elements::Mixed, inputs, &(self.axis..rank).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn rows_of_any_length_agree() {
        let mut random = Random(19);
        for norm in [Norm::Standard, Norm::RootMeanSquare] {
            for row in [1, 2, 7, 8, 16, 33, 100] {
                let op = LayerNorm { axis: 1, epsilon: 1e-3, norm };
                let x = random.floats(&[3, row]);
                let (scale, bias) = (random.floats(&[row]), random.floats(&[row]));
                check(op, &[x.clone(), scale.clone()], 2e-5);
                check(op, &[x, scale, bias], 2e-5);
            }
        }
        let op = LayerNorm { axis: 1, epsilon: 1e-5, norm: Norm::Standard };
        check(op, &[random.floats(&[2, 3, 5]), random.floats(&[3, 5])], 2e-5);
    }

    #[test]
    fn parameters_must_fit_the_row() {
        let mut random = Random(20);
        let op = LayerNorm { axis: 1, epsilon: 1e-5, norm: Norm::Standard };
        let (x, scale) = (random.floats(&[2, 4]), random.floats(&[3]));
        assert!(op.infer(&[x.fact(), scale.fact()]).is_err());
        assert!(op.infer(&[x.fact()]).is_err());
        assert!(LayerNorm { axis: 3, ..op }.infer(&[x.fact(), scale.fact()]).is_err());
    }
}

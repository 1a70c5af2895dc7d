//! Normalization of groups of channels ([ONNX
//! GroupNormalization](https://onnx.ai/onnx/operators/onnx__GroupNormalization.html),
//! [InstanceNormalization](https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html), in which every channel is
//! a group):
//!
//! ```text
//! y = (x - mean of the group) / sqrt(variance of the group + epsilon) * scale[channel] + bias[channel]
//! ```

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{DType, Fact, Tensor};

/// Number of parallel partial sums, so that the loop vectorizes.
const LANES: usize = 16;
/// Elements that are scaled at once.
const PART: usize = 1 << 12;

/// A normalization of `[batch, channels, ...]`, with one scale and one bias for each channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupNorm {
    /// Groups of channels: a divisor of the channels.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

impl GroupNorm {
    /// Channels and elements of one channel of an image.
    fn sizes(&self, inputs: &[&Fact]) -> Result<(usize, usize), OpError> {
        let [x, scale, bias] = exactly::<3, _>(inputs)?;
        if let Some((index, fact)) = inputs.iter().enumerate().find(|(_, fact)| fact.dtype != DType::F32) {
            return Err(OpError::Type { index, got: fact.dtype, want: "f32" });
        }
        let Some(&channels) = x.shape.get(1) else {
            return Err(OpError::shapes("channels are the second axis", &[&x.shape]));
        };
        if self.groups == 0 || channels % self.groups != 0 {
            let reason = format!("{} groups do not divide {channels} channels", self.groups);
            return Err(OpError::Attribute { name: "num_groups", reason });
        }
        if [scale, bias].iter().any(|fact| fact.shape.dims() != [channels]) {
            return Err(OpError::shapes("one scale and one bias per channel", &[&x.shape, &scale.shape, &bias.shape]));
        }
        let inner = if x.shape.elements() == 0 { 0 } else { x.shape.iter().skip(2).product() };
        Ok((channels, inner))
    }
}

/// The sum of `f` over all elements, or some if the run is to stop: f32 lanes over short stretches, f64 in total.
fn sum(x: &[f32], pace: &Pace<'_>, f: impl Fn(f32) -> f32) -> f64 {
    x.chunks(64 * LANES)
        .take_while(|x| !pace.stops(x.len()))
        .map(|x| {
            let mut lanes = [0f32; LANES];
            let mut chunks = x.chunks_exact(LANES);
            for x in &mut chunks {
                lanes.iter_mut().zip(x).for_each(|(lane, &x)| *lane += f(x));
            }
            let rest: f32 = chunks.remainder().iter().map(|&x| f(x)).sum();
            f64::from(lanes.iter().sum::<f32>() + rest)
        })
        .sum()
}

impl Operator for GroupNorm {
    fn name(&self) -> &str {
        "GroupNorm"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        self.sizes(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn plan(&self, _: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "group_norm_f32".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (op, (channels, inner)) = (*self, self.sizes(&cx.inputs)?);
        let group = channels / self.groups;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (x, scale, bias): (&[f32], &[f32], &[f32]) = (io.input(0)?, io.input(1)?, io.input(2)?);
            let (y, pace): (&mut [f32], _) = (io.output(0)?, &io.pace());
            let len = (group * inner).max(1);
            for (index, (x, y)) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)).enumerate() {
                let mean = (sum(x, pace, |v| v) / len as f64) as f32;
                // The mean is rounded, which adds the square of its error to the variance: the second sum corrects
                // that.
                let (square, shift) = (sum(x, pace, |v| (v - mean) * (v - mean)), sum(x, pace, |v| v - mean));
                let variance = (square - shift * shift / len as f64) / len as f64;
                let root = (variance.max(0.0) + f64::from(op.epsilon)).sqrt();
                let off = shift / len as f64;
                let first = index % op.groups * group;
                let channels = x.chunks_exact(inner).zip(y.chunks_exact_mut(inner)).enumerate();
                for (channel, (x, y)) in channels.map(|(at, pair)| (first + at, pair)) {
                    let factor = (f64::from(scale[channel]) / root) as f32;
                    let bias = (f64::from(bias[channel]) - off * f64::from(factor)) as f32;
                    for (y, x) in y.chunks_mut(PART).zip(x.chunks(PART)) {
                        pace.spend(8 + y.len())?;
                        y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * factor + bias);
                    }
                }
            }
            Ok(())
        }))
    }
}

impl Semantics for GroupNorm {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let (channels, inner) = self.sizes(&facts)?;
        let elements = |at: usize| inputs[at].elements::<f32>().ok_or(OpError::Operand(at));
        let (x, scale, bias) = (elements(0)?, elements(1)?, elements(2)?);
        let group = channels / self.groups * inner;
        let mut y = reserve::empty(x.len())?;
        for (index, x) in x.chunks(group.max(1)).enumerate() {
            let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / group as f64;
            let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / group as f64;
            let root = (variance + f64::from(self.epsilon)).sqrt();
            for (at, &x) in x.iter().enumerate() {
                let channel = (index * group + at) / inner % channels;
                y.push(((f64::from(x) - mean) / root * f64::from(scale[channel]) + f64::from(bias[channel])) as f32);
            }
        }
        Ok(vec![Tensor::from_slice(inputs[0].shape(), &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, assert_close, check};

    #[test]
    fn groups_of_any_size_agree() {
        let mut random = Random(81);
        for (channels, groups) in [(1, 1), (6, 1), (6, 2), (6, 6), (8, 4)] {
            for tail in [&[][..], &[1], &[7], &[5, 13], &[2, 3, 4], &[0, 3]] {
                let dims = [&[2, channels][..], tail].concat();
                let inputs = [random.floats(&dims), random.floats(&[channels]), random.floats(&[channels])];
                check(GroupNorm { groups, epsilon: 1e-3 }, &inputs, 1e-4);
            }
        }
    }

    /// The variance is accurate even if the mean is far from zero.
    #[test]
    fn a_large_mean_does_not_cancel_the_variance() {
        let mut random = Random(82);
        let far: Vec<f32> =
            random.floats(&[1, 2, 3000]).elements::<f32>().unwrap().iter().map(|v| v + 1000.0).collect();
        let inputs = [Tensor::from_slice(&[1, 2, 3000], &far).unwrap(), random.floats(&[2]), random.floats(&[2])];
        check(GroupNorm { groups: 1, epsilon: 1e-5 }, &inputs, 1e-4);
    }

    /// ONNX Runtime 1.32, GroupNormalization of opset 21: 1, 2, 3, 4 in one group of two channels.
    #[test]
    fn values_are_those_of_onnx_runtime() {
        let tensor = |dims: &[usize], elements: &[f32]| Tensor::from_slice(dims, elements).unwrap();
        let inputs = [tensor(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]), tensor(&[2], &[1.0, 2.0]), tensor(&[2], &[0.5, -0.5])];
        let want = tensor(&[1, 2, 2], &[-0.841_635_4, 0.052_788_2, 0.394_423_6, 2.183_270_7]);
        assert_close(&check(GroupNorm { groups: 1, epsilon: 1e-5 }, &inputs, 1e-6)[0], &want, 1e-5, "ONNX Runtime");
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let mut random = Random(83);
        let inputs = [random.floats(&[1, 4, 2]), random.floats(&[4]), random.floats(&[4]), random.floats(&[2])];
        let fact = |at: usize| inputs[at].fact();
        let op = GroupNorm { groups: 2, epsilon: 1e-5 };
        assert!(op.infer(&[fact(0), fact(1), fact(2)]).is_ok());
        assert!(op.infer(&[fact(0), fact(1), fact(3)]).is_err());
        assert!(op.infer(&[fact(3), fact(1), fact(2)]).is_err());
        for groups in [0, 3] {
            assert!(GroupNorm { groups, ..op }.infer(&[fact(0), fact(1), fact(2)]).is_err());
        }
    }
}

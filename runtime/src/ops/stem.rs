//! Stem: the first convolution of a network, which reads its images in NCHW and writes NHWC. Not an ONNX operator: the
//! layout pass makes it from a Conv on few channels.
//!
//! Operands: the images, the weights `[out, in, rows, columns]`, the bias `[out]`, and an affine map of the result's
//! channels if the convolution has one.

use serde::{Deserialize, Serialize};
use skipstone_kernels::conv::{Conv as Operands, ConvShape, Filters, Images, Task};
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::stem;

use super::conv::{self, Conv};
use super::float_conv::{self, Bound};
use super::image::{ImageDims, Layout};
use super::roles::{Role, Roles};
use super::transpose::Transpose;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// A convolution from NCHW to NHWC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stem {
    /// In NCHW, with one group, without residual, scale or masks.
    conv: Conv,
}

impl Stem {
    /// The convolution as a stem, for images of this fact; `None` if the kernels do not support it.
    #[must_use]
    pub fn of(conv: &Conv, inputs: &[&Fact]) -> Option<Self> {
        let stem = Self { conv: conv.clone() };
        stem.shape(inputs).is_ok().then_some(stem)
    }

    fn shape(&self, inputs: &[&Fact]) -> Result<ConvShape, OpError> {
        let refused = |reason: &str| Err(OpError::Attribute { name: "stem", reason: reason.into() });
        let roles = [Roles::NONE, Roles::NONE.with(Role::Affine)];
        if self.conv.layout != Layout::Nchw || !roles.contains(&self.conv.roles) {
            return refused("images are in NCHW, without residual, scale or masks");
        }
        let shape = self.conv.shape(inputs)?;
        if !stem::takes(&shape) {
            return refused("no kernel supports this convolution");
        }
        Ok(shape)
    }

    /// Position of the affine map.
    fn affine(&self) -> Option<usize> {
        self.conv.roles.position(Role::Affine)
    }
}

impl Operator for Stem {
    fn name(&self) -> &str {
        "Stem"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        self.shape(inputs)?;
        let facts = self.conv.infer(inputs)?;
        let out = facts.first().ok_or(OpError::Operand(0))?;
        Ok(vec![Fact::new(DType::F32, ImageDims::new(Layout::Nchw, &out.shape)?.shape(Layout::Nhwc)?)])
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.conv.macs(inputs, outputs)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let shape = self.shape(&cx.inputs)?;
        let task = float_conv::task(cx, &shape, cx.is_constant(Conv::WEIGHTS), |w| Filters::Oihw(w));
        float_conv::plan(cx, self, &Task { images: Images::NchwToNhwc, affine: self.affine().is_some(), ..task }, |w| {
            Filters::Oihw(w)
        })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let shape = self.shape(&cx.inputs)?;
        let bound = Bound::new(cx, &shape, |w| Filters::Oihw(w))?;
        let (activation, affine_at) = (self.conv.activation, self.affine());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (packed, scratch) = bound.weights(io, &shape)?;
            let affine = affine_at.map(|at| conv::affine(io, at)).transpose()?;
            let epilogue = Epilogue { bias: Some(io.input(Conv::BIAS)?), activation, affine, ..Epilogue::NONE };
            let (input, out) = (io.input(Conv::X)?, io.output(0)?);
            let args = Operands { shape: &shape, input, packed, out, epilogue, scale: None };
            bound.kernel.run(args, scratch, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for Stem {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let results = self.conv.evaluate(inputs)?;
        Transpose::to_nhwc().evaluate(&results.iter().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::Isa;
    use skipstone_kernels::activation::Activation;

    use super::*;
    use crate::ops::check::{Random, assert_close, check, planned, single};

    fn conv(kernel: usize, stride: usize) -> Conv {
        Conv {
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            pads: [kernel / 2; 4],
            groups: 1,
            layout: Layout::Nchw,
            activation: Activation::HardSwish,
            ..Conv::POINTWISE
        }
    }

    fn operands(random: &mut Random, kernel: usize, filters: usize) -> Vec<Tensor> {
        let channels = 1 + random.below(4);
        let [batch, height, width] = [1 + random.below(2), kernel + random.below(6), kernel + random.below(40)];
        vec![
            random.floats(&[batch, channels, height, width]),
            random.floats(&[filters, channels, kernel, kernel]),
            random.floats(&[filters]),
        ]
    }

    #[test]
    fn plan_agrees_with_the_evaluation() {
        let mut random = Random(41);
        for case in 0..24 {
            let (kernel, filters) = (random.pick(&[1, 2, 3, 5, 7]), random.pick(&[1, 3, 8, 16, 17, 24, 33]));
            let stem = Stem { conv: conv(kernel, 1 + case % 2) };
            let inputs = operands(&mut random, kernel, filters);
            check(stem.clone(), &inputs, 1e-3);
            let graph = single(stem, &inputs, &[Conv::WEIGHTS, Conv::BIAS]);
            let want = graph.evaluate(&inputs[..1]).unwrap();
            for isa in Isa::available() {
                let got = planned(&graph, isa, &inputs[..1]).unwrap();
                assert_close(&got[0], &want[0], 1e-3, "a stem with constant weights");
            }
        }
    }

    #[test]
    fn unsupported_shapes_have_no_kernel() {
        let inputs = operands(&mut Random(4), 3, 8);
        let facts: Vec<&Fact> = inputs.iter().map(Tensor::fact).collect();
        assert!(Stem::of(&conv(3, 2), &facts).is_some());
        assert!(Stem::of(&conv(3, 3), &facts).is_none());
        assert!(Stem::of(&Conv { dilation: [1, 2], ..conv(3, 1) }, &facts).is_some());
        assert!(Stem::of(&Conv { layout: Layout::Nhwc, ..conv(3, 1) }, &facts).is_none());
        let wide = Random(5).floats(&[1, 5, 8, 8]);
        let weights = Random(5).floats(&[8, 5, 3, 3]);
        assert!(Stem::of(&conv(3, 1), &[wide.fact(), weights.fact(), facts[2]]).is_none());
    }
}

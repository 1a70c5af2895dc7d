//! Bottleneck: a depthwise convolution with the 1x1 convolution before it, the one after it, or both, as one step that
//! never stores the whole intermediate image. Not an ONNX operator: a graph pass makes it from Conv nodes.
//!
//! Operands: the images (NHWC), then weights and bias of each convolution, then the residual of the last one if it has
//! one.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use skipstone_kernels::bottleneck::{self, Pointwise, Stage, bottleneck};
use skipstone_kernels::conv::{self, ConvShape, FLOATS, Filters, FloatKernel, Task};
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{Variant, Weights};

use super::conv::Conv;
use super::float_conv::store;
use super::roles::Role;
use super::stored::read;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{Fact, Tensor};

/// Consecutive convolutions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bottleneck {
    /// 1x1, without residual or scale.
    pub expand: Option<Conv>,
    /// One filter per channel; with a residual only if it is the last.
    pub depthwise: Conv,
    /// 1x1, without scale.
    pub project: Option<Conv>,
}

/// Separates the kernels' names in a choice.
const JOIN: &str = " + ";

impl Bottleneck {
    /// The convolutions in order.
    fn stages(&self) -> impl Iterator<Item = &Conv> {
        self.expand.iter().chain([&self.depthwise]).chain(&self.project)
    }

    /// Position of the depthwise convolution among them.
    fn depthwise_at(&self) -> usize {
        usize::from(self.expand.is_some())
    }

    /// Positions of a stage's weights and bias.
    fn weights_at(stage: usize) -> [usize; 2] {
        [1 + 2 * stage, 2 + 2 * stage]
    }

    /// Position of the residual.
    fn residual_at(&self) -> Option<usize> {
        let last = self.project.as_ref().unwrap_or(&self.depthwise);
        last.roles.residual().map(|_| 1 + 2 * self.stages().count())
    }

    /// The operands of a stage, taken from those of the whole step and the stage's images.
    fn operands<'a, T: ?Sized>(
        &self,
        stage: usize,
        conv: &Conv,
        images: &'a T,
        all: &[&'a T],
    ) -> Result<Vec<&'a T>, OpError> {
        let residual = conv.roles.residual().and_then(|_| self.residual_at());
        let mut operands = vec![images];
        for at in Self::weights_at(stage).into_iter().chain(residual) {
            operands.push(all.get(at).copied().ok_or(OpError::Operand(at))?);
        }
        Ok(operands)
    }

    /// The input images of each stage, and the output of the last.
    fn images(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let first = inputs.first().copied().ok_or(OpError::Operand(0))?;
        let mut images = vec![first.clone()];
        for (stage, conv) in self.stages().enumerate() {
            let operands = self.operands(stage, conv, &images[stage], inputs)?;
            images.extend(conv.infer(&operands)?.into_iter().take(1));
        }
        Ok(images)
    }

    /// All combinations of kernels for the stages, with the sums of their costs; `shape` is that of the depthwise
    /// convolution.
    fn candidates(
        &self,
        shapes: &[ConvShape],
        shape: &ConvShape,
        cx: &PlanContext<'_>,
    ) -> Vec<(Vec<&'static dyn FloatKernel>, f64)> {
        let (expand_rows, project_rows) = bottleneck::product_rows(shape);
        let mut combined = vec![(Vec::new(), 0.0)];
        for (stage, shape) in shapes.iter().enumerate() {
            // A product is computed for some rows at a time.
            let (shape, times) = match stage.cmp(&self.depthwise_at()) {
                Ordering::Less => some_rows(shape, expand_rows),
                Ordering::Equal => (shape.clone(), 1.0),
                Ordering::Greater => some_rows(shape, project_rows),
            };
            let weights = if stage == self.depthwise_at() { Weights::F32 } else { cx.weights() };
            let mut kernels = conv::candidates(FLOATS, cx.isa, &Task { weights, ..Task::new(&shape) });
            let is_depthwise = |kernel: &'static dyn FloatKernel| matches!(kernel.stage(), Some(Stage::Depthwise(_)));
            let fits = stage == self.depthwise_at();
            kernels.retain(|(kernel, _)| kernel.stage().is_some() && is_depthwise(*kernel) == fits);
            kernels.iter_mut().for_each(|(_, cost)| *cost *= times);
            let with = |(before, cost): &(Vec<&'static dyn FloatKernel>, f64)| {
                let longer = |&(kernel, more): &(&'static dyn FloatKernel, f64)| {
                    ([&before[..], &[kernel]].concat(), cost + more)
                };
                kernels.iter().map(longer).collect::<Vec<_>>()
            };
            combined = combined.iter().flat_map(with).collect();
        }
        combined
    }

    /// Geometry of every stage.
    fn shapes(&self, inputs: &[&Fact]) -> Result<Vec<ConvShape>, OpError> {
        let images = self.images(inputs)?;
        let shape = |(stage, conv): (usize, &Conv)| {
            let operands = self.operands(stage, conv, &images[stage], inputs)?;
            conv.shape(&operands)
        };
        self.stages().enumerate().map(shape).collect()
    }
}

impl Operator for Bottleneck {
    fn name(&self) -> &str {
        "Bottleneck"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let arity = 1 + 2 * self.stages().count() + usize::from(self.residual_at().is_some());
        if inputs.len() != arity {
            return Err(OpError::Arity {
                want: "images, weights and bias of each stage, a residual",
                got: inputs.len(),
            });
        }
        Ok(self.images(inputs)?.split_off(self.stages().count()))
    }

    fn macs(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        let Ok(images) = self.images(inputs) else { return 0 };
        let macs = |(stage, conv): (usize, &Conv)| {
            let operands = self.operands(stage, conv, &images[stage], inputs);
            operands.map_or(0, |operands| conv.macs(&operands, &[&images[stage + 1]]))
        };
        self.stages().enumerate().map(macs).fold(0, u64::saturating_add)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let shapes = self.shapes(&cx.inputs)?;
        let shape = shapes.get(self.depthwise_at()).ok_or(OpError::Operand(0))?;
        let (kernels, candidates) =
            cx.choose(self, self.candidates(&shapes, shape, cx), |kernels| joined(kernels), |kernels| forms(kernels))?;
        let mut choice = Choice { kernel: joined(&kernels), candidates, ..Choice::default() };
        for (stage, (kernel, shape)) in kernels.iter().zip(&shapes).enumerate() {
            let [weights_at, _] = Self::weights_at(stage);
            choice.packed.push(store(cx, (stage, weights_at), *kernel, &Task::new(shape), |w| Filters::Oihw(w))?);
            choice.absorbed.push(weights_at);
        }
        let expand = kernels.first().filter(|_| self.expand.is_some()).and_then(|kernel| match kernel.stage()? {
            Stage::Pointwise(variant) => Some(variant),
            Stage::Depthwise(_) => None,
        });
        choice.form = Some(forms(&kernels));
        choice.scratch = bottleneck::scratch_len(shape, expand, self.project.is_some(), cx.threads) * size_of::<f32>();
        Ok(choice)
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let shapes = self.shapes(&cx.inputs)?;
        let unknown = || OpError::Attribute { name: "kernel", reason: cx.kernel.to_owned() };
        let names: Vec<&str> = cx.kernel.split('+').map(str::trim).collect();
        if names.len() != shapes.len() {
            return Err(unknown());
        }
        let at = self.depthwise_at();
        let shape = shapes.get(at).cloned().ok_or_else(unknown)?;
        let stage = |stage: usize| conv::by_name(FLOATS, names.get(stage)?)?.stage();
        let Some(Stage::Depthwise(depthwise)) = stage(at) else { return Err(unknown()) };
        let end = |at: usize, channels: fn(&ConvShape) -> usize| -> Result<End, OpError> {
            let Some(Stage::Pointwise(variant)) = stage(at) else { return Err(unknown()) };
            Ok(End { stage: at, variant, channels: shapes.get(at).map(channels).ok_or_else(unknown)? })
        };
        let expand = self.expand.as_ref().map(|_| end(0, |shape| shape.in_c)).transpose()?;
        let project = self.project.as_ref().map(|_| end(at + 1, |shape| shape.out_c)).transpose()?;
        let op = self.clone();
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let epilogue = |stage: usize, conv: &Conv| {
                let residual_at = conv.roles.residual().and_then(|_| op.residual_at());
                Ok::<_, OpError>(Epilogue {
                    bias: Some(io.input(Self::weights_at(stage)[1])?),
                    activation: conv.activation,
                    residual: residual_at.map(|at| io.input(at)).transpose()?,
                    residual_first: conv.roles.has(Role::Residual),
                    affine: None,
                })
            };
            let pointwise = |end: &Option<End>, conv: &Option<Conv>| match (end, conv) {
                (Some(End { stage, variant, channels }), Some(conv)) => Ok(Some(Pointwise {
                    variant,
                    channels: *channels,
                    packed: read(io, *stage, variant.weights)?,
                    epilogue: epilogue(*stage, conv)?,
                })),
                _ => Ok::<_, OpError>(None),
            };
            let (expand, project) = (pointwise(&expand, &op.expand)?, pointwise(&project, &op.project)?);
            let (packed, epilogue) = (io.packed(at)?, epilogue(at, &op.depthwise)?);
            let (scratch, input, pool) = (io.scratch()?, io.input(0)?, io.pool());
            let out = io.output(0)?;
            let args =
                bottleneck::Bottleneck { shape: &shape, input, expand, depthwise, packed, epilogue, project, out };
            bottleneck(args, scratch, pool);
            Ok(())
        }))
    }
}

impl Semantics for Bottleneck {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let first = inputs.first().copied().ok_or(OpError::Operand(0))?;
        let mut images = vec![first.clone()];
        for (stage, conv) in self.stages().enumerate() {
            let operands = self.operands(stage, conv, &images[0], inputs)?;
            images = conv.evaluate(&operands)?;
        }
        Ok(images)
    }
}

/// Some rows of a 1x1 convolution as a product, and how many such products make up the whole.
fn some_rows(shape: &ConvShape, rows: usize) -> (ConvShape, f64) {
    (ConvShape::matrix(rows, shape.in_c, shape.out_c), shape.pixels() as f64 / rows.max(1) as f64)
}

/// The joined names of the stages' kernels.
fn joined(kernels: &[&'static dyn FloatKernel]) -> String {
    kernels.iter().map(|kernel| kernel.name()).collect::<Vec<_>>().join(JOIN)
}

/// The joined names of their packed layouts.
fn forms(kernels: &[&'static dyn FloatKernel]) -> String {
    kernels.iter().map(|kernel| kernel.layout()).collect::<Vec<_>>().join(JOIN)
}

/// The first or last 1x1 convolution, bound to its kernel.
struct End {
    stage: usize,
    variant: &'static Variant,
    channels: usize,
}

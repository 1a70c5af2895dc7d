//! QPool: average pooling of a quantized image, with a quantized result.
//!
//! `y = byte(sum over the window of (x - zero) * x_scale / (y_scale * count))`. Max pooling uses [`Pool`] directly,
//! because bytes have the same order as the values that they represent.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pool::PoolFn;
use skipstone_kernels::qpool::{self, Mean};

use super::arity::exactly;
use super::image::{ImageDims, Layout};
use super::pool::Pool;
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// A pooling of uint8.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QPool {
    /// The pooling, which must be an average.
    pub pool: Pool,
    /// From uint8 to uint8.
    pub mean: Mean,
}

impl QPool {
    /// The image's fact as f32, for the shape rule of [`Pool`].
    fn floats(inputs: &[&Fact]) -> Result<Fact, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        match x.dtype {
            DType::U8 => Ok(Fact::new(DType::F32, x.shape.clone())),
            got => Err(OpError::Type { index: 0, got, want: "u8" }),
        }
    }
}

impl Operator for QPool {
    fn name(&self) -> &str {
        "QAveragePool"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let pooled = self.pool.infer(&[&Self::floats(inputs)?])?;
        Ok(pooled.into_iter().map(|fact| Fact::new(DType::U8, fact.shape)).collect())
    }

    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.pool.work(inputs, outputs)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        self.pool.layout.kernel()?;
        Ok(Choice { kernel: format!("qpool_u8_{}", cx.isa), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let shape = self.pool.geometry(&Self::floats(&cx.inputs)?)?;
        let PoolFn::Average { count_padding } = self.pool.function else { return Err(OpError::Operand(0)) };
        let (mean, isa) = (self.mean, cx.isa);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            qpool::mean(isa, mean, count_padding, &shape, io.input(0)?, io.output(0)?, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for QPool {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        // The mean of the zero point is the zero point, and so is the mean of no elements.
        let [x] = exactly::<1, _>(inputs)?;
        let values = x.bytes().iter().map(|&b| f32::from(i16::from(b) - i16::from(self.mean.zero)));
        let values = Tensor::collected(Fact::new(DType::F32, x.shape().clone()), values)?;
        let means = self.pool.evaluate(&[&values])?.remove(0);
        let means = means.elements::<f32>().ok_or(OpError::Operand(0))?;
        let bytes = means
            .iter()
            .map(|&v| self.mean.by.byte(if v.is_nan() { 0.0 } else { v * self.mean.scales[0] / self.mean.scales[1] }));
        Ok(vec![Tensor::collected(self.infer(&[x.fact()])?.remove(0), bytes)?])
    }

    fn axes(&self, _inputs: &[&Fact]) -> Axes {
        let channels = self.pool.layout.channels_axis();
        Axes::new(Elements::Mixed, [0, channels].map(|axis| Link::same(0, axis, axis)))
    }

    fn nhwc(&self) -> Nhwc {
        self.pool.nhwc()
    }

    fn turn_to_nhwc(&mut self) {
        self.pool.turn_to_nhwc();
    }
}

impl QPool {
    /// The mean over whole images.
    ///
    /// # Errors
    /// A shape that is not an image's.
    pub fn global(image: &crate::tensor::Shape, mean: Mean) -> Result<Self, OpError> {
        let ImageDims { height, width, .. } = ImageDims::new(Layout::Nchw, image)?;
        Ok(Self { pool: Pool::global(PoolFn::Average { count_padding: false }, height, width), mean })
    }
}

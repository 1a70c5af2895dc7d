//! Matrix product, batched ([ONNX MatMul](https://onnx.ai/onnx/operators/onnx__MatMul.html),
//! [Gemm](https://onnx.ai/onnx/operators/onnx__Gemm.html)), with bias and activation fused:
//! `y[b, m, n] = act(sum over k of a[b, m, k] * w[b, k, n] + bias[n])`.

use serde::{Deserialize, Serialize};
use skipstone_kernels::activation::{Activation, scalar};
use skipstone_kernels::conv::{Conv as Operands, ConvShape, Filters};
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::pace::Pace;

use super::float_conv::{self, Bound, Order};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Link};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, saturating_product};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A product of `[batch, m, k]` and `[batch or 1, k, n]`, or `[batch or 1, n, k]` if transposed; a third input is the
/// bias `[n]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatMul {
    /// Whether the second input is stored as `[n, k]`.
    pub transposed: bool,
    /// Applied to the sum.
    pub activation: Activation,
}

/// The sizes of a product.
struct MatMulSizes {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    /// Whether every image of the batch has its own second operand.
    batched: bool,
}

impl MatMul {
    fn sizes(&self, inputs: &[&Fact]) -> Result<MatMulSizes, OpError> {
        if !(2..=3).contains(&inputs.len()) {
            return Err(OpError::Arity { want: "2 or 3", got: inputs.len() });
        }
        if let Some((index, fact)) = inputs.iter().enumerate().find(|(_, f)| f.dtype != DType::F32) {
            return Err(OpError::Type { index, got: fact.dtype, want: "f32" });
        }
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        let misfit = || OpError::shapes("a matrix product is [batch, m, k] by [batch, k, n]", &[a, b]);
        let (&[batch, m, k], &[batches, rows, cols]) = (a.dims(), b.dims()) else { return Err(misfit()) };
        let (depth, n) = if self.transposed { (cols, rows) } else { (rows, cols) };
        if depth != k || (batches != batch && batches != 1) {
            return Err(misfit());
        }
        if inputs.get(2).is_some_and(|bias| bias.shape.dims() != [n]) {
            return Err(OpError::shapes("one bias per column", &[&inputs[2].shape, b]));
        }
        Ok(MatMulSizes { batch, m, k, n, batched: batches != 1 })
    }

    /// The layout of the second input.
    fn order(&self) -> Order {
        if self.transposed { |w| Filters::Oihw(w) } else { |w| Filters::Io(w) }
    }
}

impl MatMulSizes {
    /// The product as a convolution: of all rows, or of the rows of an image with its own second operand.
    fn shape(&self) -> Result<ConvShape, OpError> {
        let rows = if self.batched { Some(self.m) } else { self.batch.checked_mul(self.m) };
        let shape = rows.map(|rows| ConvShape::matrix(rows, self.k, self.n));
        shape.filter(ConvShape::is_sound).ok_or_else(|| OpError::Value("the product has too many rows".into()))
    }
}

impl Operator for MatMul {
    fn name(&self) -> &str {
        "MatMul"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let s = self.sizes(inputs)?;
        Ok(vec![Fact::new(DType::F32, Shape::new(&[s.batch, s.m, s.n])?)])
    }

    fn macs(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        self.sizes(inputs).map_or(0, |s| saturating_product(&[s.batch, s.m, s.k, s.n]))
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let s = self.sizes(&cx.inputs)?;
        let shape = s.shape()?;
        let task = float_conv::task(cx, &shape, cx.is_constant(1) && !s.batched, self.order());
        float_conv::plan(cx, self, &task, self.order())
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let s = self.sizes(&cx.inputs)?;
        let shape = s.shape()?;
        let bound = Bound::new(cx, &shape, self.order())?;
        let (activation, has_bias) = (self.activation, cx.inputs.len() > 2);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let bias = if has_bias { Some(io.input(2)?) } else { None };
            let epilogue = Epilogue { bias, activation, ..Epilogue::NONE };
            let (a, out): (&[f32], &mut [f32]) = (io.input(0)?, io.output(0)?);
            let pool = io.pool();
            let product = |input: &[f32], packed: &[u8], out: &mut [f32], scratch: &mut [f32]| {
                let args = Operands { shape: &shape, input, packed, out, epilogue, scale: None };
                bound.kernel.run(args, scratch, pool);
            };
            if !s.batched {
                let (packed, scratch) = bound.weights(io, &shape)?;
                product(a, packed, out, scratch);
                return Ok(());
            }
            let (b, scratch): (&[f32], &mut [f32]) = (io.input(1)?, io.scratch()?);
            let len = bound.kernel.packed_len(&shape, 0) / size_of::<f32>();
            let (packed, scratch) = scratch.split_at_mut_checked(len).ok_or(OpError::Operand(1))?;
            let pace = Pace::of(pool);
            for image in 0..s.batch {
                pace.spend(64)?;
                let part = |len: usize| image * len..(image + 1) * len;
                bound.pack(&shape, &b[part(s.k * s.n)], packed, &pace)?;
                let packed = bytemuck::cast_slice(packed);
                product(&a[part(s.m * s.k)], packed, &mut out[part(s.m * s.n)], scratch);
            }
            Ok(())
        }))
    }
}

impl Semantics for MatMul {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let s = self.sizes(&facts)?;
        let f32s = |index: usize| inputs[index].elements::<f32>().ok_or(OpError::Operand(index));
        let (a, b) = (f32s(0)?, f32s(1)?);
        let bias = if inputs.len() > 2 { Some(f32s(2)?) } else { None };
        let mut y = reserve::empty(s.batch * s.m * s.n)?;
        for image in 0..s.batch {
            let b = &b[if s.batched { image * s.k * s.n } else { 0 }..];
            for row in 0..s.m {
                for col in 0..s.n {
                    let at = |k: usize| if self.transposed { col * s.k + k } else { k * s.n + col };
                    let term = |k: usize| f64::from(a[(image * s.m + row) * s.k + k]) * f64::from(b[at(k)]);
                    let sum = (0..s.k).map(term).sum::<f64>() as f32 + bias.map_or(0.0, |bias| bias[col]);
                    y.push(scalar::apply(self.activation, sum));
                }
            }
        }
        Ok(vec![Tensor::from_slice(&[s.batch, s.m, s.n], &y)?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let Ok(sizes) = self.sizes(inputs) else { return Axes::unknown() };
        let mut links =
            vec![Link::same(0, 0, 0), Link::same(0, 1, 1), Link::same(1, if self.transposed { 1 } else { 2 }, 2)];
        if sizes.batched {
            links.push(Link::same(1, 0, 0));
        }
        if inputs.len() > 2 {
            links.push(Link::same(2, 0, 2));
        }
        Axes::new(Elements::Mixed, links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, assert_close, check, planned, single};
    use skipstone_kernels::Isa;

    #[test]
    fn products_agree_with_the_definition() {
        let mut random = Random(11);
        for case in 0..40 {
            let [batch, m, k, n] = std::array::from_fn(|_| random.pick(&[1, 2, 3, 7, 16, 33]));
            let (transposed, batched) = (case % 2 == 0, case % 3 == 0);
            let activation = random.pick(&[Activation::None, Activation::Relu, Activation::Gelu]);
            let op = MatMul { transposed, activation };
            let b = if transposed { [n, k] } else { [k, n] };
            let inputs = [
                random.floats(&[batch, m, k]),
                random.floats(&[if batched { batch } else { 1 }, b[0], b[1]]),
                random.floats(&[n]),
            ];
            let want = check(op.clone(), &inputs, 1e-4);
            let graph = single(op, &inputs, &[1, 2]);
            for isa in Isa::available() {
                let got = planned(&graph, isa, &inputs[..1]).unwrap();
                assert_close(&got[0], &want[0], 1e-4, "with constant weights");
            }
        }
    }
}

//! Quantisation in tract's graph: our own operators for QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear.
//!
//! tract has them, but multiplies by the reciprocal of the scale, which rounds some numbers to the neighbouring byte,
//! and spells scales for each channel out as arithmetic. Registered in its place, ours pass through its typing
//! untouched, and are lowered as they are. The operators that compute with quantised numbers are spelled out as these
//! two around ordinary ones, by [`qoperator`](super::qoperator), before tract sees them; products of bytes that stay integers
//! (ConvInteger, MatMulInteger) are taken from tract.

use std::sync::Arc;

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_hir::infer::{InferenceOp, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, InferenceResult, expand};

use super::convert;
use crate::ops::Operator;
use crate::ops::dequantize::Dequantize;
use crate::ops::dynamic_quantize::DynamicQuantize;
use crate::ops::quantize::Quantize;

/// An operator of ours in tract's typed graph.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Carried {
    Quantize(Quantize),
    Dequantize(Dequantize),
    DynamicQuantize(DynamicQuantize),
}

impl Carried {
    fn operator(&self) -> &dyn Operator {
        match self {
            Self::Quantize(op) => op,
            Self::Dequantize(op) => op,
            Self::DynamicQuantize(op) => op,
        }
    }
}

impl Op for Carried {
    fn name(&self) -> StaticName {
        self.operator().name().to_owned().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Carried {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let inputs: Vec<_> = inputs.iter().map(|value| convert::from_tract(value)).collect::<Result<_, _>>()?;
        let results = self.operator().evaluate(&inputs.iter().collect::<Vec<_>>())?;
        results
            .iter()
            .map(|tensor| {
                let datum = convert::datum(tensor.dtype()).context("a type that tract does not have")?;
                Ok(convert::to_tract(&tensor.view(), datum)?.into_tvalue())
            })
            .collect()
    }
}

impl TypedOp for Carried {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let datum = match self {
            Self::Quantize(op) => convert::datum(op.to).context("a type that tract does not have")?,
            Self::Dequantize(_) => DatumType::F32,
            Self::DynamicQuantize(_) => {
                let bytes = DatumType::U8.fact(inputs[0].shape.clone());
                return Ok(tvec!(bytes, DatumType::F32.scalar_fact(), DatumType::U8.scalar_fact()));
            }
        };
        Ok(tvec!(datum.fact(inputs[0].shape.clone())))
    }

    as_op!();
}

/// The operator before types and shapes are known.
#[derive(Clone, Debug)]
struct Linear {
    axis: i64,
    is_quantize: bool,
    has_zero: bool,
}

/// Takes the place of tract's operators.
pub(super) fn register(onnx: &mut tract_onnx::Onnx) {
    onnx.op_register.insert("QuantizeLinear", |_, node| linear(node, true));
    onnx.op_register.insert("DequantizeLinear", |_, node| linear(node, false));
    onnx.op_register.insert("DynamicQuantizeLinear", |_, _| Ok((expand(Dynamic), vec![])));
}

type Built = (Box<dyn InferenceOp>, Vec<String>);

fn linear(node: &NodeProto, is_quantize: bool) -> TractResult<Built> {
    ensure!(node.get_attr_opt::<i64>("block_size")?.unwrap_or(0) == 0, "scales for blocks are not supported");
    let has_zero = node.input.len() == 3 && !node.input[2].is_empty();
    let axis = node.get_attr_opt("axis")?.unwrap_or(1);
    Ok((expand(Linear { axis, is_quantize, has_zero }), vec![]))
}

impl Expansion for Linear {
    fn name(&self) -> StaticName {
        if self.is_quantize { "QuantizeLinear" } else { "DequantizeLinear" }.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(inputs.len() == 2 + usize::from(self.has_zero) && outputs.len() == 1, "wrong number of operands");
        s.equals(&inputs[0].shape, &outputs[0].shape)?;
        s.equals(&inputs[1].datum_type, DatumType::F32)?;
        match (self.is_quantize, self.has_zero) {
            (true, true) => s.equals(&outputs[0].datum_type, &inputs[2].datum_type)?,
            (true, false) => s.equals(&outputs[0].datum_type, DatumType::U8)?,
            (false, _) => s.equals(&outputs[0].datum_type, DatumType::F32)?,
        }
        Ok(())
    }

    /// Weights are not dequantised while types are inferred: kernels want their bytes.
    fn runs_out_of_plan(&self) -> bool {
        false
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let mut inputs: TVec<OutletId> = inputs.into();
        let rank = model.outlet_fact(inputs[0])?.rank() as i64;
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis };
        let axis = usize::try_from(axis).context("the axis lies before the first")?;
        if !self.has_zero {
            let scale = model.outlet_fact(inputs[1])?;
            let shape = scale.shape.as_concrete().context("the scale's shape is not known")?;
            let datum = if self.is_quantize { DatumType::U8 } else { model.outlet_fact(inputs[0])?.datum_type };
            let zero = Arc::new(Tensor::zero_dt(datum, shape)?);
            inputs.push(model.add_const(format!("{prefix}.zero"), zero)?);
        }
        let carried = if self.is_quantize {
            let datum = model.outlet_fact(inputs[2])?.datum_type;
            let to = convert::dtype(datum).with_context(|| format!("no quantisation to {datum:?}"))?;
            Carried::Quantize(Quantize { axis, to })
        } else {
            Carried::Dequantize(Dequantize { axis })
        };
        model.wire_node(prefix, carried, &inputs)
    }
}

/// DynamicQuantizeLinear before types and shapes are known.
#[derive(Clone, Debug)]
struct Dynamic;

impl Expansion for Dynamic {
    fn name(&self) -> StaticName {
        "DynamicQuantizeLinear".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(3)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(inputs.len() == 1 && outputs.len() == 3, "wrong number of operands");
        s.equals(&inputs[0].datum_type, DatumType::F32)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)?;
        for (output, datum) in outputs.iter().zip([DatumType::U8, DatumType::F32, DatumType::U8]) {
            s.equals(&output.datum_type, datum)?;
        }
        s.equals(&outputs[1].rank, 0)?;
        s.equals(&outputs[2].rank, 0)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, Carried::DynamicQuantize(DynamicQuantize), inputs)
    }
}

//! Converts tensors and types between tract and Skipstone.

use tract_onnx::prelude::{DatumType, TDim, Tensor as TractTensor};
use tract_onnx::tract_core::internal::{ShapeFact, TypedFact};

use crate::error::OpError;
use crate::tensor::{DType, Fact, Shape, Tensor, TensorView};

/// Our element type; `None` for types that our tensors do not have (strings, quantized types).
pub(super) fn dtype(datum: DatumType) -> Option<DType> {
    Some(match datum {
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        DatumType::F16 => DType::F16,
        DatumType::I8 => DType::I8,
        DatumType::I16 => DType::I16,
        DatumType::I32 => DType::I32,
        // Symbolic dimensions are integers once their symbols have values.
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::U8 => DType::U8,
        DatumType::U16 => DType::U16,
        DatumType::U32 => DType::U32,
        DatumType::U64 => DType::U64,
        DatumType::Bool => DType::Bool,
        _ => return None,
    })
}

/// tract's element type; `None` for bf16, which it does not have.
pub(super) fn datum(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::F16 => DatumType::F16,
        DType::Bf16 => return None,
        DType::I8 => DatumType::I8,
        DType::I16 => DatumType::I16,
        DType::I32 => DatumType::I32,
        DType::I64 => DatumType::I64,
        DType::U8 => DatumType::U8,
        DType::U16 => DatumType::U16,
        DType::U32 => DatumType::U32,
        DType::U64 => DatumType::U64,
        DType::Bool => DatumType::Bool,
    })
}

/// Our fact; `None` if a dimension is symbolic or the type is not ours.
pub(super) fn fact(fact: &TypedFact) -> Option<Fact> {
    Some(Fact::new(dtype(fact.datum_type)?, shape(&fact.shape)?))
}

fn shape(shape: &ShapeFact) -> Option<Shape> {
    Shape::new(shape.as_concrete()?).ok()
}

/// Copies a tract tensor.
pub(super) fn from_tract(tensor: &TractTensor) -> Result<Tensor, OpError> {
    let held = tensor.datum_type();
    let refused = || OpError::Value(format!("a tensor of type {held:?} is not supported"));
    let fact = Fact::new(dtype(held).ok_or_else(refused)?, Shape::new(tensor.shape())?);
    let plain = tensor.try_as_plain_ram().map_err(|_| refused())?;
    if held == DatumType::TDim {
        let dims: &[TDim] = plain.as_slice().map_err(|_| refused())?;
        let values: Option<Vec<i64>> = dims.iter().map(|d| d.to_i64().ok()).collect();
        let values = values.ok_or_else(|| OpError::Value("a dimension is still symbolic".into()))?;
        return Tensor::from_slice(&fact.shape, &values);
    }
    Tensor::from_bytes(fact, plain.as_bytes())
}

/// Copies one of our tensors for tract, as `wanted` if our type represents several of tract's (such as a symbolic
/// dimension).
pub(super) fn to_tract(view: &TensorView<'_>, wanted: DatumType) -> Result<TractTensor, OpError> {
    let refused = || OpError::Value(format!("the fallback does not support {}", view.fact()));
    let held = datum(view.fact().dtype).ok_or_else(refused)?;
    let mut tensor = TractTensor::zero_dt(held, &view.fact().shape).map_err(|_| refused())?;
    {
        let mut plain = tensor.try_as_plain_ram_mut().map_err(|_| refused())?;
        let bytes = plain.as_bytes_mut();
        if bytes.len() != view.bytes().len() {
            return Err(refused());
        }
        bytes.copy_from_slice(view.bytes());
    }
    if wanted == DatumType::TDim {
        return tensor.cast_to_dt(DatumType::TDim).map(std::borrow::Cow::into_owned).map_err(|_| refused());
    }
    Ok(tensor)
}

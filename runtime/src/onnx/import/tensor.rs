//! Converts tensors of the file: typed fields, raw bytes, data in files beside the model and sparse tensors, in any
//! element type that we have or can widen without loss.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use skipstone_kernels::arena::AlignedVec;
use skipstone_onnx::ElementType;
use skipstone_onnx::proto::{SparseTensor, Tensor as TensorProto};

use crate::bytes::Bytes;
use crate::error::{Error, OpError, Result};
use crate::reserve;
use crate::tensor::{DType, Element, Fact, Shape, Tensor};

/// The files with tensors.
#[derive(Clone)]
pub(in crate::onnx) struct Files {
    /// The model file.
    pub model: Bytes,
    /// The model's folder, with the files for external data.
    pub folder: Option<PathBuf>,
}

/// Minimum size in bytes of a tensor that stays in the file until it is read; smaller ones are copied, so that they do
/// not keep the file open.
const LARGE: usize = 16 * 1024;

impl Files {
    /// The bytes `raw` of the model file, shared with it.
    fn share(&self, raw: &[u8]) -> Option<Bytes> {
        let start = raw.as_ptr().addr().checked_sub(self.model.as_ptr().addr())?;
        self.model.part(start..start.checked_add(raw.len())?).filter(|_| raw.len() >= LARGE)
    }
}

/// A tensor of the file.
pub(super) struct FileTensor {
    /// Half precision is stored as f32.
    pub tensor: Tensor,
    /// The type in the file, if that is half precision.
    pub declared: Option<DType>,
}

/// Our element type; `None` for types that our tensors do not have.
pub(in crate::onnx) fn dtype(element: ElementType) -> Option<DType> {
    Some(match element {
        ElementType::Float => DType::F32,
        ElementType::Double => DType::F64,
        ElementType::Float16 => DType::F16,
        ElementType::Bfloat16 => DType::Bf16,
        // 4-bit elements are stored as 8-bit ones.
        ElementType::Int8 | ElementType::Int4 => DType::I8,
        ElementType::Int16 => DType::I16,
        ElementType::Int32 => DType::I32,
        ElementType::Int64 => DType::I64,
        ElementType::Uint8 | ElementType::Uint4 => DType::U8,
        ElementType::Uint16 => DType::U16,
        ElementType::Uint32 => DType::U32,
        ElementType::Uint64 => DType::U64,
        ElementType::Bool => DType::Bool,
        _ => return None,
    })
}

/// The type in which values of `dtype` are computed, and the declared one if it differs.
pub(super) fn computed_as(dtype: DType) -> (DType, Option<DType>) {
    match dtype {
        DType::F16 | DType::Bf16 => (DType::F32, Some(dtype)),
        other => (other, None),
    }
}

/// Our element type for a code in the file.
///
/// # Errors
/// [`Error::Unsupported`], naming the type and the value.
pub(in crate::onnx) fn known_dtype(number: i64, name: &str) -> Result<DType> {
    let element = ElementType::from_number(number);
    element.and_then(dtype).ok_or_else(|| {
        let dtype = element.map_or_else(|| format!("type {number}"), |element| element.name().to_owned());
        Error::Unsupported { node: name.to_owned(), reason: format!("tensors of {dtype} are not supported") }
    })
}

/// Reads a dense tensor, which has been validated.
pub(super) fn dense(tensor: &TensorProto<'_>, files: &Files) -> Result<FileTensor> {
    let at = |e: OpError| e.at(tensor.name);
    let dtype = known_dtype(tensor.data_type, tensor.name)?;
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let dims = dims.ok_or_else(|| Error::Internal(format!("'{}' has a negative dimension", tensor.name)))?;
    let shape = Shape::new(&dims).map_err(at)?;
    let packed_nibbles = matches!(tensor.element(), Some(ElementType::Int4 | ElementType::Uint4));
    let count = shape.elements();
    let stored = if packed_nibbles { count.div_ceil(2) } else { count * dtype.size() };
    let external;
    let raw = if tensor.is_external() {
        external = read_external(tensor, stored, files)?;
        &external[..]
    } else {
        tensor.raw
    };
    let (computed, declared) = computed_as(dtype);
    if packed_nibbles {
        let bytes = nibbles(tensor, raw, count, tensor.element() == Some(ElementType::Int4)).map_err(at)?;
        return Ok(FileTensor { tensor: Tensor::from_bytes(Fact::new(dtype, shape), &bytes).map_err(at)?, declared });
    }
    let fact = Fact::new(dtype, shape);
    let tensor = match files.share(raw) {
        Some(bytes) if !tensor.is_external() => Tensor::shared(fact, bytes).map_err(at)?,
        _ if raw.is_empty() => typed(tensor, fact).map_err(at)?,
        _ => Tensor::from_bytes(fact, raw).map_err(at)?,
    };
    let tensor = if computed == dtype { tensor } else { widen(&tensor).map_err(at)? };
    Ok(FileTensor { tensor, declared })
}

/// Half precision as f32.
fn widen(tensor: &Tensor) -> Result<Tensor, OpError> {
    let fact = Fact::new(DType::F32, tensor.shape().clone());
    Tensor::written(fact, |y| match tensor.dtype() {
        DType::F16 => widen_halves::<f16>(tensor.bytes(), y),
        DType::Bf16 => widen_halves::<bf16>(tensor.bytes(), y),
        _ => Err(OpError::Operand(0)),
    })
}

/// Elements that are widened at a time.
const HALVES: usize = 256;

/// The halves `x` as the floats `y`; `x` may be unaligned.
fn widen_halves<T: Element>(x: &[u8], y: &mut [u8]) -> Result<(), OpError>
where
    [T]: HalfFloatSliceExt,
{
    let (mut halves, mut floats) = ([T::zeroed(); HALVES], [0f32; HALVES]);
    for (x, y) in x.chunks(HALVES * 2).zip(y.chunks_mut(HALVES * 4)) {
        let count = y.len() / 4;
        bytemuck::cast_slice_mut(&mut halves[..count]).copy_from_slice(x);
        halves[..count].convert_to_f32_slice(&mut floats[..count]);
        y.copy_from_slice(bytemuck::cast_slice(&floats[..count]));
    }
    Ok(())
}

/// The elements of a tensor in the field of its type.
fn typed(tensor: &TensorProto<'_>, fact: Fact) -> Result<Tensor, OpError> {
    fn of<T: Element>(fact: &Fact, elements: impl Iterator<Item = T>) -> Result<Tensor, OpError> {
        let elements = reserve::list(elements.take(fact.shape.elements()))?;
        Tensor::from_slice(&fact.shape, &elements)
    }
    // Narrow integers are stored as values or as bit patterns: the low bits are the same.
    let narrow = || tensor.int32_data.ints();
    match fact.dtype {
        DType::F32 => of(&fact, tensor.float_data.floats()),
        DType::F64 => of(&fact, tensor.double_data.doubles()),
        DType::F16 => of(&fact, narrow().map(|bits| f16::from_bits(bits as u16))),
        DType::Bf16 => of(&fact, narrow().map(|bits| bf16::from_bits(bits as u16))),
        DType::I8 => of(&fact, narrow().map(|value| value as i8)),
        DType::I16 => of(&fact, narrow().map(|value| value as i16)),
        DType::I32 => of(&fact, narrow().map(|value| value as i32)),
        DType::I64 => of(&fact, tensor.int64_data.ints()),
        DType::U8 => of(&fact, narrow().map(|value| value as u8)),
        DType::U16 => of(&fact, narrow().map(|value| value as u16)),
        DType::U32 => of(&fact, tensor.uint64_data.ints().map(|value| value as u32)),
        DType::U64 => of(&fact, tensor.uint64_data.ints().map(|value| value as u64)),
        DType::Bool => {
            let bytes = reserve::list(narrow().take(fact.shape.elements()).map(|value| u8::from(value != 0)))?;
            Tensor::from_bytes(fact, &bytes)
        }
    }
}

/// 4-bit elements, two per byte, the first in the low half.
fn nibbles(tensor: &TensorProto<'_>, raw: &[u8], count: usize, signed: bool) -> Result<Vec<u8>, OpError> {
    let typed: Vec<u8>;
    let pairs = if raw.is_empty() {
        typed = reserve::list(tensor.int32_data.ints().map(|pair| pair as u8))?;
        &typed[..]
    } else {
        raw
    };
    let extend = |nibble: u8| if signed && nibble & 8 != 0 { nibble | 0xf0 } else { nibble };
    Ok(reserve::list(pairs.iter().flat_map(|&pair| [extend(pair & 15), extend(pair >> 4)]).take(count))?)
}

/// The bytes of a tensor in a file beside the model.
fn read_external(tensor: &TensorProto<'_>, len: usize, files: &Files) -> Result<AlignedVec<u8>> {
    let entry = |key: &str| tensor.external.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    let lost = || Error::Internal(format!("the external data of '{}' were not resolved", tensor.name));
    let location = entry("location").ok_or_else(lost)?;
    let path = files.folder.as_ref().ok_or_else(lost)?.join(location);
    let offset: u64 = entry("offset").map_or(Ok(0), str::parse).map_err(|_| lost())?;
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let mut file = File::open(&path).map_err(io)?;
    let mut bytes = allocate(tensor.name, len)?;
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    file.read_exact(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Zeroed memory for the tensor `name`; failing to allocate a size from a file only fails loading.
fn allocate(name: &str, len: usize) -> Result<AlignedVec<u8>> {
    AlignedVec::try_zeroed(len).ok_or_else(|| OpError::no_memory(len).at(name))
}

/// A sparse tensor converted to a dense one.
pub(super) fn sparse(tensor: &SparseTensor<'_>, files: &Files) -> Result<FileTensor> {
    let name = tensor.values.name;
    let at = |e: OpError| e.at(name);
    let FileTensor { tensor: values, declared } = dense(&tensor.values, files)?;
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let dims = dims.ok_or_else(|| Error::Internal(format!("'{name}' has a negative dimension")))?;
    let shape = Shape::new(&dims).map_err(at)?;
    let strides = shape.strides();
    let indices = reserve::list(tensor.indices.integers().into_iter().flatten())?;
    let width = if tensor.indices.dims.len() == 2 { dims.len() } else { 1 };
    let size = values.dtype().size();
    let mut bytes = allocate(name, shape.elements() * size)?;
    for (value, index) in values.bytes().chunks_exact(size).zip(indices.chunks_exact(width)) {
        let linear: i64 = match width {
            1 => index[0],
            _ => index.iter().zip(&strides).map(|(&i, &stride)| i * stride as i64).sum(),
        };
        let start = usize::try_from(linear).unwrap_or(usize::MAX).saturating_mul(size);
        let place = bytes.get_mut(start..start.saturating_add(size));
        place.ok_or_else(|| Error::Internal(format!("an index of '{name}' is out of range")))?.copy_from_slice(value);
    }
    let tensor = Tensor::shared(Fact::new(values.dtype(), shape), bytes.into()).map_err(at)?;
    Ok(FileTensor { tensor, declared })
}

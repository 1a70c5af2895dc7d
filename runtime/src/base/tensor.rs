//! Tensors: element type, shape and bytes.
//!
//! A [`Tensor`] owns its bytes (64-byte aligned, so any kernel may read them), a [`TensorView`] borrows them. Data is
//! dense and row-major; a layout is an order of dimensions, never strides.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use bytemuck::Pod;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use skipstone_kernels::arena::AlignedVec;

use crate::bytes::Bytes;
use crate::error::OpError;
use crate::reserve;
pub use crate::shape::{MAX_RANK, Shape};

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the types")]
pub enum DType {
    F32,
    F64,
    F16,
    Bf16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Name as `inspect` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is the element of a tensor.
pub trait Element: Pod + PartialEq + fmt::Debug {
    /// Its element type. `u8` also reads and writes [`DType::Bool`].
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),*) => { $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })* };
}
elements!(f32 => F32, f64 => F64, f16 => F16, bf16 => Bf16, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64);

/// The type of a tensor: element type and shape.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fact {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Shape,
}

impl Fact {
    /// A fact of this type and shape.
    #[must_use]
    pub fn new(dtype: DType, shape: Shape) -> Self {
        Self { dtype, shape }
    }

    /// Bytes of the dense tensor.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.size()
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dtype, self.shape)
    }
}

impl fmt::Debug for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An owned dense tensor. Clones, including reshaped ones, share the bytes until one of them is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Tensor {
    fact: Fact,
    bytes: Bytes,
    /// An aligned copy for readers, made on the first read if the bytes are not aligned for the elements.
    aligned: OnceLock<Bytes>,
}

impl Tensor {
    /// A tensor of zeros. Aborts when there is no memory.
    #[must_use]
    pub fn zeros(fact: Fact) -> Self {
        let bytes = AlignedVec::zeroed(fact.bytes()).into();
        Self::of(fact, bytes)
    }

    /// A tensor of zeros, for sizes that may exceed memory.
    ///
    /// # Errors
    /// [`OpError::NoMemory`].
    pub(crate) fn try_zeros(fact: Fact) -> Result<Self, OpError> {
        Self::written(fact, |_| Ok(()))
    }

    /// A tensor whose bytes `write` changes from zeros.
    ///
    /// # Errors
    /// [`OpError::NoMemory`]; the error of `write`.
    pub(crate) fn written(fact: Fact, write: impl FnOnce(&mut [u8]) -> Result<(), OpError>) -> Result<Self, OpError> {
        let mut bytes = AlignedVec::try_zeroed(fact.bytes()).ok_or_else(|| OpError::no_memory(fact.bytes()))?;
        write(&mut bytes)?;
        Ok(Self::of(fact, bytes.into()))
    }

    /// A tensor of the items of an iterator, one for each element; `T` has the width of the fact's elements.
    ///
    /// # Errors
    /// [`OpError::NoMemory`].
    pub(crate) fn collected<T: Element>(fact: Fact, items: impl IntoIterator<Item = T>) -> Result<Self, OpError> {
        Self::written(fact, |bytes| {
            let elements = elements_mut::<T>(bytes).ok_or(OpError::Operand(0))?;
            elements.iter_mut().zip(items).for_each(|(element, item)| *element = item);
            Ok(())
        })
    }

    /// A tensor of these elements, copied.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the element count is not the shape's.
    pub fn from_slice<T: Element>(dims: &[usize], elements: &[T]) -> Result<Self, OpError> {
        Self::from_bytes(Fact::new(T::DTYPE, Shape::new(dims)?), bytemuck::cast_slice(elements))
    }

    /// A tensor over a copy of native-endian bytes.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the byte count is not the fact's.
    pub fn from_bytes(fact: Fact, bytes: &[u8]) -> Result<Self, OpError> {
        if bytes.len() != fact.bytes() {
            return Err(OpError::Shape {
                rule: "bytes must match the shape",
                shapes: format!("{} bytes for {fact}", bytes.len()),
            });
        }
        let copy = AlignedVec::try_from_slice(bytes).ok_or_else(|| OpError::no_memory(bytes.len()))?;
        Ok(Self::of(fact, copy.into()))
    }

    fn of(fact: Fact, bytes: Bytes) -> Self {
        Self { fact, bytes, aligned: OnceLock::new() }
    }

    /// A tensor over bytes that may be shared. If they are not aligned for its elements, they are copied when read.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the byte count is not the fact's.
    pub(crate) fn shared(fact: Fact, bytes: Bytes) -> Result<Self, OpError> {
        if bytes.len() != fact.bytes() {
            return Self::from_bytes(fact, &bytes);
        }
        Ok(Self::of(fact, bytes))
    }

    /// A rank-0 tensor.
    #[must_use]
    pub fn scalar<T: Element>(value: T) -> Self {
        let bytes = AlignedVec::from_slice(bytemuck::bytes_of(&value)).into();
        Self::of(Fact::new(T::DTYPE, Shape::default()), bytes)
    }

    /// Type and shape.
    #[must_use]
    pub fn fact(&self) -> &Fact {
        &self.fact
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.fact.dtype
    }

    /// Dimensions.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.fact.shape
    }

    /// The same elements with another shape of the same element count.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the counts differ.
    pub fn reshaped(mut self, shape: Shape) -> Result<Self, OpError> {
        if shape.elements() != self.fact.shape.elements() {
            return Err(OpError::shapes("a reshape keeps the element count", &[&self.fact.shape, &shape]));
        }
        self.fact.shape = shape;
        Ok(self)
    }

    /// The elements; `None` if `T` is not the element type, or if they are unaligned in a file and there is no memory
    /// for a copy.
    #[must_use]
    pub fn elements<T: Element>(&self) -> Option<&[T]> {
        holds::<T>(self.fact.dtype).then(|| elements(self.bytes()))?
    }

    /// The elements, aligned or not: read one by one without a copy, for reading a file's weights once; `None` if `T`
    /// is not the element type.
    pub(crate) fn peek<T: Element>(&self) -> Option<Peek<'_, T>> {
        let bytes = self.aligned.get().unwrap_or(&self.bytes);
        holds::<T>(self.fact.dtype).then_some(Peek { bytes, element: PhantomData })
    }

    /// The elements, for writing; `None` if `T` is not the element type, or if they are shared and there is no memory
    /// for a copy.
    #[must_use]
    pub fn elements_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        holds::<T>(self.fact.dtype).then(|| self.bytes_mut().and_then(elements_mut))?
    }

    /// The native-endian bytes, for writing: copied first if they are shared. `None` if there is no memory for a copy.
    pub(crate) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if let Some(aligned) = self.aligned.take() {
            self.bytes = aligned;
        }
        self.bytes.make_mut()
    }

    /// The native-endian bytes, aligned for the elements; as they are if there is no memory for an aligned copy.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        if self.bytes.as_ptr().addr().is_multiple_of(self.fact.dtype.size()) {
            return &self.bytes;
        }
        let aligned: &Bytes = match (self.aligned.get(), &self.bytes) {
            (Some(aligned), _) => aligned,
            (None, bytes) => bytes.realigned().map_or(bytes, |copy| self.aligned.get_or_init(|| copy)),
        };
        aligned
    }

    /// Makes the aligned copy that readers need if the bytes are unaligned.
    ///
    /// # Errors
    /// [`OpError::NoMemory`].
    pub(crate) fn align(&self) -> Result<(), OpError> {
        let bytes = self.bytes();
        let aligned = bytes.is_empty() || bytes.as_ptr().addr().is_multiple_of(self.fact.dtype.size());
        if aligned { Ok(()) } else { Err(OpError::no_memory(bytes.len())) }
    }

    /// The same tensor with its own bytes if they are part of a larger whole, such as a file.
    ///
    /// # Errors
    /// [`OpError::NoMemory`].
    pub(crate) fn detached(&self) -> Result<Self, OpError> {
        if self.bytes.is_part() || self.aligned.get().is_some() {
            return Self::from_bytes(self.fact.clone(), self.bytes());
        }
        Ok(self.clone())
    }

    /// Releases the memory of its pages, if it is part of a mapped file.
    pub(crate) fn evict(&self) {
        self.bytes.evict();
    }

    /// Like [`evict`](Self::evict), for some of its bytes.
    pub(crate) fn evict_part(&self, bytes: Range<usize>) {
        if let Some(part) = self.bytes.part(bytes) {
            part.evict();
        }
    }

    /// A borrowed view of the whole tensor.
    #[must_use]
    pub fn view(&self) -> TensorView<'_> {
        TensorView { fact: self.fact.clone(), bytes: self.bytes() }
    }
}

/// A tensor as an attribute of a stored operator.
#[derive(Serialize, Deserialize)]
struct Stored {
    fact: Fact,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    bytes: Vec<u8>,
}

impl TryFrom<Stored> for Tensor {
    type Error = OpError;

    fn try_from(Stored { fact, bytes }: Stored) -> Result<Self, OpError> {
        Self::from_bytes(fact, &bytes)
    }
}

impl From<Tensor> for Stored {
    fn from(tensor: Tensor) -> Self {
        let bytes = tensor.bytes().to_vec();
        Self { fact: tensor.fact, bytes }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({})", self.fact)
    }
}

/// A borrowed dense tensor: an input of a run, or a result in the arena.
#[derive(Clone)]
pub struct TensorView<'a> {
    fact: Fact,
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// A view of elements under a shape.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the element count is not the shape's.
    pub fn new<T: Element>(dims: &[usize], elements: &'a [T]) -> Result<Self, OpError> {
        Self::from_bytes(Fact::new(T::DTYPE, Shape::new(dims)?), bytemuck::cast_slice(elements))
    }

    /// A view of native-endian bytes.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the byte count is not the fact's.
    pub fn from_bytes(fact: Fact, bytes: &'a [u8]) -> Result<Self, OpError> {
        if bytes.len() != fact.bytes() {
            return Err(OpError::Shape {
                rule: "bytes must match the shape",
                shapes: format!("{} bytes for {fact}", bytes.len()),
            });
        }
        Ok(Self { fact, bytes })
    }

    /// Type and shape.
    #[must_use]
    pub fn fact(&self) -> &Fact {
        &self.fact
    }

    /// The elements; `None` if `T` is not the element type or the bytes are unaligned.
    #[must_use]
    pub fn elements<T: Element>(&self) -> Option<&'a [T]> {
        holds::<T>(self.fact.dtype).then(|| elements(self.bytes))?
    }

    /// The elements as f32; `None` if they are not f32, f16 or f64.
    #[must_use]
    pub fn to_floats(&self) -> Option<Vec<f32>> {
        let halves = || Some(self.elements::<f16>()?.iter().map(|half| half.to_f32()).collect());
        let doubles = || Some(self.elements::<f64>()?.iter().map(|&double| double as f32).collect());
        self.elements::<f32>().map(<[f32]>::to_vec).or_else(halves).or_else(doubles)
    }

    /// The native-endian bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// An owned copy.
    #[must_use]
    pub fn to_tensor(&self) -> Tensor {
        Tensor::of(self.fact.clone(), AlignedVec::from_slice(self.bytes).into())
    }
}

/// Elements that may be unaligned.
#[derive(Clone, Copy)]
pub(crate) struct Peek<'a, T> {
    bytes: &'a [u8],
    element: PhantomData<T>,
}

impl<'a, T: Element> Peek<'a, T> {
    /// The number of elements.
    pub fn len(self) -> usize {
        self.bytes.len() / size_of::<T>()
    }

    /// Some of them; empty if the range reaches past the end.
    pub fn part(self, range: Range<usize>) -> Self {
        let bytes = self.bytes.get(range.start * size_of::<T>()..range.end * size_of::<T>()).unwrap_or_default();
        Self { bytes, element: PhantomData }
    }

    /// All of them, if they are aligned.
    pub fn slice(self) -> Option<&'a [T]> {
        elements(self.bytes)
    }

    /// The element at an index.
    pub fn get(self, index: usize) -> Option<T> {
        self.part(index..index + 1).iter().next()
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = T> + 'a {
        self.bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
    }
}

fn holds<T: Element>(dtype: DType) -> bool {
    dtype == T::DTYPE || (dtype == DType::Bool && T::DTYPE == DType::U8)
}

/// Bytes as elements; `None` if the length does not match, or if they are unaligned. Empty bytes may have any address,
/// so they are handled separately.
pub(crate) fn elements<T: Element>(bytes: &[u8]) -> Option<&[T]> {
    if bytes.is_empty() { Some(&[]) } else { bytemuck::try_cast_slice(bytes).ok() }
}

/// Like [`elements`], for writing.
pub(crate) fn elements_mut<T: Element>(bytes: &mut [u8]) -> Option<&mut [T]> {
    if bytes.is_empty() { Some(&mut []) } else { bytemuck::try_cast_slice_mut(bytes).ok() }
}

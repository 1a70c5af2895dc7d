//! The ONNX messages that loading needs, borrowed from the file.
//!
//! Names are slices of the file. Repeated numeric fields are not copied: a [`Numbers`] keeps their
//! bytes and decodes them on each read. The tree takes memory per message, never per weight.

#![allow(missing_docs, reason = "the fields have the names and meanings of onnx.proto3")]

use crate::wire::{FieldValue, Reader, varint};

use crate::element::ElementType;
use crate::invalid::{Place, quoted};

/// `ModelProto`.
#[derive(Debug, Default)]
pub struct Model<'a> {
    pub ir_version: Option<i64>,
    pub opset_imports: Vec<OpsetImport<'a>>,
    pub graph: Option<Graph<'a>>,
    pub metadata: Vec<(&'a str, &'a str)>,
    pub functions: Vec<Function<'a>>,
}

/// `OperatorSetIdProto`.
#[derive(Debug, Default, Clone, Copy)]
pub struct OpsetImport<'a> {
    pub domain: &'a str,
    pub version: Option<i64>,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    pub initializers: Vec<Tensor<'a>>,
    pub sparse_initializers: Vec<SparseTensor<'a>>,
    pub inputs: Vec<ValueInfo<'a>>,
    pub outputs: Vec<ValueInfo<'a>>,
    pub value_infos: Vec<ValueInfo<'a>>,
}

/// `FunctionProto`.
#[derive(Debug, Default)]
pub struct Function<'a> {
    pub name: &'a str,
    pub domain: &'a str,
    pub overload: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub attributes: Vec<&'a str>,
    pub default_attributes: Vec<Attribute<'a>>,
    pub opset_imports: Vec<OpsetImport<'a>>,
    pub nodes: Vec<Node<'a>>,
    pub value_infos: Vec<ValueInfo<'a>>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub struct Node<'a> {
    /// The encoded message.
    pub bytes: &'a [u8],
    pub name: &'a str,
    pub op_type: &'a str,
    pub domain: &'a str,
    pub overload: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub attributes: Vec<Attribute<'a>>,
}

impl<'a> Node<'a> {
    /// The place that errors report for this node.
    pub fn place(&self) -> Place {
        if !self.name.is_empty() {
            return Place::Node(quoted(self.name));
        }
        let op = quoted(self.op_type);
        match self.outputs.iter().find(|name| !name.is_empty()) {
            Some(output) => Place::Node(format!("{op} -> {}", quoted(output))),
            None => Place::Node(op),
        }
    }

    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// The graphs in its attributes, in order.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph<'a>> {
        self.attributes.iter().flat_map(|attribute| attribute.graphs.iter())
    }
}

/// `AttributeProto`. `present` records which value fields occurred, so that the validator can
/// compare them with the declared type.
#[derive(Debug, Default)]
pub struct Attribute<'a> {
    pub name: &'a str,
    pub kind: i64,
    pub reference: &'a str,
    /// Bit set of the field numbers of the values that are present.
    pub present: u32,
    pub float: f32,
    pub int: i64,
    pub string: &'a [u8],
    pub floats: Numbers<'a>,
    pub ints: Numbers<'a>,
    pub strings: Vec<&'a [u8]>,
    /// From `t` or `tensors`.
    pub tensors: Vec<Tensor<'a>>,
    /// From `g` or `graphs`.
    pub graphs: Vec<Graph<'a>>,
    /// From `sparse_tensor` or `sparse_tensors`.
    pub sparse_tensors: Vec<SparseTensor<'a>>,
    /// From `tp` or `type_protos`.
    pub types: Vec<Type<'a>>,
}

/// `TensorProto`.
#[derive(Debug, Default)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub dims: Vec<i64>,
    pub data_type: i64,
    pub segmented: bool,
    pub raw: &'a [u8],
    pub float_data: Numbers<'a>,
    pub int32_data: Numbers<'a>,
    pub int64_data: Numbers<'a>,
    pub double_data: Numbers<'a>,
    pub uint64_data: Numbers<'a>,
    pub strings: u64,
    pub data_location: i64,
    pub external: Vec<(&'a str, &'a str)>,
}

impl<'a> Tensor<'a> {
    /// The place that errors report for this tensor.
    pub fn place(&self) -> Place {
        Place::Tensor(quoted(self.name))
    }

    /// Its element type; `None` if the code is unknown.
    pub fn element(&self) -> Option<ElementType> {
        ElementType::from_number(self.data_type)
    }

    /// Whether its data is in another file.
    pub fn is_external(&self) -> bool {
        self.data_location == 1
    }

    /// Product of the dimensions; `None` if one is negative or the product overflows.
    pub fn elements(&self) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(u64::try_from(dim).ok()?))
    }

    /// Its elements widened to 64 bits; `None` unless they are integers stored in the model file.
    pub fn integers(&self) -> Option<Box<dyn Iterator<Item = i64> + 'a>> {
        use ElementType as E;
        let raw = self.raw;
        if self.is_external() {
            return None;
        }
        if raw.is_empty() {
            return match self.element()? {
                E::Int64 => Some(Box::new(self.int64_data.ints())),
                // Unsigned values of 2^63 and above become negative, which is acceptable here.
                E::Uint32 | E::Uint64 => Some(Box::new(self.uint64_data.ints())),
                E::Int32 | E::Int16 | E::Uint16 | E::Int8 | E::Uint8 => Some(Box::new(self.int32_data.ints())),
                _ => None,
            };
        }
        macro_rules! little_endian {
            ($int:ty) => {
                Some(Box::new(raw.as_chunks().0.iter().map(|bytes| <$int>::from_le_bytes(*bytes) as i64)))
            };
        }
        match self.element()? {
            E::Int64 | E::Uint64 => little_endian!(i64),
            E::Int32 => little_endian!(i32),
            E::Uint32 => little_endian!(u32),
            E::Int16 => little_endian!(i16),
            E::Uint16 => little_endian!(u16),
            E::Int8 => little_endian!(i8),
            E::Uint8 => little_endian!(u8),
            _ => None,
        }
    }

    /// Its elements as doubles; `None` unless they are floats (16, 32 or 64 bits) stored in the
    /// model file.
    pub fn floats(&self) -> Option<Box<dyn Iterator<Item = f64> + 'a>> {
        use half::{bf16, f16};
        let raw = self.raw;
        if self.is_external() {
            return None;
        }
        if raw.is_empty() {
            return match self.element()? {
                ElementType::Float => Some(Box::new(self.float_data.floats().map(f64::from))),
                ElementType::Double => Some(Box::new(self.double_data.doubles())),
                ElementType::Float16 => {
                    Some(Box::new(self.int32_data.ints().map(|bits| f16::from_bits(bits as u16).to_f64())))
                }
                ElementType::Bfloat16 => {
                    Some(Box::new(self.int32_data.ints().map(|bits| bf16::from_bits(bits as u16).to_f64())))
                }
                _ => None,
            };
        }
        match self.element()? {
            ElementType::Float => Some(Box::new(raw.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))))),
            ElementType::Double => Some(Box::new(raw.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)))),
            ElementType::Float16 => Some(Box::new(raw.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()))),
            ElementType::Bfloat16 => Some(Box::new(raw.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()))),
            _ => None,
        }
    }
}

/// `SparseTensorProto`.
#[derive(Debug, Default)]
pub struct SparseTensor<'a> {
    pub values: Tensor<'a>,
    pub indices: Tensor<'a>,
    pub dims: Vec<i64>,
}

/// `ValueInfoProto`.
#[derive(Debug, Default)]
pub struct ValueInfo<'a> {
    pub name: &'a str,
    pub kind: Option<Type<'a>>,
}

/// `TypeProto`.
#[derive(Debug)]
pub enum Type<'a> {
    /// The message contains no type.
    Missing,
    /// A dense tensor: the `DataType` code, and the shape if the rank is known.
    Tensor(i64, Option<Vec<Dim<'a>>>),
    /// A sparse tensor, likewise.
    SparseTensor(i64, Option<Vec<Dim<'a>>>),
    /// A sequence of values of one type.
    Sequence(Box<Type<'a>>),
    /// A value that may be absent.
    Optional(Box<Type<'a>>),
    /// A map: the `DataType` code of the keys, and the type of the values.
    Map(i64, Box<Type<'a>>),
    /// An opaque, vendor-specific type.
    Opaque,
}

/// `TensorShapeProto.Dimension`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim<'a> {
    Known(i64),
    Symbol(&'a str),
    Unknown,
}

/// The values of a repeated numeric field, still encoded. The decoder has already walked them, so
/// reading cannot fail; it also requires all occurrences to be adjacent, so reading the first few
/// values is cheap however long the message is.
#[derive(Debug, Default, Clone, Copy)]
pub struct Numbers<'a> {
    /// The encoded occurrences of the field, adjacent to each other.
    pub fields: &'a [u8],
    /// Count of values.
    pub count: u64,
}

impl<'a> Numbers<'a> {
    /// The occurrences of the field; a packed occurrence is one item.
    fn values(self) -> impl Iterator<Item = FieldValue<'a>> {
        let mut reader = Reader::new(self.fields);
        std::iter::from_fn(move || reader.field().ok().flatten().map(|field| field.value))
    }

    /// The values as 64-bit integers.
    pub fn ints(self) -> impl Iterator<Item = i64> + 'a {
        self.values().flat_map(|value| {
            let (mut single, mut packed) = match value {
                FieldValue::Varint(value) => (Some(value), &[][..]),
                FieldValue::Bytes(bytes) => (None, bytes),
                _ => (None, &[][..]),
            };
            std::iter::from_fn(move || {
                if let Some(value) = single.take() {
                    return Some(value as i64);
                }
                let (value, rest) = varint(packed).ok()?;
                packed = rest;
                Some(value as i64)
            })
        })
    }

    /// The values as floats.
    pub fn floats(self) -> impl Iterator<Item = f32> + 'a {
        self.values().flat_map(|value| {
            let (single, packed) = match value {
                FieldValue::Fixed32(bits) => (Some(f32::from_bits(bits)), &[][..]),
                FieldValue::Bytes(bytes) => (None, bytes),
                _ => (None, &[][..]),
            };
            single.into_iter().chain(packed.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)))
        })
    }

    /// The values as doubles.
    pub fn doubles(self) -> impl Iterator<Item = f64> + 'a {
        self.values().flat_map(|value| {
            let (single, packed) = match value {
                FieldValue::Fixed64(bits) => (Some(f64::from_bits(bits)), &[][..]),
                FieldValue::Bytes(bytes) => (None, bytes),
                _ => (None, &[][..]),
            };
            single.into_iter().chain(packed.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)))
        })
    }
}

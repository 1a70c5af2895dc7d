//! Decodes the bytes of a file into the borrowed messages of [`super::proto`].
//!
//! Each message has one function, a plain loop over its fields. The decoder bounds the depth and
//! the count of messages and checks wire types and UTF-8. It refuses a singular field that occurs
//! twice: protobuf would merge the two occurrences, and parsers may disagree on the result.
//! Field numbers are those of onnx.proto3. Fields that loading does not need are skipped.

mod message;

use crate::limits::Limits;
use crate::wire::{FieldValue, varint};

use crate::invalid::{Invalid, Place, Rule};
use crate::proto::{
    Attribute, Dim, Function, Graph, Model, Node, Numbers, OpsetImport, SparseTensor, Tensor, Type, ValueInfo,
};
use crate::reserve::push;
use message::{Item, Message, Scalar, wire_error};

type Result<T> = std::result::Result<T, Invalid>;

/// Decodes a whole file.
///
/// # Errors
/// [`Invalid`] if the bytes are not ONNX messages or exceed the [`Limits`].
pub fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Model<'a>> {
    let mut decoder = Decoder { limits, items: 0, nodes: 0 };
    decoder.model(Message::new(bytes, bytes.as_ptr().addr(), 0))
}

/// Decodes a single `NodeProto`.
pub(crate) fn node<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Node<'a>> {
    let mut decoder = Decoder { limits, items: 0, nodes: 0 };
    decoder.node(Message::new(bytes, bytes.as_ptr().addr(), 0))
}

struct Decoder<'l> {
    limits: &'l Limits,
    items: usize,
    nodes: usize,
}

impl Decoder<'_> {
    /// Counts one message or string against [`Limits::max_items`].
    fn count(&mut self, item: Item<'_>) -> Result<()> {
        self.items += 1;
        if self.items > self.limits.max_items {
            let what =
                format!("the file holds more than {} messages and strings (limit 'items')", self.limits.max_items);
            return Err(item.invalid(Rule::Limit, what));
        }
        Ok(())
    }

    /// Opens the message in a field of `parent`, one level deeper.
    fn child<'a>(&mut self, parent: &Message<'a>, item: Item<'a>) -> Result<Message<'a>> {
        self.count(item)?;
        let depth = parent.depth + 1;
        if depth > self.limits.max_depth {
            let what = format!("messages are nested more than {} deep (limit 'depth')", self.limits.max_depth);
            return Err(item.invalid(Rule::Depth, what));
        }
        Ok(Message::new(item.bytes()?, parent.origin, depth))
    }

    /// Reads the message in a field of `parent`.
    fn nested<'a, T>(
        &mut self,
        parent: &Message<'a>,
        item: Item<'a>,
        read: impl FnOnce(&mut Self, Message<'a>) -> Result<T>,
    ) -> Result<T> {
        let child = self.child(parent, item)?;
        read(self, child)
    }

    /// Reads a name, at most [`Limits::max_name_bytes`] long.
    fn name<'a>(&mut self, item: Item<'a>) -> Result<&'a str> {
        self.count(item)?;
        item.text_up_to(self.limits.max_name_bytes, "name")
    }

    /// Appends the values of one occurrence of a repeated numeric field. All occurrences must be
    /// adjacent in the message.
    fn numbers<'a>(
        &self,
        numbers: &mut Numbers<'a>,
        message: &Message<'a>,
        item: Item<'a>,
        scalar: Scalar,
    ) -> Result<()> {
        let count = numbers.count.saturating_add(self.count_numbers(item, scalar)?);
        let start = if numbers.fields.is_empty() {
            item.at
        } else {
            let start = numbers.fields.as_ptr().addr().wrapping_sub(message.origin);
            if start + numbers.fields.len() != item.at {
                let what = format!("the values of field {} are interleaved with other fields", item.number);
                return Err(item.invalid(Rule::RepeatedField, what));
            }
            start
        };
        let fields = message.read_since(start);
        // A value takes at most ten bytes, and so does the key before it.
        if fields.len() as u64 > count.saturating_add(1).saturating_mul(24) {
            let what = format!("field {} occurs many times without values", item.number);
            return Err(item.invalid(Rule::Malformed, what));
        }
        *numbers = Numbers { fields, count };
        Ok(())
    }

    /// Count of the values in one occurrence of a numeric field.
    fn count_numbers(&self, item: Item<'_>, scalar: Scalar) -> Result<u64> {
        Ok(match (item.value, scalar) {
            (FieldValue::Varint(_), Scalar::Varint)
            | (FieldValue::Fixed32(_), Scalar::Fixed32)
            | (FieldValue::Fixed64(_), Scalar::Fixed64) => 1,
            (FieldValue::Bytes(mut packed), Scalar::Varint) => {
                let mut count = 0;
                while !packed.is_empty() {
                    packed = varint(packed).map_err(|error| wire_error(error, item.at))?.1;
                    count += 1;
                }
                count
            }
            (FieldValue::Bytes(packed), Scalar::Fixed32 | Scalar::Fixed64) => {
                let width = if matches!(scalar, Scalar::Fixed32) { 4 } else { 8 };
                if packed.len() % width != 0 {
                    return Err(item.invalid(
                        Rule::Truncated,
                        format!("the packed values of field {} end in the middle of a value", item.number),
                    ));
                }
                packed.len() as u64 / width as u64
            }
            _ => return Err(item.wrong_type()),
        })
    }

    /// Appends the dimensions in one occurrence of a field, up to [`Limits::max_rank`].
    fn dims(&self, dims: &mut Vec<i64>, item: Item<'_>) -> Result<()> {
        let more = self.count_numbers(item, Scalar::Varint)?;
        if more.saturating_add(dims.len() as u64) > self.limits.max_rank as u64 {
            let what = format!("a tensor has more than {} dimensions (limit 'rank')", self.limits.max_rank);
            return Err(item.invalid(Rule::Limit, what));
        }
        match item.value {
            FieldValue::Bytes(mut packed) => {
                while let Ok((value, rest)) = varint(packed) {
                    dims.push(value as i64);
                    packed = rest;
                }
            }
            _ => dims.push(item.int()?),
        }
        Ok(())
    }

    fn model<'a>(&mut self, mut message: Message<'a>) -> Result<Model<'a>> {
        message.singular(&[1, 2, 3, 4, 5, 6, 7]);
        let mut model = Model::default();
        while let Some(item) = message.next()? {
            match item.number {
                1 => model.ir_version = Some(item.int()?),
                2..=4 | 6 => item.text_up_to(self.limits.max_string_bytes, "string").map(drop)?,
                5 => item.int().map(drop)?,
                7 => model.graph = Some(self.nested(&message, item, Self::graph)?),
                8 => push(&mut model.opset_imports, self.nested(&message, item, Self::opset_import)?)?,
                14 => push(&mut model.metadata, self.nested(&message, item, Self::entry)?)?,
                20 => self.nested(&message, item, Self::training).map(drop)?,
                25 => push(&mut model.functions, self.nested(&message, item, Self::function)?)?,
                _ => {}
            }
        }
        Ok(model)
    }

    fn opset_import<'a>(&mut self, mut message: Message<'a>) -> Result<OpsetImport<'a>> {
        message.singular(&[1, 2]);
        let mut import = OpsetImport::default();
        while let Some(item) = message.next()? {
            match item.number {
                1 => import.domain = self.name(item)?,
                2 => import.version = Some(item.int()?),
                _ => {}
            }
        }
        Ok(import)
    }

    /// `StringStringEntryProto`.
    fn entry<'a>(&mut self, mut message: Message<'a>) -> Result<(&'a str, &'a str)> {
        message.singular(&[1, 2]);
        let mut entry = ("", "");
        while let Some(item) = message.next()? {
            match item.number {
                1 => entry.0 = self.name(item)?,
                2 => {
                    self.count(item)?;
                    entry.1 = item.text_up_to(self.limits.max_string_bytes, "string")?;
                }
                _ => {}
            }
        }
        Ok(entry)
    }

    /// `TrainingInfoProto`: checked and discarded. Inference does not use it, but other parsers
    /// read it.
    fn training(&mut self, mut message: Message<'_>) -> Result<()> {
        message.singular(&[1, 2]);
        while let Some(item) = message.next()? {
            match item.number {
                1 | 2 => self.nested(&message, item, Self::graph).map(drop)?,
                3 | 4 => self.nested(&message, item, Self::entry).map(drop)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn graph<'a>(&mut self, mut message: Message<'a>) -> Result<Graph<'a>> {
        message.singular(&[2, 10]);
        let mut graph = Graph::default();
        while let Some(item) = message.next()? {
            match item.number {
                1 => push(&mut graph.nodes, self.nested(&message, item, Self::node)?)?,
                2 => self.name(item).map(drop)?,
                5 => push(&mut graph.initializers, self.nested(&message, item, Self::tensor)?)?,
                10 => item.text().map(drop)?,
                11 => push(&mut graph.inputs, self.nested(&message, item, Self::value_info)?)?,
                12 => push(&mut graph.outputs, self.nested(&message, item, Self::value_info)?)?,
                13 => push(&mut graph.value_infos, self.nested(&message, item, Self::value_info)?)?,
                14 => self.nested(&message, item, Self::annotation).map(drop)?,
                15 => push(&mut graph.sparse_initializers, self.nested(&message, item, Self::sparse_tensor)?)?,
                16 => self.nested(&message, item, Self::entry).map(drop)?,
                _ => {}
            }
        }
        Ok(graph)
    }

    /// `TensorAnnotation`.
    fn annotation(&mut self, mut message: Message<'_>) -> Result<()> {
        message.singular(&[1]);
        while let Some(item) = message.next()? {
            match item.number {
                1 => self.name(item).map(drop)?,
                2 => self.nested(&message, item, Self::entry).map(drop)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn function<'a>(&mut self, mut message: Message<'a>) -> Result<Function<'a>> {
        message.singular(&[1, 8, 10, 13]);
        let mut function = Function::default();
        while let Some(item) = message.next()? {
            match item.number {
                1 => function.name = self.name(item)?,
                4 => push(&mut function.inputs, self.name(item)?)?,
                5 => push(&mut function.outputs, self.name(item)?)?,
                6 => push(&mut function.attributes, self.name(item)?)?,
                7 => push(&mut function.nodes, self.nested(&message, item, Self::node)?)?,
                8 => item.text().map(drop)?,
                9 => push(&mut function.opset_imports, self.nested(&message, item, Self::opset_import)?)?,
                10 => function.domain = self.name(item)?,
                11 => push(&mut function.default_attributes, self.nested(&message, item, Self::attribute)?)?,
                12 => push(&mut function.value_infos, self.nested(&message, item, Self::value_info)?)?,
                13 => function.overload = self.name(item)?,
                14 => self.nested(&message, item, Self::entry).map(drop)?,
                _ => {}
            }
        }
        Ok(function)
    }

    fn node<'a>(&mut self, mut message: Message<'a>) -> Result<Node<'a>> {
        message.singular(&[3, 4, 6, 7, 8]);
        self.nodes += 1;
        if self.nodes > self.limits.max_nodes {
            let what = format!("the model has more than {} nodes (limit 'nodes')", self.limits.max_nodes);
            return Err(Invalid::new(Rule::Limit, Place::Model, what));
        }
        let mut node = Node { bytes: message.bytes(), ..Node::default() };
        while let Some(item) = message.next()? {
            match item.number {
                1 => push(&mut node.inputs, self.name(item)?)?,
                2 => push(&mut node.outputs, self.name(item)?)?,
                3 => node.name = self.name(item)?,
                4 => node.op_type = self.name(item)?,
                5 => {
                    if node.attributes.len() >= self.limits.max_attributes {
                        let what = format!(
                            "a node has more than {} attributes (limit 'attributes')",
                            self.limits.max_attributes
                        );
                        return Err(item.invalid(Rule::Limit, what));
                    }
                    push(&mut node.attributes, self.nested(&message, item, Self::attribute)?)?;
                }
                6 => item.text().map(drop)?,
                7 => node.domain = self.name(item)?,
                8 => node.overload = self.name(item)?,
                9 => self.nested(&message, item, Self::entry).map(drop)?,
                _ => {}
            }
        }
        Ok(node)
    }

    fn attribute<'a>(&mut self, mut message: Message<'a>) -> Result<Attribute<'a>> {
        message.singular(&[1, 2, 3, 4, 5, 6, 13, 14, 20, 21, 22]);
        let mut attribute = Attribute::default();
        while let Some(item) = message.next()? {
            // Fields 2 to 11, 14, 15, 22 and 23 are values.
            if matches!(item.number, 2..=11 | 14 | 15 | 22 | 23) {
                attribute.present |= 1 << item.number;
            }
            match item.number {
                1 => attribute.name = self.name(item)?,
                2 => attribute.float = item.float()?,
                3 => attribute.int = item.int()?,
                4 => attribute.string = self.string(item)?,
                5 | 10 => push(&mut attribute.tensors, self.nested(&message, item, Self::tensor)?)?,
                6 | 11 => push(&mut attribute.graphs, self.nested(&message, item, Self::graph)?)?,
                7 => self.numbers(&mut attribute.floats, &message, item, Scalar::Fixed32)?,
                8 => self.numbers(&mut attribute.ints, &message, item, Scalar::Varint)?,
                9 => {
                    self.count(item)?;
                    push(&mut attribute.strings, self.string(item)?)?;
                }
                13 => item.text().map(drop)?,
                14 | 15 => push(&mut attribute.types, self.nested(&message, item, Self::type_proto)?)?,
                20 => attribute.kind = item.int()?,
                21 => attribute.reference = self.name(item)?,
                22 | 23 => push(&mut attribute.sparse_tensors, self.nested(&message, item, Self::sparse_tensor)?)?,
                _ => {}
            }
        }
        Ok(attribute)
    }

    /// An ONNX string attribute, which may be arbitrary bytes.
    fn string<'a>(&self, item: Item<'a>) -> Result<&'a [u8]> {
        let bytes = item.bytes()?;
        if bytes.len() > self.limits.max_string_bytes {
            let most = self.limits.max_string_bytes;
            let what = format!("a string attribute has {} bytes, the limit 'string' is {most}", bytes.len());
            return Err(item.invalid(Rule::Limit, what));
        }
        Ok(bytes)
    }

    fn tensor<'a>(&mut self, mut message: Message<'a>) -> Result<Tensor<'a>> {
        message.singular(&[2, 8, 9, 12, 14]);
        let mut tensor = Tensor::default();
        while let Some(item) = message.next()? {
            match item.number {
                1 => self.dims(&mut tensor.dims, item)?,
                2 => tensor.data_type = item.int()?,
                3 => tensor.segmented = true,
                4 => self.numbers(&mut tensor.float_data, &message, item, Scalar::Fixed32)?,
                5 => self.numbers(&mut tensor.int32_data, &message, item, Scalar::Varint)?,
                6 => {
                    self.count(item)?;
                    item.text()?;
                    tensor.strings += 1;
                }
                7 => self.numbers(&mut tensor.int64_data, &message, item, Scalar::Varint)?,
                8 => tensor.name = self.name(item)?,
                9 => tensor.raw = item.bytes()?,
                10 => self.numbers(&mut tensor.double_data, &message, item, Scalar::Fixed64)?,
                11 => self.numbers(&mut tensor.uint64_data, &message, item, Scalar::Varint)?,
                12 => item.text().map(drop)?,
                13 => push(&mut tensor.external, self.nested(&message, item, Self::entry)?)?,
                14 => tensor.data_location = item.int()?,
                16 => self.nested(&message, item, Self::entry).map(drop)?,
                _ => {}
            }
        }
        Ok(tensor)
    }

    fn sparse_tensor<'a>(&mut self, mut message: Message<'a>) -> Result<SparseTensor<'a>> {
        message.singular(&[1, 2]);
        let mut sparse = SparseTensor::default();
        while let Some(item) = message.next()? {
            match item.number {
                1 => sparse.values = self.nested(&message, item, Self::tensor)?,
                2 => sparse.indices = self.nested(&message, item, Self::tensor)?,
                3 => self.dims(&mut sparse.dims, item)?,
                _ => {}
            }
        }
        Ok(sparse)
    }

    fn value_info<'a>(&mut self, mut message: Message<'a>) -> Result<ValueInfo<'a>> {
        message.singular(&[1, 2, 3]);
        let mut info = ValueInfo::default();
        while let Some(item) = message.next()? {
            match item.number {
                1 => info.name = self.name(item)?,
                2 => info.kind = Some(self.nested(&message, item, Self::type_proto)?),
                3 => item.text().map(drop)?,
                4 => self.nested(&message, item, Self::entry).map(drop)?,
                _ => {}
            }
        }
        Ok(info)
    }

    fn type_proto<'a>(&mut self, mut message: Message<'a>) -> Result<Type<'a>> {
        message.singular(&[6]);
        let mut kind = Type::Missing;
        while let Some(item) = message.next()? {
            let found = match item.number {
                1 | 8 => {
                    let tensor = self.child(&message, item)?;
                    let (element, shape) = self.tensor_type(tensor)?;
                    if item.number == 1 { Type::Tensor(element, shape) } else { Type::SparseTensor(element, shape) }
                }
                4 | 9 => {
                    let wrapper = self.child(&message, item)?;
                    let (_, inner) = self.container(wrapper, 1)?;
                    if item.number == 4 { Type::Sequence(inner) } else { Type::Optional(inner) }
                }
                5 => {
                    let map = self.child(&message, item)?;
                    let (key, value) = self.container(map, 2)?;
                    Type::Map(key, value)
                }
                6 => {
                    item.text()?;
                    continue;
                }
                7 => {
                    self.child(&message, item)?;
                    Type::Opaque
                }
                _ => continue,
            };
            if !matches!(kind, Type::Missing) {
                return Err(item.invalid(Rule::RepeatedField, "a value has two types"));
            }
            kind = found;
        }
        Ok(kind)
    }

    /// A sequence, optional or map type: the key's `DataType` (0 if there is none) and the type in
    /// field `value`.
    fn container<'a>(&mut self, mut message: Message<'a>, value: u32) -> Result<(i64, Box<Type<'a>>)> {
        message.singular(&[1, 2]);
        let mut found = (0, Box::new(Type::Missing));
        while let Some(item) = message.next()? {
            if item.number == value {
                found.1 = Box::new(self.nested(&message, item, Self::type_proto)?);
            } else if item.number == 1 {
                found.0 = item.int()?;
            }
        }
        Ok(found)
    }

    /// The `DataType` of the elements, and the shape if present.
    fn tensor_type<'a>(&mut self, mut message: Message<'a>) -> Result<(i64, Option<Vec<Dim<'a>>>)> {
        message.singular(&[1, 2]);
        let mut found = (0, None);
        while let Some(item) = message.next()? {
            match item.number {
                1 => found.0 = item.int()?,
                2 => found.1 = Some(self.nested(&message, item, Self::shape)?),
                _ => {}
            }
        }
        Ok(found)
    }

    fn shape<'a>(&mut self, mut message: Message<'a>) -> Result<Vec<Dim<'a>>> {
        let mut dims = Vec::new();
        while let Some(item) = message.next()? {
            if item.number != 1 {
                continue;
            }
            if dims.len() >= self.limits.max_rank {
                let what = format!("a shape has more than {} dimensions (limit 'rank')", self.limits.max_rank);
                return Err(item.invalid(Rule::Limit, what));
            }
            let dim = self.child(&message, item)?;
            dims.push(self.dim(dim)?);
        }
        Ok(dims)
    }

    fn dim<'a>(&mut self, mut message: Message<'a>) -> Result<Dim<'a>> {
        message.singular(&[3]);
        let mut dim = Dim::Unknown;
        while let Some(item) = message.next()? {
            let found = match item.number {
                1 => Dim::Known(item.int()?),
                2 => {
                    self.count(item)?;
                    Dim::Symbol(item.text()?)
                }
                3 => {
                    item.text()?;
                    continue;
                }
                _ => continue,
            };
            if dim != Dim::Unknown {
                return Err(item.invalid(Rule::RepeatedField, "a dimension has two values"));
            }
            dim = found;
        }
        Ok(dim)
    }
}

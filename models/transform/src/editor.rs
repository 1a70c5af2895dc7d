//! An ONNX model that can be edited: its nodes, constants, inputs and outputs, including subgraphs.
//!
//! Everything that a transformation does not touch is preserved: every message keeps the fields that are not
//! represented here, and writes them back.

use std::collections::HashSet;

use skipstone::onnx::{Limits, validate};
use skipstone_onnx::is_standard;
use skipstone_onnx::wire::{Field, FieldValue, Reader, put, varint};
use skipstone_onnx::write::Message;

use crate::error::{Error, Result};
pub(crate) use crate::tensor::Tensor;

/// Number of the element type `float32`.
pub(crate) const FLOAT: i64 = 1;
/// Number of the element type `uint8`.
pub(crate) const UINT8: i64 = 2;
/// Number of the element type `int8`.
pub(crate) const INT8: i64 = 3;
/// Number of the element type `int32`.
pub(crate) const INT32: i64 = 6;
/// Number of the element type `int64`.
pub(crate) const INT64: i64 = 7;
/// Number of the element type `float16`.
pub(crate) const HALF: i64 = 10;

/// A model being edited.
#[derive(Clone, Debug)]
pub(crate) struct Editor {
    pub graph: Graph,
    /// Version of the standard operators.
    pub opset: i64,
    rest: Vec<u8>,
    /// The names of all values, including those in subgraphs.
    names: HashSet<String>,
}

/// A graph, or a subgraph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub nodes: Vec<Node>,
    pub initializers: Vec<Tensor>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Types of other values, which may be dropped, since they follow from the nodes.
    pub value_infos: Vec<Port>,
    rest: Vec<u8>,
}

/// A node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub name: String,
    pub op_type: String,
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: Vec<Attribute>,
    rest: Vec<u8>,
}

/// An attribute of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attribute {
    pub name: String,
    pub float: f32,
    pub int: i64,
    pub ints: Vec<i64>,
    pub text: Vec<u8>,
    pub tensor: Option<Tensor>,
    /// Subgraphs, with their field numbers.
    graphs: Vec<(u32, Graph)>,
    /// All fields except the name and the subgraphs.
    rest: Vec<u8>,
}

/// An input or output, or the type of another value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Port {
    pub name: String,
    rest: Vec<u8>,
}

/// An impossible field: the file was validated before.
pub(crate) fn damaged() -> Error {
    Error::Unsupported("the model cannot be parsed".into())
}

/// The fields of a message.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>>> {
    let mut reader = Reader::new(message);
    std::iter::from_fn(move || reader.field().map_err(|_| damaged()).transpose())
}

pub(crate) fn text(value: FieldValue<'_>) -> Result<String> {
    match value {
        FieldValue::Bytes(bytes) => String::from_utf8(bytes.to_vec()).map_err(|_| damaged()),
        _ => Err(damaged()),
    }
}

fn message(value: FieldValue<'_>) -> Result<&[u8]> {
    match value {
        FieldValue::Bytes(bytes) => Ok(bytes),
        _ => Err(damaged()),
    }
}

/// Adds the integers of a repeated field, packed or not.
pub(crate) fn push_ints(to: &mut Vec<i64>, value: FieldValue<'_>) -> Result<()> {
    match value {
        FieldValue::Varint(value) => to.push(value as i64),
        FieldValue::Bytes(mut packed) => {
            while !packed.is_empty() {
                let (value, rest) = varint(packed).map_err(|_| damaged())?;
                to.push(value as i64);
                packed = rest;
            }
        }
        _ => return Err(damaged()),
    }
    Ok(())
}

impl Editor {
    /// Reads a self-contained model.
    ///
    /// # Errors
    /// The errors of validation; also weights outside the file, functions, subgraphs and sparse weights, which the
    /// transformations would overlook.
    pub fn open(bytes: &[u8]) -> Result<Self> {
        let checked = validate(bytes, &Limits::default()).map_err(skipstone::Error::from)?;
        let refused = [
            ("weights outside the file", !checked.external.is_empty()),
            ("sparse weights", !checked.sparse_initializers.is_empty()),
            ("local functions", checked.function_calls > 0),
            ("control flow", checked.has_control_flow),
        ];
        if let Some((what, _)) = refused.into_iter().find(|(_, has)| *has) {
            return Err(Error::Unsupported(format!("the model has {what}; export it without them")));
        }
        let (mut graph, mut opset, mut rest) = (None, 1, Vec::new());
        for field in fields(bytes) {
            let field = field?;
            match field.number {
                7 => graph = Some(Graph::read(message(field.value)?)?),
                // The producer, which is now Skipstone.
                2 | 3 => {}
                number => {
                    if number == 8 {
                        opset = standard_version(message(field.value)?)?.unwrap_or(opset);
                    }
                    put(&mut rest, field);
                }
            }
        }
        let graph = graph.ok_or_else(|| Error::Unsupported("the model has no graph".into()))?;
        let mut names = HashSet::new();
        graph.for_each_name(&mut |name| {
            names.insert(name.to_owned());
        });
        Ok(Self { graph, opset, rest, names })
    }

    /// The model as a file produced by this version of Skipstone.
    pub fn write(&self) -> Vec<u8> {
        let producer = Message::new().text(2, "skipstone").text(3, env!("CARGO_PKG_VERSION"));
        let mut bytes = self.rest.clone();
        bytes.extend(producer.nested(7, &self.graph.write()).into_bytes());
        bytes
    }

    /// Takes the pairs of metadata out of the model.
    ///
    /// # Errors
    /// Damaged metadata.
    pub fn take_metadata(&mut self) -> Result<Vec<(String, String)>> {
        let mut pairs = Vec::new();
        let given = std::mem::take(&mut self.rest);
        for field in fields(&given) {
            let field = field?;
            if field.number != 14 {
                put(&mut self.rest, field);
                continue;
            }
            let mut pair = (String::new(), String::new());
            for part in fields(message(field.value)?) {
                match part? {
                    Field { number: 1, value } => pair.0 = text(value)?,
                    Field { number: 2, value } => pair.1 = text(value)?,
                    _ => {}
                }
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }

    /// Adds pairs of metadata.
    pub fn add_metadata(&mut self, pairs: &[(String, String)]) {
        for (key, value) in pairs {
            let pair = Message::new().text(1, key).text(2, value);
            self.rest.extend(Message::new().nested(14, &pair).into_bytes());
        }
    }

    /// Reserves a name that is documented, and so has to be just this.
    ///
    /// # Errors
    /// A value of the model that has it.
    pub fn reserve(&mut self, name: &str) -> Result<String> {
        if self.names.insert(name.to_owned()) {
            return Ok(name.to_owned());
        }
        Err(Error::Unsupported(format!("the model already has a value '{name}'")))
    }

    /// An unused name for a value: `base_suffix`, with underscores appended until it is free.
    pub fn fresh(&mut self, base: &str, suffix: &str) -> String {
        let mut name = format!("{base}_{suffix}");
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }
}

/// The version of the standard operators in an `OperatorSetIdProto`.
fn standard_version(opset: &[u8]) -> Result<Option<i64>> {
    let (mut domain, mut version) = (String::new(), 1);
    for field in fields(opset) {
        match field? {
            Field { number: 1, value } => domain = text(value)?,
            Field { number: 2, value: FieldValue::Varint(number) } => version = number as i64,
            _ => {}
        }
    }
    Ok(is_standard(&domain).then_some(version))
}

impl Graph {
    /// A subgraph that computes one f32 tensor.
    pub fn of_nodes(output: &str, nodes: Vec<Node>) -> Self {
        let rest = Message::new().text(2, output).into_bytes();
        Self { nodes, outputs: vec![Port::of(output, FLOAT)], rest, ..Self::default() }
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let mut graph = Self::default();
        for field in fields(bytes) {
            let field = field?;
            match field.number {
                1 => graph.nodes.push(Node::read(message(field.value)?)?),
                5 => graph.initializers.push(Tensor::read(message(field.value)?)?),
                11 => graph.inputs.push(Port::read(message(field.value)?)?),
                12 => graph.outputs.push(Port::read(message(field.value)?)?),
                13 => graph.value_infos.push(Port::read(message(field.value)?)?),
                _ => put(&mut graph.rest, field),
            }
        }
        Ok(graph)
    }

    fn write(&self) -> Message {
        let all = |message: Message, number, ports: &[Port]| {
            ports.iter().fold(message, |message, port| message.nested(number, &port.write()))
        };
        let message = Message::of(&self.rest);
        let message = self.nodes.iter().fold(message, |message, node| message.nested(1, &node.write()));
        let message = self.initializers.iter().fold(message, |message, tensor| message.nested(5, &tensor.write()));
        all(all(all(message, 11, &self.inputs), 12, &self.outputs), 13, &self.value_infos)
    }

    /// The constant of this name.
    pub fn initializer(&self, name: &str) -> Option<&Tensor> {
        self.initializers.iter().find(|tensor| tensor.name == name)
    }

    /// The position of the constant that a value holds, directly or through casts (stored as f16, computed in f32).
    pub fn stored(&self, name: &str) -> Option<usize> {
        if let Some(at) = self.initializers.iter().position(|tensor| tensor.name == name) {
            return Some(at);
        }
        let node = &self.nodes[self.writer(name)?];
        let keeps = node.is("Cast") || node.is("Identity");
        self.stored(node.inputs.first().filter(|input| keeps && *input != name)?)
    }

    /// The position of the node that writes a value.
    pub fn writer(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.outputs.iter().any(|output| output == name))
    }

    /// How many times a value is read, including reads in subgraphs and as an output of the graph.
    pub fn readers(&self, name: &str) -> usize {
        let mut count = self.outputs.iter().filter(|output| output.name == name).count();
        for node in &self.nodes {
            count += node.inputs.iter().filter(|input| *input == name).count();
            count += node.subgraphs().map(|graph| graph.readers(name)).sum::<usize>();
        }
        count
    }

    /// Visits every name of a value, including those in subgraphs.
    fn for_each_name(&self, visit: &mut dyn FnMut(&str)) {
        self.inputs.iter().chain(&self.outputs).chain(&self.value_infos).for_each(|port| visit(&port.name));
        self.initializers.iter().for_each(|tensor| visit(&tensor.name));
        for node in &self.nodes {
            node.inputs.iter().chain(&node.outputs).for_each(|name| visit(name));
            node.subgraphs().for_each(|graph| graph.for_each_name(visit));
        }
    }
}

impl Node {
    /// A standard operator with one output, whose name the node gets.
    pub fn new(op_type: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) -> Self {
        Self {
            name: output.to_owned(),
            op_type: op_type.to_owned(),
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            outputs: vec![output.to_owned()],
            attributes,
            ..Self::default()
        }
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let mut node = Self::default();
        for field in fields(bytes) {
            let field = field?;
            match field.number {
                1 => node.inputs.push(text(field.value)?),
                2 => node.outputs.push(text(field.value)?),
                3 => node.name = text(field.value)?,
                4 => node.op_type = text(field.value)?,
                5 => node.attributes.push(Attribute::read(message(field.value)?)?),
                7 => node.domain = text(field.value)?,
                _ => put(&mut node.rest, field),
            }
        }
        Ok(node)
    }

    fn write(&self) -> Message {
        let names = |message: Message, number, names: &[String]| {
            names.iter().fold(message, |message, name| message.text(number, name))
        };
        let message = names(names(Message::of(&self.rest), 1, &self.inputs), 2, &self.outputs);
        let message = message.text(3, &self.name).text(4, &self.op_type).text(7, &self.domain);
        self.attributes.iter().fold(message, |message, attribute| message.nested(5, &attribute.write()))
    }

    /// Whether it is the standard operator of this name.
    pub fn is(&self, op_type: &str) -> bool {
        self.op_type == op_type && is_standard(&self.domain)
    }

    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// Replaces the attribute with this name.
    pub fn set_attribute(&mut self, attribute: Attribute) {
        self.attributes.retain(|other| other.name != attribute.name);
        self.attributes.push(attribute);
    }

    /// Its name in errors: the node's name, or its operator and output.
    pub fn label(&self) -> String {
        match (self.name.as_str(), self.outputs.first()) {
            ("", Some(output)) => format!("{} of '{output}'", self.op_type),
            (name, _) => name.to_owned(),
        }
    }

    /// Visits the values that it reads, also in subgraphs, whose own values are visited too.
    pub fn for_each_read(&self, visit: &mut dyn FnMut(&str)) {
        self.inputs.iter().for_each(|name| visit(name));
        for graph in self.subgraphs() {
            graph.nodes.iter().for_each(|node| node.for_each_read(visit));
            graph.outputs.iter().for_each(|port| visit(&port.name));
        }
    }

    /// The graphs in its attributes.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.iter().flat_map(|attribute| attribute.graphs.iter().map(|(_, graph)| graph))
    }
}

impl Attribute {
    /// An integer.
    pub fn of_int(name: &str, int: i64) -> Self {
        let rest = Message::new().int(3, int).int(20, 2).into_bytes();
        Self { name: name.to_owned(), int, rest, ..Self::default() }
    }

    /// A list of integers.
    pub fn of_ints(name: &str, ints: &[i64]) -> Self {
        let rest = ints.iter().fold(Message::new(), |message, &int| message.int(8, int)).int(20, 7).into_bytes();
        Self { name: name.to_owned(), ints: ints.to_vec(), rest, ..Self::default() }
    }

    /// A subgraph.
    pub fn of_graph(name: &str, graph: Graph) -> Self {
        let rest = Message::new().int(20, 5).into_bytes();
        Self { name: name.to_owned(), graphs: vec![(6, graph)], rest, ..Self::default() }
    }

    /// Whether name and value are equal.
    pub fn is_same(&self, other: &Self) -> bool {
        let graphs = |attribute: &Self| -> Vec<Vec<u8>> {
            attribute.graphs.iter().map(|(_, graph)| graph.write().into_bytes()).collect()
        };
        self.name == other.name && self.rest == other.rest && graphs(self) == graphs(other)
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let mut attribute = Self::default();
        for field in fields(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, value) => {
                    attribute.name = text(value)?;
                    continue;
                }
                (6 | 11, value) => {
                    attribute.graphs.push((field.number, Graph::read(message(value)?)?));
                    continue;
                }
                (2, FieldValue::Fixed32(bits)) => attribute.float = f32::from_bits(bits),
                (3, FieldValue::Varint(int)) => attribute.int = int as i64,
                (4, value) => attribute.text = message(value)?.to_vec(),
                (5, value) => attribute.tensor = Some(Tensor::read(message(value)?)?),
                (8, value) => push_ints(&mut attribute.ints, value)?,
                _ => {}
            }
            put(&mut attribute.rest, field);
        }
        Ok(attribute)
    }

    fn write(&self) -> Message {
        let message = Message::of(&self.rest).text(1, &self.name);
        self.graphs.iter().fold(message, |message, (number, graph)| message.nested(*number, &graph.write()))
    }
}

impl Port {
    /// A tensor of any shape, with elements of this type.
    pub fn of(name: &str, element: i64) -> Self {
        let kind = Message::new().nested(1, &Message::new().int(1, element));
        Self { name: name.to_owned(), rest: Message::new().nested(2, &kind).into_bytes() }
    }

    /// Declares these dimensions of a tensor.
    ///
    /// # Errors
    /// A port that is not a tensor.
    pub fn set_dims(&mut self, dims: &[usize]) -> Result<()> {
        let dimension = |dim: &usize| Message::new().nested(1, &Message::new().int(1, *dim as i64));
        let shape = dims.iter().map(dimension).fold(Vec::new(), |shape, dim| [shape, dim.into_bytes()].concat());
        self.declare(Some(&Message::of(&shape)))
    }

    /// Leaves the dimensions of a tensor open.
    ///
    /// # Errors
    /// A port that is not a tensor.
    pub fn clear_dims(&mut self) -> Result<()> {
        self.declare(None)
    }

    /// Puts a shape in the place of the one that is declared.
    fn declare(&mut self, shape: Option<&Message>) -> Result<()> {
        let part = |bytes: &[u8], wanted: u32| -> Result<Option<Vec<u8>>> {
            for field in fields(bytes) {
                let Field { number, value } = field?;
                if number == wanted {
                    return Ok(Some(message(value)?.to_vec()));
                }
            }
            Ok(None)
        };
        let tensor = part(&part(&self.rest, 2)?.unwrap_or_default(), 1)?;
        let tensor = tensor.ok_or_else(|| Error::Unsupported(format!("'{}' is not a tensor", self.name)))?;
        let mut element = FLOAT;
        for field in fields(&tensor) {
            if let Field { number: 1, value: FieldValue::Varint(number) } = field? {
                element = number as i64;
            }
        }
        let kind = Message::new().int(1, element);
        let kind = shape.map_or(kind.clone(), |shape| kind.nested(2, shape));
        self.rest = Message::new().nested(2, &Message::new().nested(1, &kind)).into_bytes();
        Ok(())
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let mut port = Self::default();
        for field in fields(bytes) {
            let field = field?;
            match field.number {
                1 => port.name = text(field.value)?,
                _ => put(&mut port.rest, field),
            }
        }
        Ok(port)
    }

    fn write(&self) -> Message {
        Message::of(&self.rest).text(1, &self.name)
    }
}

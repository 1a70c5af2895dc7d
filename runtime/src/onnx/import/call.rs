//! A node for its importer: attributes by name, operands as values of the graph, and the graph to add to.

use skipstone_onnx::proto::{Attribute, Node, Tensor as TensorProto};

use super::build::{Build, Halt, Imported};
use super::tensor::{self, FileTensor};
use crate::error::{OpError, SHOWN};
use crate::graph::ValueId;
use crate::ops::Op;
use crate::ops::cast::Cast;
use crate::ops::reshape::Reshape;
use crate::reserve;
use crate::tensor::{DType, Element, Fact, Shape, Tensor};

/// `AttributeType` numbers.
const FLOAT: i64 = 1;
const INT: i64 = 2;
const STRING: i64 = 3;
const TENSOR: i64 = 4;
const FLOATS: i64 = 6;
const INTS: i64 = 7;
const STRINGS: i64 = 8;

/// A node being imported.
pub(super) struct Call<'a, 'm> {
    /// The node in the file.
    pub node: &'m Node<'m>,
    /// Version of its opset.
    pub opset: i64,
    /// Its attributes; references to attributes of a function's call are resolved.
    pub attributes: Vec<(&'m str, &'m Attribute<'m>)>,
    /// Its operands; `None` for omitted ones.
    pub inputs: Vec<Option<ValueId>>,
    /// The graph to add nodes to.
    pub build: &'a mut Build,
    /// The files with external tensors of attributes.
    pub files: &'a tensor::Files,
}

impl<'m> Call<'_, 'm> {
    /// Its name in messages, the plan and the profile.
    pub fn name(&self) -> &str {
        name(self.node)
    }

    /// An error for an attribute.
    pub fn attribute_error(&self, name: &'static str, reason: impl Into<String>) -> Halt {
        self.at(OpError::Attribute { name, reason: reason.into() })
    }

    /// An operator's error as the error of this node.
    pub fn at(&self, error: impl Into<OpError>) -> Halt {
        Halt::Error(self.build.at(self.name(), error))
    }

    /// An error for shapes that do not match.
    pub fn shape_error(&self, rule: &'static str, ids: &[ValueId]) -> Halt {
        let shapes: Vec<&Shape> = ids.iter().take(SHOWN).map(|&id| self.shape(id)).collect();
        self.at(OpError::shapes(rule, &shapes))
    }

    /// Stops because a shape follows from data that is only known at run time.
    pub fn dynamic(&self, what: &str) -> Halt {
        Halt::Dynamic(format!("'{}' ({}): {what} is not known before the run", self.name(), self.node.op_type))
    }

    // Attributes.

    fn attribute(&self, name: &'static str, kind: i64) -> Result<Option<&'m Attribute<'m>>, Halt> {
        match self.attributes.iter().find(|(known, _)| *known == name) {
            Some((_, attribute)) if attribute.kind != kind => Err(self.attribute_error(name, "has the wrong type")),
            found => Ok(found.map(|(_, attribute)| *attribute)),
        }
    }

    /// Whether an attribute is present.
    pub fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|(known, _)| *known == name)
    }

    /// An integer.
    pub fn int(&self, name: &'static str, default: i64) -> Result<i64, Halt> {
        Ok(self.attribute(name, INT)?.map_or(default, |attribute| attribute.int))
    }

    /// A bool, which ONNX stores as an integer.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, Halt> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    /// A float.
    pub fn float(&self, name: &'static str, default: f32) -> Result<f32, Halt> {
        Ok(self.attribute(name, FLOAT)?.map_or(default, |attribute| attribute.float))
    }

    /// A list of integers.
    pub fn ints(&self, name: &'static str) -> Result<Option<Vec<i64>>, Halt> {
        self.attribute(name, INTS)?.map(|attribute| self.list(attribute.ints.ints())).transpose()
    }

    /// A list of floats.
    pub fn floats(&self, name: &'static str) -> Result<Option<Vec<f32>>, Halt> {
        self.attribute(name, FLOATS)?.map(|attribute| self.list(attribute.floats.floats())).transpose()
    }

    /// A string; an empty one counts as omitted.
    pub fn text(&self, name: &'static str) -> Result<Option<&'m str>, Halt> {
        let Some(attribute) = self.attribute(name, STRING)? else { return Ok(None) };
        let text = std::str::from_utf8(attribute.string).map_err(|_| self.attribute_error(name, "is not UTF-8"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A list of strings.
    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<&'m str>>, Halt> {
        let Some(attribute) = self.attribute(name, STRINGS)? else { return Ok(None) };
        let mut texts = reserve::empty(attribute.strings.len()).map_err(|e| self.at(e))?;
        for text in &attribute.strings {
            texts.push(std::str::from_utf8(text).map_err(|_| self.attribute_error(name, "is not UTF-8"))?);
        }
        Ok(Some(texts))
    }

    /// A tensor.
    pub fn tensor(&self, name: &'static str) -> Result<Option<&'m TensorProto<'m>>, Halt> {
        Ok(self.attribute(name, TENSOR)?.and_then(|attribute| attribute.tensors.first()))
    }

    /// An axis of a tensor with this rank; negative ones count from the end.
    pub fn axis_of(&self, axis: i64, rank: usize) -> Result<usize, Halt> {
        let signed = i64::try_from(rank).unwrap_or(i64::MAX);
        let from_start = if axis < 0 { axis.saturating_add(signed) } else { axis };
        usize::try_from(from_start)
            .ok()
            .filter(|&axis| axis < rank)
            .ok_or_else(|| self.attribute_error("axis", format!("is {axis} for a tensor of {rank} dimensions")))
    }

    /// Several axes of a tensor with this rank, in their order.
    pub fn each_axis(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Halt> {
        let mut found = self.reserve(axes.len())?;
        for &axis in axes {
            found.push(self.axis_of(axis, rank)?);
        }
        Ok(found)
    }

    /// Several axes of a tensor with this rank, ascending and distinct.
    pub fn axes_of(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Halt> {
        let mut found = self.each_axis(axes, rank)?;
        found.sort_unstable();
        match found.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(self.attribute_error("axes", format!("names axis {} twice", twice[0]))),
            None => Ok(found),
        }
    }

    /// The attribute `axis` for an operand of `rank`.
    pub fn axis(&self, default: i64, rank: usize) -> Result<usize, Halt> {
        self.axis_of(self.int("axis", default)?, rank)
    }

    // Lists that may not fit memory.

    /// The items of an iterator.
    pub fn list<T>(&self, items: impl IntoIterator<Item = T>) -> Result<Vec<T>, Halt> {
        reserve::list(items).map_err(|e| self.at(e))
    }

    /// As many equal items.
    pub fn copies<T: Clone>(&self, item: T, len: usize) -> Result<Vec<T>, Halt> {
        reserve::copies(item, len).map_err(|e| self.at(e))
    }

    /// An empty list with room for as many items.
    pub fn reserve<T>(&self, len: usize) -> Result<Vec<T>, Halt> {
        reserve::empty(len).map_err(|e| self.at(e))
    }

    // Operands.

    /// Operand `index`, which must be present.
    pub fn input(&self, index: usize) -> Result<ValueId, Halt> {
        self.optional(index).ok_or_else(|| self.at(OpError::Value(format!("input {index} is missing"))))
    }

    /// Operand `index`, if it is present.
    pub fn optional(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// All operands, none of which may be omitted.
    pub fn all_inputs(&self) -> Result<Vec<ValueId>, Halt> {
        reserve::results((0..self.inputs.len()).map(|index| self.input(index)))
    }

    /// The number of requested results.
    pub fn outputs(&self) -> usize {
        self.node.outputs.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)
    }

    /// Whether result `index` is requested: it has a name.
    pub fn is_requested(&self, index: usize) -> bool {
        self.node.outputs.get(index).is_some_and(|name| !name.is_empty())
    }

    /// Type and shape of a value.
    pub fn fact(&self, id: ValueId) -> &Fact {
        self.build.graph.fact(id)
    }

    /// Shape of a value.
    pub fn shape(&self, id: ValueId) -> &Shape {
        &self.fact(id).shape
    }

    /// Number of dimensions of a value.
    pub fn rank(&self, id: ValueId) -> usize {
        self.shape(id).rank()
    }

    /// Element type of a value.
    pub fn dtype(&self, id: ValueId) -> DType {
        self.fact(id).dtype
    }

    /// The file's element type of a value: half precision is computed as f32.
    pub fn declared(&self, id: ValueId) -> DType {
        self.build.declared(id)
    }

    /// The data of a constant.
    pub fn constant_of(&self, id: ValueId) -> Option<&Tensor> {
        let known = !self.build.selections.is_selected(id);
        self.build.graph.constant(id).filter(|_| known).map(AsRef::as_ref)
    }

    /// The integers of operand `index`, which decide a shape and so must be constant; `None` if it is omitted.
    pub fn integers(&self, index: usize) -> Result<Option<Vec<i64>>, Halt> {
        let Some(id) = self.optional(index) else { return Ok(None) };
        let Some(tensor) = self.constant_of(id) else {
            // Without elements there is nothing to know.
            let is_empty = self.shape(id).elements() == 0 && !self.is_measured(id);
            return if is_empty { Ok(Some(Vec::new())) } else { Err(self.dynamic(&format!("input {index}"))) };
        };
        match (tensor.peek::<i64>(), tensor.peek::<i32>()) {
            (Some(wide), _) => self.list(wide.iter()).map(Some),
            (_, Some(narrow)) => self.list(narrow.iter().map(i64::from)).map(Some),
            _ => Err(self.at(OpError::Type { index, got: tensor.dtype(), want: "i64 or i32" })),
        }
    }

    /// Like [`integers`](Self::integers), for a required operand.
    pub fn required_integers(&self, index: usize) -> Result<Vec<i64>, Halt> {
        let integers = self.integers(index)?;
        integers.ok_or_else(|| self.at(OpError::Value(format!("input {index} is missing"))))
    }

    /// The integers of an attribute or, in later opsets, of operand `index`.
    pub fn ints_or_input(&self, name: &'static str, index: usize) -> Result<Option<Vec<i64>>, Halt> {
        match self.ints(name)? {
            Some(ints) => Ok(Some(ints)),
            None => self.integers(index),
        }
    }

    /// The only integer of operand `index`, a constant.
    pub fn integer(&self, index: usize) -> Result<Option<i64>, Halt> {
        let Some(integers) = self.integers(index)? else { return Ok(None) };
        match *integers.as_slice() {
            [one] => Ok(Some(one)),
            _ => Err(self.at(OpError::Value(format!("input {index} has {} elements, not one", integers.len())))),
        }
    }

    /// The floats of operand `index`, if it is present and constant.
    pub fn constant_floats(&self, index: usize) -> Option<Vec<f32>> {
        reserve::list(self.constant_of(self.optional(index)?)?.peek::<f32>()?.iter()).ok()
    }

    // Results.

    /// Adds a node with one result. The first one gets the name of the file's node, later ones get a number appended.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, Halt> {
        let results = self.add_all(op, inputs)?;
        results.first().copied().ok_or_else(|| self.at(OpError::Value("the operator has no result".into())))
    }

    /// Adds a node with any number of results.
    pub fn add_all(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Imported {
        self.build.add(name(self.node), op.into(), inputs)
    }

    /// Adds a constant that is made here, of any number of elements for a few bytes of the file.
    pub fn constant(&mut self, tensor: Tensor) -> Result<ValueId, Halt> {
        self.build.count_made(tensor.fact())?;
        self.add_constant(tensor)
    }

    fn add_constant(&mut self, tensor: Tensor) -> Result<ValueId, Halt> {
        let name = format!("{}.constant", self.name());
        Ok(self.build.graph.add_constant(name, tensor)?)
    }

    /// Adds a constant with these elements.
    pub fn elements<T: Element>(&mut self, dims: &[usize], elements: &[T]) -> Result<ValueId, Halt> {
        let tensor = Tensor::from_slice(dims, elements).map_err(|e| self.at(e))?;
        self.constant(tensor)
    }

    /// Adds a constant with the elements of an iterator.
    pub fn collected<T: Element>(
        &mut self,
        dims: &[usize],
        elements: impl IntoIterator<Item = T>,
    ) -> Result<ValueId, Halt> {
        let shape = Shape::new(dims).map_err(|e| self.at(e))?;
        let fact = Fact::new(T::DTYPE, shape);
        self.build.count_made(&fact)?;
        let tensor = Tensor::collected(fact, elements).map_err(|e| self.at(e))?;
        self.add_constant(tensor)
    }

    /// Adds a constant of rank 0.
    pub fn scalar<T: Element>(&mut self, value: T) -> Result<ValueId, Halt> {
        self.constant(Tensor::scalar(value))
    }

    /// Adds a constant of rank 0 and type `dtype`.
    pub fn scalar_of(&mut self, dtype: DType, value: f64) -> Result<ValueId, Halt> {
        let wide = self.scalar(value)?;
        self.cast(wide, dtype)
    }

    /// A tensor of the file as a constant.
    pub fn file_constant(&mut self, tensor: FileTensor) -> Result<ValueId, Halt> {
        let id = self.add_constant(tensor.tensor)?;
        self.build.declare(id, tensor.declared)?;
        Ok(id)
    }

    /// A value with another shape and the same number of elements.
    pub fn reshape(&mut self, id: ValueId, dims: &[usize]) -> Result<ValueId, Halt> {
        if self.shape(id).dims() == dims {
            return Ok(id);
        }
        let shape = Shape::new(dims).map_err(|e| self.at(e))?;
        self.add(Reshape { shape }, &[id])
    }

    /// A value in another element type.
    pub fn cast(&mut self, id: ValueId, to: DType) -> Result<ValueId, Halt> {
        if self.dtype(id) == to { Ok(id) } else { self.add(Cast { to }, &[id]) }
    }
}

/// The name of a node, or otherwise of its first result.
pub(super) fn name<'m>(node: &Node<'m>) -> &'m str {
    let named = Some(node.name).filter(|name| !name.is_empty());
    named.or_else(|| node.outputs.iter().copied().find(|name| !name.is_empty())).unwrap_or(node.op_type)
}

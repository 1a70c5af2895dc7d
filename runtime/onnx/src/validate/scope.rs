//! Names of a graph and what is known of their values before a run: their producers, which of
//! them are constants, and their types and shapes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::attributes::is_standard;
use crate::element::ElementType;
use crate::invalid::Invalid;
use crate::proto::{Dim, Node, Numbers, Tensor, Type};
use crate::reserve;

/// Most Identity nodes followed from a name to its producer.
const MAX_IDENTITIES: usize = 16;

/// Where a value comes from.
#[derive(Clone, Copy)]
pub(super) enum Producer<'m> {
    /// Not known before a run: an input without an initializer, or a sparse initializer.
    Outside,
    /// An initializer.
    Initializer(&'m Tensor<'m>),
    /// A node of the same graph.
    Node(&'m Node<'m>),
}

/// The names that a graph can use: its own, then those of enclosing graphs.
pub(super) struct Scope<'p, 'm> {
    /// Names that this graph defines.
    pub values: HashMap<&'m str, Producer<'m>>,
    /// Types that this graph declares.
    pub types: HashMap<&'m str, &'m Type<'m>>,
    /// Fully known shapes of the results of nodes.
    pub shapes: HashMap<&'m str, Vec<u64>>,
    /// Results of nodes that depend only on constants, so they are computed at load time.
    pub folded: HashSet<&'m str>,
    /// The enclosing graph.
    pub parent: Option<&'p Scope<'p, 'm>>,
}

/// A value that is stored in the file.
#[derive(Clone, Copy)]
pub(super) enum Constant<'m> {
    Tensor(&'m Tensor<'m>),
    Int(i64),
    Ints(Numbers<'m>),
    Float(f32),
    Floats(Numbers<'m>),
}

/// Dimensions of a tensor; `None` for an unknown dimension.
pub(super) type PartialShape = Vec<Option<u64>>;

impl<'m> Scope<'_, 'm> {
    /// This graph and the enclosing graphs, innermost first.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |scope| scope.parent)
    }

    /// The graph that defines a name, and the producer of the value.
    fn find(&self, name: &str) -> Option<(&Self, Producer<'m>)> {
        self.chain().find_map(|scope| Some((scope, *scope.values.get(name)?)))
    }

    /// Whether a name is defined in this graph or an enclosing one.
    pub fn defines(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The producer of a name, looking through Identity nodes.
    pub fn origin(&self, name: &str) -> Option<Producer<'m>> {
        let (mut scope, mut producer) = self.find(name)?;
        for _ in 0..MAX_IDENTITIES {
            match producer {
                Producer::Node(node) if node.op_type == "Identity" && is_standard(node.domain) => {
                    (scope, producer) = scope.find(node.inputs.first()?)?;
                }
                _ => break,
            }
        }
        Some(producer)
    }

    /// The constant behind a name, if it is stored in the file.
    pub fn constant(&self, name: &str) -> Option<Constant<'m>> {
        match self.origin(name)? {
            Producer::Initializer(tensor) => Some(Constant::Tensor(tensor)),
            Producer::Node(node) => Constant::of_node(node),
            Producer::Outside => None,
        }
    }

    /// Whether a value is stored in the file or computed from constants at load time.
    pub fn is_constant(&self, name: &str) -> bool {
        self.find(name).is_some_and(|(scope, producer)| match producer {
            Producer::Initializer(_) => true,
            Producer::Node(_) => scope.folded.contains(name),
            Producer::Outside => false,
        })
    }

    /// The shape of a value, as far as it is known.
    pub fn shape(&self, name: &str) -> Option<PartialShape> {
        let (scope, producer) = self.find(name)?;
        if let Some(shape) = scope.shapes.get(name) {
            return Some(shape.iter().copied().map(Some).collect());
        }
        if let Producer::Initializer(tensor) = producer {
            return tensor.dims.iter().map(|dim| Some(u64::try_from(*dim).ok())).collect();
        }
        match scope.types.get(name)? {
            Type::Tensor(_, Some(dims)) => Some(
                dims.iter()
                    .map(|dim| match dim {
                        Dim::Known(dim) => u64::try_from(*dim).ok(),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => None,
        }
    }

    /// The element type of a value, if it is declared.
    pub fn element(&self, name: &str) -> Option<ElementType> {
        let (scope, producer) = self.find(name)?;
        match (producer, scope.types.get(name)) {
            (Producer::Initializer(tensor), _) => tensor.element(),
            (_, Some(Type::Tensor(element, _))) => ElementType::from_number(*element),
            _ => None,
        }
    }
}

impl<'m> Constant<'m> {
    /// The value of a Constant node; `None` for other nodes.
    pub fn of_node(node: &'m Node<'m>) -> Option<Self> {
        if node.op_type != "Constant" || !is_standard(node.domain) {
            return None;
        }
        let attribute = node.attributes.first().filter(|attribute| attribute.reference.is_empty())?;
        match attribute.name {
            "value" => attribute.tensors.first().map(Self::Tensor),
            "value_int" => Some(Self::Int(attribute.int)),
            "value_ints" => Some(Self::Ints(attribute.ints)),
            "value_float" => Some(Self::Float(attribute.float)),
            "value_floats" => Some(Self::Floats(attribute.floats)),
            _ => None,
        }
    }

    /// Count of elements.
    pub fn len(&self) -> u64 {
        match self {
            Self::Tensor(tensor) => tensor.elements().unwrap_or(u64::MAX),
            Self::Int(_) | Self::Float(_) => 1,
            Self::Ints(numbers) | Self::Floats(numbers) => numbers.count,
        }
    }

    /// Its shape.
    pub fn shape(&self) -> Vec<u64> {
        match self {
            Self::Tensor(tensor) => tensor.dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(0)).collect(),
            Self::Int(_) | Self::Float(_) => Vec::new(),
            Self::Ints(numbers) | Self::Floats(numbers) => vec![numbers.count],
        }
    }

    /// Its elements, if they are integers stored in the model file.
    pub fn ints(&self) -> Option<Box<dyn Iterator<Item = i64> + 'm>> {
        match *self {
            Self::Tensor(tensor) => tensor.integers(),
            Self::Int(value) => Some(Box::new(std::iter::once(value))),
            Self::Ints(numbers) => Some(Box::new(numbers.ints())),
            Self::Float(_) | Self::Floats(_) => None,
        }
    }

    /// Its elements, if they are floats stored in the model file.
    pub fn floats(&self) -> Option<Box<dyn Iterator<Item = f64> + 'm>> {
        match *self {
            Self::Tensor(tensor) => tensor.floats(),
            Self::Float(value) => Some(Box::new(std::iter::once(f64::from(value)))),
            Self::Floats(numbers) => Some(Box::new(numbers.floats().map(f64::from))),
            Self::Int(_) | Self::Ints(_) => None,
        }
    }
}

/// Range and special values of the elements of a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    /// Minimum and maximum, if the elements are integers.
    pub ints: Option<(i64, i64)>,
    /// Whether an integer is zero.
    pub has_zero: bool,
    /// Minimum and maximum, ignoring NaN, if the elements are floats.
    pub floats: Option<(f64, f64)>,
    /// Whether a float is NaN or infinite.
    pub has_non_finite: bool,
}

/// Cache of summaries, so that each tensor is read once however many nodes use it.
#[derive(Default)]
pub(super) struct Summaries {
    by_address: RefCell<HashMap<usize, Summary>>,
}

impl Summaries {
    /// The summary of a constant.
    ///
    /// # Errors
    /// No memory.
    pub fn of(&self, constant: &Constant<'_>) -> Result<Summary, Invalid> {
        let Constant::Tensor(tensor) = constant else {
            return Ok(summarize(constant));
        };
        let address = std::ptr::from_ref(*tensor).addr();
        if let Some(summary) = self.by_address.borrow().get(&address) {
            return Ok(*summary);
        }
        let summary = summarize(constant);
        reserve::insert(&mut self.by_address.borrow_mut(), address, summary)?;
        Ok(summary)
    }
}

fn summarize(constant: &Constant<'_>) -> Summary {
    let mut summary = Summary { ints: None, has_zero: false, floats: None, has_non_finite: false };
    for value in constant.ints().into_iter().flatten() {
        let (min, max) = summary.ints.unwrap_or((value, value));
        summary.ints = Some((min.min(value), max.max(value)));
        summary.has_zero |= value == 0;
    }
    for value in constant.floats().into_iter().flatten() {
        let (min, max) = summary.floats.unwrap_or((value, value));
        summary.floats = Some((min.min(value), max.max(value)));
        summary.has_non_finite |= !value.is_finite();
    }
    summary
}

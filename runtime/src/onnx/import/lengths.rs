//! Lengths that only a run knows: of the positions that NonZero finds, of a Slice whose end is an input, of a Range up to
//! a computed number.
//!
//! Such an axis is planned with the largest length that it can have, and its length in a run is a value of the graph, an
//! i64 of rank 0:
//!
//! ```text
//! NonZero(mask [10])  =>  positions [1, 10], of which only the first `count` are meant
//! ```
//!
//! What is behind the length has no meaning and may be anything. Operators that compute each index of an axis by itself
//! follow it ([`Build::add_measured`]); one that combines the indices of an axis replaces the rest by elements that
//! change nothing, such as zeros in a sum ([`Call::filled`]). At an output, the elements that are meant are moved
//! together, and the caller gets the shape that they have. An operator that does neither makes the shapes of a model
//! depend on its data.
//!
//! The largest length follows from ranges of small integers, such as shapes: [`Known`].

use std::collections::HashMap;

use super::build::{Build, Halt, Imported};
use super::call::Call;
use crate::error::OpError;
use crate::graph::ValueId;
use crate::operator::Semantics;
use crate::operator::axes::{Elements, How};
use crate::ops::Op;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::broadcast::Expand;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::gather::Gather;
use crate::ops::length::Length;
use crate::ops::reduce::ReduceKind;
use crate::ops::select::Select;
use crate::ops::slice::Slice;
use crate::tensor::{DType, Fact, Tensor};

/// Most elements of a value whose ranges are followed: shapes are small.
const MAX_KNOWN: usize = 64;

/// Most elements along an axis whose length is computed in the run.
pub(super) const MAX_LENGTH: i64 = 1 << 23;

/// Operators whose importers follow lengths, or leave it to [`Build::add_measured`].
#[rustfmt::skip]
const FOLLOW: &[&str] = &[
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization",
    "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip",
    "Compress", "Concat", "Cos", "Cosh", "CumSum", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherND", "Gelu", "Gemm", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf",
    "IsNaN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "Min",
    "Mish", "Mod", "Mul", "Neg", "NonZero", "Not", "Or", "PRelu", "Pow", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Round", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size",
    "Slice", "Softmax", "Softplus", "Softsign", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor",
];

/// An axis whose length is known only in the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Measured {
    pub axis: usize,
    /// Its length: an i64 of rank 0, at most the planned one.
    pub len: ValueId,
}

/// What is known of an integer before the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    pub low: i64,
    pub high: i64,
    /// The length that it is equal to, if it is one.
    pub same: Option<ValueId>,
}

impl Known {
    const ANY: Self = Self { low: i64::MIN, high: i64::MAX, same: None };

    /// A constant.
    pub fn of(value: i64) -> Self {
        Self { low: value, high: value, same: None }
    }

    /// The integer, if there is only one.
    pub fn constant(&self) -> Option<i64> {
        (self.low == self.high).then_some(self.low)
    }

    /// Whether it is this length.
    pub fn is(&self, len: ValueId) -> bool {
        self.same == Some(len)
    }

    /// The range of `kind(a, b)` from the results for the ends of both ranges.
    fn combined(kind: BinaryKind, a: Self, b: Self) -> Self {
        let ([a0, a1], [b0, b1]) = ([a.low, a.high].map(i128::from), [b.low, b.high].map(i128::from));
        let corners = match kind {
            BinaryKind::Add => [a0 + b0, a1 + b1, a0 + b0, a1 + b1],
            BinaryKind::Sub => [a0 - b1, a1 - b0, a0 - b1, a1 - b0],
            BinaryKind::Mul => [a0 * b0, a0 * b1, a1 * b0, a1 * b1],
            BinaryKind::Div if b0 > 0 => [a0 / b0, a0 / b1, a1 / b0, a1 / b1],
            BinaryKind::Rem if a0 >= 0 && b0 > 0 => [0, a1.min(b1 - 1), 0, a1.min(b1 - 1)],
            BinaryKind::Min => [a0.min(b0), a1.min(b1), a0.min(b0), a1.min(b1)],
            BinaryKind::Max => [a0.max(b0), a1.max(b1), a0.max(b0), a1.max(b1)],
            _ => return Self::ANY,
        };
        let (low, high) = (corners.iter().min().copied(), corners.iter().max().copied());
        let ends = [low, high].map(|end| end.and_then(|end| i64::try_from(end).ok()));
        match ends {
            [Some(low), Some(high)] => Self { low, high, same: None },
            // It may wrap around.
            _ => Self::ANY,
        }
    }

    fn either(a: Self, b: Self) -> Self {
        Self { low: a.low.min(b.low), high: a.high.max(b.high), same: a.same.filter(|_| a.same == b.same) }
    }
}

/// Axes whose length is known only in the run, and what is known of small integers.
#[derive(Default)]
pub(super) struct Lengths {
    /// By value, in order of the axes.
    axes: HashMap<ValueId, Vec<Measured>>,
    known: HashMap<ValueId, Vec<Known>>,
}

impl Lengths {
    /// The axes of a value whose length is known only in the run.
    pub fn of(&self, id: ValueId) -> &[Measured] {
        self.axes.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The length of an axis, if it is known only in the run.
    pub fn along(&self, id: ValueId, axis: usize) -> Option<ValueId> {
        self.of(id).iter().find(|of| of.axis == axis).map(|of| of.len)
    }

    /// Records the axes of a value.
    pub fn set(&mut self, id: ValueId, mut axes: Vec<Measured>) {
        axes.sort_by_key(|of| of.axis);
        if axes.is_empty() {
            self.axes.remove(&id);
        } else {
            self.axes.insert(id, axes);
        }
    }

    /// Records that a value is a length of at most `most`.
    fn learn_length(&mut self, len: ValueId, most: i64) {
        let known = match self.known.get(&len).map(Vec::as_slice) {
            Some(&[Known { low, high, .. }]) => Known { low: low.max(0), high: high.min(most), same: Some(len) },
            _ => Known { low: 0, high: most, same: Some(len) },
        };
        self.known.insert(len, vec![known]);
    }

    /// Records what is known of the elements of a value.
    pub fn learn(&mut self, id: ValueId, known: Vec<Known>) {
        self.known.insert(id, known);
    }
}

/// Refuses operands with lengths of the run, for an operator that does not follow them.
pub(super) fn refuse(build: &Build, name: &str, op_type: &str, inputs: &[Option<ValueId>]) -> Result<(), Halt> {
    let follows = FOLLOW.binary_search(&op_type).is_ok();
    let measured = inputs.iter().position(|id| id.is_some_and(|id| !build.lengths.of(id).is_empty()));
    match measured.filter(|_| !follows) {
        Some(at) => {
            Err(Halt::Dynamic(format!("'{name}' ({op_type}): the length of input {at} is not known before the run")))
        }
        None => Ok(()),
    }
}

impl Build {
    /// Refuses values with lengths of the run.
    pub fn refuse_measured(&self, name: &str, ids: &[ValueId]) -> Result<(), Halt> {
        match ids.iter().any(|&id| !self.lengths.of(id).is_empty()) {
            true => Err(Halt::Dynamic(format!("'{name}': the length of a value is not known before the run"))),
            false => Ok(()),
        }
    }

    /// Adds a node that reads values with lengths of the run, and finds the lengths of its result.
    pub(super) fn add_measured(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Imported {
        let axes = self.followed(&op, inputs).ok_or_else(|| {
            let what = op.entry();
            Halt::Dynamic(format!("'{name}' ({what}): the length of an axis is not known before the run"))
        })?;
        let outputs = self.add_raw(name, op, inputs)?;
        for &output in &outputs {
            self.lengths.set(output, axes.clone());
        }
        Ok(outputs)
    }

    /// Adds a node that takes the planned lengths for those of the run.
    pub(super) fn add_raw(&mut self, name: &str, op: impl Into<Op>, inputs: &[ValueId]) -> Imported {
        self.selections.refuse(inputs)?;
        let node = self.node(name, op.into(), inputs)?;
        let outputs = node.outputs.clone();
        self.push(node, inputs, &outputs)?;
        Ok(outputs)
    }

    /// The axes of the result of an operator that computes each index of them by itself; `None` for other operators.
    fn followed(&self, op: &Op, inputs: &[ValueId]) -> Option<Vec<Measured>> {
        let facts = self.graph.facts(inputs);
        let axes = op.axes(&facts);
        let mut found: Vec<Measured> = Vec::new();
        let mut note = |axis: usize, len: ValueId| match found.iter().find(|of| of.axis == axis) {
            Some(other) => other.len == len,
            None => {
                found.push(Measured { axis, len });
                true
            }
        };
        if axes.elements == Elements::Each {
            let rank = facts.iter().map(|fact| fact.shape.rank()).max().unwrap_or(0);
            let first = |at: usize| rank - facts[at].shape.rank();
            for (at, &id) in inputs.iter().enumerate() {
                if !self.lengths.of(id).iter().all(|of| note(first(at) + of.axis, of.len)) {
                    return None;
                }
            }
            let clear = |of: &Measured| {
                let mut dims = Vec::new();
                for (at, &id) in inputs.iter().enumerate() {
                    let Some(axis) = of.axis.checked_sub(first(at)) else { continue };
                    dims.push((facts[at].shape[axis], self.lengths.along(id, axis).is_some()));
                }
                // In a run, an operand of another length would be repeated or refused, and so would be a length of 0 or 1.
                let whole = dims.iter().any(|&(dim, measured)| !measured && dim != 1);
                let short = dims.contains(&(1, true)) && dims.iter().any(|&(dim, _)| dim != 1);
                !whole && !short
            };
            return found.iter().all(clear).then_some(found);
        }
        for (at, &id) in inputs.iter().enumerate() {
            for of in self.lengths.of(id) {
                let mut links = axes.links.iter().filter(|link| link.operand == at && link.from == of.axis).peekable();
                links.peek()?;
                for link in links {
                    if link.how != How::Same || !note(link.to, of.len) {
                        return None;
                    }
                }
            }
        }
        // An operand with a whole axis where another has a length of the run would have to have that length.
        let whole = axes.links.iter().any(|link| {
            let measured = found.iter().any(|of| of.axis == link.to);
            measured && inputs.get(link.operand).is_some_and(|&id| self.lengths.along(id, link.from).is_none())
        });
        (!whole).then_some(found)
    }

    /// What is known of the elements of a value of small integers.
    pub(super) fn known(&self, id: ValueId) -> Option<Vec<Known>> {
        let fact = self.graph.fact(id);
        if !matches!(fact.dtype, DType::I64 | DType::I32) || fact.shape.elements() > MAX_KNOWN {
            return None;
        }
        if let Some(tensor) = self.graph.constant(id).filter(|_| !self.selections.is_selected(id)) {
            return match (tensor.peek::<i64>(), tensor.peek::<i32>()) {
                (Some(wide), _) => Some(wide.iter().map(Known::of).collect()),
                (_, Some(narrow)) => Some(narrow.iter().map(|value| Known::of(value.into())).collect()),
                _ => None,
            };
        }
        if !self.lengths.of(id).is_empty() {
            return None;
        }
        let any = || vec![Known::ANY; fact.shape.elements()];
        Some(self.lengths.known.get(&id).cloned().unwrap_or_else(any))
    }

    /// Finds what is known of the result of an operator on small integers.
    pub(super) fn follow_known(&mut self, op: &Op, inputs: &[ValueId], outputs: &[ValueId]) -> Result<(), OpError> {
        let &[output] = outputs else { return Ok(()) };
        let fact = self.graph.fact(output).clone();
        if !matches!(fact.dtype, DType::I64 | DType::I32) || fact.shape.elements() > MAX_KNOWN {
            return Ok(());
        }
        let found = match op {
            Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Concat(_) | Op::Expand(_) | Op::Tile(_) => {
                self.moved(op, inputs, inputs.len())?
            }
            Op::Gather(_) => self.moved(op, inputs, 1)?,
            Op::Cast(_) => inputs.first().and_then(|&id| self.known(id)),
            Op::Binary(binary) => self.aligned(inputs, &fact)?.map(|operands| {
                let pairs = operands[0].iter().zip(&operands[1]);
                pairs.map(|(&a, &b)| Known::combined(binary.kind, a, b)).collect()
            }),
            Op::Select(_) => self
                .aligned(&inputs[1..], &fact)?
                .map(|operands| operands[0].iter().zip(&operands[1]).map(|(&a, &b)| Known::either(a, b)).collect()),
            Op::Reduce(reduce) if fact.shape.elements() == 1 => {
                let all = inputs.first().and_then(|&id| self.known(id));
                let kind = match reduce.kind {
                    ReduceKind::Sum => Some((BinaryKind::Add, 0)),
                    ReduceKind::Prod => Some((BinaryKind::Mul, 1)),
                    _ => None,
                };
                all.zip(kind).map(|(all, (kind, first))| {
                    vec![all.into_iter().fold(Known::of(first), |sum, next| Known::combined(kind, sum, next))]
                })
            }
            _ => None,
        };
        let narrow = fact.dtype == DType::I32;
        let fits = |known: &Known| !narrow || known.low >= i32::MIN.into() && known.high <= i32::MAX.into();
        let some = |found: &Vec<Known>| found.iter().all(fits) && found.iter().any(|known| *known != Known::ANY);
        if let Some(found) = found.filter(some) {
            self.lengths.learn(output, found);
        }
        Ok(())
    }

    /// What is known of elements that an operator moves: it is applied to their numbers. The first `data` operands have
    /// such elements, the others are constants.
    fn moved(&self, op: &Op, inputs: &[ValueId], data: usize) -> Result<Option<Vec<Known>>, OpError> {
        let mut all = Vec::new();
        let mut operands = Vec::new();
        for (at, &id) in inputs.iter().enumerate() {
            if at >= data {
                let Some(constant) = self.graph.constant(id) else { return Ok(None) };
                operands.push(constant.as_ref().clone());
                continue;
            }
            let Some(known) = self.known(id) else { return Ok(None) };
            let numbers = (all.len() as i64..).take(known.len());
            operands.push(Tensor::collected(Fact::new(DType::I64, self.graph.fact(id).shape.clone()), numbers)?);
            all.extend(known);
        }
        let moved = op.evaluate(&operands.iter().collect::<Vec<_>>())?;
        let numbers = moved.first().and_then(|moved| moved.elements::<i64>()).unwrap_or_default();
        Ok(numbers.iter().map(|&at| all.get(usize::try_from(at).ok()?).copied()).collect())
    }

    /// What is known of the elements of operands, repeated to the shape of their result.
    fn aligned(&self, inputs: &[ValueId], fact: &Fact) -> Result<Option<Vec<Vec<Known>>>, OpError> {
        let expand = Op::from(Expand { shape: fact.shape.clone() });
        let each = inputs.iter().map(|&id| self.moved(&expand, &[id], 1));
        let each = each.collect::<Result<Option<Vec<_>>, _>>()?;
        Ok(each.filter(|each| each.len() == 2))
    }
}

impl Call<'_, '_> {
    /// The length of an axis, if it is known only in the run.
    pub fn length(&self, x: ValueId, axis: usize) -> Option<ValueId> {
        self.build.lengths.along(x, axis)
    }

    /// Whether some length of a value is known only in the run.
    pub fn is_measured(&self, x: ValueId) -> bool {
        !self.build.lengths.of(x).is_empty()
    }

    /// Stops because an axis has no largest length.
    pub fn unmeasured(&self, what: &str) -> Halt {
        self.dynamic(&format!("{what}, or a largest value of it,"))
    }

    /// The integers of operand `index`, each as far as it is known; `None` if it is omitted.
    pub fn known(&self, index: usize) -> Result<Option<Vec<Known>>, Halt> {
        let Some(id) = self.optional(index) else { return Ok(None) };
        match self.build.known(id) {
            Some(known) if self.rank(id) <= 1 => Ok(Some(known)),
            _ => Err(self.dynamic(&format!("input {index}"))),
        }
    }

    /// Element `at` of operand `index`, of which `known` is known, as an i64 of rank 0.
    pub fn element(&mut self, index: usize, at: usize, known: Known) -> Result<ValueId, Halt> {
        if let Some(value) = known.constant() {
            return self.scalar(value);
        }
        if let Some(same) = known.same {
            return Ok(same);
        }
        let mut x = self.input(index)?;
        if self.rank(x) == 1 && self.shape(x)[0] != 1 {
            x = self.add(Slice { axis: 0, start: at, len: 1, step: 1 }, &[x])?;
        }
        let x = self.reshape(x, &[])?;
        self.cast(x, DType::I64)
    }

    /// A length that the run computes, checked to be in 0 to `most`.
    pub fn checked_length(&mut self, len: ValueId, most: ValueId) -> Result<ValueId, Halt> {
        self.add(Length, &[len, most])
    }

    /// Element `at` of operand `index` as a length of at most the largest value that is known of it.
    pub fn computed_length(&mut self, index: usize, at: usize, known: Known) -> Result<ValueId, Halt> {
        match known.same {
            Some(same) => Ok(same),
            None => {
                let len = self.element(index, at, known)?;
                self.length_below(len, known.high)
            }
        }
    }

    /// A length that the run computes, checked to be in 0 to a constant.
    pub fn length_below(&mut self, len: ValueId, most: i64) -> Result<ValueId, Halt> {
        let most = self.scalar(most)?;
        self.checked_length(len, most)
    }

    /// The length of an axis as a value.
    pub fn length_of(&mut self, x: ValueId, axis: usize) -> Result<ValueId, Halt> {
        match self.length(x, axis) {
            Some(len) => Ok(len),
            None => self.scalar(self.shape(x)[axis] as i64),
        }
    }

    /// A value whose axis `axis` has a length of the run from now on.
    pub fn measure(&mut self, x: ValueId, axis: usize, len: ValueId) {
        let mut axes = self.build.lengths.of(x).to_vec();
        axes.retain(|of| of.axis != axis);
        // A constant is no length of the run if it is the planned one.
        let most = self.shape(x)[axis] as i64;
        let constant = self.constant_of(len).and_then(|len| len.elements::<i64>()?.first().copied());
        if constant != Some(most) {
            axes.push(Measured { axis, len });
            self.build.lengths.learn_length(len, most);
        }
        self.build.lengths.set(x, axes);
    }

    /// `0, 1, ...` along an axis of a tensor of `rank`.
    pub fn steps(&mut self, rank: usize, axis: usize, len: usize) -> Result<ValueId, Halt> {
        let mut dims = vec![1; rank];
        dims[axis] = len;
        self.collected(&dims, 0..len as i64)
    }

    /// Bools along an axis of `x`, for broadcasting with it: which indices are below a length.
    pub fn below(&mut self, x: ValueId, axis: usize, len: ValueId) -> Result<ValueId, Halt> {
        let (rank, dim) = (self.rank(x), self.shape(x)[axis]);
        let steps = self.steps(rank, axis, dim)?;
        self.compare(CompareKind::Less, steps, len)
    }

    /// A value with `rest` behind the lengths of these axes, which then are whole.
    pub fn filled(&mut self, x: ValueId, axes: &[usize], rest: Rest) -> Result<ValueId, Halt> {
        let measured: Vec<Measured> =
            self.build.lengths.of(x).iter().copied().filter(|of| axes.contains(&of.axis)).collect();
        if measured.is_empty() {
            return Ok(x);
        }
        let dtype = self.dtype(x);
        let rest = match rest {
            Rest::Number(number) => self.scalar_of(dtype, number)?,
            Rest::Lowest => self.extreme(dtype, true)?,
            Rest::Highest => self.extreme(dtype, false)?,
        };
        let others: Vec<Measured> =
            self.build.lengths.of(x).iter().copied().filter(|of| !axes.contains(&of.axis)).collect();
        let name = self.name().to_owned();
        let mut y = x;
        for Measured { axis, len } in measured {
            let inside = self.below(x, axis, len)?;
            y = self.build.add_raw(&name, Select, &[inside, y, rest])?[0];
        }
        self.build.lengths.set(y, others);
        Ok(y)
    }

    /// The lowest or highest value of a type.
    fn extreme(&mut self, dtype: DType, lowest: bool) -> Result<ValueId, Halt> {
        let integer = |low: i64, high: i64| if lowest { low } else { high };
        let value = match dtype {
            DType::F32 | DType::F64 | DType::F16 | DType::Bf16 => {
                return self.scalar_of(dtype, if lowest { f64::NEG_INFINITY } else { f64::INFINITY });
            }
            DType::I8 => integer(i8::MIN.into(), i8::MAX.into()),
            DType::I16 => integer(i16::MIN.into(), i16::MAX.into()),
            DType::I32 => integer(i32::MIN.into(), i32::MAX.into()),
            DType::I64 => integer(i64::MIN, i64::MAX),
            DType::U8 => integer(0, u8::MAX.into()),
            DType::U16 => integer(0, u16::MAX.into()),
            DType::U32 => integer(0, u32::MAX.into()),
            DType::U64 if lowest => 0,
            DType::Bool => integer(0, 1),
            DType::U64 => return Err(Halt::Foreign),
        };
        let value = self.scalar(value)?;
        self.cast(value, dtype)
    }

    /// The first `len` slices of an axis at these indices, an i64 `[n]`, where `len` is an i64 of rank 0; indices behind
    /// it may be anything.
    pub fn gathered(&mut self, x: ValueId, axis: usize, indices: ValueId, len: ValueId) -> Result<ValueId, Halt> {
        let name = self.name().to_owned();
        let others: Vec<Measured> = self.build.lengths.of(x).iter().copied().filter(|of| of.axis != axis).collect();
        let inside = self.below(indices, 0, len)?;
        let zero = self.scalar(0i64)?;
        let indices = self.build.add_raw(&name, Select, &[inside, indices, zero])?[0];
        let y = self.build.add_raw(&name, Gather { axis }, &[x, indices])?[0];
        self.build.lengths.set(y, others);
        self.measure(y, axis, len);
        Ok(y)
    }
}

/// What takes the place of elements that have no meaning.
#[derive(Clone, Copy)]
pub(super) enum Rest {
    Number(f64),
    Lowest,
    Highest,
}

impl Call<'_, '_> {
    /// An i64 of rank 0 as `kind(a, b)`.
    pub fn count(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> Result<ValueId, Halt> {
        self.add(Binary::new(kind), &[a, b])
    }

    /// An i64 of rank 0 within two others.
    pub fn clamped(&mut self, x: ValueId, low: ValueId, high: ValueId) -> Result<ValueId, Halt> {
        let x = self.count(BinaryKind::Max, x, low)?;
        self.count(BinaryKind::Min, x, high)
    }

    /// The dimensions of a value as an i64 vector.
    pub fn dims(&mut self, x: ValueId, start: usize, end: usize) -> Result<ValueId, Halt> {
        let name = self.name().to_owned();
        let mut parts = Vec::new();
        let mut known = Vec::new();
        for axis in start..end {
            let len = self.length_of(x, axis)?;
            known.push(match self.length(x, axis) {
                Some(len) => Known { low: 0, high: self.shape(x)[axis] as i64, same: Some(len) },
                None => Known::of(self.shape(x)[axis] as i64),
            });
            parts.push(self.reshape(len, &[1])?);
        }
        let dims = match *parts.as_slice() {
            [one] => one,
            _ => self.build.add_raw(&name, Concat { axis: 0 }, &parts)?[0],
        };
        self.build.lengths.learn(dims, known);
        Ok(dims)
    }
}

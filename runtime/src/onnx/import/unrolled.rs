//! Recurrent layers step by step, for operands that the kernel of whole layers does not have: f64, and products of bytes.

use skipstone_kernels::activation::Activation;

use super::activation::softplus_of;
use super::build::{Halt, Imported};
use super::call::Call;
use super::quantized::ByteMatrix;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::contract::Contract;
use crate::ops::curve::Curve;
use crate::ops::recurrent::{Cell, Direction, Gate, Recurrent};
use crate::ops::slice::Slice;
use crate::ops::unary::UnaryKind;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Most steps of all directions: each is some ten nodes.
const STEPS: usize = 1 << 12;

/// A matrix by which inputs or states are multiplied.
pub(super) enum Matrix {
    /// `[gates * hidden, columns]`
    Floats(ValueId),
    /// The transpose of that.
    Bytes(ByteMatrix),
}

/// The operands of a layer, those that are given, in the order of the axes in `op`.
pub(super) struct Operands {
    pub x: ValueId,
    /// For each direction, the matrices of the inputs and of the states.
    pub matrices: Vec<[Matrix; 2]>,
    pub bias: Option<ValueId>,
    pub lens: Option<ValueId>,
    pub hidden: Option<ValueId>,
    pub cell: Option<ValueId>,
    pub peepholes: Option<ValueId>,
}

/// The sizes of a layer.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    hidden: usize,
    gates: usize,
    directions: usize,
}

/// Adds a layer over f64; `op` lists the operands that are given.
pub(super) fn of_doubles(cx: &mut Call<'_, '_>, op: &Recurrent, inputs: &[ValueId]) -> Imported {
    let mut rest = inputs.iter().copied();
    let mut next = |given: bool| if given { rest.next() } else { None };
    let (Some(x), Some(weights), Some(recurrence)) = (next(true), next(true), next(true)) else {
        return Err(Halt::Foreign);
    };
    let given = op.given;
    let [bias, lens, hidden, cell, peepholes] =
        [given.bias, given.lens, given.hidden, given.cell, given.peepholes].map(&mut next);
    let (&[directions, rows, columns], &[_, own_rows, size]) = (cx.shape(weights).dims(), cx.shape(recurrence).dims())
    else {
        return Err(cx.shape_error("weights are [directions, gates * hidden, ..]", &[x, weights, recurrence]));
    };
    let fits = cx.rank(x) == 3 && cx.shape(x)[2] == columns && own_rows == rows && rows == gates(op.cell) * size;
    if !fits || cx.shape(recurrence)[0] != directions {
        return Err(cx.shape_error("weights are [directions, gates * hidden, ..]", &[x, weights, recurrence]));
    }
    let mut matrices = cx.reserve(directions)?;
    for direction in 0..directions {
        let mut of = |id: ValueId, columns: usize| {
            let own = part(cx, id, 0, direction, 1)?;
            cx.reshape(own, &[rows, columns]).map(Matrix::Floats)
        };
        matrices.push([of(weights, columns)?, of(recurrence, size)?]);
    }
    layer(cx, op, size, &Operands { x, matrices, bias, lens, hidden, cell, peepholes })
}

fn gates(cell: Cell) -> usize {
    match cell {
        Cell::Rnn => 1,
        Cell::Gru(_) => 3,
        Cell::Lstm(_) => 4,
    }
}

/// Adds a layer with so many elements in a hidden state, whose matrices fit that and `x`.
pub(super) fn layer(cx: &mut Call<'_, '_>, op: &Recurrent, size: usize, operands: &Operands) -> Imported {
    let &Operands { mut x, bias, lens, hidden, cell, peepholes, .. } = operands;
    let directions = operands.matrices.len();
    if op.batch_first {
        x = cx.transpose(x, &[1, 0, 2])?;
    }
    let &[steps, batch, _] = cx.shape(x).dims() else {
        return Err(cx.shape_error("inputs are [steps, batch, elements]", &[x]));
    };
    let gates = gates(op.cell);
    let s = Sizes { steps, batch, hidden: size, gates, directions };
    let fits = |id: Option<ValueId>, count: usize| id.is_none_or(|id| cx.shape(id).elements() == count);
    let (states, rows) = (directions.saturating_mul(batch).saturating_mul(size), gates.saturating_mul(size));
    let all = directions == if op.direction == Direction::Both { 2 } else { 1 }
        && size > 0
        && fits(bias, directions.saturating_mul(2).saturating_mul(rows))
        && fits(lens, batch)
        && fits(hidden, states)
        && fits(cell, states)
        && fits(peepholes, directions.saturating_mul(3).saturating_mul(size));
    if !all {
        return Err(cx.shape_error("biases, lengths, states and peepholes must match the weights", &[x]));
    }
    if steps.saturating_mul(directions) > STEPS || steps == 0 {
        return Err(Halt::Foreign);
    }
    let mut parts: [Vec<ValueId>; 3] = Default::default();
    for direction in 0..directions {
        let results = one(cx, op, s, (operands, x), direction)?;
        parts.iter_mut().zip(results).for_each(|(all, part)| all.push(part));
    }
    let [y, h, c] = parts;
    let y = cx.add(Concat { axis: 1 }, &y)?;
    let mut results = vec![if op.batch_first { cx.transpose(y, &[2, 0, 1, 3])? } else { y }];
    for state in [Some(h), matches!(op.cell, Cell::Lstm(_)).then_some(c)].into_iter().flatten() {
        let state = cx.add(Concat { axis: 0 }, &state)?;
        results.push(if op.batch_first { cx.transpose(state, &[1, 0, 2])? } else { state });
    }
    Ok(results)
}

/// Rows `start..start + len` of an axis.
fn part(cx: &mut Call<'_, '_>, id: ValueId, axis: usize, start: usize, len: usize) -> Result<ValueId, Halt> {
    cx.add(Slice { axis, start, len, step: 1 }, &[id])
}

/// One direction: the states of all steps `[steps, 1, batch, hidden]`, the last one and the last cell state `[1, batch,
/// hidden]`.
fn one(
    cx: &mut Call<'_, '_>,
    op: &Recurrent,
    s: Sizes,
    (operands, x): (&Operands, ValueId),
    direction: usize,
) -> Result<[ValueId; 3], Halt> {
    let (rows, dtype) = (s.gates * s.hidden, cx.dtype(x));
    let [of_x, of_h] = &operands.matrices[direction];
    let functions = &op.functions[direction * op.functions.len() / s.directions..];
    let reverse = direction == 1 || op.direction == Direction::Reverse;
    let of_direction = |cx: &mut Call<'_, '_>, id: ValueId, dims: &[usize]| {
        let own = part(cx, id, 0, direction, 1)?;
        cx.reshape(own, dims)
    };
    let mut from_x = of_x.multiply(cx, x, rows)?;
    let mut inner = None;
    if let Some(bias) = operands.bias {
        let bias = of_direction(cx, bias, &[2, rows])?;
        let (of_x, mut of_h) = (part(cx, bias, 0, 0, 1)?, part(cx, bias, 0, 1, 1)?);
        if op.cell == Cell::Gru(true) {
            // The second bias of the hidden gate is inside of the reset.
            inner = Some(part(cx, of_h, 1, 2 * s.hidden, s.hidden)?);
            let before = part(cx, of_h, 1, 0, 2 * s.hidden)?;
            let zeros = zeros(cx, dtype, &[1, s.hidden])?;
            of_h = cx.add(Concat { axis: 1 }, &[before, zeros])?;
        }
        from_x = cx.binary(BinaryKind::Add, from_x, of_x)?;
        from_x = cx.binary(BinaryKind::Add, from_x, of_h)?;
    }
    let state = |cx: &mut Call<'_, '_>, id: Option<ValueId>| match id {
        None => zeros(cx, dtype, &[s.batch, s.hidden]),
        Some(id) => {
            let own = part(cx, id, usize::from(op.batch_first), direction, 1)?;
            cx.reshape(own, &[s.batch, s.hidden])
        }
    };
    let (mut h, mut c) = (state(cx, operands.hidden)?, state(cx, operands.cell)?);
    let peepholes = match operands.peepholes {
        None => None,
        Some(all) => Some(of_direction(cx, all, &[3, s.hidden])?),
    };
    let lens = match operands.lens {
        None => None,
        Some(lens) => {
            let lens = cx.cast(lens, DType::I64)?;
            Some(cx.reshape(lens, &[s.batch, 1])?)
        }
    };
    let cell = Step { cell: op.cell, size: s.hidden, clip: op.clip, functions, of_h, inner, peepholes };
    let zero = cx.scalar_of(dtype, 0.0)?;
    let mut all = cx.copies(h, s.steps)?;
    for index in 0..s.steps {
        let step = if reverse { s.steps - 1 - index } else { index };
        let of_x = part(cx, from_x, 0, step, 1)?;
        let of_x = cx.reshape(of_x, &[s.batch, rows])?;
        let (new_h, new_c) = cell.run(cx, of_x, h, c)?;
        let mut written = new_h;
        (h, c) = match lens {
            None => (new_h, new_c),
            Some(lens) => {
                let at = cx.scalar(step as i64)?;
                let runs = cx.compare(CompareKind::Less, at, lens)?;
                written = cx.select(runs, new_h, zero)?;
                (cx.select(runs, new_h, h)?, cx.select(runs, new_c, c)?)
            }
        };
        all[step] = cx.reshape(written, &[1, 1, s.batch, s.hidden])?;
    }
    if let Some(lens) = lens {
        // The last state of a sequence without steps is zero.
        let none = cx.scalar(0i64)?;
        let some = cx.compare(CompareKind::Less, none, lens)?;
        (h, c) = (cx.select(some, h, zero)?, cx.select(some, c, zero)?);
    }
    let y = cx.add(Concat { axis: 0 }, &all)?;
    let dims = [1, s.batch, s.hidden];
    Ok([y, cx.reshape(h, &dims)?, cx.reshape(c, &dims)?])
}

/// Zeros of an element type.
fn zeros(cx: &mut Call<'_, '_>, dtype: DType, dims: &[usize]) -> Result<ValueId, Halt> {
    let shape = Shape::new(dims).map_err(|e| cx.at(e))?;
    let zeros = Tensor::try_zeros(Fact::new(dtype, shape)).map_err(|e| cx.at(e))?;
    cx.constant(zeros)
}

impl Matrix {
    /// The products `[.., rows]` of vectors along the last axis.
    fn multiply(&self, cx: &mut Call<'_, '_>, x: ValueId, rows: usize) -> Result<ValueId, Halt> {
        let mut dims = cx.shape(x).to_vec();
        let Some(columns) = dims.pop() else { return Err(Halt::Foreign) };
        let count = dims.iter().product();
        let flat = cx.reshape(x, &[count, columns])?;
        let y = match self {
            Self::Floats(matrix) => {
                cx.add(Contract { a: vec![0, 1], b: vec![2, 1], y: vec![0, 2] }, &[flat, *matrix])?
            }
            Self::Bytes(matrix) => matrix.multiply(cx, flat)?,
        };
        dims.push(rows);
        cx.reshape(y, &dims)
    }
}

/// What does not change from step to step.
struct Step<'a> {
    cell: Cell,
    size: usize,
    clip: Option<f32>,
    functions: &'a [Gate],
    of_h: &'a Matrix,
    /// Of a GRU, the bias `[1, hidden]` that is inside of the reset.
    inner: Option<ValueId>,
    /// `[3, hidden]`
    peepholes: Option<ValueId>,
}

impl Step<'_> {
    /// The product of states with gates `first..first + count`.
    fn product(&self, cx: &mut Call<'_, '_>, h: ValueId, first: usize, count: usize) -> Result<ValueId, Halt> {
        match self.of_h {
            Matrix::Floats(all) => {
                let rows = part(cx, *all, 0, first * self.size, count * self.size)?;
                Matrix::Floats(rows).multiply(cx, h, count * self.size)
            }
            Matrix::Bytes(_) if (first, count) != (0, 4) => Err(Halt::Foreign),
            bytes => bytes.multiply(cx, h, count * self.size),
        }
    }

    /// The function of a gate, after clipping.
    fn gate(&self, cx: &mut Call<'_, '_>, index: usize, mut x: ValueId) -> Result<ValueId, Halt> {
        if let Some(clip) = self.clip.map(f64::from) {
            x = cx.with_number(BinaryKind::Max, x, -clip)?;
            x = cx.with_number(BinaryKind::Min, x, clip)?;
        }
        function(cx, self.functions[index], x)
    }

    /// The sum with the product of the cell state and the peephole of a gate.
    fn with_peephole(&self, cx: &mut Call<'_, '_>, sum: ValueId, index: usize, c: ValueId) -> Result<ValueId, Halt> {
        let Some(all) = self.peepholes else { return Ok(sum) };
        let own = part(cx, all, 0, index, 1)?;
        let product = cx.binary(BinaryKind::Mul, c, own)?;
        cx.binary(BinaryKind::Add, sum, product)
    }

    /// The next states.
    fn run(&self, cx: &mut Call<'_, '_>, from_x: ValueId, h: ValueId, c: ValueId) -> Result<(ValueId, ValueId), Halt> {
        let size = self.size;
        let of = |cx: &mut Call<'_, '_>, id: ValueId, index: usize| part(cx, id, 1, index * size, size);
        let add = |cx: &mut Call<'_, '_>, a, b| cx.binary(BinaryKind::Add, a, b);
        match self.cell {
            Cell::Rnn => {
                let product = self.product(cx, h, 0, 1)?;
                let sum = add(cx, from_x, product)?;
                Ok((self.gate(cx, 0, sum)?, c))
            }
            Cell::Gru(linear_before_reset) => {
                let product = self.product(cx, h, 0, 2)?;
                let own = part(cx, from_x, 1, 0, 2 * size)?;
                let sums = add(cx, own, product)?;
                let both = self.gate(cx, 0, sums)?;
                let (update, reset) = (of(cx, both, 0)?, of(cx, both, 1)?);
                let product = if linear_before_reset {
                    let mut product = self.product(cx, h, 2, 1)?;
                    if let Some(inner) = self.inner {
                        product = add(cx, product, inner)?;
                    }
                    cx.binary(BinaryKind::Mul, reset, product)?
                } else {
                    let kept = cx.binary(BinaryKind::Mul, reset, h)?;
                    self.product(cx, kept, 2, 1)?
                };
                let own = of(cx, from_x, 2)?;
                let sum = add(cx, own, product)?;
                let new = self.gate(cx, 1, sum)?;
                // (1 - update) new + update h
                let difference = cx.binary(BinaryKind::Sub, h, new)?;
                let moved = cx.binary(BinaryKind::Mul, update, difference)?;
                Ok((add(cx, new, moved)?, c))
            }
            Cell::Lstm(coupled) => {
                let product = self.product(cx, h, 0, 4)?;
                let sums = add(cx, from_x, product)?;
                let sum = of(cx, sums, 0)?;
                let sum = self.with_peephole(cx, sum, 0, c)?;
                let input = self.gate(cx, 0, sum)?;
                let forget = if coupled {
                    let negative = cx.unary(UnaryKind::Neg, input)?;
                    cx.with_number(BinaryKind::Add, negative, 1.0)?
                } else {
                    let sum = of(cx, sums, 2)?;
                    let sum = self.with_peephole(cx, sum, 2, c)?;
                    self.gate(cx, 0, sum)?
                };
                let sum = of(cx, sums, 3)?;
                let new = self.gate(cx, 1, sum)?;
                let (kept, added) = (cx.binary(BinaryKind::Mul, forget, c)?, cx.binary(BinaryKind::Mul, input, new)?);
                let c = add(cx, kept, added)?;
                let sum = of(cx, sums, 1)?;
                let sum = self.with_peephole(cx, sum, 1, c)?;
                let output = self.gate(cx, 0, sum)?;
                let bent = function(cx, self.functions[2], c)?;
                Ok((cx.binary(BinaryKind::Mul, output, bent)?, c))
            }
        }
    }
}

/// The function of a gate.
fn function(cx: &mut Call<'_, '_>, gate: Gate, x: ValueId) -> Result<ValueId, Halt> {
    let curve = match gate {
        Gate::Activation(Activation::Tanh) if cx.dtype(x) == DType::F64 => return cx.unary(UnaryKind::Tanh, x),
        Gate::Activation(activation) => return cx.activate(activation, x),
        Gate::Curve(curve) => curve,
    };
    if cx.dtype(x) == DType::F32 {
        return cx.add(curve, &[x]);
    }
    match curve {
        Curve::Affine { alpha, beta } => {
            let scaled = cx.with_number(BinaryKind::Mul, x, f64::from(alpha))?;
            cx.with_number(BinaryKind::Add, scaled, f64::from(beta))
        }
        Curve::ScaledTanh { alpha, beta } => {
            let scaled = cx.with_number(BinaryKind::Mul, x, f64::from(beta))?;
            let bent = cx.unary(UnaryKind::Tanh, scaled)?;
            cx.with_number(BinaryKind::Mul, bent, f64::from(alpha))
        }
        Curve::ThresholdedRelu(alpha) => {
            let (alpha, zero) = (cx.scalar(f64::from(alpha))?, cx.scalar(0f64)?);
            let above = cx.compare(CompareKind::Greater, x, alpha)?;
            cx.select(above, x, zero)
        }
        Curve::Selu { alpha, .. } => {
            let zero = cx.scalar(0f64)?;
            let below = cx.with_number(BinaryKind::Min, x, 0.0)?;
            let power = cx.unary(UnaryKind::Exp, below)?;
            let less_one = cx.with_number(BinaryKind::Sub, power, 1.0)?;
            let scaled = cx.with_number(BinaryKind::Mul, less_one, f64::from(alpha))?;
            let above = cx.compare(CompareKind::Greater, x, zero)?;
            cx.select(above, x, scaled)
        }
        Curve::Softsign => {
            let size = cx.unary(UnaryKind::Abs, x)?;
            let below = cx.with_number(BinaryKind::Add, size, 1.0)?;
            cx.binary(BinaryKind::Div, x, below)
        }
        Curve::Softplus => softplus_of(cx, x),
        _ => Err(Halt::Foreign),
    }
}

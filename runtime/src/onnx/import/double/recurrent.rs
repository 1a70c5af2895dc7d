//! Recurrent layers of f64, step by step.

use skipstone_kernels::activation::Activation;

use super::super::activation::softplus_of;
use super::super::build::{Halt, Imported};
use super::super::call::Call;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::contract::Contract;
use crate::ops::curve::Curve;
use crate::ops::recurrent::{Cell, Direction, Gate, Recurrent};
use crate::ops::slice::Slice;
use crate::ops::unary::UnaryKind;
use crate::tensor::DType;

/// Most steps of all directions: each is some ten nodes.
const STEPS: usize = 1 << 12;

/// The operands of a layer, those that are given.
struct Operands {
    x: ValueId,
    weights: ValueId,
    recurrence: ValueId,
    bias: Option<ValueId>,
    lens: Option<ValueId>,
    hidden: Option<ValueId>,
    cell: Option<ValueId>,
    peepholes: Option<ValueId>,
}

/// The sizes of a layer.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    gates: usize,
    directions: usize,
}

/// Adds a layer over f64; `op` lists the operands that are given.
pub(in super::super) fn layer(cx: &mut Call<'_, '_>, op: &Recurrent, inputs: &[ValueId]) -> Imported {
    let mut rest = inputs.iter().copied();
    let mut next = |given: bool| if given { rest.next() } else { None };
    let (Some(mut x), Some(weights), Some(recurrence)) = (next(true), next(true), next(true)) else {
        return Err(Halt::Foreign);
    };
    let given = op.given;
    let [bias, lens, hidden, cell, peepholes] =
        [given.bias, given.lens, given.hidden, given.cell, given.peepholes].map(&mut next);
    let gates = match op.cell {
        Cell::Rnn => 1,
        Cell::Gru(_) => 3,
        Cell::Lstm(_) => 4,
    };
    let rule = "x is [steps, batch, inputs], weights [directions, gates * hidden, ..]";
    let wrong = |cx: &Call<'_, '_>| cx.shape_error(rule, &[inputs[0], weights, recurrence]);
    if cx.rank(x) != 3 || cx.rank(weights) != 3 {
        return Err(wrong(cx));
    }
    if op.batch_first {
        x = cx.transpose(x, &[1, 0, 2])?;
    }
    let (&[steps, batch, width], &[directions, rows, of_weights]) = (cx.shape(x).dims(), cx.shape(weights).dims())
    else {
        return Err(wrong(cx));
    };
    let wanted = if op.direction == Direction::Both { 2 } else { 1 };
    let s = Sizes { steps, batch, inputs: width, hidden: rows / gates, gates, directions };
    let fits = |id: Option<ValueId>, count: usize| id.is_none_or(|id| cx.shape(id).elements() == count);
    let states = directions.saturating_mul(batch).saturating_mul(s.hidden);
    let all = directions == wanted
        && of_weights == width
        && rows == s.hidden * gates
        && rows > 0
        && cx.shape(recurrence).dims() == [directions, rows, s.hidden]
        && fits(bias, directions.saturating_mul(2).saturating_mul(rows))
        && fits(lens, batch)
        && fits(hidden, states)
        && fits(cell, states)
        && fits(peepholes, directions.saturating_mul(3).saturating_mul(s.hidden));
    if !all {
        return Err(wrong(cx));
    }
    if steps.saturating_mul(directions) > STEPS || steps == 0 {
        return Err(Halt::Foreign);
    }
    let operands = Operands { x, weights, recurrence, bias, lens, hidden, cell, peepholes };
    let mut parts: [Vec<ValueId>; 3] = Default::default();
    for direction in 0..directions {
        let results = one(cx, op, s, &operands, direction)?;
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
    operands: &Operands,
    direction: usize,
) -> Result<[ValueId; 3], Halt> {
    let rows = s.gates * s.hidden;
    let functions = &op.functions[direction * op.functions.len() / s.directions..];
    let reverse = direction == 1 || op.direction == Direction::Reverse;
    let of_direction = |cx: &mut Call<'_, '_>, id: ValueId, dims: &[usize]| {
        let own = part(cx, id, 0, direction, 1)?;
        cx.reshape(own, dims)
    };
    let weights = of_direction(cx, operands.weights, &[rows, s.inputs])?;
    let recurrence = of_direction(cx, operands.recurrence, &[rows, s.hidden])?;
    // Labels: step 0, sequence 1, input 2, row 3.
    let product = Contract { a: vec![0, 1, 2], b: vec![3, 2], y: vec![0, 1, 3] };
    let mut from_x = cx.add(product, &[operands.x, weights])?;
    let mut inner = None;
    if let Some(bias) = operands.bias {
        let bias = of_direction(cx, bias, &[2, rows])?;
        let (of_x, mut of_h) = (part(cx, bias, 0, 0, 1)?, part(cx, bias, 0, 1, 1)?);
        if op.cell == Cell::Gru(true) {
            // The second bias of the hidden gate is inside of the reset.
            inner = Some(part(cx, of_h, 1, 2 * s.hidden, s.hidden)?);
            let before = part(cx, of_h, 1, 0, 2 * s.hidden)?;
            let zeros = cx.collected(&[1, s.hidden], std::iter::repeat_n(0f64, s.hidden))?;
            of_h = cx.add(Concat { axis: 1 }, &[before, zeros])?;
        }
        from_x = cx.binary(BinaryKind::Add, from_x, of_x)?;
        from_x = cx.binary(BinaryKind::Add, from_x, of_h)?;
    }
    let state = |cx: &mut Call<'_, '_>, id: Option<ValueId>| match id {
        None => cx.collected(&[s.batch, s.hidden], std::iter::repeat_n(0f64, s.batch * s.hidden)),
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
    let cell = Step { cell: op.cell, size: s.hidden, clip: op.clip, functions, recurrence, inner, peepholes };
    let zero = cx.scalar(0f64)?;
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

/// What does not change from step to step.
struct Step<'a> {
    cell: Cell,
    size: usize,
    clip: Option<f32>,
    functions: &'a [Gate],
    /// `[gates * hidden, hidden]`
    recurrence: ValueId,
    /// Of a GRU, the bias `[1, hidden]` that is inside of the reset.
    inner: Option<ValueId>,
    /// `[3, hidden]`
    peepholes: Option<ValueId>,
}

impl Step<'_> {
    /// The product of states with gates `first..first + count`.
    fn product(&self, cx: &mut Call<'_, '_>, h: ValueId, first: usize, count: usize) -> Result<ValueId, Halt> {
        let rows = part(cx, self.recurrence, 0, first * self.size, count * self.size)?;
        cx.add(Contract { a: vec![0, 1], b: vec![2, 1], y: vec![0, 2] }, &[h, rows])
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
        Gate::Activation(Activation::Tanh) => return cx.unary(UnaryKind::Tanh, x),
        Gate::Activation(activation) => return cx.activate(activation, x),
        Gate::Curve(curve) => curve,
    };
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

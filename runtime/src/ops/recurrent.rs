//! Recurrent layers ([ONNX LSTM](https://onnx.ai/onnx/operators/onnx__LSTM.html),
//! [GRU](https://onnx.ai/onnx/operators/onnx__GRU.html), [RNN](https://onnx.ai/onnx/operators/onnx__RNN.html)) in every
//! ONNX variant: direction, activations with their parameters, clipping, coupled gates, peepholes, initial states,
//! sequences of different lengths, either order of the axes.
//!
//! The input's contribution to the gates does not depend on the states: it is one product for all steps and gates. A
//! step is then one product with the hidden state (two for a GRU whose reset gate comes first) and the gates'
//! functions, and the states are updated in place.

use serde::{Deserialize, Serialize};
use skipstone_kernels::activation::Activation;
use skipstone_kernels::gemm::{Packed, Weights, choose};
use skipstone_kernels::pace::Pace;

mod reference;
mod run;

use run::{Products, Run, Scratch};

use super::curve::Curve;
use super::stored::{part, read, store};
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, saturating_product};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape};

/// The kind of layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell {
    /// One gate: the new state.
    Rnn,
    /// Update, reset and hidden gate. The flag says whether the reset gate is applied after the product with the hidden
    /// state (`linear_before_reset`).
    Gru(bool),
    /// Input, output, forget and cell gate. The flag says whether the forget gate is one minus the input gate
    /// (`input_forget`).
    Lstm(bool),
}

impl Cell {
    /// Number of gates.
    fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru(_) => 3,
            Self::Lstm(_) => 4,
        }
    }

    /// Number of gates, from the first, whose product is with the hidden state itself.
    fn direct(self) -> usize {
        match self {
            Self::Gru(false) => 2,
            cell => cell.gates(),
        }
    }

    /// Number of functions per direction.
    fn functions(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru(_) => 2,
            Self::Lstm(_) => 3,
        }
    }
}

/// The order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Both, each with its own weights.
    Both,
}

/// A function of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Gate {
    /// An activation.
    Activation(Activation),
    /// Another function.
    Curve(Curve),
}

/// The optional operands, in order after the input and the two weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Biases of both products, `[directions, 2 * gates * hidden]`.
    pub bias: bool,
    /// Number of steps of every sequence in the batch, i32.
    pub lens: bool,
    /// The hidden state before the first step.
    pub hidden: bool,
    /// The cell state before the first step, for an LSTM.
    pub cell: bool,
    /// Weights from the cell state to input, output and forget gate, `[directions, 3 * hidden]`, for an LSTM.
    pub peepholes: bool,
}

/// A recurrent layer. Operands: x `[steps, batch, in]`, weights `[directions, gates * hidden, in]` and `[directions,
/// gates * hidden, hidden]`, and those in [`Given`]. Results: the hidden states of all steps `[steps, directions,
/// batch, hidden]`, the last ones `[directions, batch, hidden]` and, for an LSTM, the last cell states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recurrent {
    /// The kind of layer.
    pub cell: Cell,
    /// Order of the steps.
    pub direction: Direction,
    /// The gates' functions f, g and h of ONNX; those of the second direction follow.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub functions: Vec<Gate>,
    /// Symmetric bound on the functions' arguments; as in ONNX Runtime, it does not apply to the cell state that
    /// becomes the hidden one.
    pub clip: Option<f32>,
    /// Whether the batch is the first axis of all operands and results except the weights (layout 1).
    pub batch_first: bool,
    /// The optional operands that are given.
    pub given: Given,
}

/// The sizes of a layer.
#[derive(Clone, Copy)]
struct RecurrentSizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    directions: usize,
}

/// Positions of optional operands.
#[derive(Clone, Copy)]
struct At {
    bias: Option<usize>,
    lens: Option<usize>,
    hidden: Option<usize>,
    cell: Option<usize>,
    peepholes: Option<usize>,
}

impl Recurrent {
    fn at(&self) -> At {
        let mut next = 3;
        let mut position = |given: bool| {
            let at = given.then_some(next);
            next += usize::from(given);
            at
        };
        let Given { bias, lens, hidden, cell, peepholes } = self.given;
        At {
            bias: position(bias),
            lens: position(lens),
            hidden: position(hidden),
            cell: position(cell),
            peepholes: position(peepholes),
        }
    }

    /// The shape of a state.
    fn state(&self, s: &RecurrentSizes) -> [usize; 3] {
        if self.batch_first { [s.batch, s.directions, s.hidden] } else { [s.directions, s.batch, s.hidden] }
    }

    fn sizes(&self, inputs: &[&Fact]) -> Result<RecurrentSizes, OpError> {
        let Given { bias, lens, hidden, cell, peepholes } = self.given;
        let arity = 3 + [bias, lens, hidden, cell, peepholes].iter().filter(|&&given| given).count();
        if inputs.len() != arity {
            return Err(OpError::Arity { want: "x, two weights and the flagged operands", got: inputs.len() });
        }
        let at = self.at();
        for (index, fact) in inputs.iter().enumerate() {
            let (dtype, want) = if at.lens == Some(index) { (DType::I32, "i32") } else { (DType::F32, "f32") };
            if fact.dtype != dtype {
                return Err(OpError::Type { index, got: fact.dtype, want });
            }
        }
        let (x, w) = (&inputs[0].shape, &inputs[1].shape);
        let misfit = |index: usize, rule: &'static str| OpError::shapes(rule, &[x, w, &inputs[index].shape]);
        let (&[first, second, columns], &[directions, rows, _]) = (x.dims(), w.dims()) else {
            return Err(misfit(0, "the input and the weights have 3 dimensions"));
        };
        let (batch, steps) = if self.batch_first { (first, second) } else { (second, first) };
        let gates = self.cell.gates();
        let s = RecurrentSizes { steps, batch, inputs: columns, hidden: rows / gates, directions };
        let wanted = if self.direction == Direction::Both { 2 } else { 1 };
        if s.hidden == 0 || rows % gates != 0 || directions != wanted || w[2] != columns {
            return Err(misfit(1, "weights are [directions, gates * hidden, inputs]"));
        }
        if inputs[2].shape.dims() != [directions, rows, s.hidden] {
            return Err(misfit(2, "recurrent weights are [directions, gates * hidden, hidden]"));
        }
        let check = |position: Option<usize>, dims: &[usize], rule| match position {
            Some(index) if inputs[index].shape.dims() != dims => Err(misfit(index, rule)),
            _ => Ok(()),
        };
        check(at.bias, &[directions, rows.saturating_mul(2)], "biases are [directions, 2 * gates * hidden]")?;
        check(at.lens, &[batch], "one length for each sequence of the batch")?;
        check(at.hidden, &self.state(&s), "an initial state is [directions, batch, hidden]")?;
        check(at.cell, &self.state(&s), "an initial cell state is [directions, batch, hidden]")?;
        check(at.peepholes, &[directions, s.hidden.saturating_mul(3)], "peepholes are [directions, 3 * hidden]")?;
        if (cell || peepholes) && !matches!(self.cell, Cell::Lstm(_)) {
            return Err(OpError::Value("only an LSTM has a cell state".into()));
        }
        if self.functions.len() != self.cell.functions() * directions {
            let reason = format!("{} functions for {directions} directions", self.functions.len());
            return Err(OpError::Attribute { name: "activations", reason });
        }
        if self.clip.is_some_and(|clip| clip.is_nan() || clip < 0.0) {
            return Err(OpError::Attribute { name: "clip", reason: "is below zero, or no number".into() });
        }
        // The input's contribution to the gates, for one direction, is stored at once.
        Shape::new(&[steps, batch, rows])?;
        Ok(s)
    }

    /// The row of a step's hidden state in the results.
    fn row(&self, s: &RecurrentSizes, step: usize, direction: usize, image: usize) -> usize {
        let row = match self.batch_first {
            false => (step * s.directions + direction) * s.batch + image,
            true => (image * s.steps + step) * s.directions + direction,
        };
        row * s.hidden
    }

    /// The row of the state of a direction and a sequence.
    fn state_row(&self, s: &RecurrentSizes, direction: usize, image: usize) -> usize {
        let row = if self.batch_first { image * s.directions + direction } else { direction * s.batch + image };
        row * s.hidden
    }

    /// Row of the input at a step.
    fn x_row(&self, s: &RecurrentSizes, step: usize, image: usize) -> usize {
        if self.batch_first { image * s.steps + step } else { step * s.batch + image }
    }

    fn is_reverse(&self, direction: usize) -> bool {
        direction == 1 || self.direction == Direction::Reverse
    }
}

/// The number of steps of a sequence.
fn len_of(lens: Option<&[i32]>, image: usize, steps: usize) -> Result<usize, OpError> {
    let Some(lens) = lens else { return Ok(steps) };
    let len = lens.get(image).copied().unwrap_or_default();
    let known = usize::try_from(len).ok().filter(|&len| len <= steps);
    known.ok_or_else(|| OpError::Value(format!("a sequence length of {len} exceeds the {steps} steps")))
}

impl Operator for Recurrent {
    fn name(&self) -> &str {
        match self.cell {
            Cell::Rnn => "RNN",
            Cell::Gru(_) => "GRU",
            Cell::Lstm(_) => "LSTM",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let s = self.sizes(inputs)?;
        let all = match self.batch_first {
            false => [s.steps, s.directions, s.batch, s.hidden],
            true => [s.batch, s.steps, s.directions, s.hidden],
        };
        let fact = |dims: &[usize]| Ok::<_, OpError>(Fact::new(DType::F32, Shape::new(dims)?));
        let mut results = vec![fact(&all)?, fact(&self.state(&s))?];
        if matches!(self.cell, Cell::Lstm(_)) {
            results.push(fact(&self.state(&s))?);
        }
        Ok(results)
    }

    fn macs(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        let Ok(s) = self.sizes(inputs) else { return 0 };
        let states = saturating_product(&[s.steps, s.batch, self.cell.gates(), s.directions, s.hidden]);
        states.saturating_mul((s.inputs as u64).saturating_add(s.hidden as u64))
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let s = self.sizes(&cx.inputs)?;
        let constant = cx.is_constant(1) && cx.is_constant(2);
        let weights = if constant { cx.weights() } else { Weights::F32 };
        let rows = self.cell.gates() * s.hidden;
        let products = Products {
            x: choose(cx.isa, weights, s.steps * s.batch, s.inputs, rows),
            h: choose(cx.isa, weights, s.batch, s.hidden, rows),
        };
        let [of_x, first, second] = products.lens(self.cell, &s).map(|len| len * s.directions);
        let mut choice = Choice { kernel: format!("{} {}", products.x.name, products.h.name), ..Choice::default() };
        let mut scratch = Scratch::lens(self.cell, &s).iter().sum::<usize>();
        if constant {
            let pack_x = |w: &[f32], out: &mut [f32]| products.pack_x(self.cell, &s, w, out, &Pace::free());
            let pack_h = |r: &[f32], out: &mut [f32]| products.pack_h(self.cell, &s, r, out, &Pace::free());
            choice.packed.push(store(cx, (0, 1), weights, of_x, pack_x)?);
            choice.packed.push(store(cx, (1, 2), weights, first + second, pack_h)?);
            choice.absorbed.extend([1, 2]);
            choice.form = Some(format!("{} {}", products.x.form().name, products.h.form().name));
        } else {
            // Weights computed at run time are packed in every run.
            scratch += of_x + first + second;
        }
        choice.scratch = scratch * size_of::<f32>();
        Ok(choice)
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (op, s, isa) = (self.clone(), self.sizes(&cx.inputs)?, cx.isa);
        let products = Products::named(cx.kernel)?;
        let is_packed = cx.absorbed(1) && cx.absorbed(2);
        let lens = products.lens(self.cell, &s);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let scratch = io.scratch::<f32>()?;
            let packed_len =
                if is_packed { [0; 2] } else { [lens[0], lens[1] + lens[2]].map(|len| len * s.directions) };
            let missing = || OpError::Operand(0);
            let (of_x, scratch) = scratch.split_at_mut_checked(packed_len[0]).ok_or_else(missing)?;
            let (of_h, scratch) = scratch.split_at_mut_checked(packed_len[1]).ok_or_else(missing)?;
            let (of_x, of_h) = if is_packed {
                (read(io, 0, products.x.weights)?, read(io, 1, products.h.weights)?)
            } else {
                products.pack_x(op.cell, &s, io.input(1)?, of_x, &io.pace());
                products.pack_h(op.cell, &s, io.input(2)?, of_h, &io.pace());
                (Packed::F32(of_x), Packed::F32(of_h))
            };
            let mut run = Run::new(&op, &s, isa, io, scratch)?;
            for direction in 0..s.directions {
                let [x, first, second] = lens;
                let begin = direction * (first + second);
                let weights = [
                    part(of_x, direction * x..(direction + 1) * x),
                    part(of_h, begin..begin + first),
                    part(of_h, begin + first..begin + first + second),
                ];
                run.direction(&products, weights, direction)?;
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests;

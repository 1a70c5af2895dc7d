//! Recurrent layers ([ONNX LSTM](https://onnx.ai/onnx/operators/onnx__LSTM.html),
//! [GRU](https://onnx.ai/onnx/operators/onnx__GRU.html), [RNN](https://onnx.ai/onnx/operators/onnx__RNN.html)) in every
//! form that ONNX has: direction, activations with their parameters, clipping, coupled gates, peepholes, initial states,
//! sequences of several lengths, either order of the axes.
//!
//! What the gates take from the input does not depend on the states: it is one product for all steps and gates. A step is
//! then one product with the hidden state (two for a GRU whose reset gate comes first) and the gates' functions, and the
//! states are updated where they lie.

use serde::{Deserialize, Serialize};
use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{self, Gemm, Packed, Variant, Weights};
use skipstone_kernels::threads::Pool;
use skipstone_kernels::unary::activation_in_place;

use super::curve::Curve;
use super::stored::{part, read, store};
use super::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell {
    /// One gate: the new state.
    Rnn,
    /// Update, reset and hidden gate. Whether the reset gate is applied behind the product with the hidden state
    /// (`linear_before_reset`).
    Gru(bool),
    /// Input, output, forget and cell gate. Whether the forget gate is one minus the input gate (`input_forget`).
    Lstm(bool),
}

impl Cell {
    /// Gates of a step.
    fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru(_) => 3,
            Self::Lstm(_) => 4,
        }
    }

    /// Gates whose sums are products with the hidden state itself: the first of them.
    fn direct(self) -> usize {
        match self {
            Self::Gru(false) => 2,
            cell => cell.gates(),
        }
    }

    /// Functions of a direction.
    fn functions(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru(_) => 2,
            Self::Lstm(_) => 3,
        }
    }
}

/// In which order the steps are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Both, each with weights of its own.
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

impl Gate {
    fn apply(self, isa: Isa, y: &mut [f32], pool: &Pool) {
        match self {
            Self::Activation(activation) => activation_in_place(isa, activation, y, pool),
            Self::Curve(curve) => curve.apply(isa, y, pool),
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Activation(Activation::Sigmoid) => 1.0 / (1.0 + (-x).exp()),
            Self::Activation(Activation::Tanh) => x.tanh(),
            Self::Activation(activation) => {
                f64::from(skipstone_kernels::activation::scalar::apply(activation, x as f32))
            }
            Self::Curve(curve) => curve.at(x),
        }
    }
}

/// Operands that may be left out, in their order behind the input and the two weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Biases of both products, `[directions, 2 * gates * hidden]`.
    pub bias: bool,
    /// Steps of every sequence of the batch, i32.
    pub lens: bool,
    /// The hidden state before the first step.
    pub hidden: bool,
    /// The cell state before the first step, of an LSTM.
    pub cell: bool,
    /// Weights from the cell state to input, output and forget gate, `[directions, 3 * hidden]`, of an LSTM.
    pub peepholes: bool,
}

/// A recurrent layer: x `[steps, batch, in]`, weights `[directions, gates * hidden, in]` and
/// `[directions, gates * hidden, hidden]`, and what is [`Given`]; to the hidden states of all steps
/// `[steps, directions, batch, hidden]`, the last ones `[directions, batch, hidden]` and, of an LSTM, the last cell states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recurrent {
    /// What it computes.
    pub cell: Cell,
    /// Order of the steps.
    pub direction: Direction,
    /// The gates' functions, those of the second direction behind the first's: f, g and h as ONNX names them.
    pub functions: Vec<Gate>,
    /// Bound of what the functions are applied to, on both sides of zero; as in ONNX Runtime, not of the cell state that
    /// becomes the hidden one.
    pub clip: Option<f32>,
    /// Whether the batch is the first axis of all operands and results but the weights (layout 1).
    pub batch_first: bool,
    /// Operands that are there.
    pub given: Given,
}

/// The sizes of a layer.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    directions: usize,
}

/// Positions of operands that may be left out.
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
    fn state(&self, s: &Sizes) -> [usize; 3] {
        if self.batch_first { [s.batch, s.directions, s.hidden] } else { [s.directions, s.batch, s.hidden] }
    }

    fn sizes(&self, inputs: &[&Fact]) -> Result<Sizes, OpError> {
        let Given { bias, lens, hidden, cell, peepholes } = self.given;
        let arity = 3 + [bias, lens, hidden, cell, peepholes].iter().filter(|&&given| given).count();
        if inputs.len() != arity {
            return Err(OpError::Arity { want: "x, two weights and what is given beside", got: inputs.len() });
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
        let s = Sizes { steps, batch, inputs: columns, hidden: rows / gates, directions };
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
            return Err(OpError::Attribute { name: "clip", reason: format!("{:?} is no bound", self.clip) });
        }
        // What the gates take from the input, of one direction, is held at once.
        Shape::new(&[steps, batch, rows])?;
        Ok(s)
    }

    /// Where a hidden state of a step goes among the results.
    fn row(&self, s: &Sizes, step: usize, direction: usize, image: usize) -> usize {
        let row = match self.batch_first {
            false => (step * s.directions + direction) * s.batch + image,
            true => (image * s.steps + step) * s.directions + direction,
        };
        row * s.hidden
    }

    /// Where the state of a direction and a sequence lies.
    fn state_row(&self, s: &Sizes, direction: usize, image: usize) -> usize {
        let row = if self.batch_first { image * s.directions + direction } else { direction * s.batch + image };
        row * s.hidden
    }

    /// Row of the input at a step.
    fn x_row(&self, s: &Sizes, step: usize, image: usize) -> usize {
        if self.batch_first { image * s.steps + step } else { step * s.batch + image }
    }

    fn is_reverse(&self, direction: usize) -> bool {
        direction == 1 || self.direction == Direction::Reverse
    }
}

/// The steps of a sequence.
fn len_of(lens: Option<&[i32]>, image: usize, steps: usize) -> Result<usize, OpError> {
    let Some(lens) = lens else { return Ok(steps) };
    let len = lens.get(image).copied().unwrap_or_default();
    let known = usize::try_from(len).ok().filter(|&len| len <= steps);
    known.ok_or_else(|| OpError::Value(format!("a sequence of {len} steps where there are {steps}")))
}

/// The products of a layer.
#[derive(Clone, Copy)]
struct Products {
    /// With the input.
    x: &'static Variant,
    /// With the states.
    h: &'static Variant,
}

impl Products {
    fn named(kernel: &str) -> Result<Self, OpError> {
        let mut names = kernel.split(' ').map(gemm::by_name);
        match (names.next().flatten(), names.next().flatten()) {
            (Some(x), Some(h)) => Ok(Self { x, h }),
            _ => Err(OpError::Value(format!("this build has no kernels {kernel}"))),
        }
    }

    /// Lengths of the packed weights of one direction: of the input, of the direct gates and of the others.
    fn lens(&self, cell: Cell, s: &Sizes) -> [usize; 3] {
        let (gates, direct) = (cell.gates(), cell.direct());
        [
            gemm::packed_len(self.x, s.inputs, gates * s.hidden),
            gemm::packed_len(self.h, s.hidden, direct * s.hidden),
            gemm::packed_len(self.h, s.hidden, (gates - direct) * s.hidden),
        ]
    }

    fn pack_x(&self, cell: Cell, s: &Sizes, w: &[f32], out: &mut [f32]) {
        let rows = cell.gates() * s.hidden;
        let len = self.lens(cell, s)[0];
        for direction in 0..s.directions {
            let w = &w[direction * rows * s.inputs..];
            gemm::pack(self.x, s.inputs, rows, w, 1, s.inputs, &mut out[direction * len..][..len]);
        }
    }

    fn pack_h(&self, cell: Cell, s: &Sizes, r: &[f32], out: &mut [f32]) {
        let (rows, direct) = (cell.gates() * s.hidden, cell.direct() * s.hidden);
        let [_, first, second] = self.lens(cell, s);
        for direction in 0..s.directions {
            let r = &r[direction * rows * s.hidden..];
            let (head, tail) = out[direction * (first + second)..][..first + second].split_at_mut(first);
            gemm::pack(self.h, s.hidden, direct, r, 1, s.hidden, head);
            gemm::pack(self.h, s.hidden, rows - direct, &r[direct * s.hidden..], 1, s.hidden, tail);
        }
    }
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
        let states = super::count(&[s.steps, s.batch, self.cell.gates(), s.directions, s.hidden]);
        states.saturating_mul((s.inputs as u64).saturating_add(s.hidden as u64))
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let s = self.sizes(&cx.inputs)?;
        let constant = cx.is_constant(1) && cx.is_constant(2);
        let weights = if constant { cx.weights() } else { Weights::F32 };
        let rows = self.cell.gates() * s.hidden;
        let products = Products {
            x: gemm::choose(cx.isa, weights, s.steps * s.batch, s.inputs, rows),
            h: gemm::choose(cx.isa, weights, s.batch, s.hidden, rows),
        };
        let [of_x, first, second] = products.lens(self.cell, &s).map(|len| len * s.directions);
        let mut choice = Choice { kernel: format!("{} {}", products.x.name, products.h.name), ..Choice::default() };
        let mut scratch = Scratch::lens(self.cell, &s).iter().sum::<usize>();
        if constant {
            let pack_x = |w: &[f32], out: &mut [f32]| products.pack_x(self.cell, &s, w, out);
            let pack_h = |r: &[f32], out: &mut [f32]| products.pack_h(self.cell, &s, r, out);
            choice.packed.push(store(cx, (0, 1), weights, of_x, pack_x)?);
            choice.packed.push(store(cx, (1, 2), weights, first + second, pack_h)?);
            choice.absorbed.extend([1, 2]);
            choice.form = Some(format!("{} {}", products.x.form().name, products.h.form().name));
        } else {
            // Weights that are computed are packed on every run.
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
                products.pack_x(op.cell, &s, io.input(1)?, of_x);
                products.pack_h(op.cell, &s, io.input(2)?, of_h);
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

impl Semantics for Recurrent {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let (s, at) = (self.sizes(&facts)?, self.at());
        let elements = |index: usize| inputs[index].elements::<f32>().ok_or(OpError::Operand(index));
        let (x, w, r) = (elements(0)?, elements(1)?, elements(2)?);
        let some = |at: Option<usize>| at.map(elements).transpose();
        let (bias, hidden, cell, peepholes) = (some(at.bias)?, some(at.hidden)?, some(at.cell)?, some(at.peepholes)?);
        let lens = at.lens.and_then(|at| inputs[at].elements::<i32>());
        let mut results: Vec<Tensor> = self.infer(&facts)?.into_iter().map(Tensor::zeros).collect();
        let (gates, size) = (self.cell.gates(), s.hidden);
        let clip = f64::from(self.clip.unwrap_or(f32::INFINITY));
        for (direction, image) in (0..s.directions).flat_map(|d| (0..s.batch).map(move |n| (d, n))) {
            let functions = &self.functions[direction * self.cell.functions()..];
            let gate = |function: usize, v: f64| functions[function].at(v.clamp(-clip, clip));
            let state = self.state_row(&s, direction, image)..self.state_row(&s, direction, image) + size;
            let from = |v: Option<&[f32]>| -> Vec<f64> {
                v.map_or(vec![0.0; size], |v| v[state.clone()].iter().map(|&v| f64::from(v)).collect())
            };
            let (mut h, mut c) = (from(hidden), from(cell));
            let peephole =
                |which: usize, j: usize| peepholes.map_or(0.0, |p| f64::from(p[(direction * 3 + which) * size + j]));
            let biases = |second: usize, row: usize| {
                bias.map_or(0.0, |b| f64::from(b[((direction * 2 + second) * gates * size) + row]))
            };
            let len = len_of(lens, image, s.steps)?;
            if len == 0 {
                continue;
            }
            for step in 0..len {
                let step = if self.is_reverse(direction) { len - 1 - step } else { step };
                let x = &x[self.x_row(&s, step, image) * s.inputs..][..s.inputs];
                let from_x = |row: usize| {
                    let w = &w[(direction * gates * size + row) * s.inputs..];
                    x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>() + biases(0, row)
                };
                let from_h = |h: &[f64], row: usize| {
                    let r = &r[(direction * gates * size + row) * size..];
                    h.iter().zip(r).map(|(&h, &r)| h * f64::from(r)).sum::<f64>() + biases(1, row)
                };
                let sum = |which: usize, j: usize| from_x(which * size + j) + from_h(&h, which * size + j);
                h = match self.cell {
                    Cell::Rnn => (0..size).map(|j| gate(0, sum(0, j))).collect(),
                    Cell::Gru(linear_before_reset) => {
                        let reset: Vec<f64> = (0..size).map(|j| gate(0, sum(1, j))).collect();
                        let kept: Vec<f64> = h.iter().zip(&reset).map(|(h, r)| h * r).collect();
                        let new = |j: usize| {
                            let from_h = match linear_before_reset {
                                true => reset[j] * from_h(&h, 2 * size + j),
                                false => from_h(&kept, 2 * size + j),
                            };
                            gate(1, from_x(2 * size + j) + from_h)
                        };
                        (0..size)
                            .map(|j| {
                                let update = gate(0, sum(0, j));
                                (1.0 - update) * new(j) + update * h[j]
                            })
                            .collect()
                    }
                    Cell::Lstm(coupled) => {
                        let mut next = Vec::with_capacity(size);
                        for (j, c) in c.iter_mut().enumerate() {
                            let input = gate(0, sum(0, j) + peephole(0, j) * *c);
                            let forget = match coupled {
                                true => 1.0 - input,
                                false => gate(0, sum(2, j) + peephole(2, j) * *c),
                            };
                            *c = forget * *c + input * gate(1, sum(3, j));
                            let output = gate(0, sum(1, j) + peephole(1, j) * *c);
                            next.push(output * functions[2].at(*c));
                        }
                        next
                    }
                };
                let row = self.row(&s, step, direction, image);
                let y = results[0].elements_mut::<f32>().ok_or(OpError::Operand(0))?;
                y[row..row + size].iter_mut().zip(&h).for_each(|(y, &h)| *y = h as f32);
            }
            for (result, from) in results[1..].iter_mut().zip([&h, &c]) {
                let y = result.elements_mut::<f32>().ok_or(OpError::Operand(0))?;
                y[state.clone()].iter_mut().zip(from).for_each(|(y, &v)| *y = v as f32);
            }
        }
        Ok(results)
    }
}

/// Working memory of one direction at a time.
struct Scratch<'a> {
    /// Both biases of every gate, as far as they are added alike.
    bias: &'a mut [f32],
    /// The second bias of a GRU's hidden gate, where the reset gate is applied to it.
    inner: &'a mut [f32],
    /// What the gates take from the input, in the order of its rows.
    from_x: &'a mut [f32],
    /// What they take from the hidden state, a row for each sequence.
    gates: &'a mut [f32],
    h: &'a mut [f32],
    c: &'a mut [f32],
    /// The hidden state as the reset gate leaves it.
    kept: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    /// Elements of each part.
    fn lens(cell: Cell, s: &Sizes) -> [usize; 7] {
        let (rows, states) = (cell.gates() * s.hidden, s.batch * s.hidden);
        [rows, s.hidden, s.steps * s.batch * rows, s.batch * rows, states, states, states]
    }

    fn new(cell: Cell, s: &Sizes, scratch: &'a mut [f32]) -> Result<Self, OpError> {
        let mut rest = scratch;
        let mut parts = Self::lens(cell, s).map(Some).map(|len| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut_checked(len?)?;
            rest = behind;
            Some(part)
        });
        let mut part = |index: usize| parts[index].take().ok_or(OpError::Operand(0));
        Ok(Self {
            bias: part(0)?,
            inner: part(1)?,
            from_x: part(2)?,
            gates: part(3)?,
            h: part(4)?,
            c: part(5)?,
            kept: part(6)?,
        })
    }
}

/// A layer at work.
struct Run<'a, 'o> {
    op: &'o Recurrent,
    s: &'o Sizes,
    isa: Isa,
    pool: &'a Pool,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    lens: Option<&'a [i32]>,
    initial: [Option<&'a [f32]>; 2],
    peepholes: Option<&'a [f32]>,
    y: &'a mut [f32],
    last: [Option<&'a mut [f32]>; 2],
    scratch: Scratch<'a>,
}

impl<'a, 'o> Run<'a, 'o> {
    fn new(
        op: &'o Recurrent,
        s: &'o Sizes,
        isa: Isa,
        io: &mut Io<'a, '_>,
        scratch: &'a mut [f32],
    ) -> Result<Self, OpError> {
        let at = op.at();
        let some = |io: &Io<'a, '_>, at: Option<usize>| at.map(|at| io.input::<f32>(at)).transpose();
        let cell = matches!(op.cell, Cell::Lstm(_));
        Ok(Self {
            op,
            s,
            isa,
            pool: io.pool(),
            x: io.input(0)?,
            bias: some(io, at.bias)?,
            lens: at.lens.map(|at| io.input(at)).transpose()?,
            initial: [some(io, at.hidden)?, some(io, at.cell)?],
            peepholes: some(io, at.peepholes)?,
            y: io.output(0)?,
            last: [Some(io.output(1)?), if cell { Some(io.output(2)?) } else { None }],
            scratch: Scratch::new(op.cell, s, scratch)?,
        })
    }

    fn direction(&mut self, v: &Products, weights: [Packed<'_>; 3], direction: usize) -> Result<(), OpError> {
        let (op, s, isa, pool) = (self.op, self.s, self.isa, self.pool);
        let (gates, direct, size) = (op.cell.gates(), op.cell.direct(), s.hidden);
        let rows = gates * size;
        if s.batch == 0 {
            return Ok(());
        }
        self.biases(direction);
        self.states(direction);
        let epilogue = Epilogue { bias: Some(self.scratch.bias), ..Epilogue::NONE };
        let [of_x, of_h, of_kept] = weights;
        let product = |v: &Variant, args: Gemm<'_>| gemm::gemm(v, args, &mut [], pool);
        let sizes = (s.steps * s.batch, s.inputs, rows);
        product(v.x, rows_of(self.x, of_x, self.scratch.from_x, sizes, rows, epilogue));
        for step in 0..s.steps {
            if pool.stops() {
                return Ok(());
            }
            let Scratch { inner, from_x, gates, h, c, kept, .. } = &mut self.scratch;
            let sizes = (s.batch, size, direct * size);
            product(v.h, rows_of(h, of_h, gates, sizes, rows, Epilogue::NONE));
            if direct * size < rows {
                // The reset gate is known before the product that it is a part of.
                for image in 0..s.batch {
                    let len = len_of(self.lens, image, s.steps)?;
                    if step >= len {
                        continue;
                    }
                    let at = op.x_row(s, if op.is_reverse(direction) { len - 1 - step } else { step }, image);
                    let sums = &mut gates[image * rows..][..direct * size];
                    add(sums, &from_x[at * rows..]);
                    op.gate(isa, pool, direction, 0, sums);
                    let states = h[image * size..].iter().zip(&sums[size..]);
                    kept[image * size..][..size].iter_mut().zip(states).for_each(|(kept, (h, r))| *kept = h * r);
                }
                let behind = &mut gates[direct * size..];
                let sizes = (s.batch, size, rows - direct * size);
                product(v.h, rows_of(kept, of_kept, behind, sizes, rows, Epilogue::NONE));
            }
            for image in 0..s.batch {
                let len = len_of(self.lens, image, s.steps)?;
                if step >= len {
                    continue;
                }
                let at = if op.is_reverse(direction) { len - 1 - step } else { step };
                let from_x = &from_x[op.x_row(s, at, image) * rows..][..rows];
                let gates = &mut gates[image * rows..][..rows];
                let h = &mut h[image * size..][..size];
                let c = &mut c[image * size..][..size];
                match op.cell {
                    Cell::Rnn => {
                        add(gates, from_x);
                        op.gate(isa, pool, direction, 0, gates);
                        h.copy_from_slice(gates);
                    }
                    Cell::Gru(linear_before_reset) => {
                        let (z_r, new) = gates.split_at_mut(2 * size);
                        if linear_before_reset {
                            add(z_r, from_x);
                            op.gate(isa, pool, direction, 0, z_r);
                            let reset = z_r[size..].iter().zip(&**inner);
                            new.iter_mut().zip(reset).for_each(|(new, (r, bias))| *new = r * (*new + bias));
                        }
                        add(new, &from_x[2 * size..]);
                        op.gate(isa, pool, direction, 1, new);
                        for ((h, &z), &new) in h.iter_mut().zip(&*z_r).zip(&*new) {
                            *h = (1.0 - z) * new + z * *h;
                        }
                    }
                    Cell::Lstm(coupled) => {
                        add(gates, from_x);
                        let peepholes = self.peepholes.map(|p| &p[direction * 3 * size..][..3 * size]);
                        let (input, rest) = gates.split_at_mut(size);
                        let (output, rest) = rest.split_at_mut(size);
                        let (forget, new) = rest.split_at_mut(size);
                        if let Some(p) = peepholes {
                            add_product(input, &p[..size], c);
                            add_product(forget, &p[2 * size..], c);
                        }
                        op.gate(isa, pool, direction, 0, input);
                        op.gate(isa, pool, direction, 0, forget);
                        op.gate(isa, pool, direction, 1, new);
                        for (((c, &i), &f), &new) in c.iter_mut().zip(&*input).zip(&*forget).zip(&*new) {
                            *c = if coupled { 1.0 - i } else { f } * *c + i * new;
                        }
                        if let Some(p) = peepholes {
                            add_product(output, &p[size..2 * size], c);
                        }
                        op.gate(isa, pool, direction, 0, output);
                        h.copy_from_slice(c);
                        op.function(direction, 2).apply(isa, h, pool);
                        h.iter_mut().zip(&*output).for_each(|(h, o)| *h *= o);
                    }
                }
                self.y[op.row(s, at, direction, image)..][..size].copy_from_slice(h);
            }
        }
        self.results(direction)
    }

    /// Sums the biases of a direction.
    fn biases(&mut self, direction: usize) {
        let Scratch { bias, inner, .. } = &mut self.scratch;
        let rows = bias.len();
        let Some(given) = self.bias else {
            bias.fill(0.0);
            inner.fill(0.0);
            return;
        };
        let (of_x, of_h) = given[direction * 2 * rows..][..2 * rows].split_at(rows);
        bias.copy_from_slice(of_x);
        let alike = if self.op.cell == Cell::Gru(true) { rows - inner.len() } else { rows };
        add(&mut bias[..alike], of_h);
        inner.copy_from_slice(&of_h[rows - inner.len()..]);
    }

    /// Sets the states before the first step.
    fn states(&mut self, direction: usize) {
        let size = self.s.hidden;
        for (state, initial) in [&mut *self.scratch.h, &mut *self.scratch.c].into_iter().zip(self.initial) {
            for image in 0..self.s.batch {
                let state = &mut state[image * size..][..size];
                match initial {
                    Some(given) => {
                        state.copy_from_slice(&given[self.op.state_row(self.s, direction, image)..][..size]);
                    }
                    None => state.fill(0.0),
                }
            }
        }
    }

    /// Writes the last states, and zeros behind the ends of sequences. One without steps has zeros for a last state.
    fn results(&mut self, direction: usize) -> Result<(), OpError> {
        let (op, s, size) = (self.op, self.s, self.s.hidden);
        for image in 0..s.batch {
            let len = len_of(self.lens, image, s.steps)?;
            for (last, state) in self.last.iter_mut().zip([&*self.scratch.h, &*self.scratch.c]) {
                let Some(last) = last else { continue };
                let last = &mut last[op.state_row(s, direction, image)..][..size];
                match len {
                    0 => last.fill(0.0),
                    _ => last.copy_from_slice(&state[image * size..][..size]),
                }
            }
            for step in len..s.steps {
                self.y[op.row(s, step, direction, image)..][..size].fill(0.0);
            }
        }
        Ok(())
    }
}

impl Recurrent {
    /// Applies function `index` of a direction, behind the bounds.
    fn gate(&self, isa: Isa, pool: &Pool, direction: usize, index: usize, y: &mut [f32]) {
        if let Some(clip) = self.clip {
            y.iter_mut().for_each(|y| *y = y.clamp(-clip, clip));
        }
        self.function(direction, index).apply(isa, y, pool);
    }

    fn function(&self, direction: usize, index: usize) -> Gate {
        self.functions[direction * self.cell.functions() + index]
    }
}

/// A product of `(m, k, n)` whose results lie in rows of `ldc` elements.
fn rows_of<'a>(
    a: &'a [f32],
    packed: Packed<'a>,
    out: &'a mut [f32],
    (m, k, n): (usize, usize, usize),
    ldc: usize,
    epilogue: Epilogue<'a>,
) -> Gemm<'a> {
    Gemm { m, k, n, a, lda: k, packed, out, ldc, epilogue, a_scale: None }
}

/// `y += x`, as far as `y` goes.
fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// `y += a * b`
fn add_product(y: &mut [f32], a: &[f32], b: &[f32]) {
    y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y += a * b);
}

#[cfg(test)]
#[path = "recurrent/tests.rs"]
mod tests;

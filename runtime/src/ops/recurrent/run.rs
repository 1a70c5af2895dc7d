//! The run of a recurrent layer: the products, and the update of the states at every step.

use skipstone_kernels::Isa;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{self, Gemm, Packed, Variant};
use skipstone_kernels::pace::Pace;
use skipstone_kernels::threads::Pool;
use skipstone_kernels::unary::activation_in_place;

use super::{Cell, Gate, Recurrent, RecurrentSizes, len_of};
use crate::error::OpError;
use crate::operator::Io;

impl Gate {
    fn apply(self, isa: Isa, y: &mut [f32], pool: &Pool) {
        match self {
            Self::Activation(activation) => activation_in_place(isa, activation, y, pool),
            Self::Curve(curve) => curve.apply(isa, y, pool),
        }
    }
}

/// The products of a layer.
#[derive(Clone, Copy)]
pub(super) struct Products {
    /// With the input.
    pub(super) x: &'static Variant,
    /// With the states.
    pub(super) h: &'static Variant,
}

impl Products {
    pub(super) fn named(kernel: &str) -> Result<Self, OpError> {
        let mut names = kernel.split(' ').map(gemm::by_name);
        match (names.next().flatten(), names.next().flatten()) {
            (Some(x), Some(h)) => Ok(Self { x, h }),
            _ => Err(OpError::Value(format!("this build has no kernels {kernel}"))),
        }
    }

    /// Lengths of the packed weights of one direction: for the input, the direct gates and the others.
    pub(super) fn lens(&self, cell: Cell, s: &RecurrentSizes) -> [usize; 3] {
        let (gates, direct) = (cell.gates(), cell.direct());
        [
            gemm::packed_len(self.x, s.inputs, gates * s.hidden),
            gemm::packed_len(self.h, s.hidden, direct * s.hidden),
            gemm::packed_len(self.h, s.hidden, (gates - direct) * s.hidden),
        ]
    }

    pub(super) fn pack_x(&self, cell: Cell, s: &RecurrentSizes, w: &[f32], out: &mut [f32], pace: &Pace<'_>) {
        let rows = cell.gates() * s.hidden;
        let len = self.lens(cell, s)[0];
        for direction in 0..s.directions {
            let w = &w[direction * rows * s.inputs..];
            gemm::pack(self.x, s.inputs, rows, (w, 1, s.inputs), &mut out[direction * len..][..len], pace);
        }
    }

    pub(super) fn pack_h(&self, cell: Cell, s: &RecurrentSizes, r: &[f32], out: &mut [f32], pace: &Pace<'_>) {
        let (rows, direct) = (cell.gates() * s.hidden, cell.direct() * s.hidden);
        let [_, first, second] = self.lens(cell, s);
        for direction in 0..s.directions {
            let r = &r[direction * rows * s.hidden..];
            let (head, tail) = out[direction * (first + second)..][..first + second].split_at_mut(first);
            gemm::pack(self.h, s.hidden, direct, (r, 1, s.hidden), head, pace);
            gemm::pack(self.h, s.hidden, rows - direct, (&r[direct * s.hidden..], 1, s.hidden), tail, pace);
        }
    }
}

/// Working memory, for one direction at a time.
pub(super) struct Scratch<'a> {
    /// The sum of both biases of every gate, if they are simply added.
    bias: &'a mut [f32],
    /// The second bias of a GRU's hidden gate, if the reset gate applies to it.
    inner: &'a mut [f32],
    /// The input's contribution to the gates, in the order of its rows.
    from_x: &'a mut [f32],
    /// The hidden state's contribution, one row per sequence.
    gates: &'a mut [f32],
    h: &'a mut [f32],
    c: &'a mut [f32],
    /// The hidden state multiplied by the reset gate.
    kept: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    /// Number of elements of each part.
    pub(super) fn lens(cell: Cell, s: &RecurrentSizes) -> [usize; 7] {
        let (rows, states) = (cell.gates() * s.hidden, s.batch * s.hidden);
        [rows, s.hidden, s.steps * s.batch * rows, s.batch * rows, states, states, states]
    }

    fn new(cell: Cell, s: &RecurrentSizes, scratch: &'a mut [f32]) -> Result<Self, OpError> {
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

/// A running layer.
pub(super) struct Run<'a, 'o> {
    op: &'o Recurrent,
    s: &'o RecurrentSizes,
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
    pub(super) fn new(
        op: &'o Recurrent,
        s: &'o RecurrentSizes,
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

    pub(super) fn direction(
        &mut self,
        v: &Products,
        weights: [Packed<'_>; 3],
        direction: usize,
    ) -> Result<(), OpError> {
        let (op, s, isa, pool) = (self.op, self.s, self.isa, self.pool);
        let (gates, direct, size) = (op.cell.gates(), op.cell.direct(), s.hidden);
        let rows = gates * size;
        if s.batch == 0 {
            return Ok(());
        }
        let pace = Pace::of(pool);
        self.biases(direction);
        self.states(direction, &pace)?;
        let epilogue = Epilogue { bias: Some(self.scratch.bias), ..Epilogue::NONE };
        let [of_x, of_h, of_kept] = weights;
        let product = |v: &Variant, args: Gemm<'_>| gemm::gemm(v, args, &mut [], pool);
        let sizes = (s.steps * s.batch, s.inputs, rows);
        product(v.x, rows_of(self.x, of_x, self.scratch.from_x, sizes, rows, epilogue));
        for step in 0..s.steps {
            pace.spend(64)?;
            let Scratch { inner, from_x, gates, h, c, kept, .. } = &mut self.scratch;
            let sizes = (s.batch, size, direct * size);
            product(v.h, rows_of(h, of_h, gates, sizes, rows, Epilogue::NONE));
            if direct * size < rows {
                // The reset gate is needed before the product that it enters.
                for image in 0..s.batch {
                    pace.spend(16 + 4 * rows)?;
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
                // Activations, too, which are pieces of a kernel only if there are many.
                pace.spend(16 + 8 * rows)?;
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
        self.results(direction, &pace)
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
    fn states(&mut self, direction: usize, pace: &Pace<'_>) -> Result<(), OpError> {
        let size = self.s.hidden;
        for (state, initial) in [&mut *self.scratch.h, &mut *self.scratch.c].into_iter().zip(self.initial) {
            for image in 0..self.s.batch {
                pace.spend(16 + size)?;
                let state = &mut state[image * size..][..size];
                match initial {
                    Some(given) => {
                        state.copy_from_slice(&given[self.op.state_row(self.s, direction, image)..][..size]);
                    }
                    None => state.fill(0.0),
                }
            }
        }
        Ok(())
    }

    /// Writes the last states, and zeros after the ends of sequences. The last state of a sequence without steps is
    /// zero.
    fn results(&mut self, direction: usize, pace: &Pace<'_>) -> Result<(), OpError> {
        let (op, s, size) = (self.op, self.s, self.s.hidden);
        for image in 0..s.batch {
            let len = len_of(self.lens, image, s.steps)?;
            pace.spend(16 + 2 * size)?;
            for (last, state) in self.last.iter_mut().zip([&*self.scratch.h, &*self.scratch.c]) {
                let Some(last) = last else { continue };
                let last = &mut last[op.state_row(s, direction, image)..][..size];
                match len {
                    0 => last.fill(0.0),
                    _ => last.copy_from_slice(&state[image * size..][..size]),
                }
            }
            for step in len..s.steps {
                pace.spend(16 + size)?;
                self.y[op.row(s, step, direction, image)..][..size].fill(0.0);
            }
        }
        Ok(())
    }
}

impl Recurrent {
    /// Applies function `index` of a direction, after clipping.
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

/// A product of `(m, k, n)` whose results are in rows with a stride of `ldc` elements.
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

/// `y += x`, for the length of `y`.
fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// `y += a * b`
fn add_product(y: &mut [f32], a: &[f32], b: &[f32]) {
    y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y += a * b);
}

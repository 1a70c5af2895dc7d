//! The definition of a recurrent layer: one sequence at a time, with sums in f64.

use skipstone_kernels::activation::{Activation, scalar};

use super::{Cell, Gate, Recurrent, len_of};
use crate::error::OpError;
use crate::operator::{Operator, Semantics};
use crate::reserve;
use crate::tensor::{Fact, Tensor};

impl Gate {
    fn at(self, x: f64) -> f64 {
        match self {
            Self::Activation(Activation::Sigmoid) => 1.0 / (1.0 + (-x).exp()),
            Self::Activation(Activation::Tanh) => x.tanh(),
            Self::Activation(activation) => f64::from(scalar::apply(activation, x as f32)),
            Self::Curve(curve) => curve.at(x),
        }
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
        let results = self.infer(&facts)?.into_iter().map(Tensor::try_zeros);
        let mut results: Vec<Tensor> = results.collect::<Result<_, _>>()?;
        let (gates, size) = (self.cell.gates(), s.hidden);
        let clip = f64::from(self.clip.unwrap_or(f32::INFINITY));
        for (direction, image) in (0..s.directions).flat_map(|d| (0..s.batch).map(move |n| (d, n))) {
            let functions = &self.functions[direction * self.cell.functions()..];
            let gate = |function: usize, v: f64| functions[function].at(v.clamp(-clip, clip));
            let state = self.state_row(&s, direction, image)..self.state_row(&s, direction, image) + size;
            let from = |v: Option<&[f32]>| match v {
                None => reserve::copies(0.0, size),
                Some(v) => reserve::list(v[state.clone()].iter().map(|&v| f64::from(v))),
            };
            let (mut h, mut c) = (from(hidden)?, from(cell)?);
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
                    Cell::Rnn => reserve::list((0..size).map(|j| gate(0, sum(0, j))))?,
                    Cell::Gru(linear_before_reset) => {
                        let reset = reserve::list((0..size).map(|j| gate(0, sum(1, j))))?;
                        let kept = reserve::list(h.iter().zip(&reset).map(|(h, r)| h * r))?;
                        let new = |j: usize| {
                            let from_h = match linear_before_reset {
                                true => reset[j] * from_h(&h, 2 * size + j),
                                false => from_h(&kept, 2 * size + j),
                            };
                            gate(1, from_x(2 * size + j) + from_h)
                        };
                        reserve::list((0..size).map(|j| {
                            let update = gate(0, sum(0, j));
                            (1.0 - update) * new(j) + update * h[j]
                        }))?
                    }
                    Cell::Lstm(coupled) => {
                        let mut next = reserve::empty(size)?;
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

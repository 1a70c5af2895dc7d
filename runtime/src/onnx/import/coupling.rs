//! Probabilities of classes from probabilities of pairs of classes, for support vector machines.
//!
//! For `r[i, j]`, the probability of class `i` if it is `i` or `j`, the probabilities `p` of all classes minimize
//!
//! ```text
//! sum over i, j of (r[j, i] p[i] - r[i, j] p[j])^2 = 2 p' Q p
//! ```
//!
//! (Wu, Lin and Weng, Probability Estimates for Multi-class Classification by Pairwise Coupling, 2004, section 4). As
//! in LIBSVM and ONNX Runtime, one `p[i]` after the other is set to its best value and `p` is scaled to a sum of 1,
//! until `Q p` is nearly the same for all classes. The loop runs for all rows of a batch; rows that are done stay as
//! they are.

use super::build::{Halt, Imported};
use super::call::Call;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::control::{Along, Loop};
use crate::ops::gather::Gather;
use crate::ops::reduce::ReduceKind;
use crate::ops::unary::UnaryKind;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape};

/// Most rounds over all classes.
const MAX_ROUNDS: usize = 100;
/// Largest deviation of `Q p` at the end, times the number of classes.
const TOLERANCE: f32 = 0.005;

impl Call<'_, '_> {
    /// Adds a loop. The body gets the iteration's number, a condition, the carried values and the slices, and returns
    /// the condition for another iteration and the carried values.
    fn repeat(
        &mut self,
        op: Loop,
        inputs: &[ValueId],
        body: impl FnOnce(&mut Self, &[ValueId]) -> Result<Vec<ValueId>, Halt>,
    ) -> Imported {
        let mut facts = vec![Fact::new(DType::I64, Shape::default()), Fact::new(DType::Bool, Shape::default())];
        facts.extend(inputs[..op.carried].iter().map(|&id| self.fact(id).clone()));
        for (&id, along) in inputs[op.carried..].iter().zip(&op.scanned) {
            let mut dims = self.shape(id).to_vec();
            dims.remove(along.axis);
            let shape = Shape::new(&dims).map_err(|e| self.at(e))?;
            facts.push(Fact::new(self.dtype(id), shape));
        }
        let name = self.name().to_owned();
        self.build.graph.begin_block()?;
        let parameters = reserve::results(facts.into_iter().map(|fact| self.build.graph.add_parameter(&name, fact)))?;
        let results = body(self, &parameters);
        let block = self.build.graph.end_block(results.as_deref().unwrap_or(&[]))?;
        results?;
        self.build.add_control(&name, op.into(), inputs, vec![block])
    }

    fn sum(&mut self, x: ValueId, axis: usize) -> Result<ValueId, Halt> {
        self.reduce(ReduceKind::Sum, x, &[axis], true)
    }
}

/// The probabilities `[n, classes]` for those of pairs `[n, pairs]`: of the first class of (0, 1), (0, 2), .., (1, 2),
/// and so on.
pub(super) fn probabilities(cx: &mut Call<'_, '_>, pairs: ValueId, classes: usize) -> Result<ValueId, Halt> {
    let &[n, count] = cx.shape(pairs).dims() else { return Err(cx.shape_error("pairs must be a matrix", &[pairs])) };
    let (zero, one) = (cx.elements(&[n, 1], &cx.copies(0f32, n)?)?, cx.scalar(1f32)?);
    let others = cx.binary(BinaryKind::Sub, one, pairs)?;
    let all = cx.add(Concat { axis: 1 }, &[pairs, others, zero])?;
    // Where r[i, j] is among them; r[i, i] is 0.
    let mut places = cx.copies(2 * count as i64, classes * classes)?;
    let ordered = (0..classes).flat_map(|i| (i + 1..classes).map(move |j| (i, j)));
    for (pair, (i, j)) in (0..).zip(ordered) {
        places[i * classes + j] = pair;
        places[j * classes + i] = count as i64 + pair;
    }
    let places = cx.elements(&[classes, classes], &places)?;
    let r = cx.add(Gather { axis: 1 }, &[all, places])?;
    let turned = cx.transpose(r, &[0, 2, 1])?;
    let eye = cx.list((0..classes * classes).map(|at| f32::from(u8::from(at % (classes + 1) == 0))))?;
    let eye = cx.elements(&[classes, classes], &eye)?;
    // Q: sums of squares on the diagonal, negative products off it.
    let squares = cx.binary(BinaryKind::Mul, turned, turned)?;
    let squares = cx.sum(squares, 2)?;
    let diagonal = cx.binary(BinaryKind::Mul, squares, eye)?;
    let products = cx.binary(BinaryKind::Mul, turned, r)?;
    let q = cx.binary(BinaryKind::Sub, diagonal, products)?;
    let start = cx.elements(&[n, classes], &cx.copies(1.0 / classes as f32, n * classes)?)?;
    let rounds = Loop { iterations: Some(MAX_ROUNDS), carried: 1, ..Loop::default() };
    let done = cx.repeat(rounds, &[start], |cx, given| round(cx, given[2], q, squares, eye))?;
    Ok(done[0])
}

/// One round over all classes; returns whether another one is needed, and `p`.
fn round(cx: &mut Call<'_, '_>, p: ValueId, q: ValueId, squares: ValueId, eye: ValueId) -> Result<Vec<ValueId>, Halt> {
    let (n, classes) = (cx.shape(p)[0], cx.shape(p)[1]);
    let as_rows = cx.reshape(p, &[n, 1, classes])?;
    let terms = cx.binary(BinaryKind::Mul, q, as_rows)?;
    let slopes = cx.reduce(ReduceKind::Sum, terms, &[2], false)?;
    let terms = cx.binary(BinaryKind::Mul, p, slopes)?;
    let whole = cx.sum(terms, 1)?;
    let apart = cx.binary(BinaryKind::Sub, slopes, whole)?;
    let apart = cx.unary(UnaryKind::Abs, apart)?;
    let apart = cx.reduce(ReduceKind::Max, apart, &[1], true)?;
    let least = cx.scalar(TOLERANCE / classes as f32)?;
    let open = cx.compare(CompareKind::GreaterEqual, apart, least)?;

    let along = |axis| Along { axis, reverse: false };
    let scanned = vec![along(1), along(1), along(0)];
    let steps = Loop { iterations: Some(classes), carried: 3, scanned, ..Loop::default() };
    let moved = cx.repeat(steps, &[p, slopes, whole, q, squares, eye], |cx, given| {
        let &[_, goes_on, p, slopes, whole, row, square, unit] = given else { return Err(Halt::Foreign) };
        let own = cx.binary(BinaryKind::Mul, slopes, unit)?;
        let own = cx.sum(own, 1)?;
        let step = cx.binary(BinaryKind::Sub, whole, own)?;
        let step = cx.binary(BinaryKind::Div, step, square)?;
        let scale = cx.with_number(BinaryKind::Add, step, 1.0)?;
        // whole = (whole + step * (step * square + 2 * own)) / scale^2
        let doubled = cx.binary(BinaryKind::Add, own, own)?;
        let change = cx.binary(BinaryKind::Mul, step, square)?;
        let change = cx.binary(BinaryKind::Add, change, doubled)?;
        let change = cx.binary(BinaryKind::Mul, step, change)?;
        let mut whole = cx.binary(BinaryKind::Add, whole, change)?;
        for _ in 0..2 {
            whole = cx.binary(BinaryKind::Div, whole, scale)?;
        }
        let mut next = vec![goes_on];
        for (x, direction) in [(p, unit), (slopes, row)] {
            let change = cx.binary(BinaryKind::Mul, step, direction)?;
            let x = cx.binary(BinaryKind::Add, x, change)?;
            next.push(cx.binary(BinaryKind::Div, x, scale)?);
        }
        next.push(whole);
        Ok(next)
    })?;
    let p = cx.select(open, moved[0], p)?;
    let any = cx.cast(open, DType::F32)?;
    let any = cx.reduce(ReduceKind::Max, any, &[0, 1], false)?;
    let any = cx.cast(any, DType::Bool)?;
    Ok(vec![any, p])
}

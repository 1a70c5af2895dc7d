//! Matrix products: MatMul, Gemm and Einsum as sums over named axes.

use skipstone_kernels::activation::Activation;

use super::build::{Halt, Imported};
use super::call::Call;
use super::lengths::Rest;
use super::table::{Entry, microsoft, standard};
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::contract::Contract;
use crate::ops::matmul::MatMul;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::tensor::{DType, Shape};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["MatMul"], matmul),
    standard(&["Gemm"], gemm),
    standard(&["Einsum"], einsum),
    microsoft(&["FusedMatMul", "TransposeMatMul"], fused_matmul),
];

/// An axis of a product: its length, and its position in the operands and the result.
struct ProductAxis {
    len: usize,
    a: Option<usize>,
    b: Option<usize>,
    y: Option<usize>,
}

/// The axes of a product of two operands, by the tensors that have them.
pub(super) struct ProductAxes {
    /// In both operands and the result.
    batch: Vec<ProductAxis>,
    /// In the first operand and the result.
    m: Vec<ProductAxis>,
    /// In the second operand and the result.
    n: Vec<ProductAxis>,
    /// In both operands only: summed over.
    k: Vec<ProductAxis>,
    /// Dimensions of the result.
    pub y: Vec<usize>,
}

/// The order of an operand's or a result's axes, one axis each for batch, rows and columns.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// `[batch, m, k]`, `[batch, k, n]` or `[batch, m, n]`.
    Plain,
    /// `[batch, n, k]`, for the second operand.
    Transposed,
    /// `[m, batch, k]` for the first operand, `[m, batch, n]` for the result.
    RowsFirst,
}

impl ProductAxes {
    /// The product of operands whose axes have these labels; labels missing in the result are summed over. An axis of
    /// length 1 that is longer in the other operand is broadcast. `None` if an axis is summed over one operand alone,
    /// or occurs twice in an operand.
    pub fn of<L: PartialEq + Copy>(
        (a, a_labels): (&Shape, &[L]),
        (b, b_labels): (&Shape, &[L]),
        y_labels: &[L],
    ) -> Result<Option<Self>, OpError> {
        let mut labels: Vec<L> = Vec::new();
        for &label in a_labels.iter().chain(b_labels).chain(y_labels) {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        let mut product = Self { batch: vec![], m: vec![], n: vec![], k: vec![], y: vec![1; y_labels.len()] };
        for label in labels {
            let position = |labels: &[L]| labels.iter().position(|&other| other == label);
            let twice = |labels: &[L]| labels.iter().filter(|&&other| other == label).count() > 1;
            if twice(a_labels) || twice(b_labels) || twice(y_labels) {
                return Ok(None);
            }
            let (mut in_a, mut in_b, in_y) = (position(a_labels), position(b_labels), position(y_labels));
            let (len_a, len_b) = (in_a.map_or(1, |i| a[i]), in_b.map_or(1, |i| b[i]));
            if len_a != len_b {
                match (len_a, len_b) {
                    (1, _) => in_a = None,
                    (_, 1) => in_b = None,
                    _ => {
                        return Err(OpError::shapes(
                            "common axes of a product's operands must have the same length",
                            &[a, b],
                        ));
                    }
                }
            }
            let axis = ProductAxis { len: if in_a.is_some() { len_a } else { len_b }, a: in_a, b: in_b, y: in_y };
            if let Some(y) = in_y {
                product.y[y] = axis.len;
            }
            match (axis.a, axis.b, axis.y) {
                (Some(_), Some(_), Some(_)) => product.batch.push(axis),
                (Some(_), None, Some(_)) => product.m.push(axis),
                (None, Some(_), Some(_)) => product.n.push(axis),
                (Some(_), Some(_), None) => product.k.push(axis),
                _ if axis.len == 1 => {}
                _ => return Ok(None),
            }
        }
        product.batch.sort_by_key(|axis| axis.y);
        product.m.sort_by_key(|axis| axis.y);
        product.n.sort_by_key(|axis| axis.y);
        product.k.sort_by_key(|axis| axis.a);
        Ok(Some(product))
    }

    /// The NumPy product of `a` and `b`, whose last two axes are matrices.
    pub fn of_matrices(a: &Shape, b: &Shape) -> Result<Option<Self>, OpError> {
        // Batch axes are numbered from the last, so that those of both operands align.
        const ROWS: usize = 1000;
        const COLUMNS: usize = 1001;
        const INNER: usize = 1002;
        let (Some(&depth), false) = (a.last(), b.is_empty()) else {
            return Err(OpError::shapes("a product needs vectors or matrices", &[a, b]));
        };
        if depth != b[b.rank().saturating_sub(2)] {
            return Err(OpError::shapes("the first operand must have as many columns as the second has rows", &[a, b]));
        }
        let batch = |rank: usize| (0..rank.saturating_sub(2)).rev();
        let labels = |rank: usize, matrix: [usize; 2]| -> Vec<usize> {
            if rank == 1 { vec![INNER] } else { batch(rank).chain(matrix).collect() }
        };
        let (a_labels, b_labels) = (labels(a.rank(), [ROWS, INNER]), labels(b.rank(), [INNER, COLUMNS]));
        let (rows, columns) = ((a.rank() > 1).then_some(ROWS), (b.rank() > 1).then_some(COLUMNS));
        let y_labels: Vec<usize> = batch(a.rank().max(b.rank())).chain(rows).chain(columns).collect();
        Self::of((a, &a_labels), (b, &b_labels), &y_labels)
    }

    /// The products of the lengths of all batch, m, n and k axes.
    pub fn lens(&self) -> [usize; 4] {
        [&self.batch, &self.m, &self.n, &self.k].map(|axes| len(axes))
    }

    /// The first operand with its axes in this order.
    pub fn first(&self, cx: &mut Call<'_, '_>, a: ValueId, order: Order) -> Result<ValueId, Halt> {
        let groups = match order {
            Order::RowsFirst => [&self.m, &self.batch, &self.k],
            Order::Plain | Order::Transposed => [&self.batch, &self.m, &self.k],
        };
        operand(cx, a, groups, |axis| axis.a)
    }

    /// The second operand with its axes in this order.
    pub fn second(&self, cx: &mut Call<'_, '_>, b: ValueId, order: Order) -> Result<ValueId, Halt> {
        let groups = match order {
            Order::Transposed => [&self.batch, &self.n, &self.k],
            Order::Plain | Order::RowsFirst => [&self.batch, &self.k, &self.n],
        };
        operand(cx, b, groups, |axis| axis.b)
    }

    /// The result in the model's order, from one with its axes in this order.
    pub fn result(&self, cx: &mut Call<'_, '_>, value: ValueId, order: Order) -> Result<ValueId, Halt> {
        let groups = match order {
            Order::RowsFirst => [&self.m, &self.batch, &self.n],
            Order::Plain | Order::Transposed => [&self.batch, &self.m, &self.n],
        };
        let found: Vec<usize> = groups.iter().flat_map(|axes| axes.iter()).filter_map(|axis| axis.y).collect();
        // Axes of length 1 move without a transposition.
        if found.iter().filter(|&&axis| self.y[axis] != 1).is_sorted() {
            return cx.reshape(value, &self.y);
        }
        let unit = (0..self.y.len()).filter(|axis| !found.contains(axis));
        let found: Vec<usize> = unit.chain(found.iter().copied()).collect();
        let dims: Vec<usize> = found.iter().map(|&axis| self.y[axis]).collect();
        let back: Vec<usize> =
            (0..found.len()).filter_map(|axis| found.iter().position(|&other| other == axis)).collect();
        let value = cx.reshape(value, &dims)?;
        cx.transpose(value, &back)
    }

    /// The product as `[batch, m, n]`. Kernels multiply f32.
    pub fn multiply(&self, cx: &mut Call<'_, '_>, a: ValueId, b: ValueId) -> Result<ValueId, Halt> {
        if cx.dtype(a) != DType::F32 {
            let (a, b) = (self.first(cx, a, Order::Plain)?, self.second(cx, b, Order::Plain)?);
            return cx.add(Contract { a: vec![0, 1, 2], b: vec![0, 2, 3], y: vec![0, 1, 3] }, &[a, b]);
        }
        // The second operand is read as [n, k] if that needs no transposition.
        let last = cx.rank(b).checked_sub(1);
        let transposed = self.k.last().is_some_and(|axis| axis.b.is_some() && axis.b == last);
        let a = self.first(cx, a, Order::Plain)?;
        let b = self.second(cx, b, if transposed { Order::Transposed } else { Order::Plain })?;
        cx.add(MatMul { transposed, activation: Activation::None }, &[a, b])
    }
}

/// An operand with its axes in the order of `groups`, one axis for each; `of` gives the position of an axis in the
/// operand.
fn operand(
    cx: &mut Call<'_, '_>,
    value: ValueId,
    groups: [&Vec<ProductAxis>; 3],
    of: fn(&ProductAxis) -> Option<usize>,
) -> Result<ValueId, Halt> {
    let order: Vec<usize> = groups.iter().flat_map(|axes| axes.iter()).filter_map(of).collect();
    let mut value = value;
    if !order.iter().filter(|&&axis| cx.shape(value)[axis] != 1).is_sorted() {
        // Omitted axes have length 1: their position does not matter.
        let missing = (0..cx.rank(value)).filter(|axis| !order.contains(axis));
        let full: Vec<usize> = missing.chain(order.iter().copied()).collect();
        value = cx.transpose(value, &full)?;
    }
    cx.reshape(value, &groups.map(|axes| len(axes)))
}

fn len(axes: &[ProductAxis]) -> usize {
    axes.iter().map(|axis| axis.len).product()
}

pub(super) fn of_operands(cx: &Call<'_, '_>, a: ValueId, b: ValueId) -> Result<ProductAxes, Halt> {
    ProductAxes::of_matrices(cx.shape(a), cx.shape(b)).map_err(|e| cx.at(e))?.ok_or(Halt::Foreign)
}

pub(super) fn matmul(cx: &mut Call<'_, '_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let [a, b] = whole_sums(cx, [a, b], [cx.rank(a).saturating_sub(1), cx.rank(b).saturating_sub(2)])?;
    let product = of_operands(cx, a, b)?;
    let y = product.multiply(cx, a, b)?;
    Ok(vec![product.result(cx, y, Order::Plain)?])
}

/// The operands of a product whose sums are over axes of a length that only the run knows, with zeros behind it.
fn whole_sums(cx: &mut Call<'_, '_>, ids: [ValueId; 2], axes: [usize; 2]) -> Result<[ValueId; 2], Halt> {
    let [of_a, of_b] = [0, 1].map(|at| cx.length(ids[at], axes[at]));
    if of_a.is_none() && of_b.is_none() {
        return Ok(ids);
    }
    if of_a != of_b {
        return Err(cx.dynamic("whether the lengths of the summed axes are the same"));
    }
    let zero = Rest::Number(0.0);
    Ok([cx.filled(ids[0], &axes[..1], zero)?, cx.filled(ids[1], &axes[1..], zero)?])
}

/// `alpha * a' * b' + beta * c`, where the primes may transpose.
pub(super) fn gemm(cx: &mut Call<'_, '_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    if cx.rank(a) != 2 || cx.rank(b) != 2 {
        return Err(cx.shape_error("the operands must be matrices", &[a, b]));
    }
    let [trans_a, trans_b] = [cx.flag("transA", false)?, cx.flag("transB", false)?];
    let [a, b] = whole_sums(cx, [a, b], [usize::from(!trans_a), usize::from(trans_b)])?;
    let depth = |id, at: usize| cx.shape(id)[at];
    if depth(a, usize::from(!trans_a)) != depth(b, usize::from(trans_b)) {
        return Err(cx.shape_error("the first operand must have as many columns as the second has rows", &[a, b]));
    }
    let a_labels = if trans_a { ['k', 'm'] } else { ['m', 'k'] };
    let b_labels = if trans_b { ['n', 'k'] } else { ['k', 'n'] };
    let product = ProductAxes::of((cx.shape(a), &a_labels), (cx.shape(b), &b_labels), &['m', 'n']);
    let product = product.map_err(|e| cx.at(e))?.ok_or(Halt::Foreign)?;
    // Sums are added directly after the matrix product, which can absorb them.
    let mut y = product.multiply(cx, a, b)?;
    let (alpha, beta) = (cx.float("alpha", 1.0)?, cx.float("beta", 1.0)?);
    if !matches!(cx.dtype(a), DType::F32 | DType::F64) && (alpha.fract() != 0.0 || beta.fract() != 0.0) {
        return Err(cx.attribute_error("alpha", "or beta must be an integer, like the operands"));
    }
    if alpha != 1.0 {
        y = cx.with_number(BinaryKind::Mul, y, f64::from(alpha))?;
    }
    if let Some(mut c) = cx.optional(2).filter(|_| beta != 0.0) {
        let mut axes = cx.shape(c).iter().rev().zip(product.y.iter().rev());
        if cx.rank(c) > 2 || !axes.all(|(&c, &y)| c == 1 || c == y) {
            return Err(cx.shape_error("the third operand must broadcast to the product", &[a, b, c]));
        }
        if beta != 1.0 {
            c = cx.with_number(BinaryKind::Mul, c, f64::from(beta))?;
        }
        y = cx.binary(BinaryKind::Add, y, c)?;
    }
    Ok(vec![product.result(cx, y, Order::Plain)?])
}

/// com.microsoft FusedMatMul: a product of transposed operands, times alpha.
fn fused_matmul(cx: &mut Call<'_, '_>) -> Imported {
    if cx.flag("transBatchA", false)? || cx.flag("transBatchB", false)? {
        return Err(Halt::Foreign);
    }
    let mut operands = [cx.input(0)?, cx.input(1)?];
    for (id, name) in operands.iter_mut().zip(["transA", "transB"]) {
        let rank = cx.rank(*id);
        if cx.flag(name, false)? && rank >= 2 {
            let mut axes: Vec<usize> = (0..rank).collect();
            axes.swap(rank - 1, rank - 2);
            *id = cx.transpose(*id, &axes)?;
        }
    }
    let [a, b] = operands;
    let product = of_operands(cx, a, b)?;
    let mut y = product.multiply(cx, a, b)?;
    let alpha = cx.float("alpha", 1.0)?;
    if alpha != 1.0 {
        y = cx.with_number(BinaryKind::Mul, y, f64::from(alpha))?;
    }
    Ok(vec![product.result(cx, y, Order::Plain)?])
}

/// The name of an axis in an equation: a letter, or for an axis in `...` its distance from the last of them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Label {
    Letter(char),
    Dots(usize),
}

/// The labels of a term for an operand with this rank.
fn labels(cx: &Call<'_, '_>, term: &str, rank: usize) -> Result<Vec<Label>, Halt> {
    let bad = || cx.attribute_error("equation", format!("has the term '{term}' for an operand of {rank} dimensions"));
    let letters = |text: &str| text.chars().map(Label::Letter).collect::<Vec<_>>();
    let found = match term.split_once("...") {
        None => letters(term),
        Some((before, behind)) => {
            let letters_len = before.chars().count() + behind.chars().count();
            let dots = (0..rank.checked_sub(letters_len).ok_or_else(bad)?).rev().map(Label::Dots);
            letters(before).into_iter().chain(dots).chain(letters(behind)).collect()
        }
    };
    let alphabetic = |label: &Label| matches!(label, Label::Dots(_) | Label::Letter('a'..='z' | 'A'..='Z'));
    if found.len() == rank && found.iter().all(alphabetic) { Ok(found) } else { Err(bad()) }
}

/// The labels of an equation's result; if the equation has none, the letters that occur once, in alphabetical order
/// after the dots.
fn result_labels(cx: &Call<'_, '_>, right: Option<&str>, all: &[Label]) -> Result<Vec<Label>, Halt> {
    let dots = all.iter().filter_map(|label| if let Label::Dots(at) = label { Some(at + 1) } else { None });
    let dots = dots.max().unwrap_or(0);
    if let Some(right) = right {
        let letters = right.replace("...", "").chars().count();
        return labels(cx, right, letters + if right.contains("...") { dots } else { 0 });
    }
    let once = |label: &&Label| all.iter().filter(|other| other == label).count() == 1;
    let letter = |label: &Label| if let Label::Letter(letter) = label { Some(*letter) } else { None };
    let mut letters: Vec<char> = all.iter().filter(once).filter_map(letter).collect();
    letters.sort_unstable();
    Ok((0..dots).rev().map(Label::Dots).chain(letters.into_iter().map(Label::Letter)).collect())
}

/// Operands are multiplied from the left, two at a time.
fn einsum(cx: &mut Call<'_, '_>) -> Imported {
    let Some(equation) = cx.text("equation")? else { return Err(cx.attribute_error("equation", "is missing")) };
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = equation.split_once("->").map_or((equation.as_str(), None), |(l, r)| (l, Some(r)));
    let inputs = cx.all_inputs()?;
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != inputs.len() {
        return Err(cx.attribute_error("equation", format!("has {} terms for {} operands", terms.len(), inputs.len())));
    }
    let mut operands = Vec::with_capacity(inputs.len());
    for (term, &id) in terms.iter().zip(&inputs) {
        operands.push((id, labels(cx, term, cx.rank(id))?));
    }
    let all: Vec<Label> = operands.iter().flat_map(|(_, labels)| labels.iter().copied()).collect();
    let result = result_labels(cx, right, &all)?;
    for (id, labels) in &mut operands {
        (*id, *labels) = diagonal(cx, *id, labels.clone())?;
    }

    let (mut value, mut labels) = operands.remove(0);
    for index in 0..operands.len() {
        let (next, next_labels) = operands[index].clone();
        let later =
            |label: &Label| result.contains(label) || operands[index + 1..].iter().any(|(_, l)| l.contains(label));
        (value, labels) = sum_lone(cx, value, labels, |label| next_labels.contains(label) || later(label))?;
        let (next, next_labels) = sum_lone(cx, next, next_labels, |label| labels.contains(label) || later(label))?;
        let mut kept: Vec<Label> = Vec::new();
        if index + 1 == operands.len() {
            kept.clone_from(&result);
        } else {
            for &label in labels.iter().chain(&next_labels) {
                if later(&label) && !kept.contains(&label) {
                    kept.push(label);
                }
            }
        }
        let product = ProductAxes::of((cx.shape(value), &labels), (cx.shape(next), &next_labels), &kept);
        let product = product.map_err(|e| cx.at(e))?.ok_or(Halt::Foreign)?;
        let y = product.multiply(cx, value, next)?;
        (value, labels) = (product.result(cx, y, Order::Plain)?, kept);
    }
    (value, labels) = sum_lone(cx, value, labels, |label| result.contains(label))?;
    let order: Option<Vec<usize>> = result.iter().map(|label| labels.iter().position(|other| other == label)).collect();
    let order = order.filter(|order| order.len() == labels.len()).ok_or(Halt::Foreign)?;
    Ok(vec![cx.transpose(value, &order)?])
}

/// An operand in which each axis has a unique label: axes with the same label become their diagonal.
fn diagonal(cx: &mut Call<'_, '_>, value: ValueId, labels: Vec<Label>) -> Result<(ValueId, Vec<Label>), Halt> {
    let mut once: Vec<Label> = Vec::new();
    for &label in &labels {
        if !once.contains(&label) {
            once.push(label);
        }
    }
    if once.len() == labels.len() {
        return Ok((value, labels));
    }
    let number = |label: &Label| once.iter().position(|other| other == label).unwrap_or(0) as u8;
    let a: Vec<u8> = labels.iter().map(number).collect();
    for (axis, label) in labels.iter().enumerate() {
        let first = labels.iter().position(|other| other == label).unwrap_or(axis);
        if cx.shape(value)[axis] != cx.shape(value)[first] {
            return Err(cx.shape_error("axes with the same letter must have the same length", &[value]));
        }
    }
    let one = cx.scalar_of(cx.dtype(value), 1.0)?;
    let y = (0..once.len() as u8).collect();
    Ok((cx.add(Contract { a, b: Vec::new(), y }, &[value, one])?, once))
}

/// Sums over the axes that only one operand has.
fn sum_lone(
    cx: &mut Call<'_, '_>,
    value: ValueId,
    labels: Vec<Label>,
    wanted: impl Fn(&Label) -> bool,
) -> Result<(ValueId, Vec<Label>), Halt> {
    let axes: Vec<usize> = (0..labels.len()).filter(|&axis| !wanted(&labels[axis])).collect();
    if axes.is_empty() {
        return Ok((value, labels));
    }
    let kept = labels.into_iter().filter(|label| wanted(label)).collect();
    let sum = cx.add(Reduce { axes, kind: ReduceKind::Sum, keep_dims: false }, &[value])?;
    Ok((sum, kept))
}

//! What decides which expert computes which rows: comparisons of an index with an expert's number, in the forms that
//! exporters write.

use super::super::super::ValueId;
use super::view::View;
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::{Compare, CompareKind};
use crate::ops::reduce::ReduceKind;
use crate::reserve;
use crate::tensor::{DType, Tensor};

/// Most nodes that a mask is followed through.
const DEPTH: usize = 12;

/// Numbers of experts: a value with these dimensions, apart from ones, and its axes in this order.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub value: ValueId,
    pub dims: Vec<usize>,
    pub order: Vec<usize>,
}

impl Selector {
    fn plain(view: &View<'_>, value: ValueId) -> Option<Self> {
        let dims = view.dims(value).to_vec();
        let indices = matches!(view.graph.fact(value).dtype, DType::I64 | DType::I32);
        indices.then(|| Self { value, order: (0..dims.len()).collect(), dims })
    }

    pub fn is_same(&self, view: &View<'_>, other: &Self) -> bool {
        self.dims == other.dims && self.order == other.order && view.same(self.value, other.value)
    }

    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

/// How much of an expert's result is added.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shares {
    /// All of it.
    Whole,
    /// By a value with an element for each of the selector's.
    Each(ValueId),
    /// By a matrix with a column for every expert.
    Matrix(ValueId),
}

/// The rows of an expert, and its shares of them: `k` numbers for every group of rows.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub expert: usize,
    pub selector: Selector,
    pub k: usize,
    pub shares: Shares,
}

/// A mask, as bools or as zeros and ones, of where a selector is one expert's number.
pub(super) fn chosen(view: &View<'_>, mut id: ValueId) -> Option<(Selector, usize)> {
    for _ in 0..DEPTH {
        let node = view.writer(id)?;
        match (&node.op, node.inputs.as_slice()) {
            (Op::Reshape(_) | Op::Cast(_), &[x]) => id = x,
            (Op::Compare(Compare { kind: CompareKind::NotEqual | CompareKind::Greater }), &[x, zero])
                if view.is_zero(zero) && view.dims(x) == view.dims(id) =>
            {
                id = x;
            }
            (Op::Compare(Compare { kind: CompareKind::Equal }), &[a, b]) => {
                let (x, number) = match (view.integer(a), view.integer(b)) {
                    (None, Some(number)) => (a, number),
                    (Some(number), None) => (b, number),
                    _ => return None,
                };
                if view.dims(x) != view.dims(id) {
                    return None;
                }
                // A mask may be compared with one.
                if number == 1
                    && let Some(found) = chosen(view, x)
                {
                    return Some(found);
                }
                return Some((Selector::plain(view, x)?, usize::try_from(number).ok()?));
            }
            (Op::Slice(slice), &[x]) if slice.len == 1 => return Some((one_hot(view, x, slice.axis)?, slice.start)),
            _ => return None,
        }
    }
    None
}

/// The selector of a value whose `axis` is one at the expert's number and zero elsewhere.
fn one_hot(view: &View<'_>, mut id: ValueId, mut axis: usize) -> Option<Selector> {
    // The other axes of the value that was asked for, in terms of those of `id`.
    let mut order: Vec<usize> = (0..view.dims(id).len()).filter(|&other| other != axis).collect();
    for _ in 0..DEPTH {
        let node = view.writer(id)?;
        match (&node.op, node.inputs.as_slice()) {
            (Op::Cast(_), &[x]) => id = x,
            (Op::Transpose(transpose), &[x]) => {
                order.iter_mut().for_each(|other| *other = transpose.axes[*other]);
                axis = transpose.axes[axis];
                id = x;
            }
            (Op::OneHot(hot), &[x]) if hot.axis == axis => {
                let number = |tensor: &Tensor| {
                    let bytes = tensor.bytes();
                    match (tensor.elements::<f32>(), bytes.split_first()) {
                        (Some(&[value]), _) => Some(value),
                        (_, Some((&low, rest))) if rest.iter().all(|&byte| byte == 0) => Some(f32::from(low)),
                        _ => None,
                    }
                };
                if number(&hot.off) != Some(0.0) || number(&hot.on) != Some(1.0) {
                    return None;
                }
                let order = order.iter().map(|&other| other - usize::from(other > axis)).collect();
                return Some(Selector { value: x, dims: view.dims(x).to_vec(), order });
            }
            (Op::Compare(Compare { kind: CompareKind::Equal }), &[a, b]) => {
                let whole = view.dims(id);
                let of = |x: ValueId, numbers: ValueId| {
                    let (dims, held) = (view.dims(x), view.constant(numbers)?);
                    let counts = |all: Vec<i64>| all.iter().enumerate().all(|(i, &number)| number == i as i64);
                    let all: Vec<i64> = match (held.peek::<i64>(), held.peek::<i32>()) {
                        (Some(all), _) => reserve::list(all.iter()).ok()?,
                        (_, Some(all)) => reserve::list(all.iter().map(i64::from)).ok()?,
                        _ => return None,
                    };
                    let along = dims.len() == whole.len() && dims.get(axis) == Some(&1) && all.len() == whole[axis];
                    let from_end = whole.len() - axis;
                    let mut numbers = view.dims(numbers).iter().rev().enumerate();
                    let along = along && numbers.all(|(i, &dim)| dim == 1 || i + 1 == from_end);
                    let others = dims.iter().zip(whole).enumerate().all(|(i, (a, b))| i == axis || a == b);
                    (along && others && counts(all)).then_some(x)
                };
                let value = of(a, b).or_else(|| of(b, a))?;
                let mut dims = whole.to_vec();
                dims.remove(axis);
                let order = order.iter().map(|&other| other - usize::from(other > axis)).collect();
                return Some(Selector { value, dims, order });
            }
            _ => return None,
        }
    }
    None
}

/// The gate of one expert, with one element for every group of rows.
pub(super) fn gate(view: &View<'_>, id: ValueId) -> Option<Gate> {
    let id = view.source(id);
    let node = view.writer(id)?;
    if let (Op::Reduce(reduce), &[x]) = (&node.op, node.inputs.as_slice())
        && matches!(reduce.kind, ReduceKind::Sum | ReduceKind::Max)
        && let (&[axis], dims) = (reduce.axes.as_slice(), view.dims(x))
        && axis + 1 == dims.len()
    {
        let gate = weighted(view, x)?;
        // The largest of several shares is not their sum.
        let single = reduce.kind == ReduceKind::Sum || is_distinct(view, &gate.selector);
        return single.then_some(Gate { k: dims[axis], ..gate });
    }
    weighted(view, id).or_else(|| column(view, id))
}

/// A mask, or a mask times shares.
fn weighted(view: &View<'_>, id: ValueId) -> Option<Gate> {
    let gate = |(selector, expert), shares| Gate { expert, selector, k: 1, shares };
    if let Some(found) = chosen(view, id) {
        return Some(gate(found, Shares::Whole));
    }
    let dims = view.dims(id);
    let of = |mask: ValueId, shares: ValueId| {
        let fits = view.dims(mask) == dims && view.dims(shares) == dims;
        let found = chosen(view, mask).filter(|_| fits)?;
        Some(gate(found, Shares::Each(shares)))
    };
    if let Some([a, b]) = view.operands(id, BinaryKind::Mul) {
        return of(a, b).or_else(|| of(b, a));
    }
    let node = view.writer(id)?;
    match (&node.op, node.inputs.as_slice()) {
        (Op::Reshape(_), &[x]) => weighted(view, x),
        (Op::Select(_), &[mask, shares, zero]) if view.is_zero(zero) => of(mask, shares),
        _ => None,
    }
}

/// The column of an expert in a matrix of shares that is zero where no expert was selected.
fn column(view: &View<'_>, id: ValueId) -> Option<Gate> {
    let node = view.writer(id)?;
    let (Op::Slice(slice), &[x]) = (&node.op, node.inputs.as_slice()) else { return None };
    if slice.len != 1 {
        return None;
    }
    let matrix = turned(view, x, slice.axis)?;
    let (selector, k) = support(view, matrix)?;
    Some(Gate { expert: slice.start, selector, k, shares: Shares::Matrix(matrix) })
}

/// The matrix `[groups, experts]`, of a value with the experts along `axis`, the first or the last.
pub(super) fn turned(view: &View<'_>, id: ValueId, axis: usize) -> Option<ValueId> {
    let rank = view.dims(id).len();
    if axis + 1 == rank {
        return Some(id);
    }
    let node = view.writer(id)?;
    match (&node.op, node.inputs.as_slice()) {
        (Op::Transpose(transpose), &[x]) if axis == 0 => {
            let (&first, rest) = transpose.axes.split_first()?;
            (first + 1 == rank && rest.is_sorted()).then_some(x)
        }
        _ => None,
    }
}

/// The selector of the elements of a matrix `[.., experts]` outside of which it is zero, and their number in every row.
pub(super) fn support(view: &View<'_>, id: ValueId) -> Option<(Selector, usize)> {
    let (selector, k) = support_within(view, id, DEPTH)?;
    (k == 1 || is_distinct(view, &selector)).then_some((selector, k))
}

fn support_within(view: &View<'_>, id: ValueId, depth: usize) -> Option<(Selector, usize)> {
    let (node, dims) = (view.writer(id)?, view.dims(id));
    let depth = depth.checked_sub(1)?;
    let (&experts, groups) = dims.split_last()?;
    let last = groups.len();
    match (&node.op, node.inputs.as_slice()) {
        (Op::ScatterElements(scatter), &[zeros, indices, _]) if scatter.axis == last && view.is_zero(zeros) => {
            let selector = Selector::plain(view, indices)?;
            let (&k, rows) = selector.dims.split_last()?;
            (rows == groups).then_some((selector, k))
        }
        (Op::Accumulate(scatter), &[zeros, indices, _])
            if scatter.axis == Some(last) && scatter.kind == BinaryKind::Add && view.is_zero(zeros) =>
        {
            let selector = Selector::plain(view, indices)?;
            let (&k, rows) = selector.dims.split_last()?;
            (rows == groups).then_some((selector, k))
        }
        (Op::Cast(_), &[x]) => support_within(view, x, depth),
        (Op::Reshape(_), &[x]) if view.dims(x).last() == Some(&experts) => support_within(view, x, depth),
        (Op::Select(_), &[mask, _, zero]) if view.is_zero(zero) && view.dims(mask) == dims => {
            support_within(view, mask, depth)
        }
        (Op::Compare(Compare { kind: CompareKind::NotEqual | CompareKind::Greater }), &[x, zero])
            if view.is_zero(zero) && view.dims(x) == dims =>
        {
            support_within(view, x, depth)
        }
        (Op::Binary(_), _) => {
            let product = |[a, b]: [ValueId; 2]| {
                let of = |x: ValueId| (view.dims(x) == dims).then(|| support_within(view, x, depth)).flatten();
                of(a).or_else(|| of(b))
            };
            if let Some([a, _]) = view.operands(id, BinaryKind::Div) {
                return (view.dims(a) == dims).then(|| support_within(view, a, depth)).flatten();
            }
            product(view.operands(id, BinaryKind::Mul)?)
        }
        // A sum of one-hot rows, perhaps with shares.
        (Op::Reduce(reduce), &[x]) if matches!(reduce.kind, ReduceKind::Sum | ReduceKind::Max) => {
            let (&[axis], of) = (reduce.axes.as_slice(), view.dims(x)) else { return None };
            if axis + 2 != of.len() {
                return None;
            }
            let hot = |id: ValueId| one_hot(view, id, of.len() - 1).filter(|_| view.dims(id) == of);
            let weighted = || view.operands(x, BinaryKind::Mul).and_then(|[a, b]| hot(a).or_else(|| hot(b)));
            let selector = hot(x).or_else(weighted)?;
            selector.order.is_sorted().then_some((selector, of[axis]))
        }
        _ => {
            let selector = one_hot(view, id, last)?;
            selector.order.is_sorted().then_some((selector, 1))
        }
    }
}

/// One more than the largest number that a value can hold, if it holds positions along an axis.
pub(super) fn bound(view: &View<'_>, value: ValueId) -> Option<usize> {
    let mut id = value;
    for _ in 0..DEPTH {
        let node = view.writer(id)?;
        let &x = node.inputs.first()?;
        let along = |axis: usize| view.graph.fact(x).shape.dims().get(axis).copied();
        match &node.op {
            Op::TopK(top) if node.outputs.get(1) == Some(&id) => return along(top.axis),
            Op::ArgMax(arg) => return along(arg.axis),
            Op::Reshape(_) | Op::Cast(_) | Op::Transpose(_) | Op::Slice(_) => id = x,
            _ => return None,
        }
    }
    None
}

/// Whether the numbers of a group are those of the best elements of a row, which are different.
fn is_distinct(view: &View<'_>, selector: &Selector) -> bool {
    let mut id = selector.value;
    for _ in 0..DEPTH {
        let Some(node) = view.writer(id) else { return false };
        match (&node.op, node.inputs.first()) {
            (Op::TopK(top), _) => {
                return node.outputs.get(1) == Some(&id) && Some(&top.k) == selector.dims.last();
            }
            (Op::Reshape(_) | Op::Cast(_), Some(&x)) => id = x,
            _ => return false,
        }
    }
    false
}

/// Whether a bool of one element is true only if some row is for this expert.
pub(super) fn is_any(view: &View<'_>, condition: ValueId, expert: usize, selector: &Selector) -> bool {
    let mut id = condition;
    for _ in 0..DEPTH {
        if let Some((found, number)) = chosen(view, id) {
            return number == expert && view.same(view.source(found.value), view.source(selector.value));
        }
        let Some(node) = view.writer(id) else { return false };
        id = match (&node.op, node.inputs.as_slice()) {
            (Op::Reshape(_) | Op::Cast(_), &[x]) => x,
            (Op::Reduce(reduce), &[x]) if matches!(reduce.kind, ReduceKind::Sum | ReduceKind::Max) => x,
            (Op::Compare(Compare { kind: CompareKind::NotEqual | CompareKind::Greater }), &[x, zero])
                if view.is_zero(zero) =>
            {
                x
            }
            _ => return false,
        };
    }
    false
}

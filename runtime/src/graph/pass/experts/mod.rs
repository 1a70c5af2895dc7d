//! Mixtures of experts whose experts are separate, or all computed, become products with one of several matrices.
//!
//! ```text
//! sum over e of Mul(expert_e(x), gate_e)                  =>    Mul(routed(x, numbers), shares)
//! sum over e of ScatterAdd(rows_e, expert_e(x[rows_e]))   =>    ScatterAdd(rows, routed(x[rows], numbers))
//! If(some row is for e) { sum + ... } else { sum }        =>    the same, without the If
//! Where(number == e, expert_e(x), ...)                    =>    routed(x, number)
//! ReduceSum(Mul(experts(Tile(x)), Transpose(gates)))      =>    as the first
//! ```
//!
//! `routed` is the body of one expert: [`Routed`] in place of its matrix products, gathered rows in place of its other
//! constants.
//!
//! When: all experts from 0 on are there, and the same nodes compute them from the same rows, row by row, with constants
//! that may differ; gates follow from numbers of experts by comparing them with `e`, by a one-hot, or by a matrix that
//! is scattered at them, and where a share is not counted twice; numbers that are positions along an axis have an expert
//! each. Another number that is no expert's, which selects none in these graphs, is an error of the run.

mod body;
mod routing;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{HashMap, HashSet};

use self::body::{Body, Emit, Walk};
use self::routing::{Gate, Selector, Shares, bound, chosen, gate, is_any, support, turned};
use self::view::{View, equal};
use super::super::{Graph, Node, ValueId};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::accumulate::Accumulate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::control::Control;
use crate::ops::gather::Gather;
use crate::ops::gather_elements::GatherElements;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::reshape::Reshape;
use crate::ops::transpose::Transpose;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Most factors of an expert's result that are not its own.
const FACTORS: usize = 4;
/// Most nodes of branches that a mixture needs outside of them.
const HOISTED: usize = 16;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let found = find(graph)?;
    if found.is_empty() {
        return Ok(());
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let mut at = HashMap::new();
    for mixture in found {
        reserve::insert(&mut at, mixture.at, mixture)?;
    }
    for (position, node) in nodes.into_iter().enumerate() {
        match at.remove(&position) {
            Some(mixture) => {
                let nodes = mixture.emit(graph, &node)?;
                reserve::extend(&mut graph.nodes, nodes)?;
            }
            None => reserve::push(&mut graph.nodes, node)?,
        }
    }
    Ok(())
}

/// A mixture found in the graph.
struct Mixture {
    /// Position of the node that computes its result.
    at: usize,
    body: Body,
    gate: Gate,
    /// Groups of rows that have the same expert, and rows of a group, before they are repeated for each of the `k`.
    groups: usize,
    m: usize,
    /// Dimensions of an expert's result.
    dims: Vec<usize>,
    /// Factors of every expert's result.
    factors: Vec<ValueId>,
    /// Where rows are added, with the indices' axis.
    scatter: Option<(ValueId, Option<usize>)>,
    /// Values added to it.
    rest: Vec<ValueId>,
    /// Nodes of branches that compute what it reads.
    hoisted: Vec<Node>,
}

/// The part of one expert in a sum.
struct Term {
    gate: Gate,
    result: ValueId,
    factors: Vec<ValueId>,
    scatter: Option<(ValueId, Option<usize>)>,
    /// A branch that is only taken if this is true.
    condition: Option<ValueId>,
}

/// What is added in a sum.
enum Addend {
    Value { id: ValueId, condition: Option<ValueId> },
    Scatter { indices: ValueId, updates: ValueId, axis: Option<usize>, condition: Option<ValueId> },
}

fn find(graph: &Graph) -> Result<Vec<Mixture>> {
    let candidate = |node: &Node| match &node.op {
        Op::Binary(op) => op.kind == BinaryKind::Add,
        Op::Accumulate(op) => op.kind == BinaryKind::Add,
        Op::Reduce(op) => op.kind == ReduceKind::Sum,
        op => matches!(op, Op::Select(_) | Op::Control(Control::If)),
    };
    let mut found = Vec::new();
    if !graph.nodes.iter().any(candidate) {
        return Ok(found);
    }
    let view = View::new(graph)?;
    // Sums that are part of larger ones.
    let mut visited = HashSet::new();
    for (at, node) in graph.nodes.iter().enumerate().rev() {
        let &[y] = node.outputs.as_slice() else { continue };
        if !candidate(node) || visited.contains(&y) || graph.fact(y).dtype != DType::F32 {
            continue;
        }
        let mut parts = vec![y];
        let mixture = sum(&view, y, at, &mut parts)
            .or_else(|| selection(&view, y, at, &mut parts))
            .or_else(|| tiled(&view, node, at));
        for part in parts {
            reserve::add(&mut visited, part)?;
        }
        reserve::extend(&mut found, mixture)?;
    }
    Ok(found)
}

/// A sum of experts' results, perhaps of other values too.
fn sum(view: &View<'_>, y: ValueId, at: usize, parts: &mut Vec<ValueId>) -> Option<Mixture> {
    let mut addends = Vec::new();
    let mut open = vec![y];
    while let Some(id) = open.pop() {
        let inner = id == y || view.has_one_reader(id) && view.dims(id) == view.dims(y);
        let grown = if inner { add(view, id, &mut addends) } else { None };
        match grown {
            Some(more) => {
                reserve::push(parts, id).ok()?;
                reserve::extend(&mut open, more).ok()?;
            }
            None => reserve::push(&mut addends, Addend::Value { id, condition: None }).ok()?,
        }
    }
    let mut terms: Vec<Term> = Vec::new();
    let mut rest = Vec::new();
    for addend in addends {
        let found = term(view, &addend, view.dims(y));
        match (found, addend) {
            (Some(found), _) if terms.first().is_none_or(|first| is_alike(view, first, &found)) => {
                reserve::push(&mut terms, found).ok()?;
            }
            (_, Addend::Value { id, condition: None }) => reserve::push(&mut rest, id).ok()?,
            _ => return None,
        }
    }
    let mixture = assembled(view, at, terms)?;
    rest.retain(|&id| !view.is_zero(id));
    let known = rest.iter().all(|&id| view.is_known_at(id, at));
    known.then_some(Mixture { rest, ..mixture })
}

/// Operands of a sum; what a node adds that is no value goes to `addends`.
fn add(view: &View<'_>, id: ValueId, addends: &mut Vec<Addend>) -> Option<Vec<ValueId>> {
    if let Some([a, b]) = view.operands(id, BinaryKind::Add) {
        return (view.dims(a) == view.dims(id) && view.dims(b) == view.dims(id)).then(|| vec![a, b]);
    }
    let node = view.writer(id)?;
    match (&node.op, node.inputs.as_slice()) {
        (Op::Accumulate(Accumulate { axis, kind: BinaryKind::Add }), &[x, indices, updates]) => {
            addends.push(Addend::Scatter { indices, updates, axis: *axis, condition: None });
            Some(vec![x])
        }
        // The sum with and without a term.
        (Op::Control(Control::If), &[condition]) => {
            let [then, otherwise] = node.blocks.as_slice() else { return None };
            let (&[with], &[without]) = (then.results.as_slice(), otherwise.results.as_slice()) else { return None };
            let condition = Some(condition);
            if let Some([a, b]) = view.operands(with, BinaryKind::Add) {
                let id = if a == without { b } else { a };
                return (a == without || b == without).then(|| {
                    addends.push(Addend::Value { id, condition });
                    vec![without]
                });
            }
            let inner = view.writer(with)?;
            match (&inner.op, inner.inputs.as_slice()) {
                (Op::Accumulate(Accumulate { axis, kind: BinaryKind::Add }), &[x, indices, updates])
                    if x == without =>
                {
                    addends.push(Addend::Scatter { indices, updates, axis: *axis, condition });
                    Some(vec![without])
                }
                _ if view.is_zero(without) => {
                    addends.push(Addend::Value { id: with, condition });
                    Some(Vec::new())
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// An addend as the part of an expert: its result times a gate and other factors.
fn term(view: &View<'_>, addend: &Addend, dims: &[usize]) -> Option<Term> {
    let (id, condition, scatter) = match *addend {
        Addend::Value { id, condition } => (id, condition, None),
        Addend::Scatter { indices, updates, axis, condition } => (updates, condition, Some((indices, axis))),
    };
    if scatter.is_none() && view.dims(id) != dims {
        return None;
    }
    let term = Term { scatter, condition, ..gated(view, id, None)? };
    let Gate { expert, selector, .. } = &term.gate;
    let taken = condition.is_none_or(|condition| is_any(view, condition, *expert, selector));
    taken.then_some(term)
}

/// A value as an expert's result times its gate, unless that is already known, and other factors.
fn gated(view: &View<'_>, mut id: ValueId, mut found: Option<Gate>) -> Option<Term> {
    let mut factors = Vec::new();
    for _ in 0..=FACTORS {
        let node = view.writer(id)?;
        if let (Op::Select(_), &[mask, x, zero]) = (&node.op, node.inputs.as_slice())
            && found.is_none()
            && view.is_zero(zero)
            && view.dims(x) == view.dims(id)
            && covers(view.dims(mask), view.dims(id))
            && let Some((selector, expert)) = chosen(view, mask)
        {
            found = Some(Gate { expert, selector, k: 1, shares: Shares::Whole });
            id = x;
            continue;
        }
        let Some([a, b]) = view.operands(id, BinaryKind::Mul) else { break };
        let whole = |x: ValueId| view.dims(x) == view.dims(id);
        let by_gate = |x: ValueId, factor: ValueId| {
            let factor = unexpanded(view, factor);
            let fits = found.is_none() && whole(x) && covers(view.dims(factor), view.dims(id));
            Some((x, if fits { gate(view, factor)? } else { return None }))
        };
        let by_rows = |x: ValueId, factor: ValueId| {
            let of_rows = whole(x) && view.dims(factor).last() == Some(&1) && view.constant(factor).is_none();
            of_rows.then_some((x, factor))
        };
        let gate_of = by_gate(a, b).or_else(|| by_gate(b, a));
        let factor_of = by_rows(a, b).or_else(|| by_rows(b, a));
        match (gate_of, factor_of) {
            (Some((x, gate)), _) => (id, found) = (x, Some(gate)),
            (None, Some((x, factor))) => {
                factors.push(factor);
                id = x;
            }
            (None, None) => break,
        }
    }
    Some(Term { gate: found?, result: id, factors, scatter: None, condition: None })
}

/// The value that this one repeats along its last axis.
fn unexpanded(view: &View<'_>, id: ValueId) -> ValueId {
    match view.writer(id) {
        Some(Node { op: Op::Expand(_), inputs, .. }) => match inputs.as_slice() {
            &[x] if view.dims(x).len() == view.dims(id).len() && view.dims(x).last() == Some(&1) => x,
            _ => id,
        },
        _ => id,
    }
}

/// Whether two terms are for different experts of the same mixture.
fn is_alike(view: &View<'_>, a: &Term, b: &Term) -> bool {
    let shares = match (a.gate.shares, b.gate.shares) {
        (Shares::Whole, Shares::Whole) => true,
        (Shares::Each(a), Shares::Each(b)) | (Shares::Matrix(a), Shares::Matrix(b)) => view.same(a, b),
        _ => false,
    };
    let scatter = match (a.scatter, b.scatter) {
        (None, None) => true,
        (Some((a, i)), Some((b, j))) => i == j && view.same(a, b),
        _ => false,
    };
    let factors = a.factors.len() == b.factors.len();
    shares
        && scatter
        && factors
        && a.gate.k == b.gate.k
        && a.gate.expert != b.gate.expert
        && a.condition.is_some() == b.condition.is_some()
        && view.dims(a.result) == view.dims(b.result)
        && a.gate.selector.is_same(view, &b.gate.selector)
        && a.factors.iter().zip(&b.factors).all(|(&a, &b)| view.same(a, b))
}

/// The mixture of these terms, if there is one for every expert.
fn assembled(view: &View<'_>, at: usize, mut terms: Vec<Term>) -> Option<Mixture> {
    if terms.len() < 2 {
        return None;
    }
    terms.sort_by_key(|term| term.gate.expert);
    if terms.iter().enumerate().any(|(number, term)| term.gate.expert != number) {
        return None;
    }
    let results = reserve::list(terms.iter().map(|term| term.result)).ok()?;
    let body = Walk::apart(view, &results)?;
    let Term { gate, result, factors, scatter, .. } = terms.swap_remove(0);
    let dims = view.dims(result).to_vec();
    let mixture = mixture(view, at, body, gate, dims, results.len())?;
    Mixture { factors, scatter, ..mixture }.with_hoisted(view)
}

fn mixture(view: &View<'_>, at: usize, body: Body, gate: Gate, dims: Vec<usize>, experts: usize) -> Option<Mixture> {
    let &width = dims.last()?;
    let rows = dims.iter().product::<usize>().checked_div(width)?;
    let groups = gate.selector.elements().checked_div(gate.k)?;
    let m = rows.checked_div(groups)?;
    let fits = groups * m == rows && gate.selector.elements() == groups * gate.k && rows > 0;
    let given = view.elements(body.rows).is_multiple_of(rows);
    // Part of a sum may be a mixture of fewer experts than there are numbers.
    let all = bound(view, gate.selector.value).is_none_or(|numbers| numbers <= experts);
    let supported = body.is_supported(view.graph, experts) && fits && given && all;
    supported.then(|| Mixture {
        at,
        body,
        gate,
        groups,
        m,
        dims,
        factors: Vec::new(),
        scatter: None,
        rest: Vec::new(),
        hoisted: Vec::new(),
    })
}

/// A choice between experts' results.
fn selection(view: &View<'_>, y: ValueId, at: usize, parts: &mut Vec<ValueId>) -> Option<Mixture> {
    let mut terms: Vec<Term> = Vec::new();
    let mut id = y;
    while id == y || view.has_one_reader(id) || view.position(id) == Some(at) {
        let Some(node) = view.writer(id) else { break };
        let (condition, result, next) = match (&node.op, node.inputs.as_slice(), node.blocks.as_slice()) {
            (Op::Select(_), &[condition, result, next], _) => (condition, result, next),
            (Op::Control(Control::If), &[condition], [then, otherwise]) => {
                let (&[result], &[next]) = (then.results.as_slice(), otherwise.results.as_slice()) else { break };
                (condition, result, next)
            }
            _ => break,
        };
        let Some((selector, expert)) = chosen(view, condition) else { break };
        if view.dims(result) != view.dims(y)
            || view.dims(next) != view.dims(y)
            || !covers(view.dims(condition), view.dims(y))
        {
            break;
        }
        let gate = Gate { expert, selector, k: 1, shares: Shares::Whole };
        let Some(term) = gated(view, result, Some(gate)) else { break };
        if terms.first().is_some_and(|first| !is_alike(view, first, &term)) {
            return None;
        }
        reserve::push(&mut terms, term).ok()?;
        reserve::push(parts, id).ok()?;
        id = next;
    }
    assembled(view, at, terms)
}

/// Whether a mask or a factor has one element for each group of rows, which are the first axes of `of`.
fn covers(mask: &[usize], of: &[usize]) -> bool {
    let Some(missing) = of.len().checked_sub(mask.len()) else { return false };
    let padded: Vec<usize> = std::iter::repeat_n(1, missing).chain(mask.iter().copied()).collect();
    let grouped = padded.iter().rposition(|&dim| dim != 1).map_or(0, |last| last + 1);
    padded[..grouped] == of[..grouped] && (grouped < of.len() || of.last() == Some(&1))
}

/// A sum over the first axis of all experts' results times their gates.
fn tiled(view: &View<'_>, node: &Node, at: usize) -> Option<Mixture> {
    let (Op::Reduce(Reduce { axes, kind: ReduceKind::Sum, .. }), &[x]) = (&node.op, node.inputs.as_slice()) else {
        return None;
    };
    if axes.as_slice() != [0] {
        return None;
    }
    let [a, b] = view.operands(x, BinaryKind::Mul)?;
    let of = |result: ValueId, gates: ValueId| {
        let gates = unexpanded(view, gates);
        let (&experts, dims) = view.dims(result).split_first()?;
        if view.dims(result) != view.dims(x) || !covers(view.dims(gates), view.dims(x)) {
            return None;
        }
        let gates = view.source(gates);
        // For a single token, the axes change places without a transposition.
        let single = view.dims(gates).last() == Some(&view.elements(gates));
        let matrix = if single { gates } else { turned(view, gates, 0)? };
        if view.dims(matrix).last() != Some(&experts) {
            return None;
        }
        let (selector, k) = support(view, matrix)?;
        let gate = Gate { expert: 0, selector, k, shares: Shares::Matrix(matrix) };
        let body = Walk::together(view, result)?;
        mixture(view, at, body, gate, dims.to_vec(), experts)?.with_hoisted(view)
    };
    of(a, b).or_else(|| of(b, a))
}

impl Mixture {
    /// The values that it reads.
    fn reads(&mut self) -> Vec<&mut ValueId> {
        let mut reads = vec![&mut self.body.rows, &mut self.gate.selector.value];
        reads.extend(&mut self.factors);
        reads.extend(self.scatter.as_mut().map(|(indices, _)| indices));
        match &mut self.gate.shares {
            Shares::Whole => {}
            Shares::Each(id) | Shares::Matrix(id) => reads.push(id),
        }
        reads
    }

    /// With the nodes of branches that it needs; `None` if some value is not known at its position.
    fn with_hoisted(mut self, view: &View<'_>) -> Option<Self> {
        let mut nodes = Vec::new();
        let at = self.at;
        for id in self.reads() {
            hoist(view, *id, at, &mut nodes)?;
        }
        self.hoisted = nodes;
        Some(self)
    }

    /// The nodes in the place of `node`.
    fn emit(mut self, graph: &mut Graph, node: &Node) -> Result<Vec<Node>> {
        let mut emit = Emit { graph, nodes: Vec::new(), name: format!("{}.experts", node.name) };
        let mut moved: HashMap<ValueId, ValueId> = HashMap::new();
        for inner in std::mem::take(&mut self.hoisted) {
            let inputs: Vec<ValueId> = inner.inputs.iter().map(|id| *moved.get(id).unwrap_or(id)).collect();
            let outer = emit.graph.make_node(inner.name, inner.op, &inputs)?;
            moved.extend(inner.outputs.iter().copied().zip(outer.outputs.iter().copied()));
            reserve::push(&mut emit.nodes, outer)?;
        }
        for id in self.reads() {
            if let Some(&outer) = moved.get(&*id) {
                *id = outer;
            }
        }
        let (groups, m, k) = (self.groups, self.m, self.gate.k);
        let numbers = numbers(&mut emit, &self.gate.selector)?;
        let width = emit.shape(self.body.rows).elements() / (groups * m);
        let mut rows = emit.reshape(self.body.rows, &[groups, m, width])?;
        if k > 1 {
            let shape = Shape::new(&[groups * k]).map_err(|e| e.at(&node.name))?;
            let of_group = (0..groups as i64).flat_map(|group| std::iter::repeat_n(group, k));
            let of_group = emit.constant(Tensor::collected(Fact::new(DType::I64, shape), of_group))?;
            rows = emit.add(Gather { axis: 0 }, &[rows, of_group])?;
        }
        let mut y = emit.run(&self.body, rows, numbers)?;
        let shares = match self.gate.shares {
            Shares::Whole => None,
            Shares::Each(id) => Some(id),
            Shares::Matrix(id) => {
                let experts = emit.shape(id).last().copied().unwrap_or(1);
                let matrix = emit.reshape(id, &[groups, experts])?;
                let numbers = emit.reshape(numbers, &[groups, k])?;
                Some(emit.add(GatherElements { axis: 1 }, &[matrix, numbers])?)
            }
        };
        if let Some(shares) = shares {
            let shares = emit.reshape(shares, &[groups * k, 1, 1])?;
            y = emit.add(Binary::new(BinaryKind::Mul), &[y, shares])?;
        }
        if k > 1 {
            let width = emit.shape(y)[2];
            y = emit.reshape(y, &[groups, k, m * width])?;
            y = emit.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: false }, &[y])?;
        }
        y = emit.reshape(y, &self.dims)?;
        for &factor in &self.factors {
            y = emit.add(Binary::new(BinaryKind::Mul), &[y, factor])?;
        }
        let shape = emit.shape(node.outputs[0]);
        let mut rest = self.rest.iter().copied();
        if let Some((indices, axis)) = self.scatter {
            let mut base = match rest.next() {
                Some(base) => base,
                None => emit.constant(Tensor::try_zeros(Fact::new(DType::F32, shape.clone())))?,
            };
            for more in rest.by_ref() {
                base = emit.add(Binary::new(BinaryKind::Add), &[base, more])?;
            }
            y = emit.add(Accumulate { axis, kind: BinaryKind::Add }, &[base, indices, y])?;
        }
        for more in rest {
            y = emit.reshape(y, &shape)?;
            y = emit.add(Binary::new(BinaryKind::Add), &[y, more])?;
        }
        let mut last = emit.graph.make_node(node.name.clone(), Reshape { shape }, &[y])?;
        last.outputs.clone_from(&node.outputs);
        reserve::push(&mut emit.nodes, last)?;
        Ok(emit.nodes)
    }
}

/// Appends the nodes of branches that compute a value to those before, so that they can run outside.
fn hoist(view: &View<'_>, id: ValueId, at: usize, nodes: &mut Vec<Node>) -> Option<()> {
    if view.is_known_at(id, at) || nodes.iter().any(|node| node.outputs.contains(&id)) {
        return Some(());
    }
    let node = view.writer(id).filter(|node| view.is_in_branch(id) && equal(&node.op, &node.op))?;
    if nodes.len() >= HOISTED {
        return None;
    }
    node.inputs.iter().try_for_each(|&id| hoist(view, id, at, nodes))?;
    reserve::push(nodes, node.copy().ok()?).ok()?;
    Some(())
}

/// The numbers of a selector, in its order.
fn numbers(emit: &mut Emit<'_>, selector: &Selector) -> Result<ValueId> {
    let mut numbers = selector.value;
    if !selector.order.is_sorted() {
        numbers = emit.reshape(numbers, &selector.dims)?;
        if let Some(transpose) = Transpose::new(&selector.order) {
            numbers = emit.add(transpose, &[numbers])?;
        }
    }
    emit.reshape(numbers, &[selector.elements()])
}

//! Positions that a mask selects: the results of NonZero over computed values, and what follows from them.
//!
//! NonZero finds as many positions as there are nonzero elements, and no plan can place such a result. But a mixture of
//! experts only gathers the rows at these positions, computes each of them, and scatters the results. All positions can
//! be computed in the same way, if rows that are not selected change nothing in the end:
//!
//! ```text
//! NonZero(mask) -> Gather(x, .) -> f -> ScatterAdd(y, ., .)
//!     =>    all -> Gather(x, .) -> f -> Where(mask, ., 0) -> ScatterAdd(y, ., .)
//! ```
//!
//! So a value with an axis of selected positions is imported with all of them, and its axis is followed through the
//! operators up to the scatter. Their number is followed too: shapes may be made of it. An operator that combines
//! positions, counts them or returns them needs the real ones: then shapes depend on data.

use std::collections::HashMap;
use std::rc::Rc;

use super::build::{Build, Halt, Imported};
use super::call::Call;
use crate::error::OpError;
use crate::graph::ValueId;
use crate::operator::Semantics;
use crate::operator::axes::{How, Link};
use crate::ops::Op;
use crate::ops::accumulate::Accumulate;
use crate::ops::binary::BinaryKind;
use crate::ops::cast::Cast;
use crate::ops::gather_elements::GatherElements;
use crate::ops::indexed::GatherNd;
use crate::ops::reshape::Reshape;
use crate::ops::scatter_elements::ScatterElements;
use crate::ops::select::Select;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Most positions of a mask.
pub(super) const MAX_POSITIONS: usize = 1 << 20;

/// Operators that compute shapes from a number of positions.
#[rustfmt::skip]
const OF_COUNTS: [&str; 16] = [
    "Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity", "Mul", "Reshape", "Slice",
    "Squeeze", "Sub", "Unsqueeze", "Where",
];

/// The positions that a value has an axis for.
#[derive(Clone)]
pub(super) struct Selected {
    /// The axis; `None` for a mask of one element, as axes of length one cannot be told apart.
    axis: Option<usize>,
    /// A bool for each position.
    mask: ValueId,
    /// For indices: whether they are different ones at all positions.
    distinct: bool,
    /// The mask has one axis.
    flat: bool,
    reason: Rc<str>,
}

/// A constant that depends on the number of positions.
#[derive(Clone)]
struct Counted {
    /// Its value for one position more.
    more: Tensor,
    of: Selected,
}

/// Values with selected positions, and constants that depend on their number.
#[derive(Default)]
pub(super) struct Selections {
    selected: HashMap<ValueId, Selected>,
    counted: HashMap<ValueId, Counted>,
}

impl Selections {
    pub fn is_selected(&self, id: ValueId) -> bool {
        self.selected.contains_key(&id)
    }

    /// Whether any value has selected positions.
    pub fn any(&self) -> bool {
        !self.selected.is_empty()
    }

    fn reason(&self, id: ValueId) -> Option<&Rc<str>> {
        let counted = || self.counted.get(&id).map(|counted| &counted.of);
        self.selected.get(&id).or_else(counted).map(|selected| &selected.reason)
    }

    /// Refuses values that depend on selected positions.
    pub fn refuse(&self, ids: &[ValueId]) -> Result<(), Halt> {
        match ids.iter().find_map(|&id| self.reason(id)) {
            Some(reason) => Err(Halt::Dynamic(reason.to_string())),
            None => Ok(()),
        }
    }

    /// Refuses an operator that does not compute shapes, for operands that depend on the number of positions.
    pub fn refuse_counts(&self, op_type: &str, inputs: &[Option<ValueId>]) -> Result<(), Halt> {
        for (at, id) in inputs.iter().enumerate() {
            let Some(Counted { of, .. }) = id.and_then(|id| self.counted.get(&id)) else { continue };
            let data_only = matches!(op_type, "Gather" | "Slice" | "Squeeze" | "Unsqueeze");
            if !OF_COUNTS.contains(&op_type) || data_only && at > 0 {
                return Err(Halt::Dynamic(of.reason.to_string()));
            }
        }
        Ok(())
    }
}

/// The indices of nonzero elements, one row per axis.
pub(super) fn positions(cx: &mut Call<'_, '_>, x: ValueId) -> Imported {
    let dims = cx.shape(x).to_vec();
    let count: usize = dims.iter().product();
    let reason =
        format!("'{}' ({}): how many elements it finds is not known before the run", cx.name(), cx.node.op_type);
    cx.build.selections.refuse(&[x])?;
    if count == 0 || count > MAX_POSITIONS || dims.is_empty() {
        return Err(Halt::Dynamic(reason));
    }
    let mask = cx.cast(x, DType::Bool)?;
    let mask = cx.reshape(mask, &[count])?;
    let mut behind = count;
    let mut indices = cx.reserve(dims.len() * count)?;
    for &dim in &dims {
        behind /= dim;
        indices.extend((0..count).map(|at| (at / behind % dim) as i32));
    }
    let all = cx.elements(&[dims.len(), count], &indices)?;
    // A node, since importers would compute with a constant.
    let name = cx.name().to_owned();
    let node = cx.build.graph.add_node(format!("{name}.positions"), Cast { to: DType::I64 }, &[all])?;
    let selected =
        Selected { axis: (count > 1).then_some(1), mask, distinct: true, flat: dims.len() == 1, reason: reason.into() };
    reserve::insert(&mut cx.build.selections.selected, node[0], selected)?;
    Ok(node)
}

/// Records that the dimensions of a value, or their product, depend on a number of positions.
pub(super) fn count(cx: &mut Call<'_, '_>, x: ValueId, result: ValueId, of: impl Fn(&[i64]) -> Vec<i64>) -> Imported {
    if let Some(selected) = cx.build.selections.selected.get(&x).cloned() {
        let grown = |(axis, &dim): (usize, &usize)| {
            let grows = selected.axis.map_or(dim == 1, |selected| selected == axis);
            dim as i64 + i64::from(grows)
        };
        let dims: Vec<i64> = cx.shape(x).iter().enumerate().map(grown).collect();
        let fact = cx.fact(result).clone();
        let more = Tensor::collected(fact, of(&dims)).map_err(|e| cx.at(e))?;
        reserve::insert(&mut cx.build.selections.counted, result, Counted { more, of: selected })?;
    }
    Ok(vec![result])
}

impl Build {
    /// Adds a node that reads selected positions.
    pub(super) fn add_selected(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Imported {
        let found: Vec<(usize, Selected)> = inputs
            .iter()
            .enumerate()
            .filter_map(|(at, id)| Some((at, self.selections.selected.get(id)?.clone())))
            .collect();
        let Some((_, first)) = found.first().cloned() else { return Err(Halt::Foreign) };
        let dynamic = || Halt::Dynamic(first.reason.to_string());
        let counted = inputs.iter().any(|id| self.selections.counted.contains_key(id));
        if counted || found.iter().any(|(_, other)| other.mask != first.mask) {
            return Err(dynamic());
        }
        if matches!(op, Op::Accumulate(_) | Op::ScatterElements(_) | Op::ScatterNd(_)) {
            let (&[x, indices, updates], [(1, of_indices), (2, of_updates)]) = (inputs, found.as_slice()) else {
                return Err(dynamic());
            };
            let rows = [of_indices, of_updates].map(|of| of.axis.unwrap_or(0) == 0) == [true; 2];
            if rows && of_indices.distinct && of_indices.flat && self.are_all_rows(&op, [x, indices, updates]) {
                let mask = self.mask(name, updates, of_updates)?;
                return Ok(vec![self.all(name, Select, &[mask, updates, x])?]);
            }
            let updates = self.kept(name, &op, [x, indices, updates], [of_indices, of_updates])?;
            return Ok(vec![self.all(name, op, &[x, indices, updates])?]);
        }
        let facts = self.graph.facts(inputs);
        let axis = followed(&op, &facts, &found).ok_or_else(dynamic)?;
        let moves = matches!(op, Op::Reshape(_) | Op::Transpose(_) | Op::Cast(_) | Op::Expand(_));
        let distinct = first.distinct && (moves || matches!(op, Op::Slice(_)) && first.flat);
        let node = self.node(name, op, inputs)?;
        let outputs = node.outputs.clone();
        reserve::push(&mut self.graph.nodes, node)?;
        let &[output] = outputs.as_slice() else { return Err(dynamic()) };
        reserve::insert(&mut self.selections.selected, output, Selected { axis, distinct, ..first })?;
        Ok(outputs)
    }

    /// Updates of a scatter that change nothing where a position is not selected.
    fn kept(
        &mut self,
        name: &str,
        op: &Op,
        [x, indices, updates]: [ValueId; 3],
        [of_indices, of_updates]: [&Selected; 2],
    ) -> Result<ValueId, Halt> {
        let dynamic = || Halt::Dynamic(of_updates.reason.to_string());
        if of_indices.axis != of_updates.axis {
            return Err(dynamic());
        }
        let old = match op {
            Op::Accumulate(Accumulate { kind: BinaryKind::Add, .. }) => {
                let zero = Tensor::try_zeros(Fact::new(self.graph.fact(updates).dtype, Shape::default()));
                let zero = zero.map_err(|e| self.at(name, e))?;
                self.graph.add_constant(format!("{name}.zero"), zero)?
            }
            Op::ScatterNd(_) if of_indices.distinct => self.all(name, GatherNd { batch_dims: 0 }, &[x, indices])?,
            Op::ScatterElements(ScatterElements { axis }) if of_indices.distinct => {
                self.all(name, GatherElements { axis: *axis }, &[x, indices])?
            }
            _ => return Err(dynamic()),
        };
        let mask = self.mask(name, updates, of_updates)?;
        self.all(name, Select, &[mask, updates, old])
    }

    /// Whether a scatter that replaces rows has an update for each row, in order.
    fn are_all_rows(&self, op: &Op, [x, indices, updates]: [ValueId; 3]) -> bool {
        let [x, indices, updates] = [x, indices, updates].map(|id| &self.graph.fact(id).shape);
        matches!(op, Op::ScatterNd(_)) && indices.rank() == 2 && indices.last() == Some(&1) && x == updates
    }

    /// The mask of a value, for a product with it.
    fn mask(&mut self, name: &str, of: ValueId, selected: &Selected) -> Result<ValueId, Halt> {
        let shape = &self.graph.fact(of).shape;
        let mut dims = vec![1; shape.rank()];
        if let Some(axis) = selected.axis {
            dims[axis] = shape[axis];
        }
        let shape = Shape::new(&dims).map_err(|e| self.at(name, e))?;
        Ok(self.add(name, Reshape { shape }.into(), &[selected.mask])?[0])
    }

    /// Adds a node that computes all positions, selected or not.
    fn all(&mut self, name: &str, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, Halt> {
        let node = self.node(name, op.into(), inputs)?;
        let output = node.outputs[0];
        reserve::push(&mut self.graph.nodes, node)?;
        Ok(output)
    }

    /// Computes results for one position more, if operands depend on the number of positions.
    pub(super) fn count_more(&mut self, op: &Op, inputs: &[ValueId], outputs: &[ValueId]) -> Result<(), OpError> {
        let counted = &self.selections.counted;
        let Some(of) = inputs.iter().find_map(|id| counted.get(id)).map(|counted| counted.of.clone()) else {
            return Ok(());
        };
        let of_more = |id: &ValueId| match counted.get(id) {
            Some(counted) => Some(&counted.more),
            None => self.graph.constant(*id).map(AsRef::as_ref),
        };
        let operands: Option<Vec<&Tensor>> = inputs.iter().map(of_more).collect();
        let more = op.evaluate(&operands.ok_or(OpError::Operand(0))?)?;
        for (&id, more) in outputs.iter().zip(more) {
            let now: Option<&Tensor> = self.graph.constant(id).map(AsRef::as_ref);
            if now.is_none_or(|now| now.fact() != more.fact() || now.bytes() != more.bytes()) {
                reserve::insert(&mut self.selections.counted, id, Counted { more, of: of.clone() })?;
            }
        }
        Ok(())
    }

    /// Finds the axis of positions in a result whose shape is an operand that depends on their number.
    pub(super) fn follow_shape(&mut self, shape: ValueId, results: &[ValueId]) -> Result<(), Halt> {
        let Some(Counted { more, of }) = self.selections.counted.get(&shape).cloned() else { return Ok(()) };
        let dynamic = || Halt::Dynamic(of.reason.to_string());
        let now = self.graph.constant(shape).and_then(|held| held.peek::<i64>());
        let (Some(now), Some(then), &[result]) = (now, more.peek::<i64>(), results) else { return Err(dynamic()) };
        if self.selections.is_selected(result) {
            return Ok(());
        }
        let grows: Vec<usize> =
            now.iter().zip(then.iter()).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect();
        let first = self.graph.fact(result).shape.rank().checked_sub(now.len()).ok_or_else(dynamic)?;
        let axis = match (of.axis, grows.as_slice()) {
            (None, _) => None,
            (Some(_), &[axis]) => Some(first + axis),
            _ => return Err(dynamic()),
        };
        reserve::insert(&mut self.selections.selected, result, Selected { axis, distinct: false, ..of })?;
        Ok(())
    }
}

/// The axis of positions in the only result of an operator that computes each of them by itself: `Some(None)` if there
/// is one position, `None` for other operators.
fn followed(op: &Op, facts: &[&Fact], found: &[(usize, Selected)]) -> Option<Option<usize>> {
    let axes = op.axes(facts);
    let mut result = None;
    for (operand, selected) in found {
        let rank = |at: usize| facts.get(at).map_or(0, |fact| fact.shape.rank());
        let to = match (op, selected.axis) {
            (_, None) => return of_one(op, facts).then_some(None),
            (Op::Gather(gather), Some(axis)) if *operand == 1 => gather.axis + axis,
            (Op::GatherNd(GatherNd { batch_dims: 0 }), Some(axis)) if *operand == 1 && axis + 1 < rank(1) => axis,
            (_, Some(axis)) => {
                let follows = |link: &&Link| link.operand == *operand && link.from == axis && link.how == How::Same;
                axes.links.iter().find(follows)?.to
            }
        };
        if result.is_some_and(|known| known != to) {
            return None;
        }
        result = Some(to);
    }
    result.map(Some)
}

/// Whether an operator has no result for no positions, where there is at most one.
fn of_one(op: &Op, facts: &[&Fact]) -> bool {
    match op {
        Op::Reduce(reduce) => reduce.axes.iter().all(|&axis| facts.first().is_some_and(|x| x.shape[axis] > 1)),
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Concat(_) | Op::Expand(_) => true,
        Op::Binary(_) | Op::Unary(_) | Op::Activate(_) | Op::Cast(_) | Op::Compare(_) | Op::Select(_) => true,
        Op::MatMul(_) | Op::Gather(_) | Op::GatherNd(_) | Op::GatherElements(_) | Op::LayerNorm(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use skipstone_onnx::write::{FLOAT, INT64, Message, f32s, graph, i64s, int, model, named, node, text, value};

    use crate::{Model, Options, Tensor};

    /// `given` selects rows of x, `[3, 2]`: their indices are `rows`, `[selected, 1]`, and the rows `taken`.
    fn selecting(then: &[Message], output: &str) -> Vec<u8> {
        let nodes = [
            node("Greater", &["given", "zero"], &["mask"], &[]),
            node("NonZero", &["mask"], &["found"], &[]),
            node("Transpose", &["found"], &["rows"], &[]),
            node("GatherND", &["x", "rows"], &["taken"], &[]),
        ];
        let held = [
            f32s("zero", &[], &[0.0]),
            f32s("zeros", &[3, 2], &[0.0; 6]),
            i64s("first", &[], &[0]),
            i64s("first axis", &[1], &[0]),
        ];
        let inputs = [value("x", FLOAT, &[3, 2]), value("given", FLOAT, &[3]), value("count", INT64, &[])];
        model(&graph(&[&nodes[..], then].concat(), &held, &inputs, &[named(output)]))
    }

    #[test]
    fn rows_that_are_not_selected_stay_as_they_are() {
        let square = node("Mul", &["taken", "taken"], &["squares"], &[]);
        let add = [text("reduction", "add")];
        let added = node("ScatterND", &["x", "rows", "squares"], &["y"], &add);
        let replaced = node("ScatterND", &["x", "rows", "squares"], &["y"], &[]);
        let expanded = [
            node("Shape", &["squares"], &["shape"], &[]),
            node("Expand", &["rows", "shape"], &["wide"], &[]),
            node("ScatterElements", &["x", "wide", "squares"], &["y"], &[int("axis", 0), text("reduction", "add")]),
        ];
        let x = [1.0, -2.0, 3.0, 0.5, f32::INFINITY, 4.0];
        for (then, adds) in [(vec![added], true), (vec![replaced], false), (expanded.to_vec(), true)] {
            let model =
                Model::from_bytes(&selecting(&[&[square.clone()][..], &then].concat(), "y"), &Options::default());
            let model = model.unwrap();
            assert_eq!(model.fallback_reason(), None);
            for given in [[1.0f32, 0.0, -1.0], [0.0; 3], [1.0, 2.0, -3.0], [1.0; 3]] {
                let (x_given, given_rows) = (Tensor::from_slice(&[3, 2], &x), Tensor::from_slice(&[3], &given));
                let mut session = model.session().unwrap();
                let count = Tensor::scalar(0i64);
                session.run(&[x_given.unwrap().view(), given_rows.unwrap().view(), count.view()]).unwrap();
                let want: Vec<f32> = (0..6)
                    .map(|i| match (given[i / 2] > 0.0, adds) {
                        (true, true) => x[i] + x[i] * x[i],
                        (true, false) => x[i] * x[i],
                        (false, _) => x[i],
                    })
                    .collect();
                assert_eq!(session.output(0).unwrap().elements::<f32>().unwrap(), want, "{given:?}");
            }
        }
    }

    /// The output of a model for a mask, with its shape.
    fn output(model: &Model, given: &[f32], count: i64) -> (Vec<usize>, Vec<f64>) {
        let x = Tensor::from_slice(&[3, 2], &[1.0, -2.0, 3.0, 0.5, 4.0, 8.0f32]).unwrap();
        let (given, count) = (Tensor::from_slice(&[3], given).unwrap(), Tensor::scalar(count));
        let mut session = model.session().unwrap();
        session.run(&[x.view(), given.view(), count.view()]).unwrap();
        let y = session.output(0).unwrap();
        let numbers = match y.elements::<f32>() {
            Some(floats) => floats.iter().map(|&it| f64::from(it)).collect(),
            None => y.elements::<i64>().unwrap().iter().map(|&it| it as f64).collect(),
        };
        (y.fact().shape.to_vec(), numbers)
    }

    #[test]
    fn what_combines_counts_or_returns_positions_gets_those_that_there_are() {
        type Want = (&'static [usize], &'static [f64]);
        let cases: [(&[Message], &str, [Want; 2]); 5] = [
            (&[], "rows", [(&[2, 1], &[0.0, 2.0]), (&[0, 1], &[])]),
            (
                &[node("ReduceSum", &["taken", "first axis"], &["y"], &[])],
                "y",
                [(&[1, 2], &[5.0, 6.0]), (&[1, 2], &[0.0, 0.0])],
            ),
            (&[node("Shape", &["taken"], &["y"], &[])], "y", [(&[2], &[2.0, 2.0]), (&[2], &[0.0, 2.0])]),
            (
                &[node("Size", &["taken"], &["n"], &[]), node("Add", &["n", "count"], &["y"], &[])],
                "y",
                [(&[], &[14.0]), (&[], &[10.0])],
            ),
            (
                &[node("CumSum", &["taken", "first"], &["y"], &[])],
                "y",
                [(&[2, 2], &[1.0, -2.0, 5.0, 6.0]), (&[0, 2], &[])],
            ),
        ];
        for (then, name, wanted) in cases {
            let model = Model::from_bytes(&selecting(then, name), &Options::default()).unwrap();
            assert_eq!(model.fallback_reason(), None, "{name}");
            for (given, (shape, numbers)) in [[1.0, 0.0, 2.0], [0.0; 3]].iter().zip(wanted) {
                assert_eq!(output(&model, given, 10), (shape.to_vec(), numbers.to_vec()), "{then:?}");
            }
        }
    }

    #[test]
    fn rows_scattered_to_the_positions_of_another_mask_have_shapes_that_depend_on_data() {
        let then = [
            node("NonZero", &["given"], &["other"], &[]),
            node("Transpose", &["other"], &["indices"], &[]),
            node("ScatterND", &["zeros", "indices", "taken"], &["y"], &[]),
        ];
        let options = Options::default();
        let imported = crate::onnx::imported(&selecting(&then, "y"), &options.limits.file, &options.shapes);
        let error = imported.err().unwrap();
        assert!(error.to_string().contains("(ScatterND): the length of input"), "{error}");
    }
}

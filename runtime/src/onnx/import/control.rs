//! If, Loop and Scan: nodes that own blocks, whose bodies are imported as blocks of the graph; and SequenceMap, whose
//! body is imported for each element of a sequence.
//!
//! In a block every shape is known and the same in all iterations. A loop for which this does not hold, because a
//! carried value grows or a shape follows from the iteration, is unrolled if the number of iterations is known: every
//! iteration's number is then a constant, and so is what follows from it.

use std::collections::HashMap;

use skipstone_onnx::captures;
use skipstone_onnx::proto::{Graph as GraphProto, Node, Type};
use skipstone_reserve::NoMemory;

use super::build::{Halt, Imported};
use super::{Importer, Scope, call, resolved};
use crate::error::{Error, OpError};
use crate::graph::{Block, MAX_DEPTH, ValueId};
use crate::ops::concat::Concat;
use crate::ops::control::{Along, Control, Loop};
use crate::ops::refuse::Refuse;
use crate::ops::reshape::Reshape;
use crate::ops::slice::Slice;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Most iterations of an unrolled loop.
const MAX_UNROLLED: usize = 1 << 10;

/// Most nodes of all unrolled loops together.
pub(super) const MAX_REPEATED: usize = 1 << 14;

/// Most bytes of constants that the iterations of all unrolled loops add.
const MAX_REPEATED_BYTES: usize = 1 << 28;

/// Largest iteration count that is stored as a limit: for larger ones a condition ends the loop first.
const MAX_COUNTED: usize = 1 << 31;

/// Whether an operator has subgraphs and is imported here.
pub(super) fn is_control_flow(domain: &str, op_type: &str) -> bool {
    domain.is_empty() && matches!(op_type, "If" | "Loop" | "Scan" | "SequenceMap")
}

/// A Loop or Scan of the file.
struct FileLoop<'m> {
    node: &'m Node<'m>,
    body: &'m GraphProto<'m>,
    /// Whether the body has a Loop's signature: an iteration's number and a condition.
    numbered: bool,
    op: Loop,
    /// For each result assembled from slices: the axis of the slices, perhaps counted from the last, and whether they
    /// start at its end.
    collected: Vec<(i64, bool)>,
    /// Operands in the order of the operator.
    given: Vec<ValueId>,
}

impl FileLoop<'_> {
    fn dynamic(&self, what: &str) -> Halt {
        Halt::Dynamic(format!("'{}' ({}): {what}", call::name(self.node), self.node.op_type))
    }

    /// Facts of an iteration's number and condition: one element, with the rank that the body declares.
    fn numbers(&self) -> [Fact; 2] {
        let declared = |index: usize| match self.body.inputs.get(index).and_then(|info| info.kind.as_ref()) {
            Some(Type::Tensor(_, Some(dims))) if self.numbered && dims.len() == 1 => Shape::new(&[1]),
            _ => Ok(Shape::default()),
        };
        [(0, DType::I64), (1, DType::Bool)].map(|(at, dtype)| Fact::new(dtype, declared(at).unwrap_or_default()))
    }
}

impl<'m> Importer<'m> {
    /// Imports a node that [`takes`] accepts.
    pub(super) fn control(&mut self, node: &'m Node<'m>, inputs: &[Option<ValueId>], opset: i64) -> Imported {
        for &id in inputs.iter().flatten().filter(|&&id| self.build.sequence(id).is_none()) {
            self.build.readable(id, call::name(node))?;
        }
        match node.op_type {
            "If" => self.branches(node, inputs),
            "SequenceMap" => self.mapped(node, inputs),
            "Loop" => {
                let source = self.loop_source(node, inputs)?;
                self.iterated(&source)
            }
            _ if opset < 9 => self.scan_of_batches(node, inputs),
            _ => {
                let source = self.scan_source(node, inputs)?;
                self.iterated(&source)
            }
        }
    }

    /// Imports the body of a SequenceMap in place of the node, once for each element of its sequences.
    fn mapped(&mut self, node: &'m Node<'m>, inputs: &[Option<ValueId>]) -> Imported {
        let dynamic = |what| Halt::Dynamic(format!("'{}' (SequenceMap): {what}", call::name(node)));
        let body = self.subgraph(node, "body")?;
        let ids = reserve::results(inputs.iter().map(|&id| id.ok_or_else(|| dynamic("an operand is left out"))))?;
        let sequences = reserve::list(ids.iter().map(|&id| self.build.sequence(id).map(<[ValueId]>::to_vec)))?;
        let Some(Some(first)) = sequences.first() else {
            return Err(dynamic("which tensors the sequence holds is not known before the run"));
        };
        let count = first.len();
        if sequences.iter().flatten().any(|parts| parts.len() != count) {
            return Err(dynamic("its sequences have different lengths"));
        }
        let mut results: Vec<Vec<ValueId>> = reserve::copies(Vec::new(), node.outputs.len())?;
        self.enter()?;
        self.initializers(body)?;
        self.unrolling += 1;
        for at in 0..count {
            let part = |(sequence, &id): (&Option<Vec<ValueId>>, &ValueId)| sequence.as_ref().map_or(id, |it| it[at]);
            let given = reserve::list(sequences.iter().zip(&ids).map(part))?;
            let made = self.pass(body, &given)?;
            results.iter_mut().zip(made).try_for_each(|(parts, id)| reserve::push(parts, id))?;
        }
        self.unrolling -= 1;
        self.scopes.pop();
        let mut handles = reserve::empty(results.len())?;
        for parts in results {
            handles.extend(self.call(node, inputs)?.sequence_of(parts)?);
        }
        Ok(handles)
    }

    /// If the condition is constant, imports its branch in place of the node; otherwise both branches as blocks.
    fn branches(&mut self, node: &'m Node<'m>, inputs: &[Option<ValueId>]) -> Imported {
        let name = call::name(node);
        let Some(&Some(condition)) = inputs.first() else { return Err(Halt::Foreign) };
        if let Some(known) = self.build.graph.constant(condition) {
            let taken = known.bytes().first().is_some_and(|&byte| byte != 0);
            let taken = self.subgraph(node, if taken { "then_branch" } else { "else_branch" })?;
            return self.body(taken, &[]);
        }
        let (then, otherwise) = (self.subgraph(node, "then_branch")?, self.subgraph(node, "else_branch")?);
        let (then, otherwise) = match (self.block(node, then, &[], &[]), self.block(node, otherwise, &[], &[])) {
            (Ok(then), Err(Halt::Error(error @ Error::Node { .. }))) => {
                let otherwise = self.refusal(node, condition, &then.results, error)?;
                (then, otherwise)
            }
            (Err(Halt::Error(error @ Error::Node { .. })), Ok(otherwise)) => {
                (self.refusal(node, condition, &otherwise.results, error)?, otherwise)
            }
            (then, otherwise) => (then?, otherwise?),
        };
        for (&a, &b) in then.results.iter().zip(&otherwise.results) {
            self.same(node, [a, b], "one branch returns", "the other")?;
        }
        let halves = reserve::list(then.results.iter().map(|&id| self.build.half(id)))?;
        let results = self.build.add_control(name, Control::If, &[condition], vec![then, otherwise])?;
        self.declare(&results, &halves)?;
        Ok(results)
    }

    /// A branch that refuses to run, since its nodes are inconsistent with the given shapes; its results have the facts
    /// of the other branch's.
    fn refusal(
        &mut self,
        node: &'m Node<'m>,
        condition: ValueId,
        like: &[ValueId],
        error: Error,
    ) -> Result<Block, Halt> {
        // Shapes have no part in that.
        if let Error::Node { source: OpError::NoMemory(_), .. } = error {
            return Err(error.into());
        }
        let results = reserve::list(like.iter().map(|&id| self.build.graph.fact(id).clone()))?;
        let halves = reserve::list(like.iter().map(|&id| self.build.half(id)))?;
        let reason = format!("this branch does not match the shapes of the inputs: {error}");
        self.begin_block(node)?;
        let made = self.build.add(call::name(node), Refuse { reason, results }.into(), &[condition]);
        let block = self.end_block(made.as_deref().unwrap_or(&[]))?;
        self.declare(&made?, &halves)?;
        Ok(block)
    }

    fn loop_source(&self, node: &'m Node<'m>, inputs: &[Option<ValueId>]) -> Result<FileLoop<'m>, Halt> {
        let body = self.subgraph(node, "body")?;
        let mut op = Loop::default();
        let mut given = Vec::new();
        if let Some(limit) = inputs.first().copied().flatten() {
            match self.build.graph.constant(limit).and_then(|tensor| tensor.elements::<i64>()) {
                Some(&[limit]) => op.iterations = usize::try_from(limit.max(0)).ok(),
                _ => {
                    op.limited = true;
                    given.push(limit);
                }
            }
        }
        if let Some(begins) = inputs.get(1).copied().flatten() {
            match self.build.graph.constant(begins).map(|tensor| tensor.bytes()) {
                Some([0]) => {
                    op = Loop { iterations: Some(0), ..Loop::default() };
                    given.clear();
                }
                Some([_]) => {}
                _ => {
                    op.conditional = true;
                    given.push(begins);
                }
            }
        }
        let carried = reserve::all(inputs.iter().skip(2).copied());
        let carried = carried.ok_or_else(|| self.value_error(node, "a carried value of the loop is missing"))?;
        op.carried = carried.len();
        reserve::extend(&mut given, carried)?;
        // Results that are not requested are not collected.
        let collected = reserve::copies((0, false), node.outputs.len().saturating_sub(op.carried))?;
        Ok(FileLoop { node, body, numbered: true, op, collected, given })
    }

    fn scan_source(&mut self, node: &'m Node<'m>, inputs: &[Option<ValueId>]) -> Result<FileLoop<'m>, Halt> {
        let body = self.subgraph(node, "body")?;
        let given = reserve::all(inputs.iter().copied());
        let given = given.ok_or_else(|| self.value_error(node, "an input is missing"))?;
        let cx = self.call(node, inputs)?;
        let scans = usize::try_from(cx.int("num_scan_inputs", 0)?).ok().filter(|&scans| scans <= given.len());
        let scans = scans.ok_or_else(|| cx.attribute_error("num_scan_inputs", "exceeds the number of inputs"))?;
        let carried = given.len() - scans;
        let list = |name: &'static str, count: usize| -> Result<Vec<i64>, Halt> {
            let list = match cx.ints(name)? {
                Some(list) => list,
                None => reserve::copies(0, count)?,
            };
            if list.len() < count { Err(cx.attribute_error(name, "is too short")) } else { Ok(list) }
        };
        let (axes, directions) = (list("scan_input_axes", scans)?, list("scan_input_directions", scans)?);
        let mut scanned = reserve::empty(scans)?;
        let mut iterations = None;
        for ((&id, axis), reverse) in given[carried..].iter().zip(axes).zip(directions) {
            let along = Along { axis: cx.axis_of(axis, cx.rank(id))?, reverse: reverse != 0 };
            let dim = cx.shape(id)[along.axis];
            if *iterations.get_or_insert(dim) != dim {
                return Err(cx.shape_error("all scanned inputs must have the same length", &given[carried..]));
            }
            scanned.push(along);
        }
        let collects = node.outputs.len().saturating_sub(carried);
        let (axes, directions) = (list("scan_output_axes", collects)?, list("scan_output_directions", collects)?);
        let collected = axes.into_iter().zip(directions).map(|(axis, reverse)| (axis, reverse != 0)).take(collects);
        let collected = reserve::list(collected)?;
        let op = Loop { iterations: Some(iterations.unwrap_or(0)), carried, scanned, ..Loop::default() };
        Ok(FileLoop { node, body, numbered: false, op, collected, given })
    }

    /// Scan of opset 8: every tensor begins with a batch axis, over which an outer loop runs.
    fn scan_of_batches(&mut self, node: &'m Node<'m>, inputs: &[Option<ValueId>]) -> Imported {
        let Some((lengths, inputs)) = inputs.split_first() else { return Err(Halt::Foreign) };
        let given = reserve::all(inputs.iter().copied());
        let given = given.ok_or_else(|| self.value_error(node, "an input is missing"))?;
        let body = self.subgraph(node, "body")?;
        let cx = self.call(node, inputs)?;
        let scans = usize::try_from(cx.int("num_scan_inputs", 0)?).ok().filter(|&scans| scans <= given.len());
        let scans = scans.ok_or_else(|| cx.attribute_error("num_scan_inputs", "exceeds the number of inputs"))?;
        let carried = given.len() - scans;
        let directions = match cx.ints("directions")? {
            Some(directions) => directions,
            None => reserve::copies(0, scans)?,
        };
        let along = |&direction: &i64| Along { axis: 0, reverse: direction != 0 };
        let scanned = reserve::list(directions.iter().take(scans).map(along))?;
        let shapes = reserve::list(given.iter().map(|&id| cx.shape(id).dims()))?;
        let batches = shapes.first().and_then(|shape| shape.first()).copied();
        let lens = reserve::all(shapes[carried..].iter().map(|shape| shape.get(1).copied()));
        let len = lens.as_ref().and_then(|lens| lens.first()).copied();
        let (Some(batches), Some(lens), Some(len)) = (batches, lens, len) else {
            return Err(cx.shape_error("inputs must begin with a batch axis, then a scanned one", &given));
        };
        let alike =
            shapes.iter().all(|shape| shape.first() == Some(&batches)) && lens.iter().all(|&other| other == len);
        if !alike || scanned.len() != scans {
            return Err(cx.shape_error(
                "all inputs must have the same batch size, and all scanned ones the same length",
                &given,
            ));
        }
        if let Some(lengths) = *lengths {
            let whole = |of: &i64| usize::try_from(*of) == Ok(len);
            let all = cx.constant_of(lengths).and_then(Tensor::elements::<i64>).is_some_and(|of| of.iter().all(whole));
            if !all {
                return Err(self.value_error(node, "sequences of different lengths in one batch are not supported"));
            }
        }
        let collected = reserve::copies((0, false), node.outputs.len().saturating_sub(carried))?;
        let op = Loop { iterations: Some(len), carried, scanned, ..Loop::default() };
        let first = [Fact::new(DType::I64, Shape::default()), Fact::new(DType::Bool, Shape::default())];
        let mut slices = reserve::empty(given.len())?;
        for &id in &given {
            slices.push((self.slice_fact(id, 0)?, self.build.half(id)));
        }

        self.begin_block(node)?;
        let leading = self.leading(node, &first)?;
        let parameters = self.parameters(node, &slices)?;
        let source = FileLoop { node, body, numbered: false, op, collected, given: parameters };
        let inner = self.iterated(&source);
        let results = reserve::list(leading[1..2].iter().chain(inner.as_deref().unwrap_or(&[])).copied())?;
        let block = self.end_block(&results)?;
        let inner = inner?;

        let halves = reserve::list(inner.iter().map(|&id| self.build.half(id)))?;
        let every = |count: usize| reserve::copies(Along::default(), count);
        let outer = Loop {
            iterations: Some(batches),
            scanned: every(given.len())?,
            collected: every(inner.len())?,
            ..Loop::default()
        };
        let results = self.build.add_control(call::name(node), outer.into(), &given, vec![block])?;
        self.declare(&results, &halves)?;
        Ok(results)
    }

    /// Imports a loop as a node with a block; unrolled if it cannot be a block, or if it results in constants.
    fn iterated(&mut self, source: &FileLoop<'m>) -> Imported {
        let constant = |importer: &Self, id: ValueId| importer.build.graph.constant(id).is_some();
        let sequences = source.given.iter().any(|&id| self.build.sequence(id).is_some());
        let mut constants = source.op.iterations.is_some() && source.given.iter().all(|&id| constant(self, id));
        for name in if constants { captures(source.body)? } else { Vec::new() } {
            let id = self.value(name)?;
            constants = constants && constant(self, id);
        }
        if sequences {
            return self.unrolled(source);
        }
        if constants {
            match self.unrolled(source) {
                Err(Halt::Dynamic(_)) => {}
                computed => return computed,
            }
        }
        match self.looped(source) {
            Err(Halt::Dynamic(reason)) => match self.unrolled(source) {
                Err(Halt::Dynamic(_)) => Err(Halt::Dynamic(reason)),
                unrolled => unrolled,
            },
            looped => looped,
        }
    }

    fn looped(&mut self, source: &FileLoop<'m>) -> Imported {
        let &FileLoop { node, body, numbered, ref op, ref given, .. } = source;
        let first = op.first_carried();
        let own = source.numbers();
        let mut facts = reserve::empty(op.carried + op.scanned.len())?;
        for &id in &given[first..first + op.carried] {
            facts.push((self.build.graph.fact(id).clone(), self.build.half(id)));
        }
        for (&id, along) in given[first + op.carried..].iter().zip(&op.scanned) {
            facts.push((self.slice_fact(id, along.axis)?, self.build.half(id)));
        }
        let mut block = if numbered {
            let own = own.map(|fact| (fact, None));
            self.block(node, body, &[], &reserve::list(own.into_iter().chain(facts))?)?
        } else {
            let mut block = self.block(node, body, &own, &facts)?;
            let results = [&block.parameters[1..2], &block.results].into_iter().flatten();
            block.results = reserve::list(results.copied())?;
            block
        };
        block.results.truncate(1 + op.carried + source.collected.len());
        for (&before, &behind) in given[first..].iter().zip(&block.results[1..]).take(op.carried) {
            self.same(node, [before, behind], "before an iteration a value is", "after it")?;
        }
        let mut op = op.clone();
        for (&(axis, reverse), &id) in source.collected.iter().zip(&block.results[1 + op.carried..]) {
            let along = Along { axis: self.collected_axis(node, axis, id)?, reverse };
            reserve::push(&mut op.collected, along)?;
        }
        let stays = block.results[0] == block.parameters[1];
        let goes_on = match self.build.graph.constant(block.results[0]).and_then(|held| held.bytes().first().copied()) {
            Some(byte) => Some(byte != 0),
            None => stays.then_some(true),
        };
        if goes_on == Some(false) {
            op.iterations = Some(op.iterations.map_or(1, |iterations| iterations.min(1)));
        }
        let counted = op.iterations == Some(0) || !op.limited && !op.conditional && goes_on.is_some();
        if goes_on == Some(true) && op.iterations.is_none() && !op.limited {
            return Err(self.value_error(node, "the loop never ends: it has no limit, and its condition stays true"));
        }
        if !counted && !op.collected.is_empty() {
            return Err(source.dynamic("the number of slices in its results is not known before the run"));
        }
        if goes_on.is_none() {
            op.iterations = op.iterations.filter(|&iterations| iterations < MAX_COUNTED);
        }
        let halves = reserve::list(block.results[1..].iter().map(|&id| self.build.half(id)))?;
        let results = self.build.add_control(call::name(node), op.into(), given, vec![block])?;
        self.declare(&results, &halves)?;
        Ok(results)
    }

    /// The iterations of a loop one after the other, without blocks.
    fn unrolled(&mut self, source: &FileLoop<'m>) -> Imported {
        let op = &source.op;
        if op.limited || op.conditional {
            return Err(source.dynamic("its number of iterations is not known before the run"));
        }
        self.unrolling += 1;
        // The body's initializers are read once for all iterations.
        self.enter()?;
        self.initializers(source.body)?;
        let results = self.iterations(source);
        self.scopes.pop();
        self.unrolling -= 1;
        let (mut results, collected) = results?;
        for (slices, along) in collected.into_iter().zip(&source.collected) {
            let whole = self.put_together(source, slices, *along)?;
            reserve::push(&mut results, whole)?;
        }
        Ok(results)
    }

    /// The carried values after the last iteration, and the slices of each collected result.
    fn iterations(&mut self, source: &FileLoop<'m>) -> Result<(Vec<ValueId>, Vec<Vec<ValueId>>), Halt> {
        let (op, name) = (&source.op, call::name(source.node));
        let (carried, scanned) = source.given.split_at(op.carried);
        let mut carried = reserve::list(carried.iter().copied())?;
        let mut collected: Vec<Vec<ValueId>> = reserve::copies(Vec::new(), source.collected.len())?;
        let [number, condition] = source.numbers();
        for iteration in 0..op.iterations.unwrap_or(usize::MAX) {
            if iteration == MAX_UNROLLED {
                return Err(source.dynamic("it has too many iterations to be unrolled"));
            }
            let mut given = reserve::empty(2 + source.given.len())?;
            if source.numbered {
                for (fact, bytes) in [(&number, &(iteration as i64).to_le_bytes()[..]), (&condition, &[1])] {
                    let tensor = Tensor::from_bytes(fact.clone(), bytes).map_err(|e| self.build.at(name, e))?;
                    given.push(self.build.graph.add_constant(name, tensor)?);
                }
            }
            reserve::extend(&mut given, carried.iter().copied())?;
            for (&id, &Along { axis, reverse }) in scanned.iter().zip(&op.scanned) {
                let fact = self.slice_fact(id, axis)?;
                let last = op.iterations.unwrap_or(0).saturating_sub(1);
                let start = if reverse { last - iteration } else { iteration };
                let half = self.build.half(id);
                let slice = self.build.add(name, Slice { axis, start, len: 1, step: 1 }.into(), &[id])?[0];
                let slice = self.build.add(name, Reshape { shape: fact.shape }.into(), &[slice])?[0];
                self.build.declare(slice, half)?;
                given.push(slice);
            }
            let known = self.build.graph.values().len();
            let mut results = self.pass(source.body, &given)?;
            let added = self.build.graph.values()[known..].iter().filter_map(|value| value.constant.as_ref());
            self.repeated_bytes += added.map(|tensor| tensor.fact().bytes()).sum::<usize>();
            if self.repeated_bytes > MAX_REPEATED_BYTES {
                return Err(source.dynamic("its iterations have too many constants to be unrolled"));
            }
            let goes_on = source.numbered.then(|| results.remove(0));
            let slices = results.split_off(op.carried);
            carried = results;
            collected.iter_mut().zip(slices).try_for_each(|(all, slice)| reserve::push(all, slice))?;
            match goes_on.map(|id| self.build.graph.constant(id).and_then(|held| held.bytes().first().copied())) {
                Some(Some(0)) => break,
                Some(None) => return Err(source.dynamic("its number of iterations is not known before the run")),
                Some(Some(_)) | None => {}
            }
        }
        Ok((carried, collected))
    }

    /// Concatenates slices into one tensor.
    fn put_together(
        &mut self,
        source: &FileLoop<'m>,
        slices: Vec<ValueId>,
        along: (i64, bool),
    ) -> Result<ValueId, Halt> {
        let name = call::name(source.node);
        let Some(&first) = slices.first() else {
            return Err(source.dynamic("the shape of its collected results is not known: there is no iteration"));
        };
        let half = self.build.half(first);
        let axis = self.collected_axis(source.node, along.0, first)?;
        let mut parts = reserve::empty(slices.len())?;
        for id in slices {
            self.build.readable(id, name)?;
            let mut dims = self.build.graph.fact(id).shape.dims().to_vec();
            dims.insert(axis.min(dims.len()), 1);
            let shape = Shape::new(&dims).map_err(|e| self.build.at(name, e))?;
            parts.push(self.build.add(name, Reshape { shape }.into(), &[id])?[0]);
        }
        if along.1 {
            parts.reverse();
        }
        let whole = match *parts.as_slice() {
            [one] => one,
            _ => self.build.add(name, Concat { axis }.into(), &parts)?[0],
        };
        self.build.declare(whole, half)?;
        Ok(whole)
    }

    // Shared by loops and branches.

    /// The axis of a result assembled from slices such as `slice`.
    fn collected_axis(&self, node: &'m Node<'m>, axis: i64, slice: ValueId) -> Result<usize, Halt> {
        let rank = self.build.graph.fact(slice).shape.rank() + 1;
        let from_start = if axis < 0 { axis.saturating_add_unsigned(rank as u64) } else { axis };
        let found = usize::try_from(from_start).ok().filter(|&axis| axis < rank);
        found.ok_or_else(|| self.value_error(node, &format!("scan_output_axes has {axis} for a result of rank {rank}")))
    }

    /// The fact of a slice: a value without the axis that is iterated.
    fn slice_fact(&self, id: ValueId, axis: usize) -> Result<Fact, Halt> {
        let fact = self.build.graph.fact(id);
        let mut dims = fact.shape.dims().to_vec();
        if axis < dims.len() {
            dims.remove(axis);
        }
        let shape = Shape::new(&dims).map_err(|e| self.build.at("Scan", e))?;
        Ok(Fact::new(fact.dtype, shape))
    }

    /// Requires the same type and shape of two values: different types are an error, different shapes depend on the
    /// run.
    fn same(&self, node: &'m Node<'m>, values: [ValueId; 2], first: &str, second: &str) -> Result<(), Halt> {
        let name = call::name(node);
        for id in values {
            self.build.readable(id, name)?;
        }
        let [a, b] = values.map(|id| (self.build.declared(id), &self.build.graph.fact(id).shape));
        let told = format!("{first} {} of {}, {second} {} of {}", a.0, a.1, b.0, b.1);
        match (a.0 == b.0, a.1 == b.1) {
            (true, true) => Ok(()),
            (true, false) => Err(Halt::Dynamic(format!("'{name}' ({}): {told}", node.op_type))),
            (false, _) => Err(self.value_error(node, &told)),
        }
    }

    fn value_error(&self, node: &'m Node<'m>, reason: &str) -> Halt {
        Halt::Error(self.build.at(call::name(node), OpError::Value(reason.to_owned())))
    }

    fn declare(&mut self, results: &[ValueId], halves: &[Option<DType>]) -> Result<(), Halt> {
        for (&id, &half) in results.iter().zip(halves) {
            self.build.declare(id, half)?;
        }
        Ok(())
    }

    /// A subgraph of a node, or of the enclosing function call.
    fn subgraph(&self, node: &'m Node<'m>, name: &str) -> Result<&'m GraphProto<'m>, Halt> {
        let around = self.scopes.last().map(|scope| scope.attributes.clone()).unwrap_or_default();
        let graph = node.attribute(name).and_then(|held| resolved(held, &around)?.graphs.first());
        graph.ok_or_else(|| self.value_error(node, &format!("{name} is missing")))
    }

    /// Imports a subgraph as a block. Parameters with the facts `leading` come before those of its own inputs, which
    /// have the facts and half-precision types `given`.
    fn block(
        &mut self,
        node: &'m Node<'m>,
        graph: &'m GraphProto<'m>,
        leading: &[Fact],
        given: &[(Fact, Option<DType>)],
    ) -> Result<Block, Halt> {
        let place = self.build.place.clone();
        self.begin_block(node)?;
        self.leading(node, leading)?;
        let parameters = self.parameters(node, given)?;
        let results = self.body(graph, &parameters);
        let block = self.end_block(results.as_deref().unwrap_or(&[]))?;
        self.build.place = place;
        results.map(|_| block)
    }

    fn begin_block(&mut self, node: &'m Node<'m>) -> Result<(), Halt> {
        if self.depth == MAX_DEPTH {
            return Err(self.value_error(node, &format!("its graphs are nested in {MAX_DEPTH} others, the limit")));
        }
        self.depth += 1;
        self.build.graph.begin_block()?;
        Ok(())
    }

    fn end_block(&mut self, results: &[ValueId]) -> Result<Block, Halt> {
        self.depth -= 1;
        Ok(self.build.graph.end_block(results)?)
    }

    fn leading(&mut self, node: &'m Node<'m>, facts: &[Fact]) -> Result<Vec<ValueId>, Halt> {
        let add = |fact: &Fact| Ok(self.build.graph.add_parameter(call::name(node), fact.clone())?);
        reserve::results(facts.iter().map(add))
    }

    fn parameters(&mut self, node: &'m Node<'m>, facts: &[(Fact, Option<DType>)]) -> Result<Vec<ValueId>, Halt> {
        let mut ids = reserve::empty(facts.len())?;
        for (fact, half) in facts {
            let id = self.build.graph.add_parameter(call::name(node), fact.clone())?;
            self.build.declare(id, *half)?;
            ids.push(id);
        }
        Ok(ids)
    }

    /// Imports the nodes of a subgraph in place of its node, with these values for its inputs.
    fn body(&mut self, graph: &'m GraphProto<'m>, inputs: &[ValueId]) -> Imported {
        self.enter()?;
        self.initializers(graph)?;
        let results = self.pass(graph, inputs);
        self.scopes.pop();
        results
    }

    /// Imports the nodes of a subgraph whose initializers are already known.
    fn pass(&mut self, graph: &'m GraphProto<'m>, inputs: &[ValueId]) -> Imported {
        self.enter()?;
        for (info, &id) in graph.inputs.iter().zip(inputs) {
            self.define(info.name, id)?;
        }
        let results = self
            .nodes(&graph.nodes)
            .and_then(|()| reserve::results(graph.outputs.iter().map(|info| self.value(info.name))));
        self.scopes.pop();
        results
    }

    /// Opens a scope inside the current one.
    fn enter(&mut self) -> Result<(), NoMemory> {
        let around = self.scopes.last();
        let attributes = around.map(|scope| scope.attributes.clone()).unwrap_or_default();
        let opsets = around.map(|scope| scope.opsets.clone()).unwrap_or_default();
        reserve::push(&mut self.scopes, Scope { names: HashMap::new(), isolated: false, attributes, opsets })
    }
}

//! From a graph to a plan: a walk through the nodes and their blocks in execution order.
//!
//! Every value gets a request for bytes, from the step that writes it to the last that reads it. Blocks are consecutive
//! in the plan, so the two branches of an If share bytes without special handling, and:
//!
//! - a loop keeps the outer values that it reads until its last step, because the next iteration reads them again;
//! - a carried value has one place throughout the loop, which is also the loop's result;
//! - the result of an If has one place: the step of a branch that computes it writes it there.

use std::cell::RefCell;

use skipstone_kernels::arena::Slab;
use skipstone_reserve::NoMemory;

use super::draft::{ArmDraft, Draft, Draw, FlowDraft, RepeatDraft};
use super::{Plan, Request, Target, Tuning};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::graph::{Block, Graph, Node, ValueId};
use crate::limits;
use crate::operator::{Choice, Operator, Packing, PlanContext};
use crate::ops::Op;
use crate::ops::control::{Control, Loop};
use crate::options::Memory;
use crate::reserve;
use crate::tensor::Tensor;

/// Packed weights may take this many times the bytes of the graph's constants: more than any kernel's layout does for
/// weights that fill its tiles.
const PACKED_PER_BYTE: usize = 8;
/// In addition, this many bytes, for weights that do not.
const PACKED_BYTES: usize = 64 << 20;
/// Several nodes that read one constant each pack it, though equal results are stored once: the total of everything
/// packed may be this many times the bytes that may be kept.
const PACKED_AGAIN: usize = 16;

/// The planner's information on a value.
#[derive(Clone)]
pub(super) struct PlannedValue {
    /// The value whose bytes it shares: itself, except for results of aliases.
    pub root: ValueId,
    /// How many times it or an alias of it is read.
    readers: usize,
    /// Packed forms of a constant that several nodes read.
    forms: Vec<Bytes>,
    /// Its place in the arena, once a step writes it.
    pub request: Option<usize>,
}

/// A plan under construction.
pub(super) struct Planner<'a> {
    pub graph: Graph,
    /// The work of one run, see [`Operator::work`].
    pub work: u64,
    pub target: Target,
    packings: &'a [Option<Packing>],
    tuning: Option<&'a Tuning>,
    slab: RefCell<Slab>,
    /// For weights that several nodes read: separate blocks, most of which are freed at once.
    apart: RefCell<Slab>,
    /// By id.
    pub values: Vec<PlannedValue>,
    /// Bytes of all packed weights, and of those that are kept.
    packed: usize,
    kept: usize,
    most_kept: usize,
    pub requests: Vec<Request>,
    /// For every request, the number of enclosing loops.
    depths: Vec<usize>,
    /// For every loop around the current node, the outer requests that it reads.
    loops: Vec<Vec<usize>>,
    pub steps: Vec<Draft>,
    /// Number of nodes so far.
    nodes: usize,
}

impl<'a> Planner<'a> {
    /// # Errors
    /// No memory.
    pub fn new(
        graph: Graph,
        target: Target,
        packings: &'a [Option<Packing>],
        tuning: Option<&'a Tuning>,
    ) -> Result<Self> {
        let planned = |root| PlannedValue { root, readers: 0, forms: Vec::new(), request: None };
        let mut values = reserve::list(alias_roots(&graph)?.into_iter().map(planned))?;
        let mut read = |id: ValueId| {
            let root = values[id.0].root;
            values[root.0].readers += 1;
        };
        graph.nodes.iter().for_each(|node| node.for_each_read(&mut read));
        graph.outputs.iter().for_each(|(_, id)| read(*id));
        let work = super::budget::work(&graph);
        let constants: usize =
            graph.values().iter().filter_map(|v| v.constant.as_ref()).map(|t| t.fact().bytes()).sum();
        let slab = RefCell::new(Slab::new(if target.memory == Memory::Fast { constants } else { 0 }));
        let most_kept = constants.saturating_mul(PACKED_PER_BYTE).saturating_add(PACKED_BYTES);
        Ok(Self {
            graph,
            work,
            target,
            packings,
            tuning,
            slab,
            apart: RefCell::new(Slab::new(0)),
            values,
            packed: 0,
            kept: 0,
            most_kept,
            requests: Vec::new(),
            depths: Vec::new(),
            loops: Vec::new(),
            steps: Vec::new(),
            nodes: 0,
        })
    }

    pub fn plan(mut self) -> Result<Plan> {
        let nodes = std::mem::take(&mut self.graph.nodes);
        self.block(nodes)?;
        for index in 0..self.graph.outputs.len() {
            let id = self.graph.outputs[index].1;
            self.read(id, self.steps.len())?;
        }
        self.finish()
    }

    fn block(&mut self, nodes: Vec<Node>) -> Result<()> {
        for node in nodes {
            let index = self.nodes;
            self.nodes += 1;
            match &node.op {
                Op::Control(Control::If) => self.branch(node)?,
                Op::Control(Control::Loop(op)) => {
                    let op = op.clone();
                    self.repeat(node, op)?;
                }
                op if op.alias(&self.graph.facts(&node.inputs)).is_some() => {}
                _ => self.call(node, index)?,
            }
        }
        Ok(())
    }

    /// A kernel call.
    fn call(&mut self, node: Node, index: usize) -> Result<()> {
        let target = self.target;
        let shared = node.inputs.iter().map(|&id| self.root(id)).find(|&root| {
            let value = &self.values[root.0];
            self.graph.constant(root).is_some() && (value.readers > 1 || !value.forms.is_empty())
        });
        let cx = PlanContext {
            constants: reserve::list(node.inputs.iter().map(|&id| self.constant(id)))?,
            packing: self.packings.get(index).and_then(Option::as_ref),
            tuning: self.tuning,
            slab: if shared.is_some() { &self.apart } else { &self.slab },
            inputs: self.graph.facts(&node.inputs),
            outputs: self.graph.facts(&node.outputs),
            isa: target.isa,
            memory: target.memory,
            precision: target.precision,
            threads: target.threads,
        };
        let mut choice = node.op.plan(&cx).map_err(|e| e.at(&node.name))?;
        match cx.packing {
            Some(packing) => packing.check(&choice, &node.name)?,
            None => self.keep(&mut choice.packed, shared)?,
        }
        for &position in &choice.absorbed {
            let Some(root) = node.inputs.get(position).map(|&id| self.root(id)) else { continue };
            let readers = &mut self.values[root.0].readers;
            *readers -= 1;
            if *readers == 0 {
                self.graph.release_constant(root);
            }
        }
        let at = self.steps.len();
        for &id in &node.outputs {
            self.write(id, at)?;
        }
        for (position, &id) in node.inputs.iter().enumerate() {
            if !choice.absorbed.contains(&position) {
                self.read(id, at)?;
            }
        }
        let scratch = if choice.scratch > 0 { Some(self.request(choice.scratch, at)?) } else { None };
        Ok(reserve::push(&mut self.steps, Draft { node, choice, scratch, flow: None })?)
    }

    /// Counts packed weights; equal packed forms of a constant that several nodes read are kept once.
    fn keep(&mut self, packed: &mut [Bytes], shared: Option<ValueId>) -> Result<()> {
        for bytes in packed {
            self.packed = self.packed.saturating_add(bytes.len());
            let forms = shared.map(|root| &mut self.values[root.0].forms);
            match forms.as_ref().and_then(|forms| forms.iter().find(|form| form[..] == bytes[..])) {
                Some(form) => *bytes = form.clone(),
                None => {
                    self.kept = self.kept.saturating_add(bytes.len());
                    forms.map_or(Ok(()), |forms| reserve::push(forms, bytes.clone()))?;
                }
            }
        }
        limits::check_fixed("bytes of packed weights", self.kept as u64, self.most_kept as u64)?;
        let most_packed = self.most_kept.saturating_mul(PACKED_AGAIN);
        limits::check_fixed("bytes to pack", self.packed as u64, most_packed as u64)
    }

    fn branch(&mut self, mut node: Node) -> Result<()> {
        let at = self.steps.len();
        let blocks = std::mem::take(&mut node.blocks);
        let Some(&condition) = node.inputs.first() else { return Err(block_mismatch(&node)) };
        self.read(condition, at)?;
        let results = reserve::results(node.outputs.iter().map(|&id| self.write(id, at)))?;
        let name = node.name.clone();
        self.push(node, "branch")?;
        let mut arms = Vec::new();
        for Block { nodes, results: values, .. } in blocks {
            let moves = self.arm(&nodes, &values, &results)?;
            self.block(nodes)?;
            let end = self.steps.len();
            for (&id, &request) in values.iter().zip(&results) {
                self.read(id, end - 1)?;
                self.requests[request].last = self.requests[request].last.max(end - 1);
            }
            arms.push(ArmDraft { end, moves });
        }
        let arms = <[ArmDraft; 2]>::try_from(arms)
            .map_err(|_| Error::Internal(format!("'{name}' does not have two branches")))?;
        self.steps[at].flow = Some(FlowDraft::Branch { condition, arms });
        Ok(())
    }

    /// Makes the nodes of a branch write its results directly to their places, and returns those that have to be moved
    /// there.
    fn arm(
        &mut self,
        nodes: &[Node],
        values: &[ValueId],
        results: &[usize],
    ) -> Result<Vec<(ValueId, usize)>, NoMemory> {
        let aliased = |node: &&Node| node.op.alias(&self.graph.facts(&node.inputs)).is_some();
        let written = nodes.iter().filter(|node| !aliased(node)).flat_map(|node| node.outputs.iter().copied());
        let mut written = reserve::list(written)?;
        written.sort_unstable();
        let mut moves = Vec::new();
        for (&id, &request) in values.iter().zip(results) {
            let root = self.root(id);
            match &mut self.values[root.0].request {
                place @ None if written.binary_search(&root).is_ok() => *place = Some(request),
                _ => reserve::push(&mut moves, (id, request))?,
            }
        }
        Ok(moves)
    }

    fn repeat(&mut self, mut node: Node, op: Loop) -> Result<()> {
        let at = self.steps.len();
        let Some(Block { parameters, nodes, results }) = node.blocks.pop() else { return Err(block_mismatch(&node)) };
        let (first, count) = (op.first_carried(), op.carried);
        let inputs = reserve::list(node.inputs.iter().copied())?;
        inputs.iter().try_for_each(|&id| self.read(id, at))?;
        // Everything outside the iterations lives as long as the loop.
        let outputs = reserve::results(node.outputs.iter().map(|&id| self.write(id, at)))?;
        let carried = 2..2 + count;
        for (&id, &request) in parameters[carried.clone()].iter().zip(&outputs) {
            self.values[id.0].request = Some(request);
        }
        let places = reserve::results(parameters.iter().map(|&id| self.write(id, at)))?;
        let given = inputs.iter().skip(first).take(count).copied();
        let mut draft = RepeatDraft {
            start: reserve::list(given.zip(places[carried.clone()].iter().copied()))?,
            scanned: Vec::new(),
            collected: Vec::new(),
            next: Vec::new(),
            parameters: [places[0], places[1]],
            goes_on: *results.first().ok_or_else(|| block_mismatch(&node))?,
            end: 0,
            op,
        };
        for ((&id, &place), along) in
            inputs.iter().skip(first + count).zip(&places[carried.end..]).zip(&draft.op.scanned)
        {
            reserve::push(&mut draft.scanned, (id, place, along.slices(self.graph.fact(id))))?;
        }
        for ((&id, &whole), along) in results.iter().skip(1 + count).zip(&outputs[count..]).zip(&draft.op.collected) {
            let output = node.outputs[count + draft.collected.len()];
            reserve::push(&mut draft.collected, (id, whole, along.slices(self.graph.fact(output))))?;
        }
        let own = reserve::list(places.iter().chain(&outputs).copied())?;
        self.push(node, "loop")?;

        reserve::push(&mut self.loops, Vec::new())?;
        inputs.iter().skip(first + count).try_for_each(|&id| self.read(id, at))?;
        self.block(nodes)?;
        draft.next = self.carry(&parameters, &results, &places, count, at)?;
        let end = self.steps.len();
        results.iter().try_for_each(|&id| self.read(id, end - 1))?;
        let captured = self.loops.pop().unwrap_or_default();
        for request in captured.into_iter().chain(own) {
            self.requests[request].last = self.requests[request].last.max(end - 1);
        }
        for draw in &draft.next {
            if let Draw::Request(from, _) = draw {
                self.requests[*from].last = end - 1;
            }
        }
        draft.end = end;
        self.steps[at].flow = Some(FlowDraft::Repeat(Box::new(draft)));
        Ok(())
    }

    /// The moves after an iteration: a result that is another parameter is saved before any is overwritten.
    fn carry(
        &mut self,
        parameters: &[ValueId],
        results: &[ValueId],
        places: &[usize],
        count: usize,
        at: usize,
    ) -> Result<Vec<Draw>, NoMemory> {
        let (mut aside, mut direct, mut back) = (Vec::new(), Vec::new(), Vec::new());
        let mut given = reserve::list(parameters.iter().copied())?;
        given.sort_unstable();
        for ((&id, &own), &place) in results.iter().skip(1).zip(&parameters[2..2 + count]).zip(&places[2..]) {
            let root = self.root(id);
            if root == own {
                continue;
            }
            if given.binary_search(&root).is_ok() {
                let kept = self.request(self.graph.fact(id).bytes(), at)?;
                reserve::push(&mut aside, Draw::Value(id, kept))?;
                reserve::push(&mut back, Draw::Request(kept, place))?;
            } else {
                reserve::push(&mut direct, Draw::Value(id, place))?;
            }
        }
        reserve::list(aside.into_iter().chain(direct).chain(back))
    }

    fn push(&mut self, node: Node, kernel: &str) -> Result<(), NoMemory> {
        let choice = Choice { kernel: kernel.to_owned(), ..Choice::default() };
        reserve::push(&mut self.steps, Draft { node, choice, scratch: None, flow: None })
    }

    fn request(&mut self, bytes: usize, at: usize) -> Result<usize, NoMemory> {
        reserve::push(&mut self.requests, Request { bytes, first: at, last: at })?;
        reserve::push(&mut self.depths, self.loops.len())?;
        Ok(self.requests.len() - 1)
    }

    fn root(&self, id: ValueId) -> ValueId {
        self.values[id.0].root
    }

    /// The data of a constant value; an alias has other dimensions and does not count.
    fn constant(&self, id: ValueId) -> Option<&Tensor> {
        (self.root(id) == id).then(|| self.graph.constant(id)).flatten().map(AsRef::as_ref)
    }

    /// The request of a value that step `at` writes.
    fn write(&mut self, id: ValueId, at: usize) -> Result<usize, NoMemory> {
        if let Some(request) = self.values[id.0].request {
            self.requests[request].last = self.requests[request].last.max(at);
            return Ok(request);
        }
        let request = self.request(self.graph.fact(id).bytes(), at)?;
        self.values[id.0].request = Some(request);
        Ok(request)
    }

    /// Step `at` reads a value; every enclosing loop outside of which the value was written reads it again in the next
    /// iteration.
    fn read(&mut self, id: ValueId, at: usize) -> Result<(), NoMemory> {
        let Some(request) = self.values[self.root(id).0].request else { return Ok(()) };
        self.requests[request].last = self.requests[request].last.max(at);
        self.loops.get_mut(self.depths[request]).map_or(Ok(()), |outermost| reserve::push(outermost, request))
    }
}

fn block_mismatch(node: &Node) -> Error {
    Error::Internal(format!("the blocks of '{}' do not match its operator", node.name))
}

/// For every value, the value whose bytes it shares.
fn alias_roots(graph: &Graph) -> Result<Vec<ValueId>, NoMemory> {
    let mut roots = reserve::list((0..graph.values().len()).map(ValueId))?;
    for node in graph.walk() {
        if let (Some(input), [output]) = (node.op.alias(&graph.facts(&node.inputs)), node.outputs.as_slice())
            && let Some(source) = node.inputs.get(input)
        {
            roots[output.0] = roots[source.0];
        }
    }
    Ok(roots)
}

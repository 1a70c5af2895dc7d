//! What an expert computes from its rows: the same steps for all experts of a layer, with different constants.

use std::collections::HashMap;

use skipstone_kernels::activation::Activation;

use super::super::super::{Graph, Node, ValueId};
use super::view::{View, equal};
use crate::error::{OpError, Result};
use crate::ops::Op;
use crate::ops::gather::Gather;
use crate::ops::matmul::MatMul;
use crate::ops::reshape::Reshape;
use crate::ops::routed::Routed;
use crate::ops::slice::Slice;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Most steps of an expert.
const STEPS: usize = 64;
/// Axis of the elements of a row, in `[groups, m, width]`.
const LAST: usize = 2;

/// An operand of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    /// The rows.
    Rows,
    /// The result of a step.
    Step(usize),
    /// A constant that all experts share, `[]` or `[width]` apart from leading ones.
    Shared(ValueId),
    /// The constants with this number, one of each expert.
    Own(usize),
}

enum Step {
    /// By the matrices with this number.
    Product {
        of: Part,
        transposed: bool,
        matrices: usize,
    },
    Pointwise {
        op: Box<Op>,
        of: Vec<Part>,
    },
    Slice {
        of: Part,
        slice: Slice,
    },
}

/// The constants of all experts at one place: one of each, or one of all with a leading axis for the experts.
struct Stack {
    ids: Vec<ValueId>,
    experts: usize,
    /// `[1, rows, columns]`, or with the leading axis; otherwise only the last axis is longer than one.
    is_matrix: bool,
}

/// The steps of an expert.
pub(super) struct Body {
    steps: Vec<Step>,
    constants: Vec<Stack>,
    /// The rows that it is given.
    pub rows: ValueId,
    result: Part,
}

/// Follows the experts' results back to what they have in common.
pub(super) struct Walk<'v, 'a> {
    view: &'v View<'a>,
    /// With a leading axis for the experts of this length, one value stands for all of them.
    together: Option<usize>,
    steps: Vec<Step>,
    constants: Vec<Stack>,
    rows: Option<ValueId>,
    known: HashMap<Vec<ValueId>, Part>,
}

impl<'v, 'a> Walk<'v, 'a> {
    /// The body of experts with these results, in order.
    pub fn apart(view: &'v View<'a>, results: &[ValueId]) -> Option<Body> {
        Self::of(view, None, results)
    }

    /// The body of experts whose results are one value `[experts, .., width]`.
    pub fn together(view: &'v View<'a>, result: ValueId) -> Option<Body> {
        let &experts = view.dims(result).first()?;
        Self::of(view, Some(experts), &[result])
    }

    fn of(view: &'v View<'a>, together: Option<usize>, results: &[ValueId]) -> Option<Body> {
        let mut walk = Self { view, together, steps: vec![], constants: vec![], rows: None, known: HashMap::new() };
        let result = walk.part(results)?;
        let has_product = walk.steps.iter().any(|step| matches!(step, Step::Product { .. }));
        let Self { steps, constants, rows, .. } = walk;
        has_product.then_some(Body { steps, constants, rows: rows?, result })
    }

    fn part(&mut self, ids: &[ValueId]) -> Option<Part> {
        if let Some(&part) = self.known.get(ids) {
            return Some(part);
        }
        if self.steps.len() >= STEPS {
            return None;
        }
        let part = self.common(ids).or_else(|| self.step(ids))?;
        self.known.insert(ids.to_vec(), part);
        Some(part)
    }

    /// A constant, or the rows.
    fn common(&mut self, ids: &[ValueId]) -> Option<Part> {
        let view = self.view;
        let (&first, rest) = ids.split_first()?;
        let rows = match self.together {
            Some(experts) => match view.constant(first) {
                Some(_) => return self.constant_of_all(first, experts),
                None => self.repeated(first, experts)?,
            },
            None => {
                if !rest.iter().all(|&id| view.same(first, id)) {
                    let constants = ids.iter().all(|&id| view.constant(id).is_some());
                    return (constants && is_row(view.dims(first))).then(|| self.own(ids, false)).flatten();
                }
                if view.constant(first).is_some() {
                    return is_row(view.dims(first)).then_some(Part::Shared(first));
                }
                first
            }
        };
        match self.rows {
            None => self.rows = Some(rows),
            Some(known) if view.same(view.source(known), view.source(rows)) => {}
            Some(_) => return None,
        }
        Some(Part::Rows)
    }

    fn constant_of_all(&mut self, id: ValueId, experts: usize) -> Option<Part> {
        let dims = self.view.dims(id);
        if is_row(dims) {
            return Some(Part::Shared(id));
        }
        let (&first, rest) = dims.split_first()?;
        if first != experts || !is_row(rest) || self.view.graph.fact(id).dtype != DType::F32 {
            return None;
        }
        self.constants.push(Stack { ids: vec![id], experts, is_matrix: false });
        Some(Part::Own(self.constants.len() - 1))
    }

    /// The rows that a value repeats for each expert.
    fn repeated(&self, id: ValueId, experts: usize) -> Option<ValueId> {
        let id = self.view.source(id);
        let node = self.view.writer(id)?;
        let &x = node.inputs.first()?;
        let dims = self.view.dims(x);
        match &node.op {
            Op::Tile(tile) => {
                let (&first, rest) = tile.repeats.split_first()?;
                (first == experts && rest.iter().all(|&times| times == 1)).then_some(x)
            }
            Op::Expand(expand) => {
                let (&first, rest) = expand.shape.split_first()?;
                let same = dims == rest || dims.split_first().is_some_and(|(&one, dims)| one == 1 && dims == rest);
                (first == experts && same).then_some(x)
            }
            _ => None,
        }
    }

    /// Constants that differ between the experts.
    fn own(&mut self, ids: &[ValueId], is_matrix: bool) -> Option<Part> {
        let fact = self.view.graph.fact(*ids.first()?);
        if fact.dtype != DType::F32 || ids.iter().any(|&id| self.view.graph.fact(id) != fact) {
            return None;
        }
        self.constants.push(Stack { ids: ids.to_vec(), experts: self.together.unwrap_or(ids.len()), is_matrix });
        Some(Part::Own(self.constants.len() - 1))
    }

    fn step(&mut self, ids: &[ValueId]) -> Option<Part> {
        let view = self.view;
        let nodes: Vec<&Node> = ids.iter().map(|&id| view.writer(id)).collect::<Option<_>>()?;
        let (first, &id) = (*nodes.first()?, ids.first()?);
        let operands = |at: usize| nodes.iter().map(|node| node.inputs.get(at).copied()).collect::<Option<Vec<_>>>();
        let alike = nodes.iter().all(|node| equal(&first.op, &node.op) && node.inputs.len() == first.inputs.len());
        let &last = view.dims(id).last()?;
        let step = match &first.op {
            Op::MatMul(MatMul { transposed, activation: Activation::None }) if first.inputs.len() == 2 => {
                let plain = MatMul { transposed: *transposed, activation: Activation::None };
                let same = |node: &&Node| matches!(&node.op, Op::MatMul(op) if *op == plain) && node.inputs.len() == 2;
                if !nodes.iter().all(same) {
                    return None;
                }
                let matrices = operands(1)?;
                let matrices = self.matrices(&matrices)?;
                Step::Product { of: self.part(&operands(0)?)?, transposed: *transposed, matrices }
            }
            // Rows stay rows.
            Op::Reshape(_) if alike => {
                let x = operands(0)?;
                return if view.dims(x[0]).last() == Some(&last) { self.part(&x) } else { None };
            }
            Op::Binary(_) | Op::Activate(_) | Op::Unary(_) if alike => {
                let of: Vec<Part> =
                    (0..first.inputs.len()).map(|at| self.part(&operands(at)?)).collect::<Option<_>>()?;
                Step::Pointwise { op: Box::new(first.op.clone()), of }
            }
            Op::Slice(slice) if alike && slice.axis + 1 == view.dims(id).len() => {
                Step::Slice { of: self.part(&operands(0)?)?, slice: Slice { axis: LAST, ..*slice } }
            }
            _ => return None,
        };
        self.steps.push(step);
        Some(Part::Step(self.steps.len() - 1))
    }

    /// The number of the matrices of all experts.
    fn matrices(&mut self, ids: &[ValueId]) -> Option<usize> {
        let &first = ids.first()?;
        let dims = self.view.dims(first);
        let constant = |id: &ValueId| self.view.constant(*id).is_some_and(|held| held.dtype() == DType::F32);
        if dims.len() != 3 || dims[0] != self.together.unwrap_or(1) || !ids.iter().all(constant) {
            return None;
        }
        match self.own(ids, true)? {
            Part::Own(number) => Some(number),
            _ => None,
        }
    }
}

/// Whether only the last axis is longer than one.
fn is_row(dims: &[usize]) -> bool {
    dims.iter().rev().skip(1).all(|&dim| dim == 1)
}

/// Nodes being added in the place of another.
pub(super) struct Emit<'g> {
    pub graph: &'g mut Graph,
    pub nodes: Vec<Node>,
    pub name: String,
}

impl Emit<'_> {
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        let name = format!("{}.{}", self.name, self.nodes.len());
        let node = self.graph.make_node(name, op, inputs)?;
        let id = node.outputs[0];
        reserve::push(&mut self.nodes, node)?;
        Ok(id)
    }

    pub fn shape(&self, id: ValueId) -> Shape {
        self.graph.fact(id).shape.clone()
    }

    pub fn reshape(&mut self, id: ValueId, dims: &[usize]) -> Result<ValueId> {
        if self.graph.fact(id).shape.dims() == dims {
            return Ok(id);
        }
        let shape = Shape::new(dims).map_err(|e| e.at(&self.name))?;
        self.add(Reshape { shape }, &[id])
    }

    pub fn constant(&mut self, tensor: std::result::Result<Tensor, OpError>) -> Result<ValueId> {
        let tensor = tensor.map_err(|e| e.at(&self.name))?;
        Ok(self.graph.add_constant(format!("{}.constant", self.name), tensor)?)
    }

    /// The constants of all experts as one: matrices `[experts, rows, columns]`, or rows `[experts, width]`.
    fn stacked(&mut self, stack: &Stack) -> Result<ValueId> {
        let shape = self.shape(stack.ids[0]);
        let count = stack.experts;
        let dims = match stack.is_matrix {
            true => vec![count, shape[1], shape[2]],
            false => vec![count, shape.elements() * stack.ids.len() / count],
        };
        if shape.dims() == dims {
            return Ok(stack.ids[0]);
        }
        let parts: Vec<_> = stack.ids.iter().filter_map(|&id| self.graph.constant(id).cloned()).collect();
        let shape = Shape::new(&dims).map_err(|e| e.at(&self.name))?;
        let all = Tensor::written(Fact::new(DType::F32, shape), |to| {
            let len = to.len() / parts.len().max(1);
            for (part, to) in parts.iter().zip(to.chunks_exact_mut(len.max(1))) {
                to.copy_from_slice(part.bytes());
            }
            Ok(())
        });
        self.constant(all)
    }

    /// The results of the experts with these numbers (`[groups]`) for rows `[groups, m, width]`.
    pub fn run(&mut self, body: &Body, rows: ValueId, numbers: ValueId) -> Result<ValueId> {
        let [groups, m] = [self.shape(rows)[0], self.shape(rows)[1]];
        let mut constants = Vec::with_capacity(body.constants.len());
        for stack in &body.constants {
            constants.push(self.stacked(stack)?);
        }
        let mut results: Vec<ValueId> = Vec::with_capacity(body.steps.len());
        for step in &body.steps {
            let result = match step {
                Step::Product { of, transposed, matrices } => {
                    let x = self.operand(*of, rows, &results, &constants, numbers)?;
                    let op = Routed { transposed: *transposed, has_bias: false, activation: Activation::None };
                    self.add(op, &[x, numbers, constants[*matrices]])?
                }
                Step::Pointwise { op, of } => {
                    let mut inputs = Vec::with_capacity(of.len());
                    for &part in of {
                        inputs.push(self.operand(part, rows, &results, &constants, numbers)?);
                    }
                    self.add(op.as_ref().clone(), &inputs)?
                }
                Step::Slice { of, slice } => {
                    let x = self.operand(*of, rows, &results, &constants, numbers)?;
                    self.add(*slice, &[x])?
                }
            };
            results.push(result);
        }
        let y = self.operand(body.result, rows, &results, &constants, numbers)?;
        debug_assert_eq!(self.shape(y)[..2], [groups, m]);
        Ok(y)
    }

    fn operand(
        &mut self,
        part: Part,
        rows: ValueId,
        results: &[ValueId],
        constants: &[ValueId],
        numbers: ValueId,
    ) -> Result<ValueId> {
        Ok(match part {
            Part::Rows => rows,
            Part::Step(step) => results[step],
            Part::Shared(id) => {
                let shape = self.shape(id);
                if shape.rank() < 2 { id } else { self.reshape(id, &[shape.elements()])? }
            }
            Part::Own(number) => {
                let rows = self.add(Gather { axis: 0 }, &[constants[number], numbers])?;
                let &[groups, width] = self.shape(rows).dims() else { return Ok(rows) };
                self.reshape(rows, &[groups, 1, width])?
            }
        })
    }
}

impl Body {
    /// Whether there can be products with one of these matrices.
    pub fn is_supported(&self, graph: &Graph, experts: usize) -> bool {
        self.steps.iter().all(|step| match step {
            Step::Product { matrices, .. } => {
                let Stack { ids, experts: count, .. } = &self.constants[*matrices];
                let shape = ids.first().map(|&id| &graph.fact(id).shape);
                let all = shape.and_then(|shape| Shape::new(&[*count, shape[1], shape[2]]).ok());
                *count == experts && all.is_some_and(|all| Routed::supports(&all))
            }
            _ => true,
        })
    }
}

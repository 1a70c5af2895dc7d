//! Masked convolutions: a channel mask computed at run time is evaluated before the convolution whose result it
//! multiplies, so that this convolution and the readers of the product skip inactive channels.
//!
//! ```text
//! x -> Conv -> Mul(mask) -> Conv           =>    x, mask -> Conv(mask out) -> Conv(mask in)
//! x -> Conv -> MaxPool -> Mul(mask) -> y   =>    x, mask -> Conv(mask out) -> MaskedPool -> Spread -> y
//! Conv -> Mul(mask) -> ReduceMean          =>    Conv(mask out) -> MaskedReduce
//! x -> Mul(mask) -> Conv                   =>    x -> Gather -> Conv(mask in)
//! ```
//!
//! When: the mask is one found by the pass `masks`, which has moved it after the activation. The convolution is dense,
//! with at least [`PIXELS`] pixels and constant weights, and its result is read only by the product. Between the
//! convolutions, only the active channels are stored, as described in [`Masked`]; readers that do not support such
//! images get all channels from a Spread. A residual is gathered by the same mask. A mask that is a number cast from a
//! condition is the condition itself: the cast is left out.

use std::collections::{HashMap, HashSet};

use super::super::{Graph, Node, Uses, ValueId};
use super::masks::gated;
use crate::error::{Error, Result};
use crate::operator::Operator;
use crate::ops::Op;
use crate::ops::conv::Conv;
use crate::ops::image::{ImageDims, Layout};
use crate::ops::masked::Masked;
use crate::ops::roles::Role;
use crate::ops::unary::{Unary, UnaryKind};
use crate::reserve;
use crate::tensor::DType;

/// Minimum pixels of a masked convolution's result: with fewer, selecting weights takes the time that multiplying by
/// fewer of them saves.
const PIXELS: usize = 16;

/// Most taps of a kernel.
const TAPS: usize = 49;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses()?;
    let mut found: HashMap<usize, Found> = HashMap::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        if let Some(one) = find(graph, &uses, node) {
            reserve::insert(&mut found, at, one)?;
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let gone = reserve::set(found.values().flat_map(|one| one.pools.iter().copied().chain(one.conv)))?;
    let nodes = std::mem::take(&mut graph.nodes);
    let mut pass = MaskPass { graph, masked: HashMap::new(), spread: HashSet::new() };
    for (at, node) in nodes.iter().enumerate() {
        match found.get(&at) {
            Some(one) => pass.mask(&nodes, node, one)?,
            None if gone.contains(&at) => {}
            None => pass.read(node.copy()?)?,
        }
    }
    for index in 0..pass.graph.outputs.len() {
        pass.spread(pass.graph.outputs[index].1)?;
    }
    Ok(())
}

/// A mask that can be evaluated first.
struct Found {
    /// The value whose channels it selects.
    x: ValueId,
    /// The convolution that computes only those; without one, they are gathered.
    conv: Option<usize>,
    /// Poolings between it and the mask.
    pools: Vec<usize>,
    mask: ValueId,
    inverted: bool,
}

fn find(graph: &Graph, uses: &Uses, gate: &Node) -> Option<Found> {
    let gated = gated(graph, uses, gate, Layout::Nhwc)?;
    let (mut x, mut pools) = (gated.x, Vec::new());
    let mut conv = None;
    while let Some(at) = uses.only_reader(x).and_then(|_| uses.writer(x)) {
        let node = graph.nodes.get(at)?;
        match &node.op {
            Op::Conv(op) if can_mask(graph, node, op) => {
                conv = Some(at);
                break;
            }
            Op::Pool(pool) => {
                let from = *node.inputs.first()?;
                if Masked::Pool(pool.clone()).infer(&[graph.fact(from), graph.fact(gated.mask)]).is_err() {
                    break;
                }
                reserve::push(&mut pools, at).ok()?;
                x = from;
            }
            _ => break,
        }
    }
    match conv {
        Some(_) => pools.reverse(),
        None => pools.clear(),
    }
    let mask = condition(graph, uses, gated.mask).unwrap_or(gated.mask);
    let found = Found { x: gated.x, conv, pools, mask, inverted: gated.inverted };
    (conv.is_some() || is_read_masked(graph, uses, *gate.outputs.first()?)).then_some(found)
}

/// The condition that a mask was cast from.
fn condition(graph: &Graph, uses: &Uses, mask: ValueId) -> Option<ValueId> {
    let node = graph.nodes.get(uses.writer(mask)?)?;
    let &x = node.inputs.first().filter(|_| matches!(node.op, Op::Cast(_)))?;
    (graph.fact(x).dtype == DType::Bool).then_some(x)
}

/// Whether every reader of a value is a convolution that can read only active channels, or a reduction.
fn is_read_masked(graph: &Graph, uses: &Uses, id: ValueId) -> bool {
    let readers = || uses.readers(id).iter().map(|&at| graph.nodes.get(at));
    let reads = |node: &Node| match &node.op {
        Op::Conv(conv) => can_mask(graph, node, conv) && node.inputs.iter().filter(|&&read| read == id).count() == 1,
        Op::Reduce(reduce) => reduce.axes == [1, 2],
        _ => false,
    };
    let conv = |node: &Node| matches!(node.op, Op::Conv(_)) && node.inputs[Conv::X] == id;
    readers().all(|node| node.is_some_and(reads)) && readers().flatten().any(conv)
}

/// Whether a convolution can skip channels.
fn can_mask(graph: &Graph, node: &Node, conv: &Conv) -> bool {
    let pixels = node.outputs.first().and_then(|&y| ImageDims::new(Layout::Nhwc, &graph.fact(y).shape).ok());
    conv.layout == Layout::Nhwc
        && conv.groups == 1
        && conv.kernel.iter().product::<usize>() <= TAPS
        && !conv.roles.has(Role::Scale)
        && !conv.roles.has(Role::Affine)
        && !conv.roles.are_masked()
        && node.inputs.get(Conv::WEIGHTS).is_some_and(|&weights| graph.constant(weights).is_some())
        && pixels.is_some_and(|image| image.height * image.width >= PIXELS)
}

/// Images with only the active channels in memory.
#[derive(Clone, Copy)]
struct Images {
    active: ValueId,
    mask: ValueId,
}

struct MaskPass<'a> {
    graph: &'a mut Graph,
    /// By the value with all channels.
    masked: HashMap<ValueId, Images>,
    /// Those that have been spread.
    spread: HashSet<ValueId>,
}

impl MaskPass<'_> {
    /// Adds a convolution and the poolings after it at the point where the mask is known.
    fn mask(&mut self, nodes: &[Node], gate: &Node, found: &Found) -> Result<()> {
        let mut mask = found.mask;
        if found.inverted {
            mask = self.place(format!("{}.mask", gate.name), Unary { kind: UnaryKind::Not }, &[mask])?;
        }
        let conv = found.conv.map(|at| &nodes[at]);
        let mut active = match conv {
            Some(node) => self.mask_conv(node, mask)?,
            None => self.gathered(found.x, mask)?,
        };
        for &at in &found.pools {
            if let Op::Pool(pool) = &nodes[at].op {
                active = self.place(nodes[at].name.clone(), Masked::Pool(pool.clone()), &[active, mask])?;
            }
        }
        if let Some(&y) = gate.outputs.first() {
            reserve::insert(&mut self.masked, y, Images { active, mask })?;
        }
        Ok(())
    }

    /// Adds a convolution that computes only the active channels.
    fn mask_conv(&mut self, node: &Node, mask: ValueId) -> Result<ValueId> {
        let (Op::Conv(conv), mut inputs) = (&node.op, node.inputs.clone()) else {
            return Err(Error::Internal(format!("'{}' is not a convolution", node.name)));
        };
        if let Some(at) = conv.roles.residual() {
            inputs[at] = self.gathered(inputs[at], mask)?;
        }
        let mut conv = conv.clone();
        self.read_masked(&mut conv, &mut inputs);
        conv.roles = conv.roles.with(Role::MaskOut);
        inputs.push(mask);
        self.place(node.name.clone(), conv, &inputs)
    }

    /// Makes a convolution read the active channels, if its images are masked.
    fn read_masked(&self, conv: &mut Conv, inputs: &mut Vec<ValueId>) {
        if let Some(&Images { active, mask }) = self.masked.get(&inputs[Conv::X]) {
            inputs[Conv::X] = active;
            conv.roles = conv.roles.with(Role::MaskIn);
            inputs.push(mask);
        }
    }

    /// The active channels of a value.
    fn gathered(&mut self, id: ValueId, mask: ValueId) -> Result<ValueId> {
        match self.masked.get(&id) {
            Some(images) if images.mask == mask => Ok(images.active),
            _ => {
                self.spread(id)?;
                let name = format!("{}.gathered", self.graph.value(id).name);
                self.place(name, Masked::Gather, &[id, mask])
            }
        }
    }

    /// Adds a node that is not masked itself.
    fn read(&mut self, mut node: Node) -> Result<()> {
        let images = node.inputs.first().and_then(|id| self.masked.get(id)).copied();
        if let Some(Images { active, mask }) = images {
            let facts = [self.graph.fact(active), self.graph.fact(mask)];
            let masked = match &node.op {
                Op::Pool(pool) => Some(Masked::Pool(pool.clone())),
                Op::Reduce(reduce) => Some(Masked::Reduce(reduce.clone())),
                _ => None,
            };
            match (masked.filter(|op| op.infer(&facts).is_ok()), &node.op) {
                (Some(op @ Masked::Pool(_)), _) => {
                    let active = self.place(node.name, op, &[active, mask])?;
                    reserve::insert(&mut self.masked, node.outputs[0], Images { active, mask })?;
                    return Ok(());
                }
                (Some(op), _) => (node.op, node.inputs) = (op.into(), vec![active, mask]),
                (None, Op::Conv(conv)) if can_mask(self.graph, &node, conv) => {
                    let mut conv = conv.clone();
                    self.read_masked(&mut conv, &mut node.inputs);
                    node.op = conv.into();
                }
                _ => {}
            }
        }
        let mut done = Ok(());
        node.for_each_read(&mut |id| {
            if done.is_ok() {
                done = self.spread(id);
            }
        });
        done?;
        Ok(reserve::push(&mut self.graph.nodes, node)?)
    }

    fn place(&mut self, name: String, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.graph.add_node(name, op, inputs)?[0])
    }

    /// Makes sure that a value exists with all its channels.
    fn spread(&mut self, id: ValueId) -> Result<()> {
        let Some(&Images { active, mask }) = self.masked.get(&id) else { return Ok(()) };
        if reserve::add(&mut self.spread, id)? {
            let name = format!("{}.spread", self.graph.value(id).name);
            let node = Node {
                name,
                op: Masked::Spread.into(),
                inputs: vec![active, mask],
                outputs: vec![id],
                blocks: Vec::new(),
            };
            reserve::push(&mut self.graph.nodes, node)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::Isa;
    use skipstone_kernels::activation::Activation;
    use skipstone_kernels::pool::PoolFn;

    use super::super::super::pass::testing::Build;
    use super::*;
    use crate::ops::binary::BinaryKind;
    use crate::ops::cast::Cast;
    use crate::ops::check::{Random, assert_close, planned};
    use crate::ops::compare::{Compare, CompareKind};
    use crate::ops::pool::Pool;
    use crate::ops::reduce::{Reduce, ReduceKind};
    use crate::ops::select::Select;

    fn conv(build: &mut Build, x: ValueId, [filters, channels]: [usize; 2], kernel: usize) -> ValueId {
        let mut random = Random((filters * 31 + channels) as u64);
        let weights = build.graph.add_constant("w", random.floats(&[filters, channels, kernel, kernel])).unwrap();
        let bias = build.graph.add_constant("b", random.floats(&[filters])).unwrap();
        build.add(Conv { kernel: [kernel; 2], pads: [kernel / 2; 4], ..Conv::POINTWISE }, &[x, weights, bias])
    }

    /// A logit for every channel of a convolution of `x`.
    fn head(build: &mut Build, x: ValueId, shape: [usize; 2]) -> ValueId {
        let mean = build.add(Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: true }, &[x]);
        conv(build, mean, shape, 1)
    }

    fn compared(build: &mut Build, kind: CompareKind, head: ValueId, with: f32) -> ValueId {
        let number = build.constant(&[], &[with]);
        build.add(Compare { kind }, &[head, number])
    }

    /// `1` where a logit is above zero, written in one of several ways.
    fn spelled(build: &mut Build, spelling: usize, head: ValueId) -> ValueId {
        let [zero, one] = [0.0, 1.0].map(|number| build.constant(&[], &[number]));
        let cast = Cast { to: DType::F32 };
        match spelling {
            0 => {
                let condition = compared(build, CompareKind::Greater, head, 0.0);
                build.add(cast, &[condition])
            }
            1 => {
                let condition = compared(build, CompareKind::LessEqual, head, 0.0);
                build.add(Select, &[condition, zero, one])
            }
            2 => {
                let share = build.activate(Activation::Sigmoid, head);
                build.unary(UnaryKind::Round, share)
            }
            3 => {
                let share = build.activate(Activation::Sigmoid, head);
                let condition = compared(build, CompareKind::GreaterEqual, share, 0.5);
                build.add(cast, &[condition])
            }
            _ => {
                let condition = compared(build, CompareKind::Less, head, 0.0);
                let complement = build.add(cast, &[condition]);
                build.binary(BinaryKind::Sub, one, complement)
            }
        }
    }

    fn count(graph: &Graph, of: impl Fn(&Op) -> bool) -> usize {
        graph.nodes.iter().filter(|node| of(&node.op)).count()
    }

    /// Counts of convolutions with a mask for the result and for the images, of spreads, and of gathers.
    fn counts(graph: &Graph) -> [usize; 4] {
        let conv = |role| move |op: &Op| matches!(op, Op::Conv(conv) if conv.roles.has(role));
        [
            count(graph, conv(Role::MaskIn)),
            count(graph, conv(Role::MaskOut)),
            count(graph, |op| matches!(op, Op::Masked(Masked::Spread))),
            count(graph, |op| matches!(op, Op::Masked(Masked::Gather))),
        ]
    }

    /// The optimized graph; its plans are checked on every instruction set.
    fn optimized(build: Build, y: ValueId) -> Graph {
        let plain = build.graph.copy().unwrap();
        let inputs = [Random(7).floats(&plain.fact(build.x).shape.clone())];
        let graph = build.optimized(y, 1e-3);
        let want = graph.evaluate(&inputs).unwrap();
        let mut plain = plain;
        plain.outputs.push(("y".into(), y));
        for isa in Isa::available() {
            assert_close(&planned(&plain, isa, &inputs).unwrap()[0], &want[0], 1e-3, "masked");
        }
        graph
    }

    #[test]
    fn every_form_of_a_mask_moves_before_its_convolution() {
        for spelling in 0..5 {
            for before in [false, true] {
                let mut build = Build::new(&[2, 9, 9, 7]);
                let mut x = build.x;
                for shape in [[17, 9], [20, 17]] {
                    let logits = head(&mut build, x, shape);
                    let mask = spelled(&mut build, spelling, logits);
                    let mut y = conv(&mut build, x, shape, 3);
                    if !before {
                        y = build.activate(Activation::Relu, y);
                    }
                    y = build.binary(BinaryKind::Mul, y, mask);
                    x = if before { build.activate(Activation::HardSwish, y) } else { y };
                }
                let y = conv(&mut build, x, [5, 20], 1);
                assert_eq!(counts(&optimized(build, y)), [2, 2, 0, 0], "{spelling}, {before}");
            }
        }
    }

    #[test]
    fn where_chooses_between_the_result_and_zero() {
        for inverted in [false, true] {
            let mut build = Build::new(&[1, 9, 6, 5]);
            let x = build.x;
            let logits = head(&mut build, x, [12, 9]);
            let kind = if inverted { CompareKind::LessEqual } else { CompareKind::Greater };
            let condition = compared(&mut build, kind, logits, 0.0);
            let (y, zero) = (conv(&mut build, x, [12, 9], 3), build.constant(&[], &[0.0]));
            let y = build.add(Select, &if inverted { [condition, zero, y] } else { [condition, y, zero] });
            let y = build.activate(Activation::Relu, y);
            assert_eq!(counts(&optimized(build, y)), [0, 1, 1, 0]);
        }
    }

    #[test]
    fn poolings_and_means_read_the_active_channels() {
        for mask_last in [false, true] {
            let mut build = Build::new(&[1, 9, 12, 10]);
            let x = build.x;
            let logits = head(&mut build, x, [12, 9]);
            let mask = spelled(&mut build, 0, logits);
            let mut y = conv(&mut build, x, [12, 9], 3);
            let pool = Pool { kernel: [2, 2], stride: [2, 2], out: [6, 5], ..Pool::global(PoolFn::Max, 1, 1) };
            for step in [mask_last, !mask_last] {
                y = if step { build.add(pool.clone(), &[y]) } else { build.binary(BinaryKind::Mul, mask, y) };
            }
            let z = conv(&mut build, y, [12, 12], 3);
            let mean = build.add(Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: true }, &[y]);
            let y = build.binary(BinaryKind::Add, z, mean);
            let graph = optimized(build, y);
            assert_eq!(counts(&graph), [1, 1, 0, 0]);
            assert_eq!(count(&graph, |op| matches!(op, Op::Masked(Masked::Pool(_)))), 1);
        }
    }

    #[test]
    fn a_residual_is_gathered_and_other_readers_get_all_channels() {
        let mut build = Build::new(&[2, 9, 6, 5]);
        let x = build.x;
        // Of another image: otherwise the two convolutions would become one.
        let other = build.activate(Activation::Tanh, x);
        let shortcut = conv(&mut build, other, [12, 9], 1);
        let logits = head(&mut build, x, [12, 9]);
        let mask = spelled(&mut build, 0, logits);
        let y = conv(&mut build, x, [12, 9], 3);
        let y = build.binary(BinaryKind::Add, y, shortcut);
        let y = build.activate(Activation::Relu, y);
        let y = build.binary(BinaryKind::Mul, y, mask);
        let z = conv(&mut build, y, [12, 12], 3);
        let y = build.binary(BinaryKind::Add, z, y);
        assert_eq!(counts(&optimized(build, y)), [1, 1, 1, 1]);
    }

    #[test]
    fn products_that_are_not_masks_stay() {
        let cases: [fn(&mut Build, ValueId, ValueId) -> ValueId; 6] = [
            // The sigmoid cannot be removed: it is not zero at zero.
            |b, y, logits| {
                let mask = spelled(b, 0, logits);
                let y = b.binary(BinaryKind::Mul, y, mask);
                let y = b.activate(Activation::Sigmoid, y);
                b.binary(BinaryKind::Mul, y, y)
            },
            // A gate with any value.
            |b, y, logits| {
                let gate = b.activate(Activation::Relu, logits);
                b.binary(BinaryKind::Mul, y, gate)
            },
            // Rounded, but not between 0 and 1.
            |b, y, logits| {
                let gate = b.unary(UnaryKind::Round, logits);
                b.binary(BinaryKind::Mul, y, gate)
            },
            // Two instead of one.
            |b, y, logits| {
                let condition = compared(b, CompareKind::Greater, logits, 0.0);
                let [zero, two] = [0.0, 2.0].map(|number| b.constant(&[], &[number]));
                let gate = b.add(Select, &[condition, two, zero]);
                b.binary(BinaryKind::Mul, y, gate)
            },
            // Also read elsewhere.
            |b, y, logits| {
                let mask = spelled(b, 0, logits);
                let masked = b.binary(BinaryKind::Mul, y, mask);
                b.binary(BinaryKind::Add, masked, y)
            },
            // One for all channels.
            |b, y, logits| {
                let one = b.add(Reduce { axes: vec![1], kind: ReduceKind::Max, keep_dims: true }, &[logits]);
                let mask = spelled(b, 0, one);
                b.binary(BinaryKind::Mul, y, mask)
            },
        ];
        for (at, case) in cases.into_iter().enumerate() {
            let mut build = Build::new(&[1, 9, 6, 5]);
            let x = build.x;
            let logits = head(&mut build, x, [12, 9]);
            let y = conv(&mut build, x, [12, 9], 3);
            let y = case(&mut build, y, logits);
            let want = if at == 0 { [0, 1, 1, 0] } else { [0; 4] };
            assert_eq!(counts(&optimized(build, y)), want, "case {at}");
        }
    }

    #[test]
    fn masks_of_few_pixels_are_not_worth_it() {
        let mut build = Build::new(&[1, 9, 3, 5]);
        let x = build.x;
        let logits = head(&mut build, x, [12, 9]);
        let mask = spelled(&mut build, 0, logits);
        let y = conv(&mut build, x, [12, 9], 3);
        let y = build.binary(BinaryKind::Mul, y, mask);
        assert_eq!(counts(&optimized(build, y)), [0; 4]);
    }

    #[test]
    fn results_of_a_depthwise_convolution_are_gathered() {
        let mut build = Build::new(&[1, 9, 6, 5]);
        let x = build.x;
        let logits = head(&mut build, x, [9, 9]);
        let mask = spelled(&mut build, 0, logits);
        let mut random = Random(3);
        let [weights, bias] =
            [vec![9, 1, 3, 3], vec![9]].map(|dims| build.graph.add_constant("w", random.floats(&dims)).unwrap());
        let depthwise = Conv { kernel: [3, 3], pads: [1; 4], groups: 9, ..Conv::POINTWISE };
        let y = build.add(depthwise, &[x, weights, bias]);
        let y = build.binary(BinaryKind::Mul, y, mask);
        let y = conv(&mut build, y, [7, 9], 1);
        assert_eq!(counts(&optimized(build, y)), [1, 0, 0, 1]);
    }
}

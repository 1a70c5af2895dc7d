//! Branches: a sum of convolutions of one image as a single convolution.
//!
//! ```text
//! x -> Conv 3x3 -----------> Add -> Add -> y    =>    x -> Conv' 3x3 -> y
//! x -> Conv 1x1 -----------> Add
//! x -> Mul(scale) -> Add(shift) --> Add
//! ```
//!
//! Networks that are trained with parallel branches (RepVGG, MobileOne, FastViT) are often exported with them. A
//! convolution is linear in its image: smaller filters are added to the middle of the largest ones, the image itself is
//! a filter of one, factors and sums with a constant per channel become part of weights and bias.
//!
//! A scale and a shift on their own become a convolution of one pixel and one channel: one step, and [`fuse`](super::fuse)
//! finds the activation or the sum behind it.
//!
//! When: the convolutions have the same stride, no dilation and groups that contain each other, intermediate results
//! are read only here, and the single convolution has no more multiply-adds than its branches. A convolution with a
//! residual stays as it is. Weights that are mostly zeros stay apart, for the sake of the sparse kernels.

use std::collections::HashMap;

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, Uses, ValueId};
use super::fuse::{OfValue, per_channel, scale_and_shift};
use crate::error::{OpError, Result};
use crate::operator::Operator;
use crate::ops::Op;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::conv::Conv;
use crate::ops::float_conv::Nonzeros;
use crate::reserve;
use crate::tensor::{DType, Tensor};

/// Most branches of a sum: every branch costs a pass over its weights, and a graph may add one value any number of
/// times.
const BRANCHES: usize = 16;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses()?;
    let mut sums = Sums::new();
    let mut roots = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let (Some((sum, absorbed)), &[y]) = (of_node(graph, &uses, &sums, index), node.outputs.as_slice()) else {
            continue;
        };
        absorbed.iter().for_each(|id| drop(sums.remove(id)));
        reserve::insert(&mut sums, y, sum)?;
        reserve::push(&mut roots, (index, y))?;
    }
    for (index, y) in roots {
        let Some(sum) = sums.remove(&y).filter(|sum| sum.is_worthwhile(graph, &uses)) else { continue };
        let name = graph.nodes[index].name.clone();
        if let Some(conv) = sum.convolution(graph, &name, y).map_err(|e| e.at(&name))? {
            graph.nodes[index] = conv;
        }
    }
    super::dead::run(graph)
}

/// A sum of convolutions of one image, and of the image itself, each with a factor per channel.
struct Sum {
    image: ValueId,
    terms: Vec<Term>,
    /// Added to each channel of the result, beside the biases of the convolutions.
    shift: Vec<f64>,
    window: Window,
    /// Nodes that compute it.
    nodes: usize,
}

/// One term of a sum.
struct Term {
    /// The position of the convolution; `None` for the image itself.
    conv: Option<usize>,
    /// One factor per channel of the result.
    factors: Vec<f64>,
}

/// The sums that no larger sum contains so far, by their result.
type Sums = HashMap<ValueId, Sum>;

/// The geometry of a convolution of unit dilation.
#[derive(Clone, Copy)]
struct Window {
    stride: [usize; 2],
    /// Taps above and left of the pixel at the result's position times the stride.
    before: [usize; 2],
    /// Taps from that pixel on.
    after: [usize; 2],
    groups: usize,
    /// Channels that a filter reads.
    depth: usize,
    /// Weights of a filter of all terms.
    weights: usize,
}

impl Window {
    /// One pixel of one channel.
    fn identity(channels: usize) -> Self {
        Self { stride: [1; 2], before: [0; 2], after: [1; 2], groups: channels, depth: 1, weights: 1 }
    }

    fn kernel(&self) -> [usize; 2] {
        [self.before[0] + self.after[0], self.before[1] + self.after[1]]
    }

    /// The smallest window that contains both, if it costs no more than they do.
    fn with(self, other: Self) -> Option<Self> {
        let (large, small) = if self.groups <= other.groups { (self, other) } else { (other, self) };
        let either = |a: [usize; 2], b: [usize; 2]| [a[0].max(b[0]), a[1].max(b[1])];
        let both = Self {
            before: either(self.before, other.before),
            after: either(self.after, other.after),
            weights: self.weights.checked_add(other.weights)?,
            ..large
        };
        let [rows, columns] = both.kernel();
        let cheap = rows.checked_mul(columns)?.checked_mul(both.depth)? <= both.weights;
        (self.stride == other.stride && small.groups.is_multiple_of(large.groups) && cheap).then_some(both)
    }
}

/// The sum that a node computes, and the sums that became part of it.
fn of_node(graph: &Graph, uses: &Uses, sums: &Sums, index: usize) -> Option<(Sum, Vec<ValueId>)> {
    let node = graph.nodes.get(index)?;
    let y = *node.outputs.first()?;
    let inner = |id: ValueId| uses.only_reader(id).and_then(|_| sums.get(&id));
    let (&Binary { kind, .. }, &[a, b]) = (match &node.op {
        Op::Conv(_) => return Some((Sum::of_conv(graph, index)?, Vec::new())),
        Op::Binary(binary) if binary.activation == Activation::None => (binary, node.inputs.as_slice()),
        _ => return None,
    }) else {
        return None;
    };
    let shape = &graph.fact(y).shape;
    let (x, constant, first) = match (graph.constant(a), graph.constant(b)) {
        (None, Some(constant)) => (a, constant, true),
        (Some(constant), None) => (b, constant, false),
        _ => {
            let sign = match kind {
                BinaryKind::Add => 1.0,
                BinaryKind::Sub => -1.0,
                _ => return None,
            };
            let same = a != b && graph.fact(a) == graph.fact(b);
            let [left, right] = [a, b].map(|id| Sum::identity(graph, id));
            let pairs = [(inner(a), inner(b)), (inner(a), right.as_ref()), (left.as_ref(), inner(b))];
            let added = pairs.into_iter().find_map(|(left, right)| left?.plus(right?, sign)).filter(|_| same)?;
            let absorbed = [a, b].into_iter().filter(|&id| id != added.image && inner(id).is_some()).collect();
            return Some((added, absorbed));
        }
    };
    let values = per_channel(constant, shape, CHANNELS).filter(|_| graph.fact(x) == graph.fact(y))?;
    let (scale, shift) = scale_and_shift(kind, first)?;
    match inner(x) {
        Some(sum) => Some((sum.scaled(&values, scale, shift)?, vec![x])),
        None => Some((Sum::identity(graph, x)?.scaled(&values, scale, shift)?, Vec::new())),
    }
}

/// Channels from which on a convolution of one pixel takes no longer than a sum.
const MANY: usize = 16;

/// The axis of the channels.
const CHANNELS: usize = 1;

impl Sum {
    /// An image itself.
    fn identity(graph: &Graph, image: ValueId) -> Option<Self> {
        let fact = graph.fact(image);
        let &[_, channels, _, _] = fact.shape.dims() else { return None };
        let window = Window::identity(channels);
        if fact.dtype != DType::F32 || graph.constant(image).is_some() {
            return None;
        }
        let shift = reserve::copies(0.0, channels).ok()?;
        Some(Self { image, terms: vec![Term::new(None, channels)?], shift, window, nodes: 0 })
    }

    /// A convolution with constant weights and nothing fused.
    fn of_conv(graph: &Graph, index: usize) -> Option<Self> {
        let node = graph.nodes.get(index)?;
        let (Op::Conv(conv), &[image, weights, bias]) = (&node.op, node.inputs.as_slice()) else { return None };
        let &[filters, depth, rows, columns] = graph.constant(weights)?.shape().dims() else { return None };
        graph.constant(bias)?;
        let before = [conv.pads[0], conv.pads[1]];
        let plain =
            Conv { kernel: conv.kernel, stride: conv.stride, pads: conv.pads, groups: conv.groups, ..Conv::POINTWISE };
        // The pixel at the result's position is in the window.
        if *conv != plain || before[0] >= rows || before[1] >= columns {
            return None;
        }
        let after = [rows - before[0], columns - before[1]];
        let weights = depth.checked_mul(rows)?.checked_mul(columns)?;
        let window = Window { stride: conv.stride, before, after, groups: conv.groups, depth, weights };
        let shift = reserve::copies(0.0, filters).ok()?;
        Some(Self { image, terms: vec![Term::new(Some(index), filters)?], shift, window, nodes: 1 })
    }

    /// `self * scale + shift`, with factors and shifts that depend on the value of each channel.
    fn scaled(&self, values: &[f32], scale: OfValue, shift: OfValue) -> Option<Self> {
        let mut sum = Self { nodes: self.nodes + 1, ..self.copy()? };
        let times = |numbers: &mut [f64]| {
            numbers.iter_mut().zip(values).for_each(|(number, &value)| *number *= f64::from(scale(value)));
        };
        sum.terms.iter_mut().for_each(|term| times(&mut term.factors));
        times(&mut sum.shift);
        sum.shift.iter_mut().zip(values).for_each(|(number, &value)| *number += f64::from(shift(value)));
        Some(sum)
    }

    /// A copy; `None` if there is no memory for its lists.
    fn copy(&self) -> Option<Self> {
        let terms = self.terms.iter().map(|term| Some(Term { factors: floats(&term.factors)?, ..*term }));
        Some(Self { terms: reserve::all(terms)?, shift: floats(&self.shift)?, ..*self })
    }

    /// `self + sign * other`, if both are sums over the same image that fit each other.
    fn plus(&self, other: &Self, sign: f64) -> Option<Self> {
        if self.image != other.image || self.terms.len() + other.terms.len() > BRANCHES {
            return None;
        }
        let window = self.window.with(other.window)?;
        let mut sum = Self { window, nodes: self.nodes + other.nodes + 1, ..self.copy()? };
        for term in &other.terms {
            let factors = reserve::list(term.factors.iter().map(|factor| sign * factor)).ok()?;
            sum.terms.push(Term { factors, ..*term });
        }
        sum.shift.iter_mut().zip(&other.shift).for_each(|(number, other)| *number += sign * other);
        Some(sum)
    }

    /// Whether a convolution is better than the nodes: there are more branches than a convolution and its residual, or
    /// several passes over an image that is probably in NHWC.
    fn is_worthwhile(&self, graph: &Graph, uses: &Uses) -> bool {
        let &[_, channels, height, width] = graph.fact(self.image).shape.dims() else { return false };
        match self.terms.iter().any(|term| term.conv.is_some()) {
            true => self.terms.len() > 1 && self.nodes > 2,
            false => {
                let computed = uses.writer(self.image).is_some();
                self.nodes > 1 && computed && channels >= MANY && height.min(width) > 1
            }
        }
    }

    /// The convolution that computes the sum as the value `y`; `None` if there are too many zeros among the weights, or
    /// if no padding gives the result's size.
    fn convolution(&self, graph: &mut Graph, name: &str, y: ValueId) -> std::result::Result<Option<Node>, OpError> {
        let Window { stride, before, groups, depth, .. } = self.window;
        let kernel = self.window.kernel();
        let filters = self.shift.len();
        let mut sums = reserve::copies(0.0f64, filters * depth * kernel[0] * kernel[1])?;
        let mut biases = reserve::list(self.shift.iter().copied())?;
        for term in &self.terms {
            let Some((window, weights, bias)) = term.filters(graph) else { return Ok(None) };
            let [rows, columns] = window.kernel();
            let first = [before[0] - window.before[0], before[1] - window.before[1]];
            let mut weights = weights.into_iter();
            for (filter, factor) in term.factors.iter().enumerate() {
                // Its channels among those of the larger group.
                let channel = |window: Window| filter / (filters / window.groups) * window.depth;
                let skipped = channel(window) - channel(self.window);
                for at in 0..window.depth * rows {
                    let row = (filter * depth + skipped + at / rows) * kernel[0] + first[0] + at % rows;
                    let sums = &mut sums[row * kernel[1] + first[1]..][..columns];
                    sums.iter_mut().zip(&mut weights).for_each(|(sum, weight)| *sum += factor * weight);
                }
                biases[filter] += factor * bias.get(filter).copied().unwrap_or(0.0);
            }
        }
        let (image, result) = (&graph.fact(self.image).shape, &graph.fact(y).shape);
        let end = |axis: usize| {
            let reach = (result[2 + axis].max(1) - 1) * stride[axis] + kernel[axis];
            reach.saturating_sub(image[2 + axis] + before[axis])
        };
        let pads = [before[0], before[1], end(0), end(1)];
        let conv = Conv { kernel, stride, pads, groups, ..Conv::POINTWISE };
        let narrow = |numbers: Vec<f64>| reserve::list(numbers.into_iter().map(|number| number as f32));
        let weights = Tensor::from_slice(&[filters, depth, kernel[0], kernel[1]], &narrow(sums)?)?;
        let bias = Tensor::from_slice(&[filters], &narrow(biases)?)?;
        if conv.infer(&[graph.fact(self.image), weights.fact(), bias.fact()])? != [graph.fact(y).clone()] {
            return Ok(None);
        }
        let weights = graph.add_constant(format!("{name}.weights"), weights)?;
        let bias = graph.add_constant(format!("{name}.bias"), bias)?;
        let inputs = vec![self.image, weights, bias];
        Ok(Some(Node { name: name.to_owned(), op: conv.into(), inputs, outputs: vec![y], blocks: Vec::new() }))
    }
}

impl Term {
    /// A term with factors of one; `None` if there is no memory for them.
    fn new(conv: Option<usize>, channels: usize) -> Option<Self> {
        Some(Self { conv, factors: reserve::copies(1.0, channels).ok()? })
    }

    /// The geometry, the weights in their order and the biases; `None` if most weights are zeros.
    fn filters(&self, graph: &Graph) -> Option<(Window, Vec<f64>, Vec<f64>)> {
        let Some(index) = self.conv else {
            let channels = self.factors.len();
            return Some((Window::identity(channels), reserve::copies(1.0, channels).ok()?, Vec::new()));
        };
        let window = Sum::of_conv(graph, index)?.window;
        let constant = |at: usize| graph.constant(*graph.nodes.get(index)?.inputs.get(at)?);
        let weights = constant(Conv::WEIGHTS)?;
        if Nonzeros::of(weights)?.count() < weights.shape().elements() / 2 {
            return None;
        }
        let wide = |tensor: &Tensor| reserve::list(tensor.peek::<f32>()?.iter().map(f64::from)).ok();
        Some((window, wide(weights)?, wide(constant(Conv::BIAS)?)?))
    }
}

/// A copy of numbers; `None` if there is no memory for it.
fn floats(numbers: &[f64]) -> Option<Vec<f64>> {
    reserve::list(numbers.iter().copied()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::check::Random;
    use crate::ops::unary::UnaryKind;

    /// A convolution with random weights and bias.
    fn conv(build: &mut Build, x: ValueId, op: Conv, filters: usize) -> ValueId {
        let depth = build.graph.fact(x).shape[1] / op.groups;
        let mut random = Random(build.graph.nodes.len() as u64);
        let weights = random.floats(&[filters, depth, op.kernel[0], op.kernel[1]]);
        let weights = build.graph.add_constant("w", weights).unwrap();
        let bias = build.graph.add_constant("b", random.floats(&[filters])).unwrap();
        build.add(op, &[x, weights, bias])
    }

    /// A square kernel that keeps the image's size at stride one.
    fn square(side: usize, stride: usize, groups: usize) -> Conv {
        Conv { kernel: [side; 2], stride: [stride; 2], pads: [side / 2; 4], groups, ..Conv::POINTWISE }
    }

    /// A batch normalization, as it is imported.
    fn normalized(build: &mut Build, x: ValueId) -> ValueId {
        let channels = build.graph.fact(x).shape[1];
        let mut random = Random(9);
        let [scale, shift] =
            std::array::from_fn(|_| build.graph.add_constant("bn", random.floats(&[1, channels, 1, 1])).unwrap());
        let x = build.binary(BinaryKind::Mul, x, scale);
        build.binary(BinaryKind::Add, x, shift)
    }

    /// The operators that remain, without those that change the layout.
    fn names(build: Build, y: ValueId) -> Vec<String> {
        let graph = build.optimized(y, 1e-4);
        graph.nodes.iter().map(|node| format!("{:?}", node.op)).filter(|name| name != "Transpose").collect()
    }

    #[test]
    fn branches_of_a_block_become_one_convolution() {
        for (filters, stride, groups) in [(6, 1, 1), (6, 1, 6), (6, 1, 2), (9, 2, 3), (12, 2, 6), (4, 2, 1)] {
            let mut build = Build::new(&[2, 6, 9, 8]);
            let x = build.x;
            let large = conv(&mut build, x, square(5, stride, groups), filters);
            let middle = conv(&mut build, x, square(3, stride, groups), filters);
            let small = conv(&mut build, x, square(1, stride, groups), filters);
            let mut y = build.binary(BinaryKind::Add, small, large);
            y = build.binary(BinaryKind::Sub, middle, y);
            if stride == 1 {
                let itself = normalized(&mut build, x);
                y = build.binary(BinaryKind::Add, y, itself);
            }
            let y = build.activate(Activation::Relu, y);
            assert_eq!(names(build, y), ["Conv"], "{filters} {stride} {groups}");
        }
    }

    #[test]
    fn a_mixer_of_normalized_images_becomes_one_convolution() {
        let mut build = Build::new(&[1, 5, 7, 6]);
        let x = build.x;
        let mixed = conv(&mut build, x, square(3, 1, 5), 5);
        let (left, right) = (normalized(&mut build, x), normalized(&mut build, x));
        let mixed = build.binary(BinaryKind::Add, left, mixed);
        let difference = build.binary(BinaryKind::Sub, mixed, right);
        let scale = build.graph.add_constant("scale", Random(4).floats(&[5, 1, 1])).unwrap();
        let scaled = build.binary(BinaryKind::Mul, difference, scale);
        let y = build.binary(BinaryKind::Add, x, scaled);
        assert_eq!(names(build, y), ["Conv"]);
    }

    #[test]
    fn a_scale_and_a_shift_become_one_step() {
        for (channels, steps) in [(20, vec!["Abs", "Conv"]), (3, vec!["Abs", "Mul", "Add", "Relu"])] {
            let mut build = Build::new(&[1, channels, 7, 6]);
            let x = build.unary(UnaryKind::Abs, build.x);
            let y = normalized(&mut build, x);
            let y = build.activate(Activation::Relu, y);
            assert_eq!(names(build, y), steps);
        }
    }

    #[test]
    fn a_larger_kernel_than_its_branches_is_not_made() {
        let mut build = Build::new(&[1, 4, 9, 8]);
        let x = build.x;
        let row = Conv { kernel: [1, 7], pads: [0, 3, 0, 3], groups: 4, ..Conv::POINTWISE };
        let column = Conv { kernel: [7, 1], pads: [3, 0, 3, 0], groups: 4, ..Conv::POINTWISE };
        let (row, column) = (conv(&mut build, x, row, 4), conv(&mut build, x, column, 4));
        let y = build.binary(BinaryKind::Add, row, column);
        assert_eq!(names(build, y).len(), 2);

        let mut build = Build::new(&[1, 4, 9, 8]);
        let x = build.x;
        let (window, pixel) = (conv(&mut build, x, square(3, 1, 4), 4), conv(&mut build, x, square(1, 1, 1), 4));
        let y = build.binary(BinaryKind::Add, window, pixel);
        assert_eq!(names(build, y).len(), 2);
    }

    #[test]
    fn activations_and_other_readers_between_branches_stay() {
        for activated in [false, true] {
            let mut build = Build::new(&[1, 6, 9, 8]);
            let x = build.x;
            let (a, mut b) = (conv(&mut build, x, square(3, 1, 1), 6), conv(&mut build, x, square(1, 1, 1), 6));
            match activated {
                true => b = build.activate(Activation::Tanh, b),
                false => build.output(b),
            }
            let y = build.binary(BinaryKind::Add, a, b);
            assert_eq!(names(build, y).iter().filter(|name| *name == "Conv").count(), 2);
        }
    }

    #[test]
    fn a_residual_stays() {
        let mut build = Build::new(&[1, 6, 9, 8]);
        let x = build.x;
        let y = conv(&mut build, x, square(3, 1, 1), 6);
        let y = build.binary(BinaryKind::Add, y, x);
        let graph = build.optimized(y, 1e-4);
        assert!(graph.nodes.iter().any(|node| matches!(&node.op, Op::Conv(conv) if conv.roles.residual().is_some())));
    }

    #[test]
    fn many_terms_are_added_in_parts() {
        let mut build = Build::new(&[1, 3, 5, 5]);
        let x = build.activate(Activation::Relu, build.x);
        let mut y = conv(&mut build, x, square(3, 1, 1), 3);
        for _ in 0..2 * BRANCHES {
            y = build.binary(BinaryKind::Add, y, x);
        }
        assert!(names(build, y).len() > 2);
    }
}

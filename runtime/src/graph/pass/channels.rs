//! Channels across a graph: which values have the same ones, where they stand, and which filters
//! write and read them.
//!
//! A convolution or matrix product with constant weights begins a set of channels, one per filter.
//! Operators that compute each channel from the same channel of their operands pass the set on:
//!
//! ```text
//! Conv -> Relu -> Conv depthwise -> Mul(gate) -> Conv
//! `--------- one set of channels ----------'     `- the next set
//! ```
//!
//! A sum or product of two values makes their sets one. A set that anything else reads (an output
//! of the graph, an operator that is not understood here) is bound: nothing may be taken from it.

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use crate::ops::Op;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::roles::Role;
use crate::tensor::{DType, Shape, Tensor};

/// Where the channels of a value stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The axis.
    pub axis: usize,
    /// Neighbours along the axis that belong to one channel: the pixels of a flattened image.
    pub block: usize,
}

/// The sets of channels of a graph.
pub(super) struct Channels {
    places: Vec<Option<Place>>,
    /// For each value another of its set, or itself: a forest whose roots stand for sets.
    parents: Vec<usize>,
    /// By root: number of channels.
    counts: Vec<usize>,
    /// By root: whether the set is bound.
    bound: Vec<bool>,
    /// By root: number of values, so that the smaller set joins the larger one, and no way to a root is long.
    sizes: Vec<usize>,
}

impl Channels {
    /// Follows the channels through a graph whose images are in NCHW.
    pub fn new(graph: &Graph) -> Self {
        let values = graph.values().len();
        let (places, parents) = (vec![None; values], (0..values).collect());
        let (counts, bound, sizes) = (vec![0; values], vec![false; values], vec![1; values]);
        let mut channels = Self { places, parents, counts, bound, sizes };
        for node in &graph.nodes {
            if channels.follow(graph, node).is_none() {
                node.for_each_read(&mut |id| channels.bind(id));
                node.outputs.iter().for_each(|&id| channels.bind(id));
            }
        }
        for (_, id) in &graph.outputs {
            channels.bind(*id);
        }
        channels
    }

    /// Where the channels of a value stand, if it is in a set.
    pub fn place(&self, id: ValueId) -> Option<Place> {
        self.places.get(id.0).copied().flatten()
    }

    /// The set of a value.
    pub fn set(&self, id: ValueId) -> Option<usize> {
        self.place(id).map(|_| self.root(id.0))
    }

    /// Number of channels of a value's set; 0 outside any.
    pub fn count(&self, id: ValueId) -> usize {
        self.set(id).map_or(0, |set| self.counts[set])
    }

    /// Whether channels may not be taken from a set.
    pub fn is_bound(&self, set: usize) -> bool {
        self.bound.get(set).copied().unwrap_or(true)
    }

    fn root(&self, mut at: usize) -> usize {
        while self.parents[at] != at {
            at = self.parents[at];
        }
        at
    }

    fn bind(&mut self, id: ValueId) {
        if let Some(set) = self.set(id) {
            self.bound[set] = true;
        }
    }

    fn begin(&mut self, id: ValueId, axis: usize, count: usize) {
        self.places[id.0] = Some(Place { axis, block: 1 });
        self.counts[id.0] = count;
    }

    /// Puts `id` into the set of `of`.
    fn join(&mut self, id: ValueId, place: Place, of: ValueId) {
        self.places[id.0] = Some(place);
        let root = self.root(of.0);
        self.parents[id.0] = root;
        self.sizes[root] += 1;
    }

    /// Makes the sets of two values one.
    fn unite(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.root(a.0), self.root(b.0));
        if a == b {
            return;
        }
        let (a, b) = if self.sizes[a] < self.sizes[b] { (b, a) } else { (a, b) };
        self.bound[a] |= self.bound[b];
        self.sizes[a] += self.sizes[b];
        self.parents[b] = a;
    }

    /// Takes a node's results into sets; `None` where it does with channels what is not
    /// understood.
    fn follow(&mut self, graph: &Graph, node: &Node) -> Option<()> {
        let (x, y) = (*node.inputs.first()?, *node.outputs.first()?);
        if graph.fact(y).dtype != DType::F32 || node.outputs.len() != 1 {
            return None;
        }
        let shape = &graph.fact(x).shape;
        match &node.op {
            Op::Conv(_) | Op::MatMul(_) => self.filter(graph, node, x, y),
            Op::Activate(_) | Op::Unary(_) => {
                self.join(y, self.place(x)?, x);
                Some(())
            }
            Op::Binary(_) => self.combine(graph, node, y),
            Op::Pool(pool) if pool.layout == Layout::Nchw => {
                let place = self.place(x).filter(|&place| place == IMAGE)?;
                self.join(y, place, x);
                Some(())
            }
            Op::Reduce(reduce) => {
                let Place { axis, block } = self.place(x).filter(|place| !reduce.axes.contains(&place.axis))?;
                let gone = if reduce.keep_dims { 0 } else { reduce.axes.iter().filter(|&&a| a < axis).count() };
                self.join(y, Place { axis: axis.checked_sub(gone)?, block }, x);
                Some(())
            }
            Op::Transpose(transpose) => {
                let Place { axis, block } = self.place(x)?;
                let axis = transpose.axes.iter().position(|&from| from == axis)?;
                self.join(y, Place { axis, block }, x);
                Some(())
            }
            Op::Reshape(reshape) => {
                let place = reshaped(shape, self.place(x)?, self.count(x), &reshape.shape)?;
                self.join(y, place, x);
                Some(())
            }
            _ => None,
        }
    }

    fn filter(&mut self, graph: &Graph, node: &Node, x: ValueId, y: ValueId) -> Option<()> {
        let filters = Filters::of(graph, node)?;
        if filters.depthwise {
            let place = self.place(x).filter(|&place| place == IMAGE && self.count(x) == filters.count)?;
            self.join(y, place, x);
        } else {
            let fits = |place: Place| place.axis == filters.axis && (place.block == 1 || !filters.is_conv);
            if !self.place(x).is_some_and(fits) {
                self.bind(x);
            }
            self.begin(y, filters.axis, filters.count);
        }
        if let Some(residual) = filters.residual {
            if self.place(residual) == Some(IMAGE) && self.count(residual) == filters.count {
                self.unite(residual, y);
            } else {
                self.bind(residual);
                self.bind(y);
            }
        }
        Some(())
    }

    /// Arithmetic of operands that broadcast: each has the channels at the same axis, or one
    /// element for all of them.
    fn combine(&mut self, graph: &Graph, node: &Node, y: ValueId) -> Option<()> {
        let out = &graph.fact(y).shape;
        let mut seen: Option<(ValueId, Place)> = None;
        for &id in &node.inputs {
            let Some(place) = self.place(id) else { continue };
            let place = Place { axis: aligned(place.axis, &graph.fact(id).shape, out)?, ..place };
            let first = seen.get_or_insert((id, place));
            if first.1 != place || self.count(first.0) != self.count(id) {
                return None;
            }
        }
        let (first, place) = seen?;
        let count = self.count(first);
        if out.get(place.axis) != count.checked_mul(place.block).as_ref() {
            return None;
        }
        for &id in &node.inputs {
            match (self.place(id), spread(&graph.fact(id).shape, out, place)) {
                (Some(_), Spread::PerElement) => self.unite(first, id),
                (None, Spread::Shared) => {}
                (None, Spread::PerElement) if graph.constant(id).is_some() => {}
                _ => return None,
            }
        }
        self.join(y, place, first);
        Some(())
    }
}

/// Where images have their channels.
const IMAGE: Place = Place { axis: 1, block: 1 };

/// How an operand meets the channels of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// One element for all channels.
    Shared,
    /// One for each.
    PerElement,
}

/// How an operand of `shape` meets the channels that stand at `place` in `out`.
pub(super) fn spread(shape: &Shape, out: &Shape, place: Place) -> Spread {
    let own = own_axis(shape, out, place);
    match own.and_then(|axis| shape.get(axis)) {
        Some(&dim) if dim != 1 => Spread::PerElement,
        // A single channel that is one element is not repeated.
        Some(_) if out.get(place.axis) == Some(&1) => Spread::PerElement,
        _ => Spread::Shared,
    }
}

/// The axis of an operand that is broadcast to the channels of the result.
pub(super) fn own_axis(shape: &Shape, out: &Shape, place: Place) -> Option<usize> {
    (place.axis + shape.rank()).checked_sub(out.rank())
}

/// The axis of the result that an operand's axis is.
fn aligned(axis: usize, shape: &Shape, out: &Shape) -> Option<usize> {
    Some(axis + out.rank().checked_sub(shape.rank())?)
}

/// Where `count` channels stand after a reshape: what lies before them, and so how often each
/// appears, is the same.
fn reshaped(from: &Shape, place: Place, count: usize, to: &Shape) -> Option<Place> {
    let before: usize = from.get(..place.axis)?.iter().product();
    let per_channel = from.get(place.axis..)?.iter().product::<usize>().checked_div(count)?;
    let mut so_far = 1;
    for (axis, &dim) in to.iter().enumerate() {
        if so_far == before && dim >= count && dim.is_multiple_of(count) {
            let block = dim / count;
            let behind: usize = to.get(axis + 1..)?.iter().product();
            return (block * behind == per_channel && block > 0).then_some(Place { axis, block });
        }
        so_far *= dim;
    }
    None
}

/// The constant weights of a convolution or matrix product.
pub(super) struct Filters<'a> {
    /// Number of filters.
    pub count: usize,
    /// Number of input elements that each filter reads a window of: channels, or columns.
    pub depth: usize,
    /// Whether filter `i` reads channel `i` alone.
    pub depthwise: bool,
    /// Whether windows reach into padding.
    pub padded: bool,
    /// What is applied to the sums.
    pub activation: Activation,
    /// What is added to them.
    pub residual: Option<ValueId>,
    /// Whether it is added before the activation.
    pub residual_first: bool,
    /// The axis that channels stand at, before and after.
    pub axis: usize,
    /// A convolution, or else a matrix product.
    pub is_conv: bool,
    /// The axes of the weights: filters, depth.
    pub axes: [usize; 2],
    /// The weights.
    pub weights: &'a Tensor,
    elements: &'a [f32],
    bias: Option<&'a [f32]>,
    taps: usize,
    strides: [usize; 2],
}

impl<'a> Filters<'a> {
    /// The filters of a node; `None` where weights or bias are computed, or channels are grouped
    /// otherwise than one by one.
    pub fn of(graph: &'a Graph, node: &Node) -> Option<Self> {
        let constant = |at: usize| graph.constant(*node.inputs.get(at)?).map(AsRef::as_ref);
        let weights: &Tensor = constant(1)?;
        let elements = weights.elements::<f32>()?;
        let bias = match node.inputs.len() {
            2 => None,
            _ => Some(constant(2)?.elements::<f32>()?),
        };
        let filters = match &node.op {
            Op::Conv(conv) => {
                let &[count, depth, rows, columns] = weights.shape().dims() else { return None };
                let depthwise = conv.groups != 1;
                if conv.layout != Layout::Nchw
                    || conv.roles.has(Role::Scale)
                    || (depthwise && (depth != 1 || conv.groups != count))
                {
                    return None;
                }
                let taps = rows * columns;
                Self {
                    count,
                    depth,
                    depthwise,
                    padded: conv.pads != [0; 4],
                    activation: conv.activation,
                    residual: conv.roles.residual().and_then(|at| node.inputs.get(at).copied()),
                    residual_first: conv.roles.has(Role::Residual),
                    axis: IMAGE.axis,
                    is_conv: true,
                    axes: [0, 1],
                    weights,
                    elements,
                    bias,
                    taps,
                    strides: [depth * taps, taps],
                }
            }
            Op::MatMul(product) => {
                let &[1, rows, columns] = weights.shape().dims() else { return None };
                let axes = if product.transposed { [1, 2] } else { [2, 1] };
                let (count, depth) = if product.transposed { (rows, columns) } else { (columns, rows) };
                Self {
                    count,
                    depth,
                    depthwise: false,
                    padded: false,
                    activation: product.activation,
                    residual: None,
                    residual_first: false,
                    axis: 2,
                    is_conv: false,
                    axes,
                    weights,
                    elements,
                    bias,
                    taps: 1,
                    strides: if product.transposed { [columns, 1] } else { [1, columns] },
                }
            }
            _ => return None,
        };
        let fits = filters.elements.len() == filters.count * filters.depth * filters.taps
            && filters.bias.is_none_or(|bias| bias.len() == filters.count);
        fits.then_some(filters)
    }

    /// The window of weights of a filter and an input element.
    pub fn window(&self, filter: usize, depth: usize) -> &'a [f32] {
        let start = filter * self.strides[0] + depth * self.strides[1];
        self.elements.get(start..start + self.taps).unwrap_or_default()
    }

    /// What a filter adds to its sums.
    pub fn bias(&self, filter: usize) -> f32 {
        self.bias.and_then(|bias| bias.get(filter).copied()).unwrap_or(0.0)
    }

    /// Position of the bias among the operands.
    pub const BIAS: usize = Conv::BIAS;
}

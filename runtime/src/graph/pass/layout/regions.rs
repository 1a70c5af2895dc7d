//! Regions: where images stay in NCHW, because the weights of the convolutions there are mostly zeros.
//!
//! ```text
//! x -> Conv sparse -> Conv depthwise -> Conv dense -> Conv dense -> output
//!      [---------- planes ---------]                [- converted -]
//! ```
//!
//! Sparse kernels compute on NCHW, dense ones do not. So both forms of every node are compared by the kernels' cost
//! model, and the graph, in its order, is cut into regions: the cost of a cut is the conversion of all images that are
//! alive there. The cheapest cuts are found by dynamic programming: one walk through the nodes that keeps the cheapest
//! cost of arriving in either layout.

use skipstone_kernels::Isa;
use skipstone_kernels::conv::{self, FLOATS, Filters, Images, Task};
use skipstone_kernels::pool::PoolFn;

use super::super::super::{Graph, Node, ValueId};
use crate::error::Result;
use crate::operator::Semantics;
use crate::operator::axes::Nhwc;
use crate::ops::Op;
use crate::ops::conv::Conv;
use crate::ops::float_conv::Nonzeros;
use crate::ops::pool::Pool;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::roles::Role;
use crate::ops::stem::Stem;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Cost of converting an element, in the unit of the kernels' costs: half a cycle.
const PER_ELEMENT: f64 = 1.0;

/// Minimum gain of NCHW: the model does not know fused bottlenecks, or images that stay in a cache from one step to the
/// next, both of which favor dense regions. Products at half the rate that it assumes favor sparse ones, which wait for
/// their pixels.
fn margin(isa: Isa) -> f64 {
    if isa.has_half_rate() { 1.0 } else { 1.15 }
}

/// Most channels of an image that a [`Stem`] reads in NCHW and converts to NHWC.
const FEW_CHANNELS: usize = 4;

/// A node's operator for NCHW, and additional constants that it reads.
pub(super) type Planar = (Op, Vec<Tensor>);

/// The NCHW operator of every node that should compute in NCHW.
pub(super) fn planar(graph: &Graph) -> Result<Vec<Option<Planar>>> {
    let isa = Isa::detect();
    let forms = reserve::list(graph.nodes.iter().map(|node| Forms::new(graph, node, isa)))?;
    if !forms.iter().any(|forms| forms.is_sparse) {
        return Ok(reserve::list(forms.iter().map(|_| None))?);
    }
    // The cheapest costs of arriving here with images in NHWC and in NCHW, and whether there was a cut.
    let mut ways = [f64::INFINITY, 0.0];
    let mut came_by_cut = reserve::empty(forms.len())?;
    let cuts = cuts(graph)?;
    for (forms, cut) in forms.iter().zip(&cuts) {
        let [dense, planes] = ways;
        came_by_cut.push([planes + cut < dense, dense + cut < planes]);
        ways = [dense.min(planes + cut) + forms.nhwc, planes.min(dense + cut) + forms.planes];
    }
    let [dense, planes] = ways;
    let mut in_planes = planes < dense + cuts.last().copied().unwrap_or_default();
    let mut chosen: Vec<Option<Planar>> = reserve::empty(forms.len())?;
    for (forms, by_cut) in forms.into_iter().zip(came_by_cut).rev() {
        chosen.push(forms.op.filter(|_| in_planes));
        in_planes ^= by_cut[usize::from(in_planes)];
    }
    chosen.reverse();
    Ok(chosen)
}

/// A node in both layouts.
struct Forms {
    /// Its cost in NHWC.
    nhwc: f64,
    /// Its cost in NCHW.
    planes: f64,
    /// The operator for NCHW; `None` if there is none, or if both layouts are the same.
    op: Option<Planar>,
    /// Whether it is a convolution that is cheaper in NCHW because more than half of its weights are zero.
    is_sparse: bool,
}

impl Forms {
    fn new(graph: &Graph, node: &Node, isa: Isa) -> Self {
        let facts = graph.facts(&node.inputs);
        let on_planes = |op: Op| Self { nhwc: 0.0, planes: 0.0, op: Some((op, Vec::new())), is_sparse: false };
        match &node.op {
            Op::Conv(conv) => Self::of_conv(graph, node, conv, &facts, isa),
            Op::Pool(pool) => match (global(pool, &facts), average(pool, &facts)) {
                (Some(reduce), _) => on_planes(reduce.into()),
                (None, Some((conv, constants))) => {
                    let facts: Vec<&Fact> = facts.iter().copied().chain(constants.iter().map(Tensor::fact)).collect();
                    let Ok(shape) = conv.shape(&facts) else { return on_planes(node.op.clone()) };
                    let [nhwc, planes] =
                        [Images::Nhwc, Images::Nchw].map(|images| cheapest(isa, &Task { images, ..Task::new(&shape) }));
                    let op = planes.is_finite().then(|| (conv.into(), constants));
                    Self { nhwc, planes, op, is_sparse: false }
                }
                _ => Self { planes: f64::INFINITY, op: None, ..on_planes(node.op.clone()) },
            },
            op => match op.nhwc() {
                Nhwc::Must => Self { planes: f64::INFINITY, op: None, ..on_planes(op.clone()) },
                _ => on_planes(op.clone()),
            },
        }
    }

    fn of_conv(graph: &Graph, node: &Node, conv: &Conv, facts: &[&Fact], isa: Isa) -> Self {
        let either = Self { nhwc: 0.0, planes: 0.0, op: None, is_sparse: false };
        let Ok(shape) = conv.shape(facts) else { return either };
        if [shape.in_h, shape.in_w, shape.out_h, shape.out_w] == [1; 4] {
            return either;
        }
        let weights = node.inputs.get(Conv::WEIGHTS).and_then(|&id| graph.constant(id));
        let (scaled, affine) = (conv.roles.has(Role::Scale), conv.roles.has(Role::Affine));
        let task = Task { constant: weights.is_some(), scaled, affine, ..Task::new(&shape) };
        let all = task.nonzeros;
        let counted = weights.and_then(|weights| Some((weights, Nonzeros::of(weights)?)));
        let task = counted.map_or(task, |(weights, count)| count.task(task, weights, |w| Filters::Oihw(w)));
        let cost = |images| cheapest(isa, &Task { images, ..task });
        let is_stem = weights.is_some() && Stem::of(conv, facts).is_some();
        let nhwc = cost(if is_stem { Images::NchwToNhwc } else { Images::Nhwc });
        let planes = margin(isa) * cost(Images::Nchw);
        let op = planes.is_finite().then(|| (conv.clone().into(), Vec::new()));
        Self { nhwc, planes, op, is_sparse: planes < nhwc && conv.groups == 1 && 2 * task.nonzeros < all }
    }
}

/// The cost of the cheapest kernel; infinite if there is none.
fn cheapest(isa: Isa, task: &Task<'_>) -> f64 {
    conv::candidates(FLOATS, isa, task).iter().map(|&(_, cost)| cost).fold(f64::INFINITY, f64::min)
}

/// An average of windows inside the image, as a depthwise convolution with its weights and bias.
fn average(pool: &Pool, facts: &[&Fact]) -> Option<(Conv, Vec<Tensor>)> {
    let x = facts.first()?;
    let &[_, channels, height, width] = x.shape.dims() else { return None };
    let ends =
        |axis: usize| (pool.out[axis].max(1) - 1) * pool.stride[axis] + (pool.kernel[axis] - 1) * pool.dilation[axis];
    let inside = pool.pads == [0; 4] && ends(0) < height && ends(1) < width;
    if !inside || !matches!(pool.function, PoolFn::Average { .. }) || x.dtype != DType::F32 {
        return None;
    }
    let [rows, columns] = pool.kernel;
    let filters = reserve::copies(1.0 / (rows * columns) as f32, channels * rows * columns).ok()?;
    let weights = Tensor::from_slice(&[channels, 1, rows, columns], &filters).ok()?;
    let bias = Tensor::try_zeros(Fact::new(DType::F32, Shape::new(&[channels]).ok()?)).ok()?;
    let (kernel, stride, dilation) = (pool.kernel, pool.stride, pool.dilation);
    let conv = Conv { kernel, stride, dilation, groups: channels, ..Conv::POINTWISE };
    let out = conv.shape(&[x, weights.fact(), bias.fact()]).ok()?;
    ([out.out_h, out.out_w] == pool.out).then(|| (conv, vec![weights, bias]))
}

/// A pooling over whole images, as a reduction.
fn global(pool: &Pool, facts: &[&Fact]) -> Option<Reduce> {
    let &[_, _, height, width] = facts.first()?.shape.dims() else { return None };
    let kind = match pool.function {
        PoolFn::Max => ReduceKind::Max,
        PoolFn::Average { .. } => ReduceKind::Mean,
    };
    let is_global = *pool == Pool { function: pool.function, ..Pool::global(pool.function, height, width) };
    (is_global && height * width > 0).then(|| Reduce { axes: vec![2, 3], kind, keep_dims: true })
}

/// The cost of a cut before every node and after the last: all images alive there are converted.
fn cuts(graph: &Graph) -> Result<Vec<f64>> {
    let behind = graph.nodes.len();
    let mut read = reserve::copies(None, graph.values().len())?;
    for (at, node) in graph.nodes.iter().enumerate() {
        node.for_each_read(&mut |id| read[id.0] = Some(at));
    }
    graph.outputs.iter().for_each(|&(_, id)| read[id.0] = Some(behind));
    let mut changes = reserve::copies(0.0, behind + 2)?;
    let mut alive = |id: ValueId, from: usize| {
        let &[batch, channels, height, width] = graph.fact(id).shape.dims() else { return };
        if let Some(until) = read[id.0].filter(|_| height * width > 1 && channels > 1) {
            let cost = PER_ELEMENT * [batch, channels, height, width].iter().map(|&len| len as f64).product::<f64>();
            changes[from] += cost;
            changes[until + 1] -= cost;
        }
    };
    for &id in &graph.inputs {
        if graph.fact(id).shape.get(1).is_some_and(|&channels| channels > FEW_CHANNELS) {
            alive(id, 0);
        }
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        node.outputs.iter().for_each(|&id| alive(id, at + 1));
    }
    changes.pop();
    let mut cost: f64 = 0.0;
    for change in &mut changes {
        cost += *change;
        *change = cost.max(0.0);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::activation::Activation;

    use super::super::super::testing::Build;
    use super::*;
    use crate::operator::Operator;
    use crate::ops::binary::BinaryKind;
    use crate::ops::check::Random;
    use crate::ops::image::Layout;

    /// A convolution with one in `every` weights nonzero.
    fn conv(build: &mut Build, x: ValueId, op: Conv, filters: usize, every: usize) -> ValueId {
        let channels = build.graph.fact(x).shape[1] / op.groups;
        let [rows, columns] = op.kernel;
        let mut random = Random(every as u64);
        let weights: Vec<f32> = (0..filters * channels * rows * columns)
            .map(|i| if i % every == i / 64 % every { random.float() } else { 0.0 })
            .collect();
        let weights = build.constant(&[filters, channels, rows, columns], &weights);
        let bias = build.constant(&[filters], &vec![0.1; filters]);
        build.add(op, &[x, weights, bias])
    }

    /// Two bottlenecks with a gate, a shortcut and pooling after a stem; returns their operators after all passes.
    fn network(every: usize) -> Vec<(String, Option<Layout>)> {
        let mut build = Build::new(&[1, 3, 28, 28]);
        let window = Conv { kernel: [3, 3], pads: [1; 4], ..Conv::POINTWISE };
        let x = build.x;
        let x = conv(&mut build, x, Conv { stride: [2, 2], ..window.clone() }, 64, 1);
        let x = build.activate(Activation::HardSwish, x);
        let y = conv(&mut build, x, Conv::POINTWISE, 192, every);
        let y = build.activate(Activation::Relu, y);
        let y = conv(&mut build, y, Conv { groups: 192, ..window.clone() }, 192, 1);
        let squeezed = build.add(Pool::global(PoolFn::Average { count_padding: false }, 14, 14), &[y]);
        let gate = conv(&mut build, squeezed, Conv::POINTWISE, 192, 1);
        let gate = build.activate(Activation::Sigmoid, gate);
        let y = build.binary(BinaryKind::Mul, y, gate);
        let y = conv(&mut build, y, Conv::POINTWISE, 64, every);
        let x = build.binary(BinaryKind::Add, x, y);
        let function = PoolFn::Average { count_padding: false };
        let (two, out) = ([2, 2], [7, 7]);
        let pool =
            Pool { function, kernel: two, stride: two, dilation: [1, 1], pads: [0; 4], out, layout: Layout::Nchw };
        let x = build.add(pool, &[x]);
        let x = conv(&mut build, x, Conv::POINTWISE, 256, every);
        let x = build.add(Pool::global(PoolFn::Max, 7, 7), &[x]);
        let graph = build.optimized(x, 1e-4);
        let layout = |op: &Op| match op {
            Op::Conv(conv) => Some(conv.layout),
            _ => None,
        };
        let moves = |node: &&Node| node.op.alias(&graph.facts(&node.inputs)).is_none();
        graph.nodes.iter().filter(moves).map(|node| (node.op.name().to_owned(), layout(&node.op))).collect()
    }

    #[test]
    fn a_sparse_network_stays_in_nchw_to_its_end() {
        let nodes = network(20);
        let count = |is: &dyn Fn(&str, Option<Layout>) -> bool| nodes.iter().filter(|(op, at)| is(op, *at)).count();
        // All but the gate's convolution; the first one may be cheaper in NHWC, and is then converted.
        assert!(count(&|_, layout| layout == Some(Layout::Nchw)) >= 5, "{nodes:?}");
        assert_eq!(count(&|op, _| op == "Transpose"), count(&|op, _| op == "Stem"), "{nodes:?}");
        assert_eq!(count(&|op, _| ["AveragePool", "MaxPool"].contains(&op)), 0, "{nodes:?}");
    }

    #[test]
    fn a_dense_network_is_all_nhwc() {
        for every in [1, 2] {
            assert!(network(every).iter().all(|(_, layout)| *layout != Some(Layout::Nchw)));
        }
    }

    #[test]
    fn only_the_sparse_part_stays_in_nchw() {
        let mut build = Build::new(&[1, 64, 14, 14]);
        let mut x = build.x;
        for every in [20, 20, 1, 1] {
            x = conv(&mut build, x, Conv::POINTWISE, 256, every);
        }
        let graph = build.optimized(x, 1e-4);
        let layouts: Vec<_> = graph
            .nodes
            .iter()
            .filter_map(|node| match &node.op {
                Op::Conv(conv) => Some(conv.layout),
                _ => None,
            })
            .collect();
        assert_eq!(layouts, [[Layout::Nchw; 2], [Layout::Nhwc; 2]].concat());
        assert_eq!(graph.nodes.len(), 6);
    }
}

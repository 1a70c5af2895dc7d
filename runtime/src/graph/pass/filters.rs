//! Filters: the constant weights of convolutions and matrix products; each filter writes a channel and reads channels.

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use crate::ops::Op;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::roles::Role;
use crate::tensor::{Peek, Tensor};

/// The constant weights of a convolution or matrix product.
pub(super) struct Filters<'a> {
    /// Number of filters.
    pub count: usize,
    /// Number of input elements per filter and window position: channels of its group, or columns.
    pub depth: usize,
    /// Number of groups; all have the same number of filters and channels.
    pub groups: usize,
    /// Whether windows reach into padding.
    pub padded: bool,
    /// Applied to the sums.
    pub activation: Activation,
    /// Added to them.
    pub residual: Option<ValueId>,
    /// Whether it is added before the activation.
    pub residual_first: bool,
    /// The axis of the channels, in the input and in the result.
    pub axis: usize,
    /// The axes of the weights: filters, depth.
    pub axes: [usize; 2],
    /// The weights.
    pub weights: &'a Tensor,
    elements: Peek<'a, f32>,
    bias: Option<Peek<'a, f32>>,
    taps: usize,
    strides: [usize; 2],
}

impl<'a> Filters<'a> {
    /// The filters of a node; `None` if weights or bias are not constant.
    pub fn of(graph: &'a Graph, node: &Node) -> Option<Self> {
        let constant = |at: usize| graph.constant(*node.inputs.get(at)?).map(AsRef::as_ref);
        let weights: &Tensor = constant(1)?;
        let elements = weights.peek::<f32>()?;
        let bias = match node.inputs.len() {
            2 => None,
            _ => Some(constant(2)?.peek::<f32>()?),
        };
        let filters = match &node.op {
            Op::Conv(conv) => {
                let &[count, depth, rows, columns] = weights.shape().dims() else { return None };
                if conv.layout != Layout::Nchw || conv.roles.has(Role::Scale) || conv.roles.has(Role::Affine) {
                    return None;
                }
                let taps = rows * columns;
                Self {
                    count,
                    depth,
                    groups: conv.groups,
                    padded: conv.pads != [0; 4],
                    activation: conv.activation,
                    residual: conv.roles.residual().and_then(|at| node.inputs.get(at).copied()),
                    residual_first: conv.roles.has(Role::Residual),
                    axis: Layout::Nchw.channels_axis(),
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
                    groups: 1,
                    padded: false,
                    activation: product.activation,
                    residual: None,
                    residual_first: false,
                    axis: 2,
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

    /// The input channel, or column, that a filter reads at `depth`.
    pub fn channel(&self, filter: usize, depth: usize) -> usize {
        filter / (self.count / self.groups).max(1) * self.depth + depth
    }

    /// The window of weights of a filter for an input element.
    pub fn window(&self, filter: usize, depth: usize) -> Peek<'a, f32> {
        let start = filter * self.strides[0] + depth * self.strides[1];
        self.elements.part(start..start + self.taps)
    }

    /// The bias of a filter.
    pub fn bias(&self, filter: usize) -> f32 {
        self.bias.and_then(|bias| bias.get(filter)).unwrap_or(0.0)
    }

    /// Position of the bias among the operands.
    pub const BIAS: usize = Conv::BIAS;
    /// Position of the weights.
    pub const WEIGHTS: usize = Conv::WEIGHTS;
}

/// Whether all weights of a window are zero.
pub(super) fn is_zero(window: Peek<'_, f32>) -> bool {
    window.iter().all(|weight| weight == 0.0)
}

/// The contribution of a window to a sum if it reads the same value everywhere.
pub(super) fn share(window: Peek<'_, f32>, value: f32) -> f64 {
    window.iter().map(|weight| f64::from(weight) * f64::from(value)).sum()
}

//! Bottlenecks: fuses the convolutions around a large depthwise one with it into one step.
//!
//! ```text
//! x -> Conv 1x1 -> Conv depthwise -> Conv 1x1    =>    x -> Bottleneck
//! ```
//!
//! When: the image between two of them is read only by the next one, and is too large to stay in a cache from one step
//! to the next. Either 1x1 convolution may be missing, for example if a gate between the second and the third needs the
//! whole image. Layouts are already decided: only NHWC is fused. The depthwise kernel is one that is computed in tiles:
//! 3x3 or 5x5, not dilated.
//!
//! In a chain without residuals (MobileNetV1) a 1x1 convolution is the projection of one depthwise convolution and the
//! expansion of the next. It is fused with the one that saves more:
//!
//! ```text
//! x -> depthwise -> 1x1 -> depthwise -> 1x1    =>    x -> Bottleneck -> Bottleneck
//! ```
//!
//! All fusions are decided first, on the original graph; only then is the graph rewritten.

use skipstone_kernels::depthwise;

use super::super::{Graph, Node, Uses};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::bottleneck::Bottleneck;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::roles::Role;
use crate::reserve;
use crate::tensor::Fact;

/// Minimum size in bytes of an image that fusion avoids writing: smaller ones fit the second-level cache of typical
/// cores and are read from it faster than band by band.
const WORTH_FUSING: usize = 512 * 1024;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    fuse(graph, WORTH_FUSING)
}

/// Like [`run`], around images of any size, so that small networks test the same as large ones.
#[cfg(test)]
pub(super) fn everywhere(graph: &mut Graph) -> Result<()> {
    fuse(graph, 0)
}

/// Fuses around images of at least `worth` bytes.
fn fuse(graph: &mut Graph, worth: usize) -> Result<()> {
    let fusions = find(graph, worth)?;
    let mut gone = reserve::copies(false, graph.nodes.len())?;
    for Fusion { expand, depthwise, project } in fusions {
        let stages = || [expand, Some(depthwise), project].into_iter().flatten();
        let conv = |at: usize| match &graph.nodes[at].op {
            Op::Conv(conv) => Some(conv.clone()),
            _ => None,
        };
        let Some(op) = conv(depthwise) else { continue };
        let op = Bottleneck { expand: expand.and_then(conv), depthwise: op, project: project.and_then(conv) };
        let mut inputs = Vec::new();
        for node in stages().map(|at| &graph.nodes[at]) {
            inputs.extend(if inputs.is_empty() { node.inputs.get(Conv::X) } else { None });
            inputs.extend([node.inputs[Conv::WEIGHTS], node.inputs[Conv::BIAS]]);
        }
        // At the last node's position every operand is known.
        let last = project.unwrap_or(depthwise);
        let residual = match &graph.nodes[last].op {
            Op::Conv(conv) => conv.roles.residual(),
            _ => None,
        };
        inputs.extend(residual.and_then(|at| graph.nodes[last].inputs.get(at)));
        stages().for_each(|at| gone[at] = at != last);
        let node = &mut graph.nodes[last];
        (node.op, node.inputs) = (op.into(), inputs);
    }
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or(false));
    Ok(())
}

/// Nodes to fuse, by index. No node is in two of them.
struct Fusion {
    expand: Option<usize>,
    depthwise: usize,
    project: Option<usize>,
}

/// A depthwise convolution and a 1x1 convolution that can be fused with it.
#[derive(Clone, Copy)]
struct Claim {
    depthwise: usize,
    /// Bytes of the image between them, which fusion avoids writing.
    saved: usize,
}

/// Decides which nodes to fuse: a depthwise convolution with each 1x1 convolution assigned to it.
fn find(graph: &Graph, worth: usize) -> Result<Vec<Fusion>> {
    let uses = graph.uses()?;
    let around = |at| neighbors(graph, &uses, at, worth);
    let neighbors = reserve::list((0..graph.nodes.len()).filter_map(around))?;
    let mut owners: Vec<Option<Claim>> = reserve::copies(None, graph.nodes.len())?;
    for &Fusion { expand, depthwise, project } in &neighbors {
        let node = &graph.nodes[depthwise];
        let ends = [(expand, node.inputs.get(Conv::X)), (project, node.outputs.first())];
        for (pointwise, image) in ends {
            let (Some(pointwise), Some(&image)) = (pointwise, image) else { continue };
            let claim = Claim { depthwise, saved: graph.fact(image).bytes() };
            let owner = owners[pointwise].get_or_insert(claim);
            if claim.saved > owner.saved {
                *owner = claim;
            }
        }
    }
    let owned = neighbors.into_iter().map(|Fusion { expand, depthwise, project }| {
        let own = |&pointwise: &usize| owners[pointwise].is_some_and(|owner| owner.depthwise == depthwise);
        Fusion { expand: expand.filter(own), depthwise, project: project.filter(own) }
    });
    Ok(reserve::list(owned.filter(|fusion| fusion.expand.or(fusion.project).is_some()))?)
}

/// The depthwise convolution at `at` with its neighbors that can be fused with it.
fn neighbors(graph: &Graph, uses: &Uses, at: usize, worth: usize) -> Option<Fusion> {
    let node = graph.nodes.get(at)?;
    let conv = plain(graph, node)?;
    let operands: Vec<&Fact> = node.inputs.iter().map(|&id| graph.fact(id)).collect();
    let shape = conv.shape(&operands).ok()?;
    // Within a bottleneck, other kernels are computed pixel by pixel, which takes longer than what fusion saves.
    if conv.groups == 1 || !depthwise::takes(&shape) || !depthwise::is_tiled(&shape) {
        return None;
    }
    let (input, output) = (*node.inputs.get(Conv::X)?, *node.outputs.first()?);
    let large = |id| graph.fact(id).bytes() >= worth;
    let pointwise = |at: usize| {
        let conv = plain(graph, graph.nodes.get(at)?)?;
        (conv.is_pointwise() && conv.groups == 1).then_some(conv)
    };
    let expand = uses.writer(input).filter(|_| large(input) && uses.only_reader(input).is_some());
    let expand = expand.filter(|&at| pointwise(at).is_some_and(|conv| conv.roles.residual().is_none()));
    let project = uses.only_reader(output).filter(|_| large(output) && conv.roles.residual().is_none());
    let project = project.filter(|&at| pointwise(at).is_some() && graph.nodes[at].inputs[Conv::X] == output);
    (expand.is_some() || project.is_some()).then_some(Fusion { expand, depthwise: at, project })
}

/// The convolution of a node, if it is NHWC, has constant weights, and no scale, masks or affine map.
fn plain<'a>(graph: &Graph, node: &'a Node) -> Option<&'a Conv> {
    let Op::Conv(conv) = &node.op else { return None };
    let constant = |at: usize| node.inputs.get(at).is_some_and(|&id| graph.constant(id).is_some());
    let plain = !conv.roles.has(Role::Scale) && !conv.roles.has(Role::Affine) && !conv.roles.are_masked();
    (conv.layout == Layout::Nhwc && plain && constant(Conv::WEIGHTS)).then_some(conv)
}

#[cfg(test)]
mod tests;

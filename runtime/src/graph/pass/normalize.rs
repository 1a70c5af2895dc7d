//! Layer normalization, as exporters and the importer write it.
//!
//! ```text
//! x -> ReduceMean -> d = Sub(x, mean) -> Square -> ReduceMean -> Add(e) -> Rsqrt -> Mul(d)
//!     =>    LayerNorm(x, ones)
//! x -> Square -> ReduceMean -> Add(e) -> Sqrt -> r;  Div(x, r)    =>    RmsNorm(x, ones)
//! LayerNorm(x, ones) -> Mul(scale) -> Add(bias)                   =>    LayerNorm(x, scale, bias)
//! ```
//!
//! When: f32, the means are over the last axes, scale and bias are constants along those axes, and no intermediate
//! value is read elsewhere. Means are already reductions (the pass `mean`).

use super::super::{Graph, Node, ValueId};
use super::pattern::Pattern;
use crate::error::Result;
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::ops::layernorm::{LayerNorm, Norm};
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::unary::UnaryKind;
use crate::reserve;
use crate::tensor::{Shape, Tensor};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    rewrite(graph, |pattern, node| {
        let Found { x, op } = normalization(pattern, node)?;
        Some((op, vec![x]))
    })?;
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let (Op::LayerNorm(op), &[x]) = (&node.op, node.inputs.as_slice()) else { continue };
        let row = graph.fact(x).shape.iter().skip(op.axis).product::<usize>();
        let name = format!("{}.scale", node.name);
        let ones = Tensor::from_slice(&[row], &reserve::copies(1f32, row)?).map_err(|e| e.at(&node.name))?;
        let scale = graph.add_constant(name, ones)?;
        graph.nodes[index].inputs.push(scale);
    }
    rewrite(graph, scaled)?;
    rewrite(graph, biased)
}

/// Replaces every node that `find` recognizes by the returned normalization and its inputs.
fn rewrite(graph: &mut Graph, find: impl Fn(&Pattern<'_>, &Node) -> Option<(LayerNorm, Vec<ValueId>)>) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let found = reserve::list(graph.nodes.iter().map(|node| find(&pattern, node)))?;
    for (node, found) in graph.nodes.iter_mut().zip(found) {
        if let Some((op, inputs)) = found {
            node.op = op.into();
            node.inputs = inputs;
        }
    }
    Ok(())
}

struct Found {
    x: ValueId,
    op: LayerNorm,
}

fn normalization(pattern: &Pattern<'_>, node: &Node) -> Option<Found> {
    let (dividend, root) = if let Some([a, b]) = Pattern::operands(node, BinaryKind::Div) {
        (a, Pattern::unary(pattern.inner(b)?, UnaryKind::Sqrt)?)
    } else {
        let [a, b] = Pattern::operands(node, BinaryKind::Mul)?;
        let inverse = |id| inverse_root(pattern, id);
        inverse(b).map(|root| (a, root)).or_else(|| inverse(a).map(|root| (b, root)))?
    };
    let (mean, epsilon) = pattern.with_number(pattern.inner(root)?, BinaryKind::Add)?;
    let (square, axis) = mean_over_last(pattern, pattern.inner(mean)?)?;
    if epsilon < 0.0 || pattern.product(pattern.inner(square)?).values != [dividend; 2] {
        return None;
    }
    // Read by the square, once or twice, and here.
    let within = |id| {
        pattern.readers(id)
            == 1 + pattern.inner(square).map_or(0, |node| node.inputs.iter().filter(|&&i| i == id).count())
    };
    let centered = pattern.writer(dividend).filter(|_| within(dividend)).and_then(|writer| {
        let [x, mean] = Pattern::operands(writer, BinaryKind::Sub)?;
        (mean_over_last(pattern, pattern.inner(mean)?)? == (x, axis)).then_some(x)
    });
    Some(match centered {
        Some(x) => Found { x, op: LayerNorm { axis, epsilon, norm: Norm::Standard } },
        None => Found { x: dividend, op: LayerNorm { axis, epsilon, norm: Norm::RootMeanSquare } },
    })
}

/// The value whose inverse root this is.
fn inverse_root(pattern: &Pattern<'_>, id: ValueId) -> Option<ValueId> {
    let node = pattern.inner(id)?;
    if let Some(x) = Pattern::unary(node, UnaryKind::Rsqrt) {
        return Some(x);
    }
    let inverted = Pattern::unary(node, UnaryKind::Reciprocal).or_else(|| {
        let [one, x] = Pattern::operands(node, BinaryKind::Div)?;
        (pattern.number(one) == Some(1.0)).then_some(x)
    })?;
    Pattern::unary(pattern.inner(inverted)?, UnaryKind::Sqrt)
}

/// The operand of a mean over the axes from some axis on, and that axis.
fn mean_over_last(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, usize)> {
    let Op::Reduce(Reduce { axes, kind: ReduceKind::Mean, keep_dims: true }) = &node.op else { return None };
    let &[x] = node.inputs.as_slice() else { return None };
    let &first = axes.first()?;
    let fact = pattern.graph.fact(x);
    let row: usize = fact.shape.iter().skip(first).product();
    let last = axes.iter().copied().eq(first..fact.shape.rank());
    (last && row > 0 && fact.dtype == crate::tensor::DType::F32).then_some((x, first))
}

/// Whether `parameter` is a constant with one element for each of a row of `shape`.
fn fits_row(pattern: &Pattern<'_>, parameter: ValueId, shape: &Shape, axis: usize) -> bool {
    let dims = pattern.graph.fact(parameter).shape.dims();
    let leading = dims.len().saturating_sub(shape.rank().saturating_sub(axis));
    pattern.graph.constant(parameter).is_some()
        && dims.iter().take(leading).all(|&dim| dim == 1)
        && dims.get(leading..) == shape.get(axis..)
}

/// `LayerNorm(x, ones) * scale`
fn scaled(pattern: &Pattern<'_>, node: &Node) -> Option<(LayerNorm, Vec<ValueId>)> {
    let (op, inputs, scale) = parameter(pattern, node, BinaryKind::Mul)?;
    match inputs.as_slice() {
        &[x, ones] if pattern.number(ones) == Some(1.0) => Some((op, vec![x, scale])),
        _ => None,
    }
}

/// `LayerNorm(x, scale) + bias`
fn biased(pattern: &Pattern<'_>, node: &Node) -> Option<(LayerNorm, Vec<ValueId>)> {
    let (op, inputs, bias) = parameter(pattern, node, BinaryKind::Add)?;
    match inputs.as_slice() {
        &[x, scale] => Some((op, vec![x, scale, bias])),
        _ => None,
    }
}

/// The normalization that is one operand of `kind`, its inputs, and the other operand.
fn parameter(pattern: &Pattern<'_>, node: &Node, kind: BinaryKind) -> Option<(LayerNorm, Vec<ValueId>, ValueId)> {
    let [a, b] = Pattern::operands(node, kind)?;
    let of = |normalized: ValueId, parameter: ValueId| {
        let inner = pattern.inner(normalized)?;
        let Op::LayerNorm(op) = inner.op else { return None };
        let shape = &pattern.graph.fact(normalized).shape;
        fits_row(pattern, parameter, shape, op.axis).then(|| (op, inner.inputs.clone(), parameter))
    };
    of(a, b).or_else(|| of(b, a))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;

    fn mean(build: &mut Build, x: ValueId) -> ValueId {
        let axis = build.graph.fact(x).shape.rank() - 1;
        let sum = build.add(Reduce { axes: vec![axis], kind: ReduceKind::Sum, keep_dims: true }, &[x]);
        let count = build.graph.fact(x).shape[axis] as f32;
        build.with(BinaryKind::Div, sum, count)
    }

    fn names(graph: &Graph) -> Vec<String> {
        graph.nodes.iter().map(|node| format!("{:?}/{}", node.op, node.inputs.len())).collect()
    }

    #[test]
    fn forms_of_the_importer_and_of_pytorch() {
        for front_end in [true, false] {
            let mut build = Build::new(&[2, 3, 8]);
            let x = build.x;
            let average = mean(&mut build, x);
            let d = build.binary(BinaryKind::Sub, x, average);
            let square =
                if front_end { build.unary(UnaryKind::Square, d) } else { build.with(BinaryKind::Pow, d, 2.0) };
            let variance = mean(&mut build, square);
            let sum = build.with(BinaryKind::Add, variance, 1e-5);
            let normal = if front_end {
                let inverse = build.unary(UnaryKind::Rsqrt, sum);
                build.binary(BinaryKind::Mul, d, inverse)
            } else {
                let root = build.unary(UnaryKind::Sqrt, sum);
                build.binary(BinaryKind::Div, d, root)
            };
            let (scale, bias) = (build.constant(&[8], &[0.5; 8]), build.constant(&[1, 1, 8], &[2.0; 8]));
            let scaled = build.binary(BinaryKind::Mul, normal, scale);
            let y = build.binary(BinaryKind::Add, scaled, bias);
            assert_eq!(names(&build.optimized(y, 1e-5)), ["LayerNorm/3"]);
        }
    }

    #[test]
    fn root_mean_square() {
        type Normal = fn(&mut Build, ValueId) -> ValueId;
        let spellings: [Normal; 4] = [
            |build, sum| {
                let inverse = build.unary(UnaryKind::Rsqrt, sum);
                build.binary(BinaryKind::Mul, build.x, inverse)
            },
            |build, sum| {
                let root = build.unary(UnaryKind::Sqrt, sum);
                build.binary(BinaryKind::Div, build.x, root)
            },
            |build, sum| {
                let root = build.unary(UnaryKind::Sqrt, sum);
                let inverse = build.unary(UnaryKind::Reciprocal, root);
                build.binary(BinaryKind::Mul, build.x, inverse)
            },
            |build, sum| {
                let root = build.unary(UnaryKind::Sqrt, sum);
                let one = build.constant(&[], &[1.0]);
                let inverse = build.binary(BinaryKind::Div, one, root);
                build.binary(BinaryKind::Mul, inverse, build.x)
            },
        ];
        for normal in spellings {
            let mut build = Build::new(&[2, 8]);
            let square = build.with(BinaryKind::Pow, build.x, 2.0);
            let average = mean(&mut build, square);
            let sum = build.with(BinaryKind::Add, average, 1e-5);
            let normal = normal(&mut build, sum);
            let scale = build.constant(&[8], &[0.5; 8]);
            let y = build.binary(BinaryKind::Mul, scale, normal);
            assert_eq!(names(&build.optimized(y, 1e-5)), ["RmsNorm/2"]);
        }
    }

    #[test]
    fn a_variance_that_is_read_elsewhere_stays() {
        let mut build = Build::new(&[2, 8]);
        let x = build.x;
        let average = mean(&mut build, x);
        let d = build.binary(BinaryKind::Sub, x, average);
        let square = build.unary(UnaryKind::Square, d);
        let variance = mean(&mut build, square);
        build.output(variance);
        let sum = build.with(BinaryKind::Add, variance, 1e-5);
        let inverse = build.unary(UnaryKind::Rsqrt, sum);
        let y = build.binary(BinaryKind::Mul, d, inverse);
        assert!(!names(&build.optimized(y, 1e-5)).iter().any(|name| name.contains("Norm")));
    }
}

//! Softmax, its logarithm and sigmoid, as models spell them with arithmetic.
//!
//! ```text
//! x -> Neg -> Exp -> Add(1) -> Reciprocal, or 1 / that                       =>    x -> Sigmoid
//! e = Exp(x);  e / (e + 1)                                                   =>    x -> Sigmoid
//! x -> Mul(1/2) -> Tanh -> Add(1) -> Mul(1/2)                                =>    x -> Sigmoid
//! e = Exp(x);  e / ReduceSum(e)                                              =>    x -> Softmax
//! e = Exp(x - ReduceMax(x));  e / ReduceSum(e)                               =>    x -> Softmax
//! x -> LogSoftmax -> Exp                                                     =>    x -> Softmax
//! x - Log(ReduceSum(Exp(x))), with or without the maximum, x - LogSumExp(x)  =>    x -> LogSoftmax
//! ```
//!
//! When: f32 or f64, and the sums are along adjacent axes. One step replaces several, large elements do not overflow,
//! and a classifier knows what its scores are.

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use super::pattern::{Pattern, near};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::BinaryKind;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::unary::{Unary, UnaryKind};
use crate::reserve;
use crate::tensor::DType;

/// Longest chain of equal nodes in two copies of an expression.
const DEPTH: usize = 4;

/// An operator, its operand, and the node that becomes the negation of its own operand, if the result needs it.
struct Found {
    op: Op,
    x: ValueId,
    negate: Option<usize>,
}

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let find = |node: &Node| {
        let dtype = graph.fact(*node.outputs.first()?).dtype;
        let supported = matches!(dtype, DType::F32 | DType::F64) && node.outputs.len() == 1;
        let found = supported.then(|| sigmoid(&pattern, node).or_else(|| softmax(&pattern, node))).flatten()?;
        // The result of a broadcast is another shape.
        (graph.fact(found.x) == graph.fact(*node.outputs.first()?)).then_some(found)
    };
    let found = reserve::list(graph.nodes.iter().map(find))?;
    for (index, found) in found.into_iter().enumerate() {
        let Some(Found { op, x, negate }) = found else { continue };
        if let Some(negate) = negate.and_then(|at| graph.nodes.get_mut(at)) {
            negate.op = Unary { kind: UnaryKind::Neg }.into();
        }
        graph.nodes[index].op = op;
        graph.nodes[index].inputs = vec![x];
    }
    Ok(())
}

/// The value, if `id` is a constant of floats with all elements equal.
fn number(pattern: &Pattern<'_>, id: ValueId) -> Option<f64> {
    if let Some(number) = pattern.number(id) {
        return Some(f64::from(number));
    }
    let elements = pattern.graph.constant(id)?.peek::<f64>()?;
    elements.get(0).filter(|&first| elements.iter().all(|other| other == first))
}

/// The value that a sum of it and the number is of.
fn less(pattern: &Pattern<'_>, node: &Node, term: f64) -> Option<ValueId> {
    let [a, b] = Pattern::operands(node, BinaryKind::Add)?;
    let of = |x, constant| (number(pattern, constant) == Some(term)).then_some(x);
    of(a, b).or_else(|| of(b, a))
}

/// The value that this is the negation of.
fn negated(pattern: &Pattern<'_>, id: ValueId) -> Option<ValueId> {
    let node = pattern.writer(id)?;
    if let Some(x) = Pattern::unary(node, UnaryKind::Neg) {
        return Some(x);
    }
    if let Some([zero, x]) = Pattern::operands(node, BinaryKind::Sub) {
        return (number(pattern, zero) == Some(0.0)).then_some(x);
    }
    let [a, b] = Pattern::operands(node, BinaryKind::Mul)?;
    let of = |x, constant| (number(pattern, constant) == Some(-1.0)).then_some(x);
    of(a, b).or_else(|| of(b, a))
}

/// The divisor, if this is one divided by a value.
fn inverted(pattern: &Pattern<'_>, node: &Node) -> Option<ValueId> {
    if let Some(x) = Pattern::unary(node, UnaryKind::Reciprocal) {
        return Some(x);
    }
    if let Some([one, x]) = Pattern::operands(node, BinaryKind::Div) {
        return (number(pattern, one) == Some(1.0)).then_some(x);
    }
    let [x, power] = Pattern::operands(node, BinaryKind::Pow)?;
    (number(pattern, power) == Some(-1.0)).then_some(x)
}

/// Dividend and divisor, also of a product with a reciprocal.
fn quotient(pattern: &Pattern<'_>, node: &Node) -> Option<[ValueId; 2]> {
    if let Some(operands) = Pattern::operands(node, BinaryKind::Div) {
        return Some(operands);
    }
    let [a, b] = Pattern::operands(node, BinaryKind::Mul)?;
    let of = |x, divisor| Some([x, inverted(pattern, pattern.writer(divisor)?)?]);
    of(a, b).or_else(|| of(b, a))
}

fn sigmoid(pattern: &Pattern<'_>, node: &Node) -> Option<Found> {
    let op: Op = match pattern.graph.fact(*node.outputs.first()?).dtype {
        DType::F64 => Unary { kind: UnaryKind::Sigmoid }.into(),
        _ => Activate { activation: Activation::Sigmoid }.into(),
    };
    if let Some(below) = inverted(pattern, node) {
        let power = less(pattern, pattern.writer(below)?, 1.0)?;
        let z = Pattern::unary(pattern.writer(power)?, UnaryKind::Exp)?;
        if let Some(x) = negated(pattern, z) {
            return Some(Found { op, x, negate: None });
        }
        // e^z is not needed, so its node computes -z.
        let only = pattern.inner(below).is_some() && pattern.inner(power).is_some();
        return pattern.position(power).filter(|_| only).map(|at| Found { op, x: power, negate: Some(at) });
    }
    if let Some([power, below]) = quotient(pattern, node) {
        let x = Pattern::unary(pattern.writer(power)?, UnaryKind::Exp)?;
        let term = less(pattern, pattern.writer(below)?, 1.0)?;
        return same(pattern, term, power, DEPTH).then_some(Found { op, x, negate: None });
    }
    let bent = line_of(pattern, node)?;
    let tanh = pattern.inner(bent.x)?;
    let inside = match Pattern::activation(tanh) {
        Some((Activation::Tanh, inside)) => inside,
        _ => Pattern::unary(tanh, UnaryKind::Tanh)?,
    };
    let half = pattern.inner(inside).and_then(|node| line_of(pattern, node))?;
    let fits = near(bent.alpha as f32, 0.5) && near(bent.beta as f32, 0.5);
    (fits && near(half.alpha as f32, 0.5) && half.beta == 0.0).then_some(Found { op, x: half.x, negate: None })
}

/// `alpha * x + beta`
struct Line {
    x: ValueId,
    alpha: f64,
    beta: f64,
}

/// The line of the value that is farthest behind a node through sums and products with numbers.
fn line_of(pattern: &Pattern<'_>, node: &Node) -> Option<Line> {
    let mut line = link(pattern, node)?;
    for _ in 0..DEPTH {
        let Some(next) = pattern.inner(line.x).and_then(|node| link(pattern, node)) else { break };
        let (alpha, beta) = (line.alpha * next.alpha, line.alpha * next.beta + line.beta);
        line = Line { x: next.x, alpha, beta };
    }
    Some(line)
}

/// One sum or product with a number.
fn link(pattern: &Pattern<'_>, node: &Node) -> Option<Line> {
    let operands = |kind| {
        let [a, b] = Pattern::operands(node, kind)?;
        match number(pattern, b) {
            Some(number) => Some((a, number)),
            None if kind.is_commutative() => Some((b, number(pattern, a)?)),
            None => None,
        }
    };
    let added = operands(BinaryKind::Add).map(|(x, beta)| Line { x, alpha: 1.0, beta });
    let line = added
        .or_else(|| operands(BinaryKind::Sub).map(|(x, number)| Line { x, alpha: 1.0, beta: -number }))
        .or_else(|| operands(BinaryKind::Mul).map(|(x, alpha)| Line { x, alpha, beta: 0.0 }))
        .or_else(|| operands(BinaryKind::Div).map(|(x, number)| Line { x, alpha: number.recip(), beta: 0.0 }))?;
    (pattern.graph.fact(line.x) == pattern.graph.fact(*node.outputs.first()?)).then_some(line)
}

fn softmax(pattern: &Pattern<'_>, node: &Node) -> Option<Found> {
    if let Some(logarithms) = Pattern::unary(node, UnaryKind::Exp) {
        let writer = pattern.writer(logarithms)?;
        return match &writer.op {
            Op::Softmax(Softmax { axes, kind: SoftmaxKind::LogSoftmax }) => {
                let op = Softmax { axes: axes.clone(), kind: SoftmaxKind::Softmax }.into();
                Some(Found { op, x: *writer.inputs.first()?, negate: None })
            }
            _ => None,
        };
    }
    let found = |x: ValueId, axes: Vec<usize>, kind| {
        let x = less_maximum(pattern, x, &axes);
        Some(Found { op: Softmax { axes, kind }.into(), x, negate: None })
    };
    if let Some([power, sum]) = quotient(pattern, node) {
        let z = Pattern::unary(pattern.writer(power)?, UnaryKind::Exp)?;
        let (summed, axes) = sum_of(pattern, sum, power)?;
        return same(pattern, summed, power, DEPTH).then(|| found(z, axes, SoftmaxKind::Softmax)).flatten();
    }
    let [x, subtracted] = Pattern::operands(node, BinaryKind::Sub)?;
    let writer = pattern.writer(kept(pattern, subtracted))?;
    let (z, axes) = match Pattern::operands(writer, BinaryKind::Add) {
        None => logarithm(pattern, writer, x)?,
        // x - (shift + log(sum(e^(x - shift))))
        Some([a, b]) => {
            let of = |log: ValueId, shift: ValueId| {
                let (moved, axes) = logarithm(pattern, pattern.writer(kept(pattern, log))?, x)?;
                let [z, own] = Pattern::operands(pattern.writer(moved)?, BinaryKind::Sub)?;
                same(pattern, own, shift, DEPTH).then_some((z, axes))
            };
            of(a, b).or_else(|| of(b, a))?
        }
    };
    same(pattern, x, z, DEPTH).then(|| found(x, axes, SoftmaxKind::LogSoftmax)).flatten()
}

/// The `z` and the axes, if a node is `log(sum(e^z))`, which is subtracted from a value of the shape of `x`.
fn logarithm(pattern: &Pattern<'_>, node: &Node, x: ValueId) -> Option<(ValueId, Vec<usize>)> {
    let sum = Pattern::unary(node, UnaryKind::Log)?;
    let (power, axes) = sum_of(pattern, sum, x)?;
    Some((Pattern::unary(pattern.writer(power)?, UnaryKind::Exp)?, axes))
}

/// What is summed and along which axes, if that has the shape of `x` and the axes are adjacent and kept.
fn sum_of(pattern: &Pattern<'_>, id: ValueId, x: ValueId) -> Option<(ValueId, Vec<usize>)> {
    // The absolute values of powers are the powers.
    let (summed, axes) = reduction(pattern, id, &[ReduceKind::Sum, ReduceKind::L1])?;
    (pattern.graph.fact(summed) == pattern.graph.fact(x)).then_some((summed, axes))
}

/// The operand and the axes of a reduction along adjacent axes that keeps them, perhaps by a reshape.
fn reduction(pattern: &Pattern<'_>, id: ValueId, kinds: &[ReduceKind]) -> Option<(ValueId, Vec<usize>)> {
    let writer = pattern.writer(kept(pattern, id))?;
    let Op::Reduce(Reduce { axes, kind, .. }) = &writer.op else { return None };
    let &x = writer.inputs.first()?;
    let mut dims = pattern.graph.fact(x).shape.to_vec();
    let adjacent = !axes.is_empty() && axes.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    if !kinds.contains(kind) || !adjacent {
        return None;
    }
    axes.iter().for_each(|&axis| dims[axis] = 1);
    // The result is broadcast, and may lack leading axes.
    let shape = &pattern.graph.fact(id).shape;
    let leading = dims.len().checked_sub(shape.rank())?;
    (dims[..leading].iter().all(|&dim| dim == 1) && &dims[leading..] == shape.dims()).then(|| (x, axes.clone()))
}

/// The value before a reshape, or the value.
fn kept(pattern: &Pattern<'_>, id: ValueId) -> ValueId {
    match pattern.writer(id) {
        Some(Node { op: Op::Reshape(_), inputs, .. }) => inputs.first().copied().unwrap_or(id),
        _ => id,
    }
}

/// The `x` of `x - max(x)`, whose softmax is the same; otherwise the value.
fn less_maximum(pattern: &Pattern<'_>, id: ValueId, axes: &[usize]) -> ValueId {
    let of = || {
        let [x, most] = Pattern::operands(pattern.writer(id)?, BinaryKind::Sub)?;
        let (whole, along) = reduction(pattern, most, &[ReduceKind::Max])?;
        (along == axes && same(pattern, whole, x, DEPTH)).then_some(x)
    };
    of().unwrap_or(id)
}

/// Whether two values are the same, or are computed in the same way from the same values.
fn same(pattern: &Pattern<'_>, a: ValueId, b: ValueId, depth: usize) -> bool {
    if a == b {
        return true;
    }
    let (Some(one), Some(other)) = (pattern.writer(a), pattern.writer(b)) else { return false };
    let equal = match (&one.op, &other.op) {
        (Op::Unary(one), Op::Unary(other)) => one == other,
        (Op::Binary(one), Op::Binary(other)) => one == other,
        (Op::Reduce(one), Op::Reduce(other)) => one == other,
        (Op::Reshape(one), Op::Reshape(other)) => one == other,
        _ => false,
    };
    equal
        && depth > 0
        && one.inputs.len() == other.inputs.len()
        && one.inputs.iter().zip(&other.inputs).all(|(&a, &b)| same(pattern, a, b, depth - 1))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::reshape::Reshape;
    use crate::tensor::{Fact, Shape, Tensor};

    type Spelling = fn(&mut Build) -> ValueId;

    fn names(graph: &Graph) -> Vec<String> {
        graph.nodes.iter().map(|node| format!("{:?}", node.op)).collect()
    }

    fn check(name: &str, spellings: &[Spelling]) {
        for (index, spelling) in spellings.iter().enumerate() {
            let mut build = Build::new(&[2, 5]);
            let y = spelling(&mut build);
            assert_eq!(names(&build.optimized(y, 1e-5)), [name], "spelling {index}");
        }
    }

    fn reduce(build: &mut Build, kind: ReduceKind, x: ValueId) -> ValueId {
        build.add(Reduce { axes: vec![1], kind, keep_dims: true }, &[x])
    }

    /// `e^x`, and its sum
    fn powers(build: &mut Build, x: ValueId) -> (ValueId, ValueId) {
        let powers = build.unary(UnaryKind::Exp, x);
        let sum = reduce(build, ReduceKind::Sum, powers);
        (powers, sum)
    }

    fn centered(build: &mut Build) -> ValueId {
        let most = reduce(build, ReduceKind::Max, build.x);
        build.binary(BinaryKind::Sub, build.x, most)
    }

    /// `1 + e^-x`
    fn below(build: &mut Build) -> ValueId {
        let negative = build.unary(UnaryKind::Neg, build.x);
        let power = build.unary(UnaryKind::Exp, negative);
        build.with(BinaryKind::Add, power, 1.0)
    }

    #[test]
    fn every_spelling_of_a_sigmoid() {
        let spellings: [Spelling; 7] = [
            |b| {
                let (one, below) = (b.constant(&[1], &[1.0]), below(b));
                b.binary(BinaryKind::Div, one, below)
            },
            |b| {
                let below = below(b);
                b.unary(UnaryKind::Reciprocal, below)
            },
            |b| {
                let below = below(b);
                b.with(BinaryKind::Pow, below, -1.0)
            },
            |b| {
                let negative = b.with(BinaryKind::Mul, b.x, -1.0);
                let power = b.unary(UnaryKind::Exp, negative);
                let one = b.constant(&[2, 5], &[1.0; 10]);
                let below = b.binary(BinaryKind::Add, one, power);
                b.unary(UnaryKind::Reciprocal, below)
            },
            |b| {
                let zero = b.constant(&[], &[0.0]);
                let negative = b.binary(BinaryKind::Sub, zero, b.x);
                let power = b.unary(UnaryKind::Exp, negative);
                let below = b.with(BinaryKind::Add, power, 1.0);
                b.unary(UnaryKind::Reciprocal, below)
            },
            |b| {
                let power = b.unary(UnaryKind::Exp, b.x);
                let below = b.with(BinaryKind::Add, power, 1.0);
                b.binary(BinaryKind::Div, power, below)
            },
            |b| {
                let half = b.with(BinaryKind::Mul, b.x, 0.5);
                let tanh = b.activate(Activation::Tanh, half);
                let sum = b.with(BinaryKind::Add, tanh, 1.0);
                b.with(BinaryKind::Mul, sum, 0.5)
            },
        ];
        check("Sigmoid", &spellings);
    }

    /// Not of a negation: `1 / (1 + e^z)` is `sigmoid(-z)`.
    #[test]
    fn an_exponent_without_a_negation_is_negated() {
        let mut build = Build::new(&[2, 5]);
        let power = build.unary(UnaryKind::Exp, build.x);
        let below = build.with(BinaryKind::Add, power, 1.0);
        let y = build.unary(UnaryKind::Reciprocal, below);
        assert_eq!(names(&build.optimized(y, 1e-5)), ["Neg", "Sigmoid"]);
    }

    #[test]
    fn every_spelling_of_a_softmax() {
        let spellings: [Spelling; 7] = [
            |b| {
                let (powers, sum) = powers(b, b.x);
                b.binary(BinaryKind::Div, powers, sum)
            },
            |b| {
                let x = centered(b);
                let (powers, sum) = powers(b, x);
                b.binary(BinaryKind::Div, powers, sum)
            },
            |b| {
                let (powers, sum) = powers(b, b.x);
                let inverse = b.unary(UnaryKind::Reciprocal, sum);
                b.binary(BinaryKind::Mul, inverse, powers)
            },
            // Without the reuse of equal expressions.
            |b| {
                let (x, other) = (centered(b), centered(b));
                let power = b.unary(UnaryKind::Exp, x);
                let (_, sum) = powers(b, other);
                b.binary(BinaryKind::Div, power, sum)
            },
            |b| {
                let power = b.unary(UnaryKind::Exp, b.x);
                let sum = b.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: false }, &[power]);
                let sum = b.add(Reshape { shape: Shape::new(&[2, 1]).unwrap() }, &[sum]);
                b.binary(BinaryKind::Div, power, sum)
            },
            |b| {
                let power = b.unary(UnaryKind::Exp, b.x);
                let sum = reduce(b, ReduceKind::L1, power);
                b.binary(BinaryKind::Div, power, sum)
            },
            |b| {
                let logarithms = b.add(Softmax { axes: vec![1], kind: SoftmaxKind::LogSoftmax }, &[b.x]);
                b.unary(UnaryKind::Exp, logarithms)
            },
        ];
        check("Softmax", &spellings);
    }

    #[test]
    fn every_spelling_of_its_logarithm() {
        let spellings: [Spelling; 3] = [
            |b| {
                let (_, sum) = powers(b, b.x);
                let log = b.unary(UnaryKind::Log, sum);
                b.binary(BinaryKind::Sub, b.x, log)
            },
            |b| {
                let x = centered(b);
                let (_, sum) = powers(b, x);
                let log = b.unary(UnaryKind::Log, sum);
                b.binary(BinaryKind::Sub, x, log)
            },
            |b| {
                let most = reduce(b, ReduceKind::Max, b.x);
                let x = b.binary(BinaryKind::Sub, b.x, most);
                let (_, sum) = powers(b, x);
                let log = b.unary(UnaryKind::Log, sum);
                let log = b.binary(BinaryKind::Add, most, log);
                b.binary(BinaryKind::Sub, b.x, log)
            },
        ];
        check("LogSoftmax", &spellings);
    }

    #[test]
    fn another_sum_is_left_alone() {
        let spellings: [Spelling; 4] = [
            // The sum of other axes.
            |b| {
                let power = b.unary(UnaryKind::Exp, b.x);
                let sum = b.add(Reduce { axes: vec![0], kind: ReduceKind::Mean, keep_dims: true }, &[power]);
                b.binary(BinaryKind::Div, power, sum)
            },
            // The sum of other powers.
            |b| {
                let scaled = b.with(BinaryKind::Mul, b.x, 2.0);
                let (power, (_, sum)) = (b.unary(UnaryKind::Exp, b.x), powers(b, scaled));
                b.binary(BinaryKind::Div, power, sum)
            },
            |b| {
                let power = b.unary(UnaryKind::Exp, b.x);
                let below = b.with(BinaryKind::Add, power, 2.0);
                b.unary(UnaryKind::Reciprocal, below)
            },
            |b| {
                let (one, below) = (b.constant(&[1, 5], &[1.0, 1.0, 1.0, 1.0, 2.0]), below(b));
                b.binary(BinaryKind::Div, one, below)
            },
        ];
        for spelling in spellings {
            let mut build = Build::new(&[2, 5]);
            let y = spelling(&mut build);
            assert!(build.optimized(y, 1e-5).nodes.len() > 2);
        }
    }

    #[test]
    fn double_precision() {
        let mut graph = Graph::new();
        let x = graph.add_input("x", Fact::new(DType::F64, Shape::new(&[1, 3]).unwrap())).unwrap();
        let one = graph.add_constant("one", Tensor::scalar(1f64)).unwrap();
        let mut value = x;
        for kind in [UnaryKind::Neg, UnaryKind::Exp] {
            value = graph.add_node(format!("{kind:?}"), Unary { kind }, &[value]).unwrap()[0];
        }
        let add = crate::ops::binary::Binary::new(BinaryKind::Add);
        let below = graph.add_node("sum", add, &[value, one]).unwrap()[0];
        let divide = crate::ops::binary::Binary::new(BinaryKind::Div);
        let y = graph.add_node("quotient", divide, &[one, below]).unwrap()[0];
        graph.outputs.push(("y".into(), y));
        super::super::optimize(&mut graph).unwrap();
        assert_eq!(names(&graph), ["Sigmoid"]);
        let x = Tensor::from_slice(&[1, 3], &[-800.0, 0.0, 800.0]).unwrap();
        assert_eq!(graph.evaluate(&[x]).unwrap()[0].peek::<f64>().unwrap().iter().collect::<Vec<_>>(), [0.0, 0.5, 1.0]);
    }
}

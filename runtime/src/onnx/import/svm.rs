//! ai.onnx.ml: support vector machines, as products with the support vectors.

use skipstone_kernels::activation::Activation;

use super::build::{Halt, Imported};
use super::call::Call;
use super::coupling;
use super::ml::{MAX_COLUMNS, PostTransform, float_rows, labels, linear, post_transform, times};
use super::table::{Entry, classical};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::reduce::ReduceKind;
use crate::ops::unary::UnaryKind;
use crate::reserve;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] =
    &[classical(&["SVMRegressor"], regressor), classical(&["SVMClassifier"], classifier)];

/// The kernel function of every row with every support vector: `[n, vectors]`.
fn kernel(cx: &mut Call<'_, '_>, vectors: usize) -> Result<ValueId, Halt> {
    let x = float_rows(cx)?;
    let features = cx.shape(x)[1];
    let held = cx.floats("support_vectors")?.unwrap_or_default();
    if vectors.checked_mul(features) != Some(held.len()) {
        return Err(cx.attribute_error("support_vectors", format!("are not {vectors} rows of {features}")));
    }
    let vectors = cx.elements(&[vectors, features], &held)?;
    let params = cx.floats("kernel_params")?.unwrap_or_default();
    let [gamma, coef0, degree] = match *params.as_slice() {
        [] => [0.0; 3],
        [gamma, coef0, degree] => [gamma, coef0, degree].map(f64::from),
        _ => return Err(cx.attribute_error("kernel_params", "must be gamma, coef0 and degree")),
    };
    let products = times(cx, x, vectors)?;
    let scaled = |cx: &mut Call<'_, '_>| {
        let y = cx.with_number(BinaryKind::Mul, products, gamma)?;
        cx.with_number(BinaryKind::Add, y, coef0)
    };
    match cx.text("kernel_type")? {
        None | Some("LINEAR") => Ok(products),
        Some("POLY") => {
            let y = scaled(cx)?;
            cx.with_number(BinaryKind::Pow, y, degree)
        }
        Some("SIGMOID") => {
            let y = scaled(cx)?;
            cx.activate(Activation::Tanh, y)
        }
        Some("RBF") => {
            // Differences, not |x|^2 - 2xy + |y|^2, which loses small values.
            let count = cx.shape(x)[0];
            let wide = cx.reshape(x, &[count, 1, features])?;
            let apart = cx.binary(BinaryKind::SqDiff, wide, vectors)?;
            let sum = cx.reduce(ReduceKind::Sum, apart, &[2], false)?;
            let scaled = cx.with_number(BinaryKind::Mul, sum, -gamma)?;
            cx.unary(UnaryKind::Exp, scaled)
        }
        Some(other) => Err(cx.attribute_error("kernel_type", format!("is '{other}'"))),
    }
}

fn regressor(cx: &mut Call<'_, '_>) -> Imported {
    let coefficients = cx.floats("coefficients")?.unwrap_or_default();
    let rho = cx.floats("rho")?.unwrap_or_default();
    let Some(&rho) = rho.first() else { return Err(cx.attribute_error("rho", "is missing")) };
    if cx.transform()? != PostTransform::None {
        return Err(cx.attribute_error("post_transform", "is not supported for a support vector regressor"));
    }
    let supports = usize::try_from(cx.int("n_supports", 0)?).unwrap_or(0);
    let y = if supports > 0 {
        if coefficients.len() != supports {
            return Err(cx.attribute_error("coefficients", format!("has {} for {supports}", coefficients.len())));
        }
        let kernels = kernel(cx, supports)?;
        let weights = cx.elements(&[1, supports], &coefficients)?;
        times(cx, kernels, weights)?
    } else {
        linear(cx, &coefficients, &[], 1)?
    };
    let y = cx.with_number(BinaryKind::Add, y, rho.into())?;
    if !cx.flag("one_class", false)? {
        return Ok(vec![y]);
    }
    let (zero, in_class, outside) = (cx.scalar(0f32)?, cx.scalar(1f32)?, cx.scalar(-1f32)?);
    let above = cx.compare(CompareKind::Greater, y, zero)?;
    Ok(vec![cx.select(above, in_class, outside)?])
}

/// Support vectors that separate each pair of classes; a row gets the class with most votes. Coefficients are `[classes
/// - 1, vectors]`: those of class `i` against class `j` are in row `j - 1` before the diagonal, in row `j` after it.
fn classifier(cx: &mut Call<'_, '_>) -> Imported {
    let (classes, transform) = (cx.classes()?, cx.transform()?);
    let count = classes.count();
    let per_class = cx.ints("vectors_per_class")?.unwrap_or_default();
    let per_class = reserve::all(per_class.iter().map(|&len| usize::try_from(len).ok()));
    let per_class = per_class.ok_or_else(|| cx.attribute_error("vectors_per_class", "has a negative entry"))?;
    let vectors = per_class.iter().try_fold(0usize, |all, &len| all.checked_add(len)).unwrap_or(usize::MAX);
    if vectors == 0 {
        return Err(cx.refusal("SVMClassifier without support vectors is not supported"));
    }
    let pairs = count.saturating_mul(count.saturating_sub(1)) / 2;
    let coefficients = cx.floats("coefficients")?.unwrap_or_default();
    let rho = cx.floats("rho")?.unwrap_or_default();
    let fits = count >= 2
        && per_class.len() == count
        && pairs <= MAX_COLUMNS
        && Some(coefficients.len()) == vectors.checked_mul(count - 1)
        && rho.len() == pairs
        // One row of coefficients per pair is made from this.
        && pairs.checked_mul(vectors).is_some_and(|all| all <= coefficients.len().saturating_mul(MAX_COLUMNS));
    if !fits {
        let what = format!("do not match {vectors} support vectors of {count} classes");
        return Err(cx.attribute_error("coefficients", what));
    }
    let kernels = kernel(cx, vectors)?;

    // The vectors that each pair weighs, and the class that it votes for.
    let starts = cx.list(per_class.iter().scan(0, |at, len| Some(std::mem::replace(at, *at + len))))?;
    let mut weights = cx.copies(0f32, pairs * vectors)?;
    let (mut first, mut second) = (cx.copies(0f32, count * pairs)?, cx.copies(0f32, count * pairs)?);
    let all = (0..count).flat_map(|i| (i + 1..count).map(move |j| (i, j)));
    for (pair, (i, j)) in all.enumerate() {
        for (class, row) in [(i, j - 1), (j, i)] {
            let of = starts[class]..starts[class] + per_class[class];
            let row = &coefficients[row * vectors..][..vectors];
            weights[pair * vectors..][..vectors][of.clone()].copy_from_slice(&row[of]);
        }
        first[i * pairs + pair] = 1.0;
        second[j * pairs + pair] = 1.0;
    }
    let weights = cx.elements(&[pairs, vectors], &weights)?;
    let rho = cx.elements(&[1, pairs], &rho)?;
    let scores = times(cx, kernels, weights)?;
    let scores = cx.binary(BinaryKind::Add, scores, rho)?;
    let zero = cx.scalar(0f32)?;
    let above = cx.compare(CompareKind::Greater, scores, zero)?;
    let above = cx.cast(above, DType::F32)?;
    let one = cx.scalar(1f32)?;
    let below = cx.binary(BinaryKind::Sub, one, above)?;
    let (first, second) = (cx.elements(&[count, pairs], &first)?, cx.elements(&[count, pairs], &second)?);
    let (first, second) = (times(cx, above, first)?, times(cx, below, second)?);
    let votes = cx.binary(BinaryKind::Add, first, second)?;
    let label = labels(cx, &classes, votes)?;
    let (a, b) = (cx.floats("prob_a")?.unwrap_or_default(), cx.floats("prob_b")?.unwrap_or_default());
    if !a.is_empty() || !b.is_empty() {
        let scores = probabilities(cx, scores, [&a, &b], count)?;
        return Ok(vec![label, post_transform(cx, scores, transform)?]);
    }
    if count > 2 {
        return Ok(vec![label, post_transform(cx, scores, transform)?]);
    }
    // ONNX Runtime returns the single score of two classes with both signs.
    if !matches!(transform, PostTransform::None | PostTransform::Logistic) {
        return Err(cx.attribute_error("post_transform", "is not supported for one score of two classes"));
    }
    let other = cx.unary(UnaryKind::Neg, scores)?;
    let both = cx.add(Concat { axis: 1 }, &[other, scores])?;
    Ok(vec![label, post_transform(cx, both, transform)?])
}

/// Least probability of a class of a pair.
const LEAST: f32 = 1e-7;

/// Probabilities of classes by Platt scaling of the pairs' scores: `1 / (1 + e^(a score + b))` for the first class.
fn probabilities(
    cx: &mut Call<'_, '_>,
    scores: ValueId,
    scaling: [&[f32]; 2],
    classes: usize,
) -> Result<ValueId, Halt> {
    let pairs = cx.shape(scores)[1];
    if scaling.iter().any(|list| list.len() != pairs) {
        return Err(cx.attribute_error("prob_a", format!("and prob_b must have one entry for each of {pairs} pairs")));
    }
    let [a, b] = [cx.elements(&[1, pairs], scaling[0])?, cx.elements(&[1, pairs], scaling[1])?];
    let scaled = cx.binary(BinaryKind::Mul, scores, a)?;
    let scaled = cx.binary(BinaryKind::Add, scaled, b)?;
    let scaled = cx.unary(UnaryKind::Neg, scaled)?;
    let first = cx.activate(Activation::Sigmoid, scaled)?;
    let first = cx.activate(Activation::Clip { min: LEAST, max: 1.0 - LEAST }, first)?;
    coupling::probabilities(cx, first, classes)
}

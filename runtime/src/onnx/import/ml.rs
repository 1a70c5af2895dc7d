//! ai.onnx.ml: the operators of classical models, in ordinary operators; trees have a separate file.
//!
//! Our tensors cannot hold text. If labels are text, the result with the labels is the indices of the classes, whose
//! names become the labels of the model; it can be an output, but nodes cannot read it.
//!
//! ONNX Runtime and the reference evaluator of ONNX differ in some cases. We follow
//! - the evaluator for the label of a tree ensemble: the class with the largest score in the output. ONNX Runtime
//!   returns 0 or 1 for two classes that have separate weights, and ignores classes without a weight;
//! - the evaluator for one score `s` of two classes of trees without a transform: `1 - s` and `s`, also if weights are
//!   negative;
//! - ONNX Runtime for a regressor with one target: no transform except PROBIT is applied;
//! - ONNX Runtime for Normalizer: MAX divides by the largest element, not by the largest magnitude;
//! - ONNX Runtime for one score `s` of LinearClassifier without a transform: `1 - s` and `s`.
//!
//! Other cases that the two treat differently, and that no exporter is known to write, are refused.

use skipstone_kernels::activation::Activation;
use skipstone_onnx::proto::{Model, Node};
use skipstone_reserve::NoMemory;

use super::build::{Halt, Imported};
use super::call::Call;
use super::elementwise::expand_to;
use super::product::{Order, of_operands};
use super::table::{Entry, classical};
use super::tensor;
use crate::error::Error;
use crate::graph::ValueId;
use crate::ops::argmax::ArgMax;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::gather::Gather;
use crate::ops::reduce::ReduceKind;
use crate::ops::slice::Slice;
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::unary::UnaryKind;
use crate::reserve;
use crate::tensor::{DType, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    classical(&["LinearClassifier"], linear_classifier),
    classical(&["LinearRegressor"], linear_regressor),
    classical(&["Scaler"], scaler),
    classical(&["Normalizer"], normalizer),
    classical(&["Binarizer"], binarizer),
    classical(&["Imputer"], imputer),
    classical(&["ArrayFeatureExtractor"], array_feature_extractor),
    classical(&["FeatureVectorizer"], feature_vectorizer),
    classical(&["LabelEncoder"], label_encoder),
    classical(&["OneHotEncoder"], one_hot_encoder),
    classical(&["ZipMap"], zip_map),
];

/// Most comparisons of a table of labels, and most pairs of classes: each takes a column of the arena.
pub(super) const MAX_COLUMNS: usize = 1 << 12;

/// The transform of scores at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostTransform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

/// The names of classes.
pub(super) enum Classes {
    Numbers(Vec<i64>),
    /// Their number.
    Texts(usize),
}

impl Classes {
    pub fn count(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Texts(count) => *count,
        }
    }
}

impl Call<'_, '_> {
    /// The attribute `post_transform`.
    pub fn transform(&self) -> Result<PostTransform, Halt> {
        Ok(match self.text("post_transform")? {
            None | Some("NONE") => PostTransform::None,
            Some("SOFTMAX") => PostTransform::Softmax,
            Some("LOGISTIC") => PostTransform::Logistic,
            Some("SOFTMAX_ZERO") => PostTransform::SoftmaxZero,
            Some("PROBIT") => PostTransform::Probit,
            Some(other) => return Err(self.attribute_error("post_transform", format!("is '{other}'"))),
        })
    }

    /// The names of the classes, integers or text.
    pub fn classes(&self) -> Result<Classes, Halt> {
        let of_trees = self.ints("classlabels_int64s")?;
        let numbers = if of_trees.is_some() { of_trees } else { self.ints("classlabels_ints")? };
        match numbers.filter(|numbers| !numbers.is_empty()) {
            Some(numbers) => Ok(Classes::Numbers(numbers)),
            None => Ok(Classes::Texts(self.texts("classlabels_strings")?.unwrap_or_default().len())),
        }
    }

    /// Refuses the operator.
    pub fn refusal(&self, reason: impl Into<String>) -> Halt {
        Error::Unsupported { node: self.name().to_owned(), reason: reason.into() }.into()
    }
}

/// The operand as rows of features: a vector is one row.
pub(super) fn rows(cx: &mut Call<'_, '_>) -> Result<ValueId, Halt> {
    let x = cx.input(0)?;
    match *cx.shape(x).dims() {
        [_, _] => Ok(x),
        [features] => cx.reshape(x, &[1, features]),
        _ => Err(cx.shape_error("features must be a matrix or a vector", &[x])),
    }
}

/// Rows of f32.
pub(super) fn float_rows(cx: &mut Call<'_, '_>) -> Result<ValueId, Halt> {
    let x = rows(cx)?;
    cx.cast(x, DType::F32)
}

/// The class of each row: the one with the largest score.
pub(super) fn labels(cx: &mut Call<'_, '_>, classes: &Classes, scores: ValueId) -> Result<ValueId, Halt> {
    let count = cx.shape(scores)[0];
    let at = cx.add(ArgMax { axis: 1, largest: true, last: false }, &[scores])?;
    let at = cx.reshape(at, &[count])?;
    named(cx, classes, at)
}

/// Names of classes by their indices.
fn named(cx: &mut Call<'_, '_>, classes: &Classes, at: ValueId) -> Result<ValueId, Halt> {
    match classes {
        Classes::Numbers(numbers) => {
            let numbers = cx.elements(&[numbers.len()], numbers)?;
            cx.add(Gather { axis: 0 }, &[numbers, at])
        }
        Classes::Texts(_) => {
            let output = cx.node.outputs.first().copied().unwrap_or_default();
            cx.build.withhold_names(at, format!("the labels '{output}' are text, which nodes cannot read"))?;
            Ok(at)
        }
    }
}

/// Two columns of scores, computed from the score of the second class.
pub(super) fn one_column(cx: &mut Call<'_, '_>, score: ValueId, transform: PostTransform) -> Result<ValueId, Halt> {
    match transform {
        PostTransform::None => {
            let one = cx.scalar(1f32)?;
            let other = cx.binary(BinaryKind::Sub, one, score)?;
            cx.add(Concat { axis: 1 }, &[other, score])
        }
        PostTransform::Logistic => {
            let other = cx.unary(UnaryKind::Neg, score)?;
            let scores = cx.add(Concat { axis: 1 }, &[other, score])?;
            post_transform(cx, scores, transform)
        }
        _ => Err(cx.attribute_error("post_transform", "must be LOGISTIC for one score of two classes")),
    }
}

/// The transform of scores `[n, classes]`.
pub(super) fn post_transform(cx: &mut Call<'_, '_>, x: ValueId, transform: PostTransform) -> Result<ValueId, Halt> {
    match transform {
        PostTransform::None => Ok(x),
        PostTransform::Softmax => cx.add(Softmax { axes: vec![1], kind: SoftmaxKind::Softmax }, &[x]),
        PostTransform::Logistic => cx.activate(Activation::Sigmoid, x),
        PostTransform::SoftmaxZero => softmax_zero(cx, x),
        PostTransform::Probit => probit(cx, x),
    }
}

/// A softmax in which scores of 0 stay 0.
fn softmax_zero(cx: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Halt> {
    let max = cx.reduce(ReduceKind::Max, x, &[1], true)?;
    let moved = cx.binary(BinaryKind::Sub, x, max)?;
    let power = cx.unary(UnaryKind::Exp, moved)?;
    let size = cx.unary(UnaryKind::Abs, x)?;
    let (least, zero) = (cx.scalar(1e-7f32)?, cx.scalar(0f32)?);
    let counts = cx.compare(CompareKind::Greater, size, least)?;
    let power = cx.select(counts, power, zero)?;
    let sum = cx.reduce(ReduceKind::Sum, power, &[1], true)?;
    cx.binary(BinaryKind::Div, power, sum)
}

/// `sqrt(2) * erfinv(2x - 1)` by Winitzki's approximation with 0.147, as in ONNX Runtime.
fn probit(cx: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Halt> {
    let doubled = cx.with_number(BinaryKind::Mul, x, 2.0)?;
    let centered = cx.with_number(BinaryKind::Sub, doubled, 1.0)?;
    let one = cx.scalar(1f32)?;
    let below = cx.binary(BinaryKind::Sub, one, centered)?;
    let above = cx.binary(BinaryKind::Add, one, centered)?;
    let both = cx.binary(BinaryKind::Mul, below, above)?;
    let log = cx.unary(UnaryKind::Log, both)?;
    let half = cx.with_number(BinaryKind::Mul, log, 0.5)?;
    let v = cx.with_number(BinaryKind::Add, half, f64::from(2.0f32 / (std::f32::consts::PI * 0.147)))?;
    let squared = cx.binary(BinaryKind::Mul, v, v)?;
    let part = cx.with_number(BinaryKind::Mul, log, f64::from(1.0f32 / 0.147))?;
    let inner = cx.binary(BinaryKind::Sub, squared, part)?;
    let root = cx.unary(UnaryKind::Sqrt, inner)?;
    let outer = cx.binary(BinaryKind::Sub, root, v)?;
    let size = cx.unary(UnaryKind::Sqrt, outer)?;
    let sign = cx.unary(UnaryKind::Sign, centered)?;
    let signed = cx.binary(BinaryKind::Mul, sign, size)?;
    cx.with_number(BinaryKind::Mul, signed, std::f64::consts::SQRT_2)
}

/// A row of constants, one per column of a matrix, or one for all of them.
fn columns(cx: &mut Call<'_, '_>, name: &'static str, list: &[f32], len: usize) -> Result<ValueId, Halt> {
    if list.len() != 1 && list.len() != len {
        return Err(cx.attribute_error(name, format!("has {} elements for {len} columns", list.len())));
    }
    cx.elements(&[list.len()], list)
}

/// The last dimension of the operand.
fn width(cx: &Call<'_, '_>, x: ValueId) -> usize {
    cx.shape(x).last().copied().unwrap_or(1)
}

/// `(x - offset) * scale`
fn scaler(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let mut y = cx.cast(x, DType::F32)?;
    let len = width(cx, y);
    for (name, kind) in [("offset", BinaryKind::Sub), ("scale", BinaryKind::Mul)] {
        if let Some(list) = cx.floats(name)?.filter(|list| !list.is_empty()) {
            let list = columns(cx, name, &list, len)?;
            y = cx.binary(kind, y, list)?;
        }
    }
    Ok(vec![y])
}

/// Rows divided by their largest element, or by the sum or the norm of their elements; rows where that is 0 stay
/// unchanged.
fn normalizer(cx: &mut Call<'_, '_>) -> Imported {
    let given = cx.input(0)?;
    let x = float_rows(cx)?;
    let kind = match cx.text("norm")? {
        None | Some("MAX") => ReduceKind::Max,
        Some("L1") => ReduceKind::L1,
        Some("L2") => ReduceKind::L2,
        Some(other) => return Err(cx.attribute_error("norm", format!("is '{other}'"))),
    };
    let norm = cx.reduce(kind, x, &[1], true)?;
    let (zero, one) = (cx.scalar(0f32)?, cx.scalar(1f32)?);
    let is_zero = cx.compare(CompareKind::Equal, norm, zero)?;
    let norm = cx.select(is_zero, one, norm)?;
    let y = cx.binary(BinaryKind::Div, x, norm)?;
    let dims = cx.shape(given).to_vec();
    Ok(vec![cx.reshape(y, &dims)?])
}

/// 1 for elements above the threshold, otherwise 0.
fn binarizer(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let threshold = cx.float("threshold", 0.0)?;
    let threshold = cx.scalar_of(cx.dtype(x), threshold.into())?;
    let above = cx.compare(CompareKind::Greater, x, threshold)?;
    Ok(vec![cx.cast(above, cx.dtype(x))?])
}

/// A column for each category, 1 in that of the element. An element without a category is all 0 or, without `zeros`,
/// an error of the run.
fn one_hot_encoder(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let Some(categories) = cx.ints("cats_int64s")?.filter(|categories| !categories.is_empty()) else {
        return Err(cx.refusal("OneHotEncoder of text is not supported; encode text outside of the model"));
    };
    if categories.len() > MAX_COLUMNS {
        return Err(cx.refusal(format!("OneHotEncoder of {} categories", categories.len())));
    }
    let x = cx.cast(x, DType::I64)?;
    let mut dims = cx.shape(x).to_vec();
    dims.push(1);
    let x = cx.reshape(x, &dims)?;
    let categories = cx.elements(&[categories.len()], &categories)?;
    let equal = cx.compare(CompareKind::Equal, x, categories)?;
    let y = cx.cast(equal, DType::F32)?;
    if cx.flag("zeros", true)? {
        return Ok(vec![y]);
    }
    // Index 1 of a table with one element is refused.
    let known = cx.reduce(ReduceKind::Max, y, &[dims.len() - 1], true)?;
    let known = cx.cast(known, DType::Bool)?;
    let (inside, outside) = (cx.scalar(0i64)?, cx.scalar(1i64)?);
    let at = cx.select(known, inside, outside)?;
    let table = cx.elements(&[1], &[0f32])?;
    let nothing = cx.add(Gather { axis: 0 }, &[table, at])?;
    Ok(vec![cx.binary(BinaryKind::Add, y, nothing)?])
}

/// Replaces one value by others, one per column.
fn imputer(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (len, dtype) = (width(cx, x), cx.dtype(x));
    let (values, missing) = match (dtype, cx.floats("imputed_value_floats")?, cx.ints("imputed_value_int64s")?) {
        (DType::I64 | DType::I32, _, Some(values)) => {
            if values.len() != 1 && values.len() != len {
                return Err(cx.attribute_error("imputed_value_int64s", format!("has {} elements", values.len())));
            }
            let old = cx.int("replaced_value_int64", 0)?;
            let old = cx.scalar(old)?;
            let wide = cx.cast(x, DType::I64)?;
            (cx.elements(&[values.len()], &values)?, cx.compare(CompareKind::Equal, wide, old)?)
        }
        (DType::F32 | DType::F64, Some(values), _) => {
            let values = columns(cx, "imputed_value_floats", &values, len)?;
            let old = cx.float("replaced_value_float", 0.0)?;
            let missing = match old.is_nan() {
                true => cx.compare(CompareKind::NotEqual, x, x)?,
                false => {
                    let number = cx.scalar_of(dtype, f64::from(old))?;
                    cx.compare(CompareKind::Equal, x, number)?
                }
            };
            (values, missing)
        }
        _ => return Err(cx.refusal(format!("Imputer of {dtype} has no values of that type to put in"))),
    };
    let values = cx.cast(values, dtype)?;
    Ok(vec![cx.select(missing, values, x)?])
}

/// `x * coefficients' + intercepts` for coefficients of `targets` rows.
pub(super) fn linear(
    cx: &mut Call<'_, '_>,
    coefficients: &[f32],
    intercepts: &[f32],
    targets: usize,
) -> Result<ValueId, Halt> {
    let x = float_rows(cx)?;
    let features = cx.shape(x)[1];
    if Some(coefficients.len()) != features.checked_mul(targets) || coefficients.is_empty() {
        let what = format!("has {} elements for {targets} rows of {features}", coefficients.len());
        return Err(cx.attribute_error("coefficients", what));
    }
    let rows = cx.elements(&[targets, features], coefficients)?;
    let y = times(cx, x, rows)?;
    if intercepts.is_empty() {
        return Ok(y);
    }
    let intercepts = columns(cx, "intercepts", intercepts, targets)?;
    cx.binary(BinaryKind::Add, y, intercepts)
}

/// `a * b'`
pub(super) fn times(cx: &mut Call<'_, '_>, a: ValueId, b: ValueId) -> Result<ValueId, Halt> {
    let b = cx.transpose(b, &[1, 0])?;
    let product = of_operands(cx, a, b)?;
    let y = product.multiply(cx, a, b)?;
    product.result(cx, y, Order::Plain)
}

fn linear_classifier(cx: &mut Call<'_, '_>) -> Imported {
    let (classes, transform) = (cx.classes()?, cx.transform()?);
    let coefficients = cx.floats("coefficients")?.unwrap_or_default();
    let intercepts = cx.floats("intercepts")?.unwrap_or_default();
    let columns = intercepts.len();
    if classes.count() < 2 || (columns != classes.count() && (columns, classes.count()) != (1, 2)) {
        return Err(cx.attribute_error("intercepts", format!("has {columns} for {} classes", classes.count())));
    }
    let scores = linear(cx, &coefficients, &intercepts, columns)?;
    if columns > 1 {
        let label = labels(cx, &classes, scores)?;
        return Ok(vec![label, post_transform(cx, scores, transform)?]);
    }
    let zero = cx.scalar(0f32)?;
    let second = cx.compare(CompareKind::Greater, scores, zero)?;
    let second = cx.cast(second, DType::I64)?;
    let second = cx.reshape(second, &[cx.shape(scores)[0]])?;
    let label = named(cx, &classes, second)?;
    Ok(vec![label, one_column(cx, scores, transform)?])
}

fn linear_regressor(cx: &mut Call<'_, '_>) -> Imported {
    let targets = usize::try_from(cx.int("targets", 1)?).ok().filter(|&targets| targets > 0);
    let targets = targets.ok_or_else(|| cx.attribute_error("targets", "must be at least 1"))?;
    let coefficients = cx.floats("coefficients")?.unwrap_or_default();
    let intercepts = cx.floats("intercepts")?.unwrap_or_default();
    let transform = cx.transform()?;
    let scores = linear(cx, &coefficients, &intercepts, targets)?;
    // A single target is not transformed, as in ONNX Runtime, except by PROBIT.
    if targets == 1 && transform != PostTransform::Probit {
        return Ok(vec![scores]);
    }
    Ok(vec![post_transform(cx, scores, transform)?])
}

/// Columns of the last axis, selected by index.
fn array_feature_extractor(cx: &mut Call<'_, '_>) -> Imported {
    let (mut x, indices) = (cx.input(0)?, cx.input(1)?);
    if cx.rank(x) == 1 {
        let len = cx.shape(x)[0];
        x = cx.reshape(x, &[1, len])?;
    }
    let Some(axis) = cx.rank(x).checked_sub(1) else {
        return Err(cx.shape_error("the operand must have an axis", &[x]));
    };
    let count = cx.shape(indices).elements();
    let indices = cx.reshape(indices, &[count])?;
    cx.add_all(Gather { axis }, &[x, indices])
}

/// Columns of all operands side by side, with the requested number from each.
fn feature_vectorizer(cx: &mut Call<'_, '_>) -> Imported {
    let inputs = cx.all_inputs()?;
    let lens = cx.ints("inputdimensions")?.unwrap_or_default();
    if lens.len() != inputs.len() {
        return Err(cx.attribute_error("inputdimensions", format!("has {} for {} inputs", lens.len(), inputs.len())));
    }
    let mut parts = Vec::with_capacity(inputs.len());
    for (&x, &len) in inputs.iter().zip(&lens) {
        let (first, all) = (cx.shape(x).first().copied().unwrap_or(1), cx.shape(x).elements());
        let held = all.checked_div(first).unwrap_or(0);
        let x = cx.reshape(x, &[first, held])?;
        let x = cx.cast(x, DType::F32)?;
        let len = usize::try_from(len).ok().filter(|&len| len > 0 && len <= held);
        let Some(len) = len else {
            return Err(cx.attribute_error("inputdimensions", format!("must be from 1 to {held} columns")));
        };
        parts.push(if len == held { x } else { cx.add(Slice { axis: 1, start: 0, len, step: 1 }, &[x])? });
    }
    match *parts.as_slice() {
        [one] => Ok(vec![one]),
        _ => cx.add_all(Concat { axis: 1 }, &parts),
    }
}

/// The names of the classes: the same in all nodes of the main graph that have some.
///
/// # Errors
/// No memory.
pub(in super::super) fn class_names(model: &Model<'_>) -> Result<Option<String>, NoMemory> {
    let classical = model.graph.iter().flat_map(|graph| &graph.nodes).filter(|node| node.domain == "ai.onnx.ml");
    let lists = classical.filter_map(|node| match node.op_type {
        "LabelEncoder" => node.attribute("values_strings").filter(|_| encodes_indices(node)),
        _ => node.attribute("classlabels_strings"),
    });
    let mut lists = lists.map(|list| &list.strings).filter(|list| !list.is_empty());
    let Some(first) = lists.next() else { return Ok(None) };
    let mut names = reserve::empty(first.len())?;
    for name in first {
        match std::str::from_utf8(name) {
            Ok(name) => names.push(name),
            Err(_) => return Ok(None),
        }
    }
    let is_line = |name: &&str| !name.trim().is_empty() && !name.contains(['\n', '\r']);
    let same = lists.all(|list| list.iter().copied().eq(names.iter().map(|name| name.as_bytes())));
    if !same || !names.iter().all(is_line) {
        return Ok(None);
    }
    let mut lines = String::new();
    let bytes = names.iter().map(|name| name.len() + 1).sum();
    lines.try_reserve_exact(bytes).map_err(|_| NoMemory(bytes))?;
    for name in names {
        lines.extend([if lines.is_empty() { "" } else { "\n" }, name]);
    }
    Ok(Some(lines))
}

/// Whether a LabelEncoder has the keys 0, 1, ..
fn encodes_indices(node: &Node<'_>) -> bool {
    node.attribute("keys_int64s").is_some_and(|keys| keys.ints.ints().eq(0..keys.ints.count as i64))
}

/// Indices of names: other numbers become -1.
fn indices_of_names(cx: &mut Call<'_, '_>, x: ValueId, names: usize) -> Imported {
    let (zero, end, other) = (cx.scalar(0i64)?, cx.scalar(names as i64)?, cx.scalar(-1i64)?);
    let after = cx.compare(CompareKind::GreaterEqual, x, zero)?;
    let before = cx.compare(CompareKind::Less, x, end)?;
    let known = cx.binary(BinaryKind::And, after, before)?;
    let y = cx.select(known, x, other)?;
    cx.build.withhold_names(y, "a LabelEncoder returns text, which nodes cannot read".into())?;
    Ok(vec![y])
}

/// A table from numbers to numbers; an element is compared with every key, and the first match wins. Text is encoded
/// only from indices.
fn label_encoder(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let names = cx.texts("values_strings")?.map_or(0, |names| names.len());
    if names > 0 && encodes_indices(cx.node) && cx.ints("keys_int64s")?.is_some_and(|keys| keys.len() == names) {
        return indices_of_names(cx, x, names);
    }
    let text = "LabelEncoder to or from text is not supported; encode labels outside of the model";
    if ["keys_strings", "values_strings", "classes_strings"].into_iter().any(|name| cx.has(name)) {
        return Err(cx.refusal(text));
    }
    let list = |ints: &'static str, floats: &'static str, as_tensor: &'static str| -> Result<Option<Tensor>, Halt> {
        let at = |e| cx.at(e);
        if let Some(ints) = cx.ints(ints)? {
            return Tensor::from_slice(&[ints.len()], &ints).map(Some).map_err(at);
        }
        if let Some(floats) = cx.floats(floats)? {
            return Tensor::from_slice(&[floats.len()], &floats).map(Some).map_err(at);
        }
        cx.tensor(as_tensor)?.map(|held| Ok(tensor::dense(held, cx.files)?.tensor)).transpose()
    };
    let (keys, values) =
        (list("keys_int64s", "keys_floats", "keys_tensor")?, list("values_int64s", "values_floats", "values_tensor")?);
    let (Some(keys), Some(values)) = (keys, values) else {
        return Err(cx.refusal("LabelEncoder without keys or values"));
    };
    let count = keys.shape().elements();
    let not_a_number = keys.elements::<f32>().is_some_and(|keys| keys.iter().any(|key| key.is_nan()));
    if count != values.shape().elements() || count == 0 || count > MAX_COLUMNS || not_a_number {
        let (keys, values) = (count, values.shape().elements());
        return Err(cx.refusal(format!("LabelEncoder of {keys} keys and {values} values, or with a NaN as key")));
    }
    let default = match cx.tensor("default_tensor")? {
        Some(held) => tensor::dense(held, cx.files)?.tensor,
        None if values.dtype() == DType::I64 => Tensor::scalar(cx.int("default_int64", -1)?),
        None => Tensor::scalar(cx.float("default_float", -0.0)?),
    };
    let (dims, all) = (cx.shape(x).to_vec(), cx.shape(x).elements());
    let (keys, values, default) = (cx.constant(keys)?, cx.constant(values)?, cx.constant(default)?);
    let keys = cx.reshape(keys, &[1, count])?;
    let values = cx.reshape(values, &[count])?;
    let default = cx.reshape(default, &[1])?;
    let table = cx.add(Concat { axis: 0 }, &[values, default])?;
    let column = cx.reshape(x, &[all, 1])?;
    let equal = cx.compare(CompareKind::Equal, column, keys)?;
    let equal = cx.cast(equal, DType::U8)?;
    // Elements that equal no key get the default after them.
    let one = cx.scalar(1u8)?;
    let always = expand_to(cx, one, &[all, 1])?;
    let equal = cx.add(Concat { axis: 1 }, &[equal, always])?;
    let at = cx.add(ArgMax { axis: 1, largest: true, last: false }, &[equal])?;
    let at = cx.reshape(at, &dims)?;
    cx.add_all(Gather { axis: 0 }, &[table, at])
}

/// A sequence of maps from class to score becomes the scores, one column per class.
fn zip_map(cx: &mut Call<'_, '_>) -> Imported {
    Ok(vec![rows(cx)?])
}

/// Refuses operators on text or maps.
pub(super) fn refused(cx: &mut Call<'_, '_>) -> Imported {
    let what = match cx.node.op_type {
        "CategoryMapper" => "maps between text and numbers, which is not supported; map outside of the model",
        "DictVectorizer" | "CastMap" => "reads a map, which is not supported; make the vector outside of the model",
        _ => "is not supported",
    };
    Err(cx.refusal(format!("{} {what}", cx.node.op_type)))
}

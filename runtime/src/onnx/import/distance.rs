//! com.microsoft CDist: the distances of all pairs of rows, in which converters of scikit-learn find neighbors.

use super::build::Imported;
use super::call::Call;
use super::table::{Entry, microsoft};
use crate::ops::binary::BinaryKind;
use crate::ops::reduce::ReduceKind;
use crate::ops::unary::UnaryKind;

pub(super) const OPERATORS: &[Entry] = &[microsoft(&["CDist"], distances)];

/// Rows `a [m, k]` and `b [n, k]` to distances `[m, n]`, from the differences of elements: sums of squares less twice a
/// product would cancel for rows that are close.
fn distances(cx: &mut Call<'_, '_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let root = match cx.text("metric")?.unwrap_or("sqeuclidean") {
        "sqeuclidean" => false,
        "euclidean" => true,
        other => return Err(cx.attribute_error("metric", format!("is '{other}', not euclidean or sqeuclidean"))),
    };
    let (&[m, k], &[n, width]) = (cx.shape(a).dims(), cx.shape(b).dims()) else {
        return Err(cx.shape_error("both operands must be matrices", &[a, b]));
    };
    if k != width {
        return Err(cx.shape_error("the rows must be of equal length", &[a, b]));
    }
    let (a, b) = (cx.reshape(a, &[m, 1, k])?, cx.reshape(b, &[1, n, k])?);
    let squares = cx.binary(BinaryKind::SqDiff, a, b)?;
    let y = cx.reduce(ReduceKind::Sum, squares, &[2], false)?;
    Ok(vec![if root { cx.unary(UnaryKind::Sqrt, y)? } else { y }])
}

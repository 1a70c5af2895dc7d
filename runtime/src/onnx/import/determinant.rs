//! Determinants of small matrices, by expansion along the first row: matrices in a classifier are maps of 2-D or 3-D
//! space.

use super::build::{Halt, Imported};
use super::call::Call;
use super::table::{Entry, standard};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::slice::Slice;

pub(super) const OPERATORS: &[Entry] = &[standard(&["Det"], det)];

/// Largest number of rows; each further one costs at least twice the products.
const MAX_ROWS: usize = 4;

/// The determinant of the rows from `row` and these columns; elements are `[n, 1]` each.
fn minor(cx: &mut Call<'_, '_>, elements: &[Vec<ValueId>], row: usize, columns: &[usize]) -> Result<ValueId, Halt> {
    let mut sum = None;
    for (at, &column) in columns.iter().enumerate() {
        let mut term = elements[row][column];
        if columns.len() > 1 {
            let others: Vec<usize> = columns.iter().copied().filter(|&other| other != column).collect();
            let minor = minor(cx, elements, row + 1, &others)?;
            term = cx.binary(BinaryKind::Mul, term, minor)?;
        }
        let kind = if at % 2 == 0 { BinaryKind::Add } else { BinaryKind::Sub };
        sum = Some(match sum {
            None => term,
            Some(sum) => cx.binary(kind, sum, term)?,
        });
    }
    sum.ok_or(Halt::Foreign)
}

fn det(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    let [outer @ .., rows, columns] = dims.as_slice() else {
        return Err(cx.shape_error("a matrix must have 2 dimensions", &[x]));
    };
    if rows != columns || *rows == 0 {
        return Err(cx.shape_error("a matrix with a determinant must be square", &[x]));
    }
    if *rows > MAX_ROWS {
        return Err(cx.shape_error("determinants are supported for up to 4 rows", &[x]));
    }
    let count = outer.iter().product();
    let flat = cx.reshape(x, &[count, rows * rows])?;
    let mut elements = Vec::with_capacity(*rows);
    for row in 0..*rows {
        let row =
            (0..*rows).map(|column| cx.add(Slice { axis: 1, start: row * rows + column, len: 1, step: 1 }, &[flat]));
        elements.push(row.collect::<Result<Vec<_>, _>>()?);
    }
    let y = minor(cx, &elements, 0, &(0..*rows).collect::<Vec<_>>())?;
    Ok(vec![cx.reshape(y, outer)?])
}

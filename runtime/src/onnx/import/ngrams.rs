//! TfIdfVectorizer: counts each n-gram of a list in rows of integers.

use super::build::{Halt, Imported};
use super::call::Call;
use super::table::{Entry, standard};
use crate::error::{OpError, list};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::gather::Gather;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::reduce::ReduceKind;
use crate::tensor::{DType, Tensor};

pub(super) const OPERATORS: &[Entry] = &[standard(&["TfIdfVectorizer"], tf_idf)];

/// Most comparisons for one n-gram length: their results are all stored at once.
const MAX_COMPARISONS: usize = 1 << 24;

/// A count from an attribute.
fn count(cx: &Call<'_, '_>, name: &'static str, range: std::ops::RangeInclusive<i64>) -> Result<usize, Halt> {
    let value = cx.int(name, *range.start())?;
    let found = usize::try_from(value).ok().filter(|_| range.contains(&value) && cx.has(name));
    found.ok_or_else(|| {
        cx.attribute_error(name, format!("is missing or {value}, outside of {} to {}", range.start(), range.end()))
    })
}

/// Counts each of `grams` (with `n` items) in the rows of `x [rows, items]`, with items `skip` apart.
fn counts(cx: &mut Call<'_, '_>, x: ValueId, n: usize, grams: &[i64], step: usize) -> Result<Option<ValueId>, Halt> {
    let (rows, items) = (cx.shape(x)[0], cx.shape(x)[1]);
    let Some(starts) = items.checked_sub(step * (n - 1)).filter(|&starts| starts > 0) else { return Ok(None) };
    let count = grams.len() / n;
    let comparisons = [rows, starts, count, n].iter().try_fold(1usize, |all, &len| all.checked_mul(len));
    if comparisons.is_none_or(|all| all > MAX_COMPARISONS) {
        return Err(cx.at(OpError::TooLarge(format!("{count} n-grams at {starts} places of {rows} rows"))));
    }
    let places = (0..starts).flat_map(|start| (0..n).map(move |i| (start + i * step) as i64));
    let places = cx.collected(&[starts, n], places)?;
    let windows = cx.add(Gather { axis: 1 }, &[x, places])?;
    let windows = cx.reshape(windows, &[rows, starts, 1, n])?;
    let grams = cx.elements(&[count, n], grams)?;
    let same = cx.compare(CompareKind::Equal, windows, grams)?;
    let same = cx.cast(same, DType::F32)?;
    let whole = cx.reduce(ReduceKind::Min, same, &[3], false)?;
    cx.reduce(ReduceKind::Sum, whole, &[1], false).map(Some)
}

fn tf_idf(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let Some(pool) = cx.ints("pool_int64s")? else {
        return Err(cx.attribute_error("pool_int64s", "is missing: n-grams of texts are not supported"));
    };
    let dims = cx.shape(x).to_vec();
    let (rows, items) = match dims[..] {
        [items] => (1, items),
        [rows, items] => (rows, items),
        _ => return Err(cx.shape_error("items must be a row, or rows of a batch", &[x])),
    };
    let [least, most] = [count(cx, "min_gram_length", 1..=64)?, count(cx, "max_gram_length", 1..=64)?];
    let skips = count(cx, "max_skip_count", 0..=255)?;
    let (begins, columns) =
        (cx.ints("ngram_counts")?.unwrap_or_default(), cx.ints("ngram_indexes")?.unwrap_or_default());
    let weights = cx.floats("weights")?;

    let x = cx.cast(x, DType::I64)?;
    let x = cx.reshape(x, &[rows, items])?;
    // The counts of all n-grams of the pool, in order.
    let mut all = Vec::new();
    let mut grams = 0;
    for (n, &begin) in (1..).zip(&begins) {
        let end = begins.get(n).copied().unwrap_or(pool.len() as i64);
        let part = usize::try_from(begin).ok().zip(usize::try_from(end).ok()).and_then(|(from, to)| pool.get(from..to));
        let Some(part) = part.filter(|part| part.len() % n == 0) else {
            return Err(
                cx.attribute_error("ngram_counts", format!("{} do not divide a pool of {}", list(&begins), pool.len()))
            );
        };
        if part.is_empty() {
            continue;
        }
        grams += part.len() / n;
        let mut sum = None;
        if (least..=most).contains(&n) {
            // Single items are counted once.
            for skip in 0..=if n == 1 { 0 } else { skips.min(items) } {
                if let Some(found) = counts(cx, x, n, part, skip + 1)? {
                    sum = Some(match sum {
                        None => found,
                        Some(sum) => cx.binary(BinaryKind::Add, sum, found)?,
                    });
                }
            }
        }
        all.push(match sum {
            Some(sum) => sum,
            None => cx.collected(&[rows, part.len() / n], std::iter::repeat_n(0f32, rows * part.len() / n))?,
        });
    }
    if columns.len() != grams || all.is_empty() || weights.as_ref().is_some_and(|weights| weights.len() != grams) {
        return Err(cx.attribute_error("ngram_indexes", format!("has {} entries for {grams} n-grams", columns.len())));
    }
    let mut y = if all.len() == 1 { all[0] } else { cx.add(Concat { axis: 1 }, &all)? };
    let weights = match weights {
        Some(weights) => Some(cx.elements(&[grams], &weights)?),
        None => None,
    };
    let mode = cx.text("mode")?.unwrap_or("TF");
    if mode == "IDF" {
        // Whether it occurs.
        y = cx.with_number(BinaryKind::Min, y, 1.0)?;
    }
    match (mode, weights) {
        ("TF", _) | ("IDF" | "TFIDF", None) => {}
        ("IDF" | "TFIDF", Some(weights)) => y = cx.binary(BinaryKind::Mul, y, weights)?,
        (other, _) => return Err(cx.attribute_error("mode", format!("is '{other}', not TF, IDF or TFIDF"))),
    }
    // Every n-gram into its column; unused columns are zero.
    let width = columns.iter().max().and_then(|&most| usize::try_from(most).ok()).map_or(0, |most| most + 1);
    if width > 1 << 20 {
        return Err(cx.attribute_error("ngram_indexes", format!("need {width} columns, which is too many")));
    }
    let mut from = cx.copies(grams as i64, width)?;
    for (gram, &column) in (0..).zip(&columns) {
        let place = usize::try_from(column).ok().and_then(|column| from.get_mut(column));
        match place {
            Some(place) if *place == grams as i64 => *place = gram,
            _ => {
                return Err(cx.attribute_error("ngram_indexes", format!("must be distinct and not negative: {column}")));
            }
        }
    }
    let y = cx.add(Pad { pads: vec![(0, 0), (0, 1)], mode: PadMode::Constant(Tensor::scalar(0f32)) }, &[y])?;
    let from = cx.elements(&[width], &from)?;
    let y = cx.add(Gather { axis: 1 }, &[y, from])?;
    let shape = if dims.len() == 1 { vec![width] } else { vec![rows, width] };
    Ok(vec![cx.reshape(y, &shape)?])
}

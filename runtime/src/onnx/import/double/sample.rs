//! Images of f64 sampled at points of f64: positions and weights of the pixels around every point, axis by axis, and the
//! sum of their products.

use super::super::build::Halt;
use super::super::call::Call;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::broadcast::Expand;
use crate::ops::compare::CompareKind;
use crate::ops::gather_elements::GatherElements;
use crate::ops::sample::{Outside, Sample, SampleMode};
use crate::ops::slice::Slice;
use crate::ops::unary::UnaryKind;
use crate::tensor::{DType, Shape};

/// One of the pixels around every point along an axis: positions and weights, `[n, points]`.
#[derive(Clone, Copy)]
struct Tap {
    place: ValueId,
    weight: ValueId,
}

/// The pixels `[n, c, points]` of `x [n, c, ..]` at `points [n, points, axes]`, the last axis first.
pub(in super::super) fn sample(
    cx: &mut Call<'_, '_>,
    op: Sample,
    x: ValueId,
    points: ValueId,
) -> Result<ValueId, Halt> {
    let dims = cx.shape(x).to_vec();
    let &[n, count, axes] = cx.shape(points).dims() else { return Err(Halt::Foreign) };
    let &[batch, c, ref lengths @ ..] = dims.as_slice() else { return Err(Halt::Foreign) };
    let pixels = Shape::new(lengths).map_err(|e| cx.at(e))?.elements();
    if batch != n || lengths.len() != axes || pixels == 0 {
        return Err(cx.shape_error("every image needs points with a coordinate for each axis", &[x, points]));
    }
    let mut all: Vec<Option<Tap>> = vec![None];
    for (axis, &len) in lengths.iter().enumerate() {
        let along = cx.add(Slice { axis: 2, start: axes - 1 - axis, len: 1, step: 1 }, &[points])?;
        let along = cx.reshape(along, &[n, count])?;
        let taps = taps(cx, op, along, len)?;
        let mut next = cx.reserve(all.len() * taps.len())?;
        for before in &all {
            for &tap in &taps {
                next.push(Some(match *before {
                    None => tap,
                    Some(before) => {
                        let row = cx.with_number(BinaryKind::Mul, before.place, len as f64)?;
                        Tap {
                            place: cx.binary(BinaryKind::Add, row, tap.place)?,
                            weight: cx.binary(BinaryKind::Mul, before.weight, tap.weight)?,
                        }
                    }
                }));
            }
        }
        all = next;
    }
    let flat = cx.reshape(x, &[n, c, pixels])?;
    let shape = Shape::new(&[n, c, count]).map_err(|e| cx.at(e))?;
    let mut sum = None;
    for Tap { place, weight } in all.into_iter().flatten() {
        let place = cx.cast(place, DType::I64)?;
        let place = cx.reshape(place, &[n, 1, count])?;
        let place = cx.add(Expand { shape: shape.clone() }, &[place])?;
        let read = cx.add(GatherElements { axis: 2 }, &[flat, place])?;
        let weight = cx.reshape(weight, &[n, 1, count])?;
        let product = cx.binary(BinaryKind::Mul, read, weight)?;
        sum = Some(match sum {
            None => product,
            Some(sum) => cx.binary(BinaryKind::Add, sum, product)?,
        });
    }
    sum.ok_or(Halt::Foreign)
}

/// The pixels around coordinates along an axis of `len` pixels.
fn taps(cx: &mut Call<'_, '_>, op: Sample, coordinates: ValueId, len: usize) -> Result<Vec<Tap>, Halt> {
    let length = len as f64;
    let (low, high) = if op.align_corners { (0.0, length - 1.0) } else { (-0.5, length - 0.5) };
    let mut x = coordinates;
    if op.normalized {
        let scale = if op.align_corners { (length - 1.0) / 2.0 } else { length / 2.0 };
        x = cx.with_number(BinaryKind::Add, x, 1.0)?;
        x = cx.with_number(BinaryKind::Mul, x, scale)?;
        if !op.align_corners {
            x = cx.with_number(BinaryKind::Sub, x, 0.5)?;
        }
    }
    if op.mode == SampleMode::Nearest {
        x = cx.unary(UnaryKind::Round, x)?;
    }
    match op.outside {
        Outside::Zeros => {}
        Outside::Border => {
            let edge = clamped(cx, x, length - 1.0)?;
            let inside = clamp(cx, x, low, high)?;
            let is_inside = cx.compare(CompareKind::Equal, inside, x)?;
            x = cx.select(is_inside, x, edge)?;
        }
        Outside::Reflection => x = reflected(cx, x, low, high)?,
    }
    let first = if op.mode == SampleMode::Nearest { x } else { cx.unary(UnaryKind::Floor, x)? };
    let t = cx.binary(BinaryKind::Sub, x, first)?;
    let rest = cx.unary(UnaryKind::Neg, t)?;
    let rest = cx.with_number(BinaryKind::Add, rest, 1.0)?;
    let one = cx.with_number(BinaryKind::Mul, t, 0.0)?;
    let one = cx.with_number(BinaryKind::Add, one, 1.0)?;
    let weights = match op.mode {
        SampleMode::Nearest => vec![(0.0, one)],
        SampleMode::Linear => vec![(0.0, rest), (1.0, t)],
        SampleMode::Cubic => {
            let (before, behind) =
                (cx.with_number(BinaryKind::Add, t, 1.0)?, cx.with_number(BinaryKind::Add, rest, 1.0)?);
            const A: f64 = -0.75;
            let (near, far) = ([A + 2.0, -(A + 3.0), 0.0, 1.0], [A, -5.0 * A, 8.0 * A, -4.0 * A]);
            vec![
                (-1.0, polynomial(cx, before, far)?),
                (0.0, polynomial(cx, t, near)?),
                (1.0, polynomial(cx, rest, near)?),
                (2.0, polynomial(cx, behind, far)?),
            ]
        }
    };
    let mut taps = cx.reserve(weights.len())?;
    for (offset, mut weight) in weights {
        let mut place = cx.with_number(BinaryKind::Add, first, offset)?;
        if op.outside == Outside::Reflection {
            place = reflected(cx, place, low, high)?;
        }
        let inside = clamped(cx, place, length - 1.0)?;
        if op.outside == Outside::Zeros {
            let is_inside = cx.compare(CompareKind::Equal, inside, place)?;
            let zero = cx.scalar(0f64)?;
            weight = cx.select(is_inside, weight, zero)?;
        }
        taps.push(Tap { place: inside, weight });
    }
    Ok(taps)
}

/// A polynomial of degree three, the highest power first.
fn polynomial(cx: &mut Call<'_, '_>, x: ValueId, factors: [f64; 4]) -> Result<ValueId, Halt> {
    let mut y = cx.with_number(BinaryKind::Mul, x, factors[0])?;
    for factor in &factors[1..3] {
        y = cx.with_number(BinaryKind::Add, y, *factor)?;
        y = cx.binary(BinaryKind::Mul, y, x)?;
    }
    cx.with_number(BinaryKind::Add, y, factors[3])
}

fn clamp(cx: &mut Call<'_, '_>, x: ValueId, low: f64, high: f64) -> Result<ValueId, Halt> {
    let y = cx.with_number(BinaryKind::Max, x, low)?;
    cx.with_number(BinaryKind::Min, y, high)
}

/// The nearest position from 0 to `last`.
fn clamped(cx: &mut Call<'_, '_>, x: ValueId, last: f64) -> Result<ValueId, Halt> {
    clamp(cx, x, 0.0, last)
}

/// `x` mirrored at both ends until it is between them: a wave of twice the range.
fn reflected(cx: &mut Call<'_, '_>, x: ValueId, low: f64, high: f64) -> Result<ValueId, Halt> {
    let range = high - low;
    if range <= 0.0 {
        let inside = clamp(cx, x, low, low)?;
        return Ok(inside);
    }
    let moved = cx.with_number(BinaryKind::Sub, x, low)?;
    let turns = cx.with_number(BinaryKind::Div, moved, 2.0 * range)?;
    let turns = cx.unary(UnaryKind::Floor, turns)?;
    let whole = cx.with_number(BinaryKind::Mul, turns, 2.0 * range)?;
    let rest = cx.binary(BinaryKind::Sub, moved, whole)?;
    // From 0 to the range and back.
    let from_end = cx.with_number(BinaryKind::Sub, rest, range)?;
    let from_end = cx.unary(UnaryKind::Abs, from_end)?;
    let back = cx.unary(UnaryKind::Neg, from_end)?;
    cx.with_number(BinaryKind::Add, back, high)
}

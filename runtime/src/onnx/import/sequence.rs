//! Sequences of tensors that are known while importing: lists of values, of which nothing remains in the graph. A
//! sequence has a handle among the values, which only these operators accept.

use super::build::{Halt, Imported};
use super::call::Call;
use super::table::{Entry, standard};
use crate::graph::ValueId;
use crate::ops::concat::Concat;
use crate::ops::slice::Slice;
use crate::reserve;
use crate::tensor::{DType, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["SequenceConstruct"], construct),
    standard(&["SequenceEmpty"], empty),
    standard(&["SequenceInsert"], insert),
    standard(&["SequenceErase"], erase),
    standard(&["SequenceAt"], at),
    standard(&["SequenceLength"], length),
    standard(&["ConcatFromSequence"], concat),
    standard(&["SplitToSequence"], split),
    standard(&["OptionalHasElement"], has_element),
];

/// Most tensors that a sequence is split into: each is a node of the graph.
const MAX_PARTS: usize = 1 << 12;

/// Whether an operator takes sequences.
pub(super) fn takes_sequences(op_type: &str) -> bool {
    matches!(
        op_type,
        "SequenceInsert"
            | "SequenceErase"
            | "SequenceAt"
            | "SequenceLength"
            | "ConcatFromSequence"
            | "Identity"
            | "OptionalHasElement"
            | "OptionalGetElement"
    )
}

impl Call<'_, '_> {
    /// The tensors of operand `index`, a sequence.
    fn sequence(&self, index: usize) -> Result<Vec<ValueId>, Halt> {
        let id = self.input(index)?;
        let parts = self.build.sequence(id).map(<[ValueId]>::to_vec);
        parts.ok_or_else(|| self.dynamic("which tensors the sequence holds"))
    }

    /// A sequence of these tensors.
    pub fn sequence_of(&mut self, parts: Vec<ValueId>) -> Imported {
        let empty: [u8; 0] = [];
        let handle = Tensor::from_slice(&[0], &empty).map_err(|e| self.at(e))?;
        let handle = self.constant(handle)?;
        let reason = "a sequence is used where a tensor is needed; select one with SequenceAt, or join them with \
                      ConcatFromSequence";
        self.build.withhold(handle, reason.to_owned())?;
        self.build.hold_sequence(handle, parts)?;
        Ok(vec![handle])
    }

    /// The position in the constant operand `index`, in a list of length `len`; the end if it is omitted.
    fn place(&self, index: usize, len: usize, end: usize) -> Result<usize, Halt> {
        let Some(at) = self.integer(index)? else { return Ok(end) };
        let from_start = if at < 0 { at.saturating_add_unsigned(len as u64) } else { at };
        let place = usize::try_from(from_start).ok().filter(|&at| at <= end);
        place.ok_or_else(|| self.attribute_error("position", format!("is {at} in a sequence of {len}")))
    }
}

/// Whether an operand is present: true for a tensor or a sequence, false if it is omitted.
fn has_element(cx: &mut Call<'_, '_>) -> Imported {
    let there = cx.scalar(u8::from(cx.optional(0).is_some()))?;
    Ok(vec![cx.cast(there, DType::Bool)?])
}

fn construct(cx: &mut Call<'_, '_>) -> Imported {
    let parts = cx.all_inputs()?;
    cx.sequence_of(parts)
}

fn empty(cx: &mut Call<'_, '_>) -> Imported {
    cx.sequence_of(Vec::new())
}

fn insert(cx: &mut Call<'_, '_>) -> Imported {
    let (mut parts, part) = (cx.sequence(0)?, cx.input(1)?);
    let at = cx.place(2, parts.len(), parts.len())?;
    parts.insert(at, part);
    cx.sequence_of(parts)
}

fn erase(cx: &mut Call<'_, '_>) -> Imported {
    let mut parts = cx.sequence(0)?;
    let Some(last) = parts.len().checked_sub(1) else {
        return Err(cx.attribute_error("position", "is in an empty sequence"));
    };
    let at = cx.place(1, parts.len(), last)?;
    parts.remove(at);
    cx.sequence_of(parts)
}

fn at(cx: &mut Call<'_, '_>) -> Imported {
    let parts = cx.sequence(0)?;
    let Some(last) = parts.len().checked_sub(1) else {
        return Err(cx.attribute_error("position", "is in an empty sequence"));
    };
    Ok(vec![parts[cx.place(1, parts.len(), last)?]])
}

fn length(cx: &mut Call<'_, '_>) -> Imported {
    let len = cx.sequence(0)?.len() as i64;
    Ok(vec![cx.scalar(len)?])
}

/// Tensors concatenated along an axis, or stacked along a new one.
fn concat(cx: &mut Call<'_, '_>) -> Imported {
    let mut parts = cx.sequence(0)?;
    let Some(&first) = parts.first() else { return Err(cx.attribute_error("axis", "is of an empty sequence")) };
    let stacked = cx.flag("new_axis", false)?;
    let axis = cx.axis(0, cx.rank(first) + usize::from(stacked))?;
    if stacked {
        for part in &mut parts {
            let mut dims = cx.shape(*part).to_vec();
            dims.insert(axis.min(dims.len()), 1);
            *part = cx.reshape(*part, &dims)?;
        }
    }
    match *parts.as_slice() {
        [one] => Ok(vec![one]),
        _ => cx.add_all(Concat { axis }, &parts),
    }
}

/// Parts of one length or of several; without lengths each element of the axis is a part, and `keepdims` says whether
/// the axis is kept.
fn split(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.axis(0, cx.rank(x))?;
    let dim = cx.shape(x)[axis];
    let given = cx.integers(1)?;
    let scalar = cx.optional(1).is_some_and(|id| cx.rank(id) == 0);
    let keep = given.is_some() || cx.flag("keepdims", true)?;
    let len = |len: i64| usize::try_from(len).map_err(|_| cx.attribute_error("split", format!("has {len}")));
    let lens: Vec<usize> = match given.as_deref() {
        Some(&[part]) if scalar => {
            let part = len(part)?;
            if part == 0 || dim.div_ceil(part) > MAX_PARTS {
                return Err(cx.attribute_error("split", format!("is {part} of an axis of {dim}")));
            }
            cx.list((0..dim.div_ceil(part)).map(|at| part.min(dim - at * part)))?
        }
        Some(lens) => reserve::results(lens.iter().map(|&part| len(part)))?,
        None if dim > MAX_PARTS => return Err(cx.attribute_error("split", format!("gives {dim} tensors"))),
        None => cx.copies(1, dim)?,
    };
    if lens.iter().try_fold(0usize, |all, &len| all.checked_add(len)) != Some(dim) || lens.len() > MAX_PARTS {
        return Err(cx.attribute_error("split", format!("has {} parts of an axis of {dim}", lens.len())));
    }
    let mut start = 0;
    let mut parts = cx.reserve(lens.len())?;
    for len in lens {
        let whole = start == 0 && len == dim;
        let begin = if len == 0 { 0 } else { start };
        let mut part = if whole { x } else { cx.add(Slice { axis, start: begin, len, step: 1 }, &[x])? };
        if !keep {
            let mut dims = cx.shape(part).to_vec();
            dims.remove(axis);
            part = cx.reshape(part, &dims)?;
        }
        parts.push(part);
        start += len;
    }
    cx.sequence_of(parts)
}

//! Operators that tract has, but that are computed here when it comes to them: it takes about a microsecond for every
//! position that it finds, and for every pair of boxes that it compares.

use tract_onnx::prelude::{Datum, TValue, TVec, Tensor, TractError, TractResult, TypedFact};
use tract_onnx::tract_core::internal::{TypedNode, bail, ensure, tvec};
use tract_onnx_opl::non_max_suppression::{BoxRepr, NonMaxSuppression};

use super::convert;
use super::meter::product;
use crate::operator::Semantics;
use crate::ops::cast::Cast;
use crate::ops::suppress::Ends;
use crate::tensor::DType;

/// Steps of work, if the node is one of them and its shapes are known.
pub(super) fn work(node: &TypedNode, inputs: &[&TypedFact]) -> Option<u64> {
    let shape = |index: usize| inputs.get(index)?.shape.as_concrete();
    match &*node.op.name() {
        "NonZero" => Some(product(shape(0)?).saturating_mul(8)),
        // The boxes of each class are sorted, and each is compared with those kept so far.
        "NonMaxSuppression" => {
            let (scores, count) = (shape(1)?, *shape(1)?.last()? as u64);
            let most = inputs.get(2).and_then(|most| most.konst.as_ref()?.cast_to_scalar::<i64>().ok());
            let kept = count.min(most.map_or(u64::MAX, |most| u64::try_from(most).unwrap_or(0)));
            let sorted = u64::from(u64::BITS - count.leading_zeros());
            Some(product(scores).saturating_mul(sorted.saturating_add(kept).saturating_mul(4)))
        }
        _ => None,
    }
}

/// The node's results, if it is one of them.
///
/// # Errors
/// Operands that do not fit each other; incomplete results, if the run is to stop.
pub(super) fn run(node: &TypedNode, inputs: &[TValue], stops: &dyn Fn() -> bool) -> TractResult<Option<TVec<TValue>>> {
    if let Some(op) = node.op.downcast_ref::<NonMaxSuppression>()
        && inputs.iter().take(2).all(|value| value.datum_type() == f32::datum_type())
    {
        return non_max_suppression(op, inputs, stops).map(Some);
    }
    if node.op.name() == "NonZero" {
        return non_zero(inputs).map(Some);
    }
    Ok(None)
}

/// The positions of nonzero elements, one row for each axis.
fn non_zero(inputs: &[TValue]) -> TractResult<TVec<TValue>> {
    let Some(x) = inputs.first() else { bail!("NonZero without an operand") };
    let x = convert::from_tract(x)?;
    let is_set = Cast { to: DType::Bool }.evaluate(&[&x])?;
    let is_set = is_set.first().map_or(&[][..], |is_set| is_set.bytes());
    let found: Vec<usize> = (0..).zip(is_set).filter_map(|(at, &is_set)| (is_set != 0).then_some(at)).collect();
    let dims = x.shape().dims();
    let mut positions = Vec::with_capacity(dims.len() * found.len());
    let mut behind = is_set.len();
    for &dim in dims {
        behind /= dim.max(1);
        positions.extend(found.iter().map(|at| (at / behind.max(1) % dim.max(1)) as i64));
    }
    Ok(tvec!(Tensor::from_shape(&[dims.len(), found.len()], &positions)?.into()))
}

/// Pairs of boxes that are compared between two questions whether to stop.
const PAIRS: usize = 1 << 17;

/// For every image and class, the boxes in the order of their scores, without those that overlap a better one too much.
fn non_max_suppression(
    op: &NonMaxSuppression,
    inputs: &[TValue],
    stops: &dyn Fn() -> bool,
) -> TractResult<TVec<TValue>> {
    let [boxes, scores, most, share, least @ ..] = inputs else {
        bail!("NonMaxSuppression takes four operands or five")
    };
    let (&[images, count, 4], &[of, classes, scored]) = (boxes.shape(), scores.shape()) else {
        bail!("NonMaxSuppression of boxes {:?} and scores {:?}", boxes.shape(), scores.shape())
    };
    ensure!((images, count) == (of, scored), "NonMaxSuppression of {count} boxes with {scored} scores");
    let most = usize::try_from(*most.try_as_plain_ram()?.to_scalar::<i64>()?).unwrap_or(0);
    let share = *share.try_as_plain_ram()?.to_scalar::<f32>()?;
    let least = least.first().filter(|_| op.has_score_threshold);
    let number = |value: &TValue| Ok::<_, TractError>(*value.try_as_plain_ram()?.to_scalar::<f32>()?);
    let least = least.map(number).transpose()?;
    let (boxes, scores) = (boxes.try_as_plain_ram()?, scores.try_as_plain_ram()?);
    let (boxes, scores) = (boxes.as_slice::<f32>()?, scores.as_slice::<f32>()?);

    let centers = matches!(op.center_point_box, BoxRepr::CenterWidthHeight);
    let (mut selected, mut left) = (Vec::<i64>::new(), PAIRS);
    for image in 0..images {
        let ends = boxes[image * count * 4..][..count * 4].chunks_exact(4);
        let ends: Vec<Ends> = ends.map(|numbers| Ends::new(centers, numbers)).collect();
        for class in 0..classes {
            let scores = &scores[(image * classes + class) * count..][..count];
            let mut order: Vec<usize> = (0..count).filter(|&at| least.is_none_or(|least| scores[at] > least)).collect();
            // A zero has no sign here.
            order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
            let mut kept: Vec<usize> = Vec::new();
            for at in order {
                if kept.len() >= most {
                    break;
                }
                match left.checked_sub(kept.len() + 1) {
                    Some(rest) => left = rest,
                    None if stops() => bail!("the run was stopped"),
                    None => left = PAIRS,
                }
                if !kept.iter().any(|&better| ends[at].overlaps(&ends[better], share)) {
                    kept.push(at);
                }
            }
            selected.extend(kept.iter().flat_map(|&at| [image as i64, class as i64, at as i64]));
        }
    }
    Ok(tvec!(Tensor::from_shape(&[selected.len() / 3, 3], &selected)?.into()))
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::SymbolScope;

    use super::*;

    fn value<T: Datum + Copy>(dims: &[usize], numbers: &[T]) -> TValue {
        Tensor::from_shape(dims, numbers).unwrap().into()
    }

    #[test]
    fn positions_are_found_row_by_row() {
        let x = value(&[2, 3], &[0.0f32, -0.0, f32::NAN, 5.0, 0.0, -1.0]);
        let found = non_zero(&[x]).unwrap().remove(0);
        assert_eq!(found.shape(), [2, 3]);
        assert_eq!(found.try_as_plain_ram().unwrap().as_slice::<i64>().unwrap(), [0, 1, 1, 2, 0, 2]);
        let found = non_zero(&[value(&[], &[true])]).unwrap().remove(0);
        assert_eq!(found.shape(), [0, 1]);
        let found = non_zero(&[value::<i64>(&[3, 0], &[])]).unwrap().remove(0);
        assert_eq!(found.shape(), [2, 0]);
    }

    fn selection(center_point_box: BoxRepr) -> NonMaxSuppression {
        let num_selected_indices_symbol = SymbolScope::default().sym("selected");
        NonMaxSuppression { center_point_box, num_selected_indices_symbol, has_score_threshold: true }
    }

    #[test]
    fn boxes_that_overlap_a_better_one_are_left_out() {
        let corners = [0.0, 0.0, 1.0, 1.0, 1.1, 1.0, 0.1, 0.0, 0.0, 10.0, 1.0, 11.0, 0.0, 20.0, 1.0, 21.0f32];
        let centers = [0.5, 0.5, 1.0, 1.0, 0.6, 0.5, 1.0, 1.0, 0.5, 10.5, 1.0, 1.0, 0.5, 20.5, 1.0, 1.0f32];
        let scores = value(&[1, 2, 4], &[0.5, 0.9, 0.3, 0.1, 0.9, 0.5, 0.95, 0.2f32]);
        for (form, boxes) in [(BoxRepr::TwoPoints, corners), (BoxRepr::CenterWidthHeight, centers)] {
            for (most, want) in [(9, &[0, 0, 1, 0, 0, 2, 0, 1, 2, 0, 1, 0][..]), (1, &[0, 0, 1, 0, 1, 2]), (0, &[])] {
                let inputs = [
                    value(&[1, 4, 4], &boxes),
                    scores.clone(),
                    value(&[1], &[most as i64]),
                    value(&[], &[0.5f32]),
                    value(&[1], &[0.25f32]),
                ];
                let found = non_max_suppression(&selection(form), &inputs, &|| false).unwrap().remove(0);
                assert_eq!(found.shape(), [want.len() / 3, 3]);
                assert_eq!(found.try_as_plain_ram().unwrap().as_slice::<i64>().unwrap(), want);
            }
        }
    }

    #[test]
    fn comparing_many_boxes_asks_whether_to_stop() {
        let count = 1 << 11;
        let boxes: Vec<f32> = (0..count).flat_map(|at| [0.0, at as f32, 1.0, at as f32 + 1.0]).collect();
        let inputs = [
            value(&[1, count, 4], &boxes),
            value(&[1, 1, count], &vec![1.0f32; count]),
            value(&[1], &[i64::MAX]),
            value(&[1], &[1.0f32]),
            value(&[1], &[0.0f32]),
        ];
        let asked = std::cell::Cell::new(0);
        let stops = || asked.replace(asked.get() + 1) == 7;
        assert!(non_max_suppression(&selection(BoxRepr::TwoPoints), &inputs, &stops).is_err());
        assert_eq!(asked.get(), 8);
    }
}

//! Batches of any size from a package.
//!
//! A package is planned for fixed shapes. Where a file leaves the batch open, its package holds the plan for a batch of
//! one, and a caller with more images runs it once for each. That gives the same answer only if no image of a batch
//! looks at another, as a normalization over the batch does: it is tried out with the file itself.

use super::{Recipe, TRIAL};
use crate::error::Result;
use crate::info::Shapes;
use crate::model::Model;
use crate::options::Options;
use crate::tensor::{DType, Fact, Shape, Tensor, TensorView};
use crate::tune::RandomInputs;

/// Largest difference of an image's outputs alone and in a batch, relative to the largest element of the output.
const TOLERANCE: f64 = 1e-4;

/// Whether the images of a batch are computed independently of each other: two random images give the same outputs in
/// one batch and one by one. `open` opens the file, `batched` are the inputs whose first axis is the batch.
///
/// # Errors
/// Those of opening the file.
pub(super) fn is_independent(
    open: &dyn Fn(&Options) -> Result<Model>,
    recipe: &Recipe,
    batched: &[String],
) -> Result<bool> {
    let options = |shapes: Shapes| Options { shapes, limits: recipe.limits.clone(), ..Options::default() };
    let alone = open(&options(recipe.shapes.clone()))?;
    let mut shapes = recipe.shapes.clone();
    for port in alone.inputs().iter().filter(|port| batched.contains(&port.name)) {
        shapes.insert(port.name.clone(), with_first(&port.fact.shape, 2));
    }
    let Ok(both) = open(&options(shapes)) else { return Ok(false) };
    // State that a run leaves for the next would mix the images.
    if !alone.variables().is_empty() || alone.plan().is_none() || both.plan().is_none() {
        return Ok(false);
    }
    // Shapes that follow from the images may agree by accident.
    if alone.plan().is_some_and(|plan| !plan.lengths.is_empty()) {
        return Ok(false);
    }
    let images = RandomInputs::new(both.inputs(), 1)?;
    let Some(want) = run(&both, &images.views())? else { return Ok(false) };
    for image in 0..2 {
        let views =
            alone.inputs().iter().zip(images.views()).map(|(port, both)| {
                if batched.contains(&port.name) { part(&both, &port.fact, image) } else { Some(both) }
            });
        let Some(views) = views.collect::<Option<Vec<_>>>() else { return Ok(false) };
        let Some(got) = run(&alone, &views)? else { return Ok(false) };
        let agrees = |(got, want): (&Tensor, &Tensor)| {
            want.shape().dims() == with_first(got.shape(), 2)
                && got.shape().first() == Some(&1)
                && part(&want.view(), got.fact(), image).is_some_and(|want| are_close(&got.view(), &want))
        };
        if !got.iter().zip(&want).all(agrees) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The dimensions with another first one.
fn with_first(shape: &Shape, first: usize) -> Vec<usize> {
    std::iter::once(first).chain(shape.iter().skip(1).copied()).collect()
}

/// One image of a batch.
fn part<'a>(batch: &TensorView<'a>, fact: &Fact, image: usize) -> Option<TensorView<'a>> {
    let len = fact.bytes();
    TensorView::from_bytes(fact.clone(), batch.bytes().get(image * len..(image + 1) * len)?).ok()
}

/// The outputs; `None` if the run fails on these values or takes too long.
fn run(model: &Model, inputs: &[TensorView<'_>]) -> Result<Option<Vec<Tensor>>> {
    let mut session = model.session()?;
    session.set_deadline(Some(TRIAL));
    if session.run(inputs).is_err() {
        return Ok(None);
    }
    Ok((0..model.outputs().len()).map(|index| session.output(index).map(|output| output.to_tensor())).collect())
}

/// Floats may differ by rounding; NaN is equal to itself.
fn are_close(a: &TensorView<'_>, b: &TensorView<'_>) -> bool {
    let floats = |view: &TensorView<'_>| -> Option<Vec<f64>> {
        match view.fact().dtype {
            DType::F32 => Some(view.elements::<f32>()?.iter().map(|&x| f64::from(x)).collect()),
            DType::F64 => view.elements::<f64>().map(<[f64]>::to_vec),
            _ => None,
        }
    };
    let (Some(a_floats), Some(b_floats)) = (floats(a), floats(b)) else { return a.bytes() == b.bytes() };
    let largest = b_floats.iter().filter(|x| x.is_finite()).fold(0.0f64, |largest, x| largest.max(x.abs()));
    let mut pairs = a_floats.iter().zip(&b_floats);
    pairs.all(|(a, b)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * largest)
}

//! Batches of any size: a package that is planned for one image runs once for each.

use skipstone::{BATCH, Fact, Model, OpError, Session, Shape, Tensor, TensorView};

use crate::failure::Failure;

/// A batch for a package whose batch was left open.
pub struct Batch {
    /// Number of images.
    images: usize,
    /// Positions of the inputs that have an image each.
    inputs: Vec<usize>,
}

impl Batch {
    /// The batch in the given inputs, in the model's order; `None` if the model takes them as they are, or not at all.
    pub fn of(model: &Model, given: &[TensorView<'_>]) -> Option<Self> {
        let names = model.info().metadata.get(BATCH)?;
        let ports = model.inputs();
        let inputs: Vec<usize> =
            (0..ports.len()).filter(|&at| names.lines().any(|name| name == ports[at].name)).collect();
        let images = *given.get(*inputs.first()?)?.fact().shape.first()?;
        // Anyone may write a package: one that is planned for another batch takes its inputs as they are.
        let one = |fact: &Fact| fact.shape.first() == Some(&1);
        let planned =
            inputs.iter().all(|&at| one(&ports[at].fact)) && model.outputs().iter().all(|port| one(&port.fact));
        let fits = |at: &usize| given.get(*at).is_some_and(|given| *given.fact() == stacked(&ports[*at].fact, images));
        (planned && images != 1 && inputs.iter().all(fits)).then_some(Self { images, inputs })
    }

    /// Runs the session once for each image; returns the outputs of all.
    pub fn run(&self, model: &Model, session: &mut Session, given: &[TensorView<'_>]) -> Result<Vec<Tensor>, Failure> {
        let facts: Vec<&Fact> = model.outputs().iter().map(|port| &port.fact).collect();
        let mut outputs = vec![Vec::new(); facts.len()];
        for image in 0..self.images {
            let views = given.iter().zip(model.inputs()).enumerate().map(|(at, (given, port))| {
                if !self.inputs.contains(&at) {
                    return Ok(given.clone());
                }
                let len = port.fact.bytes();
                TensorView::from_bytes(port.fact.clone(), &given.bytes()[image * len..(image + 1) * len])
            });
            let views = views.collect::<Result<Vec<_>, _>>().map_err(internal)?;
            session.run(&views)?;
            for (index, output) in outputs.iter_mut().enumerate() {
                output.extend_from_slice(session.output(index).as_ref().map_or(&[], TensorView::bytes));
            }
        }
        let tensors =
            outputs.iter().zip(facts).map(|(bytes, fact)| Tensor::from_bytes(stacked(fact, self.images), bytes));
        tensors.collect::<Result<_, _>>().map_err(internal)
    }
}

fn internal(error: OpError) -> Failure {
    Failure::new("internal", error.to_string())
}

/// The fact of so many images instead of one.
fn stacked(fact: &Fact, images: usize) -> Fact {
    let dims: Vec<usize> = std::iter::once(images).chain(fact.shape.iter().skip(1).copied()).collect();
    Shape::new(&dims).map_or_else(|_| fact.clone(), |shape| Fact::new(fact.dtype, shape))
}

//! Models whose shapes follow from the values of inputs that have no largest value, such as a Range whose limit is an
//! input: every run imports the file again, with these values as constants, and evaluates the graph plainly. Slow, but
//! such models compute small tables; a package cannot hold one.

use std::collections::HashMap;
use std::sync::Arc;

use skipstone_onnx::proto::{Model, Type, ValueInfo};
use skipstone_onnx::{Limits, decode};

use super::import::{self, ImportOutcome, tensor};
use crate::error::{Error, OpError, Result};
use crate::graph::{ForeignModel, Graph, Lowered};
use crate::info::Shapes;
use crate::operator::{Place, Semantics};
use crate::ops::cast::Cast;
use crate::ops::{Budget, Foreign, ForeignOp, Op};
use crate::plan::{self, Port};
use crate::tensor::{DType, Fact, Shape, Tensor, TensorView};

/// Most elements of an input that may decide a shape.
const SMALL: usize = 16;

/// Most work of a run: plain evaluation takes a few seconds for it.
const MOST_WORK: u64 = 1 << 30;

/// Work up to which plain evaluation takes no time worth saving.
const LITTLE_WORK: u64 = 1 << 24;

/// A file that is imported in every run.
struct ByValue {
    files: tensor::Files,
    limits: Limits,
    shapes: Shapes,
    inputs: Vec<String>,
    outputs: Vec<Fact>,
}

/// A model that is imported in every run.
pub(super) struct Found {
    pub model: Lowered,
    /// Whether a run is known to take no time worth saving.
    pub is_quick: bool,
}

/// The model of a file whose shapes may follow from the values of small inputs; `None` if they do not.
pub(super) fn by_value(
    model: &Model<'_>,
    files: &tensor::Files,
    limits: &Limits,
    shapes: &Shapes,
    reason: &str,
) -> Option<Found> {
    let graph = model.graph.as_ref()?;
    let given = import::caller_inputs(graph).ok()?;
    let inputs = given.map(|info| Ok((info.name.to_owned(), import::input_fact(info, shapes)?)));
    let inputs = inputs.collect::<Result<Vec<_>>>().ok()?;
    let output = |info: &ValueInfo<'_>| match &info.kind {
        Some(Type::Tensor(element, _)) => {
            Some(Fact::new(tensor::known_dtype(*element, info.name).ok()?, Shape::default()))
        }
        _ => None,
    };
    let outputs = graph.outputs.iter().map(output).collect::<Option<Vec<_>>>()?;
    // With ones for all of them, it shows whether there is an operator that nothing supports.
    let ones: HashMap<String, Tensor> = inputs
        .iter()
        .filter(|(_, fact)| is_small(fact))
        .filter_map(|(name, fact)| Some((name.clone(), one(fact)?)))
        .collect();
    if ones.is_empty() {
        return None;
    }
    let is_quick = match import::import_named(model, files, shapes, &ones) {
        Ok((ImportOutcome::Graph(graph), _)) if is_own(&graph) => plan::work(&graph) <= LITTLE_WORK,
        // Ones may be no valid values.
        Err(Error::Node { .. }) => false,
        _ => return None,
    };
    let port = |(name, fact): (String, Fact), place| Port { name, fact, place };
    let names = inputs.iter().map(|(name, _)| name.clone()).collect();
    let named = graph.outputs.iter().map(|info| info.name.to_owned()).zip(outputs.iter().cloned());
    let foreign = ByValue {
        files: files.clone(),
        limits: limits.clone(),
        shapes: shapes.clone(),
        inputs: names,
        outputs: outputs.clone(),
    };
    let model = ForeignModel {
        foreign: ForeignOp(Arc::new(foreign)),
        inputs: inputs.into_iter().enumerate().map(|(at, input)| port(input, Place::Input(at))).collect(),
        outputs: named.map(|output| port(output, Place::Arena(0..0))).collect(),
        reason: reason.to_owned(),
    };
    Some(Found { model: Lowered::Foreign(model), is_quick })
}

fn is_small(fact: &Fact) -> bool {
    (1..=SMALL).contains(&fact.shape.elements()) && !matches!(fact.dtype, DType::F16 | DType::Bf16)
}

fn one(fact: &Fact) -> Option<Tensor> {
    let ones = Tensor::collected(Fact::new(DType::U8, fact.shape.clone()), std::iter::repeat_n(1u8, SMALL)).ok()?;
    Cast { to: fact.dtype }.evaluate(&[&ones]).ok()?.pop()
}

/// Whether a graph has only our operators.
fn is_own(graph: &Graph) -> bool {
    graph.walk().all(|node| !matches!(node.op, Op::Foreign(_)))
}

impl ByValue {
    /// The graph for these values.
    fn graph(&self, inputs: &[TensorView<'_>]) -> Result<Graph> {
        let model = decode(&self.files.model, &self.limits).map_err(Error::from)?;
        let small = self.inputs.iter().zip(inputs).filter(|(_, view)| is_small(view.fact()));
        let values = small.map(|(name, view)| (name.clone(), view.to_tensor())).collect();
        match import::import_named(&model, &self.files, &self.shapes, &values)? {
            (ImportOutcome::Graph(graph), _) => Ok(graph),
            (ImportOutcome::Dynamic(reason), _) => Err(Error::Unsupported { node: "graph".into(), reason }),
        }
    }
}

impl Foreign for ByValue {
    fn name(&self) -> &str {
        "graph"
    }

    fn outputs(&self) -> &[Fact] {
        &self.outputs
    }

    fn work(&self) -> u64 {
        0
    }

    fn is_quick(&self) -> bool {
        false
    }

    fn evaluate(&self, inputs: &[TensorView<'_>], budget: &Budget<'_>) -> Result<Vec<Tensor>, OpError> {
        let wrong = |error: Error| OpError::Value(error.to_string());
        let graph = self.graph(inputs).map_err(wrong)?;
        let work = plan::work(&graph);
        if work > budget.work.min(MOST_WORK) {
            return Err(OpError::TooLarge(format!("{work} steps of work")));
        }
        let bytes = graph.values().iter().fold(0u64, |sum, value| sum.saturating_add(value.fact.bytes() as u64));
        if bytes > budget.bytes {
            return Err(OpError::TooLarge(format!("{bytes} bytes of tensors")));
        }
        if (budget.stops)() {
            return Err(OpError::Value("the run was stopped".into()));
        }
        let given: Vec<Tensor> = inputs.iter().map(TensorView::to_tensor).collect();
        let mut results = graph.evaluate(&given).map_err(wrong)?;
        let lengths = results.split_off(self.outputs.len().min(results.len()));
        for (length, of) in lengths.iter().zip(&graph.lengths) {
            let len = length.elements::<i64>().and_then(|len| usize::try_from(*len.first()?).ok());
            let result = results.get_mut(of.output).ok_or(OpError::Operand(of.output))?;
            *result = shortened(result, of.axis, len.ok_or(OpError::Operand(of.output))?)?;
        }
        Ok(results)
    }
}

/// The first elements of a tensor, as many as it has with another length of an axis.
fn shortened(tensor: &Tensor, axis: usize, len: usize) -> Result<Tensor, OpError> {
    let mut dims = tensor.shape().to_vec();
    *dims.get_mut(axis).filter(|dim| len <= **dim).ok_or(OpError::Operand(axis))? = len;
    let fact = Fact::new(tensor.dtype(), Shape::new(&dims)?);
    Tensor::from_bytes(fact.clone(), tensor.bytes().get(..fact.bytes()).ok_or(OpError::Operand(axis))?)
}

#[cfg(test)]
mod tests {
    use skipstone_onnx::write::{FLOAT, INT64, body, f32s, graph, i64s, int, model, node, value};

    use super::*;
    use crate::{Model, Options};

    fn opened(bytes: &[u8]) -> Result<Model> {
        Model::from_bytes(bytes, &Options::default())
    }

    #[test]
    fn the_values_of_inputs_decide_shapes() {
        let nodes = [
            node("Range", &["start", "limit", "delta"], &["range"], &[]),
            node("Cast", &["range"], &["floats"], &[int("to", 1)]),
            node("Add", &["floats", "x"], &["y"], &[]),
        ];
        let number = |name: &str| value(name, INT64, &[]);
        let inputs = [number("start"), number("limit"), number("delta"), value("x", FLOAT, &[2, 1])];
        let model = opened(&model(&graph(&nodes, &[], &inputs, &[value("y", FLOAT, &[2, -1])]))).unwrap();
        assert!(model.fallback_reason().unwrap().contains("(Range): the step"), "{:?}", model.fallback_reason());
        let mut session = model.session().unwrap();
        let x = Tensor::from_slice(&[2, 1], &[0.5f32, 10.0]).unwrap();
        for ([start, limit, delta], want) in [
            ([1i64, 4, 1], vec![1.5f32, 2.5, 3.5, 11.0, 12.0, 13.0]),
            ([3, 0, -2], vec![3.5, 1.5, 13.0, 11.0]),
            ([1, 1, 5], vec![]),
        ] {
            let given = [start, limit, delta].map(Tensor::scalar);
            session.run(&[given[0].view(), given[1].view(), given[2].view(), x.view()]).unwrap();
            let y = session.output(0).unwrap();
            assert_eq!((y.fact().shape.dims(), y.elements::<f32>().unwrap()), (&[2, want.len() / 2][..], &want[..]));
        }
        let given = [0i64, 1 << 40, 1].map(Tensor::scalar);
        assert!(session.run(&[given[0].view(), given[1].view(), given[2].view(), x.view()]).is_err());
    }

    #[test]
    fn windows_and_filter_banks_have_sizes_of_the_run() {
        let hann = graph(
            &[node("HannWindow", &["n"], &["y"], &[])],
            &[],
            &[value("n", INT64, &[])],
            &[value("y", FLOAT, &[-1])],
        );
        let model = opened(&model(&hann)).unwrap();
        let mut session = model.session().unwrap();
        session.run(&[Tensor::scalar(4i64).view()]).unwrap();
        assert_eq!(session.output(0).unwrap().to_floats().unwrap().len(), 4);
    }

    #[test]
    fn branches_may_have_other_shapes() {
        let branch = |len: usize| {
            let constant = f32s("r", &[len as i64], &vec![len as f32; len]);
            graph(&[node("Identity", &["r"], &["y"], &[])], &[constant], &[], &[value("y", FLOAT, &[len as i64])])
        };
        let nodes = [
            node("Greater", &["x", "zero"], &["c"], &[]),
            node("If", &["c"], &["y"], &[body("then_branch", &branch(1)), body("else_branch", &branch(2))]),
        ];
        let constants = [f32s("zero", &[], &[0.0])];
        let file = model(&graph(&nodes, &constants, &[value("x", FLOAT, &[])], &[value("y", FLOAT, &[-1])]));
        let mut session = opened(&file).unwrap().session().unwrap();
        for (x, want) in [(1.0f32, &[1.0f32][..]), (-1.0, &[2.0, 2.0])] {
            session.run(&[Tensor::scalar(x).view()]).unwrap();
            assert_eq!(session.output(0).unwrap().elements::<f32>().unwrap(), want);
        }
    }

    #[test]
    fn shapes_that_follow_from_other_data_are_refused() {
        let nodes = [node("Mul", &["x", "two"], &["n"], &[]), node("Expand", &["two", "n"], &["y"], &[])];
        let inputs = [value("x", INT64, &[99])];
        let file = model(&graph(&nodes, &[i64s("two", &[], &[2])], &inputs, &[value("y", INT64, &[-1])]));
        assert!(opened(&file).is_err());
    }
}

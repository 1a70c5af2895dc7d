//! The meaning of a model's output: classes that exclude each other, independent classes, or something else.
//!
//! A model that distinguishes cats from dogs ends in a softmax, or in logits for one; a model that lists everything in
//! an image ends in a sigmoid for each class. Applying a softmax to the second kind gives scores that look right and
//! are wrong, so the activation is specified by the caller, by the file's metadata or by the model's last operator, in
//! that order, and the origin can be queried.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use skipstone_kernels::activation::Activation as Function;

use super::scorer::scores_output;
use crate::error::{Error, Fault, ModelFault, Result};
use crate::model::Model;
use crate::operator::{Operator, Place};
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::softmax::SoftmaxKind;
use crate::ops::unary::{Unary, UnaryKind};
use crate::plan::{Plan, Step};
use crate::tensor::DType;

/// The metadata's key for an [`Activation`].
const KEY: &str = "skipstone.activation";

/// How a model's output becomes scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The classes exclude each other: the scores sum to 1.
    Softmax,
    /// The classes are independent: every score is a probability.
    Sigmoid,
    /// The output unchanged.
    None,
}

impl Activation {
    /// Its name on the command line and in metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
            Self::None => "none",
        }
    }

    /// Applies it, in place.
    pub(super) fn apply(self, values: &mut [f32]) {
        match self {
            Self::Softmax => super::softmax(values),
            Self::Sigmoid => values.iter_mut().for_each(|v| *v = 1.0 / (1.0 + (-*v).exp())),
            Self::None => {}
        }
    }
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Softmax, Self::Sigmoid, Self::None].into_iter().find(|it| it.name() == name.trim()).ok_or_else(|| {
            Error::Invalid {
                fault: Fault::Model(ModelFault::Metadata),
                message: format!("{KEY} is '{name}', expected softmax, sigmoid or none"),
            }
        })
    }
}

/// Where the preparation of images, or the meaning of scores, was specified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The caller.
    Caller,
    /// The file's metadata.
    Metadata,
    /// The last operator of the model.
    Operator(String),
    /// The type of the model's input.
    Input,
    /// Nowhere: the default, which most models expect.
    Assumed,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller => f.write_str("as requested"),
            Self::Metadata => f.write_str("by the model's metadata"),
            Self::Operator(name) => write!(f, "by the model's last operator, {name}"),
            Self::Input => f.write_str("by the model's input, which takes bytes"),
            Self::Assumed => f.write_str("assumed: neither the caller nor the model says"),
        }
    }
}

/// How a model's output becomes scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the scores are.
    pub activation: Activation,
    /// Whether the model computes them itself, so that its output is used unchanged.
    pub by_model: bool,
    /// Where this was specified.
    pub origin: Origin,
}

impl Head {
    /// The head of `model`, whose first output of floats holds its classes: `asked`, or its metadata, or its last
    /// operator. Without any of these, one class is scored by a sigmoid and several by a softmax.
    ///
    /// # Errors
    /// `model.metadata` if the key has an unknown value; `model.output` if the output is sorted, so that its positions
    /// are not those of the classes.
    pub fn of(model: &Model, asked: Option<Activation>) -> Result<Self> {
        let output = scores_output(model.outputs());
        let classes = model.outputs().get(output).map_or(0, |output| output.fact.shape.elements());
        let last = last(model, output);
        if let Last::Sorted(name) = &last {
            return Err(Error::Invalid {
                fault: Fault::Model(ModelFault::Output),
                message: format!(
                    "'{name}' (TopK) sorts the scores, so that their positions say nothing about the classes: export \
                     the model without it"
                ),
            });
        }
        Self::from(last, classes, &model.info().metadata, asked)
    }

    /// The head of cosines, which no operator of the model says anything about.
    ///
    /// # Errors
    /// As for [`of`](Self::of).
    #[cfg(any(feature = "rules", test))]
    pub(super) fn of_cosines(metadata: &BTreeMap<String, String>, asked: Option<Activation>) -> Result<Self> {
        Self::from(Last::Other, 0, metadata, asked).map(|head| match head.origin {
            Origin::Assumed => Self { activation: Activation::None, by_model: true, ..head },
            _ => head,
        })
    }

    fn from(
        last: Last,
        classes: usize,
        metadata: &BTreeMap<String, String>,
        asked: Option<Activation>,
    ) -> Result<Self> {
        let told = match (asked, metadata.get(KEY)) {
            (Some(asked), _) => Some((asked, Origin::Caller)),
            (None, Some(name)) => Some((name.parse()?, Origin::Metadata)),
            (None, None) => None,
        };
        Ok(match (told, last) {
            // The model applies it already.
            (Some((activation, origin)), Last::Gives(own, _)) if own == activation => {
                Self { activation, by_model: true, origin }
            }
            (Some((activation, origin)), _) => Self { activation, by_model: activation == Activation::None, origin },
            (None, Last::Gives(activation, name)) => {
                Self { activation, by_model: true, origin: Origin::Operator(name) }
            }
            // The softmax of logarithms of probabilities is the probabilities.
            (None, Last::Logarithms(name)) => {
                Self { activation: Activation::Softmax, by_model: false, origin: Origin::Operator(name) }
            }
            (None, Last::Sorted(_) | Last::Other) => {
                let activation = if classes == 1 { Activation::Sigmoid } else { Activation::Softmax };
                Self { activation, by_model: false, origin: Origin::Assumed }
            }
        })
    }

    /// Whether the model's output already is its scores.
    pub(super) fn leaves(&self, values: &[f32]) -> bool {
        // A model may compute a softmax with other operators.
        let assumed = self.activation == Activation::Softmax && self.origin == Origin::Assumed;
        self.by_model || (assumed && are_probabilities(values))
    }

    /// Turns the model's output into scores, in place.
    pub(super) fn apply(&self, values: &mut [f32]) {
        if !self.leaves(values) {
            self.activation.apply(values);
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_model = if self.by_model && self.activation != Activation::None { " inside the model" } else { "" };
        write!(f, "{}{by_model}, {}", self.activation.name(), self.origin)
    }
}

/// Whether no value is negative and their sum is 1 within 1e-3.
fn are_probabilities(values: &[f32]) -> bool {
    let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
    values.iter().all(|&v| v >= 0.0) && (sum - 1.0).abs() <= 1e-3
}

/// The last operator of a model.
enum Last {
    /// An activation, and the name of its step.
    Gives(Activation, String),
    /// The logarithm of a softmax, and the name of its step.
    Logarithms(String),
    /// The largest elements in descending order, and the name of their step.
    Sorted(String),
    /// Anything else, or unknown.
    Other,
}

/// Most operands of a concatenation, and most steps behind an output, that are looked at.
const MOST_PARTS: usize = 64;
const MOST_STEPS: usize = 64;

/// The operator that computes an output of `model`, looking through steps that only move, convert or quantize it.
fn last(model: &Model, output: usize) -> Last {
    let Some(plan) = model.plan() else { return Last::Other };
    let Some(output) = plan.outputs.get(output) else { return Last::Other };
    // Steps of branches and loops are ignored: several of them may have written the output.
    let (mut outside, mut index) = (Vec::new(), 0);
    while let Some(step) = plan.steps.get(index) {
        outside.push(step);
        index = step.flow.as_ref().map_or(0, |flow| flow.end()).max(index + 1);
    }
    behind(plan, &outside, &output.place, MOST_STEPS)
}

/// The operator that computes what is in `place` after `steps` of a plan.
fn behind(plan: &Plan, steps: &[&Step], place: &Place, left: usize) -> Last {
    let Some(at) = steps.iter().rposition(|step| writes(step, place)) else { return Last::Other };
    let (before, step) = (&steps[..at], steps[at]);
    let operand = |index: usize| match step.operands.inputs.get(index) {
        Some(input) if left > 0 => behind(plan, before, input, left - 1),
        _ => Last::Other,
    };
    match &step.op {
        Op::Reshape(_) | Op::Transpose(_) | Op::Cast(_) | Op::Quantize(_) | Op::Dequantize(_) | Op::Slice(_) => {
            operand(0)
        }
        // Probabilities that are kept away from 0 and 1.
        Op::Activate(Activate { activation: Function::Clip { min, max } }) if *min >= 0.0 && *max <= 1.0 => operand(0),
        Op::Binary(Binary { kind: BinaryKind::Min | BinaryKind::Max, activation: Function::None })
            if step.operands.inputs.get(1).is_some_and(|bound| is_share(plan, bound)) =>
        {
            operand(0)
        }
        Op::Unary(Unary { kind: UnaryKind::Log }) => match operand(0) {
            Last::Gives(Activation::Softmax, _) => Last::Logarithms(step.name.clone()),
            _ => Last::Other,
        },
        // Independent classes side by side.
        Op::Concat(_) if left > 0 && (1..=MOST_PARTS).contains(&step.operands.inputs.len()) => {
            let sigmoid = |input| matches!(behind(plan, before, input, 0), Last::Gives(Activation::Sigmoid, _));
            match step.operands.inputs.iter().all(sigmoid) {
                true => Last::Gives(Activation::Sigmoid, step.name.clone()),
                false => Last::Other,
            }
        }
        _ => made_by(step),
    }
}

/// Whether a place holds a constant between 0 and 1.
fn is_share(plan: &Plan, place: &Place) -> bool {
    let Place::Constant(index) = *place else { return false };
    let number = plan.constants.get(index).filter(|held| held.shape().elements() == 1);
    let number = number.and_then(|held| match held.dtype() {
        DType::F64 => held.peek::<f64>()?.get(0),
        _ => held.peek::<f32>()?.get(0).map(f64::from),
    });
    number.is_some_and(|number| (0.0..=1.0).contains(&number))
}

/// Whether `step` writes a result to `place`.
fn writes(step: &Step, place: &Place) -> bool {
    let Place::Arena(bytes) = place else { return false };
    step.operands.writes.iter().take(step.operands.outputs).any(|range| range.start == bytes.start)
}

fn made_by(step: &Step) -> Last {
    let function = match &step.op {
        Op::Softmax(softmax) => {
            return match softmax.kind {
                SoftmaxKind::Softmax => Last::Gives(Activation::Softmax, step.name.clone()),
                SoftmaxKind::LogSoftmax => Last::Logarithms(step.name.clone()),
            };
        }
        Op::TopK(_) => return Last::Sorted(step.name.clone()),
        Op::Unary(Unary { kind: UnaryKind::Sigmoid }) => Function::Sigmoid,
        Op::Activate(op) => op.activation,
        Op::Conv(op) => op.activation,
        Op::MatMul(op) => op.activation,
        Op::Binary(op) => op.activation,
        // Fallback operators have their ONNX names.
        Op::Foreign(_) => match step.op.name() {
            "Softmax" => return Last::Gives(Activation::Softmax, step.name.clone()),
            "Sigmoid" => Function::Sigmoid,
            _ => Function::None,
        },
        _ => Function::None,
    };
    match function {
        Function::Sigmoid | Function::HardSigmoid { .. } => Last::Gives(Activation::Sigmoid, step.name.clone()),
        _ => Last::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::ops::concat::Concat;
    use crate::ops::reduce::{Reduce, ReduceKind};
    use crate::ops::reshape::Reshape;
    use crate::ops::softmax::Softmax;
    use crate::ops::topk::TopK;
    use crate::options::Options;
    use crate::tensor::{Fact, Shape, Tensor};

    /// Three classes, the means of the channels, followed by `ops`.
    fn model(ops: Vec<Op>) -> Model {
        let mut graph = Graph::new();
        let image = Fact::new(DType::F32, Shape::new(&[1, 3, 4, 4]).unwrap());
        let mean = Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: false };
        let image = graph.add_input("image", image).unwrap();
        let mut value = graph.add_node("mean", mean, &[image]).unwrap()[0];
        for (index, op) in ops.into_iter().enumerate() {
            value = graph.add_node(format!("node {index}"), op, &[value]).unwrap()[0];
        }
        graph.outputs.push(("scores".into(), value));
        Model::from_graph(graph, &Options::default()).unwrap()
    }

    fn softmax(kind: SoftmaxKind) -> Op {
        Softmax { axes: vec![1], kind }.into()
    }

    fn sigmoid() -> Op {
        Activate { activation: Function::Sigmoid }.into()
    }

    fn told(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(KEY.to_owned(), name.to_owned())])
    }

    #[test]
    fn the_last_operator_decides_the_activation() {
        let head = |ops| Head::of(&model(ops), None).unwrap();
        let same = || Reshape { shape: Shape::new(&[1, 3]).unwrap() }.into();
        let operator = |index| Origin::Operator(format!("node {index}"));
        let expected = |activation, by_model, origin| Head { activation, by_model, origin };
        assert_eq!(head(vec![]), expected(Activation::Softmax, false, Origin::Assumed));
        assert_eq!(head(vec![softmax(SoftmaxKind::Softmax)]), expected(Activation::Softmax, true, operator(0)));
        assert_eq!(head(vec![softmax(SoftmaxKind::LogSoftmax)]), expected(Activation::Softmax, false, operator(0)));
        assert_eq!(head(vec![sigmoid()]).activation, Activation::Sigmoid);
        assert!(head(vec![sigmoid()]).by_model);
        assert_eq!(head(vec![softmax(SoftmaxKind::Softmax), same()]).activation, Activation::Softmax);
        assert!(head(vec![softmax(SoftmaxKind::Softmax), same()]).by_model);
    }

    /// Regression: a sigmoid of arithmetic got a softmax.
    #[test]
    fn activations_spelled_with_arithmetic_are_found() {
        let unary = |kind| Op::from(Unary { kind });
        let number = |kind, number| (kind, Some(number));
        let of = |ops: Vec<(BinaryKind, Option<f32>)>, first: Vec<Op>, dtype| {
            let mut graph = Graph::new();
            let image = Fact::new(dtype, Shape::new(&[1, 3]).unwrap());
            let x = graph.add_input("image", image).unwrap();
            let mut value = x;
            for op in first {
                value = graph.add_node(format!("{op:?}"), op, &[value]).unwrap()[0];
            }
            let powers = value;
            for (kind, number) in ops {
                let other = match number {
                    Some(number) if dtype == DType::F64 => {
                        graph.add_constant("number", Tensor::scalar(f64::from(number))).unwrap()
                    }
                    Some(number) => graph.add_constant("number", Tensor::scalar(number)).unwrap(),
                    None => {
                        let sum = Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: true };
                        graph.add_node("sum", sum, &[powers]).unwrap()[0]
                    }
                };
                value = graph.add_node(format!("{kind:?}"), Binary::new(kind), &[value, other]).unwrap()[0];
            }
            graph.outputs.push(("scores".into(), value));
            let head = Head::of(&Model::from_graph(graph, &Options::default()).unwrap(), None).unwrap();
            (head.activation, head.by_model, matches!(head.origin, Origin::Operator(_)))
        };
        for dtype in [DType::F32, DType::F64] {
            let powers = || vec![unary(UnaryKind::Neg), unary(UnaryKind::Exp)];
            let sigmoid = vec![number(BinaryKind::Add, 1.0), number(BinaryKind::Pow, -1.0)];
            assert_eq!(of(sigmoid, powers(), dtype), (Activation::Sigmoid, true, true), "{dtype}");
            let softmax = vec![(BinaryKind::Div, None)];
            let exp = vec![unary(UnaryKind::Exp)];
            assert_eq!(of(softmax, exp, dtype), (Activation::Softmax, true, true), "{dtype}");
            let logarithm = vec![Softmax { axes: vec![1], kind: SoftmaxKind::Softmax }.into(), unary(UnaryKind::Log)];
            assert_eq!(of(vec![], logarithm, dtype), (Activation::Softmax, false, true), "{dtype}");
        }
        let clipped = vec![sigmoid(), Activate { activation: Function::Clip { min: 1e-7, max: 0.999 } }.into()];
        assert_eq!(of(vec![], clipped, DType::F32), (Activation::Sigmoid, true, true));
        let clipped = vec![number(BinaryKind::Max, 1e-7), number(BinaryKind::Min, 0.999)];
        let sigmoid = vec![unary(UnaryKind::Sigmoid)];
        assert_eq!(of(clipped, sigmoid, DType::F64), (Activation::Sigmoid, true, true));
    }

    #[test]
    fn sigmoids_side_by_side_are_independent_classes() {
        let mut graph = Graph::new();
        let image = Fact::new(DType::F32, Shape::new(&[1, 3]).unwrap());
        let x = graph.add_input("image", image).unwrap();
        let both = ["a", "b"].map(|name| graph.add_node(name, sigmoid(), &[x]).unwrap()[0]);
        let y = graph.add_node("both", Concat { axis: 1 }, &both).unwrap()[0];
        graph.outputs.push(("scores".into(), y));
        let head = Head::of(&Model::from_graph(graph, &Options::default()).unwrap(), None).unwrap();
        assert_eq!((head.activation, head.by_model), (Activation::Sigmoid, true));
    }

    /// Regression: the best scores were taken for those of the first classes.
    #[test]
    fn sorted_scores_are_refused() {
        let top = TopK { axis: 1, k: 2, largest: true };
        let error = Head::of(&model(vec![top.into()]), None).unwrap_err();
        assert_eq!(error.code(), "model.output");
        assert!(error.to_string().contains("'node 0' (TopK) sorts the scores"), "{error}");
    }

    #[test]
    fn settings_and_metadata_override_the_detected_activation() {
        let of = |last, metadata: &BTreeMap<_, _>, asked| Head::from(last, 3, metadata, asked).unwrap();
        let sigmoid = || Last::Gives(Activation::Sigmoid, "last".into());
        let nothing = BTreeMap::new();
        let head = of(Last::Other, &told("sigmoid"), None);
        assert_eq!((head.activation, head.by_model, head.origin), (Activation::Sigmoid, false, Origin::Metadata));
        let head = of(Last::Other, &told("sigmoid"), Some(Activation::None));
        assert_eq!((head.activation, head.by_model, head.origin), (Activation::None, true, Origin::Caller));
        // The model's own activation is not applied again.
        let head = of(sigmoid(), &told("sigmoid"), None);
        assert_eq!((head.activation, head.by_model, head.origin), (Activation::Sigmoid, true, Origin::Metadata));
        let head = of(sigmoid(), &nothing, Some(Activation::Softmax));
        assert_eq!((head.activation, head.by_model), (Activation::Softmax, false));
        assert_eq!(Head::from(Last::Other, 3, &told("relu"), None).unwrap_err().code(), "model.metadata");
    }

    #[test]
    fn one_class_is_a_sigmoid() {
        let head = Head::from(Last::Other, 1, &BTreeMap::new(), None).unwrap();
        let mut scores = [0.0];
        head.apply(&mut scores);
        assert_eq!(scores, [0.5]);
    }

    #[test]
    fn a_softmax_of_other_operators_is_left_alone_unless_asked_for() {
        let assumed = Head::from(Last::Other, 3, &BTreeMap::new(), None).unwrap();
        let mut scores = [0.25, 0.75, 0.0];
        assumed.apply(&mut scores);
        assert_eq!(scores, [0.25, 0.75, 0.0]);
        let asked = Head::from(Last::Other, 3, &BTreeMap::new(), Some(Activation::Softmax)).unwrap();
        asked.apply(&mut scores);
        assert!(scores[2] > 0.2, "{scores:?}");
    }
}

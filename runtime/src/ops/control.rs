//! Control flow: operators that own blocks of nodes and decide whether and how often they run ([ONNX
//! If](https://onnx.ai/onnx/operators/onnx__If.html), [Loop](https://onnx.ai/onnx/operators/onnx__Loop.html),
//! [Scan](https://onnx.ai/onnx/operators/onnx__Scan.html)).
//!
//! ```text
//! If      inputs: condition                                      blocks: for true, for false
//! Loop    inputs: [limit,] [condition,] carried..., scanned...   blocks: the body
//!         body: (iteration, condition, carried..., slices...) -> (condition, carried..., collected...)
//!         results: carried..., collected...
//! ```
//!
//! A Scan is a Loop with a known number of iterations whose condition stays true. Every shape is the same in all
//! iterations: collected results have a known number of slices.

use serde::{Deserialize, Serialize};

use crate::error::{OpError, list};
use crate::operator::{BindContext, Choice, Execute, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// An operator with blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Control {
    /// One of two blocks, both without parameters and with results of the same types and shapes.
    If,
    /// One block, repeatedly.
    Loop(Loop),
}

/// How often a body runs, and its inputs and results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loop {
    /// The largest number of iterations, if the model specifies it.
    pub iterations: Option<usize>,
    /// Whether the first input, one i64, is the largest number of iterations.
    pub limited: bool,
    /// Whether the next input, one bool, decides about the first iteration.
    pub conditional: bool,
    /// Number of values passed from each iteration to the next.
    pub carried: usize,
    /// How inputs are cut into slices, one for each of the `iterations`.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub scanned: Vec<Along>,
    /// How results are assembled from slices, one from each of the `iterations`.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub collected: Vec<Along>,
}

/// The axis along which slices are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Along {
    /// The axis.
    pub axis: usize,
    /// Whether slices start at the end.
    pub reverse: bool,
}

impl From<Loop> for Control {
    fn from(op: Loop) -> Self {
        Self::Loop(op)
    }
}

/// Facts of a block's parameters and results.
pub(crate) type Signature<'a> = (Vec<&'a Fact>, Vec<&'a Fact>);

fn refuse(reason: impl Into<String>) -> OpError {
    OpError::Attribute { name: "body", reason: reason.into() }
}

fn one(fact: Option<&&Fact>, index: usize, dtype: DType) -> Result<(), OpError> {
    match fact {
        Some(fact) if fact.dtype == dtype && fact.shape.elements() == 1 => Ok(()),
        Some(fact) => Err(refuse(format!("value {index} is {fact}, not one {dtype}"))),
        None => Err(OpError::Operand(index)),
    }
}

impl Control {
    /// Facts of the results, computed from those of the inputs and blocks.
    pub(crate) fn facts(&self, inputs: &[&Fact], blocks: &[Signature<'_>]) -> Result<Vec<Fact>, OpError> {
        match (self, blocks) {
            (Self::If, [(none, then), (nothing, otherwise)]) if none.is_empty() && nothing.is_empty() => {
                if inputs.len() != 1 {
                    return Err(OpError::Arity { want: "1", got: inputs.len() });
                }
                one(inputs.first(), 0, DType::Bool)?;
                if then != otherwise {
                    return Err(refuse(format!("the branches give {} and {}", list(then), list(otherwise))));
                }
                Ok(then.iter().map(|&fact| fact.clone()).collect())
            }
            (Self::Loop(op), [(parameters, results)]) => op.facts(inputs, parameters, results),
            _ => Err(refuse("an If has two blocks without parameters, a Loop one")),
        }
    }
}

impl Loop {
    /// Position of the first carried input.
    pub(crate) fn first_carried(&self) -> usize {
        usize::from(self.limited) + usize::from(self.conditional)
    }

    fn facts(&self, inputs: &[&Fact], parameters: &[&Fact], results: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let first = self.first_carried();
        let counts = [inputs.len(), parameters.len(), results.len()];
        let (scanned, collected) = (self.scanned.len(), self.collected.len());
        let sum = |numbers: &[usize]| numbers.iter().try_fold(0usize, |sum, &number| sum.checked_add(number));
        let want = [
            sum(&[first, self.carried, scanned]),
            sum(&[2, self.carried, scanned]),
            sum(&[1, self.carried, collected]),
        ];
        if counts.map(Some) != want {
            let [inputs, parameters, results] = counts;
            let counts = format!("{inputs} inputs, {parameters} parameters and {results} results");
            return Err(refuse(format!("{counts} do not match its carried, scanned and collected values")));
        }
        if self.limited {
            one(inputs.first(), 0, DType::I64)?;
        }
        if self.conditional {
            one(inputs.get(first - 1), first - 1, DType::Bool)?;
        }
        one(parameters.first(), 0, DType::I64)?;
        one(parameters.get(1), 1, DType::Bool)?;
        one(results.first(), 0, DType::Bool)?;
        let mut facts = Vec::new();
        for at in 0..self.carried {
            let (given, held, next) = (inputs[first + at], parameters[2 + at], results[1 + at]);
            if given != held || held != next {
                return Err(refuse(format!("value {at} is {given}, then {held}, then {next}: it must not change")));
            }
            facts.push(held.clone());
        }
        let Some(iterations) = self.iterations else {
            return match scanned + collected {
                0 => Ok(facts),
                _ => Err(refuse("scanned or collected slices need a known number of iterations")),
            };
        };
        for (at, along) in self.scanned.iter().enumerate() {
            let (whole, slice) = (inputs[first + self.carried + at], parameters[2 + self.carried + at]);
            if along.whole(slice, iterations)? != *whole {
                return Err(refuse(format!("{iterations} slices of {slice} are not {whole}")));
            }
        }
        for (at, along) in self.collected.iter().enumerate() {
            facts.push(along.whole(results[1 + self.carried + at], iterations)?);
        }
        Ok(facts)
    }
}

impl Along {
    /// The fact of `count` slices together.
    fn whole(self, slice: &Fact, count: usize) -> Result<Fact, OpError> {
        let mut dims = slice.shape.dims().to_vec();
        if self.axis > dims.len() {
            return Err(refuse(format!("axis {} of slices {slice}", self.axis)));
        }
        dims.insert(self.axis, count);
        Ok(Fact::new(slice.dtype, Shape::new(&dims)?))
    }

    /// The location of slices in `whole`.
    pub(crate) fn slices(self, whole: &Fact) -> Slices {
        let count = whole.shape.get(self.axis).copied().unwrap_or(0);
        let runs = whole.shape.iter().take(self.axis).product();
        let run = whole.bytes().checked_div(runs * count).unwrap_or(0);
        Slices { count, runs, run, reverse: self.reverse }
    }
}

/// Slices of a tensor: `runs` runs of `run` bytes each, contiguous in the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// How many slices there are.
    pub count: usize,
    /// Number of contiguous runs in a slice.
    pub runs: usize,
    /// Bytes of a run.
    pub run: usize,
    /// Whether the last slice comes first.
    pub reverse: bool,
}

impl Slices {
    /// For every run of an iteration's slice: its offset in the whole, and in the slice.
    pub(crate) fn of(self, iteration: usize) -> impl Iterator<Item = (usize, usize)> {
        let index = if self.reverse { self.count.saturating_sub(1 + iteration) } else { iteration };
        (0..self.runs).map(move |at| ((at * self.count + index) * self.run, at * self.run))
    }
}

impl Operator for Control {
    fn name(&self) -> &str {
        match self {
            Self::If => "If",
            Self::Loop(Loop { scanned, .. }) if !scanned.is_empty() => "Scan",
            Self::Loop(_) => "Loop",
        }
    }

    /// Needs the blocks: see [`Graph::infer`](crate::graph::Graph::infer).
    fn infer(&self, _: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        Err(refuse("it is missing"))
    }

    /// Never called: the plan has its own steps for branches and loops.
    fn plan(&self, _: &PlanContext<'_>) -> Result<Choice, OpError> {
        Err(refuse("it is missing"))
    }

    fn bind(&self, _: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        Err(refuse("it is missing"))
    }
}

impl Semantics for Control {
    fn evaluate(&self, _: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        Err(refuse("it is missing"))
    }
}

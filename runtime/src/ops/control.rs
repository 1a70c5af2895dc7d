//! Control: operators that own blocks of nodes and decide whether and how often these run
//! ([ONNX If](https://onnx.ai/onnx/operators/onnx__If.html), [Loop](https://onnx.ai/onnx/operators/onnx__Loop.html),
//! [Scan](https://onnx.ai/onnx/operators/onnx__Scan.html)).
//!
//! ```text
//! If      inputs: condition                                      blocks: where it is true, where it is false
//! Loop    inputs: [limit,] [condition,] carried..., scanned...   blocks: the body
//!         body: (iteration, condition, carried..., slices...) -> (condition, carried..., collected...)
//!         results: carried..., collected...
//! ```
//!
//! A Scan is a Loop over known iterations whose condition stays true. Every shape is the same in all iterations: what
//! is collected has a known number of slices.

use serde::{Deserialize, Serialize};

use crate::error::{OpError, list};
use crate::operator::{BindContext, Choice, Execute, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// An operator with blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Control {
    /// One of two blocks, both without parameters and with results of the same facts.
    If,
    /// One block, again and again.
    Loop(Loop),
}

/// How often a body runs, and what it gets and gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loop {
    /// Most iterations, where the model says it.
    pub iterations: Option<usize>,
    /// Whether the first input, one i64, is the most iterations.
    pub limited: bool,
    /// Whether the next input, one bool, says if there is a first iteration.
    pub conditional: bool,
    /// Number of values that every iteration gets from the one before.
    pub carried: usize,
    /// How inputs are cut into slices, one for each of `iterations`.
    pub scanned: Vec<Along>,
    /// How results are put together from slices, one of each of `iterations`.
    pub collected: Vec<Along>,
}

/// An axis that iterations go along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Along {
    /// The axis.
    pub axis: usize,
    /// Whether from its end.
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
    /// Facts of the results, from those of the inputs and blocks.
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
            return Err(refuse(format!("{counts} are not as many as it carries, scans and collects")));
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
                return Err(refuse(format!("value {at} is {given}, then {held}, then {next}: it may not change")));
            }
            facts.push(held.clone());
        }
        let Some(iterations) = self.iterations else {
            return match scanned + collected {
                0 => Ok(facts),
                _ => Err(refuse("slices of a number of iterations that is not known")),
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
    /// What so many slices make.
    fn whole(self, slice: &Fact, count: usize) -> Result<Fact, OpError> {
        let mut dims = slice.shape.dims().to_vec();
        if self.axis > dims.len() {
            return Err(refuse(format!("axis {} of slices {slice}", self.axis)));
        }
        dims.insert(self.axis, count);
        Ok(Fact::new(slice.dtype, Shape::new(&dims)?))
    }

    /// Where the slices of `whole` lie in it.
    pub(crate) fn slices(self, whole: &Fact) -> Slices {
        let count = whole.shape.get(self.axis).copied().unwrap_or(0);
        let runs = whole.shape.iter().take(self.axis).product();
        let run = whole.bytes().checked_div(runs * count).unwrap_or(0);
        Slices { count, runs, run, reverse: self.reverse }
    }
}

/// Slices of a tensor: `runs` runs of `run` bytes each, one behind the other in the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// How many slices there are.
    pub count: usize,
    /// Runs of bytes of a slice.
    pub runs: usize,
    /// Bytes of a run.
    pub run: usize,
    /// Whether the last slice comes first.
    pub reverse: bool,
}

impl Slices {
    /// For every run of the slice of an iteration: where it is in the whole, and in the slice.
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

    /// Steps of a plan branch and loop themselves.
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

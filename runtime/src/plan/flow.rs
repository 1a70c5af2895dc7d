//! Control flow steps: branches and loops over ranges of a plan's steps, with the bytes that they move.

use std::ops::Range;

use crate::operator::Place;
use crate::ops::control::Slices;

/// What a step does with the steps after it.
#[derive(Clone, Debug)]
pub enum Flow {
    /// One of two ranges of steps runs.
    Branch(Branch),
    /// A range of steps runs repeatedly.
    Repeat(Repeat),
}

impl Flow {
    /// The first step that does not belong to it.
    #[must_use]
    pub fn end(&self) -> usize {
        match self {
            Self::Branch(branch) => branch.otherwise.steps.end,
            Self::Repeat(repeat) => repeat.body.end,
        }
    }
}

/// A choice by one bool.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The bool.
    pub condition: Place,
    /// Where it is true.
    pub then: Arm,
    /// If it is false.
    pub otherwise: Arm,
}

/// Steps that may run, and results that are moved to their places afterwards.
#[derive(Clone, Debug, Default)]
pub struct Arm {
    /// The steps.
    pub steps: Range<usize>,
    /// Results that no step writes directly to their places.
    pub moves: Vec<Move>,
}

/// A loop.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// Steps of an iteration.
    pub body: Range<usize>,
    /// Largest number of iterations, if the plan knows it.
    pub iterations: Option<usize>,
    /// Largest number of iterations, one i64, if it is computed.
    pub limit: Option<Place>,
    /// A bool that decides whether there is a first iteration.
    pub begins: Option<Place>,
    /// Location of the iteration's number, one i64.
    pub number: Range<usize>,
    /// Location of the iteration's condition, one bool: true.
    pub condition: Range<usize>,
    /// Before the first iteration: carried values.
    pub start: Vec<Move>,
    /// Before every iteration: slices from whole tensors.
    pub scanned: Vec<(Place, Range<usize>, Slices)>,
    /// The bool after an iteration that decides whether there is another.
    pub goes_on: Place,
    /// After every iteration: slices into whole tensors.
    pub collected: Vec<(Place, Range<usize>, Slices)>,
    /// After that: values carried to the next iteration, ordered so that nothing is overwritten too early.
    pub next: Vec<Move>,
}

/// Bytes that are copied.
#[derive(Clone, Debug)]
pub struct Move {
    /// From this place,
    pub from: Place,
    /// to this range of the arena.
    pub to: Range<usize>,
}

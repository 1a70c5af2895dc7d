//! Steps that decide which steps run: branches and loops over ranges of a plan's steps, with the bytes that go in and
//! out of them.

use std::ops::Range;

use crate::operator::Place;
use crate::ops::control::Slices;

/// What a step does with the steps behind it.
#[derive(Clone, Debug)]
pub enum Flow {
    /// One of two ranges of steps runs.
    Branch(Branch),
    /// A range of steps runs again and again.
    Repeat(Repeat),
}

impl Flow {
    /// The first step that is none of its own.
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
    /// Where it is false.
    pub otherwise: Arm,
}

/// Steps that may run, and results that are moved to their place behind them.
#[derive(Clone, Debug, Default)]
pub struct Arm {
    /// The steps.
    pub steps: Range<usize>,
    /// Results that no step writes to their place.
    pub moves: Vec<Move>,
}

/// A loop.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// Steps of an iteration.
    pub body: Range<usize>,
    /// Most iterations, where the plan knows it.
    pub iterations: Option<usize>,
    /// Most iterations, one i64, where that is computed.
    pub limit: Option<Place>,
    /// A bool that says if there is a first iteration.
    pub begins: Option<Place>,
    /// Where an iteration finds its number, one i64.
    pub number: Range<usize>,
    /// Where it finds the condition, one bool: true.
    pub condition: Range<usize>,
    /// Before the first iteration: what is carried.
    pub start: Vec<Move>,
    /// Before every iteration: slices of whole tensors.
    pub scanned: Vec<(Place, Range<usize>, Slices)>,
    /// The bool behind an iteration that says if there is another.
    pub goes_on: Place,
    /// Behind every iteration: slices to their places in whole tensors.
    pub collected: Vec<(Place, Range<usize>, Slices)>,
    /// Behind that: what is carried to the next iteration, in an order in which nothing is overwritten too early.
    pub next: Vec<Move>,
}

/// Bytes that are copied.
#[derive(Clone, Debug)]
pub struct Move {
    /// From here,
    pub from: Place,
    /// to this range of the arena.
    pub to: Range<usize>,
}

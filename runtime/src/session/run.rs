//! One run: a walk through the plan's steps, into the branches that are taken and around loops.

use std::ops::Range;
use std::time::{Duration, Instant};

use skipstone_kernels::arena::Arena;
use skipstone_kernels::threads::Pool;

use super::{Cancel, Profile};
use crate::error::{Error, OpError, Result};
use crate::limits::Allowance;
use crate::operator::{Io, Place};
#[cfg(any(feature = "passes", test))]
use crate::ops::Op;
use crate::ops::control::Slices;
#[cfg(any(feature = "passes", test))]
use crate::ops::routed::Routed;
use crate::plan::{Flow, Move, Program, Repeat, Routing, Step};

/// A run in progress.
pub(super) struct Run<'a> {
    pub program: &'a Program,
    pub arena: &'a mut Arena,
    pub pool: &'a Pool,
    /// The bytes of the model's inputs.
    pub inputs: &'a [&'a [u8]],
    pub cancel: &'a Cancel,
    pub deadline: Option<Duration>,
    pub started: Instant,
    pub profile: Option<&'a mut Profile>,
    pub allowance: Allowance,
    /// Index of the step that is running.
    pub at: usize,
}

/// Bytes that are copied between two questions whether to stop.
const COPIED: usize = 1 << 20;

impl Run<'_> {
    /// Runs a range of the plan's steps.
    pub fn steps(&mut self, range: Range<usize>) -> Result<()> {
        let program = self.program;
        let mut at = range.start;
        while at < range.end {
            self.check_stop(at)?;
            self.at = at;
            let (step, executable) = program.step(at).ok_or_else(|| Error::Internal("a step past the last".into()))?;
            self.allowance.work(step.work)?;
            let began = self.profile.is_some().then(Instant::now);
            match step.flow.as_deref() {
                None => {
                    let experts = program.experts().and_then(|it| Some((&it.cache, it.layer(at)?)));
                    if let Some((cache, layer)) = experts {
                        cache.enter(layer);
                    }
                    let views = self.arena.views(&step.operands.writes);
                    let views = views.ok_or(OpError::Operand(usize::MAX)).map_err(|e| e.at(&step.name))?;
                    let mut io = Io {
                        operands: &step.operands,
                        views,
                        inputs: self.inputs,
                        constants: &program.plan().constants,
                        packed: &step.choice.packed,
                        pool: self.pool,
                        experts,
                        active: 1.0,
                    };
                    let result = executable.run(&mut io);
                    if self.pool.halted() {
                        return Err(self.halted(at));
                    }
                    result.map_err(|e| e.at(&step.name))?;
                    let active = io.active;
                    let time = began.map(|began| began.elapsed());
                    #[cfg(any(feature = "passes", test))]
                    if let (Some(profile), Op::Routed(_)) = (self.profile.as_deref_mut(), &step.op) {
                        Routed::count(&io, &step.inputs, &mut profile.selected[at]).map_err(|e| e.at(&step.name))?;
                    }
                    self.count(at, time, active);
                    self.foresee(Some(at));
                    at += 1;
                }
                Some(flow) => {
                    // The time is counted by the steps inside.
                    self.count(at, began.map(|_| Duration::ZERO), 1.0);
                    self.flow(at, step, flow)?;
                    at = flow.end();
                }
            }
        }
        Ok(())
    }

    /// Tells the cache of experts what is known after a step, or with `None` before the first.
    pub fn foresee(&self, after: Option<usize>) {
        let Some(experts) = self.program.experts() else { return };
        for Routing { place, dtype, layers, .. } in experts.known(after) {
            let Some(bytes) = self.bytes(place) else { continue };
            let numbers = bytes.chunks_exact(dtype.size()).map(|bytes| match *bytes {
                [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                _ => bytes.try_into().map_or(0, i64::from_le_bytes),
            });
            layers.iter().for_each(|&layer| experts.cache.foresee(layer, numbers.clone()));
        }
    }

    /// The bytes of a value.
    fn bytes(&self, place: &Place) -> Option<&[u8]> {
        match place {
            Place::Arena(range) => self.arena.bytes().get(range.clone()),
            Place::Input(index) => self.inputs.get(*index).copied(),
            Place::Constant(index) => self.program.plan().constants.get(*index).map(|tensor| tensor.bytes()),
        }
    }

    fn flow(&mut self, at: usize, step: &Step, flow: &Flow) -> Result<()> {
        match flow {
            Flow::Branch(branch) => {
                let taken = self.truth(&branch.condition, step)?;
                let arm = if taken { &branch.then } else { &branch.otherwise };
                self.steps(arm.steps.clone())?;
                self.moves(&arm.moves, step)
            }
            Flow::Repeat(repeat) => self.repeat(at, step, repeat),
        }
    }

    fn repeat(&mut self, at: usize, step: &Step, repeat: &Repeat) -> Result<()> {
        let limit = repeat.limit.as_ref().map(|limit| self.number(limit, step)).transpose()?;
        let limit = limit.map_or(u64::MAX, |limit| u64::try_from(limit).unwrap_or(0));
        let limit = limit.min(repeat.iterations.map_or(u64::MAX, |iterations| iterations as u64));
        let mut goes_on = repeat.begins.as_ref().map_or(Ok(true), |begins| self.truth(begins, step))?;
        self.moves(&repeat.start, step)?;
        let mut iteration = 0;
        while goes_on && iteration < limit {
            self.check_stop(at)?;
            self.allowance.iteration()?;
            let index = usize::try_from(iteration).map_err(|_| wrong_operands(step))?;
            self.write(&repeat.number, &iteration.to_le_bytes(), step)?;
            self.write(&repeat.condition, &[1], step)?;
            for (whole, slice, slices) in &repeat.scanned {
                for (from, to) in slices.of(index) {
                    self.copy((whole, from), (slice, to), slices.run, step)?;
                }
            }
            self.steps(repeat.body.clone())?;
            goes_on = self.truth(&repeat.goes_on, step)?;
            for (slice, whole, slices) in &repeat.collected {
                for (to, from) in slices.of(index) {
                    self.copy((slice, from), (whole, to), slices.run, step)?;
                }
            }
            self.moves(&repeat.next, step)?;
            iteration += 1;
        }
        let whole = |&(_, _, Slices { count, .. }): &(Place, Range<usize>, Slices)| count as u64 == iteration;
        if repeat.collected.iter().all(whole) {
            return Ok(());
        }
        let reason =
            format!("it ended after {iteration} iterations, but its collected results need a slice of every iteration");
        Err(OpError::Value(reason).at(&step.name))
    }

    fn moves(&mut self, moves: &[Move], step: &Step) -> Result<()> {
        moves.iter().try_for_each(|Move { from, to }| self.copy((from, 0), (to, 0), to.len(), step))
    }

    /// Copies `len` bytes from an offset in a place to an offset in a range.
    fn copy(&mut self, from: (&Place, usize), to: (&Range<usize>, usize), len: usize, step: &Step) -> Result<()> {
        let part = |start: usize, end: usize, behind: usize| {
            let first = start.checked_add(behind)?;
            let last = first.checked_add(len)?;
            (last <= end).then_some(first..last)
        };
        let to = part(to.0.start, to.0.end, to.1).ok_or_else(|| wrong_operands(step))?;
        let bytes = match from.0 {
            Place::Arena(range) => {
                let from = part(range.start, range.end, from.1).filter(|from| from.end <= self.arena.len());
                let from = from.filter(|_| to.end <= self.arena.len()).ok_or_else(|| wrong_operands(step))?;
                if from.start < to.end && to.start < from.end {
                    self.arena.bytes_mut().copy_within(from, to.start);
                    return Ok(());
                }
                for part in from.clone().step_by(COPIED) {
                    self.check_stop(self.at)?;
                    let end = from.end.min(part + COPIED);
                    self.arena.bytes_mut().copy_within(part..end, to.start + (part - from.start));
                }
                return Ok(());
            }
            Place::Input(index) => self.inputs.get(*index).copied(),
            Place::Constant(index) => self.program.plan().constants.get(*index).map(|tensor| tensor.bytes()),
        };
        let bytes =
            bytes.and_then(|bytes| bytes.get(part(0, bytes.len(), from.1)?)).ok_or_else(|| wrong_operands(step))?;
        for (part, bytes) in (to.start..).step_by(COPIED).zip(bytes.chunks(COPIED)) {
            self.check_stop(self.at)?;
            let to = self.arena.bytes_mut().get_mut(part..part + bytes.len());
            to.ok_or_else(|| wrong_operands(step))?.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Copies bytes that leave the arena after the last step; both slices have the same length.
    pub fn copy_out(&self, from: &[u8], to: &mut [u8]) -> Result<()> {
        for (to, from) in to.chunks_mut(COPIED).zip(from.chunks(COPIED)) {
            if self.pool.stops() {
                return Err(self.halted(self.at));
            }
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn write(&mut self, range: &Range<usize>, bytes: &[u8], step: &Step) -> Result<()> {
        let held = self.arena.bytes_mut().get_mut(range.clone()).filter(|held| held.len() == bytes.len());
        held.ok_or_else(|| wrong_operands(step))?.copy_from_slice(bytes);
        Ok(())
    }

    fn read<const N: usize>(&self, place: &Place, step: &Step) -> Result<[u8; N]> {
        self.bytes(place).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| wrong_operands(step))
    }

    fn truth(&self, place: &Place, step: &Step) -> Result<bool> {
        self.read(place, step).map(|[byte]: [u8; 1]| byte != 0)
    }

    fn number(&self, place: &Place, step: &Step) -> Result<i64> {
        self.read(place, step).map(i64::from_le_bytes)
    }

    /// An error if the run was cancelled or is late.
    fn check_stop(&self, step: usize) -> Result<()> {
        if self.cancel.is_requested() || self.is_late() { Err(self.halted(step)) } else { Ok(()) }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| self.started.elapsed() >= deadline)
    }

    /// The error with which the run ends at this step.
    fn halted(&self, step: usize) -> Error {
        if self.is_late() { Error::DeadlineExceeded { step } } else { Error::Cancelled { step } }
    }

    fn count(&mut self, at: usize, time: Option<Duration>, active: f64) {
        if let (Some(profile), Some(time)) = (self.profile.as_deref_mut(), time)
            && let (Some(total), Some(runs)) = (profile.times.get_mut(at), profile.runs.get_mut(at))
            && let Some(sum) = profile.active.get_mut(at)
        {
            *total += time;
            *runs += 1;
            *sum += active;
        }
    }
}

fn wrong_operands(step: &Step) -> Error {
    OpError::Operand(usize::MAX).at(&step.name)
}

//! The session: an arena, a thread pool, and a walk through the plan's steps.
//!
//! A session is cheap compared to its model, which it shares with any number of others. A run of native steps makes no
//! heap allocation: everything it needs was placed when the session was made.

#[cfg(test)]
#[cfg(all(debug_assertions, feature = "passes"))]
mod pieces;
mod run;
mod variables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use skipstone_kernels::arena::{AlignedVec, Arena};
use skipstone_kernels::threads::Pool;

use crate::cores::Cores;
use crate::engine::Engine;
use crate::error::{Error, OpError, Result};
use crate::limits::{Allowance, Limits};
use crate::operator::Place;
use crate::ops::Budget;
use crate::plan::{Plan, PlannedLength, Port, Program};
use crate::reserve;
use crate::tensor::{Fact, MAX_RANK, Shape, Tensor, TensorView};

use crate::value::Value;
use run::Run;
use variables::Variables;

/// Most inputs of a model, including its variables; their slices are collected without allocation.
const MAX_INPUTS: usize = 256;

type InputBytes<'a> = heapless::Vec<&'a [u8], MAX_INPUTS>;

/// Runs a model. Made by [`Model::session`](crate::Model::session).
pub struct Session {
    /// The engine of the last run.
    engine: Engine,
    /// Of a package for several shapes, those for the others: a run takes the one for the shapes that it is given.
    others: Vec<Engine>,
    arena: Arena,
    variables: Variables,
    pool: Pool,
    cores: Option<Cores>,
    /// The results of the last run that are not in the arena: all of a model that the fallback runs as a whole; otherwise
    /// the outputs that are unchanged inputs, with scalars in place of the others.
    held: Vec<Tensor>,
    /// The same for each of the others.
    others_held: Vec<Vec<Tensor>>,
    cancel: Cancel,
    deadline: Option<Duration>,
    profile: Option<Profile>,
    /// The limits of every run.
    allowance: Allowance,
}

/// Measurements of the steps, by index.
#[derive(Clone, Debug, Default)]
struct Profile {
    times: Vec<Duration>,
    runs: Vec<u64>,
    /// The sum of the active shares over all runs of each step.
    active: Vec<f64>,
    /// How often each matrix of a step with experts was selected; empty for other steps.
    #[cfg(any(feature = "passes", test))]
    selected: Vec<Vec<u64>>,
}

impl Profile {
    fn clear(&mut self) {
        self.times.fill(Duration::ZERO);
        self.runs.fill(0);
        self.active.fill(0.0);
        #[cfg(any(feature = "passes", test))]
        self.selected.iter_mut().for_each(Vec::clear);
    }
}

/// Stops a session from another thread, within milliseconds: long steps are done in pieces.
///
/// A cancellation that comes before a run begins stops it at its first step, so none is lost between a caller's decision
/// to run and the run. One that comes after the run for which it was meant would stop the next: who starts a run that may
/// be cancelled from then on calls [`reset`](Self::reset) first.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the session to stop: the current run, or otherwise the next, returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Withdraws a cancellation that no run has seen yet. The end of a run does so too.
    pub fn reset(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Session {
    /// A session of engines for different shapes of the same inputs, at least one; the first is taken before a run.
    pub(crate) fn new(engines: Vec<Engine>, threads: usize, cores: Option<Cores>, limits: &Limits) -> Result<Self> {
        let arena_bytes = engines.iter().filter_map(Engine::plan).map(|plan| plan.arena_bytes).max().unwrap_or(0);
        let held = |engine: &Engine| engine.plan().map_or_else(|| Ok(Vec::new()), |plan| unchanged(&plan.outputs));
        let mut all_held = engines.iter().map(held).collect::<Result<Vec<_>>>()?.into_iter();
        let mut engines = engines.into_iter();
        let (Some(engine), Some(held)) = (engines.next(), all_held.next()) else {
            return Err(Error::Internal("a session without a plan".into()));
        };
        let inputs = engine.inputs().len() + engine.variables().len();
        if inputs > MAX_INPUTS {
            return Err(Error::Unsupported {
                node: "graph".into(),
                reason: format!("{inputs} inputs; at most {MAX_INPUTS} are supported"),
            });
        }
        let variables = Variables::new(engine.variables())?;
        // A file decides the size: failing to allocate it is an error of the file, and must not end the process.
        let arena = Arena::try_new(arena_bytes).ok_or_else(|| Error::Unsupported {
            node: "graph".into(),
            reason: format!("there is no memory for an arena of {arena_bytes} bytes"),
        })?;
        let of_workers = cores.clone();
        let cancel = Cancel::default();
        let begin = move || of_workers.iter().for_each(Cores::bind);
        let pool = Pool::with(threads.max(1), begin, cancel.0.clone());
        Ok(Self {
            engine,
            others: engines.collect(),
            arena,
            variables,
            pool,
            cores,
            held,
            others_held: all_held.collect(),
            cancel,
            deadline: None,
            profile: None,
            allowance: Allowance::new(limits),
        })
    }

    /// Inputs of the model, in the order that [`run`](Self::run) takes them.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        self.engine.inputs()
    }

    /// Sets a variable of the model: a setting, or the initial state of the next run. This allocates nothing, and
    /// branches are decided at run time, so a setting that selects a branch needs no planning.
    ///
    /// # Errors
    /// [`Error::UnknownSetting`] with the existing names; [`Error::SettingValue`] for a value that the variable's type
    /// cannot represent, or of another shape. The variable is then unchanged.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<()> {
        self.variables.set(self.engine.variables(), name, &value.into())
    }

    /// The current value of the variable at `index` of [`Model::variables`](crate::Model::variables).
    #[must_use]
    pub fn variable(&self, index: usize) -> Option<TensorView<'_>> {
        let fact = &self.engine.variables().get(index)?.port.fact;
        TensorView::from_bytes(fact.clone(), self.variables.get(index)?).ok()
    }

    /// Resets the state that is carried between runs, as before the first run. Settings keep their values.
    pub fn reset(&mut self) {
        self.variables.reset(self.engine.variables(), |variable| variable.next.is_some());
    }

    /// A handle that cancels a run of this session from another thread.
    #[must_use]
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Limits the time of every later run, which otherwise returns [`Error::DeadlineExceeded`]; checked between steps,
    /// and between the pieces of long ones.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// Starts (or restarts) the profile, which adds up the time of every step.
    ///
    /// # Errors
    /// No memory.
    pub fn start_profile(&mut self) -> Result<()> {
        let engines = std::iter::once(&self.engine).chain(&self.others);
        let steps = engines.filter_map(Engine::plan).map(|plan| plan.steps.len()).max().unwrap_or(0);
        self.profile = Some(Profile {
            times: reserve::copies(Duration::ZERO, steps)?,
            runs: reserve::copies(0, steps)?,
            active: reserve::copies(0.0, steps)?,
            #[cfg(any(feature = "passes", test))]
            selected: reserve::copies(Vec::new(), steps)?,
        });
        Ok(())
    }

    /// Time of every step since [`start_profile`](Self::start_profile), in the plan's order.
    #[must_use]
    pub fn profile(&self) -> Option<&[Duration]> {
        self.profile.as_ref().map(|profile| profile.times.as_slice())
    }

    /// How many times every step has run since [`start_profile`](Self::start_profile), in the plan's order: 0 for a
    /// step of a branch that was not taken.
    #[must_use]
    pub fn step_runs(&self) -> Option<&[u64]> {
        self.profile.as_ref().map(|profile| profile.runs.as_slice())
    }

    /// The sum, over the runs of every step since [`start_profile`](Self::start_profile), of the share of its
    /// multiply-adds that was computed: 1 per run, except for steps with masks.
    #[must_use]
    pub fn step_active(&self) -> Option<&[f64]> {
        self.profile.as_ref().map(|profile| profile.active.as_slice())
    }

    /// For every step with experts, how often each of them was selected since [`start_profile`](Self::start_profile);
    /// empty for other steps.
    #[cfg(any(feature = "passes", test))]
    #[must_use]
    pub fn step_selected(&self) -> Option<&[Vec<u64>]> {
        self.profile.as_ref().map(|profile| profile.selected.as_slice())
    }

    /// Runs the model on `inputs`, in the order of [`inputs`](Self::inputs).
    ///
    /// # Errors
    /// An input that is missing or has another type or shape; [`Error::Cancelled`]; [`Error::DeadlineExceeded`]; an
    /// operator's error, with the node's name.
    pub fn run(&mut self, inputs: &[TensorView<'_>]) -> Result<()> {
        let result = self.run_once(inputs);
        self.cancel.reset();
        result
    }

    /// Takes the engine for the shapes of these inputs, if there is one.
    fn choose(&mut self, inputs: &[TensorView<'_>]) {
        let fits = |engine: &Engine| {
            let ports = engine.inputs();
            ports.len() <= inputs.len() && ports.iter().zip(inputs).all(|(port, view)| *view.fact() == port.fact)
        };
        if self.others.is_empty() || fits(&self.engine) {
            return;
        }
        if let Some(at) = self.others.iter().position(fits)
            && let (Some(engine), Some(held)) = (self.others.get_mut(at), self.others_held.get_mut(at))
        {
            std::mem::swap(&mut self.engine, engine);
            std::mem::swap(&mut self.held, held);
            // The steps of a profile are those of one plan.
            if let Some(profile) = &mut self.profile {
                profile.clear();
            }
        }
    }

    fn run_once(&mut self, inputs: &[TensorView<'_>]) -> Result<()> {
        self.choose(inputs);
        let mut bytes = InputBytes::new();
        for (index, port) in self.engine.inputs().iter().enumerate() {
            let Some(view) = inputs.get(index) else {
                return Err(Error::MissingInput { name: port.name.clone(), fact: port.fact.to_string() });
            };
            if *view.fact() != port.fact {
                return Err(mismatch(port, view.fact(), &self.others, index));
            }
            bytes.push(view.bytes()).map_err(|_| Error::Internal("too many inputs".into()))?;
        }
        let (values, next) = self.variables.halves();
        for held in values {
            bytes.push(held).map_err(|_| Error::Internal("too many inputs".into()))?;
        }
        let _visit = self.cores.as_ref().map(Cores::visit);
        match &self.engine {
            Engine::Native(program) => {
                self.pool.allow(self.deadline);
                let _awake = self.pool.awake();
                let mut run = Run {
                    program,
                    arena: &mut self.arena,
                    pool: &self.pool,
                    inputs: &bytes,
                    cancel: &self.cancel,
                    deadline: self.deadline,
                    started: Instant::now(),
                    profile: self.profile.as_mut(),
                    allowance: self.allowance,
                    at: 0,
                };
                run.foresee(None);
                run.steps(0..program.plan().steps.len())?;
                check_lengths(program.plan(), run.arena)?;
                keep_inputs_that_are_outputs(&run, &mut self.held)?;
                carry(&run, &self.held, next)
            }
            Engine::Foreign(_) if self.cancel.is_requested() => Err(Error::Cancelled { step: 0 }),
            Engine::Foreign(model) => {
                let Allowance { work, memory, .. } = self.allowance;
                self.pool.allow(self.deadline);
                let started = Instant::now();
                let budget = Budget { bytes: memory, work, stops: &|| self.pool.stops() };
                let results = model.foreign.evaluate_within(inputs, &budget);
                if self.pool.halted() {
                    let is_late = self.deadline.is_some_and(|deadline| started.elapsed() >= deadline);
                    return Err(if is_late {
                        Error::DeadlineExceeded { step: 0 }
                    } else {
                        Error::Cancelled { step: 0 }
                    });
                }
                self.held = results.map_err(|e| e.at(model.foreign.0.name()))?;
                Ok(())
            }
        }?;
        drop(bytes);
        self.variables.advance(self.engine.variables());
        Ok(())
    }

    /// Names of the outputs, in order.
    pub fn output_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.engine.outputs().iter().map(|p| p.name.as_str())
    }

    /// Output `index` of the last run, with the shape that it has there; `None` for an index past the last, or before the
    /// first run of a model that the fallback runs as a whole.
    #[must_use]
    pub fn output(&self, index: usize) -> Option<TensorView<'_>> {
        output(&self.engine, &self.arena, &self.held, index)
    }
}

/// Output `index` of the last run.
fn output<'a>(engine: &'a Engine, arena: &'a Arena, held: &'a [Tensor], index: usize) -> Option<TensorView<'a>> {
    let program = match engine {
        Engine::Native(program) => program,
        Engine::Foreign(_) => return held.get(index).map(Tensor::view),
    };
    let fact = output_fact(program.plan(), arena, index)?;
    let bytes = output_bytes(program, arena, held, index)?.get(..fact.bytes())?;
    TensorView::from_bytes(fact, bytes).ok()
}

/// Type and shape of output `index` in the last run.
fn output_fact(plan: &Plan, arena: &Arena, index: usize) -> Option<Fact> {
    let planned = &plan.outputs.get(index)?.fact;
    if !plan.is_measured(index) {
        return Some(planned.clone());
    }
    let mut dims: heapless::Vec<usize, MAX_RANK> = planned.shape.iter().copied().collect();
    for length in plan.lengths.iter().filter(|length| length.output == index) {
        *dims.get_mut(length.axis)? = measured(plan, arena, length)?;
    }
    Some(Fact::new(planned.dtype, Shape::new(&dims).ok()?))
}

/// A length that the last run wrote; `None` if it exceeds the planned one.
fn measured(plan: &Plan, arena: &Arena, PlannedLength { output, axis, place }: &PlannedLength) -> Option<usize> {
    let bytes = match place {
        Place::Arena(range) => arena.bytes().get(range.clone())?,
        Place::Constant(at) => plan.constants.get(*at)?.bytes(),
        Place::Input(_) => return None,
    };
    let len = usize::try_from(i64::from_le_bytes(bytes.try_into().ok()?)).ok()?;
    (len <= *plan.outputs.get(*output)?.fact.shape.get(*axis)?).then_some(len)
}

/// Refuses lengths that exceed the planned ones.
fn check_lengths(plan: &Plan, arena: &Arena) -> Result<()> {
    let wrong = plan.lengths.iter().find(|length| measured(plan, arena, length).is_none());
    let Some(PlannedLength { output, axis, .. }) = wrong else { return Ok(()) };
    let name = plan.outputs.get(*output).map_or("", |port| port.name.as_str());
    Err(OpError::Value(format!("the length of axis {axis} is negative, or more than was planned")).at(name))
}

/// The bytes of output `index` of a program.
fn output_bytes<'a>(program: &'a Program, arena: &'a Arena, held: &'a [Tensor], index: usize) -> Option<&'a [u8]> {
    match &program.plan().outputs.get(index)?.place {
        Place::Arena(range) => arena.bytes().get(range.clone()),
        Place::Constant(i) => program.plan().constants.get(*i).map(|constant| constant.bytes()),
        Place::Input(_) => held.get(index).map(Tensor::bytes),
    }
}

/// Memory for the outputs that are unchanged inputs, which have no place in the arena; empty if there are none.
///
/// # Errors
/// [`OpError::NoMemory`](crate::OpError::NoMemory), with the output's name.
fn unchanged(outputs: &[Port]) -> Result<Vec<Tensor>> {
    let is_input = |port: &Port| matches!(port.place, Place::Input(_));
    if !outputs.iter().any(is_input) {
        return Ok(Vec::new());
    }
    let held = |port: &Port| match is_input(port) {
        true => Tensor::try_zeros(port.fact.clone()).map_err(|e| e.at(&port.name)),
        false => Ok(Tensor::scalar(0u8)),
    };
    reserve::results(outputs.iter().map(held))
}

/// Copies the outputs that are unchanged inputs to their own memory.
fn keep_inputs_that_are_outputs(run: &Run<'_>, held: &mut [Tensor]) -> Result<()> {
    for (port, held) in run.program.plan().outputs.iter().zip(held) {
        let Place::Input(index) = port.place else { continue };
        let both = run.inputs.get(index).copied().zip(held.bytes_mut()).filter(|(from, to)| from.len() == to.len());
        let (from, to) = both.ok_or_else(|| Error::Internal(format!("the output '{}' has no place", port.name)))?;
        run.copy_out(from, to)?;
    }
    Ok(())
}

/// Copies the outputs that state comes from to `next`. Such an output may be the state of another variable.
fn carry(run: &Run<'_>, held: &[Tensor], next: &mut [AlignedVec<u8>]) -> Result<()> {
    for (to, variable) in next.iter_mut().zip(&run.program.plan().variables) {
        let Some(index) = variable.next else { continue };
        let from = output_bytes(run.program, run.arena, held, index).filter(|from| from.len() == to.len());
        let absent = || Error::Internal(format!("the next value of '{}' was not computed", variable.port.name));
        run.copy_out(from.ok_or_else(absent)?, to)?;
    }
    Ok(())
}

/// The error for an input of another type or shape than those of all plans.
fn mismatch(port: &Port, got: &Fact, others: &[Engine], index: usize) -> Error {
    let mut want = port.fact.to_string();
    for fact in others.iter().filter_map(|engine| engine.inputs().get(index)).map(|port| port.fact.to_string()) {
        want += &format!(" or {fact}");
    }
    Error::InputMismatch { name: port.name.clone(), got: got.to_string(), want }
}

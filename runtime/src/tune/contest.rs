//! Kernels that compete.
//!
//! A kernel's time depends on what the caches hold when it starts, and that on the steps before it: so candidates are
//! not timed one by one, but in runs of the whole model. The first set of runs has every step use the kernel that the
//! model of costs likes best, the second the one that it likes second best, and so on, as far as it thinks them worth
//! it. Each set is planned, run and thrown away, and all of them again in turn, as a clock may change its mind meanwhile.
//! A step's time is the first quartile of all runs: what else the machine does adds to some of them, and the least is
//! a matter of luck where weights come from memory. Steps that do the same are measured as one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RandomInputs;
use crate::cores::Cores;
use crate::engine::Engine;
use crate::error::Result;
use crate::graph::Graph;
use crate::limits::Limits;
use crate::operator::Task;
use crate::plan::{Measured, Plan, Program, Target, Timed, Tuning};
use crate::session::Session;

/// A candidate that costs more than this many times the best by the model is not measured.
const WORTH_MEASURING: f64 = 2.0;
/// Most candidates of a step.
const MAX_CANDIDATES: usize = 6;
/// How often all sets of runs are made.
const ROUNDS: usize = 3;
/// Time for the runs of a set.
const SET: Duration = Duration::from_millis(50);
/// Least runs of a set, beside the first, which warms the caches up.
const RUNS: usize = 3;
/// Time after which no run starts, whatever is still to be measured.
const BUDGET: Duration = Duration::from_secs(10);
/// Part of a step's time that another kernel must save to be taken: what two measurements of one may differ by.
const DOUBT: f64 = 0.03;
/// Seed of the inputs.
const SEED: u64 = 0x7E57;

/// The steps of a graph that do one task, and the kernels that could.
#[derive(Default)]
struct Contest {
    kernels: Vec<String>,
    /// For each step, by its index, the times with each kernel.
    times: BTreeMap<usize, Vec<Vec<Duration>>>,
}

impl Contest {
    /// The kernel of a set of runs.
    fn kernel(&self, set: usize) -> usize {
        if set < self.kernels.len() { set } else { 0 }
    }

    fn record(&mut self, step: usize, kernel: usize, time: Duration) {
        let times = self.times.entry(step).or_insert_with(|| vec![Vec::new(); self.kernels.len()]);
        if let Some(times) = times.get_mut(kernel) {
            times.push(time);
        }
    }

    /// The kernels that there was time for, on the average of the steps; `None` where that is less than two.
    fn measured(self) -> Option<Measured> {
        let nanos = |kernel: usize| {
            let times = self.times.values().map(|times| times.get(kernel).and_then(|times| quartile(times)));
            let total: Duration = times.sum::<Option<Duration>>().filter(|_| !self.times.is_empty())?;
            u64::try_from(total.as_nanos() / self.times.len() as u128).ok()
        };
        let timed = self.kernels.iter().enumerate();
        let timed: Vec<Timed> =
            timed.map_while(|(at, kernel)| Some(Timed { kernel: kernel.clone(), nanos: nanos(at)? })).collect();
        (timed.len() > 1).then(|| Measured::new(timed, DOUBT))
    }
}

/// The time that a quarter of `times` stay below.
fn quartile(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 4).copied()
}

/// Measures the steps of `graph` that are not `known` yet: as far as there is time, and the graph can be run on random
/// inputs.
///
/// # Errors
/// A graph that cannot be planned.
pub(super) fn measure(
    graph: &Graph,
    target: Target,
    cores: Option<&Cores>,
    known: &Tuning,
) -> Result<Vec<(Task, Measured)>> {
    let began = Instant::now();
    let mut contests: BTreeMap<Task, Contest> = BTreeMap::new();
    for step in Plan::with(graph.clone(), target, &[], Some(known))?.steps {
        let candidates = step.choice.candidates;
        let least = candidates.kernels.first().map_or(0.0, |best| best.cost);
        let worth = candidates.kernels.into_iter().take_while(|c| c.cost <= least * WORTH_MEASURING);
        let kernels: Vec<String> = worth.take(MAX_CANDIDATES).map(|candidate| candidate.kernel).collect();
        if kernels.len() > 1 && known.task(&candidates.task).is_none() {
            contests.insert(candidates.task, Contest { kernels, ..Contest::default() });
        }
    }
    let sets = contests.values().map(|contest| contest.kernels.len()).max().unwrap_or(0);
    for set in (0..ROUNDS).flat_map(|_| 0..sets) {
        let Some(left) = BUDGET.checked_sub(began.elapsed()) else { break };
        let mut trial = known.clone();
        for (task, contest) in &contests {
            let timed =
                contest.kernels.get(contest.kernel(set)).map(|kernel| Timed { kernel: kernel.clone(), nanos: 0 });
            trial.insert(task.clone(), Measured::new(timed.into_iter().collect(), DOUBT));
        }
        let program = Program::new(Plan::with(graph.clone(), target, &[], Some(&trial))?)?;
        let done = run(program, target, cores, left, |step, task, time| {
            if let Some(contest) = contests.get_mut(task) {
                contest.record(step, contest.kernel(set), time);
            }
        });
        // What failed is either out of time or does not run on random inputs.
        if done.is_err() {
            break;
        }
    }
    Ok(contests.into_iter().filter_map(|(task, contest)| Some((task, contest.measured()?))).collect())
}

/// Runs a set, no longer than what is `left`, and gives every step's time in every run but the first.
fn run(
    program: Program,
    target: Target,
    cores: Option<&Cores>,
    left: Duration,
    mut record: impl FnMut(usize, &Task, Duration),
) -> Result<()> {
    let program = Arc::new(program);
    let mut session =
        Session::new(Engine::Native(program.clone()), target.threads, cores.cloned(), &Limits::default())?;
    session.set_deadline(Some(left));
    let inputs = RandomInputs::new(&program.plan().inputs, SEED)?;
    session.run(&inputs.views())?;
    let began = Instant::now();
    let mut runs = 0;
    while runs < RUNS || began.elapsed() < SET {
        session.start_profile();
        session.run(&inputs.views())?;
        let steps = program.plan().steps.iter().zip(session.profile().unwrap_or_default());
        for (at, (step, &time)) in steps.enumerate() {
            record(at, &step.choice.candidates.task, time);
        }
        runs += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Measures competing kernels.
//!
//! A kernel's time depends on the contents of the caches when it starts, and so on the steps before it: therefore
//! candidates are not timed in isolation, but in runs of the whole model. In the first set of runs, every step uses the
//! kernel that the cost model ranks first, in the second the one ranked second, and so on, as long as the cost model
//! considers them promising. Each set is planned, run and discarded, and the sets are repeated in rounds, because the
//! clock frequency may change. A step's time is the first quartile of all runs: other programs slow some of them down,
//! and the minimum is a matter of luck if weights come from memory. Equal steps are measured as one.

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

/// A candidate whose modeled cost is more than this many times the best is not measured.
const WORTH_MEASURING: f64 = 2.0;
/// Most candidates of a step.
const MAX_CANDIDATES: usize = 6;
/// Number of rounds over all sets.
const ROUNDS: usize = 3;
/// Time for one set of runs.
const SET: Duration = Duration::from_millis(50);
/// Fewest runs of a set, in addition to the first, which warms the caches.
const RUNS: usize = 3;
/// Time after which no run starts, even if something has not been measured.
const BUDGET: Duration = Duration::from_secs(10);
/// Fraction of a step's time that another kernel must save to be chosen: the difference between two measurements of the
/// same kernel.
const DOUBT: f64 = 0.03;
/// Seed of the inputs.
const SEED: u64 = 0x7E57;

/// The steps of a graph with the same task, and the candidate kernels.
#[derive(Default)]
struct Contest {
    kernels: Vec<String>,
    /// For each step, by its index, the times with each kernel.
    times: BTreeMap<usize, Vec<Vec<Duration>>>,
}

impl Contest {
    /// The kernel in a set of runs.
    fn kernel(&self, set: usize) -> usize {
        if set < self.kernels.len() { set } else { 0 }
    }

    fn record(&mut self, step: usize, kernel: usize, time: Duration) {
        let times = self.times.entry(step).or_insert_with(|| vec![Vec::new(); self.kernels.len()]);
        if let Some(times) = times.get_mut(kernel) {
            times.push(time);
        }
    }

    /// The measured kernels, averaged over the steps; `None` if fewer than two were measured.
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

/// The first quartile of `times`.
fn quartile(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 4).copied()
}

/// Measures the steps of `graph` that are not `known` yet, as far as time permits and the graph can run on random
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
    for step in Plan::with(graph.copy()?, target, &[], Some(known))?.steps {
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
        let program = Program::new(Plan::with(graph.copy()?, target, &[], Some(&trial))?)?;
        let done = run(program, target, cores, left, |step, task, time| {
            if let Some(contest) = contests.get_mut(task) {
                contest.record(step, contest.kernel(set), time);
            }
        });
        // A failed run is either out of time or does not work on random inputs.
        if done.is_err() {
            break;
        }
    }
    Ok(contests.into_iter().filter_map(|(task, contest)| Some((task, contest.measured()?))).collect())
}

/// Runs a set, no longer than `left`, and returns every step's time in every run except the first.
fn run(
    program: Program,
    target: Target,
    cores: Option<&Cores>,
    left: Duration,
    mut record: impl FnMut(usize, &Task, Duration),
) -> Result<()> {
    let program = Arc::new(program);
    let mut session =
        Session::new(vec![Engine::Native(program.clone())], target.threads, cores.cloned(), &Limits::default())?;
    session.set_deadline(Some(left));
    let inputs = RandomInputs::new(&program.plan().inputs, SEED)?;
    session.run(&inputs.views())?;
    let began = Instant::now();
    let mut runs = 0;
    while runs < RUNS || began.elapsed() < SET {
        session.start_profile()?;
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

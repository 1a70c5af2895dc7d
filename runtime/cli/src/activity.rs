//! What the runs of a measurement computed and left out: channels behind masks, experts that were not selected, steps of
//! branches that were not taken.

use skipstone::Session;
use skipstone::ops::Op;
use skipstone::plan::Plan;

/// The activity of the steps that do not compute everything in every run.
#[derive(Default)]
pub struct Activity {
    /// Steps with masks, in the plan's order.
    pub masks: Vec<Masked>,
    /// Steps with experts.
    pub experts: Vec<Selected>,
    /// Steps of branches and loops.
    pub branches: Vec<Branched>,
    /// What the profile held before the last run, by step: its runs, and the sum of their active shares.
    before: Vec<(u64, f64)>,
    runs: usize,
}

/// A step with masks.
pub struct Masked {
    pub name: String,
    step: usize,
    /// The share of its multiply-adds that each run computed.
    pub shares: Vec<f64>,
}

/// A step with experts.
pub struct Selected {
    pub name: String,
    pub step: usize,
    /// How often each expert was selected.
    pub counts: Vec<u64>,
}

/// A step that a run may leave out, or repeat.
pub struct Branched {
    pub name: String,
    step: usize,
    /// In how many of the runs it ran.
    pub runs: usize,
}

impl Activity {
    /// Of no runs yet.
    pub fn new(plan: &Plan) -> Self {
        let steps = || plan.steps.iter().enumerate();
        let masked = |op: &Op| matches!(op, Op::Conv(conv) if conv.roles.are_masked());
        let mut inside = vec![false; plan.steps.len()];
        for (step, flow) in steps().filter_map(|(at, step)| Some((at, step.flow.as_deref()?))) {
            inside[step + 1..flow.end().min(plan.steps.len())].fill(true);
        }
        let name = |step: usize| plan.steps[step].name.clone();
        Self {
            masks: steps()
                .filter(|(_, step)| masked(&step.op))
                .map(|(step, _)| Masked { name: name(step), step, shares: Vec::new() })
                .collect(),
            experts: steps()
                .filter(|(_, step)| matches!(step.op, Op::Routed(_)))
                .map(|(step, _)| Selected { name: name(step), step, counts: Vec::new() })
                .collect(),
            branches: steps()
                .filter(|(at, step)| inside[*at] && step.flow.is_none() && step.macs > 0)
                .map(|(at, _)| Branched { name: name(at), step: at, runs: 0 })
                .collect(),
            before: vec![(0, 0.0); plan.steps.len()],
            runs: 0,
        }
    }

    /// Notes what the last run of `session`, which has a profile, added to it.
    pub fn note(&mut self, session: &Session) {
        let (Some(runs), Some(active)) = (session.step_runs(), session.step_active()) else { return };
        let Self { masks, experts, branches, before, .. } = self;
        for mask in masks {
            let (ran, sum) = (runs[mask.step] - before[mask.step].0, active[mask.step] - before[mask.step].1);
            if ran > 0 {
                mask.shares.push((sum / ran as f64).clamp(0.0, 1.0));
            }
        }
        for branch in branches {
            branch.runs += usize::from(runs[branch.step] > before[branch.step].0);
        }
        if let Some(selected) = session.step_selected() {
            experts.iter_mut().for_each(|it| it.counts.clone_from(&selected[it.step]));
        }
        *before = runs.iter().copied().zip(active.iter().copied()).collect();
        self.runs += 1;
    }

    /// The number of runs.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// How often each expert of a step was selected; empty for other steps.
    pub fn selected(&self, step: usize) -> &[u64] {
        self.experts.iter().find(|it| it.step == step).map_or(&[], |it| &it.counts)
    }
}

impl Masked {
    /// The mean share; `None` if it never ran.
    pub fn mean(&self) -> Option<f64> {
        (!self.shares.is_empty()).then(|| self.shares.iter().sum::<f64>() / self.shares.len() as f64)
    }
}

//! Where the time of a run goes: by step, and by operator.

use std::time::Duration;

use crate::ops::Operator;
use crate::plan::Plan;

/// What one step of a plan took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// Name of the step.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Its kernel.
    pub kernel: String,
    /// Milliseconds of one run.
    pub ms: f64,
    /// Part of all steps' time, 0 to 1.
    pub share: f64,
    /// Multiply-adds of one run.
    pub macs: u64,
}

/// What the steps of one operator took together.
#[derive(Clone, Debug, PartialEq)]
pub struct OpTime {
    /// The operator.
    pub op: String,
    /// How many steps.
    pub steps: usize,
    /// Milliseconds of one run.
    pub ms: f64,
    /// Part of all steps' time, 0 to 1.
    pub share: f64,
    /// Multiply-adds of one run.
    pub macs: u64,
}

/// Billions of floating-point operations a second, at two for a multiply-add; `None` where
/// nothing is counted or no time was taken.
#[must_use]
pub fn gflops(macs: u64, ms: f64) -> Option<f64> {
    (macs > 0 && ms > 0.0).then(|| 2.0 * macs as f64 / ms / 1e6)
}

/// The time of each step of `plan`, in its order: `totals` is what
/// [`Session::profile`](crate::Session::profile) gives after `runs` runs.
#[must_use]
pub fn per_step(plan: &Plan, totals: &[Duration], runs: usize) -> Vec<StepTime> {
    let all: f64 = totals.iter().map(Duration::as_secs_f64).sum();
    let step = |(step, total): (&crate::plan::Step, &Duration)| StepTime {
        name: step.name.clone(),
        op: step.op.name().to_owned(),
        kernel: step.choice.kernel.clone(),
        ms: total.as_secs_f64() * 1e3 / runs.max(1) as f64,
        share: if all > 0.0 { total.as_secs_f64() / all } else { 0.0 },
        macs: step.macs,
    };
    plan.steps.iter().zip(totals).map(step).collect()
}

/// Steps added up by operator, the slowest operator first.
#[must_use]
pub fn per_operator(steps: &[StepTime]) -> Vec<OpTime> {
    let mut ops: Vec<OpTime> = Vec::new();
    for step in steps {
        let at = ops.iter().position(|op| op.op == step.op).unwrap_or_else(|| {
            ops.push(OpTime { op: step.op.clone(), steps: 0, ms: 0.0, share: 0.0, macs: 0 });
            ops.len() - 1
        });
        let op = &mut ops[at];
        op.steps += 1;
        op.ms += step.ms;
        op.share += step.share;
        op.macs += step.macs;
    }
    ops.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(op: &str, ms: f64, macs: u64) -> StepTime {
        StepTime { name: op.to_lowercase(), op: op.into(), kernel: "k".into(), ms, share: ms / 10.0, macs }
    }

    #[test]
    fn operators_are_summed_and_sorted_by_time() {
        let ops = per_operator(&[step("Conv", 1.0, 5), step("Add", 6.0, 0), step("Conv", 3.0, 7)]);
        let names: Vec<_> = ops.iter().map(|op| (op.op.as_str(), op.steps, op.ms, op.macs)).collect();
        assert_eq!(names, [("Add", 1, 6.0, 0), ("Conv", 2, 4.0, 12)]);
        assert!((ops.iter().map(|op| op.share).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(per_operator(&[]).is_empty());
    }

    #[test]
    fn two_operations_make_a_multiply_add() {
        assert_eq!(gflops(500_000, 1.0), Some(1.0));
        assert_eq!(gflops(0, 1.0), None);
        assert_eq!(gflops(1, 0.0), None);
    }
}

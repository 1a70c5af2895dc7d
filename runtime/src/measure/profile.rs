//! The time of a run by step, by operator, and by kernel.

use std::time::Duration;

use crate::operator::Operator;
use crate::ops::Op;
use crate::plan::{Plan, Step};

/// The time of one step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// Name of the step.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Its kernel.
    pub kernel: String,
    /// Milliseconds per run of the model.
    pub ms: f64,
    /// Fraction of the time of all steps, 0 to 1.
    pub share: f64,
    /// How many times it runs per run of the model: once, except for steps of branches and loops.
    pub runs: f64,
    /// Multiply-adds per run of the model, as computed with masks.
    pub macs: u64,
    /// The mean share of its multiply-adds that a step with masks computed; `None` for other steps.
    pub active: Option<f64>,
    /// Bytes read and written per run of the model, including weights.
    pub bytes: u64,
}

/// The total time of steps with the same operator or kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupTime {
    /// The operator or kernel.
    pub name: String,
    /// Number of steps.
    pub steps: usize,
    /// Milliseconds per run.
    pub ms: f64,
    /// Fraction of the time of all steps, 0 to 1.
    pub share: f64,
    /// Multiply-adds per run.
    pub macs: u64,
    /// Bytes read and written per run, including weights.
    pub bytes: u64,
}

/// Billions of floating-point operations per second, two for a multiply-add; `None` if nothing is counted or the time
/// is zero.
#[must_use]
pub fn gflops(macs: u64, ms: f64) -> Option<f64> {
    (macs > 0 && ms > 0.0).then(|| 2.0 * macs as f64 / ms / 1e6)
}

/// The time of each step of `plan`, in order: `totals` and `counts` are the results of
/// [`Session::profile`](crate::Session::profile) and [`Session::step_runs`](crate::Session::step_runs) after `runs`
/// runs, `active` that of [`Session::step_active`](crate::Session::step_active).
#[must_use]
pub fn per_step(plan: &Plan, totals: &[Duration], counts: &[u64], active: &[f64], runs: usize) -> Vec<StepTime> {
    let runs = runs.max(1) as f64;
    let all: f64 = totals.iter().map(Duration::as_secs_f64).sum();
    let step = |(((step, total), &count), &active): (((&Step, &Duration), &u64), &f64)| {
        let often = count as f64 / runs;
        let masked = matches!(&step.op, Op::Conv(conv) if conv.roles.are_masked());
        StepTime {
            name: step.name.clone(),
            op: step.op.name().to_owned(),
            kernel: step.choice.kernel.clone(),
            ms: total.as_secs_f64() * 1e3 / runs,
            share: if all > 0.0 { total.as_secs_f64() / all } else { 0.0 },
            runs: often,
            macs: (step.macs as f64 * active / runs) as u64,
            active: (masked && count > 0).then(|| active / count as f64),
            bytes: (step.bytes() as f64 * often) as u64,
        }
    };
    plan.steps.iter().zip(totals).zip(counts).zip(active).map(step).collect()
}

/// Steps added up by operator, the slowest operator first.
#[must_use]
pub fn per_operator(steps: &[StepTime]) -> Vec<GroupTime> {
    grouped(steps, |step| &step.op)
}

/// Steps added up by kernel, the slowest kernel first.
#[must_use]
pub fn per_kernel(steps: &[StepTime]) -> Vec<GroupTime> {
    grouped(steps, |step| &step.kernel)
}

fn grouped(steps: &[StepTime], name: impl Fn(&StepTime) -> &str) -> Vec<GroupTime> {
    let mut groups: Vec<GroupTime> = Vec::new();
    for step in steps {
        let at = groups.iter().position(|group| group.name == name(step)).unwrap_or_else(|| {
            groups.push(GroupTime { name: name(step).to_owned(), steps: 0, ms: 0.0, share: 0.0, macs: 0, bytes: 0 });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.steps += 1;
        group.ms += step.ms;
        group.share += step.share;
        group.macs += step.macs;
        group.bytes += step.bytes;
    }
    groups.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(op: &str, ms: f64, macs: u64) -> StepTime {
        StepTime {
            name: op.to_lowercase(),
            op: op.into(),
            kernel: format!("k{macs}"),
            ms,
            share: ms / 10.0,
            runs: 1.0,
            macs,
            active: None,
            bytes: 10,
        }
    }

    #[test]
    fn groups_are_summed_and_sorted_by_time() {
        let ops = per_operator(&[step("Conv", 1.0, 5), step("Add", 6.0, 0), step("Conv", 3.0, 7)]);
        let sums: Vec<_> = ops.iter().map(|op| (op.name.as_str(), op.steps, op.ms, op.macs, op.bytes)).collect();
        assert_eq!(sums, [("Add", 1, 6.0, 0, 10), ("Conv", 2, 4.0, 12, 20)]);
        let kernels = per_kernel(&[step("Conv", 1.0, 5), step("MatMul", 6.0, 5), step("Conv", 3.0, 7)]);
        let sums: Vec<_> = kernels.iter().map(|kernel| (kernel.name.as_str(), kernel.ms)).collect();
        assert_eq!(sums, [("k5", 7.0), ("k7", 3.0)]);
        assert!((ops.iter().map(|op| op.share).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(per_operator(&[]).is_empty());
    }

    #[test]
    fn a_multiply_add_is_two_operations() {
        assert_eq!(gflops(500_000, 1.0), Some(1.0));
        assert_eq!(gflops(0, 1.0), None);
        assert_eq!(gflops(1, 0.0), None);
    }
}

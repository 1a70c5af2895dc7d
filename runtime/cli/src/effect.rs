//! What a transformation changed in a model: sizes, work and latency, before and after.

use std::time::{Duration, Instant};

use serde::Serialize;
use skipstone::measure::{Latency, RandomInputs};
use skipstone::plan::{Plan, Step};
use skipstone::{Model, Options, Session};

use crate::failure::Failure;
use crate::numbers::{bytes, count, ms, percent};
use crate::table::{Align, Table};

/// Runs of each model before they are measured.
const WARMUP: usize = 3;
/// Fewest and most measured runs of each model; the models alternate.
const RUNS: std::ops::Range<usize> = 5..200;
/// No further run of a changed model starts after this time.
const ENOUGH: Duration = Duration::from_secs(2);
/// Seed of the random inputs.
const SEED: u64 = 0x5EED;

/// The model before or after.
#[derive(Serialize)]
pub struct Side {
    file_bytes: u64,
    parameters: u64,
    /// Absent if tract runs the whole model.
    macs: Option<u64>,
    /// Multiply-adds with nonzero weights, which are what a sparse kernel computes.
    macs_not_zero: Option<u64>,
    packed_bytes: u64,
    arena_bytes: u64,
    /// Median time of a run.
    ms: f64,
}

/// Both models, and their ratio.
#[derive(Serialize)]
pub struct Effect {
    pub before: Side,
    pub after: Side,
    /// Median of the ratios of consecutive runs.
    pub latency_ratio: f64,
}

impl Effect {
    /// Loads both models, given as the bytes of their files, and runs them alternately on random inputs.
    pub fn measure(before: &[u8], after: &[u8], options: &Options) -> Result<Self, Failure> {
        let models = [Model::from_bytes(before, options)?, Model::from_bytes(after, options)?];
        let Pairs { times, ratio } = Pairs::run(&mut [models[0].session()?, models[1].session()?], ENOUGH)?;
        let side = |model: &Model, file: &[u8], times: &[Duration]| {
            let plan = model.plan();
            Side {
                file_bytes: file.len() as u64,
                parameters: model.info().parameters,
                macs: plan.map(Plan::macs),
                macs_not_zero: plan.map(|plan| plan.steps.iter().map(not_zero).sum()),
                packed_bytes: skipstone::measure::Memory::of(model).packed_bytes,
                arena_bytes: skipstone::measure::Memory::of(model).arena_bytes,
                ms: Latency::of(times).map_or(0.0, |latency| latency.p50),
            }
        };
        Ok(Self {
            before: side(&models[0], before, &times[0]),
            after: side(&models[1], after, &times[1]),
            latency_ratio: ratio,
        })
    }

    /// As a table.
    pub fn table(&self) -> String {
        let mut table =
            Table::new([("", Align::Left), ("before", Align::Right), ("after", Align::Right), ("ratio", Align::Right)]);
        let (a, b) = (&self.before, &self.after);
        let mut row = |name: &str, before: u64, after: u64, show: fn(u64) -> String| {
            table.row([name.into(), show(before), show(after), ratio(after as f64 / before.max(1) as f64)]);
        };
        row("file", a.file_bytes, b.file_bytes, bytes);
        row("parameters", a.parameters, b.parameters, count);
        if let (Some(before), Some(after)) = (a.macs, b.macs) {
            row("multiply-adds", before, after, count);
        }
        if let (Some(before), Some(after)) = (a.macs_not_zero, b.macs_not_zero) {
            row("with nonzero weights", before, after, count);
        }
        row("packed weights", a.packed_bytes, b.packed_bytes, bytes);
        row("arena", a.arena_bytes, b.arena_bytes, bytes);
        table.row(["latency, ms".into(), ms(a.ms), ms(b.ms), ratio(self.latency_ratio)]);
        table.render("")
    }
}

/// Two models that were run alternately.
pub struct Pairs {
    /// The times of each.
    pub times: [Vec<Duration>; 2],
    /// Median of the ratios of consecutive runs, the second's time to the first's.
    pub ratio: f64,
}

impl Pairs {
    /// Runs both on random inputs; no further run starts after the time `enough`.
    pub fn run(sessions: &mut [Session; 2], enough: Duration) -> Result<Self, Failure> {
        // The same for both, unless the images have another size afterwards.
        let mut inputs =
            [RandomInputs::new(sessions[0].inputs(), SEED)?, RandomInputs::new(sessions[1].inputs(), SEED)?];
        let mut times = [Vec::new(), Vec::new()];
        let began = Instant::now();
        for run in 0..RUNS.end + WARMUP {
            if began.elapsed() > enough && run >= RUNS.start + WARMUP {
                break;
            }
            inputs.iter_mut().for_each(RandomInputs::refresh);
            let views = [inputs[0].views(), inputs[1].views()];
            // Alternate the order, because the second model finds the inputs in the cache.
            for side in [run % 2, 1 - run % 2] {
                let began = Instant::now();
                sessions[side].run(&views[side])?;
                if run >= WARMUP {
                    times[side].push(began.elapsed());
                }
            }
        }
        let mut ratios: Vec<f64> =
            times[0].iter().zip(&times[1]).map(|(a, b)| b.as_secs_f64() / a.as_secs_f64().max(1e-9)).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
        Ok(Self { times, ratio })
    }
}

/// A step's multiply-adds with nonzero weights.
fn not_zero(step: &Step) -> u64 {
    let zeros = step.choice.zeros.as_ref().map_or(0.0, |zeros| zeros.share);
    (step.macs as f64 * (1.0 - zeros)).round() as u64
}

/// The share of zeros among all weights that were pruned.
pub fn zeros(zeros: usize, weights: usize) -> String {
    percent(zeros as f64 / weights.max(1) as f64)
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

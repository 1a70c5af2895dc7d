//! `skipstone tune`: chooses the kernels of a model by measurement, and compares the cost model with the measurement.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use skipstone::measure::{Latency, RandomInputs};
use skipstone::operator::Operator;
use skipstone::plan::{Measured, Step};
use skipstone::{Model, Tune as Choice};

use crate::args::ModelArgs;
use crate::failure::Failure;
use crate::numbers::{ms, percent};
use crate::output::{json, print};
use crate::progress::Waiting;
use crate::table::{Align, Table};

/// Total time for comparing whole runs.
const COMPARED: Duration = Duration::from_secs(1);
/// Fewest runs of each choice of kernels.
const RUNS: usize = 6;
/// Seed of the random inputs.
const SEED: u64 = 0x5EED;

/// Find the fastest kernels of a model on this machine
#[derive(Args, Debug)]
#[command(after_help = "\
If several kernels can run a step, Skipstone normally chooses one by a cost model. This command measures the promising
ones, in runs of the whole model on random inputs, and writes the fastest to a file. The file is valid for this
processor, this release, and the --threads, --isa, --memory and --precision of the measurement; it can be used for
every model that has the same steps.

Examples:
  skipstone tune model.onnx -o model.tune
  skipstone bench model.onnx --tuning model.tune
  skipstone compile model.onnx -o model.skip --target host --tuning model.tune")]
pub struct Tune {
    #[command(flatten)]
    model: ModelArgs,

    /// File to write
    #[arg(short, long, value_name = "FILE.tune")]
    output: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    isa: &'static str,
    threads: usize,
    /// Steps for which more than one kernel was measured.
    steps: Vec<StepReport>,
    /// Count of the steps for which the cost model and the measurement agree.
    agreed: usize,
    /// Geometric mean over the steps: measured time of the cost model's choice, divided by the time of the fastest.
    by_model_to_measured: f64,
    /// Microseconds per run saved by the measured choice.
    saved_us: f64,
    run: RunReport,
}

/// Median time of a whole run.
#[derive(Serialize)]
struct RunReport {
    by_model_ms: f64,
    measured_ms: f64,
}

#[derive(Serialize)]
struct StepReport {
    name: String,
    op: String,
    by_model: KernelReport,
    measured: KernelReport,
}

#[derive(Serialize, PartialEq)]
struct KernelReport {
    kernel: String,
    us: f64,
}

impl Tune {
    /// Measures, writes and reports.
    pub fn execute(self) -> Result<(), Failure> {
        if self.model.tuning.is_some() {
            return Err(Failure::Usage("--tuning is not an option of this command: it writes that file".into()));
        }
        let waiting = Waiting::on("measuring kernels");
        let model = self.model.open_with(&self.model.options().tune(Choice::Measure))?;
        let nothing = |why: &str| Failure::new("tuning.none", format!("{}: {why}", self.model.name()));
        let plan = model.plan().ok_or_else(|| nothing("tract runs the whole model, without Skipstone's kernels"))?;
        let tuning = model
            .tuning()
            .ok_or_else(|| nothing("its kernels were chosen when the package was made; tune its ONNX file"))?;
        tuning.save(&self.output).map_err(|error| Failure::io(&self.output, &error))?;
        let steps =
            plan.steps.iter().filter_map(|step| StepReport::new(step, tuning.task(&step.choice.candidates.task)?));
        let report = Report::new(self.model.name(), &model, steps.collect(), self.whole_runs(&model)?);
        drop(waiting);
        print(&if self.json { json(&report)? } else { text(&report, tuning.len()) })
    }

    /// Median times of whole runs, alternating between the kernels of the cost model and those of `tuned`.
    fn whole_runs(&self, tuned: &Model) -> Result<RunReport, Failure> {
        let by_model = self.model.open()?;
        let inputs = RandomInputs::new(tuned.inputs(), SEED)?;
        let mut sessions = [by_model.session()?, tuned.session()?];
        let mut times = [Vec::new(), Vec::new()];
        let began = Instant::now();
        while times[1].len() < RUNS || began.elapsed() < COMPARED {
            for (session, times) in sessions.iter_mut().zip(&mut times) {
                // The first of several runs in a row finds the caches in the state that the other session left.
                for counts in [false, true, true, true] {
                    let began = Instant::now();
                    session.run(&inputs.views())?;
                    times.extend(counts.then(|| began.elapsed()));
                }
            }
        }
        let [by_model_ms, measured_ms] = times.map(|times| Latency::of(&times).map_or(0.0, |latency| latency.p50));
        Ok(RunReport { by_model_ms, measured_ms })
    }
}

impl StepReport {
    fn new(step: &Step, measured: &Measured) -> Option<Self> {
        let kernel = |timed: &skipstone::plan::Timed| KernelReport {
            kernel: timed.kernel.clone(),
            us: timed.nanos as f64 / 1e3,
        };
        Some(Self {
            name: step.name.clone(),
            op: step.op.name().to_owned(),
            by_model: measured.by_model().map(kernel)?,
            measured: measured.chosen().map(kernel)?,
        })
    }

    /// Time of the cost model's choice divided by the time of the measured choice.
    fn ratio(&self) -> f64 {
        if self.measured.us > 0.0 { self.by_model.us / self.measured.us } else { 1.0 }
    }
}

impl Report {
    fn new(name: String, model: &Model, steps: Vec<StepReport>, run: RunReport) -> Self {
        let logs: f64 = steps.iter().map(|step| step.ratio().ln()).sum();
        Self {
            model: name,
            isa: model.isa().name(),
            threads: model.threads(),
            agreed: steps.iter().filter(|step| step.by_model == step.measured).count(),
            by_model_to_measured: (logs / steps.len().max(1) as f64).exp(),
            saved_us: steps.iter().map(|step| step.by_model.us - step.measured.us).sum(),
            steps,
            run,
        }
    }
}

/// The report as text; `tasks` is the count of distinct steps.
fn text(report: &Report, tasks: usize) -> String {
    let mut table = Table::new([
        ("step", Align::Left),
        ("operator", Align::Left),
        ("cost model", Align::Left),
        ("us", Align::Right),
        ("measured", Align::Left),
        ("us", Align::Right),
        ("saved", Align::Right),
    ]);
    let us = |us: f64| format!("{us:.1}");
    for step in &report.steps {
        let same = step.by_model == step.measured;
        let or_nothing = |text: String| if same { String::new() } else { text };
        table.row([
            step.name.clone(),
            step.op.clone(),
            step.by_model.kernel.clone(),
            us(step.by_model.us),
            or_nothing(step.measured.kernel.clone()),
            or_nothing(us(step.measured.us)),
            or_nothing(percent(1.0 - 1.0 / step.ratio())),
        ]);
    }
    let Report { model, isa, threads, agreed, .. } = report;
    let (steps, lost) = (report.steps.len(), percent(report.by_model_to_measured - 1.0));
    let all: f64 = report.steps.iter().map(|step| step.by_model.us).sum();
    let saved = if all > 0.0 { report.saved_us / all } else { 0.0 };
    format!(
        "{model}: {isa}, threads {threads}\n\n{}\n\
         {steps} steps with a choice, {tasks} of them distinct; the cost model chose the fastest kernel for {agreed}\n\
         its choices take {lost} longer, by the geometric mean over the steps\n\
         tuning saves {} of the {} us that these steps take, {}\n\
         a whole run takes {} ms with the cost model, {} ms tuned (medians of alternating runs)\n",
        table.render(""),
        us(report.saved_us),
        us(all),
        percent(saved),
        ms(report.run.by_model_ms),
        ms(report.run.measured_ms),
    )
}

//! `skipstone bench`: measures the latency and memory of a model, and the time of each step.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::RangedU64ValueParser;
use skipstone::measure::{Amount, Latency, Memory, Protocol, StepTime, gflops, peak_rss_bytes, per_operator, per_step};

use crate::activity::Activity;
use crate::args::{ImageArgs, ModelArgs};
use crate::failure::Failure;
use crate::inputs::Inputs;
use crate::measurement::{MemoryReport, Report, StepReport};
use crate::numbers;
use crate::output::{json, print};
use crate::report::{Details, page};
use crate::table::{Align, Table};

/// Measure a model's latency and memory
#[derive(Args, Debug)]
#[command(after_help = "\
The model runs on random inputs, fresh for every run, or on --images, prepared as for `skipstone classify`; making them
is not timed. Percentiles are
over single runs. `load` is the time to read and plan the model, `first run` the time of its first
run. --profile also times every step, at a cost of about 0.1 microseconds per step; `moved` counts
the bytes that a step reads and writes, including weights; `active` is the share of its multiply-adds
that a convolution with masks computed. With --expert-budget, `kept` counts the uses of experts that
were still in memory, `read ahead` those that were read before their use, `missed` the others. The HTML report also shows where the zero weights are, and what masks, experts
and branches left out.

Examples:
  skipstone bench model.onnx
  skipstone bench model.onnx --threads 2 --runs 1000
  skipstone bench model.onnx --profile --seconds 5
  skipstone bench model.onnx --html report.html
  skipstone bench experts.onnx --images photos/ --html report.html
  skipstone bench model.onnx --json - | jq .latency_ms.p50")]
pub struct Bench {
    #[command(flatten)]
    model: ModelArgs,

    /// Warm-up runs, which are not measured; fewer if they take longer than --seconds
    #[arg(long, value_name = "N", default_value_t = 10)]
    warmup: usize,

    /// Measured runs [default: as many as fit into --seconds]
    #[arg(long, value_name = "N", conflicts_with = "seconds",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000_000))]
    runs: Option<usize>,

    /// Total time of the measured runs, in seconds
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_seconds)]
    seconds: Duration,

    /// Run on the images below this directory instead of on random inputs, each once unless --runs says otherwise:
    /// what masks, experts and branches leave out depends on the input
    #[arg(long, value_name = "DIR", conflicts_with = "seconds")]
    images: Option<PathBuf>,

    /// Time every step of the plan
    #[arg(long)]
    profile: bool,

    /// Write the measurement as JSON to FILE, or with `-` to stdout instead of the tables
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,

    /// Write an HTML report with charts of runs, steps and the arena to FILE; implies --profile
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    image: ImageArgs,
}

impl Bench {
    /// Measures the model and reports.
    pub fn execute(self) -> Result<(), Failure> {
        let (report, steps) = self.measure()?;
        match self.json.as_deref() {
            Some(path) if path == Path::new("-") => return print(&json(&report)?),
            Some(path) => {
                std::fs::write(path, json(&report)?).map_err(|error| Failure::io(path, &error))?;
            }
            None => {}
        }
        print(&(summary(&report) + &steps.map(|steps| profile(&steps) + &experts(&report)).unwrap_or_default()))
    }

    fn measure(&self) -> Result<(Report, Option<Vec<StepTime>>), Failure> {
        let began = Instant::now();
        let model = self.model.open()?;
        let mut session = model.session()?;
        self.model.prepare(&mut session)?;
        let load = began.elapsed();

        let mut inputs = Inputs::new(&model, self.images.as_deref(), &self.image)?;
        let began = Instant::now();
        session.run(&inputs.views()?)?;
        let first = began.elapsed();

        // Every image counts once.
        let runs = self.runs.or(inputs.images());
        let amount = runs.map_or(Amount::For(self.seconds), Amount::Runs);
        let (profile, mut profiling) = (self.profile || self.html.is_some(), false);
        let mut experts = None;
        let mut activity = model.plan().map(Activity::new).unwrap_or_default();
        let times = Protocol { warmup: self.warmup, amount }.measure(|counts| {
            if counts && profile && !profiling {
                session.start_profile()?;
                profiling = true;
            }
            if counts && experts.is_none() {
                experts = model.expert_use();
            }
            if counts || !inputs.are_images() {
                inputs.refresh()?;
            }
            let views = inputs.views()?;
            let began = Instant::now();
            session.run(&views)?;
            let time = began.elapsed();
            if profiling {
                activity.note(&session);
            }
            Ok::<_, Failure>(time)
        })?;

        let latency = Latency::of(&times).ok_or_else(|| Failure::new("internal", "no run was measured"))?;
        let plan = model.plan();
        let measured = session.profile().zip(session.step_runs()).zip(session.step_active());
        let profiled = measured
            .zip(plan)
            .map(|(((totals, runs), active), plan)| per_step(plan, totals, runs, active, times.len()));
        let memory = Memory::of(&model);
        let report = Report {
            model: self.model.name(),
            isa: model.isa().name(),
            threads: model.threads(),
            power: self.model.power.name(),
            memory_policy: self.model.memory.name(),
            precision: self.model.precision.name(),
            load_ms: load.as_secs_f64() * 1e3,
            first_ms: first.as_secs_f64() * 1e3,
            runs: times.len(),
            latency_ms: latency,
            memory: MemoryReport {
                weights_bytes: memory.weights_bytes,
                packed_bytes: memory.packed_bytes,
                arena_bytes: memory.arena_bytes,
                peak_rss_bytes: peak_rss_bytes(),
            },
            experts: model.expert_use().zip(experts).map(|(now, before)| now.since(&before).into()),
            macs: plan.map(skipstone::plan::Plan::macs),
            inputs: inputs.name(),
            steps: profiled.as_ref().zip(plan).filter(|_| profile).map(|(steps, plan)| {
                let step = |(at, (step, planned))| StepReport::new(step, planned, activity.selected(at));
                steps.iter().zip(&plan.steps).enumerate().map(step).collect()
            }),
        };
        if let Some(path) = &self.html {
            let details =
                Details { runs: &times, steps: profiled.as_deref().unwrap_or_default(), plan, activity: &activity };
            std::fs::write(path, page(&report, &details)).map_err(|error| Failure::io(path, &error))?;
        }
        let steps = profiled.filter(|_| self.profile);
        Ok((report, steps))
    }
}

fn summary(report: &Report) -> String {
    let latency = &report.latency_ms;
    let threads = if report.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", report.threads) };
    let mut text = format!("{}: {}, {threads}, {}\n\n", report.model, report.isa, report.precision);
    let mut table = Table::untitled([Align::Left, Align::Right, Align::Left]);
    let ms = |value| [numbers::ms(value), "ms".to_owned()];
    let mut row = |name: &str, [value, unit]: [String; 2]| table.row([name.to_owned(), value, unit]);
    row("load", ms(report.load_ms));
    row("first run", ms(report.first_ms));
    row("median", {
        let rate = report.macs.and_then(|macs| gflops(macs, latency.p50));
        [numbers::ms(latency.p50), rate.map_or("ms".to_owned(), |rate| format!("ms, {rate:.1} GFLOP/s"))]
    });
    row("mean", ms(latency.mean));
    row("min", ms(latency.min));
    row("90 %", ms(latency.p90));
    row("99 %", ms(latency.p99));
    row("max", ms(latency.max));
    row("runs", [report.runs.to_string(), String::new()]);
    text += &table.render("");
    text.push('\n');

    let memory = &report.memory;
    let mut table = Table::untitled([Align::Left, Align::Right]);
    table.row(["weights in the file".into(), numbers::bytes(memory.weights_bytes)]);
    table.row(["packed weights".into(), numbers::bytes(memory.packed_bytes)]);
    table.row(["arena".into(), numbers::bytes(memory.arena_bytes)]);
    let peak = memory.peak_rss_bytes.map_or("unknown".into(), numbers::bytes);
    table.row(["peak memory of the process".into(), peak]);
    text += &table.render("");
    if let Some(experts) = &report.experts {
        text += &format!("\n{}", experts.table());
    }
    text
}

/// Two tables: the steps, slowest first, and the operators.
fn profile(steps: &[StepTime]) -> String {
    let rate = |macs, ms| gflops(macs, ms).map_or(String::new(), |rate| format!("{rate:.1}"));
    let mut sorted: Vec<&StepTime> = steps.iter().collect();
    sorted.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    let mut table = Table::new([
        ("step", Align::Left),
        ("operator", Align::Left),
        ("kernel", Align::Left),
        ("runs", Align::Right),
        ("active", Align::Right),
        ("ms", Align::Right),
        ("share", Align::Right),
        ("GFLOP/s", Align::Right),
        ("moved", Align::Right),
    ]);
    for step in sorted {
        table.row([
            step.name.clone(),
            step.op.clone(),
            step.kernel.clone(),
            if step.runs.fract() == 0.0 { step.runs.to_string() } else { format!("{:.2}", step.runs) },
            step.active.map(numbers::percent).unwrap_or_default(),
            numbers::ms(step.ms),
            numbers::percent(step.share),
            rate(step.macs, step.ms),
            numbers::bytes(step.bytes),
        ]);
    }
    let mut operators = Table::new([
        ("operator", Align::Left),
        ("steps", Align::Right),
        ("ms", Align::Right),
        ("share", Align::Right),
        ("GFLOP/s", Align::Right),
        ("moved", Align::Right),
    ]);
    for op in per_operator(steps) {
        operators.row([
            op.name,
            op.steps.to_string(),
            numbers::ms(op.ms),
            numbers::percent(op.share),
            rate(op.macs, op.ms),
            numbers::bytes(op.bytes),
        ]);
    }
    format!("\n{}\n{}", table.render(""), operators.render(""))
}

/// A table of how often each expert was selected; empty if there are none.
fn experts(report: &Report) -> String {
    let mut table = Table::new([("experts", Align::Left), ("selected, the first expert first", Align::Left)]);
    let steps = report.steps.iter().flatten().filter(|step| !step.selected.is_empty());
    let mut any = false;
    for step in steps {
        let total = step.selected.iter().sum::<u64>().max(1) as f64;
        let shares: Vec<String> = step.selected.iter().map(|&it| format!("{:.0}", it as f64 / total * 100.0)).collect();
        table.row([step.name.clone(), shares.join(" ") + " %"]);
        any = true;
    }
    if any { format!("\n{}", table.render("")) } else { String::new() }
}

/// Parses seconds, which may have a fraction; at most a day.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected seconds, at most 86400".into())
}

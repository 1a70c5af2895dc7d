//! `skipstone inspect`: what a model contains, and how it will run.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use skipstone::classify::{Classifier, Head, Settings};
use skipstone::graph::Removed;
use skipstone::measure::{ExpertLayer, Memory};
use skipstone::operator::Operator;
use skipstone::ops::Op;
use skipstone::plan::{Plan, Port, Step, Variable};
use skipstone::{Error, Fact, Fault, Model, ModelFault, Tensor};

use crate::args::ModelArgs;
use crate::failure::Failure;
use crate::notes::note;
use crate::numbers::{bytes, count, elements, percent};
use crate::output::{json, print};
use crate::printable::printable;
use crate::table::{Align, Table};
use crate::zeros::{PatternReport, ZerosReport};

/// Show what is in a model and how it will run
#[derive(Args, Debug)]
#[command(after_help = "\
The arena holds every tensor between inputs and outputs; no arena can be smaller than the tensors that
are alive at the same time. A fallback step is an operator without a kernel: it runs, but slower. For a
layer with zero weights, the density shows where they are: the share of nonzero weights by outputs and
by inputs, each from the first to the last, from · for none to █ for all.

Examples:
  skipstone inspect model.onnx
  skipstone inspect model.onnx --isa scalar --memory small
  skipstone inspect dynamic.onnx --shape input=1x3x224x224 --json")]
pub struct Inspect {
    #[command(flatten)]
    model: ModelArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Most elements of a value to show.
const SHOWN: usize = 8;

#[derive(Serialize)]
struct Report {
    model: String,
    isa: &'static str,
    package: Option<PackageReport>,
    inputs: Vec<PortReport>,
    /// Inputs with an open batch size, which was assumed to be 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    assumed_batch: Vec<String>,
    /// Inputs that `--set` sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settings: Vec<VariableReport>,
    /// Inputs that receive an output after every run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    state: Vec<VariableReport>,
    outputs: Vec<PortReport>,
    /// The shapes of the inputs for each plan of a package for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    shapes: Option<Vec<Vec<String>>>,
    /// Absent if the model is not an image classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    classifier: Option<ClassifierReport>,
    parameters: u64,
    /// Absent if tract runs the whole model, like the steps.
    macs: Option<u64>,
    /// Multiply-adds with zero weights that are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u64>,
    /// The work that `--limit work` bounds. If tract runs the whole model, as far as it does not depend on the data.
    work: u64,
    memory: MemoryReport,
    /// The layers with experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    experts: Option<ExpertsReport>,
    /// Channels removed from weights because they are zero.
    removed: Vec<RemovedReport>,
    steps: Vec<StepReport>,
    fallback_steps: Vec<String>,
    whole_model_fallback: Option<String>,
    /// A bug in Skipstone that makes the model slower than it should be.
    warning: Option<String>,
}

#[derive(Serialize)]
struct PackageReport {
    bytes: usize,
    /// `generic`, or an instruction set.
    target: &'static str,
    /// Public key in hexadecimal.
    signer: Option<String>,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct PortReport {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    /// The axes along which an output has at most so many elements: how many is known after a run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    at_most: Vec<usize>,
}

#[derive(Serialize)]
struct VariableReport {
    #[serde(flatten)]
    port: PortReport,
    /// The first few elements, for a setting, and for state whose initial value is not zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The output that state is set to.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
}

/// How a classifier treats an image and the model's output, and where that was specified.
#[derive(Serialize)]
struct ClassifierReport {
    image: String,
    normalization: String,
    /// What the scores are, in words.
    scores: String,
    /// `softmax`, `sigmoid` or `none`.
    activation: &'static str,
    /// Whether the model computes it itself.
    activation_by_model: bool,
    activation_from: String,
}

#[derive(Serialize)]
struct MemoryReport {
    weights_bytes: u64,
    packed_bytes: u64,
    constant_bytes: u64,
    arena_bytes: u64,
    arena_lower_bound_bytes: u64,
}

#[derive(Serialize)]
struct ExpertsReport {
    /// Bytes of all experts, and of as many as one run can select.
    total_bytes: u64,
    run_bytes: u64,
    /// The least value of `--expert-budget`.
    least_budget_bytes: u64,
    layers: Vec<ExpertsOfStep>,
}

#[derive(Serialize)]
struct ExpertsOfStep {
    step: String,
    experts: usize,
    each_bytes: u64,
}

/// Filters and input channels of a layer (columns and rows of a matrix) in the model and as computed.
#[derive(Serialize)]
struct RemovedReport {
    node: String,
    filters: [usize; 2],
    channels: [usize; 2],
}

#[derive(Serialize)]
struct StepReport {
    name: String,
    op: String,
    kernel: String,
    inputs: Vec<Vec<usize>>,
    outputs: Vec<Vec<usize>>,
    macs: u64,
    /// Absent if none of its weights is zero.
    #[serde(flatten)]
    zeros: Option<ZerosReport>,
}

impl Inspect {
    /// Plans the model and reports.
    pub fn execute(self) -> Result<(), Failure> {
        let model = self.model.open()?;
        let held = self.held(&model)?;
        let report = Report::new(self.model.name(), &model, &held);
        print(&if self.json { json(&report)? } else { text(&report, &model) })
    }
}

impl Inspect {
    /// The initial value of every variable of a session.
    fn held(&self, model: &Model) -> Result<Vec<Tensor>, Failure> {
        if model.variables().is_empty() && self.model.settings.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = model.session()?;
        self.model.prepare(&mut session)?;
        let held = (0..model.variables().len()).filter_map(|index| Some(session.variable(index)?.to_tensor()));
        Ok(held.collect())
    }
}

impl Report {
    fn new(name: String, model: &Model, held: &[Tensor]) -> Self {
        let steps = model.plan().map_or(&[][..], |plan| &plan.steps);
        let fallback = |step: &&Step| matches!(step.op, Op::Foreign(_));
        let memory = Memory::of(model);
        Self {
            model: name,
            isa: model.isa().name(),
            package: model.info().package.as_ref().map(|package| PackageReport {
                bytes: package.bytes,
                target: package.packed_for.map_or("generic", |packed| packed.isa.name()),
                signer: package.signer.map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect()),
                metadata: model.info().metadata.clone(),
            }),
            inputs: model.inputs().iter().map(PortReport::new).collect(),
            assumed_batch: model.info().assumed_batch.clone(),
            settings: VariableReport::list(model, held, false),
            state: VariableReport::list(model, held, true),
            outputs: (0..model.outputs().len()).map(|index| PortReport::output(model, index)).collect(),
            shapes: shapes(model),
            classifier: ClassifierReport::new(model),
            parameters: model.info().parameters,
            macs: model.plan().map(Plan::macs),
            skipped: model.plan().map(|plan| plan.most(&ZerosReport::skipped)).filter(|&it| it > 0),
            work: model.work(),
            memory: MemoryReport {
                weights_bytes: memory.weights_bytes,
                packed_bytes: memory.packed_bytes,
                constant_bytes: memory.constant_bytes,
                arena_bytes: memory.arena_bytes,
                arena_lower_bound_bytes: memory.arena_lower_bound_bytes,
            },
            experts: model.plan().and_then(ExpertsReport::new),
            removed: model.plan().map_or(&[][..], |plan| &plan.removed).iter().map(RemovedReport::new).collect(),
            steps: steps.iter().map(StepReport::new).collect(),
            fallback_steps: steps.iter().filter(fallback).map(|step| step.name.clone()).collect(),
            whole_model_fallback: model.fallback_reason().map(str::to_owned),
            warning: model.warning().map(str::to_owned),
        }
    }
}

impl ExpertsReport {
    fn new(plan: &Plan) -> Option<Self> {
        let layers = ExpertLayer::all(plan);
        (!layers.is_empty()).then(|| Self {
            total_bytes: layers.iter().map(|layer| layer.all_bytes).sum(),
            run_bytes: layers.iter().map(|layer| layer.run_bytes).sum(),
            least_budget_bytes: ExpertLayer::least_budget(&layers),
            layers: layers
                .into_iter()
                .map(|ExpertLayer { name, experts, each_bytes, .. }| ExpertsOfStep { step: name, experts, each_bytes })
                .collect(),
        })
    }
}

impl ClassifierReport {
    fn new(model: &Model) -> Option<Self> {
        let classifier = match Classifier::new(model, &Settings::default(), None) {
            Ok(classifier) => classifier,
            Err(Error::Invalid { fault: Fault::Model(ModelFault::ImageInput), .. }) => return None,
            Err(error) => {
                note(format!("warning: no image can be classified: {}", printable(&error.to_string())));
                return None;
            }
        };
        let Head { activation, by_model, origin } = classifier.head();
        Some(Self {
            image: classifier.preprocess().to_string(),
            normalization: classifier.normalization().to_string(),
            scores: classifier.meaning(),
            activation: activation.name(),
            activation_by_model: *by_model,
            activation_from: origin.to_string(),
        })
    }
}

/// The shapes of the inputs for each plan of a package, if there are several.
fn shapes(model: &Model) -> Option<Vec<Vec<String>>> {
    let sets = model.shapes().map(|set| set.iter().map(ToString::to_string).collect());
    Some(sets.collect::<Vec<_>>()).filter(|sets| sets.len() > 1)
}

impl PortReport {
    fn new(port: &Port) -> Self {
        Self {
            name: port.name.clone(),
            dtype: port.fact.dtype.name(),
            shape: port.fact.shape.dims().to_vec(),
            at_most: Vec::new(),
        }
    }

    fn output(model: &Model, index: usize) -> Self {
        let lengths = model.plan().map_or(&[][..], |plan| &plan.lengths);
        let at_most = lengths.iter().filter(|length| length.output == index).map(|length| length.axis).collect();
        Self { at_most, ..Self::new(&model.outputs()[index]) }
    }
}

impl VariableReport {
    /// Reports the settings, or the state.
    fn list(model: &Model, held: &[Tensor], state: bool) -> Vec<Self> {
        let listed = model.variables().iter().zip(held).filter(|(variable, _)| variable.next.is_some() == state);
        listed
            .map(|(Variable { port, next, .. }, tensor)| Self {
                port: PortReport::new(port),
                value: tensor.bytes().iter().any(|&byte| byte != 0 || !state).then(|| elements(tensor, SHOWN)),
                from: next.and_then(|next| model.outputs().get(next)).map(|output| output.name.clone()),
            })
            .collect()
    }
}

impl RemovedReport {
    fn new(Removed { node, filters, channels }: &Removed) -> Self {
        Self { node: node.clone(), filters: *filters, channels: *channels }
    }
}

impl StepReport {
    fn new(step: &Step) -> Self {
        let shapes = |facts: &[Fact]| facts.iter().map(|fact| fact.shape.dims().to_vec()).collect();
        Self {
            name: step.name.clone(),
            op: step.op.name().to_owned(),
            kernel: step.choice.kernel.clone(),
            inputs: shapes(&step.inputs),
            outputs: shapes(&step.outputs),
            macs: step.macs,
            zeros: ZerosReport::of(step),
        }
    }
}

/// The report as text.
fn text(report: &Report, model: &Model) -> String {
    let mut text = format!("{}: {}\n\n", report.model, report.isa);
    let mut ports = Table::untitled([Align::Left; 5]);
    let mut row = |kind: &str, port: &Port, note: String| {
        let Fact { dtype, shape } = &port.fact;
        ports.row([kind.into(), port.name.clone(), dtype.to_string(), shape.to_string(), note]);
    };
    model.inputs().iter().for_each(|port| row("input", port, String::new()));
    for (kind, list) in [("setting", &report.settings), ("state", &report.state)] {
        for VariableReport { port, value, from } in list {
            let Some(held) = model.variables().iter().find(|variable| variable.port.name == port.name) else {
                continue;
            };
            let value = value.as_ref().map(|value| format!("= {value}"));
            let from = from.as_ref().map(|from| format!("from {from}"));
            row(kind, &held.port, value.into_iter().chain(from).collect::<Vec<_>>().join(", "));
        }
    }
    for (port, PortReport { at_most, .. }) in model.outputs().iter().zip(&report.outputs) {
        let axes = at_most.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        row("output", port, if axes.is_empty() { axes } else { format!("at most, along axis {axes}") });
    }
    text += &ports.render("");
    text.push('\n');

    let memory = &report.memory;
    let mut facts = Table::untitled([Align::Left, Align::Right, Align::Left]);
    let mut fact = |name: &str, value: String, note: String| facts.row([name.into(), value, note]);
    if let Some(package) = &report.package {
        fact("package", bytes(package.bytes as u64), format!("for {}", package.target));
        fact("signed by", String::new(), package.signer.clone().unwrap_or_else(|| "nobody".into()));
        for (key, value) in &package.metadata {
            fact(key, String::new(), first_line(value));
        }
    }
    if let Some(it) = &report.classifier {
        fact("image", String::new(), it.image.clone());
        fact("normalization", String::new(), it.normalization.clone());
        fact("scores", String::new(), it.scores.clone());
    }
    if let Some(shapes) = &report.shapes {
        fact(
            "shapes",
            count(shapes.len() as u64),
            shapes.iter().map(|set| set.join(" ")).collect::<Vec<_>>().join(", "),
        );
    }
    fact("parameters", count(report.parameters), String::new());
    fact("weights in the file", bytes(memory.weights_bytes), String::new());
    if let Some(macs) = report.macs {
        let skipped =
            report.skipped.map(|skipped| format!("{} of them skipped: their weights are zero", count(skipped)));
        fact("multiply-adds", count(macs), skipped.unwrap_or_default());
        fact("packed weights", bytes(memory.packed_bytes), String::new());
        fact("constants", bytes(memory.constant_bytes), String::new());
        if let Some(it) = &report.experts {
            let needs =
                format!("up to {} in a run; least --expert-budget {}", bytes(it.run_bytes), it.least_budget_bytes);
            fact("experts", bytes(it.total_bytes), needs);
        }
        fact("arena", bytes(memory.arena_bytes), above_lower_bound(memory));
        fact("steps", report.steps.len().to_string(), String::new());
        fact("fallback steps", report.fallback_steps.len().to_string(), report.fallback_steps.join(", "));
    }
    text += &facts.render("");
    if let Some(warning) = &report.warning {
        text += &format!("\nWarning: {}\n", printable(warning));
    }
    if let Some(reason) = &report.whole_model_fallback {
        text += &format!("\ntract runs the whole model, without a plan: {}\n", printable(reason));
        return text;
    }

    if !report.removed.is_empty() {
        let mut removed =
            Table::new([("removed from", Align::Left), ("filters", Align::Right), ("input channels", Align::Right)]);
        let left =
            |[before, after]: [usize; 2]| if before == after { String::new() } else { format!("{before} -> {after}") };
        for RemovedReport { node, filters, channels } in &report.removed {
            removed.row([node.clone(), left(*filters), left(*channels)]);
        }
        text += &format!("\n{}", removed.render(""));
    }

    if let Some(it) = &report.experts {
        let mut experts =
            Table::new([("experts of", Align::Left), ("number", Align::Right), ("bytes each", Align::Right)]);
        for ExpertsOfStep { step, experts: number, each_bytes } in &it.layers {
            experts.row([step.clone(), number.to_string(), bytes(*each_bytes)]);
        }
        text += &format!("\n{}", experts.render(""));
    }

    let mut steps = Table::new([
        ("", Align::Right),
        ("step", Align::Left),
        ("operator", Align::Left),
        ("kernel", Align::Left),
        ("inputs", Align::Left),
        ("outputs", Align::Left),
        ("multiply-adds", Align::Right),
        ("zeros", Align::Left),
        ("density by outputs, inputs", Align::Left),
    ]);
    for (at, step) in model.plan().map_or(&[][..], |plan| &plan.steps).iter().enumerate() {
        let shapes = |facts: &[Fact]| facts.iter().map(|f| f.shape.to_string()).collect::<Vec<_>>().join(" ");
        let zeros = report.steps.get(at).and_then(|step| step.zeros.as_ref());
        steps.row([
            (at + 1).to_string(),
            step.name.clone(),
            step.op.name().to_owned(),
            step.choice.kernel.clone(),
            shapes(&step.inputs),
            shapes(&step.outputs),
            if step.macs > 0 { count(step.macs) } else { String::new() },
            zeros.map(|zeros| zeros.reason.clone()).unwrap_or_default(),
            zeros.and_then(|zeros| zeros.pattern.as_ref()).map(PatternReport::strips).unwrap_or_default(),
        ]);
    }
    text + "\n" + &steps.render("")
}

/// The first line of a text, as far as it fits a table.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let start: String = line.chars().take(60).collect();
    if start.len() < text.trim_end().len() { start + " ..." } else { start }
}

/// How far the arena exceeds its lower bound.
fn above_lower_bound(memory: &MemoryReport) -> String {
    let (arena, bound) = (memory.arena_bytes, memory.arena_lower_bound_bytes);
    if bound == 0 || arena <= bound {
        return "the lower bound".into();
    }
    format!("{} above the lower bound, {}", percent((arena - bound) as f64 / bound as f64), bytes(bound))
}

//! The HTML report of a measurement: one self-contained file without scripts or external resources.
//!
//! Charts are inline SVG, colors follow the reader's light or dark mode, and the page is well-formed XML, so that a
//! program can read it too. Names come from untrusted files, so every text goes through [`escape`].

mod activity;
mod arena;
mod bars;
mod histogram;
mod layers;

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use skipstone::measure::{StepTime, gflops, per_kernel, per_operator};
use skipstone::plan::Plan;

use crate::activity::Activity;
use crate::measurement::Report;
use crate::numbers;
use crate::zeros::ZerosReport;
use bars::Bar;

/// The data for the charts, in addition to the report.
pub struct Details<'a> {
    /// Times of the measured runs.
    pub runs: &'a [Duration],
    /// Every step, in the plan's order.
    pub steps: &'a [StepTime],
    /// Absent if tract runs the whole model.
    pub plan: Option<&'a Plan>,
    /// What the runs left out.
    pub activity: &'a Activity,
}

/// Most steps that are shown as bars.
const TOP: usize = 20;

/// The page.
pub fn page(report: &Report, details: &Details<'_>) -> String {
    let model = escape(&report.model);
    let mut body = format!("<h1>{model}</h1>\n<p class=\"options\">{}</p>\n", escape(&options(report)));
    body += &figures(report);
    section(&mut body, "Latency", "Distribution of the times of runs.", &histogram::svg(details.runs));
    if !details.steps.is_empty() {
        let slowest = slowest(details.steps);
        let shown = format!("The slowest {} of {} steps.", slowest.len(), details.steps.len());
        section(&mut body, "Steps", &shown, &bars::svg(&slowest));
        let groups = |groups: Vec<skipstone::measure::GroupTime>| {
            let bar = |g: skipstone::measure::GroupTime| Bar {
                note: format!("{} {}", g.steps, if g.steps == 1 { "step" } else { "steps" }),
                name: g.name,
                ms: g.ms,
                share: g.share,
                macs: g.macs,
                bytes: g.bytes,
            };
            groups.into_iter().map(bar).collect::<Vec<_>>()
        };
        section(
            &mut body,
            "Operators",
            "Total time of the steps of each operator.",
            &bars::svg(&groups(per_operator(details.steps))),
        );
        section(
            &mut body,
            "Kernels",
            "Total time of the steps of each kernel.",
            &bars::svg(&groups(per_kernel(details.steps))),
        );
    }
    if let Some(plan) = details.plan {
        body += &zeros(plan);
    }
    body += &left_out(details.activity);
    if let Some(plan) = details.plan.filter(|plan| plan.arena_bytes > 0) {
        let text = format!(
            "The horizontal axis is the steps of a run, the vertical axis the {} of the arena. Each tensor extends \
             from the step that writes it to the last step that reads it. At most {} are live at once.",
            numbers::bytes(plan.arena_bytes as u64),
            numbers::bytes(plan.arena_lower_bound as u64),
        );
        section(&mut body, "Arena", &text, &arena::svg(plan));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n<title>{model}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn section(body: &mut String, title: &str, text: &str, content: &str) {
    let _ = write!(body, "<section>\n<h2>{}</h2>\n<p>{}</p>\n{content}</section>\n", escape(title), escape(text));
}

/// The section on layers with zero weights; empty if there are none.
fn zeros(plan: &Plan) -> String {
    let (layers, mut body) = (layers::of(plan), String::new());
    if layers.is_empty() {
        return body;
    }
    let skipped = plan.most(&ZerosReport::skipped);
    let text = format!(
        "Each picture is the weight matrix of a layer, its outputs from top to bottom, its inputs from left to right: \
         the darker a block, the more of its weights are not zero. {} of {} multiply-adds are skipped.",
        numbers::count(skipped),
        numbers::count(plan.macs()),
    );
    section(&mut body, "Zero weights", &text, &layers::svg(&layers));
    body
}

/// The sections on masks, experts and branches, as far as the model has them.
fn left_out(activity: &Activity) -> String {
    let mut body = String::new();
    let runs = activity.runs();
    if !activity.masks.is_empty() {
        let text = format!(
            "The share of multiply-adds that steps with masks computed in each of {runs} runs, from none at the left to \
             all at the right."
        );
        section(&mut body, "Active channels", &text, &activity::masks(activity));
    }
    if !activity.experts.is_empty() {
        let text = format!("How often each expert was selected in {runs} runs.");
        section(&mut body, "Experts", &text, &activity::experts(activity));
    }
    if !activity.branches.is_empty() {
        let text = format!("In how many of {runs} runs the steps of branches and loops ran.");
        section(&mut body, "Branches", &text, &activity::branches(activity));
    }
    body
}

/// The slowest steps, slowest first.
fn slowest(steps: &[StepTime]) -> Vec<Bar> {
    let mut sorted: Vec<&StepTime> = steps.iter().collect();
    sorted.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    let bar = |step: &&StepTime| Bar {
        name: step.name.clone(),
        note: format!("{}, {}", step.op, step.kernel),
        ms: step.ms,
        share: step.share,
        macs: step.macs,
        bytes: step.bytes,
    };
    sorted.iter().take(TOP).map(bar).collect()
}

/// The options and the machine of the measurement.
fn options(report: &Report) -> String {
    let threads = if report.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", report.threads) };
    let cores = std::thread::available_parallelism().map_or("unknown cores".to_owned(), |n| format!("{n} cores"));
    let machine = [processor().unwrap_or_default(), std::env::consts::ARCH.into(), cores, std::env::consts::OS.into()];
    let machine: Vec<String> = machine.into_iter().filter(|part| !part.is_empty()).collect();
    format!(
        "{}, {threads}, power {}, memory {}, {}, inputs {} \u{b7} {} \u{b7} skipstone {}",
        report.isa,
        report.power,
        report.memory_policy,
        report.precision,
        report.inputs,
        machine.join(", "),
        env!("CARGO_PKG_VERSION")
    )
}

/// Name of the processor, as the system reports it.
fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name") || line.starts_with("Hardware"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The figures of the measurement with their names.
fn figures(report: &Report) -> String {
    let (latency, memory) = (&report.latency_ms, &report.memory);
    let ms = |ms| format!("{} ms", numbers::ms(ms));
    let rate = report.macs.and_then(|macs| gflops(macs, latency.p50));
    let cells = [
        ("median", ms(latency.p50)),
        ("least", ms(latency.min)),
        ("90 %", ms(latency.p90)),
        ("99 %", ms(latency.p99)),
        ("runs", report.runs.to_string()),
        ("load", ms(report.load_ms)),
        ("first run", ms(report.first_ms)),
        ("multiply-adds", report.macs.map_or("unknown".into(), numbers::count)),
        ("at the median", rate.map_or("unknown".into(), |rate| format!("{rate:.1} GFLOP/s"))),
        ("weights in the file", numbers::bytes(memory.weights_bytes)),
        ("packed weights", numbers::bytes(memory.packed_bytes)),
        ("arena", numbers::bytes(memory.arena_bytes)),
        ("peak memory of the process", memory.peak_rss_bytes.map_or("unknown".into(), numbers::bytes)),
    ];
    let cell = |(name, value): &(&str, String)| format!("<div><dd>{value}</dd><dt>{name}</dt></div>\n");
    format!("<dl>\n{}</dl>\n", cells.iter().map(cell).collect::<String>())
}

/// Most characters of a label left of a chart; its title has the full text.
const MAX_TEXT: usize = 58;

/// Truncates a long text at its start, since names of steps differ at the end.
fn end(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(length + 1 - most)).collect()
}

/// Escapes `text` for an element or an attribute of an XML document. Control characters become spaces.
fn escape(text: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '&' | '<' | '>' | '"' | '\'' | '\u{fffe}' | '\u{ffff}') || c.is_control();
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c if special(c) => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

const STYLE: &str = "
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --text: #1c1d21; --soft: #6b6e76; --line: #e3e3e0;
  --bar: #3d6fd9; --track: #eef1f7; --hue: 62%; }
@media (prefers-color-scheme: dark) { :root { --back: #141518; --card: #1c1e22; --text: #e9e9ec; --soft: #9a9da6;
  --line: #2d3036; --bar: #6c98f5; --track: #262a33; --hue: 46%; } }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0; }
p { margin: 2px 0 14px; color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 10px; margin: 20px 0; }
dl div, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
dl div { padding: 10px 14px; }
dd { margin: 0; font-size: 18px; font-weight: 600; font-variant-numeric: tabular-nums; }
dt { color: var(--soft); font-size: 13px; }
section { padding: 18px 20px; margin-top: 16px; }
svg { display: block; width: 100%; height: auto; font-size: 12px; font-variant-numeric: tabular-nums; }
svg text { fill: var(--text); }
svg .soft { fill: var(--soft); }
svg .bar { fill: var(--bar); }
svg .track { fill: var(--track); }
svg .axis { stroke: var(--line); }
svg .tensor { stroke: var(--card); stroke-width: 0.5; }
svg .tensor:hover { stroke: var(--text); stroke-width: 1.5; }
svg .scratch { fill: var(--soft); fill-opacity: 0.35; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_html() {
        assert_eq!(escape("a<b>&\"'\u{0}\n\u{ffff}"), "a&lt;b&gt;&amp;&quot;&#39;   ");
        assert!(matches!(escape("/features.3/Conv"), Cow::Borrowed(_)));
    }
}

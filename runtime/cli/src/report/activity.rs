//! Charts of what the runs left out: histograms of the active share of each step with masks, the selections of experts,
//! and the steps of branches.

use std::fmt::Write;

use super::{MAX_TEXT, end, escape};
use crate::activity::{Activity, Branched, Masked, Selected};
use crate::numbers;

const WIDTH: f64 = 960.0;
const ROW: f64 = 44.0;
/// Height of the bars of a row.
const BARS: f64 = 32.0;
/// Horizontal positions of the bars and of the figures.
const LEFT: f64 = 430.0;
const RIGHT: f64 = 690.0;
/// Bins of the histogram of shares.
const BINS: usize = 10;

/// The active shares of steps with masks.
pub fn masks(activity: &Activity) -> String {
    rows("active channels", &activity.masks, |masked| {
        let Masked { name, shares, .. } = masked;
        let mut bins = [0u64; BINS];
        shares.iter().for_each(|share| bins[((share * BINS as f64) as usize).min(BINS - 1)] += 1);
        let titles = |bin: usize| format!("{} to {} %: {} runs", bin * 10, (bin + 1) * 10, bins[bin]);
        let mean = masked.mean().map_or("none".into(), numbers::percent);
        Row { name, bars: bars(&bins, titles), figures: format!("{mean} computed") }
    })
}

/// How often each expert was selected.
pub fn experts(activity: &Activity) -> String {
    rows("experts", &activity.experts, |Selected { name, counts, .. }| {
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let share = |count: &u64| numbers::percent(*count as f64 / total);
        let titles = |at: usize| format!("expert {at}: {}, {} times", share(&counts[at]), counts[at]);
        let most = counts.iter().max().map(share).unwrap_or_default();
        let never = counts.iter().filter(|count| **count == 0).count();
        let figures = format!("{} experts, at most {most}, {never} never", counts.len());
        Row { name, bars: bars(counts, titles), figures }
    })
}

/// In which share of the runs each step of a branch ran.
pub fn branches(activity: &Activity) -> String {
    let runs = activity.runs().max(1) as f64;
    rows("branches", &activity.branches, |Branched { name, runs: ran, .. }| {
        let share = *ran as f64 / runs;
        let full = RIGHT - LEFT - 16.0;
        Row {
            name,
            bars: format!(
                "<rect class=\"track\" x=\"{LEFT}\" y=\"9\" width=\"{full}\" height=\"14\" rx=\"3\" />\
                 <rect class=\"bar\" x=\"{LEFT}\" y=\"9\" width=\"{:.1}\" height=\"14\" rx=\"3\" />",
                share * full
            ),
            figures: format!("in {} of the runs", numbers::percent(share)),
        }
    })
}

/// A row of a chart. The bars are drawn at the top of the chart.
struct Row<'a> {
    name: &'a str,
    bars: String,
    figures: String,
}

fn rows<'a, T>(label: &str, items: &'a [T], row: impl Fn(&'a T) -> Row<'a>) -> String {
    let height = ROW * items.len() as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">\n");
    for (at, Row { name, bars, figures }) in items.iter().map(row).enumerate() {
        let _ = writeln!(
            svg,
            "<g transform=\"translate(0 {:.1})\"><title>{}</title><text x=\"0\" y=\"20\">{}</text>{bars}\
             <text x=\"{RIGHT}\" y=\"20\">{}</text></g>",
            ROW * at as f64,
            escape(name),
            escape(&end(name, MAX_TEXT)),
            escape(&figures),
        );
    }
    svg + "</svg>\n"
}

/// Upright bars of these heights side by side, each with a title.
fn bars(counts: &[u64], title: impl Fn(usize) -> String) -> String {
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let (full, column) = (RIGHT - LEFT - 16.0, (RIGHT - LEFT - 16.0) / counts.len().max(1) as f64);
    let gap = if column > 4.0 { 1.0 } else { 0.0 };
    let mut svg = format!("<rect class=\"track\" x=\"{LEFT}\" y=\"0\" width=\"{full}\" height=\"{BARS}\" />");
    for (at, &count) in counts.iter().enumerate() {
        let height = count as f64 / most * BARS;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{height:.2}\"><title>{}</title></rect>",
            LEFT + at as f64 * column + gap / 2.0,
            BARS - height,
            column - gap,
            escape(&title(at)),
        );
    }
    svg
}

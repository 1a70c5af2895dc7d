//! Histogram of the times of runs.

use std::fmt::Write;
use std::time::Duration;

use skipstone::measure::Latency;

use crate::numbers;

const BINS: usize = 48;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;
/// Height of the axis labels below the chart.
const SCALE: f64 = 36.0;

/// Draws the histogram, with equal bins from the fastest run to the 99th percentile. The last bin also counts slower
/// runs.
pub fn svg(runs: &[Duration]) -> String {
    let Some(latency) = Latency::of(runs) else { return String::new() };
    let span = (latency.p99 - latency.min).max(latency.min * 1e-3).max(1e-6);
    let mut counts = [0usize; BINS];
    for run in runs {
        let at = (run.as_secs_f64() * 1e3 - latency.min) / span * (BINS - 1) as f64;
        counts[(at.max(0.0) as usize).min(BINS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let column = WIDTH / BINS as f64;
    let from = |bin: usize| latency.min + span * bin as f64 / (BINS - 1) as f64;

    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"latency\">\n", HEIGHT + SCALE);
    for (bin, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = (count as f64 / most * (HEIGHT - 8.0)).max(1.0);
        let to = if bin + 1 == BINS { latency.max } else { from(bin + 1) };
        let _ = writeln!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" rx=\"2\">\
             <title>{} to {} ms: {count} runs</title></rect>",
            bin as f64 * column + 1.0,
            HEIGHT - height,
            column - 2.0,
            numbers::ms(from(bin)),
            numbers::ms(to),
        );
    }
    let _ = writeln!(svg, "<line class=\"axis\" x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\" />");
    let middle = ((latency.p50 - latency.min) / span * (BINS - 1) as f64).min((BINS - 1) as f64) * column;
    let marks = [
        (0.0, "start", latency.min, "least"),
        // Clamped, so that the label does not overlap the other two.
        (middle.clamp(220.0, WIDTH - 300.0), "middle", latency.p50, "median"),
        (WIDTH, "end", latency.p99, "99 % and slower"),
    ];
    for (x, anchor, ms, name) in marks {
        let (ms, y) = (numbers::ms(ms), HEIGHT + 20.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{ms} ms <tspan class=\"soft\">{name}</tspan></text>"
        );
    }
    svg + "</svg>\n"
}

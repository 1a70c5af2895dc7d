//! Pictures of the layers with zero weights: where the zeros are, which kernel runs, and why.

use std::fmt::Write;

use skipstone::plan::{Plan, Step};

use super::{MAX_TEXT, end, escape};
use crate::numbers;
use crate::zeros::{PatternReport, ZerosReport};

const WIDTH: f64 = 960.0;
/// Height of a row, and side of its picture.
const ROW: f64 = 60.0;
const SIDE: f64 = 48.0;
/// Horizontal positions of the name and of the figures.
const NAME: f64 = 62.0;
const FIGURES: f64 = 490.0;
/// Most layers that are shown.
const TOP: usize = 80;

/// The layers with zero weights, in the plan's order, at most [`TOP`].
pub fn of(plan: &Plan) -> Vec<(&Step, ZerosReport)> {
    let zeros = |step| ZerosReport::of(step).map(|zeros| (step, zeros));
    plan.steps.iter().filter_map(zeros).take(TOP).collect()
}

/// Draws a row for each layer.
pub fn svg(layers: &[(&Step, ZerosReport)]) -> String {
    let height = ROW * layers.len() as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"zero weights\">\n");
    for (row, (step, zeros)) in layers.iter().enumerate() {
        let y = ROW * row as f64;
        let shapes = step.outputs.first().map(|fact| fact.shape.to_string()).unwrap_or_default();
        let skipped = match zeros.skipped {
            0 => String::new(),
            skipped => format!(", {} of them skipped", numbers::count(skipped)),
        };
        let _ = writeln!(
            svg,
            "<g><title>{}</title>{}<text x=\"{NAME}\" y=\"{:.1}\">{}</text>\
             <text class=\"soft\" x=\"{NAME}\" y=\"{:.1}\" font-size=\"11\">{}</text>\
             <text x=\"{FIGURES}\" y=\"{:.1}\">{}</text>\
             <text class=\"soft\" x=\"{FIGURES}\" y=\"{:.1}\">{} multiply-adds{skipped}</text></g>",
            escape(&step.name),
            zeros.pattern.as_ref().map(|pattern| picture(pattern, y)).unwrap_or_default(),
            y + 20.0,
            escape(&end(&step.name, MAX_TEXT)),
            y + 36.0,
            escape(&end(&format!("{} to {shapes}", step.choice.kernel), MAX_TEXT)),
            y + 20.0,
            escape(&zeros.reason),
            y + 36.0,
            numbers::count(step.macs),
        );
    }
    svg + "</svg>\n"
}

/// The matrix as a square, or a part of one if it has fewer blocks on one side.
fn picture(pattern: &PatternReport, y: f64) -> String {
    let (rows, columns) = (pattern.rows(), pattern.columns);
    let side = SIDE / rows.max(columns).max(1) as f64;
    let mut svg = format!(
        "<rect class=\"track\" x=\"0\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{:.2}\" />",
        side * columns as f64,
        side * rows as f64
    );
    for (at, density) in pattern.density.iter().enumerate().filter(|(_, density)| **density > 0.0) {
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.2}\" y=\"{:.2}\" width=\"{side:.2}\" height=\"{side:.2}\" \
             fill-opacity=\"{density:.2}\" />",
            (at % columns) as f64 * side,
            y + (at / columns) as f64 * side,
        );
    }
    svg
}

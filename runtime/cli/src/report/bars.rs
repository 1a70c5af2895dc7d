//! Bar chart of the time of each step, operator or kernel.

use std::fmt::Write;

use skipstone::measure::gflops;

use super::{MAX_TEXT, end, escape};
use crate::numbers;

/// A bar and its labels.
pub struct Bar {
    pub name: String,
    pub note: String,
    pub ms: f64,
    /// Share of the run, 0 to 1.
    pub share: f64,
    pub macs: u64,
    pub bytes: u64,
}

const WIDTH: f64 = 960.0;
const ROW: f64 = 34.0;
/// Horizontal positions of the bars and of the figures.
const LEFT: f64 = 430.0;
const RIGHT: f64 = 660.0;

/// Draws the bars in the given order, scaled so that the longest fills the width.
pub fn svg(bars: &[Bar]) -> String {
    let longest = bars.iter().map(|bar| bar.ms).fold(f64::MIN_POSITIVE, f64::max);
    let height = ROW * bars.len() as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"times\">\n");
    for (row, bar) in bars.iter().enumerate() {
        let y = ROW * row as f64;
        let full = RIGHT - LEFT - 16.0;
        let rate = gflops(bar.macs, bar.ms).map_or(String::new(), |rate| format!(", {rate:.1} GFLOP/s"));
        let figures = format!(
            "{} ms <tspan class=\"soft\">{}{rate}, {}</tspan>",
            numbers::ms(bar.ms),
            numbers::percent(bar.share),
            numbers::bytes(bar.bytes)
        );
        let _ = writeln!(
            svg,
            "<g><title>{name}: {note}</title>\
             <text x=\"0\" y=\"{:.1}\">{}</text><text class=\"soft\" x=\"0\" y=\"{:.1}\" font-size=\"11\">{}</text>\
             <rect class=\"track\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{full}\" height=\"14\" rx=\"3\" />\
             <rect class=\"bar\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" rx=\"3\" />\
             <text x=\"{RIGHT}\" y=\"{:.1}\">{figures}</text></g>",
            y + 13.0,
            escape(&end(&bar.name, MAX_TEXT)),
            y + 26.0,
            escape(&end(&bar.note, MAX_TEXT)),
            y + 8.0,
            y + 8.0,
            (bar.ms / longest * full).max(1.0),
            y + 19.0,
            name = escape(&bar.name),
            note = escape(&bar.note),
        );
    }
    svg + "</svg>\n"
}

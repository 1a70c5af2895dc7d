//! Where the time of a run goes: a bar for each step, operator or kernel.

use std::fmt::Write;

use skipstone::measure::gflops;

use super::escape;
use crate::numbers;

/// A bar and what is written beside it.
pub struct Bar {
    pub name: String,
    pub note: String,
    pub ms: f64,
    /// Part of a run, 0 to 1.
    pub share: f64,
    pub macs: u64,
    pub bytes: u64,
}

const WIDTH: f64 = 960.0;
const ROW: f64 = 34.0;
/// Where the bars begin, and where the figures do.
const LEFT: f64 = 430.0;
const RIGHT: f64 = 660.0;
/// Longest text left of a bar; the whole is in its title.
const MAX_TEXT: usize = 58;

/// The bars in their order, the longest as long as there is room.
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
            escape(&end(&bar.name)),
            y + 26.0,
            escape(&end(&bar.note)),
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

/// The end of a text that is too long: names of steps differ there.
fn end(text: &str) -> String {
    let length = text.chars().count();
    if length <= MAX_TEXT {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(length + 1 - MAX_TEXT)).collect()
}

//! Chart of the arena during a run. Each tensor is a rectangle: its width is its lifetime in steps, its height its size
//! in bytes.

use std::fmt::Write;

use skipstone::measure::tenants;
use skipstone::plan::Plan;

use super::escape;
use crate::numbers;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
/// Height of the axis labels below the chart.
const SCALE: f64 = 24.0;

/// Draws the chart. The hues of consecutive tensors differ by the golden angle, so that they are easy to tell apart.
pub fn svg(plan: &Plan) -> String {
    // The last column is the state after the run, with the outputs.
    let columns = plan.steps.len() + 1;
    let (x, y) = (WIDTH / columns as f64, HEIGHT / plan.arena_bytes.max(1) as f64);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"arena\">\n", HEIGHT + SCALE);
    let _ = writeln!(svg, "<rect class=\"track\" width=\"{WIDTH}\" height=\"{HEIGHT}\" />");
    for (index, tenant) in tenants(plan).into_iter().enumerate() {
        let Some(step) = plan.steps.get(tenant.first) else { continue };
        let (what, class, fill) = if tenant.scratch {
            ("scratch of ", "tensor scratch", String::new())
        } else {
            let hue = (index as f64 * 137.5) % 360.0;
            ("", "tensor", format!(" style=\"fill: hsl({hue:.0} 55% var(--hue))\""))
        };
        let until = if tenant.last > tenant.first { format!(" to {}", tenant.last + 1) } else { String::new() };
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\"{fill} x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{:.2}\">\
             <title>{what}{}: {} at {}, step {}{until}</title></rect>",
            tenant.first as f64 * x,
            HEIGHT - tenant.bytes.end as f64 * y,
            (tenant.last - tenant.first + 1) as f64 * x,
            tenant.bytes.len() as f64 * y,
            escape(&step.name),
            numbers::bytes(tenant.bytes.len() as u64),
            numbers::bytes(tenant.bytes.start as u64),
            tenant.first + 1,
        );
    }
    let _ = writeln!(svg, "<text class=\"soft\" x=\"0\" y=\"{}\">step 1</text>", HEIGHT + 18.0);
    let _ = writeln!(
        svg,
        "<text class=\"soft\" x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">step {} and the outputs</text>",
        HEIGHT + 18.0,
        plan.steps.len()
    );
    svg + "</svg>\n"
}

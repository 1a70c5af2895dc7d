//! The zero weights of a layer in words and numbers, for `inspect`, `bench` and the HTML report.

use serde::Serialize;
use skipstone::operator::{Pattern, Zeros};
use skipstone::plan::Step;

use crate::numbers::percent;

/// A layer's zero weights.
#[derive(Serialize)]
pub struct ZerosReport {
    /// Share of the weights that are zero.
    pub zeros: f64,
    /// Why its kernel is dense or sparse.
    pub reason: String,
    /// Multiply-adds with zero weights that its kernel leaves out.
    #[serde(skip_serializing_if = "is_none")]
    pub skipped: u64,
    /// The density of the weight matrix, outputs by inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<PatternReport>,
}

/// Shares of nonzero weights in the blocks of a matrix, row by row.
#[derive(Serialize)]
pub struct PatternReport {
    pub columns: usize,
    pub density: Vec<f32>,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

impl ZerosReport {
    /// Multiply-adds with zero weights that a step's kernel leaves out.
    pub fn skipped(step: &Step) -> u64 {
        let zeros = step.choice.zeros.as_ref().filter(|_| is_sparse(step));
        zeros.map_or(0, |zeros| (step.macs as f64 * zeros.share) as u64)
    }

    /// The zero weights of a step; `None` if there are none, or if they are not known.
    pub fn of(step: &Step) -> Option<Self> {
        let zeros = step.choice.zeros.as_ref()?;
        Some(Self {
            zeros: zeros.share,
            reason: reason(zeros, is_sparse(step)),
            skipped: Self::skipped(step),
            pattern: zeros.pattern.as_ref().map(PatternReport::new),
        })
    }
}

fn is_sparse(step: &Step) -> bool {
    step.choice.kernel.starts_with("sparse_")
}

impl PatternReport {
    fn new(Pattern { columns, density }: &Pattern) -> Self {
        Self { columns: *columns, density: density.clone() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.density.len().checked_div(self.columns).unwrap_or(0)
    }

    /// Two strips of at most 8 blocks: the density by outputs and by inputs, from `·` for none to `█` for all.
    pub fn strips(&self) -> String {
        let by_outputs: Vec<f32> = self.density.chunks(self.columns.max(1)).map(mean).collect();
        let column = |at| self.density.iter().skip(at).step_by(self.columns).copied().collect::<Vec<f32>>();
        let by_inputs: Vec<f32> = (0..self.columns).map(|at| mean(&column(at))).collect();
        format!("{} {}", strip(&by_outputs), strip(&by_inputs))
    }
}

/// Most characters of a strip.
const STRIP: usize = 8;

fn strip(density: &[f32]) -> String {
    let blocks = density.len().min(STRIP);
    let shade = |block: usize| {
        let part = block * density.len() / blocks..(block + 1) * density.len() / blocks;
        match mean(&density[part]) {
            share if share <= 0.0 => '·',
            share if share <= 0.25 => '░',
            share if share <= 0.5 => '▒',
            share if share <= 0.75 => '▓',
            _ => '█',
        }
    };
    (0..blocks).map(shade).collect()
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len().max(1) as f32
}

/// The reason shown for a dense or sparse kernel.
fn reason(Zeros { share, gain, .. }: &Zeros, is_sparse: bool) -> String {
    let zeros = format!("{} zeros", percent(*share));
    match (is_sparse, *gain) {
        (true, gain) => format!("{zeros}, {gain:.1}x faster than dense"),
        (false, 0.0) => format!("{zeros}, no sparse kernel supports it"),
        (false, gain) if gain < 1.0 => format!("{zeros}, dense is {:.1}x faster here", 1.0 / gain),
        (false, gain) => format!("{zeros}, sparse would be {gain:.1}x faster, but not with its neighbors"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_are_the_margins_of_the_picture() {
        let picture = PatternReport { columns: 3, density: vec![0.0, 0.0, 0.0, 0.2, 0.4, 1.0] };
        assert_eq!((picture.rows(), picture.strips().as_str()), (2, "·▓ ░░▒"));
        let full = PatternReport { columns: 16, density: vec![1.0; 256] };
        assert_eq!(full.strips(), "████████ ████████");
    }
}

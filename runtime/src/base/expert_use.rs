//! What the experts of a model needed of a budget of memory.

use std::time::Duration;

/// What the experts of a model needed since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpertUse {
    /// Most bytes in memory at a time.
    pub budget_bytes: u64,
    /// Bytes of all experts, in whole pages.
    pub total_bytes: u64,
    /// Bytes of those in memory, as counted for the budget.
    pub held_bytes: u64,
    /// Bytes of experts that are in memory according to the system, the one of other processes included; `None` if it
    /// does not say.
    pub resident_bytes: Option<u64>,
    /// How often a step used an expert that was still in memory from an earlier use.
    pub hits: u64,
    /// How often it used one that was read ahead.
    pub ahead: u64,
    /// How often it had to read one itself.
    pub misses: u64,
    /// Bytes that were read because of misses.
    pub missed_bytes: u64,
    /// Bytes that were read ahead.
    pub ahead_bytes: u64,
    /// Time of all reads.
    pub reading: Duration,
    /// Time that steps waited for their experts.
    pub stalled: Duration,
}

impl ExpertUse {
    /// What was needed after an earlier count; budget and bytes in memory are those of now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            hits: self.hits - before.hits,
            ahead: self.ahead - before.ahead,
            misses: self.misses - before.misses,
            missed_bytes: self.missed_bytes - before.missed_bytes,
            ahead_bytes: self.ahead_bytes - before.ahead_bytes,
            reading: self.reading.saturating_sub(before.reading),
            stalled: self.stalled.saturating_sub(before.stalled),
            ..*self
        }
    }
}

//! What `--expert-budget` did, as tables and JSON say it.

use serde::Serialize;
use skipstone::ExpertUse;

use crate::numbers;
use crate::table::{Align, Table};

/// What runs needed of the budget for experts.
#[derive(Serialize)]
pub struct ExpertReport {
    pub budget_bytes: u64,
    pub total_bytes: u64,
    /// In memory after the last run, as counted for the budget, and as the system says.
    pub held_bytes: u64,
    pub resident_bytes: Option<u64>,
    /// Uses of experts that were still in memory from an earlier use.
    pub hits: u64,
    /// Of experts that were read ahead.
    pub ahead: u64,
    /// Of experts that a step had to read.
    pub misses: u64,
    pub bytes_read: u64,
    pub ahead_bytes: u64,
    /// Time of all reads, and the part of it that steps waited for.
    pub reading_ms: f64,
    pub stall_ms: f64,
}

impl From<ExpertUse> for ExpertReport {
    fn from(it: ExpertUse) -> Self {
        Self {
            budget_bytes: it.budget_bytes,
            total_bytes: it.total_bytes,
            held_bytes: it.held_bytes,
            resident_bytes: it.resident_bytes,
            hits: it.hits,
            ahead: it.ahead,
            misses: it.misses,
            bytes_read: it.missed_bytes + it.ahead_bytes,
            ahead_bytes: it.ahead_bytes,
            reading_ms: it.reading.as_secs_f64() * 1e3,
            stall_ms: it.stalled.as_secs_f64() * 1e3,
        }
    }
}

impl ExpertReport {
    /// The report as text.
    pub fn table(&self) -> String {
        let it = self;
        let uses = (it.hits + it.ahead + it.misses).max(1) as f64;
        let mut table = Table::untitled([Align::Left, Align::Right, Align::Left]);
        let mut row = |name: &str, value: String, note: String| table.row([name.into(), value, note]);
        let of_all = |part: u64| numbers::percent(part as f64 / it.total_bytes.max(1) as f64) + " of all";
        row("expert budget", numbers::bytes(it.budget_bytes), of_all(it.budget_bytes.min(it.total_bytes)));
        row("experts in memory", numbers::bytes(it.held_bytes), of_all(it.held_bytes));
        if let Some(resident) = it.resident_bytes {
            row("resident by the system", numbers::bytes(resident), of_all(resident));
        }
        for (name, count) in [("kept", it.hits), ("read ahead", it.ahead), ("missed", it.misses)] {
            row(name, numbers::count(count), numbers::percent(count as f64 / uses) + " of the uses");
        }
        row("bytes read", numbers::bytes(it.bytes_read), numbers::bytes(it.ahead_bytes) + " of them ahead");
        row("reading", numbers::ms(it.reading_ms), "ms".into());
        row("waiting for experts", numbers::ms(it.stall_ms), "ms".into());
        table.render("")
    }
}

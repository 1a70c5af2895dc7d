//! What a model holds in memory: what the plan says, and what the system saw.

use crate::model::Model;

/// Bytes that a loaded model and one of its sessions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Weights as the file stores them.
    pub weights_bytes: u64,
    /// Weights in the kernels' own form.
    pub packed_bytes: u64,
    /// Constants that kernels read as they are.
    pub constant_bytes: u64,
    /// The arena: every tensor between the inputs and the outputs.
    pub arena_bytes: u64,
    /// What is alive at the widest moment: no arena can be smaller.
    pub arena_lower_bound_bytes: u64,
}

impl Memory {
    /// The plan's account of `model`; where the model has no plan, only the weights are known.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let plan = model.plan();
        let bytes = |of: fn(&crate::plan::Plan) -> usize| plan.map_or(0, |plan| of(plan) as u64);
        Self {
            weights_bytes: model.info().weight_bytes,
            packed_bytes: bytes(|p| p.packed_bytes()),
            constant_bytes: bytes(|p| p.constant_bytes()),
            arena_bytes: bytes(|p| p.arena_bytes),
            arena_lower_bound_bytes: bytes(|p| p.arena_lower_bound),
        }
    }
}

/// The most memory that this process ever had resident, in bytes; `None` on systems other than
/// Linux and Android, and where `/proc` is closed.
#[must_use]
pub fn peak_rss_bytes() -> Option<u64> {
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The line `VmHWM:  1234 kB` of a process status.
fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read_in_bytes() {
        assert_eq!(peak_in("Name:\tx\nVmPeak:\t 999 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1 kB\n"), Some(1234 * 1024));
        assert_eq!(peak_in("Name:\tx\n"), None);
        assert_eq!(peak_in("VmHWM:\tmany kB\n"), None);
        assert_eq!(peak_in("VmHWM:\t18446744073709551615 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_something() {
        assert!(peak_rss_bytes().unwrap() > 100_000);
    }
}

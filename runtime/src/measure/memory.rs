//! The memory of a model: by the plan, and as the system reports it.

use crate::model::Model;

/// Bytes of a loaded model and one of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Weights as the file stores them.
    pub weights_bytes: u64,
    /// Packed weights.
    pub packed_bytes: u64,
    /// Constants that kernels read unpacked.
    pub constant_bytes: u64,
    /// The arena: every tensor between the inputs and the outputs.
    pub arena_bytes: u64,
    /// The largest number of bytes alive at one step: no arena can be smaller.
    pub arena_lower_bound_bytes: u64,
}

impl Memory {
    /// The memory of `model` by its plan; if it has no plan, only the weights are known.
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

/// The resident memory of this process in bytes; `None` on systems other than Linux and Android, and if `/proc` is not
/// readable.
#[must_use]
pub fn rss_bytes() -> Option<u64> {
    bytes_in(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The peak resident memory of this process in bytes; `None` as for [`rss_bytes`].
#[must_use]
pub fn peak_rss_bytes() -> Option<u64> {
    bytes_in(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The bytes of a line such as `VmHWM:  1234 kB` of a process status.
fn bytes_in(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_converted_to_bytes() {
        let status = "Name:\tx\nVmPeak:\t 999 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(bytes_in(status, "VmHWM:"), Some(1234 * 1024));
        assert_eq!(bytes_in(status, "VmRSS:"), Some(1024));
        assert_eq!(bytes_in("Name:\tx\n", "VmHWM:"), None);
        assert_eq!(bytes_in("VmHWM:\tmany kB\n", "VmHWM:"), None);
        assert_eq!(bytes_in("VmHWM:\t18446744073709551615 kB\n", "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory() {
        assert!(rss_bytes().unwrap() > 100_000);
    }
}

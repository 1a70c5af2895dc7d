//! The processor of this machine, which measured times depend on.

use std::path::Path;

/// The keys in `/proc/cpuinfo` that identify the processor's design: x86 first, then ARM.
const KEYS: [&str; 5] = ["vendor_id", "model name", "CPU implementer", "CPU part", "CPU variant"];

/// A name for the processor: equal for cores of the same designs. If the system does not report it (Linux and Android
/// do), only the architecture and the system.
pub(crate) fn cpu() -> String {
    let mut cpu = format!("{} {}", std::env::consts::ARCH, std::env::consts::OS);
    for design in std::fs::read_to_string(Path::new("/proc/cpuinfo")).map(|text| designs(&text)).unwrap_or_default() {
        cpu += ", ";
        cpu += &design;
    }
    cpu
}

/// The designs of the cores in the text of `/proc/cpuinfo`, each once, in alphabetical order.
fn designs(cpuinfo: &str) -> Vec<String> {
    let mut designs: Vec<String> = cpuinfo.split("\n\n").map(design).filter(|design| !design.is_empty()).collect();
    designs.sort_unstable();
    designs.dedup();
    designs
}

/// The values of [`KEYS`] in the paragraph of one core.
fn design(core: &str) -> String {
    let value = |key: &&str| {
        let mut lines = core.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.trim() == *key).map(|(_, value)| value.trim())
    };
    KEYS.iter().filter_map(value).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_of_one_design_are_named_once() {
        let desktop = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9R14\ncpu MHz\t: 2600.0\n\n";
        assert_eq!(designs(&desktop.repeat(3)), ["AuthenticAMD AMD EPYC 9R14"]);
        let core = |at: usize, part: &str| {
            format!("processor\t: {at}\nCPU implementer\t: 0x41\nCPU variant\t: 0x1\nCPU part\t: {part}\n\n")
        };
        let phone = [core(0, "0xd46"), core(1, "0xd46"), core(2, "0xd4d"), "Hardware\t: board\n".into()].concat();
        assert_eq!(designs(&phone), ["0x41 0xd46 0x1", "0x41 0xd4d 0x1"]);
        assert_eq!(designs("what: ever"), [""; 0]);
    }

    #[test]
    fn this_machine_keeps_its_name() {
        assert!(cpu().starts_with(std::env::consts::ARCH));
        assert_eq!(cpu(), cpu());
    }
}

//! Which cores of a phone a session runs on.
//!
//! A phone has cores of two or three sizes. A step shared by a large and a small one ends when the small one finishes,
//! so [`PowerMode::Fast`] uses only the large ones, and [`PowerMode::Efficient`] the small ones, which need a fraction
//! of the energy for the same work. The system reports the speed of its cores (Linux and Android); if it does not, or
//! if all are alike, or on other systems (iOS has no such call), a mode changes nothing.
//!
//! The threads of a session are bound to the chosen cores permanently. The thread that calls `run` belongs to the
//! caller: it is bound during the run, and gets its previous cores back afterwards.

use std::path::Path;

/// Which cores to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerMode {
    /// The large cores: at least half as fast as the fastest.
    Fast,
    /// Whichever the system gives.
    #[default]
    Balanced,
    /// The small cores: at most a quarter faster than the slowest.
    Efficient,
}

/// How many cores the calling thread may use, at least 1. The standard library's count also includes container quotas,
/// which take several files to find; this does not.
#[must_use]
pub fn available_cores() -> usize {
    system::count().max(1)
}

/// Indices of some of the machine's cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores(Vec<usize>);

impl Cores {
    /// The cores that `mode` chooses among those that the calling thread may use; `None` if it makes no difference.
    pub(crate) fn choose(mode: PowerMode) -> Option<Self> {
        if mode == PowerMode::Balanced {
            return None;
        }
        let allowed = system::allowed()?;
        let speeds = speeds(Path::new("/sys/devices/system/cpu"))?;
        choose(mode, speeds.into_iter().filter(|(core, _)| allowed(*core)).collect())
    }

    /// The number of cores.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Binds the calling thread to these cores. Best effort: the system may refuse.
    pub(crate) fn bind(&self) {
        system::bind(&self.0);
    }

    /// Binds the calling thread until the guard is dropped.
    pub(crate) fn visit(&self) -> Visit {
        let before = system::Set::current();
        self.bind();
        Visit(before)
    }
}

/// The cores that the thread gets back.
pub(crate) struct Visit(Option<system::Set>);

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            before.bind();
        }
    }
}

/// The online cores with a measure of their speed, from a folder such as `/sys/devices/system/cpu`: the capacity used
/// by the scheduler, or else the highest clock. `None` unless all cores have the same kind of measure.
fn speeds(folder: &Path) -> Option<Vec<(usize, u64)>> {
    let number = |file: &Path| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let entries = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut cores: Vec<usize> = entries.filter_map(|name| name.strip_prefix("cpu")?.parse().ok()).collect();
    cores.retain(|core| number(&folder.join(format!("cpu{core}/online"))) != Some(0));
    cores.sort_unstable();
    ["cpu_capacity", "cpufreq/cpuinfo_max_freq"].into_iter().find_map(|file| {
        cores.iter().map(|&core| Some((core, number(&folder.join(format!("cpu{core}/{file}")))?))).collect()
    })
}

/// The cores for `mode`; `None` if it is all of them.
fn choose(mode: PowerMode, speeds: Vec<(usize, u64)>) -> Option<Cores> {
    let slowest = speeds.iter().map(|&(_, speed)| speed).min()?;
    let fastest = speeds.iter().map(|&(_, speed)| speed).max()?;
    let fits = |speed: u64| match mode {
        PowerMode::Fast => speed >= fastest / 2,
        PowerMode::Balanced => true,
        PowerMode::Efficient => speed - slowest <= slowest / 4,
    };
    let chosen: Vec<usize> = speeds.iter().filter(|&&(_, speed)| fits(speed)).map(|&(core, _)| core).collect();
    (chosen.len() < speeds.len()).then_some(Cores(chosen))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) struct Set(CpuSet);

    impl Set {
        /// The cores that the calling thread may use.
        pub(super) fn current() -> Option<Self> {
            sched_getaffinity(None).ok().map(Set)
        }

        pub(super) fn bind(&self) {
            let _ = sched_setaffinity(None, &self.0);
        }
    }

    /// How many cores the calling thread may use.
    pub(super) fn count() -> usize {
        Set::current().map_or(1, |set| set.0.count() as usize)
    }

    /// Whether the calling thread may use a core.
    pub(super) fn allowed() -> Option<impl Fn(usize) -> bool> {
        Set::current().map(|set| move |core| core < CpuSet::MAX_CPU && set.0.is_set(core))
    }

    pub(super) fn bind(cores: &[usize]) {
        let mut set = CpuSet::new();
        cores.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| set.set(core));
        Set(set).bind();
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    pub(super) struct Set;

    impl Set {
        pub(super) fn current() -> Option<Self> {
            None
        }

        pub(super) fn bind(&self) {}
    }

    pub(super) fn count() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    pub(super) fn allowed() -> Option<fn(usize) -> bool> {
        None
    }

    pub(super) fn bind(_: &[usize]) {}
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The result of `speeds` for a folder with these files.
    fn read(files: &[(&str, &str)]) -> Option<Vec<(usize, u64)>> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files.iter().chain(&[("cpufreq/boost", "1\n"), ("cpuidle/current_driver", "none\n")]) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        speeds(folder.path())
    }

    fn chosen(mode: PowerMode, speeds: &[u64]) -> Option<Vec<usize>> {
        choose(mode, speeds.iter().copied().enumerate().collect()).map(|cores| cores.0)
    }

    /// Four small cores, three large ones, one larger still.
    const PHONE: [u64; 8] = [325, 325, 325, 325, 830, 830, 830, 1024];

    #[test]
    fn large_cores_are_told_from_small_ones() {
        assert_eq!(chosen(PowerMode::Fast, &PHONE), Some(vec![4, 5, 6, 7]));
        assert_eq!(chosen(PowerMode::Efficient, &PHONE), Some(vec![0, 1, 2, 3]));
        assert_eq!(chosen(PowerMode::Balanced, &PHONE), None);
        // Large ones first, as on some phones.
        assert_eq!(chosen(PowerMode::Efficient, &[1024, 1024, 380, 380]), Some(vec![2, 3]));
    }

    #[test]
    fn equal_cores_are_all_used() {
        for mode in [PowerMode::Fast, PowerMode::Balanced, PowerMode::Efficient] {
            for speeds in [&[][..], &[1024], &[1024; 8], &[5_200_000, 5_100_000], &[0, 0]] {
                assert_eq!(chosen(mode, speeds), None, "{mode:?} {speeds:?}");
            }
        }
    }

    #[test]
    fn capacities_are_read_from_the_system() {
        let names: Vec<String> = (0..PHONE.len()).map(|core| format!("cpu{core}/cpu_capacity")).collect();
        let texts: Vec<String> = PHONE.iter().map(|capacity| format!("{capacity}\n")).collect();
        let files: Vec<(&str, &str)> = names.iter().zip(&texts).map(|(n, t)| (n.as_str(), t.as_str())).collect();
        assert_eq!(read(&files), Some(PHONE.into_iter().enumerate().collect()));
    }

    #[test]
    fn clock_rates_replace_missing_capacities() {
        let clocks = [("cpu0/cpufreq/cpuinfo_max_freq", "1800000\n"), ("cpu1/cpufreq/cpuinfo_max_freq", "2400000\n")];
        assert_eq!(read(&clocks), Some(vec![(0, 1_800_000), (1, 2_400_000)]));
        // A capacity cannot be compared with clocks.
        let mixed = [clocks[0], clocks[1], ("cpu0/cpu_capacity", "1024\n")];
        assert_eq!(read(&mixed), Some(vec![(0, 1_800_000), (1, 2_400_000)]));
    }

    #[test]
    fn offline_cores_do_not_count() {
        let files = [("cpu0/cpu_capacity", "400"), ("cpu1/cpu_capacity", "1024"), ("cpu1/online", "1\n")];
        assert_eq!(read(&files), Some(vec![(0, 400), (1, 1024)]));
        let files = [files[0], files[1], files[2], ("cpu2/online", "0\n")];
        assert_eq!(read(&files), Some(vec![(0, 400), (1, 1024)]));
    }

    #[test]
    fn unreadable_capacities_are_unknown() {
        assert_eq!(speeds(Path::new("/nowhere")), None);
        assert_eq!(read(&[("cpu0/cpu_capacity", "400"), ("cpu1/cpu_capacity", "much")]), None);
        assert_eq!(read(&[("cpu0/cpu_capacity", "-1")]), None);
        assert_eq!(read(&[("cpu0/topology/core_id", "0")]), None);
    }

    /// Runs on any machine, which has at least one core.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_calling_thread_gets_its_cores_back() {
        let now = || (0..1024).filter(|&core| system::allowed().unwrap()(core)).collect::<Vec<_>>();
        let before = now();
        assert_eq!(available_cores(), before.len());
        let one = Cores(vec![before[0]]);
        let visit = one.visit();
        assert_eq!(now(), one.0);
        drop(visit);
        assert_eq!(now(), before);
        // The system refuses cores that do not exist, which is ignored.
        drop(Cores(vec![1023, 5000]).visit());
        assert_eq!(now(), before);
    }
}

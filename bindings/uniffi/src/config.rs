//! An app's choices for running a model.

use std::collections::HashMap;

use skipstone::{Limits, Options, PowerMode, Shapes, available_cores};

use crate::error::{Result, SkipstoneError};

/// Which cores of the phone a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum Power {
    /// The large cores.
    Fast,
    /// Whichever the system gives.
    #[default]
    Balanced,
    /// The small cores, which need a fraction of the energy.
    Efficient,
}

/// Choices for opening a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Config {
    /// Threads per run, including the caller's; 0 means as many as the power mode has cores.
    pub threads: u32,
    /// Which cores to use.
    pub power: Power,
    /// An Ed25519 public key of 32 bytes: a package that is not signed with it is refused.
    pub public_key: Option<Vec<u8>>,
    /// Whether to read a package's file into memory instead of mapping it, so that later changes of the file do not
    /// matter.
    pub copy: bool,
    /// Shapes of an ONNX file's dynamic inputs, by name; packages have none.
    pub shapes: HashMap<String, Vec<u64>>,
    /// Limits on what a model may need, by name, instead of the defaults of `skipstone::Limits`.
    pub limits: HashMap<String, i64>,
    /// Most bytes of the weights of experts in memory at a time; absent for no such bound. For a package of a mixture of
    /// experts, packed for the device's instruction set and mapped from its file.
    pub expert_budget: Option<i64>,
}

impl Config {
    pub(crate) fn options(&self) -> Result<Options> {
        let cores = available_cores();
        let threads = match self.threads {
            0 => cores,
            threads => usize::try_from(threads).unwrap_or(usize::MAX),
        };
        let power = match self.power {
            Power::Fast => PowerMode::Fast,
            Power::Balanced => PowerMode::Balanced,
            Power::Efficient => PowerMode::Efficient,
        };
        // More threads than cores would only wait for each other.
        let budget = self.expert_budget.map(u64::try_from).transpose();
        let expert_budget =
            budget.map_err(|_| SkipstoneError::input("input.budget", "the expert budget is negative"))?;
        let options = Options { shapes: self.shapes(), limits: self.limits()?, expert_budget, ..Options::default() };
        let options = options.threads(threads.min(cores)).power(power);
        match &self.public_key {
            None => Ok(options),
            Some(key) => {
                let key = <[u8; 32]>::try_from(key.as_slice());
                let key = key.map_err(|_| SkipstoneError::input("input.key", "a public key has 32 bytes"))?;
                Ok(options.signer(key))
            }
        }
    }

    pub(crate) fn shapes(&self) -> Shapes {
        let shape = |dims: &[u64]| dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect();
        self.shapes.iter().map(|(input, dims)| (input.clone(), shape(dims))).collect()
    }

    /// # Errors
    /// `Input` for a name that no limit has, and for a negative number.
    pub(crate) fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        for (name, &value) in &self.limits {
            let refused = |_| SkipstoneError::input("input.limit", format!("the limit '{name}' is {value}"));
            limits.set(name, u64::try_from(value).map_err(refused)?)?;
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_counts_are_clamped() {
        let threads = |threads| Config { threads, ..Config::default() }.options().unwrap().threads;
        assert_eq!(threads(1), 1);
        assert!(threads(0) >= 1);
        assert_eq!(threads(0), threads(u32::MAX));
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        let with = |bytes| Config { public_key: Some(vec![7; bytes]), ..Config::default() }.options();
        assert!(with(32).is_ok());
        for bytes in [0, 31, 33] {
            assert_eq!(with(bytes).unwrap_err().code(), "input.key");
        }
    }

    #[test]
    fn a_budget_for_experts_is_not_negative() {
        let with = |bytes| Config { expert_budget: Some(bytes), ..Config::default() }.options();
        assert_eq!(with(1 << 40).unwrap().expert_budget, Some(1 << 40));
        assert_eq!(with(-1).unwrap_err().code(), "input.budget");
    }

    #[test]
    fn limits_have_names_and_are_not_negative() {
        let with =
            |name: &str, value| Config { limits: [(name.to_owned(), value)].into(), ..Config::default() }.options();
        assert_eq!(with("memory", 1000).unwrap().limits.memory_bytes, 1000);
        assert_eq!(with("work", 0).unwrap().limits.run_work, 0);
        // Known to every library, whether or not it opens ONNX files.
        assert!(with("nodes", 7).is_ok());
        for (name, value) in [("memory", -1), ("memory", i64::MIN), ("frobs", 1), ("", 1), ("Memory", 1)] {
            let error = with(name, value).unwrap_err();
            assert_eq!(error.code(), "input.limit");
            assert!(error.to_string().contains("memory"), "{error}");
        }
    }
}

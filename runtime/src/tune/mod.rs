//! Measuring kernels against each other on the machine that will run them, on random inputs.

#[cfg(any(feature = "tuning", test))]
mod contest;
mod random;
#[cfg_attr(not(any(feature = "tuning", test)), path = "untuned.rs")]
mod tuner;

pub use random::RandomInputs;
pub(crate) use tuner::Tuner;

//! The foundation of every other room: tensors, errors, bytes, options, and information on the model file and the
//! machine. Does not depend on operators or graphs.

pub(crate) mod bytes;
pub(crate) mod cores;
pub(crate) mod error;
#[cfg_attr(all(operator_subset, not(Routed)), path = "expert_cache/without.rs")]
pub(crate) mod expert_cache;
pub(crate) mod expert_use;
pub(crate) mod fault;
pub(crate) mod info;
pub(crate) mod limits;
#[cfg_attr(not(any(feature = "tuning", test)), allow(dead_code, reason = "only tuning uses it"))]
pub(crate) mod machine;
pub(crate) mod options;
#[cfg_attr(not(any(feature = "passes", test)), allow(dead_code, reason = "some of it only the passes use"))]
pub(crate) mod reserve;
pub(crate) mod shape;
#[cfg_attr(not(any(feature = "passes", test)), allow(dead_code, reason = "some of it only the passes use"))]
pub(crate) mod tensor;
#[cfg_attr(not(any(feature = "tuning", test)), allow(dead_code, reason = "only tuning uses it"))]
pub(crate) mod tuning;
pub(crate) mod value;

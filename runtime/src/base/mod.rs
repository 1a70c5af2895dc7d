//! What every other room builds on: tensors, errors, bytes, options, and what is known of a model file and of the
//! machine. Knows nothing of operators and graphs.

pub(crate) mod bytes;
pub(crate) mod cores;
pub(crate) mod error;
pub(crate) mod fault;
pub(crate) mod info;
pub(crate) mod limits;
#[cfg_attr(not(any(feature = "tuning", test)), allow(dead_code, reason = "only tuning uses it"))]
pub(crate) mod machine;
pub(crate) mod options;
pub(crate) mod shape;
#[cfg_attr(not(any(feature = "passes", test)), allow(dead_code, reason = "some of it only the passes use"))]
pub(crate) mod tensor;
#[cfg_attr(not(any(feature = "tuning", test)), allow(dead_code, reason = "only tuning uses it"))]
pub(crate) mod tuning;
pub(crate) mod value;

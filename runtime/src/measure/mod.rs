//! Measurement: how long a model takes, how much memory it holds, and where the time goes.
//!
//! What is measured on a desktop and on a phone must mean the same, so the protocol, the
//! statistics and the grouping are here, as plain data, and whoever reports them (the command
//! line, a test app) only prints.

mod arena;
mod latency;
mod memory;
mod profile;
mod protocol;

pub use arena::{Tenant, tenants};
pub use latency::Latency;
pub use memory::{Memory, peak_rss_bytes, rss_bytes};
pub use profile::{GroupTime, StepTime, gflops, per_kernel, per_operator, per_step};
pub use protocol::{Amount, Protocol};

pub use crate::tune::RandomInputs;

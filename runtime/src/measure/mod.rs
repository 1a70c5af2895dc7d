//! Measurement: latency, memory, and time per step.
//!
//! Measurements on a desktop and on a phone must mean the same, so the protocol, the statistics and the grouping are
//! here, as plain data; the command line or a test app only prints them.

mod arena;
mod experts;
mod latency;
mod memory;
mod profile;
mod protocol;

pub use arena::{Tenant, tenants};
pub use experts::ExpertLayer;
pub use latency::Latency;
pub use memory::{Memory, peak_rss_bytes, rss_bytes};
pub use profile::{GroupTime, StepTime, gflops, per_kernel, per_operator, per_step};
pub use protocol::{Amount, Protocol};

pub use crate::tune::RandomInputs;

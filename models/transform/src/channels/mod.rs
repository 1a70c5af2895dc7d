//! Channels of a whole network: which belong together, and what a file is with fewer or more of them.

mod network;
mod resize;

pub(crate) use network::{Copies, Family, Network};
pub(crate) use resize::{resized, zeroed};

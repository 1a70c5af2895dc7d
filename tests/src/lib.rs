//! The bodies of the fuzz targets in `fuzz/`, which `tests/attacks.rs` calls with fixed seeds.

pub mod attack;

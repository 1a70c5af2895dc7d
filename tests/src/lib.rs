//! What is done to the library with bytes that nobody wrote: the bodies of the fuzz targets in `fuzz/`, which
//! `tests/attacks.rs` calls with fixed seeds.

pub mod attack;

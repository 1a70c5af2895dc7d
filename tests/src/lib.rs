//! The bodies of the fuzz targets in `fuzz/`, which `tests/attacks.rs` calls with fixed seeds.

pub mod attack;
pub mod pictures;

// The command decodes pictures, and is not a library.
#[path = "../../runtime/cli/src/picture.rs"]
mod decode;
#[path = "../../runtime/cli/src/formats.rs"]
mod formats;
#[path = "../../runtime/cli/src/webp.rs"]
mod webp;

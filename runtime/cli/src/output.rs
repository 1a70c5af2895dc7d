//! Output to stdout and stderr.

use std::io::{self, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::failure::Failure;

/// Whether stdout is a file that the command makes.
static IS_FILE: AtomicBool = AtomicBool::new(false);

/// Writes `text` unchanged to stdout, or to stderr if stdout is a file that the command makes.
pub fn print(text: &str) -> Result<(), Failure> {
    if IS_FILE.load(Ordering::Relaxed) {
        eprint!("{text}");
        return Ok(());
    }
    to_stdout(|stdout| stdout.write_all(text.as_bytes()))
}

/// Keeps stdout for a file that is written later.
pub fn reserve() {
    IS_FILE.store(true, Ordering::Relaxed);
}

/// Writes a file to stdout.
pub fn file(write: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>) -> Result<(), Failure> {
    reserve();
    to_stdout(write)
}

fn to_stdout(write: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    write(&mut stdout).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::new("io", format!("stdout: {error}")),
    })
}

/// `value` as one JSON object on one line.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::new("internal", error.to_string()))?;
    Ok(text + "\n")
}

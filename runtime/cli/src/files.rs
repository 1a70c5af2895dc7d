//! Reading and writing of text and output files.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::io(path, &error))
}

/// The text of a file.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|_| Failure::new("text", format!("{}: not UTF-8 text", path.display())))
}

/// Writes a file atomically: to `FILE.part` first, then renames it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // Remove the partial file. Report the first error, even if removal fails too.
        let _ = std::fs::remove_file(&beside);
        Failure::io(path, &error)
    })
}

//! Files that commands read and write.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The text of a file.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::io(path, &error))?;
    String::from_utf8(bytes).map_err(|_| Failure::new("text", format!("{}: not UTF-8 text", path.display())))
}

/// Writes a file beside its place first, so that there is never half of it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // What could not be moved is of no use; that it cannot be removed either is not the error to report.
        let _ = std::fs::remove_file(&beside);
        Failure::io(path, &error)
    })
}

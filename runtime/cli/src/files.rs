//! Reading and writing of text and output files, of which one of each may be `-`: standard input or output.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::failure::Failure;
use crate::output;

/// Standard input, which can be read only once, but is needed again where a model is opened twice.
static INPUT: OnceLock<Vec<u8>> = OnceLock::new();
/// Most bytes of it, unless less is expected.
pub const MAX_INPUT: u64 = 4 << 30;

/// Whether a path stands for standard input or output.
pub fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Refuses more than one file that is standard input.
pub fn only_one_stream<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), Failure> {
    match paths.into_iter().filter(|path| is_stream(path)).count() {
        0 | 1 => Ok(()),
        _ => Err(Failure::Usage("- is given twice, but standard input is only one file".into())),
    }
}

/// All of standard input, which may be endless: at most so many bytes.
pub fn input(most: u64) -> std::io::Result<&'static [u8]> {
    if let Some(bytes) = INPUT.get() {
        return Ok(bytes);
    }
    let mut bytes = Vec::new();
    if std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        return Err(std::io::Error::other(format!("more than {} MiB", most >> 20)));
    }
    Ok(INPUT.get_or_init(|| bytes))
}

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_up_to(path, MAX_INPUT)
}

/// The bytes of a file, which may be a pipe without an end: at most so many.
pub fn read_up_to(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    if is_stream(path) {
        return input(most).map(<[u8]>::to_vec).map_err(|error| Failure::new("io", format!("standard input: {error}")));
    }
    let read = || {
        let file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(length.min(most)).unwrap_or(0))?;
        if length > most || file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
            return Err(std::io::Error::other(format!("more than {} MiB", most >> 20)));
        }
        Ok(bytes)
    };
    read().map_err(|error| Failure::io(path, &error))
}

/// The text of a file.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|_| Failure::new("text", format!("{}: not UTF-8 text", path.display())))
}

/// Writes a file atomically: to `FILE.part` first, then renames it. If it is standard output, reports go to stderr from
/// then on.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if is_stream(path) {
        return output::file(|stdout| stdout.write_all(bytes));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // Remove the partial file. Report the first error, even if removal fails too.
        let _ = std::fs::remove_file(&beside);
        match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            // The system would say that the file, which is to be written, does not exist.
            Some(folder) => Failure::new("io", format!("{}: there is no folder {}", path.display(), folder.display())),
            None => Failure::io(path, &error),
        }
    })
}

//! External data: weights stored in files beside the model.
//!
//! The model names those files, and the model is untrusted input. A location must not escape the
//! model's folder, and must not name a device (endless reads) or a pipe (blocking reads). It is
//! therefore a plain relative path whose components are inspected without following symbolic
//! links, and it must name a regular file. Files with several hard links are refused too, because
//! their other names may be outside the folder.
//!
//! This guards against hostile models, not against a hostile process that replaces files while
//! the model is loaded.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::invalid::{Invalid, Place, Rule, quoted};
use crate::limits::Limits;
use crate::reserve;
use crate::validate::{Checked, ExternalTensor};

/// Most components of a location. No known exporter nests folders deeper.
const MAX_PARTS: usize = 16;

/// What is wrong with a location as a path; `None` if nothing is.
#[must_use]
pub fn location_fault(location: &str) -> Option<&'static str> {
    if location.is_empty() {
        return Some("is empty");
    }
    if location.chars().any(char::is_control) {
        return Some("holds a control character");
    }
    // Separators and drives of Windows: a location must mean the same on every system.
    if location.contains(['\\', ':']) {
        return Some("holds a backslash or colon");
    }
    let path = Path::new(location);
    if path.is_absolute() || location.starts_with('/') {
        return Some("is an absolute path");
    }
    let parts = location.split('/');
    if parts.clone().count() > MAX_PARTS {
        return Some("has too many components");
    }
    if parts.clone().any(|part| part == "..") {
        return Some("leads out of the model's folder");
    }
    // Exporters write a leading `./`; other `.` and empty components are refused.
    if parts.enumerate().any(|(i, part)| part.is_empty() || (part == "." && i > 0)) || location == "." {
        return Some("is not the path of a file");
    }
    None
}

/// Checks every file that holds external data of `model`, and that the byte range of each tensor
/// lies inside its file. Locations are relative to the folder of `model_file`, and may not name
/// `model_file` itself. A model given as bytes has no folder and may have no external data.
///
/// Returns the canonical folder to read from, or `None` if there is no external data. No weights
/// are read.
///
/// # Errors
/// `model.external-data` for a model without a file, `model.external-path` for a location outside
/// of the folder or one that is not a regular file, `model.external-range` for a file that is
/// missing, unreadable or too short, and `model.limit` if all tensors together exceed
/// [`Limits::max_external_bytes`].
pub fn resolve(model_file: Option<&Path>, model: &Checked, limits: &Limits) -> Result<Option<PathBuf>, Invalid> {
    let Some(first) = model.external.first() else {
        return Ok(None);
    };
    let invalid = |tensor: &ExternalTensor, rule, what: String| {
        let what = format!("location '{}' {what}", quoted(&tensor.location));
        Invalid::new(rule, Place::Tensor(quoted(&tensor.tensor)), what)
    };
    let Some(model_file) = model_file else {
        return Err(invalid(first, Rule::ExternalData, "is another file, but the model was given as bytes".into()));
    };
    let folder = match model_file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = folder
        .canonicalize()
        .map_err(|error| invalid(first, Rule::ExternalRange, format!("is in a folder that cannot be read: {error}")))?;
    let mut sizes: HashMap<&str, u64> = HashMap::new();
    let mut total = 0u64;
    for tensor in &model.external {
        total = total.saturating_add(tensor.length);
        if total > limits.max_external_bytes {
            let what = format!("brings the external data above {} bytes (limit 'external')", limits.max_external_bytes);
            return Err(invalid(tensor, Rule::Limit, what));
        }
        let size = match sizes.get(tensor.location.as_str()) {
            Some(&size) => size,
            None => {
                let size = inspect(&folder, model_file, &tensor.location)
                    .map_err(|(rule, what)| invalid(tensor, rule, what))?;
                reserve::insert(&mut sizes, tensor.location.as_str(), size)?;
                size
            }
        };
        if tensor.offset.checked_add(tensor.length).is_none_or(|end| end > size) {
            let what = format!("has {size} bytes, but {} are needed from {} on", tensor.length, tensor.offset);
            return Err(invalid(tensor, Rule::ExternalRange, what));
        }
    }
    Ok(Some(folder))
}

/// Inspects every component of a location without following symbolic links, and returns the size
/// in bytes of the file that it names.
fn inspect(folder: &Path, model_file: &Path, location: &str) -> Result<u64, (Rule, String)> {
    let unreadable = |error: io::Error| (Rule::ExternalRange, format!("cannot be read: {error}"));
    let refused = |what: &str| (Rule::ExternalPath, what.to_owned());
    if let Some(fault) = location_fault(location) {
        return Err(refused(fault));
    }
    let mut path = folder.to_owned();
    let mut parts = Path::new(location).components().filter(|part| *part != Component::CurDir).peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else {
            return Err(refused("leads out of the model's folder"));
        };
        path.push(part);
        let metadata = fs::symlink_metadata(&path).map_err(unreadable)?;
        if metadata.is_symlink() {
            return Err(refused("is a symbolic link, or passes through one"));
        }
        if parts.peek().is_some() && !metadata.is_dir() {
            return Err(refused("passes through something that is not a folder"));
        }
    }
    let metadata = fs::symlink_metadata(&path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(refused("is not a regular file"));
    }
    if is_same_file(&metadata, &path, model_file) {
        return Err(refused("is the model itself"));
    }
    if has_other_names(&metadata) {
        return Err(refused("is a file with several hard links"));
    }
    // Opening a regular file does not block. Fail here, not later when weights are read.
    fs::File::open(&path).map_err(unreadable)?;
    Ok(metadata.len())
}

#[cfg(unix)]
fn has_other_names(metadata: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) > 1
}

#[cfg(unix)]
fn is_same_file(metadata: &Metadata, _: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(other).is_ok_and(|other| other.dev() == metadata.dev() && other.ino() == metadata.ino())
}

/// `std` does not report the count of hard links on this system.
#[cfg(not(unix))]
fn has_other_names(_: &Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn is_same_file(_: &Metadata, path: &Path, other: &Path) -> bool {
    other.canonicalize().is_ok_and(|other| other == path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A folder with a model in it, deleted at the end of the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("skipstone-external-{}-{count}", std::process::id()));
            fs::create_dir_all(path.join("model/sub")).unwrap();
            let folder = Self(path);
            fs::write(folder.model(), [0; 64]).unwrap();
            fs::write(folder.path("w.bin"), [0; 64]).unwrap();
            fs::write(folder.path("sub/w.bin"), [0; 64]).unwrap();
            fs::write(folder.0.join("secret.bin"), [0; 64]).unwrap();
            folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join("model").join(name)
        }

        fn model(&self) -> PathBuf {
            self.path("model.onnx")
        }

        fn resolve(&self, location: &str, offset: u64, length: u64) -> Result<Option<PathBuf>, &'static str> {
            let tensor = ExternalTensor { tensor: "w".into(), location: location.into(), offset, length };
            let model = Checked { external: vec![tensor], ..Checked::default() };
            resolve(Some(&self.model()), &model, &Limits::default()).map_err(|error| error.code())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn plain_files_in_the_folder_are_accepted() {
        let folder = Folder::new();
        let model_dir = folder.path("").canonicalize().unwrap();
        for location in ["w.bin", "sub/w.bin", "./w.bin"] {
            assert_eq!(folder.resolve(location, 32, 32), Ok(Some(model_dir.clone())), "{location}");
        }
    }

    #[test]
    fn a_model_without_external_data_needs_no_folder() {
        assert_eq!(resolve(None, &Checked::default(), &Limits::default()), Ok(None));
    }

    #[test]
    fn external_data_of_a_model_given_as_bytes_are_refused() {
        let tensor = ExternalTensor { tensor: "w".into(), location: "w.bin".into(), offset: 0, length: 4 };
        let model = Checked { external: vec![tensor], ..Checked::default() };
        assert_eq!(resolve(None, &model, &Limits::default()).unwrap_err().code(), "model.external-data");
    }

    #[test]
    fn paths_out_of_the_folder_are_refused() {
        let folder = Folder::new();
        let absolute = folder.path("w.bin").to_string_lossy().into_owned();
        for location in [
            "../secret.bin",
            "sub/../../secret.bin",
            "sub/../w.bin",
            "",
            ".",
            "w.bin/",
            "a\0b",
            "sub\\w.bin",
            &absolute,
        ] {
            assert_eq!(folder.resolve(location, 0, 4), Err("model.external-path"), "{location:?}");
        }
        assert_eq!(folder.resolve(&"a/".repeat(1000), 0, 4), Err("model.external-path"));
    }

    #[test]
    fn links_are_refused() {
        let folder = Folder::new();
        symlink("w.bin", folder.path("inside")).unwrap();
        symlink("../secret.bin", folder.path("outside")).unwrap();
        symlink("..", folder.path("up")).unwrap();
        fs::hard_link(folder.0.join("secret.bin"), folder.path("hard")).unwrap();
        for location in ["inside", "outside", "up/secret.bin", "hard"] {
            assert_eq!(folder.resolve(location, 0, 4), Err("model.external-path"), "{location}");
        }
    }

    #[test]
    fn pipes_sockets_and_folders_are_refused() {
        let folder = Folder::new();
        let _listener = UnixListener::bind(folder.path("socket")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(folder.path("pipe")).status();
        let mut locations = vec!["sub", "socket", "w.bin/x"];
        if made.is_ok_and(|status| status.success()) {
            locations.push("pipe");
        }
        for location in locations {
            assert_eq!(folder.resolve(location, 0, 4), Err("model.external-path"), "{location}");
        }
        assert_eq!(inspect(Path::new("/dev"), Path::new("m"), "null").unwrap_err().0, Rule::ExternalPath);
    }

    #[test]
    fn the_model_is_not_its_own_data() {
        let folder = Folder::new();
        assert_eq!(folder.resolve("model.onnx", 0, 4), Err("model.external-path"));
    }

    #[test]
    fn ranges_past_the_end_and_missing_files_are_refused() {
        let folder = Folder::new();
        for (offset, length) in [(0, 65), (64, 1), (65, 0), (u64::MAX, 1), (1, u64::MAX >> 33)] {
            assert_eq!(folder.resolve("w.bin", offset, length), Err("model.external-range"), "{offset} {length}");
        }
        assert_eq!(folder.resolve("missing.bin", 0, 4), Err("model.external-range"));
    }

    #[test]
    fn the_total_of_all_tensors_is_bounded() {
        let folder = Folder::new();
        let tensor = ExternalTensor { tensor: "w".into(), location: "w.bin".into(), offset: 0, length: 64 };
        let model = Checked { external: vec![tensor; 10], ..Checked::default() };
        let limits = Limits { max_external_bytes: 639, ..Limits::default() };
        assert_eq!(resolve(Some(&folder.model()), &model, &limits).unwrap_err().code(), "model.limit");
        assert!(resolve(Some(&folder.model()), &model, &Limits::default()).is_ok());
    }
}

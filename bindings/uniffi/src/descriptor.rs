//! File descriptors that foreign code lends.

use std::fs::File;

use crate::error::{Result, SkipstoneError};

/// An owned duplicate of the open file behind `fd`.
///
/// # Errors
/// `Io` if `fd` is not open.
#[cfg(unix)]
pub(crate) fn duplicate(fd: i32) -> Result<File> {
    use std::os::fd::BorrowedFd;

    let refused = |why: String| SkipstoneError::Io { code: "io".into(), message: format!("descriptor {fd}: {why}") };
    if fd < 0 {
        return Err(refused("not a descriptor".into()));
    }
    // SAFETY: not -1, as just checked. Only the duplicate is used after this line, and the system refuses to duplicate
    // a number that is not an open descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map(File::from).map_err(|error| refused(error.to_string()))
}

/// This system has no descriptors.
#[cfg(not(unix))]
pub(crate) fn duplicate(_: i32) -> Result<File> {
    Err(SkipstoneError::Unsupported { code: "descriptor".into(), message: "this system has no descriptors".into() })
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_callers_descriptor_stays_open() {
        let own = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
        drop(duplicate(own.as_raw_fd()).unwrap());
        let mut text = String::new();
        duplicate(own.as_raw_fd()).unwrap().read_to_string(&mut text).unwrap();
        assert!(text.starts_with("[package]"));
    }

    #[test]
    fn a_closed_descriptor_is_refused() {
        for fd in [-1, i32::MIN, i32::MAX, 1_000_000] {
            assert_eq!(duplicate(fd).unwrap_err().code(), "io");
        }
    }
}

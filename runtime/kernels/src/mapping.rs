//! Memory-mapped files: weights are read from the file's pages without a copy on the heap.
//!
//! Pages are read from the file on first access and shared by all processes that map it; the system may drop them and
//! read them again when memory is short.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

use memmap2::{Mmap, MmapOptions};

/// A read-only part of a file.
pub struct Mapping(Mmap);

impl Mapping {
    /// Maps `len` bytes of `file` starting at `offset`.
    ///
    /// The caller must ensure that the file does not change: reading a part that has been truncated ends the process,
    /// and writes by other processes are visible. Installed files, such as the assets of an app, are replaced and never
    /// modified.
    ///
    /// # Errors
    /// The system's error for a file that cannot be mapped, such as a pipe.
    pub fn new(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        // SAFETY: the mapping is private and read-only, so Rust code cannot write it; the caller ensures that nothing
        // else changes the file, as documented above, which no check could replace. All byte values are valid `u8`.
        let map = unsafe { options.map(file)? };
        Ok(Self(map))
    }

    /// Lets the system reclaim the memory of the whole pages in `range`, which are unlikely to be read again; reading
    /// them loads them from the file again. Does nothing on systems without such advice.
    pub fn evict(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.end <= self.0.len() && range.start < range.end {
            // SAFETY: the mapping is of a file and is never written: dropped pages read as before.
            let _ =
                unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_part_of_a_file_reads_as_written() {
        let mut file = tempfile();
        let bytes: Vec<u8> = (0..10_000).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        assert_eq!(&*Mapping::new(&file, 0, bytes.len()).unwrap(), bytes);
        assert_eq!(&*Mapping::new(&file, 4097, 300).unwrap(), &bytes[4097..4397]);
        let map = Mapping::new(&file, 0, bytes.len()).unwrap();
        map.evict(0..bytes.len());
        map.evict(5000..5001);
        assert_eq!(&*map, bytes);
        assert!(Mapping::new(&file, 0, 0).is_ok_and(|m| m.is_empty()));
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("skipstone-mapping-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }
}

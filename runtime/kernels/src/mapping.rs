//! Files as memory: weights that are read where they lie, without a copy on the heap.
//!
//! Mapped pages come from the file when they are first read, are shared by all processes that map it, and the system
//! may drop and read them again when memory is short.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

use memmap2::{Mmap, MmapOptions};

/// A read-only part of a file.
pub struct Mapping(Mmap);

impl Mapping {
    /// Maps `len` bytes of `file` from `offset` on.
    ///
    /// Whoever calls this trusts the file to stay as it is: reading a part that was cut off since ends the process,
    /// and what another process writes is seen. Installed files, assets of an app among them, are only replaced.
    ///
    /// # Errors
    /// What the system says: a file that cannot be mapped, such as a pipe, or a range of no bytes.
    pub fn new(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        // SAFETY: the mapping is private and read-only, so Rust code cannot write it; that nothing else changes the file
        // is the caller's trust stated above, which no check could replace. All byte values are valid `u8`.
        let map = unsafe { options.map(file)? };
        Ok(Self(map))
    }

    /// Lets the system take back the memory of whole pages among the bytes `range`, which will hardly be read again;
    /// who reads them all the same, waits for the file once more. Where the system has no such advice, nothing happens.
    pub fn evict(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.end <= self.0.len() && range.start < range.end {
            // SAFETY: the mapping is of a file and is never written: pages that are dropped read as before.
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

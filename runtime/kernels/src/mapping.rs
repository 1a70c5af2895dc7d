//! Memory-mapped files: weights are read from the file's pages without a copy on the heap.
//!
//! Pages are read from the file on first access and shared by all processes that map it; the system may drop them and
//! read them again when memory is short.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::AsRawFd;

use memmap2::{Mmap, MmapOptions};

/// A read-only part of a file.
pub struct Mapping {
    map: Mmap,
    /// The file, if it is kept open for advice on the system's cache of it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    file: Option<File>,
    /// The part's offset in it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    offset: u64,
}

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
        Ok(Self {
            map,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            file: None,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            offset,
        })
    }

    /// Keeps the file open, of which this is a part: [`release`](Self::release) needs it to free the system's cache of it.
    #[must_use]
    pub fn keeping(self, file: &File) -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            Self { file: file.try_clone().ok(), ..self }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = file;
            self
        }
    }

    /// Lets the system reclaim the memory of the whole pages in `range`, which are unlikely to be read again; reading
    /// them loads them from the file again. Does nothing on systems without such advice.
    pub fn evict(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.end <= self.map.len() && range.start < range.end {
            // SAFETY: the mapping is of a file and is never written: dropped pages read as before.
            let _ = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// The bytes of the pages that hold `range`, whole pages at both ends; 0 for an empty range.
    #[must_use]
    pub fn page_bytes(&self, range: Range<usize>) -> usize {
        self.pages(range).map_or(0, |pages| pages.len())
    }

    /// Announces reads of single pages in `range`, each of which is to read no other ones with it.
    pub fn expect_scattered(&self, range: Range<usize>) {
        #[cfg(unix)]
        if self.get(range.clone()).is_some_and(|bytes| !bytes.is_empty()) {
            let _ = self.map.advise_range(memmap2::Advice::Random, range.start, range.len());
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Begins to read the pages of `range` into memory, in large pieces, several at a time. Does nothing on systems without
    /// such advice.
    pub fn request(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.end <= self.map.len() {
            // A single call may read no more than the system's window for reading ahead.
            for start in range.clone().step_by(READ) {
                let _ = self.map.advise_range(memmap2::Advice::WillNeed, start, READ.min(range.end - start));
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Returns when the pages of `range` are in memory, which are quickly read if they were requested.
    pub fn await_pages(&self, range: Range<usize>) {
        // The first access to a page waits until it is read.
        if let Some(bytes) = self.get(range) {
            for at in bytes.iter().step_by(SMALLEST_PAGE).chain(bytes.last()) {
                std::hint::black_box(*at);
            }
        }
    }

    /// Like [`evict`](Self::evict), for pages that must leave memory now: on Linux and Android also the system's cache of
    /// the file, if that is [kept](Self::keeping) open, they are on the disk, and no other process maps them.
    pub fn release(&self, range: Range<usize>) {
        // Frees large pieces of the cache in part, which the other calls cannot, in files that this process may write.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(pages) = self.pages(range.clone()) {
            // SAFETY: `pages` are whole pages of this mapping, which lives as long as `self`. The advice changes no
            // content: the mapping is of a file and never written, so pages that leave memory read as before.
            unsafe { libc::madvise(pages.start as *mut libc::c_void, pages.len(), libc::MADV_PAGEOUT) };
        }
        self.evict(range.clone());
        // Frees what is not mapped any more, also pages that were read just now.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let (Some(file), true) = (&self.file, range.start < range.end && range.end <= self.map.len()) {
            let page = page_size() as u64;
            let (start, end) = (self.offset + range.start as u64, self.offset + range.end as u64);
            let (start, end) = (start - start % page, end.next_multiple_of(page));
            if let (Ok(start), Ok(len)) = (start.try_into(), (end - start).try_into()) {
                // SAFETY: the descriptor is open as long as `file`, and no memory is passed.
                unsafe { libc::posix_fadvise(file.as_raw_fd(), start, len, libc::POSIX_FADV_DONTNEED) };
            }
        }
    }

    /// How many bytes of the pages of `range` are in memory, whether or not this process has read them; `None` on
    /// systems other than Linux and Android. On a file that this process may neither write nor owns, all of them.
    #[must_use]
    pub fn resident(&self, range: Range<usize>) -> Option<usize> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let Some(pages) = self.pages(range) else { return Some(0) };
            let mut held = vec![0u8; pages.len() / page_size()];
            // SAFETY: `pages` are whole pages of this mapping, and `held` has a byte for each of them.
            let failed = unsafe { libc::mincore(pages.start as *mut libc::c_void, pages.len(), held.as_mut_ptr()) };
            (failed == 0).then(|| held.iter().filter(|&&page| page & 1 == 1).count() * page_size())
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = range;
            None
        }
    }

    /// The addresses of the pages that hold `range`; `None` for an empty range, or one past the end.
    fn pages(&self, range: Range<usize>) -> Option<Range<usize>> {
        let bytes = self.get(range).filter(|bytes| !bytes.is_empty())?;
        let (page, start) = (page_size(), bytes.as_ptr().addr());
        let first = start - start % page;
        Some(first..first + (start + bytes.len() - first).next_multiple_of(page))
    }
}

/// Bytes that are read ahead by one call.
#[cfg(unix)]
const READ: usize = 128 << 10;

/// No system has smaller pages.
const SMALLEST_PAGE: usize = 4096;

/// Bytes of a page of memory.
fn page_size() -> usize {
    #[cfg(unix)]
    {
        // SAFETY: asks for a constant of the system, without a pointer.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).map_or(SMALLEST_PAGE, |size| size.max(SMALLEST_PAGE))
    }
    #[cfg(not(unix))]
    SMALLEST_PAGE
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[test]
    fn pages_are_loaded_and_released_and_read_the_same() {
        let mut file = tempfile();
        let page = page_size();
        let bytes: Vec<u8> = (0..8 * page).map(|i| (i / 7) as u8).collect();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        let map = Mapping::new(&file, 0, bytes.len()).unwrap().keeping(&file);
        let part = 2 * page..5 * page - 1;
        assert_eq!(map.page_bytes(part.clone()), 3 * page);
        assert_eq!(map.page_bytes(page - 1..page + 1), 2 * page);
        assert_eq!((map.page_bytes(7..7), map.page_bytes(0..bytes.len() + 1)), (0, 0));
        map.expect_scattered(0..bytes.len());
        map.request(part.clone());
        map.await_pages(part.clone());
        let resident = map.resident(part.clone());
        assert!(resident.is_none_or(|resident| resident == 3 * page), "{resident:?}");
        map.release(part.clone());
        assert_eq!(&*map, bytes);
        // Ranges past the end are ignored.
        let past = page..bytes.len() + 1;
        map.expect_scattered(past.clone());
        map.request(past.clone());
        map.await_pages(past.clone());
        map.release(past.clone());
        assert!(map.resident(past).is_none_or(|resident| resident == 0));
        map.request(0..0);
        map.await_pages(0..0);
    }

    fn tempfile() -> File {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("skipstone-mapping-{}-{number}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }
}

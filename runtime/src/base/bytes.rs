//! Immutable bytes: on the heap, or in a mapped file.
//!
//! Packed weights and constants are read by every session of a model at once. Readers do not see whether they were
//! packed when the model was opened or are part of a package.

use std::ops::{Deref, Range};
use std::sync::Arc;

use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::mapping::Mapping;

use crate::error::{OpError, Result};
use crate::reserve;

/// A part of shared, immutable bytes. A clone shares them.
#[derive(Clone)]
pub struct Bytes {
    whole: Arc<Whole>,
    range: Range<usize>,
}

enum Whole {
    Heap(AlignedVec<u8>),
    /// Short-lived elements, in memory from the allocator.
    Words(Vec<u64>),
    File(Mapping),
}

impl Bytes {
    /// A copy of these bytes.
    ///
    /// # Errors
    /// Not enough memory.
    pub(crate) fn copy_of(bytes: &[u8]) -> Result<Self> {
        let copy = AlignedVec::try_from_slice(bytes).ok_or_else(|| OpError::no_memory(bytes.len()).at("graph"))?;
        Ok(copy.into())
    }

    /// The bytes in `range`; `None` if it reaches past the end.
    pub(crate) fn part(&self, range: Range<usize>) -> Option<Self> {
        self.get(range.clone())?;
        let start = self.range.start.checked_add(range.start)?;
        Some(Self { whole: self.whole.clone(), range: start..start.checked_add(range.len())? })
    }

    /// The bytes, for writing: copied first if they are shared. `None` if there is no memory for a copy.
    pub(crate) fn make_mut(&mut self) -> Option<&mut [u8]> {
        let whole = 0..self.whole.len();
        if self.range != whole || !matches!(Arc::get_mut(&mut self.whole), Some(Whole::Heap(_))) {
            let copy = AlignedVec::try_from_slice(self)?.into();
            self.evict();
            *self = copy;
        }
        match Arc::get_mut(&mut self.whole) {
            Some(Whole::Heap(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

impl Bytes {
    /// A copy aligned to eight bytes, for elements that are unaligned in a file; dropped soon. The file's pages are
    /// evicted meanwhile. `None` if there is no memory for it.
    pub(crate) fn realigned(&self) -> Option<Self> {
        let mut words = reserve::copies(0u64, self.len().div_ceil(8)).ok()?;
        if let Some(copy) = bytemuck::cast_slice_mut::<u64, u8>(&mut words).get_mut(..self.len()) {
            copy.copy_from_slice(self);
        }
        self.evict();
        Some(Self { whole: Arc::new(Whole::Words(words)), range: 0..self.len() })
    }

    /// Releases the memory of a file's pages that were copied or will hardly be read again.
    pub(crate) fn evict(&self) {
        if let Whole::File(mapping) = &*self.whole {
            mapping.evict(self.range.clone());
        }
    }

    /// The part of a mapped file that these bytes are; `None` for bytes on the heap.
    pub(crate) fn mapped(&self) -> Option<(&Mapping, Range<usize>)> {
        match &*self.whole {
            Whole::File(mapping) => Some((mapping, self.range.clone())),
            Whole::Heap(_) | Whole::Words(_) => None,
        }
    }

    /// Whether these are a part of a larger whole.
    pub(crate) fn is_part(&self) -> bool {
        self.range.len() < self.whole.len()
    }
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Words(words) => bytemuck::cast_slice(words),
            Self::File(mapping) => mapping,
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.whole.get(self.range.clone()).unwrap_or_default()
    }
}

impl From<AlignedVec<u8>> for Bytes {
    fn from(bytes: AlignedVec<u8>) -> Self {
        Self { range: 0..bytes.len(), whole: Arc::new(Whole::Heap(bytes)) }
    }
}

impl From<Mapping> for Bytes {
    fn from(mapping: Mapping) -> Self {
        Self { range: 0..mapping.len(), whole: Arc::new(Whole::File(mapping)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Bytes {
        AlignedVec::from_slice(&[1u8, 2, 3, 4, 5]).into()
    }

    #[test]
    fn parts_of_parts_stay_inside() {
        let all = numbers();
        let part = all.part(1..4).unwrap();
        assert_eq!(*part, [2, 3, 4]);
        assert_eq!(*part.part(2..3).unwrap(), [4]);
        assert!(part.part(2..4).is_none() && all.part(0..6).is_none());
    }

    #[test]
    fn shared_bytes_are_copied_before_they_are_written() {
        let mut all = numbers();
        let start = all.as_ptr();
        all.make_mut().unwrap()[0] = 9;
        assert_eq!(all.as_ptr(), start);
        let shared = all.clone();
        all.make_mut().unwrap()[0] = 7;
        assert_eq!((all[0], shared[0]), (7, 9));
        let mut part = shared.part(1..3).unwrap();
        drop(shared);
        part.make_mut().unwrap()[0] = 8;
        assert_eq!(*part, [8, 3]);
    }
}

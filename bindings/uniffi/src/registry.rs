//! Handles: numbers that stand for objects in foreign code.
//!
//! A handle is a key, never an address: one that is stale, or was never given out, finds nothing. No registry reuses a
//! handle within a process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::error::{Result, SkipstoneError};

/// Source of handles. 0 is never used, because uninitialized fields hold it.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The live objects of one kind. It does not keep them alive.
pub(crate) struct Registry<T> {
    what: &'static str,
    live: RwLock<BTreeMap<u64, Weak<T>>>,
}

impl<T> Registry<T> {
    /// A registry whose objects are called `what` in errors.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, live: RwLock::new(BTreeMap::new()) }
    }

    /// Makes an object that knows its handle.
    pub(crate) fn add(&self, make: impl FnOnce(u64) -> T) -> Arc<T> {
        let handle = NEXT.fetch_add(1, Ordering::Relaxed);
        let object = Arc::new(make(handle));
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::downgrade(&object));
        object
    }

    /// The object of `handle`.
    pub(crate) fn get(&self, handle: u64) -> Result<Arc<T>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(&handle).and_then(Weak::upgrade).ok_or_else(|| SkipstoneError::closed(self.what))
    }

    /// Forgets `handle`; unknown handles are ignored.
    pub(crate) fn remove(&self, handle: u64) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&handle);
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.live.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn handles_are_never_reused() {
        static ONES: Registry<u64> = Registry::new("one");
        static OTHERS: Registry<u64> = Registry::new("other");
        let mut given = BTreeSet::new();
        for _ in 0..100 {
            let (one, other) = (ONES.add(|handle| handle), OTHERS.add(|handle| handle));
            assert!(given.insert(*one) && given.insert(*other));
            assert_eq!(*ONES.get(*one).unwrap(), *one);
            assert!(ONES.get(*other).is_err(), "a handle of another registry");
            ONES.remove(*one);
            ONES.remove(*one);
            OTHERS.remove(*other);
            assert_eq!(ONES.get(*one).unwrap_err().code(), "closed");
        }
        assert!(ONES.get(0).is_err() && ONES.get(u64::MAX).is_err());
        assert_eq!(ONES.len(), 0);
    }

    #[test]
    fn a_closed_handle_finds_nothing() {
        static GONE: Registry<u64> = Registry::new("one");
        let handle = *GONE.add(|handle| handle);
        assert_eq!(GONE.get(handle).unwrap_err().to_string(), "the one is closed");
    }
}

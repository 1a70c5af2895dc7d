//! Lists whose length a file decides: no memory for one is an error, not the end of the process.
//!
//! Everything that grows with a model or a package grows by these functions. What an item takes by itself, such as its
//! name, is allocated as everywhere in Rust; a process whose allocator keeps memory aside for that
//! (`skipstone_kernels::spare`) says when that is in use, and from then on nothing grows.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::mem::needs_drop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The system has no memory for this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory(pub usize);

static LOW: AtomicBool = AtomicBool::new(false);

/// Whether the process lives on memory that was kept aside.
#[must_use]
pub fn is_low() -> bool {
    LOW.load(Relaxed)
}

/// For the allocator: from now on, whether the process lives on memory that was kept aside.
pub fn set_low(low: bool) {
    LOW.store(low, Relaxed);
}

/// An empty list with room for `len` items.
///
/// # Errors
/// [`NoMemory`], like all functions here.
pub fn empty<T>(len: usize) -> Result<Vec<T>, NoMemory> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| no_memory::<T>(len))?;
    may_grow::<T>(len)?;
    Ok(list)
}

#[cold]
fn no_memory<T>(len: usize) -> NoMemory {
    NoMemory(len.saturating_mul(size_of::<T>()))
}

/// Items that own memory may not become more while it is low.
fn may_grow<T>(len: usize) -> Result<(), NoMemory> {
    if needs_drop::<T>() && is_low() { Err(no_memory::<T>(len)) } else { Ok(()) }
}

/// A list of `len` equal items.
///
/// # Errors
/// Like [`empty`].
pub fn copies<T: Clone>(item: T, len: usize) -> Result<Vec<T>, NoMemory> {
    let mut list = empty(len)?;
    list.resize(len, item);
    Ok(list)
}

/// The items of an iterator: `collect`, for lists that may not fit memory.
///
/// # Errors
/// Like [`empty`].
pub fn list<T>(items: impl IntoIterator<Item = T>) -> Result<Vec<T>, NoMemory> {
    let items = items.into_iter();
    let mut list = empty(items.size_hint().0)?;
    for item in items {
        push(&mut list, item)?;
    }
    Ok(list)
}

/// The items of an iterator; `None` if one of them is missing, or if there is no memory.
pub fn all<T>(items: impl IntoIterator<Item = Option<T>>) -> Option<Vec<T>> {
    let items = items.into_iter();
    let mut list = empty(items.size_hint().0).ok()?;
    for item in items {
        push(&mut list, item?).ok()?;
    }
    Some(list)
}

/// Appends an item to a list.
///
/// # Errors
/// Like [`empty`].
pub fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), NoMemory> {
    if list.len() == list.capacity() {
        list.try_reserve(1).map_err(|_| no_memory::<T>(list.len() + 1))?;
    }
    may_grow::<T>(list.len() + 1)?;
    list.push(item);
    Ok(())
}

/// The items of an iterator up to the first error.
///
/// # Errors
/// That error; like [`empty`].
pub fn results<T, E: From<NoMemory>>(items: impl IntoIterator<Item = Result<T, E>>) -> Result<Vec<T>, E> {
    let items = items.into_iter();
    let mut list = empty(items.size_hint().0)?;
    for item in items {
        push(&mut list, item?)?;
    }
    Ok(list)
}

/// Appends the items of an iterator to a list.
///
/// # Errors
/// Like [`empty`].
pub fn extend<T>(list: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> Result<(), NoMemory> {
    items.into_iter().try_for_each(|item| push(list, item))
}

/// Adds an entry to a map; returns the value that it replaces.
///
/// # Errors
/// Like [`empty`].
pub fn insert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) -> Result<Option<V>, NoMemory> {
    map.try_reserve(1).map_err(|_| no_memory::<(K, V)>(map.len() + 1))?;
    may_grow::<(K, V)>(map.len() + 1)?;
    Ok(map.insert(key, value))
}

/// The entries of an iterator: `collect`, for maps that may not fit memory.
///
/// # Errors
/// Like [`empty`].
pub fn map<K: Eq + Hash, V>(entries: impl IntoIterator<Item = (K, V)>) -> Result<HashMap<K, V>, NoMemory> {
    let mut map = HashMap::new();
    for (key, value) in entries {
        insert(&mut map, key, value)?;
    }
    Ok(map)
}

/// Adds an item to a set; returns whether it is new.
///
/// # Errors
/// Like [`empty`].
pub fn add<T: Eq + Hash>(set: &mut HashSet<T>, item: T) -> Result<bool, NoMemory> {
    set.try_reserve(1).map_err(|_| no_memory::<T>(set.len() + 1))?;
    may_grow::<T>(set.len() + 1)?;
    Ok(set.insert(item))
}

/// The items of an iterator: `collect`, for sets that may not fit memory.
///
/// # Errors
/// Like [`empty`].
pub fn set<T: Eq + Hash>(items: impl IntoIterator<Item = T>) -> Result<HashSet<T>, NoMemory> {
    let mut set = HashSet::new();
    for item in items {
        add(&mut set, item)?;
    }
    Ok(set)
}

/// A copy of a text.
///
/// # Errors
/// Like [`empty`].
pub fn text(text: &str) -> Result<String, NoMemory> {
    may_grow::<String>(text.len())?;
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| NoMemory(text.len()))?;
    copy.push_str(text);
    Ok(copy)
}

/// What is made once in a process, when it is first needed.
///
/// # Errors
/// Those of `make`, which is then called again the next time.
pub fn once<T>(made: &'static OnceLock<T>, make: impl FnOnce() -> Result<T, NoMemory>) -> Result<&'static T, NoMemory> {
    match made.get() {
        Some(made) => Ok(made),
        None => make().map(|new| made.get_or_init(|| new)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_beyond_memory_is_an_error() {
        let refused = |_: NoMemory| true;
        assert!(empty::<u64>(usize::MAX / 8).is_err_and(refused));
        assert!(copies(1u8, usize::MAX / 2).is_err_and(refused));
        assert!(list(std::iter::repeat_n(1u16, usize::MAX / 4)).is_err_and(refused));
    }

    #[test]
    fn a_list_of_any_iterator_is_complete() {
        assert_eq!(list((0..100).filter(|at| at % 3 == 0)).unwrap(), (0..100).step_by(3).collect::<Vec<_>>());
        assert_eq!(copies(7, 3).unwrap(), [7, 7, 7]);
        assert_eq!(all([Some(1), Some(2)]), Some(vec![1, 2]));
        assert_eq!(all([Some(1), None]), None);
        assert_eq!(results([Ok(1), Ok::<_, NoMemory>(2)]).unwrap(), [1, 2]);
        assert_eq!(results([Ok(1), Err(NoMemory(3))]), Err(NoMemory(3)));
        assert_eq!(map([(1, 'a'), (2, 'b'), (1, 'c')]).unwrap(), HashMap::from([(1, 'c'), (2, 'b')]));
        assert_eq!(set([1, 2, 1]).unwrap(), HashSet::from([1, 2]));
    }

    #[test]
    fn what_could_not_be_made_is_made_the_next_time() {
        static MADE: OnceLock<u8> = OnceLock::new();
        assert_eq!(once(&MADE, || Err(NoMemory(1))), Err(NoMemory(1)));
        assert_eq!(once(&MADE, || Ok(7)), Ok(&7));
        assert_eq!(once(&MADE, || unreachable!("it is there")), Ok(&7));
    }
}

//! Lists and strings as long as the file says: no memory for one is an error, not the end of the process.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::invalid::{Invalid, Place, Rule};

/// An empty list with room for `len` items.
///
/// # Errors
/// [`Rule::Memory`].
pub(crate) fn empty<T>(len: usize) -> Result<Vec<T>, Invalid> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| no_memory::<T>(len))?;
    Ok(list)
}

/// A list of `len` equal items.
///
/// # Errors
/// [`Rule::Memory`].
pub(crate) fn copies<T: Clone>(item: T, len: usize) -> Result<Vec<T>, Invalid> {
    let mut list = empty(len)?;
    list.resize(len, item);
    Ok(list)
}

/// The items of an iterator: `collect`, for lists that may not fit memory.
///
/// # Errors
/// [`Rule::Memory`].
pub(crate) fn list<T>(items: impl IntoIterator<Item = T>) -> Result<Vec<T>, Invalid> {
    let items = items.into_iter();
    let mut list = empty(items.size_hint().0)?;
    for item in items {
        push(&mut list, item)?;
    }
    Ok(list)
}

/// The items of an iterator up to the first error.
///
/// # Errors
/// That error; [`Rule::Memory`].
pub(crate) fn results<T>(items: impl IntoIterator<Item = Result<T, Invalid>>) -> Result<Vec<T>, Invalid> {
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
/// [`Rule::Memory`].
pub(crate) fn extend<T>(list: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> Result<(), Invalid> {
    items.into_iter().try_for_each(|item| push(list, item))
}

/// Adds an entry to a map; returns the value that it replaces.
///
/// # Errors
/// [`Rule::Memory`].
pub(crate) fn insert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) -> Result<Option<V>, Invalid> {
    map.try_reserve(1).map_err(|_| no_memory::<(K, V)>(map.len() + 1))?;
    Ok(map.insert(key, value))
}

/// Adds an item to a set; returns whether it is new.
///
/// # Errors
/// [`Rule::Memory`].
pub(crate) fn add<T: Eq + Hash>(set: &mut HashSet<T>, item: T) -> Result<bool, Invalid> {
    set.try_reserve(1).map_err(|_| no_memory::<T>(set.len() + 1))?;
    Ok(set.insert(item))
}

/// Appends an item to a list.
///
/// # Errors
/// [`Rule::Memory`].
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), Invalid> {
    if list.len() == list.capacity() {
        list.try_reserve(1).map_err(|_| no_memory::<T>(list.len() + 1))?;
    }
    list.push(item);
    Ok(())
}

/// A copy of a text.
///
/// # Errors
/// [`Rule::Memory`].
pub(crate) fn text(text: &str) -> Result<String, Invalid> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| no_memory::<u8>(text.len()))?;
    copy.push_str(text);
    Ok(copy)
}

/// The error of a list of `len` items.
#[cold]
pub(crate) fn no_memory<T>(len: usize) -> Invalid {
    let bytes = len.saturating_mul(size_of::<T>());
    Invalid::new(Rule::Memory, Place::Model, format!("there is no memory for {bytes} bytes"))
}

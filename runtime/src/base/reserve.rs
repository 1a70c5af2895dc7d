//! Lists whose length a file decides: no memory for one is an error, not the end of the process.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use skipstone_kernels::arena::NoMemory;

/// An empty list with room for `len` items.
///
/// # Errors
/// [`NoMemory`], like all functions here; it becomes an operator's error or the model's.
pub(crate) fn empty<T>(len: usize) -> Result<Vec<T>, NoMemory> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| no_memory::<T>(len))?;
    Ok(list)
}

#[cold]
fn no_memory<T>(len: usize) -> NoMemory {
    NoMemory(len.saturating_mul(size_of::<T>()))
}

/// A list of `len` equal items.
///
/// # Errors
/// Like [`empty`].
pub(crate) fn copies<T: Clone>(item: T, len: usize) -> Result<Vec<T>, NoMemory> {
    let mut list = empty(len)?;
    list.resize(len, item);
    Ok(list)
}

/// The items of an iterator: `collect`, for lists that may not fit memory.
///
/// # Errors
/// Like [`empty`].
pub(crate) fn list<T>(items: impl IntoIterator<Item = T>) -> Result<Vec<T>, NoMemory> {
    let items = items.into_iter();
    let mut list = empty(items.size_hint().0)?;
    for item in items {
        push(&mut list, item)?;
    }
    Ok(list)
}

/// The items of an iterator; `None` if one of them is missing, or if there is no memory.
pub(crate) fn all<T>(items: impl IntoIterator<Item = Option<T>>) -> Option<Vec<T>> {
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
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), NoMemory> {
    if list.len() == list.capacity() {
        list.try_reserve(1).map_err(|_| no_memory::<T>(list.len() + 1))?;
    }
    list.push(item);
    Ok(())
}

/// The items of an iterator up to the first error.
///
/// # Errors
/// That error; like [`empty`].
pub(crate) fn results<T, E: From<NoMemory>>(items: impl IntoIterator<Item = Result<T, E>>) -> Result<Vec<T>, E> {
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
pub(crate) fn extend<T>(list: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> Result<(), NoMemory> {
    items.into_iter().try_for_each(|item| push(list, item))
}

/// Adds an entry to a map; returns the value that it replaces.
///
/// # Errors
/// Like [`empty`].
pub(crate) fn insert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) -> Result<Option<V>, NoMemory> {
    map.try_reserve(1).map_err(|_| no_memory::<(K, V)>(map.len() + 1))?;
    Ok(map.insert(key, value))
}

/// The entries of an iterator: `collect`, for maps that may not fit memory.
///
/// # Errors
/// Like [`empty`].
pub(crate) fn map<K: Eq + Hash, V>(entries: impl IntoIterator<Item = (K, V)>) -> Result<HashMap<K, V>, NoMemory> {
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
pub(crate) fn add<T: Eq + Hash>(set: &mut HashSet<T>, item: T) -> Result<bool, NoMemory> {
    set.try_reserve(1).map_err(|_| no_memory::<T>(set.len() + 1))?;
    Ok(set.insert(item))
}

/// The items of an iterator: `collect`, for sets that may not fit memory.
///
/// # Errors
/// Like [`empty`].
pub(crate) fn set<T: Eq + Hash>(items: impl IntoIterator<Item = T>) -> Result<HashSet<T>, NoMemory> {
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
pub(crate) fn text(text: &str) -> Result<String, NoMemory> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| NoMemory(text.len()))?;
    copy.push_str(text);
    Ok(copy)
}

/// Deserializes a list that may not fit memory, for any number of owners.
///
/// # Errors
/// The deserializer's, also if there is no memory.
pub(crate) fn deserialize<'de, D, T>(from: D) -> Result<Arc<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserialize_list(from).map(Arc::new)
}

/// Deserializes a list that may not fit memory.
///
/// # Errors
/// The deserializer's, also if there is no memory.
pub(crate) fn deserialize_list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Items<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                push(&mut list, item).map_err(|_| A::Error::custom("no memory"))?;
            }
            Ok(list)
        }
    }
    from.deserialize_seq(Items(PhantomData))
}

/// Most bytes of a text in a package, such as a name.
const TEXT: usize = 1 << 16;

/// Deserializes a text.
///
/// # Errors
/// The deserializer's, also if it is very long, or if there is no memory.
pub(crate) fn deserialize_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: Error>(self, held: &str) -> Result<String, E> {
            if held.len() > TEXT {
                return Err(E::custom("a text is too long"));
            }
            text(held).map_err(|_| E::custom("no memory"))
        }
    }
    from.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::OpError;

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
        assert_eq!(results([Ok(1), Ok::<_, OpError>(2)]).unwrap(), [1, 2]);
        assert!(results([Ok(1), Err(OpError::Operand(3))]).is_err());
        assert_eq!(map([(1, 'a'), (2, 'b'), (1, 'c')]).unwrap(), HashMap::from([(1, 'c'), (2, 'b')]));
        assert_eq!(set([1, 2, 1]).unwrap(), HashSet::from([1, 2]));
    }
}

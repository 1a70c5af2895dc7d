//! Lists whose length a file decides: no memory for one is an error, not the end of the process.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::error::OpError;

/// An empty list with room for `len` items.
///
/// # Errors
/// [`OpError::NoMemory`].
pub(crate) fn empty<T>(len: usize) -> Result<Vec<T>, OpError> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| OpError::no_memory(len.saturating_mul(size_of::<T>())))?;
    Ok(list)
}

/// A list of `len` equal items.
///
/// # Errors
/// Like [`empty`].
pub(crate) fn copies<T: Clone>(item: T, len: usize) -> Result<Vec<T>, OpError> {
    let mut list = empty(len)?;
    list.resize(len, item);
    Ok(list)
}

/// The items of an iterator: `collect`, for lists that may not fit memory.
///
/// # Errors
/// Like [`empty`].
pub(crate) fn list<T>(items: impl IntoIterator<Item = T>) -> Result<Vec<T>, OpError> {
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
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), OpError> {
    if list.len() == list.capacity() {
        list.try_reserve(1).map_err(|_| OpError::no_memory((list.len() + 1).saturating_mul(size_of::<T>())))?;
    }
    list.push(item);
    Ok(())
}

/// A copy of a text.
///
/// # Errors
/// Like [`empty`].
pub(crate) fn text(text: &str) -> Result<String, OpError> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| OpError::no_memory(text.len()))?;
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
    struct Items<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                push(&mut list, item).map_err(A::Error::custom)?;
            }
            Ok(list)
        }
    }
    from.deserialize_seq(Items(PhantomData)).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_beyond_memory_is_an_error() {
        let refused = |error: OpError| matches!(error, OpError::NoMemory(_));
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
    }
}

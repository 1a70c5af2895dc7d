//! Lists and texts of a package that may not fit memory; for all others, the functions of `skipstone_reserve`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
pub(crate) use skipstone_reserve::*;

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

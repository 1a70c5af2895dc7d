//! Lists and strings as long as the file says: no memory for one is an error, not the end of the process.

use crate::invalid::{Invalid, Place, Rule};

/// Appends an item to a list.
///
/// # Errors
/// [`Rule::Memory`].
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), Invalid> {
    if list.len() == list.capacity() {
        list.try_reserve(1).map_err(|_| no_memory((list.len() + 1).saturating_mul(size_of::<T>())))?;
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
    copy.try_reserve_exact(text.len()).map_err(|_| no_memory(text.len()))?;
    copy.push_str(text);
    Ok(copy)
}

fn no_memory(bytes: usize) -> Invalid {
    Invalid::new(Rule::Memory, Place::Model, format!("there is no memory for {bytes} bytes"))
}

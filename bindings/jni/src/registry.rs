//! Handles: the numbers that stand for objects in Kotlin.
//!
//! A handle is a key, never an address: one that is stale, or was never given out, or belongs to an object of another
//! kind, finds nothing. No handle is reused within a process.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use skipstone_ffi::{Classifier, Model, Result, Session, SkipstoneError};

use crate::hardware::HardwarePixels;

/// Source of handles. 0 is never used, because uninitialized fields hold it.
static NEXT: AtomicI64 = AtomicI64::new(1);

/// The objects that Kotlin holds, by ascending handles. They live until they are removed, and until the calls that use them
/// return. An app has few: a list takes less code than a map.
static OBJECTS: RwLock<Vec<(i64, Object)>> = RwLock::new(Vec::new());

/// An object that Kotlin holds.
#[derive(Clone)]
pub(crate) enum Object {
    Model(Arc<Model>),
    Classifier(Arc<Classifier>),
    Session(Arc<Session>),
    Pixels(Arc<HardwarePixels>),
}

/// Keeps an object; returns its handle.
pub(crate) fn add(object: Object) -> i64 {
    let mut objects = OBJECTS.write().unwrap_or_else(PoisonError::into_inner);
    // Under the lock, so that the list stays in order.
    let handle = NEXT.fetch_add(1, Ordering::Relaxed);
    objects.push((handle, object));
    handle
}

/// Takes the object out, if it is there: the handle finds nothing from now on.
pub(crate) fn remove(handle: i64) -> Option<Object> {
    let mut objects = OBJECTS.write().unwrap_or_else(PoisonError::into_inner);
    let at = position(&objects, handle)?;
    Some(objects.remove(at).1)
}

/// The object of `handle`.
pub(crate) fn get(handle: i64) -> Option<Object> {
    let objects = OBJECTS.read().unwrap_or_else(PoisonError::into_inner);
    objects.get(position(&objects, handle)?).map(|(_, object)| object.clone())
}

/// Where the object of `handle` is in the list.
fn position(objects: &[(i64, Object)], handle: i64) -> Option<usize> {
    objects.binary_search_by_key(&handle, |(handle, _)| *handle).ok()
}

/// The model of `handle`.
///
/// # Errors
/// `Closed`.
pub(crate) fn model(handle: i64) -> Result<Arc<Model>> {
    match get(handle) {
        Some(Object::Model(model)) => Ok(model),
        _ => Err(closed("model")),
    }
}

/// The classifier of `handle`.
///
/// # Errors
/// `Closed`.
pub(crate) fn classifier(handle: i64) -> Result<Arc<Classifier>> {
    match get(handle) {
        Some(Object::Classifier(classifier)) => Ok(classifier),
        _ => Err(closed("classifier")),
    }
}

/// The session of `handle`.
///
/// # Errors
/// `Closed`.
pub(crate) fn session(handle: i64) -> Result<Arc<Session>> {
    match get(handle) {
        Some(Object::Session(session)) => Ok(session),
        _ => Err(closed("session")),
    }
}

/// The error for a handle that finds no object of the expected kind.
pub(crate) fn closed(what: &str) -> SkipstoneError {
    SkipstoneError::Closed { code: "closed".into(), message: format!("the {what} is closed") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::samples::model as sample;

    #[test]
    fn handles_are_never_reused() {
        let mut given = BTreeSet::new();
        for _ in 0..100 {
            let handle = add(Object::Model(sample()));
            assert!(given.insert(handle));
            assert!(model(handle).is_ok());
            assert!(remove(handle).is_some());
            assert!(remove(handle).is_none());
            assert_eq!(model(handle).map(drop).unwrap_err().to_string(), "the model is closed");
        }
        assert!([0, -1, i64::MAX, i64::MIN].into_iter().all(|handle| get(handle).is_none()));
    }

    #[test]
    fn a_handle_finds_only_objects_of_its_kind() {
        let opened = sample();
        let handles = [
            add(Object::Model(opened.clone())),
            add(Object::Classifier(Classifier::new(opened.clone()).unwrap())),
            add(Object::Session(Session::new(opened).unwrap())),
        ];
        let found = handles.map(|at| [model(at).is_ok(), classifier(at).is_ok(), session(at).is_ok()]);
        assert_eq!(found, [[true, false, false], [false, true, false], [false, false, true]]);
        assert_eq!(session(handles[0]).map(drop).unwrap_err().code(), "closed");
        handles.into_iter().for_each(|handle| drop(remove(handle)));
    }

    #[test]
    fn an_object_lives_until_the_calls_that_use_it_return() {
        let handle = add(Object::Model(sample()));
        let used = model(handle).unwrap();
        drop(remove(handle));
        assert_eq!(used.info().name, "sample");
    }
}

//! Notes and warnings of a command. They are printed to stderr when it succeeds, so that an error stays one line.

use std::sync::{Mutex, PoisonError};

static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Stores a note until the command is done.
pub fn note(text: String) {
    let mut notes = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
    if !notes.contains(&text) {
        notes.push(text);
    }
}

/// Prints the notes.
pub fn print() {
    let notes = std::mem::take(&mut *NOTES.lock().unwrap_or_else(PoisonError::into_inner));
    notes.iter().for_each(|text| eprintln!("{text}"));
}

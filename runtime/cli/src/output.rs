//! Output to stdout and stderr.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Writes `text` to stdout unchanged.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::new("io", format!("stdout: {error}")),
    })
}

/// `value` as one JSON object on one line.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::new("internal", error.to_string()))?;
    Ok(text + "\n")
}

/// `text` with control characters replaced by spaces. Names come from untrusted files and must
/// not break lines or send escape sequences to the terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{9b}c\u{0}"), "a b [31m c ");
        assert_eq!(printable("übung"), "übung");
    }
}

//! Text from files, made safe for a terminal.

use std::borrow::Cow;

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

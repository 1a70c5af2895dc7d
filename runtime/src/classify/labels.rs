//! Names of the classes, one per line, in the order of the model's output.
//!
//! Programs compare labels; a model may also have localized display names, in metadata such as `skipstone.labels.de`.

use std::collections::BTreeMap;

use crate::error::{Error, Fault, Result};

/// Class names by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<String>);

impl Labels {
    /// Reads names, one per line: white space around a name, a leading byte-order mark and empty lines at the end are
    /// dropped. An empty line in between keeps its index, so that later classes keep theirs.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
        if text.is_empty() {
            return Self::default();
        }
        // Before 2001, a Macintosh ended its lines with a carriage return alone, and some programs still do.
        let end = if text.contains('\n') { '\n' } else { '\r' };
        Self(text.split(end).map(|line| line.trim().to_owned()).collect())
    }

    /// Refuses names that are more or fewer than the classes; no names are as good as all.
    ///
    /// # Errors
    /// `fault`, with both counts.
    pub(super) fn check(&self, classes: usize, fault: Fault) -> Result<()> {
        if self.is_empty() || self.len() == classes {
            return Ok(());
        }
        let message = format!(
            "there are {} labels, but the model has {classes} classes: name each, in the order of its output",
            self.len()
        );
        Err(Error::Invalid { fault, message })
    }

    /// The display names for `locale` (`pt-BR`, or `pt_BR`), or otherwise for its language (`pt`).
    pub(super) fn localized(metadata: &BTreeMap<String, String>, locale: &str) -> Option<Self> {
        let locale = locale.replace('_', "-");
        let language = locale.split('-').next().unwrap_or_default();
        let named = |locale: &str| {
            metadata.iter().find(|(key, _)| {
                key.strip_prefix("skipstone.labels.").is_some_and(|own| own.eq_ignore_ascii_case(locale))
            })
        };
        named(&locale).or_else(|| named(language)).map(|(_, text)| Self::parse(text))
    }

    /// The name of class `index`; `class 7` if the list has none.
    #[must_use]
    pub fn name(&self, index: usize) -> String {
        match self.0.get(index) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("class {index}"),
        }
    }

    /// The class called `name`: an exact match first, otherwise one that differs only in case.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        let exact = self.0.iter().position(|label| label == name);
        exact.or_else(|| self.0.iter().position(|label| lower_case(label).eq(lower_case(name))))
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn lower_case(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_split_at_any_line_ending() {
        let labels = Labels::parse("\u{feff}cat\r\n  dog \n\nübung\n\n");
        assert_eq!(labels.len(), 4);
        assert_eq!(labels.name(0), "cat");
        assert_eq!(labels.name(1), "dog");
        assert_eq!(labels.name(2), "class 2");
        assert_eq!(labels.name(3), "übung");
        assert_eq!(labels.name(4), "class 4");
    }

    /// Regression: a file with carriage returns alone was the name of one class.
    #[test]
    fn a_carriage_return_alone_ends_a_line() {
        assert_eq!(Labels::parse("cat\rdog\r\rbird\r"), Labels::parse("cat\ndog\n\nbird"));
        assert_eq!(Labels::parse("cat\r\ndog\r\n"), Labels::parse("cat\ndog"));
        assert!(Labels::parse("\r\r").is_empty());
    }

    #[test]
    fn blank_text_has_no_labels() {
        assert!(Labels::parse("").is_empty());
        assert!(Labels::parse("\n \n").is_empty());
        assert_eq!(Labels::default().name(3), "class 3");
    }

    #[test]
    fn a_locale_finds_its_names_or_its_languages() {
        let pairs = [("skipstone.labels", "cat"), ("skipstone.labels.de", "Katze"), ("skipstone.labels.pt-BR", "gato")];
        let metadata = pairs.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        let name = |locale| Labels::localized(&metadata, locale).map(|labels| labels.name(0));
        assert_eq!(name("de").as_deref(), Some("Katze"));
        assert_eq!(name("de_CH").as_deref(), Some("Katze"));
        assert_eq!(name("DE-ch").as_deref(), Some("Katze"));
        assert_eq!(name("pt-br").as_deref(), Some("gato"));
        assert_eq!(name("pt"), None);
        assert_eq!(name(""), None);
    }

    #[test]
    fn a_name_finds_its_index() {
        let labels = Labels::parse("Cat\ncat\nDog");
        assert_eq!(labels.index_of("cat"), Some(1));
        assert_eq!(labels.index_of("dog"), Some(2));
        assert_eq!(labels.index_of("bird"), None);
    }
}

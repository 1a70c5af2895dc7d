//! Which classes are reported: those above the threshold that the caller allows and does not deny.

use super::labels::Labels;
use super::scores::Scored;
use super::settings::Settings;
use crate::error::{Error, Fault, InputFault, Result};

/// The conditions for reporting a class.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// The lowest score.
    threshold: Option<f32>,
    /// Sorted indices of the only classes that may be reported, or of those that may not.
    listed: Option<(Listed, Vec<usize>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Allowed,
    Denied,
}

impl Filter {
    /// The filter of `settings`, with class names from `labels`.
    ///
    /// # Errors
    /// `input.threshold` for a threshold that is not a number; `input.label` for a name that no class has, and if both
    /// lists are given.
    pub(super) fn new(settings: &Settings, labels: &Labels) -> Result<Self> {
        if settings.threshold.is_some_and(f32::is_nan) {
            return Err(Error::Invalid {
                fault: Fault::Input(InputFault::Threshold),
                message: "a score threshold is not a number".into(),
            });
        }
        let refused = |message: String| Error::Invalid { fault: Fault::Input(InputFault::Label), message };
        let index = |name: &String| {
            let unknown = || refused(format!("no class is called '{name}'"));
            labels.index_of(name).or_else(|| name.strip_prefix("class ")?.parse().ok()).ok_or_else(unknown)
        };
        let (listed, names) = match (settings.allow.as_slice(), settings.deny.as_slice()) {
            ([], []) => return Ok(Self { threshold: settings.threshold, listed: None }),
            (names, []) => (Listed::Allowed, names),
            ([], names) => (Listed::Denied, names),
            _ => return Err(refused("classes are either allowed or denied, not both".into())),
        };
        let mut indices = names.iter().map(index).collect::<Result<Vec<_>>>()?;
        indices.sort_unstable();
        Ok(Self { threshold: settings.threshold, listed: Some((listed, indices)) })
    }

    /// The classes that may be reported, of all `scores`.
    pub(super) fn apply(&self, scores: &[f32]) -> Vec<Scored> {
        let named = |it: &Scored| {
            self.threshold.is_none_or(|least| it.score >= least)
                && self.listed.as_ref().is_none_or(|(listed, indices)| {
                    indices.binary_search(&it.index).is_ok() == (*listed == Listed::Allowed)
                })
        };
        scores.iter().enumerate().map(|(index, &score)| Scored { index, score }).filter(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 5] = [0.1, 0.4, f32::NAN, 0.3, 0.4];

    fn settings(threshold: Option<f32>, allow: &[&str], deny: &[&str]) -> Settings {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        Settings { threshold, allow: names(allow), deny: names(deny), ..Settings::default() }
    }

    fn named(settings: &Settings) -> Vec<usize> {
        let labels = Labels::parse("ant\nbee\ncat\ndog");
        Filter::new(settings, &labels).unwrap().apply(&SCORES).iter().map(|it| it.index).collect()
    }

    #[test]
    fn every_class_is_named_by_default() {
        assert_eq!(named(&settings(None, &[], &[])), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_threshold_keeps_scores_at_or_above_it() {
        assert_eq!(named(&settings(Some(0.3), &[], &[])), [1, 3, 4]);
        assert_eq!(named(&settings(Some(0.41), &[], &[])), [0; 0]);
        assert_eq!(named(&settings(Some(f32::NEG_INFINITY), &[], &[])), [0, 1, 3, 4]);
    }

    #[test]
    fn lists_name_classes_by_label_or_number() {
        assert_eq!(named(&settings(None, &["dog", "Ant", "dog"], &[])), [0, 3]);
        assert_eq!(named(&settings(None, &[], &["dog", "class 4"])), [0, 1, 2]);
        assert_eq!(named(&settings(Some(0.2), &["class 0", "bee"], &[])), [1]);
        assert_eq!(named(&settings(None, &["class 99"], &[])), [0; 0]);
    }

    #[test]
    fn impossible_filters_are_refused() {
        let code = |settings| Filter::new(&settings, &Labels::parse("ant")).unwrap_err().code();
        assert_eq!(code(settings(None, &["wolf"], &[])), "input.label");
        assert_eq!(code(settings(None, &[], &["class one"])), "input.label");
        assert_eq!(code(settings(None, &["ant"], &["ant"])), "input.label");
        assert_eq!(code(settings(Some(f32::NAN), &[], &[])), "input.threshold");
    }
}

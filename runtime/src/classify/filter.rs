//! Which classes are reported: those above the threshold that the caller allows and does not deny.

use std::collections::BTreeMap;

use super::labels::Labels;
use super::scores::Scored;
use super::settings::{Settings, parse_numbers};
use crate::error::{Error, Fault, InputFault, ModelFault, Result};

/// The metadata's key for thresholds.
const KEY: &str = "skipstone.threshold";

/// The conditions for reporting a class.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// The lowest score, for all classes or for each; empty if there is none.
    thresholds: Vec<f32>,
    /// Sorted indices of the only classes that may be reported, or of those that may not.
    listed: Option<(Listed, Vec<usize>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Allowed,
    Denied,
}

impl Filter {
    /// The filter of `settings` and the metadata, with class names from `labels`.
    ///
    /// # Errors
    /// `input.threshold` for a threshold that is not a number, and for other thresholds than one for all or one for each
    /// of the `classes`; `model.metadata` for such thresholds there; `input.label` for a name that no class has, and if
    /// both lists are given.
    pub(super) fn new(
        settings: &Settings,
        metadata: &BTreeMap<String, String>,
        labels: &Labels,
        classes: usize,
    ) -> Result<Self> {
        let (thresholds, fault) = match (&settings.threshold, metadata.get(KEY)) {
            (Some(own), _) => (own.clone(), Fault::Input(InputFault::Threshold)),
            (None, Some(text)) => (parse_numbers(KEY, text)?, Fault::Model(ModelFault::Metadata)),
            (None, None) => (Vec::new(), Fault::Input(InputFault::Threshold)),
        };
        if ![0, 1, classes].contains(&thresholds.len()) || thresholds.iter().any(|it| it.is_nan()) {
            let message = format!("a score threshold is a number, one for all or one for each of {classes} classes");
            return Err(Error::Invalid { fault, message });
        }
        let refused = |message: String| Error::Invalid { fault: Fault::Input(InputFault::Label), message };
        let index = |name: &String| {
            let unknown = || refused(format!("no class is called '{name}'"));
            labels.index_of(name).or_else(|| name.strip_prefix("class ")?.parse().ok()).ok_or_else(unknown)
        };
        let (listed, names) = match (settings.allow.as_slice(), settings.deny.as_slice()) {
            ([], []) => return Ok(Self { thresholds, listed: None }),
            (names, []) => (Listed::Allowed, names),
            ([], names) => (Listed::Denied, names),
            _ => return Err(refused("classes are either allowed or denied, not both".into())),
        };
        let mut indices = names.iter().map(index).collect::<Result<Vec<_>>>()?;
        indices.sort_unstable();
        Ok(Self { thresholds, listed: Some((listed, indices)) })
    }

    /// The classes that may be reported, of all `scores`.
    pub(super) fn apply(&self, scores: &[f32]) -> Vec<Scored> {
        let named = |it: &Scored| {
            self.thresholds.get(it.index).or(self.thresholds.first()).is_none_or(|&least| it.score >= least)
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
        let threshold = threshold.map(|threshold| vec![threshold]);
        Settings { threshold, allow: names(allow), deny: names(deny), ..Settings::default() }
    }

    fn named(settings: &Settings) -> Vec<usize> {
        told(settings, &BTreeMap::new()).unwrap()
    }

    fn told(settings: &Settings, metadata: &BTreeMap<String, String>) -> Result<Vec<usize>> {
        let labels = Labels::parse("ant\nbee\ncat\ndog");
        let filter = Filter::new(settings, metadata, &labels, SCORES.len())?;
        Ok(filter.apply(&SCORES).iter().map(|it| it.index).collect())
    }

    #[test]
    fn every_class_may_have_a_threshold() {
        let own = |list: &[f32]| Settings { threshold: Some(list.to_vec()), ..Settings::default() };
        let metadata = |text: &str| BTreeMap::from([(KEY.to_owned(), text.to_owned())]);
        let each = [0.2, 0.4, 0.0, 0.3, 0.5];
        assert_eq!(told(&own(&each), &metadata("x")).unwrap(), [1, 3]);
        assert_eq!(told(&Settings::default(), &metadata("0.2, 0.4, 0, 0.3, 0.5")).unwrap(), [1, 3]);
        assert_eq!(told(&Settings::default(), &metadata("0.4")).unwrap(), [1, 4]);
        assert_eq!(told(&own(&[0.1, 0.2]), &BTreeMap::new()).unwrap_err().code(), "input.threshold");
        for text in ["0.1,0.2", "low", ""] {
            assert_eq!(told(&Settings::default(), &metadata(text)).unwrap_err().code(), "model.metadata", "{text}");
        }
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
        let code = |settings| Filter::new(&settings, &BTreeMap::new(), &Labels::parse("ant"), 1).unwrap_err().code();
        assert_eq!(code(settings(None, &["wolf"], &[])), "input.label");
        assert_eq!(code(settings(None, &[], &["class one"])), "input.label");
        assert_eq!(code(settings(None, &["ant"], &["ant"])), "input.label");
        assert_eq!(code(settings(Some(f32::NAN), &[], &[])), "input.threshold");
    }
}

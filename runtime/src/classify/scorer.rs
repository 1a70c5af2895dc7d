//! From a model's output to named, ranked classes: the half of classification that images and texts share.

#[cfg(any(feature = "rules", test))]
use std::sync::Arc;

use super::filter::Filter;
#[cfg(any(feature = "rules", test))]
use super::head::Activation;
use super::head::Head;
use super::labels::Labels;
#[cfg(any(feature = "rules", test))]
use super::rule::Rule;
use super::scores::{Scored, best};
use super::settings::Settings;
use super::temperature::Temperature;
use crate::error::{Error, Fault, InputFault, ModelFault, Result};
use crate::model::Model;
use crate::plan::Port;
use crate::session::Session;
use crate::tensor::{DType, Shape};

/// A class that an image or a text may belong to.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Index of the class in the model's output.
    pub index: usize,
    /// Its name.
    pub label: String,
    /// Its score; the [`Head`] says what it means.
    pub score: f32,
}

/// Makes scores of a model's output, and names and ranks them.
pub struct Scorer {
    labels: Labels,
    display: Option<Labels>,
    head: Head,
    temperature: Temperature,
    #[cfg(any(feature = "rules", test))]
    rule: Option<Arc<Rule>>,
    filter: Filter,
    /// Index of the output with the scores.
    output: usize,
    classes: usize,
}

impl Scorer {
    /// The scorer of `model`, whose first output of floats holds its classes: an integer before it is the label that
    /// some converters add. What `settings` and `labels` leave open is read from the metadata.
    ///
    /// # Errors
    /// As for [`Head::of`]; an invalid threshold, temperature or class name (`input.threshold`, `input.label`,
    /// `model.metadata`); `labels` (`input.label`), or those of the metadata (`model.metadata`), that are more or fewer
    /// than the classes; a rule that does not fit the model's output (`input.table`).
    pub fn new(model: &Model, settings: &Settings, labels: Option<Labels>) -> Result<Self> {
        let metadata = &model.info().metadata;
        let output = scores_output(model.outputs());
        let shape = model.outputs().get(output).map(|port| &port.fact.shape);
        let outputs = shape.map_or(0, Shape::elements);
        #[cfg(any(feature = "rules", test))]
        let (head, classes, decided) = match settings.rule.as_deref() {
            Some(rule) => {
                let head = match rule {
                    Rule::Cosine(_) => Head::of_cosines(metadata, settings.activation)?,
                    _ => Head::of(model, settings.activation)?,
                };
                rule.check(outputs, &head)?;
                (head, rule.classes(), true)
            }
            None => (Head::of(model, settings.activation)?, outputs, false),
        };
        #[cfg(not(any(feature = "rules", test)))]
        let (head, classes, decided) = (Head::of(model, settings.activation)?, outputs, false);
        let display = settings.locale.as_deref().and_then(|locale| Labels::localized(metadata, locale));
        let at_fault =
            if labels.is_some() { Fault::Input(InputFault::Label) } else { Fault::Model(ModelFault::Metadata) };
        let labels = labels.or_else(|| metadata.get("skipstone.labels").map(|text| Labels::parse(text)));
        let labels = labels.unwrap_or_default();
        // Of a map, such as a detector's, the labels name only one axis.
        if decided || shape.is_some_and(|shape| shape.iter().all(|&dim| dim == 1 || dim == classes)) {
            labels.check(classes, at_fault)?;
            display.iter().try_for_each(|names| names.check(classes, Fault::Model(ModelFault::Metadata)))?;
        }
        Ok(Self {
            temperature: Temperature::of(settings, metadata, &head)?,
            head,
            #[cfg(any(feature = "rules", test))]
            rule: settings.rule.clone(),
            filter: Filter::new(settings, metadata, &labels, classes)?,
            labels,
            display,
            output,
            classes,
        })
    }

    /// Names of the classes; empty if the model has none.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Names of the classes in the requested language; the labels if the model has no others.
    #[must_use]
    pub fn display_names(&self) -> &Labels {
        self.display.as_ref().unwrap_or(&self.labels)
    }

    /// What the scores mean, and where that was specified.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What the scores are, and where that was specified: such as `softmax, as requested, temperature 2`.
    #[must_use]
    pub fn meaning(&self) -> String {
        let Temperature(temperature) = self.temperature;
        let tempered = if temperature == 1.0 { String::new() } else { format!(", temperature {temperature}") };
        #[cfg(any(feature = "rules", test))]
        match self.rule.as_deref() {
            None => {}
            Some(rule @ Rule::Hamming(_)) => return rule.to_string(),
            Some(rule) if self.head.activation == Activation::None => return rule.to_string(),
            Some(rule) => return format!("{rule}; {}{tempered}", self.head),
        }
        format!("{}{tempered}", self.head)
    }

    /// Whether the scores are on a scale of their own, not shares of one.
    #[cfg(any(feature = "rules", test))]
    #[must_use]
    pub fn has_own_scale(&self) -> bool {
        match self.rule.as_deref() {
            None => false,
            Some(Rule::Cosine(_)) => self.head.activation == Activation::None,
            Some(Rule::Frechet(_) | Rule::Hamming(_)) => true,
        }
    }

    /// Number of scores.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The score of every class after a run of `session`, as described by the [`head`](Self::head).
    ///
    /// # Errors
    /// `model.output` if no output holds floats, or it is empty, or if a score is not a number.
    pub fn scores(&self, session: &Session) -> Result<Vec<f32>> {
        let output = session.output(self.output).ok_or_else(|| no_scores("the model has no output"))?;
        let scores = output.to_floats().filter(|scores| !scores.is_empty());
        let mut scores = scores.ok_or_else(|| no_scores(&format!("the output is {}", output.fact())))?;
        #[cfg(any(feature = "rules", test))]
        if let Some(rule) = &self.rule {
            // A rule may turn NaN into a number.
            all_numbers(&scores)?;
            scores = rule.apply(&self.head, self.temperature, scores);
            all_numbers(&scores)?;
            return Ok(scores);
        }
        self.temperature.apply(&self.head, &mut scores);
        all_numbers(&scores)?;
        Ok(scores)
    }

    /// The `k` best classes, best first, among those that may be reported: above the threshold, allowed and not denied.
    #[must_use]
    pub fn rank(&self, scores: &[f32], k: usize) -> Vec<Prediction> {
        let named = |s: Scored| Prediction { index: s.index, label: self.labels.name(s.index), score: s.score };
        best(self.filter.apply(scores), k).into_iter().map(named).collect()
    }
}

/// The index of the first output of floats; 0 if there is none.
pub(super) fn scores_output(outputs: &[Port]) -> usize {
    let float = |port: &Port| matches!(port.fact.dtype, DType::F32 | DType::F16 | DType::F64);
    outputs.iter().position(float).unwrap_or(0)
}

fn no_scores(what: &str) -> Error {
    Error::Invalid {
        fault: Fault::Model(ModelFault::Output),
        message: format!("{what}; class scores are expected there, as floats"),
    }
}

fn all_numbers(scores: &[f32]) -> Result<()> {
    if !scores.iter().any(|score| score.is_nan()) {
        return Ok(());
    }
    Err(Error::Invalid {
        fault: Fault::Model(ModelFault::Output),
        message: "the scores are not numbers (NaN): check the model's weights, and the mean and std of images".into(),
    })
}

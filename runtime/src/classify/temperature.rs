//! Temperature: how sure a model is of its answers, without changing their order.
//!
//! Networks are too sure of themselves. C. Guo et al., ["On calibration of modern neural
//! networks"](https://arxiv.org/abs/1706.04599), divide the logits by a temperature that was fitted to held-out data:
//! above 1 the probabilities are closer to each other, below 1 farther apart.

use std::collections::BTreeMap;

use super::head::{Activation, Head};
use super::settings::{Settings, parse_number, refused};
use crate::error::Result;

/// The metadata's key.
const KEY: &str = "skipstone.temperature";

/// What logits are divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Temperature(pub f32);

impl Temperature {
    /// The caller's temperature, or the metadata's, or 1.
    ///
    /// # Errors
    /// `model.metadata` for a temperature that is not a positive number, and for one without probabilities.
    pub fn of(settings: &Settings, metadata: &BTreeMap<String, String>, head: &Head) -> Result<Self> {
        let number = |text: &String| parse_number(text.trim()).unwrap_or(0.0);
        let Some(told) = settings.temperature.or_else(|| metadata.get(KEY).map(number)) else { return Ok(Self(1.0)) };
        if !(told.is_normal() && told > 0.0) {
            return Err(refused(KEY, "is not a number above 0"));
        }
        if head.activation == Activation::None {
            return Err(refused(KEY, "needs probabilities: the activation softmax or sigmoid"));
        }
        Ok(Self(told))
    }

    /// Turns the model's output into scores, in place: as the head does, but of divided logits.
    pub fn apply(self, head: &Head, values: &mut [f32]) {
        if self.0 == 1.0 {
            return head.apply(values);
        }
        // Of probabilities, logits are known up to a constant, which a softmax does not change.
        let are_probabilities = head.leaves(values);
        let logit = |value: f32| match (are_probabilities, head.activation) {
            (true, Activation::Sigmoid) => (value / (1.0 - value)).ln(),
            (true, _) => value.ln(),
            (false, _) => value,
        };
        values.iter_mut().for_each(|value| *value = logit(*value) / self.0);
        head.activation.apply(values);
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::Origin;
    use super::*;

    fn head(activation: Activation, by_model: bool) -> Head {
        Head { activation, by_model, origin: Origin::Caller }
    }

    fn scores(at: f32, head: &Head, values: &[f32]) -> Vec<f32> {
        let mut values = values.to_vec();
        Temperature(at).apply(head, &mut values);
        values
    }

    fn near(got: &[f32], want: &[f64]) {
        assert!(got.iter().zip(want).all(|(&got, want)| (f64::from(got) - want).abs() < 1e-6), "{got:?} {want:?}");
    }

    fn softmax(logits: &[f32], at: f64) -> Vec<f64> {
        let powers: Vec<f64> = logits.iter().map(|&z| (f64::from(z) / at).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    #[test]
    fn logits_are_divided() {
        let logits = [0.5, -1.25, 3.0, 3.0];
        for at in [0.5, 1.0, 2.0, 100.0] {
            near(&scores(at, &head(Activation::Softmax, false), &logits), &softmax(&logits, at.into()));
            let want = logits.map(|z| 1.0 / (1.0 + (f64::from(-z) / f64::from(at)).exp()));
            near(&scores(at, &head(Activation::Sigmoid, false), &logits), &want);
        }
    }

    #[test]
    fn probabilities_of_the_model_are_tempered_like_its_logits() {
        let logits = [0.5, -1.25, 3.0, 3.0];
        let given: Vec<f32> = softmax(&logits, 1.0).iter().map(|&p| p as f32).collect();
        for at in [0.5, 2.0] {
            near(&scores(at, &head(Activation::Softmax, true), &given), &softmax(&logits, at.into()));
            let sigmoid = |z: f32, at: f32| 1.0 / (1.0 + (-z / at).exp());
            let given = logits.map(|z| sigmoid(z, 1.0));
            near(&scores(at, &head(Activation::Sigmoid, true), &given), &logits.map(|z| sigmoid(z, at).into()));
        }
    }

    #[test]
    fn zeros_ones_and_one_class_stay() {
        assert_eq!(scores(2.0, &head(Activation::Softmax, true), &[0.0, 1.0]), [0.0, 1.0]);
        assert_eq!(scores(2.0, &head(Activation::Sigmoid, true), &[0.0, 1.0]), [0.0, 1.0]);
        assert_eq!(scores(3.0, &head(Activation::Softmax, false), &[7.0]), [1.0]);
        assert!(scores(3.0, &head(Activation::Softmax, false), &[f32::NAN, 1.0])[0].is_nan());
    }

    #[test]
    fn only_positive_numbers_are_temperatures() {
        let of = |own, told: Option<&str>, activation| {
            let settings = Settings { temperature: own, ..Settings::default() };
            let metadata = told.map(|text| (KEY.to_owned(), text.to_owned())).into_iter().collect();
            Temperature::of(&settings, &metadata, &head(activation, false))
        };
        assert_eq!(of(None, None, Activation::None).unwrap(), Temperature(1.0));
        assert_eq!(of(None, Some(" 1.5 "), Activation::Softmax).unwrap(), Temperature(1.5));
        assert_eq!(of(Some(2.0), Some("x"), Activation::Sigmoid).unwrap(), Temperature(2.0));
        for (own, told) in [(Some(0.0), None), (Some(-1.0), None), (Some(f32::NAN), None), (None, Some("warm"))] {
            assert_eq!(of(own, told, Activation::Softmax).unwrap_err().code(), "model.metadata");
        }
        assert_eq!(of(Some(2.0), None, Activation::None).unwrap_err().code(), "model.metadata");
    }
}

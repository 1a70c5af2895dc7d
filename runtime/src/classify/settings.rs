//! What a caller may specify about images and classes, and how the same is written in metadata.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::head::Activation;
use crate::error::{Error, Fault, ModelFault, Result};
use crate::vision::{Colors, Interpolation};

/// How an image of another aspect ratio becomes the model's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// Its shorter side gets the right length, and the middle is cut out.
    #[default]
    Shortest,
    /// Both sides get the right length, each by itself.
    Stretch,
    /// Its longer side gets the right length, and the rest is black on both sides, as by Pillow's `ImageOps.pad`.
    Letterbox,
}

impl Fit {
    pub(super) const ALL: [Self; 3] = [Self::Shortest, Self::Stretch, Self::Letterbox];
    const NAMES: [&'static str; 3] = ["shortest", "stretch", "letterbox"];

    /// Its name on the command line and in metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The metadata's choices: keys, and their values by index.
pub(super) const FIT: Choice = Choice("skipstone.fit", &Fit::NAMES);
pub(super) const COLORS: Choice = Choice("skipstone.colors", &Colors::NAMES);
pub(super) const INTERPOLATION: Choice = Choice("skipstone.interpolation", &Interpolation::NAMES);

/// A key, and the names of its values.
pub(super) struct Choice(pub &'static str, &'static [&'static str]);

impl Choice {
    /// The index of a name.
    fn index(&self, name: &str) -> Result<usize> {
        let Self(key, names) = self;
        let unknown = || refused(key, &format!("is '{name}', expected {} or another of its names", names[0]));
        names.iter().position(|it| *it == name.trim()).ok_or_else(unknown)
    }

    /// The caller's choice, or otherwise the metadata's, by index.
    pub(super) fn of(&self, metadata: &BTreeMap<String, String>, own: Option<usize>) -> Result<Option<usize>> {
        match own {
            Some(own) => Ok(Some(own)),
            None => metadata.get(self.0).map(|name| self.index(name)).transpose(),
        }
    }
}

macro_rules! from_name {
    ($($choice:ty = $names:ident;)*) => { $(
        impl FromStr for $choice {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                $names.index(name).map(|index| Self::ALL[index])
            }
        }
    )* };
}
from_name!(Fit = FIT; Colors = COLORS; Interpolation = INTERPOLATION;);

/// A caller's settings for preparing images and naming classes; for `None`, the model decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Subtracted from each channel: one value for all, or one per channel.
    pub mean: Option<Vec<f32>>,
    /// Each channel is then divided by this.
    pub std: Option<Vec<f32>>,
    /// Bytes are multiplied by this before. Without it, they become values between 0 and 1.
    pub scale: Option<f32>,
    /// What the channels are.
    pub colors: Option<Colors>,
    /// Length that the shorter side is resized to.
    pub resize: Option<usize>,
    /// What happens to an image of another aspect ratio.
    pub fit: Option<Fit>,
    /// How the pixels of a resized image are made.
    pub interpolation: Option<Interpolation>,
    /// Side of the square cut from the middle.
    pub crop: Option<usize>,
    /// How the output becomes scores.
    pub activation: Option<Activation>,
    /// What the logits are divided by before the activation.
    pub temperature: Option<f32>,
    /// The lowest score that is reported: one for all classes, or one for each.
    pub threshold: Option<Vec<f32>>,
    /// Decides instead of the model's own classes.
    #[cfg(any(feature = "rules", test))]
    pub rule: Option<std::sync::Arc<super::rule::Rule>>,
    /// The only classes that may be reported, by label or as `class 7`; all if empty.
    pub allow: Vec<String>,
    /// Classes that are never reported, by label or as `class 7`; not together with `allow`.
    pub deny: Vec<String>,
    /// Language of the display names, such as `de` or `pt-BR`.
    pub locale: Option<String>,
}

pub(super) fn parse_numbers(key: &str, text: &str) -> Result<Vec<f32>> {
    text.split(',')
        .map(|number| parse_number(number.trim()))
        .collect::<Option<_>>()
        .ok_or_else(|| refused(key, &format!("is '{text}', expected numbers separated by commas")))
}

/// A decimal number such as `0.485` or `-1.25e-2`.
///
/// The standard library parses any number to the nearest value, with 12 kB of tables; this gives the nearest value too,
/// unless the text is within 1e-15 of the midpoint between two.
pub(super) fn parse_number(text: &str) -> Option<f32> {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 10.0 + f64::from(digit.to_digit(10)?);
    }
    let exponent = exponent.parse::<i32>().ok()?.saturating_sub(i32::try_from(fraction.len()).ok()?);
    // Powers of ten are exact up to 22, and beyond 400 all values overflow or vanish.
    let power = 10f64.powi(exponent.saturating_abs().min(400));
    let value = if exponent < 0 { value / power } else { value * power };
    Some(if digits.starts_with('-') { -value as f32 } else { value as f32 })
}

pub(super) fn refused(key: &str, reason: &str) -> Error {
    Error::Invalid { fault: Fault::Model(ModelFault::Metadata), message: format!("{key} {reason}") }
}

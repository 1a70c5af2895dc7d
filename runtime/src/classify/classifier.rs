//! A session with the preparation of its image and the evaluation of its scores.

use half::f16;

use super::filter::Filter;
use super::head::Head;
use super::image::Image;
use super::labels::Labels;
use super::preprocess::{Normalization, Preprocess};
use super::scores::{Scored, best};
use super::settings::Settings;
use crate::error::{Error, Fault, InputFault, ModelFault, Result};
use crate::model::Model;
use crate::plan::Port;
use crate::session::Session;
use crate::tensor::{DType, Fact, Shape, TensorView};
use crate::vision::{Converter, Frame};

/// A class that an image may show.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Index of the class in the model's output.
    pub index: usize,
    /// Its name.
    pub label: String,
    /// Its score; the [`Head`] says what it means.
    pub score: f32,
}

/// Classifies images. Make one per thread from the same [`Model`].
pub struct Classifier {
    session: Session,
    preprocess: Preprocess,
    converter: Converter,
    /// The input made from the last frame, reused for the next.
    prepared: Vec<f32>,
    labels: Labels,
    display: Option<Labels>,
    head: Head,
    filter: Filter,
    dims: Vec<usize>,
    /// The input, if its elements are not f32.
    converted: Option<Converted>,
    /// Index of the output with the scores.
    output: usize,
    classes: usize,
}

impl Classifier {
    /// A classifier of `model`, which must have one image input and class scores as its first output of floats: an
    /// integer before it is the label that some converters add. What `settings` and `labels` leave open is read from
    /// the metadata.
    ///
    /// # Errors
    /// As for [`Preprocess::new`] and [`Head::of`]; a model with several inputs (`model.image-input`); an invalid
    /// threshold or class name (`input.threshold`, `input.label`); `labels` (`input.label`), or those of the metadata
    /// (`model.metadata`), that are more or fewer than the classes.
    pub fn new(model: &Model, settings: &Settings, labels: Option<Labels>) -> Result<Self> {
        let [input] = model.inputs() else {
            return Err(Error::Invalid {
                fault: Fault::Model(ModelFault::ImageInput),
                message: format!("the model has {} inputs; a classifier has one, the image", model.inputs().len()),
            });
        };
        let metadata = &model.info().metadata;
        let preprocess = Preprocess::new(&input.fact, metadata, settings)?;
        let output = scores_output(model.outputs());
        let shape = model.outputs().get(output).map(|port| &port.fact.shape);
        let classes = shape.map_or(0, Shape::elements);
        let display = settings.locale.as_deref().and_then(|locale| Labels::localized(metadata, locale));
        let at_fault =
            if labels.is_some() { Fault::Input(InputFault::Label) } else { Fault::Model(ModelFault::Metadata) };
        let labels = labels.or_else(|| metadata.get("skipstone.labels").map(|text| Labels::parse(text)));
        let labels = labels.unwrap_or_default();
        // Of a map, such as a detector's, the labels name only one axis.
        if shape.is_some_and(|shape| shape.iter().all(|&dim| dim == 1 || dim == classes)) {
            labels.check(classes, at_fault)?;
            display.iter().try_for_each(|names| names.check(classes, Fault::Model(ModelFault::Metadata)))?;
        }
        Ok(Self {
            head: Head::of(model, settings.activation)?,
            filter: Filter::new(settings, &labels)?,
            display,
            session: model.session()?,
            preprocess,
            converter: Converter::new(model.isa()),
            prepared: Vec::new(),
            labels,
            dims: input.fact.shape.dims().to_vec(),
            converted: Converted::new(&input.fact),
            output,
            classes,
        })
    }

    /// Its session, for the cancel handle, the deadline and the profile.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
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

    /// Number of scores.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How images are prepared.
    #[must_use]
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// How images are normalized, and where that was specified.
    #[must_use]
    pub fn normalization(&self) -> &Normalization {
        self.preprocess.normalization()
    }

    /// The model's input for `image`, in the model's element order.
    #[must_use]
    pub fn prepare(&self, image: Image<'_>) -> Vec<f32> {
        self.preprocess.apply(image)
    }

    /// The model's input for a camera frame, written to `out`. Allocated memory is reused for all further frames with
    /// the same size, strides, rotation and crop.
    ///
    /// # Errors
    /// `frame` if `out` has another length than the model's input.
    pub fn prepare_frame(&mut self, frame: &Frame<'_>, out: &mut [f32]) -> Result<()> {
        self.preprocess.apply_frame(frame, &mut self.converter, out)
    }

    /// Runs the model on a prepared image and returns the score of every class, as described by the
    /// [`head`](Self::head).
    ///
    /// # Errors
    /// Errors of the run; `model.output` if no output holds floats, or it is empty, or if a score is not a number.
    pub fn scores(&mut self, prepared: &[f32]) -> Result<Vec<f32>> {
        let mut input = TensorView::new(&self.dims, prepared).map_err(|e| Error::Internal(e.to_string()))?;
        if let Some(converted) = &mut self.converted {
            input = converted.view(prepared)?;
        }
        self.session.run(&[input])?;
        let output = self.session.output(self.output).ok_or_else(|| no_scores("the model has no output"))?;
        let scores = output.to_floats().filter(|scores| !scores.is_empty());
        let mut scores = scores.ok_or_else(|| no_scores(&format!("the output is {}", output.fact())))?;
        self.head.apply(&mut scores);
        if scores.iter().any(|score| score.is_nan()) {
            return Err(no_numbers());
        }
        Ok(scores)
    }

    /// The `k` best classes, best first, among those that may be reported: above the threshold, allowed and not denied.
    #[must_use]
    pub fn rank(&self, scores: &[f32], k: usize) -> Vec<Prediction> {
        let named = |s: Scored| Prediction { index: s.index, label: self.labels.name(s.index), score: s.score };
        best(self.filter.apply(scores), k).into_iter().map(named).collect()
    }

    /// The `k` best classes of `image`, best first.
    ///
    /// # Errors
    /// As for [`scores`](Self::scores).
    pub fn classify(&mut self, image: Image<'_>, k: usize) -> Result<Vec<Prediction>> {
        let prepared = self.prepare(image);
        let scores = self.scores(&prepared)?;
        Ok(self.rank(&scores, k))
    }

    /// The `k` best classes of a camera frame, best first.
    ///
    /// # Errors
    /// As for [`scores`](Self::scores).
    pub fn classify_frame(&mut self, frame: &Frame<'_>, k: usize) -> Result<Vec<Prediction>> {
        let mut prepared = std::mem::take(&mut self.prepared);
        prepared.resize(self.preprocess.elements(), 0.0);
        self.prepare_frame(frame, &mut prepared)?;
        let scores = self.scores(&prepared);
        self.prepared = prepared;
        Ok(self.rank(&scores?, k))
    }
}

/// The index of the first output of floats; 0 if there is none.
pub(super) fn scores_output(outputs: &[Port]) -> usize {
    let float = |port: &Port| matches!(port.fact.dtype, DType::F32 | DType::F16 | DType::F64);
    outputs.iter().position(float).unwrap_or(0)
}

/// An input of f16 or u8.
pub(super) struct Converted {
    fact: Fact,
    /// Halves, or pairs of bytes.
    elements: Vec<u16>,
}

impl Converted {
    /// Room for an input; `None` if it is f32.
    pub(super) fn new(fact: &Fact) -> Option<Self> {
        let elements = || vec![0; fact.bytes().div_ceil(2)];
        (fact.dtype != DType::F32).then(|| Self { fact: fact.clone(), elements: elements() })
    }

    /// Converts a prepared image: to halves, or to the nearest bytes, because frames are not rounded before. Returns the
    /// bytes of the elements.
    pub(super) fn fill(&mut self, prepared: &[f32]) -> &[u8] {
        if self.fact.dtype == DType::F16 {
            self.elements.iter_mut().zip(prepared).for_each(|(half, &value)| *half = f16::from_f32(value).to_bits());
        } else {
            let bytes = bytemuck::cast_slice_mut::<u16, u8>(&mut self.elements);
            bytes.iter_mut().zip(prepared).for_each(|(byte, level)| *byte = (level + 0.5) as u8);
        }
        &bytemuck::cast_slice(&self.elements)[..self.fact.bytes()]
    }

    fn view(&mut self, prepared: &[f32]) -> Result<TensorView<'_>> {
        let fact = self.fact.clone();
        TensorView::from_bytes(fact, self.fill(prepared)).map_err(|e| Error::Internal(e.to_string()))
    }
}

fn no_scores(what: &str) -> Error {
    Error::Invalid {
        fault: Fault::Model(ModelFault::Output),
        message: format!("{what}; class scores are expected there, as floats"),
    }
}

fn no_numbers() -> Error {
    Error::Invalid {
        fault: Fault::Model(ModelFault::Output),
        message: "the scores are not numbers (NaN): check the mean and std of the images, and the model's weights"
            .into(),
    }
}

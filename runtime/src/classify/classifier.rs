//! A session with the preparation of its image and the evaluation of its scores.

use half::f16;

use super::head::Head;
use super::image::Image;
use super::labels::Labels;
use super::preprocess::{Normalization, Preprocess};
use super::scorer::{Prediction, Scorer};
use super::settings::Settings;
use crate::error::{Error, Fault, ModelFault, Result};
use crate::model::Model;
use crate::session::Session;
use crate::tensor::{DType, Fact, TensorView};
use crate::vision::{Converter, Frame};

/// Classifies images. Make one per thread from the same [`Model`].
pub struct Classifier {
    session: Session,
    preprocess: Preprocess,
    converter: Converter,
    /// The input made from the last frame, reused for the next.
    prepared: Vec<f32>,
    scorer: Scorer,
    dims: Vec<usize>,
    /// The input, if its elements are not f32.
    converted: Option<Converted>,
}

impl Classifier {
    /// A classifier of `model`, which must have one image input and class scores as its first output of floats. What
    /// `settings` and `labels` leave open is read from the metadata.
    ///
    /// # Errors
    /// As for [`Preprocess::new`] and [`Scorer::new`]; a model with several inputs (`model.image-input`).
    pub fn new(model: &Model, settings: &Settings, labels: Option<Labels>) -> Result<Self> {
        let [input] = model.inputs() else {
            return Err(Error::Invalid {
                fault: Fault::Model(ModelFault::ImageInput),
                message: format!("the model has {} inputs; a classifier has one, the image", model.inputs().len()),
            });
        };
        Ok(Self {
            preprocess: Preprocess::new(&input.fact, &model.info().metadata, settings)?,
            scorer: Scorer::new(model, settings, labels)?,
            session: model.session()?,
            converter: Converter::new(model.isa()),
            prepared: Vec::new(),
            dims: input.fact.shape.dims().to_vec(),
            converted: Converted::new(&input.fact),
        })
    }

    /// Its session, for the cancel handle, the deadline and the profile.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Names of the classes; empty if the model has none.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        self.scorer.labels()
    }

    /// Names of the classes in the requested language; the labels if the model has no others.
    #[must_use]
    pub fn display_names(&self) -> &Labels {
        self.scorer.display_names()
    }

    /// What the scores mean, and where that was specified.
    #[must_use]
    pub fn head(&self) -> &Head {
        self.scorer.head()
    }

    /// What the scores are, and where that was specified.
    #[must_use]
    pub fn meaning(&self) -> String {
        self.scorer.meaning()
    }

    /// Whether the scores are on a scale of their own, not shares of one.
    #[cfg(any(feature = "rules", test))]
    #[must_use]
    pub fn has_own_scale(&self) -> bool {
        self.scorer.has_own_scale()
    }

    /// Number of scores.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.scorer.classes()
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

    /// The shorter side from which on an image is not enlarged: see [`Preprocess::photo_side`].
    #[must_use]
    pub fn photo_side(&self) -> usize {
        self.preprocess.photo_side()
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
        self.scorer.scores(&self.session)
    }

    /// The `k` best classes, best first, among those that may be reported: above the threshold, allowed and not denied.
    #[must_use]
    pub fn rank(&self, scores: &[f32], k: usize) -> Vec<Prediction> {
        self.scorer.rank(scores, k)
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

//! An image input filled from camera frames, for models that are not classifiers: detectors, embeddings, heat maps.

use super::classifier::Converted;
use super::preprocess::Preprocess;
use super::settings::Settings;
use crate::error::Result;
use crate::model::Model;
use crate::plan::Port;
use crate::vision::{Converter, Frame};

/// Prepares camera frames for an image input, as the model's metadata says. Allocated memory is reused for all further
/// frames with the same size, strides, rotation and crop.
pub struct FrameInput {
    preprocess: Preprocess,
    converter: Converter,
    prepared: Vec<f32>,
    /// The input, if its elements are not f32.
    converted: Option<Converted>,
}

impl FrameInput {
    /// The preparation for `input`, one of the inputs of `model`.
    ///
    /// # Errors
    /// As for [`Preprocess::new`], such as `model.image-input` for an input that is not an image.
    pub fn new(model: &Model, input: &Port) -> Result<Self> {
        let preprocess = Preprocess::new(&input.fact, &model.info().metadata, &Settings::default())?;
        Ok(Self {
            converter: Converter::new(model.isa()),
            prepared: vec![0.0; preprocess.elements()],
            converted: Converted::new(&input.fact),
            preprocess,
        })
    }

    /// The elements of the input for `frame`, in the input's type and order.
    ///
    /// # Errors
    /// As for [`Preprocess::apply_frame`].
    pub fn prepare(&mut self, frame: &Frame<'_>) -> Result<&[u8]> {
        self.preprocess.apply_frame(frame, &mut self.converter, &mut self.prepared)?;
        match &mut self.converted {
            Some(converted) => Ok(converted.fill(&self.prepared)),
            None => Ok(bytemuck::cast_slice(&self.prepared)),
        }
    }
}

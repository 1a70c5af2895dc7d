//! The inputs of a measurement: random ones, or the images of a directory in turn.

use std::path::{Path, PathBuf};

use skipstone::classify::Preprocess;
use skipstone::measure::RandomInputs;
use skipstone::{DType, Model, OpError, TensorView};

use crate::args::ImageArgs;
use crate::failure::Failure;
use crate::images;

/// Seed of the random inputs, fixed so that all measurements use the same inputs.
const SEED: u64 = 0x5EED;

/// Inputs of a model.
pub enum Inputs {
    /// Fresh for every run.
    Random(RandomInputs),
    /// Images, decoded one at a time.
    Images(Box<Images>),
}

/// The images below a directory.
pub struct Images {
    directory: PathBuf,
    files: Vec<PathBuf>,
    preprocess: Preprocess,
    dims: Vec<usize>,
    /// Index of the next image.
    next: usize,
    prepared: Vec<f32>,
}

impl Inputs {
    /// Random inputs, or the images below a directory, of which the first is ready.
    ///
    /// # Errors
    /// `io`; `image` if there are none; `model.image-input` for a model that does not take images of f32.
    pub fn new(model: &Model, directory: Option<&Path>, image: &ImageArgs) -> Result<Self, Failure> {
        let Some(directory) = directory else {
            return Ok(Self::Random(RandomInputs::new(model.inputs(), SEED)?));
        };
        let refused = |reason: String| Failure::new("model.image-input", reason);
        let input = match model.inputs() {
            [input] if input.fact.dtype == DType::F32 => input,
            [input] => return Err(refused(format!("the model's input is {}; images are f32", input.fact))),
            inputs => return Err(refused(format!("the model has {} inputs; an image is one", inputs.len()))),
        };
        let mut images = Images {
            directory: directory.to_owned(),
            files: images::find(&[directory.to_owned()])?,
            preprocess: Preprocess::new(&input.fact, &model.info().metadata, &image.settings())?,
            dims: input.fact.shape.dims().to_vec(),
            next: 0,
            prepared: Vec::new(),
        };
        images.prepare()?;
        images.next = 0;
        Ok(Self::Images(Box::new(images)))
    }

    /// Makes the inputs of the next run.
    ///
    /// # Errors
    /// `image` for one that cannot be read.
    pub fn refresh(&mut self) -> Result<(), Failure> {
        match self {
            Self::Random(random) => {
                random.refresh();
                Ok(())
            }
            Self::Images(images) => images.prepare(),
        }
    }

    /// The inputs, in the model's order.
    ///
    /// # Errors
    /// An internal one.
    pub fn views(&self) -> Result<Vec<TensorView<'_>>, Failure> {
        let internal = |error: OpError| Failure::new("internal", error.to_string());
        match self {
            Self::Random(random) => Ok(random.views()),
            Self::Images(images) => Ok(vec![TensorView::new(&images.dims, &images.prepared).map_err(internal)?]),
        }
    }

    /// Whether they are images.
    pub fn are_images(&self) -> bool {
        self.images().is_some()
    }

    /// The number of images; `None` if the inputs are random.
    pub fn images(&self) -> Option<usize> {
        match self {
            Self::Random(_) => None,
            Self::Images(images) => Some(images.files.len()),
        }
    }

    /// As reports name them.
    pub fn name(&self) -> String {
        match self {
            Self::Random(_) => "random".into(),
            Self::Images(images) => images.directory.display().to_string(),
        }
    }
}

impl Images {
    fn prepare(&mut self) -> Result<(), Failure> {
        let image = images::decode(&self.files[self.next])?;
        self.prepared = self.preprocess.apply(images::view(&image)?);
        self.next = (self.next + 1) % self.files.len();
        Ok(())
    }
}

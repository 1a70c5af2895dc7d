//! Sample images for commands that run a model in order to change it.

use std::path::{Path, PathBuf};

use clap::Args;
use skipstone::classify::Preprocess;
use skipstone::{DType, Model};
use skipstone_transform::{Error, Samples};

use crate::args::ImageArgs;
use crate::failure::Failure;
use crate::images;
use crate::progress::Progress;

/// The folder with sample images, and how many to use.
#[derive(Args, Clone, Debug)]
pub struct CalibrationArgs {
    /// Directory with sample images
    #[arg(long, value_name = "FOLDER")]
    pub calibrate: Option<PathBuf>,

    /// Most images to use, spread evenly over the folder
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub images: usize,

    #[command(flatten)]
    pub image: ImageArgs,
}

impl CalibrationArgs {
    /// The images, prepared for `model`; `None` if no folder is given. They will be read `rounds` times.
    pub fn pictures(&self, model: &Model, rounds: usize) -> Result<Option<Pictures>, Failure> {
        self.calibrate
            .as_deref()
            .map(|folder| Pictures::new(folder, self.images, model, &self.image, rounds))
            .transpose()
    }
}

/// Images of a folder, decoded on demand.
pub struct Pictures {
    files: Vec<PathBuf>,
    preprocess: Preprocess,
    progress: Progress,
}

impl Pictures {
    /// At most `most` images below `folder`, evenly spaced.
    pub fn new(folder: &Path, most: usize, model: &Model, image: &ImageArgs, rounds: usize) -> Result<Self, Failure> {
        let mut files = Vec::new();
        images::walk(folder, &mut files)?;
        if files.is_empty() || most == 0 {
            let reason = format!("{}: no images to calibrate with", folder.display());
            return Err(Failure::new("calibration", reason));
        }
        let count = most.min(files.len());
        let files: Vec<PathBuf> = (0..count).map(|i| files[i * files.len() / count].clone()).collect();
        let [input] = model.inputs() else {
            let reason = format!("the model has {} inputs; images need a model with one", model.inputs().len());
            return Err(Failure::new("model.image-input", reason));
        };
        if input.fact.dtype != DType::F32 {
            let reason = format!("the model's input is {}; a model is calibrated with images of f32", input.fact);
            return Err(Failure::new("model.image-input", reason));
        }
        let preprocess = Preprocess::new(&input.fact, &model.info().metadata, &image.settings())?;
        let progress = Progress::new(files.len() * rounds);
        Ok(Self { files, preprocess, progress })
    }
}

impl Samples for Pictures {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn sample(&mut self, index: usize) -> Result<Vec<f32>, Error> {
        let prepared = || -> Result<Vec<f32>, Failure> {
            let image = images::decode(&self.files[index])?;
            Ok(self.preprocess.apply(images::view(&image)?).to_vec())
        };
        let prepared = prepared().map_err(as_sample)?;
        self.progress.step();
        Ok(prepared)
    }
}

/// A failure of the command while it serves a transformation.
pub fn as_sample(failure: Failure) -> Error {
    match failure {
        Failure::Fault { code, message } => Error::Sample { code, message },
        failure => Error::Sample { code: "image", message: failure.to_string() },
    }
}

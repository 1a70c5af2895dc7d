//! A model: opened once, shared by any number of classifiers and sessions.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use skipstone::classify::Labels;
use skipstone::plan::Port;

use crate::classifier::{Classifier, ClassifierOptions};
use crate::config::Config;
use crate::error::{Result, SkipstoneError, guarded};
use crate::measure::Memory;
use crate::session::Session;
use crate::source::{Aside, MappedFile, refused};

/// A loaded model. Any number of threads may share it.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Model {
    runtime: skipstone::Model,
    name: String,
    /// The file that its weights are mapped from.
    source: Option<MappedFile>,
}

/// What a model says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct ModelInfo {
    /// The name of its file without folder and extension; `model` if it did not come from a file.
    pub name: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of the weights as the file stores them.
    pub weights_bytes: u64,
    /// Bytes that each classifier or session takes.
    pub arena_bytes: u64,
    /// The instruction set that it runs on.
    pub isa: String,
    /// Threads per run.
    pub threads: u32,
    /// Inputs, in order.
    pub inputs: Vec<TensorInfo>,
    /// Outputs, in order.
    pub outputs: Vec<TensorInfo>,
    /// Names of the classes, in the order of the first output; empty if the model has none.
    pub labels: Vec<String>,
    /// All metadata stored in the file beside the graph.
    pub metadata: HashMap<String, String>,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Element type, such as `f32`; elements are in native byte order.
    pub element: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
}

impl TensorInfo {
    fn of(port: &Port) -> Self {
        Self {
            name: port.name.clone(),
            element: port.fact.dtype.name().to_owned(),
            shape: port.fact.shape.dims().iter().map(|&dim| dim as u64).collect(),
        }
    }
}

impl Model {
    /// The facade of a model made in Rust.
    #[must_use]
    pub fn from_runtime(runtime: skipstone::Model, name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { runtime, name: name.into(), source: None })
    }

    /// The package that is `length` bytes at `offset` of a file: mapped, or read.
    fn of_part(source: MappedFile, offset: u64, length: u64, name: &str, config: &Config) -> Result<Arc<Self>> {
        let options = config.options()?;
        if config.copy {
            let bytes = source.read(offset, length)?;
            return Ok(Self::from_runtime(skipstone::Model::from_bytes(&bytes, &options)?, name));
        }
        let runtime = skipstone::Model::open_part(source.file(), offset, length, &options)?;
        Ok(Arc::new(Self { runtime, name: name.to_owned(), source: Some(source) }))
    }

    /// The package file at `path`, with the name of `named`.
    fn of_file(path: &Path, named: &Path, config: &Config) -> Result<Arc<Self>> {
        let name = named.file_stem().map_or("model".into(), |stem| stem.to_string_lossy());
        let file = File::open(path).map_err(|error| refused(&path.display(), &error))?;
        let source = MappedFile::new(file)?;
        let length = source.length();
        match Self::of_part(source, 0, length, &name, config) {
            // By its path, because an ONNX file may keep tensors in files beside it.
            Err(error) if may_be_onnx(&error) => {
                Ok(Self::from_runtime(skipstone::Model::open(path, &config.options()?)?, name))
            }
            opened => opened,
        }
    }

    /// Writes `bytes` to a temporary file, checks them, and moves the file to `target`.
    fn install_from(bytes: &mut dyn Read, target: &Path, config: &Config) -> Result<Arc<Self>> {
        let aside = Aside::write(target, bytes)?;
        let model = Self::of_file(aside.path(), target, config)?;
        aside.rename(target)?;
        Ok(model)
    }

    /// Refuses to run if the file has changed since it was checked.
    pub(crate) fn check_source(&self) -> Result<()> {
        self.source.as_ref().map_or(Ok(()), MappedFile::check)
    }

    pub(crate) fn runtime(&self) -> &skipstone::Model {
        &self.runtime
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::of(self)
    }
}

/// Whether to try the importer, if it is built in, on a file that is not a package.
fn may_be_onnx(error: &SkipstoneError) -> bool {
    cfg!(feature = "onnx") && error.code() == "package.magic"
}

/// An ONNX file converted to a package for this machine.
#[cfg(feature = "onnx")]
fn packed(path: &Path, config: &Config) -> Result<Vec<u8>> {
    use skipstone::{Recipe, compile};
    let isa = Some(skipstone::Isa::detect());
    let recipe = Recipe { isa, shapes: config.shapes(), limits: config.limits()?, ..Recipe::default() };
    Ok(compile(path, &recipe, None)?.0)
}

#[cfg(not(feature = "onnx"))]
fn packed(_path: &Path, _config: &Config) -> Result<Vec<u8>> {
    let message = "this library opens packages only: it was built without the feature `onnx`";
    Err(SkipstoneError::Unsupported { code: "onnx".into(), message: message.into() })
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Model {
    /// Opens the package file at `path`; its weights are mapped, not read. A library with the feature `onnx` opens ONNX
    /// files too, if `config` has no key: it plans them and packs their weights in memory, each time.
    ///
    /// # Errors
    /// `Io` if it cannot be read, `Package` if it is damaged, not signed with the key of `config`, or made for another
    /// machine; `Model` and `Unsupported` for an ONNX file, as for `convert`.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn open(path: String, config: Config) -> Result<Arc<Self>> {
        guarded(|| Self::of_file(Path::new(&path), Path::new(&path), &config))
    }

    /// Copies the package file `from` to `to`, and opens it there. It is written to a temporary file, checked
    /// completely and then renamed: at any time `to` is either the complete old file or the complete new one, and
    /// models that have the old one open keep it.
    ///
    /// # Errors
    /// As for `open`, and `Io` if nothing can be written; `to` is then unchanged.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn install(from: String, to: String, config: Config) -> Result<Arc<Self>> {
        guarded(|| {
            let mut file = File::open(&from).map_err(|error| refused(&from, &error))?;
            Self::install_from(&mut file, Path::new(&to), &config)
        })
    }

    /// The same for a package in memory.
    ///
    /// # Errors
    /// As for `install`.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn install_bytes(bytes: &[u8], to: String, config: Config) -> Result<Arc<Self>> {
        guarded(|| Self::install_from(&mut { bytes }, Path::new(&to), &config))
    }

    /// Converts the ONNX file `from` to a package for this machine at `to`, and opens it there: planned and packed
    /// once, and then opened like any package. Tensors in files beside `from` go into the package. The file is put in
    /// place as by `install`. The package is not signed.
    ///
    /// # Errors
    /// `Model` for a malformed file; `Unsupported` for operators without a kernel in this library, or if it was built
    /// without the feature `onnx` (code `onnx`); `Input` if `config` has a key, since the new package is not signed;
    /// `Io`. `to` is then unchanged.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn convert(from: String, to: String, config: Config) -> Result<Arc<Self>> {
        guarded(|| {
            if config.public_key.is_some() {
                let message = "a package converted on the device is not signed: convert without a key";
                return Err(SkipstoneError::input("input.key", message));
            }
            Self::install_from(&mut packed(Path::new(&from), &config)?.as_slice(), Path::new(&to), &config)
        })
    }

    /// Opens the package that is `length` bytes at `offset` of an open file, such as an asset in an app's archive. The
    /// descriptor is borrowed for this call: the caller closes it.
    ///
    /// # Errors
    /// As for `open`.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn open_descriptor(fd: i32, offset: u64, length: u64, config: Config) -> Result<Arc<Self>> {
        guarded(|| {
            let open = |copy| {
                let source = MappedFile::new(crate::descriptor::duplicate(fd)?)?;
                Self::of_part(source, offset, length, "model", &Config { copy, ..config.clone() })
            };
            match open(config.copy) {
                Err(error) if may_be_onnx(&error) => open(true),
                opened => opened,
            }
        })
    }

    /// Opens a package in memory, which is copied.
    ///
    /// # Errors
    /// As for `open`.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn from_bytes(bytes: &[u8], config: Config) -> Result<Arc<Self>> {
        guarded(|| Ok(Self::from_runtime(skipstone::Model::from_bytes(bytes, &config.options()?)?, "model")))
    }

    /// A classifier of this model. The same as `Classifier::with`, for languages that may free an argument while a call
    /// uses it: only the object that a method is called on is kept alive during the call.
    ///
    /// # Errors
    /// As for `Classifier::with`.
    pub fn classifier(self: Arc<Self>, options: ClassifierOptions) -> Result<Arc<Classifier>> {
        Classifier::with(self, options)
    }

    /// A session of this model; the same as `Session::new`, see `classifier`.
    ///
    /// # Errors
    /// As for `Session::new`.
    pub fn session(self: Arc<Self>) -> Result<Arc<Session>> {
        Session::new(self)
    }

    /// What the model says about itself.
    pub fn info(&self) -> ModelInfo {
        let info = self.runtime.info();
        let labels = info.metadata.get("skipstone.labels").map(|text| Labels::parse(text)).unwrap_or_default();
        ModelInfo {
            name: self.name.clone(),
            parameters: info.parameters,
            weights_bytes: info.weight_bytes,
            arena_bytes: self.runtime.plan().map_or(0, |plan| plan.arena_bytes as u64),
            isa: self.runtime.isa().name().to_owned(),
            threads: u32::try_from(self.runtime.threads()).unwrap_or(u32::MAX),
            inputs: self.runtime.inputs().iter().map(TensorInfo::of).collect(),
            outputs: self.runtime.outputs().iter().map(TensorInfo::of).collect(),
            labels: (0..labels.len()).map(|index| labels.name(index)).collect(),
            metadata: info.metadata.clone().into_iter().collect(),
        }
    }
}

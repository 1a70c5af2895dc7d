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
use crate::source::{Aside, Source, refused};

/// A loaded model. Any number of threads may share it.
#[derive(uniffi::Object)]
pub struct Model {
    runtime: skipstone::Model,
    name: String,
    /// What its weights are mapped from.
    source: Option<Source>,
}

/// What a model says of itself.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ModelInfo {
    /// The name of its file without folder and extension; `model` where it came from no file of its own.
    pub name: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the weights as the file stores them.
    pub weights_bytes: u64,
    /// Bytes that a classifier or session of it takes.
    pub arena_bytes: u64,
    /// The instruction set that it runs on.
    pub isa: String,
    /// Threads of a run.
    pub threads: u32,
    /// What it takes, in order.
    pub inputs: Vec<TensorInfo>,
    /// What it gives, in order.
    pub outputs: Vec<TensorInfo>,
    /// Names of its classes, in the order of the first output; empty where nothing names them.
    pub labels: Vec<String>,
    /// Everything that was written into the file beside the graph.
    pub metadata: HashMap<String, String>,
}

/// A tensor at a model's edge.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Element type, such as `f32`; elements lie in the machine's byte order.
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
    /// The facade of a model that a Rust program made.
    #[must_use]
    pub fn from_runtime(runtime: skipstone::Model, name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { runtime, name: name.into(), source: None })
    }

    /// The package that is `length` bytes from `offset` of a file: mapped, or read.
    fn of_part(source: Source, offset: u64, length: u64, name: &str, config: &Config) -> Result<Arc<Self>> {
        let options = config.options()?;
        if config.copy {
            let bytes = source.read(offset, length)?;
            return Ok(Self::from_runtime(skipstone::Model::from_bytes(&bytes, &options)?, name));
        }
        let runtime = skipstone::Model::open_part(source.file(), offset, length, &options)?;
        Ok(Arc::new(Self { runtime, name: name.to_owned(), source: Some(source) }))
    }

    /// The package file at `path`, under the name of `named`.
    fn of_file(path: &Path, named: &Path, config: &Config) -> Result<Arc<Self>> {
        let name = named.file_stem().map_or("model".into(), |stem| stem.to_string_lossy());
        let file = File::open(path).map_err(|error| refused(&path.display(), &error))?;
        let source = Source::new(file)?;
        let length = source.length();
        match Self::of_part(source, 0, length, &name, config) {
            // By its path: an ONNX file may have tensors in files beside it.
            Err(error) if may_be_onnx(&error) => {
                Ok(Self::from_runtime(skipstone::Model::open(path, &config.options()?)?, name))
            }
            opened => opened,
        }
    }

    /// Writes `bytes` aside, checks them, and puts them in `target`'s place.
    fn install_from(bytes: &mut dyn Read, target: &Path, config: &Config) -> Result<Arc<Self>> {
        let aside = Aside::write(target, bytes)?;
        let model = Self::of_file(aside.path(), target, config)?;
        aside.rename(target)?;
        Ok(model)
    }

    /// Refuses to run from a file that is no longer what was checked.
    pub(crate) fn check_source(&self) -> Result<()> {
        self.source.as_ref().map_or(Ok(()), Source::check)
    }

    pub(crate) fn runtime(&self) -> &skipstone::Model {
        &self.runtime
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::of(self)
    }
}

/// Whether the front end, where it is built in, is to try a file that is no package.
fn may_be_onnx(error: &SkipstoneError) -> bool {
    cfg!(feature = "onnx") && error.code() == "package.magic"
}

/// The package of an ONNX file for this machine.
#[cfg(feature = "onnx")]
fn packed(path: &Path, config: &Config) -> Result<Vec<u8>> {
    use skipstone::{Recipe, compile};
    let recipe = Recipe { isa: Some(skipstone::Isa::detect()), shapes: config.shapes(), ..Recipe::default() };
    Ok(compile(path, &recipe, None)?.0)
}

#[cfg(not(feature = "onnx"))]
fn packed(_path: &Path, _config: &Config) -> Result<Vec<u8>> {
    let message = "this library opens packages only: it was built without the feature `onnx`";
    Err(SkipstoneError::Unsupported { code: "onnx".into(), message: message.into() })
}

#[uniffi::export]
impl Model {
    /// Opens the package file at `path`, whose weights are mapped, not read. A library with the feature `onnx` opens
    /// ONNX files too, if `config` has no key: it plans them and packs their weights in memory, each time.
    ///
    /// # Errors
    /// `Io` where it cannot be read, `Package` where it is damaged, not signed by the key of `config`, or made for
    /// another machine; `Model` and `Unsupported` for an ONNX file, as for `convert`.
    #[uniffi::constructor]
    pub fn open(path: String, config: Config) -> Result<Arc<Self>> {
        guarded(|| Self::of_file(Path::new(&path), Path::new(&path), &config))
    }

    /// Copies the package file `from` to `to`, and opens it there. It is written aside, checked whole and then renamed:
    /// `to` is the old file or the new one, whole, at any time, and models that have the old one open keep it.
    ///
    /// # Errors
    /// As for `open`, and `Io` where nothing can be written; `to` is then as it was.
    #[uniffi::constructor]
    pub fn install(from: String, to: String, config: Config) -> Result<Arc<Self>> {
        guarded(|| {
            let mut file = File::open(&from).map_err(|error| refused(&from, &error))?;
            Self::install_from(&mut file, Path::new(&to), &config)
        })
    }

    /// The same for a package that lies in memory.
    ///
    /// # Errors
    /// As for `install`.
    #[uniffi::constructor]
    pub fn install_bytes(bytes: &[u8], to: String, config: Config) -> Result<Arc<Self>> {
        guarded(|| Self::install_from(&mut { bytes }, Path::new(&to), &config))
    }

    /// Makes a package of the ONNX file `from`, for this machine, at `to`, and opens it there: planned and packed once,
    /// and opened like any package from then on. Tensors in files beside `from` go into the package. Put in place as by
    /// `install`. The package is not signed.
    ///
    /// # Errors
    /// `Model` for a file that is malformed, `Unsupported` for one with operators that this library has no kernels
    /// for, or that was built without the feature `onnx` (`onnx`); `Input` where `config` has a key, since nobody
    /// signs what is made here; `Io`. `to` is then as it was.
    #[uniffi::constructor]
    pub fn convert(from: String, to: String, config: Config) -> Result<Arc<Self>> {
        guarded(|| {
            if config.public_key.is_some() {
                return Err(SkipstoneError::input("input.key", "what is made of an ONNX file here is not signed"));
            }
            Self::install_from(&mut packed(Path::new(&from), &config)?.as_slice(), Path::new(&to), &config)
        })
    }

    /// Opens the package that is `length` bytes from `offset` of an open file, such as an asset in an app's archive.
    /// The descriptor is borrowed for the length of the call: the caller closes it.
    ///
    /// # Errors
    /// As for `open`.
    #[uniffi::constructor]
    pub fn open_descriptor(fd: i32, offset: u64, length: u64, config: Config) -> Result<Arc<Self>> {
        guarded(|| {
            let open = |copy| {
                let source = Source::new(crate::descriptor::duplicate(fd)?)?;
                Self::of_part(source, offset, length, "model", &Config { copy, ..config.clone() })
            };
            match open(config.copy) {
                Err(error) if may_be_onnx(&error) => open(true),
                opened => opened,
            }
        })
    }

    /// Opens a package that lies in memory, which is copied.
    ///
    /// # Errors
    /// As for `open`.
    #[uniffi::constructor]
    pub fn from_bytes(bytes: &[u8], config: Config) -> Result<Arc<Self>> {
        guarded(|| Ok(Self::from_runtime(skipstone::Model::from_bytes(bytes, &config.options()?)?, "model")))
    }

    /// A classifier of this model. The same as `Classifier::with`, for languages whose objects may be given back while
    /// they are handed over: only the object that a method is called on is held for the call.
    ///
    /// # Errors
    /// As for `Classifier::with`.
    pub fn classifier(self: Arc<Self>, options: ClassifierOptions) -> Result<Arc<Classifier>> {
        Classifier::with(self, options)
    }

    /// A session of this model, as `classifier` is a classifier of it.
    ///
    /// # Errors
    /// As for `Session::new`.
    pub fn session(self: Arc<Self>) -> Result<Arc<Session>> {
        Session::new(self)
    }

    /// What the model says of itself.
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

//! The model: what was loaded, planned and bound, ready to be shared by sessions.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skipstone_kernels::Isa;

use crate::bytes::Bytes;
use crate::cores::Cores;
use crate::engine::Engine;
use crate::error::{Error, Fault, PackageFault, Result};
use crate::graph::{Graph, Lowered, Source};
use crate::info::{Info, PackageInfo, PackedFor, Shapes};
use crate::operator::Packing;
use crate::options::{Options, Tune};
use crate::package::{self, Package};
use crate::plan::{Plan, Port, Program, Target, Variable};
use crate::session::Session;
use crate::tune::Tuner;

/// A loaded model. `Send + Sync`: share it by `Arc` or reference among threads, and give each
/// its own [`Session`].
pub struct Model {
    engine: Engine,
    info: Info,
    options: Options,
    target: Target,
    /// Where its sessions run, if the power mode makes a difference.
    cores: Option<Cores>,
    /// Kept only where an input is dynamic: plans for further shapes are made on demand.
    source: Option<Box<dyn Source>>,
    plans: Mutex<Plans>,
}

/// What was planned for sets of shapes, and what was learned of kernels for that.
struct Plans {
    engines: BTreeMap<Shapes, Engine>,
    tuner: Tuner,
}

impl Model {
    /// Opens the model file at `path` and plans it: a package (`.skip`), which is mapped, or where the front end is
    /// built in an `.onnx` file.
    ///
    /// # Errors
    /// A file that cannot be read, is malformed, or asks for what Skipstone does not do; a
    /// dynamic input that `options.shapes` leaves unbound; a package that is damaged, is for another instruction set
    /// or was not signed by `options.signer` (`package.*`).
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.display().to_string(), source };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        match package::map(&file, 0, len, path) {
            Ok(bytes) => Self::from_package(&bytes, options),
            Err(Error::Invalid { fault: Fault::Package(PackageFault::Magic), .. }) => Self::open_other(path, options),
            Err(e) => Err(e),
        }
    }

    /// Opens a package that is a part of a file, such as an asset in an app's archive: `len` bytes from `offset` on.
    /// It is mapped; the file may be closed, but must stay as it is.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_part(file: &File, offset: u64, len: u64, options: &Options) -> Result<Self> {
        Self::from_package(&package::map(file, offset, len, Path::new("package"))?, options)
    }

    /// Opens a model given as bytes, which are copied: a package, or where the front end is built in an ONNX file
    /// without external data.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], options: &Options) -> Result<Self> {
        if package::is_package(bytes) {
            return Self::from_package(&Bytes::copy_of(bytes)?, options);
        }
        #[cfg(feature = "onnx")]
        if options.signer.is_none() {
            let (source, info) = crate::onnx::from_bytes(bytes, &options.limits.file, &options.shapes)?;
            return Self::from_source(source, info, options);
        }
        Err(package::not_one())
    }

    /// Opens the file at `path`, which is no package.
    fn open_other(path: &Path, options: &Options) -> Result<Self> {
        #[cfg(feature = "onnx")]
        if options.signer.is_none() {
            let (source, info) = crate::onnx::read(path, &options.limits.file, &options.shapes)?;
            return Self::from_source(source, info, options);
        }
        let _ = (path, options);
        Err(package::not_one())
    }

    fn from_package(bytes: &Bytes, options: &Options) -> Result<Self> {
        let (mut target, cores) = target(options)?;
        let Package { graph, packings, packed_for, info, signer } = Package::read(bytes, options.signer.as_ref())?;
        if let Some(packed_for) = packed_for {
            packed_for.check(asked_isa(options)?)?;
            let PackedFor { isa, memory, precision, .. } = packed_for;
            target = Target { isa, memory, precision, ..target };
        }
        // What was packed was chosen, too.
        let tune = if packed_for.is_some() { &Tune::Model } else { &options.tune };
        let mut tuner = Tuner::new(tune, target)?;
        options.limits.check_graph(&graph)?;
        tuner.tune(&graph, target, cores.as_ref())?;
        let warning = info.metadata.get(package::WARNING).cloned();
        let engine = native(graph, target, &packings, &tuner, warning, options)?;
        let package = Some(PackageInfo { packed_for, signer, bytes: bytes.len() });
        Ok(Self::assemble(engine, Info { package, ..info }, options, (target, cores), tuner, None))
    }

    /// Plans a graph made by hand.
    ///
    /// # Errors
    /// A graph that breaks its invariants, or a step that no kernel takes.
    #[cfg(any(feature = "passes", test))]
    pub fn from_graph(graph: Graph, options: &Options) -> Result<Self> {
        graph.check()?;
        let (target, cores) = target(options)?;
        let mut tuner = Tuner::new(&options.tune, target)?;
        let engine = engine(Lowered::Graph(graph), target, cores.as_ref(), &mut tuner, options)?;
        Ok(Self::assemble(engine, Info::default(), options, (target, cores), tuner, None))
    }

    /// Plans a graph as it is, without the passes.
    #[cfg(test)]
    pub(crate) fn of_optimized(graph: Graph, options: &Options) -> Result<Self> {
        let (target, cores) = target(options)?;
        let tuner = Tuner::new(&options.tune, target)?;
        let engine = native(graph, target, &[], &tuner, None, options)?;
        Ok(Self::assemble(engine, Info::default(), options, (target, cores), tuner, None))
    }

    #[cfg(feature = "onnx")]
    fn from_source(source: impl Source + 'static, info: Info, options: &Options) -> Result<Self> {
        let (target, cores) = target(options)?;
        let mut tuner = Tuner::new(&options.tune, target)?;
        let lowered = source.lower(&options.shapes)?;
        // The weights it holds go before they are packed, if no other shapes will want them.
        let source: Option<Box<dyn Source>> = if source.is_dynamic() { Some(Box::new(source)) } else { None };
        let engine = engine(lowered, target, cores.as_ref(), &mut tuner, options)?;
        Ok(Self::assemble(engine, info, options, (target, cores), tuner, source))
    }

    fn assemble(
        engine: Engine,
        info: Info,
        options: &Options,
        (target, cores): (Target, Option<Cores>),
        tuner: Tuner,
        source: Option<Box<dyn Source>>,
    ) -> Self {
        let engines = BTreeMap::from([(options.shapes.clone(), engine.clone())]);
        let plans = Mutex::new(Plans { engines, tuner });
        Self { engine, info, options: options.clone(), target, cores, source, plans }
    }

    /// A session for the shapes of the options that the model was opened with.
    ///
    /// # Errors
    /// A model with more inputs than a session takes.
    pub fn session(&self) -> Result<Session> {
        Session::new(self.engine.clone(), self.threads(), self.cores.clone(), &self.options.limits)
    }

    /// A session for other shapes of the dynamic inputs; each set of shapes is planned once.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model without dynamic inputs; else as for
    /// [`open`](Self::open).
    pub fn session_for(&self, shapes: &Shapes) -> Result<Session> {
        let mut plans = self.plans();
        let engine = match (plans.engines.get(shapes), &self.source) {
            (Some(engine), _) => engine.clone(),
            (None, Some(source)) => {
                let lowered = source.lower(shapes)?;
                let engine = engine(lowered, self.target, self.cores.as_ref(), &mut plans.tuner, &self.options)?;
                plans.engines.insert(shapes.clone(), engine.clone());
                engine
            }
            (None, None) => {
                return Err(Error::Unsupported {
                    node: "graph".into(),
                    reason: "no input of this model is dynamic, its shapes are fixed".into(),
                });
            }
        };
        drop(plans);
        Session::new(engine, self.threads(), self.cores.clone(), &self.options.limits)
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the kernels' times, to be stored: measured with [`Tune::Measure`] for all shapes that there was
    /// a session for, or as given with [`Tune::Stored`]; `None` with [`Tune::Model`] and of a package that is packed
    /// for one instruction set.
    #[cfg(any(feature = "tuning", test))]
    #[must_use]
    pub fn tuning(&self) -> Option<Arc<crate::plan::Tuning>> {
        self.plans().tuner.tuning().cloned()
    }

    /// What the file says of itself.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The plan; `None` if the front end runs the model whole (see
    /// [`fallback_reason`](Self::fallback_reason)).
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.engine.plan()
    }

    /// A fault of Skipstone that makes the model slower than it should be, not wrong: to be shown, and reported.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.plan()?.warning.as_deref()
    }

    /// Why the model is not planned but run whole by the front end.
    #[must_use]
    pub fn fallback_reason(&self) -> Option<&str> {
        match &self.engine {
            Engine::Native(_) => None,
            Engine::Foreign(model) => Some(&model.reason),
        }
    }

    /// Inputs, in order.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        self.engine.inputs()
    }

    /// Inputs that every session holds itself: settings, and state that is carried from run to run.
    #[must_use]
    pub fn variables(&self) -> &[Variable] {
        self.engine.variables()
    }

    /// Outputs, in order. Where the front end runs the model whole, a shape that depends on
    /// the data reads as a scalar.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        self.engine.outputs()
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.target.isa
    }

    /// Threads of a session: those of the options, or as many as the power mode has cores.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.target.threads
    }

    /// The options it was opened with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// Makes what runs a model of what a front end made of it.
fn engine(
    lowered: Lowered,
    target: Target,
    cores: Option<&Cores>,
    tuner: &mut Tuner,
    options: &Options,
) -> Result<Engine> {
    match lowered {
        #[cfg_attr(
            not(any(feature = "passes", test)),
            expect(unused_mut, reason = "packages hold what the passes made")
        )]
        Lowered::Graph(mut graph) => {
            #[cfg(any(feature = "passes", test))]
            let warning = crate::graph::optimize(&mut graph)?;
            #[cfg(not(any(feature = "passes", test)))]
            let warning = None;
            options.limits.check_graph(&graph)?;
            tuner.tune(&graph, target, cores)?;
            native(graph, target, &[], tuner, warning, options)
        }
        Lowered::Foreign(model) => {
            options.limits.check_ports(model.inputs.iter().chain(&model.outputs), 0)?;
            Ok(Engine::Foreign(Arc::new(model)))
        }
    }
}

/// Plans a graph that has been through the passes.
fn native(
    mut graph: Graph,
    target: Target,
    packings: &[Option<Packing>],
    tuner: &Tuner,
    warning: Option<String>,
    options: &Options,
) -> Result<Engine> {
    let removed = std::mem::take(&mut graph.removed);
    let plan = Plan::with(graph, target, packings, tuner.tuning().map(AsRef::as_ref))?;
    options.limits.check_plan(&plan)?;
    let mut plan = Plan { warning, removed, ..plan };
    // A package stays mapped; a model file is let go when its weights are packed.
    if packings.is_empty() {
        plan.detach()?;
    }
    Ok(Engine::Native(Arc::new(Program::new(plan)?)))
}

/// The instruction set that `options` or else the environment asks for.
fn asked_isa(options: &Options) -> Result<Option<Isa>> {
    match (options.isa, std::env::var("SKIPSTONE_ISA")) {
        (Some(isa), _) => Ok(Some(isa)),
        (None, Ok(name)) if !name.is_empty() => name.parse().map(Some).map_err(|_| unavailable(&name)),
        (None, _) => Ok(None),
    }
}

/// The target that `options` and the environment ask for, and the cores.
fn target(options: &Options) -> Result<(Target, Option<Cores>)> {
    let asked = asked_isa(options)?;
    let isa = asked.unwrap_or_else(Isa::detect);
    if !isa.is_available() {
        return Err(unavailable(isa.name()));
    }
    let cores = Cores::choose(options.power);
    let threads = options.threads.min(cores.as_ref().map_or(usize::MAX, Cores::count)).max(1);
    Ok((Target { isa, threads, memory: options.memory, precision: options.precision }, cores))
}

fn unavailable(name: &str) -> Error {
    let available = Isa::available().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    Error::IsaUnavailable { isa: name.to_owned(), available }
}

//! The model: what was loaded, planned and bound, ready to be shared by sessions.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skipstone_kernels::Isa;
use skipstone_kernels::arena::AlignedVec;

use crate::bytes::Bytes;
use crate::cores::Cores;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::measure::Tuner;
use crate::ops::{Foreign, Packing};
use crate::options::{Options, Tune};
use crate::package::{self, Package, PackageInfo, PackedFor};
use crate::plan::{Plan, Port, Program, Target, Variable};
use crate::session::{Session, Value, find};

/// Shapes of dynamic inputs, by name.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Values of variables, by name.
pub(crate) type Settings = BTreeMap<String, Value>;

/// Where graphs come from: a front end that can lower one for any set of input shapes.
pub(crate) trait Source: Send + Sync {
    /// Whether some input has a dimension that is not a number.
    #[cfg(feature = "onnx")]
    fn is_dynamic(&self) -> bool;

    /// The graph for these shapes.
    fn lower(&self, shapes: &Shapes) -> Result<Lowered>;
}

/// What a front end makes of a model.
pub(crate) enum Lowered {
    /// A graph of ours.
    #[cfg_attr(
        not(any(feature = "passes", test)),
        expect(dead_code, reason = "packages hold graphs behind the passes")
    )]
    Graph(Graph),
    /// A model whose shapes depend on its data: the front end runs it whole.
    #[cfg_attr(not(feature = "tract"), expect(dead_code, reason = "only a fallback has such models"))]
    Foreign(ForeignModel),
}

/// A model that the front end runs as a whole.
pub struct ForeignModel {
    pub(crate) foreign: Box<dyn Foreign>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// Why it could not be planned.
    pub reason: String,
}

/// What runs a model: our plan, or the front end.
#[derive(Clone)]
pub(crate) enum Engine {
    Native(Arc<Program>),
    Foreign(Arc<ForeignModel>),
}

impl Engine {
    fn new(
        lowered: Lowered,
        target: Target,
        cores: Option<&Cores>,
        tuner: &mut Tuner,
        settings: &Settings,
    ) -> Result<Self> {
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
                tuner.tune(&graph, target, cores)?;
                Self::native(graph, target, &[], tuner, warning, settings)
            }
            Lowered::Foreign(model) => match settings.keys().next() {
                Some(name) => find(&[], name).map(|_| Self::Foreign(Arc::new(model))),
                None => Ok(Self::Foreign(Arc::new(model))),
            },
        }
    }

    fn native(
        mut graph: Graph,
        target: Target,
        packings: &[Option<Packing>],
        tuner: &Tuner,
        warning: Option<String>,
        settings: &Settings,
    ) -> Result<Self> {
        let removed = std::mem::take(&mut graph.removed);
        let plan = Plan::with(graph, target, packings, tuner.tuning().map(AsRef::as_ref))?;
        let mut plan = Plan { warning, removed, ..plan };
        for (name, value) in settings {
            let (at, variable) = find(&plan.variables, name)?;
            plan.variables[at].initial = Some(Arc::new(value.tensor(name, &variable.port.fact)?));
        }
        // A package stays mapped; a model file is let go when its weights are packed.
        if packings.is_empty() {
            plan.detach();
        }
        Ok(Self::Native(Arc::new(Program::new(plan)?)))
    }

    pub(crate) fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Native(program) => Some(program.plan()),
            Self::Foreign(_) => None,
        }
    }

    pub(crate) fn inputs(&self) -> &[Port] {
        match self {
            Self::Native(program) => &program.plan().inputs,
            Self::Foreign(model) => &model.inputs,
        }
    }

    pub(crate) fn variables(&self) -> &[Variable] {
        self.plan().map_or(&[], |plan| &plan.variables)
    }

    pub(crate) fn outputs(&self) -> &[Port] {
        match self {
            Self::Native(program) => &program.plan().outputs,
            Self::Foreign(model) => &model.outputs,
        }
    }
}

/// What a model file says of itself.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Pairs of the file's `metadata_props`; Skipstone's own begin with `skipstone.`.
    pub metadata: BTreeMap<String, String>,
    /// Number of elements in the model's weights.
    pub parameters: u64,
    /// Bytes of the model's weights as stored.
    pub weight_bytes: u64,
    /// Inputs whose batch (the first dimension, the only one that the file leaves open) was not bound: 1 was assumed.
    pub assumed_batch: Vec<String>,
    /// What package it came in.
    pub package: Option<PackageInfo>,
}

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
            Err(Error::Invalid { code: "package.magic", .. }) => Self::open_other(path, options),
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
            return Self::from_package(&AlignedVec::from_slice(bytes).into(), options);
        }
        #[cfg(feature = "onnx")]
        if options.signer.is_none() {
            return crate::onnx::from_bytes(bytes, options);
        }
        Err(package::not_one())
    }

    /// Opens the file at `path`, which is no package.
    fn open_other(path: &Path, options: &Options) -> Result<Self> {
        #[cfg(feature = "onnx")]
        if options.signer.is_none() {
            return crate::onnx::open(path, options);
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
        tuner.tune(&graph, target, cores.as_ref())?;
        let warning = info.metadata.get(package::WARNING).cloned();
        let engine = Engine::native(graph, target, &packings, &tuner, warning, &options.settings)?;
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
        let engine = Engine::new(Lowered::Graph(graph), target, cores.as_ref(), &mut tuner, &options.settings)?;
        Ok(Self::assemble(engine, Info::default(), options, (target, cores), tuner, None))
    }

    /// Plans a graph as it is, without the passes.
    #[cfg(test)]
    pub(crate) fn of_optimized(graph: Graph, options: &Options) -> Result<Self> {
        let (target, cores) = target(options)?;
        let tuner = Tuner::new(&options.tune, target)?;
        let engine = Engine::native(graph, target, &[], &tuner, None, &options.settings)?;
        Ok(Self::assemble(engine, Info::default(), options, (target, cores), tuner, None))
    }

    #[cfg(feature = "onnx")]
    pub(crate) fn from_source(source: impl Source + 'static, info: Info, options: &Options) -> Result<Self> {
        let (target, cores) = target(options)?;
        let mut tuner = Tuner::new(&options.tune, target)?;
        let lowered = source.lower(&options.shapes)?;
        // The weights it holds go before they are packed, if no other shapes will want them.
        let source: Option<Box<dyn Source>> = if source.is_dynamic() { Some(Box::new(source)) } else { None };
        let engine = Engine::new(lowered, target, cores.as_ref(), &mut tuner, &options.settings)?;
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
        Session::new(self.engine.clone(), self.threads(), self.cores.clone())
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
                let (cores, settings) = (self.cores.as_ref(), &self.options.settings);
                let engine = Engine::new(lowered, self.target, cores, &mut plans.tuner, settings)?;
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
        Session::new(engine, self.threads(), self.cores.clone())
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

    /// The plan; `None` where the front end runs the model whole (see
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

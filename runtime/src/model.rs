//! The model: loaded, planned and bound, ready to be shared by sessions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skipstone_kernels::Isa;

use crate::bytes::Bytes;
use crate::cores::Cores;
use crate::engine::{Engine, add_forecasts};
use crate::error::{Error, Fault, PackageFault, Result};
use crate::expert_use::ExpertUse;
use crate::graph::{Graph, Lowered, Source};
use crate::info::{Info, PackageInfo, PackedFor, Shapes};
use crate::operator::Packing;
use crate::options::{Options, Tune};
use crate::package::{self, Package, StoredGraph};
use crate::plan::{Plan, Port, Program, Target, Variable};
use crate::reserve;
use crate::session::Session;
use crate::tensor::Shape;
use crate::tune::Tuner;

/// A loaded model. `Send + Sync`: share it by `Arc` or reference between threads, and give each its own [`Session`].
pub struct Model {
    engine: Engine,
    /// Of a package for several shapes, those for the others.
    others: Vec<Engine>,
    info: Info,
    options: Options,
    target: Target,
    /// The cores for its sessions, if the power mode makes a difference.
    cores: Option<Cores>,
    /// Kept only if an input is dynamic: plans for further shapes are made on demand.
    source: Option<Box<dyn Source>>,
    plans: Mutex<Plans>,
}

/// Plans for sets of shapes, and the measured times of kernels.
struct Plans {
    engines: BTreeMap<Shapes, Engine>,
    tuner: Tuner,
}

impl Model {
    /// Opens the model file at `path` and plans it: a package (`.skip`), which is mapped, or, if the importer is built
    /// in, an `.onnx` file.
    ///
    /// # Errors
    /// A file that cannot be read, is malformed, or needs what Skipstone does not support; a dynamic input without a
    /// shape in `options.shapes`; a package that is damaged, is for another instruction set or was not signed by
    /// `options.signer` (`package.*`).
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

    /// Opens a package that is a part of a file, such as an asset in an app's archive: `len` bytes at `offset`. It is
    /// mapped; the file may be closed, but must not change.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_part(file: &File, offset: u64, len: u64, options: &Options) -> Result<Self> {
        Self::from_package(&package::map(file, offset, len, Path::new("package"))?, options)
    }

    /// Opens a model from bytes, which are copied: a package, or, if the importer is built in, an ONNX file without
    /// external data.
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

    /// Opens the file at `path`, which is not a package.
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
        let Package { graphs, packed_for, info, signer } = Package::read(bytes, options.signer.as_ref())?;
        if let Some(packed_for) = packed_for {
            packed_for.check(requested_isa(options)?)?;
            let PackedFor { isa, memory, precision, .. } = packed_for;
            target = Target { isa, memory, precision, ..target };
        }
        // For packed weights, the kernels are already chosen.
        let tune = if packed_for.is_some() { &Tune::Model } else { &options.tune };
        let mut tuner = Tuner::new(tune, target)?;
        let mut engines = reserve::empty(graphs.len())?;
        for StoredGraph { graph, packings } in graphs {
            options.limits.check_graph(&graph)?;
            tuner.tune(&graph, target, cores.as_ref())?;
            let warning = info.metadata.get(package::WARNING).map(|text| reserve::text(text)).transpose()?;
            engines.push(native(graph, target, &packings, &tuner, warning, options)?);
        }
        // The shapes of the options choose the plan that the model describes; without any it is the first.
        let asked = |engine: &Engine| engine.inputs().iter().all(|port| is_asked(port, &options.shapes));
        let engine = engines.remove(engines.iter().position(asked).unwrap_or(0));
        let package = Some(PackageInfo { packed_for, signer, bytes: bytes.len() });
        let model = Self::assemble(engine, Info { package, ..info }, options, (target, cores), tuner, None);
        Ok(Self { others: engines, ..model })
    }

    /// Plans a graph made in code.
    ///
    /// # Errors
    /// A graph that breaks its invariants, or a step that no kernel supports.
    #[cfg(any(feature = "passes", test))]
    pub fn from_graph(graph: Graph, options: &Options) -> Result<Self> {
        graph.check()?;
        let (target, cores) = target(options)?;
        let mut tuner = Tuner::new(&options.tune, target)?;
        let engine = engine(Lowered::Graph(graph), target, cores.as_ref(), &mut tuner, options)?;
        Ok(Self::assemble(engine, Info::default(), options, (target, cores), tuner, None))
    }

    /// Plans a graph without running the passes.
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
        // Its weights are freed before they are packed, unless other shapes will need them.
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
        Self { engine, others: Vec::new(), info, options: options.clone(), target, cores, source, plans }
    }

    /// A session for the shapes of the options that the model was opened with; of a package for several shapes, one for
    /// all of them, which runs the plan for the shapes that it is given.
    ///
    /// # Errors
    /// A model with more inputs than a session takes.
    pub fn session(&self) -> Result<Session> {
        self.session_of(self.engine.clone(), &self.others)
    }

    fn session_of(&self, engine: Engine, others: &[Engine]) -> Result<Session> {
        let engines = std::iter::once(engine).chain(others.iter().cloned()).collect();
        Session::new(engines, self.threads(), self.cores.clone(), &self.options.limits)
    }

    /// A session for other shapes of the dynamic inputs; each set of shapes is planned once. Of a package, for those that
    /// it has a plan for.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model without dynamic inputs, or a package without such a plan; otherwise as for [`open`](Self::open).
    pub fn session_for(&self, shapes: &Shapes) -> Result<Session> {
        let asked = |engine: &&Engine| engine.inputs().iter().all(|port| is_asked(port, shapes));
        if let Some(engine) = self.others.iter().find(asked) {
            return self.session_of(engine.clone(), &[]);
        }
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
        self.session_of(engine, &[])
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The measured times of kernels, for storing: measured with [`Tune::Measure`] for all shapes that had a session,
    /// or as given with [`Tune::Stored`]; `None` with [`Tune::Model`] and for a package that is packed for one
    /// instruction set.
    #[cfg(any(feature = "tuning", test))]
    #[must_use]
    pub fn tuning(&self) -> Option<Arc<crate::plan::Tuning>> {
        self.plans().tuner.tuning().cloned()
    }

    /// Information stored in the model file.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The plan; `None` if the fallback runs the whole model (see [`fallback_reason`](Self::fallback_reason)).
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.engine.plan()
    }

    /// The shapes of the inputs, in order, for each plan of the model: several only in a package for several shapes.
    pub fn shapes(&self) -> impl Iterator<Item = Vec<&Shape>> {
        self.engines().map(|engine| engine.inputs().iter().map(|port| &port.fact.shape).collect())
    }

    /// The engine for each set of shapes.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &Engine> {
        std::iter::once(&self.engine).chain(&self.others)
    }

    /// Work of one run: multiply-adds, and elements read and written. If the fallback runs the whole model, as far as
    /// it does not depend on the data.
    #[must_use]
    pub fn work(&self) -> u64 {
        match &self.engine {
            Engine::Native(program) => program.plan().work,
            Engine::Foreign(model) => model.foreign.0.work(),
        }
    }

    /// A bug in Skipstone that makes the model slower than it should be, but not wrong: show and report it.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.plan()?.warning.as_deref()
    }

    /// Why the model is not planned, but run as a whole by the fallback.
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

    /// Inputs that every session holds itself: settings, and state that is carried between runs.
    #[must_use]
    pub fn variables(&self) -> &[Variable] {
        self.engine.variables()
    }

    /// Outputs, in order. If the fallback runs the whole model, a shape that depends on the data is reported as a
    /// scalar.
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

    /// What its experts needed since it was opened; `None` without [`Options::expert_budget`], or without experts.
    #[must_use]
    pub fn expert_use(&self) -> Option<ExpertUse> {
        match &self.engine {
            Engine::Native(program) => Some(program.experts()?.cache.usage()),
            Engine::Foreign(_) => None,
        }
    }

    /// The options it was opened with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// Whether an input has the shape that is asked for, if any is.
fn is_asked(port: &Port, shapes: &Shapes) -> bool {
    shapes.get(&port.name).is_none_or(|dims| port.fact.shape.dims() == dims.as_slice())
}

/// Makes an engine from a lowered model.
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
    // A library without the operator for experts has no cache for them.
    let budget = options.expert_budget.filter(|_| cfg!(any(not(operator_subset), Routed)));
    let mut packings = Cow::Borrowed(packings);
    let forecasts = if budget.is_some() { add_forecasts(&mut graph, packings.to_mut()) } else { Vec::new() };
    let plan = Plan::with(graph, target, &packings, tuner.tuning().map(AsRef::as_ref))?;
    options.limits.check_plan(&plan)?;
    let mut plan = Plan { warning, removed, ..plan };
    // A package stays mapped; a model file is released when its weights are packed.
    if packings.is_empty() {
        plan.detach()?;
    }
    let mut program = Program::new(plan)?;
    if let Some(budget) = budget {
        program.keep_experts(budget, &forecasts)?;
    }
    Ok(Engine::Native(Arc::new(program)))
}

/// The instruction set requested by `options` or else by the environment.
fn requested_isa(options: &Options) -> Result<Option<Isa>> {
    match (options.isa, std::env::var("SKIPSTONE_ISA")) {
        (Some(isa), _) => Ok(Some(isa)),
        (None, Ok(name)) if !name.is_empty() => name.parse().map(Some).map_err(|_| unavailable(&name)),
        (None, _) => Ok(None),
    }
}

/// The target requested by `options` and the environment, and the cores.
fn target(options: &Options) -> Result<(Target, Option<Cores>)> {
    let asked = requested_isa(options)?;
    let isa = asked.unwrap_or_else(Isa::detect);
    if !isa.is_available() {
        return Err(unavailable(isa.name()));
    }
    let cores = Cores::choose(options.power);
    let threads = options.threads.min(cores.as_ref().map_or(usize::MAX, Cores::count)).max(1);
    Ok((Target { isa, threads, memory: options.memory, precision: options.precision }, cores))
}

pub(crate) fn unavailable(name: &str) -> Error {
    let available = Isa::available().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    Error::IsaUnavailable { isa: name.to_owned(), available }
}

//! The model: what was loaded, planned and bound, ready to be shared by sessions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use skipstone_kernels::Isa;

use crate::cores::Cores;
use crate::error::{Error, Result};
use crate::graph::{self, Graph};
use crate::ops::Foreign;
use crate::options::Options;
use crate::plan::{Plan, Port, Program, Target};
use crate::session::Session;

/// Shapes of dynamic inputs, by name.
pub type Shapes = BTreeMap<String, Vec<usize>>;

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
    Graph(Graph),
    /// A model whose shapes depend on its data: the front end runs it whole.
    #[cfg_attr(not(feature = "onnx"), expect(dead_code, reason = "only a front end has such models"))]
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
    fn new(lowered: Lowered, target: Target) -> Result<Self> {
        Ok(match lowered {
            Lowered::Graph(mut graph) => {
                graph::optimise(&mut graph)?;
                Self::Native(Arc::new(Program::new(Plan::new(graph, target)?)?))
            }
            Lowered::Foreign(model) => Self::Foreign(Arc::new(model)),
        })
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
    plans: Mutex<BTreeMap<Shapes, Engine>>,
}

impl Model {
    /// Loads the model file at `path` (`.onnx`) and plans it.
    ///
    /// # Errors
    /// A file that cannot be read, is malformed, or asks for what Skipstone does not do; a
    /// dynamic input that `options.shapes` leaves unbound.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        #[cfg(feature = "onnx")]
        return crate::onnx::open(path.as_ref(), options);
        #[cfg(not(feature = "onnx"))]
        return Err(Error::Unsupported {
            node: path.as_ref().display().to_string(),
            reason: format!("this build has no ONNX front end (options: {options:?})"),
        });
    }

    /// Loads a model from the bytes of an ONNX file; external data is refused.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    #[cfg(feature = "onnx")]
    pub fn from_onnx(bytes: &[u8], options: &Options) -> Result<Self> {
        crate::onnx::from_bytes(bytes, options)
    }

    /// Plans a graph made by hand.
    ///
    /// # Errors
    /// A graph that breaks its invariants, or a step that no kernel takes.
    pub fn from_graph(graph: Graph, options: &Options) -> Result<Self> {
        graph.check()?;
        let (target, cores) = target(options)?;
        let engine = Engine::new(Lowered::Graph(graph), target)?;
        Ok(Self::assemble(engine, Info::default(), options, (target, cores), None))
    }

    #[cfg(feature = "onnx")]
    pub(crate) fn from_source(source: impl Source + 'static, info: Info, options: &Options) -> Result<Self> {
        let (target, cores) = target(options)?;
        let lowered = source.lower(&options.shapes)?;
        // The weights it holds go before they are packed, if no other shapes will want them.
        let source: Option<Box<dyn Source>> = if source.is_dynamic() { Some(Box::new(source)) } else { None };
        Ok(Self::assemble(Engine::new(lowered, target)?, info, options, (target, cores), source))
    }

    fn assemble(
        engine: Engine,
        info: Info,
        options: &Options,
        (target, cores): (Target, Option<Cores>),
        source: Option<Box<dyn Source>>,
    ) -> Self {
        let plans = Mutex::new(BTreeMap::from([(options.shapes.clone(), engine.clone())]));
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
        let mut plans = self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let engine = match (plans.get(shapes), &self.source) {
            (Some(engine), _) => engine.clone(),
            (None, Some(source)) => {
                let engine = Engine::new(source.lower(shapes)?, self.target)?;
                plans.insert(shapes.clone(), engine.clone());
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

/// The target that `options` and the environment ask for, and the cores.
fn target(options: &Options) -> Result<(Target, Option<Cores>)> {
    let asked = match (options.isa, std::env::var("SKIPSTONE_ISA")) {
        (Some(isa), _) => Some(isa),
        (None, Ok(name)) if !name.is_empty() => Some(name.parse().map_err(|_| unavailable(&name))?),
        (None, _) => None,
    };
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

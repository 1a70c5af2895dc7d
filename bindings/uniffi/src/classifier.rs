//! A classifier: a camera frame in, named classes out.

use std::sync::Arc;
use std::time::Instant;

use skipstone::Session;
use skipstone::classify::{self, Labels, Settings};

use crate::error::{Result, guarded};
use crate::frame::FrameAddress;
use crate::live::{Live, Owner};
use crate::measure::{Latency, Memory, StepTime};
use crate::model::Model;

/// Classifies frames. Any thread may call at any time; runs of one classifier wait for each other.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Classifier {
    pub(crate) live: Live<Running>,
    model: Arc<Model>,
    info: ClassifierInfo,
}

/// How a model's output becomes scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum Activation {
    /// The classes exclude each other: the scores sum to 1.
    Softmax,
    /// Each class is scored on its own.
    Sigmoid,
    /// The output unchanged.
    None,
}

impl From<Activation> for classify::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Softmax => Self::Softmax,
            Activation::Sigmoid => Self::Sigmoid,
            Activation::None => Self::None,
        }
    }
}

/// What a classifier should do differently from what its model says.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct ClassifierOptions {
    /// How the output becomes scores; if absent, as the model's metadata or its last operator says.
    pub activation: Option<Activation>,
    /// The lowest score that is reported.
    pub threshold: Option<f32>,
    /// The only classes that may be reported, by label or as `class 7`; all if empty.
    pub allow: Vec<String>,
    /// Classes that are never reported; not together with `allow`.
    pub deny: Vec<String>,
    /// Language of the display names, such as `de` or `pt-BR`.
    pub locale: Option<String>,
    /// The text of a labels file, one per line, instead of the model's labels.
    pub labels: Option<String>,
}

/// How a classifier makes its input and its scores, and where that was specified.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct ClassifierInfo {
    /// Names of the classes, in the order of the output; empty if the model has none.
    pub labels: Vec<String>,
    /// The same in the requested language.
    pub display_names: Vec<String>,
    /// What the scores are, such as `softmax inside the model, by the model's last operator, prob`.
    pub scores: String,
    /// How images are normalized.
    pub normalization: Normalization,
    /// The shorter side, in pixels, to which a photo may be shrunk while it is decoded: from there on nothing is enlarged.
    pub photo_side: u32,
}

/// The values subtracted from each channel of an image (scaled to 0..1), and those it is then divided by.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Normalization {
    /// Mean of the channels.
    pub mean: Vec<f32>,
    /// Standard deviation of the channels.
    pub std: Vec<f32>,
    /// Where this was specified, such as `by the model's metadata`.
    pub origin: String,
}

impl From<&classify::Normalization> for Normalization {
    fn from(it: &classify::Normalization) -> Self {
        let unit = it.scale * 255.0;
        let scaled = |values: &[f32]| values.iter().map(|value| value / unit).collect();
        Self { mean: scaled(&it.mean), std: scaled(&it.std), origin: it.origin.to_string() }
    }
}

/// A class that a frame may show, with its score.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Prediction {
    /// Index of the class in the model's output.
    pub index: u32,
    /// Its name.
    pub label: String,
    /// Its score: a probability, unless the model or the options say otherwise.
    pub score: f32,
}

/// The classes of a frame, and the time it took.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Classification {
    /// The best classes, best first.
    pub predictions: Vec<Prediction>,
    /// Milliseconds from the frame to the model's input.
    pub prepare_ms: f64,
    /// Milliseconds from the model's input to the classes.
    pub run_ms: f64,
}

pub(crate) struct Running {
    classifier: classify::Classifier,
    /// The model's input, overwritten for every frame.
    prepared: Vec<f32>,
}

impl Owner for Running {
    const WHAT: &'static str = "classifier";

    fn session(&mut self) -> &mut Session {
        self.classifier.session()
    }
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Classifier {
    /// A classifier of `model`, which must have one image input and class scores as its first output.
    ///
    /// # Errors
    /// `Model` if it does not.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn new(model: Arc<Model>) -> Result<Arc<Self>> {
        Self::with(model, ClassifierOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// `Model`; `Input` for a class that does not exist.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn with(model: Arc<Model>, options: ClassifierOptions) -> Result<Arc<Self>> {
        guarded(|| {
            let runtime = model.runtime();
            let labels = options.labels.as_deref().map(Labels::parse);
            let settings = Settings {
                activation: options.activation.map(Into::into),
                threshold: options.threshold.map(|least| vec![least]),
                allow: options.allow,
                deny: options.deny,
                locale: options.locale,
                ..Settings::default()
            };
            let classifier = classify::Classifier::new(runtime, &settings, labels)?;
            let elements = runtime.inputs().first().map_or(0, |input| input.fact.shape.elements());
            let names = |labels: &Labels| (0..labels.len()).map(|index| labels.name(index)).collect();
            let info = ClassifierInfo {
                labels: names(classifier.labels()),
                display_names: names(classifier.display_names()),
                scores: classifier.head().to_string(),
                normalization: classifier.normalization().into(),
                photo_side: u32::try_from(classifier.photo_side()).unwrap_or(u32::MAX),
            };
            let live = Live::new(Running { classifier, prepared: vec![0.0; elements] });
            Ok(Arc::new(Self { live, model, info }))
        })
    }

    /// How this classifier makes its input and its scores.
    pub fn info(&self) -> ClassifierInfo {
        self.info.clone()
    }

    /// The `top` best classes of a frame, best first. The frame's bytes must not change until this returns.
    ///
    /// # Errors
    /// `Frame` or `Input` for an inconsistent frame, `Cancelled`, `Deadline`, `Closed`.
    pub fn classify_frame_at(&self, frame: FrameAddress, top: u32) -> Result<Classification> {
        self.live.run(|running| {
            self.model.check_source()?;
            // SAFETY: the caller promises that the planes do not change until this returns; the frame does not outlive
            // the closure.
            let frame = unsafe { frame.borrow() }?;
            let began = Instant::now();
            running.classifier.prepare_frame(&frame, &mut running.prepared)?;
            let prepared = Instant::now();
            let scores = running.classifier.scores(&running.prepared)?;
            let best = running.classifier.rank(&scores, usize::try_from(top).unwrap_or(usize::MAX));
            let done = Instant::now();
            let named = |p: classify::Prediction| Prediction {
                index: u32::try_from(p.index).unwrap_or(u32::MAX),
                label: p.label,
                score: p.score,
            };
            Ok(Classification {
                predictions: best.into_iter().map(named).collect(),
                prepare_ms: (prepared - began).as_secs_f64() * 1e3,
                run_ms: (done - prepared).as_secs_f64() * 1e3,
            })
        })
    }

    /// Stops the current run, or otherwise the next, which then returns `Cancelled`.
    pub fn cancel(&self) {
        self.live.cancel();
    }

    /// Withdraws a cancellation that no run has seen. Called before a run that may be cancelled from then on, so that a
    /// cancellation that came too late for an earlier run does not stop this one.
    pub fn forget_cancel(&self) {
        self.live.forget_cancel();
    }

    /// Sets a variable that the model leaves to its user, such as the threshold of an early exit. Waits for the current
    /// run. Values are elements in row-major order; bools are 0 and 1. Without a name, resets the state carried from run
    /// to run.
    ///
    /// # Errors
    /// `Input` for a name that is not a setting (the message lists the settings), and for values that do not fit;
    /// `Closed`.
    pub fn set_variable(&self, name: Option<String>, values: Vec<f64>) -> Result<()> {
        self.live.set(name.as_deref(), values)
    }

    /// Limits the time of every later run; `None` removes the limit.
    ///
    /// # Errors
    /// `Input` for a limit that is not a duration, `Closed`.
    pub fn set_deadline_ms(&self, ms: Option<f64>) -> Result<()> {
        self.live.set_deadline_ms(ms)
    }

    /// Statistics of the latest runs, from frame to classes.
    pub fn latency(&self) -> Latency {
        self.live.latency()
    }

    /// What the model and this classifier hold in memory.
    pub fn memory(&self) -> Memory {
        self.model.memory()
    }

    /// Starts or restarts the profile, which adds up the time of every step.
    ///
    /// # Errors
    /// `Closed`.
    pub fn start_profile(&self) -> Result<()> {
        self.live.start_profile()
    }

    /// The time of every step since the profile was started, in order; empty if it was not started.
    ///
    /// # Errors
    /// `Closed`.
    pub fn profile(&self) -> Result<Vec<StepTime>> {
        self.live.profile(&self.model)
    }

    /// Stops the current run and frees the memory. Later calls return `Closed`.
    pub fn close(&self) {
        self.live.close();
    }
}

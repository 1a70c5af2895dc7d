//! A session: tensors in, tensors out, for models that are not image classifiers.

use std::sync::Arc;

use skipstone::classify::FrameInput;
use skipstone::{Error, TensorView};

use crate::address;
use crate::error::{Result, SkipstoneError, guarded};
use crate::frame::FrameAddress;
use crate::live::{Live, Owner};
use crate::measure::{Latency, Memory, StepTime};
use crate::model::Model;

/// Runs a model on tensors. Any thread may call at any time; runs of one session wait for each other.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Session {
    pub(crate) live: Live<Running>,
    model: Arc<Model>,
}

/// The dense elements of a tensor, in native byte order. They must not move until the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct TensorAddress {
    /// Address of the first element: a multiple of the element size.
    pub address: u64,
    /// Size of all elements.
    pub length_bytes: u64,
}

pub(crate) struct Running {
    session: skipstone::Session,
    /// For each input what prepares frames for it, once there was a frame.
    frames: Vec<Option<FrameInput>>,
}

impl Owner for Running {
    const WHAT: &'static str = "session";

    fn session(&mut self) -> &mut skipstone::Session {
        &mut self.session
    }
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Session {
    /// A session of `model`.
    ///
    /// # Errors
    /// `Unsupported` for a model with more inputs than a session takes, or with an output whose shape is only known after
    /// a run: callers lend memory for outputs of the model's shapes.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn new(model: Arc<Model>) -> Result<Arc<Self>> {
        guarded(|| {
            let runtime = model.runtime();
            let measured = |index: &usize| runtime.plan().is_some_and(|plan| plan.is_measured(*index));
            if let Some(index) = (0..runtime.outputs().len()).find(measured) {
                let name = runtime.outputs().get(index).map_or("", |port| port.name.as_str());
                let reason =
                    format!("the shape of output '{name}' is only known after a run, which apps do not support");
                return Err(Error::Unsupported { node: name.to_owned(), reason }.into());
            }
            let frames = runtime.inputs().iter().map(|_| None).collect();
            let live = Live::new(Running { session: runtime.session()?, frames });
            Ok(Arc::new(Self { live, model }))
        })
    }

    /// Runs the model: reads `inputs` and writes `outputs`, whose count and lengths must be the model's. No output is
    /// written unless all of them fit.
    ///
    /// # Errors
    /// `Input` for a tensor that is missing, has the wrong length, or an impossible address; `Cancelled`, `Deadline`,
    /// `Closed`.
    pub fn run_at(&self, inputs: Vec<TensorAddress>, outputs: Vec<TensorAddress>) -> Result<()> {
        let model = self.model.runtime();
        expect(model.inputs().iter().map(|port| (port.name.as_str(), port.fact.bytes())), "input", &inputs)?;
        expect(model.outputs().iter().map(|port| (port.name.as_str(), port.fact.bytes())), "output", &outputs)?;
        self.live.run(|Running { session, .. }| {
            self.model.check_source()?;
            let mut views = Vec::with_capacity(inputs.len());
            for (port, at) in model.inputs().iter().zip(&inputs) {
                if at.address % port.fact.dtype.size() as u64 != 0 {
                    let message = format!("input '{}' is not aligned to its element size", port.name);
                    return Err(SkipstoneError::input("input.address", message));
                }
                // SAFETY: the caller promises that the bytes do not change until this returns; the views do not outlive
                // the closure.
                let bytes = unsafe { address::borrow(at.address, at.length_bytes) }?;
                let view = TensorView::from_bytes(port.fact.clone(), bytes);
                views.push(view.map_err(|e| SkipstoneError::input("input.size", e.to_string()))?);
            }
            session.run(&views)?;
            drop(views);
            for (index, at) in outputs.iter().enumerate() {
                let missing = || SkipstoneError::internal(format!("output {index} was not computed"));
                let output = session.output(index).ok_or_else(missing)?;
                // SAFETY: the caller lends these bytes for writing until this returns.
                unsafe { address::write(at.address, at.length_bytes, output.bytes()) }?;
            }
            Ok(())
        })
    }

    /// Writes the elements of input `index` for a camera frame to `output`: resized, cropped and normalized as the
    /// model's metadata says. Waits for the current run. The frame's bytes must not change until this returns.
    ///
    /// # Errors
    /// `Frame` or `Input` for an inconsistent frame; `Input` if there is no such input, or for an output of the wrong
    /// length or at an impossible address; `Model` for an input that is not an image; `Closed`.
    pub fn prepare_frame_at(&self, frame: FrameAddress, index: u32, output: TensorAddress) -> Result<()> {
        let model = self.model.runtime();
        let unknown = || {
            let message = format!("the model has {} inputs: there is no input {index}", model.inputs().len());
            SkipstoneError::input("input.unknown", message)
        };
        let port = model.inputs().get(index as usize).ok_or_else(unknown)?;
        self.live.between_runs(|Running { frames, .. }| {
            let place = frames.get_mut(index as usize).ok_or_else(unknown)?;
            let input = match place {
                Some(made) => made,
                None => place.insert(FrameInput::new(model, port)?),
            };
            // SAFETY: the caller promises that the planes do not change until this returns; the frame does not outlive
            // the closure.
            let frame = unsafe { frame.borrow() }?;
            // SAFETY: the caller lends these bytes for writing until this returns.
            unsafe { address::write(output.address, output.length_bytes, input.prepare(&frame)?) }
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

    /// Statistics of the latest runs.
    pub fn latency(&self) -> Latency {
        self.live.latency()
    }

    /// What the model and this session hold in memory.
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

/// Checks that `given` has as many tensors as `wanted`, of the same lengths, at possible addresses.
fn expect<'a>(
    wanted: impl ExactSizeIterator<Item = (&'a str, usize)>,
    what: &str,
    given: &[TensorAddress],
) -> Result<()> {
    if wanted.len() != given.len() {
        let message = format!("the model has {} {what}s, {} were given", wanted.len(), given.len());
        return Err(SkipstoneError::input("input.missing", message));
    }
    for ((name, bytes), at) in wanted.zip(given) {
        if at.length_bytes != bytes as u64 {
            let message = format!("{what} '{name}' has {bytes} bytes, {} were given", at.length_bytes);
            return Err(SkipstoneError::input("input.size", message));
        }
        address::check(at.address, at.length_bytes)?;
    }
    Ok(())
}

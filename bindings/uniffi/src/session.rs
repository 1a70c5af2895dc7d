//! A session: tensors in, tensors out, for models that are no image classifiers.

use std::sync::Arc;

use skipstone::TensorView;

use crate::address;
use crate::error::{Result, SkipstoneError, guarded};
use crate::live::{Live, Owner};
use crate::measure::{Latency, Memory, StepTime};
use crate::model::Model;
use crate::registry::Registry;

static SESSIONS: Registry<Session> = Registry::new("session");

/// Runs a model on tensors. Any thread may call at any time; runs of one session wait for each other.
#[derive(uniffi::Object)]
pub struct Session {
    pub(crate) live: Live<skipstone::Session>,
    model: Arc<Model>,
    handle: u64,
}

/// The dense elements of a tensor, in the machine's byte order. They must stay where they are until the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct TensorAddress {
    /// Where the first element lies: a multiple of the element's size.
    pub address: u64,
    /// Bytes of all elements.
    pub length_bytes: u64,
}

impl Owner for skipstone::Session {
    const WHAT: &'static str = "session";

    fn session(&mut self) -> &mut skipstone::Session {
        self
    }
}

impl Session {
    /// The session of a handle.
    ///
    /// # Errors
    /// `Closed` where there is none, or none any more.
    pub fn find(handle: u64) -> Result<Arc<Self>> {
        SESSIONS.get(handle)
    }

    pub(crate) fn count() -> usize {
        SESSIONS.len()
    }
}

#[uniffi::export]
impl Session {
    /// A session of `model`.
    ///
    /// # Errors
    /// `Unsupported` for a model with more inputs than a session takes.
    #[uniffi::constructor]
    pub fn new(model: Arc<Model>) -> Result<Arc<Self>> {
        guarded(|| {
            let live = Live::new(model.runtime().session()?);
            Ok(SESSIONS.add(|handle| Self { live, model, handle }))
        })
    }

    /// The number that stands for this session where objects cannot go.
    pub fn handle(&self) -> u64 {
        self.handle
    }

    /// Runs the model: reads `inputs` and writes `outputs`, each as many and as long as the model says. Outputs are
    /// written only after every one was found to fit.
    ///
    /// # Errors
    /// `Input` for a tensor that is missing, has another length, or lies at an impossible address; `Cancelled`,
    /// `Deadline`, `Closed`.
    pub fn run_at(&self, inputs: Vec<TensorAddress>, outputs: Vec<TensorAddress>) -> Result<()> {
        let model = self.model.runtime();
        expect(model.inputs().iter().map(|port| (port.name.as_str(), port.fact.bytes())), "input", &inputs)?;
        expect(model.outputs().iter().map(|port| (port.name.as_str(), port.fact.bytes())), "output", &outputs)?;
        self.live.run(|session| {
            self.model.check_source()?;
            let mut views = Vec::with_capacity(inputs.len());
            for (port, at) in model.inputs().iter().zip(&inputs) {
                if at.address % port.fact.dtype.size() as u64 != 0 {
                    let message = format!("input '{}' does not lie at a multiple of its element's size", port.name);
                    return Err(SkipstoneError::input("input.address", message));
                }
                // SAFETY: the bytes stay as they are until this returns, as the caller promises; the views do not
                // outlive the closure.
                let bytes = unsafe { address::borrow(at.address, at.length_bytes) }?;
                let view = TensorView::from_bytes(port.fact.clone(), bytes);
                views.push(view.map_err(|e| SkipstoneError::input("input.size", e.to_string()))?);
            }
            session.run(&views)?;
            drop(views);
            for (index, at) in outputs.iter().enumerate() {
                let missing = || SkipstoneError::internal(format!("output {index} was not computed"));
                let output = session.output(index).ok_or_else(missing)?;
                // SAFETY: the bytes are the caller's to lend until this returns, as it promises.
                unsafe { address::write(at.address, at.length_bytes, output.bytes()) }?;
            }
            Ok(())
        })
    }

    /// Stops the run that is going on, which then answers `Cancelled`; nothing where none is.
    pub fn cancel(&self) {
        self.live.cancel();
    }

    /// Lets every later run take at most this long; without a limit where absent.
    ///
    /// # Errors
    /// `Input` for a limit that is no length of time, `Closed`.
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

    /// Starts, or restarts, adding up the time of every step.
    ///
    /// # Errors
    /// `Closed`.
    pub fn start_profile(&self) -> Result<()> {
        self.live.start_profile()
    }

    /// The time of every step since the profile was started, in order; empty where it was not.
    ///
    /// # Errors
    /// `Closed`.
    pub fn profile(&self) -> Result<Vec<StepTime>> {
        self.live.profile(&self.model)
    }

    /// Stops the run that is going on and gives the memory back. Later calls answer `Closed`.
    pub fn close(&self) {
        SESSIONS.remove(self.handle);
        self.live.close();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        SESSIONS.remove(self.handle);
    }
}

/// Checks that `given` is as many tensors as `wanted`, of the same lengths, at possible addresses.
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

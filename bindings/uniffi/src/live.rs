//! What runs, one call at a time, until it is closed.
//!
//! Any thread may call at any time. Runs of one object wait for each other; `cancel` and `close`
//! do not wait to be heard: the call that is going on, be it preparing a frame or running, stops before the next step.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use skipstone::{Cancel, Session};

use crate::error::{Result, SkipstoneError, guarded};
use crate::measure::{Latency, StepTime};
use crate::model::Model;

/// Runs whose latency is remembered.
const WINDOW: usize = 1024;

/// What owns a session.
pub(crate) trait Owner {
    /// What errors call it.
    const WHAT: &'static str;

    /// Its session.
    fn session(&mut self) -> &mut Session;
}

/// An owner of a session behind a lock, with the figures of its runs.
pub(crate) struct Live<T> {
    state: Mutex<Option<State<T>>>,
    latencies: Mutex<Latencies>,
    closed: AtomicBool,
    cancel: Cancel,
}

struct State<T> {
    owner: T,
    /// Runs since the profile was started.
    profiled: usize,
}

/// The latest runs, and the number of all.
#[derive(Default)]
struct Latencies {
    latest: VecDeque<Duration>,
    runs: u64,
}

impl<T: Owner> Live<T> {
    pub(crate) fn new(mut owner: T) -> Self {
        let cancel = owner.session().cancel_handle();
        Self {
            state: Mutex::new(Some(State { owner, profiled: 0 })),
            latencies: Mutex::default(),
            closed: AtomicBool::new(false),
            cancel,
        }
    }

    /// Runs the model once, and takes its time.
    pub(crate) fn run<R>(&self, body: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        self.with(|state| {
            let began = Instant::now();
            let result = body(&mut state.owner)?;
            state.profiled += 1;
            let mut latencies = lock(&self.latencies);
            latencies.runs += 1;
            if latencies.latest.len() == WINDOW {
                latencies.latest.pop_front();
            }
            latencies.latest.push_back(began.elapsed());
            Ok(result)
        })
    }

    /// Lets every later run take at most this long.
    pub(crate) fn set_deadline_ms(&self, ms: Option<f64>) -> Result<()> {
        let seconds = ms.map(|ms| Duration::try_from_secs_f64(ms / 1e3)).transpose();
        let deadline = seconds.map_err(|e| SkipstoneError::input("input.deadline", format!("a deadline {e}")))?;
        self.with(|state| {
            state.owner.session().set_deadline(deadline);
            Ok(())
        })
    }

    /// Sets a variable of the model between two runs; without a name, forgets the state that was carried.
    pub(crate) fn set(&self, name: Option<&str>, values: Vec<f64>) -> Result<()> {
        self.with(|state| {
            let session = state.owner.session();
            match name {
                Some(name) => session.set(name, values)?,
                None => session.reset(),
            }
            Ok(())
        })
    }

    /// Starts, or restarts, adding up the time of every step.
    pub(crate) fn start_profile(&self) -> Result<()> {
        self.with(|state| {
            state.owner.session().start_profile();
            state.profiled = 0;
            Ok(())
        })
    }

    /// The time of every step since the profile was started, in order; empty where it was not.
    pub(crate) fn profile(&self, model: &Model) -> Result<Vec<StepTime>> {
        self.with(|state| {
            let profiled = state.profiled;
            let session = state.owner.session();
            let measured = session.profile().zip(session.step_runs()).zip(session.step_active());
            let steps =
                measured.map(|((totals, counts), active)| StepTime::of(model, totals, counts, active, profiled));
            Ok(steps.unwrap_or_default())
        })
    }

    /// Statistics of the latest runs.
    pub(crate) fn latency(&self) -> Latency {
        let mut latencies = lock(&self.latencies);
        let runs = latencies.runs;
        Latency::of(runs, latencies.latest.make_contiguous())
    }

    /// Stops the call that is going on, if one is.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Stops the run that is going on and gives the memory back; every later call finds it closed.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.cancel.cancel();
        drop(lock(&self.state).take());
    }

    fn with<R>(&self, body: impl FnOnce(&mut State<T>) -> Result<R>) -> Result<R> {
        let mut state = lock(&self.state);
        // What was cancelled is over. Before the look at `closed`, so that a `close` behind it is heard.
        self.cancel.reset();
        let closed = || SkipstoneError::closed(T::WHAT);
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        let live = state.as_mut().ok_or_else(closed)?;
        let mut whole = false;
        let result = guarded(|| {
            let result = body(live);
            whole = true;
            result
        });
        if !whole {
            // A panic left it half done: nobody runs it again.
            *state = None;
        }
        result
    }
}

/// A lock is no reason to fail: what a panic may have left half done is dropped where it is caught.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

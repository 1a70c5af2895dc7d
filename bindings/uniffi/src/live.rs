//! A session behind a lock: it runs one call at a time, until it is closed.
//!
//! Any thread may call at any time. Runs of one object wait for each other; `cancel` and `close` do not wait: the
//! current call, whether it is preparing a frame or running, stops before the next step.
//!
//! A cancellation may arrive before the run that it is meant for: then it stops that run at its first step. It may also
//! arrive after it, and must not stop another. Only the caller knows, so the libraries for Kotlin and Swift let one call
//! run at a time, begin it with `forget_cancel`, and pass on a cancellation until it ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use skipstone::{Cancel, Session};

use crate::error::{Result, SkipstoneError, guarded};
use crate::measure::{Latency, StepTime};
use crate::model::Model;

/// Number of runs whose latency is kept.
const WINDOW: usize = 1024;

/// Number of objects that are not closed.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// The number of classifiers and sessions that are not closed.
pub(crate) fn open() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

/// What owns a session.
pub(crate) trait Owner {
    /// Its name in errors.
    const WHAT: &'static str;

    /// The session.
    fn session(&mut self) -> &mut Session;
}

/// An owner of a session behind a lock, with statistics of its runs.
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

/// The latest runs, and the count of all runs.
#[derive(Default)]
struct Latencies {
    latest: VecDeque<Duration>,
    runs: u64,
}

impl<T: Owner> Live<T> {
    pub(crate) fn new(mut owner: T) -> Self {
        let cancel = owner.session().cancel_handle();
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self {
            state: Mutex::new(Some(State { owner, profiled: 0 })),
            latencies: Mutex::default(),
            closed: AtomicBool::new(false),
            cancel,
        }
    }

    /// Runs the model once and records the time.
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

    /// Calls `body` between two runs.
    pub(crate) fn between_runs<R>(&self, body: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        self.with(|state| body(&mut state.owner))
    }

    /// Limits the time of every later run.
    pub(crate) fn set_deadline_ms(&self, ms: Option<f64>) -> Result<()> {
        let seconds = ms.map(|ms| Duration::try_from_secs_f64(ms / 1e3)).transpose();
        let deadline = seconds.map_err(|e| SkipstoneError::input("input.deadline", format!("a deadline {e}")))?;
        self.with(|state| {
            state.owner.session().set_deadline(deadline);
            Ok(())
        })
    }

    /// Sets a variable of the model between two runs; without a name, resets the state carried between runs.
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

    /// Starts or restarts the profile, which adds up the time of every step.
    pub(crate) fn start_profile(&self) -> Result<()> {
        self.with(|state| {
            state.owner.session().start_profile()?;
            state.profiled = 0;
            Ok(())
        })
    }

    /// The time of every step since the profile was started, in order; empty if it was not started.
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

    /// Stops the current run, or otherwise the next.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Withdraws a cancellation that no run has seen.
    pub(crate) fn forget_cancel(&self) {
        self.cancel.reset();
    }

    /// Stops the current run and frees the memory; every later call returns `Closed`.
    pub(crate) fn close(&self) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
        self.cancel.cancel();
        drop(lock(&self.state).take());
    }

    fn with<R>(&self, body: impl FnOnce(&mut State<T>) -> Result<R>) -> Result<R> {
        let mut state = lock(&self.state);
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
            // A panic left it half done: it is never run again.
            *state = None;
        }
        result
    }
}

impl<T> Drop for Live<T> {
    fn drop(&mut self) {
        if !*self.closed.get_mut() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Ignores poisoning: what a panic may have left half done is dropped where the panic is caught.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

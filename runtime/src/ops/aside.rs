//! Evaluates what cannot be interrupted on a thread of its own, so that a run that is to stop does not wait for it.
//!
//! Neither tract nor plain evaluation can stop in the middle of an operator. The caller waits for the thread, but leaves
//! it behind when the run is to stop. What is left behind ends by itself, because its work is limited; until then it
//! keeps its memory and a core.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::OpError;
use crate::tensor::Tensor;

/// An evaluation begins only while fewer than these are left behind, in the whole process.
const MOST_LEFT: usize = 2;

/// Time between two questions whether to stop.
const INTERVAL: Duration = Duration::from_millis(1);

/// Bytes of a thread's stack: as a main thread has.
const STACK: usize = 8 << 20;

static LEFT: Mutex<usize> = Mutex::new(0);

type Results = Result<Vec<Tensor>, OpError>;

enum Stage {
    Running,
    LeftBehind,
    Ended(Result<Results, Box<dyn Any + Send>>),
}

struct Evaluation {
    stage: Mutex<Stage>,
    ended: Condvar,
}

/// Calls `body` on a thread of its own. What `body` is given says whether it was left behind.
///
/// # Errors
/// Those of `body`; that the run was stopped, soon after `stops` says so; no thread.
pub(super) fn aside(
    stops: &dyn Fn() -> bool,
    body: impl FnOnce(&dyn Fn() -> bool) -> Results + Send + 'static,
) -> Results {
    while *locked(&LEFT) >= MOST_LEFT {
        if stops() {
            return Err(stopped());
        }
        thread::sleep(INTERVAL);
    }
    let evaluation = Arc::new(Evaluation { stage: Mutex::new(Stage::Running), ended: Condvar::new() });
    let shared = evaluation.clone();
    let life = move || {
        let is_left = || matches!(*locked(&shared.stage), Stage::LeftBehind);
        // A panic goes on in the caller.
        let results = catch_unwind(AssertUnwindSafe(|| body(&is_left)));
        let mut stage = locked(&shared.stage);
        match *stage {
            Stage::LeftBehind => *locked(&LEFT) -= 1,
            _ => *stage = Stage::Ended(results),
        }
        shared.ended.notify_one();
    };
    let thread = thread::Builder::new().name("skipstone-fallback".into()).stack_size(STACK).spawn(life);
    thread.map_err(|error| OpError::Value(format!("there is no thread for the fallback: {error}")))?;
    let mut stage = locked(&evaluation.stage);
    loop {
        if matches!(*stage, Stage::Ended(_)) {
            break;
        }
        if stops() {
            *stage = Stage::LeftBehind;
            *locked(&LEFT) += 1;
            return Err(stopped());
        }
        stage = evaluation.ended.wait_timeout(stage, INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
    }
    match std::mem::replace(&mut *stage, Stage::Running) {
        Stage::Ended(Ok(results)) => results,
        Stage::Ended(Err(panic)) => resume_unwind(panic),
        Stage::Running | Stage::LeftBehind => Err(stopped()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stopped() -> OpError {
    OpError::Value("the run was stopped".into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn results_and_panics_come_back() {
        let results = aside(&|| false, |_| Ok(vec![Tensor::scalar(7i64)])).unwrap();
        assert_eq!(results[0].elements::<i64>().unwrap(), [7]);
        assert!(matches!(aside(&|| false, |_| Err(OpError::Operand(3))), Err(OpError::Operand(3))));
        let panic = catch_unwind(|| aside(&|| false, |_| panic!("lost"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"lost"));
    }

    /// The bodies end only when the test lets them, which is after their callers have returned.
    #[test]
    fn a_run_that_is_to_stop_waits_for_nothing() {
        let mut left = Vec::new();
        for _ in 0..MOST_LEFT {
            let (begun, has_begun) = channel();
            let (release, released) = channel();
            let (end, ended) = channel();
            let stops = || has_begun.try_recv().is_ok();
            let results = aside(&stops, move |is_left| {
                begun.send(()).unwrap();
                released.recv().unwrap();
                end.send(is_left()).unwrap();
                Ok(Vec::new())
            });
            assert!(results.is_err());
            left.push((release, ended));
        }
        // As many as may be are left behind: the next one is not begun.
        let asked = Cell::new(0);
        let third = || asked.replace(asked.get() + 1) == 2;
        assert!(aside(&third, |_| unreachable!("it waits for the others")).is_err());
        for (release, ended) in left {
            release.send(()).unwrap();
            assert!(ended.recv().unwrap(), "it knows that nobody waits for it");
        }
        assert!(aside(&|| false, |_| Ok(Vec::new())).is_ok());
    }
}

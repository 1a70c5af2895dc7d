//! Calls what cannot be interrupted on a thread of its own, so that a run that is to stop does not wait for it, and so
//! that it cannot end the process when there is no memory.
//!
//! Neither tract nor plain evaluation can stop in the middle of an operator. The caller waits for the thread, but leaves
//! it behind when the run is to stop. What is left behind ends by itself, because its work is limited; until then it
//! keeps its memory and a core. Nor can tract return an error when it has no memory: its thread then sleeps for ever,
//! with what it holds, and the caller returns the error. What sleeps may hold a lock that others wait for, so that all
//! calls end then, and none begins again in this process.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use skipstone_kernels::spare::giving_up;

use crate::error::OpError;
use crate::reserve::NoMemory;

/// A call begins only while fewer than these are left behind, in the whole process.
const MOST_LEFT: usize = 2;

/// Time between two questions whether to stop.
const INTERVAL: Duration = Duration::from_millis(1);

/// Bytes of a thread's stack: as a main thread has.
const STACK: usize = 8 << 20;

/// The calls that were left behind.
static LEFT: Mutex<Vec<Arc<Call>>> = Mutex::new(Vec::new());

/// Bytes of the allocation at which a call gave up.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// What is known of a call outside its thread.
#[derive(Default)]
struct Call {
    left_behind: AtomicBool,
    ended: AtomicBool,
}

/// Calls `body` on a thread of its own. What `body` is given says whether it was left behind.
///
/// # Errors
/// That the run was stopped, soon after `stops` says so; no memory; no thread.
pub(crate) fn aside<T: Send + 'static>(
    stops: &dyn Fn() -> bool,
    body: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
) -> Result<T, OpError> {
    while left_behind() >= MOST_LEFT {
        has_memory()?;
        if stops() {
            return Err(stopped());
        }
        thread::sleep(INTERVAL);
    }
    has_memory()?;
    let call = Arc::new(Call::default());
    let (sender, receiver) = sync_channel::<Result<T, Box<dyn Any + Send>>>(1);
    let own = call.clone();
    let life = move || {
        let is_left = || own.left_behind.load(Ordering::Relaxed);
        // A panic goes on in the caller.
        let result = catch_unwind(AssertUnwindSafe(|| giving_up(&REFUSED, || body(&is_left))));
        own.ended.store(true, Ordering::Relaxed);
        // Nobody may be waiting.
        let _ = sender.send(result);
    };
    let thread = thread::Builder::new().name("skipstone-fallback".into()).stack_size(STACK).spawn(life);
    thread.map_err(|error| OpError::Value(format!("there is no thread for the fallback: {error}")))?;
    loop {
        match receiver.recv_timeout(INTERVAL) {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(OpError::Value("the fallback ended".into())),
        }
        has_memory()?;
        if stops() {
            call.left_behind.store(true, Ordering::Relaxed);
            LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(call);
            return Err(stopped());
        }
    }
}

/// Number of calls that were left behind and are still at work.
fn left_behind() -> usize {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain(|call| !call.ended.load(Ordering::Relaxed));
    left.len()
}

/// Whether no call has given up.
fn has_memory() -> Result<(), NoMemory> {
    match REFUSED.load(Ordering::Acquire) {
        0 => Ok(()),
        bytes => Err(NoMemory(bytes)),
    }
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
        assert_eq!(aside(&|| false, |_| 7).unwrap(), 7);
        let panic = catch_unwind(|| aside(&|| false, |_| -> u8 { panic!("lost") })).unwrap_err();
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
            let result = aside(&stops, move |is_left| {
                begun.send(()).unwrap();
                released.recv().unwrap();
                end.send(is_left()).unwrap();
            });
            assert!(result.is_err());
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
        assert!(aside(&|| false, |_| ()).is_ok());
    }
}

//! A pool of threads that share the tasks of one kernel call.
//!
//! A model on a phone runs for a few milliseconds in tens of steps, so starting a step must cost microseconds: idle
//! workers first spin a little, then park. Tasks are taken from a shared counter, so that a fast core takes more of
//! them than a slow one. A step never waits for a worker that has not woken up: such a worker finds the step closed
//! and goes back to sleep. Nothing is allocated per call.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// How often an idle thread looks for work before it parks: some tens of microseconds.
const SPINS: u32 = 2_000;

/// Threads that run the tasks of one call at a time; the caller is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the one caller whose tasks are running.
    caller: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, the caller included: `threads - 1` are started. 0 counts as 1. Starts fewer if
    /// the system refuses more.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared::default());
        let workers = (1..threads)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().name(format!("skipstone-{index}")).spawn(move || work(&shared)).ok()
            })
            .collect();
        Pool { shared, workers, caller: Mutex::new(()) }
    }

    /// How many threads share the tasks of a call, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(0)` to `body(tasks - 1)`, each once, in any order and on any of the threads; returns when all have
    /// returned.
    ///
    /// A call from inside `body`, or from a second thread while a first one is at it, runs its tasks on the calling
    /// thread alone.
    ///
    /// # Panics
    /// With the panic of `body`, if it panics; tasks not yet begun are then left out.
    pub fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let free = if tasks > 1 && !self.workers.is_empty() { self.caller.try_lock().ok() } else { None };
        let Some(caller) = free else {
            return (0..tasks).for_each(body);
        };
        let shared = &*self.shared;

        // SAFETY: the gate is closed and nobody is inside (it was left so, and only the holder of `caller` opens
        // it), so no worker looks at the job.
        unsafe { *shared.job.get() = Some(Job { body: erase(body), tasks }) };
        *lock(&shared.waiting) = Some(thread::current());
        shared.next.store(0, Ordering::Relaxed);
        shared.gate.fetch_add(EPOCH | OPEN, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }

        shared.take_tasks(body, tasks);
        shared.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while shared.gate.load(Ordering::Acquire) & INSIDE != 0 {
            pause(&mut spins);
        }
        // SAFETY: closed and empty again: `body` is no longer reachable for any worker when it goes out of scope.
        unsafe { *shared.job.get() = None };
        let panic = lock(&shared.panic).take();
        if let Some(panic) = panic {
            drop(caller);
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of tasks and has none of its own.
            let _ = worker.join();
        }
    }
}

/// Part of `gate`: how many workers are inside the current job.
const INSIDE: u64 = 0x7fff_ffff;
/// Part of `gate`: workers may enter. A call adds it to a closed gate.
const OPEN: u64 = 1 << 31;
/// Part of `gate`: one call; a worker enters each call once. Wraps harmlessly.
const EPOCH: u64 = 1 << 32;

/// What the caller and the workers share.
#[derive(Default)]
struct Shared {
    /// Epoch, open bit and number of workers inside, changed in one step.
    gate: AtomicU64,
    /// The next task to take.
    next: AtomicUsize,
    /// Written by the caller while the gate is closed and empty, read by the workers inside.
    job: UnsafeCell<Option<Job>>,
    /// The caller, to be woken by the last worker that leaves.
    waiting: Mutex<Option<Thread>>,
    /// The first panic of the current job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    shutdown: AtomicBool,
}

// SAFETY: `job` is the only member that is not `Sync` of itself. It is written only while the gate is closed and
// empty, and read only by workers that entered through the gate, whose count orders the two.
unsafe impl Sync for Shared {}
// SAFETY: as above; the body it refers to is `Sync`.
unsafe impl Send for Shared {}

#[derive(Clone, Copy)]
struct Job {
    /// Valid until the gate is closed and empty.
    body: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

/// Forgets the lifetime of `body`.
fn erase<'a>(body: &'a (dyn Fn(usize) + Sync + 'a)) -> *const (dyn Fn(usize) + Sync + 'static) {
    let body: *const (dyn Fn(usize) + Sync + 'a) = body;
    // SAFETY: only the lifetime in the type changes; `Pool::run` keeps the pointer from outliving the referent.
    unsafe { std::mem::transmute(body) }
}

impl Shared {
    /// Runs tasks until none is left; keeps the first panic.
    fn take_tasks(&self, body: &(dyn Fn(usize) + Sync), tasks: usize) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                body(task);
            }
        }));
        if let Err(panic) = result {
            self.next.store(tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }

    /// Enters the call that is open, unless it is the `last` one entered. Gives its epoch.
    fn enter(&self, last: u64) -> Option<u64> {
        let mut gate = self.gate.load(Ordering::Relaxed);
        while gate & OPEN != 0 && gate / EPOCH != last {
            match self.gate.compare_exchange_weak(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(gate / EPOCH),
                Err(now) => gate = now,
            }
        }
        None
    }

    /// Leaves a call that was entered; the last to leave a closed one wakes the caller.
    fn leave(&self) {
        let before = self.gate.fetch_sub(1, Ordering::AcqRel);
        if before & OPEN == 0
            && before & INSIDE == 1
            && let Some(caller) = &*lock(&self.waiting)
        {
            caller.unpark();
        }
    }
}

/// The life of a worker.
fn work(shared: &Shared) {
    let (mut last, mut spins) = (0, 0);
    while !shared.shutdown.load(Ordering::Acquire) {
        let Some(epoch) = shared.enter(last) else {
            pause(&mut spins);
            continue;
        };
        (last, spins) = (epoch, 0);
        // SAFETY: inside the gate the job is not written, and its body lives until this worker has left.
        let body = unsafe { (*shared.job.get()).map(|job| (&*job.body, job.tasks)) };
        if let Some((body, tasks)) = body {
            shared.take_tasks(body, tasks);
        }
        shared.leave();
    }
}

/// Waits a moment: spins at first, parks once that has taken long.
fn pause(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        std::hint::spin_loop();
    } else {
        thread::park();
    }
}

/// Nothing that holds these locks panics, so poison means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [0, 1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for tasks in [0, 1, 2, 3, 100, 1000] {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task| {
                    runs[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_short_calls_in_a_row() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for _ in 0..5_000 {
            pool.run(4, &|task| {
                total.fetch_add(task, Ordering::Relaxed);
            });
        }
        assert_eq!(total.into_inner(), 5_000 * 6);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        for bad in [0, 7, 99] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|task| assert_ne!(task, bad, "task failed"));
            }));
            assert!(result.is_err());
        }
        let done = AtomicUsize::new(0);
        pool.run(10, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 10);
    }

    #[test]
    fn nested_and_concurrent_calls_do_not_deadlock() {
        let pool = Pool::new(2);
        let done = AtomicUsize::new(0);
        let work = || {
            pool.run(8, &|_| {
                pool.run(8, &|_| {
                    done.fetch_add(1, Ordering::Relaxed);
                });
            });
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(work);
            }
        });
        assert_eq!(done.into_inner(), 4 * 64);
    }
}

//! A pool of threads that share the tasks of one kernel call.
//!
//! A model on a phone runs for a few milliseconds in tens of steps, and waking a parked thread takes longer than many
//! of these steps. A worker is therefore woken once per run: from the first shared call to the end of the run
//! ([`Awake`]) it polls for the next call without sleeping and picks it up within a microsecond. Between runs it is
//! parked and costs nothing. In every call, each thread first takes its own range of tasks, the same share in every
//! call, so that its core's cache still holds the data that it wrote in the previous step; then it takes tasks that
//! other threads have not started, so a slow core does not delay the call. A call never waits for a worker that has not
//! woken up: when it does, the worker finds the call closed. A call allocates nothing.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::quality::Quality;

/// How long a thread polls for work, or for the other threads to finish, before it parks. It spans a few steps that are
/// too small to share, and is too short to affect the battery.
///
/// Under test it is unlimited, so that a thread parks only for the reason that the test checks.
const SPIN: Duration = if cfg!(test) { Duration::MAX } else { Duration::from_micros(200) };

/// Threads that run the tasks of one call at a time; the caller is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the one caller whose tasks are running.
    caller: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, including the caller: `threads - 1` are started. 0 counts as 1.
    pub fn new(threads: usize) -> Pool {
        Self::with(threads, || (), Arc::default())
    }

    /// Like `new`, but every started thread calls `begin` first. Once `cancel` is set, tasks that have not started are
    /// skipped: see [`allow`](Self::allow).
    pub fn with(threads: usize, begin: impl Fn() + Send + Sync + 'static, cancel: Arc<AtomicBool>) -> Pool {
        let (shared, begin) = (Arc::new(Shared::new(threads, cancel)), Arc::new(begin));
        let quality = Quality::current();
        let workers = (1..threads)
            .map_while(|index| {
                let (shared, begin) = (Arc::clone(&shared), Arc::clone(&begin));
                let life = move || {
                    quality.take_over();
                    begin();
                    work(&shared, index);
                };
                thread::Builder::new().name(format!("skipstone-{index}")).spawn(life).ok()
            })
            .collect();
        Pool { shared, workers, caller: Mutex::new(()) }
    }

    /// Keeps workers from parking between calls while the guard lives, for the duration of a model's run. The first
    /// call wakes them.
    pub fn awake(&self) -> Awake<'_> {
        self.shared.state.0.awake.fetch_add(1, Ordering::Relaxed);
        Awake(&self.shared)
    }

    /// Begins a run with this time limit. Once the time is over, or the pool's `cancel` is set, tasks that have not
    /// started are skipped and [`halted`](Self::halted) returns true: the results of the calls are then invalid.
    pub fn allow(&self, time: Option<Duration>) {
        let limit = &self.shared.limit;
        let end = time.map(|time| limit.epoch.elapsed().saturating_add(time).as_nanos());
        limit.halted.store(false, Ordering::Relaxed);
        limit.end.store(end.map_or(u64::MAX, |end| u64::try_from(end).unwrap_or(u64::MAX)), Ordering::Relaxed);
    }

    /// Whether tasks have been skipped since the run began.
    pub fn halted(&self) -> bool {
        self.shared.limit.halted.load(Ordering::Relaxed)
    }

    /// Whether the run is to stop: its tasks may return early. Long tasks ask through [`Pace`](crate::pace::Pace).
    pub fn stops(&self) -> bool {
        self.shared.limit.stops()
    }

    /// How often the run has been asked whether it is to stop, and the question from which on it is: for tests, which
    /// can see without a clock that long steps are cut into pieces. Only debug builds count.
    #[cfg(debug_assertions)]
    pub fn questions(&self) -> &Questions {
        &self.shared.limit.questions
    }

    /// How many threads share the tasks of a call, including the caller. This is the requested count, and scratch is
    /// sized for it; if the system could not start some threads, the others run their tasks.
    pub fn threads(&self) -> usize {
        self.shared.next.len()
    }

    /// Calls `body(task, thread)` once for each of the `tasks`, in any order, on the first `threads` threads of the
    /// pool, and returns when all calls have returned. `thread` is the index of the calling thread in the pool; the
    /// caller's is 0.
    ///
    /// A call from inside `body`, or from a second thread while another call is running, runs all its tasks on the
    /// calling thread with index 0.
    ///
    /// # Panics
    /// If `body` panics, with that panic; tasks that have not started are then skipped.
    pub fn run(&self, tasks: usize, threads: usize, body: &Body<'_>) {
        let threads = threads.min(tasks).min(self.threads());
        let free = if threads > 1 && !self.workers.is_empty() { self.caller.try_lock().ok() } else { None };
        let Some(caller) = free else {
            return (0..tasks).take_while(|_| !self.stops()).for_each(|task| body(task, 0));
        };
        let shared = &*self.shared;

        let job = Job { body: erase(body), tasks, threads };
        shared.open(job, self.workers.iter().take(threads - 1));
        shared.take_tasks(body, &job, 0);
        shared.close();
        let panic = lock(&shared.panic).take();
        if let Some(panic) = panic {
            drop(caller);
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.shutdown.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of tasks and does not panic itself.
            let _ = worker.join();
        }
    }
}

/// Bits of `gate`: how many workers are inside the current job.
const INSIDE: u64 = 0x7fff_ffff;
/// Bit of `gate`: workers may enter. A call sets it by adding it to a closed gate.
const OPEN: u64 = 1 << 31;
/// Bits of `gate`: the call's epoch; a worker enters each call once. Wraps harmlessly.
const EPOCH: u64 = 1 << 32;

/// Keeps the workers of the pool awake between calls while it lives. Created by [`Pool::awake`].
pub struct Awake<'a>(&'a Shared);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.state.0.awake.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A value that shares its cache lines with no other: two lines, since some CPUs fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// The state that the caller and the workers share.
struct Shared {
    /// The state that a waiting worker polls, and everything it needs to start.
    state: Apart<PoolState>,
    /// For each thread, the next task of its range.
    next: Box<[Apart<AtomicUsize>]>,
    /// The caller, which the last worker to leave wakes.
    waiting: Mutex<Option<Thread>>,
    /// The first panic of the current job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// The limit of the run.
    limit: Limit,
}

/// When a run ends, whether or not it is complete.
struct Limit {
    cancel: Arc<AtomicBool>,
    /// The time that `end` is relative to.
    epoch: Instant,
    /// Nanoseconds after the epoch; `u64::MAX` for no limit.
    end: AtomicU64,
    /// Whether any thread has seen that the run is to stop. Stays set until the next run, even if `cancel` is reset.
    halted: AtomicBool,
    #[cfg(debug_assertions)]
    questions: Questions,
}

/// A count of the questions whether to stop.
#[cfg(debug_assertions)]
pub struct Questions {
    asked: AtomicU64,
    last: AtomicU64,
}

#[cfg(debug_assertions)]
impl Default for Questions {
    fn default() -> Self {
        Questions { asked: AtomicU64::new(0), last: AtomicU64::new(u64::MAX) }
    }
}

#[cfg(debug_assertions)]
impl Questions {
    /// Starts counting at 0. Question `last` and all after it are answered with yes.
    pub fn restart(&self, last: u64) {
        self.asked.store(0, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Counts one; returns whether the answer is yes.
    fn ask(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1 >= self.last.load(Ordering::Relaxed)
    }
}

impl Limit {
    fn stops(&self) -> bool {
        let end = self.end.load(Ordering::Relaxed);
        let late = || end != u64::MAX && self.epoch.elapsed().as_nanos() >= u128::from(end);
        let stops = self.cancel.load(Ordering::Relaxed) || late();
        #[cfg(debug_assertions)]
        let stops = self.questions.ask() || stops;
        if stops {
            self.halted.store(true, Ordering::Relaxed);
        }
        stops
    }
}

#[derive(Default)]
struct PoolState {
    /// Epoch, open bit and count of workers inside, changed in one atomic step.
    gate: AtomicU64,
    /// Written by the caller while the gate is closed and empty, read by the workers inside.
    job: UnsafeCell<Option<Job>>,
    /// Count of guards that keep the workers awake.
    awake: AtomicUsize,
    shutdown: AtomicBool,
}

// SAFETY: `job` is the only member that is not `Sync` by itself. It is written only while the gate is closed and empty,
// and read only by workers that entered through the gate, whose count orders the accesses.
unsafe impl Sync for PoolState {}
// SAFETY: as above; the body it refers to is `Sync`.
unsafe impl Send for PoolState {}

/// Called for every task with the index of the task and of the thread.
pub type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job {
    /// Valid until the gate is closed and empty.
    body: *const Body<'static>,
    tasks: usize,
    threads: usize,
}

impl Job {
    /// The end of a thread's range of tasks, where the range of the next thread begins.
    fn end(&self, thread: usize) -> usize {
        // Divided before multiplying, so that nothing overflows.
        let (each, left) = (self.tasks / self.threads, self.tasks % self.threads);
        each * (thread + 1) + left.min(thread + 1)
    }
}

/// Erases the lifetime of `body`.
fn erase(body: &Body<'_>) -> *const Body<'static> {
    let body: *const Body<'_> = body;
    // SAFETY: only the lifetime in the type changes; `Pool::run` keeps the pointer from outliving the referent.
    unsafe { std::mem::transmute(body) }
}

impl Shared {
    fn new(threads: usize, cancel: Arc<AtomicBool>) -> Shared {
        let next = (0..threads.max(1)).map(|_| Apart::default()).collect();
        let (end, halted) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        let limit = Limit {
            cancel,
            epoch: Instant::now(),
            end,
            halted,
            #[cfg(debug_assertions)]
            questions: Questions::default(),
        };
        Shared { state: Apart::default(), next, waiting: Mutex::default(), panic: Mutex::default(), limit }
    }

    /// Lets workers begin the job, and wakes `workers`. Only the holder of `Pool::caller` calls this, followed by
    /// `close`.
    fn open<'a>(&self, job: Job, workers: impl Iterator<Item = &'a JoinHandle<()>>) {
        for (thread, next) in self.next[..job.threads].iter().enumerate() {
            next.0.store(thread.checked_sub(1).map_or(0, |before| job.end(before)), Ordering::Relaxed);
        }
        // SAFETY: the gate is closed and empty (only the holder of `caller` opens it, and `close` leaves it closed and
        // empty), so no worker reads the job.
        unsafe { *self.state.0.job.get() = Some(job) };
        *lock(&self.waiting) = Some(thread::current());
        self.state.0.gate.fetch_add(EPOCH | OPEN, Ordering::Release);
        for worker in workers {
            worker.thread().unpark();
        }
    }

    /// Admits no more workers and waits until all have left; after that, the body of the job may go out of scope.
    fn close(&self) {
        let mut spinning = Spinning::default();
        let mut gate = self.state.0.gate.fetch_and(!OPEN, Ordering::AcqRel);
        while gate & INSIDE != 0 {
            if !spinning.pause() {
                thread::park();
            }
            gate = self.state.0.gate.load(Ordering::Acquire);
        }
    }

    /// Runs tasks until none are left, starting with the thread's own range. Keeps the first panic.
    fn take_tasks(&self, body: &Body<'_>, job: &Job, thread: usize) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            for of in (thread..job.threads).chain(0..thread) {
                let (next, end) = (&self.next[of].0, job.end(of));
                while next.load(Ordering::Relaxed) < end {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    if task < end {
                        if self.limit.stops() {
                            return;
                        }
                        body(task, thread);
                    }
                }
            }
        }));
        if let Err(panic) = result {
            for next in &self.next {
                next.0.store(job.tasks, Ordering::Relaxed);
            }
            lock(&self.panic).get_or_insert(panic);
        }
    }

    /// Enters the open call unless its epoch is `last`, the last one entered. Returns its epoch.
    fn enter(&self, last: u64) -> Option<u64> {
        let mut gate = self.state.0.gate.load(Ordering::Relaxed);
        while gate & OPEN != 0 && gate / EPOCH != last {
            match self.state.0.gate.compare_exchange_weak(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(gate / EPOCH),
                Err(now) => gate = now,
            }
        }
        None
    }

    /// Leaves the call; the last worker to leave a closed call wakes the caller.
    fn leave(&self) {
        let before = self.state.0.gate.fetch_sub(1, Ordering::AcqRel);
        if before & OPEN == 0
            && before & INSIDE == 1
            && let Some(caller) = &*lock(&self.waiting)
        {
            caller.unpark();
        }
    }
}

/// The main loop of a worker.
fn work(shared: &Shared, thread: usize) {
    let (mut last, mut spinning) = (0, Spinning::default());
    while !shared.state.0.shutdown.load(Ordering::Acquire) {
        let Some(epoch) = shared.enter(last) else {
            if shared.state.0.awake.load(Ordering::Relaxed) == 0 || !spinning.pause() {
                thread::park();
                spinning = Spinning::default();
            }
            continue;
        };
        // SAFETY: inside the gate the job is not written, and its body lives until this worker has left.
        let job = unsafe { (*shared.state.0.job.get()).map(|job| (&*job.body, job)) };
        if let Some((body, job)) = job
            && thread < job.threads
        {
            shared.take_tasks(body, &job, thread);
        }
        shared.leave();
        (last, spinning) = (epoch, Spinning::default());
    }
}

/// Measures how much of [`SPIN`] is left.
#[derive(Default)]
struct Spinning {
    pauses: u32,
    /// When the first pauses ended. Most waits end earlier, without reading the clock.
    since: Option<Instant>,
}

impl Spinning {
    /// Pauses between two readings of the clock, about a microsecond.
    const PAUSES: u32 = 64;

    /// Spins briefly; returns false, immediately, when it is time to park.
    fn pause(&mut self) -> bool {
        std::hint::spin_loop();
        self.pauses += 1;
        if self.pauses < Self::PAUSES {
            return true;
        }
        self.pauses = 0;
        self.since.get_or_insert_with(Instant::now).elapsed() < SPIN
    }
}

/// Code that holds these locks does not panic, so poisoning can be ignored.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_the_threads_asked_for() {
        for threads in [0, 1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for tasks in [0, 1, 2, 3, 100, 1000] {
                for at_most in [0, 1, 3, 8] {
                    let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(tasks, at_most, &|task, thread| {
                        assert!(thread < threads.min(at_most).max(1));
                        runs[task].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(runs.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn ranges_are_consecutive_and_differ_by_a_task_at_most() {
        for (tasks, threads) in [(2, 2), (7, 3), (100, 8), (usize::MAX, 3)] {
            let body: &Body<'_> = &|_, _| ();
            let job = Job { body: erase(body), tasks, threads };
            let mut start = 0;
            for thread in 0..threads {
                let len = job.end(thread) - start;
                assert!(len == tasks / threads || len == tasks / threads + 1);
                start = job.end(thread);
            }
            assert_eq!(start, tasks);
        }
    }

    /// Other threads take the tasks of a thread that is stuck in its first task.
    #[test]
    fn idle_threads_take_the_tasks_of_slow_ones() {
        let pool = Pool::new(2);
        let (tasks, done) = (20, AtomicUsize::new(0));
        pool.run(tasks, 2, &|_, thread| {
            while thread == 1 && done.load(Ordering::Relaxed) < tasks - 1 {
                std::hint::spin_loop();
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), tasks);
    }

    #[test]
    fn a_cancelled_or_late_run_starts_no_more_tasks() {
        for threads in [1, 3] {
            let cancel = Arc::new(AtomicBool::new(false));
            let pool = Pool::with(threads, || (), cancel.clone());
            let run = |cancel_at: usize| {
                let done = AtomicUsize::new(0);
                pool.run(1000, threads, &|_, _| {
                    if done.fetch_add(1, Ordering::Relaxed) == cancel_at {
                        cancel.store(true, Ordering::Relaxed);
                    }
                });
                done.into_inner()
            };
            pool.allow(None);
            assert_eq!((run(usize::MAX), pool.halted()), (1000, false));
            assert!(run(5) <= 5 + threads);
            // Reset before it is checked: skipped tasks stay skipped.
            cancel.store(false, Ordering::Relaxed);
            assert!(pool.halted());
            pool.allow(Some(Duration::ZERO));
            assert_eq!((run(usize::MAX), pool.halted()), (0, true));
            pool.allow(Some(Duration::MAX));
            assert_eq!((run(usize::MAX), pool.halted()), (1000, false));
        }
    }

    #[test]
    fn many_short_calls_in_a_row() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        let _awake = pool.awake();
        for _ in 0..5_000 {
            pool.run(4, 3, &|task, _| {
                total.fetch_add(task, Ordering::Relaxed);
            });
        }
        assert_eq!(total.into_inner(), 5_000 * 6);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_stays_usable() {
        let pool = Pool::new(2);
        for bad in [0, 7, 99] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, 2, &|task, _| assert_ne!(task, bad, "task failed"));
            }));
            assert!(result.is_err());
        }
        let done = AtomicUsize::new(0);
        pool.run(10, 2, &|_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 10);
    }

    #[test]
    fn nested_and_concurrent_calls_do_not_deadlock() {
        let pool = Pool::new(2);
        let done = AtomicUsize::new(0);
        let work = || {
            pool.run(8, 2, &|_, _| {
                pool.run(8, 2, &|_, _| {
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

    /// Between runs the threads of a pool use no processor time. A thread parks at a time that the test cannot know,
    /// and the test must not sleep: it polls the system for the thread's state until the thread sleeps. If the thread
    /// has not been scheduled since then, while this thread was busy, it has been asleep all the time.
    #[cfg(target_os = "linux")]
    #[test]
    fn workers_are_parked_between_runs() {
        // More threads than any other test uses: the name of the last one is unique in this process.
        let pool = Pool::new(7);
        let worker = "skipstone-6";
        for _ in 0..10 {
            let awake = pool.awake();
            let came = AtomicUsize::new(0);
            pool.run(7, 7, &|_, _| {
                came.fetch_add(1, Ordering::Relaxed);
                while came.load(Ordering::Relaxed) < 7 {
                    thread::yield_now();
                }
            });
            drop(awake);
            while !status(worker).contains("State:\tS") {
                thread::yield_now();
            }
        }
        let parked = switches(worker);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            std::hint::black_box((0..1000).sum::<u32>());
        }
        assert_eq!(switches(worker), parked, "{worker} ran between runs");
    }

    /// The system's status text of the thread with this name.
    #[cfg(target_os = "linux")]
    fn status(name: &str) -> String {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let mut status = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
        status.find(|status| status.lines().next() == Some(&format!("Name:\t{name}"))).expect("a thread of this name")
    }

    /// The counts of the thread's context switches.
    #[cfg(target_os = "linux")]
    fn switches(name: &str) -> String {
        status(name).lines().filter(|line| line.contains("ctxt_switches")).collect()
    }
}

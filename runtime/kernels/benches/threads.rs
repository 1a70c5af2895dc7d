//! The cost of sharing a call among the threads of a pool.
//!
//! `cargo bench -p skipstone-kernels --bench threads [-- THREADS]`. Every task waits until all have begun, so a call
//! lasts until the last worker has arrived and left: the bench measures fork and join only. `parked` calls are outside
//! a run and wake the workers; `in a run` calls find them awake; `after a gap` calls find them awake after a step of
//! several microseconds on the calling thread alone. Other programs interfere, hence the percentiles.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use skipstone_kernels::threads::Pool;

const CALLS: usize = 20_000;
/// Duration of a step on one thread.
const GAP: Duration = Duration::from_micros(20);

fn main() {
    let threads = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    println!("{} threads, microseconds", pool.threads());
    report("parked", &pool, GAP, CALLS / 10);
    let _awake = pool.awake();
    report("in a run", &pool, Duration::ZERO, CALLS);
    report("after a gap", &pool, GAP, CALLS);
}

/// Times calls in which all threads wait for each other.
fn report(name: &str, pool: &Pool, gap: Duration, calls: usize) {
    let mut times: Vec<Duration> = (0..calls)
        .map(|_| {
            wait_for(|began| began.elapsed() >= gap);
            let came = AtomicUsize::new(0);
            let begin = Instant::now();
            pool.run(pool.threads(), pool.threads(), &|_, _| {
                came.fetch_add(1, Ordering::Relaxed);
                wait_for(|_| came.load(Ordering::Relaxed) == pool.threads());
            });
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("{name:12} least {:6.2}  10 % {:6.2}  median {:6.2}  90 % {:6.2}", at(0), at(10), at(50), at(90));
}

/// Spins until `done` returns true; its argument is the time when the wait began.
fn wait_for(done: impl Fn(Instant) -> bool) {
    let began = Instant::now();
    while !done(began) {
        std::hint::spin_loop();
    }
}

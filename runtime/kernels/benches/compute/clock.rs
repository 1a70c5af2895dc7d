//! Processor time of one thread.

use std::time::{Duration, Instant};

/// Seconds of the fastest call, over at least a tenth of a second and 10 calls.
pub fn best(mut f: impl FnMut()) -> f64 {
    let (mut best, mut calls, start) = (f64::INFINITY, 0, Instant::now());
    while calls < 10 || start.elapsed() < Duration::from_millis(100) {
        let begin = processor_time();
        f();
        best = best.min(processor_time() - begin);
        calls += 1;
    }
    best
}

/// Seconds that this thread has run.
fn processor_time() -> f64 {
    #[repr(C)]
    #[derive(Default)]
    struct Timespec {
        seconds: std::ffi::c_long,
        nanoseconds: std::ffi::c_long,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: std::ffi::c_int, time: *mut Timespec) -> std::ffi::c_int;
    }
    /// `CLOCK_THREAD_CPUTIME_ID` of Linux.
    const THREAD: std::ffi::c_int = 3;
    let mut time = Timespec::default();
    // SAFETY: writes one timespec.
    assert_eq!(unsafe { clock_gettime(THREAD, &mut time) }, 0);
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

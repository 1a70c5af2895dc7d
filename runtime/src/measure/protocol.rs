//! The protocol of a measurement: warm-up runs, then counted runs.

use std::time::{Duration, Instant};

/// How many runs to count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// This many.
    Runs(usize),
    /// As many as fit into this time, at least one.
    For(Duration),
}

/// Warm-up and counted runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Protocol {
    /// Runs before the first counted one, to fill caches and raise the clock; fewer if they take longer than the time
    /// for those that count.
    pub warmup: usize,
    /// Counted runs.
    pub amount: Amount,
}

impl Protocol {
    /// Calls `run` as the protocol says, and returns the time reported by each counted call. A call times itself, so
    /// that it can prepare its input untimed; its argument says whether it is counted.
    ///
    /// # Errors
    /// The first error of a call.
    pub fn measure<E>(&self, mut run: impl FnMut(bool) -> Result<Duration, E>) -> Result<Vec<Duration>, E> {
        let mut warm = Duration::ZERO;
        for _ in 0..self.warmup {
            warm += run(false)?;
            if matches!(self.amount, Amount::For(time) if warm > time) {
                break;
            }
        }
        let began = Instant::now();
        let mut times = Vec::new();
        loop {
            let enough = match self.amount {
                Amount::Runs(runs) => times.len() >= runs,
                Amount::For(time) => !times.is_empty() && began.elapsed() >= time,
            };
            if enough {
                return Ok(times);
            }
            times.push(run(true)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_does_not_count() {
        let mut calls = Vec::new();
        let protocol = Protocol { warmup: 2, amount: Amount::Runs(3) };
        let times = protocol.measure(|counts| {
            calls.push(counts);
            Ok::<_, ()>(Duration::from_millis(calls.len() as u64))
        });
        assert_eq!(times, Ok(vec![Duration::from_millis(3), Duration::from_millis(4), Duration::from_millis(5)]));
        assert_eq!(calls, [false, false, true, true, true]);
    }

    #[test]
    fn warm_up_takes_no_longer_than_the_measurement() {
        let mut warm = 0;
        let protocol = Protocol { warmup: 10, amount: Amount::For(Duration::from_secs(1)) };
        let times = protocol.measure(|counts| {
            warm += usize::from(!counts);
            if counts { Err("counted") } else { Ok(Duration::from_millis(400)) }
        });
        assert_eq!((times, warm), (Err("counted"), 3));
    }

    #[test]
    fn at_least_one_run_is_timed() {
        let protocol = Protocol { warmup: 0, amount: Amount::For(Duration::ZERO) };
        assert_eq!(protocol.measure(|_| Ok::<_, ()>(Duration::ZERO)), Ok(vec![Duration::ZERO]));
    }

    #[test]
    fn the_first_error_ends_the_measurement() {
        let protocol = Protocol { warmup: 1, amount: Amount::Runs(5) };
        let mut calls = 0;
        let result = protocol.measure(|_| {
            calls += 1;
            if calls == 3 { Err("third") } else { Ok(Duration::ZERO) }
        });
        assert_eq!((result, calls), (Err("third"), 3));
    }
}

//! Work in pieces: between two pieces, a thread asks whether the run is to stop.
//!
//! A pool asks before every task. A loop that one thread runs, in a task or between two calls of the pool, may still
//! take seconds with the sizes that a model can have: it counts its work here, and asks once in every [`PIECE`].

use std::cell::Cell;

use crate::threads::Pool;

/// Steps between two questions: a step takes about as long as moving an element of 32 bits, so a piece takes a fraction
/// of a millisecond. Loops whose steps take longer count them several times.
pub const PIECE: usize = 1 << 18;

/// The run is to stop: results are left incomplete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped;

/// The steps that a thread has left before it asks.
pub struct Pace<'a> {
    pool: Option<&'a Pool>,
    left: Cell<usize>,
}

impl<'a> Pace<'a> {
    /// Asks the pool.
    pub fn of(pool: &'a Pool) -> Self {
        Pace { pool: Some(pool), left: Cell::new(PIECE) }
    }

    /// Never stops: for work that is not part of a run.
    pub fn free() -> Self {
        Pace { pool: None, left: Cell::new(PIECE) }
    }

    /// Counts steps that are about to be done, at most about a piece.
    ///
    /// # Errors
    /// If the run is to stop.
    #[inline(never)]
    pub fn spend(&self, steps: usize) -> Result<(), Stopped> {
        match self.left.get().checked_sub(steps) {
            Some(left) => self.left.set(left),
            None => {
                if self.pool.is_some_and(Pool::stops) {
                    // Whatever comes next asks again.
                    self.left.set(0);
                    return Err(Stopped);
                }
                self.left.set(PIECE.saturating_sub(steps));
            }
        }
        Ok(())
    }

    /// Like `spend`, for loops that only return early.
    pub fn stops(&self, steps: usize) -> bool {
        self.spend(steps).is_err()
    }
}

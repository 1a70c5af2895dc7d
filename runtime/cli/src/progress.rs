//! A bar on stderr for work that lasts.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Progress through a known number of items; silent unless stderr is a terminal.
pub struct Progress {
    total: u64,
    done: u64,
    began: Instant,
    bar: Option<ProgressBar>,
    wanted: bool,
}

impl Progress {
    /// Progress through `total` items.
    pub fn new(total: usize) -> Self {
        let wanted = std::io::stderr().is_terminal();
        Self { total: total as u64, done: 0, began: Instant::now(), bar: None, wanted }
    }

    /// Progress beside rows that are printed as they come: those show it already where stdout
    /// is a terminal too.
    pub fn beside_rows(total: usize) -> Self {
        let mut progress = Self::new(total);
        progress.wanted &= !std::io::stdout().is_terminal();
        progress
    }

    /// One more item is done.
    pub fn step(&mut self) {
        self.done += 1;
        if self.wanted && self.bar.is_none() && self.began.elapsed() > PATIENCE {
            let bar = ProgressBar::new(self.total).with_elapsed(self.began.elapsed());
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} images, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }

    /// Prints a line on stderr, above the bar.
    pub fn report(&self, failure: &crate::failure::Failure) {
        match &self.bar {
            Some(bar) => bar.suspend(|| failure.report()),
            None => failure.report(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A sign of life during work that cannot be counted; silent unless stderr is a terminal.
pub struct Waiting(Option<ProgressBar>);

impl Waiting {
    /// Shows `what` goes on, until it is dropped.
    pub fn on(what: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.set_message(what);
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

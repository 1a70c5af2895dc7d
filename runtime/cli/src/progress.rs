//! A progress bar on stderr for long work.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time before the bar appears.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Progress through a known count of items. Prints nothing unless stderr is a terminal.
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

    /// Progress for a command that prints rows as it goes. Shows no bar if stdout is a terminal
    /// too, where the rows already show the progress.
    pub fn beside_rows(total: usize) -> Self {
        let mut progress = Self::new(total);
        progress.wanted &= !std::io::stdout().is_terminal();
        progress
    }

    /// Counts one finished item.
    pub fn step(&mut self) {
        self.done += 1;
        if self.wanted && self.bar.is_none() && self.began.elapsed() > SHOWN_AFTER {
            let bar = ProgressBar::new(self.total).with_elapsed(self.began.elapsed());
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left");
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

/// A spinner for work of unknown length. Prints nothing unless stderr is a terminal.
pub struct Waiting(Option<ProgressBar>);

impl Waiting {
    /// Shows the message `what` until dropped.
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

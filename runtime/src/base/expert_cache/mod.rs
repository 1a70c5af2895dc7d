//! Experts within a budget of memory: of the many weight sets of a mixture, the file's mapping holds those in memory
//! that runs need, and no others.
//!
//! A model with experts computes with a few of them at a time, so a phone can run one that it could not hold. The
//! weights stay where they are, in the mapped package: nothing is copied, and a kernel reads the same addresses whether
//! or not there is a budget, so the answers are the same bits. What the budget decides is which pages are in memory.
//! A step holds an expert while it computes with it, and waits for it if it was not there. A thread reads experts ahead
//! of their use, as soon as their numbers are known: where one router decides for all layers, that is before the first
//! of them (R. Cai et al., ["Read-ME"](https://arxiv.org/abs/2410.19123), 2024). Which expert leaves is decided in
//! [`State`].
//!
//! Any number of sessions share a cache. None of them holds more than one expert, so they never wait for each other in
//! a circle.

mod state;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::bytes::Bytes;
use super::error::{Error, Result};
use super::expert_use::ExpertUse;
use state::{Stage, State};

/// Experts that the thread requests before it waits for the first of them: the latency of storage is that of one read.
const AT_ONCE: usize = 8;

/// Smaller weights share their pages with others, and stay in memory.
const SMALLEST: usize = 4096;

/// The experts of all layers of a model, and the thread that reads them.
pub(crate) struct ExpertCache {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    /// The experts of all layers, as [`State`] numbers them.
    parts: Vec<Bytes>,
    state: Mutex<State>,
    /// Notified whenever an expert is wanted, released, loaded or gone.
    changed: Condvar,
}

impl ExpertCache {
    /// A cache of these layers' experts, each a part of a mapped file; `None` if there are none.
    ///
    /// # Errors
    /// A budget that is smaller than the largest expert, or experts that are not mapped.
    pub fn new(layers: &[(&str, &[Bytes])], budget: u64) -> Result<Option<Self>> {
        let (mut parts, mut sizes) = (Vec::new(), Vec::with_capacity(layers.len()));
        for &(name, experts) in layers {
            let mut bytes = Vec::with_capacity(experts.len());
            for expert in experts {
                let Some((mapping, range)) = expert.mapped() else {
                    return Err(unsupported(
                        name,
                        "its experts are not in a mapped file, so that an expert budget cannot be kept; compile the model \
                         to a package for this instruction set, and open that from its file"
                            .into(),
                    ));
                };
                let small = range.len() < SMALLEST;
                bytes.push(if small { 0 } else { mapping.page_bytes(range) });
                parts.push(expert.clone());
            }
            let least = bytes.iter().copied().max().unwrap_or(0) as u64;
            if least > budget {
                let reason =
                    format!("one of its experts needs {least} bytes, and the expert budget is {budget}; raise it");
                return Err(unsupported(name, reason));
            }
            sizes.push(bytes);
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let state = State::new(&sizes, usize::try_from(budget).unwrap_or(usize::MAX));
        let shared = Arc::new(Shared { parts, state: Mutex::new(state), changed: Condvar::new() });
        shared.settle();
        let life = shared.clone();
        // Without the thread, steps read their experts themselves.
        let reader = thread::Builder::new().name("skipstone-experts".into()).spawn(move || life.read_ahead()).ok();
        Ok(Some(Self { shared, reader }))
    }

    /// Begins the use of a layer.
    pub fn enter(&self, layer: usize) {
        self.shared.lock().enter(layer);
    }

    /// Announces the experts that the next use of a layer selects; negative numbers count from the end, and those out
    /// of range are ignored.
    pub fn foresee(&self, layer: usize, selected: impl Iterator<Item = i64>) {
        if self.shared.lock().foresee(layer, selected) {
            self.shared.changed.notify_all();
        }
    }

    /// Keeps an expert in memory while the result lives, after reading it if it is not there.
    pub fn hold(&self, layer: usize, expert: usize) -> Option<Held<'_>> {
        let shared = &*self.shared;
        let mut state = shared.lock();
        let slot = state.slot(layer, expert)?;
        let began = match state.stage(slot) {
            Stage::Resident => None,
            _ => Some(Instant::now()),
        };
        let mut missed = false;
        loop {
            state = match state.stage(slot) {
                Stage::Resident => break,
                Stage::Absent => match shared.admit(state, slot, true) {
                    (state, true) => {
                        drop(state);
                        missed = true;
                        let began = Instant::now();
                        shared.request(slot);
                        shared.load(slot, false, began)
                    }
                    (state, false) if state.stage(slot) == Stage::Absent => shared.wait(state),
                    // The thread was faster.
                    (state, false) => state,
                },
                Stage::Loading | Stage::Leaving => shared.wait(state),
            };
        }
        state.pin(slot, missed, began.map(|began| began.elapsed()));
        Some(Held { shared, slot })
    }

    /// What was needed until now.
    pub fn usage(&self) -> ExpertUse {
        let counted = self.shared.lock().usage();
        let resident = |part: &Bytes| {
            let (mapping, range) = part.mapped()?;
            if range.len() < SMALLEST { Some(0) } else { mapping.resident(range) }
        };
        let resident = self.shared.parts.iter().map(resident).sum::<Option<usize>>();
        ExpertUse { resident_bytes: resident.map(|bytes| bytes as u64), ..counted }
    }
}

impl Drop for ExpertCache {
    fn drop(&mut self) {
        self.shared.lock().end();
        self.shared.changed.notify_all();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Keeps an expert in memory.
pub(crate) struct Held<'a> {
    shared: &'a Shared,
    slot: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.shared.lock().unpin(self.slot) {
            self.shared.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// All experts were read when the file was checked: those that fit stay, the others leave.
    fn settle(&self) {
        let mut state = self.lock();
        state.fill();
        for (slot, part) in self.parts.iter().enumerate() {
            let Some((mapping, range)) = part.mapped().filter(|_| state.is_cached(slot)) else { continue };
            mapping.expect_scattered(range.clone());
            if state.stage(slot) == Stage::Absent {
                mapping.release(range);
            }
        }
    }

    /// Makes room for an absent expert by evicting others, and marks it as loading; false if there is no room yet, or
    /// if it is not absent any more.
    fn admit<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        slot: usize,
        demanded: bool,
    ) -> (MutexGuard<'a, State>, bool) {
        loop {
            if state.stage(slot) != Stage::Absent {
                return (state, false);
            }
            if state.begin(slot) {
                return (state, true);
            }
            let Some(victim) = state.evict(slot, demanded) else { return (state, false) };
            drop(state);
            if let Some((mapping, range)) = self.parts.get(victim).and_then(Bytes::mapped) {
                mapping.release(range);
            }
            state = self.lock();
            state.gone(victim);
            self.changed.notify_all();
        }
    }

    /// Begins to read an expert.
    fn request(&self, slot: usize) {
        if let Some((mapping, range)) = self.parts.get(slot).and_then(Bytes::mapped) {
            mapping.request(range);
        }
    }

    /// Reads an expert that was marked as loading and requested; the time is counted from `began`.
    fn load(&self, slot: usize, ahead: bool, began: Instant) -> MutexGuard<'_, State> {
        if let Some((mapping, range)) = self.parts.get(slot).and_then(Bytes::mapped) {
            mapping.await_pages(range);
        }
        let mut state = self.lock();
        state.loaded(slot, ahead, began.elapsed());
        self.changed.notify_all();
        state
    }

    /// The life of the thread: reads wanted experts in the order of their use, several at a time.
    fn read_ahead(&self) {
        let mut requested = [0; AT_ONCE];
        let mut state = self.lock();
        while !state.ends() {
            let (mut count, mut began) = (0, Instant::now());
            while let (Some(place), Some(slot)) = (requested.get_mut(count), state.next_wanted()) {
                let admitted;
                (state, admitted) = self.admit(state, slot, false);
                if admitted {
                    (*place, count) = (slot, count + 1);
                    // Others need not wait for the request.
                    drop(state);
                    self.request(slot);
                    state = self.lock();
                } else if state.stage(slot) == Stage::Absent {
                    break;
                }
            }
            if count == 0 {
                // The end may have come while an expert was evicted.
                if !state.ends() {
                    state = self.wait(state);
                }
                continue;
            }
            drop(state);
            for &slot in requested.iter().take(count) {
                drop(self.load(slot, true, began));
                began = Instant::now();
            }
            state = self.lock();
        }
    }
}

fn unsupported(node: &str, reason: String) -> Error {
    Error::Unsupported { node: node.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use skipstone_kernels::mapping::Mapping;

    use super::*;

    const PAGE: usize = 1 << 16;

    /// A mapped file with `layers` times `count` experts of one (large) page, and its bytes.
    fn file(layers: usize, count: usize) -> (Vec<Vec<Bytes>>, Vec<u8>) {
        let bytes: Vec<u8> = (0..layers * count * PAGE).map(|at| (at / 13 + at / PAGE) as u8).collect();
        let mut file: File = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        let whole = Bytes::from(Mapping::new(&file, 0, bytes.len()).unwrap().keeping(&file));
        let part = |at: usize| whole.part(at * PAGE..(at + 1) * PAGE).unwrap();
        ((0..layers).map(|layer| (0..count).map(|at| part(layer * count + at)).collect()).collect(), bytes)
    }

    fn cache(layers: &[Vec<Bytes>], budget: usize) -> ExpertCache {
        let named: Vec<(&str, &[Bytes])> = layers.iter().map(|experts| ("layer", experts.as_slice())).collect();
        ExpertCache::new(&named, budget as u64).unwrap().unwrap()
    }

    #[test]
    fn held_experts_are_in_memory_and_the_budget_is_kept() {
        let (layers, bytes) = file(3, 8);
        let cache = cache(&layers, 9 * PAGE);
        let mut used = 0;
        for run in 0..20usize {
            let chosen: Vec<i64> = (0..2).map(|at| ((run * 5 + at * 3) % 8) as i64).collect();
            for layer in 0..3 {
                cache.foresee(layer, chosen.iter().copied());
            }
            for (layer, experts) in layers.iter().enumerate() {
                cache.enter(layer);
                for &expert in &chosen {
                    let held = cache.hold(layer, expert as usize).unwrap();
                    let part = &experts[expert as usize];
                    let at = (layer * 8 + expert as usize) * PAGE;
                    assert_eq!(**part, bytes[at..at + PAGE]);
                    let (mapping, range) = part.mapped().unwrap();
                    assert!(mapping.resident(range).is_none_or(|resident| resident == PAGE));
                    drop(held);
                    used += 1;
                    let usage = cache.usage();
                    assert!(usage.held_bytes <= usage.budget_bytes, "{usage:?}");
                }
            }
        }
        let usage = cache.usage();
        assert_eq!(usage.hits + usage.ahead + usage.misses, used);
        assert_eq!((usage.total_bytes, usage.budget_bytes), (24 * PAGE as u64, 9 * PAGE as u64));
        assert!(usage.missed_bytes == usage.misses * PAGE as u64 && usage.ahead_bytes >= usage.ahead * PAGE as u64);
    }

    /// Regression: a step that made room for an expert, which the thread had read meanwhile, waited for ever.
    #[test]
    fn a_step_and_the_thread_may_read_the_same_expert() {
        let (layers, _) = file(1, 4);
        let cache = cache(&layers, 2 * PAGE);
        for run in 0..200usize {
            let chosen = [run % 4, (run + 1) % 4, (run + 2) % 4];
            cache.foresee(0, chosen.iter().map(|&expert| expert as i64));
            cache.enter(0);
            chosen.iter().for_each(|&expert| drop(cache.hold(0, expert)));
        }
        let usage = cache.usage();
        assert_eq!(usage.hits + usage.ahead + usage.misses, 600);
    }

    #[test]
    fn threads_that_need_more_than_the_budget_wait_for_each_other() {
        let (layers, bytes) = file(1, 4);
        let cache = cache(&layers, PAGE);
        thread::scope(|scope| {
            for expert in 0..4 {
                let (cache, layers, bytes) = (&cache, &layers, &bytes);
                scope.spawn(move || {
                    for _ in 0..10 {
                        cache.enter(0);
                        let _held = cache.hold(0, expert);
                        assert_eq!(*layers[0][expert], bytes[expert * PAGE..(expert + 1) * PAGE]);
                        assert!(cache.usage().held_bytes <= PAGE as u64);
                    }
                });
            }
        });
    }

    #[test]
    fn with_a_budget_for_all_nothing_is_read_again() {
        let (layers, _) = file(2, 3);
        let cache = cache(&layers, 6 * PAGE);
        for run in 0..6 {
            cache.enter(run % 2);
            assert!(cache.hold(run % 2, run / 2).is_some());
        }
        assert!(cache.hold(0, 3).is_none() && cache.hold(2, 0).is_none());
        let usage = cache.usage();
        assert_eq!((usage.hits, usage.misses, usage.missed_bytes + usage.ahead_bytes), (6, 0, 0));
    }

    #[test]
    fn a_budget_below_one_expert_and_experts_on_the_heap_are_refused() {
        let (layers, _) = file(1, 2);
        let error =
            |experts: &[Bytes], budget| ExpertCache::new(&[("ffn", experts)], budget).err().unwrap().to_string();
        let small = error(&layers[0], PAGE as u64 - 1);
        assert!(small.contains("'ffn'") && small.contains("needs 65536 bytes"), "{small}");
        let heap = [Bytes::copy_of(&[1; 8192]).unwrap()];
        assert!(error(&heap, 1 << 20).contains("compile the model"));
        assert!(ExpertCache::new(&[], 0).unwrap().is_none());
    }
}

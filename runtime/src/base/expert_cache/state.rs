//! Which experts are in memory, and which leaves next.
//!
//! Layers are visited one after another, run after run. So an expert of the layer that was just visited is not needed
//! for a whole run, and one of the next layer soon: recency alone, which would evict the next layer's first, is the
//! worst rule. An expert's *age* is the number of visits of its own layer since its last use. The oldest leaves first,
//! among equals the one whose layer is visited last: the least stale stay (A. Abnous et al.,
//! ["SpecMD"](https://arxiv.org/abs/2602.03921), 2026, on least-stale eviction). Experts that are known to be needed in
//! this run leave only after all others, the last needed one first, as L. Bélády's optimal rule (1966) demands. Half of a
//! layer's share of the budget is kept for it while other layers have more.

use std::ops::Range;
use std::time::Duration;

use super::super::expert_use::ExpertUse;

/// The way of an expert's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Absent,
    /// Being read; counts for the budget.
    Loading,
    Resident,
    /// Being evicted; counts for the budget.
    Leaving,
}

/// An expert.
struct Slot {
    layer: usize,
    /// 0 for one that is too small to be evicted.
    bytes: usize,
    stage: Stage,
    /// How many steps are using it.
    pins: usize,
    /// Whether the next visit of its layer is known to use it.
    wanted: bool,
    /// Whether it was read ahead and not used yet.
    ahead: bool,
    /// The visit of its layer that used it last.
    last: u64,
}

struct Layer {
    slots: Range<usize>,
    visits: u64,
    /// Bytes in memory.
    held: usize,
    /// Bytes that other layers leave to it.
    floor: usize,
}

/// The experts of all layers, numbered layer by layer.
pub(super) struct State {
    slots: Vec<Slot>,
    layers: Vec<Layer>,
    budget: usize,
    held: usize,
    /// The layer that was entered last.
    now: usize,
    /// Whether an expert waits until another one may leave.
    full: bool,
    ends: bool,
    counts: ExpertUse,
}

impl State {
    /// All absent; `sizes` are the bytes of each expert of each layer.
    pub fn new(sizes: &[Vec<usize>], budget: usize) -> Self {
        let total: usize = sizes.iter().flatten().sum();
        let (mut slots, mut layers) = (Vec::new(), Vec::new());
        for (layer, sizes) in sizes.iter().enumerate() {
            let (first, own) = (slots.len(), sizes.iter().sum::<usize>());
            // Every expert that is too small to be evicted is there already.
            let stage = |bytes| if bytes == 0 { Stage::Resident } else { Stage::Absent };
            slots.extend(sizes.iter().map(|&bytes| Slot {
                layer,
                bytes,
                stage: stage(bytes),
                pins: 0,
                wanted: false,
                ahead: false,
                last: 0,
            }));
            let floor = budget as u128 * own as u128 / (2 * total.max(1) as u128);
            layers.push(Layer { slots: first..slots.len(), visits: 0, held: 0, floor: floor as usize });
        }
        let counts = ExpertUse { budget_bytes: budget as u64, total_bytes: total as u64, ..ExpertUse::default() };
        Self { slots, layers, budget, held: 0, now: 0, full: false, ends: false, counts }
    }

    /// Marks experts as resident while they fit, the first ones of each layer before the second ones.
    pub fn fill(&mut self) {
        let most = self.layers.iter().map(|layer| layer.slots.len()).max().unwrap_or(0);
        for at in 0..most {
            for layer in 0..self.layers.len() {
                if let Some(slot) = self.slot(layer, at)
                    && self.stage(slot) == Stage::Absent
                    && self.begin(slot)
                {
                    self.set(slot, Stage::Resident);
                }
            }
        }
    }

    /// The number of an expert of a layer.
    pub fn slot(&self, layer: usize, expert: usize) -> Option<usize> {
        let slots = &self.layers.get(layer)?.slots;
        (expert < slots.len()).then(|| slots.start + expert)
    }

    pub fn stage(&self, slot: usize) -> Stage {
        self.slots.get(slot).map_or(Stage::Resident, |slot| slot.stage)
    }

    fn set(&mut self, slot: usize, stage: Stage) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.stage = stage;
        }
    }

    /// Whether it is large enough to be evicted.
    pub fn is_cached(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.bytes > 0)
    }

    pub fn enter(&mut self, layer: usize) {
        if let Some(entered) = self.layers.get_mut(layer) {
            entered.visits += 1;
            self.now = layer;
        }
    }

    /// Notes which experts the next visit of a layer uses; true if one of them is to be read.
    pub fn foresee(&mut self, layer: usize, selected: impl Iterator<Item = i64>) -> bool {
        let Some(range) = self.layers.get(layer).map(|layer| layer.slots.clone()) else { return false };
        let slots = self.slots.get_mut(range).unwrap_or_default();
        slots.iter_mut().for_each(|slot| slot.wanted = false);
        let mut absent = false;
        for index in selected {
            let index = if index < 0 { index + slots.len() as i64 } else { index };
            if let Some(slot) = usize::try_from(index).ok().and_then(|index| slots.get_mut(index)) {
                slot.wanted = true;
                absent |= slot.stage == Stage::Absent;
            }
        }
        absent
    }

    /// Visits until the next one of an expert's layer: with `used`, the current one does not count.
    fn distance(&self, slot: &Slot, used: bool) -> usize {
        let count = self.layers.len();
        (slot.layer + 2 * count - self.now - usize::from(used)) % count
    }

    /// The wanted expert that is needed first and is not there.
    pub fn next_wanted(&self) -> Option<usize> {
        let wanted = self.slots.iter().enumerate().filter(|(_, slot)| slot.wanted && slot.stage == Stage::Absent);
        wanted.min_by_key(|(at, slot)| (self.distance(slot, false), *at)).map(|(at, _)| at)
    }

    /// Counts an absent expert as loading; false if it does not fit.
    pub fn begin(&mut self, slot: usize) -> bool {
        let Some(it) = self.slots.get_mut(slot).filter(|it| self.held + it.bytes <= self.budget) else { return false };
        it.stage = Stage::Loading;
        self.held += it.bytes;
        if let Some(layer) = self.layers.get_mut(it.layer) {
            layer.held += it.bytes;
        }
        true
    }

    /// Chooses an expert that leaves for another, which a step waits for or will need; `None` if all are in use or
    /// needed sooner.
    pub fn evict(&mut self, incoming: usize, demanded: bool) -> Option<usize> {
        let wanted = self.slots.get(incoming)?;
        let turn = |at: usize, slot: &Slot| (self.distance(slot, false), at);
        let may_leave = |at: usize, slot: &Slot| {
            let free = slot.stage == Stage::Resident && slot.pins == 0 && slot.bytes > 0;
            free && (demanded || !slot.wanted || turn(at, slot) > turn(incoming, wanted))
        };
        let above_floor = |slot: &Slot| {
            let layer = self.layers.get(slot.layer);
            slot.layer == wanted.layer || layer.is_some_and(|layer| layer.held >= layer.floor + slot.bytes)
        };
        let order = |at: usize, slot: &Slot| {
            let age = self.layers.get(slot.layer).map_or(0, |layer| layer.visits - slot.last.min(layer.visits));
            let (age, distance) =
                if slot.wanted { (0, self.distance(slot, false)) } else { (age, self.distance(slot, true)) };
            (!slot.wanted, above_floor(slot), age, distance, at)
        };
        let candidates = self.slots.iter().enumerate().filter(|(at, slot)| may_leave(*at, slot));
        let victim = candidates.max_by_key(|(at, slot)| order(*at, slot)).map(|(at, _)| at);
        match victim {
            Some(victim) => self.set(victim, Stage::Leaving),
            None => self.full = true,
        }
        victim
    }

    /// An evicted expert's pages have been released.
    pub fn gone(&mut self, slot: usize) {
        let Some(it) = self.slots.get_mut(slot) else { return };
        it.stage = Stage::Absent;
        it.ahead = false;
        self.held -= it.bytes;
        if let Some(layer) = self.layers.get_mut(it.layer) {
            layer.held -= it.bytes;
        }
    }

    /// A loading expert has been read.
    pub fn loaded(&mut self, slot: usize, ahead: bool, time: Duration) {
        let Some(it) = self.slots.get_mut(slot) else { return };
        it.stage = Stage::Resident;
        it.ahead = ahead;
        let read = if ahead { &mut self.counts.ahead_bytes } else { &mut self.counts.missed_bytes };
        *read += it.bytes as u64;
        self.counts.reading += time;
    }

    /// A step uses a resident expert, after waiting for it.
    pub fn pin(&mut self, slot: usize, missed: bool, waited: Option<Duration>) {
        let Some(it) = self.slots.get_mut(slot) else { return };
        it.pins += 1;
        it.wanted = false;
        it.last = self.layers.get(it.layer).map_or(0, |layer| layer.visits);
        let count = match (missed, it.ahead) {
            (true, _) => &mut self.counts.misses,
            (false, true) => &mut self.counts.ahead,
            (false, false) => &mut self.counts.hits,
        };
        *count += 1;
        it.ahead = false;
        self.counts.stalled += waited.unwrap_or_default();
    }

    /// A step is done with an expert; true if another one waits for that.
    pub fn unpin(&mut self, slot: usize) -> bool {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.pins -= 1;
        }
        std::mem::take(&mut self.full)
    }

    pub fn usage(&self) -> ExpertUse {
        ExpertUse { held_bytes: self.held as u64, ..self.counts }
    }

    /// Asks the thread to end.
    pub fn end(&mut self) {
        self.ends = true;
    }

    pub fn ends(&self) -> bool {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers of experts of one byte, filled.
    fn state(layers: usize, count: usize, budget: usize) -> State {
        let mut state = State::new(&vec![vec![1; count]; layers], budget);
        state.fill();
        state
    }

    fn present(state: &State) -> Vec<usize> {
        (0..state.slots.len()).filter(|&slot| state.stage(slot) == Stage::Resident).collect()
    }

    /// Uses an expert, reading it if it is absent; returns what left for it.
    fn use_one(state: &mut State, layer: usize, expert: usize) -> Option<usize> {
        let slot = state.slot(layer, expert).unwrap();
        let victim = (state.stage(slot) == Stage::Absent).then(|| {
            let victim = state.evict(slot, true).unwrap();
            state.gone(victim);
            assert!(state.begin(slot));
            state.loaded(slot, false, Duration::ZERO);
            victim
        });
        state.pin(slot, victim.is_some(), None);
        assert!(!state.unpin(slot));
        victim
    }

    #[test]
    fn experts_fill_the_budget_evenly() {
        let state = state(3, 4, 7);
        assert_eq!(present(&state), [0, 1, 2, 4, 5, 8, 9]);
        assert_eq!(state.usage().held_bytes, 7);
    }

    #[test]
    fn the_expert_of_the_oldest_visit_leaves_and_among_equals_that_of_the_layer_just_visited() {
        let mut state = state(3, 4, 6);
        assert_eq!(present(&state), [0, 1, 4, 5, 8, 9]);
        for layer in 0..3 {
            state.enter(layer);
            assert_eq!(use_one(&mut state, layer, 0), None);
        }
        // Experts 1 are older than experts 0.
        state.enter(0);
        assert_eq!(use_one(&mut state, 0, 2), Some(1));
        state.enter(1);
        assert_eq!(use_one(&mut state, 1, 2), Some(5));
        state.enter(2);
        assert_eq!(use_one(&mut state, 2, 0), None);
        // Two are two visits old, 0 in layer 0 and 1 in layer 2; layer 2 will be visited sooner.
        state.enter(0);
        assert_eq!(use_one(&mut state, 0, 3), Some(0));
    }

    #[test]
    fn wanted_experts_leave_last_and_the_last_needed_one_first() {
        let mut state = state(3, 3, 3);
        assert_eq!(present(&state), [0, 3, 6]);
        for layer in 0..3 {
            assert!(!state.foresee(layer, [0].into_iter()));
        }
        assert_eq!(state.next_wanted(), None);
        assert!(state.foresee(0, [-1].into_iter()));
        // The thread reads expert 2 of layer 0 in place of expert 0, which is not wanted any more.
        assert_eq!(state.next_wanted(), Some(2));
        assert_eq!(state.evict(2, false), Some(0));
        state.gone(0);
        assert!(state.begin(2));
        state.loaded(2, true, Duration::ZERO);
        // A step may take the place of any; the thread only of those that are needed later.
        state.enter(0);
        assert!(state.foresee(2, [1].into_iter()));
        state.pin(2, false, None);
        assert_eq!(state.evict(1, true), Some(6));
        state.gone(6);
        assert_eq!(state.next_wanted(), Some(7));
        assert!(state.begin(1));
        assert_eq!(state.evict(7, false), None);
        assert_eq!((state.usage().ahead, state.usage().hits, state.usage().ahead_bytes), (1, 0, 1));
        assert!(!state.foresee(1, [9, -4, i64::MIN].into_iter()));
    }

    #[test]
    fn a_layer_keeps_half_of_its_share() {
        let mut state = state(2, 8, 8);
        // Layer 0 uses all of its experts again and again, layer 1 none: two of its four experts stay.
        for _ in 0..4 {
            state.enter(0);
            for expert in 0..8 {
                use_one(&mut state, 0, expert);
            }
            state.enter(1);
        }
        assert_eq!(present(&state).iter().filter(|&&slot| slot >= 8).count(), 2);
    }

    #[test]
    fn experts_in_use_stay() {
        let mut state = state(1, 3, 2);
        state.enter(0);
        state.pin(0, false, None);
        state.pin(1, false, None);
        assert_eq!(state.evict(2, true), None);
        assert!(state.unpin(1), "expert 2 waits");
        assert_eq!(state.evict(2, true), Some(1));
        assert_eq!(state.evict(2, true), None);
    }

    #[test]
    fn tiny_experts_are_always_there() {
        let mut state = State::new(&[vec![0, 0], vec![5, 5]], 5);
        state.fill();
        assert_eq!(present(&state), [0, 1, 2]);
        assert!(!state.is_cached(1) && state.is_cached(3));
        assert_eq!(state.evict(3, true), Some(2));
    }
}

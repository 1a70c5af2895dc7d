//! Memory layout: offline placement of tensors in one arena.
//!
//! Two tensors may share bytes if no step needs both. Finding the smallest arena is NP-hard (it is two-dimensional
//! strip packing with fixed x), but greedy placement in a good order comes close; Pisarchyk and Lee, "Efficient Memory
//! Management for Deep Neural Net Inference" (2020), order by size. We try several orders, then improve the best by
//! moving the tensors at the top to the front of the order, and stop as soon as the lower bound is reached: the largest
//! number of bytes alive at one step.
//!
//! A greedy placement looks at every pair of tensors that are alive at the same time. Their number can be quadratic:
//! the pairs are counted, and if there are too many, tensors are placed in the order of their first step, each into the
//! tightest gap at that step, which takes O(n log n).

use std::collections::BTreeSet;
use std::ops::Range;

use skipstone_reserve::NoMemory;

use crate::reserve;

/// Alignment of every tensor: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Rounds of improvement; each costs one greedy placement.
const ROUNDS: usize = 64;

/// Most pairs of tensors that all greedy placements together look at: some tens of milliseconds.
const PAIRS: usize = 1 << 22;

/// A tensor to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its size.
    pub bytes: usize,
    /// The step that writes it.
    pub first: usize,
    /// The last step that reads it.
    pub last: usize,
}

impl Request {
    fn padded(&self) -> usize {
        self.bytes.next_multiple_of(ALIGNMENT)
    }

    #[cfg(test)]
    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// An arena in which no two live tensors overlap.
#[derive(Clone, Debug)]
pub struct ArenaLayout {
    /// Offset of every request, in order.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub bytes: usize,
    /// Largest number of bytes alive at one step.
    pub lower_bound: usize,
}

impl ArenaLayout {
    /// The bytes of request `index`, which has the length `bytes`.
    #[must_use]
    pub fn range(&self, index: usize, bytes: usize) -> Range<usize> {
        let start = self.offsets[index];
        start..start + bytes
    }
}

/// Places every request.
///
/// # Errors
/// No memory for the lists of this.
pub fn place(requests: &[Request]) -> Result<ArenaLayout, NoMemory> {
    place_within(requests, PAIRS)
}

/// Like [`place`], looking at most at `pairs` pairs of tensors.
fn place_within(requests: &[Request], mut pairs: usize) -> Result<ArenaLayout, NoMemory> {
    let lower_bound = moments(requests)?.into_iter().max().unwrap_or(0);
    let pressure = pressures(requests)?;
    let largest = |size: usize| usize::MAX - size;
    let orders = [
        in_order(requests, &|_, r| (largest(r.padded()), r.first))?,
        in_order(requests, &|i, r| (largest(pressure[i]), largest(r.padded())))?,
        in_order(requests, &|_, r| (largest(r.padded() * (r.last - r.first + 1)), r.first))?,
        in_order(requests, &|_, r| (r.first, largest(r.padded())))?,
    ];

    let mut best: Option<(Vec<usize>, Placement)> = None;
    for order in orders {
        let Some(placement) = greedy(requests, &order, &mut pairs)? else { break };
        if best.as_ref().is_none_or(|(_, best)| placement.bytes < best.bytes) {
            best = Some((order, placement));
        }
        if best.as_ref().is_some_and(|(_, best)| best.bytes == lower_bound) {
            break;
        }
    }
    let Some((mut trial_order, mut best)) = best else {
        let Placement { offsets, bytes } = as_they_come(requests)?;
        return Ok(ArenaLayout { offsets, bytes, lower_bound });
    };
    let mut trial = best.copy()?;
    let mut moved = reserve::empty(requests.len())?;
    for _ in 0..ROUNDS {
        if best.bytes == lower_bound {
            break;
        }
        // A request that reaches the top was placed too late: place it first.
        let top = |&i: &usize| trial.offsets[i] + requests[i].padded() == trial.bytes;
        moved.clear();
        moved.extend(trial_order.iter().filter(|i| top(i)));
        moved.extend(trial_order.iter().filter(|i| !top(i)));
        std::mem::swap(&mut trial_order, &mut moved);
        let Some(next) = greedy(requests, &trial_order, &mut pairs)? else { break };
        trial = next;
        if trial.bytes < best.bytes {
            best = trial.copy()?;
        }
    }
    Ok(ArenaLayout { offsets: best.offsets, bytes: best.bytes, lower_bound })
}

/// The requests' indices, ordered by key.
fn in_order(requests: &[Request], key: &dyn Fn(usize, &Request) -> (usize, usize)) -> Result<Vec<usize>, NoMemory> {
    let keyed = requests.iter().enumerate().map(|(index, request)| {
        let (first, second) = key(index, request);
        (first, second, index)
    });
    let mut keyed: Vec<(usize, usize, usize)> = reserve::list(keyed)?;
    keyed.sort_unstable();
    reserve::list(keyed.into_iter().map(|(_, _, index)| index))
}

/// Offsets of all requests, and their total size.
struct Placement {
    offsets: Vec<usize>,
    bytes: usize,
}

impl Placement {
    fn copy(&self) -> Result<Self, NoMemory> {
        Ok(Self { offsets: reserve::list(self.offsets.iter().copied())?, bytes: self.bytes })
    }
}

/// Number of steps covered by the requests.
fn steps(requests: &[Request]) -> usize {
    requests.iter().map(|r| r.last + 1).max().unwrap_or(0)
}

/// Bytes alive at every step.
fn moments(requests: &[Request]) -> Result<Vec<usize>, NoMemory> {
    let steps = steps(requests);
    let mut change = reserve::copies(0isize, steps + 1)?;
    for r in requests {
        change[r.first] += r.padded().cast_signed();
        change[r.last + 1] -= r.padded().cast_signed();
    }
    let mut alive = 0isize;
    reserve::list(change.iter().take(steps).map(|c| {
        alive += c;
        alive.unsigned_abs()
    }))
}

/// For every request, the largest number of bytes alive during its life.
fn pressures(requests: &[Request]) -> Result<Vec<usize>, NoMemory> {
    let moments = moments(requests)?;
    let steps = moments.len();
    // A segment tree: node i is the larger of nodes 2i and 2i + 1, and the leaves are the steps.
    let mut tree = reserve::copies(0, 2 * steps)?;
    tree[steps..].copy_from_slice(&moments);
    for i in (1..steps).rev() {
        tree[i] = tree[2 * i].max(tree[2 * i + 1]);
    }
    let pressure = |r: &Request| segments(steps, r.first..r.last + 1).map(|node| tree[node]).max().unwrap_or(0);
    reserve::list(requests.iter().map(pressure))
}

/// The nodes of a segment tree with `len` leaves that together cover a range, O(log len) of them.
fn segments(len: usize, range: Range<usize>) -> impl Iterator<Item = usize> {
    let (mut left, mut right) = (range.start + len, range.end + len);
    std::iter::from_fn(move || {
        while left < right {
            if left % 2 == 1 {
                left += 1;
                return Some(left - 1);
            }
            if right % 2 == 1 {
                right -= 1;
                return Some(right);
            }
            (left, right) = (left / 2, right / 2);
        }
        None
    })
}

/// Placed requests, searchable by the steps in which they are alive.
struct Placed<'a> {
    requests: &'a [Request],
    steps: usize,
    /// Nodes of a segment tree over the steps: the requests that are alive during all steps of the node, but not of its
    /// parent.
    through: Vec<Vec<usize>>,
    /// Requests by their first step.
    starting: Vec<Vec<usize>>,
}

impl<'a> Placed<'a> {
    fn none(requests: &'a [Request]) -> Result<Self, NoMemory> {
        let steps = steps(requests);
        let lists = |count| reserve::copies(Vec::new(), count);
        Ok(Self { requests, steps, through: lists(2 * steps)?, starting: lists(steps)? })
    }

    fn add(&mut self, index: usize) -> Result<(), NoMemory> {
        let Request { first, last, .. } = self.requests[index];
        for node in segments(self.steps, first..last + 1) {
            reserve::push(&mut self.through[node], index)?;
        }
        reserve::push(&mut self.starting[first], index)
    }

    /// Those alive at some step of `request`: at its first step, or starting after it.
    fn beside(&self, request: &Request) -> impl Iterator<Item = usize> {
        let above = |&node: &usize| (node > 1).then_some(node / 2);
        let at_first = std::iter::successors(Some(request.first + self.steps), above);
        let later = self.starting[request.first + 1..=request.last].iter();
        at_first.flat_map(|node| &self.through[node]).chain(later.flatten()).copied()
    }
}

/// Places requests in this order, each into the tightest gap among the already placed ones that are alive at the same
/// time; `None` if it would look at more than `pairs`, which it decreases.
fn greedy(requests: &[Request], order: &[usize], pairs: &mut usize) -> Result<Option<Placement>, NoMemory> {
    let mut offsets = reserve::copies(0, requests.len())?;
    let mut placed = Placed::none(requests)?;
    // Start, end, and index.
    let mut neighbors: Vec<(usize, usize, usize)> = Vec::new();
    let mut total = 0;
    for &index in order {
        let request = &requests[index];
        let size = request.padded();
        neighbors.clear();
        let ranges = placed.beside(request).map(|i| (offsets[i], offsets[i] + requests[i].padded(), i));
        reserve::extend(&mut neighbors, ranges.take(*pairs))?;
        // A long life also takes time for each of its steps.
        match pairs.checked_sub(neighbors.len() + request.last - request.first + 1) {
            Some(left) => *pairs = left,
            None => return Ok(None),
        }
        neighbors.sort_unstable();
        let (mut end, mut gap): (usize, Option<Range<usize>>) = (0, None);
        for &(start, its_end, _) in &neighbors {
            if start >= end + size && gap.as_ref().is_none_or(|g| start - end < g.len()) {
                gap = Some(end..start);
            }
            end = end.max(its_end);
        }
        offsets[index] = gap.map_or(end, |g| g.start);
        total = total.max(offsets[index] + size);
        placed.add(index)?;
    }
    Ok(Some(Placement { offsets, bytes: total }))
}

/// Places requests step by step, each into the tightest gap at its first step.
fn as_they_come(requests: &[Request]) -> Result<Placement, NoMemory> {
    let mut offsets = reserve::copies(0, requests.len())?;
    let mut free = Gaps::default();
    let births = in_order(requests, &|_, r| (r.first, usize::MAX - r.padded()))?;
    let mut deaths = in_order(requests, &|_, r| (r.last, 0))?.into_iter().peekable();
    for index in births {
        while let Some(dead) = deaths.next_if(|&dead| requests[dead].last < requests[index].first) {
            free.give_back(offsets[dead], requests[dead].padded());
        }
        offsets[index] = free.take(requests[index].padded());
    }
    Ok(Placement { offsets, bytes: free.end })
}

/// The free parts of a growing arena; no two are adjacent.
#[derive(Default)]
struct Gaps {
    /// As (offset, length).
    by_offset: BTreeSet<(usize, usize)>,
    /// As (length, offset).
    by_length: BTreeSet<(usize, usize)>,
    /// End of the arena.
    end: usize,
}

impl Gaps {
    /// Takes `size` free bytes; returns their offset.
    fn take(&mut self, size: usize) -> usize {
        if size == 0 {
            return 0;
        }
        let tightest = self.by_length.range((size, 0)..).next().map(|&(length, offset)| (offset, length));
        // The last gap can grow.
        let last = || self.by_offset.last().copied().filter(|&(offset, length)| offset + length == self.end);
        let (offset, length) = tightest.or_else(last).unwrap_or((self.end, 0));
        self.remove(offset, length);
        self.insert(offset + size, length.saturating_sub(size));
        self.end = self.end.max(offset + size);
        offset
    }

    fn give_back(&mut self, mut offset: usize, mut length: usize) {
        let before = self.by_offset.range(..(offset, 0)).next_back().copied();
        if let Some((start, size)) = before.filter(|(start, size)| start + size == offset) {
            self.remove(start, size);
            (offset, length) = (start, size + length);
        }
        let behind = self.by_offset.range((offset + length, 0)..).next().copied();
        if let Some((start, size)) = behind.filter(|&(start, _)| start == offset + length) {
            self.remove(start, size);
            length += size;
        }
        self.insert(offset, length);
    }

    fn insert(&mut self, offset: usize, length: usize) {
        if length > 0 {
            self.by_offset.insert((offset, length));
            self.by_length.insert((length, offset));
        }
    }

    fn remove(&mut self, offset: usize, length: usize) {
        self.by_offset.remove(&(offset, length));
        self.by_length.remove(&(length, offset));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn live_tensors_never_overlap(raw in prop::collection::vec((0usize..5000, 0usize..30, 0usize..10), 1..60)) {
            let requests: Vec<Request> =
                raw.into_iter().map(|(bytes, first, len)| Request { bytes, first, last: first + len }).collect();
            let total: usize = requests.iter().map(Request::padded).sum();
            // Greedily, and with too many pairs for that.
            for layout in [place(&requests), place_within(&requests, 0), place_within(&requests, 500)] {
                let layout = layout.unwrap();
                prop_assert!(layout.bytes <= total);
                for (i, a) in requests.iter().enumerate() {
                    prop_assert_eq!(layout.offsets[i] % ALIGNMENT, 0);
                    prop_assert!(layout.offsets[i] + a.bytes <= layout.bytes);
                    for (j, b) in requests.iter().enumerate().skip(i + 1) {
                        let (x, y) = (layout.range(i, a.bytes), layout.range(j, b.bytes));
                        let apart = x.end <= y.start || y.end <= x.start || x.is_empty() || y.is_empty();
                        prop_assert!(!a.overlaps(b) || apart);
                    }
                }
                prop_assert!(layout.bytes >= layout.lower_bound);
            }
        }
    }

    /// As many tensors as a graph may have nodes, all alive at the end: placing them takes no quadratic time.
    #[test]
    fn many_tensors_that_all_live_long_are_placed() {
        let count = 100_000;
        let requests: Vec<Request> = (0..count).map(|first| Request { bytes: 64, first, last: count }).collect();
        let mut pairs = PAIRS;
        assert!(greedy(&requests, &(0..count).collect::<Vec<_>>(), &mut pairs).unwrap().is_none());
        assert_eq!(place(&requests).unwrap().bytes, count * 64);
    }

    #[test]
    fn a_long_chain_takes_its_widest_pair() {
        let requests: Vec<Request> =
            (0..20_000).map(|i| Request { bytes: 64 * (1 + i * 7 % 13), first: i, last: i + 1 }).collect();
        let layout = place(&requests).unwrap();
        assert_eq!(layout.bytes, layout.lower_bound);
        assert!(place_within(&requests, 0).unwrap().bytes < 2 * layout.lower_bound);
    }

    #[test]
    fn a_chain_takes_its_widest_pair() {
        let sizes = [640, 6400, 1280, 640, 3200];
        let requests: Vec<Request> =
            sizes.iter().enumerate().map(|(i, &bytes)| Request { bytes, first: i, last: i + 1 }).collect();
        let layout = place(&requests).unwrap();
        assert_eq!(layout.bytes, layout.lower_bound);
        assert_eq!(layout.bytes, 6400 + 1280);
    }
}

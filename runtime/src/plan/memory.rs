//! Where every tensor lies: offline placement of intervals in one arena.
//!
//! Two tensors may share bytes if no step needs both. Finding the smallest arena is
//! NP-hard (it is two-dimensional strip packing with fixed x), but greedy placement in a good
//! order comes close; Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
//! Inference" (2020), order by size. We try several orders, then improve the best by moving
//! the tensors that stick out at the top to the front, and stop as soon as the lower bound,
//! the widest moment of the graph, is reached.

use std::cmp::Reverse;
use std::ops::Range;

/// Every tensor starts at a multiple of this: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Rounds of improvement; each costs one greedy placement.
const ROUNDS: usize = 64;

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

    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// An arena in which no two live tensors overlap.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Offset of every request, in their order.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub bytes: usize,
    /// Bytes alive at the widest moment.
    pub lower_bound: usize,
}

impl Layout {
    /// The bytes of request `index`, which is `bytes` long.
    #[must_use]
    pub fn range(&self, index: usize, bytes: usize) -> Range<usize> {
        let start = self.offsets[index];
        start..start + bytes
    }
}

/// Places every request.
#[must_use]
pub fn place(requests: &[Request]) -> Layout {
    let lower_bound = widest_moment(requests);
    let area = |i: usize| requests[i].padded() * (requests[i].last - requests[i].first + 1);
    let pressure = pressures(requests);
    let mut orders: [Vec<usize>; 4] = std::array::from_fn(|_| (0..requests.len()).collect());
    orders[0].sort_by_key(|&i| (Reverse(requests[i].padded()), requests[i].first));
    orders[1].sort_by_key(|&i| (Reverse(pressure[i]), Reverse(requests[i].padded())));
    orders[2].sort_by_key(|&i| (Reverse(area(i)), requests[i].first));
    orders[3].sort_by_key(|&i| (requests[i].first, Reverse(requests[i].padded())));

    let mut best: Option<(Vec<usize>, Vec<usize>, usize)> = None;
    for order in orders {
        let (offsets, bytes) = greedy(requests, &order);
        if best.as_ref().is_none_or(|(_, _, least)| bytes < *least) {
            best = Some((order, offsets, bytes));
        }
    }
    let (mut trial_order, mut offsets, mut bytes) = best.unwrap_or_default();
    let (mut trial_offsets, mut trial_bytes) = (offsets.clone(), bytes);
    for _ in 0..ROUNDS {
        if bytes == lower_bound {
            break;
        }
        // Whatever reaches the top was placed too late: let it choose first.
        let top = |&i: &usize| trial_offsets[i] + requests[i].padded() == trial_bytes;
        let (mut moved, rest): (Vec<usize>, Vec<usize>) = trial_order.iter().partition(|i| top(i));
        moved.extend(rest);
        trial_order = moved;
        (trial_offsets, trial_bytes) = greedy(requests, &trial_order);
        if trial_bytes < bytes {
            (offsets, bytes) = (trial_offsets.clone(), trial_bytes);
        }
    }
    Layout { offsets, bytes, lower_bound }
}

/// The largest sum of sizes alive at one step.
fn widest_moment(requests: &[Request]) -> usize {
    moments(requests).into_iter().max().unwrap_or(0)
}

/// Bytes alive at every step.
fn moments(requests: &[Request]) -> Vec<usize> {
    let steps = requests.iter().map(|r| r.last + 1).max().unwrap_or(0);
    let mut change = vec![0isize; steps + 1];
    for r in requests {
        change[r.first] += r.padded().cast_signed();
        change[r.last + 1] -= r.padded().cast_signed();
    }
    let mut alive = 0isize;
    change
        .iter()
        .take(steps)
        .map(|c| {
            alive += c;
            alive.unsigned_abs()
        })
        .collect()
}

/// For every request, the widest moment that it lives through.
fn pressures(requests: &[Request]) -> Vec<usize> {
    let moments = moments(requests);
    requests.iter().map(|r| moments[r.first..=r.last].iter().copied().max().unwrap_or(0)).collect()
}

/// Places requests in this order, each into the tightest gap among those already placed that
/// live at the same time.
fn greedy(requests: &[Request], order: &[usize]) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; requests.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(requests.len());
    let mut total = 0;
    for &index in order {
        let size = requests[index].padded();
        let mut neighbours: Vec<Range<usize>> = placed
            .iter()
            .filter(|&&other| requests[index].overlaps(&requests[other]))
            .map(|&other| offsets[other]..offsets[other] + requests[other].padded())
            .collect();
        neighbours.sort_by_key(|n| n.start);
        let (mut end, mut gap): (usize, Option<Range<usize>>) = (0, None);
        for n in neighbours {
            if n.start >= end + size && gap.as_ref().is_none_or(|g| n.start - end < g.len()) {
                gap = Some(end..n.start);
            }
            end = end.max(n.end);
        }
        offsets[index] = gap.map_or(end, |g| g.start);
        total = total.max(offsets[index] + size);
        placed.push(index);
    }
    (offsets, total)
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
            let layout = place(&requests);
            for (i, a) in requests.iter().enumerate() {
                prop_assert_eq!(layout.offsets[i] % ALIGNMENT, 0);
                prop_assert!(layout.offsets[i] + a.bytes <= layout.bytes);
                for (j, b) in requests.iter().enumerate().skip(i + 1) {
                    let (x, y) = (layout.range(i, a.bytes), layout.range(j, b.bytes));
                    prop_assert!(!a.overlaps(b) || x.end <= y.start || y.end <= x.start || x.is_empty() || y.is_empty());
                }
            }
            prop_assert!(layout.bytes >= layout.lower_bound);
        }
    }

    #[test]
    fn a_chain_takes_its_widest_pair() {
        let sizes = [640, 6400, 1280, 640, 3200];
        let requests: Vec<Request> =
            sizes.iter().enumerate().map(|(i, &bytes)| Request { bytes, first: i, last: i + 1 }).collect();
        let layout = place(&requests);
        assert_eq!(layout.bytes, layout.lower_bound);
        assert_eq!(layout.bytes, 6400 + 1280);
    }
}

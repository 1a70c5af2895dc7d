//! Convolutions of which a run needs only some channels: the packed weights of the others are left out.
//!
//! A mask computed during the run selects the output channels that are needed and the input channels that are nonzero.
//! Their rows and columns are copied from the packed weights, in the packed layout of the smaller convolution, which
//! then runs like any other. Both the GEMM and the Winograd family pack matrices in panels of filters; a row of a panel
//! is copied register by register: one load, one permutation that moves the selected filters to the front, and one
//! store. The next store overwrites the remaining lanes.

use super::{ConvShape, product};
use crate::isa::Isa;
use crate::parallel;
use crate::prefetch::prefetch;
use crate::simd::{Simd, Vectorized, dispatch};
use crate::threads::Pool;

/// Channels of a convolution that a run needs, in ascending order.
#[derive(Clone, Copy, Debug)]
pub struct Active<'a> {
    /// Input channels.
    pub inputs: &'a [u32],
    /// Output channels.
    pub outputs: &'a [u32],
}

impl Active<'_> {
    /// The convolution of one image with only these channels.
    pub fn shape(&self, of: &ConvShape) -> ConvShape {
        ConvShape { batch: 1, in_c: self.inputs.len(), out_c: self.outputs.len(), ..of.clone() }
    }
}

/// Packed weights: for each panel of filters, `taps` matrices with one or more rows per channel.
pub(crate) struct Panels {
    pub channels: usize,
    pub filters: usize,
    pub taps: usize,
    /// Rows per channel of a matrix.
    pub rows: usize,
    /// Filters of a panel.
    pub nr: usize,
    /// The last panel is as wide as its filters need, rounded up to a multiple of this.
    pub lanes: usize,
    /// Elements per panel if all panels take the same space; otherwise panels are contiguous.
    pub spaced: Option<usize>,
}

impl Panels {
    /// Elements of a row of a panel.
    fn width(&self, panel: usize) -> usize {
        (self.filters - panel * self.nr).min(self.nr).next_multiple_of(self.lanes)
    }

    /// Elements of a whole panel.
    fn len(&self) -> usize {
        self.spaced.unwrap_or(product(&[self.nr, self.taps, self.channels, self.rows]))
    }

    /// Offset of the matrix of a tap.
    fn matrix(&self, panel: usize, tap: usize) -> usize {
        let matrix = self.spaced.map_or(self.width(panel) * self.channels * self.rows, |len| len / self.taps);
        panel * self.len() + tap * matrix
    }
}

/// How many rows ahead are prefetched.
const AHEAD: usize = 16;
/// Most filters of a panel.
const MAX_FILTERS: usize = 128;

/// Copies the weights of the active channels from `packed`, laid out as `from`, to `out`, laid out as `to`. Columns
/// that pad a row contain arbitrary weights.
///
/// # Panics
/// If a channel is out of range or a slice is too short.
pub(crate) fn select(
    isa: Isa,
    (from, packed): (&Panels, &[f32]),
    (to, out): (&Panels, &mut [f32]),
    active: Active<'_>,
    pool: &Pool,
) {
    assert_eq!((to.channels, to.filters), (active.inputs.len(), active.outputs.len()), "active channels");
    assert!(to.nr == from.nr && to.nr <= MAX_FILTERS && to.taps == from.taps && to.rows == from.rows, "one layout");
    let len = to.len();
    let work = out.len();
    parallel::split(pool, out, len, work, |offset, out| {
        for (at, out) in out.chunks_mut(len).enumerate() {
            let panel = Panel { from, packed, to, panel: offset / len + at, active, out, pool };
            if isa == Isa::Scalar { panel.one_by_one() } else { dispatch(isa, panel) }
        }
    });
}

/// One panel of the result.
struct Panel<'a> {
    from: &'a Panels,
    packed: &'a [f32],
    to: &'a Panels,
    panel: usize,
    active: Active<'a>,
    out: &'a mut [f32],
    pool: &'a Pool,
}

/// Rows between two questions whether to stop.
const ROWS: usize = 1 << 12;

/// A register in a row of a panel, some of whose lanes move to the front.
#[derive(Clone, Copy)]
struct Move {
    /// Its panel and first column.
    panel: usize,
    column: usize,
    /// The destination column of its first selected lane.
    to: usize,
    /// Start of the matrix, and elements from one row to the next.
    start: usize,
    width: usize,
    lanes: [u8; 16],
}

impl<'a> Panel<'a> {
    /// The filters of this panel.
    fn filters(&self) -> &'a [u32] {
        let first = self.panel * self.to.nr;
        &self.active.outputs[first..self.to.filters.min(first + self.to.nr)]
    }

    fn one_by_one(self) {
        let (from, to, width) = (self.from, self.to, self.to.width(self.panel));
        for tap in 0..to.taps {
            let start = to.matrix(self.panel, tap) - to.matrix(self.panel, 0);
            for row in 0..to.channels * to.rows {
                if row % ROWS == ROWS - 1 && self.pool.stops() {
                    return;
                }
                let read = self.active.inputs[row / to.rows] as usize * to.rows + row % to.rows;
                for (column, &filter) in self.filters().iter().enumerate() {
                    let (panel, filter) = (filter as usize / from.nr, filter as usize % from.nr);
                    let at = from.matrix(panel, tap) + read * from.width(panel) + filter;
                    self.out[start + row * width + column] = self.packed[at];
                }
            }
        }
    }

    /// The moves that produce a row, in ascending order.
    fn moves(&self, lanes: usize) -> ([Move; MAX_FILTERS], usize) {
        let none = Move { panel: usize::MAX, column: 0, to: 0, start: 0, width: 0, lanes: [0; 16] };
        let (mut moves, mut count, mut moved) = ([none; MAX_FILTERS], 0, 0);
        for (to, &filter) in self.filters().iter().enumerate() {
            let (panel, column) = (filter as usize / self.from.nr, filter as usize % self.from.nr);
            let (column, lane) = (column / lanes * lanes, column % lanes);
            if count == 0 || (moves[count - 1].panel, moves[count - 1].column) != (panel, column) {
                moves[count] = Move { panel, column, to, width: self.from.width(panel), ..none };
                (count, moved) = (count + 1, 0);
            }
            moves[count - 1].lanes[moved] = lane as u8;
            moved += 1;
        }
        (moves, count)
    }
}

impl Vectorized for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (mut moves, count) = self.moves(S::LANES);
        let moves = &mut moves[..count];
        let Panel { from, packed, to, panel, active, out, pool } = self;
        let width = to.width(panel);
        for tap in 0..to.taps {
            for step in &mut *moves {
                step.start = from.matrix(step.panel, tap) + step.column;
            }
            let mut row = to.matrix(panel, tap) - to.matrix(panel, 0);
            for (at, &channel) in active.inputs.iter().enumerate() {
                if at % ROWS == ROWS - 1 && pool.stops() {
                    return;
                }
                // The hardware prefetcher cannot predict which rows are skipped.
                let next = active.inputs[(at + AHEAD / to.rows).min(active.inputs.len() - 1)] as usize * to.rows;
                for step in &*moves {
                    for row in next..next + to.rows {
                        let from = step.start + row * step.width;
                        prefetch(&packed[from..from + 1]);
                    }
                }
                for read in channel as usize * to.rows..(channel as usize + 1) * to.rows {
                    for step in &*moves {
                        let (packed, out) = (&packed[step.start + read * step.width..], &mut out[row + step.to..]);
                        let whole =
                            if packed.len() >= S::LANES { simd.load(packed) } else { simd.load_partial(packed) };
                        let wanted = simd.pick(whole, &step.lanes);
                        // The remaining lanes are overwritten later, by this row or the next, or lie in padding.
                        if out.len() >= S::LANES { simd.store(wanted, out) } else { simd.store_partial(wanted, out) }
                    }
                    row += width;
                }
            }
        }
    }
}

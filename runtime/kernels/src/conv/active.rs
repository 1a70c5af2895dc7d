//! Convolutions of which a run needs some channels only: packed weights for the others are left out.
//!
//! A mask that is computed in the run says which output channels are wanted, and which input channels are not zero. The
//! rows and columns of those are copied out of the packed weights, in the packed layout of the smaller convolution,
//! which is then an ordinary one. Both the GEMM and the Winograd family pack matrices in panels of filters; a row of
//! a panel is copied register by register: one load, one permutation that moves the wanted filters to the front, one
//! store, whose other lanes the next store overwrites.

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
    /// The convolution of one image that has these channels alone.
    pub fn shape(&self, of: &ConvShape) -> ConvShape {
        ConvShape { batch: 1, in_c: self.inputs.len(), out_c: self.outputs.len(), ..of.clone() }
    }
}

/// Packed weights: for each panel of filters, `taps` matrices of a row (or several) for every channel.
pub(crate) struct Panels {
    pub channels: usize,
    pub filters: usize,
    pub taps: usize,
    /// Rows of a matrix for each channel.
    pub rows: usize,
    /// Filters of a panel.
    pub nr: usize,
    /// The last panel is as wide as its filters need, rounded up to a multiple of this.
    pub lanes: usize,
    /// Elements of a panel, where all take the same; else they lie side by side.
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

    /// Where the matrix of a tap begins.
    fn matrix(&self, panel: usize, tap: usize) -> usize {
        let matrix = self.spaced.map_or(self.width(panel) * self.channels * self.rows, |len| len / self.taps);
        panel * self.len() + tap * matrix
    }
}

/// Rows that are prefetched ahead.
const AHEAD: usize = 16;
/// Most filters of a panel.
const MAX_FILTERS: usize = 128;

/// Copies the weights of the active channels from `packed`, laid out as `from`, to `out`, laid out as `to`. Columns
/// that pad a row get any weights.
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
            let panel = Panel { from, packed, to, panel: offset / len + at, active, out };
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
}

/// A register of a row of a panel, of which some lanes move to the front.
#[derive(Clone, Copy)]
struct Move {
    /// The panel it is in, and its first column.
    panel: usize,
    column: usize,
    /// The column that its first wanted lane goes to.
    to: usize,
    /// Where the matrix begins, and elements from row to row.
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
                let read = self.active.inputs[row / to.rows] as usize * to.rows + row % to.rows;
                for (column, &filter) in self.filters().iter().enumerate() {
                    let (panel, filter) = (filter as usize / from.nr, filter as usize % from.nr);
                    let at = from.matrix(panel, tap) + read * from.width(panel) + filter;
                    self.out[start + row * width + column] = self.packed[at];
                }
            }
        }
    }

    /// The moves that make a row, in ascending order.
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
        let Panel { from, packed, to, panel, active, out } = self;
        let width = to.width(panel);
        for tap in 0..to.taps {
            for step in &mut *moves {
                step.start = from.matrix(step.panel, tap) + step.column;
            }
            let mut row = to.matrix(panel, tap) - to.matrix(panel, 0);
            for (at, &channel) in active.inputs.iter().enumerate() {
                // Rows are skipped in no order that the CPU could see.
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
                        // What lies behind the wanted lanes is written later: in this row, the next, or nowhere.
                        if out.len() >= S::LANES { simd.store(wanted, out) } else { simd.store_partial(wanted, out) }
                    }
                    row += width;
                }
            }
        }
    }
}

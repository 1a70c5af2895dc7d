//! The loops of a unit, generic over the register type.

use super::split::{Place, Split};
use crate::conv::ConvShape;
use crate::epilogue::{Bounds, Rest, Stored};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::pace::Pace;
use crate::parallel::Output;
use crate::threads::Pool;

/// A unit of a convolution whose lengths were checked.
pub(super) struct Unit<'a> {
    pub shape: &'a ConvShape,
    pub split: &'a Split,
    pub place: Place,
    /// All images.
    pub input: &'a [f32],
    /// All weights.
    pub packed: &'a [f32],
    /// From [`Split::offsets`].
    pub offsets: &'a [u32],
    pub bias: Option<&'a [f32]>,
    /// 0: if the compiler knew it, it would fill memory by a call.
    pub zero: f32,
    /// Applied to the sums in registers.
    pub bounds: Bounds,
    /// Applied to a stored tile.
    pub rest: Option<Rest<'a>>,
    pub isa: Isa,
    /// The whole output.
    pub out: &'a Output,
    /// Asked whether to stop.
    pub pool: &'a Pool,
}

/// AVX2: eight filters.
///
/// # Safety
/// As for [`run`]; the CPU has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2(unit: &Unit<'_>, slot: &mut [f32]) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::avx2::F32x8>(unit, slot) }
}

/// AVX-512: sixteen filters.
///
/// # Safety
/// As for [`run`]; the CPU has AVX-512 F, BW, DQ and VL.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn avx512(unit: &Unit<'_>, slot: &mut [f32]) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::avx512::F32x16>(unit, slot) }
}

/// NEON: four filters.
///
/// # Safety
/// As for [`run`]; the CPU has NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon(unit: &Unit<'_>, slot: &mut [f32]) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::neon::F32x4>(unit, slot) }
}

/// 32-bit ARM: four filters.
///
/// # Safety
/// As for [`run`]; the CPU has NEON and VFPv4.
#[cfg(target_arch = "arm")]
pub(super) unsafe fn neon32(unit: &Unit<'_>, slot: &mut [f32]) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::neon32::F32x4>(unit, slot) }
}

/// In place of the kernels of other architectures, which no CPU that this build runs on is available for.
#[cfg(feature = "foreign")]
pub(super) unsafe fn not_built(_unit: &Unit<'_>, _slot: &mut [f32]) {
    unreachable!("a kernel of another architecture");
}

/// Most lanes of a register.
const MAX_LANES: usize = 16;

/// How the pixels of a block are spread.
#[derive(Clone, Copy)]
struct Spread {
    kind: Kind,
    /// First channel of the first lane's group.
    first: usize,
    /// The distance of each lane's channel from the first lane's: that of the last filter in lanes without one.
    lanes: [u16; MAX_LANES],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All lanes have the same channel.
    Splat,
    /// The lanes, all of them with a filter, have adjacent channels.
    Adjacent,
    /// The channels of all lanes' groups are within a register.
    Near,
    /// They are not.
    Far,
}

impl Spread {
    /// For `width` filters from `filter` on.
    #[inline(never)]
    fn new(s: &ConvShape, filter: usize, width: usize) -> Self {
        let count = width.min(s.out_c - filter);
        let group = |lane: usize| (filter + lane.min(count - 1)) / s.group_out();
        let first = group(0) * s.group_in();
        let mut lanes = [0; MAX_LANES];
        for (lane, to) in lanes[..width].iter_mut().enumerate() {
            *to = (group(lane) * s.group_in() - first) as u16;
        }
        let adjacent = lanes[..width].iter().enumerate().all(|(lane, &channel)| usize::from(channel) == lane);
        let kind = match usize::from(lanes[count - 1]) {
            0 => Kind::Splat,
            _ if adjacent => Kind::Adjacent,
            last if last + s.group_in() <= width => Kind::Near,
            _ => Kind::Far,
        };
        Spread { kind, first, lanes }
    }

    /// For every channel of a group: where the lanes' channels are in a register that begins `before` the first. Only for
    /// [`Kind::Near`].
    #[inline(never)]
    fn near(&self, before: usize) -> [[u8; MAX_LANES]; MAX_LANES] {
        std::array::from_fn(|channel| self.lanes.map(|lane| (usize::from(lane) + channel + before) as u8))
    }
}

/// Most blocks of a unit.
const MAX_TOGETHER: usize = 4;

/// Loops over rows, then blocks: each spreads the input rows that it lacks for the next output row, and computes it.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them. The lengths of the slices match the shape,
/// the split is for registers of `L`, the offsets are the split's, and no other code accesses the outputs of the unit.
///
/// # Panics
/// If the slot is too short.
#[inline(always)]
unsafe fn run<L: Lanes>(unit: &Unit<'_>, slot: &mut [f32]) {
    let (s, split, place) = (unit.shape, unit.split, &unit.place);
    assert_eq!(split.width, L::WIDTH, "filters of a register");
    let pace = Pace::of(unit.pool);
    let filters = split.registers * L::WIDTH;
    // A multiply-add of a register takes half a cycle, a step of the pace about one.
    let work = split.steps * place.columns.len() * split.registers * place.blocks.len() / 2 + 16;
    let mut spreads = [Spread { kind: Kind::Splat, first: 0, lanes: [0; MAX_LANES] }; MAX_TOGETHER];
    for (spread, block) in spreads.iter_mut().zip(place.blocks.clone()) {
        *spread = Spread::new(s, block * filters, L::WIDTH);
    }
    // The next row to spread.
    let mut next = (place.rows.start * s.stride[0]).saturating_sub(s.pad_top).min(s.in_h);
    for y in place.rows.clone() {
        if pace.stops(work) {
            return;
        }
        let end = y * s.stride[0] + (s.kernel[0] - 1) * s.dilation[0] + 1;
        let end = end.saturating_sub(s.pad_top).min(s.in_h).max(next);
        // Of more rows than a ring holds, the first ones are under no tap.
        next = next.max(end.saturating_sub(split.rows));
        let taps = s.valid_taps(0, y);
        let steps = taps.start * split.steps / s.kernel[0]..taps.end * split.steps / s.kernel[0];
        let offsets = &unit.offsets[split.top(s, y) * split.steps..][steps.clone()];
        for ((block, spread), ring) in place.blocks.clone().zip(&spreads).zip(slot.chunks_exact_mut(split.ring_len())) {
            for row in next..end {
                let to = &mut ring[row % split.rows * split.row_len..][..split.row_len];
                // SAFETY: guaranteed by the caller.
                unsafe { unit.spread::<L>(spread, row, to) }
            }
            for register in block * split.registers..(block + 1) * split.registers {
                // SAFETY: guaranteed by the caller; the ring holds all rows under the output row.
                unsafe { unit.row::<L>(y, register, (steps.start, offsets), ring) }
            }
        }
        next = end;
    }
}

impl Unit<'_> {
    /// Writes an input row to a ring, as registers with the channels that `spread` says.
    ///
    /// # Safety
    /// As for [`run`].
    ///
    /// # Panics
    /// If the row is not in the image, or `to` is not a row of a ring.
    #[inline(always)]
    unsafe fn spread<L: Lanes>(&self, spread: &Spread, row: usize, to: &mut [f32]) {
        let (s, split) = (self.shape, self.split);
        let line = &self.input[(self.place.image * s.in_h + row) * s.in_w * s.in_c..][..s.in_w * s.in_c];
        let (stride, step) = (s.stride[1], s.stride[1] * s.in_c);
        let (len, phases) = (split.pitch * L::WIDTH, split.phases.count_ones() as usize);
        for (rank, phase) in (0..stride).filter(|phase| split.phases >> phase & 1 > 0).enumerate() {
            // The column of the first register, counted from the left end of the padding, and the registers inside.
            let left = self.place.columns.start * stride + phase;
            let start = s.pad_left.saturating_sub(left).div_ceil(stride).min(split.pitch);
            let end = (s.in_w + s.pad_left).saturating_sub(left).div_ceil(stride).clamp(start, split.pitch);
            let pixels = if start < end { &line[(left + start * stride - s.pad_left) * s.in_c..] } else { &[] };
            assert!(start == end || pixels.len() > (end - start - 1) * step, "the pixels of the row");
            let (plane, count) = (phases * len, end - start);
            let to = &mut to[rank * len..];
            // SAFETY: value instructions.
            let zero = unsafe { L::splat(self.zero) };
            for to in to.chunks_mut(plane) {
                fill(&mut to[..start * L::WIDTH], zero);
                fill(&mut to[end * L::WIDTH..len], zero);
            }
            let to = Planes { pixels, step, count, channels: s.group_in(), to: &mut to[start * L::WIDTH..], plane };
            let first = spread.first;
            // SAFETY: every pixel is in the row. It has a register of channels, and one from the first on if lanes have
            // adjacent ones; the lanes of near channels are below the width.
            unsafe {
                match spread.kind {
                    Kind::Splat => to.each(
                        #[inline(always)]
                        |x, channel| L::splat(*x.add(first + channel)),
                    ),
                    Kind::Adjacent => to.each(
                        #[inline(always)]
                        |x, channel| L::load(x.add(first + channel)),
                    ),
                    Kind::Near => {
                        let from = first.min(s.in_c - L::WIDTH);
                        let lanes = spread.near(first - from);
                        to.each(
                            #[inline(always)]
                            |x, channel| L::load(x.add(from)).pick(lanes[channel].as_ptr()),
                        );
                    }
                    Kind::Far => to.each(
                        #[inline(always)]
                        |x, channel| {
                            let lanes = spread.lanes.map(|lane| *x.add(first + channel + usize::from(lane)));
                            L::load(lanes.as_ptr())
                        },
                    ),
                }
            }
        }
    }

    /// Computes a row of a register of filters: some steps from `first` on, with their offsets in the ring.
    ///
    /// # Safety
    /// As for [`run`]; the ring holds all input rows under the output row.
    #[inline(always)]
    unsafe fn row<L: Lanes>(&self, y: usize, register: usize, (first, offsets): (usize, &[u32]), ring: &[f32]) {
        let (s, split, columns) = (self.shape, self.split, self.place.columns.clone());
        let weights = &self.packed[register * split.steps * L::WIDTH..][..split.steps * L::WIDTH];
        let weights = weights[first * L::WIDTH..].as_ptr();
        let mut x = ring.as_ptr();
        let filter = register * L::WIDTH;
        let lanes = L::WIDTH.min(s.out_c - filter);
        // SAFETY: value instructions, and the bias has these filters.
        let start = unsafe {
            match self.bias.map(|bias| &bias[filter..][..lanes]) {
                None => L::splat(0.0),
                Some(bias) if lanes == L::WIDTH => L::load(bias.as_ptr()),
                Some(bias) => L::load_first(bias.as_ptr(), lanes),
            }
        };
        let pixel = (self.place.image * s.out_h + y) * s.out_w;
        for column in columns.clone().step_by(split.tile) {
            let rows = split.tile.min(columns.end - column);
            let at = (pixel + column) * s.out_c + filter;
            let stored = Stored { out: self.out.start(), at, ldc: s.out_c, rows, columns: lanes };
            // SAFETY: every step has weights, and its pixels, for a whole tile, are in the ring, whose rows are as long as
            // the tiles of the strip and the reach of the kernel. The outputs are the unit's.
            unsafe {
                let tile = Tile { x, offsets, weights, start, bounds: self.bounds, out: &stored };
                match split.tile {
                    14 => tile.compute::<14>(),
                    _ => tile.compute::<8>(),
                }
                if let Some(rest) = &self.rest {
                    rest.finish(self.isa, &stored);
                }
            }
            x = x.wrapping_add(split.tile * L::WIDTH);
        }
    }
}

/// Spread pixels of one phase of a row.
struct Planes<'a> {
    /// From the first pixel on.
    pixels: &'a [f32],
    /// Elements from one pixel to the next.
    step: usize,
    count: usize,
    /// Channels of a group.
    channels: usize,
    /// The register of the first pixel and channel; those of the next pixels follow it.
    to: &'a mut [f32],
    /// Elements from one channel to the next.
    plane: usize,
}

impl Planes<'_> {
    /// Stores the register that `load` gives for every pixel and channel. A pixel is read once, since pixels are often at
    /// distances that evict each other from the first-level cache.
    ///
    /// # Safety
    /// `load` may be called for all of these.
    ///
    /// # Panics
    /// If a register is not in `to`.
    #[inline(always)]
    unsafe fn each<L: Lanes>(self, load: impl Fn(*const f32, usize) -> L) {
        if self.count == 0 {
            return;
        }
        assert!(self.to.len() >= (self.channels - 1) * self.plane + self.count * L::WIDTH, "the registers of the row");
        let (mut from, mut to) = (self.pixels.as_ptr(), self.to.as_mut_ptr());
        for _ in 0..self.count {
            // SAFETY: the destination has these registers, as was checked. Of a single channel, it is a loop less.
            unsafe {
                load(from, 0).store(to);
                for channel in 1..self.channels {
                    load(from, channel).store(to.add(channel * self.plane));
                }
            }
            from = from.wrapping_add(self.step);
            to = to.wrapping_add(L::WIDTH);
        }
    }
}

/// Stores the same value in all registers of `to`: often one, for which a call that fills memory would take longer.
#[inline(always)]
fn fill<L: Lanes>(to: &mut [f32], value: L) {
    for to in to.chunks_exact_mut(L::WIDTH) {
        // SAFETY: a register of the destination.
        unsafe { value.store(to.as_mut_ptr()) }
    }
}

/// Adjacent outputs of a row, for a register of filters.
struct Tile<'a, L> {
    /// The pixels under the first output, from which the offsets count.
    x: *const f32,
    offsets: &'a [u32],
    /// A register for every offset.
    weights: *const f32,
    /// Start value of the sums.
    start: L,
    bounds: Bounds,
    out: &'a Stored,
}

impl<L: Lanes> Tile<'_, L> {
    /// Computes `P` outputs, and stores those that exist.
    ///
    /// # Safety
    /// The pointers are valid as documented on their fields: at every offset there are `P` registers of pixels. The
    /// caller is compiled for the instructions of `L`.
    #[inline(always)]
    unsafe fn compute<const P: usize>(&self) {
        let mut sums = [self.start; P];
        let mut weights = self.weights;
        for &offset in self.offsets {
            let x = self.x.wrapping_add(offset as usize);
            // SAFETY: guaranteed by the caller.
            unsafe {
                let w = L::load(weights);
                for (p, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(x.wrapping_add(p * L::WIDTH)).mul_add(w, *sum);
                }
            }
            weights = weights.wrapping_add(L::WIDTH);
        }
        let (min, max) = match self.bounds {
            Bounds::None => (f32::NEG_INFINITY, f32::INFINITY),
            Bounds::Least(min) => (min, f32::INFINITY),
            Bounds::Both(min, max) => (min, max),
        };
        let (min, max) = (self.start.like(min), self.start.like(max));
        for sum in &mut sums {
            *sum = sum.at_least(min).at_most(max);
        }
        let &Stored { out, at, ldc, rows, columns } = self.out;
        let to = out.wrapping_add(at);
        // Unrolled, like the loop above: sums indexed by a variable would be kept in memory.
        if rows == P && columns == L::WIDTH {
            for (p, sum) in sums.into_iter().enumerate() {
                // SAFETY: the output has the tile's rows and columns.
                unsafe { sum.store(to.wrapping_add(p * ldc)) }
            }
            return;
        }
        let mut all = [[0.0f32; MAX_LANES]; P];
        for (sum, row) in sums.into_iter().zip(&mut all) {
            // SAFETY: a row has all lanes.
            unsafe { sum.store(row.as_mut_ptr()) }
        }
        // SAFETY: the output has the tile's rows and columns.
        unsafe { store_some(&all[..rows], to, ldc, columns) }
    }
}

/// Stores the first `columns` elements of each row.
///
/// # Safety
/// The output has all of them, its rows `ldc` elements apart.
#[inline(never)]
unsafe fn store_some(rows: &[[f32; MAX_LANES]], to: *mut f32, ldc: usize, columns: usize) {
    for (at, row) in rows.iter().enumerate() {
        for (column, &sum) in row[..columns].iter().enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe { to.add(at * ldc + column).write(sum) }
        }
    }
}

//! Operations on the sums of a convolution or matrix product before they are stored.
//!
//! Bias, activation and residual add each cost a pass over memory if they run as separate operators. Fused, they are
//! applied while the sums are still in registers or, for activations that need an exponential, while the tile just
//! stored is still in the first-level cache.

use std::ops::Range;

use crate::activation::{Activation, scalar, vector};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::simd::{Simd, Vectorized, dispatch};

/// The fused tail of a kernel. For every output `(row, channel)` it computes `affine(act(sum + bias[channel] + residual))`
/// with `residual_first`, otherwise `affine(act(sum + bias[channel])) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value per output channel.
    pub bias: Option<&'a [f32]>,
    /// Applied to every output.
    pub activation: Activation,
    /// A tensor of the same layout (and row stride) as the output.
    pub residual: Option<&'a [f32]>,
    /// Whether the residual is added before the activation (ResNet) or after it (MobileNet).
    pub residual_first: bool,
    /// Applied to the activation's result. Only for a kernel that [takes](crate::conv::Kernel::takes) it.
    pub affine: Option<Affine<'a>>,
}

/// A factor and a summand per output channel: a normalization that follows the activation, whose factors cannot be folded
/// into the weights (ConvMixer, and networks of Keras that normalize after ReLU).
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// The factors.
    pub scale: &'a [f32],
    /// The summands.
    pub shift: &'a [f32],
}

impl<'a> Affine<'a> {
    /// That of some channels.
    fn channels(&self, range: Range<usize>) -> Affine<'a> {
        Affine { scale: &self.scale[range.clone()], shift: &self.shift[range] }
    }

    /// Applied to one number of a channel.
    pub(crate) fn apply(&self, channel: usize, x: f32) -> f32 {
        x * self.scale[channel] + self.shift[channel]
    }
}

impl<'a> Epilogue<'a> {
    /// No fused operations: the sum is the output.
    pub const NONE: Epilogue<'static> =
        Epilogue { bias: None, activation: Activation::None, residual: None, residual_first: false, affine: None };

    /// # Panics
    /// If the bias or the affine map does not have one element per channel, or the residual is shorter than the output.
    pub(crate) fn check(&self, channels: usize, output_len: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == channels), "bias length");
        assert!(self.affine.is_none_or(|it| it.scale.len() == channels && it.shift.len() == channels), "affine length");
        assert!(self.residual.is_none_or(|residual| residual.len() >= output_len), "residual length");
    }

    /// The output of a channel, from a sum that includes the bias: for kernels that compute one number at a time.
    pub(crate) fn number(&self, channel: usize, sum: f32, residual: f32) -> f32 {
        let affine = |x| self.affine.map_or(x, |it| it.apply(channel, x));
        match self.residual_first {
            true => affine(scalar::apply(self.activation, sum + residual)),
            false => affine(scalar::apply(self.activation, sum)) + residual,
        }
    }

    /// The part of the epilogue that a tile of a product applies in registers; [`rest`](Self::rest) is the remainder.
    pub(crate) fn bounds(&self) -> Bounds {
        match self.activation {
            _ if self.residual.is_some() && self.residual_first => Bounds::None,
            Activation::Relu => Bounds::Least(0.0),
            Activation::Clip { min, max } => Bounds::Both(min, max),
            _ => Bounds::None,
        }
    }

    /// The part that [`bounds`](Self::bounds) does not cover, to be applied to the stored tile.
    pub(crate) fn rest(&self) -> Option<Rest<'_>> {
        match self.bounds() {
            Bounds::None => self.afterwards(),
            Bounds::Least(_) | Bounds::Both(..) => Self { activation: Activation::None, ..*self }.afterwards(),
        }
    }

    /// The parts for a product whose sums can start from a residual, so that it is not read in a pass of its own.
    pub(crate) fn of_product(&self) -> OfProduct<'_> {
        let is_first = self.residual_first || self.activation == Activation::None;
        let alone = Self { residual: None, ..*self };
        match self.residual.filter(|_| is_first && alone.rest().is_none()) {
            Some(residual) => OfProduct { start: Some(residual), bounds: alone.bounds(), rest: None },
            None => OfProduct { start: None, bounds: self.bounds(), rest: self.rest() },
        }
    }

    /// The part of the activation that a kernel applies in registers.
    pub(crate) fn in_registers(&self) -> InRegisters {
        match self.activation {
            _ if self.affine.is_some() => InRegisters::Later,
            Activation::None => InRegisters::Clamp(f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => InRegisters::Clamp(0.0, f32::INFINITY),
            Activation::Clip { min, max } => InRegisters::Clamp(min, max),
            Activation::HardSwish => InRegisters::HardSwish,
            _ => InRegisters::Later,
        }
    }

    /// The part that a kernel applies in registers, and the part that remains for the stored tile.
    pub(crate) fn parts(&self) -> (InRegisters, Option<Rest<'_>>) {
        let none = InRegisters::Clamp(f32::NEG_INFINITY, f32::INFINITY);
        let (in_registers, activation) = match self.in_registers() {
            _ if self.residual.is_some() && self.residual_first => (none, self.activation),
            InRegisters::Later => (none, self.activation),
            in_registers => (in_registers, Activation::None),
        };
        (in_registers, Self { activation, ..*self }.afterwards())
    }

    /// All of it but the bias, for the stored tile of a kernel that applies nothing in registers.
    pub(crate) fn afterwards(&self) -> Option<Rest<'a>> {
        let Self { activation, residual, residual_first, affine, .. } = *self;
        let rest = Rest { activation, residual, residual_first, affine };
        (activation != Activation::None || residual.is_some() || affine.is_some()).then_some(rest)
    }

    /// What remains for the stored tile of some channels, if a kernel does not apply it in registers: all but bias and
    /// early residual.
    pub(crate) fn later(&self, channels: Range<usize>) -> Option<Later<'a>> {
        match self.in_registers() {
            InRegisters::Later => Some(Later {
                activation: self.activation,
                affine: self.affine.map(|it| it.channels(channels)),
                residual: self.residual.filter(|_| !self.residual_first),
            }),
            _ => None,
        }
    }
}

/// The part of an epilogue that is applied to the stored tile of some channels.
#[derive(Clone, Copy)]
pub(crate) struct Later<'a> {
    activation: Activation,
    affine: Option<Affine<'a>>,
    /// The residual of the whole output.
    residual: Option<&'a [f32]>,
}

/// What a product applies to its sums: `rest(bounds(start + bias + sum))`.
pub(crate) struct OfProduct<'a> {
    /// A residual, laid out like the output.
    pub start: Option<&'a [f32]>,
    pub bounds: Bounds,
    pub rest: Option<Rest<'a>>,
}

/// The part of an activation that is cheap enough to be compiled into every kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InRegisters {
    /// `min(max(x, .0), .1)`: none, ReLU and clip in one.
    Clamp(f32, f32),
    HardSwish,
    /// Nothing: the activation and all that follows it are applied to the stored tile.
    Later,
}

impl InRegisters {
    /// Applies it to all sums of a tile, which stay in registers: the branch is taken once per tile.
    #[inline(always)]
    pub(crate) fn apply<L: Lanes, const P: usize, const R: usize>(self, sums: &mut [[L; R]; P]) {
        match self {
            Self::Clamp(min, max) => {
                for x in sums.as_flattened_mut() {
                    *x = x.at_least(x.like(min)).at_most(x.like(max));
                }
            }
            Self::HardSwish => {
                for x in sums.as_flattened_mut() {
                    *x = vector::hard_swish(*x);
                }
            }
            Self::Later => {}
        }
    }
}

/// The activations that a tile of a product applies to its sums: they cost one or two instructions per register.
/// Anything more would keep the compiler from unrolling the tile's last loop, and the sums would go through memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bounds {
    /// No bounds.
    None,
    /// `max(x, .0)`
    Least(f32),
    /// `min(max(x, .0), .1)`
    Both(f32, f32),
}

/// The part of the epilogue that is applied to a stored tile, which is still in the first-level cache.
#[derive(Clone, Copy)]
pub(crate) struct Rest<'a> {
    activation: Activation,
    /// The residual of the whole output.
    residual: Option<&'a [f32]>,
    residual_first: bool,
    /// That of all channels.
    affine: Option<Affine<'a>>,
}

/// A tile of an output.
pub(crate) struct Stored {
    /// First element of the whole output.
    pub out: *mut f32,
    /// Offset of the tile's first element, in the output and in the residual.
    pub at: usize,
    /// Elements from one row to the next: the number of channels, where the epilogue has an affine map.
    pub ldc: usize,
    pub rows: usize,
    pub columns: usize,
}

impl Rest<'_> {
    /// Applies the rest of the epilogue to the stored tile.
    ///
    /// # Safety
    /// The output contains the tile, and nothing else accesses the tile during the call.
    ///
    /// # Panics
    /// If the residual is too short or the CPU lacks the instruction set.
    pub(crate) unsafe fn finish(&self, isa: Isa, tile: &Stored) {
        let channels = || tile.at % tile.ldc..tile.at % tile.ldc + tile.columns;
        let rest = Self { affine: self.affine.map(|it| it.channels(channels())), ..*self };
        let is_usual = matches!(self.activation, Activation::None | Activation::Relu | Activation::HardSwish);
        match isa {
            // SAFETY: guaranteed by the caller.
            Isa::Scalar => unsafe { rest.rows(tile, |out, residual| rest.each_number(out, residual)) },
            _ => match rest.affine {
                None if is_usual => dispatch(isa, FinishTile { rest, tile }),
                None => dispatch(isa, FinishRows { rest, tile }),
                // SAFETY: guaranteed by the caller.
                Some(affine) => unsafe { rest.finish_affine(isa, affine, tile) },
            },
        }
    }

    /// Applies it to the stored tile in two passes: up to the activation, then the affine map of the tile's channels and
    /// a late residual.
    ///
    /// # Safety
    /// As for `finish`.
    unsafe fn finish_affine(&self, isa: Isa, affine: Affine<'_>, tile: &Stored) {
        let early = self.residual.filter(|_| self.residual_first);
        if early.is_some() || self.activation != Activation::None {
            dispatch(isa, FinishRows { rest: Rest { residual: early, ..*self }, tile });
        }
        let late = self.residual.filter(|_| !self.residual_first);
        dispatch(isa, FinishAffine { affine, residual: late, tile });
    }

    /// Applies it to one number after the other. The affine map is that of the tile's channels.
    fn each_number(&self, out: &mut [f32], residual: Option<&[f32]>) {
        let Self { activation, residual_first, affine, .. } = *self;
        let epilogue = Epilogue { bias: None, activation, residual: None, residual_first, affine };
        let channels = affine.map_or(1, |it| it.scale.len());
        for (i, x) in out.iter_mut().enumerate() {
            *x = epilogue.number(i % channels, *x, residual.map_or(0.0, |r| r[i]));
        }
    }

    /// Calls `f` for every row of the tile and of the residual, or once for all rows if they are contiguous: a row of
    /// few channels does not fill a register.
    ///
    /// # Safety
    /// As for `finish`.
    #[inline(always)]
    unsafe fn rows(&self, tile: &Stored, f: impl Fn(&mut [f32], Option<&[f32]>)) {
        let side_by_side = tile.columns == tile.ldc;
        let (runs, len) = if side_by_side { (1, tile.rows * tile.columns) } else { (tile.rows, tile.columns) };
        for run in 0..runs {
            let at = tile.at + run * tile.ldc;
            // SAFETY: one row of the tile or all of them, as the caller guarantees.
            let out = unsafe { std::slice::from_raw_parts_mut(tile.out.add(at), len) };
            f(out, self.residual.map(|residual| &residual[at..][..len]));
        }
    }
}

/// [`Rest::finish`] with the vectors of an instruction set, for the usual activations: none, ReLU and HardSwish, each
/// with its own loop.
struct FinishTile<'a> {
    rest: Rest<'a>,
    tile: &'a Stored,
}

impl Vectorized for FinishTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.rest.activation {
            Activation::Relu => self.each(simd, |x| x.at_least(x.like(0.0))),
            Activation::HardSwish => self.each(simd, vector::hard_swish),
            _ => self.each(simd, |x| x),
        }
    }
}

impl FinishTile<'_> {
    #[inline(always)]
    fn each<S: Simd>(&self, simd: S, act: impl Fn(S::F32) -> S::F32) {
        match (self.rest.residual, self.rest.residual_first) {
            (None, _) => self.registers(simd, false, |x, _| act(x)),
            (Some(_), true) => self.registers(simd, true, |x, r| act(x.add(r))),
            (Some(_), false) => self.registers(simd, true, |x, r| act(x).add(r)),
        }
    }

    /// Applies `f` to every register, together with the register of the residual if `read` is set.
    #[inline(always)]
    fn registers<S: Simd>(&self, simd: S, read: bool, f: impl Fn(S::F32, S::F32) -> S::F32) {
        let zero = simd.splat(0.0);
        let row = |out: &mut [f32], residual: Option<&[f32]>| {
            let residual = if read { residual.unwrap_or_default() } else { &[] };
            let whole = out.len() - out.len() % S::LANES;
            let (out, out_rest) = out.split_at_mut(whole);
            for (i, x) in out.chunks_exact_mut(S::LANES).enumerate() {
                let r = if read { simd.load(&residual[i * S::LANES..]) } else { zero };
                simd.store(f(simd.load(x), r), x);
            }
            if !out_rest.is_empty() {
                let r = if read { simd.load_partial(&residual[whole..]) } else { zero };
                simd.store_partial(f(simd.load_partial(out_rest), r), out_rest);
            }
        };
        // SAFETY: guaranteed by the caller of `Rest::finish`, the only code that constructs a `FinishTile`.
        unsafe { self.rest.rows(self.tile, row) }
    }
}

/// An epilogue as the innermost loop sees it: pointers to the first channel of its tile, null where absent.
#[derive(Clone, Copy)]
pub(crate) struct Tail {
    /// One element per column of the tile.
    pub bias: *const f32,
    /// The tile of the residual, with the shape and row stride of the output tile.
    pub residual: *const f32,
    pub residual_first: bool,
    pub activation: InRegisters,
}

impl Tail {
    /// Turns `sum`, one register of sums, into outputs. `residual` loads the matching register of the residual, and is
    /// called only if there is one.
    #[inline(always)]
    pub(crate) fn apply<L: Lanes>(&self, sum: L, residual: impl Fn() -> L) -> L {
        let mut x = sum;
        if !self.residual.is_null() && self.residual_first {
            x = x.add(residual());
        }
        match self.activation {
            InRegisters::Clamp(min, max) => x = x.at_least(x.like(min)).at_most(x.like(max)),
            InRegisters::HardSwish => x = vector::hard_swish(x),
            InRegisters::Later => return x,
        }
        if !self.residual.is_null() && !self.residual_first {
            x = x.add(residual());
        }
        x
    }
}

impl Later<'_> {
    /// Applies it to stored pixels with the channels it was made for; the first number is at `at` in the whole output.
    pub(crate) fn finish(&self, isa: Isa, out: &mut [f32], at: usize) {
        let Self { activation, affine, residual } = *self;
        let columns = affine.map_or(out.len(), |affine| affine.scale.len());
        let rows = out.len().checked_div(columns).unwrap_or(0);
        let residual = residual.map(|residual| &residual[at..][..out.len()]);
        let tile = Stored { out: out.as_mut_ptr(), at: 0, ldc: columns, rows, columns };
        let rest = Rest { activation, residual, residual_first: false, affine };
        match (isa, affine) {
            (Isa::Scalar, _) => rest.each_number(out, residual),
            (_, None) => dispatch(isa, FinishRows { rest, tile: &tile }),
            // SAFETY: the tile is the slice, which is borrowed exclusively.
            (_, Some(affine)) => unsafe { rest.finish_affine(isa, affine, &tile) },
        }
    }
}

/// [`Rest::finish`] with the vectors of an instruction set, for any activation. Takes several passes over a row: a loop
/// for every activation, with and without a residual, would be a lot of code.
struct FinishRows<'a> {
    rest: Rest<'a>,
    tile: &'a Stored,
}

impl Vectorized for FinishRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Rest { activation, residual_first, .. } = self.rest;
        // SAFETY: guaranteed by the callers of `Rest::finish`, which constructs this as `Later::finish` does, whose tile
        // is a row that it borrows.
        unsafe {
            self.rest.rows(
                self.tile,
                #[inline(always)]
                |out, residual| {
                    add(out, residual.filter(|_| residual_first));
                    let mut chunks = out.chunks_exact_mut(S::LANES);
                    for x in &mut chunks {
                        simd.store(vector::apply(activation, simd.load(x)), x);
                    }
                    let rest = chunks.into_remainder();
                    if !rest.is_empty() {
                        simd.store_partial(vector::apply(activation, simd.load_partial(rest)), rest);
                    }
                    add(out, residual.filter(|_| !residual_first));
                },
            );
        }
    }
}

/// The affine map of a stored tile, and a residual added after it: one register of channels after the other, in every
/// row.
struct FinishAffine<'a> {
    /// That of the tile's channels.
    affine: Affine<'a>,
    /// The residual of the whole output.
    residual: Option<&'a [f32]>,
    tile: &'a Stored,
}

impl Vectorized for FinishAffine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Stored { rows, columns, .. } = *self.tile;
        assert!(self.affine.scale.len() == columns && self.affine.shift.len() == columns, "one number per channel");
        let whole = columns - columns % S::LANES;
        for first in (0..whole).step_by(S::LANES) {
            let (scale, shift) = (simd.load(&self.affine.scale[first..]), simd.load(&self.affine.shift[first..]));
            for row in 0..rows {
                self.numbers(row, first..first + S::LANES, |out, residual| {
                    let y = simd.load(out).mul_add(scale, shift);
                    simd.store(residual.map_or(y, |residual| y.add(simd.load(residual))), out);
                });
            }
        }
        if whole < columns {
            let number = |numbers: &[f32]| simd.load_partial(&numbers[whole..]);
            let (scale, shift) = (number(self.affine.scale), number(self.affine.shift));
            for row in 0..rows {
                self.numbers(row, whole..columns, |out, residual| {
                    let y = simd.load_partial(out).mul_add(scale, shift);
                    simd.store_partial(residual.map_or(y, |residual| y.add(simd.load_partial(residual))), out);
                });
            }
        }
    }
}

impl FinishAffine<'_> {
    /// Calls `f` for some numbers of a row, and the same of the residual.
    #[inline(always)]
    fn numbers(&self, row: usize, columns: Range<usize>, f: impl Fn(&mut [f32], Option<&[f32]>)) {
        let at = self.tile.at + row * self.tile.ldc + columns.start;
        // SAFETY: numbers of the tile, as the caller of `Rest::finish_affine` guarantees, the only code that constructs
        // this.
        let out = unsafe { std::slice::from_raw_parts_mut(self.tile.out.add(at), columns.len()) };
        f(out, self.residual.map(|residual| &residual[at..][..columns.len()]));
    }
}

#[inline(always)]
fn add(out: &mut [f32], residual: Option<&[f32]>) {
    for (x, r) in out.iter_mut().zip(residual.unwrap_or_default()) {
        *x += r;
    }
}

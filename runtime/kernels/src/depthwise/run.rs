//! The loops of the depthwise convolution, generic over the register type.

use std::ops::Range;

use super::is_tiled;
use crate::conv::{Columns, ConvShape};
use crate::epilogue::{Epilogue, Later, Tail};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::pace::Pace;
use crate::threads::Pool;

/// Some output rows of a convolution whose lengths were checked.
pub(super) struct DepthwiseRows<'a> {
    pub shape: &'a ConvShape,
    /// Rows, counted over all images.
    pub rows: Range<usize>,
    /// Channels to compute.
    pub channels: Range<usize>,
    pub input: Input<'a>,
    pub packed: &'a [f32],
    /// These channels of these rows.
    pub out: Columns<'a>,
    /// The residual is that of the whole output.
    pub epilogue: Epilogue<'a>,
    /// Asked whether to stop.
    pub pool: &'a Pool,
}

/// The rows of the input.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// All images.
    Images(&'a [f32]),
    /// The rows of one image that the output rows need, with only the channels that are computed: row `y` is at
    /// position `y % rows`.
    Ring { numbers: &'a [f32], rows: usize },
}

impl DepthwiseRows<'_> {
    /// Elements from one input pixel to the next.
    #[inline(always)]
    pub(super) fn pixel(&self) -> usize {
        match self.input {
            Input::Images(_) => self.shape.in_c,
            Input::Ring { .. } => self.channels.len(),
        }
    }

    /// Row `y` of an image, from the first of the computed channels of its first pixel to the last of its last.
    #[inline(always)]
    fn input_row(&self, image: usize, y: usize) -> &[f32] {
        let (numbers, row, channel) = match self.input {
            Input::Images(numbers) => (numbers, image * self.shape.in_h + y, self.channels.start),
            Input::Ring { numbers, rows } => (numbers, y % rows, 0),
        };
        let (pixel, row_len) = (self.pixel(), self.shape.in_w * self.pixel());
        &numbers[row * row_len + channel..][..row_len.saturating_sub(pixel - self.channels.len())]
    }
}

/// AVX2: eight channels.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2(rows: &mut DepthwiseRows<'_>) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::avx2::F32x8>(rows, Isa::Avx2) }
}

/// AVX-512: sixteen channels.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn avx512(rows: &mut DepthwiseRows<'_>) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::avx512::F32x16>(rows, Isa::Avx512) }
}

/// NEON: four channels.
///
/// # Safety
/// The CPU has NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon(rows: &mut DepthwiseRows<'_>) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::neon::F32x4>(rows, Isa::Neon) }
}

/// 32-bit ARM: four channels.
///
/// # Safety
/// The CPU has NEON and VFPv4.
#[cfg(target_arch = "arm")]
pub(super) unsafe fn neon32(rows: &mut DepthwiseRows<'_>) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::neon32::F32x4>(rows, Isa::Neon32) }
}

/// The reference, element by element.
pub(super) fn scalar(args: &mut DepthwiseRows<'_>) {
    let s = args.shape;
    let pace = Pace::of(args.pool);
    for row in args.rows.clone() {
        let (image, y) = (row / s.out_h, row % s.out_h);
        for x in 0..s.out_w {
            let at = (row * s.out_w + x) * s.out_c;
            for c in args.channels.clone() {
                if pace.stops(4 * s.taps()) {
                    return;
                }
                let mut sum = args.epilogue.bias.map_or(0.0, |b| b[c]);
                for ky in s.valid_taps(0, y) {
                    let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                    let line = args.input_row(image, in_y);
                    for kx in s.valid_taps(1, x) {
                        let in_x = x * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                        let pixel = line[in_x * args.pixel() + c - args.channels.start];
                        sum += pixel * args.packed[(ky * s.kernel[1] + kx) * s.in_c + c];
                    }
                }
                let residual = args.epilogue.residual.map_or(0.0, |r| r[at + c]);
                let out = args.epilogue.number(c, sum, residual);
                args.out.slice((row - args.rows.start) * s.out_w + x, 1)[c - args.channels.start] = out;
            }
        }
    }
}

/// Registers that a CPU needs for computing two rows at a time: for their sums and the columns and weights of a kernel
/// row.
const PAIRS: usize = 32;

/// Output columns of a tile: seven sums and the weights of a kernel row fit any register file, and the feature maps of
/// a network for 224 pixels have widths that are multiples of seven.
pub(crate) const WIDTH: usize = 7;

/// Input columns under a tile of the widest kernel of two rows.
const MAX_COLUMNS: usize = WIDTH + 4;

/// Most rows of a kernel that is computed in tiles.
pub(super) const MAX_LINES: usize = 8;

/// Loops over rows, then tiles of columns, then channels: the window of a tile is a few runs of memory that stay in the
/// first-level cache for all its channels.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them.
///
/// # Panics
/// If a slice is shorter than the shape requires.
#[inline(always)]
unsafe fn run<L: Lanes>(args: &mut DepthwiseRows<'_>, isa: Isa) {
    let (s, epilogue) = (args.shape, args.epilogue);
    assert!(args.packed.len() >= s.taps() * s.in_c && args.channels.end <= s.in_c, "weights of every channel");
    assert_eq!((args.out.channels(), args.out.pitch()), (args.channels.len(), s.out_c), "channels of the output");
    epilogue.check(s.out_c, args.rows.end * s.out_w * s.out_c);
    let tail = Tail {
        bias: epilogue.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
        residual: epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
        residual_first: epilogue.residual_first,
        activation: epilogue.in_registers(),
    };
    let tiled = is_tiled(s) && args.channels.len() >= L::WIDTH;
    let square = s.kernel[0] == s.kernel[1] && s.stride == [1, 1] && s.dilation[0] == 1;
    let pairs = tiled && square && s.kernel[0] == 3 && L::REGISTERS >= PAIRS;
    // The columns of a long row that are computed before the thread asks whether to stop: whole tiles.
    let column = (s.taps() * args.channels.len()).max(1);
    let tile = if tiled { WIDTH } else { 1 };
    let some = (ROW_WORK / column).max(1).next_multiple_of(tile);
    let mut next = args.rows.start;
    while next < args.rows.end {
        let row = next;
        let paired = pairs && row + 1 < args.rows.end && row % s.out_h + 1 < s.out_h;
        let line = Line::new(args, tail, row, if paired { 2 } else { 1 });
        next += if paired { 2 } else { 1 };
        let mut first = 0;
        while first < s.out_w {
            if first > 0 && args.pool.stops() {
                return;
            }
            let columns = first..s.out_w.min(first + some);
            first = columns.end;
            // SAFETY: guaranteed by the caller; each tile is of the kernel's width and stride.
            unsafe {
                match (s.kernel[1], s.stride[1]) {
                    (3, 1) if paired => line.pairs::<L, 3>(columns),
                    (3, 1) if tiled => line.tiles::<L, 3, 1>(columns),
                    (3, 2) if tiled => line.tiles::<L, 3, 2>(columns),
                    (5, 1) if tiled => line.tiles::<L, 5, 1>(columns),
                    (5, 2) if tiled => line.tiles::<L, 5, 2>(columns),
                    _ => line.pixels::<L>(columns),
                }
            }
        }
        if let Some(later) = epilogue.later(args.channels.clone()) {
            for first in (0..s.out_w).step_by(some) {
                if first > 0 && args.pool.stops() {
                    return;
                }
                finish(args, isa, later, row..next, first..s.out_w.min(first + some));
            }
        }
    }
}

/// Multiply-adds of a part of a long row.
const ROW_WORK: usize = 1 << 19;

/// Applies the part of the epilogue that was not applied in registers to columns that were just written: to all at
/// once, or pixel by pixel where other code computes the remaining channels.
fn finish(args: &mut DepthwiseRows<'_>, isa: Isa, later: Later<'_>, rows: Range<usize>, columns: Range<usize>) {
    let s = args.shape;
    let whole = args.out.is_contiguous();
    let count = if whole { columns.len() } else { 1 };
    for row in rows {
        for run in columns.clone().step_by(count) {
            let at = (row * s.out_w + run) * s.out_c + args.channels.start;
            let out = args.out.slice((row - args.rows.start) * s.out_w + run, count);
            later.finish(isa, out, at);
        }
    }
}

/// One output row, or two.
pub(super) struct Line<'a, 'b> {
    pub(super) args: &'a DepthwiseRows<'b>,
    /// Pointers to the bias and the residual of the whole output.
    pub(super) tail: Tail,
    /// The first row, counted over all images.
    row: usize,
    /// The first row within its image.
    y: usize,
    image: usize,
    /// Kernel rows that fall inside the input; for two output rows they are counted from the first output row's.
    pub(super) taps_y: Range<usize>,
    /// The input rows under these, starting at the first: computed once, not for every tile and channel.
    pub(super) lines: [*const f32; MAX_LINES],
}

impl<'a, 'b> Line<'a, 'b> {
    /// The `rows` output rows starting at `row`: one, or two of the same image.
    #[inline(always)]
    fn new(args: &'a DepthwiseRows<'b>, tail: Tail, row: usize, rows: usize) -> Self {
        let (s, y) = (args.shape, row % args.shape.out_h);
        // Two rows, with stride and dilation 1, need the taps of a kernel that is one row higher.
        let taps_y = ConvShape { kernel: [s.kernel[0] + rows - 1, s.kernel[1]], ..*s }.valid_taps(0, y);
        let lines = [std::ptr::null(); MAX_LINES];
        let mut line = Line { args, tail, row, y, image: row / s.out_h, taps_y, lines };
        for ky in line.taps_y.start..line.taps_y.end.min(MAX_LINES) {
            line.lines[ky] = line.input_row(ky);
        }
        line
    }

    /// The input row under kernel row `ky`, one of `taps_y`, starting at the first of the channels.
    #[inline(always)]
    fn input_row(&self, ky: usize) -> *const f32 {
        let s = self.args.shape;
        let in_y = self.y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
        self.args.input_row(self.image, in_y).as_ptr()
    }

    /// The row's first pixel in the part of the output that is written.
    #[inline(always)]
    fn out_row(&self) -> usize {
        (self.row - self.args.rows.start) * self.args.shape.out_w
    }

    /// Where a tile of `R` rows is written, from the first channel of its first pixel on.
    ///
    /// # Panics
    /// If the part of the output that is written lacks a pixel of the tile.
    #[inline(always)]
    pub(super) fn place<const R: usize, const EDGE: bool>(&self, tile: &Window) -> *mut f32 {
        // The pixels from the first of the first row to the last of the last.
        let count = (R - 1) * self.args.shape.out_w + if EDGE { tile.outputs } else { WIDTH };
        self.args.out.at(self.out_row() + tile.x, count)
    }

    /// Computes columns of the row for a kernel of width `K` with stride `S`; only the last tile of a row is narrower
    /// than the others.
    ///
    /// # Safety
    /// As for [`run`]; the kernel's width and stride are `K` and `S`, its dilation is 1, and the channels fill at least
    /// a register.
    #[inline(always)]
    unsafe fn tiles<L: Lanes, const K: usize, const S: usize>(&self, columns: Range<usize>) {
        for x in columns.step_by(WIDTH) {
            let tile = Window::new::<K, S>(self.args.shape, x);
            // SAFETY: guaranteed by the caller; the tile knows which columns and outputs are missing.
            unsafe {
                if tile.is_whole::<K, S>() {
                    self.tile::<L, K, S, false>(&tile);
                } else {
                    self.tile::<L, K, S, true>(&tile);
                }
            }
        }
    }

    /// Computes columns of both rows for a `K x K` kernel with stride 1.
    ///
    /// # Safety
    /// As for [`run`]; the kernel is of that size and stride, its dilation is 1, and the channels fill at least a
    /// register.
    #[inline(always)]
    unsafe fn pairs<L: Lanes, const K: usize>(&self, columns: Range<usize>) {
        for x in columns.step_by(WIDTH) {
            let tile = Window::new::<K, 1>(self.args.shape, x);
            // SAFETY: guaranteed by the caller; the tile knows which columns and outputs are missing.
            unsafe {
                if tile.is_whole::<K, 1>() {
                    self.pair::<L, K, false>(&tile);
                } else {
                    self.pair::<L, K, true>(&tile);
                }
            }
        }
    }

    /// Computes a tile. With `EDGE`, some of its columns or outputs are missing. 32-bit ARM has its own, in assembly.
    ///
    /// # Safety
    /// As for `tiles`; `tile` is correct, and without `EDGE` nothing is missing.
    #[cfg(not(target_arch = "arm"))]
    #[inline(always)]
    unsafe fn tile<L: Lanes, const K: usize, const S: usize, const EDGE: bool>(&self, tile: &Window) {
        let s = self.args.shape;
        let (channels, width) = (self.args.channels.clone(), self.args.pixel());
        // In the padding this points before the row or the image; it is read only after an offset has moved it back
        // inside.
        let left = (tile.x * S).wrapping_sub(s.pad_left).wrapping_mul(width);
        let inside = tile.inside;
        let out = self.place::<1, EDGE>(tile);
        for channel in channels.clone().step_by(L::WIDTH) {
            // The last register overlaps the channels before it, which are then computed and stored twice.
            let channel = channel.min(channels.end - L::WIDTH);
            // SAFETY: value instructions, and the bias has a register of channels here.
            let mut sums = [unsafe { self.bias::<L>(channel) }; WIDTH];
            for ky in self.taps_y.clone() {
                // SAFETY: the kernel row exists, and only columns inside the input are read.
                unsafe {
                    let weights = self.args.packed.as_ptr().add(ky * K * s.in_c + channel);
                    let w: [L; K] = std::array::from_fn(|kx| L::load(weights.add(kx * s.in_c)));
                    let left = left.wrapping_add(channel - channels.start);
                    let mut pixels = Pixels { at: self.lines[ky].wrapping_add(left), width };
                    // Unrolled by hand, because the compiler does not unroll a loop over this many columns.
                    macro_rules! columns {
                        ($($column:literal)*) => {$(
                            if $column < (WIDTH - 1) * S + K {
                                if !EDGE || inside & (1 << $column) != 0 {
                                    column::<L, K, S, $column>(L::load(pixels.column($column)), &w, &mut sums);
                                }
                                pixels.advance();
                            }
                        )*};
                    }
                    columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
                }
            }
            // SAFETY: guaranteed by the caller.
            unsafe { self.store::<L, 1, EDGE>(tile, out, channel, [sums]) }
        }
    }

    /// Computes a tile of both rows: each input row is loaded once for both.
    ///
    /// # Safety
    /// As for [`pairs`](Self::pairs); `tile` is correct, and without `EDGE` nothing is missing.
    #[inline(always)]
    unsafe fn pair<L: Lanes, const K: usize, const EDGE: bool>(&self, tile: &Window) {
        let s = self.args.shape;
        let (channels, width) = (self.args.channels.clone(), self.args.pixel());
        let left = tile.x.wrapping_sub(s.pad_left).wrapping_mul(width);
        let out = self.place::<2, EDGE>(tile);
        for channel in channels.clone().step_by(L::WIDTH) {
            let channel = channel.min(channels.end - L::WIDTH);
            // SAFETY: value instructions, and the bias has a register of channels here.
            let (mut upper, mut lower) =
                unsafe { ([self.bias::<L>(channel); WIDTH], [self.bias::<L>(channel); WIDTH]) };
            for line in self.taps_y.clone() {
                // SAFETY: the input row exists, and only columns inside the input and kernel rows that exist are read.
                unsafe {
                    let weights = self.args.packed.as_ptr().add(channel);
                    let w = |ky: usize| -> [L; K] {
                        std::array::from_fn(|kx| L::load(weights.add((ky * K + kx) * s.in_c)))
                    };
                    let left = left.wrapping_add(channel - channels.start);
                    let mut from = Pixels { at: self.lines[line].wrapping_add(left), width };
                    let mut pixels = [L::splat(0.0); MAX_COLUMNS];
                    for (column, to) in pixels[..WIDTH + K - 1].iter_mut().enumerate() {
                        if !EDGE || tile.inside & (1 << column) != 0 {
                            *to = L::load(from.column(column));
                        }
                        from.advance();
                    }
                    if line < K {
                        multiply(&pixels, &w(line), &mut upper);
                    }
                    if line > 0 {
                        multiply(&pixels, &w(line - 1), &mut lower);
                    }
                }
            }
            // SAFETY: guaranteed by the caller.
            unsafe { self.store::<L, 2, EDGE>(tile, out, channel, [upper, lower]) }
        }
    }

    /// Stores the sums of a register of channels, for a tile of `R` rows.
    ///
    /// # Safety
    /// As for `tile`; `out` is the tile's place in the output, from [`place`](Self::place).
    #[inline(always)]
    pub(super) unsafe fn store<L: Lanes, const R: usize, const EDGE: bool>(
        &self,
        tile: &Window,
        out: *mut f32,
        channel: usize,
        mut sums: [[L; WIDTH]; R],
    ) {
        // Read before anything is stored, so that they are read only once.
        let (out_w, out_c) = (self.args.shape.out_w, self.args.shape.out_c);
        let out = out.wrapping_add(channel - self.args.channels.start);
        let (plain, residual) = (self.tail.residual.is_null(), self.tail.residual);
        let residual = residual.wrapping_add((self.row * out_w + tile.x) * out_c + channel);
        if plain {
            self.tail.activation.apply(&mut sums);
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                if !EDGE || p < tile.outputs {
                    let at = (row * out_w + p) * out_c;
                    // SAFETY: the pixel is one of the tile's, which `place` found in the output; the register's
                    // channels are among those that are written, and the residual has every pixel and channel.
                    unsafe {
                        let y = if plain { sum } else { self.tail.apply(sum, || L::load(residual.wrapping_add(at))) };
                        y.store(out.wrapping_add(at));
                    }
                }
            }
        }
    }

    /// Computes columns of the row for any kernel, pixel by pixel.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn pixels<L: Lanes>(&self, columns: Range<usize>) {
        let (s, channels, width) = (self.args.shape, self.args.channels.clone(), self.args.pixel());
        for x in columns {
            let taps_x = s.valid_taps(1, x);
            let out = self.args.out.at(self.out_row() + x, 1);
            for channel in channels.clone().step_by(L::WIDTH) {
                let count = L::WIDTH.min(channels.end - channel);
                // SAFETY: `count` channels of a pixel, a weight or the bias are readable from the first.
                let load = |from: *const f32| unsafe {
                    if count == L::WIDTH { L::load(from) } else { L::load_first(from, count) }
                };
                let bias = self.tail.bias;
                // SAFETY: value instructions; the bias has every channel.
                let mut sum = unsafe { if bias.is_null() { L::splat(0.0) } else { load(bias.add(channel)) } };
                for ky in self.taps_y.clone() {
                    for kx in taps_x.clone() {
                        let in_x = x * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                        let tap = (ky * s.kernel[1] + kx) * s.in_c + channel;
                        // SAFETY: the tap lies inside the input, and the weights contain it.
                        unsafe {
                            let pixel = load(self.input_row(ky).add(in_x * width + channel - channels.start));
                            sum = pixel.mul_add(load(self.args.packed.as_ptr().add(tap)), sum);
                        }
                    }
                }
                let at = x * s.out_c + channel;
                // SAFETY: residual and output have this pixel and these channels.
                unsafe {
                    let residual = self.row * s.out_w * s.out_c + at;
                    let y = self.tail.apply(sum, || load(self.tail.residual.add(residual)));
                    let to = out.wrapping_add(channel - channels.start);
                    if count == L::WIDTH { y.store(to) } else { y.store_first(to, count) }
                }
            }
        }
    }

    /// # Safety
    /// As for [`run`]; there is a whole register of channels starting at `channel`.
    #[inline(always)]
    unsafe fn bias<L: Lanes>(&self, channel: usize) -> L {
        let bias = self.tail.bias;
        // SAFETY: the bias has every channel.
        unsafe { if bias.is_null() { L::splat(0.0) } else { L::load(bias.add(channel)) } }
    }
}

/// The pixels of an input row under a tile, from left to right.
struct Pixels {
    at: *const f32,
    /// Elements from one pixel to the next.
    width: usize,
}

impl Pixels {
    /// Whether there are enough general-purpose registers for the offsets of all of a tile's columns, which are then
    /// the same for every row and register of channels. Otherwise the address of a column is computed from the address
    /// of the previous one.
    const BY_OFFSET: bool = cfg!(target_arch = "aarch64");

    /// The pixel in `column`, after that many calls of `advance`.
    #[inline(always)]
    fn column(&self, column: usize) -> *const f32 {
        if Self::BY_OFFSET { self.at.wrapping_add(column * self.width) } else { self.at }
    }

    #[inline(always)]
    fn advance(&mut self) {
        if !Self::BY_OFFSET {
            self.at = self.at.wrapping_add(self.width);
        }
    }
}

/// Adds an input column, counted from the left end of a tile's window, to the sums that use it.
#[inline(always)]
pub(crate) fn column<L: Lanes, const K: usize, const S: usize, const COLUMN: usize>(
    pixel: L,
    w: &[L; K],
    sums: &mut [L; WIDTH],
) {
    for p in 0..WIDTH {
        if COLUMN >= p * S && COLUMN - p * S < K {
            sums[p] = pixel.mul_add(w[COLUMN - p * S], sums[p]);
        }
    }
}

/// Adds the products of an input row's columns and a kernel row to the sums of a tile, at stride 1.
#[inline(always)]
fn multiply<L: Lanes, const K: usize>(pixels: &[L; MAX_COLUMNS], w: &[L; K], sums: &mut [L; WIDTH]) {
    for (p, sum) in sums.iter_mut().enumerate() {
        for (kx, &w) in w.iter().enumerate() {
            *sum = pixels[p + kx].mul_add(w, *sum);
        }
    }
}

/// A tile of output columns.
pub(super) struct Window {
    /// First output column.
    pub(super) x: usize,
    /// Output columns that exist.
    pub(super) outputs: usize,
    /// Bit `c` is set if input column `c` under the tile, counted from the left end of its window, exists.
    pub(super) inside: u32,
}

impl Window {
    /// The tile starting at output column `x`, for a kernel of width `K` with stride `S`.
    #[inline(always)]
    fn new<const K: usize, const S: usize>(s: &ConvShape, x: usize) -> Self {
        let columns = (WIDTH - 1) * S + K;
        let first = s.pad_left.saturating_sub(x * S).min(columns);
        let end = (s.in_w + s.pad_left).saturating_sub(x * S).min(columns);
        Window { x, outputs: WIDTH.min(s.out_w - x), inside: ((1u32 << end) - 1) & !((1u32 << first) - 1) }
    }

    /// Whether all columns and outputs exist.
    #[inline(always)]
    fn is_whole<const K: usize, const S: usize>(&self) -> bool {
        self.outputs == WIDTH && self.inside == (1 << ((WIDTH - 1) * S + K)) - 1
    }
}

//! Copies the windows of an image, multiplies the listed filters by them, and turns the sums to pixels.

use super::{Variant, packed_len, takes};
use crate::conv::{Conv, ConvShape, product};
use crate::epilogue::{Epilogue, Stored};
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::lanes::Lanes;
#[cfg(target_arch = "x86_64")]
use crate::lanes::avx2::F32x8;
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
use crate::lanes::avx512::F32x16;
use crate::parallel::{Output, PRODUCTS_WORTH_SHARING, share_units, split};
use crate::simd::{Simd, Vectorized, dispatch};
use crate::threads::Pool;

/// The channels of a convolution that are computed from and computed.
pub(super) struct Lists<'a> {
    /// The convolution with all channels.
    pub of: &'a ConvShape,
    /// Indices of input channels.
    pub inputs: &'a [u32],
    /// Indices of filters; `None` for all.
    pub outputs: Option<&'a [u32]>,
}

/// The copies of an image with `channels` channels.
struct Copies {
    /// Columns of a padded plane, and elements of one.
    columns: usize,
    plane: usize,
    /// Pixels of the output, rounded up to whole registers: a row of windows.
    lanes: usize,
    /// Elements of all planes and of all windows. Without planes, the windows are the image itself.
    planes: usize,
    windows: usize,
}

impl Copies {
    fn new(v: &Variant, shape: &ConvShape) -> Self {
        let lanes = product(&[shape.out_h, shape.out_w]).next_multiple_of(v.width);
        if shape.is_pointwise() {
            return Self {
                columns: shape.out_w,
                plane: lanes,
                lanes,
                planes: 0,
                windows: product(&[shape.in_c, lanes]),
            };
        }
        let reach = |axis: usize, out: usize| {
            (out.max(1) - 1) * shape.stride[axis] + (shape.kernel[axis].max(1) - 1) * shape.dilation[axis] + 1
        };
        let columns = reach(1, shape.out_w);
        let plane = product(&[reach(0, shape.out_h), columns]);
        // The last row of the last plane is read by whole registers.
        let planes = product(&[shape.in_c, plane]) + v.width;
        Self { columns, plane, lanes, planes, windows: product(&[shape.taps(), shape.in_c, lanes]) }
    }
}

/// Scratch size in elements: a list of channels, the copies of an image, and for each thread the sums of a group of filters.
#[inline(never)]
pub(super) fn scratch_len(v: &Variant, shape: &ConvShape, threads: usize) -> usize {
    let copies = Copies::new(v, shape);
    shape.in_c + copies.planes + copies.windows + product(&[threads.max(1), v.filters, copies.lanes])
}

/// # Panics
/// If the CPU lacks the instruction set or an operand's length does not match: images, output and epilogue those of
/// `shape`, the weights those of the whole convolution.
pub(super) fn check(v: &Variant, args: &Conv<'_>, shape: &ConvShape) {
    args.shape.check();
    assert!(takes(args.shape) && args.scale.is_none(), "a small image of one group, without an input scale");
    assert!(v.isa.is_available(), "this CPU does not have {}", v.isa);
    assert_eq!(args.input.len(), shape.input_len(), "input length");
    assert_eq!(args.out.len(), shape.output_len(), "output length");
    assert_eq!(args.packed.len(), product(&[packed_len(args.shape), size_of::<f32>()]), "packed weights");
    args.epilogue.check(shape.out_c, args.out.len());
}

/// Computes `shape`, the convolution of the listed channels of one image, from the weights of all of them.
///
/// # Panics
/// If the scratch is too short.
#[inline(never)]
pub(super) fn image(
    v: &Variant,
    shape: &ConvShape,
    lists: &Lists<'_>,
    (input, packed): (&[f32], &[f32]),
    (out, epilogue): (&mut [f32], &Epilogue<'_>),
    scratch: &mut [f32],
    pool: &Pool,
) {
    if out.is_empty() {
        return;
    }
    let copies = Copies::new(v, shape);
    let slot = product(&[v.filters, copies.lanes]);
    let slots = pool.threads().max(1);
    assert!(scratch.len() >= copies.planes + copies.windows + slots * slot, "the scratch is too short");
    let (planes, scratch) = scratch.split_at_mut(copies.planes);
    let (windows, scratch) = scratch.split_at_mut(copies.windows);
    copy_windows(v, shape, &copies, input, planes, windows, pool);

    let groups = shape.out_c.div_ceil(v.filters);
    let product = Product { v, shape, lists, lanes: copies.lanes, windows, packed, epilogue, groups };
    let work = shape.output_len() * shape.in_c * shape.taps();
    let slots = if work >= PRODUCTS_WORTH_SHARING { slots } else { 1 };
    let out = Output::new(out);
    share_units(pool, groups, slots, slot, scratch, |group, sums| product.group(group, sums, out.start()));
}

/// Writes `[taps, channels, pixels]`: for every tap and channel, the pixel under the tap of every window.
fn copy_windows(
    v: &Variant,
    shape: &ConvShape,
    copies: &Copies,
    input: &[f32],
    planes: &mut [f32],
    windows: &mut [f32],
    pool: &Pool,
) {
    if shape.in_c == 0 {
        return;
    }
    let into = if copies.planes == 0 { &mut *windows } else { &mut *planes };
    let work = into.len();
    split(pool, into, copies.plane, work, |offset, part| {
        for (at, plane) in part.chunks_mut(copies.plane).enumerate() {
            let channel = offset / copies.plane + at;
            if channel < shape.in_c {
                copy_plane(shape, copies.columns, &input[channel..], plane);
            } else {
                plane.fill(0.0);
            }
        }
    });
    if copies.planes == 0 {
        return;
    }
    let (planes, work) = (&*planes, windows.len());
    split(pool, windows, copies.lanes, work, |offset, part| {
        let rows = Rows { shape, copies, planes, first: offset / copies.lanes, part };
        if shape.stride[1] != 1 || v.isa == Isa::Scalar { rows.one_by_one() } else { dispatch(v.isa, rows) }
    });
}

/// Copies a channel of an image, the first of every pixel in `input`, to a plane with zeros around it.
fn copy_plane(shape: &ConvShape, columns: usize, input: &[f32], plane: &mut [f32]) {
    plane.fill(0.0);
    let (pad_left, row) = (shape.pad_left.min(columns), shape.in_w * shape.in_c);
    for (y, to) in plane.chunks_mut(columns).skip(shape.pad_top).take(shape.in_h).enumerate() {
        let from = input.get(y * row..).unwrap_or_default();
        let to = to.get_mut(pad_left..).unwrap_or_default().iter_mut().take(shape.in_w);
        for (x, to) in from.iter().step_by(shape.in_c).zip(to) {
            *to = *x;
        }
    }
}

/// Some rows of the windows.
struct Rows<'a> {
    shape: &'a ConvShape,
    copies: &'a Copies,
    planes: &'a [f32],
    /// The first row.
    first: usize,
    part: &'a mut [f32],
}

impl Rows<'_> {
    /// The place of the first window's pixel of a row in the planes.
    #[inline(always)]
    fn start(&self, row: usize) -> usize {
        let (shape, copies) = (self.shape, self.copies);
        let (tap, channel) = (row / shape.in_c, row % shape.in_c);
        let (y, x) = (tap / shape.kernel[1] * shape.dilation[0], tap % shape.kernel[1] * shape.dilation[1]);
        channel * copies.plane + y * copies.columns + x
    }

    fn one_by_one(self) {
        let (shape, down) = (self.shape, self.shape.stride[0] * self.copies.columns);
        for at in 0..self.part.len() / self.copies.lanes {
            let start = self.start(self.first + at);
            let row = &mut self.part[at * self.copies.lanes..][..self.copies.lanes];
            row[shape.out_h * shape.out_w..].fill(0.0);
            for (y, to) in row.chunks_exact_mut(shape.out_w).take(shape.out_h).enumerate() {
                for (x, to) in to.iter_mut().enumerate() {
                    *to = self.planes[start + y * down + x * shape.stride[1]];
                }
            }
        }
    }
}

impl Vectorized for Rows<'_> {
    type Output = ();

    /// Whole registers are copied, of which the next row of pixels overwrites what is too much.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (shape, down) = (self.shape, self.shape.stride[0] * self.copies.columns);
        for at in 0..self.part.len() / self.copies.lanes {
            let start = self.start(self.first + at);
            let row = &mut self.part[at * self.copies.lanes..][..self.copies.lanes];
            for y in 0..shape.out_h {
                let mut x = 0;
                while x < shape.out_w {
                    let pixels = simd.load(&self.planes[start + y * down + x..]);
                    let to = &mut row[y * shape.out_w + x..];
                    if to.len() >= S::LANES {
                        simd.store(pixels, to)
                    } else {
                        simd.store_partial(pixels, to)
                    }
                    x += S::LANES;
                }
            }
        }
    }
}

/// The product of the windows of an image and the listed filters.
struct Product<'a> {
    v: &'a Variant,
    shape: &'a ConvShape,
    lists: &'a Lists<'a>,
    lanes: usize,
    windows: &'a [f32],
    packed: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    groups: usize,
}

/// Most filters of a tile.
const MAX_FILTERS: usize = 12;

impl Product<'_> {
    /// Computes one of the groups of filters for all pixels.
    fn group(&self, group: usize, sums: &mut [f32], out: *mut f32) {
        let Self { v, shape, lists, lanes, .. } = *self;
        // Groups of nearly equal size.
        let (first, end) = (shape.out_c * group / self.groups, shape.out_c * (group + 1) / self.groups);
        let (count, of_filter) = (end - first, product(&[shape.taps(), lists.of.in_c]));
        let mut filters = [std::ptr::null(); MAX_FILTERS];
        for (at, filter) in filters[..count].iter_mut().enumerate() {
            let index = lists.outputs.map_or(first + at, |list| list[first + at] as usize);
            *filter = self.packed[index * of_filter..][..of_filter].as_ptr();
        }
        assert!(self.windows.len() == product(&[shape.taps(), lists.inputs.len(), lanes]));
        assert!(sums.len() >= count * lanes);
        let widest = v.kernels[0].len();
        for pixel in (0..lanes).step_by(widest * v.width) {
            let registers = ((lanes - pixel) / v.width).min(widest);
            let tile = Tile {
                filters: filters.as_ptr(),
                taps: shape.taps(),
                channels: lists.of.in_c,
                list: lists.inputs.as_ptr(),
                listed: lists.inputs.len(),
                windows: self.windows.as_ptr().wrapping_add(pixel),
                lanes,
                sums: sums.as_mut_ptr().wrapping_add(pixel),
            };
            // SAFETY: `check` has checked the instruction set. Each filter is a pointer to `taps * channels` weights, the
            // listed channels are below `channels` (`run_active` has checked those of a caller), and windows and sums
            // have a row of `lanes` elements for each of them, by the assertions above.
            unsafe { v.kernels[count - 1][registers - 1](&tile) }
        }
        let (pixels, columns) = (shape.out_h * shape.out_w, shape.out_c);
        for pixel in 0..pixels {
            // SAFETY: the filters of a pixel that belong to this group alone; `check` has checked the output's length.
            let to = unsafe { std::slice::from_raw_parts_mut(out.add(pixel * columns + first), count) };
            for (at, to) in to.iter_mut().enumerate() {
                *to = sums[at * lanes + pixel] + self.epilogue.bias.map_or(0.0, |bias| bias[first + at]);
            }
        }
        if let Some(rest) = self.epilogue.afterwards() {
            let tile = Stored { out, at: first, ldc: columns, rows: pixels, columns: count };
            // SAFETY: the output contains these filters of all pixels, and no other group accesses them.
            unsafe { rest.finish(v.isa, &tile) }
        }
    }
}

/// What a microkernel computes: `sums[f, p] = sum over t, c of filters[f][t * channels + list[c]] * windows[t, c, p]`, for
/// as many pixels as its registers have lanes.
pub(super) struct Tile {
    filters: *const *const f32,
    taps: usize,
    /// Weights of a tap.
    channels: usize,
    /// Indices of channels.
    list: *const u32,
    listed: usize,
    windows: *const f32,
    /// Elements from one row of the windows, or of the sums, to the next.
    lanes: usize,
    sums: *mut f32,
}

/// Computes a tile with a fixed number of filters and registers.
///
/// # Safety
/// The CPU has the instruction set of the kernel's table, and the pointers of the tile are valid as documented.
pub(super) type TileFn = unsafe fn(&Tile);

/// # Safety
/// As for [`TileFn`], and the caller enables the instruction set of `L`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn tile<L: Lanes, const M: usize, const V: usize>(tile: &Tile) {
    // SAFETY: the caller has the instruction set; there are M filters with `channels` weights for each tap, of which the
    // list names some, and the windows have a row of V registers for each of the listed ones.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; M];
        let mut windows = tile.windows;
        for tap in 0..tile.taps {
            let mut filters: [*const f32; M] = *tile.filters.cast();
            for filter in &mut filters {
                *filter = filter.add(tap * tile.channels);
            }
            for at in 0..tile.listed {
                let channel = *tile.list.add(at) as usize;
                let mut pixels = [L::splat(0.0); V];
                for (v, pixels) in pixels.iter_mut().enumerate() {
                    *pixels = L::load(windows.add(v * L::WIDTH));
                }
                for f in 0..M {
                    let weight = L::splat(*filters[f].add(channel));
                    for v in 0..V {
                        sums[f][v] = pixels[v].mul_add(weight, sums[f][v]);
                    }
                }
                windows = windows.add(tile.lanes);
            }
        }
        for (f, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(tile.sums.add(f * tile.lanes + v * L::WIDTH));
            }
        }
    }
}

/// The reference: one pixel at a time.
///
/// # Safety
/// As for [`TileFn`].
unsafe fn scalar<const M: usize>(tile: &Tile) {
    for f in 0..M {
        let mut sum = 0.0f32;
        for row in 0..tile.taps * tile.listed {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let channel = *tile.list.add(row % tile.listed) as usize;
                let weight = *(*tile.filters.add(f)).add(row / tile.listed * tile.channels + channel);
                sum += weight * *tile.windows.add(row * tile.lanes);
            }
        }
        // SAFETY: guaranteed by the caller.
        unsafe { *tile.sums.add(f * tile.lanes) = sum }
    }
}

pub(super) static SCALAR: &[&[TileFn]] = &[&[scalar::<1>], &[scalar::<2>], &[scalar::<3>], &[scalar::<4>]];

#[cfg(target_arch = "x86_64")]
pub(super) static AVX2_6X16: &[&[TileFn]] = &[
    &[avx2::<1, 1>, avx2::<1, 2>],
    &[avx2::<2, 1>, avx2::<2, 2>],
    &[avx2::<3, 1>, avx2::<3, 2>],
    &[avx2::<4, 1>, avx2::<4, 2>],
    &[avx2::<5, 1>, avx2::<5, 2>],
    &[avx2::<6, 1>, avx2::<6, 2>],
];

/// # Safety
/// As for [`TileFn`]; the CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const M: usize, const V: usize>(of: &Tile) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { tile::<F32x8, M, V>(of) }
}

#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
pub(super) static AVX512_12X32: &[&[TileFn]] = &[
    &[avx512::<1, 1>, avx512::<1, 2>],
    &[avx512::<2, 1>, avx512::<2, 2>],
    &[avx512::<3, 1>, avx512::<3, 2>],
    &[avx512::<4, 1>, avx512::<4, 2>],
    &[avx512::<5, 1>, avx512::<5, 2>],
    &[avx512::<6, 1>, avx512::<6, 2>],
    &[avx512::<7, 1>, avx512::<7, 2>],
    &[avx512::<8, 1>, avx512::<8, 2>],
    &[avx512::<9, 1>, avx512::<9, 2>],
    &[avx512::<10, 1>, avx512::<10, 2>],
    &[avx512::<11, 1>, avx512::<11, 2>],
    &[avx512::<12, 1>, avx512::<12, 2>],
];

/// # Safety
/// As for [`TileFn`]; the CPU has AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn avx512<const M: usize, const V: usize>(of: &Tile) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { tile::<F32x16, M, V>(of) }
}

//! Pointwise, depthwise and pointwise convolutions of NHWC images in one pass: the (inverted) bottleneck of mobile
//! networks, with either of the pointwise ones left out.
//!
//! `out = project(depthwise(expand(in)))`
//!
//! The expanded image is the largest tensor of such a network: SkipNet-M's first block takes 0.8 MB to 3.2 MB and
//! makes 0.3 MB of them. Step by step it is written to memory and read again; here a band of output rows is computed
//! at a time, and only the rows under the band are expanded, into a ring that stays in the second-level cache. No row
//! is expanded twice, but for those between the bands of two threads.
//!
//! Without a projection channels have nothing to do with each other: an expansion is computed panel by panel of its
//! weights, the ring holds the channels of one, and threads share panels before they share rows.

use std::ops::Range;

use crate::conv::{ConvShape, product};
use crate::depthwise::{self, Band, depthwise_band};
use crate::epilogue::Epilogue;
use crate::gemm::{self, Gemm, Packed, gemm_alone};
use crate::parallel::{Output, share_units};
use crate::threads::Pool;

/// Numbers that the ring and the band behind it may take: 192 KiB, a share of the second-level cache. Tests have small
/// images, whose rings shall come round all the same.
const CACHE: usize = if cfg!(test) { 512 } else { 48 * 1024 };
/// Units per thread, so that a slow thread holds up the others by little; more of them would expand more rows twice.
const UNITS_PER_THREAD: usize = 2;
/// Multiply-adds below which a second thread does not pay.
const WORTH_SHARING: usize = if cfg!(test) { 1 } else { 100_000 };

/// A 1x1 convolution at one end.
#[derive(Clone, Copy)]
pub struct Pointwise<'a> {
    /// Its kernel.
    pub variant: &'a gemm::Variant,
    /// Channels at its outer side: the input's of an expansion, the output's of a projection.
    pub channels: usize,
    /// Weights, packed by [`gemm::pack_conv`] or [`gemm::pack`] for the variant.
    pub packed: Packed<'a>,
    /// What is fused behind. The residual, of a projection only, is of the whole output.
    pub epilogue: Epilogue<'a>,
}

/// A bottleneck.
pub struct Bottleneck<'a> {
    /// Geometry of the depthwise convolution; [`depthwise::takes`] it.
    pub shape: &'a ConvShape,
    /// NHWC; of the expansion's channels if there is one.
    pub input: &'a [f32],
    /// What comes first.
    pub expand: Option<Pointwise<'a>>,
    /// Kernel of the depthwise convolution.
    pub depthwise: &'a depthwise::Variant,
    /// Its weights, from [`depthwise::pack`].
    pub packed: &'a [f32],
    /// What is fused behind it. A residual only where there is no projection.
    pub epilogue: Epilogue<'a>,
    /// What comes last.
    pub project: Option<Pointwise<'a>>,
    /// NHWC; of the projection's channels if there is one.
    pub out: &'a mut [f32],
}

/// How the output is cut. Depends on sizes only, so that scratch can be planned.
struct Split {
    /// Output rows computed at a time.
    band: usize,
    /// Channels of the depthwise convolution in a unit: all, or a panel of the expansion.
    channels: usize,
    /// Units of channels.
    panels: usize,
    /// Panels of all images that each thread has whole; the first ones.
    whole: usize,
    /// Units of rows that each thread has of each of the other panels.
    units: usize,
    /// Output rows of such a unit.
    rows: usize,
    /// Threads at work.
    slots: usize,
    /// Rows of the ring; none without an expansion.
    ring_rows: usize,
    /// Numbers of the ring.
    ring: usize,
    /// Numbers of a band of the depthwise convolution's output; none without a projection.
    middle: usize,
}

impl Split {
    fn new(shape: &ConvShape, expand: Option<&gemm::Variant>, projects: bool, threads: usize) -> Self {
        let panel = expand.filter(|_| !projects).map_or(usize::MAX, |variant| variant.nr);
        let channels = panel.min(shape.in_c.max(1));
        let panels = shape.in_c.div_ceil(channels);
        let in_row = if expand.is_some() { product(&[shape.in_w, channels]) } else { 0 };
        let out_row = if projects { product(&[shape.out_w, shape.out_c]) } else { 0 };
        let reach = (shape.kernel[0].max(1) - 1) * shape.dilation[0] + 1;
        let under = |band: usize| product(&[band - 1, shape.stride[0]]) + reach;
        let size = |band: usize| product(&[under(band), in_row]).saturating_add(product(&[band, out_row]));
        let band = (2..=shape.out_h).take_while(|&band| size(band) <= CACHE).last().unwrap_or(1);

        let work = product(&[shape.pixels(), shape.taps()]).saturating_mul(shape.out_c);
        let threads = if work < WORTH_SHARING { 1 } else { threads.max(1) };
        let all = product(&[shape.batch, panels]).max(1);
        let units = if all == 1 && threads > 1 { UNITS_PER_THREAD } else { 1 };
        // What a thread with `whole` panels and its part of the others expands, in numbers of the middle's channels: rows
        // between the parts are expanded twice.
        let halo = if threads > 1 { units.saturating_mul(reach.saturating_sub(shape.stride[0])) } else { 0 };
        let cost = |whole: usize| {
            // Only compared, so that what a file claims may be out of all bounds.
            let times = |sizes: [usize; 2]| sizes[0].saturating_mul(sizes[1]);
            let own = times([whole, channels]);
            let rest = times([shape.batch, shape.in_c]).saturating_sub(times([threads, own]));
            times([own, shape.in_h]).saturating_add(times([rest, shape.in_h.div_ceil(threads).saturating_add(halo)]))
        };
        let whole = (0..=all / threads).min_by_key(|&whole| cost(whole)).unwrap_or(0);
        let rows = shape.out_h.div_ceil(threads * units).max(1);
        let band = if threads * whole < all { band.min(rows) } else { band };
        Split {
            band,
            channels,
            panels,
            whole,
            units,
            rows,
            slots: threads,
            ring_rows: under(band),
            ring: product(&[under(band), in_row]),
            middle: product(&[band, out_row]),
        }
    }

    /// Units of each thread.
    fn tasks(&self, batch: usize) -> usize {
        let rest = (batch * self.panels).saturating_sub(self.slots * self.whole);
        self.whole + rest * self.units
    }

    /// Image, output rows and channels of a unit: of every thread first its whole panels, then its rows of the others.
    fn unit(&self, shape: &ConvShape, task: usize) -> (usize, Range<usize>, Range<usize>) {
        let tasks = self.tasks(shape.batch);
        let (thread, task) = (task / tasks, task % tasks);
        let (panel, rows) = match task.checked_sub(self.whole) {
            None => (thread * self.whole + task, 0..shape.out_h),
            Some(part) => {
                let first = (thread * self.units + part % self.units) * self.rows;
                let rows = first.min(shape.out_h)..(first + self.rows).min(shape.out_h);
                (self.slots * self.whole + part / self.units, rows)
            }
        };
        let first = panel % self.panels * self.channels;
        (panel / self.panels, rows, first..shape.in_c.min(first + self.channels))
    }
}

/// Numbers of scratch that [`bottleneck`] wants, with this kernel for the expansion.
pub fn scratch_len(shape: &ConvShape, expand: Option<&gemm::Variant>, projects: bool, threads: usize) -> usize {
    shape.check();
    let split = Split::new(shape, expand, projects, threads);
    product(&[split.slots, split.ring + split.middle])
}

/// Rows of the matrix products that [`bottleneck`] makes of an expansion and of a projection, for the choice of their
/// kernels.
pub fn product_rows(shape: &ConvShape) -> (usize, usize) {
    shape.check();
    let split = Split::new(shape, gemm::VARIANTS.first(), true, 1);
    (product(&[split.band, shape.stride[0], shape.in_w]), product(&[split.band, shape.out_w]))
}

/// Computes a bottleneck.
///
/// # Panics
/// If a slice is not as long as the shape and the channels say, if `scratch` is shorter than [`scratch_len`], or if
/// the CPU lacks a variant's instructions.
pub fn bottleneck(args: Bottleneck<'_>, scratch: &mut [f32], pool: &Pool) {
    let Bottleneck { shape, input, expand, depthwise, packed, epilogue, project, out } = args;
    shape.check();
    assert!(expand.is_some() || project.is_some(), "a depthwise convolution alone");
    assert!(expand.is_none_or(|p| p.epilogue.residual.is_none()), "the residual of an expansion");
    assert!(project.is_none() || epilogue.residual.is_none(), "the residual of what is projected");
    let channels = expand.map_or(shape.in_c, |p| p.channels);
    let filters = project.map_or(shape.out_c, |p| p.channels);
    assert_eq!(input.len(), product(&[shape.batch, shape.in_h, shape.in_w, channels]), "the input");
    assert_eq!(out.len(), product(&[shape.pixels(), filters]), "the output");
    if out.is_empty() {
        return;
    }
    let split = Split::new(shape, expand.map(|p| p.variant), project.is_some(), pool.threads());
    let blocks = Blocks { shape, input, expand, depthwise, packed, epilogue, project, split, out: Output::new(out) };
    let split = &blocks.split;
    let (tasks, slot_len) = (split.slots * split.tasks(shape.batch), split.ring + split.middle);
    share_units(pool, tasks, split.slots, slot_len, scratch, |task, slot| {
        let (image, rows, channels) = split.unit(shape, task);
        blocks.unit(image, rows, channels, slot);
    });
}

/// The arguments.
struct Blocks<'a> {
    shape: &'a ConvShape,
    input: &'a [f32],
    expand: Option<Pointwise<'a>>,
    depthwise: &'a depthwise::Variant,
    packed: &'a [f32],
    epilogue: Epilogue<'a>,
    project: Option<Pointwise<'a>>,
    split: Split,
    /// Holds the whole output; every unit writes rows and channels of its own.
    out: Output,
}

impl Blocks<'_> {
    /// Some rows of an image, and of them the channels that come of these in the middle.
    fn unit(&self, image: usize, rows: Range<usize>, channels: Range<usize>, slot: &mut [f32]) {
        let s = self.shape;
        let filters = self.project.map_or(s.out_c, |p| p.channels);
        let row_len = product(&[s.out_w, filters]);
        let (ring, middle) = slot.split_at_mut(self.split.ring);
        // The last panel may have fewer channels than the others.
        let ring = &mut ring[..product(&[self.split.ring_rows, s.in_w, channels.len()]).min(self.split.ring)];
        // The input row that is expanded next.
        let mut next = (rows.start * s.stride[0]).saturating_sub(s.pad_top);
        for y in rows.clone().step_by(self.split.band) {
            let band = y..rows.end.min(y + self.split.band);
            let needed = (band.end - 1) * s.stride[0] + (s.kernel[0] - 1) * s.dilation[0] + 1;
            let needed = needed.saturating_sub(s.pad_top).min(s.in_h);
            if let Some(expand) = &self.expand {
                self.expand(expand, image, next..needed.max(next), channels.clone(), ring);
                next = needed.max(next);
            }
            let over_all = image * s.out_h + band.start..image * s.out_h + band.end;
            let at = over_all.start * row_len;
            // SAFETY: the output was checked to hold this row.
            let out = unsafe { self.out.start().add(at) };
            match &self.project {
                None => {
                    // SAFETY: the output holds these rows, and no other unit writes these channels of them.
                    unsafe { self.convolve(over_all, channels.clone(), ring, image, out) }
                }
                Some(project) => {
                    let middle = &mut middle[..band.len() * s.out_w * s.out_c];
                    // SAFETY: the middle holds these rows, and is this thread's.
                    unsafe { self.convolve(over_all, channels.clone(), ring, image, middle.as_mut_ptr()) }
                    // SAFETY: the output holds these rows, which no other unit writes: with a projection units have all
                    // channels.
                    let out = unsafe { std::slice::from_raw_parts_mut(out, band.len() * row_len) };
                    let residual = project.epilogue.residual.map(|r| &r[at..][..out.len()]);
                    let args = Gemm {
                        m: band.len() * s.out_w,
                        k: s.out_c,
                        n: filters,
                        a: middle,
                        lda: s.out_c,
                        packed: project.packed,
                        out,
                        ldc: filters,
                        epilogue: Epilogue { residual, ..project.epilogue },
                        a_scale: None,
                    };
                    gemm_alone(project.variant, args);
                }
            }
        }
    }

    /// Expands rows of an image into the ring, to a panel's channels, or all.
    fn expand(&self, expand: &Pointwise<'_>, image: usize, rows: Range<usize>, to: Range<usize>, ring: &mut [f32]) {
        let s = self.shape;
        let (from_len, to_len) = (s.in_w * expand.channels, s.in_w * to.len());
        let bias = expand.epilogue.bias.map(|bias| &bias[to.clone()]);
        let mut row = rows.start;
        while row < rows.end {
            // As many as there are to the end of the ring.
            let place = row % self.split.ring_rows;
            let count = (rows.end - row).min(self.split.ring_rows - place);
            let args = Gemm {
                m: count * s.in_w,
                k: expand.channels,
                n: to.len(),
                a: &self.input[(image * s.in_h + row) * from_len..][..count * from_len],
                lda: expand.channels,
                packed: expand.packed.columns(expand.variant, expand.channels, to.clone()),
                out: &mut ring[place * to_len..][..count * to_len],
                ldc: to.len(),
                epilogue: Epilogue { bias, ..expand.epilogue },
                a_scale: None,
            };
            gemm_alone(expand.variant, args);
            row += count;
        }
    }

    /// The depthwise convolution of some output rows, counted over all images, of one.
    ///
    /// # Safety
    /// From `out` on there are these rows of the convolution's output, and nobody else reads or writes these channels.
    unsafe fn convolve(&self, rows: Range<usize>, channels: Range<usize>, ring: &[f32], image: usize, out: *mut f32) {
        let s = self.shape;
        let (ring, ring_rows) = match self.expand {
            Some(_) => (ring, self.split.ring_rows),
            // The image is its own ring.
            None => (&self.input[image * s.in_h * s.in_w * s.in_c..][..s.in_h * s.in_w * s.in_c], s.in_h),
        };
        let (packed, epilogue) = (self.packed, self.epilogue);
        let band = Band { shape: s, rows, channels, ring, ring_rows, packed, out, epilogue };
        // SAFETY: guaranteed by the caller.
        unsafe { depthwise_band(self.depthwise, band) }
    }
}

#[cfg(test)]
mod tests;

//! Pointwise, depthwise and pointwise convolutions of NHWC images in one pass: the (inverted) bottleneck of mobile
//! networks, where either of the pointwise convolutions may be absent.
//!
//! `out = project(depthwise(expand(in)))`
//!
//! The expanded image is the largest tensor of such a network: SkipNet-M's first block expands 0.8 MB to 3.2 MB and
//! reduces them to 0.3 MB. Run as separate steps, it is written to memory and read again. Here a band of output rows is
//! computed at a time, and only the input rows under the band are expanded, into a ring buffer that stays in the
//! second-level cache. No row is expanded twice, except those between the bands of two threads.
//!
//! Without a projection, channels are independent: an expansion is computed panel by panel of its weights, the ring
//! holds the channels of one panel, and threads share panels before they share rows.

use std::ops::Range;

use crate::conv::{Columns, ConvShape, product};
use crate::depthwise::{self, Band, depthwise_band};
use crate::epilogue::Epilogue;
use crate::gemm::{self, Gemm, Packed, gemm_alone};
use crate::parallel::{Output, PRODUCTS_WORTH_SHARING, share_units};
use crate::threads::Pool;

/// Elements that the ring and the band of depthwise outputs may take: 192 KiB, a share of the second-level cache. It is
/// smaller in tests, so that the ring wraps around with small images too.
const CACHE: usize = if cfg!(test) { 512 } else { 48 * 1024 };
/// Units per thread: several, so that a slow thread delays the others little; with more units, more rows would be
/// expanded twice.
const UNITS_PER_THREAD: usize = 2;
/// As for products; in tests all is shared.
const WORTH_SHARING: usize = if cfg!(test) { 1 } else { PRODUCTS_WORTH_SHARING };

/// Kernel of a stage.
#[derive(Clone, Copy)]
pub enum Stage {
    /// Kernel of an expansion or a projection.
    Pointwise(&'static gemm::Variant),
    /// Kernel of the depthwise convolution.
    Depthwise(&'static depthwise::Variant),
}

/// The pointwise convolution at either end.
#[derive(Clone, Copy)]
pub struct Pointwise<'a> {
    /// Its kernel.
    pub variant: &'a gemm::Variant,
    /// Channels at its outer side: input channels of an expansion, output channels of a projection.
    pub channels: usize,
    /// Weights, packed by [`gemm::pack_conv`] or [`gemm::pack`] for the variant.
    pub packed: Packed<'a>,
    /// Applied to the sums. Only a projection may have a residual: that of the whole output.
    pub epilogue: Epilogue<'a>,
}

/// A bottleneck.
pub struct Bottleneck<'a> {
    /// Geometry of the depthwise convolution, which [`depthwise::takes`] must accept.
    pub shape: &'a ConvShape,
    /// NHWC, with the input channels of the expansion if there is one.
    pub input: &'a [f32],
    /// The expansion.
    pub expand: Option<Pointwise<'a>>,
    /// Kernel of the depthwise convolution.
    pub depthwise: &'a depthwise::Variant,
    /// Its weights, from [`depthwise::pack`].
    pub packed: &'a [f32],
    /// Applied to the sums of the depthwise convolution. It may have a residual only if there is no projection.
    pub epilogue: Epilogue<'a>,
    /// The projection.
    pub project: Option<Pointwise<'a>>,
    /// NHWC, with the output channels of the projection if there is one.
    pub out: &'a mut [f32],
}

/// How the output is split. Depends only on sizes, so that scratch can be planned.
struct Split {
    /// Output rows computed at a time.
    band: usize,
    /// Channels of the depthwise convolution per unit: all, or a panel of the expansion.
    channels: usize,
    /// Panels of channels.
    panels: usize,
    /// Panels, counted over all images, that each thread computes whole; these come first.
    whole: usize,
    /// Units of rows that each thread has in each of the other panels.
    units: usize,
    /// Output rows of such a unit.
    rows: usize,
    /// Threads that work.
    slots: usize,
    /// Rows of the ring; 0 without an expansion.
    ring_rows: usize,
    /// Elements of the ring.
    ring: usize,
    /// Elements of a band of the depthwise convolution's output; 0 without a projection.
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
        // Elements of depthwise channels that a thread with `whole` panels and its part of the others expands: rows at
        // the borders between parts are expanded twice.
        let halo = if threads > 1 { units.saturating_mul(reach.saturating_sub(shape.stride[0])) } else { 0 };
        let cost = |whole: usize| {
            // These products are only compared, so they may saturate for the sizes that a file claims.
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

    /// Units per thread.
    fn tasks(&self, batch: usize) -> usize {
        let rest = (batch * self.panels).saturating_sub(self.slots * self.whole);
        self.whole + rest * self.units
    }

    /// Image, output rows and channels of a unit. Each thread's units are first its whole panels, then its rows of the
    /// others.
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

/// Scratch size in elements for [`bottleneck`] with this kernel for the expansion.
pub fn scratch_len(shape: &ConvShape, expand: Option<&gemm::Variant>, projects: bool, threads: usize) -> usize {
    shape.check();
    let split = Split::new(shape, expand, projects, threads);
    product(&[split.slots, split.ring + split.middle])
}

/// Rows of the matrix products that [`bottleneck`] computes for an expansion and for a projection, for the choice of
/// their kernels.
pub fn product_rows(shape: &ConvShape) -> (usize, usize) {
    shape.check();
    let split = Split::new(shape, gemm::VARIANTS.first(), true, 1);
    (product(&[split.band, shape.stride[0], shape.in_w]), product(&[split.band, shape.out_w]))
}

/// Computes a bottleneck.
///
/// # Panics
/// If the length of a slice does not match the shape and the channels, if `scratch` is shorter than [`scratch_len`], or
/// if the CPU lacks a variant's instructions.
pub fn bottleneck(args: Bottleneck<'_>, scratch: &mut [f32], pool: &Pool) {
    let Bottleneck { shape, input, expand, depthwise, packed, epilogue, project, out } = args;
    shape.check();
    assert!(expand.is_some() || project.is_some(), "neither expansion nor projection");
    assert!(expand.is_none_or(|p| p.epilogue.residual.is_none()), "an expansion with a residual");
    assert!(project.is_none() || epilogue.residual.is_none(), "a residual before the projection");
    let channels = expand.map_or(shape.in_c, |p| p.channels);
    let filters = project.map_or(shape.out_c, |p| p.channels);
    assert_eq!(input.len(), product(&[shape.batch, shape.in_h, shape.in_w, channels]), "input length");
    assert_eq!(out.len(), product(&[shape.pixels(), filters]), "output length");
    if out.is_empty() {
        return;
    }
    let split = Split::new(shape, expand.map(|p| p.variant), project.is_some(), pool.threads());
    let out = Output::new(out);
    let blocks = Blocks { shape, input, expand, depthwise, packed, epilogue, project, split, out, pool };
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
    /// The whole output; every unit writes its own rows and channels.
    out: Output,
    pool: &'a Pool,
}

impl Blocks<'_> {
    /// Computes some rows of an image, with the given channels of the depthwise convolution.
    fn unit(&self, image: usize, rows: Range<usize>, channels: Range<usize>, slot: &mut [f32]) {
        let s = self.shape;
        let filters = self.project.map_or(s.out_c, |p| p.channels);
        let row_len = product(&[s.out_w, filters]);
        let (ring, middle) = slot.split_at_mut(self.split.ring);
        // The last panel may have fewer channels than the others.
        let ring = &mut ring[..product(&[self.split.ring_rows, s.in_w, channels.len()]).min(self.split.ring)];
        // The next input row to expand.
        let mut next = (rows.start * s.stride[0]).saturating_sub(s.pad_top);
        for y in rows.clone().step_by(self.split.band) {
            if y > rows.start && self.pool.stops() {
                return;
            }
            let band = y..rows.end.min(y + self.split.band);
            let needed = (band.end - 1) * s.stride[0] + (s.kernel[0] - 1) * s.dilation[0] + 1;
            let needed = needed.saturating_sub(s.pad_top).min(s.in_h);
            if let Some(expand) = &self.expand {
                self.expand(expand, image, next..needed.max(next), channels.clone(), ring);
                next = needed.max(next);
            }
            let over_all = image * s.out_h + band.start..image * s.out_h + band.end;
            let at = over_all.start * row_len;
            let pixels = band.len() * s.out_w;
            // SAFETY: the output was checked to hold this row.
            let out = unsafe { self.out.start().add(at) };
            match &self.project {
                None => {
                    // SAFETY: the output holds these rows, and no other unit writes these channels of them.
                    let out = unsafe { Columns::some(out, pixels, channels.clone(), s.out_c) };
                    self.convolve(over_all, channels.clone(), ring, image, out);
                }
                Some(project) => {
                    let middle = &mut middle[..pixels * s.out_c];
                    self.convolve(over_all, channels.clone(), ring, image, Columns::all(middle, s.out_c));
                    // SAFETY: the output has these rows, which no other unit writes: with a projection, units have all
                    // channels.
                    let out = unsafe { std::slice::from_raw_parts_mut(out, pixels * filters) };
                    let residual = project.epilogue.residual.map(|r| &r[at..][..out.len()]);
                    let args = Gemm {
                        m: pixels,
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
                    gemm_alone(project.variant, args, self.pool);
                }
            }
        }
    }

    /// Expands rows of an image into the ring, to the channels of a panel or to all channels.
    fn expand(&self, expand: &Pointwise<'_>, image: usize, rows: Range<usize>, to: Range<usize>, ring: &mut [f32]) {
        let s = self.shape;
        let (from_len, to_len) = (s.in_w * expand.channels, s.in_w * to.len());
        let bias = expand.epilogue.bias.map(|bias| &bias[to.clone()]);
        let mut row = rows.start;
        while row < rows.end {
            // As many rows as fit before the end of the ring.
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
            gemm_alone(expand.variant, args, self.pool);
            row += count;
        }
    }

    /// The depthwise convolution of some output rows of one image, counted over all images.
    fn convolve(&self, rows: Range<usize>, channels: Range<usize>, ring: &[f32], image: usize, out: Columns<'_>) {
        let s = self.shape;
        let (ring, ring_rows) = match self.expand {
            Some(_) => (ring, self.split.ring_rows),
            // Without an expansion the image itself serves as the ring.
            None => (&self.input[image * s.in_h * s.in_w * s.in_c..][..s.in_h * s.in_w * s.in_c], s.in_h),
        };
        let (packed, epilogue, pool) = (self.packed, self.epilogue, self.pool);
        let band = Band { shape: s, rows, channels, ring, ring_rows, packed, out, epilogue, pool };
        depthwise_band(self.depthwise, band);
    }
}

#[cfg(test)]
mod tests;

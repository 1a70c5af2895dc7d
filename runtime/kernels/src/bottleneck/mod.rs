//! Pointwise, depthwise and pointwise convolutions of NHWC images in one pass: the (inverted) bottleneck of mobile
//! networks, with either of the pointwise ones left out.
//!
//! `out = project(depthwise(expand(in)))`
//!
//! The expanded image is the largest tensor of such a network: SkipNet-M's first block takes 0.8 MB to 3.2 MB and
//! makes 0.3 MB of them. Step by step it is written to memory and read again; here a band of output rows is computed
//! at a time, and only the rows under the band are expanded, into a ring that stays in the second-level cache. No row
//! is expanded twice, but for those between the bands of two threads.

use crate::conv::{ConvShape, product};
use crate::depthwise::{self, Band, depthwise_band};
use crate::epilogue::Epilogue;
use crate::gemm::{self, Gemm, Packed, gemm_alone};
use crate::parallel::{Output, share_units};
use crate::threads::Pool;

/// Numbers that the ring and the band behind it may take: 192 KiB, a share of the second-level cache. Tests have small
/// images, whose rings shall come round all the same.
const CACHE: usize = if cfg!(test) { 512 } else { 48 * 1024 };
/// Units per thread, so that a slow thread holds up the others by little.
const UNITS_PER_THREAD: usize = 4;
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
    /// Output rows of a unit, a multiple of the band but for the last of an image.
    rows: usize,
    /// Units of an image.
    units: usize,
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
    fn new(shape: &ConvShape, expands: bool, projects: bool, threads: usize) -> Self {
        let in_row = if expands { product(&[shape.in_w, shape.in_c]) } else { 0 };
        let out_row = if projects { product(&[shape.out_w, shape.out_c]) } else { 0 };
        let reach = (shape.kernel[0].max(1) - 1) * shape.dilation[0] + 1;
        let under = |band: usize| product(&[band - 1, shape.stride[0]]) + reach;
        let size = |band: usize| product(&[under(band), in_row]).saturating_add(product(&[band, out_row]));
        let band = (2..=shape.out_h).take_while(|&band| size(band) <= CACHE).last().unwrap_or(1);

        let work = product(&[shape.pixels(), shape.taps()]).saturating_mul(shape.out_c);
        let threads = if work < WORTH_SHARING { 1 } else { threads.max(1) };
        let wanted = if threads > 1 { (threads * UNITS_PER_THREAD).div_ceil(shape.batch.max(1)) } else { 1 };
        let band = band.min(shape.out_h.div_ceil(wanted).max(1));
        let rows = shape.out_h.div_ceil(wanted).next_multiple_of(band).max(1);
        let units = shape.out_h.div_ceil(rows);
        Split {
            band,
            rows,
            units,
            slots: product(&[units, shape.batch]).min(threads).max(1),
            ring_rows: under(band),
            ring: product(&[under(band), in_row]),
            middle: product(&[band, out_row]),
        }
    }
}

/// Numbers of scratch that [`bottleneck`] wants.
pub fn scratch_len(shape: &ConvShape, expands: bool, projects: bool, threads: usize) -> usize {
    shape.check();
    let split = Split::new(shape, expands, projects, threads);
    product(&[split.slots, split.ring + split.middle])
}

/// Rows of the matrix products that [`bottleneck`] makes of an expansion and of a projection, for the choice of their
/// kernels.
pub fn product_rows(shape: &ConvShape) -> (usize, usize) {
    shape.check();
    let split = Split::new(shape, true, true, 1);
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
    let split = Split::new(shape, expand.is_some(), project.is_some(), pool.threads());
    let blocks = Blocks { shape, input, expand, depthwise, packed, epilogue, project, split };
    let (units, rows) = (blocks.split.units, blocks.split.rows);
    let row_len = product(&[shape.out_w, filters]);
    let out = Output::new(out);
    let slot_len = blocks.split.ring + blocks.split.middle;
    share_units(pool, units * shape.batch, blocks.split.slots, slot_len, scratch, |unit, slot| {
        let (image, first) = (unit / units, unit % units * rows);
        let len = rows.min(shape.out_h - first);
        let start = (image * shape.out_h + first) * row_len;
        // SAFETY: the output was checked to hold these rows, which no other unit writes.
        let out = unsafe { std::slice::from_raw_parts_mut(out.start().add(start), len * row_len) };
        blocks.unit(image, first, out, slot);
    });
}

/// The arguments, but for the output.
struct Blocks<'a> {
    shape: &'a ConvShape,
    input: &'a [f32],
    expand: Option<Pointwise<'a>>,
    depthwise: &'a depthwise::Variant,
    packed: &'a [f32],
    epilogue: Epilogue<'a>,
    project: Option<Pointwise<'a>>,
    split: Split,
}

impl Blocks<'_> {
    /// The rows of an image from `first` on that `out` holds.
    fn unit(&self, image: usize, first: usize, out: &mut [f32], slot: &mut [f32]) {
        let s = self.shape;
        let filters = self.project.map_or(s.out_c, |p| p.channels);
        let row_len = s.out_w * filters;
        let (ring, middle) = slot.split_at_mut(self.split.ring);
        let end = first + out.len() / row_len;
        // The input row that is expanded next.
        let mut next = (first * s.stride[0]).saturating_sub(s.pad_top);
        for (index, out) in out.chunks_mut(self.split.band * row_len).enumerate() {
            let y = first + index * self.split.band;
            let rows = y..end.min(y + self.split.band);
            let needed = (rows.end - 1) * s.stride[0] + (s.kernel[0] - 1) * s.dilation[0] + 1;
            let needed = needed.saturating_sub(s.pad_top).min(s.in_h);
            if let Some(expand) = &self.expand {
                self.expand(expand, image, next..needed.max(next), ring);
                next = needed.max(next);
            }
            let over_all = image * s.out_h + rows.start..image * s.out_h + rows.end;
            match &self.project {
                None => self.convolve(over_all, ring, image, out),
                Some(project) => {
                    let middle = &mut middle[..rows.len() * s.out_w * s.out_c];
                    self.convolve(over_all.clone(), ring, image, middle);
                    let at = over_all.start * row_len;
                    let residual = project.epilogue.residual.map(|r| &r[at..][..out.len()]);
                    let args = Gemm {
                        m: rows.len() * s.out_w,
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

    /// Expands rows of an image into the ring.
    fn expand(&self, expand: &Pointwise<'_>, image: usize, rows: std::ops::Range<usize>, ring: &mut [f32]) {
        let s = self.shape;
        let (from_len, to_len) = (s.in_w * expand.channels, s.in_w * s.in_c);
        let mut row = rows.start;
        while row < rows.end {
            // As many as there are to the end of the ring.
            let place = row % self.split.ring_rows;
            let count = (rows.end - row).min(self.split.ring_rows - place);
            let args = Gemm {
                m: count * s.in_w,
                k: expand.channels,
                n: s.in_c,
                a: &self.input[(image * s.in_h + row) * from_len..][..count * from_len],
                lda: expand.channels,
                packed: expand.packed,
                out: &mut ring[place * to_len..][..count * to_len],
                ldc: s.in_c,
                epilogue: expand.epilogue,
                a_scale: None,
            };
            gemm_alone(expand.variant, args);
            row += count;
        }
    }

    /// The depthwise convolution of some output rows, counted over all images, of one.
    fn convolve(&self, rows: std::ops::Range<usize>, ring: &[f32], image: usize, out: &mut [f32]) {
        let s = self.shape;
        let (ring, ring_rows) = match self.expand {
            Some(_) => (ring, self.split.ring_rows),
            // The image is its own ring.
            None => (&self.input[image * s.in_h * s.in_w * s.in_c..][..s.in_h * s.in_w * s.in_c], s.in_h),
        };
        let (packed, epilogue) = (self.packed, self.epilogue);
        depthwise_band(self.depthwise, Band { shape: s, rows, ring, ring_rows, packed, out, epilogue });
    }
}

#[cfg(test)]
mod tests;

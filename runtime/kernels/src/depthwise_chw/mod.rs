//! Depthwise convolution over NCHW images, between sparse 1x1 convolutions, which also read and write NCHW.
//!
//! `out[c, y, x] = epilogue(sum over taps of in[c, y * sy + ky * dy - pad, x * sx + kx * dx - pad] * w[c, ky, kx])`
//!
//! Columns are in the lanes of registers. A plane, or as many of its rows as fit in the first-level cache, is
//! [copied](crate::planes) with zeros around it; the usual kernels (3x3 and 5x5, strides 1 and 2) then compute seven
//! output rows at once, so that an input is loaded once for all of them. The next copy is made before the last one is
//! read: a load directly after the stores that it overlaps would wait for them.

mod contract;
mod run;

use crate::conv::{ConvShape, product};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::parallel::{Output, UNITS_PER_THREAD, WINDOWS_WORTH_SHARING, share_units};
use crate::planes::Padded;
use crate::threads::Pool;
pub(crate) use contract::FAMILY;
use run::{Planes, ROWS};

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// Columns per register.
    width: usize,
    kernel: unsafe fn(&mut Planes<'_>),
}

/// The entries of the table: whether the kernel is built, name, instruction set, its columns, kernel.
macro_rules! variants {
    ($(#[cfg($built:meta)] $name:literal $isa:ident $width:literal $kernel:path;)*) => {
        &[$(#[cfg(any($built, feature = "foreign"))] Variant {
            name: $name,
            isa: Isa::$isa,
            width: $width,
            #[cfg($built)]
            kernel: $kernel,
            #[cfg(not($built))]
            kernel: run::scalar,
        },)*]
    };
}

/// Every variant of this build. With the feature `foreign` the table also has the variants of other architectures, for
/// packing only. All have the same packed layout: the weights as they are.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "depthwise_chw_f32_avx512" Avx512 16 run::avx512;
    #[cfg(target_arch = "x86_64")]
    "depthwise_chw_f32_avx2" Avx2 8 run::avx2;
    #[cfg(target_arch = "aarch64")]
    "depthwise_chw_f32_neon" Neon 4 run::neon;
    #[cfg(target_arch = "arm")]
    "depthwise_chw_f32_neon32" Neon32 4 run::neon32;
    #[cfg(all())]
    "depthwise_chw_f32_scalar" Scalar 1 run::scalar;
};

/// Most multiply-adds of an output row, which is computed at once.
const ROW_WORK: usize = 1 << 22;

/// Whether a convolution belongs to this family: one filter per channel, windows that [`planes`](crate::planes)
/// supports, and rows that are not too long.
fn takes(shape: &ConvShape) -> bool {
    shape.groups == shape.in_c
        && shape.in_c == shape.out_c
        && Padded::takes(shape)
        && shape.out_w.saturating_mul(shape.taps()) <= ROW_WORK
        && shape.in_w.saturating_mul(shape.kernel[0]) <= ROW_WORK
}

/// Elements of a copy: two of them fit in the first-level cache.
const COPY: usize = 3 * 1024;

/// How a plane is split into bands of output rows.
struct Bands {
    padded: Padded,
    /// Output rows per band, except the last.
    rows: usize,
    /// Input rows under a band.
    lines: usize,
}

impl Bands {
    #[inline(never)]
    fn new(s: &ConvShape, width: usize) -> Self {
        let padded = Padded::new(s, width);
        let reach = (s.kernel[0] - 1) * s.dilation[0] + 1;
        let fit = (COPY / padded.row_len()).saturating_sub(reach) / s.stride[0] + 1;
        let whole = if fit > ROWS { fit - fit % ROWS } else { fit };
        let rows = if fit >= s.out_h { s.out_h } else { whole };
        Bands { padded, rows, lines: (rows.max(1) - 1) * s.stride[0] + reach }
    }

    /// Elements of the copy of a band.
    fn copy_len(&self) -> usize {
        product(&[self.lines, self.padded.row_len()])
    }
}

/// A convolution whose slices were checked.
struct Depthwise<'a> {
    shape: &'a ConvShape,
    /// NCHW.
    input: &'a [f32],
    /// `[channels, kernel_h, kernel_w]`
    weights: &'a [f32],
    /// NCHW.
    out: &'a mut [f32],
    epilogue: Epilogue<'a>,
}

fn depthwise(v: &Variant, args: Depthwise<'_>, scratch: &mut [f32], pool: &Pool) {
    let Depthwise { shape, input, weights, out, epilogue } = args;
    let planes = product(&[shape.batch, shape.in_c]);
    let tasks = match pool.threads() {
        threads if threads > 1 && product(&[out.len(), shape.taps()]) >= WINDOWS_WORTH_SHARING => {
            planes.min(threads * UNITS_PER_THREAD)
        }
        _ => 1,
    };
    let bands = Bands::new(shape, v.width);
    let to = Output::new(out);
    share_units(pool, tasks, pool.threads(), 2 * bands.copy_len(), scratch, |task, copies| {
        copies.fill(0.0);
        let pace = Pace::of(pool);
        let planes = planes * task / tasks..planes * (task + 1) / tasks;
        let out = to.start();
        let pace = &pace;
        let mut args = Planes { shape, bands: &bands, planes, input, weights, out, epilogue, copies, pace };
        // SAFETY: the CPU has the instructions and the lengths were checked; the bands are for the kernel's width; no
        // other task writes these planes.
        unsafe { (v.kernel)(&mut args) }
    });
}

#[cfg(test)]
mod tests;

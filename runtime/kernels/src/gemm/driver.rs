//! From a whole product to tiles: blocking for the caches, sharing among threads, gathering of rows.

use super::tile::Tile;
use super::{Variant, packed_conv_len, packed_len};
use crate::conv::ConvShape;
use crate::epilogue::Epilogue;
use crate::threads::Pool;

/// Panels that are used together stay within this: half of a small second-level cache.
const PANEL_BYTES: usize = 192 * 1024;

/// Most row pointers of a tile; a convolution with more gathers its rows instead.
const MAX_POINTERS: usize = 1024;

/// Below this many channels a tap's inner loop is too short for its pointers to pay.
const MIN_CHANNELS: usize = 8;

/// Multiply-adds below which a second thread does not pay.
const WORTH_SHARING: usize = 100_000;

/// A matrix product.
pub struct Gemm<'a> {
    /// Rows of A.
    pub m: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Columns of B.
    pub n: usize,
    /// A: row `i` begins at `i * lda`.
    pub a: &'a [f32],
    /// Numbers from one row of A to the next.
    pub lda: usize,
    /// B, packed for the variant.
    pub packed: &'a [f32],
    /// The product: row `i` begins at `i * ldc`.
    pub out: &'a mut [f32],
    /// Numbers from one row of the product to the next, at least `n`.
    pub ldc: usize,
    /// What is fused behind.
    pub epilogue: Epilogue<'a>,
    /// One factor per column of A.
    pub a_scale: Option<&'a [f32]>,
}

/// A convolution.
pub struct Conv<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// NHWC.
    pub input: &'a [f32],
    /// Weights, packed by [`pack_conv`](super::pack_conv) for the variant.
    pub packed: &'a [f32],
    /// NHWC.
    pub out: &'a mut [f32],
    /// What is fused behind.
    pub epilogue: Epilogue<'a>,
    /// One factor per image and input channel.
    pub a_scale: Option<&'a [f32]>,
}

/// Numbers of scratch that [`gemm`] wants.
pub fn gemm_scratch(v: &Variant, m: usize, k: usize, n: usize, scaled: bool, threads: usize) -> usize {
    if scaled { Split::new(v, m, k, n, threads).tasks() * v.mr * k } else { 0 }
}

/// Computes a matrix product.
///
/// # Panics
/// If a slice is shorter than its description says.
pub fn gemm(v: &Variant, args: Gemm<'_>, scratch: &mut [f32], pool: &Pool) {
    let Gemm { m, k, n, a, lda, packed, out, ldc, epilogue, a_scale } = args;
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.len() >= (m - 1) * lda + k && lda >= k, "A is too short");
    assert!(out.len() >= (m - 1) * ldc + n && ldc >= n, "the output is too short");
    assert!(a_scale.is_none_or(|s| s.len() == k), "one factor per column of A");
    // A matrix is an image of one row whose pixels lie `lda` apart.
    let rows = match a_scale {
        None => Rows::Matrix { a: a.as_ptr(), lda },
        Some(scale) => Rows::Scaled { a, lda, scale },
    };
    let product = Product { v, m, k, taps: 1, n, packed, rows, out: out.as_mut_ptr(), ldc, epilogue };
    product.check(out.len());
    product.run(scratch, pool);
}

/// How a convolution reads its input.
fn gathers(v: &Variant, shape: &ConvShape, scaled: bool) -> bool {
    scaled || (shape.taps() > 1 && shape.group_in() < MIN_CHANNELS) || shape.taps() * v.mr > MAX_POINTERS
}

/// Numbers of scratch that [`conv`] wants.
pub fn conv_scratch(v: &Variant, shape: &ConvShape, scaled: bool, threads: usize) -> usize {
    let k = shape.taps() * shape.group_in();
    let tasks = Split::new(v, shape.pixels(), k, shape.group_out(), threads).tasks();
    let gathered = if gathers(v, shape, scaled) { tasks * v.mr * k } else { 0 };
    gathered + if shape.is_padded() { shape.in_c } else { 0 }
}

/// Computes a convolution.
///
/// # Panics
/// If a slice is not as long as `shape` says, or `scratch` is shorter than [`conv_scratch`].
pub fn conv(v: &Variant, args: Conv<'_>, scratch: &mut [f32], pool: &Pool) {
    let Conv { shape, input, packed, out, epilogue, a_scale } = args;
    shape.check();
    assert_eq!(input.len(), shape.input_len(), "the input");
    assert_eq!(out.len(), shape.output_len(), "the output");
    assert_eq!(packed.len(), packed_conv_len(v, shape), "the weights");
    assert!(a_scale.is_none_or(|s| s.len() == shape.batch * shape.in_c), "one factor per image and channel");
    if out.is_empty() {
        return;
    }
    let (taps, channels, filters) = (shape.taps(), shape.group_in(), shape.group_out());
    let (zeros, scratch) = scratch.split_at_mut(if shape.is_padded() { shape.in_c } else { 0 });
    zeros.fill(0.0);
    let group_len = packed_len(v, taps * channels, filters);
    let gather = gathers(v, shape, a_scale.is_some());
    for group in 0..shape.groups {
        let source = Image { shape, input, zeros, channel: group * channels, scale: a_scale };
        let rows = match (gather, shape.is_pointwise()) {
            (false, true) => Rows::Matrix { a: input[source.channel..].as_ptr(), lda: shape.in_c },
            (false, false) => Rows::Image(source),
            (true, _) => Rows::Gathered(source),
        };
        let product = Product {
            v,
            m: shape.pixels(),
            k: if gather { taps * channels } else { channels },
            taps: if gather { 1 } else { taps },
            n: filters,
            packed: &packed[group * group_len..(group + 1) * group_len],
            rows,
            out: out[group * filters..].as_mut_ptr(),
            ldc: shape.out_c,
            epilogue: Epilogue {
                bias: epilogue.bias.map(|b| &b[group * filters..][..filters]),
                residual: epilogue.residual.map(|r| &r[group * filters..]),
                ..epilogue
            },
        };
        product.check(out.len() - group * filters);
        product.run(scratch, pool);
    }
}

/// Where the rows of A come from.
enum Rows<'a> {
    /// Rows of a matrix, read in place.
    Matrix { a: *const f32, lda: usize },
    /// Rows of a matrix, each copied times its factors.
    Scaled { a: &'a [f32], lda: usize, scale: &'a [f32] },
    /// Input pixels, one pointer per tap.
    Image(Image<'a>),
    /// All taps of a pixel copied into one row.
    Gathered(Image<'a>),
}

/// The input of one group of a convolution.
struct Image<'a> {
    shape: &'a ConvShape,
    input: &'a [f32],
    zeros: &'a [f32],
    /// First channel of the group.
    channel: usize,
    scale: Option<&'a [f32]>,
}

impl Image<'_> {
    /// Calls `f(tap, offset)` for every tap of output pixel `index`; `None` in the padding.
    #[inline(always)]
    fn taps(&self, index: usize, mut f: impl FnMut(usize, Option<usize>)) {
        let s = self.shape;
        let (row, x) = (index / s.out_w, index % s.out_w);
        let (image, y) = (row / s.out_h, row % s.out_h);
        for ky in 0..s.kernel[0] {
            let in_y = (y * s.stride[0] + ky * s.dilation[0]).wrapping_sub(s.pad_top);
            for kx in 0..s.kernel[1] {
                let in_x = (x * s.stride[1] + kx * s.dilation[1]).wrapping_sub(s.pad_left);
                let inside = in_y < s.in_h && in_x < s.in_w;
                let offset = ((image * s.in_h).wrapping_add(in_y).wrapping_mul(s.in_w).wrapping_add(in_x))
                    .wrapping_mul(s.in_c)
                    .wrapping_add(self.channel);
                f(ky * s.kernel[1] + kx, inside.then_some(offset));
            }
        }
    }

    /// Copies all taps of output pixel `index` into `row`, times the factors of its image.
    fn gather(&self, index: usize, row: &mut [f32]) {
        let channels = self.shape.group_in();
        let image = index / (self.shape.out_h * self.shape.out_w);
        let scale = self.scale.map(|s| &s[image * self.shape.in_c + self.channel..][..channels]);
        self.taps(index, |tap, offset| {
            let to = &mut row[tap * channels..(tap + 1) * channels];
            match (offset, scale) {
                (None, _) => to.fill(0.0),
                (Some(at), None) => to.copy_from_slice(&self.input[at..at + channels]),
                (Some(at), Some(scale)) => {
                    for ((to, x), s) in to.iter_mut().zip(&self.input[at..at + channels]).zip(scale) {
                        *to = x * s;
                    }
                }
            }
        });
    }
}

/// A product whose lengths were checked.
struct Product<'a> {
    v: &'a Variant,
    m: usize,
    k: usize,
    taps: usize,
    n: usize,
    packed: &'a [f32],
    rows: Rows<'a>,
    out: *mut f32,
    ldc: usize,
    epilogue: Epilogue<'a>,
}

// SAFETY: what it points to is borrowed for its lifetime; tasks write disjoint tiles of `out`.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    fn check(&self, out_len: usize) {
        assert!(self.v.isa.is_available(), "this CPU does not have {}", self.v.isa);
        assert_eq!(self.packed.len(), packed_len(self.v, self.taps * self.k, self.n), "the packed weights");
        let end = (self.m - 1) * self.ldc + self.n;
        assert!(out_len >= end, "the output is too short");
        assert!(self.epilogue.bias.is_none_or(|b| b.len() == self.n), "one bias per column");
        assert!(self.epilogue.residual.is_none_or(|r| r.len() >= end), "the residual is too short");
    }

    fn run(&self, scratch: &mut [f32], pool: &Pool) {
        let split = Split::new(self.v, self.m, self.taps * self.k, self.n, pool.threads());
        let per_task = match self.rows {
            Rows::Scaled { .. } | Rows::Gathered(_) => self.v.mr * self.k,
            Rows::Matrix { .. } | Rows::Image(_) => 0,
        };
        assert!(scratch.len() >= split.tasks() * per_task, "the scratch is too short");
        let shared = Scratch { start: scratch.as_mut_ptr() };
        pool.run(split.tasks(), &|task| {
            // SAFETY: every task has its own part of a scratch that was checked to hold all.
            let own = unsafe { std::slice::from_raw_parts_mut(shared.part(task * per_task), per_task) };
            self.block(&split, task, own);
        });
    }

    /// One task: a range of rows by a range of panels.
    fn block(&self, split: &Split, task: usize, scratch: &mut [f32]) {
        let (v, depth) = (self.v, self.taps * self.k);
        let (row_task, panel_task) = (task / split.panel_tasks, task % split.panel_tasks);
        let rows = share(self.m.div_ceil(v.mr), split.row_tasks, row_task);
        let panels = share(self.n.div_ceil(v.nr), split.panel_tasks, panel_task);
        let group = (PANEL_BYTES / (depth * v.nr * size_of::<f32>()).max(1)).max(1);
        let mut pointers = [std::ptr::null(); MAX_POINTERS];
        for first in panels.clone().step_by(group) {
            for tile_row in rows.clone() {
                let start = tile_row * v.mr;
                let count = v.mr.min(self.m - start);
                self.point(start, count, scratch, &mut pointers);
                for panel in first..panels.end.min(first + group) {
                    self.tile(start, count, panel * v.nr, &pointers);
                }
            }
        }
    }

    /// Fills in the row pointers of a tile.
    fn point(&self, start: usize, count: usize, scratch: &mut [f32], pointers: &mut [*const f32; MAX_POINTERS]) {
        match &self.rows {
            Rows::Matrix { a, lda } => {
                for (r, pointer) in pointers[..count].iter_mut().enumerate() {
                    *pointer = a.wrapping_add((start + r) * lda);
                }
            }
            Rows::Image(image) => {
                for r in 0..count {
                    image.taps(start + r, |tap, offset| {
                        pointers[tap * self.v.mr + r] = match offset {
                            Some(offset) => image.input[offset..].as_ptr(),
                            None => image.zeros.as_ptr(),
                        };
                    });
                }
            }
            Rows::Scaled { a, lda, scale } => {
                for r in 0..count {
                    let row = &mut scratch[r * self.k..(r + 1) * self.k];
                    for ((to, x), s) in row.iter_mut().zip(&a[(start + r) * lda..]).zip(*scale) {
                        *to = x * s;
                    }
                    pointers[r] = row.as_ptr();
                }
            }
            Rows::Gathered(image) => {
                for r in 0..count {
                    let row = &mut scratch[r * self.k..(r + 1) * self.k];
                    image.gather(start + r, row);
                    pointers[r] = row.as_ptr();
                }
            }
        }
    }

    /// Calls the microkernel.
    fn tile(&self, start: usize, rows: usize, col: usize, pointers: &[*const f32; MAX_POINTERS]) {
        let depth = self.taps * self.k;
        let at = start * self.ldc + col;
        let tile = Tile {
            rows,
            cols: self.v.nr.min(self.n - col),
            taps: self.taps,
            k: self.k,
            a: pointers.as_ptr(),
            pitch: self.v.mr,
            b: self.packed[depth * col..].as_ptr(),
            out: self.out.wrapping_add(at),
            ldc: self.ldc,
            bias: self.epilogue.bias.map_or(std::ptr::null(), |b| b[col..].as_ptr()),
            residual: self.epilogue.residual.map_or(std::ptr::null(), |r| r[at..].as_ptr()),
            residual_first: self.epilogue.residual_first,
            activation: self.epilogue.activation,
        };
        // SAFETY: `check` has seen that packed weights, output, bias and residual hold every tile of the product and
        // that the CPU has the instructions; `point` has set `taps * rows` pointers to `k` numbers each.
        unsafe { (self.v.kernel)(&tile) }
    }
}

/// How a product is shared among threads: ranges of tile rows by ranges of panels.
struct Split {
    row_tasks: usize,
    panel_tasks: usize,
}

impl Split {
    fn new(v: &Variant, m: usize, k: usize, n: usize, threads: usize) -> Self {
        if threads <= 1 || m * k * n < WORTH_SHARING {
            return Self { row_tasks: 1, panel_tasks: 1 };
        }
        // More tasks than threads even out what a slow core leaves behind.
        let wanted = threads * 4;
        let row_tasks = m.div_ceil(v.mr).min(wanted);
        let panel_tasks = n.div_ceil(v.nr).min(wanted.div_ceil(row_tasks));
        Self { row_tasks, panel_tasks }
    }

    fn tasks(&self) -> usize {
        self.row_tasks * self.panel_tasks
    }
}

/// The `index`-th of `parts` nearly equal ranges of `0..len`.
fn share(len: usize, parts: usize, index: usize) -> std::ops::Range<usize> {
    len * index / parts..len * (index + 1) / parts
}

/// Scratch that tasks take disjoint parts of.
struct Scratch {
    start: *mut f32,
}

// SAFETY: tasks use disjoint parts, while the slice behind it is borrowed.
unsafe impl Sync for Scratch {}

impl Scratch {
    fn part(&self, offset: usize) -> *mut f32 {
        self.start.wrapping_add(offset)
    }
}

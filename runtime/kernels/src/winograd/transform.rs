//! The transforms of tiles, with channels in the lanes.
//!
//! The matrices come from evaluating polynomials at `N - 1` points and at infinity (Toom-Cook). For `M = 2` the points
//! are 0, 1 and -1. For `M = 4` they are 0, ±sqrt(1/2) and ±sqrt(2): the powers of such points stay closer together
//! than those of the usual 0, ±1 and ±2, and the error of the result is half as large. For `M = 5` they are 0, ±0.6,
//! ±1.15 and ±3.2, without infinity, so that all points but 0 form pairs whose computations differ only in signs. They
//! were chosen to minimize the rounding error of the sum over channels, which is most of the error: it is slightly more
//! than twice as large as for `M = 4`. With the best points for `M = 6` it would be six times as large, more than the
//! tests of this family allow.
//!
//! At stride 2 the outer taps of the kernel are multiplied with every other element, and the middle tap with the
//! elements between. The first part is a convolution by two taps, transformed at the points ±1 (`M = 2`) or ±1/2 and ±1
//! (`M = 4`) and infinity; the second is one product per output. `M` such products share one weight.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::ops::Range;

use half::f16;

use crate::epilogue::Tail;
use crate::lanes::Lanes;

/// A transform of `N` inputs and `W` weights to `M` outputs, along one axis. Each point has its own weight, except that
/// all points from the last weight onward share it.
pub(super) trait Transform<const N: usize, const M: usize, const W: usize> {
    /// Input elements between the windows of adjacent outputs.
    const STRIDE: usize;

    /// `Bt d`
    fn input<L: Lanes>(d: [L; N]) -> [L; N];
    /// `At m`
    fn output<L: Lanes>(m: [L; N]) -> [L; M];
    /// `G g`
    fn weights<L: Lanes>(g: [L; 3]) -> [L; W];
}

/// `F(2x2, 3x3)`.
pub(super) struct F2;

impl Transform<4, 2, 4> for F2 {
    const STRIDE: usize = 1;

    #[inline(always)]
    fn input<L: Lanes>(d: [L; 4]) -> [L; 4] {
        [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[3].sub(d[1])]
    }

    #[inline(always)]
    fn output<L: Lanes>(m: [L; 4]) -> [L; 2] {
        [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).add(m[3])]
    }

    #[inline(always)]
    fn weights<L: Lanes>(g: [L; 3]) -> [L; 4] {
        let half = g[0].like(0.5);
        let (even, odd) = (g[0].add(g[2]).mul(half), g[1].mul(half));
        [g[0], even.add(odd), even.sub(odd), g[2]]
    }
}

/// `F(4x4, 3x3)`.
pub(super) struct F4;

impl F4 {
    /// The smaller point.
    const A: f64 = FRAC_1_SQRT_2;
    /// The larger point; the product of the two is 1, the squares are 1/2 and 2.
    const B: f64 = SQRT_2;
}

impl Transform<6, 4, 6> for F4 {
    const STRIDE: usize = 1;

    #[inline(always)]
    fn input<L: Lanes>(d: [L; 6]) -> [L; 6] {
        let n = |x: f64| d[0].like(x as f32);
        let sum = n(-2.5);
        let even_a = d[2].mul_add(n(-2.0), d[4]);
        let odd_a = d[1].mul_add(n(-2.0), d[3]);
        let even_b = d[2].mul_add(n(-0.5), d[4]);
        let odd_b = d[1].mul_add(n(-0.5), d[3]);
        [
            d[2].mul_add(sum, d[0].add(d[4])),
            odd_a.mul_add(n(Self::A), even_a),
            odd_a.mul_add(n(-Self::A), even_a),
            odd_b.mul_add(n(Self::B), even_b),
            odd_b.mul_add(n(-Self::B), even_b),
            d[3].mul_add(sum, d[1].add(d[5])),
        ]
    }

    #[inline(always)]
    fn output<L: Lanes>(m: [L; 6]) -> [L; 4] {
        let n = |x: f64| m[0].like(x as f32);
        let (sum_a, difference_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum_b, difference_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum_a).add(sum_b),
            difference_b.mul_add(n(Self::B), difference_a.mul(n(Self::A))),
            sum_b.mul_add(n(2.0), sum_a.mul(n(0.5))),
            difference_b.mul_add(n(2.0 * Self::B), difference_a.mul_add(n(0.5 * Self::A), m[5])),
        ]
    }

    #[inline(always)]
    fn weights<L: Lanes>(g: [L; 3]) -> [L; 6] {
        let n = |x: f64| g[0].like(x as f32);
        let even_a = g[2].mul_add(n(-1.0 / 3.0), g[0].mul(n(-2.0 / 3.0)));
        let even_b = g[2].mul_add(n(1.0 / 3.0), g[0].mul(n(1.0 / 6.0)));
        let (odd_a, odd_b) = (n(-2.0 / 3.0 * Self::A), n(Self::B / 6.0));
        let (minus_a, minus_b) = (n(2.0 / 3.0 * Self::A), n(-Self::B / 6.0));
        [
            g[0],
            g[1].mul_add(odd_a, even_a),
            g[1].mul_add(minus_a, even_a),
            g[1].mul_add(odd_b, even_b),
            g[1].mul_add(minus_b, even_b),
            g[2],
        ]
    }
}

/// `F(5x5, 3x3)`.
pub(super) struct F5;

impl F5 {
    /// The positive points.
    const POINTS: [f64; 3] = [0.6, 1.15, 3.2];

    /// The square of a point, and those of the other two.
    const fn squares(pair: usize) -> [f64; 3] {
        let [p, q, r] = [Self::POINTS[pair], Self::POINTS[(pair + 1) % 3], Self::POINTS[(pair + 2) % 3]];
        [p * p, q * q, r * r]
    }

    /// The weights at a point and at its negative. A closure would not be inlined, and calls would take the time.
    #[inline(always)]
    fn pair<L: Lanes>(g: [L; 3], pair: usize) -> [L; 2] {
        let ([p, q, r], point) = (Self::squares(pair), Self::POINTS[pair]);
        let factor = 0.5 / (p * (p - q) * (p - r));
        let [outer, middle, inner] = [p * factor, point * factor, factor].map(|x| x as f32);
        let even = g[2].mul_add(g[0].like(outer), g[0].mul(g[0].like(inner)));
        [g[1].mul_add(g[0].like(middle), even), g[1].mul_add(g[0].like(-middle), even)]
    }
}

impl Transform<7, 5, 7> for F5 {
    const STRIDE: usize = 1;

    #[inline(always)]
    fn input<L: Lanes>(d: [L; 7]) -> [L; 7] {
        let n = |x: f64| d[0].like(x as f32);
        let [a, b, c] = Self::squares(0);
        let all = a * b * c;
        let zero = d[4].mul_add(n((a + b + c) / all), d[2].mul_add(n(-(a * b + b * c + c * a) / all), d[0]));
        let pair = |pair: usize| {
            let ([_, q, r], point) = (Self::squares(pair), Self::POINTS[pair]);
            let even = d[2].mul_add(n(q * r), d[4].mul_add(n(-(q + r)), d[6]));
            let odd = d[1].mul_add(n(q * r), d[3].mul_add(n(-(q + r)), d[5]));
            [odd.mul_add(n(point), even), odd.mul_add(n(-point), even)]
        };
        let ([a, minus_a], [b, minus_b], [c, minus_c]) = (pair(0), pair(1), pair(2));
        [d[6].mul_add(n(-1.0 / all), zero), a, minus_a, b, minus_b, c, minus_c]
    }

    #[inline(always)]
    fn output<L: Lanes>(m: [L; 7]) -> [L; 5] {
        let sums = [m[1].add(m[2]), m[3].add(m[4]), m[5].add(m[6])];
        let differences = [m[1].sub(m[2]), m[3].sub(m[4]), m[5].sub(m[6])];
        let mut out = [m[0].add(sums[0]).add(sums[1]).add(sums[2]); 5];
        let mut powers = Self::POINTS;
        for (power, out) in out.iter_mut().enumerate().skip(1) {
            let [a, b, c] = if power % 2 == 0 { sums } else { differences };
            let [factor_a, factor_b, factor_c] = powers.map(|x| m[0].like(x as f32));
            *out = c.mul_add(factor_c, b.mul_add(factor_b, a.mul(factor_a)));
            powers = [0, 1, 2].map(|pair| powers[pair] * Self::POINTS[pair]);
        }
        out
    }

    #[inline(always)]
    fn weights<L: Lanes>(g: [L; 3]) -> [L; 7] {
        let ([a, minus_a], [b, minus_b], [c, minus_c]) = (Self::pair(g, 0), Self::pair(g, 1), Self::pair(g, 2));
        [g[0], a, minus_a, b, minus_b, c, minus_c]
    }
}

/// `F(2x2, 3x3)` at stride 2.
pub(super) struct F2Stride2;

impl Transform<5, 2, 4> for F2Stride2 {
    const STRIDE: usize = 2;

    #[inline(always)]
    fn input<L: Lanes>(d: [L; 5]) -> [L; 5] {
        [d[2].add(d[0]), d[2].sub(d[0]), d[4].sub(d[0]), d[1], d[3]]
    }

    #[inline(always)]
    fn output<L: Lanes>(m: [L; 5]) -> [L; 2] {
        [m[0].add(m[1]).add(m[3]), m[0].sub(m[1]).add(m[2]).add(m[4])]
    }

    #[inline(always)]
    fn weights<L: Lanes>(g: [L; 3]) -> [L; 4] {
        let half = g[0].like(0.5);
        [g[2].add(g[0]).mul(half), g[2].sub(g[0]).mul(half), g[2], g[1]]
    }
}

/// `F(4x4, 3x3)` at stride 2.
pub(super) struct F4Stride2;

impl Transform<9, 4, 6> for F4Stride2 {
    const STRIDE: usize = 2;

    #[inline(always)]
    fn input<L: Lanes>(d: [L; 9]) -> [L; 9] {
        let n = |x: f32| d[0].like(x);
        let (odd_a, even_a) = (d[6].sub(d[2]), d[4].sub(d[0]));
        let (odd_b, even_b) = (d[2].mul_add(n(-0.25), d[6]), d[0].mul_add(n(-0.25), d[4]));
        [
            even_a.mul_add(n(0.5), odd_a),
            even_a.mul_add(n(-0.5), odd_a),
            odd_b.add(even_b),
            odd_b.sub(even_b),
            d[4].mul_add(n(-1.25), d[0].mul_add(n(0.25), d[8])),
            d[1],
            d[3],
            d[5],
            d[7],
        ]
    }

    #[inline(always)]
    fn output<L: Lanes>(m: [L; 9]) -> [L; 4] {
        let n = |x: f32| m[0].like(x);
        let (sum_a, difference_a) = (m[0].add(m[1]), m[0].sub(m[1]));
        let (sum_b, difference_b) = (m[2].add(m[3]), m[2].sub(m[3]));
        [
            sum_a.add(sum_b).add(m[5]),
            difference_a.mul_add(n(0.5), difference_b.add(m[6])),
            sum_a.mul_add(n(0.25), sum_b.add(m[7])),
            difference_a.mul_add(n(0.125), difference_b.add(m[4])).add(m[8]),
        ]
    }

    #[inline(always)]
    fn weights<L: Lanes>(g: [L; 3]) -> [L; 6] {
        let n = |x: f64| g[0].like(x as f32);
        let (whole, half) = (g[2].mul(n(2.0 / 3.0)), g[2].mul(n(-2.0 / 3.0)));
        [
            g[0].mul_add(n(-4.0 / 3.0), half),
            g[0].mul_add(n(4.0 / 3.0), half),
            g[0].mul_add(n(2.0 / 3.0), whole),
            g[0].mul_add(n(-2.0 / 3.0), whole),
            g[2],
            g[1],
        ]
    }
}

/// Kernels to transform.
pub(super) struct WeightTile {
    /// `9 * channels` rows of `width` filters, in f32 or f16: the taps of each channel in turn.
    pub kernels: *const u8,
    pub half: bool,
    pub channels: usize,
    /// A multiple of [`gemm::Variant::lanes`](crate::gemm::Variant::lanes).
    pub width: usize,
    /// The first of `W * W` matrices of `channels` rows of `width` filters.
    pub out: *mut f32,
    /// Elements from one matrix to the next.
    pub stride: usize,
}

/// A window to transform.
pub(super) struct InputTile {
    /// `N * N` pointers to the `channels` elements of a pixel, row by row.
    pub pixels: *const *const f32,
    pub channels: usize,
    /// The elements of the first point, with space for whole registers.
    pub out: *mut f32,
    /// Elements from one point to the next.
    pub stride: usize,
}

/// Sums to transform, and the destination of the outputs.
pub(super) struct OutputTile {
    /// The elements of the first point.
    pub sums: *const f32,
    /// Elements from one point to the next.
    pub stride: usize,
    pub channels: usize,
    /// The first channel of the first output pixel; the same for the tail's bias and residual.
    pub out: *mut f32,
    /// Elements from one output row, or pixel, to the next.
    pub row_stride: usize,
    pub pixel_stride: usize,
    /// Output rows and columns of the tile that exist.
    pub rows: usize,
    pub columns: usize,
    pub tail: Tail,
}

/// Transforms kernels: `G g Gt`.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them; the pointers are valid as documented on the
/// fields; the tile's width is a multiple of `L`'s.
#[cfg(feature = "foreign")]
#[inline(always)]
pub(super) unsafe fn weights<L: Lanes, F: Transform<N, M, W>, const N: usize, const M: usize, const W: usize>(
    tile: &WeightTile,
) {
    // SAFETY: guaranteed by the caller.
    unsafe { weights_of::<L, F, N, M, W>(tile, 0..tile.width) }
}

/// Transforms some of the filters of kernels.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them; the pointers are valid as documented on the
/// fields; the number of `filters` is a multiple of `L`'s width.
#[allow(clippy::needless_range_loop)] // Rows of columns.
#[inline(always)]
unsafe fn weights_of<L: Lanes, F: Transform<N, M, W>, const N: usize, const M: usize, const W: usize>(
    tile: &WeightTile,
    filters: Range<usize>,
) {
    let WeightTile { kernels, half, channels, width, stride, .. } = *tile;
    for channel in 0..channels {
        for filter in filters.clone().step_by(L::WIDTH) {
            // SAFETY: every tap and every matrix has a register's elements starting at this filter.
            unsafe {
                let mut columns = [[L::splat(0.0); W]; 3];
                for (x, column) in columns.iter_mut().enumerate() {
                    let mut taps = [L::splat(0.0); 3];
                    for (y, tap) in taps.iter_mut().enumerate() {
                        let at = (channel * 9 + y * 3 + x) * width + filter;
                        *tap = if half {
                            L::load_half(kernels.cast::<f16>().add(at))
                        } else {
                            L::load(kernels.cast::<f32>().add(at))
                        };
                    }
                    *column = F::weights(taps);
                }
                for y in 0..W {
                    let row = F::weights::<L>([columns[0][y], columns[1][y], columns[2][y]]);
                    for (x, number) in row.into_iter().enumerate() {
                        number.store(tile.out.add((y * W + x) * stride + channel * width + filter));
                    }
                }
            }
        }
    }
}

/// Transforms a window.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them; the pointers are valid as documented on the
/// fields.
#[allow(clippy::needless_range_loop)] // Columns of rows.
#[inline(always)]
pub(super) unsafe fn input<L: Lanes, F: Transform<N, M, W>, const N: usize, const M: usize, const W: usize>(
    tile: &InputTile,
) {
    for channel in (0..tile.channels).step_by(L::WIDTH) {
        let count = L::WIDTH.min(tile.channels - channel);
        // SAFETY: every pixel has `count` elements starting at this channel, and every point has space for a register.
        unsafe {
            let rows: [[L; N]; N] = std::array::from_fn(|y| {
                F::input(std::array::from_fn(|x| {
                    let from = (*tile.pixels.add(y * N + x)).add(channel);
                    if count == L::WIDTH { L::load(from) } else { L::load_first(from, count) }
                }))
            });
            for x in 0..N {
                let column = F::input::<L>(std::array::from_fn(|y| rows[y][x]));
                for (y, number) in column.into_iter().enumerate() {
                    number.store(tile.out.add((y * N + x) * tile.stride + channel));
                }
            }
        }
    }
}

/// Transforms sums and stores the outputs.
///
/// # Safety
/// As for [`input`].
#[allow(clippy::needless_range_loop)] // Rows of columns.
#[inline(always)]
pub(super) unsafe fn output<L: Lanes, F: Transform<N, M, W>, const N: usize, const M: usize, const W: usize>(
    tile: &OutputTile,
) {
    for channel in (0..tile.channels).step_by(L::WIDTH) {
        let count = L::WIDTH.min(tile.channels - channel);
        // SAFETY: every point, output pixel, residual and the bias have `count` elements starting at this channel.
        unsafe {
            let load = |from: *const f32| if count == L::WIDTH { L::load(from) } else { L::load_first(from, count) };
            let bias = if tile.tail.bias.is_null() { L::splat(0.0) } else { load(tile.tail.bias.add(channel)) };
            let columns: [[L; M]; N] = std::array::from_fn(|x| {
                F::output(std::array::from_fn(|y| load(tile.sums.add((y * N + x) * tile.stride + channel))))
            });
            for y in 0..tile.rows {
                let row = F::output::<L>(std::array::from_fn(|x| columns[x][y]));
                for (x, sum) in row.into_iter().enumerate() {
                    if x < tile.columns {
                        let at = y * tile.row_stride + x * tile.pixel_stride + channel;
                        let result = tile.tail.apply(sum.add(bias), || load(tile.tail.residual.add(at)));
                        let to = tile.out.add(at);
                        if count == L::WIDTH { result.store(to) } else { result.store_first(to, count) }
                    }
                }
            }
        }
    }
}

/// The three functions for an instruction set: its features and registers, and the registers that the products pad
/// filters to, if they are narrower.
macro_rules! instruction_set {
    ($(#[$cfg:meta])* $name:ident $($features:literal)? $lanes:path $(, $narrow:path)?) => {
        $(#[$cfg])*
        pub(super) mod $name {
            use super::{InputTile, Lanes, OutputTile, Transform, WeightTile};

            /// # Safety
            /// The CPU has the instruction set; the pointers are valid as documented on the fields.
            $(#[target_feature(enable = $features)])?
            pub(in super::super) unsafe fn weights<F, const N: usize, const M: usize, const W: usize>(tile: &WeightTile)
            where
                F: Transform<N, M, W>,
            {
                let whole = tile.width / <$lanes as Lanes>::WIDTH * <$lanes as Lanes>::WIDTH;
                // SAFETY: guaranteed by the caller; the instruction set is enabled here.
                unsafe { super::weights_of::<$lanes, F, N, M, W>(tile, 0..whole) }
                $(
                    // SAFETY: guaranteed by the caller, and the rest is a multiple of these registers.
                    unsafe { super::weights_of::<$narrow, F, N, M, W>(tile, whole..tile.width) }
                )?
            }

            /// # Safety
            /// As for [`super::input`]; the CPU has the instruction set.
            $(#[target_feature(enable = $features)])?
            pub(in super::super) unsafe fn input<F, const N: usize, const M: usize, const W: usize>(tile: &InputTile)
            where
                F: Transform<N, M, W>,
            {
                // SAFETY: guaranteed by the caller; the instruction set is enabled here.
                unsafe { super::input::<$lanes, F, N, M, W>(tile) }
            }

            /// # Safety
            /// As for [`super::input`]; the CPU has the instruction set.
            $(#[target_feature(enable = $features)])?
            pub(in super::super) unsafe fn output<F, const N: usize, const M: usize, const W: usize>(tile: &OutputTile)
            where
                F: Transform<N, M, W>,
            {
                // SAFETY: guaranteed by the caller; the instruction set is enabled here.
                unsafe { super::output::<$lanes, F, N, M, W>(tile) }
            }
        }
    };
}

instruction_set!(#[cfg(target_arch = "x86_64")] avx2 "avx2,fma,f16c" crate::lanes::avx2::F32x8);
instruction_set!(
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    avx512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c" crate::lanes::avx512::F32x16,
    crate::lanes::avx2::F32x8
);
instruction_set!(#[cfg(target_arch = "aarch64")] neon "neon" crate::lanes::neon::F32x4);
instruction_set!(#[cfg(target_arch = "arm")] neon32 crate::lanes::neon32::F32x4);

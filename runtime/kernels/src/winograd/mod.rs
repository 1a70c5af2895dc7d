//! Winograd convolution: 3x3 kernels at stride 1 with fewer multiplications.
//!
//! `Y = At [ sum over channels of (G g Gt) * (Bt d B) ] A`
//!
//! for every tile of `M x M` outputs, where `d` is the `N x N` window of the input below it (`N = M + 2`), `g` the
//! kernel, and `*` multiplies number by number (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2016). Each of the `N * N` points is a matrix product of tiles by channels, which the [`gemm`] family
//! computes: 2.25 times fewer multiply-adds for `M = 2`, 4 times fewer for `M = 4`. The transformed weights are
//! 16/9 and 4 times as large as the kernels, so whoever counts bytes goes without, and a layer of few pixels and many
//! channels may be bound by reading them.
//!
//! Tiles are worked on in blocks whose transforms stay in the second-level cache.

mod blocks;
mod transform;

use crate::conv::{ConvShape, product};
use crate::epilogue::Epilogue;
use crate::gemm;
use crate::isa::Isa;
use crate::threads::Pool;
use blocks::{Product, Split};
use transform::{F2, F4, InputTile, OutputTile, Transform};

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it: `winograd_f<outputs>_<isa>`.
    pub name: &'static str,
    /// Instruction set it needs.
    pub isa: Isa,
    /// Outputs along a side of a tile.
    outputs: usize,
    /// The variant of [`gemm`] for the products.
    gemm: &'static str,
    input: unsafe fn(&InputTile),
    output: unsafe fn(&OutputTile),
    /// The transformed number at a point of a kernel given row by row.
    weight: fn(usize, &[f64; 9]) -> f64,
}

/// Every variant of this build.
pub static VARIANTS: &[Variant] = &[
    #[cfg(target_arch = "x86_64")]
    Variant {
        name: "winograd_f2_avx512",
        isa: Isa::Avx512,
        outputs: 2,
        gemm: "gemm_f32_12x32_avx512",
        input: transform::avx512::input::<F2, 4, 2>,
        output: transform::avx512::output::<F2, 4, 2>,
        weight: F2::weight,
    },
    #[cfg(target_arch = "x86_64")]
    Variant {
        name: "winograd_f4_avx512",
        isa: Isa::Avx512,
        outputs: 4,
        gemm: "gemm_f32_12x32_avx512",
        input: transform::avx512::input::<F4, 6, 4>,
        output: transform::avx512::output::<F4, 6, 4>,
        weight: F4::weight,
    },
    #[cfg(target_arch = "x86_64")]
    Variant {
        name: "winograd_f2_avx2",
        isa: Isa::Avx2,
        outputs: 2,
        gemm: "gemm_f32_6x16_avx2",
        input: transform::avx2::input::<F2, 4, 2>,
        output: transform::avx2::output::<F2, 4, 2>,
        weight: F2::weight,
    },
    #[cfg(target_arch = "x86_64")]
    Variant {
        name: "winograd_f4_avx2",
        isa: Isa::Avx2,
        outputs: 4,
        gemm: "gemm_f32_6x16_avx2",
        input: transform::avx2::input::<F4, 6, 4>,
        output: transform::avx2::output::<F4, 6, 4>,
        weight: F4::weight,
    },
    #[cfg(target_arch = "aarch64")]
    Variant {
        name: "winograd_f2_neon",
        isa: Isa::Neon,
        outputs: 2,
        gemm: "gemm_f32_8x8_neon",
        input: transform::neon::input::<F2, 4, 2>,
        output: transform::neon::output::<F2, 4, 2>,
        weight: F2::weight,
    },
    #[cfg(target_arch = "aarch64")]
    Variant {
        name: "winograd_f4_neon",
        isa: Isa::Neon,
        outputs: 4,
        gemm: "gemm_f32_8x8_neon",
        input: transform::neon::input::<F4, 6, 4>,
        output: transform::neon::output::<F4, 6, 4>,
        weight: F4::weight,
    },
];

impl Variant {
    /// Points of a tile.
    fn points(&self) -> usize {
        (self.outputs + 2) * (self.outputs + 2)
    }

    /// Outputs along a side of a tile.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    fn gemm(&self) -> &'static gemm::Variant {
        gemm::by_name(self.gemm).expect("the table of gemm holds the variants that this one names")
    }

    /// Tiles of all images.
    fn tiles(&self, shape: &ConvShape) -> usize {
        product(&[shape.batch, shape.out_h.div_ceil(self.outputs), shape.out_w.div_ceil(self.outputs)])
    }

    /// Time by the model of [`gemm::Variant::cost`]: the products, but no faster than the weights arrive, and the
    /// transforms.
    fn cost(&self, shape: &ConvShape) -> f64 {
        let split = Split::new(self, shape, 1);
        let lanes = self.gemm().lanes;
        let registers = |channels: usize| channels.div_ceil(lanes) as f64;
        let (inputs, outputs) = (registers(shape.in_c), registers(shape.out_c));
        let bytes = packed_len(self, shape) * size_of::<f32>();
        // Multiply-adds that could start while a register of weights comes from where that many bytes stay.
        let arrival = match bytes {
            0..0x8_0000 => 1.0,
            0x8_0000..0x100_0000 => 5.0,
            _ => 12.0,
        };
        let product = self.gemm().cost(split.tiles_per_block(), shape.in_c, shape.out_c);
        let product = product.max(arrival * shape.in_c as f64 * outputs);
        // Of a register: loads, stores, and as many additions as each side's transform has.
        let transforms = match self.outputs {
            2 => 64.0 * inputs + 56.0 * outputs,
            _ => 250.0 * inputs + 220.0 * outputs,
        };
        product * (split.blocks() * self.points()) as f64 + transforms * self.tiles(shape) as f64
    }
}

/// The fastest variant of `isa` for this shape, if one takes it and beats the [`gemm`] variant `direct` by the model
/// of costs.
pub fn choose(isa: Isa, shape: &ConvShape, direct: &gemm::Variant) -> Option<&'static Variant> {
    if !takes(shape) {
        return None;
    }
    let direct = direct.cost(shape.pixels(), product(&[shape.taps(), shape.in_c]), shape.out_c);
    let variants = VARIANTS.iter().filter(|v| v.isa == isa).map(|v| (v, v.cost(shape)));
    let (best, cost) = variants.min_by(|a, b| a.1.total_cmp(&b.1))?;
    (cost < direct).then_some(best)
}

/// The variant of this name.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name)
}

/// Whether a convolution is of this family.
pub fn takes(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3] && shape.stride == [1, 1] && shape.dilation == [1, 1] && shape.groups == 1
}

/// Numbers that [`pack`] writes.
pub fn packed_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[v.points(), gemm::packed_len(v.gemm(), shape.in_c, shape.out_c)])
}

/// Transforms the weights `[out_c, in_c, 3, 3]` and packs them: a matrix for the [`gemm`] family for each point.
///
/// # Panics
/// If the lengths are not those of `shape`.
pub fn pack(v: &Variant, shape: &ConvShape, oihw: &[f32], out: &mut [f32]) {
    assert!(takes(shape), "a 3x3 kernel at stride 1");
    assert_eq!(oihw.len(), product(&[shape.out_c, shape.in_c, 9]));
    assert_eq!(out.len(), packed_len(v, shape));
    let len = out.len() / v.points();
    gemm::positions(v.gemm(), shape.in_c, shape.out_c, |at, channel, filter| {
        let kernel: [f64; 9] = match oihw.get((filter * shape.in_c + channel) * 9..) {
            Some(numbers) if filter < shape.out_c => std::array::from_fn(|i| f64::from(numbers[i])),
            _ => [0.0; 9],
        };
        for (point, to) in out[at..].iter_mut().step_by(len).enumerate() {
            *to = (v.weight)(point, &kernel) as f32;
        }
    });
}

/// Numbers of scratch that [`winograd`] wants.
pub fn scratch_len(v: &Variant, shape: &ConvShape, threads: usize) -> usize {
    Split::new(v, shape, threads).scratch_len()
}

/// A convolution that the family [`takes`].
pub struct Winograd<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// NHWC.
    pub input: &'a [f32],
    /// Weights from [`pack`].
    pub packed: &'a [f32],
    /// NHWC.
    pub out: &'a mut [f32],
    /// What is fused behind.
    pub epilogue: Epilogue<'a>,
}

/// Computes a convolution.
///
/// # Panics
/// If a slice is not as long as `shape` says, or the scratch is shorter than [`scratch_len`].
pub fn winograd(v: &Variant, args: Winograd<'_>, scratch: &mut [f32], pool: &Pool) {
    let Winograd { shape, input, packed, out, epilogue } = args;
    shape.check();
    assert!(takes(shape), "a 3x3 kernel at stride 1");
    assert!(v.isa.is_available(), "this CPU does not have {}", v.isa);
    assert_eq!(input.len(), shape.input_len(), "the input");
    assert_eq!(out.len(), shape.output_len(), "the output");
    assert_eq!(packed.len(), packed_len(v, shape), "the weights");
    epilogue.check(shape.out_c, out.len());
    if out.is_empty() {
        return;
    }
    let split = Split::new(v, shape, pool.threads());
    Product { v, gemm: v.gemm(), shape, input, packed, epilogue }.run(&split, out, scratch, pool);
}

#[cfg(test)]
mod tests;

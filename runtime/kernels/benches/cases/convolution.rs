//! The variants of the families that compute convolutions, floats and bytes, and of pooling.

use half::f16;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::conv::ConvShape;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{Packed, Weights};
use skipstone_kernels::isa::Isa;
use skipstone_kernels::pool::{ImageShape, PoolFn, PoolShape, global_pool, pool};
use skipstone_kernels::requantise::Requantise;
use skipstone_kernels::threads::Pool;
use skipstone_kernels::winograd::Storage;
use skipstone_kernels::{depthwise, gemm, qdepthwise, qgemm, stem, winograd};

use super::zoo::Shape;
use super::{Call, Case, Work, bytes, numbers};

/// A variant.
#[derive(Clone, Copy)]
pub enum Kernel {
    Gemm(&'static gemm::Variant),
    Winograd(&'static winograd::Variant),
    Depthwise(&'static depthwise::Variant),
    Stem(&'static stem::Variant),
    Qgemm(&'static qgemm::Variant),
    Qdepthwise(&'static qdepthwise::Variant),
}

/// Every variant that this CPU has: those of the families' tables.
pub fn kernels() -> Vec<Kernel> {
    let gemm = gemm::VARIANTS.iter().filter(|v| v.is_available()).map(Kernel::Gemm);
    let winograd = winograd::VARIANTS.iter().filter(|v| v.isa.is_available()).map(Kernel::Winograd);
    let depthwise = depthwise::VARIANTS.iter().filter(|v| v.isa.is_available()).map(Kernel::Depthwise);
    let stem = stem::VARIANTS.iter().filter(|v| v.isa.is_available()).map(Kernel::Stem);
    let qgemm = qgemm::VARIANTS.iter().filter(|v| v.is_available()).map(Kernel::Qgemm);
    let qdepthwise = qdepthwise::VARIANTS.iter().filter(|v| v.is_available()).map(Kernel::Qdepthwise);
    winograd.chain(gemm).chain(depthwise).chain(stem).chain(qgemm).chain(qdepthwise).collect()
}

impl Kernel {
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Gemm(v) => v.name,
            Kernel::Winograd(v) => v.name,
            Kernel::Depthwise(v) => v.name,
            Kernel::Stem(v) => v.name,
            Kernel::Qgemm(v) => v.name,
            Kernel::Qdepthwise(v) => v.name,
        }
    }

    pub fn isa(self) -> Isa {
        match self {
            Kernel::Gemm(v) => v.isa,
            Kernel::Winograd(v) => v.isa,
            Kernel::Depthwise(v) => v.isa,
            Kernel::Stem(v) => v.isa,
            Kernel::Qgemm(v) => v.isa,
            Kernel::Qdepthwise(v) => v.isa,
        }
    }

    /// Whether it computes the layer and is meant to: tiles of one row are for images of few pixels, and the transforms
    /// of an image's three channels cost more than they save.
    pub fn takes(self, shape: &ConvShape) -> bool {
        let (depthwise, few) = (depthwise::takes(shape), shape.pixels() <= 8);
        match self {
            Kernel::Gemm(v) => !depthwise && (v.mr > 1 || few),
            Kernel::Winograd(v) => v.takes(shape) && shape.in_c >= 8,
            Kernel::Depthwise(_) => depthwise,
            Kernel::Stem(_) => is_stem(shape),
            Kernel::Qgemm(v) => !depthwise && (v.mr > 1 || few),
            Kernel::Qdepthwise(v) => depthwise && v.takes(shape),
        }
    }

    /// Whether the runtime takes it for the layer on a CPU of an instruction set, with weights as they are in the file and
    /// memory to spare. It may be one of a lesser set.
    pub fn is_chosen(self, isa: Isa, shape: &ConvShape) -> bool {
        let depth = shape.taps() * shape.group_in();
        let direct = gemm::choose(isa, Weights::F32, shape.pixels(), depth, shape.group_out());
        let transformed = winograd::choose(isa, shape, Storage::Transformed, direct);
        let (depthwise, plain) = (depthwise::takes(shape), !depthwise::takes(shape) && !is_stem(shape));
        match self {
            Kernel::Gemm(v) => plain && transformed.is_none() && std::ptr::eq(v, direct),
            Kernel::Winograd(v) => plain && transformed.is_some_and(|chosen| std::ptr::eq(v, chosen)),
            Kernel::Depthwise(v) => depthwise && std::ptr::eq(v, depthwise::choose(isa, shape.in_c)),
            Kernel::Stem(v) => is_stem(shape) && std::ptr::eq(v, stem::choose(isa, shape.out_c)),
            Kernel::Qgemm(v) => {
                let candidates = qgemm::candidates(isa, shape.pixels(), depth, shape.group_out());
                let cheapest = candidates.min_by(|a, b| a.1.total_cmp(&b.1));
                !depthwise && cheapest.is_some_and(|(chosen, _)| std::ptr::eq(v, chosen))
            }
            Kernel::Qdepthwise(v) => depthwise && std::ptr::eq(v, qdepthwise::choose(isa, shape)),
        }
    }

    /// A layer with bias and ReLU.
    pub fn case(self, shape: &ConvShape) -> Case {
        let s = shape.clone();
        let weights = s.out_c * s.group_in() * s.taps();
        let stored = match self {
            Kernel::Gemm(v) if v.weights == Weights::F16 => 2,
            Kernel::Winograd(v) if v.storage == Storage::Kernels(Weights::F16) => 2,
            Kernel::Qgemm(_) | Kernel::Qdepthwise(_) => 1,
            _ => 4,
        };
        let number = if matches!(self, Kernel::Qgemm(_) | Kernel::Qdepthwise(_)) { 1 } else { 4 };
        let moved = (s.input_len() + s.output_len()) * number + weights * stored;
        let work = Work::MultiplyAdds(s.output_len() * s.group_in() * s.taps());
        let layer = Shape::Convolution(s.clone()).to_string();
        Case::new(self.name(), layer, work, moved, move || match self {
            Kernel::Gemm(v) => gemm_call(v, s.clone()),
            Kernel::Winograd(v) => winograd_call(v, s.clone()),
            Kernel::Depthwise(v) => depthwise_call(v, s.clone()),
            Kernel::Stem(v) => stem_call(v, s.clone()),
            Kernel::Qgemm(v) => qgemm_call(v, s.clone()),
            Kernel::Qdepthwise(v) => qdepthwise_call(v, s.clone()),
        })
    }
}

/// Whether the runtime takes a layer for the first of a network: an image of few channels.
fn is_stem(shape: &ConvShape) -> bool {
    shape.in_c <= 4 && stem::takes(shape)
}

/// The case of a pooling, which has one kernel for each instruction set.
pub fn pooling(isa: Isa, f: PoolFn, shape: PoolShape) -> Case {
    let s = shape;
    let image = ImageShape { batch: 1, height: s.in_h, width: s.in_w, channels: s.channels };
    let global = s.kernel == [s.in_h, s.in_w];
    let (input, output) = (s.in_h * s.in_w * s.channels, s.out_h * s.out_w * s.channels);
    let name = format!("{}_{isa}", if global { "reduce" } else { "pool" });
    let layer = Shape::Pooling(f, s).to_string();
    Case::new(name, layer, Work::Numbers(input.max(output)), (input + output) * 4, move || {
        let (x, mut y, threads) = (numbers(input), AlignedVec::zeroed(output), Pool::new(1));
        match global {
            true => Box::new(move || global_pool(isa, f, image, &x, &mut y, &threads)),
            false => Box::new(move || pool(isa, f, &s, &x, &mut y, &threads)),
        }
    })
}

/// Packed weights of a variant.
pub struct Stored(AlignedVec<f32>, Option<AlignedVec<f16>>);

impl Stored {
    pub fn new(packed: AlignedVec<f32>, weights: Weights) -> Self {
        let halves = (weights == Weights::F16).then(|| {
            let mut halves = AlignedVec::zeroed(packed.len());
            gemm::halve(&packed, &mut halves);
            halves
        });
        Stored(packed, halves)
    }

    pub fn packed(&self) -> Packed<'_> {
        self.1.as_ref().map_or(Packed::F32(&self.0), |halves| Packed::F16(halves))
    }
}

/// The buffers of a layer of floats.
struct Floats {
    shape: ConvShape,
    input: AlignedVec<f32>,
    bias: AlignedVec<f32>,
    out: AlignedVec<f32>,
    pool: Pool,
}

impl Floats {
    fn new(shape: ConvShape) -> Self {
        let (input, bias) = (numbers(shape.input_len()), numbers(shape.out_c));
        let out = AlignedVec::zeroed(shape.output_len());
        Floats { shape, input, bias, out, pool: Pool::new(1) }
    }

    fn weights(&self) -> AlignedVec<f32> {
        numbers(self.shape.out_c * self.shape.group_in() * self.shape.taps())
    }
}

/// What is fused behind every layer.
pub fn epilogue(bias: &[f32]) -> Epilogue<'_> {
    Epilogue { bias: Some(bias), activation: Activation::Relu, ..Epilogue::NONE }
}

fn gemm_call(v: &'static gemm::Variant, shape: ConvShape) -> Call {
    let mut layer = Floats::new(shape);
    let mut packed = AlignedVec::zeroed(gemm::packed_conv_len(v, &layer.shape));
    gemm::pack_conv(v, &layer.shape, &layer.weights(), &mut packed);
    let weights = Stored::new(packed, v.weights);
    let mut scratch = AlignedVec::zeroed(gemm::conv_scratch(v, &layer.shape, false, 1));
    Box::new(move || {
        let Floats { shape, input, bias, out, pool } = &mut layer;
        let (packed, epilogue) = (weights.packed(), epilogue(bias));
        gemm::conv(v, gemm::Conv { shape, input, packed, out, epilogue, a_scale: None }, &mut scratch, pool);
    })
}

fn winograd_call(v: &'static winograd::Variant, shape: ConvShape) -> Call {
    let mut layer = Floats::new(shape);
    let mut packed = AlignedVec::zeroed(winograd::packed_len(v, &layer.shape));
    winograd::pack(v, &layer.shape, &layer.weights(), &mut packed);
    let weights = match v.storage {
        Storage::Transformed => Weights::F32,
        Storage::Kernels(weights) => weights,
    };
    let weights = Stored::new(packed, weights);
    let mut scratch = AlignedVec::zeroed(winograd::scratch_len(v, &layer.shape, 1));
    Box::new(move || {
        let Floats { shape, input, bias, out, pool } = &mut layer;
        let (packed, epilogue) = (weights.packed(), epilogue(bias));
        winograd::winograd(v, winograd::Winograd { shape, input, packed, out, epilogue }, &mut scratch, pool);
    })
}

fn stem_call(v: &'static stem::Variant, shape: ConvShape) -> Call {
    let (input, bias, threads) = (numbers(shape.input_len()), numbers(shape.out_c), Pool::new(1));
    let mut packed = AlignedVec::<f32>::zeroed(stem::packed_len(v, &shape));
    stem::pack(v, &shape, &numbers(shape.out_c * shape.in_c * shape.taps()), &mut packed);
    let mut out = AlignedVec::<f32>::zeroed(shape.output_len());
    Box::new(move || {
        let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::NONE };
        let args = stem::Stem { shape: &shape, input: &input, packed: &packed, out: &mut out, epilogue };
        stem::stem(v, args, &threads);
    })
}

fn depthwise_call(v: &'static depthwise::Variant, shape: ConvShape) -> Call {
    let mut layer = Floats::new(shape);
    let weights = layer.weights();
    let mut packed = AlignedVec::zeroed(weights.len());
    depthwise::pack(&layer.shape, &weights, &mut packed);
    Box::new(move || {
        let Floats { shape, input, bias, out, pool } = &mut layer;
        let (packed, epilogue) = (&*packed, epilogue(bias));
        depthwise::depthwise(v, depthwise::Depthwise { shape, input, packed, out, epilogue }, pool);
    })
}

/// The byte that stands for 0, in and out.
const ZERO: u8 = 128;

/// The buffers of a layer of bytes, with room for packed weights.
struct Bytes {
    shape: ConvShape,
    input: AlignedVec<u8>,
    weights: AlignedVec<i8>,
    offsets: AlignedVec<i32>,
    scales: AlignedVec<f32>,
    out: AlignedVec<u8>,
    scratch: AlignedVec<u8>,
    pool: Pool,
}

impl Bytes {
    /// `lens` of packed weights, offsets, scales and of scratch. Packs by `pack`, which is given weights, bias, scales
    /// and where to.
    fn new(shape: ConvShape, lens: [usize; 4], pack: impl Fn(&ConvShape, &[i8], (&[i32], &[f32]), To<'_>)) -> Self {
        let [weights, offsets, scales, scratch] = lens;
        let mut layer = Bytes {
            input: bytes(shape.input_len()),
            weights: AlignedVec::zeroed(weights),
            offsets: AlignedVec::zeroed(offsets),
            scales: AlignedVec::zeroed(scales),
            out: AlignedVec::zeroed(shape.output_len()),
            scratch: AlignedVec::zeroed(scratch),
            pool: Pool::new(1),
            shape,
        };
        let shape = &layer.shape;
        let plain: Vec<i8> =
            bytes(shape.out_c * shape.group_in() * shape.taps()).iter().map(|&byte| byte as i8).collect();
        let constants = (&*vec![0; shape.out_c], &*vec![1e-3; shape.out_c]);
        pack(shape, &plain, constants, (&mut layer.weights, &mut layer.offsets, &mut layer.scales));
        layer
    }
}

/// Where weights, offsets and scales are packed to.
type To<'a> = (&'a mut [i8], &'a mut [i32], &'a mut [f32]);

fn qgemm_call(v: &'static qgemm::Variant, shape: ConvShape) -> Call {
    let lens = [
        qgemm::weights_len(v, &shape),
        qgemm::offsets_len(v, &shape),
        qgemm::scales_len(v, &shape),
        qgemm::conv_scratch(v, &shape, 1),
    ];
    let mut layer = Bytes::new(shape, lens, |shape, weights, constants, to| {
        qgemm::pack(v, shape, weights, ZERO, constants, to);
    });
    Box::new(move || {
        let Bytes { shape, input, weights, offsets, scales, out, scratch, pool } = &mut layer;
        let packed = qgemm::Packed { weights, offsets, scales };
        let out = qgemm::Out::Bytes { to: out, by: Requantise::all(ZERO), table: None };
        qgemm::conv(v, qgemm::Conv { shape, input, zero: ZERO, packed, out }, scratch, pool);
    })
}

fn qdepthwise_call(v: &'static qdepthwise::Variant, shape: ConvShape) -> Call {
    let constants = qdepthwise::constants_len(v, &shape);
    let lens = [qdepthwise::weights_len(v, &shape), constants, constants, qdepthwise::scratch_len(&shape)];
    let mut layer = Bytes::new(shape, lens, |shape, weights, constants, to| {
        qdepthwise::pack(v, shape, weights, ZERO, constants, to);
    });
    Box::new(move || {
        let Bytes { shape, input, weights, offsets, scales, out, scratch, pool } = &mut layer;
        let packed = qgemm::Packed { weights, offsets, scales };
        let out = qgemm::Out::Bytes { to: out, by: Requantise::all(ZERO), table: None };
        qdepthwise::depthwise(v, qdepthwise::Depthwise { shape, input, zero: ZERO, packed, out }, scratch, pool);
    })
}

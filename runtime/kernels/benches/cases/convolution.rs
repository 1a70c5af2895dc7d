//! Pooling and the kernels in the tables of convolutions, for floats and for bytes.

use skipstone_kernels::activation::Activation;
use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::conv::{
    self, BYTES, ByteConv, ByteKernel, Conv, ConvShape, FLOATS, Family, Filters, FloatKernel, Images, Out, Packed,
    Task, Weights,
};
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::isa::Isa;
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::pace::Pace;
use skipstone_kernels::pool::{PoolFn, PoolShape, pool};
use skipstone_kernels::reduce::{ReduceFn, reduce};
use skipstone_kernels::requantize::Requantize;
use skipstone_kernels::sparse::BLOCK;
use skipstone_kernels::threads::Pool;
use skipstone_kernels::{depthwise, stem};

use super::zoo::LayerShape;
use super::{Case, Invocation, Work, bytes, numbers};

/// A kernel.
#[derive(Clone, Copy)]
pub enum Kernel {
    Floats(&'static dyn FloatKernel),
    Bytes(&'static dyn ByteKernel),
}

/// Every kernel of the dense families that this CPU can run. Whether a sparse kernel takes a layer depends on the
/// weights.
pub fn kernels() -> Vec<Kernel> {
    let floats = FLOATS.iter().flat_map(Family::kernels).map(Kernel::Floats);
    let bytes = BYTES.iter().flat_map(Family::kernels).map(Kernel::Bytes);
    floats.chain(bytes).filter(|kernel| kernel.base().is_available()).collect()
}

impl Kernel {
    fn base(self) -> &'static dyn conv::Kernel {
        match self {
            Kernel::Floats(kernel) => kernel,
            Kernel::Bytes(kernel) => kernel,
        }
    }

    pub fn name(self) -> &'static str {
        self.base().name()
    }

    pub fn isa(self) -> Isa {
        self.base().isa()
    }

    /// Whether the kernel computes the layer and is meant for it: tiles of one row are for images of few pixels, and
    /// Winograd transforms of an image's three channels cost more than they save.
    pub fn takes(self, shape: &ConvShape) -> bool {
        let meant = match self.name() {
            name if name.starts_with("sparse_") => false,
            name if name.starts_with("winograd_") => shape.in_c >= 8,
            name if name.contains("gemm_") && name.contains("_1x") => shape.pixels() <= 8,
            _ => true,
        };
        meant && tasks(shape).any(|task| self.base().takes(&task))
    }

    /// Whether the runtime chooses the kernel for the layer on a CPU with the instruction set, with the weight dtype of
    /// the file and memory to spare. The kernel may belong to a smaller instruction set.
    pub fn is_chosen(self, isa: Isa, shape: &ConvShape) -> bool {
        let chosen = match self {
            Kernel::Floats(_) => {
                let images =
                    if stem::takes(shape) && !depthwise::takes(shape) { Images::NchwToNhwc } else { Images::Nhwc };
                cheapest(conv::candidates(FLOATS, isa, &Task { images, ..Task::new(shape) })).map(conv::Kernel::name)
            }
            Kernel::Bytes(_) => cheapest(conv::candidates(BYTES, isa, &Task::new(shape))).map(conv::Kernel::name),
        };
        chosen == Some(self.name())
    }

    /// A layer with bias and ReLU.
    pub fn case(self, shape: &ConvShape) -> Case {
        let s = shape.clone();
        let weights = s.out_c * s.group_in() * s.taps();
        let (number, stored) = match self {
            Kernel::Floats(kernel) => {
                let halves = tasks(shape).any(|task| task.weights == Weights::F16 && kernel.takes(&task));
                let floats = tasks(shape).any(|task| task.weights == Weights::F32 && kernel.takes(&task));
                (4, if halves && !floats { 2 } else { 4 })
            }
            Kernel::Bytes(_) => (1, 1),
        };
        let moved = (s.input_len() + s.output_len()) * number + weights * stored;
        let work = Work::MultiplyAdds(s.output_len() * s.group_in() * s.taps());
        let layer = LayerShape::Convolution(s.clone()).to_string();
        Case::new(self.name(), layer, work, moved, move || match self {
            Kernel::Floats(kernel) => float_call(kernel, s.clone(), 100),
            Kernel::Bytes(kernel) => byte_call(kernel, s.clone()),
        })
    }
}

/// A layer in which `percent` of the weights are nonzero, for every sparse kernel of this CPU that takes it in NCHW.
pub fn sparse(shape: &ConvShape, percent: usize) -> impl Iterator<Item = (Isa, Case)> + use<> {
    let kernels = FLOATS.iter().filter(|family| family.name == "sparse").flat_map(Family::kernels);
    let task = Task { images: Images::Nchw, are_halves: true, ..Task::new(shape) };
    let kernels: Vec<_> = kernels.filter(|kernel| kernel.is_available() && kernel.takes(&task)).collect();
    let s = shape.clone();
    kernels.into_iter().map(move |kernel| {
        let block = block(kernel);
        let stored = nonzeros(&thinned(&s, percent, block));
        let pattern = if block > 1 { format!(" in blocks of {block}x1") } else { String::new() };
        let layer = format!("{}, {percent} %{pattern}", LayerShape::Convolution(s.clone()));
        let moved = (s.input_len() + s.output_len()) * 4 + kernel.packed_len(&s, stored);
        let work = Work::MultiplyAdds(stored * s.pixels());
        let shape = s.clone();
        (kernel.isa(), Case::new(kernel.name(), layer, work, moved, move || float_call(kernel, shape.clone(), percent)))
    })
}

/// Consecutive filters whose weights a kernel stores together.
fn block(kernel: &dyn FloatKernel) -> usize {
    if kernel.name().starts_with("sparse_4x1") { BLOCK } else { 1 }
}

/// Random weights, of which `percent` are nonzero: those of a channel for `block` consecutive filters, or none.
fn thinned(shape: &ConvShape, percent: usize, block: usize) -> AlignedVec<f32> {
    let of_filter = shape.group_in() * shape.taps();
    let mut weights = numbers(shape.out_c * of_filter);
    let chances = bytes(weights.len());
    for (at, weight) in weights.iter_mut().enumerate() {
        let chance = chances[at / of_filter / block * of_filter + at % of_filter];
        if usize::from(chance) * 100 >= percent * 256 {
            *weight = 0.0;
        }
    }
    weights
}

fn nonzeros(weights: &[f32]) -> usize {
    weights.iter().filter(|&&weight| weight != 0.0).count()
}

/// The layer in every image layout, with every weight dtype.
fn tasks(shape: &ConvShape) -> impl Iterator<Item = Task<'_>> {
    let images = [Images::Nhwc, Images::NchwToNhwc, Images::Nchw].into_iter();
    let stored = || [(Weights::F32, true), (Weights::F32, false), (Weights::F16, false)].into_iter();
    images.flat_map(move |images| {
        stored().map(move |(weights, spacious)| Task { images, weights, spacious, ..Task::new(shape) })
    })
}

fn cheapest<K: ?Sized>(candidates: Vec<(&'static K, f64)>) -> Option<&'static K> {
    candidates.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(kernel, _)| kernel)
}

/// The case of a pooling layer, which has one kernel for each instruction set; global pooling is a reduction.
pub fn pooling(isa: Isa, f: PoolFn, shape: PoolShape) -> Case {
    let s = shape;
    let image = MiddleAxis { outer: 1, axis: s.in_h * s.in_w, inner: s.channels };
    let reduction = if f == PoolFn::Max { ReduceFn::Max } else { ReduceFn::Mean };
    let global = s.kernel == [s.in_h, s.in_w];
    let (input, output) = (s.in_h * s.in_w * s.channels, s.out_h * s.out_w * s.channels);
    let name = format!("{}_{isa}", if global { "reduce" } else { "pool" });
    let layer = LayerShape::Pooling(f, s).to_string();
    Case::new(name, layer, Work::Elements(input.max(output)), (input + output) * 4, move || {
        let (x, mut y, threads) = (numbers(input), AlignedVec::zeroed(output), Pool::new(1));
        match global {
            true => Box::new(move || reduce(isa, reduction, image, &x, &mut y, &threads)),
            false => Box::new(move || pool(isa, f, &s, &x, &mut y, &threads)),
        }
    })
}

/// The epilogue of every layer.
pub fn epilogue(bias: &[f32]) -> Epilogue<'_> {
    Epilogue { bias: Some(bias), activation: Activation::Relu, ..Epilogue::NONE }
}

fn float_call(kernel: &'static dyn FloatKernel, shape: ConvShape, percent: usize) -> Invocation {
    let weights = thinned(&shape, percent, block(kernel));
    let mut packed = AlignedVec::<u8>::zeroed(kernel.packed_len(&shape, nonzeros(&weights)));
    kernel.pack(&shape, Filters::Oihw(&weights), &mut packed, &Pace::free()).expect("memory");
    let (input, bias, pool) = (numbers(shape.input_len()), numbers(shape.out_c), Pool::new(1));
    let mut out = AlignedVec::<f32>::zeroed(shape.output_len());
    let mut scratch = AlignedVec::zeroed(kernel.scratch_len(&shape, false, 1));
    Box::new(move || {
        let (packed, out, epilogue) = (&*packed, &mut *out, epilogue(&bias));
        kernel.run(Conv { shape: &shape, input: &input, packed, out, epilogue, scale: None }, &mut scratch, &pool);
    })
}

/// The zero point of input and output.
const ZERO: u8 = 128;

fn byte_call(kernel: &'static dyn ByteKernel, shape: ConvShape) -> Invocation {
    let plain: Vec<i8> = bytes(shape.out_c * shape.group_in() * shape.taps()).iter().map(|&byte| byte as i8).collect();
    let [weights, offsets, scales] = kernel.packed_lens(&shape);
    let (mut weights, mut offsets) = (AlignedVec::zeroed(weights), AlignedVec::zeroed(offsets));
    let mut scales = AlignedVec::zeroed(scales);
    let constants = (&*vec![0; shape.out_c], &*vec![1e-3; shape.out_c]);
    kernel.pack(&shape, &plain, ZERO, constants, (&mut weights, &mut offsets, &mut scales));
    let (input, pool) = (bytes(shape.input_len()), Pool::new(1));
    let mut out = AlignedVec::zeroed(shape.output_len());
    let mut scratch = AlignedVec::zeroed(kernel.scratch_len(&shape, 1));
    Box::new(move || {
        let packed = Packed { weights: &weights, offsets: &offsets, scales: &scales };
        let out = Out::Bytes { to: &mut out, by: Requantize::all(ZERO), table: None };
        kernel.run(ByteConv { shape: &shape, input: &input, zero: ZERO, packed, out }, &mut scratch, &pool);
    })
}

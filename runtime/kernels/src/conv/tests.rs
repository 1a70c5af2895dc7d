//! Tests every kernel of the tables, using only the contract, against the definition of the convolution.

use proptest::prelude::*;

use super::*;
use crate::activation::Activation;
use crate::arena::AlignedVec;
use crate::epilogue::Affine;
use crate::gemm;
use crate::gemm::tests::{assert_close, definition, halves, numbers};
use crate::guard::{Edge, Guarded};
use crate::isa::Extension;

/// Converts images between NHWC and NCHW.
fn turned(image: &[f32], [batch, pixels, channels]: [usize; 3], to_planes: bool) -> Vec<f32> {
    let at = |i: usize| {
        let (rest, per_image) = (i % (pixels * channels).max(1), pixels * channels);
        let (outer, inner) =
            if to_planes { (rest / pixels, rest % pixels) } else { (rest / channels, rest % channels) };
        let (pixel, channel) = if to_planes { (inner, outer) } else { (outer, inner) };
        let from = if to_planes { pixel * channels + channel } else { channel * pixels + pixel };
        image[i / per_image * per_image + from]
    };
    (0..batch * pixels * channels).map(at).collect()
}

/// All kinds of convolutions: kernels of one tap, of 3x3 and of any size; one group, two, many small ones, and one per
/// channel.
fn shapes() -> impl Strategy<Value = ConvShape> {
    let sizes = (1usize..3, 1usize..16, 1usize..16, 1usize..24, 1usize..40);
    let window = (0usize..4, prop::array::uniform2(1usize..5), prop::array::uniform2(1usize..3), 0usize..3);
    (sizes, window, 0usize..5).prop_filter_map("no output", |(sizes, (kind, kernel, stride, pad), grouping)| {
        let (batch, in_h, in_w, in_c, out_c) = sizes;
        let (kernel, stride, pad) = match kind {
            0 => ([1, 1], [1, 1], 0),
            1 => ([3, 3], [stride[0]; 2], 1),
            _ => (kernel, stride, pad),
        };
        let (groups, in_c, out_c) = match grouping {
            0 => (in_c, in_c, in_c),
            1 => (2, in_c.next_multiple_of(2), out_c.next_multiple_of(2)),
            2 => (in_h + 1, (in_h + 1) * (in_c % 6 + 1), (in_h + 1) * (out_c % 9 + 1)),
            _ => (1, in_c, out_c),
        };
        let out =
            |len: usize, axis: usize| (len + 2 * pad).checked_sub(kernel[axis]).map(|free| free / stride[axis] + 1);
        let (out_h, out_w) = (out(in_h, 0)?, out(in_w, 1)?);
        let (dilation, pad_top, pad_left) = ([1; 2], pad, pad);
        Some(ConvShape {
            batch,
            in_h,
            in_w,
            in_c,
            out_h,
            out_w,
            out_c,
            kernel,
            stride,
            dilation,
            pad_top,
            pad_left,
            groups,
        })
    })
}

/// Whether it rounds intermediate results to half precision, so that its sums are only approximate.
fn rounds(kernel: &dyn FloatKernel) -> bool {
    gemm::by_name(kernel.name()).is_some_and(|v| v.extension == Extension::Fp16)
}

/// Weights packed some filters at a time.
fn packed_by_parts(kernel: &dyn FloatKernel, shape: &ConvShape, w: &[f32], part: usize, nonzeros: usize) -> Vec<u8> {
    let filter_len = (shape.group_in() * shape.taps()).max(1);
    let mut all = Vec::new();
    for filters in w.chunks(part * filter_len) {
        let shape = ConvShape { out_c: filters.len() / filter_len, ..shape.clone() };
        let mut packed = AlignedVec::zeroed(kernel.packed_len(&shape, nonzeros));
        kernel.pack(&shape, Filters::Oihw(filters), &mut packed, &Pace::free()).unwrap();
        all.extend_from_slice(&packed);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn floats_keep_the_contract(shape in shapes(), images in 0usize..3, flags in 0u32..256, zeros in 0usize..11, threads in 1usize..3) {
        let edge = Edge::BOTH[usize::from(flags & 1 > 0)];
        let images = [Images::Nhwc, Images::NchwToNhwc, Images::Nchw][images];
        let weights = [Weights::F32, Weights::F16][flags as usize / 4 % 2];
        let scaled = flags & 8 > 0 && images != Images::NchwToNhwc;
        let mut w = halves(2, shape.out_c * shape.group_in() * shape.taps());
        w.iter_mut().enumerate().filter(|(i, _)| i * 7 % 10 < zeros).for_each(|(_, w)| *w = 0.0);
        let nonzeros = w.iter().filter(|&&w| w != 0.0).count();
        let of_filter = shape.group_in() * shape.taps();
        let any = |group: &[f32]| (0..of_filter).filter(|at| group.iter().skip(*at).step_by(of_filter).any(|&w| w != 0.0)).count();
        let blocks = w.chunks(BLOCK * of_filter).map(any).sum();
        let affine = flags & 32 > 0;
        let task = Task { images, weights, nonzeros, blocks, scaled, affine, spacious: flags & 16 > 0, ..Task::new(&shape) };
        let x = numbers(1, shape.input_len());
        let (bias, scale) = (numbers(3, shape.out_c), numbers(4, shape.batch * shape.in_c));
        let (factors, shift) = (numbers(5, shape.out_c), numbers(6, shape.out_c));
        let activation = [Activation::Relu, Activation::Relu, Activation::None, Activation::Gelu][flags as usize / 64];
        let affine = affine.then_some(Affine { scale: &factors, shift: &shift });
        let epilogue = Epilogue { bias: Some(&bias), activation, affine, ..Epilogue::NONE };
        let scale = scaled.then_some(&*scale);
        let want = definition(&shape, &x, &w, scale, &epilogue);
        let planes_in = images != Images::Nhwc;
        let pixels = shape.in_h * shape.in_w;
        let input = if planes_in { turned(&x, [shape.batch, pixels, shape.in_c], true) } else { x };
        let input = Guarded::new(&input, edge);
        let pool = Pool::new(threads);
        let kernels = FLOATS.iter().flat_map(Family::kernels);
        for kernel in kernels.filter(|kernel| kernel.is_available() && kernel.takes(&task) && !rounds(*kernel)) {
            let len = kernel.packed_len(&shape, kernel.stored(&task));
            prop_assert!(len.is_multiple_of(2));
            // The guarded buffer holds 2-byte elements, so the packed bytes may end at its edge.
            let mut packed = Guarded::new(&vec![half::f16::NAN; len / 2], edge);
            let packed: &mut [u8] = bytemuck::cast_slice_mut(&mut packed);
            kernel.pack(&shape, Filters::Oihw(&w), packed, &Pace::free()).unwrap();
            prop_assert!(kernel.reads(&shape, packed), "{}", kernel.name());
            prop_assert!(!kernel.reads(&shape, &packed[..len.saturating_sub(1)]) || len == 0, "{}", kernel.name());
            if images == Images::Nhwc && shape.taps() == 1 && shape.groups == 1 {
                // The same weights as the second operand of a matrix product.
                let io: Vec<f32> = (0..w.len()).map(|i| w[i % shape.out_c * shape.in_c + i / shape.out_c]).collect();
                let mut product = AlignedVec::zeroed(len);
                kernel.pack(&shape, Filters::Io(&io), &mut product, &Pace::free()).unwrap();
                prop_assert!(product[..] == packed[..], "{}", kernel.name());
            }
            if let Some(part) = kernel.part(&shape) {
                prop_assert_eq!(&*packed, packed_by_parts(kernel, &shape, &w, part, nonzeros), "{}", kernel.name());
            }
            let mut scratch = Guarded::new(&vec![f32::NAN; kernel.scratch_len(&shape, scaled, threads)], edge);
            let mut out = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
            let args = Conv { shape: &shape, input: &input, packed, out: &mut out, epilogue, scale };
            kernel.run(args, &mut scratch, &pool);
            let planes_out = images == Images::Nchw;
            let pixels = shape.out_h * shape.out_w;
            let out = if planes_out { turned(&out, [shape.batch, pixels, shape.out_c], false) } else { out.to_vec() };
            assert_close(&out, &want, kernel.name());
        }
    }

    /// The selected packed weights of some channels equal the packed weights of the smaller convolution.
    #[test]
    fn channels_are_selected(shape in shapes(), seed in 1usize..64, threads in 1usize..3, spacious in prop::bool::ANY) {
        let (shape, pool) = (ConvShape { batch: 1, groups: 1, ..shape }, Pool::new(threads));
        let task = Task { masked: true, spacious, ..Task::new(&shape) };
        let w = numbers(2, shape.out_c * shape.in_c * shape.taps());
        let some = |len: usize, of: usize| -> Vec<u32> {
            let kept: Vec<u32> = (0..len as u32).filter(|&i| (i as usize * 7 + seed * of) % 11 < 1 + seed % 11).collect();
            if kept.is_empty() { vec![len as u32 - 1] } else { kept }
        };
        let (inputs, outputs) = (some(shape.in_c, 3), some(shape.out_c, 5));
        let active = Active { inputs: &inputs, outputs: &outputs };
        let small = active.shape(&shape);
        let (depth, taps) = (shape.in_c, shape.taps());
        let weights: Vec<f32> = outputs.iter().flat_map(|&o| inputs.iter().flat_map(move |&i| {
            (0..taps).map(move |tap| (o as usize * depth + i as usize) * taps + tap)
        })).map(|at| w[at]).collect();
        let input = Guarded::new(&numbers(1, small.input_len()), Edge::BOTH[seed % 2]);
        let bias = numbers(3, small.out_c);
        let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::NONE };
        let want = definition(&small, &input, &weights, None, &epilogue);
        let kernels = FLOATS.iter().flat_map(Family::kernels);
        for kernel in kernels.filter(|kernel| kernel.is_available() && kernel.takes(&task)) {
            let mut packed = vec![0.0f32; kernel.packed_len(&shape, 0) / 4];
            kernel.pack(&shape, Filters::Oihw(&w), bytemuck::cast_slice_mut(&mut packed), &Pace::free()).unwrap();
            if kernel.reads_lists() {
                let packed = Guarded::new(&packed, Edge::BOTH[seed % 2]);
                let mut scratch = Guarded::new(&vec![f32::NAN; kernel.scratch_len(&shape, false, threads)], Edge::BOTH[seed % 2]);
                let mut out = Guarded::new(&vec![f32::NAN; small.output_len()], Edge::BOTH[seed % 2]);
                let args = Conv { shape: &shape, input: &input, packed: bytemuck::cast_slice(&packed), out: &mut out, epilogue, scale: None };
                kernel.run_active(args, active, &mut scratch, &pool);
                assert_close(&out, &want, kernel.name());
                continue;
            }
            let mut selected = Guarded::new(&vec![f32::NAN; kernel.packed_len(&small, 0) / 4], Edge::BOTH[seed % 2]);
            kernel.select(&shape, bytemuck::cast_slice(&packed), active, &mut selected, &pool);
            let needed = kernel.scratch_len(&small, false, threads);
            prop_assert!(needed <= kernel.scratch_bound(&shape, threads), "{}: {needed}", kernel.name());
            let mut scratch = vec![f32::NAN; needed];
            let mut out = Guarded::new(&vec![f32::NAN; small.output_len()], Edge::BOTH[seed % 2]);
            let packed = bytemuck::cast_slice(&selected);
            kernel.run(Conv { shape: &small, input: &input, packed, out: &mut out, epilogue, scale: None }, &mut scratch, &pool);
            assert_close(&out, &want, kernel.name());
        }
    }

    /// The scratch bound covers convolutions of any subset of the channels, also for large sizes.
    #[test]
    fn scratch_is_bounded(side in 1usize..40, in_c in 1usize..700, out_c in 1usize..400, kernel in 1usize..6, flags in 0usize..4, share in 1usize..100, threads in 1usize..5) {
        let (stride, pad) = ([1 + flags % 2; 2], kernel / 2);
        let out = (side + 2 * pad - kernel) / stride[0] + 1;
        let (in_h, in_w, out_h, out_w) = (side, side, out, out);
        let shape = ConvShape { in_h, in_w, out_h, out_w, in_c, out_c, kernel: [kernel; 2], stride, pad_top: pad, pad_left: pad, ..ConvShape::matrix(1, 1, 1) };
        let small = ConvShape { in_c: in_c * share / 100 + 1, out_c: (out_c * (share * 7 % 100) / 100).max(1), ..shape.clone() };
        let task = Task { masked: true, spacious: flags > 1, ..Task::new(&shape) };
        for kernel in FLOATS.iter().flat_map(Family::kernels).filter(|kernel| kernel.takes(&task)) {
            let (needed, bound) = (kernel.scratch_len(&small, false, threads), kernel.scratch_bound(&shape, threads));
            prop_assert!(needed <= bound, "{}: {needed} > {bound}", kernel.name());
            prop_assert!(kernel.packed_len(&small, 0) <= kernel.packed_len(&shape, 0), "{}", kernel.name());
        }
    }

    /// Every candidate can run its task and is found by name in the table.
    #[test]
    fn candidates_take_their_task(shape in shapes(), images in 0usize..3, flags in 0u32..64) {
        let task = Task {
            images: [Images::Nhwc, Images::NchwToNhwc, Images::Nchw][images],
            weights: [Weights::F32, Weights::F16][flags as usize / 4 % 2],
            constant: flags & 32 > 0,
            scaled: flags & 8 > 0,
            spacious: flags & 16 > 0,
            ..Task::new(&shape)
        };
        for isa in Isa::available() {
            let floats = candidates(FLOATS, isa, &task);
            prop_assert!(task.images != Images::Nhwc || !floats.is_empty());
            for (kernel, cost) in floats {
                prop_assert!(kernel.is_available() && kernel.takes(&task) && cost >= 0.0, "{}", kernel.name());
                prop_assert!(by_name(FLOATS, kernel.name()).is_some_and(|found| std::ptr::addr_eq(found, kernel)));
                prop_assert!(by_name(FLOATS, kernel.layout()).is_some_and(|found| found.layout() == kernel.layout()));
            }
            for (kernel, cost) in candidates(BYTES, isa, &task) {
                prop_assert!(kernel.is_available() && kernel.takes(&task) && cost >= 0.0, "{}", kernel.name());
                prop_assert!(by_name(BYTES, kernel.name()).is_some_and(|found| std::ptr::addr_eq(found, kernel)));
            }
        }
    }
}

#[test]
fn names_begin_with_the_family_and_are_unique() {
    let floats = FLOATS.iter().flat_map(|f| f.kernels().map(|k| (f.name, k.name())));
    let bytes = BYTES.iter().flat_map(|f| f.kernels().map(|k| (f.name, k.name())));
    let mut names: Vec<_> = floats.chain(bytes).collect();
    assert!(names.iter().all(|(family, name)| name.starts_with(&format!("{family}_"))));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

/// Layers of which each is large in another way: many pixels in a row, or many channels.
fn large_layers() -> Vec<ConvShape> {
    let of = |[in_h, in_w, in_c, out_c]: [usize; 4], kernel: [usize; 2], step: usize, groups: usize| {
        let (pad_top, pad_left) = (kernel[0] / 2, kernel[1] / 2);
        let (out_h, out_w) = (in_h.div_ceil(step), in_w.div_ceil(step));
        let (stride, dilation) = ([step; 2], [1; 2]);
        let batch = 1;
        ConvShape { batch, in_h, in_w, in_c, out_h, out_w, out_c, kernel, stride, dilation, pad_top, pad_left, groups }
    };
    vec![
        of([1, 1 << 14, 64, 64], [1, 1], 1, 1),
        of([64, 64, 64, 64], [3, 3], 1, 1),
        of([128, 128, 64, 64], [3, 3], 2, 1),
        of([1, 1 << 20, 32, 32], [1, 3], 1, 32),
        of([1, 1 << 18, 1, 32], [1, 9], 1, 1),
        // A whole row of pixels is gathered, tile by tile of filters.
        of([64, 64, 16, 128], [3, 3], 1, 1),
        of([1, 1, 1 << 15, 1 << 11], [1, 1], 1, 1),
        of([16, 16, 128, 1 << 10], [3, 3], 1, 1),
    ]
}

/// Most multiply-adds between two questions whether to stop, as a power of two.
#[cfg(debug_assertions)]
const PIECE_MACS: u32 = 25;

/// Every kernel asks often enough whether to stop, on one large layer at least, and ends soon when it is.
#[cfg(debug_assertions)]
#[test]
fn every_kernel_can_stop() {
    // The loops that ask are the same for every instruction set: under an emulator they would take minutes.
    if std::env::var_os("SKIPSTONE_EMULATED").is_some() {
        return;
    }
    let (layers, pool) = (large_layers(), Pool::new(1));
    let check = |name: &str, shape: &ConvShape, run: &mut dyn FnMut()| {
        let macs = (shape.output_len() * shape.group_in() * shape.taps()) as u64;
        pool.questions().restart(u64::MAX);
        run();
        let asked = pool.questions().count();
        assert!(macs >> PIECE_MACS >= 2 && asked >= macs >> PIECE_MACS, "{name}: {asked} for {shape:?}");
        pool.questions().restart(asked / 2);
        run();
        assert!(pool.questions().count() - asked / 2 <= 100, "{name}: {} for {shape:?}", pool.questions().count());
    };
    for kernel in FLOATS.iter().flat_map(Family::kernels).filter(|kernel| kernel.is_available()) {
        let images = [Images::Nhwc, Images::NchwToNhwc, Images::Nchw];
        let forms = [Weights::F32, Weights::F16].map(|weights| [(weights, false), (weights, true)]);
        let tasks = images.iter().flat_map(|images| forms.as_flattened().iter().map(move |form| (*images, *form)));
        let mut taken = 0;
        for (shape, (images, (weights, spacious))) in
            layers.iter().flat_map(|shape| tasks.clone().map(move |t| (shape, t)))
        {
            if !kernel.takes(&Task { images, weights, spacious, ..Task::new(shape) }) || taken == 2 {
                continue;
            }
            taken += 1;
            let w = vec![0.5; shape.out_c * shape.group_in() * shape.taps()];
            let mut packed = AlignedVec::zeroed(kernel.packed_len(shape, w.len()));
            kernel.pack(shape, Filters::Oihw(&w), &mut packed, &Pace::free()).unwrap();
            let (input, mut out) = (vec![0.5; shape.input_len()], vec![0.0; shape.output_len()]);
            let mut scratch = vec![0.0; kernel.scratch_len(shape, false, 1)];
            check(kernel.name(), shape, &mut || {
                let args = Conv {
                    shape,
                    input: &input,
                    packed: &packed,
                    out: &mut out,
                    epilogue: Epilogue::NONE,
                    scale: None,
                };
                kernel.run(args, &mut scratch, &pool);
            });
        }
        assert!(taken > 0, "{} takes none of the layers", kernel.name());
    }
    for kernel in BYTES.iter().flat_map(Family::kernels).filter(|kernel| kernel.is_available()) {
        let mut taken = 0;
        for shape in layers.iter().filter(|shape| kernel.takes(&Task::new(shape))).take(2) {
            taken += 1;
            let w = vec![1; shape.out_c * shape.group_in() * shape.taps()];
            let [weights, offsets, _] = kernel.packed_lens(shape);
            let (mut weights, mut offsets) = (vec![0; weights], vec![0; offsets]);
            kernel.pack_sums(shape, &w, &mut weights, &mut offsets, &Pace::free());
            let (input, mut sums) = (vec![3; shape.input_len()], vec![0; shape.output_len()]);
            let mut scratch = AlignedVec::zeroed(kernel.scratch_len(shape, 1));
            check(kernel.name(), shape, &mut || {
                let packed = Packed { weights: &weights, offsets: &offsets, scales: &[] };
                let out = Out::Sums(&mut sums);
                kernel.run(ByteConv { shape, input: &input, zero: 0, packed, out }, &mut scratch, &pool);
            });
        }
        assert!(taken > 0, "{} takes none of the layers", kernel.name());
    }
}

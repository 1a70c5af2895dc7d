//! Throughput of the compute-bound families on layers of real networks, as a share of this core's peak.
//!
//! `cargo bench -p skipstone-kernels --bench compute [-- FILTER]`. Every number is the best of many repetitions on
//! one thread, in processor time, so that it is a property of the kernel and not of what else the machine was doing.

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::f16;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::conv::ConvShape;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{Packed, Weights};
use skipstone_kernels::isa::Isa;
use skipstone_kernels::threads::Pool;
use skipstone_kernels::winograd::Storage;
use skipstone_kernels::{depthwise, gemm, winograd};

/// A layer: where it is from, and input size, channels in, channels out, kernel, stride, groups.
type Layer = (&'static str, usize, usize, usize, usize, usize, bool);

const LAYERS: &[Layer] = &[
    ("SkipNet-M stem", 224, 3, 16, 3, 2, false),
    ("SkipNet-M b1 expand", 112, 16, 64, 1, 1, false),
    ("SkipNet-M b2 expand", 56, 24, 72, 1, 1, false),
    ("SkipNet-M b2 project", 56, 72, 24, 1, 1, false),
    ("SkipNet-M b4 expand", 28, 40, 120, 1, 1, false),
    ("SkipNet-M b7 expand", 14, 80, 200, 1, 1, false),
    ("SkipNet-M b8 project", 14, 184, 80, 1, 1, false),
    ("SkipNet-M b11 expand", 14, 112, 672, 1, 1, false),
    ("SkipNet-M b11 project", 14, 672, 112, 1, 1, false),
    ("SkipNet-M b13 expand", 7, 160, 960, 1, 1, false),
    ("SkipNet-M b13 project", 7, 960, 160, 1, 1, false),
    ("SkipNet-M fc", 1, 960, 1280, 1, 1, false),
    ("SimpleNet-5m conv1", 224, 3, 64, 3, 2, false),
    ("SimpleNet-5m conv2", 112, 64, 128, 3, 2, false),
    ("SimpleNet-5m conv3", 56, 128, 128, 3, 1, false),
    ("SimpleNet-5m conv7", 14, 256, 256, 3, 1, false),
    ("SimpleNet-5m conv10", 14, 256, 512, 3, 1, false),
    ("SimpleNet-5m k1", 7, 512, 2048, 1, 1, false),
    ("SimpleNet-310k conv2", 32, 64, 32, 3, 1, false),
    ("SimpleNet-310k conv6", 16, 32, 64, 3, 1, false),
    ("SimpleNet-310k conv8", 8, 64, 64, 3, 1, false),
    ("SkipNet-M dw3 s1", 112, 16, 16, 3, 1, true),
    ("SkipNet-M dw3 s2", 112, 64, 64, 3, 2, true),
    ("SkipNet-M dw3 s1", 56, 72, 72, 3, 1, true),
    ("SkipNet-M dw5 s2", 56, 72, 72, 5, 2, true),
    ("SkipNet-M dw5 s1", 28, 120, 120, 5, 1, true),
    ("SkipNet-M dw3 s1", 14, 200, 200, 3, 1, true),
    ("SkipNet-M dw3 s1", 14, 672, 672, 3, 1, true),
    ("SkipNet-M dw5 s2", 14, 672, 672, 5, 2, true),
    ("SkipNet-M dw5 s1", 7, 960, 960, 5, 1, true),
];

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        let peak = peak(isa);
        println!("{isa}: peak {peak:.1} GFLOP/s");
        for layer in LAYERS {
            run(isa, layer, peak, &filter);
        }
    }
}

/// Times every variant on a layer.
fn run(isa: Isa, &(name, size, in_c, out_c, kernel, stride, depth): &Layer, peak: f64, filter: &str) {
    let shape = ConvShape {
        batch: 1,
        in_h: size,
        in_w: size,
        in_c,
        out_h: size.div_ceil(stride),
        out_w: size.div_ceil(stride),
        out_c,
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pad_top: kernel / 2,
        pad_left: kernel / 2,
        groups: if depth { in_c } else { 1 },
    };
    let pool = Pool::new(1);
    let input = numbers(shape.input_len());
    let weights = numbers(out_c * shape.group_in() * shape.taps());
    let bias = numbers(out_c);
    let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::NONE };
    let mut out = AlignedVec::<f32>::zeroed(shape.output_len());
    let operations = 2.0 * (shape.output_len() * shape.group_in() * shape.taps()) as f64;
    let report = |kernel_name: &str, chosen: bool, seconds: f64| {
        let rate = operations / seconds / 1e9;
        let mark = if chosen { "*" } else { " " };
        println!(
            "{mark} {name:22} {size:3}x{size:<3} {in_c:4} -> {out_c:4} k{kernel} s{stride}  {kernel_name:28} \
             {:8.1} us  {rate:6.1} GFLOP/s  {:3.0} %",
            seconds * 1e6,
            100.0 * rate / peak,
        );
    };
    if depth {
        let mut packed = AlignedVec::<f32>::zeroed(weights.len());
        depthwise::pack(&shape, &weights, &mut packed);
        for v in depthwise::VARIANTS.iter().filter(|v| v.isa == isa && v.name.contains(filter)) {
            let seconds = best(|| {
                let args =
                    depthwise::Depthwise { shape: &shape, input: &input, packed: &packed, out: &mut out, epilogue };
                depthwise::depthwise(v, args, &pool);
            });
            report(v.name, true, seconds);
        }
        return;
    }
    let direct = gemm::choose(isa, Weights::F32, shape.pixels(), shape.taps() * in_c, out_c);
    let transformed = winograd::choose(isa, &shape, Storage::Transformed, direct);
    for v in winograd::VARIANTS.iter().filter(|v| v.isa == isa && v.takes(&shape) && v.name.contains(filter)) {
        if v.storage == Storage::Kernels(Weights::F16) {
            continue;
        }
        let mut packed = AlignedVec::<f32>::zeroed(winograd::packed_len(v, &shape));
        winograd::pack(v, &shape, &weights, &mut packed);
        let mut scratch = AlignedVec::<f32>::zeroed(winograd::scratch_len(v, &shape, 1));
        let seconds = best(|| {
            let packed = Packed::F32(&packed);
            let args = winograd::Winograd { shape: &shape, input: &input, packed, out: &mut out, epilogue };
            winograd::winograd(v, args, &mut scratch, &pool);
        });
        report(v.name, transformed.is_some_and(|chosen| std::ptr::eq(v, chosen)), seconds);
    }
    for v in gemm::VARIANTS.iter().filter(|v| v.isa == isa && v.name.contains(filter)) {
        if v.mr == 1 && shape.pixels() > 8 || v.weights == Weights::F16 && shape.pixels() > 1 {
            continue;
        }
        let mut packed = AlignedVec::<f32>::zeroed(gemm::packed_conv_len(v, &shape));
        gemm::pack_conv(v, &shape, &weights, &mut packed);
        let mut halves = AlignedVec::<f16>::zeroed(packed.len());
        gemm::halve(&packed, &mut halves);
        let packed = match v.weights {
            Weights::F32 => Packed::F32(&packed),
            Weights::F16 => Packed::F16(&halves),
        };
        let mut scratch = AlignedVec::<f32>::zeroed(gemm::conv_scratch(v, &shape, false, 1));
        let seconds = best(|| {
            let args = gemm::Conv { shape: &shape, input: &input, packed, out: &mut out, epilogue, a_scale: None };
            gemm::conv(v, args, &mut scratch, &pool);
        });
        report(v.name, transformed.is_none() && std::ptr::eq(v, direct), seconds);
    }
}

/// Seconds of the fastest call, over at least 0.2 seconds and 10 calls.
fn best(mut f: impl FnMut()) -> f64 {
    let (mut best, mut calls, start) = (f64::INFINITY, 0, Instant::now());
    while calls < 10 || start.elapsed() < Duration::from_millis(200) {
        let begin = processor_time();
        f();
        best = best.min(processor_time() - begin);
        calls += 1;
    }
    best
}

/// Seconds that this thread has run.
fn processor_time() -> f64 {
    #[repr(C)]
    #[derive(Default)]
    struct Timespec {
        seconds: std::ffi::c_long,
        nanoseconds: std::ffi::c_long,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: std::ffi::c_int, time: *mut Timespec) -> std::ffi::c_int;
    }
    /// `CLOCK_THREAD_CPUTIME_ID` of Linux.
    const THREAD: std::ffi::c_int = 3;
    let mut time = Timespec::default();
    // SAFETY: writes one timespec.
    assert_eq!(unsafe { clock_gettime(THREAD, &mut time) }, 0);
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

/// Numbers between -1 and 1, the same on every run.
fn numbers(len: usize) -> AlignedVec<f32> {
    let mut state = 1u32;
    let mut numbers = AlignedVec::zeroed(len);
    for x in numbers.iter_mut() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
    }
    numbers
}

/// GFLOP/s of independent multiply-adds on registers.
fn peak(isa: Isa) -> f64 {
    const STEPS: u32 = 100_000;
    let per_step = match isa {
        Isa::Avx512 => 12.0 * 16.0,
        Isa::Avx2 => 12.0 * 8.0,
        _ => 12.0 * 4.0,
    };
    let seconds = best(|| match isa {
        // SAFETY: the instruction set is available.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::avx512(STEPS) },
        // SAFETY: the instruction set is available.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::avx2(STEPS) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => aarch64::neon(STEPS),
        _ => {}
    });
    2.0 * per_step * f64::from(STEPS) / seconds / 1e9
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::black_box;

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(steps: u32) {
        let factor = _mm256_set1_ps(black_box(0.999));
        let mut sums = [_mm256_set1_ps(black_box(1.0)); 12];
        for _ in 0..steps {
            sums = sums.map(|sum| _mm256_fmadd_ps(sum, factor, factor));
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512(steps: u32) {
        let factor = _mm512_set1_ps(black_box(0.999));
        let mut sums = [_mm512_set1_ps(black_box(1.0)); 12];
        for _ in 0..steps {
            sums = sums.map(|sum| _mm512_fmadd_ps(sum, factor, factor));
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;

    use super::black_box;

    pub fn neon(steps: u32) {
        // SAFETY: NEON is part of this target.
        unsafe {
            let factor = vdupq_n_f32(black_box(0.999));
            let mut sums = [vdupq_n_f32(black_box(1.0)); 12];
            for _ in 0..steps {
                sums = sums.map(|sum| vfmaq_f32(factor, sum, factor));
            }
            black_box(sums);
        }
    }
}

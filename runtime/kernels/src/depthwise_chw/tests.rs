//! Every variant of this CPU against the definition of the convolution; `conv/tests.rs` tries small images.

use super::*;
use crate::activation::Activation;
use crate::conv::{Conv, FloatKernel};
use crate::gemm::tests::{assert_close, definition, numbers};
use crate::guard::{Edge, Guarded};

/// Converts images from NHWC to NCHW or back.
fn turned(images: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let image = rows * columns;
    (0..images.len()).map(|i| images[i / image * image + i % image % rows * columns + i % image / rows]).collect()
}

fn follows_the_definition(s: &ConvShape, epilogue: Epilogue<'_>, edge: Edge, threads: usize) {
    let (x, w) = (numbers(1, s.input_len()), numbers(2, s.in_c * s.taps()));
    let want = definition(s, &x, &w, None, &epilogue);
    let (pixels_in, pixels_out) = (s.in_h * s.in_w, s.out_h * s.out_w);
    let input = Guarded::new(&turned(&x, [pixels_in, s.in_c]), edge);
    let residual = epilogue.residual.map(|r| Guarded::new(&turned(r, [pixels_out, s.out_c]), edge));
    let epilogue = Epilogue { residual: residual.as_deref(), ..epilogue };
    let packed = Guarded::new(&w, edge);
    for v in VARIANTS.iter().filter(|v| v.isa.is_available()) {
        let mut scratch = Guarded::new(&vec![f32::NAN; v.scratch_len(s, false, threads)], edge);
        let mut out = Guarded::new(&vec![f32::NAN; s.output_len()], edge);
        let packed = bytemuck::cast_slice(&packed);
        let args = Conv { shape: s, input: &input, packed, out: &mut out, epilogue, scale: None };
        v.run(args, &mut scratch, &Pool::new(threads));
        assert_close(&turned(&out, [s.out_c, pixels_out]), &want, v.name);
    }
}

/// A convolution with output for every window that has at most `pad` of its rows and columns past the image.
fn shape(
    batch: usize,
    channels: usize,
    [in_h, in_w]: [usize; 2],
    kernel: usize,
    stride: usize,
    pad: usize,
) -> ConvShape {
    let out = |len: usize| (len + 2 * pad - kernel) / stride + 1;
    ConvShape {
        batch,
        in_h,
        in_w,
        in_c: channels,
        out_h: out(in_h),
        out_w: out(in_w),
        out_c: channels,
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pad_top: pad,
        pad_left: pad,
        groups: channels,
    }
}

/// Images with the sizes of real networks and unusual sizes, in one band and in several.
#[test]
fn images_of_all_sizes_follow_the_definition() {
    for size in [[1, 1], [7, 7], [14, 14], [13, 9], [9, 130], [28, 28], [56, 56], [113, 112]] {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (1, 2)] {
            for (case, edge) in Edge::BOTH.into_iter().enumerate() {
                let s = shape(1 + case, 3, size, kernel, stride, kernel / 2);
                let (bias, residual) = (numbers(3, 3), numbers(4, s.output_len()));
                let activation = [Activation::HardSwish, Activation::Silu][case];
                let epilogue = Epilogue { bias: Some(&bias), activation, ..Epilogue::NONE };
                follows_the_definition(&s, epilogue, edge, 1 + case);
                follows_the_definition(&s, Epilogue { residual: Some(&residual), ..epilogue }, edge, 1);
            }
        }
    }
}

/// Kernels that are wider than the image, dilated, or entirely in the padding.
#[test]
fn unusual_windows_follow_the_definition() {
    let mut shapes = vec![shape(1, 2, [2, 3], 5, 1, 4), shape(2, 2, [9, 10], 3, 1, 3), shape(1, 1, [20, 40], 3, 2, 2)];
    shapes.push(ConvShape { dilation: [2, 3], out_h: 16, out_w: 14, ..shape(1, 2, [20, 20], 3, 1, 0) });
    shapes.push(ConvShape { stride: [3, 2], out_h: 6, ..shape(1, 2, [20, 20], 3, 2, 0) });
    shapes.push(ConvShape { kernel: [3, 5], out_w: 16, ..shape(1, 2, [20, 20], 3, 1, 0) });
    for s in shapes {
        follows_the_definition(&s, Epilogue::NONE, Edge::Start, 1);
        follows_the_definition(&s, Epilogue::NONE, Edge::End, 2);
    }
}

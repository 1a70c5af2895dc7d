//! Bottlenecks, with the kernels that the runtime chooses for their stages.

use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::bottleneck::{Bottleneck, Pointwise, bottleneck, product_rows, scratch_len};
use skipstone_kernels::conv::ConvShape;
use skipstone_kernels::depthwise;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{self, Packed, Weights};
use skipstone_kernels::isa::Isa;
use skipstone_kernels::pace::Pace;
use skipstone_kernels::threads::Pool;

use super::convolution::epilogue;
use super::{Case, Work, numbers};

/// An expansion from `channels`, a depthwise convolution and a projection to `filters`.
pub fn case(isa: Isa, depthwise: &ConvShape, channels: usize, filters: usize) -> Case {
    let s = depthwise.clone();
    let (pixels_in, pixels_out) = (s.in_h * s.in_w, s.out_h * s.out_w);
    let products = pixels_in * channels * s.in_c + pixels_out * s.out_c * (s.taps() + filters);
    let weights = s.in_c * (channels + s.taps() + filters);
    let moved = 4 * (pixels_in * channels + pixels_out * filters + weights);
    let ([rows, columns], stride) = (s.kernel, s.stride[0]);
    let sizes = format!("{}x{}, {channels} to {} to {filters}, {rows}x{columns} / {stride}", s.in_h, s.in_w, s.in_c);
    Case::new(format!("bottleneck_{isa}"), sizes, Work::MultiplyAdds(products), moved, move || {
        let s = s.clone();
        let (expand_rows, project_rows) = product_rows(&s);
        let expand = end(isa, expand_rows, channels, s.in_c);
        let project = end(isa, project_rows, s.out_c, filters);
        let mut packed = AlignedVec::zeroed(s.taps() * s.in_c);
        depthwise::pack(&s, &numbers(packed.len()), &mut packed, &Pace::free());
        let (input, bias) = (numbers(pixels_in * channels), numbers(s.in_c));
        let mut out = AlignedVec::zeroed(pixels_out * filters);
        let mut scratch = AlignedVec::zeroed(scratch_len(&s, Some(expand.0), true, 1));
        let pool = Pool::new(1);
        Box::new(move || {
            let args = Bottleneck {
                shape: &s,
                input: &input,
                expand: Some(Pointwise {
                    variant: expand.0,
                    channels,
                    packed: Packed::F32(&expand.1),
                    epilogue: epilogue(&bias),
                }),
                depthwise: depthwise::choose(isa, s.in_c),
                packed: &packed,
                epilogue: epilogue(&bias),
                project: Some(Pointwise {
                    variant: project.0,
                    channels: filters,
                    packed: Packed::F32(&project.1),
                    epilogue: Epilogue::NONE,
                }),
                out: &mut out,
            };
            bottleneck(args, &mut scratch, &pool);
        })
    })
}

/// The kernel and packed weights of the product at one end.
fn end(isa: Isa, rows: usize, inputs: usize, outputs: usize) -> (&'static gemm::Variant, AlignedVec<f32>) {
    let v = gemm::choose(isa, Weights::F32, rows, inputs, outputs);
    let mut packed = AlignedVec::zeroed(gemm::packed_len(v, inputs, outputs));
    gemm::pack(v, inputs, outputs, (&numbers(inputs * outputs), outputs, 1), &mut packed, &Pace::free());
    (v, packed)
}

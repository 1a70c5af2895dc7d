//! Calls every compute kernel of an instruction set once, for a program that counts instructions.
//!
//! `instructions ISA` prints a line for each call: kernel, layer and amount of work, separated by tabs. Directly before
//! and after each call it closes the descriptor -1, which fails and has no effect, and which no other code does: the
//! counter, an emulator plugin in tests/instructions, detects it. All calls run on one thread, and their operands are
//! prepared beforehand.

#[path = "../benches/cases/mod.rs"]
mod cases;

use std::ffi::c_int;

use skipstone_kernels::conv::ConvShape;
use skipstone_kernels::isa::Isa;

use cases::convolution::{self, Kernel, kernels};
use cases::zoo::{self, LayerShape};
use cases::{Case, Work, bottleneck, frame, memory};

/// Representative layers of the zoo: every variant of every family that takes a layer runs it.
const LAYERS: &[(&str, &str)] = &[
    ("skipnet_m", "224x224, 3 to 16, 3x3 / 2"),
    ("skipnet_m", "14x14, 80 to 200, 1x1 / 1"),
    ("skipnet_m", "7x7, 960 to 160, 1x1 / 1"),
    ("skipnet_m", "1x1, 960 to 1280, 1x1 / 1"),
    ("simplenet_310k", "8x8, 64 to 64, 3x3 / 1"),
    ("resnet18", "14x14, 256 to 256, 3x3 / 1"),
    ("resnet18", "28x28, 128 to 256, 3x3 / 2"),
    ("skipnet_m", "112x112, 16 to 16, 3x3 / 1"),
    ("skipnet_m", "14x14, 200 to 200, 3x3 / 1"),
    ("skipnet_m", "112x112, 64 to 64, 3x3 / 2"),
    ("skipnet_m", "28x28, 120 to 120, 5x5 / 1"),
    ("skipnet_m", "7x7, 960 to 960, 5x5 / 1"),
    ("skipnet_m", "14x14, 672 to 672, 5x5 / 2"),
];

/// Convolutions of other networks, for the kernels that the runtime chooses: rows and columns, channels, filters, kernel,
/// stride, groups.
const GROUPED: &[([usize; 3], usize, usize, usize)] = &[
    // ConvNeXt, ResNeXt-50, RegNet and FastViT.
    ([14, 384, 384], 7, 1, 384),
    ([28, 256, 256], 3, 1, 32),
    ([14, 512, 512], 3, 1, 32),
    ([16, 192, 384], 7, 2, 192),
];

/// Layers for sparse kernels, and the percentage of nonzero weights.
const SPARSE: &[(&str, &str, usize)] = &[
    ("skipnet_m", "56x56, 72 to 24, 1x1 / 1", 10),
    ("skipnet_m", "14x14, 80 to 200, 1x1 / 1", 10),
    ("skipnet_m", "14x14, 80 to 200, 1x1 / 1", 100),
    ("skipnet_m", "7x7, 960 to 160, 1x1 / 1", 10),
    ("skipnet_m", "1x1, 960 to 1280, 1x1 / 1", 10),
];

/// Depthwise convolutions of the zoo, with the channels before and after the bottlenecks that they belong to.
const BOTTLENECKS: &[(&str, &str, usize, usize)] =
    &[("skipnet_m", "112x112, 64 to 64, 3x3 / 2", 16, 24), ("skipnet_m", "14x14, 200 to 200, 3x3 / 1", 80, 80)];

unsafe extern "C" {
    safe fn close(descriptor: c_int) -> c_int;
}

fn main() {
    let isa = std::env::args().nth(1).unwrap_or_default().parse::<Isa>();
    let isa = isa.unwrap_or_else(|error| panic!("{error}"));
    assert!(isa.is_available(), "this CPU does not have {isa}");
    for case in cases(isa) {
        let mut call = case.ready();
        close(-1);
        call();
        close(-1);
        let (Work::MultiplyAdds(amount) | Work::Elements(amount)) = case.work;
        println!("{}\t{}\t{amount}", case.kernel, case.layer);
    }
}

fn cases(isa: Isa) -> Vec<Case> {
    let shapes: Vec<ConvShape> = LAYERS.iter().map(|&(network, sizes)| layer(network, sizes)).collect();
    let on_all = |kernel: Kernel| {
        let taken = shapes.iter().filter(move |shape| kernel.takes(shape));
        taken.map(move |shape| kernel.case(shape))
    };
    let grouped: Vec<ConvShape> = GROUPED.iter().map(|&sizes| grouped(sizes)).collect();
    let on_some = |kernel: Kernel| {
        let chosen = grouped.iter().filter(move |shape| kernel.is_chosen(isa, shape));
        chosen.map(move |shape| kernel.case(shape))
    };
    let bottlenecks = BOTTLENECKS
        .iter()
        .map(|&(network, sizes, channels, filters)| bottleneck::case(isa, &layer(network, sizes), channels, filters));
    let sparse =
        SPARSE.iter().flat_map(|&(network, sizes, percent)| convolution::sparse(&layer(network, sizes), percent));
    let sparse = sparse.filter(|(of, _)| *of == isa).map(|(_, case)| case);
    let of_isa = || kernels().into_iter().filter(|kernel| kernel.isa() == isa);
    let convolutions = of_isa()
        .flat_map(on_all)
        .chain(of_isa().filter(|kernel| matches!(kernel, Kernel::Floats(_))).flat_map(on_some));
    convolutions.chain(sparse).chain(bottlenecks).chain(memory::cases(isa)).chain(frame::cases(isa)).collect()
}

/// A square convolution of [`GROUPED`], padded by half of its kernel.
fn grouped(([side, in_c, out_c], kernel, step, groups): ([usize; 3], usize, usize, usize)) -> ConvShape {
    let (out, pad) = (side.div_ceil(step), kernel / 2);
    ConvShape {
        in_h: side,
        in_w: side,
        in_c,
        out_h: out,
        out_w: out,
        out_c,
        kernel: [kernel; 2],
        stride: [step; 2],
        pad_top: pad,
        pad_left: pad,
        groups,
        ..ConvShape::matrix(1, 1, 1)
    }
}

/// The convolution of a network with these sizes, in the form that `Display` prints.
fn layer(network: &str, sizes: &str) -> ConvShape {
    let mut found = zoo::layers().filter(|layer| layer.network == network && layer.shape.to_string() == sizes);
    match found.next().map(|layer| layer.shape) {
        Some(LayerShape::Convolution(shape)) => shape,
        _ => panic!("{network} has no convolution of {sizes}"),
    }
}

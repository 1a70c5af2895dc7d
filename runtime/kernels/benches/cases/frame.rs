//! The two passes over a camera frame, one output row each: a square cut from 640 x 480 pixels of luma and half as many
//! pairs of chroma, resized to 224 x 224.

use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::frame::{
    Across, ChannelOrder, Color, ComponentLines, Course, Down, FrameRows, LINES, SampleWidth, Tap, across, down,
};
use skipstone_kernels::isa::Isa;

use super::{Case, Work, bytes};

/// Side of the square, and of the output.
const SOURCE: usize = 480;
const OUTPUT: usize = 224;
/// Bytes from one row to the next.
const STRIDE: usize = 640;

/// The cases of an instruction set.
pub fn cases(isa: Isa) -> Vec<Case> {
    let turned = Course::Beside { lines: LINES, step: OUTPUT };
    vec![
        down_case(isa),
        across_case(isa, "upright", Course::Along, OUTPUT, 1),
        across_case(isa, "turned", turned, OUTPUT * LINES, LINES),
    ]
}

/// Rows of luma, summed to a line.
fn down_case(isa: Isa) -> Case {
    let taps = Down::pack(&triangles(SOURCE));
    let rows = taps.row(OUTPUT / 2).1.len();
    let layer = format!("{rows} rows of {SOURCE}");
    Case::new(format!("frame_down_{isa}"), layer, Work::Elements(SOURCE), (rows + 2) * SOURCE, move || {
        let (frame, taps) = (bytes(STRIDE * SOURCE), taps.clone());
        let mut line = AlignedVec::<i16>::zeroed(SOURCE);
        Box::new(move || {
            let (first, weights) = taps.row(OUTPUT / 2);
            let rows = FrameRows { bytes: &frame[first * STRIDE..], stride: STRIDE };
            down(isa, rows, weights, taps.shift(7), &mut line);
        })
    })
}

/// Lines of luma and of pairs of chroma, converted to `pixels` of three colors.
fn across_case(isa: Isa, way: &str, course: Course, pixels: usize, count: usize) -> Case {
    let luma = Across::pack(&triangles(SOURCE), 1, SampleWidth::Byte);
    let chroma = Across::pack(&triangles(SOURCE / 2), 2, SampleWidth::Byte);
    let stride = luma.reach().max(chroma.reach() + 1);
    let layer = format!("{way}, lines of {SOURCE} to {OUTPUT}");
    let moved = 4 * count * SOURCE + 12 * pixels;
    Case::new(format!("frame_across_{isa}"), layer, Work::Elements(3 * pixels), moved, move || {
        let (luma, chroma) = (luma.clone(), chroma.clone());
        let lines = AlignedVec::<i16>::zeroed(2 * count * stride);
        // With several lines side by side, their columns are rows of the output.
        let mut out = AlignedVec::<f32>::zeroed(3 * OUTPUT * if count == 1 { 1 } else { OUTPUT });
        let color = Color { matrix: [[1e-3; 3]; 3], bias: [-0.5; 3], low: [-2.0; 3], high: [2.0; 3], gray: None };
        Box::new(move || {
            let (luma_lines, chroma_lines) = lines.split_at(count * stride);
            let inputs = [
                ComponentLines { lines: luma_lines, stride, taps: &luma },
                ComponentLines { lines: chroma_lines, stride, taps: &chroma },
                ComponentLines { lines: &chroma_lines[1..], stride, taps: &chroma },
            ];
            across(isa, &inputs, &color, ChannelOrder::Planar, course, 0, &mut out);
        })
    })
}

/// Triangle filters over `source` samples, one for each output.
fn triangles(source: usize) -> Vec<Tap> {
    let scale = source as f64 / OUTPUT as f64;
    let tap = |output: usize| {
        let center = (output as f64 + 0.5) * scale - 0.5;
        let first = (center - scale).ceil().max(0.0) as usize;
        let end = ((center + scale) as usize + 1).min(source);
        let weight = |x: usize| (1.0 - (x as f64 - center).abs() / scale).max(0.0);
        let total: f64 = (first..end).map(weight).sum();
        Tap { first, weights: (first..end).map(|x| weight(x) / total).collect() }
    };
    (0..OUTPUT).map(tap).collect()
}

use super::*;
use crate::ops::check::{Random, check};

fn axis(filter: Filter, coordinates: Coordinates, scale: f32, out: usize) -> ResizeAxis {
    let (crop, antialias, exclude_outside) = (None, false, false);
    ResizeAxis { axis: 0, out, scale, filter, coordinates, crop, antialias, exclude_outside }
}

/// The row that the script passed to ONNX Runtime.
const ROW: [f32; 7] = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0];

#[track_caller]
fn check_row(op: &ResizeAxis, wanted: &[f32]) {
    let got = check(op.clone(), &[Tensor::from_slice(&[7], &ROW).unwrap()], 1e-6);
    for (got, want) in got[0].elements::<f32>().unwrap().iter().zip(wanted) {
        assert!((got - want).abs() <= 2e-4 * want.abs().max(1.0), "{op:?}: {:?}, not {wanted:?}", got);
    }
}

/// ONNX Runtime 1.32: filter, coordinates, antialias, exclude_outside, scale, values.
type Reference = (Filter, Coordinates, bool, bool, f32, &'static [f32]);

#[rustfmt::skip]
const REFERENCES: &[Reference] = &[
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, false, false, 0.5, &[0.53125, 3.5312, 2.0938]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, false, false, 0.8, &[2.5308, 0.56006, 3.0698, -5.4087, 9.2734]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, false, false, 1.7, &[3.3895, 1.1875, -1.0131, 1.8141, 4.1094, 2.5626, -1.9019, -5.3561, 2.0938, 9.2685, 4.873]),
    (Filter::Cubic(-0.75), Coordinates::AlignCorners, false, false, 0.6, &[3.0, 4.0, -5.0, 2.0]),
    (Filter::Cubic(-0.75), Coordinates::AlignCorners, false, false, 1.7, &[3.0, 0.011999, -0.432, 3.312, 3.808, 1.0, -4.4, -2.944, 7.064, 7.796, 2.0]),
    (Filter::Cubic(-0.75), Coordinates::Asymmetric, false, false, 0.6, &[3.0, 2.537, -2.0, 9.0]),
    (Filter::Cubic(-0.75), Coordinates::Asymmetric, false, false, 1.7, &[3.0, 0.07002, -0.53654, 3.1252, 3.9084, 1.3865, -3.8471, -3.9788, 5.6762, 8.6296, 2.8128]),
    (Filter::Cubic(-0.75), Coordinates::PytorchHalfPixel, false, false, 0.6, &[1.463, 4.0, -4.8333, 8.3519]),
    (Filter::Cubic(-0.75), Coordinates::PytorchHalfPixel, false, false, 1.7, &[3.3895, 1.1875, -1.0131, 1.8141, 4.1094, 2.5626, -1.9019, -5.3561, 2.0938, 9.2685, 4.873]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixelSymmetric, false, false, 0.6, &[0.53125, 4.1076, -5.4062, 6.8125]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixelSymmetric, false, false, 1.7, &[2.8013, -0.20955, -0.26013, 3.4275, 3.7799, 1.0, -4.314, -3.2625, 6.5711, 8.1986, 2.3605]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, false, true, 0.5, &[0.74286, 3.5312, 2.0938]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, false, true, 0.8, &[2.5622, 0.56006, 3.0698, -5.4087, 9.1996]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, false, true, 1.7, &[3.4761, 1.3663, -1.0106, 1.8141, 4.1094, 2.5626, -1.9019, -5.3561, 2.0938, 9.23, 4.5859]),
    (Filter::Cubic(-0.75), Coordinates::AlignCorners, false, true, 0.6, &[3.0, 4.0, -5.0, 2.0]),
    (Filter::Cubic(-0.75), Coordinates::AlignCorners, false, true, 1.7, &[3.0, 0.21269, -0.432, 3.312, 3.808, 1.0, -4.4, -2.944, 7.064, 7.4067, 2.0]),
    (Filter::Cubic(-0.75), Coordinates::Asymmetric, false, true, 0.6, &[3.0, 2.537, -2.0, 9.0]),
    (Filter::Cubic(-0.75), Coordinates::Asymmetric, false, true, 1.7, &[3.0, 0.27393, -0.53654, 3.1252, 3.9084, 1.3865, -3.8471, -3.9788, 5.6762, 8.3392, 2.7606]),
    (Filter::Cubic(-0.75), Coordinates::PytorchHalfPixel, false, true, 0.6, &[1.6167, 4.0, -4.8333, 8.0175]),
    (Filter::Cubic(-0.75), Coordinates::PytorchHalfPixel, false, true, 1.7, &[3.4761, 1.3663, -1.0106, 1.8141, 4.1094, 2.5626, -1.9019, -5.3561, 2.0938, 9.23, 4.5859]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixelSymmetric, false, true, 0.6, &[0.74286, 4.1076, -5.4062, 6.4]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixelSymmetric, false, true, 1.7, &[2.8088, -0.026583, -0.26013, 3.4275, 3.7799, 1.0, -4.314, -3.2625, 6.5711, 7.8452, 2.3469]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, true, false, 0.5, &[1.6191, 0.69141, 1.8164]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, true, false, 0.8, &[1.8835, 0.98697, 2.8539, -3.3832, 7.0108]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, true, false, 1.7, &[3.3895, 1.1875, -1.0131, 1.8141, 4.1094, 2.5626, -1.9019, -5.3561, 2.0938, 9.2685, 4.873]),
    (Filter::Cubic(-0.75), Coordinates::AlignCorners, true, false, 0.6, &[1.8762, 2.3238, -0.59524, 4.331]),
    (Filter::Cubic(-0.75), Coordinates::AlignCorners, true, false, 1.7, &[3.0, 0.012, -0.432, 3.312, 3.808, 1.0, -4.4, -2.944, 7.064, 7.796, 2.0]),
    (Filter::Cubic(-0.75), Coordinates::Asymmetric, true, false, 0.6, &[1.8762, 2.0988, -1.1542, 4.2786]),
    (Filter::Cubic(-0.75), Coordinates::Asymmetric, true, false, 1.7, &[3.0, 0.070021, -0.53654, 3.1252, 3.9084, 1.3865, -3.8471, -3.9788, 5.6762, 8.6296, 2.8128]),
    (Filter::Cubic(-0.75), Coordinates::PytorchHalfPixel, true, false, 0.6, &[1.3518, 2.3238, -1.3398, 5.1012]),
    (Filter::Cubic(-0.75), Coordinates::PytorchHalfPixel, true, false, 1.7, &[3.3895, 1.1875, -1.0131, 1.8141, 4.1094, 2.5626, -1.9019, -5.3561, 2.0938, 9.2685, 4.873]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixelSymmetric, true, false, 0.6, &[1.1551, 2.2166, -1.0715, 5.202]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixelSymmetric, true, false, 1.7, &[2.8013, -0.20955, -0.26013, 3.4275, 3.7799, 1.0, -4.314, -3.2625, 6.5711, 8.1986, 2.3605]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, true, true, 0.5, &[1.5301, 0.73129, 1.8285]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, true, true, 0.8, &[1.8452, 0.99781, 2.8539, -3.3832, 6.6619]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixel, true, true, 1.7, &[3.4761, 1.3663, -1.0106, 1.8141, 4.1094, 2.5626, -1.9019, -5.3561, 2.0938, 9.23, 4.5859]),
    (Filter::Cubic(-0.75), Coordinates::AlignCorners, true, true, 0.6, &[1.591, 2.3333, -0.55869, 4.9224]),
    (Filter::Cubic(-0.75), Coordinates::AlignCorners, true, true, 1.7, &[3.0, 0.21269, -0.432, 3.312, 3.808, 1.0, -4.4, -2.944, 7.064, 7.4067, 2.0]),
    (Filter::Cubic(-0.75), Coordinates::Asymmetric, true, true, 0.6, &[1.591, 2.1363, -1.1542, 4.1267]),
    (Filter::Cubic(-0.75), Coordinates::Asymmetric, true, true, 1.7, &[3.0, 0.27393, -0.53654, 3.1252, 3.9084, 1.3865, -3.8471, -3.9788, 5.6762, 8.3392, 2.7606]),
    (Filter::Cubic(-0.75), Coordinates::PytorchHalfPixel, true, true, 0.6, &[1.2551, 2.3333, -1.3398, 4.9723]),
    (Filter::Cubic(-0.75), Coordinates::PytorchHalfPixel, true, true, 1.7, &[3.4761, 1.3663, -1.0106, 1.8141, 4.1094, 2.5626, -1.9019, -5.3561, 2.0938, 9.23, 4.5859]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixelSymmetric, true, true, 0.6, &[1.1606, 2.2197, -1.0592, 5.1923]),
    (Filter::Cubic(-0.75), Coordinates::HalfPixelSymmetric, true, true, 1.7, &[2.8088, -0.026585, -0.26013, 3.4275, 3.7799, 1.0, -4.314, -3.2625, 6.5711, 7.8452, 2.3469]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, false, false, 0.5, &[0.6875, 3.1875, 2.0625]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, false, false, 0.8, &[2.6299, 0.56738, 2.6963, -5.1865, 9.082]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, false, false, 1.7, &[3.2597, 1.356, -1.0054, 1.8558, 4.0144, 2.2149, -1.4272, -5.1935, 2.0625, 9.1277, 4.49]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, false, true, 0.5, &[0.82353, 3.1875, 2.0625]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, false, true, 0.8, &[2.6468, 0.56738, 2.6963, -5.1865, 9.0339]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, false, true, 1.7, &[3.3083, 1.4677, -1.0037, 1.8558, 4.0144, 2.2149, -1.4272, -5.1935, 2.0625, 9.1025, 4.3184]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, true, false, 0.5, &[1.543, 1.0078, 1.8516]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, true, false, 0.8, &[2.0161, 0.9734, 2.6209, -3.4579, 7.1491]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, true, false, 1.7, &[3.2597, 1.356, -1.0054, 1.8558, 4.0144, 2.2149, -1.4272, -5.1935, 2.0625, 9.1277, 4.49]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, true, true, 0.5, &[1.4393, 1.0309, 1.8582]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, true, true, 0.8, &[1.9859, 0.98062, 2.6209, -3.4579, 6.9021]),
    (Filter::Cubic(-0.5), Coordinates::HalfPixel, true, true, 1.7, &[3.3083, 1.4677, -1.0037, 1.8558, 4.0144, 2.2149, -1.4272, -5.1935, 2.0625, 9.1025, 4.3184]),
    (Filter::Linear, Coordinates::HalfPixel, true, false, 0.5, &[1.625, 1.125, 1.875]),
    (Filter::Linear, Coordinates::HalfPixel, true, false, 0.8, &[2.0769, 1.0833, 2.25, -2.5385, 6.3077]),
    (Filter::Linear, Coordinates::HalfPixel, true, false, 1.7, &[3.0, 1.4706, -0.88235, 1.7941, 3.5588, 1.7941, -0.94118, -4.4706, 2.0, 8.3824, 4.2647]),
    (Filter::Linear, Coordinates::AlignCorners, true, false, 0.6, &[2.1111, 2.2222, -0.55556, 3.5556]),
    (Filter::Linear, Coordinates::AlignCorners, true, false, 1.7, &[3.0, 0.6, 2.3842e-07, 3.0, 2.8, 1.0, -2.6, -2.2, 6.2, 6.2, 2.0]),
    (Filter::Linear, Coordinates::Asymmetric, true, false, 0.6, &[2.1111, 1.75, -0.875, 4.3333]),
    (Filter::Linear, Coordinates::Asymmetric, true, false, 1.7, &[3.0, 0.64706, -0.11765, 2.8235, 2.9412, 1.1765, -2.1765, -3.3529, 4.8823, 6.9412, 2.8235]),
    (Filter::Linear, Coordinates::PytorchHalfPixel, true, false, 0.6, &[1.5, 2.2222, -1.0, 4.625]),
    (Filter::Linear, Coordinates::PytorchHalfPixel, true, false, 1.7, &[3.0, 1.4706, -0.88235, 1.7941, 3.5588, 1.7941, -0.94118, -4.4706, 2.0, 8.3824, 4.2647]),
    (Filter::Linear, Coordinates::HalfPixelSymmetric, true, false, 0.6, &[1.3125, 2.2353, -0.76471, 4.625]),
    (Filter::Linear, Coordinates::HalfPixelSymmetric, true, false, 1.7, &[2.7647, 0.41176, 0.17647, 3.1176, 2.7647, 1.0, -2.5294, -2.5294, 5.7059, 6.5294, 2.4118]),
    (Filter::Linear, Coordinates::HalfPixel, true, true, 0.5, &[1.4286, 1.125, 1.875]),
    (Filter::Linear, Coordinates::HalfPixel, true, true, 0.8, &[2.0, 1.0833, 2.25, -2.5385, 6.3077]),
    (Filter::Linear, Coordinates::HalfPixel, true, true, 1.7, &[3.0, 1.4706, -0.88235, 1.7941, 3.5588, 1.7941, -0.94118, -4.4706, 2.0, 8.3824, 4.2647]),
    (Filter::Linear, Coordinates::AlignCorners, true, true, 0.6, &[1.8571, 2.2222, -0.55556, 4.0]),
    (Filter::Linear, Coordinates::AlignCorners, true, true, 1.7, &[3.0, 0.6, 2.3842e-07, 3.0, 2.8, 1.0, -2.6, -2.2, 6.2, 6.2, 2.0]),
    (Filter::Linear, Coordinates::Asymmetric, true, true, 0.6, &[1.8571, 1.75, -0.875, 4.3333]),
    (Filter::Linear, Coordinates::Asymmetric, true, true, 1.7, &[3.0, 0.64706, -0.11765, 2.8235, 2.9412, 1.1765, -2.1765, -3.3529, 4.8823, 6.9412, 2.8235]),
    (Filter::Linear, Coordinates::PytorchHalfPixel, true, true, 0.6, &[1.2857, 2.2222, -1.0, 4.625]),
    (Filter::Linear, Coordinates::PytorchHalfPixel, true, true, 1.7, &[3.0, 1.4706, -0.88235, 1.7941, 3.5588, 1.7941, -0.94118, -4.4706, 2.0, 8.3824, 4.2647]),
    (Filter::Linear, Coordinates::HalfPixelSymmetric, true, true, 0.6, &[1.2, 2.2353, -0.76471, 4.8]),
    (Filter::Linear, Coordinates::HalfPixelSymmetric, true, true, 1.7, &[2.7647, 0.41176, 0.17647, 3.1176, 2.7647, 1.0, -2.5294, -2.5294, 5.7059, 6.5294, 2.4118]),
];

#[test]
fn filters_are_those_of_onnx_runtime() {
    for &(filter, coordinates, antialias, exclude_outside, scale, wanted) in REFERENCES {
        let op = ResizeAxis { antialias, exclude_outside, ..axis(filter, coordinates, scale, wanted.len()) };
        check_row(&op, wanted);
    }
}

#[test]
#[rustfmt::skip]
fn crops_are_those_of_onnx_runtime() {
    let (nearest, linear, cubic) = (Filter::Nearest(Rounding::PreferFloor), Filter::Linear, Filter::Cubic(-0.75));
    let rows: [(Filter, f32, f32, [f32; 10]); 6] = [
        (nearest, 0.2, 0.7, [-1.0, 4.0, 4.0, 4.0, 1.0, 1.0, 1.0, -5.0, -5.0, -5.0]),
        (nearest, -0.3, 1.2, [7.0, 7.0, 3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 7.0, 7.0]),
        (linear, 0.2, 0.7, [0.0, 1.6667, 3.3333, 3.4, 2.4, 1.4, -0.2, -2.2, -4.2, -2.2]),
        (linear, 0.9, 0.1, [6.2, 7.1333, -0.33334, -3.8, -0.6, 1.8, 3.4, 2.3333, -0.33333, 0.6]),
        (cubic, -0.3, 1.2, [7.0, 7.0, 2.176, -0.432, 4.096, -0.68, -2.944, 9.112, 7.0, 7.0]),
        (cubic, 0.9, 0.1, [7.796, 7.8864, -0.87038, -5.36, -1.3333, 2.5724, 4.096, 2.537, -0.70504, 0.011999]),
    ];
    for (filter, start, end, wanted) in rows {
        let crop = Some(Crop { start, end, outside: 7.0 });
        check_row(&ResizeAxis { crop, ..axis(filter, Coordinates::HalfPixel, 1.5, 10) }, &wanted);
    }
}

#[test]
fn half_pixels_of_the_nearest_are_those_of_onnx_runtime() {
    let of = |rounding| axis(Filter::Nearest(rounding), Coordinates::TfHalfPixel, 1.7, 11);
    check_row(&of(Rounding::Floor), &[3.0, 3.0, -1.0, 4.0, 4.0, 1.0, 1.0, -5.0, 9.0, 9.0, 2.0]);
    check_row(&of(Rounding::PreferFloor), &[3.0, -1.0, -1.0, 4.0, 1.0, 1.0, -5.0, -5.0, 9.0, 2.0, 2.0]);
}

#[test]
fn every_axis_of_a_tensor_agrees() {
    let mut random = Random(91);
    for dims in [&[5][..], &[2, 5, 3], &[5, 7], &[3, 2, 5], &[2, 3, 4, 5, 2], &[0, 5], &[5, 0]] {
        for at in (0..dims.len()).filter(|&at| dims[at] == 5) {
            let out = 1 + random.below(9);
            let op = axis(Filter::Cubic(-0.75), Coordinates::HalfPixel, out as f32 / 5.0, out);
            check(ResizeAxis { axis: at, antialias: true, ..op }, &[random.floats(dims)], 1e-5);
        }
    }
}

#[test]
fn impossible_sizes_are_refused() {
    let x = Random(92).floats(&[5]);
    let refused = |op: ResizeAxis| op.infer(&[x.fact()]).is_err();
    let op = axis(Filter::Linear, Coordinates::HalfPixel, 0.5, 2);
    assert!(!refused(op.clone()) && !refused(ResizeAxis { antialias: true, ..op.clone() }));
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(refused(ResizeAxis { scale, ..op.clone() }));
    }
    assert!(refused(ResizeAxis { axis: 1, ..op.clone() }));
    assert!(refused(ResizeAxis { out: usize::MAX, ..op.clone() }));
    let long = |out| ResizeAxis { out, scale: out as f32 / 5.0, ..op.clone() };
    assert!(!refused(long(1 << 21)) && refused(long((1 << 21) + 1)), "a table of any size");
    assert!(refused(ResizeAxis { antialias: true, scale: 1e-9, ..op.clone() }), "a window of millions");
    assert!(refused(ResizeAxis { antialias: true, out: 50, ..op.clone() }));
    assert!(refused(ResizeAxis { filter: Filter::Cubic(f32::NAN), ..op }));
    let none = Random(93).floats(&[0]);
    assert!(axis(Filter::Linear, Coordinates::HalfPixel, 1.0, 1).infer(&[none.fact()]).is_err());
}

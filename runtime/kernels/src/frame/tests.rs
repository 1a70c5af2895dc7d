//! Both passes against their formulas on odd shapes, with unreadable pages at the ends of every buffer.

use super::*;
use crate::guard::{Edge, Guarded};
use crate::testing::{Random, assert_close};

/// Calls `f` for every instruction set of this CPU, with buffers at both edges.
fn everywhere(mut f: impl FnMut(Isa, Edge)) {
    for isa in Isa::available() {
        Edge::BOTH.into_iter().for_each(|edge| f(isa, edge));
    }
}

fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// Random taps within `samples`: weights are not negative and sum to 1.
fn taps(random: &mut Random, outputs: usize, samples: usize) -> Vec<Tap> {
    (0..outputs)
        .map(|_| {
            let count = 1 + random.below(samples.min(40));
            let raw: Vec<f64> = (0..count).map(|_| random.below(1000) as f64 + 1.0).collect();
            let total: f64 = raw.iter().sum();
            let weights = raw.into_iter().map(|w| w / total).collect();
            Tap { first: random.below(samples - count + 1), weights }
        })
        .collect()
}

#[test]
fn rows_are_summed_down() {
    let mut random = Random::new(41);
    for case in 0..300 {
        let (len, rows) = (random.length() + 32 * random.below(3), 1 + random.below(13));
        let stride = len + random.below(3) * random.length();
        let [tap] = taps(&mut random, 1, rows).try_into().unwrap();
        let packed = Down::pack(std::slice::from_ref(&tap));
        let line_bits = random.below(8) as u32;
        let x = bytes(&mut random, (tap.weights.len() - 1) * stride + len);
        everywhere(|isa, edge| {
            let x = Guarded::new(&x, edge);
            let mut line = Guarded::new(&vec![-1i16; len], edge);
            let (first, weights) = packed.row(0);
            assert_eq!(first, tap.first);
            down(isa, FrameRows { bytes: &x, stride }, weights, packed.shift(line_bits), &mut line);
            for (i, &got) in line.iter().enumerate() {
                let exact: f64 = tap.weights.iter().enumerate().map(|(t, w)| w * f64::from(x[t * stride + i])).sum();
                let got = f64::from(got) / f64::from(1 << line_bits);
                let half = 0.5 / f64::from(1 << line_bits);
                assert!((got - exact).abs() <= half + 0.05, "case {case} {isa} at {i}: {got} instead of {exact}");
            }
            let mut reference = vec![0i16; len];
            scalar::down(FrameRows { bytes: &x, stride }, weights, packed.shift(line_bits), &mut reference);
            assert_eq!(*line, *reference, "case {case} {isa}");
        });
    }
}

fn color(random: &mut Random, gray: bool, unit: f32) -> Color {
    let mut row = || [random.number(), random.number(), random.number()];
    Color {
        matrix: [row(), row(), row()].map(|row| row.map(|m| m * 2.0 / 255.0 / unit)),
        bias: row(),
        low: row().map(|x| x - 1.0),
        high: row().map(|x| x + 1.0),
        gray: gray.then(|| [0.3, 0.6, 0.1, random.number()]),
    }
}

/// A component of the source.
struct Component {
    lines: Vec<i16>,
    /// Elements from one line to the next.
    stride: usize,
    taps: Vec<Tap>,
    packed: Across,
    /// Elements from one sample to the next.
    step: usize,
    sample: SampleWidth,
}

/// The formula in double precision: the channels of one pixel.
fn pixel(inputs: &[Component], color: &Color, line: usize, output: usize) -> Vec<f64> {
    let sums: Vec<f64> = inputs
        .iter()
        .map(|Component { lines, stride, taps, packed, step, sample }| {
            let tap = &taps[output];
            let at = |t: usize| {
                let at = line * stride + (tap.first + t) * step;
                let first = f64::from(lines[at]);
                if *sample == SampleWidth::Byte { first } else { first / 256.0 + f64::from(lines[at + 1]) }
            };
            let unit = f64::from(packed.unit()) / f64::from(1 << packed.line_bits());
            tap.weights.iter().enumerate().map(|(t, w)| w * at(t)).sum::<f64>() * unit
        })
        .collect();
    let channel = |c: usize| {
        let products = sums.iter().zip(color.matrix[c]).map(|(sum, m)| sum * f64::from(m));
        (f64::from(color.bias[c]) + products.sum::<f64>()).clamp(color.low[c].into(), color.high[c].into())
    };
    let channels = [channel(0), channel(1), channel(2)];
    match color.gray {
        Some([r, g, b, one]) => {
            let sum = channels.iter().zip([r, g, b]).map(|(x, w)| x * f64::from(w)).sum::<f64>();
            vec![sum + f64::from(one)]
        }
        None => channels.to_vec(),
    }
}

#[test]
fn lines_are_summed_across() {
    let mut random = Random::new(42);
    for case in 0..400 {
        let (outputs, lines) = (random.length(), 1 + random.below(LINES));
        let beside = random.below(2) == 0;
        let lines = if beside { lines } else { 1 };
        let count = [1, 3][random.below(2)];
        let inputs: Vec<_> = (0..count)
            .map(|_| {
                let sample = [SampleWidth::Byte, SampleWidth::Word][random.below(2)];
                let (samples, step) = (1 + random.below(90), sample.bytes() + random.below(4));
                let taps = taps(&mut random, outputs, samples);
                let packed = Across::pack(&taps, step, sample);
                let stride = packed.reach() + random.below(20);
                let top = 255usize << packed.line_bits();
                let len = (lines - 1) * stride + packed.reach();
                let lines = (0..len).map(|_| random.below(top + 1) as i16).collect();
                Component { lines, stride, taps, packed, step, sample }
            })
            .collect();
        let gray = random.below(3) == 0;
        let mut color = color(&mut random, gray, 1.0);
        for (j, input) in inputs.iter().enumerate() {
            color.matrix.iter_mut().for_each(|row| row[j] /= input.packed.unit());
        }
        let layout = [ChannelOrder::Planar, ChannelOrder::Interleaved][random.below(2)];
        let step = lines + random.below(5);
        let (course, size) = if beside {
            (Course::Beside { lines, step }, (outputs - 1) * step + lines)
        } else {
            (Course::Along, outputs)
        };
        let at = random.below(7);
        let (pixels, channels) = (at + size + random.below(3), color.channels());
        let unwritten = -12345.0f32;
        let mut expected = vec![unwritten; pixels * channels];
        for line in 0..lines {
            for output in 0..outputs {
                let pixel_at = at + if beside { output * step + line } else { output };
                for (c, value) in pixel(&inputs, &color, line, output).into_iter().enumerate() {
                    let to =
                        if layout == ChannelOrder::Planar { c * pixels + pixel_at } else { pixel_at * channels + c };
                    expected[to] = value as f32;
                }
            }
        }
        everywhere(|isa, edge| {
            let lines: Vec<_> = inputs.iter().map(|input| Guarded::new(&input.lines, edge)).collect();
            let arguments: Vec<_> = inputs
                .iter()
                .zip(&lines)
                .map(|(Component { stride, packed: taps, .. }, lines)| ComponentLines { lines, stride: *stride, taps })
                .collect();
            let mut out = Guarded::new(&vec![unwritten; expected.len()], edge);
            across(isa, &arguments, &color, layout, course, at, &mut out);
            // A level is 2 / 255 here, and weights err by less than a twentieth of one.
            assert_close(&out, &expected, 1e-3, &format!("case {case} {isa} {layout:?} {course:?}"));
        });
    }
}

#[test]
fn one_sample_is_exact_and_white_stays_white() {
    let mut random = Random::new(43);
    let alone = Tap { first: 0, weights: vec![1.0] };
    let down_taps = Down::pack(std::slice::from_ref(&alone));
    let across_taps = Across::pack(&[alone], 1, SampleWidth::Byte);
    let wide = taps(&mut random, 3, 500);
    let white = Down::pack(&wide);
    everywhere(|isa, _| {
        let all: Vec<u8> = (0..=255).collect();
        let mut line = vec![0i16; 256];
        let shift = down_taps.shift(across_taps.line_bits());
        down(isa, FrameRows { bytes: &all, stride: 256 }, down_taps.row(0).1, shift, &mut line);
        for (byte, number) in line.iter().enumerate() {
            assert_eq!(f64::from(*number), byte as f64 * f64::from(1 << across_taps.line_bits()), "{isa}");
        }
        for i in 0..3 {
            let weights = white.row(i).1;
            let mut line = [0i16; 33];
            down(
                isa,
                FrameRows { bytes: &vec![255; 33 * weights.len()], stride: 33 },
                weights,
                white.shift(7),
                &mut line,
            );
            assert_eq!(line, [255 << 7; 33], "{isa}");
        }
    });
}

#[test]
fn weights_of_a_great_reduction_keep_their_precision() {
    // 4000 rows become one: the 8000 weights of a triangle would round to zero in 15 bits.
    let raw: Vec<f64> = (0..8000).map(|i| 1.0 - (f64::from(i) + 0.5 - 4000.0).abs() / 4000.0).collect();
    let total: f64 = raw.iter().sum();
    let tap = Tap { first: 0, weights: raw.iter().map(|w| w / total).collect() };
    let packed = Down::pack(std::slice::from_ref(&tap));
    let x: Vec<u8> = (0..8000).map(|i| if i % 3 == 0 { 255 } else { (i % 200) as u8 }).collect();
    let exact: f64 = tap.weights.iter().zip(&x).map(|(w, &x)| w * f64::from(x)).sum();
    let mut line = [0i16];
    down(Isa::Scalar, FrameRows { bytes: &x, stride: 1 }, packed.row(0).1, packed.shift(7), &mut line);
    assert!((f64::from(line[0]) / 128.0 - exact).abs() < 0.05);
}

#[test]
fn words_of_one_value_keep_it() {
    let mut random = Random::new(44);
    for count in [1, 2, 3, 7, 40] {
        let [tap] = taps(&mut random, 1, count).try_into().unwrap();
        let packed = Across::pack(&[tap], 2, SampleWidth::Word);
        let color = Color {
            matrix: [[1.0 / packed.unit()]; 3].map(|[unit]| [unit, 0.0, 0.0]),
            bias: [0.0; 3],
            low: [0.0; 3],
            high: [256.0; 3],
            gray: None,
        };
        for value in [0u16, 0x40, 0x7fc0, 0xabc0, 0xffc0, 0xffff] {
            let bytes = value.to_le_bytes().map(|byte| i16::from(byte) << packed.line_bits());
            let lines: Vec<i16> = bytes.into_iter().cycle().take(packed.reach()).collect();
            everywhere(|isa, _| {
                let input = ComponentLines { lines: &lines, stride: lines.len(), taps: &packed };
                let mut out = [0.0; 3];
                across(isa, &[input], &color, ChannelOrder::Planar, Course::Along, 0, &mut out);
                assert_eq!(out, [f32::from(value) / 256.0; 3], "{isa} {count} {value:x}");
            });
        }
    }
}

#[test]
#[should_panic(expected = "a row for each weight")]
fn rows_that_end_early_are_refused() {
    down(Isa::Scalar, FrameRows { bytes: &[0; 9], stride: 5 }, &[1, 1], 1, &mut [0; 5]);
}

#[test]
#[should_panic(expected = "every pixel is one of the output")]
fn pixels_outside_the_output_are_refused() {
    let alone = Tap { first: 0, weights: vec![1.0] };
    let taps = Across::pack(&[alone.clone(), alone], 1, SampleWidth::Byte);
    let input = ComponentLines { lines: &[0; 16], stride: 16, taps: &taps };
    let color = Color { matrix: [[1.0; 3]; 3], bias: [0.0; 3], low: [0.0; 3], high: [1.0; 3], gray: None };
    across(Isa::Scalar, &[input], &color, ChannelOrder::Planar, Course::Along, 1, &mut [0.0; 6]);
}

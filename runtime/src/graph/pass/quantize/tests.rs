//! Small quantized graphs, as a quantizer writes them: after the pass they are computed in 8 bits, and give the same
//! elements as in floats, or adjacent ones.

use super::*;
use crate::Isa;
use crate::ops::check::{Random, planned};
use crate::ops::conv::Conv;
use crate::ops::dequantize::Dequantize;
use crate::ops::image::Layout;
use crate::ops::matmul::MatMul;
use crate::ops::unary::{Unary, UnaryKind};

/// A quantized graph under construction, with activations in `dtype`.
struct Build {
    graph: Graph,
    dtype: DType,
    random: Random,
}

impl Build {
    fn new(dtype: DType) -> Self {
        Self { graph: Graph::new(), dtype, random: Random(dtype.size() as u64 + u64::from(dtype == DType::I8)) }
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        let name = format!("n{}", self.graph.nodes.len());
        self.graph.add_node(name, op, inputs).unwrap()[0]
    }

    fn scheme(&mut self, scale: f32, zero: u8) -> [ValueId; 2] {
        let zero = match self.dtype {
            DType::I8 => Tensor::scalar(flip(zero).cast_signed()),
            _ => Tensor::scalar(zero),
        };
        [
            self.graph.add_constant("scale", Tensor::scalar(scale)).unwrap(),
            self.graph.add_constant("zero", zero).unwrap(),
        ]
    }

    /// `x -> Quantize -> Dequantize`
    fn bytes(&mut self, x: ValueId, scale: f32, zero: u8) -> ValueId {
        let [scale, zero] = self.scheme(scale, zero);
        let to = self.dtype;
        let bytes = self.add(Quantize { axis: 1, to }, &[x, scale, zero]);
        self.add(Dequantize { axis: 1 }, &[bytes, scale, zero])
    }

    fn input(&mut self, dims: &[usize]) -> ValueId {
        let x = self.graph.add_input("x", Fact::new(DType::F32, Shape::new(dims).unwrap())).unwrap();
        self.bytes(x, 0.03, 130)
    }

    /// Weights and a bias for as many filters as `dims` has along `axis`, for activations with the scale `x_scale`.
    fn weights(&mut self, dims: &[usize], axis: usize, x_scale: f32) -> [ValueId; 2] {
        let scales: Vec<f32> = (0..dims[axis]).map(|_| 0.02 * (0.5 + self.random.float().abs())).collect();
        let units: Vec<f32> = scales.iter().map(|scale| scale * x_scale).collect();
        [self.constant(DType::I8, dims, axis, &scales), self.constant(DType::I32, &[scales.len()], 0, &units)]
    }

    /// Constants in `dtype` with a scale for each index of `axis`.
    fn constant(&mut self, dtype: DType, dims: &[usize], axis: usize, scales: &[f32]) -> ValueId {
        let channels = scales.len();
        let scales = self.graph.add_constant("scales", Tensor::from_slice(&[channels], scales).unwrap()).unwrap();
        let zeros = Tensor::zeros(Fact::new(dtype, Shape::new(&[channels]).unwrap()));
        let zeros = self.graph.add_constant("zeros", zeros).unwrap();
        let values = self.random.tensor(dtype, dims);
        let values = self.graph.add_constant("values", values).unwrap();
        self.add(Dequantize { axis }, &[values, scales, zeros])
    }

    fn conv(&mut self, x: ValueId, x_scale: f32, filters: usize, kernel: usize, groups: usize) -> ValueId {
        let depth = self.graph.fact(x).shape[1] / groups;
        let [weights, bias] = self.weights(&[filters, depth, kernel, kernel], 0, x_scale);
        let conv = Conv {
            kernel: [kernel; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pads: [kernel / 2; 4],
            groups,
            layout: Layout::Nchw,
            activation: Activation::None,
            ..Conv::POINTWISE
        };
        self.add(conv, &[x, weights, bias])
    }

    /// Optimizes the graph with the output `y`, compares it with the original and returns its operators. Floats may
    /// differ by `step`, a quantum.
    fn check(mut self, y: ValueId, step: f32) -> Vec<String> {
        self.graph.outputs.push(("y".into(), y));
        let inputs = [self.random.floats(&self.graph.fact(self.graph.inputs[0]).shape.clone())];
        let want = self.graph.evaluate(&inputs).unwrap().remove(0);
        let mut fast = self.graph.copy().unwrap();
        crate::graph::optimize(&mut fast).unwrap();
        fast.check().unwrap();
        let mut got = vec![fast.evaluate(&inputs).unwrap().remove(0)];
        got.extend(Isa::available().map(|isa| planned(&self.graph, isa, &inputs).unwrap().remove(0)));
        for got in &got {
            assert_eq!(got.fact(), want.fact());
            let values = |t: &Tensor| match t.dtype() {
                DType::U8 => t.bytes().iter().map(|&b| f32::from(b)).collect(),
                DType::I8 => t.bytes().iter().map(|&b| f32::from(b.cast_signed())).collect(),
                _ => t.elements::<f32>().unwrap().to_vec(),
            };
            let (got, want) = (values(got), values(&want));
            let differ = got.iter().zip(&want).filter(|(g, w)| (*g - *w).abs() > step * 0.01).count();
            assert!(differ * 20 <= want.len().max(20), "{differ} of {} differ", want.len());
            assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= step * 1.01), "{got:?} is not {want:?}");
        }
        fast.nodes.iter().map(|node| node.op.name().to_owned()).collect()
    }
}

const TYPES: [DType; 2] = [DType::U8, DType::I8];

/// The operators except those at the edges: conversions and layouts.
fn inner(operators: Vec<String>) -> Vec<String> {
    let edges = ["Quantize", "Dequantize", "Transpose", "Reshape"];
    operators.into_iter().filter(|name| !edges.contains(&name.as_str())).collect()
}

#[test]
fn convolutions_and_their_bounds_are_computed_in_bytes() {
    for dtype in TYPES {
        let mut b = Build::new(dtype);
        let x = b.input(&[1, 8, 6, 5]);
        let y = b.conv(x, 0.03, 12, 3, 1);
        let y = b.add(Activate { activation: Activation::Relu }, &[y]);
        let y = b.bytes(y, 0.02, 0);
        let y = b.conv(y, 0.02, 12, 3, 12);
        let y = b.bytes(y, 0.05, 100);
        assert_eq!(inner(b.check(y, 0.05)), ["QConv", "QConv"], "{dtype}");
    }
}

#[test]
fn bytes_at_the_edges_of_the_model_keep_their_type() {
    for dtype in TYPES {
        let mut b = Build::new(dtype);
        let x = b.input(&[1, 4, 5, 5]);
        let y = b.conv(x, 0.03, 8, 1, 1);
        let [scale, zero] = b.scheme(0.04, 90);
        let y = b.add(Quantize { axis: 1, to: dtype }, &[y, scale, zero]);
        let want: &[&str] = if dtype == DType::I8 { &["QConv", "LookUp"] } else { &["QConv"] };
        assert_eq!(inner(b.check(y, 1.0)), want, "{dtype}");
    }
}

#[test]
fn a_product_that_is_read_as_floats_is_still_computed_in_bytes() {
    for dtype in TYPES {
        let mut b = Build::new(dtype);
        let x = b.input(&[1, 4, 5, 5]);
        let y = b.conv(x, 0.03, 8, 3, 1);
        assert_eq!(inner(b.check(y, 1e-3)), ["QConv"], "{dtype}");
    }
}

#[test]
fn matrix_products_with_a_bias_are_convolutions_of_one_tap() {
    for (dtype, transposed) in [(DType::U8, true), (DType::I8, false)] {
        let mut b = Build::new(dtype);
        let x = b.input(&[3, 20]);
        let shape = |dims: &[usize]| Reshape { shape: Shape::new(dims).unwrap() };
        let x = b.add(shape(&[1, 3, 20]), &[x]);
        let (dims, axis) = if transposed { ([7, 20], 0) } else { ([20, 7], 1) };
        let [w, bias] = b.weights(&dims, axis, 0.03);
        let w = b.add(shape(&[1, dims[0], dims[1]]), &[w]);
        let y = b.add(MatMul { transposed, activation: Activation::None }, &[x, w]);
        let y = b.add(shape(&[3, 7]), &[y]);
        let bias = b.add(shape(&[1, 7]), &[bias]);
        let y = b.add(Binary::new(BinaryKind::Add), &[y, bias]);
        let y = b.bytes(y, 0.05, 128);
        assert_eq!(inner(b.check(y, 0.05)), ["QConv"], "{dtype}");
    }
}

#[test]
fn sums_products_and_means_are_computed_in_bytes() {
    for dtype in TYPES {
        let mut b = Build::new(dtype);
        let x = b.input(&[1, 8, 6, 6]);
        let y = b.conv(x, 0.03, 8, 3, 1);
        let y = b.bytes(y, 0.05, 120);
        // Sums of quanta of 0.05 and 0.03 are never halfway between two of these, where floats could round either way.
        let y = b.add(Binary::new(BinaryKind::Add), &[y, x]);
        let y = b.bytes(y, 0.061, 120);
        let mean = b.add(Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: true }, &[y]);
        let mean = b.bytes(mean, 0.023, 120);
        let y = b.add(Binary::new(BinaryKind::Mul), &[mean, y]);
        let y = b.bytes(y, 0.05, 128);
        assert_eq!(inner(b.check(y, 0.3)), ["QConv", "QAdd", "QAveragePool", "QMul"], "{dtype}");
    }
}

#[test]
fn a_function_of_one_element_becomes_a_table_after_its_convolution() {
    for dtype in TYPES {
        for shared in [false, true] {
            let mut b = Build::new(dtype);
            let x = b.input(&[1, 4, 6, 6]);
            let y = b.conv(x, 0.03, 8, 1, 1);
            let linear = b.bytes(y, 0.05, 128);
            let y = b.add(Activate { activation: Activation::HardSwish }, &[linear]);
            let y = b.add(Unary { kind: UnaryKind::Neg }, &[y]);
            let mut y = b.bytes(y, 0.03, 128);
            if shared {
                // The quantized tensor before the function is read too.
                y = b.add(Binary::new(BinaryKind::Add), &[y, linear]);
                y = b.bytes(y, 0.06, 128);
            }
            let want: &[&str] = if shared { &["QConv", "LookUp", "QAdd"] } else { &["QConv"] };
            assert_eq!(inner(b.check(y, 0.06)), want, "{dtype} {shared}");
        }
    }
}

#[test]
fn operators_that_only_move_elements_move_bytes() {
    for dtype in TYPES {
        let mut b = Build::new(dtype);
        let x = b.input(&[1, 4, 6, 6]);
        let pool = Pool {
            function: PoolFn::Max,
            kernel: [2, 2],
            stride: [2, 2],
            dilation: [1, 1],
            pads: [0; 4],
            out: [3, 3],
            layout: Layout::Nchw,
        };
        let y = b.add(pool, &[x]);
        let y = b.bytes(y, 0.03, 130);
        let y = b.conv(y, 0.03, 8, 3, 1);
        let y = b.bytes(y, 0.05, 128);
        let y = b.add(Reduce { axes: vec![2, 3], kind: ReduceKind::Max, keep_dims: false }, &[y]);
        let y = b.bytes(y, 0.05, 128);
        assert_eq!(inner(b.check(y, 0.05)), ["MaxPool", "QConv", "MaxPool"], "{dtype}");
    }
}

#[test]
fn operators_that_do_not_match_stay_in_floats() {
    // The convolution's result is read twice, once in floats.
    let mut b = Build::new(DType::U8);
    let x = b.input(&[1, 4, 6, 6]);
    let y = b.conv(x, 0.03, 4, 3, 1);
    let bytes = b.bytes(y, 0.05, 128);
    let y = b.add(Binary::new(BinaryKind::Sub), &[y, bytes]);
    assert_eq!(inner(b.check(y, 0.06)), ["QConv", "Sub"]);
    // An activation between the convolution and its quantized result that is not a bound.
    let mut b = Build::new(DType::U8);
    let x = b.input(&[1, 4, 6, 6]);
    let y = b.conv(x, 0.03, 4, 3, 1);
    let y = b.add(Activate { activation: Activation::HardSwish }, &[y]);
    let y = b.bytes(y, 0.05, 128);
    assert_eq!(inner(b.check(y, 0.06)), ["QConv", "HardSwish"]);
}

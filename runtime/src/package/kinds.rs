//! Packages that are well formed, small and hostile, one of each kind that once did harm, opened under the default limits.

use super::attack::{Sections, attacks};
use super::*;
use crate::model::Model;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::broadcast::Expand;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::options::Options;
use crate::tensor::{DType, Fact, Shape, Tensor};
use skipstone_kernels::activation::Activation;

fn fact(dims: &[usize]) -> Fact {
    Fact::new(DType::F32, Shape::new(dims).unwrap())
}

fn relu() -> Activate {
    Activate { activation: Activation::Relu }
}

/// Opens a package of the graph as it is.
fn open(graph: &Graph) -> Result<Model> {
    let package = write(graph, &Info::default(), None, None)?;
    Model::from_bytes(&package, &Options::default())
}

#[track_caller]
fn refused(graph: &Graph, code: &str) {
    match open(graph) {
        Ok(_) => panic!("opened"),
        Err(error) => assert_eq!(error.code(), code, "{error}"),
    }
}

/// A convolution whose one step would take a minute.
#[test]
fn one_step_of_a_few_bytes() {
    let mut graph = Graph::new();
    let x = graph.add_input("x", fact(&[1, 1024, 1024, 4])).unwrap();
    let w = graph.add_input("w", fact(&[64, 4, 512, 512])).unwrap();
    let bias = graph.add_input("bias", fact(&[64])).unwrap();
    let conv = Conv { kernel: [512; 2], pads: [256; 4], layout: Layout::Nhwc, ..Conv::POINTWISE };
    let y = graph.add_node("conv", conv, &[x, w, bias]).unwrap()[0];
    graph.outputs.push(("y".into(), y));
    refused(&graph, "model.limit");
}

/// Half a billion elements of one.
#[test]
fn a_tensor_of_a_few_bytes() {
    let mut graph = Graph::new();
    let x = graph.add_input("x", fact(&[1])).unwrap();
    let y = graph.add_node("expand", Expand { shape: Shape::new(&[1 << 29]).unwrap() }, &[x]).unwrap()[0];
    graph.outputs.push(("y".into(), y));
    refused(&graph, "model.limit");
}

/// Thousands of convolutions with one weight, each with its own packed form of it.
#[test]
fn one_weight_of_many_convolutions() {
    let mut graph = Graph::new();
    let mut x = graph.add_input("x", fact(&[1, 1, 1, 64])).unwrap();
    let weights = graph.add_constant("w", Tensor::zeros(fact(&[64, 64, 1, 1]))).unwrap();
    let bias = graph.add_constant("b", Tensor::zeros(fact(&[64]))).unwrap();
    for index in 0..1000 {
        let conv = Conv { layout: Layout::Nhwc, ..Conv::POINTWISE };
        x = graph.add_node(format!("conv{index}"), conv, &[x, weights, bias]).unwrap()[0];
    }
    graph.outputs.push(("y".into(), x));
    let model = open(&graph).unwrap();
    let steps = &model.plan().unwrap().steps;
    let first = steps[0].choice.packed[0].as_ptr();
    assert!(steps.iter().all(|step| step.choice.packed[0].as_ptr() == first));
}

/// Tensors of which each lives until its mirror image is computed.
#[test]
fn tensors_that_all_live_long() {
    let mut graph = Graph::new();
    let x = graph.add_input("x", fact(&[16])).unwrap();
    let mut held = vec![x];
    for index in 0..1500 {
        held.push(graph.add_node(format!("first{index}"), relu(), &[held[index]]).unwrap()[0]);
    }
    let mut y = x;
    for (index, id) in held.into_iter().rev().enumerate() {
        y = graph.add_node(format!("second{index}"), Binary::new(BinaryKind::Add), &[y, id]).unwrap()[0];
    }
    graph.outputs.push(("y".into(), y));
    let model = open(&graph).unwrap();
    let mut session = model.session().unwrap();
    let x = Tensor::from_slice(&[16], &[0.5f32; 16]).unwrap();
    session.run(&[x.view()]).unwrap();
    assert_eq!(session.output(0).unwrap().to_tensor().bytes(), graph.evaluate(&[x]).unwrap()[0].bytes());
}

/// Images without channels: a block of no bytes once lay at an address that no kernel takes.
#[test]
fn no_channels() {
    let mut graph = Graph::new();
    let x = graph.add_input("x", fact(&[1, 4, 4, 0])).unwrap();
    let weights = graph.add_constant("w", Tensor::zeros(fact(&[8, 0, 1, 1]))).unwrap();
    let bias = graph.add_constant("b", Tensor::from_slice(&[8], &[2f32; 8]).unwrap()).unwrap();
    let conv = Conv { layout: Layout::Nhwc, ..Conv::POINTWISE };
    let Ok(y) = graph.add_node("conv", conv, &[x, weights, bias]) else { return };
    graph.outputs.push(("y".into(), y[0]));
    if let Ok(model) = open(&graph) {
        let mut session = model.session().unwrap();
        session.run(&[Tensor::zeros(fact(&[1, 4, 4, 0])).view()]).unwrap();
        assert_eq!(session.output(0).unwrap().elements::<f32>(), Some(&[2f32; 128][..]));
    }
}

/// A graph that a byte of the package has changed still answers as its plain evaluation does.
#[test]
fn packages_agree_with_the_plain_evaluation() {
    let mut graph = Graph::new();
    let x = graph.add_input("x", fact(&[1, 4, 4, 8])).unwrap();
    let weights = graph.add_constant("w", Tensor::from_slice(&[8, 8, 1, 1], &[0.25f32; 64]).unwrap()).unwrap();
    let bias = graph.add_constant("b", Tensor::from_slice(&[8], &[0.5f32; 8]).unwrap()).unwrap();
    let conv = Conv { layout: Layout::Nhwc, ..Conv::POINTWISE };
    let y = graph.add_node("conv", conv, &[x, weights, bias]).unwrap()[0];
    let y = graph.add_node("relu", relu(), &[y]).unwrap()[0];
    graph.outputs.push(("y".into(), y));
    let whole = Sections::of(&write(&graph, &Info::default(), None, None).unwrap());
    let (mut opened, limits) = (0, super::attack::limits());
    for (at, byte) in (0..whole.graph.len()).flat_map(|at| (0..attacks(16) as u8).map(move |byte| (at, byte))) {
        let mut sections = whole.clone();
        sections.graph[at] = byte;
        opened += usize::from(super::attack::agrees(&sections.package(), &limits));
    }
    assert!(opened > attacks(100) as usize, "{opened} of them opened");
}

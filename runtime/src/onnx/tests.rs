//! From the bytes of a model to its results: what no part of the front end could test alone.

use super::validate::tests::{FLOAT, graph, int, message, model, node, value, with, zeros};
use crate::{Model, Options, Tensor};

fn load(bytes: &[u8]) -> crate::Result<Model> {
    Model::from_bytes(bytes, &Options::default())
}

/// Code and text of the error that a model gives.
#[track_caller]
fn refused(bytes: &[u8]) -> (&'static str, String) {
    match load(bytes) {
        Ok(_) => panic!("the model was accepted"),
        Err(error) => (error.code(), error.to_string()),
    }
}

#[test]
fn names_survive_nodes_that_change_nothing() {
    let nodes = [
        node("Identity", &["image"], &["same"], &[]),
        node("Relu", &["same"], &["scores"], &[]),
        node("Identity", &["scores"], &["again"], &[]),
    ];
    let outputs = ["again", "scores", "same"].map(|name| message().text(1, name));
    let loaded = load(&model(&graph(&nodes, &[], &[value("image", FLOAT, &[2])], &outputs))).unwrap();
    let names = |ports: &[crate::plan::Port]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(loaded.inputs()), ["image"]);
    assert_eq!(names(loaded.outputs()), ["again", "scores", "same"]);
    let mut session = loaded.session().unwrap();
    session.run(&[Tensor::from_slice(&[2], &[-1f32, 3.0]).unwrap().view()]).unwrap();
    for (index, want) in [[0.0, 3.0], [0.0, 3.0], [-1.0, 3.0]].iter().enumerate() {
        assert_eq!(session.output(index).unwrap().elements::<f32>().unwrap(), want);
    }
}

#[test]
fn shapes_that_do_not_broadcast_are_refused_though_the_front_end_takes_them() {
    let nodes = [node("Relu", &["a"], &["c"], &[]), node("Add", &["c", "b"], &["y"], &[])];
    let inputs = [value("a", FLOAT, &[1, 3]), value("b", FLOAT, &[1, 4])];
    let (code, text) = refused(&model(&graph(&nodes, &[], &inputs, &[message().text(1, "y")])));
    assert_eq!(code, "model.node");
    assert!(text.starts_with("node 'y': ") && text.contains("1,3 and 1,4"), "{text}");
}

#[test]
fn an_axis_of_softmax_is_checked_where_only_the_front_end_knows_the_shape() {
    let softmax = |axis| {
        let nodes = [node("Conv", &["x", "w"], &["c"], &[]), node("Softmax", &["c"], &["y"], &[int("axis", axis)])];
        with(&[1, 3, 8, 8], &nodes, &[zeros("w", &[4, 3, 3, 3])])
    };
    assert!(load(&softmax(3)).is_ok());
    let (code, text) = refused(&softmax(4));
    assert_eq!(code, "model.node");
    assert!(text.starts_with("node 'y': attribute axis"), "{text}");
}

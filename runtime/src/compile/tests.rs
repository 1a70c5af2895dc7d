//! Packages for several shapes of the inputs, and for outputs whose shapes only a run knows.

use skipstone_onnx::write::{FLOAT, INT64, Message, f32s, graph, i64s, int, model, named, node, value};

use super::*;
use crate::tensor::{DType, Fact, Shape, Tensor};

const COLUMNS: usize = 64;

/// `relu(x * weights)` of rows whose number is open, and the sum of all rows.
fn rows() -> Vec<u8> {
    let weights: Vec<f32> = (0..COLUMNS * COLUMNS).map(|at| (at * 7 % 13) as f32 / 16.0 - 0.4).collect();
    let nodes = [
        node("MatMul", &["x", "weights"], &["product"], &[]),
        node("Relu", &["product"], &["y"], &[]),
        node("ReduceSum", &["y", "zero"], &["sum"], &[int("keepdims", 0)]),
    ];
    let held = [f32s("weights", &[64, 64], &weights), i64s("zero", &[1], &[0])];
    let inputs = [value("x", FLOAT, &[-1, 64])];
    model(&graph(&nodes, &held, &inputs, &[named("y"), named("sum")]))
}

fn shapes(rows: usize) -> Shapes {
    Shapes::from([("x".to_owned(), vec![rows, COLUMNS])])
}

fn x(rows: usize) -> Tensor {
    let elements: Vec<f32> = (0..rows * COLUMNS).map(|at| (at % 17) as f32 / 8.0 - 1.0).collect();
    Tensor::from_slice(&[rows, COLUMNS], &elements).unwrap()
}

fn outputs(session: &crate::Session) -> Vec<Tensor> {
    (0..2).map(|index| session.output(index).unwrap().to_tensor()).collect()
}

fn compiled(isa: Option<Isa>, sets: &[usize]) -> Vec<u8> {
    let recipe = Recipe {
        isa,
        shapes: shapes(sets[0]),
        further_shapes: sets[1..].iter().map(|&rows| shapes(rows)).collect(),
        ..Recipe::default()
    };
    compile_bytes(&rows(), &recipe, None).unwrap().0
}

#[test]
fn a_session_runs_the_plan_for_the_shapes_that_it_is_given() {
    for isa in [None, Some(Isa::detect())] {
        let package = compiled(isa, &[3, 1, 17]);
        let model = Model::from_bytes(&package, &Options::default()).unwrap();
        let sets: Vec<_> = model.shapes().map(|set| set[0].dims()[0]).collect();
        assert_eq!(sets, [3, 1, 17]);
        let mut session = model.session().unwrap();
        for rows in [3, 17, 1, 1, 3] {
            session.run(&[x(rows).view()]).unwrap();
            let alone = Model::from_bytes(&compiled(isa, &[rows]), &Options::default()).unwrap();
            let mut other = alone.session().unwrap();
            other.run(&[x(rows).view()]).unwrap();
            for (got, want) in outputs(&session).iter().zip(outputs(&other)) {
                assert_eq!((got.fact(), got.bytes()), (want.fact(), want.bytes()), "{rows} rows");
            }
        }
        let error = session.run(&[x(2).view()]).unwrap_err();
        assert_eq!(error.code(), "input.shape");
        for shape in ["3x64", "1x64", "17x64"] {
            assert!(error.to_string().contains(shape), "{error}");
        }
        let asked = Options { shapes: shapes(17), ..Options::default() };
        assert_eq!(Model::from_bytes(&package, &asked).unwrap().inputs()[0].fact.shape.dims(), [17, COLUMNS]);
        let mut one = model.session_for(&shapes(1)).unwrap();
        one.run(&[x(1).view()]).unwrap();
        assert!(one.run(&[x(3).view()]).is_err());
        assert!(model.session_for(&shapes(2)).is_err());
    }
}

#[test]
fn plans_share_weights() {
    let weights = COLUMNS * COLUMNS * 4;
    for isa in [None, Some(Isa::detect())] {
        let (one, three) = (compiled(isa, &[3]).len(), compiled(isa, &[3, 1, 17]).len());
        // Matrices are packed in one way for any number of rows, except for a single one.
        let packings = if isa.is_some() { 2 } else { 1 };
        assert!(three < one + (packings - 1) * weights + weights / 2, "{one} and {three} bytes");
    }
}

#[test]
fn the_same_shapes_twice_are_refused() {
    let recipe = Recipe { shapes: shapes(3), further_shapes: vec![shapes(3)], ..Recipe::default() };
    let error = compile_bytes(&rows(), &recipe, None).unwrap_err();
    assert!(error.to_string().contains("the same shapes twice"), "{error}");
}

/// A package of the first `k` rows and their positions.
fn best(outputs: &[&str]) -> Vec<u8> {
    let nodes = [node("TopK", &["x", "k"], &["best", "places"], &[int("axis", 0)])];
    let inputs = [value("x", FLOAT, &[5, 2]), value("k", INT64, &[1])];
    let outputs: Vec<Message> = outputs.iter().map(|name| named(name)).collect();
    let bytes = model(&graph(&nodes, &[], &inputs, &outputs));
    compile_bytes(&bytes, &Recipe::default(), None).unwrap().0
}

#[test]
fn an_output_has_the_shape_of_the_run() {
    let model = Model::from_bytes(&best(&["places", "best"]), &Options::default()).unwrap();
    assert_eq!(model.outputs()[0].fact.shape.dims(), [5, 2]);
    let mut session = model.session().unwrap();
    let x = Tensor::from_slice(&[5, 2], &[1.0f32, 9.0, 5.0, 2.0, 3.0, 4.0, 4.0, 8.0, 2.0, 7.0]).unwrap();
    let k = |k: i64| Tensor::from_slice(&[1], &[k]).unwrap();
    for (count, places) in [(2, &[1i64, 0, 3, 3][..]), (0, &[]), (1, &[1, 0])] {
        session.run(&[x.view(), k(count).view()]).unwrap();
        let y = session.output(0).unwrap();
        assert_eq!((y.fact().shape.dims(), y.elements::<i64>().unwrap()), (&[count as usize, 2][..], places));
        assert_eq!(
            *session.output(1).unwrap().fact(),
            Fact::new(DType::F32, Shape::new(&[count as usize, 2]).unwrap())
        );
    }
    for wrong in [6, -1] {
        let error = session.run(&[x.view(), k(wrong).view()]).unwrap_err();
        assert!(error.to_string().contains("a computed length is"), "{error}");
    }
}

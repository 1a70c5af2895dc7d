//! Branches and loops: their plans give the same results as plain evaluation.

use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;

use super::pass::testing::Build;
use super::{Block, Graph, ValueId};
use crate::ops::binary::BinaryKind;
use crate::ops::check::{Random, assert_close, check_package, planned};
use crate::ops::compare::{Compare, CompareKind};
use crate::ops::control::{Along, Control, Loop};
use crate::ops::conv::Conv;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::unary::UnaryKind;
use crate::tensor::{DType, Fact, Shape, Tensor};
use crate::{Model, Options};

fn fact(dtype: DType, dims: &[usize]) -> Fact {
    Fact::new(dtype, Shape::new(dims).unwrap())
}

/// Compares every instruction set's plan with plain evaluation, and a package with the plan.
#[track_caller]
fn check(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    graph.check().unwrap();
    let want = graph.evaluate(inputs).unwrap();
    for isa in Isa::available() {
        let got = planned(graph, isa, inputs).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert_close(got, want, 1e-4, "a graph with blocks");
        }
    }
    check_package(graph.copy().unwrap(), inputs);
    want
}

/// Whether the sum of `x` is above 0, as one bool.
fn is_positive(build: &mut Build, x: ValueId) -> ValueId {
    let axes = (0..build.graph.fact(x).shape.rank()).collect();
    let sum = build.add(Reduce { axes, kind: ReduceKind::Sum, keep_dims: false }, &[x]);
    let zero = build.constant(&[], &[0.0]);
    build.add(Compare { kind: CompareKind::Greater }, &[sum, zero])
}

fn control(build: &mut Build, op: impl Into<Control>, inputs: &[ValueId], blocks: Vec<Block>) -> Vec<ValueId> {
    let name = format!("control{}", build.graph.nodes.len());
    build.graph.add_control(name, op, inputs, blocks).unwrap()
}

fn conv(build: &mut Build, x: ValueId, filters: usize) -> ValueId {
    let mut random = Random(filters as u64);
    let channels = build.graph.fact(x).shape[1];
    let weights = build.graph.add_constant("w", random.floats(&[filters, channels, 3, 3])).unwrap();
    let bias = build.graph.add_constant("b", random.floats(&[filters])).unwrap();
    build.add(Conv { kernel: [3, 3], pads: [1; 4], ..Conv::POINTWISE }, &[x, weights, bias])
}

/// One branch convolves the value computed before, the other returns it unchanged.
fn branching() -> Graph {
    let mut build = Build::new(&[1, 4, 6, 5]);
    let given = build.x;
    let condition = is_positive(&mut build, given);
    let x = conv(&mut build, given, 4);
    let x = build.activate(Activation::Relu, x);
    build.graph.begin_block().unwrap();
    let wide = conv(&mut build, x, 7);
    let wide = build.activate(Activation::HardSwish, wide);
    let y = conv(&mut build, wide, 4);
    let then = build.graph.end_block(&[y, given]).unwrap();
    build.graph.begin_block().unwrap();
    let z = build.unary(UnaryKind::Abs, given);
    let otherwise = build.graph.end_block(&[x, z]).unwrap();
    let ys = control(&mut build, Control::If, &[condition], vec![then, otherwise]);
    let y = build.binary(BinaryKind::Add, ys[0], ys[1]);
    let y = build.binary(BinaryKind::Add, y, x);
    build.output(y);
    build.output(ys[1]);
    build.graph
}

#[test]
fn a_branch_returns_the_results_of_the_taken_block() {
    let graph = branching();
    let mut answers = Vec::new();
    for sign in [1.0, -1.0] {
        let x: Vec<f32> = (0..120).map(|i| sign * (i % 7) as f32 / 7.0).collect();
        answers.push(check(&graph, &[Tensor::from_slice(&[1, 4, 6, 5], &x).unwrap()]));
    }
    assert_ne!(answers[0][1].bytes(), answers[1][1].bytes());
}

#[test]
fn blocks_that_are_not_taken_do_not_run() {
    let model = Model::from_graph(branching(), &Options::default()).unwrap();
    let mut session = model.session().unwrap();
    let runs = |session: &mut crate::Session, number: f32| {
        let x = vec![number; 120];
        session.start_profile().unwrap();
        session.run(&[Tensor::from_slice(&[1, 4, 6, 5], &x).unwrap().view()]).unwrap();
        let steps = model.plan().unwrap().steps.iter().zip(session.step_runs().unwrap());
        let count = |names: &[&str]| {
            steps.clone().filter(|(step, _)| names.contains(&step.op.entry())).map(|(_, runs)| runs).sum()
        };
        (count(&["Conv", "Stem"]), count(&["Unary"]))
    };
    let taken: (u64, u64) = runs(&mut session, 1.0);
    assert_eq!(taken, (3, 0));
    assert_eq!(runs(&mut session, -1.0), (1, 1));
}

/// Two values that are swapped in every iteration, a growing sum, and every intermediate sum.
fn looping(op: Loop, limit: Option<i64>) -> Graph {
    let mut build = Build::new(&[3]);
    let x = build.x;
    let step = build.unary(UnaryKind::Abs, x);
    let other = build.unary(UnaryKind::Neg, x);
    let mut inputs = Vec::new();
    if let Some(limit) = limit {
        inputs.push(build.graph.add_constant("limit", Tensor::scalar(limit)).unwrap());
    }
    if op.conditional {
        inputs.push(is_positive(&mut build, step));
    }
    inputs.extend([x, other, x]);
    let collects = !op.collected.is_empty();
    build.graph.begin_block().unwrap();
    build.graph.add_parameter("i", fact(DType::I64, &[])).unwrap();
    let go = build.graph.add_parameter("go", fact(DType::Bool, &[])).unwrap();
    let [a, b, sum] = ["a", "b", "sum"].map(|name| build.graph.add_parameter(name, fact(DType::F32, &[3])).unwrap());
    let next = build.binary(BinaryKind::Add, sum, step);
    let mut results = if op.conditional {
        let left = build.with(BinaryKind::Sub, next, 10.0);
        let left = build.unary(UnaryKind::Neg, left);
        vec![is_positive(&mut build, left)]
    } else {
        vec![go]
    };
    results.extend([b, a, next]);
    results.extend(collects.then_some(next));
    let body = build.graph.end_block(&results).unwrap();
    for y in control(&mut build, op, &inputs, vec![body]) {
        build.output(y);
    }
    let y = build.unary(UnaryKind::Square, step);
    build.output(y);
    build.graph
}

#[test]
fn loops_with_and_without_a_limit_or_a_condition() {
    let x = [Tensor::from_slice(&[3], &[1.0f32, -2.0, 3.0]).unwrap()];
    let plain = Loop { carried: 3, ..Loop::default() };
    for limit in [0, 1, 2, 5, -3] {
        let results = check(&looping(Loop { limited: true, ..plain.clone() }, Some(limit)), &x);
        let times = limit.max(0) as f32;
        assert_eq!(results[2].elements::<f32>().unwrap(), [1.0 + times, -2.0 + 2.0 * times, 3.0 + 3.0 * times]);
        let swapped = if limit == 1 || limit == 5 { -1.0 } else { 1.0 };
        assert_eq!(results[0].elements::<f32>().unwrap()[0], swapped);
        let known = Loop { iterations: Some(times as usize), ..plain.clone() };
        assert_eq!(check(&looping(known, None), &x)[2].bytes(), results[2].bytes());
    }
    // Until the sum is above 30: it starts at 2 and grows by 6.
    let conditional = Loop { conditional: true, ..plain.clone() };
    assert_eq!(check(&looping(conditional.clone(), None), &x)[2].elements::<f32>().unwrap(), [6.0, 8.0, 18.0]);
    let both = Loop { limited: true, ..conditional };
    assert_eq!(check(&looping(both, Some(3)), &x)[2].elements::<f32>().unwrap(), [4.0, 4.0, 12.0]);
}

#[test]
fn results_are_collected_along_any_axis_from_either_end() {
    let x = [Tensor::from_slice(&[3], &[1.0f32, -2.0, 3.0]).unwrap()];
    for (axis, reverse) in [(0, false), (0, true), (1, false), (1, true)] {
        let op = Loop { iterations: Some(4), carried: 3, collected: vec![Along { axis, reverse }], ..Loop::default() };
        let results = check(&looping(op, None), &x);
        let dims = if axis == 0 { [4, 3] } else { [3, 4] };
        assert_eq!(results[3].shape().dims(), dims);
        let first = if reverse { 5.0 } else { 2.0 };
        assert_eq!(results[3].elements::<f32>().unwrap()[0], first);
    }
}

#[test]
fn several_inputs_are_scanned_in_both_directions() {
    let mut build = Build::new(&[2, 5, 3]);
    let x = build.x;
    let other = build.unary(UnaryKind::Abs, x);
    let zeros = build.constant(&[2, 3], &[0.5; 6]);
    build.graph.begin_block().unwrap();
    build.graph.add_parameter("i", fact(DType::I64, &[])).unwrap();
    let go = build.graph.add_parameter("go", fact(DType::Bool, &[])).unwrap();
    let [state, a, b] =
        ["state", "a", "b"].map(|name| build.graph.add_parameter(name, fact(DType::F32, &[2, 3])).unwrap());
    let half = build.with(BinaryKind::Mul, state, 0.5);
    let sum = build.binary(BinaryKind::Add, half, a);
    let next = build.binary(BinaryKind::Mul, sum, b);
    let body = build.graph.end_block(&[go, next, sum, b]).unwrap();
    let along = |reverse| Along { axis: 1, reverse };
    let op = Loop {
        iterations: Some(5),
        carried: 1,
        scanned: vec![along(false), along(true)],
        collected: vec![along(true), Along { axis: 2, reverse: false }],
        ..Loop::default()
    };
    for y in control(&mut build, op, &[zeros, x, other], vec![body]) {
        build.output(y);
    }
    check(&build.graph, &[Random(8).floats(&[2, 5, 3])]);
}

#[test]
fn blocks_in_blocks() {
    let mut build = Build::new(&[2, 3]);
    let x = build.x;
    let outside = build.unary(UnaryKind::Abs, x);
    let inner = |build: &mut Build, sum: ValueId| {
        let condition = is_positive(build, sum);
        build.graph.begin_block().unwrap();
        let y = build.binary(BinaryKind::Sub, sum, outside);
        let then = build.graph.end_block(&[y]).unwrap();
        build.graph.begin_block().unwrap();
        build.graph.begin_block().unwrap();
        build.graph.add_parameter("i", fact(DType::I64, &[])).unwrap();
        let go = build.graph.add_parameter("go", fact(DType::Bool, &[])).unwrap();
        let held = build.graph.add_parameter("held", fact(DType::F32, &[2, 3])).unwrap();
        let next = build.binary(BinaryKind::Add, held, outside);
        let body = build.graph.end_block(&[go, next]).unwrap();
        let op = Loop { iterations: Some(3), carried: 1, ..Loop::default() };
        let y = control(build, op, &[sum], vec![body])[0];
        let otherwise = build.graph.end_block(&[y]).unwrap();
        control(build, Control::If, &[condition], vec![then, otherwise])[0]
    };
    build.graph.begin_block().unwrap();
    build.graph.add_parameter("i", fact(DType::I64, &[])).unwrap();
    let go = build.graph.add_parameter("go", fact(DType::Bool, &[])).unwrap();
    let sum = build.graph.add_parameter("sum", fact(DType::F32, &[2, 3])).unwrap();
    let next = inner(&mut build, sum);
    let body = build.graph.end_block(&[go, next]).unwrap();
    let collected = vec![Along::default()];
    let op = Loop { iterations: Some(6), carried: 1, collected, ..Loop::default() };
    // The collected value is also carried: the body returns it twice.
    let body = Block { results: vec![body.results[0], body.results[1], body.results[1]], ..body };
    let ys = control(&mut build, op, &[x], vec![body]);
    ys.into_iter().for_each(|y| build.output(y));
    check(&build.graph, &[Random(2).floats(&[2, 3])]);
}

#[test]
fn changing_shapes_and_unbounded_depths_are_refused() {
    let mut build = Build::new(&[3]);
    let x = build.x;
    build.graph.begin_block().unwrap();
    build.graph.add_parameter("i", fact(DType::I64, &[])).unwrap();
    let go = build.graph.add_parameter("go", fact(DType::Bool, &[])).unwrap();
    build.graph.add_parameter("held", fact(DType::F32, &[3])).unwrap();
    let y = build.constant(&[4], &[0.0; 4]);
    let body = build.graph.end_block(&[go, y]).unwrap();
    let op = Loop { iterations: Some(2), carried: 1, ..Loop::default() };
    let refused = build.graph.add_control("grows", op, &[x], vec![body]).unwrap_err().to_string();
    assert!(refused.contains("'grows'") && refused.contains("must not change"), "{refused}");

    let mut build = Build::new(&[3]);
    let given = build.x;
    let condition = is_positive(&mut build, given);
    let depth = super::MAX_DEPTH + 1;
    (0..depth).for_each(|_| build.graph.begin_block().unwrap());
    let mut y = build.x;
    for _ in 0..depth {
        let then = build.graph.end_block(&[y]).unwrap();
        build.graph.begin_block().unwrap();
        let otherwise = build.graph.end_block(&[build.x]).unwrap();
        y = control(&mut build, Control::If, &[condition], vec![then, otherwise])[0];
    }
    build.output(y);
    assert!(build.graph.check().unwrap_err().to_string().contains("is nested in"));
}

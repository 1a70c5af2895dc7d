use skipstone_onnx::write::{FLOAT, INT64, Message, body, f32s, graph, i64s, int, model, named, node, tensor, value};

use crate::{DType, Error, Model, Options, Session, Tensor};

/// A model with this metadata.
fn with(graph: &Message, metadata: &[(&str, &str)]) -> Vec<u8> {
    let pairs: Vec<Message> = metadata.iter().map(|(key, text)| Message::new().text(1, key).text(2, text)).collect();
    Message::of(&model(graph)).all(14, &pairs).into_bytes()
}

/// The model from its file, and from a package.
fn both(bytes: &[u8]) -> [Model; 2] {
    let model = Model::from_bytes(bytes, &Options::default()).unwrap();
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), bytes).unwrap();
    let (package, _) = crate::compile(path.path(), &crate::Recipe::default(), None).unwrap();
    [model, Model::from_bytes(&package, &Options::default()).unwrap()]
}

fn refused(bytes: &[u8]) -> Error {
    match Model::from_bytes(bytes, &Options::default()) {
        Ok(_) => panic!("the model was accepted"),
        Err(error) => error,
    }
}

fn run(session: &mut Session, x: &[f32]) -> Vec<f32> {
    session.run(&[Tensor::from_slice(&[x.len()], x).unwrap().view()]).unwrap();
    session.output(0).unwrap().elements::<f32>().unwrap().to_vec()
}

/// `y` is `x + 1` if `depth` is above `least`, otherwise `-x`.
fn branching() -> Vec<u8> {
    let arm = |nodes: &[Message], name: &str| graph(nodes, &[f32s("one", &[], &[1.0])], &[], &[named(name)]);
    let nodes = [
        node("Greater", &["depth", "least"], &["deep"], &[]),
        node(
            "If",
            &["deep"],
            &["y"],
            &[
                body("then_branch", &arm(&[node("Add", &["x", "one"], &["a"], &[])], "a")),
                body("else_branch", &arm(&[node("Neg", &["x"], &["b"], &[])], "b")),
            ],
        ),
    ];
    let inputs = [value("depth", INT64, &[]), value("x", FLOAT, &[2]), value("least", INT64, &[])];
    let held = [i64s("depth", &[], &[3]), i64s("least", &[], &[1])];
    with(&graph(&nodes, &held, &inputs, &[named("y")]), &[("skipstone.settings", "depth, least")])
}

#[test]
fn a_setting_switches_branches_between_runs_and_only_the_one_taken_runs() {
    for model in both(&branching()) {
        assert_eq!(model.inputs().iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["x"]);
        let mut session = model.session().unwrap();
        let runs = |session: &Session| {
            let steps = model.plan().unwrap().steps.iter().zip(session.step_runs().unwrap());
            let count = |kind: &str| {
                steps.clone().filter(|(step, _)| step.op.entry() == kind).map(|(_, runs)| *runs).sum::<u64>()
            };
            [count("Binary"), count("Unary")]
        };
        for (depth, want, counts) in
            [(3, [3.0, -1.0], [1u64, 0u64]), (1, [-2.0, 2.0], [0, 1]), (2, [3.0, -1.0], [1, 0])]
        {
            if depth != 3 {
                session.set("depth", depth).unwrap();
            }
            session.start_profile().unwrap();
            assert_eq!(run(&mut session, &[2.0, -2.0]), want);
            assert_eq!(runs(&session), counts);
        }
        session.reset();
        session.set("least", 2).unwrap();
        assert_eq!(run(&mut session, &[2.0, -2.0]), [-2.0, 2.0], "settings survive a reset");
        assert_eq!(run(&mut model.session().unwrap(), &[2.0, -2.0]), [3.0, -1.0], "sessions do not share settings");
    }
}

#[test]
fn an_unknown_setting_is_refused_with_a_list_of_the_known() {
    let mut session = Model::from_bytes(&branching(), &Options::default()).unwrap().session().unwrap();
    let error = session.set("x", 1).unwrap_err();
    assert_eq!(error.code(), "setting.unknown");
    assert_eq!(error.to_string(), "the model has no setting 'x'; it has depth, least");
    let error = session.set("depth", 0.5).unwrap_err();
    assert_eq!(error.code(), "setting.value");
    assert_eq!(error.to_string(), "setting 'depth' is i64 scalar, which does not hold the value");
    assert_eq!(run(&mut session, &[2.0, -2.0]), [3.0, -1.0], "it stays as it was");
}

#[test]
fn a_setting_may_be_of_half_precision() {
    let nodes = [node("Mul", &["x", "scale"], &["y"], &[])];
    let half = |number: f32| half::f16::from_f32(number);
    let inputs = [value("x", 10, &[1]), value("scale", 10, &[1])];
    let held = [tensor("scale", 10, &[1], &half(2.0).to_le_bytes())];
    let bytes = with(&graph(&nodes, &held, &inputs, &[named("y")]), &[("skipstone.settings", "scale")]);
    for model in both(&bytes) {
        assert_eq!(model.variables()[0].port.fact.dtype, DType::F16);
        let mut session = model.session().unwrap();
        let x = Tensor::from_slice(&[1], &[half(3.0)]).unwrap();
        session.run(&[x.view()]).unwrap();
        assert_eq!(session.output(0).unwrap().elements::<half::f16>().unwrap(), [half(6.0)]);
        session.set("scale", 0.5).unwrap();
        session.run(&[x.view()]).unwrap();
        assert_eq!(session.output(0).unwrap().elements::<half::f16>().unwrap(), [half(1.5)]);
    }
}

/// A node that reads the setting `k`, one i64 `[1]`, or a value computed from it and a constant.
fn shape_error_of(nodes: &[Message], initializers: &[Message]) -> Error {
    let inputs = [value("x", FLOAT, &[4, 6]), value("k", INT64, &[1])];
    let held = [&[i64s("k", &[1], &[1])], initializers].concat();
    refused(&with(&graph(nodes, &held, &inputs, &[named("y")]), &[("skipstone.settings", "k")]))
}

#[test]
fn a_setting_may_decide_a_length_that_has_a_largest_value() {
    let inputs = [value("x", FLOAT, &[4, 6]), value("k", INT64, &[1])];
    let held = [i64s("k", &[1], &[1]), i64s("zero", &[1], &[0])];
    for last in
        [node("Slice", &["x", "zero", "k"], &["y"], &[]), node("TopK", &["x", "k"], &["y", ""], &[int("axis", 0)])]
    {
        let bytes = with(&graph(&[last], &held, &inputs, &[named("y")]), &[("skipstone.settings", "k")]);
        for model in both(&bytes) {
            let mut session = model.session().unwrap();
            let x: Vec<f32> = (0..24u8).map(|at| f32::from(24 - at)).collect();
            for (k, rows) in [(None, 1), (Some(3), 3), (Some(0), 0), (Some(4), 4)] {
                if let Some(k) = k {
                    session.set("k", k).unwrap();
                }
                session.run(&[Tensor::from_slice(&[4, 6], &x).unwrap().view()]).unwrap();
                let y = session.output(0).unwrap();
                assert_eq!((y.fact().shape.dims(), y.elements::<f32>().unwrap()), (&[rows, 6][..], &x[..rows * 6]));
            }
        }
    }
}

#[test]
fn a_setting_that_decides_a_shape_is_refused_by_its_name() {
    let (zero, all) = (i64s("zero", &[1], &[0]), i64s("all", &[1], &[-1]));
    let shape = node("Concat", &["k", "all"], &["shape"], &[int("axis", 0)]);
    let scalar = |name: &str, number: i64| i64s(name, &[], &[number]);
    for (what, nodes, held) in [
        ("Reshape", vec![shape.clone(), node("Reshape", &["x", "shape"], &["y"], &[])], vec![all.clone()]),
        ("Expand", vec![node("Expand", &["x", "k"], &["y"], &[])], vec![]),
        (
            "ConstantOfShape",
            vec![node("ConstantOfShape", &["k"], &["c"], &[]), node("Add", &["c", "x"], &["y"], &[])],
            vec![],
        ),
        ("Unsqueeze", vec![node("Unsqueeze", &["x", "k"], &["y"], &[])], vec![]),
        ("ReduceSum", vec![node("ReduceSum", &["x", "k"], &["y"], &[])], vec![]),
        (
            "Range",
            vec![
                node("Squeeze", &["k"], &["s"], &[]),
                node("Range", &["a", "s", "b"], &["r"], &[]),
                node("Gather", &["x", "r"], &["y"], &[]),
            ],
            vec![scalar("a", 0), scalar("b", 1)],
        ),
        (
            "Tile",
            vec![
                node("Concat", &["k", "zero"], &["twice"], &[int("axis", 0)]),
                node("Tile", &["x", "twice"], &["y"], &[]),
            ],
            vec![zero.clone()],
        ),
        (
            "Pad",
            vec![
                node("Concat", &["k", "k", "k", "k"], &["pads"], &[int("axis", 0)]),
                node("Pad", &["x", "pads"], &["y"], &[]),
            ],
            vec![],
        ),
    ] {
        let error = shape_error_of(&nodes, &held);
        assert_eq!(error.code(), "model.unsupported", "{what}: {error}");
        assert!(error.to_string().contains("the setting 'k' must not decide a shape"), "{what}: {error}");
    }
}

/// `y` and `next` are `sum + x`.
fn running_sum(initializers: &[Message]) -> Vec<u8> {
    let nodes = [node("Add", &["sum", "x"], &["y"], &[]), node("Identity", &["y"], &["next"], &[])];
    let inputs = [value("sum", FLOAT, &[2]), value("x", FLOAT, &[2])];
    with(&graph(&nodes, initializers, &inputs, &["y", "next"].map(named)), &[("skipstone.state", "next -> sum")])
}

#[test]
fn state_is_carried_from_run_to_run_until_it_is_reset() {
    for (held, first) in [(vec![], [0.0, 0.0]), (vec![f32s("sum", &[2], &[10.0, 20.0])], [10.0, 20.0])] {
        for model in both(&running_sum(&held)) {
            let mut session = model.session().unwrap();
            for _ in 0..2 {
                assert_eq!(run(&mut session, &[1.0, 2.0]), [first[0] + 1.0, first[1] + 2.0]);
                assert_eq!(run(&mut session, &[1.0, 2.0]), [first[0] + 2.0, first[1] + 4.0]);
                session.reset();
            }
            session.set("sum", vec![5.0, 6.0]).unwrap();
            assert_eq!(run(&mut session, &[1.0, 2.0]), [6.0, 8.0]);
        }
    }
}

#[test]
fn a_run_that_fails_leaves_the_state_alone() {
    let model = Model::from_bytes(&running_sum(&[]), &Options::default()).unwrap();
    let mut session = model.session().unwrap();
    assert_eq!(run(&mut session, &[1.0, 2.0]), [1.0, 2.0]);
    session.cancel_handle().cancel();
    assert!(session.run(&[Tensor::from_slice(&[2], &[1f32, 2.0]).unwrap().view()]).is_err());
    assert_eq!(run(&mut session, &[1.0, 2.0]), [2.0, 4.0]);
}

#[test]
fn state_that_changes_places_is_not_overwritten_too_early() {
    // A delay line: x -> a -> b, and y is b.
    let nodes = [
        node("Identity", &["b"], &["y"], &[]),
        node("Identity", &["a"], &["b2"], &[]),
        node("Identity", &["x"], &["a2"], &[]),
    ];
    let inputs = ["a", "b", "x"].map(|name| value(name, FLOAT, &[1]));
    let outputs = ["y", "a2", "b2"].map(named);
    let bytes = with(&graph(&nodes, &[], &inputs, &outputs), &[("skipstone.state", "a2 -> a, b2 -> b")]);
    for model in both(&bytes) {
        let mut session = model.session().unwrap();
        let heard: Vec<f32> = (1..6).map(|x| run(&mut session, &[x as f32])[0]).collect();
        assert_eq!(heard, [0.0, 0.0, 1.0, 2.0, 3.0]);
    }
}

#[test]
fn metadata_that_fits_no_input_is_refused() {
    let made = |metadata: &[(&str, &str)]| {
        let nodes = [node("Add", &["x", "k"], &["y"], &[]), node("Cast", &["y"], &["z"], &[int("to", 9)])];
        let held = [f32s("k", &[2], &[0.0, 0.0]), f32s("inner", &[2], &[0.0, 0.0])];
        let inputs = [value("x", FLOAT, &[2]), value("k", FLOAT, &[2])];
        let error = refused(&with(&graph(&nodes, &held, &inputs, &["y", "z"].map(named)), metadata));
        assert_eq!(error.code(), "model.metadata", "{error}");
        error.to_string()
    };
    let settings = |text: &str| made(&[("skipstone.settings", text)]);
    assert!(settings("x").contains("'x' must be an input of the graph with an initializer"));
    assert!(settings("inner").contains("'inner' must be an input"));
    assert!(settings("k,k").contains("listed twice"));
    let state = |text: &str| made(&[("skipstone.state", text)]);
    assert!(state("y").contains("is not a pair"));
    assert!(state("y -> w").contains("no input 'w'"));
    assert!(state("w -> x").contains("no output 'w'"));
    assert!(state("z -> x").contains("the output 'z' is bool 2, the input 'x' f32 2"));
    assert!(made(&[("skipstone.state", "y -> k"), ("skipstone.settings", "k")]).contains("listed twice"));
}

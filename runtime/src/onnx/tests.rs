//! From the bytes of a model to its results: tests that involve several parts of the importer.

use skipstone_onnx::write::{
    FLOAT, INT64, Message, body, f32s, float, graph, i64s, int, ints, model, model_with, named, node, opset, text,
    value,
};

use crate::{Model, Options, Tensor};

/// The code of bools in a file.
const BOOL: i64 = 9;

fn load(bytes: &[u8]) -> crate::Result<Model> {
    Model::from_bytes(bytes, &Options::default())
}

fn zeros(name: &str, dims: &[i64]) -> Message {
    f32s(name, dims, &vec![0.0; dims.iter().product::<i64>() as usize])
}

/// A model of nodes from a float input `x` of the given shape to an output `y`.
fn with(dims: &[i64], nodes: &[Message], initializers: &[Message]) -> Vec<u8> {
    model(&graph(nodes, initializers, &[value("x", FLOAT, dims)], &[named("y")]))
}

/// Code and text of a model's error.
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
    let outputs = ["again", "scores", "same"].map(named);
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
fn shapes_that_do_not_broadcast_are_refused() {
    let nodes = [node("Relu", &["a"], &["c"], &[]), node("Add", &["c", "b"], &["y"], &[])];
    let inputs = [value("a", FLOAT, &[1, 3]), value("b", FLOAT, &[1, 4])];
    let (code, text) = refused(&model(&graph(&nodes, &[], &inputs, &[named("y")])));
    assert_eq!(code, "model.node");
    assert!(text.starts_with("node 'y' (Add, node 1): ") && text.contains("1x3 and 1x4"), "{text}");
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
    assert!(text.starts_with("node 'y' (Softmax, node 1): attribute axis"), "{text}");
}

/// Regression: weights for another input size were multiplied with what follows the input in memory.
#[test]
fn a_recurrence_is_checked_where_the_file_does_not_say_the_shape() {
    for (op, gates) in [("RNN", 1), ("GRU", 3), ("LSTM", 4)] {
        let with = |input: i64| {
            let nodes = [
                node("Conv", &["x", "k"], &["c"], &[]),
                node("Squeeze", &["c", "axis"], &["s"], &[]),
                node(op, &["s", "w", "r"], &["", "y"], &[int("hidden_size", 3)]),
            ];
            let axis = i64s("axis", &[1], &[0]);
            let weights = [zeros("w", &[1, gates * 3, input]), zeros("r", &[1, gates * 3, 3])];
            with(&[1, 2, 5, 6], &nodes, &[zeros("k", &[2, 2, 1, 1]), axis, weights[0].clone(), weights[1].clone()])
        };
        assert!(load(&with(6)).is_ok(), "{op}");
        for input in [1, 2, 5, 7, 4096] {
            let (code, text) = refused(&with(input));
            assert_eq!(code, "model.node", "{op}: {text}");
            assert!(text.contains("weights are [directions, gates * hidden, inputs]"), "{op}: {text}");
        }
    }
}

/// tract ignores these options, and computes without them.
#[test]
fn a_recurrence_takes_every_option() {
    let with = |attributes: &[Message]| {
        let nodes = [node("LSTM", &["x", "w", "r"], &["", "y"], attributes)];
        with(&[5, 1, 2], &nodes, &[zeros("w", &[1, 12, 2]), zeros("r", &[1, 12, 3])])
    };
    for attribute in
        [text("direction", "forward"), text("direction", "reverse"), int("input_forget", 1), float("clip", 1.0)]
    {
        assert!(load(&with(&[attribute])).is_ok());
    }
    let (_, refusal) = refused(&with(&[text("direction", "sideways")]));
    assert!(refusal.contains("sideways") || refusal.contains("direction"), "{refusal}");
}

/// The second operand begins at `axis`, and slopes belong to channels, even if the last axis is as long.
#[test]
fn broadcasts_of_opset_6_follow_their_own_rule() {
    let run = |op: &str, attributes: &[Message]| {
        let nodes = [node(op, &["x", "b"], &["y"], attributes)];
        let graph = graph(&nodes, &[f32s("b", &[2], &[1.0, 10.0])], &[value("x", FLOAT, &[1, 2, 2])], &[named("y")]);
        let model = load(&model_with(&graph, &[opset("", 6)])).unwrap();
        let mut session = model.session().unwrap();
        session.run(&[Tensor::from_slice(&[1, 2, 2], &[-1f32, -2.0, -3.0, -4.0]).unwrap().view()]).unwrap();
        session.output(0).unwrap().elements::<f32>().unwrap().to_vec()
    };
    assert_eq!(run("PRelu", &[]), [-1.0, -2.0, -30.0, -40.0]);
    assert_eq!(run("Mul", &[int("broadcast", 1), int("axis", 1)]), [-1.0, -2.0, -30.0, -40.0]);
    assert_eq!(run("Mul", &[int("broadcast", 1), int("axis", 2)]), [-1.0, -20.0, -3.0, -40.0]);
    assert_eq!(run("Mul", &[int("broadcast", 1)]), [-1.0, -20.0, -3.0, -40.0]);
}

/// One error names them all, also those of a branch; a branch that is not taken may contain anything.
#[test]
fn unsupported_operators_of_subgraphs_and_functions_are_listed_together() {
    let arm = |op: &str, name: &str| graph(&[node(op, &["x"], &[name], &[])], &[], &[], &[named(name)]);
    let branch = [body("then_branch", &arm("Relu", "a")), body("else_branch", &arm("ImageDecoder", "b"))];
    let conditional = node("If", &["c"], &["y"], &branch);
    let condition = [value("x", FLOAT, &[1]), value("c", BOOL, &[])];
    let (code, text) = refused(&model(&graph(std::slice::from_ref(&conditional), &[], &condition, &[named("y")])));
    assert_eq!((code, text.contains("operator ImageDecoder is not supported")), ("model.unsupported", true), "{text}");
    let nodes = [conditional.clone(), node("RegexFullMatch", &["y"], &["z"], &[])];
    let (_, text) = refused(&model(&graph(&nodes, &[], &condition, &[named("z")])));
    assert!(text.contains("ImageDecoder (1, the first is 'b'), RegexFullMatch (1, the first is 'z')"), "{text}");
    let known = skipstone_onnx::write::tensor("c", BOOL, &[], &[1]);
    assert!(load(&model(&graph(&[conditional], &[known], &[value("x", FLOAT, &[1])], &[named("y")]))).is_ok());
}

/// What a text means is lost if a node reads an index in its place.
#[test]
fn names_of_classes_are_read_by_no_node() {
    let keys = ints("keys_int64s", &[0, 1]);
    let names = Message::new().text(1, "values_strings").texts(9, &["cat", "dog"]).int(20, 8);
    let encoder = node("LabelEncoder", &["x"], &["y"], &[keys, names]).text(7, "ai.onnx.ml");
    let opsets = [opset("", 17), opset("ai.onnx.ml", 3)];
    let with = |nodes: &[Message], output: &str| {
        model_with(&graph(nodes, &[], &[value("x", INT64, &[4])], &[named(output)]), &opsets)
    };
    let model = load(&with(std::slice::from_ref(&encoder), "y")).unwrap();
    assert_eq!(model.info().metadata["skipstone.labels"], "cat\ndog");
    let mut session = model.session().unwrap();
    session.run(&[Tensor::from_slice(&[4], &[1i64, 0, 2, -3]).unwrap().view()]).unwrap();
    assert_eq!(session.output(0).unwrap().elements::<i64>().unwrap(), [1, 0, -1, -1]);
    let (code, text) = refused(&with(&[encoder, node("Neg", &["y"], &["z"], &[])], "z"));
    assert!(code == "model.unsupported" && text.contains("returns text"), "{text}");
}

/// A query sees the keys around its own place: the mean of their values if all scores are equal.
#[test]
fn windows_of_an_attention_hide_distant_keys() {
    let run = |attributes: &[Message], mask: &str| {
        let masks = [f32s("added", &[1, 1, 1, 3], &[0.0, 0.0, f32::NEG_INFINITY]), zeros("q", &[1, 1, 3, 1])];
        let graph = graph(
            &[node("Attention", &["q", "q", "v", mask], &["y"], attributes)],
            &masks,
            &[value("v", FLOAT, &[1, 1, 3, 1])],
            &[named("y")],
        );
        let model = load(&model_with(&graph, &[opset("", 25)])).unwrap();
        let mut session = model.session().unwrap();
        session.run(&[Tensor::from_slice(&[1, 1, 3, 1], &[1f32, 2.0, 6.0]).unwrap().view()]).unwrap();
        session.output(0).unwrap().elements::<f32>().unwrap().to_vec()
    };
    let (left, right) = (|size| int("left_window_size", size), |size| int("right_window_size", size));
    assert_eq!(run(&[left(1), right(0)], ""), [1.0, 1.5, 4.0]);
    assert_eq!(run(&[right(1)], ""), [1.5, 3.0, 3.0]);
    assert_eq!(run(&[left(0)], ""), [3.0, 4.0, 6.0]);
    assert_eq!(run(&[left(-1), right(-1)], ""), [3.0; 3]);
    // The last key is hidden by the mask: nothing is left for the last query.
    assert_eq!(run(&[left(0)], "added"), [1.5, 2.0, 0.0]);
}

/// PaddlePaddle writes -1 for an unknown batch size, in inputs, outputs and between.
#[test]
fn a_dimension_of_minus_one_is_unknown() {
    let unknown = |name: &str| {
        let dims = [Message::new().int(1, -1), Message::new().int(1, 3)];
        let tensor = Message::new().int(1, FLOAT).nested(2, &Message::new().all(1, &dims));
        skipstone_onnx::write::typed(name, &Message::new().nested(1, &tensor))
    };
    let file = model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[unknown("x")], &[unknown("y")]));
    let assumed = load(&file).unwrap();
    assert_eq!(
        (assumed.inputs()[0].fact.shape.dims(), &*assumed.info().assumed_batch),
        (&[1, 3][..], &["x".to_owned()][..])
    );
    let bound = Model::from_bytes(&file, &Options::default().shape("x", &[2, 3])).unwrap();
    assert_eq!((bound.outputs()[0].fact.shape.dims(), bound.info().assumed_batch.len()), (&[2, 3][..], 0));
}

/// Regression: the least integer was negated.
#[test]
fn pads_that_leave_nothing_are_refused_in_every_mode() {
    for mode in ["constant", "edge", "reflect", "wrap"] {
        for pads in [[i64::MIN, 0], [0, i64::MIN], [i64::MIN, i64::MIN], [i64::MAX, i64::MAX], [-2, -2]] {
            let nodes = [node("Pad", &["x", "pads"], &["y"], &[text("mode", mode)])];
            refused(&with(&[3], &nodes, &[i64s("pads", &[2], &pads)]));
        }
    }
}

/// Files that demand more than can be read or stored.
#[test]
fn sizes_from_which_tensors_are_made_are_limited() {
    let ints = |name: &str, values: &[i64]| i64s(name, &[values.len() as i64], values);
    let huge = 1 << 23;
    let columns = [ints("image", &[huge, huge]), ints("block", &[huge, huge])];
    refused(&with(&[1, 4, 4], &[node("Col2Im", &["x", "image", "block"], &["y"], &[])], &columns));
    let grid = [ints("size", &[1, 1, huge, huge])];
    refused(&with(&[1, 2, 3], &[node("AffineGrid", &["x", "size"], &["y"], &[])], &grid));
    for op in ["HannWindow", "HammingWindow", "BlackmanWindow"] {
        let nodes = [node(op, &["size"], &["w"], &[]), node("Mul", &["x", "w"], &["y"], &[])];
        refused(&with(&[1], &nodes, &[i64s("size", &[], &[i64::MAX])]));
    }
}

#[test]
fn an_invalid_branch_is_an_error_if_it_is_taken() {
    let arm = |weights: &[i64], name: &str| {
        let nodes = [node("MatMul", &["x", "w"], &["p"], &[]), node("Relu", &["p"], &[name], &[])];
        graph(&nodes, &[f32s("w", weights, &vec![1.0; weights.iter().product::<i64>() as usize])], &[], &[named(name)])
    };
    let branching = |then: &[i64], otherwise: &[i64]| {
        let arms = [body("then_branch", &arm(then, "a")), body("else_branch", &arm(otherwise, "b"))];
        let nodes = [node("If", &["c"], &["r"], &arms), node("Neg", &["r"], &["y"], &[])];
        model(&graph(&nodes, &[], &[value("c", BOOL, &[]), value("x", FLOAT, &[1, 3])], &[named("y")]))
    };
    for (fits, arms) in [(true, [[3, 2], [4, 2]]), (false, [[4, 2], [3, 2]])] {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), branching(&arms[0], &arms[1])).unwrap();
        let (package, _) = crate::compile(path.path(), &crate::Recipe::default(), None).unwrap();
        for model in [Model::open(path.path(), &Options::default()).unwrap(), load(&package).unwrap()] {
            let mut session = model.session().unwrap();
            let x = Tensor::from_slice(&[1, 3], &[1f32, 2.0, 3.0]).unwrap();
            let mut run = |taken: bool| {
                let condition = Tensor::from_bytes(model.inputs()[0].fact.clone(), &[taken.into()]).unwrap();
                session.run(&[condition.view(), x.view()])?;
                Ok::<_, crate::Error>(session.output(0).unwrap().elements::<f32>().unwrap().to_vec())
            };
            let error = run(!fits).unwrap_err();
            assert_eq!(error.code(), "model.node");
            assert!(
                error.to_string().contains("this branch does not match the shapes of the inputs: node 'p'"),
                "{error}"
            );
            assert_eq!(run(fits).unwrap(), [-6.0, -6.0], "a run after one that failed");
        }
    }
    let (_, text) = refused(&branching(&[4, 2], &[5, 2]));
    assert!(text.starts_with("node 'p' (MatMul, node 0)"), "{text}");
}

/// NonZero of all elements, and a product of all positions with each other, with an operator between that does not follow
/// lengths.
#[cfg(feature = "tract")]
fn products_of_positions(dims: &[i64]) -> Vec<u8> {
    let nodes = [
        node("NonZero", &["x"], &["found"], &[]),
        node("Cast", &["found"], &["columns"], &[int("to", FLOAT)]),
        node("Dropout", &["columns"], &["kept"], &[]),
        node("Transpose", &["kept"], &["rows"], &[]),
        node("MatMul", &["rows", "kept"], &["y"], &[]),
    ];
    model(&graph(&nodes, &[], &[value("x", FLOAT, dims)], &[named("y")]))
}

/// tract asked for the memory first, and ended the process if there was none.
#[test]
#[cfg(feature = "tract")]
fn a_model_whose_sizes_depend_on_data_is_bounded_while_it_runs() {
    use crate::Limits;

    let run = |elements: i64, limits: Limits| {
        let model =
            Model::from_bytes(&products_of_positions(&[1, elements]), &Options::default().limits(limits)).unwrap();
        let mut session = model.session().unwrap();
        let ones = Tensor::from_slice(&[1, elements as usize], &vec![1f32; elements as usize]).unwrap();
        session.run(&[ones.view()]).map(|()| session.output(0).unwrap().to_tensor())
    };
    let y = run(3, Limits::default()).unwrap();
    assert_eq!(y.peek::<f32>().unwrap().iter().collect::<Vec<_>>(), [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 2.0, 4.0]);
    let error = run(1 << 16, Limits::default()).unwrap_err().to_string();
    assert!(error.contains("bytes, the limit 'memory' is"), "{error}");
    let error = run(1 << 10, Limits { run_work: 1 << 16, ..Limits::default() }).unwrap_err().to_string();
    assert!(error.contains("of work, the limit 'work' is"), "{error}");
}

#[test]
#[cfg(feature = "tract")]
fn a_model_whose_sizes_depend_on_data_stops_between_its_nodes() {
    let model = load(&products_of_positions(&[1, 9])).unwrap();
    let mut session = model.session().unwrap();
    let ones = Tensor::from_slice(&[1, 9], &[1f32; 9]).unwrap();
    session.set_deadline(Some(std::time::Duration::ZERO));
    assert!(matches!(session.run(&[ones.view()]), Err(crate::Error::DeadlineExceeded { .. })));
    session.set_deadline(None);
    session.run(&[ones.view()]).unwrap();
}

//! Subgraphs and functions.

use super::*;

fn out(name: &str) -> Message {
    message().text(1, name)
}

fn relu(inputs: &[Message], outputs: &[&str]) -> Message {
    let nodes: Vec<_> = outputs.iter().map(|name| node("Relu", &["x"], &[name], &[])).collect();
    graph(&nodes, &[], inputs, &outputs.iter().map(|name| out(name)).collect::<Vec<_>>())
}

#[test]
fn branches_match_their_node() {
    let with = |attributes: &[Message]| {
        with(&[1], &[node("Not", &["x"], &["c"], &[]), node("If", &["c"], &["y"], attributes)], &[])
    };
    let (one, two) = (relu(&[], &["a"]), relu(&[], &["a", "b"]));
    accepts(&with(&[body("then_branch", &one), body("else_branch", &one)]));
    refuses(&with(&[body("then_branch", &one), body("else_branch", &two)]), "model.control-flow");
    refuses(&with(&[body("then_branch", &two), body("else_branch", &two)]), "model.control-flow");
    refuses(&with(&[body("then_branch", &one)]), "model.attribute");
    refuses(&with(&[body("then_branch", &one), int("else_branch", 1)]), "model.attribute");
    let taking = relu(&[value("i", FLOAT, &[1])], &["a"]);
    refuses(&with(&[body("then_branch", &taking), body("else_branch", &one)]), "model.control-flow");
}

/// `y = Loop(trips, "", x)` whose body gives `condition` for its condition.
fn loop_of(trips: &str, condition: &Message, initializers: &[Message]) -> Vec<u8> {
    let inputs = [value("i", INT64, &[]), value("go", 9, &[]), value("s", FLOAT, &[1])];
    let nodes = [condition.clone(), node("Relu", &["s"], &["t"], &[])];
    let inner = graph(&nodes, &[], &inputs, &[out("on"), out("t")]);
    with(&[1], &[node("Loop", &[trips, "", "x"], &["y"], &[body("body", &inner)])], initializers)
}

#[test]
fn loops() {
    let bound = [i64s("n", &[], &[3])];
    let keep = node("Identity", &["go"], &["on"], &[]);
    assert!(accepts(&loop_of("n", &keep, &bound)).has_control_flow);
    refuses(&loop_of("", &keep, &[]), "model.control-flow");
    accepts(&loop_of("", &node("Not", &["go"], &["on"], &[]), &[]));
    let truth = message().text(1, "value").nested(5, &head("", 9, &[]).bytes(9, &[1])).int(20, 4);
    refuses(&loop_of("", &node("Constant", &[], &["on"], &[truth]), &[]), "model.control-flow");
    // A body with too few inputs or outputs.
    let nodes = |inner: &Message| [node("Loop", &["n", "", "x"], &["y"], &[body("body", inner)])];
    refuses(&with(&[1], &nodes(&relu(&[], &["a", "b"])), &bound), "model.control-flow");
    let inputs = [value("i", INT64, &[]), value("go", 9, &[]), value("s", FLOAT, &[1])];
    refuses(&with(&[1], &nodes(&relu(&inputs, &["a"])), &bound), "model.control-flow");
}

#[test]
fn scans() {
    let with = |sequences: i64, inputs: &[Message]| {
        let attributes = [body("body", &relu(inputs, &["a"])), int("num_scan_inputs", sequences)];
        with(&[2, 2], &[node("Scan", &["x"], &["y"], &attributes)], &[])
    };
    let inputs = [value("s", FLOAT, &[2])];
    accepts(&with(1, &inputs));
    refuses(&with(0, &inputs), "model.attribute");
    refuses(&with(2, &inputs), "model.attribute");
    refuses(&with(1, &[]), "model.control-flow");
}

fn function(name: &str, nodes: &[Message]) -> Message {
    message()
        .text(1, name)
        .text(4, "p")
        .text(5, "q")
        .all(7, nodes)
        .nested(9, &opset("", 17))
        .nested(9, &opset("local", 1))
        .text(10, "local")
}

fn call(name: &str, input: &str, output: &str) -> Message {
    node(name, &[input], &[output], &[]).text(7, "local")
}

fn with_functions(functions: &[Message]) -> Vec<u8> {
    let graph = graph(&[call("f", "x", "y")], &[], &[value("x", FLOAT, &[1])], &[out("y")]);
    message().int(1, 8).nested(7, &graph).nested(8, &opset("", 17)).nested(8, &opset("local", 1)).all(25, functions).0
}

#[test]
fn functions_are_found_and_counted() {
    let checked = accepts(&with_functions(&[function("f", &[node("Relu", &["p"], &["q"], &[])])]));
    assert_eq!((checked.functions, checked.function_calls), (1, 1));
    let refers = message().text(1, "alpha").text(21, "slope").int(20, 1);
    accepts(&with_functions(&[function("f", &[node("LeakyRelu", &["p"], &["q"], &[refers])])]));
}

#[test]
fn functions_missing_repeated_or_in_the_way() {
    refuses(&with_functions(&[]), "model.domain");
    let relu = function("f", &[node("Relu", &["p"], &["q"], &[])]);
    refuses(&with_functions(&[relu.clone(), relu]), "model.function");
    let standard = message().text(1, "Relu").text(4, "p").text(5, "q").all(7, &[node("Abs", &["p"], &["q"], &[])]);
    refuses(&with_functions(&[standard]), "model.function");
    // A function body sees only its own names.
    refuses(&with_functions(&[function("f", &[node("Relu", &["x"], &["q"], &[])])]), "model.undefined-value");
}

#[test]
fn functions_that_call_themselves() {
    refuses(&with_functions(&[function("f", &[call("f", "p", "q")])]), "model.function");
    refuses(
        &with_functions(&[function("f", &[call("g", "p", "q")]), function("g", &[call("f", "p", "q")])]),
        "model.function",
    );
}

#[test]
fn functions_that_double_forty_times() {
    let mut functions: Vec<_> = (0..40)
        .map(|i| {
            let next = format!("f{}", i + 1);
            let name = if i == 0 { "f".to_owned() } else { format!("f{i}") };
            function(&name, &[call(&next, "p", "r"), call(&next, "r", "q")])
        })
        .collect();
    functions.push(function("f40", &[node("Relu", &["p"], &["q"], &[])]));
    refuses(&with_functions(&functions), "model.limit");
}

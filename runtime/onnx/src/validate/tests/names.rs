//! Names: each is defined once and has a producer, and there are no cycles.

use super::*;

fn chain(nodes: &[Message]) -> Vec<u8> {
    with(&[2, 2], nodes, &[])
}

#[test]
fn an_output_that_nothing_produces() {
    refuses(&chain(&[node("Relu", &["x"], &["z"], &[])]), "model.undefined-value");
}

#[test]
fn an_input_that_nothing_produces() {
    let said = refuses(&chain(&[node("Relu", &["nowhere"], &["y"], &[])]), "model.undefined-value");
    assert!(said.contains("'nowhere'") && said.contains("Relu -> y"), "{said}");
}

#[test]
fn two_producers_of_a_value() {
    refuses(&chain(&[node("Relu", &["x"], &["y"], &[]), node("Abs", &["x"], &["y"], &[])]), "model.duplicate-value");
    refuses(&chain(&[node("Relu", &["x"], &["x"], &[])]), "model.duplicate-value");
    let outputs = node("TopK", &["x", "k"], &["y", "y"], &[]);
    refuses(&with(&[2], &[outputs], &[i64s("k", &[1], &[1])]), "model.duplicate-value");
}

#[test]
fn two_initializers_or_inputs_of_a_name() {
    refuses(&one(&[2], "Add", &["x", "w"], &[], &[zeros("w", &[2]), zeros("w", &[2])]), "model.duplicate-value");
    let inputs = [value("x", FLOAT, &[1]), value("x", FLOAT, &[1])];
    refuses(
        &model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[], &inputs, &[message().text(1, "y")])),
        "model.duplicate-value",
    );
    let outputs = [message().text(1, "y"), message().text(1, "y")];
    refuses(&model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[], &inputs[..1], &outputs)), "model.duplicate-value");
}

#[test]
fn an_initializer_that_an_input_contradicts() {
    let with = |element, dims: &[i64], initializer: &Message| {
        let inputs = [value("x", FLOAT, &[2]), value("w", element, dims)];
        let nodes = [node("Add", &["x", "w"], &["y"], &[])];
        model(&graph(&nodes, std::slice::from_ref(initializer), &inputs, &[message().text(1, "y")]))
    };
    let checked = accepts(&with(FLOAT, &[2], &zeros("w", &[2])));
    assert_eq!(checked.inputs.iter().map(|input| input.initialized).collect::<Vec<_>>(), [false, true]);
    accepts(&with(FLOAT, &[-1], &zeros("w", &[2])));
    refuses(&with(INT64, &[2], &zeros("w", &[2])), "model.duplicate-value");
    refuses(&with(FLOAT, &[3], &zeros("w", &[2])), "model.duplicate-value");
    refuses(&with(FLOAT, &[2, 1], &zeros("w", &[2])), "model.duplicate-value");
}

#[test]
fn cycles_and_self_loops() {
    refuses(&chain(&[node("Relu", &["y"], &["y"], &[])]), "model.cycle");
    let said = refuses(
        &chain(&[
            node("Relu", &["x"], &["a"], &[]),
            node("Add", &["a", "c"], &["b"], &[]),
            node("Abs", &["b"], &["c"], &[]),
            node("Neg", &["c"], &["y"], &[]),
        ]),
        "model.cycle",
    );
    assert!(said.contains("Add -> b") || said.contains("Abs -> c"), "{said}");
}

#[test]
fn a_cycle_through_a_subgraph() {
    let branch = graph(&[node("Relu", &["y"], &["z"], &[])], &[], &[], &[message().text(1, "z")]);
    let branches = [body("then_branch", &branch), body("else_branch", &branch)];
    refuses(&chain(&[node("If", &["x"], &["y"], &branches)]), "model.cycle");
}

#[test]
fn nodes_out_of_order_are_sorted() {
    accepts(&chain(&[node("Abs", &["a"], &["y"], &[]), node("Relu", &["x"], &["a"], &[])]));
}

#[test]
fn optional_inputs_and_outputs_may_be_empty() {
    accepts(&one(&[2], "Clip", &["x", "", "max"], &[], &[f32s("max", &[], &[6.0])]));
    let nodes = [node("TopK", &["x", "k"], &["y", ""], &[])];
    accepts(&with(&[2], &nodes, &[i64s("k", &[1], &[1])]));
    refuses(&one(&[2], "Add", &["x", ""], &[], &[]), "model.arity");
    refuses(&chain(&[node("Relu", &["x"], &["y"], &[]), node("Relu", &["x"], &[""], &[])]), "model.arity");
}

#[test]
fn names_that_are_missing_too_long_or_not_text() {
    refuses(&one(&[2], "Add", &["x", "w"], &[], &[zeros("", &[2])]), "model.text");
    let input = value("", FLOAT, &[1]);
    refuses(
        &model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[input], &[message().text(1, "y")])),
        "model.text",
    );
    let long = "n".repeat(5000);
    refuses(&chain(&[node("Relu", &["x"], &["y"], &[]).text(3, &long)]), "model.limit");
    refuses(&chain(&[node("Relu", &["x"], &["y"], &[]).bytes(3, &[0xff, 0xfe])]), "model.text");
    refuses(&chain(&[node("Relu", &["x"], &["y"], &[]).bytes(6, &[0xc0])]), "model.text");
}

#[test]
fn a_long_name_is_truncated_in_messages() {
    let name = format!("{}\u{1b}[31m", "n".repeat(3000));
    let said = refuses(&chain(&[node("Relu", &["nowhere"], &["y"], &[]).text(3, &name)]), "model.undefined-value");
    assert!(said.len() < 300 && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn subgraphs_see_the_names_around_them() {
    let branch = |input: &str| graph(&[node("Relu", &[input], &["z"], &[])], &[], &[], &[message().text(1, "z")]);
    let with = |input: &str| {
        let branches = [body("then_branch", &branch(input)), body("else_branch", &branch("x"))];
        chain(&[
            node("If", &["c"], &["y"], &branches),
            node("Greater", &["x", "x"], &["c"], &[]),
            node("Abs", &["x"], &["late"], &[]),
        ])
    };
    assert!(accepts(&with("x")).has_control_flow);
    accepts(&with("late"));
    refuses(&with("nowhere"), "model.undefined-value");
    // A name defined in a branch is not visible outside of it.
    let branches = [body("then_branch", &branch("x")), body("else_branch", &branch("x"))];
    let nodes = [
        node("Greater", &["x", "x"], &["c"], &[]),
        node("If", &["c"], &["q"], &branches),
        node("Relu", &["z"], &["y"], &[]),
    ];
    refuses(&chain(&nodes), "model.undefined-value");
}

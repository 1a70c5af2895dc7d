//! Merging and dropping.

use skipstone_onnx::write::i64s;

use super::*;
use crate::editor::{FLOAT, Port};

/// A router and the experts of a layer, as torch exports its indexing; weighted by the router's softmax if `weighted`.
fn routed_model(
    router: &[f32],
    [up, bias, down]: [&[f32]; 3],
    [count, hidden, top]: [usize; 3],
    weighted: bool,
) -> Vec<u8> {
    let (e, h) = (count as i64, hidden as i64);
    let mut nodes = vec![
        node("MatMul", &["x", "router"], &["logits"], &[]),
        node("Softmax", &["logits"], &["chances"], &[int("axis", -1)]),
        node("TopK", &["chances", "top"], &["weights", "chosen"], &[int("axis", -1)]),
        node("Unsqueeze", &["x", "one"], &["rows"], &[]),
    ];
    let mut last = String::new();
    for place in 0..top {
        let name = |part: &str| format!("{part}{place}");
        let add = |op: &str, inputs: &[&str], output: &str| node(op, inputs, &[&name(output)], &[]);
        let at = ["zeroth", "first"][place];
        nodes.push(node("Gather", &["chosen", at], &[&name("index")], &[int("axis", 1)]));
        nodes.push(node("Gather", &["weights", at], &[&name("weight")], &[int("axis", 1)]));
        nodes.extend([
            add("Gather", &["up", &name("index")], "up_of"),
            add("Gather", &["up_bias", &name("index")], "bias_of"),
            add("Unsqueeze", &[&name("bias_of"), "one"], "bias_row"),
            add("MatMul", &["rows", &name("up_of")], "product"),
            add("Add", &[&name("product"), &name("bias_row")], "sum"),
            add("Relu", &[&name("sum")], "hidden"),
            add("Gather", &["down", &name("index")], "down_of"),
            add("MatMul", &[&name("hidden"), &name("down_of")], "out"),
            add("Squeeze", &[&name("out"), "one"], "flat"),
            add("Unsqueeze", &[&name("weight"), "one"], "column"),
        ]);
        nodes.push(if weighted {
            add("Mul", &[&name("flat"), &name("column")], "part")
        } else {
            add("Identity", &[&name("flat")], "part")
        });
        nodes.push(if place == 0 {
            add("Identity", &[&name("part")], "total")
        } else {
            add("Add", &[&last, &name("part")], "total")
        });
        last = name("total");
    }
    nodes.push(node("Identity", &[&last], &["y"], &[]));
    let scalar = |name: &str, value: i64| i64s(name, &[], &[value]);
    let weights = [
        f32s("router", &[8, e], router),
        f32s("up", &[e, 8, h], up),
        f32s("up_bias", &[e, h], bias),
        f32s("down", &[e, h, 8], down),
        i64s("top", &[1], &[top as i64]),
        i64s("one", &[1], &[1]),
        scalar("zeroth", 0),
        scalar("first", 1),
    ];
    model(&graph(&nodes, &weights, &[value("x", 1, &[20, 8])], &[value("y", 1, &[20, 8])]))
}

#[test]
fn the_least_used_experts_are_left_out() {
    // Features of kind 0 choose expert 3, kind 1 expert 1, kinds 2 and 3 expert 4.
    let mut router = vec![0.0; 8 * 5];
    for feature in 0..8 {
        router[feature * 5 + [3, 1, 4, 4][feature % 4]] = 2.0;
    }
    let (up, bias, down) = (numbers(5 * 8 * 6, "up"), numbers(5 * 6, "bias"), numbers(5 * 6 * 8, "down"));
    for weighted in [false, true] {
        let given = routed_model(&router, [&up, &bias, &down], [5, 6, 1], weighted);
        let mut samples = Kinds { width: 8, samples: 10 };
        let fewer = reduce(&given, Reduction::Drop(3), &mut samples, &Options::default()).unwrap();
        assert_eq!(fewer.routers[0].members, [[1], [3], [4]]);
        assert!(fewer.routers[0].usage[0] == 0.0 && fewer.routers[0].usage[4] > 0.3);
        assert_eq!(routed(&fewer.bytes), 2);
        if !weighted {
            assert_eq!(answer(&fewer.bytes, &[20, 8]), answer(&given, &[20, 8]), "the rest does what it did");
        }
        let editor = Editor::open(&fewer.bytes).unwrap();
        assert_eq!(editor.graph.initializer("up").unwrap().dims, [3, 8, 6]);
    }
}

#[test]
fn experts_with_the_same_neurons_in_another_order_are_merged_without_loss() {
    let (count, hidden) = (4, 6);
    // Experts 0 and 2, and 1 and 3, are the same; the neurons of the second are in another order.
    let order = [3, 0, 5, 1, 4, 2];
    let (ups, biases, downs) =
        (numbers(2 * 8 * hidden, "up"), numbers(2 * hidden, "b"), numbers(2 * hidden * 8, "down"));
    let (mut up, mut down) = (vec![0.0; count * 8 * hidden], vec![0.0; count * hidden * 8]);
    let mut bias = vec![0.0; count * hidden];
    for expert in 0..count {
        for (neuron, feature) in (0..hidden).flat_map(|neuron| (0..8).map(move |feature| (neuron, feature))) {
            let from = if expert < 2 { neuron } else { order[neuron] };
            bias[expert * hidden + neuron] = biases[expert % 2 * hidden + from];
            up[(expert * 8 + feature) * hidden + neuron] = ups[(expert % 2 * 8 + feature) * hidden + from];
            down[(expert * hidden + neuron) * 8 + feature] = downs[(expert % 2 * hidden + from) * 8 + feature];
        }
    }
    let mut router = vec![0.0; 8 * count];
    for feature in 0..8 {
        // Kinds 0 and 1 choose expert 0 or 2, the others 1 or 3.
        let expert = usize::from(feature % 4 > 1);
        router[feature * count + expert] = 2.0;
        router[feature * count + expert + 2] = if feature % 2 == 0 { 1.9 } else { 2.1 };
    }
    let given = routed_model(&router, [&up, &bias, &down], [count, hidden, 1], false);
    let mut samples = Kinds { width: 8, samples: 10 };
    let merged = reduce(&given, Reduction::Merge(2), &mut samples, &Options::default()).unwrap();
    assert_eq!(merged.routers[0].members, [[0, 2], [1, 3]]);
    assert!(apart(&answer(&merged.bytes, &[20, 8]), &answer(&given, &[20, 8])) < 1e-5);
    assert_eq!(routed(&merged.bytes), 2);
}

#[test]
fn merged_weights_are_means_by_use() {
    let (count, hidden) = (3, 1);
    // With a single neuron there is nothing to align. Experts 0 and 1 are scored alike.
    let mut router = vec![0.0; 8 * count];
    for feature in 0..8 {
        router[feature * count + 2] = if feature % 4 > 1 { 9.0 } else { 0.0 };
        router[feature * count] = if feature % 4 > 1 { 0.0 } else { 5.0 };
        router[feature * count + 1] = [6.0, 4.0, 0.0, 0.0][feature % 4];
    }
    let (up, down) = (numbers(count * 8, "up"), numbers(count * 8, "down"));
    let given = routed_model(&router, [&up, &numbers(count, "bias"), &down], [count, hidden, 1], true);
    let merged =
        reduce(&given, Reduction::Merge(2), &mut Kinds { width: 8, samples: 10 }, &Options::default()).unwrap();
    let Fewer { usage, members, .. } = &merged.routers[0];
    assert_eq!(*members, [vec![0, 1], vec![2]]);
    let share = usage[0] / (usage[0] + usage[1]);
    assert!((0.3..0.7).contains(&share));
    let editor = Editor::open(&merged.bytes).unwrap();
    let held = |name: &str| editor.graph.initializer(name).unwrap().numbers().unwrap();
    let want: Vec<f32> =
        (0..8).map(|i| (share * f64::from(up[i]) + (1.0 - share) * f64::from(up[8 + i])) as f32).collect();
    assert!(apart(&held("up")[..8], &want) < 1e-6 && held("up")[8..] == up[16..]);
    let columns: Vec<f32> = (0..8)
        .map(|i| (share * f64::from(router[i * 3]) + (1.0 - share) * f64::from(router[i * 3 + 1])) as f32)
        .collect();
    let got: Vec<f32> = held("router").iter().copied().step_by(2).collect();
    assert!(apart(&got, &columns) < 1e-6);
}

#[test]
fn experts_of_a_split_model_are_reduced() {
    let given = network(&[1, 20, 8], 8);
    let mut samples = Kinds { width: 8, samples: 20 };
    let divided = split(&given, &into(8, 3), &mut samples, &Options::default()).unwrap();
    for how in [Reduction::Merge(4), Reduction::Drop(4)] {
        let fewer = reduce(&divided.bytes, how, &mut samples, &Options::default()).unwrap();
        assert_eq!(fewer.routers[0].members.len(), 4);
        assert_eq!(routed(&fewer.bytes), 2);
        let parameters = |bytes: &[u8]| {
            Editor::open(bytes)
                .unwrap()
                .graph
                .initializers
                .iter()
                .map(|t| t.lengths().iter().product::<usize>())
                .sum::<usize>()
        };
        assert!(parameters(&fewer.bytes) < parameters(&divided.bytes) * 3 / 4);
    }
}

#[test]
fn experts_that_cannot_be_reduced_are_refused_with_a_reason() {
    let error = |bytes: &[u8], how: Reduction| {
        reduce(bytes, how, &mut Kinds { width: 8, samples: 4 }, &Options::default()).unwrap_err().to_string()
    };
    assert!(error(&network(&[1, 20, 8], 8), Reduction::Drop(2)).contains("no experts"));
    let (up, down) = (numbers(3 * 8 * 6, "up"), numbers(3 * 6 * 8, "down"));
    let given = routed_model(&numbers(24, "router"), [&up, &numbers(18, "bias"), &down], [3, 6, 2], true);
    assert!(error(&given, Reduction::Drop(3)).contains("ask for fewer"));
    assert!(error(&given, Reduction::Merge(1)).contains("at least that many"));
    let mut editor = Editor::open(&given).unwrap();
    editor.graph.nodes.push(Node::new("Exp", &["chances"], "read", Vec::new()));
    editor.graph.outputs.push(Port::of("read", FLOAT));
    assert!(error(&editor.write(), Reduction::Drop(2)).contains("reads the scores"));
}

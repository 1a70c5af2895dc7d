//! Truncated and damaged files, and the fields that a model must have.

use super::super::{Dimension, ValueType};
use super::*;
use crate::element::ElementType;

#[test]
fn a_sound_model_is_described() {
    let checked = accepts(&sound());
    assert_eq!(checked.ir_version, 8);
    assert_eq!(checked.opsets.get(""), Some(&17));
    assert_eq!((checked.nodes, checked.initializers), (2, 2));
    assert_eq!((checked.parameters, checked.weight_bytes), (112, 448));
    assert_eq!(checked.metadata, [("labels".to_owned(), "cat,dog".to_owned())]);
    assert_eq!(checked.inputs[0].name, "x");
    let shape = Some([1, 3, 8, 8].map(Dimension::Known).to_vec());
    assert_eq!(checked.inputs[0].kind, ValueType::Tensor { element: Some(ElementType::Float), shape });
    assert!(!checked.has_control_flow && checked.external.is_empty() && checked.sparse_initializers.is_empty());
}

#[test]
fn empty_file() {
    refuses(&[], "model.empty");
}

#[test]
fn one_byte() {
    for byte in 0..=255u8 {
        assert!(validate(&[byte], &Limits::default()).is_err());
    }
}

#[test]
fn truncation_at_every_byte_is_refused() {
    let bytes = sound();
    for end in 0..bytes.len() {
        // A cut between two fields may leave a smaller valid model. That is possible only near
        // the end, after the fields that a model must have.
        let Err(error) = validate(&bytes[..end], &Limits::default()) else {
            assert!(end > bytes.len() - 25, "accepted when cut at {end} of {}", bytes.len());
            continue;
        };
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn length_past_the_end() {
    refuses(&message().int(1, 8).varint(7 << 3 | 2).varint(1000).0, "model.truncated");
    refuses(&message().varint(7 << 3 | 2).varint(u64::MAX).0, "model.truncated");
}

#[test]
fn overlong_varint() {
    refuses(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "model.malformed");
}

#[test]
fn wrong_wire_type() {
    refuses(&message().text(1, "eight").0, "model.malformed");
    refuses(&message().int(1, 8).int(7, 3).0, "model.malformed");
}

#[test]
fn a_length_beyond_the_enclosing_message() {
    let mut lies = message().int(1, 8).varint(7 << 3 | 2).varint(2);
    lies = lies.varint(1 << 3 | 2).varint(20);
    lies.0.extend([0; 20]);
    refuses(&lies.0, "model.truncated");
}

#[test]
fn types_nested_ten_thousand_deep() {
    let mut kind = message().nested(1, &message().int(1, FLOAT));
    for _ in 0..10_000 {
        kind = message().nested(4, &message().nested(1, &kind));
    }
    let graph = graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[typed("x", &kind)], &[message().text(1, "y")]);
    refuses(&model(&graph), "model.depth");
}

#[test]
fn subgraphs_nested_a_thousand_deep() {
    let mut inner = graph(&[node("Relu", &["x"], &["z"], &[])], &[], &[], &[message().text(1, "z")]);
    for _ in 0..1000 {
        let branches = [body("then_branch", &inner), body("else_branch", &graph(&[], &[], &[], &[]))];
        inner = graph(&[node("If", &["x"], &["z"], &branches)], &[], &[], &[message().text(1, "z")]);
    }
    refuses(&model(&inner), "model.depth");
}

#[test]
fn no_graph_no_nodes_no_outputs() {
    refuses(&message().int(1, 8).nested(8, &opset("", 17)).0, "model.no-graph");
    refuses(&model(&graph(&[], &[], &[value("x", FLOAT, &[1])], &[value("x", FLOAT, &[1])])), "model.no-graph");
    refuses(
        &model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[value("x", FLOAT, &[1])], &[])),
        "model.no-graph",
    );
}

#[test]
fn a_graph_given_twice_is_ambiguous() {
    let graph = graph(&[], &[], &[], &[]);
    refuses(&message().int(1, 8).nested(7, &graph).nested(7, &graph).0, "model.repeated-field");
}

#[test]
fn ir_version_missing_or_unknown() {
    let rest = sound()[2..].to_vec();
    refuses(&rest, "model.ir-version");
    for version in [0, -1, 999, i64::MAX] {
        refuses(&[message().int(1, version).0, rest.clone()].concat(), "model.ir-version");
    }
}

#[test]
fn opset_missing_zero_unknown_or_contradictory() {
    let graph = graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[value("x", FLOAT, &[1])], &[message().text(1, "y")]);
    let with = |imports: &[Message]| message().int(1, 8).nested(7, &graph).all(8, imports).0;
    refuses(&with(&[]), "model.opset");
    for version in [i64::MIN, -1, 0, 1, 999, i64::MAX] {
        refuses(&with(&[opset("", version)]), "model.opset");
    }
    refuses(&with(&[message().text(1, "")]), "model.opset");
    refuses(&with(&[opset("", 17), opset("ai.onnx", 18)]), "model.opset");
    refuses(&with(&[opset("", 17), opset("ai.onnx.ml", 0)]), "model.opset");
    refuses(&with(&[opset("ai.onnx.ml", 3)]), "model.domain");
    for version in 7..=24 {
        accepts(&with(&[opset("", version)]));
    }
    accepts(&with(&[opset("ai.onnx", 17), opset("", 17), opset("com.microsoft", 1), opset("never.used", 1)]));
}

#[test]
fn operators_and_domains() {
    refuses(&one(&[1], "NoSuchOperator", &["x"], &[], &[]), "model.operator");
    refuses(&with(&[1], &[message().text(1, "x").text(2, "y")], &[]), "model.operator");
    let foreign = |domain: &str, op: &str, imports: &[Message]| {
        let nodes = [node(op, &["x"], &["y"], &[]).text(7, domain)];
        let graph = graph(&nodes, &[], &[value("x", FLOAT, &[1])], &[message().text(1, "y")]);
        message().int(1, 8).nested(7, &graph).nested(8, &opset("", 17)).all(8, imports).0
    };
    refuses(&foreign("evil", "Relu", &[opset("evil", 1)]), "model.domain");
    let blocked = "com.microsoft.nchwc";
    let error = validate(&foreign(blocked, "Conv", &[opset(blocked, 1)]), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("ORT_ENABLE_EXTENDED"), "{error}");
    refuses(&foreign("com.microsoft", "QuickGelu", &[]), "model.domain");
    refuses(&foreign("com.microsoft", "Conv", &[opset("com.microsoft", 1)]), "model.operator");
    accepts(&foreign("com.microsoft", "QuickGelu", &[opset("com.microsoft", 1)]));
    accepts(&foreign("ai.onnx", "Relu", &[]));
}

#[test]
fn too_many_nodes_messages_and_attributes() {
    let limits = Limits { max_nodes: 1, ..Limits::default() };
    assert_eq!(validate(&sound(), &limits).unwrap_err().code(), "model.limit");
    let limits = Limits { max_items: 10, ..Limits::default() };
    assert_eq!(validate(&sound(), &limits).unwrap_err().code(), "model.limit");
    let many: Vec<_> = (0..300).map(|i| int(&format!("a{i}"), 0)).collect();
    refuses(&one(&[1], "Relu", &["x"], &many, &[]), "model.limit");
    assert_eq!(
        validate(&sound(), &Limits { max_file_bytes: 100, ..Limits::default() }).unwrap_err().code(),
        "model.limit"
    );
}

#[test]
fn a_million_tiny_nodes() {
    let tiny = message().nested(1, &message()).0.repeat(1_000_000);
    refuses(&model(&Message(tiny)), "model.limit");
}

#[test]
fn dim_params() {
    let with = |symbol: &str| {
        let dim = message().text(2, symbol);
        let kind = message().nested(1, &message().int(1, FLOAT).nested(2, &message().nested(1, &dim)));
        model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[typed("x", &kind)], &[message().text(1, "y")]))
    };
    let checked = accepts(&with("batch"));
    let shape = Some(vec![Dimension::Symbol("batch".into())]);
    assert_eq!(checked.inputs[0].kind, ValueType::Tensor { element: Some(ElementType::Float), shape });
    // Exporters write whole expressions as names of dimensions. They are never evaluated.
    for symbol in ["floor(h/2) + 1", "größe; a\nb", &"(".repeat(10_000), &"a*".repeat(50_000), "999999999*999999999"]
    {
        accepts(&with(symbol));
    }
}

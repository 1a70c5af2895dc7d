//! Tensors: data in the model file, external data, and sparse tensors.

use super::*;

/// A model that adds `w` to an input of unknown shape.
fn adding(tensor: &Message) -> Vec<u8> {
    let untyped = typed("x", &message().nested(1, &message().int(1, FLOAT)));
    let nodes = [node("Identity", &["w"], &["v"], &[]), node("Relu", &["x"], &["y"], &[])];
    model(&graph(&nodes, std::slice::from_ref(tensor), &[untyped], &[message().text(1, "y")]))
}

#[test]
fn dimensions_negative_huge_or_overflowing() {
    for dims in [
        &[-1][..],
        &[i64::MIN],
        &[i64::MAX],
        &[i64::MAX, i64::MAX],
        &[1 << 32, 1 << 32],
        &[0, i64::MAX],
        &[1 << 16, 1 << 16],
    ] {
        refuses(&adding(&head("w", FLOAT, dims)), "model.dimension");
    }
    for dims in [&[i64::MIN][..], &[-2], &[i64::MAX], &[1 << 32, 1 << 32], &[0, i64::MAX]] {
        refuses(&one(dims, "Relu", &["x"], &[], &[]), "model.dimension");
    }
}

#[test]
fn too_many_dimensions() {
    refuses(&adding(&head("w", FLOAT, &[1; 33])), "model.limit");
    refuses(&one(&[1; 33], "Relu", &["x"], &[], &[]), "model.limit");
}

#[test]
fn a_dimension_of_zero_has_no_data() {
    accepts(&adding(&head("w", FLOAT, &[0, 4])));
    refuses(&adding(&f32s("w", &[0, 4], &[1.0])), "model.tensor-data");
    refuses(&adding(&head("w", FLOAT, &[2])), "model.tensor-data");
}

#[test]
fn raw_data_unlike_the_shape() {
    refuses(&adding(&f32s("w", &[3], &[1.0; 2])), "model.tensor-data");
    refuses(&adding(&f32s("w", &[3], &[1.0; 4])), "model.tensor-data");
    refuses(&adding(&head("w", FLOAT, &[1]).bytes(9, &[0; 3])), "model.tensor-data");
    accepts(&adding(&f32s("w", &[], &[1.0])));
}

#[test]
fn both_raw_and_typed_data() {
    refuses(&adding(&f32s("w", &[1], &[1.0]).float(4, 1.0)), "model.tensor-data");
    refuses(&adding(&head("w", FLOAT, &[1]).float(4, 1.0).int(7, 1)), "model.tensor-data");
}

#[test]
fn typed_data_counts_fields_and_ranges() {
    accepts(&adding(&head("w", FLOAT, &[2]).float(4, 1.0).float(4, 2.0)));
    accepts(&adding(&head("w", INT64, &[3]).bytes(7, &[1, 2, 3])));
    accepts(&adding(&head("w", 22, &[3]).int(5, 1).int(5, 2)));
    accepts(&adding(&head("w", 14, &[1]).float(4, 1.0).float(4, 2.0)));
    refuses(&adding(&head("w", FLOAT, &[2]).float(4, 1.0)), "model.tensor-data");
    refuses(&adding(&head("w", FLOAT, &[1]).int(7, 1)), "model.tensor-data");
    refuses(&adding(&head("w", 3, &[1]).int(5, 300)), "model.tensor-data");
    refuses(&adding(&head("w", 9, &[1]).int(5, 2)), "model.tensor-data");
    refuses(&adding(&head("w", INT32, &[1]).int(5, 1 << 40)), "model.tensor-data");
    refuses(&adding(&head("w", FLOAT, &[1]).bytes(4, &[0; 5])), "model.truncated");
    refuses(&adding(&head("w", INT64, &[1]).bytes(7, &[0xff])), "model.truncated");
}

#[test]
fn element_types() {
    for element in [0, 25, 999, -1, i64::MAX] {
        refuses(&adding(&head("w", element, &[0])), "model.data-type");
        refuses(
            &model(&graph(
                &[node("Relu", &["x"], &["y"], &[])],
                &[],
                &[value("x", element, &[1])],
                &[message().text(1, "y")],
            )),
            "model.data-type",
        );
    }
    // The model is valid. Whether it can run is checked elsewhere.
    accepts(&adding(&head("w", 17, &[2]).bytes(9, &[0; 2])));
}

#[test]
fn strings_are_not_raw() {
    accepts(&adding(&head("w", STRING, &[2]).texts(6, &["a", "b"])));
    refuses(&adding(&head("w", STRING, &[2]).bytes(9, b"ab")), "model.tensor-data");
    refuses(&adding(&head("w", STRING, &[2]).text(6, "a")), "model.tensor-data");
    refuses(&adding(&head("w", STRING, &[1]).bytes(6, &[0xff])), "model.text");
}

#[test]
fn inputs_without_a_type() {
    refuses(
        &model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[message().text(1, "x")], &[message().text(1, "y")])),
        "model.data-type",
    );
    refuses(
        &model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[typed("x", &message())], &[message().text(1, "y")])),
        "model.data-type",
    );
}

fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(key, value)| message().text(1, key).text(2, value)).collect();
    adding(&head("w", FLOAT, &[4]).all(13, &entries).int(14, 1))
}

#[test]
fn external_data_are_described() {
    let checked =
        accepts(&external(&[("location", "sub/w.bin"), ("offset", "64"), ("length", "16"), ("checksum", "x")]));
    let [tensor] = &checked.external[..] else { panic!("{:?}", checked.external) };
    assert_eq!(
        (tensor.tensor.as_str(), tensor.location.as_str(), tensor.offset, tensor.length),
        ("w", "sub/w.bin", 64, 16)
    );
    assert_eq!(checked.weight_bytes, 16);
}

#[test]
fn external_data_described_wrongly() {
    let at = |key, value| external(&[("location", "w.bin"), (key, value)]);
    for value in ["-1", "+1", "1e3", "", " 1", "99999999999999999999999"] {
        refuses(&at("offset", value), "model.external-data");
        refuses(&at("length", value), "model.external-data");
    }
    refuses(&at("offset", "18446744073709551615"), "model.external-data");
    refuses(&at("length", "15"), "model.external-data");
    refuses(&at("basepath", "/"), "model.external-data");
    refuses(&at("location", "other.bin"), "model.external-data");
    refuses(&external(&[("offset", "0")]), "model.external-data");
    for location in ["../w.bin", "/etc/passwd", "a/../../b", "a\0b", "", "a//b", "a\\b", "c:w", ".", "a/", "a/./b"] {
        refuses(&external(&[("location", location)]), "model.external-path");
    }
    accepts(&external(&[("location", "./w.bin")]));
    let entry = message().text(1, "location").text(2, "w.bin");
    refuses(&adding(&f32s("w", &[4], &[0.0; 4]).nested(13, &entry).int(14, 1)), "model.external-data");
    refuses(&adding(&f32s("w", &[4], &[0.0; 4]).nested(13, &entry)), "model.external-data");
    refuses(&adding(&head("w", FLOAT, &[4]).int(14, 2)), "model.external-data");
    refuses(&adding(&head("w", STRING, &[4]).nested(13, &entry).int(14, 1)), "model.external-data");
}

#[test]
fn segments_are_refused() {
    refuses(&adding(&zeros("w", &[1]).nested(3, &message().int(1, 0).int(2, 1))), "model.tensor-data");
}

fn sparse(stored: i64, index_dims: &[i64], indices: &[i64], dims: &[i64]) -> Vec<u8> {
    let tensor = message().nested(1, &zeros("s", &[stored])).nested(2, &i64s("", index_dims, indices));
    let tensor = dims.iter().fold(tensor, |message, dim| message.int(3, *dim));
    let nodes = [node("Add", &["x", "s"], &["y"], &[])];
    model(&graph(&nodes, &[], &[value("x", FLOAT, &[4, 4])], &[message().text(1, "y")]).nested(15, &tensor))
}

#[test]
fn sparse_initializers_are_reported() {
    assert_eq!(accepts(&sparse(3, &[3], &[0, 5, 15], &[4, 4])).sparse_initializers, ["s"]);
    accepts(&sparse(3, &[3, 2], &[0, 0, 1, 1, 3, 3], &[4, 4]));
    accepts(&sparse(0, &[0], &[], &[4, 4]));
}

#[test]
fn sparse_indices_unsorted_repeated_or_out_of_range() {
    refuses(&sparse(3, &[3], &[5, 0, 15], &[4, 4]), "model.sparse-tensor");
    refuses(&sparse(3, &[3], &[0, 5, 5], &[4, 4]), "model.sparse-tensor");
    refuses(&sparse(3, &[3], &[0, 5, 16], &[4, 4]), "model.sparse-tensor");
    refuses(&sparse(3, &[3], &[-1, 5, 15], &[4, 4]), "model.sparse-tensor");
    refuses(&sparse(3, &[3, 2], &[0, 0, 1, 4, 3, 3], &[4, 4]), "model.sparse-tensor");
    refuses(&sparse(3, &[3, 2], &[1, 1, 0, 0, 3, 3], &[4, 4]), "model.sparse-tensor");
    refuses(&sparse(3, &[2], &[0, 5], &[4, 4]), "model.sparse-tensor");
    refuses(&sparse(3, &[3], &[0, 1, 2], &[]), "model.sparse-tensor");
    refuses(&sparse(3, &[3], &[0, 1, 2], &[1 << 40, 1 << 40]), "model.dimension");
}

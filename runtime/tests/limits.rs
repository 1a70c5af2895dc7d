//! Every limit that has a name: a model above it is refused with that name, and opens once the limit is raised.
#![cfg(feature = "onnx")]

use std::path::{Path, PathBuf};

use skipstone::{Limits, Model, Options, Recipe, Result, compile};
use skipstone_onnx::write::{
    FLOAT, INT64, Message, body, f32s, graph, head, i64s, model, named, node, tensor, text, value,
};

/// The code of bool elements.
const BOOL: i64 = 9;

/// The path of a model that needs something of everything: a folded tensor and product, a loop, a string, external data.
fn everything(folder: &Path) -> PathBuf {
    let nodes = [node("Add", &["state", "w"], &["next"], &[]), node("Identity", &["true"], &["on"], &[])];
    let inputs = [value("at", INT64, &[]), value("go", BOOL, &[]), value("state", FLOAT, &[4, 4])];
    let outputs = [value("on", BOOL, &[]), value("next", FLOAT, &[4, 4])];
    let repeated = graph(&nodes, &[], &inputs, &outputs);
    let nodes = [
        node("ConstantOfShape", &["shape"], &["zeros"], &[]),
        node("MatMul", &["zeros", "zeros"], &["product"], &[]),
        node("ReduceSum", &["product"], &["sum"], &[]),
        node("Add", &["x", "sum"], &["y"], &[]),
        node("Pad", &["y", "pads"], &["padded"], &[text("mode", "constant")]),
        node("Loop", &["three", "true", "padded"], &["z"], &[body("body", &repeated)]),
    ];
    let raw: Vec<u8> = (0..16u8).flat_map(|number| f32::from(number).to_le_bytes()).collect();
    std::fs::write(folder.join("weights.bin"), &raw).unwrap();
    let entry = |key: &str, value: &str| Message::new().text(1, key).text(2, value);
    let entries = [entry("location", "weights.bin"), entry("length", &raw.len().to_string())];
    let initializers = [
        head("w", FLOAT, &[4, 4]).all(13, &entries).int(14, 1),
        i64s("shape", &[2], &[64, 64]),
        i64s("pads", &[4], &[0; 4]),
        i64s("three", &[], &[3]),
        tensor("true", BOOL, &[], &[1]),
        f32s("unread", &[], &[0.0]),
    ];
    let graph = graph(&nodes, &initializers, &[value("x", FLOAT, &[4, 4])], &[named("z")]);
    let path = folder.join("model.onnx");
    std::fs::write(&path, model(&graph)).unwrap();
    path
}

#[test]
fn a_model_above_a_limit_is_refused_with_its_name_and_opens_once_it_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let path = everything(folder.path());
    let open = |limits: Limits| Model::open(&path, &Options::default().limits(limits));
    let packed = |limits: Limits| -> Result<Vec<u8>> {
        let recipe = Recipe { limits, ..Recipe::default() };
        Ok(compile(&path, &recipe, None)?.0)
    };
    open(Limits::default()).unwrap();
    let package = packed(Limits::default()).unwrap();
    for limit in Limits::table() {
        let with = |value| {
            let mut limits = Limits::default();
            limits.set(limit.name, value).unwrap();
            limits
        };
        let above = |refused: Option<skipstone::Error>| {
            let error = refused.unwrap_or_else(|| panic!("{} of 0 is ignored", limit.name));
            assert!(error.code().starts_with("model."), "{}: {error}", limit.name);
            assert!(error.to_string().contains(&format!("'{}'", limit.name)), "{}: {error}", limit.name);
        };
        above(open(with(0)).err());
        above(packed(with(0)).err());
        open(with(limit.default)).unwrap();
        // A package has no file to check, but is planned anew.
        let again = Model::from_bytes(&package, &Options::default().limits(with(0)));
        match limit.name {
            "memory" | "work" | "iterations" => above(again.err()),
            _ => drop(again.unwrap()),
        }
    }
}

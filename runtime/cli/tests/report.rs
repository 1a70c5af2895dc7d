//! `skipstone bench` and `skipstone inspect`: their reports keep the shapes that others read.

mod support;

use support::{model, skipstone};

#[test]
fn bench_reports_latency_and_memory() {
    let outcome = skipstone(["bench", &model("colour.onnx"), "--warmup", "1", "--runs", "5", "--json", "-"]);
    let json = outcome.json();
    outcome.success();
    assert_eq!(json["runs"], 5);
    assert_eq!((&json["threads"], &json["precision"]), (&1.into(), &"f32".into()));
    let ms = |key: &str| json["latency_ms"][key].as_f64().unwrap();
    assert!(0.0 < ms("min") && ms("min") <= ms("p50") && ms("p50") <= ms("p90"));
    assert!(ms("p90") <= ms("p99") && ms("p99") <= ms("max") && ms("mean") <= ms("max"));
    // Nine weights and three biases.
    assert_eq!(json["memory"]["weights_bytes"], 48);
    for key in ["packed_bytes", "arena_bytes", "peak_rss_bytes"] {
        assert!(json["memory"][key].is_u64(), "{key}");
    }
    assert!(json["macs"].as_u64().unwrap() >= 9);
    assert!(json["load_ms"].as_f64().unwrap() > 0.0 && json["first_ms"].as_f64().unwrap() > 0.0);
    assert!(json.get("steps").is_none());
}

#[test]
fn bench_profiles_every_step() {
    let outcome = skipstone(["bench", &model("colour.onnx"), "--runs", "20", "--profile", "--json", "-"]);
    let json = outcome.json();
    let steps = json["steps"].as_array().unwrap();
    assert!(!steps.is_empty());
    let shares: f64 = steps.iter().map(|step| step["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-6);
    for step in steps {
        assert!(step["name"].is_string() && step["op"].is_string() && step["kernel"].is_string());
        assert!(step["ms"].is_f64() && step["macs"].is_u64());
    }
}

#[test]
fn bench_writes_json_beside_its_tables() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let arguments = ["bench", &model("colour.onnx"), "--runs", "3", "--profile", "--json"].map(str::to_owned);
    let table = skipstone(arguments.iter().map(String::as_str).chain([file.to_str().unwrap()])).success();
    assert!(table.contains("median") && table.contains("operator"), "{table}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(json["runs"], 3);
    let nowhere = skipstone(arguments.iter().map(String::as_str).chain(["/no/such/directory/x.json"]));
    nowhere.fault("io");
}

#[test]
fn inspect_tells_what_runs() {
    let outcome = skipstone(["inspect", &model("colour.onnx"), "--json"]);
    let json = outcome.json();
    outcome.success();
    assert_eq!(json["inputs"], serde_json::json!([{"name": "image", "dtype": "f32", "shape": [1, 3, 8, 8]}]));
    assert_eq!(json["outputs"], serde_json::json!([{"name": "logits", "dtype": "f32", "shape": [1, 3]}]));
    assert_eq!(json["parameters"], 12);
    assert_eq!(json["whole_model_fallback"], serde_json::Value::Null);
    let memory = &json["memory"];
    assert!(memory["arena_bytes"].as_u64() >= memory["arena_lower_bound_bytes"].as_u64());
    for key in ["weights_bytes", "packed_bytes", "constant_bytes"] {
        assert!(memory[key].is_u64(), "{key}");
    }
    let steps = json["steps"].as_array().unwrap();
    let shapes = |value: &serde_json::Value| value.as_array().unwrap().iter().all(serde_json::Value::is_array);
    assert!(!steps.is_empty() && steps.iter().all(|step| shapes(&step["inputs"]) && shapes(&step["outputs"])));
    assert!(json["fallback_steps"].is_array());

    let table = skipstone(["inspect", &model("colour.onnx")]).success();
    for word in ["image", "logits", "1x3x8x8", "parameters", "arena", "kernel"] {
        assert!(table.contains(word), "{word}: {table}");
    }
}

#[test]
fn a_dynamic_model_wants_its_shapes() {
    skipstone(["inspect", &model("sums.onnx")]).fault("shape.unbound");
    let bound = skipstone(["inspect", &model("sums.onnx"), "--shape", "a=2x3", "--shape", "b=2x3", "--json"]).json();
    assert_eq!(bound["inputs"][1]["shape"], serde_json::json!([2, 3]));
}

#[test]
fn the_instruction_set_can_be_forced() {
    let json = skipstone(["inspect", &model("colour.onnx"), "--isa", "scalar", "--json"]).json();
    assert_eq!(json["isa"], "scalar");
    skipstone(["inspect", &model("colour.onnx"), "--isa", "mmx"]).usage("mmx");
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    skipstone(["inspect", &model("colour.onnx"), "--isa", foreign]).fault("isa");
}

#[test]
fn models_that_are_none_are_faults() {
    skipstone(["inspect", "/no/such/model.onnx"]).fault("io");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("odd\nname.onnx");
    std::fs::write(&file, b"this is not a model").unwrap();
    for command in ["inspect", "bench"] {
        let outcome = skipstone([command, file.to_str().unwrap()]);
        assert_eq!((outcome.status, outcome.stderr.lines().count()), (1, 1), "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("error[model."), "{}", outcome.stderr);
    }
    skipstone(["inspect", directory.path().to_str().unwrap()]).fault("io");
}

#[test]
fn usage_errors_are_told_from_faults() {
    skipstone(["no-such-command"]).usage("no-such-command");
    skipstone(["bench", "m.onnx", "--threads", "0"]).usage("--threads");
    skipstone(["bench", "m.onnx", "--runs", "1", "--seconds", "1"]).usage("cannot be used with");
    skipstone(["bench", "m.onnx", "--seconds", "nan"]).usage("--seconds");
    skipstone(["bench", "m.onnx", "--shape", "x"]).usage("NAME=1x3x224x224");
    skipstone(["bench"]).usage("MODEL");
    for command in ["run", "classify", "bench", "inspect", "evaluate"] {
        let help = skipstone([command, "--help"]).success();
        assert!(help.contains("Examples:") && help.contains(&format!("skipstone {command}")), "{help}");
    }
}

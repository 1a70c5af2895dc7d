//! `skipstone bench` and `skipstone inspect`: their reports have the documented form.

mod support;

use std::path::Path;

use skipstone_onnx::write;
use support::{model, path, picture, skipstone};

#[test]
fn bench_reports_latency_and_memory() {
    let outcome = skipstone(["bench", &model("color.onnx"), "--warmup", "1", "--runs", "5", "--json", "-"]);
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
    let outcome = skipstone(["bench", &model("color.onnx"), "--runs", "20", "--profile", "--json", "-"]);
    let json = outcome.json();
    let steps = json["steps"].as_array().unwrap();
    assert!(!steps.is_empty());
    let shares: f64 = steps.iter().map(|step| step["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-6);
    for step in steps {
        assert!(step["name"].is_string() && step["op"].is_string() && step["kernel"].is_string());
        assert!(step["ms"].is_f64() && step["macs"].is_u64());
        let rate = step["macs"].as_u64().unwrap() as f64 * 2.0 / step["ms"].as_f64().unwrap() / 1e6;
        match step["gflops"].as_f64() {
            Some(gflops) => assert!((gflops - rate).abs() <= 1e-9 * rate),
            None => assert_eq!(step["macs"], 0),
        }
    }
    // The last step maps three elements to three, with nine weights in rows of up to sixteen and three biases.
    let bytes = steps.last().unwrap()["bytes"].as_u64().unwrap();
    assert!((24 + 36..=24 + 192 + 12).contains(&bytes), "{bytes}");
}

/// Parses the page as XML, and compares its figures with the JSON of the same measurement.
#[test]
fn bench_writes_a_page_that_is_well_formed() {
    let directory = tempfile::tempdir().unwrap();
    let (html, file) = (directory.path().join("report.html"), directory.path().join("a <b> & \"c\".onnx"));
    let pretrained = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pretrained/simplenet-310k-cifar10.onnx");
    std::fs::copy(pretrained, &file).unwrap();
    let [file, path] = [&file, &html].map(|path| path.to_str().unwrap());
    let outcome = skipstone(["bench", file, "--runs", "7", "--warmup", "0", "--json", "-", "--html", path]);
    let json = outcome.json();
    outcome.success();
    let page = std::fs::read_to_string(&html).unwrap();
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let page = roxmltree::Document::parse_with_options(&page, options).unwrap();
    let texts = |name: &str| -> Vec<String> {
        let elements = page.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/1999/xhtml", name)));
        elements
            .map(|node| node.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect())
            .collect()
    };
    assert_eq!(texts("h1"), [file]);
    assert_eq!(texts("h2"), ["Latency", "Steps", "Operators", "Kernels", "Arena"]);
    assert_eq!(texts("svg").len(), 5);
    let median = json["latency_ms"]["p50"].as_f64().unwrap();
    let shown: f64 = texts("dd")[0].strip_suffix(" ms").unwrap().parse().unwrap();
    assert!((shown - median).abs() <= median * 1e-3, "{shown} for {median}");
    // Every run is in a bar of the histogram, every step in the arena, the slowest step at the top.
    let titles = texts("title");
    let runs: usize =
        titles.iter().filter_map(|t| t.strip_suffix(" runs")?.rsplit_once(": ")?.1.parse::<usize>().ok()).sum();
    assert_eq!(runs, 7);
    let steps = json["steps"].as_array().unwrap();
    for step in steps {
        let name = step["name"].as_str().unwrap();
        assert!(
            titles.iter().any(|title| title.starts_with(&format!("{name}: ")) && title.contains(", step ")),
            "{name}"
        );
    }
    let slowest = steps.iter().max_by(|a, b| a["ms"].as_f64().unwrap().total_cmp(&b["ms"].as_f64().unwrap())).unwrap();
    let of_steps = titles.iter().find(|title| title.contains(slowest["kernel"].as_str().unwrap())).unwrap();
    assert!(of_steps.starts_with(slowest["name"].as_str().unwrap()), "{of_steps}");
    // Nothing is loaded from elsewhere.
    for node in page.descendants() {
        let outside = |value: &str| value.contains("//") && value != file;
        assert!(!node.attributes().any(|a| matches!(a.name(), "src" | "href") || outside(a.value())), "{node:?}");
        assert!(!node.has_tag_name("script") && !node.has_tag_name("link"));
    }
    skipstone(["bench", file, "--runs", "1", "--html", "/no/such/directory/x.html"]).fault("io");
}

/// A classifier of 2x2 images: a product whose first half of outputs reads the first half of its inputs, and the second
/// half the second, and then the expert with the largest of four sums, which are of the red, green and blue pixels, and
/// of nothing.
fn experts(directory: &Path) -> String {
    let halves: Vec<f32> = (0..12 * 64).map(|at| f32::from(u8::from((at / 64 < 6) == (at % 64 < 32)))).collect();
    let sums: Vec<f32> = (0..12 * 4).map(|at| f32::from(u8::from(at / 16 == at % 4))).collect();
    let matrices: Vec<f32> = (0..4 * 64 * 8).map(|at| (at % 7) as f32 - 3.0).collect();
    let constants = [
        write::f32s("halves", &[12, 64], &halves),
        write::f32s("sums", &[12, 4], &sums),
        write::f32s("matrices", &[4, 64, 8], &matrices),
        write::i64s("rows", &[3], &[1, 1, 64]),
    ];
    let nodes = [
        write::node("Flatten", &["x"], &["flat"], &[]),
        write::node("MatMul", &["flat", "halves"], &["wide"], &[]),
        write::node("MatMul", &["flat", "sums"], &["router"], &[]),
        write::node("ArgMax", &["router"], &["expert"], &[write::int("axis", 1), write::int("keepdims", 0)]),
        write::node("Gather", &["matrices", "expert"], &["matrix"], &[]),
        write::node("Reshape", &["wide", "rows"], &["row"], &[]),
        write::node("MatMul", &["row", "matrix"], &["product"], &[]),
        write::node("Flatten", &["product"], &["y"], &[]),
    ];
    let (x, y) = (write::value("x", write::FLOAT, &[1, 3, 2, 2]), write::value("y", write::FLOAT, &[1, 8]));
    let file = directory.join("experts.onnx");
    std::fs::write(&file, write::model(&write::graph(&nodes, &constants, &[x], &[y]))).unwrap();
    path(&file)
}

#[test]
fn zeros_and_their_pattern_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let model = experts(directory.path());
    let json = skipstone(["inspect", &model, "--json"]).json();
    let steps = json["steps"].as_array().unwrap();
    let layer = steps.iter().find(|step| step["zeros"] == 0.5).unwrap_or_else(|| panic!("{json}"));
    assert!(layer["reason"].as_str().unwrap().starts_with("50.0 % zeros, "), "{layer}");
    assert_eq!(layer["pattern"]["columns"], 12);
    let density: Vec<f64> =
        layer["pattern"]["density"].as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect();
    let want: Vec<f64> = (0..16 * 12).map(|at| f64::from(u8::from((at / 12 < 8) == (at % 12 < 6)))).collect();
    assert_eq!(density, want);
    // Half of the multiply-adds are skipped, or none if its kernel is dense.
    let sparse = layer["kernel"].as_str().unwrap().starts_with("sparse_");
    assert_eq!(layer["skipped"].as_u64(), sparse.then_some(12 * 64 / 2));
    assert!(steps.iter().all(|step| step["zeros"].is_null() == step["pattern"].is_null()), "{json}");
    let table = skipstone(["inspect", &model]).success();
    assert!(table.contains("▒▒▒▒▒▒▒▒ ▒▒▒▒▒▒▒▒"), "{table}");
}

#[test]
fn the_activity_of_experts_over_images_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (model, html) = (experts(directory.path()), path(&directory.path().join("report.html")));
    let photos = directory.path().join("photos");
    for (name, color) in [("a", [255, 0, 0]), ("b", [255, 9, 9]), ("c", [0, 0, 255]), ("d", [200, 100, 0])] {
        picture(&photos, &format!("{name}.png"), color);
    }
    let plain = ["--mean", "0", "--std", "1", "--images", photos.to_str().unwrap()];
    let json = skipstone(["bench", &model, "--profile", "--json", "-", "--html", &html].iter().chain(&plain)).json();
    assert_eq!((&json["runs"], &json["inputs"]), (&4.into(), &photos.to_str().unwrap().into()));
    let selected = |json: &serde_json::Value| {
        let steps = json["steps"].as_array().unwrap();
        let experts: Vec<_> = steps.iter().filter(|step| !step["selected"].is_null()).collect();
        assert_eq!(experts.len(), 1, "{json}");
        experts[0]["selected"].clone()
    };
    assert_eq!(selected(&json), serde_json::json!([3, 0, 1, 0]));
    let twice = skipstone(["bench", &model, "--profile", "--json", "-", "--runs", "8"].iter().chain(&plain)).json();
    assert_eq!(selected(&twice), serde_json::json!([6, 0, 2, 0]));
    let table = skipstone(["bench", &model, "--profile"].iter().chain(&plain)).success();
    assert!(table.contains("75 0 25 0 %"), "{table}");

    let page = std::fs::read_to_string(&html).unwrap();
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let page = roxmltree::Document::parse_with_options(&page, options).unwrap();
    let texts = |name: &str| -> Vec<String> {
        let elements = page.descendants().filter(|node| node.tag_name().name() == name);
        elements.map(|node| node.descendants().filter(|it| it.is_text()).filter_map(|it| it.text()).collect()).collect()
    };
    assert_eq!(
        texts("h2"),
        ["Latency", "Steps", "Operators", "Kernels", "Zero weights", "Experts", "Arena"].map(str::to_owned)
    );
    assert!(texts("title").contains(&"expert 0: 75.0 %, 3 times".to_owned()));
    // Everything that is drawn lies inside of its chart.
    for svg in page.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/1999/xhtml", "svg"))) {
        let size: Vec<f64> =
            svg.attribute("viewBox").unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
        for rect in svg.descendants().filter(|node| node.tag_name().name() == "rect") {
            let number = |name: &str| rect.attribute(name).map_or(0.0, |value| value.parse::<f64>().unwrap());
            let down = rect
                .ancestors()
                .find_map(|node| node.attribute("transform"))
                .map_or(0.0, |text| text.trim_end_matches(')').rsplit(' ').next().unwrap().parse::<f64>().unwrap());
            assert!(number("x") >= 0.0 && number("x") + number("width") <= size[2] + 0.1, "{rect:?}");
            assert!(number("y") >= 0.0 && down + number("y") + number("height") <= size[3] + 0.1, "{rect:?}");
        }
    }
}

#[test]
fn bench_writes_json_beside_its_tables() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let arguments = ["bench", &model("color.onnx"), "--runs", "3", "--profile", "--json"].map(str::to_owned);
    let table = skipstone(arguments.iter().map(String::as_str).chain([file.to_str().unwrap()])).success();
    assert!(table.contains("median") && table.contains("operator"), "{table}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(json["runs"], 3);
    let nowhere = skipstone(arguments.iter().map(String::as_str).chain(["/no/such/directory/x.json"]));
    nowhere.fault("io");
}

#[test]
fn inspect_lists_every_step() {
    let outcome = skipstone(["inspect", &model("color.onnx"), "--json"]);
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

    let table = skipstone(["inspect", &model("color.onnx")]).success();
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
    let json = skipstone(["inspect", &model("color.onnx"), "--isa", "scalar", "--json"]).json();
    assert_eq!(json["isa"], "scalar");
    skipstone(["inspect", &model("color.onnx"), "--isa", "mmx"]).usage("mmx");
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    skipstone(["inspect", &model("color.onnx"), "--isa", foreign]).fault("isa");
}

#[test]
fn files_that_are_not_models_are_faults() {
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
fn usage_errors_and_faults_have_different_exit_codes() {
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

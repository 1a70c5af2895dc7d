//! `skipstone tune`: its file is accepted by the commands that run and compile models, only on this machine and target.

mod support;

use support::{model, path, skipstone};

#[test]
fn what_was_measured_is_stored_and_used() {
    let directory = tempfile::tempdir().unwrap();
    let (tune, package) = (path(&directory.path().join("m.tune")), path(&directory.path().join("m.skip")));
    let color = model("color.onnx");
    let text = skipstone(["tune", &color, "-o", &tune]).success();
    assert!(text.contains("steps with a choice") && text.contains("a whole run takes"), "{text}");
    let report = skipstone(["tune", &color, "-o", &tune, "--json"]).json();
    assert!(report["run"]["measured_ms"].as_f64().unwrap() > 0.0);
    assert!(report["by_model_to_measured"].as_f64().unwrap() >= 1.0);
    assert_eq!(report["threads"], 1);

    skipstone(["inspect", &color, "--tuning", &tune]).success();
    skipstone(["compile", &color, "-o", &package, "--target", "host", "--tuning", &tune]).success();
    skipstone(["inspect", &package]).success();
    skipstone(["tune", &package, "-o", &tune]).fault("tuning.none");

    skipstone(["inspect", &color, "--tuning", &tune, "--threads", "2"]).fault("tuning.target");
    skipstone(["compile", &color, "-o", &package, "--target", "host", "--memory", "small", "--tuning", &tune])
        .fault("tuning.target");
    skipstone(["compile", &color, "-o", &package, "--tuning", &tune]).usage("give a --target");
    skipstone(["tune", &color, "-o", &tune, "--tuning", &tune]).usage("--tuning is not an option of this command");
    let mut bytes = std::fs::read(&tune).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&tune, bytes).unwrap();
    skipstone(["inspect", &color, "--tuning", &tune]).usage("damaged");
    skipstone(["inspect", &color, "--tuning", "/no/such/file.tune"]).usage("/no/such/file.tune");
}

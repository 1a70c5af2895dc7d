//! Tests of `skipstone classify` and `skipstone evaluate`.

mod support;

use support::{model, path, picture, skipstone};

/// Probability of the right color for an image of one color: the normalized mean is 1 for it and -1 for the others,
/// times 4, then softmax.
const CERTAIN: f64 = 0.999_329;

fn close(got: &serde_json::Value, want: f64) {
    assert!((got.as_f64().unwrap() - want).abs() < 1e-5, "{got} is not {want}");
}

#[test]
fn pictures_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let red = path(&picture(directory.path(), "some.png", [255, 0, 0]));
    let blue = path(&picture(directory.path(), "other.bmp", [0, 0, 255]));
    let outcome = skipstone(["classify", &model("color.onnx"), &red, &blue, "--top", "2", "--json"]);
    let json = outcome.json();
    assert_eq!(outcome.success().chars().next(), Some('{'));
    assert_eq!(json["model"], model("color.onnx"));
    let images = json["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    for (image, (file, label, index)) in images.iter().zip([(red, "red", 0), (blue, "blue", 2)]) {
        assert_eq!(image["file"], file);
        assert!(image["ms"].as_f64().unwrap() > 0.0);
        let top = image["top"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["label"], &top[0]["index"]), (2, &label.into(), &index.into()));
        close(&top[0]["score"], CERTAIN);
    }
}

#[test]
fn flags_come_before_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let green = path(&picture(directory.path(), "g.png", [0, 255, 0]));
    let labels = directory.path().join("labels.txt");
    std::fs::write(&labels, "rot\ngrün\nblau\n").unwrap();
    let base = ["classify", &model("color.onnx"), &green, "--json", "--labels", &path(&labels)].map(str::to_owned);
    let outcome = skipstone(base.iter().map(String::as_str).chain(["--mean", "0", "--std", "1,1,1", "--resize", "9"]));
    let top = &outcome.json()["images"][0]["top"][0];
    assert_eq!(top["label"], "grün");
    // Now 1 against 0, times 4: e^4 / (e^4 + 2).
    close(&top["score"], 0.964_663);
    skipstone(base.iter().map(String::as_str).chain(["--crop", "9"])).fault("model.metadata");
    skipstone(base.iter().map(String::as_str).chain(["--std", "0"])).fault("model.metadata");
    skipstone(base.iter().map(String::as_str).chain(["--mean", "a"])).usage("--mean");
}

/// Regression: a softmax and ImageNet's normalization were applied silently.
#[test]
fn the_activation_and_the_normalization_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let green = path(&picture(directory.path(), "g.png", [0, 255, 0]));
    let base = ["classify", &model("color.onnx"), &green].map(str::to_owned);
    let with = |more: &[&str]| skipstone(base.iter().map(String::as_str).chain(more.iter().copied()));
    let json = with(&["--json"]).json();
    assert!(json["scores"].as_str().unwrap().starts_with("softmax, assumed"), "{json}");
    assert_eq!(json["normalization"]["from"], "by the model's metadata");
    let table = with(&["--mean", "0", "--std", "1"]).success();
    assert!(table.contains("normalization: mean 0,0,0, std 1,1,1, as requested\n"), "{table}");
    // The normalized mean of the right channel is 1, times 4.
    let json = with(&["--json", "--activation", "none"]).json();
    close(&json["images"][0]["top"][0]["score"], 4.0);
    // Regression: the table said 400.0 %.
    let table = with(&["--activation", "none"]).success();
    assert!(table.contains("  4  ") && !table.contains('%'), "{table}");
    let json = with(&["--json", "--activation", "sigmoid", "--threshold", "0.5"]).json();
    let top = json["images"][0]["top"].as_array().unwrap();
    assert_eq!(top.len(), 1, "{json}");
    close(&top[0]["score"], 0.982_014);
    let json = with(&["--json", "--deny", "green"]).json();
    assert_ne!(json["images"][0]["top"][0]["label"], "green");
    with(&["--allow", "mauve"]).fault("input.label");
    with(&["--allow", "green", "--deny", "red"]).usage("--deny");
    with(&["--activation", "relu"]).usage("--activation");

    // The options are stored in the package, and reported by every command that opens it.
    let names = directory.path().join("names.txt");
    std::fs::write(&names, "rot\ngrün\nblau\n").unwrap();
    let package = path(&directory.path().join("color.skip"));
    let localized = format!("de={}", path(&names));
    let compile = ["compile", &model("color.onnx"), "-o", &package, "--activation", "sigmoid"];
    let said = skipstone(compile.into_iter().chain(["--labels-for", &localized])).success();
    assert!(said.contains("scores: sigmoid, as requested\n"), "{said}");
    let json = skipstone(["inspect", &package, "--json"]).json();
    assert_eq!(json["classifier"]["activation"], "sigmoid");
    assert_eq!(json["classifier"]["activation_from"], "by the model's metadata");
    let json = skipstone(["classify", &package, &green, "--json", "--locale", "de-AT"]).json();
    let top = &json["images"][0]["top"][0];
    assert_eq!((&top["label"], &top["display_name"]), (&"green".into(), &"grün".into()));
    close(&top["score"], 0.982_014);
    skipstone(["compile", &model("color.onnx"), "-o", &package, "--std", "0"]).fault("model.metadata");
}

#[test]
fn a_directory_is_walked_and_a_broken_image_does_not_stop_it() {
    let directory = tempfile::tempdir().unwrap();
    picture(directory.path(), "b.png", [255, 0, 0]);
    picture(directory.path(), "deep/a.JPEG", [0, 255, 0]);
    picture(directory.path(), "c.webp", [0, 0, 255]);
    std::fs::write(directory.path().join("notes.txt"), "no image").unwrap();
    let arguments = ["classify", &model("color.onnx"), &path(directory.path()), "--top", "1"].map(str::to_owned);
    let table = skipstone(&arguments).success();
    let lines: Vec<&str> = table.lines().collect();
    for (line, (file, label)) in lines[1..4].iter().zip([("b.png", "red"), ("c.webp", "blue"), ("a.JPEG", "green")]) {
        assert!(line.contains(file) && line.contains(label), "{table}");
    }
    assert!(lines.last().unwrap().starts_with("3 images, ") && table.ends_with("ms median\n"), "{table}");

    std::fs::write(directory.path().join("bad.png"), b"\x89PNG\r\n\x1a\nnonsense").unwrap();
    let outcome = skipstone(&arguments);
    assert_eq!((outcome.status, outcome.stderr.lines().count()), (1, 1), "{}", outcome.stderr);
    assert!(outcome.stderr.starts_with("error[image]: ") && outcome.stderr.contains("bad.png"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("3 images, "));
    let json = skipstone(arguments.iter().map(String::as_str).chain(["--json"])).json();
    assert_eq!(json["images"].as_array().unwrap().len(), 3);
    assert!(json["failed"][0]["file"].as_str().unwrap().ends_with("bad.png"));
}

/// Regression: a pipe named like an image blocked the command.
#[cfg(unix)]
#[test]
fn a_pipe_is_refused_as_an_image() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = path(&directory.path().join("pipe.png"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let outcome = skipstone(["classify", &model("color.onnx"), &pipe]);
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.starts_with("error[image]: "), "{}", outcome.stderr);
}

#[test]
fn nothing_to_classify_is_a_fault() {
    let directory = tempfile::tempdir().unwrap();
    skipstone(["classify", &model("color.onnx"), &path(directory.path())]).fault("image");
    skipstone(["classify", &model("color.onnx")]).usage("IMAGE|DIR");
    let shapes = ["--shape", "a=8x8", "--shape", "b=8x8"];
    let picture = path(&picture(directory.path(), "p.png", [1, 2, 3]));
    skipstone(["classify", &model("sums.onnx"), &picture].into_iter().chain(shapes)).fault("model.image-input");
}

#[test]
fn accuracy_is_counted_by_class_on_any_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let dataset = directory.path().join("dataset");
    for i in 0..4 {
        picture(&dataset, &format!("red/{i}.png"), [200, 20 * i, 0]);
        picture(&dataset, &format!("1/{i}.png"), [0, 200, 20 * i]);
    }
    // Mislabeled on purpose: three of four images in `blue` are red.
    picture(&dataset, "blue/0.png", [0, 0, 200]);
    for i in 1..4 {
        picture(&dataset, &format!("blue/{i}.png"), [200, 0, 0]);
    }
    for threads in ["1", "3", "64"] {
        let outcome = skipstone(["evaluate", &model("color.onnx"), &path(&dataset), "--json", "--threads", threads]);
        let json = outcome.json();
        outcome.success();
        assert_eq!(json["images"], 12);
        close(&json["top1"], 9.0 / 12.0);
        close(&json["top5"], 1.0);
        let blue = &json["classes"][2];
        assert_eq!((&blue["label"], &blue["index"], &blue["images"]), (&"blue".into(), &2.into(), &4.into()));
        close(&blue["top1"], 0.25);
        assert_eq!(blue["mistaken_for"], "red");
        assert_eq!(json["classes"][0]["mistaken_for"], serde_json::Value::Null);
    }
    let table = skipstone(["evaluate", &model("color.onnx"), &path(&dataset)]).success();
    assert!(table.contains("12 images: top-1 75.00 %, top-5 100.00 %"), "{table}");
}

#[test]
fn a_data_set_that_does_not_fit_is_a_fault() {
    let directory = tempfile::tempdir().unwrap();
    let evaluate = || skipstone(["evaluate", &model("color.onnx"), &path(directory.path())]);
    evaluate().fault("dataset");
    picture(directory.path(), "mauve/0.png", [1, 2, 3]);
    evaluate().fault("dataset");
    skipstone(["evaluate", &model("color.onnx"), "/no/such/directory"]).fault("io");
}

/// Decoders end the process when they find no memory: the command asks for it before.
#[test]
#[cfg(target_os = "linux")]
fn a_picture_beyond_memory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let large = path(&directory.path().join("large.bmp"));
    image::RgbImage::new(4000, 4000).save(&large).unwrap();
    // Kilobytes of address space: too few for the picture, and enough for the model.
    let script = "ulimit -v $1; shift; exec \"$@\"";
    let limited = |kilobytes: &str| {
        let program = env!("CARGO_BIN_EXE_skipstone");
        let arguments = ["-c", script, "sh", kilobytes, program, "classify", &model("color.onnx"), &large];
        std::process::Command::new("sh").args(arguments).output().unwrap()
    };
    assert_eq!(limited("unlimited").status.code(), Some(0));
    let refused = limited("140000");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains("there is no memory for the 144000000 bytes"), "{error}");
}

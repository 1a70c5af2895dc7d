//! `skipstone run`: arrays in, arrays out, and errors for wrong ones.

mod support;

use skipstone_onnx::write;
use support::{Outcome, model, npy, path, read_npy, skipstone};

const A: [f32; 6] = [1.0, -2.0, 3.5, 0.0, 1e10, -0.25];
const B: [f32; 6] = [0.5, 2.0, -1.5, 0.0, 1.0, 0.25];

fn run(inputs: &[String], directory: &str, more: &[&str]) -> Outcome {
    let mut arguments = vec!["run".to_owned(), model("sums.onnx"), "--output-dir".into(), directory.into()];
    arguments.extend(inputs.iter().flat_map(|input| ["--input".to_owned(), input.clone()]));
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    skipstone(&arguments)
}

#[test]
fn arrays_round_trip_and_outputs_stay_distinct() {
    let directory = tempfile::tempdir().unwrap();
    let a = npy(directory.path(), "a.npy", "(2, 3)", &A);
    let b = npy(directory.path(), "b.npy", "(2, 3)", &B);
    let out = directory.path().join("new/out");
    let inputs = [format!("b={}", path(&b)), format!("a={}", path(&a))];
    let stdout = run(&inputs, &path(&out), &[]).success();
    assert!(stdout.contains("out/sum") && stdout.contains("f32 2x3"), "{stdout}");

    // `out_sum` is a valid file name, so `out/sum` gets another one.
    for (file, sign) in [("out_sum-2.npy", 1.0), ("out_sum.npy", -1.0)] {
        let (header, got) = read_npy(&out.join(file));
        assert!(header.contains("'shape': (2, 3,)"), "{header}");
        let want: Vec<f32> = A.iter().zip(B).map(|(a, b)| a + sign * b).collect();
        assert_eq!(got, want, "{file}");
    }
}

/// Keras, PaddlePaddle and PyTorch's dynamic axes leave the batch size open.
#[test]
fn an_open_batch_is_one_by_default() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("open.onnx");
    let nodes = [write::node("Relu", &["x"], &["y"], &[])];
    let graph = write::graph(&nodes, &[], &[write::value("x", 1, &[-1, 3])], &[write::value("y", 1, &[-1, 3])]);
    std::fs::write(&file, write::model(&graph)).unwrap();
    let inspected = skipstone(["inspect", &path(&file), "--json"]);
    assert!(inspected.stderr.contains("1 is assumed, --shape x=Nx3"), "{}", inspected.stderr);
    let json = inspected.json();
    assert_eq!((&json["inputs"][0]["shape"], &json["assumed_batch"][0]), (&[1, 3].as_slice().into(), &"x".into()));

    let a = npy(directory.path(), "a.npy", "(2, 3)", &A);
    let out = directory.path().join("out");
    let given = format!("x={}", path(&a));
    let ran = skipstone(["run", &path(&file), "--input", &given, "--output-dir", &path(&out)]);
    assert!(!ran.stderr.contains("assumed"), "{}", ran.stderr);
    ran.success();
    assert_eq!(read_npy(&out.join("y.npy")).1, A.map(|a| a.max(0.0)));
}

/// What to do about open sizes is said for all inputs at once, and as it can be given.
#[test]
fn open_sizes_of_all_inputs_are_named_together() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("open.onnx");
    let nodes = [write::node("Add", &["a", "b"], &["y"], &[])];
    let compiled = |dims: &[i64]| {
        let graph = write::graph(
            &nodes,
            &[],
            &["a", "b"].map(|name| write::value(name, 1, dims)),
            &[write::value("y", 1, dims)],
        );
        std::fs::write(&file, write::model(&graph)).unwrap();
        skipstone(["compile", &path(&file), "-o", &path(&directory.path().join("open.skip"))])
    };
    let refused = compiled(&[-1, -1]);
    assert!(refused.stderr.contains("bind it with --shape a=1x16 --shape b=1x16 or"), "{}", refused.stderr);
    let noted = compiled(&[-1, 3]);
    assert!(noted.stderr.contains("the package is for 1, --shape b=Nx3 sets another"), "{}", noted.stderr);
}

#[test]
fn a_package_for_several_shapes_takes_any_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let (package, out) = (path(&directory.path().join("sums.skip")), directory.path().join("out"));
    let compile = |shapes: &[&str]| {
        let shapes = shapes.iter().flat_map(|shape| ["--shape", shape]);
        let arguments = ["compile", &model("sums.onnx"), "-o", &package].map(str::to_owned);
        skipstone(arguments.into_iter().chain(shapes.map(str::to_owned)))
    };
    assert_eq!(compile(&["a=2x3", "a=1x6", "b=2x3", "b=1x6", "b=3x2"]).status, 2);
    let said = compile(&["a=2x3", "b=2x3", "a=1x6", "b=1x6"]).success();
    assert!(said.contains("2 sets of shapes"), "{said}");
    let json = skipstone(["inspect", &package, "--json"]).json();
    assert_eq!(json["shapes"].as_array().unwrap().len(), 2, "{json:?}");
    assert!(skipstone(["inspect", &package]).success().contains("2x3 2x3, 1x6 1x6"));
    for (shape, header) in [("(2, 3)", "(2, 3,)"), ("(1, 6)", "(1, 6,)")] {
        let [a, b] = [("a", A), ("b", B)].map(|(name, held)| {
            format!("{name}={}", path(&npy(directory.path(), &format!("{name}.npy"), shape, &held)))
        });
        skipstone(["run", &package, "--input", &a, "--input", &b, "--output-dir", &path(&out)]).success();
        let (got, sums) = read_npy(&out.join("out_sum-2.npy"));
        assert!(got.contains(header), "{got}");
        assert_eq!(sums, A.iter().zip(B).map(|(a, b)| a + b).collect::<Vec<f32>>());
    }
    let other = format!("a={}", path(&npy(directory.path(), "a.npy", "(3, 2)", &A)));
    let b = format!("b={}", path(&npy(directory.path(), "b.npy", "(3, 2)", &B)));
    skipstone(["run", &package, "--input", &other, "--input", &b, "--output-dir", &path(&out)]).fault("input.shape");
}

#[test]
fn an_output_has_as_many_elements_as_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let [file, package] = ["positive.onnx", "positive.skip"].map(|name| path(&directory.path().join(name)));
    let nodes =
        [write::node("Greater", &["x", "zero"], &["mask"], &[]), write::node("Compress", &["x", "mask"], &["y"], &[])];
    let (zero, x) = (write::f32s("zero", &[], &[0.0]), write::value("x", 1, &[6]));
    std::fs::write(&file, write::model(&write::graph(&nodes, &[zero], &[x], &[write::named("y")]))).unwrap();
    skipstone(["compile", &file, "-o", &package]).success();
    let said = skipstone(["inspect", &package]).success();
    assert!(said.contains("at most, along axis 0"), "{said}");
    let given = format!("x={}", path(&npy(directory.path(), "x.npy", "(6,)", &A)));
    for model in [file, package] {
        let out = directory.path().join("out");
        skipstone(["run", &model, "--input", &given, "--output-dir", &path(&out)]).success();
        let (header, got) = read_npy(&out.join("y.npy"));
        assert!(header.contains("(3,)"), "{header}");
        assert_eq!(got, [1.0, 3.5, 1e10]);
    }
}

#[test]
fn wrong_inputs_are_faults() {
    let directory = tempfile::tempdir().unwrap();
    let a = path(&npy(directory.path(), "a.npy", "(2, 3)", &A));
    let wide = path(&npy(directory.path(), "wide.npy", "(1, 6)", &A));
    let broken = path(&npy(directory.path(), "broken.npy", "(2, 4)", &A));
    let out = path(&directory.path().join("out"));
    let input = |name: &str, file: &str| format!("{name}={file}");

    run(&[input("a", &a), input("b", &a), input("c", &a)], &out, &[]).fault("input.unknown");
    run(&[input("a", &a)], &out, &["--shape", "a=2x3", "--shape", "b=2x3"]).fault("input.missing");
    run(&[input("a", &a), input("b", &wide)], &out, &["--shape", "a=2x3", "--shape", "b=2x3"]).fault("input.shape");
    run(&[input("a", &a), input("b", &broken)], &out, &[]).fault("input.npy");
    run(&[input("a", &a), input("b", "/no/such/file.npy")], &out, &[]).fault("io");
    run(&[input("a", &a)], &out, &[]).fault("shape.unbound");
    assert!(!directory.path().join("out").exists(), "a failed run leaves nothing");
}

#[test]
fn a_command_line_that_contradicts_itself_is_a_usage_error() {
    run(&["a=x.npy".into(), "a=y.npy".into()], "out", &[]).fault("io");
    let directory = tempfile::tempdir().unwrap();
    let a = path(&npy(directory.path(), "a.npy", "(2, 3)", &A));
    run(&[format!("a={a}"), format!("a={a}")], "out", &[]).usage("--input a is given twice");
    run(&["a".into()], "out", &[]).usage("NAME=FILE.npy");
    skipstone(["run", &model("sums.onnx")]).usage("--output-dir");
}

//! ONNX files on the device: opened, converted, refused.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::*;

/// A network from the repository: one image of 3x32x32, ten classes.
const SIMPLENET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pretrained/simplenet-310k-cifar10.onnx");

/// A temporary folder, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("skipstone-onnx-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The outputs for an image with a fixed pattern.
fn run(model: Arc<Model>) -> Vec<f32> {
    let image: Vec<f32> = (0..3 * 32 * 32).map(|i| (i % 17) as f32 / 17.0).collect();
    let mut scores = vec![0.0f32; 10];
    let at = |address: *const f32, elements: usize| TensorAddress {
        address: address as u64,
        length_bytes: elements as u64 * 4,
    };
    let session = Session::new(model).unwrap();
    session.run_at(vec![at(image.as_ptr(), image.len())], vec![at(scores.as_mut_ptr(), 10)]).unwrap();
    scores
}

#[test]
fn a_file_opens_by_path_descriptor_and_bytes() {
    use std::os::fd::AsRawFd;
    let bytes = fs::read(SIMPLENET).unwrap();
    let opened = Model::open(SIMPLENET.into(), Config::default()).unwrap();
    assert_eq!(opened.info().name, "simplenet-310k-cifar10");
    let expected = run(opened);
    let copied = Config { copy: true, ..Config::default() };
    assert_eq!(run(Model::open(SIMPLENET.into(), copied).unwrap()), expected);
    assert_eq!(run(Model::from_bytes(&bytes, Config::default()).unwrap()), expected);

    // As a part of a file, like an asset.
    let folder = Folder::new("parts");
    fs::write(folder.file("archive"), [&[0; 100], bytes.as_slice(), &[0; 100]].concat()).unwrap();
    let archive = fs::File::open(folder.file("archive")).unwrap();
    let part = Model::open_descriptor(archive.as_raw_fd(), 100, bytes.len() as u64, Config::default()).unwrap();
    assert_eq!(run(part), expected);
}

#[test]
fn a_converted_file_is_a_package_for_this_machine() {
    let folder = Folder::new("convert");
    let to = folder.file("model.skip");
    let converted = Model::convert(SIMPLENET.into(), to.clone(), Config::default()).unwrap();
    assert_eq!(converted.info().name, "model");
    assert!(converted.runtime().info().package.as_ref().unwrap().packed_for.is_some());
    let expected = run(Model::open(SIMPLENET.into(), Config::default()).unwrap());
    assert_eq!(run(converted), expected);
    assert_eq!(run(Model::open(to, Config::default()).unwrap()), expected);
    assert_eq!(folder.names(), ["model.skip"]);
}

#[test]
fn a_file_above_a_limit_is_refused_with_its_name_and_opens_once_it_is_raised() {
    let folder = Folder::new("limits");
    let to = folder.file("model.skip");
    let with = |name: &str, value| Config { limits: [(name.to_owned(), value)].into(), ..Config::default() };
    for name in ["nodes", "file", "elements", "name", "memory"] {
        let low = || with(name, 3);
        let open = Model::open(SIMPLENET.into(), low());
        for refused in [open, Model::convert(SIMPLENET.into(), to.clone(), low())] {
            let error = refused.map(drop).unwrap_err();
            assert!(matches!(error, SkipstoneError::Model { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains(&format!("'{name}'")), "{name}: {error}");
        }
        Model::open(SIMPLENET.into(), with(name, 1 << 30)).unwrap();
    }
    Model::convert(SIMPLENET.into(), to, with("nodes", 1000)).unwrap();
}

#[test]
fn a_failed_conversion_leaves_the_target_unchanged() {
    let folder = Folder::new("refused");
    let to = folder.file("model.skip");
    fs::write(&to, "the old one").unwrap();
    let bytes = fs::read(SIMPLENET).unwrap();
    fs::write(folder.file("cut"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(folder.file("empty"), "").unwrap();
    for name in ["cut", "empty"] {
        let error = Model::convert(folder.file(name), to.clone(), Config::default()).map(drop).unwrap_err();
        assert!(matches!(error, SkipstoneError::Model { .. }), "{name}: {error:?}");
    }
    let code =
        |from: &str, config| Model::convert(from.into(), to.clone(), config).map(drop).unwrap_err().code().to_owned();
    assert_eq!(code("/nowhere", Config::default()), "io");
    assert_eq!(code(SIMPLENET, Config { public_key: Some(vec![7; 32]), ..Config::default() }), "input.key");
    let wrong = [("input".to_owned(), vec![1, 3, 64, 64])].into();
    assert!(code(SIMPLENET, Config { shapes: wrong, ..Config::default() }).starts_with("input"));
    assert_eq!(fs::read(&to).unwrap(), b"the old one");
}

/// With a key, ONNX files are refused: they cannot be signed.
#[test]
fn onnx_files_are_refused_if_a_key_is_required() {
    let signed = Config { public_key: Some(vec![7; 32]), ..Config::default() };
    let bytes = fs::read(SIMPLENET).unwrap();
    for refused in [Model::open(SIMPLENET.into(), signed.clone()), Model::from_bytes(&bytes, signed)] {
        assert_eq!(refused.map(drop).unwrap_err().code(), "package.magic");
    }
}

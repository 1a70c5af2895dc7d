//! Shared by the command's tests: calling it, and files for it.
//!
//! `models/color.onnx` classifies an 8x8 image by its strongest color: global average pooling and a 3x3 identity times
//! 4, with labels and normalization in its metadata. `models/sums.onnx` computes `out/sum = a + b` and `out_sum = a -
//! b` of dynamic matrices.

#![allow(dead_code, reason = "every test program uses a part")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The result of running `skipstone`.
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `skipstone`.
pub fn skipstone<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
    let output = command.args(arguments).env_remove("SKIPSTONE_ISA").env_remove("RUST_BACKTRACE").output().unwrap();
    Outcome {
        status: output.status.code().expect("the command ends by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The result of running `skipstone` whose output is a file.
pub struct Piped {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// Runs `skipstone` on standard input.
pub fn skipstone_on<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>, input: &[u8]) -> Piped {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
    command.args(arguments).env_remove("SKIPSTONE_ISA").env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its arguments does not read; these inputs fit a pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Piped {
        status: output.status.code().expect("the command ends by itself"),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Outcome {
    /// Its stdout, after a success with empty stderr.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        self.stdout
    }

    /// Its stdout as one JSON object on one line.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.matches('\n').count(), 1, "{}", self.stdout);
        let value: serde_json::Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(value.is_object());
        value
    }

    /// Expects status 1 and one line on stderr that begins with the code.
    #[track_caller]
    pub fn fault(&self, code: &str) {
        assert_eq!(self.status, 1, "{} {}", self.stdout, self.stderr);
        assert_eq!(self.stderr.matches('\n').count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with(&format!("error[{code}]: ")), "{}", self.stderr);
        assert_eq!(self.stdout, "");
    }

    /// Expects status 2, and the reason on stderr.
    #[track_caller]
    pub fn usage(&self, reason: &str) {
        assert_eq!(self.status, 2, "{} {}", self.stdout, self.stderr);
        assert!(self.stderr.contains(reason), "{}", self.stderr);
        assert_eq!(self.stdout, "");
    }
}

/// A model of these tests.
pub fn model(name: &str) -> String {
    path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name))
}

/// A path as an argument.
pub fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// An image of one color below `directory`, in the format given by its extension.
pub fn picture(directory: &Path, name: &str, color: [u8; 3]) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(12, 10, image::Rgb(color)).save(&path).unwrap();
    path
}

/// A little-endian f32 `.npy` file, written without the command's own code.
pub fn npy(directory: &Path, name: &str, shape: &str, values: &[f32]) -> PathBuf {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The header and the f32 elements of an `.npy` file of version 1.
pub fn read_npy(path: &Path) -> (String, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let elements = bytes[start..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (String::from_utf8(bytes[10..start].to_vec()).unwrap(), elements)
}

//! Arbitrary bytes as a model: an ONNX file or a package.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| skipstone_tests::attack::model(bytes));

//! ONNX files with one node, whose operator, operands and attributes come from the bytes.
#![no_main]

use skipstone_tests::attack;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| attack::model(&attack::one_node(bytes)));

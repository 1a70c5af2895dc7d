//! Camera frames with arbitrary bytes and geometry.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| skipstone_tests::attack::frame(bytes));

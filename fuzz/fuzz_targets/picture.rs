//! Pictures: changed ones of every format, and arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| skipstone_tests::pictures::picture(bytes));

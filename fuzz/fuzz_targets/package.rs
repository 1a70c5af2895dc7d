//! Packages with changed content and correct hashes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| skipstone_tests::attack::package(bytes));

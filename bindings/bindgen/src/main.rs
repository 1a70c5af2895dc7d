//! Generates the Swift bindings of the facade from a built library:
//!
//!     skipstone-bindgen generate --language swift --no-format --out-dir DIR LIBRARY

fn main() {
    uniffi::uniffi_bindgen_main();
}

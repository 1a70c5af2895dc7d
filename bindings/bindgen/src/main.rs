//! Generates the Swift bindings of the facade, and the C header, from a built library:
//!
//!     skipstone-bindgen LIBRARY FOLDER

use std::env;

use uniffi_bindgen::bindings::{SwiftBindingsOptions, generate_swift_bindings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [library, folder] = arguments.as_slice() else {
        return Err("usage: skipstone-bindgen LIBRARY FOLDER".into());
    };
    generate_swift_bindings(SwiftBindingsOptions {
        generate_swift_sources: true,
        generate_headers: true,
        source: library.into(),
        out_dir: folder.into(),
        ..SwiftBindingsOptions::default()
    })?;
    Ok(())
}

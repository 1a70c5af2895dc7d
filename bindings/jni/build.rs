//! How the library is linked: for pages of 16 KB, which Android 15 and later ask for, and under its own name.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if matches!(os.as_str(), "android" | "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,max-page-size=16384");
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libskipstone.so");
    }
}

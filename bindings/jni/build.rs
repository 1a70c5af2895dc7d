//! How the library is linked: for pages of 16 KB, which Android 15 and later ask for, and under its own name. For
//! Android also small: relocations are packed, and functions that are alike are there once.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let arguments: &[&str] = match os.as_str() {
        "android" => &["-z,max-page-size=16384", "-soname,libskipstone.so", "--pack-dyn-relocs=android", "--icf=all"],
        "linux" => &["-z,max-page-size=16384", "-soname,libskipstone.so"],
        _ => &[],
    };
    for argument in arguments {
        println!("cargo::rustc-cdylib-link-arg=-Wl,{argument}");
    }
}

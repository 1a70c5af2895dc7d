//! Link options: 16 KB pages, which Android 15 and later require, and the library's own soname. On Android also packed
//! relocations and merging of identical functions, to keep the library small.

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

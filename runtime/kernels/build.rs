//! Selects families of kernels for convolutions: the names in `SKIPSTONE_OPERATORS` that are those of families, as
//! `skipstone operators` prints them for some packages. If it names none, all are built.

/// Supports every convolution without groups, and other kernels build on it.
const ALWAYS: &str = "gemm";

fn main() {
    println!("cargo::rerun-if-env-changed=SKIPSTONE_OPERATORS");
    println!("cargo::rerun-if-changed=src/conv/mod.rs");
    let table = std::fs::read_to_string("src/conv/mod.rs").expect("the tables of families");
    let known: Vec<&str> = table.lines().filter_map(|line| line.trim().strip_prefix("#[cfg(family = \"")).collect();
    let known: Vec<&str> = known.into_iter().filter_map(|rest| rest.split('"').next()).collect();
    println!("cargo::rustc-check-cfg=cfg(family, values(\"{}\"))", known.join("\", \""));
    println!("cargo::rustc-check-cfg=cfg(family_subset)");
    let wanted = std::env::var("SKIPSTONE_OPERATORS").unwrap_or_default();
    // The names of operators begin with a capital.
    let is_family = |name: &&str| name.starts_with(|c: char| c.is_ascii_lowercase());
    let mut wanted: Vec<&str> = wanted.split([' ', ',', '\n']).filter(is_family).collect();
    if wanted.is_empty() {
        wanted.clone_from(&known);
    } else {
        println!("cargo::rustc-cfg=family_subset");
        wanted.push(ALWAYS);
    }
    for name in wanted {
        assert!(known.contains(&name), "SKIPSTONE_OPERATORS: there is no family {name}; there are {known:?}");
        println!("cargo::rustc-cfg=family=\"{name}\"");
    }
}

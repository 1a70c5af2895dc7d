//! Selects operators: `SKIPSTONE_OPERATORS` lists those to build, as `skipstone operators` prints them for some
//! packages. Unset or empty, all are built. The names of families of kernels in the list, which begin with a small letter,
//! are for the kernels' own `build.rs`.

fn main() {
    println!("cargo::rerun-if-env-changed=SKIPSTONE_OPERATORS");
    println!("cargo::rerun-if-changed=src/ops/mod.rs");
    println!("cargo::rustc-check-cfg=cfg(operator_subset)");
    let table = std::fs::read_to_string("src/ops/mod.rs").expect("the table of operators");
    let known = variants(&table);
    for name in &known {
        println!("cargo::rustc-check-cfg=cfg({name})");
    }
    let wanted = std::env::var("SKIPSTONE_OPERATORS").unwrap_or_default();
    let wanted: Vec<&str> =
        wanted.split([' ', ',', '\n']).filter(|name| name.starts_with(char::is_uppercase)).collect();
    if wanted.is_empty() {
        return;
    }
    println!("cargo::rustc-cfg=operator_subset");
    for name in wanted {
        assert!(known.contains(&name), "SKIPSTONE_OPERATORS: there is no operator {name}; there are {known:?}");
        println!("cargo::rustc-cfg={name}");
    }
}

/// The names in the table: lines such as `    2 => Conv(conv::Conv),`; and the fallback operator, which packages cannot
/// store.
fn variants(source: &str) -> Vec<&str> {
    let table = source.split("\noperators! {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
    let entries = table.lines().map(str::trim).filter(|line| line.ends_with("),"));
    let names = entries.filter_map(|line| line.split("=> ").nth(1)?.split('(').next());
    names.chain(["Foreign"]).collect()
}

//! The rooms of the library, which are the folders and files at the top of `src`: a room imports earlier ones, and no
//! two import each other, directly or indirectly. Imports in tests do not count.
//!
//! `ARCHITECTURE.md` has the drawing; if it is out of date, the test prints the correct one. The same walk over the
//! files finds messages that a device would print without their values.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms that each room imports.
type Rooms = BTreeMap<String, BTreeSet<String>>;

/// The source of a file, without comments and test modules.
fn source(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut kept = String::new();
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let tests = line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.ends_with('{'));
        if tests {
            let indent = line.len() - line.trim_start().len();
            let end = |line: &&str| line.trim() == "}" && line.len() == indent + 1;
            lines.by_ref().find(end);
        } else {
            kept += line;
            kept += "\n";
        }
    }
    kept
}

/// The files of the module in `path`, without its tests.
fn files(path: &Path, into: &mut Vec<PathBuf>) {
    let text = source(path);
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let folder = path.parent().unwrap().to_owned();
    let folder = if ["mod", "lib"].contains(&stem) { folder } else { folder.join(stem) };
    let mut only_tests = false;
    for line in text.lines().map(str::trim) {
        let module = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
        if let (Some((before, name)), false) = (module, only_tests)
            && (before.is_empty() || before.starts_with("pub"))
        {
            let beside = folder.join(format!("{name}.rs"));
            files(&if beside.exists() { beside } else { folder.join(name).join("mod.rs") }, into);
        }
        only_tests = line == "#[cfg(test)]" || (only_tests && line.starts_with("#["));
    }
    into.push(path.to_owned());
}

/// The names after `crate::` in a text, including those of a list in braces.
fn imported(text: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        match rest.strip_prefix('{').and_then(|list| list.split_once("};")) {
            Some((list, _)) => names.extend(list.split(", ").map(|name| word(name.trim()))),
            None => drop(names.insert(word(rest))),
        }
    }
    names
}

/// The room of every name at the root of the crate, according to `lib.rs`.
fn roots(src: &Path) -> BTreeMap<String, String> {
    let mut roots = BTreeMap::new();
    let text = source(&src.join("lib.rs"));
    for line in text.split(';').map(str::trim) {
        let Some((_, path)) = line.rsplit_once("use ") else { continue };
        let Some((room, names)) = path.split_once("::") else { continue };
        let names = names.trim_matches(['{', '}']);
        roots.extend(names.split(',').map(|name| (name.trim().to_owned(), room.to_owned())));
    }
    let named = |name: &str| roots.get(name).cloned().unwrap_or_else(|| name.to_owned());
    roots.keys().map(|name| (name.clone(), named(&named(name)))).collect()
}

fn rooms() -> Rooms {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let roots = roots(&src);
    let mut all = Vec::new();
    files(&src.join("lib.rs"), &mut all);
    let mut rooms = Rooms::new();
    for file in all.iter().filter(|file| !file.ends_with("lib.rs")) {
        let first = file.strip_prefix(&src).unwrap().components().next().unwrap();
        let room = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
        let names = imported(&source(file)).into_iter();
        let names = names.map(|name| roots.get(&name).cloned().unwrap_or(name)).filter(|name| *name != room);
        rooms.entry(room.clone()).or_default().extend(names);
    }
    let known: BTreeSet<String> = rooms.keys().cloned().collect();
    rooms.values_mut().for_each(|imports| imports.retain(|name| known.contains(name)));
    rooms
}

/// A line for each room, after the rooms that it imports.
fn drawing(mut rooms: Rooms) -> Result<String, Rooms> {
    let (mut drawn, mut lines) = (BTreeSet::new(), Vec::new());
    while !rooms.is_empty() {
        let ready = rooms.iter().find(|(_, imports)| imports.is_subset(&drawn)).map(|(room, _)| room.clone());
        let Some(room) = ready else { return Err(rooms) };
        let imports = rooms.remove(&room).into_iter().flatten().collect::<Vec<_>>().join(", ");
        lines.push(format!("    {room:<10}{imports}").trim_end().to_owned());
        drawn.insert(room);
    }
    Ok(lines.join("\n"))
}

#[test]
fn rooms_import_only_rooms_before_them() {
    let drawn = drawing(rooms()).unwrap_or_else(|circle| panic!("these rooms import each other: {circle:#?}"));
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md")).unwrap();
    assert!(page.contains(&drawn), "the rooms in ARCHITECTURE.md are not these:\n\n{drawn}\n");
}

/// Device builds print nothing for `{:?}` (`-Zfmt-debug=none`), so messages must not use it.
#[test]
fn messages_do_not_use_debug_formatting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for library in ["runtime", "runtime/kernels", "runtime/onnx", "bindings/uniffi", "bindings/jni"] {
        files(&root.join(library).join("src/lib.rs"), &mut all);
    }
    // The fallback is not in device builds, and the text of a panic is for developers.
    for file in all.iter().filter(|file| !file.components().any(|part| part.as_os_str() == "fallback")) {
        let text = source(file);
        let shown = text.lines().find(|line| {
            line.contains(":?}") && !["assert", "panic!", "unreachable!"].iter().any(|macros| line.contains(macros))
        });
        assert_eq!(shown, None, "{}: use `list`, or Display", file.display());
    }
}

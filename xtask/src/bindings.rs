//! The generated parts of the two libraries: Kotlin and Swift that call the facade, generated from a build of it.
//!
//! Neither is committed. They cannot be generated from a stripped build.

use std::path::Path;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::Workspace;

/// Generates Kotlin into `folder` and makes it internal: apps see only the library written on top of it.
pub fn kotlin(workspace: &Workspace, folder: &Path, library: Option<&Path>) -> Result<()> {
    let shell = &workspace.shell;
    let library = match library {
        Some(library) => std::path::absolute(library)?,
        None => {
            workspace.cargo("build --quiet -p skipstone-jni")?;
            let name = format!("{}skipstone{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
            workspace.target.join("debug").join(name)
        }
    };
    let folder = std::path::absolute(folder)?;
    let options = ["--language", "kotlin", "--no-format"];
    cmd!(shell, "cargo run --quiet -p skipstone-bindgen -- generate {options...} --out-dir {folder} {library}")
        .quiet()
        .run()?;
    let file = folder.join("dev/skipstone/internal/ffi/skipstone.kt");
    let written = shell.read_file(&file)?;
    Ok(shell.write_file(file, written.split_inclusive('\n').map(internal).collect::<String>())?)
}

/// The line with `internal` before a public declaration: a type or function at the top level, or a function after the
/// end of its comment or its annotation.
fn internal(line: &str) -> String {
    const MODIFIERS: [&str; 7] = ["open", "data", "sealed", "enum", "abstract", "inline", "fun"];
    let top = line.strip_prefix("public ").unwrap_or(line);
    let words: Vec<&str> = top.split(' ').collect();
    let modifiers = words.iter().take_while(|word| MODIFIERS.contains(word)).count();
    let is_function = modifiers > 0 && words[modifiers - 1] == "fun";
    if is_function || matches!(words.get(modifiers), Some(&("class" | "interface" | "object" | "typealias"))) {
        return format!("internal {top}");
    }
    match line.split_once(" fun ") {
        Some((before, rest)) if before.starts_with(' ') && ends_a_preamble(before.trim_start()) => {
            format!("{before} internal fun {rest}")
        }
        _ => line.to_owned(),
    }
}

fn ends_a_preamble(text: &str) -> bool {
    text == "*/" || (text.starts_with("@Throws(") && text.ends_with(')'))
}

/// Generates Swift and the C header into `ios/Sources`.
pub fn swift(workspace: &Workspace, library: &Path) -> Result<()> {
    let (shell, sources) = (&workspace.shell, workspace.root.join("ios/Sources"));
    let (made, library) = (shell.create_temp_dir()?, std::path::absolute(library)?);
    let folder = made.path();
    let options = ["--language", "swift", "--no-format", "--config", "ios/uniffi.toml"];
    cmd!(shell, "cargo run --quiet -p skipstone-bindgen -- generate {options...} --out-dir {folder} {library}")
        .quiet()
        .run()?;
    for (name, at) in [("skipstone.swift", "SkipstoneBindings"), ("skipstoneFFI.h", "skipstoneFFI")] {
        let (new, path) = (shell.read_file(folder.join(name))?, sources.join(at).join(name));
        // An unchanged file keeps its date, so that nothing is recompiled.
        if shell.read_file(&path).ok().as_ref() != Some(&new) {
            shell.create_dir(sources.join(at))?;
            shell.write_file(&path, new).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::internal;

    #[test]
    fn public_declarations_become_internal() {
        for (line, wanted) in [
            ("public interface Session {\n", "internal interface Session {\n"),
            ("open class Model: Disposable {\n", "internal open class Model: Disposable {\n"),
            ("data class Tensor (\n", "internal data class Tensor (\n"),
            ("public fun interface Listener {\n", "internal fun interface Listener {\n"),
            ("inline fun <T> read(of: T) {\n", "internal inline fun <T> read(of: T) {\n"),
            ("fun version(): String {\n", "internal fun version(): String {\n"),
            ("sealed class Failure: Exception() {\n", "internal sealed class Failure: Exception() {\n"),
            (
                "    @Throws(Failure::class) fun open(path: String): Model {\n",
                "    @Throws(Failure::class) internal fun open(path: String): Model {\n",
            ),
            ("     */ fun version(): String {\n", "     */ internal fun version(): String {\n"),
            ("    fun close() {}\n", "    fun close() {}\n"),
            ("private class Cleaner\n", "private class Cleaner\n"),
            ("    override fun close() {}\n", "    override fun close() {}\n"),
            ("import java.util.*\n", "import java.util.*\n"),
        ] {
            assert_eq!(internal(line), wanted);
        }
    }
}

//! The generated part of the Swift library: Swift that calls the facade, generated from a build of it.
//!
//! It is not committed, and cannot be generated from a stripped build.

use std::path::Path;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::Workspace;

/// Generates Swift and the C header into `ios/Sources`.
pub fn swift(workspace: &Workspace, library: &Path) -> Result<()> {
    let (shell, sources) = (&workspace.shell, workspace.root.join("ios/Sources"));
    let (made, library) = (shell.create_temp_dir()?, std::path::absolute(library)?);
    let folder = made.path();
    // The generator writes many languages: only the code that Swift needs is generated, which halves the build. The
    // option is unstable, so this build has a folder of its own.
    cmd!(
        shell,
        "cargo run --quiet -p skipstone-bindgen -Zprofile-hint-mostly-unused
         --config profile.dev.package.uniffi_bindgen.hint-mostly-unused=true -- {library} {folder}"
    )
    .env("RUSTC_BOOTSTRAP", "1")
    .env("CARGO_TARGET_DIR", workspace.build("bindgen"))
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

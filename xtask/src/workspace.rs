//! Paths of the workspace, and a shell whose current folder is its root.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// The checkout that the command was built from.
pub struct Workspace {
    /// Its root, also the shell's current folder.
    pub root: PathBuf,
    /// Where cargo builds: CARGO_TARGET_DIR, or `target`.
    pub target: PathBuf,
    /// Runs commands.
    pub shell: Shell,
}

impl Workspace {
    /// The workspace of this crate.
    pub fn new() -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is a folder of the workspace")?.to_path_buf();
        let shell = Shell::new()?;
        shell.change_dir(&root);
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |folder| root.join(folder));
        shell.set_var("CARGO_TARGET_DIR", &target);
        shell.set_var("PYTHONDONTWRITEBYTECODE", "1");
        Ok(Self { root, target, shell })
    }

    /// The folder for generated files that are not cargo's builds.
    pub fn build(&self, name: &str) -> PathBuf {
        self.root.join("build").join(name)
    }

    /// The release build of the `skipstone` command.
    pub fn skipstone(&self) -> PathBuf {
        self.target.join("release/skipstone")
    }

    /// Runs cargo with `arguments`, separated by spaces.
    pub fn cargo(&self, arguments: &str) -> Result<()> {
        let arguments = arguments.split_whitespace();
        Ok(cmd!(self.shell, "cargo {arguments...}").quiet().run()?)
    }
}

/// Prints what is being done, on stderr.
pub fn say(text: impl std::fmt::Display) {
    eprintln!("xtask: {text}");
}

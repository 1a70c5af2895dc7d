//! The test programs written in Python, in a virtual environment under `build/venv`.
//!
//! They are modules below `tests` (`parity.operators`, `hostile.bombs`) and share the package `harness`; some use
//! modules of the zoo (`models/zoo`). Both folders are on PYTHONPATH.

use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use crate::workspace::Workspace;

/// The interpreter of the tests' environment.
fn interpreter(workspace: &Workspace) -> PathBuf {
    workspace.build("venv/bin/python")
}

/// Creates the environment, or updates it to `tests/requirements.txt`.
pub fn environment(workspace: &Workspace) -> Result<()> {
    let (shell, python) = (&workspace.shell, interpreter(workspace));
    // Its last part: creating the environment may have been interrupted.
    if !workspace.build("venv/bin/pip").exists() {
        cmd!(shell, "python3 -m venv build/venv").quiet().run()?;
    }
    cmd!(shell, "{python} -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt")
        .quiet()
        .run()?;
    Ok(())
}

/// Runs a module with `arguments`.
pub fn run<A: AsRef<str>>(workspace: &Workspace, module: &str, arguments: &[A]) -> Result<()> {
    let python = interpreter(workspace);
    if !python.exists() {
        environment(workspace)?;
    }
    let arguments = arguments.iter().map(AsRef::as_ref);
    let path = std::env::join_paths([workspace.root.join("tests"), workspace.root.join("models")])?;
    // The largest networks need a gigabyte, which the system's folder for temporary files may not have.
    let scratch = workspace.build("tmp");
    workspace.shell.create_dir(&scratch)?;
    Ok(cmd!(workspace.shell, "{python} -m {module} {arguments...}")
        .env("PYTHONPATH", path)
        .env("TMPDIR", scratch)
        .quiet()
        .run()?)
}

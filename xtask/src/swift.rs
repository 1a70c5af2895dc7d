//! Swift on a machine that has none: a Debian trixie root under `build/swift`, and commands that run in it.
//!
//! The packages come from the Debian archive that this machine's apt uses, and only the tool that makes the root is
//! installed on the machine itself (half a minute, 2.5 GB). Needs root. A command runs in its own mount and process
//! namespaces: when it ends, its mounts and children end too, and the root can be removed without checking for mounts.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use crate::debian;
use crate::workspace::{Workspace, say};

const RELEASE: &str = "trixie";
const PACKAGES: &str = "swiftlang,libc6-dev";

/// Runs in the namespaces: mounts the working tree into the root, and runs the command there. HOME is inside the root,
/// since the compilers' caches are useless outside it.
const INSIDE: &str = r#"
root=$1 tree=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$tree" "$root$tree"
exec chroot "$root" env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
    sh -c 'cd "$0" && exec "$@"' "$tree" "$@"
"#;

/// The root, created if it is missing. Only one process does this at a time; others wait, and find it done. An
/// interrupted set-up starts again.
pub fn setup(workspace: &Workspace) -> Result<PathBuf> {
    let (shell, root) = (&workspace.shell, workspace.build("swift/root"));
    shell.create_dir(workspace.build("swift"))?;
    let lock = File::create(root.with_extension("lock"))?;
    lock.lock()?;
    if !root.exists() {
        debian::install(shell, &[("mmdebstrap", &["mmdebstrap"])])?;
        let archive = debian::mirror(shell)?;
        say(format!("making a Debian {RELEASE} root with {PACKAGES}"));
        let partial = root.with_extension("partial");
        cmd!(shell, "rm -rf {partial}").quiet().run()?;
        let options = [
            "--mode=root",
            "--variant=essential",
            "--aptopt=APT::Install-Recommends \"false\"",
            "--dpkgopt=force-unsafe-io",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
        ];
        cmd!(shell, "mmdebstrap {options...} --include {PACKAGES} {RELEASE} {partial} {archive}").quiet().run()?;
        std::fs::rename(partial, &root)?;
    }
    Ok(root)
}

/// Runs a command in the root, in this working tree.
pub fn run(workspace: &Workspace, command: &[String]) -> Result<()> {
    let (shell, root, tree) = (&workspace.shell, setup(workspace)?, &workspace.root);
    shell.create_dir(root.join(tree.strip_prefix("/")?))?;
    let spaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"];
    Ok(cmd!(shell, "unshare {spaces...} sh -euc {INSIDE} sh {root} {tree} {command...}").quiet().run()?)
}

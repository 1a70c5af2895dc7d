//! Swift on a machine that has none: a Debian trixie root under `build/swift`, and commands run in it.
//!
//! The packages come from the Debian archive that this machine's own apt uses, and nothing is installed on the machine
//! itself but the tool that makes the root (half a minute, 2.5 GB). Needs root. A command runs in a mount and process
//! namespace of its own: whatever ends it, its mounts and its children go with it, and a root can be removed without
//! looking for what is bound there.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use crate::debian;
use crate::workspace::{Workspace, say};

const RELEASE: &str = "trixie";
const PACKAGES: &str = "swiftlang,libc6-dev";

/// Runs in the namespaces: the root, the working tree in it, and the command there. HOME is kept in the root, since the
/// compilers' caches are of no use outside it.
const INSIDE: &str = r#"
root=$1 tree=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$tree" "$root$tree"
exec chroot "$root" env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
    sh -c 'cd "$0" && exec "$@"' "$tree" "$@"
"#;

/// The root, which is made where it is missing. One set-up at a time; those that wait find it done, and one that was cut
/// short starts anew.
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

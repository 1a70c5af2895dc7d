//! Packages of the Debian that the tests run on: installed if a command is missing, or only downloaded and unpacked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::workspace::say;

/// Installs the packages of missing commands; `wanted` pairs each command with its packages.
///
/// Needs root if something is missing.
pub fn install(shell: &Shell, wanted: &[(&str, &[&str])]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(command, _)| !is_there(command)).flat_map(|(_, packages)| *packages).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(format!("installing {}", missing.join(" ")));
    cmd!(shell, "apt-get update -qq").quiet().run()?;
    cmd!(shell, "apt-get install -y -qq --no-install-recommends {missing...}")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .quiet()
        .ignore_stdout()
        .run()?;
    Ok(())
}

/// Whether `command` is on the path.
fn is_there(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

/// apt with a separate state, which handles packages of amd64 and arm64 without changing the system's configuration.
pub struct Archive<'a> {
    shell: &'a Shell,
    configuration: PathBuf,
}

impl<'a> Archive<'a> {
    /// An archive with its state in `folder`.
    pub fn new(shell: &'a Shell, folder: &Path) -> Result<Self> {
        for inner in ["lists/partial", "cache/archives/partial"] {
            shell.create_dir(folder.join(inner))?;
        }
        shell.write_file(folder.join("status"), "")?;
        let configuration = folder.join("apt.conf");
        let state = folder.display();
        shell.write_file(
            &configuration,
            format!(
                "Dir::State \"{state}\";\nDir::State::status \"{state}/status\";\nDir::Cache \"{state}/cache\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; \"arm64\"; }};\nAPT::Sandbox::User \"root\";\n\
                 #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
            ),
        )?;
        Ok(Self { shell, configuration })
    }

    /// Updates the package lists.
    pub fn update(&self) -> Result<()> {
        Ok(cmd!(self.shell, "apt-get update -qq").env("APT_CONFIG", &self.configuration).quiet().run()?)
    }

    /// The dependency of `of` whose name is `prefix` followed by a version.
    pub fn dependency(&self, of: &str, prefix: &str) -> Result<String> {
        let depends =
            cmd!(self.shell, "apt-cache depends {of}").env("APT_CONFIG", &self.configuration).quiet().read()?;
        let versioned = |name: &&str| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
        };
        let found = depends
            .lines()
            .filter_map(|line| line.trim().split_once("Depends: "))
            .map(|(_, name)| name)
            .find(versioned);
        Ok(found.with_context(|| format!("{of} depends on no {prefix}VERSION"))?.to_owned())
    }

    /// Downloads `packages` and passes each file to `unpack`.
    pub fn fetch(&self, packages: &[String], mut unpack: impl FnMut(&Path) -> Result<()>) -> Result<()> {
        let folder = tempfile::tempdir()?;
        say(format!("fetching {}", packages.join(" ")));
        let _inside = self.shell.push_dir(folder.path());
        cmd!(self.shell, "apt-get download -qq {packages...}").env("APT_CONFIG", &self.configuration).quiet().run()?;
        let files = self.shell.read_dir(folder.path())?;
        ensure!(files.len() == packages.len(), "apt fetched {} packages of {}", files.len(), packages.len());
        files.iter().try_for_each(|file| unpack(file))
    }
}

/// The archive that this machine's apt uses.
pub fn mirror(shell: &Shell) -> Result<String> {
    let release = shell.read_file("/etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    let name = format!("Release: {name}");
    let read = || cmd!(shell, "apt-get indextargets --format $(REPO_URI) 'Created-By: Packages' {name}").quiet().read();
    let mut archives = read()?;
    // apt knows it only after an update.
    if archives.is_empty() {
        cmd!(shell, "apt-get update -qq").quiet().run()?;
        archives = read()?;
    }
    Ok(archives.lines().next().context("no Debian archive in the sources of apt")?.to_owned())
}

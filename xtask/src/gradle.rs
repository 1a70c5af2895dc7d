//! Gradle in the version that the Android build is made for.
//!
//! The usual wrapper is a program in the repository that nobody reads (`gradle-wrapper.jar`). This does the same with the
//! wrapper's own file of properties, which Android Studio also follows: it downloads the distribution, compares its
//! checksum, and runs it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::workspace::{Workspace, say};

const PROPERTIES: &str = "android/gradle/wrapper/gradle-wrapper.properties";

/// Runs Gradle in the folder `android`.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let distribution = Distribution::read(&workspace.shell.read_file(PROPERTIES)?)?;
    let gradle = distribution.installed(workspace)?.join("bin/gradle");
    Ok(cmd!(workspace.shell, "{gradle} --project-dir android {arguments...}").quiet().run()?)
}

/// A release of Gradle.
struct Distribution {
    url: String,
    checksum: String,
}

impl Distribution {
    fn read(properties: &str) -> Result<Self> {
        let value = |key: &str| {
            let found = properties.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            // Colons are escaped in files of properties.
            found.map(|value| value.trim().replace("\\:", ":")).with_context(|| format!("{PROPERTIES} has no {key}"))
        };
        Ok(Self { url: value("distributionUrl")?, checksum: value("distributionSha256Sum")? })
    }

    /// Its name and version, such as `gradle-9.3.1`, which is also the folder in the archive.
    fn name(&self) -> Result<&str> {
        let file = self.url.rsplit('/').next().and_then(|file| file.strip_suffix("-bin.zip"));
        file.with_context(|| format!("{} is not a distribution of Gradle", self.url))
    }

    /// The folder that it is installed in.
    fn installed(&self, workspace: &Workspace) -> Result<PathBuf> {
        let (shell, folder) = (&workspace.shell, workspace.build("gradle"));
        let made = folder.join(self.name()?);
        if !made.exists() {
            shell.create_dir(&folder)?;
            let (url, archive, partial) = (&self.url, folder.join("archive.zip"), folder.join("partial"));
            say(format!("downloading {url}"));
            cmd!(shell, "curl --fail --location --silent --show-error --retry 3 --output {archive} {url}")
                .quiet()
                .run()?;
            let sum = cmd!(shell, "shasum -a 256 {archive}").quiet().read()?;
            ensure!(sum.starts_with(&self.checksum), "{url} has the checksum {sum}, not {}", self.checksum);
            shell.remove_path(&partial)?;
            cmd!(shell, "unzip -q {archive} -d {partial}").quiet().run()?;
            // Complete, or not there.
            std::fs::rename(partial.join(self.name()?), &made)?;
            shell.remove_path(&archive)?;
            shell.remove_path(&partial)?;
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_wrappers_properties_name_a_release_and_its_checksum() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        let distribution = Distribution::read(&read(PROPERTIES)).unwrap();
        let name = distribution.name().unwrap();
        assert!(distribution.url.starts_with("https://services.gradle.org/distributions/"), "{}", distribution.url);
        assert!(name.starts_with("gradle-"), "{name}");
        assert!(distribution.checksum.len() == 64 && distribution.checksum.bytes().all(|it| it.is_ascii_hexdigit()));
        let guide = read("android/README.md");
        assert!(guide.contains(&format!("Gradle {}", &name["gradle-".len()..])), "the guide names another version");
        assert!(Distribution::read("distributionUrl=https\\://example.org/gradle-1-bin.zip").is_err());
    }
}

//! ARM on an x86-64 machine: the NEON kernels are executed, not just compiled.
//!
//! A machine's rustup may have no standard library for aarch64, so compiler and library both come from Debian (package
//! rustc-web), unpacked under `build/cross` and never installed: the system keeps its own Rust. gcc's cross linker and
//! qemu are installed as packages. `cortex-a53` is plain NEON; `max` has every extension that qemu supports. For 32-bit ARM
//! there is a linker, but no standard library, and for phones neither: it is built from its source, for phones only where
//! no linker is needed (a check, a static library).

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::cmd;

use crate::debian::{self, Archive};
use crate::workspace::{Workspace, say};

/// The target of the emulated programs.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";
/// The target of emulated programs for 32-bit ARM, which differs from armeabi-v7a in the system only.
pub const ARM: &str = "armv7-unknown-linux-gnueabihf";
/// The CPUs that tests run on.
pub const CPUS: [&str; 2] = ["cortex-a53", "max"];

#[derive(clap::Subcommand)]
pub enum Command {
    /// `cargo test` for aarch64, once for each CPU
    Test {
        /// A CPU that qemu emulates, instead of cortex-a53 and max
        #[arg(long)]
        cpu: Option<String>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// `cargo build` for aarch64
    Build {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// cargo for a phone's target, such as aarch64-apple-ios, or for 32-bit ARM, with the standard library built from
    /// source, into build/phones
    Phone {
        target: String,
        /// `check`, `build`, `rustc`
        subcommand: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Print the command that runs an aarch64 program on a CPU
    Emulator { cpu: String },
    /// Print the command that runs a program for ARM and writes its instruction count, at each mark that it makes and at
    /// the end
    Counter {
        /// The file for the counts
        file: PathBuf,
        /// Of a program for 32-bit ARM
        #[arg(long)]
        arm: bool,
    },
}

pub fn run(workspace: &Workspace, command: &Command) -> Result<()> {
    match command {
        Command::Test { cpu, arguments } => {
            test(workspace, &cpu.as_deref().map_or(CPUS.to_vec(), |cpu| vec![cpu]), arguments)
        }
        Command::Build { arguments } => build(workspace, arguments),
        Command::Phone { target, subcommand, arguments } => phone(workspace, target, subcommand, arguments),
        Command::Emulator { cpu } => {
            println!("{}", emulator(cpu));
            Ok(())
        }
        Command::Counter { file, arm } => {
            println!("{}", counter(workspace, file, *arm)?);
            Ok(())
        }
    }
}

/// `cargo test` on each of `cpus`.
pub fn test<A: AsRef<str>>(workspace: &Workspace, cpus: &[&str], arguments: &[A]) -> Result<()> {
    let tools = Tools::ready(workspace, false)?;
    for cpu in cpus {
        say(format!("cargo test on {cpu}"));
        let _emulated = workspace.shell.push_env("SKIPSTONE_EMULATED", "1");
        let _runner = workspace.shell.push_env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", emulator(cpu));
        tools.cargo(&["test", "--target", TARGET], arguments, &tools.folder.join("target"))?;
    }
    Ok(())
}

/// `cargo build` for aarch64.
pub fn build<A: AsRef<str>>(workspace: &Workspace, arguments: &[A]) -> Result<()> {
    let tools = Tools::ready(workspace, false)?;
    tools.cargo(&["build", "--target", TARGET], arguments, &tools.folder.join("target"))
}

/// `cargo test` for 32-bit ARM, on the least CPU that has vector kernels.
pub fn test_arm<A: AsRef<str>>(workspace: &Workspace, arguments: &[A]) -> Result<()> {
    let emulator = "qemu-arm-static -cpu cortex-a7 -L /usr/arm-linux-gnueabihf";
    let _emulated = workspace.shell.push_env("SKIPSTONE_EMULATED", "1");
    let _runner = workspace.shell.push_env("CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER", emulator);
    phone(workspace, ARM, "test", arguments)
}

/// Runs cargo for a phone's target; builds into `build/phones`. With the emulated programs' folder cargo would build macros
/// again, since RUSTC_BOOTSTRAP is set for one and not for the other, also while tests that need them run.
pub fn phone<A: AsRef<str>>(workspace: &Workspace, target: &str, subcommand: &str, arguments: &[A]) -> Result<()> {
    let (shell, tools) = (&workspace.shell, Tools::ready(workspace, true)?);
    if target == ARM {
        debian::install(shell, &[("arm-linux-gnueabihf-gcc", &["gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"])])?;
    }
    // Apple's targets need an SDK path even if nothing is linked.
    let sdk = tools.folder.join("iPhoneOS.sdk");
    shell.create_dir(&sdk)?;
    let _variables = [
        shell.push_env("SDKROOT", sdk),
        shell.push_env("IPHONEOS_DEPLOYMENT_TARGET", "16.0"),
        shell.push_env("RUSTC_BOOTSTRAP", "1"),
    ];
    // The C part of blake3 would need a compiler and headers for the phone, and its assembly for x86-64 is large: use the
    // Rust version.
    let _pure = (target != TARGET).then(|| shell.push_env("CARGO_FEATURE_PURE", "1"));
    let command = [subcommand, "-Zbuild-std=std,panic_unwind", "--target", target];
    tools.cargo(&command, arguments, &workspace.build("phones"))
}

/// Checks a package for phones' targets: everything but generating code and linking. Macros are shared with the libraries
/// that are built for phones. cargo builds the standard library even then, but need not generate its code.
pub fn check(workspace: &Workspace, package: &str, targets: &[&str]) -> Result<()> {
    let _metadata = workspace.shell.push_env("RUSTFLAGS", "-Zno-codegen");
    for target in targets {
        say(format!("checking for {target}"));
        phone(
            workspace,
            target,
            "check",
            &[
                "--quiet",
                // Without what prints backtraces.
                "-Zbuild-std-features=panic-unwind",
                "--profile",
                "device",
                "--config",
                "profile.device.opt-level=0",
                "-p",
                package,
            ],
        )?;
    }
    Ok(())
}

/// The command that runs an aarch64 program.
pub fn emulator(cpu: &str) -> String {
    format!("qemu-aarch64-static -cpu {cpu} -L /usr/aarch64-linux-gnu")
}

/// The same with counting. Only the dynamically linked emulator supports plugins.
fn counter(workspace: &Workspace, file: &Path, arm: bool) -> Result<String> {
    let shell = &workspace.shell;
    let tools = Tools::ready(workspace, false)?;
    debian::install(shell, &[("qemu-aarch64", &["qemu-user"])])?;
    let (plugin, source) = (tools.folder.join("count.so"), Path::new("tests/instructions/count.c"));
    let written = |path: &Path| path.metadata().and_then(|it| it.modified());
    if written(&plugin).is_err() || written(&workspace.root.join(source))? > written(&plugin)? {
        let made = tools.folder.join(format!("count.{}.so", std::process::id()));
        cmd!(shell, "gcc -O1 -Wall -Wextra -Werror -shared -fPIC -o {made} {source}").quiet().run()?;
        std::fs::rename(made, &plugin)?;
    }
    let (plugin, file) = (plugin.display(), file.display());
    let (emulator, cpu, libraries) =
        if arm { ("arm", "cortex-a7", "arm-linux-gnueabihf") } else { ("aarch64", "max", "aarch64-linux-gnu") };
    Ok(format!("qemu-{emulator} -cpu {cpu} -plugin {plugin} -d plugin -D {file} -L /usr/{libraries}"))
}

/// Compiler, standard library and linker, ready to use.
struct Tools<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
}

impl<'a> Tools<'a> {
    /// Fetches what is missing; `source` also fetches the standard library's source. Only one process does this at a
    /// time; others wait, and find it done.
    fn ready(workspace: &'a Workspace, source: bool) -> Result<Self> {
        let folder = workspace.build("cross");
        workspace.shell.create_dir(&folder)?;
        let tools = Self { workspace, folder };
        let lock = File::create(tools.folder.join("lock"))?;
        lock.lock()?;
        debian::install(
            &workspace.shell,
            &[
                ("aarch64-linux-gnu-gcc", &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]),
                ("qemu-aarch64-static", &["qemu-user-static"]),
            ],
        )?;
        tools.unpack_rust()?;
        if source {
            tools.unpack_source()?;
        }
        tools.write_wrappers()?;
        Ok(tools)
    }

    fn archive(&self) -> Result<Archive<'_>> {
        Archive::new(&self.workspace.shell, &self.folder.join("apt"))
    }

    fn unpack_rust(&self) -> Result<()> {
        let (shell, rust) = (&self.workspace.shell, self.folder.join("rust"));
        let complete = rust.join(".complete");
        if complete.exists() {
            return Ok(());
        }
        let archive = self.archive()?;
        archive.update()?;
        let library = archive.dependency("libstd-rust-web-dev", "libstd-rust-web-")?;
        let llvm = archive.dependency(&library, "libllvm")?;
        shell.remove_path(&rust)?;
        shell.create_dir(&rust)?;
        let development = "libstd-rust-web-dev".to_owned();
        let packages = ["rustc-web".to_owned(), library, format!("{development}:arm64"), development, llvm];
        archive.fetch(&packages, |file| Ok(cmd!(shell, "dpkg -x {file} {rust}").quiet().run()?))?;
        Ok(shell.write_file(complete, "")?)
    }

    /// The source of the standard library, without the compiler's source in the same package.
    fn unpack_source(&self) -> Result<()> {
        let (shell, rust) = (&self.workspace.shell, self.folder.join("rust"));
        let complete = rust.join(".library");
        if complete.exists() {
            return Ok(());
        }
        self.archive()?.fetch(&["rust-web-src".to_owned()], |file| {
            let all = tempfile::NamedTempFile::new()?;
            let tar = all.path();
            let status =
                std::process::Command::new("dpkg").arg("--fsys-tarfile").arg(file).stdout(all.reopen()?).status()?;
            anyhow::ensure!(status.success(), "dpkg cannot read {}", file.display());
            let wanted = ["./usr/lib/rustlib/src", "./usr/src/rustc-*/library", "./usr/src/rustc-*/Cargo.*"];
            Ok(cmd!(shell, "tar -x -f {tar} -C {rust} --wildcards {wanted...}").quiet().run()?)
        })?;
        Ok(shell.write_file(complete, "")?)
    }

    /// Wrapper scripts for rustc, because LD_LIBRARY_PATH must not reach cargo's other children.
    fn write_wrappers(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let (bin, rust) = (self.folder.join("bin"), self.folder.join("rust/usr"));
        self.workspace.shell.create_dir(&bin)?;
        for tool in ["rustc", "rustdoc"] {
            let (path, rust) = (bin.join(tool), rust.display());
            if !path.exists() {
                let script =
                    format!("#!/bin/sh\nLD_LIBRARY_PATH={rust}/lib/x86_64-linux-gnu exec {rust}/bin/{tool} \"$@\"\n");
                std::fs::write(&path, script)?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
                    .context("a wrapper of rustc")?;
            }
        }
        Ok(())
    }

    /// Runs cargo with this compiler and linker, building into `target_folder`.
    fn cargo<A: AsRef<str>>(&self, command: &[&str], arguments: &[A], target_folder: &Path) -> Result<()> {
        let bin = self.folder.join("bin");
        let arguments = arguments.iter().map(AsRef::as_ref);
        cmd!(self.workspace.shell, "cargo {command...} {arguments...}")
            .env("RUSTC", bin.join("rustc"))
            .env("RUSTDOC", bin.join("rustdoc"))
            // Set by the cargo that runs this program, for its own compiler.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("CARGO_TARGET_DIR", target_folder)
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            .env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc")
            .env("AR_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-ar")
            .env("CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER", "arm-linux-gnueabihf-gcc")
            .quiet()
            .run()?;
        Ok(())
    }
}

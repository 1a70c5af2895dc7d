//! The Android library: tested on this machine, and built for phones.
//!
//! Its Kotlin is compiled for the desktop JVM and tested against the native library that ships, built for this machine;
//! Robolectric stands in for Android. Code for phones is checked, which needs no linker; linking it needs an NDK.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::workspace::{Workspace, say};
use crate::{cross, debian, python};

/// Android 15 and later refuse libraries whose segments are not aligned to pages of this size.
const PAGE: u64 = 16 << 10;

#[derive(clap::Subcommand)]
pub enum Command {
    /// The tests on the JVM, and checks for phones
    Test,
    /// The races between coroutines, with many runs each
    Races {
        #[arg(default_value_t = 100_000)]
        runs: u32,
    },
    /// Write what is public in Kotlin to android/skipstone/api, which the tests compare it with
    Api,
    /// The overhead of a call beyond the native library's own time, and the time from the first use of the library in a
    /// new process to its first answer
    Overhead,
    /// Build libskipstone.so for the phones' instruction sets into FOLDER/ABI; Gradle calls this
    ///
    /// Needs the NDK (ANDROID_NDK_HOME), `cargo install cargo-ndk`, `rustup component add rust-src` and `rustup target
    /// add aarch64-linux-android armv7-linux-androideabi x86_64-linux-android`. SKIPSTONE_OPERATORS leaves out what no
    /// package needs (`skipstone operators`). SKIPSTONE_FEATURES replaces the default features, "signatures": with ""
    /// the library opens only unsigned packages, with "signatures onnx" also ONNX files.
    Native { folder: PathBuf },
}

pub fn run(workspace: &Workspace, command: &Command) -> Result<()> {
    match command {
        Command::Native { folder } => native(workspace, folder),
        Command::Test => {
            prepare(workspace)?;
            check_alignment(workspace, "readelf", &built(workspace, "native").join("libskipstone.so"))?;
            test(workspace)?;
            publish(workspace)?;
            // Linking needs the NDK. An emulator of a phone runs what the tests here run, x86-64 code.
            cross::check(workspace, "skipstone-jni", &["aarch64-linux-android", "armv7-linux-androideabi"])
        }
        Command::Races { runs } => {
            prepare(workspace)?;
            let _runs = workspace.shell.push_env("SKIPSTONE_RACES", runs.to_string());
            maven(workspace, &["test", "-Dtest=RaceTest"])
        }
        Command::Api => {
            install(workspace)?;
            let _write = workspace.shell.push_env("SKIPSTONE_WRITE_API", "1");
            maven(workspace, &["test", "-Dtest=ApiTest"])
        }
        Command::Overhead => {
            prepare(workspace)?;
            overhead(workspace)
        }
    }
}

fn built(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.build("android").join(name)
}

fn maven(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    Ok(cmd!(workspace.shell, "mvn --batch-mode --quiet --file android/pom.xml {arguments...}").quiet().run()?)
}

/// Publishes the compiled library and its sources to a Maven repository in a folder, and runs the tests of a project that
/// takes the library from there.
fn publish(workspace: &Workspace) -> Result<()> {
    say("publishing to a local repository, and building a project that takes the library from there");
    let shell = &workspace.shell;
    let repository = built(workspace, "repository");
    shell.remove_path(&repository)?;
    let target = format!("-DaltDeploymentRepository=skipstone::file://{}", repository.display());
    maven(workspace, &["jar:jar", "source:jar-no-fork", "deploy:deploy", &target])?;
    let models = built(workspace, "models");
    let properties = [
        ("repository", repository),
        ("native", built(workspace, "native")),
        ("model", models.join("cifar10.skip")),
        ("labels", models.join("samples.txt")),
        ("images", workspace.root.join("models/samples")),
    ];
    let properties = properties.map(|(name, path)| format!("-D{name}={}", path.display()));
    cmd!(shell, "mvn --batch-mode --quiet --update-snapshots --file android/consumer/pom.xml test {properties...}")
        .quiet()
        .run()?;
    report(workspace, "android/consumer", "Tests run")
}

/// Installs Maven and a JDK.
fn install(workspace: &Workspace) -> Result<()> {
    debian::install(&workspace.shell, &[("mvn", &["maven"]), ("javac", &["default-jdk-headless"])])
}

/// Prepares Maven, the libraries, a package with settings and state, and another with the command
/// line's answers for the sample images, which the library's answers are compared with.
fn prepare(workspace: &Workspace) -> Result<()> {
    let shell = &workspace.shell;
    install(workspace)?;
    say("building the library");
    python::run(workspace, "devices.size", &["--only", "full", "onnx"])?;
    let library = |name: &str| workspace.build("size").join(name);
    for (name, folder) in [("full.so", "native"), ("onnx.so", "native-onnx")] {
        let folder = built(workspace, folder);
        shell.create_dir(&folder)?;
        shell.copy_file(library(name), folder.join("libskipstone.so"))?;
    }

    let (skipstone, models) = (workspace.skipstone(), built(workspace, "models"));
    let (model, package) = ("models/pretrained/simplenet-310k-cifar10.onnx", models.join("cifar10.skip"));
    shell.create_dir(&models)?;
    let target = std::env::consts::ARCH;
    cmd!(shell, "{skipstone} compile {model} -o {package} --target {target}").quiet().run()?;
    python::run(workspace, "devices.variables", &[models.join("variables.skip").display().to_string()])?;
    let seen = cmd!(shell, "{skipstone} classify {model} models/samples --top 1 --json").quiet().read()?;
    shell.write_file(models.join("samples.txt"), samples(&seen)?)?;
    Ok(())
}

/// Lines `FILE LABEL` from the JSON that `skipstone classify` prints.
fn samples(json: &str) -> Result<String> {
    let parsed: serde_json::Value = serde_json::from_str(json)?;
    let images = parsed["images"].as_array().context("the command reports no images")?;
    images
        .iter()
        .map(|image| {
            let file = image["file"].as_str().context("an image without a file")?;
            let label = image["top"][0]["label"].as_str().context("an image without a label")?;
            Ok(format!("{} {label}\n", file.rsplit('/').next().unwrap_or(file)))
        })
        .collect()
}

fn test(workspace: &Workspace) -> Result<()> {
    say("compiling the library and running its tests");
    maven(workspace, &["test"])?;
    report(workspace, "android", "Tests run")?;
    say("running the tests of ONNX files with the library that opens them");
    let library = format!("-Dnative={}", built(workspace, "native-onnx").display());
    maven(workspace, &["surefire:test", "-Dtest=OnnxTest", "-Dfeatures=onnx", &library])?;
    report(workspace, "android", "rounds:")
}

/// Prints the lines of a project's Maven reports that contain `text`.
fn report(workspace: &Workspace, project: &str, text: &str) -> Result<()> {
    for file in workspace.shell.read_dir(format!("{project}/target/surefire-reports"))? {
        if file.extension().is_some_and(|it| it == "txt") {
            let lines = workspace.shell.read_file(&file)?;
            lines.lines().filter(|line| line.contains(text)).for_each(|line| println!("{line}"));
        }
    }
    Ok(())
}

fn overhead(workspace: &Workspace) -> Result<()> {
    let shell = &workspace.shell;
    let path = built(workspace, "classpath");
    let output = format!("-Dmdep.outputFile={}", path.display());
    maven(workspace, &["test-compile", "dependency:build-classpath", &output])?;
    let classes = format!("android/target/classes:android/target/test-classes:{}", shell.read_file(path)?.trim());
    let native = built(workspace, "native");
    let libraries = format!("-Djava.library.path={}", native.display());
    let package = built(workspace, "models/cifar10.skip");
    let java = |program: &str| cmd!(shell, "java {libraries} -cp {classes} dev.skipstone.{program} {package}").quiet();
    java("OverheadKt").run()?;
    let start = |_| -> Result<f64> { Ok(java("ColdStartKt").read()?.trim().parse()?) };
    let mut starts = (0..COLD_STARTS).map(start).collect::<Result<Vec<_>>>()?;
    starts.sort_by(f64::total_cmp);
    println!("cold start: {} ms, median of {COLD_STARTS} processes", starts[COLD_STARTS / 2]);
    Ok(())
}

/// Processes that measure the first answer.
const COLD_STARTS: usize = 11;

/// The libraries for phones.
///
/// The standard library is built too, which needs unstable options: optimized for size, and without the code that
/// symbolizes backtraces, a tenth of the library. Panics are caught and reported as bugs; they have no locations, and
/// `{:?}` prints nothing, so no message may use it (`list` shows lists). Signatures are checked by the smallest code:
/// it checks about a hundred bytes once per package, in a tenth of a millisecond. With frame pointers the unwind tables
/// of x86-64 are a fifth smaller.
fn native(workspace: &Workspace, folder: &Path) -> Result<()> {
    let shell = &workspace.shell;
    let folder = std::path::absolute(folder)?;
    shell.create_dir(&folder)?;
    let ndk = PathBuf::from(std::env::var_os("ANDROID_NDK_HOME").context("ANDROID_NDK_HOME is not set")?);
    let features = match std::env::var("SKIPSTONE_FEATURES") {
        Ok(features) => vec!["--no-default-features".to_owned(), "--features".to_owned(), features],
        Err(_) => Vec::new(),
    };
    let targets = ["arm64-v8a", "armeabi-v7a", "x86_64"].into_iter().flat_map(|abi| ["--target", abi]);
    let library = ["-Zbuild-std=std,panic_unwind", STANDARD_LIBRARY];
    cmd!(
        shell,
        "cargo ndk --platform 24 {targets...} --output-dir {folder}
         build --profile device -p skipstone-jni {features...} {library...}"
    )
    .env("RUSTC_BOOTSTRAP", "1")
    .env("RUSTFLAGS", FLAGS)
    .quiet()
    .run()?;
    // Macs have no readelf; the NDK has one.
    let host = shell.read_dir(ndk.join("toolchains/llvm/prebuilt"))?;
    let readelf = host.first().context("the NDK has no tools for this machine")?.join("bin/llvm-readelf");
    for abi in shell.read_dir(&folder)? {
        let library = abi.join("libskipstone.so");
        if library.exists() {
            check_alignment(workspace, &readelf, &library)?;
        }
    }
    Ok(())
}

/// The compiler flags of the libraries for phones; `tests/devices/size.py` uses the same. LLVM inlines little by itself:
/// what is hot is marked, and the library is 2 % smaller and as fast.
const FLAGS: &str = "-Zlocation-detail=none -Zfmt-debug=none -Cforce-frame-pointers=yes -Cllvm-args=-inline-threshold=20 \
                     --cfg curve25519_dalek_backend=\"serial\" --cfg sha2_backend=\"soft\" --cfg sha2_backend_soft=\"compact\"";
const STANDARD_LIBRARY: &str = "-Zbuild-std-features=panic-unwind,optimize_for_size,backtrace-trace-only";

/// Fails if a loadable segment of the library does not begin at a multiple of [`PAGE`].
fn check_alignment(workspace: &Workspace, readelf: impl AsRef<Path>, library: &Path) -> Result<()> {
    let readelf = readelf.as_ref();
    let segments = cmd!(workspace.shell, "{readelf} -lW {library}").quiet().read()?;
    for segment in segments.lines().filter(|line| line.trim_start().starts_with("LOAD")) {
        let at = segment.rsplit("0x").next().and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
        let at = at.context("readelf reports no alignment")?;
        ensure!(at >= PAGE, "{} has a segment aligned to {at} only", library.display());
    }
    say(format!("{}: segments aligned to 16 KB", library.display()));
    Ok(())
}

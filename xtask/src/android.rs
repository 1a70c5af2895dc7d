//! The Android library: tested on this machine, and built for phones.
//!
//! Its Kotlin is compiled for the desktop JVM and tested against the native library that ships, built for this machine;
//! Robolectric stands in for Android. Code for phones is checked, which needs no linker; linking it needs an NDK.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::workspace::{Workspace, say};
use crate::{cross, debian, gradle, python};

/// Android 15 and later refuse libraries whose segments are not aligned to pages of this size.
const PAGE: u64 = 16 << 10;
/// The oldest Android that the library runs on.
const PLATFORM: &str = "24";

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
    Native {
        folder: PathBuf,
        /// Also write the libraries with symbols and line tables, to SYMBOLS/ABI, for `ndk-stack` and crash reports
        #[arg(long)]
        symbols: Option<PathBuf>,
    },
    /// Run Gradle in the folder `android`, in the version that gradle/wrapper names, which is downloaded if necessary
    Gradle {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write an AAR without Gradle: the Kotlin library as the tests compile it, and the native libraries FOLDER/ABI
    Aar { folder: PathBuf, file: PathBuf },
}

pub fn run(workspace: &Workspace, command: &Command) -> Result<()> {
    match command {
        Command::Native { folder, symbols } => native(workspace, folder, symbols.as_deref()),
        Command::Gradle { arguments } => gradle::run(workspace, arguments),
        Command::Aar { folder, file } => {
            install(workspace)?;
            maven(workspace, &["compile", "jar:jar"])?;
            aar(workspace, folder, file)
        }
        Command::Test => {
            prepare(workspace)?;
            check_alignment(workspace, "readelf", &built(workspace, "native").join("libskipstone.so"))?;
            test(workspace)?;
            publish(workspace)?;
            // Linking needs the NDK. Of the phones' targets, the one of 32 bits: code for 64-bit ARM is compiled and run by
            // the emulated tests, and that of an emulator of a phone by the tests here.
            cross::check(workspace, "skipstone-jni", &["armv7-linux-androideabi"])
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
    let (repository, host) = (built(workspace, "repository"), built(workspace, "native"));
    shell.remove_path(&repository)?;
    let url = format!("file://{}", repository.display());
    let target = format!("-DaltDeploymentRepository=skipstone::{url}");
    maven(workspace, &["jar:jar", "source:jar-no-fork", "deploy:deploy", &target])?;
    // With this machine's library in place of the phones': what counts is the layout.
    let (libraries, file) = (built(workspace, "jni"), built(workspace, "skipstone.aar"));
    shell.create_dir(libraries.join("x86_64"))?;
    shell.copy_file(host.join("libskipstone.so"), libraries.join("x86_64"))?;
    aar(workspace, &libraries, &file)?;
    let (url, file) = (format!("-Durl={url}"), format!("-Dfile={}", file.display()));
    let sources = format!("-Dsources={}", jar(workspace, "-sources")?.display());
    let pom = format!("-DpomFile={}", workspace.root.join("android/skipstone/pom.xml").display());
    maven(workspace, &["deploy:deploy-file", "-DrepositoryId=skipstone", &pom, &file, &sources, &url])?;
    check_published(workspace, &repository)?;
    let models = built(workspace, "models");
    let properties = [
        ("repository", repository),
        ("native", host),
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

/// Puts an AAR together from the jar that Maven made, and the native libraries in `native`, a folder for each ABI.
fn aar(workspace: &Workspace, native: &Path, file: &Path) -> Result<()> {
    let (shell, work) = (&workspace.shell, workspace.shell.create_temp_dir()?);
    let (folder, file) = (work.path(), std::path::absolute(file)?);
    let metadata = folder.join("META-INF/com/android/build/gradle");
    for inner in [&folder.join("jni"), &metadata] {
        shell.create_dir(inner)?;
    }
    let manifest = format!(
        "<manifest xmlns:android=\"http://schemas.android.com/apk/res/android\" package=\"dev.skipstone\">\n    \
         <uses-sdk android:minSdkVersion=\"{PLATFORM}\" />\n</manifest>\n"
    );
    shell.write_file(folder.join("AndroidManifest.xml"), manifest)?;
    shell.write_file(
        metadata.join("aar-metadata.properties"),
        "aarFormatVersion=1.0\naarMetadataVersion=1.0\nminCompileSdk=1\nminCompileSdkExtension=0\n\
         minAndroidGradlePluginVersion=1.0.0\n",
    )?;
    shell.write_file(folder.join("R.txt"), "")?;
    shell.copy_file("android/skipstone/consumer-rules.pro", folder.join("proguard.txt"))?;
    shell.copy_file(jar(workspace, "")?, folder.join("classes.jar"))?;
    for abi in shell.read_dir(native)? {
        let to = folder.join("jni").join(abi.file_name().context("a folder without a name")?);
        shell.create_dir(&to)?;
        shell.copy_file(abi.join("libskipstone.so"), &to)?;
    }
    Ok(cmd!(shell, "jar --create --no-manifest --file {file} -C {folder} .").quiet().run()?)
}

/// The jar of the Kotlin library, or with "-sources" that of its sources.
fn jar(workspace: &Workspace, of: &str) -> Result<PathBuf> {
    let made = workspace.shell.read_dir("android/target")?;
    let end = format!("-SNAPSHOT{of}.jar");
    made.into_iter().find(|path| path.display().to_string().ends_with(&end)).context("Maven made no jar")
}

/// Fails if the AAR in the repository does not hold what Android's build takes from it, or other classes than the jar that
/// the tests run.
fn check_published(workspace: &Workspace, repository: &Path) -> Result<()> {
    let shell = &workspace.shell;
    let versions = shell.read_dir(repository.join("dev/skipstone/skipstone"))?;
    let version = versions.iter().find(|path| path.is_dir()).context("no version of the AAR was published")?;
    let files = shell.read_dir(version)?;
    let file = |extension: &str| {
        let found = files.iter().find(|path| path.extension().is_some_and(|it| it == extension));
        found.with_context(|| format!("no {extension} was published"))
    };
    let (archive, pom) = (file("aar")?, shell.read_file(file("pom")?)?);
    for dependency in ["kotlin-stdlib", "kotlinx-coroutines-core", "kotlinx-coroutines-android"] {
        ensure!(pom.contains(&format!("<artifactId>{dependency}</artifactId>")), "the AAR's POM lacks {dependency}");
    }
    let (work, classes) = (shell.create_temp_dir()?, std::fs::read(jar(workspace, "")?)?);
    let _inside = shell.push_dir(work.path());
    cmd!(shell, "jar --extract --file {archive}").quiet().run()?;
    for path in ["AndroidManifest.xml", "R.txt", "proguard.txt", "jni/x86_64/libskipstone.so"] {
        ensure!(shell.path_exists(path), "the AAR lacks {path}");
    }
    ensure!(
        std::fs::read(work.path().join("classes.jar"))? == classes,
        "the AAR holds other classes than the tests run"
    );
    Ok(())
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
fn native(workspace: &Workspace, folder: &Path, symbols: Option<&Path>) -> Result<()> {
    let shell = &workspace.shell;
    let folder = std::path::absolute(folder)?;
    shell.create_dir(&folder)?;
    let ndk = PathBuf::from(std::env::var_os("ANDROID_NDK_HOME").context("ANDROID_NDK_HOME is not set")?);
    let features = match std::env::var("SKIPSTONE_FEATURES") {
        Ok(features) => vec!["--no-default-features".to_owned(), "--features".to_owned(), features],
        Err(_) => Vec::new(),
    };
    let features = &features;
    for abis in [&["arm64-v8a", "armeabi-v7a"][..], &["x86_64"]] {
        let targets = abis.iter().flat_map(|abi| ["--target", abi]);
        let library = ["-Zbuild-std=std,panic_unwind", STANDARD_LIBRARY];
        // blake3's assembly for x86-64 is 60 KB.
        let pure = (abis == ["x86_64"]).then_some(("CARGO_FEATURE_PURE", "1"));
        cmd!(
            shell,
            "cargo ndk --platform {PLATFORM} {targets...} --output-dir {folder}
             build --profile device -p skipstone-jni {features...} {library...}"
        )
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", FLAGS)
        .envs(pure)
        .envs(symbols.iter().flat_map(|_| WITH_SYMBOLS))
        .quiet()
        .run()?;
    }
    // Macs have neither readelf nor a strip for these files; the NDK has them.
    let host = shell.read_dir(ndk.join("toolchains/llvm/prebuilt"))?;
    let tools = host.first().context("the NDK has no tools for this machine")?.join("bin");
    for abi in shell.read_dir(&folder)? {
        let library = abi.join("libskipstone.so");
        if !library.exists() {
            continue;
        }
        if let Some(symbols) = symbols {
            let whole = std::path::absolute(symbols)?.join(abi.file_name().context("a folder without a name")?);
            shell.create_dir(&whole)?;
            shell.copy_file(&library, &whole)?;
            let strip = tools.join("llvm-strip");
            cmd!(shell, "{strip} --strip-all {library}").quiet().run()?;
        }
        check_alignment(workspace, tools.join("llvm-readelf"), &library)?;
    }
    Ok(())
}

/// Settings of the profile for a library that can be symbolized.
const WITH_SYMBOLS: [(&str, &str); 2] =
    [("CARGO_PROFILE_DEVICE_STRIP", "none"), ("CARGO_PROFILE_DEVICE_DEBUG", "line-tables-only")];

/// The compiler flags of the libraries for phones; `tests/devices/size.py` uses the same. LLVM inlines little by itself:
/// what is hot is marked, and the library is 2 % smaller and as fast. Of blake3's code for x86-64 that for SSE4.1 suffices,
/// which every Android device of that architecture has.
const FLAGS: &str = "-Zlocation-detail=none -Zfmt-debug=none -Cforce-frame-pointers=yes -Cllvm-args=-inline-threshold=20 \
                     --cfg curve25519_dalek_backend=\"serial\" --cfg sha2_backend=\"soft\" --cfg sha2_backend_soft=\"compact\" \
                     --cfg feature=\"no_avx512\" --cfg feature=\"no_avx2\" --cfg feature=\"no_sse2\"";
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The text between `before` and `after`, where it first occurs in a file of `android`.
    fn between(file: &str, before: &str, after: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("android").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{file} has no {before}"));
        rest.split_once(after).unwrap().0.to_owned()
    }

    /// Regression: the tests compiled with another Kotlin than the library that ships.
    #[test]
    fn every_build_has_the_same_versions() {
        let kotlin = between("gradle/libs.versions.toml", "kotlin = \"", "\"");
        let coroutines = between("gradle/libs.versions.toml", "coroutines = \"", "\"");
        for file in ["pom.xml", "consumer/pom.xml"] {
            assert_eq!(between(file, "<kotlin.version>", "<"), kotlin, "{file}");
        }
        assert_eq!(
            between("pom.xml", "<artifactId>kotlinx-coroutines-android</artifactId>\n      <version>", "<"),
            coroutines
        );
        for (artifact, version) in [
            ("kotlin-stdlib", &kotlin),
            ("kotlinx-coroutines-core", &coroutines),
            ("kotlinx-coroutines-android", &coroutines),
        ] {
            let before = format!("<artifactId>{artifact}</artifactId>\n      <version>");
            assert_eq!(&between("skipstone/pom.xml", &before, "<"), version, "{artifact}");
        }
    }
}

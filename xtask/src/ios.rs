//! The Swift package: its tests on Linux, and the library that it links on Apple's systems.
//!
//! Code for Apple's frameworks is compiled and run on Linux with stand-ins for them (`ios/Tests/Apple`); the apps are
//! parsed there, and compiled only on a Mac.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::workspace::{Workspace, say};
use crate::{bindings, cross, python, swift};

const NAME: &str = "skipstoneFFI";
const IOS: &str = "16.0";
const MACOS: &str = "13.0";
const TVOS: &str = "16.0";
const VISIONOS: &str = "1.0";

#[derive(clap::Subcommand)]
pub enum Command {
    /// The package's tests on Linux, and a check for an iPhone
    Test,
    /// The package: bindings, build without warnings, tests
    Package,
    /// Write what is public in Swift to ios/api, which the tests compare it with
    Api,
    /// The races between tasks, with many runs each
    Races {
        #[arg(default_value_t = 100_000)]
        runs: u32,
    },
    /// The static library for aarch64-apple-ios
    Library,
    /// Build ios/skipstoneFFI.xcframework for iOS, macOS, Mac Catalyst, tvOS and visionOS; needs a Mac with Xcode
    ///
    /// SKIPSTONE_FEATURES replaces the default features, "signatures": with "" the library opens only unsigned
    /// packages, with "signatures onnx" also ONNX files. SKIPSTONE_OPERATORS leaves out what no package needs
    /// (`skipstone operators`).
    Xcframework,
    /// Write what is published: FOLDER/Skipstone, whose Package.swift refers to the XCFramework by URL and checksum, and
    /// FOLDER/skipstoneFFI.xcframework.zip for that URL; needs the XCFramework
    Publish {
        /// Where the zip file will be
        url: String,
        folder: PathBuf,
    },
}

pub fn run(workspace: &Workspace, command: &Command) -> Result<()> {
    match command {
        Command::Test => {
            package(workspace)?;
            // The emulated tests generate code for the same kernels.
            cross::check(workspace, "skipstone-ffi", &["aarch64-apple-ios"])
        }
        Command::Package => package(workspace),
        Command::Api => {
            prepare(workspace)?;
            frameworks(workspace)?;
            workspace.shell.create_dir("ios/api")?;
            Ok(workspace.shell.write_file(API, api(workspace)?)?)
        }
        Command::Races { runs } => {
            prepare(workspace)?;
            test(workspace, *runs, &["--filter", "Race"])
        }
        Command::Library => library(workspace),
        Command::Xcframework => xcframework(workspace),
        Command::Publish { url, folder } => publish(workspace, url, folder),
    }
}

/// Prepares the library for this machine, the bindings, the expected answers of the tests, and Swift.
fn prepare(workspace: &Workspace) -> Result<()> {
    let (shell, folder) = (&workspace.shell, workspace.build("swift/lib"));
    say("the library for this machine");
    // With the kernels of the command; the rest need not be fast here.
    workspace.cargo(
        "build --quiet --release --config profile.release.package.skipstone.opt-level=0 -p skipstone-ffi \
         --features onnx,skipstone/avx512,skipstone/foreign",
    )?;
    // The Debian root sees only this tree, wherever cargo's target folder is.
    shell.create_dir(&folder)?;
    shell.copy_file(workspace.target.join("release/libskipstone_ffi.a"), &folder)?;
    say("the bindings");
    bindings::swift(workspace, &folder.join("libskipstone_ffi.a"))?;
    python::run::<&str>(workspace, "devices.swift_fixtures", &[])?;
    swift::setup(workspace)?;
    Ok(())
}

fn package(workspace: &Workspace) -> Result<()> {
    prepare(workspace)?;
    say("format, and the apps' syntax");
    let inside =
        |command: &str| swift::run(workspace, &command.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    inside(
        "swift format lint --strict --recursive --configuration ios/.swift-format \
         ios/Package.swift ios/Sources/Skipstone ios/Sources/SkipstoneBenchmark ios/Tests ios/Apps ios/Consumer",
    )?;
    let mut apps = vec!["swiftc".to_owned(), "-parse".to_owned(), "-swift-version".to_owned(), "6".to_owned()];
    for folder in workspace.shell.read_dir("ios/Apps")?.iter().filter(|path| path.is_dir()) {
        let files = workspace.shell.read_dir(folder)?;
        apps.extend(
            files
                .iter()
                .filter(|file| file.extension().is_some_and(|it| it == "swift"))
                .map(|file| file.display().to_string()),
        );
    }
    swift::run(workspace, &apps)?;
    say("the package");
    test(workspace, 4_000, &[])?;
    consume(workspace)?;
    frameworks(workspace)?;
    ensure!(
        workspace.shell.read_file(API)? == api(workspace)?,
        "what is public in Swift has changed: if it is meant to, `cargo xtask ios api` writes {API}"
    );
    Ok(())
}

const API: &str = "ios/api/Skipstone.swiftinterface";

/// What apps compile against, also the code for Apple's frameworks, whose stand-ins were built by [`frameworks`].
fn api(workspace: &Workspace) -> Result<String> {
    say("what is public in Swift");
    let folder = workspace.build("swift/api");
    workspace.shell.create_dir(&folder)?;
    let interface = folder.join("Skipstone.swiftinterface");
    let mut command = vec!["swiftc".to_owned(), "-emit-module".to_owned(), "-enable-library-evolution".to_owned()];
    command.extend(["-swift-version", "6", "-module-name", "Skipstone", "-suppress-warnings"].map(str::to_owned));
    let modules = workspace.build("swift/apple-build/debug/Modules");
    for (option, path) in [
        ("-o", &folder.join("Skipstone.swiftmodule")),
        ("-emit-module-interface-path", &interface),
        ("-I", &modules),
        ("-I", &workspace.build("swift/apple/Sources/skipstoneFFI")),
    ] {
        command.extend([option.to_owned(), path.display().to_string()]);
    }
    for file in workspace.shell.read_dir("ios/Sources/Skipstone")? {
        if file.extension().is_some_and(|it| it == "swift") {
            command.push(file.display().to_string());
        }
    }
    swift::run(workspace, &command)?;
    // The comments at its top name the compiler.
    let text = workspace.shell.read_file(&interface)?;
    Ok(text.lines().filter(|line| !line.starts_with("//")).map(|line| format!("{line}\n")).collect())
}

/// Compiles the library with stand-ins for the frameworks of Apple that it uses, and compares the answers for their images
/// with those for plain bytes.
fn frameworks(workspace: &Workspace) -> Result<()> {
    say("the code for Apple's frameworks, with stand-ins for them");
    let (shell, folder) = (&workspace.shell, workspace.build("swift/apple"));
    assemble(workspace, &shell.read_file("ios/Tests/Apple/Package.swift")?, &folder)?;
    for stand_in in shell.read_dir("ios/Tests/Apple")?.iter().filter(|path| path.is_dir()) {
        cmd!(shell, "cp -R {stand_in} {folder}").quiet().run()?;
    }
    execute(workspace, "build/swift/apple", "build/swift/apple-build", "Checks", &[])
}

/// Builds and runs a program that knows only the published package, and this machine's library where a phone has the
/// XCFramework.
fn consume(workspace: &Workspace) -> Result<()> {
    say("a program that depends on the published package");
    let package = published(&workspace.shell.read_file("ios/Package.swift")?, "https://example.org/library.zip", "")?;
    assemble(workspace, &package, &workspace.build("swift/published/Skipstone"))?;
    execute(workspace, "ios/Consumer", "build/swift/consumer", "consumer", &["cat"])
}

/// Builds and runs a program of a package, with a model and a picture as its first arguments.
fn execute(workspace: &Workspace, package: &str, scratch: &str, program: &str, arguments: &[&str]) -> Result<()> {
    let libraries = format!("-L{}", workspace.build("swift/lib").display());
    let fixtures = workspace.build("swift/fixtures");
    let files = ["simplenet.skip", "cat_0.ppm"].map(|name| fixtures.join(name).display().to_string());
    let mut command = vec!["swift", "run", "--package-path", package, "--scratch-path", scratch];
    command.extend(["-Xswiftc", "-warnings-as-errors", "-Xlinker", &libraries, program]);
    command.extend(files.iter().map(String::as_str));
    command.extend(arguments);
    swift::run(workspace, &command.into_iter().map(str::to_owned).collect::<Vec<_>>())
}

/// `swift test` of the package, after preparing it.
fn test(workspace: &Workspace, races: u32, arguments: &[&str]) -> Result<()> {
    let races = format!("SKIPSTONE_RACES={races}");
    let libraries = format!("-L{}", workspace.build("swift/lib").display());
    let mut command =
        vec!["env", &races, "swift", "test", "--package-path", "ios", "--scratch-path", "build/swift/build"];
    command.extend(["--configuration", "release", "-Xswiftc", "-enable-testing", "-Xswiftc", "-warnings-as-errors"]);
    command.extend(["-Xlinker", &libraries]);
    command.extend(arguments);
    swift::run(workspace, &command.into_iter().map(str::to_owned).collect::<Vec<_>>())
}

fn library(workspace: &Workspace) -> Result<()> {
    say("the library for iOS");
    let device = "--quiet --profile device -p skipstone-ffi --lib --crate-type staticlib".split_whitespace();
    cross::phone(workspace, "aarch64-apple-ios", "rustc", &device.collect::<Vec<_>>())?;
    let library = workspace.build("phones").join("aarch64-apple-ios/device/libskipstone_ffi.a");
    say(format!("{}: {} bytes", library.display(), library.metadata()?.len()));
    Ok(())
}

/// A platform of the XCFramework, with the library for each of its architectures.
struct Slice {
    name: &'static str,
    /// The platform in the framework's Info.plist.
    platform: &'static str,
    minimum: &'static str,
    targets: &'static [&'static str],
}

const SLICES: [Slice; 8] = [
    Slice { name: "ios", platform: "iPhoneOS", minimum: IOS, targets: &["aarch64-apple-ios"] },
    Slice {
        name: "ios-simulator",
        platform: "iPhoneSimulator",
        minimum: IOS,
        targets: &["aarch64-apple-ios-sim", "x86_64-apple-ios"],
    },
    Slice {
        name: "macos",
        platform: "MacOSX",
        minimum: MACOS,
        targets: &["aarch64-apple-darwin", "x86_64-apple-darwin"],
    },
    Slice {
        name: "catalyst",
        platform: "MacOSX",
        minimum: MACOS,
        targets: &["aarch64-apple-ios-macabi", "x86_64-apple-ios-macabi"],
    },
    Slice { name: "tvos", platform: "AppleTVOS", minimum: TVOS, targets: &["aarch64-apple-tvos"] },
    Slice {
        name: "tvos-simulator",
        platform: "AppleTVSimulator",
        minimum: TVOS,
        // For Intel Macs' simulators there is no standard library.
        targets: &["aarch64-apple-tvos-sim"],
    },
    Slice { name: "visionos", platform: "XROS", minimum: VISIONOS, targets: &["aarch64-apple-visionos"] },
    Slice {
        name: "visionos-simulator",
        platform: "XRSimulator",
        minimum: VISIONOS,
        targets: &["aarch64-apple-visionos-sim"],
    },
];

fn xcframework(workspace: &Workspace) -> Result<()> {
    let shell = &workspace.shell;
    let minimum = [("IPHONEOS", IOS), ("MACOSX", MACOS), ("TVOS", TVOS), ("XROS", VISIONOS)];
    let _minimum = minimum.map(|(system, version)| shell.push_env(format!("{system}_DEPLOYMENT_TARGET"), version));
    // The bindings can be generated from any build of the library.
    workspace.cargo("build --release -p skipstone-ffi")?;
    bindings::swift(workspace, &workspace.target.join("release/libskipstone_ffi.a"))?;

    let work = shell.create_temp_dir()?;
    let frameworks = SLICES.iter().map(|slice| framework(workspace, slice, work.path())).collect::<Result<Vec<_>>>()?;
    let output = Path::new("ios").join(NAME).with_extension("xcframework");
    shell.remove_path(&output)?;
    let frameworks = frameworks.iter().flat_map(|path| [Path::new("-framework"), path]);
    Ok(cmd!(shell, "xcodebuild -create-xcframework -output {output} {frameworks...}").quiet().run()?)
}

/// The package as others depend on it: with Package.swift at its root, the generated Swift, and no tests.
fn publish(workspace: &Workspace, url: &str, folder: &Path) -> Result<()> {
    let shell = &workspace.shell;
    let (folder, library) = (std::path::absolute(folder)?, format!("{NAME}.xcframework"));
    let zip = folder.join(format!("{library}.zip"));
    shell.create_dir(&folder)?;
    shell.remove_path(&zip)?;
    {
        let _ios = shell.push_dir("ios");
        ensure!(shell.path_exists(&library), "there is no ios/{library}: `cargo xtask ios xcframework` makes it");
        // With the links of the bundles for the Mac.
        cmd!(shell, "zip --quiet --recurse-paths --symlinks -X {zip} {library}").quiet().run()?;
    }
    let sum = cmd!(shell, "shasum -a 256 {zip}").quiet().read()?;
    let sum = sum.split_whitespace().next().context("shasum prints no checksum")?;
    let package = published(&shell.read_file("ios/Package.swift")?, url, sum)?;
    assemble(workspace, &package, &folder.join("Skipstone"))?;
    say(format!("{}: checksum {sum}", zip.display()));
    Ok(())
}

/// Package.swift with the XCFramework at `url`, and without what only this repository has.
fn published(package: &str, url: &str, checksum: &str) -> Result<String> {
    let here = format!("path: \"{NAME}.xcframework\"");
    ensure!(package.contains(&here), "ios/Package.swift has no binary target");
    let there = format!("url: \"{url}\", checksum: \"{checksum}\"");
    let published = package.replace(&here, &there);
    Ok(published.lines().filter(|line| !line.contains(".testTarget(")).map(|line| format!("{line}\n")).collect())
}

/// Writes a package with the sources of this one.
fn assemble(workspace: &Workspace, package: &str, folder: &Path) -> Result<()> {
    let shell = &workspace.shell;
    shell.remove_path(folder)?;
    shell.create_dir(folder)?;
    shell.write_file(folder.join("Package.swift"), package)?;
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        shell.copy_file(license, folder)?;
    }
    Ok(cmd!(shell, "cp -R ios/Sources {folder}").quiet().run()?)
}

/// Makes the framework of a platform below `work`.
fn framework(workspace: &Workspace, slice: &Slice, work: &Path) -> Result<PathBuf> {
    let (shell, targets) = (&workspace.shell, slice.targets);
    let features = match std::env::var("SKIPSTONE_FEATURES") {
        Ok(features) => vec!["--no-default-features".to_owned(), "--features".to_owned(), format!("uniffi {features}")],
        Err(_) => Vec::new(),
    };
    cmd!(shell, "rustup target add {targets...}").quiet().run()?;
    for target in targets {
        let features = &features;
        cmd!(shell, "cargo build --profile device -p skipstone-ffi --target {target} {features...}").quiet().run()?;
    }
    // On a Mac a framework is a versioned bundle, with links to the current version at its top.
    let versioned = slice.platform == "MacOSX";
    let framework = work.join(slice.name).join(NAME).with_extension("framework");
    let contents = if versioned { framework.join("Versions/A") } else { framework.clone() };
    let resources = if versioned { contents.join("Resources") } else { contents.clone() };
    for folder in [contents.join("Headers"), contents.join("Modules"), resources.clone()] {
        shell.create_dir(folder)?;
    }
    let binary = contents.join(NAME);
    let libraries = targets.iter().map(|target| workspace.target.join(target).join("device/libskipstone_ffi.a"));
    cmd!(shell, "lipo -create {libraries...} -output {binary}").quiet().run()?;
    shell.copy_file(format!("ios/Sources/{NAME}/{NAME}.h"), contents.join("Headers"))?;
    shell.copy_file("ios/Sources/Skipstone/PrivacyInfo.xcprivacy", &resources)?;
    let map = format!("framework module {NAME} {{\n    header \"{NAME}.h\"\n    export *\n}}\n");
    shell.write_file(contents.join("Modules/module.modulemap"), map)?;
    let (list, version) = (resources.join("Info.plist"), version(workspace)?);
    shell.write_file(&list, properties(slice, &version))?;
    cmd!(shell, "plutil -lint -s {list}").quiet().run()?;
    if versioned {
        let link = |to: &str, at: PathBuf| std::os::unix::fs::symlink(to, at).context("a link of the framework");
        link("A", framework.join("Versions/Current"))?;
        for entry in [NAME, "Headers", "Modules", "Resources"] {
            link(&format!("Versions/Current/{entry}"), framework.join(entry))?;
        }
    }
    Ok(framework)
}

fn version(workspace: &Workspace) -> Result<String> {
    let id = cmd!(workspace.shell, "cargo pkgid -p skipstone-ffi").quiet().read()?;
    Ok(id.rsplit(['#', '@']).next().unwrap_or_default().to_owned())
}

/// The Info.plist of a framework: the App Store refuses one without a minimum system version.
fn properties(slice: &Slice, version: &str) -> String {
    let minimum = if slice.platform == "MacOSX" { "LSMinimumSystemVersion" } else { "MinimumOSVersion" };
    let entries = [
        ("CFBundleDevelopmentRegion", "en"),
        ("CFBundleExecutable", NAME),
        ("CFBundleIdentifier", "dev.skipstone.ffi"),
        ("CFBundleInfoDictionaryVersion", "6.0"),
        ("CFBundleName", NAME),
        ("CFBundlePackageType", "FMWK"),
        ("CFBundleShortVersionString", version),
        ("CFBundleVersion", version),
        (minimum, slice.minimum),
    ];
    let lines: String =
        entries.iter().map(|(key, value)| format!("\t<key>{key}</key><string>{value}</string>\n")).collect();
    let platform = slice.platform;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n{lines}\
         \t<key>CFBundleSupportedPlatforms</key><array><string>{platform}</string></array>\n</dict>\n</plist>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_package_refers_to_the_library_by_its_checksum() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let package = std::fs::read_to_string(root.join("ios/Package.swift")).unwrap();
        let published = published(&package, "https://example.org/library.zip", "0123").unwrap();
        let target =
            "binaryTarget(name: \"skipstoneFFI\", url: \"https://example.org/library.zip\", checksum: \"0123\")";
        assert!(published.contains(target), "{published}");
        assert!(!published.contains("path: \"skipstoneFFI.xcframework\""), "{published}");
        assert!(!published.contains("testTarget"), "{published}");
        assert!(super::published("", "", "").is_err());
    }

    /// Regression: the XCFramework had a target that `rustup target add` refuses, so it could not be made.
    #[test]
    fn rustup_has_a_standard_library_for_every_target() {
        for target in SLICES.iter().flat_map(|slice| slice.targets) {
            let specification = std::process::Command::new("rustc")
                .args(["-Zunstable-options", "--print=target-spec-json", "--target", target])
                .env("RUSTC_BOOTSTRAP", "1")
                .output()
                .unwrap();
            let specification: serde_json::Value = serde_json::from_slice(&specification.stdout).unwrap();
            let tier = specification["metadata"]["tier"].as_u64();
            assert!(tier.is_some_and(|tier| tier <= 2), "{target} is of tier {tier:?}");
        }
    }
}

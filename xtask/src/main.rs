//! The project's own commands, run as `cargo xtask COMMAND`: instead of shell scripts, on any system that has cargo.
//!
//! `cargo xtask test` is the test command. The others build the libraries for phones and generate the Swift that calls
//! them. Commands that need other tools (a cross compiler, an emulator, Maven, Swift) install them on Debian, as root,
//! by package name; on a Mac or with an NDK they use the existing tools.

mod android;
mod bindings;
mod cross;
mod debian;
mod gradle;
mod ios;
mod python;
mod swift;
mod test;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all tests, from formatting to aarch64 under an emulator, or only the named sections
    ///
    /// Without names it stops at the first section that fails; sections run in parallel if neither keeps two cores
    /// busy, and the output of each is printed in one piece.
    Test {
        /// Sections, such as `rust` or `operators`; `--list` prints all of them
        sections: Vec<String>,
        /// Print the sections
        #[arg(long)]
        list: bool,
    },
    /// Run one of the test programs written in Python: a module below `tests` or `models`, such as `parity.operators`
    Python {
        /// The module
        module: String,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// aarch64 on an x86-64 machine: cargo with a cross compiler, programs under qemu
    #[command(subcommand)]
    Cross(cross::Command),
    /// The Android library on this machine's JVM; needs the release build of the `skipstone` command
    #[command(subcommand)]
    Android(android::Command),
    /// The Swift package on Linux, and the library that it links on Apple's systems
    #[command(subcommand)]
    Ios(ios::Command),
    /// Generate the Swift bindings of the facade and the C header into ios/Sources
    Swift {
        /// A build of skipstone-ffi, such as target/release/libskipstone_ffi.a
        library: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let workspace = workspace::Workspace::new()?;
    match command {
        Command::Test { list: true, .. } => {
            test::SECTIONS.iter().for_each(|section| println!("{:<14} {}", section.name, section.about));
            Ok(())
        }
        Command::Test { sections, .. } => test::run(&workspace, &sections),
        Command::Python { module, arguments } => python::run(&workspace, &module, &arguments),
        Command::Cross(command) => cross::run(&workspace, &command),
        Command::Android(command) => android::run(&workspace, &command),
        Command::Ios(command) => ios::run(&workspace, &command),
        Command::Swift { library } => bindings::swift(&workspace, &library),
    }
}

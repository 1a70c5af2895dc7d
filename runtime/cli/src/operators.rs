//! `skipstone operators`: lists the operators that packages need, so that a library can be built with only those.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use skipstone::package::operators;

use crate::failure::Failure;
use crate::output::print;

/// List the operators of packages, to build a library with only those
#[derive(Args, Debug)]
#[command(after_help = "\
A library built with this list is smaller, and opens only packages that need no other operators.

Example:
  SKIPSTONE_OPERATORS=\"$(skipstone operators assets/*.skip)\" cargo build --profile device -p skipstone-jni")]
pub struct Operators {
    /// Packages
    #[arg(value_name = "FILE.skip", required = true)]
    packages: Vec<PathBuf>,
}

impl Operators {
    /// Prints the names on one line.
    pub fn execute(self) -> Result<(), Failure> {
        let mut all = BTreeSet::new();
        for package in &self.packages {
            all.extend(operators(package)?);
        }
        print(&(all.into_iter().collect::<Vec<_>>().join(" ") + "\n"))
    }
}

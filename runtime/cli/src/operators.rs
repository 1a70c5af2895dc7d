//! `skipstone operators`: what a library must have to open some packages, so that it can be built without the rest.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use skipstone::package::operators;

use crate::failure::Failure;
use crate::output::print;

/// List the operators of packages, for a library that holds no others
#[derive(Args, Debug)]
#[command(after_help = "\
A library built with the list is smaller, and opens only packages that need no more.

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

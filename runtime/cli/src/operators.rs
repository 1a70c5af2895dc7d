//! `skipstone operators`: lists the operators and families of kernels that packages need, so that a library can be built
//! with only those.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use skipstone::package::operators;

use crate::failure::Failure;
use crate::output::print;

/// List the operators and kernels of packages, to build a library with only those
#[derive(Args, Debug)]
#[command(after_help = "\
A library built with this list is smaller, and opens only packages that need no other operators. Names that begin with a
small letter are families of kernels for convolutions: those that would be chosen on phones, with any memory policy and
storage of the weights. Without such a name all are built; other packages run without them too, but may be slower.

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

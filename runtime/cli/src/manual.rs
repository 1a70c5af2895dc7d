//! Documents the command: help grouped by task, man pages, and shell completions.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::Failure;

/// The subcommands by what a user wants to do.
const TASKS: &[(&str, &[&str])] = &[
    ("Use a model", &["classify", "run", "evaluate"]),
    ("Inspect a model", &["inspect", "bench"]),
    ("Change a model", &["quantize", "prune", "soup", "stitch", "slice", "experts", "widen", "deepen"]),
    ("Prepare a model for an app", &["compile", "tune", "operators"]),
    ("This command", &["completions", "man", "help"]),
];

/// The command with its subcommands listed by task.
pub fn by_task(mut command: Command) -> Command {
    command.build();
    let mut list = String::new();
    for (task, names) in TASKS {
        list += &format!("\n{task}:\n");
        for name in *names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            list += &format!("  {name:<13}{}\n", about.map(ToString::to_string).unwrap_or_default());
        }
    }
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{list}\nOptions:\n{{options}}{{after-help}}"
    ))
}

/// Print a completion script for a shell
///
/// For bash: `skipstone completions bash > /etc/bash_completion.d/skipstone`.
#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn execute(&self, mut command: Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "skipstone", &mut script);
        crate::output::print(&String::from_utf8_lossy(&script))
    }
}

/// Write the man pages of this command and its subcommands
#[derive(Args)]
pub struct Man {
    /// Folder for the pages; created if it does not exist
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

impl Man {
    pub fn execute(&self, command: Command) -> Result<(), Failure> {
        let io = |error: std::io::Error| Failure::io(&self.output, &error);
        std::fs::create_dir_all(&self.output).map_err(io)?;
        clap_mangen::generate_to(command, &self.output).map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_subcommand_is_listed_under_a_task() {
        let mut command = crate::Cli::command();
        command.build();
        let mut listed: Vec<&str> = TASKS.iter().flat_map(|(_, names)| *names).copied().collect();
        let mut there: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        listed.sort_unstable();
        there.sort_unstable();
        assert_eq!(listed, there);
    }
}

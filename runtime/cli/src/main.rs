//! The `skipstone` command: run, classify, measure and inspect ONNX classifiers.
//!
//! Each subcommand is a file. Results go to stdout, everything else to stderr. The exit status is
//! 0 on success, 1 on an error in the model or an input, and 2 on an error in the command line.

mod activity;
mod args;
mod batch;
mod bench;
mod calibration;
mod classify;
mod compile;
mod effect;
mod evaluate;
mod expert_budget;
mod experts;
mod failure;
mod files;
mod formats;
mod grow;
mod heat;
mod images;
mod inputs;
mod inspect;
mod labels;
mod limits;
mod manual;
mod measurement;
mod notes;
mod npy;
mod numbers;
mod operators;
mod output;
mod picture;
mod printable;
mod progress;
mod prune;
mod quantize;
mod report;
mod run;
mod slice;
mod soup;
mod stitch;
mod table;
mod text_model;
mod tokens;
mod tune;
mod webp;
mod zeros;

use std::alloc::System;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use skipstone::WithSpare;

/// Makes running out of memory an error.
#[global_allocator]
static ALLOCATOR: WithSpare = WithSpare::new(System);

/// On-device inference for compact ONNX classifiers
#[derive(Parser)]
#[command(
    name = "skipstone",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  skipstone classify model.onnx cat.jpg      what does the image show?
  skipstone classify model.onnx --text 'Hi!' what does the text say?
  skipstone inspect model.onnx               what is in the model, and what will run?
  skipstone bench model.onnx --profile       how fast is it, and where does the time go?
  skipstone evaluate model.onnx dataset/     how often is it right?
  skipstone run model.onnx --input x=x.npy --output-dir out
  skipstone compile model.onnx -o model.skip  a package for the app
  skipstone tune model.onnx -o model.tune     which kernels are the fastest here?
  skipstone quantize model.onnx --calibrate photos/ -o small.onnx
  skipstone prune model.onnx --zeros 80 -o sparse.onnx
  skipstone soup a.onnx b.onnx c.onnx -o soup.onnx
  skipstone stitch small.onnx large.onnx --calibrate photos/ -o both.onnx
  skipstone slice model.onnx --width 50 -o narrow.onnx
  skipstone experts model.onnx --split 8 --calibrate photos/ -o experts.onnx
  skipstone widen model.onnx --by 50 -o wide.onnx

`skipstone COMMAND --help` explains a command and its options.
Exit status: 0 success, 1 error in the model or an input, 2 error in the command line."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Classify(classify::Classify),
    Bench(bench::Bench),
    Inspect(inspect::Inspect),
    Evaluate(evaluate::Evaluate),
    Compile(compile::Compile),
    Operators(operators::Operators),
    Quantize(quantize::Quantize),
    Prune(prune::Prune),
    Soup(soup::SoupOf),
    Stitch(stitch::StitchOf),
    Slice(slice::SliceOf),
    Experts(experts::ExpertsOf),
    Widen(grow::Widen),
    Deepen(grow::Deepen),
    Tune(tune::Tune),
    Completions(manual::Completions),
    Man(manual::Man),
}

fn main() -> ExitCode {
    let matches = manual::by_task(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    failure::silence_panics();
    let result = failure::catch_panics(|| match cli.command {
        Command::Run(command) => command.execute(),
        Command::Classify(command) => command.execute(),
        Command::Bench(command) => command.execute(),
        Command::Inspect(command) => command.execute(),
        Command::Evaluate(command) => command.execute(),
        Command::Compile(command) => command.execute(),
        Command::Operators(command) => command.execute(),
        Command::Quantize(command) => command.execute(),
        Command::Prune(command) => command.execute(),
        Command::Soup(command) => command.execute(),
        Command::Stitch(command) => command.execute(),
        Command::Slice(command) => command.execute(),
        Command::Experts(command) => command.execute(),
        Command::Widen(command) => command.execute(),
        Command::Deepen(command) => command.execute(),
        Command::Tune(command) => command.execute(),
        Command::Completions(command) => command.execute(Cli::command()),
        Command::Man(command) => command.execute(Cli::command()),
    });
    match result.and_then(|done| done) {
        Ok(()) => {
            notes::print();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}

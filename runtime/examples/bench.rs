//! A minimal benchmark: a package's latency on a bare device, with `adb push` and `adb shell`.
//!
//!     cargo run --release -p skipstone --no-default-features --example bench -- model.skip [RUNS]

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use skipstone::{Model, Options, Tensor, TensorView};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let package = arguments.next().ok_or("usage: bench PACKAGE [RUNS]")?;
    let runs: usize = arguments.next().as_deref().unwrap_or("100").parse()?;
    let began = Instant::now();
    let model = Model::open(&package, &Options::default())?;
    let mut session = model.session()?;
    let tensors: Vec<Tensor> = model.inputs().iter().map(|port| Tensor::zeros(port.fact.clone())).collect();
    let inputs: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
    session.run(&inputs)?;
    let first = began.elapsed();
    let mut times = Vec::with_capacity(runs.max(1));
    for _ in 0..runs.max(1) {
        let began = Instant::now();
        session.run(&inputs)?;
        times.push(began.elapsed());
    }
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{package}: opened and run first {first:.2?}, median {:.3?}, 90 % {:.3?}", at(50), at(90));
    Ok(())
}

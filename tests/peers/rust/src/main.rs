//! A worker of the comparison: one runtime, one model, driven by lines on stdin (the protocol is
//! described in `tests/peers/worker.py`, its counterpart for the runtimes that Python drives).

#[cfg(feature = "onnx")]
mod rten;
mod skipstone;
#[cfg(feature = "onnx")]
mod tract;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Runs before memory is read, so that memory allocated on demand is included.
const SETTLING_RUNS: usize = 10;

/// A loaded model with its input in place.
trait Engine {
    /// One inference.
    fn run(&mut self) -> Result<()>;
    /// The output of the last inference.
    fn output(&self) -> Result<Vec<f32>>;
}

/// The model's input.
struct Input {
    dims: Vec<usize>,
    elements: Vec<f32>,
}

struct Arguments {
    engine: String,
    model: PathBuf,
    threads: usize,
    input: Input,
}

/// `ENGINE MODEL THREADS DIMS FILE`: dimensions separated by commas, a file of little-endian f32.
fn arguments() -> Result<Arguments> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [engine, model, threads, dims, file] = given.as_slice() else {
        bail!("usage: skipstone-peers ENGINE MODEL THREADS DIMS FILE");
    };
    let dims = dims.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>().context(dims.clone())?;
    let bytes = std::fs::read(file).with_context(|| file.clone())?;
    let elements = bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect();
    Ok(Arguments {
        engine: engine.clone(),
        model: model.into(),
        threads: threads.parse().context(threads.clone())?,
        input: Input { dims, elements },
    })
}

/// Loads the model into the named engine.
fn load(engine: &str, model: &Path, threads: usize, input: Input) -> Result<Box<dyn Engine>> {
    Ok(match engine {
        "skipstone" | "skipstone_package" | "skipstone_small" => Box::new(skipstone::Skipstone::load(model, threads, input)?),
        #[cfg(feature = "onnx")]
        "tract" => Box::new(tract::Tract::load(model, threads, input)?),
        #[cfg(feature = "onnx")]
        "rten" => Box::new(rten::Rten::load(model, threads, input)?),
        other => bail!("no engine {other}"),
    })
}

/// Resident memory of this process, all of it and what no file backs, in KiB.
fn resident() -> Result<(i64, i64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> Result<i64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?)
    };
    Ok((field("VmRSS")?, field("RssAnon")?))
}

/// The times of `timed` inferences after `warm_up` others, in nanoseconds.
fn burst(engine: &mut dyn Engine, warm_up: usize, timed: usize) -> Result<Vec<u128>> {
    for _ in 0..warm_up {
        engine.run()?;
    }
    (0..timed)
        .map(|_| {
            let began = Instant::now();
            engine.run()?;
            Ok(began.elapsed().as_nanos())
        })
        .collect()
}

fn main() -> Result<()> {
    let Arguments { engine, model, threads, input } = arguments()?;
    let mut stdout = std::io::stdout();
    let (all, anonymous) = resident()?;
    let began = Instant::now();
    let mut engine = load(&engine, &model, threads, input)?;
    engine.run()?;
    let first = began.elapsed().as_nanos();
    let times = burst(engine.as_mut(), 0, SETTLING_RUNS)?;
    let after = resident()?;
    writeln!(
        stdout,
        r#"{{"load_ns":{first},"resident_kib":{},"anonymous_kib":{},"times_ns":{times:?}}}"#,
        after.0 - all,
        after.1 - anonymous
    )?;
    stdout.flush()?;

    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("run", counts)) => {
                let (warm_up, timed) = counts.split_once(' ').context("run WARM_UP TIMED")?;
                let times = burst(engine.as_mut(), warm_up.parse()?, timed.parse()?)?;
                writeln!(stdout, r#"{{"times_ns":{times:?}}}"#)?;
            }
            Some(("output", file)) => {
                let bytes: Vec<u8> = engine.output()?.iter().flat_map(|x| x.to_le_bytes()).collect();
                std::fs::write(file, bytes)?;
                writeln!(stdout, "{{}}")?;
            }
            _ => bail!("unknown request: {line}"),
        }
        stdout.flush()?;
    }
    Ok(())
}

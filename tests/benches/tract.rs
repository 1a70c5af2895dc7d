//! Skipstone against tract on the same files, in one run, interleaved: `cargo bench -p
//! skipstone-tests --bench tract -- build/zoo/*.onnx`.
//!
//! Both run on one thread; the outputs are compared first, so that a wrong answer cannot win.

use std::time::{Duration, Instant};

use skipstone::{Model, Options, TensorView};
use tract_onnx::prelude::*;

const WARM_UP: usize = 3;
const RUNS: usize = 30;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let models: Vec<String> = std::env::args().skip(1).filter(|a| a.ends_with(".onnx")).collect();
    if models.is_empty() {
        println!("give the .onnx files to compare after `--`");
        return Ok(());
    }
    println!(
        "{:36} {:>10} {:>10} {:>7}   medians of {RUNS} interleaved runs, one thread",
        "model", "tract ms", "ours ms", "ratio"
    );
    for path in models {
        let model = Model::open(&path, &Options::default())?;
        let mut session = model.session()?;
        let fact = &model.inputs()[0].fact;
        let input: Vec<f32> =
            (0..fact.shape.elements()).map(|i| ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 2.0).collect();
        let view = TensorView::new(&fact.shape, &input)?;
        let peer = tract_onnx::onnx().model_for_path(&path)?.into_optimized()?.into_runnable()?;
        let tensor: TValue = Tensor::from_shape(&fact.shape, &input)?.into();

        session.run(std::slice::from_ref(&view))?;
        let theirs = peer.run(tvec!(tensor.clone()))?;
        let theirs = theirs[0].to_plain_array_view::<f32>()?;
        let ours = session.output(0).ok_or("no output")?;
        let ours = ours.elements::<f32>().ok_or("the output is not f32")?;
        let scale = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
        let worst = theirs.iter().zip(ours).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-3 * scale, "{path}: outputs differ by {worst} of {scale}");

        let (mut a, mut b) = (Vec::new(), Vec::new());
        for run in 0..WARM_UP + RUNS {
            let began = Instant::now();
            peer.run(tvec!(tensor.clone()))?;
            let middle = Instant::now();
            session.run(std::slice::from_ref(&view))?;
            if run >= WARM_UP {
                a.push(middle - began);
                b.push(middle.elapsed());
            }
        }
        let (a, b) = (median(a), median(b));
        let name =
            std::path::Path::new(&path).file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        println!("{name:36} {:10.3} {:10.3} {:7.2}", a, b, a / b);
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

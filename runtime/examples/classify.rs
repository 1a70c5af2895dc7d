//! A minimal classifier: a package, and frames as from a camera, without an image decoder or a parser.
//!
//!     cargo run --release -p skipstone --no-default-features --example classify -- model.skip 32 32 frame.rgb ...
//!
//! A frame is `width * height * 3` bytes, red first, rows from the top. Prints the file, the class and its probability,
//! and at the end the times and memory on stderr.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use skipstone::classify::{Classifier, Image, Settings};
use skipstone::measure::rss_bytes;
use skipstone::{Model, Options};

fn main() -> ExitCode {
    match classify() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn classify() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, width, height, frames @ ..] = arguments.as_slice() else {
        return Err("usage: classify PACKAGE WIDTH HEIGHT FRAME.rgb ...".into());
    };
    let (width, height) = (width.parse()?, height.parse()?);
    let (before, began) = (rss_bytes(), Instant::now());
    let model = Model::open(package, &Options::default())?;
    let mut classifier = Classifier::new(&model, &Settings::default(), None)?;
    let opened = began.elapsed();
    let mut first = None;
    for frame in frames {
        let rgb = std::fs::read(frame)?;
        let image = Image::new(width, height, &rgb).ok_or_else(|| format!("{frame}: not {width}x{height} pixels"))?;
        let prepared = classifier.prepare(image);
        let asked = Instant::now();
        let scores = classifier.scores(&prepared)?;
        first.get_or_insert(asked.elapsed());
        for best in classifier.rank(&scores, 1) {
            println!("{frame} {} {}", best.label, best.score);
        }
    }
    if let (Some(first), Some(before), Some(after)) = (first, before, rss_bytes()) {
        let megabytes = after.saturating_sub(before) as f64 / 1e6;
        eprintln!("opened in {opened:.1?}, first answer in {first:.1?}, {megabytes:.1} MB more resident");
    }
    Ok(())
}

//! Classifies image files.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use skipstone::Model;
use skipstone::classify::{Activation, Classifier, Labels, Normalization, Settings};
use skipstone::measure::Latency;

use super::{Classify, Failed, Rows, Top, milliseconds, tops};
use crate::failure::Failure;
use crate::heat::{Drawn, HeatMap};
use crate::output::{json, print};
use crate::printable::printable;
use crate::progress::Progress;
use crate::{images, numbers, output};

#[derive(Serialize)]
struct Report {
    model: String,
    /// What the scores are, and where that was specified.
    scores: String,
    /// What is done to an image before its normalization.
    image: String,
    normalization: NormalizationReport,
    images: Vec<Classified>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct NormalizationReport {
    mean: Vec<f32>,
    std: Vec<f32>,
    /// The factor of a byte, before.
    scale: f32,
    /// Where it was specified.
    from: String,
}

#[derive(Serialize)]
struct Classified {
    file: String,
    ms: f64,
    top: Vec<Top>,
    /// The heat map, if it was drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<Drawn>,
}

impl Classify {
    /// Classifies every image.
    pub(super) fn pictures(&self, model: &Model, settings: &Settings, labels: Option<Labels>) -> Result<(), Failure> {
        let mut classifier = Classifier::new(model, settings, labels)?;
        self.model.prepare(classifier.session())?;
        let files = images::find(&self.files)?;
        let heat = self.heat.map(model)?;
        if heat.is_some() && files.len() != 1 {
            return Err(Failure::Usage(format!("--map draws over one image, but {} are given", files.len())));
        }
        if heat.as_ref().is_some_and(HeatMap::is_stream) {
            output::reserve();
        }

        let lengths = files.iter().map(|file| file.display().to_string().chars().count());
        let plain = classifier.has_own_scale() || settings.activation == Some(Activation::None);
        let rows = (!self.json).then(|| Rows::new(lengths, classifier.display_names(), plain));
        let Normalization { mean, std, scale, origin } = classifier.normalization().clone();
        let mut report = Report {
            model: self.model.name(),
            scores: classifier.meaning(),
            image: classifier.preprocess().to_string(),
            normalization: NormalizationReport { mean, std, scale, from: origin.to_string() },
            images: Vec::new(),
            failed: Vec::new(),
        };
        let (mut times, mut drawn) = (Vec::new(), None);
        let mut progress = Progress::beside_rows(files.len());
        if let Some(rows) = &rows {
            print(&rows.title("file"))?;
        }
        for path in &files {
            let file = path.display().to_string();
            match self.picture(&mut classifier, path, heat.as_ref()) {
                Ok((top, time, map)) => {
                    times.push(time);
                    match &rows {
                        Some(rows) => {
                            print(&rows.row(&file, time, &top))?;
                            drawn = map;
                        }
                        None => report.images.push(Classified { file, ms: milliseconds(time), top, map }),
                    }
                }
                Err(failure) => {
                    progress.report(&failure);
                    report.failed.push(Failed { file, error: failure.to_string() });
                }
            }
            progress.step();
        }
        drop(progress);

        if self.json {
            print(&json(&report)?)?;
        } else {
            print(&format!("\nimage: {}\n", report.image))?;
            print(&format!("normalization: {}\n", printable(&classifier.normalization().to_string())))?;
            print(&format!("scores: {}\n", printable(&report.scores)))?;
            if let Some(drawn) = drawn {
                print(&format!("{}\n", printable(&drawn.to_string())))?;
            }
            if let (true, Some(latency)) = (files.len() > 1, Latency::of(&times)) {
                print(&format!("{} images, {} ms median\n", times.len(), numbers::ms(latency.p50)))?;
            }
        }
        if report.failed.is_empty() { Ok(()) } else { Err(Failure::Reported) }
    }

    /// The best classes of an image, the time of the run, and what was drawn over the image.
    fn picture(
        &self,
        classifier: &mut Classifier,
        file: &Path,
        heat: Option<&HeatMap>,
    ) -> Result<(Vec<Top>, Duration, Option<Drawn>), Failure> {
        let image = images::decode(file)?;
        let prepared = classifier.prepare(images::view(&image)?);
        self.model.prepare(classifier.session())?;
        let began = Instant::now();
        let scores = classifier.scores(&prepared).map_err(|error| Failure::from(error).of(file))?;
        let time = began.elapsed();
        let top = tops(classifier.rank(&scores, self.top), classifier.display_names());
        let map = heat.map(|heat| heat.draw(classifier, image)).transpose().map_err(|failure| failure.of(file))?;
        Ok((top, time, map))
    }
}

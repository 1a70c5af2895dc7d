//! The heat map of a model, drawn over the image that it was computed from.
//!
//! A detector of defects has, beside its score, an output with a value for every place of its input. The image is
//! tinted where the values are high: from nothing at the lowest, through yellow, to red at the highest. Only the part
//! of the image that the model saw is tinted.

use std::path::PathBuf;

use clap::Args;
use image::{ImageFormat, Rgb, RgbImage};
use serde::Serialize;
use skipstone::classify::{Classifier, Region};
use skipstone::{DType, Model, Shape};

use crate::failure::Failure;
use crate::{files, numbers};

/// The share of the tint in a pixel at the highest value.
const OPACITY: f64 = 0.6;

/// Whether and how to draw the map.
#[derive(Args, Debug)]
pub struct HeatArgs {
    /// Draw the model's heat map over the image, red where it is highest, and write the picture; - is standard output
    #[arg(long = "map", value_name = "OUT.png", help_heading = "Heat map options")]
    file: Option<PathBuf>,

    /// The output with the map: one value for every place [default: the only one of shape 1x1xHxW or 1xHxWx1]
    #[arg(long = "map-output", value_name = "NAME", requires = "file", help_heading = "Heat map options")]
    output: Option<String>,

    /// The values that are not tinted and that are red, for pictures that can be compared [default: the least and the
    /// greatest of the map]
    #[arg(long = "map-range", value_name = "LOW,HIGH", value_parser = parse_range, allow_hyphen_values = true,
          requires = "file", help_heading = "Heat map options")]
    range: Option<(f32, f32)>,
}

impl HeatArgs {
    /// The map of `model`, if it is to be drawn.
    ///
    /// # Errors
    /// Usage, if the file is not named as a PNG; `model.output` if no output is a map, or several are.
    pub fn map(&self, model: &Model) -> Result<Option<HeatMap>, Failure> {
        let Some(file) = self.file.clone() else { return Ok(None) };
        let png = file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
        if !png && !files::is_stream(&file) {
            return Err(Failure::Usage(format!("--map {}: the picture is a png, so name it so", file.display())));
        }
        let (index, (height, width)) = find(model, self.output.as_deref())?;
        let output = model.outputs()[index].name.clone();
        Ok(Some(HeatMap { file, output, index, height, width, range: self.range }))
    }
}

/// `LOW,HIGH`
fn parse_range(text: &str) -> Result<(f32, f32), String> {
    let number = |text: &str| text.trim().parse::<f32>().ok().filter(|number| number.is_finite());
    match text.split_once(',').map(|(low, high)| (number(low), number(high))) {
        Some((Some(low), Some(high))) if low < high => Ok((low, high)),
        _ => Err("expected two numbers, the lower one first, as in 0,1.5".into()),
    }
}

/// The index of the output with the map, by name or by shape, and the map's height and width.
fn find(model: &Model, name: Option<&str>) -> Result<(usize, (usize, usize)), Failure> {
    let refused = |message: String| Failure::new("model.output", message);
    let outputs = model.outputs();
    let list = || outputs.iter().map(|it| format!("{} {}", it.name, it.fact)).collect::<Vec<_>>().join(", ");
    let is_float = |index: usize| matches!(outputs[index].fact.dtype, DType::F32 | DType::F16 | DType::F64);
    if let Some(name) = name {
        let index = outputs.iter().position(|output| output.name == name);
        let index = index.ok_or_else(|| refused(format!("no output is named '{name}'; the outputs are {}", list())))?;
        let sides = sides(&outputs[index].fact.shape).filter(|_| is_float(index));
        let sides = sides.ok_or_else(|| {
            let fact = &outputs[index].fact;
            refused(format!("output '{name}' is {fact}; a map has one float for every place, as in 1x1xHxW"))
        })?;
        return Ok((index, sides));
    }
    let fits = |index: usize| {
        let shape = &outputs[index].fact.shape;
        sides(shape).filter(|_| is_float(index) && shape.dims().len() == 4)
    };
    let maps: Vec<_> = (0..outputs.len()).filter_map(|index| Some((index, fits(index)?))).collect();
    match maps.as_slice() {
        [map] => Ok(*map),
        [] => Err(refused(format!("no output is a map (floats of 1x1xHxW or 1xHxWx1); the outputs are {}", list()))),
        _ => Err(refused(format!("several outputs may be the map, choose one by --map-output: {}", list()))),
    }
}

/// Height and width of a map: one value for every place, in more than one row and column.
fn sides(shape: &Shape) -> Option<(usize, usize)> {
    let (height, width) = match *shape.dims() {
        [1, 1, height, width] | [1, height, width, 1] | [1, height, width] | [height, width] => (height, width),
        _ => return None,
    };
    (height > 1 && width > 1).then_some((height, width))
}

/// An output with a value for every place of the input, and the picture to make of it.
pub struct HeatMap {
    file: PathBuf,
    output: String,
    index: usize,
    height: usize,
    width: usize,
    range: Option<(f32, f32)>,
}

/// What was drawn.
#[derive(Serialize)]
pub struct Drawn {
    file: String,
    output: String,
    /// The value that is not tinted.
    low: f32,
    /// The value that is red.
    high: f32,
}

impl std::fmt::Display for Drawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, output, low, high } = self;
        write!(
            f,
            "map: output {output}, from {} to {} (red), drawn in {file}",
            numbers::short(*low),
            numbers::short(*high)
        )
    }
}

impl HeatMap {
    /// Whether the picture is written to standard output.
    pub fn is_stream(&self) -> bool {
        files::is_stream(&self.file)
    }

    /// Draws the map of the last run over `image`, which the run was for, and writes the picture.
    ///
    /// # Errors
    /// `model.output` if a value is not finite; `io`.
    pub fn draw(&self, classifier: &mut Classifier, mut image: RgbImage) -> Result<Drawn, Failure> {
        let region = classifier.preprocess().region(image.width() as usize, image.height() as usize);
        let output =
            classifier.session().output(self.index).filter(|it| it.fact().shape.elements() == self.height * self.width);
        let values = output.and_then(|output| output.to_floats()).ok_or_else(|| {
            Failure::new(
                "model.output",
                format!("output '{}' has another shape or type than the model declares", self.output),
            )
        })?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Failure::new(
                "model.output",
                format!("output '{}' has values that are not finite", self.output),
            ));
        }
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (low, high) = self.range.unwrap_or((least, greatest));
        self.tint(&values, region, (low, high), &mut image);

        let mut png = std::io::Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png).map_err(|error| Failure::new("image", error.to_string()))?;
        files::write(&self.file, png.get_ref())?;
        Ok(Drawn { file: self.file.display().to_string(), output: self.output.clone(), low, high })
    }

    /// Tints every pixel of `region`. Between the centers of the map's values they are interpolated; beyond the
    /// outermost centers they are the outermost.
    fn tint(&self, values: &[f32], region: Region, (low, high): (f32, f32), image: &mut RgbImage) {
        let columns = places(image.width(), region.left, region.width, self.width);
        let rows = places(image.height(), region.top, region.height, self.height);
        let (low, span) = (f64::from(low), f64::from(high) - f64::from(low));
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            let (Some(column), Some(row)) = (&columns[x as usize], &rows[y as usize]) else { continue };
            let in_row = |y: usize| {
                let at = |x: usize| f64::from(values[y * self.width + x]);
                column.between(at(column.first), at(column.second))
            };
            let value = row.between(in_row(row.first), in_row(row.second));
            // A map with one value for all places tints nothing.
            let heat = if span > 0.0 { ((value - low) / span).clamp(0.0, 1.0) } else { 0.0 };
            *pixel = tinted(*pixel, heat);
        }
    }
}

/// `pixel` mixed with a color between yellow and red, the more the higher `heat` is, from 0 to 1.
fn tinted(Rgb(pixel): Rgb<u8>, heat: f64) -> Rgb<u8> {
    let color = [255.0, 255.0 * (1.0 - heat), 0.0];
    let mixed = |c: usize| f64::from(pixel[c]) + OPACITY * heat * (color[c] - f64::from(pixel[c]));
    Rgb([0, 1, 2].map(|c| mixed(c).round() as u8))
}

/// The two values of a map's row or column whose centers a pixel's center is between, and how far it is from the first.
struct Place {
    first: usize,
    second: usize,
    share: f64,
}

impl Place {
    fn between(&self, first: f64, second: f64) -> f64 {
        first + self.share * (second - first)
    }
}

/// Where the pixels of a row or column are in a map of `count` values that covers `length` pixels from `start`; `None`
/// for a pixel outside.
fn places(pixels: u32, start: f64, length: f64, count: usize) -> Vec<Option<Place>> {
    let place = |pixel: u32| {
        let at = (f64::from(pixel) + 0.5 - start) / length;
        (0.0..1.0).contains(&at).then(|| {
            let center = (at * count as f64 - 0.5).clamp(0.0, (count - 1) as f64);
            let first = center.floor();
            Place { first: first as usize, second: (first as usize + 1).min(count - 1), share: center - first }
        })
    };
    (0..pixels).map(place).collect()
}

//! `skipstone compile`: converts an ONNX file to a package for devices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use skipstone::classify::{Classifier, Labels, Settings};
use skipstone::{Error, Fault, Isa, ModelFault, Options, Recipe, Shapes, Tuning, compile, compile_bytes};

use crate::args::{ImageArgs, MemoryArg, PrecisionArg, assumed_batches, open, parse_shape, parse_tuning};
use crate::failure::Failure;
use crate::files;
use crate::labels;
use crate::limits::{Limit, limits, parse_limit};
use crate::notes::note;
use crate::numbers::bytes;
use crate::output::print;
use crate::printable::printable;

/// Make a package that a device opens in milliseconds
#[derive(Args, Debug)]
#[command(after_help = "\
A package (.skip) holds the planned graph, the weights, labels and image normalization. A `generic` package runs
everywhere, including simulators and emulators, and its weights are packed when it is opened. A package for one
instruction set holds weights packed for its kernels, so opening it packs nothing, but other machines refuse it:
`host` is this machine's, `neon` that of every 64-bit phone.
For an image classifier, the command prints the normalization and the kind of scores, and where each was specified;
the image options are stored in the package.
If inputs are given several shapes, the first of each input belong together, the second, and so on; an input with one
shape has it in all of them.
A model with operators that only run on the desktop is refused, with their names. `-` is standard input for MODEL, and
standard output for --output; the report then goes to stderr.

Make keys for --sign with openssl; the app checks packages with the public key:
  openssl genpkey -algorithm ed25519 -out key.pem
  openssl pkey -in key.pem -pubout -out public.pem

Examples:
  skipstone compile model.onnx -o model.skip --target neon
  skipstone compile model.onnx -o model.skip --target generic --labels labels.txt --sign key.pem
  skipstone compile text.onnx -o text.skip --shape ids=1x16 --shape ids=1x64 --shape ids=1x256
  skipstone classify model.skip photos/")]
pub struct Compile {
    /// The model, an .onnx file; - is standard input
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// File to write; - is standard output
    #[arg(short, long, value_name = "FILE.skip")]
    output: PathBuf,

    /// Instruction set to pack the weights for: host, generic, neon (or aarch64), avx2 (or x86_64), avx512, scalar
    #[arg(long, value_name = "NAME", default_value = "generic", value_parser = parse_target)]
    target: TargetIsa,

    /// Whether packed weights may use more memory for speed
    #[arg(long, value_enum, default_value_t = MemoryArg::Fast)]
    memory: MemoryArg,

    /// Storage format of packed weights
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,

    /// Use the kernels that `skipstone tune` found fastest on the machine that the package is for
    #[arg(long, value_name = "FILE.tune", value_parser = parse_tuning)]
    tuning: Option<Arc<Tuning>>,

    /// Shape of a dynamic input; several for one input give a package with a plan for each, which share weights
    #[arg(long = "shape", value_name = "NAME=1x3x224x224", value_parser = parse_shape)]
    shapes: Vec<(String, Vec<usize>)>,

    /// Class names to show in a language, as for --labels; once for each language
    #[arg(long = "labels-for", value_name = "LOCALE=FILE", value_parser = parse_locale, help_heading = "Image options")]
    localized: Vec<(String, PathBuf)>,

    /// Change a limit for the model: see `skipstone run --help`
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = parse_limit)]
    limits: Vec<Limit>,

    /// Model card: a text on what the model is, and what it is and is not good for
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,

    /// Ed25519 private key to sign with, in PEM (PKCS#8)
    #[arg(long, value_name = "KEY.pem")]
    sign: Option<PathBuf>,

    /// The lowest score that an app reports: one for all classes, or one for each
    #[arg(
        long,
        value_name = "SCORE,...",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Image options"
    )]
    threshold: Option<Vec<f32>>,

    #[command(flatten)]
    image: ImageArgs,
}

/// The instruction set of `--target`; `None` for a generic package.
type TargetIsa = Option<Isa>;

fn parse_target(name: &str) -> Result<TargetIsa, String> {
    match name {
        "generic" => Ok(None),
        "host" => Ok(Some(Isa::detect())),
        "aarch64" => Ok(Some(Isa::Neon)),
        "x86_64" => Ok(Some(Isa::Avx2)),
        name => {
            name.parse().map(Some).map_err(|_| "expected host, generic, neon, neon32, avx2, avx512 or scalar".into())
        }
    }
}

fn parse_locale(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((locale, file)) if !locale.is_empty() && !file.is_empty() => Ok((locale.to_owned(), file.into())),
        _ => Err("expected LOCALE=FILE".into()),
    }
}

impl Compile {
    /// Writes the package.
    pub fn execute(self) -> Result<(), Failure> {
        files::only_one_stream(
            [Some(&self.model), self.image.labels.as_ref()].into_iter().flatten().map(PathBuf::as_path),
        )?;
        let plain = (self.precision, self.memory) == (PrecisionArg::F32, MemoryArg::Fast) && self.tuning.is_none();
        if self.target.is_none() && !plain {
            let reason = "--precision, --memory and --tuning apply to packed weights; a generic package is packed when \
                          it is opened";
            return Err(Failure::Usage(format!("{reason}: give a --target")));
        }
        let mut shapes = shape_sets(&self.shapes).map_err(Failure::Usage)?.into_iter();
        let recipe = Recipe {
            isa: self.target,
            memory: self.memory.into(),
            precision: self.precision.into(),
            tuning: self.tuning.clone(),
            shapes: shapes.next().unwrap_or_default(),
            further_shapes: shapes.collect(),
            metadata: self.metadata()?,
            limits: limits(&self.limits),
        };
        let classifier = self.classifier(&recipe.shapes)?;
        let key = self.sign.as_deref().map(read_key).transpose()?;
        let (package, _) = if files::is_stream(&self.model) {
            compile_bytes(&files::read(&self.model)?, &recipe, key.as_ref())?
        } else {
            compile(&self.model, &recipe, key.as_ref())?
        };
        files::write(&self.output, &package)?;
        let target = self.target.map_or("any instruction set", Isa::name);
        let signed = if key.is_some() { ", signed" } else { "" };
        let size = bytes(package.len() as u64);
        let plans = match recipe.further_shapes.len() {
            0 => String::new(),
            further => format!(", {} sets of shapes", further + 1),
        };
        print(&format!("{}: {size}, for {target}{plans}{signed}\n{classifier}", self.output.display()))
    }

    /// A summary of how a classifier will use the package; empty if the model is not an image classifier.
    ///
    /// # Errors
    /// Image options that do not fit the model are refused here, not when an app opens the package.
    fn classifier(&self, shapes: &Shapes) -> Result<String, Failure> {
        let options = Options { shapes: shapes.clone(), ..Options::default() };
        let model = open(&self.model, &options)?;
        for (name, shape) in assumed_batches(&model) {
            let name = printable(name);
            note(format!(
                "note: input '{name}' has an open batch size; the package is for 1, --shape {name}={shape} sets another"
            ));
        }
        let settings = Settings { threshold: self.threshold.clone(), ..self.image.settings() };
        match Classifier::new(&model, &settings, self.image.labels()?) {
            Ok(classifier) => {
                for (_, path) in &self.localized {
                    Classifier::new(&model, &self.image.settings(), Some(Labels::parse(&labels::read(path)?)))?;
                }
                let interpolation = classifier.preprocess().interpolation();
                if interpolation.overshoots() {
                    let by = interpolation.name();
                    note(format!("note: camera frames cannot be resized by {by}, so that apps will refuse them"));
                }
                let lines = [
                    ("image", classifier.preprocess().to_string()),
                    ("normalization", classifier.normalization().to_string()),
                    ("scores", classifier.meaning()),
                ];
                Ok(lines.map(|(name, text)| format!("{name}: {}\n", printable(&text))).concat())
            }
            Err(Error::Invalid { fault: Fault::Model(ModelFault::ImageInput), .. }) => Ok(String::new()),
            // Apps may read such a model's outputs by themselves.
            Err(error @ Error::Invalid { fault: Fault::Model(ModelFault::Output), .. }) => {
                note(format!("note: no image can be classified: {}", printable(&error.to_string())));
                Ok(String::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the command line specifies about images, classes and the model.
    fn metadata(&self) -> Result<Vec<(String, String)>, Failure> {
        let numbers = |list: &Vec<f32>| list.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        let text = |path: &PathBuf| files::read_text(path);
        let image = &self.image;
        let pairs = [
            ("skipstone.labels", image.labels.as_deref().map(labels::read).transpose()?),
            ("skipstone.card", self.card.as_ref().map(text).transpose()?),
            ("skipstone.mean", image.mean.as_ref().map(numbers)),
            ("skipstone.std", image.std.as_ref().map(numbers)),
            ("skipstone.scale", image.scale.map(|scale| scale.to_string())),
            ("skipstone.colors", image.colors.map(|colors| colors.name().to_owned())),
            ("skipstone.interpolation", image.interpolation.map(|by| by.name().to_owned())),
            ("skipstone.fit", image.resize.and_then(|resize| resize.fit).map(|fit| fit.name().to_owned())),
            ("skipstone.resize", image.resize.and_then(|resize| resize.side).map(|side| side.to_string())),
            ("skipstone.crop", image.crop.map(|side| side.to_string())),
            ("skipstone.temperature", image.temperature.map(|temperature| temperature.to_string())),
            ("skipstone.threshold", self.threshold.as_ref().map(numbers)),
            ("skipstone.activation", image.activation.map(|activation| activation.name().to_owned())),
        ];
        let localized =
            self.localized.iter().map(|(locale, path)| Ok((format!("skipstone.labels.{locale}"), labels::read(path)?)));
        let pairs = pairs.into_iter().filter_map(|(key, value)| Some(Ok((key.to_owned(), value?))));
        pairs.chain(localized).collect()
    }
}

/// The shapes of all inputs, together: the first that each input is given, the second, and so on.
fn shape_sets(given: &[(String, Vec<usize>)]) -> Result<Vec<Shapes>, String> {
    let mut lists: BTreeMap<&str, Vec<&Vec<usize>>> = BTreeMap::new();
    for (name, shape) in given {
        lists.entry(name).or_default().push(shape);
    }
    let count = lists.values().map(Vec::len).max().unwrap_or(1);
    if let Some((name, list)) = lists.iter().find(|(_, list)| ![1, count].contains(&list.len())) {
        let got = list.len();
        return Err(format!(
            "--shape {name} is given {got} times, another input {count} times: give each once or as often"
        ));
    }
    let set = |at: usize| -> Shapes {
        lists.iter().map(|(name, list)| ((*name).to_owned(), list[at.min(list.len() - 1)].clone())).collect()
    };
    Ok((0..count).map(set).collect())
}

fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = files::read_text(path)?;
    SigningKey::from_pkcs8_pem(&text)
        .map_err(|error| Failure::new("key", format!("{}: not an Ed25519 private key in PEM: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_belong_together_in_their_order() {
        let given = |list: &[(&str, &[usize])]| {
            let list: Vec<(String, Vec<usize>)> =
                list.iter().map(|(name, dims)| ((*name).to_owned(), dims.to_vec())).collect();
            shape_sets(&list)
        };
        let set =
            |list: &[(&str, &[usize])]| list.iter().map(|(name, dims)| ((*name).to_owned(), dims.to_vec())).collect();
        assert_eq!(given(&[]), Ok(vec![Shapes::new()]));
        assert_eq!(given(&[("a", &[1, 3])]), Ok(vec![set(&[("a", &[1, 3])])]));
        assert_eq!(
            given(&[("a", &[1]), ("b", &[9]), ("a", &[2]), ("c", &[5]), ("b", &[8])]),
            Ok(vec![set(&[("a", &[1]), ("b", &[9]), ("c", &[5])]), set(&[("a", &[2]), ("b", &[8]), ("c", &[5])])])
        );
        assert!(given(&[("a", &[1]), ("a", &[2]), ("a", &[3]), ("b", &[1]), ("b", &[2])]).is_err());
    }
}

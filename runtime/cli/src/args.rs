//! Options shared by all commands that open a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey;
use skipstone::classify::{Activation, Colors, Cosine, Fit, Frechet, Hamming, Interpolation, Labels, Rule, Settings};
use skipstone::{Isa, Memory, Model, Options, PowerMode, Precision, Session, Tune, Tuning, Value};

use crate::failure::Failure;
use crate::files;
use crate::labels;
use crate::limits::{Limit, help, limits, parse_limit};
use crate::notes::note;
use crate::npy;
use crate::printable::printable;

/// A model and how to run it.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// The model, an .onnx file or a .skip package; - is standard input
    #[arg(value_name = "MODEL")]
    pub path: PathBuf,

    /// Threads to compute with
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Model options",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub threads: usize,

    /// Cores to compute on, if the CPU has two kinds: `fast` the large ones, `efficient` the small ones
    #[arg(long, value_enum, default_value_t = PowerArg::Balanced, help_heading = "Model options")]
    pub power: PowerArg,

    /// Instruction set: scalar, neon, neon32, avx2 or avx512 [default: the best of this CPU]
    #[arg(long, value_name = "NAME", help_heading = "Model options")]
    pub isa: Option<Isa>,

    /// Trade memory for speed: `small` keeps weights at their size in the file
    #[arg(long, value_enum, default_value_t = MemoryArg::Fast, help_heading = "Model options")]
    pub memory: MemoryArg,

    /// Storage format of the weights; also used for the arithmetic if the CPU supports it
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32, help_heading = "Model options")]
    pub precision: PrecisionArg,

    /// Use the kernels that `skipstone tune` found fastest on this machine
    #[arg(long, value_name = "FILE.tune", value_parser = parse_tuning, help_heading = "Model options")]
    pub tuning: Option<Arc<Tuning>>,

    /// Accept only packages signed with this Ed25519 public key, in PEM
    #[arg(long, value_name = "PUBLIC.pem", value_parser = parse_public_key, help_heading = "Model options")]
    pub signed_by: Option<[u8; 32]>,

    /// Most bytes of the weights of experts in memory: a number, or one with k, M or G (10^3, 10^6, 10^9). For a package
    /// made with `skipstone compile --target`; `inspect` says how many are needed
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Model options")]
    pub expert_budget: Option<u64>,

    /// Shape of a dynamic input; give it once for each such input
    #[arg(long = "shape", value_name = "NAME=1x3x224x224", value_parser = parse_shape, help_heading = "Model options")]
    pub shapes: Vec<(String, Vec<usize>)>,

    /// Change a limit for the model, such as memory or work; `--help` lists all
    #[arg(
        long = "limit",
        value_name = "NAME=VALUE",
        value_parser = parse_limit,
        long_help = help(),
        help_heading = "Model options"
    )]
    pub limits: Vec<Limit>,

    /// Value for a setting of the model (`inspect` lists them): true, a number, numbers separated by commas, or a .npy
    /// file; give it once for each
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting, help_heading = "Model options")]
    pub settings: Vec<(String, Value)>,
}

/// The values of `--memory`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryArg {
    /// The fastest choice
    Fast,
    /// The smallest choice
    Small,
}

/// The values of `--precision`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrecisionArg {
    /// As in the file
    F32,
    /// Rounded to half precision
    F16,
}

impl PrecisionArg {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

impl From<MemoryArg> for Memory {
    fn from(arg: MemoryArg) -> Self {
        match arg {
            MemoryArg::Fast => Self::Fast,
            MemoryArg::Small => Self::Small,
        }
    }
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::F16 => Self::F16,
        }
    }
}

/// The values of `--power`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerArg {
    /// The large cores
    Fast,
    /// Whichever the system gives
    Balanced,
    /// The small cores
    Efficient,
}

impl PowerArg {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Efficient => "efficient",
        }
    }
}

impl MemoryArg {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Small => "small",
        }
    }
}

impl ModelArgs {
    /// The library's options.
    pub fn options(&self) -> Options {
        Options {
            threads: self.threads,
            power: match self.power {
                PowerArg::Fast => PowerMode::Fast,
                PowerArg::Balanced => PowerMode::Balanced,
                PowerArg::Efficient => PowerMode::Efficient,
            },
            isa: self.isa,
            memory: self.memory.into(),
            precision: self.precision.into(),
            tune: self.tuning.clone().map_or(Tune::Model, Tune::Stored),
            signer: self.signed_by,
            shapes: self.shapes.iter().cloned().collect(),
            expert_budget: self.expert_budget,
            limits: limits(&self.limits),
        }
    }

    /// Opens the model.
    pub fn open(&self) -> Result<Model, Failure> {
        Ok(self.open_with(&self.options())?)
    }

    /// Opens the model with the command's own options.
    pub fn open_with(&self, options: &Options) -> Result<Model, skipstone::Error> {
        let model = open(&self.path, options)?;
        if let Some(warning) = model.warning() {
            note(format!("warning: {}: {}", self.name(), printable(warning)));
        }
        for (name, shape) in assumed_batches(&model) {
            note(format!(
                "note: {}: input '{}' has an open batch size; 1 is assumed, --shape {}={shape} sets another",
                self.name(),
                printable(name),
                printable(name),
            ));
        }
        Ok(model)
    }

    /// Applies the values of `--set` to a session, and resets its state.
    pub fn prepare(&self, session: &mut Session) -> Result<(), skipstone::Error> {
        session.reset();
        self.settings.iter().try_for_each(|(name, value)| session.set(name, value.clone()))
    }

    /// The model's path, as reports name it.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Opens a model file, or standard input.
pub fn open(path: &Path, options: &Options) -> Result<Model, skipstone::Error> {
    if !files::is_stream(path) {
        return Model::open(path, options);
    }
    let unreadable = |source| skipstone::Error::Io { path: "standard input".into(), source };
    Model::from_bytes(files::input(files::MAX_INPUT).map_err(unreadable)?, options)
}

/// The inputs whose batch size was assumed to be 1, with a shape that would set another.
pub fn assumed_batches(model: &Model) -> impl Iterator<Item = (&str, String)> {
    let inputs = model.inputs().iter().filter(|port| model.info().assumed_batch.contains(&port.name));
    inputs.map(|port| {
        let dims = port.fact.shape.iter().skip(1).map(usize::to_string);
        (port.name.as_str(), std::iter::once("N".to_owned()).chain(dims).collect::<Vec<_>>().join("x"))
    })
}

/// How images become the model's input, if its metadata is missing or wrong.
#[derive(Args, Clone, Debug)]
pub struct ImageArgs {
    /// Class names: one per line, a JSON list or object (also Keras's class_indices), CSV of index,name, or a YAML data
    /// set's `names:` [default: the model's `skipstone.labels`]
    #[arg(long, value_name = "FILE", help_heading = "Image options")]
    pub labels: Option<PathBuf>,

    /// Resize the shorter side to this many pixels and cut out the middle; or `stretch` both sides to the input's, or
    /// `letterbox`: the whole image between black bars; or both, as in stretch:256 [default: `skipstone.fit` and
    /// `skipstone.resize`, or `shortest` to the input's side]
    #[arg(long, value_name = "PIXELS|HOW", value_parser = parse_resize, help_heading = "Image options")]
    pub resize: Option<Resize>,

    /// How resized pixels are made: bilinear, bicubic, lanczos, box or nearest, as in Pillow and in torchvision with
    /// antialias; or linear, as in OpenCV [default: `skipstone.interpolation`, or bilinear]
    #[arg(long, value_name = "NAME", value_parser = parse_interpolation, help_heading = "Image options")]
    pub interpolation: Option<Interpolation>,

    /// Cut this square from the middle [default: `skipstone.crop`, or the input's side]
    #[arg(long, value_name = "PIXELS", help_heading = "Image options")]
    pub crop: Option<usize>,

    /// The channels: rgb, bgr or gray [default: `skipstone.colors`, or rgb, and gray for one channel]
    #[arg(long, value_name = "NAME", value_parser = parse_colors, help_heading = "Image options")]
    pub colors: Option<Colors>,

    /// Factor of each byte before the mean is subtracted: 1 for values from 0 to 255 [default: `skipstone.scale`, or
    /// 1/255 for values from 0 to 1]
    #[arg(long, value_name = "FACTOR", value_parser = parse_scale, help_heading = "Image options")]
    pub scale: Option<f32>,

    /// Mean of the channels in the model's order, for scaled values; one for all or one for each [default:
    /// `skipstone.mean`, or ImageNet's with a note, or 0 with --scale]
    #[arg(
        long,
        value_name = "R,G,B",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Image options"
    )]
    pub mean: Option<Vec<f32>>,

    /// Standard deviation of the channels [default: `skipstone.std`, or ImageNet's with a note, or 1 with --scale]
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', help_heading = "Image options")]
    pub std: Option<Vec<f32>>,

    /// How the output becomes scores: softmax, sigmoid or none [default: `skipstone.activation`, or derived from the
    /// last operator]
    #[arg(long, value_name = "NAME", value_parser = parse_activation, help_heading = "Image options")]
    pub activation: Option<Activation>,

    /// Number that logits are divided by before softmax or sigmoid: above 1 for a model that is too sure [default:
    /// `skipstone.temperature`, or 1]
    #[arg(long, value_name = "T", value_parser = parse_temperature, help_heading = "Image options")]
    pub temperature: Option<f32>,
}

/// A rule that decides by a table of classes.
#[derive(Args, Clone, Debug)]
pub struct RuleArgs {
    /// Decide by a table of classes, one in each row: `cosine` with class embeddings (zero-shot); the Fréchet mean by
    /// distances between class embeddings (`frechet`), or of a matrix from the model's classes to all (`distances`);
    /// the `hamming` distance to codes, packed bits as u8 or bool
    #[arg(long, value_name = "NAME=FILE.npy", value_parser = parse_rule, help_heading = "Image options")]
    rule: Option<(RuleName, PathBuf)>,
}

/// The names in `--rule`.
#[derive(Clone, Copy, Debug)]
enum RuleName {
    Cosine,
    Frechet,
    Distances,
    Hamming,
}

impl RuleArgs {
    /// The file of the table.
    pub fn file(&self) -> Option<&PathBuf> {
        self.rule.as_ref().map(|(_, path)| path)
    }

    /// Reads the table.
    ///
    /// # Errors
    /// `io`, `input.npy`, `input.table`.
    pub fn rule(&self) -> Result<Option<Arc<Rule>>, Failure> {
        let Some((name, path)) = &self.rule else { return Ok(None) };
        let table = npy::read(path)?;
        let rule = match name {
            RuleName::Cosine => Cosine::new(table).map(Rule::Cosine),
            RuleName::Frechet => Frechet::of_embeddings(table).map(Rule::Frechet),
            RuleName::Distances => Frechet::of_distances(table).map(Rule::Frechet),
            RuleName::Hamming => Hamming::new(&table).map(Rule::Hamming),
        };
        Ok(Some(Arc::new(rule.map_err(|error| Failure::from(error).of(path))?)))
    }
}

impl ImageArgs {
    /// The library's settings.
    pub fn settings(&self) -> Settings {
        Settings {
            mean: self.mean.clone(),
            std: self.std.clone(),
            scale: self.scale,
            colors: self.colors,
            resize: self.resize.and_then(|resize| resize.side),
            fit: self.resize.and_then(|resize| resize.fit),
            interpolation: self.interpolation,
            crop: self.crop,
            activation: self.activation,
            temperature: self.temperature,
            ..Settings::default()
        }
    }

    /// The labels of `--labels`.
    pub fn labels(&self) -> Result<Option<Labels>, Failure> {
        self.labels.as_ref().map(|path| Ok(Labels::parse(&labels::read(path)?))).transpose()
    }
}

/// The value of `--resize`: how, to which length, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resize {
    /// What happens to an image of another aspect ratio.
    pub fit: Option<Fit>,
    /// Length of the shorter side.
    pub side: Option<usize>,
}

/// `256`, `stretch` or `stretch:256`
fn parse_resize(text: &str) -> Result<Resize, String> {
    let expected =
        || "expected a number of pixels, shortest, stretch or letterbox, or both as in stretch:256".to_owned();
    let side = |text: &str| text.parse().map(Some).map_err(|_| expected());
    let fit = |text: &str| text.parse().map(Some).map_err(|_| expected());
    match text.split_once(':') {
        Some((how, pixels)) => Ok(Resize { fit: fit(how)?, side: side(pixels)? }),
        None if text.starts_with(|c: char| c.is_ascii_digit()) => Ok(Resize { fit: None, side: side(text)? }),
        None => Ok(Resize { fit: fit(text)?, side: None }),
    }
}

fn parse_interpolation(name: &str) -> Result<Interpolation, String> {
    name.parse().map_err(|_| "expected bilinear, bicubic, lanczos, box, nearest or linear".into())
}

fn parse_colors(name: &str) -> Result<Colors, String> {
    name.parse().map_err(|_| "expected rgb, bgr or gray".into())
}

/// `0.5`, or a fraction such as `1/127.5`, which a decimal number does not give exactly.
fn parse_scale(text: &str) -> Result<f32, String> {
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| format!("'{text}' is not a number"));
    let factor = match text.split_once('/') {
        Some((above, below)) => number(above)? / number(below)?,
        None => number(text)?,
    };
    if (factor as f32).is_normal() { Ok(factor as f32) } else { Err("expected a factor such as 1 or 1/127.5".into()) }
}

/// `1500000`, `1500k` or `1.5M`
fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || "expected a number of bytes, such as 1500000 or 1.5M".to_owned();
    let units = [("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9)];
    let scaled = units.into_iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let Some((number, scale)) = scaled else { return text.parse().map_err(|_| expected()) };
    let bytes = number.parse::<f64>().ok().map(|number| number * scale).filter(|bytes| (0.0..1e18).contains(bytes));
    bytes.map(|bytes| bytes.round() as u64).ok_or_else(expected)
}

fn parse_temperature(text: &str) -> Result<f32, String> {
    let number = text.trim().parse().ok().filter(|number: &f32| number.is_normal() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0".into())
}

/// `cosine=classes.npy`
fn parse_rule(text: &str) -> Result<(RuleName, PathBuf), String> {
    let expected = || "expected cosine, frechet, distances or hamming, as in cosine=classes.npy".to_owned();
    let (name, file) = text.split_once('=').filter(|(_, file)| !file.is_empty()).ok_or_else(expected)?;
    let name = match name {
        "cosine" => RuleName::Cosine,
        "frechet" => RuleName::Frechet,
        "distances" => RuleName::Distances,
        "hamming" => RuleName::Hamming,
        _ => return Err(expected()),
    };
    Ok((name, file.into()))
}

fn parse_activation(name: &str) -> Result<Activation, String> {
    name.parse().map_err(|_| "expected softmax, sigmoid or none".into())
}

/// Reads a tuning file.
pub fn parse_tuning(path: &str) -> Result<Arc<Tuning>, String> {
    Tuning::open(path).map(Arc::new).map_err(|error| error.to_string())
}

/// Reads a public key file.
fn parse_public_key(path: &str) -> Result<[u8; 32], String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let key = VerifyingKey::from_public_key_pem(&text);
    key.map(|key| key.to_bytes()).map_err(|error| format!("not an Ed25519 public key in PEM: {error}"))
}

/// `NAME=1x3x224x224`; `NAME=` is a scalar.
pub fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.rsplit_once('=').ok_or("expected NAME=1x3x224x224")?;
    if name.is_empty() {
        return Err("the input's name is missing before '='".into());
    }
    if dims.is_empty() {
        return Ok((name.to_owned(), Vec::new()));
    }
    let dims = dims.split('x').map(|dim| dim.parse().map_err(|_| format!("'{dim}' is not a dimension")));
    Ok((name.to_owned(), dims.collect::<Result<_, _>>()?))
}

/// `NAME=0.5`
fn parse_setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.rsplit_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("the setting's name is missing before '='".into());
    }
    let value = match value {
        "true" => true.into(),
        "false" => false.into(),
        file if file.ends_with(".npy") => npy::read(file.as_ref()).map_err(|failure| failure.to_string())?.into(),
        list => {
            let rounded = |text: &str| text.parse::<i64>().is_ok_and(|whole| whole as f64 as i64 != whole);
            let numbers = list.split(',').map(|text| match text.trim() {
                text if rounded(text) => Err(format!("{text} cannot be represented exactly; give a .npy file")),
                text => text.parse().map_err(|_| format!("'{list}' is not a value for a setting")),
            });
            numbers.collect::<Result<Vec<f64>, _>>()?.into()
        }
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let shown = |text: &str| parse_setting(text).map(|(name, value)| format!("{name} {value:?}"));
        assert_eq!(shown("a=true").unwrap(), "a Numbers([1.0])");
        assert_eq!(shown("a=b=-1").unwrap(), "a=b Numbers([-1.0])");
        assert_eq!(shown("a=1, 2").unwrap(), "a Numbers([1.0, 2.0])");
        assert_eq!(shown("a=1,2.5").unwrap(), "a Numbers([1.0, 2.5])");
        for bad in ["a", "=1", "a=", "a=x", "a=1,,2", "a=no.npy", "a=9007199254740993"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resizing_is_read() {
        let read = |text| parse_resize(text).map(|it| (it.fit, it.side));
        assert_eq!(read("256"), Ok((None, Some(256))));
        assert_eq!(read("stretch"), Ok((Some(Fit::Stretch), None)));
        assert_eq!(read("letterbox:320"), Ok((Some(Fit::Letterbox), Some(320))));
        assert_eq!(read("shortest:0"), Ok((Some(Fit::Shortest), Some(0))));
        for bad in ["", "squash", "256:stretch", "stretch:", "-1", "1e3"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_are_read() {
        assert_eq!(parse_bytes("1500000"), Ok(1_500_000));
        assert_eq!(
            (parse_bytes("1.5M"), parse_bytes("3k"), parse_bytes("2G")),
            (Ok(1_500_000), Ok(3000), Ok(2_000_000_000))
        );
        for bad in ["", "M", "-1", "1.5", "1e3", "nanM", "1MB", "1e30G"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scales_are_read() {
        assert_eq!(parse_scale("1/255"), Ok(1.0 / 255.0));
        assert_eq!(parse_scale("0.5"), Ok(0.5));
        for bad in ["", "a", "1/0", "0", "nan", "1/2/3", "1e-60"] {
            assert!(parse_scale(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shapes_are_read() {
        assert_eq!(parse_shape("x=1x3x224x224"), Ok(("x".into(), vec![1, 3, 224, 224])));
        assert_eq!(parse_shape("a=b=7"), Ok(("a=b".into(), vec![7])));
        assert_eq!(parse_shape("x="), Ok(("x".into(), vec![])));
        for bad in ["x", "=1", "x=1x", "x=-1", "x=1,3", "x=99999999999999999999"] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
    }
}

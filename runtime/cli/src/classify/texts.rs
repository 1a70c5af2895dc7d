//! Classifies texts: those of the command line, and the lines of files.
//!
//! A model whose number of tokens is open is planned for one length at a time, so texts run in the order of their
//! lengths; they are reported in the order in which they were given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use skipstone::classify::{Labels, Scorer, Settings};
use skipstone::measure::Latency;
use skipstone::{Model, Session, TensorView};

use super::{Classify, Failed, Rows, Top, milliseconds, tops};
use crate::args::ModelArgs;
use crate::failure::Failure;
use crate::notes::note;
use crate::output::{json, print};
use crate::printable::printable;
use crate::progress::Progress;
use crate::text_model::TextModel;
use crate::tokens::{Encoder, Tokens};
use crate::{files, numbers};

#[derive(Serialize)]
struct Report {
    model: String,
    /// The tokenizer's file, and how many tokens it gives.
    tokenizer: String,
    /// What the scores are, and where that was specified; absent if no text was classified.
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<String>,
    texts: Vec<Classified>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Classified {
    text: String,
    /// Their number, with padding.
    tokens: usize,
    ms: f64,
    top: Vec<Top>,
}

/// A text, and where it is from.
struct Text {
    from: String,
    text: String,
}

/// The classes of a text.
struct Outcome {
    tokens: usize,
    time: Duration,
    top: Vec<Top>,
}

impl Classify {
    /// Classifies every text.
    pub(super) fn classify_texts(
        &self,
        model: &TextModel,
        settings: &Settings,
        labels: Option<Labels>,
    ) -> Result<(), Failure> {
        let texts = self.texts(model)?;
        let encoder = Encoder::open(&self.tokenizer(model)?, model.length())?;
        let encoded: Vec<_> = texts.iter().map(|text| encoder.encode(&text.text)).collect();
        let cut = encoded.iter().flatten().filter(|tokens| tokens.is_cut).count();
        if cut > 0 {
            let texts = if cut == 1 { "text was" } else { "texts were" };
            note(format!("note: {cut} {texts} cut: {}", printable(&encoder.to_string())));
        }

        // The texts of each length, by index.
        let mut lengths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, tokens) in encoded.iter().enumerate() {
            if let Ok(tokens) = tokens {
                lengths.entry(tokens.ids.len()).or_default().push(index);
            }
        }
        let mut outcomes: Vec<_> = encoded.iter().map(|_| None).collect();
        let mut scorer = None;
        let mut progress = Progress::new(texts.len());
        for (&length, indices) in &lengths {
            let planned = Planned::new(&self.model, model, length, settings, labels.clone())?;
            let Planned { model: open, scorer: of_length, mut session } = planned;
            for &index in indices {
                if let Ok(tokens) = &encoded[index] {
                    outcomes[index] = Some(self.text(model, &open, &of_length, &mut session, tokens));
                }
                progress.step();
            }
            scorer = Some(of_length);
        }
        drop(progress);

        let outcomes = encoded.into_iter().zip(outcomes).map(|(tokens, outcome)| match (tokens, outcome) {
            (Err(failure), _) => Err(failure),
            (Ok(_), Some(outcome)) => outcome,
            (Ok(_), None) => Err(Failure::new("internal", "a text was not classified")),
        });
        self.report(&texts, outcomes.collect(), &encoder, scorer.as_ref())
    }

    fn report(
        &self,
        texts: &[Text],
        outcomes: Vec<Result<Outcome, Failure>>,
        encoder: &Encoder,
        scorer: Option<&Scorer>,
    ) -> Result<(), Failure> {
        let no_names = Labels::default();
        let rows = Rows::new(
            texts.iter().map(|text| text.text.chars().count()),
            scorer.map_or(&no_names, Scorer::display_names),
            scorer.is_some_and(Scorer::has_own_scale),
        );
        let mut report = Report {
            model: self.model.name(),
            tokenizer: encoder.to_string(),
            scores: scorer.map(Scorer::meaning),
            texts: Vec::new(),
            failed: Vec::new(),
        };
        let mut times = Vec::new();
        if !self.json {
            print(&rows.title("text"))?;
        }
        for (Text { from, text }, outcome) in texts.iter().zip(outcomes) {
            match outcome {
                Ok(Outcome { tokens, time, top }) => {
                    times.push(time);
                    if self.json {
                        let text = text.clone();
                        report.texts.push(Classified { text, tokens, ms: milliseconds(time), top });
                    } else {
                        print(&rows.row(text, time, &top))?;
                    }
                }
                Err(failure) => {
                    let failure = failure.of(Path::new(from));
                    failure.report();
                    report.failed.push(Failed { file: from.clone(), error: failure.to_string() });
                }
            }
        }
        if self.json {
            print(&json(&report)?)?;
        } else {
            print(&format!("\ntokenizer: {}\n", printable(&report.tokenizer)))?;
            if let Some(scores) = &report.scores {
                print(&format!("scores: {}\n", printable(scores)))?;
            }
            if let (true, Some(latency)) = (texts.len() > 1, Latency::of(&times)) {
                print(&format!("{} texts, {} ms median\n", times.len(), numbers::ms(latency.p50)))?;
            }
        }
        if report.failed.is_empty() { Ok(()) } else { Err(Failure::Reported) }
    }

    fn text(
        &self,
        text_model: &TextModel,
        model: &Model,
        scorer: &Scorer,
        session: &mut Session,
        tokens: &Tokens,
    ) -> Result<Outcome, Failure> {
        let inputs = text_model.inputs(model, tokens)?;
        let views: Vec<TensorView<'_>> = inputs.iter().map(skipstone::Tensor::view).collect();
        self.model.prepare(session)?;
        let began = Instant::now();
        session.run(&views)?;
        let scores = scorer.scores(session)?;
        let time = began.elapsed();
        let top = tops(scorer.rank(&scores, self.top), scorer.display_names());
        Ok(Outcome { tokens: tokens.ids.len(), time, top })
    }

    /// The texts of the command line, and the lines of files.
    fn texts(&self, model: &TextModel) -> Result<Vec<Text>, Failure> {
        let own = self.texts.iter().enumerate();
        let mut texts: Vec<Text> =
            own.map(|(at, text)| Text { from: format!("text {}", at + 1), text: text.clone() }).collect();
        for path in &self.files {
            let not_text = |what: &str| {
                let (path, names) = (path.display(), model.names());
                let reason =
                    format!("{path}: is {what}, but the model takes text (as {names}): give --text, or a file");
                Failure::new("text", format!("{reason} with one on each line"))
            };
            if path.is_dir() {
                return Err(not_text("a directory"));
            }
            let bytes = files::read(path)?;
            if image::guess_format(&bytes).is_ok() {
                return Err(not_text("an image"));
            }
            let lines = String::from_utf8(bytes).map_err(|_| not_text("not UTF-8"))?;
            let lines = lines.strip_prefix('\u{feff}').unwrap_or(&lines).lines().enumerate();
            texts.extend(lines.map(|(at, line)| {
                let from = format!("{}, line {}", path.display(), at + 1);
                Text { from, text: line.to_owned() }
            }));
        }
        if texts.is_empty() { Err(Failure::new("text", "no texts found: the files are empty")) } else { Ok(texts) }
    }

    /// The tokenizer given, or beside the model.
    fn tokenizer(&self, model: &TextModel) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.tokenizer {
            return Ok(path.clone());
        }
        let beside = self.model.path.with_file_name("tokenizer.json");
        if !files::is_stream(&self.model.path) && beside.exists() {
            return Ok(beside);
        }
        let reason = format!("the model takes text (as {}), and has no tokenizer.json beside it", model.names());
        Err(Failure::new("tokenizer", format!("{reason}: give one with --tokenizer")))
    }
}

/// A model for texts of one length.
struct Planned {
    model: Model,
    scorer: Scorer,
    session: Session,
}

impl Planned {
    fn new(
        args: &ModelArgs,
        text: &TextModel,
        length: usize,
        settings: &Settings,
        labels: Option<Labels>,
    ) -> Result<Self, Failure> {
        let mut options = args.options();
        text.bind(length, &mut options.shapes);
        let model = args.open_with(&options)?;
        let scorer = Scorer::new(&model, settings, labels)?;
        let session = model.session()?;
        Ok(Self { model, scorer, session })
    }
}

//! `skipstone run`: runs a model on `.npy` files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use skipstone::{Error, Model, Session, Tensor, TensorView};

use crate::args::ModelArgs;
use crate::batch::Batch;
use crate::expert_budget::ExpertReport;
use crate::failure::Failure;
use crate::files;
use crate::npy;
use crate::output::print;
use crate::table::{Align, Table};

/// Run a model on .npy files and write its outputs as .npy files
#[derive(Args, Debug)]
#[command(after_help = "\
Each output is written to DIR/<output name>.npy; a '/' in a name becomes '_'.
MODEL or one FILE may be `-`, standard input; DIR may be `-`, standard output, if the model has one output.
If NAME or FILE contains '=', the split is chosen so that FILE exists.
A dynamic input takes the shape of its file, unless --shape says otherwise. A package whose file left the batch open
runs once for each image of a batch.
`skipstone inspect MODEL` lists a model's inputs and outputs.

Examples:
  skipstone run model.onnx --input input=image.npy --output-dir out
  skipstone run model.onnx --input tokens=t.npy --input mask=m.npy --output-dir out --threads 4")]
pub struct Run {
    #[command(flatten)]
    model: ModelArgs,

    /// A file for an input of the model; give it once for each input
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = parse_input)]
    inputs: Vec<(String, PathBuf)>,

    /// Directory for the outputs; created if it does not exist
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
}

impl Run {
    /// Runs the model once.
    pub fn execute(self) -> Result<(), Failure> {
        let streams = self.inputs.iter().map(|(_, path)| path.as_path()).chain([self.model.path.as_path()]);
        files::only_one_stream(streams)?;
        let mut given: Vec<(String, Tensor)> = Vec::new();
        for (name, path) in &self.inputs {
            if given.iter().any(|(known, _)| known == name) {
                return Err(Failure::Usage(format!("--input {name} is given twice")));
            }
            given.push((name.clone(), npy::read(path)?));
        }

        let model = self.open(&given)?;
        let views = in_order(&model, &given)?;
        let mut session = model.session()?;
        self.model.prepare(&mut session)?;
        let stacked = Batch::of(&model, &views).map(|batch| batch.run(&model, &mut session, &views)).transpose()?;
        if stacked.is_none() {
            session.run(&views)?;
        }

        if files::is_stream(&self.output_dir) {
            return one(&session);
        }
        std::fs::create_dir_all(&self.output_dir).map_err(|error| Failure::io(&self.output_dir, &error))?;
        let names: Vec<&str> = session.output_names().collect();
        let mut table = Table::untitled([Align::Left, Align::Left, Align::Left]);
        for (index, (name, file)) in names.iter().zip(file_names(&names)).enumerate() {
            let output = stacked.as_ref().map_or_else(|| session.output(index), |all| all.get(index).map(Tensor::view));
            let output = output.ok_or_else(|| Failure::new("internal", format!("output '{name}' was not written")))?;
            let path = self.output_dir.join(file);
            npy::write(&path, &output)?;
            table.row([(*name).to_owned(), output.fact().to_string(), path.display().to_string()]);
        }
        let experts = model.expert_use().map(|it| format!("\n{}", ExpertReport::from(it).table()));
        print(&(table.render("") + &experts.unwrap_or_default()))
    }

    /// Opens the model. Dynamic inputs take the shapes of their files.
    fn open(&self, given: &[(String, Tensor)]) -> Result<Model, Failure> {
        let mut options = self.model.options();
        for (name, tensor) in given {
            options.shapes.entry(name.clone()).or_insert_with(|| tensor.shape().dims().to_vec());
        }
        Ok(self.model.open_with(&options)?)
    }
}

/// Writes the only output of a session to stdout.
fn one(session: &Session) -> Result<(), Failure> {
    match (session.output_names().count(), session.output(0)) {
        (1, Some(output)) => npy::print(&output),
        (count, _) => {
            Err(Failure::Usage(format!("the model has {count} outputs, but standard output is only one file")))
        }
    }
}

/// Matches the given tensors to the model's inputs by name. The session checks types and shapes.
fn in_order<'a>(model: &Model, given: &'a [(String, Tensor)]) -> Result<Vec<TensorView<'a>>, Error> {
    let ports = model.inputs();
    if let Some((name, _)) = given.iter().find(|(name, _)| ports.iter().all(|port| port.name != *name)) {
        let known = ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Error::UnknownInput { name: name.clone(), known });
    }
    ports
        .iter()
        .map(|port| {
            let tensor = given.iter().find(|(name, _)| *name == port.name);
            let missing = || Error::MissingInput { name: port.name.clone(), fact: port.fact.to_string() };
            tensor.map(|(_, tensor)| tensor.view()).ok_or_else(missing)
        })
        .collect()
}

/// `NAME=FILE.npy`
fn parse_input(text: &str) -> Result<(String, PathBuf), String> {
    split_input(text, |file| Path::new(file).exists())
}

/// Splits name and file, either of which may contain `=`, so that the file exists.
fn split_input(text: &str, is_there: impl Fn(&str) -> bool) -> Result<(String, PathBuf), String> {
    let splits = text.match_indices('=').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let mut splits = splits.filter(|(name, file)| !name.is_empty() && !file.is_empty()).peekable();
    let first = splits.peek().copied();
    let found = splits.find(|(_, file)| is_there(file)).or(first);
    found.map(|(name, file)| (name.to_owned(), file.into())).ok_or_else(|| "expected NAME=FILE.npy".into())
}

/// A file name for each output. The names are distinct even on case-insensitive file systems.
fn file_names(outputs: &[&str]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut files = vec![None; outputs.len()];
    // Outputs whose name is a valid file name keep it; others that collide with it are numbered.
    for changed in [false, true] {
        for (file, output) in files.iter_mut().zip(outputs) {
            let stem = file_stem(output);
            if file.is_some() || (stem == *output) == changed {
                continue;
            }
            let numbered = (2..).map(|n: usize| format!("{stem}-{n}"));
            let free = std::iter::once(stem.clone()).chain(numbered).find(|stem| taken.insert(stem.to_lowercase()));
            *file = free.map(|stem| format!("{stem}.npy"));
        }
    }
    files.into_iter().flatten().collect()
}

/// Converts an output's name to a file stem that stays in the directory, is not hidden, and is not too long.
fn file_stem(name: &str) -> String {
    const MAX_BYTES: usize = 200;
    let unfit = |c: char| matches!(c, '/' | '\\') || c.is_control() || (cfg!(windows) && "<>:\"|?*".contains(c));
    let mut stem: String = name.chars().map(|c| if unfit(c) { '_' } else { c }).collect();
    if stem.is_empty() || stem.starts_with('.') {
        stem.insert(0, '_');
    }
    while stem.len() > MAX_BYTES {
        stem.pop();
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_keep_their_names_as_files() {
        assert_eq!(file_names(&["logits", "a/b", "Identity:0"]), ["logits.npy", "a_b.npy", "Identity:0.npy"]);
    }

    #[test]
    fn output_files_stay_in_their_directory() {
        assert_eq!(
            file_names(&["..", "../x", "/etc/passwd", "a\0b\n", "", "."]),
            ["_...npy", "_.._x.npy", "_etc_passwd.npy", "a_b_.npy", "_.npy", "_..npy"]
        );
        assert!(file_stem(&"ü".repeat(1000)).len() <= 200);
    }

    #[test]
    fn distinct_outputs_stay_distinct() {
        assert_eq!(file_names(&["a/b", "a_b", "a\\b"]), ["a_b-2.npy", "a_b.npy", "a_b-3.npy"]);
        assert_eq!(file_names(&["A", "a"]), ["A.npy", "a-2.npy"]);
        assert_eq!(file_names(&["a/b", "a_b-2", "a_b"]), ["a_b-3.npy", "a_b-2.npy", "a_b.npy"]);
    }

    #[test]
    fn inputs_are_named() {
        assert_eq!(parse_input("x=a=b.npy"), Ok(("x".into(), "a=b.npy".into())));
        for bad in ["x", "x=", "=x.npy", ""] {
            assert!(parse_input(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_may_have_an_equals_sign() {
        let split = |there: &'static str| split_input("a=b=c.npy", move |file| file == there).unwrap();
        assert_eq!(split("c.npy"), ("a=b".into(), "c.npy".into()));
        assert_eq!(split("b=c.npy"), ("a".into(), "b=c.npy".into()));
        assert_eq!(split(""), ("a".into(), "b=c.npy".into()));
    }
}

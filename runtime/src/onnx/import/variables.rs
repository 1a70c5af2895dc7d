//! Variables: inputs that the file's metadata assigns to the session instead of the caller.
//!
//! ```text
//! skipstone.settings   threshold, depth            inputs with an initializer, which is their default value
//! skipstone.state      hn -> h0, cn -> c0          inputs that are replaced by outputs after every run
//! ```
//!
//! In ONNX Runtime the same inputs may be fed, and state must be. Values decided only by settings and constants are
//! tracked, so that an error can name a setting that would decide a shape.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use skipstone_onnx::proto::{Graph as GraphProto, Model, Node};

use super::build::Halt;
use super::{Binding, Importer, call, input_fact, tensor};
use crate::error::{Error, Fault, ModelFault, Result};
use crate::graph::Variable;
use crate::info::Shapes;
use crate::operator::Semantics;
use crate::ops::cast::Cast;
use crate::reserve;

/// Names of settings, separated by commas.
const SETTINGS: &str = "skipstone.settings";

/// Pairs `output -> input`, separated by commas.
const STATE: &str = "skipstone.state";

/// The metadata's declarations on inputs.
#[derive(Default)]
pub(super) struct Declared<'m> {
    settings: HashSet<&'m str>,
    /// For each input, the position of the output that replaces it.
    state: HashMap<&'m str, usize>,
}

fn refused(key: &str, reason: &str) -> Error {
    Error::Invalid { fault: Fault::Model(ModelFault::Metadata), message: format!("{key}: {reason}") }
}

impl<'m> Declared<'m> {
    /// Reads the metadata.
    ///
    /// # Errors
    /// `model.metadata` for names that the graph does not have, and for duplicates.
    pub fn read(model: &Model<'m>) -> Result<Self> {
        let mut declared = Self::default();
        let Some(graph) = &model.graph else { return Ok(declared) };
        let dense = graph.initializers.iter().map(|tensor| tensor.name);
        let sparse = graph.sparse_initializers.iter().map(|sparse| sparse.values.name);
        let initialized = reserve::set(dense.chain(sparse))?;
        let inputs = reserve::set(graph.inputs.iter().map(|info| info.name))?;
        let outputs = reserve::map(graph.outputs.iter().map(|info| info.name).zip(0..))?;
        let entries = |key: &'static str| {
            let texts = model.metadata.iter().filter(move |(known, _)| *known == key).map(|(_, text)| *text);
            texts.flat_map(|text| text.split(',')).map(str::trim).filter(|entry| !entry.is_empty())
        };
        for name in entries(SETTINGS) {
            if !inputs.contains(name) || !initialized.contains(name) {
                let reason = format!("'{name}' must be an input of the graph with an initializer");
                return Err(refused(SETTINGS, &reason));
            }
            if !reserve::add(&mut declared.settings, name)? {
                return Err(refused(SETTINGS, &format!("'{name}' is listed twice")));
            }
        }
        for entry in entries(STATE) {
            let pair = entry.split_once("->").map(|(output, input)| (output.trim(), input.trim()));
            let (output, input) =
                pair.ok_or_else(|| refused(STATE, &format!("'{entry}' is not a pair 'output -> input'")))?;
            if !inputs.contains(input) {
                return Err(refused(STATE, &format!("the graph has no input '{input}'")));
            }
            let Some(&output) = outputs.get(output) else {
                return Err(refused(STATE, &format!("the graph has no output '{output}'")));
            };
            if declared.settings.contains(input) || reserve::insert(&mut declared.state, input, output)?.is_some() {
                return Err(refused(STATE, &format!("'{input}' is listed twice")));
            }
        }
        Ok(declared)
    }

    /// Whether the model declares settings or state.
    pub fn any(&self) -> bool {
        !self.settings.is_empty() || !self.state.is_empty()
    }

    /// Whether the output at a position replaces state.
    pub fn carries(&self, output: usize) -> bool {
        self.state.values().any(|next| *next == output)
    }

    /// Whether the session holds this input.
    pub fn contains(&self, input: &str) -> bool {
        self.settings.contains(input) || self.state.contains_key(input)
    }
}

impl<'m> Importer<'m> {
    /// Adds the inputs that the session holds, after those of the caller.
    pub(super) fn variables(
        &mut self,
        graph: &'m GraphProto<'m>,
        declared: &Declared<'_>,
        shapes: &Shapes,
    ) -> Result<(), Halt> {
        for info in graph.inputs.iter().filter(|info| declared.contains(info.name)) {
            let initial = match self.scopes.last().and_then(|scope| scope.names.get(info.name)) {
                Some(&Binding::Initializer(of)) => Some(tensor::dense(of, self.files)?),
                Some(&Binding::Sparse(of)) => Some(tensor::sparse(of, self.files)?),
                Some(Binding::Value(_)) | None => None,
            };
            let initial = initial.map(|tensor::FileTensor { tensor, declared }| match declared {
                // It is given in the file's type.
                Some(to) => {
                    Cast { to }.evaluate(&[&tensor]).map(|mut cast| cast.remove(0)).map_err(|e| e.at(info.name))
                }
                None => Ok(tensor),
            });
            let initial = initial.transpose()?;
            let fact = match &initial {
                Some(tensor) => tensor.fact().clone(),
                None => input_fact(info, shapes)?,
            };
            let value = self.input(info, fact)?;
            if !declared.state.contains_key(info.name) {
                self.build.mark_setting(value, info.name)?;
            }
            let next = declared.state.get(info.name).copied();
            let variable = Variable { initial: initial.map(Arc::new), next };
            reserve::push(&mut self.build.graph.variables, variable)?;
        }
        Ok(())
    }

    /// A halt because of data that is only known at run time becomes an error for the setting, if a setting decides
    /// that data.
    pub(super) fn name_setting(&mut self, node: &Node<'m>, halt: Halt) -> Halt {
        let Halt::Dynamic(reason) = &halt else { return halt };
        let setting = node.inputs.iter().find_map(|name| {
            let id = self.value(name).ok()?;
            self.build.setting(id).cloned()
        });
        let Some(setting) = setting else { return halt };
        let reason = format!("the setting '{setting}' must not decide a shape: {reason}");
        Halt::Error(Error::Unsupported { node: call::name(node).to_owned(), reason })
    }

    /// Checks that state has the type and shape of the outputs that replace it.
    pub(super) fn check_state(&self) -> Result<()> {
        let graph = &self.build.graph;
        let given = graph.inputs.len() - graph.variables.len();
        for (&id, variable) in graph.inputs[given..].iter().zip(&graph.variables) {
            let Some((output, next)) = variable.next.and_then(|next| graph.outputs.get(next)) else { continue };
            let (input, from, to) = (&graph.value(id).name, graph.fact(*next), graph.fact(id));
            if from != to {
                return Err(refused(STATE, &format!("the output '{output}' is {from}, the input '{input}' {to}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

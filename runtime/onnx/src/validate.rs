//! Validates the bytes of a model before any other parser reads them.
//!
//! Later parsers trust their input: they recurse as deep as a file nests, allocate as much as a
//! shape says, and assume that names resolve. Validation comes first, in time linear in the size
//! of the file and without copying weights. It covers the wire format
//! ([`decode`](crate::decode)), tensors and types ([`tensor`]), names, order and cycles
//! ([`graph`]), the attributes and signatures of nodes, and the rules of each operator that can be
//! checked before a run ([`operators`]). An error says what is wrong, where, and what to do
//! ([`Invalid`]); [`Checked`] summarizes a valid model.

mod attention;
mod attributes;
mod call;
mod checked;
mod control;
mod functions;
mod generated;
mod graph;
mod indexing;
mod known;
pub mod node;
mod operators;
mod quantization;
mod recurrent;
mod schema;
mod scope;
mod shaping;
mod sizes;
mod tensor;
mod windows;

#[cfg(test)]
mod tests;

pub use attributes::is_standard;
pub use checked::{Checked, Dimension, ExternalTensor, ValueFact, ValueType};

use std::collections::{HashMap, HashSet};

use crate::decode;
use crate::invalid::{Invalid, Place, Rule, quoted};
use crate::limits::Limits;
use crate::proto::{Graph, Model, OpsetImport, ValueInfo};
use crate::reserve::{self, NoMemory};
use graph::{Body, Walker};

/// Newest supported version of the file format.
const MAX_IR_VERSION: i64 = 13;
/// Known operator domains. Whether the runtime can run an operator of these domains is checked
/// later.
const KNOWN_DOMAINS: [&str; 6] =
    ["", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training", "com.microsoft"];

/// Checks the bytes of an ONNX model, like [`read`], and drops the decoded messages.
///
/// # Errors
/// [`Invalid`] for the first rule that the model breaks.
pub fn validate(bytes: &[u8], limits: &Limits) -> Result<Checked, Invalid> {
    read(bytes, limits).map(|(_, checked)| checked)
}

/// Decodes and checks the bytes of an ONNX model.
///
/// External data is listed in the result, but its files are not inspected: see
/// [`resolve`](super::external::resolve).
///
/// # Errors
/// [`Invalid`] for the first rule that the model breaks.
pub fn read<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Model<'a>, Checked), Invalid> {
    let invalid = |rule, what: &str| Err(Invalid::new(rule, Place::Model, what));
    if bytes.is_empty() {
        return invalid(Rule::Empty, "the model has no bytes");
    }
    limits.check_file_size(bytes.len() as u64)?;
    let model = decode::decode(bytes, limits)?;

    let ir_version = match model.ir_version {
        Some(version @ 1..=MAX_IR_VERSION) => version,
        Some(version) => return invalid(Rule::IrVersion, &format!("version {version} of the file format is unknown")),
        None => return invalid(Rule::IrVersion, "the version of the file format is missing"),
    };
    let opsets = check_opsets(&model.opset_imports, limits, &Place::Model)?;
    let mut checked = Checked {
        ir_version,
        opsets: opsets.iter().map(|(domain, version)| ((*domain).to_owned(), *version)).collect(),
        metadata: reserve::results(
            model.metadata.iter().map(|(key, value)| Ok::<_, NoMemory>((reserve::text(key)?, reserve::text(value)?))),
        )?,
        functions: model.functions.len(),
        ..Checked::default()
    };

    let Some(main) = &model.graph else {
        return invalid(Rule::NoGraph, "the model has no graph");
    };
    if main.nodes.is_empty() {
        return invalid(Rule::NoGraph, "the graph has no nodes");
    }
    if main.outputs.is_empty() {
        return invalid(Rule::NoGraph, "the graph has no outputs");
    }
    check_interface(main, limits)?;
    check_bodies(&model, main, opsets, limits, &mut checked)?;

    let mut initializers = HashSet::new();
    for tensor in &main.initializers {
        reserve::add(&mut initializers, tensor.name)?;
    }
    let fact = |info: &ValueInfo<'_>, initialized| {
        Ok::<_, NoMemory>(ValueFact {
            name: reserve::text(info.name)?,
            kind: tensor::describe(info.kind.as_ref()),
            initialized,
        })
    };
    checked.inputs = reserve::results(main.inputs.iter().map(|info| fact(info, initializers.contains(info.name))))?;
    checked.outputs = reserve::results(main.outputs.iter().map(|info| fact(info, false)))?;
    Ok((model, checked))
}

/// Checks the main graph and the body of every function.
fn check_bodies<'m>(
    model: &'m Model<'m>,
    main: &'m Graph<'m>,
    opsets: HashMap<&'m str, i64>,
    limits: &Limits,
    checked: &mut Checked,
) -> Result<(), Invalid> {
    let functions = functions::Functions::new(model, main, limits)?;
    Walker::new(limits, &functions, opsets, checked).walk(&Body::of_graph(main, false)?, None)?;
    for function in &model.functions {
        let opsets = check_opsets(&function.opset_imports, limits, &functions::place(function))?;
        Walker::new(limits, &functions, opsets, checked).walk(&Body::of_function(function)?, None)?;
    }
    Ok(())
}

/// Checks the imported opsets and returns their versions by domain; ai.onnx is the empty string.
fn check_opsets<'m>(
    imports: &'m [OpsetImport<'m>],
    limits: &Limits,
    place: &Place,
) -> Result<HashMap<&'m str, i64>, Invalid> {
    let invalid = |what: String| Invalid::new(Rule::Opset, place.clone(), what);
    let mut opsets = HashMap::new();
    for import in imports {
        let domain = if is_standard(import.domain) { "" } else { import.domain };
        let shown = if domain.is_empty() { "ai.onnx".into() } else { quoted(domain) };
        let version = import.version.ok_or_else(|| invalid(format!("the opset of {shown} has no version")))?;
        if reserve::insert(&mut opsets, domain, version)?.is_some_and(|other| other != version) {
            return Err(invalid(format!("the opset of {shown} is imported in two versions")));
        }
        let known = if domain.is_empty() { limits.min_opset..=limits.max_opset } else { 1..=i64::from(i32::MAX) };
        if !known.contains(&version) {
            let (from, to) = known.into_inner();
            return Err(invalid(format!("opset {version} of {shown} is not supported, only {from} to {to}")));
        }
    }
    if opsets.is_empty() {
        return Err(invalid("no opset is imported".into()));
    }
    Ok(opsets)
}

/// Checks that each input of the main graph has a type, that the types of outputs are valid, and
/// that no output is listed twice.
fn check_interface(main: &Graph<'_>, limits: &Limits) -> Result<(), Invalid> {
    let mut outputs = HashSet::new();
    for (info, is_output) in
        main.inputs.iter().map(|info| (info, false)).chain(main.outputs.iter().map(|info| (info, true)))
    {
        let place = Place::Value(quoted(info.name));
        match &info.kind {
            Some(kind) => tensor::check_type(kind, !is_output, limits, &place)?,
            None if is_output => {}
            None => return Err(Invalid::new(Rule::DataType, place, "the input has no type")),
        }
        if is_output && !reserve::add(&mut outputs, info.name)? {
            return Err(Invalid::new(Rule::DuplicateValue, place, "the graph lists this output twice"));
        }
    }
    Ok(())
}

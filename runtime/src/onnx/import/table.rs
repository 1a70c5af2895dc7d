//! The operators and their importers: every family lists its own, and this is the list of families.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::build::Imported;
use super::call::Call;
use super::{
    activation, attention, convolution, determinant, distance, elementwise, experts, index, loss, ml, ngrams, nibbles,
};
use super::{
    normalization, pad, pool, product, quantization, quantized, rearrange, recurrent, reduce, resize, sampling,
};
use super::{selection, sequence, signal, structure, svm, trees, volume};
use crate::reserve::{self, NoMemory};

/// Adds the nodes for an ONNX node, and returns its results.
pub(super) type Importer = fn(&mut Call<'_, '_>) -> Imported;

/// Operators of a domain that share an importer.
pub(super) struct Entry {
    /// `ai.onnx` is the empty domain.
    domain: &'static str,
    names: &'static [&'static str],
    importer: Importer,
}

/// Operators of ai.onnx.
pub(super) const fn standard(names: &'static [&'static str], importer: Importer) -> Entry {
    Entry { domain: "", names, importer }
}

/// Operators of com.microsoft, which ONNX Runtime's tools write.
pub(super) const fn microsoft(names: &'static [&'static str], importer: Importer) -> Entry {
    Entry { domain: "com.microsoft", names, importer }
}

/// Operators of ai.onnx.ml.
pub(super) const fn classical(names: &'static [&'static str], importer: Importer) -> Entry {
    Entry { domain: ML, names, importer }
}

const ML: &str = "ai.onnx.ml";

const FAMILIES: &[&[Entry]] = &[
    structure::OPERATORS,
    pad::OPERATORS,
    elementwise::OPERATORS,
    activation::OPERATORS,
    convolution::OPERATORS,
    product::OPERATORS,
    normalization::OPERATORS,
    pool::OPERATORS,
    reduce::OPERATORS,
    index::OPERATORS,
    quantization::OPERATORS,
    quantized::OPERATORS,
    resize::OPERATORS,
    volume::OPERATORS,
    recurrent::OPERATORS,
    attention::OPERATORS,
    experts::OPERATORS,
    nibbles::OPERATORS,
    rearrange::OPERATORS,
    selection::OPERATORS,
    sampling::OPERATORS,
    signal::OPERATORS,
    sequence::OPERATORS,
    determinant::OPERATORS,
    distance::OPERATORS,
    loss::OPERATORS,
    ngrams::OPERATORS,
    trees::OPERATORS,
    ml::OPERATORS,
    svm::OPERATORS,
];

/// The importer of an operator; `ai.onnx` is the empty domain.
///
/// # Errors
/// No memory for the table, in which every node of a file is looked up.
pub(super) fn importer(domain: &str, op_type: &str) -> Result<Option<Importer>, NoMemory> {
    static IMPORTERS: OnceLock<HashMap<(&str, &str), Importer>> = OnceLock::new();
    let entries = FAMILIES.iter().copied().flatten();
    let entries = entries.flat_map(|entry| entry.names.iter().map(|&name| ((entry.domain, name), entry.importer)));
    let found = reserve::once(&IMPORTERS, || reserve::map(entries))?.get(&(domain, op_type)).copied();
    // Of ai.onnx.ml nothing is left to the fallback, because it computes different values.
    Ok(found.or((domain == ML).then_some(ml::refused)))
}

/// What decides whether a result is half precision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TypeOf {
    /// The first operand that is a float.
    FirstFloat,
    /// This operand.
    Operand(usize),
    /// The operator itself.
    Operator,
}

/// What decides whether result `index` of an operator is half precision: operands of different precision may be mixed.
pub(super) fn type_of(op_type: &str, index: usize) -> TypeOf {
    match (op_type, index) {
        ("Cast" | "CastLike" | "Range" | "OneHot" | "EyeLike" | "ConstantOfShape", _) => TypeOf::Operator,
        ("QuantizeLinear" | "MelWeightMatrix", _) => TypeOf::Operator,
        // Statistics are computed in f32.
        ("LayerNormalization", 1..) => TypeOf::Operator,
        ("BatchNormalization", 1..) => TypeOf::Operand(3),
        ("LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization", _) => TypeOf::Operand(1),
        _ => TypeOf::FirstFloat,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_operator_has_one_importer() {
        let mut known = HashSet::new();
        for entry in FAMILIES.iter().copied().flatten() {
            for name in entry.names {
                assert!(known.insert((entry.domain, name)), "{name} stands twice");
            }
        }
    }
}

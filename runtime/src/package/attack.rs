//! Attacks on packages for tests: change a section, hash everything again as an attacker would, open and run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::container::{Container, Kind, write};
use super::*;
use crate::limits::Limits;
use crate::model::Model;
use crate::ops::check::{Random, assert_close};
use crate::options::Options;
use crate::tensor::{Tensor, TensorView};

/// The number of attacks that a test makes: a twentieth under an emulator, which is slow and would find the same.
pub(crate) fn attacks(count: u32) -> u32 {
    if std::env::var_os("SKIPSTONE_EMULATED").is_some() { count.div_ceil(20) } else { count }
}

/// The sections of a package, separately.
#[derive(Clone)]
pub(crate) struct Sections {
    pub graph: Vec<u8>,
    pub info: Vec<u8>,
    pub weights: Vec<u8>,
}

/// A change of a section: position (modulo its length), a byte, and the kind of change.
pub(crate) type Edit = (usize, u8, u8);

impl Sections {
    pub fn of(package: &[u8]) -> Self {
        let bytes = Bytes::copy_of(package).unwrap();
        let container = Container::read(&bytes, None).unwrap();
        let [graph, info, weights] =
            [Kind::Graph, Kind::Info, Kind::Weights].map(|kind| container.section(kind).unwrap().to_vec());
        Self { graph, info, weights }
    }

    /// The package of these sections, with correct hashes.
    pub fn package(&self) -> Vec<u8> {
        write(&[(Kind::Graph, &self.graph), (Kind::Info, &self.info), (Kind::Weights, &self.weights)], None).unwrap()
    }
}

/// Changes a section.
pub(crate) fn edit(section: &mut Vec<u8>, edits: &[Edit]) {
    for &(at, byte, what) in edits {
        if section.is_empty() {
            return;
        }
        let at = at % section.len();
        match what % 4 {
            0 => section[at] = byte,
            1 => section[at] ^= 1 << (byte % 8),
            2 => drop(section.drain(at..=at)),
            _ => section.insert(at, byte),
        }
    }
}

/// Opens a package and runs it, if it is valid: must not panic, whatever the outcome.
#[must_use]
pub(crate) fn opens_without_panic(package: &[u8]) -> bool {
    let attempt = || {
        // A graph that grew too large for a test is refused by its limits.
        let Ok(model) = Model::from_bytes(package, &Options::default().limits(limits())) else { return };
        let Ok(mut session) = model.session() else { return };
        // A loop may be endless.
        session.set_deadline(Some(Duration::from_secs(1)));
        let inputs: Vec<Tensor> = model.inputs().iter().map(|port| Tensor::zeros(port.fact.clone())).collect();
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        // An error is fine.
        let _ = session.run(&views);
    };
    catch_unwind(AssertUnwindSafe(attempt)).is_ok()
}

/// Small limits, so that large graphs are refused and nothing is skipped.
pub(crate) fn limits() -> Limits {
    Limits { memory_bytes: 1 << 27, run_work: 1 << 25, ..Limits::default() }
}

/// Opens a package and compares its results to the plain evaluation of its graph; returns whether it could be opened.
///
/// # Panics
/// If they differ, or if it runs what the plain evaluation refuses.
pub(crate) fn agrees(package: &[u8], limits: &Limits) -> bool {
    let Ok(model) = Model::from_bytes(package, &Options::default().limits(limits.clone())) else { return false };
    let graph = super::Package::read(&Bytes::copy_of(package).unwrap(), None).unwrap().graphs.remove(0).graph;
    let mut random = Random(package.len() as u64);
    let facts = model.inputs().iter().map(|port| port.fact.clone());
    let inputs: Vec<Tensor> = facts.map(|fact| random.tensor(fact.dtype, &fact.shape)).collect();
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let mut session = model.session().unwrap();
    if session.run(&views).is_err() {
        return true;
    }
    let want = graph.evaluate(&inputs).unwrap();
    for (index, want) in want.iter().enumerate() {
        let got = session.output(index).unwrap().to_tensor();
        assert_close(&got, want, 1e-4, &format!("output {index} of {:?}", graph.nodes));
    }
    true
}

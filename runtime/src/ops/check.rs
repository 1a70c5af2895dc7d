//! Shared by the operators' tests: random tensors, and the comparison of a plan with the plain evaluation on every
//! instruction set of this CPU.

use skipstone_kernels::Isa;

use super::Op;
use super::number::Number;
use crate::error::OpError;
use crate::graph::Graph;
use crate::operator::{Operator, Semantics};
use crate::package::attack::{Edit, Sections, attacks, edit, opens_without_panic};
use crate::tensor::{DType, Fact, Shape, Tensor};
use crate::{Info, Model, Options, package};

/// A small generator (SplitMix64), so that tests are the same in every run.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// A float in -4..4.
    pub fn float(&mut self) -> f32 {
        (self.next() % (1 << 20)) as f32 / (1 << 17) as f32 - 4.0
    }

    /// One of `from`.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// A tensor of small values: floats in -4..4, integers in -9..10 (0..10 if unsigned).
    pub fn tensor(&mut self, dtype: DType, dims: &[usize]) -> Tensor {
        let count: usize = dims.iter().product();
        let fact = Fact::new(dtype, Shape::new(dims).unwrap());
        if dtype == DType::Bool {
            let bytes: Vec<u8> = (0..count).map(|_| (self.next() & 1) as u8).collect();
            return Tensor::from_bytes(fact, &bytes).unwrap();
        }
        super::number::by_number!(dtype, T => {
            let unsigned = T::LOWEST == T::ZERO;
            let elements: Vec<T> = (0..count)
                .map(|_| match (T::FLOAT, unsigned) {
                    (true, _) => T::from_f64(f64::from(self.float())),
                    (false, true) => T::from_i128((self.next() % 10) as i128),
                    (false, false) => T::from_i128((self.next() % 19) as i128 - 9),
                })
                .collect();
            Tensor::from_slice(dims, &elements).unwrap()
        }, else unreachable!())
    }

    /// A tensor of floats.
    pub fn floats(&mut self, dims: &[usize]) -> Tensor {
        self.tensor(DType::F32, dims)
    }

    /// Dimensions around vector widths and their remainders.
    pub fn dims(&mut self, rank: usize) -> Vec<usize> {
        (0..rank).map(|_| self.pick(&[1, 2, 3, 5, 8, 17, 33])).collect()
    }
}

/// A graph with the one node `op`; the operands listed in `constant` are constants of the graph.
pub(crate) fn single(op: impl Into<Op>, inputs: &[Tensor], constant: &[usize]) -> Graph {
    let mut graph = Graph::new();
    let ids: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| match constant.contains(&i) {
            true => graph.add_constant(format!("c{i}"), t.clone()).unwrap(),
            false => graph.add_input(format!("x{i}"), t.fact().clone()).unwrap(),
        })
        .collect();
    let outputs = graph.add_node("node", op, &ids).unwrap();
    graph.outputs = outputs.into_iter().enumerate().map(|(i, id)| (format!("y{i}"), id)).collect();
    graph
}

/// Runs `graph` planned for `isa`, with the passes.
pub(crate) fn planned(graph: &Graph, isa: Isa, inputs: &[Tensor]) -> crate::Result<Vec<Tensor>> {
    let options = Options { isa: Some(isa), ..Options::default() };
    outputs(&Model::from_graph(graph.copy().unwrap(), &options)?, inputs)
}

/// Runs `graph` planned for `isa`, without passes.
pub(crate) fn planned_as_it_is(graph: &Graph, isa: Isa, inputs: &[Tensor]) -> crate::Result<Vec<Tensor>> {
    let options = Options { isa: Some(isa), ..Options::default() };
    outputs(&Model::of_optimized(graph.copy().unwrap(), &options)?, inputs)
}

/// Runs `model`.
fn outputs(model: &Model, inputs: &[Tensor]) -> crate::Result<Vec<Tensor>> {
    let mut session = model.session()?;
    let views: Vec<_> = inputs.iter().map(Tensor::view).collect();
    session.run(&views)?;
    Ok((0..model.outputs().len()).map(|i| session.output(i).unwrap().to_tensor()).collect())
}

/// Compares the plan of the one node `op` with its evaluation, on every instruction set: floats within `tolerance` of
/// the larger of 1 and the value, everything else bit by bit. Returns the evaluation's results.
#[track_caller]
pub(crate) fn check(op: impl Into<Op>, inputs: &[Tensor], tolerance: f64) -> Vec<Tensor> {
    let op = op.into();
    let operands: Vec<&Tensor> = inputs.iter().collect();
    let want = op.evaluate(&operands).unwrap();
    let facts: Vec<&Fact> = inputs.iter().map(Tensor::fact).collect();
    let inferred = op.infer(&facts).unwrap();
    let held: Vec<Fact> = want.iter().map(|t| t.fact().clone()).collect();
    assert_eq!(inferred, held, "{op:?}: the shape rule and the evaluation differ on {facts:?}");
    let graph = single(op.clone(), inputs, &[]);
    for isa in Isa::available() {
        let got = planned(&graph, isa, inputs).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert_close(got, want, tolerance, &format!("{op:?} on {facts:?} with {isa}"));
        }
    }
    check_package(graph, inputs);
    want
}

/// Compares a package of `graph` with the plan, and damages it in ways that hashes do not detect.
#[track_caller]
pub(crate) fn check_package(mut graph: Graph, inputs: &[Tensor]) {
    let isa = Isa::detect();
    let want = planned(&graph, isa, inputs).unwrap();
    crate::graph::optimize(&mut graph).unwrap();
    let package = package::write(&graph, &Info::default(), None, None).unwrap();
    let got = outputs(&Model::from_bytes(&package, &Options::default()).unwrap(), inputs).unwrap();
    for (got, want) in got.iter().zip(&want) {
        assert_eq!((got.fact(), got.bytes()), (want.fact(), want.bytes()), "from a package");
    }
    let whole = Sections::of(&package);
    let mut random = Random(package.len() as u64);
    for _ in 0..attacks(20) {
        let mut sections = whole.clone();
        let edits: Vec<Edit> = (0..1 + random.below(3))
            .map(|_| (random.below(1 << 20), random.next() as u8, random.next() as u8))
            .collect();
        edit(&mut sections.graph, &edits);
        assert!(opens_without_panic(&sections.package()), "a panic after {edits:?} in a package of {:?}", graph.nodes);
    }
}

/// Expects an error from the one node `op`, both planned and evaluated.
#[track_caller]
pub(crate) fn check_fails(op: impl Into<Op>, inputs: &[Tensor]) {
    let op = op.into();
    let operands: Vec<&Tensor> = inputs.iter().collect();
    assert!(matches!(op.evaluate(&operands), Err(OpError::Value(_))), "{op:?} evaluates");
    let graph = single(op.clone(), inputs, &[]);
    for isa in Isa::available() {
        assert!(planned(&graph, isa, inputs).is_err(), "{op:?} runs with {isa}");
    }
}

/// Panics unless two tensors agree.
#[track_caller]
pub(crate) fn assert_close(got: &Tensor, want: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(got.fact(), want.fact(), "{what}");
    if !super::number::is_float(want.dtype()) || want.bytes().is_empty() {
        assert_eq!(got.bytes(), want.bytes(), "{what}");
        return;
    }
    super::number::by_number!(want.dtype(), T => {
        let (got, want) = (got.elements::<T>().unwrap(), want.elements::<T>().unwrap());
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let (g, w) = (g.to_f64(), w.to_f64());
            let close = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance * w.abs().max(1.0);
            assert!(close, "{what}: element {i} is {g}, not {w}");
        }
    }, else ())
}

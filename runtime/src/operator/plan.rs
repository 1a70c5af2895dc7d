//! The inputs of [`Operator::plan`](super::Operator::plan) and [`Operator::bind`](super::Operator::bind), and the
//! choice that a plan keeps.

use std::cell::RefCell;

use skipstone_kernels::Isa;
use skipstone_kernels::arena::{AlignedVec, Slab};
use skipstone_kernels::gemm::Weights;

use super::Candidates;
use crate::bytes::Bytes;
use crate::error::{Error, Fault, OpError, PackageFault};
use crate::options::{Memory, Precision};
use crate::tensor::{Element, Fact, Peek, Tensor};
use crate::tuning::Tuning;

/// The input of [`Operator::plan`](super::Operator::plan).
pub struct PlanContext<'a> {
    /// Facts of the inputs.
    pub inputs: Vec<&'a Fact>,
    /// Facts of the results.
    pub outputs: Vec<&'a Fact>,
    /// Data of those inputs that are constants.
    pub constants: Vec<Option<&'a Tensor>>,
    /// A package's packed weights for this step, instead of their data.
    pub packing: Option<&'a Packing>,
    /// Measured times of kernels, if they decide the choice.
    pub tuning: Option<&'a Tuning>,
    /// Receives packed weights.
    pub slab: &'a RefCell<Slab>,
    /// Instruction set to choose for.
    pub isa: Isa,
    /// The memory policy.
    pub memory: Memory,
    /// The storage format of the weights.
    pub precision: Precision,
    /// Number of threads that will run the plan.
    pub threads: usize,
}

impl<'a> PlanContext<'a> {
    /// The storage format of a product's weights.
    pub(crate) fn weights(&self) -> Weights {
        match self.precision {
            Precision::F32 => Weights::F32,
            Precision::F16 => Weights::F16,
        }
    }

    /// Whether input `position` is a constant, packed or not.
    pub(crate) fn is_constant(&self, position: usize) -> bool {
        let packed = self.packing.is_some_and(|packing| packing.absorbed.contains(&position));
        packed || self.constants.get(position).is_some_and(Option::is_some)
    }

    /// The elements of input `position`, a constant.
    pub(crate) fn constant<T: Element>(&self, position: usize) -> Result<&'a [T], OpError> {
        let tensor = self.constants.get(position).copied().flatten().ok_or(OpError::Operand(position))?;
        tensor.align()?;
        tensor.elements().ok_or(OpError::Operand(position))
    }

    /// The elements of input `position`, a constant, aligned or not.
    pub(crate) fn peek<T: Element>(&self, position: usize) -> Result<Peek<'a, T>, OpError> {
        let tensor = self.constants.get(position).copied().flatten();
        tensor.and_then(Tensor::peek).ok_or(OpError::Operand(position))
    }

    /// Zeroed memory for packed weights.
    pub(crate) fn allocate(&self, len: usize) -> Result<AlignedVec<u8>, OpError> {
        self.slab.borrow_mut().try_zeroed(len).ok_or_else(|| OpError::no_memory(len))
    }

    /// The packed constant `role` of `len` bytes: written from the weights by `write`, or taken from a package.
    pub(crate) fn pack(
        &self,
        role: usize,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), OpError>,
    ) -> Result<Bytes, OpError> {
        let Some(packing) = self.packing else {
            let mut bytes = self.allocate(len)?;
            write(&mut bytes)?;
            return Ok(bytes.into());
        };
        let held = packing.packed.get(role).filter(|bytes| bytes.len() == len);
        held.cloned().ok_or_else(|| OpError::Value(format!("no packed weights of {len} bytes in the package")))
    }
}

/// The weights of a step in a kernel's layout, as a package holds them.
#[derive(Clone)]
pub struct Packing {
    /// As [`Choice::form`].
    pub form: String,
    /// As [`Choice::packed`].
    pub packed: Vec<Bytes>,
    /// As [`Choice::absorbed`].
    pub absorbed: Vec<usize>,
}

impl Packing {
    /// Refuses the choice of a kernel that reads another layout.
    pub(crate) fn check(&self, choice: &Choice, node: &str) -> Result<(), Error> {
        let same = choice.form.as_ref() == Some(&self.form) && choice.packed.len() == self.packed.len();
        if same && choice.absorbed == self.absorbed {
            return Ok(());
        }
        Err(Error::Invalid {
            fault: Fault::Package(PackageFault::Target),
            message: format!(
                "node '{node}' was packed for {}, this version would run {}; compile the package again",
                self.form, choice.kernel
            ),
        })
    }
}

/// The density of a weight matrix in blocks: the shares of nonzero weights, row by row. Blocks of the same outputs are in
/// a row, those of the same inputs in a column.
#[cfg(any(feature = "passes", test))]
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// Blocks in a row.
    pub columns: usize,
    /// From 0 to 1.
    pub density: Vec<f32>,
}

/// Zeros among the weights of a convolution or product.
#[derive(Clone, Debug)]
pub struct Zeros {
    /// The share of the weights that are zero.
    pub share: f64,
    /// Modeled time of the best dense kernel divided by that of the best sparse one; 0 if there is none.
    pub gain: f64,
    /// Where they are.
    #[cfg(any(feature = "passes", test))]
    pub pattern: Option<Pattern>,
}

/// A kernel chosen for a step, with its data: plain data.
#[derive(Clone, Default)]
pub struct Choice {
    /// Name in the kernel family's table, as printed.
    pub kernel: String,
    /// The zeros among the weights; `None` if there are none, or if they were packed before.
    pub zeros: Option<Zeros>,
    /// The candidates; empty if there was no choice, or if there is no tuning.
    pub candidates: Candidates,
    /// Constants in the kernel's packed layout, by role.
    pub packed: Vec<Bytes>,
    /// Name of the packed layout, which is the name of a kernel: this one, or one that every CPU of the instruction set
    /// has. `None` if CPUs of one instruction set pack differently: then no package holds that layout.
    pub form: Option<String>,
    /// Positions of constant inputs that were packed, so that the originals are not needed.
    pub absorbed: Vec<usize>,
    /// Scratch size of the step, in bytes.
    pub scratch: usize,
}

/// The input of [`Operator::bind`](super::Operator::bind).
pub struct BindContext<'a> {
    /// Facts of the inputs.
    pub inputs: Vec<&'a Fact>,
    /// Facts of the results.
    pub outputs: Vec<&'a Fact>,
    /// Data of constant inputs that were not absorbed.
    pub constants: Vec<Option<&'a Tensor>>,
    /// Positions of inputs that were packed.
    pub absorbed: &'a [usize],
    /// The kernel's name from the [`Choice`].
    pub kernel: &'a str,
    /// Instruction set of the plan.
    pub isa: Isa,
}

impl BindContext<'_> {
    /// Whether input `index` was packed when the step was planned.
    #[must_use]
    pub fn absorbed(&self, index: usize) -> bool {
        self.absorbed.contains(&index)
    }
}

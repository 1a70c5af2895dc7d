//! What [`Operator::plan`](super::Operator::plan) and [`Operator::bind`](super::Operator::bind) are given, and what a
//! plan keeps of the answer.

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

/// What [`Operator::plan`](super::Operator::plan) may look at.
pub struct PlanContext<'a> {
    /// Facts of the inputs.
    pub inputs: Vec<&'a Fact>,
    /// Facts of the results.
    pub outputs: Vec<&'a Fact>,
    /// Data of those inputs that are constants.
    pub constants: Vec<Option<&'a Tensor>>,
    /// What a package holds of this step's weights, in place of their data.
    pub packing: Option<&'a Packing>,
    /// Measured times of kernels, if kernels are chosen by them.
    pub tuning: Option<&'a Tuning>,
    /// Where packed weights go.
    pub slab: &'a RefCell<Slab>,
    /// Instruction set to choose for.
    pub isa: Isa,
    /// Memory against speed.
    pub memory: Memory,
    /// How weights are stored.
    pub precision: Precision,
    /// Threads the plan will be run with.
    pub threads: usize,
}

impl<'a> PlanContext<'a> {
    /// How the weights of a product are stored.
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
        let tensor = self.constants.get(position).copied().flatten();
        tensor.and_then(Tensor::elements).ok_or(OpError::Operand(position))
    }

    /// The elements of input `position`, a constant, wherever they lie.
    pub(crate) fn peek<T: Element>(&self, position: usize) -> Result<Peek<'a, T>, OpError> {
        let tensor = self.constants.get(position).copied().flatten();
        tensor.and_then(Tensor::peek).ok_or(OpError::Operand(position))
    }

    /// Zeros, for packed weights.
    pub(crate) fn room(&self, len: usize) -> Result<AlignedVec<u8>, OpError> {
        self.slab.borrow_mut().try_zeroed(len).ok_or_else(|| OpError::no_memory(len))
    }

    /// The packed constant `role`, which is `len` bytes: what `write` makes of the weights, or what a package holds.
    pub(crate) fn pack(
        &self,
        role: usize,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), OpError>,
    ) -> Result<Bytes, OpError> {
        let Some(packing) = self.packing else {
            let mut bytes = self.room(len)?;
            write(&mut bytes)?;
            return Ok(bytes.into());
        };
        let held = packing.packed.get(role).filter(|bytes| bytes.len() == len);
        held.cloned().ok_or_else(|| OpError::Value(format!("no packed weights of {len} bytes in the package")))
    }
}

/// The weights of a step in the form of a kernel, as a package holds them.
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
    /// Refuses the choice of a kernel that reads another form.
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

/// Zeros among the weights of a convolution or product.
#[derive(Clone, Copy, Debug)]
pub struct Zeros {
    /// The share of the weights that are zero.
    pub share: f64,
    /// Modeled time of the best kernel for dense weights by that of the best one for sparse weights; 0 if there is none.
    pub gain: f64,
}

/// A kernel chosen for a step, with what it needs: plain data.
#[derive(Clone, Default)]
pub struct Choice {
    /// Name in the kernel family's table, as printed.
    pub kernel: String,
    /// What is zero of the weights; `None` if nothing is, or if they were packed before.
    pub zeros: Option<Zeros>,
    /// What it was chosen from; empty if there was no choice, or if there is no tuning.
    pub candidates: Candidates,
    /// Constants in the kernel's own form, by role.
    pub packed: Vec<Bytes>,
    /// Name of the packed form, which is that of a kernel: this one, or one that every CPU of the instruction set has.
    /// `None` where CPUs of one instruction set pack differently: then no package holds that form.
    pub form: Option<String>,
    /// Positions of inputs whose constants were packed and need not be kept beside.
    pub absorbed: Vec<usize>,
    /// Scratch that the kernel wants for the time of the step, in bytes.
    pub scratch: usize,
}

/// What [`Operator::bind`](super::Operator::bind) may look at.
pub struct BindContext<'a> {
    /// Facts of the inputs.
    pub inputs: Vec<&'a Fact>,
    /// Facts of the results.
    pub outputs: Vec<&'a Fact>,
    /// Data of those inputs that are constants and were not absorbed.
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

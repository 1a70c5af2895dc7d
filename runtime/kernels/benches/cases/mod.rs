//! Kernels with everything needed to call them: the benches time them, and the instruction counter counts their
//! instructions.
//!
//! Each program uses only some of them, hence `allow(dead_code)`.
#![allow(dead_code)]

pub mod bottleneck;
pub mod convolution;
pub mod frame;
pub mod memory;
pub mod zoo;

use std::fmt;

use skipstone_kernels::arena::AlignedVec;

/// A kernel on a layer.
pub struct Case {
    /// The variant's name, or family and instruction set if the family has one kernel for each set.
    pub kernel: String,
    /// The sizes.
    pub layer: String,
    /// The work of one call.
    pub work: Work,
    /// The bytes that a call reads and writes, at least.
    pub bytes: usize,
    make: Box<dyn Fn() -> Invocation + Send + Sync>,
}

/// Calls the kernel once, with buffers that it owns.
pub type Invocation = Box<dyn FnMut()>;

impl Case {
    /// The buffers are allocated by [`ready`](Self::ready).
    pub fn new(
        kernel: impl Into<String>,
        layer: impl Into<String>,
        work: Work,
        bytes: usize,
        make: impl Fn() -> Invocation + Send + Sync + 'static,
    ) -> Self {
        Case { kernel: kernel.into(), layer: layer.into(), work, bytes, make: Box::new(make) }
    }

    /// Allocates buffers and packs weights.
    pub fn ready(&self) -> Invocation {
        (self.make)()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kernel, self.layer)
    }
}

/// The amount of work that a kernel's speed is based on.
#[derive(Clone, Copy)]
pub enum Work {
    /// Multiply-adds of the plain convolution: Winograd computes fewer.
    MultiplyAdds(usize),
    /// Elements of the larger of input and output.
    Elements(usize),
}

/// Values between -1 and 1, the same in every run.
pub fn numbers(len: usize) -> AlignedVec<f32> {
    let mut random = random();
    let mut numbers = AlignedVec::zeroed(len);
    numbers.fill_with(|| (random() >> 8) as f32 / (1 << 23) as f32 - 1.0);
    numbers
}

/// Bytes, the same in every run.
pub fn bytes(len: usize) -> AlignedVec<u8> {
    let mut random = random();
    let mut bytes = AlignedVec::zeroed(len);
    bytes.fill_with(|| (random() >> 24) as u8);
    bytes
}

fn random() -> impl FnMut() -> u32 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    }
}

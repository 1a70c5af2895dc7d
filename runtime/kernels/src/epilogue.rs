//! What happens to a convolution's or matrix product's sum before it is stored.
//!
//! Bias, activation and residual add cost a pass over memory each when they are operators of their own. Fused, they
//! are applied while the sums are still in registers, or, for the activations that need an exponential, while the
//! tile just stored is still in the first-level cache.

use crate::activation::{Activation, scalar, vector};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::simd::{Kernel, Simd, dispatch};

/// The fused tail of a producing kernel, for every output `(row, channel)`:
/// `act(sum + bias[channel] + residual)` with `residual_first`, else `act(sum + bias[channel]) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value per output channel.
    pub bias: Option<&'a [f32]>,
    /// Applied to every output.
    pub activation: Activation,
    /// A tensor of the same layout (and row stride) as the output.
    pub residual: Option<&'a [f32]>,
    /// Whether the residual is added before the activation (ResNet) or after it (MobileNet).
    pub residual_first: bool,
}

impl Epilogue<'_> {
    /// Nothing fused: the sum is the output.
    pub const NONE: Epilogue<'static> =
        Epilogue { bias: None, activation: Activation::None, residual: None, residual_first: false };

    /// # Panics
    /// If the bias is not one number per channel or the residual is shorter than the output.
    pub(crate) fn check(&self, channels: usize, output_len: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == channels), "bias length");
        assert!(self.residual.is_none_or(|residual| residual.len() >= output_len), "residual length");
    }

    /// What a kernel does in registers.
    pub(crate) fn in_registers(&self) -> InRegisters {
        match self.activation {
            Activation::None => InRegisters::Clamp(f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => InRegisters::Clamp(0.0, f32::INFINITY),
            Activation::Clip { min, max } => InRegisters::Clamp(min, max),
            Activation::HardSwish => InRegisters::HardSwish,
            _ => InRegisters::Later,
        }
    }

    /// What is left to do on the stored tile, given what was done in registers.
    pub(crate) fn later(&self) -> Option<Activation> {
        match self.in_registers() {
            InRegisters::Later => Some(self.activation),
            _ => None,
        }
    }
}

/// The part of an activation that is cheap enough to be compiled into every kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InRegisters {
    /// `min(max(x, .0), .1)`: none, ReLU and clip in one.
    Clamp(f32, f32),
    HardSwish,
    /// Nothing: the activation, and a residual after it, follow on the stored tile.
    Later,
}

/// An epilogue as a kernel sees it: pointers to the first channel of its tile, null where absent.
#[derive(Clone, Copy)]
pub(crate) struct Tail {
    /// One number per column of the tile.
    pub bias: *const f32,
    /// As the tile of the output: same shape, same row stride.
    pub residual: *const f32,
    pub residual_first: bool,
    pub activation: InRegisters,
}

impl Tail {
    /// `sum` of one output register becomes the output. `bias` is the register of its columns; `residual` reads the
    /// register of the residual, and is called only if there is one.
    #[inline(always)]
    pub(crate) fn apply<L: Lanes>(&self, sum: L, residual: impl Fn() -> L) -> L {
        let mut x = sum;
        if !self.residual.is_null() && self.residual_first {
            x = x.add(residual());
        }
        match self.activation {
            InRegisters::Clamp(min, max) => x = x.at_least(x.like(min)).at_most(x.like(max)),
            InRegisters::HardSwish => x = vector::hard_swish(x),
            InRegisters::Later => return x,
        }
        if !self.residual.is_null() && !self.residual_first {
            x = x.add(residual());
        }
        x
    }

    /// As `apply`, on one number.
    #[inline(always)]
    pub(crate) fn apply_scalar(&self, sum: f32, residual: impl Fn() -> f32) -> f32 {
        let mut x = sum;
        if !self.residual.is_null() && self.residual_first {
            x += residual();
        }
        match self.activation {
            InRegisters::Clamp(min, max) => x = scalar::apply(Activation::Clip { min, max }, x),
            InRegisters::HardSwish => x = scalar::apply(Activation::HardSwish, x),
            InRegisters::Later => return x,
        }
        if !self.residual.is_null() && !self.residual_first {
            x += residual();
        }
        x
    }
}

/// The rest of an epilogue on one row of a stored tile: the activation, then the residual if it comes after.
pub(crate) fn finish_row(isa: Isa, activation: Activation, out: &mut [f32], residual: Option<&[f32]>) {
    if isa == Isa::Scalar {
        for x in out.iter_mut() {
            *x = scalar::apply(activation, *x);
        }
        for (x, r) in out.iter_mut().zip(residual.unwrap_or_default()) {
            *x += r;
        }
    } else {
        dispatch(isa, FinishRow { activation, out, residual });
    }
}

struct FinishRow<'a> {
    activation: Activation,
    out: &'a mut [f32],
    residual: Option<&'a [f32]>,
}

impl Kernel for FinishRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut chunks = self.out.chunks_exact_mut(S::LANES);
        for x in &mut chunks {
            simd.store(vector::apply(self.activation, simd.load(x)), x);
        }
        let rest = chunks.into_remainder();
        simd.store_partial(vector::apply(self.activation, simd.load_partial(rest)), rest);
        for (x, r) in self.out.iter_mut().zip(self.residual.unwrap_or_default()) {
            *x += r;
        }
    }
}

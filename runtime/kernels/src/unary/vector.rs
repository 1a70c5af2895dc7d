//! The functions on vectors, for every instruction set.

use super::{ElementwiseFn, UnaryFn};
use crate::activation::{self, Activation};
use crate::lanes::Lanes;
use crate::simd::{Simd, Vectorized};

/// Evaluates a block with `$f` bound to the function as a constant, so that the loop in the block has no branch on it.
macro_rules! specialize {
    ($function:expr, $f:ident => $body:block) => {
        specialize!($function, $f => $body, {
            [ElementwiseFn::Activation(Activation::None)]
            [ElementwiseFn::Activation(Activation::Relu)]
            [ElementwiseFn::Activation(Activation::Clip { min, max })]
            [ElementwiseFn::Activation(Activation::LeakyRelu(slope))]
            [ElementwiseFn::Activation(Activation::HardSwish)]
            [ElementwiseFn::Activation(Activation::HardSigmoid { alpha, beta })]
            [ElementwiseFn::Activation(Activation::Sigmoid)]
            [ElementwiseFn::Activation(Activation::Tanh)]
            [ElementwiseFn::Activation(Activation::Silu)]
            [ElementwiseFn::Activation(Activation::Gelu)]
            [ElementwiseFn::Activation(Activation::GeluTanh)]
            [ElementwiseFn::Unary(UnaryFn::Neg)]
            [ElementwiseFn::Unary(UnaryFn::Abs)]
            [ElementwiseFn::Unary(UnaryFn::Sqrt)]
            [ElementwiseFn::Unary(UnaryFn::Exp)]
            [ElementwiseFn::Unary(UnaryFn::Log)]
            [ElementwiseFn::Unary(UnaryFn::Reciprocal)]
            [ElementwiseFn::Unary(UnaryFn::Square)]
            [ElementwiseFn::Unary(UnaryFn::Rsqrt)]
            [ElementwiseFn::Unary(UnaryFn::Erf)]
            [ElementwiseFn::Unary(UnaryFn::Floor)]
            [ElementwiseFn::Unary(UnaryFn::Ceil)]
            [ElementwiseFn::Unary(UnaryFn::Round)]
            [ElementwiseFn::Unary(UnaryFn::Sign)]
        })
    };
    ($function:expr, $f:ident => $body:block, { $([$($arm:tt)+])+ }) => {
        match $function {
            $($($arm)+ => {
                let $f = $($arm)+;
                $body
            })+
        }
    };
}

/// `y = f(x)`, or `y = f(y)` without `x`: one loop for both.
pub(super) struct Map<'a> {
    pub(super) f: ElementwiseFn,
    pub(super) x: Option<&'a [f32]>,
    pub(super) y: &'a mut [f32],
}

impl Vectorized for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.y.len();
        assert!(self.x.is_none_or(|x| x.len() == len), "input and output lengths differ");
        let to = self.y.as_mut_ptr();
        let from = self.x.map_or(to.cast_const(), <[f32]>::as_ptr);
        let rest = len % S::LANES;
        specialize!(self.f, f => {
            let (mut from, mut to) = (from, to);
            // SAFETY: `from` and `to` have `len` elements, and where they overlap, elements are read before they are
            // written; the token proves the instruction set.
            unsafe {
                for _ in 0..len / S::LANES {
                    eval(simd, f, S::F32::load(from)).store(to);
                    (from, to) = (from.add(S::LANES), to.add(S::LANES));
                }
                if rest > 0 {
                    eval(simd, f, S::F32::load_first(from, rest)).store_first(to, rest);
                }
            }
        })
    }
}

/// `f(x)`
#[inline(always)]
fn eval<S: Simd>(simd: S, f: ElementwiseFn, x: S::F32) -> S::F32 {
    let f = match f {
        ElementwiseFn::Activation(act) => return activation::vector::apply(act, x),
        ElementwiseFn::Unary(f) => f,
    };
    let one = simd.splat(1.0);
    match f {
        UnaryFn::Neg => x.mul(simd.splat(-1.0)),
        UnaryFn::Abs => x.abs(),
        UnaryFn::Sqrt => simd.sqrt(x),
        UnaryFn::Exp => activation::vector::exp(x),
        UnaryFn::Log => simd.each_lane(x, f32::ln),
        UnaryFn::Reciprocal => one.div(x),
        UnaryFn::Square => x.mul(x),
        UnaryFn::Rsqrt => one.div(simd.sqrt(x)),
        UnaryFn::Erf => activation::vector::erf(x),
        UnaryFn::Floor => simd.floor(x),
        UnaryFn::Ceil => simd.ceil(x),
        UnaryFn::Round => x.round(),
        // Zero and NaN are neither less nor greater than zero, and remain unchanged.
        UnaryFn::Sign => {
            let zero = simd.splat(0.0);
            let positive = simd.select(simd.less(zero, x), one, x);
            simd.select(simd.less(x, zero), simd.splat(-1.0), positive)
        }
    }
}

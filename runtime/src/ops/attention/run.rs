//! The run of one attention head: its products, their softmax, and the weighted sums.

use skipstone_kernels::Isa;
use skipstone_kernels::copy::fill;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{self, Gemm, Packed, Variant};
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::pace::Pace;
use skipstone_kernels::softmax::{SoftmaxFn, softmax};
use skipstone_kernels::threads::Pool;

use super::{AttentionSizes, Head, ROWS};
use crate::error::OpError;

/// Working memory of one head.
pub(super) struct Scratch<'a> {
    k: &'a mut [f32],
    v: &'a mut [f32],
    scores: &'a mut [f32],
    weights: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    pub(super) fn lens(s: &AttentionSizes, qk: &Variant, pv: &Variant) -> [usize; 4] {
        let rows = s.queries.min(ROWS) * s.keys;
        [gemm::packed_len(qk, s.size, s.keys), gemm::packed_len(pv, s.keys, s.v_size), rows, rows]
    }

    pub(super) fn new(s: &AttentionSizes, qk: &Variant, pv: &Variant, scratch: &'a mut [f32]) -> Result<Self, OpError> {
        let [k, v, scores, weights] = Self::lens(s, qk, pv);
        let missing = || OpError::Operand(0);
        let (k, scratch) = scratch.split_at_mut_checked(k).ok_or_else(missing)?;
        let (v, scratch) = scratch.split_at_mut_checked(v).ok_or_else(missing)?;
        let (scores, scratch) = scratch.split_at_mut_checked(scores).ok_or_else(missing)?;
        let weights = scratch.get_mut(..weights).ok_or_else(missing)?;
        Ok(Self { k, v, scores, weights })
    }
}

/// A running attention.
pub(super) struct Run<'a> {
    pub(super) s: &'a AttentionSizes,
    pub(super) isa: Isa,
    pub(super) qk: &'static Variant,
    pub(super) pv: &'static Variant,
    pub(super) pool: &'a Pool,
    pub(super) scratch: Scratch<'a>,
}

impl Run<'_> {
    /// Packs keys and values of a head.
    pub(super) fn pack(&mut self, (k, of_k): (&[f32], Head), (v, of_v): (&[f32], Head), pace: &Pace<'_>) {
        let s = self.s;
        let (k, v) = (k.get(of_k.start..).unwrap_or(&[]), v.get(of_v.start..).unwrap_or(&[]));
        gemm::pack(self.qk, s.size, s.keys, (k, 1, of_k.row), self.scratch.k, pace);
        gemm::pack(self.pv, s.keys, s.v_size, (v, of_v.row, 1), self.scratch.v, pace);
    }

    /// The products of some queries with all keys.
    pub(super) fn products(&mut self, a: &[f32], lda: usize, m: usize) -> &mut [f32] {
        let (s, out) = (self.s, &mut self.scratch.scores[..m * self.s.keys]);
        let packed = Packed::F32(self.scratch.k);
        let (k, n, epilogue) = (s.size, s.keys, Epilogue::NONE);
        gemm::gemm(self.qk, Gemm { m, k, n, a, lda, packed, out, ldc: n, epilogue, a_scale: None }, &mut [], self.pool);
        out
    }

    /// The softmax of some rows of scores; zeros for rows that see nothing.
    pub(super) fn softmax(&mut self, count: usize, blind: &[bool], pace: &Pace<'_>) -> Result<&[f32], OpError> {
        let (len, keys) = (count * self.s.keys, self.s.keys);
        let weights = &mut self.scratch.weights[..len];
        if let Some(view) = MiddleAxis::new(&[count, keys], 1..2) {
            softmax(self.isa, SoftmaxFn::Softmax, view, &self.scratch.scores[..len], weights, self.pool);
        }
        for (row, _) in blind.iter().enumerate().filter(|(_, blind)| **blind) {
            fill(&[0; 4], bytemuck::cast_slice_mut(&mut weights[row * keys..][..keys]), pace)?;
        }
        Ok(weights)
    }

    /// The weighted sums of the values.
    pub(super) fn values(&mut self, out: &mut [f32], ldc: usize, m: usize) {
        let (s, a) = (self.s, &self.scratch.weights[..m * self.s.keys]);
        let packed = Packed::F32(self.scratch.v);
        let (k, n, lda, epilogue) = (s.keys, s.v_size, s.keys, Epilogue::NONE);
        gemm::gemm(self.pv, Gemm { m, k, n, a, lda, packed, out, ldc, epilogue, a_scale: None }, &mut [], self.pool);
    }
}

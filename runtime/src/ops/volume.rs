//! 3-D convolution ([ONNX Conv](https://onnx.ai/onnx/operators/onnx__Conv.html)), and transposed convolution ([ONNX
//! ConvTranspose](https://onnx.ai/onnx/operators/onnx__ConvTranspose.html)) in one to three dimensions, which the image
//! kernels do not support. Images and rows are volumes of depth 1, or depth and height 1.
//!
//! Channels are innermost. A convolution gathers the inputs of some windows (im2col) and multiplies them with the
//! packed weights of a group; a transposed one multiplies some pixels with the weights of one tap and adds the products
//! to the positions that the tap reaches. Neither stores more than some rows at a time.

use serde::{Deserialize, Serialize};
use skipstone_kernels::activation::Activation;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{self, Gemm, Packed, Variant, Weights};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::stored::{part, read, store};
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, saturating_product};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Pixels computed at a time: a multiple of the products' tile heights.
const ROWS: usize = 48;

/// A convolution of volumes `[batch, depth, height, width, channels]` with weights `[out, in / groups, ...]`, or, if
/// transposed, `[in, out / groups, ...]`, and one bias per output channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeConv {
    /// Whether every pixel is scattered over a window, rather than gathered from one.
    pub transposed: bool,
    /// Taps along each axis.
    pub kernel: [usize; 3],
    /// Distance between neighboring windows.
    pub stride: [usize; 3],
    /// Distance between neighboring taps.
    pub dilation: [usize; 3],
    /// Zeros before the volume; if transposed, the elements cut off at the result's start.
    pub pads: [usize; 3],
    /// Depth, height and width of the result.
    pub out: [usize; 3],
    /// Channel groups.
    pub groups: usize,
}

/// The sizes of a convolution.
#[derive(Clone, Copy)]
struct VolumeSizes {
    batch: usize,
    from: [usize; 3],
    in_c: usize,
    out_c: usize,
    taps: usize,
}

impl VolumeSizes {
    fn group(&self, groups: usize) -> (usize, usize) {
        (self.in_c / groups, self.out_c / groups)
    }
}

/// Depth, row and column of an index into a volume.
fn place(index: usize, [_, height, width]: [usize; 3]) -> [usize; 3] {
    [index / width / height, index / width % height, index % width]
}

impl VolumeConv {
    fn sizes(&self, inputs: &[&Fact]) -> Result<VolumeSizes, OpError> {
        let [x, w, bias] = exactly::<3, _>(inputs)?;
        if let Some((index, fact)) = inputs.iter().enumerate().find(|(_, fact)| fact.dtype != DType::F32) {
            return Err(OpError::Type { index, got: fact.dtype, want: "f32" });
        }
        let misfit = |rule| Err(OpError::shapes(rule, &[&x.shape, &w.shape, &bias.shape]));
        let (&[batch, depth, height, width, in_c], &[first, second, a, b, c]) = (x.shape.dims(), w.shape.dims()) else {
            return misfit("volumes and weights have 5 dimensions");
        };
        let positive = [self.kernel, self.stride, self.dilation].iter().flatten().all(|&size| size > 0);
        let taps = self.kernel.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
        let (Some(taps), true, [ka, kb, kc]) = (taps, positive, self.kernel) else {
            return Err(OpError::Attribute { name: "kernel_shape", reason: "sizes are at least 1".into() });
        };
        let far = |axis: usize| {
            let last = x.shape[axis + 1].max(self.out[axis]).checked_mul(self.stride[axis])?;
            let reach = self.kernel[axis].checked_mul(self.dilation[axis])?;
            last.checked_add(reach)?.checked_add(self.pads[axis]).filter(|&far| far < isize::MAX.unsigned_abs())
        };
        if (0..3).any(|axis| far(axis).is_none()) {
            return Err(OpError::Attribute {
                name: "strides",
                reason: "a stride, dilation or pad is too large".into(),
            });
        }
        let (whole, part) = if self.transposed { (in_c, first) } else { (first, in_c) };
        let other = second.checked_mul(self.groups);
        let fits = match self.transposed {
            false => other == Some(part),
            true => whole == part,
        };
        let out_c = if self.transposed { other.unwrap_or(0) } else { first };
        let divides = self.groups > 0 && in_c % self.groups == 0 && out_c % self.groups == 0;
        if !fits || !divides || [ka, kb, kc] != [a, b, c] || bias.shape.dims() != [out_c] {
            return misfit("weights, groups, channels and bias do not match");
        }
        let s = VolumeSizes { batch, from: [depth, height, width], in_c, out_c, taps };
        Shape::new(&[ROWS, in_c.max(1), taps])?;
        Ok(s)
    }

    /// The index in a volume of `size` that a tap reads or, if transposed, writes; `None` if it is outside.
    fn element_at(&self, at: [usize; 3], tap: [usize; 3], size: [usize; 3]) -> Option<usize> {
        let mut index = 0;
        for axis in 0..3 {
            let moved = at[axis] * self.stride[axis] + tap[axis] * self.dilation[axis];
            let place = moved.checked_sub(self.pads[axis]).filter(|&place| place < size[axis])?;
            index = index * size[axis] + place;
        }
        Some(index)
    }

    /// Rows and columns of the packed matrices, and their number.
    fn product(&self, s: &VolumeSizes) -> (usize, usize, usize) {
        let (in_c, out_c) = s.group(self.groups);
        match self.transposed {
            true => (in_c, out_c, self.groups * s.taps),
            false => (in_c * s.taps, out_c, self.groups),
        }
    }

    fn pack(&self, v: &Variant, s: &VolumeSizes, w: &[f32], out: &mut [f32], pace: &Pace<'_>) {
        let ((in_c, out_c), (k, n, count)) = (s.group(self.groups), self.product(s));
        let len = gemm::packed_len(v, k, n);
        for index in 0..if len == 0 { 0 } else { count } {
            let out = &mut out[index * len..(index + 1) * len];
            match self.transposed {
                true => {
                    let (group, tap) = (index / s.taps, index % s.taps);
                    let w = &w[group * in_c * out_c * s.taps + tap..];
                    gemm::pack(v, k, n, (w, out_c * s.taps, s.taps), out, pace);
                }
                false => gemm::pack(v, k, n, (&w[index * k * n..], 1, k), out, pace),
            }
        }
    }

    /// Whether every channel is its own group, so that there is no product.
    fn by_channel(&self, s: &VolumeSizes) -> bool {
        self.transposed && s.in_c == self.groups && s.out_c == self.groups
    }

    fn gathered(
        &self,
        s: &VolumeSizes,
        (v, packed): (&Variant, Packed<'_>),
        scratch: &mut [f32],
        (io, y): (&Io<'_, '_>, &mut [f32]),
    ) -> Result<(), OpError> {
        let (x, bias): (&[f32], &[f32]) = (io.input(0)?, io.input(2)?);
        let ((in_c, out_c), (k, n, _)) = (s.group(self.groups), self.product(s));
        let (volume, pixels): (usize, usize) = (s.from.iter().product(), self.out.iter().product());
        let len = gemm::packed_len(v, k, n);
        let a = scratch.get_mut(..ROWS * k).ok_or(OpError::Operand(0))?;
        let pace = io.pace();
        for first in (0..s.batch * pixels).step_by(ROWS) {
            let m = ROWS.min(s.batch * pixels - first);
            for group in 0..self.groups {
                for (row, a) in a.chunks_exact_mut(k.max(1)).take(m).enumerate() {
                    let (image, at) = ((first + row) / pixels, place((first + row) % pixels, self.out));
                    for tap in 0..s.taps {
                        pace.spend(16 + 2 * in_c)?;
                        let from = self.element_at(at, place(tap, self.kernel), s.from);
                        let from = from.map(|index| (image * volume + index) * s.in_c + group * in_c);
                        let column = a[tap..].iter_mut().step_by(s.taps);
                        match from {
                            Some(from) => column.zip(&x[from..from + in_c]).for_each(|(a, &x)| *a = x),
                            None => column.for_each(|a| *a = 0.0),
                        }
                    }
                }
                let bias = Some(&bias[group * out_c..(group + 1) * out_c]);
                let out = &mut y[first * s.out_c + group * out_c..];
                let packed = part(packed, group * len..(group + 1) * len);
                let epilogue = Epilogue { bias, activation: Activation::None, ..Epilogue::NONE };
                let args = Gemm { m, k, n, a, lda: k, packed, out, ldc: s.out_c, epilogue, a_scale: None };
                gemm::gemm(v, args, &mut [], io.pool());
            }
        }
        Ok(())
    }

    fn spread(
        &self,
        s: &VolumeSizes,
        (v, packed): (&Variant, Packed<'_>),
        scratch: &mut [f32],
        (io, y): (&Io<'_, '_>, &mut [f32]),
    ) -> Result<(), OpError> {
        let x: &[f32] = io.input(0)?;
        let ((in_c, out_c), (k, n, _)) = (s.group(self.groups), self.product(s));
        let (volume, pixels): (usize, usize) = (s.from.iter().product(), self.out.iter().product());
        let len = gemm::packed_len(v, k, n);
        let products = scratch.get_mut(..ROWS * n).ok_or(OpError::Operand(0))?;
        let pace = io.pace();
        for first in (0..s.batch * volume).step_by(ROWS) {
            let m = ROWS.min(s.batch * volume - first);
            for (group, tap) in (0..self.groups).flat_map(|group| (0..s.taps).map(move |tap| (group, tap))) {
                let a = &x[first * s.in_c + group * in_c..];
                let index = group * s.taps + tap;
                let (packed, out) = (part(packed, index * len..(index + 1) * len), &mut *products);
                let epilogue = Epilogue::NONE;
                let args = Gemm { m, k, n, a, lda: s.in_c, packed, out, ldc: n, epilogue, a_scale: None };
                gemm::gemm(v, args, &mut [], io.pool());
                let tap = place(tap, self.kernel);
                for (row, products) in products.chunks_exact(n).take(m).enumerate() {
                    pace.spend(16 + n)?;
                    let (image, at) = ((first + row) / volume, place((first + row) % volume, s.from));
                    if let Some(to) = self.element_at(at, tap, self.out) {
                        let to = (image * pixels + to) * s.out_c + group * out_c;
                        y[to..to + n].iter_mut().zip(products).for_each(|(y, product)| *y += product);
                    }
                }
            }
        }
        Ok(())
    }

    fn spread_by_channel(
        &self,
        s: &VolumeSizes,
        weights: &mut [f32],
        (io, y): (&Io<'_, '_>, &mut [f32]),
    ) -> Result<(), OpError> {
        let (x, w): (&[f32], &[f32]) = (io.input(0)?, io.input(1)?);
        let (volume, pixels): (usize, usize) = (s.from.iter().product(), self.out.iter().product());
        // Taps before channels.
        let pace = io.pace();
        for (index, weight) in weights.iter_mut().take(s.taps * s.in_c).enumerate() {
            pace.spend(8)?;
            *weight = w[index % s.in_c * s.taps + index / s.in_c];
        }
        for (index, x) in x.chunks_exact(s.in_c).enumerate() {
            let (image, at) = (index / volume, place(index % volume, s.from));
            for (tap, w) in weights.chunks_exact(s.in_c).enumerate().take(s.taps) {
                pace.spend(16 + s.in_c)?;
                if let Some(to) = self.element_at(at, place(tap, self.kernel), self.out) {
                    let y = &mut y[(image * pixels + to) * s.out_c..][..s.out_c];
                    y.iter_mut().zip(x.iter().zip(w)).for_each(|(y, (x, w))| *y += x * w);
                }
            }
        }
        Ok(())
    }
}

impl Operator for VolumeConv {
    fn name(&self) -> &str {
        if self.transposed { "ConvTranspose" } else { "Conv" }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let s = self.sizes(inputs)?;
        let [depth, height, width] = self.out;
        Ok(vec![Fact::new(DType::F32, Shape::new(&[s.batch, depth, height, width, s.out_c])?)])
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let (Ok(s), [x, ..], [y]) = (self.sizes(inputs), inputs, outputs) else { return 0 };
        let (in_c, out_c) = s.group(self.groups);
        match self.transposed {
            true => saturating_product(&[x.shape.elements(), out_c, s.taps]),
            false => saturating_product(&[y.shape.elements(), in_c, s.taps]),
        }
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let s = self.sizes(&cx.inputs)?;
        if self.by_channel(&s) {
            let scratch = s.taps * s.in_c * size_of::<f32>();
            return Ok(Choice { kernel: "conv_transpose_by_channel_f32".into(), scratch, ..Choice::default() });
        }
        let (k, n, count) = self.product(&s);
        let weights = if cx.is_constant(1) { cx.weights() } else { Weights::F32 };
        let kernels = gemm::candidates(cx.isa, weights, ROWS, k, n).collect();
        let (v, candidates) = cx.choose(self, kernels, |v| v.name.to_owned(), |v| v.form().name.to_owned())?;
        let len = Shape::new(&[count, gemm::packed_len(v, k, n)])?.elements();
        let mut scratch = ROWS * if self.transposed { n } else { k };
        let mut choice = Choice { kernel: v.name.to_owned(), candidates, ..Choice::default() };
        if cx.is_constant(1) {
            choice.packed.push(store(cx, (0, 1), weights, len, |w, out| self.pack(v, &s, w, out, &Pace::free()))?);
            choice.absorbed.push(1);
            choice.form = Some(v.form().name.to_owned());
        } else {
            scratch += len;
        }
        choice.scratch = scratch * size_of::<f32>();
        Ok(choice)
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (op, s) = (self.clone(), self.sizes(&cx.inputs)?);
        let (is_packed, by_channel) = (cx.absorbed(1), self.by_channel(&s));
        let v = if by_channel { None } else { gemm::by_name(cx.kernel) };
        let (k, n, count) = self.product(&s);
        let held = v.map_or(0, |v| if is_packed { 0 } else { count * gemm::packed_len(v, k, n) });
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let y: &mut [f32] = io.output(0)?;
            if y.is_empty() {
                return Ok(());
            }
            if op.transposed || io.input_bytes(0)?.is_empty() {
                let bias: &[f32] = io.input(2)?;
                let pace = io.pace();
                for y in y.chunks_exact_mut(s.out_c) {
                    pace.spend(8 + bias.len())?;
                    y.copy_from_slice(bias);
                }
            }
            if io.input_bytes(0)?.is_empty() {
                return Ok(());
            }
            let (own, scratch) = io.scratch()?.split_at_mut_checked(held).ok_or(OpError::Operand(1))?;
            let Some(v) = v else { return op.spread_by_channel(&s, scratch, (io, y)) };
            let packed = match is_packed {
                true => read(io, 0, v.weights)?,
                false => {
                    op.pack(v, &s, io.input(1)?, own, &io.pace());
                    Packed::F32(own)
                }
            };
            match op.transposed {
                true => op.spread(&s, (v, packed), scratch, (io, y)),
                false => op.gathered(&s, (v, packed), scratch, (io, y)),
            }
        }))
    }
}

impl Semantics for VolumeConv {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let s = self.sizes(&facts)?;
        let fact = self.infer(&facts)?.remove(0);
        let elements = |at: usize| inputs[at].elements::<f32>().ok_or(OpError::Operand(at));
        let (x, w, bias) = (elements(0)?, elements(1)?, elements(2)?);
        let (volume, pixels): (usize, usize) = (s.from.iter().product(), self.out.iter().product());
        let (in_c, out_c) = s.group(self.groups);
        let mut sums = reserve::copies(0f64, fact.shape.elements())?;
        let around = if self.transposed { volume } else { pixels };
        let windows = if x.is_empty() || sums.is_empty() { 0 } else { s.batch * around };
        for (index, tap) in (0..windows).flat_map(|index| (0..s.taps).map(move |tap| (index, tap))) {
            let (image, index) = (index / around, index % around);
            let (at, size) = if self.transposed { (s.from, self.out) } else { (self.out, s.from) };
            let Some(reached) = self.element_at(place(index, at), place(tap, self.kernel), size) else { continue };
            let (from, to) = if self.transposed { (index, reached) } else { (reached, index) };
            for (o, c) in (0..s.out_c).flat_map(|o| (0..in_c).map(move |c| (o, c))) {
                let group = o / out_c;
                let weight = match self.transposed {
                    true => ((group * in_c + c) * out_c + o % out_c) * s.taps + tap,
                    false => (o * in_c + c) * s.taps + tap,
                };
                let x = x[(image * volume + from) * s.in_c + group * in_c + c];
                sums[(image * pixels + to) * s.out_c + o] += f64::from(x) * f64::from(w[weight]);
            }
        }
        let y = sums.iter().zip(bias.iter().cycle()).map(|(sum, &b)| (sum + f64::from(b)) as f32);
        Ok(vec![Tensor::collected(fact, y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, assert_close, check, planned, single};
    use skipstone_kernels::Isa;

    fn plain(transposed: bool, kernel: [usize; 3], out: [usize; 3]) -> VolumeConv {
        let one = [1; 3];
        VolumeConv { transposed, kernel, stride: one, dilation: one, pads: [0; 3], out, groups: 1 }
    }

    #[test]
    fn every_form_agrees_with_the_definition() {
        let mut random = Random(61);
        for case in 0..40 {
            let transposed = case % 2 == 0;
            let groups = random.pick(&[1, 1, 2, 3]);
            let [in_c, out_c] = [random.pick(&[1, 2, 9]), random.pick(&[1, 3, 8])];
            // One group per channel takes a separate path.
            let (in_c, out_c) = if case % 10 == 4 { (1, 1) } else { (in_c, out_c) };
            let mut axis = || [random.pick(&[1, 1, 2, 3]), random.pick(&[1, 2]), random.pick(&[1, 2]), random.below(2)];
            let axes = [axis(), axis(), axis()];
            let side: [usize; 3] = std::array::from_fn(|_| random.pick(&[1, 3, 6]));
            let op = VolumeConv {
                kernel: axes.map(|[kernel, ..]| kernel),
                stride: axes.map(|[_, stride, ..]| stride),
                dilation: axes.map(|[_, _, dilation, _]| dilation),
                pads: axes.map(|[.., pad]| pad),
                groups,
                ..plain(transposed, [1; 3], [random.pick(&[1, 4]), random.pick(&[2, 5]), random.pick(&[1, 7])])
            };
            let [a, b, c] = op.kernel;
            let [first, second] = if transposed { [in_c * groups, out_c] } else { [out_c * groups, in_c] };
            let inputs = [
                random.floats(&[1 + case % 3, side[0], side[1], side[2], in_c * groups]),
                random.floats(&[first, second, a, b, c]),
                random.floats(&[out_c * groups]),
            ];
            let want = check(op.clone(), &inputs, 1e-4);
            let graph = single(op, &inputs, &[1, 2]);
            for isa in Isa::available() {
                let got = planned(&graph, isa, &inputs[..1]).unwrap();
                assert_close(&got[0], &want[0], 1e-4, "with constant weights");
            }
        }
    }

    #[test]
    fn empty_sums_give_the_bias() {
        let mut random = Random(62);
        for (transposed, dims, weights) in [
            (true, [1, 0, 2, 2, 3], [3, 2, 1, 1, 1]),
            (false, [1, 0, 2, 2, 3], [2, 3, 1, 1, 1]),
            (true, [1, 2, 2, 2, 0], [0, 2, 1, 1, 1]),
            (false, [1, 2, 2, 2, 0], [2, 0, 1, 1, 1]),
            (true, [0, 2, 2, 2, 3], [3, 2, 1, 1, 1]),
        ] {
            let inputs = [random.floats(&dims), random.floats(&weights), random.floats(&[2])];
            check(plain(transposed, [1; 3], [2, 2, 2]), &inputs, 1e-6);
        }
    }

    #[test]
    fn a_hand_computed_transposed_convolution() {
        // One row of 1, 2, 3, a stride of 2, taps 1, 10, 100, one pixel cut off at the start.
        let op = VolumeConv { stride: [1, 1, 2], pads: [0, 0, 1], ..plain(true, [1, 1, 3], [1, 1, 7]) };
        let tensor = |dims: &[usize], elements: &[f32]| Tensor::from_slice(dims, elements).unwrap();
        let inputs = [
            tensor(&[1, 1, 1, 3, 1], &[1.0, 2.0, 3.0]),
            tensor(&[1, 1, 1, 1, 3], &[1.0, 10.0, 100.0]),
            tensor(&[1], &[0.5]),
        ];
        let want = [10.5, 102.5, 20.5, 203.5, 30.5, 300.5, 0.5];
        assert_eq!(check(op, &inputs, 1e-6)[0].elements::<f32>().unwrap(), want);
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let mut random = Random(63);
        let inputs = [random.floats(&[1, 2, 2, 2, 4]), random.floats(&[4, 3, 1, 1, 2]), random.floats(&[6])];
        let facts: Vec<&Fact> = inputs.iter().map(Tensor::fact).collect();
        let op = VolumeConv { groups: 2, ..plain(true, [1, 1, 2], [2, 2, 2]) };
        assert!(op.infer(&facts).is_ok());
        for wrong in [
            VolumeConv { transposed: false, ..op.clone() },
            VolumeConv { groups: 0, ..op.clone() },
            VolumeConv { groups: 3, ..op.clone() },
            VolumeConv { kernel: [1, 2, 2], ..op.clone() },
            VolumeConv { stride: [0, 1, 1], ..op.clone() },
            VolumeConv { stride: [usize::MAX, 1, 1], ..op.clone() },
            VolumeConv { pads: [usize::MAX, 1, 1], ..op.clone() },
            VolumeConv { out: [usize::MAX, 2, 2], ..op.clone() },
        ] {
            assert!(wrong.infer(&facts).is_err(), "{wrong:?}");
        }
    }
}

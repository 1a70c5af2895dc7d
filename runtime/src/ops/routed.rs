//! A product with one of several matrices, chosen for each group of rows: the layers of a mixture of experts (W. Fedus
//! et al., ["Switch Transformers"](https://arxiv.org/abs/2101.03961), 2022).
//!
//! `y[g, m, n] = act(sum over k of x[g, m, k] * w[i[g], k, n] + bias[i[g], n])`, where the indices `i` are computed at
//! run time. Exporters write it as a Gather of whole matrices and a batched product, which copies a matrix for every
//! group. Here the groups are sorted by index (a counting sort), and each matrix is read once, for all of its rows, or
//! not at all if no group selects it.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use skipstone_kernels::activation::{Activation, scalar};
use skipstone_kernels::conv::{self, Conv as Operands, ConvShape, FLOATS, Filters, FloatKernel, Task};
use skipstone_kernels::copy::copy;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::pace::Pace;

use super::gather::{index_type, resolve};
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, saturating_product};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Inputs: rows `[groups, m, k]`, indices `[groups]` (i64 or i32, negative ones count from the end), matrices `[count,
/// k, n]`, or `[count, n, k]` if transposed, and with `has_bias` biases `[count, n]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    /// Whether the matrices are stored as `[n, k]`.
    pub transposed: bool,
    /// Whether there is a bias for every matrix.
    pub has_bias: bool,
    /// Applied to the sum.
    pub activation: Activation,
}

/// Most matrices: each is packed separately, so that many small ones, such as rows of an embedding table, would grow.
const MAX_MATRICES: usize = 1024;

const INDICES: usize = 1;
const MATRICES: usize = 2;
const BIAS: usize = 3;

/// The sizes of a product.
#[derive(Clone, Copy)]
struct RoutedSizes {
    groups: usize,
    m: usize,
    k: usize,
    n: usize,
    count: usize,
}

impl RoutedSizes {
    /// The product of some groups as a convolution.
    fn shape(&self, groups: usize) -> ConvShape {
        ConvShape::matrix(groups * self.m, self.k, self.n)
    }

    /// Expected groups per matrix in a run, if all matrices are selected equally often.
    fn expected(&self) -> usize {
        self.groups.div_ceil(self.count.min(self.groups).max(1)).max(1)
    }

    /// Elements of scratch for the order of the groups (a word each, plus one for every matrix and the end), and for
    /// the contiguous rows of a matrix, in and out.
    fn scratch(&self) -> [usize; 3] {
        let rows = self.groups * self.m;
        [self.groups + self.count + 1, rows * self.k, rows * self.n]
    }
}

impl Routed {
    /// Whether this can be the shape of the matrices: `[count, rows, columns]`, not empty, and not too many of them.
    #[must_use]
    pub fn supports(matrices: &Shape) -> bool {
        matches!(*matrices.dims(), [1..=MAX_MATRICES, rows, columns] if rows > 0 && columns > 0)
    }

    /// Adds to `selected` how often a run of the step, whose inputs have these facts, selected each matrix.
    ///
    /// # Errors
    /// An index out of range.
    #[cfg(any(feature = "passes", test))]
    pub(crate) fn count(io: &Io<'_, '_>, inputs: &[Fact], selected: &mut Vec<u64>) -> Result<(), OpError> {
        let count = inputs.get(MATRICES).and_then(|matrices| matrices.shape.first()).copied().unwrap_or(0);
        selected.resize(count, 0);
        let mut add = |index| -> Result<(), OpError> {
            selected[resolve(index, count)?] += 1;
            Ok(())
        };
        match inputs.get(INDICES).map(|indices| indices.dtype) {
            Some(DType::I32) => io.input::<i32>(INDICES)?.iter().try_for_each(|&index| add(i64::from(index))),
            _ => io.input::<i64>(INDICES)?.iter().try_for_each(|&index| add(index)),
        }
    }

    /// Position of the input with the indices.
    pub(crate) const INDICES: usize = INDICES;

    fn sizes(&self, inputs: &[&Fact]) -> Result<RoutedSizes, OpError> {
        let want = if self.has_bias { 4 } else { 3 };
        if inputs.len() != want {
            return Err(OpError::Arity { want: if self.has_bias { "4" } else { "3" }, got: inputs.len() });
        }
        index_type(1, inputs[1])?;
        if let Some((index, fact)) = inputs.iter().enumerate().find(|&(i, f)| i != 1 && f.dtype != DType::F32) {
            return Err(OpError::Type { index, got: fact.dtype, want: "f32" });
        }
        let (x, indices, matrices) = (&inputs[0].shape, &inputs[1].shape, &inputs[MATRICES].shape);
        let misfit = || {
            OpError::shapes("rows [groups, m, k], one index per group, matrices [count, k, n]", &[x, indices, matrices])
        };
        let (&[groups, m, k], &[indices], &[count, rows, columns]) = (x.dims(), indices.dims(), matrices.dims()) else {
            return Err(misfit());
        };
        if !Self::supports(matrices) {
            return Err(OpError::shapes("from 1 to 1024 matrices, none of them empty", &[matrices]));
        }
        let (depth, n) = if self.transposed { (columns, rows) } else { (rows, columns) };
        if depth != k || indices != groups {
            return Err(misfit());
        }
        if self.has_bias && inputs[BIAS].shape.dims() != [count, n] {
            return Err(OpError::shapes("a bias [count, n] for matrices", &[&inputs[BIAS].shape, matrices]));
        }
        let sizes = RoutedSizes { groups, m, k, n, count };
        let rows = groups.checked_mul(m).filter(|&rows| ConvShape::matrix(rows, k, n).is_sound());
        let rows = rows.filter(|_| u32::try_from(groups).is_ok());
        rows.map(|_| sizes).ok_or_else(|| OpError::Value("the product has too many rows".into()))
    }

    fn filters<'a>(&self, matrix: &'a [f32]) -> Filters<'a> {
        if self.transposed { Filters::Oihw(matrix) } else { Filters::Io(matrix) }
    }
}

impl Operator for Routed {
    fn name(&self) -> &str {
        "Routed"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let s = self.sizes(inputs)?;
        Ok(vec![Fact::new(DType::F32, Shape::new(&[s.groups, s.m, s.n])?)])
    }

    fn macs(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        self.sizes(inputs).map_or(0, |s| saturating_product(&[s.groups, s.m, s.k, s.n]))
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let s = self.sizes(&cx.inputs)?;
        if !cx.is_constant(MATRICES) {
            return Err(OpError::Value("the matrices must be constant".into()));
        }
        let [one, expected, all] = [1, s.expected(), s.groups.max(1)].map(|groups| s.shape(groups));
        let of = |shape| Task { weights: cx.weights(), ..Task::new(shape) };
        // A matrix that is packed once is used for any number of rows.
        let len = |kernel: &dyn FloatKernel, shape| kernel.packed_len(shape, s.k * s.n);
        let fits = |kernel: &dyn FloatKernel| {
            let lens = [kernel.packed_len(&one, 0), len(kernel, &one), len(kernel, &expected), len(kernel, &all)];
            kernel.takes(&of(&one)) && kernel.takes(&of(&all)) && lens.iter().all(|len| len == &lens[0])
        };
        let mut kernels = conv::candidates(FLOATS, cx.isa, &of(&expected));
        kernels.retain(|(kernel, _)| fits(*kernel));
        let op = (self, expected.pixels());
        let (kernel, candidates) = cx.choose(&op, kernels, |k| k.name().to_owned(), |k| k.layout().to_owned())?;
        let mut choice = Choice { kernel: kernel.name().to_owned(), candidates, ..Choice::default() };
        let len = len(kernel, &expected);
        for index in 0..s.count {
            let packed = cx.pack(index, len, |to| {
                let matrix = part(cx.constant::<f32>(MATRICES)?, index, s.k * s.n)?;
                Ok(kernel.pack(&expected, self.filters(matrix), to, &Pace::free())?)
            })?;
            choice.packed.push(packed);
        }
        choice.absorbed.push(MATRICES);
        choice.form = Some(kernel.layout().to_owned());
        let own = [&one, &expected, &all].map(|shape| kernel.scratch_len(shape, false, cx.threads));
        let [order, rows_in, rows_out] = s.scratch();
        let words = own.iter().max().copied().unwrap_or(0) + rows_in + rows_out;
        choice.scratch = words * size_of::<f32>() + order * size_of::<u32>();
        Ok(choice)
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let s = self.sizes(&cx.inputs)?;
        let unknown = || OpError::Attribute { name: "kernel", reason: cx.kernel.to_owned() };
        let kernel = conv::by_name(FLOATS, cx.kernel).ok_or_else(unknown)?;
        let wide = cx.inputs[1].dtype == DType::I64;
        let (activation, has_bias) = (self.activation, self.has_bias);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (x, out): (&[f32], &mut [f32]) = (io.input(0)?, io.output(0)?);
            let biases: &[f32] = if has_bias { io.input(BIAS)? } else { &[] };
            let (scratch, pace): (&mut [f32], _) = (io.scratch()?, io.pace());
            let misfit = OpError::Operand(MATRICES);
            let [order, rows_in, rows_out] = s.scratch();
            let (order, rest) = scratch.split_at_mut_checked(order).ok_or(misfit)?;
            let (rows_in, rest) = rest.split_at_mut_checked(rows_in).ok_or(OpError::Operand(0))?;
            let (rows_out, own) = rest.split_at_mut_checked(rows_out).ok_or(OpError::Operand(0))?;
            let (ends, order) = bytemuck::cast_slice_mut::<f32, u32>(order).split_at_mut(s.count + 1);
            if wide {
                let indices: &[i64] = io.input(1)?;
                sort(s.count, indices.iter().map(|&index| resolve(index, s.count)), ends, order, &pace)?;
            } else {
                let indices: &[i32] = io.input(1)?;
                sort(s.count, indices.iter().map(|&index| resolve(index, s.count)), ends, order, &pace)?;
            }
            for index in 0..s.count {
                let groups = &order[ends[index] as usize..ends[index + 1] as usize];
                let Some(&first) = groups.first() else { continue };
                let shape = s.shape(groups.len());
                let epilogue = Epilogue {
                    bias: if has_bias { Some(part(biases, index, s.n)?) } else { None },
                    activation,
                    ..Epilogue::NONE
                };
                if kernel.scratch_len(&shape, false, io.pool().threads()) > own.len() {
                    return Err(OpError::Operand(MATRICES));
                }
                let _held = io.hold(index);
                let packed: &[u8] = io.packed(index)?;
                let first = first as usize;
                if groups.last().is_some_and(|&last| last as usize - first + 1 == groups.len()) {
                    // They are already contiguous.
                    let rows = |len: usize| first * s.m * len..(first + groups.len()) * s.m * len;
                    let (input, out) = (&x[rows(s.k)], &mut out[rows(s.n)]);
                    kernel.run(Operands { shape: &shape, input, packed, out, epilogue, scale: None }, own, io.pool());
                    continue;
                }
                let (input, result) = (&mut rows_in[..shape.input_len()], &mut rows_out[..shape.output_len()]);
                for (at, &group) in groups.iter().enumerate() {
                    let (from, to) = (&x[range(group as usize, s.m * s.k)], &mut input[range(at, s.m * s.k)]);
                    pace.spend(8)?;
                    copy(bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to), &pace)?;
                }
                let args = Operands { shape: &shape, input, packed, out: result, epilogue, scale: None };
                kernel.run(args, own, io.pool());
                for (at, &group) in groups.iter().enumerate() {
                    let (from, to) = (&result[range(at, s.m * s.n)], &mut out[range(group as usize, s.m * s.n)]);
                    pace.spend(8)?;
                    copy(bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to), &pace)?;
                }
            }
            Ok(())
        }))
    }
}

impl Semantics for Routed {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let s = self.sizes(&facts)?;
        let f32s = |index: usize| inputs[index].elements::<f32>().ok_or(OpError::Operand(index));
        let (x, w) = (f32s(0)?, f32s(MATRICES)?);
        let bias = if self.has_bias { Some(f32s(BIAS)?) } else { None };
        let mut y = reserve::empty(s.groups * s.m * s.n)?;
        for group in 0..s.groups {
            let index = match inputs[1].elements::<i64>() {
                Some(all) => resolve(all[group], s.count)?,
                None => resolve(inputs[1].elements::<i32>().ok_or(OpError::Operand(1))?[group], s.count)?,
            };
            let w = &w[index * s.k * s.n..(index + 1) * s.k * s.n];
            for row in group * s.m..(group + 1) * s.m {
                for col in 0..s.n {
                    let at = |k: usize| if self.transposed { col * s.k + k } else { k * s.n + col };
                    let sum = (0..s.k).map(|k| f64::from(x[row * s.k + k]) * f64::from(w[at(k)])).sum::<f64>() as f32;
                    y.push(scalar::apply(self.activation, sum + bias.map_or(0.0, |bias| bias[index * s.n + col])));
                }
            }
        }
        Ok(vec![Tensor::from_slice(&[s.groups, s.m, s.n], &y)?])
    }
}

/// Counting sort: `order` becomes the groups sorted by index, stably, and `ends[i]..ends[i + 1]` the range of those
/// with index `i`.
fn sort(
    count: usize,
    indices: impl Iterator<Item = Result<usize, OpError>> + Clone,
    ends: &mut [u32],
    order: &mut [u32],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    ends.fill(0);
    for index in indices.clone() {
        pace.spend(8)?;
        ends[index?] += 1;
    }
    let mut end = 0;
    for start in &mut ends[..count] {
        (*start, end) = (end, end + *start);
    }
    // Every start advances to the end of its own groups, which is the start of the next.
    for (group, index) in indices.enumerate() {
        pace.spend(8)?;
        let at = &mut ends[index?];
        order[*at as usize] = group as u32;
        *at += 1;
    }
    ends.copy_within(..count, 1);
    ends[0] = 0;
    Ok(())
}

/// The range of the part at `at`, with all parts of length `len`.
fn range(at: usize, len: usize) -> Range<usize> {
    at * len..(at + 1) * len
}

fn part<T>(elements: &[T], at: usize, len: usize) -> Result<&[T], OpError> {
    elements.get(range(at, len)).ok_or(OpError::Operand(MATRICES))
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::Isa;

    use super::*;
    use crate::ops::check::{Random, assert_close, planned, single};

    fn indices(random: &mut Random, groups: usize, count: usize, kind: usize) -> Tensor {
        let one = random.below(count);
        let all: Vec<i64> = (0..groups)
            .map(|_| match kind {
                0 => one as i64,
                1 => random.below(count) as i64 - count as i64,
                _ => random.below(count) as i64,
            })
            .collect();
        match kind {
            2 => Tensor::from_slice(&[groups], &all.iter().map(|&i| i as i32).collect::<Vec<_>>()).unwrap(),
            _ => Tensor::from_slice(&[groups], &all).unwrap(),
        }
    }

    #[test]
    fn rows_are_multiplied_by_the_matrix_of_their_index() {
        let mut random = Random(31);
        for case in 0..60 {
            let [groups, m, k, n] = std::array::from_fn(|_| random.pick(&[1, 2, 3, 7, 16, 33]));
            let count = random.pick(&[1, 2, 5, 8]);
            let op = Routed {
                transposed: case % 2 == 0,
                has_bias: case % 3 == 0,
                activation: random.pick(&[Activation::None, Activation::Relu, Activation::Gelu]),
            };
            let m = if case % 5 == 0 { m } else { 1 };
            let matrix = if op.transposed { [n, k] } else { [k, n] };
            let mut inputs = vec![
                random.floats(&[groups, m, k]),
                indices(&mut random, groups, count, case % 4),
                random.floats(&[count, matrix[0], matrix[1]]),
            ];
            if op.has_bias {
                inputs.push(random.floats(&[count, n]));
            }
            let operands: Vec<&Tensor> = inputs.iter().collect();
            let want = op.evaluate(&operands).unwrap();
            let graph = single(op, &inputs, &[2, 3]);
            for isa in Isa::available() {
                let got = planned(&graph, isa, &inputs[..2]).unwrap();
                assert_close(&got[0], &want[0], 1e-4, &format!("{groups} groups, {count} matrices"));
            }
        }
    }

    #[test]
    fn very_many_matrices_and_empty_ones_are_refused() {
        let op = Routed { transposed: false, has_bias: false, activation: Activation::None };
        let fact = |dtype, dims: &[usize]| Fact::new(dtype, Shape::new(dims).unwrap());
        let (x, i) = (fact(DType::F32, &[2, 1, 3]), fact(DType::I64, &[2]));
        for (dims, fits) in [([1024, 3, 1], true), ([1025, 3, 1], false), ([1 << 40, 3, 0], false), ([0, 3, 1], false)]
        {
            assert_eq!(op.infer(&[&x, &i, &fact(DType::F32, &dims)]).is_ok(), fits, "{dims:?}");
        }
    }

    #[test]
    fn an_index_out_of_range_is_an_error_of_the_run() {
        let mut random = Random(5);
        let op = Routed { transposed: false, has_bias: false, activation: Activation::None };
        let inputs =
            [random.floats(&[2, 1, 3]), Tensor::from_slice(&[2], &[0i64, 4]).unwrap(), random.floats(&[4, 3, 5])];
        let error = planned(&single(op, &inputs, &[2]), Isa::detect(), &inputs[..2]).unwrap_err();
        assert!(error.to_string().contains("index 4 is out of range"), "{error}");
    }

    #[test]
    fn the_counting_sort_is_stable() {
        let (mut ends, mut order) = ([7; 4], [9; 5]);
        sort(3, [2, 0, 2, 0, 2].into_iter().map(Ok), &mut ends, &mut order, &Pace::free()).unwrap();
        assert_eq!((ends, order), ([0, 2, 2, 5], [1, 3, 0, 2, 4]));
    }
}

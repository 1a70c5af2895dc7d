"""Families of random graphs of rare operators: trigonometry, bitwise operators, f64 and integer products, scatters with a
reduction, GridSample and region pooling, spectra, losses.
"""

import numpy as np
from onnx import TensorProto as T

from parity import exact
from parity.cases import CASES, case
from parity.graph import Graph

ANGLES = {
    "Sin": (-9, 9), "Cos": (-9, 9), "Tan": (-1.5, 1.5), "Asin": (-1, 1), "Acos": (-1, 1), "Atan": (-9, 9), "Sinh": (-4, 4),
    "Cosh": (-4, 4), "Asinh": (-9, 9), "Acosh": (1, 9), "Atanh": (-0.99, 0.99),
}  # fmt: skip


def _angle(g: Graph, op: str):
    return g.node(op, g.input(g.random.uniform(*ANGLES[op], g.shape()).astype(np.float32)))


for _name in ANGLES:
    CASES[f"angle_{_name.lower()}"] = lambda g, name=_name: _angle(g, name)


@case
def is_inf(g):
    x = g.normal(*g.shape())
    x[g.random.random(x.shape) < 0.3] = g.pick(np.inf, -np.inf, np.nan)
    return g.node("IsInf", g.input(x), detect_negative=g.between(0, 1), detect_positive=g.between(0, 1))


def _integers(g: Graph, dtype, shape):
    limits = np.iinfo(dtype)
    return g.random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@case
def bitwise(g):
    g.opset = 18
    op, dtype, shape = g.pick("And", "Or", "Xor", "Not"), g.pick("i1", "i4", "i8", "u1", "u2", "u4"), g.shape()
    x = g.input(_integers(g, np.dtype(dtype), shape))
    if op == "Not":
        return g.node("BitwiseNot", x)
    return g.node(f"Bitwise{op}", x, g.either(_integers(g, np.dtype(dtype), g.broadcastable(shape))))


@case
def bit_shift(g):
    dtype, shape = np.dtype(g.pick("u1", "u4", "u8")), g.shape()
    by = g.random.integers(0, dtype.itemsize * 8, g.broadcastable(shape), dtype)
    return g.node("BitShift", g.input(_integers(g, dtype, shape)), g.either(by), direction=g.pick("LEFT", "RIGHT"))


@case
def scatter_reduce(g):
    g.opset = 18
    shape, axis = g.shape(g.between(1, 3), 9), 0
    axis = g.between(-len(shape), len(shape) - 1)
    dtype = np.dtype(g.pick("f4", "f4", "i8", "i4"))
    some = lambda dims: (g.random.standard_normal(dims) * 4).astype(dtype)
    picked = [g.between(1, dim) for dim in shape]
    indices = g.random.integers(-shape[axis], shape[axis], picked)
    reduction = g.pick("add", "mul", "max", "min")
    return g.node(
        "ScatterElements", g.input(some(shape)), g.either(indices), g.either(some(picked)), axis=axis, reduction=reduction
    )


@case
def scatter_nd_reduce(g):
    g.opset = 18
    shape = g.shape(g.between(1, 3), 9)
    width, count = g.between(1, len(shape)), g.between(1, 6)
    indices = np.stack([g.random.integers(-dim, dim, count) for dim in shape[:width]], -1)
    updates = g.normal(count, *shape[width:])
    return g.node(
        "ScatterND", g.input(g.normal(*shape)), g.either(indices), g.either(updates), reduction=g.pick("add", "mul", "max", "min")
    )


@case
def einsum_diagonals(g):
    n, m, k = g.between(1, 5), g.between(1, 5), g.between(1, 5)
    equation, shapes = g.pick(
        ("ii->i", [(n, n)]), ("ii->", [(n, n)]), ("iij->ij", [(n, n, m)]), ("iji->j", [(n, m, n)]),
        ("ii,ij->j", [(n, n), (n, m)]), ("ij,jj->ij", [(n, m), (m, m)]), ("...ii->...i", [(m, k, n, n)]),
        ("bii,bij->bj", [(k, n, n), (k, n, m)]),
    )  # fmt: skip
    return g.node("Einsum", *(g.input(g.normal(*shape)) for shape in shapes), equation=equation)


@case
def products_of_f64_and_integers(g):
    dtype = np.dtype(g.pick("f8", "i4", "i8", "u4"))
    some = lambda *dims: (
        g.random.standard_normal(dims) if dtype.kind == "f" else g.random.integers(0, 9, dims)
    ).astype(dtype)
    m, k, n = g.size(), g.size(), g.size()
    if g.chance():
        batch = g.between(1, 3)
        return g.node("MatMul", g.input(some(batch, m, k)), g.either(some(k, n) if g.chance() else some(batch, k, n)))
    a, b = g.between(0, 1), g.between(0, 1)
    g.reference = dtype.kind != "f"
    operands = [g.input(some(*((k, m) if a else (m, k)))), g.either(some(*((n, k) if b else (k, n))))]
    if g.chance():
        operands.append(g.either(some(*g.broadcastable((m, n)))))
    return g.node("Gemm", *operands, transA=a, transB=b)


@case
def conv_of_f64(g):
    g.reference = True
    axes, groups = g.between(1, 2), g.between(1, 2)
    kernel = [g.between(1, 3) for _ in range(axes)]
    x = g.normal(g.between(1, 2), groups * 2, *(k + g.between(0, 6) for k in kernel)).astype(np.float64)
    operands = [g.input(x), g.either(g.normal(groups * g.between(1, 3), 2, *kernel).astype(np.float64))]
    attributes = {"strides": [g.between(1, 2) for _ in kernel], "pads": [g.between(0, 1) for _ in kernel * 2]}
    return g.node("Conv", *operands, group=groups, kernel_shape=kernel, **attributes)


@case
def activations_of_f64(g):
    op = g.pick("Sigmoid", "Tanh", "Relu", "Softmax", "LogSoftmax")
    return g.node(op, g.input(g.normal(*g.shape()).astype(np.float64) * 3))


@case
def gelu_and_hardmax_of_f64(g):
    g.opset, g.reference = 20, True
    x = g.input(g.normal(*g.shape()).astype(np.float64) * 3)
    return g.node("Gelu", x), g.node("Gelu", x, approximate="tanh"), g.node("Hardmax", x)


@case
def resize_of_integers(g):
    """Interpolated as floats and truncated; with these scales, f32 represents every sum."""
    g.opset = 13
    dtype = np.dtype(g.pick("i1", "u1", "i4"))
    x = g.random.integers(0, 100, g.shape(4, 9)).astype(dtype)
    scales = g.constant([1, 1, g.pick(1, 2, 4), g.pick(2, 4)], np.float32)
    return g.node("Resize", g.input(x), "", scales, mode="linear")


@case
def col2im(g):
    g.opset = 18
    axes = g.between(1, 3)
    g.reference = axes != 2
    block = [g.between(1, 3) for _ in range(axes)]
    strides, dilations = ([g.between(1, 3) for _ in range(axes)] for _ in range(2))
    pads = [g.between(0, 1) for _ in range(2 * axes)]
    image = [(b - 1) * d + 1 + g.between(0, 6) for b, d in zip(block, dilations)]
    windows = [
        (image[i] + pads[i] + pads[axes + i] - (block[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(axes)
    ]
    x = g.normal(g.between(1, 2), g.between(1, 3) * int(np.prod(block)), int(np.prod(windows)))
    return g.node("Col2Im", g.input(x), g.ints(*image), g.ints(*block), strides=strides, dilations=dilations, pads=pads)


@case
def pad_wrap(g):
    g.opset, g.reference = 19, True
    shape = g.shape(g.between(1, 3), 9)
    # The reference wraps around only once, so pads are limited.
    pads = [g.between(0, 2 * dim) for dim in shape] + [g.between(0, 2 * dim) for dim in shape]
    return g.node("Pad", g.input(g.normal(*shape)), g.ints(*pads), mode="wrap")


@case
def triangles(g):
    shape = g.shape(g.between(2, 4), 9)
    diagonal = g.either(np.int64(g.between(-6, 6)))
    return g.node("Trilu", g.input(g.normal(*shape)), diagonal, upper=g.between(0, 1))


@case
def powers_of_integers(g):
    shape, dtype = g.shape(), np.dtype(g.pick("i4", "i8"))
    exponent = g.random.integers(0, 4, g.broadcastable(shape)).astype(g.pick(np.float32, np.float64))
    return g.node("Pow", g.input(g.random.integers(-9, 10, shape, dtype)), g.either(exponent))


@case
def center_crop_pad(g):
    g.opset = 18
    shape = g.shape()
    axes = sorted(g.random.permutation(len(shape))[: g.between(1, len(shape))].tolist())
    return g.node("CenterCropPad", g.input(g.normal(*shape)), g.ints(*(g.size(18) for _ in axes)), axes=axes)


@case
def reverse_sequence(g):
    shape = g.shape(g.between(2, 4), 9)
    time = g.between(0, 1)
    lengths = g.random.integers(1, shape[time] + 1, shape[1 - time])
    return g.node("ReverseSequence", g.input(g.normal(*shape)), g.either(lengths), time_axis=time, batch_axis=1 - time)


@case
def grid_sample(g):
    g.opset = g.pick(16, 20)
    axes = 2 if g.opset == 16 else g.pick(2, 2, 3)
    modes = ("bilinear", "nearest", "bicubic") if g.opset == 16 else ("linear", "nearest", "cubic")
    batch, sides, out = g.between(1, 2), [g.size(9) for _ in range(axes)], [g.size(9) for _ in range(axes)]
    grid = g.random.uniform(-1.4, 1.4, (batch, *out, axes)).astype(np.float32)
    mode = g.pick(*modes[: 3 if axes == 2 else 2])
    padding, align = g.pick("zeros", "border", "reflection"), g.between(0, 1)
    x = g.input(g.normal(batch, g.between(1, 3), *sides))
    return g.node("GridSample", x, g.either(grid), mode=mode, padding_mode=padding, align_corners=align)


@case
def affine_grid(g):
    g.opset = 20
    axes, batch, align = g.pick(2, 3), g.between(1, 2), g.between(0, 1)
    # A single pixel has no two corners to align.
    size = [batch, 1] + [g.between(2 if align else 1, 7) for _ in range(axes)]
    return g.node("AffineGrid", g.input(g.normal(batch, axes, axes + 1)), g.ints(*size), align_corners=align)


@case
def roi_align(g):
    g.opset = g.pick(10, 16)
    images, count = g.between(1, 2), g.between(1, 4)
    corners = g.random.uniform(-2, 12, (count, 4)).astype(np.float32)
    corners[:, 2:] = corners[:, :2] + g.random.uniform(0.1, 9, (count, 2)).astype(np.float32)
    mode = g.pick(None, "half_pixel", "output_half_pixel") if g.opset == 16 else None
    return g.node(
        "RoiAlign", g.input(g.normal(images, g.between(1, 3), g.size(16), g.size(16))), g.either(corners),
        g.either(g.random.integers(0, images, count)), mode=g.pick("avg", "max"), output_height=g.between(1, 4),
        output_width=g.between(1, 4), sampling_ratio=g.between(0, 3), spatial_scale=g.pick(0.5, 1.0),
        coordinate_transformation_mode=mode,
    )  # fmt: skip


@case
def max_roi_pool(g):
    images, count = g.between(1, 2), g.between(1, 4)
    corners = g.random.integers(0, 9, (count, 2))
    corners = np.concatenate([g.random.integers(0, images, (count, 1)), corners, corners + g.random.integers(0, 6, (count, 2))], 1)
    x = g.input(g.normal(images, g.between(1, 3), g.size(16), g.size(16)))
    pooled = [g.between(1, 4), g.between(1, 4)]
    return g.node("MaxRoiPool", x, g.either(corners.astype(np.float32)), pooled_shape=pooled, spatial_scale=g.pick(0.5, 1.0))


@case
def deform_conv(g):
    g.opset = 19
    groups, offsets, kernel = g.between(1, 2), g.between(1, 2), [g.between(1, 3), g.between(1, 3)]
    batch, depth, filters = g.between(1, 2), g.between(1, 2) * offsets, g.between(1, 3) * groups
    strides, pads = [g.between(1, 2), g.between(1, 2)], [g.between(0, 1) for _ in range(4)]
    sides = [k + g.between(0, 5) for k in kernel]
    out = [(sides[i] + pads[i] + pads[2 + i] - kernel[i]) // strides[i] + 1 for i in range(2)]
    operands = [
        g.input(g.normal(batch, depth * groups, *sides)), g.constant(g.normal(filters, depth, *kernel)),
        g.either(g.normal(batch, offsets * kernel[0] * kernel[1] * 2, *out)),
        g.constant(g.normal(filters)) if g.chance() else "",
        g.either(g.positive(batch, offsets * kernel[0] * kernel[1], *out)) if g.chance() else "",
    ]  # fmt: skip
    return g.node("DeformConv", *operands, group=groups, offset_group=offsets, kernel_shape=kernel, strides=strides, pads=pads)


@case
def signals_of_half_spectra(g):
    g.opset = 20
    shape = g.shape(g.between(1, 3), 16)
    axis = g.between(0, len(shape) - 1)
    length = 2 * max(shape[axis] - 1, 1)
    shape = (*shape[:axis], length // 2 + 1, *shape[axis + 1 :], 2)
    given = g.constant(g.pick(length, length + 1), np.int64) if g.chance() else ""
    return g.node("DFT", g.input(g.normal(*shape)), given, g.constant(axis, np.int64), inverse=1, onesided=1)


@case
def dft(g):
    g.opset = g.pick(17, 20)
    shape, axis = g.shape(g.between(1, 3), 16), 0
    axis = g.between(0, len(shape) - 1)
    inverse = g.between(0, 1)
    onesided = 0 if inverse else g.between(0, 1)
    parts = 1 if onesided else g.pick(1, 2)
    operands = [g.input(g.normal(*shape, parts))]
    if g.chance():
        operands.append(g.constant(g.size(24), np.int64))
    if g.opset == 20:
        operands += [""] * (2 - len(operands)) + [g.constant(axis, np.int64)]
        return g.node("DFT", *operands, inverse=inverse, onesided=onesided)
    return g.node("DFT", *operands, axis=axis, inverse=inverse, onesided=onesided)


@case
def stft(g):
    length, step = g.between(2, 16), g.between(1, 8)
    signal = g.normal(g.between(1, 2), length + g.between(0, 30), 1)
    operands = [g.input(signal), g.constant(step, np.int64)]
    if g.chance():
        operands += [g.constant(g.positive(length)), g.constant(length, np.int64)]
    else:
        operands += ["", g.constant(length, np.int64)]
    return g.node("STFT", *operands, onesided=g.between(0, 1))


@case
def window_functions(g):
    op, size = g.pick("HannWindow", "HammingWindow", "BlackmanWindow"), g.between(2, 40)
    window = g.node(op, g.constant(size, np.int64), periodic=g.between(0, 1), output_datatype=T.FLOAT)
    return g.node("Mul", g.input(g.normal(size)), window)


@case
def mel_weights(g):
    bins, length, rate = g.between(1, 12), g.pick(16, 64, 128), g.pick(8000, 16000)
    low = float(g.between(0, 300))
    ends = [g.constant(value, np.int64) for value in (bins, length, rate)]
    ends += [g.constant(value, np.float32) for value in (low, rate / 2 - g.between(0, 500))]
    weights = g.node("MelWeightMatrix", *ends, output_datatype=T.FLOAT)
    return g.node("MatMul", g.input(g.normal(3, length // 2 + 1)), weights)


@case
def likelihood_loss(g):
    op = g.pick("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    classes, rest = g.between(2, 9), g.shape(g.between(1, 3), 6)
    target = g.random.integers(0, classes, rest)
    ignored = g.pick(None, -1, 1, 300)
    if ignored is not None:
        target[g.random.random(rest) < 0.3] = ignored
        # The mean over no elements is undefined.
        target.flat[0] = 0
    scores = g.input(g.normal(rest[0], classes, *rest[1:]))
    operands = [scores, g.either(target)] + ([g.either(g.positive(classes))] if g.chance() else [])
    return g.node(op, *operands, reduction=g.pick("none", "sum", "mean"), ignore_index=ignored)


@case
def compress(g):
    shape = g.shape(g.between(1, 3), 9)
    axis = g.pick(None, g.between(-len(shape), len(shape) - 1))
    most = int(np.prod(shape)) if axis is None else shape[axis]
    condition = g.random.random(g.between(1, most)) < 0.6
    condition[0] = True
    return g.node("Compress", g.input(g.normal(*shape)), g.constant(condition), axis=axis)


@case
def n_grams(g):
    pool = [[1], [4], [2], [1, 2], [2, 3], [4, 4], [1, 2, 3], [3, 3, 1]]
    columns = g.random.permutation(len(pool)).tolist()
    x = g.input(g.random.integers(0, 5, g.pick((9,), (2, 12), (1, 3))).astype(g.pick(np.int32, np.int64)))
    most = g.between(1, 3)
    return g.node(
        "TfIdfVectorizer", x, mode=g.pick("TF", "IDF", "TFIDF"), min_gram_length=g.between(1, most), max_gram_length=most,
        max_skip_count=g.between(0, 3), pool_int64s=sum(pool, []), ngram_counts=[0, 3, 9], ngram_indexes=columns,
        weights=g.positive(len(pool)).tolist() if g.chance() else None,
    )  # fmt: skip


@case
def determinant(g):
    rows = g.between(1, 4)
    return g.node("Det", g.input(g.normal(*g.shape(g.between(1, 2), 5), rows, rows)))


# Operators that ONNX Runtime writes into optimized models.

MICROSOFT = {"domain": "com.microsoft"}


@case
def nhwc_conv(g):
    g.use_reference(exact.NhwcConv)
    groups, kernel = g.pick(1, 1, 2), (g.between(1, 3), g.between(1, 3))
    channels, filters = groups * g.size(), groups * g.size()
    x = g.input(g.normal(g.between(1, 2), g.between(3, 9), g.between(3, 9), channels))
    operands = [x, g.either(g.normal(filters, *kernel, channels // groups))]
    operands += [g.either(g.normal(filters))] if g.chance() else []
    pads, strides = [g.between(0, 1) for _ in range(4)], [g.between(1, 2) for _ in range(2)]
    return g.node("NhwcConv", *operands, group=groups, kernel_shape=kernel, pads=pads, strides=strides, **MICROSOFT)


@case
def fused_gemm(g):
    m, k, n = g.size(), g.size(), g.size()
    operands = [g.input(g.normal(m, k)), g.either(g.normal(k, n))] + ([g.either(g.normal(n))] if g.chance() else [])
    activation = g.pick("Relu", "LeakyRelu", "Sigmoid", "Tanh")
    alpha = 0.2 if activation == "LeakyRelu" else None
    return g.node("FusedGemm", *operands, activation=activation, activation_alpha=alpha, alpha=g.pick(1.0, 0.5), **MICROSOFT)


@case
def matmul_n_bits(g):
    bits, block = 4, g.pick(16, 32)
    rows, blocks = g.size(18), g.between(1, 3)
    depth = blocks * block - (g.between(0, 7) if g.chance() else 0)
    packed = _integers(g, np.dtype("u1"), (rows, blocks, block * bits // 8))
    operands = [g.input(g.normal(g.size(9), depth)), g.constant(packed), g.constant(g.positive(rows * blocks) / 8)]
    if g.chance():
        operands.append(g.constant(_integers(g, np.dtype("u1"), (rows * ((blocks * bits + 7) // 8),))))
    return g.node("MatMulNBits", *operands, K=depth, N=rows, bits=bits, block_size=block, **MICROSOFT)


@case
def dynamic_quantize_matmul(g):
    m, k, n = g.size(), g.size(), g.size()
    weights = _integers(g, np.dtype("u1"), (k, n))
    each = g.chance()
    operands = [g.input(g.normal(m, k)), g.constant(weights), g.constant(g.positive(n) / 99 if each else np.float32(0.02))]
    operands.append(g.constant(_integers(g, np.dtype("u1"), (n,) if each else ())))
    operands.append(g.constant(g.normal(n)) if g.chance() else "")
    return g.node("DynamicQuantizeMatMul", *operands, **MICROSOFT)


@case
def matmul_integer_to_float(g):
    m, k, n = g.size(), g.size(), g.size()
    a, b = _integers(g, np.dtype("u1"), (m, k)), _integers(g, np.dtype("u1"), (k, n))
    scales = [g.constant(np.float32(0.03)), g.constant(np.float32(0.02))]
    zeros = [g.constant(_integers(g, np.dtype("u1"), ())) if g.chance() else "" for _ in range(2)]
    bias = g.constant(g.normal(n)) if g.chance() else ""
    return g.node("MatMulIntegerToFloat", g.input(a), g.constant(b), *scales, *zeros, bias, **MICROSOFT)


@case
def embed_layer_normalization(g):
    batch, length, width, words = g.between(1, 2), g.size(9), g.size(18), g.between(2, 9)
    indices = lambda below: g.input(g.random.integers(0, below, (batch, length)).astype(np.int32))
    segments = g.chance()
    operands = [indices(words), indices(2) if segments else ""]
    operands += [g.constant(g.normal(words, width)), g.constant(g.normal(length, width))]
    operands += [g.constant(g.normal(2, width)) if segments else "", g.constant(g.normal(width)), g.constant(g.normal(width))]
    return g.node("EmbedLayerNormalization", *operands, outputs=2, epsilon=1e-5, **MICROSOFT)


@case
def microsoft_pad(g):
    shape = g.shape(g.between(1, 4), 9)
    mode = g.pick("constant", "edge", "reflect")
    most = [dim - 1 if mode == "reflect" else 3 for dim in shape]
    pads = [g.between(0, most[axis % len(shape)]) for axis in range(2 * len(shape))]
    value = [g.constant(np.float32(0.5))] if mode == "constant" and g.chance() else []
    return g.node("Pad", g.input(g.normal(*shape)), g.ints(*pads), *value, mode=mode, **MICROSOFT)


@case
def microsoft_range(g):
    dtype = np.dtype(g.pick("f4", "i4", "i8"))
    start, count, step = g.between(-5, 5), g.between(1, 9), g.pick(None, 1, 2, 3, -2)
    ends = [np.array(end, dtype) for end in (start, start + count * (step or 1), step or 1)]
    ends = [g.constant(end.reshape(g.pick((), (1,)))) for end in ends[: 2 if step is None else 3]]
    return g.node("Add", g.node("Range", *ends, **MICROSOFT), g.input(np.ones(1, dtype)))


@case
def microsoft_trilu(g):
    x = g.normal(*g.shape(g.between(0, 2), 5), *g.shape(2, 10))
    k = [g.constant(g.between(-4, 4), np.int64)] if g.chance() else []
    return g.node("Trilu", g.input(x), *k, upper=g.pick(None, 0, 1), **MICROSOFT)


def _exact(g: Graph, *shape) -> np.ndarray:
    """Multiples of 1/2, so that no sum of products is rounded, not even after the -10000 of a hidden key."""
    return (g.random.integers(-2, 3, shape) / 2).astype(np.float32)


def _key_mask(g: Graph, batch: int, keys: int, queries: int, forms) -> str:
    """Which keys count: some images have none."""
    form = g.pick(*forms)
    if form == "lengths":
        return g.either(g.random.integers(0, keys + 1, batch).astype(np.int32))
    if form == "bounds":
        return g.either(g.random.integers(0, keys + 1, 2 * batch).astype(np.int32))
    mask = g.random.random((batch, queries, keys) if form == "rows" else (batch, keys)) < g.pick(0.2, 0.7)
    return g.either(mask.astype(np.int32)) if form else ""


@case
def multi_head_attention(g):
    batch, heads, queries, new = g.between(1, 3), g.between(1, 3), g.size(9), g.size(9)
    size, v_size = g.between(1, 8), g.between(1, 8)
    causal = g.chance(0.3)
    past = g.between(1, 3) if g.chance(0.3) and size == v_size else 0
    new = queries if causal else new
    q, k = (g.input(_exact(g, batch, length, heads * size)) for length in (queries, new))
    v = g.input(g.normal(batch, new, heads * v_size))
    bias = g.either(_exact(g, heads * (2 * size + v_size))) if g.chance() else ""
    forms = (None, "keys", "rows") if past else (None, "keys", "rows", "lengths")
    mask = _key_mask(g, batch, new + past, queries, forms)
    added = g.either(_exact(g, g.pick(1, batch), g.pick(1, heads), queries, new + past)) if g.chance() else ""
    operands = [q, k, v, bias, mask, added]
    if past:
        operands += [g.input(_exact(g, batch, heads, past, size)), g.input(g.normal(batch, heads, past, v_size))]
    while operands[-1] == "":
        operands.pop()
    attributes = {"num_heads": heads, "scale": 0.25, "unidirectional": 1 if causal else None}
    return g.node("MultiHeadAttention", *operands, outputs=3 if past else 1, **attributes, **MICROSOFT)


@case
def packed_attention(g):
    batch, heads, length, size, width = g.between(1, 3), g.between(1, 3), g.size(9), g.between(1, 8), g.between(1, 4)
    weights = g.constant(_exact(g, width, 3 * heads * size))
    operands = [g.input(_exact(g, batch, length, width)), weights, g.constant(_exact(g, 3 * heads * size))]
    operands.append(_key_mask(g, batch, length, length, (None, "keys", "rows", "lengths", "bounds")))
    if operands[-1] == "":
        operands.pop()
    causal = 1 if g.chance(0.3) else None
    return g.node("Attention", *operands, num_heads=heads, scale=0.25, unidirectional=causal, **MICROSOFT)


@case
def quantized_images_with_channels_last(g):
    """What ONNX Runtime makes of a quantized network when it saves the optimized model; all sums are exact."""
    channels, groups, out, sides = g.size(9), g.pick(1, 2), g.size(9), [g.between(3, 9), g.between(3, 9)]
    scale, zero = lambda value: g.constant(np.float32(value)), lambda: g.constant(np.uint8(g.pick(0, 128, 131)))
    x, x_scale = g.input(_integers(g, np.dtype("u1"), (g.between(1, 2), *sides, channels * groups))), [scale(0.25), zero()]
    weights = g.random.integers(-9, 9, (out * groups, channels, 3, 3)).astype(np.int8)
    weights = [g.constant(weights), scale(0.125), g.constant(np.int8(0))]
    bias = [g.constant(g.random.integers(-99, 99, out * groups).astype(np.int32))] if g.chance() else []
    pads = {"pads": [g.between(0, 1) for _ in range(4)]}
    y_scale = [scale(2.0), zero()]
    y = g.node(
        "QLinearConv", x, *x_scale, *weights, *y_scale, *bias, channels_last=1, group=groups, kernel_shape=[3, 3],
        strides=[g.between(1, 2)] * 2, **pads, **MICROSOFT,
    )  # fmt: skip
    if g.chance():
        y = g.node("NhwcMaxPool", y, kernel_shape=[2, 2], pads=[1, 1, 1, 1], **MICROSOFT)
    if g.chance():
        return y
    return g.node("QLinearGlobalAveragePool", y, *y_scale, *y_scale, channels_last=1, **MICROSOFT)


@case
def qlinear_softmax(g):
    shape = g.shape()
    scale = lambda value: g.constant(np.float32(value))
    zero = lambda: g.constant(np.uint8(g.pick(0, 128)))
    x = g.input(_integers(g, np.dtype("u1"), shape))
    operands = [x, scale(0.05), zero(), scale(1 / 256), g.constant(np.uint8(0))]
    y = g.node("QLinearSoftmax", *operands, axis=g.between(-len(shape), len(shape) - 1), opset=13, **MICROSOFT)
    # A value halfway between two steps may round to either.
    return g.node("DequantizeLinear", y, scale(1 / 256), g.constant(np.uint8(0)))


@case
def quantize_by_block(g):
    g.opset = 21
    block, blocks, rows, dtype = g.between(1, 5), g.between(1, 4), g.size(9), np.dtype(g.pick("u1", "i1", "i2"))
    x, scale = g.normal(rows, block * blocks, scale=20.0), g.positive(rows, blocks)
    zero = _integers(g, dtype, (rows, blocks))
    return g.node("QuantizeLinear", g.input(x), g.either(scale), g.constant(zero), axis=1, block_size=block)


@case
def cache_updates(g):
    g.opset, g.reference = 24, True
    batch, heads, width, steps = g.between(1, 3), g.between(1, 2), g.between(1, 5), g.between(1, 3)
    room, mode = steps + g.between(0, 4), g.pick("linear", "circular")
    most = room - steps if mode == "linear" else room - 1
    operands = [g.input(g.normal(batch, heads, room, width)), g.input(g.normal(batch, heads, steps, width))]
    if g.chance(0.8):
        operands.append(g.either(g.random.integers(0, most + 1, batch)))
    return g.node("TensorScatter", *operands, mode=mode, axis=-2)

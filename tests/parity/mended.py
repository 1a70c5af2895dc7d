"""Families of graphs that once gave a wrong value or were refused without need, found by `fuzz.check`: operands of
different precision, rare types and empty lists, defaults of operators of ONNX Runtime.
"""

import numpy as np
from onnx import TensorProto, numpy_helper

from parity.cases import AS_PACKAGES, case
from parity.graph import Graph

MICROSOFT = {"domain": "com.microsoft"}


def _halves(g: Graph, *shape) -> np.ndarray:
    return g.normal(*shape).astype(np.float16)


@case
def constant_of_shape_of_halves(g):
    value = numpy_helper.from_array(np.array([0.25], np.float16), "value")
    made = g.node("ConstantOfShape", g.ints(3, 4), value=value)
    return made, g.node("Add", made, g.input(_halves(g, 3, 1)))


@case
def power_of_other_precision(g):
    left, right = g.pick((np.float32, np.float16), (np.float16, np.float32), (np.float64, np.float16))
    shape = g.shape()
    return g.node("Pow", g.input(g.positive(*shape).astype(left)), g.either(g.positive(*shape).astype(right)))


@case
def dropout_with_a_half_ratio(g):
    return g.node("Dropout", g.input(g.normal(*g.shape())), g.constant(0.5, np.float16))


@case
def batch_normalization_of_mixed_precision(g):
    g.opset = 15
    shape = g.shape(g.between(2, 4), 9)
    data, parameters, statistics = g.pick("f4", "f2"), g.pick("f4", "f2"), g.pick("f4", "f2")
    make = lambda dtype: g.either(g.positive(shape[1]).astype(dtype))
    operands = [make(parameters), make(parameters), make(statistics), make(statistics)]
    return g.node("BatchNormalization", g.input(g.normal(*shape).astype(data)), *operands)


@case
def batch_normalization_of_f64(g):
    shape = g.shape(g.between(2, 4), 9)
    operands = [g.either(g.positive(shape[1]).astype(np.float64)) for _ in range(4)]
    return g.node("BatchNormalization", g.input(g.normal(*shape).astype(np.float64)), *operands)


@case
def layer_normalization_statistics_of_halves(g):
    """They are f32."""
    shape = g.shape(2, 18)
    operands = [g.input(_halves(g, *shape)), g.constant(_halves(g, shape[1]))]
    return g.node("LayerNormalization", *operands, outputs=3)


@case
def layer_normalization_with_a_scale_of_other_precision(g):
    """ONNX Runtime has one before opset 17, whose result has the type of the scale."""
    g.opset, g.is_standard = 12, False
    shape = g.shape(2, 18)
    return g.node("LayerNormalization", g.input(_halves(g, *shape)), g.input(g.normal(shape[1])))


@case
def mel_weights_of_half_edges(g):
    ends = [g.constant(value, np.int64) for value in (4, 16, 8000)] + [g.constant(value, np.float16) for value in (0, 3000)]
    return g.node("MatMul", g.input(g.normal(3, 9)), g.node("MelWeightMatrix", *ends))


@case
def quantized_without_zero_points(g):
    """The result has the type of the operand."""
    dtype, shape = g.pick(np.int8, np.uint8), g.shape(g.between(1, 3))
    x = g.input(g.random.integers(0, 100, shape).astype(dtype))
    scales = [g.constant(np.float32(scale)) for scale in (0.07, 0.013)]
    return g.node(g.pick("QLinearSigmoid", "QLinearLeakyRelu"), x, scales[0], "", scales[1], "", **MICROSOFT)


@case
def shrink_of_integers(g):
    """Only the result is rounded, toward 0."""
    x = g.input(g.random.integers(-9, 10, g.shape()).astype(g.pick(np.int8, np.int32, np.int64)))
    return g.node("Shrink", x, bias=g.pick(0.3, 1.7), lambd=g.pick(0.5, 2.5))


@case
def thresholds_of_nan(g):
    """What is not beyond the threshold is 0."""
    x = g.normal(*g.shape())
    x[g.random.random(x.shape) < 0.3] = np.nan
    return g.node(g.pick("Shrink", "ThresholdedRelu"), g.input(x))


@case
def logarithms_of_sums_of_integers(g):
    """Only the result is rounded. ONNX Runtime rounds powers too, so that here the largest one decides."""
    g.opset = 13
    shape, dtype = g.shape(g.between(1, 3), 9), g.pick(np.int32, np.int64)
    x = 5 * g.random.permutation(int(np.prod(shape))).reshape(shape) + 5
    op = g.pick("ReduceLogSum", "ReduceLogSumExp")
    return g.node(op, g.input(x.astype(dtype)), axes=[g.between(0, len(shape) - 1)])


@case
def squeeze_of_no_axes(g):
    """An empty list stands for all axes of length 1."""
    shape = tuple(1 if g.chance() else dim for dim in g.shape(g.between(1, 4)))
    return g.node("Squeeze", g.input(g.normal(*shape)), g.ints())


@case
def shapes_of_positions(g):
    """They follow from how many positions there are, not from the most."""
    found = g.node("NonZero", g.input(g.random.random(g.shape(2, 6)) < g.pick(0, 0.3)))
    if g.chance():
        return g.node("EyeLike", found)
    return g.node("Dropout", g.node("Cast", found, to=TensorProto.FLOAT), outputs=2)


@case
def pad_wrap_of_what_is_left(g):
    """Negative pads crop first."""
    g.opset = 19
    dim = g.between(3, 9)
    pads = g.pick((g.between(1, 3), -g.between(1, 2)), (-g.between(1, 2), g.between(1, 3)))
    return g.node("Pad", g.input(g.normal(2, dim)), g.ints(0, pads[0], 0, pads[1]), mode="wrap")


@case
def slice_backwards_from_outside(g):
    """A start before the first element is clamped to it, even if the slice goes backwards."""
    shape = g.shape(1, 9)
    start, end = -shape[0] - g.between(1, 3), g.pick(-(2**31), -shape[0] - 9)
    return g.node("Slice", g.input(g.normal(*shape)), g.ints(start), g.ints(end), g.ints(0), g.ints(-g.between(1, 2)))


@case
def skip_normalization_without_epsilon(g):
    """The default is 1e-12, which shows with small sums."""
    shape = (g.between(1, 3), g.between(1, 4), 2)
    op = g.pick("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    operands = [g.input(g.normal(*shape, scale=1e-3)) for _ in range(2)]
    return g.node(op, *operands, g.constant(g.normal(2)), **MICROSOFT)


@case
def dequantize_with_a_short_block(g):
    g.opset = 21
    dims, axis, block = list(g.shape(g.between(1, 3), 10)), 0, g.between(2, 4)
    axis = g.between(-len(dims), len(dims) - 1)
    parts = list(dims)
    parts[axis] = g.between(2, 4)
    dims[axis] = parts[axis] * block - g.between(1, block - 1)
    x, scale = g.input(g.random.integers(0, 255, dims).astype(np.uint8)), g.either(g.positive(*parts))
    zero = g.either(g.random.integers(0, 255, parts).astype(np.uint8))
    return g.node("DequantizeLinear", x, scale, zero, axis=axis, block_size=block)


@case
def rotary_from_a_first_position(g):
    batch, heads, length, half = g.between(1, 2), g.between(1, 3), g.size(9), g.between(1, 4)
    dims = g.pick((batch, length, heads * 2 * half), (batch, heads, length, 2 * half))
    tables = [g.constant(g.normal(length + 5, half)) for _ in range(2)]
    return g.node("RotaryEmbedding", g.input(g.normal(*dims)), g.either(np.array([g.between(0, 5)])), *tables, **MICROSOFT)


@case
def attention_without_trailing_operands(g):
    """They may be listed without a name."""
    x = [g.input(g.normal(2, 3, 8)) for _ in range(3)]
    return g.node("MultiHeadAttention", *x, *[""] * 7, num_heads=2, **MICROSOFT)


@case
def embedded_words_with_a_mask(g):
    batch, length, width, words = g.between(1, 2), g.size(9), g.size(18), g.between(2, 9)
    indices = lambda below: g.input(g.random.integers(0, below, (batch, length)).astype(np.int32))
    tables = [g.constant(g.normal(words, width)), g.constant(g.normal(length, width))]
    parameters = [g.constant(g.normal(width)) for _ in range(2)]
    operands = [indices(words), "", *tables, "", *parameters, indices(2)]
    return g.node("EmbedLayerNormalization", *operands, outputs=2, **MICROSOFT)


@case
def one_hot_encoder(g):
    categories = [int(key) for key in g.random.permutation(9)[: g.between(1, 6)]]
    zeros = g.between(0, 1)
    shape = g.shape(g.between(1, 2), 9)
    x = g.random.integers(0, 9, shape) if zeros else g.random.choice(categories, shape)
    dtype = g.pick(np.float32, np.float64, np.int64)
    return g.node("OneHotEncoder", g.input(x.astype(dtype)), cats_int64s=categories, zeros=zeros, domain="ai.onnx.ml")


@case
def suppression_without_a_number_of_boxes(g):
    """The default is 0."""
    boxes = g.input(g.positive(1, 4, 4))
    found = g.node("NonMaxSuppression", boxes, g.input(g.positive(1, 2, 4)))
    return g.node("Concat", found, g.constant(np.array([[1, 2, 3]])), axis=0)


@case
def suppression_of_a_detector(g):
    """Thousands of boxes for each of many classes, of which few are kept: once refused for the pairs of all boxes."""
    count, classes, most = g.pick((1, 1, 1), (7, 3, 9), (300, 20, 5), (4000, 80, 20))
    corners = g.random.uniform(0, 60, (1, count, 2))
    boxes = np.concatenate([corners, corners + g.random.uniform(1, 9, (1, count, 2))], -1).astype(np.float32)
    # No two are equal.
    scores = (g.random.permutation(classes * count) / (classes * count)).reshape(1, classes, count)
    thresholds = [g.constant(np.array([number], np.float32)) for number in (0.5, 0.9)]
    operands = [g.input(boxes), g.input(scores.astype(np.float32)), g.constant(np.array([most])), *thresholds]
    return g.node("NonMaxSuppression", *operands)


@case
def cross_entropy_of_f64(g):
    classes = g.between(2, 5)
    scores = g.input(g.normal(3, classes).astype(np.float64))
    return g.node("SoftmaxCrossEntropyLoss", scores, g.either(g.random.integers(0, classes, 3)), outputs=2)


@case
def hardmax_of_nothing(g):
    x = g.input(np.zeros((0, 3), np.float32))
    return g.node("Concat", g.node("Hardmax", x), g.input(g.normal(1, 3)), axis=0)


@case
def transposed_product(g):
    m, k, n = g.size(), g.size(), g.size()
    return g.node("TransposeMatMul", g.input(g.normal(k, m)), g.either(g.normal(k, n)), transA=1, alpha=0.5, **MICROSOFT)


@case
def nearest_of_other_types(g):
    """In packages too: they once needed the fallback."""
    dtype = np.dtype(g.pick("i4", "i8", "f8", "i2"))
    g.reference = dtype != np.int32
    shape = (g.between(1, 2), g.between(1, 3), g.between(1, 6), g.between(1, 6))
    x = g.input(g.random.integers(-99, 99, shape).astype(dtype))
    if not g.reference and g.chance(0.3):
        g.opset = 9
        return g.node("Upsample", x, g.constant((1, 1, g.pick(1, 2), 3), np.float32), mode="nearest")
    attributes = {"coordinate_transformation_mode": g.pick("half_pixel", "asymmetric", "align_corners")}
    attributes["nearest_mode"] = g.pick("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    return g.node("Resize", x, "", "", g.ints(*shape[:2], g.between(1, 9), g.between(1, 9)), mode="nearest", **attributes)


@case
def pad_with_a_computed_value(g):
    """In packages too."""
    dtype, shape = np.dtype(g.pick("f4", "i4", "i8")), g.shape(g.between(1, 3), 9)
    pads = [g.between(-1, 3) if dim > 2 else g.between(0, 3) for dim in shape * 2]
    value = g.node("Neg", g.input(np.array(3, dtype)))
    return g.node("Pad", g.input((g.normal(*shape) * 9).astype(dtype)), g.ints(*pads), value)


AS_PACKAGES |= {"nearest_of_other_types", "pad_with_a_computed_value"}


@case
def flatten_of_a_scalar(g):
    g.reference = True
    return g.node("Flatten", g.node("Relu", g.input(np.float32(g.normal(1)[0]))))


@case
def absolute_values_of_nothing(g):
    """The fallback returned signed integers."""
    dtype = g.pick(np.uint32, np.uint64)
    return g.node("Abs", g.constant(np.zeros((g.pick(0, 3), 2), dtype)))


@case
def squeeze_by_an_input_without_elements(g):
    """The fallback took it for no axes."""
    return g.node("Squeeze", g.input(g.normal(1, 9)), g.input(np.zeros(0, np.int64)))


@case
def sums_and_products_of_bytes(g):
    """A result between two steps is rounded as in ONNX Runtime; the second operand may be smaller."""
    dtype = np.dtype(g.pick("u1", "i1"))
    limits, shape = np.iinfo(dtype), g.shape(g.between(1, 3))
    other = g.pick(shape, shape[g.between(0, len(shape)) :])
    draw = lambda shape: g.random.integers(limits.min, limits.max + 1, shape).astype(dtype)
    scales = [g.constant(g.pick(0.05, 0.1, 0.25, 0.3), np.float32) for _ in range(3)]
    zeros = [g.constant(g.between(0, 20), dtype) for _ in range(3)]
    (a_scale, b_scale, y_scale), (a_zero, b_zero, y_zero) = scales, zeros
    operands = (g.input(draw(shape)), a_scale, a_zero, g.input(draw(other)), b_scale, b_zero, y_scale, y_zero)
    return g.node(g.pick("QLinearAdd", "QLinearMul"), *operands, **MICROSOFT)


def _behind(g: Graph, array: np.ndarray) -> str:
    """A constant as exporters leave it behind nodes: half precision, quantized, transposed, or several of these."""
    turned = np.arange(array.ndim)
    turned[-2:] = turned[-2:][::-1]
    match g.between(0, 4):
        case 0:
            return g.node("Cast", g.constant(array.astype(np.float16)), to=1)
        case 1:
            return g.node("Transpose", g.constant(array.transpose(turned)), perm=turned.tolist())
        case 2:
            return g.node("Identity", g.node("Identity", g.constant(array)))
        case 3:
            scale = np.float32(np.abs(array).max() / 127)
            return g.node("DequantizeLinear", g.constant(np.round(array / scale).astype(np.int8)), g.constant(scale))
    return g.node("Transpose", g.node("Cast", g.constant(array.astype(np.float64).transpose(turned)), to=1), perm=turned.tolist())


@case
def experts_behind_nodes(g):
    """Matrices of a mixture that are constants only after some nodes, small and large ones."""
    width, hidden, experts, tokens = g.pick(6, 200), g.pick(7, 130), g.between(2, 4), g.between(1, 5)
    x, logits = g.input(g.normal(tokens, width)), g.input(g.normal(tokens, experts))
    up, down = _behind(g, g.normal(experts, hidden, width, scale=0.1)), _behind(g, g.normal(experts, width, hidden, scale=0.1))
    return g.node("MoE", x, logits, up, "", down, k=g.between(1, 2), activation_type="relu", **MICROSOFT)


@case
def weights_of_few_bits_from_a_run(g):
    """Weights, scales or zero points of MatMulNBits that are not constants."""
    bits, block, rows = g.pick(4, 8), g.pick(16, 32), g.between(1, 9)
    depth = block * g.between(1, 3)
    blocks = depth // block
    weights = g.random.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8)
    operands = [g.input(g.normal(3, depth)), g.either(weights), g.either(g.normal(rows * blocks))]
    if g.chance():
        operands.append(g.either(g.random.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8)))
    return g.node("MatMulNBits", *operands, K=depth, N=rows, bits=bits, block_size=block, **MICROSOFT)


@case
def quantized_lstm(g):
    """com.microsoft DynamicQuantizeLSTM, for one sequence: ONNX Runtime may quantize each of several on its own."""
    steps, width, hidden = g.between(1, 6), g.between(1, 9), g.between(1, 9)
    directions = g.between(1, 2)
    bytes_of = lambda rows: g.constant(g.random.integers(-127, 128, (directions, rows, 4 * hidden)).astype(np.int8))
    scales = lambda: g.constant(g.random.uniform(0.002, 0.01, directions).astype(np.float32))
    zeros = lambda: g.constant(np.zeros(directions, np.int8))
    bias = g.constant(g.normal(directions, 8 * hidden)) if g.chance() else ""
    states = [g.input(g.normal(directions, 1, hidden)) if g.chance() else "" for _ in range(2)]
    if not all(states):
        states = ["", ""]
    x = g.input(g.normal(steps, 1, width))
    operands = [x, bytes_of(width), bytes_of(hidden), bias, "", *states, "", scales(), zeros(), scales(), zeros()]
    direction = "bidirectional" if directions == 2 else g.pick("forward", "reverse")
    return g.node("DynamicQuantizeLSTM", *operands, outputs=3, hidden_size=hidden, direction=direction, **MICROSOFT)


def _bytes(g: Graph, *shape, dtype=np.uint8) -> np.ndarray:
    limits = np.iinfo(dtype)
    return g.random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def _scale(g: Graph, low: float = 0.01, high: float = 0.1) -> str:
    return g.constant(np.float32(g.random.uniform(low, high)))


@case
def choice_of_quantized(g):
    """com.microsoft QLinearWhere."""
    shape, dtype = g.shape(g.between(1, 3), 9), g.pick(np.uint8, np.int8)
    operands = [g.input(g.random.random(g.broadcastable(shape)) < 0.5)]
    for _ in range(2):
        operands += [g.input(_bytes(g, *shape, dtype=dtype)), _scale(g), g.constant(_bytes(g, dtype=dtype))]
    return g.node("QLinearWhere", *operands, _scale(g, 0.2, 0.3), g.constant(_bytes(g, dtype=dtype)), **MICROSOFT)


@case
def attention_of_quantized(g):
    """com.microsoft QAttention, which ONNX Runtime's quantization makes of a fused Attention."""
    heads, size, batch, length, width = g.between(1, 3), g.between(1, 4), g.between(1, 2), g.between(1, 6), g.between(1, 9)
    rows = 3 * heads * size
    x = g.input(_bytes(g, batch, length, width))
    weights = g.constant(_bytes(g, width, rows, dtype=np.int8))
    mask = g.input((np.arange(length) < g.between(1, length)).astype(np.int32)[None].repeat(batch, 0)) if g.chance() else ""
    operands = [x, weights, g.constant(g.normal(rows)), _scale(g, 0.01, 0.02), _scale(g, 0.005, 0.01), mask]
    operands += [g.constant(np.uint8(g.between(100, 150))), g.constant(np.int8(0))]
    return g.node("QAttention", *operands, num_heads=heads, unidirectional=g.between(0, 1), **MICROSOFT)


@case
def embeddings_of_quantized(g):
    """com.microsoft QEmbedLayerNormalization."""
    words, batch, length, width = g.between(3, 20), g.between(1, 2), g.between(1, 6), g.between(2, 17)
    ids = g.input(g.random.integers(0, words, (batch, length)).astype(np.int32))
    has_segments = g.chance()
    segments = g.input(g.random.integers(0, 2, (batch, length)).astype(np.int32)) if has_segments else ""
    tables = [g.constant(_bytes(g, rows, width)) for rows in (words, 8)]
    tables.append(g.constant(_bytes(g, 2, width)) if has_segments else "")
    tables += [g.constant(_bytes(g, width)) for _ in range(2)]
    missing = 2 if not has_segments else None
    scales = ["" if at == missing else _scale(g) for at in range(5)]
    zeros = ["" if at == missing else g.constant(np.uint8(g.between(100, 150))) for at in range(5)]
    return g.node("QEmbedLayerNormalization", ids, segments, *tables, "", *scales, *zeros, outputs=2, **MICROSOFT)


@case
def one_hot_of_values_from_a_run(g):
    indices = g.input(g.random.integers(-4, 5, g.shape(g.between(1, 3), 9)))
    return g.node("OneHot", indices, g.constant(5, np.int64), g.input(g.normal(2)), axis=g.between(-2, 1))


@case
def distances_of_rows(g):
    """com.microsoft CDist, by which converted nearest neighbors find theirs."""
    width, dtype = g.between(1, 9), g.pick(np.float32, np.float64)
    rows = [g.normal(g.between(1, 9), width).astype(dtype) for _ in range(2)]
    return g.node("CDist", g.input(rows[0]), g.either(rows[1]), metric=g.pick("euclidean", "sqeuclidean"), **MICROSOFT)


AS_PACKAGES.update(("choice_of_quantized", "attention_of_quantized", "embeddings_of_quantized"))
AS_PACKAGES.update(("distances_of_rows", "one_hot_of_values_from_a_run", "quantized_lstm", "experts_behind_nodes", "weights_of_few_bits_from_a_run"))
